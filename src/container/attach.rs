//! A client of a container: the caller's terminal and standard streams on one side, the attach
//! protocol on the other.
//!
//! With a terminal the caller's is raw and every key is the container's, the detach keys excepted.
//! Without one the client behaves as a local program would: it stops on Ctrl-Z, its output may be
//! slow or closed, and signals it gets go to the container (`--sig-proxy`).
//!
//! When the terminal hangs up, SIGHUP goes to the container's first process like any other signal and the client
//! leaves, as podman's (whose conmon keeps the container then): a first process that heeds SIGHUP ends by it, one
//! without a handler is PID 1 and never sees it, and lives on detached. Without `-t` the client stays until the end.
//!
//! Output that cannot be written (a full disk) is an error in the end; a reader that has gone is none: the container's
//! side is closed then, and it gets SIGPIPE as a local program would. Output that nobody takes does not hold up who
//! insists: the second SIGINT or the like without a byte written in between ends the client, the first where the
//! container has ended.
//!
//! The loop never blocks in a read or write that could hold up a signal: output is written in
//! pieces that poll(2) has promised room for.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::{read, write};
use oci_spec::runtime::Spec;

use super::events::Action;
use super::exec::improper;
use super::protocol::{CHUNK, FRAME, Frame, STDIN_WINDOW};
use super::record::{Containers, Record, State};
use super::request::Streams;
use super::supervisor;
use super::terminal::{self, DetachKeys, Raw};
use crate::error::{Result, ResultExt, failed, report};
use crate::store::files;
use crate::sys::process::with_real_time;
use crate::trace;

/// How to attach.
#[derive(Debug)]
pub struct Attach {
    /// The container has a terminal.
    pub tty: bool,
    /// Standard input goes to it.
    pub input: bool,
    /// Signals go to it.
    pub sig_proxy: bool,
    /// What of its output is shown.
    pub streams: Streams,
    /// Keys that leave it.
    pub keys: DetachKeys,
    /// It is a process beside the container's first one: the end that is told before it has started is the container's.
    pub session: bool,
}

/// How to join a container that runs.
#[derive(Debug)]
pub struct Join {
    /// Standard input goes to it.
    pub input: bool,
    /// Signals go to it.
    pub sig_proxy: bool,
    /// Keys that leave it.
    pub keys: DetachKeys,
}

/// Joins a running container, beside whoever else is attached. Who comes with a terminal to one is shown what
/// it wrote last.
///
/// # Errors
/// It does not run.
pub fn join(containers: &Containers, record: &Record, how: Join) -> Result<Ended> {
    let place = containers.place(&record.id);
    let refused = || {
        let text = "you can only attach to running containers";
        failed(format!("attaching to container {}: {text}", record.id))
    };
    if record.state != State::Running {
        return Err(refused().into());
    }
    let socket = supervisor::connect(&place.live, supervisor::PATIENCE).fault(refused)?;
    let spec: Option<Spec> = files::read_json(&place.dir.join("config.json"))?;
    let process = spec.as_ref().and_then(|s| s.process().as_ref());
    let tty = process.and_then(|p| p.terminal()).unwrap_or(false);
    let hello = Frame::Hello {
        input: how.input,
        backlog: tty && io::stdout().is_terminal(),
    };
    let flags = MsgFlags::MSG_NOSIGNAL;
    send(socket.as_raw_fd(), &hello.encode(), flags).fault(refused)?;
    containers.emit(record, Action::Attach);
    attach(
        socket,
        Attach {
            streams: Streams::default(),
            tty,
            input: how.input,
            sig_proxy: how.sig_proxy,
            keys: how.keys,
            session: false,
        },
    )
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The container ended with this code; the text is for the user.
    Exited(i32, String),
    /// It did not start, or what it wrote could not be passed on; the text is a report.
    NotStarted(u8, String),
    /// The user left it running.
    Detached,
    /// A signal ended the client alone; the exit code that tells.
    Left(u8),
}

