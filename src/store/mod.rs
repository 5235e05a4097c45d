//! Images on this machine: names, records, blobs, layers; pulling, removing, collecting.
//!
//! The store belongs to one user and has no daemon and no global lock ([`dirs`] has the layout). An image becomes visible
//! by one rename (its record in `images/`), a name by one (its file in `tags/`); everything they refer to is
//! in place and flushed before. Removal goes the other way round.
//!
//! | file | room |
//! |---|---|
//! | `dirs.rs` | layout, XDG, versions |
//! | `files.rs` | atomic files, private directories, locks, JSON |
//! | `work.rs` | a process's temporary directory; clearing those of dead processes |
//! | `images.rs` | image records: find, list, load |
//! | `tags.rs` | names |
//! | `sources.rs` | registries, layouts and archives behind one trait |
//! | `pull.rs`, `fetch.rs` | from a source into the store: the image, its layers |
//! | `archive.rs`, `commit.rs` | a container's files as a tar; its changes as an image |
//! | `changes.rs` | what an image's uppermost layer changed |
//! | `gc.rs` | removal and collection |
//! | `tarball.rs`, `packs.rs`, `layers.rs` | a layer's tar into packs and index; indexes merged |

mod changes;
mod commit;
mod fetch;
mod gc;
mod images;
mod pull;
mod sources;
mod tags;
mod work;

pub mod archive;
pub mod dirs;
pub mod files;
pub mod layers;
pub mod packs;
pub mod tarball;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::image::registry::Notice;

pub use commit::{Format, NewImage};
pub use images::short;
pub use sources::Spec;

/// The store of the calling user.
#[derive(Debug, Clone)]
pub struct Store {
    data: PathBuf,
    runtime: PathBuf,
}

impl Store {
    /// Opens the user's store, making it if there is none (see [`dirs`]).
    ///
    /// # Errors
    /// No home directory, not writable, another layout version, or a runtime directory that is not private.
    pub fn open() -> Result<Store> {
        let data = dirs::open_data()?;
        work::sweep(&data.join("tmp"));
        Ok(Store {
            data,
            runtime: dirs::open_runtime()?,
        })
    }

    /// A store in `data`, with its runtime directory in `runtime`, both made if missing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_at(data: &Path, runtime: &Path) -> Result<Store> {
        dirs::prepare(data)?;
        files::create_dir_all_private(runtime)?;
        Ok(Store {
            data: data.to_owned(),
            runtime: runtime.to_owned(),
        })
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory for sockets and live state.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Where packs lie, for `cow::Lower::Image`.
    #[must_use]
    pub fn packs_dir(&self) -> PathBuf {
        self.data.join("packs")
    }

