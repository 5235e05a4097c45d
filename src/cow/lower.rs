//! What an upper lies over: an image's index with its packs, or a directory of the host.
//!
//! Both answer by inode number. An image's numbers are those of its index (1 to its count), so an
//! inode nobody changed needs no memory here. A host directory's numbers are made from the host's
//! own (see [`super::host`]). Numbers of new inodes come from [`Low::alloc`] and never collide
//! with either.

use super::host::HostLower;
use super::index::{Data, Index, Pack};
use super::meta::{Meta, Res, encode_dev, errno};
use super::refs::Counts;
use crate::error::Result;
use anyhow::Context;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::borrow::Cow;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// An image: nothing in it ever changes.
pub(crate) struct ImageLower {
    index: Index,
    packs: Vec<Pack>,
    counts: Counts,
}

enum Kind {
    Image(ImageLower),
    Host(HostLower),
}

/// The lower of a tree.
pub(crate) struct Low {
    kind: Kind,
    next: AtomicU64,
}

/// The entries of one lower directory, in an order that does not change while this lives.
pub(crate) enum Listing<'a> {
    Image(super::index::Entries<'a>),
    Host(std::sync::Arc<Vec<super::host::HostName>>),
}

/// One entry of a [`Listing`].
pub(crate) struct LowEntry<'a> {
    pub name: &'a [u8],
    pub ino: u64,
    pub kind: u8,
    /// A live host has it no more: it is there as far as its node is.
    pub gone: bool,
}

impl Listing<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Listing::Image(e) => e.len(),
            Listing::Host(v) => v.len(),
        }
    }

    pub(crate) fn get(&self, i: usize) -> Option<LowEntry<'_>> {
        match self {
            Listing::Image(e) => e.get(i).map(|d| LowEntry {
                name: d.name,
                ino: d.ino,
                kind: d.kind,
                gone: false,
            }),
            Listing::Host(v) => v.get(i).map(|n| LowEntry {
                name: &n.name,
                ino: n.ino,
                kind: n.kind,
                gone: n.gone,
            }),
        }
    }
}

impl Low {
    /// Opens an image's index and every pack it names.
    ///
    /// # Errors
    /// The index or a pack is missing or damaged.
    pub(crate) fn image(index: &Path, packs: &Path) -> Result<Low> {
        let index = Index::open(index)
            .with_context(|| format!("opening image index {}", index.display()))?;
        let packs = index.open_packs(packs)?;
        Ok(Low {
            next: AtomicU64::new(index.inode_count() + 1),
            kind: Kind::Image(ImageLower {
                counts: Counts::new(index.inode_count())
                    .context("making room for the kernel's look-ups")?,
                index,
                packs,
            }),
        })
    }

    pub(crate) fn host(host: HostLower) -> Low {
        Low {
            kind: Kind::Host(host),
            next: AtomicU64::new(Index::ROOT + 1),
        }
    }

    /// Identity that a journal over this lower is bound to.
    pub(crate) fn base(&self) -> u64 {
        match &self.kind {
            Kind::Image(i) => {
                // The CRC that ends the index covers all of it.
                let crc = i
                    .index
                    .bytes()
                    .last_chunk::<4>()
                    .map_or(0, |c| u32::from_le_bytes(*c));
                u64::from(crc) << 32 | (i.index.inode_count() & 0xffff_ffff)
            }
            Kind::Host(_) => u64::MAX,
        }
    }

    /// Whether somebody else may change it under us.
    pub(crate) fn is_live(&self) -> bool {
        self.as_host().is_some_and(HostLower::is_live)
    }

    pub(crate) fn as_host(&self) -> Option<&HostLower> {
        match &self.kind {
            Kind::Host(h) => Some(h),
            Kind::Image(_) => None,
        }
    }

