//! Directories that are there whole or not at all: containers and volumes come and go by one rename.
//!
//! ```text
//! ROOT/NAME          the object
//! ROOT/.new/…        in the making; renamed to ROOT/NAME when it is whole
//! ROOT/.new/.lock    shared by everyone who is making something
//! ROOT/.gone/…       removed, being deleted; locked (the directory itself) by who deletes it
//! ```
//!
//! A maker holds `.new/.lock` from before its first file until after its rename, so whoever gets
//! that lock exclusively, without waiting, knows that all of `.new` was left by the dead. Removing
//! is the rename into `.gone`; from there on anyone may delete the rest, one at a time. Looking for
//! what was left costs two reads of empty directories: every command can afford it.
//!
//! Both directories are made with the first object, so that removing needs no space on a full disk.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::error::Result;
use crate::store::files::{self, Lock};

const NEW: &str = ".new";
const GONE: &str = ".gone";
const LOCK: &str = ".lock";

/// Something in the making; given up on drop.
#[derive(Debug)]
pub(super) struct Making {
    /// Where it is made: nothing is there yet.
    pub(super) path: PathBuf,
    _lock: Lock,
}

impl Making {
    /// Begins to make something in `root`; `name` is nobody else's.
    pub(super) fn begin(root: &Path, name: &str) -> Result<Making> {
        for dir in [NEW, GONE] {
            files::create_dir_all_private(&root.join(dir))?;
        }
        let new = root.join(NEW);
        Ok(Making {
            _lock: Lock::shared(&new.join(LOCK))?,
            path: new.join(name),
        })
    }

    /// It is whole: gives it its place. What is there already stays, and is the error
    /// (`ENOTEMPTY`, `EEXIST`) unless it is an empty directory.
    pub(super) fn appear(self, place: &Path) -> io::Result<()> {
        fs::rename(&self.path, place)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // Renamed, normally.
        if fs::symlink_metadata(&self.path).is_ok() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// `name` is being made in `root`, or was when its maker died and nobody swept yet.
pub(super) fn in_the_making(root: &Path, name: &str) -> bool {
    root.join(NEW).join(name).exists()
}

/// Where the removed object `name` is until it is deleted.
pub(super) fn gone(root: &Path, name: &str) -> PathBuf {
    root.join(GONE).join(name)
}

/// Removes `root/name`, which is from now on at [`gone`] of `as_name`; `false` when it was not there.
pub(super) fn vanish(root: &Path, name: &str, as_name: &str) -> Result<bool> {
    files::create_dir_all_private(&root.join(GONE))?;
    match fs::rename(root.join(name), gone(root, as_name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result
            .map(|()| true)
            .with_context(|| format!("removing {}", root.join(name).display())),
    }
}

/// Deletes what dead makers left, and calls `delete` for what was removed and not deleted.
/// Failures are for the next command.
pub(super) fn sweep(root: &Path, mut delete: impl FnMut(&str)) {
    let new = names(&root.join(NEW));
    if new.iter().any(|n| n != LOCK)
        && let Ok(Some(_lock)) = Lock::try_exclusive(&root.join(NEW).join(LOCK))
    {
        for name in new.iter().filter(|n| *n != LOCK) {
            let _ = fs::remove_dir_all(root.join(NEW).join(name));
        }
    }
    for name in names(&root.join(GONE)) {
        delete(&name);
    }
}

/// Runs `delete` on a removed directory unless another process is deleting it, or has.
pub(super) fn alone(dir: &Path, delete: impl FnOnce() -> Result<()>) -> Result<()> {
    let held = match File::open(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.with_context(|| format!("opening {}", dir.display()))?,
    };
    match held.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(()),
        // A file system that cannot lock directories: two may delete at once, which harms nobody.
        Ok(()) | Err(TryLockError::Error(_)) => delete(),
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_makers_directory_is_swept_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let making = Making::begin(dir.path(), "a").unwrap();
        fs::create_dir(&making.path).unwrap();
        fs::create_dir(dir.path().join(".new/dead")).unwrap();
        sweep(dir.path(), |_| {});
        assert!(in_the_making(dir.path(), "a") && in_the_making(dir.path(), "dead"));
        making.appear(&dir.path().join("a")).unwrap();
        sweep(dir.path(), |_| {});
        assert!(!in_the_making(dir.path(), "dead"));
        assert!(dir.path().join("a").exists());
    }

    #[test]
    fn what_is_given_up_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let making = Making::begin(dir.path(), "a").unwrap();
        fs::create_dir(&making.path).unwrap();
        drop(making);
        assert!(!in_the_making(dir.path(), "a"));
    }

    #[test]
    fn one_deletes_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(vanish(dir.path(), "a", "a-1").unwrap());
        assert!(!vanish(dir.path(), "a", "a-2").unwrap());
        let gone = gone(dir.path(), "a-1");
        alone(&gone, || {
            alone(&gone, || panic!("two at once"))?;
            Ok(fs::remove_dir(&gone)?)
        })
        .unwrap();
        alone(&gone, || panic!("it is gone")).unwrap();
    }
}
