//! The runtime: from an OCI runtime spec to a running, confined process.
//!
//! [`spawn`] clones the container's init with its namespaces. The caller (the supervisor) and
//! init then meet at these hand-overs and no others:
//!
//! 1. supervisor → init: *begin* (the maps are written, the cgroup is joined);
//! 2. init → supervisor: the `/dev/fuse` descriptor (Root::Fuse), sent without waiting;
//! 3. init → supervisor: the pty master and the seccomp listener, sent without waiting;
//! 4. supervisor → init: *release*, only if [`Plan::wait_release`];
//! 5. end of file on the control socket: the command has been executed. A message instead is why not.
//!
//! [`spawn`] must be called while the process has a single thread (it refuses otherwise): init goes
//! on running our code after clone3. Threads, D-Bus and the like may start right after it, since init waits for
//! *begin* (only what does not depend on it is done before).

mod control;
mod credentials;
mod exec;
pub mod fakeid;
pub mod idmap;
mod init;
mod join;
mod launch;
mod namespaces;
mod process;
pub mod pty;
mod reaper;
pub mod rootfs;
pub mod seccomp;
mod support;
pub mod visit;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use crate::error::{Fault, Result, failed};
use crate::sys::file::message_pair;
use crate::sys::process::{Cloned, clone3, pidfd_send_signal};
use control::{Message, Tag};
pub use credentials::{capability_names, default_capabilities};
use idmap::Mapping;
pub use join::{Accounts, Join, Settle, accounts, join, shared_memory};

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// Init mounts FUSE inside its user namespace and hands the descriptor back. The container's root
    /// is the directory [`ROOT_ENTRY`](crate::sys::fuse::ROOT_ENTRY) of what is served there.
    Fuse,
    /// A prepared root file system directory.
    Path(PathBuf),
}

/// Everything [`spawn`] needs; the spec says what, the rest says how.
#[derive(Debug)]
pub struct Plan {
    /// The OCI runtime spec (config.json). Ids in it are numeric and resolved.
    pub spec: Spec,
    /// The root file system; wins over `spec.root.path`.
    pub root: Root,
    /// `Some`: the process gets a pty of this size, and `stdio` is not used.
    pub terminal: Option<pty::WindowSize>,
    /// stdin, stdout, stderr of the container; `None`: the caller's own 0, 1 and 2.
    pub stdio: Option<[OwnedFd; 3]>,
    /// More descriptors for the process, numbered from 3 (LISTEN_FDS).
    pub extra_fds: Vec<OwnedFd>,
    /// Init stops after its set-up, says so ([`Init::wait_ready`]) and waits for [`Init::release`].
    pub wait_release: bool,
    /// From [`idmap::plan`].
    pub mapping: Mapping,
    /// `--init`: PID 1 is a tiny reaper of ours, the command its child.
    pub init: bool,
    /// Directory for compiled seccomp filters (made 0700); `None`: nothing is cached.
    pub seccomp_cache: Option<PathBuf>,
    /// Single-id mode: report ownership calls to a listener ([`Init::recv_listener`]).
    pub emulate_ids: bool,
    /// pidfd of another container's process: init is in its user namespace, and in those of its namespaces for which the spec
    /// has a path. `mapping` is that container's then.
    pub within: Option<OwnedFd>,
    /// What is mounted on /dev/shm instead of a file system of its own ([`shared_memory`]).
    pub shm: Option<OwnedFd>,
}

/// The container's init, from the supervisor's side. Dropping it does not end the container.
#[derive(Debug)]
pub struct Init {
    pid: Pid,
    pidfd: OwnedFd,
    control: OwnedFd,
    maps: Option<idmap::Pending>,
    /// Descriptors that came before they were asked for.
    early: Vec<Message>,
    /// The command has been executed, or init is gone.
    ended: bool,
}

