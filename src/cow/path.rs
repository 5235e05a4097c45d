//! Look-ups by path inside the tree, in-process: no mount is needed and none is asked.

use super::index::{Index, Time};
use super::meta::{Meta, Res};
use super::upper::Dirent;
use super::{Cow, Tree};
use crate::error::{Result, failed};
use anyhow::Context;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Symbolic links followed before `ELOOP`, as in the kernel.
const LINKS: usize = 40;

/// What [`Cow::stat`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `st_ino` as seen through the mount.
    pub ino: u64,
    /// `st_mode`, with the file type.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// True owner, a container id.
    pub uid: u32,
    /// True group, a container id.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Device number in the kernel's encoding.
    pub rdev: u32,
    /// Time of the last change of content.
    pub mtime: Time,
}

impl Stat {
    pub(super) fn new(ino: u64, m: &Meta) -> Stat {
        Stat {
            ino,
            mode: m.mode,
            nlink: m.nlink,
            uid: m.uid,
            gid: m.gid,
            size: m.size,
            rdev: m.rdev,
            mtime: m.mtime,
        }
    }
    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
    /// Whether it is a symbolic link (of an entry that was not followed).
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFLNK
    }
}

/// One entry of [`Cow::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: OsString,
    /// What it is (a symbolic link is not followed).
    pub stat: Stat,
}

impl Tree {
    /// Walks an absolute path inside the tree; `..` stops at the root, links resolve inside.
    fn walk(&self, path: &[u8], follow: bool) -> Res<Option<u64>> {
        self.trace(path, follow, &mut Vec::new(), &|_| false)
    }

    /// The same; `trail` is then the names that lead there without a link, the last of them perhaps of nothing. Where it `ends`
    /// early it has the names that were left, too.
    fn trace(
        &self,
        path: &[u8],
        follow: bool,
        trail: &mut Vec<Vec<u8>>,
        ends: &dyn Fn(&[Vec<u8>]) -> bool,
    ) -> Res<Option<u64>> {
        let split = |p: &[u8]| -> Vec<Vec<u8>> {
            p.split(|b| *b == b'/')
                .filter(|c| !c.is_empty() && *c != b".")
                .map(<[u8]>::to_vec)
                .collect()
        };
        let mut todo: VecDeque<Vec<u8>> = split(path).into();
        let must_be_dir = path.ends_with(b"/") || path.ends_with(b"/.");
        let mut links = 0;
        let mut at = Index::ROOT;
        while let Some(name) = todo.pop_front() {
            if !self.true_meta(at)?.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            if name == b".." {
                at = self.parent(at);
                trail.pop();
                continue;
            }
            trail.push(name);
            if ends(trail) {
                if todo.front().is_some_and(|next| next == b"..") {
                    todo.pop_front();
                    trail.pop();
                    continue;
                }
                trail.extend(todo);
                return Ok(None);
            }
            let name = trail.last().map_or(&b""[..], Vec::as_slice);
            let Some(next) = self.lookup(at, name)? else {
                trail.extend(todo);
                return Ok(None);
            };
            let last = todo.is_empty() && !must_be_dir;
            if self.true_meta(next)?.is_link() && (follow || !last) {
                links += 1;
                if links > LINKS {
                    return Err(Errno::ELOOP);
                }
                let target = self.readlink(next)?;
                trail.pop();
                if target.starts_with(b"/") {
                    at = Index::ROOT;
                    trail.clear();
                }
                for part in split(&target).into_iter().rev() {
                    todo.push_front(part);
                }
                continue;
            }
            at = next;
        }
        if must_be_dir && !self.true_meta(at)?.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(Some(at))
    }
}

