//! Faults of a container's helpers and of the machine, and what is promised for each.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Sandbox, command_line, host, parent, processes, skip, wait_for, world};
use crate::hostile::{Body, Recipe, digest, noise};
use crate::network::free_port;
use crate::registries::twisted;

const QUICK: Duration = Duration::from_secs(20);

/// Runs a container for good and returns its directory in the store.
fn detached(sandbox: &Sandbox, name: &str, flags: &[&str], script: &str) -> PathBuf {
    let cmd = sandbox.rless(["run", "-d", "--name", name]).args(flags);
    let id = cmd.args(["busybox", "sh", "-c", script]).ok();
    sandbox.store().join("containers").join(id.trim_end())
}

/// `{{.State.Status}}` and the like of a container.
fn about(sandbox: &Sandbox, name: &str, format: &str) -> String {
    let inspect = sandbox.rless(["container", "inspect", "--format", format, name]);
    inspect.ok().trim_end().to_owned()
}

fn log_of(container: &std::path::Path) -> String {
    std::fs::read_to_string(container.join("ctr.log")).unwrap_or_default()
}

/// The supervisor of a container, out of its record.
fn supervisor(container: &std::path::Path) -> i32 {
    let text = std::fs::read(container.join("record.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    i32::try_from(record["supervisor"]["pid"].as_i64().unwrap()).unwrap()
}

fn comm(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

#[test]
fn pasta_dies_and_the_container_has_its_network_and_ports_back() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let script = "mkdir /www; echo hello > /www/index.html; exec httpd -f -h /www -p 80";
    let container = detached(&sandbox, "served", &["-p", &publish], script);
    let page = || {
        host(&format!(
            "curl -sS --max-time 9 --retry 20 --retry-all-errors --retry-delay 1 http://127.0.0.1:{port}/"
        ))
    };
    assert_eq!(page(), "hello\n");
    let init = about(&sandbox, "served", "{{.State.Pid}}");
    let pasta = || {
        let ours = supervisor(&container);
        let found = processes().into_iter().filter(|&p| parent(p) == ours);
        found
            .filter(|&p| comm(p).starts_with("pas"))
            .collect::<Vec<_>>()
    };
    let first = pasta();
    assert_eq!(first.len(), 1, "{first:?}");
    kill(Pid::from_raw(first[0]), Signal::SIGKILL).unwrap();
    wait_for("another pasta", QUICK, || {
        pasta().iter().any(|p| *p != first[0])
    });
    assert_eq!(page(), "hello\n");
    assert_eq!(about(&sandbox, "served", "{{.State.Pid}}"), init);
    wait_for("what is said of it", QUICK, || {
        let log = log_of(&container);
        log.contains("signal: 9") && log.contains("its network was restored")
    });
    sandbox.rless(["rm", "-f", "-t", "0", "served"]).ok();
}

#[test]
fn a_file_system_server_dies_and_the_next_start_has_what_was_synced() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let script = "test -f /kept && { cat /kept; exit; }; echo data | dd of=/kept conv=fsync 2>/dev/null; echo synced; \
                  while :; do sleep 1; done";
    let container = detached(&sandbox, "served-root", &["--network", "none"], script);
    wait_for("its data", QUICK, || log_of(&container).contains("synced"));
    let init: i32 = about(&sandbox, "served-root", "{{.State.Pid}}")
        .parse()
        .unwrap();
    kill(Pid::from_raw(supervisor(&container)), Signal::SIGKILL).unwrap();
    let list = [
        "ps",
        "-a",
        "--filter",
        "name=served-root",
        "--format",
        "{{.State}} {{.ExitCode}}",
    ];
    assert_eq!(sandbox.rless(list).ok(), "exited 137\n");
    wait_for("the container's first process ends", QUICK, || {
        !processes().contains(&init)
    });
    assert_eq!(sandbox.rless(["start", "-a", "served-root"]).ok(), "data\n");
    sandbox.rless(["rm", "served-root"]).ok();
}

/// Waits for a child's end, as long as `limit`.
fn ended(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

#[test]
fn ctrl_c_ends_a_pull_at_once_wherever_it_waits() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let image = Recipe::of(vec![vec![("big", noise(400_000))]]).bake();
    let layer = digest(&image.layers[0]);
    for waits in ["/manifests/", layer.as_str()] {
        let waits = waits.to_owned();
        let at = waits.clone();
        let server = twisted(&image, move |r, reply| match reply.body.clone() {
            Body::Whole(bytes) if r.path.contains(&at) => {
                reply.body(Body::Slow(bytes, 100, Duration::from_secs(60)))
            }
            _ => reply,
        });
        let name = format!("{}/x:1", server.host());
        let mut child = sandbox.rless(["pull", "--tls-verify=false", &name]).spawn();
        wait_for("the request that waits", QUICK, || server.count(&waits) > 0);
        std::thread::sleep(Duration::from_millis(200));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let began = Instant::now();
        kill(pid, Signal::SIGINT).unwrap();
        let status = ended(&mut child, Duration::from_secs(60));
        // What a shell shows as 130.
        assert_eq!(
            status.and_then(|s| s.signal()),
            Some(2),
            "{waits}: {status:?}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{waits}: {:?}",
            began.elapsed()
        );
    }
    assert_eq!(sandbox.rless(["images", "-q"]).ok(), "");
    // Nothing is locked or half there: the same image comes when its registry speaks.
    let honest = twisted(&image, |_, reply| reply);
    let name = format!("{}/x:1", honest.host());
    sandbox
        .rless(["pull", "-q", "--tls-verify=false", &name])
        .ok();
    sandbox.assert_quiet();
}

#[test]
fn containers_are_listed_and_removed_on_a_full_disk() {
    let world = world!();
    if !world.root {
        skip!("needs root to mount a small file system");
    }
    let sandbox = Sandbox::new(world);
    let data = sandbox.get("XDG_DATA_HOME");
    let (uid, gid) = (sandbox.account.uid, sandbox.account.gid);
    let dir = data.display();
    host(&format!(
        "mount -t tmpfs -o size=16m,mode=700,uid={uid},gid={gid} none {dir}"
    ));
    let none = ["--network", "none"];
    let made = sandbox
        .rless(["run", "--name", "ended"])
        .args(none)
        .args(["busybox", "sh", "-c", "echo x > /f"])
        .run();
    let lives = sandbox
        .rless(["run", "-d", "--name", "lives"])
        .args(none)
        .args(["busybox", "sleep", "1000"])
        .run();
    host(&format!(
        "dd if=/dev/zero of={dir}/filler bs=64k 2>/dev/null || true; chown {uid} {dir}/filler; df -B1 --output=avail {dir} | tail -1"
    ));
    let list = sandbox.rless(["ps", "-a", "--format", "{{.Names}}"]).run();
    let refused = sandbox
        .rless(["create", "--name", "more"])
        .args(none)
        .args(["busybox", "true"])
        .run();
    let stopped = sandbox.rless(["stop", "-t", "0", "lives"]).run();
    let removed = sandbox.rless(["rm", "ended", "lives"]).run();
    let left = sandbox.rless(["ps", "-aq"]).run();
    host(&format!("umount {dir}"));
    assert_eq!((made.code(), lives.code()), (0, 0), "{made}{lives}");
    assert_eq!(list.out, "ended\nlives\n", "{list}");
    assert_eq!(refused.code(), 125, "{refused}");
    refused.says(&["o space left"]);
    assert_eq!(stopped.out, "lives\n", "{stopped}");
    assert_eq!(
        (removed.code(), removed.out.as_str()),
        (0, "ended\nlives\n"),
        "{removed}"
    );
    assert_eq!((left.code(), left.out.as_str()), (0, ""), "{left}");
}

#[test]
fn too_few_descriptors_are_named() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let rless = sandbox.binary().display().to_string();
    for (limit, command) in [
        (4, "ps -a"),
        (8, "run --rm --network none busybox true"),
        (12, "run --rm --network none busybox true"),
    ] {
        let output = sandbox
            .sh(&format!("ulimit -n {limit}; exec {rless} {command}"))
            .run();
        // It works with what there is, or says what there is too little of.
        if output.code() != 0 {
            assert_eq!(output.code(), 125, "{limit}: {output}");
            output.says(&["oo many open files"]);
        }
    }
    let output = sandbox
        .sh(&format!(
            "ulimit -n 4; exec {rless} run --rm --network none busybox true"
        ))
        .exits(125);
    output.says(&["oo many open files", "ulimit -n"]);
    sandbox.assert_quiet();
}

