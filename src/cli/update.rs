//! `rless update`.

use super::format;
use super::run::{Bounds, Checks};
use crate::container::record::Containers;
use crate::container::update::{Change, update};
use crate::error::Result;
use crate::store::Store;

/// Change the limits, the restart policy and the health check of a container.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    checks: Checks,
    /// When to start it again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Name, id, or the beginning of one
    #[arg(value_name = "CONTAINER")]
    name: String,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let change = Change {
        limits: args.bounds.changes()?,
        restart: args.restart.as_deref().map(str::parse).transpose()?,
        health: args.checks.changes()?,
    };
    let store = Store::open()?;
    let containers = Containers::of(&store);
    containers.heal_live();
    let record = containers.find(&args.name)?;
    update(&containers, &record, &change)?;
    format::print(&format!("{}\n", record.id))?;
    Ok(0)
}
