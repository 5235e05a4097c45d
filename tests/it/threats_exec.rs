//! What others were hit by when a process joins a running container (the rows of the project's list of threats
//! that concern exec).

use std::time::{Duration, Instant};

use crate::exec::Running;
use crate::harness::{Sandbox, host, world};
use crate::pty::Pty;

#[test]
fn a_joining_process_shows_nothing_of_the_host() {
    // runc CVE-2019-5736, 2024-21626: /proc/PID/{exe,cwd,fd,environ,maps} of the process before exec
    let world = world!();
    let mut sandbox = Sandbox::shared(world);
    sandbox.set("SECRET_OF_HOST", "secret-of-host");
    let running = Running::start(&sandbox, "peek", &["--cap-add", "all"]);
    let name = running.name.as_str();
    let before = host(&format!("sha256sum < {}", sandbox.binary().display()));
    // Looks at whatever turns up in /proc, and writes to its binary, until told to stop.
    let look = "me=$$; while [ ! -e /tmp/stop ]; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$me ] && continue; \
        (exec 3>>$p/exe) 2>/dev/null && readlink $p/exe >> /tmp/written; \
        readlink $p/exe $p/cwd $p/root $p/fd/* >> /tmp/links 2>/dev/null; \
        cat $p/environ $p/maps $p/cmdline >> /tmp/texts 2>/dev/null; done; done; echo looked >> /tmp/looked";
    for n in 0..3 {
        let script = format!("echo {n}; {look}");
        sandbox
            .rless(["exec", "-d", name, "sh", "-c", &script])
            .ok();
    }
    for _ in 0..25 {
        for user in ["0", "nobody"] {
            sandbox.rless(["exec", "-u", user, name, "true"]).ok();
        }
        sandbox.rless(["exec", "-t", name, "true"]).ok();
    }
    running.ok(&[], "touch /tmp/stop");
    crate::harness::wait_for("the lookers", Duration::from_secs(20), || {
        running.ok(&[], "grep -c looked /tmp/looked 2>/dev/null || true") == "3\n"
    });
    let seen = running.ok(
        &[],
        "cat /tmp/links /tmp/texts; cat /tmp/written 2>/dev/null || true",
    );
    for word in [
        "rless",
        "secret-of-host",
        sandbox.dir.to_str().unwrap(),
        "XDG_RUNTIME_DIR",
    ] {
        let lines: Vec<&str> = seen.lines().filter(|l| l.contains(word)).collect();
        // The variable `container=rless` and the name `rless-exec` are no secrets.
        let known = |l: &str| l.replace("container=rless", "").replace("rless-exec", "");
        let lines: Vec<&&str> = lines.iter().filter(|l| known(l).contains(word)).collect();
        assert!(lines.is_empty(), "{word}: {lines:?}");
    }
    assert!(seen.contains("/bin/busybox"), "nothing was seen: {seen}");
    let after = host(&format!("sha256sum < {}", sandbox.binary().display()));
    assert_eq!(before, after);
}

#[test]
fn our_binary_is_never_executed_by_exec() {
    // runc CVE-2019-5736
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "own", &[]);
    running.ok(&[], "printf '#!/proc/self/exe\\n' > /bin/again; chmod 755 /bin/again; ln -s /proc/self/exe /bin/leads");
    for command in [
        "/proc/self/exe",
        "/bin/again",
        "/bin/leads",
        "/proc/thread-self/exe",
    ] {
        let output = sandbox.rless(["exec", &running.name, command]).run();
        assert_eq!(output.code(), 126, "{output}");
        output.says(&["refused"]);
    }
}

#[test]
fn no_directory_and_no_descriptor_leads_out() {
    // runc CVE-2024-21626
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "cwd", &[]);
    let rless = sandbox.binary().display();
    let name = &running.name;
    for first in [3, 24, 44] {
        let tries: Vec<String> = (first..first + 20)
            .map(|n| format!("{rless} exec -w /proc/self/fd/{n} {name} sh -c 'echo entered {n}; ls /' 2>&1 9</"))
            .collect();
        let output = sandbox.sh(&tries.join("; ")).run();
        assert!(!output.out.contains("entered"), "{output}");
    }
    running.ok(&[], "ln -s /proc/self/fd/7 /leap; ln -s / /slash");
    let output = running.sh(&["-w", "/leap"], "pwd");
    assert_ne!(output.code(), 0, "{output}");
    assert_eq!(
        running.ok(&["-w", "/slash"], "pwd; ls -d /proc/self/cwd/bin"),
        "/\n/proc/self/cwd/bin\n"
    );
    // Descriptors of the caller stay with the caller.
    let script = format!("exec 7</ 9</; {rless} exec {name} ls /proc/self/fd");
    assert_eq!(sandbox.sh(&script).ok(), "0\n1\n2\n3\n");
}

