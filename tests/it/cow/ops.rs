//! Random file operations: made from a seed, done below a directory, told as text to compare.

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, FallocateFlags, OFlag, RenameFlags, fallocate, open, readlink, renameat2,
};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstat, lstat, mkdirat, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchownat, ftruncate, linkat, lseek, symlinkat, unlink};
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A small generator: the same sequence for a seed everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// One operation; paths are relative to the root of the tree.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Mkdir(String, u32),
    Rmdir(String),
    Create(String, u32, bool),
    Write(String, u64, usize, u8),
    Append(String, usize, u8),
    Truncate(String, u64),
    Unlink(String),
    Rename(String, String, u32),
    Link(String, String),
    Symlink(String, String),
    Mknod(String, u32),
    Chmod(String, u32),
    Chown(String, u32, u32),
    Utimes(String, i64, i64),
    SetXattr(String, String, usize),
    RemoveXattr(String, String),
    Fallocate(String, u32, u64, u64),
    Look(String),
    List(String),
    Hold(usize, String),
    HeldWrite(usize, u64, usize, u8),
    HeldTruncate(usize, u64),
    HeldLook(usize),
    HeldSync(usize),
    Drop(usize),
}

const NAMES: &[&str] = &["a", "b", "c", "dir", "low1", "low2", "e\u{e9}"];

/// A path: half of them one that was there at the last look.
fn path(r: &mut Rng, known: &[String]) -> String {
    if !known.is_empty() && r.below(2) == 0 {
        return known[r.below(known.len() as u64) as usize].clone();
    }
    let depth = [1, 1, 2, 2, 2, 3, 3, 4][r.below(8) as usize];
    (0..depth)
        .map(|_| r.pick(NAMES))
        .collect::<Vec<_>>()
        .join("/")
}

/// Offsets that like block edges.
fn offset(r: &mut Rng) -> u64 {
    match r.below(6) {
        0 => 0,
        1 => r.below(10) * 4096,
        2 => (r.below(9) + 1) * 4096 - 1 - r.below(3),
        3 => r.below(200),
        _ => r.below(40_000),
    }
}

fn length(r: &mut Rng) -> usize {
    (match r.below(4) {
        0 => r.below(16) + 1,
        1 => 4096 * (r.below(4) + 1),
        _ => r.below(12_000) + 1,
    }) as usize
}

/// The next operation.
pub(crate) fn make(r: &mut Rng, known: &[String]) -> Op {
    let modes = [
        0o644, 0o755, 0o600, 0o4755, 0o2755, 0o2644, 0o777, 0o6711, 0, 0o1777,
    ];
    let mode = modes[r.below(10) as usize];
    let slot = r.below(6) as usize;
    let byte = r.below(255) as u8 + 1;
    let xattr = ["user.a", "user.bb", "user.rless"][r.below(3) as usize].to_owned();
    match r.below(60) {
        0..=4 => Op::Mkdir(path(r, known), mode),
        5..=6 => Op::Rmdir(path(r, known)),
        7..=12 => Op::Create(path(r, known), mode, r.below(3) == 0),
        13..=17 => Op::Write(path(r, known), offset(r), length(r), byte),
        18..=19 => Op::Append(path(r, known), length(r), byte),
        20..=22 => Op::Truncate(path(r, known), offset(r)),
        23..=26 => Op::Unlink(path(r, known)),
        27..=32 => Op::Rename(
            path(r, known),
            path(r, known),
            [0, 0, 0, 1, 2, 2][r.below(6) as usize],
        ),
        33..=35 => Op::Link(path(r, known), path(r, known)),
        36..=37 => Op::Symlink(path(r, known), path(r, known)),
        38 => Op::Mknod(path(r, known), mode),
        39..=40 => Op::Chmod(path(r, known), mode),
        41..=42 => Op::Chown(path(r, known), r.below(5) as u32, r.below(5) as u32),
        43 => Op::Utimes(
            path(r, known),
            r.below(1 << 32) as i64 - (1 << 31),
            r.below(1_000_000_000) as i64,
        ),
        44 => Op::SetXattr(path(r, known), xattr, r.below(60) as usize),
        45 => Op::RemoveXattr(path(r, known), xattr),
        46..=47 => Op::Fallocate(
            path(r, known),
            [0, 1, 3, 3, 0x10, 0x11][r.below(6) as usize],
            offset(r),
            length(r) as u64,
        ),
        48..=50 => Op::Look(path(r, known)),
        51 => Op::List(path(r, known)),
        52..=53 => Op::Hold(slot, path(r, known)),
        54..=55 => Op::HeldWrite(slot, offset(r), length(r), byte),
        56 => Op::HeldTruncate(slot, offset(r)),
        57 => Op::HeldLook(slot),
        58 => Op::HeldSync(slot),
        _ => Op::Drop(slot),
    }
}

