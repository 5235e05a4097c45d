//! The container's mounts: the kernel file systems every container has, files made for it, and
//! what the user asked for, in the order in which they are mounted.
//!
//! What the user asked for has the flags of podman's mounts with one exception. `nosuid` and `nodev` are on volumes and
//! tmpfs unless `suid` and `dev` take them away. A path of the host has the flags that it has there: its devices are the
//! caller's to open in here as out there, by the same rights, since only the kernel's own ids count. The exception: `nosuid` is on it,
//! too, so that no setuid file that happens to lie there (the caller's own are container root's) makes a container's user its root;
//! `suid` takes that away. Neither ever gives more than the caller has on the host: whose id is not mapped
//! is nobody's setuid, and flags that a path has on the host stay.

use std::path::PathBuf;

use oci_spec::runtime::Mount;
use serde::{Deserialize, Serialize};

use crate::container::mounts::Source;
use crate::container::volumes::STATE;
use crate::error::{Result, usage};
use crate::runtime::rootfs::VOLUME_OPTION;

/// Size of `/dev/shm` when none is asked for.
pub const SHM_SIZE: u64 = 64 << 20;

/// A user's mount with its source on the host found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Absolute path inside.
    pub target: String,
    /// Host path; `None` for a tmpfs.
    pub source: Option<PathBuf>,
    /// Options of the runtime spec.
    pub options: Vec<String>,
    /// Fill it first with what the image has at `target`.
    pub copy_up: bool,
    /// Name of the volume it is.
    pub volume: Option<String>,
    /// The volume was made for this container only.
    pub anonymous: bool,
}

/// Shared memory and message queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipc {
    /// The IPC namespace's, or what another container has.
    Own,
    /// No /dev/shm.
    NoShm,
    /// The host's.
    Host {
        /// It has /dev/mqueue.
        queues: bool,
    },
}

/// What decides about the default mounts.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// `/dev/shm`, bytes.
    pub shm_size: u64,
    /// The network namespace is the container's own: a fresh sysfs may be mounted.
    pub own_network: bool,
    /// The PID namespace is not the host's.
    pub own_processes: bool,
    /// Shared memory and message queues.
    pub ipc: Ipc,
    /// Group 5 (tty) is mapped.
    pub tty_group: bool,
    /// Nothing is read-only under `/sys`.
    pub privileged: bool,
    /// `--read-only` with tmpfs on /run, /tmp and /var/tmp.
    pub writable_tmp: bool,
}

/// Every mount in order. `files` are (target, source) pairs of files made for this container.
///
/// # Errors
/// Two mounts on one target.
pub fn all(defaults: Defaults, files: &[(&str, PathBuf)], user: &[Resolved]) -> Result<Vec<Mount>> {
    let mut sorted: Vec<&Resolved> = user.iter().collect();
    sorted.sort_by_key(|m| m.target.matches('/').count());
    for (i, mount) in sorted.iter().enumerate() {
        if sorted[..i].iter().any(|m| m.target == mount.target) {
            return Err(usage(format!("{}: duplicate mount destination", mount.target)).into());
        }
    }
    let taken = |target: &str| sorted.iter().any(|m| m.target == target);
    let mut mounts: Vec<Mount> = kernel_mounts(defaults)
        .into_iter()
        .filter(|m| !m.destination().to_str().is_some_and(taken))
        .collect();
    if defaults.writable_tmp {
        for target in ["/run", "/tmp", "/var/tmp"]
            .into_iter()
            .filter(|t| !taken(t))
        {
            let options = ["rw", "nosuid", "nodev", "mode=1777", "tmpcopyup"];
            mounts.push(make(target, "tmpfs", "tmpfs", &options));
        }
    }
    let files = files.iter().filter(|(target, _)| !taken(target));
    let file = |(target, source): &(&str, PathBuf)| {
        let mut mount = make(target, "bind", "", &["bind", "rprivate", "nosuid", "nodev"]);
        mount.set_source(Some(source.clone()));
        mount
    };
    // Files go below a user's mount of their directory (`-v conf:/etc`), as podman has them: on top.
    let (above, below): (Vec<&Resolved>, Vec<&Resolved>) = sorted
        .iter()
        .partition(|m| ["/etc", "/run"].contains(&m.target.as_str()));
    mounts.extend(above.into_iter().map(first_mount));
    mounts.extend(files.map(file));
    mounts.extend(below.into_iter().map(first_mount));
    Ok(mounts)
}

