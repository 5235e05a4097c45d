//! Events: what happened to containers, images and volumes, in a file that any process can follow.
//!
//! ```text
//! events.jsonl, events.jsonl.1   in the store's data directory; one JSON object a line, in the order in which it happened
//! ```
//!
//! A line has the shape of `podman events --format json`. It is appended by one `O_APPEND` write of whoever did the
//! thing: commands and supervisors. There is no reader that must run, and no writer that waits for one.
//!
//! **An event never fails what it tells of**: a full disk or a read-only home costs events, nothing else.
//!
//! **Torn lines.** A power cut or a full disk may leave the beginning of a line. The next writer looks at the file's last byte
//! and ends such a line before its own; readers skip what is no event. What is written is not flushed.
//!
//! **Rotation.** A file that has grown to [`ROTATE`] bytes is renamed to `.1` by the writer that finds it so, under an
//! exclusive `flock` of the file; writers hold it shared and make sure that it is still the one with the name, so that nothing is
//! written to a file that readers have left. The lock is waited for a tenth of a second at most.
//! Readers go on over a rotation (`tail.rs`).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{Containers, Record};
use super::tail::{self, Tail, Watch};
use super::when;
use crate::error::{Result, usage};

/// Bytes at which the file is rotated.
pub const ROTATE: u64 = 1 << 20;
/// Old files that are kept.
const KEEP: usize = 1;
/// How long a writer waits for another that rotates.
const PATIENCE: Duration = Duration::from_millis(100);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the words say it, see `Action::word`
pub enum Action {
    Attach,
    Cleanup,
    Commit,
    Create,
    Died,
    Exec,
    ExecDied,
    Export,
    HealthStatus,
    Import,
    Init,
    Kill,
    Mount,
    Pause,
    Prune,
    Pull,
    PullError,
    Remove,
    Rename,
    Restart,
    Restore,
    Snapshot,
    Start,
    Stop,
    Tag,
    Unmount,
    Unpause,
    Untag,
    Update,
}

impl Action {
    /// podman's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Action::Attach => "attach",
            Action::Cleanup => "cleanup",
            Action::Commit => "commit",
            Action::Create => "create",
            Action::Died => "died",
            Action::Exec => "exec",
            Action::ExecDied => "exec_died",
            Action::Export => "export",
            Action::HealthStatus => "health_status",
            Action::Import => "import",
            Action::Init => "init",
            Action::Kill => "kill",
            Action::Mount => "mount",
            Action::Pause => "pause",
            Action::Prune => "prune",
            Action::Pull => "pull",
            Action::PullError => "pull-error",
            Action::Remove => "remove",
            Action::Rename => "rename",
            Action::Restart => "restart",
            Action::Restore => "restore",
            Action::Snapshot => "snapshot",
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Tag => "tag",
            Action::Unmount => "unmount",
            Action::Unpause => "unpause",
            Action::Untag => "untag",
            Action::Update => "update",
        }
    }
}

/// What an event is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container.
    #[default]
    Container,
    /// An image.
    Image,
    /// A volume.
    Volume,
    /// A network.
    Network,
    /// The store.
    System,
}

impl Kind {
    /// The word that is shown.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Volume => "volume",
            Kind::Network => "network",
            Kind::System => "system",
        }
    }
}

/// One line of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Of `died` and `exec_died`.
    #[serde(
        rename = "ContainerExitCode",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub exit_code: Option<i32>,
    /// Container or image id, 64 hex digits.
    #[serde(rename = "ID", default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// A container's image.
    #[serde(rename = "Image", default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Its name.
    #[serde(rename = "Name", default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of network events.
    #[serde(rename = "network", default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// What happened ([`Action::word`]).
    #[serde(rename = "Status")]
    pub status: String,
    /// Seconds since 1970.
    #[serde(rename = "time")]
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub nanos: i64,
    /// To what.
    #[serde(rename = "Type")]
    pub kind: Kind,
    /// Of `health_status`.
    #[serde(
        rename = "health_status",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub health: String,
    /// Failures in a row, of `health_status`.
    #[serde(
        rename = "HealthFailingStreak",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub failing_streak: Option<u32>,
    /// What the check said, of `health_status`.
    #[serde(
        rename = "HealthLog",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub health_log: String,
    /// Why it failed (`pull-error`).
    #[serde(rename = "Error", default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// A container's labels, and what else there is to say.
    #[serde(rename = "Attributes", default)]
    pub attributes: Option<BTreeMap<String, String>>,
}

