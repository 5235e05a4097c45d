//! Extended attributes by path: setxattr(2), getxattr(2). Symlinks of `/proc/*/fd` are followed.
#![allow(unsafe_code)]

use std::ffi::CStr;

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
