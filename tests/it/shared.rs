//! What containers share beside a network, where the recorded cases of podman (`podman.rs`) do not look.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::harness::{Sandbox, command_line, processes, wait_for, world};

const SOON: Duration = Duration::from_secs(20);

fn first(sandbox: &Sandbox) {
    let run = ["run", "-d", "--network", "none", "--name", "a"];
    sandbox.rless(run).args(["rootfs:/", "sleep", "1000"]).ok();
}

#[test]
fn in_another_s_pid_namespace_everything_ends_with_the_first_process() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    first(&sandbox);
    let script = "setsid sleep 4711 & setsid sh -c 'sleep 4711; true' & sleep 0.3; exit 3";
    let run = [
        "run",
        "--name",
        "b",
        "--network",
        "none",
        "--pid",
        "container:a",
    ];
    let b = sandbox
        .rless(run)
        .args(["rootfs:/", "sh", "-c", script])
        .run();
    assert_eq!(b.code(), 3);
    let left = || {
        let mut lines = processes().into_iter().map(command_line);
        lines.any(|line| line.starts_with("sleep 4711"))
    };
    // What got SIGKILL may not have had a processor yet.
    wait_for("their end", SOON, || !left());
    // One that is killed, too, and one whose user leaves it.
    let script = "setsid sleep 4711 & sleep 1000";
    let run = ["start", "b"];
    sandbox.rless(["rm", "b"]).ok();
    let create = [
        "create",
        "--name",
        "b",
        "--network",
        "none",
        "--pid",
        "container:a",
    ];
    sandbox
        .rless(create)
        .args(["rootfs:/", "sh", "-c", script])
        .ok();
    sandbox.rless(run).ok();
    wait_for("its processes", SOON, left);
    let seen = sandbox
        .rless(["exec", "a", "sh", "-c", "cat /proc/[0-9]*/cmdline"])
        .ok();
    assert!(seen.contains("4711"), "{seen}");
    let refused = sandbox.rless(["rm", "-f", "-t", "0", "a"]).run();
    assert!(refused.err.contains("dependent"), "{}", refused.err);
    sandbox.rless(["kill", "b"]).ok();
    wait_for("their end", SOON, || !left());
    assert_eq!(
        sandbox.rless(["exec", "a", "echo", "lives"]).ok(),
        "lives\n"
    );
    sandbox.rless(["rm", "-f", "-t", "0", "b", "a"]).ok();
}

#[test]
fn shared_memory_goes_with_the_ipc_namespace() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    first(&sandbox);
    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "--ipc",
        "container:a",
        "rootfs:/",
        "sh",
        "-c",
    ];
    sandbox.rless(run).arg("echo mine >/dev/shm/mark").ok();
    let seen = sandbox.rless(["exec", "a", "cat", "/dev/shm/mark"]).ok();
    assert_eq!(seen, "mine\n");
    let own = [
        "run",
        "--rm",
        "--network",
        "none",
        "rootfs:/",
        "ls",
        "/dev/shm",
    ];
    assert_eq!(sandbox.rless(own).ok(), "");
    // It is still what it was for the one, when the other is gone.
    let options = sandbox
        .rless(["exec", "a", "grep", " /dev/shm ", "/proc/self/mounts"])
        .ok();
    assert!(
        options.starts_with("shm ") || options.starts_with("tmpfs "),
        "{options}"
    );
    for word in ["nosuid", "nodev", "noexec"] {
        assert!(options.contains(word), "{options}");
    }
    sandbox.rless(["rm", "-f", "-t", "0", "a"]).ok();
}

#[test]
fn namespaces_of_two_containers_are_not_shared_at_once() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    for name in ["a", "b"] {
        let create = ["create", "--network", "none", "--name", name];
        sandbox.rless(create).args(["rootfs:/", "true"]).ok();
    }
    let run = |flags: &[&str]| {
        let run = sandbox.rless(["run", "--rm"]).args(flags);
        run.args(["rootfs:/", "true"]).exits(125).err
    };
    let said = run(&["--network", "container:a", "--pid", "container:b"]);
    assert!(said.contains("different containers"), "{said}");
    let said = run(&["--pid", "container:a", "--init"]);
    assert!(said.contains("--init"), "{said}");
    let said = run(&["--ipc", "container:a", "--userns", "keep-id"]);
    assert!(said.contains("--userns and --ipc"), "{said}");
    sandbox.rless(["rm", "a", "b"]).ok();
}

