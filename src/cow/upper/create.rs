//! New inodes and new names.

use super::super::acl::{self, Acl};
use super::super::journal::Record;
use super::super::meta::{
    BLOCK, Caller, LINK_MAX, Meta, Res, S_IFDIR, S_IFLNK, S_IFMT, S_ISGID, S_IXGRP, Time,
    check_name, dtype, wr,
};
use super::node::{Node, State, Xattrs};
use super::space::{inode_cost, name_cost};
use super::{Tree, now};
use nix::errno::Errno;
use std::sync::{Arc, OnceLock};

/// What is to be made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct New<'a> {
    /// Type and permissions as asked for, the umask not applied.
    pub mode: u32,
    pub umask: u32,
    pub rdev: u32,
    /// Of a symbolic link.
    pub target: &'a [u8],
}

impl Tree {
    /// Makes an inode of any kind named `name` in `parent`; returns its number.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT` (the directory is gone), `ENAMETOOLONG`, `EROFS`.
    pub(crate) fn create(&self, who: Caller, parent: u64, name: &[u8], new: &New<'_>) -> Res<u64> {
        self.reclaiming(|| self.create_once(who, parent, name, new))
    }

    fn create_once(&self, who: Caller, parent: u64, name: &[u8], new: &New<'_>) -> Res<u64> {
        let _gate = self.change()?;
        check_name(name)?;
        let dir = self.promote(parent)?;
        let mut state = wr(&dir.state);
        live_dir(&state)?;
        if self.child(parent, &state, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        let (meta, xattrs) = self.prepare(who, parent, &state, new)?;
        self.room(inode_cost(new.target, &xattrs) + name_cost(name))?;
        let ino = self.low.alloc();
        self.log(&creation((parent, name), ino, meta, new.target, &xattrs));
        self.apply_create(
            Some((&dir, &mut state)),
            ino,
            name,
            meta,
            new.target,
            xattrs,
        )?;
        Ok(ino)
    }

    /// Makes a regular file without a name (`O_TMPFILE`).
    ///
    /// # Errors
    /// `ENOENT` (the directory is gone), `EROFS`.
    pub(crate) fn tmpfile(&self, who: Caller, parent: u64, new: &New<'_>) -> Res<u64> {
        self.reclaiming(|| self.tmpfile_once(who, parent, new))
    }

    fn tmpfile_once(&self, who: Caller, parent: u64, new: &New<'_>) -> Res<u64> {
        let _gate = self.change()?;
        let dir = self.promote(parent)?;
        let state = wr(&dir.state);
        live_dir(&state)?;
        let (mut meta, xattrs) = self.prepare(who, parent, &state, new)?;
        meta.nlink = 0;
        self.room(inode_cost(b"", &xattrs))?;
        let ino = self.low.alloc();
        self.log(&creation((parent, b""), ino, meta, b"", &xattrs));
        self.apply_create(None, ino, b"", meta, b"", xattrs)?;
        if let Some(node) = self.node(ino) {
            self.mark_nameless(&node);
        }
        Ok(ino)
    }

    /// Owner, mode and attributes of a new inode in the locked directory.
    pub(super) fn prepare(
        &self,
        who: Caller,
        parent: u64,
        dir: &State,
        new: &New<'_>,
    ) -> Res<(Meta, Xattrs)> {
        let kind = new.mode & S_IFMT;
        let mut mode = new.mode;
        let mut gid = who.gid;
        if dir.meta.mode & S_ISGID != 0 {
            gid = dir.meta.gid;
            if kind == S_IFDIR {
                mode |= S_ISGID;
            } else if who.uid != 0 && who.gid != gid && !kernel_strips() {
                mode = stripped(mode);
            }
        }
        let mut xattrs = Xattrs::new();
        let default = match kind {
            S_IFLNK => None,
            _ => self.xattr_of(parent, dir, acl::DEFAULT)?,
        };
        match default.as_deref().map(Acl::parse) {
            Some(Ok(Some(mut list))) => {
                if kind == S_IFDIR {
                    xattrs.insert(acl::DEFAULT.into(), list.value().into());
                }
                mode = list.inherit(mode);
                if !list.mode().1 {
                    xattrs.insert(acl::ACCESS.into(), list.value().into());
                }
            }
            _ if kind == S_IFLNK => mode |= 0o777,
            _ => mode &= !(new.umask & 0o777),
        }
        let time = now();
        let meta = Meta {
            mode,
            nlink: if kind == S_IFDIR { 2 } else { 1 },
            uid: who.uid,
            gid,
            rdev: new.rdev,
            // As a directory of an image.
            size: match kind {
                S_IFDIR => BLOCK,
                _ => new.target.len() as u64,
            },
            atime: time,
            mtime: time,
            ctime: time,
        };
        Ok((meta, xattrs))
    }

    /// Puts a new inode into its (locked) directory; none for an unnamed file.
    pub(super) fn apply_create(
        &self,
        dir: Option<(&Arc<Node>, &mut State)>,
        ino: u64,
        name: &[u8],
        meta: Meta,
        target: &[u8],
        xattrs: Xattrs,
    ) -> Res<()> {
        let mut parent = 0;
        if let Some((node, state)) = dir {
            parent = node.ino;
            self.put_name(parent, state, name, ino, dtype(meta.mode))?;
            if meta.is_dir() {
                grow_links(state);
            }
            state.meta.touch(meta.ctime);
        }
        self.low.reserve(ino.saturating_add(1));
        self.insert(ino, State::fresh(meta, parent, target, xattrs));
        Ok(())
    }

    /// Another name for an inode that is not a directory.
    ///
    /// # Errors
    /// `EEXIST`, `EPERM` (a directory), `ENOENT` (either is gone), `EMLINK`, `EROFS`.
    pub(crate) fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Res<()> {
        self.reclaiming(|| self.link_once(ino, parent, name))
    }

    fn link_once(&self, ino: u64, parent: u64, name: &[u8]) -> Res<()> {
        let _gate = self.change()?;
        check_name(name)?;
        let dir = self.promote(parent)?;
        let node = self.promote(ino)?;
        if node.ino == dir.ino {
            return Err(Errno::EPERM);
        }
        let mut state = wr(&dir.state);
        live_dir(&state)?;
        if self.child(parent, &state, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        let mut inode = wr(&node.state);
        if inode.meta.is_dir() {
            return Err(Errno::EPERM);
        }
        // Only O_TMPFILE files may come back to life; the kernel checks which those are.
        if inode.meta.nlink >= LINK_MAX {
            return Err(Errno::EMLINK);
        }
        let time = now();
        self.room(name_cost(name))?;
        self.follow(ino, &mut inode);
        if inode.meta.nlink == 0 {
            // What was written to it before it had a name is on no list.
            self.content_first(&node, &mut inode, true);
        }
        self.log(&Record::Link {
            parent,
            ino,
            name,
            time,
        });
        self.apply_link((parent, &mut state), (ino, &mut inode), name, time)?;
        self.unmark_nameless(&node);
        Ok(())
    }

    pub(super) fn apply_link(
        &self,
        (parent, dir): (u64, &mut State),
        (ino, inode): (u64, &mut State),
        name: &[u8],
        time: Time,
    ) -> Res<()> {
        self.put_name(parent, dir, name, ino, inode.meta.dtype())?;
        dir.meta.touch(time);
        inode.meta.nlink = inode.meta.nlink.saturating_add(1);
        inode.meta.ctime = time;
        Ok(())
    }

    /// Enters a name into a locked directory, over whatever it was.
    pub(super) fn put_name(
        &self,
        parent: u64,
        dir: &mut State,
        name: &[u8],
        ino: u64,
        kind: u8,
    ) -> Res<()> {
        let body = dir.dir().ok_or(Errno::ENOTDIR)?;
        let covers = self.covers(parent, body, name)?;
        self.edit(dir, |body| body.put(name, ino, kind, covers))
    }
}

/// A program that runs with the group of a setgid directory is not made there by whoever is not in that group.
fn stripped(mode: u32) -> u32 {
    match mode & (S_ISGID | S_IXGRP) {
        both if both == S_ISGID | S_IXGRP => mode & !S_ISGID,
        _ => mode,
    }
}

/// Whether the kernel has seen to that, as since Linux 6.0. It knows all the caller's groups.
fn kernel_strips() -> bool {
    static SINCE: OnceLock<bool> = OnceLock::new();
    *SINCE.get_or_init(|| {
        let name = nix::sys::utsname::uname().ok();
        let release = name.as_ref().and_then(|n| n.release().to_str());
        let major = release.and_then(|r| r.split('.').next()?.parse().ok());
        major.is_none_or(|major: u32| major >= 6)
    })
}

/// The record of a new inode.
pub(super) fn creation<'a>(
    (parent, name): (u64, &'a [u8]),
    ino: u64,
    meta: Meta,
    target: &'a [u8],
    xattrs: &'a Xattrs,
) -> Record<'a> {
    Record::Create {
        parent,
        ino,
        name,
        meta,
        target,
        xattrs: xattrs.iter().map(|(n, v)| (&**n, &**v)).collect(),
    }
}

/// A directory that still has a name (or is the root).
pub(super) fn live_dir(state: &State) -> Res<()> {
    if !state.meta.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if state.meta.nlink == 0 {
        return Err(Errno::ENOENT);
    }
    Ok(())
}

/// A directory came into this one. Host file systems without link counts say 1: kept.
pub(super) fn grow_links(dir: &mut State) {
    if dir.meta.nlink > 1 {
        dir.meta.nlink = dir.meta.nlink.saturating_add(1);
    }
}

/// A directory left this one.
pub(super) fn shrink_links(dir: &mut State) {
    if dir.meta.nlink > 2 {
        dir.meta.nlink -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::stripped;

    #[test]
    fn setgid_goes_with_group_execution_only() {
        assert_eq!(stripped(0o102775), 0o100775);
        assert_eq!(stripped(0o102765), 0o102765);
        assert_eq!(stripped(0o100775), 0o100775);
    }
}
