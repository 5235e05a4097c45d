//! Replaying a journal: the same changes by the same code, without checks that passed before.

use super::super::host::{HostLower, split};
use super::super::journal::Record;
use super::super::journal::record::Extents;
use super::super::meta::{BLOCK, Meta, Res, S_IFDIR, S_IFMT, S_IFREG, Time, rd, wr};
use super::super::ranges::Ranges;
use super::Tree;
use super::arena::{fits, is_region};
use super::node::{Body, FileBody, Node, State, Xattrs};
use super::redo::Collected;
use super::rename::{EXCHANGE, Names, Pair, lock_children};
use nix::errno::Errno;
use std::collections::HashMap;
use std::sync::Arc;

impl Tree {
    /// Applies one record. Only before the tree has an upper and other threads. Content that comes
    /// with it goes to `redo`.
    pub(super) fn replay(&self, seq: u64, record: Record<'_>, redo: &mut Collected) -> Res<()> {
        match record {
            Record::Data { .. } => self.replay_data(seq, &record, redo),
            Record::Size {
                ino,
                size,
                time,
                edges,
            } => {
                let node = self.replayed(ino, S_IFREG)?;
                let mut state = wr(&node.state);
                let old = state.meta.size;
                if let Body::File(f) = &mut state.body {
                    if f.data_id != 0 && !edges.is_empty() {
                        redo.add(f.data_id, false, &edges);
                        f.redo = seq;
                    }
                    if size <= old {
                        redo.cut(f.data_id, size);
                    } else if !old.is_multiple_of(BLOCK) && f.valid.contains(old / BLOCK) {
                        redo.grown(f.data_id, old);
                        f.redo = seq;
                    }
                }
                self.apply_size(&node, &mut state, size, time, 0)?;
                if let Body::File(f) = &mut state.body
                    && !size.is_multiple_of(BLOCK)
                {
                    // Behind the new end in its block may be what was written and lost since.
                    f.stale = Some(0);
                }
                Ok(())
            }
            Record::Create {
                parent,
                ino,
                name,
                meta,
                target,
                xattrs,
            } => {
                let xattrs = owned(&xattrs);
                if name.is_empty() {
                    return self.apply_create(None, ino, name, meta, target, xattrs);
                }
                let dir = self.replayed(parent, S_IFDIR)?;
                let mut state = wr(&dir.state);
                self.apply_create(Some((&dir, &mut state)), ino, name, meta, target, xattrs)
            }
            Record::Link {
                parent,
                ino,
                name,
                time,
            } => {
                let (dir, node) = (self.replayed(parent, S_IFDIR)?, self.replayed(ino, 0)?);
                if dir.ino == node.ino {
                    return Err(Errno::EINVAL);
                }
                let (mut d, mut n) = (wr(&dir.state), wr(&node.state));
                self.apply_link((parent, &mut d), (ino, &mut n), name, time)
            }
            Record::Unlink { parent, name, time } => {
                let dir = self.replayed(parent, S_IFDIR)?;
                let mut d = wr(&dir.state);
                let Some(ino) = self.named(parent, &d, name)? else {
                    return self.replay_lost(parent, &mut d, name, time);
                };
                if ino == parent {
                    return Err(Errno::EINVAL);
                }
                let node = self.replayed(ino, 0)?;
                let mut n = wr(&node.state);
                self.apply_remove((parent, &mut d), (ino, &mut n), name, time)
            }
            Record::Rename { .. } => self.replay_rename(&record),
            Record::Node { .. } | Record::Entry { .. } | Record::Next { .. } => {
                self.replay_checkpoint(record)
            }
            _ => self.replay_inode(&record),
        }
    }

    /// The node of an inode that a record speaks of, of the type the record needs (0: any). Of a host directory's inode
    /// that was taken away, closed or replaced since, it is a stand-in: what the journal says about it is
    /// all that is left.
    fn replayed(&self, ino: u64, kind: u32) -> Res<Arc<Node>> {
        if self.low.as_host().is_none() || !self.low.contains_number(ino) {
            return self.promote(ino);
        }
        let node = match self.promote(ino) {
            Err(Errno::ENOENT | Errno::EACCES | Errno::ESTALE) => {
                self.insert(ino, self.stand_in(ino, kind))
            }
            other => other?,
        };
        if kind != 0 {
            let mut state = wr(&node.state);
            if state.meta.kind() != kind {
                let gone = state.meta.nlink == 0;
                *state = self.stand_in(ino, kind);
                if gone {
                    state.meta.nlink = 0;
                }
            }
        }
        Ok(node)
    }

    fn stand_in(&self, ino: u64, kind: u32) -> State {
        let (mode, nlink, parent) = match kind {
            S_IFDIR => (S_IFDIR | 0o755, 2, self.low.parent(ino)),
            0 => (S_IFREG | 0o644, 1, 0),
            kind => (kind | 0o644, 1, 0),
        };
        let meta = Meta {
            mode,
            nlink,
            ..Meta::default()
        };
        State::over_lower(meta, parent, self.low.is_live())
    }

