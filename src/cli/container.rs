//! `rless container …`: the commands on containers by their longer name, and those that have no other.

use std::io::Write as _;

use super::select::each_dependent_first;
use super::{
    attach, commit, complain, cp, create, diff, exec, export, format, inspect, lifecycle, logs,
    object_exit_code, port, ps, rm, run, snapshot, start, stats, stop, top,
};
use crate::container::filter::Filters;
use crate::container::list;
use crate::container::record::{Containers, Record};
use crate::container::remove::{How, remove_if_there};
use crate::error::{self, Kind, Result};
use crate::store::Store;

/// Manage containers.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Attach(attach::Args),
    Commit(commit::Args),
    Cp(cp::Args),
    Create(Box<create::Args>),
    Diff(diff::Args),
    Exec(exec::Args),
    Exists(Exists),
    Export(export::Args),
    Inspect(inspect::OfOneKind),
    Kill(lifecycle::Kill),
    #[command(visible_aliases = ["ls", "ps"])]
    List(ps::Args),
    Logs(logs::Args),
    Pause(lifecycle::Pause),
    Port(port::Args),
    Prune(Prune),
    Rename(lifecycle::Rename),
    Restart(lifecycle::Restart),
    Restore(snapshot::Restore),
    Rm(rm::Args),
    Run(Box<run::Args>),
    Snapshot(snapshot::Args),
    Start(start::Args),
    Stats(stats::Args),
    Stop(stop::Args),
    Top(top::Args),
    Unpause(lifecycle::Unpause),
    Update(Box<super::update::Args>),
    Wait(lifecycle::Wait),
}

pub(crate) fn run(args: Args) -> Result<u8> {
    match args.command {
        Command::Attach(args) => attach::run(&args),
        Command::Commit(args) => commit::run(args),
        Command::Cp(args) => cp::run(&args),
        Command::Restore(args) => snapshot::restore(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Inspect(args) => inspect::run(&args.of("container")),
        Command::Port(args) => port::run(&args),
        Command::Create(args) => create::run(*args),
        Command::Exec(args) => exec::run(args),
        Command::Exists(args) => exists(&args),
        Command::Kill(args) => lifecycle::kill(&args),
        Command::List(args) => ps::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Pause(args) => lifecycle::pause(&args),
        Command::Prune(args) => prune(&args),
        Command::Rename(args) => lifecycle::rename(&args),
        Command::Restart(args) => lifecycle::restart(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Run(args) => run::run(*args),
        Command::Start(args) => start::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Top(args) => top::run(args),
        Command::Stop(args) => stop::run(&args),
        Command::Unpause(args) => lifecycle::unpause(&args),
        Command::Update(args) => super::update::run(&args),
        Command::Wait(args) => lifecycle::wait(&args),
    }
}

/// Whether there is such a container: exit code 0, or 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Exists {
    /// For podman's scripts: there are no containers of others in the store
    #[arg(long, hide = true)]
    external: bool,
    /// Name, id, or the beginning of one
    #[arg(value_name = "CONTAINER")]
    name: String,
}

fn exists(args: &Exists) -> Result<u8> {
    let store = Store::open()?;
    match Containers::of(&store).find(&args.name) {
        Ok(_) => Ok(0),
        Err(e) if error::kind(&e) == Kind::NoSuchObject => Ok(1),
        Err(e) => Err(e),
    }
}

/// Remove all containers that do not run.
#[derive(Debug, clap::Args)]
pub(crate) struct Prune {
    /// Only those that pass: label=, label!=, until=
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

fn prune(args: &Prune) -> Result<u8> {
    let filters = Filters::parse_prune(&args.filter)?;
    if !args.force && !agreed("WARNING! This will remove all non running containers.")? {
        return Ok(0);
    }
    let store = Store::open()?;
    let mut listing = list::list(&store, &filters)?;
    listing.skipped.iter().for_each(|(_, e)| complain(e));
    listing.records.retain(|r| !r.state.live());
    let chosen = listing.records.into_iter().map(|r| (r.id.clone(), r));
    let how = How {
        force: false,
        volumes: false,
        timeout: None,
    };
    let gone = |record: &Record| remove_if_there(&store, record, how);
    let chosen: Vec<_> = chosen.collect();
    Ok(each_dependent_first(chosen, gone, object_exit_code))
}

/// Warns, and asks as podman does.
fn agreed(warning: &str) -> Result<bool> {
    format::print(&format!(
        "{warning}\nAre you sure you want to continue? [y/N] "
    ))?;
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    Ok(answer.trim_start().to_ascii_lowercase().starts_with('y'))
}
