//! Tests with a real pasta and a network namespace of their own; skipped where either is missing.
//! `RLESS_PASTA` chooses another pasta.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::error::report;
use crate::network::{Protocol, host, ports};

/// A process in new user and network namespaces; killed on drop.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Option<Sleeper> {
        let child = Command::new("unshare")
            .args(["-U", "-r", "-n", "sh", "-c", "echo ready; exec sleep 60"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut sleeper = Sleeper(child);
        let mut word = [0u8; 6];
        sleeper.0.stdout.as_mut()?.read_exact(&mut word).ok()?;
        Some(sleeper)
    }

    fn target(&self) -> Target {
        Target::Pid(i32::try_from(self.0.id()).expect("pid"))
    }

    /// Whether there is an interface beside loopback.
    fn connected(&self) -> bool {
        let interfaces = self.run(&["cat", "/proc/net/dev"]);
        // Two lines of heading, and lo.
        interfaces.lines().count() > 3
    }

    /// Output of a command inside.
    fn run(&self, args: &[&str]) -> String {
        let out = Command::new("nsenter")
            .args([
                "-t",
                &self.0.id().to_string(),
                "-U",
                "-n",
                "--preserve-credentials",
                "--",
            ])
            .args(args)
            .output()
            .expect("nsenter");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(publish: &[&str]) -> Option<PastaConfig> {
    let cache = tempfile::tempdir().expect("dir");
    let (program, features) = host::find(cache.path()).ok()?;
    let mappings: Vec<_> = publish
        .iter()
        .map(|p| p.parse().expect("mapping"))
        .collect();
    Some(PastaConfig {
        program,
        features,
        ports: ports::resolve(&mappings).expect("ports"),
        options: Vec::new(),
        forward: false,
        addressing: host::view().addressing(features),
    })
}

/// A namespace and a configuration, or a printed reason to skip.
#[allow(clippy::print_stderr)]
fn world(publish: &[&str]) -> Option<(Sleeper, PastaConfig)> {
    let world = Sleeper::new().zip(config(publish));
    if world.is_none() {
        eprintln!("SKIP: needs unprivileged user namespaces and pasta");
    }
    world
}

fn gone(pid: u32) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state.is_empty()
            || state
                .rsplit(')')
                .next()
                .is_some_and(|s| s.trim_start().starts_with('Z'))
        {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn ready_means_configured_and_stop_leaves_nothing() {
    let Some((sleeper, config)) = world(&[]) else {
        return;
    };
    let mut pasta = start(&config, &sleeper.target()).expect("start");
    pasta
        .wait_ready()
        .unwrap_or_else(|e| panic!("{}", report(&e)));
    assert!(sleeper.connected());
    assert!(pasta.alive());
    let pid = pasta.pid().expect("pid");
    pasta.stop();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!pasta.alive());
}

#[test]
fn published_ports_reach_the_container_by_address_and_range() {
    let Some((sleeper, config)) = world(&["127.0.0.1::8000-8001", "127.0.0.1::8002"]) else {
        return;
    };
    let mut pasta = start(&config, &sleeper.target()).expect("start");
    pasta
        .wait_ready()
        .unwrap_or_else(|e| panic!("{}", report(&e)));
    for (published, first) in config.ports.iter().zip([8000, 8002]) {
        for (i, (host_port, container_port)) in published.each().enumerate() {
            assert_eq!(usize::from(container_port), first + i);
            let script = format!(
                "import socket\ns=socket.create_server(('0.0.0.0',{container_port}))\nprint('on',flush=True)\nc=s.accept()[0]\nc.sendall(b'{container_port}')"
            );
            let mut server = Command::new("nsenter")
                .args([
                    "-t",
                    &sleeper.0.id().to_string(),
                    "-U",
                    "-n",
                    "--preserve-credentials",
                ])
                .args(["/usr/bin/python3", "-c", &script])
                .stdout(Stdio::piped())
                .spawn()
                .expect("server");
            let mut word = [0u8; 3];
            server
                .stdout
                .as_mut()
                .expect("pipe")
                .read_exact(&mut word)
                .expect("listening");
            let mut got = String::new();
            TcpStream::connect((Ipv4Addr::LOCALHOST, host_port))
                .and_then(|mut c| c.read_to_string(&mut got))
                .expect("client");
            assert_eq!(got, container_port.to_string());
            let _ = server.wait();
        }
    }
}

#[test]
fn a_port_taken_after_the_probe_is_reported_in_pastas_words() {
    let Some((sleeper, config)) = world(&["127.0.0.1::80"]) else {
        return;
    };
    let port = config.ports[0].host_port;
    let _thief = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
    let mut pasta = start(&config, &sleeper.target()).expect("start");
    let error = pasta.wait_ready().expect_err("taken");
    let text = report(&error);
    assert!(
        text.contains(&port.to_string()) && text.contains("hint: "),
        "{text}"
    );
}

#[test]
fn a_dead_pasta_is_noticed_and_a_new_one_restores_the_network() {
    let Some((sleeper, config)) = world(&[]) else {
        return;
    };
    let mut pasta = start(&config, &sleeper.target()).expect("start");
    pasta
        .wait_ready()
        .unwrap_or_else(|e| panic!("{}", report(&e)));
    let pid = i32::try_from(pasta.pid().expect("pid")).expect("pid");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("kill");
    let hung_up =
        poll_readable(pasta.fd(), Some(Instant::now() + Duration::from_secs(60))).expect("poll");
    assert!(hung_up, "the descriptor tells of the death");
    assert!(
        pasta.death("ended").to_string().contains("signal: 9"),
        "{}",
        pasta.death("ended")
    );
    assert!(!pasta.alive());
    pasta.restart().unwrap_or_else(|e| panic!("{}", report(&e)));
    assert!(pasta.alive());
    assert!(sleeper.connected());
}

/// Runs itself again as the supervisor that is killed; with an AppArmor profile of pasta's own
/// only the leash does it.
#[test]
#[allow(clippy::print_stdout)]
fn pasta_dies_with_its_supervisor_however_that_ends() {
    if std::env::var_os("RLESS_PASTA_TEST").is_some() {
        let Some((sleeper, config)) = world(&[]) else {
            return;
        };
        let mut pasta = start(&config, &sleeper.target()).expect("start");
        pasta
            .wait_ready()
            .unwrap_or_else(|e| panic!("{}", report(&e)));
        println!("\npids {} {}", pasta.pid().expect("pid"), sleeper.0.id());
        std::thread::sleep(Duration::from_secs(30));
        return;
    }
    if world(&[]).is_none() {
        return;
    }
    let mut supervisor = Command::new(std::env::current_exe().expect("exe"))
        .args([
            "--exact",
            "network::pasta::tests::pasta_dies_with_its_supervisor_however_that_ends",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env("RLESS_PASTA_TEST", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("supervisor");
    let lines = std::io::BufReader::new(supervisor.stdout.take().expect("pipe")).lines();
    let pids: Vec<u32> = lines
        .map_while(Result::ok)
        .find_map(|line| {
            let words = line.strip_prefix("pids ")?.split(' ');
            Some(words.filter_map(|word| word.parse().ok()).collect())
        })
        .expect("pids");
    supervisor.kill().expect("kill");
    supervisor.wait().expect("wait");
    assert!(gone(pids[0]), "pasta outlived its supervisor");
    let sleeper = i32::try_from(pids[1]).expect("pid");
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(sleeper),
        nix::sys::signal::Signal::SIGKILL,
    );
}

#[test]
fn a_pasta_that_cannot_start_says_why() {
    let Some((sleeper, mut config)) = world(&[]) else {
        return;
    };
    config.options = vec!["--address".into(), "no-address".into()];
    let mut pasta = start(&config, &sleeper.target()).expect("start");
    let text = report(&pasta.wait_ready().expect_err("bad option"));
    assert!(text.contains("no-address"), "{text}");
    config.program = "/nonexistent/pasta".into();
    assert!(
        report(&start(&config, &sleeper.target()).expect_err("no program"))
            .contains("/nonexistent/pasta")
    );
}

#[test]
fn arguments_follow_the_version_and_the_host() {
    let config = PastaConfig {
        program: "pasta".into(),
        features: Features::default(),
        ports: vec![
            Published {
                host_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                host_port: 8080,
                container_port: 80,
                count: 1,
                protocol: Protocol::Tcp,
            },
            Published {
                host_ip: None,
                host_port: 53,
                container_port: 5353,
                count: 2,
                protocol: Protocol::Udp,
            },
        ],
        options: vec!["--map-gw".into(), "-T".into(), "auto".into()],
        forward: true,
        addressing: Addressing::Private,
    };
    let line = |config: &PastaConfig| {
        let words = config.arguments(&Target::Pid(7), false);
        words
            .iter()
            .map(|w| w.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        line(&config),
        "-f -q -P /proc/self/fd/1 --config-net --dns-forward 169.254.1.1 -a 10.0.2.100 -n 24 -g 10.0.2.2 \
         -t 127.0.0.1/8080:80 -u 53-54:5353-5354 -U none -T auto 7"
    );
    let newer = PastaConfig {
        features: Features {
            map_guest_addr: true,
        },
        options: Vec::new(),
        forward: false,
        ports: Vec::new(),
        addressing: Addressing::Copied,
        ..config
    };
    assert_eq!(
        line(&newer),
        "-f -q -P /proc/self/fd/1 --config-net --no-map-gw --map-guest-addr 169.254.1.2 -t none -u none -T none -U none 7"
    );
}

#[test]
fn a_host_without_any_route_publishes_all_the_same() {
    let Some((sleeper, config)) = world(&["127.0.0.1::8003"]) else {
        return;
    };
    let config = PastaConfig {
        addressing: Addressing::Isolated,
        ..config
    };
    let mut pasta = start(&config, &sleeper.target()).expect("start");
    pasta
        .wait_ready()
        .unwrap_or_else(|e| panic!("{}", report(&e)));
    let addresses = sleeper.run(&["cat", "/proc/net/fib_trie"]);
    assert!(addresses.contains(&PRIVATE.to_string()), "{addresses}");
    let mut client =
        TcpStream::connect((Ipv4Addr::LOCALHOST, config.ports[0].host_port)).expect("client");
    let _ = client.write_all(b"x");
}

/// Not a bound but a report: `cargo test -- --nocapture start_latency` on an idle machine.
#[test]
#[allow(clippy::print_stderr)]
fn start_latency_is_far_below_a_second() {
    let mut times = Vec::new();
    let mut starts = Vec::new();
    for _ in 0..9 {
        let Some((sleeper, config)) = world(&[]) else {
            return;
        };
        let begin = Instant::now();
        let mut pasta = start(&config, &sleeper.target()).expect("start");
        starts.push(begin.elapsed());
        pasta
            .wait_ready()
            .unwrap_or_else(|e| panic!("{}", report(&e)));
        times.push(begin.elapsed());
    }
    times.sort();
    starts.sort();
    eprintln!(
        "pasta: start() {:?}, ready {:?} (least {:?})",
        starts[4], times[4], times[0]
    );
    assert!(times[4] < Duration::from_secs(1), "{times:?}");
}
