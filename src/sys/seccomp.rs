//! Loading compiled seccomp filters, and the listener's calls (seccomp(2), seccomp_unotify(2)).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A request from a listener.
pub use libc::seccomp_notif as Request;
/// The answer to a request.
pub use libc::seccomp_notif_resp as Response;

/// `SECCOMP_IOCTL_NOTIF_RECV`: `_IOWR('!', 0, struct seccomp_notif)`.
const NOTIF_RECV: libc::c_ulong = ioctl_number(3, 0, size_of::<Request>());
/// `SECCOMP_IOCTL_NOTIF_SEND`: `_IOWR('!', 1, struct seccomp_notif_resp)`.
const NOTIF_SEND: libc::c_ulong = ioctl_number(3, 1, size_of::<Response>());
/// `SECCOMP_IOCTL_NOTIF_ID_VALID`: `_IOW('!', 2, __u64)`.
const NOTIF_ID_VALID: libc::c_ulong = ioctl_number(1, 2, size_of::<u64>());

/// Number of an ioctl of type '!' (generic encoding: x86, arm, riscv, s390).
const fn ioctl_number(direction: usize, number: usize, size: usize) -> libc::c_ulong {
    (direction << 30 | size << 16 | (b'!' as usize) << 8 | number) as libc::c_ulong
}

/// Loads a compiled filter: classic BPF, 8 bytes an instruction in the machine's byte order.
/// With `listener` the notification descriptor is returned (close-on-exec).
///
/// # Errors
/// `EACCES`: neither no_new_privs nor CAP_SYS_ADMIN; `EINVAL`: not a valid filter; `EBUSY`: there is a listener.
pub fn load(bpf: &[u8], flags: libc::c_ulong, listener: bool) -> io::Result<Option<OwnedFd>> {
    let (instructions, rest) = bpf.as_chunks::<8>();
    let count = u16::try_from(instructions.len()).ok().filter(|n| *n > 0);
    let (Some(len), true) = (count, rest.is_empty()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let mut program: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|i| libc::sock_filter {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        })
        .collect();
    let header = libc::sock_fprog {
        len,
        filter: program.as_mut_ptr(),
    };
    let mut flags = flags;
    if listener {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    }
    // SAFETY: the header points to `len` instructions, both outlive the call.
    let r = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const header,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: with NEW_LISTENER the result is a new descriptor, ours alone.
    Ok(listener.then(|| unsafe { OwnedFd::from_raw_fd(r as RawFd) }))
}

/// Waits for the next request.
///
/// # Errors
/// `ENOENT`: the caller died meanwhile, ask again; `EINTR`.
pub fn receive(listener: impl AsFd) -> io::Result<Request> {
    // SAFETY: plain integers, which the kernel wants zeroed.
    let mut request: Request = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one seccomp_notif to the pointer.
    let r = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            NOTIF_RECV as _,
            &raw mut request,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(request)
}

/// Answers a request.
///
/// # Errors
/// `ENOENT`: the caller is gone.
pub fn respond(listener: impl AsFd, mut response: Response) -> io::Result<()> {
    // SAFETY: the kernel reads one seccomp_notif_resp from the pointer.
    let r = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            NOTIF_SEND as _,
            &raw mut response,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the request is still waiting: what was read of its process's memory since it came belongs to it.
#[must_use]
pub fn is_pending(listener: impl AsFd, id: u64) -> bool {
    // SAFETY: the kernel reads one u64 from the pointer.
    let r = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            NOTIF_ID_VALID as _,
            &raw const id,
        )
    };
    r == 0
}
