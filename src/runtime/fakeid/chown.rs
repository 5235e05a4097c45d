//! The chown(2) family: the task's path becomes a file in hand, its true owner an attribute of it.
//!
//! Paths are resolved as the task would: from its root, its working directory or its descriptor, with
//! the agent's own root moved to the task's (chroot(2)) when that differs. The file is held
//! by an `O_PATH` descriptor, so what is checked is what is changed.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{chroot, fchdir};

use super::creds::Creds;
use super::proc::Proc;
use super::tasks::Tid;
use crate::sys::xattr;

/// What to change: `None` leaves the id as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// Which file a call names.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// Descriptor that a relative path starts from, `AT_FDCWD` or the file itself (empty path).
    pub(super) dirfd: i32,
    /// The path as the task gave it; empty: the descriptor itself.
    pub(super) path: &'a OsStr,
    /// Whether a symlink at the end is followed.
    pub(super) follow: bool,
}

/// The root directory that the agent is in, to know when a task has another.
#[derive(Debug)]
pub(super) struct Roots {
    current: (u64, u64),
}

impl Roots {
    /// The agent's root as it is. # Errors Those of stat(2).
    pub(super) fn new() -> nix::Result<Roots> {
        let st = nix::sys::stat::stat("/")?;
        Ok(Roots {
            current: (st.st_dev, st.st_ino),
        })
    }

    /// Moves the agent into the task's root and its working directory back to `/proc`.
    fn enter(&mut self, proc: &Proc, tid: Tid) -> Result<(), Errno> {
        let root = open(proc, &format!("{tid}/root"), OFlag::O_DIRECTORY)?;
        let st = fstat(&root)?;
        let wanted = (st.st_dev, st.st_ino);
        if wanted != self.current {
            fchdir(&root)?;
            chroot(".")?;
            fchdir(proc.dir())?;
            self.current = wanted;
        }
        Ok(())
    }
}

/// Opens what the task names. # Errors Those of path resolution, and `EBADF`.
pub(super) fn open_target(
    proc: &Proc,
    roots: &mut Roots,
    tid: Tid,
    target: &Target<'_>,
) -> Result<OwnedFd, Errno> {
    let from = if target.dirfd == libc::AT_FDCWD {
        format!("{tid}/cwd")
    } else {
        format!("{tid}/fd/{}", target.dirfd)
    };
    let bad_fd = |e| if e == Errno::ENOENT { Errno::EBADF } else { e };
    if target.path.is_empty() {
        return open(proc, &from, OFlag::empty()).map_err(bad_fd);
    }
    roots.enter(proc, tid)?;
    let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    flags.set(OFlag::O_NOFOLLOW, !target.follow);
    if target.path.as_bytes()[0] == b'/' {
        return openat(AT_FDCWD, target.path, flags, Mode::empty());
    }
    let base = open(proc, &from, OFlag::O_DIRECTORY).map_err(bad_fd)?;
    openat(&base, target.path, flags, Mode::empty())
}

/// Changes the owner of an open file for a task with these credentials.
///
/// Files that keep no true owner (volumes, tmpfs, proc) accept what the task may do and forget it.
/// # Errors `EPERM`, `EROFS`, `EIO` and other failures of the file system itself.
pub(super) fn change(file: &OwnedFd, creds: &Creds, owner: Owner) -> Result<(), Errno> {
    let path = CString::new(format!("self/fd/{}", file.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    let name = CString::new(super::OWNER_XATTR).map_err(|_| Errno::EINVAL)?;
    let mut buffer = [0u8; 32];
    let current = match xattr::get(&path, &name, &mut buffer) {
        Ok(value) => parse_owner(value).ok_or(Errno::EIO)?,
        Err(_) => {
            // Nothing is kept here: the owner is whom stat shows, the single mapped id.
            let st = fstat(file)?;
            return creds.may_chown((st.st_uid, st.st_gid), owner.uid, owner.gid);
        }
    };
    creds.may_chown(current, owner.uid, owner.gid)?;
    let (uid, gid) = (
        owner.uid.unwrap_or(current.0),
        owner.gid.unwrap_or(current.1),
    );
    xattr::set(&path, &name, format!("{uid}:{gid}").as_bytes())
}

/// Decodes `uid:gid`.
fn parse_owner(value: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// Flags of fchownat(2): whether a final symlink is followed, and whether an empty path is allowed.
/// # Errors `EINVAL` for flags it does not have.
pub(super) fn at_flags(bits: u64) -> Result<(bool, bool), Errno> {
    let bits = i32::try_from(bits).map_err(|_| Errno::EINVAL)?;
    let flags = AtFlags::from_bits(bits).ok_or(Errno::EINVAL)?;
    let known = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    if !known.contains(flags) {
        return Err(Errno::EINVAL);
    }
    let follow = !flags.contains(AtFlags::AT_SYMLINK_NOFOLLOW);
    Ok((follow, flags.contains(AtFlags::AT_EMPTY_PATH)))
}

fn open(proc: &Proc, path: &str, more: OFlag) -> Result<OwnedFd, Errno> {
    openat(
        proc.dir(),
        path,
        OFlag::O_PATH | OFlag::O_CLOEXEC | more,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_flags_are_decoded_strictly() {
        assert_eq!(parse_owner(b"33:4294967294"), Some((33, 4_294_967_294)));
        assert_eq!(parse_owner(b"33"), None);
        assert_eq!(parse_owner(b"-1:0"), None);
        assert_eq!(at_flags(0x100), Ok((false, false)));
        assert_eq!(at_flags(0x1000), Ok((true, true)));
        assert_eq!(at_flags(0x200), Err(Errno::EINVAL));
        assert_eq!(at_flags(1 << 40), Err(Errno::EINVAL));
    }

    #[test]
    fn a_tasks_path_is_found_from_its_own_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .current_dir(&dir)
            .spawn()
            .unwrap();
        let proc = Proc::open().unwrap();
        let mut roots = Roots::new().unwrap();
        let mut open = |path: &str, follow| {
            let target = Target {
                dirfd: libc::AT_FDCWD,
                path: OsStr::new(path),
                follow,
            };
            let fd = open_target(&proc, &mut roots, child.id().cast_signed(), &target)?;
            fstat(&fd).map(|s| s.st_mode & libc::S_IFMT)
        };
        let seen = (open("l", true), open("l", false), open("none", true));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            seen,
            (Ok(libc::S_IFREG), Ok(libc::S_IFLNK), Err(Errno::ENOENT))
        );
    }
}
