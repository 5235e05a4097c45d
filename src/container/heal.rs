//! What is done for a supervisor that was killed, by the next command: its container's last processes ended, its record written,
//! its restart policy noted.
//!
//! A policy is not carried out where the dead supervisor is found, which may be in the middle of anything, but
//! at the end of that command ([`super::start::revive`]): `RUNTIME/revive/ID` says that it is due until it is done, so
//! a kill before that, or what keeps the container from being started, leaves it to a later command.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use super::events::{self, Action, Event};
use super::host;
use super::record::{Containers, Place, Record, State, locked, unless_gone};
use crate::cgroup::Scope;
use crate::error::Result;
use crate::store::files::{self, Lock};

/// This process came upon a container that is to be started again.
static DUE: AtomicBool = AtomicBool::new(false);

/// Whether this process came upon a container that is to be started again.
#[must_use]
pub fn due() -> bool {
    DUE.load(Ordering::Relaxed)
}

impl Containers {
    /// Clears what a dead supervisor left of the container in `place`.
    pub(super) fn heal(&self, place: &Place, id: &str) -> Result<Option<Record>> {
        let Some(_lock) = unless_gone(Lock::try_exclusive(&place.lock()))? else {
            return self.read(place);
        };
        // Read again: the state may have changed before the lock was ours. What cannot be read just
        // now is not deleted for it.
        let Some(mut record) = self.read(place)? else {
            self.discard(id)?;
            return Ok(None);
        };
        if !record.state.live() {
            return Ok(Some(record));
        }
        if let Some(init) = record.init.filter(|_| record.boot == host::boot_id()) {
            host::kill_process(init);
            // In a PID namespace that is not its own the others live on.
            let scope = record.scope.as_ref().map(|path| Scope {
                path: path.into(),
                calls: 0,
            });
            if let Some(Err(e)) = scope.map(|scope| scope.kill()) {
                log::warn!("ending what container {id} left: {e:#}");
            }
            record.helpers.iter().copied().for_each(host::kill_process);
        }
        if record.state.up() {
            let died = Event {
                exit_code: Some(record.exit_code.unwrap_or(137)),
                ..Event::container(&record, Action::Died)
            };
            events::emit(self.events_dir(), &[died]);
        }
        if record.auto_remove {
            self.erase(&record, true)?;
            return Ok(None);
        }
        if record.state.up() {
            record.exit_code.get_or_insert(137);
            record.finished = Some(Timestamp::now());
            record.state = State::Exited;
        } else {
            record.exit_code.get_or_insert(125);
            record.state = record.at_rest();
        }
        let why = || "its supervisor was killed".to_owned();
        record.error.get_or_insert_with(why);
        (record.init, record.supervisor) = (None, None);
        place.replace(&record)?;
        self.note_revival(&record);
        // The marker last: while it is there the next command looks at this container.
        let _ = fs::remove_dir_all(&place.live);
        Ok(Some(record))
    }

    /// Where it is noted that a restart policy was cut short: `RUNTIME/revive/ID`. A boot takes it away.
    pub(super) fn revive_dir(&self) -> PathBuf {
        self.live.with_file_name("revive")
    }

    /// Looks whether a start is owed to a container.
    pub(super) fn note_due(&self) {
        if self.revive_dir().exists() {
            DUE.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that the container's policy would have started it again.
    fn note_revival(&self, record: &Record) {
        let code = record.exit_code.unwrap_or(137);
        let wanted = record.restart.again(code, record.restarts) && !record.stopped_by_user;
        if wanted && record.boot == host::boot_id() {
            let dir = self.revive_dir();
            let make = || -> crate::error::Result<File> {
                files::create_dir_all_private(&dir)?;
                Ok(File::create(dir.join(&record.id))?)
            };
            // Another command may take the empty directory away just then. Failing costs a start, which the user
            // may still ask for.
            let _ = make().or_else(|_| make());
            DUE.store(true, Ordering::Relaxed);
        }
    }

    /// Clears containers whose supervisor died, looking only at those that may be alive, and what
    /// removed ones left.
    pub fn heal_live(&self) {
        self.sweep();
        let Ok(entries) = fs::read_dir(&self.live) else {
            return;
        };
        for entry in entries.flatten() {
            let Ok(id) = entry.file_name().into_string() else {
                continue;
            };
            // Failing here must not fail the command that came by; `ps` and `rm` report it.
            let place = self.place(&id);
            if !locked(&place.lock())
                && let Ok(Some(record)) = self.load(&id)
                && !record.state.live()
                && !locked(&place.lock())
            {
                // Its supervisor was killed after its last record.
                let _ = fs::remove_dir_all(&place.live);
            }
        }
    }
}