/// Waits until the container has started (for `-d`).
///
/// # Errors
/// The supervisor died.
pub fn wait_started(socket: &OwnedFd) -> Result<Ended> {
    let mut buffer = [0; FRAME];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Ok(n) if n > 0 => match Frame::decode(&buffer[..n]) {
                Some(Frame::Started) => return Ok(Ended::Detached),
                Some(Frame::Error { code, text }) => {
                    return Ok(Ended::NotStarted(code, text.into()));
                }
                Some(Frame::Exit { code, note }) => return Ok(Ended::Exited(code, note.into())),
                _ => {}
            },
            _ => return Err(supervisor_died()),
        }
    }
}

fn supervisor_died() -> anyhow::Error {
    failed("the container's supervisor died")
        .hint("the container died with it; `rless ps -a` shows what is known")
        .into()
}

/// Relays between the caller and the container until one of them is done.
///
/// # Errors
/// The supervisor died, or the caller's terminal is gone.
pub fn attach(socket: OwnedFd, how: Attach) -> Result<Ended> {
    let raw = if how.tty && how.input && io::stdin().is_terminal() {
        Some(Raw::enter().context("setting the terminal to raw mode")?)
    } else {
        None
    };
    let mut client = Client {
        signals: signals(how.sig_proxy, raw.is_some())?,
        reading: how.input,
        window: STDIN_WINDOW,
        socket,
        raw,
        how,
        out: Out::new(Standard::Out(io::stdout())),
        err: Out::new(Standard::Err(io::stderr())),
        ended: None,
        started: false,
        insisted: false,
    };
    client.send_size();
    let mut result = client.run();
    let lost = client.out.failed.or(client.err.failed);
    if let (Some(e), Ok(Ended::Exited(..))) = (lost, &result) {
        let e = anyhow::Error::new(e).context("writing what the container wrote");
        result = Ok(Ended::NotStarted(125, report(&e)));
    }
    drop(client); // the terminal is itself again before anything is printed
    trace::mark("client done");
    result
}

/// Signals the client takes itself or hands on; all others act on it as on any program.
fn signals(proxy: bool, raw: bool) -> Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    if raw {
        set.add(Signal::SIGTSTP);
        set.add(Signal::SIGCONT);
    }
    if proxy {
        for signal in Signal::iterator() {
            if !not_proxied(signal) {
                set.add(signal);
            }
        }
    } else if raw {
        // Whatever ends the client must not leave the terminal raw.
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
        ] {
            set.add(signal);
        }
    }
    if proxy || raw {
        set = with_real_time(set);
    }
    set.thread_block().context("blocking signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&set, flags).context("making a signal descriptor")
}

/// Job control, faults of the client itself, and what cannot be caught.
fn not_proxied(signal: Signal) -> bool {
    use Signal as S;
    matches!(
        signal,
        S::SIGKILL
            | S::SIGSTOP
            | S::SIGCHLD
            | S::SIGPIPE
            | S::SIGTSTP
            | S::SIGTTIN
            | S::SIGTTOU
            | S::SIGCONT
            | S::SIGSEGV
            | S::SIGBUS
            | S::SIGFPE
            | S::SIGILL
            | S::SIGTRAP
            | S::SIGABRT
            | S::SIGSYS
            | S::SIGURG
            | S::SIGWINCH
    )
}

/// One of the caller's output streams.
#[derive(Debug)]
struct Out {
    stream: Standard,
    queue: VecDeque<u8>,
    /// Most bytes of one write that poll(2) has promised room for.
    piece: usize,
    closed: bool,
    terminal: bool,
    /// Why it was closed, if not because its reader had gone.
    failed: Option<Errno>,
}

#[derive(Debug)]
enum Standard {
    Out(io::Stdout),
    Err(io::Stderr),
}

impl Out {
    fn new(stream: Standard) -> Out {
        let mut out = Out {
            stream,
            queue: VecDeque::new(),
            piece: 4096,
            closed: false,
            terminal: false,
            failed: None,
        };
        out.terminal = out.fd().is_terminal();
        let stat = nix::sys::stat::fstat(out.fd());
        if stat.is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFREG) {
            out.piece = CHUNK;
        }
        out
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Standard::Out(s) => s.as_fd(),
            Standard::Err(s) => s.as_fd(),
        }
    }

    fn number(&self) -> u8 {
        match self.stream {
            Standard::Out(_) => 1,
            Standard::Err(_) => 2,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.queue.extend(bytes);
        }
    }

    /// Writes one piece; true when the reader has gone.
    fn write(&mut self) -> bool {
        let (front, _) = self.queue.as_slices();
        let piece = &front[..front.len().min(self.piece)];
        match write(self.fd(), piece) {
            Ok(n) => drop(self.queue.drain(..n)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(e) => {
                // A terminal that hangs up says EIO.
                if e != Errno::EPIPE && !(self.terminal && e == Errno::EIO) {
                    self.failed = Some(e);
                }
                self.queue.clear();
                self.closed = true;
                return true;
            }
        }
        false
    }
}

