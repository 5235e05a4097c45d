//! fork(2) and pidfds, for the supervisor and for ending what a dead one left.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::unistd::Pid;

pub use super::process::threads;

/// Forks: `None` in the child, the child's PID in the parent.
///
/// # Errors
/// `EDEADLK` when this process has several threads (the child would hold their locks for ever);
/// `EAGAIN`, `ENOMEM`: no process left.
pub fn fork() -> io::Result<Option<Pid>> {
    if threads()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    // SAFETY: with a single thread the child is a full copy of a consistent process.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(pid))),
    }
}

/// A pidfd of the process `pid`.
///
/// # Errors
/// `ESRCH`: there is no such process.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call without pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor (close-on-exec) and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the process of a pidfd.
///
/// # Errors
/// `ESRCH`: it has been reaped; `EPERM`: it is not ours.
pub fn pidfd_kill(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: a null siginfo is allowed and means what kill(2) would send.
    let r = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if r == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives `signal` its default action, as the kernel's for a fresh process.
///
/// # Errors
/// `EINVAL`: no such signal.
pub fn default_signal(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_DFL runs no code of ours.
    let r = unsafe { libc::signal(signal, libc::SIG_DFL) };
    if r == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes a connection from a listening socket, close-on-exec and non-blocking.
///
/// # Errors
/// `EAGAIN`: nobody is waiting.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the peer's address is not asked for, so both pointers may be null.
    let fd = unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor from 3 on that would survive an exec: what the caller of this program
/// leaked into it. Descriptors of this program are all close-on-exec and stay.
///
/// # Errors
/// `/proc` is not readable.
pub fn close_leaked() -> io::Result<()> {
    let mut leaked = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        // SAFETY: F_GETFD only reads a flag of a descriptor number.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if fd > 2 && flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            leaked.push(fd);
        }
    }
    for fd in leaked {
        // SAFETY: it is not close-on-exec, so it is none that this program opened and owns.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
