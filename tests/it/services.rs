//! nginx, PostgreSQL and Redis of Debian's packages, detached, under a load, and everything that may happen to them.
//!
//! Each lives twice: with its data in the container's own root, and in a volume. A client of ours ([`load::Load`]) notes
//! what the service has acknowledged, beside the load that the service's own tool makes from a second container. Then,
//! in the middle of it: the service is killed (its restart policy brings it back), `rless kill`, the supervisor is killed (the
//! next command heals and starts it again), `rless stop`, and an upgrade: `commit` while it runs, and its successor from
//! that image. After each everything that was acknowledged is there and nothing that was never asked for: Redis with
//! `appendfsync always`, PostgreSQL with `fsync`. nginx serves the same bytes, and its log has no torn line.
//!
//! `RLESS_SERVICES_ROUNDS` (`tests/long load`) repeats the four kinds of death before the upgrade.

mod clients;
mod load;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::clients::{Connection, Http, Postgres, Redis};
use self::load::Load;
use crate::harness::{Sandbox, World, wait_for, world};
use crate::network::free_port;

/// A start with recovery on a loaded machine, debug build.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOW: Duration = Duration::from_secs(600);

/// What a test needs to know of a service.
trait Service: Sync {
    const NAME: &'static str;
    /// The port it listens on.
    const PORT: u16;
    /// Signal with which it ends without waiting for its clients.
    const STOP: &'static str;
    /// Directories with its data, by the name of their volume.
    const DATA: &'static [(&'static str, &'static str)];
    type Connection: Connection;
    /// Flags of `run`, and the command.
    fn command(&self, sandbox: &Sandbox) -> (Vec<String>, Vec<String>);
    /// Once, when it runs for the first time.
    fn prepare(&self, sandbox: &Sandbox, port: u16);
    /// A shell line that puts a load on `127.0.0.1:port` for some seconds.
    fn load(port: u16) -> String;
    /// Checks what it has to hold, and gives the numbers that it says to have stored.
    fn check(&self, sandbox: &Sandbox, port: u16) -> Option<BTreeSet<u64>>;
    /// How much it holds that only its own load tool can have left.
    fn loaded(&self, sandbox: &Sandbox, port: u16) -> u64;
}

/// A service in a container, and the loads on it.
struct Life<'a, S: Service> {
    service: &'a S,
    sandbox: &'a Sandbox,
    port: u16,
    volumes: bool,
    load: Load,
}

