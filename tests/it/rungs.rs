//! The three rungs of identity: the helper, newuidmap, a single id; the same images on each.

use std::time::Duration;

use crate::cow::taken_back;
use crate::harness::{Sandbox, World, skip, world};
use crate::session::Session;

const SLOW: Duration = Duration::from_secs(1800);

/// A sandbox of each rung: its name in `rless info`, and whether it maps a range of ids.
fn helper(world: &World) -> Sandbox {
    Sandbox::shared(world)
}

fn newuidmap(world: &World) -> Sandbox {
    let mut sandbox = Sandbox::shared(world);
    sandbox.without_helper(world);
    sandbox
}

fn single(world: &World) -> Option<Sandbox> {
    let mut sandbox = Sandbox::shared_of(world, world.loner.as_ref()?, "store");
    sandbox.without_helper(world);
    Some(sandbox)
}

/// Alpine and Debian as their users expect them, ranges or not.
fn images_work(sandbox: &Sandbox) {
    let script = "id -u; stat -c %u:%g /etc/passwd /etc/shadow; touch /etc/x && chown 0:0 /etc/x && echo owned";
    let out = sandbox
        .rless(["run", "--rm", "alpine", "sh", "-c", script])
        .ok();
    assert!(
        out.starts_with("0\n0:0\n") && out.ends_with("owned\n"),
        "{out}"
    );
    let out = sandbox
        .rless(["run", "--rm", "debian", "cat", "/etc/debian_version"])
        .ok();
    assert!(out.starts_with("12."), "{out}");
}

#[test]
fn through_the_helper() {
    let world = world!();
    if !world.root {
        skip!("needs root to set the helper's file capabilities");
    }
    let sandbox = helper(world);
    images_work(&sandbox);
    let out = sandbox
        .rless([
            "run",
            "--rm",
            "alpine",
            "sh",
            "-c",
            "wc -l < /proc/self/uid_map; su nobody -s /bin/sh -c id",
        ])
        .ok();
    assert!(out.starts_with("2\n") && out.contains("uid=65534"), "{out}");
    let info = sandbox.rless(["info"]).ok();
    assert!(
        info.contains("helper") || info.contains("rless-idmap"),
        "{info}"
    );
}

#[test]
fn through_newuidmap() {
    let world = world!();
    let sandbox = newuidmap(world);
    images_work(&sandbox);
    let out = sandbox
        .rless(["run", "--rm", "alpine", "wc", "-l", "/proc/self/uid_map"])
        .ok();
    assert!(out.starts_with("2 "), "{out}");
    let info = sandbox.rless(["info"]).ok();
    assert!(info.contains("newuidmap"), "{info}");
}

#[test]
fn with_a_single_id() {
    let world = world!();
    let Some(sandbox) = single(world) else {
        skip!("needs root to run as a user without subuid ranges")
    };
    images_work(&sandbox);
    let out = sandbox
        .rless([
            "run",
            "--rm",
            "alpine",
            "sh",
            "-c",
            "cat /proc/self/uid_map",
        ])
        .ok();
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        ["0", &sandbox.account.uid.to_string(), "1"]
    );
    let info = sandbox.rless(["info"]).ok();
    assert!(info.contains("single"), "{info}");
}

#[test]
fn a_user_with_ranges_can_force_every_rung() {
    let world = world!();
    let mut sandbox = Sandbox::shared(world);
    let lines = |sandbox: &Sandbox| {
        let out = sandbox
            .rless(["run", "--rm", "busybox", "cat", "/proc/self/uid_map"])
            .ok();
        out.lines().count()
    };
    sandbox.set("RLESS_IDMAP", "single");
    assert_eq!(lines(&sandbox), 1);
    sandbox.set("RLESS_IDMAP", "newuidmap");
    assert_eq!(lines(&sandbox), 2);
    if world.root {
        sandbox.set("RLESS_IDMAP", "helper");
        assert_eq!(lines(&sandbox), 2);
    }
    sandbox.set("RLESS_IDMAP", "nonsense");
    sandbox
        .rless(["run", "--rm", "busybox", "true"])
        .exits(125)
        .says(&["RLESS_IDMAP"]);
}

/// The unmodified image and command line install packages that create users and set owners.
fn debian_installs(world: &World, sandbox: &Sandbox) {
    let run = sandbox
        .rless(["run", "--rm", "-i"])
        .args(world.mirror_hosts());
    let mut session = Session::start(&run.args(["debian", "bash"]));
    session.ok(
        "apt-get -o Acquire::Retries=5 update && apt-get -o Acquire::Retries=5 install -y nginx openssh-server",
        SLOW,
    );
    let out = session.ok(
        "nginx -t && id sshd && id www-data && stat -c %G /usr/bin/ssh-agent",
        SLOW,
    );
    assert!(out.contains("test is successful"), "{out}");
    session.end();
}

#[test]
fn packages_install_with_a_single_id() {
    let world = world!();
    let Some(sandbox) = single(world) else {
        skip!("needs root to run as a user without subuid ranges")
    };
    debian_installs(world, &sandbox);
}

#[test]
fn packages_install_through_newuidmap() {
    let world = world!();
    debian_installs(world, &newuidmap(world));
}

#[test]
fn keep_id_keeps_the_callers_ids() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let (uid, gid) = (sandbox.account.uid, sandbox.account.gid);
    let dir = sandbox.dir.join("home/mine");
    sandbox.make_dir(&dir);
    let volume = format!("{}:/mnt", dir.display());
    let run = [
        "run", "--rm", "--userns", "keep-id", "-v", &volume, "alpine",
    ];
    let out = sandbox
        .rless(run)
        .args([
            "sh",
            "-c",
            "id -u; id -g; touch /mnt/f; stat -c %u:%g /mnt/f /etc/alpine-release",
        ])
        .ok();
    assert_eq!(out, format!("{uid}\n{gid}\n{uid}:{gid}\n0:0\n"));
    let run = [
        "run",
        "--rm",
        "--userns",
        "keep-id:uid=123,gid=456",
        "alpine",
        "sh",
        "-c",
        "id -u; id -g",
    ];
    assert_eq!(sandbox.rless(run).ok(), "123\n456\n");
}

/// Whoever does not own a directory needs its access list, which the kernel asks for once: the root too.
#[test]
fn the_access_list_of_the_root_is_asked_for_once() {
    let world = world!();
    let mut sandbox = Sandbox::shared(world);
    let stats = sandbox.dir.join("fuse-stats");
    sandbox.set("RLESS_FUSE_STATS", &stats);
    let script =
        "i=0; while [ $i -lt 200 ]; do [ -r /etc/alpine-release ] || exit 1; i=$((i+1)); done";
    let run = ["run", "--rm", "--network", "none", "--userns", "keep-id"];
    for _ in 0..8 {
        let before = taken_back();
        sandbox.rless(run).args(["alpine", "sh", "-c", script]).ok();
        let undisturbed = taken_back() == before;
        let text = std::fs::read_to_string(&stats).unwrap();
        let count = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            line.map_or(0, |n| n.trim().parse::<u32>().unwrap())
        };
        assert!(count("LOOKUP ") > 0, "no counters in {text}");
        if count("GETXATTR ") < 40 {
            return;
        }
        // A kernel that takes memory back forgets what it was told, and asks anew.
        assert!(!undisturbed, "{text}");
    }
    skip!("the kernel took memory back in the middle of each try");
}
