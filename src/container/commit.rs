//! `commit`: a container as an image.
//!
//! Its files are those of one moment ([`super::view`]): the container goes on meanwhile, and is stopped or paused only
//! if that is asked for. Its configuration is the image's, with what the container was run with over it (as podman: environment,
//! command, working directory, labels, ports), and then the changes asked for, in a Containerfile's words.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::ask::{self, Question};
use super::events::Action;
use super::record::{Containers, Record, State};
use super::view::View;
use crate::error::{Result, failed, usage};
use crate::image::reference::{Name, Reference};
use crate::store::{Format, Image, NewImage, Progress, Store, files};

/// How to commit.
#[derive(Debug, Clone)]
pub struct Request {
    /// The new image's name.
    pub name: Option<String>,
    /// `--author`
    pub author: String,
    /// `--message`
    pub message: String,
    /// `--change`
    pub changes: Vec<String>,
    /// `--format`
    pub format: Format,
    /// `--pause`: nothing in it runs while its files are frozen.
    pub pause: bool,
    /// `--squash`
    pub squash: bool,
    /// `--include-volumes`
    pub include_volumes: bool,
}

/// Makes an image of the container of `record`.
///
/// # Errors
/// It is over a host directory; a name or change is malformed; its files cannot be read or stored.
pub fn commit(
    store: &Store,
    record: &Record,
    request: &Request,
    progress: &dyn Progress,
) -> Result<Image> {
    let names = match &request.name {
        Some(name) => vec![reference(name)?],
        None => Vec::new(),
    };
    if !request.message.is_empty() && request.format == Format::Oci {
        let text = "messages are only compatible with the docker image format (-f docker)";
        return Err(usage(text).into());
    }
    let Some(image_id) = &record.image_id else {
        return Err(failed("cannot commit a container that uses an exploded rootfs").into());
    };
    let containers = Containers::of(store);
    // Kept from being removed, until the new image names its layers.
    let _held = store.hold_image(image_id)?;
    let base = store
        .find_image(&format!("sha256:{image_id}"))?
        .with_context(|| format!("the image {image_id} is gone"))?;
    let mut config = store.config_of(&base)?;
    let created = Timestamp::now().to_string();
    configure(store, record, request, &created, &mut config)?;
    progress.message("Getting image source signatures");
    let view = {
        let _paused = request
            .pause
            .then(|| Paused::new(&containers, record))
            .transpose()?;
        View::of(store, &containers, &record.id, true)?
    };
    let mut history = json!({
        "created": created,
        "created_by": "/bin/sh",
        "comment": format!("FROM {}", record.image),
    });
    if !request.author.is_empty() {
        history["author"] = request.author.clone().into();
    }
    let image = store.commit_image(
        NewImage {
            base: &base,
            cow: &view.cow,
            config,
            history,
            squash: request.squash,
            format: request.format,
            names,
        },
        progress,
    )?;
    containers.emit(record, Action::Commit);
    Ok(image)
}

/// A container that is paused while this lives: by its supervisor for as long as the connection is open, so that it goes
/// on when this process is interrupted or killed.
struct Paused<'a> {
    containers: &'a Containers,
    held: Option<(&'a str, OwnedFd)>,
}

impl Paused<'_> {
    fn new<'a>(containers: &'a Containers, record: &'a Record) -> Result<Paused<'a>> {
        let held = match record.state {
            State::Running => ask::hold(containers, &record.id, PATIENCE)?,
            _ => None,
        };
        let held = held.map(|socket| (&*record.id, socket));
        Ok(Paused { containers, held })
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if let Some((id, _socket)) = self.held.take() {
            // Answered when it goes on. It may have been unpaused or killed by somebody else.
            let _ = ask::ask(self.containers, id, &Question::Unpause, Some(PATIENCE));
        }
    }
}

/// A name without a registry is one of this machine.
fn reference(name: &str) -> Result<Reference> {
    let text = || format!("parsing reference {name:?}");
    let parsed = Name::parse(name).with_context(text)?;
    match parsed {
        Name::Full(reference) => Ok(reference),
        Name::Short(short) => Ok(short.at("localhost")?),
    }
}

