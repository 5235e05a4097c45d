//! The layer index: what one layer's tar says, in its order, without file contents.
//!
//! A layer is not a tree: what an entry does depends on the layers below (a parent may be a symbolic link
//! there, the target of a hard link may lie there, a whiteout hides something there). So a layer is kept as
//! the list of its changes, and [`super::super::merge`] replays the lists of an image's layers in order.
//! Whiteouts are kept as the entries they are (`.wh.name`): only merging knows them.
//!
//! # Format, version 1
//!
//! Little-endian, written in one pass.
//!
//! ```text
//! header   48 bytes   0 magic "rlesslyr"   8 version u32    12 reserved u32 (0)
//!                    16 diff id: SHA-256 of the uncompressed tar
//! changes  each:      0 length u32 of this record           4 mode u32 (st_mode; 0: hard link)
//!                     8 uid u32           12 gid u32        16 rdev major u32 20 rdev minor u32
//!                    24 size u64          32 mtime.s i64    40 atime.s i64    48 ctime.s i64
//!                    56 mtime.ns u32      60 atime.ns u32   64 ctime.ns u32
//!                    68 pack u32 (2^32-1: none)             72 offset in the pack u64
//!                    80 length of path u16                  82 length of link u16
//!                    84 length of attributes u32
//!                    88 path, link target, attributes (as in an index's xattr set)
//! packs    40 each    0 id                                 32 bytes in the pack u64
//! trailer  32 bytes   0 length of the changes u64           8 changes u64
//!                    16 bytes of regular files u64         24 packs u32
//!                    28 CRC-32 (IEEE) of everything before it
//! ```
//!
//! Paths are relative, without empty, `.` or `..` components; the empty path is the root. The link of a hard
//! link is such a path too; that of a symbolic link is what the tar says.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, ensure};

use super::{
    Data, Error, Inode, NONE, PACK, PAGE, PATH_MAX, PackId, Time, Xattrs, name_allowed, push_xattr,
    target_allowed, type_allowed, u16_in, u32_in, u64_in, xattr_allowed,
};
use crate::error::Result;
use crate::sys::mmap::Map;

const MAGIC: &[u8; 8] = b"rlesslyr";
const VERSION: u32 = 1;
const HEADER: usize = 48;
const CHANGE: usize = 88;
const TRAILER: usize = 32;

/// Whether `path` is what this format calls a path: relative, in normal form, within [`PATH_MAX`].
#[must_use]
pub fn path_allowed(path: &[u8]) -> bool {
    path.len() <= PATH_MAX && (path.is_empty() || path.split(|b| *b == b'/').all(name_allowed))
}

