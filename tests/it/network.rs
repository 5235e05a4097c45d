//! The network as a container's user sees it: pasta, ports, source addresses, names.

use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::harness::{Sandbox, World, host, skip, wait_for, world};
use crate::session::Session;

const SLOW: Duration = Duration::from_secs(1800);
const QUICK: Duration = Duration::from_secs(120);

/// A TCP port that is free, and none of those that connections are given.
pub(crate) fn free_port() -> u16 {
    free_ports(1)
}

/// The first of `count` such ports one after the other, which no other test is given.
fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run side by side begin elsewhere.
    let first = 10_000 + u16::try_from(std::process::id() % 200).unwrap() * 100;
    let ports = || 10_000 + (first - 10_000 + NEXT.fetch_add(count, Ordering::Relaxed)) % 22_000;
    let free = |port: u16| std::net::TcpListener::bind(("0.0.0.0", port)).is_ok();
    std::iter::repeat_with(ports)
        .take(1000)
        .find(|port| (*port..port + count).all(free))
        .unwrap()
}

/// A network namespace with 10.99.0.2 behind a veth whose host end is 10.99.0.1.
struct Client {
    name: String,
    link: String,
    _lock: std::sync::MutexGuard<'static, ()>,
}

impl Client {
    fn new() -> Client {
        static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let lock = ONE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = format!("rless-client-{}", std::process::id());
        let link = format!("rl{}", std::process::id() % 1_000_000);
        host(&format!(
            "ip netns add {name}
             ip link add {link} type veth peer name eth0 netns {name}
             ip addr add 10.99.0.1/24 dev {link}
             ip link set {link} up
             ip -n {name} addr add 10.99.0.2/24 dev eth0
             ip -n {name} link set eth0 up
             ip -n {name} link set lo up"
        ));
        Client {
            name,
            link,
            _lock: lock,
        }
    }

    fn get(&self, port: u16) -> String {
        host(&format!(
            "ip netns exec {} curl -sS --max-time 20 http://10.99.0.1:{port}/",
            self.name
        ))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let script = format!("ip link del {}; ip netns del {}", self.link, self.name);
        drop(
            std::process::Command::new("/bin/sh")
                .args(["-c", &script])
                .status(),
        );
    }
}

/// A sandbox that finds the given pasta first.
fn with_pasta(world: &World, sandbox: &mut Sandbox, suite: &str) {
    let dir = world.images.join(format!("pasta-{suite}"));
    let path = format!("{}:{}", dir.display(), sandbox.get("PATH").display());
    sandbox.set("PATH", path);
}

/// Debian installs nginx and curl and serves a page; the log shows who asked.
fn debian_serves_with(suite: &str) {
    let world = world!();
    if !world.root {
        skip!("needs root for the client's network namespace");
    }
    let client = Client::new();
    let mut sandbox = Sandbox::shared(world);
    with_pasta(world, &mut sandbox, suite);
    let (local, open) = (free_port(), free_port());
    let publish = [format!("127.0.0.1:{local}:80"), format!("{open}:80")];
    let run = sandbox
        .rless(["run", "--rm", "-i", "-p", &publish[0], "-p", &publish[1]])
        .args(world.mirror_hosts());
    let mut session = Session::start(&run.args(["debian", "bash"]));
    session.ok("apt-get -o Acquire::Retries=5 update && apt-get -o Acquire::Retries=5 install -y nginx curl", SLOW);
    session.ok(
        "echo served by rless > /var/www/html/index.html; nginx",
        QUICK,
    );
    assert_eq!(
        session.ok("curl -sS http://127.0.0.1/", QUICK),
        "served by rless\n"
    );
    assert_eq!(
        host(&format!("curl -sS --max-time 20 http://127.0.0.1:{local}/")),
        "served by rless\n"
    );
    assert_eq!(client.get(open), "served by rless\n");
    let log = session.ok("cat /var/log/nginx/access.log", QUICK);
    assert!(
        log.lines().any(|l| l.starts_with("10.99.0.2 ")),
        "no 10.99.0.2 in {log}"
    );
    session.ok("nginx -s quit", QUICK);
    session.end();
}

#[test]
fn debian_installs_and_serves_with_debian_12s_pasta() {
    debian_serves_with("bookworm");
}

#[test]
fn debian_installs_and_serves_with_debian_13s_pasta() {
    debian_serves_with("trixie");
}

#[test]
fn published_ports_answer_and_close_with_the_container() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let mut session =
        Session::start(&sandbox.rless(["run", "--rm", "-i", "-p", &publish, "busybox", "sh"]));
    session.ok(
        "mkdir /www; echo hello > /www/index.html; httpd -h /www -p 80",
        QUICK,
    );
    assert_eq!(
        host(&format!("curl -sS --max-time 20 http://127.0.0.1:{port}/")),
        "hello\n"
    );
    let taken = sandbox
        .rless(["run", "--rm", "-p", &publish, "busybox", "true"])
        .exits(125);
    taken.says(&[&port.to_string()]);
    session.end();
    assert!(
        std::net::TcpListener::bind(("127.0.0.1", port)).is_ok(),
        "port {port} is still taken"
    );
}

