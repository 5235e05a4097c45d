//! A further process in a running container (`exec`).
//!
//! The caller (an exec session's supervisor, single-threaded, on the host) clones a *joiner*, which clones the process:
//!
//! ```text
//! caller ── joiner: leaves the caller's things, enters the cgroup, joins all namespaces at once, clones, ends
//!       └── process (CLONE_PARENT: the caller's child): becomes the container's root, then its user, executes
//! ```
//!
//! What must not happen, and why it does not:
//!
//! * *The process reaches the host through what it inherits.* The joiner closes every descriptor but those it was told to
//!   pass on; setns(2) moves root and working directory into the container; the environment is the session's;
//!   a new session keyring is joined; the process is born in the container's cgroup leaf and in its own session.
//! * *The container reaches the host through the process before exec.* From its birth on the process is not dumpable
//!   and its memory belongs to the host's user namespace: /proc/PID/{exe,fd,mem,cwd} are closed to every process of the container. Our
//!   own binary is never executed inside ([`super::exec`]). The joiner and the caller are never seen inside: they are not in its PID namespace.
//! * *The container leads us astray.* After the join every path is the container's, whatever it has made of its files: the
//!   account files are opened without waiting and without magic links, must be plain files, and are read up to a bound; the terminal comes from a
//!   device that is looked at before it is used; the working directory must lie inside.
//!
//! The namespaces are those of the target process as it is now, which may have made itself others, inside the container's: what
//! it can offer is never more than it has.

use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{SFlag, fstat, makedev};
use nix::sys::statfs::{DEVPTS_SUPER_MAGIC, fstatfs};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, fchown, setsid};
use oci_spec::runtime::{Process, Spec};

use super::control::{self, Message, Tag};
use super::credentials::Credentials;
use super::exec::{Command, FileId, own_binary};
use super::idmap::Mapping;
use super::launch::{
    self, Launch, Open, become_root, close_process, enter_directory, exit_if_orphaned,
};
use super::namespaces::Namespaces;
use super::rootfs::linux;
use super::seccomp::{self, Filters};
use super::{Init, keeps_groups, process};
use crate::error::{Fault, Kind, Result, ResultExt, failed};
use crate::sys::file::{close_all_but, message_pair, receive_message, send_message};
use crate::sys::mount::clone_tree_at;
use crate::sys::process::{
    Cloned, SingleThread, clone3, exit_now, pty_peer, reset_signals, single_threaded, unlock_pty,
};
use crate::sys::tty::{WindowSize, set_window_size};

/// Largest account file that is read.
const ACCOUNTS_LIMIT: u64 = 1 << 20;

/// Makes the process out of the account files; runs inside, before the user is taken.
pub type Settle<'a> = &'a dyn Fn(&Accounts) -> Result<Process>;

/// What [`join`] needs.
pub struct Join<'a> {
    /// The container's configuration.
    pub spec: &'a Spec,
    /// pidfd of a process that is in all of the container's namespaces.
    pub target: BorrowedFd<'a>,
    /// Directory of the container's control group, as the caller sees it.
    pub cgroup: Option<PathBuf>,
    /// The container's id maps.
    pub mapping: &'a Mapping,
    /// `Some`: the process gets a pty of this size from the container's devpts, and `stdio` is not used.
    pub terminal: Option<WindowSize>,
    /// stdin, stdout, stderr of the process.
    pub stdio: [OwnedFd; 3],
    /// More descriptors for the process, numbered from 3.
    pub extra_fds: Vec<OwnedFd>,
    /// Directory for compiled seccomp filters.
    pub seccomp_cache: Option<PathBuf>,
    /// Single-id mode.
    pub emulate_ids: bool,
    /// Says what is executed and as whom.
    pub settle: Settle<'a>,
}

impl std::fmt::Debug for Join<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").finish_non_exhaustive()
    }
}

