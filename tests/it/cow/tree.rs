//! What a tree is, as text that two file systems must agree on.

use super::actor::Told;
use super::ops::SHARED;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlink};
use nix::sys::stat::{FileStat, Mode, lstat};
use nix::unistd::{Whence, lseek};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The number of an error.
pub(crate) fn io(e: &std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(0))
}

/// All bytes of a file.
pub(crate) fn bytes(file: &File) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let mut buf = vec![0; 1 << 16];
    loop {
        match file.read_at(&mut buf, bytes.len() as u64) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&buf[..n]),
            Err(e) => return Err(io(&e)),
        }
    }
}

/// Content as length and checksum.
pub(crate) fn content(file: &File) -> Told {
    let bytes = bytes(file)?;
    Ok(format!(
        "{} bytes {:08x}",
        bytes.len(),
        crc32fast::hash(&bytes)
    ))
}

/// A time: those that were set are far from the present (see `Maker::when`) and compared exactly.
fn time(sec: i64, nsec: i64) -> String {
    match sec {
        1_600_000_000..2_000_000_000 => "now".into(),
        _ => format!("{sec}.{nsec:09}"),
    }
}

/// When the directory that a path leads to was modified. A file's time follows what was written through a mapping only
/// when that is written back (see `rless::cow::LIMITS`).
pub(crate) fn modified(path: &Path) -> String {
    match nix::sys::stat::stat(path) {
        Ok(st) if kind(&st) != nix::libc::S_IFDIR => "no directory".into(),
        Ok(st) => time(st.st_mtime, st.st_mtime_nsec),
        Err(e) => format!("{e:?}"),
    }
}

fn kind(st: &FileStat) -> u32 {
    st.st_mode & nix::libc::S_IFMT
}

/// Everything about one inode; content, size and times only if `whole`.
pub(crate) fn inode(path: &Path, whole: bool) -> Told {
    let st = lstat(path)?;
    let mut told = format!(
        "{:o} {}:{} links {}",
        st.st_mode, st.st_uid, st.st_gid, st.st_nlink
    );
    if whole {
        let _ = write!(told, " mtime {}", time(st.st_mtime, st.st_mtime_nsec));
    }
    match kind(&st) {
        nix::libc::S_IFREG if whole => {
            let _ = write!(told, " size {}", st.st_size);
            match open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(File::from) {
                Ok(f) => {
                    let _ = write!(told, " {}", content(&f)?);
                    holes(&f, st.st_size)?;
                }
                Err(e) => {
                    let _ = write!(told, " {e:?}");
                }
            }
        }
        nix::libc::S_IFLNK => {
            let to = readlink(path)?;
            let _ = write!(told, " size {} -> {}", st.st_size, to.display());
        }
        nix::libc::S_IFCHR => {
            let _ = write!(told, " device {}", st.st_rdev);
        }
        // Nothing reads a fifo here: its access time is what was set.
        nix::libc::S_IFIFO if whole => {
            let _ = write!(told, " atime {}", time(st.st_atime, st.st_atime_nsec));
        }
        _ => {}
    }
    Ok(told)
}

/// Names and values of all attributes, sorted.
fn attributes(path: &Path) -> Told {
    let raw = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
    let mut names = vec![0u8; 4096];
    let n = rustix::fs::llistxattr(path, &mut names[..]).map_err(raw)?;
    let mut told: Vec<String> = Vec::new();
    for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = [0u8; 4096];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).map_err(raw)?;
        let name = String::from_utf8_lossy(name);
        told.push(format!("{name}={:02x?}", &value[..len]));
    }
    told.sort();
    Ok(told.join(" "))
}

/// What of a tree is looked at.
#[derive(Clone, Copy)]
pub(crate) enum Scope {
    All,
    /// Names, owners, modes, links and attributes of one actor's files: what a killed server's journal orders.
    Metadata(usize),
}

fn owned(name: &str, actor: usize) -> bool {
    name.ends_with(char::from_digit(actor as u32, 10).unwrap_or('0'))
}

/// Calls `seen` for everything in the tree in one order, with its path below the root.
fn walk(root: &Path, scope: Scope, seen: &mut dyn FnMut(&str, &Path)) {
    let mut todo = vec![(String::new(), root.to_owned())];
    while let Some((dir, full)) = todo.pop() {
        let shared = SHARED.contains(&dir.as_str());
        let Ok(list) = std::fs::read_dir(&full) else {
            seen(&format!("{dir} cannot be read"), &full);
            continue;
        };
        let mut names: Vec<_> = list.filter_map(Result::ok).collect();
        names.sort_by_key(std::fs::DirEntry::file_name);
        for entry in names {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if dir.is_empty() {
                name.clone()
            } else {
                format!("{dir}/{name}")
            };
            let below = entry.file_type().is_ok_and(|t| t.is_dir());
            let skipped = match scope {
                Scope::Metadata(actor) => shared && !owned(&name, actor),
                Scope::All => false,
            };
            if !skipped {
                seen(&path, &entry.path());
            }
            if below && (!skipped || SHARED.contains(&path.as_str())) {
                todo.push((path, entry.path()));
            }
        }
    }
}

