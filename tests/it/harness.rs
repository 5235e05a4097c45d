//! What every test stands on: accounts, directories of its own, commands with a time limit, a leak check.
//!
//! A [`Sandbox`] is one account with its own home, configuration and run-time directory. Its store
//! is its own ([`Sandbox::new`]) or the account's common one ([`Sandbox::shared`], where images are
//! pulled once). When it is dropped it fails the test if a process or mount of it is left.
//!
//! Processes are found by an environment marker: the front end and the supervisor inherit it and so
//! do pasta and helpers; a container's init is found as a child of one of them while it lives, and
//! by the user's ids in `tests/leaks` at the end of the whole run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The variable that marks every process a sandbox has started.
const MARKER: &str = "RLESS_TEST_SANDBOX";
/// Long enough for a debug build on a slow and busy machine; a test that needs more says so.
const LIMIT: Duration = Duration::from_secs(300);
/// By how much a wait outlasts what a test takes for long: who waits only wants to know what hangs, and the machine may be a slow one.
pub(crate) const SLOWNESS: u32 = 5;

/// Ends the test with a printed reason that `tests/run` counts.
macro_rules! skip {
    ($($reason:tt)*) => {{
        crate::harness::note_skip(&format!($($reason)*));
        return;
    }};
}
pub(crate) use skip;

/// The world of the tests, or a skip.
macro_rules! world {
    () => {
        match crate::harness::prepared() {
            Some(world) => world,
            None => crate::harness::skip!("run by tests/run only"),
        }
    };
}
pub(crate) use world;

/// Notes a skip under the running test's name.
pub(crate) fn note_skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}", thread.name().unwrap_or("?"));
    eprintln!("SKIP {line}");
    if let Some(path) = std::env::var_os("RLESS_TEST_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).open(path);
        file.and_then(|mut f| writeln!(f, "{line}")).unwrap();
    }
}

/// A user of the machine that rless is run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    fn named(name: &str) -> Account {
        let user = nix::unistd::User::from_name(name)
            .unwrap()
            .expect("test user exists");
        Account {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }
    }

    /// The superuser, where the tests run as root.
    pub(crate) fn root() -> Account {
        Account::named("root")
    }
}

/// What `tests/run` has prepared.
#[derive(Debug)]
pub(crate) struct World {
    /// Directory of the run: `bin/` (rless and its helper with capabilities), `plain/` (rless alone).
    pub(crate) base: PathBuf,
    /// `host:port` of the loopback registry that holds `alpine`, `debian` and `busybox`.
    pub(crate) registry: String,
    /// Directory with the same images as `NAME.oci` and `NAME.tar`, and both pastas.
    pub(crate) images: PathBuf,
    /// The user with subuid ranges.
    pub(crate) user: Account,
    /// The user without; only where the tests run as root.
    pub(crate) loner: Option<Account>,
    /// The tests run as root and may act as any user and make network namespaces.
    pub(crate) root: bool,
}

/// The world, or `None` when the tests were not started by `tests/run`.
pub(crate) fn prepared() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    WORLD
        .get_or_init(|| {
            let var = |name: &str| std::env::var(format!("RLESS_TEST_{name}")).ok();
            let loner = var("LONER").filter(|name| !name.is_empty());
            Some(World {
                base: var("BASE")?.into(),
                registry: var("REGISTRY")?,
                images: var("IMAGES")?.into(),
                user: Account::named(&var("USER")?),
                loner: loner.map(|name| Account::named(&name)),
                root: nix::unistd::geteuid().is_root(),
            })
        })
        .as_ref()
}

impl World {
    /// `NAME:IP` of the package mirrors' hosts that the machine knows only from its own hosts file,
    /// as arguments of `--add-host`.
    pub(crate) fn mirror_hosts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.base.join("mirror-hosts")).unwrap();
        text.lines()
            .flat_map(|line| ["--add-host".to_owned(), line.to_owned()])
            .collect()
    }

    /// A registry reference of this world.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.registry)
    }
}

