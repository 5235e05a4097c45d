//! Reading tar archives strictly: what two readers could understand differently is refused.
//!
//! A pure parser over any [`BufRead`], of its own rather than the `tar` crate's, because a layer's bytes are hostile: every
//! size, record and padding is accounted for here, nothing is guessed, and a fuzzer can drive it whole.
//!
//! # Accepted
//!
//! - V7, POSIX ustar (also with star's short prefix), PAX and GNU headers, as GNU tar, bsdtar, Go and Python write them; header
//!   checksums over unsigned or signed bytes; numbers in octal or base-256; Go's pre-1.8 mistake (a ustar prefix in a GNU header).
//! - PAX `path linkpath size uid gid mtime atime ctime`, `SCHILY.xattr.*`, `GNU.sparse.*` (0.0, 0.1, 1.0); other records
//!   are ignored, `trusted.*` and `user.overlay.*` attributes too (they mean nothing in a user namespace). GNU long names and links, GNU sparse files.
//! - An archive that ends at a header boundary, with or without zero blocks; what follows two zero blocks is not looked at.
//!
//! # Names
//!
//! A path loses leading slashes and `.`, as docker does; `a/../b` is `b`; `..` out of the root is an error in a relative
//! path and stays at the root in an absolute one. At most 255 bytes a name, 4095 a path. Names need not be UTF-8.
//!
//! # Sizes (CVE-2025-62518, CVE-2026-33055)
//!
//! Which bytes are content and which are headers must not depend on the reader. So a PAX `size` is accepted only if the header's own size is
//! the same, or is 0 because the size does not fit there (above 8 GiB - 1: what GNU tar, Go, Python and Java write); a link, directory,
//! device or FIFO with a size is refused, and so are a second PAX header or long name for one entry, a long name
//! that disagrees with a PAX one, PAX records that disagree with each other, structural records in global headers
//! (which docker ignores and GNU tar obeys), a lone zero block, unknown entry types.

use std::io::{self, BufRead, Read, Seek};

use crate::cow::index::Time;

#[cfg(test)]
pub(crate) mod differential;
mod entry;
mod header;
#[cfg(test)]
pub(crate) mod make;
mod pax;
#[cfg(test)]
mod tests;
pub mod write;

use entry::{Pending, Sparse};
use header::{BLOCK, Header};
pub(super) use pax::MAX_XATTRS;

/// Bytes of a PAX header or a GNU long name: what Go's reader allows.
pub(super) const MAX_SPECIAL: u64 = 1 << 20;
/// Data segments of a sparse file.
const MAX_SEGMENTS: usize = 1 << 16;

/// Why reading an archive ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive is malformed, ambiguous, or uses what is not supported.
    #[error("{}at byte {offset} of the tar: {what}", named(.path))]
    Invalid {
        /// The entry's path, where it is known.
        path: Option<Vec<u8>>,
        /// Where the entry's header begins.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The archive ends within an entry.
    #[error("the tar ends in the middle of an entry")]
    Truncated,
    /// The archive is larger than the reader was told to accept.
    #[error("the tar is larger than {0} bytes")]
    TooLarge(u64),
    /// Its bytes cannot be read.
    #[error("reading the tar")]
    Io(#[from] io::Error),
}

fn named(path: &Option<Vec<u8>>) -> String {
    match path {
        Some(path) => format!("entry `{}` ", path.escape_ascii()),
        None => String::new(),
    }
}

/// What the pure parts say; the reader adds where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Invalid(String);

fn invalid<T>(what: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(what.into()))
}

