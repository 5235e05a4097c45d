//! Tests on a real cgroup v2 with a systemd of the caller's; skipped elsewhere (tests/vm runs them).
//!
//! [`Scope::create`] moves the calling process, so each test runs itself again as a child.

use std::process::Command;

use super::*;
use crate::error::report;

/// Runs the named test again in a process of its own and demands that it succeeds; `true` in the
/// child, where the test goes on, and a printed skip where there is no systemd.
#[allow(clippy::print_stderr)]
fn in_child(test: &str) -> bool {
    if std::env::var_os("RLESS_CGROUP_TEST").is_some() {
        return true;
    }
    if !matches!(detect::detect().rung, Rung::Systemd { .. }) {
        eprintln!("SKIP {test}: needs cgroup v2 and a systemd session");
        return false;
    }
    let output = Command::new(std::env::current_exe().expect("exe"))
        .args([
            "--exact",
            &format!("cgroup::scope::tests::{test}"),
            "--nocapture",
            "--test-threads=1",
        ])
        .env("RLESS_CGROUP_TEST", "1")
        .output()
        .expect("child");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    false
}

fn create(availability: &Availability, limits: &Limits) -> Scope {
    let id = format!(
        "test-{}-{}",
        std::process::id(),
        availability.controllers.len()
    );
    let request = ScopeRequest {
        id: &id,
        description: "rless cgroup test",
        slice: None,
        limits,
    };
    Scope::create(availability, &request)
        .unwrap_or_else(|e| panic!("{}", report(&e)))
        .expect("a scope")
}

/// Runs a shell script in the container's leaf.
fn inside(scope: &Scope, script: &str) -> std::process::ExitStatus {
    let procs = scope.container().join("cgroup.procs");
    Command::new("sh")
        .args(["-c", &format!("echo 0 > {} && {script}", procs.display())])
        .status()
        .expect("sh")
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("task").count()
}

#[test]
#[allow(clippy::print_stderr)]
fn limits_are_kept_and_the_supervisor_is_not_under_them() {
    use std::os::unix::process::ExitStatusExt as _;
    if !in_child("limits_are_kept_and_the_supervisor_is_not_under_them") {
        return;
    }
    let before = threads();
    let availability = detect::detect();
    let limits = Limits {
        memory: Some(Bound::At(64 << 20)),
        swap: Some(Bound::At(0)),
        cpu: Some((Bound::At(50_000), 100_000)),
        cpu_weight: Some(50),
        pids: Some(Bound::At(20)),
        // Delegated to root, and to users by a drop-in.
        cpus: availability
            .controllers
            .iter()
            .any(|c| c == "cpuset")
            .then(|| "1".to_owned()),
        ..Limits::default()
    };
    let begin = Instant::now();
    let scope = create(&availability, &limits);
    eprintln!(
        "scope in {:?} with {} D-Bus call(s)",
        begin.elapsed(),
        scope.calls
    );
    assert!(scope.calls <= 2);
    assert_eq!(
        threads(),
        before,
        "no thread of the D-Bus connection is left"
    );
    assert_eq!(detect::own_directory(), Some(scope.supervisor()));
    let shown = |dir: &Path, file: &str| read(&dir.join(file)).trim().to_owned();
    assert_eq!(shown(&scope.container(), "memory.max"), "67108864");
    assert_eq!(shown(&scope.container(), "pids.max"), "20");
    assert_eq!(shown(&scope.container(), "cpu.max"), "50000 100000");
    assert_eq!(shown(&scope.path, "cpu.max"), "50000 100000");
    assert_eq!(shown(&scope.supervisor(), "memory.max"), "max");
    // Memory: the hog dies of the limit, and it is counted.
    assert_eq!(scope.oom_kills(), 0);
    let hog = inside(&scope, "exec python3 -c 'x = bytearray(200 << 20)'");
    assert_eq!(hog.signal(), Some(9), "{hog:?}");
    assert!(scope.oom_kills() >= 1);
    // CPU: half a processor.
    let (begin, used) = (Instant::now(), scope.stats().cpu_usec);
    inside(&scope, "exec timeout 3 sh -c 'while :; do :; done'");
    let share = (scope.stats().cpu_usec - used) as f64 / begin.elapsed().as_micros() as f64;
    eprintln!("a busy loop got {:.0} % of a processor", share * 100.0);
    assert!(share > 0.2 && share < 0.65, "{share}");
    // Processes.
    let forks = inside(
        &scope,
        "i=0; while [ $i -lt 40 ]; do sleep 3 & i=$((i+1)); done 2>/dev/null; wait",
    );
    assert!(!forks.success(), "40 processes under a limit of 20");
    assert!(keyed(&read(&scope.container().join("pids.events")), "max").unwrap_or(0) > 0);
    scope.kill().expect("kill");
    scope.remove();
    assert!(!scope.container().exists());
}

