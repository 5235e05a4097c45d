//! Image records: `images/<id>.json`, and how a name leads to one.
//!
//! An image exists when its record does; everything the record refers to was in place before. A config is
//! verified against the id each time an image is loaded, and indexes carry their own checksums: damage is found before use,
//! and a pull of the same name repairs it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use super::{Image, Spec, Store, files, tags};
use crate::error::{Fault, Kind, Result, ResultExt, failed, usage};
use crate::image::digest::{Digest, is_lower_hex, quoted};
use crate::image::reference::{Name, Reference, ShortName};
use crate::image::registries::Registries;
use crate::image::registry::CONFIG_LIMIT;

/// `images/<id>.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Digest of the config, hex.
    pub(crate) id: String,
    /// Digests of manifests (and the indexes over them) that describe this image, the newest last. Blobs of the store.
    pub(crate) manifests: Vec<String>,
    /// The newest image manifest among them.
    pub(crate) digest: String,
    /// Diff ids of the layers, lowest first.
    pub(crate) layers: Vec<String>,
    /// Bytes of the layers, uncompressed.
    pub(crate) size: u64,
    /// Digests of layers that are kept as tars, too: those made here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blobs: Vec<String>,
}

impl Store {
    pub(crate) fn images_dir(&self) -> PathBuf {
        self.data().join("images")
    }

    pub(crate) fn tags_dir(&self) -> PathBuf {
        self.data().join("tags")
    }

    /// Where a blob lies.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.data()
            .join("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    pub(crate) fn image_index(&self, id: &str) -> PathBuf {
        self.data().join("index/images").join(format!("{id}.idx"))
    }

    pub(crate) fn layer_index(&self, diff_id: &Digest) -> PathBuf {
        self.data()
            .join("index/layers")
            .join(format!("{}.idx", diff_id.hex()))
    }

    pub(crate) fn record(&self, id: &str) -> Result<Option<Record>> {
        files::read_json(&self.images_dir().join(format!("{id}.json")))
    }

    /// Whether the image exists.
    pub(super) fn has_record(&self, id: &str) -> bool {
        self.images_dir().join(format!("{id}.json")).exists()
    }

