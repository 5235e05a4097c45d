//! Looking at containers that live: logs, events, attach, stats, inspect.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::{Cmd, Sandbox, skip, wait_for, waits, world};
use crate::pty::Pty;

/// Makes a detached container that runs `script`.
fn detached(sandbox: &Sandbox, name: &str, flags: &[&str], script: &str) {
    let args = ["run", "-d", "--net", "none", "--name", name];
    let command = ["busybox", "sh", "-c", script];
    let cmd = sandbox.rless(args).args(flags).args(command);
    cmd.ok();
}

/// A command under way, and what it has written by now.
struct Shown {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Shown {
    fn begin(cmd: &Cmd) -> Shown {
        let mut child = cmd.spawn();
        let out = BufReader::new(child.stdout.take().unwrap());
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let shared = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .for_each(|line| shared.lock().unwrap().push(line));
        });
        Shown {
            child,
            lines,
            reader,
        }
    }

    fn nothing_yet(&self) -> bool {
        self.lines.lock().unwrap().is_empty()
    }

    /// Every line but those with `word` in them, when it has ended.
    fn without(mut self, word: &str) -> Vec<String> {
        self.child.wait().unwrap();
        self.reader.join().unwrap();
        let mut lines = self.lines.lock().unwrap().clone();
        lines.retain(|line| !line.contains(word));
        lines
    }
}

#[test]
fn a_follower_gets_every_line_over_rotations_and_ends_with_the_container() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let script = "until [ -e /go ]; do sleep 0.1; done; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); \
                  [ $((i % 100)) = 0 ] && sleep 0.1; done";
    detached(&sandbox, "rotated", &["--log-opt", "max-size=40k"], script);
    // Two rotations later the first lines are gone.
    let mut follower = sandbox.rless(["logs", "-f", "rotated"]).spawn();
    waits(&mut follower);
    sandbox.rless(["exec", "rotated", "touch", "/go"]).ok();
    let text = follower.wait_with_output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let numbers: Vec<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("line "))
        .collect();
    let wanted: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    assert_eq!(numbers, wanted);
    // What stays is bounded, whole lines, and ends where the container did.
    let kept = sandbox.rless(["logs", "rotated"]).ok();
    let (first, count) = (kept.lines().next().unwrap(), kept.lines().count());
    assert!(
        count < 1000 && first.starts_with("line "),
        "{count} {first}"
    );
    assert!(kept.ends_with("line 1999\n"), "{kept}");
    let id = sandbox
        .rless(["ps", "-aq", "--no-trunc", "--filter", "name=rotated"])
        .ok();
    let dir = sandbox.store().join("containers").join(id.trim());
    let size = |name: &str| std::fs::metadata(dir.join(name)).map_or(0, |m| m.len());
    let both = size("ctr.log") + size("ctr.log.1");
    assert!(both <= 40_000 && both > 15_000, "{both}");
    sandbox.rless(["rm", "rotated"]).ok();
}

#[test]
fn a_follower_of_a_container_that_removes_itself_gets_its_last_words() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    detached(
        &sandbox,
        "mortal",
        &["--rm"],
        "sleep 5; echo last; echo words >&2",
    );
    let followed = sandbox.rless(["logs", "-f", "mortal"]).exits(0);
    assert_eq!(
        (followed.out.as_str(), followed.err.as_str()),
        ("last\n", "words\n")
    );
}

#[test]
fn pieces_of_a_line_are_one_line() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let script = "printf a; sleep 0.3; printf b; sleep 0.3; echo c; printf end";
    detached(&sandbox, "pieces", &[], script);
    let text = sandbox.rless(["logs", "-f", "-t", "pieces"]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].ends_with("Z abc") && lines[1].ends_with("Z end"),
        "{text}"
    );
    let last = sandbox.rless(["logs", "--tail", "1", "pieces"]).ok();
    assert_eq!(last, "end");
    assert_eq!(
        sandbox.rless(["logs", "--tail", "2", "pieces"]).ok(),
        "abc\nend"
    );
    sandbox.rless(["rm", "pieces"]).ok();
}

