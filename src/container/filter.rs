//! `--filter` of commands on containers: `ps`, `rm`, `start`, `stop`, `restart`, `pause`, `prune` …
//!
//! Keys and their meaning are podman's. Values of one key add up, those of `label`, `label!` and `until` must all hold; different
//! keys must all hold. `name` and an `id` that is no hex number are regular expressions (Go's syntax, near enough).

use std::collections::BTreeMap;

use jiff::Timestamp;
use oci_spec::runtime::Spec;
use regex::Regex;

use super::record::{Containers, Record, State};
use super::when;
use crate::error::{Result, ResultExt, failed, usage};
use crate::store::{Store, files};

/// What `--filter` takes, for help and hints.
pub const KEYS: &str = "one of ancestor, before, exited, health, id, label, label!, name, network, \
    pod, restart-policy, since, status, until, volume";

const STATES: [&str; 11] = [
    "created",
    "initialized",
    "running",
    "paused",
    "exited",
    "stopped",
    "stopping",
    "restarting",
    "removing",
    "dead",
    "unknown",
];

const POLICIES: [&str; 5] = ["none", "no", "always", "on-failure", "unless-stopped"];

/// The filters of one command line, read but not looked up.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    by_key: BTreeMap<String, Vec<String>>,
}

impl Filters {
    /// Reads `KEY=VALUE` each.
    ///
    /// # Errors
    /// An unknown key or a value that it cannot have.
    pub fn parse(texts: &[String]) -> Result<Filters> {
        Filters::of(texts, |key| {
            matches!(
                key,
                "ancestor"
                    | "before"
                    | "exited"
                    | "health"
                    | "id"
                    | "label"
                    | "label!"
                    | "name"
                    | "network"
                    | "pod"
                    | "restart-policy"
                    | "since"
                    | "status"
                    | "until"
                    | "volume"
            )
        })
    }

    /// As [`Filters::parse`], for `container prune`: labels and age only.
    ///
    /// # Errors
    /// As [`Filters::parse`].
    pub fn parse_prune(texts: &[String]) -> Result<Filters> {
        Filters::of(texts, |key| matches!(key, "label" | "label!" | "until"))
    }

    fn of(texts: &[String], known: fn(&str) -> bool) -> Result<Filters> {
        let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in texts {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| usage(format!("invalid filter {text:?}")))?;
            // `label!=a=b`, and docker's word for `since`.
            let key = if key == "after" { "since" } else { key };
            if !known(key) {
                return Err(usage(format!("{key} is an invalid filter"))
                    .hint(KEYS)
                    .into());
            }
            check(key, value)?;
            by_key
                .entry(key.to_owned())
                .or_default()
                .push(value.to_owned());
        }
        Ok(Filters { by_key })
    }

    /// Nothing is filtered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// A state is asked for, so that `ps` looks at all containers.
    #[must_use]
    pub fn is_about_state(&self) -> bool {
        self.by_key.contains_key("status")
    }

    /// Looks up what the filters name: containers, images, times.
    ///
    /// # Errors
    /// `before` or `since` name no container.
    pub fn bind(&self, store: &Store) -> Result<Bound> {
        let containers = Containers::of(store);
        let mut tests = Vec::new();
        for (key, values) in &self.by_key {
            tests.push(bind(store, &containers, key, values)?);
        }
        Ok(Bound { containers, tests })
    }

    /// Keeps those of `records` that pass.
    ///
    /// # Errors
    /// As [`Filters::bind`].
    pub fn keep(&self, store: &Store, records: &mut Vec<Record>) -> Result<()> {
        let bound = self.bind(store)?;
        records.retain(|r| bound.pass(r));
        Ok(())
    }
}

