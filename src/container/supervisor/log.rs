//! The container's log, in the k8s-file format that podman and the kubelet read.
//!
//! A line is `TIME STREAM TAG TEXT`: RFC 3339 with nanoseconds and the zone's offset, `stdout` or
//! `stderr`, `F` for a full line or `P` for a piece of one, and the text. One write a turn of the loop.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use jiff::Zoned;

use crate::error::Result;

/// Which of the container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Out,
    /// Standard error.
    Err,
}

/// An open log; without a file it swallows everything.
#[derive(Debug, Default)]
pub(super) struct Log {
    file: Option<File>,
    pending: Vec<u8>,
}

impl Log {
    /// Opens `path` for appending, mode 0600; no path: no log.
    pub(super) fn open(path: Option<&Path>) -> Result<Log> {
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o600);
            let file = options.open(path);
            file.with_context(|| format!("opening the log {}", path.display()))
        };
        Ok(Log {
            file: path.map(open).transpose()?,
            pending: Vec::new(),
        })
    }

    /// Takes what the container wrote.
    pub(super) fn add(&mut self, stream: Stream, bytes: &[u8]) {
        if self.file.is_some() && !bytes.is_empty() {
            format(&mut self.pending, &now(), stream, bytes);
        }
    }

    /// Writes what was taken. A full disk must not end a container: the log loses lines instead.
    pub(super) fn flush(&mut self) {
        if let Some(file) = self.file.as_mut().filter(|_| !self.pending.is_empty()) {
            let _ = file.write_all(&self.pending);
            self.pending.clear();
        }
    }
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
}
