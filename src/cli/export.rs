//! `rless export`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use super::warn;
use crate::container::export::export;
use crate::container::record::Containers;
use crate::error::{Result, ResultExt, failed, usage};
use crate::store::Store;

/// Write a container's files as a tar archive.
///
/// All of its file system, as it was at one moment, without what is mounted in it. A running container goes on meanwhile.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(usage("refusing to export to terminal. Use -o flag or redirect").into());
    }
    let store = Store::open()?;
    let record = Containers::of(&store).find(&args.container)?;
    let mut out: Box<dyn Write> = match &args.output {
        Some(path) => {
            let file = File::create(path);
            Box::new(file.fault(|| failed(format!("writing {}", path.display())))?)
        }
        None => Box::new(std::io::stdout()),
    };
    for what in export(&store, &record, &mut out)? {
        warn(&format!("Warning: {what}"));
    }
    Ok(0)
}
