//! The runtime by itself: spawned through the library on a busybox root, without images and FUSE.
//!
//! Not a libtest program: [`rless::runtime::spawn`] needs a process with one thread. Run as root it starts
//! itself again as the user `$RLESS_TEST_USER` (default `tester`) with a helper that has its
//! capabilities; run as a user it takes what that user has. `runtime NAME…` runs only cases whose names contain NAME.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic
)]

mod bench;
mod cases;
mod idmap;
mod process;
mod threats;
mod world;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use world::World;

/// One case: a name that says the behaviour, and what checks it.
type Case = (&'static str, fn(&World));

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    if nix::unistd::geteuid().is_root() && std::env::var_os("RLESS_RT_STAY").is_none() {
        return as_user(&filters);
    }
    let Some(world) = World::new() else {
        eprintln!("SKIP runtime: no static busybox (package busybox-static)");
        return ExitCode::SUCCESS;
    };
    if filters == ["bench"] {
        bench::run(&world);
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    let cases = [cases::CASES, process::CASES, threats::CASES, idmap::CASES].concat();
    for (name, case) in cases {
        if !filters.is_empty() && !filters.iter().any(|f| name.contains(f.as_str())) {
            continue;
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&world)));
        let ok = ended.is_ok();
        println!(
            "test runtime::{name} ... {}",
            if ok { "ok" } else { "FAILED" }
        );
        if !ok {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

/// Runs this program again as the ordinary user, with a helper installed for it.
fn as_user(filters: &[String]) -> ExitCode {
    let name = std::env::var("RLESS_TEST_USER").unwrap_or_else(|_| "tester".into());
    let Ok(Some(user)) = nix::unistd::User::from_name(&name) else {
        eprintln!("SKIP runtime: no user `{name}`");
        return ExitCode::SUCCESS;
    };
    let dir = tempfile::Builder::new()
        .prefix("rless-rt-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let helper = dir.path().join("rless-idmap");
    std::fs::copy(env!("CARGO_BIN_EXE_rless-idmap"), &helper).unwrap();
    let setcap = Command::new("setcap")
        .arg("cap_setuid,cap_setgid=ep")
        .arg(&helper)
        .status();
    if !setcap.is_ok_and(|s| s.success()) {
        eprintln!("SKIP runtime: the helper's cases (setcap failed; package libcap2-bin)");
    }
    let program = dir.path().join("runtime");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let status = Command::new(&program)
        .args(filters)
        .current_dir("/")
        .env_clear()
        .env("PATH", path)
        .env("RLESS_RT_SECRET", "host-secret")
        // How many starts the race has: 10000 for THREATS, few by default.
        .env(
            "RLESS_RT_STARTS",
            std::env::var("RLESS_RT_STARTS").unwrap_or_default(),
        )
        .groups_and_ids(&user)
        .status()
        .unwrap();
    if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Becoming a user in a child.
trait AsUser {
    fn groups_and_ids(&mut self, user: &nix::unistd::User) -> &mut Self;
}

impl AsUser for Command {
    fn groups_and_ids(&mut self, user: &nix::unistd::User) -> &mut Self {
        // std drops the supplementary groups when root changes the uid.
        self.uid(user.uid.as_raw()).gid(user.gid.as_raw())
    }
}
