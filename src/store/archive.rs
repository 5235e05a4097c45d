//! A container's files as a tar: a layer (what it changed) or all of them.
//!
//! Owners, modes, times to the nanosecond, devices, extended attributes, hard links and holes are kept; sockets are left out,
//! as every archiver does. Of a layer: a name that goes is a whiteout `.wh.NAME`, a directory in the place of another has
//! `.wh..wh..opq` in it, and every directory above a change has an entry, so that who unpacks the layer alone makes no
//! directories of his own there.
//!
//! Whatever a container makes, it must not keep itself from being archived: what cannot be said is left out and told
//! ([`LeftOut`]). In a layer that is what is called `.wh.…` and what is in it, and that a name of more than 251 bytes is gone; anywhere it is
//! what nobody could open by its path, and attributes with an `=` in their names or of too many bytes. Files of more holes than a
//! layer may have bytes are left out of one, too: whoever unpacks it reads every zero.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;

use anyhow::Context;

use super::layers::Limits;
use super::tarball::write::Writer;
use super::tarball::{Entry, Kind, MAX_SPECIAL, MAX_XATTRS, Segment};
use crate::cow::diff::{Change, Kind as Differs};
use crate::cow::index::{NAME_MAX, PATH_MAX, Time};
use crate::cow::{Cow, Whole};
use crate::error::Result;

/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// Holes of together at least this many bytes are worth a map.
const HOLES: u64 = 64 << 10;
/// Pieces of a sparse file.
const MAX_PIECES: usize = 1 << 16;
const WHITEOUT: &[u8] = b".wh.";
/// Bytes of a path with room for a mark in it.
const LONGEST: usize = PATH_MAX - OPAQUE.len();
const OPAQUE: &[u8] = b"/.wh..wh..opq";
/// Bytes of a file's attributes, of the [`MAX_SPECIAL`] that all that is said of a file may take.
const ATTRIBUTES: usize = MAX_SPECIAL as usize - (64 << 10);
/// Bytes of a record beside name and value.
const RECORD: usize = 32;
/// How much of what is left out is told.
const MOST_TOLD: usize = 50;

/// What is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Changes, as an OCI layer.
    Layer,
    /// A tree: the root itself has no entry.
    Tree,
}

/// Something that a tar cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Whose; without the first `/`.
    path: Vec<u8>,
    why: &'static str,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}: {}", self.path.escape_ascii(), self.why)
    }
}

/// Writes `changes` of `cow` as a tar to `out`, in their order; returns what it could not say, the first of it if that is much.
///
/// # Errors
/// A file cannot be read or said in a tar, or `out` takes no more.
pub fn write(cow: &Cow, changes: &[Change], what: What, out: impl Write) -> Result<Vec<LeftOut>> {
    let mut archive = Archive {
        cow,
        out: Writer::new(out),
        links: HashMap::new(),
        buffer: Vec::new(),
        left_out: Vec::new(),
        what,
        holes_left: Limits::default().bytes / 2,
    };
    // What is below it is left out with it, and not told.
    let mut within: Option<Vec<u8>> = None;
    for change in changes {
        if within
            .as_ref()
            .is_some_and(|dir| change.path.starts_with(dir))
        {
            continue;
        }
        if let Some(why) = unsayable(change, what) {
            archive.left_out(&change.path, why);
            within = Some([&change.path[..], b"/"].concat());
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
    Ok(archive.left_out)
}

/// Why a change cannot be in a tar, if so.
fn unsayable(change: &Change, what: What) -> Option<&'static str> {
    let (_, name) = split(&change.path);
    let gone = change.kind == Differs::Deleted;
    if change.path.len() > LONGEST {
        return Some("left out, its path is too long to be opened");
    }
    if what == What::Layer && name.starts_with(WHITEOUT) {
        return Some("left out, a layer cannot hold names that begin with .wh.");
    }
    if gone && name.len() > NAME_MAX - WHITEOUT.len() {
        return Some("is there again, a layer cannot say that so long a name is gone");
    }
    None
}

/// Takes away attributes that a tar cannot say, and tells so.
pub fn fit(xattrs: &mut Vec<(Vec<u8>, Vec<u8>)>) -> Option<&'static str> {
    let before = xattrs.len();
    let mut room = ATTRIBUTES;
    xattrs.retain(|(name, value)| {
        let fits = name.len() + value.len() + RECORD <= room;
        let stays = fits && !name.contains(&b'=');
        if stays {
            room -= name.len() + value.len() + RECORD;
        }
        stays
    });
    xattrs.truncate(MAX_XATTRS);
    (xattrs.len() < before).then_some("extended attributes are left out, a tar cannot hold them")
}

