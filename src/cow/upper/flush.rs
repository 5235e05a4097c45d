//! Durability: which files have content the journal does not know, and making it known.
//!
//! # What an fsync costs
//!
//! | | flushes of the disk |
//! |---|---|
//! | fdatasync of a file that was only overwritten in blocks the journal knows | 1: its data file's; the journal's, if it is in an arena |
//! | fsync with at most 64 KiB changed since the file's last record ([`super::redo`]) | 1: the journal's |
//! | fsync with more | 2, or 3 with a new data file or arena: that, its directory, journal |
//!
//! Times that the first kind leaves out follow with the periodic flush.
//!
//! # Order
//!
//! A file's `Data` record without redo is durable only after its data file was synced with all that
//! the record speaks of. A flush takes a snapshot, syncs, and appends the record then: what is
//! written meanwhile waits for the next round, and if another record of the file or a change of
//! another shape (truncation, punching) came in between, the round starts again; after some rounds the record is
//! held (see below). What the flush
//! took is kept as `inflight`, so that a record in between tells of it too.
//!
//! Where content must not come later than another record (a rename over another file, the first
//! name of an unnamed one), its record is appended right before that one: with redo, or, if that is
//! too much, *held*: no record from there on is written out before the data file was synced. So
//! the journal is written only up to a number below which nothing is held.
//!
//! # Written anew
//!
//! Many programs replace a file by emptying and writing it, and ask for nothing. Its old content goes with the record of the
//! truncation, which anybody's fsync makes durable: so a commit first appends the record of the new content as above (once for each
//! truncation), as ext4 does with `auto_da_alloc`. A crash between truncation and writing leaves it empty, as there.
//!
//! # Failures
//!
//! The kernel tells once that it could not write something back, and drops it. So a failed sync is counted by
//! data file (an arena's for all that is in it), and every file's next fsync answers it, whoever was told. Where
//! a record that speaks of the content is in the journal's queue already (a held one) nothing may be written behind
//! it: the journal fails for good. A syncfs that failed, if only for content of others, is never tried again: files
//! are synced one by one from then on, and this server folds no more.
//!
//! Data files whose inode is gone or whose content moved are deleted, and cut ones trimmed, when the record of
//! it is durable: until then a crash brings the old content back whole.

use super::super::journal::Record;
use super::super::journal::record::{Extents, Piece};
use super::super::meta::{BLOCK, Res, lk, rd, wr};
use super::super::ranges::Ranges;
use super::arena::{Region, descriptors, is_region};
use super::data::Place;
use super::node::{Body, FileBody, Node, State};
use super::redo::BLOCKS;
use super::{Store, Tree};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a change may stay in memory.
const PERIOD: Duration = Duration::from_secs(5);
/// From this many dirty data files on one syncfs is cheaper than an fdatasync each.
pub(super) const MANY: usize = 32;
/// More blocks than this of content that nobody needs are given back at once: they take memory.
const IDLE: u64 = 4096;
/// Blocks of small files that are not needed any more may wait for the flusher.
const FEW: u64 = 256;
/// No content goes into the journal unasked when this much waits there already.
const WAITING: usize = 256 << 10;
/// An fsync's goes there up to so much.
const REDO: usize = 16 << 20;
/// Where this much waits a change is refused while the journal cannot be written, and else hurries the flusher; where it
/// is twice as much, the change itself writes it out first.
const MOST: usize = 64 << 20;
/// A flush that was overtaken so often holds the record back instead.
const ROUNDS: u32 = 3;

/// Work that waits.
pub(crate) struct Flush {
    pub(super) dirty: Mutex<Vec<u64>>,
    /// Held by who flushes several files at once: only he holds more than one file's `flushing`.
    many: Mutex<()>,
    /// Records that must not become durable yet. Locked over append and push.
    pub(super) holds: Mutex<Vec<Hold>>,
    /// Held by who folds.
    pub(super) folding: Mutex<()>,
    /// Data files to delete when the record of that number is durable.
    pub(super) doomed: Mutex<Vec<(u64, Region)>>,
    /// Blocks of those that wait for nothing but the flusher.
    idle: AtomicU64,
    /// Files to cut likewise.
    trims: Mutex<Vec<(u64, u64)>>,
    /// Files with content that the journal or the lower has, emptied since the last commit.
    emptied: Mutex<Vec<u64>>,
    /// Those of them whose new content has no record yet, and the lock of who appends it.
    unrecorded: AtomicUsize,
    anew: Mutex<()>,
    /// Inodes with an open data file, oldest first.
    open: Mutex<VecDeque<u64>>,
    opened: AtomicUsize,
    limit: usize,
    woken: AtomicBool,
    /// The journal is long: do not wait.
    hurry: AtomicBool,
    stop: Mutex<bool>,
    signal: Condvar,
}

