//! `exec`: a further process in a running container. What it may not bring along or be led to is in `threats_exec.rs`.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::harness::{Output, Sandbox, asleep, skip, wait_for, world};
use crate::pty::Pty;

const PROMPT: &str = "/ # ";
const SOON: Duration = Duration::from_secs(20);

/// A running container of a sandbox, removed at the end.
pub(crate) struct Running<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) name: String,
}

impl<'a> Running<'a> {
    pub(crate) fn start(sandbox: &'a Sandbox, name: &str, more: &[&str]) -> Running<'a> {
        Running::image(sandbox, name, more, "alpine")
    }

    pub(crate) fn image(
        sandbox: &'a Sandbox,
        name: &str,
        more: &[&str],
        image: &str,
    ) -> Running<'a> {
        let name = format!("{name}-{}", std::process::id());
        let args = ["run", "-d", "--network", "none", "--name", &name];
        // Given twice, the last counts.
        let cmd = sandbox.rless(args).args(more);
        cmd.args([image, "sleep", "1000"]).ok();
        Running { sandbox, name }
    }

    /// `exec MORE NAME sh -c SCRIPT`.
    pub(crate) fn sh(&self, more: &[&str], script: &str) -> Output {
        let cmd = self.sandbox.rless(["exec"]).args(more);
        cmd.args([&self.name, "sh", "-c", script]).run()
    }

    /// The same, which must succeed: standard output.
    pub(crate) fn ok(&self, more: &[&str], script: &str) -> String {
        let output = self.sh(more, script);
        assert_eq!(output.code(), 0, "{output}");
        output.out
    }

    fn pty(&self, more: &[&str], prompt: &str) -> Pty {
        let cmd = self.sandbox.rless(["exec", "-it"]).args(more);
        let mut pty = Pty::start(cmd.args([self.name.as_str(), "sh"]), 24, 80);
        pty.expect_within(prompt, Duration::from_secs(60));
        pty
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let rm = ["rm", "-f", "-t", "0", &self.name];
        drop(self.sandbox.rless(rm).run());
    }
}

#[test]
fn exec_is_in_the_containers_namespaces_with_its_rights() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    for flags in [&[][..], &["--init"], &["--userns", "keep-id", "-u", "0"]] {
        let running = Running::start(&sandbox, "ns", flags);
        // The first process's, or with --init its child's, since ours is closed to all.
        let first = if flags == ["--init"] { 2 } else { 1 };
        let namespaces = running.ok(
            &[],
            &format!("for n in user mnt pid net ipc uts cgroup; do readlink /proc/{first}/ns/$n; readlink /proc/self/ns/$n; done"),
        );
        let lines: Vec<&str> = namespaces.lines().collect();
        assert_eq!(lines.len(), 14, "{flags:?}: {namespaces}");
        assert!(lines.chunks(2).all(|two| two[0] == two[1]), "{namespaces}");
        let same = |pid: &str| {
            let script = format!(
                "cut -d: -f2- /proc/{pid}/cgroup; grep -E '^(Cap|NoNewPrivs|Seccomp|Groups)' /proc/{pid}/status; grep -v Limit /proc/{pid}/limits; cat /proc/{pid}/oom_score_adj"
            );
            running.ok(&[], &script)
        };
        assert_eq!(same("self"), same(&first.to_string()), "{flags:?}");
        assert_eq!(running.ok(&[], "umask"), "0022\n");
    }
}

#[test]
fn exec_has_the_users_of_the_container_as_it_is_now() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "user", &["-e", "FOO=bar", "-w", "/tmp"]);
    let id = "id -u; id -g; id -G; echo $HOME; pwd; echo $FOO";
    assert!(running.ok(&[], id).starts_with("0\n0\n0 1 2 3 4 6 10"));
    assert!(running.ok(&[], id).ends_with("\n/root\n/tmp\nbar\n"));
    let as_user = |user: &str| running.ok(&["-u", user], id);
    assert_eq!(as_user("nobody"), "65534\n65534\n65534\n/\n/tmp\nbar\n");
    assert_eq!(as_user("nobody:audio"), "65534\n18\n18\n/\n/tmp\nbar\n");
    assert_eq!(as_user("1234:5678"), "1234\n5678\n5678\n/\n/tmp\nbar\n");
    // Made while it runs.
    running.ok(
        &[],
        "echo 'new:x:777:778::/srv:/bin/sh' >> /etc/passwd; echo 'more:x:779:new' >> /etc/group",
    );
    assert_eq!(as_user("new"), "777\n778\n778 779\n/srv\n/tmp\nbar\n");
    for (user, says) in [
        (
            "nosuch",
            "unable to find user nosuch: no matching entries in passwd file",
        ),
        (
            "0:nosuch",
            "unable to find group nosuch: no matching entries in group file",
        ),
        ("99999999999", "outside 0–2147483647"),
    ] {
        let output = running.sh(&["-u", user], "true");
        assert_eq!(output.code(), 255, "{output}");
        output.says(&[says]);
    }
}

