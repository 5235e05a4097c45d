//! What others were hit by, as hostile images beside a canary tree: the rows of the project's list
//! of threats that a command line reaches. The rows' ids are in each test's first comment.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::{Output, Sandbox, World, host, skip, world};

/// An image of busybox and one more layer, in an OCI layout of the sandbox.
struct Hostile<'a> {
    world: &'a World,
    sandbox: &'a Sandbox,
    layer: tar::Builder<Vec<u8>>,
    config: Vec<String>,
}

impl<'a> Hostile<'a> {
    fn new(world: &'a World, sandbox: &'a Sandbox) -> Self {
        Hostile {
            world,
            sandbox,
            layer: tar::Builder::new(Vec::new()),
            config: Vec::new(),
        }
    }

    /// An entry with any name, `..` and absolute ones included.
    fn entry(
        mut self,
        name: &str,
        kind: tar::EntryType,
        link: &str,
        mode: u32,
        data: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        let put =
            |field: &mut [u8], text: &str| field[..text.len()].copy_from_slice(text.as_bytes());
        put(&mut header.as_gnu_mut().unwrap().name, name);
        put(&mut header.as_gnu_mut().unwrap().linkname, link);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.layer.append(&header, data).unwrap();
        self
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, tar::EntryType::Symlink, target, 0o777, b"")
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(name, tar::EntryType::Regular, "", 0o644, data)
    }

    fn dir(self, name: &str) -> Self {
        self.entry(name, tar::EntryType::Directory, "", 0o755, b"")
    }

    /// A whiteout of a name of the base layer.
    fn without(self, dir: &str, name: &str) -> Self {
        self.file(&format!("{dir}.wh.{name}"), b"")
    }

    /// `--KEY VALUE` of tests/images/pack.py.
    fn config(mut self, key: &str, value: &str) -> Self {
        self.config.push(format!("--{key}={value}"));
        self
    }

    /// Packs it; the reference to run.
    fn build(self) -> String {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let home = self.sandbox.dir.join("home");
        let (tarball, layout) = (
            home.join(format!("h{number}.tar")),
            home.join(format!("h{number}")),
        );
        std::fs::write(&tarball, self.layer.into_inner().unwrap()).unwrap();
        let pack = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/pack.py");
        let output = std::process::Command::new("python3")
            .arg(pack)
            .arg("--layer")
            .arg(self.world.images.join("busybox.tar"))
            .arg("--layer")
            .arg(&tarball)
            .args(&self.config)
            .arg(&layout)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        host(&format!(
            "chmod -R a+rX {} && chmod a+x {}",
            layout.display(),
            home.display()
        ));
        format!("oci:{}", layout.display())
    }
}

/// A tree of the host that no container has any business with.
struct Canary {
    dir: PathBuf,
    before: String,
}

impl Canary {
    fn new(sandbox: &Sandbox) -> Canary {
        let dir = sandbox.dir.join("canary");
        sandbox.make_dir(&dir);
        sandbox.make_dir(&dir.join("dir"));
        sandbox.write("canary/file", "canary\n");
        sandbox.write("canary/dir/inner", "canary\n");
        // As the container's user could reach it, were there a way.
        host(&format!(
            "chmod 777 {0} {0}/dir && chmod 666 {0}/file {0}/dir/inner && chmod a+x {1}",
            dir.display(),
            sandbox.dir.display()
        ));
        let before = Canary::look(&dir);
        Canary { dir, before }
    }

