//! Children that must not outlive their parent.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Makes the child of `command` be killed when the calling thread ends, however it ends.
///
/// The signal is lost if the child changes its ids or executes a file with capabilities
/// (prctl(2), `PR_SET_PDEATHSIG`), so whoever relies on it tests it with the program in question.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: the closure runs between fork and exec and makes two system calls through nix
    // (prctl, getppid), both async-signal-safe; it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            // The parent may have gone before the call above; then nobody would send the signal.
            if nix::unistd::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
}
