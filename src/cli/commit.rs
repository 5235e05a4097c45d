//! `rless commit`.

use std::path::PathBuf;

use super::{format, warn};
use crate::container::commit::{Request, commit};
use crate::container::record::Containers;
use crate::error::{Result, ResultExt, failed, usage};
use crate::store::{Format, Progress, Silent, Store};

/// Make an image of a container: its own image, and over it what the container changed.
///
/// A running container goes on meanwhile; the image holds its files as they were at one moment.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Author
    #[arg(short, long, value_name = "NAME", default_value = "")]
    author: String,
    /// Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL; with -f docker also
    /// ONBUILD, HEALTHCHECK
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// oci, or docker
    #[arg(short, long, value_name = "FORMAT", default_value = "oci")]
    format: String,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// The container's mounts become volumes of the image
    #[arg(long)]
    include_volumes: bool,
    /// Message, with -f docker
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Pause the container while its files are looked at
    #[arg(short, long)]
    pause: bool,
    /// Show the id only
    #[arg(short, long)]
    quiet: bool,
    /// Make one layer of the image and the changes
    #[arg(short, long)]
    squash: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the image
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

struct Told;

impl Progress for Told {
    fn message(&self, text: &str) {
        warn(text);
    }
}

pub(crate) fn run(args: Args) -> Result<u8> {
    let form = match args.format.as_str() {
        "oci" => Format::Oci,
        "docker" => Format::Docker,
        other => return Err(usage(format!("unrecognized image format {other:?}")).into()),
    };
    let store = Store::open()?;
    let record = Containers::of(&store).find(&args.container)?;
    let request = Request {
        name: args.image,
        author: args.author,
        message: args.message,
        changes: args.change,
        format: form,
        pause: args.pause,
        squash: args.squash,
        include_volumes: args.include_volumes,
    };
    let progress: &dyn Progress = if args.quiet { &Silent } else { &Told };
    let image = commit(&store, &record, &request, progress)?;
    if let Some(path) = &args.iidfile {
        std::fs::write(path, &image.id)
            .fault(|| failed(format!("writing the image id to {}", path.display())))?;
    }
    format::print(&format!("{}\n", image.id))?;
    Ok(0)
}