#[test]
fn udp_and_ranges_are_published() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let port = free_port();
    // Alpine: Debian's busybox has an nc without -u.
    // The same port inside: Debian 12's pasta loses the answers of a lower one, and rless says so.
    let publish = format!("127.0.0.1:{port}:{port}/udp");
    let mut session =
        Session::start(&sandbox.rless(["run", "--rm", "-i", "-p", &publish, "alpine", "sh"]));
    session.ok(
        &format!("(sleep 600 | nc -u -l -p {port} > /got &) ; sleep 0.5"),
        QUICK,
    );
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut got = String::new();
    for _ in 0..200 {
        socket.send_to(b"datagram\n", ("127.0.0.1", port)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        got = session.ok("cat /got", QUICK);
        if !got.is_empty() {
            break;
        }
    }
    let state = session.sh("ps; cat /proc/net/udp /proc/net/udp6", QUICK).1;
    assert!(got.starts_with("datagram\n"), "got {got:?}: {state}");
    session.ok("killall nc sleep; true", QUICK);
    session.end();

    let base = free_ports(2);
    let publish = format!("127.0.0.1:{base}-{}:8000-8001", base + 1);
    let mut session =
        Session::start(&sandbox.rless(["run", "--rm", "-i", "-p", &publish, "busybox", "sh"]));
    session.ok(
        "mkdir /www; echo second > /www/index.html; httpd -h /www -p 8001",
        QUICK,
    );
    assert_eq!(
        host(&format!(
            "curl -sS --max-time 20 http://127.0.0.1:{}/",
            base + 1
        )),
        "second\n"
    );
    session.end();
}

#[test]
fn none_has_only_loopback_and_host_has_the_hosts() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let links = |network: &str| {
        let run = [
            "run",
            "--rm",
            "--network",
            network,
            "busybox",
            "sh",
            "-c",
            "ls /sys/class/net | sort",
        ];
        sandbox.rless(run).ok()
    };
    assert_eq!(links("none"), "lo\n");
    assert_eq!(links("host"), host("ls /sys/class/net | sort"));
}

#[test]
fn host_network_reaches_the_hosts_loopback() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let url = format!("http://{}/v2/", world.registry);
    let run = [
        "run",
        "--rm",
        "--network",
        "host",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        &url,
    ];
    assert_eq!(sandbox.rless(run).ok().trim(), "{}");
}

#[test]
fn ping_works_without_a_capability() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let run = [
        "run",
        "--rm",
        "alpine",
        "sh",
        "-c",
        "ping -c 1 -W 5 127.0.0.1 && cat /proc/sys/net/ipv4/ping_group_range",
    ];
    let out = sandbox.rless(run).ok();
    assert!(out.contains("1 packets received"), "{out}");
}

#[test]
fn a_resolver_on_the_hosts_loopback_is_reached() {
    let world = world!();
    if !world.root || !Path::new("/usr/bin/unshare").exists() {
        skip!("needs root to give rless a resolv.conf of its own");
    }
    let sandbox = Sandbox::shared(world);
    // A name server on 127.0.0.53 or the like, in a mount namespace whose resolv.conf names it; it answers
    // every question with 192.0.2.99.
    let server = sandbox.write(
        "home/dns.py",
        "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for address in '127.0.0.53', '127.0.0.55':
    try:
        s.bind((address, 53))
        print(address, flush=True)
        break
    except OSError:  # the host's own is there
        pass
while True:
    q, who = s.recvfrom(512)
    end = q.index(b'\\0', 12) + 5
    answer = b'' if q[end-4:end-2] != b'\\0\\1' else b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4' + bytes([192, 0, 2, 99])
    s.sendto(q[:2] + b'\\x81\\x80\\0\\1\\0' + bytes([1 if answer else 0]) + b'\\0\\0\\0\\0' + q[12:end] + answer, who)
",
    );
    let mut dns = std::process::Command::new("python3")
        .arg(server)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = dns.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    let conf = sandbox.write("home/resolv.conf", format!("nameserver {line}"));
    let bind = format!(
        "mount --bind {} \"$(readlink -f /etc/resolv.conf)\" && exec \"$@\"",
        conf.display()
    );
    let run = sandbox.rless([
        "run",
        "--rm",
        "busybox",
        "nslookup",
        "-type=a",
        "anything.example",
    ]);
    let output = run
        .wrapped(["unshare", "-m", "sh", "-c", &bind, "sh"])
        .run();
    drop(dns.kill());
    drop(dns.wait());
    assert!(line.starts_with("127.0.0.5"), "{line}");
    assert!(output.out.contains("192.0.2.99"), "{output}");
}

#[test]
fn pasta_dies_with_the_container_and_only_then() {
    let world = world!();
    if !world.root {
        skip!("needs root: pasta hides its environment from its user");
    }
    let sandbox = Sandbox::shared(world);
    let mut session = Session::start(&sandbox.rless(["run", "--rm", "-i", "busybox", "sh"]));
    session.ok("ip addr", QUICK);
    let pasta = || {
        sandbox
            .processes()
            .into_iter()
            .filter(|(_, line)| line.contains("pasta"))
            .count()
    };
    assert_eq!(pasta(), 1, "{:?}", sandbox.processes());
    session.end();
    wait_for("pasta ends", QUICK, || pasta() == 0);
}
