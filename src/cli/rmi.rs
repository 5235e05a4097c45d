//! `rless rmi`.

use super::{complain, format, object_exit_code};
use crate::container::image;
use crate::container::record::Containers;
use crate::container::remove::{How, remove_if_there};
use crate::error::{self, Kind, Result, usage};
use crate::store::{Removed, Store};

/// Remove images, or names of images.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names or ids
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Remove every image
    #[arg(short, long, conflicts_with = "images")]
    all: bool,
    /// Remove all names of an image given by id, and the containers that use it
    #[arg(short, long)]
    force: bool,
    /// An image that does not exist is no error
    #[arg(short, long)]
    ignore: bool,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if args.images.is_empty() && !args.all {
        return Err(usage("rmi needs an image")
            .hint("`rless rmi IMAGE`, or `rless rmi --all`.")
            .into());
    }
    let store = Store::open()?;
    let names = if args.all {
        store.images()?.into_iter().map(|i| i.id).collect()
    } else {
        args.images.clone()
    };
    let mut code = 0;
    for name in &names {
        let users = |id: &str| users(&store, id, args.force);
        match image::remove(&store, name, args.force || args.all, &users) {
            Ok(removed) => format::print(&removed.iter().map(line).collect::<String>())?,
            Err(e) if args.ignore && error::kind(&e) == Kind::NoSuchObject => {}
            Err(e) => {
                complain(&e);
                code = object_exit_code(error::kind(&e));
            }
        }
    }
    Ok(code)
}

/// The containers that use an image and stay: with `force` they are removed first.
fn users(store: &Store, image: &str, force: bool) -> Vec<String> {
    let containers = Containers::of(store);
    // Cleared first; then each is asked, those with a damaged record too.
    let records = match containers.list().and_then(|_| containers.all()) {
        Ok(records) => records,
        // What cannot be looked through may use it.
        Err(e) => {
            complain(&e);
            return vec!["(unknown)".to_owned()];
        }
    };
    let mut left = Vec::new();
    for record in records {
        if record.image_id.as_deref() != Some(image) {
            continue;
        }
        let how = How {
            force: true,
            // As podman's.
            volumes: false,
            timeout: None,
        };
        if !force {
            left.push(record.id);
        } else if let Err(e) = remove_if_there(store, &record, how) {
            complain(&e);
            left.push(record.id);
        }
    }
    left
}

fn line(removed: &Removed) -> String {
    match removed {
        Removed::Untagged(name) => format!("Untagged: {name}\n"),
        Removed::Deleted(id) => format!("Deleted: {id}\n"),
    }
}
