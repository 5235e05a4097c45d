//! What others were hit by (THREATS section 1), as far as the runtime is concerned.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rless::sys::process::{Cloned, clone3, exit_now};
use serde_json::{Value, json};

use crate::Case;
use crate::world::{Ran, World};

pub(crate) const CASES: &[Case] = &[
    (
        "leaked_descriptors_do_not_reach_the_container",
        leaked_descriptors,
    ),
    (
        "a_working_directory_through_proc_is_refused",
        workdir_through_proc,
    ),
    (
        "links_at_proc_sys_dev_stop_the_start",
        links_at_special_places,
    ),
    ("volumes_on_and_in_proc_stop_the_start", volumes_in_proc),
    (
        "a_working_directory_behind_a_link_stays_inside",
        workdir_behind_link,
    ),
    ("the_runtimes_binary_is_never_executed_inside", own_binary),
    (
        "masks_hold_whatever_dev_null_the_image_has",
        null_of_the_image,
    ),
    ("the_hosts_root_files_cannot_be_written", host_root),
    ("namespaces_and_mounts_cannot_be_made_inside", nested),
    (
        "targets_exchanged_during_starts_stay_inside",
        exchanged_targets,
    ),
    (
        "no_controlling_terminal_without_a_terminal",
        controlling_terminal,
    ),
    ("sysctl_names_do_not_leave_proc_sys", sysctl_paths),
];

/// What must not change on the host.
struct Canary {
    dir: std::path::PathBuf,
    before: String,
}

impl Canary {
    fn new(world: &World, name: &str) -> Canary {
        let dir = world.dir.path().join(format!("canary-{name}"));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("file"), "canary\n").unwrap();
        let before = state(&dir);
        Canary { dir, before }
    }

    fn assert_untouched(&self) {
        assert_eq!(state(&self.dir), self.before);
    }
}

/// Names, modes, owners, times and contents below a directory.
fn state(dir: &Path) -> String {
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() {
            fs::read_to_string(&path).unwrap()
        } else {
            String::new()
        };
        all.push(format!(
            "{} {:o} {}:{} {}.{} {content:?}",
            path.display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        ));
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    all.sort();
    all.join("\n")
}

fn refused(ran: &Ran, says: &str) {
    refused_with(125, ran, says);
}

fn refused_with(code: i32, ran: &Ran, says: &str) {
    assert!(
        ran.code == code && ran.report.contains(says),
        "{says}: {ran:?}"
    );
}

fn leaked_descriptors(world: &World) {
    // 9 and 50 on the host's root, open across exec.
    let slash = fs::File::open("/").unwrap();
    let leaks: Vec<_> = [9, 50]
        .iter()
        .map(|n| nix::fcntl::fcntl(&slash, nix::fcntl::FcntlArg::F_DUPFD(*n)).unwrap())
        .collect();
    for init in [false, true] {
        let script = "ls /proc/self/fd; ls /proc/self/cwd/ | grep -c srv; true";
        let ran = world.run_in(
            &world.root,
            &["sh", "-c", script],
            |_| {},
            |p| p.init = init,
        );
        assert_eq!(ran.out, "0\n1\n2\n3\n0\n", "{}", ran.report);
    }
    let script = "ls /proc/1/fd 2>/dev/null || echo closed";
    let ran = world.run_in(
        &world.root,
        &["sh", "-c", script],
        |_| {},
        |p| p.init = true,
    );
    assert_eq!(ran.out, "closed\n", "{}", ran.report);
    for leak in leaks {
        nix::unistd::close(leak).unwrap();
    }
}

fn workdir_through_proc(world: &World) {
    for fd in 3..64 {
        for path in [
            format!("/proc/self/fd/{fd}"),
            format!("/proc/1/fd/{fd}/../.."),
        ] {
            let ran = world.run(&["ls"], |c| c["process"]["cwd"] = json!(path));
            refused_with(126, &ran, "working directory");
        }
    }
    for path in ["/proc/self/root", "/proc/self/cwd", "relative"] {
        let ran = world.run(&["ls"], |c| c["process"]["cwd"] = json!(path));
        refused_with(126, &ran, "working directory");
    }
}

