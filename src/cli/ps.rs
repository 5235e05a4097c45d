//! `rless ps`.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::format::{self, Listing, Row};
use super::human;
use crate::container::filter::{self, Filters};
use crate::container::list;
use crate::container::record::{self, Port, Record, State};
use crate::error::{Result, usage};
use crate::network::exposed::{self, Exposed};
use crate::store::{Store, short};

/// List containers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show some only: name=, id=, status=, exited=, label=, ancestor=, volume=, network=, since=, before=, until=, health=, restart-policy=
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
    /// Show the namespaces instead
    #[arg(long = "ns")]
    namespaces: bool,
    /// Show pods (there are none)
    #[arg(short, long)]
    pod: bool,
    /// Show how much each container changed
    #[arg(short, long)]
    size: bool,
    /// Sort by command, created, id, image, names, runningfor, size, status
    #[arg(long, value_name = "FIELD", default_value = "created")]
    sort: String,
    /// Show them again and again, every so many seconds
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value = "0",
        hide_default_value = true
    )]
    watch: u64,
    /// For podman's scripts: there is nothing to synchronise
    #[arg(long, hide = true)]
    sync: bool,
    /// For podman's scripts: there are no containers of others in the store
    #[arg(long, hide = true)]
    external: bool,
}

const TABLE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.CreatedHuman}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const NAMESPACES: &str = "{{.ID}}\t{{.Names}}\t{{.Pid}}\t{{.Cgroup}}\t{{.IPC}}\t{{.MNT}}\t{{.NET}}\t{{.PIDNS}}\t{{.User}}\t{{.UTS}}";

/// Headings that are not the field's own words.
const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("CreatedHuman", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CIDFile", "CID FILE"),
    ("ImageID", "IMAGE ID"),
    ("Pod", "POD ID"),
    ("PodName", "PODNAME"),
    ("Cgroup", "CGROUPNS"),
    ("User", "USERNS"),
];

const FIELDS: &[&str] = &[
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
    "ExposedPorts",
    "Names",
    "Labels",
    "Mounts",
    "Networks",
    "Pid",
    "Pod",
    "PodName",
    "CIDFile",
    "IsInfra",
    "ExitCode",
    "Exited",
    "ExitedAt",
    "StartedAt",
    "Restarts",
    "Size",
    "AutoRemove",
    "Namespaces",
    "Cgroup",
    "IPC",
    "MNT",
    "NET",
    "PIDNS",
    "User",
    "UTS",
];

pub(crate) fn run(args: &Args) -> Result<u8> {
    check(args)?;
    let filters = Filters::parse(&args.filter)?;
    let store = Store::open()?;
    if args.watch == 0 {
        format::print(&show(&store, args, &filters)?)?;
        return Ok(0);
    }
    loop {
        let text = show(&store, args, &filters)?;
        format::print(&format!("\x1b[2J\x1b[H{text}"))?;
        std::thread::sleep(Duration::from_secs(args.watch));
    }
}

fn check(args: &Args) -> Result<()> {
    let refused = |text: &str| Err(usage(text).into());
    if args.latest && args.last.is_some_and(|n| n >= 0) {
        return refused("last and latest are mutually exclusive");
    }
    if args.quiet && (args.size || args.namespaces) {
        return refused("quiet conflicts with size and namespace");
    }
    if args.size && args.namespaces {
        return refused("size and namespace options conflict");
    }
    if args.watch > 0 && args.latest {
        return refused("the watch and latest flags cannot be used together");
    }
    Ok(())
}

fn show(store: &Store, args: &Args, filters: &Filters) -> Result<String> {
    let last = if args.latest {
        Some(1)
    } else {
        args.last
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0)
    };
    let record::Listing {
        mut records,
        skipped,
    } = list::list(store, filters)?;
    for (_, e) in &skipped {
        super::complain(e);
    }
    if last.is_none() && !args.all && !filters.is_about_state() {
        records.retain(|r| r.state == State::Running);
    }
    records.truncate(last.unwrap_or(usize::MAX));
    list::sort(store, &mut records, &args.sort)?;
    if args.quiet && args.format.is_none() {
        let ids = records
            .iter()
            .map(|r| id(r, args.no_trunc).to_owned() + "\n");
        return Ok(ids.collect());
    }
    let rows: Vec<Row> = records.iter().map(|r| row(store, r, args)).collect();
    let mut table = if args.namespaces { NAMESPACES } else { TABLE }.to_owned();
    if args.pod && !args.namespaces {
        table += "\t{{.Pod}}\t{{.PodName}}";
    }
    if args.size {
        table += "\t{{.Size}}";
    }
    // podman's own name for these fields.
    let format = args.format.as_ref().map(|f| f.replace(".Namespaces.", "."));
    let listing = Listing {
        table: &table,
        headings: HEADINGS,
        fields: FIELDS,
        heading: !args.noheading,
        fit: !args.no_trunc,
    };
    listing.render(&rows, format.as_deref())
}

fn id(record: &Record, whole: bool) -> &str {
    if whole { &record.id } else { short(&record.id) }
}

