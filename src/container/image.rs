//! What a container's root comes from: an image of the store (pulled if need be) or a host directory.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::wait::waitpid;
use serde::{Deserialize, Serialize};

use super::events::{self, Action, Event};
use super::make::Stored;
use super::record::{Containers, Record};
use super::request::Request;
use super::spec::ImageSays;
use crate::cow::{IdView, Lower};
use crate::error::{self, Fault, Kind, Result, ResultExt, failed, usage};
use crate::runtime::idmap::{IdRange, Mapping};
use crate::store::files::Lock;
use crate::store::{Image, Progress, PullOptions, PullPolicy, Removed, Store};
use crate::sys::supervise;

/// A root file system to run over.
#[derive(Debug)]
pub struct Chosen {
    /// As `ps` shows it.
    pub name: String,
    /// For `--rmi`: what was asked for, a whole name, or the id where none was given.
    pub asked: Option<String>,
    /// Image id; `None` for a host directory.
    pub id: Option<String>,
    /// Lower layer.
    pub lower: Lower,
    /// The image's configuration.
    pub says: ImageSays,
    /// Keeps the image from being removed until the container's record names it.
    pub hold: Option<Lock>,
}

/// Finds the request's image, pulling it if its policy says so.
///
/// # Errors
/// No such image, a failed pull, an unreadable directory.
pub fn resolve(
    store: &Store,
    request: &Request,
    mapping: &Mapping,
    progress: &dyn Progress,
) -> Result<Chosen> {
    let directory = match request.image.strip_prefix("rootfs:") {
        Some(path) => Some(path),
        None => request.rootfs.then_some(request.image.as_str()),
    };
    if let Some(path) = directory {
        return host_directory(store, path, mapping);
    }
    let mut image = find_or_pull(store, request, progress)?;
    let mut hold = store.hold_image(&image.id)?;
    if !image.index.exists() {
        // Removed after it was found and before it was held.
        drop(hold);
        image = find_or_pull(store, request, progress)?;
        hold = store.hold_image(&image.id)?;
    }
    let asked = request.remove_image;
    let asked = asked.then(|| store.exact_name(&request.image, &image.id));
    Ok(Chosen {
        hold: Some(hold),
        name: shown_name(&image, &request.image),
        asked: asked.transpose()?,
        lower: lower(store, &image),
        says: ImageSays::of_image(&image),
        id: Some(image.id),
    })
}

/// The image of a container that is started again: the one it was made from, whatever has the name now.
///
/// # Errors
/// It is gone, or the directory is.
pub fn again(store: &Store, stored: &Stored, mapping: &Mapping) -> Result<Chosen> {
    let Some(id) = &stored.image_id else {
        let image = &stored.request.image;
        return host_directory(
            store,
            image.strip_prefix("rootfs:").unwrap_or(image),
            mapping,
        );
    };
    let gone = || Fault::new(Kind::NoSuchObject, format!("its image {id} is gone"));
    let hold = store.hold_image(id)?;
    let image = store.find_image(id)?.ok_or_else(gone)?;
    Ok(Chosen {
        hold: Some(hold),
        name: shown_name(&image, &stored.request.image),
        asked: None,
        lower: lower(store, &image),
        says: ImageSays::of_image(&image),
        id: Some(image.id),
    })
}

fn lower(store: &Store, image: &Image) -> Lower {
    Lower::Image {
        index: image.index.clone(),
        packs: store.packs_dir(),
    }
}

pub(super) fn host_directory(store: &Store, path: &str, mapping: &Mapping) -> Result<Chosen> {
    let doing = || {
        failed(format!(
            "using the directory {path:?} as a root file system"
        ))
    };
    if path.is_empty() {
        return Err(usage("rootfs: names no directory")
            .hint("as in rootfs:/ or rootfs:/srv/tree")
            .into());
    }
    let root = fs::canonicalize(path).fault(doing)?;
    if !root.is_dir() {
        return Err(anyhow::anyhow!("it is not a directory")).fault(doing);
    }
    let real = |p: &Path| fs::canonicalize(p).unwrap_or_else(|_| p.to_owned());
    let hide: Vec<PathBuf> = vec![real(store.data()), real(store.runtime())];
    Ok(Chosen {
        name: format!("rootfs:{}", root.display()),
        asked: None,
        id: None,
        lower: Lower::HostDir {
            root,
            hide,
            uids: view(&mapping.uids),
            gids: view(&mapping.gids),
        },
        says: ImageSays::default(),
        hold: None,
    })
}

fn view(ranges: &[IdRange]) -> IdView {
    IdView(
        ranges
            .iter()
            .map(|r| (r.container, r.host, r.count))
            .collect(),
    )
}

/// The name under which the user asked for it, written out; else any name, else the short id.
fn shown_name(image: &Image, asked: &str) -> String {
    let full = |name: &&String| name.as_str() == asked || name.contains(asked);
    let by_asked = image.names.iter().find(full).or(image.names.first());
    by_asked
        .cloned()
        .unwrap_or_else(|| image.id.chars().take(12).collect())
}

