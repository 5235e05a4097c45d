//! /etc/subuid and /etc/subgid (subuid(5)): `owner:first:count` lines, owner a name or a number.
//!
//! Pure parser. A line that is malformed gives nothing, as with shadow's tools; id 0 and ids from
//! 2³²−1 on are never handed out, whatever a line says.

use super::IdRange;

/// Ids that may not be mapped: 2³²−1 means "no id".
const END: u64 = u32::MAX as u64;

/// Host ids granted to the user, in the files' order: (first, count).
pub(super) type Pool = Vec<(u32, u32)>;

/// The grants in `text` to the user `name` (if it has one) or `uid`, without overlaps between them.
pub(super) fn grants(text: &str, name: Option<&str>, uid: u32) -> Pool {
    let uid = uid.to_string();
    let mut pool = Pool::new();
    for line in text.lines() {
        let Some((owner, first, count)) = fields(line) else {
            continue;
        };
        if Some(owner) == name || owner == uid {
            add(&mut pool, first, count);
        }
    }
    pool
}

/// Splits a line; `None` if it is not one.
fn fields(line: &str) -> Option<(&str, u64, u64)> {
    let mut parts = line.trim().split(':');
    let owner = parts.next().filter(|o| !o.is_empty())?;
    let first = parts.next()?.parse().ok()?;
    let count = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((owner, first, count))
}

/// Adds what of `first..first+count` can be used and is not in the pool.
pub(super) fn add(pool: &mut Pool, first: u64, count: u64) {
    let start = first.max(1);
    let end = first.saturating_add(count).min(END);
    let mut pieces = if start < end {
        vec![(start, end)]
    } else {
        vec![]
    };
    for &(f, c) in pool.iter() {
        pieces = without(pieces, u64::from(f), u64::from(f) + u64::from(c));
    }
    pool.extend(pieces.into_iter().map(|(s, e)| (s as u32, (e - s) as u32)));
}

/// The pool without the ids of `holes`.
pub(super) fn except(pool: &Pool, holes: &[(u32, u32)]) -> Pool {
    let mut pieces: Vec<(u64, u64)> = pool
        .iter()
        .map(|&(f, c)| (u64::from(f), u64::from(f) + u64::from(c)))
        .collect();
    for &(f, c) in holes {
        pieces = without(pieces, u64::from(f), u64::from(f) + u64::from(c));
    }
    pieces
        .into_iter()
        .map(|(s, e)| (s as u32, (e - s) as u32))
        .collect()
}

/// `pieces` (start, end) without `start..end`.
fn without(pieces: Vec<(u64, u64)>, start: u64, end: u64) -> Vec<(u64, u64)> {
    pieces
        .into_iter()
        .flat_map(|(s, e)| [(s, e.min(start)), (s.max(end), e)])
        .filter(|(s, e)| s < e)
        .collect()
}

/// Number of ids in a pool.
pub(super) fn size(pool: &Pool) -> u64 {
    pool.iter().map(|&(_, c)| u64::from(c)).sum()
}

/// Maps container ids from `container` on to the pool's ids `skip..skip+count`, consecutively.
pub(super) fn lay_out(pool: &Pool, container: u32, skip: u64, count: u64) -> Vec<IdRange> {
    let mut ranges = Vec::new();
    let (mut skip, mut left, mut next) = (skip, count, u64::from(container));
    for &(first, length) in pool {
        let length = u64::from(length);
        if skip >= length {
            skip -= length;
            continue;
        }
        let take = (length - skip).min(left).min(END - next.min(END));
        if take == 0 {
            break;
        }
        ranges.push(IdRange {
            container: next as u32,
            host: (u64::from(first) + skip) as u32,
            count: take as u32,
        });
        next += take;
        left -= take;
        skip = 0;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_by_name_and_uid_in_order() {
        let text = "other:1:5\nann:100000:65536\n# ann:1:1\n1001:300000:10\nann:bad:1\nann:1:2:3\n";
        assert_eq!(
            grants(text, Some("ann"), 1001),
            [(100_000, 65536), (300_000, 10)]
        );
        assert_eq!(grants(text, None, 1001), [(300_000, 10)]);
    }

    #[test]
    fn id_zero_the_reserved_id_and_overflow_are_cut_off() {
        assert_eq!(grants("a:0:10", Some("a"), 1), [(1, 9)]);
        assert_eq!(
            grants("a:4294967290:100", Some("a"), 1),
            [(4_294_967_290, 5)]
        );
        assert_eq!(grants("a:4294967295:1", Some("a"), 1), []);
        assert_eq!(
            grants("a:10:18446744073709551615", Some("a"), 1),
            [(10, u32::MAX - 10)]
        );
        assert_eq!(
            grants("a:10:0\na:-1:5\na:99999999999999999999:1", Some("a"), 1),
            []
        );
    }

    #[test]
    fn overlapping_grants_count_once() {
        assert_eq!(
            grants("a:10:10\na:15:10\na:5:30", Some("a"), 1),
            [(10, 10), (20, 5), (5, 5), (25, 10)]
        );
    }

    #[test]
    fn layout_runs_over_range_ends() {
        let pool = vec![(100, 10), (500, 10)];
        assert_eq!(
            lay_out(&pool, 7, 8, 5),
            [
                IdRange {
                    container: 7,
                    host: 108,
                    count: 2
                },
                IdRange {
                    container: 9,
                    host: 500,
                    count: 3
                }
            ]
        );
    }
}