impl<S: Service> Life<'_, S> {
    fn rless(&self, words: &[&str]) -> String {
        self.sandbox.rless(words).within(SLOW).ok()
    }

    fn start(&self, image: &str) {
        let publish = format!("127.0.0.1:{}:{}", self.port, S::PORT);
        let run = ["run", "-d", "--restart", "always", "--name", S::NAME];
        let mut cmd = self.sandbox.rless(run).within(SLOW);
        cmd = cmd.args(["-p", &publish, "--stop-signal", S::STOP]);
        if self.volumes {
            for (name, path) in S::DATA {
                cmd = cmd.args(["-v".to_owned(), format!("{name}:{path}")]);
            }
        }
        let (flags, command) = self.service.command(self.sandbox);
        cmd.args(flags).arg(image).args(command).ok();
    }

    fn inspect(&self, what: &str) -> String {
        let text = self.rless(&["inspect", "--format", what, S::NAME]);
        text.trim().to_owned()
    }

    /// Waits until it answers; whoever looks by `ps` heals what died.
    fn answers(&self) {
        wait_for("an answer", PATIENCE, || {
            self.rless(&["ps"]);
            S::Connection::open(self.port).is_ok_and(|mut c| c.alive())
        });
    }

    /// Some load, then `event`, then everything is there.
    fn survives(&self, what: &str, event: impl FnOnce()) {
        let before = self.load.count();
        wait_for("progress", PATIENCE, || self.load.count() > before + 20);
        eprintln!("{}: {what} after {} answers", S::NAME, self.load.count());
        event();
        self.answers();
        self.everything_is_there(what);
    }

    fn everything_is_there(&self, what: &str) {
        // What is acknowledged before it is asked for has to be in the answer.
        let acknowledged = self.load.acknowledged();
        let Some(there) = self.service.check(self.sandbox, self.port) else {
            return;
        };
        let tried = self.load.tried();
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "{}: {what} lost {lost:?}", S::NAME);
        let last = there.last().copied().unwrap_or(0);
        assert!(last <= tried, "{}: {last} of {tried}", S::NAME);
    }

    fn is_killed(&self) {
        let pid = self.inspect("{{.State.Pid}}");
        // PostgreSQL is of another user, which the container's owner may kill from its user namespace.
        let script = format!("kill -9 {pid} 2>/dev/null || nsenter -U -t {pid} kill -9 {pid}");
        self.sandbox.sh(&script).ok();
        wait_for("its successor", PATIENCE, || {
            let now = self.inspect("{{.State.Pid}}");
            now != pid && now != "0"
        });
    }

    fn supervisor_is_killed(&self) {
        let containers = self.sandbox.store().join("containers");
        let record = containers.join(self.inspect("{{.Id}}")).join("record.json");
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        let pid = i32::try_from(record["supervisor"]["pid"].as_i64().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }

    fn is_upgraded(&self, image: &str) {
        // What is acknowledged while the image is made may be in it or not.
        let promised = self.load.acknowledged();
        self.rless(&["commit", "-q", S::NAME, image]);
        self.rless(&["stop", S::NAME]);
        if !self.volumes {
            self.load.forget_all_but(promised);
        }
        self.rless(&["rm", S::NAME]);
        self.start(image);
    }

    fn run(&self, rounds: usize) {
        self.answers();
        self.service.prepare(self.sandbox, self.port);
        self.load.begin();
        let busy = format!("while :; do {}; done >/dev/null 2>&1", S::load(self.port));
        let image = self.sandbox.get("SERVICES_IMAGE");
        let busy_name = format!("{}-load", S::NAME);
        let run = ["run", "-d", "--network", "host", "--name", &busy_name];
        let cmd = self.sandbox.rless(run).within(SLOW).arg(image);
        cmd.args(["sh", "-c", &busy]).ok();
        for _ in 0..rounds {
            self.survives("a kill of the service", || self.is_killed());
            self.survives("rless kill", || {
                self.rless(&["kill", S::NAME]);
                self.rless(&["start", S::NAME]);
            });
            self.survives("a kill of the supervisor", || self.supervisor_is_killed());
            self.survives("rless stop", || {
                self.rless(&["stop", S::NAME]);
                assert_eq!(self.inspect("{{.State.Status}}"), "exited");
                self.rless(&["start", S::NAME]);
            });
        }
        let image = format!("{}-next", S::NAME);
        self.survives("an upgrade", || self.is_upgraded(&image));
        self.survives("a kill of the successor", || self.is_killed());
        self.load.end();
        self.everything_is_there("the end");
        let loaded = self.service.loaded(self.sandbox, self.port);
        assert!(loaded > 0, "{}: no load but ours", S::NAME);
        self.rless(&["rm", "-f", "-t", "0", &busy_name, S::NAME]);
        self.rless(&["rmi", &image]);
        if self.volumes {
            let names = S::DATA.iter().map(|(name, _)| *name);
            self.sandbox.rless(["volume", "rm"]).args(names).ok();
        }
    }
}

