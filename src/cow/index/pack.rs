//! Reading packs: files that hold contents of regular files, one after the other.
//!
//! `ID.pack` is nothing but contents: each begins at a multiple of [`PAGE`] and is followed by zeros
//! to the next, so that a page of a pack belongs to one file. `ID.toc` lists them (see `store::packs`,
//! which writes both); `ID` is the SHA-256 of the table. Packs are immutable once they have their name.
//!
//! They are read with pread(2), not mapped. A mapping saves a copy but costs the faults of pages that are
//! mostly wanted once (whoever asks for them caches them): 512 MiB in pieces of 256 KiB took the same time both ways,
//! and the mapped pages stayed in the process (528 MiB of it against 6). And a disk that cannot be read is an
//! error for one caller, not SIGBUS for all. Asking for the next 0.5 to 4 MiB ahead (POSIX_FADV_WILLNEED) did not make
//! cold sequential reads faster: both kernels' own reading ahead is in front already.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Error;
use crate::error::Result;

/// Contents in packs begin at multiples of this many bytes.
pub const PAGE: u64 = 4096;

/// `len` rounded up to whole pages: what content of that length takes in a pack.
#[must_use]
pub fn padded(len: u64) -> u64 {
    len.saturating_add(PAGE - 1) / PAGE * PAGE
}

/// Names a pack: the SHA-256 of its table of contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub [u8; 32]);

impl PackId {
    /// Parses 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<PackId> {
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(PackId(id))
    }

    /// Where the pack of this name is in the directory of packs.
    #[must_use]
    pub fn pack_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{self}.pack"))
    }

    /// Where its table of contents is.
    #[must_use]
    pub fn toc_path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{self}.toc"))
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

/// An open pack.
#[derive(Debug)]
pub struct Pack {
    file: File,
    len: u64,
}

impl Pack {
    /// Opens the pack `id` in `dir`, which must have `len` bytes.
    ///
    /// # Errors
    /// When it is missing, cannot be opened, or has another length ([`Error::Corrupt`]).
    pub fn open(dir: &Path, id: &PackId, len: u64) -> Result<Pack> {
        let path = id.pack_path(dir);
        let what = || format!("opening pack {}", path.display());
        let file = File::open(&path).with_context(what)?;
        if file.metadata().with_context(what)?.len() != len {
            return Err(Error::Corrupt("the pack has another length than recorded"))
                .with_context(what);
        }
        Ok(Pack { file, len })
    }

    /// Bytes in the pack, a multiple of [`PAGE`].
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the pack holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `part` with the bytes from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when out of bounds; else as reading the file fails.
    pub fn read(&self, offset: u64, part: &mut [u8]) -> io::Result<()> {
        if !self.has(offset, part.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(part, offset)
    }

    /// Whether there are `len` bytes from `offset` on.
    #[must_use]
    pub fn has(&self, offset: u64, len: usize) -> bool {
        let end = offset.checked_add(len as u64);
        end.is_some_and(|end| end <= self.len)
    }

    /// The pack's file, for `pread`, `posix_fadvise` and the like.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}
