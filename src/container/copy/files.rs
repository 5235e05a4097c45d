//! Files of a file system (the host's, or a running container's seen from inside) into a tar stream, and out of one.
//!
//! Both work from descriptors of directories: a name is looked up in the directory that was opened, never through a
//! symbolic link, so that somebody who exchanges directories and links meanwhile gets what he has made archived or an
//! error, and nothing outside the destination is written (CVE-2018-15664, CVE-2019-18466).

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{
    FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};

use crate::cow::index::Time;
use crate::error::{Result, failed};
use crate::store::archive::fit;
use crate::store::tarball::write::Writer;
use crate::store::tarball::{Entry, Kind, Reader};
use crate::sys::xattr;

const PIECE: usize = 256 << 10;
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// How what is copied is named in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Naming {
    /// Name of the copied thing itself; empty: the directory's content without it.
    pub(super) top: Vec<u8>,
    /// Owners are written as root's: those of the host mean nothing in a container.
    pub(super) plain: bool,
}

/// What to do at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unpack {
    /// Owner of everything; `None` with `keep`: as in the stream; else whoever writes.
    pub(super) owner: Option<(u32, u32)>,
    /// Owners are those in the stream.
    pub(super) keep: bool,
    /// A directory may be replaced by something else, and the other way round.
    pub(super) overwrite: bool,
}

/// Writes what `path` leads to (symbolic links followed) as a tar.
pub(super) fn pack(path: &Path, naming: &Naming, out: impl Write) -> Result<()> {
    let what = || format!("reading {}", path.display());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let top = open(path, flags, Mode::empty()).with_context(what)?;
    let stat = fstat(&top).with_context(what)?;
    let mut packer = Packer {
        out: Writer::new(out),
        plain: naming.plain,
        links: HashMap::new(),
    };
    match kind(&stat) {
        SFlag::S_IFDIR => {
            if !naming.top.is_empty() {
                packer.dir(&naming.top, &stat, &top)?;
            }
            packer.directory(top, &naming.top).with_context(what)?;
        }
        SFlag::S_IFREG => packer
            .file(&File::from(top), &stat, &naming.top)
            .with_context(what)?,
        _ => return Err(failed("it is neither a file nor a directory")).with_context(what),
    }
    packer.out.finish()?.flush()?;
    Ok(())
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT)
}

/// Whether an extended attribute is copied: podman's choice.
pub(super) fn goes_along((name, _): &(Vec<u8>, Vec<u8>)) -> bool {
    name == b"security.capability" || name.starts_with(b"user.")
}

/// The extended attributes of a file or directory that are copied, as far as a tar can hold them.
fn xattrs(file: impl AsFd, path: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    // What has none, or does not let them be read, has none to be copied.
    let names = xattr::flist(&file).unwrap_or_default();
    let mut all = Vec::new();
    for name in names.split_inclusive(|b| *b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let mut one = (name.to_bytes().to_vec(), Vec::new());
        if goes_along(&one)
            && let Ok(value) = xattr::fget(&file, name)
        {
            one.1 = value;
            all.push(one);
        }
    }
    if let Some(why) = fit(&mut all) {
        log::warn!("{}: {why}", path.escape_ascii());
    }
    all
}

struct Packer<W> {
    out: Writer<W>,
    plain: bool,
    /// Files with several names, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn entry(&self, path: &[u8], stat: &FileStat, kind: Kind) -> Entry {
        let own = |id: u32| if self.plain { 0 } else { id };
        Entry {
            path: path.to_vec(),
            size: match kind {
                Kind::File => u64::try_from(stat.st_size).unwrap_or(0),
                _ => 0,
            },
            kind,
            mode: stat.st_mode & 0o7777,
            uid: own(stat.st_uid),
            gid: own(stat.st_gid),
            mtime: Time {
                sec: stat.st_mtime,
                nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            atime: None,
            ctime: None,
            xattrs: Vec::new(),
            sparse: None,
            offset: 0,
        }
    }

    fn head(&mut self, path: &[u8], stat: &FileStat, kind: Kind) -> Result<()> {
        self.out.entry(&self.entry(path, stat, kind))
    }

    fn dir(&mut self, path: &[u8], stat: &FileStat, dir: &OwnedFd) -> Result<()> {
        let mut entry = self.entry(path, stat, Kind::Dir);
        entry.xattrs = xattrs(dir, path);
        self.out.entry(&entry)
    }

