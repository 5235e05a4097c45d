//! Namespaces that are not a container's own: another container's (`--network container:ID`, `--pid`, `--ipc`, `--uts`), or
//! the host's (`--pid host`, `--ipc host`, `--uts host`), which are not made then.
//!
//! **The host's.** With the IPC namespace come the host's /dev/shm and, if it has one, /dev/mqueue: the container reaches what the
//! caller's ids reach out there. With the UTS namespace comes the host's name, which no container can change. Who shares with such a container
//! what it has of the host is in the host's namespace, too.
//!
//! With the PID namespace comes the host's /proc, bound whole, masked and read-only where the container's own would be. A container sees the
//! host's processes, and its root may signal the caller's; their memory, descriptors and environment stay closed, since no
//! capability in a user namespace counts in the one above. Nothing ends with such a container's first process by itself: its
//! control group does that (`cgroup.kill`), by the supervisor, or by the next command when that was killed. Where there is none
//! `--pid host` is refused: nobody else could tell afterwards which processes were the container's.
//!
//! **Another container's.**
//! These belong to the other container's user namespace, so this one is born in that ([`crate::runtime::Plan::within`]) and has its
//! id maps; all that is shared is therefore one container's. With the network come host names and name servers, with the UTS namespace its name,
//! with the IPC namespace its /dev/shm. It must run when this one starts, each time, and cannot be removed before it.
//!
//! In a PID namespace of another's nothing ends with a container's first process by itself: its control group does that, or where there is none
//! the supervisor, which looks for who is in the container's mount namespace (`supervisor/strays.rs`). When
//! the supervisor is killed as well, what is left then ends with the other container.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

use super::make::Stored;
use super::record::{Containers, Record, State};
use super::request::Request;
use super::supervisor::session;
use crate::cgroup::{Availability, Rung};
use crate::error::{Fault, Kind, Result, ResultExt, failed, kind, usage};
use crate::network::NetworkMode;
use crate::runtime::idmap::{self, Mapping, Userns};
use crate::store::files::read_json;

/// What a record's `network` begins with then.
const PREFIX: &str = "container:";

/// Whose these namespaces are, the network's besides: names as typed, ids after [`settle`]; `None`: the container's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sharing {
    /// `--pid`.
    pub pid: Option<String>,
    /// `--ipc`.
    pub ipc: Option<String>,
    /// `--uts`.
    pub uts: Option<String>,
    /// `--pid host`.
    pub host_pid: bool,
    /// `--ipc host`.
    pub host_ipc: bool,
    /// `--uts host`.
    pub host_uts: bool,
    /// `--ipc private` or `none`.
    pub shm: Shm,
}

/// What an IPC namespace of the container's own is to others, and whether it has a /dev/shm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shm {
    /// Others may share it.
    #[default]
    Shareable,
    /// Others may not.
    Private,
    /// Nor is there a /dev/shm.
    None,
}

/// Kinds of namespaces that are the host's.
#[must_use]
pub fn of_host(request: &Request) -> Vec<LinuxNamespaceType> {
    let network = request.network == NetworkMode::Host;
    let all = [
        (LinuxNamespaceType::Network, network),
        (LinuxNamespaceType::Pid, request.sharing.host_pid),
        (LinuxNamespaceType::Ipc, request.sharing.host_ipc),
        (LinuxNamespaceType::Uts, request.sharing.host_uts),
    ];
    let all = all.into_iter().filter_map(|(kind, is)| is.then_some(kind));
    all.collect()
}

/// The other container whose network it is; as it was typed before [`settle`].
#[must_use]
pub fn other(mode: &NetworkMode) -> Option<&str> {
    match mode {
        NetworkMode::Container(name) => Some(name),
        _ => None,
    }
}

/// Every namespace that is another's, with whose.
#[must_use]
pub fn all(request: &Request) -> Vec<(LinuxNamespaceType, &str)> {
    let Sharing { pid, ipc, uts, .. } = &request.sharing;
    let all = [
        (LinuxNamespaceType::Network, other(&request.network)),
        (LinuxNamespaceType::Pid, pid.as_deref()),
        (LinuxNamespaceType::Ipc, ipc.as_deref()),
        (LinuxNamespaceType::Uts, uts.as_deref()),
    ];
    let all = all
        .into_iter()
        .filter_map(|(kind, whose)| Some((kind, whose?)));
    all.collect()
}

