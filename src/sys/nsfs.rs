//! Questions to a namespace's descriptor (ioctl_ns(2)). Also part of `rless-idmap`: libc only.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `NS_GET_PARENT`: `_IO(0xb7, 2)`.
const NS_GET_PARENT: libc::c_ulong = 0xb702;
/// `NS_GET_OWNER_UID`: `_IO(0xb7, 4)`.
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// The parent of a user or PID namespace.
///
/// # Errors
/// `EPERM`: it is none of our namespace's descendants.
pub fn parent(namespace: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: NS_GET_PARENT takes nothing and returns a new descriptor, ours alone.
    unsafe {
        let fd = libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_PARENT as _);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The uid, in our user namespace, of who made the user namespace.
///
/// # Errors
/// Not a user namespace.
pub fn owner(namespace: impl AsFd) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: NS_GET_OWNER_UID writes one uid_t to the pointer.
    let r = unsafe {
        libc::ioctl(
            namespace.as_fd().as_raw_fd(),
            NS_GET_OWNER_UID as _,
            &raw mut uid,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(uid)
}
