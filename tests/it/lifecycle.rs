//! Lives of containers that go on by themselves: stop, kill, pause, wait, rename, restart, and what the death of a
//! supervisor means to each.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Sandbox, wait_for, waits, world};

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
    assert_eq!(sandbox.rless(["stop", "-a"]).ok().lines().count(), 2);
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
    let until = Instant::now() + Duration::from_secs(100);
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

#[test]
fn a_container_is_made_once_and_started_often() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let script = "echo $X >> /log; cat /log; wc -l < /v/n; echo x >> /v/n; exit 4";
    let create = [
        "create",
        "--network",
        "none",
        "--name",
        "c",
        "-e",
        "X",
        "-v",
        "/v",
    ];
    let cmd = sandbox.rless(create).env("X", "then");
    let id = cmd.args(["rootfs:/", "sh", "-c", script]).ok();
    assert_eq!(state(&sandbox, "c"), "created 0");
    sandbox.assert_quiet();
    // Its volume is empty now and keeps what is written; the variable is that of who made it.
    let first = sandbox.rless(["start", "-a", "c"]).env("X", "now").exits(4);
    assert_eq!(first.out, "then\n", "{first}");
    assert_eq!(
        sandbox.rless(["start", &id[..12]]).ok(),
        format!("{}\n", &id[..12])
    );
    assert_eq!(sandbox.rless(["wait", "c"]).ok(), "4\n");
    let third = sandbox.rless(["start", "--attach", "c"]).exits(4);
    assert!(third.out.starts_with("then\nthen\nthen\n2\n"), "{third}");
    sandbox.rless(["rm", "-v", "c"]).ok();
    assert_eq!(sandbox.rless(["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn a_start_that_is_killed_has_not_begun() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox
        .rless([
            "create",
            "--network",
            "none",
            "--name",
            "c",
            "rootfs:/",
            "true",
        ])
        .ok();
    for call in ["clone", "clone3", "rename", "flock", "mkdir"] {
        let kill = format!("inject={call}:signal=KILL:when=1");
        let words = [
            "strace",
            "-f",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace=?{call}"),
            "-e",
            &kill,
        ];
        sandbox.rless(["start", "c"]).wrapped(words).run();
        sandbox.assert_quiet();
        let now = state(&sandbox, "c");
        assert!(
            now.starts_with("created") || now.starts_with("exited"),
            "{call}: {now}"
        );
    }
    assert_eq!(sandbox.rless(["start", "-a", "c"]).exits(0).err, "");
    sandbox.rless(["rm", "c"]).ok();
}

#[test]
fn names_are_looked_up_before_anything_is_done() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "a", &[], KIND);
    let refused = sandbox.rless(["stop", "a", "nosuch"]).exits(125);
    refused.says(&["no container with name or ID \"nosuch\" found: no such container"]);
    assert_eq!(refused.out, "");
    assert_eq!(state(&sandbox, "a"), "running 0");
    let refused = sandbox.rless(["rm", "a"]).exits(2);
    refused.says(&["as it is running"]);
    sandbox.rless(["stop", "-l", "a"]).exits(125);
    sandbox.rless(["stop", "-a", "a"]).exits(125);
    assert_eq!(sandbox.rless(["stop", "-i", "nosuch", "a"]).ok(), "a\n");
    sandbox
        .rless(["kill", "a"])
        .exits(125)
        .says(&["can only kill running containers", "exited"]);
    sandbox.rless(["rm", "-l"]).ok();
}