/// A `Data` record whose data file has to be synced before it may be written out.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    pub(super) seq: u64,
    data_id: u64,
    named: bool,
}

/// Everything a `Data` record says, and what must still hold when it is written.
pub(super) struct Snapshot {
    size: u64,
    extents: Extents,
    generation: u64,
    named: bool,
    file: Option<Place>,
}

impl Flush {
    pub(crate) fn new() -> Flush {
        Flush {
            dirty: Mutex::default(),
            many: Mutex::default(),
            holds: Mutex::default(),
            folding: Mutex::default(),
            doomed: Mutex::default(),
            idle: AtomicU64::new(0),
            trims: Mutex::default(),
            emptied: Mutex::default(),
            unrecorded: AtomicUsize::new(0),
            anew: Mutex::default(),
            open: Mutex::default(),
            opened: AtomicUsize::new(0),
            limit: usize::try_from(descriptors() / 2)
                .unwrap_or(512)
                .clamp(64, 1024),
            woken: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            stop: Mutex::new(false),
            signal: Condvar::new(),
        }
    }

    /// A change waits: the flusher has work.
    pub(super) fn wake(&self) {
        if !self.woken.load(Ordering::Relaxed) && !self.woken.swap(true, Ordering::AcqRel) {
            let _guard = lk(&self.stop);
            self.signal.notify_all();
        }
    }

    /// The flusher is to come by now.
    fn hurry(&self) {
        if !self.hurry.swap(true, Ordering::AcqRel) {
            let _guard = lk(&self.stop);
            self.signal.notify_all();
        }
    }

    pub(super) fn trim_later(&self, seq: u64, ino: u64) {
        lk(&self.trims).push((seq, ino));
    }

    pub(super) fn emptied(&self, ino: u64) {
        lk(&self.emptied).push(ino);
        self.unrecorded.fetch_add(1, Ordering::Release);
    }