impl Event {
    /// An event of now.
    #[must_use]
    pub fn new(kind: Kind, action: Action) -> Event {
        let now = Timestamp::now();
        Event {
            kind,
            status: action.word().to_owned(),
            time: now.as_second(),
            nanos: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
            ..Event::default()
        }
    }

    /// An event of a container.
    #[must_use]
    pub fn container(record: &Record, action: Action) -> Event {
        Event {
            id: record.id.clone(),
            name: record.name.clone(),
            image: record.image.clone(),
            attributes: Some(record.labels.clone()).filter(|l| !l.is_empty()),
            ..Event::new(Kind::Container, action)
        }
    }

    /// An event of an image.
    #[must_use]
    pub fn image(id: &str, name: &str, action: Action) -> Event {
        Event {
            id: id.to_owned(),
            name: name.to_owned(),
            ..Event::new(Kind::Image, action)
        }
    }

    /// An event of a volume.
    #[must_use]
    pub fn volume(name: &str, action: Action) -> Event {
        Event {
            name: name.to_owned(),
            ..Event::new(Kind::Volume, action)
        }
    }

    /// When it happened.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.nanos.into()).unwrap_or_default()
    }
}

impl Containers {
    /// The store's data directory, where events go.
    #[must_use]
    pub fn events_dir(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// Tells that something happened to a container.
    pub fn emit(&self, record: &Record, action: Action) {
        emit(self.events_dir(), &[Event::container(record, action)]);
    }
}

/// Appends events to the file in the store's data directory `data`, all in one write. Where there is no store there are no
/// events.
pub fn emit(data: &Path, events: &[Event]) {
    if !data.join("version").exists() {
        return;
    }
    let mut lines = Vec::new();
    for event in events {
        if serde_json::to_writer(&mut lines, event).is_ok() {
            lines.push(b'\n');
        }
    }
    if let Err(e) = append(&path(data), &lines, ROTATE) {
        log::debug!("writing an event: {e}");
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("events.jsonl")
}

fn append(path: &Path, lines: &[u8], most: u64) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut rotated = false;
    loop {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        // A file system without locks, or one who rotates and was stopped there: then without.
        let late = Instant::now() > deadline;
        let locked = file.try_lock_shared();
        if matches!(locked, Err(std::fs::TryLockError::WouldBlock)) && !late {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let meta = file.metadata()?;
        let now = std::fs::metadata(path).map(|now| (now.dev(), now.ino()));
        if !late && !now.is_ok_and(|id| id == (meta.dev(), meta.ino())) {
            continue; // rotated since it was opened
        }
        if meta.len() >= most && !rotated {
            // Trying for the exclusive lock gave up the shared one, whatever came of it.
            rotated = true;
            rotate(&file, path);
            continue;
        }
        return write_lines(&file, meta.len(), lines);
    }
}

fn write_lines(mut file: &File, len: u64, lines: &[u8]) -> io::Result<()> {
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1)?;
    }
    if last == [b'\n'] {
        return file.write_all(lines);
    }
    file.write_all(&[b"\n", lines].concat())
}

/// Rotates the file, unless somebody else does or writes just now: then the next writer finds it too long.
fn rotate(file: &File, path: &Path) {
    if file.try_lock().is_ok() {
        let _ = tail::rotate(path, KEEP);
    }
}

/// Which events are wanted: filters of one key add up, different keys all must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    filters: Vec<(String, String)>,
    /// After this moment.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
}