/// An account with directories of its own to run rless in.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) dir: PathBuf,
    pub(crate) account: Account,
    env: BTreeMap<OsString, OsString>,
    rless: PathBuf,
    setpriv: bool,
}

impl Sandbox {
    /// A sandbox of the ordinary test user with a store of its own.
    pub(crate) fn new(world: &World) -> Sandbox {
        Sandbox::of(world, &world.user)
    }

    /// A sandbox of `account` with a store of its own.
    pub(crate) fn of(world: &World, account: &Account) -> Sandbox {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = world.base.join(format!("s{number}-{}", account.name));
        let mut sandbox = Sandbox {
            dir: dir.clone(),
            account: account.clone(),
            env: BTreeMap::new(),
            rless: world.base.join("bin/rless"),
            setpriv: world.root && account.uid != 0,
        };
        sandbox.make_dir(&dir);
        for (variable, name) in [
            ("HOME", "home"),
            ("XDG_DATA_HOME", "data"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_RUNTIME_DIR", "run"),
            ("TMPDIR", "tmp"),
        ] {
            sandbox.make_dir(&dir.join(name));
            sandbox.set(variable, dir.join(name));
        }
        sandbox.make_dir(&dir.join("config/containers"));
        std::fs::copy(
            world.base.join("registries.conf"),
            dir.join("config/containers/registries.conf"),
        )
        .unwrap();
        sandbox.set(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        sandbox.set("USER", &account.name);
        sandbox.set("TERM", "xterm");
        sandbox.set("LANG", "C.UTF-8");
        sandbox.set(MARKER, &dir);
        sandbox
    }

    /// A sandbox of the test user on the account's common store and run-time directory.
    pub(crate) fn shared(world: &World) -> Sandbox {
        Sandbox::shared_of(world, &world.user, "store")
    }

    /// A sandbox of `account` on a store common to all sandboxes that give the same `store` name.
    pub(crate) fn shared_of(world: &World, account: &Account, store: &str) -> Sandbox {
        let mut sandbox = Sandbox::of(world, account);
        let common = world.base.join(format!("{store}-{}", account.name));
        for (variable, name) in [("XDG_DATA_HOME", "data"), ("XDG_RUNTIME_DIR", "run")] {
            sandbox.make_dir(&common);
            sandbox.make_dir(&common.join(name));
            sandbox.set(variable, common.join(name));
        }
        sandbox
    }

    /// Sets a variable for every later command.
    pub(crate) fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.env.insert(name.into(), value.as_ref().to_owned());
    }

    /// The value of a variable that commands get.
    pub(crate) fn get(&self, name: &str) -> PathBuf {
        self.env
            .get(OsStr::new(name))
            .map(PathBuf::from)
            .unwrap_or_default()
    }

    /// Uses the copy of rless that has no helper beside it.
    pub(crate) fn without_helper(&mut self, world: &World) {
        self.rless = world.base.join("plain/rless");
    }

    /// The binary in use.
    pub(crate) fn binary(&self) -> &Path {
        &self.rless
    }

    /// The store's directory.
    pub(crate) fn store(&self) -> PathBuf {
        self.get("XDG_DATA_HOME").join("rless")
    }

    /// Makes a directory of the account, mode 0700, if it is missing.
    pub(crate) fn make_dir(&self, path: &Path) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(path, Some(self.account.uid), Some(self.account.gid)).unwrap();
    }

