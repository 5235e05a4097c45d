//! A transient scope from systemd over D-Bus, in one call.
//!
//! # Theory of operation
//! Spoken to on its private socket, systemd needs no `Hello` and sends `JobRemoved` unasked: the
//! whole exchange is one write (authentication and `StartTransientUnit`) and the answers. On a bus
//! there is a `Hello` before the call, and signals would need a third call to subscribe; instead
//! this process looks where it is until it has been moved.
//!
//! Only the caller's own PID goes into the unit: older versions refuse those of another uid.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use zbus::{OwnedObjectPath, Variant};

use super::dbus::{self, Call, Client};
use super::detect;
use super::limits::{Bound, Limits};
use crate::error::{Result, ResultExt as _, failed};

/// How long systemd may take; a loaded virtual machine needs seconds.
const WITHIN: Duration = Duration::from_secs(20);

/// The scope to make.
#[derive(Debug, Clone)]
pub(crate) struct Unit<'a> {
    pub(crate) name: &'a str,
    pub(crate) description: &'a str,
    pub(crate) slice: &'a str,
    /// Process to move into it: the caller.
    pub(crate) pid: u32,
    /// CPU bounds are attributes of the scope itself, which only systemd writes.
    pub(crate) limits: &'a Limits,
}

/// Makes the scope and waits until the process is in it; the number of D-Bus calls this took.
pub(crate) fn start_scope(
    private: Option<&Path>,
    bus: Option<&str>,
    unit: &Unit<'_>,
) -> Result<u32> {
    let direct = private.and_then(|path| match UnixStream::connect(path) {
        Ok(stream) => Some(stream),
        Err(e) => {
            log::debug!("connecting to {}: {e}", path.display());
            None
        }
    });
    let started = match (direct, bus) {
        (Some(stream), _) => over_private(stream, unit),
        (None, Some(address)) => over_bus(address, unit),
        (None, None) => Err(anyhow!(
            "its private socket does not answer and there is no bus"
        )),
    };
    started.fault(|| {
        failed(format!("asking systemd for the scope {}", unit.name))
            .hint("its own account: journalctl --user -e (journalctl -e for root)")
    })
}

fn over_private(stream: UnixStream, unit: &Unit<'_>) -> Result<u32> {
    let mut client = Client::new(stream, WITHIN);
    let serial = client.call(&START, &body(unit)?)?;
    client.flush()?;
    let mut job: Option<OwnedObjectPath> = None;
    // A signal may overtake the reply; it is kept until the job's name is known.
    let mut removed: Vec<(OwnedObjectPath, String)> = Vec::new();
    loop {
        let message = client.receive()?;
        if message.reply_to == Some(serial) {
            refused(&message)?;
            job = Some(message.body()?);
        } else if message.kind == dbus::SIGNAL && message.member.as_deref() == Some("JobRemoved") {
            let (_, path, _, result) = message.body::<(u32, OwnedObjectPath, String, String)>()?;
            removed.push((path, result));
        }
        let Some(job) = &job else { continue };
        if let Some((_, result)) = removed.iter().find(|(path, _)| path == job) {
            return match result.as_str() {
                "done" => Ok(1),
                other => Err(anyhow!("its job ended as `{other}`")),
            };
        }
    }
}

fn over_bus(address: &str, unit: &Unit<'_>) -> Result<u32> {
    let mut client = Client::new(dbus::connect(address)?, WITHIN);
    let hello = Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
    };
    client.call(&hello, &())?;
    let serial = client.call(&START, &body(unit)?)?;
    client.flush()?;
    loop {
        let message = client.receive()?;
        if message.reply_to.is_some() {
            refused(&message)?;
        }
        if message.reply_to == Some(serial) {
            break;
        }
    }
    let deadline = Instant::now() + WITHIN;
    let mut pause = Duration::from_micros(100);
    while !inside(unit.name) {
        if Instant::now() > deadline {
            bail!("its job does not end");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(2)
}

/// Whether this process is in the scope.
pub(crate) fn inside(name: &str) -> bool {
    detect::own_directory().is_some_and(|dir| dir.file_name().is_some_and(|n| n == name))
}

/// There is a unit of this name already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Exists(String);

/// Whether [`start_scope`] failed because there is a unit of this name.
pub(crate) fn exists(e: &anyhow::Error) -> bool {
    e.chain().any(|cause| cause.is::<Exists>())
}

/// An error reply in the server's words.
fn refused(message: &dbus::Incoming) -> Result<()> {
    if message.kind != dbus::ERROR {
        return Ok(());
    }
    let text = message.body::<String>().unwrap_or_default();
    if message.error.as_deref() == Some("org.freedesktop.systemd1.UnitExists") {
        return Err(Exists(text).into());
    }
    bail!(
        "{text} ({})",
        message.error.as_deref().unwrap_or("unnamed error")
    )
}

const START: Call<'static> = Call {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "StartTransientUnit",
};

/// Properties of a unit: names and values.
type Properties<'a> = Vec<(&'a str, Variant<'a>)>;
/// Name, mode, properties, and auxiliary units.
type StartBody<'a> = (
    &'a str,
    &'a str,
    Properties<'a>,
    Vec<(&'a str, Properties<'a>)>,
);

fn body<'a>(unit: &Unit<'a>) -> Result<StartBody<'a>> {
    Ok((unit.name, "fail", properties(unit)?, Vec::new()))
}

/// The unit's properties, systemd.resource-control(5) and org.freedesktop.systemd1(5).
fn properties<'a>(unit: &Unit<'a>) -> Result<Properties<'a>> {
    let mut properties = vec![
        ("Description", Variant::from(unit.description)),
        ("Slice", Variant::from(unit.slice)),
        ("Delegate", Variant::from(true)),
        // Gone from the manager's list when it ends, even if it failed.
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("PIDs", Variant::from(vec![unit.pid])),
    ];
    if let Some((Bound::At(quota), period)) = unit.limits.cpu {
        let per_second = u128::from(quota) * 1_000_000 / u128::from(period);
        let per_second = u64::try_from(per_second).context("CPU quota out of range")?;
        properties.push(("CPUQuotaPerSecUSec", Variant::from(per_second)));
        properties.push(("CPUQuotaPeriodUSec", Variant::from(period)));
    }
    if let Some(weight) = unit.limits.cpu_weight {
        properties.push(("CPUWeight", Variant::from(weight)));
    }
    Ok(properties)
}
