//! Health checks: what is run, how a result is judged, how it is kept.
//!
//! A check is a process run beside the container's first one, as `exec` runs one: its exit code counts, the beginning of
//! what it wrote is kept. The container's supervisor runs it (`supervisor/health.rs`), by a timer or because `healthcheck
//! run` asks it to; there is one at a time.
//!
//! ```text
//! containers/ID/record.json   the plan, made of flags and the image's HEALTHCHECK when the container was made
//! containers/ID/health.json   the results; replaced by rename and never flushed, since they tell of the present:
//!                             without it, or with a torn one, nothing has been checked yet
//! DIR/ID-healthcheck.log      a copy of that with `--health-log-destination DIR`; stays when the container goes, as podman's
//! ```
//!
//! The first check runs when the container has started, the next one an interval after the last has ended, as podman has it. While
//! the start period lasts, failures do not count. A startup check, where there is one, runs instead until it
//! has passed. What podman does not do: flags alter the image's check one by one (docker's way), an array that begins with `CMD` is
//! taken by its word, and why a check could not be run is among its output.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{Heard, Question, ask};
use super::draft::{quick_json, shared_json};
use super::record::{Containers, Place, Record, State};
use super::stop::elsewhere;
use super::when;
use crate::error::{Result, ResultExt, failed, usage};
use crate::store::files;

mod change;

pub use self::change::{Change, Fields};

/// Nanoseconds between two checks, and for one, where nothing is said.
pub const USUAL: u64 = 30_000_000_000;
/// Results that are kept, where nothing is said.
pub const LOG_COUNT: u32 = 5;
/// Bytes of each that are kept, where nothing is said.
pub const LOG_SIZE: u32 = 500;
/// Bytes of a result that are kept at most, whatever is said.
const MOST: usize = 1 << 20;

/// One check, as images and `inspect` write it. Times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Check {
    /// `["NONE"]`, `["CMD", ARG…]`, `["CMD-SHELL", LINE]`, or a command.
    pub test: Vec<String>,
    /// How long failures do not count.
    #[serde(skip_serializing_if = "zero")]
    pub start_period: u64,
    /// From the end of one check to the next; 0: only when asked to.
    #[serde(skip_serializing_if = "zero")]
    pub interval: u64,
    /// After which it is killed and has failed.
    #[serde(skip_serializing_if = "zero")]
    pub timeout: u64,
    /// Failures in a row that make it unhealthy; of a startup check: that restart the container, 0 for never.
    #[serde(skip_serializing_if = "none")]
    pub retries: u32,
    /// Of a startup check: how often it must pass in a row; 0 is once.
    #[serde(skip_serializing_if = "none")]
    pub successes: u32,
}

// serde's `skip_serializing_if` takes references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn zero(n: &u64) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn none(n: &u32) -> bool {
    *n == 0
}

impl Check {
    /// What is executed; `None`: nothing.
    #[must_use]
    pub fn command(&self) -> Option<Vec<String>> {
        let (first, rest) = self.test.split_first()?;
        let command = match first.as_str() {
            "" | "NONE" => return None,
            "CMD" => rest.to_vec(),
            "CMD-SHELL" => ["/bin/sh", "-c", &rest.join(" ")]
                .map(str::to_owned)
                .to_vec(),
            _ => self.test.clone(),
        };
        Some(command).filter(|c| c.first().is_some_and(|word| !word.is_empty()))
    }

    /// Time from the end of a check to the next one; `None`: no timer.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        (self.interval > 0).then(|| Duration::from_nanos(self.interval))
    }
}

/// What follows when the container has become unhealthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Nothing.
    #[default]
    None,
    /// It is killed.
    Kill,
    /// It is stopped and started again.
    Restart,
    /// It is stopped, as by its user.
    Stop,
}

impl OnFailure {
    /// Out of a flag's value.
    ///
    /// # Errors
    /// There is no such action.
    pub fn parse(word: &str) -> Result<OnFailure> {
        Ok(match word {
            "" | "none" => OnFailure::None,
            "kill" => OnFailure::Kill,
            "restart" => OnFailure::Restart,
            "stop" => OnFailure::Stop,
            other => {
                let text = format!(
                    "invalid on-failure action {other:?} for health check: supported actions are none,kill,restart,stop"
                );
                return Err(usage(text).into());
            }
        })
    }

    /// podman's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            OnFailure::None => "none",
            OnFailure::Kill => "kill",
            OnFailure::Restart => "restart",
            OnFailure::Stop => "stop",
        }
    }
}

