//! The directories that a host lower is made of: one, shown as it is, or several *stacked* as overlayfs stacks
//! its lower directories.
//!
//! In a stack an earlier directory lies over the later ones. What is not a directory hides everything of its
//! name below it; directories of one name are merged, unless the upper one is opaque. Whiteouts and opaque
//! marks are those of overlayfs (character device 0:0; attribute `trusted.overlay.opaque`,
//! `user.overlay.opaque` or `user.fuseoverlayfs.opaque` with the value `y`) and those of fuse-overlayfs
//! where it cannot make devices (`.wh.NAME`; `.wh..wh..opq` in the directory).
//!
//! Which directories a merged one is made of is found once, at its look-up: a look-up in it then asks those only.

use crate::cow::meta::{Res, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, dtype, errno};
use crate::error::Result;
use crate::sys::fuse as sysfuse;
use anyhow::Context;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, fstat, fstatat};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{HOLLOW_BIT, HostName, from_host, hollow};

/// When an inode was made, where the file system says that: another one of the same number was at another time.
pub(super) type Born = Option<SystemTime>;

/// Places of the directories, in order, that an inode is found in; of what is no directory the first only.
pub(super) type Places = Box<[u16]>;

/// Names of fuse-overlayfs's whiteouts begin so.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_FILE: &[u8] = b".wh..wh..opq";
const OPAQUE: [&[u8]; 3] = [
    b"user.overlay.opaque",
    b"trusted.overlay.opaque",
    b"user.fuseoverlayfs.opaque",
];

struct Root {
    fd: OwnedFd,
    /// Hidden paths, relative.
    hide: Vec<PathBuf>,
    /// Told apart by this: inode numbers of different file systems.
    salt: u64,
    device: u64,
}

impl Root {
    /// Within one mount there may be inodes of several devices that have the same number: subvolumes of btrfs, layers of
    /// overlayfs.
    fn number(&self, device: u64, ino: u64) -> u64 {
        let part = match device == self.device {
            true => 0,
            false => super::hash(&device.to_le_bytes()) & (HOLLOW_BIT - 1),
        };
        from_host(ino ^ self.salt ^ part)
    }
}

/// The directories, uppermost first.
pub(super) struct Layers {
    roots: Vec<Root>,
    stacked: bool,
}

/// What a path leads to.
pub(super) struct Found {
    pub ino: u64,
    /// Mode of an inode that is made up (a submount, a hidden path).
    pub hollow: Option<u32>,
    pub places: Places,
    /// It may have several names.
    pub linked: bool,
    pub born: Born,
}

/// What one directory has at a path.
enum Seen {
    Nothing,
    /// A whiteout, or what is not shown (a device, a socket).
    End,
    Node {
        ino: u64,
        dir: bool,
        opaque: bool,
        linked: bool,
        born: Born,
    },
    Hollow(u32),
}

fn how(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        )
}

fn os(path: &[u8]) -> &OsStr {
    if path.is_empty() {
        OsStr::new(".")
    } else {
        OsStr::from_bytes(path)
    }
}

/// `dir/name`, relative to a root.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

impl Layers {
    /// Opens the directories; `hide` are absolute paths shown as empty directories.
    ///
    /// # Errors
    /// One of them cannot be opened, or there are too many.
    pub(super) fn open(roots: &[PathBuf], hide: &[PathBuf], stacked: bool) -> Result<Layers> {
        let hide: Vec<PathBuf> = hide
            .iter()
            .map(|p| p.canonicalize().unwrap_or_else(|_| p.clone()))
            .collect();
        let mut devices = Vec::new();
        let mut opened = Vec::with_capacity(roots.len());
        for root in roots {
            opened.push(
                Self::open_root(root, &hide, &mut devices)
                    .with_context(|| format!("opening root directory {}", root.display()))?,
            );
        }
        u16::try_from(opened.len()).context("too many directories")?;
        Ok(Layers {
            roots: opened,
            stacked,
        })
    }

