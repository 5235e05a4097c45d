//! The supervisor: one process per container, from before its first process until after its last.
//!
//! [`launch`] forks it from the command that starts the container, before any thread exists. It
//! leaves the caller's session and terminal, keeps the container's lock, and then:
//!
//! 1. joins its control-group leaf, clones init, has the id maps written, lets init begin;
//! 2. while init mounts: starts pasta, serves the FUSE descriptor that init hands back;
//! 3. releases init when the network is up, hears that the command was executed, writes the record;
//! 4. relays (`relay.rs`) until init has ended;
//! 5. takes everything down; a restart policy begins again at 1 (`again.rs`);
//! 6. writes the exit record (or removes the container), tells its clients.
//!
//! Nothing here knows whether anyone is attached: a detached container is one without a first
//! client. A failure on the way takes down what was there and is told as an `Error` frame.
//!
//! Killed at any point, the supervisor takes the container with it (init's parent-death signal, and
//! pasta's), its lock is freed, and the next command clears the rest ([`super::record`]).

mod again;
mod answer;
mod clients;
mod front;
mod health;
mod log;
mod relay;
pub mod session;
mod sessions;
mod strays;
mod streams;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use nix::poll::PollFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde_json::Value as Json;

use self::clients::Client;
use self::front::Front;
use self::health::Checks;
use self::log::Log;
use self::relay::Relay;
use self::sessions::Sessions;
use self::strays::Strays;
use self::streams::Streams;
use super::descriptors::Descriptors;
use super::events::{self, Action, Event};
use super::logs::Driver;
use super::notify::Notify;
use super::protocol::Frame;
use super::record::{Containers, Place, Record, State};
use super::restart::Restart;
use super::{host, image, shared};
use crate::cgroup::{Availability, Limits, Scope, ScopeRequest};
use crate::cow::{self, Cow, Server};
use crate::error::{self, Result};
use crate::network::{Pasta, PastaConfig, Target, pasta};
use crate::runtime::fakeid::{Agent, Start};
use crate::runtime::idmap::Mapping;
use crate::runtime::{self, Init, Plan};
use crate::store::files::{self, Lock};
use crate::sys::file::{duplicate_from, read_proc};
use crate::sys::process;
use crate::sys::supervise::{self, pidfd_kill};
use crate::sys::tty::WindowSize;
use crate::trace;

pub use self::clients::{PATIENCE, connect, listening};
pub use self::log::Stream;

/// Everything a supervisor needs; nothing is looked up again.
#[derive(Debug)]
pub struct Job {
    /// The store's containers.
    pub containers: Containers,
    /// This one's directories.
    pub place: Place,
    /// Its record, in state `Starting`.
    pub record: Record,
    /// Its configuration.
    pub spec: Spec,
    /// Its id maps.
    pub mapping: Mapping,
    /// Its root file system, open; `None` only while a restart policy waits.
    pub cow: Option<Cow>,
    /// How to open it again.
    pub root: cow::Options,
    /// Its network, if pasta makes it.
    pub pasta: Option<PastaConfig>,
    /// The container whose namespaces it shares.
    pub shares: Option<String>,
    /// Its standard streams, where they are those of the process that started it (`--log-driver passthrough`).
    pub passed: Option<[OwnedFd; 3]>,
    /// More descriptors of that process.
    pub descriptors: Descriptors,
    /// The service manager that is to hear of it.
    pub notify: Option<Notify>,
    /// What control groups this host has.
    pub cgroups: Availability,
    /// Limits of its control group.
    pub limits: Limits,
    /// Size of its terminal, if it has one.
    pub terminal: Option<WindowSize>,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// Its standard input is open.
    pub interactive: bool,
    /// Standard input ends when the first client does.
    pub input_once: bool,
    /// The first client stays attached, which is told once, with the first start.
    pub attached: bool,
    /// PID 1 is our reaper.
    pub init: bool,
    /// Report ownership calls (single-id mode).
    pub emulate_ids: bool,
    /// Compiled seccomp filters.
    pub seccomp_cache: PathBuf,
    /// Its record to go back to when not even a supervisor can be had; `None`: it goes then.
    pub before: Option<Box<Record>>,
    /// Held until the container has ended: the last to be dropped, since who waits for it opens the file system next.
    pub lock: Lock,
}