/// The container's account files as they are now; a reason why one cannot be read.
#[derive(Debug)]
pub struct Accounts {
    /// `/etc/passwd`; `None`: there is none.
    pub passwd: Result<Option<String>, String>,
    /// `/etc/group`.
    pub group: Result<Option<String>, String>,
}

/// Starts a process in the container; what is to be received from it and how it begins are as for init
/// ([`Init::recv_pty`], [`Init::recv_joined_listener`], [`Init::wait_exec`]).
///
/// # Errors
/// A fault: the container is gone, or what the joiner reported.
pub fn join(plan: &Join<'_>) -> Result<Init> {
    let profile = linux(plan.spec, |l| l.seccomp().as_ref());
    let cache = plan.seccomp_cache.as_deref();
    let filters = seccomp::filters(profile, plan.emulate_ids, cache)?;
    let flags = Namespaces::of_container(plan.spec);
    close_process()?;
    let (control, theirs) = message_pair().context("making the process's control socket")?;
    let (joiner, _pidfd) = match clone3(0).context("forking into the container")? {
        Cloned::Child => Joiner {
            plan,
            filters: &filters,
            flags,
            control: theirs,
        }
        .live(),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    born(joiner, control)
}

/// The process that `joiner` clones.
fn born(joiner: Pid, control: OwnedFd) -> Result<Init> {
    let mut early = vec![];
    let born = receive_child(&control, &mut early);
    let _ = waitpid(joiner, None);
    let (pid, pidfd) = born?;
    Ok(Init {
        pid,
        pidfd,
        control,
        maps: None,
        early,
        ended: false,
    })
}

/// Clones an init inside the user namespace of another container's process `target`, and in those of its namespaces that are `shared`;
/// the rest are new. Init runs `live` with its end of the control socket.
///
/// # Errors
/// `target` is gone, or the kernel refuses the namespaces.
pub(super) fn clone_within(
    target: BorrowedFd<'_>,
    shared: CloneFlags,
    new: CloneFlags,
    live: impl FnOnce(OwnedFd) -> io::Result<()>,
) -> Result<Init> {
    let (control, theirs) = message_pair().context("making init's control socket")?;
    let enter = || -> Result<Cloned> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("tying the container to its supervisor")?;
        let alone = single_threaded().context("counting threads")?;
        setns(target, shared | CloneFlags::CLONE_NEWUSER).map_err(cannot_join)?;
        let cloned = alone.clone_sibling(new.bits() as u64);
        cloned.context("making the container's namespaces")
    };
    let (joiner, _pidfd) = match clone3(0).context("forking into the other container")? {
        Cloned::Child => {
            drop(control);
            let sent = match enter() {
                Ok(Cloned::Child) => live(theirs),
                Ok(Cloned::Parent { pid, pidfd }) => {
                    let number = pid.as_raw().to_ne_bytes();
                    control::send_text(&theirs, Tag::Child, Some(pidfd.as_fd()), &number)
                }
                Err(e) => control::send_failure(&theirs, &e),
            };
            exit_now(i32::from(sent.is_err()))
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    born(joiner, control)
}

/// Reads the container's account files as they are now; `None`: its namespaces cannot be joined (any more).
///
/// # Errors
/// No process left, or this one has threads.
pub fn accounts(target: BorrowedFd<'_>, mapping: &Mapping) -> Result<Option<Accounts>> {
    let (ours, theirs) = message_pair().context("making a socket")?;
    let (pid, _pidfd) = match clone3(0).context("forking into the container")? {
        Cloned::Child => {
            drop(ours);
            let sent = send_accounts(target, mapping, &theirs);
            exit_now(i32::from(sent.is_err()))
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let next = || -> Option<Result<Option<String>, String>> {
        let mut text = Vec::new();
        loop {
            let (piece, _) = receive_message(&ours, PIECE).ok()??;
            let (kind, piece) = piece.split_first()?;
            text.extend_from_slice(piece);
            let string = || String::from_utf8_lossy(&text).into_owned();
            match kind {
                b'n' => return Some(Ok(None)),
                b'e' => return Some(Err(string())),
                b't' => return Some(Ok(Some(string()))),
                _ => {}
            }
        }
    };
    let both = next().zip(next());
    let _ = waitpid(pid, None);
    Ok(both.map(|(passwd, group)| Accounts { passwd, group }))
}

/// Most bytes of one message of [`accounts`].
const PIECE: usize = 32 * 1024;

/// The child of [`accounts`].
fn send_accounts(target: BorrowedFd<'_>, mapping: &Mapping, to: &OwnedFd) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    close_process()?;
    close_all_but(3, &[target.as_raw_fd(), to.as_raw_fd()])?;
    setns(target, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    become_root(mapping)?;
    for path in [c"/etc/passwd", c"/etc/group"] {
        let (kind, text) = match account_file(path) {
            Ok(None) => (b'n', String::new()),
            Ok(Some(text)) => (b't', text),
            Err(why) => (b'e', why),
        };
        let mut rest = text.as_bytes();
        while rest.len() >= PIECE {
            let (piece, after) = rest.split_at(PIECE - 1);
            send_message(to, &[b"m", piece].concat(), None)?;
            rest = after;
        }
        send_message(to, &[&[kind], rest].concat(), None)?;
    }
    Ok(())
}

/// A detached copy of the mount on /dev/shm in the container of `target`, for another container in its user namespace.
///
/// # Errors
/// It is gone, or has none.
pub fn shared_memory(target: BorrowedFd<'_>) -> Result<OwnedFd> {
    let (ours, theirs) = message_pair().context("making a socket")?;
    let copy = || -> Result<OwnedFd> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        close_process()?;
        close_all_but(3, &[target.as_raw_fd(), theirs.as_raw_fd()])?;
        setns(target, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(cannot_join)?;
        Ok(clone_tree_at(Path::new("/dev/shm"), false)?)
    };
    let (pid, _pidfd) = match clone3(0).context("forking into the other container")? {
        Cloned::Child => {
            let sent = match copy() {
                Ok(tree) => send_message(&theirs, b"tree", Some(tree.as_fd())),
                Err(e) => send_message(&theirs, format!("{e:#}").as_bytes(), None),
            };
            exit_now(i32::from(sent.is_err()))
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let message = receive_message(&ours, PIECE);
    let _ = waitpid(pid, None);
    let doing = "taking the other container's /dev/shm";
    match message.context(doing)? {
        Some((_, Some(tree))) => Ok(tree),
        Some((why, None)) => {
            Err(failed(format!("{doing}: {}", String::from_utf8_lossy(&why))).into())
        }
        None => Err(failed(format!("{doing}: it ended meanwhile")).into()),
    }
}

/// Waits for the joiner's word of its child, which may be faster with its own.
fn receive_child(control: &OwnedFd, early: &mut Vec<Message>) -> Result<(Pid, OwnedFd)> {
    let gone = || failed("entering the container: it ended meanwhile");
    loop {
        let message = control::receive(control)?.ok_or_else(gone)?;
        if message.tag != Tag::Child {
            early.push(message);
            continue;
        }
        let child = pid(&message.text).zip(message.fd);
        return child.ok_or_else(|| gone().into());
    }
}

fn pid(text: &[u8]) -> Option<Pid> {
    Some(Pid::from_raw(i32::from_ne_bytes(text.try_into().ok()?)))
}

/// The child that joins, and then the one that is inside.
struct Joiner<'a> {
    plan: &'a Join<'a>,
    filters: &'a Filters,
    flags: CloneFlags,
    control: OwnedFd,
}

impl Joiner<'_> {
    fn live(mut self) -> ! {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run()));
        let error = match ran {
            Ok(Err(error)) => error,
            Ok(Ok(never)) => match never {},
            Err(_) => failed("the process that joins panicked").into(),
        };
        let _ = control::send_failure(&self.control, &error);
        exit_now(crate::error::kind(&error).exit_code().into())
    }

    fn run(&mut self) -> Result<Infallible> {
        let own = own_binary();
        let alone = self.leave_host()?;
        setns(self.plan.target, self.flags).map_err(cannot_join)?;
        match alone.clone_sibling(0).context("forking inside")? {
            Cloned::Child => self.inside(own),
            Cloned::Parent { pid, pidfd } => {
                let number = pid.as_raw().to_ne_bytes();
                control::send_text(&self.control, Tag::Child, Some(pidfd.as_fd()), &number)
                    .context("reporting the process")?;
                exit_now(0)
            }
        }
    }

    /// On the host: what must be done by its files, and what must not come along.
    fn leave_host(&self) -> Result<SingleThread> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("tying the process to its supervisor")?;
        let mut keep = vec![self.control.as_raw_fd(), self.plan.target.as_raw_fd()];
        keep.extend(self.plan.stdio.iter().map(AsRawFd::as_raw_fd));
        keep.extend(self.plan.extra_fds.iter().map(AsRawFd::as_raw_fd));
        close_all_but(3, &keep).context("closing inherited descriptors")?;
        reset_signals().context("resetting signals")?;
        launch::leave_keyring()?;
        if let Some(process) = self.plan.spec.process() {
            process::set_oom_score(process)?;
            process::set_labels(process)?;
        }
        let alone = single_threaded().context("counting threads")?;
        if let Some(dir) = &self.plan.cgroup {
            std::fs::write(dir.join("cgroup.procs"), "0")
                .with_context(|| format!("entering the control group {}", dir.display()))?;
        }
        Ok(alone)
    }

    /// In the container, as its root and then as the user.
    fn inside(&mut self, own: Option<FileId>) -> Result<Infallible> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("tying the process to its supervisor")?;
        exit_if_orphaned(&self.control)?;
        setsid().context("starting a session")?;
        become_root(self.plan.mapping)?;
        close_process()?;
        let process = (self.plan.settle)(&Accounts {
            passwd: account_file(c"/etc/passwd"),
            group: account_file(c"/etc/group"),
        })?;
        let keep_groups = keeps_groups(self.plan.spec);
        let emulate = self.plan.emulate_ids;
        let credentials = Credentials::of(&process, self.plan.mapping, emulate, keep_groups)?;
        let launch = Launch {
            process: &process,
            credentials: &credentials,
            filters: self.filters,
        };
        let open = Open {
            pty: self.terminal(&process)?,
            stdio: Some(&self.plan.stdio),
            extra: &self.plan.extra_fds,
        };
        launch.number_descriptors(&mut self.control, open)?;
        launch.become_user(&self.control)?;
        enter_directory(&process).map_err(no_directory)?;
        let command = Command::find(&process, own)?;
        let groups = process.user().additional_gids().clone();
        let ids = credentials.encode_ids(&groups.unwrap_or_default());
        launch.confine(&self.control, true, &ids)?;
        Err(command.execute())
    }

    /// A pty of the container's devpts; its master goes to the supervisor.
    fn terminal(&self, process: &Process) -> Result<Option<OwnedFd>> {
        let Some(size) = self.plan.terminal else {
            return Ok(None);
        };
        let master = open_ptmx().fault(|| {
            failed("opening a terminal in the container")
                .hint("it needs a devpts on /dev/pts, as containers have unless told otherwise")
        })?;
        unlock_pty(&master).context("unlocking the pty")?;
        let slave = pty_peer(&master).context("opening the pty's other end")?;
        set_window_size(&master, size).context("setting the pty's size")?;
        let uid = process.user().uid();
        if self.plan.mapping.host_uid(uid).is_some() {
            fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>)
                .context("giving the pty to the container's user")?;
        }
        control::send(&self.control, Tag::Pty, Some(master.as_fd())).context("sending the pty")?;
        Ok(Some(slave))
    }
}

