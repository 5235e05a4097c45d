//! Names that go.

use super::super::journal::Record;
use super::super::meta::{Res, Time, check_name, wr};
use super::create::{live_dir, shrink_links};
use super::node::{Node, State};
use super::{Tree, now};
use nix::errno::Errno;
use std::sync::Arc;

impl Tree {
    /// Removes the name of a file.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`, `EROFS`.
    pub(crate) fn unlink(&self, parent: u64, name: &[u8]) -> Res<()> {
        self.remove(parent, name, false)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EROFS`.
    pub(crate) fn rmdir(&self, parent: u64, name: &[u8]) -> Res<()> {
        self.remove(parent, name, true)
    }

    fn remove(&self, parent: u64, name: &[u8], want_dir: bool) -> Res<()> {
        let _gate = self.change()?;
        match check_name(name) {
            Err(Errno::EEXIST) if name == b"." => return Err(Errno::EINVAL),
            Err(Errno::EEXIST) => return Err(Errno::ENOTEMPTY),
            other => other?,
        }
        // Of what is refused neither gets a node: `find -exec rmdir` asks for each directory there is.
        let (dir, early) = match self.node(parent) {
            Some(dir) => (dir, None),
            None => {
                let ino = self.low.lookup(parent, name)?.ok_or(Errno::ENOENT)?;
                let victim = self.victim(ino, want_dir)?;
                (self.promote(parent)?, Some(victim))
            }
        };
        let mut state = wr(&dir.state);
        live_dir(&state)?;
        let untouched = state.dir().is_some_and(|d| !d.names.contains_key(name));
        let (node, looked) = match early.filter(|_| untouched) {
            Some(victim) => victim,
            None => {
                let ino = self.child(parent, &state, name)?.ok_or(Errno::ENOENT)?;
                self.victim(ino, want_dir)?
            }
        };
        let mut victim = wr(&node.state);
        let ino = node.ino;
        removable(victim.meta.is_dir(), want_dir)?;
        if let Some(body) = victim.dir()
            && !(looked && body.names.is_empty())
            && !self.is_empty(ino, &victim)?
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.follow(ino, &mut victim);
        let time = now();
        let seq = self.log(&Record::Unlink { parent, name, time });
        self.apply_remove((parent, &mut state), (ino, &mut victim), name, time)?;
        drop(state);
        self.released(&node, &mut victim, seq);
        Ok(())
    }

    /// The node of an inode whose name is to go, and whether it is new: the lower's inode is one that may go.
    fn victim(&self, ino: u64, want_dir: bool) -> Res<(Arc<Node>, bool)> {
        let mut looked = false;
        let node = self.promote_if(ino, |meta| {
            looked = true;
            removable(meta.is_dir(), want_dir)?;
            match want_dir && !self.is_empty_low(ino)? {
                true => Err(Errno::ENOTEMPTY),
                false => Ok(()),
            }
        })?;
        Ok((node, looked))
    }

    /// Takes `name` out of the locked directory and counts the (locked) inode's links down.
    pub(super) fn apply_remove(
        &self,
        (parent, dir): (u64, &mut State),
        (_, victim): (u64, &mut State),
        name: &[u8],
        time: Time,
    ) -> Res<()> {
        let body = dir.dir().ok_or(Errno::ENOTDIR)?;
        let covers = self.hides(parent, body, name)?;
        self.edit(dir, |body| body.take(name, covers))?;
        dir.meta.touch(time);
        if victim.meta.is_dir() {
            shrink_links(dir);
        }
        unname(victim, time);
        Ok(())
    }

    /// After a name went: the inode may have been its last.
    pub(super) fn released(&self, node: &super::Node, state: &mut State, _seq: u64) {
        self.reap(node, state);
    }
}

fn removable(is_dir: bool, want_dir: bool) -> Res<()> {
    match (is_dir, want_dir) {
        (true, false) => Err(Errno::EISDIR),
        (false, true) => Err(Errno::ENOTDIR),
        _ => Ok(()),
    }
}

/// An inode has one name less; a directory had only one.
pub(super) fn unname(state: &mut State, time: Time) {
    if state.meta.is_dir() {
        state.meta.nlink = 0;
    } else {
        state.meta.nlink = state.meta.nlink.saturating_sub(1);
    }
    state.meta.ctime = time;
}
