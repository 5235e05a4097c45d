//! Look-up counts of inodes that have no memory of their own.
//!
//! The kernel counts every entry it gets and gives the counts back with FORGET. For an image's
//! inodes they are 32-bit counters: 4 bytes for an inode the kernel knows, in pages that take
//! memory from their first use on; a page whose counters are all zero again is handed back (to the
//! kernel, not to the allocator, which would keep it).

use super::meta::{rd, wr};
use crate::sys::counters::Counters;
use std::io;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counters for the inodes 1 to a number fixed at the start.
pub(crate) struct Counts {
    counters: Counters,
    per_page: usize,
    /// Of each page: read by who counts, written by who hands it back.
    pages: Vec<RwLock<()>>,
}

impl Counts {
    /// # Errors
    /// There is no address space for them.
    pub(crate) fn new(inodes: u64) -> io::Result<Counts> {
        let len = usize::try_from(inodes)
            .ok()
            .and_then(|n| n.checked_add(1))
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let counters = Counters::new(len)?;
        let per_page = counters.per_page();
        Ok(Counts {
            pages: (0..len.div_ceil(per_page))
                .map(|_| RwLock::default())
                .collect(),
            counters,
            per_page,
        })
    }

    fn place(&self, ino: u64) -> Option<(usize, &RwLock<()>, &AtomicU32)> {
        let i = usize::try_from(ino).ok()?;
        let page = i / self.per_page;
        Some((page, self.pages.get(page)?, self.counters.get(i)?))
    }

    /// Counts one look-up.
    pub(crate) fn add(&self, ino: u64) {
        if let Some((_, lock, counter)) = self.place(ino) {
            let _guard = rd(lock);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes `n` look-ups back; returns what is left.
    pub(crate) fn sub(&self, ino: u64, n: u64) -> u64 {
        let Some((page, lock, counter)) = self.place(ino) else {
            return 0;
        };
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let (old, left) = {
            let _guard = rd(lock);
            let old = counter
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |c| {
                    Some(c.saturating_sub(n))
                })
                .unwrap_or(0);
            (old, old.saturating_sub(n))
        };
        // Looked at only when the page's last inode goes: forgets come in order of age, so most
        // calls end at the first counter that is not zero.
        if old > 0 && left == 0 && self.idle(page) {
            let _guard = wr(lock);
            if self.idle(page) {
                self.counters.clear(page);
            }
        }
        u64::from(left)
    }

    fn idle(&self, page: usize) -> bool {
        (page * self.per_page..(page + 1) * self.per_page)
            .map_while(|i| self.counters.get(i))
            .all(|c| c.load(Ordering::Relaxed) == 0)
    }

    pub(crate) fn get(&self, ino: u64) -> u64 {
        self.place(ino)
            .map_or(0, |(_, _, c)| u64::from(c.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_to_zero() {
        let c = Counts::new(5000).unwrap();
        for ino in 1..=5000 {
            c.add(ino);
            c.add(ino);
        }
        assert_eq!(c.get(4096), 2);
        for ino in 1..=5000 {
            assert_eq!(c.sub(ino, 1), 1);
            assert_eq!(c.sub(ino, 1), 0);
        }
        assert!((0..c.pages.len()).all(|p| c.idle(p)));
        assert_eq!(c.sub(9, 3), 0);
        assert_eq!(c.sub(5001, 3), 0);
        c.add(5001);
        assert_eq!(c.get(5001), 0);
    }

    #[test]
    fn no_count_is_lost_to_a_page_that_is_handed_back() {
        let c = Counts::new(3).unwrap();
        std::thread::scope(|s| {
            for ino in 1..=3 {
                let c = &c;
                s.spawn(move || {
                    for _ in 0..20_000 {
                        c.add(ino);
                        assert_eq!(c.sub(ino, 1), 0);
                        c.add(ino);
                        c.add(ino);
                        assert_eq!(c.sub(ino, 1), 1);
                        assert_eq!(c.sub(ino, 1), 0);
                    }
                });
            }
        });
    }
}