    /// Writes a file of the account.
    pub(crate) fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.join(path);
        std::fs::write(&path, contents).unwrap();
        std::os::unix::fs::chown(&path, Some(self.account.uid), Some(self.account.gid)).unwrap();
        path
    }

    /// `rless ARGS`, as the account.
    pub(crate) fn rless<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Cmd {
        let mut cmd = self.command(self.rless.clone());
        cmd.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        cmd
    }

    /// `sh -c SCRIPT`, as the account.
    pub(crate) fn sh(&self, script: &str) -> Cmd {
        let mut cmd = self.command("/bin/sh");
        cmd.args.extend(["-c".into(), script.into()]);
        cmd
    }

    /// Any program, as the account.
    pub(crate) fn command(&self, program: impl Into<PathBuf>) -> Cmd {
        Cmd {
            wrapper: Vec::new(),
            account: self.setpriv.then(|| self.account.clone()),
            args: vec![program.into().into_os_string()],
            env: self.env.clone(),
            cwd: self.dir.join("home"),
            stdin: Vec::new(),
            limit: LIMIT,
        }
    }

    /// Processes that this sandbox started and that still live: `(pid, command line)`.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let marker = [
            MARKER.as_bytes(),
            b"=",
            self.dir.as_os_str().as_encoded_bytes(),
            b"\0",
        ]
        .concat();
        let holds = |environment: &[u8]| {
            environment
                .windows(marker.len())
                .any(|window| window == marker.as_slice())
        };
        processes()
            .into_iter()
            .filter(|pid| std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|e| holds(&e)))
            .map(|pid| (pid, command_line(pid)))
            .collect()
    }

    /// Waits until no process of the sandbox is left.
    ///
    /// # Panics
    /// When one is left after a minute.
    pub(crate) fn assert_quiet(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "processes left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let dir = self.dir.to_str().unwrap();
        assert!(
            !mounts.contains(dir),
            "mount left behind below {dir}: {mounts}"
        );
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (pid, _) in self.processes() {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            return; // the directory stays for a look; tests/run removes it
        }
        self.assert_quiet();
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// Every process id of the machine.
pub(crate) fn processes() -> Vec<i32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// A process's arguments joined by spaces.
pub(crate) fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .replace('\0', " ")
}

/// A process's parent, 0 when it is gone.
pub(crate) fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Whether a process whose arguments are `what` waits in a system call.
pub(crate) fn asleep(what: &str) -> bool {
    let waits = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|state| state.starts_with('S'))
    };
    let mut found = processes().into_iter();
    found.any(|pid| command_line(pid) == what && waits(pid))
}

/// Waits until a command waits for somebody's answer or has ended.
pub(crate) fn waits(child: &mut Child) {
    use nix::libc::{SYS_poll, SYS_ppoll, SYS_recvfrom, SYS_recvmsg};
    let path = format!("/proc/{}/syscall", child.id());
    if std::fs::read_to_string(&path).is_err() && child.try_wait().unwrap().is_none() {
        // Not everyone may read it.
        std::thread::sleep(Duration::from_millis(400));
        return;
    }
    let answers = [SYS_poll, SYS_ppoll, SYS_recvfrom, SYS_recvmsg];
    let (mut last, mut looks) = (None, 0);
    wait_for("an answer waited for", Duration::from_secs(20), || {
        let call = std::fs::read_to_string(&path).unwrap_or_default();
        let number = call.split(' ').next().and_then(|n| n.parse().ok());
        let number = number.filter(|n: &i64| *n >= 0); // a page fault is none
        looks = if number.is_some() && number == last {
            looks + 1
        } else {
            0
        };
        last = number;
        // Looks are 20 ms apart. A file of the container's is read from its supervisor, too.
        let enough = number.map(|n| if answers.contains(&n) { 3 } else { 50 });
        enough.is_some_and(|enough| looks >= enough) || child.try_wait().unwrap().is_some()
    });
}

/// Waits until `condition` holds.
///
/// # Panics
/// With `what` when it does not within [`SLOWNESS`] times `limit`.
pub(crate) fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let limit = limit * SLOWNESS;
    let until = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command to be run; see [`Sandbox::rless`].
