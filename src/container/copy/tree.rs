//! A tar stream into the files of a container that does not run.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::path::Path;

use anyhow::Context;

use super::files::{Unpack, goes_along};
use crate::cow::{Attributes, Cow, Made};
use crate::error::{Result, failed};
use crate::store::tarball::{Entry, Kind, Reader, Segment};

const PIECE: usize = 256 << 10;

/// Unpacks a tar into the directory that `path` leads to in `cow`.
pub(super) fn unpack(
    cow: &Cow,
    path: &Path,
    how: Unpack,
    reader: &mut Reader<impl BufRead>,
) -> Result<()> {
    let mut unpacker = Unpacker {
        cow,
        top: cow.directory(path)?,
        how,
        made: HashMap::new(),
        dirs: Vec::new(),
    };
    while let Some(entry) = reader.next_entry()? {
        let made = unpacker.entry(&entry, reader);
        made.with_context(|| format!("creating {}", entry.path.escape_ascii()))?;
    }
    for (ino, entry) in unpacker.dirs.iter().rev() {
        unpacker.settle(*ino, entry)?;
    }
    cow.sync()
}

struct Unpacker<'a> {
    cow: &'a Cow,
    top: u64,
    how: Unpack,
    /// Inodes of files made, by path in the stream.
    made: HashMap<Vec<u8>, u64>,
    dirs: Vec<(u64, Entry)>,
}

impl Unpacker<'_> {
    fn attributes(&self, entry: &Entry) -> Attributes {
        let (uid, gid) = match self.how.owner {
            None if self.how.keep => (entry.uid, entry.gid),
            owner => owner.unwrap_or((0, 0)),
        };
        Attributes {
            mode: entry.mode,
            uid,
            gid,
            mtime: entry.mtime,
        }
    }

    /// The directory that a path of the stream lies in, made if it is missing; links in it are not followed.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(u64, &'p [u8])> {
        let mut parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        let name = parts.pop().unwrap_or_default();
        let mut at = self.top;
        for part in parts {
            at = self.directory(at, part)?;
        }
        Ok((at, name))
    }

    fn directory(&self, dir: u64, name: &[u8]) -> Result<u64> {
        match self.cow.entry(dir, name)? {
            Some((ino, true)) => return Ok(ino),
            Some(_) if self.how.overwrite => self.cow.remove(dir, name)?,
            Some(_) => return Err(failed("there is something else than a directory").into()),
            None => {}
        }
        let made = Made {
            mode: libc::S_IFDIR | 0o755,
            target: b"",
            device: (0, 0),
        };
        self.cow.make(dir, name, &made)
    }

    fn entry(&mut self, entry: &Entry, reader: &mut Reader<impl BufRead>) -> Result<()> {
        if entry.path.is_empty() {
            return Ok(());
        }
        let (dir, name) = self.parent(&entry.path)?;
        let made = |mode, target| Made {
            mode,
            target,
            device: (0, 0),
        };
        if entry.kind == Kind::Dir {
            let ino = self.directory(dir, name)?;
            self.dirs.push((ino, entry.clone()));
            return Ok(());
        }
        match self.cow.entry(dir, name)? {
            Some((_, true)) if !self.how.overwrite => {
                return Err(failed("there is a directory")
                    .hint("--overwrite replaces it")
                    .into());
            }
            Some(_) => self.cow.remove(dir, name)?,
            None => {}
        }
        let ino = match &entry.kind {
            Kind::Hardlink(target) => {
                let known = self.made.get(target).copied();
                let ino = known.context("its target is not in the archive")?;
                return self.cow.name(ino, dir, name);
            }
            Kind::File => {
                let ino = self
                    .cow
                    .make(dir, name, &made(libc::S_IFREG | 0o600, b""))?;
                self.content(ino, entry, reader)?;
                ino
            }
            Kind::Symlink(target) => self.cow.make(dir, name, &made(libc::S_IFLNK, target))?,
            Kind::Fifo => self
                .cow
                .make(dir, name, &made(libc::S_IFIFO | 0o600, b""))?,
            _ => return Ok(()),
        };
        self.made.insert(entry.path.clone(), ino);
        self.settle(ino, entry)
    }

    fn settle(&self, ino: u64, entry: &Entry) -> Result<()> {
        self.cow.settle(ino, &self.attributes(entry))?;
        // Links and pipes have none of these.
        let has = matches!(entry.kind, Kind::File | Kind::Dir);
        let all = entry.xattrs.iter().filter(|x| has && goes_along(x));
        for (name, value) in all {
            self.cow.set_xattr(ino, name, value)?;
        }
        Ok(())
    }

    fn content(&self, ino: u64, entry: &Entry, reader: &mut Reader<impl BufRead>) -> Result<()> {
        let whole = [Segment {
            offset: 0,
            len: entry.size,
        }];
        let mut buf = vec![0; PIECE];
        for segment in entry.sparse.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (segment.offset, segment.offset + segment.len);
            while at < end {
                let most = usize::try_from(end - at).map_or(PIECE, |n| n.min(PIECE));
                reader.read_exact(&mut buf[..most])?;
                self.cow.write_at(ino, at, &buf[..most])?;
                at += most as u64;
            }
        }
        match entry.sparse {
            Some(_) => self.cow.set_size(ino, entry.size),
            None => Ok(()),
        }
    }
}
