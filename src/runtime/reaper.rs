//! `--init`: PID 1 is this loop, the command its child.
//!
//! It passes every signal on, reaps every orphan, and ends with the command's status (128+n for
//! signal n). It is our own forked process, not a program of the image or the host: it holds no descriptor but 0 to 2, has the
//! container's capabilities and filter, and cannot be traced or read (not dumpable).

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys::process::{exit_now, kill_raw, wait_signal};

/// Serves as PID 1 until `command` ends. All signals are blocked.
pub(super) fn serve(command: Pid) -> ! {
    loop {
        if let Some(code) = reap(command) {
            exit_now(code);
        }
        match wait_signal() {
            Ok(libc::SIGCHLD) | Err(_) => {}
            // Job control of PID 1 itself: not the command's business.
            Ok(libc::SIGTTIN | libc::SIGTTOU) => {}
            Ok(signal) => {
                // It may have ended just now: then the next turn sees it.
                let _ = kill_raw(command, signal);
            }
        }
    }
}

/// Reaps all that has ended; the command's exit code if it was among them.
fn reap(command: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        let ended = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => (pid, status),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) => return code,
            Err(Errno::EINTR) | Ok(_) => continue,
            // Not even the command is left: nothing to wait for.
            Err(_) => return code.or(Some(255)),
        };
        if ended.0 == command {
            code = Some(ended.1);
        }
    }
}