#[derive(Debug, Clone)]
pub(crate) struct Cmd {
    wrapper: Vec<OsString>,
    account: Option<Account>,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    cwd: PathBuf,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Cmd {
    /// Appends an argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable for this command.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Cmd {
        self.env.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// Gives it these bytes as standard input, then its end.
    pub(crate) fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Cmd {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// Gives it another time limit.
    pub(crate) fn within(mut self, limit: Duration) -> Cmd {
        self.limit = limit;
        self
    }

    /// Runs it in another directory.
    pub(crate) fn cwd(mut self, path: impl Into<PathBuf>) -> Cmd {
        self.cwd = path.into();
        self
    }

    /// Runs it below another program that executes its arguments, before the account is changed.
    pub(crate) fn wrapped<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Cmd {
        self.wrapper
            .extend(words.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// The uid that it runs as, when that is not the caller's own.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.account.as_ref().map(|a| a.uid)
    }

    /// The command for the standard library; every part of the chain executes the next, so that the
    /// child's pid is the program's.
    pub(crate) fn build(&self) -> Command {
        let mut words: Vec<OsString> = self.wrapper.clone();
        if let Some(account) = &self.account {
            words.extend(["setpriv", "--reuid"].map(OsString::from));
            words.push(account.uid.to_string().into());
            words.push("--regid".into());
            words.push(account.gid.to_string().into());
            words.push("--init-groups".into());
        }
        words.extend(self.args.iter().cloned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.cwd);
        command
    }

    /// Starts it without waiting; the three streams are pipes.
    pub(crate) fn spawn(&self) -> Child {
        let mut command = self.build();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end within its limit.
    pub(crate) fn run(&self) -> Output {
        let mut child = self.spawn();
        let mut stdin = child.stdin.take().unwrap();
        let input = self.stdin.clone();
        // A program that does not read its input is no error.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        let out = drain(child.stdout.take().unwrap());
        let err = drain(child.stderr.take().unwrap());
        let until = Instant::now() + self.limit;
        let (status, late) = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break (status, false);
            }
            if Instant::now() > until {
                drop(child.kill());
                break (child.wait().unwrap(), true);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // Someone who inherited the pipes may live on; what has arrived by then is the output.
        let grace = Instant::now() + Duration::from_secs(30);
        while !(out.is_finished() && err.is_finished()) && Instant::now() < grace {
            std::thread::sleep(Duration::from_millis(5));
        }
        let held = !(out.is_finished() && err.is_finished());
        let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
            if thread.is_finished() {
                thread.join().unwrap()
            } else {
                Vec::new()
            }
        };
        let output = Output {
            command: self
                .args
                .join(OsStr::new(" "))
                .to_string_lossy()
                .into_owned(),
            status,
            out: String::from_utf8_lossy(&text(out)).into_owned(),
            err: String::from_utf8_lossy(&text(err)).into_owned(),
        };
        assert!(!late, "still running after {:?}: {output}", self.limit);
        assert!(
            !held,
            "output still held open by another process after exit: {output}"
        );
        output
    }

    /// Runs it and checks that it succeeds; returns its standard output.
    pub(crate) fn ok(&self) -> String {
        let output = self.run();
        assert!(output.status.success(), "{output}");
        output.out
    }

    /// Runs it and checks its exit code; returns both streams.
    pub(crate) fn exits(&self, code: i32) -> Output {
        let output = self.run();
        assert_eq!(output.code(), code, "{output}");
        output
    }
}

/// Reads a stream to its end on a thread.
fn drain(mut stream: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        bytes
    })
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    command: String,
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Output {
    /// The exit code; a signal counts as 128 and its number, as in a shell.
    pub(crate) fn code(&self) -> i32 {
        self.status
            .code()
            .or_else(|| self.status.signal().map(|s| 128 + s))
            .unwrap_or(-1)
    }

    /// Checks that the error text holds each of `words`.
    pub(crate) fn says(&self, words: &[&str]) {
        for word in words {
            assert!(
                self.err.contains(word),
                "no {word:?} in the error text: {self}"
            );
        }
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        writeln!(text, "`{}` ended with {}", self.command, self.code())?;
        writeln!(text, "--- stdout\n{}--- stderr\n{}---", self.out, self.err)?;
        f.write_str(&text)
    }
}

/// Reads what is left of a stream; for children made with [`Cmd::spawn`].
pub(crate) fn rest(stream: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        drop(stream.read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs a command of the test's own (as root where the tests are) and checks that it succeeds.
pub(crate) fn host(script: &str) -> String {
    let output = Command::new("/bin/sh")
        .args(["-ec", script])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
