//! Values every room of the file system speaks: times, inode metadata, callers, errno results.
//!
//! Ids are the container's own; device numbers are in the kernel's 32-bit encoding
//! (`new_encode_dev`), which is also what FUSE carries.

use nix::errno::Errno;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// An answer of the file system: a value, or the errno the caller gets.
pub(crate) type Res<T> = Result<T, Errno>;

/// `st_mode` bits.
pub(crate) const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFDIR: u32 = 0o040_000;
pub(crate) const S_IFREG: u32 = 0o100_000;
pub(crate) const S_IFLNK: u32 = 0o120_000;
pub(crate) const S_IFCHR: u32 = 0o020_000;
pub(crate) const S_IFIFO: u32 = 0o010_000;
pub(crate) const S_ISUID: u32 = 0o4000;
pub(crate) const S_ISGID: u32 = 0o2000;
pub(crate) const S_IXGRP: u32 = 0o0010;

/// Longest name of a directory entry.
pub(crate) const NAME_MAX: usize = 255;
/// Most names an inode may have (that of ext4 with `dir_nlink` unset).
pub(crate) const LINK_MAX: u32 = 65_000;
/// Unit of copy-up and of space accounting.
pub(crate) const BLOCK: u64 = 4096;
/// Largest file, that of ext4 with 4 KiB blocks.
pub(crate) const SIZE_MAX: u64 = (1 << 44) - BLOCK;

pub(crate) use super::index::Time;

impl Time {
    /// The time now.
    pub(crate) fn now() -> Time {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(d) => Time {
                sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
                nsec: d.subsec_nanos(),
            },
            Err(_) => Time::default(),
        }
    }
}

/// Metadata of one inode; what `stat` shows but for its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
}

impl Meta {
    pub(crate) fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }
    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == S_IFDIR
    }
    pub(crate) fn is_file(&self) -> bool {
        self.kind() == S_IFREG
    }
    pub(crate) fn is_link(&self) -> bool {
        self.kind() == S_IFLNK
    }
    /// `DT_*` of directory entries.
    pub(crate) fn dtype(&self) -> u8 {
        dtype(self.mode)
    }
    pub(crate) fn touch(&mut self, now: Time) {
        self.mtime = now;
        self.ctime = now;
    }
}

/// `DT_*` for a mode.
pub(crate) fn dtype(mode: u32) -> u8 {
    ((mode & S_IFMT) >> 12) as u8
}

/// Who asks: the ids of the request, in the container's user namespace.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Caller {
    pub uid: u32,
    pub gid: u32,
}

/// `new_encode_dev` of the kernel.
pub(crate) fn encode_dev(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12)
}

/// Turns an I/O error into the errno for the caller.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    match error.raw_os_error() {
        // The server's own descriptor limit is no answer to the caller.
        Some(libc::EMFILE | libc::ENFILE) => Errno::ENOMEM,
        Some(code) => Errno::from_raw(code),
        None => Errno::EIO,
    }
}

/// A name that can be created: not empty, not `.` or `..`, at most 255 bytes, no slash.
pub(crate) fn check_name(name: &[u8]) -> Res<()> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    if name == b"." || name == b".." {
        return Err(Errno::EEXIST);
    }
    Ok(())
}

/// Locks survive a panic of another thread: every change keeps its invariants step by step.
pub(crate) fn lk<T: ?Sized>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
pub(crate) fn rd<T: ?Sized>(l: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    l.read().unwrap_or_else(PoisonError::into_inner)
}
pub(crate) fn wr<T: ?Sized>(l: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    l.write().unwrap_or_else(PoisonError::into_inner)
}
