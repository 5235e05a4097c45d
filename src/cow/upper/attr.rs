//! Changing attributes: mode, owner, size, times.

use super::super::acl::{self, Acl};
use super::super::journal::Record;
use super::super::meta::{Caller, Meta, Res, S_IFMT, S_ISGID, S_ISUID, S_IXGRP, Time, wr};
use super::node::State;
use super::{Tree, now};
use nix::errno::Errno;

const CAPABILITY: &[u8] = b"security.capability";

/// What to set. No field at all is what `chown(path, -1, -1)` arrives as.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Stamp>,
    pub mtime: Option<Stamp>,
    /// Clear setuid and setgid with the size.
    pub kill: bool,
}

/// A time to set.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stamp {
    /// This one.
    At(Time),
    /// The server's clock.
    Now,
}

impl Stamp {
    fn time(self, now: Time) -> Time {
        match self {
            Stamp::At(t) => t,
            Stamp::Now => now,
        }
    }
}

impl Tree {
    /// Sets attributes; copies no content but for a size that needs it.
    ///
    /// # Errors
    /// `EROFS`, `EINVAL` and `EISDIR` for sizes, `EFBIG`, `ENOSPC`.
    pub(crate) fn setattr(&self, who: Caller, ino: u64, set: &SetAttr) -> Res<()> {
        if let Some(new) = set.size {
            match self.low.is_live() && new > 0 {
                // It may be copied.
                true => self.before_content(ino, |size| new > size)?,
                false => self.settle_tail(ino, |size| new > size)?,
            }
        }
        self.reclaiming(|| self.setattr_once(who, ino, set))
    }

    fn setattr_once(&self, who: Caller, ino: u64, set: &SetAttr) -> Res<()> {
        let _gate = self.change()?;
        let node = self.promote(ino)?;
        let mut state = wr(&node.state);
        self.follow(ino, &mut state);
        let before = state.meta;
        let time = now();
        let chown = set.uid.is_some() || set.gid.is_some();
        let nothing =
            set.mode.is_none() && set.size.is_none() && set.atime.is_none() && set.mtime.is_none();
        let kill = (chown || nothing) && !before.is_dir() || (set.size.is_some() && set.kill);
        self.ready(
            ino,
            &mut state,
            set.mode.is_some(),
            kill || set.size.is_some(),
        )?;
        if let Some(size) = set.size {
            self.truncate(&node, &mut state, size, time)?;
        }
        let meta = &mut state.meta;
        if let Some(mode) = set.mode {
            meta.mode = (meta.mode & S_IFMT) | (mode & 0o7777);
        }
        if self.squash.is_none() {
            meta.uid = set.uid.unwrap_or(meta.uid);
            meta.gid = set.gid.unwrap_or(meta.gid);
        }
        if kill && set.mode.is_none() {
            meta.mode = killed(meta.mode, who, before.gid);
        }
        if let Some(t) = set.atime {
            meta.atime = t.time(time);
        }
        if let Some(t) = set.mtime {
            meta.mtime = t.time(time);
        }
        meta.ctime = time;
        if set.mode.is_some() {
            self.chmod_acl(ino, &mut state, time)?;
        }
        if kill || set.size.is_some() {
            self.drop_capability(ino, &mut state, time)?;
        }
        let plain_size = Meta {
            size: before.size,
            ..state.meta
        };
        // A truncation has its own record; anything beyond it needs this one.
        let resized_only = set.size.is_some()
            && Meta {
                mtime: time,
                ctime: time,
                ..before
            } == plain_size;
        if !resized_only {
            self.log_attr(ino, &state);
        }
        Ok(())
    }

    /// Asks the lower for what the change will need of it, before any of it is journalled.
    fn ready(&self, ino: u64, state: &mut State, chmod: bool, change: bool) -> Res<()> {
        let has = |name: &[u8]| Ok(self.xattr_of(ino, state, name)?.is_some());
        if state.xattrs.is_none()
            && ((chmod && has(acl::ACCESS)?)
                || (change && state.meta.is_file() && has(CAPABILITY)?))
        {
            self.own_xattrs(ino, state)?;
        }
        Ok(())
    }

    /// Journals mode, owner and times as they are.
    pub(super) fn log_attr(&self, ino: u64, state: &State) {
        let m = &state.meta;
        self.log(&Record::Attr {
            ino,
            mode: m.mode,
            uid: m.uid,
            gid: m.gid,
            atime: m.atime,
            mtime: m.mtime,
            ctime: m.ctime,
        });
    }

    pub(super) fn apply_attr(state: &mut State, (mode, uid, gid): (u32, u32, u32), t: [Time; 3]) {
        let m = &mut state.meta;
        m.mode = (m.mode & S_IFMT) | (mode & 0o7777);
        m.uid = uid;
        m.gid = gid;
        [m.atime, m.mtime, m.ctime] = t;
    }

    /// `chmod` changes the access list with the mode.
    fn chmod_acl(&self, ino: u64, state: &mut State, time: Time) -> Res<()> {
        let Some(value) = self.xattr_of(ino, state, acl::ACCESS)? else {
            return Ok(());
        };
        if let Ok(Some(mut list)) = Acl::parse(&value) {
            list.chmod(state.meta.mode);
            self.put_xattr(ino, state, acl::ACCESS, Some(&list.value()), time)?;
        }
        Ok(())
    }

    /// What a write, truncation or change of owner takes from a program's privileges. An empty value gives none, and
    /// stays (as `cap_inode_need_killpriv` of the kernel has it).
    pub(super) fn drop_capability(&self, ino: u64, state: &mut State, time: Time) -> Res<()> {
        if state.meta.is_file()
            && self
                .xattr_of(ino, state, CAPABILITY)?
                .is_some_and(|v| !v.is_empty())
        {
            self.put_xattr(ino, state, CAPABILITY, None, time)?;
        }
        Ok(())
    }

    /// Sets the true owner whatever is shown (single-id mode).
    ///
    /// # Errors
    /// `EOPNOTSUPP` outside that mode, `ENOENT`, `EROFS`.
    pub(crate) fn chown_true(&self, who: Caller, ino: u64, uid: u32, gid: u32) -> Res<()> {
        let _gate = self.change()?;
        if self.squash.is_none() {
            return Err(Errno::EOPNOTSUPP);
        }
        let node = self.promote(ino)?;
        let mut state = wr(&node.state);
        self.follow(ino, &mut state);
        let time = now();
        if !state.meta.is_dir() {
            state.meta.mode = killed(state.meta.mode, who, state.meta.gid);
            self.drop_capability(ino, &mut state, time)?;
        }
        let keep = |new: u32, old: u32| if new == u32::MAX { old } else { new };
        state.meta.uid = keep(uid, state.meta.uid);
        state.meta.gid = keep(gid, state.meta.gid);
        state.meta.ctime = time;
        self.log_attr(ino, &state);
        Ok(())
    }
}

/// The mode after setuid and setgid are taken: setgid without group execution is a lock mark and
/// stays for who is root inside or in the group.
pub(super) fn killed(mode: u32, who: Caller, gid: u32) -> u32 {
    let mut mode = mode & !S_ISUID;
    if mode & S_ISGID != 0 && (mode & S_IXGRP != 0 || (who.uid != 0 && who.gid != gid)) {
        mode &= !S_ISGID;
    }
    mode
}
