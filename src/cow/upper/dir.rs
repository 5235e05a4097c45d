//! Look-up and listing of directories.

use super::super::host::HostName;
use super::super::lower::{Listing, LowEntry};
use super::super::meta::{NAME_MAX, Res, lk, rd};
use super::node::{DirBody, State};
use super::{Body, Tree};
use nix::errno::Errno;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Positions from here on are those of names in the upper; below they are places in the lower.
const UPPER: u64 = 1 << 40;

/// One entry of a listing.
#[derive(Debug)]
pub(crate) struct Dirent<'a> {
    pub name: &'a [u8],
    pub ino: u64,
    pub kind: u8,
    /// Where the listing goes on after this entry.
    pub next: u64,
}

#[derive(Default)]
struct Handles {
    last: u64,
    lists: HashMap<u64, Arc<Vec<HostName>>>,
}

/// Listings of live host directories, held from opendir to releasedir so that positions stay.
#[derive(Default)]
pub(crate) struct HostDirs {
    open: Mutex<Handles>,
}

impl HostDirs {
    /// Takes a handle number.
    pub(crate) fn open(&self) -> u64 {
        let mut open = lk(&self.open);
        open.last += 1;
        open.last
    }
    /// Gives it back.
    pub(crate) fn release(&self, fh: u64) {
        lk(&self.open).lists.remove(&fh);
    }
    fn keep(&self, fh: u64, list: &Arc<Vec<HostName>>) {
        lk(&self.open).lists.insert(fh, Arc::clone(list));
    }
    fn get(&self, fh: u64) -> Option<Arc<Vec<HostName>>> {
        lk(&self.open).lists.get(&fh).cloned()
    }
}

