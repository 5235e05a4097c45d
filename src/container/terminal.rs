//! The caller's terminal: raw mode that always ends, and the keys that detach.

use std::io::{self, Stdin};
use std::os::fd::AsFd;

use nix::sys::termios::{self, SetArg, Termios};

use crate::error::{Result, usage};
use crate::sys::tty::{WindowSize, window_size};

/// The terminal on standard input in raw mode, until this is dropped.
#[derive(Debug)]
pub struct Raw {
    saved: Termios,
    stdin: Stdin,
}

impl Raw {
    /// Switches the terminal on standard input to raw mode.
    ///
    /// # Errors
    /// It is no terminal, or it hung up.
    pub fn enter() -> io::Result<Raw> {
        let stdin = io::stdin();
        let saved = termios::tcgetattr(&stdin)?;
        let raw = Raw { saved, stdin };
        raw.resume()?;
        Ok(raw)
    }

    /// Raw mode again, after [`Raw::suspend`].
    ///
    /// # Errors
    /// The terminal hung up.
    pub fn resume(&self) -> io::Result<()> {
        let mut mode = self.saved.clone();
        termios::cfmakeraw(&mut mode);
        Ok(termios::tcsetattr(&self.stdin, SetArg::TCSADRAIN, &mode)?)
    }

    /// The mode the terminal had before.
    pub fn suspend(&self) {
        // A terminal that hung up has no mode to restore.
        let _ = termios::tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.saved);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.suspend();
    }
}

/// Size of the caller's terminal: of the first standard stream that is one.
#[must_use]
pub fn size() -> Option<WindowSize> {
    let size = |fd: std::os::fd::BorrowedFd<'_>| {
        window_size(fd).ok().filter(|s| s.rows > 0 && s.columns > 0)
    };
    size(io::stdout().as_fd())
        .or_else(|| size(io::stdin().as_fd()))
        .or_else(|| size(io::stderr().as_fd()))
}

/// Finds the detach keys in what is typed.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// `ctrl-p,ctrl-q` and the like; an empty text switches detaching off.
    ///
    /// # Errors
    /// A key that is neither one character nor `ctrl-` and one of `a-z @ [ \ ] ^ _`.
    pub fn parse(text: &str) -> Result<DetachKeys> {
        let keys = text.split(',').filter(|k| !k.is_empty()).map(key);
        Ok(DetachKeys {
            keys: keys.collect::<Result<_>>()?,
            matched: 0,
        })
    }

    /// Splits typed bytes into what goes to the container, and whether the keys are complete.
    /// A beginning of the keys is held back until it is known what it was.
    pub fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(byte));
            if self.matched == 0 || self.keys.len() == 1 {
                self.matched = 0;
                out.push(*byte);
            }
        }
        (out, false)
    }
}

fn key(text: &str) -> Result<u8> {
    let bad =
        || usage(format!("invalid detach key {text:?}")).hint("as in ctrl-p,ctrl-q or ctrl-@,x");
    let (control, character) = match text.strip_prefix("ctrl-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let [byte] = character.as_bytes() else {
        return Err(bad().into());
    };
    match (control, byte) {
        (false, b) if b.is_ascii_graphic() => Ok(*b),
        (true, b @ b'a'..=b'z') => Ok(b - b'a' + 1),
        (true, b @ b'@'..=b'_') => Ok(b - b'@'),
        _ => Err(bad().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap().keys, [16, 17]);
        assert_eq!(DetachKeys::parse("ctrl-@,x").unwrap().keys, [0, b'x']);
        assert!(DetachKeys::parse("").unwrap().keys.is_empty());
        assert!(DetachKeys::parse("ctrl-").is_err());
        assert!(DetachKeys::parse("ab").is_err());
    }

    #[test]
    fn keys_detach_and_their_beginning_is_not_lost() {
        let keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        let mut k = keys.clone();
        assert_eq!(k.feed(b"ab\x10\x11cd"), (b"ab".to_vec(), true));
        let mut k = keys.clone();
        assert_eq!(k.feed(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(k.feed(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(k.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(k.feed(b"\x11"), (vec![], true));
        let mut off = DetachKeys::parse("").unwrap();
        assert_eq!(off.feed(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
