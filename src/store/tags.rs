//! Names of images: one file per name, `tags/<escaped reference>.json`, so that two commands never fight over a list.
//!
//! The file name is the reference with everything but letters, digits, `.`, `-` and `_` written `%XX`; a long one is cut and ends
//! in its own SHA-256 (some file systems allow 143 bytes), so the reference is also inside.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::files;
use crate::error::Result;
use crate::image::digest::Digest;
use crate::image::reference::Reference;

const NAME_LIMIT: usize = 130;
const CUT: usize = 60;

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    /// The name, normalised.
    pub(crate) reference: String,
    /// Id of the image.
    pub(crate) image: String,
    /// Digest of the image's manifest.
    pub(crate) digest: String,
    /// Digest of the index through which the image was chosen, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) list_digest: Option<String>,
}

impl Tag {
    /// Whether the name's repository served this digest.
    pub(crate) fn served(&self, digest: &str) -> bool {
        self.digest == digest || self.list_digest.as_deref() == Some(digest)
    }
}

fn path(dir: &Path, reference: &str) -> PathBuf {
    let mut name = reference.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-_.".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    });
    if name.len() > NAME_LIMIT {
        name.truncate(CUT);
        name = format!("{name}~{}", Digest::sha256(reference.as_bytes()).hex());
    }
    dir.join(name + ".json")
}

/// The reference that a file name stands for, unless it was cut.
fn reference_of(file_name: &str) -> Option<String> {
    let name = file_name.strip_suffix(".json")?;
    if name.contains('~') {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = name.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let hex = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The tag of exactly this name.
pub(crate) fn get(dir: &Path, reference: &Reference) -> Result<Option<Tag>> {
    files::read_json(&path(dir, &reference.to_string()))
}

/// Sets a name, replacing what it meant.
pub(crate) fn set(dir: &Path, tag: &Tag) -> Result<()> {
    files::write_json(&path(dir, &tag.reference), tag)
        .with_context(|| format!("naming the image {}", tag.reference))
}

/// Removes a name; `false` when there was none.
pub(crate) fn remove(dir: &Path, reference: &str) -> Result<bool> {
    files::remove_file(&path(dir, reference)).with_context(|| format!("untagging {reference}"))
}

/// Every tag whose reference passes `wanted`. Only those files are read. A damaged one is skipped: its image
/// stays reachable by id and the next pull writes it anew.
pub(crate) fn list(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Tag>> {
    let mut tags = Vec::new();
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries {
        let name = entry
            .with_context(|| format!("reading {}", dir.display()))?
            .file_name();
        let Some(name) = name
            .to_str()
            .filter(|n| !n.starts_with('.') && n.ends_with(".json"))
        else {
            continue;
        };
        if reference_of(name).is_some_and(|r| !wanted(&r)) {
            continue;
        }
        if let Ok(Some(tag)) = files::read_json::<Tag>(&dir.join(name))
            && wanted(&tag.reference)
        {
            tags.push(tag);
        }
    }
    tags.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(reference: &str) -> Tag {
        Tag {
            reference: reference.to_owned(),
            image: "0".repeat(64),
            digest: "sha256:x".to_owned(),
            list_digest: None,
        }
    }

    #[test]
    fn names_of_any_length_are_kept_apart_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let long = |end: &str| format!("localhost:5000/{}{end}:latest", "a".repeat(200));
        let names = [
            "docker.io/library/alpine:latest".to_owned(),
            long("b"),
            long("c"),
        ];
        for name in &names {
            set(dir.path(), &tag(name)).unwrap();
        }
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            assert!(entry.unwrap().file_name().len() < 143);
        }
        for name in &names {
            let reference = Reference::parse(name).unwrap();
            assert_eq!(
                get(dir.path(), &reference).unwrap().unwrap().reference,
                *name
            );
        }
        assert_eq!(
            list(dir.path(), &|r| r.ends_with("c:latest"))
                .unwrap()
                .len(),
            1
        );
        assert!(remove(dir.path(), &names[1]).unwrap());
        assert!(!remove(dir.path(), &names[1]).unwrap());
        assert_eq!(list(dir.path(), &|_| true).unwrap().len(), 2);
    }

    #[test]
    fn damaged_tag_is_skipped_not_fatal() {
        let dir = tempfile::tempdir().unwrap();
        set(dir.path(), &tag("a.io/x:1")).unwrap();
        std::fs::write(dir.path().join("a.io%2Fy%3A1.json"), "{").unwrap();
        assert_eq!(list(dir.path(), &|_| true).unwrap().len(), 1);
    }

    #[test]
    fn escaping_is_undone() {
        let text = "h:5000/a/b-c_d.e:T@sha256:0";
        let file = path(Path::new(""), text);
        assert_eq!(reference_of(file.to_str().unwrap()).unwrap(), text);
    }
}
