//! Promise 4, step by step: each command killed before each of its system calls that change files or
//! make processes, and then the next command. The kills are strace's (`inject=…:signal=KILL:when=N`): no timing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::faults::init_of;
use crate::harness::{Cmd, Output, Sandbox, host, skip, wait_for, world};

/// What changes files, takes locks or makes processes. Not every architecture has each.
const CALLS: [&str; 16] = [
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "symlink",
    "symlinkat",
    "fsync",
    "flock",
    "bind",
    "clone",
    "clone3",
    "ftruncate",
];

/// Runs commands under strace.
struct Steps<'a> {
    sandbox: &'a Sandbox,
    trace: PathBuf,
}

impl<'a> Steps<'a> {
    fn new(sandbox: &'a Sandbox) -> Steps<'a> {
        Steps {
            sandbox,
            trace: sandbox.dir.join("tmp/trace"),
        }
    }

    /// How often the one process that calls each of [`CALLS`] most often did.
    fn counts(&self) -> BTreeMap<&'static str, usize> {
        let trace = std::fs::read_to_string(&self.trace).unwrap();
        let mut of_process: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in trace.lines() {
            let Some((pid, rest)) = line.split_once(' ') else {
                continue;
            };
            if let Some((call, _)) = rest.trim_start().split_once('(') {
                *of_process.entry((pid, call)).or_default() += 1;
            }
        }
        let most = |call: &str| {
            let counts = of_process.iter().filter(|((_, c), _)| *c == call);
            counts.map(|(_, n)| *n).max()
        };
        CALLS
            .into_iter()
            .filter_map(|call| Some((call, most(call)?)))
            .collect()
    }

    /// The options of strace that watch, and kill before the `n`-th `call` of any process.
    fn options(&self, kill: Option<(&str, usize)>) -> Vec<String> {
        let all: Vec<String> = CALLS.iter().map(|call| format!("?{call}")).collect();
        let trace = self.trace.to_string_lossy().into_owned();
        let mut words = vec!["-f".to_owned(), "-o".to_owned(), trace, "-e".to_owned()];
        words.push(format!("trace={}", all.join(",")));
        if let Some((call, n)) = kill {
            words.push("-e".to_owned());
            words.push(format!("inject={call}:signal=KILL:when={n}"));
        }
        words
    }

    fn run(&self, cmd: Cmd, kill: Option<(&str, usize)>) -> Output {
        let mut words = vec!["strace".to_owned()];
        words.extend(self.options(kill));
        let output = cmd.wrapped(words).run();
        let what = format!("after a kill {kill:?}: {:?}", self.sandbox.processes());
        wait_for(&what, Duration::from_secs(20), || {
            self.sandbox.processes().is_empty()
        });
        output
    }

    /// `before`, the command unharmed, `after`; then the same once for each step it is killed at.
    fn each(&self, mut before: impl FnMut(), cmd: impl Fn() -> Cmd, mut after: impl FnMut(&str)) {
        before();
        let output = self.run(cmd(), None);
        assert_eq!(output.code(), 0, "{output}");
        after("unharmed");
        let mut kills = 0;
        for (call, most) in self.counts() {
            for n in 1..=most {
                before();
                self.run(cmd(), Some((call, n)));
                after(&format!("killed before {call} {n} (kill {kills})"));
                kills += 1;
            }
        }
        assert!(
            kills >= 4,
            "only {kills} steps: does strace still see them?"
        );
    }
}

/// What the commands after a kill must find.
pub(crate) struct Checks<'a>(pub(crate) &'a Sandbox);

