//! Arenas: the shared data files of small files.
//!
//! Block addresses run through all arenas: the upper bits are the arena's number, the lower ones the block in
//! it. The next address only grows, also over restarts, for as long as a record of the journal may speak of
//! one: no two files ever have the same address, whatever has been freed, and what lies behind the next
//! address is zeros. One lock, held for a few instructions, never over I/O.
//!
//! An upper that is changed for months has thousands of arenas. Only the files of those that were asked for last stay open: a node
//! has a weak reference to its arena's file ([`super::data::Held`]), and asks again where that is closed.

use super::super::meta::{BLOCK, Res, errno, lk};
use super::data::{Kept, Place};
use super::freeze::shared;
use crate::error::Result;
use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate, openat};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, Whence, lseek, unlinkat};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// Set in the numbers of data files that are regions of an arena: the rest is their first block's address.
pub(super) const TAG: u64 = 1 << 63;
/// Blocks of an arena, as a power of two: 256 MiB.
pub(super) const BITS: u32 = 16;
const BLOCKS: u64 = 1 << BITS;
/// No address is this high.
const END: u64 = TAG >> 13;
const PREFIX: &str = "arena-";
/// So many of them may be open, whatever the limit of descriptors.
const OPEN: u64 = 128;

/// A data file's place among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Region {
    /// Number of the data file.
    pub id: u64,
    /// Blocks it may take; of a data file of its own it says nothing.
    pub blocks: u64,
}

/// One of them.
#[derive(Default)]
struct Arena {
    file: Option<Arc<File>>,
    /// When it was asked for the last time.
    asked: u64,
    /// Blocks of regions in use, or waiting to be freed.
    used: u64,
    /// Its name is durable.
    named: bool,
    /// It is gone, though files have content in it.
    lost: bool,
    /// Somebody else may have a link to it: it stays as it is.
    sealed: bool,
}

struct State {
    /// The next address.
    next: u64,
    all: HashMap<u64, Arena>,
    /// Counts what is asked for.
    clock: u64,
    /// How many may be open.
    most: usize,
}

/// All arenas of an upper.
pub(super) struct Arenas(Mutex<State>);

/// Whether a number is a region's.
pub(super) fn is_region(id: u64) -> bool {
    id & TAG != 0
}

/// Whether `blocks` of a data file are where they can be.
pub(super) fn fits(id: u64, blocks: u64) -> bool {
    let address = id & !TAG;
    !is_region(id) || (address < END && (address % BLOCKS).saturating_add(blocks) <= BLOCKS)
}

/// Number of the arena that an address lies in.
pub(super) fn number(id: u64) -> u64 {
    (id & !TAG) >> BITS
}

/// Where a region begins in its arena, in bytes.
fn base(id: u64) -> u64 {
    (id & (BLOCKS - 1)) * BLOCK
}

pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number:x}")
}

/// The number of an arena with this file name.
pub(super) fn parse(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(PREFIX)?, 16).ok()
}

impl Arenas {
    pub(super) fn new() -> Arenas {
        Arenas(Mutex::new(State {
            next: 0,
            all: HashMap::new(),
            clock: 0,
            most: (descriptors() / 8).clamp(16, OPEN) as usize,
        }))
    }

    /// A region for `blocks` blocks; all of it is zeros.
    ///
    /// # Errors
    /// `EFBIG` for more than an arena holds, `ENOSPC` behind the last address.
    pub(super) fn alloc(&self, dir: &OwnedFd, blocks: u64) -> Res<u64> {
        if blocks == 0 || blocks > BLOCKS {
            return Err(Errno::EFBIG);
        }
        let mut left = None;
        let id = {
            let mut state = lk(&self.0);
            let mut at = state.next;
            if at % BLOCKS + blocks > BLOCKS {
                left = state.retire(at >> BITS);
                at = at.next_multiple_of(BLOCKS);
            }
            if at >= END {
                return Err(Errno::ENOSPC);
            }
            state.next = at + blocks;
            state.all.entry(at >> BITS).or_default().used += blocks;
            at | TAG
        };
        if let Some(number) = left {
            delete(dir, number);
        }
        Ok(id)
    }

    /// Makes the region larger where it is, if nothing lies behind it.
    pub(super) fn extend(&self, region: Region, blocks: u64) -> bool {
        let mut state = lk(&self.0);
        let address = region.id & !TAG;
        if address + region.blocks != state.next || address % BLOCKS + blocks > BLOCKS {
            return false;
        }
        state.next = address + blocks;
        state.all.entry(address >> BITS).or_default().used += blocks - region.blocks;
        true
    }

