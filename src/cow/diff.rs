//! What an upper changed: from its inode table, without a walk over the lower.
//!
//! # Theory
//!
//! Compared are the tree and its lower *by path*, because that is what a layer of an image says and what people read: a
//! directory that was moved is gone at its old path and new, with all that is in it, at the new one.
//!
//! Every inode that was changed has a node ([`super::upper`]). A directory's node knows which of its names differ from the
//! lower directory of the same number, so names need no search. A changed file of the lower does not know its
//! names: one pass over the lower's directory entries finds those of all that are asked for ([`Low::names_of`]). Then the
//! tree is walked from its root, but only into directories in or below which something has a node. Only where
//! a directory has another inode than the lower's of its path (moved, exchanged, replaced) all of it is listed.
//!
//! # What counts as a change of an inode
//!
//! Content, mode, owner, device, modification time, extended attributes. Not: access and status-change times,
//! link counts (names are listed for themselves), nor having been looked at.
//!
//! # Hard links
//!
//! A layer has to hold all names of a file or none: a lower file that got a name it had not (by link, rename, or in a
//! moved directory) counts as changed at all of its names. That may concern names that were not looked for, so
//! the walk is then made again.

use super::Cow;
use super::index::{Index, PATH_MAX};
use super::lower::Low;
use super::meta::{Res, rd, wr};
use super::upper::{Body, Dirent, Tree};
use crate::error::Result;
use anyhow::Context;
use std::collections::{BTreeMap, HashMap, HashSet};

#[cfg(test)]
mod tests;

/// How a path differs from the lower's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory that does not differ, but something below it does.
    Parent,
    /// The lower has nothing there.
    Added,
    /// The lower has something else there.
    Changed,
    /// Only the lower has something there. What was below it is not listed.
    Deleted,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Relative to the root, without a slash in front; empty for the root itself.
    pub path: Vec<u8>,
    /// How it differs.
    pub kind: Kind,
    /// What is there now; 0 where nothing is.
    pub ino: u64,
    /// It is a directory.
    pub is_dir: bool,
    /// A directory in the place of another directory: nothing of the lower's shows in it, all that is in it is listed.
    pub opaque: bool,
}

/// Names in one directory of the lower.
type Names = Vec<(Box<[u8]>, u64)>;
/// Directory, name, inode.
type Named = (u64, Box<[u8]>, u64);
/// What a name leads to now, and in the lower.
type Both = (Option<u64>, Option<u64>);

struct Walk<'a> {
    tree: &'a Tree,
    /// Names, by directory, of lower inodes that have to be looked at.
    names: HashMap<u64, Names>,
    /// Directories in or below which something has a node.
    busy: HashSet<u64>,
    /// Lower files that count as changed at all their names.
    linked: &'a HashSet<u64>,
    /// More of them.
    more: HashSet<u64>,
    out: Vec<Change>,
}

impl Cow {
    /// Every path there is, as a layer over nothing: all is new.
    ///
    /// # Errors
    /// What a host directory's file system answers.
    pub fn everything(&self) -> Result<Vec<Change>> {
        let mut all = self.below(Index::ROOT, b"")?;
        all.insert(
            0,
            Change {
                path: Vec::new(),
                kind: Kind::Added,
                ino: Index::ROOT,
                is_dir: true,
                opaque: false,
            },
        );
        Ok(all)
    }

    /// An inode and all that is below it, the same way, with `top` as its path; without a path only what is in it.
    ///
    /// # Errors
    /// What a host directory's file system answers.
    pub fn below(&self, ino: u64, top: &[u8]) -> Result<Vec<Change>> {
        let _gate = wr(&self.tree.gate);
        let linked = HashSet::new();
        let mut walk = Walk {
            tree: &self.tree,
            names: HashMap::new(),
            busy: HashSet::new(),
            linked: &linked,
            more: HashSet::new(),
            out: Vec::new(),
        };
        let mut list = || {
            let is_dir = walk.is_dir(ino)?;
            if !top.is_empty() {
                walk.push(top, Kind::Added, ino, is_dir);
            }
            match is_dir {
                true => walk.dir(&mut top.to_vec(), ino, None),
                false => Ok(()),
            }
        };
        list().context("listing the container's files")?;
        Ok(walk.out)
    }

    /// Every path that differs from the lower's, parents before what is in them, names in the order of their bytes.
    ///
    /// # Errors
    /// What a host directory's file system answers.
    pub fn diff(&self) -> Result<Vec<Change>> {
        self.tree
            .diff()
            .context("comparing the container with its image")
    }
}