    /// As [`Tree::child`]; where the host lets nobody look there is nothing that was not bound.
    fn named(&self, dir: u64, state: &State, name: &[u8]) -> Res<Option<u64>> {
        match self.child(dir, state, name) {
            Err(Errno::ENOENT | Errno::EACCES) if self.low.as_host().is_some() => Ok(None),
            other => other,
        }
    }

    /// A name went that nothing is known of but that: the host has taken it away since. Journals of before did not bind
    /// every name of a hard link. It stays hidden, should it come back.
    fn replay_lost(&self, parent: u64, dir: &mut State, name: &[u8], time: Time) -> Res<()> {
        let hides = match dir.dir() {
            Some(body) if self.low.as_host().is_some() => self.covers(parent, body, name)?,
            _ => return Err(Errno::ENOENT),
        };
        self.edit(dir, |body| body.take(name, hides))?;
        dir.meta.touch(time);
        Ok(())
    }

    /// After replay over a host directory that may have changed: an inode has at least as many links as there are names of
    /// it. The host may have taken away or added some since they were counted, and removals count them down.
    pub(super) fn settle_links(&self) {
        let Some(host) = self.low.as_host().filter(|h| h.is_live()) else {
            return;
        };
        let nodes = self.nodes();
        let mut names: HashMap<u64, u32> = HashMap::new();
        for node in &nodes {
            let state = rd(&node.state);
            for slot in state.dir().into_iter().flat_map(|d| d.names.values()) {
                *names.entry(slot.ino).or_default() += 1;
            }
        }
        for node in nodes.iter().filter(|n| HostLower::owns(n.ino)) {
            let paths = host.names(node.ino);
            let shown = paths.iter().filter(|p| self.shows(host, p)).count();
            let shown = u32::try_from(shown).unwrap_or(u32::MAX);
            let known = shown.saturating_add(names.get(&node.ino).copied().unwrap_or(0));
            let mut state = wr(&node.state);
            if !state.meta.is_dir() {
                state.meta.nlink = state.meta.nlink.max(known);
                host.set_unseen(node.ino, state.meta.nlink - known);
            }
        }
    }

    /// Whether a bound name of the lower is to be seen, wherever its directory is now.
    fn shows(&self, host: &HostLower, path: &[u8]) -> bool {
        if path.is_empty() {
            return true;
        }
        let (dir, name) = split(path);
        match host.bound_at(dir).and_then(|dir| self.node(dir)) {
            Some(node) => {
                let state = rd(&node.state);
                let names = state.dir().filter(|_| state.meta.nlink > 0);
                names.is_some_and(|d| d.base && !d.names.contains_key(name))
            }
            // Nothing in it was changed, unless it went itself.
            None => self.shows(host, dir),
        }
    }

    fn replay_rename(&self, record: &Record<'_>) -> Res<()> {
        let Record::Rename {
            parent,
            name,
            newparent,
            newname,
            flags,
            time,
        } = *record
        else {
            return Err(Errno::EINVAL);
        };
        let (from, to) = (
            self.replayed(parent, S_IFDIR)?,
            self.replayed(newparent, S_IFDIR)?,
        );
        let mut dirs = Pair::lock(&from, &to);
        let ino = {
            let (p, dir) = dirs.from();
            self.named(p, dir, name)?
        };
        let over = {
            let (p, dir) = dirs.to();
            self.named(p, dir, newname)?
        };
        let Some(ino) = ino else {
            if flags & EXCHANGE != 0 {
                // The other one at least is somewhere.
                return Ok(());
            }
            // All that is known of what was moved there is that nothing else is there any more.
            let (p, dir) = dirs.from();
            self.replay_lost(p, dir, name, time)?;
            let (p, dir) = dirs.to();
            let Some(over) = over.filter(|o| *o != parent && *o != newparent) else {
                return self.replay_lost(p, dir, newname, time);
            };
            let target = self.replayed(over, 0)?;
            let mut t = wr(&target.state);
            return self.apply_remove((p, dir), (over, &mut t), newname, time);
        };
        if [Some(ino), over]
            .into_iter()
            .flatten()
            .any(|i| i == parent || i == newparent)
            || over == Some(ino)
        {
            return Err(Errno::EINVAL);
        }
        let moved = self.replayed(ino, 0)?;
        let target = over.map(|o| self.replayed(o, 0)).transpose()?;
        let (mut m, mut t) = lock_children(&moved, target.as_ref());
        let names = Names { name, newname };
        if flags & EXCHANGE != 0 {
            let (o, t) = over.zip(t.as_mut()).ok_or(Errno::ENOENT)?;
            self.apply_exchange(&mut dirs, (ino, &mut m), (o, t), names, time)
        } else {
            self.apply_rename(&mut dirs, (ino, &mut m), t.as_deref_mut(), names, time)
        }
    }

