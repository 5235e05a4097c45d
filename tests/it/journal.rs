//! Reading logs that are in the journal. There is none here: a program of ours stands for journalctl(1), and answers out of
//! files; what the real one says is looked at in the virtual machine (`journald_takes_logs_and_gives_them_back`).

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Sandbox, wait_for, world};

const SOON: Duration = Duration::from_secs(20);

/// Shows the lines `NUMBER MICROSECONDS TEXT` of `$JOURNAL/ID` as journalctl does entries, their number as cursor.
const JOURNALCTL: &str = r#"#!/bin/bash
echo $$ >>"$JOURNAL/pids"
id= after=0 follow= most=
for arg; do
    case $arg in
    CONTAINER_ID_FULL=*) id=${arg#*=} ;;
    --after-cursor=*) after=${arg#*=} ;;
    --lines=*) most=${arg#*=} ;;
    --follow) follow=1 ;;
    esac
done
while :; do
    all=$(awk -v after="$after" '$1 > after' "$JOURNAL/$id")
    [ -z "$most" ] || all=$(tail -n "$most" <<<"$all")
    most=
    while read -r number micros text; do
        [ -n "$number" ] || continue
        printf '{"__CURSOR":"%s","__REALTIME_TIMESTAMP":"%s","PRIORITY":"6","MESSAGE":"%s"}\n' "$number" "$micros" "$text"
        after=$number
    done <<<"$all"
    [ -n "$follow" ] || exit 0
    # As before the first entry of a boot.
    [ -n "$after" ] && [ "$after" != 0 ] || exit 1
    sleep 0.05
done
"#;

struct World {
    sandbox: Sandbox,
    journal: PathBuf,
}

impl World {
    fn new(world: &'static crate::harness::World) -> World {
        let mut sandbox = Sandbox::new(world);
        let journal = sandbox.dir.join("journal");
        sandbox.make_dir(&journal);
        sandbox.write("journal/journalctl", JOURNALCTL);
        let program = journal.join("journalctl");
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = sandbox.get("PATH");
        sandbox.set("PATH", format!("{}:{}", journal.display(), path.display()));
        sandbox.set("JOURNAL", &journal);
        World { sandbox, journal }
    }

    /// A container that its record says is logged to the journal: its id.
    fn container(&self, name: &str, command: &str) -> String {
        let made = [command, "--network", "none", "--name", name, "rootfs:/"];
        let made: Vec<&str> = made.into_iter().flat_map(|w| w.split(' ')).collect();
        let made = self.sandbox.rless(made).args(["sleep", "1000"]);
        let id = made.ok().trim_end().to_owned();
        let path = format!("containers/{id}/record.json");
        let path = self.sandbox.store().join(path);
        let text = std::fs::read(&path).unwrap();
        let mut record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        record["log"]["driver"] = "journald".into();
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        std::fs::write(self.journal.join(&id), "").unwrap();
        id
    }

    fn add(&self, id: &str, line: &str) {
        let file = std::fs::File::options()
            .append(true)
            .open(self.journal.join(id));
        file.unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    /// Waits until the `n`th program of ours, the follower of a command, runs.
    fn follower(&self, n: usize) {
        let pids = || std::fs::read_to_string(self.journal.join("pids")).unwrap_or_default();
        let runs = || pids().lines().count() == n && self.readers() == 1;
        wait_for("the follower", SOON, runs);
    }

    /// Programs of ours that run.
    fn readers(&self) -> usize {
        let pids = std::fs::read_to_string(self.journal.join("pids")).unwrap_or_default();
        let alive = |pid: &&str| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("journalctl")
        };
        pids.lines().filter(alive).count()
    }
}

