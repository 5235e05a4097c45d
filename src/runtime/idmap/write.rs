//! Writing planned maps: by ourselves or through a helper process.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use nix::unistd::Pid;

use super::{IdRange, Mapping, Rung, tools};
use crate::error::{Result, failed};

/// Maps that are being written.
#[derive(Debug)]
pub struct Pending {
    helpers: Vec<(PathBuf, Child)>,
}

/// Writes `mapping` for the user namespace of `pid`, which must be a child that is waiting.
///
/// # Errors
/// What the kernel or the helper said.
pub fn write(pid: Pid, mapping: &Mapping) -> Result<()> {
    start(pid, mapping)?.finish()
}

/// Begins to write: a helper runs beside the caller until [`Pending::finish`].
///
/// # Errors
/// As [`write()`].
pub fn start(pid: Pid, mapping: &Mapping) -> Result<Pending> {
    let mut pending = Pending { helpers: vec![] };
    match mapping.rung {
        Rung::Direct => direct(pid, mapping, false)?,
        Rung::SingleId => direct(pid, mapping, true)?,
        Rung::Helper => {
            let program = tools::helper().map_err(failed)?;
            let mut command = Command::new(&program);
            command.arg(pid.to_string()).arg("uid");
            arguments(&mut command, &mapping.uids);
            command.arg("gid");
            arguments(&mut command, &mapping.gids);
            pending.run(program, command)?;
        }
        Rung::Newuidmap => {
            let (uidmap, gidmap) = tools::newuidmap().map_err(failed)?;
            for (program, lines) in [(uidmap, &mapping.uids), (gidmap, &mapping.gids)] {
                let mut command = Command::new(&program);
                command.arg(pid.to_string());
                arguments(&mut command, lines);
                pending.run(program, command)?;
            }
        }
    }
    Ok(pending)
}

/// Appends `C H N` for each line.
fn arguments(command: &mut Command, lines: &[IdRange]) {
    for line in lines {
        for number in [line.container, line.host, line.count] {
            command.arg(number.to_string());
        }
    }
}

impl Pending {
    /// Starts a helper with an empty environment.
    fn run(&mut self, program: PathBuf, mut command: Command) -> Result<()> {
        let child = command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        self.helpers.push((program, child));
        Ok(())
    }

    /// Waits until the maps are written.
    ///
    /// # Errors
    /// What a helper printed.
    pub fn finish(mut self) -> Result<()> {
        let mut first = Ok(());
        for (program, mut child) in self.helpers.drain(..) {
            let mut said = Vec::new();
            if let Some(stderr) = child.stderr.take() {
                // Bounded: a helper has one line to say. Its result is what counts, so an error here does not.
                let _ = stderr.take(4096).read_to_end(&mut said);
            }
            let status = child
                .wait()
                .with_context(|| format!("waiting for {}", program.display()))?;
            if !status.success() && first.is_ok() {
                let said = String::from_utf8_lossy(&said);
                first = Err(failed(format!(
                    "writing the id maps with {}: {} ({status})",
                    program.display(),
                    said.trim()
                ))
                .hint(
                    "`rless info` shows the mapping in use; /etc/subuid and /etc/subgid must grant its ids",
                )
                .into());
            }
        }
        first
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        for (_, child) in &mut self.helpers {
            // Not finished: nothing will use the maps. Best effort, both fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes the files ourselves.
fn direct(pid: Pid, mapping: &Mapping, deny_setgroups: bool) -> Result<()> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    put(&proc.join("uid_map"), &text(&mapping.uids))?;
    if deny_setgroups {
        put(&proc.join("setgroups"), "deny")?;
    }
    put(&proc.join("gid_map"), &text(&mapping.gids))
}

/// The text of a map.
fn text(lines: &[IdRange]) -> String {
    lines.iter().fold(String::new(), |mut text, l| {
        let _ = writeln!(text, "{} {} {}", l.container, l.host, l.count);
        text
    })
}

/// One write(2) of the whole text, as these files demand.
fn put(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {text:?} to {}", path.display()))
}