/// What was asked for; `None` in it: as the image has it, or as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// `--health-cmd` as [`test()`] reads it.
    pub test: Option<Vec<String>>,
    /// `--no-healthcheck`.
    pub off: bool,
    /// `--health-interval`, nanoseconds.
    pub interval: Option<u64>,
    /// `--health-timeout`.
    pub timeout: Option<u64>,
    /// `--health-start-period`.
    pub start_period: Option<u64>,
    /// `--health-retries`.
    pub retries: Option<u32>,
    /// `--health-on-failure`.
    pub on_failure: OnFailure,
    /// `--health-startup-*`, complete.
    pub startup: Option<Check>,
    /// `--health-max-log-count`; 0 is any number.
    pub log_count: Option<u32>,
    /// `--health-max-log-size`; 0 is any size.
    pub log_size: Option<u32>,
    /// `--health-log-destination`.
    pub log_destination: Option<String>,
}

/// How a container is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The check.
    pub check: Check,
    /// The check that runs until it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Check>,
    /// What follows.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Results that are kept; 0 is any number.
    pub log_count: u32,
    /// Bytes of each; 0 is any size.
    pub log_size: u32,
    /// `local`, `events_logger` (events tell all results in any case), or a directory that gets a copy of the results.
    #[serde(default = "local")]
    pub log_destination: String,
}

/// The usual destination of results.
pub const LOCAL: &str = "local";

fn local() -> String {
    LOCAL.to_owned()
}

/// Refuses what is no place for results.
///
/// # Errors
/// It is neither one of podman's words nor a directory.
pub fn check_destination(destination: &str) -> Result<()> {
    if matches!(destination, LOCAL | "events_logger") {
        return Ok(());
    }
    let doing = || {
        usage(format!(
            "--health-log-destination {destination:?}: destination error"
        ))
    };
    let found = std::fs::metadata(destination).fault(doing)?;
    match (found.is_dir(), Path::new(destination).is_absolute()) {
        (true, true) => Ok(()),
        (true, false) => Err(anyhow::Error::from(failed("the path must be absolute"))).fault(doing),
        (false, _) => {
            Err(anyhow::Error::from(failed("destination must be directory"))).fault(doing)
        }
    }
}

impl Plan {
    /// One check, and the rest as usual.
    #[must_use]
    pub fn of(check: Check) -> Plan {
        Plan {
            check,
            startup: None,
            on_failure: OnFailure::None,
            log_count: LOG_COUNT,
            log_size: LOG_SIZE,
            log_destination: local(),
        }
    }

    /// Bytes of a result to be kept.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        match self.log_size {
            0 => MOST,
            n => usize::try_from(n).unwrap_or(MOST).min(MOST),
        }
    }
}

/// What a container is checked by: flags over the image's; `None`: by nothing.
///
/// # Errors
/// There is something to follow and no check, or a startup check without another.
pub fn plan(asked: &Asked, image: Option<&Check>) -> Result<Option<Plan>> {
    let usual = |n: u64| if n == 0 { USUAL } else { n };
    // An empty command is none.
    let test = asked.test.as_ref().filter(|t| !t.is_empty());
    let test = test.or(image.map(|i| &i.test).filter(|t| !t.is_empty()));
    let none = vec!["NONE".to_owned()];
    let Some(test) = test.or(asked.off.then_some(&none)) else {
        if asked.on_failure != OnFailure::None {
            let word = asked.on_failure.word();
            let text = format!("cannot set on-failure action to {word} without a health check");
            return Err(usage(text).into());
        }
        if asked.startup.is_some() {
            let text = "cannot set a startup healthcheck when there is no regular healthcheck: invalid argument";
            return Err(usage(text).hint("--health-cmd sets one").into());
        }
        return Ok(None);
    };
    let image = image.cloned().unwrap_or_default();
    let check = if asked.off {
        Check {
            test: vec!["NONE".to_owned()],
            ..Check::default()
        }
    } else {
        Check {
            test: test.clone(),
            start_period: asked.start_period.unwrap_or(image.start_period),
            interval: asked.interval.unwrap_or_else(|| usual(image.interval)),
            timeout: usual(asked.timeout.unwrap_or(image.timeout)),
            retries: match asked.retries.unwrap_or(image.retries) {
                0 => 3,
                n => n,
            },
            successes: 0,
        }
    };
    let mut plan = Plan {
        startup: asked.startup.clone(),
        on_failure: asked.on_failure,
        ..Plan::of(check)
    };
    plan.log_count = asked.log_count.unwrap_or(plan.log_count);
    plan.log_size = asked.log_size.unwrap_or(plan.log_size);
    if let Some(destination) = &asked.log_destination {
        check_destination(destination)?;
        plan.log_destination.clone_from(destination);
    }
    Ok(Some(plan))
}

