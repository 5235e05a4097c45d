//! Removing a container, and repairing what a removal, a creation or a power cut cut short left.
//!
//! **Removing**, in this order, by whoever holds the container's lock:
//!
//! 1. each of its anonymous volumes is told whether it goes with the container (`owner`, a symbolic
//!    link to the ID in the volume's directory) or is kept (no such link);
//! 2. the directory is renamed to `.gone/ID`: the one step that matters. Before it the container is
//!    there as it was, except that a volume may already be kept or not; both are repeated by the next `rm`;
//! 3. the name, the live marker, the volumes whose `owner` is this ID, and the directory are deleted.
//!
//! Killed after 2, the next command finds `.gone/ID` with its lock free and does 3 again. That needs
//! no knowledge of how the container was removed: what is kept has no `owner` any more, in `rm`
//! as in `--rm`, for a container that was never finished as for one that ran for a year. The
//! lock moves with the directory, so who waits for it waits for all of 3.
//!
//! Two that remove one container: the second waits for the lock, finds no directory when it is its
//! turn, and says so (`remove.rs`). A bystander deletes in 3 only what nobody holds the lock of. What fails in 3 leaves
//! `.gone/ID` where it is, for the next command.
//!
//! A volume is deleted under its lock (`volumes.rs`), after the last look at who uses it; it is kept if another container
//! does, or may: a record that cannot be read may name it.
//!
//! **Names.** A name whose container is gone is free: whoever wants it or lists containers unlinks it. A
//! container whose name is gone (a power cut: names are not flushed) gets it back, or a random
//! one if another container has it by now. Names are unlinked under `names/.lock` only, so that nobody
//! unlinks one that has been given away since it looked. A container's lock is taken before that of the names, and
//! neither is waited for without end.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::events::Action;
use super::record::{Containers, Record, is_id, locked};
use super::{swept, volumes};
use crate::error::{Fault, Kind, Result, ResultExt, failed};
use crate::store::files::{self, Lock};

/// How long another command may hold the names.
const NAMES_HELD: Duration = Duration::from_secs(10);

