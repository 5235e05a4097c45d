//! The command line: one file a command, arguments and output only.
//!
//! The definition is clap's; help, man pages and completions come from it (`generate.rs`).
//! [`main`] runs before any thread exists and keeps it so: a command that forks a supervisor must
//! be able to. An error is reported once, here, and its exit code is chosen here:
//!
//! | code | when |
//! |---|---|
//! | the container's | `run` in the foreground |
//! | 125 | rless itself failed, or the command line is wrong |
//! | 126, 127 | the container's command cannot be executed, was not found |
//! | 1 | commands on objects: no such object |
//! | 2 | commands on objects: the object is in use |
//!
//! A new command: a file with an `Args` struct and `pub(crate) fn run(args: Args) -> Result<u8>`,
//! a variant in [`Command`], a line in [`dispatch`].

pub mod format;
pub mod human;

mod generate;
mod images;
mod mount_cow;
mod progress;
mod pull;
mod rmi;
mod version;

use crate::error::{self, Kind, Result};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs OCI containers as an ordinary user: no daemon, no root, no foreign-owned files.
#[derive(Debug, Parser)]
#[command(
    name = "rless",
    version,
    max_term_width = 100,
    subcommand_required = true
)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    MountCow(mount_cow::Args),
    Images(images::Args),
    Pull(pull::Args),
    Rmi(rmi::Args),
    Version(version::Args),
    #[command(hide = true)]
    Generate(generate::Args),
}

fn dispatch(command: Command) -> Result<u8> {
    match command {
        Command::MountCow(args) => mount_cow::run(args),
        Command::Images(args) => images::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Rmi(args) => rmi::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Generate(args) => generate::run(&args),
    }
}

/// Parses the command line, runs the command and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage_exit(&e),
    };
    match dispatch(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            complain(&e);
            ExitCode::from(error::kind(&e).exit_code())
        }
    }
}

/// Help and version are no errors; a wrong command line is 125, as docker's and podman's.
fn usage_exit(e: &clap::Error) -> ExitCode {
    let _ = e.print();
    if e.use_stderr() {
        ExitCode::from(Kind::Usage.exit_code())
    } else {
        ExitCode::SUCCESS
    }
}

/// Prints an error with its causes and hints on standard error.
pub fn complain(e: &anyhow::Error) {
    warn(&error::report(e));
}

/// Prints a line on standard error, whole or not at all.
pub fn warn(line: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Does `act` on every name, reports each failure, goes on, and returns the exit code that
/// commands on objects have: 0, 1 for a missing object, 2 for one in use, else 125.
pub fn each<'a>(
    names: impl IntoIterator<Item = &'a str>,
    mut act: impl FnMut(&str) -> Result<()>,
) -> u8 {
    let mut code = 0;
    for name in names {
        if let Err(e) = act(name) {
            complain(&e);
            code = object_exit_code(error::kind(&e));
        }
    }
    code
}

/// Exit code of commands on objects (`rm`, `rmi`, `volume rm`).
pub fn object_exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::NoSuchObject => 1,
        Kind::Conflict => 2,
        other => other.exit_code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