/// Forks the supervisor for `job` and returns the first client's connection to it, and its PID: a
/// foreground caller collects it, so that nothing of the container is left when it returns.
///
/// # Errors
/// No process or socket left, or this process has threads. The container is as before then, or gone if it was to be made.
pub fn launch(job: Job) -> Result<(OwnedFd, Pid)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
    trace::mark("fork");
    let forked = pair
        .context("making the supervisor's socket")
        .and_then(|pair| Ok((pair, supervise::fork().context("forking the supervisor")?)));
    let ((ours, theirs), pid) = match forked {
        Ok(forked) => forked,
        Err(e) => {
            take_back(&job);
            return Err(e);
        }
    };
    match pid {
        Some(pid) => {
            // The file system is the child's now; here it must not even be closed in order.
            std::mem::forget(job.cow);
            Ok((ours, pid))
        }
        None => {
            drop(ours);
            // Destructors have run when this returns: locks are free, files closed.
            supervise(job, theirs);
            std::process::exit(0)
        }
    }
}

/// `-e PASSWORD=…` is nobody else's business for as long as the container lives: what is seen of the supervisor's
/// command line is the program's name and the container's.
fn hide_arguments(id: &str) -> Result<()> {
    let stat = read_proc("/proc/self/stat").context("reading /proc/self/stat")?;
    let program = std::env::args_os().next().unwrap_or_default();
    let title = format!("{}\0supervise\0{id}", program.to_string_lossy());
    process::hide_arguments(&stat, &title, false);
    Ok(())
}

/// Nobody supervises it, and its lock is still held.
fn take_back(job: &Job) {
    let undone = match &job.before {
        Some(before) => job.place.replace(before),
        None => job.containers.discard(&job.record.id),
    };
    if let Err(e) = undone {
        // The next command finds nobody alive.
        trace::mark(&format!("taking back: {e:#}"));
    }
    let _ = std::fs::remove_dir_all(&job.place.live);
}

fn supervise(mut job: Job, client: OwnedFd) {
    trace::mark("supervisor");
    let client = Client::new(client, true);
    let ready = passed(&job).and_then(|passed| {
        hide_arguments(&job.record.id)?;
        let signals = prepare()?;
        let log = Log::open(&job.place.dir, &job.record)?;
        // Without it nobody could stop the container but by force.
        let listener = clients::listen(&job.place.live).context("making the attach socket")?;
        Ok((passed, signals, log, listener))
    });
    let (signals, log, listener) = match ready {
        Ok((passed, signals, log, listener)) => {
            job.passed = passed;
            (signals, log, listener)
        }
        Err(e) => return fail(job, client, &e),
    };
    let mut front = Front::new(&job, client, signals, log, listener);
    let mut scope = None;
    let first = start(&job, &mut scope);
    if job.record.restart == Restart::No {
        job.descriptors = Descriptors::default();
    }
    let ended = first.map(|running| live(&mut job, &mut front, running, scope.as_ref()));
    let ended = ended.map(|ended| again::repeat(&mut job, &mut front, &mut scope, ended));
    if let Some(scope) = scope {
        scope.remove();
    }
    let end = match ended {
        Ok(end) => end,
        Err(e) => return fail(job, front.clients.swap_remove(0), &e),
    };
    trace::mark("taken down");
    job.record.state = State::Exited;
    (job.record.init, job.record.supervisor) = (None, None);
    front.busy(!job.record.auto_remove, || settle(&mut job, !end.told));
    let note = if end.oom { "killed: out of memory" } else { "" };
    front.tell_end(end.code, note);
    trace::mark("told");
    // The container is over: who waits for its lock need not wait for a slow reader.
    drop(job);
    front.drain();
}

/// The caller's standard streams, if they are to be the container's.
fn passed(job: &Job) -> Result<Option<[OwnedFd; 3]>> {
    if job.record.log.driver != Driver::Passthrough {
        return Ok(None);
    }
    if let Some(passed) = &job.passed {
        return again_passed(passed).map(Some);
    }
    let take =
        |fd: BorrowedFd<'_>| duplicate_from(fd, 3).context("passing the standard streams on");
    let input = std::io::stdin();
    let nothing = std::fs::File::open("/dev/null").context("opening /dev/null")?;
    Ok(Some([
        take(if job.interactive {
            input.as_fd()
        } else {
            nothing.as_fd()
        })?,
        take(std::io::stdout().as_fd())?,
        take(std::io::stderr().as_fd())?,
    ]))
}

/// A copy for one run of the container.
fn again_passed(passed: &[OwnedFd; 3]) -> Result<[OwnedFd; 3]> {
    let [input, output, errors] = passed;
    let copy = |fd: &OwnedFd| fd.try_clone().context("passing the standard streams on");
    Ok([copy(input)?, copy(output)?, copy(errors)?])
}

