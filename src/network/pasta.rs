//! One pasta process for one container.
//!
//! # Theory of operation
//! [`start`] runs `pasta -f … PID` through duct and returns at once; it opens the container's
//! network namespace, makes a TAP device in it and forwards between that and ordinary sockets of
//! the user. Its standard output is a pipe of ours, and its PID file is that pipe
//! (`-P /proc/self/fd/1`): pasta writes the PID when everything is configured and every port is
//! bound, so the pipe becomes readable when the network is ready, and hangs up when pasta is gone.
//! One descriptor to poll for both ([`Pasta::fd`]), no file, no thread. Standard error is a sealed
//! 64 KiB memory file: what pasta says reaches the error message, and a pasta that never stops
//! talking can neither block nor fill memory.
//!
//! AppArmor's profile of pasta lets it write there but notes a refused `mknod` in the kernel log,
//! since pasta opens its PID file with `O_CREAT`.
//!
//! pasta keeps the namespace it serves alive and does not end with the container, so it must be
//! stopped; it is killed when the supervisor is gone (`sys::child`).
//!
//! Joining namespaces takes the owner's rights only: pasta can be started as soon as the process
//! is cloned, before its id maps are written. Until it is ready takes 12 ms (Debian 13) to 19 ms
//! (Debian 12) on an idle machine, nearly all of it pasta clearing its tables, so everything else
//! of a start fits beside it.

use std::ffi::OsString;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::ports::{Protocol, Published};
use crate::error::{Fault, Result, ResultExt as _, failed};
use crate::sys::child::{self, Leash};

/// What the installed pasta can do, as its `--help` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// `--map-guest-addr`: the host under an address of its own (passt 2024_10 on).
    pub map_guest_addr: bool,
}

/// Where the container's addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// The host's interface with the default route.
    Copied,
    /// As copied, but 10.0.2.100 for IPv4: pasta has no `--map-guest-addr`.
    Private,
    /// 10.0.2.100 without anything of the host's, which has no default route.
    Isolated,
}

/// How pasta is to be run; plain data, made by [`super::prepare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastaConfig {
    /// The executable.
    pub program: PathBuf,
    /// What it can do.
    pub features: Features,
    /// Ports to publish.
    pub ports: Vec<Published>,
    /// The user's own options (`--network pasta:OPT,OPT`).
    pub options: Vec<String>,
    /// Whether queries to 169.254.1.1 are forwarded to the host's own (loopback) resolver.
    pub forward: bool,
    /// Where the container's addresses come from.
    pub addressing: Addressing,
}

/// Namespaces that pasta serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Those of a process, whether its id maps are written or not.
    Pid(i32),
    /// Namespace files.
    Paths {
        /// User namespace that owns the network namespace; `None`: the caller's.
        user: Option<PathBuf>,
        /// Network namespace.
        net: PathBuf,
    },
}

/// A running pasta. Dropping it stops it.
#[derive(Debug)]
pub struct Pasta {
    handle: duct::Handle,
    _leash: Leash,
    status: OwnedFd,
    errors: File,
    ready: bool,
    config: PastaConfig,
    target: Target,
}

/// The reserved link-local addresses used inside; podman's choice, kept so that scripts agree.
pub(crate) const FORWARDER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The host's own address under which a container reaches it (`--map-guest-addr`).
pub(crate) const HOST_ALIAS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);
/// Address of a container that does not get the host's: slirp4netns' choice of old.
pub(crate) const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);

/// Longest standard error kept, bytes.
const ERRORS_KEPT: u64 = 64 * 1024;

/// How long pasta may take until its ports are bound.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How long pasta may take to end after SIGTERM.
const STOP_WITHIN: Duration = Duration::from_millis(500);

