//! Data files: the content of upper files.
//!
//! # Places
//!
//! | content | is in | because |
//! |---|---|---|
//! | of at most [`SMALL`] bytes | a *region* of an arena, `data/arena-<number in hex>` | an inode of the host costs more than such a file's bytes: to make, to sync, to delete |
//! | more, or of a large file of the lower | a data file of its own, `data/<xx>/<number in hex>` | it may become very long and have holes |
//!
//! An arena ([`super::arena`]) is a sparse file that many regions share, one behind the other. A region is where
//! `[0, cap)` of one file's content is, from `base` on. Both are known by a number, the *data id* of the
//! journal: one of a region has the top bit set and is the address of its first block, so that the number says
//! where it is. Everything that is said of data files (redo, holds, what may be deleted when) is said of both.
//!
//! Numbers are never inode numbers, and never given out again: a file truncated to nothing gets a fresh
//! one with its next write, so that the old content stays untouched until the journal no longer needs it.
//!
//! # A region that becomes too small
//!
//! Nobody knows how long a file will be. A region has the blocks its first write needs, and at least those of the lower's
//! file. A write behind its end
//!
//! 1. makes it longer, if it is the arena's last, up to [`GROWN`]: files written one after the other;
//! 2. else *moves* the content to a new region, of twice the size, or above [`SMALL`] to a data file of its own
//!    ([`super::moving`]).
//!
//! # Giving space back
//!
//! What is no longer needed, by the same rules as a data file that can be deleted, is punched into a hole, neighbours at
//! once; an arena without a region in use is deleted. Where the host cannot punch, only that gives space back.
//! Opening an upper punches what no file refers to, and cuts arenas behind their last region: so bytes behind
//! a region's written part are zeros, as they are behind a file's end. It cuts data files of their own behind the last block
//! that the journal knows, too: a killed server may have written there, or not have come to cut them.

use super::super::journal::record::Extents;
use super::super::meta::{BLOCK, Res, errno, lk};
use super::arena::{self, Arenas, Region, is_region};
use super::flush::MANY;
use super::freeze::shared;
use super::io_errno;
use crate::error::Result;
use anyhow::Context;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, fallocate, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{Statvfs, fstatvfs};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, DirEntry, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Content up to this many bytes is put into an arena.
pub(super) const SMALL: u64 = 256 << 10;
/// A region at the end of an arena may grow to this many bytes.
pub(super) const GROWN: u64 = 512 << 10;

/// The directory of data files.
pub(crate) struct DataDir {
    dir: OwnedFd,
    arenas: Arenas,
    next: AtomicU64,
    /// Held while one is made and counted.
    making: Mutex<()>,
    /// Counts subdirectories made,
    made: AtomicU64,
    /// and how many of them have a durable name.
    named: AtomicU64,
    failures: Failures,
    /// A syncfs failed: what it did not say, and the next would not either, is whose content was lost.
    doubt: Mutex<bool>,
    /// The host is a FUSE file system itself, whose server syncfs does not reach.
    each: bool,
}

/// How often a sync failed, by file, and with what the last time. The kernel tells of a failed write-back once, to
/// whoever syncs first; each file with content there asks here.
#[derive(Default)]
struct Failures {
    any: AtomicBool,
    of: Mutex<HashMap<u64, (u64, Errno)>>,
}

/// What a sync of several data files did not do.
#[derive(Debug)]
pub(crate) struct Unsynced {
    /// The first error.
    pub errno: Errno,
    /// The kernel may have dropped content: trying again says nothing about it.
    pub lost: bool,
    files: HashSet<u64>,
}

impl Unsynced {
    fn add(into: &mut Option<Unsynced>, id: u64, errno: Errno, lost: bool) {
        let all = into.get_or_insert_with(|| Unsynced {
            errno,
            lost,
            files: HashSet::new(),
        });
        all.lost |= lost;
        all.files.insert(file_of(id));
    }

    /// Whether the data file is among them.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.files.contains(&file_of(id))
    }
}

/// The number of the file that a data file is in: its own, or the arena's.
fn file_of(id: u64) -> u64 {
    match is_region(id) {
        true => arena::TAG | arena::number(id),
        false => id,
    }
}

