//! The container's process: how it starts, what it holds, how it ends.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use rless::runtime;
use rless::sys::process::{Cloned, clone3, exit_now, pidfd_send_signal};
use rless::sys::tty::WindowSize;
use serde_json::{Value, json};

use crate::Case;
use crate::world::{World, config, drive, plan};

pub(crate) const CASES: &[Case] = &[
    ("commands_that_cannot_run_say_why", exec_errors),
    ("limits_are_clamped", rlimits),
    ("umask_and_working_directory", umask_and_cwd),
    ("a_terminal_is_the_containers_own", terminal),
    ("init_reaps_forwards_and_hides", init),
    ("init_on_a_terminal_gives_it_to_the_command", init_terminal),
    ("release_is_waited_for", release),
    ("a_killed_supervisor_takes_its_container_along", orphan),
    ("extra_descriptors_begin_at_three", listen_fds),
    ("pipes_can_be_opened_again_by_the_user", pipes),
    ("environment_is_what_the_spec_says", environment),
];

fn exec_errors(world: &World) {
    let root = world.fresh_root("exec");
    let put = |name: &str, text: &[u8], mode: u32| {
        fs::write(root.join("bin").join(name), text).unwrap();
        fs::set_permissions(
            root.join("bin").join(name),
            fs::Permissions::from_mode(mode),
        )
        .unwrap();
    };
    put("plain", b"text\n", 0o644);
    put("noformat", b"text\n", 0o755);
    put("lost", b"#!/usr/bin/python9 -E\n", 0o755);
    put("secret", b"#!/bin/sh\necho hi\n", 0o711);
    for (command, uid, code, says) in [
        ("nope", 0, 127, "executable file `nope` not found in $PATH"),
        ("/nope", 0, 127, "executable file `/nope` not found"),
        ("/bin/sh/x", 0, 127, "executable file `/bin/sh/x` not found"),
        ("", 0, 125, "no command given"),
        ("/etc", 0, 126, "it is a directory"),
        ("etc", 0, 127, "not found in $PATH"),
        ("plain", 0, 126, "may not execute it"),
        ("/bin/plain", 1000, 126, "may not execute it"),
        ("noformat", 0, 126, "#!/bin/sh"),
        (
            "lost",
            0,
            127,
            "its interpreter `/usr/bin/python9` is missing",
        ),
    ] {
        let ran = world.run_in(
            &root,
            &[command],
            |c| c["process"]["user"]["uid"] = json!(uid),
            |_| {},
        );
        assert!(
            ran.code == code && ran.report.contains(says),
            "{command:?}: {ran:?}"
        );
    }
    // As a user who may execute but not read it: the shell cannot, exec could.
    let ran = world.run_in(
        &root,
        &["secret"],
        |c| c["process"]["user"]["uid"] = json!(1000),
        |_| {},
    );
    assert_ne!(ran.code, 125, "{ran:?}");
    let ran = world.run_in(
        &root,
        &["true"],
        |c| c["process"]["cwd"] = json!("/bin/sh"),
        |_| {},
    );
    assert!(
        ran.code == 126
            && ran
                .report
                .contains("entering the working directory /bin/sh"),
        "{ran:?}"
    );
}