#[test]
fn kill_wait_and_rename_of_a_live_container() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    // No name that could be the beginning of an id.
    detached(&sandbox, "old", &[], KIND);
    let mut waits: Vec<_> = (0..3)
        .map(|_| sandbox.rless(["wait", "old"]).spawn())
        .collect();
    sandbox.rless(["rename", "old", "b"]).ok();
    sandbox.rless(["rename", "old", "x"]).exits(125);
    assert_eq!(state(&sandbox, "b"), "running 0");
    assert_eq!(sandbox.rless(["kill", "-s", "TERM", "b"]).ok(), "b\n");
    for wait in &mut waits {
        assert!(wait.wait().unwrap().success());
        assert_eq!(crate::harness::rest(wait.stdout.take()), "3\n");
    }
    assert_eq!(state(&sandbox, "b"), "exited 3");
    sandbox.rless(["rename", "b", "c"]).ok();
    let names = sandbox.store().join("containers/names");
    assert!(!names.join("b").exists() && names.join("c").is_symlink());
    sandbox
        .rless(["kill", "-s", "99", "c"])
        .exits(125)
        .says(&["1 through 64"]);
    sandbox.rless(["start", "c"]).ok();
    assert_eq!(sandbox.rless(["kill", "c"]).ok(), "c\n");
    assert_eq!(state(&sandbox, "c"), "exited 137");
    sandbox.rless(["rm", "c"]).ok();
}

#[test]
fn a_rename_that_was_cut_short_leaves_one_name() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox
        .rless(["create", "--name", "a", "rootfs:/", "true"])
        .ok();
    for call in ["symlink", "rename", "unlink"] {
        for when in ["1", "2"] {
            let kill = format!("inject={call}:signal=KILL:when={when}");
            let words = [
                "strace",
                "-f",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace=?{call}"),
                "-e",
                &kill,
            ];
            let old = sandbox.rless(["ps", "-a", "--format", "{{.Names}}"]).ok();
            sandbox
                .rless(["rename", old.trim_end(), "next"])
                .wrapped(words)
                .run();
            let list = sandbox.rless(["ps", "-a", "--format", "{{.Names}}"]).ok();
            let names = sandbox.store().join("containers/names");
            let links = std::fs::read_dir(names).unwrap().flatten();
            let links = links.filter(|e| !e.file_name().to_string_lossy().starts_with('.'));
            let links: Vec<_> = links
                .map(|e| e.file_name().into_string().unwrap())
                .collect();
            assert_eq!(links, [list.trim_end()], "killed at {call} {when}");
            sandbox.rless(["rename", list.trim_end(), "a"]).ok();
        }
    }
    sandbox.rless(["rm", "-a"]).ok();
}

#[test]
fn pause_stops_and_resumes_or_says_what_is_missing() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "a", &[], KIND);
    let output = sandbox.rless(["pause", "a"]).run();
    if output.code() == 0 {
        assert_eq!(state(&sandbox, "a"), "paused 0");
        sandbox
            .rless(["pause", "a"])
            .exits(125)
            .says(&["is already paused"]);
        sandbox
            .rless(["stop", "a"])
            .exits(125)
            .says(&["in state paused"]);
        assert_eq!(sandbox.rless(["unpause", "-a"]).ok().lines().count(), 1);
    } else {
        output.says(&["it has no control group", "cgroup v2"]);
    }
    assert_eq!(state(&sandbox, "a"), "running 0");
    sandbox
        .rless(["unpause", "a"])
        .exits(125)
        .says(&["is not paused"]);
    sandbox.rless(["stop", "a"]).ok();
    sandbox
        .rless(["pause", "a"])
        .exits(125)
        .says(&["\"exited\" is not running, can't pause"]);
    sandbox.rless(["rm", "a"]).ok();
}

/// What a container that counts its runs has counted.
fn runs(sandbox: &Sandbox, name: &str) -> String {
    let format = "{{.Names}} {{.State}} {{.Restarts}}";
    let list = sandbox.rless(["ps", "-a", "--format", format]).ok();
    let line = list
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or("none").to_owned()
}

#[test]
fn a_failing_container_is_started_again_so_often() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let script = "echo up; echo x >> /runs; exit 7";
    detached(&sandbox, "c", &["--restart", "on-failure:2"], script);
    wait_for("its last run", Duration::from_secs(60), || {
        runs(&sandbox, "c") == "exited 2"
    });
    assert_eq!(sandbox.rless(["wait", "c"]).ok(), "7\n");
    sandbox.assert_quiet();
    // In the foreground its output goes on over the restarts, and the last code counts.
    let output = sandbox.rless(["start", "-a", "c"]).exits(7);
    assert_eq!(output.out, "up\nup\nup\n");
    sandbox.rless(["update", "--restart", "no", "c"]).ok();
    assert_eq!(sandbox.rless(["start", "-a", "c"]).exits(7).out, "up\n");
    assert_eq!(runs(&sandbox, "c"), "exited 0");
    sandbox.rless(["rm", "c"]).ok();
    sandbox
        .rless(["run", "--rm", "--restart", "always", "rootfs:/", "true"])
        .exits(125);
}

