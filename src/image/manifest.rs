//! Manifests and indexes (OCI image-spec 1.1, Docker image manifest v2 schema 2), from bytes whose digest is known.
//!
//! A document that could be read as both a manifest and an index is refused (CVE-2021-41190), as are duplicate
//! keys, unknown kinds, schema 1, and anything without a well-formed digest.

use serde::Deserialize;

use super::digest::{Digest, quoted};
use super::platform::Platform;
use crate::error::{Fault, Kind, failed};

/// More than any registry accepts (docker: 127 layers).
const LAYER_LIMIT: usize = 1024;
/// A layer larger than this is not a size but an attack on arithmetic.
const SIZE_LIMIT: u64 = 1 << 50;

/// Media type of an OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a Docker image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What we ask a registry for.
pub const ACCEPT: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// One of the two kinds of document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images for several platforms.
    Index(Index),
}

/// An image: its config and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image's config.
    pub config: Descriptor,
    /// Compressed layer tars.
    pub layers: Vec<Descriptor>,
}

/// Images by platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// What it lists, in its order.
    pub entries: Vec<Entry>,
}

/// Something stored under its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type as written; empty when missing.
    pub media_type: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Number of its bytes.
    pub size: u64,
}

/// A line of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The manifest (or further index).
    pub descriptor: Descriptor,
    /// For which platform.
    pub platform: Option<Platform>,
    /// `org.opencontainers.image.ref.name`, by which a layout names its images.
    pub ref_name: Option<String>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u64>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct RawDescriptor {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl RawDescriptor {
    fn check(self) -> Result<Descriptor, Fault> {
        if self.size > SIZE_LIMIT {
            return Err(failed(format!("it claims a size of {} bytes", self.size)));
        }
        Ok(Descriptor {
            media_type: self.media_type.unwrap_or_default(),
            digest: self.digest.parse()?,
            size: self.size,
        })
    }
}

/// Reads a document. `served_as` is the media type the registry gave, if any.
///
/// # Errors
/// Not JSON, not of a known kind, or ambiguous.
pub fn parse(bytes: &[u8], served_as: Option<&str>) -> Result<Document, Fault> {
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|e| failed(format!("it is not an image manifest: {e}")))?;
    let served_as = served_as.map(|t| t.split(';').next().unwrap_or(t).trim());
    refuse_schema1(&raw, served_as)?;
    let ambiguous = || failed("it is both a manifest and an index, so it cannot be trusted");
    let claims = [raw.media_type.as_deref(), served_as];
    if let [Some(a), Some(b)] = claims.map(|c| c.and_then(kind_of))
        && a != b
    {
        return Err(ambiguous());
    }
    let claim = claims.into_iter().flatten().find_map(kind_of);
    match (raw.config, raw.layers, raw.manifests) {
        (None, None, Some(entries)) if claim != Some(false) => Ok(Document::Index(Index {
            entries: entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        })),
        (Some(config), Some(layers), None) if claim != Some(true) => manifest(config, layers),
        (None, None, None) => Err(failed("it is neither an image manifest nor an index")),
        (Some(_), None, None) | (None, Some(_), None) => {
            Err(failed("the manifest lacks its config or its layers"))
        }
        _ => Err(ambiguous()),
    }
}

