//! Promise 4 under each command: kill -9 of the supervisor that it talks to, while it does. The command ends soon and says what is
//! so, the container's state is the truth, it can be started and removed, and nothing is left.
//!
//! The supervisor is stopped first, so that it is killed under the command and not before or behind it.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Sandbox, rest, skip, wait_for, waits, world};
use crate::killed::Checks;
use crate::stuck::{directory, supervisor};

/// A command that a supervisor is killed under.
struct Case {
    args: &'static [&'static str],
    code: i32,
    /// In what it says on either stream.
    says: &'static str,
    /// State and exit code of the container afterwards; nothing when it is gone.
    after: &'static str,
}

const fn case(
    args: &'static [&'static str],
    code: i32,
    says: &'static str,
    after: &'static str,
) -> Case {
    Case {
        args,
        code,
        says,
        after,
    }
}

/// How long a command may take to end.
const SOON: Duration = Duration::from_secs(60);
const DEAD: &str = "exited 137";

fn states(sandbox: &Sandbox) -> String {
    let format = "{{.State}} {{.ExitCode}}";
    let list = sandbox.rless(["ps", "-a", "--format", format]).ok();
    list.trim_end().to_owned()
}

/// A container that writes a line now and then, and its supervisor.
fn begin(sandbox: &Sandbox, flags: &[&str]) -> Pid {
    let run = ["run", "-d", "--network", "none", "--name", "c", "-v", "/v"];
    let script = "[ -e /f ] || { echo kept | dd of=/f conv=fsync 2>/dev/null; }; while :; do echo tick; sleep 0.1; done";
    let words = ["busybox", "sh", "-c", script];
    sandbox.rless(run).args(flags).args(words).ok();
    let log = directory(sandbox, "c").join("ctr.log");
    wait_for("its first line", Duration::from_secs(20), || {
        std::fs::metadata(&log).is_ok_and(|m| m.len() > 0)
    });
    supervisor(sandbox, "c")
}

/// What a command said and its exit code.
fn end(mut child: Child, what: &str) -> (i32, String) {
    let began = Instant::now();
    let _input = child.stdin.take();
    let out = child.stdout.take();
    let out = std::thread::spawn(|| rest(out));
    let errors = child.stderr.take();
    let errors = std::thread::spawn(|| rest(errors));
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if began.elapsed() > SOON => {
                child.kill().unwrap();
                child.wait().unwrap();
                let said = errors.join().unwrap();
                panic!("{what}: still there after {SOON:?}: {said}");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let said = out.join().unwrap() + &errors.join().unwrap();
    (status.code().unwrap_or(-1), said)
}

/// The container can be started and removed, and nothing is left.
fn usable(sandbox: &Sandbox, what: &str) {
    if !states(sandbox).is_empty() {
        sandbox.rless(["start", "-l"]).ok();
        let exec = ["exec", "-l", "cat", "/f"];
        assert_eq!(sandbox.rless(exec).ok(), "kept\n", "{what}");
        assert!(states(sandbox).starts_with("running"), "{what}");
        sandbox.rless(["rm", "-f", "-t", "0", "-v", "-l"]).ok();
    }
    sandbox.assert_quiet();
    sandbox.rless(["volume", "prune", "-f"]).ok();
    Checks(sandbox).clean(what);
}

fn each(stopped: bool, cases: &[Case]) {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    let mut wrong = Vec::new();
    for case in cases {
        let what = format!("{:?}", case.args);
        let pid = begin(&sandbox, &[]);
        if stopped {
            kill(pid, Signal::SIGSTOP).unwrap();
        }
        let mut child = sandbox.rless(case.args).spawn();
        if !stopped && case.args[0] == "exec" {
            let behind = 1 + case.args.iter().position(|a| *a == "c").unwrap();
            let words = case.args[behind..].join(" ");
            wait_for("the session", Duration::from_secs(20), || {
                let top = sandbox.rless(["top", "c", "args"]).ok();
                top.lines().any(|line| line.trim_end() == words)
            });
        }
        waits(&mut child);
        kill(pid, Signal::SIGKILL).unwrap();
        let (code, said) = end(child, &what);
        let after = states(&sandbox);
        let same = (code, after.as_str()) == (case.code, case.after);
        if !same || !said.contains(case.says) {
            wrong.push(format!("{what}: {code}, {after:?}: {said:?}"));
        }
        usable(&sandbox, &what);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn commands_that_ask() {
    each(
        true,
        &[
            case(&["stop", "c"], 0, "c\n", DEAD),
            case(&["rm", "-f", "c"], 0, "c\n", ""),
            case(&["restart", "-t", "1", "c"], 0, "c\n", "running 0"),
            case(&["kill", "c"], 125, "in state exited", DEAD),
            case(&["pause", "c"], 125, "is not running", DEAD),
            case(&["rename", "c", "d"], 0, "", DEAD),
            case(&["update", "--restart", "on-failure", "c"], 0, "", DEAD),
            case(&["wait", "c"], 0, "137", DEAD),
            case(&["start", "c"], 0, "c", DEAD),
        ],
    );
}

#[test]
fn commands_that_look_at_its_files() {
    each(
        true,
        &[
            case(&["commit", "-q", "c", "image"], 0, "", DEAD),
            case(&["export", "-o", "c.tar", "c"], 0, "", DEAD),
            case(&["diff", "c"], 0, "A /f", DEAD),
            case(&["container", "snapshot", "c", "s"], 0, "", DEAD),
            case(&["cp", "c:/f", "-"], 125, "ended while", DEAD),
            case(&["cp", "/etc/hostname", "c:/g"], 125, "ended while", DEAD),
            // Need nobody's help: what was there when they looked.
            case(&["top", "c"], 0, "COMMAND", DEAD),
            case(&["stats", "--no-stream", "c"], 0, " c ", DEAD),
            case(&["exec", "c", "true"], 125, "supervisor died", DEAD),
        ],
    );
}

#[test]
fn commands_that_stay() {
    each(
        false,
        &[
            case(&["logs", "-f", "c"], 0, "tick", DEAD),
            case(&["attach", "c"], 125, "supervisor died", DEAD),
            case(&["wait", "c"], 0, "137", DEAD),
            case(&["exec", "c", "sleep", "1000"], 137, "", DEAD),
            case(&["exec", "-i", "c", "cat"], 137, "", DEAD),
            case(&["exec", "-t", "c", "sleep", "1000"], 137, "", DEAD),
            case(&["stop", "-t", "60", "c"], 0, "c\n", DEAD),
        ],
    );
}

#[test]
fn run_in_the_foreground() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    for flags in [&["--rm", "-i"][..], &["-t"], &[]] {
        let what = format!("run {flags:?}");
        let run = ["run", "--network", "none", "--name", "c", "-v", "/v"];
        let script = "echo kept | dd of=/f conv=fsync 2>/dev/null; echo up; sleep 1000";
        let words = ["busybox", "sh", "-c", script];
        let mut child = sandbox.rless(run).args(flags).args(words).spawn();
        wait_for("its start", Duration::from_secs(20), || {
            states(&sandbox).starts_with("running")
        });
        let log = directory(&sandbox, "c").join("ctr.log");
        wait_for("its file", Duration::from_secs(20), || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains(" up"))
        });
        waits(&mut child);
        kill(supervisor(&sandbox, "c"), Signal::SIGKILL).unwrap();
        let (code, said) = end(child, &what);
        assert_eq!(code, 125, "{what}: {said}");
        assert!(said.contains("supervisor"), "{what}: {said}");
        let after = if flags.contains(&"--rm") { "" } else { DEAD };
        assert_eq!(states(&sandbox), after, "{what}");
        usable(&sandbox, &what);
    }
}