#[test]
fn exec_sets_its_environment_directory_and_rights() {
    let world = world!();
    let mut sandbox = Sandbox::shared(world);
    sandbox.set("FROM_HOST", "secret");
    sandbox.set("PASSED", "value");
    let file = sandbox.write("home/env", "A=1\nB=2\nPASSED\n");
    let running = Running::start(&sandbox, "env", &["-e", "A=0"]);
    let out = running.ok(
        &["--env-file", file.to_str().unwrap(), "-e", "B=3", "-e", "C"],
        "env",
    );
    for line in ["A=1", "B=3", "PASSED=value", "HOME=/root"] {
        assert!(out.lines().any(|l| l == line), "no {line} in {out}");
    }
    assert!(!out.contains("secret") && !out.contains("\nC="), "{out}");
    assert!(!out.contains("TERM="), "{out}");
    assert!(running.ok(&["-t"], "env").contains("TERM=xterm"));
    assert!(
        running
            .ok(&["-u", "nobody", "-e", "HOME=/x"], "env")
            .contains("HOME=/x\n")
    );
    assert_eq!(running.ok(&["-w", "/etc"], "pwd"), "/etc\n");
    for dir in ["/nowhere", "relative", "/etc/passwd"] {
        let output = running.sh(&["-w", dir], "true");
        assert_eq!(output.code(), 127, "{output}");
        output.says(&["entering the working directory", dir]);
    }
    let caps = |more: &[&str]| running.ok(more, "grep Cap /proc/self/status");
    let all = "000001ffffffffff";
    assert!(caps(&[]).contains("CapEff:\t00000000800405fb"));
    assert_eq!(caps(&["--privileged"]).matches(all).count(), 3);
    assert_eq!(
        caps(&["--privileged", "-u", "nobody"]).matches(all).count(),
        1
    );
    assert!(caps(&["-u", "nobody"]).contains("CapEff:\t0000000000000000"));
    // HOME that somebody chose stays.
    let chosen = Running::start(&sandbox, "home", &["-e", "HOME=/chosen"]);
    assert_eq!(chosen.ok(&["-u", "nobody"], "echo $HOME"), "/chosen\n");
}

#[test]
fn exec_ends_with_the_code_and_text_of_podman() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "code", &[]);
    assert_eq!(running.sh(&[], "exit 7").code(), 7);
    assert_eq!(running.sh(&[], "kill -9 $$").code(), 137);
    let name = running.name.as_str();
    for (args, code, says) in [
        (
            &[name, "nosuch"][..],
            127,
            "executable file `nosuch` not found in $PATH",
        ),
        (&[name, "/etc/passwd"], 126, "/etc/passwd"),
        (&[name, "/etc"], 126, "/etc"),
        (&["-d", name, "nosuch"], 125, "not found in $PATH"),
        (
            &["no-such-container", "true"],
            125,
            "no container with name or ID \"no-such-container\" found: no such container",
        ),
        (
            &[],
            125,
            "exec requires the name or ID of a container or the --latest flag",
        ),
        (
            &[name],
            125,
            "must provide a non-empty command to start an exec session: invalid argument",
        ),
        (
            &["--preserve-fds=200", name, "true"],
            125,
            "is not available - the preserve-fds option",
        ),
    ] {
        let output = sandbox.rless(["exec"]).args(args).run();
        assert_eq!(output.code(), code, "{output}");
        output.says(&[says]);
    }
    sandbox.rless(["stop", "-t", "0", name]).ok();
    let output = running.sh(&[], "true");
    assert_eq!(output.code(), 255, "{output}");
    output.says(&["can only create exec sessions on running containers: container state improper"]);
}