/// A command of the command line: a line for the shell, a JSON array, `CMD …`, `CMD-SHELL …`, or `none`.
#[must_use]
pub fn test(text: &str) -> Vec<String> {
    let to = |word: &str, rest: Vec<String>| [vec![word.to_owned()], rest].concat();
    if let Ok(list) = serde_json::from_str::<Vec<String>>(text) {
        return match list.first().map(|w| w.to_ascii_uppercase()).as_deref() {
            None => Vec::new(),
            Some("NONE") => to("NONE", Vec::new()),
            Some(word @ ("CMD" | "CMD-SHELL")) => to(word, list[1..].to_vec()),
            Some(_) if list.len() == 1 => to("CMD-SHELL", list),
            Some(_) => to("CMD", list),
        };
    }
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    match first.to_ascii_uppercase().as_str() {
        "" if rest.trim().is_empty() => Vec::new(),
        "NONE" => to("NONE", Vec::new()),
        "CMD" => to("CMD", rest.split_whitespace().map(str::to_owned).collect()),
        "CMD-SHELL" => to("CMD-SHELL", vec![rest.to_owned()]),
        _ => to("CMD-SHELL", vec![text.to_owned()]),
    }
}

/// A time of the command line, in nanoseconds; `what` is the flag's name in errors, without its dashes.
///
/// # Errors
/// It is none, or is negative.
pub fn time(what: &str, text: &str) -> Result<u64> {
    let Some(found) = when::duration(text) else {
        return Err(usage(format!("invalid {what}: time: invalid duration {text:?}")).into());
    };
    let nanos = u64::try_from(found.as_nanos());
    nanos.map_err(|_| usage(format!("{what} must be 0 seconds or greater")).into())
}

/// How a container is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has never run.
    #[default]
    #[serde(rename = "")]
    Unknown,
    /// Not checked yet, or not yet often enough.
    Starting,
    /// The last check passed.
    Healthy,
    /// Too many checks in a row failed.
    Unhealthy,
    /// The check has been changed, and what it finds now is not known yet.
    Reset,
}

impl Status {
    /// The word that is shown.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Status::Unknown => "",
            Status::Starting => "starting",
            Status::Healthy => "healthy",
            Status::Unhealthy => "unhealthy",
            Status::Reset => "reset",
        }
    }
}

/// What one check gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// When it began.
    pub start: String,
    /// When it was over.
    pub end: String,
    /// 0: passed, 1: failed, 125: could not be run, -1: took too long.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

/// The results: `health.json`, and `inspect`'s `State.Health`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// What follows from them.
    pub status: Status,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last ones.
    pub log: Vec<Entry>,
    /// How often in a row the startup check has passed; `None`: it need not any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_passed: Option<u32>,
    /// How often it has failed.
    #[serde(skip_serializing_if = "none")]
    pub startup_failed: u32,
}

/// What is to be done after a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    GoOn,
    /// What the plan says of a container that is unhealthy.
    Act(OnFailure),
    /// The startup check is over: the other one is due.
    Started,
}

impl Health {
    /// What is on disk; nothing, if it is torn.
    #[must_use]
    pub fn read(place: &Place) -> Health {
        let found = files::read_json(&path(&place.dir));
        found.ok().flatten().unwrap_or_default()
    }

    /// Replaces what is on disk, and the copy where `plan` says. What cannot be written is told of when somebody asks.
    pub fn write(&self, place: &Place, plan: &Plan) {
        let id = place.dir.file_name().unwrap_or_default().to_string_lossy();
        let copy = format!("{id}-healthcheck.log");
        let copy = Path::new(&plan.log_destination).join(copy);
        // The container may write there, too.
        let copied = copy.is_absolute().then(|| shared_json(&copy, self));
        for written in copied
            .into_iter()
            .chain([quick_json(&path(&place.dir), self)])
        {
            if let Err(e) = written {
                crate::trace::mark(&format!("{e:#}"));
            }
        }
    }

    /// As the container has just started.
    pub fn begin(&mut self, plan: &Plan) {
        *self = Health {
            status: Status::Starting,
            startup_passed: plan.startup.as_ref().map(|_| 0),
            ..Health::default()
        };
    }

