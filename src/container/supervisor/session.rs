//! The supervisor of one exec session: the role [`ROLE`] of this program.
//!
//! The container's supervisor has threads and serves the container's page faults, so it starts this process
//! anew ([`super::sessions`]) in its own control-group leaf, hands it the client's connection, a pidfd of the container and what was asked for over
//! its standard input, and only keeps it in mind to collect it. This process joins nothing itself: it has a
//! child do so ([`crate::runtime::join`]), and then carries bytes between that and the client like the
//! container's supervisor does.
//!
//! When it dies its process is killed (parent-death signal); when the container ends, the kernel ends the
//! process. When the client dies, the process goes on and what it writes goes nowhere.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use super::clients::Client;
use super::streams::{PIPE_MOST, Piece, Streams};
use super::{Stream, exit_code, output_frame, prepare};
use crate::cgroup::Scope;
use crate::container::env::Env;
use crate::container::exec::{Session, WANTS_FDS};
use crate::container::protocol::{CHUNK, FRAME, Frame};
use crate::container::spec::{HOME_ANNOTATION, caps};
use crate::container::user;
use crate::error::{self, Fault, Kind, Result, ResultExt, failed};
use crate::runtime::fakeid::serve_too;
use crate::runtime::idmap::{IdRange, Mapping, Rung};
use crate::runtime::{Accounts, Init, Join, join};
use crate::store::files::read_json;
use crate::sys::file::{duplicate_from, receive_message};
use crate::sys::supervise::{fork, pidfd_kill};
use crate::sys::tty::WindowSize;
use crate::trace;

/// Name under which this program is started again as a session's supervisor.
pub const ROLE: &str = "rless-exec";
/// How long the client may take to send a descriptor it has announced.
const PATIENCE: u16 = 10_000;

/// What the container's supervisor says; the descriptors come beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The container's configuration file.
    pub(super) config: PathBuf,
    /// Its control group.
    pub(super) scope: Option<Scope>,
    /// Compiled filters.
    pub(super) seccomp_cache: PathBuf,
    /// Single-id mode.
    pub(super) emulate_ids: bool,
    /// What to execute.
    pub(super) session: Session,
}

/// What comes over the role's standard input, each with a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Given {
    /// The client's connection.
    Client = b'c',
    /// pidfd of a process in all of the container's namespaces.
    Target = b't',
    /// The id agent's socket.
    Agent = b'a',
    /// The [`Order`], as JSON.
    Order = b'o',
}

/// The role: from its start to the end of the session; the exit code is what the container's supervisor tells of it.
///
/// # Errors
/// It was not started by a supervisor.
pub fn role() -> Result<u8> {
    trace::mark("session");
    // The container must not look into a process that has a descriptor of the host.
    prctl::set_dumpable(false).context("closing the process to others")?;
    let _ = prctl::set_name(c"rless-exec");
    let input = duplicate_from(std::io::stdin(), 3).context("taking the order")?;
    let signals = prepare()?;
    let given = Things::receive(&input)?;
    drop(input);
    let mut client = Client::new(given.client, true);
    let order: Result<Order> = read_order(given.order);
    let order = match order {
        Ok(order) => order,
        Err(e) => return Ok(refuse(&mut client, &e)),
    };
    match start(&order, &mut client, given.target.as_fd(), given.agent) {
        Ok((init, streams)) => {
            client.push(&Frame::Started);
            let mut live = Live {
                client,
                signals,
                pidfd: init.pidfd(),
                group: order.session.signals_group.then(|| init.pid()),
                streams,
                input_ended: false,
            };
            live.run();
            let code = exit_code(init.pid());
            live.end(code, order.scope.as_ref());
            Ok(u8::try_from(code).unwrap_or(255))
        }
        Err(e) => Ok(refuse(&mut client, &e)),
    }
}

/// What was given.
struct Things {
    client: OwnedFd,
    target: OwnedFd,
    agent: Option<OwnedFd>,
    order: OwnedFd,
}

impl Things {
    fn receive(input: &OwnedFd) -> Result<Things> {
        let (mut client, mut target, mut agent, mut order) = (None, None, None, None);
        while let Some((text, fd)) = receive_message(input, 1).context("taking the order")? {
            match text.first() {
                Some(&b) if b == Given::Client as u8 => client = fd,
                Some(&b) if b == Given::Target as u8 => target = fd,
                Some(&b) if b == Given::Agent as u8 => agent = fd,
                Some(&b) if b == Given::Order as u8 => order = fd,
                _ => {}
            }
        }
        match (client, target, order) {
            (Some(client), Some(target), Some(order)) => Ok(Things {
                client,
                target,
                agent,
                order,
            }),
            _ => Err(failed(format!(
                "{ROLE} is started by a container's supervisor only"
            ))
            .into()),
        }
    }
}

