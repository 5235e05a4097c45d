//! The index: an inode table with sorted directories, read in place.
//!
//! An [`Index`] is a whole file tree without its file contents, which lie in packs ([`Pack`]). Images
//! have one (merged from their layers by [`super::merge`]); a container's folded journal is one too.
//! It is made by a [`Builder`], immutable, and read from a mapping: a look-up is one binary search
//! in the page cache, without allocation.
//!
//! A layer is not a tree but a list of changes, and has a format of its own.
//!
//! # Format, version 1
//!
//! Little-endian; sections follow one another without gaps, in this order; `n` of each are in the header.
//!
//! ```text
//! header   64 bytes   0 magic "rlessidx"   8 version u32    12 inodes u32    16 file length u64
//!                    24 total size u64    32 dirents u32    36 xattr sets u32 40 packs u32
//!                    44 reserved u32 (0)  48 bytes of xattrs u64              56 bytes of strings u64
//! inodes   88 each    0 mode u32 (st_mode; 0: no such inode, all else 0)      4 nlink u32
//!                     8 uid u32           12 gid u32        16 rdev major u32 20 rdev minor u32
//!                    24 size u64          32 mtime.s i64    40 atime.s i64    48 ctime.s i64
//!                    56 mtime.ns u32      60 atime.ns u32   64 ctime.ns u32
//!                    68 xattr set u32 (2^32-1: none)        72 a u64          80 b u32   84 c u32
//! packs    40 each    0 id (sha-256 of its .toc)            32 bytes in the pack u64
//! dirents  12 each    0 name in strings u32                  4 inode u32
//!                     8 length of name u16                  10 d_type u8      11 reserved (0)
//! xattr offsets       (sets + 1) x u32 into xattrs: set i is [offset i, offset i+1)
//! xattrs              a set: per attribute, sorted by name: name length u8, value length u32, name, value
//! strings             names (a directory's side by side) and symbolic links' targets
//! crc      4 bytes    CRC-32 (IEEE) of everything before it
//!
//! a, b, c by file type
//!   regular   a: offset in the pack, a multiple of 4096; b: pack (2^32-1: none, reads as zeros); c: 0
//!   symlink   a: target in strings; b: its length = size; c: 0
//!   directory a: first dirent; b: number of dirents; c: parent inode (the root's own is itself)
//!   others    0
//! ```
//!
//! Inode 1 is the root. Numbers need not be dense: a folded index keeps those of the index it came
//! from, so that `st_ino` never changes. Dirents are sorted by name as bytes, without `.` and `..`.
//!
//! # What opening checks
//!
//! Magic, version, CRC; that every offset, count and reference is in bounds; names (1 to 255 bytes, no
//! `/`, no NUL, sorted, unique); that d_types and link counts agree; that every directory but the root
//! is in exactly one directory, which is its parent, and that parents lead to the root. No accessor can
//! panic, loop or read out of bounds afterwards, whatever the bytes were.

use std::fs::File;
use std::path::Path;

use anyhow::Context;

use crate::error::Result;
use crate::sys::mmap::Map;

mod build;
pub mod layer;
mod pack;
#[cfg(test)]
mod tests;
mod verify;

pub use build::Builder;
pub use pack::{PAGE, Pack, PackId, padded};

const MAGIC: &[u8; 8] = b"rlessidx";
const VERSION: u32 = 1;
const HEADER: usize = 64;
const INODE: usize = 88;
const PACK: usize = 40;
const DIRENT: usize = 12;
const NONE: u32 = u32::MAX;

/// Bytes a name in a directory may have (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Bytes a path or a symbolic link's target may have (`PATH_MAX` without its NUL).
pub const PATH_MAX: usize = 4095;
/// Bytes an extended attribute's value may have (`XATTR_SIZE_MAX`).
pub const XATTR_SIZE_MAX: usize = 65536;

/// Why bytes are not an index (or a layer, or a pack): matched by whoever can make them anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file does not begin as one of its kind does.
    #[error("not {0}")]
    Magic(&'static str),
    /// The file is of a later (or withdrawn) version of the format.
    #[error("format version {0} is not known to this rless")]
    Version(u32),
    /// The content contradicts itself or its checksum.
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
}

