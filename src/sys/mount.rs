//! The mount API by descriptors: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2).
//!
//! A mount is made detached, gets its attributes while nobody can see it, and is then put upon a
//! directory that is held open: no path is looked up twice.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
};

const SET_FLAG: u32 = 0;
const SET_STRING: u32 = 1;
const CMD_CREATE: u32 = 6;

/// A file system that is being configured (fsopen(2)).
#[derive(Debug)]
pub struct Context {
    fd: OwnedFd,
}

impl Context {
    /// Starts a new instance of the file system `kind`.
    ///
    /// # Errors
    /// `ENODEV`: the kernel does not have it.
    pub fn open(kind: &str) -> io::Result<Context> {
        let kind = cstring(kind)?;
        // SAFETY: a valid C string; the result is checked and ours alone.
        let fd = unsafe { owned(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1)) }?;
        Ok(Context { fd })
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// `EINVAL` with the file system's own words if it gives any.
    pub fn set(&self, key: &str, value: impl AsRef<OsStr>) -> io::Result<()> {
        let value = cstring(value)?;
        self.configure(SET_STRING, Some(&cstring(key)?), Some(&value))
    }

    /// Sets the flag `key`.
    ///
    /// # Errors
    /// As [`Context::set`].
    pub fn flag(&self, key: &str) -> io::Result<()> {
        self.configure(SET_FLAG, Some(&cstring(key)?), None)
    }

    /// Makes the file system and a detached mount of it with `attributes` (`MOUNT_ATTR_*`).
    ///
    /// # Errors
    /// As [`Context::set`]; `EPERM`: not allowed in this user namespace.
    pub fn mount(self, attributes: u64) -> io::Result<OwnedFd> {
        self.configure(CMD_CREATE, None, None)?;
        // SAFETY: a live descriptor and integers; FSMOUNT_CLOEXEC is 1.
        let r = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.fd.as_raw_fd(),
                1,
                attributes as libc::c_uint,
            )
        };
        owned(r).map_err(|e| self.explain(e))
    }

    /// One fsconfig(2) call.
    fn configure(&self, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
        let pointer = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: pointers are null or C strings that outlive the call, as each command demands.
        let r = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                command,
                pointer(key),
                pointer(value),
                0,
            )
        };
        check(r).map_err(|e| self.explain(e))
    }

    /// Adds what the kernel wrote to the context's log, if it did.
    fn explain(&self, error: io::Error) -> io::Error {
        let Ok(copy) = self.fd.try_clone() else {
            return error;
        };
        let mut file = std::fs::File::from(copy);
        let mut buffer = [0; 512];
        match file.read(&mut buffer) {
            Ok(n) if n > 2 => {
                let text = String::from_utf8_lossy(&buffer[2..n]);
                io::Error::new(error.kind(), Explained(error, text.trim().to_owned()))
            }
            _ => error,
        }
    }
}

/// An errno with the kernel's words.
#[derive(Debug, thiserror::Error)]
#[error("{1}: {0}")]
struct Explained(#[source] io::Error, String);

/// errno of an error that may carry the kernel's words.
#[must_use]
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<Explained>()?;
        inner.0.raw_os_error()
    })
}

/// A detached copy of the mount at `path` below `dir` (open_tree(2) with OPEN_TREE_CLONE), with the
/// mounts on it if `recursive`. An empty path is `dir` itself.
///
/// # Errors
/// `EINVAL`: not recursive, though mounts that hide something lie on it, or not of this mount namespace.
pub fn clone_tree(dir: impl AsFd, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    if path.as_os_str().is_empty() {
        flags |= libc::AT_EMPTY_PATH as u32;
    }
    let path = cstring(path)?;
    // SAFETY: a live descriptor, a valid C string, an integer; the result is checked and ours alone.
    owned(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
        )
    })
}

/// The same for an absolute path or one below the working directory.
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_tree_at(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree(CWD, path, recursive)
}

/// A detached copy of the one mount that `path` lies on, with `path` itself as its root: a symbolic link is copied
/// as what it is.
///
/// # Errors
/// As [`clone_tree`].
pub fn clone_file_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_SYMLINK_NOFOLLOW as u32;
    let path = cstring(path)?;
    // SAFETY: a valid C string and integers; the result is checked and ours alone.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// The working directory for `*at` calls.
pub const CWD: BorrowedFd<'static> =
    // SAFETY: AT_FDCWD is what the kernel takes for "no descriptor"; it cannot be closed.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };

/// Puts the detached mount `tree` upon what `target` is (move_mount(2), both by descriptor).
///
/// # Errors
/// `ENOTDIR`: one is a directory and the other is not; `ENOENT`: the target has been removed.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: live descriptors and empty C strings.
    let r = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    check(r)
}

/// Changes a mount's attributes and propagation (mount_setattr(2)); with `recursive` those of the mounts on it too.
///
/// # Errors
/// `EPERM`: an attribute is locked by the user namespace the mount comes from.
pub fn set_attributes(
    mount: impl AsFd,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: 0,
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: a live descriptor, an empty C string, and a struct whose size is given.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(r)
}

/// A C string of a path, key or value.
fn cstring(text: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// A new descriptor returned by a system call.
fn owned(r: libc::c_long) -> io::Result<OwnedFd> {
    check(r)?;
    // SAFETY: called with the result of a call that returns a new descriptor, ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(r as RawFd) })
}

/// A system call's result: negative means errno.
fn check(r: libc::c_long) -> io::Result<()> {
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
