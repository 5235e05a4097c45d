//! What needs systemd, cgroup v2 and a login user: run inside the Debian 13 virtual machine.
//!
//! The machine is booted once, with the Debian package built from this tree; `tests/vm/guest` and `tests/vm/limits`
//! print a line `VM ok NAME` or `VM FAILED NAME: why` for each case, and each test here asserts its own. `VM skipped NAME:
//! why` is said where the machine is too slow to show it, and is a skip here.

use std::process::Command;
use std::sync::OnceLock;

use crate::harness::{World, skip, world};

/// What the guest printed; the machine boots when the first test asks.
fn transcript(world: &World) -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
        let package = world.base.join("package");
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let mut command = Command::new(program);
            command.args(args).env("TMPDIR", &world.base);
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (text, String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let build = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/build-deb");
        let (_, said) = run(build, &["--debug".as_ref(), package.as_os_str()]);
        let Some(deb) = std::fs::read_dir(&package).ok().and_then(|mut d| d.next()) else {
            return format!("no package was built: {said}");
        };
        let image = world.images.join("busybox.oci");
        let (out, err) = run(
            &format!("{tests}/vm/run"),
            &[
                "-t".as_ref(),
                // Of a hang: 600 s here, and the machine may be ten times as slow.
                "7200".as_ref(),
                "-d".as_ref(),
                "600".as_ref(),
                format!("{tests}/vm/guest").as_ref(),
                format!("{tests}/vm/limits").as_ref(),
                deb.unwrap().path().as_os_str(),
                image.as_os_str(),
            ],
        );
        format!("{out}\n{err}")
    })
}

fn assert_case(name: &str) {
    let world = world!();
    if std::env::var_os("RLESS_TEST_VM").is_none() {
        skip!("tests/run --quick boots no virtual machine");
    }
    if !world.root {
        skip!("needs root to make the virtual machine's disk");
    }
    let text = transcript(world);
    let ok = format!("VM ok {name}");
    let skipped = format!("VM skipped {name}: ");
    if let Some(why) = text.lines().find_map(|line| line.strip_prefix(&skipped)) {
        skip!("{why}");
    }
    assert!(
        text.lines().any(|line| line.trim_end() == ok),
        "no `{ok}`:\n{text}"
    );
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => { $(#[test] fn $name() { assert_case(stringify!($name)); })* };
}

cases! {
    package_installs_with_capabilities_and_pages,
    a_login_user_runs_a_container,
    nothing_of_the_host_is_upon_the_root,
    memory_limit_kills_with_137_and_says_out_of_memory,
    half_a_cpu_halves_a_busy_loop,
    pids_limit_holds,
    limits_are_shown_inside,
    pause_really_stops_and_resumes,
    a_killed_commit_leaves_nothing_paused,
    a_restart_policy_keeps_its_scope,
    a_scope_that_is_still_held_stops_no_start,
    scope_is_gone_after_the_container,
    limits_without_a_session_are_an_error_with_the_fix,
    two_dbus_calls_a_start,
    a_limit_without_its_controller_prints_the_drop_in,
    detached_without_linger_warns_with_the_command,
    a_logout_leaves_lingering_containers_alone,
    a_logout_without_linger_is_told_truthfully,
    an_oom_kill_is_reported,
    memory_and_swap_hold_and_are_updated,
    memory_high_slows_and_does_not_kill,
    an_update_that_fails_changes_nothing,
    memory_reservation_keeps_memory,
    cpu_quota_holds_and_is_updated,
    cpu_shares_hold_and_are_updated,
    cpuset_holds_and_is_updated,
    pids_limit_is_updated,
    a_container_with_all_its_processes_is_ended,
    write_bytes_are_bounded_through_root_and_volume,
    read_bytes_are_bounded_through_root_and_volume,
    writes_are_bounded_through_root_and_volume,
    reads_are_bounded_through_root_and_volume,
    io_bounds_are_kept_by_run_and_over_reloads,
    blkio_weight_shares_a_disk_through_a_volume,
    blkio_weight_shares_a_disk_through_the_root,
    stats_agree_with_the_cgroup_files,
    exec_is_in_the_containers_leaf,
    pid_host_leaves_nothing_behind,
    journald_takes_logs_and_gives_them_back,
    a_processor_that_is_not_to_be_had_is_an_error,
    package_removes_cleanly,
}