fn manifest(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Document, Fault> {
    if layers.len() > LAYER_LIMIT {
        return Err(failed(format!("it lists {} layers", layers.len())));
    }
    let config = config.check()?;
    let kind = config.media_type.as_str();
    let known = [
        "",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
        "application/octet-stream",
    ];
    if !known.contains(&kind) {
        return Err(failed(format!(
            "it is an artifact of type {}, not an image",
            quoted(kind)
        )));
    }
    Ok(Document::Manifest(Manifest {
        config,
        layers: layers
            .into_iter()
            .map(RawDescriptor::check)
            .collect::<Result<_, _>>()?,
    }))
}

fn entry(raw: RawDescriptor) -> Result<Entry, Fault> {
    Ok(Entry {
        platform: raw
            .platform
            .as_ref()
            .map(|p| Platform::new(&p.os, &p.architecture, p.variant.as_deref())),
        ref_name: raw
            .annotations
            .as_ref()
            .and_then(|a| a.get("org.opencontainers.image.ref.name").cloned()),
        descriptor: raw.check()?,
    })
}

/// `Some(true)` for an index, `Some(false)` for a manifest, `None` for a type that says nothing.
fn kind_of(media_type: &str) -> Option<bool> {
    match media_type {
        OCI_INDEX | DOCKER_LIST => Some(true),
        OCI_MANIFEST | DOCKER_MANIFEST => Some(false),
        _ => None,
    }
}

fn refuse_schema1(raw: &Raw, served_as: Option<&str>) -> Result<(), Fault> {
    let old = |t: &str| t.starts_with("application/vnd.docker.distribution.manifest.v1+");
    let is_old = raw.fs_layers.is_some()
        || raw.schema_version == Some(1)
        || served_as.is_some_and(old)
        || raw.media_type.as_deref().is_some_and(old);
    if is_old {
        return Err(
            failed("it is in Docker's schema 1 format of 2015, which is not supported")
                .hint("Have the image pushed again by a current docker, podman or skopeo."),
        );
    }
    match raw.schema_version {
        None | Some(2) => Ok(()),
        Some(v) => Err(failed(format!("its schemaVersion is {v}, only 2 is known"))),
    }
}

impl Index {
    /// The entry that runs best on `wanted`.
    ///
    /// # Errors
    /// Nothing fits: the message lists what there is.
    pub fn choose(&self, wanted: &Platform) -> Result<&Entry, Fault> {
        let fits = self.entries.iter().filter_map(|e| {
            let fit = match &e.platform {
                Some(p) if p.architecture.is_empty() => u32::MAX,
                Some(p) => wanted.fit(p)?,
                None => u32::MAX,
            };
            Some((fit, e))
        });
        // min_by_key takes the first of equals: the order of the index counts.
        fits.min_by_key(|(fit, _)| *fit)
            .map(|(_, e)| e)
            .ok_or_else(|| {
                let mut have: Vec<String> = self
                    .entries
                    .iter()
                    .filter_map(|e| e.platform.as_ref())
                    .filter(|p| p.os != "unknown")
                    .map(Platform::to_string)
                    .collect();
                have.dedup();
                have.truncate(20);
                Fault::new(
                    Kind::NoSuchObject,
                    format!(
                        "there is no image for {wanted}; it is offered for {}",
                        have.join(", ")
                    ),
                )
                .hint("Another one can be asked for with --platform OS/ARCH.")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest_text() -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{D}","size":2}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{D}","size":3}}]}}"#
        )
    }

    fn index_text(platforms: &[&str]) -> String {
        let entries: Vec<String> = platforms
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let p = Platform::parse(p).unwrap();
                format!(
                    r#"{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{i:064}","size":5,
                    "platform":{{"os":"{}","architecture":"{}","variant":"{}"}}}}"#,
                    p.os,
                    p.architecture,
                    p.variant.unwrap_or_default()
                )
            })
            .collect();
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        )
    }

    #[test]
    fn manifest_and_index_are_told_apart_by_content() {
        assert!(matches!(
            parse(manifest_text().as_bytes(), None),
            Ok(Document::Manifest(m)) if m.layers.len() == 1
        ));
        assert!(matches!(
            parse(
                index_text(&["linux/amd64"]).as_bytes(),
                Some("application/json; charset=utf-8")
            ),
            Ok(Document::Index(_))
        ));
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let text = manifest_text();
        assert!(parse(text.as_bytes(), Some(OCI_INDEX)).is_err());
        let both = text.replacen('{', r#"{"manifests":[],"#, 1);
        assert!(parse(both.as_bytes(), None).is_err());
        let twice = text.replacen('{', r#"{"layers":[],"#, 1);
        assert!(parse(twice.as_bytes(), None).is_err(), "duplicate key");
        let mislabelled = index_text(&["linux/amd64"]).replacen(
            '{',
            &format!(r#"{{"mediaType":"{OCI_MANIFEST}","#),
            1,
        );
        assert!(parse(mislabelled.as_bytes(), None).is_err());
    }

    #[test]
    fn bad_digests_sizes_kinds_and_schema1_are_refused() {
        for (from, to) in [
            (D, "sha256:../../x"),
            ("\"size\":3", "\"size\":-1"),
            ("\"size\":3", "\"size\":9223372036854775807"),
            ("\"schemaVersion\":2", "\"schemaVersion\":3"),
            (
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.cncf.helm.config.v1+json",
            ),
        ] {
            assert!(
                parse(manifest_text().replace(from, to).as_bytes(), None).is_err(),
                "{to}"
            );
        }
        let old = r#"{"schemaVersion":1,"name":"x","fsLayers":[],"history":[]}"#;
        assert!(
            parse(old.as_bytes(), None)
                .unwrap_err()
                .to_string()
                .contains("schema 1")
        );
        assert!(parse(b"", None).is_err());
        assert!(parse(b"[]", None).is_err());
    }

    #[test]
    fn index_chooses_nearest_variant_and_lists_what_there_is() {
        let Ok(Document::Index(index)) = parse(
            index_text(&["linux/amd64", "linux/arm/v5", "linux/arm/v6"]).as_bytes(),
            None,
        ) else {
            panic!("an index")
        };
        let pick = |p: &str| {
            index
                .choose(&Platform::parse(p).unwrap())
                .map(|e| e.descriptor.digest.hex().to_owned())
        };
        assert!(pick("linux/arm/v7").unwrap().ends_with('2'));
        assert!(pick("linux/amd64").unwrap().ends_with('0'));
        let e = pick("linux/s390x").unwrap_err().to_string();
        assert!(e.contains("linux/amd64, linux/arm/v5"), "{e}");
    }
}
