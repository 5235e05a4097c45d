//! `rless volume`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::format::{self, Listing, Row};
use super::stop::seconds;
use super::{complain, each};
use crate::container::record::Containers;
use crate::container::remove::{How, remove_if_there};
use crate::container::volume_filter::VolumeFilters;
use crate::container::volumes::{self, Volume};
use crate::error::{Fault, Kind, Result, kind, usage};
use crate::store::Store;

/// Manage volumes.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    #[command(visible_alias = "remove")]
    Rm(Rm),
    Prune(Prune),
    /// End with 0 where there is such a volume, else with 1
    Exists {
        /// Its name
        #[arg(value_name = "VOLUME")]
        name: String,
    },
}

/// Make a volume and print its name
#[derive(Debug, clap::Args)]
struct Create {
    /// What makes it: local
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// One that is there already is no error
    #[arg(long)]
    ignore: bool,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Options of the driver; there are none
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Its name; a random one if left out
    name: Option<String>,
}

/// List volumes
#[derive(Debug, clap::Args)]
struct Ls {
    /// Show those that pass: anonymous=, dangling=, driver=, label=, label!=, name=, since=, until=
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Do not print headings
    #[arg(short, long)]
    noheading: bool,
    /// Print JSON (`json`), a Go template, or `table` and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Show volumes as JSON
#[derive(Debug, clap::Args)]
struct Inspect {
    /// Show all volumes
    #[arg(short, long)]
    all: bool,
    /// Render a Go template instead
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names, or beginnings of names
    #[arg(value_name = "VOLUME")]
    names: Vec<String>,
}

/// Remove volumes
#[derive(Debug, clap::Args)]
struct Rm {
    /// Remove all volumes
    #[arg(short, long)]
    all: bool,
    /// Remove the containers that use a volume, too; no such volume is no error
    #[arg(short, long)]
    force: bool,
    /// Seconds to wait for a container to stop before it is killed; -1: for ever
    #[arg(short, long, value_name = "SECONDS", allow_hyphen_values = true)]
    time: Option<i64>,
    /// Names, or beginnings of names
    #[arg(value_name = "VOLUME")]
    names: Vec<String>,
}

/// Remove the volumes that no container uses
#[derive(Debug, clap::Args)]
struct Prune {
    /// As without it: those with a name, too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove those that pass: anonymous=, label=, label!=, since=, until=
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let store = Store::open()?;
    volumes::sweep(&store.volumes_dir());
    match &args.command {
        Command::Create(args) => create(&store, args),
        Command::Ls(args) => list(&store, args),
        Command::Inspect(args) => inspect(&store, args),
        Command::Rm(args) => rm(&store, args),
        Command::Prune(args) => prune(&store, args),
        Command::Exists { name } => match volumes::find(&store.volumes_dir(), name) {
            Err(e) if kind(&e) == Kind::NoSuchObject => Ok(1),
            found => found.map(|_| 0),
        },
    }
}

fn create(store: &Store, args: &Create) -> Result<u8> {
    let root = store.volumes_dir();
    if args.driver != "local" {
        let text = format!("no volume plugin with name {} available", args.driver);
        return Err(usage(text).hint("the driver is local").into());
    }
    if let Some(option) = args.options.first() {
        return Err(unknown_option(option).into());
    }
    let pairs = args
        .label
        .iter()
        .map(|l| l.split_once('=').unwrap_or((l, "")));
    let labels: BTreeMap<_, _> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let Some(name) = &args.name else {
        let mut volume = volumes::anonymous(None)?;
        volume.labels = labels;
        volumes::ensure(&root, &volume)?;
        format::print(&format!("{}\n", volume.name))?;
        return Ok(0);
    };
    let volume = Volume {
        name: name.clone(),
        created: Timestamp::now().to_string(),
        anonymous: false,
        container: None,
        labels,
    };
    if !volumes::ensure(&root, &volume)? && !args.ignore {
        let text = format!("volume with name {name} already exists: volume already exists");
        return Err(Fault::new(Kind::Conflict, text).into());
    }
    format::print(&format!("{name}\n"))?;
    Ok(0)
}

/// A volume is a directory of the store; what podman would mount there, the container can mount itself.
fn unknown_option(option: &str) -> Fault {
    let text = format!("--opt {option}: volumes of the driver local have no options here");
    usage(text).hint(
        "a host directory is mounted by -v DIRECTORY:TARGET, a tmpfs by --tmpfs TARGET:size=SIZE, \
         a bound of the container's own changes is --storage-opt size=SIZE",
    )
}

const FIELDS: [&str; 7] = [
    "Driver",
    "Mountpoint",
    "CreatedAt",
    "Labels",
    "Scope",
    "Options",
    "Anonymous",
];

fn row(store: &Store, volume: &Volume) -> Row {
    let fields = json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volumes::data(&store.volumes_dir(), &volume.name),
        "CreatedAt": volume.created,
        "Labels": volume.labels,
        "Scope": "local",
        "Options": {},
        "Anonymous": volume.anonymous,
    });
    // podman's JSON says so of anonymous ones only.
    let mut json = fields.clone();
    if let Some(object) = json.as_object_mut().filter(|_| !volume.anonymous) {
        object.remove("Anonymous");
    }
    Row { fields, json }
}