    /// The next address.
    pub(super) fn next(&self) -> u64 {
        lk(&self.0).next
    }

    /// Never give out addresses below `next` again.
    pub(super) fn reserve(&self, next: u64) {
        let mut state = lk(&self.0);
        state.next = state.next.max(next.min(END));
    }

    /// The region's file, made if `create`.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn place(&self, dir: &OwnedFd, id: u64, create: bool) -> Res<Place> {
        let number = number(id);
        {
            let mut state = lk(&self.0);
            if let Some(arena) = state.ask(number) {
                match arena {
                    Arena { lost: true, .. } => return Err(Errno::ENOENT),
                    Arena { file: Some(f), .. } => return Ok(Place::new(f, base(id))),
                    _ => {}
                }
            }
        }
        let mut flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        if create {
            flags |= OFlag::O_CREAT;
        }
        let file = openat(
            dir,
            name(number).as_str(),
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )?;
        let mut file = Arc::new(File::from(file));
        let _closed = {
            let mut state = lk(&self.0);
            // Two may have opened it at once: the first stays. One that was freed since is not kept.
            if let Some(arena) = state.ask(number) {
                let first = arena.file.get_or_insert_with(|| Arc::clone(&file));
                file = Arc::clone(first);
            }
            state.superfluous()
        };
        Ok(Place::new(&file, base(id)))
    }

    /// Closes all of them that nobody uses right now: descriptors are needed.
    pub(super) fn close(&self) {
        let _closed: Vec<Arc<File>> = {
            let mut state = lk(&self.0);
            state
                .all
                .values_mut()
                .filter_map(|a| a.file.take())
                .collect()
        };
    }

    /// From now on somebody else may have a link to the arena.
    pub(super) fn seal(&self, number: u64) {
        let mut state = lk(&self.0);
        if let Some(arena) = state.all.get_mut(&number) {
            arena.sealed = true;
        }
        if state.next >> BITS == number {
            state.next = state.next.next_multiple_of(BLOCKS);
        }
    }

    /// The arena's name leads to another file now, which nobody shares.
    pub(super) fn replaced(&self, number: u64) {
        if let Some(arena) = lk(&self.0).all.get_mut(&number) {
            (arena.file, arena.sealed, arena.named) = (None, false, false);
        }
    }

    /// Whether the arena may be changed besides what its regions' files do. One that was sealed is, when nobody else has
    /// a link any more.
    fn changeable(&self, number: u64, file: &File) -> bool {
        let sealed = |a: &Arena| a.sealed;
        if !lk(&self.0).all.get(&number).is_some_and(sealed) {
            return true;
        }
        let alone = matches!(shared(file), Ok(false));
        if alone && let Some(arena) = lk(&self.0).all.get_mut(&number) {
            arena.sealed = false;
        }
        alone
    }

    /// Whether the name of the region's arena is durable.
    pub(super) fn named(&self, id: u64) -> bool {
        lk(&self.0).all.get(&number(id)).is_some_and(|a| a.named)
    }

    /// It is now.
    pub(super) fn set_named(&self, id: u64) {
        if let Some(arena) = lk(&self.0).all.get_mut(&number(id)) {
            arena.named = true;
        }
    }

    /// Gives the space of regions back: holes, or the whole arena. What fails costs space until the arena is
    /// gone.
    pub(super) fn free(&self, dir: &OwnedFd, regions: &mut [Region]) {
        regions.sort_unstable();
        for of_one in regions.chunk_by(|a, b| number(a.id) == number(b.id)) {
            let number = number(of_one[0].id);
            let total: u64 = of_one.iter().map(|r| r.blocks).sum();
            let gone = {
                let mut state = lk(&self.0);
                if let Some(arena) = state.all.get_mut(&number) {
                    arena.used = arena.used.saturating_sub(total);
                }
                let current = state.next >> BITS == number;
                if current { None } else { state.retire(number) }
            };
            if gone.is_some() {
                delete(dir, number);
                continue;
            }
            let Ok(place) = self.place(dir, of_one[0].id, false) else {
                continue;
            };
            if !self.changeable(number, &place.file) {
                continue;
            }
            for run in of_one.chunk_by(|a, b| a.id + a.blocks == b.id) {
                let blocks: u64 = run.iter().map(|r| r.blocks).sum();
                let _ = punch(&place.file, base(run[0].id), blocks * BLOCK);
            }
        }
    }

    /// After a restart: what is in use, by number. Deletes or cuts everything else, unless records are `cut` off that may
    /// speak of it.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn sweep(
        &self,
        dir: &OwnedFd,
        found: &[u64],
        keep: &HashMap<u64, Kept>,
        fresh: impl Fn(u64) -> bool,
        cut: bool,
    ) -> Result<()> {
        let mut arenas: BTreeMap<u64, Vec<(u64, Kept)>> = BTreeMap::new();
        for (id, kept) in keep.iter().filter(|(id, _)| is_region(**id)) {
            arenas.entry(number(*id)).or_default().push((*id, *kept));
        }
        for number in found.iter().filter(|n| cut || !arenas.contains_key(n)) {
            if cut {
                self.reserve((*number + 1) << BITS);
            } else {
                delete(dir, *number);
            }
        }
        for (number, mut regions) in arenas {
            regions.sort_unstable_by_key(|(id, _)| *id);
            let there = found.contains(&number);
            let arena = Arena {
                // One block more than there are regions for: it never goes.
                used: regions.iter().map(|(_, kept)| kept.blocks).sum::<u64>() + u64::from(cut),
                // Made by a redo only if nothing in it was ever synced.
                lost: !there && !regions.iter().all(|(id, _)| fresh(*id)),
                ..Arena::default()
            };
            lk(&self.0).all.insert(number, arena);
            if there && !cut {
                self.trim(dir, &regions)
                    .with_context(|| format!("clearing {}", name(number)))?;
            }
        }
        // Nothing new goes into an arena that is not there.
        let next = self.next();
        if !found.contains(&(next >> BITS)) {
            self.reserve(next.next_multiple_of(BLOCKS));
        }
        Ok(())
    }

    /// Clears what lies between and behind the regions of one arena.
    fn trim(&self, dir: &OwnedFd, regions: &[(u64, Kept)]) -> Res<()> {
        let Some((first, _)) = regions.first() else {
            return Ok(());
        };
        let file = self.place(dir, *first, false)?.file;
        if shared(&file)? {
            self.seal(number(*first));
            return Ok(());
        }
        let mut at = 0;
        for (id, kept) in regions {
            let from = base(*id);
            if from > at && has_data(&file, at, from) {
                // A host that cannot keeps it: nothing will ever be there again.
                let _ = punch(&file, at, from - at);
            }
            at = at.max(from + kept.end * BLOCK);
        }
        if file.metadata().map_err(|e| errno(&e))?.len() > at {
            file.set_len(at).map_err(|e| errno(&e))?;
        }
        Ok(())
    }
}

