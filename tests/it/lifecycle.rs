//! Lives of containers that go on by themselves: stop, kill, pause, wait, rename, restart, and what the death of a
//! supervisor means to each.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Sandbox, wait_for, world};

/// Exits with 3 when it is asked to end.
const KIND: &str = "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done";
/// Never ends by itself, and not for SIGTERM either.
const DEAF: &str = "trap '' TERM; echo up; while :; do sleep 0.1; done";

/// `run -d` of a shell script, which has said `up` when this returns.
fn detached(sandbox: &Sandbox, name: &str, flags: &[&str], script: &str) {
    let run = ["run", "-d", "--network", "none", "--name", name];
    let cmd = sandbox.rless(run).args(flags);
    let id = cmd.args(["rootfs:/", "sh", "-c", script]).ok();
    assert_eq!(id.trim_end().len(), 64, "{id}");
    let log = sandbox.store().join("containers").join(id.trim_end());
    wait_for("its first line", Duration::from_secs(20), || {
        std::fs::read_to_string(log.join("ctr.log")).is_ok_and(|l| l.contains(" up"))
    });
}

/// `{{.State}} {{.ExitCode}}` of a container.
fn state(sandbox: &Sandbox, name: &str) -> String {
    let format = "{{.Names}} {{.State}} {{.ExitCode}}";
    let list = sandbox.rless(["ps", "-a", "--format", format]).ok();
    let line = list
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or("none").to_owned()
}

/// The supervisor of a container, out of its record.
fn supervisor(sandbox: &Sandbox, name: &str) -> Pid {
    let containers = sandbox.store().join("containers");
    let id = std::fs::read_link(containers.join("names").join(name)).unwrap();
    let text = std::fs::read(containers.join(id).join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let pid = record["supervisor"]["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap())
}

#[test]
fn stop_asks_then_kills_and_tells_the_code() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "kind", &[], KIND);
    detached(&sandbox, "deaf", &[], DEAF);
    assert_eq!(state(&sandbox, "kind"), "running 0");
    assert_eq!(sandbox.rless(["stop", "kind"]).ok(), "kind\n");
    assert_eq!(state(&sandbox, "kind"), "exited 3");
    let began = Instant::now();
    assert_eq!(sandbox.rless(["stop", "-t", "1", "deaf"]).ok(), "deaf\n");
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(9)).contains(&took),
        "{took:?}"
    );
    assert_eq!(state(&sandbox, "deaf"), "exited 137");
    // Once more is no error.
    assert_eq!(sandbox.rless(["stop", "kind"]).ok(), "kind\n");
    assert_eq!(sandbox.rless(["stop", "-a"]).ok(), "");
    let output = sandbox.rless(["stop", "nosuch", "kind"]).exits(125);
    output.says(&["no container with name or ID \"nosuch\" found: no such container"]);
    assert_eq!(output.out, "kind\n");
    sandbox.assert_quiet();
    sandbox.rless(["rm", "-a"]).ok();
}

#[test]
fn a_supervisor_killed_while_it_stops_leaves_the_truth() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "deaf", &[], DEAF);
    let victim = supervisor(&sandbox, "deaf");
    let mut stop = sandbox.rless(["stop", "-t", "60", "deaf"]).spawn();
    wait_for("stopping", Duration::from_secs(20), || {
        state(&sandbox, "deaf").starts_with("stopping")
    });
    kill(victim, Signal::SIGKILL).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while stop.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "stop hangs");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(stop.wait().unwrap().success());
    assert_eq!(state(&sandbox, "deaf"), "exited 137");
    sandbox.assert_quiet();
    sandbox.rless(["rm", "deaf"]).ok();
}

#[test]
fn a_supervisor_that_hangs_is_killed_by_who_wants_the_end() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "kind", &[], KIND);
    kill(supervisor(&sandbox, "kind"), Signal::SIGSTOP).unwrap();
    assert_eq!(sandbox.rless(["stop", "-t", "0", "kind"]).ok(), "kind\n");
    assert_eq!(state(&sandbox, "kind"), "exited 137");
    sandbox.assert_quiet();
    sandbox.rless(["rm", "kind"]).ok();
}
