//! Extended attributes, by path (symlinks of `/proc/*/fd` are followed) and by descriptor.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Sets `name` of the file at `path`. # Errors Those of setxattr(2).
pub fn set(path: &CStr, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: both strings end with NUL and `value` is readable for its length.
    let done = unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// Reads `name` of the file at `path` into `value` and gives the part filled.
/// # Errors Those of getxattr(2): `ERANGE` if it does not fit.
pub fn get<'a>(path: &CStr, name: &CStr, value: &'a mut [u8]) -> nix::Result<&'a [u8]> {
    // SAFETY: both strings end with NUL and `value` is writable for its length.
    let got = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    let len = usize::try_from(Errno::result(got)?).unwrap_or(0);
    Ok(&value[..len.min(value.len())])
}

/// Most bytes of a value, and of a list of names (xattr(7)).
const MOST: usize = 64 << 10;

/// Sets `name` of what `fd` is open on (not `O_PATH`). # Errors Those of fsetxattr(2).
pub fn fset(fd: impl AsFd, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: the string ends with NUL and `value` is readable for its length.
    let done = unsafe {
        libc::fsetxattr(
            fd.as_fd().as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    Errno::result(done).map(drop)
}

/// Reads `name` of what `fd` is open on (not `O_PATH`). # Errors Those of fgetxattr(2).
pub fn fget(fd: impl AsFd, name: &CStr) -> nix::Result<Vec<u8>> {
    let mut value = vec![0; MOST];
    // SAFETY: the string ends with NUL and `value` is writable for its length.
    let got = unsafe {
        libc::fgetxattr(
            fd.as_fd().as_raw_fd(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(Errno::result(got)?).unwrap_or(0));
    Ok(value)
}

/// The names, each ended by a NUL, of what `fd` is open on (not `O_PATH`). # Errors Those of flistxattr(2).
pub fn flist(fd: impl AsFd) -> nix::Result<Vec<u8>> {
    let mut names = vec![0; MOST];
    // SAFETY: `names` is writable for its length.
    let got = unsafe {
        libc::flistxattr(
            fd.as_fd().as_raw_fd(),
            names.as_mut_ptr().cast(),
            names.len(),
        )
    };
    names.truncate(usize::try_from(Errno::result(got)?).unwrap_or(0));
    Ok(names)
}