    fn directory(&mut self, dir: OwnedFd, path: &[u8]) -> Result<()> {
        let listing = dir.try_clone().context("listing a directory")?;
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in Dir::from_fd(listing)?.iter() {
            names.push(entry?.file_name().to_bytes().to_vec());
        }
        names.sort();
        for name in names.iter().filter(|n| *n != b"." && *n != b"..") {
            let full = match path {
                b"" => name.clone(),
                path => [path, b"/", name].concat(),
            };
            self.child(&dir, OsStr::from_bytes(name), &full)
                .with_context(|| format!("reading {}", full.escape_ascii()))?;
        }
        Ok(())
    }

    fn child(&mut self, dir: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // It went meanwhile.
            Err(Errno::ENOENT) => return Ok(()),
            other => other?,
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        match kind(&stat) {
            SFlag::S_IFDIR => {
                let inner = openat(dir, name, flags | OFlag::O_DIRECTORY, Mode::empty())?;
                let stat = fstat(&inner)?;
                self.dir(path, &stat, &inner)?;
                self.directory(inner, path)
            }
            SFlag::S_IFREG => {
                let file = File::from(openat(dir, name, flags, Mode::empty())?);
                let stat = fstat(&file)?;
                self.file(&file, &stat, path)
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(dir, name)?;
                self.head(path, &stat, Kind::Symlink(target.into_vec()))
            }
            SFlag::S_IFIFO => self.head(path, &stat, Kind::Fifo),
            // Sockets and devices mean nothing elsewhere.
            _ => Ok(()),
        }
    }

    fn file(&mut self, file: &File, stat: &FileStat, path: &[u8]) -> Result<()> {
        if kind(stat) != SFlag::S_IFREG {
            // It was exchanged between two looks.
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let link = Kind::Hardlink(first.clone());
                return self.head(path, stat, link);
            }
            self.links.insert(key, path.to_vec());
        }
        let mut entry = self.entry(path, stat, Kind::File);
        entry.xattrs = xattrs(file, path);
        self.out.entry(&entry)?;
        let (mut at, mut buf) = (0, vec![0; PIECE]);
        while at < entry.size {
            let most = usize::try_from(entry.size - at).map_or(PIECE, |n| n.min(PIECE));
            let mut n = file.read_at(&mut buf[..most], at)?;
            if n == 0 {
                // It became shorter: the stream has said how long it is.
                buf[..most].fill(0);
                n = most;
            }
            self.out.write_all(&buf[..n])?;
            at += n as u64;
        }
        Ok(())
    }
}

/// Unpacks a tar into the directory that `path` leads to.
pub(super) fn unpack(path: &Path, how: Unpack, reader: &mut Reader<impl BufRead>) -> Result<()> {
    let what = || format!("writing to {}", path.display());
    let top = open(path, DIRECTORY, Mode::empty()).with_context(what)?;
    let mut unpacker = Unpacker {
        top,
        how,
        dirs: Vec::new(),
    };
    while let Some(entry) = reader.next_entry()? {
        let made = unpacker.entry(&entry, reader);
        made.with_context(|| format!("creating {}", entry.path.escape_ascii()))?;
    }
    unpacker.finish().with_context(what)
}

struct Unpacker {
    top: OwnedFd,
    how: Unpack,
    /// Directories, whose times are set when nothing is made in them any more.
    dirs: Vec<Entry>,
}

fn inside(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        )
}

fn time(t: Time) -> TimeSpec {
    TimeSpec::new(t.sec, t.nsec.into())
}

