//! Container logs: where they go, and reading them.
//!
//! Written by the supervisor (`supervisor/log.rs`). With the driver `k8s-file` a log is `ctr.log` in the container's directory (or
//! `--log-opt path=`), one line a piece of output:
//!
//! ```text
//! 2026-01-31T12:00:00.000000000+00:00 stdout F a whole line
//! 2026-01-31T12:00:00.000000000+00:00 stderr P the first piece of one
//! ```
//!
//! `P` is a piece that no line end followed; the pieces up to the next `F` of the same stream are one line. With
//! `--log-opt max-size=` the file is rotated (`tail.rs`): its generations together never take more than that, and hold at least
//! half of it; with `max-file=N` there are N files of that size each, as docker counts.
//!
//! **Reading** goes through all generations, oldest first. Several logs are merged by time; a follower takes what comes as it
//! comes. Following ends when the container has ended and all that it wrote was read: its state is looked at before the
//! log is, never after. A restart by its policy is no end. What `--rm` deletes meanwhile is held open and read to its end.
//!
//! The driver `journald` is read through journalctl(1) (`journal.rs`), and merged and followed as files are.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::journal;
use super::record::{Containers, Record};
use super::spec::mounts::Resolved;
use super::supervisor::Stream;
use super::tail::{Tail, Watch};
use crate::error::{Fault, Result, ResultExt, failed, usage};

/// Where output is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// A file.
    #[default]
    K8sFile,
    /// The same, under docker's name for it.
    JsonFile,
    /// The journal.
    Journald,
    /// Nowhere: the container has the standard streams of who starts it.
    Passthrough,
    /// Nowhere.
    None,
}

impl Driver {
    /// It is a file.
    #[must_use]
    pub fn is_file(self) -> bool {
        matches!(self, Driver::K8sFile | Driver::JsonFile)
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::K8sFile => "k8s-file",
            Driver::JsonFile => "json-file",
            Driver::Journald => "journald",
            Driver::Passthrough => "passthrough",
            Driver::None => "none",
        })
    }
}

impl FromStr for Driver {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Driver, Fault> {
        Ok(match text {
            "" | "k8s-file" => Driver::K8sFile,
            "json-file" => Driver::JsonFile,
            "journald" => Driver::Journald,
            "passthrough" => Driver::Passthrough,
            "none" => Driver::None,
            _ => {
                return Err(
                    usage(format!("invalid log driver {text:?}: invalid argument"))
                        .hint("one of k8s-file, json-file, journald, passthrough, none"),
                );
            }
        })
    }
}

/// `--log-driver` and `--log-opt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// Where to.
    #[serde(default)]
    pub driver: Driver,
    /// `path=`: another file.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The first directory on the way to that file that the container may write to, if it is given one there: links from
    /// there on are the container's, and not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<PathBuf>,
    /// `max-size=`, bytes.
    #[serde(default)]
    pub max_size: Option<u64>,
    /// `max-file=`.
    #[serde(default)]
    pub max_file: Option<usize>,
    /// `tag=`, for the journal; in the record with its template filled in.
    #[serde(default)]
    pub tag: String,
}

/// Generations that a reader looks for at most.
const MOST_FILES: usize = 100;

impl LogConfig {
    /// The file, if it is one; `dir` is the container's directory.
    #[must_use]
    pub fn file(&self, dir: &Path) -> Option<PathBuf> {
        let usual = || dir.join("ctr.log");
        let path = self.path.clone();
        self.driver.is_file().then(|| path.unwrap_or_else(usual))
    }

    /// Of a container with these mounts.
    #[must_use]
    pub fn beside(mut self, mounts: &[Resolved]) -> LogConfig {
        let writable = mounts
            .iter()
            .filter(|m| m.options.iter().all(|o| o != "ro"));
        let writable: Vec<&Path> = writable.filter_map(|m| m.source.as_deref()).collect();
        let mut above: Vec<&Path> = self
            .path
            .iter()
            .flat_map(|p| p.ancestors().skip(1))
            .collect();
        above.reverse();
        let shared = above.into_iter().find(|dir| {
            let real = std::fs::canonicalize(dir);
            real.is_ok_and(|real| writable.iter().any(|given| real.starts_with(given)))
        });
        self.shared = shared.map(Path::to_owned);
        self
    }