/// As [`user_mount`]; a volume gets its first content and its owner.
fn first_mount(mount: &Resolved) -> Mount {
    let mut made = user_mount(mount);
    if let (Some(_), Some(content)) = (&mount.volume, &mount.source) {
        let state = content.with_file_name(STATE);
        let mut options = made.options().clone().unwrap_or_default();
        options.push(format!("{VOLUME_OPTION}{}", state.display()));
        made.set_options(Some(options));
    }
    made
}

/// A mount as the runtime takes it.
#[must_use]
pub fn user_mount(mount: &Resolved) -> Mount {
    let (typ, mut options): (_, Vec<&str>) = match mount.source {
        Some(_) => ("bind", Vec::new()),
        None => ("tmpfs", Vec::new()),
    };
    let given = |names: &[&str]| mount.options.iter().any(|o| names.contains(&o.as_str()));
    if mount.source.is_some() && !given(&["bind", "rbind"]) {
        options.push("rbind");
    }
    if !given(&[
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "unbindable",
        "runbindable",
    ]) {
        options.push("rprivate");
    }
    if !given(&["suid", "nosuid"]) {
        options.push("nosuid");
    }
    let of_host = mount.source.is_some() && mount.volume.is_none();
    if !of_host && !given(&["dev", "nodev"]) {
        options.push("nodev");
    }
    if mount.copy_up && (mount.source.is_none() || mount.volume.is_some()) {
        options.push("tmpcopyup");
    }
    options.extend(mount.options.iter().map(String::as_str));
    let mut made = make(&mount.target, typ, "tmpfs", &options);
    if let Some(source) = &mount.source {
        made.set_source(Some(source.clone()));
    }
    made
}

fn kernel_mounts(defaults: Defaults) -> Vec<Mount> {
    let shm = format!("size={}", defaults.shm_size);
    let mut pts = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    if defaults.tty_group {
        pts.push("gid=5");
    }
    let ro = if defaults.privileged { "rw" } else { "ro" };
    let sys = ["nosuid", "noexec", "nodev", ro];
    // A fresh sysfs shows the network namespace of who mounts it and is refused in one we do not own.
    let sysfs = if defaults.own_network {
        make("/sys", "sysfs", "sysfs", &sys)
    } else {
        make(
            "/sys",
            "bind",
            "/sys",
            &["rbind", "rprivate", sys[0], sys[1], sys[2], ro],
        )
    };
    let quiet = ["nosuid", "noexec", "nodev"];
    let of_host = |path| {
        let words = ["bind", "rprivate", quiet[0], quiet[1], quiet[2]];
        make(path, "bind", path, &words)
    };
    let (queues, memory) = match defaults.ipc {
        Ipc::Host { queues } => (
            queues.then(|| of_host("/dev/mqueue")),
            Some(of_host("/dev/shm")),
        ),
        own => {
            let words = [quiet[0], quiet[1], quiet[2], "mode=1777", &shm];
            (
                Some(make("/dev/mqueue", "mqueue", "mqueue", &quiet)),
                (own == Ipc::Own).then(|| make("/dev/shm", "tmpfs", "shm", &words)),
            )
        }
    };
    let mut all = vec![
        if defaults.own_processes {
            make("/proc", "proc", "proc", &quiet)
        } else {
            let words = ["rbind", "rprivate", quiet[0], quiet[1], quiet[2]];
            make("/proc", "bind", "/proc", &words)
        },
        make(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"],
        ),
        sysfs,
        make("/dev/pts", "devpts", "devpts", &pts),
    ];
    all.extend(queues);
    all.extend(memory);
    all.push(make(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &[quiet[0], quiet[1], quiet[2], "relatime", ro],
    ));
    all
}

