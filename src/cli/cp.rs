//! `rless cp`.

use std::ffi::OsString;

use clap::ArgAction;
use clap::builder::BoolishValueParser;

use crate::container::copy::{Request, copy};
use crate::error::Result;
use crate::store::Store;

/// Copy files between a container and the host, between containers, or from and to a tar stream.
///
/// The container may run or not; its volumes and bind mounts are seen, and in one that runs whatever else is mounted. SOURCE/. means
/// what is in the directory SOURCE; `-` is a tar archive on standard input or output.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is copied into a container belongs to the user it runs as
    #[arg(short, long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", value_parser = BoolishValueParser::new())]
    archive: bool,
    /// Let a directory replace something else, and the other way round
    #[arg(long)]
    overwrite: bool,
    /// CONTAINER:PATH, a path, or -
    #[arg(value_name = "[CONTAINER:]SOURCE")]
    source: OsString,
    /// CONTAINER:PATH, a path, or -
    #[arg(value_name = "[CONTAINER:]DESTINATION")]
    destination: OsString,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let store = Store::open()?;
    let request = Request {
        archive: args.archive,
        overwrite: args.overwrite,
    };
    copy(&store, &args.source, &args.destination, request)?;
    Ok(0)
}