/// The container's id, and its runs and restarts as events.
fn told(sandbox: &Sandbox, name: &str) -> (String, Vec<String>) {
    let id = sandbox.rless(["inspect", "-f", "{{.Id}}", name]).ok();
    let words = ["restart", "start", "died", "remove"].map(|w| format!("--filter=event={w}"));
    let events = ["events", "--stream=false", "--format", "{{.Status}}"];
    let filter = format!("--filter=container={}", id.trim_end());
    let told = sandbox.rless(events).args(words).args([filter]).ok();
    (id, told.lines().map(str::to_owned).collect())
}

#[test]
fn a_restart_keeps_what_goes_when_it_ends() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let script = format!("ls /mark; echo >/mark; {KIND}");
    detached(&sandbox, "c", &["--rm"], &script);
    let (id, _) = told(&sandbox, "c");
    assert_eq!(sandbox.rless(["restart", "c"]).ok(), "c\n");
    assert_eq!(runs(&sandbox, "c"), "running 0");
    wait_for("its second run", Duration::from_secs(20), || {
        sandbox.rless(["logs", "c"]).run().out == "up\n/mark\nup\n"
    });
    let (again, events) = told(&sandbox, "c");
    assert_eq!(again, id);
    assert_eq!(events, ["start", "restart", "died", "start"]);
    assert_eq!(sandbox.rless(["restart", "-t", "0", "c"]).ok(), "c\n");
    assert_eq!(told(&sandbox, "c").1.len(), 7);
    sandbox.rless(["stop", "-t", "0", "c"]).ok();
    assert_eq!(state(&sandbox, "c"), "none");
    sandbox.assert_quiet();
}

#[test]
fn who_is_with_one_that_goes_stays_over_a_restart() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let run = ["run", "--rm", "--network", "none", "--name", "c"];
    let script = ["rootfs:/", "sh", "-c", KIND];
    let with_it = sandbox.rless(run).args(script).spawn();
    wait_for("it", Duration::from_secs(20), || {
        sandbox.rless(["logs", "c"]).run().out == "up\n"
    });
    sandbox.rless(["restart", "c"]).ok();
    wait_for("its second run", Duration::from_secs(20), || {
        sandbox.rless(["logs", "c"]).run().out == "up\nup\n"
    });
    sandbox.rless(["stop", "c"]).ok();
    let ended = with_it.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "up\nup\n");
    // What is being stopped goes then: nobody has it back.
    detached(&sandbox, "d", &["--rm"], DEAF);
    let stop = sandbox.rless(["stop", "-t", "60", "d"]).spawn();
    wait_for("stopping", Duration::from_secs(20), || {
        state(&sandbox, "d").starts_with("stopping")
    });
    let refused = sandbox.rless(["restart", "-t", "0", "d"]).exits(125);
    assert!(refused.err.contains("stopping"), "{}", refused.err);
    sandbox.rless(["rm", "-f", "-t", "0", "d"]).ok();
    assert!(stop.wait_with_output().unwrap().status.success());
    sandbox.assert_quiet();
}

#[test]
fn a_restart_that_cannot_begin_says_so_and_it_goes() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let dir = sandbox.dir.join("gone");
    sandbox.make_dir(&dir);
    let mount = format!("{}:/w", dir.display());
    detached(&sandbox, "c", &["--rm", "-v", &mount], KIND);
    std::fs::remove_dir(&dir).unwrap();
    let failed = sandbox.rless(["restart", "c"]).exits(125);
    assert!(failed.err.contains("gone"), "{}", failed.err);
    wait_for("its end", Duration::from_secs(20), || {
        state(&sandbox, "c") == "none"
    });
    sandbox.assert_quiet();
}

