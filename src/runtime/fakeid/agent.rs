//! The agent process: joins the container and answers its id calls.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, fchdir};

use super::chown::{self, Owner, Roots, Target};
use super::creds::{Creds, NGROUPS_MAX};
use super::memory;
use super::proc::Proc;
use super::tasks::{Tasks, Tid};
use crate::error::Result;
use crate::sys::process::Cloned;
use crate::sys::{file, process, seccomp};

/// The system calls that the agent answers; the filter of this rung sends exactly these.
#[cfg(target_arch = "x86_64")]
const PATH_CHOWN: [i64; 2] = [libc::SYS_chown, libc::SYS_lchown];
/// Architectures with the generic table have fchownat(2) only.
#[cfg(not(target_arch = "x86_64"))]
const PATH_CHOWN: [i64; 2] = [-1, -1];

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE` as the response's flags hold it.
const CONTINUE: u32 = 1;

/// One system call that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct Call {
    /// Names the call towards the kernel.
    id: u64,
    /// The calling thread, in the agent's pid namespace.
    tid: Tid,
    number: i64,
    args: [u64; 6],
}

impl From<seccomp::Request> for Call {
    fn from(r: seccomp::Request) -> Call {
        Call {
            id: r.id,
            tid: r.pid.cast_signed(),
            number: i64::from(r.data.nr),
            args: r.data.args,
        }
    }
}

/// What the caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The call returns this value and is not executed.
    Value(i64),
    /// The call fails with this error and is not executed.
    Fail(Errno),
    /// The call is executed as it was asked for.
    Continue,
}

/// As whom the container's first process starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The container's init in the caller's pid namespace.
    pub init: Pid,
    /// User id that it believes to have.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A waiting agent process.
#[derive(Debug)]
pub struct Agent {
    socket: OwnedFd,
    pid: Pid,
    pidfd: OwnedFd,
}

impl Agent {
    /// Forks the agent. The caller must have one thread only.
    ///
    /// # Errors
    /// Those of socketpair(2) and clone3(2).
    pub fn fork() -> Result<Agent> {
        let (ours, theirs) = file::message_pair().context("making the id agent's socket")?;
        match process::clone3(0).context("forking the id agent")? {
            Cloned::Parent { pid, pidfd } => Ok(Agent {
                socket: ours,
                pid,
                pidfd,
            }),
            Cloned::Child => {
                drop(ours);
                process::exit_now(i32::from(run(theirs).is_err()))
            }
        }
    }

    /// Ends the agent, after the container's init: it has nobody left to answer.
    pub fn reap(self) {
        let _ = process::pidfd_send_signal(&self.pidfd, Some(Signal::SIGKILL));
        let _ = waitpid(self.pid, None);
    }

    /// Gives the agent the namespaces of `init`, which still waits to begin. Later it cannot be: once init has changed its
    /// ids, and until it executes the command, nobody but the host's root may look into its `/proc/PID/ns`.
    ///
    /// # Errors
    /// Init or the agent is gone.
    pub fn meet(&self, init: Pid) -> Result<()> {
        for name in NAMESPACES {
            let path = format!("/proc/{init}/ns/{name}");
            let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
            file::send_message(&self.socket, name.as_bytes(), Some(namespace.as_fd()))
                .context("handing a namespace to the id agent")?;
        }
        Ok(())
    }

    /// Hands the filter's listener over; from here on the agent answers. After [`Agent::meet`].
    ///
    /// # Errors
    /// The agent is gone.
    pub fn serve(&self, listener: &OwnedFd, start: &Start) -> Result<()> {
        serve_too(&self.socket, listener, start)
    }

    /// The agent's socket, for a process that calls [`serve_too`].
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Hands the agent behind `socket` a further listener: that of a process that has joined the container.
///
/// # Errors
/// The agent is gone.
pub fn serve_too(socket: impl AsFd, listener: &OwnedFd, start: &Start) -> Result<()> {
    let mut ids = vec![start.init.as_raw().cast_unsigned(), start.uid, start.gid];
    ids.extend_from_slice(&start.groups);
    let bytes: Vec<u8> = ids.iter().flat_map(|n| n.to_ne_bytes()).collect();
    file::send_message(socket, &bytes, Some(listener.as_fd()))
        .context("handing the seccomp listener to the id agent")?;
    Ok(())
}

/// The inverse: PID and credentials.
fn starts_as(message: &[u8]) -> Option<(Tid, Creds)> {
    let numbers: Vec<u32> = message
        .chunks_exact(4)
        .map(|c| u32::from_ne_bytes([c[0], c[1], c[2], c[3]]))
        .collect();
    let [pid, uid, gid, groups @ ..] = numbers.as_slice() else {
        return None;
    };
    let creds = Creds::new(*uid, *gid, groups.to_vec());
    Some((pid.cast_signed(), creds))
}

/// Longest message of [`serve_too`].
const START: usize = 12 + 4 * NGROUPS_MAX;

/// The namespaces that the agent joins, in this order.
const NAMESPACES: [&str; 2] = ["user", "mnt"];

/// The child's whole life.
fn run(socket: OwnedFd) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Some(Signal::SIGKILL))?;
    nix::sys::prctl::set_name(c"rless-ids")?;
    // The supervisor's copies of pipes, locks and sockets must not live as long as we do.
    file::close_all_but(3, &[socket.as_raw_fd()])?;
    let receive = |limit| match file::receive_message(&socket, limit)? {
        Some((message, Some(fd))) => Ok((message, fd)),
        _ => anyhow::bail!("the supervisor is gone"),
    };
    let namespaces = [receive(16)?.1, receive(16)?.1];
    let (message, listener) = receive(START)?;
    let Some((init, creds)) = starts_as(&message) else {
        anyhow::bail!("short message")
    };
    let proc = Proc::open()?;
    for (namespace, name) in namespaces.into_iter().zip(NAMESPACES) {
        setns(namespace, CloneFlags::empty())
            .with_context(|| format!("joining the container's {name} namespace"))?;
    }
    // Every later path is `self/fd/N` or `PID/…` of the host's proc.
    fchdir(proc.dir())?;
    let tasks = Tasks::new(init, creds);
    Server {
        listeners: vec![listener],
        current: 0,
        socket: Some(socket),
        roots: Roots::new()?,
        proc,
        tasks,
    }
    .serve()
}

#[derive(Debug)]
struct Server {
    /// Init's, and those of processes that joined.
    listeners: Vec<OwnedFd>,
    /// The one whose call is being answered.
    current: usize,
    /// Where further listeners come from.
    socket: Option<OwnedFd>,
    proc: Proc,
    roots: Roots,
    tasks: Tasks,
}

impl Server {
    fn serve(&mut self) -> Result<()> {
        loop {
            let all = self.listeners.iter().chain(&self.socket);
            let mut fds: Vec<PollFd> = all
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN))
                .collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
            let events: Vec<PollFlags> = fds
                .iter()
                .map(|fd| fd.revents().unwrap_or(PollFlags::empty()))
                .collect();
            let (filters, socket) = events.split_at(self.listeners.len());
            let over = |e: &PollFlags| {
                !e.contains(PollFlags::POLLIN)
                    && e.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
            };
            for (i, _) in filters
                .iter()
                .enumerate()
                .filter(|(_, e)| e.contains(PollFlags::POLLIN))
            {
                self.current = i;
                self.next()?;
            }
            let mut left = filters.iter().map(|e| !over(e));
            self.listeners.retain(|_| left.next().unwrap_or(true));
            if self.listeners.is_empty() {
                return Ok(());
            }
            if socket.first().is_some_and(|e| !e.is_empty()) {
                self.more()?;
            }
        }
    }

    /// Takes a further listener from the socket.
    fn more(&mut self) -> Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        match file::receive_message(socket, START) {
            Ok(Some((message, Some(listener)))) => {
                if let Some((pid, creds)) = starts_as(&message) {
                    self.tasks.enter(&self.proc, pid, creds);
                    self.listeners.push(listener);
                }
            }
            Ok(Some((_, None))) => {}
            Ok(None) | Err(_) => self.socket = None,
        }
        Ok(())
    }

    /// Answers one call. That its caller died meanwhile is no error.
    fn next(&mut self) -> Result<()> {
        let call = match seccomp::receive(self.listener()) {
            Ok(request) => Call::from(request),
            Err(e) if gone(&e) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let (val, error, flags) = match self.answer(&call) {
            Answer::Value(v) => (v, 0, 0),
            Answer::Fail(e) => (0, -(e as i32), 0),
            Answer::Continue => (0, 0, CONTINUE),
        };
        let response = seccomp::Response {
            id: call.id,
            val,
            error,
            flags,
        };
        match seccomp::respond(self.listener(), response) {
            Err(e) if !gone(&e) => Err(e.into()),
            _ => Ok(()),
        }
    }

    fn listener(&self) -> &OwnedFd {
        &self.listeners[self.current]
    }

    fn answer(&mut self, call: &Call) -> Answer {
        let result = match call.number {
            n if n == libc::SYS_exit_group => {
                self.tasks.leaving(&self.proc, call.tid);
                return Answer::Continue;
            }
            n if PATH_CHOWN.contains(&n) || n == libc::SYS_fchown || n == libc::SYS_fchownat => {
                self.chown(call)
            }
            libc::SYS_prctl | libc::SYS_capset => {
                // Also for the kernel to do; what cannot be read, it will refuse itself.
                let _ = self.capabilities(call);
                return Answer::Continue;
            }
            _ => self.ids(call),
        };
        match result {
            Ok(value) => Answer::Value(value),
            Err(errno) => Answer::Fail(errno),
        }
    }

    fn ids(&mut self, call: &Call) -> Result<i64, Errno> {
        let creds = self.tasks.of(&self.proc, call.tid);
        match get(&creds, call) {
            Some(result) => result,
            None => {
                let mut new = (*creds).clone();
                let value = set(&mut new, call, &|| self.still(call))?;
                if new != *creds {
                    self.tasks.set(&self.proc, call.tid, new);
                }
                Ok(value)
            }
        }
    }

    /// prctl(`PR_SET_KEEPCAPS`) and capset(2) of a task for itself.
    fn capabilities(&mut self, call: &Call) -> Result<(), Errno> {
        let mut creds = (*self.tasks.of(&self.proc, call.tid)).clone();
        if call.number == libc::SYS_prctl {
            if low_i32(call.args[0]) == libc::PR_SET_KEEPCAPS {
                creds.keep_caps(call.args[1] != 0);
            }
        } else {
            // Version 3: the low words of effective, permitted, inheritable, then the high ones.
            let words = memory::read_ids(call.tid, call.args[1], 6)?;
            self.still(call)?;
            let set = |i: usize| u64::from(words[i]) | u64::from(words[i + 3]) << 32;
            creds.capset(set(0), set(1));
        }
        self.tasks.set(&self.proc, call.tid, creds);
        Ok(())
    }

    fn chown(&mut self, call: &Call) -> Result<i64, Errno> {
        let a = &call.args;
        let path_at = |address: u64| -> Result<OsString, Errno> {
            let path = memory::read_path(call.tid, address)?;
            self.still(call)?;
            Ok(path)
        };
        let (dirfd, path, follow, owner) = if call.number == libc::SYS_fchown {
            (low_i32(a[0]), OsString::new(), true, owner(a[1], a[2]))
        } else if call.number == libc::SYS_fchownat {
            let (follow, empty) = chown::at_flags(a[4] & 0xffff_ffff)?;
            let path = path_at(a[1])?;
            if path.is_empty() && !empty {
                return Err(Errno::ENOENT);
            }
            (low_i32(a[0]), path, follow, owner(a[2], a[3]))
        } else {
            let path = path_at(a[0])?;
            if path.is_empty() {
                return Err(Errno::ENOENT);
            }
            (
                libc::AT_FDCWD,
                path,
                call.number == PATH_CHOWN[0],
                owner(a[1], a[2]),
            )
        };
        let target = Target {
            dirfd,
            path: &path,
            follow,
        };
        let file = chown::open_target(&self.proc, &mut self.roots, call.tid, &target)?;
        self.still(call)?;
        let creds = self.tasks.of(&self.proc, call.tid);
        chown::change(&file, &creds, owner)?;
        Ok(0)
    }

    /// # Errors `ESRCH` if the caller is gone and its pid may stand for another task by now.
    fn still(&self, call: &Call) -> Result<(), Errno> {
        if seccomp::is_pending(self.listener(), call.id) {
            Ok(())
        } else {
            Err(Errno::ESRCH)
        }
    }
}

/// The get*id calls; `None` for any other.
fn get(creds: &Creds, call: &Call) -> Option<Result<i64, Errno>> {
    let tid = call.tid;
    let a = &call.args;
    Some(match call.number {
        libc::SYS_getuid => Ok(i64::from(creds.uid.real)),
        libc::SYS_geteuid => Ok(i64::from(creds.uid.effective)),
        libc::SYS_getgid => Ok(i64::from(creds.gid.real)),
        libc::SYS_getegid => Ok(i64::from(creds.gid.effective)),
        libc::SYS_getresuid => put_each(
            tid,
            a,
            [creds.uid.real, creds.uid.effective, creds.uid.saved],
        ),
        libc::SYS_getresgid => put_each(
            tid,
            a,
            [creds.gid.real, creds.gid.effective, creds.gid.saved],
        ),
        libc::SYS_getgroups => get_groups(tid, a, &creds.groups),
        _ => return None,
    })
}

fn put_each(tid: Tid, addresses: &[u64; 6], ids: [u32; 3]) -> Result<i64, Errno> {
    for (address, id) in addresses.iter().zip(ids) {
        memory::write_ids(tid, *address, &[id])?;
    }
    Ok(0)
}

fn get_groups(tid: Tid, a: &[u64; 6], groups: &[u32]) -> Result<i64, Errno> {
    let room = usize::try_from(low_i32(a[0])).map_err(|_| Errno::EINVAL)?;
    if room > 0 {
        if room < groups.len() {
            return Err(Errno::EINVAL);
        }
        memory::write_ids(tid, a[1], groups)?;
    }
    i64::try_from(groups.len()).map_err(|_| Errno::EINVAL)
}

/// The set*id calls. `still` is asked after memory of the caller was read.
/// # Errors As each call's manual page; `ENOSYS` for a call that the filter should not have sent.
fn set(
    creds: &mut Creds,
    call: &Call,
    still: &dyn Fn() -> Result<(), Errno>,
) -> Result<i64, Errno> {
    let a = &call.args;
    match call.number {
        libc::SYS_setuid => creds.setuid(id(a[0]))?,
        libc::SYS_setgid => creds.setgid(id(a[0]))?,
        libc::SYS_setreuid => creds.setreuid(id(a[0]), id(a[1]))?,
        libc::SYS_setregid => creds.setregid(id(a[0]), id(a[1]))?,
        libc::SYS_setresuid => creds.setresuid([id(a[0]), id(a[1]), id(a[2])])?,
        libc::SYS_setresgid => creds.setresgid([id(a[0]), id(a[1]), id(a[2])])?,
        libc::SYS_setfsuid => return Ok(i64::from(creds.setfsuid(id(a[0])))),
        libc::SYS_setfsgid => return Ok(i64::from(creds.setfsgid(id(a[0])))),
        libc::SYS_setgroups => {
            let count = usize::try_from(low_i32(a[0])).map_err(|_| Errno::EINVAL)?;
            if count > NGROUPS_MAX {
                return Err(Errno::EINVAL);
            }
            let groups = memory::read_ids(call.tid, a[1], count)?;
            still()?;
            creds.setgroups(groups)?;
        }
        _ => return Err(Errno::ENOSYS),
    }
    Ok(0)
}

/// An id argument: the low 32 bits, -1 meaning "leave it".
fn id(argument: u64) -> Option<u32> {
    let low = low_u32(argument);
    (low != u32::MAX).then_some(low)
}

fn owner(uid: u64, gid: u64) -> Owner {
    Owner {
        uid: id(uid),
        gid: id(gid),
    }
}

fn low_u32(argument: u64) -> u32 {
    u32::try_from(argument & 0xffff_ffff).unwrap_or(u32::MAX)
}

fn low_i32(argument: u64) -> i32 {
    low_u32(argument).cast_signed()
}

/// The caller died, or a signal interrupted the wait: nothing to answer.
fn gone(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: i64, args: [u64; 6]) -> Call {
        let tid = nix::unistd::getpid().as_raw();
        Call {
            id: 1,
            tid,
            number,
            args,
        }
    }

    #[test]
    fn results_are_written_into_the_callers_memory() {
        let creds = Creds::new(33, 7, vec![7, 9]);
        let mut out = [9u32; 3];
        let at = |i: usize| out.as_ptr() as u64 + 4 * i as u64;
        let args = [at(0), at(1), at(2), 0, 0, 0];
        assert_eq!(get(&creds, &call(libc::SYS_getresuid, args)), Some(Ok(0)));
        assert_eq!(std::hint::black_box(&mut out), &mut [33, 33, 33]);
        let args = [2, out.as_mut_ptr() as u64, 0, 0, 0, 0];
        assert_eq!(get(&creds, &call(libc::SYS_getgroups, args)), Some(Ok(2)));
        assert_eq!(std::hint::black_box(&mut out)[..2], [7, 9]);
        assert_eq!(
            get(&creds, &call(libc::SYS_getgroups, [1, 0, 0, 0, 0, 0])),
            Some(Err(Errno::EINVAL))
        );
        assert_eq!(get(&creds, &call(libc::SYS_getgroups, [0; 6])), Some(Ok(2)));
    }

    #[test]
    fn a_start_survives_the_socket() {
        let (a, b) = file::message_pair().unwrap();
        let start = Start {
            init: Pid::from_raw(7),
            uid: 33,
            gid: 44,
            groups: vec![44, 50],
        };
        let fd: OwnedFd = tempfile::tempfile().unwrap().into();
        serve_too(&a, &fd, &start).unwrap();
        let (message, fd) = file::receive_message(&b, START).unwrap().unwrap();
        assert!(fd.is_some());
        let (pid, creds) = starts_as(&message).unwrap();
        assert_eq!((pid, creds), (7, Creds::new(33, 44, vec![44, 50])));
        assert!(starts_as(&message[..8]).is_none());
    }

    #[test]
    fn only_the_low_half_of_a_register_is_an_id() {
        let mut creds = Creds::new(0, 0, vec![]);
        let minus_one = [0xdead_0000_ffff_ffff, 0xffff_ffff, 0xffff_ffff, 0, 0, 0];
        assert_eq!(
            set(
                &mut creds,
                &call(libc::SYS_setresuid, minus_one),
                &|| Ok(())
            ),
            Ok(0)
        );
        assert_eq!(creds, Creds::new(0, 0, vec![]));
        let five = [0xdead_0000_0000_0005, 0, 0, 0, 0, 0];
        assert_eq!(
            set(&mut creds, &call(libc::SYS_setuid, five), &|| Ok(())),
            Ok(0)
        );
        assert_eq!(creds.uid.real, 5);
    }
}
