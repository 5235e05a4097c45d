//! The pure part of planning: from what the caller has to the lines of the maps.

use super::subid::{self, Pool, add, except, lay_out};
use super::{IdRange, Rung, Userns};
use crate::error::{Fault, Kind, failed, usage};

/// What root without a subuid line gets: ids that no distribution hands out (above systemd's
/// container range, below its foreign range).
pub(super) const ROOT_RANGE: (u32, u32) = (1_879_048_192, 65536);

/// One kind of id (uid or gid) of the caller.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    /// The caller's own id.
    pub own: u32,
    /// Subordinate ids.
    pub pool: Pool,
}

/// The caller.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// uids.
    pub uids: Ids,
    /// gids.
    pub gids: Ids,
    /// Holds CAP_SETUID and CAP_SETGID over its own namespace.
    pub privileged: bool,
    /// What the privileged helpers would hold against the caller's ids.
    pub objection: Option<String>,
    /// uid 0 of the machine itself (not of a container): its own ids are never mapped.
    pub host_root: bool,
}

/// Lines of both maps.
pub(super) type Lines = (Vec<IdRange>, Vec<IdRange>);

/// The maps for `userns` when more than one id can be mapped.
pub(super) fn full(caller: &Caller, userns: &Userns) -> Result<Lines, Fault> {
    let lines = match userns {
        Userns::Explicit { uids, gids } => (
            explicit(caller, &caller.uids, uids, "uid")?,
            explicit(caller, &caller.gids, gids, "gid")?,
        ),
        Userns::Auto { size, avoid } => (
            auto(&caller.uids, *size, avoid)?,
            auto(&caller.gids, *size, avoid)?,
        ),
        Userns::NoMap => (subordinate(&caller.uids), subordinate(&caller.gids)),
        // The machine's root has no id that may be mapped: all its containers are "nomap".
        Userns::Default | Userns::KeepId { .. } if caller.host_root => {
            (subordinate(&caller.uids), subordinate(&caller.gids))
        }
        Userns::Default => (keep(&caller.uids, 0), keep(&caller.gids, 0)),
        Userns::KeepId { uid, gid } => (
            keep(&caller.uids, uid.unwrap_or(caller.uids.own)),
            keep(&caller.gids, gid.unwrap_or(caller.gids.own)),
        ),
    };
    check(&lines.0, "uid", caller.host_root)?;
    check(&lines.1, "gid", caller.host_root)?;
    Ok(lines)
}

/// The maps for `userns` when only the caller's own ids can be mapped.
pub(super) fn single(caller: &Caller, userns: &Userns) -> Result<Lines, Fault> {
    let one = |container, host| {
        vec![IdRange {
            container,
            host,
            count: 1,
        }]
    };
    let (uid, gid) = match userns {
        Userns::Default => (0, 0),
        Userns::KeepId { uid, gid } => (
            uid.unwrap_or(caller.uids.own),
            gid.unwrap_or(caller.gids.own),
        ),
        Userns::Explicit { uids, gids } => match (uids.as_slice(), gids.as_slice()) {
            ([u], [g]) if (u.host, u.count, g.host, g.count) == (0, 1, 0, 1) => {
                (u.container, g.container)
            }
            _ => return Err(no_ids("the mapping asked for")),
        },
        Userns::NoMap => return Err(no_ids("--userns=nomap")),
        Userns::Auto { .. } => return Err(no_ids("--userns=auto")),
    };
    if caller.host_root {
        return Err(failed(
            "mapping the machine's root into a container: host id 0 is never mapped",
        ));
    }
    let lines = (one(uid, caller.uids.own), one(gid, caller.gids.own));
    check(&lines.0, "uid", false)?;
    check(&lines.1, "gid", false)?;
    Ok(lines)
}

/// What single-id mode cannot do.
fn no_ids(what: &str) -> Fault {
    failed(format!("{what} needs subordinate ids")).hint(
        "add a line for your user to /etc/subuid and /etc/subgid (usermod --add-subuids \
         100000-165535 --add-subgids 100000-165535 USER)",
    )
}

