//! Logs in the systemd journal (`--log-driver journald`).
//!
//! **Written** in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram an entry, with the fields that
//! conmon writes, so that `journalctl CONTAINER_NAME=x` and what people have built on it work.
//! A datagram that does not fit a socket buffer is cut into pieces, each marked `CONTAINER_PARTIAL_MESSAGE`.
//!
//! **Read** through journalctl(1): the journal's files have no other stable reader without libsystemd. One that ends shows what
//! there is; where a log is followed, one that does not shows what comes after the last entry (its cursor). The journal
//! does not know when a container has ended: the reader does, lets that one go, and looks for the last time. No journalctl
//! outlives its reader ([`crate::sys::child`]).

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::Value as Json;

use super::logs::{Entry, Wanted};
use super::record::Record;
use super::supervisor::Stream;
use crate::error::{Result, ResultExt, failed};
use crate::sys::child::{self, Leash};

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

/// How long the journal may take over what a container wrote last, once that has ended.
const SETTLE: Duration = Duration::from_millis(100);

/// How often a follower that ends by itself is begun again at most.
const RETRY: Duration = Duration::from_secs(1);

/// Takes entries.
type Take<'a> = dyn FnMut(&Entry<'_>) -> Result<()> + 'a;

/// The entries of one container, being read.
#[derive(Debug)]
pub(super) struct Reader {
    id: String,
    /// Of the last entry that was read.
    cursor: Option<String>,
    follower: Option<Journalctl>,
    /// When it was last begun.
    followed: Option<Instant>,
}

impl Reader {
    pub(super) fn new(id: &str) -> Reader {
        Reader {
            id: id.to_owned(),
            cursor: None,
            follower: None,
            followed: None,
        }
    }

    /// Readable when a follower has something.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.follower.as_ref().map(|f| f.out.as_fd())
    }

    /// Gives `take` what there is and was not read yet. The first time that is what is wanted at all; after
    /// [`Reader::follow`] it is what has come, and when the container has `ended`, all of the rest.
    pub(super) fn each(&mut self, wanted: &Wanted, ended: bool, take: &mut Take<'_>) -> Result<()> {
        if let Some(mut follower) = self.follower.take() {
            let doing = || failed(format!("reading the journal of container {}", self.id));
            let open = follower.read(&mut self.cursor, take).fault(doing)?;
            if open && !ended {
                self.follower = Some(follower);
                return Ok(());
            }
        }
        if ended && self.followed.is_some() {
            std::thread::sleep(SETTLE);
        }
        self.look(wanted, take)?;
        // One that ended by itself: journalctl does not follow before this boot has written something that its user may
        // read. Until then it is looked at by turns.
        let due = |at: Instant| at.elapsed() >= RETRY;
        if !ended && self.cursor.is_some() && self.followed.is_some_and(due) {
            return self.follow(wanted);
        }
        Ok(())
    }

    /// Reads what there is.
    fn look(&mut self, wanted: &Wanted, take: &mut Take<'_>) -> Result<()> {
        let doing = || failed(format!("reading the journal of container {}", self.id));
        let mut journalctl = Journalctl::spawn(&self.arguments(wanted)).fault(doing)?;
        while journalctl.read(&mut self.cursor, take).fault(doing)? {}
        match journalctl.child.wait().fault(doing)?.success() {
            true => Ok(()),
            false => Err(doing().into()),
        }
    }

    /// From now on what comes is read as it comes.
    pub(super) fn follow(&mut self, wanted: &Wanted) -> Result<()> {
        let doing = || failed(format!("reading the journal of container {}", self.id));
        let mut arguments = self.arguments(wanted);
        arguments.push("--follow".to_owned());
        let follower = Journalctl::spawn(&arguments).fault(doing)?;
        let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        fcntl(&follower.out, flags).fault(doing)?;
        self.follower = Some(follower);
        self.followed = Some(Instant::now());
        Ok(())
    }

    /// For journalctl(1): everything after what was read last, or else what is wanted.
    fn arguments(&self, wanted: &Wanted) -> Vec<String> {
        let mut arguments = ["--no-pager", "--quiet", "--output=json", "--all"]
            .map(str::to_owned)
            .to_vec();
        arguments.push(format!("CONTAINER_ID_FULL={}", self.id));
        let lines = match (&self.cursor, wanted.last) {
            // Even for none: it is the place from which on to follow.
            (None, Some(last)) => format!("--lines={}", last.max(1)),
            _ => "--no-tail".to_owned(),
        };
        arguments.push(lines);
        let seconds = |t: Timestamp| format!("@{}.{:06}", t.as_second(), t.subsec_microsecond());
        // journalctl takes only one of these; later than the cursor is later than since.
        if let Some(cursor) = &self.cursor {
            arguments.push(format!("--after-cursor={cursor}"));
        } else if let Some(since) = wanted.since {
            arguments.push(format!("--since={}", seconds(since)));
        }
        if let Some(until) = wanted.until {
            arguments.push(format!("--until={}", seconds(until)));
        }
        arguments
    }
}

