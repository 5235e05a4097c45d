//! `rless snapshot` and `rless restore`: states of a container's files that are kept.

use super::format;
use crate::container::record::Containers;
use crate::container::snapshot::{self, Snapshot};
use crate::error::{Result, usage};
use crate::store::Store;

/// Keep the state that a container's files have now, to restore it later.
///
/// It takes an instant whatever the container holds, and no space until the container changes what it shares with it. The
/// container may run: it is as if its power had been cut in that moment. What is mounted in it is not part of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// List the container's snapshots
    #[arg(long, conflicts_with_all = ["rm", "name"])]
    list: bool,
    /// Remove the snapshot instead
    #[arg(long, requires = "name")]
    rm: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The snapshot's name; made from the time if it is left out
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Put a container's files back into the state of a snapshot.
///
/// The container must not run. The snapshot stays.
#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The snapshot
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let store = Store::open()?;
    let record = Containers::of(&store).find(&args.container)?;
    match &args.name {
        _ if args.list => list(&snapshot::list(&store, &record)?)?,
        Some(name) if args.rm => {
            snapshot::remove(&store, &record, name)?;
            format::print(&format!("{name}\n"))?;
        }
        None if args.rm => return Err(usage("--rm needs the snapshot's name").into()),
        name => {
            let name = snapshot::make(&store, &record, name.as_deref())?;
            format::print(&format!("{name}\n"))?;
        }
    }
    Ok(0)
}

fn list(all: &[Snapshot]) -> Result<()> {
    let mut text = format!("{:<30}  {:<25}  SIZE\n", "NAME", "CREATED");
    for one in all {
        text.push_str(&format!(
            "{:<30}  {:<25}  {}\n",
            one.name,
            super::human::date(one.created),
            super::human::size(one.bytes)
        ));
    }
    format::print(&text)
}

pub(crate) fn restore(args: &Restore) -> Result<u8> {
    let store = Store::open()?;
    let record = Containers::of(&store).find(&args.container)?;
    snapshot::restore(&store, &record, &args.name)?;
    format::print(&format!("{}\n", args.container))?;
    Ok(0)
}
