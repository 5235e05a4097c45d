//! `rless healthcheck`: a container's health check, now.

use super::format;
use crate::container::health::{self, Status};
use crate::container::record::Containers;
use crate::error::{Kind, Result, ResultExt, failed, kind};
use crate::store::Store;

/// Manage health checks of containers.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Run(Run),
}

/// Run the health check of a container: exit code 0 if it passed, 1 if it failed, 125 if it could not be run or
/// took too long.
#[derive(Debug, clap::Args)]
struct Run {
    /// Name, id, or the beginning of one
    #[arg(value_name = "CONTAINER")]
    name: String,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let Command::Run(Run { name }) = &args.command;
    let store = Store::open()?;
    let containers = Containers::of(&store);
    let record = match containers.find(name) {
        Err(e) if kind(&e) == Kind::NoSuchObject => {
            let text = format!("unable to look up {name} to perform a health check");
            return Err(e).fault(|| failed(text));
        }
        found => found?,
    };
    match health::run(&containers, &record)? {
        Status::Healthy => Ok(0),
        status => {
            format::print(&format!("{}\n", status.word()))?;
            Ok(1)
        }
    }
}