#[test]
fn exec_carries_streams_whole() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "streams", &[]);
    let name = running.name.as_str();
    let output = running.sh(&[], "echo out; echo err >&2");
    assert_eq!(
        (output.out.as_str(), output.err.as_str()),
        ("out\n", "err\n")
    );
    // Input is there at once, often before the session's supervisor is.
    for _ in 0..20 {
        let output = sandbox
            .rless(["exec", "-i", name, "sh"])
            .stdin("echo a; exit 3\n")
            .run();
        assert_eq!((output.out.as_str(), output.code()), ("a\n", 3), "{output}");
    }
    let large = vec![b'x'; 3_000_000];
    let cat = sandbox
        .rless(["exec", "-i", name, "cat"])
        .stdin(&large)
        .ok();
    assert_eq!(cat.len(), large.len());
    let out = sandbox
        .sh(&format!(
            "{} exec {name} head -c 5000000 /dev/zero | wc -c",
            sandbox.binary().display()
        ))
        .ok();
    assert_eq!(out.trim(), "5000000");
    // Without -i there is no input; a reader that goes is a broken pipe.
    let output = sandbox.rless(["exec", name, "cat"]).stdin("lost").run();
    assert_eq!((output.out.as_str(), output.code()), ("", 0), "{output}");
    let out = sandbox
        .sh(&format!(
            "{} exec {name} yes | head -1",
            sandbox.binary().display()
        ))
        .ok();
    assert_eq!(out, "y\n");
    // What it leaves in the background does not hold the session up.
    let began = Instant::now();
    assert_eq!(running.ok(&[], "sleep 100 & echo bye"), "bye\n");
    assert!(began.elapsed() < SOON * 3);
    // A long command line.
    let long = "x".repeat(100_000);
    assert_eq!(
        running.ok(&["-e", &format!("LONG={long}")], "echo ${#LONG}"),
        "100000\n"
    );
}

#[test]
fn exec_passes_descriptors_that_are_asked_for() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "fds", &[]);
    let file = sandbox.write("home/passed", "of the host\n");
    let script = format!(
        "exec 3<{0} 4<{0} 9</; {1} exec --preserve-fds 2 {2} sh -c 'ls /proc/self/fd; cat <&4'",
        file.display(),
        sandbox.binary().display(),
        running.name
    );
    assert_eq!(sandbox.sh(&script).ok(), "0\n1\n2\n3\n4\n5\nof the host\n");
}

#[test]
fn a_detached_exec_goes_on_and_prints_an_id() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "detached", &[]);
    let id = sandbox
        .rless([
            "exec",
            "-d",
            &running.name,
            "sh",
            "-c",
            "echo there > /tmp/there; exec sleep 999",
        ])
        .ok();
    assert!(
        id.trim().len() == 64 && id.trim().bytes().all(|b| b.is_ascii_hexdigit()),
        "{id}"
    );
    wait_for("its file", SOON, || {
        running.ok(&[], "cat /tmp/there 2>&1").starts_with("there")
    });
    assert!(running.ok(&[], "ps").contains("sleep 999"));
}

/// PIDs of this sandbox's session supervisors.
fn sessions(sandbox: &Sandbox) -> Vec<i32> {
    let own = sandbox.processes();
    own.into_iter()
        .filter(|(_, line)| line.starts_with("rless-exec"))
        .map(|(pid, _)| pid)
        .collect()
}

#[test]
fn a_killed_client_leaves_its_process_and_a_killed_session_does_not() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "alpine"]).ok();
    let running = Running::start(&sandbox, "killed", &[]);
    let runs = |what: &str| running.ok(&[], "ps -o args").contains(what);
    let exec = |n: &str| sandbox.rless(["exec", &running.name, "sleep", n]).spawn();

    let mut client = exec("901");
    wait_for("the process", SOON, || runs("sleep 901"));
    client.kill().unwrap();
    client.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(runs("sleep 901"));

    let before = sessions(&sandbox);
    let mut client = exec("902");
    wait_for("the process", SOON, || runs("sleep 902"));
    let session = sessions(&sandbox);
    let session: Vec<i32> = session
        .into_iter()
        .filter(|p| !before.contains(p))
        .collect();
    assert_eq!(session.len(), 1, "{session:?}");
    let pid = nix::unistd::Pid::from_raw(session[0]);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("its end", SOON, || !runs("sleep 902"));
    assert_eq!(client.wait().unwrap().code(), Some(125));

    // Stopping the container ends the sessions, and none of them is left.
    let mut client = exec("903");
    wait_for("the process", SOON, || runs("sleep 903"));
    sandbox.rless(["stop", "-t", "0", &running.name]).ok();
    assert_eq!(client.wait().unwrap().code(), Some(137));
    wait_for("no session", SOON, || sessions(&sandbox).is_empty());
}