impl Containers {
    /// Removes the container of `record`, with its anonymous volumes if `volumes` says so (never those that
    /// another container uses). The caller holds its lock.
    ///
    /// # Errors
    /// It could not be removed; or it was, and deleting some of it failed: a later command tries again.
    pub fn erase(&self, record: &Record, volumes: bool) -> Result<()> {
        for name in &record.anonymous_volumes {
            let goes = volumes && !self.used_by_another(name, &record.id);
            volumes::set_owner(&self.volumes, name, goes.then_some(&record.id))?;
        }
        // It may be another container's by now, or somebody else's.
        if let Some(path) = &record.cidfile
            && fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() == 64)
            && fs::read(path).is_ok_and(|id| id == record.id.as_bytes())
        {
            let _ = fs::remove_file(path);
        }
        self.discard(&record.id)?;
        self.emit(record, Action::Remove);
        Ok(())
    }

    /// As [`Containers::erase`], for a container that is not finished: its volumes go, they have only been made for it.
    ///
    /// # Errors
    /// As [`Containers::erase`].
    pub fn discard(&self, id: &str) -> Result<()> {
        swept::vanish(&self.root, id, id)?;
        self.clear_gone(id)
    }

    /// Every record as it is, to be asked what is in use. A container that has none yet holds what it uses otherwise.
    ///
    /// # Errors
    /// Kind `Conflict`: a record cannot be read, so that what its container uses is not known.
    pub fn all(&self) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        for id in self.ids()? {
            all.extend(self.read(&self.place(&id)).fault(|| unknown_user(&id))?);
        }
        Ok(all)
    }

    /// The containers that use `volume`.
    ///
    /// # Errors
    /// As [`Containers::all`].
    pub fn users(&self, volume: &str) -> Result<Vec<Record>> {
        let mut users = self.all()?;
        users.retain(|r| r.volumes.iter().any(|v| v == volume));
        Ok(users)
    }

    fn used_by_another(&self, volume: &str, id: &str) -> bool {
        let users = self.users(volume);
        users.map_or(true, |users| users.iter().any(|r| r.id != id))
    }

    /// Deletes a volume of the removed container `id`, or keeps it for who uses it by now.
    fn delete_volume(&self, volume: &str, id: &str) -> Result<()> {
        let Some(claimed) = volumes::claim(&self.volumes, volume)? else {
            return Ok(());
        };
        if self.used_by_another(volume, id) {
            return volumes::set_owner(&self.volumes, volume, None);
        }
        volumes::delete(&self.volumes, volume, claimed)
    }

    /// Deletes what is left of a container that was removed, or never got its place.
    pub(super) fn clear_gone(&self, id: &str) -> Result<()> {
        let dir = swept::gone(&self.root, id);
        if !dir.exists() {
            return remove_dir(&self.place(id).live);
        }
        swept::alone(&dir, || {
            let record = files::read_json::<Record>(&dir.join("record.json"));
            let record = record.ok().flatten();
            let mut result = match &record {
                Some(record) => self.erase_name(id, &record.name),
                None => self.erase_names(id),
            };
            result = result.and(remove_dir(&self.place(id).live));
            let made = match record {
                Some(record) => record.anonymous_volumes,
                None => volumes::names(&self.volumes)?,
            };
            let goes = |v: &&String| volumes::owner(&self.volumes, v).as_deref() == Some(id);
            let going: Vec<&String> = made.iter().filter(goes).collect();
            if !going.is_empty() {
                // They are not to be gone when a power cut brings the container back.
                files::sync_dir(&self.root).context("removing the container's directory")?;
            }
            for volume in going {
                result = result.and(self.delete_volume(volume, id));
            }
            // While something is left to do the next command has to find it.
            result?;
            delete_directory(&dir)
        })
    }

    /// Deletes what removals and creations that were killed left: nothing to do costs a few system calls.
    pub fn sweep(&self) {
        swept::sweep(&self.root, |id| {
            if !is_id(id) {
                let _ = fs::remove_dir_all(swept::gone(&self.root, id));
            } else {
                let _ = self.clear_abandoned(id);
            }
        });
        volumes::sweep(&self.volumes);
    }

    /// As [`Containers::clear_gone`], for a bystander: not while its remover is at it.
    pub(super) fn clear_abandoned(&self, id: &str) -> Result<()> {
        if locked(&swept::gone(&self.root, id).join("lock")) {
            return Ok(());
        }
        self.clear_gone(id)
    }

    /// Unlinks names without a container. `known` containers exist: as many names are all in use.
    pub(super) fn sweep_names(&self, known: usize) {
        let taken = self.taken();
        if taken.len() > known {
            for name in taken {
                let _ = self.drop_stale_name(&name);
                let _ = self.drop_second_name(&name);
            }
        }
    }

    /// Unlinks a name whose container has another one: renaming it was cut short.
    fn drop_second_name(&self, name: &str) -> Result<()> {
        let path = self.names().join(name);
        // Who is renaming holds it.
        let _lock = self.lock_names()?;
        let Ok(id) = fs::read_link(&path) else {
            return Ok(());
        };
        let id = id.to_string_lossy();
        let record = self.read(&self.place(&id))?;
        if let Some(own) = record.map(|r| r.name).filter(|own| own != name)
            && fs::read_link(self.names().join(own)).is_ok_and(|t| t == Path::new(&*id))
        {
            files::remove_file(&path)?;
        }
        Ok(())
    }

    /// There are fewer names than containers.
    pub(super) fn names_missing(&self) -> Result<bool> {
        Ok(self.taken().len() < self.ids()?.len())
    }

    pub(super) fn taken(&self) -> Vec<String> {
        let entries = fs::read_dir(self.names()).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        names.filter(|n| !n.starts_with('.')).collect()
    }

    /// Sees to it that the name in `record` is this container's; another's is left to it.
    pub(super) fn repair_name(&self, record: &mut Record) -> Result<()> {
        let is_ours = |name: &str| {
            let target = fs::read_link(self.names().join(name));
            target.is_ok_and(|target| target == Path::new(&record.id))
        };
        if is_ours(&record.name) {
            return Ok(());
        }
        let place = self.place(&record.id);
        files::create_dir_all_private(&self.names())?;
        if self.take_name(&record.name, &record.id)?.is_some() && !is_ours(&record.name) {
            // A supervisor would write the old name again; when it has ended this is tried again.
            let Some(_lock) = Lock::try_exclusive(&place.lock())? else {
                return Ok(());
            };
            let Some(now) = self.read(&place)? else {
                return Ok(());
            };
            *record = now;
            record.name = self.random_name(&record.id)?;
            place.replace(record)?;
        }
        // It may have been removed meanwhile.
        if !place.dir.exists() {
            self.erase_name(&record.id, &record.name)?;
        }
        Ok(())
    }

    /// Held for a moment, or while a supervisor that is renamed answers; who stands still with it is not waited for.
    pub(super) fn lock_names(&self) -> Result<Lock> {
        let lock = Lock::exclusive_within(&self.names().join(".lock"), NAMES_HELD)?;
        Ok(lock.ok_or_else(|| failed("another command holds the names of the containers"))?)
    }

    /// Unlinks a name whose container is gone.
    pub(super) fn drop_stale_name(&self, name: &str) -> Result<()> {
        let path = self.names().join(name);
        let _lock = self.lock_names()?;
        if fs::read_link(&path).is_ok_and(|id| !self.root.join(id).exists()) {
            files::remove_file(&path)?;
        }
        Ok(())
    }

    /// Unlinks `name` if it is the container `id`'s; the caller holds the names' lock.
    pub(super) fn unlink_name(&self, name: &str, id: &str) -> Result<()> {
        let path = self.names().join(name);
        if fs::read_link(&path).is_ok_and(|target| target == Path::new(id)) {
            files::remove_file(&path)?;
        }
        Ok(())
    }

    /// Unlinks `name` if it is the container `id`'s.
    fn erase_name(&self, id: &str, name: &str) -> Result<()> {
        let path = self.names().join(name);
        let is_ours = || fs::read_link(&path).is_ok_and(|target| target == Path::new(id));
        if is_ours() {
            let _lock = self.lock_names()?;
            if is_ours() {
                files::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn erase_names(&self, id: &str) -> Result<()> {
        let taken = self.taken();
        taken.iter().try_for_each(|name| self.erase_name(id, name))
    }
}

fn unknown_user(id: &str) -> Fault {
    Fault::new(
        Kind::Conflict,
        format!("finding out what the container {id} uses"),
    )
    .hint(format!(
        "`rless rm -f {id}` removes it if its record is damaged"
    ))
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Deletes a container's directory, its lock last: who waits for the lock waits for all of it.
fn delete_directory(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_dir(&path)?;
        } else if entry.file_name() != "lock" {
            files::remove_file(&path)?;
        }
    }
    remove_dir(dir)
}

#[cfg(test)]
mod tests;
