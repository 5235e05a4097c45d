//! The last steps before exec, the same for a container's init and for a process that joins it: descriptors,
//! limits, user, working directory, filter.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchown, getcwd, setresgid, setresuid};
use oci_spec::runtime::Process;

use super::control::{self, Tag};
use super::credentials::Credentials;
use super::idmap::{IdRange, Mapping};
use super::process;
use super::seccomp::Filters;
use crate::error::{Fault, Kind, Result, ResultExt, failed};
use crate::sys::file::{close_on_exec_from, duplicate_from, number_from_zero};
use crate::sys::process::{exit_now, join_new_session_keyring, set_controlling_terminal};
use crate::sys::seccomp;

/// Closes this process's /proc/PID to everyone but the host's root.
pub(super) fn close_process() -> Result<()> {
    prctl::set_dumpable(false).context("closing the process to others")
}

/// Leaves the caller's keys behind.
pub(super) fn leave_keyring() -> Result<()> {
    match join_new_session_keyring() {
        // No keyrings in this kernel, or forbidden when nested: then there is none to inherit either.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::EDQUOT) => Err(anyhow::Error::new(e).context(
            failed("joining a new session keyring")
                .hint("raise the sysctl kernel.keys.maxkeys, or stop other containers"),
        )),
        other => other.context("joining a new session keyring"),
    }
}

/// Takes the container's uid and gid 0, or else the first that is mapped; returns them.
pub(super) fn become_root(mapping: &Mapping) -> Result<(u32, u32)> {
    let first = |lines: &[IdRange]| {
        lines
            .iter()
            .map(|l| l.container)
            .min()
            .ok_or_else(|| failed("no id is mapped"))
    };
    let (uid, gid) = (first(&mapping.uids)?, first(&mapping.gids)?);
    let (u, g) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(g, g, g).with_context(|| format!("becoming gid {gid} of the container"))?;
    setresuid(u, u, u).with_context(|| format!("becoming uid {uid} of the container"))?;
    Ok((uid, gid))
}

/// What the process will have open: a terminal's slave or three streams (`None`: the caller's own), and more from 3 on.
#[derive(Debug)]
pub(super) struct Open<'a> {
    pub(super) pty: Option<OwnedFd>,
    pub(super) stdio: Option<&'a [OwnedFd; 3]>,
    pub(super) extra: &'a [OwnedFd],
}

/// The last part of the way to exec.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) process: &'a Process,
    pub(super) credentials: &'a Credentials,
    pub(super) filters: &'a Filters,
}

impl Launch<'_> {
    /// Descriptors 0, 1, 2 and those to be passed on, and nothing else across exec.
    pub(super) fn number_descriptors(&self, control: &mut OwnedFd, open: Open<'_>) -> Result<()> {
        let first_free = 3 + open.extra.len();
        // Out of the way of the numbers to be filled.
        *control =
            duplicate_from(&*control, first_free as i32).context("moving the control socket")?;
        let copy = |fd: &dyn AsFdDyn| fd.copy().context("copying a descriptor");
        let mut list = Vec::with_capacity(first_free);
        match (&open.pty, open.stdio) {
            (Some(slave), _) => {
                for _ in 0..3 {
                    list.push(copy(slave)?);
                }
            }
            (None, Some(given)) => {
                for fd in given {
                    list.push(copy(fd)?);
                }
            }
            (None, None) => {
                list.push(copy(&std::io::stdin())?);
                list.push(copy(&std::io::stdout())?);
                list.push(copy(&std::io::stderr())?);
            }
        }
        let terminal = open.pty.is_some();
        drop(open.pty);
        for fd in open.extra {
            list.push(copy(fd)?);
        }
        if !terminal {
            self.give_pipes(&list[..3]);
        }
        number_from_zero(list).context("numbering descriptors")?;
        if terminal {
            set_controlling_terminal(std::io::stdin())
                .context("making the pty the controlling terminal")?;
        }
        close_on_exec_from(first_free as u32).context("marking descriptors close-on-exec")
    }

    /// Pipes given as stdio belong to the container's user, so that it can open /dev/stdout.
    fn give_pipes(&self, stdio: &[OwnedFd]) {
        use nix::sys::statfs::{FsType, fstatfs};
        const PIPEFS: FsType = FsType(0x5049_5045);
        let user = self.process.user();
        for fd in stdio {
            if fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == PIPEFS) {
                // Not possible for a pipe of an id that is not mapped: the container can still use the descriptor.
                let _ = fchown(
                    fd,
                    Some(Uid::from_raw(user.uid())),
                    Some(Gid::from_raw(user.gid())),
                );
            }
        }
    }

    /// Mask, limits, ids.
    pub(super) fn become_user(&self, control: &OwnedFd) -> Result<()> {
        umask(Mode::from_bits_truncate(
            self.process.user().umask().unwrap_or(0o022),
        ));
        process::set_rlimits(self.process.rlimits().as_deref().unwrap_or_default())?;
        self.credentials.become_user(!self.filters.is_empty())?;
        exit_if_orphaned(control)
    }

    /// Loads the filters and drops what that needed. After this only exec and its report follow. The listener is sent
    /// with `text`.
    pub(super) fn confine(
        &self,
        control: &OwnedFd,
        with_listener: bool,
        text: &[u8],
    ) -> Result<()> {
        let mut listener = None;
        for filter in &self.filters.programs {
            if filter.listener && !with_listener {
                continue;
            }
            let loaded = seccomp::load(&filter.bpf, self.filters.flags, filter.listener)
                .context("loading the seccomp filter")?;
            listener = loaded.or(listener);
        }
        if let Some(listener) = listener {
            control::send_text(control, Tag::Listener, Some(listener.as_fd()), text)
                .context("sending the seccomp listener")?;
        }
        // After the listener is out: a filter may want to be told of capset(2) itself.
        self.credentials.seal()?;
        Ok(())
    }
}

/// The supervisor may have died before the parent-death signal was set.
pub(super) fn exit_if_orphaned(control: &OwnedFd) -> Result<()> {
    let mut fds = [PollFd::new(control.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).context("looking for the supervisor")?;
    if fds[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLHUP))
    {
        exit_now(Kind::Failed.exit_code().into());
    }
    Ok(())
}

/// Enters the process's working directory as the user; refuses what is not inside the container.
pub(super) fn enter_directory(process: &Process) -> Result<()> {
    use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
    let cwd = process.cwd();
    let act = || format!("entering the working directory {}", cwd.display());
    let refused = |text: String| Fault::new(Kind::NotExecutable, text); // podman's code
    if !cwd.is_absolute() {
        return Err(refused(format!("{}: not an absolute path", act())).into());
    }
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let fd = openat2(AT_FDCWD, cwd, how).fault(|| refused(act()))?;
    nix::unistd::fchdir(&fd).fault(|| refused(act()))?;
    // The kernel says "(unreachable)…" for a directory outside of our root.
    let now = getcwd().with_context(act)?;
    if !now.is_absolute() {
        return Err(refused(format!("{}: it is outside of the container", act())).into());
    }
    Ok(())
}

/// `AsFd` for a list of different things.
trait AsFdDyn {
    fn copy(&self) -> std::io::Result<OwnedFd>;
}

impl<T: AsFd> AsFdDyn for T {
    fn copy(&self) -> std::io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }
}