impl Tree {
    /// The inode of `name` in the directory `dir`; `None` where there is none.
    ///
    /// # Errors
    /// `ENOENT` and `ENOTDIR` about `dir` itself, `ENAMETOOLONG`, and what the host answers.
    pub(crate) fn lookup(&self, dir: u64, name: &[u8]) -> Res<Option<u64>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if let Some(node) = self.node(dir) {
            let state = rd(&node.state);
            return self.child(dir, &state, name);
        }
        self.low.lookup(dir, name)
    }

    /// The same with the directory's node locked.
    pub(super) fn child(&self, dir: u64, state: &State, name: &[u8]) -> Res<Option<u64>> {
        let body = state.dir().ok_or(Errno::ENOTDIR)?;
        match body.names.get(name) {
            Some(slot) => Ok((slot.ino != 0).then_some(slot.ino)),
            None if body.base => self.low.lookup(dir, name),
            None => Ok(None),
        }
    }

    /// Whether the lower directory below `body` has the name.
    pub(super) fn covers(&self, dir: u64, body: &DirBody, name: &[u8]) -> Res<bool> {
        if !body.base {
            return Ok(false);
        }
        match body.names.get(name) {
            Some(slot) => Ok(slot.covers),
            // A live lower may grow the name later: hide it whether it is there or not.
            None if self.low.is_live() => Ok(true),
            None => Ok(self.low.lookup(dir, name)?.is_some()),
        }
    }

    /// Whether a name that goes from `body` has to stay hidden: the lower directory has it. A live one is
    /// asked again, or every name that ever was would be remembered for good.
    pub(super) fn hides(&self, dir: u64, body: &DirBody, name: &[u8]) -> Res<bool> {
        let covers = self.covers(dir, body, name)?;
        if covers && self.low.is_live() {
            return Ok(!matches!(self.low.lookup(dir, name), Ok(None)));
        }
        Ok(covers)
    }

    /// Whether a locked directory has no entry.
    pub(super) fn is_empty(&self, dir: u64, state: &State) -> Res<bool> {
        let body = state.dir().ok_or(Errno::ENOTDIR)?;
        if !body.order.is_empty() {
            return Ok(false);
        }
        if !body.base {
            return Ok(true);
        }
        let low = self.low.list(dir)?;
        if !self.low.is_live() {
            return Ok(low.len() as u64 == body.covered);
        }
        Ok((0..low.len())
            .filter_map(|i| low.get(i))
            .all(|e| body.names.contains_key(e.name) || self.kind_listed(&e).is_none()))
    }

    /// The type of an entry of the lower; none of what a live host took away, unless there is more of it than attributes here.
    pub(super) fn kind_listed(&self, e: &LowEntry<'_>) -> Option<u8> {
        if !e.gone {
            return Some(e.kind);
        }
        let node = self.node(e.ino)?;
        let state = rd(&node.state);
        (state.meta.nlink > 0 && !state.is_lowers()).then(|| state.meta.dtype())
    }

    /// Nothing of the lower's is listed in a directory that has no node.
    pub(super) fn is_empty_low(&self, dir: u64) -> Res<bool> {
        let low = self.low.list(dir)?;
        if !self.low.is_live() {
            return Ok(low.len() == 0);
        }
        Ok((0..low.len())
            .filter_map(|i| low.get(i))
            .all(|e| self.kind_listed(&e).is_none()))
    }

    /// The directory that `dir` is in.
    pub(crate) fn parent(&self, dir: u64) -> u64 {
        match self.node(dir) {
            Some(node) => rd(&node.state).parent,
            None => self.low.parent(dir),
        }
    }

    /// Lists `dir` from position `from` (0: the start) until `put` says false. `fh` is a handle
    /// of `held` for live lowers.
    pub(crate) fn readdir(
        &self,
        dir: u64,
        from: u64,
        held: Option<(&HostDirs, u64)>,
        put: &mut dyn FnMut(&Dirent<'_>) -> bool,
    ) -> Res<()> {
        let node = self.node(dir);
        let state = node.as_ref().map(|n| rd(&n.state));
        let body = match state.as_deref().map(|s| &s.body) {
            Some(Body::Dir(d)) => Some(&**d),
            Some(_) => return Err(Errno::ENOTDIR),
            None => None,
        };
        let parent = match &state {
            Some(s) => s.parent,
            None => self.low.parent(dir),
        };
        let dots = [(&b"."[..], dir), (&b".."[..], parent)];
        for (i, (name, ino)) in dots.into_iter().enumerate().skip(from.min(2) as usize) {
            let entry = Dirent {
                name,
                ino,
                kind: libc::DT_DIR,
                next: i as u64 + 1,
            };
            if !put(&entry) {
                return Ok(());
            }
        }
        if from < UPPER && body.is_none_or(|b| b.base) {
            let low = self.low_listing(dir, from, held)?;
            for i in from.saturating_sub(2) as usize..low.len() {
                let Some(e) = low.get(i) else { break };
                if body.is_some_and(|b| b.names.contains_key(e.name)) {
                    continue;
                }
                let Some(kind) = self.kind_listed(&e) else {
                    continue;
                };
                let entry = Dirent {
                    name: e.name,
                    ino: e.ino,
                    kind,
                    next: i as u64 + 3,
                };
                if !put(&entry) {
                    return Ok(());
                }
            }
        }
        let Some(body) = body else { return Ok(()) };
        for (seq, name) in body.order.range(from.saturating_sub(UPPER)..) {
            let Some(slot) = body.names.get(name) else {
                continue;
            };
            let entry = Dirent {
                name,
                ino: slot.ino,
                kind: slot.kind,
                next: UPPER + seq + 1,
            };
            if !put(&entry) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn low_listing<'a>(
        &'a self,
        dir: u64,
        from: u64,
        held: Option<(&HostDirs, u64)>,
    ) -> Res<Listing<'a>> {
        let Some((held, fh)) = held.filter(|_| self.low.is_live()) else {
            return self.low.list(dir);
        };
        if from > 2
            && let Some(list) = held.get(fh)
        {
            return Ok(Listing::Host(list));
        }
        let list = self.low.list(dir)?;
        if let Listing::Host(list) = &list {
            held.keep(fh, list);
        }
        Ok(list)
    }
}
