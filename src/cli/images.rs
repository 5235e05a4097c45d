//! `rless images`.

use serde_json::json;

use super::format::{self, Listing, Row};
use super::human;
use crate::error::{Fault, Result, usage};
use crate::image::digest::quoted;
use crate::image::reference::Reference;
use crate::store::{Image, Store, short};

/// List images.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only images of this name (a pattern may have *, ? and [a-z])
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
    /// Show all images (there are no hidden ones)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only images that match: reference=PATTERN, dangling=BOOL, label=KEY[=VALUE], before=IMAGE, since=IMAGE, id=ID
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Print JSON (`json`) or render a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not print the headings
    #[arg(short, long, visible_alias = "noheadings")]
    noheading: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Sort by created, id, repository, size or tag
    #[arg(long, value_name = "KEY", default_value = "created")]
    sort: Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Key {
    Created,
    Id,
    Repository,
    Size,
    Tag,
}

const TABLE: &str = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Created}}\t{{.Size}}";
const TABLE_DIGESTS: &str =
    "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.Created}}\t{{.Size}}";
const NONE: &str = "<none>";

pub(crate) fn run(args: &Args) -> Result<u8> {
    let filters = args
        .filter
        .iter()
        .map(|f| Filter::parse(f))
        .chain(args.image.iter().map(|p| Ok(Filter::Reference(p.clone()))))
        .collect::<Result<Vec<_>, Fault>>()?;
    let store = Store::open()?;
    let filters = filters
        .into_iter()
        .map(|f| f.resolve(&store))
        .collect::<Result<Vec<_>>>()?;
    let mut lines: Vec<Line> = Vec::new();
    for image in store.images()? {
        if !filters.iter().all(|f| f.passes(&image)) {
            continue;
        }
        lines.extend(lines_of(&image, &filters, args.no_trunc));
    }
    sort(&mut lines, args.sort);
    if args.quiet {
        let mut ids: Vec<&str> = Vec::new();
        for line in &lines {
            if !ids.contains(&line.id.as_str()) {
                ids.push(&line.id);
            }
        }
        let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
        format::print(&text)?;
        return Ok(0);
    }
    let listing = Listing {
        table: if args.digests { TABLE_DIGESTS } else { TABLE },
        headings: &[
            ("ID", "IMAGE ID"),
            ("Id", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
        ],
        fields: &[
            "Repository",
            "Tag",
            "ID",
            "Id",
            "Digest",
            "Created",
            "CreatedAt",
            "CreatedSince",
            "CreatedTime",
            "Size",
            "VirtualSize",
            "Names",
            "RepoTags",
            "RepoDigests",
            "Labels",
            "Dangling",
            "Containers",
            "ReadOnly",
            "ParentId",
            "Architecture",
            "Os",
        ],
        heading: !args.noheading,
        fit: false,
    };
    // JSON has one object per image, a table one line per name.
    if args.format.as_deref().and_then(format::JsonForm::of) == Some(format::JsonForm::Whole) {
        let mut seen = std::collections::HashSet::new();
        lines.retain(|l| seen.insert(l.full_id.clone()));
    }
    let rows: Vec<Row> = lines.into_iter().map(|l| l.row).collect();
    format::print(&listing.render(&rows, args.format.as_deref())?)?;
    Ok(0)
}

struct Line {
    repository: String,
    tag: String,
    id: String,
    full_id: String,
    size: u64,
    created: i64,
    row: Row,
}

/// One line per name, or one for a nameless image.
fn lines_of(image: &Image, filters: &[Filter], no_trunc: bool) -> Vec<Line> {
    let mut names: Vec<Option<&String>> = image
        .names
        .iter()
        .filter(|n| filters.iter().all(|f| f.shows(n)))
        .map(Some)
        .collect();
    if image.names.is_empty() {
        names.push(None);
    }
    names
        .into_iter()
        .map(|name| line(image, name, no_trunc))
        .collect()
}

fn line(image: &Image, name: Option<&String>, no_trunc: bool) -> Line {
    let reference = name.and_then(|n| Reference::parse(n).ok());
    let none = || NONE.to_owned();
    let repository = reference.as_ref().map_or_else(none, Reference::repository);
    let tag = reference
        .as_ref()
        .and_then(|r| r.tag().map(str::to_owned))
        .unwrap_or_else(none);
    let id = if no_trunc {
        format!("sha256:{}", image.id)
    } else {
        short(&image.id).to_owned()
    };
    let created = image.created.map_or(0, |t| t.as_second());
    let created_at = image.created.map(human::date).unwrap_or_default();
    let since = human::ago(image.created);
    let config = image.config.config().as_ref();
    let labels = config.and_then(|c| c.labels().clone()).unwrap_or_default();
    let fields = json!({
        "Repository": repository,
        "Tag": tag,
        "ID": id,
        "Id": image.id,
        "Digest": image.digest,
        "Created": since,
        "CreatedSince": since,
        "CreatedAt": created_at,
        "CreatedTime": created_at,
        "Size": human::size(image.size),
        "VirtualSize": image.size,
        "Names": image.names,
        "RepoTags": image.names,
        "RepoDigests": image.repo_digests,
        "Labels": labels,
        "Dangling": image.names.is_empty(),
        "Containers": 0,
        "ReadOnly": false,
        "ParentId": "",
        "Architecture": image.architecture,
        "Os": image.os,
    });
    let json = json!({
        "Id": image.id,
        "ParentId": "",
        "RepoTags": (!image.names.is_empty()).then_some(&image.names),
        "RepoDigests": image.repo_digests,
        "Size": image.size,
        "SharedSize": 0,
        "VirtualSize": image.size,
        "Labels": labels,
        "Containers": 0,
        "Names": image.names,
        "Digest": image.digest,
        "Created": created,
        "CreatedAt": image.created.map(|t| t.to_string()),
        "Dangling": image.names.is_empty(),
        "Arch": image.architecture,
        "Os": image.os,
    });
    Line {
        repository,
        tag,
        id,
        full_id: image.id.clone(),
        size: image.size,
        created,
        row: Row { fields, json },
    }
}

fn sort(lines: &mut [Line], key: Key) {
    lines.sort_by(|a, b| match key {
        Key::Created => b.created.cmp(&a.created),
        Key::Id => a.id.cmp(&b.id),
        Key::Repository => a
            .repository
            .cmp(&b.repository)
            .then_with(|| a.tag.cmp(&b.tag)),
        Key::Size => a.size.cmp(&b.size),
        Key::Tag => a.tag.cmp(&b.tag),
    });
}

#[derive(Debug, Clone, PartialEq)]
enum Filter {
    Reference(String),
    Dangling(bool),
    Label(String, Option<String>),
    Id(String),
    /// `before=IMAGE` (true) and `since=IMAGE`, by name and then by time.
    Relative(bool, String),
    Before(jiff::Timestamp),
    Since(jiff::Timestamp),
}

impl Filter {
    fn parse(text: &str) -> Result<Filter, Fault> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| usage(format!("filter {} is not KEY=VALUE", quoted(text))))?;
        Ok(match key {
            "reference" => Filter::Reference(value.to_owned()),
            "dangling" => Filter::Dangling(match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => {
                    return Err(usage(format!(
                        "filter dangling={value} is neither true nor false"
                    )));
                }
            }),
            "label" => match value.split_once('=') {
                Some((k, v)) => Filter::Label(k.to_owned(), Some(v.to_owned())),
                None => Filter::Label(value.to_owned(), None),
            },
            "id" => Filter::Id(value.trim_start_matches("sha256:").to_owned()),
            "before" => Filter::Relative(true, value.to_owned()),
            "since" | "after" => Filter::Relative(false, value.to_owned()),
            _ => {
                return Err(usage(format!(
                    "filter {} is none of reference, dangling, label, id, before, since",
                    quoted(key)
                )));
            }
        })
    }

    /// Replaces an image's name by its time.
    fn resolve(self, store: &Store) -> Result<Filter> {
        let Filter::Relative(before, name) = self else {
            return Ok(self);
        };
        let image = store.find_image(&name)?.ok_or_else(|| {
            Fault::new(
                crate::error::Kind::NoSuchObject,
                format!("{name}: image not known"),
            )
        })?;
        let time = image.created.unwrap_or_default();
        Ok(if before {
            Filter::Before(time)
        } else {
            Filter::Since(time)
        })
    }

    fn passes(&self, image: &Image) -> bool {
        let created = image.created.unwrap_or_default();
        match self {
            Filter::Reference(_) => image.names.iter().any(|n| self.shows(n)),
            Filter::Dangling(wanted) => image.names.is_empty() == *wanted,
            Filter::Label(key, value) => {
                let config = image.config.config().as_ref();
                let labels = config.and_then(|c| c.labels().as_ref());
                labels
                    .and_then(|l| l.get(key))
                    .is_some_and(|have| value.as_ref().is_none_or(|v| v == have))
            }
            Filter::Id(prefix) => image.id.starts_with(prefix.as_str()),
            Filter::Before(time) => created < *time,
            Filter::Since(time) => created > *time,
            Filter::Relative(..) => true,
        }
    }

    /// Whether an image that passes is listed under this name.
    fn shows(&self, name: &str) -> bool {
        match self {
            Filter::Reference(pattern) => matches_reference(pattern, name),
            _ => true,
        }
    }
}