    /// A number no inode had before.
    pub(crate) fn alloc(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The next number [`Low::alloc`] would give.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Never give a number below `ino` again (replay).
    pub(crate) fn reserve(&self, ino: u64) {
        if !self.contains_number(ino.saturating_sub(1)) || self.as_host().is_none() {
            self.next.fetch_max(ino, Ordering::Relaxed);
        }
    }

    /// Whether the number belongs to the lower's range (a node of its own or not).
    pub(crate) fn contains_number(&self, ino: u64) -> bool {
        match &self.kind {
            Kind::Image(i) => ino <= i.index.inode_count(),
            Kind::Host(_) => HostLower::owns(ino),
        }
    }

    /// Metadata of a lower inode; `None` when there is none of that number.
    pub(crate) fn meta(&self, ino: u64) -> Res<Option<Meta>> {
        match &self.kind {
            Kind::Image(i) => Ok(i.index.inode(ino).map(|n| Meta {
                mode: n.mode,
                nlink: n.nlink,
                uid: n.uid,
                gid: n.gid,
                rdev: encode_dev(n.rdev_major, n.rdev_minor),
                size: n.size,
                atime: n.atime,
                mtime: n.mtime,
                ctime: n.ctime,
            })),
            Kind::Host(h) => h.meta(ino),
        }
    }

    /// The inode that `name` has in the lower directory `dir`.
    pub(crate) fn lookup(&self, dir: u64, name: &[u8]) -> Res<Option<u64>> {
        match &self.kind {
            Kind::Image(i) => Ok(i.index.lookup(dir, name)),
            Kind::Host(h) => h.lookup(dir, name),
        }
    }

    /// The lower directory that the directory `ino` is in.
    pub(crate) fn parent(&self, ino: u64) -> u64 {
        match &self.kind {
            Kind::Image(i) => match i.index.inode(ino).map(|n| n.data) {
                Some(Data::Dir { parent, .. }) => parent,
                _ => Index::ROOT,
            },
            Kind::Host(h) => h.parent(ino),
        }
    }

    /// The entries of a lower directory.
    pub(crate) fn list(&self, dir: u64) -> Res<Listing<'_>> {
        match &self.kind {
            Kind::Image(i) => Ok(Listing::Image(i.index.entries(dir))),
            Kind::Host(h) => Ok(Listing::Host(h.list(dir)?)),
        }
    }

    /// Every name of an image: directory, name, inode. Nothing of host directories.
    pub(crate) fn each_name(&self, put: &mut dyn FnMut(u64, &[u8], u64)) {
        let Kind::Image(image) = &self.kind else {
            return;
        };
        for dir in 1..=image.index.inode_count() {
            for entry in image.index.entries(dir).iter() {
                put(dir, entry.name, entry.ino);
            }
        }
    }