impl Tree {
    fn diff(&self) -> Res<Vec<Change>> {
        // Nobody changes anything meanwhile.
        let _gate = wr(&self.gate);
        let mut linked = HashSet::new();
        loop {
            let mut walk = Walk {
                tree: self,
                names: HashMap::new(),
                busy: HashSet::new(),
                linked: &linked,
                more: HashSet::new(),
                out: Vec::new(),
            };
            walk.prepare()?;
            walk.root()?;
            let Walk { out, mut more, .. } = walk;
            more.retain(|ino| !linked.contains(ino));
            if more.is_empty() {
                return Ok(out);
            }
            linked.extend(more);
        }
    }

    /// Whether all that was left of an inode is attributes: its content was a live host's, which took it away.
    fn is_lost(&self, ino: u64) -> Res<bool> {
        let Some(node) = self.node(ino).filter(|_| self.low.is_live()) else {
            return Ok(false);
        };
        let state = rd(&node.state);
        if !state.is_lowers() {
            return Ok(false);
        }
        let low = self.low.meta(ino)?;
        Ok(low.is_none_or(|low| low.kind() != state.meta.kind()))
    }

    /// Whether an inode differs from the lower's of the same number.
    fn differs(&self, ino: u64) -> Res<bool> {
        let Some(node) = self.node(ino) else {
            return Ok(false);
        };
        let Some(low) = self.low.meta(ino)? else {
            return Ok(true);
        };
        let state = rd(&node.state);
        let m = &state.meta;
        let (a, b) = (
            (m.mode, m.uid, m.gid, m.rdev),
            (low.mode, low.uid, low.gid, low.rdev),
        );
        if a != b || (m.mtime != low.mtime && !matches!(&state.body, Body::File(f) if f.live)) {
            return Ok(true);
        }
        if let Body::File(f) = &state.body
            && !f.live
            && (f.data_id != 0 || m.size != low.size || f.base_len < low.size)
        {
            return Ok(true);
        }
        let Some(own) = &state.xattrs else {
            return Ok(false);
        };
        let low = self.low.xattrs(ino)?;
        let same = own.len() == low.len()
            && own
                .iter()
                .zip(&low)
                .all(|((n, v), (m, w))| **n == **m && **v == **w);
        Ok(!same)
    }
}