#[test]
fn account_files_of_any_kind_are_bounded() {
    // crun CVE-2025-24965; podman CVE-2024-9676
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "accounts", &["--tmpfs", "/big"]);
    let kinds = [
        "mkfifo /etc/FILE",
        "ln -s /dev/zero /etc/FILE",
        "ln -s /proc/self/exe /etc/FILE",
        "ln -s /proc/self/fd/0 /etc/FILE",
        "mkdir /etc/FILE",
        "ln -s /etc/FILE /etc/FILE",
        "truncate -s 1G /etc/FILE",
        "truncate -s 1048577 /big/f; ln -s /big/f /etc/FILE",
        "ln -s /dev/tty /etc/FILE",
    ];
    for file in ["passwd", "group"] {
        running.ok(&[], &format!("cp -p /etc/{file} /etc/{file}.was"));
        for kind in kinds {
            let make = kind.replace("FILE", file);
            running.ok(&["-u", "0"], &format!("rm -rf /etc/{file}; {make}"));
            let began = Instant::now();
            let output = running.sh(&["-u", "nobody:audio"], "id");
            assert_eq!(output.code(), 255, "{kind}: {output}");
            output.says(&[&format!("/etc/{file}")]);
            // Numbers need no file, nor does the container's own user.
            assert_eq!(
                running.ok(&["-u", "5:6"], "stat -Lc %u /proc/self"),
                "5\n",
                "{kind}"
            );
            assert_eq!(running.ok(&[], "stat -Lc %u /proc/self"), "0\n", "{kind}");
            assert!(began.elapsed() < Duration::from_secs(60), "{kind}");
        }
        running.ok(
            &[],
            &format!("rm -rf /etc/{file}; mv /etc/{file}.was /etc/{file}"),
        );
    }
    // Ids that would wrap are refused even with an account of that name.
    running.ok(&[], "echo '4294967296:x:0:0::/:/bin/sh' >> /etc/passwd");
    for user in [
        "4294967296",
        "2147483648",
        "4294967295",
        "0:4294967296",
        "-1",
    ] {
        let output = running.sh(&[&format!("--user={user}")], "id");
        assert_eq!(output.code(), 255, "{output}");
    }
}

#[test]
fn a_terminal_comes_from_a_real_devpts_only() {
    // runc CVE-2025-52565
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "ptmx", &["--privileged"]);
    running.ok(&[], "rm /dev/ptmx; ln -s /etc/passwd /dev/ptmx; rm -f /dev/console; ln -s /etc/passwd /dev/console");
    assert!(running.ok(&["-t"], "tty").contains("/dev/pts/"));
    let passwd = running.ok(&[], "sha256sum /etc/passwd; stat -c %u /etc/passwd");
    for spoil in [
        "umount /dev/pts; mkfifo /dev/pts/ptmx",
        "rm /dev/pts/ptmx; ln -s /dev/zero /dev/pts/ptmx",
        "rm /dev/pts/ptmx; mknod /dev/pts/ptmx c 5 2 2>/dev/null || touch /dev/pts/ptmx",
        "rm -r /dev/pts; ln -s /tmp /dev/pts",
        "rm -f /dev/pts",
    ] {
        running.ok(&[], spoil);
        let began = Instant::now();
        let output = running.sh(&["-t"], "echo reached");
        assert_eq!(output.code(), 125, "{spoil}: {output}");
        output.says(&["opening a terminal in the container"]);
        assert!(began.elapsed() < Duration::from_secs(60), "{spoil}");
    }
    assert_eq!(
        passwd,
        running.ok(&[], "sha256sum /etc/passwd; stat -c %u /etc/passwd")
    );
}

#[test]
fn what_is_masked_and_refused_for_the_first_process_is_for_exec() {
    // THREATS section 5, CVE-2017-5226 (TIOCSTI), keyrings, CVE-2022-0492
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::image(&sandbox, "guard", &[], "debian");
    let masks = "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null || echo ro; \
        mount -t tmpfs x /tmp 2>/dev/null || echo nomount; unshare -U true 2>/dev/null || echo nouser; cat /proc/self/sessionid >/dev/null; echo end";
    assert_eq!(running.ok(&[], masks), "0\nro\nnomount\nnouser\nend\n");
    let calls = r#"my $buf = "x" x 64;
        sub try { my ($name, @call) = @_; $! = 0; my $r = syscall($call[0], @call[1..$#call]); print "$name ", ($r < 0 ? "refused" : "ok"), "\n"; }
        try("io_uring_setup", 425, 8, $buf); try("add_key", 248, "user", "x", "y", 1, -2); try("keyctl", 250, 0, -3, 0);
        try("socket_alg", 41, 38, 5, 0); try("tiocsti", 16, 0, 0x5412, $buf); try("tiocsti_high", 16, 0, 0x100005412, $buf); try("getpid", 39);"#;
    let output = sandbox
        .rless(["exec", &running.name, "perl", "-e", calls])
        .run();
    assert_eq!(output.out.matches("refused").count(), 6, "{output}");
    assert!(output.out.contains("getpid ok"), "{output}");
    // What is typed into the container's terminal never reaches the caller's.
    let push = r#"my $x = "x"; ioctl(STDIN, 0x5412, $x) for 1..3; print "pushed\n""#;
    let cmd = sandbox.rless(["exec", "-i", &running.name, "perl", "-e", push]);
    let mut pty = Pty::start(cmd, 24, 80);
    pty.expect("pushed");
    assert_eq!(pty.wait(), 0);
}

#[test]
fn an_exec_into_a_dying_container_says_so_and_leaves_nothing() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "alpine"]).ok();
    for round in 0..4u64 {
        let running = Running::start(&sandbox, &format!("dying{round}"), &["--rm"]);
        let children: Vec<_> = (0..6)
            .map(|_| {
                sandbox
                    .rless(["exec", &running.name, "sleep", "100"])
                    .spawn()
            })
            .collect();
        std::thread::sleep(Duration::from_millis(40 * round));
        sandbox.rless(["rm", "-f", "-t", "0", &running.name]).ok();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let code = output.status.code().unwrap();
            // Before it was reached, while it was entered, or in it.
            assert!([125, 137, 255].contains(&code), "{output:?}");
        }
    }
}
