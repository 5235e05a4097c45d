//! An actor: does operations below a directory as one user, and tells as text what came of each.

use super::ops::{Op, SHARED, SLOTS, When};
use super::tree::{Identity, content, holes, identity_of, inode, io};
use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, FallocateFlags, OFlag, RenameFlags, fallocate, open, renameat2,
};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fstat, lstat};
use nix::sys::stat::{fchmod, fchmodat, mkdirat, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, faccessat, fchownat, ftruncate, linkat, symlinkat, unlink};
use rless::sys::window::Window;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(crate) type Told = Result<String, Errno>;

/// The user that an actor acts as: the last of them is an ordinary one.
pub(crate) fn user(actor: usize) -> u32 {
    if actor % 4 == 3 { 1000 } else { 0 }
}

/// One actor in one tree.
pub(crate) struct Actor {
    pub(crate) root: PathBuf,
    pub(crate) id: usize,
    held: Vec<Option<Held>>,
    /// Files whose holes may be elsewhere than on another file system: those with reserved or zeroed ranges (data
    /// here, unwritten extents there) and mapped ones (dirty pages are not asked for holes).
    pub(crate) unlike: HashSet<Identity>,
}

struct Held {
    file: File,
    window: Option<Window>,
}

fn done<T>(r: nix::Result<T>) -> Told {
    r.map(|_| String::new())
}

fn pattern(len: usize, byte: u8) -> Vec<u8> {
    (0..len).map(|i| byte ^ (i / 7) as u8).collect()
}

fn bits(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode)
}

/// How many of `len` bytes at `offset` are inside `size`.
fn inside(size: u64, offset: u64, len: usize) -> usize {
    usize::try_from(size.saturating_sub(offset)).map_or(len, |n| n.min(len))
}

fn spec(when: When) -> TimeSpec {
    match when {
        When::At(sec, nsec) => TimeSpec::new(sec, nsec),
        When::Now => TimeSpec::UTIME_NOW,
        When::Omit => TimeSpec::UTIME_OMIT,
    }
}

/// The calling thread acts on files as this user from now on.
pub(crate) fn become_user(uid: u32) {
    nix::unistd::setfsgid(Gid::from_raw(uid));
    nix::unistd::setfsuid(Uid::from_raw(uid));
}

impl Actor {
    pub(crate) fn new(root: &Path, id: usize) -> Actor {
        Actor {
            root: root.to_owned(),
            id,
            held: (0..SLOTS).map(|_| None).collect(),
            unlike: HashSet::new(),
        }
    }

    /// Closes every held file.
    pub(crate) fn release(&mut self) {
        self.held.iter_mut().for_each(|h| *h = None);
    }

