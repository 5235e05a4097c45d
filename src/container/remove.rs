//! Removing containers: `rm`, `--replace`. What is done to the files, and in which order, is in `clear.rs`.
//!
//! Of two that remove one container one removes it, and the other finds that there is none any more, as
//! with podman: the error is "no such container", exit code 1, unless it came with `--force` or `--ignore`, for which
//! no container is no error (podman-rm(1); `libpod` gives `ErrNoSuchCtr`, which its `rm` ignores then).
//! One that its own `--rm` removes while `rm -f` stops it has been removed by `rm -f`.

use super::record::{Containers, Record};
use super::{shared, stop};
use crate::error::{self, Fault, Kind, Result};
use crate::store::Store;

/// How to remove.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Stop a running container first.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
    /// Seconds it may take to stop before it is killed; `None`: as it was made.
    pub timeout: Option<u64>,
}

/// Removes the container of this record.
///
/// # Errors
/// Kind `Conflict`: it runs and `force` was not given. Kind `NoSuchObject`: somebody else has just
/// removed it. Something cannot be removed.
pub fn remove(store: &Store, record: &Record, how: How) -> Result<()> {
    let containers = Containers::of(store);
    shared::check_unused(&containers, record)?;
    let mut record = record.clone();
    let mut rounds = 0;
    loop {
        if !record.state.live() {
            let gone = || super::record::no_such(&record.id).into();
            let Some(_lock) = containers.lock(&record.id)? else {
                return Err(gone());
            };
            // Only now nobody else changes it.
            match containers.read(&containers.place(&record.id))? {
                None => return Err(gone()),
                Some(now) if !now.state.live() => return containers.erase(&now, how.volumes),
                Some(now) => record = now,
            }
        }
        stop::elsewhere(&record)?;
        if !how.force {
            return Err(conflict(
                &record,
                "as it is running - running or paused containers cannot be removed without force",
            )
            .hint("rless rm -f stops it first")
            .into());
        }
        // One that was starting has no process to end yet, and runs when the wait is over: again, then.
        rounds += 1;
        if rounds > 3 {
            return Err(conflict(&record, "as it does not end").into());
        }
        // With --rm its supervisor removes it: then there is nothing left to do.
        match stop::stop_to_remove(&containers, &record, how.timeout)? {
            None => return Ok(()),
            Some(now) => record = now,
        }
    }
}

/// As [`remove`]; no such container (any more) is no error.
///
/// # Errors
/// As [`remove`].
pub fn remove_if_there(store: &Store, record: &Record, how: How) -> Result<()> {
    match remove(store, record, how) {
        Err(e) if error::kind(&e) == Kind::NoSuchObject => Ok(()),
        result => result,
    }
}

fn conflict(record: &Record, why: &str) -> Fault {
    Fault::new(
        Kind::Conflict,
        format!(
            "cannot remove container {} {why}: container state improper",
            record.id
        ),
    )
}

/// Removes the container called `name`, if there is one (`--replace`).
///
/// # Errors
/// It cannot be removed.
pub fn replace(store: &Store, name: &str) -> Result<()> {
    let containers = Containers::of(store);
    match containers.find(name) {
        Ok(record) if record.name == name => remove_if_there(
            store,
            &record,
            How {
                force: true,
                // As podman's.
                volumes: false,
                timeout: None,
            },
        ),
        _ => Ok(()),
    }
}