fn rlimits(world: &World) {
    let (_, most) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let ran = world.run(&["sh", "-c", "ulimit -Hn; ulimit -Sc; ulimit -Sn"], |c| {
        c["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 64, "hard": u64::MAX},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]);
    });
    assert_eq!(ran.out, format!("{most}\n0\n64\n"), "{}", ran.report);
}

fn umask_and_cwd(world: &World) {
    let ran = world.run(&["sh", "-c", "umask; pwd"], |c| {
        c["process"]["cwd"] = json!("/tmp/../home")
    });
    assert_eq!(ran.out, "0022\n/home\n", "{}", ran.report);
    let ran = world.run(&["sh", "-c", "umask"], |c| {
        c["process"]["user"]["umask"] = json!(0o77)
    });
    assert_eq!(ran.out, "0077\n", "{}", ran.report);
}

/// Runs on a terminal; returns what was written to it.
fn on_terminal(world: &World, args: &[&str], init: bool, edit: impl FnOnce(&mut Value)) -> String {
    let mut config = config(args);
    edit(&mut config);
    let mut plan = plan(config, &world.root, &tempfile::tempfile().unwrap());
    plan.terminal = Some(WindowSize {
        rows: 33,
        columns: 77,
    });
    plan.stdio = None;
    plan.init = init;
    let mut child = runtime::spawn(&plan).unwrap();
    child.begin().unwrap();
    let mut master = File::from(child.recv_pty().unwrap());
    if let Err(e) = child.wait_exec() {
        panic!("{}", rless::error::report(&e));
    }
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    // EIO: the other end is closed.
    while let Ok(n @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..n]);
    }
    waitpid(child.pid(), None).unwrap();
    String::from_utf8_lossy(&text).replace('\r', "")
}

fn terminal(world: &World) {
    let script = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; stat -c '%a %u %g' /dev/pts/0; \
        echo hello >/dev/console; echo tty >/dev/tty; stat -c %t:%T /dev/console /dev/pts/0 | uniq | wc -l; ls /proc/self/fd | wc -l";
    let out = on_terminal(world, &["sh", "-c", script], false, |_| {});
    assert_eq!(out, "/dev/pts/0\n33 77\nall\n620 0 5\nhello\ntty\n1\n4\n");
    let out = on_terminal(
        world,
        &[
            "sh",
            "-c",
            "stat -c %u /dev/pts/0; echo x >/dev/pts/0; id -u",
        ],
        false,
        |c| {
            c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        },
    );
    assert_eq!(out, "1000\nx\n1000\n");
}

fn init(world: &World) {
    let run = |script: &str| {
        world.run_in(
            &world.root,
            &["sh", "-c", script],
            |_| {},
            |p| p.init = true,
        )
    };
    let ran = run(
        "echo $$; cat /proc/1/cmdline; echo; cat /proc/1/environ 2>/dev/null | grep -c SECRET; \
         (readlink /proc/1/exe || ls /proc/1/fd || cat /proc/1/maps) 2>/dev/null; grep -E '^(Name|CapEff|Seccomp:|CapAmb)' /proc/1/status",
    );
    let expected = "2\nrless-init\n0\nName:\trless-init\nCapEff:\t00000000800405fb\nCapAmb:\t0000000000000000\nSeccomp:\t2\n";
    assert_eq!(ran.out.replace('\0', ""), expected, "{}", ran.report);
    assert_eq!(run("exit 7").code, 7);
    assert_eq!(run("kill -9 $$").code, 137);
    // Orphans become PID 1's and leave no zombies.
    let ran = run(
        "(sleep 0.1 &); (true &); sleep 0.3; cat /proc/[0-9]*/stat | cut -d' ' -f3 | grep -c Z",
    );
    assert_eq!(ran.out, "0\n", "{ran:?}");
    // A missing command is reported as without it.
    let ran = world.run_in(&world.root, &["nope"], |_| {}, |p| p.init = true);
    assert!(
        ran.code == 127 && ran.report.contains("not found in $PATH"),
        "{ran:?}"
    );

    let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let output = tempfile::tempfile().unwrap();
    let mut plan = plan(config(&["sh", "-c", script]), &world.root, &output);
    plan.init = true;
    let mut child = runtime::spawn(&plan).unwrap();
    child.begin().unwrap();
    child.wait_exec().unwrap();
    until(|| output.metadata().unwrap().size() > 0);
    pidfd_send_signal(child.pidfd(), Some(Signal::SIGTERM)).unwrap();
    assert_eq!(
        waitpid(child.pid(), None).unwrap(),
        WaitStatus::Exited(child.pid(), 3)
    );
}