#[test]
fn logs_without_a_journal_or_a_driver_say_so() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    for (flag, words) in [
        ("--log-driver=smoke-signals", "smoke-signals"),
        ("--log-opt=max-size=lots", "lots"),
        ("--log-opt=path=relative", "absolute"),
    ] {
        let run = sandbox.rless(["run", "--rm", flag, "busybox", "true"]);
        run.exits(125).says(&[words]);
    }
}

#[test]
fn several_clients_attach_at_once_and_none_stops_the_others() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    detached(
        &sandbox,
        "stage",
        &["-i"],
        "while read x; do echo got $x; done",
    );
    let listeners: Vec<_> = (0..3)
        .map(|_| Shown::begin(&sandbox.rless(["attach", "--no-stdin", "stage"])))
        .collect();
    let attached = || {
        let filter = ["events", "--stream=false", "--since", "1m"];
        let filter = sandbox.rless(filter).args(["--filter", "container=stage"]);
        filter.ok().matches("attach").count()
    };
    wait_for("three are attached", Duration::from_secs(30), || {
        attached() == 3
    });
    let mut speaker = Shown::begin(&sandbox.rless(["attach", "stage"]));
    let mut stdin = speaker.child.stdin.take().unwrap();
    // Told just before the supervisor hears of it.
    wait_for("all hear it", Duration::from_secs(30), || {
        stdin.write_all(b"hello\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        !listeners.iter().any(Shown::nothing_yet)
    });
    stdin.write_all(b"one\ntwo\n").unwrap();
    drop(stdin);
    assert_eq!(speaker.without("hello"), ["got one", "got two", ""]);
    for listener in listeners {
        assert_eq!(listener.without("hello"), ["got one", "got two", ""]);
    }
    let late = sandbox.rless(["attach", "stage"]);
    late.exits(125)
        .says(&["you can only attach to running containers"]);
    sandbox.rless(["rm", "stage"]).ok();
}

#[test]
fn a_terminal_is_left_and_found_again_as_it_was() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let run = [
        "run", "-dit", "--net", "none", "--name", "desk", "busybox", "sh",
    ];
    sandbox.rless(run).ok();
    let attach = || sandbox.rless(["attach", "desk"]);
    let mut first = Pty::start(attach(), 24, 80);
    first.send("echo first-$((20+2))\r");
    first.expect("first-22");
    first.send("\x10\x11");
    assert_eq!(first.wait(), 0);
    // Whoever comes back sees what was there.
    let mut second = Pty::start(attach(), 30, 100);
    second.expect("first-22");
    second.send("stty size\r");
    second.expect("30 100");
    let mut third = Pty::start(
        sandbox.rless(["attach", "--detach-keys", "q", "desk"]),
        30,
        100,
    );
    third.expect("30 100");
    second.send("echo to-$((40+2))-all\r");
    second.expect("to-42-all");
    third.expect("to-42-all");
    third.send("q");
    assert_eq!(third.wait(), 0);
    second.send("exit 3\r");
    assert_eq!(second.wait(), 0);
    let code = sandbox.rless([
        "ps",
        "-a",
        "--filter",
        "name=desk",
        "--format",
        "{{.ExitCode}}",
    ]);
    assert_eq!(code.ok(), "3\n");
    sandbox.rless(["rm", "desk"]).ok();
}

#[test]
fn events_are_followed_by_several_and_end_at_their_time() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let format = ["--format", "{{.Type}} {{.Status}} {{.Name}}"];
    let until = ["events", "--until", "15s", "--filter", "type=volume"];
    let began = Instant::now();
    let watchers: Vec<_> = (0..2)
        .map(|_| Shown::begin(&sandbox.rless(until).args(format)))
        .collect();
    // Both must be there before anything happens.
    let mut probes = 0..;
    wait_for("both look", Duration::from_secs(3), || {
        let probe = format!("probe-{}", probes.next().unwrap());
        sandbox.rless(["volume", "create", &probe]).ok();
        !watchers.iter().any(Shown::nothing_yet)
    });
    for name in ["a", "b"] {
        sandbox.rless(["volume", "create", name]).ok();
    }
    sandbox.rless(["volume", "rm", "a"]).ok();
    for watcher in watchers {
        assert_eq!(
            watcher.without("probe"),
            ["volume create a", "volume create b", "volume remove a"]
        );
    }
    assert!(
        began.elapsed() >= Duration::from_secs(14),
        "{:?}",
        began.elapsed()
    );
    let bad = sandbox.rless(["events", "--stream=false", "--filter", "colour=red"]);
    bad.exits(125).says(&["colour is an invalid filter"]);
}

