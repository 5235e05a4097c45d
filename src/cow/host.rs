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
//! - **Numbers**: an inode's number is the host's (mixed with the device's, if that is not the root's) with bit 62 set, so it is the same after a
//!   restart, hard links are hard links, and directory listings cost no memory. Numbers made up
//!   for submounts are a hash of the path.
//! - **Bindings**: before the upper refers to a number, its path is *bound* to it (and journalled);
//!   from then on the path has that number whatever the host puts there. So are other names it was seen by (hard
//!   links), with every change of it: what is done through a name is not to depend on the host's keeping it.
//! - **Numbers given again**: what the host makes may have the number of something it removed. A number that is
//!   bound, or that the kernel refers to, is another inode's at another path, unless one of its own paths leads to the same
//!   inode now, or it was made at the same time. That other inode's number is made up: a hash of the path again.
//!   What the kernel refers to and the host replaced is `ESTALE`: the kernel then looks the path up anew.
//! - **Content** of what is bound is read from what is at its path now. When a file is opened whose content the host changed
//!   since it was opened last, the kernel drops what it has of it; while it is open, when its size or time changed.
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
use layers::{Born, Found, Layers, Places, join};
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, fstat};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};

/// Set in every number made from a host inode.
const HOST_BIT: u64 = 1 << 62;
/// Set as well in numbers made up: for submounts, hidden paths, and numbers given again.
const HOLLOW_BIT: u64 = 1 << 61;
/// Descriptors of lower files kept open, of inodes that are not bound.
const OPEN_FILES: usize = 32;
/// Listings of stacked directories kept.
const LISTINGS: usize = 8;
/// Names of an inode that are remembered before it is changed: those seen last.
const SEEN: usize = 8;

/// One name of a host directory.
#[derive(Debug)]
pub(crate) struct HostName {
    pub name: Box<[u8]>,
    pub ino: u64,
    pub kind: u8,
    /// The host has it no more: it is bound to an inode, which may have been changed.
    pub gone: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Relative to the root, without a leading slash; empty for the root.
    path: Box<[u8]>,
    /// Other paths that are bound to it,
    names: Vec<Box<[u8]>>,
    /// and those seen to lead to it that are not.
    seen: Vec<Box<[u8]>>,
    /// How many names its count of links has beside the bound ones: the host's that nobody has seen.
    unseen: u32,
    /// The number made from the host's inode; what is made up in its stead is another.
    real: u64,
    born: Born,
    lookups: u64,
    bound: bool,
    /// Mode of an inode that is made up.
    hollow: Option<u32>,
    /// The lower directories it is found in.
    places: Places,
    /// What it was when it was last opened.
    opened: Option<Box<Print>>,
}

/// Device, inode, size and times of a file.
type Print = (u64, u64, i64, [i64; 4]);

impl Entry {
    fn at(path: Box<[u8]>, found: Found) -> Entry {
        Entry {
            path,
            names: Vec::new(),
            seen: Vec::new(),
            unseen: 0,
            real: found.ino,
            born: found.born,
            lookups: 0,
            bound: false,
            hollow: found.hollow,
            places: found.places,
            opened: None,
        }
    }

    /// Remembers another name.
    fn note(&mut self, path: Box<[u8]>) {
        if self.seen.contains(&path) {
            return;
        }
        if self.seen.len() >= SEEN {
            self.seen.remove(0);
        }
        self.seen.push(path);
    }

    /// Whether what was just found at `path`, of the same number, is this inode, which is not bound.
    fn is_still(&self, path: &[u8], found: &Found) -> bool {
        let another = self.born.zip(found.born).is_some_and(|(a, b)| a != b);
        self.lookups == 0
            || !another
            || *self.path == *path
            || self.seen.iter().any(|p| **p == *path)
    }
}

/// Numbers bound to names of one directory.
type Names = BTreeMap<Box<[u8]>, u64>;

#[derive(Default)]
struct Table {
    by_ino: HashMap<u64, Entry>,
    /// Bound paths only.
    by_path: HashMap<Box<[u8]>, u64>,
    /// The same by directory.
    by_dir: HashMap<Box<[u8]>, Names>,
}

impl Table {
    fn tie(&mut self, path: &[u8], ino: u64) {
        let (dir, name) = split(path);
        let names = self.by_dir.entry(dir.into()).or_default();
        names.insert(name.into(), ino);
        self.by_path.insert(path.into(), ino);
    }
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
        let root = Found {
            ino: Index::ROOT,
            hollow: None,
            places: layers.all(),
            linked: false,
            born: None,
        };
        let root = Entry {
            bound: true,
            ..Entry::at(Box::default(), root)
        };
        table.by_ino.insert(Index::ROOT, root);
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

