//! `start`: a container on disk, from its stored request to a supervisor again; and `restart`.
//!
//! Done under the container's lock, which the supervisor then keeps. Until the supervisor is there the record is as it was: whoever is
//! killed here leaves a container that has not been started.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::ask::{Heard, Question, ask};
use super::attach::{self, Attach, Ended, Join};
use super::control::silent;
use super::descriptors::{Asked, Descriptors};
use super::events::Action;
use super::host;
use super::image;
use super::logs::Driver;
use super::make::Stored;
use super::prepare::{self, Ground, Held};
use super::record::{Containers, Record, State, no_such, unless_gone};
use super::request::Streams;
use super::restart::Restart;
use super::run::{Outcome, passes_no_terminal, stay};
use super::shared;
use super::stop::{self, elsewhere, improper, unrestartable};
use super::supervisor::{self, Job};
use super::terminal::DetachKeys;
use crate::error::{Result, ResultExt, failed};
use crate::store::Store;
use crate::store::files::{self, Lock};

/// How long another command may hold a container that does not run.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to start.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// Stay with it.
    pub attach: bool,
    /// Descriptors that a service manager has passed to this process are the container's.
    pub activation: bool,
    /// Give it standard input.
    pub interactive: bool,
    /// Pass signals on.
    pub sig_proxy: bool,
    /// Keys that leave it, as typed.
    pub detach_keys: Option<String>,
}

/// Starts the container of `record`; one that runs already is attached to, or left alone.
///
/// # Errors
/// It cannot be started, or (exit code 125) its supervisor died.
pub fn start(store: &Store, record: &Record, how: &How) -> Result<Outcome> {
    let keys = how.detach_keys.as_deref().unwrap_or("ctrl-p,ctrl-q");
    let keys = DetachKeys::parse(keys)?;
    let containers = Containers::of(store);
    elsewhere(record)?;
    let descriptors = match how.activation && !record.state.live() {
        true => Descriptors::take(&Asked::default())?,
        false => Descriptors::default(),
    };
    let job = match record.state {
        State::Paused | State::Stopping => {
            let text = "must be in Created or Stopped state to be started";
            return Err(improper(record, &format!("unable to start container: it {text}")).into());
        }
        state if state.live() => None,
        _ => {
            if record.log.driver == Driver::Passthrough {
                passes_no_terminal(false)?;
            }
            before_it(store, &containers, record)?;
            again(store, &containers, &record.id)?
        }
    };
    let Some(mut job) = job else {
        return beside(&containers, record, how, keys);
    };
    // Nothing is owed to it any more.
    let _ = fs::remove_file(containers.revive_dir().join(&record.id));
    job.descriptors = descriptors;
    job.input_once = how.attach && how.interactive && job.interactive;
    job.attached = how.attach;
    let how = how.attach.then(|| Attach {
        streams: Streams::default(),
        tty: job.terminal.is_some(),
        input: how.interactive && job.interactive,
        sig_proxy: how.sig_proxy,
        keys,
        session: false,
    });
    launch(job, how)
}

