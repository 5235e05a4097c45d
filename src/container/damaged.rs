//! Records that cannot be read.
//!
//! **Torn** (empty, or zeros): what a power cut may leave of a record that was replaced without a flush. A container
//! of which nothing was kept was half made and is cleared. One with a whole `config.json` and changes in its
//! upper is not lost for that: what can be told of it is put together from these, and with its lock free it is
//! taken for one that the power cut ended (exit code 255: nobody knows). Its image, labels and ports are not known any more.
//!
//! **Damaged otherwise**: nothing is done to it that was not asked for by name. It is told of by `ps`, counts as a
//! user of everything, and is removed by `rm --force`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use oci_spec::runtime::Spec;

use super::health::Health;
use super::logs::LogConfig;
use super::record::{Containers, Place, Record, State};
use super::restart::Restart;
use super::{host, volumes};
use crate::cow::Cow;
use crate::error::{Fault, Result, failed};
use crate::store::files::{self, Lock};

/// An empty file, or one of zeros.
pub(super) fn torn(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.iter().all(|b| *b == 0))
}

/// What is said of a record that cannot be read.
pub(super) fn unreadable(id: &str) -> Fault {
    failed(format!("reading the record of the container {id}")).hint(format!(
        "`rless rm -f {id}` removes it if its record is damaged"
    ))
}

impl Containers {
    /// What can be told of a container whose record is torn; `None` for one that was only half made.
    pub(super) fn rebuilt(&self, place: &Place, id: &str) -> Option<Record> {
        let config = place.dir.join("config.json");
        let spec: Spec = files::read_json(&config).ok().flatten()?;
        if !Cow::begun(&place.upper()) {
            return None;
        }
        let made = fs::metadata(&config).and_then(|m| m.modified()).ok();
        let process = spec.process().as_ref();
        let (volumes, mounts) = self.volumes_in(&spec);
        let ours = |v: &&String| volumes::owner(&self.volumes, v).as_deref() == Some(id);
        Some(Record {
            version: 1,
            id: id.to_owned(),
            name: self.name_of(id).unwrap_or_else(|| id[..12].to_owned()),
            image: "<none>".to_owned(),
            image_id: None,
            command: process.and_then(|p| p.args().clone()).unwrap_or_default(),
            created: made.and_then(|t| Timestamp::try_from(t).ok()),
            started: None,
            finished: None,
            state: State::Running,
            init: None,
            supervisor: None,
            helpers: Vec::new(),
            boot: String::new(),
            host: host::id().to_owned(),
            exit_code: Some(255),
            oom_killed: false,
            error: Some("a power cut took its record, and how it ended is not known".to_owned()),
            auto_remove: false,
            remove_image: false,
            image_asked: None,
            anonymous_volumes: volumes.iter().filter(ours).cloned().collect(),
            volumes,
            mounts,
            labels: BTreeMap::new(),
            ports: Vec::new(),
            exposed: Vec::new(),
            network: String::new(),
            log: LogConfig::default(),
            storage_size: None,
            stop_signal: None,
            stop_timeout: None,
            stopped_by_user: false,
            cidfile: None,
            pidfile: None,
            restart: Restart::No,
            restarts: 0,
            scope: None,
            dependencies: Vec::new(),
            healthcheck: None,
            health: Health::default(),
        })
    }

    /// The volumes that a configuration mounts, and where.
    fn volumes_in(&self, spec: &Spec) -> (Vec<String>, Vec<String>) {
        let mounts = spec.mounts().iter().flatten();
        let volume = |m: &oci_spec::runtime::Mount| {
            let inside = m.source().as_ref()?.strip_prefix(&self.volumes).ok()?;
            let name = inside.iter().next()?.to_str()?.to_owned();
            Some((name, m.destination().to_string_lossy().into_owned()))
        };
        mounts.filter_map(volume).unzip()
    }

    fn name_of(&self, id: &str) -> Option<String> {
        let is_its = |name: &String| {
            let target = fs::read_link(self.names().join(name));
            target.is_ok_and(|target| target == Path::new(id))
        };
        self.taken().into_iter().find(is_its)
    }

    /// Removes the container called `name` (or with this id, or beginning of an id) if its record cannot be read and
    /// nobody holds its lock; its anonymous volumes go with it if `volumes` says so. False where that is not so.
    ///
    /// # Errors
    /// It could not be removed.
    pub fn remove_unreadable(&self, name: &str, volumes: bool) -> Result<bool> {
        let Some(id) = self.meant(name)? else {
            return Ok(false);
        };
        let place = self.place(&id);
        let Some(_lock) = Lock::try_exclusive(&place.lock())? else {
            return Ok(false);
        };
        if self.read(&place).is_ok() {
            return Ok(false);
        }
        if !volumes {
            for volume in volumes::names(&self.volumes)? {
                if volumes::owner(&self.volumes, &volume).as_ref() == Some(&id) {
                    volumes::set_owner(&self.volumes, &volume, None)?;
                }
            }
        }
        self.discard(&id).map(|()| true)
    }

    /// The id that `name` means, without a look at the record.
    fn meant(&self, name: &str) -> Result<Option<String>> {
        if super::names::check(name).is_err() {
            return Ok(None);
        }
        let mut ids = self.ids()?;
        if let Ok(id) = fs::read_link(self.names().join(name)) {
            ids.retain(|other| Path::new(other) == id);
        } else {
            ids.retain(|id| id.starts_with(name));
        }
        Ok(ids.pop().filter(|_| ids.is_empty()))
    }
}
