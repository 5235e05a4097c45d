//! The control socket between the supervisor and init: one SOCK_SEQPACKET pair.
//!
//! A message is a tag byte, at most one descriptor, and a text: for [`Tag::Failed`] the exit code of the
//! failure and its report. The end of file means: for the supervisor, that init has executed the command (its
//! end is close-on-exec) or died; for init, that the supervisor is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{self, Fault, Kind, Result, failed};
use crate::sys::file::{receive_message, send_message};

/// A report longer than this is cut.
const LIMIT: usize = 8192;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// Supervisor: the maps are written.
    Begin,
    /// Supervisor: execute the command.
    Release,
    /// Init: here is /dev/fuse.
    Fuse,
    /// Init: here is the pty master.
    Pty,
    /// Init: here is the seccomp listener.
    Listener,
    /// Init: set up, waiting for the release.
    Ready,
    /// The process that joined: here is its child inside (a pidfd; the text is its PID).
    Child,
    /// Init: a step failed.
    Failed,
}

impl Tag {
    const ALL: [(Tag, u8); 8] = [
        (Tag::Begin, b'B'),
        (Tag::Release, b'G'),
        (Tag::Fuse, b'F'),
        (Tag::Pty, b'P'),
        (Tag::Listener, b'L'),
        (Tag::Ready, b'R'),
        (Tag::Child, b'C'),
        (Tag::Failed, b'E'),
    ];

    fn byte(self) -> u8 {
        Self::ALL
            .iter()
            .find(|(tag, _)| *tag == self)
            .map_or(0, |(_, byte)| *byte)
    }
}

/// Sends a message without text.
pub(super) fn send(socket: impl AsFd, tag: Tag, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_message(socket, &[tag.byte()], fd)
}

/// Sends a message with a text.
pub(super) fn send_text(
    socket: impl AsFd,
    tag: Tag,
    fd: Option<BorrowedFd<'_>>,
    text: &[u8],
) -> io::Result<()> {
    send_message(socket, &[&[tag.byte()], text].concat(), fd)
}

/// Sends why init could not go on.
pub(super) fn send_failure(socket: impl AsFd, error: &anyhow::Error) -> io::Result<()> {
    let mut message = vec![Tag::Failed.byte(), error::kind(error).exit_code()];
    let report = error::message(error);
    let end = report.floor_char_boundary(LIMIT - message.len());
    message.extend_from_slice(&report.as_bytes()[..end]);
    send_message(socket, &message, None)
}

/// A received message.
#[derive(Debug)]
pub(super) struct Message {
    /// What it is about.
    pub tag: Tag,
    /// The descriptor that came with it.
    pub fd: Option<OwnedFd>,
    /// What stands behind the tag.
    pub text: Vec<u8>,
}

/// Receives a message; `None` at the end of file.
///
/// # Errors
/// Init's failure, as a [`Fault`] of the kind it had there.
pub(super) fn receive(socket: impl AsFd) -> Result<Option<Message>> {
    let received = receive_message(socket, LIMIT);
    let (bytes, fd) = match received {
        Ok(Some(message)) => message,
        Ok(None) => return Ok(None),
        Err(e) => return Err(anyhow::Error::new(e).context("reading init's control socket")),
    };
    let tag = bytes
        .first()
        .and_then(|b| Tag::ALL.iter().find(|(_, byte)| byte == b))
        .map(|(tag, _)| *tag);
    match tag {
        Some(Tag::Failed) => Err(decode_failure(&bytes[1..]).into()),
        Some(tag) => Ok(Some(Message {
            tag,
            fd,
            text: bytes[1..].to_vec(),
        })),
        None => Err(failed("reading init's control socket: not a message of ours").into()),
    }
}

/// The inverse of [`send_failure`].
fn decode_failure(bytes: &[u8]) -> Fault {
    let (code, text) = bytes.split_first().unwrap_or((&125, b"init failed"));
    let kind = [Kind::NotExecutable, Kind::CommandNotFound, Kind::NoSession]
        .into_iter()
        .find(|kind| kind.exit_code() == *code)
        .unwrap_or(Kind::Failed);
    let text = String::from_utf8_lossy(text);
    let mut parts = text.split("\n  hint: ");
    let fault = Fault::new(kind, parts.next().unwrap_or_default());
    match parts.collect::<Vec<_>>().join("\n  hint: ") {
        hints if hints.is_empty() => fault,
        hints => fault.hint(hints),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::message_pair;

    #[test]
    fn a_failure_keeps_kind_text_and_hints() {
        let (a, b) = message_pair().unwrap();
        let fault = Fault::new(Kind::CommandNotFound, "executable `x` not found").hint("try y");
        let error = anyhow::Error::from(fault).context("starting");
        send_failure(&a, &error).unwrap();
        let got = receive(&b).unwrap_err();
        assert_eq!(error::kind(&got), Kind::CommandNotFound);
        assert_eq!(error::report(&got), error::report(&error));
    }

    #[test]
    fn a_report_is_read_though_its_sender_died_with_our_message_unread() {
        let (a, b) = message_pair().unwrap();
        send(&b, Tag::Begin, None).unwrap();
        send_failure(&a, &anyhow::anyhow!("why")).unwrap();
        drop(a);
        assert_eq!(receive(&b).unwrap_err().to_string(), "why");
        assert!(receive(&b).unwrap().is_none());
    }

    #[test]
    fn descriptors_travel_and_the_end_is_the_end() {
        let (a, b) = message_pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&a, Tag::Fuse, Some(file.as_fd())).unwrap();
        drop(a);
        let message = receive(&b).unwrap().unwrap();
        assert_eq!(message.tag, Tag::Fuse);
        let (x, y) = (message.fd.unwrap(), file.as_fd());
        let ino = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).unwrap().st_ino;
        assert_eq!(ino(x.as_fd()), ino(y));
        assert!(receive(&b).unwrap().is_none());
    }
}
