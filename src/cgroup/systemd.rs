//! A transient scope from systemd over D-Bus, in one call.
//!
//! # Theory of operation
//! Spoken to on its private socket, systemd needs no `Hello` and sends `JobRemoved` unasked: the
//! whole exchange is authentication, one `StartTransientUnit`, its reply and that signal. On a bus
//! there is a `Hello` before it, and systemd sends the signal to the caller of the job without
//! `Subscribe` or `AddMatch`: two calls.
//!
//! The connection lives within one `block_on`, so that its tasks run on the calling thread; it is
//! closed before the call returns and no thread of zbus is left when the supervisor clones.
//!
//! Only the caller's own PID goes into the unit: older versions refuse those of another uid.

use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use zbus::connection::Builder;
use zbus::export::futures_core::Stream as _;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, OwnedObjectPath, Variant};

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
    /// Process to move into it.
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
    let socket = private.and_then(|path| match UnixStream::connect(path) {
        Ok(socket) => Some(socket),
        Err(e) => {
            log::debug!("connecting to {}: {e}", path.display());
            None
        }
    });
    let (builder, calls) = match (socket, bus) {
        (Some(socket), _) => (Builder::unix_stream(socket).p2p(), 1),
        (None, Some(address)) => (Builder::address(address), 2),
        (None, None) => {
            return Err(anyhow!(
                "systemd's private socket does not answer and there is no bus"
            ));
        }
    };
    zbus::block_on(async {
        let work = exchange(builder, unit);
        within(work).await
    })
    .fault(|| {
        failed(format!("asking systemd for the scope {}", unit.name))
            .hint("see what it says: journalctl --user -e (journalctl -e for root)")
    })?;
    Ok(calls)
}

/// Bounds the whole exchange in time.
async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    let runtime = zruntime::SharedRuntime::current().context("making a timer")?;
    let mut sleep = pin!(runtime.sleep(WITHIN));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        sleep
            .as_mut()
            .poll(cx)
            .map(|()| Err(anyhow!("no answer within {} seconds", WITHIN.as_secs())))
    })
    .await
}

async fn exchange(builder: Builder<'_>, unit: &Unit<'_>) -> Result<()> {
    let connection = builder.build().await.context("connecting")?;
    let outcome = run_job(&connection, unit).await;
    // Closed here, while this thread still drives the connection's tasks.
    let _ = connection.close().await;
    outcome
}

async fn run_job(connection: &Connection, unit: &Unit<'_>) -> Result<()> {
    let mut messages = MessageStream::from(connection);
    let call = Message::method_call("/org/freedesktop/systemd1", "StartTransientUnit")
        .destination("org.freedesktop.systemd1")
        .interface("org.freedesktop.systemd1.Manager")
        .build(&(
            unit.name,
            "fail",
            properties(unit)?,
            Vec::<(&str, Vec<(&str, Variant<'_>)>)>::new(),
        ))?;
    let serial = call.primary_header().serial_num();
    connection
        .send(&call)
        .await
        .context("sending StartTransientUnit")?;
    let mut job: Option<OwnedObjectPath> = None;
    // Signals may overtake the reply in theory; they are kept until the job's name is known.
    let mut removed: Vec<(OwnedObjectPath, String)> = Vec::new();
    loop {
        let message = next(&mut messages)
            .await
            .context("the connection was closed")?
            .context("receiving")?;
        let header = message.header();
        match message.message_type() {
            Type::MethodReturn if header.reply_serial() == Some(serial) => {
                job = Some(
                    message
                        .body()
                        .deserialize()
                        .context("reading the job's name")?,
                );
            }
            Type::Error if header.reply_serial() == Some(serial) => {
                let name = header
                    .error_name()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let text: String = message.body().deserialize().unwrap_or_default();
                return Err(anyhow!("{text} ({name})"));
            }
            Type::Signal if header.member().is_some_and(|m| m.as_str() == "JobRemoved") => {
                let Ok((_, path, _, result)) = message
                    .body()
                    .deserialize::<(u32, OwnedObjectPath, String, String)>()
                else {
                    continue;
                };
                removed.push((path, result));
            }
            _ => {}
        }
        let Some(job) = &job else { continue };
        if let Some((_, result)) = removed.iter().find(|(path, _)| path == job) {
            return match result.as_str() {
                "done" => Ok(()),
                other => Err(anyhow!("its job ended as `{other}`")),
            };
        }
    }
}

async fn next(messages: &mut MessageStream) -> Option<zbus::Result<Message>> {
    let mut messages = pin!(messages);
    poll_fn(|cx| messages.as_mut().poll_next(cx)).await
}

/// The unit's properties, systemd.resource-control(5) and org.freedesktop.systemd1(5).
fn properties<'a>(unit: &Unit<'a>) -> Result<Vec<(&'static str, Variant<'a>)>> {
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
