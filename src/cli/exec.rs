//! `rless exec`.

use std::path::PathBuf;

use super::{format, warn};
use crate::container::descriptors;
use crate::container::env::{self, Env, Setting};
use crate::container::exec::{Session, exec};
use crate::container::record::Containers;
use crate::container::run::Outcome;
use crate::error::{Result, usage};
use crate::store::Store;

/// Run a command in a running container.
#[derive(Debug, clap::Args)]
#[command(override_usage = "rless exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
#[command(
    after_help = "Exit codes: the command's own; 125 rless failed, 126 the command cannot be executed, 127 it (or \
    the working directory) was not found, 128+N it was ended by signal N, 255 the container does not run or has no such user."
)]
pub(crate) struct Args {
    /// Run in the background and print the session's id
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the command running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Set an environment variable; NAME alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Keep standard input open and pass it to the command
    #[arg(short, long)]
    interactive: bool,
    /// The last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Pass this many of the caller's descriptors, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u16,
    /// Pass these descriptors of the caller, under their numbers
    #[arg(long, value_name = "FD", value_delimiter = ',')]
    preserve_fd: Vec<i32>,
    /// Give the command all capabilities
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// User and group inside: NAME|UID[:GROUP|GID]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Container, then the command and its arguments
    #[arg(value_name = "CONTAINER COMMAND [ARG...]", num_args = 0.., trailing_var_arg = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<u8> {
    let mut command = args.rest.clone();
    if command.is_empty() && !args.latest {
        return Err(
            usage("exec requires the name or ID of a container or the --latest flag").into(),
        );
    }
    let store = Store::open()?;
    let containers = Containers::of(&store);
    let record = if args.latest {
        let newest = containers.list()?.into_iter().next();
        newest.ok_or_else(|| usage("there is no container"))?
    } else {
        containers.find(&command.remove(0))?
    };
    let session = Session {
        command,
        env: environment(&args)?,
        user: args.user.filter(|u| !u.is_empty()),
        workdir: args.workdir.filter(|w| !w.is_empty()),
        tty: args.tty,
        interactive: args.interactive,
        privileged: args.privileged,
        detach: args.detach,
        size: None,
        descriptors: descriptors::asked(args.preserve_fds, args.preserve_fd)?,
        preserve_fds: 0,
        signals_group: false,
    };
    let detached = session.detach;
    match exec(&containers, &record, session, args.detach_keys.as_deref())? {
        Outcome::Exited(code, _) => Ok(code),
        Outcome::NotStarted(code, report) => {
            warn(&report);
            Ok(code)
        }
        Outcome::Running(id) => {
            if detached {
                format::print(&format!("{id}\n"))?;
            }
            Ok(0)
        }
    }
}

/// What the flags set, with the caller's values where they are asked for.
fn environment(args: &Args) -> Result<Vec<String>> {
    let mut settings = Vec::new();
    for file in &args.env_file {
        settings.extend(env::read_file(file)?);
    }
    for text in &args.env {
        settings.push(Setting::parse(text)?);
    }
    let mut env = Env::default();
    env.apply(&env::settled(&settings));
    Ok(env.into_strings())
}
