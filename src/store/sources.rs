//! Where images come from: a registry, an OCI layout (directory or archive), a `docker save` archive.
//!
//! | name | means |
//! |---|---|
//! | `alpine`, `docker://h/a:t` | a registry |
//! | `oci:DIR[:TAG]` | an OCI image layout |
//! | `oci-archive:FILE[:TAG]` | the same in a tar, compressed or not |
//! | `docker-archive:FILE[:REF\|:@N]` | what `docker save` writes |
//! | `rootfs:/PATH` | a host directory: never pulled, `container` lays it under a container as it is |
//!
//! Archives are read in place: one pass notes where each member lies. A `docker save` archive is presented
//! as a manifest made up here, whose digests are those of the members' bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde::Deserialize;

use super::tarball::{Kind as TarKind, Reader};
use crate::error::{Fault, Kind, Result, ResultExt, failed, usage};
use crate::image::digest::{Digest, Hasher, quoted};
use crate::image::manifest::{self, Descriptor, Document, OCI_INDEX};
use crate::image::reference::{Name, Reference};
use crate::image::registry::{BlobReader, Fetched, MANIFEST_LIMIT, Repository};
use crate::image::unpack;

/// More members than any archive of an image has.
const MEMBER_LIMIT: usize = 100_000;
const LINK_LIMIT: usize = 16;

