//! Rename in all its forms. A directory moves with one record whatever is in it.

use super::super::journal::Record;
use super::super::meta::{Caller, Meta, Res, S_IFCHR, Time, check_name, wr};
use super::create::{New, creation, grow_links, live_dir, shrink_links};
use super::node::{Node, State, Xattrs};
use super::remove::unname;
use super::space::{inode_cost, name_cost};
use super::{Tree, now};
use nix::errno::Errno;
use std::sync::{Arc, RwLockWriteGuard};

/// `renameat2` flags.
pub(crate) const NOREPLACE: u32 = 1;
pub(crate) const EXCHANGE: u32 = 2;
pub(crate) const WHITEOUT: u32 = 4;

/// One or two directories locked for writing: `from()` and `to()` may be the same one.
pub(super) struct Pair<'a> {
    from: (u64, RwLockWriteGuard<'a, State>),
    to: Option<(u64, RwLockWriteGuard<'a, State>)>,
}

impl<'a> Pair<'a> {
    /// Locks in the order of numbers.
    pub(super) fn lock(from: &'a Arc<Node>, to: &'a Arc<Node>) -> Pair<'a> {
        if from.ino == to.ino {
            return Pair {
                from: (from.ino, wr(&from.state)),
                to: None,
            };
        }
        let (f, t);
        if from.ino < to.ino {
            f = wr(&from.state);
            t = wr(&to.state);
        } else {
            t = wr(&to.state);
            f = wr(&from.state);
        }
        Pair {
            from: (from.ino, f),
            to: Some((to.ino, t)),
        }
    }
    pub(super) fn from(&mut self) -> (u64, &mut State) {
        (self.from.0, &mut *self.from.1)
    }
    pub(super) fn to(&mut self) -> (u64, &mut State) {
        match &mut self.to {
            Some((ino, state)) => (*ino, &mut *state),
            None => (self.from.0, &mut *self.from.1),
        }
    }
    fn same(&self) -> bool {
        self.to.is_none()
    }
}

/// Names of a rename.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub name: &'a [u8],
    pub newname: &'a [u8],
}

impl Tree {
    /// Moves `name` of `parent` to `newname` of `newparent`.
    ///
    /// # Errors
    /// As rename(2); never `EXDEV`.
    pub(crate) fn rename(
        &self,
        who: Caller,
        parent: u64,
        name: &[u8],
        newparent: u64,
        newname: &[u8],
        flags: u32,
    ) -> Res<()> {
        self.reclaiming(|| self.rename_once(who, parent, name, newparent, newname, flags))
    }

    fn rename_once(
        &self,
        who: Caller,
        parent: u64,
        name: &[u8],
        newparent: u64,
        newname: &[u8],
        flags: u32,
    ) -> Res<()> {
        let _gate = self.change()?;
        if flags & !(NOREPLACE | EXCHANGE | WHITEOUT) != 0
            || (flags & EXCHANGE != 0 && flags & (NOREPLACE | WHITEOUT) != 0)
        {
            return Err(Errno::EINVAL);
        }
        for n in [name, newname] {
            check_name(n).map_err(|e| if e == Errno::EEXIST { Errno::EBUSY } else { e })?;
        }
        let (from, to) = (self.promote(parent)?, self.promote(newparent)?);
        let mut dirs = Pair::lock(&from, &to);
        live_dir(dirs.from().1).and_then(|()| live_dir(dirs.to().1))?;
        let ino = {
            let (ino, state) = dirs.from();
            self.child(ino, state, name)?.ok_or(Errno::ENOENT)?
        };
        let over = {
            let (ino, state) = dirs.to();
            self.child(ino, state, newname)?
        };
        if ino == newparent || ino == parent {
            return Err(Errno::EINVAL);
        }
        match over {
            Some(_) if flags & NOREPLACE != 0 => return Err(Errno::EEXIST),
            None if flags & EXCHANGE != 0 => return Err(Errno::ENOENT),
            Some(o) if o == parent || o == newparent => return Err(Errno::ENOTEMPTY),
            Some(o) if o == ino => return Ok(()),
            _ => {}
        }
        let target = over.map(|o| {
            self.promote_if(o, |low| match flags & EXCHANGE {
                0 => self.may_replace_low(ino, o, low),
                _ => Ok(()),
            })
        });
        let target = target.transpose()?;
        let moved = self.promote(ino)?;
        let (mut m, mut t) = lock_children(&moved, target.as_ref());
        if let Some(t) = &t
            && flags & EXCHANGE == 0
        {
            self.may_replace(&m, over.unwrap_or(0), t)?;
        }
        let time = now();
        let names = Names { name, newname };
        let whiteout = self.whiteout(who, &mut dirs, flags)?;
        self.room_to_move(names, over.is_some(), whiteout.as_ref())?;
        if flags & EXCHANGE == 0 && t.is_some() {
            // Programs rely on that order without asking for it.
            self.content_first(&moved, &mut m, false);
        }
        self.follow(ino, &mut m);
        if let Some((o, t)) = over.zip(t.as_mut()) {
            self.follow(o, t);
        }
        let rename = Record::Rename {
            parent,
            name,
            newparent,
            newname,
            flags: flags & EXCHANGE,
            time,
        };
        let left = whiteout.map(|(meta, xattrs)| (self.low.alloc(), meta, xattrs));
        let seq = self.log(&and_whiteout(rename, left.as_ref(), (parent, name)));
        if flags & EXCHANGE != 0 {
            let (o, t) = over.zip(t.as_mut()).ok_or(Errno::ENOENT)?;
            self.apply_exchange(&mut dirs, (ino, &mut m), (o, t), names, time)?;
        } else {
            self.apply_rename(&mut dirs, (ino, &mut m), t.as_deref_mut(), names, time)?;
        }
        if let Some((ino, meta, xattrs)) = left {
            let dir = Some((&from, dirs.from().1));
            self.apply_create(dir, ino, name, meta, b"", xattrs)?;
        }
        drop(m);
        if let Some((node, mut state)) = target.as_ref().zip(t) {
            self.released(node, &mut state, seq);
        }
        Ok(())
    }