    pub(crate) fn readlink(&self, ino: u64) -> Res<Cow<'_, [u8]>> {
        match &self.kind {
            Kind::Image(i) => match i.index.inode(ino).map(|n| n.data) {
                Some(Data::Symlink(target)) => Ok(Cow::Borrowed(target)),
                _ => Err(Errno::EINVAL),
            },
            Kind::Host(h) => h.readlink(ino).map(Cow::Owned),
        }
    }

    /// One extended attribute.
    pub(crate) fn xattr(&self, ino: u64, name: &[u8]) -> Res<Option<Cow<'_, [u8]>>> {
        match &self.kind {
            Kind::Image(i) => Ok(i.index.xattr(ino, name).map(Cow::Borrowed)),
            Kind::Host(h) => Ok(h.xattr(ino, name)?.map(Cow::Owned)),
        }
    }

    /// All extended attributes, sorted by name.
    pub(crate) fn xattrs(&self, ino: u64) -> Res<Vec<(Vec<u8>, Vec<u8>)>> {
        match &self.kind {
            Kind::Image(i) => Ok(i
                .index
                .xattrs(ino)
                .map(|(n, v)| (n.to_vec(), v.to_vec()))
                .collect()),
            Kind::Host(h) => h.xattrs(ino),
        }
    }

    /// Content of a lower file, into `part`: how many bytes, fewer than asked for only at its end.
    pub(crate) fn read(&self, ino: u64, offset: u64, part: &mut [u8]) -> Res<usize> {
        match &self.kind {
            Kind::Image(i) => i.read(ino, offset, part),
            Kind::Host(h) => h.read(ino, offset, part),
        }
    }

    /// Where in an immutable file what [`Lower::read`] would read of at most `len` bytes is, and how much: none where it is in no
    /// such file.
    pub(crate) fn range(&self, ino: u64, offset: u64, len: usize) -> Option<(&File, u64, usize)> {
        let Kind::Image(image) = &self.kind else {
            return None;
        };
        let n = image.index.inode(ino)?;
        let Data::File { pack, offset: at } = n.data else {
            return None;
        };
        let left = usize::try_from(n.size.checked_sub(offset)?).unwrap_or(usize::MAX);
        let pack = image.packs.get(pack as usize)?;
        let (at, len) = (at.checked_add(offset)?, len.min(left));
        pack.has(at, len).then(|| (pack.file(), at, len))
    }

    /// The next data, or hole, of a file of `size` bytes from `offset` on, as the pack has it; a host's files are data from
    /// end to end.
    pub(crate) fn seek(&self, ino: u64, offset: u64, size: u64, hole: bool) -> Res<u64> {
        let whole = if hole { size } else { offset };
        let Kind::Image(image) = &self.kind else {
            return Ok(whole);
        };
        match image.index.inode(ino).map(|n| n.data) {
            Some(Data::None) if !hole => Err(Errno::ENXIO),
            Some(Data::File { pack, offset: at }) => {
                let pack = image.packs.get(pack as usize).ok_or(Errno::EIO)?;
                let whence = match hole {
                    true => Whence::SeekHole,
                    false => Whence::SeekData,
                };
                match lseek(pack.file(), (at + offset).cast_signed(), whence) {
                    Ok(found) => Ok((found.cast_unsigned() - at).min(size)),
                    Err(Errno::ENXIO) if !hole => Err(Errno::ENXIO),
                    // The host's file system cannot say.
                    Err(_) => Ok(whole),
                }
            }
            _ => Ok(whole),
        }
    }

    /// What is mapped is worth giving back while the server still starts.
    pub(crate) fn is_large(&self) -> bool {
        matches!(&self.kind, Kind::Image(i) if i.index.is_large())
    }

    /// Gives back what is mapped and was only looked at.
    pub(crate) fn trim(&self) {
        if let Kind::Image(i) = &self.kind {
            i.index.trim();
        }
    }

    /// The kernel looked the inode up once more; false: it was forgotten since, and has to be looked up again.
    pub(crate) fn refer(&self, ino: u64) -> bool {
        match &self.kind {
            Kind::Image(i) => {
                i.counts.add(ino);
                true
            }
            Kind::Host(h) => h.refer(ino),
        }
    }

    /// The kernel forgot `n` look-ups; returns how many are left.
    pub(crate) fn forget(&self, ino: u64, n: u64) -> u64 {
        match &self.kind {
            Kind::Image(i) => i.counts.sub(ino, n),
            Kind::Host(h) => h.forget(ino, n),
        }
    }

    /// How often the kernel has looked the inode up and not forgotten it.
    pub(crate) fn lookups(&self, ino: u64) -> u64 {
        match &self.kind {
            Kind::Image(i) => i.counts.get(ino),
            Kind::Host(h) => h.lookups(ino),
        }
    }

    /// Bytes and inodes, for statfs.
    pub(crate) fn totals(&self) -> (u64, u64) {
        match &self.kind {
            Kind::Image(i) => (i.index.total_size(), i.index.inode_count()),
            Kind::Host(_) => (0, 0),
        }
    }
}

impl ImageLower {
    fn read(&self, ino: u64, offset: u64, part: &mut [u8]) -> Res<usize> {
        let n = self.index.inode(ino).ok_or(Errno::ENOENT)?;
        let left = n.size.saturating_sub(offset);
        let len = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let part = &mut part[..len];
        match n.data {
            _ if len == 0 => {}
            Data::File { pack, offset: at } => {
                let pack = self.packs.get(pack as usize).ok_or(Errno::EIO)?;
                pack.read(at + offset, part)
                    .map_err(|e| e.raw_os_error().map_or(Errno::EIO, |_| errno(&e)))?;
            }
            Data::None => part.fill(0),
            Data::Symlink(_) | Data::Dir { .. } => return Err(Errno::EINVAL),
        }
        Ok(len)
    }
}