/// Container id `at` is the caller, the others are subordinate ids in order.
fn keep(ids: &Ids, at: u32) -> Vec<IdRange> {
    let pool = except(&ids.pool, &[(ids.own, 1)]);
    let below = subid::size(&pool).min(u64::from(at));
    let mut lines = lay_out(&pool, 0, 0, below);
    lines.push(IdRange {
        container: at,
        host: ids.own,
        count: 1,
    });
    lines.extend(lay_out(&pool, at.saturating_add(1), below, u64::MAX));
    lines
}

/// Container ids from 0 on are subordinate ids in order.
fn subordinate(ids: &Ids) -> Vec<IdRange> {
    lay_out(&except(&ids.pool, &[(ids.own, 1)]), 0, 0, u64::MAX)
}

/// `size` subordinate ids that nobody in `avoid` holds.
fn auto(ids: &Ids, size: u32, avoid: &[IdRange]) -> Result<Vec<IdRange>, Fault> {
    let mut holes: Vec<(u32, u32)> = avoid.iter().map(|r| (r.host, r.count)).collect();
    holes.push((ids.own, 1));
    let pool = except(&ids.pool, &holes);
    if size == 0 {
        return Err(usage("--userns=auto: the size must be at least 1"));
    }
    if subid::size(&pool) < u64::from(size) {
        return Err(failed(format!(
            "--userns=auto: {size} ids wanted, {} subordinate ids are free",
            subid::size(&pool)
        ))
        .hint("give a smaller size (--userns=auto:size=N) or end other containers"));
    }
    Ok(lay_out(&pool, 0, 0, u64::from(size)))
}

/// Lines given by the user, their host side translated from podman's intermediate ids.
fn explicit(
    caller: &Caller,
    ids: &Ids,
    lines: &[IdRange],
    what: &str,
) -> Result<Vec<IdRange>, Fault> {
    if caller.host_root {
        return Ok(lines.to_vec());
    }
    let mut pool: Pool = vec![(ids.own, 1)];
    for (first, count) in except(&ids.pool, &[(ids.own, 1)]) {
        add(&mut pool, u64::from(first), u64::from(count));
    }
    let mut out = Vec::new();
    for line in lines {
        let laid = lay_out(
            &pool,
            line.container,
            u64::from(line.host),
            u64::from(line.count),
        );
        let got: u64 = laid.iter().map(|r| u64::from(r.count)).sum();
        if got != u64::from(line.count) {
            return Err(failed(format!(
                "mapping {what}s {}:{}:{}: you have {} ids (0 is your own, then your subordinate ids)",
                line.container,
                line.host,
                line.count,
                subid::size(&pool)
            )));
        }
        out.extend(laid);
    }
    Ok(out)
}

/// What the kernel and `rless-idmap` would refuse, said in words.
fn check(lines: &[IdRange], what: &str, host_root: bool) -> Result<(), Fault> {
    if lines.is_empty() {
        return Err(no_ids(&format!("mapping {what}s")));
    }
    for (i, a) in lines.iter().enumerate() {
        let bad = |why: &str| {
            Err(usage(format!(
                "{what} mapping {}:{}:{}: {why}",
                a.container, a.host, a.count
            )))
        };
        let end = |first: u32| u64::from(first) + u64::from(a.count);
        if a.count == 0 {
            return bad("the count must be at least 1");
        }
        if end(a.container) > u64::from(u32::MAX) || end(a.host) > u64::from(u32::MAX) {
            return bad("ids must be below 4294967295");
        }
        if host_root && a.host == 0 {
            return bad("host id 0 is never mapped");
        }
        for b in &lines[..i] {
            let meets = |x: u32, y: u32| {
                u64::from(x) < u64::from(y) + u64::from(b.count) && u64::from(y) < end(x)
            };
            if meets(a.container, b.container) || meets(a.host, b.host) {
                return bad("it overlaps another line");
            }
        }
    }
    Ok(())
}

