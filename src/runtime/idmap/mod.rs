//! Which host ids a container's ids are, and who may write that into the kernel.
//!
//! [`plan()`] is the decision, [`write()`] the act ([`crate::runtime::spawn`] does the second).
//!
//! An ordinary user's container 0 is the user, 1 and up are all its ranges of /etc/subuid and
//! /etc/subgid (lines by name or by uid), one after the other, as with podman; `--userns=host` means
//! the same. `keep-id` puts the user at another container id and closes the gap, `nomap` and
//! `auto` leave the user out.
//!
//! The machine's root: container ids from 0 on are root's own subuid ranges, or else the 65536 ids
//! from 1879048192 on, which no distribution hands out. Host id 0 is never mapped, on any rung; `keep-id`
//! is then the same as the default. Root of a container (nested use) is an ordinary user who can
//! write maps: its container 0 is itself, the rest its subuid lines or else all other ids it has.
//!
//! Rungs, tried in this order: [`Rung::Direct`], [`Rung::Helper`], [`Rung::Newuidmap`],
//! [`Rung::SingleId`]; `RLESS_IDMAP=direct|helper|newuidmap|single` forces one.

mod plan;
mod subid;
mod tools;
mod write;

use std::fs;

use nix::unistd::{User, getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::error::{Result, ResultExt, failed};
use crate::sys::caps;
use plan::{Caller, Ids, ROOT_RANGE};
pub use write::{Pending, start, write};

/// One line of a uid or gid map: `count` ids from `container` on are the host's from `host` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id inside the container.
    pub container: u32,
    /// First id in the caller's own namespace.
    pub host: u32,
    /// Number of ids, at least 1.
    pub count: u32,
}

/// Who writes the maps; each rung needs less from the host than the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// We hold CAP_SETUID and CAP_SETGID (root) and write them ourselves.
    Direct,
    /// `rless-idmap`, by its file capabilities.
    Helper,
    /// The system's `newuidmap` and `newgidmap`.
    Newuidmap,
    /// Only the caller's own id can be mapped, to one container id.
    SingleId,
}

/// What `--userns` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Userns {
    /// Container 0 is the caller, 1.. are the subordinate ids (podman's rootless default and `host`).
    #[default]
    Default,
    /// The caller keeps its ids (or gets these) inside; container 0.. are subordinate ids.
    KeepId {
        /// Container uid of the caller; its own uid if `None`.
        uid: Option<u32>,
        /// Container gid of the caller; its own gid if `None`.
        gid: Option<u32>,
    },
    /// The caller is not mapped at all: container 0.. are subordinate ids.
    NoMap,
    /// Like [`Userns::NoMap`] with `size` ids that no range in `avoid` (host ids) touches.
    Auto {
        /// Number of ids.
        size: u32,
        /// Host ranges that other containers hold.
        avoid: Vec<IdRange>,
    },
    /// `--uidmap`/`--gidmap`: host ids are podman's intermediate ones (0 = caller, 1.. =
    /// subordinate ids); for root they are host ids.
    Explicit {
        /// uid lines.
        uids: Vec<IdRange>,
        /// gid lines.
        gids: Vec<IdRange>,
    },
}

/// A planned mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Lines of uid_map.
    pub uids: Vec<IdRange>,
    /// Lines of gid_map.
    pub gids: Vec<IdRange>,
    /// Who writes them.
    pub rung: Rung,
    /// One sentence for `rless info`: why this rung.
    pub reason: String,
}

impl Mapping {
    /// Host uid of a container uid.
    #[must_use]
    pub fn host_uid(&self, container: u32) -> Option<u32> {
        to_host(&self.uids, container)
    }

    /// Host gid of a container gid.
    #[must_use]
    pub fn host_gid(&self, container: u32) -> Option<u32> {
        to_host(&self.gids, container)
    }
}

/// Plans the mapping for `userns`; `forced` (or else the environment's `RLESS_IDMAP`) picks the rung.
///
/// # Errors
/// A fault that names the ids or the tool that is missing.
pub fn plan(userns: &Userns, forced: Option<Rung>) -> Result<Mapping> {
    let forced = match forced {
        Some(rung) => Some(rung),
        None => match std::env::var("RLESS_IDMAP") {
            Ok(name) if !name.is_empty() => Some(plan::parse_rung(&name)?),
            _ => None,
        },
    };
    let caller = caller();
    let (rung, reason) = match forced {
        Some(rung) => (rung, forced_reason(&caller, rung)?),
        None => plan::rung(
            &caller,
            || tools::helper().map(|p| format!("{} has its capabilities", p.display())),
            || tools::newuidmap().map(|(p, _)| format!("{} is privileged", p.display())),
        ),
    };
    let (uids, gids) = match rung {
        Rung::SingleId => plan::single(&caller, userns),
        _ => plan::full(&caller, userns),
    }
    .fault(|| failed(format!("mapping ids ({reason})")))?;
    Ok(Mapping {
        uids,
        gids,
        rung,
        reason,
    })
}

/// Checks that a forced rung can work.
fn forced_reason(caller: &Caller, rung: Rung) -> Result<String> {
    match rung {
        Rung::Direct if !caller.privileged => {
            return Err(
                failed("RLESS_IDMAP=direct: writing maps needs CAP_SETUID and CAP_SETGID").into(),
            );
        }
        Rung::Helper => drop(tools::helper().map_err(failed)?),
        Rung::Newuidmap => drop(tools::newuidmap().map_err(failed)?),
        Rung::Direct | Rung::SingleId => {}
    }
    Ok("forced by RLESS_IDMAP".to_owned())
}

/// What this process has.
fn caller() -> Caller {
    let (uid, gid) = (geteuid(), getegid());
    let entry = User::from_uid(uid).ok().flatten();
    let objection = match &entry {
        None => Some(format!("uid {uid} has no passwd entry")),
        Some(user) if user.gid != gid => Some(format!(
            "the current group {gid} is not the login group {} (newgrp, sg?)",
            user.gid
        )),
        Some(_) => None,
    };
    let name = entry.map(|u| u.name);
    let held = caps::get().map_or(0, |sets| sets.effective);
    let privileged = held & (1 << caps::SETUID) != 0 && held & (1 << caps::SETGID) != 0;
    let ids = |own: u32, table: &str, map: &str| {
        let map = read_map(map);
        let initial = map == [(0, 0, u32::MAX)];
        let table = fs::read_to_string(table).unwrap_or_default();
        let mut pool = subid::grants(&table, name.as_deref(), uid.as_raw());
        if privileged && pool.is_empty() {
            if initial {
                pool.push(ROOT_RANGE);
            } else {
                for (inside, _, count) in &map {
                    subid::add(&mut pool, u64::from(*inside), u64::from(*count));
                }
            }
        }
        (Ids { own, pool }, initial)
    };
    let (uids, initial) = ids(uid.as_raw(), "/etc/subuid", "/proc/self/uid_map");
    let (gids, _) = ids(gid.as_raw(), "/etc/subgid", "/proc/self/gid_map");
    Caller {
        uids,
        gids,
        privileged,
        objection,
        host_root: initial && uid.is_root(),
    }
}

/// The lines of one of our own maps: (inside, outside, count).
fn read_map(path: &str) -> Vec<(u32, u32, u32)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some((next()?, next()?, next()?))
        })
        .collect()
}

/// Host id of a container id.
fn to_host(ranges: &[IdRange], container: u32) -> Option<u32> {
    ranges.iter().find_map(|r| {
        let offset = container.checked_sub(r.container)?;
        (offset < r.count).then(|| r.host + offset)
    })
}
