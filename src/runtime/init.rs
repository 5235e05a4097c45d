//! The container's init: from clone3 to exec. Everything here runs in the child.
//!
//! | step | as whom | needs |
//! |---|---|---|
//! | [`Child::before_maps`]: session, keyring, names, labels, bind sources | the caller, unmapped, all capabilities in the new namespaces | nothing |
//! | *begin* | | maps written, cgroup joined |
//! | [`Child::build`]: cgroup namespace, root file system, pivot_root | the container's root | FUSE served from the first look-up on |
//! | stdio, *release* | | |
//! | [`Child::execute`]: user, limits, working directory, search, filter, exec | the container's user | |
//!
//! A failure of any step is one message on the control socket. From *begin* on the process is not
//! dumpable: its /proc/PID belongs to the host's root, so no process of the container reaches its memory,
//! descriptors or binary. With [`Plan::wait_release`] that is so from the *release* on: until then
//! pasta opens its namespaces through /proc/PID, and the container has no process yet.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchown, getcwd, sethostname, setresgid, setresuid, setsid};
use oci_spec::runtime::Process;

use super::control::{self, Tag};
use super::credentials::Credentials;
use super::exec::{Command, FileId, own_binary};
use super::idmap::IdRange;
use super::namespaces::Namespaces;
use super::rootfs::{self, Site, Sources};
use super::seccomp::Filters;
use super::{Plan, process, reaper};
use crate::error::{Fault, Kind, Result, ResultExt, failed};
use crate::sys::file::{close_all_but, close_on_exec_from, duplicate_from, number_from_zero};
use crate::sys::process::{
    Cloned, block_signals, clone3, exit_now, hide_arguments, join_new_session_keyring,
    reset_signals, set_controlling_terminal, set_domain_name,
};
use crate::sys::seccomp;

/// What the parent has prepared before clone3.
#[derive(Debug)]
pub(super) struct Prepared {
    pub process: Process,
    pub namespaces: Namespaces,
    pub credentials: Credentials,
    pub filters: Filters,
}

/// The child side of [`super::spawn`].
struct Child<'a> {
    plan: &'a Plan,
    prepared: &'a Prepared,
    control: OwnedFd,
}

/// Runs init; `control` is its end of the socket.
pub(super) fn run(plan: &Plan, prepared: &Prepared, control: OwnedFd) -> ! {
    let mut child = Child {
        plan,
        prepared,
        control,
    };
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| child.run()));
    let error = match ran {
        Ok(Err(error)) => error,
        Ok(Ok(never)) => match never {},
        Err(_) => failed("init panicked").into(),
    };
    // If the supervisor is gone nobody is left to be told.
    let _ = control::send_failure(&child.control, &error);
    exit_now(crate::error::kind(&error).exit_code().into())
}

/// Closes this process's /proc/PID to everyone but the host's root.
fn close_process() -> Result<()> {
    prctl::set_dumpable(false).context("closing the process to others")
}