fn make(target: &str, typ: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(PathBuf::from(target));
    mount.set_typ(Some(typ.to_owned()));
    mount.set_source(Some(PathBuf::from(source)));
    mount.set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

/// Podman's name for a mount's kind, for records.
#[must_use]
pub fn kind(source: &Source) -> &'static str {
    match source {
        Source::Bind(_) => "bind",
        Source::Volume(_) => "volume",
        Source::Tmpfs => "tmpfs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults = Defaults {
        shm_size: SHM_SIZE,
        own_network: true,
        own_processes: true,
        ipc: Ipc::Own,
        tty_group: true,
        privileged: false,
        writable_tmp: false,
    };

    fn bind(target: &str) -> Resolved {
        Resolved {
            target: target.to_owned(),
            source: Some("/h".into()),
            options: vec!["ro".to_owned()],
            copy_up: true,
            volume: None,
            anonymous: false,
        }
    }

    fn targets(mounts: &[Mount]) -> Vec<&str> {
        mounts
            .iter()
            .filter_map(|m| m.destination().to_str())
            .collect()
    }

    #[test]
    fn parents_are_mounted_before_children_and_defaults_give_way() {
        let user = [
            bind("/a/b/c"),
            bind("/a"),
            bind("/dev/shm"),
            bind("/etc"),
            bind("/etc/hosts"),
        ];
        let files = [
            ("/etc/hosts", PathBuf::from("/x")),
            ("/etc/resolv.conf", PathBuf::from("/y")),
        ];
        let mounts = all(DEFAULTS, &files, &user).unwrap();
        assert_eq!(
            targets(&mounts)[5..],
            [
                "/sys/fs/cgroup",
                "/etc",
                "/etc/resolv.conf",
                "/a",
                "/dev/shm",
                "/etc/hosts",
                "/a/b/c"
            ]
        );
        assert_eq!(
            mounts.last().unwrap().options().as_ref().unwrap(),
            &["rbind", "rprivate", "nosuid", "ro"]
        );
    }

    #[test]
    fn what_is_the_hosts_is_bound_and_what_is_not_wanted_is_not_there() {
        let of = |defaults: Defaults, target: &str| {
            let mounts = all(defaults, &[], &[]).unwrap();
            let found = mounts.into_iter().find(|m| m.destination() == target);
            found.map(|m| m.typ().clone().unwrap())
        };
        let host = Defaults {
            ipc: Ipc::Host { queues: false },
            own_processes: false,
            ..DEFAULTS
        };
        for (target, own, hosts) in [
            ("/proc", "proc", Some("bind")),
            ("/dev/shm", "tmpfs", Some("bind")),
            ("/dev/mqueue", "mqueue", None),
        ] {
            assert_eq!(of(DEFAULTS, target).as_deref(), Some(own), "{target}");
            assert_eq!(of(host, target).as_deref(), hosts, "{target}");
        }
        let without = Defaults {
            ipc: Ipc::NoShm,
            ..DEFAULTS
        };
        assert_eq!(of(without, "/dev/shm"), None);
        assert_eq!(of(without, "/dev/mqueue").as_deref(), Some("mqueue"));
    }

    #[test]
    fn two_mounts_on_one_target_are_refused() {
        let e = all(DEFAULTS, &[], &[bind("/a"), bind("/a")]).unwrap_err();
        assert!(e.to_string().contains("/a: duplicate mount destination"));
    }

    #[test]
    fn a_foreign_network_gets_the_hosts_sysfs() {
        let mounts = all(
            Defaults {
                own_network: false,
                ..DEFAULTS
            },
            &[],
            &[],
        )
        .unwrap();
        let sys = mounts
            .iter()
            .find(|m| m.destination().to_str() == Some("/sys"))
            .unwrap();
        assert_eq!(sys.typ().as_deref(), Some("bind"));
        assert!(sys.options().as_ref().unwrap().contains(&"ro".to_owned()));
    }
}
