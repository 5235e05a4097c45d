//! Listing containers: filters, order, sizes.

use jiff::Timestamp;

use super::record::{Containers, Listing, Record, State};
use crate::cow;
use crate::error::{Result, usage};
use crate::store::Store;

/// One `--filter KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Part of the name.
    Name(String),
    /// Beginning of the id.
    Id(String),
    /// State.
    Status(Vec<String>),
    /// Ended with this code.
    Exited(i32),
    /// Label, with this value if given.
    Label(String, Option<String>),
    /// Image: part of the name, or beginning of the id.
    Ancestor(String),
    /// Uses this volume, or has a mount at this path.
    Volume(String),
    /// Network.
    Network(String),
    /// Made after this container.
    Since(String),
    /// Made before this container.
    Before(String),
}

impl Filter {
    /// Reads one filter.
    ///
    /// # Errors
    /// An unknown key or a malformed value.
    pub fn parse(text: &str) -> Result<Filter> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| usage(format!("invalid filter {text:?}: expected KEY=VALUE")))?;
        let owned = value.to_owned();
        Ok(match key {
            "name" => Filter::Name(owned),
            "id" => Filter::Id(owned),
            "status" => {
                let words = [
                    "created",
                    "initialized",
                    "running",
                    "exited",
                    "paused",
                    "stopped",
                    "stopping",
                    "restarting",
                    "removing",
                    "dead",
                    "unknown",
                ];
                if !words.contains(&value) {
                    return Err(usage(format!("{value:?} is not a valid status")).into());
                }
                Filter::Status(vec![owned])
            }
            "exited" => Filter::Exited(
                value
                    .parse()
                    .map_err(|_| usage(format!("exit code {value:?} is not a number")))?,
            ),
            "label" => match value.split_once('=') {
                Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
                None => Filter::Label(owned, None),
            },
            "ancestor" => Filter::Ancestor(owned),
            "volume" => Filter::Volume(owned),
            "network" => Filter::Network(owned),
            "since" | "after" => Filter::Since(owned),
            "before" => Filter::Before(owned),
            other => {
                return Err(usage(format!("{other} is an invalid filter"))
                    .hint("one of name, id, status, exited, label, ancestor, volume, network, since, before")
                    .into());
            }
        })
    }

    /// It picks by state, so that it means `--all`.
    #[must_use]
    pub fn is_about_state(&self) -> bool {
        matches!(self, Filter::Status(_) | Filter::Exited(_))
    }

    fn same_key(&self, other: &Filter) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn matches(&self, record: &Record, made: &dyn Fn(&str) -> Option<Timestamp>) -> bool {
        match self {
            Filter::Name(part) => record
                .name
                .contains(part.trim_start_matches('^').trim_end_matches('$')),
            Filter::Id(start) => record.id.starts_with(start.as_str()),
            Filter::Status(words) => words.iter().any(|w| w == record.state.word()),
            Filter::Exited(code) => {
                record.state == State::Exited && record.exit_code == Some(*code)
            }
            Filter::Label(key, None) => record.labels.contains_key(key),
            Filter::Label(key, Some(value)) => record.labels.get(key) == Some(value),
            Filter::Ancestor(image) => {
                record.image.contains(image.as_str())
                    || record
                        .image_id
                        .as_ref()
                        .is_some_and(|id| id.starts_with(image.as_str()))
            }
            Filter::Volume(volume) => {
                record.volumes.contains(volume) || record.mounts.contains(volume)
            }
            Filter::Network(network) => record.network.split(':').next() == Some(network),
            Filter::Since(name) => record.created > made(name) && made(name).is_some(),
            Filter::Before(name) => record.created < made(name),
        }
    }
}

/// The containers that pass: filters of one key add up, except labels; different keys all must hold. What cannot be
/// read is listed whatever the filters say.
///
/// # Errors
/// The store cannot be read; `since` or `before` name no container.
pub fn list(store: &Store, filters: &[Filter]) -> Result<Listing> {
    let containers = Containers::of(store);
    for filter in filters {
        if let Filter::Since(name) | Filter::Before(name) = filter {
            containers.find(name)?;
        }
    }
    let made = |name: &str| containers.find(name).ok().and_then(|r| r.created);
    let passes = |record: &Record| {
        filters.iter().all(|filter| match filter {
            Filter::Label(..) => filter.matches(record, &made),
            _ => filters
                .iter()
                .any(|other| other.same_key(filter) && other.matches(record, &made)),
        })
    };
    let mut listing = containers.listing()?;
    listing.records.retain(passes);
    Ok(listing)
}

/// Sorts as `ps --sort` says; `created` is newest first, `size` is what [`disk_use`] adds up to, least first (as podman's).
///
/// # Errors
/// An unknown field.
pub fn sort(store: &Store, records: &mut [Record], by: &str) -> Result<()> {
    match by {
        "created" | "runningfor" => {}
        "size" => records.sort_by_cached_key(|r| {
            let used = disk_use(store, r);
            used.own + used.image
        }),
        "command" => records.sort_by(|a, b| a.command.cmp(&b.command)),
        "id" => records.sort_by(|a, b| a.id.cmp(&b.id)),
        "image" => records.sort_by(|a, b| a.image.cmp(&b.image)),
        "names" => records.sort_by(|a, b| a.name.cmp(&b.name)),
        "status" => records.sort_by(|a, b| a.state.word().cmp(b.state.word())),
        other => {
            return Err(usage(format!("invalid sort field {other:?}"))
                .hint("one of command, created, id, image, names, runningfor, size, status")
                .into());
        }
    }
    Ok(())
}

/// Disk use of a container, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// What it changed.
    pub own: u64,
    /// Its image.
    pub image: u64,
}

/// What the container has on disk: what its file system noted of itself, and its image's size.
///
/// Costs a small read and no walk. A running container's figure is some seconds old at most.
#[must_use]
pub fn disk_use(store: &Store, record: &Record) -> Usage {
    let upper = Containers::of(store).place(&record.id).upper();
    let noted = cow::Usage::noted(&upper).ok().flatten();
    let image = record
        .image_id
        .as_ref()
        .and_then(|id| store.find_image(id).ok().flatten());
    Usage {
        own: noted.map_or(0, |u| u.bytes),
        image: image.map_or(0, |i| i.size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        assert_eq!(Filter::parse("name=x").unwrap(), Filter::Name("x".into()));
        assert_eq!(
            Filter::parse("label=a=b").unwrap(),
            Filter::Label("a".into(), Some("b".into()))
        );
        assert_eq!(Filter::parse("exited=137").unwrap(), Filter::Exited(137));
        for bad in ["name", "status=asleep", "exited=x", "colour=red"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }
}
