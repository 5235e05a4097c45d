//! Writing the container's log: see [`crate::container::logs`] for the formats.
//!
//! One write a turn of the supervisor's loop. A full disk must not end a container: the log loses lines instead, and the
//! line that was cut off is ended before the next one.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Zoned;

use crate::container::journal::{self, Journal};
use crate::container::logs::{Driver, LogConfig};
use crate::container::record::Record;
use crate::container::tail;
use crate::error::Result;

/// Which of the container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Out,
    /// Standard error.
    Err,
}

/// An open log.
#[derive(Debug, Default)]
pub(super) enum Log {
    /// Everything is swallowed.
    #[default]
    Nowhere,
    /// A file.
    File(LogFile),
    /// The journal.
    Journal(Journal),
}

/// A log file being written.
#[derive(Debug)]
pub(super) struct LogFile {
    config: LogConfig,
    path: PathBuf,
    file: File,
    size: u64,
    /// Bytes at which it is rotated, and how many old ones stay.
    rotation: Option<(u64, usize)>,
    pending: Vec<u8>,
    /// The last write was cut off.
    torn: bool,
}

impl Log {
    /// Opens the log that `record` asks for; `dir` is the container's directory.
    pub(super) fn open(dir: &Path, record: &Record) -> Result<Log> {
        let config = &record.log;
        if config.driver == Driver::Journald {
            let journal = Journal::open(Path::new(journal::SOCKET), record);
            return Ok(Log::Journal(journal.context("connecting to the journal")?));
        }
        let Some(path) = config.file(dir) else {
            return Ok(Log::Nowhere);
        };
        let (file, size) = create(config, &path)?;
        Ok(Log::File(LogFile {
            config: config.clone(),
            path,
            file,
            size,
            rotation: config.rotation(),
            pending: Vec::new(),
            torn: false,
        }))
    }

    /// Takes what the container wrote.
    pub(super) fn add(&mut self, stream: Stream, bytes: &[u8]) {
        match self {
            _ if bytes.is_empty() => {}
            Log::Nowhere => {}
            Log::File(log) => format(&mut log.pending, &now(), stream, bytes),
            Log::Journal(journal) => journal.write(stream, bytes),
        }
    }

    /// Writes what was taken.
    pub(super) fn flush(&mut self) {
        if let Log::File(log) = self
            && !log.pending.is_empty()
        {
            log.torn = log.write().is_err();
            log.pending.clear();
        }
    }
}

impl LogFile {
    fn write(&mut self) -> io::Result<()> {
        let mut rest = std::mem::take(&mut self.pending);
        if self.torn {
            rest.insert(0, b'\n');
        }
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            let piece = self.room(rest);
            let (now, later) = rest.split_at(piece);
            self.file.write_all(now)?;
            self.size += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// How many bytes of `lines`, whole lines, go into this file; it is rotated when not even one does.
    fn room(&mut self, lines: &[u8]) -> usize {
        let Some((most, keep)) = self.rotation else {
            return lines.len();
        };
        let first = lines.iter().position(|b| *b == b'\n');
        let first = first.map_or(lines.len(), |at| at + 1);
        if self.size > 0 && self.size + first as u64 > most {
            // What cannot be rotated grows: losing the log would be worse.
            let _ = tail::rotate(&self.path, keep);
            if let Ok((file, size)) = create(&self.config, &self.path) {
                (self.file, self.size) = (file, size);
            }
        }
        let room = usize::try_from(most.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let fits = &lines[..lines.len().min(room)];
        let end = fits
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        end.max(first)
    }
}

/// Opens `path` for appending, mode 0600, and tells how long it is.
fn create(config: &LogConfig, path: &Path) -> Result<(File, u64)> {
    let doing = || format!("opening the log {}", path.display());
    let file = config.open(path).with_context(doing)?;
    let size = file.metadata().with_context(doing)?.len();
    Ok((file, size))
}

fn now() -> String {
    Zoned::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.9f%:z")
        .to_string()
}

/// Appends the lines of `bytes` to `out`.
fn format(out: &mut Vec<u8>, time: &str, stream: Stream, bytes: &[u8]) {
    let stream = match stream {
        Stream::Out => "stdout",
        Stream::Err => "stderr",
    };
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let full = line.ends_with(b"\n");
        let tag = if full { 'F' } else { 'P' };
        out.extend_from_slice(format!("{time} {stream} {tag} ").as_bytes());
        out.extend_from_slice(line);
        if !full {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_and_partial_lines_are_tagged() {
        let mut out = Vec::new();
        format(&mut out, "T", Stream::Out, b"a\n\nb");
        format(&mut out, "T", Stream::Err, b"c\n");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "T stdout F a\nT stdout F \nT stdout P b\nT stderr F c\n"
        );
    }

    #[test]
    fn times_have_nanoseconds_and_an_offset() {
        let time = now();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert_eq!(
            time.find('.').map(|dot| time[dot + 1..].find(['+', '-'])),
            Some(Some(9))
        );
    }

    fn record(log: serde_json::Value) -> Record {
        serde_json::from_value(serde_json::json!({
            "version": 1, "id": "a".repeat(64), "name": "n", "image": "i", "image_id": null,
            "command": [], "created": null, "state": "running", "auto_remove": false, "log": log,
        }))
        .unwrap()
    }

    #[test]
    fn a_bounded_log_stays_within_its_size_and_keeps_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(serde_json::json!({"max_size": 1000}));
        let mut log = Log::open(dir.path(), &record).unwrap();
        for n in 0..200 {
            log.add(Stream::Out, format!("line {n}\n").as_bytes());
            if n % 7 == 0 {
                log.flush();
            }
        }
        log.flush();
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        let (now, old) = (size("ctr.log"), size("ctr.log.1"));
        assert!(now + old <= 1000 && old > 400, "{now} {old}");
        let old = std::fs::read_to_string(dir.path().join("ctr.log.1")).unwrap();
        let now = std::fs::read_to_string(dir.path().join("ctr.log")).unwrap();
        let text = old + &now;
        let numbers: Vec<u32> = text
            .lines()
            .map(|l| l.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert_eq!(*numbers.last().unwrap(), 199);
        assert!(numbers.windows(2).all(|w| w[0] + 1 == w[1]), "{numbers:?}");
    }

    #[test]
    fn a_line_longer_than_the_bound_is_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(serde_json::json!({"max_size": 100}));
        let mut log = Log::open(dir.path(), &record).unwrap();
        log.add(Stream::Out, &[b'x'; 300]);
        log.add(Stream::Out, b"y\n");
        log.flush();
        let old = std::fs::read(dir.path().join("ctr.log.1")).unwrap();
        assert!(old.len() > 300);
        assert!(
            std::fs::read(dir.path().join("ctr.log"))
                .unwrap()
                .ends_with(b"F y\n")
        );
    }

    #[test]
    fn no_driver_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let record = record(serde_json::json!({"driver": "none"}));
        let mut log = Log::open(dir.path(), &record).unwrap();
        log.add(Stream::Out, b"x\n");
        log.flush();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
