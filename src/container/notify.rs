//! Telling the service manager that runs us how the container is (`--sdnotify`; sd_notify(3)).
//!
//! | mode | who says READY=1 |
//! |---|---|
//! | `container` | the container: it finds a socket of ours at [`INSIDE`], and its supervisor passes on what may be |
//! | `conmon` | the supervisor, when the command has been executed |
//! | `healthy` | the supervisor, when a health check has passed |
//! | `ignore` | nobody |
//!
//! The manager's socket is the `NOTIFY_SOCKET` of who starts the container; without one nothing of this happens. The
//! container never gets that socket itself: it would be the manager's word against ours who the main process is. The
//! supervisor says so (`MAINPID`), and passes on readiness, status and the watchdog's signs of life.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Result, ResultExt, failed, usage};

/// Where the container finds the socket, as with podman.
pub const INSIDE: &str = "/run/notify/notify.sock";
/// Its name below the container's files.
const NAME: &str = "notify.sock";
/// Messages that are taken at once: who floods the socket does not keep the supervisor from its work.
const AT_ONCE: usize = 16;
/// What a container may say.
const PASSED: [&str; 9] = [
    "READY",
    "RELOADING",
    "STOPPING",
    "STATUS",
    "ERRNO",
    "BUSERROR",
    "WATCHDOG",
    "MONOTONIC_USEC",
    "EXTEND_TIMEOUT_USEC",
];

/// `--sdnotify`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The container tells.
    #[default]
    Container,
    /// It is ready when it runs.
    Conmon,
    /// It is ready when it is healthy.
    Healthy,
    /// Nothing is told.
    Ignore,
}

impl Mode {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Mode::Container => "container",
            Mode::Conmon => "conmon",
            Mode::Healthy => "healthy",
            Mode::Ignore => "ignore",
        }
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Mode> {
        Ok(match word {
            "" | "container" => Mode::Container,
            "conmon" => Mode::Conmon,
            "healthy" => Mode::Healthy,
            "ignore" => Mode::Ignore,
            other => {
                let text = format!(
                    "invalid sdnotify value {other:?}: must be conmon, container, healthy or ignore"
                );
                return Err(usage(text).into());
            }
        })
    }
}

/// A manager that is to be told.
#[derive(Debug)]
pub struct Notify {
    /// By whom.
    pub mode: Mode,
    manager: OsString,
    proxy: Option<UnixDatagram>,
}

impl Notify {
    /// For a container that is about to start, whose files are in `dir`; `None`: nobody is to be told.
    ///
    /// # Errors
    /// The container's socket cannot be made.
    pub fn prepare(mode: Mode, dir: &Path) -> Result<Option<Notify>> {
        let manager = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let Some(manager) = manager.filter(|_| mode != Mode::Ignore) else {
            return Ok(None);
        };
        let proxy = (mode == Mode::Container).then(|| listen(dir)).transpose();
        let proxy = proxy.fault(|| failed("making the container's notification socket"))?;
        Ok(Some(Notify {
            mode,
            manager,
            proxy,
        }))
    }

    /// The file to be mounted at [`INSIDE`], below the container's files `dir`.
    #[must_use]
    pub fn file(&self, dir: &Path) -> Option<PathBuf> {
        self.proxy.as_ref().map(|_| dir.join(NAME))
    }

    /// Readable when the container has something to say.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.proxy.as_ref().map(AsFd::as_fd)
    }

    /// The container's command has been executed; `main` is the process to be watched.
    pub fn started(&self, main: u32) {
        let ready = match self.mode {
            Mode::Conmon => "\nREADY=1",
            _ => "",
        };
        self.tell(&format!("MAINPID={main}{ready}"));
    }

    /// A health check has passed.
    pub fn healthy(&self) {
        if self.mode == Mode::Healthy {
            self.tell("READY=1");
        }
    }

    /// Passes on what the container has said. Descriptors that came along are closed, which is all that a barrier wants.
    pub fn pass_on(&self) {
        let Some(proxy) = &self.proxy else {
            return;
        };
        let mut buffer = [0; 4096];
        for _ in 0..AT_ONCE {
            let Ok(n) = proxy.recv(&mut buffer) else {
                return;
            };
            let text = passed(&buffer[..n]);
            if !text.is_empty() {
                self.tell(&text);
            }
        }
    }

    /// A manager that does not listen is its own affair.
    fn tell(&self, text: &str) {
        if let Err(e) = send(&self.manager, text) {
            crate::trace::mark(&format!("telling the service manager: {e}"));
        }
    }
}

fn send(to: &OsString, text: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let address = match to.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(to)?,
    };
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// A socket that everyone in the container may send to.
fn listen(dir: &Path) -> Result<UnixDatagram> {
    let path = dir.join(NAME);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    // A socket's name is short (108 bytes): it is bound below the directory's descriptor.
    let held = File::open(dir)?;
    let socket = UnixDatagram::bind(format!("/proc/self/fd/{}/{NAME}", held.as_raw_fd()))?;
    socket.set_nonblocking(true)?;
    fs::set_permissions(&path, Permissions::from_mode(0o777))?;
    Ok(socket)
}

/// The lines of a message that a container may say.
fn passed(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let may = |line: &&str| {
        line.split_once('=')
            .is_some_and(|(k, _)| PASSED.contains(&k))
    };
    let lines: Vec<&str> = text.lines().filter(may).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_says_how_it_is_and_not_who() {
        assert_eq!(passed(b"READY=1"), "READY=1");
        assert_eq!(
            passed(b"MAINPID=1\nSTATUS=up and=well\nFDSTORE=1\n\nREADY=1\nREADY"),
            "STATUS=up and=well\nREADY=1"
        );
        assert_eq!(passed(b"BARRIER=1"), "");
        assert_eq!(passed(b"\xff\0"), "");
    }

    #[test]
    fn messages_go_to_paths_and_to_abstract_names() {
        let dir = tempfile::tempdir().unwrap();
        let socket = listen(dir.path()).unwrap();
        let mut buffer = [0; 64];
        send(&dir.path().join(NAME).into_os_string(), "READY=1").unwrap();
        assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
        // Once more over one that is there.
        drop(socket);
        listen(dir.path()).unwrap();
        let name = format!("rless-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(&format!("@{name}").into(), "STATUS=x").unwrap();
        assert_eq!(socket.recv(&mut buffer).unwrap(), 8);
        assert!(send(&"@nobody-is-there".into(), "x").is_err());
    }
}
