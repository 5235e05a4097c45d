//! Space: what an upper holds, counted as it changes, and kept below its limit.
//!
//! Counted are the whole blocks of content that files have in the upper, and for every inode, name, link
//! target and attribute about what a folded journal holds of it: so neither content nor a million empty files
//! get past the limit. What is counted is the state, never the history: it is the same after a replay, and
//! falls the moment something goes. Growth asks first ([`Tree::room`], [`Tree::charge`]); what does not grow by
//! intent (removing a name of the lower leaves a whiteout, changing a lower inode's mode a node) is counted
//! and always allowed, so that a full container can be cleaned up. It can pass the limit only by as much as
//! its lower has names and inodes.
//!
//! An inode without a name is counted until the kernel forgets it. The forget is sent before the closing or
//! unlinking call returns, but another thread may be reading it: who finds no room waits a moment while
//! there are such inodes.
//!
//! [`Usage`] is also in the file `usage` of the upper, for who must not open the journal (`ps --size`):
//! magic `rlessuse`, bytes, inodes, each 64 bit little-endian, then the CRC-32 of these, 28 bytes in all.
//! The flusher writes it after each round, within [`super::flush`]'s period of a change; opening and ending write it too.

use super::super::index::Index;
use super::super::meta::{BLOCK, Res, wr};
use super::node::{Body, DirBody, Node, State, Xattrs};
use super::{Store, Tree, Usage};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Counted for an inode, besides its target and attributes.
const NODE: u64 = 128;
/// Counted for a name or a whiteout, besides its length.
const NAME: u64 = 48;
/// Counted for an attribute, besides its name and value.
const XATTR: u64 = 16;
/// How long and how often who finds no room waits for forgets that are on their way.
const PATIENCE: (Duration, u32) = (Duration::from_millis(2), 50);

const MAGIC: &[u8; 8] = b"rlessuse";
const FILE: &str = "usage";
const LENGTH: usize = 28;

/// What a name in a directory of the upper is counted as.
pub(super) fn name_cost(name: &[u8]) -> u64 {
    NAME + name.len() as u64
}

/// What an attribute is counted as.
pub(super) fn xattr_cost(name: &[u8], value: &[u8]) -> u64 {
    XATTR + (name.len() + value.len()) as u64
}

pub(super) fn xattrs_cost(xattrs: &Xattrs) -> u64 {
    xattrs.iter().map(|(n, v)| xattr_cost(n, v)).sum()
}

/// What a new inode without a name is counted as.
pub(super) fn inode_cost(target: &[u8], xattrs: &Xattrs) -> u64 {
    NODE + target.len() as u64 + xattrs_cost(xattrs)
}

impl State {
    /// What the inode is counted as, its content excepted.
    pub(super) fn cost(&self) -> u64 {
        let body = match &self.body {
            Body::Link(target) => target.len() as u64,
            Body::Dir(d) => d.cost,
            _ => 0,
        };
        NODE + body + self.xattrs.as_ref().map_or(0, xattrs_cost)
    }
}

impl Tree {
    /// Counts `bytes` if there is room for them.
    ///
    /// # Errors
    /// `ENOSPC`; or why the journal cannot be written, for as long as that lasts.
    pub(super) fn charge(&self, bytes: u64) -> Res<()> {
        self.unstuck()?;
        let Some(limit) = self.limit else {
            self.used.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        };
        self.patiently(|| {
            let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
            self.used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
                .is_ok()
        })
    }

