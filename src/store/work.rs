//! A process's place for temporary files: `tmp/<random>/`, alive while it holds the lock in it.
//!
//! What a dead process left is cleared by the next command that opens the store. A dead pull may also have left whole layers that
//! no image refers to: `tmp/collect` says so, and the next command that can afford it collects ([`super::gc`]). Until then a
//! repeated pull finds those layers.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Store;
use super::files::{self, Lock};
use crate::error::Result;

const MARK: &str = "collect";

/// A directory below `tmp/`; it and all in it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    path: PathBuf,
    _lock: Lock,
}

impl Work {
    pub(crate) fn begin(store: &Store) -> Result<Work> {
        let tmp = store.tmp_dir();
        let path = tempfile::Builder::new()
            .prefix("w-")
            .tempdir_in(&tmp)
            .with_context(|| format!("making a temporary directory in {}", tmp.display()))?
            .keep();
        let lock = Lock::exclusive(&path.join("lock"))?;
        Ok(Work { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Left-overs are swept by the next command.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Removes the directories of dead processes and marks that collection is due. Errors wait for the next command.
pub(crate) fn sweep(tmp: &Path) {
    let Ok(entries) = fs::read_dir(tmp) else {
        return;
    };
    let mut files = false;
    for entry in entries.flatten() {
        let path = entry.path();
        if !path.is_dir() {
            files = true;
            continue;
        }
        let lock = path.join("lock");
        // Its maker takes the lock a moment after it makes the directory.
        if !lock.exists() && !is_old(&path) {
            continue;
        }
        if let Ok(Some(_held)) = Lock::try_exclusive(&lock) {
            drop(fs::File::create(tmp.join(MARK)));
            drop(fs::remove_dir_all(&path));
        }
    }
    if files {
        files::sweep_unfinished(tmp);
    }
}

fn is_old(path: &Path) -> bool {
    let age = fs::metadata(path)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|t| t.elapsed().ok());
    age.is_some_and(|a| a.as_secs() > 60)
}

/// Whether a dead process may have left something to collect.
pub(crate) fn collection_due(tmp: &Path) -> bool {
    tmp.join(MARK).exists()
}

/// Forgets the mark, before collecting: what dies meanwhile sets it again.
pub(crate) fn clear_mark(tmp: &Path) -> Result<()> {
    files::remove_file(&tmp.join(MARK)).map(drop)
}

/// Sets the mark: somebody else must collect.
pub(crate) fn set_mark(tmp: &Path) {
    drop(fs::File::create(tmp.join(MARK)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_spares_the_living_and_marks_for_the_dead() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("d"), &dir.path().join("r")).unwrap();
        let alive = Work::begin(&store).unwrap();
        let dead = store.tmp_dir().join("w-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("x"), "y").unwrap();
        sweep(&store.tmp_dir());
        assert!(!dead.exists());
        assert!(alive.path().exists());
        assert!(collection_due(&store.tmp_dir()));
        let path = alive.path().to_owned();
        drop(alive);
        assert!(!path.exists());
    }
}