    fn open_root(root: &Path, hide: &[PathBuf], devices: &mut Vec<u64>) -> Result<Root> {
        let real = root.canonicalize()?;
        let fd = nix::fcntl::open(
            &real,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )?;
        let device = fstat(&fd)?.st_dev;
        let known = devices.iter().position(|d| *d == device);
        let salt = known.unwrap_or_else(|| {
            devices.push(device);
            devices.len() - 1
        });
        Ok(Root {
            fd,
            hide: hide
                .iter()
                .filter_map(|p| p.strip_prefix(&real).map(Path::to_owned).ok())
                .collect(),
            salt: (salt as u64) << 48,
            device,
        })
    }

    /// Places of the root directory.
    pub(super) fn all(&self) -> Places {
        let count = u16::try_from(self.roots.len()).unwrap_or(u16::MAX);
        (0..count).collect()
    }

    /// Overlayfs's marks are not part of what is shown.
    pub(super) fn is_mark(&self, xattr: &[u8]) -> bool {
        self.stacked
            && [&b"user.overlay."[..], b"user.fuseoverlayfs."]
                .iter()
                .any(|p| xattr.starts_with(p))
    }

    fn root(&self, place: u16) -> Res<&Root> {
        self.roots.get(usize::from(place)).ok_or(Errno::EIO)
    }

    /// Opens `path` in the first of its places. Where a directory on the way to it, or itself, has become a symbolic link or a
    /// mount point since it was found, it is gone: `ESTALE`.
    pub(super) fn open_path(&self, places: &[u16], path: &[u8], flags: OFlag) -> Res<OwnedFd> {
        let place = places.first().ok_or(Errno::ENOENT)?;
        openat2(&self.root(*place)?.fd, os(path), how(flags)).map_err(|e| match e {
            Errno::ELOOP | Errno::EXDEV => Errno::ESTALE,
            e => e,
        })
    }

    /// The number of what was found in the first of `places`.
    pub(super) fn number(&self, places: &[u16], st: &FileStat) -> u64 {
        let root = places.first().and_then(|p| self.root(*p).ok());
        root.map_or(0, |r| r.number(st.st_dev, st.st_ino))
    }

    /// Whether `path` leads to the inode that was found.
    pub(super) fn is_at(&self, places: &[u16], path: &[u8], found: &Found) -> bool {
        let seen = || -> Res<bool> {
            let fd = File::from(self.open_path(places, path, OFlag::O_PATH)?);
            let st = fd.metadata().map_err(|e| errno(&e))?;
            let place = *places.first().ok_or(Errno::ENOENT)?;
            let number = self.root(place)?.number(st.dev(), st.ino());
            Ok(number == found.ino && st.created().ok() == found.born)
        };
        seen().unwrap_or(false)
    }

    /// What `name` of the directory at `dir` is, which is found in `places`.
    pub(super) fn find(&self, places: &[u16], dir: &[u8], name: &[u8]) -> Res<Option<Found>> {
        if self.stacked && name.starts_with(WHITEOUT) {
            return Ok(None);
        }
        let path = join(dir, name);
        let mut found: Option<Found> = None;
        let mut merged = Vec::new();
        for place in places {
            let mut first = Found {
                ino: 0,
                hollow: None,
                places: Places::default(),
                linked: false,
                born: None,
            };
            let goes_on = match self.look(*place, dir, name, &path)? {
                Seen::Nothing => continue,
                Seen::End => break,
                Seen::Hollow(_) if found.is_some() => break,
                Seen::Hollow(mode) => {
                    (first.ino, first.hollow) = (hollow(&path), Some(mode));
                    false
                }
                Seen::Node { dir: false, .. } if found.is_some() => break,
                Seen::Node {
                    ino,
                    dir,
                    opaque,
                    linked,
                    born,
                } => {
                    (first.ino, first.linked, first.born) = (ino, linked, born);
                    dir && !opaque
                }
            };
            found.get_or_insert(first);
            merged.push(*place);
            if !goes_on {
                break;
            }
        }
        Ok(found.map(|first| Found {
            places: merged.into(),
            ..first
        }))
    }