#[test]
fn streams_that_are_passed_through_are_the_caller_s_own() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let home = sandbox.dir.join("streams");
    sandbox.make_dir(&home);
    let script = "\"$0\" run -i --network none --name c --log-driver passthrough rootfs:/ \
                  sh -c 'cat; echo err >&2; stat -L -c %i /proc/self/fd/1' <in >out 2>err; stat -c %i out";
    std::fs::write(home.join("in"), "given\n").unwrap();
    std::fs::set_permissions(home.join("in"), PermissionsExt::from_mode(0o644)).unwrap();
    let inode = sandbox.sh(script).arg(sandbox.binary()).cwd(&home).ok();
    let read = |name: &str| std::fs::read_to_string(home.join(name)).unwrap();
    assert_eq!(read("out"), format!("given\n{inode}"));
    assert_eq!(read("err"), "err\n");
    // Never a terminal: who has one of the host's can type into it.
    let run = [
        "run",
        "-t",
        "--log-driver",
        "passthrough",
        "rootfs:/",
        "true",
    ];
    assert!(sandbox.rless(run).exits(125).err.contains("TTY"));
    sandbox.rless(["rm", "c"]).ok();
}

/// What a manager hears until `last` has been said.
fn heard(manager: &UnixDatagram, last: &str) -> Vec<String> {
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    while !said.iter().any(|line| line == last) {
        let n = manager.recv(&mut buffer).expect(last);
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        said.extend(text.lines().map(str::to_owned));
    }
    said
}

#[test]
fn a_container_tells_the_service_manager_how_it_is_and_no_more() {
    let world = world!();
    let mut sandbox = Sandbox::new(world);
    let path = sandbox.dir.join("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    sandbox.set("NOTIFY_SOCKET", &path);
    let script = [
        "import os, socket",
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "s.connect(os.environ['NOTIFY_SOCKET'])",
        "s.send(b'MAINPID=1\\nSTATUS=warming up')",
        "s.send(b'READY=1')",
    ];
    let script = script.join("\n");
    let run = [
        "run",
        "--name",
        "c",
        "--network",
        "none",
        "rootfs:/",
        "python3",
        "-c",
        &script,
    ];
    sandbox.rless(run).ok();
    let said = heard(&manager, "READY=1");
    assert!(said.contains(&"STATUS=warming up".to_owned()), "{said:?}");
    let main = said.iter().filter_map(|l| l.strip_prefix("MAINPID="));
    let main: Vec<&str> = main.collect();
    assert!(main.len() == 1 && main[0] != "1", "{said:?}");
    // Again, and by the checks.
    sandbox.rless(["start", "-a", "c"]).ok();
    heard(&manager, "READY=1");
    let run = [
        "run",
        "-d",
        "--name",
        "d",
        "--network",
        "none",
        "--sdnotify",
        "healthy",
    ];
    let check = [
        "--health-cmd",
        "test -e /tmp/ok",
        "--health-interval",
        "200ms",
    ];
    let cmd = sandbox.rless(run).args(check);
    cmd.args(["rootfs:/", "sleep", "1000"]).ok();
    let supervisor = sandbox
        .rless(["inspect", "-f", "{{.State.ConmonPid}}", "d"])
        .ok();
    let said = format!("MAINPID={}", supervisor.trim_end());
    assert_eq!(heard(&manager, &said).len(), 1);
    manager.set_nonblocking(true).unwrap();
    assert!(
        manager.recv(&mut [0; 64]).is_err(),
        "ready before it is healthy"
    );
    manager.set_nonblocking(false).unwrap();
    sandbox.rless(["exec", "d", "touch", "/tmp/ok"]).ok();
    heard(&manager, "READY=1");
    sandbox.rless(["rm", "-f", "-t", "0", "c", "d"]).ok();
}

#[test]
fn the_host_s_processes_are_shared_only_where_all_of_a_container_s_can_be_ended() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let info = sandbox.rless(["info"]).ok();
    let without = info.contains("cgroupManager: none");
    let run = ["run", "--rm", "--network", "none", "--pid", "host"];
    let script = "readlink /proc/self/ns/pid; setsid sleep 4713 & sleep 0.2; exit 3";
    let run = sandbox
        .rless(run)
        .args(["rootfs:/", "sh", "-c", script])
        .run();
    if without {
        assert_eq!(run.code(), 125);
        assert!(run.err.contains("needs a control group"), "{}", run.err);
        assert!(run.err.contains("hint: "), "{}", run.err);
        let made = sandbox.rless(["ps", "-aq"]).ok();
        assert_eq!(made, "");
    } else {
        let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
        assert_eq!(run.out.trim(), own.to_string_lossy());
        assert_eq!(run.code(), 3);
        let mut lines = processes().into_iter().map(command_line);
        assert!(!lines.any(|line| line.starts_with("sleep 4713")));
    }
}

/// Nothing but what was asked for reaches a container, and that under its own number.
#[test]
fn a_passed_descriptor_brings_no_other() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.write("file", "content\n");
    let rless = sandbox.binary().to_path_buf();
    let script = format!(
        "{} run --rm --network none --preserve-fd 5 rootfs:/ sh -c 'cat <&5; readlink /proc/self/fd/* | grep -v /proc' 4</ 5<file 6</etc/passwd 9</",
        rless.display()
    );
    let out = sandbox.sh(&script).cwd(&sandbox.dir).ok();
    assert!(out.starts_with("content\n"), "{out}");
    let open = |path: &str| out.lines().any(|line| line == path);
    assert!(!open("/") && !open("/etc/passwd"), "{out}");
}