    /// Opens the file, which is at `path`, for appending, mode 0600. It is a file, or a device like `/dev/null`: what waits for a
    /// reader would stop a container. Where the container may write, it is the file of that name and of no other: what it says
    /// could be led into any file of the caller's.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
        let opened = match self
            .shared
            .as_deref()
            .map(|dir| (dir, path.strip_prefix(dir)))
        {
            Some((dir, Ok(rest))) => {
                let dir = open(dir, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
                let flags = flags | OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
                let how = OpenHow::new()
                    .flags(flags | OFlag::O_CLOEXEC)
                    .mode(Mode::S_IRUSR | Mode::S_IWUSR)
                    .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
                openat2(dir, rest, how).map(File::from).map_err(Into::into)
            }
            _ => {
                let mut options = std::fs::OpenOptions::new();
                options.append(true).create(true).mode(0o600);
                options.custom_flags(flags.bits()).open(path)
            }
        };
        let file = opened.map_err(|e| match e.raw_os_error() {
            Some(libc::ELOOP) => io::Error::other("there is a symbolic link"),
            _ => e,
        })?;
        proper(&file)?;
        let about = file.metadata()?;
        // Elsewhere another name is a copy of the caller's, as `cp -al` makes them.
        if self.shared.is_some() && about.is_file() && about.nlink() > 1 {
            return Err(io::Error::other("it has other names, too"));
        }
        Ok(file)
    }

    /// Bytes at which the file is rotated, and how many old ones stay.
    #[must_use]
    pub fn rotation(&self) -> Option<(u64, usize)> {
        let most = self.max_size?;
        Some(match self.max_file {
            Some(files) if files > 1 => (most, (files - 1).min(MOST_FILES)),
            _ => (most / 2, 1),
        })
    }

    /// `driver=…`, `path=…` and so on, as `--log-opt` has them.
    ///
    /// # Errors
    /// A malformed size or number.
    pub fn option(&mut self, text: &str, size: fn(&str) -> Result<u64>) -> Result<()> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match key {
            "driver" => self.driver = value.parse()?,
            "path" => self.path = Some(PathBuf::from(value)),
            "max-size" => self.max_size = Some(size(value)?).filter(|n| *n > 0),
            "max-file" => {
                let bad = || usage(format!("--log-opt {text:?}: not a number"));
                self.max_file = Some(value.parse().map_err(|_| bad())?);
            }
            "tag" => value.clone_into(&mut self.tag),
            // As podman: drivers have many options, and scripts set those of any.
            _ => {}
        }
        Ok(())
    }

    fn tail(&self, dir: &Path) -> Option<Tail> {
        let keep = self.rotation().map_or(0, |(_, keep)| keep);
        Some(Tail::oldest(&self.file(dir)?, keep))
    }
}

/// Refuses what cannot be logged to, before a container is made.
///
/// # Errors
/// There is no journal; the file cannot be written.
pub fn check(config: &LogConfig) -> Result<()> {
    if config.driver == Driver::Journald {
        let found = std::os::unix::net::UnixDatagram::unbound()
            .and_then(|socket| socket.connect(super::journal::SOCKET));
        found.fault(|| {
            failed("--log-driver journald: connecting to the journal")
                .hint("without one, --log-driver k8s-file logs to a file")
        })?;
    }
    if let Some(path) = &config.path {
        if !path.is_absolute() {
            let text = format!(
                "--log-opt path={}: the path must be absolute",
                path.display()
            );
            return Err(usage(text).into());
        }
        let file = config.open(path);
        file.fault(|| failed(format!("opening the log {}", path.display())))?;
    }
    Ok(())
}

