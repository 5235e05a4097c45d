//! Children that must not outlive their parent.
//!
//! Two mechanisms, because neither holds alone. `PR_SET_PDEATHSIG` is cleared when the executed
//! program gets an AppArmor profile of its own (a secure execution, as pasta's is on Debian and
//! Ubuntu). A leash is a pipe whose reading end is the child's standard input, set to send SIGKILL
//! to the child when it becomes readable (fcntl(2), `F_SETSIG`); nothing is ever written to it, so
//! that is when its last writing end is closed: when the parent is gone.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Keeps children alive; dropping it kills them.
#[derive(Debug)]
pub(crate) struct Leash {
    _writer: OwnedFd,
}

/// A leash and the standard input to give to the child.
pub(crate) fn leash() -> io::Result<(Leash, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((Leash { _writer: writer }, reader))
}

/// Makes the child of `command`, whose standard input is of [`leash`], be killed when the leash is
/// dropped or the calling thread ends, however it ends.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: the closure runs between fork and exec and makes only system calls (prctl, getppid,
    // fcntl), all async-signal-safe; it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            pull(libc::STDIN_FILENO)?;
            // The parent may have gone before the calls above; then nothing would be sent.
            if nix::unistd::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}

/// Has SIGKILL sent to this process when the pipe at `fd` is written to or closed at its other end.
fn pull(fd: libc::c_int) -> io::Result<()> {
    let check = |result: libc::c_int| match result {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    };
    // SAFETY: fcntl with integer arguments touches no memory of ours; a bad descriptor is EBADF.
    unsafe {
        check(libc::fcntl(fd, libc::F_SETOWN, libc::getpid()))?;
        check(libc::fcntl(fd, F_SETSIG, libc::SIGKILL))?;
        let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
        check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_ASYNC))?;
    }
    Ok(())
}

/// Missing from the libc crate; asm-generic/fcntl.h, which every architecture we build for uses.
const F_SETSIG: libc::c_int = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn a_child_dies_when_its_leash_is_let_go() {
        let (leash, stdin) = leash().expect("leash");
        let mut command = Command::new("sleep");
        command.arg("60").stdin(stdin);
        die_with_parent(&mut command);
        let mut child = command.spawn().expect("spawn");
        // Let go of the command too: it holds the reading end.
        drop(command);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(
            child.try_wait().expect("wait").is_none(),
            "it lives as long as the leash"
        );
        drop(leash);
        assert_eq!(child.wait().expect("wait").signal(), Some(9));
    }
}