    /// Hash, mode, owner, times and mounts.
    fn look(dir: &Path) -> String {
        let dir = dir.display();
        host(&format!(
            "cd {dir}; find . -printf '%p %y %m %U %G %T@ %l\\n' | sort; find . -type f | sort | xargs sha256sum; grep {dir} /proc/self/mounts || :"
        ))
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn assert_untouched(&self) {
        assert_eq!(Canary::look(&self.dir), self.before);
    }
}

/// `run --rm --network none FLAGS IMAGE COMMAND`.
fn run(sandbox: &Sandbox, flags: &[&str], image: &str, command: &[&str]) -> Output {
    sandbox
        .rless(["run", "--rm", "--network", "none"])
        .args(flags)
        .arg(image)
        .args(command)
        .run()
}

#[test]
fn proc_self_exe_as_entrypoint_cannot_reach_the_runtime() {
    // runc CVE-2019-5736
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let before = host(&format!("sha256sum {}", sandbox.binary().display()));
    let image = Hostile::new(world, &sandbox)
        .entry(
            "run.sh",
            tar::EntryType::Regular,
            "",
            0o755,
            b"#!/proc/self/exe\n",
        )
        .build();
    for entrypoint in ["/proc/self/exe", "/run.sh"] {
        let output = run(
            &sandbox,
            &["--entrypoint", entrypoint],
            &image,
            &["version"],
        );
        assert!(
            !output.out.contains(env!("CARGO_PKG_VERSION")),
            "the runtime itself ran inside: {output}"
        );
        assert_ne!(output.code(), 0, "{output}");
    }
    let script = "for i in 1 2 3 4 5 6 7 8 9; do for p in /proc/[0-9]*; do (: >>$p/exe); done; done 2>/dev/null; echo done";
    assert_eq!(
        run(&sandbox, &[], &image, &["sh", "-c", script]).out,
        "done\n"
    );
    assert_eq!(
        host(&format!("sha256sum {}", sandbox.binary().display())),
        before
    );
}

#[test]
fn leaked_descriptors_are_no_working_directory() {
    // runc CVE-2024-21626
    let world = world!();
    let sandbox = Sandbox::shared(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    for fd in [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 20, 31, 63] {
        let dir = format!("/proc/self/fd/{fd}");
        let output = run(
            &sandbox,
            &["-w", &dir],
            "busybox",
            &["sh", "-c", "pwd; ls ../../.. 2>&1"],
        );
        assert_eq!(output.code(), 126, "{dir}: {output}");
        assert_eq!(output.out, "", "{dir}");
    }
    let script = format!(
        "exec 9</ 8>/dev/null; exec {} run --rm --network none busybox sh -c 'ls /proc/self/fd | wc -l; readlink /proc/self/fd/*; pwd'",
        sandbox.binary().display()
    );
    let out = sandbox.sh(&script).ok();
    assert!(out.ends_with("\n/\n"), "{out}");
    // 0, 1, 2 and the one that ls itself opens.
    assert!(out.starts_with("4\n"), "{out}");
}

#[test]
fn image_content_at_proc_sys_and_dev_reaches_nothing() {
    // runc CVE-2019-16884, 2019-19921, 2023-27561, 2023-28642, 2026-41579; crun CVE-2026-47766
    let world = world!();
    let sandbox = Sandbox::shared(world);
    for place in ["proc", "sys", "dev"] {
        for target in ["/canary-target", "../../../../../..", "/tmp"] {
            let canary = Canary::new(&sandbox);
            let target = if target == "/canary-target" {
                canary.path("dir")
            } else {
                target.to_owned()
            };
            let image = Hostile::new(world, &sandbox)
                .symlink(place, &target)
                .build();
            let output = run(
                &sandbox,
                &[],
                &image,
                &["sh", "-c", "mount | grep -c ' /proc type proc'"],
            );
            // Refused, or mounted at a place inside; never on the target.
            assert!(
                output.code() == 125 || output.out == "1\n",
                "{place} -> {target}: {output}"
            );
            canary.assert_untouched();
        }
        let volume = format!("/{place}");
        let image = Hostile::new(world, &sandbox)
            .config("volume", &volume)
            .build();
        let output = run(
            &sandbox,
            &[],
            &image,
            &["sh", "-c", "grep -c ' /proc proc' /proc/self/mounts"],
        );
        assert!(
            output.code() == 125 || output.out == "1\n",
            "VOLUME {volume}: {output}"
        );
    }
}

#[test]
fn masks_and_devices_are_real_whatever_the_image_has() {
    // runc CVE-2025-31133, 2025-52565
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let image = Hostile::new(world, &sandbox)
        .dir("dev/")
        .symlink("dev/null", "/proc/sys/kernel/core_pattern")
        .symlink("dev/zero", "/proc/sysrq-trigger")
        .symlink("dev/pts", "/proc")
        .symlink("dev/console", "/proc/sys/kernel/core_pattern")
        .symlink("dev/ptmx", "/proc/sysrq-trigger")
        .build();
    let script = "stat -c '%t:%T %F' /dev/null /dev/zero; cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c;
        ls /sys/firmware /proc/acpi 2>/dev/null | wc -l; echo x 2>/dev/null > /proc/sys/kernel/core_pattern || echo refused";
    for flags in [&[][..], &["-t"]] {
        let output = run(&sandbox, flags, &image, &["sh", "-c", script]);
        let out = output.out.replace('\r', "");
        let good = out.starts_with("1:3 character special file\n1:5 character special file\n0\n")
            && out.contains("refused");
        assert!(output.code() == 125 || good, "{output}");
    }
    // And with a decent image it is no question of refusing.
    let output = run(&sandbox, &[], "busybox", &["sh", "-c", script]);
    assert!(
        output
            .out
            .starts_with("1:3 character special file\n1:5 character special file\n0\n"),
        "{output}"
    );
}

#[test]
fn working_directory_through_a_link_stays_inside() {
    // podman CVE-2026-55686
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let canary = Canary::new(&sandbox);
    let image = Hostile::new(world, &sandbox)
        .symlink("link", &canary.path(""))
        .config("workdir", "/link/x/y")
        .build();
    let output = run(&sandbox, &[], &image, &["sh", "-c", "pwd -P; touch here"]);
    assert!(output.code() == 125 || output.code() == 0, "{output}");
    canary.assert_untouched();
}

#[test]
fn volumes_and_binds_through_links_stay_inside() {
    // CVE-2024-1753, 2024-9341, 2022-23648, 2025-9566
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let canary = Canary::new(&sandbox);
    let image = Hostile::new(world, &sandbox)
        .symlink("link", &canary.path(""))
        .symlink("up", "../../../../../../../..")
        .config("volume", "/link/dir")
        .build();
    let tmp = sandbox.dir.join("home/source");
    sandbox.make_dir(&tmp);
    for target in ["/link/dir", "/link/new", "/up/tmp/new", "/link"] {
        let volume = format!("{}:{target}", tmp.display());
        let output = run(&sandbox, &["-v", &volume], &image, &["sh", "-c", "true"]);
        assert!(
            output.code() == 125 || output.code() == 0,
            "{target}: {output}"
        );
        let output = run(
            &sandbox,
            &["--tmpfs", target],
            &image,
            &["sh", "-c", "true"],
        );
        assert!(
            output.code() == 125 || output.code() == 0,
            "{target}: {output}"
        );
        canary.assert_untouched();
    }
}

#[test]
fn user_forms_mean_what_they_say() {
    // crun CVE-2026-30892; containerd CVE-2024-40635, 2026-46680
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/:/bin/sh\n2147483648:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n";
    let group = "root:x:0:\nextra:x:3000:user\nnamed:x:1001:\n";
    let image = Hostile::new(world, &sandbox)
        .file("etc/passwd", passwd.as_bytes())
        .file("etc/group", group.as_bytes())
        .build();
    let ids = |user: &str| {
        run(
            &sandbox,
            &["-u", user],
            &image,
            &["sh", "-c", "echo $(id -u) $(id -g) $(id -G)"],
        )
    };
    for (user, expected) in [
        ("1", "1 0 0"),
        ("user", "1000 1001 1001 3000"),
        ("1000", "1000 1001 1001 3000"),
        ("1000:2000", "1000 2000 2000"),
        ("user:extra", "1000 3000 3000"),
        ("0", "0 0 0"),
        ("77:named", "77 1001 1001"),
    ] {
        let output = ids(user);
        assert_eq!(output.out.trim(), expected, "-u {user}: {output}");
    }
    for user in [
        "2147483648",
        "4294967295",
        "4294967296",
        "100000000000000000000",
        "-1",
        "0:4294967296",
        ":",
    ] {
        let output = ids(user);
        assert_eq!(output.code(), 125, "-u {user}: {output}");
    }
    // As podman: what is looked up and not found.
    for user in ["1:2:3", "nobody-here"] {
        let output = ids(user);
        assert_eq!(output.code(), 126, "-u {user}: {output}");
        assert_eq!(output.out, "", "-u {user}");
    }
}

#[test]
fn account_files_of_odd_kinds_are_bounded_errors() {
    // crun CVE-2025-24965; podman CVE-2024-9676
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let canary = Canary::new(&sandbox);
    let secret = format!("secret:x:4711:4711::{}:/bin/sh\n", "/");
    std::fs::OpenOptions::new()
        .append(true)
        .open(canary.path("file"))
        .unwrap()
        .write_all(secret.as_bytes())
        .unwrap();
    for file in ["passwd", "group"] {
        let path = format!("etc/{file}");
        let odd = [
            Hostile::new(world, &sandbox).symlink(&path, &canary.path("file")),
            Hostile::new(world, &sandbox).symlink(&path, "/dev/zero"),
            Hostile::new(world, &sandbox).symlink(&path, "/proc/kmsg"),
            Hostile::new(world, &sandbox).entry(&path, tar::EntryType::Fifo, "", 0o666, b""),
            Hostile::new(world, &sandbox)
                .without("etc/", file)
                .dir(&format!("etc/{file}")),
            Hostile::new(world, &sandbox).symlink(&path, &format!("/{path}")),
        ];
        for (number, hostile) in odd.into_iter().enumerate() {
            let image = hostile.build();
            sandbox.rless(["pull", "-q", &image]).run();
            let began = Instant::now();
            let output = run(&sandbox, &["-u", "secret:secret"], &image, &["id"]);
            // Read and refused, or not there and so without the user.
            assert!(
                [125, 126].contains(&output.code()) && output.out.is_empty(),
                "{file} {number}: {output}"
            );
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{file} {number} took {:?}",
                began.elapsed()
            );
            // Numbers need no file. (Not id(1): it would read an endless /etc/passwd itself.)
            let uid = "while read -r key real rest; do [ $key != Uid: ] || echo $real; done < /proc/self/status";
            let output = run(&sandbox, &["-u", "5:6"], &image, &["sh", "-c", uid]);
            assert!(
                output.out == "5\n" || output.code() == 125,
                "{file} {number}: {output}"
            );
        }
    }
}

#[test]
fn groups_hold_the_primary_one_and_nothing_of_the_callers() {
    // CVE-2022-2989, 2990, 2995, 36109
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let script = "grep -E '^(Uid|Gid|Groups)' /proc/self/status";
    let output = run(
        &sandbox,
        &["-u", "1000:2000"],
        "busybox",
        &["sh", "-c", script],
    );
    let words: Vec<Vec<&str>> = output
        .out
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(
        words[0],
        ["Uid:", "1000", "1000", "1000", "1000"],
        "{output}"
    );
    assert_eq!(
        words[1],
        ["Gid:", "2000", "2000", "2000", "2000"],
        "{output}"
    );
    assert_eq!(words[2], ["Groups:", "2000"], "{output}");
}

#[test]
fn nested_namespaces_give_no_cgroup_and_no_capability_over_the_host() {
    // runc CVE-2023-25809; kernel CVE-2022-0492
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let script = "mkdir /cg; mount -t cgroup -o memory none /cg 2>&1; mount -t cgroup -o rdma none /cg 2>&1;
        unshare -Ur sh -c 'mount -t cgroup -o memory none /cg' 2>&1; ls /cg | wc -l;
        for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent /sys/fs/cgroup/cgroup.procs; do
            [ -e $f ] && (echo x > $f) 2>/dev/null && echo wrote $f; done; echo end";
    let output = run(&sandbox, &[], "busybox", &["sh", "-c", script]);
    assert!(output.out.ends_with("0\nend\n"), "{output}");
}

#[test]
fn system_calls_are_filtered() {
    // clone3 and unknown calls: ENOSYS; io_uring, AF_ALG, AF_VSOCK, keyrings: refused
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let script = r#"
        sub try { my ($name, @call) = @_; $! = 0; my $r = syscall($call[0], @call[1..$#call]); printf "%s %s\n", $name, $r < 0 ? $!+0 : "ok"; }
        my $buf = "\0" x 256;
        try("unknown", 1999); try("io_uring_setup", 425, 8, $buf); try("add_key", 248, "user", "x", "y", 1, -2);
        try("keyctl", 250, 0, -3, 0); try("bpf", 321, 0, $buf, 128); try("perf_event_open", 298, $buf, 0, -1, -1, 0);
        try("socket_alg", 41, 38, 5, 0); try("socket_vsock", 41, 40, 1, 0); try("kexec_load", 246, 0, 0, 0, 0);
        try("init_module", 175, $buf, 0, $buf); try("userfaultfd", 323, 0); try("getpid", 39);
        try("tiocsti", 16, 0, 0x5412, $buf);
    "#;
    let output = run(&sandbox, &[], "debian", &["perl", "-e", script]);
    let result = |name: &str| {
        let line = output
            .out
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap_or_else(|| panic!("{output}"));
        line.trim().to_owned()
    };
    assert_eq!(result("getpid "), "ok", "{output}");
    assert_eq!(result("unknown "), "38", "{output}");
    for name in [
        "io_uring_setup",
        "add_key",
        "keyctl",
        "bpf",
        "perf_event_open",
        "socket_alg",
        "socket_vsock",
        "kexec_load",
        "init_module",
        "userfaultfd",
    ] {
        let errno = result(&format!("{name} "));
        assert!(
            ["1", "38", "97"].contains(&errno.as_str()),
            "{name}: {errno}: {output}"
        );
    }
}

#[test]
fn host_environment_does_not_leak_through_odd_entries() {
    // podman CVE-2026-57231
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let image = Hostile::new(world, &sandbox)
        .config("env", "SECRET_OF_HOST")
        .config("env", "SECRET*")
        .config("env", "*")
        .config("env", "=x")
        .build();
    let command = sandbox.rless(["run", "--rm", "--network", "none", &image, "env"]);
    let output = command.env("SECRET_OF_HOST", "leaked").run();
    assert!(!output.out.contains("leaked"), "{output}");
}

#[test]
fn hostile_archives_touch_nothing_outside() {
    // tar-rs CVE-2018-20990, 2021-38511, 2026-33056; containerd CVE-2021-32760
    let world = world!();
    let sandbox = Sandbox::new(world);
    let canary = Canary::new(&sandbox);
    let inside = canary.path("");
    let up = format!("../../../../../../../../../../..{inside}");
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let layers: Vec<(&str, Hostile<'_>)> = vec![
        (
            "absolute file",
            Hostile::new(world, &sandbox).file(&canary.path("new"), b"x"),
        ),
        (
            "dotdot file",
            Hostile::new(world, &sandbox).file(&format!("{up}new"), b"x"),
        ),
        (
            "through a symlink",
            Hostile::new(world, &sandbox)
                .symlink("l", &inside)
                .file("l/file", b"x"),
        ),
        (
            "mkdir through a symlink",
            Hostile::new(world, &sandbox)
                .symlink("l", &inside)
                .entry("l/newdir", Directory, "", 0o777, b""),
        ),
        (
            "chmod through a symlink",
            Hostile::new(world, &sandbox)
                .symlink("l", &inside)
                .entry("l", Directory, "", 0o700, b""),
        ),
        (
            "hard link outside",
            Hostile::new(world, &sandbox).entry("h", Link, &canary.path("file"), 0o600, b""),
        ),
        (
            "hard link through a symlink",
            Hostile::new(world, &sandbox)
                .symlink("l", &inside)
                .entry("h", Link, "l/file", 0o600, b"")
                .entry("h", Regular, "", 0o600, b"y"),
        ),
        (
            "symlink over a link",
            Hostile::new(world, &sandbox).symlink("l", &inside).entry(
                "l/file",
                Symlink,
                "/etc/passwd",
                0o777,
                b"",
            ),
        ),
        (
            "whiteout through a symlink",
            Hostile::new(world, &sandbox)
                .symlink("l", &inside)
                .file("l/.wh.file", b""),
        ),
        (
            "opaque through a symlink",
            Hostile::new(world, &sandbox)
                .symlink("l", &inside)
                .file("l/.wh..wh..opq", b""),
        ),
        (
            "whiteout of dotdot",
            Hostile::new(world, &sandbox)
                .file("etc/.wh...", b"")
                .file("etc/.wh..", b""),
        ),
        (
            "duplicates",
            Hostile::new(world, &sandbox)
                .file("d", b"1")
                .dir("d")
                .symlink("d", &inside)
                .file("d/file", b"x")
                .file("d", b"2"),
        ),
    ];
    for (name, layer) in layers {
        let image = layer.build();
        let output = run(&sandbox, &[], &image, &["sh", "-c", "echo ran"]);
        assert!(
            output.out == "ran\n" || output.code() == 125,
            "{name}: {output}"
        );
        assert!(!output.err.contains("panicked"), "{name}: {output}");
        canary.assert_untouched();
    }
    let owned = format!(
        "find {} ! -user {}",
        sandbox.store().display(),
        sandbox.account.uid
    );
    assert_eq!(host(&owned), "");
}

#[test]
fn nonsense_digests_are_refused_before_any_file() {
    // containers/image CVE-2024-3727
    let world = world!();
    let sandbox = Sandbox::new(world);
    let layout = sandbox.dir.join("home/layout");
    for digest in [
        "sha256:../../../../etc/passwd",
        "sha256:ABCDEF",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:",
        "sha512:00",
        "../x:00",
    ] {
        sandbox.make_dir(&layout);
        sandbox.make_dir(&layout.join("blobs"));
        sandbox.make_dir(&layout.join("blobs/sha256"));
        sandbox.write(
            "home/layout/oci-layout",
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        );
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 100,
            "annotations": {"org.opencontainers.image.ref.name": "latest"}}]});
        sandbox.write("home/layout/index.json", index.to_string());
        let output = sandbox
            .rless(["pull", &format!("oci:{}", layout.display())])
            .exits(125);
        assert!(!output.err.contains("panicked"), "{output}");
        assert_eq!(sandbox.rless(["images", "-q"]).ok(), "");
    }
}