/// A point in time; before 1970 `sec` is negative and `nsec` still counts forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub sec: i64,
    /// Nanoseconds after `sec`, below 10⁹.
    pub nsec: u32,
}

/// Metadata of one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode<'a> {
    /// `st_mode`, with the file type.
    pub mode: u32,
    /// Number of names; for a directory 2 and one for each directory in it.
    pub nlink: u32,
    /// Owner, a container id.
    pub uid: u32,
    /// Group, a container id.
    pub gid: u32,
    /// Major number of a device.
    pub rdev_major: u32,
    /// Minor number of a device.
    pub rdev_minor: u32,
    /// Bytes; of a symbolic link those of its target.
    pub size: u64,
    /// Time of the last change of content.
    pub mtime: Time,
    /// Time of the last access.
    pub atime: Time,
    /// Time of the last change of metadata.
    pub ctime: Time,
    /// What depends on the file type.
    pub data: Data<'a>,
}

/// What depends on the file type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// FIFO, socket, device; or a regular file without stored content: `size` zero bytes (mostly 0).
    None,
    /// Content of a regular file, `size` bytes from `offset` of the pack at this place of [`Index::packs`].
    File {
        /// Place in [`Index::packs`].
        pack: u32,
        /// Byte offset in that pack, a multiple of [`PAGE`].
        offset: u64,
    },
    /// Target of a symbolic link.
    Symlink(&'a [u8]),
    /// A directory.
    Dir {
        /// The directory it is in; the root is its own parent.
        parent: u64,
        /// Number of entries, `.` and `..` not counted.
        entries: u64,
    },
}

/// One name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name, 1 to 255 bytes.
    pub name: &'a [u8],
    /// The inode it names.
    pub ino: u64,
    /// File type as in `d_type` (`DT_REG` …).
    pub kind: u8,
}

/// An opened, verified index.
#[derive(Debug)]
pub struct Index {
    map: Map,
    inodes: u32,
    dirents_at: usize,
    dirents: u32,
    xattr_table_at: usize,
    xattr_sets: u32,
    xattrs_at: usize,
    strings_at: usize,
    strings_end: usize,
    total_size: u64,
    packs: Vec<PackId>,
    pack_lens: Vec<u64>,
}

impl Index {
    /// The root directory's inode.
    pub const ROOT: u64 = 1;

    /// Opens and verifies the index at `path`; mapped, or read on a network file system.
    ///
    /// # Errors
    /// When the file cannot be read, or is not an index as this module describes ([`Error`]).
    pub fn open(path: &Path) -> Result<Index> {
        let what = || format!("opening image index {}", path.display());
        let file = File::open(path).with_context(what)?;
        let map = Map::whole(&file).with_context(what)?;
        let index = verify::index(map).with_context(what)?;
        index.trim();
        Ok(index)
    }