impl Unpacker {
    /// The directory that a path of the stream lies in, made if it is missing, and the name in it.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p OsStr)> {
        let at = path.iter().rposition(|b| *b == b'/');
        let (dir, name) = match at {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let name = OsStr::from_bytes(name);
        if dir.is_empty() {
            return Ok((self.top.try_clone()?, name));
        }
        let found = openat2(&self.top, OsStr::from_bytes(dir), inside(DIRECTORY));
        if let Err(Errno::ENOENT) = found {
            let (above, last) = self.parent(dir)?;
            match mkdirat(&above, last, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e.into()),
            }
            let made = openat2(&above, last, inside(DIRECTORY))?;
            return Ok((made, name));
        }
        Ok((found?, name))
    }

    fn entry(&mut self, entry: &Entry, reader: &mut Reader<impl BufRead>) -> Result<()> {
        if entry.path.is_empty() {
            return Ok(());
        }
        let (dir, name) = self.parent(&entry.path)?;
        match &entry.kind {
            Kind::Dir => {
                self.directory(&dir, name)?;
                self.dirs.push(entry.clone());
                return Ok(());
            }
            Kind::File => return self.file(&dir, name, entry, reader),
            _ => self.clear(&dir, name)?,
        }
        match &entry.kind {
            Kind::Symlink(target) => symlinkat(OsStr::from_bytes(target), &dir, name)?,
            Kind::Hardlink(target) => {
                let (there, old) = self.parent(target)?;
                // Its attributes are its target's.
                return Ok(linkat(&there, old, &dir, name, AtFlags::empty())?);
            }
            Kind::Fifo => mknodat(&dir, name, SFlag::S_IFIFO, Mode::S_IRUSR | Mode::S_IWUSR, 0)?,
            // Devices cannot be made.
            _ => return Ok(()),
        }
        if let Some((uid, gid)) = self.owner(entry) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fchownat(
                &dir,
                name,
                Some(uid),
                Some(gid),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
        }
        let t = time(entry.mtime);
        utimensat(&dir, name, &t, &t, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    fn owner(&self, entry: &Entry) -> Option<(u32, u32)> {
        match self.how.owner {
            None if self.how.keep => Some((entry.uid, entry.gid)),
            owner => owner,
        }
    }

    fn directory(&self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        match mkdirat(dir, name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) => {}
            other => return Ok(other?),
        }
        let there = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if kind(&there) == SFlag::S_IFDIR {
            return Ok(());
        }
        if !self.how.overwrite {
            return Err(failed("there is something else than a directory").into());
        }
        unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
        Ok(mkdirat(dir, name, Mode::S_IRWXU)?)
    }

    /// Takes away what has the name, so that something else can have it.
    fn clear(&self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR) if self.how.overwrite => remove(dir.as_fd(), name),
            Err(Errno::EISDIR) => Err(failed("there is a directory")
                .hint("--overwrite replaces it")
                .into()),
            Err(e) => Err(e.into()),
        }
    }

    fn file(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        reader: &mut Reader<impl BufRead>,
    ) -> Result<()> {
        let mut flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        match self.clear(dir, name) {
            // Something is mounted there: its content is replaced.
            Err(e) if e.downcast_ref() == Some(&Errno::EBUSY) => flags |= OFlag::O_TRUNC,
            other => {
                other?;
                flags |= OFlag::O_CREAT | OFlag::O_EXCL;
            }
        }
        let file = File::from(openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        if kind(&fstat(&file)?) != SFlag::S_IFREG {
            return Err(failed("there is something else than a file").into());
        }
        let whole = [crate::store::tarball::Segment {
            offset: 0,
            len: entry.size,
        }];
        let mut buf = vec![0; PIECE];
        for segment in entry.sparse.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (segment.offset, segment.offset + segment.len);
            while at < end {
                let most = usize::try_from(end - at).map_or(PIECE, |n| n.min(PIECE));
                reader.read_exact(&mut buf[..most])?;
                file.write_all_at(&buf[..most], at)?;
                at += most as u64;
            }
        }
        if entry.sparse.is_some() {
            file.set_len(entry.size)?;
        }
        self.settle(&file, entry)
    }

    /// Owner, extended attributes, mode and time.
    fn settle(&self, file: &File, entry: &Entry) -> Result<()> {
        if let Some((uid, gid)) = self.owner(entry) {
            fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        // Before the mode, which may keep the owner from it; after the owner, which takes capabilities.
        for (name, value) in entry.xattrs.iter().filter(|x| goes_along(x)) {
            let Ok(name) = CString::new(name.as_slice()) else {
                continue;
            };
            match xattr::fset(file, &name, value) {
                // They may not be had here: capabilities of a user's, large ones (ENOSPC on ext4), or none at all.
                Ok(())
                | Err(Errno::EPERM | Errno::EACCES | Errno::ENOTSUP | Errno::E2BIG)
                | Err(Errno::ERANGE | Errno::ENOSPC | Errno::EDQUOT) => {}
                Err(e) => return Err(e).with_context(|| format!("setting its attribute {name:?}")),
            }
        }
        // All of it, as podman: setuid programs come as the user's own.
        fchmod(file, Mode::from_bits_truncate(entry.mode))?;
        let t = time(entry.mtime);
        Ok(futimens(file, &t, &t)?)
    }

    fn finish(self) -> Result<()> {
        for entry in self.dirs.iter().rev() {
            let path = OsStr::from_bytes(&entry.path);
            let dir = openat2(&self.top, path, inside(DIRECTORY))?;
            self.settle(&File::from(dir), entry)?;
        }
        Ok(())
    }
}

/// Removes a directory with all that is in it.
fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let inner = openat(dir, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
    let mut names: Vec<OsString> = Vec::new();
    for entry in Dir::from_fd(inner.try_clone()?)?.iter() {
        names.push(OsString::from_vec(entry?.file_name().to_bytes().to_vec()));
    }
    for name in names.iter().filter(|n| *n != "." && *n != "..") {
        match unlinkat(&inner, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => remove(inner.as_fd(), name)?,
            other => other?,
        }
    }
    Ok(unlinkat(dir, name, UnlinkatFlags::RemoveDir)?)
}
