//! A person at a terminal: the real Alpine on a real pty.

use std::time::Duration;

use crate::harness::{Cmd, Sandbox, World, asleep, wait_for, world};
use crate::pty::Pty;

const PROMPT: &str = "/ # ";
const SOON: Duration = Duration::from_secs(20);

fn alpine(sandbox: &Sandbox) -> Cmd {
    sandbox.rless(["run", "--rm", "-it", "alpine", "sh"])
}

/// A pty on Alpine's shell that has shown its first prompt.
fn shell(world: &World, sandbox: &Sandbox) -> Pty {
    let _ = world;
    let mut pty = Pty::start(alpine(sandbox), 24, 80);
    pty.expect_within(PROMPT, Duration::from_secs(60));
    pty
}

#[test]
fn a_session_in_alpine_looks_like_a_machine() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let mut pty = shell(world, &sandbox);
    assert!(pty.shell("id", PROMPT).contains("uid=0(root) gid=0(root)"));
    let ps = pty.shell("ps -o pid,comm", PROMPT);
    assert!(
        ps.lines().any(|l| l.split_whitespace().eq(["1", "sh"])),
        "{ps}"
    );
    let name = pty.shell("hostname", PROMPT);
    let name = name.lines().last().unwrap_or_default().trim();
    assert!(
        name.len() == 12 && name.bytes().all(|b| b.is_ascii_hexdigit()),
        "{name}"
    );
    let addresses = pty.shell("ip -4 addr", PROMPT);
    assert!(
        addresses.contains("127.0.0.1/8") && addresses.matches("inet ").count() >= 2,
        "{addresses}"
    );
    let mounts = pty.shell("mount", PROMPT);
    for part in [
        " on / type fuse",
        " on /proc type proc",
        " on /dev/pts type devpts",
        " on /dev/shm type tmpfs",
    ] {
        assert!(mounts.contains(part), "no `{part}` in {mounts}");
    }
    assert!(pty.shell("tty", PROMPT).contains("/dev/"));
    pty.line("exit 7");
    assert_eq!(pty.wait(), 7);
}

#[test]
fn vi_edits_a_file() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let mut pty = shell(world, &sandbox);
    pty.line("vi /root/note");
    pty.expect("/root/note");
    pty.send("i");
    pty.expect("I /root/note"); // insert mode, in the status line
    pty.send("written in vi");
    pty.expect("vi");
    // Typed at once, an escape and a colon are one key to vi.
    pty.send("\x1b");
    pty.expect("- /root/note");
    pty.send(":wq\r");
    pty.expect(PROMPT);
    assert!(
        pty.shell("cat /root/note", PROMPT)
            .contains("written in vi")
    );
    pty.line("exit");
    assert_eq!(pty.wait(), 0);
}

#[test]
fn interrupt_and_job_control_stay_in_the_container() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let mut pty = shell(world, &sandbox);
    pty.line("echo start''ed; sleep 7201");
    pty.expect("started");
    wait_for("the process", SOON, || asleep("sleep 7201"));
    pty.send("\x03");
    pty.expect(PROMPT);
    assert!(pty.shell("echo code $?", PROMPT).contains("code 130"));

    pty.line("echo again''; sleep 7202");
    pty.expect("again\r\n");
    wait_for("the process", SOON, || asleep("sleep 7202"));
    pty.send("\x1a");
    pty.expect("Stopped");
    pty.expect(PROMPT);
    assert!(pty.shell("jobs", PROMPT).contains("sleep 7202"));
    pty.line("fg");
    pty.expect("sleep 7202");
    // Stopped it is not asleep.
    wait_for("the process", SOON, || asleep("sleep 7202"));
    pty.send("\x03");
    pty.expect(PROMPT);
    pty.line("exit 0");
    assert_eq!(pty.wait(), 0);
}

#[test]
fn a_resize_reaches_the_container() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let mut pty = shell(world, &sandbox);
    assert!(pty.shell("stty size", PROMPT).contains("24 80"));
    pty.resize(41, 133);
    let mut size = String::new();
    for _ in 0..200 {
        size = pty.shell("stty size", PROMPT);
        if size.contains("41 133") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(size.contains("41 133"), "{size}");
    pty.line("exit");
    assert_eq!(pty.wait(), 0);
}

