//! Promise 4: killed anywhere, it heals. Each process, ten moments, then the next command.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Sandbox, parent, processes, wait_for, world};

/// The supervisor of the sandbox's only container: the one rless process that is not a child of a
/// process of the test.
fn supervisor_of(sandbox: &Sandbox, front: i32) -> Option<i32> {
    let rless = sandbox.binary().to_string_lossy().into_owned();
    sandbox
        .processes()
        .into_iter()
        .find(|(pid, line)| *pid != front && line.starts_with(&rless))
        .map(|(pid, _)| pid)
}

/// The container's init: a process in another pid namespace whose parent is not.
pub(crate) fn init_of(sandbox: &Sandbox) -> Option<i32> {
    let ours = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let marked: Vec<i32> = sandbox
        .processes()
        .into_iter()
        .map(|(pid, _)| pid)
        .collect();
    let foreign =
        |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|ns| ns != ours);
    let pasta = |pid: i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.starts_with("pas"))
    };
    processes()
        .into_iter()
        .find(|&pid| marked.contains(&parent(pid)) && foreign(pid) && !pasta(pid))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Front,
    Supervisor,
    Init,
}

/// Kills the victim `after` the start, lets everything settle and checks that the next command
/// finds nothing in its way and clears the rest.
fn kill_after(sandbox: &Sandbox, victim: Victim, after: Duration) {
    let began = Instant::now();
    let script =
        "echo up; i=0; while [ $i -lt 30 ]; do echo $i > /f$i; sleep 0.1; i=$((i+1)); done";
    let mut child = sandbox
        .rless([
            "run",
            "--name",
            "victim",
            "-p",
            "127.0.0.1::80",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .spawn();
    let front = i32::try_from(child.id()).unwrap();
    std::thread::sleep(after.saturating_sub(began.elapsed()));
    let target = match victim {
        Victim::Front => Some(front),
        Victim::Supervisor => supervisor_of(sandbox, front),
        Victim::Init => init_of(sandbox),
    };
    if let Some(pid) = target {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL); // it may have ended by itself
    }
    let context = format!("{victim:?} killed after {after:?} (pid {target:?})");
    let until = Instant::now() + Duration::from_secs(150);
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < until, "{context}: the front end hangs");
        std::thread::sleep(Duration::from_millis(10));
    };
    match (victim, target) {
        (Victim::Init, Some(_)) => assert!(matches!(code, Some(137 | 125)), "{context}: {code:?}"),
        (Victim::Supervisor, Some(_)) => assert_eq!(code, Some(125), "{context}"),
        _ => {}
    }
    wait_for(
        &format!("{context}: every process ends: {:?}", sandbox.processes()),
        Duration::from_secs(30),
        || sandbox.processes().is_empty(),
    );
    // The next command: it works, nothing runs, the name can be had again, and rm leaves nothing.
    assert_eq!(sandbox.rless(["ps", "-q"]).ok(), "", "{context}");
    let all = sandbox.rless(["ps", "-a", "-q"]).ok();
    if !all.is_empty() {
        sandbox.rless(["rm", "-f", "victim"]).ok();
    }
    let again = sandbox
        .rless([
            "run",
            "--rm",
            "--network",
            "none",
            "--name",
            "victim",
            "busybox",
            "echo",
            "again",
        ])
        .ok();
    assert_eq!(again, "again\n", "{context}");
    assert_eq!(sandbox.rless(["ps", "-a", "-q"]).ok(), "", "{context}");
    let left = "find \"$XDG_DATA_HOME/rless/containers\" \"$XDG_DATA_HOME/rless/tmp\" -mindepth 1 ! -name '*.lock' \
        ! -path '*/names' ! -path '*/locks*' ! -name .new ! -name .gone; find \"$XDG_RUNTIME_DIR\" -mindepth 1 ! -type d ! -name pasta.json";
    assert_eq!(sandbox.sh(left).run().out, "", "{context}: files are left");
}

fn ten_moments(victim: Victim) {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    for moment in [0, 5, 15, 30, 60, 100, 150, 250, 500, 1000] {
        kill_after(&sandbox, victim, Duration::from_millis(moment));
    }
}

#[test]
fn front_end_killed_at_ten_moments() {
    ten_moments(Victim::Front);
}

#[test]
fn supervisor_killed_at_ten_moments() {
    ten_moments(Victim::Supervisor);
}

#[test]
fn container_killed_at_ten_moments() {
    ten_moments(Victim::Init);
}