impl Checks<'_> {
    fn names(&self) -> String {
        self.0
            .rless(["ps", "-a", "--format", "{{.Names}} {{.State}}"])
            .ok()
    }

    fn volumes(&self) -> usize {
        self.0.rless(["volume", "ls", "-q"]).ok().lines().count()
    }

    fn again(&self) -> Output {
        let args = "run --rm --network none --name victim busybox echo again";
        self.0.rless(args.split(' ')).run()
    }

    /// Nothing half made or half removed, right after one command.
    fn swept(&self, context: &str) {
        let script = "cd \"$XDG_DATA_HOME/rless\" && find containers/.new containers/.gone volumes/.new volumes/.gone \
            -mindepth 1 ! -name .lock 2>/dev/null; \
            find containers volumes -name '?*.new'; [ ! -d volumes ] || find volumes -mindepth 2 -maxdepth 2 \
            ! -path '*/.*' ! -name _data ! -name volume.json ! -name state ! -name owner; \
            for n in containers/names/*; do [ ! -L $n ] || [ -e containers/$(readlink $n)/record.json ] || echo $n; done";
        assert_eq!(self.0.sh(script).run().out, "", "{context}: files are left");
    }

    /// No container and nothing of one.
    pub(crate) fn clean(&self, context: &str) {
        self.swept(context);
        assert_eq!(self.names(), "", "{context}");
        let script = "find \"$XDG_DATA_HOME/rless/containers\" \"$XDG_DATA_HOME/rless/tmp\" -mindepth 1 ! -name '*.lock' \
            ! -path '*/names' ! -name .new ! -name .gone; \
            find \"$XDG_RUNTIME_DIR\" -mindepth 1 ! -type d ! -name pasta.json; ls \"$XDG_RUNTIME_DIR/rless/live\"";
        assert_eq!(self.0.sh(script).run().out, "", "{context}: files are left");
    }

    /// The container may be there as it was, or not at all, and its name be had at once; `listing` first, or not.
    fn old_or_new(&self, listing: bool, context: &str) {
        let old = if listing {
            let names = self.names();
            assert!(
                ["", "victim exited\n"].contains(&&*names),
                "{context}: {names}"
            );
            !names.is_empty()
        } else {
            let output = self.again();
            match output.code() {
                0 => assert_eq!(output.out, "again\n", "{context}: {output}"),
                _ => output.says(&["already in use"]),
            }
            output.code() != 0
        };
        self.swept(context);
        assert_eq!(
            self.names(),
            if old { "victim exited\n" } else { "" },
            "{context}"
        );
    }

    fn reusable(&self, context: &str) {
        let output = self.again();
        assert_eq!(output.out, "again\n", "{context}: {output}");
        self.clean(context);
    }
}

/// A store with a container that has ended and has two anonymous volumes, to be copied back.
fn template(sandbox: &Sandbox) -> impl Fn() + '_ {
    let script = "echo kept > /one/f && { chown 33 /two; true; }";
    let args = "run --network none --name victim -v /one -v /two busybox sh -c";
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    sandbox.rless(args.split(' ').chain([script])).ok();
    let (data, copy) = (sandbox.get("XDG_DATA_HOME"), sandbox.dir.join("template"));
    let (data, copy) = (data.display().to_string(), copy.display().to_string());
    host(&format!("cp -a {data} {copy}"));
    move || drop(host(&format!("rm -rf {data} && cp -a {copy} {data}")))
}

/// Kills `rm ARGS` before each step; `volumes` says how many of the two there are, by whether the container is.
fn rm_killed(args: &[&str], volumes: impl Fn(bool) -> usize) {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let reset = template(&sandbox);
    let checks = Checks(&sandbox);
    let steps = Steps::new(&sandbox);
    let mut listing = false;
    let rm = |more: &[&str]| {
        let all = ["rm"].iter().chain(more).chain(args).chain(&["victim"]);
        sandbox.rless(all)
    };
    steps.each(
        &reset,
        || rm(&[]),
        |context| {
            listing = !listing;
            checks.old_or_new(listing, context);
            let there = !checks.names().is_empty();
            assert_eq!(checks.volumes(), volumes(there), "{context}");
            let kept = sandbox.sh("cat \"$XDG_DATA_HOME\"/rless/volumes/*/_data/f || true");
            let expected = if volumes(there) == 0 { "" } else { "kept\n" };
            assert_eq!(kept.ok(), expected, "{context}");
            rm(&["-i"]).ok();
            assert_eq!(checks.volumes(), volumes(false), "{context}");
            checks.clean(context);
        },
    );
}

#[test]
fn rm_killed_at_each_step() {
    rm_killed(&[], |_| 2);
}

#[test]
fn rm_with_volumes_killed_at_each_step() {
    rm_killed(&["-v"], |there| if there { 2 } else { 0 });
}

#[test]
fn run_killed_at_each_step() {
    let world = world!();
    if !world.root {
        skip!(
            "needs root: under an ordinary user's strace newuidmap and rless-idmap have no capabilities"
        );
    }
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    let checks = Checks(&sandbox);
    let steps = Steps::new(&sandbox);
    let mut listing = false;
    steps.each(
        || {},
        || sandbox.rless("run --network none --name victim -v /one busybox true".split(' ')),
        |context| {
            listing = !listing;
            // There, in whatever state it was left, or not at all.
            let there = if listing {
                !checks.names().is_empty()
            } else {
                checks.again().code() != 0
            };
            checks.swept(context);
            assert_eq!(checks.volumes(), usize::from(there), "{context}");
            assert!(!checks.names().contains("running"), "{context}");
            sandbox.rless(["rm", "-i", "-v", "victim"]).ok();
            assert_eq!(checks.volumes(), 0, "{context}");
            checks.reusable(context);
        },
    );
}

