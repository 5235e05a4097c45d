//! Small commands on containers: `kill`, `pause`, `unpause`, `rename`, `restart`, `wait`.

use std::path::PathBuf;
use std::time::Duration;

use super::format;
use super::select::{Wanted, each};
use super::stop::seconds;
use crate::container::control::{self, Condition};
use crate::container::record::{Containers, Record, State};
use crate::container::run::Outcome;
use crate::container::{signal, start, when};
use crate::error::{self, Kind, Result, failed, usage};
use crate::store::Store;

/// Send a signal to the first process of containers.
#[derive(Debug, clap::Args)]
pub(crate) struct Kill {
    /// Signal all running containers
    #[arg(short, long)]
    all: bool,
    /// Read a container's id from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Signal the last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) fn kill(args: &Kill) -> Result<u8> {
    let signal = signal::parse(&args.signal)?;
    let store = Store::open()?;
    let containers = Containers::of(&store);
    let wanted = Wanted {
        names: &args.names,
        all: args.all,
        latest: args.latest,
        cidfiles: &args.cidfile,
        ..Wanted::default()
    };
    let kill = |typed: &str, record: &Record| {
        if args.all && !record.state.up() {
            return Ok(());
        }
        control::kill(&containers, record, signal)?;
        said(typed)
    };
    Ok(each(wanted.find(&store)?, kill, Kind::exit_code))
}

/// Freeze all processes of containers.
#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    which: Which,
}

/// Let the processes of paused containers go on.
#[derive(Debug, clap::Args)]
pub(crate) struct Unpause {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// All to which it applies
    #[arg(short, long)]
    all: bool,
    /// Read a container's id from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Those that pass: name=, id=, status=, label=, ancestor=, …
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// The last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) fn pause(args: &Pause) -> Result<u8> {
    freeze(&args.which, true)
}

pub(crate) fn unpause(args: &Unpause) -> Result<u8> {
    freeze(&args.which, false)
}

fn freeze(which: &Which, frozen: bool) -> Result<u8> {
    let store = Store::open()?;
    let containers = Containers::of(&store);
    let wanted = Wanted {
        names: &which.names,
        all: which.all,
        latest: which.latest,
        filters: &which.filter,
        cidfiles: &which.cidfile,
        ignore: false,
    };
    let from = if frozen {
        State::Running
    } else {
        State::Paused
    };
    let act = |typed: &str, record: &Record| {
        if which.all && record.state != from {
            return Ok(());
        }
        control::pause(&containers, record, frozen)?;
        said(typed)
    };
    Ok(each(wanted.find(&store)?, act, Kind::exit_code))
}

/// Give a container another name.
#[derive(Debug, clap::Args)]
pub(crate) struct Rename {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) fn rename(args: &Rename) -> Result<u8> {
    let store = Store::open()?;
    let containers = Containers::of(&store);
    let record = containers.find(&args.container)?;
    control::rename(&containers, &record, &args.name)?;
    Ok(0)
}

/// Stop containers, if they run, and start them.
#[derive(Debug, clap::Args)]
pub(crate) struct Restart {
    /// All containers, whether they run or not
    #[arg(short, long)]
    all: bool,
    /// Read a container's id from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Those that pass: name=, id=, status=, label=, ancestor=, …
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// The last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Those that run
    #[arg(long)]
    running: bool,
    /// Seconds to wait before a container is killed; -1: for ever
    #[arg(
        short,
        long,
        alias = "timeout",
        value_name = "SECONDS",
        allow_hyphen_values = true
    )]
    time: Option<i64>,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) fn restart(args: &Restart) -> Result<u8> {
    let store = Store::open()?;
    let wanted = Wanted {
        names: &args.names,
        all: args.all || args.running,
        latest: args.latest,
        filters: &args.filter,
        cidfiles: &args.cidfile,
        ignore: false,
    };
    let restart = |typed: &str, record: &Record| {
        if args.running && record.state != State::Running {
            return Ok(());
        }
        match start::restart(&store, record, seconds(args.time))? {
            Outcome::NotStarted(_, text) => Err(told(&text)),
            _ => said(typed),
        }
    };
    Ok(each(wanted.find(&store)?, restart, Kind::exit_code))
}

/// The report of a supervisor as an error of ours.
pub(crate) fn told(report: &str) -> anyhow::Error {
    let text = report.split_once(": ").map_or(report, |(_, text)| text);
    failed(text).into()
}

/// Wait until containers have ended, and print their exit codes.
#[derive(Debug, clap::Args)]
pub(crate) struct Wait {
    /// Wait for this state: created, initialized, running, paused, stopping, stopped, exited, removing, healthy, unhealthy
    #[arg(long, value_name = "STATE")]
    condition: Vec<String>,
    /// No such container is no error: its code is -1
    #[arg(long)]
    ignore: bool,
    /// How often to look, where it takes looking: milliseconds, or with a unit (250ms, 2s)
    #[arg(short, long, value_name = "TIME", default_value = "250ms")]
    interval: String,
    /// The last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) fn wait(args: &Wait) -> Result<u8> {
    let interval = interval(&args.interval)?;
    let conditions = args.condition.iter().map(|c| c.parse());
    let mut conditions = conditions.collect::<Result<Vec<Condition>>>()?;
    if conditions.is_empty() {
        conditions.push(Condition::Ended);
    }
    let store = Store::open()?;
    let containers = Containers::of(&store);
    let wanted = Wanted {
        names: &args.names,
        latest: args.latest,
        ..Wanted::default()
    };
    if !args.ignore {
        wanted.find(&store)?;
    }
    let mut code = 0;
    let chosen = match (args.latest, wanted.named()?) {
        (true, _) => wanted
            .find(&store)?
            .into_iter()
            .map(|c| Some(c.1))
            .collect(),
        (false, names) => {
            let mut chosen = Vec::new();
            for name in names {
                match containers.find(&name) {
                    Err(e) if args.ignore && error::kind(&e) == Kind::NoSuchObject => {
                        chosen.push(None);
                    }
                    record => chosen.push(Some(record?)),
                }
            }
            chosen
        }
    };
    for record in chosen {
        let Some(record) = record else {
            said("-1")?;
            continue;
        };
        match control::wait(&containers, &record.id, &conditions, interval) {
            Ok(code) => said(&code.to_string())?,
            Err(e) => {
                super::complain(&e);
                code = error::kind(&e).exit_code();
            }
        }
    }
    Ok(code)
}

/// A number of milliseconds, or one with its unit.
fn interval(text: &str) -> Result<Duration> {
    let found = when::duration(text).or_else(|| when::duration(&format!("{text}ms")));
    let found = found.and_then(|length| Duration::try_from(length).ok());
    let bad = || {
        usage(format!(
            "invalid interval {text:?}: as in 250ms, 2s or 1m30s"
        ))
    };
    Ok(found.ok_or_else(bad)?.max(Duration::from_millis(1)))
}

fn said(typed: &str) -> Result<()> {
    format::print(&format!("{typed}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_a_unit_or_are_milliseconds() {
        let ms = |text| interval(text).map(|d| d.as_millis()).ok();
        assert_eq!(
            ["250ms", "7", "2s", "1m", "0", "1h", "1m30s", "0.5s", "1.5"].map(ms),
            [250, 7, 2000, 60_000, 1, 3_600_000, 90_000, 500, 1].map(Some)
        );
        assert_eq!(["", "s", "1d", "-1", "-1s"].map(ms), [None; 5]);
    }
}
