//! Where a file's bytes are, and making blocks ready to be written.
//!
//! A block of 4 KiB is in the data file (`valid`), or the lower's (below `base_len`), or zeros.
//! Whatever the data file holds outside `valid` is garbage of earlier times; beyond `phys` there
//! is nothing, so that a fresh block behind it needs no clearing. What the data file is: [`super::data`].

use super::super::meta::{BLOCK, Res, lk, rd};
use super::arena::{Region, is_region};
use super::data::Place;
use super::node::{Body, FileBody, Node};
use super::{Store, Tree};
use nix::errno::Errno;

/// What a piece of a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Data,
    Low,
    Zero,
}

/// Most runs of blocks that a file may have: one record lists them all.
const RUNS: usize = 8 << 20;

/// # Errors
/// `EFBIG` for a file whose blocks would not fit a record any more.
pub(super) fn not_too_scattered(f: &FileBody) -> Res<()> {
    if f.valid.runs() < RUNS {
        Ok(())
    } else {
        Err(Errno::EFBIG)
    }
}

impl FileBody {
    /// Whether the block that the end at `size` cuts is in a data file that the journal knows.
    pub(super) fn tail_is_known(&self, size: u64) -> bool {
        self.logged && !size.is_multiple_of(BLOCK) && self.valid.contains(size / BLOCK)
    }

    /// The piece at `offset` and where it ends (at most `end`).
    pub(super) fn piece(&self, offset: u64, end: u64) -> (Piece, u64) {
        let (inside, until) = self.valid.run(offset / BLOCK);
        let until = until.saturating_mul(BLOCK).min(end);
        if inside {
            (Piece::Data, until)
        } else if offset < self.base_len {
            (Piece::Low, until.min(self.base_len))
        } else {
            (Piece::Zero, until)
        }
    }
}

impl Tree {
    /// Closes up to `n` of the descriptors opened first. Nodes in use right now keep theirs.
    pub(super) fn close_idle(&self, store: &Store, n: usize) {
        for _ in 0..n {
            let Some(ino) = store.flush.oldest_open() else {
                return;
            };
            let Some(node) = self.node(ino) else { continue };
            match node.state.try_write() {
                Ok(mut state) => {
                    if let super::Body::File(f) = &mut state.body {
                        f.fd = None;
                    }
                }
                Err(_) => store.flush.opened(ino),
            }
        }
    }

    /// Bytes of a locked file into `buf`, which must lie inside its size.
    pub(super) fn gather(
        &self,
        ino: u64,
        f: &FileBody,
        place: Option<&Place>,
        buf: &mut [u8],
        offset: u64,
    ) -> Res<()> {
        let end = offset + buf.len() as u64;
        let mut at = offset;
        while at < end {
            let (piece, until) = f.piece(at, end);
            let part = &mut buf[(at - offset) as usize..(until - offset) as usize];
            match piece {
                Piece::Zero => part.fill(0),
                Piece::Data => place.ok_or(Errno::EIO)?.read(part, at)?,
                Piece::Low => {
                    let n = self.low.read(ino, at, part)?;
                    part[n..].fill(0);
                }
            }
            at = until;
        }
        Ok(())
    }

    /// Makes sure that `start..end` (blocks) may become valid: counts them against the limit.
    pub(super) fn reserve(&self, f: &FileBody, start: u64, end: u64) -> Res<u64> {
        let more = f.valid.missing(start, end);
        if more == 0 {
            return Ok(0);
        }
        not_too_scattered(f)?;
        let bytes = more.checked_mul(BLOCK).ok_or(Errno::ENOSPC)?;
        self.charge(bytes).map(|()| more)
    }

    pub(super) fn unreserve(&self, blocks: u64) {
        self.refund(blocks * BLOCK);
    }

    /// Completes the block that `edge` cuts, up to `edge` or from it on, if it is not yet in the
    /// data file: with the lower's bytes, or zeros where the data file may hold garbage.
    pub(super) fn fill_edge(
        &self,
        ino: u64,
        f: &mut FileBody,
        place: &Place,
        edge: u64,
        before: bool,
    ) -> Res<()> {
        let start = edge / BLOCK * BLOCK;
        if edge == start || f.valid.contains(start / BLOCK) {
            return Ok(());
        }
        let (from, to) = if before {
            (start, edge)
        } else {
            (edge, start + BLOCK)
        };
        if from >= f.base_len && from >= f.phys {
            return Ok(());
        }
        let mut block = [0u8; BLOCK as usize];
        let part = &mut block[..(to - from) as usize];
        self.gather(ino, f, None, part, from)?;
        place.write(part, from)?;
        f.phys = f.phys.max(to);
        Ok(())
    }

