//! A network namespace that is another container's (`--network container:ID`).
//!
//! It belongs to the other container's user namespace, so this one is born in that ([`crate::runtime::Plan::within`]) and has its
//! id maps; host names and name servers are its files. It must run when this one starts, each time, and cannot be removed
//! before it.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use super::record::{Containers, Record, State};
use super::request::Request;
use super::supervisor::session;
use crate::error::{Fault, Kind, Result, ResultExt, failed, kind, usage};
use crate::network::NetworkMode;
use crate::runtime::idmap::{self, Mapping, Rung, Userns};
use crate::store::files::read_json;
use crate::sys::supervise::pidfd_open;

/// What a record's `network` begins with then.
const PREFIX: &str = "container:";

/// The other container's id; as it was typed before [`settle`].
#[must_use]
pub fn other(mode: &NetworkMode) -> Option<&str> {
    match mode {
        NetworkMode::Container(name) => Some(name),
        _ => None,
    }
}

/// Puts the id in the place of the name that was typed.
///
/// # Errors
/// There is no such container, or it is on the host's network and this one asks for ids of its own.
pub fn settle(containers: &Containers, request: &mut Request) -> Result<()> {
    let Some(name) = other(&request.network) else {
        return Ok(());
    };
    let found = containers.find(name);
    let record = match found {
        Err(e) if kind(&e) == Kind::NoSuchObject => {
            let doing = "looking up container to share net namespace with";
            return Err(e).fault(|| usage(doing));
        }
        found => found?,
    };
    if request.userns != Userns::Default {
        return Err(
            usage("--userns and --network container: cannot be used together")
                .hint("who shares a network shares the user namespace that owns it")
                .into(),
        );
    }
    request.network = NetworkMode::Container(record.id);
    Ok(())
}

/// The id maps of a container that is made from `request`.
///
/// # Errors
/// They cannot be planned, or the other container is gone.
pub fn mapping(containers: &Containers, request: &Request) -> Result<Mapping> {
    let Some(id) = other(&request.network) else {
        return idmap::plan(&request.userns, None);
    };
    let spec: Option<Spec> = read_json(&containers.place(id).dir.join("config.json"))?;
    let spec = spec.ok_or_else(|| failed(format!("container {id} has no configuration")))?;
    let mut mapping = session::mapping(&spec, false);
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
    // Our own reaper (`--init`) is closed to us, too: its child, the command, is not.
    let pid = init.and_then(|init| super::top::joinable(init.pid));
    let pid = pid.ok_or_else(stopped)?;
    pidfd_open(Pid::from_raw(pid)).map_err(|_| stopped().into())
}

/// Refuses to remove a container whose network another uses.
///
/// # Errors
/// Kind `Failed`: there is one.
pub fn check_unused(containers: &Containers, record: &Record) -> Result<()> {
    let network = format!("{PREFIX}{}", record.id);
    // Read as text first: this is done at every removal, and there may be many containers.
    let named = |id: &String| {
        let text = std::fs::read(containers.place(id).record()).unwrap_or_default();
        text.windows(network.len()).any(|w| w == network.as_bytes())
    };
    let mut dependents = Vec::new();
    for id in containers.ids()?.into_iter().filter(named) {
        if containers.load(&id)?.is_some_and(|r| r.network == network) {
            dependents.push(id);
        }
    }
    if dependents.is_empty() {
        return Ok(());
    }
    Err(failed(format!(
        "container {} has dependent containers which must be removed before it: {}: container already exists",
        record.id,
        dependents.join(", ")
    ))
    .into())
}
