//! `rless-idmap` and the rungs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getgid, getpid, getuid};
use rless::runtime::idmap::{self, Rung, Userns};
use rless::sys::process::{Cloned, clone3, exit_now};

use crate::Case;
use crate::world::World;

pub(crate) const CASES: &[Case] = &[
    ("every_rung_runs_a_container", rungs),
    ("the_helper_writes_what_is_granted", granted),
    ("the_helper_refuses_what_is_not", refused),
    (
        "the_helper_refuses_processes_that_are_not_the_callers",
        processes,
    ),
    ("the_helper_without_capabilities_says_so", no_capabilities),
];

/// A process in a user namespace of its own, without maps; killed when dropped.
struct Victim(Pid);

impl Victim {
    /// `nested`: in a user namespace within a user namespace.
    fn new(nested: bool) -> Victim {
        let flags = CloneFlags::CLONE_NEWUSER.bits() as u64;
        let (uid, gid) = (getuid(), getgid());
        let (mut ready, mut tell) = std::io::pipe().unwrap();
        match clone3(flags).unwrap() {
            Cloned::Parent { pid, .. } => {
                drop(tell);
                ready.read_exact(&mut [0]).unwrap();
                Victim(pid)
            }
            Cloned::Child => {
                let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                if nested {
                    // Who has no id in a namespace cannot make another.
                    let done = fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
                        .and_then(|()| fs::write("/proc/self/setgroups", "deny"))
                        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {gid} 1")));
                    if done.is_err() || nix::sched::unshare(CloneFlags::CLONE_NEWUSER).is_err() {
                        exit_now(1);
                    }
                }
                let _ = tell.write_all(b".");
                std::thread::sleep(std::time::Duration::from_secs(1000));
                exit_now(0)
            }
        }
    }