    /// One directory per container, and `names/`.
    #[must_use]
    pub fn containers_dir(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// One directory per volume.
    #[must_use]
    pub fn volumes_dir(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// Lock files, one per object.
    #[must_use]
    pub fn locks_dir(&self) -> PathBuf {
        self.data.join("locks")
    }

    pub(crate) fn tmp_dir(&self) -> PathBuf {
        self.data.join("tmp")
    }

    /// Every image with all its names, newest first.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn images(&self) -> Result<Vec<Image>> {
        self.collect_if_due();
        self.list_images()
    }

    /// The image that `name` means: a reference (short names as podman) or a prefix of an id. Its `names` are the one
    /// found, or all of them when it was found by id.
    ///
    /// # Errors
    /// A malformed name, an ambiguous prefix, or a damaged image.
    pub fn find_image(&self, name: &str) -> Result<Option<Image>> {
        self.find(name)
    }

    /// Brings `name` into the store as `options.policy` says and returns it.
    ///
    /// # Errors
    /// Everything between reference and disk; nothing becomes visible then.
    pub fn pull(
        &self,
        name: &str,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Image> {
        self.bring(name, options, progress)
    }

    /// Removes a name, and with its last name the image. Named by id, an image with several names is removed only with `force`.
    /// `in_use` says which containers use an image id; such an image stays (`rmi -f` removes the containers first).
    ///
    /// # Errors
    /// No such image, or (kind `Conflict`) it is in use or has several names.
    pub fn remove_image(
        &self,
        name: &str,
        force: bool,
        in_use: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<Vec<Removed>> {
        self.remove(name, force, in_use)
    }

    /// What `name`, by which the image `id` was found or pulled, is in full: one of the image's names, or, where it is none, its id.
    ///
    /// # Errors
    /// Names cannot be read.
    pub fn exact_name(&self, name: &str, id: &str) -> Result<String> {
        self.in_full(name, id)
    }

    /// Removes what [`Store::exact_name`] gave, as [`Store::remove_image`] does without `force`; nothing, if it does not mean the
    /// image `id` any more.
    ///
    /// # Errors
    /// As [`Store::remove_image`].
    pub fn remove_known(
        &self,
        exact: &str,
        id: &str,
        in_use: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<Vec<Removed>> {
        self.remove_exact(exact, id, in_use)
    }

    /// Looks whether [`Store::remove_known`] has removed it.
    ///
    /// # Errors
    /// It is still there: why.
    pub fn removed(
        &self,
        exact: &str,
        id: &str,
        in_use: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<()> {
        self.is_removed(exact, id, in_use)
    }
}

/// When `run` and `create` go to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Ask the registry every time and fail without it.
    Always,
    /// Only if there is no such image here.
    #[default]
    Missing,
    /// Never: no such image is an error.
    Never,
    /// Ask, and take what is here if the registry has nothing newer or does not answer.
    Newer,
}

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// `os/arch[/variant]`; the host's when `None`.
    pub platform: Option<String>,
    /// `--tls-verify`; `None`: as `registries.conf` says.
    pub tls_verify: Option<bool>,
    /// When to go to the registry.
    pub policy: PullPolicy,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--creds user[:password]`.
    pub creds: Option<String>,
}

/// What a pull tells while it runs. Called from several threads.
pub trait Progress: Sync {
    /// A line worth showing (`Trying to pull …`).
    fn message(&self, text: &str);

    /// Something happened to the layer whose blob has this digest.
    fn layer(&self, _digest: &str, _event: LayerEvent) {}

    /// Where downloads say that they have to try again.
    fn notice(&self) -> Notice {
        Arc::new(|text| log::info!("{text}"))
    }
}

/// The life of a layer during a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerEvent {
    /// Another process is fetching it.
    Waiting,
    /// Its download begins: bytes of the blob.
    Started(u64),
    /// Bytes of the blob so far.
    Bytes(u64),
    /// It is in the store.
    Done,
    /// It was in the store already.
    Present,
}

/// A [`Progress`] that shows nothing.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn message(&self, _text: &str) {}
}

/// One line of `rmi`'s answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name that is gone.
    Untagged(String),
    /// The id of an image that is gone.
    Deleted(String),
}

/// An image of the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its config, 64 hex digits.
    pub id: String,
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
    /// Names, `docker.io/library/alpine:latest`; see [`Store::find_image`] and [`Store::images`] for which.
    pub names: Vec<String>,
    /// `docker.io/library/alpine@sha256:…`, for the same names.
    pub repo_digests: Vec<String>,
    /// Its config, verified against `id`.
    pub config: oci_spec::image::ImageConfiguration,
    /// Its config's `Healthcheck`, an extension of Docker's that the specification does not have.
    pub healthcheck: Option<serde_json::Value>,
    /// Its merged index, for `cow::Lower::Image`.
    pub index: PathBuf,
    /// Bytes of its layers, uncompressed.
    pub size: u64,
    /// When it was built.
    pub created: Option<jiff::Timestamp>,
    /// `amd64`, `arm64` …
    pub architecture: String,
    /// `v7` and the like.
    pub variant: Option<String>,
    /// `linux`.
    pub os: String,
    /// Diff ids of its layers, lowest first.
    pub layers: Vec<String>,
}