impl State {
    /// An arena that there is, for somebody who needs its file.
    fn ask(&mut self, number: u64) -> Option<&mut Arena> {
        self.clock += 1;
        let arena = self.all.get_mut(&number)?;
        arena.asked = self.clock;
        Some(arena)
    }

    /// Where too many are open: the file of the one that nobody has asked for for the longest time, to be closed.
    fn superfluous(&mut self) -> Option<Arc<File>> {
        let open = self.all.values_mut().filter(|a| a.file.is_some());
        let (count, oldest) = open.fold((0, None::<&mut Arena>), |(n, oldest), a| {
            let older = oldest.as_ref().is_none_or(|o| a.asked < o.asked);
            (n + 1, if older { Some(a) } else { oldest })
        });
        oldest.filter(|_| count > self.most)?.file.take()
    }

    /// Forgets an arena without a region; it is to be deleted then.
    fn retire(&mut self, number: u64) -> Option<u64> {
        if self.all.get(&number)?.used != 0 {
            return None;
        }
        self.all.remove(&number).map(|_| number)
    }
}

/// How many descriptors this process may have.
pub(super) fn descriptors() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

fn delete(dir: &OwnedFd, number: u64) {
    // A failure leaves a file that the next open sweeps.
    let _ = unlinkat(dir, name(number).as_str(), UnlinkatFlags::NoRemoveDir);
}

/// Whether the file has anything but a hole there; if the host cannot say, it has.
fn has_data(file: &File, from: u64, to: u64) -> bool {
    match lseek(file.as_fd(), from.cast_signed(), Whence::SeekData) {
        Ok(at) => at.cast_unsigned() < to,
        Err(e) => e != Errno::ENXIO,
    }
}

/// Makes a part of a file a hole.
///
/// # Errors
/// As fallocate(2).
pub(super) fn punch(file: &File, at: u64, len: u64) -> Res<()> {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, at.cast_signed(), len.cast_signed())
}