/// Starts a container that ends when its bind mount says so, and gives its supervisor's pid.
fn supervised(sandbox: &Sandbox, more: &[&str]) -> i32 {
    let go = sandbox.dir.join("home/go");
    sandbox.make_dir(&go);
    drop(std::fs::remove_file(go.join("now")));
    let bind = format!("{}:/go", go.display());
    let wait = "until [ -e /go/now ]; do sleep 0.02; done";
    let args = "run -d --network none --name victim -v /one";
    let args = args.split(' ').chain(more.iter().copied());
    let args = args.chain(["-v", &bind, "busybox", "sh", "-c", wait]);
    sandbox.rless(args).ok();
    crate::harness::parent(init_of(sandbox).unwrap())
}

/// The end of a detached container whose supervisor is killed at each step.
fn teardown(more: &[&str], after: impl Fn(&Checks<'_>, &str)) {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    let steps = Steps::new(&sandbox);
    let checks = Checks(&sandbox);
    let go = sandbox.dir.join("home/go/now");
    let end = |kill: Option<(&str, usize)>| {
        let pid = supervised(&sandbox, more).to_string();
        let mut strace = std::process::Command::new("strace")
            .args(steps.options(kill))
            .args(["-p", &pid])
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It says so when it has attached to every thread.
        let mut said = std::io::BufReader::new(strace.stderr.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
        std::fs::write(&go, "").unwrap();
        std::io::copy(&mut said, &mut std::io::sink()).unwrap();
        strace.wait().unwrap();
        wait_for("the container's end", Duration::from_secs(20), || {
            sandbox.processes().is_empty()
        });
    };
    end(None);
    after(&checks, "unharmed");
    let mut kills = 0;
    for (call, most) in steps.counts() {
        for n in 1..=most {
            end(Some((call, n)));
            after(&checks, &format!("killed before {call} {n}"));
            kills += 1;
        }
    }
    assert!(
        kills >= 2,
        "only {kills} steps: does strace still see them?"
    );
}

#[test]
fn supervisor_of_run_rm_killed_at_each_step_of_its_teardown() {
    teardown(&["--rm"], |checks, context| {
        // Not by a listing: by whatever command comes first.
        let output = checks.again();
        assert_eq!(output.out, "again\n", "{context}: {output}");
        checks.clean(context);
        assert_eq!(checks.volumes(), 0, "{context}");
    });
}

#[test]
fn supervisor_killed_at_each_step_of_its_teardown() {
    teardown(&[], |checks, context| {
        let code = checks.again().code();
        assert_eq!(code, 125, "{context}: the name is in use");
        checks.swept(context);
        assert_eq!(checks.names(), "victim exited\n", "{context}");
        let live = checks.0.sh("ls \"$XDG_RUNTIME_DIR/rless/live\"").ok();
        assert_eq!(live, "", "{context}");
        checks.0.rless(["rm", "-v", "victim"]).ok();
        checks.clean(context);
        assert_eq!(checks.volumes(), 0, "{context}");
    });
}

#[test]
fn volume_create_and_rm_killed_at_each_step() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let steps = Steps::new(&sandbox);
    let checks = Checks(&sandbox);
    let names = || sandbox.rless(["volume", "ls", "-q"]).ok();
    let whole = |context: &str| {
        let listed = names();
        assert!(["", "v\n"].contains(&&*listed), "{context}: {listed}");
        checks.swept(context);
        if !listed.is_empty() {
            let script = "cd \"$XDG_DATA_HOME/rless/volumes/v\" && [ -d _data ] && grep -q '\"name\":\"v\"' volume.json";
            sandbox.sh(script).ok();
        }
    };
    sandbox.rless(["volume", "create", "other"]).ok();
    sandbox.rless(["volume", "rm", "other"]).ok();
    steps.each(
        || {
            sandbox.rless(["volume", "rm", "-f", "v"]).ok();
        },
        || sandbox.rless(["volume", "create", "v"]),
        whole,
    );
    steps.each(
        || {
            if names().is_empty() {
                sandbox.rless(["volume", "create", "v"]).ok();
            }
            sandbox
                .sh("mkdir -p \"$XDG_DATA_HOME/rless/volumes/v/_data/d/e\"")
                .ok();
        },
        || sandbox.rless(["volume", "rm", "v"]),
        whole,
    );
}

#[test]
fn rmi_killed_at_each_step() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox.rless(["pull", "-q", "busybox"]).ok();
    let (data, copy) = (sandbox.get("XDG_DATA_HOME"), sandbox.dir.join("template"));
    let (data, copy) = (data.display().to_string(), copy.display().to_string());
    host(&format!("cp -a {data} {copy}"));
    let checks = Checks(&sandbox);
    Steps::new(&sandbox).each(
        || drop(host(&format!("rm -rf {data} && cp -a {copy} {data}"))),
        || sandbox.rless(["rmi", "busybox"]),
        |context| {
            // Whole, or gone; and the space comes back with the next removal.
            let images = sandbox.rless(["images", "-q"]).ok();
            if !images.is_empty() {
                let id = images.trim();
                let args = [
                    "run",
                    "--rm",
                    "--pull",
                    "never",
                    "--network",
                    "none",
                    id,
                    "true",
                ];
                sandbox.rless(args).ok();
                sandbox.rless(["rmi", "-f", id]).ok();
            }
            assert_eq!(checks.again().code(), 0, "{context}");
            sandbox.rless(["rmi", "busybox"]).ok();
            let left = "cd \"$XDG_DATA_HOME/rless\" && find packs blobs index images tmp -type f";
            assert_eq!(sandbox.sh(left).run().out, "", "{context}");
        },
    );
}

