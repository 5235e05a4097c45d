//! A busybox root and a way to run a command in it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::wait::{WaitStatus, waitpid};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rless::runtime::{self, Plan, Root, idmap, rootfs, seccomp};
use serde_json::{Value, json};

/// Directories of the test run.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) root: PathBuf,
}

/// What a container did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    /// The runtime's report if the command was not executed.
    pub(crate) report: String,
}

impl World {
    pub(crate) fn new() -> Option<World> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|p| is_static(Path::new(p)))?;
        let dir = tempfile::Builder::new()
            .prefix("rless-rt-")
            .tempdir()
            .unwrap();
        let root = dir.path().join("root");
        make_root(&root, busybox);
        Some(World { dir, root })
    }

    /// Another root of the same kind, for a case that spoils it.
    pub(crate) fn fresh_root(&self, name: &str) -> PathBuf {
        let root = self.dir.path().join(name);
        let _ = fs::remove_dir_all(&root);
        make_root(&root, self.root.join("bin/busybox").to_str().unwrap());
        root
    }

    /// Runs a shell command in the default container.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        self.run(&["sh", "-c", script], |_| {})
    }

    /// Runs `args` with the default configuration, changed by `edit`.
    pub(crate) fn run(&self, args: &[&str], edit: impl FnOnce(&mut Value)) -> Ran {
        self.run_in(&self.root, args, edit, |_| {})
    }

    /// The same, elsewhere, with the plan changed too.
    pub(crate) fn run_in(
        &self,
        root: &Path,
        args: &[&str],
        edit: impl FnOnce(&mut Value),
        change: impl FnOnce(&mut Plan),
    ) -> Ran {
        let mut config = config(args);
        edit(&mut config);
        let output = tempfile::tempfile().unwrap();
        let mut plan = plan(config, root, &output);
        change(&mut plan);
        drive(&plan, output)
    }
}

/// The plan for a configuration.
pub(crate) fn plan(config: Value, root: &Path, output: &File) -> Plan {
    let spec: Spec = serde_json::from_value(config).unwrap();
    let copy = || OwnedFd::from(output.try_clone().unwrap());
    Plan {
        spec,
        root: Root::Path(root.to_owned()),
        terminal: None,
        stdio: Some([File::open("/dev/null").unwrap().into(), copy(), copy()]),
        extra_fds: vec![],
        wait_release: false,
        mapping: idmap::plan(&idmap::Userns::Default, None).unwrap(),
        init: false,
        seccomp_cache: None,
        emulate_ids: false,
        within: None,
        shm: None,
    }
}

/// The supervisor's part.
pub(crate) fn drive(plan: &Plan, mut output: File) -> Ran {
    let started = (|| {
        let mut init = runtime::spawn(plan)?;
        let begun = init.begin().and_then(|()| {
            if plan.wait_release {
                init.wait_ready()?;
                init.release()?;
            }
            init.wait_exec()
        });
        anyhow::Ok((init.pid(), begun))
    })();
    let (pid, begun) = match started {
        Ok((pid, begun)) => (Some(pid), begun),
        Err(e) => (None, Err(e)),
    };
    let code = pid.map_or(0, |pid| match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        // A start that was given up has reaped it.
        Err(_) if begun.is_err() => 125,
        other => panic!("{other:?}"),
    });
    let mut out = String::new();
    output.seek(SeekFrom::Start(0)).unwrap();
    output.read_to_string(&mut out).unwrap();
    match begun {
        Ok(()) => Ran {
            code,
            out,
            report: String::new(),
        },
        Err(e) => Ran {
            code: rless::error::kind(&e).exit_code().into(),
            out,
            report: rless::error::report(&e),
        },
    }
}

fn is_static(path: &Path) -> bool {
    // A dynamic program names its loader in the first page.
    fs::read(path).is_ok_and(|bytes| {
        !bytes[..4096.min(bytes.len())]
            .windows(6)
            .any(|w| w == b"ld-lin")
    })
}

fn make_root(root: &Path, busybox: &str) {
    for dir in ["bin", "etc", "tmp", "home"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    for applet in [
        "sh", "id", "cat", "ls", "mount", "stat", "readlink", "echo", "true", "false", "ps",
        "sleep", "kill", "hostname", "touch", "mkdir", "chown", "stty", "tty", "grep", "wc", "env",
        "pwd", "setsid", "ln", "rm", "dd", "sysctl", "umount", "unshare", "su", "df", "test",
        "cut", "head",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

/// The configuration that the engine would make, near enough.
pub(crate) fn config(args: &[&str]) -> Value {
    let caps = runtime::default_capabilities();
    let namespaces: Vec<Value> = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::User,
        LinuxNamespaceType::Cgroup,
    ]
    .iter()
    .map(|t| json!({"type": t}))
    .collect();
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "box",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin:/sbin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1048576, "hard": 1048576}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": rootfs::masked_paths(),
            "readonlyPaths": rootfs::READONLY_PATHS,
            "seccomp": seccomp::default_profile(&caps),
        },
    })
}