impl PastaConfig {
    /// pasta's arguments for a target, the program name left out; `root`: the caller is root. Pure.
    #[must_use]
    pub fn arguments(&self, target: &Target, root: bool) -> Vec<OsString> {
        let mut args: Vec<OsString> = ["-f", "-q", "-P", "/proc/self/fd/1", "--config-net"]
            .map(OsString::from)
            .to_vec();
        let given = |names: &[&str]| {
            self.options.iter().any(|o| {
                let name = o.split('=').next().unwrap_or(o);
                names.contains(&name)
            })
        };
        let mut push = |words: &[&str]| args.extend(words.iter().map(OsString::from));
        if root {
            // As nobody, its default then, pasta could not enter namespaces that root made.
            push(&["--runas", "0:0"]);
        }
        if !given(&["--map-gw", "--no-map-gw"]) {
            push(&["--no-map-gw"]);
        }
        if self.forward {
            push(&["--dns-forward", &FORWARDER.to_string()]);
        }
        if !given(&["-i", "--interface", "-a", "--address"]) {
            if self.addressing == Addressing::Isolated {
                // Nothing to copy from: loopback is the template, with all that it lacks.
                push(&["-4", "-i", "lo", "-M", "9a:55:9a:55:9a:55"]);
                if !given(&["-I", "--ns-ifname"]) {
                    push(&["-I", "eth0"]);
                }
            }
            if self.addressing != Addressing::Copied {
                push(&["-a", &PRIVATE.to_string(), "-n", "24", "-g", "10.0.2.2"]);
            } else if self.features.map_guest_addr && !given(&["--map-guest-addr"]) {
                push(&["--map-guest-addr", &HOST_ALIAS.to_string()]);
            }
        }
        for (option, long, protocol) in [
            ("-t", "--tcp-ports", Protocol::Tcp),
            ("-u", "--udp-ports", Protocol::Udp),
        ] {
            let mut any = given(&[option, long]);
            for port in self.ports.iter().filter(|p| p.protocol == protocol) {
                any = true;
                push(&[option, &forward_spec(port)]);
            }
            if !any {
                push(&[option, "none"]);
            }
        }
        if !given(&["-T", "--tcp-ns"]) {
            push(&["-T", "none"]);
        }
        if !given(&["-U", "--udp-ns"]) {
            push(&["-U", "none"]);
        }
        args.extend(
            self.options
                .iter()
                .filter(|o| *o != "--map-gw")
                .map(OsString::from),
        );
        match target {
            Target::Pid(pid) => args.push(pid.to_string().into()),
            Target::Paths { user, net } => {
                match user {
                    Some(user) => args.extend(["--userns".into(), user.into()]),
                    None => args.push("--netns-only".into()),
                }
                args.extend(["--netns".into(), net.into()]);
            }
        }
        args
    }
}

/// `ADDR/FIRST-LAST:FIRST-LAST` as pasta's `-t` and `-u` read it.
fn forward_spec(port: &Published) -> String {
    let range = |first: u16| match port.count {
        1 => first.to_string(),
        n => format!("{first}-{}", first + (n - 1)),
    };
    let address = match port.host_ip {
        Some(ip) => format!("{ip}/"),
        None => String::new(),
    };
    format!(
        "{address}{}:{}",
        range(port.host_port),
        range(port.container_port)
    )
}

/// Starts pasta and returns at once; [`Pasta::wait_ready`] tells when the network is there.
///
/// Must be called on a thread that lives as long as the container: pasta is killed with it.
///
/// # Errors
/// When it cannot be executed, or a pipe or memory file cannot be made.
pub fn start(config: &PastaConfig, target: &Target) -> Result<Pasta> {
    let (handle, leash, status, errors) = spawn(config, target)?;
    Ok(Pasta {
        handle,
        _leash: leash,
        status,
        errors,
        ready: false,
        config: config.clone(),
        target: target.clone(),
    })
}

type Spawned = (duct::Handle, Leash, OwnedFd, File);

fn spawn(config: &PastaConfig, target: &Target) -> Result<Spawned> {
    let doing = || format!("starting {}", config.program.display());
    let (status, status_writer) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).with_context(doing)?;
    let errors = errors_file().with_context(doing)?;
    let (leash, stdin) = child::leash().with_context(doing)?;
    let handle = duct::cmd(
        &config.program,
        config.arguments(target, nix::unistd::geteuid().is_root()),
    )
    .stdin_file(stdin)
    .stdout_file(status_writer)
    .stderr_file(errors.try_clone().with_context(doing)?)
    .unchecked()
    .before_spawn(|command| {
        child::die_with_parent(command);
        Ok(())
    })
    .start()
    .fault(|| failed(doing()))?;
    Ok((handle, leash, status, errors))
}

/// A memory file that takes [`ERRORS_KEPT`] bytes and refuses more.
fn errors_file() -> Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let file = File::from(memfd_create(
        c"pasta-errors",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?);
    file.set_len(ERRORS_KEPT)?;
    nix::fcntl::fcntl(
        &file,
        nix::fcntl::FcntlArg::F_ADD_SEALS(
            nix::fcntl::SealFlag::F_SEAL_GROW | nix::fcntl::SealFlag::F_SEAL_SHRINK,
        ),
    )?;
    Ok(file)
}

