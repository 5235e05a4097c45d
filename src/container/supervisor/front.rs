//! What outlives one run of the container's command: who listens, who is told, and the log.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{MsgFlags, send};
use serde_json::{Value as Json, json};

use super::clients::{self, Backlog, Client};
use super::log::Log;
use super::{Job, Stream};
use crate::container::protocol::{FRAME, Frame};
use crate::error::{Result, failed};

/// How often who waits is told that somebody lives.
const TICK: Duration = Duration::from_secs(1);

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
    /// The thread that flushes the record of the last start.
    pub(super) flush: Option<JoinHandle<()>>,
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
            flush: None,
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

    /// Does `act`, during which nobody is heard. Where that may take its time (`long`) everyone is told that the supervisor is busy.
    pub(super) fn busy<T>(&mut self, long: bool, act: impl FnOnce() -> T) -> T {
        if !long {
            return act();
        }
        let (over, ended) = channel::<()>();
        let clients = self.clients.iter().filter(|c| !c.gone());
        let known: Vec<BorrowedFd<'_>> = clients.map(Client::fd).collect();
        let listener = self.listener.as_ref().map(AsFd::as_fd);
        let tell = move || {
            let mut come: Vec<OwnedFd> = Vec::new();
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                come.extend(std::iter::from_fn(|| clients::accept(listener?)));
                for fd in known.iter().copied().chain(come.iter().map(AsFd::as_fd)) {
                    // Who takes nothing just now, or has gone, needs not be told.
                    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                    let _ = send(fd.as_raw_fd(), &Frame::Busy.encode(), flags);
                }
            }
            come
        };
        let (result, come) = thread::scope(|scope| {
            // Without a thread to be had nobody is told.
            let thread = thread::Builder::new().spawn_scoped(scope, tell);
            let result = act();
            drop(over);
            let come = thread.ok().and_then(|thread| thread.join().ok());
            (result, come.unwrap_or_default())
        });
        let come = come.into_iter().map(|socket| Client::new(socket, false));
        self.clients.extend(come);
        result
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

    /// Tells those who wait for an exit, which may not be the last, its code.
    pub(super) fn tell_exit(&mut self, code: i32) {
        for client in self.clients.iter_mut().filter(|c| c.awaits_exit) {
            client.answer(Ok(json!({ "exit_code": code })));
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
            if client.awaits_end || client.awaits_exit {
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
            // Who waits for this process to end (`run`) has everything, and need not wait for others.
            let first = self.clients.iter_mut().filter(|c| c.first);
            first
                .filter(|c| !c.waiting())
                .for_each(|c| c.push(&Frame::Busy));
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
