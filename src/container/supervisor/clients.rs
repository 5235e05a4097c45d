//! Attached clients, from the supervisor's side: queues that never block it.
//!
//! The first client is the process that ran `rless run`: while it is slow the container's output
//! is not read, so that a pipe behaves as for a local program. Clients that attach later must
//! not be able to stop a service by stopping their terminal: one that falls [`FAR_BEHIND`] is dropped.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, sockopt};
use nix::unistd::Pid;

use crate::container::protocol::{FRAME, Frame};
use crate::container::record::Process;
use crate::container::{ask, host};
use crate::error::Result;

/// Queued bytes from which on the first client holds the container's output back.
const HOLD_BACK: usize = 256 * 1024;
/// How long a client that joins waits to be let in, while more of them wait than the supervisor has places for.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Queued bytes at which a later client is dropped.
const FAR_BEHIND: usize = 4 * 1024 * 1024;

/// A connection to one client.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    /// Came with the start of the container, not through the attach socket.
    pub(super) first: bool,
    /// Has said hello (the first client need not).
    pub(super) welcome: bool,
    gone: bool,
    /// It gets its answer when the container has ended for good.
    pub(super) awaits_end: bool,
    /// It gets its answer when what runs has ended, whatever comes after.
    pub(super) awaits_exit: bool,
    /// It gets its answer when the container has been started again.
    pub(super) awaits_restart: bool,
    /// It gets its answer when the health check of this number has ended.
    pub(super) awaits_check: Option<u64>,
    /// The container is frozen for as long as it is there.
    pub(super) holds: bool,
    /// Pieces of what it will ask for.
    partial: Vec<u8>,
    /// Bytes of input taken and not yet acknowledged.
    owed: u32,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, first: bool) -> Client {
        Client {
            socket,
            queue: VecDeque::new(),
            queued: 0,
            first,
            welcome: first,
            gone: false,
            awaits_end: false,
            awaits_exit: false,
            awaits_restart: false,
            awaits_check: None,
            holds: false,
            partial: Vec::new(),
            owed: 0,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn gone(&self) -> bool {
        self.gone
    }

    pub(super) fn leave(&mut self) {
        self.gone = true;
    }

    pub(super) fn waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The container's output must not be read for now.
    pub(super) fn holds_back(&self) -> bool {
        self.first && self.queued >= HOLD_BACK
    }

    /// Keeps a piece of a question; a client that never ends one is dropped.
    pub(super) fn keep(&mut self, piece: &[u8]) {
        self.partial.extend_from_slice(piece);
        self.gone |= self.partial.len() > FAR_BEHIND;
    }

    /// The whole question that `last` ends.
    pub(super) fn whole(&mut self, last: &[u8]) -> Vec<u8> {
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(last);
        whole
    }

    /// Answers its question.
    pub(super) fn answer(&mut self, result: Result<serde_json::Value>) {
        (self.awaits_end, self.awaits_exit) = (false, false);
        for packet in ask::answer(result) {
            self.send(packet);
        }
    }

    /// Sends a frame, now or when the client takes it.
    pub(super) fn push(&mut self, frame: &Frame<'_>) {
        self.send(frame.encode());
    }

    fn send(&mut self, packet: Vec<u8>) {
        if self.gone {
            return;
        }
        self.queued += packet.len();
        self.queue.push_back(packet);
        self.flush();
        if !self.first && self.queued > FAR_BEHIND {
            self.gone = true;
        }
    }

    /// Remembers input to acknowledge when the container has taken more of it.
    pub(super) fn owe(&mut self, bytes: u32) {
        self.owed += bytes;
    }

    /// Acknowledges the input that was owed.
    pub(super) fn settle(&mut self) {
        if self.owed > 0 {
            let owed = std::mem::take(&mut self.owed);
            self.push(&Frame::StdinAck(owed));
        }
    }

    /// Sends what is queued until the socket is full.
    pub(super) fn flush(&mut self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while let Some(packet) = self.queue.front() {
            match send(self.socket.as_raw_fd(), packet, flags) {
                Ok(_) => {
                    self.queued -= packet.len();
                    self.queue.pop_front();
                }
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// The next packet; `None` when there is none now, or the connection is somebody else's to read from by now. An end
    /// of file makes the client gone.
    pub(super) fn receive(&mut self, buffer: &mut [u8; FRAME]) -> Option<usize> {
        while !self.gone {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => self.gone = true,
                Ok(n) => return Some(n),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => {}
                Err(_) => self.gone = true,
            }
            return None;
        }
        None
    }
}

/// The last bytes that were written, for clients that come later.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pieces: VecDeque<(super::Stream, Vec<u8>)>,
    bytes: usize,
}

impl Backlog {
    const KEEP: usize = 64 * 1024;

    pub(super) fn add(&mut self, stream: super::Stream, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.pieces.push_back((stream, bytes.to_vec()));
        while self.bytes > Self::KEEP && self.pieces.len() > 1 {
            self.bytes -= self.pieces.pop_front().map_or(0, |(_, b)| b.len());
        }
    }

    pub(super) fn replay(&self, client: &mut Client) {
        for (stream, bytes) in &self.pieces {
            client.push(&super::output_frame(*stream, bytes));
        }
    }
}

/// The attach socket: `attach` in `dir`.
///
/// # Errors
/// It cannot be made.
pub(super) fn listen(dir: &std::path::Path) -> io::Result<OwnedFd> {
    use nix::sys::socket::{
        AddressFamily, Backlog as Pending, SockFlag, SockType, UnixAddr, bind, listen, socket,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // A socket's name is short (108 bytes): it is bound below the directory's descriptor.
    let held = std::fs::File::open(dir)?;
    let path = format!("/proc/self/fd/{}/attach", held.as_raw_fd());
    // One that is there is a dead supervisor's: the container's lock is held.
    let _ = std::fs::remove_file(&path);
    bind(listener.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    listen(&listener, Pending::new(128)?)?;
    Ok(listener)
}

/// A connection to the attach socket in `dir`, for a client.
///
/// # Errors
/// Nobody listens; `WouldBlock`: so many wait to be heard that there was no place for `patience`.
pub fn connect(dir: &std::path::Path, patience: Duration) -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    // A supervisor that stands still must not hold its clients where they cannot look at the clock.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let held = std::fs::File::open(dir)?;
    let path = format!("/proc/self/fd/{}/attach", held.as_raw_fd());
    let address = UnixAddr::new(path.as_str())?;
    let began = Instant::now();
    loop {
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => break,
            Err(Errno::EAGAIN) if began.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(socket)
}

/// Who listens on the attach socket in `dir`, told by the kernel: the supervisor, before its record says so.
pub fn listening(dir: &std::path::Path) -> Option<Process> {
    let peer = || {
        let socket = connect(dir, Duration::ZERO).ok()?;
        let credentials = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
        Some(Pid::from_raw(credentials.pid()))
    };
    let pid = peer()?;
    let found = host::process(pid);
    // It listens after that look, too: the number was its own then.
    found.filter(|_| peer() == Some(pid))
}

/// Takes one connection from the attach socket.
pub(super) fn accept(listener: BorrowedFd<'_>) -> Option<OwnedFd> {
    crate::sys::supervise::accept(listener).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::supervisor::Stream;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    fn pair(first: bool) -> (Client, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        (Client::new(a, first), b)
    }

    #[test]
    fn a_slow_first_client_holds_back_and_loses_nothing() {
        let (mut client, other) = pair(true);
        let piece = [7; 32 * 1024];
        let mut sent = 0;
        while !client.holds_back() {
            client.push(&Frame::Stdout(&piece));
            sent += piece.len();
        }
        let mut buffer = [0; FRAME];
        let mut got = 0;
        while got < sent {
            let n = recv(other.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            got += n - 1;
            client.flush();
        }
        assert!(!client.waiting() && !client.gone());
    }

    #[test]
    fn a_later_client_far_behind_is_dropped() {
        let (mut client, _other) = pair(false);
        for _ in 0..1000 {
            client.push(&Frame::Stdout(&[0; 32 * 1024]));
            assert!(!client.holds_back());
        }
        assert!(client.gone());
    }

    #[test]
    fn backlog_keeps_the_last_bytes_in_order() {
        let mut backlog = Backlog::default();
        for i in 0..100u8 {
            backlog.add(Stream::Out, &[i; 1024]);
        }
        let (mut client, other) = pair(true);
        backlog.replay(&mut client);
        let mut buffer = [0; FRAME];
        let n = recv(other.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        assert_eq!(
            Frame::decode(&buffer[..n]),
            Some(Frame::Stdout(&[36; 1024]))
        );
    }

    #[test]
    fn attach_socket_is_reached_below_a_long_path() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep).unwrap();
        assert!(accept(listener.as_fd()).is_none());
        assert_eq!(listening(&deep), host::process(Pid::this()));
        while accept(listener.as_fd()).is_some() {}
        let client = connect(&deep, Duration::ZERO).unwrap();
        let mut server = Client::new(accept(listener.as_fd()).unwrap(), false);
        drop(client);
        assert_eq!(server.receive(&mut [0; FRAME]), None);
        assert!(server.gone());
    }

    #[test]
    fn who_does_not_listen_holds_nobody_who_connects() {
        let dir = tempfile::tempdir().unwrap();
        let listener = listen(dir.path()).unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            match connect(dir.path(), Duration::from_millis(20)) {
                Ok(socket) => waiting.push(socket),
                Err(e) => break e,
            }
            assert!(waiting.len() < 10_000, "there is no bound");
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert!(connect(dir.path(), Duration::ZERO).is_err() && listening(dir.path()).is_none());
    }
}