impl Walk<'_> {
    /// Finds the directories to walk and the names to look at in them.
    fn prepare(&mut self) -> Res<()> {
        let nodes = self.tree.nodes();
        let mut wanted: HashSet<u64> = self.linked.clone();
        for node in &nodes {
            if rd(&node.state).meta.is_dir() {
                self.mark(node.ino);
            } else if self.tree.low.contains_number(node.ino) {
                wanted.insert(node.ino);
            }
        }
        let files = self.tree.low.names_of(&wanted)?;
        for (dir, _, _) in &files {
            self.mark(*dir);
        }
        let low = &self.tree.low;
        let dirs = self.busy.iter().copied();
        let dirs: HashSet<u64> = dirs.filter(|d| low.contains_number(*d)).collect();
        for (dir, name, ino) in files.into_iter().chain(low.names_of(&dirs)?) {
            self.names.entry(dir).or_default().push((name, ino));
        }
        Ok(())
    }

    /// A directory and all those it is in.
    fn mark(&mut self, mut dir: u64) {
        while self.busy.insert(dir) && dir != Index::ROOT {
            dir = self.tree.parent(dir);
        }
    }

    fn root(&mut self) -> Res<()> {
        self.same_dir(&mut Vec::new(), Index::ROOT)
    }

    /// A directory that has the lower's inode: listed if it differs, or if something in it does.
    fn same_dir(&mut self, path: &mut Vec<u8>, ino: u64) -> Res<()> {
        let at = self.out.len();
        let kind = match self.tree.differs(ino)? {
            true => Kind::Changed,
            false => Kind::Parent,
        };
        self.push(path, kind, ino, true);
        self.dir(path, ino, Some(ino))?;
        if kind == Kind::Parent && self.out.len() == at + 1 {
            self.out.pop();
        }
        Ok(())
    }

    fn push(&mut self, path: &[u8], kind: Kind, ino: u64, is_dir: bool) {
        self.out.push(Change {
            path: path.to_vec(),
            kind,
            ino,
            is_dir,
            opaque: false,
        });
    }

    /// What a directory's names lead to now, and in the lower's directory `old`, which is the same or none.
    fn children(&self, new: u64, old: Option<u64>) -> Res<BTreeMap<Box<[u8]>, Both>> {
        let tree = self.tree;
        let mut names: BTreeMap<Box<[u8]>, Both> = BTreeMap::new();
        if old == Some(new) {
            for (name, ino) in self.names.get(&new).into_iter().flatten() {
                if tree.is_lost(*ino)? {
                    continue;
                }
                names.insert(name.clone(), (Some(*ino), Some(*ino)));
            }
            if let Some(node) = tree.node(new) {
                let state = rd(&node.state);
                let slots = state.dir().into_iter().flat_map(|d| &d.names);
                for (name, slot) in slots {
                    let now = match slot.ino {
                        0 => None,
                        ino => (!tree.is_lost(ino)?).then_some(ino),
                    };
                    names.insert((**name).into(), (now, tree.low.lookup(new, name)?));
                }
            }
        } else {
            let mut all: Vec<Box<[u8]>> = Vec::new();
            let mut take = |e: &Dirent<'_>| {
                all.push(e.name.into());
                true
            };
            tree.readdir(new, 2, None, &mut take)?;
            for name in all {
                // Looked up: of a host directory the number comes from there.
                let ino = tree.lookup(new, &name)?;
                let lost = ino.map(|ino| tree.is_lost(ino)).transpose()?;
                let ino = ino.filter(|_| lost != Some(true));
                names.insert(name, (ino, None));
            }
        }
        Ok(names)
    }

    fn dir(&mut self, path: &mut Vec<u8>, new: u64, old: Option<u64>) -> Res<()> {
        let length = path.len();
        for (name, (new, old)) in self.children(new, old)? {
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if path.len() <= PATH_MAX {
                self.child(path, new, old)?;
            } else if let Some(ino) = new {
                // Nobody can open it by this path, nor what is in it: named once, not entered.
                let is_dir = self.is_dir(ino)?;
                self.push(path, Kind::Added, ino, is_dir);
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn is_dir(&self, ino: u64) -> Res<bool> {
        Ok(self.tree.true_meta(ino)?.is_dir())
    }

    fn child(&mut self, path: &mut Vec<u8>, new: Option<u64>, old: Option<u64>) -> Res<()> {
        let Some(ino) = new else {
            if old.is_some() {
                self.push(path, Kind::Deleted, 0, false);
            }
            return Ok(());
        };
        let is_dir = self.is_dir(ino)?;
        match old {
            Some(old) if old == ino && is_dir => {
                if !self.busy.contains(&ino) {
                    return Ok(());
                }
                self.same_dir(path, ino)
            }
            Some(old) if old == ino => {
                if self.linked.contains(&ino) || self.tree.differs(ino)? {
                    self.push(path, Kind::Changed, ino, is_dir);
                }
                Ok(())
            }
            Some(old) => {
                self.push(path, Kind::Changed, ino, is_dir);
                self.note(ino)?;
                let over = is_dir && self.tree.low.meta(old)?.is_some_and(|m| m.is_dir());
                if let Some(last) = self.out.last_mut() {
                    last.opaque = over;
                }
                match is_dir {
                    true => self.dir(path, ino, None),
                    false => Ok(()),
                }
            }
            None => {
                self.push(path, Kind::Added, ino, is_dir);
                self.note(ino)?;
                match is_dir {
                    true => self.dir(path, ino, None),
                    false => Ok(()),
                }
            }
        }
    }

    /// A name that the lower does not have: of a lower's file all names count as changed.
    fn note(&mut self, ino: u64) -> Res<()> {
        if self.tree.low.contains_number(ino)
            && let Some(low) = self.tree.low.meta(ino)?
            && !low.is_dir()
            && self.tree.true_meta(ino)?.nlink > 1
        {
            self.more.insert(ino);
        }
        Ok(())
    }
}

impl Low {
    /// Where in the lower the inodes of `wanted` have names: directory, name, inode. One pass over all directory entries of
    /// an image; of host directories the paths that were changed are known.
    fn names_of(&self, wanted: &HashSet<u64>) -> Res<Vec<Named>> {
        let mut out = Vec::new();
        if wanted.is_empty() {
            return Ok(out);
        }
        let Some(host) = self.as_host() else {
            self.each_name(&mut |dir, name, ino| {
                if wanted.contains(&ino) {
                    out.push((dir, name.into(), ino));
                }
            });
            return Ok(out);
        };
        let mut seen = HashSet::new();
        for (ino, path) in host.bindings() {
            if !wanted.contains(&ino) {
                continue;
            }
            let mut at = Index::ROOT;
            for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
                let Ok(Some(next)) = self.lookup(at, name) else {
                    break;
                };
                if wanted.contains(&next) && seen.insert((at, name.to_vec())) {
                    out.push((at, name.into(), next));
                }
                at = next;
            }
        }
        Ok(out)
    }
}
