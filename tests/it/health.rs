//! Health checks by their timer: what the recorded cases of podman (`podman.rs`), whose timers are off, do not show.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::harness::{Sandbox, wait_for, waits, world};

const SOON: Duration = Duration::from_secs(20);
const REMOVE: [&str; 5] = ["rm", "-f", "-t", "0", "c"];

/// `run -d` of a `sleep` that is checked so.
fn checked(sandbox: &Sandbox, name: &str, check: &str, flags: &[&str]) {
    let run = ["run", "-d", "--network", "none", "--name", name];
    let cmd = sandbox.rless(run).args(["--health-cmd", check]);
    cmd.args(flags).args(["rootfs:/", "sleep", "1000"]).ok();
}

fn health(sandbox: &Sandbox, name: &str) -> Json {
    let format = "{{json .State.Health}}";
    let text = sandbox.rless(["inspect", "-f", format, name]).ok();
    serde_json::from_str(&text).unwrap()
}

fn becomes(sandbox: &Sandbox, name: &str, status: &str) {
    wait_for(status, SOON, || health(sandbox, name)["Status"] == status);
}

fn state(sandbox: &Sandbox, name: &str) -> String {
    let format = "{{.State.Status}} {{.RestartCount}}";
    sandbox.rless(["inspect", "-f", format, name]).ok()
}

/// Processes of the container whose command line has `word` in it.
fn processes(sandbox: &Sandbox, name: &str, word: &str) -> usize {
    let top = sandbox.rless(["top", name, "args"]).ok();
    top.lines().filter(|line| line.contains(word)).count()
}

#[test]
fn a_timer_checks_and_the_state_follows() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let flags = ["--health-interval", "200ms", "--health-retries", "2"];
    checked(&sandbox, "c", "echo looked; test -e /tmp/ok", &flags);
    becomes(&sandbox, "c", "unhealthy");
    let status = sandbox.rless(["ps", "--format", "{{.Status}}"]).ok();
    assert!(status.contains("(unhealthy)"), "{status}");
    sandbox.rless(["exec", "c", "touch", "/tmp/ok"]).ok();
    // As long as the timer runs, this ends.
    sandbox.rless(["wait", "--condition", "healthy", "c"]).ok();
    let now = health(&sandbox, "c");
    assert_eq!(now["FailingStreak"], 0);
    let log = now["Log"].as_array().unwrap();
    assert!(log.len() <= 5 && log.iter().all(|e| e["Output"] == "looked\n"));
    assert_eq!(log.last().unwrap()["ExitCode"], 0);
    let filter = [
        "--filter",
        "event=health_status",
        "--format",
        "{{.HealthStatus}}",
    ];
    let told = sandbox
        .rless(["events", "--stream=false"])
        .args(filter)
        .ok();
    let first = |word| told.lines().position(|l| l == word).expect(word);
    assert!(first("starting") < first("unhealthy") && first("unhealthy") < first("healthy"));
    // The next check begins an interval after the last has ended.
    let times: Vec<(&str, &str)> = log
        .iter()
        .map(|e| (e["Start"].as_str().unwrap(), e["End"].as_str().unwrap()))
        .collect();
    let moment = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    for pair in times.windows(2) {
        let pause = moment(pair[1].0).duration_since(moment(pair[0].1));
        assert!(pause.as_millis() >= 199, "{times:?}");
    }
    sandbox.rless(["stop", "-t", "0", "c"]).ok();
    let looked = health(&sandbox, "c");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(
        health(&sandbox, "c"),
        looked,
        "checked although it is stopped"
    );
    sandbox.rless(REMOVE).ok();
}

#[test]
fn a_check_that_overruns_is_killed_with_what_it_started() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let flags = ["--init", "--health-interval=disable", "--health-timeout=5s"];
    checked(
        &sandbox,
        "c",
        "echo before; sleep 777 & sleep 777; true",
        &flags,
    );
    let check = sandbox.rless(["healthcheck", "run", "c"]).run();
    assert_eq!(check.code(), 125);
    assert!(
        check.err.contains("exceeded timeout of 5s"),
        "{}",
        check.err
    );
    let entry = &health(&sandbox, "c")["Log"][0];
    assert_eq!(
        (&entry["ExitCode"], &entry["Output"]),
        (&(-1).into(), &"before\n".into())
    );
    wait_for("the end of its processes", SOON, || {
        processes(&sandbox, "c", "sleep 777") == 0
    });
    assert_eq!(processes(&sandbox, "c", "sleep 1000"), 1);
    sandbox.rless(REMOVE).ok();
}

