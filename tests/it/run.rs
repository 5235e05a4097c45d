//! `rless run` without a terminal: what goes in comes out.

use crate::harness::{Account, Sandbox, host, skip, world};

#[test]
fn host_root_needs_no_image_or_registry() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let script = "echo from the container; id -u; touch /made && ls /made";
    let out = sandbox
        .rless(["run", "--rm", "rootfs:/", "sh", "-c", script])
        .ok();
    assert_eq!(out, "from the container\n0\n/made\n");
    assert!(
        !std::path::Path::new("/made").exists(),
        "the container wrote to the host's root"
    );
}

#[test]
fn host_root_as_root() {
    let world = world!();
    if !world.root {
        skip!("needs root");
    }
    let sandbox = Sandbox::of(world, &Account::root());
    let out = sandbox
        .rless([
            "run",
            "--rm",
            "rootfs:/",
            "sh",
            "-c",
            "echo hello; cat /proc/self/uid_map",
        ])
        .ok();
    let (first, map) = out.split_once('\n').unwrap();
    assert_eq!(first, "hello");
    for line in map.lines() {
        let fields: Vec<u64> = line
            .split_whitespace()
            .map(|f| f.parse().unwrap())
            .collect();
        assert!(fields[1] > 0, "host id 0 is mapped: {map}");
    }
}

#[test]
fn root_cannot_write_the_hosts_proc_sys() {
    let world = world!();
    if !world.root {
        skip!("needs root");
    }
    let sandbox = Sandbox::of(world, &Account::root());
    let script =
        "for f in /h/kernel/core_pattern /h/vm/swappiness /proc/sys/kernel/core_pattern; do
        cat $f > /tmp/old && cat /tmp/old > $f && echo \"wrote $f\"; done 2>/dev/null; echo done";
    let run = [
        "run",
        "--rm",
        "-v",
        "/proc/sys:/h",
        "--security-opt",
        "unmask=ALL",
        "rootfs:/",
        "sh",
        "-c",
        script,
    ];
    assert_eq!(sandbox.rless(run).ok(), "done\n");
}

#[test]
fn alpine_comes_from_the_unqualified_search_registry() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let out = sandbox
        .rless(["run", "--rm", "alpine", "cat", "/etc/alpine-release"])
        .ok();
    assert!(out.starts_with("3.23"), "{out}");
    let images = sandbox
        .rless(["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .ok();
    assert!(
        images
            .lines()
            .any(|l| l == world.reference("alpine:latest")),
        "{images}"
    );
}

#[test]
fn exit_code_and_streams_are_the_commands_own() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let output = sandbox
        .rless([
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 42",
        ])
        .exits(42);
    assert_eq!(
        (output.out.as_str(), output.err.trim_end().lines().last()),
        ("out\n", Some("err"))
    );
}

#[test]
fn standard_input_reaches_the_command_only_with_i() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let cat = |flags: &[&str]| {
        let run = sandbox
            .rless(["run", "--rm"])
            .args(flags)
            .args(["busybox", "cat"]);
        run.stdin("line\nrest").ok()
    };
    assert_eq!(cat(&["-i"]), "line\nrest");
    assert_eq!(cat(&[]), "");
}

#[test]
fn a_megabyte_passes_both_ways_unchanged() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let bytes: Vec<u8> = (0..1_048_577_u32)
        .map(|i| b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)
        .collect();
    let out = sandbox
        .rless(["run", "--rm", "-i", "busybox", "cat"])
        .stdin(&bytes)
        .ok();
    assert!(
        out.as_bytes() == bytes.as_slice(),
        "{} bytes came back",
        out.len()
    );
}