    /// It takes more than a mebibyte.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.map.len() > 1 << 20
    }

    /// Takes the pages that were looked at out of this process again: the next look finds them in
    /// the page cache, or on disk.
    pub fn trim(&self) {
        self.map.unload();
    }

    /// Verifies an index held in memory.
    ///
    /// # Errors
    /// [`Error`] when the bytes are not an index as this module describes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Index> {
        Ok(verify::index(Map::from(bytes))?)
    }

    /// The highest inode number: numbers are 1 to this, and a folded index may lack some of them.
    #[must_use]
    pub fn inode_count(&self) -> u64 {
        self.inodes.into()
    }

    /// Metadata of an inode; `None` when the number is not in use.
    #[must_use]
    pub fn inode(&self, ino: u64) -> Option<Inode<'_>> {
        let r = self.record(ino)?;
        let mode = u32_in(r, 0);
        if mode == 0 {
            return None;
        }
        let (a, b, c) = (u64_in(r, 72), u32_in(r, 80), u32_in(r, 84));
        let data = match mode & libc::S_IFMT {
            libc::S_IFREG if b != NONE => Data::File { pack: b, offset: a },
            libc::S_IFLNK => Data::Symlink(self.string(a, b.into())?),
            libc::S_IFDIR => Data::Dir {
                parent: c.into(),
                entries: b.into(),
            },
            _ => Data::None,
        };
        let time = |sec, nsec| Time {
            sec: u64_in(r, sec).cast_signed(),
            nsec: u32_in(r, nsec),
        };
        Some(Inode {
            mode,
            nlink: u32_in(r, 4),
            uid: u32_in(r, 8),
            gid: u32_in(r, 12),
            rdev_major: u32_in(r, 16),
            rdev_minor: u32_in(r, 20),
            size: u64_in(r, 24),
            mtime: time(32, 56),
            atime: time(40, 60),
            ctime: time(48, 64),
            data,
        })
    }

    /// The inode that `name` has in `dir`; `None` also when `dir` is not a directory.
    #[must_use]
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Option<u64> {
        let entries = self.entries(dir);
        let (mut low, mut high) = (0, entries.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = entries.at(middle)?;
            match entry.name.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(entry.ino),
            }
        }
        None
    }

    /// The entries of `dir`, sorted by name as bytes; none when it is not a directory.
    #[must_use]
    pub fn entries(&self, dir: u64) -> Entries<'_> {
        let (first, count) = match self.record(dir) {
            Some(r) if u32_in(r, 0) & libc::S_IFMT == libc::S_IFDIR => {
                // Verified to lie below `dirents`, a u32.
                (u32::try_from(u64_in(r, 72)).unwrap_or(0), u32_in(r, 80))
            }
            _ => (0, 0),
        };
        Entries {
            index: self,
            first,
            count,
        }
    }

    /// Extended attributes (name, value) of an inode, sorted by name.
    #[must_use]
    pub fn xattrs(&self, ino: u64) -> Xattrs<'_> {
        Xattrs(self.xattr_set(ino).unwrap_or(&[]))
    }

    /// One extended attribute of an inode.
    #[must_use]
    pub fn xattr(&self, ino: u64, name: &[u8]) -> Option<&[u8]> {
        self.xattrs(ino).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The packs that hold the contents, in the order of [`Data::File`]'s `pack`.
    #[must_use]
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// Opens every pack of [`Index::packs`] in the directory `dir`; the length of each is checked.
    ///
    /// # Errors
    /// When a pack is missing, cannot be opened or has another length than when this index was made.
    pub fn open_packs(&self, dir: &Path) -> Result<Vec<Pack>> {
        let packs = self.packs.iter().zip(&self.pack_lens);
        packs.map(|(id, len)| Pack::open(dir, id, *len)).collect()
    }

    /// Bytes in the pack at this place of [`Index::packs`].
    #[must_use]
    pub fn pack_len(&self, pack: u32) -> Option<u64> {
        self.pack_lens.get(usize::try_from(pack).ok()?).copied()
    }

    /// Bytes of all regular files, each inode once.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        self.total_size
    }

    /// Bytes that the index itself takes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn record(&self, ino: u64) -> Option<&[u8; INODE]> {
        let i = usize::try_from(ino).ok()?.checked_sub(1)?;
        if i >= self.inodes as usize {
            return None;
        }
        let start = HEADER + i * INODE;
        self.map.get(start..start + INODE)?.try_into().ok()
    }

    fn string(&self, at: u64, len: u64) -> Option<&[u8]> {
        let at = usize::try_from(at).ok()?;
        let len = usize::try_from(len).ok()?;
        let strings = self.map.get(self.strings_at..self.strings_end)?;
        strings.get(at..at.checked_add(len)?)
    }

    fn dirent(&self, i: u32) -> Option<DirEntry<'_>> {
        if i >= self.dirents {
            return None;
        }
        let start = self.dirents_at + i as usize * DIRENT;
        let r: &[u8; DIRENT] = self.map.get(start..start + DIRENT)?.try_into().ok()?;
        Some(DirEntry {
            name: self.string(u32_in(r, 0).into(), u16_in(r, 8).into())?,
            ino: u32_in(r, 4).into(),
            kind: r[10],
        })
    }

    fn xattr_set(&self, ino: u64) -> Option<&[u8]> {
        let record = self.record(ino)?;
        let set = u32_in(record, 68);
        if set >= self.xattr_sets || u32_in(record, 0) == 0 {
            return None;
        }
        let at = self.xattr_table_at + set as usize * 4;
        let offsets: &[u8; 8] = self.map.get(at..at + 8)?.try_into().ok()?;
        let (from, to) = (u32_in(offsets, 0) as usize, u32_in(offsets, 4) as usize);
        self.map.get(self.xattrs_at + from..self.xattrs_at + to)
    }
}

