//! Listing containers: filters, order, sizes.

use super::filter::Filters;
use super::record::{Containers, Listing, Record};
use crate::cow;
use crate::error::{Result, usage};
use crate::store::Store;

/// The containers that pass, newest first. What cannot be read is listed whatever the filters say.
///
/// # Errors
/// The store cannot be read; `since` or `before` name no container.
pub fn list(store: &Store, filters: &Filters) -> Result<Listing> {
    let mut listing = Containers::of(store).listing()?;
    filters.keep(store, &mut listing.records)?;
    Ok(listing)
}

/// Sorts as `ps --sort` says; `created` is oldest first, `size` is what [`disk_use`] adds up to, least first (as podman's).
///
/// # Errors
/// An unknown field.
pub fn sort(store: &Store, records: &mut [Record], by: &str) -> Result<()> {
    records.sort_by_key(|r| r.created); // the order of those that are equal
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