/// Opens a log for reading.
pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    proper(&file)?;
    Ok(file)
}

fn proper(file: &File) -> io::Result<()> {
    let kind = file.metadata()?.file_type();
    match kind.is_file() || kind.is_char_device() {
        true => Ok(()),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// As it is written.
    pub time: &'a str,
    /// Which output.
    pub stream: Stream,
    /// A line ends here.
    pub full: bool,
    /// The text, without a line end.
    pub text: &'a [u8],
}

impl Entry<'_> {
    /// Reads a line; `None` if it is none of ours.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Out,
            b"stderr" => Stream::Err,
            _ => return None,
        };
        let full = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Entry {
            time,
            stream,
            full,
            text: parts.next().unwrap_or_default(),
        })
    }

    /// When it was written.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.time.parse().unwrap_or_default()
    }
}

/// What is wanted of logs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Go on until the containers have ended.
    pub follow: bool,
    /// After this moment.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// The last so many lines of each log.
    pub last: Option<usize>,
}

impl Wanted {
    fn has(&self, entry: &Entry<'_>) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let at = entry.at();
        self.since.is_none_or(|t| at > t) && self.until.is_none_or(|t| at < t)
    }

    fn over(&self) -> bool {
        self.until.is_some_and(|t| Timestamp::now() >= t)
    }
}

/// Takes entries; the number is the log's place in the list that was asked for.
pub type Sink<'a> = dyn FnMut(usize, &Entry<'_>) -> Result<()> + 'a;

/// Gives `sink` the wanted entries of the logs of these containers.
///
/// # Errors
/// A container is not logged, its log cannot be read, or what `sink` says.
pub fn read(
    containers: &Containers,
    records: &[Record],
    wanted: &Wanted,
    sink: &mut Sink<'_>,
) -> Result<()> {
    for record in records {
        if let driver @ (Driver::None | Driver::Passthrough) = record.log.driver {
            return Err(failed(format!(
                "this container is using the '{driver}' log driver, cannot read logs: this container is not logging output",
            ))
            .into());
        }
    }
    let mut logs: Vec<Log> = records.iter().map(|r| Log::open(containers, r)).collect();
    let dirs: Vec<PathBuf> = logs.iter().flat_map(|l| l.dirs.clone()).collect();
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    let watch = wanted.follow.then(|| Watch::dirs(&dirs));
    // What there is by now, in the order in which it was written.
    let ended: Vec<bool> = logs.iter().map(|l| l.ended(containers)).collect();
    first_look(&mut logs, wanted, sink)?;
    let Some(watch) = watch else {
        return Ok(());
    };
    let mut open: Vec<usize> = (0..logs.len()).filter(|i| !ended[*i]).collect();
    for i in &open {
        if let Source::Journal(journal) = &mut logs[*i].source {
            journal.follow(wanted)?;
        }
    }
    while !open.is_empty() && !wanted.over() {
        let others: Vec<BorrowedFd<'_>> = logs.iter().filter_map(Log::fd).collect();
        watch.wait_beside(&others, Duration::from_secs(1));
        let mut left = Vec::new();
        for i in open {
            let ended = logs[i].ended(containers);
            logs[i].each(wanted, ended, &mut |entry| sink(i, entry))?;
            if !ended {
                left.push(i);
            }
        }
        open = left;
    }
    Ok(())
}

/// A log being read.
#[derive(Debug)]
struct Log {
    id: String,
    source: Source,
    dirs: Vec<PathBuf>,
}

/// What it is read from.
#[derive(Debug)]
enum Source {
    File(Tail),
    Journal(journal::Reader),
    Nothing,
}

