//! Places for content: choosing one, and moving content that has outgrown its own.
//!
//! # A move
//!
//! The content is copied, and from there on the file is one that was never recorded: its next record lists every
//! block, and is durable only after the new place was synced, or carries all of the content as redo. Until
//! that record is durable the journal names the old place, which stays as it is (`left` of the
//! node): cut anywhere, the file has its content of before or of after. A flush that was under way has an
//! older state to tell of, finds another number and starts again.
//!
//! The caller has the node locked, and holds the gate if there may be a move.

use super::super::meta::{BLOCK, Res};
use super::arena::{Region, is_region};
use super::data::{GROWN, Place, SMALL};
use super::node::{FileBody, Node};
use super::{Store, Tree, io_errno};
use nix::errno::Errno;

impl Tree {
    /// Where the content is: opened on demand, made for a file's first write, and with room up to `end`
    /// (bytes; 0: what there is will do).
    pub(super) fn data_file(&self, node: &Node, f: &mut FileBody, end: u64) -> Res<Place> {
        if f.data_id != 0 && end > f.cap() {
            self.enlarge(node, f, end)?;
        }
        if let Some(place) = f.open() {
            return Ok(place);
        }
        let store = self.store()?;
        if f.data_id == 0 {
            let (region, place) = self.new_place(store, end.max(f.base_len))?;
            f.phys = 0;
            return Ok(self.settle_in(store, node, f, (region, place)));
        }
        let place = self.open_place(store, f.data_id, false)?;
        if f.phys == u64::MAX {
            f.phys = match is_region(f.data_id) {
                true => f.cap(),
                false => place.file.metadata().map_err(|e| io_errno(&e))?.len(),
            };
        }
        Ok(self.keep_open(store, node, f, place))
    }

    /// A new place for that many bytes.
    fn new_place(&self, store: &Store, bytes: u64) -> Res<(Region, Place)> {
        // As a rule it is: [`Tree::before_content`].
        store.journal.root()?;
        let region = if bytes <= SMALL {
            let blocks = bytes.div_ceil(BLOCK).max(1);
            let id = store.data.alloc_region(blocks)?;
            Region { id, blocks }
        } else {
            let id = store.data.alloc()?;
            Region { id, blocks: 0 }
        };
        match self.open_place(store, region.id, true) {
            Ok(place) => Ok((region, place)),
            Err(e) => {
                self.doom(store, 0, region);
                Err(e)
            }
        }
    }

    /// From now on the content is there, and no record says so.
    fn settle_in(
        &self,
        store: &Store,
        node: &Node,
        f: &mut FileBody,
        (region, place): (Region, Place),
    ) -> Place {
        self.take_failure(store, f);
        (f.data_id, f.blocks) = (region.id, region.blocks);
        // What failed before is of no concern here.
        f.failures = store.data.failures(region.id).0;
        f.inherited = false;
        f.owned = true;
        f.logged = false;
        f.named = false;
        f.full = true;
        self.keep_open(store, node, f, place)
    }

    fn keep_open(&self, store: &Store, node: &Node, f: &mut FileBody, place: Place) -> Place {
        f.fd = Some(place.held(f.data_id));
        // Arenas see to theirs.
        if !is_region(f.data_id) {
            store.flush.opened(node.ino);
            if store.flush.open_count() > store.flush.open_limit() {
                self.close_idle(store, store.flush.open_limit() / 4);
            }
        }
        place
    }

    fn open_place(&self, store: &Store, id: u64, create: bool) -> Res<Place> {
        let mut opened = store.data.place(id, create);
        if let Err(Errno::EMFILE | Errno::ENFILE) = opened {
            self.close_idle(store, store.flush.open_count());
            store.data.close();
            opened = store.data.place(id, create);
        }
        opened.map_err(|e| match e {
            Errno::EMFILE | Errno::ENFILE => Errno::ENOMEM,
            // A data file the journal names is gone: damage, not "no such file".
            Errno::ENOENT => Errno::EIO,
            e => e,
        })
    }

    /// Makes room up to `end` for a file whose region has too little.
    fn enlarge(&self, node: &Node, f: &mut FileBody, end: u64) -> Res<()> {
        let store = self.store()?;
        let old = f.region();
        let blocks = end.div_ceil(BLOCK);
        if end <= GROWN && store.data.extend(old, blocks) {
            f.blocks = blocks;
            return Ok(());
        }
        let room = (2 * old.blocks * BLOCK).min(SMALL);
        self.move_content(node, f, end.max(room))
    }

    /// Moves the content to a new place for that many bytes.
    pub(super) fn move_content(&self, node: &Node, f: &mut FileBody, bytes: u64) -> Res<()> {
        let store = self.store()?;
        let old = f.region();
        let from = self.data_file(node, f, 0)?;
        let (region, to) = self.new_place(store, bytes)?;
        if let Err(e) = copy(f, &from, &to) {
            self.doom(store, 0, region);
            return Err(e);
        }
        if f.logged {
            f.left.push(old);
        } else {
            self.doom(store, 0, old);
        }
        f.phys = f.valid.end() * BLOCK;
        self.settle_in(store, node, f, (region, to));
        for (s, e) in f.valid.iter() {
            f.written.insert(s, e);
        }
        (f.redo, f.redos) = (0, 0);
        f.grown = true;
        f.generation += 1;
        self.list_dirty(node, f);
        Ok(())
    }

    /// A record names where the content is (`seq`): the places before are not needed when it is durable.
    pub(super) fn moved_out(&self, f: &mut FileBody) {
        if let Ok(store) = self.store() {
            for region in std::mem::take(&mut f.left) {
                self.doom(store, f.seq, region);
            }
        }
    }
}

fn copy(f: &FileBody, from: &Place, to: &Place) -> Res<()> {
    let mut buf = vec![0; 64 << 10];
    for (start, end) in f.valid.iter() {
        let (mut at, end) = (start * BLOCK, end * BLOCK);
        while at < end {
            let part = &mut buf[..(end - at).min(64 << 10) as usize];
            from.read(part, at)?;
            to.write(part, at)?;
            at += part.len() as u64;
        }
    }
    Ok(())
}
