//! `cp`: files between a container and the host, two containers, or a tar stream.
//!
//! Everything goes as a tar from one side to the other, so that there is one way in and one way out:
//!
//! | side | read and written by |
//! |---|---|
//! | the host | this process, from descriptors of directories ([`files`]) |
//! | a container that runs | a child that has joined its user and mount namespaces ([`visit`]), with the same code: it sees volumes and whatever else is mounted, and nothing but the pipe leads out |
//! | one that does not | this process, in its files themselves ([`tree`]): nothing is mounted; but where a path leads into a volume or a bind mount, a child as above, in namespaces of its own with what the container mounts ([`visit::Apart`]) |
//!
//! As podman, a directory that is copied from or to a container that does not run is one or the other: what is mounted further down
//! in it is not looked for. And a name is resolved first, on the container's side: what is copied onto a link goes where it leads.
//!
//! [`visit`]: crate::runtime::visit
//! [`visit::Apart`]: crate::runtime::visit::Apart
//!
//! The host's side never looks up a name that came from the container but in directories it has opened itself, and never through
//! a link. What is copied into a container belongs to the user it runs as (`--archive`), or to root.

mod child;
mod files;
mod tree;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context;

use self::child::{Child, Inside, Mounted};
use self::files::{Naming, Unpack};
use super::record::{Containers, Record};
use super::stop::{elsewhere, improper};
use super::top;
use super::view::View;
use crate::error::{self, Result, failed, usage};
use crate::image::unpack;
use crate::store::archive::{self, What};
use crate::store::tarball::{self, Reader};
use crate::store::{Store, files as metadata};

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
    Ended(Box<Ended>),
}

/// A container that does not run.
struct Ended {
    view: View,
    mounted: Mounted,
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
        return from.pack_apart(&source.path, &naming, &mut std::io::stdout());
    }
    let (dir, top) = target(to, is_dir, base, contents)?;
    let naming = Naming {
        top,
        plain: matches!(from, Side::Host(_)),
    };
    through_pipe((from, &source.path), &naming, (to, &dir), how)
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
        let view = View::of(store, containers, &record.id, true)?;
        let mounted = Mounted::of(containers, &record.id, &view.cow)?;
        Access::Ended(Box::new(Ended { view, mounted }))
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
        match &self.place()?.access {
            Access::Live(pidfd) => Some(pidfd),
            Access::Ended(_) => None,
        }
    }

    fn ended_one(&self) -> Option<&Ended> {
        match &self.place()?.access {
            Access::Live(_) => None,
            Access::Ended(ended) => Some(ended),
        }
    }

    fn place(&self) -> Option<&Place> {
        match self {
            Side::Container { place, .. } => Some(place),
            _ => None,
        }
    }

    /// The container's files where they are this process's to read and write: it does not run, and `path` is none of a mount.
    fn view(&self, path: &Path) -> Option<&View> {
        let ended = self.ended_one()?;
        (!ended.mounted.covers(path)).then_some(&ended.view)
    }

    /// Where a child has to go for `path`.
    fn inside(&self, path: &Path) -> Option<Inside<'_>> {
        match &self.place()?.access {
            Access::Live(pidfd) => Some(Inside::Container(pidfd)),
            Access::Ended(ended) if ended.mounted.covers(path) => {
                Some(Inside::Mounts(&ended.mounted))
            }
            Access::Ended(_) => None,
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
        let Some(place) = self.place() else {
            let (path, dir) = (path.to_owned(), directory(path)?);
            return Ok(Found { path, dir });
        };
        let mut found = Found {
            path: path.to_owned(),
            dir: None,
        };
        // Links lead from a container's files into its mounts and back.
        for _ in 0..LINKS {
            if let Access::Ended(ended) = &place.access {
                let (path, stat) = ended
                    .view
                    .cow
                    .resolve(&found.path, ended.mounted.targets())?;
                let dir = stat.map(|s| s.is_dir());
                found = Found { path, dir };
            }
            let Some(inside) = self.inside(&found.path) else {
                break;
            };
            let look = || resolve(&found.path).map(|f| (f.path.into_os_string().into_vec(), f.dir));
            let (path, dir) = Child::start(Some(inside), look)?.wait()?;
            let before = found.path;
            let path = OsString::from_vec(path).into();
            found = Found { path, dir };
            if dir.is_some() || found.path == before || self.live().is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// Writes what is at a path (of [`Side::look`]) as a tar, in this process.
    fn pack(&self, path: &Path, naming: &Naming, out: &mut dyn Write) -> Result<()> {
        let Some(view) = self.view(path) else {
            return files::pack(path, naming, out);
        };
        let stat = view.cow.stat(path)?.ok_or_else(|| self.missing())?;
        let all = view.cow.below(stat.ino, &naming.top)?;
        for what in archive::write(&view.cow, &all, What::Tree, out)? {
            log::warn!("{what}");
        }
        Ok(())
    }

    /// The same, by a child where this process may not look.
    fn pack_apart(&self, path: &Path, naming: &Naming, out: &mut dyn Write) -> Result<()> {
        match self.inside(path) {
            None => self.pack(path, naming, out),
            inside => Child::start(inside, || self.pack(path, naming, out))?.wait(),
        }
    }

    /// Unpacks a tar into a directory, in this process.
    fn unpack(&self, dir: &Path, how: Unpack, input: &mut dyn BufRead) -> Result<()> {
        let mut reader = Reader::new(input, u64::MAX);
        let done = match self.view(dir) {
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
        match self.inside(dir) {
            None => self.unpack(dir, how, input),
            inside => Child::start(inside, || self.unpack(dir, how, input))?.wait(),
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
            let above = to.look_at(dir)?;
            if found.is_none() && (slash || above.dir != Some(true)) {
                return Err(to.missing());
            }
            Ok((above.path, name.as_bytes().to_vec()))
        }
    }
}

/// A tar, compressed or not, from standard input.
fn from_stream(to: &Side, how: Unpack) -> Result<()> {
    let there = to.look()?;
    if there.dir != Some(true) {
        return Err(failed("destination must be a directory when copying from stdin").into());
    }
    let dir = &*there.path;
    let input = unpack::open(std::io::stdin()).context("reading standard input")?;
    to.unpack_apart(dir, how, &mut BufReader::with_capacity(1 << 16, input))
}

fn through_pipe(
    (from, source): (&Side, &Path),
    naming: &Naming,
    (to, dir): (&Side, &Path),
    how: Unpack,
) -> Result<()> {
    let (read, write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("making a pipe")?;
    let (mut read, mut out) = (Some(File::from(read)), File::from(write));
    let packer = Child::start(from.inside(source), || {
        // It would wait for itself to read, when nobody else does any more.
        drop(read.take());
        from.pack(source, naming, &mut out)
    })?;
    drop(out);
    let read = read.context("the pipe's end")?;
    let mut input = BufReader::with_capacity(1 << 16, read);
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