    /// Opens an inode at its path. What is bound is whatever is there now, or of several names the one that still leads to
    /// the inode it was; else it has to be that inode.
    fn reach(&self, entry: &Entry, flags: OFlag) -> Res<(OwnedFd, FileStat)> {
        let open = |path: &[u8]| -> Res<(OwnedFd, FileStat)> {
            let fd = self.layers.open_path(&entry.places, path, flags)?;
            let st = fstat(&fd)?;
            Ok((fd, st))
        };
        let is_it = |st: &FileStat| self.layers.number(&entry.places, st) == entry.real;
        let first = open(&entry.path);
        if matches!(&first, Ok((_, st)) if is_it(st)) {
            return first;
        }
        for path in entry.names.iter().chain(&entry.seen) {
            if let Ok((fd, st)) = open(path)
                && is_it(&st)
            {
                return Ok((fd, st));
            }
        }
        match first {
            Ok(_) if !entry.bound => Err(Errno::ESTALE),
            first => first,
        }
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
        match self.reach(&entry, OFlag::O_PATH) {
            Ok((_, st)) => Ok(Some(self.shown(&st))),
            Err(Errno::ESTALE) if !entry.bound => Err(Errno::ESTALE),
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
        let Some(found) = found else {
            return Ok(None);
        };
        let ino = self.number_of(&path, &found);
        let mut table = wr(&self.table);
        let path: Box<[u8]> = path.into();
        let Some(entry) = table.by_ino.get_mut(&ino) else {
            table.by_ino.insert(ino, Entry::at(path, found));
            return Ok(Some(ino));
        };
        if !entry.bound {
            // The name that was seen last is the one most likely to be there still.
            entry.seen.retain(|p| *p != path);
            let old = std::mem::replace(&mut entry.path, path);
            if !found.linked {
                entry.seen.clear();
            } else if old != entry.path && !self.fixed {
                entry.note(old);
            }
            (entry.real, entry.born, entry.places) = (found.ino, found.born, found.places);
        } else if !self.fixed {
            entry.note(path);
        }
        Ok(Some(ino))
    }

    /// The number of what was found at `path`, to which none is bound: the host's, unless that is another inode's.
    fn number_of(&self, path: &[u8], found: &Found) -> u64 {
        if self.fixed || found.hollow.is_some() {
            return found.ino;
        }
        let instead = instead(path);
        let owner = {
            let table = rd(&self.table);
            let known = table.by_ino.get(&instead);
            if known.is_some_and(|e| e.real == found.ino) {
                return instead;
            }
            match table.by_ino.get(&found.ino) {
                None => return found.ino,
                Some(e) if !e.bound && e.is_still(path, found) => return found.ino,
                Some(e) if !e.bound => return instead,
                Some(e) => e.clone(),
            }
        };
        let mut names = std::iter::once(&owner.path).chain(&owner.names);
        match names.any(|name| self.layers.is_at(&owner.places, name, found)) {
            true => found.ino,
            false => instead,
        }
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
        found.map_or(Index::ROOT, |f| self.number_of(dir, &f))
    }

    pub(crate) fn list(&self, dir: u64) -> Res<Arc<Vec<HostName>>> {
        let entry = self.entry(dir).ok_or(Errno::ENOENT)?;
        if entry.hollow.is_some() {
            return Ok(Arc::default());
        }
        if let Some(hit) = self.listing(dir) {
            return Ok(hit);
        }
        let mut out = match self.layers.list(&entry.places, &entry.path) {
            // What was changed in it is still there.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE) if entry.bound => Vec::new(),
            list => list?,
        };
        let mut unsure = Vec::new();
        {
            let table = rd(&self.table);
            for (i, name) in out.iter_mut().enumerate() {
                let path = join(&entry.path, &name.name);
                if let Some(bound) = table.by_path.get(path.as_slice()) {
                    name.ino = *bound;
                } else if !self.fixed
                    && let Some(e) = table.by_ino.get(&name.ino)
                    && (e.bound || *e.path != *path)
                {
                    unsure.push((i, path));
                }
            }
        }
        if !self.fixed {
            self.add_gone(&entry.path, &mut out);
        }
        for (i, path) in unsure {
            let name = &mut out[i];
            let found = self.layers.find(&entry.places, &entry.path, &name.name);
            if let Ok(Some(found)) = found {
                name.ino = self.number_of(&path, &found);
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

    /// Adds what is bound in a directory and not there any more to its listing.
    fn add_gone(&self, dir: &[u8], out: &mut Vec<HostName>) {
        let table = rd(&self.table);
        let Some(mut bound) = table.by_dir.get(dir).cloned() else {
            return;
        };
        for there in out.iter() {
            bound.remove(&there.name);
        }
        out.extend(bound.into_iter().map(|(name, ino)| HostName {
            name,
            ino,
            kind: libc::DT_UNKNOWN,
            gone: true,
        }));
    }

    /// A listing that is still true: positions in it stay from one request to the next.
    fn listing(&self, dir: u64) -> Option<Arc<Vec<HostName>>> {
        let listings = lk(&self.listings);
        let hit = listings.iter().find(|(ino, _)| *ino == dir)?;
        Some(Arc::clone(&hit.1))
    }

    pub(crate) fn readlink(&self, ino: u64) -> Res<Vec<u8>> {
        let entry = self.entry(ino).ok_or(Errno::ENOENT)?;
        let (fd, _) = self.reach(&entry, OFlag::O_PATH)?;
        Ok(readlinkat(&fd, "")?.into_vec())
    }

    /// A regular file's content, opened; none of what is made up.
    ///
    /// # Errors
    /// `ESTALE`: something else is there now; and what the host answers.
    pub(crate) fn content(&self, ino: u64) -> Res<Option<Arc<File>>> {
        let entry = self.entry(ino).ok_or(Errno::ENOENT)?;
        if entry.hollow.is_some() {
            return Ok(None);
        }
        // What is bound is whatever is at the path now.
        let keep = self.fixed || !entry.bound;
        if keep {
            let mut open = lk(&self.open);
            if let Some(i) = open.iter().position(|(n, _)| *n == ino) {
                let hit = open.remove(i);
                let file = Arc::clone(&hit.1);
                open.push(hit);
                return Ok(Some(file));
            }
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let (fd, st) = self.reach(&entry, flags)?;
        if st.st_mode & S_IFMT != S_IFREG {
            return Err(Errno::ESTALE);
        }
        let file = Arc::new(File::from(fd));
        if keep {
            let mut open = lk(&self.open);
            if open.len() >= OPEN_FILES {
                open.remove(0);
            }
            open.push((ino, Arc::clone(&file)));
        }
        Ok(Some(file))
    }

    /// A file is opened: whether its content is what it was the last time, as far as the host tells.
    ///
    /// # Errors
    /// As [`HostLower::content`].
    pub(crate) fn opened(&self, ino: u64) -> Res<bool> {
        let Some(file) = self.content(ino)? else {
            return Ok(true);
        };
        let st = fstat(&*file)?;
        let changed = [st.st_mtime, st.st_mtime_nsec, st.st_ctime, st.st_ctime_nsec];
        let now = Box::new((st.st_dev, st.st_ino, st.st_size, changed));
        let mut table = wr(&self.table);
        let entry = table.by_ino.get_mut(&ino).ok_or(Errno::ESTALE)?;
        let same = entry.opened.as_ref().is_none_or(|before| *before == now);
        entry.opened = Some(now);
        Ok(same)
    }

    pub(crate) fn read(&self, ino: u64, offset: u64, part: &mut [u8]) -> Res<usize> {
        match self.content(ino)? {
            Some(file) => Self::read_from(&file, offset, part),
            None => Ok(0),
        }
    }

    /// Fills `part`, or as much of it as there is.
    pub(crate) fn read_from(file: &File, offset: u64, part: &mut [u8]) -> Res<usize> {
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

    /// Nothing where a bound inode is gone: what was changed of it is all there is.
    fn left(&self, entry: &Entry) -> Res<Option<OwnedFd>> {
        match self.reach(entry, OFlag::O_PATH) {
            Ok((fd, _)) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE) if entry.bound => Ok(None),
            Err(e) => Err(e),
        }
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
        let Some(fd) = self.left(&entry)? else {
            return Ok(None);
        };
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
        let Some(fd) = self.left(&entry)? else {
            return Ok(Vec::new());
        };
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

    /// Whether [`HostLower::bind`] has anything to do.
    pub(crate) fn is_bound(&self, ino: u64) -> bool {
        let table = rd(&self.table);
        let entry = table.by_ino.get(&ino);
        entry.is_none_or(|e| e.bound && e.seen.is_empty())
    }

    /// Binds the paths of `ino` to it; hands those that are news to `log`, for the journal.
    ///
    /// # Errors
    /// `ESTALE`, `ENOENT` and what else the host answers: its path does not lead there any more.
    pub(crate) fn bind(&self, ino: u64, log: &mut dyn FnMut(&[u8])) -> Res<()> {
        let Some(entry) = self.entry(ino) else {
            return Ok(());
        };
        let mut alive = self.alive(&entry);
        if alive.is_empty() && !entry.bound {
            self.reach(&entry, OFlag::O_PATH)?;
        }
        let mut table = wr(&self.table);
        let Table {
            by_ino, by_path, ..
        } = &mut *table;
        let Some(e) = by_ino.get_mut(&ino) else {
            return Ok(());
        };
        e.seen.retain(|path| !entry.seen.contains(path));
        alive.retain(|path| !by_path.contains_key(path));
        let mut names = alive.iter();
        if !e.bound {
            e.path = names.next().ok_or(Errno::ESTALE)?.clone();
            e.bound = true;
        }
        e.names.extend(names.cloned());
        for path in alive {
            table.tie(&path, ino);
            log(&path);
        }
        Ok(())
    }

    /// The names by which an inode is known that are not bound, and that lead to it now: at others the host may have
    /// put something else.
    fn alive(&self, entry: &Entry) -> Vec<Box<[u8]>> {
        let own = (!entry.bound).then_some(&entry.path);
        let names = own.into_iter().chain(&entry.seen);
        if self.fixed || entry.hollow.is_some() {
            return names.cloned().collect();
        }
        let leads = |path: &[u8]| {
            let fd = self
                .layers
                .open_path(&entry.places, path, OFlag::O_PATH)
                .ok();
            let found = fd.and_then(|fd| fstat(&fd).ok());
            found.is_some_and(|st| self.layers.number(&entry.places, &st) == entry.real)
        };
        names.filter(|path| leads(path)).cloned().collect()
    }

    /// How many of `more` names just bound to an inode are not among those that its count of links has.
    pub(crate) fn unknown_names(&self, ino: u64, more: u32) -> u32 {
        let mut table = wr(&self.table);
        let Some(e) = table.by_ino.get_mut(&ino) else {
            return 0;
        };
        let known = e.unseen.min(more);
        e.unseen -= known;
        more - known
    }

    /// An inode has so many names that are not bound.
    pub(crate) fn set_unseen(&self, ino: u64, names: u32) {
        if let Some(e) = wr(&self.table).by_ino.get_mut(&ino) {
            e.unseen = names;
        }
    }

    /// The paths bound to an inode.
    pub(crate) fn names(&self, ino: u64) -> Vec<Box<[u8]>> {
        let table = rd(&self.table);
        let entry = table.by_ino.get(&ino).filter(|e| e.bound);
        let names = entry.map(|e| std::iter::once(&e.path).chain(&e.names).cloned());
        names.into_iter().flatten().collect()
    }

    /// The number bound to a path.
    pub(crate) fn bound_at(&self, path: &[u8]) -> Option<u64> {
        rd(&self.table).by_path.get(path).copied()
    }

    /// Restores a binding from the journal.
    pub(crate) fn rebind(&self, ino: u64, path: &[u8]) {
        let found = self.layers.resolve(path).ok().flatten();
        let mut table = wr(&self.table);
        table.tie(path, ino);
        if let Some(e) = table.by_ino.get_mut(&ino).filter(|e| e.bound) {
            let path: Box<[u8]> = path.into();
            if e.path != path && !e.names.contains(&path) {
                e.names.push(path);
            }
            return;
        }
        let found = found.unwrap_or_else(|| Found {
            ino,
            hollow: None,
            places: self.layers.all(),
            linked: false,
            born: None,
        });
        let mut entry = Entry::at(path.into(), found);
        entry.bound = true;
        if ino & HOLLOW_BIT == 0 {
            entry.real = ino;
        }
        table.by_ino.insert(ino, entry);
    }

    /// Every binding but the root's, for checkpoints; of an inode's paths the one it has first is the first.
    pub(crate) fn bindings(&self) -> Vec<(u64, Box<[u8]>)> {
        let table = rd(&self.table);
        let mut all: Vec<_> = table
            .by_path
            .iter()
            .filter(|(_, ino)| **ino != Index::ROOT)
            .map(|(p, i)| (*i, p.clone()))
            .collect();
        all.sort_by_cached_key(|(ino, path)| {
            let entry = table.by_ino.get(ino);
            (*ino, entry.is_none_or(|e| e.path != *path), path.clone())
        });
        all
    }
}

/// A path's directory and last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(cut) => (&path[..cut], &path[cut + 1..]),
        None => (&path[..0], path),
    }
}

fn hollow(path: &[u8]) -> u64 {
    from_host(hash(path)) | HOLLOW_BIT
}

/// The number of what is at a path where the host's number is taken.
fn instead(path: &[u8]) -> u64 {
    from_host(hash(path).rotate_left(32)) | HOLLOW_BIT
}

/// Numbers stay below 2^63: some programs take them as signed.
fn from_host(ino: u64) -> u64 {
    (ino & (HOST_BIT - 1)) | HOST_BIT
}
