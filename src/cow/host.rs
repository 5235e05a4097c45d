//! A directory of the host, or several stacked, as a lower: read-only below us.
//!
//! One directory may change under us. Stacked ones are as overlayfs's lower directories (see [`layers`]): they
//! must not change while they are mounted, and are cached for good.
//!
//! - **Walking**: every path is opened from a descriptor of the root with `openat2` and
//!   `RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS | NO_XDEV`, so that neither a symbolic link
//!   nor a mount nor a rename race leads out of the tree.
//! - **Submounts** show as what they are mounted on would look when empty: an empty directory
//!   (0755) or an empty file (0644) of root. So do the paths of `hide`.
//! - **Numbers**: an inode's number is the host's with bit 62 set, so it is the same after a
//!   restart, hard links are hard links, and directory listings cost no memory. Numbers made up
//!   for submounts are a hash of the path.
//! - **Bindings**: before the upper refers to a number, its path is *bound* to it (and journalled);
//!   from then on the path has that number whatever the host puts there.
//! - **Devices, sockets** are neither listed nor found. Fifos are shown: they are local to the
//!   mount that opens them and lead nowhere on the host.
//! - **Permissions** of the user are the host kernel's to check: what the user cannot read is
//!   `EACCES` here. Owners are shown through an [`IdView`], 65534 where it has nothing.
//! - **Attributes**: `user.*` and `security.capability` are shown, other namespaces are not (their
//!   values hold host ids or labels).

mod layers;

use super::IdView;
use super::index::Index;
use super::meta::{Meta, Res, S_IFDIR, S_IFMT, S_IFREG, Time, errno, lk, rd, wr};
use crate::error::Result;
use crate::sys::fuse as sysfuse;
use layers::{Found, Layers, Places, join};
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, fstat};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

/// Set in every number made from a host inode.
const HOST_BIT: u64 = 1 << 62;
/// Set as well in numbers made up for submounts and hidden paths.
const HOLLOW_BIT: u64 = 1 << 61;
/// Descriptors of lower files kept open.
const OPEN_FILES: usize = 32;
/// Listings of stacked directories kept.
const LISTINGS: usize = 8;

/// One name of a host directory.
#[derive(Debug)]
pub(crate) struct HostName {
    pub name: Box<[u8]>,
    pub ino: u64,
    pub kind: u8,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Relative to the root, without a leading slash; empty for the root.
    path: Box<[u8]>,
    lookups: u64,
    bound: bool,
    /// Mode of an inode that is made up.
    hollow: Option<u32>,
    /// The lower directories it is found in.
    places: Places,
}

#[derive(Default)]
struct Table {
    by_ino: HashMap<u64, Entry>,
    /// Bound paths only.
    by_path: HashMap<Box<[u8]>, u64>,
}

/// Listings, oldest first.
type Listings = VecDeque<(u64, Arc<Vec<HostName>>)>;

/// A host directory as lower, or several.
pub(crate) struct HostLower {
    layers: Layers,
    /// They never change.
    fixed: bool,
    uids: IdView,
    gids: IdView,
    table: RwLock<Table>,
    open: Mutex<Vec<(u64, Arc<File>)>>,
    listings: Mutex<Listings>,
}

impl IdView {
    /// The id shown inside for the host's `id`; 65534 where none is mapped.
    #[must_use]
    pub fn show(&self, id: u32) -> u32 {
        self.0
            .iter()
            .find_map(|&(inside, host, count)| {
                let off = id.checked_sub(host)?;
                (off < count).then(|| inside.checked_add(off)).flatten()
            })
            .unwrap_or(65534)
    }
}

/// FNV-1a, for numbers of inodes that are made up.
fn hash(path: &[u8]) -> u64 {
    path.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    })
}

impl HostLower {
    /// Opens the directory `roots` has, or stacks several; absolute paths in `hide` show as empty directories.
    ///
    /// # Errors
    /// A directory cannot be opened.
    pub(crate) fn open(
        roots: &[PathBuf],
        stacked: bool,
        hide: &[PathBuf],
        uids: IdView,
        gids: IdView,
    ) -> Result<Self> {
        let layers = Layers::open(roots, hide, stacked)?;
        let mut table = Table::default();
        table.by_ino.insert(
            Index::ROOT,
            Entry {
                path: Box::default(),
                lookups: 0,
                bound: true,
                hollow: None,
                places: layers.all(),
            },
        );
        table.by_path.insert(Box::default(), Index::ROOT);
        Ok(HostLower {
            layers,
            fixed: stacked,
            uids,
            gids,
            table: RwLock::new(table),
            open: Mutex::default(),
            listings: Mutex::default(),
        })
    }

    /// Whether it may change under us.
    pub(crate) fn is_live(&self) -> bool {
        !self.fixed
    }

    /// Whether the number is one of a host inode.
    pub(crate) fn owns(ino: u64) -> bool {
        ino == Index::ROOT || ino & HOST_BIT != 0
    }

    fn entry(&self, ino: u64) -> Option<Entry> {
        rd(&self.table).by_ino.get(&ino).cloned()
    }

