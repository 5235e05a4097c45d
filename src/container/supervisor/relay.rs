//! The supervisor's loop: bytes, signals and window sizes between the container and its clients.
//!
//! One thread, one poll(2), no blocking call: a client or a log that does not take bytes holds
//! nothing up but itself (or, the first client, the container's output: see [`super::clients`]).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::read;

use super::clients::{Client, accept};
use super::front::Front;
use super::health::Checks;
use super::sessions::Sessions;
use super::streams::{PIPE_MOST, Piece, Streams};
use super::{Job, Stream, output_frame};
use crate::cgroup::Scope;
use crate::container::ask::poll_timeout;
use crate::container::notify::Notify;
use crate::container::protocol::{CHUNK, FRAME, Frame};
use crate::network::Pasta;
use crate::sys::supervise::pidfd_kill;

/// What the loop works on.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    /// The container.
    pub(super) job: &'a mut Job,
    /// Everyone outside it.
    pub(super) front: &'a mut Front,
    /// Its streams.
    pub(super) streams: Streams,
    /// Readable when the container's first process has ended; `None`: it is not running, a restart policy waits.
    pub(super) init: Option<BorrowedFd<'a>>,
    /// Without `init`: when the wait is over.
    pub(super) until: Option<Instant>,
    /// Its control group.
    pub(super) scope: Option<&'a Scope>,
    /// The socket of its id agent.
    pub(super) agent: Option<BorrowedFd<'a>>,
    /// Processes run beside the first one.
    pub(super) sessions: Sessions,
    /// Whether it is well.
    pub(super) checks: Checks,
    /// The network.
    pub(super) pasta: Option<Pasta>,
    pub(super) restarts: (u32, Instant),
}

/// What a descriptor in the poll set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Init,
    Signals,
    Listener,
    Pasta,
    Check,
    Notify,
    Input,
    Pty,
    Output(Stream),
    Client(usize),
}

