//! Bringing an image into the store.
//!
//! A name gives candidates (short names), each of them endpoints (mirrors first). The first that serves a manifest for the platform
//! wins; its layers are ingested ([`super::fetch`]), then the image is committed: index, blobs, record, names, in
//! this order, each flushed before the next. Whatever goes wrong before the record is written leaves no image;
//! layers that were complete stay until they are collected, so that a repeated pull does not fetch them again.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use oci_spec::image::ImageConfiguration;

use super::fetch::{self, Wanted};
use super::files::{self, Lock};
use super::images::{Record, unknown};
use super::layers::{self, LayerDirs};
use super::sources::{FromRegistry, Layout, Source, Spec};
use super::tags::{self, Tag};
use super::work::Work;
use super::{Image, Progress, PullOptions, PullPolicy, Store};
use crate::cow::index::Index;
use crate::error::{self, Fault, Kind, Result, failed, usage};
use crate::image::auth::{self, Credentials};
use crate::image::digest::{Algorithm, Digest};
use crate::image::http::Patience;
use crate::image::manifest::{self, Document, Manifest};
use crate::image::platform::Platform;
use crate::image::reference::{Name, Reference};
use crate::image::registries::{Endpoint, Registries};
use crate::image::registry::{CONFIG_LIMIT, Fetched, Repository};

/// An index in an index in an index is somebody playing.
const INDEX_DEPTH: usize = 3;

/// The platform to choose.
struct For {
    platform: Platform,
    /// By the user, not taken from the host.
    asked: bool,
}

/// An image as described by its source, verified, before its layers are fetched.
pub(super) struct Described {
    pub(super) manifest: Fetched,
    /// The index through which it was chosen.
    pub(super) list: Option<Fetched>,
    pub(super) config: Vec<u8>,
    pub(super) id: String,
    pub(super) diff_ids: Vec<Digest>,
    pub(super) layers: Vec<Wanted>,
    /// Digests of layers that are kept as they are.
    pub(super) blobs: Vec<String>,
}

impl Store {
    pub(super) fn bring(
        &self,
        name: &str,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let wanted = For {
            platform: match &options.platform {
                Some(text) => Platform::parse(text)?,
                None => Platform::host(),
            },
            asked: options.platform.is_some(),
        };
        match Spec::parse(name)? {
            Spec::Rootfs(path) => Err(usage(format!(
                "rootfs:{} is a directory of this host: it is run, not pulled",
                path.display()
            ))
            .into()),
            Spec::Registry(parsed) => self.by_policy(name, &parsed, &wanted, options, progress),
            archive => {
                let work = Work::begin(self)?;
                let source = Layout::open(&archive, work.path())?;
                self.import(&source, &work, &wanted, progress)
                    .with_context(|| format!("importing {name}"))
            }
        }
    }

    fn by_policy(
        &self,
        name: &str,
        parsed: &Name,
        wanted: &For,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let here = match options.policy {
            PullPolicy::Always => None,
            _ => self.usable(name, wanted, options, progress)?,
        };
        match (options.policy, here) {
            (PullPolicy::Missing | PullPolicy::Never, Some(image)) => Ok(image),
            (PullPolicy::Never, None) => {
                Err(unknown(name).hint("--pull=missing would fetch it.").into())
            }
            (PullPolicy::Newer, Some(image)) => self
                .ask_registries(parsed, wanted, options, progress)
                .or_else(|e| {
                    progress.message(&format!("{}; using what is here", error::message(&e)));
                    Ok(image)
                }),
            _ => self.ask_registries(parsed, wanted, options, progress),
        }
    }