/// Leaves the caller's world: session, directory, standard streams, leaked descriptors.
fn prepare() -> Result<SignalFd> {
    let _ = nix::unistd::setsid();
    nix::unistd::chdir("/").context("changing to /")?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null");
    let null = null.context("opening /dev/null")?;
    nix::unistd::dup2_stdin(&null)
        .and_then(|()| nix::unistd::dup2_stdout(&null))
        .and_then(|()| nix::unistd::dup2_stderr(&null))
        .context("leaving the caller's standard streams")?;
    supervise::close_leaked().context("closing inherited descriptors")?;
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGCHLD,
    ] {
        set.add(signal);
    }
    set.thread_block().context("blocking signals")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    SignalFd::with_flags(&set, flags).context("making a signal descriptor")
}

/// What is up while a container runs, in the order in which it came up.
#[derive(Debug, Default)]
struct Running {
    agent: Option<Agent>,
    init: Option<Init>,
    pasta: Option<Pasta>,
    server: Option<Server>,
    streams: Streams,
}

impl Running {
    /// Ends everything, last first; what fails on the way does not stop the rest.
    ///
    /// `keep`: the container's changes will be needed, so they are made durable.
    ///
    /// # Errors
    /// They could not be.
    fn take_down(&mut self, keep: bool) -> Result<()> {
        if let Some(init) = self.init.take() {
            let _ = pidfd_kill(init.pidfd(), libc::SIGKILL);
            let _ = waitpid(init.pid(), None);
        }
        if let Some(agent) = self.agent.take() {
            agent.reap();
        }
        if let Some(mut pasta) = self.pasta.take() {
            pasta.stop();
        }
        match self.server.take() {
            Some(server) if keep => server.stop(),
            Some(server) => {
                let _ = server.discard();
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Starts the container; on an error nothing of it is left but the scope. One that is there already is used again.
fn start(job: &Job, scope: &mut Option<Scope>) -> Result<Running> {
    let mut running = Running::default();
    match bring_up(job, &mut running, scope) {
        Ok(()) => Ok(running),
        Err(e) => {
            let _ = running.take_down(!job.record.auto_remove);
            Err(e)
        }
    }
}

fn bring_up(job: &Job, running: &mut Running, scope: &mut Option<Scope>) -> Result<()> {
    let cow = job.cow.as_ref().context("its file system is not open")?;
    match scope {
        Some(scope) => scope.renew(&job.limits)?,
        None => *scope = make_scope(job)?,
    }
    trace::mark("scope");
    if job.emulate_ids {
        running.agent = Some(Agent::fork()?);
    }
    let (theirs, ours) = match (&job.passed, job.terminal) {
        (Some(passed), _) => (again_passed(passed)?, Streams::default()),
        (None, Some(_)) => Streams::none()?,
        (None, None) => Streams::pipes(job.interactive)?,
    };
    running.streams = ours;
    let (within, shm) = another(job)?;
    let mut spec = job.spec.clone();
    let extra_fds = job.descriptors.hand_out(&mut spec, job.init)?;
    let plan = Plan {
        spec,
        root: runtime::Root::Fuse,
        terminal: job.terminal,
        stdio: Some(theirs),
        extra_fds,
        wait_release: job.pasta.is_some(),
        mapping: job.mapping.clone(),
        init: job.init,
        seccomp_cache: Some(job.seccomp_cache.clone()),
        emulate_ids: job.emulate_ids,
        within,
        shm,
    };
    let init = running.init.insert(runtime::spawn(&plan)?);
    drop(plan); // and with it our copies of the container's ends of its pipes
    trace::mark("cloned");
    init.write_maps()?;
    if let Some(agent) = &running.agent {
        agent.meet(init.pid())?;
    }
    if let Some(scope) = scope {
        scope.add_init(init.pid().as_raw())?;
    }
    init.begin()?;
    trace::mark("begun");
    if let Some(config) = &job.pasta {
        let target = Target::Pid(init.pid().as_raw());
        running.pasta = Some(pasta::start(config, &target)?);
        trace::mark("pasta started");
    }
    let fuse = init.recv_fuse()?;
    running.server = Some(cow.serve(fuse)?);
    trace::mark("serving");
    if job.terminal.is_some() {
        let pty = init.recv_pty()?;
        running.streams.set_terminal(pty)?;
    }
    if let Some(pasta) = running.pasta.as_mut() {
        pasta.wait_ready()?;
        trace::mark("pasta ready");
        init.release()?;
    }
    if let Some(agent) = &running.agent {
        agent.serve(&init.recv_listener()?, &emulation_start(job, init.pid()))?;
    }
    init.wait_exec()?;
    trace::mark("executed");
    Ok(())
}

/// A process in the namespaces of the container with which this one shares some, and a copy of its /dev/shm if it is to have that.
fn another(job: &Job) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    let Some(id) = &job.shares else {
        return Ok((None, None));
    };
    let target = shared::target(&job.containers, id)?;
    let shm = shared::joins(&job.spec, LinuxNamespaceType::Ipc);
    let shm = shm.then(|| runtime::shared_memory(target.as_fd()));
    Ok((Some(target), shm.transpose()?))
}

fn make_scope(job: &Job) -> Result<Option<Scope>> {
    let request = ScopeRequest {
        id: &job.record.id,
        description: &format!("rless container {}", job.record.name),
        slice: None,
        limits: &job.limits,
    };
    Scope::create(&job.cgroups, &request)
}

/// As whom the emulation of ids starts.
fn emulation_start(job: &Job, init: Pid) -> Start {
    let user = job
        .spec
        .process()
        .as_ref()
        .map(|p| p.user().clone())
        .unwrap_or_default();
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    if !groups.contains(&user.gid()) {
        groups.insert(0, user.gid());
    }
    Start {
        init,
        uid: user.uid(),
        gid: user.gid(),
        groups,
    }
}

/// How a run of the container ended.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Exit code, 128+n for a signal.
    code: i32,
    /// The kernel killed it for want of memory.
    oom: bool,
    /// How long it ran, whatever was done to the clock on the wall.
    ran: Duration,
    /// Its event is out.
    told: bool,
}

/// One run of the container, from the first instruction of its command until everything of it is taken down.
fn live(job: &mut Job, front: &mut Front, mut running: Running, scope: Option<&Scope>) -> End {
    let Some(init) = running.init.take() else {
        return End {
            code: 137,
            oom: false,
            ran: Duration::ZERO,
            told: false,
        };
    };
    let start = Instant::now();
    let pasta = running.pasta.take();
    if let Some(plan) = &job.record.healthcheck {
        job.record.health.begin(plan);
        job.record.health.write(&job.place, plan);
    }
    let checks = Checks::new(job.record.healthcheck.as_ref(), &job.record.health);
    // Clients learn of it when the record says so: `run -d; ps` must show a running container.
    let helper = pasta.as_ref().and_then(Pasta::pid);
    front.flush = record_start(job, init.pid(), helper, scope);
    // In one write, of who tells the end: a command that is over at once is attached to before.
    let mut began = vec![Action::Init, Action::Start];
    began.extend(std::mem::take(&mut job.attached).then_some(Action::Attach));
    let began = began.into_iter().map(|a| Event::container(&job.record, a));
    let began: Vec<Event> = began.collect();
    events::emit(job.containers.events_dir(), &began);
    if let Some(notify) = &job.notify {
        notify.started(std::process::id());
    }
    for client in &mut front.clients {
        client.push(&Frame::Started);
    }
    front.tell_restarted(|| Ok(Json::Null));
    if !job.record.auto_remove {
        job.place.keep_room();
    }
    let strays = !shared::ends_with_first(&job.spec);
    let strays = strays.then(|| Strays::of(init.pid()));
    let mut relay = Relay {
        job,
        front,
        streams: std::mem::take(&mut running.streams),
        init: Some(init.pidfd()),
        until: None,
        scope,
        agent: running.agent.as_ref().map(Agent::socket),
        sessions: Sessions::default(),
        checks,
        pasta,
        restarts: (0, Instant::now()),
    };
    let limit = relay.job.timeout;
    relay.front.kill_at = limit.and_then(|t| Instant::now().checked_add(t));
    // After a restart: input that had ended has, and what the last run did not take is acknowledged.
    relay.write_input(PollFlags::empty());
    relay.run();
    trace::mark("init ended");
    let ran = start.elapsed();
    if let Some(strays) = strays {
        // What the kernel says to that is nothing that could be mended here.
        let _ = scope.map(Scope::kill);
        strays.iter().for_each(Strays::end);
    }
    let pasta = relay.pasta.take();
    let mut sessions = std::mem::take(&mut relay.sessions);
    front.kill_at = None;
    let code = exit_code(init.pid());
    let oom = code == 137 && scope.is_some_and(|s| s.oom_kills() > 0);
    running.pasta = pasta;
    // What will be started again must find what it wrote, even if it goes at its end.
    let keep = !job.record.auto_remove || front.will_begin_again();
    let down = front.busy(keep || sessions.at_work(), || {
        sessions.end(job);
        running.take_down(keep)
    });
    if let Err(e) = down {
        note_loss(job, front, e);
    }
    note_end(job, code, oom, ran)
}

/// Writes down that it runs: the thread that flushes that, if it is kept.
fn record_start(
    job: &mut Job,
    init: Pid,
    helper: Option<u32>,
    scope: Option<&Scope>,
) -> Option<JoinHandle<()>> {
    job.record.state = State::Running;
    (
        job.record.exit_code,
        job.record.error,
        job.record.oom_killed,
    ) = (None, None, false);
    job.record.scope = scope.map(|s| s.path.to_string_lossy().into_owned());
    job.record.started = Some(Timestamp::now());
    job.record.init = host::process(init);
    job.record.supervisor = host::process(Pid::this());
    let helper = helper.and_then(|pid| i32::try_from(pid).ok());
    let helper = helper.and_then(|pid| host::process(Pid::from_raw(pid)));
    job.record.helpers = helper.into_iter().collect();
    if let Some(path) = &job.record.pidfile {
        let written = files::atomic_write(path, init.to_string().as_bytes());
        // It runs by now; who waits for the file is told by inspect that there is an error.
        job.record.error = written.err().map(|e| format!("{e:#}"));
    }
    // Not flushed on the start-up path; one that a power cut tears right now is put together again (`damaged.rs`).
    let _ = job.place.write(&job.record);
    trace::mark("recorded");
    if job.record.auto_remove {
        return None;
    }
    let place = job.place.clone();
    // Off the start-up path: an fsync takes milliseconds on a disk.
    let flush = move || Containers::make_durable(&place);
    // Without a thread to be had, the kernel writes it in its own time.
    std::thread::Builder::new().spawn(flush).ok()
}

fn exit_code(init: Pid) -> i32 {
    match waitpid(init, None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        _ => 137,
    }
}

/// Notes how it ended, in the record (not yet on disk).
fn note_end(job: &mut Job, code: i32, oom: bool, ran: Duration) -> End {
    let record = &mut job.record;
    record.exit_code = Some(code);
    record.oom_killed = oom;
    record.finished = Some(Timestamp::now());
    record.init = None;
    End {
        code,
        oom,
        ran,
        told: false,
    }
}

/// Tells, and notes, that its last changes could not be written: the program has heard nothing of that, and may have ended well.
fn note_loss(job: &mut Job, front: &mut Front, e: anyhow::Error) {
    let text = error::report(&e.context("what the container wrote last may be lost"));
    front.notice(&format!("{text}\n"));
    front.log.flush();
    job.record.error = Some(text);
}

/// Tells that it died, when the record says so: who hears it may do at once what a container that runs refuses.
fn tell_died(job: &Job) {
    let died = Event {
        exit_code: job.record.exit_code,
        ..Event::container(&job.record, Action::Died)
    };
    events::emit(job.containers.events_dir(), &[died]);
}

/// The end of a container that did not start.
fn fail(mut job: Job, mut client: Client, e: &anyhow::Error) {
    let code = error::kind(e).exit_code();
    let text = error::report(e);
    let record = &mut job.record;
    record.state = record.at_rest();
    record.exit_code = Some(i32::from(code));
    record.error = Some(text.clone());
    (record.init, record.supervisor) = (None, None);
    settle(&mut job, false);
    client.push(&Frame::Error { code, text: &text });
}

/// Writes the exit record, or removes the container; tells that it `died`, if that is not known yet.
fn settle(job: &mut Job, died: bool) {
    let result = if job.record.auto_remove {
        if died {
            tell_died(job);
        }
        let erased = job.containers.erase(&job.record, true);
        if job.record.remove_image {
            // A foreground client tells what keeps it.
            let _ = image::remove_unused(&job.containers, &job.record);
        }
        erased
    } else {
        let written = job.place.replace(&job.record);
        if died {
            tell_died(job);
        }
        Containers::make_durable(&job.place);
        let _ = std::fs::remove_dir_all(&job.place.live);
        if died {
            job.containers.emit(&job.record, Action::Cleanup);
        }
        written
    };
    if let Err(e) = result {
        // Nobody is there to be told; the next command finds the lock free and repairs it.
        crate::trace::mark(&format!("settling: {e:#}"));
    }
}

/// The frame that carries output.
fn output_frame(stream: Stream, bytes: &[u8]) -> Frame<'_> {
    match stream {
        Stream::Out => Frame::Stdout(bytes),
        Stream::Err => Frame::Stderr(bytes),
    }
}
