//! Exit codes and what the error says: the act, its object, the cause, the remedy.

use std::time::{Duration, Instant};

use crate::harness::{Sandbox, skip, world};

/// One row: arguments, exit code, words of the error text.
type Row<'a> = (&'a [&'a str], i32, &'a [&'a str]);

#[test]
fn table_of_exit_codes_and_messages() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let gone = world.reference("no-such-image");
    let rows: &[Row<'_>] = &[
        (
            &["run", "--rm", "busybox", "no-such-command"],
            127,
            &["no-such-command", "not found"],
        ),
        (&["run", "--rm", "busybox", "/no/such"], 127, &["/no/such"]),
        (&["run", "--rm", "busybox", "/etc"], 126, &["/etc"]),
        (
            &["run", "--rm", "busybox", "/etc/passwd"],
            126,
            &["/etc/passwd", "ermission denied"],
        ),
        (
            &["run", "--rm", "busybox", "sh", "-c", "exit 125"],
            125,
            &[],
        ),
        (
            &["run", "--rm", "busybox", "sh", "-c", "nope"],
            127,
            &["nope"],
        ),
        (&["run", "--rm", &gone, "true"], 125, &["no-such-image"]),
        (
            &["run", "--rm", "127.0.0.1:1/nothing", "true"],
            125,
            &["127.0.0.1:1", "refused"],
        ),
        (&["run", "--rm", "some/UPPER", "true"], 125, &["some/UPPER"]),
        (
            &["run", "--rm", "busybox:bad tag", "true"],
            125,
            &["bad tag"],
        ),
        (
            &["run", "--rm", "busybox@sha256:../../x", "true"],
            125,
            &["sha256:../../x"],
        ),
        (
            &["run", "--rm", "--replace", "busybox", "true"],
            125,
            &["cannot replace container without --name being set"],
        ),
        (
            &["run", "--rm", "--pull", "never", "never-pulled", "true"],
            125,
            &["never-pulled"],
        ),
        (
            &["run", "--rm", "--pull", "sometimes", "busybox", "true"],
            125,
            &["sometimes"],
        ),
        (
            &["run", "--rm", "-m", "lots", "busybox", "true"],
            125,
            &["lots"],
        ),
        (
            &["run", "--rm", "--cpus", "-1", "busybox", "true"],
            125,
            &["-1"],
        ),
        (
            &["run", "--rm", "--pids-limit", "many", "busybox", "true"],
            125,
            &["many"],
        ),
        (
            &["run", "--rm", "-p", "99999:80", "busybox", "true"],
            125,
            &["99999"],
        ),
        (
            &["run", "--rm", "-v", "/no/such/dir:/x", "busybox", "true"],
            125,
            &["/no/such/dir"],
        ),
        (
            &[
                "run",
                "--rm",
                "-v",
                "relative:also:wrong:x",
                "busybox",
                "true",
            ],
            125,
            &["relative:also:wrong:x"],
        ),
        (
            &[
                "run",
                "--rm",
                "--mount",
                "type=odd,target=/x",
                "busybox",
                "true",
            ],
            125,
            &["odd"],
        ),
        (
            &["run", "--rm", "--network", "moon", "busybox", "true"],
            125,
            &["moon"],
        ),
        (
            &["run", "--rm", "--cap-add", "FLY", "busybox", "true"],
            125,
            &["FLY"],
        ),
        (
            &["run", "--rm", "--ulimit", "nofile", "busybox", "true"],
            125,
            &["nofile"],
        ),
        (
            &["run", "--rm", "--ulimit", "nosuch=1", "busybox", "true"],
            125,
            &["nosuch"],
        ),
        (
            &[
                "run",
                "--rm",
                "--sysctl",
                "kernel.nosuch=1",
                "busybox",
                "true",
            ],
            125,
            &["kernel.nosuch"],
        ),
        (
            &[
                "run",
                "--rm",
                "--security-opt",
                "seccomp=/no/such",
                "busybox",
                "true",
            ],
            125,
            &["/no/such"],
        ),
        (
            &["run", "--rm", "--env-file", "/no/such", "busybox", "true"],
            125,
            &["/no/such"],
        ),
        (
            &["run", "--rm", "--userns", "weird", "busybox", "true"],
            125,
            &["weird"],
        ),
        (
            &["run", "--rm", "-u", "nosuchuser", "busybox", "true"],
            126,
            &["nosuchuser"],
        ),
        (
            &["run", "--rm", "--name", "no/slash", "busybox", "true"],
            125,
            &["no/slash"],
        ),
        (
            &[
                "run",
                "--rm",
                "--platform",
                "plan9/mips/a/b/c",
                "--pull",
                "always",
                "busybox",
                "true",
            ],
            125,
            &["plan9/mips/a/b/c"],
        ),
        (
            &["run", "--rm", "--shm-size", "x", "busybox", "true"],
            125,
            &["x"],
        ),
        (
            &["run", "--rm", "--stop-signal", "SIGNOPE", "busybox", "true"],
            125,
            &["SIGNOPE"],
        ),
        (
            &["run", "--rm", "--add-host", "name-only", "busybox", "true"],
            125,
            &["name-only"],
        ),
        (
            &["run", "--rm", "--dns", "not-an-ip", "busybox", "true"],
            125,
            &["not-an-ip"],
        ),
        (
            &["run", "--rm", "rootfs:/no/such", "true"],
            125,
            &["/no/such"],
        ),
        (&["run", "--rm", "oci:/no/such", "true"], 125, &["/no/such"]),
        (
            &["run", "--no-such-flag", "busybox"],
            125,
            &["--no-such-flag"],
        ),
        (&["run"], 125, &["IMAGE"]),
        (&["no-such-subcommand"], 125, &["no-such-subcommand"]),
        (&["pull", &gone], 125, &["no-such-image"]),
        (&["rm", "no-such-container"], 1, &["no-such-container"]),
        (&["rmi", "no-such-image"], 1, &["no-such-image"]),
        (&["ps", "--format", "{{.Nope"], 125, &["{{.Nope"]),
    ];
    let mut wrong = Vec::new();
    for (args, code, words) in rows {
        let output = sandbox.rless(*args).run();
        let missing: Vec<_> = words.iter().filter(|w| !output.err.contains(**w)).collect();
        let trace = output.err.contains("panicked") || output.err.contains("RUST_BACKTRACE");
        if output.code() != *code || !missing.is_empty() || trace {
            wrong.push(format!(
                "wanted {code} and {words:?}, missing {missing:?}: {output}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    // Nothing of any of them stays.
    assert_eq!(
        sandbox
            .rless(["ps", "-a", "--filter", "status=created", "-q"])
            .ok(),
        ""
    );
}

#[test]
fn without_fuse_the_error_names_the_device() {
    let world = world!();
    if !world.root {
        skip!("needs root to hide /dev/fuse");
    }
    let sandbox = Sandbox::shared(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    // A /dev with everything but fuse.
    let hide = "mkdir -p \"$0\" && mount -t tmpfs none \"$0\" && mkdir \"$0\"/net \"$0\"/pts \"$0\"/shm &&
        for d in null zero full random urandom tty net/tun; do touch \"$0\"/$d && mount --bind /dev/$d \"$0\"/$d; done &&
        mount --rbind /dev/pts \"$0\"/pts && ln -s pts/ptmx \"$0\"/ptmx && mount --rbind \"$0\" /dev && exec \"$@\"";
    let place = sandbox.dir.join("dev");
    let wrapper = ["unshare", "-m", "sh", "-c", hide, place.to_str().unwrap()];
    let output = sandbox
        .rless(["run", "--rm", "busybox", "true"])
        .wrapped(wrapper)
        .exits(125);
    output.says(&["/dev/fuse"]);
}

#[test]
fn without_pasta_the_error_names_the_package() {
    let world = world!();
    if !world.root {
        skip!("needs root to hide pasta");
    }
    let sandbox = Sandbox::shared(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    let hide = "mkdir -p \"$0\" && for f in /usr/bin/pasta* /usr/bin/passt*; do
        mount --bind \"$0\" $f 2>/dev/null || { touch \"$0\"/f; mount --bind \"$0\"/f $f; }; done; exec \"$@\"";
    let place = sandbox.dir.join("empty");
    let wrapper = ["unshare", "-m", "sh", "-c", hide, place.to_str().unwrap()];
    let output = sandbox
        .rless(["run", "--rm", "busybox", "true"])
        .wrapped(wrapper)
        .exits(125);
    output.says(&["pasta", "passt"]);
    // Other networks do not need it.
    let run = sandbox.rless([
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "echo",
        "fine",
    ]);
    assert_eq!(run.wrapped(wrapper).ok(), "fine\n");
}

#[test]
fn unwritable_store_is_named() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let data = sandbox.get("XDG_DATA_HOME");
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
    let output = sandbox.rless(["run", "--rm", "busybox", "true"]).exits(125);
    output.says(&[data.to_str().unwrap(), "ermission denied"]);
}

#[test]
fn full_disk_is_named_and_rolled_back() {
    let world = world!();
    if !world.root {
        skip!("needs root to mount a small file system");
    }
    let sandbox = Sandbox::new(world);
    let data = sandbox.get("XDG_DATA_HOME");
    let (uid, gid) = (sandbox.account.uid, sandbox.account.gid);
    crate::harness::host(&format!(
        "mount -t tmpfs -o size=8m,mode=700,uid={uid},gid={gid} none {}",
        data.display()
    ));
    let pull = sandbox.rless(["pull", "debian"]).run();
    let images = sandbox.rless(["images", "-q"]).run();
    let used = sandbox.sh("du -sk \"$XDG_DATA_HOME\" | cut -f1").run();
    let small = sandbox
        .rless([
            "run",
            "--rm",
            "--network",
            "none",
            "busybox",
            "echo",
            "fits",
        ])
        .run();
    let filled = sandbox
        .rless([
            "run",
            "--rm",
            "busybox",
            "dd",
            "if=/dev/zero",
            "of=/big",
            "bs=1M",
            "count=20",
        ])
        .run();
    let listed = sandbox.rless(["ps", "-a", "-q"]).run();
    let removed = sandbox.rless(["rmi", "busybox"]).run();
    crate::harness::host(&format!("umount {}", data.display()));
    assert_eq!(pull.code(), 125, "{pull}");
    pull.says(&["o space left"]);
    assert_eq!((images.code(), images.out.as_str()), (0, ""), "{images}");
    assert!(
        used.out.trim().parse::<u64>().unwrap() < 2048,
        "rolled back: {used}"
    );
    assert_eq!(small.out, "fits\n", "{small}");
    assert!(
        filled.code() == 1 && filled.err.contains("No space left"),
        "{filled}"
    );
    assert_eq!((listed.code(), listed.out.as_str()), (0, ""), "{listed}");
    assert_eq!(removed.code(), 0, "{removed}");
}

#[test]
fn limits_without_a_session_are_an_error_with_the_fix() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    if std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok() {
        skip!("cgroup v2 is mounted here: the virtual machine tests this");
    }
    for flag in [["-m", "64m"], ["--cpus", "0.5"], ["--pids-limit", "20"]] {
        let output = sandbox
            .rless(["run", "--rm"])
            .args(flag)
            .args(["busybox", "true"])
            .exits(125);
        output.says(&[flag[0].trim_start_matches('-'), "hint"]);
    }
}

#[test]
fn stopped_container_init_is_continued_or_killed() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let mut child = sandbox
        .rless([
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "echo up; kill -STOP 1; sleep 1000",
        ])
        .spawn();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "up\n");
    // Init of the container, stopped from outside, ends on a signal that the front end passes on.
    let init = crate::faults::init_of(&sandbox).expect("the container runs");
    let stop = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), signal);
    stop(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    drop(
        sandbox
            .rless(["rm", "-f"])
            .arg(
                sandbox
                    .rless(["ps", "-q"])
                    .ok()
                    .lines()
                    .next()
                    .unwrap_or_default(),
            )
            .ok(),
    );
    assert!(began.elapsed() < Duration::from_secs(100));
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn a_damaged_record_is_named_and_removed_by_force() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let run = ["run", "--name", "c", "-v", "v:/v", "busybox", "true"];
    sandbox.rless(run).ok();
    let id = sandbox.rless(["ps", "-a", "-q", "--no-trunc"]).ok();
    let id = id.trim();
    let record = sandbox
        .store()
        .join("containers")
        .join(id)
        .join("record.json");
    std::fs::write(record, "{\"version\":1,").unwrap();
    let remedy = format!("rless rm -f {id}");
    let ps = sandbox.rless(["ps", "-a", "-q"]).exits(0);
    ps.says(&["record.json is damaged", &remedy]);
    assert_eq!(ps.err.matches("hint").count(), 1, "{ps}");
    // It may use anything.
    sandbox
        .rless(["volume", "rm", "v"])
        .exits(2)
        .says(&[&remedy]);
    sandbox.rless(["rmi", "busybox"]).exits(2).says(&[id]);
    sandbox
        .rless(["rm", "c"])
        .exits(125)
        .says(&["is damaged", &remedy]);
    assert_eq!(sandbox.rless(["rm", "-f", "c"]).ok(), "c\n");
    sandbox.rless(["volume", "rm", "v"]).ok();
    assert_eq!(sandbox.rless(["ps", "-a", "-q"]).exits(0).err, "");
    sandbox.rless(run).ok();
}