#[test]
fn the_callers_terminal_is_as_it_was() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    for hangup in [false, true] {
        let mut pty = Pty::start(alpine(&sandbox), 24, 80);
        // A fresh pty's settings are the reference: asking this one's before rless makes it raw would race.
        let reference = Pty::start(sandbox.sh("sleep 0"), 24, 80).settings();
        pty.expect_within(PROMPT, Duration::from_secs(60));
        assert_ne!(
            pty.settings(),
            reference,
            "the terminal is not raw while the container runs"
        );
        if hangup {
            let front = nix::unistd::Pid::from_raw(pty.pid());
            nix::sys::signal::kill(front, nix::sys::signal::Signal::SIGHUP).unwrap();
        } else {
            pty.line("exit 5");
        }
        let code = pty.wait();
        assert_eq!(pty.settings(), reference);
        if hangup {
            // The container outlives its terminal, as with others; it is the user's to end.
            sandbox.rless(["rm", "-f", "-a"]).ok();
        } else {
            assert_eq!(code, 5);
        }
    }
}

/// Runs its arguments on a terminal, and hangs that up when it has shown `up`.
const HANGUP: &str = "import os, pty, sys\n\
    pid, terminal = pty.fork()\n\
    if pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n\
    seen = b''\n\
    while b'up' not in seen: seen += os.read(terminal, 4096)\n\
    os.close(terminal)\n\
    os.waitpid(pid, 0)\n";

#[test]
fn a_container_outlives_its_terminal_unless_its_first_process_heeds_the_hangup() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    let heeds = "trap 'exit 7' HUP; echo up; while :; do sleep 0.1; done";
    for (command, state) in [
        ("echo up; exec sleep 1000", "running"),
        ("echo up; exec cat", "running"),
        (heeds, "exited"),
    ] {
        let args = ["run", "-it", "--network", "none", "--name", "hung"];
        let rless = sandbox.binary().to_owned();
        let output = sandbox
            .command("/usr/bin/python3")
            .args(["-c", HANGUP])
            .arg(rless)
            .args(args)
            .args(["busybox", "sh", "-c", command])
            .run();
        assert_eq!(output.code(), 0, "{output}");
        let ps = |format: &str| sandbox.rless(["ps", "-a", "--format", format]).ok();
        if state == "exited" {
            crate::harness::wait_for("its end", Duration::from_secs(20), || {
                ps("{{.State}}") != "running\n"
            });
            assert!(ps("{{.Status}}").starts_with("Exited (7)"), "{command}");
        } else {
            // Were it to end of it, it would have by then.
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(ps("{{.State}}"), format!("{state}\n"), "{command}");
        sandbox.rless(["rm", "-f", "-t", "0", "hung"]).ok();
    }
}

#[test]
fn without_a_terminal_t_says_so_or_works_on_pipes() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    // As podman: -t gives the container a terminal, whatever the caller's streams are.
    let out = sandbox
        .rless(["run", "--rm", "-t", "alpine", "sh", "-c", "tty; echo done"])
        .ok();
    assert!(out.contains("/dev/") && out.contains("done"), "{out}");
    // Scripts say -it under cron, too: a warning of `run`, none of `exec`, and the input comes all the same.
    let script = ["sh", "-c", "read x; tty; echo got $x"];
    let here = sandbox.rless(["run", "--rm", "-it", "alpine"]).args(script);
    let here = here.stdin("one\n").exits(0);
    assert!(
        here.out.contains("/dev/") && here.out.contains("got one"),
        "{here}"
    );
    here.says(&["Warning: The input device is not a TTY"]);
    let id = sandbox.rless(["run", "-d", "alpine", "sleep", "1000"]).ok();
    let there = sandbox.rless(["exec", "-it", id.trim_end()]).args(script);
    let there = there.stdin("two\n").exits(0);
    assert!(
        there.out.contains("/dev/") && there.out.contains("got two"),
        "{there}"
    );
    assert_eq!(there.err, "", "{there}");
    sandbox.rless(["rm", "-f", "-t", "0", id.trim_end()]).ok();
    // Without -t there is no controlling terminal to type into.
    let mut pty = Pty::start(
        sandbox.rless([
            "run",
            "--rm",
            "-i",
            "alpine",
            "sh",
            "-c",
            "tty; (: < /dev/tty) 2>&1; echo end''ed",
        ]),
        24,
        80,
    );
    let seen = pty.expect("ended");
    assert!(
        seen.contains("not a tty") && seen.contains("No such device"),
        "{seen}"
    );
    assert_eq!(pty.wait(), 0);
}

