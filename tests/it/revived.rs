//! Containers whose supervisor was killed, and whose restart policy the next command carries out.

use std::io::Write;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::harness::{Sandbox, wait_for, world};
use crate::stuck::supervisor;

const LIMIT: Duration = Duration::from_secs(60);
const INSPECT: [&str; 4] = ["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "c"];

fn kill_supervisor(sandbox: &Sandbox) {
    kill(supervisor(sandbox, "c"), Signal::SIGKILL).unwrap();
}

/// Commands come by until one has started it again.
fn wait_for_revival(sandbox: &Sandbox) {
    wait_for("it runs again", LIMIT, || {
        sandbox.rless(["ps"]).ok();
        sandbox.rless(INSPECT).ok() == "1 running\n"
    });
}

#[test]
fn its_input_stays_open() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let run = "run -d -i --network none --restart on-failure --name c busybox cat";
    sandbox.rless(run.split(' ')).ok();
    kill_supervisor(&sandbox);
    wait_for_revival(&sandbox);
    let mut attach = sandbox.rless(["attach", "c"]).spawn();
    let mut input = attach.stdin.take().unwrap();
    input.write_all(b"heard\n").unwrap();
    wait_for("what it reads", LIMIT, || {
        sandbox.rless(["logs", "c"]).ok() == "heard\n"
    });
    attach.kill().unwrap();
    attach.wait().unwrap();
    sandbox.rless(["rm", "-f", "-t", "0", "c"]).ok();
}

#[test]
fn streams_passed_on_are_not_those_of_the_command_that_comes_by() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let rless = sandbox.binary().display().to_string();
    let run = "run -d --network none --restart always --log-driver passthrough --name c";
    let script = "echo out; exec sleep 1000";
    let command = format!("{rless} {run} busybox sh -c '{script}' </dev/null >out 2>&1");
    sandbox.sh(&command).ok();
    kill_supervisor(&sandbox);
    // Each must get the end of its output, and nothing of the container's.
    wait_for_revival(&sandbox);
    sandbox.rless(["rm", "-f", "-t", "0", "c"]).ok();
}

#[test]
fn what_fails_is_told_and_tried_again() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let host = sandbox.dir.join("host");
    sandbox.make_dir(&host);
    let bind = format!("{}:/host", host.display());
    let run = ["run", "-d", "--network", "none", "--restart", "always"];
    let rest = ["--name", "c", "-v", &bind, "busybox", "sleep", "1000"];
    sandbox.rless(run).args(rest).ok();
    std::fs::remove_dir(&host).unwrap();
    kill_supervisor(&sandbox);
    wait_for("a try", LIMIT, || {
        let ps = sandbox.rless(["ps"]).run();
        ps.err.contains("container c is to be restarted")
    });
    sandbox.make_dir(&host);
    wait_for_revival(&sandbox);
    sandbox.rless(["rm", "-f", "-t", "0", "c"]).ok();
}