fn row(store: &Store, record: &Record, args: &Args) -> Row {
    let wanted = |field: &str| args.format.as_deref().is_some_and(|f| f.contains(field));
    let created = human::ago(record.created);
    let seconds = |t: Option<Timestamp>| t.map_or(-62_135_596_800, Timestamp::as_second);
    let usage = (args.size || wanted(".Size")).then(|| list::disk_use(store, record));
    let size = usage.as_ref().map_or(String::new(), |u| {
        format!(
            "{} (virtual {})",
            human::size(u.own),
            human::size(u.own + u.image)
        )
    });
    let pid = record.init.map_or(0, |p| p.pid);
    let look = args.namespaces
        || [
            "Namespaces",
            ".Cgroup",
            ".IPC",
            ".MNT",
            ".NET",
            ".PIDNS",
            ".User",
            ".UTS",
        ]
        .iter()
        .any(|f| wanted(f));
    let namespaces = namespaces(if look { pid } else { 0 });
    let image_id = record.image_id.as_deref().unwrap_or_default();
    let mut json = json!({
        "AutoRemove": record.auto_remove,
        "Command": record.command,
        "CreatedAt": created,
        "CIDFile": record.cidfile.clone().unwrap_or_default(),
        "Exited": record.state == State::Exited,
        "ExitedAt": seconds(record.finished),
        "ExitCode": record.exit_code.unwrap_or(0),
        "ExposedPorts": by_number(&record.exposed),
        "Id": record.id,
        "Image": record.image,
        "ImageID": image_id,
        "IsInfra": false,
        "Labels": or_null(!record.labels.is_empty(), &record.labels),
        "Mounts": record.mounts,
        "Names": [record.name],
        "Namespaces": namespaces,
        "Networks": networks(record),
        "Pid": pid,
        "Pod": "",
        "PodName": "",
        "Ports": or_null(!record.ports.is_empty(), &record.ports.iter().map(port_json).collect::<Vec<_>>()),
        "Restarts": record.restarts,
        "Size": usage.map(|u| json!({"rootFsSize": u.own + u.image, "rwSize": u.own})),
        "StartedAt": seconds(record.started),
        "State": record.state.word(),
        "Status": status(record),
    });
    let mut fields = json.clone();
    json["Created"] = seconds(record.created).into();
    let more = json!({
        "ID": id(record, args.no_trunc),
        "ImageID": if args.no_trunc { image_id } else { short(image_id) },
        "Command": command(record, args.no_trunc),
        "CreatedHuman": created,
        "CreatedAt": record.created.map(human::date),
        "Created": record.created.map(human::date),
        "RunningFor": created,
        "Ports": ports(record),
        "Names": record.name,
        "Networks": networks(record).join(","),
        "Labels": record.labels,
        "Restarts": record.restarts.to_string(),
        "Size": size,
    });
    for part in [&more, &namespaces_fields(&namespaces)] {
        for (key, value) in part.as_object().into_iter().flatten() {
            fields[key] = value.clone();
        }
    }
    Row { fields, json }
}

fn or_null<T: serde::Serialize>(some: bool, value: &T) -> Json {
    if some { json!(value) } else { Json::Null }
}

/// The words of the command, 17 characters of them at most.
fn command(record: &Record, whole: bool) -> String {
    let text = record.command.join(" ");
    let text = match text.char_indices().nth(17) {
        Some((at, _)) if !whole => format!("{}...", &text[..at]),
        _ => text,
    };
    text.replace(['\n', '\t'], " ")
}

/// pasta, none and host are no named networks.
fn networks(_record: &Record) -> Vec<String> {
    Vec::new()
}

/// Inode numbers of the namespaces of a process.
fn namespaces(pid: i32) -> BTreeMap<&'static str, String> {
    let kinds = [
        ("Cgroup", "cgroup"),
        ("Ipc", "ipc"),
        ("Mnt", "mnt"),
        ("Net", "net"),
        ("Pidns", "pid"),
        ("User", "user"),
        ("Uts", "uts"),
    ];
    let number = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
        let link = link.to_str()?;
        Some(link.split_once('[')?.1.trim_end_matches(']').to_owned())
    };
    let found = kinds.into_iter().filter(|_| pid > 0);
    found
        .filter_map(|(name, kind)| Some((name, number(kind)?)))
        .collect()
}

