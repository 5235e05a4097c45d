//! Ending containers: `stop`, and what `rm -f`, `--replace` and most often `restart` do first.
//!
//! The supervisor is asked ([`super::ask`]); it sends the stop signal, kills when the time is over, and answers when
//! the exit record is written. One that does not answer in time after that is killed: the container
//! dies with it, and the record is written here, as for any dead supervisor. One that says that it is busy is not: it writes
//! what the container wrote to disk, however long that takes, and a kill would lose it. Only where the container is to be
//! removed nobody waits for that.

use std::time::Duration;

use super::ask::{CLEANING, Heard, Question, ask, ask_at_most};
use super::events::Action;
use super::host;
use super::record::{Containers, Record, STOP_TIMEOUT, State};
use super::supervisor;
use crate::error::{Fault, Kind, Result, failed};

/// Ends the container of `record`, and waits until its supervisor has cleaned up: its record then, `None` if it went
/// with `--rm`. One that does not run is left as it is.
///
/// `timeout`: seconds until it is killed, its own (`--stop-timeout`) if `None`.
///
/// # Errors
/// It lives on another host, or it does not end.
pub fn stop(
    containers: &Containers,
    record: &Record,
    timeout: Option<u64>,
) -> Result<Option<Record>> {
    end(containers, record, timeout, true)
}

/// As [`stop`], for a container that is to be removed: what it wrote need not be on disk.
///
/// # Errors
/// As there.
pub(super) fn stop_to_remove(
    containers: &Containers,
    record: &Record,
    timeout: Option<u64>,
) -> Result<Option<Record>> {
    end(containers, record, timeout, false)
}

fn end(
    containers: &Containers,
    record: &Record,
    timeout: Option<u64>,
    keep: bool,
) -> Result<Option<Record>> {
    let mut record = record.clone();
    for _ in 0..3 {
        if !record.state.live() {
            return Ok(Some(record));
        }
        elsewhere(&record)?;
        let question = Question::Stop { timeout };
        let patience = patience(&record, timeout);
        let heard = if keep {
            ask(containers, &record.id, &question, Some(patience))?
        } else {
            ask_at_most(containers, &record.id, &question, patience)?
        };
        if heard == Heard::Silence {
            kill_supervisor(containers, &record);
        }
        match containers.load(&record.id)? {
            None => return Ok(None),
            // Ended, or its supervisor was killed between the record and its last step.
            Some(now) => record = now,
        }
    }
    if record.state.live() {
        return Err(failed(format!("stopping container {}: it does not end", record.id)).into());
    }
    Ok(Some(record))
}

/// How long a supervisor may take to end the container of `record`.
pub(super) fn patience(record: &Record, timeout: Option<u64>) -> Duration {
    let seconds = timeout.or(record.stop_timeout).unwrap_or(STOP_TIMEOUT);
    CLEANING.saturating_add(Duration::from_secs(seconds))
}

/// Kills the supervisor of `record` if it is still there, and the container with it.
pub(super) fn kill_supervisor(containers: &Containers, record: &Record) {
    let now = containers.load(&record.id).ok().flatten();
    let supervisor = now.and_then(|r| r.supervisor).or(record.supervisor);
    // Its record says so when the container runs.
    let listening = || supervisor::listening(&containers.place(&record.id).live);
    if let Some(supervisor) = supervisor.or_else(listening) {
        host::kill_process(supervisor);
    }
}

/// Refuses a container that another host runs.
///
/// # Errors
/// It is so.
pub fn elsewhere(record: &Record) -> Result<()> {
    if record.state.live() && record.foreign() {
        let (_, name) = record.host.rsplit_once(' ').unwrap_or_default();
        let text = format!("container {} runs on another host", record.id);
        let hint = format!(
            "commands on {name:?} reach it; if that is this host's old name, it needs it again for one `rless ps`"
        );
        return Err(Fault::new(Kind::Conflict, text).hint(hint).into());
    }
    Ok(())
}

/// As podman says that a container is in the wrong state for what was asked.
#[must_use]
pub fn improper(record: &Record, can_only: &str) -> Fault {
    let text = format!(
        "{can_only}. {} is in state {}: container state improper",
        record.id,
        record.state.word()
    );
    Fault::new(Kind::Failed, text)
}

/// Refuses `restart` of one that is paused: nobody in there could heed a signal, it would have to be killed.
pub(super) fn unrestartable(record: &Record) -> Fault {
    let text =
        "unable to restart a container in a paused or unknown state: container state improper";
    failed(text).hint(format!("`rless unpause {}` lets it go on", record.name))
}

/// `stop` for the command line. One that has ended is no error, but is not started again by its policy either.
///
/// # Errors
/// It is paused, or as [`stop`].
pub fn stop_by_user(containers: &Containers, record: &Record, timeout: Option<u64>) -> Result<()> {
    if record.state == State::Paused {
        return Err(improper(record, "can only stop created or running containers").into());
    }
    if record.state.live()
        && let Some(now) = stop(containers, record, timeout)?
    {
        containers.emit(&now, Action::Stop);
    }
    // Its supervisor may have been killed before, or just now.
    let _ = std::fs::remove_file(containers.revive_dir().join(&record.id));
    Ok(())
}