    /// Writes back what was written through mappings: a FUSE file's times change then, not at the page fault (both as
    /// msync(2) has it).
    pub(crate) fn settle(&self) -> Result<(), Errno> {
        let mut windows = self.held.iter().flatten().filter_map(|h| h.window.as_ref());
        windows.try_for_each(|w| w.sync().map_err(|e| io(&e)))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn open(&self, path: &str, flags: OFlag, mode: u32) -> Result<File, Errno> {
        let path = self.at(path);
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        match open(&path, flags, bits(mode)) {
            Ok(fd) => Ok(File::from(fd)),
            // Devices cannot be opened on a file system mounted inside a user namespace, wherever they are no
            // devices: the one answer is the kernel's, before it asks the file system.
            Err(e @ (Errno::ENXIO | Errno::EACCES)) => match nix::sys::stat::stat(&path) {
                Ok(st) if st.st_mode & 0o170_000 == 0o20_000 => Err(Errno::ENODEV),
                // The server was killed between the two.
                Err(dead @ (Errno::ENOTCONN | Errno::ECONNABORTED)) => Err(dead),
                _ => Err(e),
            },
            Err(e) => Err(e),
        }
    }

    fn fallocate(&mut self, file: &File, mode: u32, offset: u64, len: u64) -> Told {
        self.unlike.extend(identity_of(file));
        let flags = FallocateFlags::from_bits_truncate(mode as i32);
        done(fallocate(file, flags, offset as i64, len as i64))
    }

    /// Does the operation as the actor's user; tells what it answered.
    pub(crate) fn act(&mut self, op: &Op) -> String {
        become_user(user(self.id));
        let told = match self.try_act(op) {
            Ok(told) => format!("ok {told}"),
            Err(e) => format!("{e:?}"),
        };
        become_user(0);
        if let Op::Rename(from, _, flags) = op
            && flags & 4 != 0
            && !told.starts_with("ok")
        {
            self.level(from);
        }
        told + &self.parents(op)
    }

    /// ext4 changes a directory's time for a rename that leaves a whiteout even if it fails (it takes the whiteout back
    /// in the end). That is no answer to live up to: both have the time of now afterwards.
    fn level(&self, path: &str) {
        if let Some((dir, _)) = path.rsplit_once('/')
            && !SHARED.contains(&dir)
        {
            let (a, m) = (spec(When::Omit), spec(When::Now));
            let flags = UtimensatFlags::FollowSymlink;
            let _ = utimensat(AT_FDCWD, &self.at(dir), &a, &m, flags);
        }
    }

    /// Times of the directories whose names an operation is about: whether it changed them. Not of shared ones.
    fn parents(&self, op: &Op) -> String {
        let mut told = String::new();
        for path in op.names() {
            if let Some((dir, _)) = path.rsplit_once('/')
                && !SHARED.contains(&dir)
            {
                let _ = write!(told, " {}", super::tree::modified(&self.at(dir)));
            }
        }
        told
    }

    fn try_act(&mut self, op: &Op) -> Told {
        match op {
            Op::Mkdir(p, m) => done(mkdirat(AT_FDCWD, &self.at(p), bits(*m))),
            Op::Rmdir(p) => done(std::fs::remove_dir(self.at(p)).map_err(|e| io(&e))),
            Op::Create(p, m, excl, trunc) => {
                let mut flags = OFlag::O_CREAT | OFlag::O_RDWR;
                flags.set(OFlag::O_EXCL, *excl);
                flags.set(OFlag::O_TRUNC, *trunc);
                done(self.open(p, flags, *m))
            }
            Op::Unlink(p) => done(unlink(&self.at(p))),
            Op::Rename(a, b, flags) => {
                let flags = RenameFlags::from_bits_truncate(*flags);
                let (a, b) = (self.at(a), self.at(b));
                done(renameat2(AT_FDCWD, &a, AT_FDCWD, &b, flags))
            }
            Op::Link(a, b) => {
                let (a, b) = (self.at(a), self.at(b));
                done(linkat(AT_FDCWD, &a, AT_FDCWD, &b, AtFlags::empty()))
            }
            Op::Symlink(t, p) => done(symlinkat(t.as_str(), AT_FDCWD, &self.at(p))),
            Op::Mknod(p, m) => {
                let kind = SFlag::from_bits_truncate(m & 0o170_000);
                done(mknod(&self.at(p), kind, bits(m & 0o7777), 0))
            }
            Op::Chmod(p, m) => {
                let follow = FchmodatFlags::FollowSymlink;
                done(fchmodat(AT_FDCWD, &self.at(p), bits(*m), follow))
            }
            Op::Chown(p, u, g) => {
                let uid = (*u != u32::MAX).then(|| Uid::from_raw(*u));
                let gid = (*g != u32::MAX).then(|| Gid::from_raw(*g));
                let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
                done(fchownat(AT_FDCWD, &self.at(p), uid, gid, flags))
            }
            Op::Utimes(p, a, m) => {
                self.settle()?;
                self.utimes(p, *a, *m)
            }
            Op::Look(p) => {
                self.settle()?;
                inode(&self.at(p), true)
            }
            Op::List(p) => self.list(p),
            _ => self.act_content(op),
        }
    }

    fn act_content(&mut self, op: &Op) -> Told {
        match op {
            Op::Write(p, off, len, b) => {
                let f = self.open(p, OFlag::O_WRONLY, 0)?;
                let n = f.write_at(&pattern(*len, *b), *off);
                n.map(|n| n.to_string()).map_err(|e| io(&e))
            }
            Op::Append(p, len, b) => {
                let f = self.open(p, OFlag::O_WRONLY | OFlag::O_APPEND, 0)?;
                done(nix::unistd::write(&f, &pattern(*len, *b)))
            }
            Op::Truncate(p, n) => done(nix::unistd::truncate(&self.at(p), *n as i64)),
            Op::Fallocate(p, m, off, len) => {
                let f = self.open(p, OFlag::O_WRONLY, 0)?;
                self.fallocate(&f, *m, *off, *len)
            }
            Op::CopyRange(a, b, from, to, len) => {
                let (a, b) = (
                    self.open(a, OFlag::O_RDONLY, 0)?,
                    self.open(b, OFlag::O_WRONLY, 0)?,
                );
                let (mut from, mut to) = (*from, *to);
                rustix::fs::copy_file_range(&a, Some(&mut from), &b, Some(&mut to), *len)
                    .map(|n| n.to_string())
                    .map_err(|e| Errno::from_raw(e.raw_os_error()))
            }
            Op::Access(p, m) => {
                let mode = nix::unistd::AccessFlags::from_bits_truncate(*m as i32);
                done(faccessat(AT_FDCWD, &self.at(p), mode, AtFlags::AT_EACCESS))
            }
            Op::Sync(p) => {
                let f = self.open(p, OFlag::O_RDONLY, 0)?;
                match f.sync_all() {
                    Ok(()) => Ok(String::new()),
                    Err(e) => Err(io(&e)),
                }
            }
            Op::MapWrite(p, off, len, b) => {
                let f = self.open(p, OFlag::O_RDWR, 0)?;
                self.unlike.extend(identity_of(&f));
                let size = f.metadata().map_err(|e| io(&e))?.len();
                let len = inside(size, *off, *len);
                let window = Window::shared(f, size as usize).map_err(|e| io(&e))?;
                window.write(*off as usize, &pattern(len, *b));
                done(window.sync().map_err(|e| io(&e)))
            }
            Op::MapPrivate(p, off, len, b) => {
                let f = self.open(p, OFlag::O_RDONLY, 0)?;
                let size = f.metadata().map_err(|e| io(&e))?.len();
                let len = inside(size, *off, *len);
                let window = Window::private(f, size as usize).map_err(|e| io(&e))?;
                let before = crc32fast::hash(&window.read(0, size as usize));
                window.write(*off as usize, &pattern(len, *b));
                let after = crc32fast::hash(&window.read(0, size as usize));
                Ok(format!("{size} {before:08x} {after:08x}"))
            }
            Op::SetXattr(p, n, v, flags) => {
                let flags = rustix::fs::XattrFlags::from_bits_truncate(u32::from(*flags));
                let set = rustix::fs::lsetxattr(self.at(p), n.as_str(), v, flags);
                done(set.map_err(|e| Errno::from_raw(e.raw_os_error())))
            }
            Op::RemoveXattr(p, n) => {
                let removed = rustix::fs::lremovexattr(self.at(p), n.as_str());
                done(removed.map_err(|e| Errno::from_raw(e.raw_os_error())))
            }
            Op::GetXattr(p, n) => {
                let mut value = [0; 256];
                match rustix::fs::lgetxattr(self.at(p), n.as_str(), &mut value[..]) {
                    Ok(len) => Ok(format!("{:02x?}", &value[..len])),
                    Err(e) => Err(Errno::from_raw(e.raw_os_error())),
                }
            }
            _ => self.act_hold(op),
        }
    }

    fn act_hold(&mut self, op: &Op) -> Told {
        match op {
            Op::Hold(i, p) => {
                self.held[*i] = None;
                let file = self.open(p, OFlag::O_RDWR, 0)?;
                if !file.metadata().map_err(|e| io(&e))?.is_file() {
                    return Ok("no file".into());
                }
                self.hold(*i, file)
            }
            Op::HoldNew(i, p, m) | Op::HoldMade(i, p, m) => {
                self.held[*i] = None;
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
                let file = self.open(p, flags, *m)?;
                if matches!(op, Op::HoldNew(..)) {
                    unlink(&self.at(p))?;
                }
                self.hold(*i, file)
            }
            Op::HoldUnnamed(i, p, m) => {
                self.held[*i] = None;
                let file = self.open(p, OFlag::O_TMPFILE | OFlag::O_RDWR, *m)?;
                self.hold(*i, file)
            }
            Op::Drop(i) => {
                self.held[*i] = None;
                Ok(String::new())
            }
            _ => self.act_held(op),
        }
    }

    fn hold(&mut self, slot: usize, file: File) -> Told {
        self.held[slot] = Some(Held { file, window: None });
        Ok(String::new())
    }

    /// The held file's duplicate.
    fn held(&self, slot: usize) -> Result<File, Errno> {
        let held = self.held[slot].as_ref().ok_or(Errno::EBADF)?;
        held.file.try_clone().map_err(|e| io(&e))
    }

    fn act_held(&mut self, op: &Op) -> Told {
        match op {
            Op::LinkHeld(i, p) => {
                let file = self.held(*i)?;
                let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
                let from = PathBuf::from(format!("/proc/self/fd/{fd}"));
                let follow = AtFlags::AT_SYMLINK_FOLLOW;
                done(linkat(AT_FDCWD, &from, AT_FDCWD, &self.at(p), follow))
            }
            Op::HeldWrite(i, off, len, b) => {
                let n = self.held(*i)?.write_at(&pattern(*len, *b), *off);
                n.map(|n| n.to_string()).map_err(|e| io(&e))
            }
            Op::HeldAppend(i, len, b) => {
                let f = self.held(*i)?;
                nix::unistd::lseek(&f, 0, nix::unistd::Whence::SeekEnd)?;
                done(nix::unistd::write(&f, &pattern(*len, *b)))
            }
            Op::HeldTruncate(i, n) => done(ftruncate(&self.held(*i)?, *n as i64)),
            Op::HeldChmod(i, m) => done(fchmod(&self.held(*i)?, bits(*m))),
            Op::HeldFallocate(i, m, off, len) => self.fallocate(&self.held(*i)?, *m, *off, *len),
            Op::HeldLook(i) => {
                let f = self.held(*i)?;
                let st = fstat(&f)?;
                let told = content(&f)?;
                holes(&f, st.st_size)?;
                Ok(format!(
                    "{:o} {} {} {told}",
                    st.st_mode, st.st_nlink, st.st_size
                ))
            }
            Op::HeldSync(i) => done(self.held(*i)?.sync_all().map_err(|e| io(&e))),
            _ => self.act_mapped(op),
        }
    }

    fn act_mapped(&mut self, op: &Op) -> Told {
        if let Op::HeldMap(i) = op {
            let file = self.held(*i)?;
            self.unlike.extend(identity_of(&file));
            let size = fstat(&file)?.st_size as usize;
            let window = Window::shared(file, size).map_err(|e| io(&e))?;
            self.held[*i].as_mut().ok_or(Errno::EBADF)?.window = Some(window);
            return Ok(size.to_string());
        }
        let (Op::HeldMapWrite(i, ..) | Op::HeldMapRead(i)) = op else {
            return Ok("nothing to do".into());
        };
        let held = self.held[*i].as_ref().ok_or(Errno::EBADF)?;
        let window = held.window.as_ref().ok_or(Errno::EFAULT)?;
        // Pages behind the end raise SIGBUS; nobody else changes the file meanwhile.
        let size = (fstat(&held.file)?.st_size as u64).min(window.len() as u64);
        if let Op::HeldMapWrite(_, off, len, b, sync) = op {
            let len = inside(size, *off, *len);
            if len > 0 {
                window.write(*off as usize, &pattern(len, *b));
            }
            if *sync {
                window.sync().map_err(|e| io(&e))?;
            }
            return Ok(len.to_string());
        }
        let seen = window.read(0, size as usize);
        Ok(format!("{} {:08x}", seen.len(), crc32fast::hash(&seen)))
    }

    /// Sets times and tells both as they are then.
    fn utimes(&self, path: &str, atime: When, mtime: When) -> Told {
        let path = self.at(path);
        let (a, m) = (spec(atime), spec(mtime));
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(AT_FDCWD, &path, &a, &m, flags)?;
        let st = lstat(&path)?;
        let mut told = String::new();
        if matches!(atime, When::At(..)) {
            told = format!("{}.{}", st.st_atime, st.st_atime_nsec);
        }
        if matches!(mtime, When::At(..)) {
            told = format!("{told} {}.{}", st.st_mtime, st.st_mtime_nsec);
        }
        Ok(told)
    }

    /// Names and kinds; of a shared directory only the actor's own.
    fn list(&self, path: &str) -> Told {
        let mut names = Vec::new();
        let own = char::from_digit(self.id as u32, 10).unwrap_or('0');
        for e in std::fs::read_dir(self.at(path)).map_err(|e| io(&e))? {
            let e = e.map_err(|e| io(&e))?;
            let name = e.file_name().to_string_lossy().into_owned();
            if SHARED.contains(&path) && !name.ends_with(own) {
                continue;
            }
            let kind = e.file_type().map_err(|e| io(&e))?;
            names.push(format!("{name}:{kind:?}"));
        }
        names.sort();
        Ok(names.join(" "))
    }

    /// The regular files that an operation is about, opened for reading.
    pub(crate) fn files(&self, op: &Op) -> Vec<File> {
        let (paths, slot) = op.about();
        let held = slot.and_then(|i| self.held[i].as_ref());
        let mut files: Vec<File> = held
            .into_iter()
            .filter_map(|h| h.file.try_clone().ok())
            .collect();
        for path in paths {
            let path = self.at(path);
            if std::fs::metadata(&path).is_ok_and(|m| m.is_file()) {
                files.extend(File::open(path).ok());
            }
        }
        files
    }

    /// Every path of the actor's: below its own names in the shared directories.
    pub(crate) fn paths(&self) -> Vec<String> {
        super::tree::paths(&self.root, Some(self.id))
    }
}
