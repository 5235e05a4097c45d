//! The copy-on-write file system beside the kernel's: the same random operations on both, every answer and the
//! resulting trees compared.
//!
//! Four actors ([`fleet`]), one of them an ordinary user, work at once on our mount, and each of them does the same on
//! a twin of the tree on the host's file system (ext4, for a comparison of holes and of every errno). Names belong to
//! actors ([`ops`]), so that every answer is determined although nothing orders the actors. Between rounds all is
//! compared, the mount is ended and made again, and operations that do fight over names are judged by invariants
//! ([`contend`]). Seeds with kills end the server by SIGKILL too: after everything was synced, and in the middle of
//! operations ([`crash`] says what must be there then). A difference is made small by leaving operations out
//! ([`shrink`]).
//!
//! The outer test starts this binary again inside a user and mount namespace of the test user; the inner one mounts
//! with `rless mount-cow`. `RLESS_COW_SEED` picks one seed, `RLESS_COW_OPS` the operations of each, `RLESS_COW_SHRINK`
//! how many seconds a difference is made smaller: `tests/long random` does all of it.

mod actor;
mod contend;
mod crash;
mod faults;
mod fleet;
mod layer;
mod memory;
mod mounted;
mod ops;
mod populate;
mod posix;
mod requests;
mod shrink;
mod space;
mod tree;
mod union;

use crate::harness::{Sandbox, note_skip, prepared};
use fleet::Fleet;
pub(crate) use mounted::Mounted;
pub(crate) use requests::taken_back;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Set for the inner process: the directory to work in.
const INNER: &str = "RLESS_COW_INNER";

/// Operations of a seed in the default test run.
const OPS: u64 = 10_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// The directory to work in, for the inner process.
pub(crate) fn inner_dir() -> Option<PathBuf> {
    std::env::var_os(INNER).map(PathBuf::from)
}

/// Runs the inner test `name` in namespaces of the test user, and shows what it tells.
fn enter(name: &str, vars: &[(&str, String)]) {
    if let Some(told) = run_inner(name, vars) {
        eprint!("{told}");
    }
}

/// Runs the inner test `name` in namespaces of the test user; returns what it tells, nothing where it was skipped.
pub(crate) fn run_inner(name: &str, vars: &[(&str, String)]) -> Option<String> {
    let Some(world) = prepared() else {
        note_skip("the world of tests/run is not there");
        return None;
    };
    let sandbox = Sandbox::new(world);
    let dir = sandbox.dir.join("cow");
    sandbox.make_dir(&dir);
    let inside = || {
        let unshare = sandbox.command("/usr/bin/unshare");
        unshare.args(["-U", "--map-root-user", "--map-auto", "-m"])
    };
    let mut cmd = inside()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INNER, &dir)
        .env("RLESS_BIN", sandbox.binary());
    for (key, value) in vars {
        cmd = cmd.env(key, value);
    }
    for name in ["RLESS_COW_SEED", "RLESS_COW_OPS", "RLESS_COW_SHRINK"] {
        if let Ok(value) = std::env::var(name) {
            cmd = cmd.env(name, value);
        }
    }
    let limit = 1200 + number("RLESS_COW_OPS", 0) / 20;
    let output = cmd.within(Duration::from_secs(limit)).exits(0);
    // Files of the namespace's other users are there: only its root may remove them.
    inside().args(["rm", "-rf", "--"]).arg(&dir).ok();
    Some(output.err)
}

/// The seeds, one after the other; the directory is mounted where every user may come.
fn seeds(dir: &Path, seeds: std::ops::RangeInclusive<u64>, image: bool, kills: bool, ops: u64) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // The ordinary actor is in no group but its own: a FUSE server is not told of others (see `rless::cow`).
    nix::unistd::setgroups(&[]).unwrap();
    let here = Path::new("/mnt");
    let none = None::<&str>;
    nix::mount::mount(Some(dir), here, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
    for seed in seeds {
        let wanted = number("RLESS_COW_SEED", seed);
        if wanted != seed {
            continue;
        }
        let work = here.join(format!("seed{seed}"));
        std::fs::create_dir(&work).unwrap();
        let began = std::time::Instant::now();
        let mut fleet = Fleet::new(&work, seed, image);
        let result = fleet.run(ops, 2000.min(ops), kills);
        let done = fleet.end(seed, image, result);
        eprintln!(
            "seed {seed}: {:.1} s, {done:?}",
            began.elapsed().as_secs_f64()
        );
        assert!(
            done.worked > done.compared / 10,
            "the operations hardly do anything"
        );
        std::fs::remove_dir_all(&work).unwrap();
    }
    nix::mount::umount(here).unwrap();
}

#[test]
fn random_operations_of_four_actors_answer_as_the_kernels_file_system() {
    match inner_dir() {
        Some(dir) => seeds(&dir, 1..=5, true, false, number("RLESS_COW_OPS", OPS)),
        None => enter(
            "cow::random_operations_of_four_actors_answer_as_the_kernels_file_system",
            &[],
        ),
    }
}

#[test]
fn random_operations_with_kills_leave_what_was_synced_and_a_prefix_of_the_rest() {
    match inner_dir() {
        Some(dir) => seeds(&dir, 6..=10, true, true, number("RLESS_COW_OPS", OPS)),
        None => enter(
            "cow::random_operations_with_kills_leave_what_was_synced_and_a_prefix_of_the_rest",
            &[],
        ),
    }
}

#[test]
fn random_operations_over_a_host_directory_answer_as_the_kernels_file_system() {
    match inner_dir() {
        Some(dir) => seeds(&dir, 11..=11, false, true, number("RLESS_COW_OPS", OPS) / 2),
        None => enter(
            "cow::random_operations_over_a_host_directory_answer_as_the_kernels_file_system",
            &[],
        ),
    }
}