/// Which rung, given what each would say against itself.
pub(super) fn rung(
    caller: &Caller,
    helper: impl FnOnce() -> Result<String, String>,
    newuidmap: impl FnOnce() -> Result<String, String>,
) -> (Rung, String) {
    if caller.privileged {
        return (
            Rung::Direct,
            "the caller may write the maps itself (CAP_SETUID, CAP_SETGID)".into(),
        );
    }
    let missing = match (caller.uids.pool.is_empty(), caller.gids.pool.is_empty()) {
        (false, false) => caller.objection.as_deref(),
        (true, _) => Some("/etc/subuid has no line for this user"),
        (_, true) => Some("/etc/subgid has no line for this user"),
    };
    if let Some(reason) = missing {
        return (Rung::SingleId, reason.into());
    }
    let no_helper = match helper() {
        Ok(reason) => return (Rung::Helper, reason),
        Err(why) => why,
    };
    match newuidmap() {
        Ok(reason) => (Rung::Newuidmap, format!("{reason}; {no_helper}")),
        Err(why) => (Rung::SingleId, format!("{no_helper}; {why}")),
    }
}

/// A rung forced by name (`RLESS_IDMAP`).
pub(super) fn parse_rung(name: &str) -> Result<Rung, Fault> {
    match name {
        "direct" => Ok(Rung::Direct),
        "helper" => Ok(Rung::Helper),
        "newuidmap" => Ok(Rung::Newuidmap),
        "single" => Ok(Rung::SingleId),
        _ => Err(Fault::new(
            Kind::Usage,
            format!("RLESS_IDMAP={name}: expected helper, newuidmap, single or direct"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(container: u32, host: u32, count: u32) -> IdRange {
        IdRange {
            container,
            host,
            count,
        }
    }

    fn user() -> Caller {
        let ids = |own| Ids {
            own,
            pool: vec![(100_000, 1000), (500_000, 1000)],
        };
        Caller {
            uids: ids(1001),
            gids: ids(100),
            privileged: false,
            objection: None,
            host_root: false,
        }
    }

    fn root() -> Caller {
        let ids = || Ids {
            own: 0,
            pool: vec![ROOT_RANGE],
        };
        Caller {
            uids: ids(),
            gids: ids(),
            privileged: true,
            objection: None,
            host_root: true,
        }
    }

    #[test]
    fn default_is_caller_then_all_subordinate_ranges() {
        let (uids, gids) = full(&user(), &Userns::Default).unwrap();
        let expected = |own| {
            vec![
                line(0, own, 1),
                line(1, 100_000, 1000),
                line(1001, 500_000, 1000),
            ]
        };
        assert_eq!(uids, expected(1001));
        assert_eq!(gids, expected(100));
    }

    #[test]
    fn keep_id_leaves_no_gap() {
        let userns = Userns::KeepId {
            uid: None,
            gid: Some(33),
        };
        let (uids, gids) = full(&user(), &userns).unwrap();
        assert_eq!(
            uids,
            [
                line(0, 100_000, 1000),
                line(1000, 500_000, 1),
                line(1001, 1001, 1),
                line(1002, 500_001, 999)
            ]
        );
        assert_eq!(
            gids,
            [
                line(0, 100_000, 33),
                line(33, 100, 1),
                line(34, 100_033, 967),
                line(1001, 500_000, 1000)
            ]
        );
    }

    #[test]
    fn keep_id_above_the_pool_still_maps_the_caller() {
        let userns = Userns::KeepId {
            uid: Some(1_000_000),
            gid: None,
        };
        let (uids, _) = full(&user(), &userns).unwrap();
        assert_eq!(
            uids,
            [
                line(0, 100_000, 1000),
                line(1000, 500_000, 1000),
                line(1_000_000, 1001, 1)
            ]
        );
    }

    #[test]
    fn nobody_but_the_pool_is_mapped_for_nomap_and_for_root() {
        for (caller, userns) in [
            (user(), Userns::NoMap),
            (root(), Userns::Default),
            (
                root(),
                Userns::KeepId {
                    uid: None,
                    gid: None,
                },
            ),
            (root(), Userns::NoMap),
        ] {
            let own = caller.uids.own;
            let (uids, gids) = full(&caller, &userns).unwrap();
            assert!(
                uids.iter()
                    .chain(&gids)
                    .all(|l| l.host > 0 && l.host != own)
            );
            assert_eq!(uids[0].container, 0);
        }
    }

    #[test]
    fn explicit_lines_count_from_the_caller_and_split_at_range_ends() {
        let userns = Userns::Explicit {
            uids: vec![line(0, 1, 1500), line(2000, 0, 1)],
            gids: vec![line(0, 0, 1)],
        };
        let (uids, gids) = full(&user(), &userns).unwrap();
        assert_eq!(
            uids,
            [
                line(0, 100_000, 1000),
                line(1000, 500_000, 500),
                line(2000, 1001, 1)
            ]
        );
        assert_eq!(gids, [line(0, 100, 1)]);
    }

    #[test]
    fn impossible_lines_are_refused() {
        let explicit = |uids: Vec<IdRange>| Userns::Explicit {
            uids,
            gids: vec![line(0, 1, 1)],
        };
        for (caller, uids) in [
            (user(), vec![line(0, 0, 5000)]),
            (user(), vec![line(0, 0, 0)]),
            (user(), vec![line(u32::MAX, 0, 1)]),
            (user(), vec![line(0, 1, 10), line(9, 100, 1)]),
            (user(), vec![line(0, 1, 10), line(100, 10, 1)]),
            (user(), vec![]),
            (root(), vec![line(0, 0, 1)]),
            (root(), vec![line(0, u32::MAX - 1, 2)]),
        ] {
            let got = full(&caller, &explicit(uids.clone()));
            assert!(got.is_err(), "{uids:?} gave {got:?}");
        }
    }

    #[test]
    fn auto_steps_around_other_containers() {
        let userns = Userns::Auto {
            size: 600,
            avoid: vec![line(0, 100_000, 600)],
        };
        let (uids, _) = full(&user(), &userns).unwrap();
        assert_eq!(uids, [line(0, 100_600, 400), line(400, 500_000, 200)]);
        let all = Userns::Auto {
            size: 1500,
            avoid: vec![line(0, 100_000, 600)],
        };
        assert!(full(&user(), &all).is_err());
    }

    #[test]
    fn single_id_maps_the_caller_only() {
        let (uids, gids) = single(&user(), &Userns::Default).unwrap();
        assert_eq!(
            (uids, gids),
            (vec![line(0, 1001, 1)], vec![line(0, 100, 1)])
        );
        let keep = Userns::KeepId {
            uid: None,
            gid: None,
        };
        let (uids, gids) = single(&user(), &keep).unwrap();
        assert_eq!(
            (uids, gids),
            (vec![line(1001, 1001, 1)], vec![line(100, 100, 1)])
        );
        assert!(single(&user(), &Userns::NoMap).is_err());
        assert!(single(&root(), &Userns::Default).is_err());
    }

    #[test]
    fn rungs_are_tried_in_order_and_say_why() {
        let yes = || Ok("there".to_owned());
        let no = || Err("missing".to_owned());
        assert_eq!(rung(&root(), no, no).0, Rung::Direct);
        assert_eq!(rung(&user(), yes, yes).0, Rung::Helper);
        assert_eq!(
            rung(&user(), no, yes),
            (Rung::Newuidmap, "there; missing".into())
        );
        assert_eq!(rung(&user(), no, no).0, Rung::SingleId);
        let mut bare = user();
        bare.gids.pool.clear();
        assert_eq!(
            rung(&bare, yes, yes),
            (
                Rung::SingleId,
                "/etc/subgid has no line for this user".into()
            )
        );
    }
}
