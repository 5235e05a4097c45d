//! Visiting a container's files: a process of ours that sees what its processes see, mounts included.
//!
//! Of one that runs it joins the user and mount namespaces of the container and nothing else, executes nothing, and has no
//! descriptor of the host's but pipes to its parent. It is not dumpable, and not in the container's PID namespace: nothing in there can
//! look into it or signal it. Whatever the container makes of its files meanwhile, every path is resolved inside.
//!
//! Of one that does not run only what it mounts is visited ([`Apart`]): in a user namespace with its id maps and a mount namespace, both new,
//! under a root that holds its volumes and bind mounts, and otherwise nothing and for reading only.

use std::os::fd::AsFd;

use anyhow::Context;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid};
use oci_spec::runtime::Mount;

use super::rootfs::Bare;
use crate::error::Result;

/// Makes this process, which has one thread and was forked for it, a visitor of the container whose process `pidfd` is.
///
/// # Errors
/// The container has ended.
pub fn enter(pidfd: impl AsFd) -> Result<()> {
    nix::sys::prctl::set_dumpable(false).context("closing this process to others")?;
    setns(pidfd, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .context("entering the container")?;
    become_root()
}

/// This process, which has one thread and was forked for it, in user and mount namespaces of its own. Its id maps are
/// to be written next, by its parent.
#[derive(Debug)]
pub struct Apart(Bare);

impl Apart {
    /// Leaves the host's namespaces and opens the sources of `binds`.
    ///
    /// # Errors
    /// Namespaces are refused; a source is missing.
    pub fn new(binds: &[Mount]) -> Result<Apart> {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
            .context("making a user namespace")?;
        Ok(Apart(Bare::open(binds)?))
    }

    /// Goes under the root of what is mounted, once the id maps are written.
    ///
    /// # Errors
    /// A mount cannot be made.
    pub fn enter(self) -> Result<()> {
        become_root()?;
        self.0.enter()
    }
}

fn become_root() -> Result<()> {
    // With one id only there are no groups to leave.
    let _ = setgroups(&[]);
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    // Where root is not mapped (--userns=keep-id with one id), it stays who it is, with all capabilities in there.
    let _ = setresgid(gid, gid, gid);
    let _ = setresuid(uid, uid, uid);
    nix::sys::prctl::set_dumpable(false).context("closing this process to others")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    chdir("/").context("changing to the container's root")
}
