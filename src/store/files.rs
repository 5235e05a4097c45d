//! Small files that survive a crash: private directories, atomic replacement, locks, JSON.
//!
//! A metadata file is written to a temporary name in its own directory (`.new-…`), flushed, renamed over the
//! final name, and the directory is flushed: after kill -9 or a power cut the name holds the old or the
//! new bytes. Modes are 0700/0600 whatever the umask. A writer holds a lock on its temporary file, so that
//! [`sweep_unfinished`] can tell a dead writer's left-over from one at work. Names that begin with a dot are never objects.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Result, failed};

/// Prefix of temporary files beside their final name.
const UNFINISHED: &str = ".new-";
/// Metadata files are small; a larger one is damaged or not ours.
const METADATA_LIMIT: u64 = 16 << 20;

/// Makes `path` as a directory of mode 0700 whatever the umask; one that exists already is left alone.
///
/// # Errors
/// The parent is missing or not writable, or something other than a directory has that name.
pub fn create_dir_private(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("setting the mode of {}", path.display())),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(e).with_context(|| format!("making directory {}", path.display())),
    }
}

/// Like [`create_dir_private`], with every missing parent.
///
/// # Errors
/// As [`create_dir_private`].
pub fn create_dir_all_private(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dir_all_private(parent)?;
    }
    create_dir_private(path)
}

/// Replaces `path` by `bytes`, atomically and durably, with mode 0600.
///
/// # Errors
/// Any file-system error, with the path; nothing is changed then.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut temp = unfinished_in(dir)?;
        temp.write_all(bytes)?;
        temp.as_file().sync_all()?;
        temp.persist(path).map_err(|e| e.error)?;
        sync_dir(dir)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// A file in the making in `dir`: mode 0600, locked, gone when dropped, and cleared by [`sweep_unfinished`] when the
/// process dies first.
///
/// # Errors
/// It cannot be made.
pub fn unfinished_in(dir: &Path) -> io::Result<tempfile::NamedTempFile> {
    let temp = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)?;
    // Not every file system can lock; the age check of the sweep remains then.
    drop(temp.as_file().try_lock());
    temp.as_file()
        .set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(temp)
}

/// Makes the names in `dir` durable.
///
/// # Errors
/// The directory cannot be opened or flushed.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // Some network file systems refuse fsync on a directory; their renames are synchronous.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        r => r,
    }
}

/// Removes `path`; `false` when it was not there.
///
/// # Errors
/// Any other file-system error, with the path.
pub fn remove_file(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("removing {}", path.display())),
    }
}

/// The bytes of `path`, `None` when there is no such file.
///
/// # Errors
/// It is larger than `limit`, not a regular file, or cannot be read.
pub fn read_limited(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
    {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("opening {}", path.display())),
    };
    let meta = file
        .metadata()
        .with_context(|| format!("reading {}", path.display()))?;
    if !meta.is_file() {
        return Err(failed(format!("{} is not a regular file", path.display())).into());
    }
    if meta.len() > limit {
        return Err(failed(format!(
            "{} has {} bytes, more than the {limit} allowed",
            path.display(),
            meta.len()
        ))
        .into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    // Not to its end, which costs a read(2) more: such files are replaced, they do not grow.
    file.take(meta.len())
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(Some(bytes))
}

/// Reads a JSON file; `None` when there is no such file.
///
/// # Errors
/// It cannot be read or does not hold a `T`.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(bytes) = read_limited(path, METADATA_LIMIT)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is damaged", path.display()))
        .map(Some)
}

/// Writes `value` as JSON through [`atomic_write`].
///
/// # Errors
/// As [`atomic_write`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut bytes =
        serde_json::to_vec_pretty(value).with_context(|| format!("encoding {}", path.display()))?;
    bytes.push(b'\n');
    atomic_write(path, &bytes)
}

/// Removes what dead writers left in `dir`: temporary files that nobody has locked and that are older than ten seconds.
/// Errors are ignored: the next command tries again.
pub fn sweep_unfinished(dir: &Path) {
    sweep_older(dir, Duration::from_secs(10));
}

/// As [`sweep_unfinished`], whatever their age: for a caller that knows that nobody begins a file there now.
pub fn sweep_unfinished_now(dir: &Path) {
    sweep_older(dir, Duration::ZERO);
}