/// A pattern matches the whole name, or the name from any of its components on; the tag may be left out.
fn matches_reference(pattern: &str, name: &str) -> bool {
    let without_tag = match Reference::parse(name) {
        Ok(r) => r.repository(),
        Err(_) => name.to_owned(),
    };
    [name, &without_tag].into_iter().any(|text| {
        let starts = text.match_indices('/').map(|(i, _)| i + 1);
        std::iter::once(0)
            .chain(starts)
            .filter_map(|i| text.get(i..))
            .any(|tail| glob(pattern.as_bytes(), tail.as_bytes()))
    })
}

/// Go's `path.Match`: `*` and `?` do not match a slash.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Dynamic over pattern positions, so that many stars cost no more than one.
    let mut reached = vec![false; pattern.len() + 1];
    let close = |reached: &mut Vec<bool>| {
        for i in 0..pattern.len() {
            if reached.get(i) == Some(&true) && pattern.get(i) == Some(&b'*') {
                reached.splice(i + 1..i + 2, [true]);
            }
        }
    };
    reached.splice(0..1, [true]);
    close(&mut reached);
    for &byte in text {
        let mut next = vec![false; pattern.len() + 1];
        for i in (0..pattern.len()).filter(|i| reached.get(*i) == Some(&true)) {
            let to = match step(pattern.get(i..).unwrap_or_default(), byte) {
                Some(width) => i + width,
                None => continue,
            };
            next.splice(to..=to, [true]);
        }
        close(&mut next);
        reached = next;
    }
    reached.last() == Some(&true)
}