/// The entries of one directory, sorted by name as bytes.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    index: &'a Index,
    first: u32,
    count: u32,
}

impl<'a> Entries<'a> {
    /// How many there are, `.` and `..` not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether the directory is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entry at a place; places are stable, so a place is a directory offset.
    #[must_use]
    pub fn get(&self, i: usize) -> Option<DirEntry<'a>> {
        self.at(u32::try_from(i).ok()?)
    }

    /// Place of the first entry whose name is not below `name`: where a merge with other names goes on.
    #[must_use]
    pub fn position(&self, name: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle).is_some_and(|e| e.name < name) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low as usize
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = DirEntry<'a>> + use<'a> {
        let all = *self;
        (0..self.count).map_while(move |i| all.at(i))
    }

    fn at(&self, i: u32) -> Option<DirEntry<'a>> {
        if i >= self.count {
            return None;
        }
        self.index.dirent(self.first.checked_add(i)?)
    }
}

/// Extended attributes of one inode: (name, value), sorted by name.
#[derive(Debug, Clone)]
pub struct Xattrs<'a>(&'a [u8]);

impl<'a> Iterator for Xattrs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_first_chunk::<5>()?;
        let name_len = usize::from(head[0]);
        let value_len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (name, rest) = rest.split_at_checked(name_len)?;
        let (value, rest) = rest.split_at_checked(value_len)?;
        self.0 = rest;
        Some((name, value))
    }
}

/// Appends one attribute to a set as [`Xattrs`] reads it; false when it is outside the limits.
fn push_xattr(set: &mut Vec<u8>, name: &[u8], value: &[u8]) -> bool {
    let (Ok(n), Ok(v)) = (u8::try_from(name.len()), u32::try_from(value.len())) else {
        return false;
    };
    if !xattr_allowed(name, value) {
        return false;
    }
    set.push(n);
    set.extend_from_slice(&v.to_le_bytes());
    set.extend_from_slice(name);
    set.extend_from_slice(value);
    true
}

fn xattr_allowed(name: &[u8], value: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.contains(&0)
        && value.len() <= XATTR_SIZE_MAX
}

/// Whether `name` can be one name in a directory.
#[must_use]
pub fn name_allowed(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|b| matches!(b, 0 | b'/'))
}

/// A symbolic link's target can be any path that fits.
fn target_allowed(target: &[u8]) -> bool {
    !target.is_empty() && target.len() <= PATH_MAX && !target.contains(&0)
}

fn type_allowed(mode: u32) -> bool {
    matches!(
        mode & libc::S_IFMT,
        libc::S_IFREG
            | libc::S_IFDIR
            | libc::S_IFLNK
            | libc::S_IFCHR
            | libc::S_IFBLK
            | libc::S_IFIFO
            | libc::S_IFSOCK
    ) && mode >> 16 == 0
}

/// `d_type` of a mode.
fn kind_of(mode: u32) -> u8 {
    u8::try_from((mode & libc::S_IFMT) >> 12).unwrap_or(libc::DT_UNKNOWN)
}

// Reads at constant places of fixed-size records: the bounds are known when compiled.
#[inline]
fn u16_in<const N: usize>(r: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([r[at], r[at + 1]])
}

#[inline]
fn u32_in<const N: usize>(r: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([r[at], r[at + 1], r[at + 2], r[at + 3]])
}

#[inline]
fn u64_in<const N: usize>(r: &[u8; N], at: usize) -> u64 {
    u64::from(u32_in(r, at)) | u64::from(u32_in(r, at + 4)) << 32
}