/// Output that waits to be written, beyond which no more is read from the supervisor.
const ENOUGH: usize = 4 * CHUNK;

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    signals: SignalFd,
    raw: Option<Raw>,
    how: Attach,
    /// Standard input is read.
    reading: bool,
    /// Bytes of input that may be sent before the next acknowledgement.
    window: usize,
    out: Out,
    err: Out,
    /// What it is attached to has started.
    started: bool,
    /// What ended it, to be returned once all output is written.
    ended: Option<Ended>,
    /// A signal that asks for an end was passed on, and nothing was written since.
    insisted: bool,
}

impl Client {
    fn run(&mut self) -> Result<Ended> {
        loop {
            let idle = self.out.queue.is_empty() && self.err.queue.is_empty();
            if let Some(ended) = self.ended.take_if(|_| idle) {
                return Ok(ended);
            }
            let [socket, signals, stdin, stdout, stderr] = self.wait()?;
            if !signals.is_empty() {
                self.take_signals();
            }
            for (ready, errors) in [(stdout, false), (stderr, true)] {
                let out = if errors { &mut self.err } else { &mut self.out };
                self.insisted &= ready.is_empty();
                if !ready.is_empty() && out.write() {
                    let frame = Frame::OutputClosed(out.number());
                    self.send(&frame);
                }
            }
            if !stdin.is_empty() && self.read_input() {
                self.send(&Frame::Detach);
                return Ok(Ended::Detached);
            }
            if !socket.is_empty() {
                self.receive()?;
            }
        }
    }

