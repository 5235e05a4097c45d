//! The task tree as the host's `/proc` shows it, through a descriptor held from before the agent
//! entered the container.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::tasks::{Look, Tid, Tree};

/// The host's `/proc`.
#[derive(Debug)]
pub(super) struct Proc(OwnedFd);

impl Proc {
    /// Opens `/proc` as it is now. # Errors Those of open(2).
    pub(super) fn open() -> nix::Result<Proc> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open("/proc", flags, Mode::empty()).map(Proc)
    }

    /// The directory, for look-ups of `PID/root`, `PID/fd/N` and `self/fd/N`.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A small file beneath it.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let fd = openat(
            &self.0,
            path,
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let mut bytes = Vec::new();
        std::fs::File::from(fd)
            .take(1 << 20)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn tgid(&self, tid: Tid) -> Option<Tid> {
        let status = self.text(&format!("{tid}/status"))?;
        status
            .lines()
            .find_map(|l| l.strip_prefix("Tgid:"))?
            .trim()
            .parse()
            .ok()
    }
}

/// Parent and start time out of proc_pid_stat(5): fields 4 and 22.
fn parse_stat(stat: &str) -> Option<(Tid, u64)> {
    // The command in field 2 may hold anything, brackets and spaces included.
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((parent, start))
}

impl Tree for Proc {
    fn look(&self, tid: Tid) -> Option<Look> {
        let (parent, start) = parse_stat(&self.text(&format!("{tid}/stat"))?)?;
        Some(Look {
            start,
            tgid: self.tgid(tid)?,
            parent,
        })
    }

    fn below(&self, tid: Tid) -> Vec<Tid> {
        let Some(tgid) = self.tgid(tid) else {
            return Vec::new();
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut dir) = nix::dir::Dir::openat(
            &self.0,
            format!("{tgid}/task").as_str(),
            flags,
            Mode::empty(),
        ) else {
            return Vec::new();
        };
        let threads: Vec<Tid> = dir
            .iter()
            .flatten()
            .filter_map(|e| e.file_name().to_str().ok()?.parse().ok())
            .collect();
        let mut below: Vec<Tid> = threads.iter().copied().filter(|t| *t != tid).collect();
        for thread in threads {
            if let Some(children) = self.text(&format!("{tgid}/task/{thread}/children")) {
                below.extend(
                    children
                        .split_ascii_whitespace()
                        .filter_map(|c| c.parse::<Tid>().ok()),
                );
            }
        }
        below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_hostile_command_name() {
        let stat = "7 (a) 1 (b) S 5 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(stat), Some((5, 4242)));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_live_child_is_seen_below_this_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .unwrap();
        let proc = Proc::open().unwrap();
        let me = nix::unistd::getpid().as_raw();
        let tid = child.id().cast_signed();
        let look = proc.look(tid).unwrap();
        assert_eq!((look.tgid, look.parent), (tid, me));
        let seen = proc.below(me).contains(&tid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen);
        assert!(proc.look(tid).is_none());
    }
}
