//! Paths inside the new root, resolved there and nowhere else.
//!
//! A container, or a peer that shares a volume with it, may exchange directories and symlinks while
//! we look. So nothing is looked up twice: a path becomes a descriptor once, by openat2(2)
//! with RESOLVE_IN_ROOT, and what is mounted or made goes to that descriptor.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};

/// Symlinks followed at most, as in the kernel.
const MAX_LINKS: usize = 40;
/// Tries when the kernel says that a rename ran beside us.
const TRIES: usize = 128;

/// What a path shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory.
    Directory,
    /// Anything else; made as an empty file.
    File,
}

/// The new root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// Number of the root's file system, if it says.
    device: Option<u64>,
}

/// Type of what a descriptor refers to.
pub(super) fn file_type(fd: impl AsFd) -> Result<SFlag, Errno> {
    Ok(type_of(&fstat(fd)?))
}

/// Type of what was looked at.
pub(super) fn type_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// `/a/./b/../c` → `/a/c`, lexically: what a mount's destination is called.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

impl<'a> Tree<'a> {
    /// The tree below `root`, the descriptor of a mount's root.
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        let device = fstat(root).ok().map(|stat| stat.st_dev);
        Tree { root, device }
    }

    /// Whether a file is of the root's own file system, not of one mounted over a part of it.
    pub(super) fn holds(&self, file: &FileStat) -> bool {
        self.device == Some(file.st_dev)
    }

    /// Opens `path` (O_PATH), symlinks resolved in the tree.
    pub(super) fn open(self, path: &Path) -> Result<OwnedFd, Errno> {
        self.resolve(path, OFlag::O_PATH, ResolveFlag::empty())
    }

    /// Opens `path` (O_PATH); a symlink anywhere in it is `ELOOP`.
    pub(super) fn open_plain(self, path: &Path) -> Result<OwnedFd, Errno> {
        self.resolve(path, OFlag::O_PATH, ResolveFlag::RESOLVE_NO_SYMLINKS)
    }

    fn resolve(self, path: &Path, flags: OFlag, more: ResolveFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | more);
        let relative = normal(path);
        let relative = relative.strip_prefix("/").unwrap_or(&relative);
        let relative = if relative.as_os_str().is_empty() {
            Path::new(".")
        } else {
            relative
        };
        for _ in 0..TRIES {
            match openat2(self.root, relative, how) {
                Err(Errno::EAGAIN) => {}
                done => return done,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Opens `path`, making what is missing of it: directories of mode 0755, and for [`Kind::File`] an
    /// empty file. With `plain` a symlink is `ELOOP`, else it is followed inside the tree, also where it dangles.
    pub(super) fn ensure(self, path: &Path, kind: Kind, plain: bool) -> Result<OwnedFd, Errno> {
        let found = if plain {
            self.open_plain(path)
        } else {
            self.open(path)
        };
        match found {
            Err(Errno::ENOENT) => self.walk(path, kind, plain),
            done => done,
        }
    }

    /// Step by step from the root, each step by the descriptor of the one before; `..` goes back
    /// on the way we came, never up by itself.
    fn walk(self, path: &Path, kind: Kind, plain: bool) -> Result<OwnedFd, Errno> {
        let root = || nix::unistd::dup(self.root);
        let mut way = vec![root()?];
        let mut todo = names(&normal(path));
        let mut links = 0;
        let mut made = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let at = way.last().ok_or(Errno::ENOENT)?;
            let how = OpenHow::new()
                .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
            let fd = match openat2(at, name.as_os_str(), how) {
                Err(Errno::ENOENT) => {
                    // Made and gone again and again: somebody is playing with us.
                    made += 1;
                    if made > TRIES {
                        return Err(Errno::EAGAIN);
                    }
                    make(at, &name, kind == Kind::File && todo.is_empty())?;
                    todo.push_front(name);
                    continue;
                }
                other => other?,
            };
            match file_type(&fd)? {
                SFlag::S_IFLNK => {
                    links += 1;
                    if plain || links > MAX_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    let target = readlinkat(&fd, "")?;
                    if Path::new(&target).is_absolute() {
                        way.truncate(1);
                    }
                    for name in names(Path::new(&target)).into_iter().rev() {
                        todo.push_front(name);
                    }
                }
                SFlag::S_IFDIR => way.push(fd),
                _ if todo.is_empty() => return Ok(fd),
                _ => return Err(Errno::ENOTDIR),
            }
        }
        way.pop().ok_or(Errno::ENOENT)
    }
}

/// Makes one name; that somebody else was faster is no error.
fn make(at: &OwnedFd, name: &OsStr, file: bool) -> Result<(), Errno> {
    let made = if file {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(at, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
    } else {
        mkdirat(at, name, Mode::from_bits_truncate(0o755))
    };
    match made {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// The components of a path, `..` kept.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn missing_parts_are_made_inside_whatever_links_say() {
        let dir = tempfile::tempdir().unwrap();
        let (root, out) = (dir.path().join("root"), dir.path().join("out"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir(&out).unwrap();
        symlink(
            "../../../../run/x/resolv.conf",
            root.join("etc/resolv.conf"),
        )
        .unwrap();
        symlink(&out, root.join("abs")).unwrap();
        symlink("../../out", root.join("rel")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let fd = fs::File::open(&root).unwrap();
        let tree = Tree::new(fd.as_fd());

        tree.ensure(Path::new("/etc/resolv.conf"), Kind::File, false)
            .unwrap();
        assert!(root.join("run/x/resolv.conf").is_file());
        tree.ensure(Path::new("/abs/new"), Kind::Directory, false)
            .unwrap();
        tree.ensure(Path::new("/rel/../../new2/../new3"), Kind::Directory, false)
            .unwrap();
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
        assert!(root.join("new3").is_dir() && !root.join("new2").exists());
        let looping = tree.ensure(Path::new("/loop/a"), Kind::File, false);
        assert_eq!(looping.unwrap_err(), Errno::ELOOP);
        let plain = tree.ensure(Path::new("/abs/x"), Kind::Directory, true);
        assert_eq!(plain.unwrap_err(), Errno::ELOOP);
        let file = tree.ensure(Path::new("/run/x/resolv.conf/y"), Kind::File, false);
        assert_eq!(file.unwrap_err(), Errno::ENOTDIR);
    }
}