fn init_terminal(world: &World) {
    // Reading from a terminal in the background would stop the command.
    let out = on_terminal(
        world,
        &[
            "sh",
            "-c",
            "set -- $(cat /proc/self/stat); echo $6 $8; echo $5",
        ],
        true,
        |_| {},
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[0].split(' ').next(),
        Some("1"),
        "the session is PID 1's: {out}"
    );
    assert_eq!(
        lines[0].split(' ').nth(1),
        Some(lines[1]),
        "its group is the foreground one: {out}"
    );
}

/// Waits for something that must come soon.
fn until(done: impl Fn() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen in 5 s");
}

fn release(world: &World) {
    let output = tempfile::tempfile().unwrap();
    let mut plan = plan(config(&["echo", "now"]), &world.root, &output);
    plan.wait_release = true;
    let mut child = runtime::spawn(&plan).unwrap();
    child.begin().unwrap();
    child.wait_ready().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(output.metadata().unwrap().size(), 0);
    child.release().unwrap();
    child.wait_exec().unwrap();
    waitpid(child.pid(), None).unwrap();
    assert_eq!(output.metadata().unwrap().size(), 4);
}

fn orphan(world: &World) {
    let output = tempfile::tempfile().unwrap();
    for init in [false, true] {
        let mut plan = plan(config(&["sleep", "1000"]), &world.root, &output);
        plan.init = init;
        let Cloned::Parent { pid, pidfd } = clone3(0)
            .map(|c| match c {
                Cloned::Parent { .. } => c,
                Cloned::Child => {
                    let mut child = runtime::spawn(&plan).unwrap();
                    child.begin().unwrap();
                    child.wait_exec().unwrap();
                    fs::write(world.dir.path().join("orphan"), child.pid().to_string()).unwrap();
                    std::thread::sleep(Duration::from_secs(1000));
                    exit_now(0)
                }
            })
            .unwrap()
        else {
            unreachable!()
        };
        let file = world.dir.path().join("orphan");
        until(|| fs::read_to_string(&file).is_ok_and(|t| !t.is_empty()));
        let container = format!("/proc/{}", fs::read_to_string(&file).unwrap());
        assert!(fs::metadata(&container).is_ok());
        pidfd_send_signal(&pidfd, Some(Signal::SIGKILL)).unwrap();
        waitpid(pid, None).unwrap();
        until(|| {
            !fs::read_to_string(format!("{container}/cmdline")).is_ok_and(|c| c.contains("sleep"))
        });
        fs::remove_file(&file).unwrap();
    }
}

fn listen_fds(world: &World) {
    let extra = |text: &str| {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        OwnedFd::from(file)
    };
    let ran = world.run_in(
        &world.root,
        &["sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd; true"],
        |_| {},
        |p| p.extra_fds = vec![extra("three\n"), extra("four\n")],
    );
    assert_eq!(ran.out, "three\nfour\n0\n1\n2\n3\n4\n5\n", "{}", ran.report);
}

fn pipes(world: &World) {
    let (read, write) = std::io::pipe().unwrap();
    let mut plan = plan(
        config(&["sh", "-c", "echo again >/dev/stdout"]),
        &world.root,
        &tempfile::tempfile().unwrap(),
    );
    let mut user = plan.spec.process().clone().unwrap();
    user.user_mut().set_uid(1000);
    plan.spec.set_process(Some(user));
    plan.stdio = Some([
        File::open("/dev/null").unwrap().into(),
        write.try_clone().unwrap().into(),
        write.into(),
    ]);
    let ran = drive(&plan, tempfile::tempfile().unwrap());
    drop(plan);
    let mut text = String::new();
    let mut read = read;
    read.read_to_string(&mut text).unwrap();
    assert_eq!((ran.code, text.as_str()), (0, "again\n"), "{}", ran.report);
}

fn environment(world: &World) {
    let ran = world.run(&["env"], |c| {
        c["process"]["env"] = json!(["PATH=/bin", "A=1", "*", "RLESS_RT_SECRET", "=x", "", "B="]);
    });
    assert_eq!(ran.out, "PATH=/bin\nA=1\nB=\n", "{}", ran.report);
}
