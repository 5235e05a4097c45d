//! `rless logs`.

use std::io::Write;

use jiff::Timestamp;

use super::format;
use crate::container::logs::{self, Entry, Wanted};
use crate::container::record::{Containers, Record};
use crate::container::supervisor::Stream;
use crate::container::when;
use crate::error::{Result, ResultExt, failed, usage};
use crate::store::{Store, short};

/// Show what containers wrote.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on until the containers have ended
    #[arg(short, long)]
    follow: bool,
    /// Show the last container's that was made
    #[arg(short, long)]
    latest: bool,
    /// Show what was written after a time, or in the last duration (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show what is written before a time, or until a duration from now has passed
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show the last lines only; -1: all
    #[arg(
        long,
        value_name = "LINES",
        default_value = "-1",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show names instead of ids before the lines of several containers
    #[arg(short, long)]
    names: bool,
    /// Give each container a colour
    #[arg(long)]
    color: bool,
    /// For docker's scripts: there are no details
    #[arg(long, hide = true)]
    details: bool,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let wanted = wanted(args)?;
    let store = Store::open()?;
    let containers = Containers::of(&store);
    containers.heal_live();
    let records = chosen(args, &containers)?;
    let mut printer = Printer::new(args, &records);
    logs::read(&containers, &records, &wanted, &mut |which, entry| {
        printer.entry(which, entry)?;
        // What a follower waits for is shown at once; the rest in large pieces.
        if wanted.follow {
            printer.flush()
        } else {
            Ok(())
        }
    })?;
    printer.flush()?;
    Ok(0)
}

fn chosen(args: &Args, containers: &Containers) -> Result<Vec<Record>> {
    match (args.latest, args.containers.is_empty()) {
        (true, false) => Err(usage("--latest and containers cannot be used together").into()),
        (false, true) => Err(usage("specify at least one container name or ID to log").into()),
        (true, true) => {
            let mut all = containers.list()?;
            all.truncate(1);
            if all.is_empty() {
                return Err(failed("no containers found: no such container").into());
            }
            Ok(all)
        }
        (false, false) => args.containers.iter().map(|n| containers.find(n)).collect(),
    }
}

fn wanted(args: &Args) -> Result<Wanted> {
    let now = Timestamp::now();
    type Read = fn(&str, Timestamp) -> Result<Timestamp>;
    let time = |text: &Option<String>, flag: &str, read: Read| {
        let text = text.as_deref().filter(|t| !t.is_empty());
        let found = text.map(|t| read(t, now).fault(|| usage(format!("parsing {flag} {t:?}"))));
        found.transpose()
    };
    let last: i64 = match args.tail.as_str() {
        "all" => -1,
        text => {
            let bad = || {
                usage(format!(
                    "invalid argument {text:?} for --tail: not a number"
                ))
            };
            text.parse().map_err(|_| bad())?
        }
    };
    Ok(Wanted {
        follow: args.follow,
        since: time(&args.since, "--since", when::past)?,
        until: time(&args.until, "--until", when::future)?,
        last: usize::try_from(last).ok(),
    })
}

/// Colours in podman's order.
const COLOURS: [u8; 7] = [37, 31, 32, 33, 34, 35, 36];
/// Output that is written at once.
const PIECE: usize = 64 << 10;

/// Puts entries on standard output and standard error.
#[derive(Debug)]
struct Printer {
    /// Before each line of a container.
    labels: Vec<String>,
    timestamps: bool,
    color: bool,
    out: Vec<u8>,
    /// Where `out` goes.
    stream: Stream,
    /// Containers and streams in the middle of a line.
    open: Vec<(usize, Stream)>,
}

impl Printer {
    fn new(args: &Args, records: &[Record]) -> Printer {
        let label = |r: &Record| match (records.len(), args.names) {
            (0 | 1, _) => String::new(),
            (_, true) => format!("{} ", r.name),
            (_, false) => format!("{} ", short(&r.id)),
        };
        Printer {
            labels: records.iter().map(label).collect(),
            timestamps: args.timestamps,
            color: args.color,
            out: Vec::new(),
            stream: Stream::Out,
            open: Vec::new(),
        }
    }

    fn entry(&mut self, which: usize, entry: &Entry<'_>) -> Result<()> {
        if entry.stream != self.stream || self.out.len() >= PIECE {
            self.flush()?;
            self.stream = entry.stream;
        }
        let here = (which, entry.stream);
        let begun = self.open.iter().position(|open| *open == here);
        if begun.is_none() {
            if self.color {
                let colour = COLOURS[which % COLOURS.len()];
                self.out
                    .extend_from_slice(format!("\x1b[{colour}m").as_bytes());
            }
            self.out.extend_from_slice(self.labels[which].as_bytes());
            if self.timestamps {
                // As Go writes it.
                let utc = entry.time.strip_suffix("+00:00");
                let time = utc.map_or_else(|| entry.time.to_owned(), |t| format!("{t}Z"));
                self.out.extend_from_slice(time.as_bytes());
                self.out.push(b' ');
            }
        }
        self.out.extend_from_slice(entry.text);
        if entry.full {
            if self.color {
                self.out.extend_from_slice(b"\x1b[0m");
            }
            self.out.push(b'\n');
            if let Some(at) = begun {
                self.open.remove(at);
            }
        } else if begun.is_none() {
            self.open.push(here);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.out);
        match self.stream {
            _ if bytes.is_empty() => Ok(()),
            Stream::Out => format::print_bytes(&bytes),
            Stream::Err => {
                // Nobody reads it: as for a program that writes there.
                let _ = std::io::stderr().write_all(&bytes);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_times_stand_at_the_beginning_of_a_line_only() {
        let mut printer = Printer {
            labels: vec!["a ".into(), "b ".into()],
            timestamps: true,
            color: false,
            out: Vec::new(),
            stream: Stream::Out,
            open: Vec::new(),
        };
        for (which, line) in [
            (0, "T1 stdout P x"),
            (1, "T2 stdout F other"),
            (0, "T3 stdout F y"),
            (0, "T4 stdout F z"),
        ] {
            printer
                .entry(which, &Entry::parse(line.as_bytes()).unwrap())
                .unwrap();
        }
        assert_eq!(
            String::from_utf8(printer.out.clone()).unwrap(),
            "a T1 xb T2 other\ny\na T4 z\n"
        );
    }
}
