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

pub mod idmap;
pub mod pty;
pub mod seccomp;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use crate::error::{Result, failed};
use idmap::Mapping;

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// Init mounts FUSE inside its user namespace and hands the descriptor back.
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
}

/// The container's init, from the supervisor's side. Dropping it does not end the container.
#[derive(Debug)]
pub struct Init {
    pid: Pid,
    pidfd: OwnedFd,
    control: OwnedFd,
}

/// Clones init; it waits for [`Init::begin`].
///
/// # Errors
/// A fault with the exit code 125, 126 or 127 and what was being done.
pub fn spawn(plan: &Plan) -> Result<Init> {
    let _ = plan;
    Err(failed("starting the container: the runtime is not built yet").into())
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

    /// Writes the id maps through the planned rung (its helper was started by [`spawn`]).
    ///
    /// # Errors
    /// What the helper said.
    pub fn write_maps(&mut self) -> Result<()> {
        Ok(())
    }

    /// Lets init go on: the maps are written and init is in its cgroup.
    ///
    /// # Errors
    /// Init is gone.
    pub fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// The `/dev/fuse` descriptor (Root::Fuse): serve it at once, init is already using the mount.
    ///
    /// # Errors
    /// Init failed before; its own report.
    pub fn recv_fuse(&mut self) -> Result<OwnedFd> {
        Err(failed("not built yet").into())
    }

    /// The pty master (terminal).
    ///
    /// # Errors
    /// As [`Init::recv_fuse`].
    pub fn recv_pty(&mut self) -> Result<OwnedFd> {
        Err(failed("not built yet").into())
    }

    /// The seccomp listener (`emulate_ids`, or a profile with SCMP_ACT_NOTIFY).
    ///
    /// # Errors
    /// As [`Init::recv_fuse`].
    pub fn recv_listener(&mut self) -> Result<OwnedFd> {
        Err(failed("not built yet").into())
    }

    /// Waits until init is set up and waits for [`Init::release`] (`wait_release` only).
    ///
    /// # Errors
    /// As [`Init::recv_fuse`].
    pub fn wait_ready(&mut self) -> Result<()> {
        Ok(())
    }

    /// Lets init execute the command (`wait_release` only).
    ///
    /// # Errors
    /// Init is gone.
    pub fn release(&mut self) -> Result<()> {
        Ok(())
    }

    /// Waits until the command has been executed.
    ///
    /// # Errors
    /// A fault: 127 command not found, 126 not executable, 125 a set-up step failed.
    pub fn wait_exec(&mut self) -> Result<()> {
        Ok(())
    }
}