    /// The descriptor behind a number, `O_PATH`, if the path still leads to that inode.
    fn open_ino(&self, ino: u64, entry: &Entry) -> Res<(OwnedFd, FileStat)> {
        let fd = self
            .layers
            .open_path(&entry.places, &entry.path, OFlag::O_PATH)?;
        let st = fstat(&fd)?;
        if !entry.bound && self.layers.number(&entry.places, &st) != ino {
            return Err(Errno::ESTALE);
        }
        Ok((fd, st))
    }

    fn shown(&self, st: &FileStat) -> Meta {
        let time = |sec, nsec: i64| Time {
            sec,
            nsec: u32::try_from(nsec).unwrap_or(0),
        };
        Meta {
            mode: st.st_mode,
            nlink: u32::try_from(st.st_nlink).unwrap_or(u32::MAX),
            uid: self.uids.show(st.st_uid),
            gid: self.gids.show(st.st_gid),
            rdev: 0,
            size: u64::try_from(st.st_size).unwrap_or(0),
            atime: time(st.st_atime, st.st_atime_nsec),
            mtime: time(st.st_mtime, st.st_mtime_nsec),
            ctime: time(st.st_ctime, st.st_ctime_nsec),
        }
    }

    pub(crate) fn meta(&self, ino: u64) -> Res<Option<Meta>> {
        let Some(entry) = self.entry(ino) else {
            return Ok(None);
        };
        if let Some(mode) = entry.hollow {
            return Ok(Some(Meta {
                mode,
                nlink: if mode & S_IFMT == S_IFDIR { 2 } else { 1 },
                ..Meta::default()
            }));
        }
        match self.open_ino(ino, &entry) {
            Ok((_, st)) => Ok(Some(self.shown(&st))),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn lookup(&self, dir: u64, name: &[u8]) -> Res<Option<u64>> {
        let Some(parent) = self.entry(dir) else {
            return Ok(None);
        };
        let path = join(&parent.path, name);
        if let Some(ino) = rd(&self.table).by_path.get(path.as_slice()) {
            return Ok(Some(*ino));
        }
        if parent.hollow.is_some() {
            return Ok(None);
        }
        let found = self.layers.find(&parent.places, &parent.path, name)?;
        let Some(Found {
            ino,
            hollow,
            places,
        }) = found
        else {
            return Ok(None);
        };
        let mut table = wr(&self.table);
        let path: Box<[u8]> = path.into();
        let entry = table.by_ino.entry(ino).or_insert_with(|| Entry {
            path: path.clone(),
            lookups: 0,
            bound: false,
            hollow,
            places: places.clone(),
        });
        if !entry.bound {
            // The name that was seen last is the one most likely to be there still.
            (entry.path, entry.places) = (path, places);
        }
        Ok(Some(ino))
    }

    pub(crate) fn parent(&self, ino: u64) -> u64 {
        let Some(entry) = self.entry(ino) else {
            return Index::ROOT;
        };
        let Some(cut) = entry.path.iter().rposition(|b| *b == b'/') else {
            return Index::ROOT;
        };
        let dir = &entry.path[..cut];
        if let Some(ino) = rd(&self.table).by_path.get(dir) {
            return *ino;
        }
        let found = self.layers.resolve(dir).ok().flatten();
        found.map_or(Index::ROOT, |f| f.ino)
    }

    pub(crate) fn list(&self, dir: u64) -> Res<Arc<Vec<HostName>>> {
        let entry = self.entry(dir).ok_or(Errno::ENOENT)?;
        if entry.hollow.is_some() {
            return Ok(Arc::default());
        }
        if let Some(hit) = self.listing(dir) {
            return Ok(hit);
        }
        let mut out = self.layers.list(&entry.places, &entry.path)?;
        {
            let table = rd(&self.table);
            for name in &mut out {
                let path = join(&entry.path, &name.name);
                if let Some(bound) = table.by_path.get(path.as_slice()) {
                    name.ino = *bound;
                }
            }
        }
        let out = Arc::new(out);
        if self.fixed {
            let mut listings = lk(&self.listings);
            listings.push_back((dir, Arc::clone(&out)));
            if listings.len() > LISTINGS {
                listings.pop_front();
            }
        }
        Ok(out)
    }

    /// A listing that is still true: positions in it stay from one request to the next.
    fn listing(&self, dir: u64) -> Option<Arc<Vec<HostName>>> {
        let listings = lk(&self.listings);
        let hit = listings.iter().find(|(ino, _)| *ino == dir)?;
        Some(Arc::clone(&hit.1))
    }

    pub(crate) fn readlink(&self, ino: u64) -> Res<Vec<u8>> {
        let entry = self.entry(ino).ok_or(Errno::ENOENT)?;
        let (fd, _) = self.open_ino(ino, &entry)?;
        Ok(readlinkat(&fd, "")?.into_vec())
    }

    fn file(&self, ino: u64) -> Res<Arc<File>> {
        let mut open = lk(&self.open);
        if let Some(i) = open.iter().position(|(n, _)| *n == ino) {
            let hit = open.remove(i);
            let file = Arc::clone(&hit.1);
            open.push(hit);
            return Ok(file);
        }
        let entry = self.entry(ino).ok_or(Errno::ENOENT)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let fd = self.layers.open_path(&entry.places, &entry.path, flags)?;
        let st = fstat(&fd)?;
        let same = entry.bound || self.layers.number(&entry.places, &st) == ino;
        if st.st_mode & S_IFMT != S_IFREG || !same {
            return Err(Errno::ESTALE);
        }
        let file = Arc::new(File::from(fd));
        if open.len() >= OPEN_FILES {
            open.remove(0);
        }
        open.push((ino, Arc::clone(&file)));
        Ok(file)
    }

    pub(crate) fn read(&self, ino: u64, offset: u64, part: &mut [u8]) -> Res<usize> {
        if self.entry(ino).is_some_and(|e| e.hollow.is_some()) {
            return Ok(0);
        }
        let file = self.file(ino)?;
        let mut n = 0;
        while n < part.len() {
            match file.read_at(&mut part[n..], offset + n as u64) {
                Ok(0) => break,
                Ok(k) => n += k,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(errno(&e)),
            }
        }
        Ok(n)
    }

    pub(crate) fn xattr(&self, ino: u64, name: &[u8]) -> Res<Option<Vec<u8>>> {
        let shown = name.starts_with(b"user.") || name == b"security.capability";
        if !shown || self.layers.is_mark(name) {
            return Ok(None);
        }
        let entry = self.entry(ino).ok_or(Errno::ENOENT)?;
        if entry.hollow.is_some() {
            return Ok(None);
        }
        let (fd, _) = self.open_ino(ino, &entry)?;
        match sysfuse::get_xattr(fd.as_fd(), name) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM | Errno::ELOOP) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn xattrs(&self, ino: u64) -> Res<Vec<(Vec<u8>, Vec<u8>)>> {
        let entry = self.entry(ino).ok_or(Errno::ENOENT)?;
        if entry.hollow.is_some() {
            return Ok(Vec::new());
        }
        let (fd, _) = self.open_ino(ino, &entry)?;
        let list = match sysfuse::list_xattr(fd.as_fd()) {
            Ok(list) => list,
            Err(Errno::EOPNOTSUPP | Errno::EPERM | Errno::ELOOP) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut out = Vec::new();
        for name in list.split(|b| *b == 0).filter(|n| !n.is_empty()) {
            if let Some(value) = self.xattr(ino, name)? {
                out.push((name.to_vec(), value));
            }
        }
        out.sort();
        Ok(out)
    }

    /// Counts a look-up; false: nothing of that number is known any more.
    pub(crate) fn refer(&self, ino: u64) -> bool {
        match wr(&self.table).by_ino.get_mut(&ino) {
            Some(e) => {
                e.lookups += 1;
                true
            }
            None => false,
        }
    }

    pub(crate) fn forget(&self, ino: u64, n: u64) -> u64 {
        let mut table = wr(&self.table);
        let Some(e) = table.by_ino.get_mut(&ino) else {
            return 0;
        };
        e.lookups = e.lookups.saturating_sub(n);
        let left = e.lookups;
        if left == 0 && !e.bound {
            table.by_ino.remove(&ino);
        }
        left
    }

    pub(crate) fn lookups(&self, ino: u64) -> u64 {
        rd(&self.table).by_ino.get(&ino).map_or(0, |e| e.lookups)
    }

    /// Binds the path of `ino` to it; returns the path if that is news (for the journal).
    pub(crate) fn bind(&self, ino: u64) -> Option<Box<[u8]>> {
        let mut table = wr(&self.table);
        let e = table.by_ino.get_mut(&ino)?;
        if e.bound {
            return None;
        }
        e.bound = true;
        let path = e.path.clone();
        table.by_path.insert(path.clone(), ino);
        Some(path)
    }

    /// Restores a binding from the journal.
    pub(crate) fn rebind(&self, ino: u64, path: &[u8]) {
        let found = self.layers.resolve(path).ok().flatten();
        let (hollow, places) = match found {
            Some(f) => (f.hollow, f.places),
            None => (None, self.layers.all()),
        };
        let mut table = wr(&self.table);
        table.by_path.insert(path.into(), ino);
        table.by_ino.insert(
            ino,
            Entry {
                path: path.into(),
                lookups: 0,
                bound: true,
                hollow,
                places,
            },
        );
    }

    /// Every binding but the root's, for checkpoints.
    pub(crate) fn bindings(&self) -> Vec<(u64, Box<[u8]>)> {
        let table = rd(&self.table);
        let mut all: Vec<_> = table
            .by_path
            .iter()
            .filter(|(_, ino)| **ino != Index::ROOT)
            .map(|(p, i)| (*i, p.clone()))
            .collect();
        all.sort();
        all
    }
}

fn hollow(path: &[u8]) -> u64 {
    from_host(hash(path)) | HOLLOW_BIT
}

/// Numbers stay below 2^63: some programs take them as signed.
fn from_host(ino: u64) -> u64 {
    (ino & (HOST_BIT - 1)) | HOST_BIT
}