#[test]
fn nobody_else_sees_the_environment_of_a_container_that_lives() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let flags = ["--network", "none", "-e", "PASSWORD=hunter2"];
    let container = detached(
        &sandbox,
        "secretive",
        &flags,
        "echo $PASSWORD; exec sleep 1000",
    );
    wait_for("its variable", QUICK, || {
        log_of(&container).contains("hunter2")
    });
    let supervisor = supervisor(&container);
    let line = command_line(supervisor);
    let id = container.file_name().unwrap().to_str().unwrap();
    assert!(
        line.contains(&id[..8]) && line.starts_with(sandbox.binary().to_str().unwrap()),
        "{line}"
    );
    for pid in processes() {
        let line = command_line(pid);
        assert!(!line.contains("hunter2"), "{pid}: {line}");
    }
    sandbox.rless(["rm", "-f", "-t", "0", "secretive"]).ok();
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let rless = sandbox.binary().display().to_string();
    let run = "run --rm --network none busybox echo hi";
    let full = sandbox
        .sh(&format!("exec {rless} {run} >/dev/full"))
        .exits(125);
    full.says(&["No space left on device"]);
    // A reader that goes is none: the container gets SIGPIPE, or was through with it.
    sandbox
        .sh(&format!(
            "{rless} run --rm --network none busybox yes | head -n 1"
        ))
        .exits(0);
    detached(
        &sandbox,
        "writer",
        &["--network", "none"],
        "exec sleep 1000",
    );
    let full = sandbox
        .sh(&format!("exec {rless} exec writer echo hi >/dev/full"))
        .exits(125);
    full.says(&["No space left on device"]);
    sandbox.rless(["rm", "-f", "-t", "0", "writer"]).ok();
}