/// Changes the image's config into the new one's.
fn configure(
    store: &Store,
    record: &Record,
    request: &Request,
    created: &str,
    config: &mut Value,
) -> Result<()> {
    let top = config.as_object_mut().context("its config is no object")?;
    for gone in [
        "container",
        "container_config",
        "comment",
        "docker_version",
        "id",
        "parent",
        "moby.buildkit.buildinfo.v1",
    ] {
        top.remove(gone);
    }
    top.insert("created".into(), created.into());
    if !request.author.is_empty() {
        top.insert("author".into(), request.author.clone().into());
    }
    let mut run = match top.remove("config") {
        Some(Value::Object(run)) => run,
        _ => Map::new(),
    };
    of_container(store, record, request, &mut run)?;
    for change in &request.changes {
        apply(&mut run, change, request.format)?;
    }
    if request.format == Format::Docker {
        if !request.message.is_empty() {
            top.insert("comment".into(), request.message.clone().into());
        }
        top.insert("container".into(), record.id.clone().into());
        run.insert("Image".into(), record.image.clone().into());
        top.insert("container_config".into(), Value::Object(run.clone()));
    } else {
        run.retain(|key, _| {
            !["Healthcheck", "OnBuild", "Image", "Hostname", "Domainname"].contains(&key.as_str())
        });
    }
    top.insert("config".into(), Value::Object(run));
    Ok(())
}

/// What the container was run with.
fn of_container(
    store: &Store,
    record: &Record,
    request: &Request,
    run: &mut Map<String, Value>,
) -> Result<()> {
    let place = Containers::of(store).place(&record.id);
    let spec: Option<Value> = files::read_json(&place.dir.join("config.json"))?;
    let asked: Option<Value> = files::read_json(&place.dir.join("request.json")).unwrap_or(None);
    let strings = |v: &Value| -> Vec<String> {
        let list = v.as_array().into_iter().flatten();
        list.filter_map(|s| s.as_str().map(str::to_owned)).collect()
    };
    let process = spec.as_ref().and_then(|s| s.get("process"));
    if let Some(process) = process {
        let images: Vec<String> = run.get("Env").map(strings).unwrap_or_default();
        let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
        let own = ["HOSTNAME", "HOME", "TERM", "NOTIFY_SOCKET"];
        let mut env = strings(process.get("env").unwrap_or(&Value::Null));
        // What every container is told for itself is no part of the image.
        env.retain(|line| {
            let name = name(line);
            !own.contains(&name.as_str())
                || images.iter().any(|i| i.starts_with(&format!("{name}=")))
        });
        run.insert("Env".into(), json!(env));
        if let Some(cwd) = process.get("cwd") {
            run.insert("WorkingDir".into(), cwd.clone());
        }
    }
    let entrypoint = asked
        .as_ref()
        .and_then(|a| a.get("entrypoint"))
        .filter(|e| e.is_array())
        .or(run.get("Entrypoint"))
        .map(strings)
        .unwrap_or_default();
    match record.command.strip_prefix(&entrypoint[..]) {
        Some(rest) if !entrypoint.is_empty() => {
            run.insert("Entrypoint".into(), json!(entrypoint));
            set_list(run, "Cmd", rest);
        }
        _ => {
            run.remove("Entrypoint");
            set_list(run, "Cmd", &record.command);
        }
    }
    let user = asked.as_ref().and_then(|a| a.get("user")?.as_str());
    if let Some(user) = user.filter(|u| !u.is_empty()) {
        run.insert("User".into(), user.into());
    }
    if !record.labels.is_empty() {
        run.insert("Labels".into(), json!(record.labels));
    }
    for port in &record.ports {
        for n in 0..port.range.max(1) {
            let number = port.container_port.saturating_add(n);
            insert(run, "ExposedPorts", &format!("{number}/{}", port.protocol));
        }
    }
    if request.include_volumes {
        for target in &record.mounts {
            insert(run, "Volumes", target);
        }
    }
    Ok(())
}

