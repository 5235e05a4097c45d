//! What commands do to one container beside starting, stopping and removing it: kill, pause, rename, wait.
//!
//! Of a live container its supervisor is asked ([`super::ask`]); of any other the record is changed here, under its lock.

use std::time::Duration;

use serde_json::Value as Json;

use super::ask::{Heard, Question, ask, ask_at_most};
use super::events::Action;
use super::health::Status;
use super::record::{Containers, Record, State, unless_gone};
use super::stop::{elsewhere, improper, kill_supervisor};
use crate::error::{Result, failed, usage};
use crate::store::files::Lock;

/// How long a supervisor may take to answer what it does at once.
const PATIENCE: Duration = Duration::from_secs(20);
/// As [`PATIENCE`], where others wait meanwhile.
const BRIEF: Duration = Duration::from_secs(2);

/// Sends `signal` to the container's first process; SIGKILL is waited for.
///
/// # Errors
/// It does not run.
pub fn kill(containers: &Containers, record: &Record, signal: i32) -> Result<()> {
    let refused = |record: &Record| improper(record, "can only kill running containers");
    elsewhere(record)?;
    if !record.state.up() {
        return Err(refused(record).into());
    }
    let id = &record.id;
    match ask(containers, id, &Question::Kill { signal }, Some(PATIENCE))? {
        Heard::Nobody => {
            let now = containers.load(id)?;
            return Err(now
                .map_or_else(|| super::record::no_such(id), |r| refused(&r))
                .into());
        }
        Heard::Silence if signal == libc::SIGKILL => kill_supervisor(containers, record),
        Heard::Silence => return Err(silent(id).into()),
        Heard::Done(_) if signal == libc::SIGKILL => {
            ask(containers, id, &Question::Wait, Some(PATIENCE))?;
        }
        Heard::Done(_) => {}
    }
    Ok(())
}

/// Freezes the container (`pause`), or lets it go on.
///
/// # Errors
/// It is not in the state for that; this host cannot freeze containers.
pub fn pause(containers: &Containers, record: &Record, pause: bool) -> Result<()> {
    elsewhere(record)?;
    let question = if pause {
        Question::Pause
    } else {
        Question::Unpause
    };
    let heard = if record.state.live() {
        ask(containers, &record.id, &question, Some(PATIENCE))?
    } else {
        Heard::Nobody
    };
    let improper = |record: &Record| {
        let (state, id) = (record.state.word(), &record.id);
        failed(if pause {
            format!("{state:?} is not running, can't pause: container state improper")
        } else {
            format!("{id:?} is not paused, can't unpause: container state improper")
        })
    };
    match heard {
        Heard::Done(_) => Ok(()),
        Heard::Nobody => {
            let now = containers.load(&record.id)?;
            Err(improper(now.as_ref().unwrap_or(record)).into())
        }
        Heard::Silence => Err(silent(&record.id).into()),
    }
}

pub(super) fn silent(id: &str) -> crate::error::Fault {
    failed(format!("the supervisor of container {id} does not answer"))
        .hint(format!("`rless rm -f {id}` ends it"))
}

/// Gives the container another name.
///
/// The new name is linked first, then the record changes, then the old name is unlinked; all under the lock of the
/// names, so that nobody takes the new one for a left-over meanwhile. Killed in between, the container has two
/// names, of which the record's counts, and listing containers unlinks the other.
///
/// All containers share the lock of the names, so nothing is waited for under it but the answer of the container's own supervisor,
/// for [`BRIEF`]; the lock of a container that does not run is taken before it (as `rm` does, see `clear.rs`).
///
/// # Errors
/// The name is malformed or taken; another command holds the container, or its supervisor does not answer.
pub fn rename(containers: &Containers, record: &Record, name: &str) -> Result<()> {
    super::names::check(name)?;
    elsewhere(record)?;
    if name == record.name {
        return Ok(());
    }
    let gone = || super::record::no_such(&record.id);
    let place = containers.place(&record.id);
    for _ in 0..5 {
        let now = containers.load(&record.id)?.ok_or_else(gone)?;
        if now.state.live() {
            match rename_under_names(containers, &now, name, || {
                ask_rename(containers, &now, name)
            })? {
                Heard::Done(_) => return Ok(()),
                Heard::Silence => return Err(silent(&record.id).into()),
                Heard::Nobody => continue,
            }
        }
        let lock = unless_gone(Lock::exclusive_within(&place.lock(), BRIEF))?;
        let Some(_lock) = lock else {
            let now = containers.load(&record.id)?.ok_or_else(gone)?;
            if now.state.live() {
                continue;
            }
            return Err(held(&record.id).into());
        };
        // Only now nobody else changes it.
        let mut now = containers.read(&place)?.ok_or_else(gone)?;
        if !now.state.live() {
            let old = now.clone();
            name.clone_into(&mut now.name);
            rename_under_names(containers, &old, name, || {
                place.replace(&now).map(|()| Heard::Done(Json::Null))
            })?;
            containers.emit(&now, Action::Rename);
            return Ok(());
        }
    }
    let text = format!("renaming container {}: it comes and goes", record.id);
    Err(failed(text).into())
}

