//! The tree: a lower, the inodes that were changed over it, and how changes become durable.
//!
//! # Theory of operation
//!
//! An inode that nobody changed is answered from the lower. The first change *promotes* it: a
//! [`Node`] with its metadata is put into a sharded map. New inodes are nodes from the start. A
//! directory's node holds only the difference to the lower directory of the same number; a file's
//! node holds which blocks are in its data file. Every change is first checked, then appended to
//! the journal and applied, under the locks of the nodes concerned; replay applies the same way.
//!
//! # Locks
//!
//! The gate ([`fold`]) is read by every change before anything else. One `RwLock` per node. Order:
//! a file's `flushing` lock (before the gate), then the gate, then directories (two of them by number), then what they name (two by
//! number). The kernel holds its own locks on the directories of a change, so two changes that
//! would need each other's nodes in another order never meet. Below nodes: the map's shards, the
//! journal's buffer, the lists of dirty and doomed files: each held for a few instructions, none
//! while calling out (but a host directory's table while its bindings are put into that buffer). Nothing is locked by two unrelated inodes but those.
//!
//! # Life of an inode
//!
//! A node without names lives until the kernel has forgotten it; its data file is deleted when
//! the journal no longer refers to it durably. Orphans of a crash are swept on open.

mod arena;
#[cfg(test)]
mod arenas;
mod attr;
mod create;
#[cfg(test)]
mod damage;
mod data;
mod dir;
#[cfg(test)]
mod durability;
mod extent;
#[cfg(test)]
mod failures;
mod flush;
mod fold;
#[cfg(test)]
mod folding;
mod freeze;
#[cfg(test)]
mod freezing;
#[cfg(test)]
mod hosts;
#[cfg(test)]
mod hosts_change;
mod io;
#[cfg(test)]
mod left;
mod moving;
mod node;
mod open;
mod redo;
mod remove;
mod rename;
mod replay;
mod space;
#[cfg(test)]
mod space_tests;
#[cfg(test)]
mod waiting;
mod xattr;

pub(crate) use attr::{SetAttr, Stamp};
pub(crate) use create::New;
pub(crate) use dir::{Dirent, HostDirs};
pub(crate) use node::{Body, Node, State};

use super::journal::{Journal, Record};
use super::lower::Low;
use super::meta::{BLOCK, Meta, Res, Time, errno, lk, rd, wr};
use data::DataDir;
use flush::Flush;
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

const SHARDS: usize = 64;

type Shard = RwLock<HashMap<u64, Arc<Node>>>;

/// What makes a tree writable.
pub(crate) struct Store {
    pub(crate) journal: Journal,
    pub(crate) data: DataDir,
    pub(crate) flush: Flush,
    /// The file `usage`, and what it says.
    usage: File,
    published: Mutex<Option<Usage>>,
}

/// A lower and its upper.
pub(crate) struct Tree {
    pub(crate) low: Low,
    shards: Vec<Shard>,
    store: Option<Store>,
    /// Everything shown as this owner; true owners stay in the metadata.
    pub(crate) squash: Option<(u32, u32)>,
    /// Bytes that may be used.
    limit: Option<u64>,
    /// Bytes that are, as [`space`] counts them.
    used: AtomicU64,
    /// Inodes that have no name left, but users.
    nameless: AtomicU64,
    /// Why the journal could not be written the last time; 0: it could.
    stuck: AtomicI32,
    /// Nodes that are new, not changed lower inodes.
    created: AtomicU64,
    /// Read by every change, from its check to its end; written while a fold encodes the tree.
    pub(crate) gate: RwLock<()>,
}

/// What an upper holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes: content in whole blocks, and what inodes, names and attributes take.
    pub bytes: u64,
    /// Inodes made in it.
    pub inodes: u64,
}

impl Tree {
    fn shard(&self, ino: u64) -> &Shard {
        // Numbers given out in a row land in different shards.
        &self.shards[(ino as usize) % SHARDS]
    }

    /// The node of an inode that was changed or made here.
    pub(crate) fn node(&self, ino: u64) -> Option<Arc<Node>> {
        rd(self.shard(ino)).get(&ino).cloned()
    }

    pub(crate) fn store(&self) -> Res<&Store> {
        self.store.as_ref().ok_or(Errno::EROFS)
    }

    /// Journals a change; returns its number.
    fn log(&self, record: &Record<'_>) -> u64 {
        match &self.store {
            Some(s) => {
                debug_assert!(self.gate.try_write().is_err(), "a change without the gate");
                let seq = s.journal.append(record);
                s.flush.wake();
                seq
            }
            _ => 0,
        }
    }

