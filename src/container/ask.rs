//! Asking a container's supervisor: it alone writes the record while it lives, so who wants to change a
//! live container asks it to.
//!
//! A question goes as an `Ask` frame over the attach socket, the answer comes back as an `Answer` ([`protocol`](super::protocol)).
//! [`Question::Stop`] is answered when the container has ended for good, [`Question::Wait`] when what runs has, and the record says so. The socket is there from before the container starts: what is asked meanwhile is
//! answered when it runs. While a restart policy waits, the supervisor lives and answers.
//!
//! [`ask`] says `Nobody` when no supervisor lives to answer. The caller then looks again
//! ([`Containers::load`] clears what a dead one left) and does what is to be done itself, under the
//! container's lock. A supervisor that does not answer in time (it was stopped, or hangs) is killed by who asked it to
//! end the container, and by nobody else. One that has ended the container and writes what it wrote to a slow disk
//! says so every second ([`Frame::Busy`]), and is given [`CLEANING`] more each time.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::image::{kind_number, kind_of};
use super::protocol::{FRAME, Frame, pieces};
use super::record::Containers;
use super::supervisor;
use super::update::Change;
use crate::error::{self, Fault, Result, failed};

/// What a supervisor is asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// End the container, and do not start it again. Answered with its exit code when that is done.
    Stop {
        /// Seconds until it is killed; `None`: as it was made.
        timeout: Option<u64>,
    },
    /// End it and start it again. Answered when it runs again.
    Restart {
        /// Seconds until it is killed; `None`: as it was made.
        timeout: Option<u64>,
    },
    /// Tell the exit code when what runs has ended, whether it is started again or not.
    Wait,
    /// Send a signal to its first process.
    Kill {
        /// The signal's number.
        signal: i32,
    },
    /// Run its health check. Answered when that has ended, with the status that follows from it alone.
    Check,
    /// Freeze all its processes.
    Pause,
    /// Freeze all its processes until who asked has gone (or somebody lets them go on).
    Hold,
    /// Let them go on.
    Unpause,
    /// Make a frozen state of its files ([`crate::cow::frozen`]) in a directory that does not exist yet.
    Freeze {
        /// The directory, on the upper's file system.
        dir: std::path::PathBuf,
        /// With the files' content.
        content: bool,
    },
    /// Give it this name, which is linked to it already.
    Rename {
        /// The new name.
        name: String,
    },
    /// Change its limits or its restart policy.
    Update {
        /// What to change.
        change: Box<Change>,
    },
}

/// What comes back: `{"done": VALUE}` or `{"failed": [KIND, TEXT]}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Done(Json),
    Failed(u8, String),
}

/// How long a supervisor may take over its own work once the container has ended, or say nothing while it does.
pub(super) const CLEANING: Duration = Duration::from_secs(20);

/// How asking went, other than that it was refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// It is done; what there is to tell of it.
    Done(Json),
    /// No supervisor lives to answer (any more).
    Nobody,
    /// It lives and did not answer in time.
    Silence,
}

/// Asks the supervisor of the container `id`, and waits `patience` at most for its answer (`None`: for as long as it lives).
///
/// # Errors
/// What was asked for was refused or failed.
pub fn ask(
    containers: &Containers,
    id: &str,
    question: &Question,
    patience: Option<Duration>,
) -> Result<Heard> {
    let deadline = patience.and_then(|p| Instant::now().checked_add(p));
    match connect(containers, id, deadline)? {
        Ok(socket) => put(&socket, question, deadline, CLEANING),
        Err(heard) => Ok(heard),
    }
}

/// As [`ask`], for who has no use for what a busy supervisor still does: `patience` is all that it gets.
///
/// # Errors
/// As there.
pub(super) fn ask_at_most(
    containers: &Containers,
    id: &str,
    question: &Question,
    patience: Duration,
) -> Result<Heard> {
    let deadline = Instant::now().checked_add(patience);
    match connect(containers, id, deadline)? {
        Ok(socket) => put(&socket, question, deadline, Duration::ZERO),
        Err(heard) => Ok(heard),
    }
}

/// Asks for [`Question::Hold`]: the container is frozen for as long as what comes back is open, whatever becomes of this process.
/// `None`: no supervisor lives, or answers in time.
///
/// # Errors
/// It cannot be frozen.
pub fn hold(containers: &Containers, id: &str, patience: Duration) -> Result<Option<OwnedFd>> {
    let deadline = Instant::now().checked_add(patience);
    let Ok(socket) = connect(containers, id, deadline)? else {
        return Ok(None);
    };
    let heard = put(&socket, &Question::Hold, deadline, CLEANING)?;
    Ok(matches!(heard, Heard::Done(_)).then_some(socket))
}