fn namespaces_fields(found: &BTreeMap<&'static str, String>) -> Json {
    let of = |name| found.get(name).map_or("", String::as_str);
    json!({
        "Cgroup": of("Cgroup"), "IPC": of("Ipc"), "MNT": of("Mnt"), "NET": of("Net"),
        "PIDNS": of("Pidns"), "User": of("User"), "UTS": of("Uts"),
    })
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

/// `{"80": ["tcp"]}`, or null.
fn by_number(ports: &[String]) -> Json {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for port in ports {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        all.entry(number).or_default().push(protocol);
    }
    or_null(!all.is_empty(), &all)
}

/// `Up 3 minutes (healthy)`, `Exited (0) 2 hours ago`, `Created`.
fn status(record: &Record) -> String {
    let mut text = match record.state {
        State::Running => {
            let since = record
                .started
                .map_or(0, |t| Timestamp::now().as_second() - t.as_second());
            format!("Up {}", human::duration(since))
        }
        State::Exited => format!(
            "Exited ({}) {}",
            record.exit_code.unwrap_or(0),
            human::ago(record.finished)
        ),
        state => {
            let (first, rest) = state.word().split_at(1);
            first.to_uppercase() + rest
        }
    };
    if let Some(health) = filter::health(record) {
        text += &format!(" ({health})");
    }
    text
}

/// `0.0.0.0:8080->80/tcp, 53/udp`: published ports, then those that are only exposed.
fn ports(record: &Record) -> String {
    let range = |first: u16, count: u16| match count {
        0 | 1 => first.to_string(),
        n => format!("{first}-{}", first + (n - 1)),
    };
    let one = |p: &Port| {
        let ip = match p.host_ip.as_str() {
            "" => "0.0.0.0".to_owned(),
            ip if ip.contains(':') => format!("[{ip}]"),
            ip => ip.to_owned(),
        };
        format!(
            "{ip}:{}->{}/{}",
            range(p.host_port, p.range),
            range(p.container_port, p.range),
            p.protocol
        )
    };
    let mut all: Vec<String> = record.ports.iter().map(one).collect();
    all.extend(only_exposed(record).iter().map(Exposed::to_string));
    all.join(", ")
}

/// Exposed ports that are not published. What was recorded and is none (before images' words were checked) is not shown.
fn only_exposed(record: &Record) -> Vec<Exposed> {
    let read = |text: &String| Exposed::parse(text).ok();
    let published = |p: &Port| {
        let last = p.container_port.saturating_add(p.range.max(1) - 1);
        Exposed::parse(&format!("{}-{last}/{}", p.container_port, p.protocol)).ok()
    };
    exposed::without(
        record.exposed.iter().filter_map(read).collect(),
        record.ports.iter().filter_map(published).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        serde_json::from_value(json!({
            "version": 1, "id": "a".repeat(64), "name": "n", "image": "i", "image_id": null,
            "command": ["sh", "-c", "echo two; exit 3"], "created": "2026-01-01T00:00:00Z",
            "state": "created", "auto_remove": false,
        }))
        .unwrap()
    }

    fn port(host_ip: &str, range: u16) -> Port {
        Port {
            host_ip: host_ip.into(),
            host_port: 8080,
            container_port: 80,
            range,
            protocol: "tcp".into(),
        }
    }

    #[test]
    fn ports_are_shown_as_podman_shows_them() {
        let shown = |published: Vec<Port>, exposed: &[&str]| {
            ports(&Record {
                ports: published,
                exposed: exposed.iter().map(|e| (*e).to_owned()).collect(),
                ..record()
            })
        };
        assert_eq!(shown(vec![port("", 1)], &[]), "0.0.0.0:8080->80/tcp");
        assert_eq!(
            shown(vec![port("127.0.0.1", 3)], &["81/tcp", "443/tcp"]),
            "127.0.0.1:8080-8082->80-82/tcp, 443/tcp"
        );
        assert_eq!(shown(vec![port("::1", 1)], &[]), "[::1]:8080->80/tcp");
        assert_eq!(
            shown(vec![], &["80/tcp", "82/tcp", "81/tcp", "53/udp", "99"]),
            "80-82/tcp, 99/tcp, 53/udp"
        );
        assert_eq!(
            shown(
                vec![port("", 3)],
                &["0-65535/tcp", "1-65535/p0", "80-90", "x", "1-65535/udp"]
            ),
            "0.0.0.0:8080-8082->80-82/tcp, 83-90/tcp, 1-65535/udp"
        );
    }

    #[test]
    fn commands_are_cut_at_seventeen_characters() {
        assert_eq!(command(&record(), false), "sh -c echo two; e...");
        assert_eq!(command(&record(), true), "sh -c echo two; exit 3");
        let short = Record {
            command: vec!["ä".repeat(17)],
            ..record()
        };
        assert_eq!(command(&short, false), "ä".repeat(17));
    }

    #[test]
    fn every_field_of_a_row_has_a_heading() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("d"), &dir.path().join("r")).unwrap();
        let args = Args {
            all: true,
            quiet: false,
            filter: Vec::new(),
            format: None,
            last: None,
            latest: false,
            no_trunc: false,
            noheading: false,
            namespaces: false,
            pod: false,
            size: false,
            sort: "created".into(),
            watch: 0,
            sync: false,
            external: false,
        };
        let row = row(&store, &record(), &args);
        for key in row.fields.as_object().unwrap().keys() {
            assert!(FIELDS.contains(&key.as_str()), "{key}");
        }
        for field in FIELDS {
            assert!(
                !row.fields[*field].is_null() || *field == "Size" || *field == "ExposedPorts",
                "{field}"
            );
        }
    }
}
