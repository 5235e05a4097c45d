//! `rless stats`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::format::{self, Listing, Row};
use super::human;
use crate::container::record::{Containers, Record};
use crate::container::stats::Sample;
use crate::error::{Result, failed, usage};
use crate::store::{Store, short};

/// Show what containers use: CPU, memory, network, block I/O, processes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// Print JSON (`json`), a Go template, or `table` and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Seconds between two looks
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value = "5",
        allow_hyphen_values = true
    )]
    interval: i64,
    /// Show the last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Do not clear the screen between two looks
    #[arg(long)]
    no_reset: bool,
    /// Look once
    #[arg(long)]
    no_stream: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Names, ids, or beginnings of ids; none: all that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const TABLE: &str = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDS}}\t{{.UpTime}}\t{{.AVGCPU}}";

const LISTING: Listing<'static> = Listing {
    table: TABLE,
    headings: &[
        ("CPUPerc", "CPU %"),
        ("AVGCPU", "AVG CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemUsageBytes", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET IO"),
        ("BlockIO", "BLOCK IO"),
        ("PIDS", "PIDS"),
        ("UpTime", "CPU TIME"),
    ],
    fields: &[
        "ID",
        "ContainerID",
        "Container",
        "Name",
        "CPUPerc",
        "AVGCPU",
        "MemUsage",
        "MemUsageBytes",
        "MemPerc",
        "NetIO",
        "BlockIO",
        "PIDS",
        "PIDs",
        "UpTime",
        "CPU",
        "CPUNano",
        "AvgCPU",
        "MemLimit",
        "NetInput",
        "NetOutput",
        "BlockInput",
        "BlockOutput",
    ],
    heading: true,
    fit: false,
};

pub(crate) fn run(args: &Args) -> Result<u8> {
    let ways = [args.all, args.latest, !args.containers.is_empty()];
    if ways.iter().filter(|w| **w).count() > 1 {
        return Err(usage("--all, --latest and containers cannot be used together").into());
    }
    let interval = u64::try_from(args.interval).ok().filter(|n| *n > 0);
    let Some(interval) = interval else {
        return Err(usage("invalid interval, must be a positive number greater zero").into());
    };
    let store = Store::open()?;
    let containers = Containers::of(&store);
    containers.heal_live();
    let clear = !args.no_reset && !args.no_stream && std::io::stdout().is_terminal();
    let mut before: BTreeMap<String, Sample> = BTreeMap::new();
    loop {
        let records = chosen(args, &containers)?;
        let now: BTreeMap<String, Sample> = records
            .iter()
            .map(|r| (r.id.clone(), Sample::of(r)))
            .collect();
        let row = |r: &Record| now.get(&r.id).map(|s| row(args, r, s, before.get(&r.id)));
        let rows: Vec<Row> = records.iter().filter_map(row).collect();
        let text = LISTING.render(&rows, args.format.as_deref())?;
        let reset = if clear { "\x1b[2J\x1b[1;1H" } else { "" };
        format::print(&format!("{reset}{text}"))?;
        if args.no_stream {
            return Ok(0);
        }
        before = now;
        std::thread::sleep(Duration::from_secs(interval));
    }
}

fn chosen(args: &Args, containers: &Containers) -> Result<Vec<Record>> {
    if !args.containers.is_empty() {
        let find = |name: &String| {
            let doing =
                || format!("unable to get list of containers: unable to look up container {name}");
            containers.find(name).with_context(doing)
        };
        return args.containers.iter().map(find).collect();
    }
    let mut records = containers.list()?;
    if args.latest {
        records.truncate(1);
        if records.is_empty() {
            return Err(failed("no containers found: no such container").into());
        }
    } else if !args.all {
        records.retain(|r| r.state.up());
    }
    records.reverse();
    Ok(records)
}

fn row(args: &Args, record: &Record, now: &Sample, before: Option<&Sample>) -> Row {
    let percent = |value: f64| format!("{value:.2}%");
    let pair = |a: u64, b: u64| format!("{} / {}", human::size4(a), human::size4(b));
    let id = if args.no_trunc {
        record.id.as_str()
    } else {
        short(&record.id)
    };
    let (cpu, average) = (now.cpu_percent(before), now.average_cpu());
    let memory = pair(now.memory, now.memory_limit);
    let network = pair(now.network.0, now.network.1);
    let unknown = || "-- / --".to_owned();
    let running = now.at.is_some();
    let block = match now.block {
        Some((read, written)) => pair(read, written),
        None if running => unknown(),
        None => pair(0, 0),
    };
    let time = human::go_duration(now.cpu);
    let (block_in, block_out) = now.block.unwrap_or_default();
    let fields = json!({
        "ID": id,
        "ContainerID": record.id,
        "Container": id,
        "Name": record.name,
        "CPUPerc": percent(cpu),
        "AVGCPU": percent(average),
        "MemUsage": memory,
        "MemUsageBytes": format!("{} / {}", human::binary(now.memory), human::binary(now.memory_limit)),
        "MemPerc": percent(now.memory_percent()),
        "NetIO": network,
        "BlockIO": block,
        "PIDS": now.pids.to_string(),
        "PIDs": now.pids,
        "UpTime": time,
        "CPU": cpu,
        "CPUNano": u64::try_from(now.cpu.as_nanos()).unwrap_or(u64::MAX),
        "AvgCPU": average,
        "MemLimit": now.memory_limit,
        "NetInput": now.network.0,
        "NetOutput": now.network.1,
        "BlockInput": block_in,
        "BlockOutput": block_out,
    });
    let json = json!({
        "id": id,
        "name": record.name,
        "cpu_time": time,
        "cpu_percent": percent(cpu),
        "avg_cpu": percent(average),
        "mem_usage": memory,
        "mem_percent": percent(now.memory_percent()),
        "net_io": network,
        "block_io": block,
        "pids": now.pids.to_string(),
    });
    Row { fields, json }
}