impl Relay<'_> {
    /// Runs until the container's first process has ended and everything it wrote was read; without
    /// one, until the wait is over or the container is to end.
    pub(super) fn run(&mut self) {
        while !self.turn() {}
        // All processes of a PID namespace are gone when its first one is: what is in the pipes is all.
        // A process elsewhere that was handed a pipe may write for ever.
        for stream in [Stream::Out, Stream::Err] {
            let mut pieces = PIPE_MOST / CHUNK;
            while pieces > 0 && self.read_output(stream) {
                pieces -= 1;
                self.front.log.flush();
            }
        }
        self.drop_checks();
    }

    /// One poll and what came of it; true when [`Relay::run`] is over.
    fn turn(&mut self) -> bool {
        self.clear_clients();
        let held = self.front.clients.iter().any(Client::holds_back);
        let ready = self.wait(held);
        let waited = self.until.is_some_and(|until| until <= Instant::now());
        let mut ended = self.init.is_none() && waited;
        self.end_of_patience();
        self.health_due();
        for (token, flags) in ready {
            match token {
                Token::Init => ended = true,
                Token::Signals => self.own_signal(),
                Token::Listener => self.welcome(),
                Token::Pasta => self.pasta_event(flags),
                Token::Check => self.check_event(),
                Token::Notify => self.job.notify.iter().for_each(Notify::pass_on),
                Token::Input => self.write_input(flags),
                Token::Pty => {
                    if flags.contains(PollFlags::POLLOUT) {
                        self.write_input(flags);
                    }
                    if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR)
                    {
                        self.read_output(Stream::Out);
                    }
                }
                Token::Output(stream) => {
                    self.read_output(stream);
                }
                Token::Client(i) => self.client_event(i, flags),
            }
        }
        self.front.log.flush();
        self.first_client_left();
        ended || (self.init.is_none() && self.front.ending)
    }

    fn wait(&self, held: bool) -> Vec<(Token, PollFlags)> {
        let mut tokens = Vec::with_capacity(12);
        let mut fds = Vec::with_capacity(12);
        let mut add = |token, fd, flags| {
            tokens.push(token);
            fds.push(PollFd::new(fd, flags));
        };
        if let Some(init) = self.init {
            add(Token::Init, init, PollFlags::POLLIN);
        }
        add(
            Token::Signals,
            self.front.signals.as_fd(),
            PollFlags::POLLIN,
        );
        if let Some(listener) = &self.front.listener {
            add(Token::Listener, listener.as_fd(), PollFlags::POLLIN);
        }
        if let Some(pasta) = &self.pasta {
            add(Token::Pasta, pasta.fd(), PollFlags::POLLIN);
        }
        if let Some(notify) = self.job.notify.as_ref().and_then(Notify::fd) {
            add(Token::Notify, notify, PollFlags::POLLIN);
        }
        if let Some(check) = self.checks.fd() {
            add(Token::Check, check, PollFlags::POLLIN);
        }
        let writes = self.streams.writes();
        if let Some(pty) = &self.streams.pty {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, !held);
            flags.set(PollFlags::POLLOUT, writes);
            if !flags.is_empty() {
                add(Token::Pty, pty.as_fd(), flags);
            }
        }
        if let Some(input) = &self.streams.input {
            // Without pending bytes only the error matters: the container closed its end.
            let flags = if writes {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            add(Token::Input, input.as_fd(), flags);
        }
        for (stream, fd) in [
            (Stream::Out, &self.streams.output),
            (Stream::Err, &self.streams.errors),
        ] {
            if let Some(fd) = fd.as_ref().filter(|_| !held) {
                add(Token::Output(stream), fd.as_fd(), PollFlags::POLLIN);
            }
        }
        for (i, client) in self.front.clients.iter().enumerate() {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, client.waiting());
            add(Token::Client(i), client.fd(), flags);
        }
        let next = [self.front.kill_at, self.until, self.checks.wake()];
        let next = next.into_iter().flatten().min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        if poll(&mut fds, poll_timeout(timeout)).is_err() {
            return Vec::new(); // EINTR: nothing is ready
        }
        let ready = tokens.into_iter().zip(&fds);
        ready
            .filter_map(|(t, fd)| Some((t, fd.revents().filter(|f| !f.is_empty())?)))
            .collect()
    }

    /// A signal sent to the supervisor is meant for the container: a scope or a host that stops.
    fn own_signal(&mut self) {
        while let Ok(Some(info)) = self.front.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).unwrap_or(libc::SIGTERM);
            if signal == libc::SIGCHLD {
                self.sessions.reap(self.job);
                continue;
            }
            // The session or the host ends: no policy starts it again now.
            self.front.ending |= signal == libc::SIGTERM;
            if signal != libc::SIGHUP
                && let Some(init) = self.init
            {
                let _ = pidfd_kill(init, signal);
            }
        }
    }

    fn welcome(&mut self) {
        let next = |front: &Front| accept(front.listener.as_ref()?.as_fd());
        while let Some(socket) = next(self.front) {
            self.front.clients.push(Client::new(socket, false));
        }
    }

    /// pasta has ended by itself: the container lives on, its network is brought back.
    fn pasta_event(&mut self, flags: PollFlags) {
        let Some(pasta) = self.pasta.as_mut() else {
            return;
        };
        if !flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            let _ = read(pasta.fd(), &mut [0; 64]);
            return;
        }
        let (count, last) = self.restarts;
        let often = last.elapsed() < Duration::from_secs(10);
        let count = if often { count + 1 } else { 1 };
        self.restarts = (count, Instant::now());
        let why = crate::error::report(&pasta.death("ended").into());
        let result = if count > 3 {
            Err(crate::error::failed("it keeps ending").into())
        } else {
            pasta.restart()
        };
        let text = match result {
            Ok(()) => format!("{why}\n  its network was restored\n"),
            Err(e) => {
                self.pasta = None;
                format!("{why}\n  restoring its network failed: {e:#}\n")
            }
        };
        self.front.notice(&text);
    }

    fn client_event(&mut self, i: usize, flags: PollFlags) {
        if flags.contains(PollFlags::POLLOUT) {
            self.front.clients[i].flush();
        }
        if !flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            return;
        }
        let mut buffer = [0; FRAME];
        while let Some(n) = self.front.clients[i].receive(&mut buffer) {
            if let Some(frame) = Frame::decode(&buffer[..n]) {
                self.frame(i, frame);
            }
        }
    }

    fn frame(&mut self, i: usize, frame: Frame<'_>) {
        match frame {
            Frame::Hello { backlog, .. } => {
                if backlog {
                    self.front.backlog.replay(&mut self.front.clients[i]);
                }
                self.front.clients[i].welcome = true;
            }
            Frame::Stdin(bytes) => {
                self.streams.put(bytes);
                self.write_input(PollFlags::POLLOUT);
                // Flow control is per client, against a client that floods; the pending bytes of
                // all of them are bounded by their windows.
                let n = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                if self.streams.hungry() {
                    self.front.clients[i].push(&Frame::StdinAck(n));
                } else {
                    self.front.clients[i].owe(n);
                }
            }
            Frame::StdinEof => {
                self.front.input_ended = true;
                self.write_input(PollFlags::POLLOUT);
            }
            Frame::Resize { rows, columns } => self.streams.resize(rows, columns),
            Frame::Signal(n) => self.client_signal(n),
            Frame::More(piece) => self.front.clients[i].keep(piece),
            Frame::Ask(last) => {
                let question = self.front.clients[i].whole(last);
                self.asked(i, &question);
            }
            Frame::Exec(last) => {
                let request = self.front.clients[i].whole(last);
                self.hand_over(i, &request);
            }
            Frame::Detach => {
                self.front.input_once = false;
                self.front.clients[i].leave();
            }
            Frame::OutputClosed(stream) if self.front.clients[i].first => {
                self.streams.close(stream);
            }
            _ => {}
        }
    }

    /// A signal that a client got. While the container waits to be started again there is nobody to have it: one that
    /// asks for an end ends the wait.
    fn client_signal(&mut self, signal: i32) {
        if let Some(init) = self.init {
            let _ = pidfd_kill(init, signal);
        } else if [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT].contains(&signal)
            || Some(signal) == self.job.record.stop_signal
        {
            self.stop(None);
        }
    }

    /// Writes what input the container takes, and tells who sent it when there is room for more.
    pub(super) fn write_input(&mut self, flags: PollFlags) {
        self.streams.write(flags, self.front.input_ended);
        if self.streams.hungry() {
            self.front.clients.iter_mut().for_each(Client::settle);
        }
    }

    /// Standard input of `run -i` ends with the process that ran it.
    fn first_client_left(&mut self) {
        if self.front.input_once && !self.front.clients.iter().any(|c| c.first && !c.gone()) {
            self.front.input_once = false;
            self.front.input_ended = true;
            self.write_input(PollFlags::POLLOUT);
        }
    }

    /// Reads one piece of an output; false when there is nothing to read.
    fn read_output(&mut self, stream: Stream) -> bool {
        let mut buffer = [0; CHUNK];
        let n = match self.streams.read(stream, &mut buffer) {
            Piece::Bytes(n) => n,
            other => return other == Piece::Again,
        };
        let bytes = &buffer[..n];
        self.front.log.add(stream, bytes);
        self.front.backlog.add(stream, bytes);
        for client in self.front.clients.iter_mut().filter(|c| c.welcome) {
            client.push(&output_frame(stream, bytes));
        }
        true
    }
}