fn live<S: Service>(service: &S, world: &World) {
    let rounds = std::env::var("RLESS_SERVICES_ROUNDS");
    let rounds = rounds.map_or(1, |n| n.parse().unwrap());
    // One store, and one life at a time: whoever heals a dead supervisor's container is the parent of the next.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for volumes in [false, true] {
        let mut sandbox = Sandbox::shared_of(world, &world.user, "services");
        sandbox.set("SERVICES_IMAGE", world.reference("services"));
        let image = sandbox.get("SERVICES_IMAGE");
        let pull = ["pull".as_ref(), "-q".as_ref(), image.as_os_str()];
        sandbox.rless(pull).within(SLOW).ok();
        let port = free_port();
        let life = Life {
            service,
            sandbox: &sandbox,
            port,
            volumes,
            load: Load::new::<S::Connection>(port),
        };
        let began = std::time::Instant::now();
        life.start(image.to_str().unwrap());
        life.run(rounds);
        eprintln!(
            "{}, volumes: {volumes}: {} answers, {:.0} s",
            S::NAME,
            life.load.count(),
            began.elapsed().as_secs_f64()
        );
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

struct RedisServer;

impl Service for RedisServer {
    const NAME: &'static str = "redis";
    const PORT: u16 = 6379;
    const STOP: &'static str = "SIGTERM";
    const DATA: &'static [(&'static str, &'static str)] = &[("redis-data", "/var/lib/redis")];
    type Connection = Redis;

    fn command(&self, _sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
        let command = "redis-server --bind * --protected-mode no --dir /var/lib/redis --save \
             --appendonly yes --appendfsync always";
        let mut command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        // No snapshots beside the log.
        let at = command.iter().position(|w| w == "--save").unwrap();
        command.insert(at + 1, String::new());
        (Vec::new(), command)
    }

    fn prepare(&self, _sandbox: &Sandbox, _port: u16) {}

    fn load(port: u16) -> String {
        format!("redis-benchmark -p {port} -c 4 -n 500 -t set,lpush -r 1000 || sleep 0.2")
    }

    fn check(&self, _sandbox: &Sandbox, port: u16) -> Option<BTreeSet<u64>> {
        Some(Redis::open(port).unwrap().numbers().unwrap())
    }

    fn loaded(&self, _sandbox: &Sandbox, port: u16) -> u64 {
        // One is ours.
        Redis::open(port).unwrap().keys().unwrap() - 1
    }
}

struct PostgresServer;

impl Service for PostgresServer {
    const NAME: &'static str = "postgres";
    const PORT: u16 = 5432;
    // Fast: SIGTERM would wait for the clients.
    const STOP: &'static str = "SIGINT";
    const DATA: &'static [(&'static str, &'static str)] = &[("pg-data", "/var/lib/postgresql")];
    type Connection = Postgres;

    fn command(&self, sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
        let trust = sandbox.write("home/hba", "local all all trust\nhost all all all trust\n");
        let mount = format!("{}:/etc/hba:ro", trust.display());
        let flags = vec!["--user".into(), "postgres".into(), "-v".into(), mount];
        let mut command = words(
            "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main \
             -c config_file=/etc/postgresql/15/main/postgresql.conf -c hba_file=/etc/hba",
        );
        for setting in [
            "listen_addresses=*",
            "ssl=off",
            "external_pid_file=",
            "unix_socket_directories=/tmp",
            "shared_buffers=16MB",
            "fsync=on",
            "synchronous_commit=on",
        ] {
            command.extend(["-c".to_owned(), setting.to_owned()]);
        }
        (flags, command)
    }

    fn prepare(&self, sandbox: &Sandbox, port: u16) {
        let mut connection = Postgres::open(port).unwrap();
        let table = "CREATE TABLE acknowledged (n bigint PRIMARY KEY)";
        connection.query(table).unwrap();
        let init = format!("pgbench -h 127.0.0.1 -p {} -U postgres -i -q", Self::PORT);
        let exec = sandbox.rless(["exec", Self::NAME, "sh", "-c", &init]);
        exec.within(SLOW).ok();
    }

    fn load(port: u16) -> String {
        format!("pgbench -n -h 127.0.0.1 -p {port} -U postgres -c 2 -T 5 postgres || sleep 0.2")
    }

    fn check(&self, _sandbox: &Sandbox, port: u16) -> Option<BTreeSet<u64>> {
        let mut connection = Postgres::open(port).unwrap();
        // pgbench's own invariant, of one snapshot: what was added to the accounts is in the history.
        let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) - (SELECT coalesce(sum(delta), 0) FROM \
             pgbench_history), (SELECT sum(tbalance) FROM pgbench_tellers) - (SELECT sum(bbalance) FROM pgbench_branches)";
        let rows = connection.query(sums).unwrap();
        assert_eq!(rows, [["0", "0"]], "the sums differ");
        let rows = connection.query("SELECT n FROM acknowledged").unwrap();
        Some(rows.iter().map(|row| row[0].parse().unwrap()).collect())
    }

    fn loaded(&self, _sandbox: &Sandbox, port: u16) -> u64 {
        let mut connection = Postgres::open(port).unwrap();
        let rows = connection.query("SELECT count(*) FROM pgbench_history");
        rows.unwrap()[0][0].parse().unwrap()
    }
}

