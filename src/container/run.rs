//! `run` and `create`: from a request to a container, under its supervisor, with the caller attached or not.
//!
//! Everything that can be refused is looked at before the fork, in this process and without
//! threads: image, names, accounts, ports, limits, mounts. What is made on the way is unmade when a later
//! step fails. A pull, which needs threads, happens in a child process.

use std::io::IsTerminal;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::Pid;

use super::attach::{Attach, Ended, attach, wait_started};
use super::descriptors::Descriptors;
use super::logs::{self, Driver};
use super::make::make;
use super::protocol::{FRAME, Frame};
use super::record::{Containers, State};
use super::request::Request;
use super::restart::Restart;
use super::terminal::DetachKeys;
use super::{image, supervisor};
use crate::error::{Result, usage};
use crate::network::NetworkMode;
use crate::store::{Progress, Store};
use crate::trace;

/// How a run ended, for a front end to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The container ended with this code; the text, if any, is for the user.
    Exited(u8, String),
    /// It did not start: exit code and report.
    NotStarted(u8, String),
    /// It goes on by itself: its id, to be printed if it was started so.
    Running(String),
}

/// Makes a container and runs it, in the foreground unless the request says otherwise. With `--rmi` also why the image is still
/// there after its end, which its supervisor has tried to remove.
///
/// # Errors
/// Whatever is found before the supervisor starts; nothing is left then.
pub fn run(
    store: &Store,
    request: &Request,
    progress: &dyn Progress,
) -> Result<(Outcome, Result<()>)> {
    if request.tty && request.interactive && !request.detach && !std::io::stdin().is_terminal() {
        // podman's words, which scripts look for and leave out.
        log::warn!(
            "The input device is not a TTY. The --tty and --interactive flags might not work properly"
        );
    }
    check(request)?;
    let keys = request.detach_keys.as_deref().unwrap_or("ctrl-p,ctrl-q");
    let keys = DetachKeys::parse(keys)?;
    let containers = Containers::of(store);
    containers.heal_live();
    let descriptors = Descriptors::take(&request.descriptors)?;
    let mut job = make(store, &containers, request, progress)?;
    job.descriptors = descriptors;
    job.attached = !request.detach;
    let id = job.record.id.clone();
    let how = (!request.detach).then_some(Attach {
        tty: request.tty,
        input: request.interactive && request.log.driver != Driver::Passthrough,
        sig_proxy: request.sig_proxy,
        streams: request.attach.unwrap_or_default(),
        keys,
        session: false,
    });
    let (asked, image) = (job.record.image_asked.clone(), job.record.image_id.clone());
    let (socket, supervisor) = supervisor::launch(job)?;
    let outcome = stay(socket, supervisor, id, how)?;
    let removed = match outcome {
        Outcome::Running(_) => Ok(()),
        _ => image::removed(store, &containers, asked.as_deref(), image.as_deref()),
    };
    Ok((outcome, removed))
}

/// Makes a container and leaves it at that: its id.
///
/// # Errors
/// As [`run`].
pub fn create(store: &Store, request: &Request, progress: &dyn Progress) -> Result<String> {
    check(request)?;
    if let Some(keys) = &request.detach_keys {
        DetachKeys::parse(keys)?;
    }
    let containers = Containers::of(store);
    containers.heal_live();
    let mut job = make(store, &containers, request, progress)?;
    job.record.state = State::Created;
    job.place.replace(&job.record).inspect_err(|_| {
        let _ = containers.discard(&job.record.id);
    })?;
    Containers::make_durable(&job.place);
    let _ = std::fs::remove_dir_all(&job.place.live);
    Ok(job.record.id)
}

/// Stays with a container that was started, if `how` says how; else until it has started.
pub(super) fn stay(
    socket: OwnedFd,
    supervisor: Pid,
    id: String,
    how: Option<Attach>,
) -> Result<Outcome> {
    let last = socket.try_clone().context("keeping the connection")?;
    let ended = match how {
        None => wait_started(&socket)?,
        Some(how) => attach(socket, how)?,
    };
    if !matches!(ended, Ended::Detached | Ended::Left(_)) && !stays(&last) {
        let _ = nix::sys::wait::waitpid(supervisor, None);
        trace::mark("supervisor gone");
    }
    Ok(match ended {
        Ended::Exited(code, note) => Outcome::Exited(u8::try_from(code).unwrap_or(255), note),
        Ended::NotStarted(code, text) => Outcome::NotStarted(code, text),
        Ended::Left(code) => Outcome::Exited(code, String::new()),
        Ended::Detached => Outcome::Running(id),
    })
}

/// Whether a supervisor that has told the end stays for others who read slower, and not for the caller. It closes the connection
/// when it ends.
fn stays(socket: &OwnedFd) -> bool {
    let mut buffer = [0; FRAME];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Ok(n) if n > 0 && Frame::decode(&buffer[..n]) == Some(Frame::Busy) => return true,
            Ok(n) if n > 0 => {}
            _ => return false,
        }
    }
}

fn check(request: &Request) -> Result<()> {
    if request.replace && request.name.is_none() {
        return Err(usage("cannot replace container without --name being set").into());
    }
    if let NetworkMode::Path(_) = request.network {
        return Err(usage(format!(
            "--network {}: joining another network namespace is not there yet",
            request.network
        ))
        .hint("one of pasta[:OPTIONS], none, host, container:NAME")
        .into());
    }
    if request.remove && request.restart != Restart::No {
        return Err(usage("the --rm option conflicts with --restart").into());
    }
    if request.log.driver == Driver::Passthrough {
        passes_no_terminal(request.tty)?;
    }
    logs::check(&request.log)
}

/// Refuses to pass a terminal of the host on to a container, or where it is to have one of its own (`tty`).
pub(super) fn passes_no_terminal(tty: bool) -> Result<()> {
    let terminal = tty
        || std::io::stdin().is_terminal()
        || std::io::stdout().is_terminal()
        || std::io::stderr().is_terminal();
    if !terminal {
        return Ok(());
    }
    // Whoever has a terminal of the host can type into it (TIOCSTI), and read from it.
    let text = "the '--log-driver passthrough' option cannot be used on a TTY";
    Err(usage(text)
        .hint("standard input, output and error must be files, pipes or sockets")
        .into())
}
