//! Nothing that one command holds, and nobody who stands still, keeps the commands for other containers; and what stands still
//! can be ended.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc::{SYS_clock_nanosleep, SYS_clone3, SYS_fdatasync, SYS_fsync, SYS_sync_file_range};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Sandbox, skip, wait_for, world};

/// The directory of a container.
pub(crate) fn directory(sandbox: &Sandbox, name: &str) -> std::path::PathBuf {
    let containers = sandbox.store().join("containers");
    let id = std::fs::read_link(containers.join("names").join(name)).unwrap();
    containers.join(id)
}

/// The supervisor of a container, out of its record.
pub(crate) fn supervisor(sandbox: &Sandbox, name: &str) -> Pid {
    let text = std::fs::read(directory(sandbox, name).join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let pid = record["supervisor"]["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap())
}

fn names(sandbox: &Sandbox) -> String {
    sandbox.rless(["ps", "-a", "--format", "{{.Names}}"]).ok()
}

/// `rootfs:/`, so that nothing has to be pulled.
fn create(sandbox: &Sandbox, name: &str) {
    let args = "create --network none --name";
    let cmd = sandbox.rless(args.split(' ')).arg(name);
    cmd.args(["rootfs:/", "sleep", "1000"]).ok();
}

/// Whether the process or thread whose directory below `/proc` that is stands in one of the calls, in one of the states.
pub(crate) fn stands_in(task: &std::path::Path, states: &str, calls: &[i64]) -> bool {
    let read = |name| std::fs::read_to_string(task.join(name)).unwrap_or_default();
    let (stat, syscall) = (read("stat"), read("syscall"));
    let number = syscall.split(' ').next().and_then(|n| n.parse().ok());
    let now = stat.rsplit_once(") ").map(|(_, rest)| rest);
    now.is_some_and(|now| now.starts_with(|state| states.contains(state)))
        && number.is_some_and(|number: i64| calls.contains(&number))
}

/// strace on a process and its threads, attached when this returns.
pub(crate) fn traced(pid: Pid, options: &[&str]) -> Child {
    let mut strace = Command::new("strace")
        .args(["-f", "-o", "/dev/null"])
        .args(options)
        .args(["-p", &pid.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(strace.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    strace
}

#[test]
fn a_rename_that_has_to_wait_keeps_nobody() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    for name in ["held", "other", "third"] {
        create(&sandbox, name);
    }
    // As a commit of a container that does not run holds it.
    let lock = File::open(directory(&sandbox, "held").join("lock")).unwrap();
    lock.lock().unwrap();
    let mut renaming = sandbox.rless(["rename", "held", "free"]).spawn();
    // It tries again and again, 2 ms apart; what else it has then it keeps for as long as it stands still.
    let pid = Pid::from_raw(i32::try_from(renaming.id()).unwrap());
    wait_for("its tries", Duration::from_secs(20), || {
        kill(pid, Signal::SIGSTOP).unwrap();
        let process = std::path::PathBuf::from(format!("/proc/{pid}"));
        let tries = stands_in(&process, "T", &[SYS_clock_nanosleep]);
        if !tries {
            kill(pid, Signal::SIGCONT).unwrap();
        }
        tries
    });
    sandbox.rless(["rename", "other", "another"]).ok();
    sandbox.rless(["rm", "third"]).ok();
    assert!(renaming.try_wait().unwrap().is_none());
    kill(pid, Signal::SIGCONT).unwrap();
    let began = Instant::now();
    assert_eq!(renaming.wait().unwrap().code(), Some(125));
    let said = crate::harness::rest(renaming.stderr.take());
    assert!(said.contains("another command holds"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(60));
    drop(lock);
    assert_eq!(names(&sandbox), "held\nanother\n");
    sandbox.rless(["rename", "held", "free"]).ok();
    sandbox.rless(["rm", "-a"]).ok();
}

#[test]
fn a_supervisor_that_stands_still_keeps_no_names() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    for name in ["still", "other"] {
        create(&sandbox, name);
    }
    sandbox.rless(["start", "still"]).ok();
    let pid = supervisor(&sandbox, "still");
    kill(pid, Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    let mut renaming = sandbox.rless(["rename", "still", "moving"]).spawn();
    std::thread::sleep(Duration::from_millis(200));
    sandbox.rless(["rm", "other"]).ok();
    // The rename asks for 2 s, others for 20.
    assert!(began.elapsed() < Duration::from_secs(15), "rm waited");
    assert_eq!(renaming.wait().unwrap().code(), Some(125));
    let said = crate::harness::rest(renaming.stderr.take());
    assert!(said.contains("does not answer"), "{said}");
    kill(pid, Signal::SIGCONT).unwrap();
    // It may still have done it.
    wait_for("one name", Duration::from_secs(5), || {
        ["still\n", "moving\n"].contains(&&*names(&sandbox))
    });
    sandbox.rless(["rm", "-f", "-t", "0", "-a"]).ok();
}

#[test]
fn a_supervisor_that_hangs_before_its_record_is_killed() {
    let world = world!();
    if !world.root {
        skip!("needs root: under an ordinary user's strace rless-idmap has no capabilities");
    }
    let sandbox = Sandbox::new(world);
    create(&sandbox, "hung");
    // It stops where it would make the container's first process.
    let options = "strace -f -o /dev/null -e trace=clone3 -e inject=clone3:signal=STOP:when=1";
    let start = sandbox.rless(["start", "hung"]).wrapped(options.split(' '));
    let mut start = start.spawn();
    let format = "{{.State}}";
    wait_for("its start", Duration::from_secs(20), || {
        sandbox.rless(["ps", "-a", "--format", format]).ok() == "initialized\n"
            && sandbox.processes().into_iter().any(|(pid, line)| {
                let process = std::path::PathBuf::from(format!("/proc/{pid}"));
                line.contains("supervise") && stands_in(&process, "tT", &[SYS_clone3])
            })
    });
    sandbox.rless(["rm", "-f", "-t", "0", "hung"]).ok();
    assert_eq!(names(&sandbox), "");
    assert_ne!(start.wait().unwrap().code(), Some(0));
}

#[test]
fn a_freeze_that_takes_its_time_keeps_nobody() {
    let world = world!();
    if !world.root {
        skip!("needs root: a supervisor is closed to others");
    }
    let sandbox = Sandbox::new(world);
    let args = "run -d --network none --name c busybox sh -c";
    let script = "dd if=/dev/zero of=/f bs=1M count=4; while :; do echo tick; sleep 0.1; done";
    sandbox.rless(args.split(' ')).arg(script).ok();
    let log = directory(&sandbox, "c").join("ctr.log");
    let ticks = || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.lines().filter(|l| l.ends_with(" tick")).count()
    };
    wait_for("its first line", Duration::from_secs(20), || ticks() > 0);
    // For as long as strace is there.
    let slow = "-e trace=fsync,fdatasync,sync_file_range -e inject=fsync,fdatasync,sync_file_range:delay_enter=600000000";
    let slow: Vec<&str> = slow.split(' ').collect();
    let pid = supervisor(&sandbox, "c");
    let mut strace = traced(pid, &slow);
    let tar = sandbox.dir.join("tmp/c.tar");
    let export = sandbox.rless(["export", "-o"]).arg(&tar).arg("c");
    let mut export = export.spawn();
    let stands = || {
        let syncs = [SYS_fsync, SYS_fdatasync, SYS_sync_file_range];
        let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.any(|thread| stands_in(&thread.unwrap().path(), "t", &syncs))
    };
    wait_for("the slow call", Duration::from_secs(20), || {
        assert!(export.try_wait().unwrap().is_none(), "it was not slow");
        stands()
    });
    let before = ticks();
    sandbox.rless(["kill", "-s", "CONT", "c"]).ok();
    wait_for("its output", Duration::from_secs(20), || {
        ticks() > before + 1
    });
    assert!(stands() && export.try_wait().unwrap().is_none());
    kill(
        Pid::from_raw(i32::try_from(strace.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    strace.wait().unwrap();
    wait_for("its end", Duration::from_secs(20), || {
        export.try_wait().unwrap().is_some()
    });
    assert!(export.wait().unwrap().success());
    assert!(std::fs::metadata(&tar).unwrap().len() > 4 << 20);
    sandbox.rless(["rm", "-f", "-t", "0", "c"]).ok();
}

/// A container `c` that ends when there is a file `/go`, or is asked to, and whose supervisor's first fsync of each thread takes
/// `seconds` from now on.
fn on_a_slow_disk(sandbox: &Sandbox, seconds: u32) -> Child {
    let args = "run -d --network none --name c busybox sh -c";
    let script = "echo content >/f; trap 'exit 3' TERM; echo ready; \
                  until [ -e /go ]; do sleep 0.1; done; exit 3";
    sandbox.rless(args.split(' ')).arg(script).ok();
    wait_for("its line", Duration::from_secs(60), || {
        sandbox.rless(["logs", "c"]).ok() == "ready\n"
    });
    let slow = format!("inject=fsync,fdatasync:delay_enter={seconds}000000:when=1");
    let options = ["-e", "trace=fsync,fdatasync", "-e", &slow];
    traced(supervisor(sandbox, "c"), &options)
}

/// It has ended as it wanted to, with all that it wrote.
fn ended_in_order(sandbox: &Sandbox) {
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
    let state = sandbox.rless(["inspect", "-f", format, "c"]).ok();
    assert_eq!(state, "exited 3 \n");
    let content = sandbox.rless(["cp", "c:/f", "-"]).ok();
    assert!(content.contains("content\n"));
    sandbox.rless(["rm", "c"]).ok();
}

#[test]
fn a_supervisor_on_a_slow_disk_is_not_killed_for_it() {
    let world = world!();
    if !world.root {
        skip!("needs root: a supervisor is closed to others");
    }
    let sandbox = Sandbox::new(world);
    // Longer than one may say nothing: the record that says that it is stopping.
    let mut strace = on_a_slow_disk(&sandbox, 24);
    let began = Instant::now();
    let stop = sandbox.rless(["stop", "-t", "1", "c"]);
    stop.within(Duration::from_secs(300)).ok();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(23), "it was not slow: {took:?}");
    strace.wait().unwrap();
    ended_in_order(&sandbox);
}

#[test]
fn what_comes_while_a_supervisor_writes_the_last_changes_is_told_the_truth() {
    let world = world!();
    if !world.root {
        skip!("needs root: a supervisor is closed to others");
    }
    let sandbox = Sandbox::new(world);
    let mut strace = on_a_slow_disk(&sandbox, 30);
    let pid = sandbox.rless(["inspect", "-f", "{{.State.Pid}}", "c"]).ok();
    let init = std::path::Path::new("/proc").join(pid.trim());
    sandbox.rless(["exec", "c", "touch", "/go"]).ok();
    wait_for("its end", Duration::from_secs(60), || !init.exists());
    // The record says that it runs, and nobody listens.
    let ask = |args: &[&str]| sandbox.rless(args).spawn();
    let asked = [
        (ask(&["exec", "c", "true"]), 255, ""),
        (ask(&["exec", "-d", "c", "true"]), 255, ""),
        (ask(&["wait", "c"]), 0, "3\n"),
        (ask(&["stop", "-t", "0", "c"]), 0, "c\n"),
    ];
    for (mut child, code, out) in asked {
        let said = crate::harness::rest(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{said}");
        assert_eq!(crate::harness::rest(child.stdout.take()), out);
        assert_eq!(
            said.contains("can only create exec sessions on running containers"),
            code == 255,
            "{said}"
        );
    }
    strace.wait().unwrap();
    ended_in_order(&sandbox);
}

#[test]
fn a_restart_policy_has_patience_with_a_slow_disk() {
    let world = world!();
    if !world.root {
        skip!("needs root: a supervisor is closed to others");
    }
    let sandbox = Sandbox::new(world);
    let args = "run -d --network none --restart on-failure:2 --name c busybox sh -c";
    let script = "echo up; until [ -e /go ]; do sleep 0.1; done; exit 3";
    sandbox.rless(args.split(' ')).arg(script).ok();
    // The record of the second start is not flushed when the second run ends.
    let slow = "inject=fsync:delay_enter=8000000:when=1";
    let options = ["-e", "trace=fsync", "-e", slow];
    let mut strace = traced(supervisor(&sandbox, "c"), &options);
    sandbox.rless(["exec", "c", "touch", "/go"]).ok();
    let format = "{{.State}} {{.Restarts}}";
    wait_for("its last end", Duration::from_secs(200), || {
        sandbox.rless(["ps", "-a", "--format", format]).ok() == "exited 2\n"
    });
    strace.wait().unwrap();
    let logs = sandbox.rless(["logs", "c"]).run();
    assert_eq!((&*logs.out, &*logs.err), ("up\nup\nup\n", ""));
    sandbox.rless(["rm", "c"]).ok();
}

#[test]
fn last_changes_that_cannot_be_written_are_told() {
    let world = world!();
    if !world.root {
        skip!("needs root: a supervisor is closed to others");
    }
    let sandbox = Sandbox::new(world);
    let run = ["run", "--network", "none", "--name", "c", "busybox"];
    let script = "echo ready; until [ -e /go ]; do sleep 0.1; done; echo content >/f";
    let mut run = sandbox.rless(run).args(["sh", "-c", script]).spawn();
    wait_for("its start", Duration::from_secs(60), || {
        let logs = sandbox.rless(["logs", "c"]).run();
        logs.code() == 0 && logs.out == "ready\n"
    });
    let calls = "fdatasync,syncfs,sync_file_range";
    let (trace, fail) = (
        format!("trace={calls}"),
        format!("inject={calls}:error=EIO"),
    );
    let mut strace = traced(supervisor(&sandbox, "c"), &["-e", &trace, "-e", &fail]);
    sandbox.rless(["exec", "c", "touch", "/go"]).ok();
    let said = crate::harness::rest(run.stderr.take());
    assert_eq!(run.wait().unwrap().code(), Some(0));
    strace.wait().unwrap();
    let format = "{{.State.Error}}";
    let error = sandbox.rless(["inspect", "-f", format, "c"]).ok();
    for text in [said, error] {
        assert!(text.contains("what the container wrote last may be lost"));
        assert!(text.contains("I/O error"), "{text}");
    }
    sandbox.rless(["rm", "c"]).ok();
}