impl Log {
    fn open(containers: &Containers, record: &Record) -> Log {
        let dir = containers.place(&record.id).dir;
        let file = record.log.file(&dir);
        let elsewhere = file.as_deref().and_then(Path::parent).map(Path::to_owned);
        let elsewhere = elsewhere.filter(|p| *p != dir && p.is_dir());
        Log {
            id: record.id.clone(),
            source: match record.log.driver {
                Driver::Journald => Source::Journal(journal::Reader::new(&record.id)),
                _ => record.log.tail(&dir).map_or(Source::Nothing, Source::File),
            },
            dirs: std::iter::once(dir.clone()).chain(elsewhere).collect(),
        }
    }

    /// Nobody writes into it any more.
    fn ended(&self, containers: &Containers) -> bool {
        match containers.load(&self.id) {
            Ok(Some(record)) => !record.state.live(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Readable when there is more; a file shows it to whoever watches its directory.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Journal(journal) => journal.fd(),
            _ => None,
        }
    }

    fn each(
        &mut self,
        wanted: &Wanted,
        ended: bool,
        each: &mut dyn FnMut(&Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        let tail = match &mut self.source {
            Source::Nothing => return Ok(()),
            Source::Journal(journal) => {
                return journal.each(wanted, ended, &mut |entry| match wanted.has(entry) {
                    true => each(entry),
                    false => Ok(()),
                });
            }
            Source::File(tail) => tail,
        };
        let mut result = Ok(());
        let mut take = |line: &[u8]| {
            if let Some(entry) = Entry::parse(line).filter(|e| wanted.has(e)) {
                result = each(&entry);
            }
            result.is_ok()
        };
        let read = tail.lines(&mut take);
        read.with_context(|| format!("reading the log of container {}", self.id))?;
        result
    }
}

/// A line kept for later.
type Kept = (Timestamp, usize, Vec<u8>);

/// What is there by now: at once where nothing has to be counted or merged.
fn first_look(logs: &mut [Log], wanted: &Wanted, sink: &mut Sink<'_>) -> Result<()> {
    if let ([log], None) = (&mut *logs, wanted.last) {
        return log.each(wanted, false, &mut |entry| sink(0, entry));
    }
    let mut all: Vec<Kept> = Vec::new();
    for (i, log) in logs.iter_mut().enumerate() {
        let mut last = Last::new(wanted.last);
        log.each(wanted, false, &mut |entry| {
            last.push(entry);
            Ok(())
        })?;
        all.extend(last.kept.into_iter().map(|line| {
            let at = Entry::parse(&line).map(|e| e.at()).unwrap_or_default();
            (at, i, line)
        }));
    }
    // Stable: the order within a log stays.
    all.sort_by_key(|(at, _, _)| *at);
    for (_, i, line) in &all {
        if let Some(entry) = Entry::parse(line) {
            sink(*i, &entry)?;
        }
    }
    Ok(())
}

/// The last lines of a log. Pieces before a line's end belong to it; pieces after the last line's end are a line.
#[derive(Debug)]
struct Last {
    most: Option<usize>,
    kept: VecDeque<Vec<u8>>,
    full: usize,
    open: bool,
}

impl Last {
    fn new(most: Option<usize>) -> Last {
        Last {
            most,
            kept: VecDeque::new(),
            full: 0,
            open: false,
        }
    }

    fn push(&mut self, entry: &Entry<'_>) {
        let (stream, tag) = match (entry.stream, entry.full) {
            (Stream::Out, true) => ("stdout", "F"),
            (Stream::Out, false) => ("stdout", "P"),
            (Stream::Err, true) => ("stderr", "F"),
            (Stream::Err, false) => ("stderr", "P"),
        };
        let mut line = format!("{} {stream} {tag} ", entry.time).into_bytes();
        line.extend_from_slice(entry.text);
        self.kept.push_back(line);
        self.full += usize::from(entry.full);
        self.open = !entry.full;
        while self
            .most
            .is_some_and(|most| self.full + usize::from(self.open) > most)
        {
            let Some(line) = self.kept.pop_front() else {
                return;
            };
            let full = Entry::parse(&line).is_some_and(|e| e.full);
            self.full -= usize::from(full);
            // With `--tail 0` what is open goes, too.
            self.open &= !self.kept.is_empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(most: usize, lines: &[&str]) -> Vec<String> {
        let mut last = Last::new(Some(most));
        for line in lines {
            let line = format!("2026-01-01T00:00:00Z {line}");
            last.push(&Entry::parse(line.as_bytes()).unwrap());
        }
        let kept = last.kept.iter();
        kept.map(|l| String::from_utf8_lossy(&l[21..]).into_owned())
            .collect()
    }

    #[test]
    fn lines_of_the_file_are_read() {
        let entry = Entry::parse(b"2026-01-01T00:00:00.5+00:00 stderr P a  b ").unwrap();
        assert_eq!(entry.stream, Stream::Err);
        assert!(!entry.full);
        assert_eq!(entry.text, b"a  b ");
        assert_eq!(entry.at().subsec_millisecond(), 500);
        assert_eq!(Entry::parse(b"t stdout F").unwrap().text, b"");
        for bad in ["", "t", "t stdout", "t stdout X y", "t stdin F x"] {
            assert_eq!(Entry::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_log_is_written_under_its_own_name_only() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("precious"), "mine").unwrap();
        std::os::unix::fs::symlink("precious", at("symbolic")).unwrap();
        std::os::unix::fs::symlink("nothing", at("dangling")).unwrap();
        std::fs::hard_link(at("precious"), at("hard")).unwrap();
        // The store's own, of a home that `cp -al` has copied.
        LogConfig::default().open(&at("hard")).unwrap();
        let config = LogConfig {
            shared: Some(dir.path().to_owned()),
            ..LogConfig::default()
        };
        for (name, says) in [
            ("symbolic", "symbolic link"),
            ("dangling", "symbolic link"),
            ("hard", "other names"),
        ] {
            let error = config.open(&at(name)).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        assert!(!at("nothing").exists());
        for _ in 0..2 {
            config.open(&at("new")).unwrap();
        }
        config.open(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn links_on_the_way_are_the_callers_up_to_what_the_container_writes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("real/given/logs")).unwrap();
        std::fs::create_dir(at("secret")).unwrap();
        std::os::unix::fs::symlink("real", at("link")).unwrap();
        let mount = |options: &[&str]| Resolved {
            target: "/work".to_owned(),
            source: Some(std::fs::canonicalize(at("real/given")).unwrap()),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            copy_up: false,
            volume: None,
            anonymous: false,
        };
        let path = at("link/given/logs/log");
        let config = LogConfig {
            path: Some(path.clone()),
            ..LogConfig::default()
        };
        assert_eq!(config.clone().beside(&[mount(&["ro"])]).shared, None);
        let config = config.beside(&[mount(&[])]);
        assert_eq!(config.shared, Some(at("link/given")));
        config.open(&path).unwrap();
        // What the container does then.
        std::fs::remove_dir_all(at("real/given/logs")).unwrap();
        std::os::unix::fs::symlink("../../secret", at("real/given/logs")).unwrap();
        let error = config.open(&path).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert!(!at("secret/log").exists());
    }

    #[test]
    fn the_last_lines_are_whole() {
        let log = [
            "stdout F a",
            "stdout P b",
            "stdout P c",
            "stdout F d",
            "stdout P e",
        ];
        assert_eq!(last(1, &log), ["stdout P e"]);
        assert_eq!(
            last(2, &log),
            ["stdout P b", "stdout P c", "stdout F d", "stdout P e"]
        );
        assert_eq!(last(9, &log).len(), 5);
        assert_eq!(last(0, &log), [""; 0]);
    }

    #[test]
    fn sizes_are_those_of_all_files_or_of_each() {
        let config = |max_size, max_file| LogConfig {
            max_size,
            max_file,
            ..LogConfig::default()
        };
        assert_eq!(config(None, Some(3)).rotation(), None);
        assert_eq!(config(Some(1000), None).rotation(), Some((500, 1)));
        assert_eq!(config(Some(1000), Some(3)).rotation(), Some((1000, 2)));
    }
}