#[test]
fn a_check_that_writes_without_end_is_read_and_cut_off() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let flags = ["--health-interval=disable", "--health-timeout=5s"];
    checked(&sandbox, "c", "yes 123456789", &flags);
    sandbox.rless(["healthcheck", "run", "c"]).run();
    let entry = &health(&sandbox, "c")["Log"][0];
    assert_eq!(entry["Output"].as_str().unwrap(), "123456789\n".repeat(50));
    assert_eq!(entry["ExitCode"], -1);
    sandbox.rless(REMOVE).ok();
}

#[test]
fn a_check_under_way_holds_nothing_up() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    checked(&sandbox, "c", "sleep 777", &["--health-timeout=1h"]);
    wait_for("the first check", SOON, || {
        processes(&sandbox, "c", "sleep 777") > 0
    });
    let began = Instant::now();
    assert_eq!(sandbox.rless(["exec", "c", "echo", "here"]).ok(), "here\n");
    assert!(health(&sandbox, "c")["Status"] == "starting");
    // Who asks meanwhile gets the next one, and that never comes.
    let asking = sandbox.rless(["healthcheck", "run", "c"]).spawn();
    std::thread::sleep(Duration::from_millis(300));
    sandbox.rless(["stop", "-t", "0", "c"]).ok();
    let asked = asking.wait_with_output().unwrap();
    assert_eq!(asked.status.code(), Some(125));
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(said.contains("not running"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(100));
    sandbox.rless(REMOVE).ok();
}

#[test]
fn what_is_asked_for_while_a_check_runs_is_checked_after_it() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let check =
        "test -e /ok; code=$?; touch /began; until [ -e /go ]; do sleep 0.1; done; exit $code";
    checked(&sandbox, "c", check, &["--health-interval=1h"]);
    wait_for("the first check", SOON, || {
        let look = ["exec", "c", "test", "-e", "/began"];
        sandbox.rless(look).run().code() == 0
    });
    sandbox.rless(["exec", "c", "touch", "/ok"]).ok();
    let mut both = [(); 2].map(|()| sandbox.rless(["healthcheck", "run", "c"]).spawn());
    both.iter_mut().for_each(waits);
    sandbox.rless(["exec", "c", "touch", "/go"]).ok();
    for asked in both {
        let asked = asked.wait_with_output().unwrap();
        assert_eq!(asked.status.code(), Some(0));
    }
    let log = health(&sandbox, "c")["Log"].clone();
    let codes: Vec<i64> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["ExitCode"].as_i64().unwrap())
        .collect();
    // One for both that asked, if they did so in time.
    assert!(codes == [1, 0] || codes == [1, 0, 0], "{codes:?}");
    sandbox.rless(REMOVE).ok();
}

#[test]
fn an_unhealthy_one_is_started_again_until_it_is_well() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let flags = [
        "--health-interval=200ms",
        "--health-retries=1",
        "--health-on-failure=restart",
        "--stop-timeout=0",
    ];
    let mount = format!("{}:/w", sandbox.dir.display());
    let flags = [&flags[..], &["-v", &mount]].concat();
    checked(&sandbox, "c", "test -e /w/well", &flags);
    wait_for("two restarts", SOON, || {
        let now = state(&sandbox, "c");
        now.trim_end()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<u32>()
            .unwrap()
            >= 2
    });
    sandbox.write("well", "");
    becomes(&sandbox, "c", "healthy");
    assert!(state(&sandbox, "c").starts_with("running "));
    // Its user has the last word.
    sandbox.rless(["stop", "c"]).ok();
    assert!(state(&sandbox, "c").starts_with("exited "));
    sandbox.rless(REMOVE).ok();
}