/// What the errno of setns(2) does not say.
fn cannot_join(e: Errno) -> anyhow::Error {
    match e {
        Errno::ESRCH => failed("entering the container: its first process is gone").into(),
        e => anyhow::Error::new(e).context("entering the container's namespaces"),
    }
}

/// As others, who find neither.
fn no_directory(e: anyhow::Error) -> anyhow::Error {
    let missing = |e: &Errno| matches!(e, Errno::ENOENT | Errno::ENOTDIR);
    let found = e.chain().find_map(|c| c.downcast_ref::<Errno>());
    if found.is_some_and(missing) {
        let act = e.to_string();
        return e.context(Fault::new(Kind::CommandNotFound, act));
    }
    e
}

/// Opens the multiplexer of a devpts at its usual place, and nothing else that the container may have put there.
fn open_ptmx() -> Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // A look first: opening a device of another kind may do something.
    let look = how.flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    let is_ptmx = |fd: &OwnedFd| -> nix::Result<bool> {
        let (stat, fs) = (fstat(fd)?, fstatfs(fd)?);
        Ok(stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits()
            && stat.st_rdev == makedev(5, 2)
            && fs.filesystem_type() == DEVPTS_SUPER_MAGIC)
    };
    let path = c"/dev/pts/ptmx";
    if !is_ptmx(&openat2(AT_FDCWD, path, look)?)? {
        return Err(failed("/dev/pts/ptmx is not a devpts's").into());
    }
    let master = openat2(AT_FDCWD, path, how)?;
    if !is_ptmx(&master)? {
        return Err(failed("/dev/pts/ptmx is not a devpts's").into());
    }
    Ok(master)
}

