//! `rless stop`.

use std::path::PathBuf;

use super::select::{Wanted, each_at_once};
use crate::container::record::{Containers, Record};
use crate::container::stop::stop_by_user;
use crate::error::{Kind, Result};
use crate::store::Store;

/// Stop containers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stop all running containers
    #[arg(short, long)]
    all: bool,
    /// Read a container's id from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Stop those that pass: name=, id=, status=, label=, ancestor=, …
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// No such container is no error
    #[arg(short, long)]
    ignore: bool,
    /// Stop the last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Seconds to wait before a container is killed; -1: for ever
    #[arg(
        short,
        long,
        alias = "timeout",
        value_name = "SECONDS",
        allow_hyphen_values = true
    )]
    time: Option<i64>,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let store = Store::open()?;
    let containers = Containers::of(&store);
    let wanted = Wanted {
        names: &args.names,
        all: args.all,
        latest: args.latest,
        filters: &args.filter,
        cidfiles: &args.cidfile,
        ignore: args.ignore,
    };
    let timeout = seconds(args.time);
    let stop = |record: &Record| stop_by_user(&containers, record, timeout);
    Ok(each_at_once(&wanted.find(&store)?, stop, Kind::exit_code))
}

/// A time limit: below zero there is none.
pub(crate) fn seconds(time: Option<i64>) -> Option<u64> {
    time.map(|t| u64::try_from(t).unwrap_or(u64::MAX))
}