/// Links `name`, has the record changed by `write`, and unlinks the name that is over then.
fn rename_under_names(
    containers: &Containers,
    record: &Record,
    name: &str,
    write: impl FnOnce() -> Result<Heard>,
) -> Result<Heard> {
    let _names = containers.lock_names()?;
    if let Some(holder) = containers.link_name(name, &record.id)? {
        return Err(super::record::name_taken(name, &holder).into());
    }
    let heard = write();
    let goes = match heard {
        Ok(Heard::Done(_)) => &record.name,
        _ => name,
    };
    containers.unlink_name(goes, &record.id)?;
    heard
}

fn ask_rename(containers: &Containers, record: &Record, name: &str) -> Result<Heard> {
    let name = name.to_owned();
    ask_at_most(containers, &record.id, &Question::Rename { name }, BRIEF)
}

fn held(id: &str) -> crate::error::Fault {
    failed(format!("another command holds container {id}"))
        .hint("a commit, an export or a copy of it, perhaps: try again when that is done")
}

/// What [`wait`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// That it does not run (any more).
    Ended,
    /// That it is in this state.
    Is(State),
    /// That its health checks found it so.
    Health(Status),
    /// That it is gone.
    Removed,
}

impl std::str::FromStr for Condition {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Condition> {
        Ok(match word {
            "stopped" | "exited" => Condition::Ended,
            "configured" | "created" => Condition::Is(State::Created),
            "initialized" => Condition::Is(State::Starting),
            "running" => Condition::Is(State::Running),
            "paused" => Condition::Is(State::Paused),
            "stopping" => Condition::Is(State::Stopping),
            "removing" => Condition::Removed,
            "healthy" => Condition::Health(Status::Healthy),
            "unhealthy" => Condition::Health(Status::Unhealthy),
            other => {
                return Err(usage(format!("unknown container state: {other}"))
                    .hint("one of created, initialized, running, paused, stopping, stopped, exited, removing, healthy, unhealthy")
                    .into());
            }
        })
    }
}

/// Waits until one of `conditions` holds: its exit code, -1 when it has none or was removed meanwhile. Of one that a restart
/// policy starts again that is the first exit after the call, as with podman.
///
/// # Errors
/// The record cannot be read.
pub fn wait(
    containers: &Containers,
    id: &str,
    conditions: &[Condition],
    interval: Duration,
) -> Result<i32> {
    let only_end = conditions.iter().all(|c| *c == Condition::Ended);
    loop {
        let Some(record) = containers.load(id)? else {
            return Ok(-1);
        };
        let checked = record.healthcheck.as_ref();
        let checked = checked.is_some_and(|plan| plan.check.command().is_some());
        let mut health = conditions.iter().filter_map(|c| match c {
            Condition::Health(status) => Some(*status),
            _ => None,
        });
        if let Some(status) = health.next().filter(|_| !checked) {
            let word = status.word();
            let text = format!("cannot use condition {word:?}: container {id} has no healthcheck");
            return Err(failed(text).into());
        }
        let holds = |condition: &Condition| match condition {
            Condition::Ended => record.state == State::Exited,
            Condition::Is(state) => record.state == *state,
            Condition::Health(status) => record.health.status == *status,
            // Told above, of any that is gone.
            Condition::Removed => false,
        };
        if conditions.iter().any(holds) {
            return Ok(record.exit_code.unwrap_or(-1));
        }
        if only_end && record.state.live() {
            if let Heard::Done(answer) = ask(containers, id, &Question::Wait, None)? {
                let code = answer.get("exit_code").and_then(Json::as_i64);
                if let Some(code) = code.and_then(|c| i32::try_from(c).ok()) {
                    return Ok(code);
                }
            }
            // The record says it in a moment.
            std::thread::sleep(Duration::from_millis(2));
        } else {
            std::thread::sleep(interval);
        }
    }
}
