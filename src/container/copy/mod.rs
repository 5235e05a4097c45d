//! `cp`: files between a container and the host, two containers, or a tar stream.
//!
//! Everything goes as a tar from one side to the other, so that there is one way in and one way out:
//!
//! | side | read and written by |
//! |---|---|
//! | the host | this process, from descriptors of directories ([`files`]) |
//! | a container that runs | a child that has joined its user and mount namespaces ([`crate::runtime::visit`]), with the same code: it sees volumes and whatever else is mounted, and nothing but the pipe leads out |
//! | one that does not | this process, in its files themselves ([`tree`]): nothing is mounted |
//!
//! The host's side never looks up a name that came from the container but in directories it has opened itself, and never through
//! a link. What is copied into a container belongs to the user it runs as (`--archive`), or to root.

mod files;
mod tree;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::files::{Naming, Unpack};
use super::image::{kind_number, kind_of};
use super::record::{Containers, Record};
use super::stop::{elsewhere, improper};
use super::top;
use super::view::View;
use crate::error::{self, Fault, Result, failed, usage};
use crate::runtime::visit;
use crate::store::archive::{self, What};
use crate::store::tarball::{self, Reader};
use crate::store::{Store, files as metadata};
use crate::sys::supervise;

/// Symbolic links followed, as in the kernel.
const LINKS: usize = 40;

/// How to copy.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// `--archive`: what is copied into a container belongs to its user; else to whom the source or the archive says.
    pub archive: bool,
    /// `--overwrite`: directories and other things may replace each other.
    pub overwrite: bool,
}

/// One end of a copy.
enum Side {
    Stream,
    Host(PathBuf),
    Container {
        name: String,
        place: Rc<Place>,
        path: PathBuf,
    },
}

/// What a path leads to.
struct Found {
    /// In a container: without symbolic links, so that what is copied onto a link is written where it leads, and named by
    /// that. On the host as it was given: a link there is replaced. (Both as podman.)
    path: PathBuf,
    /// Whether it is a directory; `None`: nothing is there.
    dir: Option<bool>,
}

/// A container's files.
struct Place {
    id: String,
    access: Access,
    /// Whom its first process runs as.
    owner: (u32, u32),
}

enum Access {
    /// pidfd of its first process.
    Live(OwnedFd),
    Ended(Box<View>),
}

/// Copies `from` to `to`: `CONTAINER:PATH`, a path of the host, or `-`.
///
/// # Errors
/// Neither side is a container; something is missing, or is not what the other side needs; the files cannot be read or written.
pub fn copy(store: &Store, from: &OsStr, to: &OsStr, request: Request) -> Result<()> {
    let (from_text, to_text) = (split(from), split(to));
    if from_text.0.is_none() && to_text.0.is_none() {
        return Err(usage("name or ID cannot be empty").into());
    }
    let from = side(store, from_text, None)?;
    let other = match &from {
        Side::Container { place, .. } => Some(place),
        _ => None,
    };
    let to = side(store, to_text, other)?;
    transfer(&from, &to, request).map_err(|e| {
        // The reason of whatever the system said then.
        let containers = Containers::of(store);
        let ended = [&from, &to]
            .into_iter()
            .find_map(|side| side.ended(&containers));
        match ended {
            Some(id) => e.context(failed(format!("container {id} ended while it was copied"))),
            None => e,
        }
    })
}

fn transfer(from: &Side, to: &Side, request: Request) -> Result<()> {
    let how = Unpack {
        owner: match to {
            Side::Container { place, .. } if request.archive => Some(place.owner),
            _ => None,
        },
        keep: matches!(to, Side::Container { .. }),
        overwrite: request.overwrite,
    };
    if let Side::Stream = from {
        return from_stream(to, how);
    }
    let source = from.look()?;
    let is_dir = source.dir.ok_or_else(|| from.missing())?;
    let (_, contents) = base(from.path());
    let (base, _) = base(&source.path);
    if let Side::Stream = to {
        let naming = Naming {
            top: if contents { Vec::new() } else { base },
            plain: false,
        };
        return from.pack_apart(&naming, &mut std::io::stdout());
    }
    let (dir, top) = target(to, is_dir, base, contents)?;
    let naming = Naming {
        top,
        plain: matches!(from, Side::Host(_)),
    };
    through_pipe(from, &naming, to, &dir, how)
}

