//! Small files that are replaced by rename: written whole beside the old one, which takes its place or stays.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::error::Result;

/// A file that is written and has not taken its place yet; dropped, it is gone. Several of them can be written before
/// the first takes its place: what a full disk refuses has then changed nothing.
#[derive(Debug)]
pub(super) struct Draft {
    temporary: PathBuf,
    path: PathBuf,
    kept: bool,
}

impl Draft {
    /// Writes `value` beside `path`, flushed, mode 0600.
    ///
    /// # Errors
    /// The disk is full, or the directory is gone.
    pub(super) fn of<T: Serialize>(path: &Path, value: &T) -> Result<Draft> {
        Draft::write(path, value, true).with_context(|| format!("writing {}", path.display()))
    }

    fn write<T: Serialize>(path: &Path, value: &T, flush: bool) -> io::Result<Draft> {
        let bytes = serde_json::to_vec(value)?;
        let temporary = path.with_extension("new");
        // Made and not found: what lies there may be a link or a pipe of somebody else's (`shared_json`).
        let make = || {
            File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)
        };
        let mut file = match make() {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&temporary)?;
                make()?
            }
            made => made?,
        };
        let draft = Draft {
            temporary,
            path: path.to_owned(),
            kept: false,
        };
        file.write_all(&bytes)?;
        if flush {
            file.sync_all()?;
        }
        Ok(draft)
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// The directory is gone, or does not let itself be written to.
    pub(super) fn keep(self) -> Result<()> {
        let what = format!("writing {}", self.path.display());
        self.rename().context(what)
    }

    fn rename(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `value` by rename, without flushing it, mode 0600.
pub(crate) fn quick_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    put_json(path, value, false)
}

/// As [`quick_json`], in a directory where others write, too: nothing that lies there is followed, opened or kept.
pub(super) fn shared_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let written = Draft::write(path, value, false).and_then(Draft::rename);
    written.with_context(|| format!("writing {}", path.display()))
}

/// As [`quick_json`], but flushed where it replaces one that may be on disk: after a power cut it is the old one or the new one.
pub(crate) fn careful_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    put_json(path, value, path.exists())
}

/// Writes `value` by rename; on a full disk into the room that is kept for it, where some is.
pub(super) fn put_json<T: Serialize>(path: &Path, value: &T, flush: bool) -> Result<()> {
    let full = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
    let written = match Draft::write(path, value, flush).and_then(Draft::rename) {
        Err(e) if full(&e) => put_into_spare(path, value).map_err(|_| e),
        result => result,
    };
    written.with_context(|| format!("writing {}", path.display()))
}

/// Writes `value` into the room that [`super::record::Place::keep_room`] keeps beside `path`.
fn put_into_spare<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let spare = path.with_extension("spare");
    let bytes = serde_json::to_vec(value)?;
    // Not cut before it is written: that would give the room away.
    let file = File::options().write(true).open(&spare)?;
    file.write_all_at(&bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    fs::rename(&spare, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_others_put_there_is_neither_followed_nor_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("precious"), "mine").expect("written");
        symlink("precious", at("log.new")).expect("linked");
        symlink("precious", at("log.spare")).expect("linked");
        symlink("precious", at("log.json")).expect("linked");
        shared_json(&at("log.json"), &1).expect("written");
        assert_eq!(fs::read_to_string(at("precious")).expect("read"), "mine");
        assert!(!at("log.json").is_symlink());
        assert_eq!(fs::read_to_string(at("log.json")).expect("read"), "1");
        // Opening a pipe that nobody reads would wait.
        nix::unistd::mkfifo(&at("log.new"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        shared_json(&at("log.json"), &2).expect("written");
        assert_eq!(fs::read_to_string(at("log.json")).expect("read"), "2");
        assert!(!at("log.new").exists());
    }
}
