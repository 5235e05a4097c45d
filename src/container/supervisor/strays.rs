//! Processes that outlive the first one of a container whose PID namespace is another's or the host's: the kernel ends
//! them with that namespace only. The container's control group ends them all; where there is none, or for those that have left
//! it, they are told by the container's mount namespace, which nobody else is in.

use std::path::PathBuf;

use nix::unistd::Pid;

use crate::sys::supervise::{pidfd_kill, pidfd_open};

/// How often to look again: who was just killed may have forked before.
const ROUNDS: u32 = 50;

/// Where they are.
#[derive(Debug)]
pub(super) struct Strays(PathBuf);

impl Strays {
    /// Those beside `init`, which lives; `None`: it cannot be told where it is.
    pub(super) fn of(init: Pid) -> Option<Strays> {
        namespace(init).map(Strays)
    }

    /// Kills them. Costs one look at /proc when there are none.
    pub(super) fn end(&self) {
        for _ in 0..ROUNDS {
            let mut found = false;
            for pid in pids() {
                // Held first, so that it is the same process that is looked at and killed.
                let Ok(pidfd) = pidfd_open(pid) else {
                    continue;
                };
                if namespace(pid).as_ref() == Some(&self.0) {
                    found |= pidfd_kill(&pidfd, libc::SIGKILL).is_ok();
                }
            }
            if !found {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

/// The mount namespace of a process that has not ended.
fn namespace(pid: Pid) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

fn pids() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| Some(Pid::from_raw(e.file_name().to_str()?.parse().ok()?)))
}