#[test]
fn starts_before_there_is_a_first_process() {
    let world = world!();
    if !world.root {
        skip!("needs root: under an ordinary user's strace rless-idmap has no capabilities");
    }
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    let strace = "strace -f -o /dev/null -e trace=clone3 -e inject=clone3:signal=KILL:when=1";
    let script = "echo kept >/f; sleep 1000";
    let words = ["busybox", "sh", "-c", script];
    let killed = |args: &[&str], more: &[&str]| {
        let cmd = sandbox.rless(args).args(more).wrapped(strace.split(' '));
        let (code, said) = end(cmd.spawn(), &format!("{args:?}"));
        assert_eq!(code, 125, "{args:?}: {said}");
        assert!(said.contains("supervisor"), "{args:?}: {said}");
    };
    let run = ["run", "--network", "none", "--name", "c", "-v", "/v", "-d"];
    killed(&run, &words);
    assert_eq!(states(&sandbox), "created 125");
    usable(&sandbox, "run -d");
    sandbox
        .rless(["create", "--network", "none", "--name", "c"])
        .args(words)
        .ok();
    killed(&["start", "c"], &[]);
    assert_eq!(states(&sandbox), "created 125");
    sandbox.rless(["start", "c"]).ok();
    sandbox.rless(["stop", "-t", "0", "c"]).ok();
    killed(&["restart", "c"], &[]);
    assert_eq!(states(&sandbox), "exited 125");
    killed(&["start", "-a", "c"], &[]);
    usable(&sandbox, "start");
    killed(&["run", "--network", "none", "--name", "c", "--rm"], &words);
    assert_eq!(states(&sandbox), "");
    usable(&sandbox, "run --rm");
}

#[test]
fn the_supervisor_of_an_exec_session() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    begin(&sandbox, &[]);
    for flags in [&["-i"][..], &["-t"], &[]] {
        let what = format!("exec {flags:?}");
        let cmd = sandbox.rless(["exec"]).args(flags);
        let child = cmd.args(["c", "sleep", "4321"]).spawn();
        let session = || {
            let all = sandbox.processes().into_iter();
            let mut sessions = all.filter(|(_, line)| line.starts_with("rless-exec"));
            sessions.next().map(|(pid, _)| Pid::from_raw(pid))
        };
        let top = || sandbox.rless(["top", "c", "args"]).ok();
        wait_for("the session", Duration::from_secs(20), || {
            top().contains("sleep 4321")
        });
        kill(session().unwrap(), Signal::SIGKILL).unwrap();
        let (code, said) = end(child, &what);
        assert_eq!(code, 125, "{what}: {said}");
        assert!(said.contains("supervisor"), "{what}: {said}");
        wait_for("the end of its process", SOON, || {
            !top().contains("sleep 4321")
        });
        assert_eq!(states(&sandbox), "running 0", "{what}");
        assert_eq!(sandbox.rless(["exec", "c", "echo", "x"]).ok(), "x\n");
    }
    sandbox.rless(["rm", "-f", "-t", "0", "-v", "c"]).ok();
    usable(&sandbox, "exec");
}
