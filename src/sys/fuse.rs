//! What the file system needs beyond std and nix: extended attributes by descriptor, one
//! more channel of a FUSE connection, and answers out of files.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The one name in the root directory of a FUSE connection: the directory that the file system's root is.
/// `cow` serves it, whoever mounts shows it as `/`; why is told in `cow::mount`.
pub const ROOT_ENTRY: &str = "root";

mod ioctl {
    // FUSE_DEV_IOC_CLONE, <linux/fuse.h>.
    nix::ioctl_read!(fuse_dev_ioc_clone, 229, 0, u32);
}

/// Opens `/dev/fuse` once more on the connection of `fuse`, so that two threads do not share a
/// queue of answers.
///
/// # Errors
/// `EINVAL` on kernels that refuse it for a connection of another user namespace, and as opening
/// the device fails.
pub fn clone_channel(fuse: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let new: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")?;
    let mut source = u32::try_from(fuse.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    // SAFETY: both descriptors are open for the whole call, and the ioctl reads one u32.
    unsafe { ioctl::fuse_dev_ioc_clone(new.as_raw_fd(), &raw mut source) }?;
    Ok(new.into())
}

/// A pipe that answers go through whose body is in a file: its pages are copied once, into the kernel's answer.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// Makes one for a body of `bytes` bytes that begin a page.
    ///
    /// # Errors
    /// As pipe2(2); `EPERM` where the user has too much in pipes already.
    pub fn new(bytes: usize) -> io::Result<Pipe> {
        let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let (read, write) = nix::unistd::pipe2(flags)?;
        // One page more: the header's.
        let size = libc::c_int::try_from(bytes + 4096).map_err(|_| Errno::EINVAL)?;
        nix::fcntl::fcntl(&write, FcntlArg::F_SETPIPE_SZ(size))?;
        Ok(Pipe { read, write })
    }

    /// Sends `head` and the `len` bytes of `file` from `at` on to `channel` as one answer. After an error the pipe is not
    /// to be used any more.
    ///
    /// # Errors
    /// The file has fewer bytes, or as splice(2): nothing was sent.
    pub fn send(
        &self,
        head: &[u8],
        (file, at, len): (&File, u64, usize),
        channel: &File,
    ) -> io::Result<()> {
        let mut n = nix::unistd::write(&self.write, head)?;
        let mut at = libc::loff_t::try_from(at).map_err(|_| Errno::EINVAL)?;
        while n < head.len() + len {
            let left = head.len() + len - n;
            match splice(file, Some(&mut at), self.write.as_fd(), left)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => n += more,
            }
        }
        match splice(self.read.as_fd(), None, channel, n)? {
            sent if sent == n => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// splice(2) of at most `len` bytes. Does not wait for the pipe.
fn splice(
    from: impl AsFd,
    at: Option<&mut libc::loff_t>,
    to: impl AsFd,
    len: usize,
) -> Result<usize, Errno> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let at = at.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    let none = std::ptr::null_mut();
    // SAFETY: both descriptors are open for the whole call; the offset is null or one that is ours alone.
    let n = unsafe { libc::splice(from, at, to, none, len, libc::SPLICE_F_NONBLOCK) };
    Errno::result(n).map(isize::unsigned_abs)
}

/// `/proc/self/fd/N` of a descriptor: reaches the inode of an `O_PATH` descriptor too.
fn proc_path(fd: BorrowedFd<'_>) -> Result<CString, Errno> {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(|_| Errno::EINVAL)
}

/// Calls `get` with growing buffers until what it reports fits.
fn grown(mut get: impl FnMut(*mut libc::c_void, usize) -> isize) -> Result<Vec<u8>, Errno> {
    let mut size = 256;
    loop {
        let mut buf = vec![0u8; size];
        let n = get(buf.as_mut_ptr().cast(), buf.len());
        match Errno::result(n) {
            Ok(n) => {
                buf.truncate(usize::try_from(n).unwrap_or(0));
                return Ok(buf);
            }
            Err(Errno::ERANGE) if size < 1 << 17 => size *= 8,
            Err(e) => return Err(e),
        }
    }
}

/// An extended attribute of what `fd` (possibly `O_PATH`) is open on.
///
/// # Errors
/// As getxattr(2).
pub fn get_xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let path = proc_path(fd)?;
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    grown(|buf, len| {
        // SAFETY: both strings end in NUL and live on; `buf` has `len` writable bytes.
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buf, len) }
    })
}

/// Names of the extended attributes of what `fd` is open on, each ended by a NUL.
///
/// # Errors
/// As listxattr(2).
pub fn list_xattr(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let path = proc_path(fd)?;
    grown(|buf, len| {
        // SAFETY: the string ends in NUL and lives on; `buf` has `len` writable bytes.
        unsafe { libc::listxattr(path.as_ptr(), buf.cast(), len) }
    })
}

/// `DT_*` of a directory entry's type.
#[must_use]
pub fn dtype_of(kind: nix::dir::Type) -> u8 {
    match kind {
        nix::dir::Type::Fifo => libc::DT_FIFO,
        nix::dir::Type::CharacterDevice => libc::DT_CHR,
        nix::dir::Type::Directory => libc::DT_DIR,
        nix::dir::Type::BlockDevice => libc::DT_BLK,
        nix::dir::Type::File => libc::DT_REG,
        nix::dir::Type::Symlink => libc::DT_LNK,
        nix::dir::Type::Socket => libc::DT_SOCK,
    }
}
