//! Folding the journal into the shortest one with the same meaning, while the tree is in use.
//!
//! Every change holds the *gate* for reading from its check to its end, so between append and apply
//! too. A fold takes it for writing only while it encodes all nodes into memory: that is the state
//! as of the last record. It says of every file what is in its data file now, logged or not; so
//! before the image may take the journal's place everything in the data directory is synced, and
//! data files it names are not deleted before a record says so durably. A flush that was under way
//! has an older state to tell of and starts again. What comes behind the image is the journal's
//! own business ([`super::super::journal`]).

use super::super::journal::Record;
use super::super::journal::Step;
use super::super::journal::file::Watch;
use super::super::journal::record::Extents;
use super::super::meta::{Res, lk, rd, wr};
use super::flush::extents;
use super::node::{Body, Node};
use super::{Store, Tree};
use std::path::Path;
use std::sync::Arc;

impl Tree {
    /// Every node, in the order of numbers.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        let mut all: Vec<Arc<Node>> = self
            .shards
            .iter()
            .flat_map(|s| rd(s).values().cloned().collect::<Vec<_>>())
            .collect();
        all.sort_by_key(|n| n.ino);
        all
    }

    /// Folds the journal if it has grown enough.
    ///
    /// # Errors
    /// As [`Tree::fold`]; it is not tried again soon then.
    pub(super) fn fold_if_long(&self) -> Res<()> {
        let store = self.store()?;
        if !store.journal.is_long() {
            return Ok(());
        }
        self.fold(&mut |_| Ok(()))
            .inspect_err(|_| store.journal.put_off())
    }

    /// Replaces the journal by its image.
    ///
    /// # Errors
    /// What the host answers (`ENOSPC` …): the old journal stays in use.
    pub(crate) fn fold(&self, watch: Watch<'_>) -> Res<()> {
        self.fold_into(None, watch)
    }

    /// The same; into the directory `frozen` goes what makes an upper of that moment ([`super::freeze`]).
    pub(super) fn fold_into(&self, frozen: Option<&Path>, watch: Watch<'_>) -> Res<()> {
        let store = self.store()?;
        let _alone = lk(&store.flush.folding);
        let (image, last) = {
            let _gate = wr(&self.gate);
            let nodes = self.nodes();
            for node in &nodes {
                let mut state = wr(&node.state);
                let size = state.meta.size;
                if let Body::File(f) = &mut state.body {
                    f.known[1] = size;
                    f.logged |= f.data_id != 0;
                    f.generation += 1;
                }
            }
            let mut image = store.journal.image(|put| self.put_all(store, &nodes, put));
            if let Some(to) = frozen {
                let shared = self.share(store, &nodes, to);
                image = image.and_then(|image| shared.map(|()| image));
            }
            (image, store.journal.last())
        };
        let image = image?;
        watch(Step::Encoded)?;
        // Where that fails the old journal goes on, which never relied on it, and is not folded any more by this server.
        store.data.syncfs()?;
        lk(&store.flush.holds).retain(|hold| hold.seq > last);
        store.journal.sync(last, false)?;
        watch(Step::Settled)?;
        if let Some(to) = frozen {
            image.write(&to.join("journal"), true)?;
        }
        store.journal.adopt(image, watch)
    }

    pub(super) fn put_all(
        &self,
        store: &Store,
        nodes: &[Arc<Node>],
        put: &mut dyn FnMut(&Record<'_>),
    ) {
        let (data_id, arena) = store.data.next();
        put(&Record::Next {
            ino: self.low.next(),
            data_id,
            arena,
        });
        if let Some(host) = self.low.as_host() {
            for (ino, path) in host.bindings() {
                put(&Record::Bind { ino, path: &path });
            }
        }
        for node in nodes {
            self.put_node(node, put);
        }
        for node in nodes {
            put_entries(node, put);
        }
    }

    fn put_node(&self, node: &Node, put: &mut dyn FnMut(&Record<'_>)) {
        let state = rd(&node.state);
        let (target, x) = match &state.body {
            Body::Link(target) => (&**target, Default::default()),
            // Without content of the lower's it would be one that was emptied here.
            Body::File(f) if f.live => {
                let base_len = f.base_len.max(1);
                (
                    &b""[..],
                    Extents {
                        base_len,
                        ..extents(f)
                    },
                )
            }
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
