//! Durability: which files have content the journal does not know, and making it known.
//!
//! A file's `Data` record is appended only after its data file was synced, from a snapshot taken
//! before the sync: what is written meanwhile waits for the next round. Changes of another shape
//! (truncation, punching) in between make the round start again.
//!
//! Data files whose inode is gone are deleted, and cut ones trimmed, when the record of it is
//! durable: until then a crash brings the old content back whole.

use super::super::journal::Record;
use super::super::journal::record::Extents;
use super::super::meta::{BLOCK, Res, lk, wr};
use super::node::{Body, FileBody, Node, State};
use super::{Store, Tree, io_errno};
use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a change may stay in memory.
const PERIOD: Duration = Duration::from_secs(5);
/// From this many dirty files on one syncfs is cheaper than an fdatasync each.
const MANY: usize = 32;

/// Work that waits.
pub(crate) struct Flush {
    dirty: Mutex<Vec<u64>>,
    /// Held by who flushes several files at once: only he holds more than one file's `flushing`.
    many: Mutex<()>,
    /// Dirty files that have to be durable with the next journal sync.
    ordered: Mutex<Vec<u64>>,
    /// Data files to delete when the record of that number is durable.
    pub(super) doomed: Mutex<Vec<(u64, u64)>>,
    /// Files to cut likewise.
    trims: Mutex<Vec<(u64, u64)>>,
    /// Inodes with an open data file, oldest first.
    open: Mutex<VecDeque<u64>>,
    opened: AtomicUsize,
    limit: usize,
    woken: AtomicBool,
    stop: Mutex<bool>,
    signal: Condvar,
}

/// Everything a `Data` record says, and what must still hold when it is written.
pub(super) struct Snapshot {
    size: u64,
    mtime: super::Time,
    ctime: super::Time,
    extents: Extents,
    generation: u64,
    fresh: bool,
    file: Option<Arc<File>>,
}

impl Flush {
    pub(crate) fn new() -> Flush {
        let soft = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .map_or(1024, |(soft, _)| soft);
        Flush {
            dirty: Mutex::default(),
            many: Mutex::default(),
            ordered: Mutex::default(),
            doomed: Mutex::default(),
            trims: Mutex::default(),
            open: Mutex::default(),
            opened: AtomicUsize::new(0),
            limit: usize::try_from(soft / 2).unwrap_or(512).clamp(64, 1024),
            woken: AtomicBool::new(false),
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

    /// The file must be durable no later than the next record that is.
    pub(super) fn with_next_sync(&self, ino: u64) {
        lk(&self.ordered).push(ino);
    }

    pub(super) fn trim_later(&self, seq: u64, ino: u64) {
        lk(&self.trims).push((seq, ino));
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

    /// Ends [`Tree::flusher`].
    pub(crate) fn stop(&self) {
        *lk(&self.stop) = true;
        self.signal.notify_all();
    }
}

impl Tree {
    /// The flusher thread: makes everything durable some seconds after the first change.
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
                    .wait_timeout_while(stop, PERIOD, |stop| !*stop)
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
        }
    }

    /// A locked file has content the journal does not know.
    pub(super) fn mark_dirty(&self, node: &Node, state: &mut State) {
        if let (Body::File(f), Ok(store)) = (&mut state.body, self.store())
            && !f.dirty
        {
            f.dirty = true;
            lk(&store.flush.dirty).push(node.ino);
            store.flush.wake();
        }
    }

    pub(super) fn snapshot(&self, node: &Node) -> Res<Option<Snapshot>> {
        let mut state = wr(&node.state);
        let (size, mtime, ctime) = (state.meta.size, state.meta.mtime, state.meta.ctime);
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
            _ => Some(self.data_file(node, f)?),
        };
        f.dirty = false;
        Ok(Some(Snapshot {
            size,
            mtime,
            ctime,
            extents: extents(f),
            generation: f.generation,
            fresh: !f.logged,
            file,
        }))
    }

    /// Appends the record of a snapshot whose data is durable; false if it was overtaken.
    pub(super) fn record(&self, node: &Node, snap: Snapshot) -> bool {
        let mut state = wr(&node.state);
        let Body::File(f) = &mut state.body else {
            return true;
        };
        if f.generation != snap.generation || f.data_id != snap.extents.data_id {
            self.mark_dirty(node, &mut state);
            return false;
        }
        f.logged |= f.data_id != 0;
        self.log(&Record::Data {
            ino: node.ino,
            size: snap.size,
            mtime: snap.mtime,
            ctime: snap.ctime,
            extents: snap.extents,
        });
        true
    }

