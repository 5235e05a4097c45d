//! A set of block numbers kept as sorted, disjoint, non-touching half-open ranges.
//!
//! It says which 4 KiB blocks of a file are in the upper. A file written from front to back is
//! one range whatever its length.

use std::collections::BTreeMap;

/// Sorted disjoint ranges `start..end` of block numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    runs: Runs,
    blocks: u64,
}

/// Nearly every file has one range at most, which takes no memory beside the set itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Runs {
    /// None if both are the same: 0.
    One(u64, u64),
    /// Two and more.
    Many(BTreeMap<u64, u64>),
}

impl Default for Runs {
    fn default() -> Runs {
        Runs::One(0, 0)
    }
}

impl Runs {
    fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let (one, many) = match self {
            Runs::One(s, e) => ((s < e).then_some((*s, *e)), None),
            Runs::Many(map) => (None, Some(map)),
        };
        let many = many.into_iter().flat_map(|map| map.iter());
        one.into_iter().chain(many.map(|(s, e)| (*s, *e)))
    }

    /// The last range that starts at `block` or before.
    fn before(&self, block: u64) -> Option<(u64, u64)> {
        match self {
            Runs::One(s, e) => (s < e && *s <= block).then_some((*s, *e)),
            Runs::Many(map) => map.range(..=block).next_back().map(|(s, e)| (*s, *e)),
        }
    }

    /// The first range that starts at `block` or behind.
    fn behind(&self, block: u64) -> Option<(u64, u64)> {
        match self {
            Runs::One(s, e) => (s < e && *s >= block).then_some((*s, *e)),
            Runs::Many(map) => map.range(block..).next().map(|(s, e)| (*s, *e)),
        }
    }

    /// Adds a range that touches none, or sets the end of one.
    fn put(&mut self, start: u64, end: u64) {
        match self {
            Runs::One(s, e) if s == e || *s == start => *self = Runs::One(start, end),
            Runs::One(s, e) => {
                *self = Runs::Many([(*s, *e), (start, end)].into());
            }
            Runs::Many(map) => {
                map.insert(start, end);
            }
        }
    }

    /// Takes the range away that starts at `start`.
    fn take(&mut self, start: u64) {
        match self {
            Runs::One(s, _) if *s == start => *self = Runs::default(),
            Runs::One(..) => {}
            Runs::Many(map) => {
                map.remove(&start);
                if map.len() == 1
                    && let Some((s, e)) = map.pop_first()
                {
                    *self = Runs::One(s, e);
                }
            }
        }
    }
}

impl Ranges {
    /// Number of blocks in the set.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Number of ranges.
    pub(crate) fn runs(&self) -> usize {
        match &self.runs {
            Runs::One(s, e) => usize::from(s < e),
            Runs::Many(map) => map.len(),
        }
    }

    /// One past the highest block, or 0.
    pub(crate) fn end(&self) -> u64 {
        self.runs.before(u64::MAX).map_or(0, |(_, e)| e)
    }

    pub(crate) fn contains(&self, block: u64) -> bool {
        self.runs.before(block).is_some_and(|(_, e)| e > block)
    }

    /// Adds `start..end`; returns how many blocks are new.
    pub(crate) fn insert(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let (mut s, mut e) = (start, end);
        let mut swallowed = 0;
        // A predecessor that reaches us, then every range that starts inside or right behind.
        if let Some((ps, pe)) = self.runs.before(s)
            && pe >= s
        {
            if pe >= e {
                return 0;
            }
            self.runs.take(ps);
            swallowed += pe - ps;
            s = ps;
        }
        while let Some((ns, ne)) = self.runs.behind(s).filter(|(ns, _)| *ns <= e) {
            self.runs.take(ns);
            swallowed += ne - ns;
            e = e.max(ne);
        }
        self.runs.put(s, e);
        let added = (e - s) - swallowed;
        self.blocks += added;
        added
    }

    /// Removes `start..end`; returns how many blocks went.
    pub(crate) fn remove(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let mut gone = 0;
        if let Some((ps, pe)) = self.runs.before(start)
            && ps < start
            && pe > start
        {
            self.runs.put(ps, start);
            gone += pe.min(end) - start;
            if pe > end {
                self.runs.put(end, pe);
            }
        }
        while let Some((ns, ne)) = self.runs.behind(start).filter(|(ns, _)| *ns < end) {
            self.runs.take(ns);
            gone += ne.min(end) - ns;
            if ne > end {
                self.runs.put(end, ne);
            }
        }
        self.blocks -= gone;
        gone
    }

    /// How many blocks of `start..end` are not in the set.
    pub(crate) fn missing(&self, start: u64, end: u64) -> u64 {
        let mut missing = 0;
        let mut at = start;
        while at < end {
            let (inside, until) = self.run(at);
            let until = until.min(end);
            missing += if inside { 0 } else { until - at };
            at = until;
        }
        missing
    }

    /// The run at `block`: whether it is in the set, and the first block where that changes
    /// (`u64::MAX`: never).
    pub(crate) fn run(&self, block: u64) -> (bool, u64) {
        if let Some((_, e)) = self.runs.before(block)
            && e > block
        {
            return (true, e);
        }
        let next = self.runs.behind(block).map_or(u64::MAX, |(s, _)| s);
        (false, next)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(r: &Ranges, n: u64) -> Vec<bool> {
        (0..n).map(|b| r.contains(b)).collect()
    }

    #[test]
    fn agrees_with_a_bitmap_under_random_changes() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..200 {
            let mut r = Ranges::default();
            let mut bits = [false; 64];
            for _ in 0..100 {
                let a = next() % 64;
                let b = (a + next() % 12).min(64);
                let add = next() % 3 != 0;
                let part = &mut bits[a as usize..b as usize];
                let changed = part.iter().filter(|x| **x != add).count() as u64;
                part.fill(add);
                let got = if add { r.insert(a, b) } else { r.remove(a, b) };
                assert_eq!(got, changed);
                assert_eq!(model(&r, 64), bits);
                assert_eq!(r.blocks(), bits.iter().filter(|x| **x).count() as u64);
                let c = next() % 64;
                let (inside, until) = r.run(c);
                assert_eq!(inside, bits[c as usize]);
                for x in c..until.min(64) {
                    assert_eq!(bits[x as usize], inside);
                }
                let d = (c + next() % 20).min(64);
                let miss = bits[c as usize..d as usize].iter().filter(|x| !**x).count();
                assert_eq!(r.missing(c, d), miss as u64);
                assert_eq!(r.runs(), r.iter().count());
                assert_eq!(r.end(), r.iter().last().map_or(0, |(_, e)| e));
                // What is the same compares the same, however it came about.
                let mut again = Ranges::default();
                for (s, e) in r.iter() {
                    again.insert(s, e);
                }
                assert_eq!(r, again);
            }
            for ((_, e), (s, _)) in r.iter().zip(r.iter().skip(1)) {
                assert!(e < s, "ranges touch");
            }
        }
    }
}
