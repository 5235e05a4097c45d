//! A container's changes as a new image: their layer, a config, a manifest.
//!
//! The layer is written as a tar into the store's temporary directory, unpacked from there as a pulled one is (content
//! that some pack has already is not stored again), and kept as a blob, so that it can be pushed as it is. The manifest names the layers of
//! the image below as that image's own manifest does: whoever pushes finds them where they came from.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::archive::{self, What};
use super::files::{self, Lock};
use super::images::short;
use super::layers::{self, LayerDirs};
use super::pull::Described;
use super::work::Work;
use super::{Image, Progress, Store};
use crate::cow::Cow;
use crate::error::{Result, failed};
use crate::image::digest::{Algorithm, Digest, Hasher};
use crate::image::manifest::{self, Document};
use crate::image::reference::Reference;
use crate::image::registry::{Fetched, MANIFEST_LIMIT};

/// Which documents describe the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI image manifest 1.
    Oci,
    /// Docker image manifest 2, schema 2.
    Docker,
}

/// An image to be made.
#[derive(Debug)]
pub struct NewImage<'a> {
    /// What it is made over.
    pub base: &'a Image,
    /// Its files, over the base's.
    pub cow: &'a Cow,
    /// Its config without `rootfs`; the base's history in `history`.
    pub config: Value,
    /// The entry of its own in the history.
    pub history: Value,
    /// One layer of everything.
    pub squash: bool,
    /// Its documents.
    pub format: Format,
    /// Its names; what had one before loses it.
    pub names: Vec<Reference>,
}

#[derive(Serialize)]
struct ManifestFile {
    #[serde(rename = "schemaVersion")]
    schema_version: u32,
    #[serde(rename = "mediaType")]
    media_type: &'static str,
    config: DescriptorFile,
    layers: Vec<DescriptorFile>,
}

#[derive(Debug, Clone, Serialize)]
struct DescriptorFile {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
}

const LAYER_TYPES: [(&str, &str); 3] = [
    (
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
    ),
    (
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
    (
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ),
];

impl Format {
    /// A layer's media type, in the words of this format.
    fn layer(self, media_type: &str) -> String {
        let same = |(oci, docker): &&(&str, &str)| media_type == *oci || media_type == *docker;
        let known = LAYER_TYPES.iter().find(same);
        let word = known.map_or(media_type, |(oci, docker)| match self {
            Format::Oci => oci,
            Format::Docker => docker,
        });
        word.to_owned()
    }

    fn config(self) -> &'static str {
        match self {
            Format::Oci => "application/vnd.oci.image.config.v1+json",
            Format::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            Format::Oci => manifest::OCI_MANIFEST,
            Format::Docker => manifest::DOCKER_MANIFEST,
        }
    }
}