/// One entry of a layer.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// Where, relative to the root; empty for the root itself.
    pub path: &'a [u8],
    /// What is there.
    pub act: Act<'a>,
    /// Its extended attributes.
    pub xattrs: Xattrs<'a>,
}

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act<'a> {
    /// A new inode (or new metadata of a directory). `nlink` and a directory's `parent` mean nothing.
    Node(Inode<'a>),
    /// Another name of the file at this path.
    Link(&'a [u8]),
}

/// A place in a [`Layer`]'s changes; as an `Option` no larger than itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(std::num::NonZeroUsize);

/// Writes a layer index front to back.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    crc: crc32fast::Hasher,
    changes_len: u64,
    changes: u64,
    bytes: u64,
    record: Vec<u8>,
    set: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins the index of the layer whose uncompressed tar has the SHA-256 `diff_id`.
    ///
    /// # Errors
    /// As writing to `out` fails.
    pub fn new(out: W, diff_id: &[u8; 32]) -> io::Result<Writer<W>> {
        let mut writer = Writer {
            out,
            crc: crc32fast::Hasher::new(),
            changes_len: 0,
            changes: 0,
            bytes: 0,
            record: Vec::new(),
            set: Vec::new(),
        };
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(diff_id);
        writer.put(&header)?;
        Ok(writer)
    }

    /// Adds an entry; `pack` in a [`Data::File`] is a place in the list that [`Writer::finish`] gets.
    ///
    /// # Errors
    /// When the entry is outside the format's limits, or writing fails.
    pub fn push<'x>(
        &mut self,
        path: &[u8],
        act: &Act<'_>,
        xattrs: impl IntoIterator<Item = (&'x [u8], &'x [u8])>,
    ) -> Result<()> {
        ensure!(path_allowed(path), "its path is longer than Linux allows");
        let mut sorted: Vec<_> = xattrs.into_iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| *name);
        self.set.clear();
        for (name, value) in sorted {
            let fits = push_xattr(&mut self.set, name, value);
            ensure!(fits, "its attribute `{}` is too long", name.escape_ascii());
        }
        let zero = Inode {
            mode: 0,
            nlink: 0,
            uid: 0,
            gid: 0,
            rdev_major: 0,
            rdev_minor: 0,
            size: 0,
            mtime: Time::default(),
            atime: Time::default(),
            ctime: Time::default(),
            data: Data::None,
        };
        let (inode, link): (&Inode<'_>, &[u8]) = match act {
            Act::Link(target) => {
                ensure!(path_allowed(target), "its link is longer than Linux allows");
                (&zero, target)
            }
            Act::Node(inode) => match inode.data {
                Data::Symlink(target) => {
                    ensure!(
                        target_allowed(target),
                        "its link is empty or longer than Linux allows"
                    );
                    (inode, target)
                }
                _ => (inode, b""),
            },
        };
        self.record.clear();
        encode(&mut self.record, inode, path, link, &self.set)?;
        if inode.mode & libc::S_IFMT == libc::S_IFREG {
            self.bytes = self
                .bytes
                .checked_add(inode.size)
                .context("more than 2⁶⁴ bytes")?;
        }
        self.changes += 1;
        self.changes_len += self.record.len() as u64;
        let record = std::mem::take(&mut self.record);
        let written = self.put(&record);
        self.record = record;
        Ok(written?)
    }

    /// Bytes that all changes take so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.changes_len
    }

    /// Whether no change has been added yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Number of changes so far, and the bytes of their regular files.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.changes, self.bytes)
    }

    /// Ends the file; `packs` are (id, length) in the order that the changes refer to.
    ///
    /// # Errors
    /// As writing fails.
    pub fn finish(mut self, packs: &[(PackId, u64)]) -> Result<W> {
        let mut tail = Vec::with_capacity(packs.len() * PACK + TRAILER);
        for (id, len) in packs {
            tail.extend_from_slice(&id.0);
            tail.extend_from_slice(&len.to_le_bytes());
        }
        for word in [self.changes_len, self.changes, self.bytes] {
            tail.extend_from_slice(&word.to_le_bytes());
        }
        tail.extend_from_slice(&u32::try_from(packs.len())?.to_le_bytes());
        self.put(&tail)?;
        let crc = std::mem::take(&mut self.crc).finalize();
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.out.write_all(bytes)
    }
}

/// One record of the format.
fn encode(
    record: &mut Vec<u8>,
    inode: &Inode<'_>,
    path: &[u8],
    link: &[u8],
    set: &[u8],
) -> Result<()> {
    let (pack, offset) = match inode.data {
        Data::File { pack, offset } => (pack, offset),
        _ => (NONE, 0),
    };
    for word in [
        u32::try_from(CHANGE + path.len() + link.len() + set.len())?,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.rdev_major,
        inode.rdev_minor,
    ] {
        record.extend_from_slice(&word.to_le_bytes());
    }
    record.extend_from_slice(&inode.size.to_le_bytes());
    for time in [inode.mtime, inode.atime, inode.ctime] {
        record.extend_from_slice(&time.sec.to_le_bytes());
    }
    for time in [inode.mtime, inode.atime, inode.ctime] {
        record.extend_from_slice(&time.nsec.to_le_bytes());
    }
    record.extend_from_slice(&pack.to_le_bytes());
    record.extend_from_slice(&offset.to_le_bytes());
    record.extend_from_slice(&u16::try_from(path.len())?.to_le_bytes());
    record.extend_from_slice(&u16::try_from(link.len())?.to_le_bytes());
    record.extend_from_slice(&u32::try_from(set.len())?.to_le_bytes());
    for part in [path, link, set] {
        record.extend_from_slice(part);
    }
    Ok(())
}