impl Wanted {
    /// Reads `--filter`, `--since` and `--until`.
    ///
    /// # Errors
    /// An unknown filter, or no time.
    pub fn parse(filters: &[String], since: Option<&str>, until: Option<&str>) -> Result<Wanted> {
        let now = Timestamp::now();
        let time =
            |text: Option<&str>, what: &str, read: fn(&str, Timestamp) -> Result<Timestamp>| {
                let read = text.filter(|t| !t.is_empty()).map(|t| read(t, now));
                read.transpose()
                    .with_context(|| format!("unable to parse {what} time"))
            };
        Ok(Wanted {
            filters: filters
                .iter()
                .map(|f| filter(f))
                .collect::<Result<_>>()
                .context("failed to parse event filters")?,
            since: time(since, "since", when::past)?,
            until: time(until, "until", when::future)?,
        })
    }

    /// Whether this one is.
    #[must_use]
    pub fn has(&self, event: &Event) -> bool {
        let at = event.at();
        if self.since.is_some_and(|t| at < t) || self.until.is_some_and(|t| at > t) {
            return false;
        }
        self.filters.iter().all(|(key, value)| {
            if key == "label" {
                return holds(event, key, value);
            }
            let mut same = self.filters.iter().filter(|(other, _)| other == key);
            same.any(|(key, value)| holds(event, key, value))
        })
    }
}

fn filter(text: &str) -> Result<(String, String)> {
    let bad = || usage(format!("{text} is an invalid filter"));
    let (key, value) = text.split_once('=').ok_or_else(bad)?;
    let key = match key.to_ascii_lowercase().as_str() {
        "status" | "event" => "event".to_owned(),
        key @ ("container" | "image" | "volume" | "type" | "label" | "pod" | "network") => {
            key.to_owned()
        }
        other => {
            return Err(usage(format!("{other} is an invalid filter"))
                .hint("one of container, event, image, label, network, type, volume")
                .into());
        }
    };
    // docker's word for it
    let value = match (key.as_str(), value) {
        ("event", "die") => "died",
        _ => value,
    };
    Ok((key, value.to_owned()))
}

fn holds(event: &Event, key: &str, value: &str) -> bool {
    let named = |kind| event.kind == kind && (event.name == value || event.id.starts_with(value));
    match key {
        "container" => named(Kind::Container),
        "image" => named(Kind::Image),
        "volume" => event.kind == Kind::Volume && event.name.starts_with(value),
        "network" => event.kind == Kind::Network && event.network == value,
        "event" => event.status == value,
        "type" => event.kind.word() == value,
        "label" => {
            let (key, value) = match value.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (value, None),
            };
            let found = event.attributes.as_ref().and_then(|a| a.get(key));
            found.is_some_and(|found| value.is_none_or(|value| value == found))
        }
        _ => false,
    }
}

