//! `rless rm`.

use std::path::PathBuf;

use super::{each, format, object_exit_code};
use crate::container::record::{Containers, Listing, Record};
use crate::container::remove::{How, remove, remove_if_there};
use crate::error::{self, Kind, Result, ResultExt, failed, usage};
use crate::store::Store;

/// Remove containers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove all containers
    #[arg(short, long)]
    all: bool,
    /// Stop running containers first
    #[arg(short, long)]
    force: bool,
    /// No such container is no error
    #[arg(short, long)]
    ignore: bool,
    /// Remove the last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Remove the containers' anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,
    /// Seconds to wait for a container to stop before it is killed
    #[arg(short, long, value_name = "SECONDS", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Read a container's id from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let store = Store::open()?;
    let containers = Containers::of(&store);
    containers.heal_live();
    let how = How {
        force: args.force,
        volumes: args.volumes,
        timeout: super::stop::seconds(args.time),
    };
    let missing_ok = args.ignore || args.force;
    // Prints what was typed, as podman does.
    let gone = |record: &Record, typed: &str| -> Result<()> {
        if missing_ok || args.all {
            remove_if_there(&store, record, how)?;
        } else {
            remove(&store, record, how)?;
        }
        format::print(&format!("{typed}\n"))
    };
    // One that cannot be read goes by force only.
    let damaged = |typed: &str, e: anyhow::Error| -> Result<()> {
        if args.force && containers.remove_unreadable(typed, args.volumes)? {
            return format::print(&format!("{typed}\n"));
        }
        Err(e)
    };
    let mut names = args.names.clone();
    for path in &args.cidfile {
        match std::fs::read_to_string(path) {
            Ok(id) => names.push(id.trim().to_owned()),
            Err(_) if args.ignore => {}
            Err(e) => {
                return Err(e)
                    .fault(|| failed(format!("reading the container id from {}", path.display())));
            }
        }
    }
    if args.all || args.latest {
        if !names.is_empty() {
            return Err(usage("--all and --latest exclude names").into());
        }
        let Listing {
            mut records,
            mut skipped,
        } = containers.listing()?;
        if args.latest {
            records.truncate(1);
            skipped.clear();
        }
        let mut code = 0;
        for (id, e) in skipped {
            if let Err(e) = damaged(&id, e) {
                super::complain(&e);
                code = object_exit_code(error::kind(&e));
            }
        }
        for record in &records {
            if let Err(e) = gone(record, &record.id) {
                super::complain(&e);
                code = object_exit_code(error::kind(&e));
            }
        }
        return Ok(code);
    }
    if names.is_empty() && args.cidfile.is_empty() {
        return Err(usage("rm needs the name or id of a container")
            .hint("or --all, --latest")
            .into());
    }
    Ok(each(names.iter().map(String::as_str), |name| {
        let record = match containers.find(name) {
            Err(e) if missing_ok && error::kind(&e) == Kind::NoSuchObject => {
                return Ok(());
            }
            Err(e) => return damaged(name, e),
            Ok(record) => record,
        };
        gone(&record, name)
    }))
}
