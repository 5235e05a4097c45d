//! What a volume has in it, and whose it is, before its first container begins.
//!
//! A new volume is filled with what the image has at its mount point, once: what a program has deleted since stays
//! deleted. Without content its root belongs to whom the image's directory belongs, or, where the image has none, to the
//! user that the container runs as, as with podman.
//!
//! How far that is says a file beside the content (`volumes.rs`), one word in its first line; it is locked while
//! a volume is being filled, so of two containers that start at once the second waits for the first.
//!
//! | state | meaning |
//! |---|---|
//! | (empty) | new |
//! | `owned` | it has an owner, and nothing was in it yet |
//! | `copying` | (flushed) being filled; one who finds it unlocked goes on where the last one was killed |
//! | `filled` | it is left alone: filled and flushed, or not empty when it was first looked at |
//!
//! The content is flushed before the volume's first container begins, once in a volume's life: nothing that a container has
//! changed is ever taken for a copy that was cut short.
//!
//! All descriptors were opened with the caller's credentials, so the state can be written whoever the container's root is.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown};

use super::copyup;
use super::tree::{Tree, file_type};
use crate::error::Result;

const OWNED: &str = "owned";
const COPYING: &str = "copying";
const FILLED: &str = "filled";

/// What a volume's state file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody has used it.
    New,
    /// It has its owner.
    Owned,
    /// Somebody was killed while it was being filled.
    Copying,
    /// To be left alone.
    Filled,
}

/// The state in `file`.
///
/// # Errors
/// It cannot be read.
pub fn state(file: &File) -> io::Result<State> {
    let mut bytes = [0; 64];
    let length = file.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    Ok(match text.lines().next().unwrap_or_default() {
        "" => State::New,
        OWNED => State::Owned,
        COPYING => State::Copying,
        _ => State::Filled,
    })
}

/// One write, so that who is killed leaves the old line or the new one.
fn set(file: &File, line: &str) -> io::Result<()> {
    file.write_all_at(format!("{line}\n").as_bytes(), 0)
}

/// Notes in `file` that the volume is to be left alone, durably.
///
/// # Errors
/// It cannot be written.
pub fn set_filled(file: &File) -> io::Result<()> {
    set(file, FILLED)?;
    file.sync_data()
}

/// A volume that is about to be mounted.
#[derive(Debug)]
pub(super) struct Volume<'a> {
    /// Its state file.
    pub state: &'a File,
    /// Its root directory.
    pub root: &'a OwnedFd,
    /// It takes what the image has.
    pub copy: bool,
    /// Whom a directory belongs to that the image does not have.
    pub user: (u32, u32),
}

impl Volume<'_> {
    /// Gives it what the image has at `path`, and its owner. Nothing is mounted in `tree` yet: what lies there is the image's.
    pub(super) fn prepare(&self, tree: Tree<'_>, path: &Path) -> Result<()> {
        self.state
            .lock()
            .context("waiting for who fills the volume")?;
        let known = state(self.state).context("reading the volume's state")?;
        if known == State::Filled {
            return Ok(());
        }
        let empty = match copyup::is_empty(self.root) {
            // Not for this container to look into, nor to fill.
            Err(_) if !self.copy => return Ok(()),
            empty => empty?,
        };
        if known != State::Copying && !empty {
            // On a full disk it will be looked at again.
            let _ = set(self.state, FILLED);
            return Ok(());
        }
        let image = tree.open(path).ok();
        let image = image.filter(|fd| file_type(fd) == Ok(SFlag::S_IFDIR));
        match image {
            Some(image) if self.copy && !copyup::is_empty(&image)? => self.fill(&image),
            // Left to who fills it.
            _ if known == State::Copying => Ok(()),
            // It has been used, and emptied.
            _ if known == State::Owned => Ok(()),
            image => self.own(image.as_ref()),
        }
    }

    fn fill(&self, image: &OwnedFd) -> Result<()> {
        let noting = "noting that the volume is being filled";
        set(self.state, COPYING).context(noting)?;
        // Before the first file is: a part of the content is never taken for all.
        self.state.sync_data().context(noting)?;
        copyup::copy(image, self.root).context("copying the image's files into the volume")?;
        let flushing = "flushing what the volume was filled with";
        let root = copyup::directory(self.root, c".").context(flushing)?;
        nix::unistd::syncfs(root).context(flushing)?;
        set_filled(self.state).context("noting that the volume is filled")
    }

    fn own(&self, image: Option<&OwnedFd>) -> Result<()> {
        let doing = "giving the volume to the container's user";
        let root = copyup::directory(self.root, c".").context(doing)?;
        let image = image.map(fstat).transpose()?;
        let (uid, gid) = image.map_or(self.user, |stat| (stat.st_uid, stat.st_gid));
        match fchown(&root, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // Where there is but one id everything is its; and where its owner is none of the container's, it keeps it.
            Err(Errno::EINVAL | Errno::EPERM) => return Ok(()),
            done => done.context(doing)?,
        }
        if let Some(stat) = image {
            fchmod(&root, Mode::from_bits_truncate(stat.st_mode)).context(doing)?;
        }
        let _ = set(self.state, OWNED);
        Ok(())
    }
}