impl Pasta {
    /// Readable when pasta has reported ready and not been asked yet; hung up when it is gone.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.handle.pids().first().copied()
    }

    /// Blocks until the namespace is configured and every port is bound.
    ///
    /// # Errors
    /// A fault with what pasta said, when it ends or takes longer than ten seconds instead.
    pub fn wait_ready(&mut self) -> Result<()> {
        if self.ready {
            return Ok(());
        }
        let deadline = Instant::now() + READY_WITHIN;
        if !poll_readable(self.fd(), Some(deadline))? {
            let _ = self.handle.kill();
            return Err(self.death("did not get ready within ten seconds").into());
        }
        let mut buffer = [0u8; 128];
        match nix::unistd::read(&self.status, &mut buffer) {
            Ok(0) => Err(self.death("failed").into()),
            Ok(_) => {
                self.ready = true;
                Ok(())
            }
            Err(e) => Err(e).context("reading pasta's status"),
        }
    }

    /// Whether pasta still runs.
    #[must_use]
    pub fn alive(&self) -> bool {
        matches!(self.handle.try_wait(), Ok(None))
    }

    /// The fault of a pasta that ended by itself, with what it said.
    #[must_use]
    pub fn death(&self, how: &str) -> Fault {
        let said = self.said();
        let ending = self.ending();
        // One that was killed has not said why; what it said before were warnings.
        let killed = ending.as_ref().filter(|status| status.signal().is_some());
        let why = match (killed, said.is_empty()) {
            (Some(status), true) => status.to_string(),
            (Some(status), false) => format!("{status}; it had said: {said}"),
            (None, false) => said.clone(),
            (None, true) => {
                ending.map_or("no reason given".to_owned(), |status| status.to_string())
            }
        };
        let text = format!("pasta {how}: {why}");
        let fault = failed(text);
        match hint_for(&said) {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }

    /// Waits shortly for the end and describes it.
    fn ending(&self) -> Option<ExitStatus> {
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            match self.handle.try_wait() {
                Ok(Some(output)) => return Some(output.status),
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => return None,
            }
        }
        None
    }

    /// What pasta wrote to its standard error, one line.
    fn said(&self) -> String {
        let mut bytes = vec![0u8; usize::try_from(ERRORS_KEPT).unwrap_or(0)];
        let read = self.errors.read_at(&mut bytes, 0).unwrap_or(0);
        bytes.truncate(read);
        clean(&String::from_utf8_lossy(&bytes))
    }

    /// Starts a new pasta with the same settings after the old one died; ready on return.
    ///
    /// # Errors
    /// As [`start`] and [`Pasta::wait_ready`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let (handle, leash, status, errors) = spawn(&self.config, &self.target)?;
        self.handle = handle;
        self._leash = leash;
        self.status = status;
        self.errors = errors;
        self.ready = false;
        self.wait_ready()
    }

    /// Ends pasta and collects it; nothing is left when this returns.
    pub fn stop(&mut self) {
        if !self.alive() {
            return;
        }
        // It keeps no state: there is nothing that a gentler signal would save.
        let _ = self.handle.kill();
        let _ = self.handle.wait();
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        self.stop();
    }
}

/// pasta's lines joined, without the complaints of its Debian 12 version about having no syslog.
fn clean(said: &str) -> String {
    let lines: Vec<&str> = said
        .trim_end_matches('\0')
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .filter(|l| !(l.starts_with("Failed to send ") && l.ends_with(" to syslog")))
        .collect();
    lines.join("; ")
}

/// What to do about the failures that users meet.
fn hint_for(said: &str) -> Option<&'static str> {
    let has = |text: &str| said.contains(text);
    if has("/dev/net/tun") {
        Some("pasta needs /dev/net/tun: load the tun module, or use --network none or host")
    } else if has("Failed to bind port") || has("Failed to bind any port") {
        Some("another process took a published port meanwhile; choose another with -p")
    } else if has("Couldn't open user namespace") || has("Couldn't switch to pasta namespaces") {
        Some(
            "an AppArmor or SELinux rule may keep pasta from the container's namespaces; see the kernel log",
        )
    } else {
        None
    }
}

/// Polls until `deadline`; whether the descriptor has anything to say (data or hang-up).
fn poll_readable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> Result<bool> {
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).context("waiting for pasta"),
        }
    }
}

#[cfg(test)]
#[path = "pasta_tests.rs"]
mod tests;
