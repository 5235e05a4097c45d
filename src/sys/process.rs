//! Processes: clone3, pidfds, keyrings, controlling terminals, signals, exec's last steps.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

/// Which side of a [`clone3`] we are on.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The caller.
    Parent {
        /// The child's PID in the caller's PID namespace.
        pid: Pid,
        /// The child's pidfd, close-on-exec.
        pidfd: OwnedFd,
    },
}

/// Number of threads of this process.
///
/// # Errors
/// /proc is not mounted.
pub fn threads() -> io::Result<u64> {
    // Each thread is a directory of task/, and each directory a link to it.
    Ok(std::fs::metadata("/proc/self/task")?
        .nlink()
        .saturating_sub(2))
}

/// clone3(2) like fork: the child gets a copy of the memory and goes on behind this call.
/// `namespaces` are `CLONE_NEW*` flags.
///
/// # Errors
/// `EBUSY` if this process has other threads: the child would inherit their locks (malloc's
/// among them) with nobody to release them. Else those of clone3(2).
pub fn clone3(namespaces: u64) -> io::Result<Cloned> {
    single_threaded()?.clone3(namespaces)
}

/// Proof that this process has one thread. Valid as long as nobody starts another: for code between two clones.
#[derive(Debug)]
pub struct SingleThread(());

/// Looks whether this process has one thread only.
///
/// # Errors
/// `EBUSY`: it has more; /proc is not mounted.
pub fn single_threaded() -> io::Result<SingleThread> {
    match threads()? {
        1 => Ok(SingleThread(())),
        _ => Err(io::Error::from_raw_os_error(libc::EBUSY)),
    }
}

impl SingleThread {
    /// As [`clone3`]; the new process becomes a child of our own parent (CLONE_PARENT). It works where /proc does not
    /// show this process any more.
    ///
    /// # Errors
    /// Those of clone3(2).
    pub fn clone_sibling(&self, namespaces: u64) -> io::Result<Cloned> {
        self.clone3(namespaces | libc::CLONE_PARENT as u64)
    }

    fn clone3(&self, flags: u64) -> io::Result<Cloned> {
        clone_alone(flags)
    }
}

/// clone3(2) for a process that is known to have one thread.
fn clone_alone(flags: u64) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which zero is valid ("not given").
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // A sibling's is ours, which clone3 wants left out.
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    // SAFETY: without CLONE_VM and a stack this is fork; no other thread exists (`SingleThread`), so the child's copy
    // of every lock is in a consistent state. `args` and `pidfd` outlive the call.
    let r = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    match r {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => Ok(Cloned::Parent {
            pid: Pid::from_raw(pid as i32),
            // SAFETY: the kernel has just stored a new descriptor there, ours alone.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once: no destructors, no atexit handlers. For the child side of [`clone3`].
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// A pidfd for `pid`, close-on-exec.
///
/// # Errors
/// `ESRCH`: no such process.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; the result is checked and owned by nobody else.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Sends `signal` to the process of `pidfd`; `None` only asks whether it is still there.
///
/// # Errors
/// `ESRCH`: it has been reaped.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: Option<Signal>) -> io::Result<()> {
    pidfd_send_raw(pidfd, signal.map_or(0, |s| s as i32))
}

/// [`pidfd_send_signal`] with any number, real-time signals included.
///
/// # Errors
/// As [`pidfd_send_signal`]; `EINVAL` for a number that is no signal.
pub fn pidfd_send_raw(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: a live descriptor, an integer, and a null siginfo as the call allows.
    let r = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(r).map(drop)
}

/// kill(2) with any signal number, real-time signals included.
///
/// # Errors
/// Those of kill(2).
pub fn kill_raw(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::kill(pid.as_raw(), signal) }.into()).map(drop)
}

/// Joins a new, anonymous session keyring (keyctl(2)): the caller's keys are out of reach.
///
/// # Errors
/// `ENOSYS`: no keyrings in this kernel; `EDQUOT`: the user's key quota is used up.
pub fn join_new_session_keyring() -> io::Result<()> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING takes a name or null.
    let r = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    check(r).map(drop)
}

/// Makes `terminal` the controlling terminal of this session (ioctl_tty(2), TIOCSCTTY).
///
/// # Errors
/// `EPERM`: not a session leader, or it has one.
pub fn set_controlling_terminal(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer: 0, do not steal.
    let r = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(r.into()).map(drop)
}

/// The other end of a pty master, without any path look-up (TIOCGPTPEER). Close-on-exec, not controlling.
///
/// # Errors
/// `EIO`: the slave is locked; those of open(2).
pub fn pty_peer(master: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor, ours alone.
    unsafe {
        let fd = libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Unlocks the slave of a pty master (TIOCSPTLCK).
///
/// # Errors
/// Not a master.
pub fn unlock_pty(master: impl AsFd) -> io::Result<()> {
    let off: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int from the pointer, which is valid.
    let r = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const off) };
    check(r.into()).map(drop)
}