#[test]
fn freeze_and_kill_reach_the_container_alone() {
    use std::os::unix::process::ExitStatusExt as _;
    if !in_child("freeze_and_kill_reach_the_container_alone") {
        return;
    }
    let scope = create(&detect::detect(), &Limits::default());
    let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
    scope
        .add_init(i32::try_from(child.id()).expect("pid"))
        .expect("move");
    assert_eq!(scope.pids(), [i32::try_from(child.id()).expect("pid")]);
    assert_eq!(scope.stats().pids, 1);
    scope.freeze(true).expect("freeze");
    assert!(scope.is_frozen());
    scope.freeze(false).expect("thaw");
    assert!(!scope.is_frozen());
    scope.kill().expect("kill");
    assert_eq!(child.wait().expect("wait").signal(), Some(9));
    scope.open_container().expect("open");
    scope.remove();
    scope.kill().expect("nobody left is no error");
}

#[test]
fn the_bus_serves_where_the_private_socket_does_not() {
    if !in_child("the_bus_serves_where_the_private_socket_does_not") {
        return;
    }
    let mut availability = detect::detect();
    let Rung::Systemd { private, bus } = &mut availability.rung else {
        panic!("no systemd")
    };
    assert!(bus.is_some());
    *private = Some("/nonexistent/private".into());
    let scope = create(&availability, &Limits::default());
    assert_eq!(scope.calls, 2);
    scope.remove();
}