#[test]
fn environment_is_the_images_and_the_flags_and_nothing_of_the_hosts() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let file = sandbox.write("env", "# comment\nFROM_FILE=two words\nPASSED\n");
    let run = [
        "run",
        "--rm",
        "-e",
        "A=1",
        "-e",
        "PASSED",
        "--env-file",
        file.to_str().unwrap(),
        "busybox",
        "env",
    ];
    let out = sandbox
        .rless(run)
        .env("PASSED", "yes")
        .env("SECRET_OF_HOST", "no")
        .ok();
    for line in ["A=1", "PASSED=yes", "FROM_FILE=two words", "HOME=/root"] {
        assert!(out.lines().any(|l| l == line), "no {line} in {out}");
    }
    assert!(out.lines().any(|l| l.starts_with("HOSTNAME=")), "{out}");
    assert!(
        !out.contains("SECRET_OF_HOST") && !out.contains("RLESS_TEST"),
        "{out}"
    );
}

#[test]
fn working_directory_user_and_entrypoint() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let run = [
        "run",
        "--rm",
        "-w",
        "/made/here",
        "-u",
        "1000:2000",
        "--entrypoint",
        "/bin/sh",
    ];
    let out = sandbox
        .rless(run)
        .args(["busybox", "-c", "pwd; id -u; id -g; id -G"])
        .ok();
    assert_eq!(out, "/made/here\n1000\n2000\n2000\n");
}

#[test]
fn bind_mounts_are_the_callers_files() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let dir = sandbox.dir.join("home/shared");
    sandbox.make_dir(&dir);
    sandbox.write("home/shared/in", "from the host\n");
    let volume = format!("{}:/mnt", dir.display());
    let script = "cat /mnt/in; stat -c %u:%g /mnt/in; echo back > /mnt/out";
    let out = sandbox
        .rless(["run", "--rm", "-v", &volume, "busybox", "sh", "-c", script])
        .ok();
    assert_eq!(out, "from the host\n0:0\n");
    let stat = std::fs::metadata(dir.join("out")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&stat),
        sandbox.account.uid
    );

    let read_only = format!("{volume}:ro");
    let out = sandbox
        .rless([
            "run",
            "--rm",
            "-v",
            &read_only,
            "busybox",
            "sh",
            "-c",
            "echo x > /mnt/in",
        ])
        .exits(1);
    out.says(&["Read-only file system"]);
}

#[test]
fn mounts_tmpfs_and_read_only_root() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let bind = format!(
        "type=bind,source={},target=/mnt,readonly",
        sandbox.dir.join("home").display()
    );
    let run = [
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m",
        "--mount",
        &bind,
        "--shm-size",
        "8m",
    ];
    let script = "touch /x 2>/dev/null && echo bad; touch /mnt/x 2>/dev/null && echo bad; touch /scratch/x && echo ok;
        dd if=/dev/zero of=/scratch/big bs=1M count=2 2>/dev/null && echo bad;
        df -k /dev/shm | awk 'NR==2 { print $2 }'";
    assert_eq!(
        sandbox
            .rless(run)
            .args(["busybox", "sh", "-c", script])
            .ok(),
        "ok\n8192\n"
    );
}

#[test]
fn named_volume_outlives_its_container() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox
        .rless([
            "run",
            "--rm",
            "-v",
            "data:/data",
            "busybox",
            "sh",
            "-c",
            "echo kept > /data/f",
        ])
        .ok();
    assert_eq!(
        sandbox
            .rless([
                "run",
                "--rm",
                "-v",
                "data:/data",
                "busybox",
                "cat",
                "/data/f"
            ])
            .ok(),
        "kept\n"
    );
}

#[test]
fn host_name_hosts_and_resolver_files() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let run = [
        "run",
        "--rm",
        "--hostname",
        "box",
        "--add-host",
        "there:192.0.2.77",
        "--dns",
        "192.0.2.53",
    ];
    let out = sandbox
        .rless(run)
        .args([
            "busybox",
            "sh",
            "-c",
            "hostname; cat /etc/hosts /etc/resolv.conf /etc/hostname",
        ])
        .ok();
    assert!(out.starts_with("box\n") && out.ends_with("box\n"), "{out}");
    let has = |ip: &str, name: &str| {
        out.lines()
            .any(|l| l.starts_with(ip) && l.split_whitespace().any(|w| w == name))
    };
    assert!(
        has("192.0.2.77", "there") && has("127.0.0.1", "localhost"),
        "{out}"
    );
    assert!(out.contains("nameserver 192.0.2.53"), "{out}");
}