/// Puts a question and waits for the answer until `deadline`, or for `more` since it was said that the supervisor is busy.
fn put(
    socket: &OwnedFd,
    question: &Question,
    mut deadline: Option<Instant>,
    more: Duration,
) -> Result<Heard> {
    let json = serde_json::to_vec(question).map_err(|e| failed(e.to_string()))?;
    for packet in pieces(&json, Frame::More, Frame::Ask) {
        if send(socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL).is_err() {
            return Ok(Heard::Nobody);
        }
    }
    let mut text = Vec::new();
    let mut buffer = vec![0; FRAME];
    loop {
        if !readable(socket, deadline) {
            return Ok(Heard::Silence);
        }
        let n = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            // A reset comes before the frames that were sent earlier.
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ECONNRESET) => continue,
            Ok(0) | Err(_) => return Ok(Heard::Nobody),
            Ok(n) => n,
        };
        match Frame::decode(&buffer[..n]) {
            Some(Frame::AnswerMore(piece)) => text.extend_from_slice(piece),
            Some(Frame::Answer(piece)) => {
                text.extend_from_slice(piece);
                return heard(&text);
            }
            Some(Frame::Busy) => deadline = deadline.map(|d| d.max(Instant::now() + more)),
            // Asked in the container's last moment: the question was not read any more.
            Some(Frame::Exit { code, .. })
                if matches!(question, Question::Wait | Question::Stop { .. }) =>
            {
                return Ok(Heard::Done(serde_json::json!({ "exit_code": code })));
            }
            _ => {}
        }
    }
}

/// A connection to the supervisor, or why there is none. One that is being born is waited for.
fn connect(
    containers: &Containers,
    id: &str,
    deadline: Option<Instant>,
) -> Result<Result<OwnedFd, Heard>> {
    let place = containers.place(id);
    loop {
        match supervisor::connect(&place.live, Duration::ZERO) {
            Ok(socket) => return Ok(Ok(socket)),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Err(failed(format!("asking the supervisor of {id}: {e}")).into());
            }
            Err(_) if !containers.supervised(id) => return Ok(Err(Heard::Nobody)),
            // It lives where we do not look (another runtime directory), or could not listen.
            Err(_) if deadline.is_some_and(|d| Instant::now() > d) => {
                return Ok(Err(Heard::Silence));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Waits until there is something to read; false when it is too late.
fn readable(socket: &OwnedFd, deadline: Option<Instant>) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    loop {
        let timeout = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        match poll(&mut fds, poll_timeout(timeout)) {
            Ok(0) if deadline.is_some_and(|d| Instant::now() >= d) => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            _ => return true,
        }
    }
}

/// For poll(2): rounded up to milliseconds, so that what waits for a moment does not wake up before it.
pub(super) fn poll_timeout(timeout: Option<Duration>) -> PollTimeout {
    let Some(timeout) = timeout else {
        return PollTimeout::NONE;
    };
    let millis = timeout.as_millis() + u128::from(timeout.subsec_nanos() % 1_000_000 != 0);
    let millis = i32::try_from(millis).unwrap_or(i32::MAX);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

fn heard(text: &[u8]) -> Result<Heard> {
    match serde_json::from_slice(text) {
        Ok(Answer::Done(value)) => Ok(Heard::Done(value)),
        Ok(Answer::Failed(kind, text)) => Err(Fault::new(kind_of(kind), text).into()),
        Err(_) => Err(failed("the container's supervisor is of another version of rless").into()),
    }
}

/// The packets of an answer.
pub(super) fn answer(result: Result<Json>) -> Vec<Vec<u8>> {
    let answer = match result {
        Ok(value) => Answer::Done(value),
        Err(e) => {
            let report = error::report(&e);
            let text = report.split_once(": ").map_or(report.as_str(), |(_, t)| t);
            Answer::Failed(kind_number(error::kind(&e)), text.to_owned())
        }
    };
    let json = serde_json::to_vec(&answer).unwrap_or_default();
    pieces(&json, Frame::AnswerMore, Frame::Answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn joined(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut text: Vec<u8> = Vec::new();
        for packet in packets {
            match Frame::decode(packet) {
                Some(Frame::AnswerMore(piece) | Frame::Answer(piece)) => text.extend(piece),
                other => panic!("{other:?}"),
            }
        }
        text
    }

    #[test]
    fn answers_keep_their_kind_and_text() {
        let long = "x".repeat(100_000);
        let packets = answer(Ok(Json::from(long.clone())));
        assert_eq!(heard(&joined(&packets)).unwrap(), Heard::Done(long.into()));
        let fault = Fault::new(Kind::Conflict, "pausing: it is paused").hint("unpause it");
        let e = heard(&joined(&answer(Err(fault.into())))).unwrap_err();
        assert_eq!(error::kind(&e), Kind::Conflict);
        assert_eq!(
            error::report(&e).split_once(": ").unwrap().1,
            "pausing: it is paused\n  hint: unpause it"
        );
        assert!(heard(b"{}").is_err());
    }

    #[test]
    fn a_busy_supervisor_is_waited_for_but_by_who_needs_nothing_of_it() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let asked = |more| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
            let (ours, theirs) = pair.unwrap();
            let say = move |packet: &[u8]| {
                let _ = send(theirs.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL);
            };
            say(&Frame::Busy.encode());
            let answers = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(600));
                answer(Ok(Json::Null)).iter().for_each(|p| say(p));
            });
            let deadline = Some(Instant::now() + Duration::from_millis(100));
            let heard = put(&ours, &Question::Wait, deadline, more).unwrap();
            answers.join().unwrap();
            heard
        };
        assert_eq!(asked(CLEANING), Heard::Done(Json::Null));
        assert_eq!(asked(Duration::ZERO), Heard::Silence);
    }

    #[test]
    fn poll_never_wakes_before_the_moment() {
        let ms = |d| poll_timeout(Some(d)).as_millis();
        assert_eq!(ms(Duration::from_micros(1)), Some(1));
        assert_eq!(ms(Duration::from_millis(3)), Some(3));
        assert_eq!(ms(Duration::MAX), PollTimeout::MAX.as_millis());
        assert_eq!(poll_timeout(None), PollTimeout::NONE);
    }
}
