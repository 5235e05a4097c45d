//! What an image's uppermost layer changed over those below it.

use std::collections::BTreeMap;

use super::layers::LayerDirs;
use super::{Image, Store};
use crate::cow::diff::{Change, Kind};
use crate::cow::index::layer::{Act, Layer};
use crate::cow::index::{Data, Index};
use crate::cow::merge::merge;
use crate::error::Result;

impl Store {
    /// Every path that the uppermost layer adds, changes or deletes, in the order of their bytes. (`ino` says nothing.)
    ///
    /// # Errors
    /// A layer is missing or damaged.
    pub fn image_changes(&self, image: &Image) -> Result<Vec<Change>> {
        let dirs = LayerDirs::of(self.data());
        let mut layers = Vec::new();
        for id in &image.layers {
            layers.push(Layer::open(&dirs.index(id)?)?);
        }
        let Some(top) = layers.pop() else {
            return Ok(Vec::new());
        };
        let below = merge(&layers)?;
        // By components, so that what is in a directory follows it.
        let mut all: BTreeMap<Vec<Vec<u8>>, Change> = BTreeMap::new();
        for (_, change) in top.changes() {
            let mut path: Vec<Vec<u8>> = split(change.path).map(<[u8]>::to_vec).collect();
            let mut made = Change {
                path: Vec::new(),
                kind: Kind::Added,
                ino: 0,
                is_dir: false,
                opaque: false,
            };
            match path.last().and_then(|n| n.strip_prefix(b".wh.")) {
                Some(b".wh..opq") => {
                    path.pop();
                    if let Some(dir) = all.get_mut(&path) {
                        dir.opaque = dir.kind != Kind::Added;
                    }
                    continue;
                }
                Some(name) => {
                    let name = name.to_vec();
                    path.pop();
                    path.push(name);
                    made.kind = Kind::Deleted;
                }
                None => {
                    made.is_dir =
                        matches!(&change.act, Act::Node(n) if matches!(n.data, Data::Dir { .. }));
                    let old = path
                        .iter()
                        .try_fold(Index::ROOT, |at, n| below.lookup(at, n));
                    if let Some(old) = old.and_then(|ino| below.inode(ino)) {
                        let same = matches!(&change.act, Act::Node(n) if made.is_dir && n.mode == old.mode && n.mtime == old.mtime);
                        made.kind = if same { Kind::Parent } else { Kind::Changed };
                    }
                }
            }
            made.path = path.join(&b'/');
            all.insert(path, made);
        }
        Ok(all.into_values().collect())
    }
}

fn split(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|n| !n.is_empty())
}
