//! Which namespaces init is cloned into: the one place that decides it.
//!
//! A namespace without a path in the spec is made by clone3, all at once; one with a path is joined by init
//! (its user namespace must own it, or be its descendant's). What another container has belongs to that container's
//! user namespace, so who shares it (`--network container:ID`, `--pid` …) is born in that user namespace, too
//! ([`super::Plan::within`]), as all containers of a user are with podman. The mount namespace is always new. The cgroup namespace is unshared by init after *begin*: its root
//! is then the cgroup that the supervisor has meanwhile put init into.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::{Result, failed, usage};

/// The decision.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// New ones, for clone3.
    clone: CloneFlags,
    /// A new cgroup namespace after *begin*.
    cgroup: bool,
    /// Existing ones to join.
    join: Vec<(OwnedFd, CloneFlags)>,
    /// Those of another container that init is born in, its user namespace besides.
    shared: CloneFlags,
}

impl Namespaces {
    /// Decides from `linux.namespaces`.
    ///
    /// # Errors
    /// A path cannot be opened, or is given for a kind that cannot be joined.
    pub(super) fn of(spec: &Spec, within: bool) -> Result<Namespaces> {
        let mut decided = Namespaces {
            clone: CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS,
            cgroup: false,
            join: vec![],
            shared: CloneFlags::empty(),
        };
        let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        for namespace in listed.into_iter().flatten() {
            let flag = flag(namespace.typ());
            if flag.is_empty() {
                return Err(
                    usage(format!("a {} namespace is not supported", namespace.typ())).into(),
                );
            }
            match namespace.path() {
                None if flag == CloneFlags::CLONE_NEWCGROUP => decided.cgroup = true,
                None => decided.clone |= flag,
                Some(path) if within => {
                    // Those that init is born in whatever it shares.
                    let own = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
                    refuse(path, flag, own)?;
                    decided.shared |= flag;
                }
                Some(path) => decided.join.push((joinable(path, flag)?, flag)),
            }
        }
        if within {
            decided.clone.remove(CloneFlags::CLONE_NEWUSER);
        }
        Ok(decided)
    }

    /// Those of the other container.
    pub(super) fn shared(&self) -> CloneFlags {
        self.shared
    }

    /// Those that init is cloned into.
    pub(super) fn new_ones(&self) -> CloneFlags {
        self.clone
    }

    /// The namespaces that a process joins which is to be in the container of `spec`: those that are not the host's.
    pub(super) fn of_container(spec: &Spec) -> CloneFlags {
        let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        let listed = listed.into_iter().flatten().map(|n| flag(n.typ()));
        listed.fold(
            CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS,
            |all, f| all | f,
        )
    }

    /// Flags for clone3.
    pub(super) fn clone_flags(&self) -> u64 {
        self.clone.bits() as u64
    }

    /// Whether init has its own namespace of this kind (made for it, not joined).
    pub(super) fn owns(&self, kind: CloneFlags) -> bool {
        self.clone.contains(kind) || (self.cgroup && kind == CloneFlags::CLONE_NEWCGROUP)
    }

    /// Whether a file system of this kind of namespace may be mounted anew: it is init's own, or of the user namespace that init is
    /// in.
    pub(super) fn mounts(&self, kind: CloneFlags) -> bool {
        self.owns(kind) || self.shared.contains(kind)
    }

    /// The descriptors init needs.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        self.join.iter().map(|(fd, _)| fd)
    }

    /// In init, after *begin*: joins and unshares the rest.
    ///
    /// # Errors
    /// `EPERM`: the namespace to join belongs to another user namespace.
    pub(super) fn enter(&self) -> Result<()> {
        for (fd, flag) in &self.join {
            setns(fd, *flag).with_context(|| format!("joining a namespace ({flag:?})"))?;
        }
        if self.cgroup {
            unshare(CloneFlags::CLONE_NEWCGROUP).context("making a cgroup namespace")?;
        }
        Ok(())
    }
}

/// The clone flag of a kind of namespace.
fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        // Cannot be made by clone3: only by unshare, for children.
        LinuxNamespaceType::Time => CloneFlags::empty(),
    }
}

/// Opens a namespace to join.
fn joinable(path: &Path, flag: CloneFlags) -> Result<OwnedFd> {
    let fixed = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    refuse(path, flag, fixed)?;
    open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("opening the namespace {}", path.display()))
}

/// Some kinds are a container's own.
fn refuse(path: &Path, flag: CloneFlags, fixed: CloneFlags) -> Result<()> {
    if fixed.intersects(flag) {
        return Err(failed(format!(
            "joining the namespace {}: this kind cannot be shared yet",
            path.display()
        ))
        .into());
    }
    Ok(())
}

/// What may keep an ordinary user from making namespaces, and from using what it may do in them.
pub(super) fn hint(error: Option<i32>) -> &'static str {
    let sysctl = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
    let is = |name: &str, value: &str| sysctl(name).trim() == value;
    if error == Some(libc::EBUSY) {
        "a bug: the runtime was called while threads are running"
    } else if is("user/max_user_namespaces", "0") {
        "as root: sysctl user.max_user_namespaces=15000"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "as root: sysctl kernel.unprivileged_userns_clone=1"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts user namespaces here: install rless's AppArmor profile, or as root: \
         sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else if error == Some(libc::ENOSPC) {
        "a limit below /proc/sys/user is reached"
    } else {
        "user namespaces may be restricted here (by the seccomp filter of an outer container, or a \
         kernel without them)"
    }
}