/// A journalctl(1) that runs for as long as this is there, and no longer than this process.
#[derive(Debug)]
struct Journalctl {
    child: Child,
    out: ChildStdout,
    /// The beginning of a line.
    partial: Vec<u8>,
    _leash: Leash,
}

impl Journalctl {
    fn spawn(arguments: &[String]) -> io::Result<Journalctl> {
        let (leash, stdin) = child::leash()?;
        let mut command = Command::new("journalctl");
        command.args(arguments).stdin(stdin).stdout(Stdio::piped());
        child::die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let out = child.stdout.take();
        Ok(Journalctl {
            child,
            out: out.ok_or(io::ErrorKind::BrokenPipe)?,
            partial: Vec::new(),
            _leash: leash,
        })
    }

    /// Gives `take` the entries of what is there to be read, and keeps the last one's cursor; false at its end.
    fn read(&mut self, cursor: &mut Option<String>, take: &mut Take<'_>) -> Result<bool> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = match self.out.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            self.partial.extend_from_slice(&buffer[..n]);
            let Some(end) = self.partial.iter().rposition(|b| *b == b'\n') else {
                continue;
            };
            let rest = self.partial.split_off(end + 1);
            let lines = std::mem::replace(&mut self.partial, rest);
            for line in lines.split(|b| *b == b'\n') {
                let Some(found) = entry(line) else {
                    continue;
                };
                take(&Entry {
                    time: &found.time,
                    stream: found.stream,
                    full: found.full,
                    text: &found.text,
                })?;
                *cursor = found.cursor.or(cursor.take());
            }
        }
    }
}

impl Drop for Journalctl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An entry as journalctl prints it.
#[derive(Debug, PartialEq)]
struct Found {
    time: String,
    stream: Stream,
    full: bool,
    text: Vec<u8>,
    cursor: Option<String>,
}

fn entry(line: &[u8]) -> Option<Found> {
    let json: Json = serde_json::from_slice(line).ok()?;
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
    Some(Found {
        time: Timestamp::from_microsecond(micros).ok()?.to_string(),
        stream: match json["PRIORITY"].as_str() {
            Some("3") => Stream::Err,
            _ => Stream::Out,
        },
        full: json["CONTAINER_PARTIAL_MESSAGE"].as_str() != Some("true"),
        text,
        cursor: json["__CURSOR"].as_str().map(str::to_owned),
    })
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
        let line = r#"{"MESSAGE":[104,255],"PRIORITY":"6","__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1767225600000001"}"#;
        let found = entry(line.as_bytes()).unwrap();
        assert_eq!(found.time, "2026-01-01T00:00:00.000001Z");
        assert_eq!((found.stream, found.full), (Stream::Out, true));
        assert_eq!(
            (found.text, found.cursor),
            (vec![104, 255], Some("s=1".to_owned()))
        );
        assert_eq!(entry(br#"{"MESSAGE":null}"#), None);
    }
}
