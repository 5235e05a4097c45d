//! Making an index: inodes in any order, under numbers that the caller chooses.

use std::collections::HashMap;

use anyhow::{Context, ensure};

use super::{
    DIRENT, Data, HEADER, INODE, Index, Inode, MAGIC, NONE, PACK, PackId, VERSION, Xattrs, kind_of,
    name_allowed, push_xattr, target_allowed, type_allowed, u32_in,
};
use crate::error::Result;

/// Collects the parts of an index in memory; [`Builder::finish`] makes its bytes.
///
/// Every inode is [set](Builder::set) once, and every directory's [entries](Builder::entries) once.
/// Link counts, sizes of links and d_types follow from those and need not be given.
#[derive(Debug, Default)]
pub struct Builder {
    inodes: Vec<[u8; INODE]>,
    dirents: Vec<u8>,
    xattr_sets: HashMap<Vec<u8>, u32>,
    xattr_table: Vec<u8>,
    xattrs: Vec<u8>,
    strings: Vec<u8>,
    packs: Vec<(PackId, u64)>,
    pack_places: HashMap<PackId, u32>,
    total_size: u64,
}

impl Builder {
    /// An index of nothing; the root has to be set like any other inode.
    #[must_use]
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Makes room for `inodes` inodes, each with a name: without it the tables may grow to twice what they need.
    pub fn reserve(&mut self, inodes: usize) {
        self.inodes.reserve_exact(inodes);
        self.dirents.reserve_exact(inodes.saturating_mul(DIRENT));
    }

    /// The place of a pack of `len` bytes in the index's list; the same for the same pack.
    ///
    /// # Errors
    /// When there are more than 2³²-1 packs.
    pub fn pack(&mut self, id: PackId, len: u64) -> Result<u32> {
        if let Some(place) = self.pack_places.get(&id) {
            return Ok(*place);
        }
        let place = u32::try_from(self.packs.len())?;
        ensure!(place != NONE, "an index holds fewer than {NONE} packs");
        self.packs.push((id, len));
        self.pack_places.insert(id, place);
        Ok(place)
    }