/// How far the pattern moves on when its first element takes `byte`; a star stays.
fn step(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'*', ..] => (byte != b'/').then_some(0),
        [b'?', ..] => (byte != b'/').then_some(1),
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|b| *b == b']').filter(|e| *e > 0)?;
            let set = rest.get(..end)?;
            let (negated, set) = match set {
                [b'^' | b'!', set @ ..] => (true, set),
                set => (false, set),
            };
            let found = set.contains(&byte)
                || set
                    .windows(3)
                    .any(|w| matches!(w, [a, b'-', z] if (*a..=*z).contains(&byte)));
            (found != negated).then_some(end + 2)
        }
        [b'\\', b, ..] => (*b == byte).then_some(2),
        [b, ..] => (*b == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_patterns_match_as_podman() {
        let name = "docker.io/library/alpine:3.20";
        for pattern in [
            "alpine",
            "alpine:3.20",
            "library/alpine",
            "docker.io/library/alpine",
            "alp*",
            "*:3*",
            "al?ine",
            "alpine:3.[12]0",
            "docker.io/*/alpine",
        ] {
            assert!(matches_reference(pattern, name), "{pattern}");
        }
        for pattern in [
            "lpine",
            "alpine:3",
            "docker.io/*",
            "alpine:3.[!2]0",
            "",
            "al[",
            "alpine\\",
        ] {
            assert!(!matches_reference(pattern, name), "{pattern}");
        }
        assert!(!glob(&[b'*'; 60], b"a/b"));
        assert!(glob("*a".repeat(40).as_bytes(), "a".repeat(200).as_bytes()));
    }

    #[test]
    fn filters_are_checked() {
        assert_eq!(
            Filter::parse("label=a=b=c").unwrap(),
            Filter::Label("a".into(), Some("b=c".into()))
        );
        for bad in ["x", "x=y", "dangling=maybe"] {
            assert!(Filter::parse(bad).is_err());
        }
    }
}
