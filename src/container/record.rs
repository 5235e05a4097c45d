//! Containers on disk: directories, records, names, liveness.
//!
//! ```text
//! containers/ID/record.json   what ps shows; replaced by rename
//! containers/ID/config.json   the runtime-spec bundle's configuration
//! containers/ID/lock          flock held by the supervisor for as long as it lives
//! containers/ID/ctr.log       output, k8s-file format
//! containers/ID/health.json   results of its health checks (`health.rs`)
//! containers/ID/upper/        the copy-on-write file system's journal and data
//! containers/ID/files/        hosts, resolv.conf, hostname, passwd, group
//! containers/names/NAME       symbolic link to ID: made atomically with its content
//! containers/names/.lock      held while a name is removed
//! containers/.new/, .gone/    directories in the making, and removed ones (`swept.rs`)
//! RUNTIME/live/ID/            attach socket; there is one for each container that may be alive
//! ```
//!
//! **Order.** Made: directory (below `.new`), lock, live marker, its place, name, record. So a
//! directory without a record, with its lock free, is half made. Removed: by one rename of the
//! directory, under its lock, then the rest (`clear.rs`).
//!
//! **Liveness** is the lock, never a PID alone: a record that says `starting` or `running` while
//! nobody holds the lock is a dead supervisor's. [`Containers::load`] then ends the container's
//! first process (PID and start time must agree, through a pidfd; normally the parent-death
//! signal has done it), writes the record the supervisor could not write, clears the live
//! marker and, with `--rm`, the container. Records of another host (one home on two machines) are left alone. A host may
//! change its name: who has this boot's id is this host, and so is whoever has its files on a file system of its own.
//!
//! **Durability.** Records are replaced by rename without fsync while a container is being
//! started: after a power cut the record is the old one, the new one, or (file systems without
//! ordered renames) empty. [`Containers::make_durable`] flushes record and configuration of a
//! container that is kept, off the start-up path. Whoever replaces a record later flushes the new one before
//! the rename ([`Place::replace`]), so that one that was once on disk stays. What is empty all the
//! same, or damaged, is in `damaged.rs`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use nix::fcntl::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use super::damaged::{torn, unreadable};
use super::draft::{Draft, put_json, quick_json};
use super::health::{self, Health};
use super::logs::LogConfig;
use super::restart::Restart;
use super::swept::{self, Making};
use super::{host, names};
use crate::error::{Fault, Kind, Result, ResultExt, failed, usage};
use crate::store::Store;
use crate::store::files::{self, Lock};
use crate::sys::mmap;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Made, never started (or its start failed).
    Created,
    /// A supervisor is starting it.
    Starting,
    /// Its command has been executed.
    Running,
    /// It runs, and all its processes are frozen.
    Paused,
    /// It runs and has been asked to end.
    Stopping,
    /// It ended, and its supervisor waits until it starts it again.
    Restarting,
    /// It ended.
    Exited,
}

impl State {
    /// The word that `ps` shows.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Starting => "initialized",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopping => "stopping",
            State::Restarting => "restarting",
            State::Exited => "exited",
        }
    }

    /// A supervisor must be alive in this state.
    #[must_use]
    pub fn live(self) -> bool {
        !matches!(self, State::Created | State::Exited)
    }

    /// Its command has been executed and has not ended.
    #[must_use]
    pub fn up(self) -> bool {
        matches!(self, State::Running | State::Paused | State::Stopping)
    }
}

/// A published port, as `ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Host address; empty for all.
    pub host_ip: String,
    /// First host port.
    pub host_port: u16,
    /// First container port.
    pub container_port: u16,
    /// Length of the range.
    pub range: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// One process, told from a later one with the same PID by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// PID in the host's PID namespace.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    pub start: u64,
}