#[test]
fn a_restart_is_told_of_and_a_paused_one_is_refused() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "c", &[], KIND);
    sandbox.rless(["restart", "c"]).ok();
    sandbox.rless(["stop", "-t", "0", "c"]).ok();
    sandbox.rless(["restart", "c"]).ok();
    let (id, events) = told(&sandbox, "c");
    let wanted = [
        "start", "restart", "died", "start", "died", "restart", "start",
    ];
    assert_eq!(events, wanted);
    // As a paused one's record says; nothing can be paused without a control group.
    let containers = sandbox.store().join("containers");
    let record = containers.join(id.trim_end()).join("record.json");
    let running = std::fs::read_to_string(&record).unwrap();
    let paused = running.replace("\"state\":\"running\"", "\"state\":\"paused\"");
    assert_ne!(paused, running);
    std::fs::write(&record, paused).unwrap();
    detached(&sandbox, "d", &[], KIND);
    let refused = sandbox.rless(["restart", "-t", "0", "c"]).exits(125);
    assert!(
        refused.err.contains("paused or unknown state"),
        "{}",
        refused.err
    );
    assert!(refused.err.contains("rless unpause c"), "{}", refused.err);
    let all = sandbox.rless(["restart", "-t", "0", "-a"]).exits(125);
    assert_eq!(all.out.lines().count(), 1, "{}", all.out);
    assert_eq!(told(&sandbox, "c").1, wanted);
    assert_eq!(told(&sandbox, "d").1, ["start", "restart", "died", "start"]);
    sandbox.rless(["rm", "-f", "-a", "-t", "0"]).ok();
}

#[test]
fn a_wait_ends_with_the_first_exit_whatever_comes_after() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let script = "echo up; until [ -e /go ]; do sleep 0.1; done; rm /go; exit 4";
    detached(&sandbox, "c", &["--restart", "always"], script);
    let mut waits: Vec<_> = (0..2)
        .map(|_| sandbox.rless(["wait", "c"]).spawn())
        .collect();
    // Each run ends when it is told to; who is not heard before one is before the next.
    wait_for("their end", Duration::from_secs(60), || {
        sandbox.rless(["exec", "c", "touch", "/go"]).run();
        waits.iter_mut().all(|w| w.try_wait().unwrap().is_some())
    });
    for wait in &mut waits {
        assert_eq!(crate::harness::rest(wait.stdout.take()), "4\n");
    }
    assert!(!runs(&sandbox, "c").starts_with("exited"));
    sandbox.rless(["rm", "-f", "-t", "0", "c"]).ok();
}

#[test]
fn what_a_user_stops_stays_stopped() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "run", &["--restart", "always"], KIND);
    detached(
        &sandbox,
        "wait",
        &["--restart", "always"],
        "echo up; exit 1",
    );
    assert_eq!(sandbox.rless(["stop", "run"]).ok(), "run\n");
    // While it waits for its next start it can be asked, too.
    wait_for("a pause", Duration::from_secs(20), || {
        runs(&sandbox, "wait").starts_with("restarting")
    });
    let began = Instant::now();
    assert_eq!(sandbox.rless(["stop", "-t", "60", "wait"]).ok(), "wait\n");
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "{:?}",
        began.elapsed()
    );
    for name in ["run", "wait"] {
        assert!(
            runs(&sandbox, name).starts_with("exited"),
            "{}",
            runs(&sandbox, name)
        );
    }
    sandbox.assert_quiet();
    assert_eq!(runs(&sandbox, "run"), "exited 0");
    sandbox.rless(["rm", "-a"]).ok();
}