/// Refuses a value when the command line is read.
fn check(key: &str, value: &str) -> Result<()> {
    match key {
        "status" if !STATES.contains(&value) => Err(usage(format!(
            "unknown container state: {value}: invalid argument"
        ))
        .into()),
        "exited" => match value.parse::<i32>() {
            Ok(_) => Ok(()),
            Err(_) => Err(usage(format!("exited code out of range {value:?}")).into()),
        },
        "restart-policy" if !POLICIES.contains(&value) => {
            Err(usage(format!("{value} invalid restart policy")).into())
        }
        "name" => expression(value).map(drop),
        "id" if !is_hex(value) => expression(value).map(drop),
        "until" => when::past(value, Timestamp::now()).map(drop),
        _ => Ok(()),
    }
}

fn expression(text: &str) -> Result<Regex> {
    Regex::new(text).fault(|| {
        usage(format!(
            "the filter value {text:?} is no regular expression"
        ))
    })
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// One key's values, looked up.
#[derive(Debug)]
enum Test {
    Id(Vec<IdTest>),
    Name(Vec<Regex>),
    Label(Vec<String>),
    NotLabel(Vec<String>),
    Exited(Vec<i32>),
    Status(Vec<String>),
    Ancestor {
        images: Vec<String>,
        words: Vec<String>,
    },
    Before(Timestamp),
    Since(Timestamp),
    Volume(Vec<String>),
    Health(Vec<String>),
    Network(Vec<String>),
    Policy(Vec<String>),
    Never,
}

#[derive(Debug)]
enum IdTest {
    Prefix(String),
    Expression(Regex),
}

/// Filters with everything they name looked up.
#[derive(Debug)]
pub struct Bound {
    containers: Containers,
    tests: Vec<Test>,
}

fn bind(store: &Store, containers: &Containers, key: &str, values: &[String]) -> Result<Test> {
    let owned = || values.to_vec();
    let earliest = || -> Result<Timestamp> {
        let mut first: Option<Timestamp> = None;
        for value in values {
            let made = containers.find(value)?.created;
            let made = made.ok_or_else(|| failed(format!("when {value} was made is not known")))?;
            first = Some(first.map_or(made, |t| t.min(made)));
        }
        first.ok_or_else(|| usage("a filter without a value").into())
    };
    Ok(match key {
        "id" => Test::Id(
            values
                .iter()
                .map(|value| {
                    Ok(if is_hex(value) {
                        IdTest::Prefix(value.to_ascii_lowercase())
                    } else {
                        IdTest::Expression(expression(value)?)
                    })
                })
                .collect::<Result<_>>()?,
        ),
        // docker shows names with a slash before them.
        "name" => Test::Name(
            values
                .iter()
                .map(|v| expression(&v.replace('/', "")))
                .collect::<Result<_>>()?,
        ),
        "label" => Test::Label(owned()),
        "label!" => Test::NotLabel(owned()),
        "exited" => Test::Exited(values.iter().filter_map(|v| v.parse().ok()).collect()),
        "status" => Test::Status(owned()),
        "ancestor" => ancestor(store, values),
        "before" => Test::Before(earliest()?),
        "since" => Test::Since(earliest()?),
        "until" => {
            let now = Timestamp::now();
            let times = values.iter().map(|v| when::past(v, now));
            let times = times.collect::<Result<Vec<_>>>()?;
            times.into_iter().min().map_or(Test::Never, Test::Before)
        }
        "volume" => Test::Volume(owned()),
        "health" => Test::Health(owned()),
        "network" => Test::Network(network(containers, values)),
        "restart-policy" => Test::Policy(owned()),
        // There are no pods.
        _ => Test::Never,
    })
}

fn ancestor(store: &Store, values: &[String]) -> Test {
    let (mut images, mut words) = (Vec::new(), Vec::new());
    for value in values {
        if let Ok(Some(image)) = store.find_image(value) {
            images.push(image.id);
        }
        words.push(value.trim_start_matches("sha256:").to_owned());
    }
    Test::Ancestor { images, words }
}

/// `container:NAME` is compared by the other container's id.
fn network(containers: &Containers, values: &[String]) -> Vec<String> {
    let by_id = |value: &String| {
        let other = value.strip_prefix("container:")?;
        Some(format!("container:{}", containers.find(other).ok()?.id))
    };
    values
        .iter()
        .flat_map(|value| by_id(value).into_iter().chain([value.clone()]))
        .collect()
}

impl Bound {
    /// Whether a container passes.
    #[must_use]
    pub fn pass(&self, record: &Record) -> bool {
        self.tests.iter().all(|test| self.one(test, record))
    }

    fn one(&self, test: &Test, record: &Record) -> bool {
        match test {
            Test::Id(tests) => tests.iter().any(|test| match test {
                IdTest::Prefix(start) => record.id.starts_with(start.as_str()),
                IdTest::Expression(expression) => expression.is_match(&record.id),
            }),
            Test::Name(expressions) => expressions.iter().any(|e| e.is_match(&record.name)),
            Test::Label(wanted) => wanted.iter().all(|w| labelled(&record.labels, w)),
            Test::NotLabel(wanted) => !wanted.iter().any(|w| labelled(&record.labels, w)),
            Test::Exited(codes) => {
                record.state == State::Exited
                    && record.exit_code.is_some_and(|c| codes.contains(&c))
            }
            Test::Status(words) => words.iter().any(|word| {
                let word = if word == "stopped" { "exited" } else { word };
                word == record.state.word()
            }),
            Test::Ancestor { images, words } => from_image(record, images, words),
            Test::Before(time) => record.created.is_some_and(|made| made < *time),
            Test::Since(time) => record.created.is_some_and(|made| made > *time),
            Test::Volume(wanted) => wanted.iter().any(|w| self.mounts(record, w)),
            Test::Health(wanted) => health(record).is_some_and(|h| wanted.iter().any(|w| w == h)),
            Test::Network(wanted) => {
                let mode = record.network.as_str();
                let head = match mode.split_once(':') {
                    Some(("container" | "ns", _)) | None => mode,
                    Some((head, _)) => head,
                };
                wanted.iter().any(|w| w == head)
            }
            Test::Policy(wanted) => {
                let policy = policy(record);
                let same = |w: &String| w == policy || (w == "none" && policy == "no");
                wanted.iter().any(same)
            }
            Test::Never => false,
        }
    }

    /// `VOLUME`, `TARGET`, or `SOURCE:TARGET` (a volume's name or a host path).
    fn mounts(&self, record: &Record, wanted: &str) -> bool {
        let Some((source, target)) = wanted.split_once(':') else {
            return record.volumes.iter().any(|v| v == wanted)
                || (record.mounts.iter().any(|m| m == wanted) && !self.is_volume(record, wanted));
        };
        let Some(spec) = self.spec(record) else {
            return false;
        };
        let volume = super::volumes::data(&self.containers.volumes, source);
        spec.mounts().iter().flatten().any(|mount| {
            let from = mount.source().as_deref();
            mount.destination().to_str() == Some(target)
                && from.is_some_and(|from| from == std::path::Path::new(source) || from == volume)
        })
    }

    fn spec(&self, record: &Record) -> Option<Spec> {
        let place = self.containers.place(&record.id);
        files::read_json(&place.dir.join("config.json")).ok()?
    }

    /// A named volume is mounted at `target`: podman finds those by their name only.
    fn is_volume(&self, record: &Record, target: &str) -> bool {
        let spec = self.spec(record);
        let mounts = spec.iter().flat_map(|s| s.mounts().iter().flatten());
        let mut there = mounts.filter(|m| m.destination().to_str() == Some(target));
        there.any(|m| {
            let source = m.source().as_deref();
            source.is_some_and(|s| s.starts_with(&self.containers.volumes))
        })
    }
}

/// `healthy`, `unhealthy`, `starting`; `None` for a container without a health check, or that has never run.
#[must_use]
pub fn health(record: &Record) -> Option<&str> {
    record.healthcheck.as_ref()?.check.command()?;
    Some(record.health.status.word()).filter(|word| !word.is_empty())
}

/// The restart policy.
#[must_use]
pub fn policy(record: &Record) -> &'static str {
    record.restart.word()
}

