//! `rless generate`: man pages and completions from the command-line definition.
//!
//! The results are committed; after a change of flags: `cargo run -- generate man man` and
//! `cargo run -- generate completions completions`.

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn files(dir: &Path) -> BTreeMap<String, String> {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
        let visible = entries.filter(|e| !e.file_name().to_string_lossy().starts_with('.'));
        visible
            .map(|e| {
                let name = e.file_name().into_string().unwrap();
                (name, std::fs::read_to_string(e.path()).unwrap())
            })
            .collect()
    }

    #[test]
    fn committed_pages_and_completions_have_not_drifted() {
        let dir = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (what, name) in [(What::Man, "man"), (What::Completions, "completions")] {
            let dir = dir.path().join(name);
            run(&Args {
                what,
                dir: dir.clone(),
            })
            .unwrap();
            let (made, committed) = (files(&dir), files(&root.join(name)));
            let names: Vec<_> = made.keys().collect();
            assert_eq!(names, committed.keys().collect::<Vec<_>>(), "{name}");
            for (file, text) in &made {
                assert!(
                    committed[file] == *text,
                    "{name}/{file} has drifted: cargo run -- generate {name} {name}"
                );
            }
        }
    }
}
