//! `rless top`.

use super::{format, warn};
use crate::container::exec::{Session, exec};
use crate::container::record::Containers;
use crate::container::run::Outcome;
use crate::container::top::{are_descriptors, top};
use crate::error::{Kind, Result, ResultExt, kind, usage, visible};
use crate::store::Store;

/// Show the processes of a container.
#[derive(Debug, clap::Args)]
#[command(override_usage = "rless top [OPTIONS] CONTAINER [DESCRIPTOR...|ARGUMENT OF ps...]")]
#[command(
    after_help = "Descriptors: args, capamb, capbnd, capeff, capinh, capprm, comm, etime, group, groups, hgroup, \
    hgroups, hpid, huser, label, nice, pcpu, pgid, pid, ppid, rgroup, rss, ruser, seccomp, state, stime, time, tty, user, vsz; \
    separated by blanks or commas. Anything else is passed to the container's own ps."
)]
pub(crate) struct Args {
    /// The last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Container, then descriptors
    #[arg(value_name = "CONTAINER DESCRIPTOR...", num_args = 0.., trailing_var_arg = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<u8> {
    let mut words = args.rest;
    if words.is_empty() && !args.latest {
        return Err(usage("you must provide the name or id of a running container").into());
    }
    let store = Store::open()?;
    let containers = Containers::of(&store);
    let record = if args.latest {
        let newest = containers.list()?.into_iter().next();
        newest.ok_or_else(|| usage("no containers found: no such container"))?
    } else {
        let found = containers.find(&words.remove(0));
        match found {
            Err(e) if kind(&e) == Kind::NoSuchObject => {
                return Err(e).fault(|| usage("unable to look up requested container"));
            }
            found => found?,
        }
    };
    if !are_descriptors(&words) {
        return ps(&containers, &record, words);
    }
    let mut rows = top(&containers, &record, &words)?;
    // Whoever runs in the container chooses these words.
    for cell in rows.iter_mut().flatten() {
        *cell = visible(cell, &[]);
    }
    let columns = rows.first().map_or(0, Vec::len);
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count() + 2).max();
    let widths: Vec<usize> = (0..columns)
        .map(|c| width(c).unwrap_or(0).max(12))
        .collect();
    let mut text = String::new();
    for row in &rows {
        for (c, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if c + 1 < columns {
                let missing = widths[c].saturating_sub(cell.chars().count());
                text.extend(std::iter::repeat_n(' ', missing));
            }
        }
        text.push('\n');
    }
    format::print(&text)?;
    Ok(0)
}

/// The container's own ps, with arguments that are its.
fn ps(
    containers: &Containers,
    record: &crate::container::record::Record,
    words: Vec<String>,
) -> Result<u8> {
    let session = Session {
        command: std::iter::once("ps".to_owned()).chain(words).collect(),
        ..Session::default()
    };
    match exec(containers, record, session, None)? {
        Outcome::Exited(code, _) => Ok(code),
        Outcome::NotStarted(code, report) => {
            warn(&report);
            Ok(code)
        }
        Outcome::Running(_) => Ok(0),
    }
}