    /// Ids of all images.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let dir = self.images_dir();
        let mut ids = Vec::new();
        for entry in
            std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?
        {
            let name = entry
                .with_context(|| format!("reading {}", dir.display()))?
                .file_name();
            if let Some(id) = name.to_str().and_then(|n| n.strip_suffix(".json"))
                && id.len() == 64
                && is_lower_hex(id)
            {
                ids.push(id.to_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Loads and verifies an image.
    pub(crate) fn load(
        &self,
        id: &str,
        names: Vec<String>,
        repo_digests: Vec<String>,
    ) -> Result<Image> {
        self.try_load(id, names, repo_digests).fault(|| {
            failed(format!("image {} in the store is damaged", short(id)))
                .hint("`rless pull NAME` fetches it again; `rless rmi ID` removes it.")
        })
    }

    fn try_load(&self, id: &str, names: Vec<String>, repo_digests: Vec<String>) -> Result<Image> {
        let record = self
            .record(id)?
            .ok_or_else(|| failed(format!("images/{id}.json is missing")))?;
        let digest: Digest = format!("sha256:{id}").parse()?;
        let path = self.blob_path(&digest);
        let bytes = files::read_limited(&path, CONFIG_LIMIT)?
            .ok_or_else(|| failed(format!("its config {} is missing", path.display())))?;
        if !digest.matches(&bytes) {
            return Err(failed(format!(
                "its config {} does not match its digest",
                path.display()
            ))
            .into());
        }
        let config =
            ImageConfiguration::from_reader(bytes.as_slice()).context("reading its config")?;
        let index = self.image_index(id);
        if !index.is_file() {
            return Err(failed(format!("its index {} is missing", index.display())).into());
        }
        Ok(Image {
            id: id.to_owned(),
            digest: record.digest,
            names,
            repo_digests,
            index,
            size: record.size,
            created: config.created().as_ref().and_then(|t| t.parse().ok()),
            architecture: config.architecture().to_string(),
            variant: config.variant().clone(),
            os: config.os().to_string(),
            layers: record.layers,
            healthcheck: healthcheck(&bytes),
            config,
        })
    }

    pub(super) fn list_images(&self) -> Result<Vec<Image>> {
        let mut by_id: BTreeMap<String, Vec<tags::Tag>> = BTreeMap::new();
        for tag in tags::list(&self.tags_dir(), &|_| true)? {
            by_id.entry(tag.image.clone()).or_default().push(tag);
        }
        let mut images = Vec::new();
        for id in self.ids()? {
            let tags = by_id.remove(&id).unwrap_or_default();
            match self.load(&id, names(&tags), repo_digests(&tags)) {
                Ok(image) => images.push(image),
                // Removed since the listing, by another command.
                Err(_) if !matches!(self.record(&id), Ok(Some(_))) => {}
                Err(e) => log::warn!("{e:#}"),
            }
        }
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    pub(super) fn find(&self, name: &str) -> Result<Option<Image>> {
        let Some(found) = self.look_up(name)? else {
            return Ok(None);
        };
        match found {
            Found::Named(tag) => {
                let tags = [tag];
                let [tag] = &tags;
                if !self.has_record(&tag.image) {
                    // A pull or a removal under way or killed: the name leads nowhere.
                    return Ok(None);
                }
                self.load(&tag.image, names(&tags), repo_digests(&tags))
                    .map(Some)
            }
            Found::Id(id) => {
                let tags = tags::list(&self.tags_dir(), &|_| true)?;
                let tags: Vec<_> = tags.into_iter().filter(|t| t.image == id).collect();
                self.load(&id, names(&tags), repo_digests(&tags)).map(Some)
            }
        }
    }

    /// What `name` means here, without loading it.
    pub(crate) fn look_up(&self, name: &str) -> Result<Option<Found>> {
        if let Some(prefix) = name.strip_prefix("sha256:") {
            return Ok(self.by_prefix(prefix, name)?.map(Found::Id));
        }
        let parsed = match Spec::parse(name) {
            Ok(Spec::Registry(parsed)) => parsed,
            Ok(_) => return Ok(None),
            // 64 hex digits are no name, but an id.
            Err(e) => {
                return match self.by_prefix(name, name)? {
                    Some(id) => Ok(Some(Found::Id(id))),
                    None if is_lower_hex(name) => Ok(None),
                    None => Err(e.into()),
                };
            }
        };
        let tag = match &parsed {
            Name::Full(reference) => self.by_reference(reference)?,
            Name::Short(short) => self.by_short_name(short)?,
        };
        match tag {
            Some(tag) => Ok(Some(Found::Named(tag))),
            None => Ok(self.by_prefix(name, name)?.map(Found::Id)),
        }
    }

    pub(super) fn in_full(&self, name: &str, id: &str) -> Result<String> {
        let names = self.names_of(id)?;
        if let Some(Found::Named(tag)) = self.look_up(name)?
            && names.contains(&tag.reference)
        {
            return Ok(tag.reference);
        }
        // A short name that has led elsewhere by now, or was pulled though another image has it.
        let mut fitting = names.clone();
        match Spec::parse(name) {
            Ok(Spec::Registry(Name::Short(short))) => {
                fitting.retain(|text| Reference::parse(text).is_ok_and(|r| short.is_short_for(&r)))
            }
            _ => fitting.clear(),
        }
        let only = fitting.pop().filter(|_| fitting.is_empty());
        Ok(only.unwrap_or_else(|| id.to_owned()))
    }

    /// Every name of an image.
    pub(super) fn names_of(&self, id: &str) -> Result<Vec<String>> {
        let mut tags = tags::list(&self.tags_dir(), &|_| true)?;
        tags.retain(|tag| tag.image == id);
        Ok(names(&tags))
    }

    fn by_reference(&self, reference: &Reference) -> Result<Option<tags::Tag>> {
        if let Some(tag) = tags::get(&self.tags_dir(), reference)? {
            return Ok(Some(tag));
        }
        let Some(digest) = reference.digest() else {
            return Ok(None);
        };
        // Any name of that repository that was served under this digest.
        let (repository, digest) = (reference.repository(), digest.to_string());
        let in_repository = |r: &str| {
            r.strip_prefix(&repository)
                .is_some_and(|rest| rest.starts_with([':', '@']))
        };
        let tags = tags::list(&self.tags_dir(), &in_repository)?;
        Ok(tags.into_iter().find(|t| t.served(&digest)).map(|mut tag| {
            tag.reference = reference.to_string();
            tag
        }))
    }

    /// `localhost/NAME` (built here) first, then what registries.conf would make of it, then any registry's.
    fn by_short_name(&self, short: &ShortName) -> Result<Option<tags::Tag>> {
        let fits = |text: &str| Reference::parse(text).is_ok_and(|r| short.is_short_for(&r));
        let mut fitting = tags::list(&self.tags_dir(), &fits)?;
        if fitting.len() > 1 || short.digest().is_some() {
            let conf = Registries::load()?;
            let preferred = conf.candidates(&Name::Short(short.clone()))?.references;
            let local = short.at("localhost")?;
            for reference in std::iter::once(&local).chain(&preferred) {
                if let Some(tag) = self.by_reference(reference)? {
                    return Ok(Some(tag));
                }
            }
        }
        Ok(fitting.drain(..).next())
    }

    /// The id that begins with `prefix`, if it is one and only one does.
    fn by_prefix(&self, prefix: &str, name: &str) -> Result<Option<String>> {
        if prefix.len() < 3 || prefix.len() > 64 || !is_lower_hex(prefix) {
            return Ok(None);
        }
        let mut ids: Vec<String> = self.ids()?;
        ids.retain(|id| id.starts_with(prefix));
        if ids.len() > 1 {
            let list: Vec<&str> = ids.iter().map(|id| short(id)).collect();
            return Err(usage(format!(
                "{} is the beginning of several image ids: {}",
                quoted(name),
                list.join(", ")
            ))
            .hint("Give more digits.")
            .into());
        }
        Ok(ids.pop())
    }
}

/// What a name was found to mean.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// A tag.
    Named(tags::Tag),
    /// An image by its id.
    Id(String),
}

fn names(tags: &[tags::Tag]) -> Vec<String> {
    tags.iter().map(|t| t.reference.clone()).collect()
}

fn repo_digests(tags: &[tags::Tag]) -> Vec<String> {
    let mut digests: Vec<String> = tags
        .iter()
        .filter_map(|t| {
            let repository = Reference::parse(&t.reference).ok()?.repository();
            let served = t.list_digest.iter().chain(std::iter::once(&t.digest));
            Some(
                served
                    .map(move |d| format!("{repository}@{d}"))
                    .collect::<Vec<_>>(),
            )
        })
        .flatten()
        .collect();
    digests.sort();
    digests.dedup();
    digests
}

/// The twelve digits that people see.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The fault for a name that means nothing here.
pub(crate) fn unknown(name: &str) -> Fault {
    Fault::new(Kind::NoSuchObject, format!("{name}: image not known"))
        .hint("`rless images` lists what is here; `rless pull` fetches more.")
}
/// `config.Healthcheck` of an image's config.
fn healthcheck(config: &[u8]) -> Option<serde_json::Value> {
    #[derive(serde::Deserialize)]
    struct Whole {
        config: Option<Inner>,
    }
    #[derive(serde::Deserialize)]
    struct Inner {
        #[serde(rename = "Healthcheck")]
        healthcheck: Option<serde_json::Value>,
    }
    let whole: Whole = serde_json::from_slice(config).ok()?;
    whole.config?.healthcheck
}
