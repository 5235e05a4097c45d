//! `rless create`: the flags of `run` but those that are about running.

use super::run::{self, Shared};
use super::{format, progress};
use crate::container::run::create;
use crate::error::Result;
use crate::store::Store;

/// Make a container without starting it.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
#[command(override_usage = "rless create [OPTIONS] IMAGE [COMMAND [ARG...]]")]
pub(crate) struct Args {
    #[command(flatten)]
    shared: Shared,
}

pub(crate) fn run(args: Args) -> Result<u8> {
    let request = run::request(args.shared, false)?;
    let store = Store::open()?;
    let progress = progress::for_stderr(request.quiet);
    let id = create(&store, &request, progress.as_ref())?;
    format::print(&format!("{id}\n"))?;
    Ok(0)
}