#[test]
fn ps_beside_rm_keeps_the_volumes() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let reset = template(&sandbox);
    for round in 0..40 {
        reset();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        sandbox.rless(["ps", "-a", "-q"]).ok();
                    }
                });
            }
            let output = sandbox.rless(["rm", "victim"]).run();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(output.code(), 0, "round {round}: {output}");
        });
        assert_eq!(Checks(&sandbox).volumes(), 2, "round {round}");
        Checks(&sandbox).clean(&format!("round {round}"));
    }
}

#[test]
fn of_two_rm_one_finds_no_such_container() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let reset = template(&sandbox);
    let both = |args: [&str; 2]| {
        reset();
        let rm = || sandbox.rless(args).arg("victim").run();
        std::thread::scope(|scope| {
            let (a, b) = (scope.spawn(rm), scope.spawn(rm));
            [a.join().unwrap(), b.join().unwrap()]
        })
    };
    for _ in 0..15 {
        let [a, b] = both(["rm", "-v"]);
        let mut codes = [a.code(), b.code()];
        codes.sort_unstable();
        assert_eq!(codes, [0, 1], "{a}{b}");
        let loser = if a.code() == 1 { a } else { b };
        loser.says(&["no such container"]);
        for option in ["-f", "-i"] {
            let outputs = both(["rm", option]);
            assert!(outputs.iter().all(|o| o.code() == 0), "{outputs:#?}");
        }
        Checks(&sandbox).clean("two rm");
    }
}

#[test]
fn volume_rm_beside_run_never_takes_its_volume() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let file = "cat \"$XDG_DATA_HOME\"/rless/volumes/v/_data/f";
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                sandbox.rless(["volume", "rm", "v"]).run();
                sandbox.rless(["volume", "rm", "-a"]).run();
            }
        });
        for round in 0..15 {
            let run = ["run", "--name", "c", "-v", "v:/data", "-v", "/anonymous"];
            let script = [
                "busybox",
                "sh",
                "-c",
                "echo x >/data/f; echo y >/anonymous/f",
            ];
            let output = sandbox.rless(run).args(script).run();
            assert_eq!(output.code(), 0, "round {round}: {output}");
            assert_eq!(sandbox.sh(file).ok(), "x\n", "round {round}");
            sandbox.rless(["rm", "-v", "c"]).ok();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    sandbox.rless(["volume", "rm", "-a", "-f"]).ok();
    Checks(&sandbox).clean("volume rm beside run");
}

#[test]
fn replace_and_rmi_force_keep_anonymous_volumes() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let checks = Checks(&sandbox);
    let run = [
        "run",
        "--replace",
        "--name",
        "c",
        "-v",
        "/data",
        "busybox",
        "true",
    ];
    sandbox.rless(run).ok();
    assert_eq!(checks.volumes(), 1);
    sandbox.rless(run).ok();
    assert_eq!(checks.volumes(), 2);
    sandbox.rless(["rmi", "-f", "busybox"]).ok();
    assert_eq!(sandbox.rless(["ps", "-a", "-q"]).ok(), "");
    assert_eq!(checks.volumes(), 2);
    let labelled = sandbox.rless(["volume", "create", "--label", "a=b"]).ok();
    let format = ["volume", "inspect", "--format", "{{.Labels.a}}"];
    assert_eq!(sandbox.rless(format).arg(labelled.trim()).ok(), "b\n");
}