/// An opened, verified layer index.
#[derive(Debug)]
pub struct Layer {
    map: Map,
    changes_end: usize,
    changes: u64,
    bytes: u64,
    packs: Vec<(PackId, u64)>,
}

impl Layer {
    /// Opens and verifies the layer index at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what this module describes ([`Error`]).
    pub fn open(path: &Path) -> Result<Layer> {
        let what = || format!("opening layer index {}", path.display());
        let file = std::fs::File::open(path).with_context(what)?;
        let map = Map::whole(&file).with_context(what)?;
        verify(map).with_context(what)
    }

    /// Verifies a layer index held in memory.
    ///
    /// # Errors
    /// [`Error`] when the bytes are not what this module describes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Layer> {
        Ok(verify(Map::from(bytes))?)
    }

    /// SHA-256 of the uncompressed tar.
    #[must_use]
    pub fn diff_id(&self) -> [u8; 32] {
        let mut id = [0; 32];
        id.copy_from_slice(&self.map[16..HEADER]);
        id
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.changes
    }

    /// Whether the layer changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Bytes of all regular files' contents.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The packs (id, length) that hold contents of this layer; the order is that of [`Data::File`]'s `pack`.
    #[must_use]
    pub fn packs(&self) -> &[(PackId, u64)] {
        &self.packs
    }

    /// All changes in the tar's order, each with its place.
    pub fn changes(&self) -> impl Iterator<Item = (Place, Change<'_>)> {
        let mut next = HEADER;
        std::iter::from_fn(move || {
            let (change, len) = self.record(next)?;
            let place = Place(std::num::NonZeroUsize::new(next)?);
            next += len;
            Some((place, change))
        })
    }

    /// The change at a place that [`Layer::changes`] gave.
    #[must_use]
    pub fn change(&self, place: Place) -> Option<Change<'_>> {
        Some(self.record(place.0.get())?.0)
    }

    fn record(&self, at: usize) -> Option<(Change<'_>, usize)> {
        let rest = self.map.get(at..self.changes_end)?;
        let (r, rest) = rest.split_first_chunk::<CHANGE>()?;
        let (path, rest) = rest.split_at_checked(u16_in(r, 80).into())?;
        let (link, rest) = rest.split_at_checked(u16_in(r, 82).into())?;
        let (set, _) = rest.split_at_checked(u32_in(r, 84) as usize)?;
        let len = CHANGE + path.len() + link.len() + set.len();
        if u32_in(r, 0) as usize != len {
            return None;
        }
        let mode = u32_in(r, 4);
        let time = |sec, nsec| Time {
            sec: u64_in(r, sec).cast_signed(),
            nsec: u32_in(r, nsec),
        };
        let act = if mode == 0 {
            Act::Link(link)
        } else {
            Act::Node(Inode {
                mode,
                nlink: 0,
                uid: u32_in(r, 8),
                gid: u32_in(r, 12),
                rdev_major: u32_in(r, 16),
                rdev_minor: u32_in(r, 20),
                size: u64_in(r, 24),
                mtime: time(32, 56),
                atime: time(40, 60),
                ctime: time(48, 64),
                data: match (mode & libc::S_IFMT, u32_in(r, 68)) {
                    (libc::S_IFREG, NONE) => Data::None,
                    (libc::S_IFREG, pack) => Data::File {
                        pack,
                        offset: u64_in(r, 72),
                    },
                    (libc::S_IFLNK, _) => Data::Symlink(link),
                    (libc::S_IFDIR, _) => Data::Dir {
                        parent: 0,
                        entries: 0,
                    },
                    _ => Data::None,
                },
            })
        };
        let xattrs = Xattrs(set);
        Some((Change { path, act, xattrs }, len))
    }
}

