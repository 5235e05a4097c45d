//! A supervisor's ends of a process's standard streams: the container's first process's, or an exec session's.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::unistd::{pipe2, read, write};

use super::Stream;
use crate::container::protocol::CHUNK;
use crate::error::Result;
use crate::sys::tty::{self, WindowSize};

/// Most bytes that a pipe of an ordinary user holds (`/proc/sys/fs/pipe-max-size`).
pub(super) const PIPE_MOST: usize = 1 << 20;

/// What the process writes to and reads from, from outside; nothing here blocks.
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
    peer: Option<OwnedFd>,
    /// Input that the process has not taken yet.
    pending: VecDeque<u8>,
}

/// What a look at an output gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many bytes.
    Bytes(usize),
    /// Nothing, but there may be something.
    Again,
    /// Nothing for now, or for good.
    Nothing,
}

impl Streams {
    /// /dev/null three times, for the process, and no ends of ours: it has a terminal, or nobody who listens.
    ///
    /// # Errors
    /// There is no /dev/null.
    pub(super) fn none() -> Result<([OwnedFd; 3], Streams)> {
        Ok(([null()?, null()?, null()?], Streams::default()))
    }

    /// Pipes: the process's ends, and ours. Standard input is /dev/null unless it is `interactive`.
    ///
    /// # Errors
    /// No descriptors left.
    pub(super) fn pipes(interactive: bool) -> Result<([OwnedFd; 3], Streams)> {
        let mut ours = Streams::default();
        let pipe = || pipe2(OFlag::O_CLOEXEC).context("making pipes for the standard streams");
        let input = if interactive {
            let (read, write) = pipe()?;
            nonblocking(&write)?;
            ours.input = Some(write);
            read
        } else {
            null()?
        };
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = pipe()?;
        nonblocking(&out_read)?;
        nonblocking(&err_read)?;
        ours.output = Some(out_read);
        ours.errors = Some(err_read);
        Ok(([input, out_write, err_write], ours))
    }

    /// The process has this terminal.
    ///
    /// # Errors
    /// As fcntl(2).
    pub(super) fn set_terminal(&mut self, pty: OwnedFd) -> Result<()> {
        nonblocking(&pty)?;
        self.peer = tty::peer(&pty).ok();
        self.pty = Some(pty);
        Ok(())
    }

    /// Gives the terminal, if there is one, another size.
    pub(super) fn resize(&self, rows: u16, columns: u16) {
        if let Some(pty) = &self.pty {
            let _ = tty::set_window_size(pty, WindowSize { rows, columns });
        }
    }

    /// Takes input, if the process has a standard input, to be written by [`Streams::write`].
    pub(super) fn put(&mut self, bytes: &[u8]) {
        if self.input.is_some() || self.pty.is_some() {
            self.pending.extend(bytes);
        }
    }

    /// There is input to be written.
    pub(super) fn writes(&self) -> bool {
        !self.pending.is_empty()
    }

    /// More input is welcome.
    pub(super) fn hungry(&self) -> bool {
        self.pending.len() < CHUNK
    }

    /// Writes what input the process takes now; when all is written and it has `ended`, closes it. `flags`: what
    /// poll(2) said of it.
    pub(super) fn write(&mut self, flags: PollFlags, ended: bool) {
        let Some(fd) = self.input.as_ref().or(self.pty.as_ref()) else {
            self.pending.clear();
            return;
        };
        let mut broken = flags.contains(PollFlags::POLLERR) && self.pty.is_none();
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
        if broken || (ended && self.pending.is_empty()) {
            self.input = None;
        }
    }

    /// Reads a piece of an output.
    pub(super) fn read(&mut self, stream: Stream, buffer: &mut [u8; CHUNK]) -> Piece {
        let slot = match (stream, self.pty.is_some()) {
            (Stream::Out, true) => &mut self.pty,
            (Stream::Out, false) => &mut self.output,
            (Stream::Err, _) => &mut self.errors,
        };
        let Some(fd) = slot.as_ref() else {
            return Piece::Nothing;
        };
        match read(fd, buffer) {
            Ok(n) if n > 0 => Piece::Bytes(n),
            Err(Errno::EINTR) => Piece::Again,
            Err(Errno::EAGAIN) => Piece::Nothing,
            // End of file. (A terminal has none: its other side is held open.)
            _ => {
                *slot = None;
                Piece::Nothing
            }
        }
    }

    /// Nobody reads output number `stream` any more: as for a local program, its next write is a broken pipe.
    pub(super) fn close(&mut self, stream: u8) {
        match stream {
            1 => self.output = None,
            _ => self.errors = None,
        }
    }
}

fn null() -> Result<OwnedFd> {
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).open("/dev/null");
    Ok(file.context("opening /dev/null")?.into())
}

fn nonblocking(fd: impl AsFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("making a descriptor non-blocking")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_does_not_fit_waits_and_ends_behind_the_last_byte() {
        let ([input, ..], mut ours) = Streams::pipes(true).unwrap();
        ours.put(&[7; 100_000]); // more than a pipe holds
        ours.write(PollFlags::POLLOUT, true);
        assert!(ours.writes() && !ours.hungry() && ours.input.is_some());
        let (mut got, mut buffer) = (0, [0; CHUNK]);
        while got < 100_000 {
            got += read(&input, &mut buffer).unwrap();
            ours.write(PollFlags::POLLOUT, true);
        }
        assert!(!ours.writes() && ours.input.is_none());
        assert_eq!(read(&input, &mut buffer), Ok(0), "the end of the input");
        ours.put(b"late");
        assert!(!ours.writes(), "there is no input any more");
    }

    #[test]
    fn outputs_are_read_until_their_end() {
        let ([_, out, err], mut ours) = Streams::pipes(false).unwrap();
        let mut buffer = [0; CHUNK];
        assert_eq!(ours.read(Stream::Out, &mut buffer), Piece::Nothing);
        write(&out, b"out").unwrap();
        assert_eq!(ours.read(Stream::Out, &mut buffer), Piece::Bytes(3));
        drop(out);
        assert_eq!(ours.read(Stream::Out, &mut buffer), Piece::Nothing);
        assert!(ours.output.is_none() && ours.errors.is_some());
        ours.close(2);
        assert_eq!(write(&err, b"x"), Err(Errno::EPIPE));
    }
}
