//! `rless ps`.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::format::{self, Listing, Row};
use super::human;
use crate::container::list::{self, Filter};
use crate::container::record::{self, Port, Record, State};
use crate::error::Result;
use crate::store::Store;

/// List containers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show some only: name=, id=, status=, exited=, label=, ancestor=, volume=, network=, since=, before=
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Print JSON (`json`), a Go template, or `table` and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the last N that were made, running or not
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true)]
    last: Option<i64>,
    /// Show the last one that was made, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// Do not print headings
    #[arg(long)]
    noheading: bool,
    /// Show how much each container changed
    #[arg(short, long)]
    size: bool,
    /// Sort by command, created, id, image, names, runningfor, size, status
    #[arg(long, value_name = "FIELD", default_value = "created")]
    sort: String,
}

const TABLE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.CreatedHuman}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";

pub(crate) fn run(args: &Args) -> Result<u8> {
    let store = Store::open()?;
    let filters = args
        .filter
        .iter()
        .map(|f| Filter::parse(f))
        .collect::<Result<Vec<_>>>()?;
    let last = if args.latest {
        Some(1)
    } else {
        args.last.and_then(|n| usize::try_from(n).ok())
    };
    let by_state = filters.iter().any(Filter::is_about_state);
    let record::Listing {
        mut records,
        skipped,
    } = list::list(&store, &filters)?;
    for (_, e) in &skipped {
        super::complain(e);
    }
    if let Some(last) = last {
        records.truncate(last);
    } else if !args.all && !by_state {
        records.retain(|r| r.state.up());
    }
    list::sort(&store, &mut records, &args.sort)?;
    if args.quiet && args.format.is_none() {
        let ids = records.iter().map(|r| id(r, args.no_trunc) + "\n");
        format::print(&ids.collect::<String>())?;
        return Ok(0);
    }
    let rows: Vec<Row> = records.iter().map(|r| row(&store, r, args)).collect();
    let table = if args.size {
        format!("{TABLE}\t{{{{.Size}}}}")
    } else {
        TABLE.to_owned()
    };
    let listing = Listing {
        table: &table,
        headings: &[
            ("ID", "CONTAINER ID"),
            ("CreatedHuman", "CREATED"),
            ("CreatedAt", "CREATED AT"),
        ],
        fields: &[
            "ID",
            "Id",
            "Image",
            "ImageID",
            "Command",
            "CreatedHuman",
            "CreatedAt",
            "Created",
            "RunningFor",
            "Status",
            "State",
            "Ports",
            "Names",
            "Labels",
            "Mounts",
            "Networks",
            "Pid",
            "ExitCode",
            "Exited",
            "ExitedAt",
            "StartedAt",
            "Size",
            "AutoRemove",
        ],
        heading: !args.noheading,
        fit: !args.no_trunc,
    };
    format::print(&listing.render(&rows, args.format.as_deref())?)?;
    Ok(0)
}

fn id(record: &Record, whole: bool) -> String {
    let most = if whole { 64 } else { 12 };
    record.id.chars().take(most).collect()
}

fn row(store: &Store, record: &Record, args: &Args) -> Row {
    let command = record.command.join(" ");
    let command = if args.no_trunc {
        command
    } else {
        format::shorten(&command, 20)
    };
    let command = command.replace(['\n', '\t'], " ");
    let created = human::ago(record.created);
    let seconds = |t: Option<Timestamp>| t.map_or(-62_135_596_800, Timestamp::as_second);
    let wanted = args.size || args.format.as_deref().is_some_and(|f| f.contains(".Size"));
    let usage = wanted.then(|| list::disk_use(store, record));
    let size = usage.as_ref().map_or(String::new(), |u| {
        format!(
            "{} (virtual {})",
            human::size(u.own),
            human::size(u.own + u.image)
        )
    });
    let pid = record.init.map_or(0, |p| p.pid);
    let fields = json!({
        "ID": id(record, args.no_trunc),
        "Id": record.id,
        "Image": record.image,
        "ImageID": record.image_id,
        "Command": command,
        "CreatedHuman": created,
        "CreatedAt": record.created.map(human::date),
        "Created": created,
        "RunningFor": created,
        "Status": status(record),
        "State": record.state.word(),
        "Ports": ports(&record.ports),
        "Names": record.name,
        "Labels": record.labels,
        "Mounts": record.mounts.join(","),
        "Networks": record.network,
        "Pid": pid,
        "ExitCode": record.exit_code.unwrap_or(0),
        "Exited": record.state == State::Exited,
        "ExitedAt": seconds(record.finished),
        "StartedAt": seconds(record.started),
        "Size": size,
        "AutoRemove": record.auto_remove,
    });
    let json = json!({
        "AutoRemove": record.auto_remove,
        "Command": record.command,
        "Created": seconds(record.created),
        "CreatedAt": created,
        "Exited": record.state == State::Exited,
        "ExitedAt": seconds(record.finished),
        "ExitCode": record.exit_code.unwrap_or(0),
        "Id": record.id,
        "Image": record.image,
        "ImageID": record.image_id,
        "Labels": record.labels,
        "Mounts": record.mounts,
        "Names": [record.name],
        "Networks": [record.network],
        "Pid": pid,
        "Ports": record.ports.iter().map(port_json).collect::<Vec<_>>(),
        "Size": usage.map(|u| json!({"rwSize": u.own, "rootFsSize": u.own + u.image})),
        "StartedAt": seconds(record.started),
        "State": record.state.word(),
        "Status": status(record),
    });
    Row { fields, json }
}

fn port_json(port: &Port) -> Json {
    json!({
        "host_ip": port.host_ip,
        "container_port": port.container_port,
        "host_port": port.host_port,
        "range": port.range,
        "protocol": port.protocol,
    })
}

/// `Up 3 minutes`, `Exited (0) 2 hours ago`, `Created`.
fn status(record: &Record) -> String {
    match record.state {
        State::Created => "Created".to_owned(),
        State::Starting => "Initialized".to_owned(),
        State::Running => {
            let since = record
                .started
                .map_or(0, |t| Timestamp::now().as_second() - t.as_second());
            format!("Up {}", human::duration(since))
        }
        State::Paused => "Paused".to_owned(),
        State::Stopping => "Stopping".to_owned(),
        State::Restarting => format!("Restarting ({})", record.exit_code.unwrap_or(0)),
        State::Exited => format!(
            "Exited ({}) {}",
            record.exit_code.unwrap_or(0),
            human::ago(record.finished)
        ),
    }
}

/// `0.0.0.0:8080->80/tcp, …`.
fn ports(ports: &[Port]) -> String {
    let range = |first: u16, count: u16| match count {
        0 | 1 => first.to_string(),
        n => format!("{first}-{}", first + (n - 1)),
    };
    let one = |p: &Port| {
        let ip = if p.host_ip.is_empty() {
            "0.0.0.0"
        } else {
            &p.host_ip
        };
        let ip = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        format!(
            "{ip}:{}->{}/{}",
            range(p.host_port, p.range),
            range(p.container_port, p.range),
            p.protocol
        )
    };
    ports.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_podman_shows_them() {
        let port = |host_ip: &str, range| Port {
            host_ip: host_ip.into(),
            host_port: 8080,
            container_port: 80,
            range,
            protocol: "tcp".into(),
        };
        assert_eq!(ports(&[port("", 1)]), "0.0.0.0:8080->80/tcp");
        assert_eq!(
            ports(&[port("127.0.0.1", 3)]),
            "127.0.0.1:8080-8082->80-82/tcp"
        );
        assert_eq!(ports(&[port("::1", 1)]), "[::1]:8080->80/tcp");
    }
}
