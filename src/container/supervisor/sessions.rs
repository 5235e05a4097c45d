//! Processes run beside the container's first one (`exec`): each has a supervisor of its own
//! ([`super::session`]), which gets the client's connection from here.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Job;
use super::session::{Given, Order, ROLE};
use crate::cgroup::Scope;
use crate::container::events::{self, Action, Event};
use crate::container::top;
use crate::error::{Result, ResultExt, failed, usage};
use crate::sys::file::{message_pair, send_message};

/// How long sessions may take to end after their container.
const PATIENCE: Duration = Duration::from_secs(2);

/// The running container, as sessions need it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    /// The container.
    pub(super) job: &'a Job,
    /// pidfd of its first process.
    pub(super) init: BorrowedFd<'a>,
    /// Its control group.
    pub(super) scope: Option<&'a Scope>,
    /// The id agent's socket.
    pub(super) agent: Option<BorrowedFd<'a>>,
}

/// What goes on beside the relay while the container runs.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// The sessions' supervisors, which are children of this process.
    children: Vec<Running>,
    /// Threads that do for a client what takes its time.
    threads: Vec<JoinHandle<()>>,
}

/// A session's supervisor.
#[derive(Debug)]
struct Running {
    child: Child,
    /// Nobody asked for it: no events.
    quiet: bool,
}

impl Sessions {
    /// Starts the session that `request` (JSON) describes, on the client's connection `socket`.
    ///
    /// # Errors
    /// It cannot be started; the connection is the caller's to answer on then.
    pub(super) fn begin(
        &mut self,
        around: Around<'_>,
        socket: BorrowedFd<'_>,
        request: &[u8],
    ) -> Result<()> {
        self.run(around, socket, request, false)?;
        around.job.containers.emit(&around.job.record, Action::Exec);
        Ok(())
    }

    /// As [`Sessions::begin`], without events: a health check.
    ///
    /// # Errors
    /// As there.
    pub(super) fn begin_check(
        &mut self,
        around: Around<'_>,
        socket: BorrowedFd<'_>,
        request: &[u8],
    ) -> Result<()> {
        self.run(around, socket, request, true)
    }

    fn run(
        &mut self,
        around: Around<'_>,
        socket: BorrowedFd<'_>,
        request: &[u8],
        quiet: bool,
    ) -> Result<()> {
        let job = around.job;
        let order = Order {
            config: job.place.dir.join("config.json"),
            scope: around.scope.cloned(),
            seccomp_cache: job.seccomp_cache.clone(),
            emulate_ids: job.emulate_ids,
            session: serde_json::from_slice(request)
                .fault(|| usage("the client is of another version of rless"))?,
        };
        let target = command_of(around)?;
        let (ours, theirs) = message_pair().context("making the session's socket")?;
        give(&ours, Given::Client, socket)?;
        give(&ours, Given::Target, target.as_fd())?;
        if let Some(agent) = around.agent {
            give(&ours, Given::Agent, agent)?;
        }
        give(&ours, Given::Order, written(&order)?.as_fd())?;
        // Ourselves, even if another version has been installed meanwhile.
        let child = Command::new("/proc/self/exe")
            .arg0(ROLE)
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the session's supervisor")?;
        self.children.push(Running { child, quiet });
        Ok(())
    }

    /// Does `act` in a thread, which the end of the run waits for.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn beside(&mut self, name: &str, act: impl FnOnce() + Send + 'static) -> Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        let thread = Builder::new().name(name.to_owned()).spawn(act);
        self.threads
            .push(thread.context("starting a thread of the supervisor")?);
        Ok(())
    }

    /// A thread does something for a client.
    pub(super) fn at_work(&self) -> bool {
        !self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Collects those that have ended.
    pub(super) fn reap(&mut self, job: &Job) {
        self.children
            .retain_mut(|running| match running.child.try_wait() {
                Ok(Some(_)) if running.quiet => false,
                Ok(Some(status)) => {
                    let mut event = Event::container(&job.record, Action::ExecDied);
                    event.exit_code = status.code().or(Some(137));
                    events::emit(job.containers.events_dir(), &[event]);
                    false
                }
                _ => true,
            });
    }

    /// The container has ended, and with it what the sessions run: waits for them, and for what needs its files.
    pub(super) fn end(&mut self, job: &Job) {
        let until = Instant::now() + PATIENCE;
        self.reap(job);
        while !self.children.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
            self.reap(job);
        }
        for thread in self.threads.drain(..) {
            // What went wrong in it, its client was told.
            let _ = thread.join();
        }
    }
}

/// A pidfd of a process in the container's namespaces that may be joined: our own reaper (`--init`) is closed to
/// all, but its first child, the command, is not.
fn command_of(around: Around<'_>) -> Result<OwnedFd> {
    if around.job.init {
        let init = around.job.record.init;
        let gone = || failed("entering the container: its command is gone");
        return Ok(init.and_then(top::target).ok_or_else(gone)?);
    }
    let init = around.init.try_clone_to_owned();
    init.context("taking hold of the container")
}

fn give(socket: &OwnedFd, what: Given, fd: BorrowedFd<'_>) -> Result<()> {
    send_message(socket, &[what as u8], Some(fd)).context("handing over to the session")
}

/// The order in a file that is nowhere: it may be longer than a packet.
fn written(order: &Order) -> Result<File> {
    let mut file = File::from(
        memfd_create(c"rless-exec", MFdFlags::MFD_CLOEXEC).context("making the session's order")?,
    );
    let json = serde_json::to_vec(order).map_err(|e| failed(e.to_string()))?;
    file.write_all(&json)
        .context("writing the session's order")?;
    Ok(file)
}