fn verify(map: Map) -> Result<Layer, Error> {
    let corrupt = Error::Corrupt;
    let header: &[u8; HEADER] = match map.first_chunk() {
        Some(header) if header.starts_with(MAGIC) => header,
        _ => return Err(Error::Magic("a layer index")),
    };
    if u32_in(header, 8) != VERSION {
        return Err(Error::Version(u32_in(header, 8)));
    }
    if u32_in(header, 12) != 0 {
        return Err(corrupt("reserved field"));
    }
    let rest = &map[HEADER..];
    let (rest, trailer) = rest
        .split_last_chunk::<TRAILER>()
        .ok_or(corrupt("length"))?;
    let crc = crc32fast::hash(&map[..map.len() - 4]);
    if crc != u32_in(trailer, 28) {
        return Err(corrupt("checksum"));
    }
    let changes_len = usize::try_from(u64_in(trailer, 0)).map_err(|_| corrupt("length"))?;
    let (_, packs) = rest
        .split_at_checked(changes_len)
        .ok_or(corrupt("length"))?;
    let (packs, left) = packs.as_chunks::<PACK>();
    if !left.is_empty() || packs.len() != u32_in(trailer, 24) as usize {
        return Err(corrupt("packs"));
    }
    let packs = packs.iter().map(|r| {
        let mut id = [0; 32];
        id.copy_from_slice(&r[..32]);
        (PackId(id), u64_in(r, 32))
    });
    let layer = Layer {
        changes_end: HEADER + changes_len,
        changes: u64_in(trailer, 8),
        bytes: u64_in(trailer, 16),
        packs: packs.collect(),
        map,
    };
    changes(&layer)?;
    Ok(layer)
}

/// Every change is whole and within the limits, and the totals are theirs.
fn changes(layer: &Layer) -> Result<(), Error> {
    let (mut at, mut count, mut bytes) = (HEADER, 0, 0_u64);
    while at < layer.changes_end {
        let (change, len) = layer.record(at).ok_or(Error::Corrupt("change"))?;
        one_change(layer, &change)?;
        if let Act::Node(inode) = change.act
            && inode.mode & libc::S_IFMT == libc::S_IFREG
        {
            bytes = bytes
                .checked_add(inode.size)
                .ok_or(Error::Corrupt("size"))?;
        }
        at += len;
        count += 1;
    }
    if count != layer.changes || bytes != layer.bytes {
        return Err(Error::Corrupt("totals"));
    }
    Ok(())
}

fn one_change(layer: &Layer, change: &Change<'_>) -> Result<(), Error> {
    let ensure = |holds: bool, what| {
        if holds {
            Ok(())
        } else {
            Err(Error::Corrupt(what))
        }
    };
    ensure(path_allowed(change.path), "path")?;
    let mut set = change.xattrs.clone();
    let mut last: &[u8] = b"";
    for (name, value) in set.by_ref() {
        ensure(xattr_allowed(name, value) && last < name, "attribute")?;
        last = name;
    }
    ensure(set.0.is_empty(), "attribute")?;
    let inode = match change.act {
        Act::Link(target) => return ensure(path_allowed(target), "link"),
        Act::Node(inode) => inode,
    };
    ensure(type_allowed(inode.mode), "mode")?;
    for time in [inode.mtime, inode.atime, inode.ctime] {
        ensure(time.nsec < 1_000_000_000, "time")?;
    }
    match inode.data {
        Data::Symlink(target) => ensure(target_allowed(target), "link"),
        Data::File { pack, offset } => {
            let pack = layer
                .packs
                .get(pack as usize)
                .ok_or(Error::Corrupt("content"))?;
            let end = offset.checked_add(inode.size);
            ensure(
                inode.size > 0
                    && offset.is_multiple_of(PAGE)
                    && end.is_some_and(|end| end <= pack.1)
                    && pack.1.is_multiple_of(PAGE),
                "content",
            )
        }
        _ => ensure(i64::try_from(inode.size).is_ok(), "size"),
    }
}