#[test]
fn pull_killed_at_ten_moments() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    for moment in [0, 10, 30, 60, 100, 200, 300, 400, 600, 1000] {
        let mut child = sandbox.rless(["pull", "-q", "alpine"]).spawn();
        std::thread::sleep(Duration::from_millis(moment));
        drop(child.kill());
        child.wait().unwrap();
        let images = sandbox.rless(["images", "-q"]).ok();
        if images.is_empty() {
            continue;
        }
        // Whole or not at all.
        assert!(
            sandbox
                .rless([
                    "run",
                    "--rm",
                    "--pull",
                    "never",
                    "alpine",
                    "cat",
                    "/etc/alpine-release"
                ])
                .ok()
                .starts_with("3.23")
        );
        sandbox.rless(["rmi", "alpine"]).ok();
    }
    assert_eq!(
        sandbox
            .rless(["run", "--rm", "alpine", "echo", "whole"])
            .ok(),
        "whole\n"
    );
    sandbox.rless(["rmi", "alpine"]).ok();
    let left = sandbox.sh("find \"$XDG_DATA_HOME/rless/packs\" \"$XDG_DATA_HOME/rless/blobs\" \"$XDG_DATA_HOME/rless/tmp\" -type f").run();
    assert_eq!(left.out, "");
}

#[test]
fn two_pulls_of_one_image_both_succeed() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let ids = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| sandbox.rless(["pull", "-q", "alpine"]).ok()))
            .collect();
        pulls
            .into_iter()
            .map(|pull| pull.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(sandbox.rless(["images", "-q"]).ok().lines().count(), 1);
}

#[test]
fn two_runs_of_one_name_one_wins() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    let outputs = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    sandbox
                        .rless([
                            "run",
                            "--name",
                            "one",
                            "--network",
                            "none",
                            "busybox",
                            "sleep",
                            "1",
                        ])
                        .run()
                })
            })
            .collect();
        runs.into_iter()
            .map(|run| run.join().unwrap())
            .collect::<Vec<_>>()
    });
    let mut codes: Vec<i32> = outputs.iter().map(crate::harness::Output::code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 125, 125], "{outputs:#?}");
    for output in outputs.iter().filter(|o| o.code() == 125) {
        output.says(&["one"]);
    }
}

#[test]
fn corrupt_blob_is_detected_and_never_run() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    // One bit of every blob in turn: config and manifest.
    for blob in sandbox
        .sh("find \"$XDG_DATA_HOME/rless/blobs\" -type f")
        .ok()
        .lines()
    {
        let old = std::fs::read(blob).unwrap();
        let mut new = old.clone();
        let middle = new.len() / 2;
        new[middle] ^= 1;
        std::fs::write(blob, &new).unwrap();
        let output = sandbox
            .rless([
                "run",
                "--rm",
                "--pull",
                "never",
                "--network",
                "none",
                "busybox",
                "echo",
                "ran",
            ])
            .run();
        // Either what was checked at pull is used, unharmed, or the damage is named.
        assert!(
            output.out == "ran\n" || (output.code() == 125 && output.err.contains("sha256")),
            "{output}"
        );
        std::fs::write(blob, &old).unwrap();
    }
}

#[test]
fn flipped_bit_in_a_layout_commits_nothing() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let layout = sandbox.dir.join("home/layout");
    crate::harness::host(&format!(
        "cp -r {}/busybox.oci {l} && chmod -R a+rX {l} && chmod a+x {}",
        world.images.display(),
        sandbox.dir.join("home").display(),
        l = layout.display()
    ));
    let reference = format!("oci:{}", layout.display());
    let mut blobs: Vec<_> = std::fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    blobs.sort();
    assert_eq!(blobs.len(), 3, "manifest, config, layer");
    for blob in &blobs {
        let old = std::fs::read(blob).unwrap();
        for at in [old.len() / 3, old.len() - 1] {
            let mut new = old.clone();
            new[at] ^= 0x10;
            std::fs::write(blob, &new).unwrap();
            let output = sandbox.rless(["pull", &reference]).run();
            assert_eq!(
                output.code(),
                125,
                "{}: byte {at}: {output}",
                blob.display()
            );
            assert_eq!(sandbox.rless(["images", "-q"]).ok(), "");
        }
        std::fs::write(blob, &old).unwrap();
    }
    sandbox.rless(["pull", "-q", &reference]).ok();
}
