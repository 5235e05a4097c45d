//! `rless inspect`.

use serde_json::{Value as Json, json};

use super::format::{self, JsonForm, Row};
use super::{complain, human};
use crate::container::record::Containers;
use crate::container::{inspect, volumes};
use crate::error::{self, Fault, Kind, Result, failed, usage};
use crate::store::Store;

/// Show everything that is known of containers, images and volumes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Render a Go template for each instead of JSON
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "json",
        hide_default_value = true
    )]
    format: String,
    /// Show the last container that was made
    #[arg(short, long)]
    latest: bool,
    /// Add what containers take on disk
    #[arg(short, long)]
    size: bool,
    /// What the names are: container, image, volume, all
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE",
        default_value = "all",
        hide_default_value = true
    )]
    kind: String,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// As `rless image inspect` and `rless container inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct OfOneKind {
    /// Render a Go template for each instead of JSON
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "json",
        hide_default_value = true
    )]
    format: String,
    /// Show the last one that was made
    #[arg(short, long)]
    latest: bool,
    /// Add what containers take on disk
    #[arg(short, long)]
    size: bool,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

impl OfOneKind {
    /// The same as [`Args`].
    pub(crate) fn of(&self, kind: &str) -> Args {
        Args {
            format: self.format.clone(),
            latest: self.latest,
            size: self.size,
            kind: kind.to_owned(),
            names: self.names.clone(),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    check(args)?;
    let store = Store::open()?;
    let mut found: Vec<Json> = Vec::new();
    let mut errors: Vec<anyhow::Error> = Vec::new();
    if args.latest {
        let records = Containers::of(&store).list()?;
        let Some(record) = records.first() else {
            return Err(failed("no containers found: no such container").into());
        };
        found.push(inspect::container(&store, record, args.size));
    }
    for name in &args.names {
        match look(&store, args, name) {
            Ok(json) => found.push(json),
            Err(e) => errors.push(e),
        }
    }
    format::print(&render(&found, &args.format)?)?;
    errors.iter().for_each(complain);
    // Whatever it was: podman's code here is 125.
    Ok(if errors.is_empty() { 0 } else { 125 })
}

fn check(args: &Args) -> Result<()> {
    let refused = |text: String| Err(usage(text).into());
    let kind = args.kind.as_str();
    if !["container", "image", "volume", "all", "network", "pod"].contains(&kind) {
        return refused(format!(
            "invalid type {kind:?}: must be \"image\", \"container\", \"pod\", \"network\", \"volume\", or \"all\""
        ));
    }
    if kind == "image" && (args.latest || args.size) {
        let what = if args.latest { "latest" } else { "size" };
        return refused(format!("{what} is not supported for type \"image\""));
    }
    if args.latest && !args.names.is_empty() {
        return refused("--latest and arguments cannot be used together".into());
    }
    if !args.latest && args.names.is_empty() {
        return refused("no names or ids specified".into());
    }
    Ok(())
}

/// What `name` is, in podman's order: a container, an image, a volume.
fn look(store: &Store, args: &Args, name: &str) -> Result<Json> {
    let all = args.kind == "all";
    let missing = |e: &anyhow::Error| all && error::kind(e) == Kind::NoSuchObject;
    if all || args.kind == "container" {
        match Containers::of(store).find(name) {
            Ok(record) => return Ok(inspect::container(store, &record, args.size)),
            Err(e) if missing(&e) => {}
            Err(e) => return Err(e),
        }
    }
    if all || args.kind == "image" {
        // A name that cannot be an image's is none.
        match store.find_image(name) {
            Ok(Some(image)) => return inspect::image(store, &image),
            Err(e) if !all => return Err(e),
            _ if !all => {
                return Err(
                    Fault::new(Kind::NoSuchObject, format!("{name}: image not known")).into(),
                );
            }
            _ => {}
        }
    }
    if all || args.kind == "volume" {
        match volumes::find(&store.volumes_dir(), name) {
            Ok(volume) => return Ok(inspect::volume(store, &volume)),
            Err(e) if missing(&e) => {}
            Err(e) => return Err(e),
        }
    }
    let what = if all { "object" } else { args.kind.as_str() };
    Err(Fault::new(Kind::NoSuchObject, format!("no such {what}: {name:?}")).into())
}

/// The objects as JSON, or each through a template.
pub(crate) fn render(found: &[Json], format: &str) -> Result<String> {
    let mut found = found.to_vec();
    for json in &mut found {
        if let Some(size) = json.pointer_mut("/HostConfig/LogConfig/Size") {
            *size = human::size4(size.as_u64().unwrap_or(0)).into();
        }
    }
    match JsonForm::of(format) {
        None if !format.is_empty() => {}
        Some(JsonForm::Lines) => return Ok(found.iter().map(|json| format!("{json}\n")).collect()),
        _ => return Ok(format::inspected(&found)),
    }
    // Go's names of these fields, as podman takes them.
    let format = format
        .replace(".Src", ".Source")
        .replace(".Dst", ".Destination")
        .replace(".ImageID", ".Image");
    let format = format.strip_prefix("table ").unwrap_or(&format);
    let mut out = String::new();
    for json in found {
        let row = Row {
            fields: fields(json.clone()),
            json,
        };
        out += &format::object(&row, Some(format))?.unwrap_or_default();
    }
    Ok(out)
}

/// The text of a template over one container.
pub(crate) fn fill_in(container: &Json, template: &str) -> Result<String> {
    let text = render(std::slice::from_ref(container), template)?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// What a template sees: times that are times, and the names of Go's fields.
fn fields(mut json: Json) -> Json {
    let times = [
        "/Created",
        "/CreatedAt",
        "/State/StartedAt",
        "/State/FinishedAt",
        "/State/CheckpointedAt",
        "/State/RestoredAt",
    ];
    for pointer in times {
        if let Some(value) = json.pointer_mut(pointer) {
            *value = format::time(value.as_str().unwrap_or_default());
        }
    }
    for mount in json
        .get_mut("Mounts")
        .and_then(Json::as_array_mut)
        .into_iter()
        .flatten()
    {
        if mount.get("Name").is_none() {
            mount["Name"] = "".into();
        }
    }
    // What podman leaves out of the JSON while it is empty.
    if json.pointer("/Config/CreateCommand").is_some() {
        let config = &mut json["Config"];
        for (key, empty) in [
            ("Timezone", json!("")),
            ("Secrets", json!([])),
            ("Volumes", json!({})),
        ] {
            if config[key].is_null() {
                config[key] = empty;
            }
        }
    }
    if let Some(id) = json.get("Id").cloned() {
        json["ID"] = id;
    }
    if json.pointer("/State").is_some() && json.pointer("/NetworkSettings/Networks").is_none() {
        json["NetworkSettings"]["Networks"] = json!({});
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_see_go_s_names_and_times() {
        let object = json!({
            "Id": "abc", "Image": "def", "Created": "2026-01-01T00:00:00.5Z",
            "State": {"StartedAt": "0001-01-01T00:00:00Z", "Health": null},
            "NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": "8080"}], "99/tcp": null}},
            "Config": {"Labels": {"a.b": "c"}},
        });
        let show = |format: &str| render(std::slice::from_ref(&object), format).unwrap();
        assert_eq!(show("{{.ID}} {{.Id}} {{.ImageID}}"), "abc abc def\n");
        assert!(
            show("{{.Created}}").contains(" +0000 UTC") || show("{{.Created}}").contains("2026")
        );
        assert_eq!(
            show("{{.State.StartedAt}}"),
            "0001-01-01 00:00:00 +0000 UTC\n"
        );
        assert_eq!(
            show("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}"),
            "8080\n"
        );
        assert_eq!(show("{{index .Config.Labels \"a.b\"}}"), "c\n");
        assert_eq!(
            show("{{json .NetworkSettings.Ports}}"),
            "{\"80/tcp\":[{\"HostPort\":\"8080\"}],\"99/tcp\":null}\n"
        );
        assert_eq!(show("{{if .State.Health}}yes{{else}}no{{end}}"), "no\n");
        assert_eq!(
            show("{{json .Created}} {{json .State}} {{.State.StartedAt.Unix}}"),
            "\"2026-01-01T00:00:00.5Z\" {\"Health\":null,\"StartedAt\":\"0001-01-01T00:00:00Z\"} -62135596800\n"
        );
        assert_eq!(show("{{ json . }}"), format!("{object}\n"));
        let of_config = |config: Json| {
            let object = json!({"Config": config});
            let format = "{{.Config.Timezone}} {{.Config.Secrets}} {{.Config.Volumes}}";
            render(&[object], format).unwrap()
        };
        let empty = json!({"CreateCommand": [], "Volumes": null});
        assert_eq!(of_config(empty), " [] map[]\n");
        let zone = json!({"CreateCommand": [], "Timezone": "UTC"});
        assert_eq!(of_config(zone), "UTC [] map[]\n");
        assert_eq!(
            show("{{range $p, $c := .NetworkSettings.Ports}}{{$p}} {{end}}"),
            "80/tcp 99/tcp \n"
        );
        assert!(render(std::slice::from_ref(&object), "{{.State.Health.Status}}").is_err());
        assert!(render(&[object], "{{.Nope}}").is_err());
    }

    #[test]
    fn nothing_found_is_an_empty_list() {
        assert_eq!(render(&[], "json").unwrap(), "[]\n");
        assert_eq!(render(&[], "{{.Id}}").unwrap(), "");
    }
}