#[test]
fn a_tag_may_be_a_template() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let create = |name: &str, tag: &str| {
        let tag = format!("tag={tag}");
        let words = ["create", "--name", name, "--log-opt", &tag, "rootfs:/"];
        sandbox.rless(words).arg("true")
    };
    let id = create("web", "{{.ImageName}}/{{.Name}}/{{.ID}}").ok();
    let id = id.trim_end();
    let record = sandbox.store().join(format!("containers/{id}/record.json"));
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(record["log"]["tag"], format!("rootfs://web/{id}"));
    // As it was given, as podman.
    let tag = [
        "inspect",
        "--format",
        "{{.HostConfig.LogConfig.Tag}}",
        "web",
    ];
    let tag = sandbox.rless(tag).ok();
    assert_eq!(tag, "{{.ImageName}}/{{.Name}}/{{.ID}}\n");
    for bad in ["{{.Name", "{{.NoSuchField}}"] {
        create("bad", bad).exits(125).says(&["tag="]);
    }
    assert_eq!(sandbox.rless(["ps", "-aq"]).ok().lines().count(), 1);
    sandbox.rless(["rm", "web"]).ok();
}

#[test]
fn several_containers_logs_are_merged() {
    let world = world!();
    let world = World::new(world);
    let (a, b) = (
        world.container("a", "create"),
        world.container("b", "create"),
    );
    world.add(&a, "1 1000000 one");
    world.add(&b, "2 2000000 two");
    world.add(&a, "3 3000000 three");
    world.add(&b, "4 4000000 four");
    let logs = |args: &[&str]| world.sandbox.rless(["logs", "--names"]).args(args).ok();
    assert_eq!(logs(&["a", "b"]), "a one\nb two\na three\nb four\n");
    assert_eq!(logs(&["--tail", "1", "b", "a"]), "a three\nb four\n");
    assert_eq!(logs(&["--tail", "0", "b", "a"]), "");
    assert_eq!(
        logs(&["-t", "a"]),
        "1970-01-01T00:00:01Z one\n1970-01-01T00:00:03Z three\n"
    );
    // With one that is logged to a file, which is later.
    let script = ["rootfs:/", "echo", "five"];
    let run = ["run", "--network", "none", "--name", "c"];
    world.sandbox.rless(run).args(script).ok();
    assert_eq!(logs(&["c", "b"]), "b two\nb four\nc five\n");
    assert_eq!(world.readers(), 0);
    world.sandbox.rless(["rm", "-a"]).ok();
}

#[test]
fn a_follower_ends_with_its_container() {
    let world = world!();
    let world = World::new(world);
    let (a, b) = (
        world.container("a", "run -d"),
        world.container("b", "run -d"),
    );
    world.add(&a, "1 1000000 before");
    let logs = ["logs", "-f", "--names", "a", "b"];
    let following = world.sandbox.rless(logs).spawn();
    // That of the other one ends as long as there is nothing to follow.
    wait_for("a follower", SOON, || world.readers() == 1);
    world.add(&b, "2 2000000 meanwhile");
    world.sandbox.rless(["stop", "-t", "0", "a"]).ok();
    world.add(&b, "3 3000000 last");
    world.sandbox.rless(["stop", "-t", "0", "b"]).ok();
    let ended = following.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let text = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(text, "a before\nb meanwhile\nb last\n");
    assert_eq!(world.readers(), 0);
    world.sandbox.rless(["rm", "-a"]).ok();
}

#[test]
fn no_journalctl_outlives_who_reads_or_is_read_to() {
    let world = world!();
    let world = World::new(world);
    let a = world.container("a", "run -d");
    world.add(&a, "1 1000000 first");
    let mut following = world.sandbox.rless(["logs", "-f", "a"]).spawn();
    world.follower(2);
    kill(Pid::from_raw(following.id().cast_signed()), Signal::SIGKILL).unwrap();
    following.wait().unwrap();
    wait_for("its end", SOON, || world.readers() == 0);
    let rless = world.sandbox.binary().display().to_string();
    let short = format!("{rless} logs -f a | head -n1; echo; echo done");
    let reading = world.sandbox.sh(&short).spawn();
    world.follower(4);
    world.add(&a, "2 2000000 second");
    let ended = reading.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(text, "first\n\ndone\n");
    wait_for("its end", SOON, || world.readers() == 0);
    world.sandbox.rless(["rm", "-f", "-a", "-t", "0"]).ok();
}