#[test]
fn limits_of_processes_sysctls_and_groups() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let run = [
        "run",
        "--rm",
        "--ulimit",
        "nofile=100:200",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--group-add",
        "4242",
    ];
    let script = "ulimit -Sn; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward; id -G; umask;
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let out = sandbox
        .rless(run)
        .args(["busybox", "sh", "-c", script])
        .ok();
    assert_eq!(out, "100\n200\n1\n0 4242\n0022\n0\n");
}

#[test]
fn capabilities_are_the_listed_ones_and_the_flags() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let caps = |flags: &[&str]| {
        let run = sandbox.rless(["run", "--rm"]).args(flags);
        let out = run
            .args([
                "busybox",
                "grep",
                "-E",
                "^(Cap|NoNewPrivs|Seccomp:)",
                "/proc/self/status",
            ])
            .ok();
        out.lines()
            .map(|l| l.split_once(":\t").unwrap().1.trim().to_owned())
            .collect::<Vec<_>>()
    };
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
    let default = "00000000800405fb";
    let none = "0000000000000000";
    assert_eq!(caps(&[]), [none, default, default, default, none, "0", "2"]);
    assert_eq!(
        caps(&["-u", "1000"]),
        [none, none, none, default, none, "0", "2"]
    );
    let chosen = caps(&[
        "--cap-drop",
        "ALL",
        "--cap-add",
        "NET_RAW",
        "--security-opt",
        "no-new-privileges",
    ]);
    assert_eq!(
        chosen,
        [
            none,
            "0000000000002000",
            "0000000000002000",
            "0000000000002000",
            none,
            "1",
            "2"
        ]
    );
    assert_eq!(caps(&["--security-opt", "seccomp=unconfined"])[6], "0");
}

#[test]
fn init_reaps_and_forwards() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let out = sandbox
        .rless([
            "run",
            "--rm",
            "--init",
            "busybox",
            "sh",
            "-c",
            "echo $$; (sleep 0.1 &); sleep 0.5; ps -o stat",
        ])
        .ok();
    assert!(
        !out.starts_with("1\n"),
        "the command is pid 1 in spite of --init: {out}"
    );
    assert!(!out.contains('Z'), "a zombie was left: {out}");
}

#[test]
fn signals_are_forwarded_and_reported() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    // One with a name, and a real-time signal: systemd's SIGRTMIN+3.
    for signal in ["15", "37"] {
        let script = format!(
            "trap 'echo got {signal}; exit 9' {signal}; echo ready; while :; do sleep 0.1; done"
        );
        let mut child = sandbox
            .rless(["run", "--rm", "busybox", "sh", "-c", &script])
            .spawn();
        let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
        assert_eq!(line, "ready\n");
        host(&format!("kill -{signal} {}", child.id()));
        let told = crate::harness::rest(Some(reader));
        assert_eq!(told, format!("got {signal}\n"));
        assert_eq!(child.wait().unwrap().code(), Some(9));
    }
}

#[test]
fn killed_command_is_128_and_its_signal() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let run = |script: &str| {
        sandbox
            .rless(["run", "--rm", "--init", "busybox", "sh", "-c", script])
            .run()
            .code()
    };
    assert_eq!(run("kill -9 $$"), 137);
    assert_eq!(run("kill -TERM $$"), 143);
}