/// Container and path; no container: a path of the host.
fn split(text: &OsStr) -> (Option<&str>, &Path) {
    let bytes = text.as_bytes();
    let colon = bytes.iter().position(|b| *b == b':').filter(|at| *at > 0);
    let name = colon.and_then(|at| std::str::from_utf8(&bytes[..at]).ok());
    match (name, colon) {
        (Some(name), Some(at)) if !name.starts_with(['/', '.']) => {
            (Some(name), Path::new(OsStr::from_bytes(&bytes[at + 1..])))
        }
        _ => (None, Path::new(text)),
    }
}

fn side(
    store: &Store,
    (name, path): (Option<&str>, &Path),
    other: Option<&Rc<Place>>,
) -> Result<Side> {
    let Some(name) = name else {
        return Ok(match path.as_os_str().as_bytes() {
            b"-" => Side::Stream,
            _ => Side::Host(path.into()),
        });
    };
    let containers = Containers::of(store);
    let record = containers.find(name).map_err(|e| match error::kind(&e) {
        error::Kind::NoSuchObject => failed(format!("container {name:?} does not exist")).into(),
        _ => e,
    })?;
    let place = match other.filter(|o| o.id == record.id) {
        Some(same) => Rc::clone(same),
        None => Rc::new(place(store, &containers, &record)?),
    };
    Ok(Side::Container {
        name: name.to_owned(),
        place,
        path: Path::new("/").join(path),
    })
}

fn place(store: &Store, containers: &Containers, record: &Record) -> Result<Place> {
    elsewhere(record)?;
    let config: Option<serde_json::Value> =
        metadata::read_json(&containers.place(&record.id).dir.join("config.json"))?;
    let id = |key: &str| {
        let found = config.as_ref()?.pointer(&format!("/process/user/{key}"))?;
        u32::try_from(found.as_u64()?).ok()
    };
    let owner = (id("uid").unwrap_or(0), id("gid").unwrap_or(0));
    let access = if record.state.live() {
        let running = || improper(record, "can only copy from and to running containers");
        let init = record.init.ok_or_else(running)?;
        Access::Live(top::target(init).ok_or_else(running)?)
    } else {
        Access::Ended(Box::new(View::of(store, containers, &record.id, true)?))
    };
    Ok(Place {
        id: record.id.clone(),
        access,
        owner,
    })
}

impl Side {
    /// The container's id, if it ran when this began and does not any more.
    fn ended(&self, containers: &Containers) -> Option<&str> {
        let (Side::Container { place, .. }, Some(_)) = (self, self.live()) else {
            return None;
        };
        let now = containers.load(&place.id).ok()?;
        now.is_none_or(|r| !r.state.live()).then_some(&*place.id)
    }

    fn path(&self) -> &Path {
        match self {
            Side::Stream => Path::new("-"),
            Side::Host(path) | Side::Container { path, .. } => path,
        }
    }

    fn live(&self) -> Option<&OwnedFd> {
        match self {
            Side::Container { place, .. } => match &place.access {
                Access::Live(pidfd) => Some(pidfd),
                Access::Ended(_) => None,
            },
            _ => None,
        }
    }

    fn view(&self) -> Option<&View> {
        match self {
            Side::Container { place, .. } => match &place.access {
                Access::Live(_) => None,
                Access::Ended(view) => Some(view),
            },
            _ => None,
        }
    }

    fn missing(&self) -> anyhow::Error {
        self.not_found(self.path())
    }

    fn not_found(&self, path: &Path) -> anyhow::Error {
        let place = match self {
            Side::Container { name, .. } => format!("on container {name}"),
            _ => "on the host".to_owned(),
        };
        let path = path.to_string_lossy();
        failed(format!(
            "{path:?} could not be found {place}: no such file or directory"
        ))
        .into()
    }

    /// What the path leads to.
    fn look(&self) -> Result<Found> {
        self.look_at(self.path())
    }

    fn look_at(&self, path: &Path) -> Result<Found> {
        if let Some(view) = self.view() {
            let (path, stat) = view.cow.resolve(path)?;
            let dir = stat.map(|s| s.is_dir());
            return Ok(Found { path, dir });
        }
        let Some(pidfd) = self.live() else {
            let (path, dir) = (path.to_owned(), directory(path)?);
            return Ok(Found { path, dir });
        };
        let look = || resolve(path).map(|f| (f.path.into_os_string().into_vec(), f.dir));
        let (path, dir) = Child::start(Some(pidfd), look)?.wait()?;
        let path = OsString::from_vec(path).into();
        Ok(Found { path, dir })
    }