    /// The shorter length of a locked file is durable before its last block is changed in place: a crash would bring back
    /// the longer one with a block that never was. [`Tree::settle_tail`] has done it, as a rule.
    pub(super) fn shorter_first(&self, f: &FileBody, size: u64) -> Res<()> {
        match f.stale.filter(|_| f.tail_is_known(size)) {
            Some(seq) => self.make_durable(self.store()?, seq, false),
            None => Ok(()),
        }
    }

    /// What may have to wait for the disk before content comes, while nothing is locked: a new journal is durable first, and as
    /// [`Tree::settle_tail`].
    ///
    /// # Errors
    /// As [`Tree::fsync`].
    pub(super) fn before_content(&self, ino: u64, touches: impl FnOnce(u64) -> bool) -> Res<()> {
        if let Some(store) = &self.store {
            store.journal.root()?;
        }
        self.settle_tail(ino, touches)
    }

    /// The same before anything is locked: others need not wait for the disk. `touches` says of the size whether its last
    /// block is about to change.
    ///
    /// # Errors
    /// As [`Tree::fsync`].
    pub(super) fn settle_tail(&self, ino: u64, touches: impl FnOnce(u64) -> bool) -> Res<()> {
        let Some(node) = self.node(ino) else {
            return Ok(());
        };
        let seq = {
            let state = rd(&node.state);
            let size = state.meta.size;
            match &state.body {
                Body::File(f) => f.stale.filter(|_| f.tail_is_known(size) && touches(size)),
                _ => None,
            }
        };
        match (seq, &self.store) {
            // What is durable already needs no commit.
            (Some(seq), Some(store)) if seq > store.journal.durable() => {
                let seq = match self.written_anew(store) {
                    true => store.journal.last(),
                    false => seq,
                };
                self.make_durable(store, seq, false)
            }
            _ => Ok(()),
        }
    }

    /// Before a file grows past its end: whatever an earlier, longer life left behind its end in
    /// the last block must read as zeros.
    pub(super) fn clean_tail(&self, node: &Node, f: &mut FileBody, size: u64) -> Res<()> {
        if f.stale.is_none() {
            return Ok(());
        }
        let to = size.next_multiple_of(BLOCK);
        if size < to && f.valid.contains(size / BLOCK) {
            // Before bytes the longer one needs are cleared.
            self.shorter_first(f, size)?;
            self.own_place(node, f, 0)?;
            f.written.insert(size / BLOCK, size / BLOCK + 1);
            let place = self.data_file(node, f, 0)?;
            let zeros = [0u8; BLOCK as usize];
            place.write(&zeros[..(to - size) as usize], size)?;
            f.phys = f.phys.max(to);
        }
        f.stale = None;
        Ok(())
    }

    /// The content goes: all of a file's blocks and its data file.
    pub(super) fn drop_blocks(&self, f: &mut FileBody) {
        if let Ok(store) = self.store() {
            self.take_failure(store, f);
        }
        f.inherited = false;
        self.unreserve(f.valid.blocks());
        f.valid = super::super::ranges::Ranges::default();
        f.fd = None;
        f.stale = None;
        f.generation += 1;
        let (region, logged) = (f.region(), f.logged);
        let left = std::mem::take(&mut f.left);
        (f.data_id, f.blocks) = (0, 0);
        (f.phys, f.failures) = (0, 0);
        f.logged = false;
        f.named = false;
        f.written = super::super::ranges::Ranges::default();
        f.inflight = super::super::ranges::Ranges::default();
        f.redo = 0;
        let Ok(store) = self.store() else { return };
        let last = store.journal.last();
        for region in left {
            self.doom(store, last, region);
        }
        if region.id != 0 {
            // What no record names is not needed after a crash.
            self.doom(store, if logged { last } else { 0 }, region);
        }
    }

    /// Deletes a data file when the record numbered `seq` is durable; 0: at once, or soon.
    pub(super) fn doom(&self, store: &Store, seq: u64, region: Region) {
        if seq == 0 && !is_region(region.id) {
            return store.data.delete(vec![region]);
        }
        lk(&store.flush.doomed).push((seq, region));
        store.flush.wake();
        if seq == 0 && store.flush.idle(region.blocks) {
            store.data.delete(store.flush.ripe(store.journal.durable()));
        }
    }
}