    fn file(&self, name: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/{name}", self.0)).unwrap();
        text.lines()
            .map(|l| l.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// The helper beside this program, if it has its capabilities.
fn helper() -> Option<PathBuf> {
    let path = std::env::current_exe()
        .unwrap()
        .with_file_name("rless-idmap");
    if rless::sys::file::has_capabilities(&path) {
        return Some(path);
    }
    println!("SKIP runtime: no helper with capabilities (run as root)");
    None
}

/// Runs the helper: its exit code and what it said.
fn call(helper: &PathBuf, pid: Pid, arguments: &str) -> (i32, String) {
    let output = Command::new(helper)
        .arg(pid.to_string())
        .args(arguments.split_ascii_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap_or(-1), said)
}

/// First id and count of the caller's grant.
fn grant() -> Option<(u32, u32)> {
    let mapping = idmap::plan(&Userns::NoMap, None).ok()?;
    mapping.uids.first().map(|l| (l.host, l.count))
}

fn rungs(world: &World) {
    for (rung, many) in [
        (Rung::Helper, true),
        (Rung::Newuidmap, true),
        (Rung::SingleId, false),
    ] {
        let mapping = match idmap::plan(&Userns::Default, Some(rung)) {
            Ok(mapping) => mapping,
            Err(e) => {
                println!("SKIP runtime::every_rung_runs_a_container: {e:#}");
                continue;
            }
        };
        let (uids, gids) = (mapping.uids.len(), mapping.gids.len());
        assert_eq!(many, uids > 1);
        let ran = world.run_in(
            &world.root,
            &["sh", "-c", "wc -l </proc/self/uid_map; wc -l </proc/self/gid_map; cat /proc/self/setgroups; id -u"],
            |_| {},
            |p| p.mapping = mapping,
        );
        let groups = if many { "allow" } else { "deny" };
        assert_eq!(
            ran.out,
            format!("{uids}\n{gids}\n{groups}\n0\n"),
            "{rung:?} {}",
            ran.report
        );
    }
    let automatic = idmap::plan(&Userns::Default, None).unwrap();
    assert!(!automatic.reason.is_empty());
    let direct = idmap::plan(&Userns::Default, Some(Rung::Direct));
    assert!(direct.is_err(), "an ordinary user cannot write maps");
}

fn granted(_: &World) {
    let (Some(helper), Some((first, count))) = (helper(), grant()) else {
        return;
    };
    let (uid, gid) = (getuid(), getgid());
    let victim = Victim::new(false);
    let all = format!("uid 0 {uid} 1 1 {first} {count} gid 0 {gid} 1 1 {first} {count}");
    assert_eq!(call(&helper, victim.0, &all), (0, String::new()));
    assert_eq!(
        victim.file("uid_map"),
        format!("0 {uid} 1\n1 {first} {count}")
    );
    assert_eq!(
        victim.file("gid_map"),
        format!("0 {gid} 1\n1 {first} {count}")
    );
    assert_eq!(victim.file("setgroups"), "allow");
    // Once is enough.
    let (code, said) = call(&helper, victim.0, &all);
    assert!(
        code == 1 && said.contains("uid_map is written already"),
        "{said}"
    );
    // One's own gid alone gives no right to drop groups.
    let victim = Victim::new(false);
    assert_eq!(
        call(&helper, victim.0, &format!("uid 5 {uid} 1 gid 7 {gid} 1")).0,
        0
    );
    assert_eq!(victim.file("uid_map"), format!("5 {uid} 1"));
    assert_eq!(victim.file("gid_map"), format!("7 {gid} 1"));
    assert_eq!(victim.file("setgroups"), "deny");
}

fn refused(_: &World) {
    let (Some(helper), Some((first, count))) = (helper(), grant()) else {
        return;
    };
    let (uid, end) = (getuid().as_raw(), first + count);
    let fine = format!("gid 0 {first} 1");
    let many = (0..341)
        .map(|n| format!("{n} {} 1", first + n))
        .collect::<Vec<_>>()
        .join(" ");
    let victim = Victim::new(false);
    for (uids, code, says) in [
        ("0 0 1".to_owned(), 1, "host id 0 is never mapped"),
        ("0 0 4294967295".to_owned(), 1, "host id 0 is never mapped"),
        (format!("0 {first} 0"), 1, "the count is 0"),
        (
            format!("0 {} 1", first - 1),
            1,
            "no line of /etc/subuid grants",
        ),
        (
            format!("0 {first} {}", count + 1),
            1,
            "no line of /etc/subuid grants",
        ),
        (format!("0 {end} 1"), 1, "no line of /etc/subuid grants"),
        (
            format!("0 {} 2", end - 1),
            1,
            "no line of /etc/subuid grants",
        ),
        (
            format!("0 {} 1", uid + 1),
            1,
            "no line of /etc/subuid grants",
        ),
        (format!("0 {uid} 2"), 1, "no line of /etc/subuid grants"),
        (format!("0 {first} 2 1 {} 2", first + 2), 1, "overlaps"),
        (format!("0 {first} 2 2 {} 2", first + 1), 1, "overlaps"),
        (format!("0 {uid} 1 1 {uid} 1"), 1, "overlaps"),
        (format!("4294967295 {first} 1"), 1, "below 4294967295"),
        (format!("4294967294 {first} 2"), 1, "below 4294967295"),
        ("0 4294967295 1".to_owned(), 1, "below 4294967295"),
        (format!("0 {first} 4294967295"), 1, "below 4294967295"),
        (
            format!("0 {} 1", 4_294_967_296 + u64::from(first)),
            2,
            "not a number below 2^32",
        ),
        (
            format!("0 {} 1", u128::from(u64::MAX) + 1 + u128::from(first)),
            2,
            "not a number below 2^32",
        ),
        (format!("-1 {first} 1"), 2, "not a number"),
        (format!("+1 {first} 1"), 2, "not a number"),
        (format!("0x0 {first} 1"), 2, "not a number"),
        (format!("0 {first}"), 2, "triples"),
        (String::new(), 2, "triples"),
        (many, 2, "1 to 340 triples"),
    ] {
        let (got, said) = call(&helper, victim.0, &format!("uid {uids} {fine}"));
        assert!(got == code && said.contains(says), "{uids}: {got} {said}");
        assert!(said.starts_with("rless-idmap: "));
    }
    for (arguments, code, says) in [
        (format!("uid 0 {first} 1"), 2, "expected `uid` and `gid`"),
        (
            format!("gid 0 {first} 1 uid 0 {first} 1"),
            2,
            "expected `uid` and `gid`",
        ),
        (format!("uid 0 {first} 1 gid"), 2, "triples"),
        (format!("uid 0 {first} 1 gid 0 0 1"), 1, "host id 0"),
        (format!("uid 0 {first} 1 gid 0 {end} 1"), 1, "/etc/subgid"),
    ] {
        let (got, said) = call(&helper, victim.0, &arguments);
        assert!(
            got == code && said.contains(says),
            "{arguments}: {got} {said}"
        );
    }
    assert_eq!(
        (victim.file("uid_map"), victim.file("gid_map")),
        (String::new(), String::new())
    );
    assert_eq!(victim.file("setgroups"), "allow");
}

fn processes(_: &World) {
    let (Some(helper), Some((first, _))) = (helper(), grant()) else {
        return;
    };
    let maps = format!("uid 0 {first} 1 gid 0 {first} 1");
    let ended = {
        let victim = Victim::new(false);
        victim.0
    };
    let nested = Victim::new(true);
    for (pid, says) in [
        (Pid::from_raw(1), "the process is of"),
        (getpid(), "no user namespace of its own"),
        (ended, "opening /proc/"),
        (nested.0, "no child of the caller's"),
        (Pid::from_raw(0), "opening /proc/0"),
    ] {
        let (code, said) = call(&helper, pid, &maps);
        assert!(code == 1 && said.contains(says), "{pid}: {code} {said}");
    }
    let (code, said) = call(&helper, Pid::from_raw(-1), &maps);
    assert!(code == 2, "{said}");
    assert_eq!(nested.file("uid_map"), "");
}

fn no_capabilities(world: &World) {
    let (Some(helper), Some((first, _))) = (helper(), grant()) else {
        return;
    };
    // A copy loses them.
    let copy = world.dir.path().join("rless-idmap");
    fs::copy(&helper, &copy).unwrap();
    let victim = Victim::new(false);
    let (code, said) = call(&copy, victim.0, &format!("uid 0 {first} 1 gid 0 {first} 1"));
    assert!(
        code == 1 && said.contains("setcap cap_setuid,cap_setgid=ep"),
        "{said}"
    );
    assert_eq!(victim.file("uid_map"), "");
}
