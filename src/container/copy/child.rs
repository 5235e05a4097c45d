//! Children that look where this process may not: in a container that runs, or among the mounts of one that does not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use oci_spec::runtime::Mount;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::container::image::{kind_number, kind_of};
use crate::container::make::Stored;
use crate::container::record::Containers;
use crate::container::shared;
use crate::container::spec::mounts::{Resolved, user_mount};
use crate::cow::Cow;
use crate::error::{self, Fault, Result, failed};
use crate::runtime::idmap::{self, Mapping};
use crate::runtime::visit;
use crate::sys::supervise;

/// Where a child goes.
#[derive(Clone, Copy)]
pub(super) enum Inside<'a> {
    /// Into the container whose first process this is a pidfd of.
    Container(&'a OwnedFd),
    /// Among what a container that does not run mounts.
    Mounts(&'a Mounted),
}

/// The volumes and bind mounts of a container that does not run.
pub(super) struct Mounted {
    /// Those whose source is there, as they are mounted.
    binds: Vec<Mount>,
    /// Where all of them are, without links.
    targets: Vec<PathBuf>,
    /// Of the container; what keeps it from being started is told when it is needed.
    mapping: Result<Mapping>,
}

impl Mounted {
    /// Of the container `id`, whose files are those of `cow`.
    pub(super) fn of(containers: &Containers, id: &str, cow: &Cow) -> Result<Mounted> {
        let (mut mounts, mapping) = match Stored::read(&containers.place(id).dir) {
            Ok(stored) => (stored.mounts, shared::mapping(containers, &stored.request)),
            Err(e) => (Vec::<Resolved>::new(), Err(e)),
        };
        mounts.retain(|m| m.source.is_some());
        mounts.sort_by_key(|m| m.target.matches('/').count());
        let mut targets: Vec<PathBuf> = Vec::new();
        for mount in &mut mounts {
            // What the image has there comes into an empty volume at a start.
            mount.copy_up = false;
            let (target, _) = cow.resolve(Path::new(&mount.target), &targets)?;
            // Where there are only mounts there are no links to them.
            if let Some(plain) = target.to_str() {
                plain.clone_into(&mut mount.target);
            }
            targets.push(target);
        }
        mounts.retain(|m| m.source.as_ref().is_some_and(|s| s.exists()));
        let binds = mounts.iter().map(user_mount).collect();
        Ok(Mounted {
            binds,
            targets,
            mapping,
        })
    }

    /// Where a walk through the container's own files ends.
    pub(super) fn targets(&self) -> &[PathBuf] {
        &self.targets
    }

    /// Whether `path`, which has no links in it, is a mount's or below one.
    pub(super) fn covers(&self, path: &Path) -> bool {
        self.targets.iter().any(|target| path.starts_with(target))
    }

    /// Writes the id maps of the child `pid` when it asks for them.
    fn let_in(&self, pid: Pid, mut child: UnixStream) -> Result<()> {
        // One that ends before tells why.
        if child.read_exact(&mut [0]).is_ok() {
            let mapping = self.mapping.as_ref();
            let mapping = mapping.map_err(|e| failed(format!("entering its volumes: {e:#}")))?;
            idmap::write(pid, mapping)?;
            let _ = child.write_all(b".");
        }
        Ok(())
    }

    /// What the child does.
    fn enter(&self, mut parent: UnixStream) -> Result<()> {
        let apart = visit::Apart::new(&self.binds)?;
        let mapped = parent
            .write_all(b".")
            .and_then(|()| parent.read_exact(&mut [0]));
        mapped.context("waiting for the id maps")?;
        apart.enter()
    }
}

/// A child of this process, and what it has to tell.
pub(super) struct Child<T> {
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
    /// Forks; the child goes `inside`, if that is said, and does `act`.
    pub(super) fn start(
        inside: Option<Inside<'_>>,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<Child<T>> {
        let (read, write) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("making a pipe")?;
        let (ours, theirs) = UnixStream::pair().context("making a socket")?;
        if let Some(pid) = supervise::fork().context("forking")? {
            drop(theirs);
            let child = Child {
                pid,
                told: File::from(read),
                _what: std::marker::PhantomData,
            };
            if let Some(Inside::Mounts(mounted)) = inside
                && let Err(e) = mounted.let_in(pid, ours)
            {
                let _ = child.wait();
                return Err(e);
            }
            return Ok(child);
        }
        drop((read, ours));
        let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
        let entered = match inside {
            None => Ok(()),
            Some(Inside::Container(pidfd)) => visit::enter(pidfd),
            Some(Inside::Mounts(mounted)) => mounted.enter(theirs),
        };
        let result = entered.and_then(|()| act());
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
    pub(super) fn wait(mut self) -> Result<T> {
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
