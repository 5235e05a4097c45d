//! Opening an upper, and writing it anew as a checkpoint.

use super::super::index::Index;
use super::super::journal::Journal;
use super::super::journal::Record;
use super::super::lower::Low;
use super::super::meta::{Res, rd, wr};
use super::data::DataDir;
use super::flush::{Flush, extents};
use super::node::{Body, Node};
use super::{SHARDS, Store, Tree};
use crate::error::Result;
use anyhow::Context;
use std::collections::HashSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A journal is not worth rewriting below this length,
const SHORT: u64 = 1 << 20;
/// nor when it is not this many times as long as its checkpoint would be.
const WORTH: u64 = 2;

impl Tree {
    /// A tree over `low`; with an upper it can be changed.
    ///
    /// # Errors
    /// The upper cannot be made, is in use, is damaged before its tail, or is another lower's.
    pub(crate) fn open(
        low: Low,
        upper: Option<&Path>,
        squash: Option<(u32, u32)>,
        limit: Option<u64>,
    ) -> Result<Tree> {
        let mut tree = Tree {
            low,
            shards: (0..SHARDS).map(|_| std::sync::RwLock::default()).collect(),
            store: None,
            squash,
            limit: None,
            blocks: AtomicU64::new(0),
            created: AtomicU64::new(0),
        };
        let Some(upper) = upper else { return Ok(tree) };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(upper)
            .with_context(|| format!("making upper directory {}", upper.display()))?;
        let data = DataDir::open(upper)?;
        let path = upper.join("journal");
        let journal = Journal::open(&path, tree.low.base(), |record| {
            if let Record::Next { data_id, .. } = record {
                data.reserve(data_id);
            }
            tree.replay(record).context("replaying")
        })?;
        let keep = tree.settle();
        for id in &keep {
            data.reserve(id + 1);
        }
        data.sweep(upper, &keep)?;
        tree.limit = limit;
        tree.store = Some(Store {
            journal,
            data,
            flush: Flush::new(),
        });
        tree.checkpoint_if_long()
            .with_context(|| format!("rewriting journal {}", path.display()))?;
        Ok(tree)
    }

    /// Every node, in the order of numbers.
    fn nodes(&self) -> Vec<Arc<Node>> {
        let mut all: Vec<Arc<Node>> = self
            .shards
            .iter()
            .flat_map(|s| rd(s).values().cloned().collect::<Vec<_>>())
            .collect();
        all.sort_by_key(|n| n.ino);
        all
    }

    /// After replay: orphans go, and the data files in use are counted and returned.
    fn settle(&self) -> HashSet<u64> {
        let mut keep = HashSet::new();
        let (mut blocks, mut created) = (0, 0);
        for node in self.nodes() {
            let state = rd(&node.state);
            if state.meta.nlink == 0 && node.ino != Index::ROOT {
                wr(self.shard(node.ino)).remove(&node.ino);
                continue;
            }
            created += u64::from(!self.low.contains_number(node.ino));
            if let Body::File(f) = &state.body
                && f.data_id != 0
            {
                keep.insert(f.data_id);
                blocks += f.valid.blocks();
            }
        }
        self.blocks.store(blocks, Ordering::Relaxed);
        self.created.store(created, Ordering::Relaxed);
        keep
    }

    fn checkpoint_if_long(&self) -> Res<()> {
        let store = self.store()?;
        if store.journal.length() < SHORT {
            return Ok(());
        }
        // A node and its entry take about this much.
        let nodes: u64 = self.shards.iter().map(|s| rd(s).len() as u64).sum();
        if store.journal.length() / WORTH < nodes * 256 {
            return Ok(());
        }
        self.checkpoint()
    }

    /// Replaces the journal by the shortest one with the same meaning. Nobody else may be using
    /// the tree, and everything must be durable (as it is right after opening).
    ///
    /// # Errors
    /// The old journal stays.
    pub(crate) fn checkpoint(&self) -> Res<()> {
        let store = self.store()?;
        let nodes = self.nodes();
        store.journal.rewrite(|put| {
            put(&Record::Next {
                ino: self.low.next(),
                data_id: store.data.next(),
            });
            if let Some(host) = self.low.as_host() {
                for (ino, path) in host.bindings() {
                    put(&Record::Bind { ino, path: &path });
                }
            }
            for node in &nodes {
                self.put_node(node, put);
            }
            for node in &nodes {
                put_entries(node, put);
            }
        })
    }

    fn put_node(&self, node: &Node, put: &mut dyn FnMut(&Record<'_>)) {
        let state = rd(&node.state);
        let (target, x) = match &state.body {
            Body::Link(target) => (&**target, Default::default()),
            Body::File(f) => (&b""[..], extents(f)),
            _ => (&b""[..], Default::default()),
        };
        put(&Record::Node {
            ino: node.ino,
            parent: state.parent,
            base: self.low.contains_number(node.ino),
            meta: state.meta,
            target,
            xattrs: state
                .xattrs
                .as_ref()
                .map(|map| map.iter().map(|(n, v)| (&**n, &**v)).collect()),
            extents: x,
        });
    }
}

fn put_entries(node: &Node, put: &mut dyn FnMut(&Record<'_>)) {
    let state = rd(&node.state);
    let Some(dir) = state.dir() else { return };
    let entry = |name, ino, kind| Record::Entry {
        parent: node.ino,
        ino,
        kind,
        name,
    };
    for (name, slot) in dir.names.iter().filter(|(_, s)| s.ino == 0) {
        put(&entry(name, 0, slot.kind));
    }
    for name in dir.order.values() {
        if let Some(slot) = dir.names.get(name) {
            put(&entry(name, slot.ino, slot.kind));
        }
    }
}
