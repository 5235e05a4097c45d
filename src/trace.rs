//! Time marks of the start-up path, for whoever counts hand-overs.
//!
//! With the environment's `RLESS_TRACE=FILE` each [`mark`] appends one line to FILE:
//! `microseconds pid text` (CLOCK_MONOTONIC, one `write(2)` with O_APPEND, so that several processes
//! can share it). Without it a mark costs one load.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

static SINK: OnceLock<Option<File>> = OnceLock::new();

/// Appends a line to the trace, if there is one.
pub fn mark(text: &str) {
    let sink = SINK.get_or_init(|| {
        let path = std::env::var_os("RLESS_TRACE")?;
        OpenOptions::new().append(true).create(true).open(path).ok()
    });
    if let Some(mut file) = sink.as_ref() {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let micros = now.map_or(0, |t| t.tv_sec() * 1_000_000 + t.tv_nsec() / 1000);
        let line = format!("{micros} {} {text}\n", std::process::id());
        let _ = file.write_all(line.as_bytes());
    }
}