/// Hashes what goes through it.
struct Hashed<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Store {
    /// The config of an image, as it is written.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn config_of(&self, image: &Image) -> Result<Value> {
        let digest: Digest = format!("sha256:{}", image.id).parse()?;
        let path = self.blob_path(&digest);
        let bytes = files::read_limited(&path, crate::image::registry::CONFIG_LIMIT)?;
        let bytes = bytes.ok_or_else(|| failed(format!("{} is missing", path.display())))?;
        serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
    }

    /// Makes the image. Until it is whole nothing of it is visible.
    ///
    /// # Errors
    /// A file of the container cannot be read; the disk is full; the base's documents are damaged.
    pub fn commit_image(&self, new: NewImage<'_>, progress: &dyn Progress) -> Result<Image> {
        let what = || format!("making an image over {}", short(&new.base.id));
        let work = Work::begin(self)?;
        let _collect = Lock::shared(&self.collect_lock())?;
        let dirs = LayerDirs {
            tmp: work.path().to_owned(),
            ..LayerDirs::of(self.data())
        };
        let path = work.path().join("layer.tar");
        let (mut file, digest, size) = write_layer(&new, &path, progress).with_context(what)?;
        layers::ingest(&dirs, &digest.to_string(), &mut file).with_context(what)?;
        file.sync_all().with_context(what)?;
        drop(file);
        self.keep_blob(&path, &digest).with_context(what)?;
        let described = self.describe_new(&new, &digest, size).with_context(what)?;
        for diff_id in &described.diff_ids {
            progress.message(&format!("Copying blob {diff_id}"));
        }
        progress.message(&format!("Copying config sha256:{}", described.id));
        progress.message("Writing manifest to image destination");
        self.commit(&described, &dirs, &new.names)
            .with_context(what)?;
        self.load(&described.id, Vec::new(), Vec::new())
    }

    /// Gives a file its place among the blobs.
    fn keep_blob(&self, path: &Path, digest: &Digest) -> Result<()> {
        let blob = self.blob_path(digest);
        if let Some(dir) = blob.parent() {
            files::create_dir_private(dir)?;
            std::fs::rename(path, &blob)?;
            files::sync_dir(dir)?;
        }
        Ok(())
    }

    /// Config and manifest.
    fn describe_new(&self, new: &NewImage<'_>, layer: &Digest, size: u64) -> Result<Described> {
        let mut diff_ids: Vec<Digest> = Vec::new();
        let mut layers = Vec::new();
        let mut history = Vec::new();
        if !new.squash {
            for id in &new.base.layers {
                diff_ids.push(id.parse()?);
            }
            layers = self.layers_of(new.base, new.format)?;
            if let Some(Value::Array(old)) = new.config.get("history") {
                history.clone_from(old);
            }
        }
        diff_ids.push(layer.clone());
        layers.push(DescriptorFile {
            media_type: new.format.layer(LAYER_TYPES[0].0),
            digest: layer.to_string(),
            size,
        });
        history.push(new.history.clone());
        let mut config = new.config.clone();
        let ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
        config["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": ids });
        config["history"] = Value::Array(history);
        let config = serde_json::to_vec(&config)?;
        let id = Digest::sha256(&config);
        let bytes = serde_json::to_vec(&ManifestFile {
            schema_version: 2,
            media_type: new.format.manifest(),
            config: DescriptorFile {
                media_type: new.format.config().to_owned(),
                digest: id.to_string(),
                size: config.len() as u64,
            },
            layers,
        })?;
        Ok(Described {
            id: id.hex().to_owned(),
            manifest: Fetched {
                digest: Digest::sha256(&bytes),
                media_type: Some(new.format.manifest().to_owned()),
                bytes,
            },
            list: None,
            config,
            diff_ids,
            layers: Vec::new(),
            blobs: vec![layer.to_string()],
        })
    }

    /// The layers as the image's manifest names them.
    fn layers_of(&self, image: &Image, format: Format) -> Result<Vec<DescriptorFile>> {
        let what = || format!("reading manifest {}", image.digest);
        let path = self.blob_path(&image.digest.parse()?);
        let bytes = files::read_limited(&path, MANIFEST_LIMIT)?.with_context(what)?;
        let Document::Manifest(manifest) = manifest::parse(&bytes, None).with_context(what)? else {
            return Err(failed("it is an index")).with_context(what);
        };
        let layers = manifest.layers.into_iter().map(|layer| DescriptorFile {
            media_type: format.layer(&layer.media_type),
            digest: layer.digest.to_string(),
            size: layer.size,
        });
        Ok(layers.collect())
    }
}

/// Writes the layer's tar to a new file; gives it, from its start, with its digest and length.
fn write_layer(
    new: &NewImage<'_>,
    path: &Path,
    progress: &dyn Progress,
) -> Result<(File, Digest, u64)> {
    let changes = match new.squash {
        true => new.cow.everything()?,
        false => new.cow.diff()?,
    };
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut out = Hashed {
        out: BufWriter::with_capacity(1 << 20, file),
        hasher: Hasher::new(Algorithm::Sha256),
    };
    let left_out = archive::write(new.cow, &changes, What::Layer, &mut out)?;
    for what in left_out {
        progress.message(&format!("Warning: {what}"));
    }
    let digest = out.hasher.finish();
    let mut file = out
        .out
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    let size = file.stream_position()?;
    file.rewind()?;
    Ok((file, digest, size))
}
