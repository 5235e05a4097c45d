//! A set of block numbers kept as sorted, disjoint, non-touching half-open ranges.
//!
//! It says which 4 KiB blocks of a file are in the upper. A file written from front to back is
//! one range whatever its length.

use std::collections::BTreeMap;

/// Sorted disjoint ranges `start..end` of block numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    map: BTreeMap<u64, u64>,
    blocks: u64,
}

impl Ranges {
    /// Number of blocks in the set.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Number of ranges.
    pub(crate) fn runs(&self) -> usize {
        self.map.len()
    }

    /// One past the highest block, or 0.
    pub(crate) fn end(&self) -> u64 {
        self.map.last_key_value().map_or(0, |(_, e)| *e)
    }

    pub(crate) fn contains(&self, block: u64) -> bool {
        self.map
            .range(..=block)
            .next_back()
            .is_some_and(|(_, e)| *e > block)
    }

    /// Adds `start..end`; returns how many blocks are new.
    pub(crate) fn insert(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let (mut s, mut e) = (start, end);
        let mut swallowed = 0;
        // A predecessor that reaches us, then every range that starts inside or right behind.
        if let Some((&ps, &pe)) = self.map.range(..=s).next_back()
            && pe >= s
        {
            if pe >= e {
                return 0;
            }
            self.map.remove(&ps);
            swallowed += pe - ps;
            s = ps;
        }
        while let Some((&ns, &ne)) = self.map.range(s..=e).next() {
            self.map.remove(&ns);
            swallowed += ne - ns;
            e = e.max(ne);
        }
        self.map.insert(s, e);
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
        if let Some((&ps, &pe)) = self.map.range(..start).next_back()
            && pe > start
        {
            self.map.insert(ps, start);
            gone += pe.min(end) - start;
            if pe > end {
                self.map.insert(end, pe);
            }
        }
        while let Some((&ns, &ne)) = self.map.range(start..end).next() {
            self.map.remove(&ns);
            gone += ne.min(end) - ns;
            if ne > end {
                self.map.insert(end, ne);
            }
        }
        self.blocks -= gone;
        gone
    }

    /// How many blocks of `start..end` are not in the set.
    pub(crate) fn missing(&self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let mut have = 0;
        if let Some((_, &pe)) = self.map.range(..start).next_back()
            && pe > start
        {
            have += pe.min(end) - start;
        }
        for (&s, &e) in self.map.range(start..end) {
            have += e.min(end) - s;
        }
        (end - start) - have
    }

    /// The run at `block`: whether it is in the set, and the first block where that changes
    /// (`u64::MAX`: never).
    pub(crate) fn run(&self, block: u64) -> (bool, u64) {
        if let Some((_, &e)) = self.map.range(..=block).next_back()
            && e > block
        {
            return (true, e);
        }
        let next = self.map.range(block..).next().map_or(u64::MAX, |(s, _)| *s);
        (false, next)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.map.iter().map(|(s, e)| (*s, *e))
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
            }
            for ((_, e), (s, _)) in r.iter().zip(r.iter().skip(1)) {
                assert!(e < s, "ranges touch");
            }
        }
    }
}
