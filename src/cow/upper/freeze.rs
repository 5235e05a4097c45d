//! Frozen states: an upper as it is at one moment, in a directory of its own, while the tree goes on.
//!
//! A frozen state is an upper like any other: `journal`, the image of the tree as a fold makes it ([`super::fold`]), and
//! `data/`. Its data files and arenas are *hard links* to those of the tree: making one costs a link a
//! file, whatever they hold.
//!
//! # What is shared is not changed
//!
//! - Content is changed in place only in a data file that is known to be the tree's alone (`owned`). Freezing takes
//!   that knowledge from every file; before its next change the file is looked at, and if its data file (or its arena) has another
//!   link, the content *moves* ([`super::moving`]) to a new place, as one that has outgrown its own. The frozen
//!   state needs no note of this: the number of links says it, after a restart too, and when the frozen state is deleted the
//!   tree writes in place again.
//! - Arenas that are linked get no new regions, and nothing is punched out of them or cut off them.
//! - Deleting a data file takes the tree's own name of it.
//!
//! # Order
//!
//! The links are made with every change kept out, so that what they hold is the state of one moment. Then, as for a fold, all
//! content is synced and the journal too, the image is written to the frozen state, and *the tree's journal is folded*:
//! redo of what is shared now would be copied for by the next open (a size recorded later redoes a part of a block, too:
//! [`DataDir::own`](super::data::DataDir::own)). Then the caller gives the frozen state its name. Killed before,
//! what is there is without a name and swept; the tree lost nothing.
//!
//! Where the host's file system refuses a link the file is copied (shared blocks where it can), with changes kept out: slower, as right.

use super::super::meta::{Res, errno, lk, wr};
use super::arena::is_region;
use super::node::{Body, FileBody, Node};
use super::{Store, Tree};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

impl Tree {
    /// Writes the state of this moment into the directory `to`, which is empty. Without `content` files cannot be read in
    /// it, and nothing is made durable.
    ///
    /// # Errors
    /// `EROFS` without an upper; what the host answers. What is in `to` then is of no use.
    pub(crate) fn freeze(&self, to: &Path, content: bool) -> Res<()> {
        let store = self.store()?;
        if content {
            return self.fold_into(Some(to), &mut |_| Ok(()));
        }
        let _alone = lk(&store.flush.folding);
        let image = {
            let _gate = wr(&self.gate);
            let nodes = self.nodes();
            store
                .journal
                .image(|put| self.put_all(store, &nodes, put))?
        };
        image.write(&to.join("journal"), false)
    }

    /// Links the data files of `nodes` into `to`. Nobody changes anything meanwhile.
    pub(super) fn share(&self, store: &Store, nodes: &[Arc<Node>], to: &Path) -> Res<()> {
        let data = to.join("data");
        make(&data)?;
        // By what is linked: an arena once.
        let mut names = BTreeSet::new();
        for node in nodes {
            if let Body::File(f) = &mut wr(&node.state).body
                && f.data_id != 0
            {
                f.owned = false;
                names.insert(store.data.name(f.data_id));
                if is_region(f.data_id) {
                    store.data.seal(f.data_id);
                }
            }
        }
        let mut sub = String::new();
        for name in names {
            if let Some((dir, _)) = name.split_once('/')
                && dir != sub
            {
                dir.clone_into(&mut sub);
                make(&data.join(dir))?;
            }
            match store.data.link(&name, &data) {
                // Gone: damage, in the frozen state as in the tree.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Before a file's content is changed in place up to `end` (bytes): what somebody else has a link to is moved.
    pub(super) fn own_place(&self, node: &Node, f: &mut FileBody, end: u64) -> Res<()> {
        if f.owned || f.data_id == 0 {
            return Ok(());
        }
        let place = self.data_file(node, f, 0)?;
        if shared(&place.file)? {
            self.move_content(node, f, end.max(f.base_len).max(f.cap_or_end()))?;
        }
        f.owned = true;
        Ok(())
    }
}

/// Whether another name leads to the file.
pub(super) fn shared(file: &File) -> Res<bool> {
    Ok(file.metadata().map_err(|e| errno(&e))?.nlink() > 1)
}

fn make(dir: &Path) -> Res<()> {
    let made = DirBuilder::new().mode(0o700).create(dir);
    made.map_err(|e| errno(&e))
}

/// Copies a file, holes as holes, sharing blocks where the host can.
pub(super) fn copy(from: &File, to: &Path) -> Res<()> {
    let mut options = File::options();
    let made = options.write(true).create_new(true).mode(0o600).open(to);
    let to = made.map_err(|e| errno(&e))?;
    let size = from.metadata().map_err(|e| errno(&e))?.len();
    to.set_len(size).map_err(|e| errno(&e))?;
    let mut at = 0_i64;
    while at.cast_unsigned() < size {
        let data = match lseek(from, at, Whence::SeekData) {
            Err(Errno::ENXIO) => break,
            Err(Errno::EINVAL) => at,
            other => other?,
        };
        let end = lseek(from, data, Whence::SeekHole).unwrap_or(size.cast_signed());
        // Which the standard library hands to copy_file_range(2).
        let copied = || {
            (&mut &*from).seek(SeekFrom::Start(data.cast_unsigned()))?;
            (&mut &to).seek(SeekFrom::Start(data.cast_unsigned()))?;
            std::io::copy(&mut from.take((end - data).cast_unsigned()), &mut &to)
        };
        copied().map_err(|e| errno(&e))?;
        at = end.max(at + 1);
    }
    to.sync_data().map_err(|e| errno(&e))
}