/// Reads an account file that the container can have made anything of.
fn account_file(path: &CStr) -> Result<Option<String>, String> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", path.to_string_lossy());
    let look = how.flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    let plain = |fd: &OwnedFd| match fstat(fd) {
        Ok(s) if s.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() => Ok(()),
        Ok(_) => Err(told(&"it is not a plain file")),
        Err(e) => Err(told(&e)),
    };
    match openat2(AT_FDCWD, path, look) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(e) => return Err(told(&e)),
        Ok(fd) => plain(&fd)?,
    }
    let fd = openat2(AT_FDCWD, path, how).map_err(|e| told(&e))?;
    plain(&fd)?;
    let mut bytes = Vec::new();
    let read = File::from(fd).take(ACCOUNTS_LIMIT + 1);
    match { read }.read_to_end(&mut bytes) {
        Ok(n) if n as u64 > ACCOUNTS_LIMIT => Err(told(&"it is larger than 1 MiB")),
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) => Err(told(&e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn account_files_are_plain_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let read = |name: &str| {
            let path = CString::new(path(name).to_str().unwrap()).unwrap();
            account_file(&path)
        };
        std::fs::write(path("good"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        std::fs::write(path("limit"), vec![b'x'; ACCOUNTS_LIMIT as usize]).unwrap();
        std::fs::write(path("large"), vec![b'x'; ACCOUNTS_LIMIT as usize + 1]).unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, target) in [
            ("link", "good"),
            ("zero", "/dev/zero"),
            ("magic", "/proc/self/exe"),
            ("nowhere", "none"),
        ] {
            std::os::unix::fs::symlink(target, path(name)).unwrap();
        }
        assert!(read("good").unwrap().unwrap().starts_with("root:"));
        assert!(read("link").unwrap().is_some());
        assert!(read("limit").unwrap().is_some());
        assert_eq!(read("none"), Ok(None));
        assert_eq!(read("nowhere"), Ok(None));
        for bad in ["large", "dir", "fifo", "zero", "magic"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pid_is_four_bytes() {
        assert_eq!(pid(&7i32.to_ne_bytes()), Some(Pid::from_raw(7)));
        assert_eq!(pid(b"7"), None);
    }
}