    pub(super) fn opened(&self, ino: u64) {
        lk(&self.open).push_back(ino);
        self.opened.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn oldest_open(&self) -> Option<u64> {
        let ino = lk(&self.open).pop_front()?;
        self.opened.fetch_sub(1, Ordering::Relaxed);
        Some(ino)
    }
    pub(super) fn open_count(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
    pub(super) fn open_limit(&self) -> usize {
        self.limit
    }

    /// Data files that may be deleted now.
    pub(super) fn ripe(&self, durable: u64) -> Vec<Region> {
        ripe(&self.doomed, durable)
    }

    /// Whether what may be deleted now is more than a few small files: a hole for each of them as it goes would have the host
    /// write and journal what the next one does again.
    fn worth_deleting(&self, durable: u64) -> bool {
        let list = lk(&self.doomed);
        let mut blocks = 0;
        list.iter()
            .filter(|(seq, _)| *seq <= durable)
            .any(|(_, r)| {
                blocks += r.blocks;
                !is_region(r.id) || blocks > FEW
            })
    }

    /// So many more blocks wait for the flusher only; whether they should not.
    pub(super) fn idle(&self, blocks: u64) -> bool {
        let before = self.idle.fetch_add(blocks, Ordering::Relaxed);
        before + blocks > IDLE && self.idle.swap(0, Ordering::Relaxed) > IDLE
    }

    /// Ends [`Tree::flusher`].
    pub(crate) fn stop(&self) {
        *lk(&self.stop) = true;
        self.signal.notify_all();
    }
}

impl Tree {
    /// The flusher thread: makes everything durable some seconds after the first change, and folds
    /// the journal when it is long.
    pub(crate) fn flusher(&self) {
        let Ok(store) = self.store() else { return };
        let flush = &store.flush;
        loop {
            {
                let mut stop = lk(&flush.stop);
                while !*stop && !flush.woken.load(Ordering::Acquire) {
                    stop = flush
                        .signal
                        .wait(stop)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                }
                let (stop, _) = flush
                    .signal
                    .wait_timeout_while(stop, PERIOD, |stop| {
                        !*stop && !flush.hurry.load(Ordering::Acquire)
                    })
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if *stop {
                    return;
                }
            }
            flush.woken.store(false, Ordering::Release);
            if let Err(e) = self.sync_all() {
                log::warn!("writing the container's changes back: {e}");
                flush.wake();
            }
            flush.hurry.store(false, Ordering::Release);
            if let Err(e) = self.fold_if_long() {
                log::warn!("folding the container's journal: {e}");
            }
        }
    }

    /// Keeps what waits in memory bounded while the journal cannot be written, or not as fast as it grows. Nothing may be
    /// locked.
    pub(super) fn not_too_much(&self, store: &Store) -> Res<()> {
        if store.journal.waiting() > MOST {
            self.unstuck()?;
            store.flush.hurry();
        }
        if store.journal.waiting() > 2 * MOST {
            self.commit(false)?;
        }
        Ok(())
    }

    /// A locked file has content the journal does not know.
    pub(super) fn mark_dirty(&self, node: &Node, state: &mut State) {
        if let Body::File(f) = &mut state.body {
            self.list_dirty(node, f);
        }
    }

    pub(super) fn list_dirty(&self, node: &Node, f: &mut FileBody) {
        if let Ok(store) = self.store()
            && !f.dirty
        {
            f.dirty = true;
            lk(&store.flush.dirty).push(node.ino);
            store.flush.wake();
        }
    }

    pub(super) fn snapshot(&self, node: &Node) -> Res<Option<Snapshot>> {
        let mut state = wr(&node.state);
        let size = state.meta.size;
        let named = state.meta.nlink > 0;
        let Body::File(f) = &mut state.body else {
            return Ok(None);
        };
        if !named {
            // Nothing of it outlives a crash, unless it gets a name: that puts it on the list again.
            f.dirty = false;
        }
        if !f.dirty {
            return Ok(None);
        }
        let file = match f.data_id {
            0 => None,
            _ => Some(self.data_file(node, f, 0)?),
        };
        f.dirty = false;
        f.grown = false;
        for (s, e) in std::mem::take(&mut f.written).iter() {
            f.inflight.insert(s, e);
        }
        Ok(Some(Snapshot {
            size,
            extents: changes(f),
            generation: f.generation,
            named: f.named,
            file,
        }))
    }

    /// Appends the record of a snapshot whose data is durable; false if it was overtaken.
    pub(super) fn record(&self, node: &Node, snap: Snapshot) -> bool {
        let _gate = rd(&self.gate);
        let mut state = wr(&node.state);
        // The times as they are now: one set since the snapshot was recorded before this record.
        let (mtime, ctime) = (state.meta.mtime, state.meta.ctime);
        let Body::File(f) = &mut state.body else {
            return true;
        };
        if f.generation != snap.generation || f.data_id != snap.extents.data_id {
            self.not_told(node, &mut state);
            return false;
        }
        f.inflight = Ranges::default();
        f.full = false;
        f.logged = f.data_id != 0;
        f.named = f.logged;
        (f.redo, f.redos) = (0, 0);
        f.known = [snap.size; 2];
        f.seq = self.log(&Record::Data {
            ino: node.ino,
            size: snap.size,
            mtime,
            ctime,
            extents: snap.extents,
            redo: None,
        });
        self.moved_out(f);
        true
    }

    /// A flush came to nothing: what it took is to be told of still.
    fn not_told(&self, node: &Node, state: &mut State) {
        if let Body::File(f) = &mut state.body {
            f.give_back();
        }
        self.mark_dirty(node, state);
    }

    /// Appends the record of a locked file's content, if there is anything to tell (or `always`),
    /// so that it is durable no later than the record appended next. The caller holds the gate.
    pub(super) fn content_first(&self, node: &Node, state: &mut State, always: bool) {
        let Ok(store) = self.store() else { return };
        let Body::File(f) = &state.body else { return };
        // What a flush under way took is not in the journal before its record is.
        let untold = f.dirty || f.full || f.inflight != Ranges::default();
        if f.live || !(untold || always) {
            return;
        }
        // What cannot be read back now is held as what is too much.
        let little = store.journal.waiting() < WAITING && !store.journal.is_short();
        if little && matches!(self.log_redo(node, state), Ok(true)) {
            return;
        }
        let Body::File(f) = &state.body else { return };
        let (data_id, named) = (f.data_id, f.named);
        // Locked before the record has its number: a commit in between would not see it.
        let mut holds = lk(&store.flush.holds);
        let seq = self.log_content(node, state, None);
        if data_id != 0 {
            holds.push(Hold {
                seq,
                data_id,
                named,
            });
        }
        if let Body::File(f) = &mut state.body {
            (f.redo, f.redos) = (0, 0);
        }
    }

    /// Appends the record of a locked file as it is now, and returns its number.
    pub(super) fn log_content(
        &self,
        node: &Node,
        state: &mut State,
        redo: Option<Vec<Piece<'_>>>,
    ) -> u64 {
        let meta = state.meta;
        let Body::File(f) = &mut state.body else {
            return 0;
        };
        let seq = self.log(&Record::Data {
            ino: node.ino,
            size: meta.size,
            mtime: meta.mtime,
            ctime: meta.ctime,
            extents: changes(f),
            redo,
        });
        f.told(seq, meta.size);
        self.moved_out(f);
        seq
    }

    /// Makes one file's content durable and appends the record of it. The caller commits.
    fn flush_node(&self, store: &Store, node: &Node) -> Res<()> {
        let _flushing = lk(&node.flushing);
        for _ in 0..ROUNDS {
            let Some(snap) = self.snapshot(node)? else {
                return Ok(());
            };
            if let Some(file) = &snap.file {
                let synced = store
                    .data
                    .sync_place(snap.extents.data_id, file, snap.named);
                if let Err(e) = synced {
                    self.not_told(node, &mut wr(&node.state));
                    return Err(e);
                }
            }
            if self.record(node, snap) {
                return Ok(());
            }
        }
        // Truncated without end by somebody.
        self.record_ahead(node);
        Ok(())
    }

    /// Appends a record of a file's content that no change can overtake: it is held back until the content is synced.
    pub(super) fn record_ahead(&self, node: &Node) {
        let _gate = rd(&self.gate);
        let mut state = wr(&node.state);
        if state.meta.nlink > 0 {
            self.content_first(node, &mut state, true);
        }
    }

    /// Appends a record of a file's content as it is with what changed, where that is little;
    /// false where the data file has to be synced.
    fn redo_node(&self, store: &Store, node: &Node) -> Res<bool> {
        let _flushing = lk(&node.flushing);
        let _gate = rd(&self.gate);
        let mut state = wr(&node.state);
        let named = state.meta.nlink > 0;
        match &mut state.body {
            Body::File(f) if f.dirty && named => {
                let little = store.journal.waiting() < REDO && !store.journal.is_short();
                Ok(little && self.log_redo(node, &mut state)?)
            }
            _ => Ok(true),
        }
    }

    /// `fsync(2)` of a file, or with `data_only` `fdatasync(2)`.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC` and the like of the host; once also for content that somebody else tried to write back.
    pub(crate) fn fsync(&self, ino: u64, data_only: bool) -> Res<()> {
        let Ok(store) = self.store() else {
            return Ok(());
        };
        if self.unstuck().is_err() {
            // Nothing is added to what cannot be written.
            self.commit(true)?;
        }
        let Some(node) = self.node(ino) else {
            return self.commit(true);
        };
        let done = self.fsync_content(store, &node, data_only);
        let committed = match done {
            Ok(true) => Ok(()),
            _ => self.commit(true),
        };
        let earlier = match &mut wr(&node.state).body {
            Body::File(f) => {
                self.take_failure(store, f);
                f.error.take()
            }
            _ => None,
        };
        done?;
        committed?;
        earlier.map_or(Ok(()), Err)
    }

    /// Brings a file's content to disk or to the journal; whether the journal need not be synced.
    fn fsync_content(&self, store: &Store, node: &Node, data_only: bool) -> Res<bool> {
        self.sync_inherited(store, node)?;
        if data_only && self.sync_overwritten(store, node)? {
            return Ok(true);
        }
        if !self.redo_node(store, node)? {
            self.flush_node(store, node)?;
        }
        Ok(false)
    }

    /// What an earlier server wrote and did not sync is the file's content as much as anything else.
    fn sync_inherited(&self, store: &Store, node: &Node) -> Res<()> {
        match &rd(&node.state).body {
            Body::File(f) if f.inherited => {}
            _ => return Ok(()),
        }
        let _flushing = lk(&node.flushing);
        let (id, file) = match &mut wr(&node.state).body {
            Body::File(f) if f.inherited => (f.data_id, self.data_file(node, f, 0)?),
            _ => return Ok(()),
        };
        store.data.sync_place(id, &file, true)?;
        if let Body::File(f) = &mut wr(&node.state).body {
            f.inherited = false;
        }
        Ok(())
    }

    /// Failed syncs of the place where the content is become the file's own.
    pub(super) fn take_failure(&self, store: &Store, f: &mut FileBody) {
        let (count, errno) = store.data.failures(f.data_id);
        if count != f.failures {
            f.failures = count;
            f.error = f.error.or(errno);
        }
    }

    /// Syncs the data file if that is all there is to an fdatasync: no block and no byte of length
    /// that the journal does not know durably, and no redo that would undo it.
    fn sync_overwritten(&self, store: &Store, node: &Node) -> Res<bool> {
        let _flushing = lk(&node.flushing);
        let (id, file) = {
            let mut state = wr(&node.state);
            let Body::File(f) = &mut state.body else {
                return Ok(false);
            };
            if !f.logged
                || f.full
                || f.grown
                || f.redo > store.journal.folded()
                || f.seq > store.journal.durable()
            {
                return Ok(false);
            }
            if f.written == Ranges::default() {
                return Ok(true);
            }
            if is_region(f.data_id) && f.changed().blocks() <= BLOCKS {
                // With it all that was written to its neighbours would be synced: its bytes go to the journal.
                f.redos = 0;
                return Ok(false);
            }
            let file = self.data_file(node, f, 0)?;
            f.inflight = std::mem::take(&mut f.written);
            (f.data_id, file)
        };
        let synced = store.data.sync_place(id, &file, true);
        let mut state = wr(&node.state);
        match (&synced, &mut state.body) {
            (Ok(()), Body::File(f)) => f.inflight = Ranges::default(),
            _ => self.not_told(node, &mut state),
        }
        synced.map(|()| true)
    }

    /// Makes every change of metadata so far durable. `ahead`: somebody asked for it, and may
    /// again.
    ///
    /// # Errors
    /// As [`Tree::fsync`].
    pub(crate) fn commit(&self, ahead: bool) -> Res<()> {
        let Ok(store) = self.store() else {
            return Ok(());
        };
        self.written_anew(store);
        let mut before = store.journal.durable();
        let written = loop {
            let written = self.make_durable(store, store.journal.last(), ahead);
            let durable = store.journal.durable();
            if written.is_ok() || durable > before {
                self.clean_up(store, ahead && written.is_ok());
            }
            // On a full disk what was written may have made room for what was not.
            if !(matches!(written, Err(Errno::ENOSPC | Errno::EDQUOT)) && durable > before) {
                break written;
            }
            before = durable;
        };
        self.noted(written)?;
        let _ = store.journal.refill();
        if store.journal.is_long() {
            store.flush.hurry();
        }
        Ok(())
    }

    /// Appends the records of the content that files got since they were emptied, if there are any. Nothing may be locked.
    pub(super) fn written_anew(&self, store: &Store) -> bool {
        if store.flush.unrecorded.load(Ordering::Acquire) == 0 || self.unstuck().is_err() {
            return false;
        }
        // Who comes second may not commit the truncations before the first has appended what follows them.
        let _anew = lk(&store.flush.anew);
        let emptied = std::mem::take(&mut *lk(&store.flush.emptied));
        let count = emptied.len();
        for node in emptied.into_iter().filter_map(|ino| self.node(ino)) {
            let _gate = rd(&self.gate);
            let mut state = wr(&node.state);
            if state.meta.nlink > 0 {
                self.content_first(&node, &mut state, false);
            }
        }
        store.flush.unrecorded.fetch_sub(count, Ordering::Release);
        true
    }

    /// Makes the records up to `seq` durable, and before them what those that are held wait for.
    pub(super) fn make_durable(&self, store: &Store, seq: u64, ahead: bool) -> Res<()> {
        if store.journal.durable() >= seq {
            return Ok(());
        }
        let holds: Vec<Hold> = {
            let all = lk(&store.flush.holds);
            all.iter().filter(|h| h.seq <= seq).copied().collect()
        };
        let ids = holds.iter().map(|hold| (hold.data_id, hold.named));
        store.data.sync(ids).map_err(|u| {
            if u.lost {
                // Trying again would succeed, and the record speak of what is not there.
                store.journal.fail();
            }
            u.errno
        })?;
        if !holds.is_empty() {
            // Others may have been at the same ones: no harm.
            lk(&store.flush.holds).retain(|h| h.seq > seq);
        }
        store.journal.sync(seq, ahead)
    }

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// As [`Tree::fsync`].
    pub(crate) fn sync_all(&self) -> Res<()> {
        let Ok(store) = self.store() else {
            return Ok(());
        };
        // What is not needed any more need not be written first.
        store.data.delete(store.flush.ripe(store.journal.durable()));
        let mut dirty = std::mem::take(&mut *lk(&store.flush.dirty));
        // A file may be listed twice, its lock is taken once.
        dirty.sort_unstable();
        dirty.dedup();
        let flushed = self.flush_many(store, &dirty);
        // Whatever could not be: the others' records.
        let committed = self.commit(false);
        flushed.and(committed)?;
        // Not with every fsync: some seconds late is early enough.
        self.publish(store);
        Ok(())
    }

    /// Flushes what it can of these files and puts the others back on the list.
    fn flush_many(&self, store: &Store, dirty: &[u64]) -> Res<()> {
        let _many = lk(&store.flush.many);
        let nodes: Vec<Arc<Node>> = dirty.iter().filter_map(|ino| self.node(*ino)).collect();
        let mut snaps = Vec::with_capacity(nodes.len());
        let mut result = Ok(());
        for node in &nodes {
            let flushing = lk(&node.flushing);
            match self.snapshot(node) {
                Ok(None) => {}
                Ok(Some(mut snap)) => {
                    // They may be thousands: none is held.
                    snap.file = None;
                    snaps.push((node, snap, flushing));
                }
                Err(e) => {
                    lk(&store.flush.dirty).push(node.ino);
                    result = result.and(Err(e));
                }
            }
        }
        let ids = snaps.iter().map(|(_, s, _)| (s.extents.data_id, s.named));
        let unsynced = store.data.sync(ids).err();
        let mut overtaken = Vec::new();
        for (node, snap, _flushing) in snaps {
            if unsynced
                .as_ref()
                .is_some_and(|u| u.has(snap.extents.data_id))
            {
                self.not_told(node, &mut wr(&node.state));
            } else if !self.record(node, snap) {
                overtaken.push(node);
            }
        }
        result = result.and(unsynced.map_or(Ok(()), |u| Err(u.errno)));
        // They are on the list again: where they are many, for the next time.
        if overtaken.len() < MANY {
            for node in overtaken {
                result = result.and(self.flush_node(store, node));
            }
        }
        result
    }

    /// What may go now that the journal is durable. Failures cost space, not content, and the
    /// next open sweeps. `later`: what costs more now than many at once is left to the flusher.
    pub(super) fn clean_up(&self, store: &Store, later: bool) {
        let durable = store.journal.durable();
        if !later || store.flush.worth_deleting(durable) {
            store.data.delete(store.flush.ripe(durable));
        }
        let mut cut = ripe(&store.flush.trims, durable);
        cut.sort_unstable();
        cut.dedup();
        for ino in cut {
            let Some(node) = self.node(ino) else { continue };
            let mut state = wr(&node.state);
            let Body::File(f) = &mut state.body else {
                continue;
            };
            if f.seq > durable {
                // Cut again since: what a crash brings back may need what lies behind that end.
                store.flush.trim_later(f.seq, ino);
                continue;
            }
            let end = f.valid.end() * BLOCK;
            if f.data_id != 0
                && f.owned
                && let Ok(place) = self.data_file(&node, f, 0)
                && f.phys > end
                && place.cut(end, f.cap()).is_ok()
            {
                f.phys = end;
            }
        }
    }
}

/// Takes what waited for a record that is durable.
fn ripe<T: Copy>(list: &Mutex<Vec<(u64, T)>>, durable: u64) -> Vec<T> {
    let mut list = lk(list);
    let (now, later) = list.iter().partition(|(seq, _)| *seq <= durable);
    *list = later;
    let now: Vec<(u64, T)> = now;
    now.into_iter().map(|(_, what)| what).collect()
}

/// Where all of a file's content is, for the journal.
pub(super) fn extents(f: &FileBody) -> Extents {
    Extents {
        data_id: f.data_id,
        base_len: f.base_len,
        full: true,
        blocks: f.valid.iter().collect(),
    }
}

/// The same, what the journal knows already left out where that is shorter.
pub(super) fn changes(f: &FileBody) -> Extents {
    if f.full || !f.logged {
        return extents(f);
    }
    let changed = f.changed();
    if changed.runs() > f.valid.runs() {
        return extents(f);
    }
    Extents {
        data_id: f.data_id,
        base_len: f.base_len,
        full: false,
        blocks: changed.iter().collect(),
    }
}