fn sweep_older(dir: &Path, age: Duration) {
    let Ok(entries) = fs::read_dir(dir) else {
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
        let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else {
            continue;
        };
        let old = file
            .metadata()
            .and_then(|m| m.modified())
            .map(|t| SystemTime::now().duration_since(t).unwrap_or_default() >= age)
            .unwrap_or(false);
        if old && file.try_lock().is_ok() {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// A lock file held: one per object, released on drop (or by the kernel when the process dies).
///
/// It is a `flock(2)`, which NFS turns into a byte-range lock that other hosts see. A child made by fork shares it:
/// drop it before forking, or close it in the child.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits until this process alone holds `path` (made with mode 0600 if missing).
    ///
    /// # Errors
    /// The file cannot be made, or its file system has no locks.
    pub fn exclusive(path: &Path) -> Result<Lock> {
        Self::take(path, |f| f.lock().map(|()| true))?
            .ok_or_else(|| anyhow!("locking {}", path.display()))
    }

    /// Waits until nobody holds `path` exclusively, then shares it.
    ///
    /// # Errors
    /// As [`Lock::exclusive`].
    pub fn shared(path: &Path) -> Result<Lock> {
        Self::take(path, |f| f.lock_shared().map(|()| true))?
            .ok_or_else(|| anyhow!("locking {}", path.display()))
    }

    /// As [`Lock::exclusive`] without waiting: `None` when somebody else holds it.
    ///
    /// # Errors
    /// As [`Lock::exclusive`].
    pub fn try_exclusive(path: &Path) -> Result<Option<Lock>> {
        Self::take(path, |f| match f.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        })
    }

    /// As [`Lock::exclusive`], waiting for `patience` at most: `None` when somebody else holds it for longer.
    ///
    /// # Errors
    /// As [`Lock::exclusive`].
    pub fn exclusive_within(path: &Path, patience: Duration) -> Result<Option<Lock>> {
        let began = Instant::now();
        loop {
            let lock = Self::try_exclusive(path)?;
            if lock.is_some() || began.elapsed() >= patience {
                return Ok(lock);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn take(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> Result<Option<Lock>> {
        let once = || -> io::Result<Option<Option<File>>> {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            if !lock(&file)? {
                return Ok(Some(None));
            }
            // Its last holder may have unlinked the file while we waited: then it locks nothing.
            let held = file.metadata()?;
            Ok(match fs::metadata(path) {
                Ok(now) if now.ino() == held.ino() && now.dev() == held.dev() => Some(Some(file)),
                Ok(_) => None,
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            })
        };
        loop {
            match once() {
                Ok(Some(file)) => {
                    return Ok(file.map(|file| Lock {
                        file,
                        path: path.to_owned(),
                    }));
                }
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).with_context(|| format!("locking {}", path.display())),
            }
        }
    }

    /// The file that is locked, for what a holder wants to write into it.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Unlinks the lock file and releases it: for an object that is gone.
    pub fn remove(self) {
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_with_mode_0600_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        atomic_write(&path, b"old").unwrap();
        atomic_write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn lock_excludes_and_survives_removal_by_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let held = Lock::exclusive(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || Lock::exclusive(&path).unwrap()
        });
        std::thread::sleep(Duration::from_millis(30));
        held.remove();
        let second = waiter.join().unwrap();
        assert!(path.exists(), "the waiter made a new file and locked that");
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(second);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn sweep_spares_a_writer_at_work_and_takes_an_old_orphan() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        let make = |name: &str| {
            let f = File::create(dir.path().join(name)).unwrap();
            f.set_modified(old).unwrap();
            f
        };
        drop(make(".new-orphan"));
        let busy = make(".new-busy");
        busy.try_lock().unwrap();
        drop(make("kept.json"));
        sweep_unfinished(dir.path());
        assert!(!dir.path().join(".new-orphan").exists());
        assert!(dir.path().join(".new-busy").exists());
        assert!(dir.path().join("kept.json").exists());
    }

    #[test]
    fn reading_a_fifo_or_a_huge_file_is_an_error_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read_limited(&fifo, 10).is_err());
        let big = dir.path().join("big");
        File::create(&big).unwrap().set_len(11).unwrap();
        assert!(read_limited(&big, 10).is_err());
        assert!(
            read_limited(&dir.path().join("none"), 10)
                .unwrap()
                .is_none()
        );
    }
}