/// With the page that it serves.
struct NginxServer {
    page: Vec<u8>,
}

impl Service for NginxServer {
    const NAME: &'static str = "nginx";
    const PORT: u16 = 80;
    const STOP: &'static str = "SIGQUIT";
    const DATA: &'static [(&'static str, &'static str)] = &[
        ("nginx-pages", "/var/www/html"),
        ("nginx-logs", "/var/log/nginx"),
    ];
    type Connection = Http;

    fn command(&self, _sandbox: &Sandbox) -> (Vec<String>, Vec<String>) {
        let command = ["nginx", "-g", "daemon off;"].map(str::to_owned);
        (Vec::new(), command.to_vec())
    }

    fn prepare(&self, sandbox: &Sandbox, _port: u16) {
        let put = "cat >/var/www/html/index.html && sync /var/www/html/index.html";
        let exec = sandbox.rless(["exec", "-i", Self::NAME, "sh", "-c", put]);
        exec.stdin(&self.page).within(SLOW).ok();
    }

    fn load(port: u16) -> String {
        format!("wrk -t 1 -c 4 -d 3 http://127.0.0.1:{port}/index.html || sleep 0.2")
    }

    fn check(&self, sandbox: &Sandbox, port: u16) -> Option<BTreeSet<u64>> {
        let body = Http::open(port).unwrap().get("/index.html").unwrap();
        assert!(body == self.page, "{} bytes came", body.len());
        // Every line is whole: address, time, request, code, length, referrer, agent. The last may be in the making.
        let whole = r#"^[0-9a-f.:]+ - - \[[^]]+\] "GET [^ "]+ HTTP/1\.[01]" [0-9]{3} [0-9]+ "[^"]*" "[^"]*"$"#;
        let script =
            format!("head -n -1 /var/log/nginx/access.log | grep -Evn -m 5 '{whole}'; true");
        let torn = sandbox.rless(["exec", Self::NAME, "bash", "-c", &script]);
        assert_eq!(torn.within(SLOW).ok(), "", "torn lines");
        None
    }

    fn loaded(&self, sandbox: &Sandbox, _port: u16) -> u64 {
        // Ours have a number, and there are few without.
        let count = "grep -Fc 'GET /index.html HTTP' /var/log/nginx/access.log";
        let exec = sandbox.rless(["exec", Self::NAME, "sh", "-c", count]);
        let lines = exec.within(SLOW).ok().trim().parse::<u64>().unwrap();
        lines.saturating_sub(100)
    }
}

#[test]
fn redis_loses_nothing_that_it_acknowledged() {
    let world = world!();
    live(&RedisServer, world);
}

#[test]
fn postgresql_loses_nothing_that_it_committed() {
    let world = world!();
    live(&PostgresServer, world);
}

#[test]
fn nginx_serves_the_same_bytes_and_tears_no_line() {
    let world = world!();
    let page = (0..300_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    let page = page.collect();
    live(&NginxServer { page }, world);
}
