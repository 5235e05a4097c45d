//! A program on a real pseudo-terminal, driven as a person would: type, wait for text, resize.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::harness::{Cmd, SLOWNESS, host};

/// How long a text may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long after the program's end what it wrote may still be on its way.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A program and the master side of its terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    child: Child,
    master: File,
    /// Kept open so that the terminal outlives the program and its settings can be read afterwards.
    slave: File,
    /// `/dev/pts/N`.
    name: String,
    screen: Arc<(Mutex<Screen>, Condvar)>,
    seen: usize,
}

/// What has come out of the terminal so far.
#[derive(Debug, Default)]
struct Screen {
    bytes: Vec<u8>,
}

impl Pty {
    /// Starts the command as the leader of a session whose controlling terminal is a new pty of
    /// `rows` and `cols`.
    pub(crate) fn start(cmd: Cmd, rows: u16, cols: u16) -> Pty {
        let size = nix::pty::Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = nix::pty::openpty(&size, None).unwrap();
        let slave = File::from(pair.slave);
        let master = File::from(pair.master);
        let name = nix::unistd::ttyname(&slave)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        // The terminal is the account's, as a login would have it.
        let cmd = cmd.wrapped(["setsid", "--ctty", "--wait"]);
        let mut command = cmd.build();
        let clone = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(clone()).stdout(clone()).stderr(clone());
        std::os::unix::fs::chown(&name, cmd.uid(), None).unwrap();
        let child = command.spawn().unwrap();
        let screen = Arc::<(Mutex<Screen>, Condvar)>::default();
        let (shared, mut reader) = (Arc::clone(&screen), master.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            loop {
                let length = reader.read(&mut block).unwrap_or(0);
                let mut screen = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                screen.bytes.extend_from_slice(&block[..length]);
                shared.1.notify_all();
                if length == 0 {
                    break;
                }
            }
        });
        Pty {
            child,
            master,
            slave,
            name,
            screen,
            seen: 0,
        }
    }

    /// Types `text`.
    pub(crate) fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Types a line.
    pub(crate) fn line(&mut self, text: &str) {
        self.send(&format!("{text}\r"));
    }

    /// Waits for `text` in what came after the last match and returns what stood before it.
    ///
    /// # Panics
    /// When it does not appear in time.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        self.expect_within(text, PATIENCE)
    }

    /// [`Pty::expect`] with a limit of its own, [`SLOWNESS`] times which it waits.
    pub(crate) fn expect_within(&mut self, text: &str, limit: Duration) -> String {
        let limit = limit * SLOWNESS;
        let until = Instant::now() + limit;
        let mut ended = None;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                ended.get_or_insert((status, Instant::now()));
            }
            let screen = self.screen.0.lock().unwrap_or_else(PoisonError::into_inner);
            let new = &screen.bytes[self.seen..];
            if let Some(at) = find(new, text.as_bytes()) {
                let before = String::from_utf8_lossy(&new[..at]).into_owned();
                self.seen += at + text.len();
                return before;
            }
            let shown = String::from_utf8_lossy(new).into_owned();
            assert!(
                ended.is_none_or(|(_, when)| when.elapsed() <= LAST_WORDS),
                "it ended ({ended:?}) before {text:?}: {shown}"
            );
            assert!(
                Instant::now() < until,
                "no {text:?} on the terminal within {limit:?}: {shown}"
            );
            drop(
                self.screen
                    .1
                    .wait_timeout(screen, Duration::from_millis(200)),
            );
        }
    }

    /// Runs a shell command and returns its output: for shells that print `prompt`.
    pub(crate) fn shell(&mut self, command: &str, prompt: &str) -> String {
        // The echo of the typed line must not look like the end marker: it is put together by the shell.
        self.line(&format!("{command}; echo EN''D=$?"));
        self.expect("EN''D=$?");
        let output = self.expect("END=");
        self.expect(prompt);
        output.replace('\r', "")
    }

    /// Changes the size; the kernel sends SIGWINCH to the foreground process group.
    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        host(&format!("stty -F {} rows {rows} cols {cols}", self.name));
    }

    /// The terminal's settings, as `stty -g` prints them.
    pub(crate) fn settings(&self) -> String {
        host(&format!("stty -F {} -g", self.name))
    }

    /// The program's process.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Waits for the program's end and returns its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    pub(crate) fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        let until = Instant::now() + PATIENCE * SLOWNESS;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status
                    .code()
                    .or_else(|| status.signal().map(|s| 128 + s))
                    .unwrap_or(-1);
            }
            assert!(Instant::now() < until, "still running: {}", self.shown());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything that came out since the last match.
    pub(crate) fn shown(&self) -> String {
        let screen = self.screen.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen.bytes[self.seen..]).into_owned()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // The reader thread ends when the last slave is closed, which happens with this value.
        let _ = &self.slave;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
