//! `tmpcopyup`: what the image has at a place is copied into the tmpfs, or the empty volume, that covers it.
//!
//! Everything goes through descriptors of the two trees, links are never followed, and what is
//! copied into a tmpfs is bounded by its size. Owners, modes, times and links are kept; xattrs and sockets are not.
//!
//! Every file appears whole, by a rename, and a name that is there is kept: a copy that was cut short is ended by another.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};

use crate::error::{Result, failed};

/// Directories nested deeper than this are an error, not a stack overflow.
const MAX_DEPTH: usize = 256;

/// Copies what is in the directory `from` into the directory `to`, and its owner and mode.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let target = directory(to, c".")?;
    // Before the first file is there: the rest of a copy that was cut short changes nothing else.
    if is_empty(to)? {
        let stat = nix::sys::stat::fstat(from)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchown(&target, Some(uid), Some(gid))?;
        fchmod(&target, mode(&stat))?;
    }
    directory_contents(&directory(from, c".")?, &target, 0)
}

/// Nothing is in the directory.
pub(super) fn is_empty(dir: &OwnedFd) -> Result<bool> {
    let mut listing = Dir::from_fd(directory(dir, c".")?)?;
    for entry in listing.iter() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens a directory for reading, not through a link.
pub(super) fn directory(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Name of a file that is not whole yet; there is one at a time.
const UNFINISHED: &CStr = c".rless-copying";

/// Permission bits.
fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode)
}

fn directory_contents(from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(failed("directories are nested too deeply").into());
    }
    let mut listing = Dir::from_fd(from.try_clone()?)?;
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        one(from, to, name, depth).with_context(|| format!("copying {name:?}"))?;
    }
    Ok(())
}

fn one(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    if kind == SFlag::S_IFDIR {
        return subdirectory(from, to, name, &stat, depth);
    }
    if !matches!(kind, SFlag::S_IFREG | SFlag::S_IFLNK | SFlag::S_IFIFO) {
        return Ok(());
    }
    match fstatat(to, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => {}
        // Of the copy that was cut short, or somebody's who put it there since.
        found => return Ok(found.map(drop)?),
    }
    match unlinkat(to, UNFINISHED, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    // A volume may be another container's too, and we still see the host: what was made is changed by its descriptor,
    // never by a name that may lead elsewhere by now.
    if kind == SFlag::S_IFREG {
        let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mut source = File::from(openat(from, name, read, Mode::empty())?);
        let mut target = File::from(openat(to, UNFINISHED, create, Mode::S_IRWXU)?);
        std::io::copy(&mut source, &mut target)?;
        dress(&target, &stat)?;
    } else {
        match kind {
            SFlag::S_IFLNK => symlinkat(readlinkat(from, name)?.as_os_str(), to, UNFINISHED)?,
            // The umask is empty.
            _ => mknodat(to, UNFINISHED, SFlag::S_IFIFO, mode(&stat), 0)?,
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let no_link = AtFlags::AT_SYMLINK_NOFOLLOW;
        fchownat(to, UNFINISHED, Some(uid), Some(gid), no_link)?;
        let (atime, mtime) = times(&stat);
        let no_link = UtimensatFlags::NoFollowSymlink;
        utimensat(to, UNFINISHED, &atime, &mtime, no_link)?;
    }
    Ok(renameat(to, UNFINISHED, to, name)?)
}

fn subdirectory(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &CStr,
    stat: &FileStat,
    depth: usize,
) -> Result<()> {
    let made = match mkdirat(to, name, Mode::S_IRWXU) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(e) => return Err(e.into()),
    };
    let target = match directory(to, name) {
        // Somebody put something else there since.
        Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        opened => opened?,
    };
    directory_contents(&directory(from, name)?, &target, depth + 1)?;
    // One of a copy that was cut short is as it was made; one that is not may have been changed since.
    let there = nix::sys::stat::fstat(&target)?;
    let bare = (there.st_uid, there.st_gid) == (0, 0) && mode(&there) == Mode::S_IRWXU;
    if made || bare {
        dress(&target, stat)?;
    }
    Ok(())
}

/// Gives what was made the owner, mode and times of what it is a copy of.
fn dress(made: impl AsFd, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(&made, Some(uid), Some(gid))?;
    // After the owner: chown takes set-id bits away.
    fchmod(&made, mode(stat))?;
    let (atime, mtime) = times(stat);
    Ok(futimens(&made, &atime, &mtime)?)
}

fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (
        TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
        TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
    )
}