    /// Writes what the path leads to as a tar, in this process.
    fn pack(&self, naming: &Naming, out: &mut dyn Write) -> Result<()> {
        let Some(view) = self.view() else {
            return files::pack(self.path(), naming, out);
        };
        let stat = view.cow.stat(self.path())?.ok_or_else(|| self.missing())?;
        let all = view.cow.below(stat.ino, &naming.top)?;
        for what in archive::write(&view.cow, &all, What::Tree, out)? {
            log::warn!("{what}");
        }
        Ok(())
    }

    /// The same, by a child where this process may not look.
    fn pack_apart(&self, naming: &Naming, out: &mut dyn Write) -> Result<()> {
        match self.live() {
            Some(pidfd) => Child::start(Some(pidfd), || self.pack(naming, out))?.wait(),
            None => self.pack(naming, out),
        }
    }

    /// Unpacks a tar into a directory, in this process.
    fn unpack(&self, dir: &Path, how: Unpack, input: &mut dyn BufRead) -> Result<()> {
        let mut reader = Reader::new(input, u64::MAX);
        let done = match self.view() {
            Some(view) => tree::unpack(&view.cow, dir, how, &mut reader),
            None => files::unpack(dir, how, &mut reader),
        };
        // Of the other sides' streams it is never true.
        done.map_err(|e| match e.downcast_ref() {
            Some(tarball::Error::Invalid { .. }) => {
                e.context("source must be a (compressed) tar archive when copying from stdin")
            }
            Some(tarball::Error::Truncated) => {
                failed("source must be a (compressed) tar archive when copying from stdin").into()
            }
            _ => e,
        })
    }

    fn unpack_apart(&self, dir: &Path, how: Unpack, input: &mut dyn BufRead) -> Result<()> {
        match self.live() {
            Some(pidfd) => Child::start(Some(pidfd), || self.unpack(dir, how, input))?.wait(),
            None => self.unpack(dir, how, input),
        }
    }
}

/// Whether what the path leads to is a directory; `None`: it leads nowhere.
fn directory(path: &Path) -> Result<Option<bool>> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.is_dir())),
        Err(e) => match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(None),
            _ => Err(e).with_context(|| format!("looking at {}", path.display())),
        },
    }
}

/// What a path of the container this process is in leads to, as [`crate::cow::Cow::resolve`].
fn resolve(path: &Path) -> Result<Found> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let dir = directory(&path)?;
        if dir.is_some() {
            let what = || format!("looking at {}", path.display());
            let path = std::fs::canonicalize(&path).with_context(what)?;
            return Ok(Found { path, dir });
        }
        // A link to nothing is where a file would be made.
        match (path.parent(), std::fs::read_link(&path)) {
            (Some(above), Ok(target)) => path = above.join(target),
            _ => break,
        }
    }
    Ok(Found { path, dir: None })
}

/// The last name of a path; whether only the content of the directory it leads to is meant.
fn base(path: &Path) -> (Vec<u8>, bool) {
    let bytes = path.as_os_str().as_bytes();
    let dot = bytes == b"." || bytes.ends_with(b"/.");
    match path.file_name() {
        Some(name) if !dot => (name.as_bytes().to_vec(), false),
        _ => (Vec::new(), true),
    }
}

/// In which directory what is copied is put, and under which name (none: only its content).
fn target(
    to: &Side,
    source_is_dir: bool,
    base: Vec<u8>,
    contents: bool,
) -> Result<(PathBuf, Vec<u8>)> {
    let there = to.look()?;
    match there.dir {
        Some(true) if contents => Ok((there.path, Vec::new())),
        Some(true) => Ok((there.path, base)),
        Some(false) if source_is_dir => {
            Err(failed("destination must be a directory when copying a directory").into())
        }
        found => {
            let bytes = to.path().as_os_str().as_bytes();
            let (Some(dir), Some(name)) = (there.path.parent(), there.path.file_name()) else {
                return Err(to.missing());
            };
            let dir = if dir == Path::new("") {
                Path::new(".")
            } else {
                dir
            };
            let slash = bytes.ends_with(b"/") && !source_is_dir;
            if found.is_none() && (slash || to.look_at(dir)?.dir != Some(true)) {
                return Err(to.missing());
            }
            Ok((dir.to_owned(), name.as_bytes().to_vec()))
        }
    }
}

