//! The container's init: from clone3 to exec. Everything here runs in the child.
//!
//! | step | as whom | needs |
//! |---|---|---|
//! | [`Child::before_maps`]: session, keyring, names, labels, bind sources | the caller, unmapped, all capabilities in the new namespaces | nothing |
//! | *begin* | | maps written, cgroup joined |
//! | [`Child::build`]: cgroup namespace, root file system, pivot_root | the container's root | FUSE served from the first look-up on |
//! | stdio, *release* | | |
//! | [`Launch`]: user, limits, working directory, search, filter, exec | the container's user | |
//!
//! A failure of any step is one message on the control socket. From *begin* on the process is not
//! dumpable: its /proc/PID belongs to the host's root, so no process of the container reaches its memory,
//! descriptors or binary. With [`Plan::wait_release`] that is so from the *release* on: until then
//! pasta opens its namespaces through /proc/PID, and the container has no process yet.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::Context;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{sethostname, setsid};
use oci_spec::runtime::Process;

use super::control::{self, Tag};
use super::credentials::Credentials;
use super::exec::{Command, FileId, own_binary};
use super::launch::{self, Launch, Open, become_root, close_process, enter_directory};
use super::namespaces::Namespaces;
use super::rootfs::{self, Site, Sources};
use super::seccomp::Filters;
use super::{Plan, process, reaper};
use crate::error::{Kind, Result, failed};
use crate::sys::file::close_all_but;
use crate::sys::process::{
    Cloned, block_signals, clone3, exit_now, hide_arguments, reset_changed_signals, reset_signals,
    set_domain_name,
};

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

impl<'a> Child<'a> {
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
        reset_changed_signals().context("resetting signals")?;
        setsid().context("starting a session")?;
        launch::leave_keyring()?;
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
        keep.extend(self.plan.shm.iter().map(AsRawFd::as_raw_fd));
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
        let owner = become_root(&self.plan.mapping)?;
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

    fn launch(&self) -> Launch<'a> {
        Launch {
            process: &self.prepared.process,
            credentials: &self.prepared.credentials,
            filters: &self.prepared.filters,
        }
    }

    fn number_descriptors(&mut self, pty: Option<OwnedFd>) -> Result<()> {
        let launch = self.launch();
        let open = Open {
            pty,
            stdio: self.plan.stdio.as_ref(),
            extra: &self.plan.extra_fds,
        };
        launch.number_descriptors(&mut self.control, open)
    }

    /// The last steps, as the container's user.
    fn execute(&self, own: Option<FileId>) -> Result<Infallible> {
        let launch = self.launch();
        launch.become_user(&self.control)?;
        enter_directory(&self.prepared.process)?;
        let command = Command::find(&self.prepared.process, own)?;
        if self.plan.init {
            self.split(&command)
        } else {
            launch.confine(&self.control, true, &[])?;
            Err(command.execute())
        }
    }

    /// `--init`: the command becomes our child, we its reaper.
    fn split(&self, command: &Command) -> Result<Infallible> {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        block_signals().context("blocking signals")?;
        // Before the command can look.
        hide_arguments(&stat, "rless-init", true);
        match clone3(0).context("forking the command")? {
            Cloned::Child => {
                foreground();
                reset_signals().context("resetting signals")?;
                self.launch().confine(&self.control, true, &[])?;
                Err(command.execute())
            }
            Cloned::Parent { pid, pidfd } => {
                drop(pidfd);
                // Only a name in ps.
                let _ = prctl::set_name(c"rless-init");
                self.launch().confine(&self.control, false, &[])?;
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