/// Where the bytes of a data file are: offset 0 is at `base` of `file`.
#[derive(Clone)]
pub(crate) struct Place {
    pub(super) file: Arc<File>,
    base: u64,
}

/// A place as a file's node keeps it.
pub(crate) enum Held {
    Own(Place),
    /// In an arena, which closes its file when others need the descriptor more: the file, and where the place begins in it.
    Shared(Weak<File>, u64),
}

impl Held {
    /// The place, if it is open.
    pub(crate) fn get(&self) -> Option<Place> {
        match self {
            Held::Own(place) => Some(place.clone()),
            Held::Shared(file, base) => file.upgrade().map(|file| Place { file, base: *base }),
        }
    }
}

/// What is left of a data file after a replay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// One past its highest block with content.
    pub end: u64,
    /// Blocks it may take.
    pub blocks: u64,
}

impl Place {
    pub(super) fn new(file: &Arc<File>, base: u64) -> Place {
        Place {
            file: Arc::clone(file),
            base,
        }
    }

    /// For the node of the file whose data file has this number.
    pub(super) fn held(&self, id: u64) -> Held {
        match is_region(id) {
            true => Held::Shared(Arc::downgrade(&self.file), self.base),
            false => Held::Own(self.clone()),
        }
    }

    /// `pwrite` all of it.
    ///
    /// # Errors
    /// As pwrite(2); a part may have been written.
    pub(crate) fn write(&self, data: &[u8], offset: u64) -> Res<()> {
        std::os::unix::fs::FileExt::write_all_at(&*self.file, data, self.base + offset)
            .map_err(|e| errno(&e))
    }

    /// `pread` until `buf` is full or the file ends; the rest is zeroed.
    ///
    /// # Errors
    /// As pread(2).
    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Res<()> {
        let (mut n, at) = (0, self.base + offset);
        while n < buf.len() {
            match std::os::unix::fs::FileExt::read_at(&*self.file, &mut buf[n..], at + n as u64) {
                Ok(0) => break,
                Ok(k) => n += k,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(errno(&e)),
            }
        }
        buf[n..].fill(0);
        Ok(())
    }

    /// Makes bytes a hole.
    ///
    /// # Errors
    /// As fallocate(2).
    pub(crate) fn punch(&self, offset: u64, len: u64) -> Res<()> {
        arena::punch(&self.file, self.base + offset, len)
    }

    /// Makes bytes zeros that have their space on the disk, behind the file's end too.
    ///
    /// # Errors
    /// As fallocate(2).
    pub(crate) fn reserve(&self, offset: u64, len: u64) -> Res<()> {
        let at = (self.base + offset).cast_signed();
        let mode = FallocateFlags::FALLOC_FL_ZERO_RANGE;
        fallocate(&*self.file, mode, at, len.cast_signed())
    }

    /// Gives back what lies behind `end`; `cap` is where the room ends ([`u64::MAX`]: nowhere).
    ///
    /// # Errors
    /// As ftruncate(2) or fallocate(2).
    pub(crate) fn cut(&self, end: u64, cap: u64) -> Res<()> {
        if cap == u64::MAX {
            self.file.set_len(end).map_err(|e| errno(&e))
        } else {
            self.punch(end, cap.saturating_sub(end))
        }
    }

    /// Makes bytes zeros that stay reserved where the host can do that. `cap` as for [`Place::cut`].
    ///
    /// # Errors
    /// As pwrite(2).
    pub(crate) fn clear(&self, from: u64, to: u64, cap: u64) -> Res<()> {
        let mode = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (at, len) = (self.base + from, to - from);
        if fallocate(&*self.file, mode, at.cast_signed(), len.cast_signed()).is_ok() {
            return Ok(());
        }
        // Not on the stack, which would be touched where nothing is written.
        let zeros = vec![0; 1 << 16];
        let mut end = to;
        if cap == u64::MAX {
            end = end.min(self.file.metadata().map_err(|e| errno(&e))?.len());
        }
        let mut at = from;
        while at < end {
            let n = (end - at).min(zeros.len() as u64);
            self.write(&zeros[..n as usize], at)?;
            at += n;
        }
        Ok(())
    }