#[test]
fn container_stays_listed_until_removed() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let cid = sandbox.dir.join("home/cid");
    let run = [
        "run",
        "--name",
        "kept",
        "--cidfile",
        cid.to_str().unwrap(),
        "busybox",
        "sh",
        "-c",
        "exit 3",
    ];
    sandbox.rless(run).exits(3);
    let id = std::fs::read_to_string(&cid).unwrap();
    assert_eq!(id.trim().len(), 64, "{id}");
    let listed = sandbox
        .rless(["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Status}}"])
        .ok();
    assert!(
        listed.starts_with("kept ") && listed.contains("Exited (3)"),
        "{listed}"
    );
    assert_eq!(sandbox.rless(["ps", "-q"]).ok(), "");
    let in_use = sandbox
        .rless(["run", "--name", "kept", "busybox", "true"])
        .exits(125);
    in_use.says(&["kept"]);
    sandbox.rless(["rm", "kept"]).ok();
    assert_eq!(sandbox.rless(["ps", "-a", "-q"]).ok(), "");
    sandbox.rless(["rm", "kept"]).exits(1).says(&["kept"]);
}

#[test]
fn images_are_pulled_listed_and_removed() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let id = sandbox.rless(["pull", "-q", "busybox"]).ok();
    assert_eq!(id.trim().len(), 64, "{id}");
    assert_eq!(
        sandbox
            .rless(["images", "-q", "--no-trunc"])
            .ok()
            .trim()
            .trim_start_matches("sha256:"),
        id.trim()
    );
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.rless(["images", "--format", "json"]).ok()).unwrap();
    assert_eq!(json.as_array().map(Vec::len), Some(1), "{json}");
    sandbox.rless(["rmi", "busybox"]).ok();
    assert_eq!(sandbox.rless(["images", "-q"]).ok(), "");
    sandbox
        .rless(["rmi", "busybox"])
        .exits(1)
        .says(&["busybox"]);
    // Nothing of the image is left on disk.
    let left = sandbox
        .sh("find \"$XDG_DATA_HOME/rless/packs\" \"$XDG_DATA_HOME/rless/blobs\" -type f")
        .run()
        .out;
    assert_eq!(left, "");
}

#[test]
fn other_sources_run_without_a_registry() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let layout = world.images.join("busybox.oci");
    let home = sandbox.dir.join("home");
    crate::harness::host(&format!(
        "cp -r {0} {1}/layout && chmod -R a+rX {1}/layout && tar -C {0} -cf {1}/oci.tar . &&
         skopeo copy -q oci:{0}:latest docker-archive:{1}/docker.tar:busy:1 && chmod a+r {1}/*.tar && chmod a+x {1}",
        layout.display(),
        home.display()
    ));
    for source in [
        "oci:layout",
        "oci-archive:oci.tar",
        "docker-archive:docker.tar",
    ] {
        let (kind, file) = source.split_once(':').unwrap();
        let reference = format!("{kind}:{}", home.join(file).display());
        assert_eq!(
            sandbox
                .rless(["run", "--rm", &reference, "echo", kind])
                .ok(),
            format!("{kind}\n")
        );
    }
}

#[test]
fn version_and_info_answer_templates_and_json() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let version = sandbox
        .rless(["version", "--format", "{{.Client.Version}}"])
        .ok();
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
    let json: serde_json::Value =
        serde_json::from_str(&sandbox.rless(["info", "--format", "json"]).ok()).unwrap();
    assert!(json.is_object());
}

#[test]
fn a_command_begins_with_every_signal_at_its_default() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let rless = sandbox.binary().display().to_string();
    for init in ["", "--init"] {
        let status = sandbox.sh(&format!(
            "trap '' HUP INT USR1 TERM; exec {rless} run --rm {init} --network none rootfs:/ cat /proc/self/status"
        ));
        let status = status.ok();
        for set in ["SigBlk", "SigIgn", "SigCgt"] {
            let line = status.lines().find_map(|l| l.strip_prefix(set)).unwrap();
            assert_eq!(line, ":\t0000000000000000", "{set} {init}");
        }
    }
}