    /// Sets the inode `ino`. Its `nlink` is ignored, as are the `size` of a symbolic link and
    /// the `entries` of [`Data::Dir`].
    ///
    /// # Errors
    /// When the number is 0, above 2³²-2 or set already, or the metadata cannot be stored: unknown file type,
    /// a link's target or an attribute outside Linux's limits, more than 4 GiB of names.
    pub fn set<'x>(
        &mut self,
        ino: u64,
        inode: &Inode<'_>,
        xattrs: impl IntoIterator<Item = (&'x [u8], &'x [u8])>,
    ) -> Result<()> {
        let i = usize::try_from(u32::try_from(ino)?)?;
        ensure!(
            i > 0 && ino < u64::from(NONE),
            "inode {ino} is out of range"
        );
        ensure!(
            type_allowed(inode.mode),
            "mode {:o} of inode {ino}",
            inode.mode
        );
        if self.inodes.len() < i {
            self.inodes.resize(i, [0; INODE]);
        }
        ensure!(
            u32_in(&self.inodes[i - 1], 0) == 0,
            "inode {ino} is set twice"
        );
        let regular = inode.mode & libc::S_IFMT == libc::S_IFREG;
        let mut size = inode.size;
        let (mut a, mut b, mut c) = (0, 0, 0);
        match inode.data {
            Data::None if regular => b = NONE,
            Data::None => {}
            Data::File { pack, offset } => (a, b) = (offset, pack),
            Data::Symlink(target) => {
                ensure!(target_allowed(target), "link target of inode {ino}");
                size = target.len() as u64;
                (a, b) = (self.string(target)?.into(), u32::try_from(target.len())?);
            }
            Data::Dir { parent, .. } => c = u32::try_from(parent)?,
        }
        if regular {
            let total = self.total_size.checked_add(size);
            self.total_size = total.context("more than 2⁶⁴ bytes of files")?;
        }
        let set = self
            .xattr_set(xattrs)
            .with_context(|| format!("inode {ino}"))?;
        let record = &mut self.inodes[i - 1];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        let words = [
            inode.mode,
            0,
            inode.uid,
            inode.gid,
            inode.rdev_major,
            inode.rdev_minor,
        ];
        for (i, word) in words.iter().enumerate() {
            put(i * 4, &word.to_le_bytes());
        }
        put(24, &size.to_le_bytes());
        for (i, time) in [inode.mtime, inode.atime, inode.ctime].iter().enumerate() {
            put(32 + i * 8, &time.sec.to_le_bytes());
            put(56 + i * 4, &time.nsec.to_le_bytes());
        }
        put(68, &set.to_le_bytes());
        put(72, &a.to_le_bytes());
        put(80, &b.to_le_bytes());
        put(84, &c.to_le_bytes());
        Ok(())
    }

    /// Sets the entries of the directory `dir`, in strictly rising order of their names as bytes.
    ///
    /// # Errors
    /// When `dir` is not yet set or not a directory, or a name cannot be stored.
    pub fn entries<'x>(
        &mut self,
        dir: u64,
        entries: impl IntoIterator<Item = (&'x [u8], u64)>,
    ) -> Result<()> {
        let first = (self.dirents.len() / DIRENT) as u64;
        let mut count = 0_u32;
        for (name, ino) in entries {
            ensure!(name_allowed(name), "name in directory inode {dir}");
            let at = self.string(name)?;
            self.dirents.extend_from_slice(&at.to_le_bytes());
            self.dirents
                .extend_from_slice(&u32::try_from(ino)?.to_le_bytes());
            self.dirents
                .extend_from_slice(&u16::try_from(name.len())?.to_le_bytes());
            self.dirents.extend_from_slice(&[0, 0]);
            count = count.checked_add(1).context("directory of 2³² entries")?;
        }
        let place = usize::try_from(dir)?.checked_sub(1);
        let record = place.and_then(|i| self.inodes.get_mut(i));
        let record = record.filter(|r| u32_in(r, 0) & libc::S_IFMT == libc::S_IFDIR);
        let record = record.with_context(|| format!("inode {dir} is not a directory"))?;
        record[72..80].copy_from_slice(&first.to_le_bytes());
        record[80..84].copy_from_slice(&count.to_le_bytes());
        Ok(())
    }

    /// The bytes of the index, verified as an opener would.
    ///
    /// # Errors
    /// [`super::Error`] when what was set contradicts itself: a name of an inode never set, a directory with
    /// two names or a wrong parent, content outside its pack …
    pub fn finish(mut self) -> Result<Index> {
        self.link()?;
        self.xattr_table
            .extend_from_slice(&u32::try_from(self.xattrs.len())?.to_le_bytes());
        let length = HEADER
            + self.inodes.len() * INODE
            + self.packs.len() * PACK
            + self.dirents.len()
            + self.xattr_table.len()
            + self.xattrs.len()
            + self.strings.len()
            + 4;
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.inodes.len())?.to_le_bytes());
        out.extend_from_slice(&(length as u64).to_le_bytes());
        out.extend_from_slice(&self.total_size.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.dirents.len() / DIRENT)?.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.xattr_sets.len())?.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.packs.len())?.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.xattrs.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.strings.len() as u64).to_le_bytes());
        for record in std::mem::take(&mut self.inodes) {
            out.extend_from_slice(&record);
        }
        for (id, len) in &self.packs {
            out.extend_from_slice(&id.0);
            out.extend_from_slice(&len.to_le_bytes());
        }
        for section in [
            &mut self.dirents,
            &mut self.xattr_table,
            &mut self.xattrs,
            &mut self.strings,
        ] {
            out.extend_from_slice(&std::mem::take(section));
        }
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        Index::from_bytes(out)
    }

    /// Fills in what follows from the names: link counts, and the d_type of every entry.
    fn link(&mut self) -> Result<()> {
        let mut links = vec![0_u32; self.inodes.len()];
        for (i, record) in self.inodes.iter().enumerate() {
            if u32_in(record, 0) & libc::S_IFMT == libc::S_IFDIR {
                links[i] += 2;
                // The root is its own parent, but not in itself.
                if i > 0 {
                    let parent = (u32_in(record, 84) as usize).wrapping_sub(1);
                    *links.get_mut(parent).context("parent out of range")? += 1;
                }
            }
        }
        for entry in self.dirents.chunks_exact_mut(DIRENT) {
            let ino = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let i = (ino as usize).wrapping_sub(1);
            let record = self
                .inodes
                .get(i)
                .context("entry of an inode out of range")?;
            entry[10] = kind_of(u32_in(record, 0));
            if entry[10] != libc::DT_DIR {
                links[i] += 1;
            }
        }
        for (record, links) in self.inodes.iter_mut().zip(links) {
            record[4..8].copy_from_slice(&links.to_le_bytes());
        }
        Ok(())
    }

    fn string(&mut self, bytes: &[u8]) -> Result<u32> {
        let at = u32::try_from(self.strings.len()).context("more than 4 GiB of names")?;
        self.strings.extend_from_slice(bytes);
        Ok(at)
    }

    fn xattr_set<'x>(
        &mut self,
        xattrs: impl IntoIterator<Item = (&'x [u8], &'x [u8])>,
    ) -> Result<u32> {
        let mut all: Vec<_> = xattrs.into_iter().collect();
        if all.is_empty() {
            return Ok(NONE);
        }
        all.sort_unstable_by_key(|(name, _)| *name);
        let mut bytes = Vec::new();
        for (name, value) in all {
            let fits = push_xattr(&mut bytes, name, value);
            ensure!(fits, "attribute `{}` is too long", name.escape_ascii());
        }
        debug_assert!(Xattrs(&bytes).count() > 0);
        if let Some(set) = self.xattr_sets.get(&bytes) {
            return Ok(*set);
        }
        let set = u32::try_from(self.xattr_sets.len())?;
        let at = u32::try_from(self.xattrs.len()).context("more than 4 GiB of attributes")?;
        self.xattr_table.extend_from_slice(&at.to_le_bytes());
        self.xattrs.extend_from_slice(&bytes);
        self.xattr_sets.insert(bytes, set);
        Ok(set)
    }
}
