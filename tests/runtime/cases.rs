//! What a container is like.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Uid, getgid, getuid};
use rless::runtime::{self, idmap};
use serde_json::{Value, json};

use crate::Case;
use crate::world::{World, config, plan};

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
    ("sysctls_of_namespaces_are_set", sysctls),
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
    ("unsupported_parts_of_a_spec_are_refused", unsupported),
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

fn unsupported(world: &World) {
    for (name, edit) in [
        (
            "hooks",
            json!({"hooks": {"prestart": [{"path": "/bin/true"}]}}),
        ),
        (
            "linux.personality",
            json!({"linux": {"personality": {"domain": "LINUX32"}}}),
        ),
    ] {
        let ran = world.run(&["true"], |c| {
            for (key, value) in edit.as_object().unwrap() {
                match value.as_object().unwrap().iter().next().unwrap() {
                    (field, value) if key == "linux" => c["linux"][field] = value.clone(),
                    _ => c[key] = value.clone(),
                }
            }
        });
        assert!(
            ran.code == 125 && ran.report.contains(name),
            "{name}: {ran:?}"
        );
    }
    let ran = world.run(&["true"], |c| {
        let list = c["linux"]["namespaces"].as_array_mut().unwrap();
        list.push(json!({"type": "time"}));
    });
    assert!(ran.code == 125 && ran.report.contains("time"), "{ran:?}");
}