fn set_list(run: &mut Map<String, Value>, key: &str, list: &[String]) {
    match list.is_empty() {
        true => drop(run.remove(key)),
        false => drop(run.insert(key.into(), json!(list))),
    }
}

/// Adds a key to a set, which in this format is an object of empty objects.
fn insert(run: &mut Map<String, Value>, key: &str, member: &str) {
    let set = run.entry(key).or_insert_with(|| json!({}));
    if !set.is_object() {
        *set = json!({});
    }
    set[member] = json!({});
}

/// Applies one `--change`.
fn apply(run: &mut Map<String, Value>, change: &str, format: Format) -> Result<()> {
    let change = change.trim();
    let end = change.find(|c: char| !c.is_ascii_alphabetic());
    let (word, rest) = change.split_at(end.unwrap_or(change.len()));
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim();
    let bad = || {
        usage(format!(
            "applying changes: processing change \"{word} {rest}\": did not understand change instruction \"{word} {rest}\""
        ))
    };
    if rest.is_empty() {
        return Err(bad().into());
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => set_list(run, "Cmd", &command(rest)),
        "ENTRYPOINT" => {
            set_list(run, "Entrypoint", &command(rest));
        }
        "ENV" => {
            let mut env: Vec<String> = run
                .get("Env")
                .and_then(|e| serde_json::from_value(e.clone()).ok())
                .unwrap_or_default();
            for (name, value) in pairs(rest).ok_or_else(bad)? {
                env.retain(|line| line.split('=').next() != Some(&name));
                env.push(format!("{name}={value}"));
            }
            run.insert("Env".into(), json!(env));
        }
        "LABEL" => {
            let mut labels: BTreeMap<String, String> = run
                .get("Labels")
                .and_then(|l| serde_json::from_value(l.clone()).ok())
                .unwrap_or_default();
            labels.extend(pairs(rest).ok_or_else(bad)?);
            run.insert("Labels".into(), json!(labels));
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                insert(run, "ExposedPorts", &format!("{number}/{protocol}"));
            }
        }
        "VOLUME" => {
            let list = serde_json::from_str::<Vec<String>>(rest);
            let list = list.unwrap_or_else(|_| words(rest));
            list.iter().for_each(|v| insert(run, "Volumes", v));
        }
        "USER" => drop(run.insert("User".into(), rest.into())),
        "WORKDIR" => {
            let old = run.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let path = std::path::Path::new(old).join(rest);
            run.insert("WorkingDir".into(), path.to_string_lossy().into());
        }
        "STOPSIGNAL" => drop(run.insert("StopSignal".into(), rest.into())),
        "ONBUILD" if format == Format::Docker => {
            let list = run.entry("OnBuild").or_insert_with(|| json!([]));
            match list.as_array_mut() {
                Some(list) => list.push(rest.into()),
                None => *list = json!([rest]),
            }
        }
        "HEALTHCHECK" if format == Format::Docker => {
            run.insert("Healthcheck".into(), health(rest).ok_or_else(bad)?);
        }
        "ONBUILD" | "HEALTHCHECK" => {
            log::warn!("{word} is not supported for the OCI image format; use -f docker");
        }
        _ => return Err(bad().into()),
    }
    Ok(())
}

/// A command in exec form (a JSON list), else in shell form.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text)
        .unwrap_or_else(|_| ["/bin/sh", "-c", text].map(str::to_owned).to_vec())
}

/// Words with quotes and backslashes taken as a shell does, variables not.
fn words(text: &str) -> Vec<String> {
    let (mut out, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().extend(chars.next());
            }
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(q)) if c == q => quote = None,
            (c, None) if c.is_whitespace() => out.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

/// `k=v k=v …`, or `k value to the end`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text);
    if !words.first()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |w: String| w.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    words.into_iter().map(pair).collect()
}