fn read_order(fd: OwnedFd) -> Result<Order> {
    use std::io::Seek;
    let mut file = std::fs::File::from(fd);
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .context("reading what to execute")?;
    serde_json::from_slice(&bytes).context("reading what to execute")
}

/// Tells the client why there is no session.
fn refuse(client: &mut Client, e: &anyhow::Error) -> u8 {
    let code = error::kind(e).exit_code();
    let text = error::report(e);
    client.push(&Frame::Error { code, text: &text });
    code
}

/// From the order to the executed command.
fn start(
    order: &Order,
    client: &mut Client,
    target: BorrowedFd<'_>,
    agent: Option<OwnedFd>,
) -> Result<(Init, Streams)> {
    let session = &order.session;
    let extra_fds = wanted_descriptors(client, session.preserve_fds)?;
    let spec: Spec = read_json(&order.config)
        .fault(|| failed("reading the container's configuration"))?
        .ok_or_else(|| failed("the container has no configuration"))?;
    let mapping = mapping(&spec, order.emulate_ids);
    let settle = |accounts: &Accounts| process(&spec, session, accounts, &mapping);
    let (stdio, mut streams) = match session.tty || session.detach {
        true => Streams::none()?,
        false => Streams::pipes(session.interactive)?,
    };
    let size = session.size.unwrap_or((24, 80));
    let plan = Join {
        spec: &spec,
        target,
        cgroup: order.scope.as_ref().map(Scope::container),
        mapping: &mapping,
        terminal: session.tty.then_some(WindowSize {
            rows: size.0,
            columns: size.1,
        }),
        stdio,
        extra_fds,
        seccomp_cache: Some(order.seccomp_cache.clone()),
        emulate_ids: order.emulate_ids,
        settle: &settle,
    };
    let mut init = join(&plan)?;
    drop(plan); // and with it our copies of the process's ends of its pipes
    trace::mark("joined");
    if session.tty {
        let pty = init.recv_pty()?;
        streams.set_terminal(pty)?;
    }
    if let Some(agent) = agent.filter(|_| order.emulate_ids) {
        let (listener, start) = init.recv_joined_listener()?;
        serve_too(&agent, &listener, &start)?;
    }
    init.wait_exec()?;
    trace::mark("session executed");
    Ok((init, streams))
}

/// Asks the client for the descriptors it has announced.
fn wanted_descriptors(client: &mut Client, count: u16) -> Result<Vec<OwnedFd>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    client.push(&Frame::Notice(WANTS_FDS));
    let lost = || failed("the descriptors to be preserved did not come");
    let mut all = Vec::new();
    while all.len() < usize::from(count) {
        let mut fds = [PollFd::new(client.fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(PATIENCE)) {
            Err(Errno::EINTR) => continue,
            Ok(1) => {}
            _ => return Err(lost().into()),
        }
        let message = receive_message(client.fd(), FRAME).context("taking descriptors")?;
        let (_, fd) = message.ok_or_else(lost)?;
        all.extend(fd);
    }
    Ok(all)
}

/// The container's id maps, as its configuration has them.
pub(in crate::container) fn mapping(spec: &Spec, single: bool) -> Mapping {
    let linux = spec.linux().as_ref();
    let lines = |list: Option<&Vec<oci_spec::runtime::LinuxIdMapping>>| {
        let list = list.into_iter().flatten();
        list.map(|m| IdRange {
            container: m.container_id(),
            host: m.host_id(),
            count: m.size(),
        })
        .collect()
    };
    Mapping {
        uids: lines(linux.and_then(|l| l.uid_mappings().as_ref())),
        gids: lines(linux.and_then(|l| l.gid_mappings().as_ref())),
        rung: if single { Rung::SingleId } else { Rung::Direct },
        reason: String::new(),
    }
}