    /// The check that is due.
    #[must_use]
    pub fn check<'a>(&self, plan: &'a Plan) -> &'a Check {
        match (&plan.startup, self.startup_passed) {
            (Some(startup), Some(_)) => startup,
            _ => &plan.check,
        }
    }

    /// Takes what a check gave, `ran` (nanoseconds) after the container's start.
    pub fn take(&mut self, plan: &Plan, entry: Entry, ran: u64) -> Then {
        let passed = entry.exit_code == 0;
        self.log.push(entry);
        self.trim(plan);
        if let (Some(startup), Some(times)) = (&plan.startup, self.startup_passed) {
            return self.take_startup(startup, times, passed);
        }
        if passed {
            (self.status, self.failing_streak) = (Status::Healthy, 0);
            return Then::GoOn;
        }
        if ran >= plan.check.start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= plan.check.retries {
                self.status = Status::Unhealthy;
            }
        }
        if self.status == Status::Unhealthy {
            return Then::Act(plan.on_failure);
        }
        Then::GoOn
    }

    /// Forgets the results that are too many.
    fn trim(&mut self, plan: &Plan) {
        let most = usize::try_from(plan.log_count).unwrap_or(usize::MAX);
        if most > 0 && self.log.len() > most {
            self.log.drain(..self.log.len() - most);
        }
    }

    fn take_startup(&mut self, startup: &Check, times: u32, passed: bool) -> Then {
        if !passed {
            self.startup_passed = Some(0);
            self.startup_failed = self.startup_failed.saturating_add(1);
            let enough = startup.retries > 0 && self.startup_failed >= startup.retries;
            return if enough {
                Then::Act(OnFailure::Restart)
            } else {
                Then::GoOn
            };
        }
        (self.status, self.failing_streak) = (Status::Healthy, 0);
        if times + 1 < startup.successes {
            self.startup_passed = Some(times + 1);
            return Then::GoOn;
        }
        self.startup_passed = None;
        Then::Started
    }
}

fn path(dir: &Path) -> std::path::PathBuf {
    dir.join("health.json")
}

/// A moment as logs have it.
#[must_use]
pub fn moment(time: Timestamp) -> String {
    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%dT%H:%M:%S%.9f%:z").to_string()
}

/// Has the container checked now: how it went.
///
/// # Errors
/// It does not run, has no check, or the check could not be run or took too long.
pub fn run(containers: &Containers, record: &Record) -> Result<Status> {
    elsewhere(record)?;
    let id = &record.id;
    let stopped = || failed(format!("container {id} is not running"));
    if record.state != State::Running {
        return Err(stopped().into());
    }
    let plan = record.healthcheck.as_ref();
    if plan.is_none_or(|p| p.check.command().is_none()) {
        return Err(failed(format!("container {id} has no defined healthcheck")).into());
    }
    match ask(containers, id, &Question::Check, None)? {
        Heard::Done(answer) => Ok(serde_json::from_value(answer)?),
        Heard::Nobody | Heard::Silence => Err(stopped().into()),
    }
}