/// What is known of a container: `record.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Format of this file.
    pub version: u32,
    /// 64 hex digits.
    pub id: String,
    /// Its one name.
    pub name: String,
    /// Image as `ps` shows it.
    pub image: String,
    /// Image id, 64 hex digits; `None` for a host directory.
    pub image_id: Option<String>,
    /// Entry point and arguments.
    pub command: Vec<String>,
    /// When it was made.
    #[serde(with = "time")]
    pub created: Option<Timestamp>,
    /// When its command was executed.
    #[serde(with = "time", default)]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(with = "time", default)]
    pub finished: Option<Timestamp>,
    /// Where it is in its life.
    pub state: State,
    /// Its first process.
    #[serde(default)]
    pub init: Option<Process>,
    /// Its supervisor.
    #[serde(default)]
    pub supervisor: Option<Process>,
    /// Processes that serve it and die with its supervisor.
    #[serde(default)]
    pub helpers: Vec<Process>,
    /// Boot in which the processes live.
    #[serde(default)]
    pub boot: String,
    /// Host on which they live.
    #[serde(default)]
    pub host: String,
    /// Exit code, 128+n for a signal.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// The kernel killed it for its memory limit.
    #[serde(default)]
    pub oom_killed: bool,
    /// Why it did not start, or how it was ended.
    #[serde(default)]
    pub error: Option<String>,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--rmi`.
    #[serde(default)]
    pub remove_image: bool,
    /// With `remove_image`: what of the image was asked for, a whole name, or the image's id where none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_asked: Option<String>,
    /// Volumes without a name that go with it.
    #[serde(default)]
    pub anonymous_volumes: Vec<String>,
    /// Every named volume it uses, the anonymous ones too.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Targets of its mounts.
    #[serde(default)]
    pub mounts: Vec<String>,
    /// `--label` and the image's.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `-p`.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Ports that its image says it listens on, as `80/tcp`.
    #[serde(default)]
    pub exposed: Vec<String>,
    /// `--network`.
    #[serde(default)]
    pub network: String,
    /// `--log-driver`, `--log-opt`.
    #[serde(default)]
    pub log: LogConfig,
    /// `--storage-opt size=`: bytes that its changes may take.
    #[serde(default)]
    pub storage_size: Option<u64>,
    /// `--stop-signal`, or the image's.
    #[serde(default)]
    pub stop_signal: Option<i32>,
    /// `--stop-timeout`, seconds.
    #[serde(default)]
    pub stop_timeout: Option<u64>,
    /// Somebody asked for its end; no restart policy starts it.
    #[serde(default)]
    pub stopped_by_user: bool,
    /// `--cidfile`, absolute: a file with its id that goes with it.
    #[serde(default)]
    pub cidfile: Option<PathBuf>,
    /// `--pidfile`, absolute: a file with the PID of its first process, written at every start.
    #[serde(default)]
    pub pidfile: Option<PathBuf>,
    /// `--restart`.
    #[serde(default)]
    pub restart: Restart,
    /// How often it was started again since somebody started it.
    #[serde(default)]
    pub restarts: u32,
    /// Directory of its control group; the container's own is `container` below it.
    #[serde(default)]
    pub scope: Option<String>,
    /// Containers whose namespaces it shares: ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// `--health-*`, or the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<health::Plan>,
    /// Results of its checks, which have a file of their own.
    #[serde(skip)]
    pub health: Health,
}

impl Record {
    /// Its state when it does not run: has it ever?
    #[must_use]
    pub fn at_rest(&self) -> State {
        if self.started.is_some() {
            State::Exited
        } else {
            State::Created
        }
    }

    /// This host did not start it, by its name or by this boot.
    #[must_use]
    pub fn foreign(&self) -> bool {
        self.host != host::id() && self.boot != host::boot_id()
    }
}

/// Seconds between asking a container to end and killing it, where nothing else is said.
pub const STOP_TIMEOUT: u64 = 10;

/// Bytes kept by [`Place::keep_room`]; a record has some 2,000.
const SPARE: i64 = 8192;

mod time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    // serde's `with` fixes this signature.
    #[allow(clippy::ref_option)]
    pub(super) fn serialize<S: Serializer>(t: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
        match t {
            Some(t) => s.serialize_some(&t.to_string()),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text: Option<String> = Option::deserialize(d)?;
        text.map(|t| t.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// A container's directories.
#[derive(Debug, Clone)]
pub struct Place {
    /// `containers/ID`.
    pub dir: PathBuf,
    /// `RUNTIME/live/ID`.
    pub live: PathBuf,
}

impl Place {
    /// The supervisor's lock.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.dir.join("record.json")
    }

    /// The upper of the copy-on-write file system.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// Files made for the container and bound into it.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// Replaces the record by rename, without a flush (see the module's text).
    ///
    /// # Errors
    /// The disk is full, or the directory is gone.
    pub fn write(&self, record: &Record) -> Result<()> {
        quick_json(&self.record(), record)
    }

    /// As [`Place::write`], for a record that may be on disk: after a power cut it is the old one or the new one.
    ///
    /// # Errors
    /// As [`Place::write`].
    pub fn replace(&self, record: &Record) -> Result<()> {
        put_json(&self.record(), record, true)
    }

    /// A record that is written, and not in its place yet.
    pub(super) fn draft(&self, record: &Record) -> Result<Draft> {
        Draft::of(&self.record(), record)
    }

    /// Keeps room for one more record, for the day on which the disk is full: how a container ended is written then, too.
    /// As far as there is room now; what an earlier run kept, or was killed while it kept or used it, is filled up.
    pub fn keep_room(&self) {
        let spare = self.record().with_extension("spare");
        if let Ok(file) = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(spare)
        {
            let _ = fallocate(&file, FallocateFlags::empty(), 0, SPARE);
        }
    }
}

/// The containers of a store.
#[derive(Debug, Clone)]
pub struct Containers {
    pub(super) root: PathBuf,
    pub(super) live: PathBuf,
    pub(super) volumes: PathBuf,
}

/// A new container's directory, with its lock held.
#[derive(Debug)]
pub struct Reserved {
    /// 64 hex digits.
    pub id: String,
    /// Its name, reserved.
    pub name: String,
    /// Where it lives.
    pub place: Place,
    /// Held until the supervisor ends.
    pub lock: Lock,
}

/// Every container there is.
#[derive(Debug, Default)]
pub struct Listing {
    /// Newest first.
    pub records: Vec<Record>,
    /// The ids of those whose record cannot be read (or cleared), and why.
    pub skipped: Vec<(String, anyhow::Error)>,
}

impl Containers {
    /// The containers of `store`.
    #[must_use]
    pub fn of(store: &Store) -> Containers {
        let containers = Containers {
            root: store.containers_dir(),
            live: store.runtime().join("live"),
            volumes: store.volumes_dir(),
        };
        containers.note_due();
        containers
    }

    /// Directories of the container `id`.
    #[must_use]
    pub fn place(&self, id: &str) -> Place {
        Place {
            dir: self.root.join(id),
            live: self.live.join(id),
        }
    }

    pub(super) fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Makes a container's directory, takes its lock and reserves `name` (or a random one).
    ///
    /// # Errors
    /// The name is malformed or (kind `Conflict`) taken; the store is not writable.
    pub fn reserve(&self, name: Option<&str>) -> Result<Reserved> {
        if let Some(name) = name {
            names::check(name)?;
        }
        let id = random_id()?;
        let place = self.place(&id);
        // Locked before it has its place: a directory there with its lock free is a left-over.
        let making = Making::begin(&self.root, &id)?;
        files::create_dir_private(&making.path)?;
        let lock = Lock::exclusive(&making.path.join("lock"))?;
        files::create_dir_all_private(&place.live)?;
        let placed = making.appear(&place.dir);
        let name = placed
            .context("making the container's directory")
            .and_then(|()| self.reserve_name(name, &id))
            .inspect_err(|_| {
                let _ = fs::remove_dir_all(&place.live);
                let _ = self.discard(&id);
            })?;
        Ok(Reserved {
            id,
            name,
            place,
            lock,
        })
    }

    fn reserve_name(&self, name: Option<&str>, id: &str) -> Result<String> {
        let names = self.names();
        if !names.is_dir() {
            files::create_dir_all_private(&names)?;
            // There before the disk is full: removing needs it.
            drop(self.lock_names()?);
        }
        if let Some(name) = name {
            return match self.take_name(name, id)? {
                None => Ok(name.to_owned()),
                Some(other) => Err(name_taken(name, &other).into()),
            };
        }
        self.random_name(id)
    }

    /// Gives the container `id` a random name that is free.
    pub(super) fn random_name(&self, id: &str) -> Result<String> {
        for _ in 0..100 {
            let mut name = names::random(getrandom::u64().unwrap_or_default());
            if self.link_name(&name, id)?.is_none() {
                return Ok(name);
            }
            name.push_str(&format!("{}", getrandom::u32().unwrap_or_default() % 100));
            if self.link_name(&name, id)?.is_none() {
                return Ok(name);
            }
        }
        Err(failed("finding a free container name").into())
    }

    /// Links NAME to `id`; gives the id of the container that has the name already. A holder that
    /// is a left-over is cleared.
    pub(super) fn take_name(&self, name: &str, id: &str) -> Result<Option<String>> {
        let holder = self.link_name(name, id)?;
        if holder
            .as_ref()
            .is_some_and(|h| h != id && matches!(self.load(h), Ok(None)))
        {
            self.drop_stale_name(name)?;
            return self.link_name(name, id);
        }
        Ok(holder)
    }

    /// Links NAME to `id`; gives the id that has the name already.
    pub(super) fn link_name(&self, name: &str, id: &str) -> Result<Option<String>> {
        let path = self.names().join(name);
        match std::os::unix::fs::symlink(id, &path) {
            Ok(()) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let target = fs::read_link(&path).unwrap_or_default();
                Ok(Some(target.to_string_lossy().into_owned()))
            }
            Err(e) => Err(e).with_context(|| format!("reserving the name {name}")),
        }
    }

    /// Every container, newest first, dead supervisors' cleared.
    ///
    /// # Errors
    /// The directory cannot be read. A damaged record is skipped.
    pub fn list(&self) -> Result<Vec<Record>> {
        Ok(self.listing()?.records)
    }

    /// As [`Containers::list`], and what was skipped.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn listing(&self) -> Result<Listing> {
        self.sweep();
        let (mut records, mut skipped) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match self.load(&id) {
                Ok(Some(mut record)) => {
                    // A container whose name cannot be repaired now is there all the same.
                    let _ = self.repair_name(&mut record);
                    records.push(record);
                }
                Ok(None) => {}
                Err(e) => skipped.push((id, e)),
            }
        }
        records.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        self.sweep_names(records.len() + skipped.len());
        Ok(Listing { records, skipped })
    }

    pub(super) fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("reading {}", self.root.display())),
        };
        let names = entries.map(|entry| entry.map(|e| e.file_name()));
        let names: io::Result<Vec<_>> = names.collect();
        let names = names.with_context(|| format!("reading {}", self.root.display()))?;
        let ids = names.into_iter().filter_map(|n| n.into_string().ok());
        Ok(ids.filter(|n| is_id(n)).collect())
    }

    /// The container that `name` means: its name, its id, or a prefix of its id that no other has.
    ///
    /// # Errors
    /// Kind `NoSuchObject`, or an ambiguous prefix.
    pub fn find(&self, name: &str) -> Result<Record> {
        let none = || no_such(name);
        if names::check(name).is_err() {
            return Err(none().into());
        }
        if let Some(record) = self.named(name)? {
            return Ok(record);
        }
        let mut hits = Vec::new();
        if name.bytes().all(|b| b.is_ascii_hexdigit()) {
            hits = self.ids()?;
            hits.retain(|id| id.starts_with(name));
        }
        match hits.as_slice() {
            [id] => self.load(id)?.ok_or_else(|| none().into()),
            // A power cut may have taken a name: listing repairs it.
            [] if self.names_missing()? => {
                self.list()?;
                self.named(name)?.ok_or_else(|| none().into())
            }
            [] => Err(none().into()),
            [_, ..] => Err(usage(format!(
                "more than one result for container {name:?}: container already exists"
            ))
            .into()),
        }
    }

    fn named(&self, name: &str) -> Result<Option<Record>> {
        match fs::read_link(self.names().join(name)) {
            Ok(id) => self.load(&id.to_string_lossy()),
            Err(_) => Ok(None),
        }
    }

    /// The record of `id`, cleared first if its supervisor died; `None` when there is none (any more).
    ///
    /// # Errors
    /// The record is damaged, or clearing failed.
    pub fn load(&self, id: &str) -> Result<Option<Record>> {
        let place = self.place(id);
        let record = match self.read(&place) {
            Ok(Some(record)) if !record.state.live() => return Ok(Some(record)),
            Ok(record) => record,
            Err(e) => return Err(e),
        };
        // The usual case, at once: it runs.
        if record.is_some() && locked(&place.lock()) {
            return Ok(record);
        }
        // The order of these looks is that of a container's life: one that is born between them is seen.
        if !place.dir.exists() && !swept::in_the_making(&self.root, id) && !place.dir.exists() {
            self.clear_abandoned(id)?;
            return Ok(None);
        }
        let foreign = record.as_ref().is_some_and(Record::foreign);
        if (foreign && hosts_share(&place.dir)) || locked(&place.lock()) {
            return Ok(record);
        }
        self.heal(&place, id)
    }

    /// The record as it is on disk, or what can be told in place of one that a power cut tore; `None` too when
    /// nothing can.
    pub(super) fn read(&self, place: &Place) -> Result<Option<Record>> {
        let id = || place.dir.file_name().unwrap_or_default().to_string_lossy();
        let mut found = match files::read_json::<Record>(&place.record()) {
            Err(_) if torn(&place.record()) => self.rebuilt(place, &id()),
            result => result.fault(|| unreadable(&id()))?,
        };
        if let Some(record) = found.as_mut().filter(|r| r.healthcheck.is_some()) {
            record.health = Health::read(place);
        }
        Ok(found)
    }

    /// Waits for the lock of the container `id`, and holds it; `None` when there is no such container (any more).
    ///
    /// # Errors
    /// The lock cannot be taken.
    pub fn lock(&self, id: &str) -> Result<Option<Lock>> {
        unless_gone(Lock::exclusive(&self.place(id).lock()).map(Some))
    }

    /// A supervisor holds the container's lock, or somebody who is removing it.
    #[must_use]
    pub fn supervised(&self, id: &str) -> bool {
        // In the order in which the lock moves.
        locked(&self.place(id).lock()) || locked(&swept::gone(&self.root, id).join("lock"))
    }

    /// Flushes the record and the configuration of a container that is kept.
    pub fn make_durable(place: &Place) {
        for name in ["request.json", "config.json", "record.json", ""] {
            let _ = File::open(place.dir.join(name)).and_then(|f| f.sync_all());
        }
        let _ = place.dir.parent().map(files::sync_dir);
    }
}

pub(super) fn no_such(name: &str) -> Fault {
    Fault::new(
        Kind::NoSuchObject,
        format!("no container with name or ID {name:?} found: no such container"),
    )
}

pub(super) fn name_taken(name: &str, id: &str) -> Fault {
    Fault::new(
        Kind::Conflict,
        format!(
            "the container name {name:?} is already in use by {id}: that name is already in use"
        ),
    )
    .hint(format!(
        "`rless rm {name}` removes that container, `--replace` does it on the way"
    ))
}

/// `None` for a lock whose directory is gone.
pub(super) fn unless_gone(lock: Result<Option<Lock>>) -> Result<Option<Lock>> {
    let gone = |e: &anyhow::Error| {
        let mut causes = e.chain().filter_map(|c| c.downcast_ref::<io::Error>());
        causes.any(|c| c.kind() == io::ErrorKind::NotFound)
    };
    match lock {
        Err(e) if gone(&e) => Ok(None),
        lock => lock,
    }
}

/// Other hosts may see the file system of this directory (or it cannot be told).
fn hosts_share(dir: &Path) -> bool {
    File::open(dir).map_or(true, mmap::on_network)
}

/// Somebody holds the lock file (or it cannot be told).
pub(super) fn locked(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => !matches!(file.try_lock_shared(), Ok(())),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

pub(super) fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| failed(format!("getting random bytes: {e}")))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