/// Clones init; it waits for [`Init::begin`].
///
/// # Errors
/// A fault: the spec cannot be run with this mapping, or the kernel refuses the namespaces.
pub fn spawn(plan: &Plan) -> Result<Init> {
    let process = plan
        .spec
        .process()
        .clone()
        .ok_or_else(|| failed("the spec has no process"))?;
    support::check(&plan.spec, &process)?;
    let emulate = plan.emulate_ids;
    let profile = rootfs::linux(&plan.spec, |l| l.seccomp().as_ref());
    let prepared = init::Prepared {
        namespaces: namespaces::Namespaces::of(&plan.spec, plan.within.is_some())?,
        credentials: credentials::Credentials::of(
            &process,
            &plan.mapping,
            emulate,
            keeps_groups(&plan.spec),
        )?,
        filters: seccomp::filters(profile, emulate, plan.seccomp_cache.as_deref())?,
        process,
    };
    if let Some(target) = &plan.within {
        let (shared, new) = (prepared.namespaces.shared(), prepared.namespaces.new_ones());
        return join::clone_within(target.as_fd(), shared, new, |theirs| {
            init::run(plan, &prepared, theirs)
        });
    }
    let (control, theirs) = message_pair().context("making init's control socket")?;
    let cloned = clone3(prepared.namespaces.clone_flags());
    let refused = |e: std::io::Error| {
        let hint = namespaces::hint(e.raw_os_error());
        anyhow::Error::new(e).context(failed("making the container's namespaces").hint(hint))
    };
    let (pid, pidfd) = match cloned.map_err(refused)? {
        Cloned::Child => init::run(plan, &prepared, theirs),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let mut init = Init {
        pid,
        pidfd,
        control,
        maps: None,
        early: vec![],
        ended: false,
    };
    match idmap::start(pid, &plan.mapping) {
        Ok(maps) => init.maps = Some(maps),
        Err(e) => return Err(init.prefer_own_report(e)),
    }
    Ok(init)
}

/// `--group-add keep-groups`: the annotation by which podman tells crun, `1` then.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// The caller's groups are kept.
fn keeps_groups(spec: &Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    annotations
        .and_then(|all| all.get(KEEP_GROUPS))
        .is_some_and(|value| value == "1")
}

impl Init {
    /// Init's PID in the caller's PID namespace.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Init's pidfd: readable once it has exited.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The control socket, for poll: readable when a message or the end of file is there.
    #[must_use]
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Waits until the id maps are written (begun by [`spawn`]).
    ///
    /// # Errors
    /// What the helper said.
    pub fn write_maps(&mut self) -> Result<()> {
        let Some(maps) = self.maps.take() else {
            return Ok(());
        };
        maps.finish().map_err(|e| self.prefer_own_report(e))
    }

    /// Maps cannot be written for an init that has failed: then its report is the cause. Ends init.
    fn prefer_own_report(&mut self, other: anyhow::Error) -> anyhow::Error {
        self.kill();
        loop {
            match self.receive() {
                Ok(true) => {}
                Ok(false) => return other,
                Err(own) => return own,
            }
        }
    }

    /// Lets init go on: the maps are written and init is in its cgroup. Calls [`Init::write_maps`] if
    /// that has not been done.
    ///
    /// # Errors
    /// Init failed before; its own report.
    pub fn begin(&mut self) -> Result<()> {
        self.write_maps()?;
        self.tell(Tag::Begin)
    }

    /// The `/dev/fuse` descriptor (Root::Fuse): serve it at once, init is already using the mount.
    ///
    /// # Errors
    /// Init failed before; its own report.
    pub fn recv_fuse(&mut self) -> Result<OwnedFd> {
        self.descriptor(Tag::Fuse, "the root file system's descriptor")
    }

    /// The pty master (terminal).
    ///
    /// # Errors
    /// As [`Init::recv_fuse`].
    pub fn recv_pty(&mut self) -> Result<OwnedFd> {
        self.descriptor(Tag::Pty, "the terminal")
    }

    /// The seccomp listener (`emulate_ids`, or a profile with SCMP_ACT_NOTIFY). Comes after the release: serve it at once.
    ///
    /// # Errors
    /// As [`Init::recv_fuse`].
    pub fn recv_listener(&mut self) -> Result<OwnedFd> {
        self.descriptor(Tag::Listener, "the seccomp listener")
    }

    /// The seccomp listener of a process that [`join`]ed, and as whom the emulation of ids starts for it.
    ///
    /// # Errors
    /// As [`Init::recv_fuse`].
    pub fn recv_joined_listener(&mut self) -> Result<(OwnedFd, fakeid::Start)> {
        let what = "the seccomp listener";
        let message = self.expect(Tag::Listener, what)?;
        let start =
            credentials::decode_ids(&message.text).map(|(uid, gid, groups)| fakeid::Start {
                init: self.pid,
                uid,
                gid,
                groups,
            });
        match (message.fd, start) {
            (Some(fd), Some(start)) => Ok((fd, start)),
            _ => Err(early_end(what).into()),
        }
    }

    /// Waits until init is set up and waits for [`Init::release`] (`wait_release` only).
    ///
    /// # Errors
    /// As [`Init::recv_fuse`].
    pub fn wait_ready(&mut self) -> Result<()> {
        self.expect(Tag::Ready, "init's report").map(drop)
    }

    /// Lets init execute the command (`wait_release` only).
    ///
    /// # Errors
    /// Init failed before; its own report.
    pub fn release(&mut self) -> Result<()> {
        self.tell(Tag::Release)
    }

    /// Waits until the command has been executed. Init killed before that looks the same: its exit status tells.
    ///
    /// # Errors
    /// A fault: 127 command not found, 126 not executable, 125 a set-up step failed.
    pub fn wait_exec(&mut self) -> Result<()> {
        while self.receive()? {}
        Ok(())
    }

    /// Kills and reaps init, for a start that is given up.
    pub fn kill(&mut self) {
        // Both fail only if that has happened already.
        let _ = pidfd_send_signal(&self.pidfd, Some(Signal::SIGKILL));
        let _ = waitpid(self.pid, None);
    }

    /// Sends to init; if it is gone its own report says why.
    fn tell(&mut self, tag: Tag) -> Result<()> {
        match control::send(&self.control, tag, None) {
            Ok(()) => Ok(()),
            Err(e) => {
                while self.receive()? {}
                Err(anyhow::Error::new(e).context(failed("the container's init ended early")))
            }
        }
    }

    /// Takes one message in; false at the end.
    fn receive(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        match control::receive(&self.control) {
            Ok(Some(message)) => {
                self.early.push(message);
                Ok(true)
            }
            Ok(None) => {
                self.ended = true;
                Ok(false)
            }
            Err(e) => {
                self.ended = true;
                Err(e)
            }
        }
    }

    /// Waits for a message of this kind; others are kept.
    fn expect(&mut self, tag: Tag, what: &str) -> Result<Message> {
        loop {
            if let Some(at) = self.early.iter().position(|m| m.tag == tag) {
                return Ok(self.early.remove(at));
            }
            if !self.receive()? {
                return Err(early_end(what).into());
            }
        }
    }

    fn descriptor(&mut self, tag: Tag, what: &str) -> Result<OwnedFd> {
        self.expect(tag, what)?
            .fd
            .ok_or_else(|| early_end(what).into())
    }
}

/// Init did not send what the plan says it sends.
fn early_end(what: &str) -> Fault {
    failed(format!("the container's init ended before it sent {what}"))
}
