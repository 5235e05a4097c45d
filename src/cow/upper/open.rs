//! Opening an upper: replay, redo, and clearing what a crash left.

use super::super::frozen;
use super::super::index::Index;
use super::super::journal::Journal;
use super::super::journal::Record;
use super::super::lower::Low;
use super::super::meta::{BLOCK, Res, rd, wr};
use super::data::{DataDir, Kept};
use super::flush::Flush;
use super::freeze::shared;
use super::node::Body;
use super::redo::Collected;
use super::{SHARDS, Store, Tree, space};
use crate::error::{Result, failed};
use anyhow::Context;
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

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
            used: AtomicU64::new(0),
            nameless: AtomicU64::new(0),
            stuck: AtomicI32::new(0),
            created: AtomicU64::new(0),
            gate: std::sync::RwLock::default(),
        };
        let Some(upper) = upper else { return Ok(tree) };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(upper)
            .with_context(|| format!("making upper directory {}", upper.display()))?;
        frozen::sweep(upper);
        frozen::finish_restore(upper).with_context(|| format!("restoring {}", upper.display()))?;
        let data = DataDir::open(upper)?;
        let path = upper.join("journal");
        let holds = || DataDir::holds_content(upper);
        if !Journal::started(&path)
            && holds().with_context(|| format!("looking into {}", upper.display()))?
        {
            // A new one is durable before any content is.
            return Err(failed(format!(
                "journal {} is missing or has lost its beginning, but there is content in {}: it says which files that is, and without it \
                 all of it would be deleted. Bring the journal back, or remove the whole directory",
                path.display(),
                upper.display()
            ))
            .into());
        }
        let mut redo = Collected::default();
        let journal = Journal::open(&path, tree.low.base(), |seq, record| {
            match &record {
                Record::Next { data_id, arena, .. } => data.reserve(*data_id, *arena),
                Record::Data { extents, .. } | Record::Node { extents, .. } => data.seen(extents),
                _ => {}
            }
            tree.replay(seq, record, &mut redo).context("replaying")
        })?;
        let keep = tree.settle();
        let cut = Journal::cut_part(&path);
        if let Some(cut) = &cut {
            log::warn!(
                "records behind damage of the journal are in {}: no content is deleted that they may speak of until that file is removed",
                cut.display()
            );
        }
        data.sweep(upper, &keep, |id| redo.fresh(id), cut.is_some())?;
        redo.put(&data, &keep)?;
        tree.clear_reserved(&data)
            .context("clearing what was written into reserved space")?;
        tree.limit = limit;
        tree.store = Some(Store {
            journal,
            data,
            flush: Flush::new(),
            usage: space::open(upper)
                .with_context(|| format!("noting the usage of {}", upper.display()))?,
            published: Mutex::default(),
        });
        if let Err(e) = tree.fold_if_long() {
            log::warn!("folding journal {}: {e}", path.display());
        }
        if let Some(store) = &tree.store {
            tree.publish(store);
        }
        Ok(tree)
    }

    /// Blocks behind a file's end that fallocate(2) reserved are zeros, as long as nothing was written to them: what
    /// was, without the journal's knowing of it, would come to light when the file grows. Durable before the tree
    /// is used: a size may be so sooner than any content.
    fn clear_reserved(&self, data: &DataDir) -> Res<()> {
        for node in self.nodes() {
            let state = rd(&node.state);
            let Body::File(f) = &state.body else { continue };
            let end = state.meta.size.div_ceil(BLOCK);
            if f.data_id == 0 || f.valid.end() <= end {
                continue;
            }
            let place = match data.place(f.data_id, false) {
                // Gone: its blocks cannot be read either.
                Err(Errno::ENOENT) => continue,
                other => other?,
            };
            if shared(&place.file)? {
                // As it was when the journal was folded with it.
                continue;
            }
            for (from, to) in f.valid.iter() {
                let from = from.max(end);
                if from < to {
                    place.clear(from * BLOCK, to * BLOCK, f.cap())?;
                }
            }
            place.sync()?;
        }
        Ok(())
    }

    /// After replay: orphans go, and the data files in use are counted and returned.
    fn settle(&self) -> HashMap<u64, Kept> {
        self.settle_links();
        let mut keep = HashMap::new();
        let (mut used, mut created) = (0u64, 0);
        for node in self.nodes() {
            let state = rd(&node.state);
            if state.meta.nlink == 0 && node.ino != Index::ROOT {
                wr(self.shard(node.ino)).remove(&node.ino);
                continue;
            }
            created += u64::from(!self.low.contains_number(node.ino));
            used = state.cost().saturating_add(used);
            if let Body::File(f) = &state.body
                && f.data_id != 0
            {
                let (end, blocks) = (f.valid.end(), f.blocks);
                // Older journals may have one place twice, once without content.
                let kept = keep.entry(f.data_id).or_insert(Kept { end, blocks });
                (kept.end, kept.blocks) = (kept.end.max(end), kept.blocks.max(blocks));
                used = used.saturating_add(f.valid.blocks() * BLOCK);
            }
        }
        self.used.store(used, Ordering::Relaxed);
        self.created.store(created, Ordering::Relaxed);
        keep
    }
}