    /// Whether there is room for `bytes`; who is told so counts them when they are there.
    ///
    /// # Errors
    /// As [`Tree::charge`].
    pub(super) fn room(&self, bytes: u64) -> Res<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.unstuck()?;
        let Some(limit) = self.limit else {
            return Ok(());
        };
        let left = || limit.saturating_sub(self.used.load(Ordering::Relaxed));
        self.patiently(|| bytes <= left())
    }

    fn patiently(&self, mut attempt: impl FnMut() -> bool) -> Res<()> {
        let (pause, mut left) = PATIENCE;
        while !attempt() {
            if left == 0 || self.nameless.load(Ordering::Acquire) == 0 {
                // The last one may have gone between the two looks.
                return if attempt() {
                    Ok(())
                } else {
                    Err(Errno::ENOSPC)
                };
            }
            std::thread::sleep(pause);
            left -= 1;
        }
        Ok(())
    }

    /// Makes a change, and again where the host's disk was full and something could be given back. Nothing may be locked.
    ///
    /// # Errors
    /// The change's.
    pub(super) fn reclaiming<T>(&self, mut change: impl FnMut() -> Res<T>) -> Res<T> {
        let mut done = change();
        for n in 0..5 {
            if !matches!(done, Err(Errno::ENOSPC | Errno::EDQUOT)) {
                break;
            }
            if !self.reclaim() {
                // The forget of what was deleted may be on its way.
                if n > 2 || self.limit.is_some() || self.nameless.load(Ordering::Acquire) == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            done = change();
        }
        done
    }

    /// Counts `bytes` no more.
    pub(super) fn refund(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts what took `before` as `after`, room or not.
    pub(super) fn recount(&self, before: u64, after: u64) {
        self.used
            .fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Changes a directory's names.
    pub(super) fn edit(&self, state: &mut State, change: impl FnOnce(&mut DirBody)) -> Res<()> {
        let body = state.dir_mut().ok_or(Errno::ENOTDIR)?;
        let before = body.cost;
        change(body);
        self.recount(before, body.cost);
        Ok(())
    }

    /// An inode that has no name, but users.
    pub(super) fn mark_nameless(&self, node: &Node) {
        if !node.nameless.swap(true, Ordering::AcqRel) {
            self.nameless.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// It has a name again, or it is gone.
    pub(super) fn unmark_nameless(&self, node: &Node) {
        if node.nameless.swap(false, Ordering::AcqRel) {
            self.nameless.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// After the mount has gone: nobody uses what has no name. (The kernel does not send the forgets of
    /// the last moment.)
    pub(crate) fn unmounted(&self) {
        for node in self.nodes() {
            let mut state = wr(&node.state);
            if state.meta.nlink == 0 && node.ino != Index::ROOT {
                self.drop_node(&node, &mut state);
            }
        }
    }

    /// Notes whether the journal could be written: while it cannot, nothing may grow, since what is
    /// only in memory would be lost at the end.
    pub(super) fn noted(&self, written: Res<()>) -> Res<()> {
        let error = written.err().map_or(0, |e| e as i32);
        self.stuck.store(error, Ordering::Relaxed);
        written
    }

    /// # Errors
    /// Why the journal could not be written the last time; or that it has little space left on the disk.
    pub(super) fn unstuck(&self) -> Res<()> {
        match (self.stuck.load(Ordering::Relaxed), &self.store) {
            (0, Some(store)) => store.journal.refill(),
            (0, None) => Ok(()),
            (e, _) => Err(Errno::from_raw(e)),
        }
    }

    /// After `ENOSPC` of the host: deletes the data files that waited for the flusher, or else those that
    /// waited for the journal. Whether trying again has a chance. No node may be locked.
    pub(super) fn reclaim(&self) -> bool {
        let Ok(store) = self.store() else {
            return false;
        };
        let ripe = store.flush.ripe(store.journal.durable());
        if !ripe.is_empty() {
            store.data.delete(ripe);
            return true;
        }
        !super::lk(&store.flush.doomed).is_empty() && self.commit(false).is_ok()
    }

    /// What the upper holds.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            bytes: self.used.load(Ordering::Relaxed),
            inodes: self.created.load(Ordering::Relaxed),
        }
    }

    /// blocks, free, available, files, free files of the file system, in 4 KiB blocks.
    pub(crate) fn statfs(&self) -> Res<[u64; 5]> {
        let (low_bytes, low_inodes) = self.low.totals();
        let Some(store) = &self.store else {
            return Ok([low_bytes.div_ceil(BLOCK), 0, 0, low_inodes, 0]);
        };
        let host = store.data.statfs()?;
        let scale = |n: u64| n.saturating_mul(host.fragment_size()) / BLOCK;
        let (mut free, mut avail) = (scale(host.blocks_free()), scale(host.blocks_available()));
        let (mut total, mut ffree) = (scale(host.blocks()), host.files_free());
        if let Some(limit) = self.limit {
            self.settle_nameless();
            let left = limit.saturating_sub(self.used.load(Ordering::Relaxed));
            total = limit / BLOCK;
            free = left / BLOCK;
            avail = avail.min(free);
            ffree = ffree.min(left / (NODE + NAME));
        }
        let files = low_inodes + self.created.load(Ordering::Relaxed);
        Ok([total, free, avail, files + ffree, ffree])
    }

    /// Lets another thread finish with what was just deleted: its FORGET follows the UNLINK that was answered, but a
    /// `df` right behind `rm` may be read first. Files that are held open do not hold this up for long.
    fn settle_nameless(&self) {
        for _ in 0..5 {
            if self.nameless.load(Ordering::Acquire) == 0 {
                return;
            }
            std::thread::sleep(PATIENCE.0);
        }
    }

    /// Brings the file `usage` up to date; failing costs only its truth.
    pub(super) fn publish(&self, store: &Store) {
        let usage = self.usage();
        let mut last = super::lk(&store.published);
        if *last != Some(usage) && write(&store.usage, usage).is_ok() {
            *last = Some(usage);
        }
    }
}

/// Opens the file `usage` of an upper for writing.
pub(super) fn open(upper: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(upper.join(FILE))
}

fn write(file: &File, usage: Usage) -> std::io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&usage.bytes.to_le_bytes());
    bytes.extend_from_slice(&usage.inodes.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    file.write_all_at(&bytes, 0)
}

impl Usage {
    /// What the upper at `upper` holds as its server noted it last, at most some seconds ago; `None`
    /// where nothing was noted yet.
    ///
    /// # Errors
    /// The note cannot be read.
    pub fn noted(upper: &Path) -> std::io::Result<Option<Usage>> {
        let mut bytes = [0; LENGTH];
        // Caught in the middle of being written: it is whole the next time.
        for _ in 0..3 {
            let read = File::open(upper.join(FILE)).and_then(|f| f.read_exact_at(&mut bytes, 0));
            match read {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => continue,
                other => other?,
            }
            if let Some(usage) = decode(&bytes) {
                return Ok(Some(usage));
            }
        }
        Ok(None)
    }
}

fn decode(bytes: &[u8; LENGTH]) -> Option<Usage> {
    let (body, crc) = bytes.split_at(LENGTH - 4);
    let (magic, numbers) = body.split_at(8);
    let number = |at: usize| Some(u64::from_le_bytes(*numbers.get(at..)?.first_chunk()?));
    let whole = magic == MAGIC && crc == crc32fast::hash(body).to_le_bytes();
    whole.then_some(Usage {
        bytes: number(0)?,
        inodes: number(8)?,
    })
}
