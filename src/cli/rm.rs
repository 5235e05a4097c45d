//! `rless rm`.

use std::path::PathBuf;

use super::select::{Wanted, each_dependent_first};
use super::stop::seconds;
use super::{complain, format, object_exit_code};
use crate::container::record::{Containers, Record};
use crate::container::remove::{How, remove, remove_if_there};
use crate::container::shared;
use crate::error::{self, Kind, Result, usage};
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
    #[arg(
        short,
        long,
        alias = "timeout",
        value_name = "SECONDS",
        allow_hyphen_values = true
    )]
    time: Option<i64>,
    /// Remove those that pass: name=, id=, status=, label=, ancestor=, …
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Remove the containers that use namespaces of these, too
    #[arg(long)]
    depend: bool,
    /// Read a container's id from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if args.time.is_some() && !args.force {
        return Err(usage("--force option must be specified to use the --time option").into());
    }
    let store = Store::open()?;
    let containers = Containers::of(&store);
    let missing_ok = args.ignore || args.force;
    let mut wanted = Wanted {
        names: &args.names,
        all: args.all,
        latest: args.latest,
        filters: &args.filter,
        cidfiles: &args.cidfile,
        ignore: missing_ok,
    };
    wanted.check()?;
    // A container whose record cannot be read goes by force only.
    let mut names = wanted.named()?;
    if args.force {
        let mut unreadable = names.clone();
        if args.all {
            unreadable = containers
                .listing()?
                .skipped
                .into_iter()
                .map(|(id, _)| id)
                .collect();
        }
        for name in unreadable {
            if containers.remove_unreadable(&name, args.volumes)? {
                names.retain(|n| *n != name);
                format::print(&format!("{name}\n"))?;
            }
        }
        if names.is_empty() && !(args.all || args.latest || !args.filter.is_empty()) {
            return Ok(0);
        }
    }
    (wanted.names, wanted.cidfiles) = (&names, &[]);
    let nothing_named = names.is_empty() && !args.cidfile.is_empty();
    let chosen = if nothing_named {
        Ok(Vec::new())
    } else {
        wanted.find(&store)
    };
    let mut chosen = match chosen {
        Err(e) if error::kind(&e) == Kind::NoSuchObject => {
            complain(&e);
            return Ok(object_exit_code(Kind::NoSuchObject));
        }
        chosen => chosen?,
    };
    if args.depend {
        add_dependents(&containers, &mut chosen)?;
    }
    let how = How {
        force: args.force,
        volumes: args.volumes,
        timeout: seconds(args.time),
    };
    let gone = |record: &Record| {
        if missing_ok || args.all {
            remove_if_there(&store, record, how)
        } else {
            remove(&store, record, how)
        }
    };
    Ok(each_dependent_first(chosen, gone, object_exit_code))
}

/// With those that depend on the chosen, and on them, and so on.
fn add_dependents(containers: &Containers, chosen: &mut Vec<(String, Record)>) -> Result<()> {
    let mut next = 0;
    while let Some((_, record)) = chosen.get(next) {
        let theirs = shared::dependents(containers, record)?;
        let new = |r: &Record| !chosen.iter().any(|(_, c)| c.id == r.id);
        let new: Vec<Record> = theirs.into_iter().filter(new).collect();
        chosen.extend(new.into_iter().map(|r| (r.id.clone(), r)));
        next += 1;
    }
    Ok(())
}
