//! Frozen states of an upper, as directories: `upper/frozen/NAME/`.
//!
//! What a frozen state is made of and why its files may be shared is in `upper/freeze.rs`. Here is how one comes and goes:
//!
//! - It is made in `upper/frozen/.new-RANDOM/`, whose file `lock` its maker holds. One that is only looked at (a commit, an
//!   archive) keeps that name and goes when its [`Frozen`] is dropped; one that is kept is renamed to its name,
//!   when everything in it is durable. Unlocked `.new-…` are left-overs: the next open of the upper, and the next freeze,
//!   remove them. The directory `frozen` itself is locked while one is made until its `lock` is held, and while it is looked
//!   whether one is.
//! - *Restoring* makes a second frozen state's worth of links, beside, and then gives that the name `upper/restore` (the
//!   point of no return). The next open puts its `data` and its `journal` in the place of the upper's, in this order, each by a
//!   rename, and goes on where an earlier one was killed.
//!
//! # Space
//!
//! A frozen state takes its journal, and of its content what the upper does not have any more ([`own_bytes`]): files of which
//! it has the only link. The upper's own figure and limit do not count it.

use super::Cow;
use super::meta::lk;
use crate::error::Result;
use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const UNFINISHED: &str = ".new-";

/// A frozen state in the making, or one that is only looked at: gone when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    dir: PathBuf,
    _lock: Flock<File>,
}

/// One maker at a time in this process: the names are random all the same.
static MAKING: Mutex<()> = Mutex::new(());

impl Frozen {
    /// A place for a frozen state of `upper`, for [`Cow::freeze`] in whatever process serves it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn place(upper: &Path) -> Result<Frozen> {
        let _one = lk(&MAKING);
        let all = upper.join("frozen");
        let what = || format!("making a directory in {}", all.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&all)
            .with_context(what)?;
        sweep(upper);
        let _alone = alone(&all);
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("{e}"))?;
        let dir = all.join(format!("{UNFINISHED}{:016x}", u64::from_le_bytes(bytes)));
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(what)?;
        let lock = File::create_new(dir.join("lock")).with_context(what)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| e)
            .with_context(what)?;
        Ok(Frozen { dir, _lock: lock })
    }

    /// Where it is: what [`Cow::freeze`] takes, and then an upper.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Keeps it, under a name that none has.
    ///
    /// # Errors
    /// The name is taken, or the host's answer; it is gone then.
    pub fn keep(self, name: &str) -> Result<()> {
        let all = self.dir.parent().unwrap_or(&self.dir).to_owned();
        let what = || format!("naming the state {name}");
        sync(&self.dir()).with_context(what)?;
        nix::fcntl::renameat2(
            nix::fcntl::AT_FDCWD,
            &self.dir(),
            nix::fcntl::AT_FDCWD,
            &all.join(name),
            nix::fcntl::RenameFlags::RENAME_NOREPLACE,
        )
        .with_context(what)?;
        sync(&all).with_context(what)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // What stays is swept.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Cow {
    /// Makes a frozen state of this moment in `dir` ([`Frozen::dir`]): changes wait while its files are linked. Without
    /// `content` it has no content, and can only be compared.
    ///
    /// # Errors
    /// There is no upper; what the host answers.
    pub fn freeze(&self, dir: &Path, content: bool) -> Result<()> {
        let what = || format!("freezing the container's files in {}", dir.display());
        DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .with_context(what)?;
        self.tree.freeze(dir, content).with_context(what)
    }
}

/// Directory of the frozen state of this name.
#[must_use]
pub fn state(upper: &Path, name: &str) -> PathBuf {
    upper.join("frozen").join(name)
}

/// Bytes on disk that are gone when the frozen state is.
///
/// # Errors
/// It cannot be read.
pub fn own_bytes(upper: &Path, name: &str) -> Result<u64> {
    let dir = state(upper, name);
    let what = || format!("reading {}", dir.display());
    let mut sum = 0;
    let mut dirs = vec![dir.clone()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).with_context(what)? {
            let entry = entry.with_context(what)?;
            let meta = entry.metadata().with_context(what)?;
            match meta.is_dir() {
                true => dirs.push(entry.path()),
                false if meta.nlink() == 1 => sum += meta.blocks() * 512,
                false => {}
            }
        }
    }
    Ok(sum)
}