#[test]
fn a_killed_supervisors_policy_is_carried_out_by_the_next_command() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "always", &["--restart", "always"], KIND);
    detached(&sandbox, "never", &[], KIND);
    for name in ["always", "never"] {
        kill(supervisor(&sandbox, name), Signal::SIGKILL).unwrap();
    }
    wait_for("the container is started", Duration::from_secs(20), || {
        state(&sandbox, "always") == "running 0"
    });
    assert_eq!(state(&sandbox, "never"), "exited 137");
    assert_eq!(runs(&sandbox, "always"), "running 1");
    // One that is stopped is not brought back, even where its supervisor was killed before.
    kill(supervisor(&sandbox, "always"), Signal::SIGKILL).unwrap();
    assert_eq!(sandbox.rless(["stop", "always"]).ok(), "always\n");
    sandbox.assert_quiet();
    assert!(state(&sandbox, "always").starts_with("exited"));
    sandbox.rless(["rm", "-a"]).ok();
}

#[test]
fn a_host_that_changes_its_name_keeps_its_containers() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    // As if it had been made under another name, and in another boot.
    let made_by = |name: &str, boot: Option<&str>| {
        let containers = sandbox.store().join("containers");
        let id = std::fs::read_link(containers.join("names").join(name)).unwrap();
        let path = containers.join(id).join("record.json");
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        record["host"] = "0123456789abcdef old-name".into();
        if let Some(boot) = boot {
            record["boot"] = boot.into();
        }
        std::fs::write(&path, record.to_string()).unwrap();
    };
    detached(&sandbox, "running", &[], KIND);
    made_by("running", None);
    assert_eq!(
        sandbox.rless(["exec", "running", "echo", "in"]).ok(),
        "in\n"
    );
    sandbox.rless(["stop", "running"]).ok();
    assert_eq!(state(&sandbox, "running"), "exited 3");

    // Renamed before a reboot in which it ran.
    detached(&sandbox, "booted", &[], KIND);
    let dead = supervisor(&sandbox, "booted");
    kill(dead, Signal::SIGKILL).unwrap();
    made_by("booted", Some("another"));
    sandbox.assert_quiet();
    assert_eq!(state(&sandbox, "booted"), "exited 137");
    sandbox.rless(["start", "booted"]).ok();
    sandbox.rless(["rm", "-f", "running", "booted"]).ok();
}

#[test]
fn a_removal_is_waited_for() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "gone", &["--rm"], KIND);
    // Either way -1, if it looks only after the removal, too.
    let wait = ["wait", "--ignore", "--condition", "removing", "gone"];
    let mut child = sandbox.rless(wait).spawn();
    let now = ["wait", "--condition", "removing", "--condition", "running"];
    assert_eq!(sandbox.rless(now).arg("gone").ok(), "-1\n");
    assert!(child.try_wait().unwrap().is_none(), "it is there");
    sandbox.rless(["stop", "gone"]).ok();
    assert_eq!(crate::harness::rest(child.stdout.take()), "-1\n");
    assert!(child.wait().unwrap().success());
    assert_eq!(state(&sandbox, "gone"), "none");
}

#[test]
fn removing_live_ones_and_pruning() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    for name in ["a", "b", "third"] {
        detached(&sandbox, name, &[], DEAF);
    }
    // At once: one after the other they would end 6 s apart.
    assert_eq!(
        sandbox.rless(["rm", "-f", "-t", "6", "a", "b"]).ok(),
        "a\nb\n"
    );
    let events = ["events", "--stream=false", "--filter", "event=died"];
    let times = sandbox.rless(events).args(["--format", "{{.TimeNano}}"]);
    let times = times.ok();
    let times: Vec<i64> = times.lines().map(|t| t.parse().unwrap()).collect();
    assert_eq!(times.len(), 2, "{times:?}");
    assert!(times[0].abs_diff(times[1]) < 5_000_000_000, "{times:?}");
    sandbox
        .rless([
            "create", "--name", "idle", "--label", "k=1", "rootfs:/", "true",
        ])
        .ok();
    let asked = sandbox.rless(["container", "prune"]).stdin("n\n").ok();
    assert_eq!(
        asked,
        "WARNING! This will remove all non running containers.\nAre you sure you want to continue? [y/N] "
    );
    assert_eq!(state(&sandbox, "idle"), "created 0");
    assert_eq!(
        sandbox
            .rless(["container", "prune", "-f", "--filter", "label=k=2"])
            .ok(),
        ""
    );
    assert_eq!(
        sandbox
            .rless(["container", "prune", "-f"])
            .ok()
            .lines()
            .count(),
        1
    );
    sandbox.rless(["container", "exists", "idle"]).exits(1);
    sandbox.rless(["container", "exists", "third"]).exits(0);
    assert_eq!(
        sandbox.rless(["rm", "-af", "-t", "0"]).ok().lines().count(),
        1
    );
    sandbox.assert_quiet();
}