/// Every signal back to its default action and none blocked, as exec'ed programs expect.
///
/// # Errors
/// Does not fail for valid signals; those that cannot be changed are skipped.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is always a valid action; KILL, STOP and libc's own signals are refused, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    libcs_own_signals();
    unblock_signals()
}

/// Gives the two signals that libc keeps for itself, and refuses, their default action: a caller may have ignored them.
fn libcs_own_signals() {
    for signal in [32, 33] {
        // The kernel's `struct sigaction`: handler (0: SIG_DFL), flags, restorer, mask.
        let default: [u64; 4] = [0; 4];
        // SAFETY: a pointer to that structure; no handler of ours is set, and this process is about to execute another.
        unsafe {
            let none = std::ptr::null_mut::<libc::c_void>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                none,
                8usize,
            );
        }
    }
}

fn unblock_signals() -> io::Result<()> {
    // SAFETY: an initialised set on our stack.
    let r = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    check(r.into()).map(drop)
}

/// As [`reset_signals`], asking the kernel first which signals anything was done about: most are at their default.
/// Only where /proc is the host's.
///
/// # Errors
/// As [`reset_signals`].
pub fn reset_changed_signals() -> io::Result<()> {
    let Some(changed) = changed_signals() else {
        return reset_signals();
    };
    for signal in (1..=libc::SIGRTMAX()).filter(|s| changed & (1 << (s - 1)) != 0) {
        // SAFETY: as in `reset_signals`.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    if changed & (3 << 31) != 0 {
        libcs_own_signals();
    }
    unblock_signals()
}

/// The signals that this process ignores or handles, one bit each, signal 1 the lowest.
fn changed_signals() -> Option<u64> {
    let status = super::file::read_proc("/proc/self/status").ok()?;
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    Some(set("SigIgn:")? | set("SigCgt:")?)
}

/// Blocks every signal, for a process that takes them with [`wait_signal`].
///
/// # Errors
/// Does not fail.
pub fn block_signals() -> io::Result<()> {
    // SAFETY: an initialised set on our stack.
    let r = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut())
    };
    check(r.into()).map(drop)
}

/// `set` and the real-time signals, for which [`SigSet`] has no names.
#[must_use]
pub fn with_real_time(set: SigSet) -> SigSet {
    let mut set: libc::sigset_t = *set.as_ref();
    for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: an initialised set on our stack; a number that is no signal is an error and nothing else.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: it is initialised, and for signals without a name only the iterator has no answer: it passes them over.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// Waits for any signal (all blocked before, see [`block_signals`]) and returns its number.
///
/// # Errors
/// `EINTR`.
pub fn wait_signal() -> io::Result<i32> {
    // SAFETY: an initialised set on our stack; a null siginfo is allowed.
    let r = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigwaitinfo(&raw const all, std::ptr::null_mut())
    };
    check(r.into()).map(|n| n as i32)
}

/// Overwrites this process's command line, as /proc shows it to everybody, with `title` (words end with a zero), as far as
/// there is room; and its environment with zeros, if that is to go, too: then it must not be used any more, as
/// in a child that never returns to its caller.
///
/// `stat` is the text of its /proc/self/stat.
pub fn hide_arguments(stat: &str, title: &str, environment: bool) {
    // After the command's closing parenthesis come fields 3 and up; 48..=51 are the bounds.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return;
    };
    let field = |n: usize| {
        rest.split_ascii_whitespace()
            .nth(n - 3)
            .and_then(|v| v.parse::<usize>().ok())
            .unwrap_or(0)
    };
    let parts_to_go = if environment { 2 } else { 1 };
    let parts = [(field(48), field(49), title), (field(50), field(51), "")];
    for (start, end, text) in parts.into_iter().take(parts_to_go) {
        if start == 0 || end <= start {
            continue;
        }
        let keep = text.len().min(end - start - 1);
        // SAFETY: the kernel says that its argument and environment strings lie there, on this process's own, writable
        // stack; nothing of ours reads them again (documented above), and the last byte stays zero.
        unsafe {
            std::ptr::write_bytes(start as *mut u8, 0, end - start);
            std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, keep);
        }
    }
}

/// A system call's result: negative means errno.
fn check(r: libc::c_long) -> io::Result<libc::c_long> {
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(r)
    }
}

/// Sets the NIS domain name of this UTS namespace (setdomainname(2)).
///
/// # Errors
/// `EINVAL`: too long.
pub fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: a pointer to that many bytes.
    let r = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check(r.into()).map(drop)
}
