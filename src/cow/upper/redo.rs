//! Redo: content of data files that is in the journal and need not be in them yet.
//!
//! # Theory
//!
//! An fsync of little content appends the bytes of every block written since the file's last record
//! to the journal, in that record, and syncs the journal alone: one flush, whatever the data file
//! and its directory are like on disk. What holds at every record of a file: each of its blocks is
//! durable in the data file and was not written since, or it is in the journal's redo behind the
//! last record without redo. So replay collects redo by data file, and
//!
//! - a record without redo voids what was collected: its data file was synced before it became
//!   durable, with everything that was redone in it or overwrote that;
//! - a later redo of a block replaces the earlier;
//! - a truncation cuts it, also inside a block: what lay behind the cut must not come back when the
//!   file grows again (the live tree clears it in the data file, and counts that block as written);
//! - a file that grows by truncation has zeros behind its old end, whether or not the live tree's
//!   came to disk;
//! - a record of a size brings the blocks whole that this cuts, or completes with zeros: what is in the data file
//!   there, or in redo of before, is of another time, and no block is to be made of two;
//! - a record that lists all blocks keeps the redo of these only (others were punched);
//! - a file that got new content from nothing, or whose content moved ([`super::moving`]), has a new data file,
//!   with another number; data files that no inode refers to in the end are deleted with their redo.
//!
//! What is left is written to the data files, synced with their names, and only then is the tree
//! served. The journal is not touched: killed in the middle, the next open does all of it again. A
//! data file that never was synced may be missing altogether and is made; one that was, and is
//! missing, is damage: reading the file is an error.
//!
//! Writes after a redo that were not synced may be undone by it after a kill: blocks then have the
//! bytes of the last fsync, as after a power cut.
//!
//! A small file that is overwritten and synced again and again (a database's, with its rollback journal beside it in the arena) is
//! redone each time: a sync of the arena would write the neighbours too, give them their blocks on the disk and have the
//! host's file system commit that, three to ten times the cost of the journal's flush.
//!
//! An fdatasync that syncs the data file alone (see [`super::flush`]) would be undone by redo of
//! that file which is still in force. It is then redone itself; after a few of them in a row the
//! data file is synced and a record without redo written instead. A fold syncs all content and has
//! no redo in its image.

use super::super::journal::Record;
use super::super::journal::record::Piece;
use super::super::meta::{BLOCK, Res, Time};
use super::super::ranges::Ranges;
use super::Tree;
use super::arena::is_region;
use super::data::{DataDir, Kept as Left};
use super::node::{Body, FileBody, Node, State};
use crate::error::Result;
use anyhow::Context;
use nix::errno::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Most blocks that a record carries.
pub(super) const BLOCKS: u64 = 16;
/// So many records with redo in a row of a file that is only overwritten are enough; of one in an arena, which is synced for all
/// that is in it.
const ROW: u32 = 8;
const ROW_SMALL: u32 = 64;

impl Tree {
    /// Appends the record of a locked file's content with all that changed of it; false if that is
    /// too much. The caller holds the gate.
    pub(super) fn log_redo(&self, node: &Node, state: &mut State) -> Res<bool> {
        let size = state.meta.size;
        let Body::File(f) = &mut state.body else {
            return Ok(true);
        };
        let todo = f.changed();
        let overwritten = f.logged && !f.grown && !f.full;
        let row = match is_region(f.data_id) {
            true => ROW_SMALL,
            false => ROW,
        };
        if todo.blocks() > BLOCKS || (overwritten && f.redos >= row) {
            return Ok(false);
        }
        let mut redo: Vec<Piece<'_>> = Vec::new();
        for (start, end) in todo.iter() {
            let from = start * BLOCK;
            let mut to = end * BLOCK;
            if size > to - BLOCK && size < to {
                // Behind the file's end in its last block there may be anything.
                to = size;
            }
            let mut bytes = vec![0; (to - from) as usize];
            self.data_file(node, f, 0)?.read(&mut bytes, from)?;
            redo.push((from, bytes.into()));
        }
        let seq = self.log_content(node, state, Some(redo));
        if let Body::File(f) = &mut state.body
            && f.data_id != 0
        {
            f.redo = seq;
            f.redos += 1;
        }
        Ok(true)
    }
}

impl Tree {
    /// Appends the record of a locked file's new length; it is still to be applied.
    ///
    /// # Errors
    /// What reading the content answers.
    pub(super) fn log_size(
        &self,
        node: &Node,
        state: &mut State,
        size: u64,
        time: Time,
    ) -> Res<u64> {
        let old = state.meta.size;
        let Body::File(f) = &mut state.body else {
            return Err(Errno::EINVAL);
        };
        let edges = self.edges(node, f, old, size)?;
        let redone = !edges.is_empty();
        let seq = self.log(&Record::Size {
            ino: node.ino,
            size,
            time,
            edges,
        });
        f.known = [size; 2];
        if redone {
            f.redo = seq;
        }
        Ok(seq)
    }

