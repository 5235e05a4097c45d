//! The supervisor's loop: bytes, signals and window sizes between the container and its clients.
//!
//! One thread, one poll(2), no blocking call: a client or a log that does not take bytes holds
//! nothing up but itself (or, the first client, the container's output: see [`super::clients`]).

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{read, write};

use super::clients::{Backlog, Client, accept};
use super::log::Log;
use super::{Stream, output_frame};
use crate::container::protocol::{CHUNK, FRAME, Frame};
use crate::network::Pasta;
use crate::sys::supervise::pidfd_kill;
use crate::sys::tty::{self, WindowSize};

/// The container's ends of its standard streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Writes to its standard input; `None` when there is none (any more).
    pub(super) input: Option<OwnedFd>,
    /// Reads its standard output.
    pub(super) output: Option<OwnedFd>,
    /// Reads its standard error.
    pub(super) errors: Option<OwnedFd>,
    /// Its terminal, instead of the others.
    pub(super) pty: Option<OwnedFd>,
    /// The other side of the terminal, held so that one process closing it and another opening
    /// it again is no end of file.
    pub(super) peer: Option<OwnedFd>,
}

/// What the loop works on.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    /// Its streams.
    pub(super) streams: Streams,
    /// Readable when the container's first process has ended.
    pub(super) pidfd: BorrowedFd<'a>,
    /// Signals for the supervisor itself.
    pub(super) signals: &'a SignalFd,
    /// The attach socket.
    pub(super) listener: Option<OwnedFd>,
    /// Everyone attached.
    pub(super) clients: Vec<Client>,
    /// The log.
    pub(super) log: Log,
    /// The network.
    pub(super) pasta: Option<Pasta>,
    /// Standard input ends with the first client.
    pub(super) input_once: bool,
    pub(super) backlog: Backlog,
    pub(super) pending: VecDeque<u8>,
    pub(super) input_ended: bool,
    pub(super) restarts: (u32, Instant),
}

/// What a descriptor in the poll set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Init,
    Signals,
    Listener,
    Pasta,
    Input,
    Pty,
    Output(Stream),
    Client(usize),
}