#[test]
fn ctrl_c_ends_the_wait_of_a_restart_policy() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let run = [
        "run",
        "--name",
        "again",
        "--restart",
        "always",
        "--network",
        "none",
        "busybox",
        "false",
    ];
    let mut child = sandbox.rless(run).spawn();
    // In the pause of 3.2 s before its sixth: a run of it would get the signal itself.
    let pauses = || {
        let format = "{{.State.Status}} {{.RestartCount}}";
        let inspect = ["container", "inspect", "-f", format, "again"];
        sandbox.rless(inspect).run().out == "restarting 5\n"
    };
    wait_for("the fifth restart", QUICK, pauses);
    kill(
        Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let status = ended(&mut child, Duration::from_secs(60));
    assert_eq!(status.and_then(|s| s.code()), Some(1), "{status:?}");
    assert_eq!(about(&sandbox, "again", "{{.State.Status}}"), "exited");
    sandbox.assert_quiet();
}

#[test]
fn who_insists_leaves_output_that_nobody_takes() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let none = ["--network", "none", "busybox", "sh", "-c"];
    for (script, signals) in [
        ("yes | head -c 80000", 1),
        ("yes | head -c 300000", 2),
        ("yes", 2),
    ] {
        let mut child = sandbox
            .rless(["run", "--rm"])
            .args(none)
            .args([script])
            .spawn();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        // Its pipe is full, and what may be queued is; the first container has ended by then.
        let pipe = child.stdout.take().unwrap();
        let (mut before, mut since) = (0, Instant::now());
        wait_for("a full pipe", QUICK, || {
            let now = rustix::io::ioctl_fionread(&pipe).unwrap();
            if now != before {
                (before, since) = (now, Instant::now());
            }
            before >= 32768 && since.elapsed() > Duration::from_secs(1)
        });
        if signals == 1 {
            wait_for("its end", QUICK, || {
                crate::faults::init_of(&sandbox).is_none()
            });
        }
        for _ in 0..signals {
            kill(pid, Signal::SIGTERM).unwrap();
            std::thread::sleep(Duration::from_millis(500));
        }
        let status = ended(&mut child, Duration::from_secs(60));
        assert_eq!(
            status.and_then(|s| s.code()),
            Some(143),
            "{script}: {status:?}"
        );
    }
    sandbox.rless(["rm", "-f", "-a", "-t", "0"]).ok();
    sandbox.assert_quiet();
}

/// With every process used up that the user may have, what runs can be ended and looked at, and nothing panics.
#[test]
fn containers_are_ended_with_no_process_left_to_the_user() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let rless = sandbox.binary().display().to_string();
    let names = ["stopped", "killed", "forced", "one", "two"];
    for name in names {
        let container = detached(&sandbox, name, &["--network", "none"], "exec sleep 1000");
        // Neither can its supervisor have a thread more.
        let limit = format!("prlimit --nproc=1:1 --pid {}", supervisor(&container));
        sandbox.sh(&limit).ok();
    }
    let alone = |command: &str| {
        let output = sandbox.sh(&format!("exec prlimit --nproc=1:1 {rless} {command}"));
        let output = output.run();
        assert!(!output.err.contains("panicked"), "{command}: {output}");
        output
    };
    for (command, code, out) in [
        ("stop -t 1 stopped", 0, "stopped\n"),
        ("kill killed", 0, "killed\n"),
        ("wait killed", 0, "137\n"),
        ("rm -f -t 0 forced", 0, "forced\n"),
        ("rm stopped killed", 0, "stopped\nkilled\n"),
        ("stop -t 0 one two", 0, "one\ntwo\n"),
        ("rm -a", 0, ""),
        ("ps -aq", 0, ""),
    ] {
        let output = alone(command);
        assert_eq!(output.code(), code, "{command}: {output}");
        assert!(output.out.contains(out), "{command}: {output}");
    }
    for (command, words) in [
        (
            "run --rm --network none busybox true",
            "emporarily unavailable",
        ),
        ("ps -a", "ulimit -u"),
    ] {
        let output = alone(command);
        assert_eq!(output.code(), 125, "{command}: {output}");
        output.says(&[words]);
    }
    sandbox.assert_quiet();
}