/// Names and times of the frozen states that are kept, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn list(upper: &Path) -> Result<Vec<(String, std::time::SystemTime)>> {
    let all = upper.join("frozen");
    let what = || format!("reading {}", all.display());
    let entries = match fs::read_dir(&all) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(what)?,
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry.with_context(what)?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            // Nothing changes a frozen state's journal.
            let journal = entry.path().join("journal");
            let time = fs::metadata(journal).and_then(|m| m.modified());
            out.push((name, time.with_context(what)?));
        }
    }
    out.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    Ok(out)
}

/// Removes a frozen state that is kept; false when there is none of that name.
///
/// # Errors
/// It cannot be removed.
pub fn remove(upper: &Path, name: &str) -> Result<bool> {
    let gone = Frozen::place(upper)?;
    match fs::rename(state(upper, name), gone.dir()) {
        Err(_) if !state(upper, name).exists() => return Ok(false),
        other => other.with_context(|| format!("removing the state {name}"))?,
    }
    Ok(true)
}

/// Puts a kept frozen state in the place of the upper's, which nobody serves. The frozen state stays.
///
/// # Errors
/// There is none of that name; the host's answer. Nothing has changed then.
pub fn restore(upper: &Path, name: &str) -> Result<()> {
    let what = || format!("restoring the state {name}");
    // One that was killed behind its point of no return.
    finish_restore(upper).with_context(what)?;
    let next = Frozen::place(upper)?;
    let (from, to) = (state(upper, name), next.dir());
    link_tree(&from, &to).with_context(what)?;
    let journal = to.join("journal");
    // A journal is written to: it is the new one's own.
    fs::remove_file(&journal)
        .and_then(|()| fs::copy(from.join("journal"), &journal))
        .and_then(|_| File::open(&journal)?.sync_all())
        .with_context(what)?;
    sync(&to).with_context(what)?;
    fs::rename(&to, upper.join("restore")).with_context(what)?;
    sync(upper).with_context(what)?;
    finish_restore(upper).with_context(what)
}

/// Goes on with a restore that has passed its point of no return; also a first step of opening an upper.
pub(super) fn finish_restore(upper: &Path) -> io::Result<()> {
    let from = upper.join("restore");
    if !from.is_dir() {
        return Ok(());
    }
    if from.join("data").is_dir() {
        match fs::remove_dir_all(upper.join("data")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::rename(from.join("data"), upper.join("data"))?,
        }
        sync(upper)?;
    }
    if from.join("journal").exists() {
        fs::rename(from.join("journal"), upper.join("journal"))?;
        sync(upper)?;
    }
    fs::remove_dir_all(&from)?;
    sync(upper)
}

/// Removes what dead makers left.
pub(super) fn sweep(upper: &Path) {
    let Ok(entries) = fs::read_dir(upper.join("frozen")) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED.as_bytes())
        {
            continue;
        }
        // Held until it is removed; a look at it has found nobody between its making and its lock.
        let lock = {
            let _alone = alone(&upper.join("frozen"));
            let lock = File::open(entry.path().join("lock"));
            lock.map(|f| Flock::lock(f, FlockArg::LockExclusiveNonblock))
        };
        if !matches!(lock, Ok(Err(_))) {
            // What cannot be removed is tried again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Keeps makers and sweepers apart for a moment; where directories cannot be locked nothing does.
fn alone(all: &Path) -> Option<Flock<File>> {
    Flock::lock(File::open(all).ok()?, FlockArg::LockExclusive).ok()
}

/// Makes the files and directories in `from` again in `to`, as links.
fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &there)?;
        } else if fs::hard_link(entry.path(), &there).is_err() {
            fs::copy(entry.path(), &there)?;
            File::open(&there)?.sync_all()?;
        }
    }
    sync(to)
}

/// Makes the names in a directory, and in those in it, durable.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() && entry.file_name() == "data" {
            sync(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sweeps_spares_who_has_just_begun() {
        let upper = tempfile::tempdir().unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                // As another process does, which `MAKING` does not keep away.
                scope.spawn(|| {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        sweep(upper.path());
                    }
                });
            }
            let made: Result<()> = (0..300).try_for_each(|_| {
                let place = Frozen::place(upper.path())?;
                fs::create_dir(place.dir())?;
                Ok(())
            });
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            made.unwrap();
        });
        // The dead leave theirs with a lock that nobody holds, or without.
        let frozen = upper.path().join("frozen");
        fs::create_dir_all(frozen.join(".new-1/state/data")).unwrap();
        File::create(frozen.join(".new-1/lock")).unwrap();
        fs::create_dir(frozen.join(".new-2")).unwrap();
        sweep(upper.path());
        assert_eq!(fs::read_dir(&frozen).unwrap().count(), 0);
        assert!(!remove(upper.path(), "none").unwrap());
    }
}