/// What a container may call its files, labels and words: colours, a clear screen, an end of line and a line of its own.
const FORGED: &str = "a\u{1b}[2Jb\nD etc";

#[test]
fn what_a_container_made_up_is_shown_and_not_obeyed() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let label = format!("label={FORGED}");
    let run = ["run", "--network", "none", "--name", "forger", "--label"];
    sandbox
        .rless(run)
        .args([&label, "busybox", "touch", &format!("/{FORGED}")])
        .ok();
    let on_terminal = |args: &[&str]| {
        let mut pty = Pty::start(sandbox.rless(args), 24, 200);
        assert_eq!(pty.wait(), 0, "{args:?}");
        // The reader may be a moment behind.
        crate::harness::wait_for("the output", Duration::from_secs(10), || {
            pty.shown().contains("a\\x1b[2Jb")
        });
        let text = pty.shown().replace('\r', "");
        assert!(!text.contains('\u{1b}'), "{args:?}: {text:?}");
        text
    };
    let ps = |format| {
        let filter = ["--filter", "name=forger", "--format", format];
        [&["ps", "-a", "--no-trunc"][..], &filter].concat()
    };
    let shown = "a\\x1b[2Jb\\x0aD etc";
    let added = format!("A /{shown}\n");
    assert!(on_terminal(&["diff", "forger"]).starts_with(&added));
    for (format, line) in [
        (
            "{{.Names}} {{.Labels}}",
            format!("forger map[label:{shown}]\n"),
        ),
        ("{{.Command}}", "touch /a\\x1b[2Jb D etc\n".to_owned()),
        ("{{.Label \"label\"}}", format!("{shown}\n")),
    ] {
        assert_eq!(on_terminal(&ps(format)), line);
    }
    // In a pipe paths and words are as they are, but a line stays a line.
    let diff = sandbox.rless(["diff", "forger"]).ok();
    assert!(diff.starts_with("A /a\u{1b}[2Jb\\x0aD etc\n"), "{diff}");
    let raw = sandbox.rless(ps("{{.Command}}")).ok();
    assert_eq!(raw, "touch /a\u{1b}[2Jb D etc\n");
    let events = ["events", "--stream=false", "--since", "10m"];
    let events = || sandbox.rless(events).args(["--filter", "container=forger"]);
    let (lines, all) = (events().ok(), events().args(["--format", "json"]).ok());
    assert_eq!(lines.lines().count(), all.lines().count(), "{lines}");
    assert!(
        !lines.contains('\u{1b}') && lines.contains(shown),
        "{lines}"
    );
    sandbox.rless(["rm", "forger"]).ok();
}

#[test]
fn a_reader_that_went_away_ends_a_listing_without_a_word() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let run = [
        "run",
        "--network",
        "none",
        "--name",
        "listed",
        "busybox",
        "touch",
        "/f",
    ];
    sandbox.rless(run).ok();
    let rless = sandbox.binary().display().to_string();
    for words in [
        "diff listed",
        "diff --format json listed",
        "snapshot --list listed",
        "ps -a",
    ] {
        let script = format!("{{ sleep 0.3; {rless} {words}; echo $? >&2; }} | true");
        let ended = sandbox.sh(&script).run();
        assert_eq!(ended.err, "141\n", "{words}");
    }
    sandbox.rless(["rm", "listed"]).ok();
}