fn find_or_pull(store: &Store, request: &Request, progress: &dyn Progress) -> Result<Image> {
    let name = &request.image;
    let policy = request.pull.policy;
    // Another platform than the host's is the store's to tell: it knows what it has.
    if matches!(policy, PullPolicy::Missing | PullPolicy::Never) && request.pull.platform.is_none()
    {
        match store.find_image(name) {
            Ok(Some(image)) => return Ok(image),
            Ok(None) => {}
            // A damaged image is fetched again.
            Err(e) if policy == PullPolicy::Missing && error::kind(&e) == Kind::Failed => {}
            Err(e) => return Err(e),
        }
    }
    if policy == PullPolicy::Never && request.pull.platform.is_none() {
        return Err(
            Fault::new(Kind::NoSuchObject, format!("{name}: image not known"))
                .hint(format!(
                    "`rless pull {name}` fetches it; --pull=missing would have"
                ))
                .into(),
        );
    }
    let id = in_child(|| Ok(pull(store, name, &request.pull, progress)?.id))?;
    store
        .find_image(&id)?
        .with_context(|| format!("the image {name} was pulled and is gone again"))
}

/// Brings an image into the store, and tells of it.
///
/// # Errors
/// As [`Store::pull`].
pub fn pull(
    store: &Store,
    name: &str,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Image> {
    let result = store.pull(name, options, progress);
    let event = match &result {
        Ok(image) => Event::image(&image.id, name, Action::Pull),
        Err(e) => Event {
            error: format!("{e:#}"),
            ..Event::image("", name, Action::PullError)
        },
    };
    events::emit(store.data(), &[event]);
    result
}

/// Removes a name of an image, or an image, and tells of it.
///
/// # Errors
/// As [`Store::remove_image`].
pub fn remove(
    store: &Store,
    name: &str,
    force: bool,
    in_use: &dyn Fn(&str) -> Vec<String>,
) -> Result<Vec<Removed>> {
    let image = store.find_image(name).ok().flatten();
    let removed = store.remove_image(name, force, in_use)?;
    let id = image.map(|i| i.id).unwrap_or_default();
    tell_removed(store, &id, name, &removed);
    Ok(removed)
}

fn tell_removed(store: &Store, id: &str, name: &str, removed: &[Removed]) {
    let event = |gone: &Removed| match gone {
        Removed::Untagged(name) => Event::image(id, name, Action::Untag),
        Removed::Deleted(id) => Event::image(id, name, Action::Remove),
    };
    let events: Vec<Event> = removed.iter().map(event).collect();
    events::emit(store.data(), &events);
}

/// Removes what was asked for of the image of a container that has gone (`--rmi`), unless that means another image by now, or
/// another container uses it, or may.
///
/// # Errors
/// As [`remove`].
pub(super) fn remove_unused(containers: &Containers, record: &Record) -> Result<()> {
    let (Some(asked), Some(id)) = (&record.image_asked, &record.image_id) else {
        return Ok(());
    };
    let store = Store::open()?;
    let removed = store.remove_known(asked, id, &|id| users(containers, id))?;
    tell_removed(&store, id, asked, &removed);
    Ok(())
}

/// Looks, after [`remove_unused`] of the supervisor, whether what was asked for is still there.
///
/// # Errors
/// It is: why.
pub(super) fn removed(
    store: &Store,
    containers: &Containers,
    asked: Option<&str>,
    id: Option<&str>,
) -> Result<()> {
    match (asked, id) {
        (Some(asked), Some(id)) => store.removed(asked, id, &|id| users(containers, id)),
        _ => Ok(()),
    }
}

/// The containers that use an image, or may.
fn users(containers: &Containers, image: &str) -> Vec<String> {
    match containers.all() {
        Ok(mut all) => {
            all.retain(|record| record.image_id.as_deref() == Some(image));
            all.into_iter().map(|record| record.id).collect()
        }
        Err(_) => vec!["(unknown)".to_owned()],
    }
}

/// What the child of [`in_child`] tells.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    done: Option<String>,
    failed: Option<(u8, String)>,
}

/// Runs `act` in a child process, so that its threads and its memory are not the supervisor's.
fn in_child(act: impl FnOnce() -> Result<String>) -> Result<String> {
    let (read, write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("making a pipe")?;
    let Some(pid) = supervise::fork().context("forking for the pull")? else {
        drop(read);
        let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM);
        tell(write, act());
        std::process::exit(0);
    };
    drop(write);
    let mut text = Vec::new();
    let heard = fs::File::from(read).read_to_end(&mut text);
    let _ = waitpid(pid, None);
    heard.context("waiting for the pull")?;
    let told: Told =
        serde_json::from_slice(&text).map_err(|_| failed("the process that pulled was killed"))?;
    match (told.done, told.failed) {
        (Some(done), _) => Ok(done),
        (None, Some((kind, report))) => Err(Fault::new(kind_of(kind), report).into()),
        (None, None) => Err(failed("the pull told nothing").into()),
    }
}

fn tell(pipe: OwnedFd, result: Result<String>) {
    let told = match result {
        Ok(done) => Told {
            done: Some(done),
            failed: None,
        },
        Err(e) => {
            let report = error::message(&e);
            Told {
                done: None,
                failed: Some((kind_number(error::kind(&e)), report)),
            }
        }
    };
    let text = serde_json::to_vec(&told).unwrap_or_default();
    // A parent that is gone needs no answer.
    let _ = fs::File::from(pipe).write_all(&text);
}

const KINDS: [Kind; 4] = [
    Kind::Failed,
    Kind::Usage,
    Kind::NoSuchObject,
    Kind::Conflict,
];

pub(super) fn kind_number(kind: Kind) -> u8 {
    let at = KINDS.iter().position(|k| *k == kind);
    at.and_then(|n| u8::try_from(n).ok()).unwrap_or(0)
}

pub(super) fn kind_of(number: u8) -> Kind {
    KINDS
        .get(usize::from(number))
        .copied()
        .unwrap_or(Kind::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_the_pipe() {
        for kind in KINDS {
            assert_eq!(kind_of(kind_number(kind)), kind);
        }
    }
}
