//! Logs in the systemd journal (`--log-driver journald`).
//!
//! **Written** in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram an entry, with the fields that
//! conmon writes, so that `journalctl CONTAINER_NAME=x` and what people have built on it work.
//! A datagram that does not fit a socket buffer is cut into pieces, each marked `CONTAINER_PARTIAL_MESSAGE`.
//!
//! **Read** through journalctl(1): the journal's files have no other stable reader without libsystemd.

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use serde_json::Value as Json;

use super::logs::{Entry, Sink, Wanted};
use super::record::Record;
use super::supervisor::Stream;
use crate::error::{Result, ResultExt, failed};

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Most bytes of one message; a socket buffer takes several.
const PIECE: usize = 48 << 10;

/// A connection to the journal, for one container.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    /// The fields that every entry has.
    fields: Vec<u8>,
}

impl Journal {
    /// Connects to the journal at `socket`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(socket: &Path, record: &Record) -> io::Result<Journal> {
        let journal = UnixDatagram::unbound()?;
        journal.connect(socket)?;
        // A journal that does not take entries must not stop the container.
        journal.set_nonblocking(true)?;
        let short = crate::store::short(&record.id);
        let tag = Some(record.log.tag.as_str()).filter(|t| !t.is_empty());
        let mut fields = Vec::new();
        field(&mut fields, "CONTAINER_ID_FULL", record.id.as_bytes());
        field(&mut fields, "CONTAINER_ID", short.as_bytes());
        field(&mut fields, "CONTAINER_NAME", record.name.as_bytes());
        let identifier = tag.unwrap_or(short);
        field(&mut fields, "SYSLOG_IDENTIFIER", identifier.as_bytes());
        if let Some(tag) = tag {
            field(&mut fields, "CONTAINER_TAG", tag.as_bytes());
        }
        Ok(Journal {
            socket: journal,
            fields,
        })
    }

    /// Writes what the container wrote; what the journal does not take is lost.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let text = line.strip_suffix(b"\n");
            let full = text.is_some();
            let mut pieces = text.unwrap_or(line).chunks(PIECE).peekable();
            if pieces.peek().is_none() {
                self.entry(stream, b"", false);
            }
            while let Some(piece) = pieces.next() {
                self.entry(stream, piece, !full || pieces.peek().is_some());
            }
        }
    }

    fn entry(&self, stream: Stream, text: &[u8], partial: bool) {
        let mut entry = Vec::with_capacity(self.fields.len() + text.len() + 64);
        field(&mut entry, "MESSAGE", text);
        let priority: &[u8] = match stream {
            Stream::Out => b"6",
            Stream::Err => b"3",
        };
        field(&mut entry, "PRIORITY", priority);
        if partial {
            field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        entry.extend_from_slice(&self.fields);
        let _ = self.socket.send(&entry);
    }
}

/// `NAME=value\n`, or with its length where the value has line ends.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Gives `sink` the wanted entries of the journal for one container.
pub(super) fn read(record: &Record, at: usize, wanted: &Wanted, sink: &mut Sink<'_>) -> Result<()> {
    let mut command = Command::new("journalctl");
    command
        .args(["--no-pager", "--quiet", "--output=json", "--all"])
        .arg(format!("CONTAINER_ID_FULL={}", record.id))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let seconds = |t: Timestamp| format!("@{}.{:06}", t.as_second(), t.subsec_microsecond());
    if let Some(since) = wanted.since {
        command.arg(format!("--since={}", seconds(since)));
    }
    if let Some(until) = wanted.until {
        command.arg(format!("--until={}", seconds(until)));
    }
    match wanted.last {
        Some(last) => command.arg(format!("--lines={last}")),
        None => command.arg("--no-tail"),
    };
    // The journal does not know when a container has ended: a follower ends when it is interrupted.
    if wanted.follow {
        command.arg("--follow");
    }
    let doing = || failed(format!("reading the journal of container {}", record.id));
    let mut child = command.spawn().fault(doing)?;
    let Some(out) = child.stdout.take() else {
        return Err(doing().into());
    };
    for line in BufReader::new(out).lines() {
        let line = line.fault(doing)?;
        if let Some((time, stream, full, text)) = entry(&line) {
            let entry = Entry {
                time: &time,
                stream,
                full,
                text: &text,
            };
            if let Err(e) = sink(at, &entry) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(e);
            }
        }
    }
    let status = child.wait().fault(doing)?;
    if status.success() {
        return Ok(());
    }
    Err(doing().into())
}

/// Time, stream, whether it is a full line, and text of an entry as journalctl prints it.
fn entry(line: &str) -> Option<(String, Stream, bool, Vec<u8>)> {
    let json: Json = serde_json::from_str(line).ok()?;
    let text = match &json["MESSAGE"] {
        Json::String(text) => text.clone().into_bytes(),
        // What is no UTF-8 comes as numbers.
        Json::Array(bytes) => bytes
            .iter()
            .filter_map(|b| u8::try_from(b.as_u64()?).ok())
            .collect(),
        _ => return None,
    };
    let micros: i64 = json["__REALTIME_TIMESTAMP"].as_str()?.parse().ok()?;
    let time = Timestamp::from_microsecond(micros).ok()?.to_string();
    let stream = match json["PRIORITY"].as_str() {
        Some("3") => Stream::Err,
        _ => Stream::Out,
    };
    let partial = json["CONTAINER_PARTIAL_MESSAGE"].as_str() == Some("true");
    Some((time, stream, !partial, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_reach_a_journal_with_conmon_s_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let server = UnixDatagram::bind(&path).unwrap();
        let record: Record = serde_json::from_value(serde_json::json!({
            "version": 1, "id": "a".repeat(64), "name": "web", "image": "i", "image_id": null,
            "command": [], "created": null, "state": "running", "auto_remove": false,
            "log": {"driver": "journald", "tag": "t"},
        }))
        .unwrap();
        let journal = Journal::open(&path, &record).unwrap();
        journal.write(Stream::Err, b"one\ntwo");
        let mut buffer = [0; 4096];
        let mut next = || {
            let n = server.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..n].to_vec()).unwrap()
        };
        let first = next();
        for wanted in [
            "MESSAGE=one\n",
            "PRIORITY=3\n",
            "CONTAINER_NAME=web\n",
            "CONTAINER_ID=aaaaaaaaaaaa\n",
            "CONTAINER_TAG=t\n",
            "SYSLOG_IDENTIFIER=t\n",
        ] {
            assert!(first.contains(wanted), "{first}");
        }
        assert!(!first.contains("PARTIAL"), "{first}");
        assert!(next().contains("CONTAINER_PARTIAL_MESSAGE=true\n"));
    }

    #[test]
    fn values_with_line_ends_carry_their_length() {
        let mut out = Vec::new();
        field(&mut out, "A", b"x\ny");
        assert_eq!(out, b"A\n\x03\0\0\0\0\0\0\0x\ny\n");
    }

    #[test]
    fn what_journalctl_prints_is_read() {
        let line =
            r#"{"MESSAGE":[104,255],"PRIORITY":"6","__REALTIME_TIMESTAMP":"1767225600000001"}"#;
        let (time, stream, full, text) = entry(line).unwrap();
        assert_eq!(time, "2026-01-01T00:00:00.000001Z");
        assert_eq!((stream, full, text), (Stream::Out, true, vec![104, 255]));
        assert_eq!(entry(r#"{"MESSAGE":null}"#), None);
    }
}
