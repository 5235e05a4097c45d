//! What outlives one run of the container's command: who listens, who is told, and the log.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use serde_json::{Value as Json, json};

use super::clients::{self, Backlog, Client};
use super::log::Log;
use super::{Job, Stream};
use crate::container::protocol::{FRAME, Frame};
use crate::error::{Result, failed};

/// Why a container is started again that no policy would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Its health checks failed.
    Unhealthy,
    /// `restart`: at once, and counted from zero as after any start by its user.
    Asked,
}

/// The supervisor's side towards everyone outside the container.
#[derive(Debug)]
pub(super) struct Front {
    /// Signals for the supervisor itself.
    pub(super) signals: SignalFd,
    /// The attach socket.
    pub(super) listener: Option<OwnedFd>,
    /// Everyone attached, and everyone who asked something.
    pub(super) clients: Vec<Client>,
    /// The log.
    pub(super) log: Log,
    /// What was written last.
    pub(super) backlog: Backlog,
    /// Standard input ends with the first client.
    pub(super) input_once: bool,
    /// Nothing more comes for standard input.
    pub(super) input_ended: bool,
    /// The container is to end and not to be started again.
    pub(super) ending: bool,
    /// It is to be started again when it has ended, whatever its policy says, and why.
    pub(super) again: Option<Again>,
    /// When it is killed because it was asked to end and did not.
    pub(super) kill_at: Option<Instant>,
}

impl Front {
    pub(super) fn new(
        job: &Job,
        first: Client,
        signals: SignalFd,
        log: Log,
        listener: OwnedFd,
    ) -> Front {
        Front {
            signals,
            listener: Some(listener),
            clients: vec![first],
            log,
            backlog: Backlog::default(),
            input_once: job.input_once,
            input_ended: false,
            ending: false,
            again: None,
            kill_at: None,
        }
    }

    /// Tells every client, and writes into the log, what the user should know while the container goes on.
    pub(super) fn notice(&mut self, text: &str) {
        self.log.add(Stream::Err, text.as_bytes());
        for client in &mut self.clients {
            client.push(&Frame::Notice(text));
        }
    }

    /// It will be started again when what runs has ended.
    pub(super) fn will_begin_again(&self) -> bool {
        self.again.is_some() && !self.ending
    }

    /// Tells those who asked for a restart how that went.
    pub(super) fn tell_restarted(&mut self, how: impl Fn() -> Result<Json>) {
        for client in self.clients.iter_mut().filter(|c| c.awaits_restart) {
            client.awaits_restart = false;
            client.answer(how());
        }
    }

    /// Tells every client that the container has ended for good.
    pub(super) fn tell_end(&mut self, code: i32, note: &str) {
        // Who has come in the last moment, too.
        while let Some(socket) = self
            .listener
            .as_ref()
            .and_then(|l| clients::accept(l.as_fd()))
        {
            self.clients.push(Client::new(socket, false));
        }
        self.tell_restarted(|| Err(failed("it was stopped before it was started again").into()));
        for client in &mut self.clients {
            if client.awaits_end {
                client.answer(Ok(json!({ "exit_code": code })));
            } else {
                client.push(&Frame::Exit { code, note });
            }
        }
    }

    /// Hands out what is queued for clients that still take it; the container is gone by now.
    pub(super) fn drain(mut self) {
        self.listener = None;
        let mut buffer = [0; FRAME];
        while self.clients.iter().any(|c| c.waiting() && !c.gone()) {
            self.clients.retain(|c| c.waiting() && !c.gone());
            let flags = PollFlags::POLLIN | PollFlags::POLLOUT;
            let fds = self.clients.iter().map(|c| PollFd::new(c.fd(), flags));
            let mut fds: Vec<PollFd> = fds.collect();
            if poll(&mut fds, PollTimeout::NONE).is_err() {
                continue; // EINTR
            }
            for client in &mut self.clients {
                client.flush();
                while client.receive(&mut buffer).is_some() {}
            }
        }
    }
}