/// Calls `each` with the wanted events of the store in `data`, those that are there and, with `stream`, those that come
/// until `wanted.until`, or until `each` is false. A stream without `since` and `until` begins now.
///
/// # Errors
/// The file cannot be read.
pub fn read(
    data: &Path,
    wanted: &Wanted,
    stream: bool,
    each: &mut dyn FnMut(Event) -> bool,
) -> Result<()> {
    let path = path(data);
    let watch = Watch::dir(data);
    let from_now = stream && wanted.since.is_none() && wanted.until.is_none();
    if from_now && !path.exists() {
        // Somewhere to be at the end of.
        append(&path, b"", ROTATE).with_context(|| format!("making {}", path.display()))?;
    }
    let mut tail = if from_now {
        Tail::end(&path, KEEP)
    } else {
        Tail::oldest(&path, KEEP)
    };
    loop {
        let (now, mut over) = (Timestamp::now(), false);
        let mut line = |line: &[u8]| {
            match serde_json::from_slice::<Event>(line) {
                Ok(event) if wanted.has(&event) => over = !each(event),
                _ => {}
            }
            !over
        };
        tail.lines(&mut line)
            .with_context(|| format!("reading {}", path.display()))?;
        if over || !stream || wanted.until.is_some_and(|until| now >= until) {
            return Ok(());
        }
        let left = wanted.until.map(|until| until.duration_since(now));
        let left = left.and_then(|left| Duration::try_from(left).ok());
        watch.wait(left.unwrap_or(Duration::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("version"), "1").unwrap();
        dir
    }

    fn all(data: &Path, filters: &[&str]) -> Vec<Event> {
        let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
        let wanted = Wanted::parse(&filters, None, None).unwrap();
        let mut all = Vec::new();
        read(data, &wanted, false, &mut |event| {
            all.push(event);
            true
        })
        .unwrap();
        all
    }

    fn volume(name: &str) -> Event {
        Event::volume(name, Action::Create)
    }

    #[test]
    fn events_are_read_in_order_and_a_torn_line_costs_only_itself() {
        let dir = store();
        emit(dir.path(), &[volume("a"), volume("b")]);
        let torn = std::fs::OpenOptions::new()
            .append(true)
            .open(path(dir.path()));
        torn.unwrap().write_all(br#"{"Status":"cre"#).unwrap();
        emit(dir.path(), &[volume("c")]);
        let names: Vec<String> = all(dir.path(), &[]).into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn many_writers_lose_nothing_over_rotations() {
        let dir = store();
        let path = path(dir.path());
        append(&path, b"", 4096).unwrap();
        let mut tail = Tail::end(&path, KEEP);
        let mut got = std::collections::BTreeSet::new();
        let mut look = || {
            let mut take = |line: &[u8]| {
                let event: Event = serde_json::from_slice(line).unwrap();
                assert!(got.insert(event.name.clone()), "{} came twice", event.name);
                true
            };
            tail.lines(&mut take).unwrap();
            got.len()
        };
        for round in 0..20 {
            std::thread::scope(|scope| {
                for writer in 0..4 {
                    let path = &path;
                    scope.spawn(move || {
                        let line = serde_json::to_string(&volume(&format!("{round}-{writer}")));
                        append(path, (line.unwrap() + "\n").as_bytes(), 500).unwrap();
                    });
                }
            });
            assert_eq!(look(), (round + 1) * 4);
        }
        assert!(tail::generation(&path, 1).exists());
    }

    #[test]
    fn filters_of_one_key_add_up_and_labels_do_not() {
        let dir = store();
        let labels = |text: &str| {
            let pairs = text.split(',').filter_map(|p| p.split_once('='));
            Some(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
        };
        let container = |name: &str, action, text: &str| Event {
            name: name.to_owned(),
            id: format!("{name}{name}"),
            attributes: labels(text),
            ..Event::new(Kind::Container, action)
        };
        emit(
            dir.path(),
            &[
                container("x", Action::Create, "a=1"),
                container("x", Action::Died, "a=1,b=2"),
                container("y", Action::Create, "b=2"),
                volume("x"),
            ],
        );
        let count = |filters: &[&str]| all(dir.path(), filters).len();
        assert_eq!(count(&["container=x"]), 2);
        assert_eq!(count(&["container=xx"]), 2);
        assert_eq!(count(&["container=x", "container=y"]), 3);
        assert_eq!(count(&["container=x", "event=create"]), 1);
        assert_eq!(count(&["event=die"]), 1);
        assert_eq!(
            count(&["status=create", "status=died", "type=container"]),
            3
        );
        assert_eq!(count(&["label=a"]), 2);
        assert_eq!(count(&["label=a=1", "label=b"]), 1);
        assert_eq!(count(&["volume=x"]), 1);
        assert!(Wanted::parse(&["colour=red".into()], None, None).is_err());
        assert!(Wanted::parse(&["event".into()], None, None).is_err());
    }

    #[test]
    fn since_and_until_bound_a_stream() {
        let dir = store();
        emit(dir.path(), &[volume("old")]);
        let wanted = Wanted::parse(&[], Some("1h"), Some("3s")).unwrap();
        let mut names = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                emit(dir.path(), &[volume("new")]);
            });
            read(dir.path(), &wanted, true, &mut |event| {
                names.push(event.name);
                true
            })
            .unwrap();
        });
        assert_eq!(names, ["old", "new"]);
    }
}