#[test]
fn a_scope_name_in_use_is_another_then() {
    if !in_child("a_scope_name_in_use_is_another_then") {
        return;
    }
    let availability = detect::detect();
    let first = create(&availability, &Limits::default());
    // Somebody stays in it when this process has gone.
    let mut holder = Command::new("sleep").arg("60").spawn().expect("sleep");
    let pid = std::process::id();
    let second = create(&availability, &Limits::default());
    let name = second.path.file_name().map(|n| n.to_string_lossy());
    assert!(
        name.is_some_and(|n| n.ends_with(&format!("-{pid}.scope"))),
        "{second:?}"
    );
    assert_eq!(detect::own_directory(), Some(second.supervisor()));
    // Both are in use now: systemd's words.
    let other = Command::new("sleep").arg("60").spawn();
    let mut other = other.expect("sleep");
    let id = first.path.file_name().expect("name").to_string_lossy();
    let id = id
        .strip_prefix("rless-")
        .and_then(|n| n.strip_suffix(".scope"));
    let limits = Limits::default();
    let request = ScopeRequest {
        id: id.expect("id"),
        description: "again",
        slice: None,
        limits: &limits,
    };
    let text = report(&Scope::create(&availability, &request).expect_err("in use"));
    for child in [&mut holder, &mut other] {
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
    assert!(
        text.contains("UnitExists") && text.contains("asking systemd for the scope"),
        "{text}"
    );
}

#[test]
fn a_delegated_cgroup_takes_a_scope_without_systemd() {
    if !in_child("a_delegated_cgroup_takes_a_scope_without_systemd") {
        return;
    }
    // A scope made by systemd stands for what a batch system hands out.
    let availability = detect::detect();
    let outer = create(&availability, &Limits::default());
    let delegated = Availability {
        rung: Rung::Delegated {
            own: outer.supervisor(),
        },
        controllers: availability.controllers.clone(),
        mount: availability.mount.clone(),
    };
    let limits = Limits {
        pids: Some(Bound::At(7)),
        memory: Some(Bound::At(32 << 20)),
        ..Limits::default()
    };
    let scope = create(&delegated, &limits);
    assert_eq!(read(&scope.container().join("pids.max")).trim(), "7");
    assert_eq!(detect::own_directory(), Some(scope.supervisor()));
    scope.remove();
    assert!(!scope.path.exists(), "the supervisor has stepped back");
    assert!(detect::own_directory().is_some_and(|own| own.starts_with(outer.supervisor())));
}

#[test]
fn what_the_kernel_rounds_still_agrees() {
    assert!(agrees("memory.max", "67108865", "67108864"));
    assert!(!agrees("memory.max", "67108864", "max"));
    assert!(!agrees("memory.max", "1048576", "1310720"));
    assert!(agrees("cpu.max", "50000 100000", "50000 100000"));
    assert!(!agrees("cpu.max", "50000 100000", "max 100000"));
    assert!(agrees("cpuset.cpus", "1,0", "0-1"));
    assert!(!agrees("cpuset.cpus", "0-3", "0-1"));
    assert!(!agrees("pids.max", "20", "21"));
}

#[test]
fn statistics_add_up_over_devices() {
    let text = "8:0 rbytes=10 wbytes=1 rios=1 wios=1 dbytes=9 dios=0\n8:16 rbytes=5 wbytes=2\n";
    assert_eq!(traffic(text), (15, 3));
    assert_eq!(keyed("low 0\noom 2\noom_kill 3\n", "oom_kill"), Some(3));
    assert_eq!(keyed("oom_kill x\n", "oom_kill"), None);
}

#[test]
fn cpu_lists_are_compared_as_sets() {
    assert_eq!(list("0-2,5"), Some(vec![0, 1, 2, 5]));
    assert_eq!(list("2-0"), None);
    assert_eq!(list(""), None);
    assert_eq!(list("0-4294967295"), None);
}

#[test]
fn processors_that_would_not_be_had_are_an_error() {
    // What the kernel would make of it, in files that stand for a cgroup and the one above.
    let above = tempfile::tempdir().expect("dir");
    let leaf = above.path().join("leaf");
    std::fs::create_dir(&leaf).expect("leaf");
    for (file, one, other) in [
        ("cpuset.cpus", "processors", "AllowedCPUs="),
        ("cpuset.mems", "memory nodes", "AllowedMemoryNodes="),
    ] {
        let effective = format!("{file}.effective");
        std::fs::write(leaf.join(file), "").expect(file);
        std::fs::write(above.path().join(&effective), "0,2\n").expect(file);
        let given = |value: &str, has: &str| {
            std::fs::write(leaf.join(&effective), has).expect(file);
            let setting = Setting {
                file: file.to_owned(),
                value: value.to_owned(),
                verbatim: false,
            };
            let mut done = Vec::new();
            let result = set(&leaf, &setting, &mut done);
            assert_eq!(done.len(), 1, "it can be taken back");
            result
        };
        given("0", "0\n").expect("had");
        given("2,0", "0,2\n").expect("had");
        for (value, has) in [("1", "0,2\n"), ("0-2", "0,2\n"), ("0", "\n")] {
            let text = report(&given(value, has).expect_err(value));
            for word in [one, other, "`0,2`", &format!("`{value}`")] {
                assert!(text.contains(word), "{value}: no {word} in {text}");
            }
        }
    }
}