    /// The node of an inode, made from the lower if it has none.
    ///
    /// # Errors
    /// `ENOENT` where no inode has that number; of a host directory's, `ESTALE` and what else it answers.
    pub(crate) fn promote(&self, ino: u64) -> Res<Arc<Node>> {
        self.promote_if(ino, |_| Ok(()))
    }

    /// The same, if the lower's inode is one that the change is possible with: what is refused leaves no node.
    fn promote_if(&self, ino: u64, check: impl FnOnce(&Meta) -> Res<()>) -> Res<Arc<Node>> {
        if let Some(node) = self.node(ino) {
            self.bind(ino, Some(&node))?;
            return Ok(node);
        }
        let meta = self.low.meta(ino);
        if let Ok(Some(meta)) = &meta {
            check(meta)?;
        }
        self.bind(ino, None)?;
        let meta = meta?.ok_or(Errno::ENOENT)?;
        let parent = if meta.is_dir() {
            self.low.parent(ino)
        } else {
            0
        };
        if let Some(host) = self.low.as_host() {
            let names = u32::try_from(host.names(ino).len()).unwrap_or(u32::MAX);
            host.set_unseen(ino, meta.nlink.saturating_sub(names));
        }
        let state = State::over_lower(meta, parent, self.low.is_live());
        let mut shard = wr(self.shard(ino));
        Ok(Arc::clone(shard.entry(ino).or_insert_with(|| {
            self.recount(0, state.cost());
            Arc::new(Node::new(ino, state))
        })))
    }

    /// Binds the names by which a host directory's inode is known: one that is about to be changed, or that has a node.
    fn bind(&self, ino: u64, node: Option<&Arc<Node>>) -> Res<()> {
        let Some(host) = self.low.as_host() else {
            return Ok(());
        };
        // What replay sees is not its to bind.
        if host.is_bound(ino) || (node.is_some() && self.store.is_none()) {
            return Ok(());
        }
        let mut more = 0;
        host.bind(ino, &mut |path| {
            more += 1;
            self.log(&Record::Bind { ino, path });
        })?;
        if let Some(node) = node {
            // Links that the host made since.
            let unknown = host.unknown_names(ino, more);
            if unknown > 0 {
                let meta = &mut wr(&node.state).meta;
                meta.nlink = meta.nlink.saturating_add(unknown);
            }
        }
        Ok(())
    }

    fn insert(&self, ino: u64, state: State) -> Arc<Node> {
        self.recount(0, state.cost());
        let node = Arc::new(Node::new(ino, state));
        wr(self.shard(ino)).insert(ino, Arc::clone(&node));
        if !self.low.contains_number(ino) {
            self.created.fetch_add(1, Ordering::Relaxed);
        }
        node
    }

    /// The metadata of an inode as it is, true owner included.
    pub(crate) fn true_meta(&self, ino: u64) -> Res<Meta> {
        if let Some(node) = self.node(ino) {
            let state = rd(&node.state);
            return self.meta_of(ino, &state);
        }
        self.low.meta(ino)?.ok_or(Errno::ENOENT)
    }

    fn meta_of(&self, ino: u64, state: &State) -> Res<Meta> {
        if let Body::File(f) = &state.body
            && f.live
            && let Some(low) = self.low.meta(ino)?
        {
            if low.kind() != state.meta.kind() {
                // Nothing is left of it.
                return Ok(state.meta);
            }
            // Content is still the host's: so are its size and, if it changed since anything was set here, its time.
            let mut meta = state.meta;
            meta.size = low.size;
            if low.ctime > meta.ctime && low.mtime > meta.ctime {
                (meta.mtime, meta.ctime) = (low.mtime, low.ctime.max(meta.ctime));
            }
            return Ok(meta);
        }
        Ok(state.meta)
    }

    /// Before attributes of a locked node are set: the time that a live host gave its content stays.
    fn follow(&self, ino: u64, state: &mut State) {
        let live = matches!(&state.body, Body::File(f) if f.live);
        if live
            && let Ok(meta) = self.meta_of(ino, state)
            && meta.mtime != state.meta.mtime
        {
            (state.meta.mtime, state.meta.ctime) = (meta.mtime, meta.ctime);
            self.log_attr(ino, state);
        }
    }

