//! This host and this boot, and processes told apart by their start times.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::record::Process;
use crate::sys::file::read_proc;
use crate::sys::supervise;

/// The running boot's id.
#[must_use]
pub fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| read("/proc/sys/kernel/random/boot_id"))
}

/// This host's id: machine id and host name, since stateless cluster nodes may share the first.
#[must_use]
pub fn id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let machine = read("/etc/machine-id");
        let name = nix::unistd::gethostname().unwrap_or_default();
        format!("{machine} {}", name.to_string_lossy())
    })
}

fn read(path: &str) -> String {
    read_proc(path).unwrap_or_default().trim().to_owned()
}

/// The process `pid` with its start time; `None` when there is no such process.
#[must_use]
pub fn process(pid: Pid) -> Option<Process> {
    let stat = read_proc(format!("/proc/{pid}/stat")).ok()?;
    Some(Process {
        pid: pid.as_raw(),
        start: start_time(&stat)?,
    })
}

/// Field 22 of `/proc/PID/stat`; the second field is a name that may hold anything.
fn start_time(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Kills `process` if it is still that process, and waits until it has gone (two seconds at most).
pub fn kill_process(target: Process) {
    let pid = Pid::from_raw(target.pid);
    let Ok(pidfd) = supervise::pidfd_open(pid) else {
        return;
    };
    // The pidfd is held: if the start time agrees now, it is of the same process.
    if process(pid) != Some(target) || supervise::pidfd_kill(&pidfd, libc::SIGKILL).is_err() {
        return;
    }
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::from(2000u16));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 1 2 3";
        assert_eq!(start_time(stat), Some(987));
        assert_eq!(start_time("12 (x"), None);
    }

    #[test]
    fn own_process_has_a_start_time() {
        assert!(process(Pid::this()).is_some_and(|p| p.start > 0));
    }

    #[test]
    fn a_process_with_another_start_time_is_spared() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let real = process(pid).unwrap();
        kill_process(Process {
            start: real.start + 1,
            ..real
        });
        assert!(child.try_wait().unwrap().is_none());
        kill_process(real);
        assert!(child.wait().unwrap().code().is_none());
    }
}
