//! `rless start`.

use clap::ArgAction;

use super::lifecycle::told;
use super::select::{Wanted, each};
use super::{complain, format, run, warn};
use crate::container::heal::due;
use crate::container::record::{Record, State};
use crate::container::run::Outcome;
use crate::container::start::{How, revive as start_due, start};
use crate::error::{Kind, Result, ResultExt, failed, usage};
use crate::store::Store;

/// Start containers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Start all containers
    #[arg(long)]
    all: bool,
    /// Stay with the container: its output, its signals, its exit code
    #[arg(short, long)]
    attach: bool,
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Start those that pass: name=, id=, status=, label=, restart-policy=, …
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Give it standard input, if it was made with -i
    #[arg(short, long)]
    interactive: bool,
    /// Start the last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Pass signals on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_possible_values = true, action = ArgAction::Set)]
    sig_proxy: bool,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let attach = args.attach || args.interactive;
    check(args, attach)?;
    let store = Store::open()?;
    let wanted = Wanted {
        names: &args.names,
        all: args.all,
        latest: args.latest,
        filters: &args.filter,
        ..Wanted::default()
    };
    let chosen = wanted.find(&store)?;
    let how = How {
        attach,
        activation: true,
        interactive: args.interactive,
        sig_proxy: args.sig_proxy,
        detach_keys: args.detach_keys.clone(),
    };
    if let (true, [(_, record)]) = (attach, chosen.as_slice()) {
        return match start(&store, record, &how)? {
            Outcome::Running(_) => Ok(0),
            Outcome::NotStarted(_, text) => {
                warn(&text);
                Ok(Kind::Failed.exit_code())
            }
            ended => Ok(run::tell(ended)),
        };
    }
    let begin = |typed: &str, record: &Record| {
        if args.all && record.state.live() {
            return Ok(());
        }
        let doing = || failed(format!("unable to start container {:?}", record.id));
        match start(&store, record, &how)? {
            Outcome::NotStarted(_, text) => Err(told(&text)).fault(doing),
            _ => format::print(&format!("{typed}\n")),
        }
    };
    // Those that their users stopped stay so over a boot.
    let mut chosen = chosen;
    if args
        .filter
        .iter()
        .any(|f| f == "restart-policy=unless-stopped")
    {
        chosen.retain(|(_, r)| r.state != State::Exited || !r.stopped_by_user);
    }
    Ok(each(chosen, begin, Kind::exit_code))
}

fn check(args: &Args, attach: bool) -> Result<()> {
    let named = !args.names.is_empty();
    let wrong = if args.all && named {
        "either start all containers or the container(s) provided in the arguments"
    } else if attach && (args.names.len() > 1 || args.all) {
        "you cannot start and attach multiple containers at once"
    } else if !named && !args.all && !args.latest && args.filter.is_empty() {
        "start requires at least one argument"
    } else {
        return Ok(());
    };
    Err(usage(wrong).into())
}

/// What a killed supervisor's restart policy is owed, where this command came upon it.
pub(super) fn revive() {
    if due()
        && let Ok(store) = Store::open()
    {
        start_due(&store).iter().for_each(complain);
    }
}
