//! `rless attach`.

use clap::ArgAction;

use super::format;
use super::select;
use crate::container::attach::{Join, join};
use crate::container::record::Containers;
use crate::container::terminal::DetachKeys;
use crate::error::{Result, usage};
use crate::store::Store;

/// Attach to a running container.
///
/// Ctrl-P Ctrl-Q leaves a container with a terminal as it is (--detach-keys).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Attach to the last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Do not pass standard input to the container
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_possible_values = true, action = ArgAction::Set)]
    sig_proxy: bool,
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let keys = args.detach_keys.as_deref().unwrap_or("ctrl-p,ctrl-q");
    let keys = DetachKeys::parse(keys)?;
    if args.container.is_none() && !args.latest {
        let text = "attach requires the name or id of one running container or the latest flag";
        return Err(usage(text).into());
    }
    let store = Store::open()?;
    let record = select::one(&store, args.container.as_deref(), args.latest)?;
    let how = Join {
        input: !args.no_stdin,
        sig_proxy: args.sig_proxy,
        keys,
    };
    join(&Containers::of(&store), &record, how)?;
    // As podman: a line end, and 0 however the container ended.
    format::print("\n")?;
    Ok(0)
}