/// A tree that operations are done in.
pub(crate) struct Actor {
    root: PathBuf,
    held: Vec<Option<File>>,
}

type Told = Result<String, Errno>;

fn io(e: &std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(0))
}

fn done<T>(r: nix::Result<T>) -> Told {
    r.map(|_| String::new())
}

fn pattern(len: usize, byte: u8) -> Vec<u8> {
    (0..len).map(|i| byte ^ (i / 7) as u8).collect()
}

/// Content as length and hash.
fn content(file: &File) -> Told {
    let mut bytes = Vec::new();
    let mut buf = vec![0; 1 << 16];
    loop {
        match file.read_at(&mut buf, bytes.len() as u64) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&buf[..n]),
            Err(e) => return Err(io(&e)),
        }
    }
    Ok(format!(
        "{} bytes {:08x}",
        bytes.len(),
        crc32fast::hash(&bytes)
    ))
}

impl Actor {
    pub(crate) fn new(root: &Path) -> Actor {
        Actor {
            root: root.to_owned(),
            held: (0..6).map(|_| None).collect(),
        }
    }

    /// Closes every held file.
    pub(crate) fn release(&mut self) {
        self.held.iter_mut().for_each(|h| *h = None);
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn file(&self, path: &str, flags: OFlag) -> Result<File, Errno> {
        open(
            &self.at(path),
            flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK,
            Mode::empty(),
        )
        .map(File::from)
    }

    /// Does the operation; tells what it answered.
    pub(crate) fn act(&mut self, op: &Op) -> String {
        match self.try_act(op) {
            Ok(told) => format!("ok {told}"),
            Err(e) => format!("{e:?}"),
        }
    }

    fn try_act(&mut self, op: &Op) -> Told {
        let mode = |m: u32| Mode::from_bits_truncate(m);
        match op {
            Op::Mkdir(p, m) => done(mkdirat(AT_FDCWD, &self.at(p), mode(*m))),
            Op::Rmdir(p) => std::fs::remove_dir(self.at(p))
                .map(|()| String::new())
                .map_err(|e| io(&e)),
            Op::Create(p, m, excl) => {
                let mut flags =
                    OFlag::O_CREAT | OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
                if *excl {
                    flags |= OFlag::O_EXCL;
                }
                done(open(&self.at(p), flags, mode(*m)))
            }
            Op::Write(p, off, len, b) => {
                let f = self.file(p, OFlag::O_WRONLY)?;
                f.write_at(&pattern(*len, *b), *off)
                    .map(|n| n.to_string())
                    .map_err(|e| io(&e))
            }
            Op::Append(p, len, b) => {
                let f = self.file(p, OFlag::O_WRONLY | OFlag::O_APPEND)?;
                done(nix::unistd::write(&f, &pattern(*len, *b)))
            }
            Op::Truncate(p, n) => done(nix::unistd::truncate(&self.at(p), *n as i64)),
            Op::Unlink(p) => done(unlink(&self.at(p))),
            Op::Rename(a, b, flags) => {
                let flags = RenameFlags::from_bits_truncate(*flags);
                done(renameat2(
                    AT_FDCWD,
                    &self.at(a),
                    AT_FDCWD,
                    &self.at(b),
                    flags,
                ))
            }
            Op::Link(a, b) => done(linkat(
                AT_FDCWD,
                &self.at(a),
                AT_FDCWD,
                &self.at(b),
                AtFlags::empty(),
            )),
            Op::Symlink(t, p) => done(symlinkat(t.as_str(), AT_FDCWD, &self.at(p))),
            Op::Mknod(p, m) => done(mknod(&self.at(p), SFlag::S_IFIFO, mode(*m), 0)),
            Op::Chmod(p, m) => std::fs::set_permissions(
                self.at(p),
                std::os::unix::fs::PermissionsExt::from_mode(*m),
            )
            .map(|()| String::new())
            .map_err(|e| io(&e)),
            Op::Chown(p, u, g) => {
                // 4 stands for "as it is".
                let uid = (*u != 4).then(|| Uid::from_raw(*u));
                let gid = (*g != 4).then(|| Gid::from_raw(*g));
                done(fchownat(
                    AT_FDCWD,
                    &self.at(p),
                    uid,
                    gid,
                    AtFlags::AT_SYMLINK_NOFOLLOW,
                ))
            }
            Op::Utimes(p, s, ns) => {
                let t = TimeSpec::new(*s, *ns);
                done(utimensat(
                    AT_FDCWD,
                    &self.at(p),
                    &t,
                    &t,
                    UtimensatFlags::NoFollowSymlink,
                ))?;
                let st = lstat(&self.at(p))?;
                Ok(format!(
                    "{}.{} {}.{}",
                    st.st_mtime, st.st_mtime_nsec, st.st_atime, st.st_atime_nsec
                ))
            }
            Op::Fallocate(p, m, off, len) => {
                let f = self.file(p, OFlag::O_WRONLY)?;
                done(fallocate(
                    &f,
                    FallocateFlags::from_bits_truncate(*m as i32),
                    *off as i64,
                    *len as i64,
                ))
            }
            Op::SetXattr(p, n, len) => {
                xattr(&["-h", "-n", n, "-v", &"x".repeat(*len)], &self.at(p))
            }
            Op::RemoveXattr(p, n) => xattr(&["-h", "-x", n], &self.at(p)),
            Op::Look(p) => self.look(&self.at(p)),
            Op::List(p) => self.list(&self.at(p)),
            _ => self.act_held(op),
        }
    }

    fn act_held(&mut self, op: &Op) -> Told {
        let held = |held: &Vec<Option<File>>, i: usize| -> Result<File, Errno> {
            held[i]
                .as_ref()
                .ok_or(Errno::EBADF)?
                .try_clone()
                .map_err(|e| io(&e))
        };
        match op {
            Op::Hold(i, p) => {
                self.held[*i] = None;
                let f = self.file(p, OFlag::O_RDWR)?;
                if !f.metadata().map_err(|e| io(&e))?.is_file() {
                    return Ok("no file".into());
                }
                self.held[*i] = Some(f);
                Ok(String::new())
            }
            Op::HeldWrite(i, off, len, b) => {
                let f = held(&self.held, *i)?;
                f.write_at(&pattern(*len, *b), *off)
                    .map(|n| n.to_string())
                    .map_err(|e| io(&e))
            }
            Op::HeldTruncate(i, n) => done(ftruncate(&held(&self.held, *i)?, *n as i64)),
            Op::HeldLook(i) => {
                let f = held(&self.held, *i)?;
                let st = fstat(&f)?;
                Ok(format!(
                    "{:o} {} {} {}",
                    st.st_mode,
                    st.st_nlink,
                    st.st_size,
                    content(&f)?
                ))
            }
            Op::HeldSync(i) => held(&self.held, *i)?
                .sync_all()
                .map(|()| String::new())
                .map_err(|e| io(&e)),
            Op::Drop(i) => {
                self.held[*i] = None;
                Ok(String::new())
            }
            _ => Ok(String::new()),
        }
    }

    /// Everything about one inode that two file systems must agree on.
    pub(crate) fn look(&self, path: &Path) -> Told {
        let st = lstat(path)?;
        let mut told = format!(
            "{:o} {}:{} links {}",
            st.st_mode, st.st_uid, st.st_gid, st.st_nlink
        );
        match st.st_mode & nix::libc::S_IFMT {
            nix::libc::S_IFREG => {
                let f = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                    .map(File::from)?;
                let _ = write!(told, " size {} {}", st.st_size, content(&f)?);
                holes(&f, st.st_size)?;
            }
            nix::libc::S_IFLNK => {
                let _ = write!(
                    told,
                    " size {} -> {}",
                    st.st_size,
                    readlink(path)?.display()
                );
            }
            _ => {}
        }
        Ok(told)
    }

    fn list(&self, path: &Path) -> Told {
        let mut names = Vec::new();
        for e in std::fs::read_dir(path).map_err(|e| io(&e))? {
            let e = e.map_err(|e| io(&e))?;
            let kind = e.file_type().map_err(|e| io(&e))?;
            names.push(format!(
                "{:?}{}",
                e.file_name(),
                if kind.is_dir() { "/" } else { "" }
            ));
        }
        names.sort();
        Ok(names.join(" "))
    }

    /// The whole tree, a line an inode, hard links as such; attributes by getfattr.
    pub(crate) fn tree(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut seen: std::collections::BTreeMap<u64, String> = std::collections::BTreeMap::new();
        self.walk(&self.root.clone(), &mut out, &mut seen);
        out
    }

    fn walk(
        &self,
        dir: &Path,
        out: &mut Vec<String>,
        seen: &mut std::collections::BTreeMap<u64, String>,
    ) {
        let mut names: Vec<_> = match std::fs::read_dir(dir) {
            Ok(list) => list.filter_map(Result::ok).map(|e| e.path()).collect(),
            Err(e) => {
                out.push(format!("{}: {e}", dir.display()));
                return;
            }
        };
        names.sort();
        for path in names {
            let short = path
                .strip_prefix(&self.root)
                .unwrap_or(&path)
                .display()
                .to_string();
            let line = match self.look(&path) {
                Ok(told) => told,
                Err(e) => format!("{e:?}"),
            };
            let mut line = format!("{short}: {line}");
            if let Ok(st) = lstat(&path) {
                let first = seen.entry(st.st_ino).or_insert_with(|| short.clone());
                if *first != short {
                    let _ = write!(line, " = {first}");
                }
                out.push(line);
                if st.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR {
                    self.walk(&path, out, seen);
                }
            }
        }
    }

    /// Every path of the tree.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut todo = vec![self.root.clone()];
        let mut out = Vec::new();
        while let Some(dir) = todo.pop() {
            for e in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = e.path();
                if e.file_type().is_ok_and(|t| t.is_dir()) {
                    todo.push(path.clone());
                }
                if let Some(short) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) {
                    out.push(short.to_owned());
                }
            }
        }
        out.sort();
        out
    }

    /// Extended attributes of the whole tree.
    pub(crate) fn xattrs(&self) -> String {
        let run = std::process::Command::new("getfattr")
            .args(["-R", "-P", "-h", "-d", "-m", "."])
            .arg(".")
            .current_dir(&self.root)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout).into_owned();
        let mut parts: Vec<&str> = text.split("\n\n").collect();
        parts.sort_unstable();
        parts.join("\n\n")
    }
}

/// SEEK_DATA and SEEK_HOLE alternate, never go back, and holes read as zeros.
fn holes(f: &File, size: i64) -> Result<(), Errno> {
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
        at = end;
    }
    Ok(())
}

/// Attributes are set through setfattr: nix has no wrapper, and it tells the errno as text.
fn xattr(args: &[&str], path: &Path) -> Told {
    let run = std::process::Command::new("setfattr")
        .args(args)
        .arg(path)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stderr);
    Ok(text.trim().rsplit(": ").next().unwrap_or("").to_owned())
}