/// What is executed: the container's process with what the session changes. Pure.
fn process(
    spec: &Spec,
    session: &Session,
    accounts: &Accounts,
    mapping: &Mapping,
) -> Result<Process> {
    let mut process = spec
        .process()
        .clone()
        .ok_or_else(|| failed("the container's configuration has no process"))?;
    let mut env = Env::default();
    env.set_image(process.env().as_deref().unwrap_or_default());
    if !session.tty && process.terminal() != Some(true) && env.get("TERM") == Some("xterm") {
        env.remove("TERM"); // a default of ours that is for terminals
    }
    if session.tty {
        env.set_default("TERM", "xterm");
    }
    if let Some(form) = &session.user {
        let home = take_user(&mut process, form, accounts, mapping)?;
        if !home_was_asked_for(spec) {
            env.set("HOME", &home);
        }
    }
    env.set_image(&session.env);
    env.set_default("HOME", "/");
    let uid = process.user().uid();
    if session.privileged {
        process.set_capabilities(Some(caps::sets(&caps::all(), uid)));
    } else {
        let held = process.capabilities().as_ref();
        let bounding = held.and_then(|c| c.bounding().clone()).unwrap_or_default();
        process.set_capabilities(Some(caps::sets(&bounding, uid)));
    }
    process.set_env(Some(env.into_strings()));
    process.set_args(Some(session.command.clone()));
    process.set_terminal(Some(session.tty));
    if let Some(dir) = &session.workdir {
        process.set_cwd(PathBuf::from(dir));
    }
    if !Path::new(process.cwd()).is_absolute() {
        let text = format!("entering the working directory {}", process.cwd().display());
        let fault = Fault::new(
            Kind::CommandNotFound,
            format!("{text}: not an absolute path"),
        );
        return Err(fault.into());
    }
    Ok(process)
}

/// Who the session asks to be; the home directory.
fn take_user(
    process: &mut Process,
    form: &str,
    accounts: &Accounts,
    mapping: &Mapping,
) -> Result<String> {
    // Somebody who runs as plain numbers need not fail for a strange file.
    let needed = form.bytes().any(|b| !b.is_ascii_digit() && b != b':');
    let text = |file: &Result<Option<String>, String>| match file {
        Ok(text) => Ok(text.clone().unwrap_or_default()),
        Err(why) if needed => Err(Fault::new(
            Kind::NoSession,
            format!("looking up the user {form}: the container's {why}"),
        )),
        Err(_) => Ok(String::new()),
    };
    let (passwd, group) = (text(&accounts.passwd)?, text(&accounts.group)?);
    let no_session = |e: anyhow::Error| {
        let report = error::report(&e);
        let report = report.split_once(": ").map_or(report.as_str(), |(_, t)| t);
        anyhow::Error::from(Fault::new(Kind::NoSession, report))
    };
    let found = user::resolve(form, &[], &passwd, &group).map_err(no_session)?;
    if mapping.rung != Rung::SingleId
        && (mapping.host_uid(found.uid).is_none() || mapping.host_gid(found.gid).is_none())
    {
        return Err(Fault::new(
            Kind::NoSession,
            format!(
                "user {}:{} is outside the ids this container has",
                found.uid, found.gid
            ),
        )
        .into());
    }
    let mut user = process.user().clone();
    user.set_uid(found.uid);
    user.set_gid(found.gid);
    user.set_additional_gids(Some(found.groups));
    process.set_user(user);
    Ok(found.home)
}

fn home_was_asked_for(spec: &Spec) -> bool {
    let all = spec.annotations().as_ref();
    all.is_some_and(|all| all.contains_key(HOME_ANNOTATION))
}

/// A session under way.
struct Live<'a> {
    client: Client,
    signals: SignalFd,
    pidfd: BorrowedFd<'a>,
    /// Its process group, if signals are for that: it leads one, and is ours to collect.
    group: Option<Pid>,
    streams: Streams,
    input_ended: bool,
}

