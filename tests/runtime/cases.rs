//! What a container is like.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Uid, getgid, getuid};
use rless::runtime::{self, idmap};
use rless::sys::process::{Cloned, clone3, exit_now, pidfd_send_signal};
use rless::sys::tty::WindowSize;
use serde_json::{Value, json};

use crate::Case;
use crate::world::{World, config, drive, plan};

pub(crate) const CASES: &[Case] = &[
    ("root_has_the_default_capabilities_and_filter", root),
    ("a_user_has_no_capabilities_and_its_groups", user),
    ("namespaces_are_its_own", namespaces),
    ("devices_and_links_are_there", devices),
    ("kernel_files_are_masked_or_read_only", masks),
    ("binds_are_made_where_they_belong", binds),
    ("bind_errors_name_the_path", bind_errors),
    (
        "bind_sources_are_opened_as_the_caller",
        caller_reads_sources,
    ),
    ("tmpfs_takes_its_options_and_the_images_files", tmpfs),
    ("a_read_only_root_is_read_only", read_only_root),
    ("commands_that_cannot_run_say_why", exec_errors),
    ("limits_are_clamped", rlimits),
    ("sysctls_of_namespaces_are_set", sysctls),
    ("umask_and_working_directory", umask_and_cwd),
    ("a_terminal_is_the_containers_own", terminal),
    ("init_reaps_forwards_and_hides", init),
    ("init_on_a_terminal_gives_it_to_the_command", init_terminal),
    ("release_is_waited_for", release),
    ("a_killed_supervisor_takes_its_container_along", orphan),
    ("extra_descriptors_begin_at_three", listen_fds),
    ("pipes_can_be_opened_again_by_the_user", pipes),
    ("environment_is_what_the_spec_says", environment),
    (
        "the_hosts_network_brings_the_hosts_sysfs_read_only",
        host_network,
    ),
    ("profiles_of_the_user_hold", own_profile),
    ("a_notifying_profile_hands_over_its_listener", notify),
    ("compiled_profiles_are_kept", cache),
    ("mappings_are_what_was_asked_for", mappings),
    ("single_id_runs_and_is_one_id", single_id),
    ("host_process_namespace_gets_the_hosts_proc", host_pid),
];

fn root(world: &World) {
    let ran = world.sh("id; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
    let expected = "uid=0 gid=0 groups=0\nCapInh:\t0000000000000000\nCapPrm:\t00000000800405fb\n\
        CapEff:\t00000000800405fb\nCapBnd:\t00000000800405fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n";
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, expected),
        "{}",
        ran.report
    );
    let ran = world.run(&["grep", "NoNewPrivs", "/proc/self/status"], |c| {
        c["process"]["noNewPrivileges"] = json!(true);
    });
    assert_eq!(ran.out, "NoNewPrivs:\t1\n", "{}", ran.report);
}

fn user(world: &World) {
    let script = "id; grep -E '^(Cap|Groups)' /proc/self/status";
    let ran = world.run(&["sh", "-c", script], |c| {
        c["process"]["user"] = json!({"uid": 1000, "gid": 2000, "additionalGids": [5, 2000, 7]});
    });
    let expected = "uid=1000 gid=2000 groups=5,7,2000\nGroups:\t5 7 2000 \nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000800405fb\nCapAmb:\t0000000000000000\n";
    let sort = |text: &str| text.replace("groups=2000,5,7", "groups=5,7,2000");
    assert_eq!(
        (ran.code, sort(&ran.out).as_str()),
        (0, expected),
        "{}",
        ran.report
    );
    let ran = world.run(&["true"], |c| {
        c["process"]["user"]["uid"] = json!(3_000_000)
    });
    assert!(
        ran.code == 125 && ran.report.contains("uid 3000000 is not mapped"),
        "{ran:?}"
    );
}