#[test]
fn a_changed_check_holds_at_once_and_stays() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let run = ["run", "-d", "--network", "none", "--name", "c"];
    let cmd = sandbox.rless(run);
    cmd.args(["rootfs:/", "sleep", "1000"]).ok();
    let update = |flags: &[&str]| sandbox.rless(["update"]).args(flags).args(["c"]).ok();
    update(&["--health-cmd=false", "--health-retries=1"]);
    becomes(&sandbox, "c", "unhealthy");
    // A timer of its own, from now on.
    update(&[
        "--health-interval=200ms",
        "--health-cmd",
        "echo x; test ! -e /ill",
    ]);
    becomes(&sandbox, "c", "healthy");
    sandbox.rless(["exec", "c", "touch", "/ill"]).ok();
    becomes(&sandbox, "c", "unhealthy");
    update(&["--health-interval=disable", "--health-max-log-size=1"]);
    assert_eq!(health(&sandbox, "c")["Status"], "reset");
    let before = health(&sandbox, "c")["Log"].clone();
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(health(&sandbox, "c")["Log"], before);
    sandbox.rless(["healthcheck", "run", "c"]).exits(1);
    let log = health(&sandbox, "c")["Log"].clone();
    assert_eq!(log.as_array().unwrap().last().unwrap()["Output"], "x");
    // Where nothing runs the command itself does it; a start has it all.
    sandbox.rless(["stop", "-t", "0", "c"]).ok();
    update(&["--health-cmd", "test -e /ill", "--health-interval=100ms"]);
    sandbox.rless(["start", "c"]).ok();
    becomes(&sandbox, "c", "healthy");
    update(&["--health-on-failure=kill"]);
    assert_eq!(health(&sandbox, "c")["Status"], "healthy");
    sandbox.rless(["exec", "c", "rm", "/ill"]).ok();
    assert_eq!(sandbox.rless(["wait", "c"]).ok(), "137\n");
    update(&["--no-healthcheck"]);
    sandbox.rless(["start", "c"]).ok();
    let none = sandbox.rless(["healthcheck", "run", "c"]).exits(125);
    assert!(none.err.contains("no defined healthcheck"), "{}", none.err);
    sandbox.rless(REMOVE).ok();
}

#[test]
fn a_check_under_way_gives_way_to_a_changed_one() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let flags = ["--health-interval=disable", "--health-timeout=1h"];
    checked(&sandbox, "c", "sleep 777", &flags);
    let ask = || sandbox.rless(["healthcheck", "run", "c"]).spawn();
    let under_way = || {
        wait_for("the check", SOON, || {
            processes(&sandbox, "c", "sleep 777") > 0
        });
    };
    let asking = ask();
    under_way();
    sandbox.rless(["update", "--health-cmd=true", "c"]).ok();
    let asked = asking.wait_with_output().unwrap();
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    wait_for("its end", SOON, || {
        processes(&sandbox, "c", "sleep 777") == 0
    });
    let log = health(&sandbox, "c")["Log"].clone();
    assert_eq!(log.as_array().unwrap().len(), 1);
    sandbox
        .rless(["update", "--health-cmd=sleep 777", "c"])
        .ok();
    let asking = ask();
    under_way();
    sandbox.rless(["update", "--no-healthcheck", "c"]).ok();
    let asked = asking.wait_with_output().unwrap();
    assert_eq!(asked.status.code(), Some(125));
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(said.contains("no defined healthcheck"), "{said}");
    sandbox.rless(REMOVE).ok();
}

#[test]
fn a_restart_by_its_check_loses_nothing_of_one_that_goes() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let dir = sandbox.dir.join("w");
    sandbox.make_dir(&dir);
    let mount = format!("{}:/w", dir.display());
    let run = [
        "run",
        "-d",
        "--rm",
        "--network",
        "none",
        "--name",
        "c",
        "-v",
    ];
    let flags = [
        "--stop-timeout=0",
        "--health-cmd=false",
        "--health-interval=disable",
        "--health-retries=1",
        "--health-on-failure=restart",
    ];
    let script = "ls /mark; echo >/mark; touch /w/ready; sleep 100";
    let cmd = sandbox.rless(run).args([&mount]).args(flags);
    cmd.args(["rootfs:/", "sh", "-c", script]).ok();
    let ready = dir.join("ready");
    wait_for("the mark", SOON, || ready.exists());
    std::fs::remove_file(&ready).unwrap();
    sandbox.rless(["healthcheck", "run", "c"]).exits(1);
    wait_for("the second run", SOON, || ready.exists());
    let logs = sandbox.rless(["logs", "c"]).run();
    assert_eq!(logs.out, "/mark\n");
    sandbox.rless(REMOVE).ok();
}

#[test]
fn results_that_cannot_be_read_are_none_and_the_dead_are_not_checked() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    checked(&sandbox, "c", "true", &["--health-interval=200ms"]);
    becomes(&sandbox, "c", "healthy");
    sandbox.rless(["kill", "c"]).ok();
    let id = sandbox.rless(["inspect", "-f", "{{.Id}}", "c"]).ok();
    let file = format!("containers/{}/health.json", id.trim_end());
    let path = sandbox.store().join(file);
    assert!(path.exists());
    std::fs::write(&path, "{\"Status\":").unwrap();
    assert_eq!(health(&sandbox, "c")["Status"], "");
    assert!(sandbox.rless(["ps", "-a"]).ok().contains("Exited (137)"));
    sandbox.rless(["start", "c"]).ok();
    becomes(&sandbox, "c", "healthy");
    sandbox.rless(REMOVE).ok();
}
