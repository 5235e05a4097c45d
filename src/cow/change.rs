//! Changes from inside the process, to a file system that nobody serves: what is copied into a container that does not run.
//!
//! Names are given one at a time, in directories that were looked up: what a path leads to, and whether links
//! on it are followed, is the caller's to decide.

use super::Cow;
use super::index::{Index, Time};
use super::meta::{Caller, Res, encode_dev};
use super::upper::{Dirent, New, SetAttr, Stamp};
use crate::error::Result;
use anyhow::Context;
use nix::errno::Errno;
use std::path::Path;

/// A new inode.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// `st_mode`, with the file type.
    pub mode: u32,
    /// Of a symbolic link.
    pub target: &'a [u8],
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// What is set at the end.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of content.
    pub mtime: Time,
}

const ROOT: Caller = Caller { uid: 0, gid: 0 };

impl Cow {
    /// The inode of `name` in the directory `dir`, and whether that is a directory.
    ///
    /// # Errors
    /// `dir` is no directory; what the host answers.
    pub fn entry(&self, dir: u64, name: &[u8]) -> Result<Option<(u64, bool)>> {
        let look = || -> Res<Option<(u64, bool)>> {
            let Some(ino) = self.tree.lookup(dir, name)? else {
                return Ok(None);
            };
            Ok(Some((ino, self.tree.true_meta(ino)?.is_dir())))
        };
        look().with_context(|| format!("looking up {}", name.escape_ascii()))
    }

    /// The directory that `path` leads to, symbolic links resolved inside.
    ///
    /// # Errors
    /// There is none; what the host answers.
    pub fn directory(&self, path: &Path) -> Result<u64> {
        let stat = self.stat(path)?.filter(super::Stat::is_dir);
        let missing = || format!("there is no directory {}", path.display());
        stat.map(|s| s.ino).with_context(missing)
    }

    /// Makes an inode of root's, with no permissions missing that the mode has.
    ///
    /// # Errors
    /// `EEXIST` and the like.
    pub fn make(&self, dir: u64, name: &[u8], made: &Made<'_>) -> Result<u64> {
        let new = New {
            mode: made.mode,
            umask: 0,
            rdev: encode_dev(made.device.0, made.device.1),
            target: made.target,
        };
        let done = self.tree.create(ROOT, dir, name, &new);
        done.with_context(|| format!("making {}", name.escape_ascii()))
    }

    /// Another name for an inode that is no directory.
    ///
    /// # Errors
    /// `EEXIST` and the like.
    pub fn name(&self, ino: u64, dir: u64, name: &[u8]) -> Result<()> {
        let done = self.tree.link(ino, dir, name);
        done.with_context(|| format!("making {}", name.escape_ascii()))
    }

    /// Writes content.
    ///
    /// # Errors
    /// `ENOSPC` and the like.
    pub fn write_at(&self, ino: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let done = self.tree.write(ROOT, ino, offset, bytes, false);
        done.map(drop).context("writing its content")
    }

    /// Sets a file's length.
    ///
    /// # Errors
    /// `EFBIG` and the like.
    pub fn set_size(&self, ino: u64, size: u64) -> Result<()> {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        let done = self.tree.setattr(ROOT, ino, &set);
        done.context("setting its length")
    }

    /// Sets owner, mode and time of an inode.
    ///
    /// # Errors
    /// What the journal's disk answers.
    pub fn settle(&self, ino: u64, to: &Attributes) -> Result<()> {
        let set = |set: SetAttr| self.tree.setattr(ROOT, ino, &set);
        // The owner first: changing it takes set-id bits.
        let owner = SetAttr {
            uid: Some(to.uid),
            gid: Some(to.gid),
            ..SetAttr::default()
        };
        let link = |ino| Ok::<_, Errno>(self.tree.true_meta(ino)?.is_link());
        let done = set(owner).and_then(|()| {
            set(SetAttr {
                mode: (!link(ino)?).then_some(to.mode),
                mtime: Some(Stamp::At(to.mtime)),
                ..SetAttr::default()
            })
        });
        done.context("setting its owner, mode and time")
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `ENOSPC` and the like.
    pub fn set_xattr(&self, ino: u64, name: &[u8], value: &[u8]) -> Result<()> {
        let done = self.tree.setxattr(ROOT, ino, name, value, 0);
        done.with_context(|| format!("setting its attribute {}", name.escape_ascii()))
    }

    /// Removes a name, and what is below it if it is a directory's.
    ///
    /// # Errors
    /// There is none; what the journal's disk answers.
    pub fn remove(&self, dir: u64, name: &[u8]) -> Result<()> {
        // Without recursion: a directory may be deeper than a stack.
        let gone = || format!("removing {}", name.escape_ascii());
        let mut stack = vec![(dir, name.to_vec())];
        while let Some((at, name)) = stack.last().cloned() {
            let ino = self.tree.lookup(at, &name).with_context(gone)?;
            let ino = ino.ok_or(Errno::ENOENT).with_context(gone)?;
            if ino == Index::ROOT || !self.tree.true_meta(ino).with_context(gone)?.is_dir() {
                self.tree.unlink(at, &name).with_context(gone)?;
                stack.pop();
                continue;
            }
            let mut first = None;
            let mut take = |e: &Dirent<'_>| {
                first = Some(e.name.to_vec());
                false
            };
            self.tree
                .readdir(ino, 2, None, &mut take)
                .with_context(gone)?;
            match first {
                Some(inner) => stack.push((ino, inner)),
                None => {
                    self.tree.rmdir(at, &name).with_context(gone)?;
                    stack.pop();
                }
            }
        }
        Ok(())
    }
}