#[test]
fn a_killed_supervisor_takes_sessions_along() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "alpine"]).ok();
    let running = Running::start(&sandbox, "super", &[]);
    let mut client = sandbox
        .rless(["exec", &running.name, "sleep", "904"])
        .spawn();
    wait_for("the session", SOON, || !sessions(&sandbox).is_empty());
    wait_for("the process", SOON, || {
        running.ok(&[], "ps -o args").contains("sleep 904")
    });
    for (pid, line) in sandbox.processes() {
        if line.contains("supervise") {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
    assert_eq!(client.wait().unwrap().code(), Some(137));
    wait_for("no session", SOON, || sessions(&sandbox).is_empty());
    let output = running.sh(&[], "true");
    assert_eq!(output.code(), 255, "{output}");
}

#[test]
fn a_terminal_of_exec_is_its_own() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "tty", &[]);
    let mut pty = running.pty(&[], PROMPT);
    assert!(pty.shell("tty", PROMPT).contains("/dev/pts/"));
    assert!(pty.shell("stty size", PROMPT).contains("24 80"));
    pty.resize(41, 133);
    wait_for("the size", SOON, || {
        pty.shell("stty size", PROMPT).contains("41 133")
    });
    pty.line("echo start''ed; sleep 7101");
    pty.expect("started");
    wait_for("the process", SOON, || asleep("sleep 7101"));
    pty.send("\x03");
    pty.expect(PROMPT);
    assert!(pty.shell("echo code $?", PROMPT).contains("code 130"));
    pty.line("echo again''; sleep 7102");
    pty.expect("again\r\n");
    wait_for("the process", SOON, || asleep("sleep 7102"));
    pty.send("\x1a");
    pty.expect("Stopped");
    pty.expect(PROMPT);
    assert!(pty.shell("jobs", PROMPT).contains("sleep 7102"));
    // A second one beside it.
    let mut other = running.pty(&["-u", "nobody"], "~ $ ");
    let own = other.shell("tty; stat -c %U $(tty)", "~ $ ");
    assert!(own.contains("/dev/pts/") && own.contains("nobody"), "{own}");
    other.line("exit 4");
    assert_eq!(other.wait(), 4);
    // Left by the keys: the shell stays.
    pty.send("\x10\x11");
    assert_eq!(pty.wait(), 0);
    assert!(running.ok(&[], "ps -o args").contains("sleep 7102"));
}

#[test]
fn without_a_terminal_exec_has_no_controlling_one() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "notty", &[]);
    let script = "tty; (: < /dev/tty) 2>&1; echo end''ed";
    let cmd = sandbox.rless(["exec", "-i", &running.name, "sh", "-c", script]);
    let mut pty = Pty::start(cmd, 24, 80);
    let seen = pty.expect("ended");
    assert!(
        seen.contains("not a tty") && seen.contains("No such device"),
        "{seen}"
    );
    assert_eq!(pty.wait(), 0);
}

#[test]
fn exec_works_on_every_rung() {
    let world = world!();
    let Some(loner) = world.loner.as_ref() else {
        skip!("needs a user without subordinate ids");
    };
    let mut newuidmap = Sandbox::shared(world);
    newuidmap.without_helper(world);
    let running = Running::start(&newuidmap, "rung", &[]);
    assert_eq!(running.ok(&["-u", "nobody"], "id -u"), "65534\n");

    let mut single = Sandbox::shared_of(world, loner, "store");
    single.without_helper(world);
    let running = Running::start(&single, "single", &[]);
    assert_eq!(running.ok(&[], "id -u; id -g"), "0\n0\n");
    for _ in 0..5 {
        assert_eq!(
            running.ok(&["-u", "nobody"], "id -u; sh -c 'id -g'"),
            "65534\n65534\n"
        );
    }
    // The emulation keeps sessions and the first process apart, and true owners.
    let script = "chown nobody /tmp/f 2>&1 || touch /tmp/f && chown nobody /tmp/f; su nobody -s /bin/sh -c 'id -u'; id -u";
    assert!(running.ok(&[], script).ends_with("65534\n0\n"));
    let output = running.sh(&["-u", "nobody"], "chown 5 /etc/passwd");
    assert_eq!(output.code(), 1, "{output}");
    let mut many: Vec<_> = (0..8)
        .map(|n| {
            let user = format!("{}", 1000 + n);
            let cmd = single.rless([
                "exec",
                "-u",
                &user,
                &running.name,
                "sh",
                "-c",
                "sleep 0.3; id -u",
            ]);
            (user, cmd.spawn())
        })
        .collect();
    for (user, child) in &mut many {
        let mut out = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        child.wait().unwrap();
        assert_eq!(out.trim(), user);
    }
}