/// `[--interval=5s …] CMD …`, or `NONE`.
fn health(text: &str) -> Option<Value> {
    let mut rest = text.trim();
    let mut check = Map::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, behind) = flag.split_once(char::is_whitespace)?;
        let (name, value) = flag.split_once('=')?;
        let (key, value) = match name {
            "interval" => ("Interval", duration(value)?),
            "timeout" => ("Timeout", duration(value)?),
            "start-period" => ("StartPeriod", duration(value)?),
            "retries" => ("Retries", value.parse().ok()?),
            _ => return None,
        };
        check.insert(key.to_owned(), value.into());
        rest = behind.trim_start();
    }
    let test = match rest.split_once(char::is_whitespace) {
        None if rest == "NONE" => vec!["NONE".to_owned()],
        Some(("CMD", line)) => match serde_json::from_str::<Vec<String>>(line.trim()) {
            Ok(list) => [vec!["CMD".to_owned()], list].concat(),
            Err(_) => vec!["CMD-SHELL".to_owned(), line.trim().to_owned()],
        },
        _ => return None,
    };
    check.insert("Test".to_owned(), json!(test));
    Some(Value::Object(check))
}

/// Nanoseconds of `1h2m3.5s`.
fn duration(text: &str) -> Option<u64> {
    let (mut rest, mut sum) = (text, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|c: char| c.is_ascii_digit());
        let (unit, behind) = behind.split_at(end.unwrap_or(behind.len()));
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * factor;
        rest = behind;
    }
    Some(sum as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(changes: &[&str], format: Format) -> Value {
        let mut run = Map::new();
        run.insert("Env".into(), json!(["PATH=/bin"]));
        run.insert("WorkingDir".into(), "/w".into());
        for change in changes {
            apply(&mut run, change, format).unwrap();
        }
        Value::Object(run)
    }

    /// Recorded from podman 5.4.2.
    #[test]
    fn changes_are_those_of_podman() {
        let changes = [
            "CMD=/bin/foo",
            "ENTRYPOINT [\"a\",\"b\"]",
            "ENV=A=1",
            "ENV B=2 C='3 4'",
            "ENV D five six",
            "EXPOSE=80",
            "EXPOSE 53/udp",
            "LABEL l=v m=n",
            "USER=1:2",
            "VOLUME /v",
            "WORKDIR=/x",
            "WORKDIR y",
            "STOPSIGNAL 9",
        ];
        let expect = json!({
            "Cmd": ["/bin/sh", "-c", "/bin/foo"],
            "Entrypoint": ["a", "b"],
            "Env": ["PATH=/bin", "A=1", "B=2", "C=3 4", "D=five six"],
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Labels": {"l": "v", "m": "n"},
            "User": "1:2",
            "Volumes": {"/v": {}},
            "WorkingDir": "/x/y",
            "StopSignal": "9",
        });
        assert_eq!(after(&changes, Format::Oci), expect);
        let docker = [
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=1m5.5s --retries=3 CMD true",
        ];
        let got = after(&docker, Format::Docker);
        assert_eq!(got["OnBuild"], json!(["RUN x"]));
        assert_eq!(
            got["Healthcheck"],
            json!({"Test": ["CMD-SHELL", "true"], "Interval": 65_500_000_000_u64, "Retries": 3})
        );
        assert_eq!(
            after(&["HEALTHCHECK NONE"], Format::Docker)["Healthcheck"],
            json!({"Test": ["NONE"]})
        );
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for bad in [
            "FOO=1",
            "CMD",
            "",
            "ENV A",
            "LABEL x=1 y",
            "HEALTHCHECK --x=1 CMD a",
        ] {
            let mut run = Map::new();
            assert!(apply(&mut run, bad, Format::Docker).is_err(), "{bad}");
        }
        let mut run = Map::new();
        let e = apply(&mut run, "FOO=1", Format::Oci).unwrap_err();
        assert!(
            e.to_string()
                .ends_with("did not understand change instruction \"FOO 1\"")
        );
    }
}