/// A tar, compressed or not, from standard input.
fn from_stream(to: &Side, how: Unpack) -> Result<()> {
    if to.look()?.dir != Some(true) {
        return Err(failed("destination must be a directory when copying from stdin").into());
    }
    let mut input = BufReader::with_capacity(1 << 16, std::io::stdin());
    let compressed = input.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    if compressed {
        let plain = flate2::bufread::MultiGzDecoder::new(input);
        to.unpack_apart(to.path(), how, &mut BufReader::new(plain))
    } else {
        to.unpack_apart(to.path(), how, &mut input)
    }
}

fn through_pipe(from: &Side, naming: &Naming, to: &Side, dir: &Path, how: Unpack) -> Result<()> {
    let (read, write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("making a pipe")?;
    let mut out = File::from(write);
    let packer = Child::start(from.live(), || from.pack(naming, &mut out))?;
    drop(out);
    let mut input = BufReader::with_capacity(1 << 16, File::from(read));
    let unpacked = to.unpack_apart(dir, how, &mut input);
    drop(input);
    let packed = packer.wait();
    match (packed, unpacked) {
        // Who could not write on had nobody to read, which has a reason of its own.
        (Err(e), Err(reason)) if is_broken_pipe(&e) => Err(reason),
        (Err(e), _) => Err(e),
        (Ok(()), unpacked) => unpacked,
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    format!("{e:#}").contains("Broken pipe")
}

/// A child of this process, and what it has to tell.
struct Child<T> {
    pid: Pid,
    told: File,
    _what: std::marker::PhantomData<T>,
}

#[derive(serde::Deserialize, Serialize)]
enum Told<T> {
    Done(T),
    Failed(u8, String),
}

impl<T: Serialize + DeserializeOwned> Child<T> {
    /// Forks; the child enters the container of `pidfd`, if any, and does `act`.
    fn start(pidfd: Option<&OwnedFd>, act: impl FnOnce() -> Result<T>) -> Result<Child<T>> {
        let (read, write) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("making a pipe")?;
        if let Some(pid) = supervise::fork().context("forking")? {
            return Ok(Child {
                pid,
                told: File::from(read),
                _what: std::marker::PhantomData,
            });
        }
        drop(read);
        let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
        let result = pidfd.map_or(Ok(()), visit::enter).and_then(|()| act());
        let told = match result {
            Ok(value) => Told::Done(value),
            Err(e) => Told::Failed(kind_number(error::kind(&e)), format!("{e:#}")),
        };
        let text = serde_json::to_vec(&told).unwrap_or_default();
        // A parent that is gone needs no answer.
        let _ = File::from(write).write_all(&text);
        std::process::exit(0)
    }

    /// Waits for its end.
    fn wait(mut self) -> Result<T> {
        let mut text = Vec::new();
        let heard = self.told.read_to_end(&mut text);
        let _ = waitpid(self.pid, None);
        heard.context("waiting for the copying process")?;
        match serde_json::from_slice(&text) {
            Ok(Told::Done(value)) => Ok(value),
            Ok(Told::Failed(kind, text)) => Err(Fault::new(kind_of(kind), text).into()),
            Err(_) => Err(failed("the process that copied was killed").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_before_a_colon() {
        let is = |text: &str, name: Option<&str>, path: &str| {
            assert_eq!(split(OsStr::new(text)), (name, Path::new(path)), "{text}");
        };
        is("c:/x", Some("c"), "/x");
        is("c:x:y", Some("c"), "x:y");
        is("./a:b", None, "./a:b");
        is("/a:b", None, "/a:b");
        is(":x", None, ":x");
        is("plain", None, "plain");
        let odd = OsStr::from_bytes(b"c:/\xff");
        assert_eq!(
            split(odd),
            (Some("c"), Path::new(OsStr::from_bytes(b"/\xff")))
        );
        let odd = OsStr::from_bytes(b"\xff:x");
        assert_eq!(split(odd), (None, Path::new(odd)));
    }

    #[test]
    fn a_path_that_ends_in_a_dot_means_what_is_in_it() {
        let told = |p: &str| {
            let (name, contents) = base(Path::new(p));
            (String::from_utf8(name).unwrap(), contents)
        };
        assert_eq!(told("/a/b"), ("b".into(), false));
        assert_eq!(told("/a/b/"), ("b".into(), false));
        assert_eq!(told("/a/b/."), (String::new(), true));
        assert_eq!(told("."), (String::new(), true));
        assert_eq!(told("/"), (String::new(), true));
        assert_eq!(told(".."), (String::new(), true));
    }
}
