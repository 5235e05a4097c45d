//! `rless image`: commands on images under docker's and podman's other names for them.

use clap::Subcommand;

use super::{images, inspect, pull, rmi};
use crate::error::Result;
use crate::store::Store;

/// Manage images.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell by the exit code whether there is such an image: 0, or 1
    Exists {
        /// Name or id
        image: String,
    },
    /// Show images as JSON
    Inspect(inspect::OfOneKind),
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::Args),
    /// Bring images into the store
    Pull(pull::Args),
    /// Remove images
    Rm(rmi::Args),
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    match &args.command {
        Command::Exists { image } => Ok(u8::from(Store::open()?.find_image(image)?.is_none())),
        Command::Inspect(args) => inspect::run(&args.of("image")),
        Command::Ls(args) => images::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Rm(args) => rmi::run(args),
    }
}