fn list(store: &Store, args: &Ls) -> Result<u8> {
    let filters = VolumeFilters::parse(&args.filter, false)?;
    let mut all = volumes::list(&store.volumes_dir())?;
    filters.keep(&mut all, &used(store)?)?;
    let format = args.format.as_deref();
    if args.quiet && format.is_none() {
        let names = all.iter().map(|v| v.name.clone() + "\n");
        format::print(&names.collect::<String>())?;
        return Ok(0);
    }
    if all.is_empty() && format.is_none() {
        return Ok(0); // not even headings, as podman
    }
    let rows: Vec<Row> = all.iter().map(|v| row(store, v)).collect();
    let listing = Listing {
        table: "{{.Driver}}\t{{.Name}}",
        headings: &[("Name", "VOLUME NAME")],
        fields: &FIELDS,
        heading: !args.noheading,
        fit: false,
    };
    format::print(&listing.render(&rows, format)?)?;
    Ok(0)
}

/// The names of the volumes that containers use, running or not.
fn used(store: &Store) -> Result<BTreeSet<String>> {
    let containers = Containers::of(store).list()?;
    Ok(containers.into_iter().flat_map(|c| c.volumes).collect())
}

fn inspect(store: &Store, args: &Inspect) -> Result<u8> {
    let root = store.volumes_dir();
    if args.all != args.names.is_empty() {
        return Err(usage("provide one or more volume names or use --all").into());
    }
    let mut rows = Vec::new();
    let mut code = 0;
    if args.all {
        rows = volumes::list(&root)?
            .iter()
            .map(|v| row(store, v))
            .collect();
    }
    for name in &args.names {
        match volumes::lookup(&root, name) {
            Ok(volume) => rows.push(row(store, &volume)),
            Err(e) => {
                complain(&e);
                code = 125; // podman's here, where `rm` ends with 1
            }
        }
    }
    let listing = Listing {
        table: "",
        headings: &[("Name", "")],
        fields: &FIELDS,
        heading: false,
        fit: false,
    };
    let format = args.format.as_deref().unwrap_or("json");
    format::print(&listing.render(&rows, Some(format))?)?;
    Ok(code)
}

fn rm(store: &Store, args: &Rm) -> Result<u8> {
    let root = store.volumes_dir();
    let mut names = args.names.clone();
    if args.all {
        names = volumes::list(&root)?.into_iter().map(|v| v.name).collect();
    } else if names.is_empty() {
        return Err(usage("choose either one or more volumes or all").into());
    }
    // Clears what dead supervisors left.
    Containers::of(store).list()?;
    Ok(each(names.iter().map(String::as_str), |name| {
        let volume = match volumes::lookup(&root, name) {
            Err(e) if args.force && kind(&e) == Kind::NoSuchObject => return Ok(()),
            found => found?,
        };
        remove(store, &volume.name, args.force, seconds(args.time))?;
        format::print(&format!("{}\n", volume.name))
    }))
}

fn prune(store: &Store, args: &Prune) -> Result<u8> {
    let filters = VolumeFilters::parse(&args.filter, true)?;
    let used = used(store)?;
    let mut unused = volumes::list(&store.volumes_dir())?;
    filters.keep(&mut unused, &used)?;
    unused.retain(|v| !used.contains(&v.name));
    if !args.force {
        if unused.is_empty() {
            format::print("No dangling volumes found\n")?;
            return Ok(0);
        }
        let names: String = unused.iter().map(|v| v.name.clone() + "\n").collect();
        format::print(&format!(
            "WARNING! This will remove all volumes not used by at least one container. \
             The following volumes will be removed:\n{names}\
             Are you sure you want to continue? [y/N] "
        ))?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !answer.to_lowercase().starts_with('y') {
            return Ok(0);
        }
    }
    let unused = unused.iter().map(|v| v.name.as_str());
    Ok(each(unused, |name| {
        match remove(store, name, false, None) {
            // A container that came in between keeps it.
            Err(e) if kind(&e) == Kind::Conflict => return Ok(()),
            gone => gone?,
        }
        format::print(&format!("{name}\n"))
    }))
}

/// Removes a volume; with `force` the containers that use it first.
fn remove(store: &Store, name: &str, force: bool, seconds: Option<u64>) -> Result<()> {
    let root = store.volumes_dir();
    let containers = Containers::of(store);
    let how = How {
        force: true,
        volumes: false,
        timeout: seconds,
    };
    let mut rounds = 0;
    loop {
        // Nobody begins to use it from here to the deletion.
        let Some(claimed) = volumes::claim(&root, name)? else {
            return Ok(());
        };
        let users = containers.users(name)?;
        if users.is_empty() {
            return volumes::delete(&root, name, claimed);
        }
        rounds += 1;
        if !force || rounds > 3 {
            let ids: Vec<&str> = users.iter().map(|r| r.id.as_str()).collect();
            let text = format!(
                "volume {name} is being used by the following container(s): {}: volume is being used",
                ids.join(", ")
            );
            return Err(Fault::new(Kind::Conflict, text).into());
        }
        // One that goes with its container is deleted with it: by who can claim it.
        drop(claimed);
        for user in &users {
            remove_if_there(store, user, how)?;
        }
    }
}