fn links_at_special_places(world: &World) {
    for (place, target) in [
        ("proc", "canary"),
        ("sys", "canary"),
        ("dev", "canary"),
        ("proc", "etc"),
        ("sys", "/tmp"),
        ("dev", "proc/self/root/dev"),
    ] {
        let canary = Canary::new(world, "links");
        let root = world.fresh_root("links");
        let target = if target == "canary" {
            canary.dir.clone()
        } else {
            target.into()
        };
        symlink(target, root.join(place)).unwrap();
        for terminal in [false, true] {
            let ran = world.run_in(
                &root,
                &["true"],
                |_| {},
                |p| {
                    if terminal {
                        p.terminal = Some(rless::sys::tty::WindowSize {
                            rows: 24,
                            columns: 80,
                        });
                    }
                },
            );
            refused(&ran, "is or lies behind a symlink: refused");
        }
        canary.assert_untouched();
    }
    // A file there is no directory either.
    let root = world.fresh_root("links");
    fs::write(root.join("proc"), "").unwrap();
    refused(
        &world.run_in(&root, &["true"], |_| {}, |_| {}),
        "is not a directory",
    );
}

fn add(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn volumes_in_proc(world: &World) {
    let canary = Canary::new(world, "volumes");
    let root = world.fresh_root("volumes");
    symlink("proc", root.join("p")).unwrap();
    symlink("/proc/self/task", root.join("t")).unwrap();
    for (destination, says) in [
        ("/proc", "nothing but the system's own"),
        ("/x/../proc/", "nothing but the system's own"),
        ("/sys", "nothing but the system's own"),
        ("/proc/sys", "inside /proc"),
        ("/p/sys/kernel", "inside /proc"),
        ("/t", "inside /proc"),
        ("/p", "inside /proc"),
    ] {
        let ran = world.run_in(
            &root,
            &["true"],
            |c| add(c, json!({"destination": destination, "type": "bind", "source": canary.dir, "options": ["rbind"]})),
            |_| {},
        );
        refused(&ran, says);
        let ran = world.run_in(
            &root,
            &["true"],
            |c| {
                add(
                    c,
                    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}),
                )
            },
            |_| {},
        );
        assert_eq!(ran.code, 125, "tmpfs on {destination}: {ran:?}");
    }
    canary.assert_untouched();
    // What lxcfs does is allowed.
    let ran = world.run_in(
        &root,
        &["cat", "/proc/uptime"],
        |c| add(c, json!({"destination": "/proc/uptime", "type": "bind", "source": canary.dir.join("file"), "options": ["bind"]})),
        |_| {},
    );
    assert_eq!(ran.out, "canary\n", "{}", ran.report);
}

fn workdir_behind_link(world: &World) {
    let canary = Canary::new(world, "workdir");
    let root = world.fresh_root("workdir");
    symlink(&canary.dir, root.join("link")).unwrap();
    symlink("../../../../../../../../..", root.join("up")).unwrap();
    let outside = canary.dir.strip_prefix("/").unwrap();
    for cwd in ["/link/made", &format!("/up/{}/made", outside.display())] {
        let ran = world.run_in(
            &root,
            &["pwd"],
            |c| c["process"]["cwd"] = json!(cwd),
            |_| {},
        );
        assert_eq!(
            ran.out,
            format!("{}/made\n", canary.dir.display()),
            "{cwd}: {}",
            ran.report
        );
        assert!(root.join(outside).join("made").is_dir());
    }
    canary.assert_untouched();
}