    /// Metadata as shown inside, and the number of 512-byte blocks.
    pub(crate) fn getattr(&self, ino: u64) -> Res<(Meta, u64)> {
        let (mut meta, blocks) = if let Some(node) = self.node(ino) {
            let state = rd(&node.state);
            let meta = self.meta_of(ino, &state)?;
            (meta, state.sectors(meta.size))
        } else {
            let meta = self.low.meta(ino)?.ok_or(Errno::ENOENT)?;
            (meta, sectors(&meta))
        };
        if let Some((uid, gid)) = self.squash {
            (meta.uid, meta.gid) = (uid, gid);
        }
        Ok((meta, blocks))
    }

    /// The target of a symbolic link.
    pub(crate) fn readlink(&self, ino: u64) -> Res<Vec<u8>> {
        if let Some(node) = self.node(ino) {
            return match &rd(&node.state).body {
                Body::Link(target) => Ok(target.to_vec()),
                Body::LowLink => self.low.readlink(ino).map(std::borrow::Cow::into_owned),
                _ => Err(Errno::EINVAL),
            };
        }
        self.low.readlink(ino).map(std::borrow::Cow::into_owned)
    }

    /// The kernel gets the inode's number in an answer; false: it was forgotten or went since it was looked up.
    pub(crate) fn refer(&self, ino: u64) -> bool {
        if self.low.contains_number(ino) {
            self.low.refer(ino)
        } else if let Some(node) = self.node(ino) {
            node.lookups.fetch_add(1, Ordering::Relaxed);
            true
        } else {
            false
        }
    }

    /// The kernel gives `n` of them back.
    pub(crate) fn forget(&self, ino: u64, n: u64) {
        let left = if self.low.contains_number(ino) {
            self.low.forget(ino, n)
        } else if let Some(node) = self.node(ino) {
            let old = node
                .lookups
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |c| {
                    Some(c.saturating_sub(n))
                })
                .unwrap_or(0);
            old.saturating_sub(n)
        } else {
            return;
        };
        if left == 0
            && let Some(node) = self.node(ino)
        {
            let mut state = wr(&node.state);
            if let Body::File(f) = &mut state.body {
                f.fd = None;
            }
            self.reap(&node, &mut state);
        }
    }

    fn lookups(&self, node: &Node) -> u64 {
        if self.low.contains_number(node.ino) {
            self.low.lookups(node.ino)
        } else {
            node.lookups.load(Ordering::Acquire)
        }
    }

    /// Drops an inode that has neither a name nor a user left.
    fn reap(&self, node: &Node, state: &mut State) {
        if state.meta.nlink != 0 {
            return;
        }
        if self.lookups(node) != 0 {
            return self.mark_nameless(node);
        }
        self.drop_node(node, state);
    }

    fn drop_node(&self, node: &Node, state: &mut State) {
        if let Body::File(f) = &mut state.body {
            self.drop_blocks(f);
        }
        if wr(self.shard(node.ino)).remove(&node.ino).is_some() {
            self.refund(state.cost());
            self.unmark_nameless(node);
            if !self.low.contains_number(node.ino) {
                self.created.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether the content can be read: what a live host refuses its user is refused here. False where the host changed it since it
    /// was opened last.
    pub(crate) fn openable(&self, ino: u64) -> Res<bool> {
        if let Some(node) = self.node(ino)
            && !matches!(&rd(&node.state).body, Body::File(f) if f.live)
        {
            return Ok(true);
        }
        match self.low.as_host() {
            Some(host) => host.opened(ino),
            None => self.low.read(ino, 0, &mut []).map(|_| true),
        }
    }

    /// Whether changes are possible at all.
    pub(crate) fn writable(&self) -> Res<()> {
        self.store().map(|_| ())
    }

    /// Every change begins with this, and keeps it to its end. Not to be had twice by one thread.
    ///
    /// # Errors
    /// `EROFS`; why the journal cannot be written, when too much waits for that.
    fn change(&self) -> Res<RwLockReadGuard<'_, ()>> {
        self.not_too_much(self.store()?)?;
        Ok(rd(&self.gate))
    }
}

/// 512-byte blocks of an inode that is all in the lower.
fn sectors(meta: &Meta) -> u64 {
    if meta.is_file() {
        meta.size.div_ceil(BLOCK) * (BLOCK / 512)
    } else {
        0
    }
}

/// Shorthand for the changes' own modules.
fn now() -> Time {
    Time::now()
}

fn io_errno(e: &std::io::Error) -> Errno {
    errno(e)
}
