//! A container's files as a tar: a layer (what it changed) or all of them.
//!
//! Owners, modes, times to the nanosecond, devices, extended attributes, hard links and holes are kept; sockets are left out,
//! as every archiver does. Of a layer: a name that goes is a whiteout `.wh.NAME`, a directory in the place of another has
//! `.wh..wh..opq` in it, and every directory above a change has an entry, so that who unpacks the layer alone makes no
//! directories of his own there. A name that begins with `.wh.` cannot be said in a layer.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Context;

use super::tarball::write::Writer;
use super::tarball::{Entry, Kind, Segment};
use crate::cow::diff::{Change, Kind as Differs};
use crate::cow::index::Time;
use crate::cow::{Cow, Whole};
use crate::error::Result;

/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// Holes of together at least this many bytes are worth a map.
const HOLES: u64 = 64 << 10;
/// Pieces of a sparse file.
const MAX_PIECES: usize = 1 << 16;
const WHITEOUT: &[u8] = b".wh.";

/// What is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Changes, as an OCI layer.
    Layer,
    /// A tree: the root itself has no entry.
    Tree,
}

/// Writes `changes` of `cow` as a tar to `out`, in their order; returns the paths that a layer cannot say.
///
/// # Errors
/// A file cannot be read or said in a tar, or `out` takes no more.
pub fn write(cow: &Cow, changes: &[Change], what: What, out: impl Write) -> Result<Vec<Vec<u8>>> {
    let mut archive = Archive {
        cow,
        out: Writer::new(out),
        links: HashMap::new(),
        buffer: Vec::new(),
    };
    let mut left_out = Vec::new();
    for change in changes {
        let name = change.path.rsplit(|b| *b == b'/').next().unwrap_or(b"");
        if what == What::Layer && name.starts_with(WHITEOUT) {
            left_out.push(change.path.clone());
            continue;
        }
        if change.path.is_empty() && (what == What::Tree || change.kind == Differs::Parent) {
            continue;
        }
        archive
            .add(change)
            .with_context(|| format!("archiving /{}", change.path.escape_ascii()))?;
    }
    archive.out.finish()?;
    Ok(left_out)
}

struct Archive<'a, W> {
    cow: &'a Cow,
    out: Writer<W>,
    /// Where files with several names were written first.
    links: HashMap<u64, Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> Archive<'_, W> {
    fn add(&mut self, change: &Change) -> Result<()> {
        if change.kind == Differs::Deleted {
            return self.gone(&change.path);
        }
        let whole = self.cow.whole(change.ino)?;
        let Some(mut entry) = entry(&change.path, &whole) else {
            // What a socket replaced does not come back for it.
            return match change.kind {
                Differs::Changed => self.gone(&change.path),
                _ => Ok(()),
            };
        };
        if whole.stat.nlink > 1 && entry.kind != Kind::Dir {
            if let Some(first) = self.links.get(&change.ino) {
                entry.kind = Kind::Hardlink(first.clone());
                (entry.size, entry.xattrs) = (0, Vec::new());
                return self.out.entry(&entry);
            }
            self.links.insert(change.ino, change.path.clone());
        }
        if entry.kind == Kind::File {
            return self.file(entry, change.ino);
        }
        self.out.entry(&entry)?;
        match change.opaque {
            true => self.marker([&change.path[..], b"/.wh..wh..opq"].concat()),
            false => Ok(()),
        }
    }

    /// A whiteout.
    fn gone(&mut self, path: &[u8]) -> Result<()> {
        let (dir, name) = split(path);
        self.marker([dir, WHITEOUT, name].concat())
    }

    /// An empty file that is a mark.
    fn marker(&mut self, path: Vec<u8>) -> Result<()> {
        self.out.entry(&Entry {
            path,
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            atime: None,
            ctime: None,
            xattrs: Vec::new(),
            sparse: None,
            offset: 0,
        })
    }

    fn file(&mut self, mut entry: Entry, ino: u64) -> Result<()> {
        let mut pieces = vec![(0, entry.size)];
        if entry.size >= HOLES {
            let found = joined(self.cow.pieces(ino)?);
            let data: u64 = found.iter().map(|(_, len)| len).sum();
            if entry.size - data >= HOLES {
                let segment = |(offset, len): &(u64, u64)| Segment {
                    offset: *offset,
                    len: *len,
                };
                entry.sparse = Some(found.iter().map(segment).collect());
                pieces = found;
            }
        }
        self.out.entry(&entry)?;
        for (from, len) in pieces {
            let (mut at, end) = (from, from + len);
            while at < end {
                let most = usize::try_from(end - at).map_or(PIECE, |n| n.min(PIECE));
                self.cow.read_at(ino, at, most, &mut self.buffer)?;
                if self.buffer.is_empty() {
                    break;
                }
                self.out.write_all(&self.buffer)?;
                at += self.buffer.len() as u64;
            }
        }
        Ok(())
    }
}

/// Directory (with its slash) and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    path.split_at(at)
}

/// Pieces with the smallest holes between them filled, until they are few enough.
fn joined(mut pieces: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut gap = 4096;
    while pieces.len() > MAX_PIECES {
        let mut out: Vec<(u64, u64)> = Vec::with_capacity(pieces.len());
        for (at, len) in pieces {
            match out.last_mut() {
                Some((from, so_far)) if at - (*from + *so_far) <= gap => *so_far = at + len - *from,
                _ => out.push((at, len)),
            }
        }
        pieces = out;
        gap *= 2;
    }
    pieces
}

/// What a tar says of an inode, its content left out; nothing of a socket.
fn entry(path: &[u8], whole: &Whole) -> Option<Entry> {
    let stat = &whole.stat;
    // `new_encode_dev` of the kernel.
    let major = (stat.rdev >> 8) & 0xfff;
    let minor = (stat.rdev & 0xff) | ((stat.rdev >> 12) & 0xf_ff00);
    let kind = match stat.mode & libc::S_IFMT {
        libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Dir,
        libc::S_IFLNK => Kind::Symlink(whole.target.clone()),
        libc::S_IFCHR => Kind::Char { major, minor },
        libc::S_IFBLK => Kind::Block { major, minor },
        libc::S_IFIFO => Kind::Fifo,
        _ => return None,
    };
    Some(Entry {
        path: path.to_vec(),
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        size: if kind == Kind::File { stat.size } else { 0 },
        kind,
        mtime: stat.mtime,
        atime: None,
        ctime: None,
        xattrs: whole.xattrs.clone(),
        sparse: None,
        offset: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_holes_are_filled_until_the_pieces_are_few_enough() {
        let many: Vec<(u64, u64)> = (0..200_000).map(|n| (n * 8192, 4096)).collect();
        assert_eq!(joined(many), [(0, 199_999 * 8192 + 4096)]);
        let mixed: Vec<(u64, u64)> = (0..100_000)
            .map(|n| (n * 8192 + (n / 1000) * (1 << 20), 4096))
            .collect();
        assert_eq!(joined(mixed).len(), 100);
        assert_eq!(joined(vec![(0, 1), (5, 1)]), [(0, 1), (5, 1)]);
    }
}