impl Relay<'_> {
    /// Runs until the container's first process has ended and everything it wrote was read.
    pub(super) fn run(&mut self) {
        while !self.turn(false) {}
        // All processes of a PID namespace are gone when its first one is: what is in the pipes is all.
        while self.read_outputs() {}
        self.log.flush();
    }

    /// Hands out what is queued for clients that still take it; the container is gone by now.
    pub(super) fn drain(&mut self) {
        self.listener = None;
        self.streams = Streams::default();
        self.pasta = None;
        self.clients.retain(|c| c.first || c.waiting());
        while self.clients.iter().any(|c| c.waiting() && !c.gone()) {
            self.turn(true);
        }
    }

    /// One poll and what came of it; true when the first process has ended.
    fn turn(&mut self, draining: bool) -> bool {
        self.clients.retain(|c| !c.gone());
        let held = self.clients.iter().any(Client::holds_back);
        let ready = self.wait(held, draining);
        let mut ended = false;
        for (token, flags) in ready {
            match token {
                Token::Init => ended = true,
                Token::Signals => self.own_signal(),
                Token::Listener => self.welcome(),
                Token::Pasta => self.pasta_event(flags),
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
        self.log.flush();
        self.first_client_left();
        ended
    }

    fn wait(&self, held: bool, draining: bool) -> Vec<(Token, PollFlags)> {
        let mut tokens = Vec::with_capacity(12);
        let mut fds = Vec::with_capacity(12);
        let mut add = |token, fd, flags| {
            tokens.push(token);
            fds.push(PollFd::new(fd, flags));
        };
        if !draining {
            add(Token::Init, self.pidfd, PollFlags::POLLIN);
        }
        add(Token::Signals, self.signals.as_fd(), PollFlags::POLLIN);
        if let Some(listener) = &self.listener {
            add(Token::Listener, listener.as_fd(), PollFlags::POLLIN);
        }
        if let Some(pasta) = &self.pasta {
            add(Token::Pasta, pasta.fd(), PollFlags::POLLIN);
        }
        let writes = !self.pending.is_empty();
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
        for (i, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, client.waiting());
            add(Token::Client(i), client.fd(), flags);
        }
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            return Vec::new(); // EINTR: nothing is ready
        }
        let ready = tokens.into_iter().zip(&fds);
        ready
            .filter_map(|(t, fd)| Some((t, fd.revents().filter(|f| !f.is_empty())?)))
            .collect()
    }

    /// A signal sent to the supervisor is meant for the container: a scope or a host that stops.
    fn own_signal(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).unwrap_or(libc::SIGTERM);
            if signal != libc::SIGHUP && signal != libc::SIGCHLD {
                let _ = pidfd_kill(self.pidfd, signal);
            }
        }
    }

    fn welcome(&mut self) {
        while let Some(socket) = self.listener.as_ref().and_then(|l| accept(l.as_fd())) {
            self.clients.push(Client::new(socket, false));
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
        self.log.add(Stream::Err, text.as_bytes());
        for client in &mut self.clients {
            client.push(&Frame::Notice(&text));
        }
    }

    fn client_event(&mut self, i: usize, flags: PollFlags) {
        if flags.contains(PollFlags::POLLOUT) {
            self.clients[i].flush();
        }
        if !flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            return;
        }
        let mut buffer = [0; FRAME];
        while let Some(n) = self.clients[i].receive(&mut buffer) {
            if let Some(frame) = Frame::decode(&buffer[..n]) {
                self.frame(i, frame);
            }
        }
    }

    fn frame(&mut self, i: usize, frame: Frame<'_>) {
        match frame {
            Frame::Hello { backlog, .. } => {
                if backlog {
                    self.backlog.replay(&mut self.clients[i]);
                }
                self.clients[i].welcome = true;
            }
            Frame::Stdin(bytes) => {
                if self.streams.input.is_some() || self.streams.pty.is_some() {
                    self.pending.extend(bytes);
                    self.write_input(PollFlags::POLLOUT);
                }
                // Flow control is per client, against a client that floods; the pending bytes of
                // all of them are bounded by their windows.
                let n = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                if self.pending.len() < CHUNK {
                    self.clients[i].push(&Frame::StdinAck(n));
                } else {
                    self.clients[i].owe(n);
                }
            }
            Frame::StdinEof => {
                self.input_ended = true;
                self.write_input(PollFlags::POLLOUT);
            }
            Frame::Resize { rows, columns } => {
                if let Some(pty) = &self.streams.pty {
                    let _ = tty::set_window_size(pty, WindowSize { rows, columns });
                }
            }
            Frame::Signal(n) => {
                let _ = pidfd_kill(self.pidfd, n);
            }
            Frame::Detach => {
                self.input_once = false;
                self.clients[i].leave();
            }
            Frame::OutputClosed(stream) if self.clients[i].first => {
                // As for a local program: its next write is a broken pipe.
                match stream {
                    1 => self.streams.output = None,
                    _ => self.streams.errors = None,
                }
            }
            _ => {}
        }
    }

    fn write_input(&mut self, flags: PollFlags) {
        let Some(fd) = self.streams.input.as_ref().or(self.streams.pty.as_ref()) else {
            self.pending.clear();
            return;
        };
        let mut broken = flags.contains(PollFlags::POLLERR) && self.streams.pty.is_none();
        while !broken && !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match write(fd, front) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => broken = true,
            }
        }
        if broken {
            self.pending.clear();
        }
        if self.pending.len() < CHUNK {
            self.clients.iter_mut().for_each(Client::settle);
        }
        if broken || (self.input_ended && self.pending.is_empty()) {
            self.streams.input = None;
        }
    }

    /// Standard input of `run -i` ends with the process that ran it.
    fn first_client_left(&mut self) {
        if self.input_once && !self.clients.iter().any(|c| c.first && !c.gone()) {
            self.input_once = false;
            self.input_ended = true;
            self.write_input(PollFlags::POLLOUT);
        }
    }

    fn read_outputs(&mut self) -> bool {
        let out = self.read_output(Stream::Out);
        self.read_output(Stream::Err) || out
    }

    /// Reads one piece of an output; false when there is nothing to read.
    fn read_output(&mut self, stream: Stream) -> bool {
        let slot = match (stream, self.streams.pty.is_some()) {
            (Stream::Out, true) => &mut self.streams.pty,
            (Stream::Out, false) => &mut self.streams.output,
            (Stream::Err, _) => &mut self.streams.errors,
        };
        let Some(fd) = slot.as_ref() else {
            return false;
        };
        let mut buffer = [0; CHUNK];
        match read(fd, &mut buffer) {
            Ok(n) if n > 0 => {
                let bytes = &buffer[..n];
                self.log.add(stream, bytes);
                self.backlog.add(stream, bytes);
                for client in self.clients.iter_mut().filter(|c| c.welcome) {
                    client.push(&output_frame(stream, bytes));
                }
                true
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            // End of file. (A terminal has none: its other side is held open, see `Streams::peer`.)
            _ => {
                *slot = None;
                false
            }
        }
    }
}
