//! `rless generate`: man pages and completions from the command-line definition.

use super::definition;
use crate::error::{Result, ResultExt, failed};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

/// Write man pages or shell completions into a directory.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to write
    #[arg(value_enum)]
    what: What,
    /// Where to write it; made if missing
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    Man,
    Completions,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let act = || failed(format!("writing to {}", args.dir.display()));
    std::fs::create_dir_all(&args.dir).fault(act)?;
    match args.what {
        What::Man => man(&args.dir).fault(act)?,
        What::Completions => completions(&args.dir).fault(act)?,
    }
    Ok(0)
}

fn man(dir: &Path) -> std::io::Result<()> {
    let mut command = definition();
    command.build();
    page(&command, "rless", dir)?;
    pages(&command, "rless", dir)
}

fn pages(command: &clap::Command, prefix: &str, dir: &Path) -> std::io::Result<()> {
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = format!("{prefix}-{}", sub.get_name());
        page(sub, &name, dir)?;
        pages(sub, &name, dir)?;
    }
    Ok(())
}

fn page(command: &clap::Command, name: &str, dir: &Path) -> std::io::Result<()> {
    let mut text = Vec::new();
    // One date for everyone: a page that changes by the day would always have drifted.
    clap_mangen::Man::new(command.clone().name(name.to_owned()))
        .date("")
        .source(concat!("rless ", env!("CARGO_PKG_VERSION")))
        .render(&mut text)?;
    std::fs::write(dir.join(format!("{name}.1")), text)
}

fn completions(dir: &Path) -> std::io::Result<()> {
    for (shell, name) in [
        (Shell::Bash, "rless.bash"),
        (Shell::Zsh, "_rless"),
        (Shell::Fish, "rless.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut definition(), "rless", &mut text);
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}
