//! `rless port`.

use super::{format, select};
use crate::container::inspect::published;
use crate::container::record::{Containers, Record};
use crate::error::{Result, failed, usage};
use crate::store::{Store, short};

/// Show a container's published ports.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show those of all containers
    #[arg(short, long)]
    all: bool,
    /// Show those of the last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Name, id, or beginning of an id; then a port of it: PORT[/tcp|/udp]
    #[arg(value_name = "CONTAINER [PORT]", num_args = 0..=2)]
    words: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if args.all && args.latest {
        return Err(usage("--all and --latest cannot be used together").into());
    }
    if args.all && !args.words.is_empty() {
        return Err(usage("no arguments are needed with --all").into());
    }
    let (name, port) = match (args.latest, args.words.as_slice()) {
        (true, [] | [_]) => (None, args.words.first()),
        (true, _) => return Err(usage("--latest and a container cannot be used together").into()),
        (false, []) if !args.all => {
            return Err(usage("you must supply a running container name or id").into());
        }
        (false, words) => (words.first(), words.get(1)),
    };
    let wanted = port.map(|p| wanted(p)).transpose()?;
    let store = Store::open()?;
    let records = if args.all {
        Containers::of(&store).list()?
    } else {
        vec![select::one(&store, name.map(String::as_str), args.latest)?]
    };
    let mut records = records;
    records.retain(|r| r.state.live());
    let mut text = String::new();
    for record in &records {
        text += &lines(record, wanted.as_deref(), args.all);
    }
    if text.is_empty()
        && let Some(port) = port
        && records.iter().any(|r| !r.ports.is_empty())
    {
        return Err(failed(format!("failed to find published port {port:?}")).into());
    }
    format::print(&text)?;
    Ok(0)
}

/// `80` means `80/tcp`.
fn wanted(text: &str) -> Result<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if protocol.contains('/') {
        let text = format!("port formats are port/protocol. '{text}' is invalid");
        return Err(usage(text).into());
    }
    if number.parse::<u16>().is_err() {
        return Err(usage(format!("{number:?} is not a port")).into());
    }
    Ok(format!("{number}/{protocol}"))
}

fn lines(record: &Record, wanted: Option<&str>, with_id: bool) -> String {
    let id = if with_id {
        format!("{}\t", short(&record.id))
    } else {
        String::new()
    };
    let mut text = String::new();
    for (inside, ip, outside) in published(&record.ports) {
        match wanted {
            None => text += &format!("{id}{inside} -> {ip}:{outside}\n"),
            Some(wanted) if wanted == inside => text += &format!("{ip}:{outside}\n"),
            Some(_) => {}
        }
    }
    text
}