/// Bytes of a sparse file that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its content follows ([`Reader::fill`]).
    File,
    /// A directory.
    Dir,
    /// A symbolic link to this target, as written.
    Symlink(Vec<u8>),
    /// Another name of the file at this path (in normal form).
    Hardlink(Vec<u8>),
    /// A character device.
    Char {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A FIFO.
    Fifo,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// In normal form: no leading slash, no `.` or `..`; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-id bits included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a regular file, holes included; otherwise 0.
    pub size: u64,
    /// Time of the last change of content.
    pub mtime: Time,
    /// Time of the last access, where it is recorded.
    pub atime: Option<Time>,
    /// Time of the last change of metadata, where it is recorded.
    pub ctime: Option<Time>,
    /// Extended attributes: name, value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For a sparse file what is stored, in order, without overlap; all else in it is zero.
    pub sparse: Option<Vec<Segment>>,
    /// Where the entry's first header begins in the archive.
    pub offset: u64,
}

/// Reads an archive entry by entry. [`Read`] gives the current entry's stored bytes.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    at: u64,
    limit: u64,
    /// Stored bytes of the current entry not yet read, and the padding after them.
    body: u64,
    padding: u64,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the archive `input`, of which at most `limit` bytes are accepted.
    pub fn new(input: R, limit: u64) -> Reader<R> {
        Reader {
            input,
            at: 0,
            limit,
            body: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry, or `None` at the archive's end. What was not read of the last one is skipped.
    ///
    /// # Errors
    /// [`Error`]; the reader is of no further use then.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        if self.ended {
            return Ok(None);
        }
        self.skip(self.body)?;
        self.skip(self.padding)?;
        (self.body, self.padding) = (0, 0);
        let start = self.at;
        let mut pending = Pending::default();
        loop {
            let at = |path: Option<&[u8]>| {
                let path = path.map(<[u8]>::to_vec);
                move |Invalid(what)| Error::Invalid {
                    path,
                    offset: start,
                    what,
                }
            };
            let Some(block) = self.block()? else {
                self.ended = true;
                return match pending.is_empty() {
                    true => Ok(None),
                    false => Err(Error::Truncated),
                };
            };
            if block == [0; BLOCK] {
                self.ended = true;
                return self.end(&pending).map_err(at(None));
            }
            let header = header::parse(&block).map_err(at(None))?;
            match header.flag {
                b'x' | b'g' | b'L' | b'K' => {
                    let bytes = self.special(&header, start)?;
                    pending.add(header.flag, &bytes).map_err(at(None))?;
                }
                _ => return self.entry(&header, pending, start).map(Some),
            }
        }
    }

    /// The next piece of the current entry's stored bytes; empty at its end. Give back what was used
    /// by [`Reader::advance`].
    ///
    /// # Errors
    /// The archive ends early or cannot be read.
    pub fn fill(&mut self) -> Result<&[u8], Error> {
        if self.body == 0 {
            return Ok(&[]);
        }
        self.count(0)?;
        let piece = self.input.fill_buf()?;
        if piece.is_empty() {
            return Err(Error::Truncated);
        }
        let len = usize::try_from(self.body).map_or(piece.len(), |body| body.min(piece.len()));
        Ok(&piece[..len])
    }

    /// Uses `n` of the bytes that [`Reader::fill`] gave.
    pub fn advance(&mut self, n: usize) {
        let n = usize::try_from(self.body).map_or(n, |body| body.min(n));
        self.input.consume(n);
        self.body -= n as u64;
        self.at += n as u64;
    }

    /// Where in the archive the next of the current entry's stored bytes is.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Goes to the end of the current entry's content without reading it. Whether the archive goes that far is not looked at.
    ///
    /// # Errors
    /// As seeking fails.
    pub fn seek_past(&mut self) -> Result<(), Error>
    where
        R: Seek,
    {
        let n = self.body + self.padding;
        let distance = i64::try_from(n).map_err(|_| Error::TooLarge(self.limit))?;
        self.input.seek_relative(distance)?;
        (self.body, self.padding) = (0, 0);
        self.count(n)
    }

    /// The archive's input, for what follows its end.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// A block, or `None` at the very end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match self.input.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(Error::Truncated),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.count(BLOCK as u64)?;
        Ok(Some(block))
    }

    fn count(&mut self, n: u64) -> Result<(), Error> {
        self.at = self.at.saturating_add(n);
        if self.at > self.limit {
            return Err(Error::TooLarge(self.limit));
        }
        Ok(())
    }

    fn skip(&mut self, mut n: u64) -> Result<(), Error> {
        while n > 0 {
            let piece = self.input.fill_buf()?;
            if piece.is_empty() {
                return Err(Error::Truncated);
            }
            let len = usize::try_from(n).map_or(piece.len(), |n| n.min(piece.len()));
            self.input.consume(len);
            self.count(len as u64)?;
            n -= len as u64;
        }
        Ok(())
    }

    /// After a zero block: another one, or nothing at all.
    fn end(&mut self, pending: &Pending) -> Result<Option<Entry>, Invalid> {
        if !pending.is_empty() {
            return invalid("an extended header without an entry");
        }
        match self.block() {
            Ok(None) => Ok(None),
            Ok(Some(block)) if block == [0; BLOCK] => Ok(None),
            _ => invalid("a lone zero block"),
        }
    }

    /// The content of an extended header.
    fn special(&mut self, header: &Header, start: u64) -> Result<Vec<u8>, Error> {
        let invalid = |what: &str| Error::Invalid {
            path: None,
            offset: start,
            what: what.to_owned(),
        };
        if header.size > MAX_SPECIAL {
            return Err(invalid("an extended header that is too large"));
        }
        let len = header.size + padding(header.size);
        let mut bytes = Vec::new();
        (&mut self.input).take(len).read_to_end(&mut bytes)?;
        self.count(bytes.len() as u64)?;
        if bytes.len() as u64 != len {
            return Err(Error::Truncated);
        }
        // GNU tar takes a name up to its NUL, others as long as it is said to be.
        let padding = bytes.split_off(bytes.len() - padding(header.size) as usize);
        if header.flag != b'x' && padding.iter().any(|b| *b != 0) {
            return Err(invalid("an extended header that is longer than it says"));
        }
        Ok(bytes)
    }

    /// The entry that `header` begins, its extended headers considered.
    fn entry(&mut self, header: &Header, pending: Pending, start: u64) -> Result<Entry, Error> {
        let path = pending.name(header).to_vec();
        let at = move |Invalid(what)| Error::Invalid {
            path: Some(path.clone()),
            offset: start,
            what,
        };
        let (mut entry, stored, sparse) = entry::compose(header, pending).map_err(&at)?;
        entry.offset = start;
        entry.size = stored;
        let found = match sparse {
            Sparse::No => None,
            Sparse::Map(segments, size) => Some((segments, size)),
            Sparse::Gnu(mut segments, mut more, size) => {
                while more {
                    let block = self.block()?.ok_or(Error::Truncated)?;
                    more = header::sparse_extension(&block, &mut segments).map_err(&at)?;
                }
                Some((segments, size))
            }
            Sparse::InBody(size) => {
                self.body = stored;
                let mut map = pax::MapInBody::default();
                while !map.is_whole() {
                    if self.body < BLOCK as u64 {
                        return Err(at(Invalid("a sparse map that is not whole".into())));
                    }
                    let block = self.block()?.ok_or(Error::Truncated)?;
                    self.body -= BLOCK as u64;
                    map.add(&block).map_err(&at)?;
                }
                entry.size = self.body;
                Some((map.segments(), size))
            }
        };
        (self.body, self.padding) = (entry.size, padding(entry.size));
        if let Some((segments, size)) = found {
            entry::check_segments(&segments, size, self.body).map_err(&at)?;
            entry.size = size;
            entry.sparse = Some(segments);
        }
        Ok(entry)
    }
}

impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill().map_err(|e| match e {
            Error::Io(e) => e,
            e => io::Error::new(io::ErrorKind::InvalidData, e),
        })?;
        let n = piece.len().min(buf.len());
        buf[..n].copy_from_slice(&piece[..n]);
        self.advance(n);
        Ok(n)
    }
}

/// Zeros after `n` bytes of content, to the next block.
fn padding(n: u64) -> u64 {
    (BLOCK as u64 - n % BLOCK as u64) % BLOCK as u64
}