/// Starts the container whose namespaces that of `record` shares, as podman does, unless it runs.
fn before_it(store: &Store, containers: &Containers, record: &Record) -> Result<()> {
    let doing = || failed(format!("unable to start container {}", record.id));
    // What is wrong with either comes up when it is needed.
    let Ok(stored) = Stored::read(&containers.place(&record.id).dir) else {
        return Ok(());
    };
    let other = shared::whose(&stored.request).map(|id| containers.load(id));
    match other.transpose()?.flatten() {
        Some(other) if !other.state.live() => match start(store, &other, &How::default())? {
            Outcome::NotStarted(_, text) => Err(anyhow::Error::from(failed(text))).fault(doing),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Ends the container of `record`, if it runs, and starts it.
///
/// One that goes when it has ended (`--rm`) must not end: its supervisor is asked to start it again.
///
/// `timeout`: as for [`stop`].
///
/// # Errors
/// It is paused, or as [`stop`] and [`start`].
pub fn restart(store: &Store, record: &Record, timeout: Option<u64>) -> Result<Outcome> {
    let containers = Containers::of(store);
    elsewhere(record)?;
    if record.state == State::Paused {
        return Err(unrestartable(record).into());
    }
    if record.auto_remove && record.state.live() {
        let patience = stop::patience(record, timeout).saturating_add(PATIENCE);
        let question = Question::Restart { timeout };
        return match ask(&containers, &record.id, &question, Some(patience))? {
            Heard::Done(_) => Ok(Outcome::Running(record.id.clone())),
            Heard::Silence => Err(silent(&record.id).into()),
            Heard::Nobody => {
                let text = format!("container {} has ended, and goes then (--rm)", record.id);
                Err(failed(text).into())
            }
        };
    }
    containers.emit(record, Action::Restart);
    match stop::stop(&containers, record, timeout)? {
        Some(now) if record.state.live() => {
            containers.emit(&now, Action::Stop);
            start(store, &now, &How::default())
        }
        Some(record) => start(store, &record, &How::default()),
        None => Err(no_such(&record.id).into()),
    }
}

fn launch(job: Job, how: Option<Attach>) -> Result<Outcome> {
    let id = job.record.id.clone();
    let (socket, supervisor) = supervisor::launch(job)?;
    stay(socket, supervisor, id, how)
}

/// What to do with one that runs.
fn beside(
    containers: &Containers,
    record: &Record,
    how: &How,
    keys: DetachKeys,
) -> Result<Outcome> {
    if !how.attach {
        return Ok(Outcome::Running(record.id.clone()));
    }
    let join = Join {
        input: how.interactive,
        sig_proxy: how.sig_proxy,
        keys,
    };
    let Some(record) = containers.load(&record.id)? else {
        return Err(no_such(&record.id).into());
    };
    Ok(match attach::join(containers, &record, join)? {
        Ended::Exited(code, note) => Outcome::Exited(u8::try_from(code).unwrap_or(255), note),
        Ended::NotStarted(code, text) => Outcome::NotStarted(code, text),
        Ended::Left(code) => Outcome::Exited(code, String::new()),
        Ended::Detached => Outcome::Running(record.id),
    })
}

/// A job for the container `id`, with its lock; `None`: somebody else is starting it.
fn again(store: &Store, containers: &Containers, id: &str) -> Result<Option<Job>> {
    let place = containers.place(id);
    let doing = || failed(format!("unable to start container {id}"));
    let began = Instant::now();
    let lock = loop {
        if let Some(lock) = unless_gone(Lock::try_exclusive(&place.lock()))? {
            break lock;
        }
        match containers.load(id)? {
            None => return Err(no_such(id).into()),
            Some(record) if record.state.live() => return Ok(None),
            // Somebody looks at it, or changes it.
            Some(_) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            Some(_) => {
                return Err(anyhow::Error::from(failed("another command holds it"))).fault(doing);
            }
        }
    };
    // Only now nobody else changes it.
    let Some(mut record) = containers.read(&place)? else {
        return Err(no_such(id).into());
    };
    if record.state.live() {
        return Ok(None);
    }
    let stored = Stored::read(&place.dir).fault(doing)?;
    let mapping = shared::mapping(containers, &stored.request)?;
    let image = image::again(store, &stored, &mapping).fault(doing)?;
    for volume in stored.mounts.iter().filter_map(|m| m.source.as_ref()) {
        fs::metadata(volume).fault(|| {
            failed(format!(
                "unable to start container {id}: mounting {}",
                volume.display()
            ))
        })?;
    }
    files::create_dir_all_private(&place.live)?;
    let before = record.clone();
    (record.boot, record.host) = (host::boot_id().to_owned(), host::id().to_owned());
    (record.exit_code, record.error, record.oom_killed) = (None, None, false);
    (record.restarts, record.stopped_by_user) = (0, false);
    let ground = Ground { mapping, image };
    let held = Held {
        place: place.clone(),
        lock,
    };
    let prepared = prepare::prepare(store, containers, &stored, ground, held, record);
    let written = prepared.and_then(|(mut job, _)| {
        job.before = Some(Box::new(before));
        job.place.replace(&job.record)?;
        Ok(job)
    });
    written.map(Some).inspect_err(|_| {
        let _ = fs::remove_dir_all(&place.live);
    })
}

/// Starts those containers again whose supervisor was killed and whose restart policy would have it so. What fails is
/// told and left to a later command; costs one system call when there is nothing to do.
pub fn revive(store: &Store) -> Vec<anyhow::Error> {
    let containers = Containers::of(store);
    let Ok(entries) = fs::read_dir(containers.revive_dir()) else {
        return Vec::new();
    };
    let mut failures = Vec::new();
    for entry in entries.flatten() {
        let (mark, id) = (entry.path(), entry.file_name());
        match owed(store, &containers, &mark, &id.to_string_lossy()) {
            Ok(true) => drop(fs::remove_file(mark)),
            Ok(false) => {}
            Err(e) => {
                put_off(&mark);
                failures.push(e);
            }
        }
    }
    // Unless something is owed still.
    let _ = fs::remove_dir(containers.revive_dir());
    failures
}

/// Whether the container `id` is owed no start any more, having got it now perhaps.
fn owed(store: &Store, containers: &Containers, mark: &Path, id: &str) -> Result<bool> {
    let Some(record) = containers.load(id)? else {
        return Ok(true);
    };
    let wanted = record.restart != Restart::No && !record.stopped_by_user;
    if !wanted || record.state.live() {
        return Ok(true);
    }
    if is_put_off(mark) {
        return Ok(false);
    }
    let doing = || failed(format!("container {} is to be restarted", record.name));
    before_it(store, containers, &record).fault(doing)?;
    let Some(mut job) = again(store, containers, id).fault(doing)? else {
        return Ok(true);
    };
    job.record.restarts = record.restarts + 1;
    // No client is there whose end would be its input's, and what this command writes to is not for it.
    job.input_once = false;
    if record.log.driver == Driver::Passthrough {
        let null = || File::options().read(true).write(true).open("/dev/null");
        job.passed = Some([null()?.into(), null()?.into(), null()?.into()]);
    }
    match launch(job, None).fault(doing)? {
        Outcome::NotStarted(_, text) => Err(anyhow::Error::from(failed(text))).fault(doing),
        _ => Ok(true),
    }
}

/// The first try after a failure waits a second, each one twice as long, at most a minute: the mark has a byte for each.
fn put_off(mark: &Path) {
    let file = File::options().append(true).open(mark);
    let _ = file.and_then(|mut f| f.write_all(b"."));
}

fn is_put_off(mark: &Path) -> bool {
    let Ok(meta) = fs::metadata(mark) else {
        return false;
    };
    let pause = match meta.len() {
        0 => return false,
        failures => Duration::from_secs(1 << (failures - 1).min(6)).min(Duration::from_secs(60)),
    };
    // A clock that went back puts nothing off.
    let since = meta.modified().map(|t| t.elapsed());
    since.is_ok_and(|since| since.is_ok_and(|since| since < pause))
}