struct Archive<'a, W> {
    cow: &'a Cow,
    out: Writer<W>,
    /// Where files with several names were written first.
    links: HashMap<u64, Vec<u8>>,
    buffer: Vec<u8>,
    left_out: Vec<LeftOut>,
    what: What,
    /// Bytes: of what the files of a layer may have with their holes, half.
    holes_left: u64,
}

impl<W: Write> Archive<'_, W> {
    fn left_out(&mut self, path: &[u8], why: &'static str) {
        if self.left_out.len() < MOST_TOLD {
            let path = path.to_vec();
            self.left_out.push(LeftOut { path, why });
        }
    }

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
        if let Some(why) = fit(&mut entry.xattrs) {
            self.left_out(&change.path, why);
        }
        if whole.stat.nlink > 1 && entry.kind != Kind::Dir {
            if let Some(first) = self.links.get(&change.ino) {
                entry.kind = Kind::Hardlink(first.clone());
                (entry.size, entry.xattrs) = (0, Vec::new());
                return self.out.entry(&entry);
            }
            self.links.insert(change.ino, change.path.clone());
        }
        if entry.kind == Kind::File {
            return self.file(entry, change);
        }
        self.out.entry(&entry)?;
        match change.opaque {
            true => self.marker([&change.path[..], OPAQUE].concat()),
            false => Ok(()),
        }
    }

    /// Takes so many bytes of the holes that a layer may have; false when they are not there.
    fn room(&mut self, bytes: u64) -> bool {
        let left = self.holes_left.checked_sub(bytes);
        self.holes_left = left.unwrap_or(self.holes_left);
        left.is_some()
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

    fn file(&mut self, mut entry: Entry, change: &Change) -> Result<()> {
        let ino = change.ino;
        let mut pieces = vec![(0, entry.size)];
        if entry.size >= HOLES {
            let found = joined(self.cow.pieces(ino)?);
            let data: u64 = found.iter().map(|(_, len)| len).sum();
            if self.what == What::Layer && !self.room(entry.size - data) {
                self.left_out(&change.path, "left out, it has more holes than a layer may");
                self.links.remove(&ino);
                return match change.kind {
                    Differs::Changed => self.gone(&change.path),
                    _ => Ok(()),
                };
            }
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

    fn change(path: &[u8], kind: Differs) -> Change {
        Change {
            path: path.to_vec(),
            kind,
            ino: 0,
            is_dir: false,
            opaque: false,
        }
    }

    #[test]
    fn what_a_layer_cannot_say_is_found() {
        let said = |path: &[u8], kind, what| unsayable(&change(path, kind), what).is_none();
        let long = [b"d/".repeat(2000), vec![b'x'; 200]].concat();
        assert!(said(b"a/wh.b", Differs::Added, What::Layer));
        assert!(!said(b"a/.wh.b", Differs::Added, What::Layer));
        assert!(said(b"a/.wh.b", Differs::Added, What::Tree));
        assert!(!said(&long, Differs::Added, What::Tree));
        assert!(said(&[b'x'; 255], Differs::Changed, What::Layer));
        assert!(!said(&[b'x'; 252], Differs::Deleted, What::Layer));
        assert!(said(&[b'x'; 251], Differs::Deleted, What::Layer));
    }

    #[test]
    fn attributes_that_do_not_fit_go_and_the_others_stay() {
        let one = |name: &str, len| (name.as_bytes().to_vec(), vec![0; len]);
        let mut all = vec![one("user.a", 10), one("user.a=b", 1), one("user.c", 65536)];
        assert!(fit(&mut all).is_some());
        assert_eq!(all, [one("user.a", 10), one("user.c", 65536)]);
        assert!(fit(&mut all).is_none());
        let mut many: Vec<_> = (0..40).map(|n| one(&format!("user.{n}"), 60_000)).collect();
        assert!(fit(&mut many).is_some());
        assert_eq!(many.len(), (MAX_SPECIAL as usize - (64 << 10)) / 60_038);
    }

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