impl Live<'_> {
    /// Runs until the process has ended and what it wrote was read.
    fn run(&mut self) {
        while !self.turn() {}
        // What it wrote before it ended is in the pipe; others that have the pipe may write for ever.
        for stream in [Stream::Out, Stream::Err] {
            let mut pieces = PIPE_MOST / CHUNK;
            while pieces > 0 && !self.client.gone() && self.read_output(stream) {
                pieces -= 1;
            }
        }
    }

    /// Tells the client, and waits until it has taken everything, in a process of its own if that does not go at once.
    fn end(mut self, code: i32, scope: Option<&Scope>) {
        self.client.push(&Frame::Exit { code, note: "" });
        if self.client.waiting() && !self.client.gone() {
            // Who reads slowly must hold up neither the container's control group nor its supervisor, which waits for us and tells
            // the end: another process stays with him.
            let _ = scope.map(Scope::step_back);
            if let Ok(Some(_)) = fork() {
                return;
            }
        }
        let mut buffer = [0; FRAME];
        while self.client.waiting() && !self.client.gone() {
            let flags = PollFlags::POLLIN | PollFlags::POLLOUT;
            let mut fds = [PollFd::new(self.client.fd(), flags)];
            if poll(&mut fds, PollTimeout::NONE).is_ok() {
                self.client.flush();
                while self.client.receive(&mut buffer).is_some() {}
            }
        }
    }

    /// One poll and what came of it; true when the process has ended.
    fn turn(&mut self) -> bool {
        let [ended, signals, client, input, pty, out, err] = self.wait();
        if !signals.is_empty() {
            self.own_signal();
        }
        if client.contains(PollFlags::POLLOUT) {
            self.client.flush();
        }
        if client.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.client_event();
        }
        if !input.is_empty() {
            self.write_input(input);
        }
        if pty.contains(PollFlags::POLLOUT) {
            self.write_input(PollFlags::POLLOUT);
        }
        if pty.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.read_output(Stream::Out);
        }
        if !out.is_empty() {
            self.read_output(Stream::Out);
        }
        if !err.is_empty() {
            self.read_output(Stream::Err);
        }
        if self.client.gone() && !self.input_ended {
            self.input_ended = true;
            self.write_input(PollFlags::POLLOUT);
        }
        !ended.is_empty()
    }

    /// What is ready of: process, signals, client, standard input, terminal, standard output and error.
    fn wait(&self) -> [PollFlags; 7] {
        let held = self.client.holds_back() && !self.client.gone();
        let writes = if self.streams.writes() {
            PollFlags::POLLOUT
        } else {
            PollFlags::empty()
        };
        let reads = if held {
            PollFlags::empty()
        } else {
            PollFlags::POLLIN
        };
        let talks = if self.client.waiting() {
            PollFlags::POLLIN | PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        };
        let all: [Option<(BorrowedFd<'_>, PollFlags)>; 7] = [
            Some((self.pidfd, PollFlags::POLLIN)),
            Some((self.signals.as_fd(), PollFlags::POLLIN)),
            (!self.client.gone()).then(|| (self.client.fd(), talks)),
            self.streams.input.as_ref().map(|fd| (fd.as_fd(), writes)),
            self.streams
                .pty
                .as_ref()
                .map(|fd| (fd.as_fd(), reads | writes))
                .filter(|(_, flags)| !flags.is_empty()),
            self.streams
                .output
                .as_ref()
                .filter(|_| !held)
                .map(|fd| (fd.as_fd(), PollFlags::POLLIN)),
            self.streams
                .errors
                .as_ref()
                .filter(|_| !held)
                .map(|fd| (fd.as_fd(), PollFlags::POLLIN)),
        ];
        let mut ready = [PollFlags::empty(); 7];
        let chosen: Vec<usize> = (0..all.len()).filter(|i| all[*i].is_some()).collect();
        let mut fds: Vec<PollFd> = all
            .iter()
            .flatten()
            .map(|(fd, flags)| PollFd::new(*fd, *flags))
            .collect();
        if poll(&mut fds, PollTimeout::NONE).is_ok() {
            for (i, fd) in chosen.iter().zip(&fds) {
                ready[*i] = fd.revents().unwrap_or(PollFlags::empty());
            }
        }
        ready
    }

    /// A signal sent to us is meant for the process: a scope or a host that stops.
    fn own_signal(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).unwrap_or(libc::SIGTERM);
            if signal != libc::SIGHUP && signal != libc::SIGCHLD {
                let _ = pidfd_kill(self.pidfd, signal);
            }
        }
    }

    fn client_event(&mut self) {
        let mut buffer = [0; FRAME];
        while let Some(n) = self.client.receive(&mut buffer) {
            match Frame::decode(&buffer[..n]) {
                Some(Frame::Stdin(bytes)) => {
                    self.streams.put(bytes);
                    self.write_input(PollFlags::POLLOUT);
                    let n = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    if self.streams.hungry() {
                        self.client.push(&Frame::StdinAck(n));
                    } else {
                        self.client.owe(n);
                    }
                }
                Some(Frame::StdinEof) => {
                    self.input_ended = true;
                    self.write_input(PollFlags::POLLOUT);
                }
                Some(Frame::Resize { rows, columns }) => self.streams.resize(rows, columns),
                Some(Frame::Signal(n)) => {
                    if let Some(group) = self.group {
                        let _ = killpg(group, Signal::try_from(n).ok());
                    }
                    let _ = pidfd_kill(self.pidfd, n);
                }
                Some(Frame::Detach) => self.client.leave(),
                Some(Frame::OutputClosed(stream)) => self.streams.close(stream),
                _ => {}
            }
        }
    }

    fn write_input(&mut self, flags: PollFlags) {
        self.streams.write(flags, self.input_ended);
        if self.streams.hungry() {
            self.client.settle();
        }
    }

    /// Reads one piece of an output; false when there is nothing to read.
    fn read_output(&mut self, stream: Stream) -> bool {
        let mut buffer = [0; CHUNK];
        match self.streams.read(stream, &mut buffer) {
            Piece::Bytes(n) => self.client.push(&output_frame(stream, &buffer[..n])),
            other => return other == Piece::Again,
        }
        true
    }
}
