//! `tmpcopyup`: what the image has at a place is copied into the tmpfs, or the empty volume, that covers it.
//!
//! Everything goes through descriptors of the two trees, links are never followed, and what is
//! copied is bounded by the tmpfs's own size. Owners, modes, times and links are kept; xattrs and sockets are not.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstatat, futimens, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use crate::error::{Result, failed};

/// Directories nested deeper than this are an error, not a stack overflow.
const MAX_DEPTH: usize = 256;

/// Copies what is in the directory `from` into the directory `to`, and its owner and mode.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let stat = nix::sys::stat::fstat(from)?;
    let target = directory(to, c".")?;
    fchown(
        &target,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    fchmod(&target, mode(&stat))?;
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
fn directory(at: impl AsFd, name: &CStr) -> Result<OwnedFd, nix::errno::Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

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
    let atime = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let mtime = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    // A volume may be another container's too, and we still see the host: what was made is changed by its descriptor,
    // never by a name that may lead elsewhere by now.
    let made: OwnedFd = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::S_IRWXU)?;
            let target = directory(to, name)?;
            directory_contents(&directory(from, name)?, &target, depth + 1)?;
            target
        }
        SFlag::S_IFREG => {
            let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let create = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let mut source = File::from(openat(from, name, read, Mode::empty())?);
            let mut target = File::from(openat(to, name, create, Mode::S_IRWXU)?);
            std::io::copy(&mut source, &mut target)?;
            target.into()
        }
        kind @ (SFlag::S_IFLNK | SFlag::S_IFIFO) => {
            match kind {
                SFlag::S_IFLNK => symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?,
                // The umask is empty.
                _ => mknodat(to, name, SFlag::S_IFIFO, mode(&stat), 0)?,
            }
            fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            utimensat(to, name, &atime, &mtime, UtimensatFlags::NoFollowSymlink)?;
            return Ok(());
        }
        _ => return Ok(()),
    };
    fchown(&made, Some(uid), Some(gid))?;
    // After the owner: chown takes set-id bits away.
    fchmod(&made, mode(&stat))?;
    futimens(&made, &atime, &mtime)?;
    Ok(())
}