    /// Makes the content durable.
    ///
    /// # Errors
    /// As fdatasync(2).
    pub(crate) fn sync(&self) -> Res<()> {
        self.file.sync_data().map_err(|e| io_errno(&e))
    }
}

/// What is in a directory, and whether it is one.
fn names(dir: &OwnedFd) -> Res<Vec<(CString, bool)>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut found = Vec::new();
    for entry in Dir::openat(dir, ".", flags, Mode::empty())?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_bytes().starts_with(b".") {
            found.push((name.to_owned(), entry.file_type() == Some(Type::Directory)));
        }
    }
    Ok(found)
}

/// What lies behind all that the journal knows of a data file was written and lost, or about to be cut: it goes, unless
/// a frozen state has the file too.
fn cut_behind(file: &DirEntry, end: u64) -> std::io::Result<()> {
    let meta = file.metadata()?;
    if meta.is_file() && meta.nlink() == 1 && meta.len() > end {
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_NOFOLLOW);
        options.open(file.path())?.set_len(end)?;
    }
    Ok(())
}

/// Name of a copy in the making.
const OWN: &str = "00/own";

fn place(id: u64) -> String {
    format!("{:02x}/{id:x}", id & 0xff)
}

impl DataDir {
    /// Opens (or makes) `upper/data`.
    ///
    /// # Errors
    /// The directory cannot be made or opened.
    pub(crate) fn open(upper: &Path) -> Result<DataDir> {
        let path = upper.join("data");
        let what = || format!("opening {}", path.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(what)?;
        let dir = File::open(&path).with_context(what)?;
        let each = fstatfs(&dir).with_context(what)?.filesystem_type() == FUSE_SUPER_MAGIC;
        // An earlier server may have made some, and been killed before it synced their names.
        let mut entries = std::fs::read_dir(&path).with_context(what)?;
        let made = u64::from(entries.next().is_some());
        Ok(DataDir {
            dir: dir.into(),
            arenas: Arenas::new(),
            next: AtomicU64::new(1),
            making: Mutex::default(),
            made: AtomicU64::new(made),
            named: AtomicU64::new(0),
            failures: Failures::default(),
            doubt: Mutex::default(),
            each,
        })
    }

    /// A number no data file had before, for one of its own.
    ///
    /// # Errors
    /// `ENOSPC` behind the last one.
    pub(crate) fn alloc(&self) -> Res<u64> {
        let next = |n: u64| Some(n + 1).filter(|n| !is_region(*n));
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .map_err(|_| Errno::ENOSPC)
    }

    /// A new region of an arena.
    ///
    /// # Errors
    /// `EFBIG` for more than an arena holds.
    pub(super) fn alloc_region(&self, blocks: u64) -> Res<u64> {
        self.arenas.alloc(&self.dir, blocks)
    }

    /// Whether the region could be made longer where it is.
    pub(super) fn extend(&self, region: Region, blocks: u64) -> bool {
        self.arenas.extend(region, blocks)
    }

    /// The next number [`DataDir::alloc`] would give, and the next address of the arenas.
    pub(crate) fn next(&self) -> (u64, u64) {
        (self.next.load(Ordering::Relaxed), self.arenas.next())
    }

    /// Never give out numbers and addresses below these again.
    pub(crate) fn reserve(&self, id: u64, address: u64) {
        self.next
            .fetch_max(id.min(arena::TAG - 1), Ordering::Relaxed);
        self.arenas.reserve(address);
    }

    /// The journal names these blocks: never give them out again.
    pub(crate) fn seen(&self, extents: &Extents) {
        let end = extents.blocks.last().map_or(0, |(_, e)| *e);
        match extents.data_id {
            0 => {}
            id if is_region(id) => {
                // It has one block at least, whether there is content or not.
                let end = (id & !arena::TAG).saturating_add(end.max(1));
                self.arenas.reserve(end);
            }
            id => self.reserve(id.saturating_add(1), 0),
        }
    }

    /// Closes what can be opened again at any time.
    pub(super) fn close(&self) {
        self.arenas.close();
    }

    /// Where a data file is, made if `create`.
    ///
    /// # Errors
    /// As open(2).
    pub(crate) fn place(&self, id: u64, create: bool) -> Res<Place> {
        if is_region(id) {
            self.arenas.place(&self.dir, id, create)
        } else {
            self.file(id, create)
                .map(|file| Place::new(&Arc::new(file), 0))
        }
    }

    /// Opens a data file of its own, making it if `create`.
    ///
    /// # Errors
    /// As open(2).
    fn file(&self, id: u64, create: bool) -> Res<File> {
        let name = place(id);
        let mut flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        if create {
            flags |= OFlag::O_CREAT | OFlag::O_EXCL;
        }
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match openat(&self.dir, name.as_str(), flags, mode) {
            Err(Errno::ENOENT) if create => {
                // Counted before it is there: who finds it there syncs its name.
                let making = lk(&self.making);
                self.made.fetch_add(1, Ordering::AcqRel);
                match mkdirat(&self.dir, &name[..2], Mode::S_IRWXU) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e),
                }
                drop(making);
                openat(&self.dir, name.as_str(), flags, mode).map(File::from)
            }
            other => other.map(File::from),
        }
    }

    /// Its file's name in the directory.
    pub(super) fn name(&self, id: u64) -> String {
        match is_region(id) {
            true => arena::name(arena::number(id)),
            false => place(id),
        }
    }

    /// No new region goes into the arena of this one, and nothing of it is given back.
    pub(super) fn seal(&self, id: u64) {
        self.arenas.seal(arena::number(id));
    }

    /// Where a data file is, in a file that is the tree's alone: one that a frozen state has a link to is replaced
    /// by a copy. For writing in place before the tree is in use; the name is the caller's to sync.
    ///
    /// # Errors
    /// As open(2), copy_file_range(2) and rename(2).
    pub(super) fn own(&self, id: u64) -> Res<Place> {
        let place = self.place(id, false)?;
        if !shared(&place.file)? {
            return Ok(place);
        }
        // One that was left by somebody killed here is in the way.
        match mkdirat(&self.dir, "00", Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
        let _ = unlinkat(&self.dir, OWN, UnlinkatFlags::NoRemoveDir);
        let data = format!("/proc/self/fd/{}", self.dir.as_raw_fd());
        super::freeze::copy(&place.file, &Path::new(&data).join(OWN))?;
        renameat(&self.dir, OWN, &self.dir, self.name(id).as_str())?;
        if is_region(id) {
            self.arenas.replaced(arena::number(id));
        }
        self.place(id, false)
    }

    /// Links a file into the directory `to`, or copies it where that cannot be.
    ///
    /// # Errors
    /// As link(2) and copy_file_range(2).
    pub(super) fn link(&self, name: &str, to: &Path) -> Res<()> {
        let there = to.join(name);
        match nix::unistd::linkat(
            &self.dir,
            name,
            nix::fcntl::AT_FDCWD,
            &there,
            AtFlags::empty(),
        ) {
            Err(e @ (Errno::EPERM | Errno::EMLINK | Errno::EXDEV | Errno::EOPNOTSUPP)) => {
                let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
                let from = openat(&self.dir, name, flags, Mode::empty()).map_err(|_| e)?;
                super::freeze::copy(&File::from(from), &there)
            }
            other => other,
        }
    }

    /// Deletes data files; failures cost space until the next open, one that is not there is fine.
    pub(crate) fn delete(&self, mut list: Vec<Region>) {
        list.retain(|r| {
            if !is_region(r.id) {
                let _ = unlinkat(&self.dir, place(r.id).as_str(), UnlinkatFlags::NoRemoveDir);
            }
            is_region(r.id)
        });
        self.arenas.free(&self.dir, &mut list);
    }

    /// Whether there is any content.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn holds_content(upper: &Path) -> std::io::Result<bool> {
        for entry in std::fs::read_dir(upper.join("data"))? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() || std::fs::read_dir(entry.path())?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes every data file but those in `keep` (after a crash). Those that are `fresh` may be missing. Where records
    /// are `cut` off that may speak of others, none is deleted, and nothing new comes to lie where one may be.
    pub(crate) fn sweep(
        &self,
        path: &Path,
        keep: &HashMap<u64, Kept>,
        fresh: impl Fn(u64) -> bool,
        cut: bool,
    ) -> Result<()> {
        let path = path.join("data");
        let what = || format!("sweeping {}", path.display());
        let mut arenas = Vec::new();
        for entry in std::fs::read_dir(&path).with_context(what)? {
            let entry = entry.with_context(what)?;
            match entry.file_name().to_str().and_then(arena::parse) {
                Some(number) => arenas.push(number),
                None => self
                    .sweep_own(&entry.path(), keep, cut)
                    .with_context(what)?,
            }
        }
        self.arenas.sweep(&self.dir, &arenas, keep, fresh, cut)
    }

    fn sweep_own(&self, sub: &Path, keep: &HashMap<u64, Kept>, cut: bool) -> std::io::Result<()> {
        for file in std::fs::read_dir(sub)? {
            let file = file?;
            let name = file.file_name();
            let id = name.to_str().and_then(|n| u64::from_str_radix(n, 16).ok());
            if let Some(id) = id {
                // A number no data file can have is somebody else's.
                if !is_region(id) {
                    self.reserve(id + 1, 0);
                }
                match keep.get(&id) {
                    _ if cut => {}
                    Some(kept) => {
                        // It costs space and nothing else.
                        if let Err(e) = cut_behind(&file, kept.end * BLOCK) {
                            log::warn!("cutting {}: {e}", file.path().display());
                        }
                    }
                    None => std::fs::remove_file(file.path())?,
                }
            }
        }
        Ok(())
    }

    /// Writes everything of the file system below to its disk.
    ///
    /// # Errors
    /// As syncfs(2); once it has failed, for whatever content of whomever, `EIO` for good: the kernel tells of a
    /// loss once, and a later success would say nothing of it. Syncs of single files know of theirs.
    pub(crate) fn syncfs(&self) -> Res<()> {
        if self.each {
            return self.sync_each();
        }
        let mut doubt = lk(&self.doubt);
        if *doubt {
            return Err(Errno::EIO);
        }
        nix::unistd::syncfs(&self.dir).inspect_err(|_| *doubt = true)
    }

    /// Syncs every data file and every directory of them.
    fn sync_each(&self) -> Res<()> {
        let made = self.made();
        let dirs = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let files = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = |at: &OwnedFd, name: &CStr, flags| match openat(at, name, flags, Mode::empty()) {
            // Deleted meanwhile: nothing needs it.
            Err(Errno::ENOENT) => Ok(None),
            other => other.map(Some),
        };
        let sync = |fd: &OwnedFd, id: Option<u64>| {
            nix::unistd::fsync(fd).inspect_err(|e| {
                if let Some(id) = id {
                    self.failed(id, *e);
                }
            })
        };
        for (name, is_dir) in names(&self.dir)? {
            let text = name.to_str().unwrap_or_default();
            if !is_dir {
                let Some(fd) = open(&self.dir, &name, files)? else {
                    continue;
                };
                let id = arena::parse(text).map(|number| arena::TAG | (number << arena::BITS));
                sync(&fd, id)?;
                continue;
            }
            let Some(sub) = open(&self.dir, &name, dirs)? else {
                continue;
            };
            for (name, _) in names(&sub)? {
                if let Some(fd) = open(&sub, &name, files)? {
                    let id = u64::from_str_radix(name.to_str().unwrap_or_default(), 16).ok();
                    sync(&fd, id)?;
                }
            }
            sync(&sub, None)?;
        }
        nix::unistd::fsync(&self.dir)?;
        self.named.fetch_max(made, Ordering::AcqRel);
        Ok(())
    }

    /// The host file system's state.
    pub(crate) fn statfs(&self) -> Res<Statvfs> {
        fstatvfs(&self.dir)
    }

    /// Names of subdirectories: made, and of them durable.
    #[cfg(test)]
    pub(super) fn names(&self) -> (u64, u64) {
        let get = |n: &AtomicU64| n.load(Ordering::Acquire);
        (get(&self.made), get(&self.named))
    }

    /// A sync of the file failed: whoever has content in it is to hear of it.
    pub(super) fn failed(&self, id: u64, errno: Errno) {
        let mut of = lk(&self.failures.of);
        let entry = of.entry(file_of(id)).or_insert((0, errno));
        *entry = (entry.0 + 1, errno);
        self.failures.any.store(true, Ordering::Release);
    }

    /// How often that happened, and the last error.
    pub(super) fn failures(&self, id: u64) -> (u64, Option<Errno>) {
        if id == 0 || !self.failures.any.load(Ordering::Acquire) {
            return (0, None);
        }
        let of = lk(&self.failures.of);
        of.get(&file_of(id))
            .map_or((0, None), |(n, e)| (*n, Some(*e)))
    }

    /// Makes the content of one that is open durable, and its name unless it is `named`.
    ///
    /// # Errors
    /// As fdatasync(2).
    pub(super) fn sync_place(&self, id: u64, place: &Place, named: bool) -> Res<()> {
        place
            .sync()
            .and_then(|()| match named {
                true => Ok(()),
                false => self.sync_names(id),
            })
            .inspect_err(|e| self.failed(id, *e))
    }

    /// Makes the content of data files durable, and their names unless they are: number and whether.
    /// One that is not there has been deleted: nothing needs it.
    ///
    /// # Errors
    /// As fdatasync(2), and for which; all of them were tried.
    pub(crate) fn sync(
        &self,
        ids: impl Iterator<Item = (u64, bool)>,
    ) -> std::result::Result<(), Unsynced> {
        // One of each arena will do.
        let mut arenas: HashMap<u64, u64> = HashMap::new();
        let mut own = Vec::new();
        for (id, named) in ids.filter(|(id, _)| *id != 0) {
            if is_region(id) {
                arenas.insert(arena::number(id), id);
            } else {
                own.push((id, named));
            }
        }
        // One that is listed twice is synced once, with its name if either asks.
        own.sort_unstable();
        own.dedup_by_key(|(id, _)| *id);
        let all_at_once = own.len() >= MANY && !self.each && !*lk(&self.doubt);
        let arenas = arenas.into_values().map(|id| (id, false));
        let all = own.into_iter().chain(arenas);
        let mut bad = None;
        if all_at_once {
            if let Err(e) = self.syncfs() {
                for (id, _) in all {
                    self.failed(id, e);
                    Unsynced::add(&mut bad, id, e, true);
                }
            }
            return bad.map_or(Ok(()), Err);
        }
        for (id, named) in all {
            match self.place(id, false) {
                Ok(place) => {
                    if let Err(e) = self.sync_place(id, &place, named) {
                        Unsynced::add(&mut bad, id, e, true);
                    }
                }
                Err(Errno::ENOENT) => {}
                Err(e @ (Errno::EMFILE | Errno::ENFILE)) => self.sync_unopened(id, e, &mut bad),
                Err(e) => Unsynced::add(&mut bad, id, e, false),
            }
        }
        bad.map_or(Ok(()), Err)
    }

    /// No descriptor is left for the file: the slow way, which needs none.
    fn sync_unopened(&self, id: u64, why: Errno, bad: &mut Option<Unsynced>) {
        if self.each || *lk(&self.doubt) {
            return Unsynced::add(bad, id, why, false);
        }
        if let Err(e) = self.syncfs() {
            self.failed(id, e);
            Unsynced::add(bad, id, e, true);
        }
    }

    /// How many subdirectories have been made, none half way.
    fn made(&self) -> u64 {
        let _making = lk(&self.making);
        self.made.load(Ordering::Acquire)
    }

    /// Syncs the directory: the names of arenas and subdirectories.
    fn sync_dir(&self) -> Res<()> {
        let made = self.made();
        nix::unistd::fsync(&self.dir)?;
        self.named.fetch_max(made, Ordering::AcqRel);
        Ok(())
    }

    /// Makes the names of new data files durable.
    pub(crate) fn sync_names(&self, id: u64) -> Res<()> {
        if is_region(id) {
            if !self.arenas.named(id) {
                self.sync_dir()?;
                self.arenas.set_named(id);
            }
            return Ok(());
        }
        if self.named.load(Ordering::Acquire) < self.made.load(Ordering::Acquire) {
            self.sync_dir()?;
        }
        let sub = openat(
            &self.dir,
            &place(id)[..2],
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let sub = match sub {
            // No descriptor is left: the slow way, which needs none.
            Err(Errno::EMFILE | Errno::ENFILE) => return self.syncfs(),
            sub => sub?,
        };
        File::from(sub).sync_all().map_err(|e| io_errno(&e))
    }
}