/// The tree, a line an inode, hard links as such.
pub(crate) fn view(root: &Path, scope: Scope) -> Vec<String> {
    let whole = matches!(scope, Scope::All);
    let mut out = Vec::new();
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    walk(root, scope, &mut |short, path| {
        let told = inode(path, whole).unwrap_or_else(|e| format!("{e:?}"));
        let attributes = attributes(path).unwrap_or_else(|e| format!("attributes {e:?}"));
        let mut line = format!("{short}: {told} {attributes}");
        if let Ok(st) = lstat(path)
            && st.st_nlink > 1
            && kind(&st) != nix::libc::S_IFDIR
        {
            let first = first.entry(st.st_ino).or_insert_with(|| short.to_owned());
            let _ = write!(line, " is {first}");
        }
        out.push(line);
    });
    out
}

/// Every path of the tree, or of one actor's part of it; none that is not UTF-8.
pub(crate) fn paths(root: &Path, actor: Option<usize>) -> Vec<String> {
    let mut out = Vec::new();
    let scope = actor.map_or(Scope::All, Scope::Metadata);
    walk(root, scope, &mut |short, path| {
        if path.to_str().is_some() {
            out.push(short.to_owned());
        }
    });
    out
}

/// Which inode that is, for as long as the file system lives: numbers are used again.
pub(crate) type Identity = (u64, std::time::SystemTime);

/// Identity of what a path leads to, where the file system tells birth times.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    told(&std::fs::metadata(path).ok()?)
}

/// Identity of an open file.
pub(crate) fn identity_of(file: &File) -> Option<Identity> {
    told(&file.metadata().ok()?)
}

fn told(meta: &std::fs::Metadata) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    Some((meta.ino(), meta.created().ok()?))
}

/// SEEK_DATA and SEEK_HOLE alternate, never go back, and holes read as zeros: the pieces of data. Pages that were
/// written through a mapping are not asked for holes by the kernel before they are written back: an fsync does it.
pub(crate) fn holes(f: &File, size: i64) -> Result<Vec<(i64, i64)>, Errno> {
    match pieces(f, size) {
        Err(Errno::ERANGE) => {
            f.sync_all().map_err(|e| io(&e))?;
            pieces(f, size)
        }
        other => other,
    }
}

fn pieces(f: &File, size: i64) -> Result<Vec<(i64, i64)>, Errno> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match lseek(f, at, Whence::SeekData) {
            Ok(n) => n,
            Err(Errno::ENXIO) => size,
            Err(e) => return Err(e),
        };
        if data < at {
            return Err(Errno::ERANGE);
        }
        let mut hole = vec![1; (data - at) as usize];
        let n = f.read_at(&mut hole, at as u64).map_err(|e| io(&e))?;
        if n != hole.len() || hole.iter().any(|b| *b != 0) {
            return Err(Errno::ERANGE);
        }
        if data == size {
            break;
        }
        let end = lseek(f, data, Whence::SeekHole)?;
        if end <= data || end > size {
            return Err(Errno::ERANGE);
        }
        pieces.push((data, end));
        at = end;
    }
    Ok(pieces)
}

/// Compares where both trees' files have data and holes, but for inodes (of the second) in `unlike`.
pub(crate) fn same_layout(
    ours: &Path,
    theirs: &Path,
    unlike: &HashSet<Identity>,
) -> Result<usize, String> {
    let mut compared = 0;
    for short in paths(theirs, None) {
        let both: [PathBuf; 2] = [ours.join(&short), theirs.join(&short)];
        if !lstat(&both[1]).is_ok_and(|st| kind(&st) == nix::libc::S_IFREG)
            || identity(&both[1]).is_none_or(|id| unlike.contains(&id))
        {
            continue;
        }
        let pieces = |path: &PathBuf| {
            let f = File::open(path).map_err(|e| format!("{short}: {e}"))?;
            let size = f.metadata().map_err(|e| format!("{short}: {e}"))?.len();
            holes(&f, size as i64).map_err(|e| format!("{short}: {e}"))
        };
        let (a, b) = (pieces(&both[0])?, pieces(&both[1])?);
        if a != b {
            return Err(format!("{short}: data at {a:?}, the kernel's at {b:?}"));
        }
        compared += 1;
    }
    Ok(compared)
}

/// What must hold in a tree whatever was lost: everything can be read, link counts are right.
pub(crate) fn sound(root: &Path, what: &str) {
    use std::os::unix::fs::MetadataExt;
    let mut names: BTreeMap<u64, (u64, u64, String)> = BTreeMap::new();
    for line in view(root, Scope::All) {
        let read = !line.contains(": E") && !line.contains("cannot be read");
        assert!(read, "{what}: {line}");
    }
    for path in paths(root, None) {
        let full = root.join(&path);
        let meta = std::fs::symlink_metadata(&full).unwrap();
        if meta.is_dir() {
            let dirs = std::fs::read_dir(&full)
                .unwrap()
                .filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir())
                .count() as u64;
            assert_eq!(meta.nlink(), dirs + 2, "{what}: links of {path}");
        } else {
            let entry = names.entry(meta.ino()).or_insert((0, meta.nlink(), path));
            entry.0 += 1;
        }
    }
    for (seen, links, path) in names.values() {
        assert_eq!(seen, links, "{what}: links of {path}");
    }
}
