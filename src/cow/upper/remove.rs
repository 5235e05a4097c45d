//! Names that go.

use super::super::journal::Record;
use super::super::meta::{Res, Time, check_name, wr};
use super::create::{live_dir, shrink_links};
use super::node::State;
use super::{Tree, now};
use nix::errno::Errno;

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
        let dir = self.promote(parent)?;
        let mut state = wr(&dir.state);
        live_dir(&state)?;
        let ino = self.child(parent, &state, name)?.ok_or(Errno::ENOENT)?;
        let node = self.promote(ino)?;
        let mut victim = wr(&node.state);
        match (victim.meta.is_dir(), want_dir) {
            (true, false) => return Err(Errno::EISDIR),
            (false, true) => return Err(Errno::ENOTDIR),
            (true, true) if !self.is_empty(ino, &victim)? => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        let time = now();
        let seq = self.log(&Record::Unlink { parent, name, time });
        self.apply_remove((parent, &mut state), (ino, &mut victim), name, time)?;
        drop(state);
        self.released(&node, &mut victim, seq);
        Ok(())
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

/// An inode has one name less; a directory had only one.
pub(super) fn unname(state: &mut State, time: Time) {
    if state.meta.is_dir() {
        state.meta.nlink = 0;
    } else {
        state.meta.nlink = state.meta.nlink.saturating_sub(1);
    }
    state.meta.ctime = time;
}