#[test]
fn a_link_swapped_in_a_shared_volume_is_never_followed_out() {
    // runc CVE-2021-30465, 2024-45310
    let world = world!();
    let sandbox = Sandbox::shared(world);
    if sandbox.rless(["pull", "-q", "busybox"]).run().code() != 0 {
        skip!("busybox cannot be pulled");
    }
    let canary = Canary::new(&sandbox);
    let shared = sandbox.dir.join("home/shared");
    sandbox.make_dir(&shared);
    sandbox.make_dir(&shared.join("a"));
    let swap = format!(
        "import os, ctypes, time
libc = ctypes.CDLL(None)
os.chdir('{}')
os.symlink('{}', 'b')
end = time.time() + 20
while time.time() < end and not os.path.exists('stop'):
    libc.renameat2(-100, b'a', -100, b'b', 2)
",
        shared.display(),
        canary.path("dir"),
    );
    let mut peer = sandbox
        .command("/usr/bin/python3")
        .arg("-c")
        .arg(&swap)
        .spawn();
    let volume = format!("{}:/s", shared.display());
    for _ in 0..25 {
        let output = run(
            &sandbox,
            &[
                "-v",
                &volume,
                "--tmpfs",
                "/s/a/new",
                "-v",
                "/etc/hostname:/s/a/file2",
            ],
            "busybox",
            &["true"],
        );
        assert!(output.code() == 125 || output.code() == 0, "{output}");
    }
    sandbox.write("home/shared/stop", "");
    peer.wait().unwrap();
    canary.assert_untouched();
}