    fn replay_data(&self, seq: u64, record: &Record<'_>, kept: &mut Collected) -> Res<()> {
        let Record::Data {
            ino,
            size,
            mtime,
            ctime,
            extents,
            redo,
        } = record
        else {
            return Err(Errno::EINVAL);
        };
        let node = self.replayed(*ino, S_IFREG)?;
        let mut state = wr(&node.state);
        let Body::File(f) = &mut state.body else {
            return Err(Errno::EINVAL);
        };
        let fresh = f.data_id != extents.data_id;
        restore(f, extents, *size)?;
        match redo {
            None => {
                kept.void(extents.data_id);
                f.redo = 0;
            }
            Some(pieces) => {
                kept.add(extents.data_id, fresh, pieces);
                if extents.full {
                    kept.retain(extents.data_id, &f.valid);
                }
                f.redo = seq;
            }
        }
        let m = &mut state.meta;
        m.size = *size;
        m.mtime = *mtime;
        m.ctime = m.ctime.max(*ctime);
        Ok(())
    }

    fn replay_inode(&self, record: &Record<'_>) -> Res<()> {
        match record {
            Record::Attr {
                ino,
                mode,
                uid,
                gid,
                atime,
                mtime,
                ctime,
            } => {
                let node = self.replayed(*ino, *mode & S_IFMT)?;
                let times = [*atime, *mtime, *ctime];
                Tree::apply_attr(&mut wr(&node.state), (*mode, *uid, *gid), times);
                Ok(())
            }
            Record::Xattr {
                ino,
                name,
                value,
                mode,
                ctime,
            } => {
                let node = self.replayed(*ino, *mode & S_IFMT)?;
                self.apply_xattr(*ino, &mut wr(&node.state), name, *value, *mode, *ctime)
            }
            Record::Bind { ino, path } => {
                let host = self.low.as_host().ok_or(Errno::EINVAL)?;
                host.rebind(*ino, path);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn replay_checkpoint(&self, record: Record<'_>) -> Res<()> {
        match record {
            Record::Node {
                ino,
                parent,
                base,
                meta,
                target,
                xattrs,
                extents,
            } => {
                let state = self.restored(base, meta, parent, target, xattrs.as_ref(), &extents)?;
                self.low.reserve(ino.saturating_add(1));
                self.insert(ino, state);
                Ok(())
            }
            Record::Entry {
                parent,
                ino,
                kind,
                name,
            } => {
                let node = self.node(parent).ok_or(Errno::ENOENT)?;
                let mut state = wr(&node.state);
                let body = state.dir().ok_or(Errno::ENOTDIR)?;
                let covers = self.covers(parent, body, name)?;
                self.edit(&mut state, |body| body.put(name, ino, kind, covers))
            }
            Record::Next { ino, .. } => {
                self.low.reserve(ino);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn restored(
        &self,
        base: bool,
        meta: Meta,
        parent: u64,
        target: &[u8],
        xattrs: Option<&super::super::journal::record::XattrList<'_>>,
        extents: &Extents,
    ) -> Res<State> {
        let mut state = if base {
            let live = self.low.is_live() && extents.data_id == 0 && extents.base_len > 0;
            State::over_lower(meta, parent, live)
        } else {
            State::fresh(meta, parent, target, Xattrs::new())
        };
        state.xattrs = xattrs.map(owned);
        if let Body::File(f) = &mut state.body {
            let live = f.live;
            restore(f, extents, meta.size)?;
            f.live = live;
        }
        Ok(state)
    }
}

fn restore(f: &mut FileBody, x: &Extents, size: u64) -> Res<()> {
    if x.full {
        f.valid = Ranges::default();
    } else if f.data_id != x.data_id {
        return Err(Errno::EINVAL);
    }
    if f.data_id != x.data_id {
        f.blocks = 0;
    }
    f.data_id = x.data_id;
    f.base_len = x.base_len;
    f.known = [size; 2];
    f.live = false;
    for (s, e) in &x.blocks {
        f.valid.insert(*s, *e);
    }
    // A region has one at least: without content its arena is in use all the same.
    let least = u64::from(is_region(f.data_id));
    f.blocks = f.blocks.max(f.valid.end()).max(least);
    if !fits(f.data_id, f.blocks) {
        return Err(Errno::EINVAL);
    }
    f.logged = x.data_id != 0;
    f.named = f.logged;
    f.inherited = f.logged;
    // The data file may be longer than what the journal knows of: see when it is opened.
    f.phys = u64::MAX;
    f.stale = (!size.is_multiple_of(BLOCK)).then_some(0);
    Ok(())
}

fn owned(list: &super::super::journal::record::XattrList<'_>) -> Xattrs {
    list.iter()
        .map(|(n, v)| ((*n).into(), (*v).into()))
        .collect()
}