impl Cow {
    /// The inode that `path` leads to, if any.
    pub(super) fn find(&self, path: &Path, follow: bool) -> Result<Option<u64>> {
        match self.tree.walk(path.as_os_str().as_bytes(), follow) {
            Ok(found) => Ok(found),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("looking up {} in the root", path.display())),
        }
    }

    fn look(&self, path: &Path, follow: bool) -> Result<Option<Stat>> {
        let Some(ino) = self.find(path, follow)? else {
            return Ok(None);
        };
        let meta = self
            .tree
            .true_meta(ino)
            .with_context(|| format!("looking at {} in the root", path.display()))?;
        Ok(Some(Stat::new(ino, &meta)))
    }

    /// What `path` leads to inside the tree (absolute; symbolic links are resolved in-root, at
    /// most 40 of them).
    ///
    /// # Errors
    /// Too many symbolic links; what the host answers. Nothing there is `None`.
    pub fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        self.look(path, true)
    }

    /// The same, and the path without symbolic links: of what is there, or of what a file made under this name would be.
    /// `ends` are such paths that something is mounted on: what is below them is not looked at.
    ///
    /// # Errors
    /// As [`Cow::stat`].
    pub fn resolve(&self, path: &Path, ends: &[PathBuf]) -> Result<(PathBuf, Option<Stat>)> {
        let mut trail = Vec::new();
        let joined = |trail: &[Vec<u8>]| {
            let names = trail.iter().map(|name| OsStr::from_bytes(name));
            Path::new("/").join(names.collect::<PathBuf>())
        };
        let bytes = path.as_os_str().as_bytes();
        let is_end = |trail: &[Vec<u8>]| !ends.is_empty() && ends.contains(&joined(trail));
        match self.tree.trace(bytes, true, &mut trail, &is_end) {
            Ok(_) => {}
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok((path.to_owned(), None)),
            Err(e) => {
                return Err(e)
                    .with_context(|| format!("looking up {} in the root", path.display()));
            }
        }
        let full = joined(&trail);
        let stat = match ends.iter().any(|end| full.starts_with(end)) {
            true => None,
            false => self.stat(&full)?,
        };
        Ok((full, stat))
    }

    /// The same as [`Cow::stat`] without following a symbolic link at the end.
    ///
    /// # Errors
    /// As [`Cow::stat`].
    pub fn lstat(&self, path: &Path) -> Result<Option<Stat>> {
        self.look(path, false)
    }

    /// The content of a regular file.
    ///
    /// # Errors
    /// It is no regular file, or longer than `limit`; what the host answers.
    pub fn read_file(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(stat) = self.stat(path)? else {
            return Ok(None);
        };
        let shown = path.display();
        if !stat.is_file() {
            return Err(failed(format!("{shown} in the root is not a regular file")).into());
        }
        if stat.size > limit {
            let size = stat.size;
            return Err(failed(format!(
                "{shown} in the root has {size} bytes, more than {limit}"
            ))
            .into());
        }
        let mut out = Vec::new();
        let mut buf = Vec::new();
        while (out.len() as u64) < stat.size {
            let at = out.len() as u64;
            // No more than there is: each page of a buffer costs a fault.
            let len = (stat.size - at).min(1 << 20) as usize;
            let n = self
                .tree
                .read(stat.ino, at, len, &mut buf, |bytes| {
                    out.extend_from_slice(bytes);
                    bytes.len()
                })
                .with_context(|| format!("reading {shown} in the root"))?;
            if n == 0 {
                break;
            }
        }
        Ok(Some(out))
    }

    /// The target of a symbolic link; `None` where there is nothing or something else.
    ///
    /// # Errors
    /// As [`Cow::stat`].
    pub fn readlink(&self, path: &Path) -> Result<Option<PathBuf>> {
        match self.lstat(path)? {
            Some(stat) if stat.is_symlink() => {
                let target = self
                    .tree
                    .readlink(stat.ino)
                    .with_context(|| format!("reading the link {}", path.display()))?;
                Ok(Some(OsString::from_vec(target).into()))
            }
            _ => Ok(None),
        }
    }

    /// The entries of a directory, `.` and `..` not among them; `None` where there is no
    /// directory.
    ///
    /// # Errors
    /// What the host answers.
    pub fn list(&self, path: &Path) -> Result<Option<Vec<Listed>>> {
        let Some(dir) = self.stat(path)?.filter(Stat::is_dir) else {
            return Ok(None);
        };
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut take = |e: &Dirent<'_>| {
            names.push(e.name.to_vec());
            true
        };
        self.tree
            .readdir(dir.ino, 2, None, &mut take)
            .with_context(|| format!("listing {} in the root", path.display()))?;
        let mut out = Vec::with_capacity(names.len());
        for name in names {
            // Looked up again: a live host may have changed it, and numbers come from there.
            if let Ok(Some(ino)) = self.tree.lookup(dir.ino, &name)
                && let Ok(meta) = self.tree.true_meta(ino)
            {
                out.push(Listed {
                    name: OsString::from_vec(name),
                    stat: Stat::new(ino, &meta),
                });
            }
        }
        Ok(Some(out))
    }
}