fn own_binary(world: &World) {
    let root = world.fresh_root("own");
    let script = |name: &str, text: &str| {
        fs::write(root.join(name), text).unwrap();
        fs::set_permissions(
            root.join(name),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
    };
    script("one", "#!/proc/self/exe\n");
    script("two", "#! /one x\n");
    symlink("/proc/self/exe", root.join("three")).unwrap();
    for command in [
        "/proc/self/exe",
        "/proc/1/exe",
        "/proc/thread-self/exe",
        "/one",
        "/two",
        "/three",
    ] {
        let ran = world.run_in(&root, &[command], |_| {}, |_| {});
        assert!(
            ran.code == 126 && ran.report.contains("refused"),
            "{command}: {ran:?}"
        );
    }
}

fn null_of_the_image(world: &World) {
    let root = world.fresh_root("null");
    fs::create_dir(root.join("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", root.join("dev/null")).unwrap();
    for own_dev in [true, false] {
        let ran = world.run_in(
            &root,
            &["sh", "-c", "stat -c %t:%T /proc/keys /proc/interrupts; cat /proc/keys /proc/interrupts | wc -c"],
            |c| {
                if !own_dev {
                    c["mounts"].as_array_mut().unwrap().retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
                }
            },
            |_| {},
        );
        assert_eq!(ran.out, "1:3\n1:3\n0\n", "{}", ran.report);
    }
}

fn host_root(world: &World) {
    let ran = world.run(
        &["sh", "-c", "for f in /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness /proc/sysrq-trigger /sys/kernel/mm/ksm/run; do (echo 1 >$f) 2>/dev/null && echo wrote $f; done; echo done"],
        |c| {
            c["linux"]["readonlyPaths"] = json!([]);
            c["linux"]["maskedPaths"] = json!([]);
            c["mounts"][5]["options"] = json!(["nosuid"]);
        },
    );
    assert_eq!(ran.out, "done\n", "{}", ran.report);
}

fn nested(world: &World) {
    let ran = world.sh("mkdir /tmp/n 2>/dev/null; unshare -U true 2>/dev/null && echo user; unshare -m true 2>/dev/null && echo mnt; mount -t tmpfs x /tmp/n 2>/dev/null && echo tmpfs; mount -t cgroup -o memory x /tmp/n 2>/dev/null && echo cgroup; umount /proc/keys 2>/dev/null && echo unmasked; mount -o remount,rw /sys 2>/dev/null && echo remount; echo done");
    assert_eq!(ran.out, "done\n", "{}", ran.report);
    // Without the filter the kernel itself refuses.
    let ran = world.run(
        &["sh", "-c", "mount -t cgroup -o memory x /tmp 2>/dev/null && echo cgroup; umount /proc/keys 2>/dev/null && echo unmasked; echo done"],
        |c| c["linux"]["seccomp"] = Value::Null,
    );
    assert_eq!(ran.out, "done\n", "{}", ran.report);
}

/// A peer exchanges a directory and a link to the canary in a shared volume while containers
/// start whose mounts lie in that volume.
fn exchanged_targets(world: &World) {
    let canary = Canary::new(world, "race");
    let volume = world.dir.path().join("race-volume");
    fs::create_dir_all(volume.join("a/b")).unwrap();
    symlink(&canary.dir, volume.join("l")).unwrap();
    let Ok(Cloned::Parent { pid, .. }) = clone3(0).map(|c| match c {
        Cloned::Child => {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
            let at = fs::File::open(&volume).unwrap();
            loop {
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                if nix::fcntl::renameat2(at.as_fd(), "a", at.as_fd(), "l", flags).is_err() {
                    exit_now(1);
                }
            }
        }
        parent => parent,
    }) else {
        panic!("no peer");
    };
    let starts = std::env::var("RLESS_RT_STARTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(150);
    let mut refused = 0;
    for n in 0..starts {
        let ran = world.run(&["true"], |c| {
            add(c, json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind"]}));
            add(c, json!({"destination": "/v/a/b", "type": "tmpfs", "source": "tmpfs"}));
            add(c, json!({"destination": format!("/v/a/new{n}"), "type": "bind", "source": canary.dir.join("file"), "options": ["bind", "ro"]}));
        });
        refused += u32::from(ran.code != 0);
    }
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(pid, None).unwrap();
    canary.assert_untouched();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("race-volume") && !mounts.contains("canary-race"));
    println!("{starts} starts, {refused} of them refused");
    assert!(refused < starts, "no start got through");
}

fn controlling_terminal(world: &World) {
    let ran = world.sh("cat /dev/tty 2>&1; tty; cut -d' ' -f7 /proc/self/stat");
    assert!(
        ran.out.contains("No such device")
            && ran.out.contains("not a tty")
            && ran.out.ends_with("\n0\n"),
        "{ran:?}"
    );
}

fn sysctl_paths(world: &World) {
    for name in [
        "net/../kernel/panic",
        "net./../../../etc/x",
        "net/ipv4/../../../self/comm",
        "net.ipv4",
    ] {
        let ran = world.run(&["true"], |c| c["linux"]["sysctl"] = json!({name: "1"}));
        assert_eq!(ran.code, 125, "{name}: {ran:?}");
    }
}