/// The one container with which something is shared.
#[must_use]
pub fn whose(request: &Request) -> Option<&str> {
    all(request).first().map(|(_, id)| *id)
}

/// The configuration has a namespace of this kind that is another's.
#[must_use]
pub fn joins(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let all = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    let mut all = all.into_iter().flatten();
    all.any(|n| n.typ() == kind && n.path().is_some())
}

/// Puts the id in the place of each name that was typed.
///
/// # Errors
/// There is no such container, it is on the host's network and this one asks for ids of its own, or there are several.
pub fn settle(containers: &Containers, request: &mut Request) -> Result<()> {
    let id = |what: &str, name: &str| -> Result<String> {
        match containers.find(name) {
            Err(e) if kind(&e) == Kind::NoSuchObject => {
                let doing = format!("looking up container to share {what} namespace with");
                Err(e).fault(|| usage(doing))
            }
            found => Ok(found?.id),
        }
    };
    if let Some(name) = other(&request.network) {
        request.network = NetworkMode::Container(id("net", name)?);
    }
    let Sharing { pid, ipc, uts, .. } = &mut request.sharing;
    for (what, whose) in [("pid", pid), ("ipc", ipc), ("uts", uts)] {
        if let Some(name) = whose {
            *name = id(what, name)?;
        }
    }
    of_others(containers, request)?;
    check_host(request)?;
    let all = all(request);
    let Some((first, whose)) = all.first() else {
        return Ok(());
    };
    let flag = |kind: LinuxNamespaceType| match kind {
        LinuxNamespaceType::Network => "--network".to_owned(),
        other => format!("--{other}"),
    };
    if request.userns != Userns::Default {
        let flag = flag(*first);
        return Err(usage(format!(
            "--userns and {flag} container: cannot be used together"
        ))
        .hint("who shares a namespace shares the user namespace that owns it")
        .into());
    }
    if let Some((kind, _)) = all.iter().find(|(_, id)| id != whose) {
        let (one, two) = (flag(*first), flag(*kind));
        return Err(usage(format!(
            "{one} and {two}: namespaces of different containers"
        ))
        .hint("each container's belong to a user namespace of its own; share those of one")
        .into());
    }
    if request.sharing.pid.is_some() && request.init {
        return Err(usage("--init and --pid container: cannot be used together")
            .hint("the other container's first process is the one that reaps")
            .into());
    }
    if request.sharing.uts.is_some() && request.hostname.is_some() {
        let text = "cannot set hostname when running in another container's UTS namespace";
        return Err(usage(text).into());
    }
    Ok(())
}

/// The configuration has no namespace of this kind: it is the host's.
#[must_use]
pub fn is_hosts(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let all = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    !all.into_iter().flatten().any(|n| n.typ() == kind)
}

/// The first process of the container of this configuration is the first of its PID namespace, which ends with it.
#[must_use]
pub fn ends_with_first(spec: &Spec) -> bool {
    let all = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    let mut all = all.into_iter().flatten();
    all.any(|n| n.typ() == LinuxNamespaceType::Pid && n.path().is_none())
}

/// Refuses `--pid host` where its processes could not be told from others.
///
/// # Errors
/// There is no control group.
pub(super) fn check_ends(request: &Request, cgroups: &Availability) -> Result<()> {
    match &cgroups.rung {
        Rung::None { why, hint } if request.sharing.host_pid => Err(failed(format!(
            "--pid host needs a control group for the container, by which all its processes are ended: {why}"
        ))
        .hint(hint.clone())
        .into()),
        _ => Ok(()),
    }
}

