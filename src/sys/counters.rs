//! A long table of counters that are mostly zero: memory only where they are not.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::AtomicU32;

use memmap2::{Advice, MmapMut, MmapRaw, UncheckedAdvice};

/// Counters that begin as zeros, in pages that take memory from their first change on.
pub(crate) struct Counters {
    map: MmapRaw,
    len: usize,
    page: usize,
}

impl Counters {
    /// `len` zeros.
    ///
    /// # Errors
    /// As mmap(2).
    pub(crate) fn new(len: usize) -> io::Result<Counters> {
        let bytes = len
            .checked_mul(size_of::<AtomicU32>())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(bytes.max(1))?;
        // Pages come and go one by one. Not every kernel has huge ones.
        let _ = map.advise(Advice::NoHugePage);
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(4096);
        Ok(Counters {
            map: map.into(),
            len,
            page,
        })
    }

    /// Counters in a page: what [`Counters::clear`] clears at once.
    pub(crate) fn per_page(&self) -> usize {
        self.page / size_of::<AtomicU32>()
    }

    /// The counter at a place.
    pub(crate) fn get(&self, i: usize) -> Option<&AtomicU32> {
        (i < self.len).then(|| {
            // SAFETY: within the mapping, which lives as long as `self`, begins at a page and is only ever used
            // through these atomics; any bits are a counter.
            unsafe { &*self.map.as_mut_ptr().cast::<AtomicU32>().add(i) }
        })
    }

    /// Makes all counters of a page zeros and gives its memory back. Changes at the same time may be lost.
    pub(crate) fn clear(&self, page: usize) {
        let at = page.saturating_mul(self.page);
        let len = self.page.min(self.map.len().saturating_sub(at));
        if len > 0 {
            // SAFETY: a private mapping of no file, whose pages come back as zeros; nothing but the atomics of `get`
            // refers to it, and zeros are counters too.
            let _ = unsafe {
                self.map
                    .unchecked_advise_range(UncheckedAdvice::DontNeed, at, len)
            };
        }
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Counters({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_page_is_cleared_and_its_neighbours_stay() {
        let counters = Counters::new(10_000).unwrap();
        let page = counters.per_page();
        for i in 0..10_000 {
            counters.get(i).unwrap().store(7, Relaxed);
        }
        assert!(counters.get(10_000).is_none());
        counters.clear(0);
        counters.clear(9_999 / page);
        counters.clear(usize::MAX);
        for i in 0..10_000 {
            let cleared = i < page || i / page == 9_999 / page;
            let value = counters.get(i).unwrap().load(Relaxed);
            assert_eq!(value, if cleared { 0 } else { 7 }, "{i}");
        }
    }
}
