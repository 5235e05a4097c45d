//! What cannot be made or started leaves nothing, or what was there, and says why.

use std::path::PathBuf;
use std::time::Duration;

use nix::libc::SYS_openat;

use crate::harness::{Sandbox, wait_for, world};
use crate::stuck::{directory, stands_in};

fn states(sandbox: &Sandbox) -> String {
    let format = "{{.Names}} {{.State}}";
    sandbox.rless(["ps", "-a", "--format", format]).ok()
}

/// strace that lets each `n`-th of `calls` of the command's own process fail.
fn failing(calls: &str, error: &str, when: &str) -> Vec<String> {
    let inject = format!("inject={calls}:error={error}{when}");
    let words = ["strace", "-o", "/dev/null", "-e", &inject];
    words.map(str::to_owned).to_vec()
}

#[test]
fn a_start_without_a_supervisor_leaves_the_container_as_it_was() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let args = "run --network none --name c busybox sh -c";
    sandbox.rless(args.split(' ')).arg("exit 3").exits(3);
    let record = directory(&sandbox, "c").join("record.json");
    let before = std::fs::read_to_string(&record).unwrap();
    let start = sandbox.rless(["start", "c"]);
    let start = start.wrapped(failing("socketpair", "EMFILE", ""));
    start.exits(125).says(&["making the supervisor's socket"]);
    assert_eq!(std::fs::read_to_string(&record).unwrap(), before);
    let live = sandbox.sh("ls \"$XDG_RUNTIME_DIR/rless/live\"").ok();
    assert_eq!(live, "");
    sandbox.rless(["start", "-a", "c"]).exits(3);
    let run = "run --network none --name d -v /v busybox true";
    let run = sandbox.rless(run.split(' '));
    run.wrapped(failing("socketpair", "EMFILE", "")).exits(125);
    assert_eq!(states(&sandbox), "c exited\n");
    assert_eq!(sandbox.rless(["volume", "ls", "-q"]).ok(), "");
    sandbox.rless(["rm", "c"]).ok();
}

#[test]
fn a_log_that_cannot_be_written_is_an_error_at_start() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let dir = sandbox.dir.join("home/logs");
    sandbox.make_dir(&dir);
    let path = dir.join("log");
    let log = format!("path={}", path.display());
    let args = [
        "create",
        "--network",
        "none",
        "--name",
        "c",
        "--log-opt",
        &log,
    ];
    let words = ["busybox", "echo", "hello"];
    sandbox.rless(args).args(words).ok();
    std::fs::remove_dir_all(&dir).unwrap();
    let start = sandbox.rless(["start", "c"]).exits(125);
    start.says(&["opening the log", path.to_str().unwrap()]);
    assert_eq!(states(&sandbox), "c created\n");
    // What waits for a reader.
    sandbox.make_dir(&dir);
    sandbox.sh(&format!("mkfifo {}", path.display())).ok();
    let short = Duration::from_secs(60);
    sandbox.rless(["start", "c"]).within(short).exits(125);
    sandbox.rless(["logs", "c"]).within(short).run();
    let mut reader = sandbox.command("/bin/cat").arg(&path).spawn();
    let process = PathBuf::from(format!("/proc/{}", reader.id()));
    wait_for("its reader", Duration::from_secs(20), || {
        let comm = std::fs::read_to_string(process.join("comm"));
        comm.is_ok_and(|c| c == "cat\n") && stands_in(&process, "S", &[SYS_openat])
    });
    let start = sandbox.rless(["start", "c"]).within(short).exits(125);
    start.says(&["not a regular file"]);
    assert!(reader.wait().unwrap().success());
    let fresh = ["run", "--rm", "--network", "none", "--log-opt", &log];
    let fresh = sandbox.rless(fresh).args(words).within(short).exits(125);
    fresh.says(&["opening the log"]);
    std::fs::remove_file(&path).unwrap();
    sandbox.rless(["start", "-a", "c"]).ok();
    assert_eq!(sandbox.rless(["logs", "c"]).ok(), "hello\n");
    sandbox.rless(["rm", "c"]).ok();
    // A device takes it, and has nothing to tell.
    let null = "run --name d --network none --log-opt path=/dev/null busybox echo hello";
    assert_eq!(sandbox.rless(null.split(' ')).ok(), "hello\n");
    assert_eq!(sandbox.rless(["logs", "d"]).ok(), "");
    sandbox.rless(["rm", "d"]).ok();
}

#[test]
fn a_create_that_fails_at_any_step_leaves_nothing() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    let args = "create --network none --name c -v /one -v /two busybox true";
    let left = "cd \"$XDG_DATA_HOME/rless\" && find containers volumes -mindepth 1 ! -name '*.lock' ! -path '*/names' \
        ! -name .new ! -name .gone; ls \"$XDG_RUNTIME_DIR/rless/live\"";
    let mut failed = 0;
    for call in ["?rename", "?fsync", "?mkdir", "?symlink"] {
        for n in 1..40 {
            let when = format!(":when={n}");
            let create = sandbox.rless(args.split(' '));
            let output = create.wrapped(failing(call, "ENOSPC", &when)).run();
            let context = format!("{call} {n}: {output}");
            if output.code() == 0 {
                sandbox.rless(["rm", "-v", "c"]).ok();
            } else {
                failed += 1;
                assert_eq!(output.code(), 125, "{context}");
                assert_eq!(states(&sandbox), "", "{context}");
            }
            assert_eq!(sandbox.sh(left).ok(), "", "{context}");
            if output.code() == 0 && n > 4 {
                break;
            }
        }
    }
    assert!(
        failed > 4,
        "only {failed} failed: does strace still see them?"
    );
}

#[test]
fn what_shares_a_network_is_started_behind_whose_it_is() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let create = |name: &str, network: &str| {
        let args = ["create", "--name", name, "--network", network];
        let words = ["busybox", "sh", "-c", "sleep 1000"];
        sandbox.rless(args).args(words).ok();
    };
    create("a", "none");
    create("b", "container:a");
    create("c", "container:b");
    let started = sandbox.rless(["start", "--all"]).ok();
    assert_eq!(started.lines().count(), 3, "{started}");
    let running = "a running\nb running\nc running\n";
    assert_eq!(states(&sandbox), running);
    sandbox.rless(["stop", "-t", "0", "-a"]).ok();
    // As podman: what it needs is started with it.
    assert_eq!(sandbox.rless(["start", "c"]).ok(), "c\n");
    assert_eq!(states(&sandbox), running);
    sandbox.rless(["rm", "-f", "-t", "0", "c"]).ok();
    sandbox.rless(["rm", "-f", "-t", "0", "b"]).ok();
    sandbox.rless(["rm", "-f", "-t", "0", "a"]).ok();
}