    /// Makes one file's content durable and appends the record of it.
    fn flush_node(&self, store: &Store, node: &Node) -> Res<()> {
        let _flushing = lk(&node.flushing);
        for _ in 0..16 {
            let Some(snap) = self.snapshot(node)? else {
                return Ok(());
            };
            if let Some(file) = &snap.file {
                let synced =
                    file.sync_data()
                        .map_err(|e| io_errno(&e))
                        .and_then(|()| match snap.fresh {
                            true => store.data.sync_names(snap.extents.data_id),
                            false => Ok(()),
                        });
                if let Err(e) = synced {
                    self.mark_dirty(node, &mut wr(&node.state));
                    return Err(e);
                }
            }
            if self.record(node, snap) {
                return Ok(());
            }
        }
        // Truncated without end by somebody: what is there is consistent, and on the list.
        Ok(())
    }

    /// `fsync(2)` of a file.
    ///
    /// # Errors
    /// `EIO`, `ENOSPC` and the like of the host.
    pub(crate) fn fsync(&self, ino: u64) -> Res<()> {
        let Ok(store) = self.store() else {
            return Ok(());
        };
        if let Some(node) = self.node(ino) {
            self.flush_node(store, &node)?;
        }
        self.commit()
    }

    /// Makes every change of metadata so far durable.
    ///
    /// # Errors
    /// As [`Tree::fsync`].
    pub(crate) fn commit(&self) -> Res<()> {
        let Ok(store) = self.store() else {
            return Ok(());
        };
        let mut ordered = std::mem::take(&mut *lk(&store.flush.ordered));
        while let Some(ino) = ordered.last() {
            if let Some(node) = self.node(*ino)
                && let Err(e) = self.flush_node(store, &node)
            {
                lk(&store.flush.ordered).append(&mut ordered);
                return Err(e);
            }
            ordered.pop();
        }
        store.journal.sync(store.journal.last())?;
        self.clean_up(store);
        Ok(())
    }

    /// Makes everything so far durable.
    ///
    /// # Errors
    /// As [`Tree::fsync`].
    pub(crate) fn sync_all(&self) -> Res<()> {
        let Ok(store) = self.store() else {
            return Ok(());
        };
        let dirty = std::mem::take(&mut *lk(&store.flush.dirty));
        let result = if dirty.len() < MANY {
            dirty.iter().try_for_each(|ino| match self.node(*ino) {
                Some(node) => self.flush_node(store, &node),
                None => Ok(()),
            })
        } else {
            self.flush_many(store, &dirty)
        };
        if let Err(e) = result {
            lk(&store.flush.dirty).extend(dirty);
            return Err(e);
        }
        self.commit()
    }

    fn flush_many(&self, store: &Store, dirty: &[u64]) -> Res<()> {
        let _many = lk(&store.flush.many);
        let mut inos = dirty.to_vec();
        // A file may be listed twice, its lock is taken once.
        inos.sort_unstable();
        inos.dedup();
        let nodes: Vec<Arc<Node>> = inos.iter().filter_map(|ino| self.node(*ino)).collect();
        let mut snaps = Vec::with_capacity(nodes.len());
        let mut result = Ok(());
        for node in &nodes {
            let flushing = lk(&node.flushing);
            match self.snapshot(node) {
                Ok(None) => {}
                Ok(Some(mut snap)) => {
                    // syncfs needs no descriptor: do not hold thousands.
                    snap.file = None;
                    snaps.push((node, snap, flushing));
                }
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
        }
        if !snaps.is_empty() && result.is_ok() {
            result = store.data.syncfs();
        }
        for (node, snap, _flushing) in snaps {
            match result {
                // Overtaken ones are on the list again.
                Ok(()) => drop(self.record(node, snap)),
                Err(_) => self.mark_dirty(node, &mut wr(&node.state)),
            }
        }
        result
    }

    /// What may go now that the journal is durable. Failures cost space, not content, and the
    /// next open sweeps.
    fn clean_up(&self, store: &Store) {
        let durable = store.journal.durable();
        let ripe = |list: &Mutex<Vec<(u64, u64)>>| {
            let mut list = lk(list);
            let (now, later) = list.iter().partition(|(seq, _)| *seq <= durable);
            *list = later;
            let now: Vec<(u64, u64)> = now;
            now
        };
        for (_, id) in ripe(&store.flush.doomed) {
            let _ = store.data.delete(id);
        }
        for (_, ino) in ripe(&store.flush.trims) {
            let Some(node) = self.node(ino) else { continue };
            let mut state = wr(&node.state);
            let Body::File(f) = &mut state.body else {
                continue;
            };
            let end = f.valid.end() * BLOCK;
            if f.data_id != 0
                && let Ok(file) = self.data_file(&node, f)
                && f.phys > end
                && file.set_len(end).is_ok()
            {
                f.phys = end;
            }
        }
    }
}

/// Where a file's content is, for the journal.
pub(super) fn extents(f: &FileBody) -> Extents {
    Extents {
        data_id: f.data_id,
        base_len: f.base_len,
        blocks: f.valid.iter().collect(),
    }
}