#[test]
fn a_front_end_that_is_slow_was_attached_before_the_end() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    // The container is over before its front end hears that it has started.
    let slow = ["strace", "-o", "/dev/null", "-e", "trace=recvfrom"];
    let slow = slow.into_iter();
    let slow = slow.chain(["-e", "inject=recvfrom:delay_enter=1500000:when=1"]);
    let run = "run --network none --name c rootfs:/ true";
    let run = sandbox.rless(run.split(' '));
    run.wrapped(slow.clone()).exits(0);
    let start = sandbox.rless(["start", "-a", "c"]);
    start.wrapped(slow).exits(0);
    let format = ["--format", "{{.Status}}"];
    let events = sandbox.rless(["events", "--stream=false"]).args(format);
    let life = "init\nstart\nattach\ndied\ncleanup\n";
    assert_eq!(events.ok(), format!("create\n{life}{life}"));
    sandbox.rless(["start", "c"]).ok();
    sandbox.rless(["wait", "c"]).ok();
    let events = sandbox.rless(["events", "--stream=false"]).args(format);
    assert_eq!(events.ok().matches("attach").count(), 2);
    sandbox.rless(["rm", "c"]).ok();
}

#[test]
fn a_process_beside_has_died_however_slowly_it_is_read() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    detached(&sandbox, "c", &[], "sleep 1000");
    // More than the two pipes and the client take, less than what has the program wait for its reader.
    let exec = ["exec", "c", "dd", "if=/dev/zero", "bs=1024", "count=500"];
    let mut exec = sandbox.rless(exec).spawn();
    let died = "events --stream=false --filter event=exec_died";
    wait_for("its end", Duration::from_secs(60), || {
        sandbox.rless(died.split(' ')).ok().lines().count() == 1
    });
    // Nor does its reader keep the container.
    sandbox.rless(["rm", "-f", "-t", "0", "c"]).ok();
    let out = crate::harness::rest(exec.stdout.take());
    assert_eq!(out.len(), 500 << 10);
    assert_eq!(exec.wait().unwrap().code(), Some(0));
}

#[test]
fn what_has_died_can_be_removed() {
    let world = world!();
    if !world.root {
        skip!("needs root: a supervisor is closed to others");
    }
    let sandbox = Sandbox::new(world);
    let script = "until [ -e /go ]; do sleep 0.1; done";
    detached(&sandbox, "c", &[], script);
    // The exit record takes its time.
    let slow = "inject=fsync:delay_enter=2000000";
    let options = ["-e", "trace=fsync", "-e", slow];
    let mut strace = crate::stuck::traced(crate::stuck::supervisor(&sandbox, "c"), &options);
    let died = ["events", "--filter", "event=died"];
    let mut died = sandbox.rless(died).spawn();
    sandbox.rless(["exec", "c", "touch", "/go"]).ok();
    let mut line = String::new();
    let events = died.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(events), &mut line).unwrap();
    assert!(line.contains("container died"), "{line}");
    sandbox.rless(["rm", "c"]).ok();
    died.kill().unwrap();
    died.wait().unwrap();
    strace.wait().unwrap();
    let events = ["events", "--stream=false", "--format", "{{.Status}}"];
    let events = sandbox.rless(events).ok();
    assert!(events.ends_with("died\ncleanup\nremove\n"), "{events}");
}

#[test]
fn who_ran_it_does_not_wait_for_who_reads_it_slowly() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let script = "until [ -e /go ]; do sleep 0.1; done; dd if=/dev/zero bs=1024 count=900; exit 5";
    let run = ["run", "--net", "none", "--name", "c", "busybox", "sh", "-c"];
    let mut run = sandbox.rless(run).arg(script).spawn();
    wait_for("its start", Duration::from_secs(60), || {
        sandbox.rless(["ps", "--format", "{{.State}}"]).ok() == "running\n"
    });
    let mut slow = sandbox.rless(["attach", "--no-stdin", "c"]).spawn();
    let attached = ["events", "--stream=false", "--filter", "event=attach"];
    wait_for("both", Duration::from_secs(60), || {
        sandbox.rless(attached).ok().lines().count() == 2
    });
    sandbox.rless(["exec", "c", "touch", "/go"]).ok();
    let out = crate::harness::rest(run.stdout.take());
    assert_eq!(out.len(), 900 << 10);
    wait_for("the end of run", Duration::from_secs(60), || {
        run.try_wait().unwrap().is_some()
    });
    assert_eq!(run.wait().unwrap().code(), Some(5));
    assert!(slow.try_wait().unwrap().is_none());
    sandbox.rless(["rm", "c"]).ok();
    let out = crate::harness::rest(slow.stdout.take());
    assert_eq!(out.trim_end().len(), 900 << 10);
    assert!(slow.wait().unwrap().code().is_some());
}