#[test]
fn every_command_ends_when_a_supervisor_is_killed_under_it() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    for command in [
        &["stop", "-t", "50", "c"][..],
        &["restart", "-t", "50", "c"],
        &["rm", "-f", "-t", "50", "c"],
        &["wait", "c"],
        &["start", "-a", "c"],
    ] {
        detached(&sandbox, "c", &["--replace"], DEAF);
        let victim = supervisor(&sandbox, "c");
        let mut child = sandbox.rless(command).spawn();
        waits(&mut child);
        kill(victim, Signal::SIGKILL).unwrap();
        let until = Instant::now() + Duration::from_secs(150);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "{command:?} hangs");
            std::thread::sleep(Duration::from_millis(10));
        }
        let expected = match command[0] {
            "rm" => "none",
            "restart" => "running 0",
            _ => "exited 137",
        };
        assert_eq!(state(&sandbox, "c"), expected, "{command:?}");
        sandbox.rless(["rm", "-f", "-t", "0", "c"]).ok();
        sandbox.assert_quiet();
    }
}

#[test]
fn rmi_of_a_detached_container_removes_its_image() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let images = || sandbox.rless(["images", "-q"]).ok();
    let run = "run -d --rmi --network none --name c busybox";
    let sleep = run.split(' ').chain(["sleep", "1000"]);
    sandbox.rless(sleep).ok();
    let format = "{{.HostConfig.AutoRemove}} {{.HostConfig.AutoRemoveImage}}";
    let shown = sandbox.rless(["inspect", "-f", format, "c"]).ok();
    assert_eq!(shown, "true true\n");
    // Another uses it.
    sandbox.rless(["create", "--name", "d", "busybox"]).ok();
    sandbox.rless(["rm", "-f", "-t", "0", "c"]).ok();
    assert_ne!(images(), "");
    sandbox.rless(["rm", "d"]).ok();
    let once = run.split(' ').chain(["true"]);
    sandbox.rless(once).ok();
    let limit = std::time::Duration::from_secs(60);
    crate::harness::wait_for("the image goes", limit, || images().is_empty());
}

#[test]
fn rmi_removes_no_name_that_was_not_asked_for() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let names = || {
        let format = "{{.Repository}}";
        sandbox.rless(["images", "-n", "--format", format]).ok()
    };
    let run = |image: &str| {
        let words = ["run", "--rmi", "--network", "none", image, "true"];
        let output = sandbox.rless(words).run();
        assert_eq!(output.code(), 0, "{output}");
        output
    };
    sandbox
        .rless(["run", "--rm", "--network", "none", "busybox", "true"])
        .ok();
    let other = sandbox.dir.join("a-busybox");
    std::os::unix::fs::symlink(world.images.join("busybox.oci"), &other).unwrap();
    let other = format!("oci:{}", other.display());
    sandbox.rless(["pull", "-q", &other]).ok();
    let both = names();
    assert_eq!(both.lines().count(), 2, "{both}");
    let id = sandbox
        .rless(["image", "inspect", "-f", "{{.Id}}", "a-busybox"])
        .ok();
    // By its id: which of the two names is meant is not known.
    run(id.trim()).says(&["several names"]);
    assert_eq!(names(), both);
    assert_eq!(run("a-busybox").err, "");
    let left = names();
    assert_eq!(left.lines().count(), 1, "{left}");
    assert!(!left.contains("a-busybox"), "{left}");
    assert_eq!(run("busybox").err, "");
    assert_eq!(names(), "");
}