#[test]
fn many_execs_at_once() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let running = Running::start(&sandbox, "many", &[]);
    let children: Vec<_> = (0..16)
        .map(|n| {
            let code = n.to_string();
            let cmd = sandbox.rless(["exec", "-i", &running.name, "sh", "-c"]);
            let mut child = cmd.arg(format!("cat; exit {code}")).spawn();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(code.as_bytes())
                .unwrap();
            (code, child)
        })
        .collect();
    for (code, child) in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), code);
        assert_eq!(output.status.code().map(|c| c.to_string()), Some(code));
    }
}

/// The processor time that a process has had and how long it lives, both in seconds (proc_pid_stat(5)).
fn processor(pid: &str) -> (f64, f64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let words: Vec<&str> = stat.rsplit_once(')').unwrap().1.split(' ').collect();
    let ticks = |field: usize| words[field - 2].parse::<f64>().unwrap() / 100.0;
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    (ticks(14) + ticks(15), uptime - ticks(22))
}

#[test]
fn top_shows_the_containers_processes() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    for flags in [&[][..], &["--init"]] {
        let running = Running::start(&sandbox, "top", flags);
        let name = running.name.as_str();
        let exec = ["exec", "-d", "-t", "-u", "nobody", name, "sleep", "905"];
        sandbox.rless(exec).ok();
        let top = |words: &[&str]| {
            let out = sandbox.rless(["top", name]).args(words).ok();
            out.lines()
                .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        let inspect = ["inspect", "--format", "{{.State.Pid}}", name];
        let pid = sandbox.rless(inspect).ok();
        let before = processor(pid.trim());
        let all = top(&[]);
        let after = processor(pid.trim());
        assert_eq!(all[0], "USER PID PPID %CPU ELAPSED TTY TIME COMMAND");
        let first = if flags.is_empty() {
            "sleep 1000"
        } else {
            "rless-init"
        };
        assert!(
            all[1].starts_with("root 1 0 ") && all[1].ends_with(first),
            "{all:?}"
        );
        // Between what the kernel says before and after; a clock tick is 10 ms, and three digits are shown.
        let share = |used: f64, lived: f64| 100.0 * used / lived.max(0.01);
        let least = share(before.0, after.1 + 0.011) - 0.001;
        let most = share(after.0, before.1 - 0.011) + 0.001;
        let shown: f64 = all[1].split(' ').nth(3).unwrap().parse().unwrap();
        assert!((least..=most).contains(&shown), "{least}..{most}: {all:?}");
        let last = all.last().unwrap();
        assert!(
            last.starts_with("nobody ") && last.contains(" pts/0 ") && last.ends_with("sleep 905"),
            "{all:?}"
        );
        assert_eq!(top(&["pid", "user,comm"])[0], "PID USER COMMAND");
        assert_eq!(
            top(&["capeff", "seccomp", "state"]).last().unwrap(),
            "none filter S"
        );
        // Users are those of the container as it is now.
        running.ok(&[], "sed -i s/nobody/somebody/ /etc/passwd");
        assert_eq!(top(&["user"]).last().unwrap(), "somebody");
        running.ok(&[], "rm /etc/passwd; mkfifo /etc/passwd");
        assert_eq!(top(&["user"]).last().unwrap(), "65534");
        // What is no descriptor is the container's own ps's.
        assert!(top(&["-o", "pid,args"])[0].starts_with("PID COMMAND"));
        sandbox.rless(["stop", "-t", "0", name]).ok();
        let output = sandbox.rless(["top", name]).exits(125);
        output.says(&["top can only be used on running containers"]);
    }
    sandbox
        .rless(["top"])
        .exits(125)
        .says(&["you must provide the name or id of a running container"]);
    sandbox
        .rless(["top", "nosuch"])
        .exits(125)
        .says(&["no container with name or ID \"nosuch\" found"]);
}