/// By the image's id or its beginning, or by its name: whole, without the tag, or a part of it.
fn from_image(record: &Record, images: &[String], words: &[String]) -> bool {
    if let Some(id) = &record.image_id
        && (images.contains(id)
            || words
                .iter()
                .any(|w| !w.is_empty() && id.starts_with(w.as_str())))
    {
        return true;
    }
    words
        .iter()
        .any(|w| !w.is_empty() && record.image.contains(w.as_str()))
}

/// `KEY`, `KEY=VALUE`, either with `*` for any text.
#[must_use]
pub fn labelled(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    let (key, value) = wanted.split_once('=').unwrap_or((wanted, ""));
    labels
        .iter()
        .any(|(k, v)| wildcard(key, k) && (value.is_empty() || wildcard(value, v)))
}

fn wildcard(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(rest) = text.strip_prefix(head) else {
        return false;
    };
    (0..=rest.len())
        .filter(|at| rest.is_char_boundary(*at))
        .any(|at| wildcard(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Filters> {
        Filters::parse(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
    }

    fn record(name: &str, id: char) -> Record {
        serde_json::from_value(serde_json::json!({
            "version": 1, "id": id.to_string().repeat(64), "name": name,
            "image": "docker.io/library/alpine:latest", "image_id": "5".repeat(64),
            "command": ["sleep", "60"], "created": "2026-01-01T00:00:00Z", "state": "exited",
            "exit_code": 3, "auto_remove": false, "volumes": ["data"], "mounts": ["/var/lib"],
            "labels": {"tier": "web", "a": ""}, "network": "pasta:-T,1",
        }))
        .unwrap()
    }

    fn passes(texts: &[&str]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("d"), &dir.path().join("r")).unwrap();
        let bound = parse(texts).unwrap().bind(&store).unwrap();
        bound.pass(&record("web-1", 'a'))
    }

    #[test]
    fn malformed_filters_are_refused() {
        for bad in [
            "name",
            "status=asleep",
            "exited=x",
            "colour=red",
            "command=sleep",
            "restart-policy=sometimes",
            "name=(",
            "until=soonish",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        assert!(Filters::parse_prune(&["name=x".to_owned()]).is_err());
        assert!(Filters::parse_prune(&["label!=x".to_owned()]).is_ok());
    }

    #[test]
    fn each_key_means_what_podman_s_does() {
        for yes in [
            "name=web",
            "name=^web-1$",
            "name=/web-1",
            "id=aaa",
            "id=^a+$",
            "label=tier",
            "label=tier=web",
            "label=t*=w*",
            "label!=other",
            "exited=3",
            "status=exited",
            "status=stopped",
            "ancestor=alpine",
            "ancestor=docker.io/library/alpine:latest",
            "ancestor=sha256:5555",
            "volume=data",
            "volume=/var/lib",
            "network=pasta",
            "restart-policy=no",
            "restart-policy=none",
            "until=2027-06-01",
        ] {
            assert!(passes(&[yes]), "{yes}");
        }
        for no in [
            "name=web$",
            "id=b",
            "label=tier=db",
            "label!=tier",
            "exited=0",
            "status=running",
            "ancestor=debian",
            "volume=other",
            "network=host",
            "restart-policy=always",
            "pod=x",
            "health=healthy",
            "until=2025-06-01",
        ] {
            assert!(!passes(&[no]), "{no}");
        }
    }

    #[test]
    fn values_of_a_key_add_up_and_keys_must_all_hold() {
        assert!(passes(&["name=nope", "name=web"]));
        assert!(!passes(&["name=web", "id=b"]));
        assert!(!passes(&["label=tier", "label=none"]));
        assert!(passes(&["status=running", "status=exited"]));
    }

    #[test]
    fn an_unknown_container_to_compare_with_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("d"), &dir.path().join("r")).unwrap();
        for text in ["before=nope", "since=nope"] {
            assert!(parse(&[text]).unwrap().bind(&store).is_err());
        }
    }
}