    /// The image of that name, if it is here, undamaged and for the platform.
    fn usable(
        &self,
        name: &str,
        wanted: &For,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Option<Image>> {
        match self.find(name) {
            Ok(Some(image)) => {
                let have = Platform::new(&image.os, &image.architecture, image.variant.as_deref());
                if !wanted.asked || wanted.platform.fit(&have).is_some() {
                    return Ok(Some(image));
                }
                progress.message(&format!(
                    "{name} is here for {have}, wanted is {}",
                    wanted.platform
                ));
                Ok(None)
            }
            Ok(None) => Ok(None),
            Err(e) if options.policy == PullPolicy::Never || error::kind(&e) == Kind::Usage => {
                Err(e)
            }
            Err(e) => {
                progress.message(&format!("{e:#}; fetching it again"));
                Ok(None)
            }
        }
    }

    fn ask_registries(
        &self,
        name: &Name,
        wanted: &For,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let conf = Registries::load()?;
        let candidates = conf.candidates(name)?;
        if !candidates.because.is_empty() {
            progress.message(&candidates.because);
        }
        let mut failures: Vec<(String, anyhow::Error)> = Vec::new();
        for reference in &candidates.references {
            progress.message(&format!("Trying to pull {reference}..."));
            for endpoint in conf.endpoints(reference)? {
                match self.ask_endpoint(reference, &endpoint, wanted, options, progress) {
                    Ok(image) => return Ok(image),
                    Err(e) => {
                        let is_last = !endpoint.mirror && candidates.references.len() == 1;
                        if !is_last {
                            progress.message(&format!("{}: {e:#}", endpoint.reference));
                        }
                        failures.push((endpoint.reference.to_string(), e));
                    }
                }
            }
        }
        Err(summary(name, candidates.references.len(), failures))
    }

    fn ask_endpoint(
        &self,
        reference: &Reference,
        endpoint: &Endpoint,
        wanted: &For,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let insecure = match options.tls_verify {
            Some(verify) => !verify,
            None => endpoint.insecure,
        };
        let credentials = match &options.creds {
            // --creds is for the registry that was named, not for mirrors of it.
            Some(text) if !endpoint.mirror => Some(Credentials::parse(text)?),
            _ => auth::find(&endpoint.reference, options.authfile.as_deref())?,
        };
        let notice = progress.notice();
        let repository = Repository::new(
            &endpoint.reference,
            insecure,
            credentials,
            Patience::default(),
            notice,
        );
        let source = FromRegistry {
            repository: Arc::new(repository),
            name: reference.clone(),
        };
        let work = Work::begin(self)?;
        self.import(&source, &work, wanted, progress)
    }

    /// From any source into the store.
    fn import(
        &self,
        source: &dyn Source,
        work: &Work,
        wanted: &For,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let described = describe(source, &wanted.platform)?;
        check_platform(&described, wanted, progress)?;
        let collect = Lock::shared(&self.collect_lock())?;
        let dirs = LayerDirs {
            packs: self.packs_dir(),
            layer_indexes: self.data().join("index/layers"),
            tmp: work.path().to_owned(),
        };
        fetch::layers(self, &dirs, source, &described.layers, progress)?;
        progress.message(&format!("Copying config sha256:{} done", described.id));
        progress.message("Writing manifest to image destination");
        let names = source.names();
        self.commit(&described, &dirs, &names)
            .with_context(|| format!("storing image {}", super::images::short(&described.id)))?;
        drop(collect);
        self.collect_if_due();
        let names: Vec<String> = names.iter().map(Reference::to_string).collect();
        let repo_digests = Vec::new();
        self.load(&described.id, names, repo_digests)
    }

    /// Makes the image visible. Everything it refers to is written and flushed before.
    pub(super) fn commit(
        &self,
        image: &Described,
        dirs: &LayerDirs,
        names: &[Reference],
    ) -> Result<()> {
        let _lock = Lock::exclusive(&self.image_lock(&image.id))?;
        let index = self.image_index(&image.id);
        let diff_ids: Vec<String> = image.diff_ids.iter().map(Digest::to_string).collect();
        // Layers that were damaged and fetched again may lie in other packs now.
        let whole = Index::open(&index).and_then(|index| index.open_packs(&dirs.packs));
        if whole.is_err() {
            layers::build_image_index(dirs, &diff_ids, &index).context("merging its layers")?;
        }
        let config = format!("sha256:{}", image.id).parse()?;
        self.write_blob(&config, &image.config)?;
        let documents: Vec<&Fetched> = image.list.iter().chain([&image.manifest]).collect();
        for document in &documents {
            self.write_blob(&document.digest, &document.bytes)?;
        }
        let old = self.record(&image.id).unwrap_or(None);
        let (mut manifests, mut blobs) = old.map(|r| (r.manifests, r.blobs)).unwrap_or_default();
        blobs.extend(image.blobs.iter().cloned());
        blobs.sort();
        blobs.dedup();
        for document in &documents {
            let digest = document.digest.to_string();
            manifests.retain(|m| *m != digest);
            manifests.push(digest);
        }
        let record = Record {
            id: image.id.clone(),
            manifests,
            digest: image.manifest.digest.to_string(),
            layers: diff_ids,
            size: fetch::size(self, &image.diff_ids)?,
            blobs,
        };
        let tags: Vec<Tag> = names
            .iter()
            .map(|reference| Tag {
                reference: reference.to_string(),
                image: image.id.clone(),
                digest: record.digest.clone(),
                list_digest: image.list.as_ref().map(|l| l.digest.to_string()),
            })
            .collect();
        // A name that led nowhere is written first: without the record it still leads nowhere, so that killed in
        // between there is no image without a name. One that moves is written last and leads to the old image until then.
        let (moved, new): (Vec<&Tag>, Vec<&Tag>) =
            tags.iter().partition(|tag| self.leads_elsewhere(tag));
        for tag in new {
            tags::set(&self.tags_dir(), tag)?;
        }
        files::write_json(
            &self.images_dir().join(format!("{}.json", image.id)),
            &record,
        )?;
        for tag in moved {
            tags::set(&self.tags_dir(), tag)?;
        }
        Ok(())
    }

    /// Whether the tag's name means another image that exists.
    fn leads_elsewhere(&self, tag: &Tag) -> bool {
        let Ok(reference) = Reference::parse(&tag.reference) else {
            return false;
        };
        match tags::get(&self.tags_dir(), &reference) {
            Ok(Some(old)) => old.image != tag.image && self.has_record(&old.image),
            _ => false,
        }
    }

    fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let path = self.blob_path(digest);
        if let Some(dir) = path.parent() {
            files::create_dir_private(dir)?;
        }
        match files::read_limited(&path, bytes.len() as u64) {
            Ok(Some(old)) if old == bytes => Ok(()),
            _ => files::atomic_write(&path, bytes),
        }
    }
}

