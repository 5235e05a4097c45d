//! Look-up counts of inodes that have no memory of their own.
//!
//! The kernel counts every entry it gets and gives the counts back with FORGET. For an image's
//! inodes they are 32-bit counters in chunks made on first use; a chunk whose counters are all
//! zero again is handed back.

use super::meta::{rd, wr};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU32, Ordering};

const CHUNK: usize = 1024;

#[derive(Default)]
struct Chunk {
    counts: Option<Box<[AtomicU32]>>,
}

/// Counters for the inodes 1 to a number fixed at the start.
pub(crate) struct Counts {
    chunks: Vec<RwLock<Chunk>>,
}

impl Counts {
    pub(crate) fn new(inodes: u64) -> Counts {
        let n = usize::try_from(inodes).unwrap_or(usize::MAX - CHUNK) / CHUNK + 1;
        Counts {
            chunks: (0..n).map(|_| RwLock::default()).collect(),
        }
    }

    fn place(&self, ino: u64) -> Option<(&RwLock<Chunk>, usize)> {
        let i = usize::try_from(ino).ok()?;
        Some((self.chunks.get(i / CHUNK)?, i % CHUNK))
    }

    /// Counts one look-up.
    pub(crate) fn add(&self, ino: u64) {
        let Some((chunk, i)) = self.place(ino) else {
            return;
        };
        if let Some(counts) = &rd(chunk).counts {
            counts[i].fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut chunk = wr(chunk);
        let counts = chunk
            .counts
            .get_or_insert_with(|| (0..CHUNK).map(|_| AtomicU32::new(0)).collect());
        counts[i].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes `n` look-ups back; returns what is left.
    pub(crate) fn sub(&self, ino: u64, n: u64) -> u64 {
        let Some((chunk, i)) = self.place(ino) else {
            return 0;
        };
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        let left = match &rd(chunk).counts {
            Some(counts) => {
                let old = counts[i]
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |c| {
                        Some(c.saturating_sub(n))
                    })
                    .unwrap_or(0);
                old.saturating_sub(n)
            }
            None => 0,
        };
        if left == 0 {
            let idle = |c: &Chunk| {
                c.counts
                    .as_ref()
                    .is_some_and(|v| v.iter().all(|x| x.load(Ordering::Relaxed) == 0))
            };
            // Looked at only when the chunk's last inode goes: forgets come in order of age,
            // so most calls end at the first counter that is not zero.
            if idle(&rd(chunk)) {
                let mut chunk = wr(chunk);
                if idle(&chunk) {
                    chunk.counts = None;
                }
            }
        }
        u64::from(left)
    }

    pub(crate) fn get(&self, ino: u64) -> u64 {
        self.place(ino).map_or(0, |(chunk, i)| {
            rd(chunk)
                .counts
                .as_ref()
                .map_or(0, |c| u64::from(c[i].load(Ordering::Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_to_zero_and_chunks_are_given_back() {
        let c = Counts::new(5000);
        for ino in 1..=5000 {
            c.add(ino);
            c.add(ino);
        }
        assert_eq!(c.get(4096), 2);
        for ino in 1..=5000 {
            assert_eq!(c.sub(ino, 1), 1);
            assert_eq!(c.sub(ino, 1), 0);
        }
        assert!(c.chunks.iter().all(|x| rd(x).counts.is_none()));
        assert_eq!(c.sub(9, 3), 0);
    }
}