impl Child<'_> {
    fn run(&mut self) -> Result<Infallible> {
        let own = own_binary();
        let sources = self.before_maps()?;
        self.await_message(Tag::Begin)?;
        let pty = self.build(sources)?;
        self.number_descriptors(pty)?;
        if self.plan.wait_release {
            control::send(&self.control, Tag::Ready, None).context("reporting")?;
            self.await_message(Tag::Release)?;
            close_process()?;
        }
        self.execute(own)
    }

    /// Waits for the supervisor. If it has gone, so do we.
    fn await_message(&self, tag: Tag) -> Result<()> {
        match control::receive(&self.control)? {
            Some(message) if message.tag == tag => Ok(()),
            Some(message) => Err(failed(format!("unexpected message {:?}", message.tag)).into()),
            None => exit_now(Kind::Failed.exit_code().into()),
        }
    }

    /// What needs neither ids nor the supervisor.
    fn before_maps(&self) -> Result<Sources> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("tying the container to its supervisor")?;
        self.close_strangers()?;
        reset_signals().context("resetting signals")?;
        setsid().context("starting a session")?;
        match join_new_session_keyring() {
            // No keyrings in this kernel, or forbidden when nested: then there is none to inherit either.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
            Err(e) if e.raw_os_error() == Some(libc::EDQUOT) => {
                return Err(anyhow::Error::new(e).context(
                    failed("joining a new session keyring")
                        .hint("raise the sysctl kernel.keys.maxkeys, or stop other containers"),
                ));
            }
            other => other.context("joining a new session keyring")?,
        }
        self.set_names()?;
        process::set_oom_score(&self.prepared.process)?;
        process::set_labels(&self.prepared.process)?;
        Sources::open(self.plan)
    }

    /// Closes what init has no use for: the supervisor's locks and sockets are not ours to hold.
    fn close_strangers(&self) -> Result<()> {
        let mut keep = vec![self.control.as_raw_fd()];
        keep.extend(self.plan.stdio.iter().flatten().map(AsRawFd::as_raw_fd));
        keep.extend(self.plan.extra_fds.iter().map(AsRawFd::as_raw_fd));
        keep.extend(
            self.prepared
                .namespaces
                .descriptors()
                .map(AsRawFd::as_raw_fd),
        );
        close_all_but(3, &keep).context("closing inherited descriptors")
    }

    /// Host and domain name.
    fn set_names(&self) -> Result<()> {
        if !self.prepared.namespaces.owns(CloneFlags::CLONE_NEWUTS) {
            return Ok(());
        }
        if let Some(name) = self.plan.spec.hostname() {
            sethostname(name).with_context(|| format!("setting the host name {name}"))?;
        }
        if let Some(name) = self.plan.spec.domainname() {
            set_domain_name(name).with_context(|| format!("setting the domain name {name}"))?;
        }
        Ok(())
    }

    /// The root file system, as the container's root. Returns the terminal's slave.
    fn build(&self, sources: Sources) -> Result<Option<OwnedFd>> {
        self.prepared.namespaces.enter()?;
        let owner = become_root(self.plan)?;
        if self.plan.wait_release {
            // Changing ids closed it already where the container's root is not the caller (keep-id, root).
            prctl::set_dumpable(true).context("letting pasta see the process")?;
        } else {
            close_process()?;
        }
        umask(Mode::empty());
        let site = Site {
            plan: self.plan,
            namespaces: &self.prepared.namespaces,
            owner,
        };
        let built = rootfs::build(&site, sources, |fuse| {
            Ok(control::send(&self.control, Tag::Fuse, Some(fuse.as_fd()))?)
        })?;
        let Some((master, slave)) = built.pty else {
            return Ok(None);
        };
        control::send(&self.control, Tag::Pty, Some(master.as_fd())).context("sending the pty")?;
        Ok(Some(slave))
    }

    /// Descriptors 0, 1, 2 and those to be passed on, and nothing else across exec.
    fn number_descriptors(&mut self, pty: Option<OwnedFd>) -> Result<()> {
        let first_free = 3 + self.plan.extra_fds.len();
        // Out of the way of the numbers to be filled.
        self.control = duplicate_from(&self.control, first_free as i32)
            .context("moving the control socket")?;
        let copy = |fd: &dyn AsFdDyn| fd.copy().context("copying a descriptor");
        let mut list = Vec::with_capacity(first_free);
        match (&pty, &self.plan.stdio) {
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
        let terminal = pty.is_some();
        drop(pty);
        for fd in &self.plan.extra_fds {
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
        let user = self.prepared.process.user();
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

    /// The last steps, as the container's user.
    fn execute(&self, own: Option<FileId>) -> Result<Infallible> {
        umask(Mode::from_bits_truncate(
            self.prepared.process.user().umask().unwrap_or(0o022),
        ));
        process::set_rlimits(
            self.prepared
                .process
                .rlimits()
                .as_deref()
                .unwrap_or_default(),
        )?;
        let filters = &self.prepared.filters;
        self.prepared.credentials.become_user(!filters.is_empty())?;
        self.exit_if_orphaned()?;
        enter_directory(&self.prepared.process)?;
        let command = Command::find(&self.prepared.process, own)?;
        if self.plan.init {
            self.split(&command)
        } else {
            self.confine(true)?;
            Err(command.execute())
        }
    }

    /// The supervisor may have died before the parent-death signal was set.
    fn exit_if_orphaned(&self) -> Result<()> {
        let mut fds = [PollFd::new(self.control.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).context("looking for the supervisor")?;
        if fds[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLHUP))
        {
            exit_now(Kind::Failed.exit_code().into());
        }
        Ok(())
    }

    /// Loads the filters and drops what that needed. After this only exec and its report follow.
    fn confine(&self, with_listener: bool) -> Result<()> {
        let filters = &self.prepared.filters;
        let mut listener = None;
        for filter in &filters.programs {
            if filter.listener && !with_listener {
                continue;
            }
            let loaded = seccomp::load(&filter.bpf, filters.flags, filter.listener)
                .context("loading the seccomp filter")?;
            listener = loaded.or(listener);
        }
        if let Some(listener) = listener {
            control::send(&self.control, Tag::Listener, Some(listener.as_fd()))
                .context("sending the seccomp listener")?;
        }
        // After the listener is out: a filter may want to be told of capset(2) itself.
        self.prepared.credentials.seal()?;
        Ok(())
    }

    /// `--init`: the command becomes our child, we its reaper.
    fn split(&self, command: &Command) -> Result<Infallible> {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        block_signals().context("blocking signals")?;
        match clone3(0).context("forking the command")? {
            Cloned::Child => {
                foreground();
                reset_signals().context("resetting signals")?;
                self.confine(true)?;
                Err(command.execute())
            }
            Cloned::Parent { pid, pidfd } => {
                drop(pidfd);
                hide_arguments(&stat, "rless-init");
                // Only a name in ps.
                let _ = prctl::set_name(c"rless-init");
                self.confine(false)?;
                close_all_but(3, &[]).context("closing descriptors")?;
                reaper::serve(pid)
            }
        }
    }
}

/// In a terminal the command's process group is the foreground one.
fn foreground() {
    use nix::unistd::{Pid, getpid, setpgid, tcsetpgrp};
    // Not a terminal: nothing to be foreground of.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let _ = tcsetpgrp(std::io::stdin(), getpid());
}

/// Takes the container's uid and gid 0, or else the first that is mapped; returns them.
fn become_root(plan: &Plan) -> Result<(u32, u32)> {
    let first = |lines: &[IdRange]| {
        lines
            .iter()
            .map(|l| l.container)
            .min()
            .ok_or_else(|| failed("no id is mapped"))
    };
    let (uid, gid) = (first(&plan.mapping.uids)?, first(&plan.mapping.gids)?);
    let (u, g) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(g, g, g).with_context(|| format!("becoming gid {gid} of the container"))?;
    setresuid(u, u, u).with_context(|| format!("becoming uid {uid} of the container"))?;
    Ok((uid, gid))
}

/// Enters the working directory as the user; refuses what is not inside the container.
fn enter_directory(process: &Process) -> Result<()> {
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