/// Goes from the document that was asked for to an image: index, manifest, config.
fn describe(source: &dyn Source, platform: &Platform) -> Result<Described> {
    let mut list = None;
    let mut fetched = source.manifest(None)?;
    let mut manifest = None;
    for _ in 0..=INDEX_DEPTH {
        let document = manifest::parse(&fetched.bytes, fetched.media_type.as_deref())
            .with_context(|| format!("reading manifest {}", fetched.digest))?;
        match document {
            Document::Manifest(m) => {
                manifest = Some(m);
                break;
            }
            Document::Index(index) => {
                let digest = index
                    .choose(platform)
                    .with_context(|| format!("choosing from {}", fetched.digest))?
                    .descriptor
                    .digest
                    .clone();
                let inner = source.manifest(Some(&digest))?;
                let outer = std::mem::replace(&mut fetched, inner);
                list.get_or_insert(outer);
            }
        }
    }
    let manifest = manifest.ok_or_else(|| failed("indexes are nested too deep"))?;
    let config = source.small_blob(&manifest.config, CONFIG_LIMIT)?;
    if config.len() as u64 != manifest.config.size || !manifest.config.digest.matches(&config) {
        return Err(failed(format!(
            "config {} has other bytes than its manifest says",
            manifest.config.digest
        ))
        .into());
    }
    if manifest.config.digest.algorithm() != Algorithm::Sha256 {
        return Err(failed("its config is named by sha512, which is not supported").into());
    }
    let diff_ids = diff_ids(&config, &manifest).context("reading its config")?;
    let mut layers: Vec<Wanted> = Vec::new();
    for (blob, diff_id) in manifest.layers.iter().zip(&diff_ids) {
        if !layers.iter().any(|l| l.diff_id == *diff_id) {
            layers.push(Wanted {
                blob: blob.clone(),
                diff_id: diff_id.clone(),
            });
        }
    }
    Ok(Described {
        id: manifest.config.digest.hex().to_owned(),
        manifest: fetched,
        list,
        config,
        diff_ids,
        layers,
        blobs: Vec::new(),
    })
}

