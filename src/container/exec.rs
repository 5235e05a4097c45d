//! `exec`: a further process in a running container, from its client's side.
//!
//! The client connects to the container's attach socket and sends what it wants as an `Exec` frame. The
//! supervisor passes the connection on to a process of its own program, the session's supervisor
//! ([`super::supervisor::session`]), with which the client talks from then on as with that of `run`:
//! same frames, same [`attach`]. Descriptors (`--preserve-fds`) follow when the session asks for them, one a message.
//!
//! A client that is killed leaves the process running, and signals are not passed on, as podman has it:
//! Ctrl-C without a terminal ends the client.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use serde::{Deserialize, Serialize};

use super::attach::{Attach, Ended, attach, wait_started};
use super::descriptors::{Asked, Descriptors};
use super::protocol::{FRAME, Frame, pieces};
use super::record::{Containers, Record, State, random_id};
use super::request::Streams;
use super::run::Outcome;
use super::supervisor;
use super::terminal::{self, DetachKeys};
use crate::error::{Fault, Kind, Result, ResultExt, failed, usage};
use crate::sys::file::send_message;
use crate::trace;

/// What is to be executed, as it goes over the socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Command and arguments.
    pub command: Vec<String>,
    /// `NAME=VALUE` over the container's environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// `-u`; `None`: as the container's first process.
    #[serde(default)]
    pub user: Option<String>,
    /// `-w`.
    #[serde(default)]
    pub workdir: Option<String>,
    /// `-t`.
    #[serde(default)]
    pub tty: bool,
    /// `-i`.
    #[serde(default)]
    pub interactive: bool,
    /// `--privileged`: every capability.
    #[serde(default)]
    pub privileged: bool,
    /// `-d`: nobody is attached.
    #[serde(default)]
    pub detach: bool,
    /// Rows and columns of the caller's terminal.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
    /// `--preserve-fds`, `--preserve-fd`, on the client's side.
    #[serde(skip)]
    pub descriptors: Asked,
    /// So many descriptors from 3 on follow; set when they are taken.
    #[serde(default)]
    pub preserve_fds: u16,
    /// A signal is for its whole process group (a health check that overruns).
    #[serde(default)]
    pub signals_group: bool,
}

/// The question by which a session asks for the descriptors that were announced.
pub(super) const WANTS_FDS: &str = "descriptors";

/// Executes `session` in the container `record`, attached unless it says otherwise.
///
/// # Errors
/// The container does not run, or its supervisor died.
pub fn exec(
    containers: &Containers,
    record: &Record,
    mut session: Session,
    keys: Option<&str>,
) -> Result<Outcome> {
    let keys = DetachKeys::parse(keys.unwrap_or("ctrl-p,ctrl-q"))?;
    if session.command.first().is_none_or(String::is_empty) {
        return Err(usage(
            "must provide a non-empty command to start an exec session: invalid argument",
        )
        .into());
    }
    session.size = terminal::size().map(|s| (s.rows, s.columns));
    let socket = open(containers, record, &session)?;
    trace::mark("exec asked for");
    let ended = if session.detach {
        wait_started(&socket)?
    } else {
        let how = Attach {
            streams: Streams::default(),
            tty: session.tty,
            input: session.interactive,
            sig_proxy: false,
            keys,
            session: true,
        };
        attach(socket, how)?
    };
    Ok(match ended {
        // The container's own end: whoever was asked for the process was not there any more.
        Ended::Exited(..) if session.detach => return Err(improper().into()),
        Ended::Exited(code, note) => Outcome::Exited(u8::try_from(code).unwrap_or(255), note),
        // As podman: nobody waits for a detached process, so its codes are not told apart.
        Ended::NotStarted(_, text) if session.detach => Outcome::NotStarted(125, text),
        Ended::NotStarted(code, text) => Outcome::NotStarted(code, text),
        Ended::Left(code) => Outcome::Exited(code, String::new()),
        Ended::Detached => Outcome::Running(random_id()?),
    })
}

/// The container does not run (any more).
pub(super) fn improper() -> Fault {
    let text = "can only create exec sessions on running containers: container state improper";
    Fault::new(Kind::NoSession, text)
}

/// A connection on which the session has been asked for.
pub(super) fn open(containers: &Containers, record: &Record, session: &Session) -> Result<OwnedFd> {
    if record.state != State::Running {
        return Err(improper().into());
    }
    let fds = Descriptors::of(&session.descriptors)?.copies()?;
    let session = Session {
        preserve_fds: u16::try_from(fds.len())?,
        ..session.clone()
    };
    let place = containers.place(&record.id);
    let socket = match supervisor::connect(&place.live, supervisor::PATIENCE) {
        Ok(socket) => socket,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            return Err(super::control::silent(&record.id).into());
        }
        Err(_) => return Err(improper().into()),
    };
    let json = serde_json::to_vec(&session).map_err(|e| failed(e.to_string()))?;
    for packet in pieces(&json, Frame::More, Frame::Exec) {
        send(socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)
            .fault(|| failed("asking the container's supervisor for a process"))?;
    }
    if !fds.is_empty() {
        hand_descriptors(&socket, &fds)?;
    }
    Ok(socket)
}

/// Waits until the session asks for them, and sends them.
fn hand_descriptors(socket: &OwnedFd, fds: &[OwnedFd]) -> Result<()> {
    let mut buffer = [0; FRAME];
    loop {
        // What else may come first is an error, which is read again where errors are.
        let flags = MsgFlags::MSG_PEEK;
        let n = match recv(socket.as_raw_fd(), &mut buffer, flags) {
            Err(Errno::EINTR) => continue,
            Ok(0) | Err(_) => return Ok(()),
            Ok(n) => n,
        };
        match Frame::decode(&buffer[..n]) {
            Some(Frame::Notice(WANTS_FDS)) => break,
            Some(Frame::Busy) => drop(recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())),
            _ => return Ok(()),
        }
    }
    let _ = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
    for fd in fds {
        send_message(socket, b"\0", Some(fd.as_fd()))
            .fault(|| failed("handing descriptors to the process"))?;
    }
    Ok(())
}
