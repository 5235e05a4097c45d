//! `snapshot` and `restore`: named states of a container's files ([`crate::cow::frozen`] has how and where they are kept).
//!
//! A snapshot is of the root file system only: not of volumes, processes or the configuration. Of a running container its
//! supervisor makes it, at one moment: what a program had not written by then is not in it, as after a power cut.
//! Restoring puts the files of a container that does not run back; a crash on the way leaves the old or the restored state.

use std::time::Duration;

use jiff::Timestamp;

use super::ask::{Heard, Question, ask};
use super::events::Action;
use super::names;
use super::record::{Containers, Record, no_such};
use super::stop::{elsewhere, improper};
use super::view;
use crate::cow::frozen::{self, Frozen};
use crate::error::{Fault, Kind, Result, failed};
use crate::store::Store;
use crate::store::files::Lock;

/// How long a supervisor may take to freeze: it syncs what its container wrote.
const PATIENCE: Duration = Duration::from_secs(600);

/// A state that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// Bytes on disk that it alone holds.
    pub bytes: u64,
}

/// Keeps the state that the container's files have now; gives its name.
///
/// # Errors
/// The name is malformed or taken; the disk is full; the supervisor does not answer.
pub fn make(store: &Store, record: &Record, name: Option<&str>) -> Result<String> {
    let containers = Containers::of(store);
    let name = match name {
        Some(name) => name.to_owned(),
        None => Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ").to_string(),
    };
    names::check(&name)?;
    elsewhere(record)?;
    let upper = containers.place(&record.id).upper();
    if frozen::state(&upper, &name).exists() {
        return Err(taken(&name).into());
    }
    for _ in 0..10 {
        let now = containers
            .load(&record.id)?
            .ok_or_else(|| no_such(&record.id))?;
        let frozen = Frozen::place(&upper)?;
        if now.state.live() {
            let question = Question::Freeze {
                dir: frozen.dir(),
                content: true,
            };
            match ask(&containers, &now.id, &question, Some(PATIENCE))? {
                Heard::Done(_) => {}
                Heard::Nobody => continue,
                Heard::Silence => {
                    let text = format!("the supervisor of container {} does not answer", now.id);
                    return Err(failed(text).into());
                }
            }
        } else {
            let Some(_lock) = ended(&containers, &now)? else {
                continue;
            };
            view::open(view::lower(store, &now)?, &upper)?.freeze(&frozen.dir(), true)?;
        }
        frozen
            .keep(&name)
            .map_err(|e| match frozen::state(&upper, &name).exists() {
                true => taken(&name).into(),
                false => e,
            })?;
        containers.emit(&now, Action::Snapshot);
        return Ok(name);
    }
    Err(failed(format!(
        "container {} starts and ends all the time",
        record.id
    ))
    .into())
}

fn taken(name: &str) -> Fault {
    Fault::new(
        Kind::Conflict,
        format!("the container has a snapshot {name:?} already"),
    )
}

fn unknown(name: &str) -> Fault {
    Fault::new(
        Kind::NoSuchObject,
        format!("the container has no snapshot {name:?}"),
    )
    .hint("`rless snapshot --list CONTAINER` shows those it has")
}

/// The lock of a container that does not run; `None` when it has just been started.
fn ended(containers: &Containers, record: &Record) -> Result<Option<Lock>> {
    let lock = containers.lock(&record.id)?;
    let now = containers.load(&record.id)?;
    Ok(lock.filter(|_| now.is_some_and(|r| !r.state.live())))
}

/// The container's snapshots, oldest first.
///
/// # Errors
/// They cannot be read.
pub fn list(store: &Store, record: &Record) -> Result<Vec<Snapshot>> {
    let upper = Containers::of(store).place(&record.id).upper();
    let mut out = Vec::new();
    for (name, time) in frozen::list(&upper)? {
        out.push(Snapshot {
            created: Timestamp::try_from(time)?,
            bytes: frozen::own_bytes(&upper, &name)?,
            name,
        });
    }
    Ok(out)
}

/// Removes a snapshot.
///
/// # Errors
/// There is none of that name.
pub fn remove(store: &Store, record: &Record, name: &str) -> Result<()> {
    names::check(name)?;
    let upper = Containers::of(store).place(&record.id).upper();
    match frozen::remove(&upper, name)? {
        true => Ok(()),
        false => Err(unknown(name).into()),
    }
}

/// Puts the files of a container that does not run into the state of the snapshot.
///
/// # Errors
/// It runs; there is none of that name; the disk is full. Nothing has changed then.
pub fn restore(store: &Store, record: &Record, name: &str) -> Result<()> {
    names::check(name)?;
    let containers = Containers::of(store);
    let running = || improper(record, "can only restore containers that do not run");
    if record.state.live() {
        return Err(running().into());
    }
    let _lock = ended(&containers, record)?.ok_or_else(running)?;
    let upper = containers.place(&record.id).upper();
    if !frozen::state(&upper, name).exists() {
        return Err(unknown(name).into());
    }
    frozen::restore(&upper, name)?;
    containers.emit(record, Action::Restore);
    Ok(())
}