#[test]
fn a_network_is_shared_with_another_container() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "alpine"]).ok();
    for (n, flags) in [
        &["--network", "pasta"][..],
        &["--network", "pasta", "--init"],
    ]
    .iter()
    .enumerate()
    {
        let first = Running::start(&sandbox, &format!("first{n}"), flags);
        let network = format!("container:{}", first.name);
        let second = Running::image(
            &sandbox,
            &format!("second{n}"),
            &["--network", &network],
            "alpine",
        );
        let namespaces = |of: &Running<'_>| {
            of.ok(
                &[],
                "for n in user net pid mnt ipc; do readlink /proc/self/ns/$n; done",
            )
        };
        let (a, b) = (namespaces(&first), namespaces(&second));
        let same: Vec<bool> = a.lines().zip(b.lines()).map(|(a, b)| a == b).collect();
        assert_eq!(same, [true, true, false, false, false], "{a}{b}");
        // One listens, the other reaches it; on a low port.
        let listen = "echo across | nc -l -p 80";
        let exec = ["exec", "-d", &first.name, "sh", "-c", listen];
        sandbox.rless(exec).ok();
        let reach = "nc -w 5 127.0.0.1 80 </dev/null 2>/dev/null || true";
        wait_for("the other's answer", SOON, || {
            second.ok(&[], reach) == "across\n"
        });
        assert_eq!(
            first.ok(&[], "cat /etc/hosts"),
            second.ok(&[], "cat /etc/hosts")
        );
        // Rights and root are the second's own.
        assert_eq!(
            second.ok(
                &[],
                "touch /own; id -u; ls /tmp/index.html 2>&1 | grep -c such"
            ),
            "0\n1\n"
        );
        assert_eq!(second.ok(&["-u", "nobody"], "id -u"), "65534\n");
        let output = sandbox
            .rless(["rm", "-f", "-t", "0", &first.name])
            .exits(125);
        output.says(&["has dependent containers which must be removed before it"]);
        sandbox.rless(["stop", "-t", "0", &second.name]).ok();
        sandbox.rless(["start", &second.name]).ok();
        assert_eq!(namespaces(&second).lines().nth(1), a.lines().nth(1));
        sandbox
            .rless(["stop", "-t", "0", &first.name, &second.name])
            .ok();
        // As podman: whose network it shares is started with it.
        sandbox.rless(["start", &second.name]).ok();
        let net = |of: &Running<'_>| namespaces(of).lines().nth(1).map(str::to_owned);
        assert!(net(&first).is_some() && net(&first) == net(&second));
        drop(second);
    }
    // Whatever the order in which they are named.
    let first = Running::start(&sandbox, "last", &[]);
    let network = format!("container:{}", first.name);
    let second = Running::start(&sandbox, "further", &["--network", &network]);
    let args = ["rm", "-f", "-t", "0", &first.name, &second.name];
    assert_eq!(sandbox.rless(args).ok().lines().count(), 2);
    let output = sandbox
        .rless([
            "run",
            "--rm",
            "--network",
            "container:nosuch",
            "alpine",
            "true",
        ])
        .exits(125);
    output.says(&["looking up container to share net namespace with", "nosuch"]);
}

#[test]
fn a_network_is_shared_with_one_id_too() {
    let world = world!();
    let Some(loner) = world.loner.as_ref() else {
        skip!("needs a user without subordinate ids");
    };
    let mut single = Sandbox::shared_of(world, loner, "store");
    single.without_helper(world);
    let first = Running::start(&single, "one", &[]);
    let network = format!("container:{}", first.name);
    let args = ["run", "--rm", "--network", &network, "alpine", "sh", "-c"];
    let script =
        "readlink /proc/self/ns/net; touch /f; chown nobody /f && su nobody -s /bin/sh -c 'id -u'";
    let out = single.rless(args).arg(script).ok();
    let net = first.ok(&[], "readlink /proc/self/ns/net");
    assert_eq!(out, format!("{net}65534\n"));
}