    /// What a whole path leads to.
    pub(super) fn resolve(&self, path: &[u8]) -> Res<Option<Found>> {
        let mut at = Vec::new();
        let mut found = None;
        let mut places = self.all();
        for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
            let Some(next) = self.find(&places, &at, name)? else {
                return Ok(None);
            };
            at = join(&at, name);
            places = next.places.clone();
            found = Some(next);
        }
        Ok(found)
    }

    fn look(&self, place: u16, dir: &[u8], name: &[u8], path: &[u8]) -> Res<Seen> {
        let root = self.root(place)?;
        if root.hide.iter().any(|h| h.as_os_str().as_bytes() == path) {
            return Ok(Seen::Hollow(S_IFDIR | 0o755));
        }
        match openat2(&root.fd, os(path), how(OFlag::O_PATH)) {
            Ok(fd) => {
                let fd = File::from(fd);
                let st = fd.metadata().map_err(|e| errno(&e))?;
                let kind = st.mode() & S_IFMT;
                if !matches!(kind, S_IFREG | S_IFDIR | S_IFLNK | S_IFIFO) {
                    return Ok(Seen::End);
                }
                let is_dir = kind == S_IFDIR;
                Ok(Seen::Node {
                    ino: root.number(st.dev(), st.ino()),
                    dir: is_dir,
                    opaque: !self.stacked || (is_dir && self.opaque(root, fd.as_fd(), path)),
                    linked: !is_dir && st.nlink() > 1,
                    born: st.created().ok(),
                })
            }
            Err(Errno::EXDEV) => {
                // Only the kind of what is mounted there is looked at; of what lies in a mount nothing.
                let Ok(above) = openat2(&root.fd, os(dir), how(OFlag::O_PATH)) else {
                    return Ok(Seen::Nothing);
                };
                let st = fstatat(&above, os(name), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                Ok(Seen::Hollow(match st.st_mode & S_IFMT {
                    S_IFDIR => S_IFDIR | 0o755,
                    _ => S_IFREG | 0o644,
                }))
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                if self.stacked && self.has(root, dir, &[WHITEOUT, name].concat()) {
                    return Ok(Seen::End);
                }
                Ok(Seen::Nothing)
            }
            Err(e) => Err(e),
        }
    }

    fn has(&self, root: &Root, dir: &[u8], name: &[u8]) -> bool {
        openat2(&root.fd, os(&join(dir, name)), how(OFlag::O_PATH)).is_ok()
    }

    fn opaque(&self, root: &Root, fd: BorrowedFd<'_>, path: &[u8]) -> bool {
        OPAQUE
            .iter()
            .any(|name| sysfuse::get_xattr(fd, name).is_ok_and(|v| v == b"y"))
            || self.has(root, path, OPAQUE_FILE)
    }

    /// The names of a directory; sorted where the directory is put together.
    pub(super) fn list(&self, places: &[u16], dir: &[u8]) -> Res<Vec<HostName>> {
        let mut out = Vec::new();
        let mut hidden: HashSet<Box<[u8]>> = HashSet::new();
        for place in places {
            let mut here = Vec::new();
            let fd = self.open_path(&[*place], dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            let device = fstat(&fd)?.st_dev;
            let listing = fd.try_clone().map_err(|e| errno(&e))?;
            for item in Dir::from_fd(listing)?.iter() {
                let item = item?;
                let name = item.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                if self.stacked && name.starts_with(WHITEOUT) {
                    here.push(name[WHITEOUT.len()..].into());
                    continue;
                }
                let Some(kind) = kind(&fd, &item, name) else {
                    continue;
                };
                let shown = matches!(
                    kind,
                    libc::DT_REG | libc::DT_DIR | libc::DT_LNK | libc::DT_FIFO
                );
                if shown && !hidden.contains(name) {
                    out.push(HostName {
                        ino: self.root(*place)?.number(device, item.ino()),
                        name: name.into(),
                        kind,
                        gone: false,
                    });
                }
                if places.len() > 1 {
                    here.push(name.into());
                }
            }
            hidden.extend(here);
        }
        if self.stacked {
            out.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(out)
    }
}

/// `DT_*` of a directory's entry; `None` when it has just gone.
fn kind(dir: &OwnedFd, item: &nix::dir::Entry, name: &[u8]) -> Option<u8> {
    if let Some(known) = item.file_type() {
        return Some(sysfuse::dtype_of(known));
    }
    let st = fstatat(dir, OsStr::from_bytes(name), AtFlags::AT_SYMLINK_NOFOLLOW);
    st.ok().map(|st| dtype(st.st_mode))
}