    /// The inode that is to stay behind in the first of the directories.
    fn whiteout(
        &self,
        who: Caller,
        dirs: &mut Pair<'_>,
        flags: u32,
    ) -> Res<Option<(Meta, Xattrs)>> {
        if flags & WHITEOUT == 0 {
            return Ok(None);
        }
        let new = New {
            mode: S_IFCHR,
            ..New::default()
        };
        let (parent, dir) = dirs.from();
        self.prepare(who, parent, dir, &new).map(Some)
    }

    /// Whether there is room for what the names take more afterwards, the whiteout included.
    fn room_to_move(
        &self,
        names: Names<'_>,
        replaces: bool,
        whiteout: Option<&(Meta, Xattrs)>,
    ) -> Res<()> {
        let more = if replaces {
            0
        } else {
            name_cost(names.newname)
        };
        match whiteout {
            Some((_, xattrs)) => self.room(more + inode_cost(b"", xattrs)),
            None => self.room(more.saturating_sub(name_cost(names.name))),
        }
    }

    /// The same of a lower inode, as far as the kernel has not: before it gets a node for nothing.
    fn may_replace_low(&self, moved: u64, over: u64, low: &Meta) -> Res<()> {
        if !low.is_dir() || self.is_empty_low(over)? {
            return Ok(());
        }
        match self.true_meta(moved)?.is_dir() {
            true => Err(Errno::ENOTEMPTY),
            false => Err(Errno::EISDIR),
        }
    }

    /// What rename(2) says about the kinds of both and about what is in a replaced directory.
    fn may_replace(&self, moved: &State, over: u64, target: &State) -> Res<()> {
        match (moved.meta.is_dir(), target.meta.is_dir()) {
            (true, false) => Err(Errno::ENOTDIR),
            (false, true) => Err(Errno::EISDIR),
            (true, true) if !self.is_empty(over, target)? => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    pub(super) fn apply_rename(
        &self,
        dirs: &mut Pair<'_>,
        (ino, moved): (u64, &mut State),
        target: Option<&mut State>,
        names: Names<'_>,
        time: Time,
    ) -> Res<()> {
        let is_dir = moved.meta.is_dir();
        let kind = moved.meta.dtype();
        {
            let (parent, dir) = dirs.from();
            let body = dir.dir().ok_or(Errno::ENOTDIR)?;
            let covers = self.hides(parent, body, names.name)?;
            self.edit(dir, |body| body.take(names.name, covers))?;
            if is_dir {
                shrink_links(dir);
            }
            dir.meta.touch(time);
        }
        let (newparent, dir) = dirs.to();
        self.put_name(newparent, dir, names.newname, ino, kind)?;
        if is_dir {
            grow_links(dir);
            moved.parent = newparent;
        }
        if let Some(target) = target {
            if target.meta.is_dir() {
                shrink_links(dir);
            }
            unname(target, time);
        }
        dir.meta.touch(time);
        moved.meta.ctime = time;
        Ok(())
    }

    pub(super) fn apply_exchange(
        &self,
        dirs: &mut Pair<'_>,
        (ino, a): (u64, &mut State),
        (other, b): (u64, &mut State),
        names: Names<'_>,
        time: Time,
    ) -> Res<()> {
        let same = dirs.same();
        let (parent, newparent) = (dirs.from().0, dirs.to().0);
        {
            let (p, dir) = dirs.from();
            self.put_name(p, dir, names.name, other, b.meta.dtype())?;
            if !same && a.meta.is_dir() != b.meta.is_dir() {
                if b.meta.is_dir() {
                    grow_links(dir);
                } else {
                    shrink_links(dir);
                }
            }
            dir.meta.touch(time);
        }
        let (p, dir) = dirs.to();
        self.put_name(p, dir, names.newname, ino, a.meta.dtype())?;
        if !same && a.meta.is_dir() != b.meta.is_dir() {
            if a.meta.is_dir() {
                grow_links(dir);
            } else {
                shrink_links(dir);
            }
        }
        dir.meta.touch(time);
        if a.meta.is_dir() {
            a.parent = newparent;
        }
        if b.meta.is_dir() {
            b.parent = parent;
        }
        a.meta.ctime = time;
        b.meta.ctime = time;
        Ok(())
    }
}

/// One record for both: no crash leaves the old name with neither of them.
fn and_whiteout<'a>(
    rename: Record<'a>,
    left: Option<&'a (u64, Meta, Xattrs)>,
    old: (u64, &'a [u8]),
) -> Record<'a> {
    match left {
        Some((ino, meta, xattrs)) => {
            let stays = creation(old, *ino, *meta, b"", xattrs);
            Record::Together(vec![rename, stays])
        }
        None => rename,
    }
}

/// Locks a renamed inode and the one it replaces, in the order of numbers. `None` for the second
/// also when both are one.
pub(super) fn lock_children<'a>(
    moved: &'a Arc<Node>,
    target: Option<&'a Arc<Node>>,
) -> (
    RwLockWriteGuard<'a, State>,
    Option<RwLockWriteGuard<'a, State>>,
) {
    match target {
        Some(t) if t.ino < moved.ino => {
            let t = wr(&t.state);
            (wr(&moved.state), Some(t))
        }
        Some(t) if t.ino > moved.ino => {
            let m = wr(&moved.state);
            (m, Some(wr(&t.state)))
        }
        _ => (wr(&moved.state), None),
    }
}
