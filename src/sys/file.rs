//! Descriptors: passing them, numbering them, letting none slip into another program.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// The text of a file of /proc, which has no size that could be asked for.
///
/// # Errors
/// It cannot be opened or read, or is no text.
pub fn read_proc(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(4096);
    // Through `take`, which does not ask for the size.
    std::fs::File::open(path)?
        .take(1 << 20)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// A connected pair of SOCK_SEQPACKET sockets, close-on-exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Sends one message, with a descriptor or without (SCM_RIGHTS). Never raises SIGPIPE.
///
/// # Errors
/// `EPIPE`: the other side is gone.
pub fn send_message(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let raw = fd.map(|f| [f.as_raw_fd()]);
    let control = raw.as_ref().map(|r| ControlMessage::ScmRights(r));
    sendmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(bytes)],
        control.as_slice(),
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Receives one message of at most `limit` bytes; `None` at the end of file. A descriptor that came
/// with it is close-on-exec; of several the first is kept.
///
/// # Errors
/// `EAGAIN` on a nonblocking socket.
pub fn receive_message(
    socket: impl AsFd,
    limit: usize,
) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut bytes = vec![0; limit];
    let mut space = cmsg_space!([RawFd; 4]);
    let (length, fds) = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        match received {
            Ok(message) => break (message.bytes, rights(message.cmsgs()?)),
            // The other side died with something of ours unread: reported once, before what it had sent.
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => {}
            Err(e) => return Err(e.into()),
        }
    };
    let fd = fds.into_iter().next();
    if length == 0 && fd.is_none() {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some((bytes, fd)))
}

/// The descriptors among control messages.
fn rights(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    messages
        .filter_map(|m| match m {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        // SAFETY: the kernel has just installed these descriptors for us alone.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect()
}

/// A descriptor that the caller of this program passed on: one that is open and not close-on-exec.
#[must_use]
pub fn standing(number: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: F_GETFD only reads a flag of a descriptor number.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // SAFETY: it is open; this program closes no descriptor that it has not opened (those are all close-on-exec).
    (flags >= 0 && flags & libc::FD_CLOEXEC == 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// A close-on-exec copy of `fd` whose number is at least `lowest`.
///
/// # Errors
/// `EMFILE`.
pub fn duplicate_from(fd: impl AsFd, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a live descriptor and an integer.
    let r = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(r) })
}

/// Makes `fds` the descriptors `0, 1, 2, …`, open across exec, whatever was there before.
///
/// # Errors
/// `EMFILE`.
pub fn number_from_zero(fds: Vec<OwnedFd>) -> io::Result<()> {
    let count = fds.len() as RawFd;
    // First all out of the way of the numbers to be filled.
    let mut high = Vec::with_capacity(fds.len());
    for fd in fds {
        // The original is closed; if its number is below `count` it would be replaced in a moment anyway.
        high.push(duplicate_from(&fd, count)?);
    }
    for (number, fd) in high.iter().enumerate() {
        // SAFETY: dup2 onto a number that this function is asked to replace.
        if unsafe { libc::dup2(fd.as_raw_fd(), number as RawFd) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2), Linux 5.11).
///
/// # Errors
/// `EINVAL`, `ENOSYS` on older kernels.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_uint)
}

/// Closes every descriptor that is neither below `first` nor in `keep`.
///
/// For a process that shares nothing with its caller any more: the descriptors' owners in this
/// address space must not be used or dropped afterwards.
///
/// # Errors
/// `ENOSYS` on kernels before 5.9.
pub fn close_all_but(first: u32, keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .filter(|fd| *fd >= first)
        .collect();
    keep.sort_unstable();
    let mut from = first;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1, 0)?;
        }
        from = from.max(fd + 1);
    }
    close_range(from, u32::MAX, 0)
}

/// close_range(2).
fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: integers. Whoever calls this has said that nobody uses these numbers again.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the file has file capabilities (xattr `security.capability`).
#[must_use]
pub fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: valid C strings; a null value of size 0 asks for the size only.
    let r = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            std::ptr::null_mut(),
            0,
        )
    };
    r > 0
}
