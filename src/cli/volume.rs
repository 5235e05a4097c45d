//! `rless volume`.

use std::collections::BTreeMap;

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::format::{self, Listing, Row};
use super::{each, object_exit_code};
use crate::container::record::Containers;
use crate::container::remove::{How, remove_if_there};
use crate::container::volumes::{self, Volume};
use crate::error::{Fault, Kind, Result, usage};
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
    /// Make a volume and print its name
    Create {
        /// Set a label
        #[arg(short, long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// Its name; a random one if left out
        name: Option<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Print names only
        #[arg(short, long)]
        quiet: bool,
        /// Do not print headings
        #[arg(short, long)]
        noheading: bool,
        /// Print JSON (`json`), a Go template, or `table` and a template
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
    },
    /// Show volumes as JSON
    Inspect {
        /// Render a Go template instead
        #[arg(short, long, value_name = "FORMAT")]
        format: Option<String>,
        /// Names
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm {
        /// Remove all volumes
        #[arg(short, long)]
        all: bool,
        /// Remove the containers that use a volume, too; no such volume is no error
        #[arg(short, long)]
        force: bool,
        /// Names
        #[arg(value_name = "VOLUME")]
        names: Vec<String>,
    },
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let store = Store::open()?;
    volumes::sweep(&store.volumes_dir());
    match &args.command {
        Command::Create { label, name } => create(&store, label, name.as_deref()),
        Command::Ls {
            quiet,
            noheading,
            format,
        } => list(&store, *quiet, !*noheading, format.as_deref()),
        Command::Inspect { format, names } => inspect(&store, format.as_deref(), names),
        Command::Rm { all, force, names } => rm(&store, *all, *force, names),
    }
}

fn create(store: &Store, labels: &[String], name: Option<&str>) -> Result<u8> {
    let root = store.volumes_dir();
    let pairs = labels.iter().map(|l| l.split_once('=').unwrap_or((l, "")));
    let labels: BTreeMap<_, _> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let Some(name) = name else {
        let mut volume = volumes::anonymous(None)?;
        volume.labels = labels;
        volumes::ensure(&root, &volume)?;
        format::print(&format!("{}\n", volume.name))?;
        return Ok(0);
    };
    let volume = Volume {
        name: name.to_owned(),
        created: Timestamp::now().to_string(),
        anonymous: false,
        container: None,
        labels,
    };
    if !volumes::ensure(&root, &volume)? {
        let text = format!("volume with name {name} already exists: volume already exists");
        return Err(Fault::new(Kind::Conflict, text).into());
    }
    format::print(&format!("{name}\n"))?;
    Ok(0)
}

fn row(store: &Store, volume: &Volume) -> Row {
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volumes::data(&store.volumes_dir(), &volume.name),
        "CreatedAt": volume.created,
        "Labels": volume.labels,
        "Scope": "local",
        "Options": {},
        "Anonymous": volume.anonymous,
    })
    .into()
}

fn list(store: &Store, quiet: bool, heading: bool, format: Option<&str>) -> Result<u8> {
    let all = volumes::list(&store.volumes_dir())?;
    if quiet && format.is_none() {
        format::print(
            &all.iter()
                .map(|v| v.name.clone() + "\n")
                .collect::<String>(),
        )?;
        return Ok(0);
    }
    let rows: Vec<Row> = all.iter().map(|v| row(store, v)).collect();
    let listing = Listing {
        table: "{{.Driver}}\t{{.Name}}",
        headings: &[("Name", "VOLUME NAME")],
        fields: &[
            "Driver",
            "Mountpoint",
            "CreatedAt",
            "Labels",
            "Scope",
            "Options",
            "Anonymous",
        ],
        heading,
        fit: false,
    };
    format::print(&listing.render(&rows, format)?)?;
    Ok(0)
}

fn inspect(store: &Store, format: Option<&str>, names: &[String]) -> Result<u8> {
    let mut rows = Vec::new();
    let code = each(names.iter().map(String::as_str), |name| {
        rows.push(row(store, &volumes::find(&store.volumes_dir(), name)?));
        Ok(())
    });
    let listing = Listing {
        table: "",
        headings: &[],
        fields: &[
            "Name",
            "Driver",
            "Mountpoint",
            "CreatedAt",
            "Labels",
            "Scope",
            "Options",
            "Anonymous",
        ],
        heading: false,
        fit: false,
    };
    format::print(&listing.render(&rows, Some(format.unwrap_or("json")))?)?;
    Ok(code)
}

fn rm(store: &Store, all: bool, force: bool, names: &[String]) -> Result<u8> {
    let root = store.volumes_dir();
    let mut names = names.to_vec();
    if all {
        names = volumes::list(&root)?.into_iter().map(|v| v.name).collect();
    } else if names.is_empty() {
        return Err(usage("volume rm needs the name of a volume")
            .hint("or --all")
            .into());
    }
    // Clears what dead supervisors left.
    Containers::of(store).list()?;
    Ok(each(names.iter().map(String::as_str), |name| {
        match volumes::find(&root, name) {
            Err(e) if force && object_exit_code(crate::error::kind(&e)) == 1 => return Ok(()),
            found => found?,
        };
        remove(store, name, force)?;
        format::print(&format!("{name}\n"))
    }))
}

/// Removes a volume; with `force` the containers that use it first.
fn remove(store: &Store, name: &str, force: bool) -> Result<()> {
    let root = store.volumes_dir();
    let containers = Containers::of(store);
    let how = How {
        force: true,
        volumes: false,
        timeout: None,
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
