//! Namespaces that are another container's (`--network container:ID`, `--pid`, `--ipc`, `--uts`).
//!
//! They belong to the other container's user namespace, so this one is born in that ([`crate::runtime::Plan::within`]) and has its
//! id maps; all that is shared is therefore one container's. With the network come host names and name servers, with the UTS namespace its name,
//! with the IPC namespace its /dev/shm. It must run when this one starts, each time, and cannot be removed before it.
//!
//! In a PID namespace of another's nothing ends with a container's first process by itself: its control group does that, or where there is none
//! the supervisor, which looks for who is in the container's mount namespace (`supervisor/strays.rs`). When
//! the supervisor is killed as well, what is left then ends with the other container.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

use super::record::{Containers, Record, State};
use super::request::Request;
use super::supervisor::session;
use crate::error::{Fault, Kind, Result, ResultExt, failed, kind, usage};
use crate::network::NetworkMode;
use crate::runtime::idmap::{self, Mapping, Rung, Userns};
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
    let Sharing { pid, ipc, uts } = &request.sharing;
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
    let Sharing { pid, ipc, uts } = &mut request.sharing;
    for (what, whose) in [("pid", pid), ("ipc", ipc), ("uts", uts)] {
        if let Some(name) = whose {
            *name = id(what, name)?;
        }
    }
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
    let single = planned.rung == Rung::SingleId && mapping.uids.iter().all(|l| l.count == 1);
    mapping.rung = if single { Rung::SingleId } else { planned.rung };
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

/// Refuses to remove a container whose namespaces another uses.
///
/// # Errors
/// Kind `Failed`: there is one.
pub fn check_unused(containers: &Containers, record: &Record) -> Result<()> {
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
        if containers.load(&other)?.is_some_and(|r| needs(&r)) {
            dependents.push(other);
        }
    }
    if dependents.is_empty() {
        return Ok(());
    }
    Err(failed(format!(
        "container {id} has dependent containers which must be removed before it: {}: container already exists",
        dependents.join(", ")
    ))
    .into())
}