/// The answer to who asked for a check: the status that `healthcheck run` shows.
#[must_use]
pub fn shown(entry: &Entry, startup: bool) -> serde_json::Value {
    json!(match (entry.exit_code, startup) {
        (0, _) => Status::Healthy,
        (_, true) => Status::Starting,
        (_, false) => Status::Unhealthy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_many_forms() {
        for (text, wanted) in [
            ("curl x", &["CMD-SHELL", "curl x"][..]),
            ("[\"curl\",\"a b\"]", &["CMD", "curl", "a b"]),
            ("[\"true\"]", &["CMD-SHELL", "true"]),
            ("[\"CMD\",\"a\",\"b\"]", &["CMD", "a", "b"]),
            ("[\"CMD-SHELL\",\"a b\"]", &["CMD-SHELL", "a b"]),
            ("CMD a  b", &["CMD", "a", "b"]),
            ("CMD-SHELL a  b", &["CMD-SHELL", "a  b"]),
            ("none", &["NONE"]),
            ("[\"none\"]", &["NONE"]),
            ("", &[]),
        ] {
            assert_eq!(test(text), wanted, "{text:?}");
        }
        let command = |words: &[&str]| {
            let test = words.iter().map(|w| (*w).to_owned()).collect();
            Check {
                test,
                ..Check::default()
            }
            .command()
        };
        assert_eq!(
            command(&["CMD-SHELL", "a", "b"]).unwrap(),
            ["/bin/sh", "-c", "a b"]
        );
        assert_eq!(command(&["CMD", "a b"]).unwrap(), ["a b"]);
        assert_eq!(command(&["own", "x"]).unwrap(), ["own", "x"]);
        for nothing in [&["NONE"][..], &[], &[""], &["CMD"], &["CMD", ""]] {
            assert_eq!(command(nothing), None, "{nothing:?}");
        }
    }

    fn asked(test: &str) -> Asked {
        Asked {
            test: Some(super::test(test)),
            ..Asked::default()
        }
    }

    #[test]
    fn flags_alter_the_image_s_check() {
        let image: Check = serde_json::from_str(
            r#"{"Test":["CMD","a"],"Interval":60000000000,"Retries":4,"StartInterval":5}"#,
        )
        .unwrap();
        let of = |asked: &Asked, image| plan(asked, image).unwrap().unwrap().check;
        let own = of(&Asked::default(), Some(&image));
        assert_eq!(
            (own.interval, own.timeout, own.retries),
            (60_000_000_000, USUAL, 4)
        );
        let mixed = Asked {
            interval: Some(0),
            retries: Some(1),
            ..Asked::default()
        };
        let mixed = of(&mixed, Some(&image));
        assert_eq!((mixed.interval, mixed.retries), (0, 1));
        assert_eq!(mixed.test, ["CMD", "a"]);
        assert_eq!(of(&asked("none"), Some(&image)).command(), None);
        let off = Asked {
            off: true,
            ..Asked::default()
        };
        let off = of(&off, Some(&image));
        assert_eq!(serde_json::to_string(&off).unwrap(), r#"{"Test":["NONE"]}"#);
        assert_eq!(plan(&Asked::default(), None).unwrap(), None);
        let follows = Asked {
            on_failure: OnFailure::Kill,
            ..Asked::default()
        };
        assert!(plan(&follows, None).is_err());
        assert!(plan(&follows, Some(&image)).is_ok());
    }

    fn entry(code: i32) -> Entry {
        Entry {
            exit_code: code,
            ..Entry::default()
        }
    }

    #[test]
    fn a_streak_of_failures_after_the_start_period_is_unhealthy() {
        let asked = Asked {
            start_period: Some(100),
            retries: Some(2),
            on_failure: OnFailure::Stop,
            ..asked("x")
        };
        let plan = plan(&asked, None).unwrap().unwrap();
        let mut health = Health::default();
        health.begin(&plan);
        assert_eq!(health.take(&plan, entry(1), 99), Then::GoOn);
        assert_eq!(
            (health.status, health.failing_streak),
            (Status::Starting, 0)
        );
        assert_eq!(health.take(&plan, entry(-1), 100), Then::GoOn);
        assert_eq!(health.take(&plan, entry(0), 101), Then::GoOn);
        assert_eq!((health.status, health.failing_streak), (Status::Healthy, 0));
        assert_eq!(health.take(&plan, entry(1), 102), Then::GoOn);
        assert_eq!(health.status, Status::Healthy);
        let last = health.take(&plan, entry(125), 103);
        assert_eq!(last, Then::Act(OnFailure::Stop));
        assert_eq!(
            (health.status, health.failing_streak),
            (Status::Unhealthy, 2)
        );
        for _ in 2..=9 {
            health.take(&plan, entry(1), 104);
        }
        assert_eq!((health.log.len(), health.failing_streak), (5, 10));
        health.begin(&plan);
        assert_eq!(
            (health.status, health.failing_streak),
            (Status::Starting, 0)
        );
    }

    #[test]
    fn a_startup_check_runs_until_it_has_passed() {
        let startup = Check {
            test: test("up"),
            retries: 3,
            successes: 2,
            ..Check::default()
        };
        let asked = Asked {
            startup: Some(startup),
            retries: Some(1),
            ..asked("x")
        };
        let plan = plan(&asked, None).unwrap().unwrap();
        let mut health = Health::default();
        health.begin(&plan);
        assert_eq!(health.check(&plan).test, test("up"));
        assert_eq!(health.take(&plan, entry(1), 0), Then::GoOn);
        assert_eq!(
            (health.status, health.failing_streak),
            (Status::Starting, 0)
        );
        assert_eq!(health.take(&plan, entry(0), 0), Then::GoOn);
        assert_eq!(health.take(&plan, entry(0), 0), Then::Started);
        assert_eq!(health.check(&plan).test, test("x"));
        assert_eq!(health.take(&plan, entry(1), 0), Then::Act(OnFailure::None));
        health.begin(&plan);
        for _ in 0..2 {
            assert_eq!(health.take(&plan, entry(1), 0), Then::GoOn);
        }
        let last = health.take(&plan, entry(1), 0);
        assert_eq!(last, Then::Act(OnFailure::Restart));
    }
}