fn diff_ids(config: &[u8], manifest: &Manifest) -> Result<Vec<Digest>> {
    let config = ImageConfiguration::from_reader(config)?;
    let ids = config.rootfs().diff_ids();
    if ids.len() != manifest.layers.len() {
        return Err(failed(format!(
            "it names {} layers, the manifest {}",
            ids.len(),
            manifest.layers.len()
        ))
        .into());
    }
    ids.iter()
        .map(|text| {
            let id: Digest = text.parse()?;
            match id.algorithm() {
                Algorithm::Sha256 => Ok(id),
                Algorithm::Sha512 => {
                    Err(failed("it names a layer by sha512, which is not supported").into())
                }
            }
        })
        .collect()
}

/// An image for another platform is refused where one was asked for, and shown where the host's was assumed.
fn check_platform(image: &Described, wanted: &For, progress: &dyn Progress) -> Result<()> {
    let config = ImageConfiguration::from_reader(image.config.as_slice())?;
    let have = Platform::new(
        &config.os().to_string(),
        &config.architecture().to_string(),
        config.variant().as_deref(),
    );
    if wanted.platform.fit(&have).is_some() {
        return Ok(());
    }
    if wanted.asked {
        return Err(Fault::new(
            Kind::NoSuchObject,
            format!(
                "there is no image for {}; it is offered for {have} only",
                wanted.platform
            ),
        )
        .into());
    }
    progress.message(&format!(
        "Warning: the image is for {have}, not for {}",
        wanted.platform
    ));
    Ok(())
}

/// One error out of those of every place that was tried.
fn summary(
    name: &Name,
    candidates: usize,
    mut failures: Vec<(String, anyhow::Error)>,
) -> anyhow::Error {
    let text = match name {
        Name::Full(reference) => reference.to_string(),
        Name::Short(short) => short.to_string(),
    };
    if candidates == 1 {
        // The mirrors' failures were shown as they happened; the last is the registry's own.
        return match failures.pop() {
            Some((_, e)) => e.context(format!("pulling {text}")),
            None => anyhow!("pulling {text}: no place to pull from"),
        };
    }
    let all_missing = failures
        .iter()
        .all(|(_, e)| error::kind(e) == Kind::NoSuchObject);
    let kind = if all_missing {
        Kind::NoSuchObject
    } else {
        Kind::Failed
    };
    let list: Vec<String> = failures
        .iter()
        .map(|(at, e)| format!("{at}: {e:#}"))
        .collect();
    Fault::new(
        kind,
        format!(
            "pulling {text}: {} places failed: {}",
            list.len(),
            list.join("; ")
        ),
    )
    .hint("Write the registry before the name to ask one only.")
    .into()
}

impl std::str::FromStr for PullPolicy {
    type Err = Fault;

    fn from_str(text: &str) -> Result<PullPolicy, Fault> {
        match text.to_ascii_lowercase().as_str() {
            "always" | "true" | "1" => Ok(PullPolicy::Always),
            "missing" | "ifnotpresent" | "" => Ok(PullPolicy::Missing),
            "never" | "false" | "0" => Ok(PullPolicy::Never),
            "newer" | "ifnewer" => Ok(PullPolicy::Newer),
            _ => Err(usage(format!(
                "--pull {text} is none of always, missing, never, newer"
            ))),
        }
    }
}