/// What a user's image name asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// A registry's image, or one of the store.
    Registry(Name),
    /// `oci:DIR[:TAG]`
    OciLayout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:REF|:@N]`
    DockerArchive(PathBuf, Option<String>),
    /// `rootfs:/PATH`
    Rootfs(PathBuf),
}

impl Spec {
    /// Parses what `run`, `create` and `pull` take as an image.
    ///
    /// # Errors
    /// Kind `Usage`, saying how it is written.
    pub fn parse(text: &str) -> Result<Spec, Fault> {
        let with_tag = |rest: &str, make: fn(PathBuf, Option<String>) -> Spec| {
            if rest.is_empty() {
                return Err(usage(format!("{} names no file", quoted(text))));
            }
            // A path may have a colon: what exists wins.
            match rest.split_once(':') {
                Some((path, tag)) if !Path::new(rest).exists() => {
                    let tag = Some(tag.to_owned()).filter(|t| !t.is_empty());
                    Ok(make(PathBuf::from(path), tag))
                }
                _ => Ok(make(PathBuf::from(rest), None)),
            }
        };
        let Some((transport, rest)) = text.split_once(':') else {
            return Name::parse(text).map(Spec::Registry);
        };
        match transport {
            "oci" => with_tag(rest, Spec::OciLayout),
            "oci-archive" => with_tag(rest, Spec::OciArchive),
            "docker-archive" => with_tag(rest, Spec::DockerArchive),
            "rootfs" if rest.starts_with('/') => Ok(Spec::Rootfs(PathBuf::from(rest))),
            "rootfs" => Err(
                usage(format!("{} does not name an absolute path", quoted(text)))
                    .hint("It is written rootfs:/PATH; rootfs:/ is the host's own root."),
            ),
            "containers-storage" | "docker-daemon" | "dir" | "ostree" | "sif" | "tarball" => {
                Err(usage(format!(
                    "{}: the transport {transport}: is not supported",
                    quoted(text)
                ))
                .hint(
                    "Supported are registries, oci:, oci-archive:, docker-archive: and rootfs:; \
                     `skopeo copy SOURCE oci-archive:FILE` converts.",
                ))
            }
            _ => Name::parse(text).map(Spec::Registry),
        }
    }
}

/// A stream whose end means that its digest was right.
pub(crate) trait Stream: Send {
    /// The next bytes; 0 at the verified end.
    fn next(&mut self, buf: &mut [u8]) -> Result<usize>;
}

impl Stream for BlobReader {
    fn next(&mut self, buf: &mut [u8]) -> Result<usize> {
        BlobReader::next(self, buf)
    }
}

/// Something that has images.
pub(crate) trait Source: Send + Sync {
    /// The document that was asked for, or one by digest. Verified.
    fn manifest(&self, digest: Option<&Digest>) -> Result<Fetched>;
    /// A small blob, verified.
    fn small_blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>>;
    /// A blob as a stream.
    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Stream>>;
    /// Names that the image brings along.
    fn names(&self) -> Vec<Reference>;
}

/// A registry's repository, under the name that it was asked for by.
pub(crate) struct FromRegistry {
    pub(crate) repository: Arc<Repository>,
    pub(crate) name: Reference,
}

impl Source for FromRegistry {
    fn manifest(&self, digest: Option<&Digest>) -> Result<Fetched> {
        self.repository.manifest(digest)
    }

    fn small_blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        self.repository.small_blob(blob, limit)
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Stream>> {
        Ok(Box::new(self.repository.blob(blob)))
    }

    fn names(&self) -> Vec<Reference> {
        vec![self.name.clone()]
    }
}

/// Members of a layout or archive by path.
trait Members: Send + Sync {
    /// The file and the range of it that a member has.
    fn open(&self, path: &str) -> Result<Option<Extent>>;
    fn describe(&self) -> String;
}

/// A range of a file.
#[derive(Debug, Clone)]
struct Extent {
    file: Arc<File>,
    start: u64,
    len: u64,
}

impl Extent {
    fn read_all(&self, limit: u64) -> Result<Vec<u8>> {
        if self.len > limit {
            return Err(failed(format!("it has {} bytes, {limit} are allowed", self.len)).into());
        }
        let mut bytes = vec![0; usize::try_from(self.len)?];
        self.file.read_exact_at(&mut bytes, self.start)?;
        Ok(bytes)
    }

    fn reader(&self) -> ExtentReader {
        ExtentReader {
            extent: self.clone(),
            position: 0,
        }
    }
}

struct ExtentReader {
    extent: Extent,
    position: u64,
}

impl Read for ExtentReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.extent.len - self.position).unwrap_or(usize::MAX);
        let room = left.min(buf.len());
        let target = buf.get_mut(..room).unwrap_or_default();
        let n = self
            .extent
            .file
            .read_at(target, self.extent.start + self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

struct VerifiedExtent {
    reader: ExtentReader,
    hasher: Hasher,
    digest: Digest,
    what: String,
}

impl Stream for VerifiedExtent {
    fn next(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = self
            .reader
            .read(buf)
            .with_context(|| format!("reading {} of {}", self.digest, self.what))?;
        self.hasher.update(buf.get(..n).unwrap_or_default());
        if n == 0 && self.hasher.clone().finish() != self.digest {
            return Err(damaged(&self.what, &self.digest).into());
        }
        Ok(n)
    }
}

fn damaged(what: &str, digest: &Digest) -> Fault {
    failed(format!("{what} is damaged: {digest} has other bytes"))
}

struct Directory(PathBuf);

impl Members for Directory {
    fn open(&self, path: &str) -> Result<Option<Extent>> {
        let path = self.0.join(path);
        match File::open(&path) {
            Ok(file) => {
                let meta = file
                    .metadata()
                    .with_context(|| format!("reading {}", path.display()))?;
                if !meta.is_file() {
                    return Err(failed(format!("{} is not a regular file", path.display())).into());
                }
                Ok(Some(Extent {
                    file: Arc::new(file),
                    start: 0,
                    len: meta.len(),
                }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("opening {}", path.display())),
        }
    }

    fn describe(&self) -> String {
        format!("the layout {}", self.0.display())
    }
}

struct Tar {
    path: PathBuf,
    file: Arc<File>,
    members: HashMap<String, Member>,
}

enum Member {
    At(u64, u64),
    Link(String),
}

impl Tar {
    /// Notes where the members of an archive lie; a compressed archive is unpacked into `work` first.
    fn open(path: &Path, work: &Path) -> Result<Tar> {
        let act = || format!("reading the archive {}", path.display());
        let mut file = File::open(path)
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => Fault::new(
                    Kind::NoSuchObject,
                    format!("{}: no such file", path.display()),
                )
                .into(),
                _ => anyhow::Error::new(e),
            })
            .with_context(act)?;
        let mut magic = [0; 6];
        let n = file.read(&mut magic).with_context(act)?;
        file.seek(SeekFrom::Start(0)).with_context(act)?;
        let compression = unpack::detect(magic.get(..n).unwrap_or_default()).with_context(act)?;
        if compression != unpack::Compression::Plain {
            let mut plain = tempfile::tempfile_in(work).with_context(act)?;
            io::copy(&mut unpack::open(file)?, &mut plain).with_context(act)?;
            file = plain;
        }
        let members = scan(&file).with_context(act)?;
        Ok(Tar {
            path: path.to_owned(),
            file: Arc::new(file),
            members,
        })
    }
}

fn scan(file: &File) -> Result<HashMap<String, Member>> {
    let len = file.metadata()?.len();
    let mut members = HashMap::new();
    let mut input = BufReader::new(file.try_clone()?);
    input.seek(SeekFrom::Start(0))?;
    let mut archive = Reader::new(input, len.saturating_add(512));
    while let Some(entry) = archive.next_entry()? {
        let Ok(path) = String::from_utf8(entry.path) else {
            continue;
        };
        if members.len() >= MEMBER_LIMIT {
            return Err(failed(format!("it has more than {MEMBER_LIMIT} members")).into());
        }
        let target = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let link = match &entry.kind {
            TarKind::File if entry.sparse.is_none() => {
                let (start, size) = (archive.position(), entry.size);
                if start.checked_add(size).is_none_or(|end| end > len) {
                    return Err(failed(format!("its member {} is cut off", quoted(&path))).into());
                }
                archive.seek_past()?;
                members.insert(path, Member::At(start, size));
                continue;
            }
            TarKind::Symlink(bytes) => {
                let base = Path::new(&path).parent().unwrap_or(Path::new(""));
                target(bytes).and_then(|target| normal(&base.join(target)))
            }
            TarKind::Hardlink(bytes) => target(bytes),
            _ => None,
        };
        if let Some(link) = link {
            members.insert(path, Member::Link(link));
        }
    }
    Ok(members)
}

/// A member's path without `.`, with `..` resolved; `None` if it leaves the archive.
fn normal(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(parts.join("/"))
}

impl Members for Tar {
    fn open(&self, path: &str) -> Result<Option<Extent>> {
        let mut path = path.to_owned();
        for _ in 0..LINK_LIMIT {
            match self.members.get(&path) {
                None => return Ok(None),
                Some(Member::Link(target)) => path.clone_from(target),
                Some(Member::At(start, len)) => {
                    return Ok(Some(Extent {
                        file: Arc::clone(&self.file),
                        start: *start,
                        len: *len,
                    }));
                }
            }
        }
        Err(failed(format!("links in {} lead in a circle", self.path.display())).into())
    }

    fn describe(&self) -> String {
        format!("the archive {}", self.path.display())
    }
}

/// An OCI image layout, or a docker archive made to look like one.
pub(crate) struct Layout {
    members: Box<dyn Members>,
    top: Fetched,
    names: Vec<Reference>,
    /// Blobs that do not lie under `blobs/` (docker archives).
    extra: HashMap<Digest, Blob>,
}

enum Blob {
    Bytes(Vec<u8>),
    At(Extent),
}

impl Layout {
    /// Opens what `spec` names; `work` is a directory for temporary files.
    pub(crate) fn open(spec: &Spec, work: &Path) -> Result<Layout> {
        match spec {
            Spec::OciLayout(path, tag) => {
                if !path.is_dir() {
                    return Err(Fault::new(
                        Kind::NoSuchObject,
                        format!("{}: no such directory", path.display()),
                    )
                    .into());
                }
                Layout::oci(Box::new(Directory(path.clone())), path, tag.as_deref())
            }
            Spec::OciArchive(path, tag) => {
                Layout::oci(Box::new(Tar::open(path, work)?), path, tag.as_deref())
            }
            Spec::DockerArchive(path, name) => docker_archive(path, name.as_deref(), work),
            Spec::Registry(_) | Spec::Rootfs(_) => Err(usage("this is no archive").into()),
        }
    }

    fn oci(members: Box<dyn Members>, path: &Path, tag: Option<&str>) -> Result<Layout> {
        let act = || format!("reading {}", members.describe());
        let Some(extent) = members.open("index.json").with_context(act)? else {
            return Err(failed(format!(
                "{} has no index.json, so it is no OCI image layout",
                members.describe()
            ))
            .into());
        };
        let bytes = extent.read_all(MANIFEST_LIMIT).with_context(act)?;
        let Document::Index(index) = manifest::parse(&bytes, Some(OCI_INDEX)).with_context(act)?
        else {
            return Err(failed(format!("index.json of {} is no index", members.describe())).into());
        };
        let named: Vec<&str> = index
            .entries
            .iter()
            .filter_map(|e| e.ref_name.as_deref())
            .collect();
        let chosen: Vec<_> = match tag {
            Some(tag) => index
                .entries
                .iter()
                .filter(|e| e.ref_name.as_deref() == Some(tag))
                .collect(),
            None => index.entries.iter().collect(),
        };
        let ambiguous = tag.is_none() && named.iter().any(|n| Some(n) != named.first());
        let (Some(first), false) = (chosen.first(), ambiguous) else {
            let wanted = tag
                .map(|t| format!(" no image {}", quoted(t)))
                .unwrap_or_else(|| " several images".to_owned());
            return Err(Fault::new(
                Kind::NoSuchObject,
                format!(
                    "{} has{wanted}; its tags: {}",
                    members.describe(),
                    named.join(", ")
                ),
            )
            .hint("The tag is written after the path: oci:DIR:TAG, oci-archive:FILE:TAG.")
            .into());
        };
        let names = name_for(path, first.ref_name.as_deref())
            .into_iter()
            .collect();
        let mut layout = Layout {
            members,
            top: Fetched {
                digest: Digest::sha256(&bytes),
                bytes,
                media_type: Some(OCI_INDEX.to_owned()),
            },
            names,
            extra: HashMap::new(),
        };
        // Several entries under one name are one image for several platforms; they are chosen from index.json itself.
        if chosen.len() == 1 {
            layout.top = layout.manifest(Some(&first.descriptor.digest))?;
        }
        Ok(layout)
    }

    fn extent(&self, digest: &Digest) -> Result<Extent> {
        if let Some(Blob::At(extent)) = self.extra.get(digest) {
            return Ok(extent.clone());
        }
        let path = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        self.members
            .open(&path)?
            .ok_or_else(|| failed(format!("{} lacks {digest}", self.members.describe())).into())
    }

    fn whole(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        if let Some(Blob::Bytes(bytes)) = self.extra.get(digest) {
            return Ok(bytes.clone());
        }
        let act = || format!("reading {digest} of {}", self.members.describe());
        let bytes = self.extent(digest)?.read_all(limit).with_context(act)?;
        if !digest.matches(&bytes) {
            return Err(damaged(&self.members.describe(), digest).into());
        }
        Ok(bytes)
    }
}

impl Source for Layout {
    fn manifest(&self, digest: Option<&Digest>) -> Result<Fetched> {
        match digest {
            None => Ok(self.top.clone()),
            Some(digest) => Ok(Fetched {
                bytes: self.whole(digest, MANIFEST_LIMIT)?,
                media_type: None,
                digest: digest.clone(),
            }),
        }
    }

    fn small_blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        self.whole(&blob.digest, limit)
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Stream>> {
        let extent = self.extent(&blob.digest)?;
        if extent.len != blob.size {
            return Err(damaged(&self.members.describe(), &blob.digest).into());
        }
        Ok(Box::new(VerifiedExtent {
            reader: extent.reader(),
            hasher: Hasher::new(blob.digest.algorithm()),
            digest: blob.digest.clone(),
            what: self.members.describe(),
        }))
    }

    fn names(&self) -> Vec<Reference> {
        self.names.clone()
    }
}

/// The name for an image out of a layout: its own if it has a full one, else `localhost/<file name>:<tag>`.
fn name_for(path: &Path, ref_name: Option<&str>) -> Option<Reference> {
    if let Some(Ok(Name::Full(reference))) = ref_name.map(Name::parse) {
        return Some(reference);
    }
    let stem = path.file_name()?.to_str()?;
    let stem = [".tar.gz", ".tgz", ".tar.zst", ".tar"]
        .iter()
        .find_map(|s| stem.strip_suffix(s))
        .unwrap_or(stem);
    let tag = ref_name
        .filter(|t| !t.contains('/'))
        .map(|t| format!(":{t}"))
        .unwrap_or_default();
    Reference::parse(&format!("localhost/{}{tag}", stem.to_ascii_lowercase())).ok()
}

#[derive(Deserialize)]
struct DockerImage {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

/// Opens what `docker save` wrote.
fn docker_archive(path: &Path, wanted: Option<&str>, work: &Path) -> Result<Layout> {
    let tar = Tar::open(path, work)?;
    let act = || format!("reading {}", tar.describe());
    let member = |name: &str| -> Result<Extent> {
        let name = normal(Path::new(name)).unwrap_or_default();
        tar.open(&name)?
            .ok_or_else(|| failed(format!("{} has no {}", tar.describe(), quoted(&name))).into())
    };
    let list = member("manifest.json")
        .fault(|| {
            failed(format!(
                "{} was not written by `docker save`",
                path.display()
            ))
        })?
        .read_all(MANIFEST_LIMIT)
        .with_context(act)?;
    let images: Vec<DockerImage> = serde_json::from_slice(&list).with_context(act)?;
    let image = choose(&images, wanted).with_context(act)?;
    let config = member(&image.config)?
        .read_all(crate::image::registry::CONFIG_LIMIT)
        .with_context(act)?;
    let mut extra = HashMap::new();
    let config_digest = Digest::sha256(&config);
    let config_size = config.len();
    extra.insert(config_digest.clone(), Blob::Bytes(config));
    let mut layers = Vec::new();
    for name in &image.layers {
        let extent = member(name)?;
        let digest = digest_of(&mut extent.reader()).with_context(act)?;
        layers.push(serde_json::json!({
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
            "digest": digest.to_string(),
            "size": extent.len,
        }));
        extra.insert(digest, Blob::At(extent));
    }
    let bytes = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": manifest::DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": config_digest.to_string(),
            "size": config_size,
        },
        "layers": layers,
    }))?;
    let tags = image.repo_tags.iter().flatten();
    let names = tags.filter_map(|t| full_name(t).ok()).collect();
    Ok(Layout {
        members: Box::new(tar),
        top: Fetched {
            digest: Digest::sha256(&bytes),
            bytes,
            media_type: Some(manifest::DOCKER_MANIFEST.to_owned()),
        },
        names,
        extra,
    })
}

/// A `RepoTags` entry: docker's short form means docker.io.
fn full_name(text: &str) -> Result<Reference, Fault> {
    match Name::parse(text)? {
        Name::Full(reference) => Ok(reference),
        Name::Short(short) => short.at(crate::image::reference::DOCKER_IO),
    }
}

fn choose<'a>(images: &'a [DockerImage], wanted: Option<&str>) -> Result<&'a DockerImage> {
    let tags = || -> Vec<&str> {
        images
            .iter()
            .flat_map(|i| i.repo_tags.iter().flatten())
            .map(String::as_str)
            .collect()
    };
    let found = match wanted {
        None if images.len() > 1 => None,
        None => images.first(),
        Some(wanted) => match wanted.strip_prefix('@') {
            Some(number) => number.parse::<usize>().ok().and_then(|n| images.get(n)),
            None => {
                let wanted = full_name(wanted)?;
                let is_it = |t: &String| full_name(t).is_ok_and(|t| t == wanted);
                images
                    .iter()
                    .find(|i| i.repo_tags.iter().flatten().any(is_it))
            }
        },
    };
    found.ok_or_else(|| {
        Fault::new(
            Kind::NoSuchObject,
            format!(
                "it has {} images, none of them chosen; tags: {}",
                images.len(),
                tags().join(", ")
            ),
        )
        .hint("Write docker-archive:FILE:NAME:TAG, or docker-archive:FILE:@NUMBER counting from 0.")
        .into()
    })
}

fn digest_of(reader: &mut dyn Read) -> io::Result<Digest> {
    let mut hasher = Hasher::new(crate::image::digest::Algorithm::Sha256);
    let mut chunk = vec![0; 256 << 10];
    loop {
        match reader.read(&mut chunk)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(chunk.get(..n).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_told_from_names() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a:b");
        std::fs::create_dir(&odd).unwrap();
        let odd_text = format!("oci:{}", odd.display());
        assert_eq!(Spec::parse(&odd_text).unwrap(), Spec::OciLayout(odd, None));
        assert_eq!(
            Spec::parse("oci-archive:/x.tar:docker.io/a:1").unwrap(),
            Spec::OciArchive("/x.tar".into(), Some("docker.io/a:1".into()))
        );
        assert_eq!(Spec::parse("rootfs:/").unwrap(), Spec::Rootfs("/".into()));
        assert!(Spec::parse("rootfs:x").is_err());
        assert!(Spec::parse("docker-daemon:x:y").is_err());
        assert!(matches!(
            Spec::parse("alpine:3").unwrap(),
            Spec::Registry(Name::Short(_))
        ));
        assert!(matches!(
            Spec::parse("h:5000/x").unwrap(),
            Spec::Registry(Name::Full(_))
        ));
    }

    #[test]
    fn member_paths_cannot_leave_the_archive() {
        assert_eq!(normal(Path::new("./a/../b")).as_deref(), Some("b"));
        assert_eq!(normal(Path::new("../etc/passwd")), None);
        assert_eq!(normal(Path::new("/blobs/x")).as_deref(), Some("blobs/x"));
    }

    #[test]
    fn layouts_without_a_full_name_are_named_after_their_file() {
        let name = |p: &str, t: Option<&str>| name_for(Path::new(p), t).map(|r| r.to_string());
        assert_eq!(
            name("/x/App.tar", Some("1.2")).as_deref(),
            Some("localhost/app:1.2")
        );
        assert_eq!(
            name("/x/app", None).as_deref(),
            Some("localhost/app:latest")
        );
        assert_eq!(
            name("/x", Some("quay.io/a/b:3")).as_deref(),
            Some("quay.io/a/b:3")
        );
        assert_eq!(name("/x/--", None), None);
    }
}