/// What another container has of the host this one has of the host, too; what is private there is not shared.
fn of_others(containers: &Containers, request: &mut Request) -> Result<()> {
    let sharing = &mut request.sharing;
    let theirs = |id: &String| -> Result<Sharing> {
        let stored = Stored::read(&containers.place(id).dir)?;
        Ok(stored.request.sharing)
    };
    if let Some(id) = &sharing.ipc {
        let theirs = theirs(id)?;
        if theirs.shm != Shm::Shareable {
            let text = format!("joining IPC of container {id} is not allowed: non-shareable IPC");
            return Err(usage(text)
                .hint("--ipc shareable, which is the default, lets others join")
                .into());
        }
        if theirs.host_ipc {
            (sharing.ipc, sharing.host_ipc) = (None, true);
        }
    }
    if let Some(id) = &sharing.pid
        && theirs(id)?.host_pid
    {
        (sharing.pid, sharing.host_pid) = (None, true);
    }
    if let Some(id) = &sharing.uts
        && theirs(id)?.host_uts
    {
        (sharing.uts, sharing.host_uts) = (None, true);
    }
    Ok(())
}

/// What does not go with the host's namespaces, in podman's words.
fn check_host(request: &Request) -> Result<()> {
    if request.sharing.host_uts && request.hostname.is_some() {
        let text = "invalid config provided: cannot set hostname when running in the host UTS namespace: invalid configuration";
        return Err(usage(text).into());
    }
    if request.sharing.host_pid && request.init {
        let text = "cannot add init binary as PID 1 (PID namespace isn't private)";
        return Err(usage(text).into());
    }
    if request.sharing.host_ipc && request.shm_size.is_some() {
        let text =
            "invalid config provided: cannot set shmsize when running in the host IPC Namespace";
        return Err(usage(text).into());
    }
    Ok(())
}

/// The configuration of the container `id`.
pub(super) fn spec(containers: &Containers, id: &str) -> Result<Spec> {
    let spec = read_json(&containers.place(id).dir.join("config.json"))?;
    spec.ok_or_else(|| failed(format!("container {id} has no configuration")).into())
}

/// The id maps of a container that is made from `request`.
///
/// # Errors
/// They cannot be planned, or the other container is gone.
pub fn mapping(containers: &Containers, request: &Request) -> Result<Mapping> {
    let Some(id) = whose(request) else {
        return idmap::plan(&request.userns, None);
    };
    let mut mapping = session::mapping(&spec(containers, id)?, false);
    let planned = idmap::plan(&Userns::Default, None)?;
    let single = planned.rung == idmap::Rung::SingleId && mapping.uids.iter().all(|l| l.count == 1);
    mapping.rung = if single {
        idmap::Rung::SingleId
    } else {
        planned.rung
    };
    mapping.reason = planned.reason;
    Ok(mapping)
}

/// A pidfd of a process in the namespaces of the container `id`.
///
/// # Errors
/// It does not run.
pub fn target(containers: &Containers, id: &str) -> Result<OwnedFd> {
    let stopped = || {
        let text = format!(
            "cannot get namespace path unless container {id} is running: container is stopped"
        );
        Fault::new(Kind::NotExecutable, text)
    };
    let record = containers.load(id)?.ok_or_else(stopped)?;
    let init = record.init.filter(|_| record.state == State::Running);
    let target = init.and_then(super::top::target);
    Ok(target.ok_or_else(stopped)?)
}

/// Containers that use namespaces of this one.
///
/// # Errors
/// The containers cannot be listed.
pub fn dependents(containers: &Containers, record: &Record) -> Result<Vec<Record>> {
    let id = &record.id;
    let network = format!("{PREFIX}{id}");
    // Read as text first: this is done at every removal, and there may be many containers.
    let named = |other: &String| {
        let text = std::fs::read(containers.place(other).record()).unwrap_or_default();
        other != id && text.windows(id.len()).any(|w| w == id.as_bytes())
    };
    let mut dependents = Vec::new();
    for other in containers.ids()?.into_iter().filter(named) {
        let needs = |r: &Record| r.network == network || r.dependencies.contains(id);
        dependents.extend(containers.load(&other)?.filter(needs));
    }
    Ok(dependents)
}

/// Refuses to remove a container whose namespaces another uses.
///
/// # Errors
/// Kind `Failed`: there is one.
pub fn check_unused(containers: &Containers, record: &Record) -> Result<()> {
    let id = &record.id;
    let dependents = dependents(containers, record)?;
    if dependents.is_empty() {
        return Ok(());
    }
    let dependents: Vec<String> = dependents.into_iter().map(|r| r.id).collect();
    Err(failed(format!(
        "container {id} has dependent containers which must be removed before it: {}: container already exists",
        dependents.join(", ")
    ))
    .into())
}