fn namespaces(world: &World) {
    let ran = world.sh("echo $$; hostname; ls /sys/class/net; for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[..3], ["1", "box", "lo"], "{ran:?}");
    for (name, line) in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .iter()
        .zip(&lines[3..])
    {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(host.to_str(), Some(*line), "{name}");
    }
}

fn devices(world: &World) {
    let ran = world.sh(
        "echo x >/dev/null && dd if=/dev/zero bs=4 count=1 2>/dev/null | wc -c && dd if=/dev/urandom bs=4 count=1 2>/dev/null | wc -c; \
         echo x 2>/dev/null >/dev/full || echo full; for l in fd stdout ptmx; do readlink /dev/$l; done; stat -c %t:%T /dev/null /dev/tty; \
         ls -d /dev/pts/ptmx /dev/shm /dev/mqueue; ls /dev | wc -w; cat /dev/tty 2>&1 >/dev/null | grep -c 'No such device'",
    );
    let expected = "4\n4\nfull\n/proc/self/fd\n/proc/self/fd/1\npts/ptmx\n1:3\n5:0\n/dev/mqueue\n/dev/pts/ptmx\n/dev/shm\n14\n1\n";
    assert_eq!(ran.out, expected, "{}", ran.report);
}

fn masks(world: &World) {
    let ran = world.sh(
        "cat /proc/interrupts /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
         stat -c %t:%T /proc/keys; touch /sys/firmware/x 2>/dev/null || echo ro; \
         for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/x /proc/fs/x /proc/bus/x /sys/x /sys/fs/cgroup/x; do (echo x >$f) 2>/dev/null && echo wrote $f; done; echo done",
    );
    assert_eq!(ran.out, "0\n0\n1:3\nro\ndone\n", "{}", ran.report);
}

fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn bind(source: &std::path::Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

fn binds(world: &World) {
    let root = world.fresh_root("binds");
    let data = world.dir.path().join("binds-data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("file"), "content\n").unwrap();
    symlink("../run/stub/resolv.conf", root.join("etc/resolv.conf")).unwrap();
    let script = "cat /etc/resolv.conf /a/b/c/file; echo new >/a/b/c/new; (echo x >/ro/x) 2>/dev/null || echo ro; \
        grep -E ' (/a/b/c|/ro) ' /proc/mounts | grep -o 'r[ow],nosuid,nodev' ; cat /run/stub/resolv.conf; ls -ld /a | cut -c1-10";
    let ran = world.run_in(
        &root,
        &["sh", "-c", script],
        |c| {
            add_mount(c, bind(&data.join("file"), "/etc/resolv.conf", &["bind"]));
            add_mount(c, bind(&data, "/a/b/c", &["rbind", "nosuid", "nodev"]));
            add_mount(c, bind(&data, "/ro", &["rbind", "rro", "nosuid", "nodev"]));
        },
        |_| {},
    );
    let expected = "content\ncontent\nro\nrw,nosuid,nodev\nro,nosuid,nodev\ncontent\ndrwxr-xr-x\n";
    assert_eq!(ran.out, expected, "{}", ran.report);
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "new\n");
    assert!(root.join("run/stub/resolv.conf").is_file());
}

fn bind_errors(world: &World) {
    let file = world.dir.path().join("plain");
    fs::write(&file, "").unwrap();
    for (mount, says) in [
        (
            bind("/no/such/thing".as_ref(), "/x", &["bind"]),
            "/no/such/thing",
        ),
        (
            bind(&file, "/etc", &["bind"]),
            "the source is a file, /etc in the container is a directory",
        ),
        (
            bind(world.dir.path(), "/bin/busybox", &["bind"]),
            "/bin/busybox in the container is a file",
        ),
        (
            bind(world.dir.path(), "/", &["bind"]),
            "a mount on / would hide",
        ),
        (
            bind(world.dir.path(), "/x", &["bind", "frob"]),
            "unknown option `frob`",
        ),
        (
            json!({"destination": "/x", "type": "ext4", "source": "/dev/sda"}),
            "`ext4` cannot be mounted",
        ),
    ] {
        let ran = world.run(&["true"], |c| add_mount(c, mount));
        assert!(
            ran.code == 125 && ran.report.contains(says),
            "{says}: {ran:?}"
        );
    }
}

fn caller_reads_sources(world: &World) {
    let private = world.dir.path().join("private");
    fs::create_dir_all(&private).unwrap();
    fs::write(private.join("f"), "mine\n").unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let keep = idmap::Userns::KeepId {
        uid: None,
        gid: None,
    };
    let ran = world.run_in(
        &world.root,
        &["sh", "-c", "id -u; cat /m/f; stat -c %u /m/f"],
        |c| {
            add_mount(c, bind(&private, "/m", &["rbind"]));
            c["process"]["user"] = json!({"uid": getuid().as_raw(), "gid": getgid().as_raw()});
        },
        |p| p.mapping = idmap::plan(&keep, None).unwrap(),
    );
    let uid = getuid();
    assert_eq!(ran.out, format!("{uid}\nmine\n{uid}\n"), "{}", ran.report);
}

fn tmpfs(world: &World) {
    let root = world.fresh_root("tmpfs");
    fs::create_dir_all(root.join("var/lib/x/sub")).unwrap();
    fs::write(root.join("var/lib/x/file"), "image\n").unwrap();
    fs::set_permissions(
        root.join("var/lib/x/file"),
        fs::Permissions::from_mode(0o4711),
    )
    .unwrap();
    symlink("file", root.join("var/lib/x/link")).unwrap();
    let ran = world.run_in(
        &root,
        &["sh", "-c", "stat -c %a /t /var/lib/x/file; df -k /t | grep -c ' 1024 '; cat /var/lib/x/link; echo y >/var/lib/x/file; (echo z >/ro/z) 2>/dev/null || ls /ro"],
        |c| {
            add_mount(c, json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=1770", "nosuid"]}));
            add_mount(c, json!({"destination": "/var/lib/x", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
            add_mount(c, json!({"destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}));
        },
        |_| {},
    );
    assert_eq!(ran.out, "1770\n4711\n1\nimage\n", "{}", ran.report);
    assert_eq!(
        fs::read_to_string(root.join("var/lib/x/file")).unwrap(),
        "image\n"
    );
}

fn read_only_root(world: &World) {
    let root = world.fresh_root("readonly");
    let ran = world.run_in(
        &root,
        &[
            "sh",
            "-c",
            "(echo x >/x) 2>/dev/null && echo wrote; echo y >/tmp/y; cat /tmp/y; pwd",
        ],
        |c| {
            c["root"]["readonly"] = json!(true);
            c["process"]["cwd"] = json!("/made/here");
            add_mount(
                c,
                json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
            );
        },
        |_| {},
    );
    assert_eq!(ran.out, "y\n/made/here\n", "{}", ran.report);
}

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
        ran.code == 125
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

fn sysctls(world: &World) {
    let ran = world.run(
        &["sh", "-c", "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/fs/mqueue/msg_max"],
        |c| {
            c["linux"]["sysctl"] = json!({"net.ipv4.ping_group_range": "0 0", "net/ipv4/ip_unprivileged_port_start": "0", "fs.mqueue.msg_max": "20"});
        },
    );
    assert_eq!(ran.out, "0\t0\n0\n20\n", "{}", ran.report);
    for name in [
        "kernel.panic",
        "vm.swappiness",
        "net.ipv4.no_such",
        "net.../../kernel.panic",
    ] {
        let ran = world.run(&["true"], |c| c["linux"]["sysctl"] = json!({name: "1"}));
        assert!(ran.code == 125 && ran.report.contains(name), "{ran:?}");
    }
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

fn without(config: &mut Value, kind: &str) {
    config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|n| n["type"] != kind);
}

fn host_network(world: &World) {
    let ran = world.run(
        &["sh", "-c", "readlink /proc/self/ns/net; grep -c ' /sys.* sysfs ro,nosuid,nodev,noexec' /proc/mounts; (echo x >/sys/kernel/x) 2>&1 | grep -c Read-only"],
        |c| without(c, "network"),
    );
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(
        ran.out,
        format!("{}\n1\n1\n", host.display()),
        "{}",
        ran.report
    );
    let ran = world.run(&["true"], |c| {
        without(c, "network");
        c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    });
    assert!(
        ran.code == 125 && ran.report.contains("no network namespace of its own"),
        "{ran:?}"
    );
}

fn own_profile(world: &World) {
    let ran = world.run(&["grep", "Seccomp:", "/proc/self/status"], |c| {
        c["linux"]["seccomp"] = Value::Null;
    });
    assert_eq!(ran.out, "Seccomp:\t0\n", "{}", ran.report);
    let caps = runtime::default_capabilities();
    let profile = br#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}"#;
    let profile = runtime::seccomp::parse_profile(profile, &caps).unwrap();
    for nnp in [false, true] {
        let ran = world.run(
            &[
                "sh",
                "-c",
                "mkdir /tmp/m 2>&1; grep Seccomp: /proc/self/status",
            ],
            |c| {
                c["linux"]["seccomp"] = serde_json::to_value(&profile).unwrap();
                c["process"]["noNewPrivileges"] = json!(nnp);
                c["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            },
        );
        assert!(
            ran.out.contains("not supported") && ran.out.ends_with("Seccomp:\t2\n"),
            "{ran:?}"
        );
    }
}

fn notify(world: &World) {
    use rless::sys::seccomp::{Response, receive, respond};
    let caps = runtime::default_capabilities();
    let profile = br#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#;
    let profile = runtime::seccomp::parse_profile(profile, &caps).unwrap();
    let mut config = config(&["mkdir", "/tmp/n"]);
    config["linux"]["seccomp"] = serde_json::to_value(&profile).unwrap();
    let plan = plan(config, &world.root, &tempfile::tempfile().unwrap());
    let mut child = runtime::spawn(&plan).unwrap();
    child.begin().unwrap();
    let listener = child.recv_listener().unwrap();
    child.wait_exec().unwrap();
    let request = receive(&listener).unwrap();
    assert_eq!(i64::from(request.data.nr), libc::SYS_mkdir);
    let answer = Response {
        id: request.id,
        val: 0,
        error: 0,
        flags: 0,
    };
    respond(&listener, answer).unwrap();
    assert_eq!(
        waitpid(child.pid(), None).unwrap(),
        WaitStatus::Exited(child.pid(), 0)
    );
    assert!(!world.root.join("tmp/n").exists());
}

fn cache(world: &World) {
    let dir = world.dir.path().join("seccomp");
    let run = || {
        let change = |p: &mut runtime::Plan| p.seccomp_cache = Some(dir.clone());
        world.run_in(&world.root, &["sh", "-c", "grep Seccomp_filters /proc/self/status; mount -t tmpfs x /tmp 2>&1 | grep -c denied"], |_| {}, change)
    };
    let first = run();
    assert_eq!(first.out, "Seccomp_filters:\t2\n1\n", "{}", first.report);
    let files: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&files[0]).unwrap().mode() & 0o777, 0o600);
    assert_eq!(run().out, first.out);
    // A damaged file is compiled anew.
    let mut bytes = fs::read(&files[0]).unwrap();
    bytes[20] ^= 0xff;
    fs::write(&files[0], &bytes).unwrap();
    assert_eq!(run().out, first.out);
    assert_ne!(fs::read(&files[0]).unwrap(), bytes);
}

fn mappings(world: &World) {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let default = idmap::plan(&idmap::Userns::Default, None).unwrap();
    if default.rung == idmap::Rung::SingleId {
        println!("SKIP runtime::mappings: {}", default.reason);
        return;
    }
    let first = default.uids[1].host;
    let lines = |text: &str| -> Vec<Vec<u32>> {
        text.lines()
            .map(|l| {
                l.split_ascii_whitespace()
                    .map(|n| n.parse().unwrap())
                    .collect()
            })
            .collect()
    };
    let one = |c, h, n| idmap::IdRange {
        container: c,
        host: h,
        count: n,
    };
    let explicit = idmap::Userns::Explicit {
        uids: vec![one(0, 1, 100), one(500, 0, 1)],
        gids: vec![one(0, 1, 100)],
    };
    for (userns, user, expected) in [
        (
            idmap::Userns::Default,
            0,
            vec![vec![0, uid, 1], vec![1, first, default.uids[1].count]],
        ),
        (
            idmap::Userns::KeepId {
                uid: Some(33),
                gid: None,
            },
            33,
            vec![vec![0, first, 33], vec![33, uid, 1]],
        ),
        (
            idmap::Userns::NoMap,
            0,
            vec![vec![0, first, default.uids[1].count]],
        ),
        (explicit, 500, vec![vec![0, first, 100], vec![500, uid, 1]]),
        (
            idmap::Userns::Auto {
                size: 1024,
                avoid: vec![one(0, first, 10)],
            },
            0,
            vec![vec![0, first + 10, 1024]],
        ),
    ] {
        let ran = world.run_in(
            &world.root,
            &["sh", "-c", "cat /proc/self/uid_map; id -u"],
            |c| c["process"]["user"]["uid"] = json!(user),
            |p| p.mapping = idmap::plan(&userns, None).unwrap(),
        );
        let mut got = lines(&ran.out);
        assert_eq!(got.pop(), Some(vec![user]), "{userns:?}: {ran:?}");
        assert_eq!(got[..expected.len()], expected, "{userns:?}");
    }
    // Root of the container is nobody special outside, whatever the mapping; and gid maps follow.
    let ran = world.sh("cat /proc/self/gid_map");
    assert_eq!(lines(&ran.out)[0], [0, gid, 1]);
    assert_ne!(Uid::from_raw(uid), Uid::from_raw(0));
}

fn single_id(world: &World) {
    let single = |userns: idmap::Userns| {
        move |p: &mut runtime::Plan| {
            p.mapping = idmap::plan(&userns, Some(idmap::Rung::SingleId)).unwrap();
        }
    };
    let ran = world.run_in(
        &world.root,
        &["sh", "-c", "id -u; cat /proc/self/setgroups; cat /proc/self/uid_map; touch /tmp/single; stat -c %u:%g /tmp/single; grep -c ' /dev/pts ' /proc/mounts"],
        |_| {},
        single(idmap::Userns::Default),
    );
    let lines: Vec<&str> = ran.out.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["0", "deny"], "{ran:?}");
    assert_eq!(
        lines[2].split_ascii_whitespace().collect::<Vec<_>>(),
        ["0", &getuid().to_string(), "1"]
    );
    assert_eq!(lines[3..], ["0:0", "1"]);
    let uid = getuid().as_raw();
    let ran = world.run_in(
        &world.root,
        &["sh", "-c", "id -u; hostname; grep CapEff /proc/self/status"],
        |c| c["process"]["user"] = json!({"uid": uid, "gid": getgid().as_raw()}),
        single(idmap::Userns::KeepId {
            uid: None,
            gid: None,
        }),
    );
    assert_eq!(
        ran.out,
        format!("{uid}\nbox\nCapEff:\t0000000000000000\n"),
        "{}",
        ran.report
    );
    let ran = world.run_in(
        &world.root,
        &["true"],
        |c| c["process"]["user"]["uid"] = json!(33),
        single(idmap::Userns::Default),
    );
    assert!(
        ran.code == 125 && ran.report.contains("uid 33 is not mapped"),
        "{ran:?}"
    );
}

fn host_pid(world: &World) {
    let ran = world.run(
        &[
            "sh",
            "-c",
            "readlink /proc/self/ns/pid; (echo x >/proc/self/comm) 2>&1 | grep -c Read-only",
        ],
        |c| without(c, "pid"),
    );
    let host = fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(
        ran.out,
        format!("{}\n1\n", host.display()),
        "{}",
        ran.report
    );
}
