//! Data files: the content of upper files, `data/<xx>/<number in hex>`.
//!
//! Numbers are never inode numbers: a file truncated to nothing gets a fresh one with its next
//! write, so that the old content stays untouched until the journal no longer needs it.

use super::super::meta::{Res, errno};
use super::io_errno;
use crate::error::Result;
use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statvfs::{Statvfs, fstatvfs};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The directory of data files.
pub(crate) struct DataDir {
    dir: OwnedFd,
    next: AtomicU64,
    /// A subdirectory was made and its name may not be durable.
    names_dirty: AtomicBool,
}

fn place(id: u64) -> String {
    format!("{:02x}/{id:x}", id & 0xff)
}

impl DataDir {
    /// Opens (or makes) `upper/data`.
    ///
    /// # Errors
    /// The directory cannot be made or opened.
    pub(crate) fn open(upper: &Path) -> Result<DataDir> {
        let path = upper.join("data");
        let what = || format!("opening {}", path.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(what)?;
        let dir = File::open(&path).with_context(what)?;
        Ok(DataDir {
            dir: dir.into(),
            next: AtomicU64::new(1),
            names_dirty: AtomicBool::new(false),
        })
    }

    /// A number no data file had before.
    pub(crate) fn alloc(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The next number [`DataDir::alloc`] would give.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Never give out numbers below `id` again.
    pub(crate) fn reserve(&self, id: u64) {
        self.next.fetch_max(id, Ordering::Relaxed);
    }

    /// Opens a data file, making it if `create`.
    ///
    /// # Errors
    /// As open(2).
    pub(crate) fn file(&self, id: u64, create: bool) -> Res<File> {
        let name = place(id);
        let mut flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        if create {
            flags |= OFlag::O_CREAT | OFlag::O_EXCL;
        }
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match openat(&self.dir, name.as_str(), flags, mode) {
            Err(Errno::ENOENT) if create => {
                match mkdirat(&self.dir, &name[..2], Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {
                        self.names_dirty.store(true, Ordering::Release);
                    }
                    Err(e) => return Err(e),
                }
                openat(&self.dir, name.as_str(), flags, mode).map(File::from)
            }
            other => other.map(File::from),
        }
    }

    /// Deletes a data file; one that is not there is fine.
    pub(crate) fn delete(&self, id: u64) -> Res<()> {
        match unlinkat(&self.dir, place(id).as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Deletes every data file but those in `keep` (after a crash).
    pub(crate) fn sweep(&self, path: &Path, keep: &HashSet<u64>) -> Result<()> {
        let path = path.join("data");
        let what = || format!("sweeping {}", path.display());
        for sub in std::fs::read_dir(&path).with_context(what)? {
            for file in std::fs::read_dir(sub.with_context(what)?.path()).with_context(what)? {
                let file = file.with_context(what)?;
                let id = file
                    .file_name()
                    .to_str()
                    .and_then(|n| u64::from_str_radix(n, 16).ok());
                if let Some(id) = id {
                    self.reserve(id + 1);
                    if !keep.contains(&id) {
                        std::fs::remove_file(file.path()).with_context(what)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes everything of the file system below to its disk.
    ///
    /// # Errors
    /// As syncfs(2).
    pub(crate) fn syncfs(&self) -> Res<()> {
        nix::unistd::syncfs(&self.dir)
    }

    /// The host file system's state.
    pub(crate) fn statfs(&self) -> Res<Statvfs> {
        fstatvfs(&self.dir)
    }

    /// Makes a data file's content durable, and its name unless it is. One that is not there has
    /// been deleted: nothing needs it.
    ///
    /// # Errors
    /// As fdatasync(2).
    pub(crate) fn sync(&self, id: u64, named: bool) -> Res<()> {
        match self.file(id, false) {
            Ok(file) => file.sync_data().map_err(|e| io_errno(&e))?,
            Err(Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(e),
        }
        if named { Ok(()) } else { self.sync_names(id) }
    }

    /// Makes the names of new data files durable.
    pub(crate) fn sync_names(&self, id: u64) -> Res<()> {
        if self.names_dirty.swap(false, Ordering::AcqRel) {
            nix::unistd::fsync(&self.dir)?;
        }
        let sub = openat(
            &self.dir,
            &place(id)[..2],
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let sub = match sub {
            // No descriptor is left: the slow way, which needs none.
            Err(Errno::EMFILE | Errno::ENFILE) => return self.syncfs(),
            sub => sub?,
        };
        File::from(sub).sync_all().map_err(|e| io_errno(&e))
    }
}

/// `pwrite` all of it.
///
/// # Errors
/// As pwrite(2); a part may have been written.
pub(crate) fn write_all(file: &File, data: &[u8], offset: u64) -> Res<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset).map_err(|e| errno(&e))
}

/// `pread` until `buf` is full or the file ends; the rest is zeroed.
///
/// # Errors
/// As pread(2).
pub(crate) fn read_padded(file: &File, buf: &mut [u8], offset: u64) -> Res<()> {
    let mut n = 0;
    while n < buf.len() {
        match std::os::unix::fs::FileExt::read_at(file, &mut buf[n..], offset + n as u64) {
            Ok(0) => break,
            Ok(k) => n += k,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(errno(&e)),
        }
    }
    buf[n..].fill(0);
    Ok(())
}