    /// What is ready of: socket, signals, standard input, output, error.
    fn wait(&self) -> Result<[PollFlags; 5]> {
        let stdin = io::stdin();
        let when = |condition: bool, flags| if condition { flags } else { PollFlags::empty() };
        let room = self.out.queue.len() + self.err.queue.len() < ENOUGH && self.ended.is_none();
        let read = self.reading && self.window >= CHUNK && self.ended.is_none();
        let wanted = [
            (self.socket.as_fd(), room, PollFlags::POLLIN),
            (self.signals.as_fd(), true, PollFlags::POLLIN),
            (stdin.as_fd(), read, PollFlags::POLLIN),
            (
                self.out.fd(),
                !self.out.queue.is_empty(),
                PollFlags::POLLOUT,
            ),
            (
                self.err.fd(),
                !self.err.queue.is_empty(),
                PollFlags::POLLOUT,
            ),
        ];
        let chosen: Vec<usize> = (0..5).filter(|i| wanted[*i].1).collect();
        let fd = |i: &usize| PollFd::new(wanted[*i].0, when(wanted[*i].1, wanted[*i].2));
        let mut fds: Vec<PollFd> = chosen.iter().map(fd).collect();
        let mut ready = [PollFlags::empty(); 5];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(ready),
            result => result.context("waiting for the container")?,
        };
        for (i, fd) in chosen.iter().zip(&fds) {
            ready[*i] = fd.revents().unwrap_or(PollFlags::empty());
        }
        Ok(ready)
    }

    fn send(&self, frame: &Frame<'_>) {
        // A supervisor that is gone is noticed where frames are received.
        let _ = send(
            self.socket.as_raw_fd(),
            &frame.encode(),
            MsgFlags::MSG_NOSIGNAL,
        );
    }

    fn send_size(&self) {
        if let Some(size) = terminal::size().filter(|_| self.how.tty) {
            self.send(&Frame::Resize {
                rows: size.rows,
                columns: size.columns,
            });
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            let gives_up = Signal::try_from(number).is_ok_and(|s| self.gives_up(s));
            match (Signal::try_from(number), &self.raw) {
                (Ok(Signal::SIGWINCH), _) => self.send_size(),
                (Ok(Signal::SIGTSTP), Some(raw)) => {
                    raw.suspend();
                    let _ = raise(Signal::SIGSTOP);
                    let _ = raw.resume();
                    self.send_size();
                }
                (Ok(Signal::SIGCONT), Some(raw)) => {
                    let _ = raw.resume();
                    self.send_size();
                }
                _ if !self.how.sig_proxy || gives_up => {
                    let code = u8::try_from(128 + number).unwrap_or(u8::MAX);
                    self.ended = Some(match self.ended {
                        None => Ended::Left(code),
                        Some(_) => Ended::Exited(code.into(), String::new()),
                    });
                    self.out.queue.clear();
                    self.err.queue.clear();
                }
                (Ok(Signal::SIGHUP), _) => {
                    // The terminal is gone; the container decides what that means to it.
                    self.send(&Frame::Signal(libc::SIGHUP));
                    if self.how.tty {
                        self.send(&Frame::Detach);
                        self.ended = Some(Ended::Detached);
                    }
                }
                _ => self.send(&Frame::Signal(number)),
            }
        }
    }

    /// Whether a signal ends the client, with output that nobody takes still to be written: the container has ended, or
    /// was asked to before.
    fn gives_up(&mut self, signal: Signal) -> bool {
        use Signal as S;
        if !matches!(signal, S::SIGINT | S::SIGTERM | S::SIGQUIT | S::SIGHUP) {
            return false;
        }
        let stuck = self.out.queue.len() + self.err.queue.len() >= ENOUGH;
        let before = std::mem::replace(&mut self.insisted, stuck);
        self.ended.is_some() || before && stuck
    }

    /// Reads standard input once; true when the user asked to detach.
    fn read_input(&mut self) -> bool {
        let mut buffer = [0; CHUNK];
        let n = match read(io::stdin(), &mut buffer) {
            Ok(n) => n,
            Err(Errno::EINTR | Errno::EAGAIN) => return false,
            Err(_) => 0,
        };
        if n == 0 {
            self.reading = false;
            self.send(&Frame::StdinEof);
            return false;
        }
        if self.raw.is_none() {
            self.window -= n;
            self.send(&Frame::Stdin(&buffer[..n]));
            return false;
        }
        let (typed, detach) = self.how.keys.feed(&buffer[..n]);
        if !typed.is_empty() {
            self.window = self.window.saturating_sub(typed.len());
            self.send(&Frame::Stdin(&typed));
        }
        detach
    }

    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; FRAME];
        let n = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            // Reset: it ended with input of ours unread; told once, and before its last frames.
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ECONNRESET) => return Ok(()),
            Ok(0) | Err(_) => return Err(supervisor_died()),
            Ok(n) => n,
        };
        match Frame::decode(&buffer[..n]) {
            Some(Frame::Started) => self.started = true,
            Some(Frame::Stdout(_)) if !self.how.streams.out => {}
            Some(Frame::Stderr(_)) if !self.how.streams.err => {}
            Some(Frame::Stdout(bytes)) => self.out.push(bytes),
            Some(Frame::Stderr(bytes)) => self.err.push(bytes),
            Some(Frame::StdinAck(n)) => self.window += n as usize,
            Some(Frame::Notice(text)) if self.raw.is_some() => {
                self.err.push(text.replace('\n', "\r\n").as_bytes());
            }
            Some(Frame::Notice(text)) => self.err.push(text.as_bytes()),
            Some(Frame::Exit { .. }) if self.how.session && !self.started => {
                let e = improper();
                let code = e.kind().exit_code();
                self.ended = Some(Ended::NotStarted(code, report(&e.into())));
            }
            Some(Frame::Exit { code, note }) => {
                self.ended = Some(Ended::Exited(code, note.to_owned()));
            }
            Some(Frame::Error { code, text }) => {
                self.ended = Some(Ended::NotStarted(code, text.to_owned()));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_control_stays_with_the_caller_and_the_rest_is_proxied() {
        for signal in [
            Signal::SIGTSTP,
            Signal::SIGTTIN,
            Signal::SIGCONT,
            Signal::SIGPIPE,
        ] {
            assert!(not_proxied(signal), "{signal}");
        }
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGALRM,
        ] {
            assert!(!not_proxied(signal), "{signal}");
        }
    }
}
