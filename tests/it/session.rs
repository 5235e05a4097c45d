//! A shell in a container, spoken to over pipes: `run -i IMAGE sh` whose commands' ends are seen.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::harness::Cmd;

/// A container's shell that waits for commands.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Session {
    /// Starts `cmd`, which must end in a POSIX shell that reads its standard input, and waits until
    /// that shell answers.
    pub(crate) fn start(cmd: &Cmd) -> Session {
        let mut session = Session::begin(cmd);
        session.ok("true", Duration::from_secs(300));
        session
    }

    /// Starts `cmd` and does not wait.
    pub(crate) fn begin(cmd: &Cmd) -> Session {
        let mut child = cmd.spawn();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let (shared, stderr) = (std::sync::Arc::clone(&errors), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = shared.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        let stdin = child.stdin.take();
        Session {
            child,
            stdin,
            lines,
            errors,
        }
    }

    /// Runs a command and returns its exit code and what it printed on either stream.
    ///
    /// # Panics
    /// When the shell is gone or the command takes longer than `limit`.
    pub(crate) fn sh(&mut self, command: &str, limit: Duration) -> (i32, String) {
        let until = Instant::now() + limit;
        let stdin = self.stdin.as_mut().expect("the session is open");
        let sent = write!(
            stdin,
            "{{ {command}\n}} 2>&1 </dev/null; echo \"=END= $?\"\n"
        );
        sent.and_then(|()| stdin.flush())
            .unwrap_or_else(|e| panic!("`{command}`: {e}: {}", self.error_text()));
        let mut output = String::new();
        loop {
            match self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(line) => match line.rsplit_once("=END= ") {
                    Some((before, code)) => {
                        output.push_str(before);
                        return (code.parse().unwrap(), output);
                    }
                    None => {
                        output.push_str(&line);
                        output.push('\n');
                    }
                },
                Err(RecvTimeoutError::Timeout) => {
                    panic!(
                        "`{command}` takes longer than {limit:?}: {output}{}",
                        self.error_text()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!(
                        "the container ended in `{command}`: {output}{}",
                        self.error_text()
                    )
                }
            }
        }
    }

    /// [`Session::sh`] that must succeed.
    pub(crate) fn ok(&mut self, command: &str, limit: Duration) -> String {
        let (code, output) = self.sh(command, limit);
        assert_eq!(code, 0, "`{command}`: {output}{}", self.error_text());
        output
    }

    /// What came on rless's standard error.
    pub(crate) fn error_text(&self) -> String {
        std::thread::sleep(Duration::from_millis(50)); // the reader may be a line behind
        self.errors.lock().unwrap().clone()
    }

    /// Ends the shell by the end of its input; returns the exit code.
    pub(crate) fn end(mut self) -> i32 {
        drop(self.stdin.take());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if std::thread::panicking() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}