#[test]
fn stats_count_what_a_container_does() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let busy = "dd if=/dev/zero of=/dev/null bs=1k & sleep 100";
    detached(&sandbox, "busy", &[], busy);
    let stats = |format: &str| {
        let once = sandbox.rless(["stats", "--no-stream", "--format", format, "busy"]);
        once.ok().trim().to_owned()
    };
    wait_for("CPU time is counted", Duration::from_secs(30), || {
        stats("{{.CPUNano}}").parse::<u64>().unwrap() > 300_000_000
    });
    assert!(stats("{{.PIDs}}").parse::<u64>().unwrap() >= 2);
    assert!(stats("{{.CPUPerc}} {{.MemPerc}}").matches('%').count() == 2);
    assert!(stats("{{.MemUsage}}").contains("B / "));
    sandbox.rless(["rm", "-f", "-t", "0", "busy"]).ok();
    let gone = sandbox.rless(["stats", "--no-stream", "busy"]);
    gone.exits(125).says(&["unable to look up container busy"]);
}

#[test]
fn inspect_agrees_with_what_was_asked_for() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let flags = [
        "-v",
        "views-data:/data:ro",
        "--tmpfs",
        "/scratch",
        "-e",
        "A=1",
        "-w",
        "/tmp",
        "-l",
        "k=v",
        "--cap-add",
        "NET_RAW",
        "--cap-drop",
        "KILL",
        "--log-opt",
        "max-size=10k",
    ];
    detached(&sandbox, "seen", &flags, "sleep 100");
    let show = |format: &str| sandbox.rless(["inspect", "-f", format, "seen"]).ok();
    for (format, wanted) in [
        (
            "{{.Name}} {{.State.Status}} {{.State.Running}}",
            "seen running true\n",
        ),
        (
            "{{.Config.WorkingDir}} {{index .Config.Labels \"k\"}}",
            "/tmp v\n",
        ),
        (
            "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}",
            "volume views-data /data false\n",
        ),
        (
            "{{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}}",
            "[CAP_NET_RAW] [CAP_KILL]\n",
        ),
        (
            "{{.HostConfig.NetworkMode}} {{.HostConfig.LogConfig.Size}}",
            "none 10kB\n",
        ),
        (
            "{{range $k, $v := .HostConfig.Tmpfs}}{{$k}}{{end}}",
            "/scratch\n",
        ),
    ] {
        assert_eq!(show(format), wanted, "{format}");
    }
    // The process it names is the container's.
    let pid = show("{{.State.Pid}}");
    let line = crate::harness::command_line(pid.trim().parse().unwrap());
    assert!(line.ends_with("sleep 100"), "{line}");
    sandbox.rless(["rm", "-f", "-t", "0", "seen"]).ok();
    sandbox.rless(["volume", "rm", "views-data"]).ok();
}

#[test]
fn inspect_tells_of_a_cidfile_and_a_user_namespace() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let file = sandbox.dir.join("cid").display().to_string();
    let create = ["create", "--userns", "keep-id", "--cidfile", &file];
    let rest = ["--name", "c", "rootfs:/", "true"];
    sandbox.rless(create).args(rest).ok();
    let usual = ["create", "--name", "d", "rootfs:/", "true"];
    sandbox.rless(usual).ok();
    let format = "{{.HostConfig.ContainerIDFile}} {{.HostConfig.UsernsMode}}";
    let shown = |name| sandbox.rless(["inspect", "-f", format, name]).ok();
    assert_eq!(shown("c"), format!("{file} private\n"));
    assert_eq!(shown("d"), " \n");
}