    /// Blocks that a replay of the change of length makes of pieces, if it is not told of them.
    fn edges(
        &self,
        node: &Node,
        f: &mut FileBody,
        old: u64,
        size: u64,
    ) -> Res<Vec<Piece<'static>>> {
        let recorded = f.logged || !f.left.is_empty();
        if size == 0 || !recorded || self.store.is_none() {
            return Ok(Vec::new());
        }
        // It grows from an end that the journal knows; or redo that is there is cut, and later grows.
        let [known, folded] = f.known;
        let mut ends = [known, folded, old, u64::MAX].map(|end| Some(end).filter(|e| *e < size));
        if f.redo != 0 {
            ends[3] = Some(size);
        }
        let blocks: BTreeSet<u64> = ends
            .into_iter()
            .flatten()
            .filter(|end| !end.is_multiple_of(BLOCK))
            .map(|end| end / BLOCK)
            .collect();
        let place = match f.data_id {
            0 => None,
            _ => Some(self.data_file(node, f, 0)?),
        };
        let mut edges = Vec::new();
        for block in blocks {
            let mut bytes = vec![0; BLOCK as usize];
            let there = old.min(size).saturating_sub(block * BLOCK).min(BLOCK);
            let part = &mut bytes[..there as usize];
            self.gather(node.ino, f, place.as_ref(), part, block * BLOCK)?;
            edges.push((block * BLOCK, bytes.into()));
        }
        Ok(edges)
    }
}

/// Redo of one data file.
struct Kept {
    /// The file was never synced: it may be missing.
    fresh: bool,
    blocks: BTreeMap<u64, Part>,
}

/// Bytes of one block, from a place inside it on.
struct Part {
    from: usize,
    bytes: Vec<u8>,
}

/// What replay found so far, by data file.
#[derive(Default)]
pub(super) struct Collected(HashMap<u64, Kept>);

impl Collected {
    /// `fresh`: no record before spoke of the data file.
    pub(super) fn add(&mut self, id: u64, fresh: bool, pieces: &[Piece<'_>]) {
        let kept = self.0.entry(id).or_insert_with(|| Kept {
            fresh,
            blocks: BTreeMap::new(),
        });
        for (at, bytes) in pieces {
            for (block, part) in (at / BLOCK..).zip(bytes.chunks(BLOCK as usize)) {
                let bytes = part.to_vec();
                kept.blocks.insert(block, Part { from: 0, bytes });
            }
        }
    }

    /// The data file was synced.
    pub(super) fn void(&mut self, id: u64) {
        self.0.remove(&id);
    }

    /// Only these blocks are left of the file.
    pub(super) fn retain(&mut self, id: u64, valid: &Ranges) {
        if let Some(kept) = self.0.get_mut(&id) {
            kept.blocks.retain(|block, _| valid.contains(*block));
        }
    }

    /// The file was cut to `size`.
    pub(super) fn cut(&mut self, id: u64, size: u64) {
        if let Some(kept) = self.0.get_mut(&id) {
            let mut behind = kept.blocks.split_off(&(size / BLOCK));
            if let Some(mut part) = behind.remove(&(size / BLOCK)) {
                let left = ((size % BLOCK) as usize).saturating_sub(part.from);
                part.bytes.truncate(left);
                if !part.bytes.is_empty() {
                    kept.blocks.insert(size / BLOCK, part);
                }
            }
        }
    }

    /// The file grew by truncation; it ended at `size`, in a block of its data file.
    pub(super) fn grown(&mut self, id: u64, size: u64) {
        let inside = (size % BLOCK) as usize;
        let kept = self.0.entry(id).or_insert_with(|| Kept {
            fresh: false,
            blocks: BTreeMap::new(),
        });
        let part = kept.blocks.entry(size / BLOCK).or_insert_with(|| Part {
            from: inside,
            bytes: Vec::new(),
        });
        part.bytes.resize(BLOCK as usize - part.from, 0);
    }

    /// Whether no record said that the data file was synced.
    pub(super) fn fresh(&self, id: u64) -> bool {
        self.0.get(&id).is_some_and(|kept| kept.fresh)
    }

    /// Brings the data files among `keep` up to date, durably.
    ///
    /// # Errors
    /// What the host answers: nothing is lost, the next open tries again.
    pub(super) fn put(self, data: &DataDir, keep: &HashMap<u64, Left>) -> Result<()> {
        let mut done = Vec::new();
        for (id, kept) in self.0 {
            let Some(left) = keep.get(&id) else { continue };
            // A size alone redoes the rest of a block that a frozen state may have a part in.
            let mut place = data.own(id);
            if kept.fresh && matches!(place, Err(Errno::ENOENT)) {
                place = data.place(id, true);
            }
            let place = match place {
                Err(Errno::ENOENT) => {
                    log::warn!("the upper's data file {id:x} is missing");
                    continue;
                }
                other => other.with_context(|| format!("opening data file {id:x}"))?,
            };
            let what = || format!("bringing data file {id:x} up to date");
            for (block, part) in kept.blocks.range(..left.end) {
                let at = block * BLOCK + part.from as u64;
                place.write(&part.bytes, at).with_context(what)?;
            }
            done.push((id, false));
        }
        data.sync(done.into_iter())
            .map_err(|e| e.errno)
            .context("syncing data files")
    }
}
