//! What this host allows, for `rless info`: each fact with why it is so and, for a lack, its fix.

use std::fs;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::record::{Containers, State};
use crate::runtime::idmap::{self, IdRange, Rung, Userns};
use crate::store::Store;
use crate::{cgroup, network};

/// One fact.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its name, as a template sees it.
    pub key: String,
    /// What it is.
    pub value: String,
    /// What would make it better.
    pub fix: Option<String>,
}

/// Facts about one subject.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Its facts.
    pub items: Vec<Item>,
}

impl Section {
    fn new(name: &'static str) -> Section {
        Section {
            name,
            items: Vec::new(),
        }
    }

    fn add(&mut self, key: &str, value: impl Into<String>) {
        self.items.push(Item {
            key: key.to_owned(),
            value: value.into(),
            fix: None,
        });
    }

    fn lack(&mut self, key: &str, value: impl Into<String>, fix: &str) {
        self.items.push(Item {
            key: key.to_owned(),
            value: value.into(),
            fix: Some(fix.to_owned()),
        });
    }
}

/// Everything there is to say.
#[must_use]
pub fn gather(store: &Store) -> Vec<Section> {
    vec![
        host(),
        identity(),
        fuse(),
        control_groups(),
        networking(store),
        security(),
        storage(store),
    ]
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn host() -> Section {
    let mut s = Section::new("host");
    let uname = nix::sys::utsname::uname();
    let text = |f: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uname
            .as_ref()
            .map_or(String::new(), |u| f(u).to_string_lossy().into_owned())
    };
    let kernel = text(nix::sys::utsname::UtsName::release);
    if older_than(&kernel, 5, 14) {
        s.lack("kernel", kernel, "rless needs Linux 5.14 or later");
    } else {
        s.add("kernel", kernel);
    }
    s.add("arch", text(nix::sys::utsname::UtsName::machine));
    s.add("hostname", text(nix::sys::utsname::UtsName::nodename));
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    s.add("distribution", name.unwrap_or("unknown").trim_matches('"'));
    s.add(
        "cpus",
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .to_string(),
    );
    s.add("rootless", (!nix::unistd::geteuid().is_root()).to_string());
    s
}

/// Memory of this host, bytes; 0 where it is not told.
#[must_use]
pub fn memory() -> u64 {
    let all = read("/proc/meminfo");
    let line = all.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let number = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

fn older_than(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(a), Some(b)) => (a, b) < (major, minor),
        _ => false,
    }
}

fn identity() -> Section {
    let mut s = Section::new("identity");
    match idmap::plan(&Userns::Default, None) {
        Ok(mapping) => {
            let rung = match mapping.rung {
                Rung::Direct => "direct",
                Rung::Helper => "helper",
                Rung::Newuidmap => "newuidmap",
                Rung::SingleId => "single-id",
            };
            match mapping.rung {
                Rung::SingleId => s.lack("rung", rung, "a line USER:100000:65536 in /etc/subuid and /etc/subgid, and rless-idmap (this package) or the package uidmap"),
                _ => s.add("rung", rung),
            }
            s.add("reason", mapping.reason.clone());
            s.add("uids", ranges(&mapping.uids));
            s.add("gids", ranges(&mapping.gids));
        }
        Err(e) => s.lack("rung", format!("none: {e:#}"), "see the reason"),
    }
    let most = read("/proc/sys/user/max_user_namespaces");
    if most == "0" {
        s.lack(
            "userNamespaces",
            "switched off",
            "sysctl -w user.max_user_namespaces=15000",
        );
    } else if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        s.lack(
            "userNamespaces",
            "switched off",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        );
    } else {
        s.add("userNamespaces", most);
    }
    s
}

fn ranges(list: &[IdRange]) -> String {
    let one = |r: &IdRange| format!("{}:{}:{}", r.container, r.host, r.count);
    list.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn fuse() -> Section {
    let mut s = Section::new("fuse");
    let path = Path::new("/dev/fuse");
    match access(path, AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => s.add("device", "/dev/fuse"),
        Err(nix::errno::Errno::ENOENT) => s.lack(
            "device",
            "/dev/fuse is missing",
            "modprobe fuse; inside a container, pass it in with --device /dev/fuse",
        ),
        Err(e) => s.lack(
            "device",
            format!("/dev/fuse: {e}"),
            "chmod 0666 /dev/fuse (the distribution's default)",
        ),
    }
    s
}

fn control_groups() -> Section {
    let mut s = Section::new("cgroup");
    let found = cgroup::detect();
    if let cgroup::Rung::None { why, hint } = &found.rung {
        s.lack("rung", format!("none: {why}"), hint);
    }
    for (key, value) in found.describe() {
        if !s.items.iter().any(|i| i.key == key) {
            s.add(&key, value);
        }
    }
    s
}

fn networking(store: &Store) -> Section {
    let mut s = Section::new("network");
    for (key, value) in network::host::describe(store.runtime()) {
        s.add(&key, value);
    }
    if let Err(e) = network::find(store.runtime()) {
        s.lack(
            "pasta",
            format!("{e:#}"),
            "install the package passt, or run with --network host or none",
        );
    }
    match access("/dev/net/tun", AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => s.add("tun", "/dev/net/tun"),
        Err(e) => s.lack("tun", format!("/dev/net/tun: {e}"), "modprobe tun"),
    }
    s
}

fn security() -> Section {
    let mut s = Section::new("security");
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    if actions.is_empty() {
        s.lack(
            "seccomp",
            "not in this kernel",
            "a kernel with CONFIG_SECCOMP_FILTER",
        );
    } else {
        s.add("seccomp", actions);
    }
    match read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_str() {
        "1" if apparmor_allows() => s.add("apparmor", "restricts user namespaces; rless has a profile"),
        "1" => s.lack(
            "apparmor",
            "refuses user namespaces to programs without a profile",
            "install the rless package, which has the profile, or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        _ => s.add("apparmor", "does not restrict user namespaces"),
    }
    s.add(
        "selinux",
        if Path::new("/sys/fs/selinux/enforce").exists() {
            "present"
        } else {
            "absent"
        },
    );
    s
}

/// A profile of ours is loaded for this process.
fn apparmor_allows() -> bool {
    let label = read("/proc/self/attr/current");
    !label.is_empty() && !label.starts_with("unconfined")
}

fn storage(store: &Store) -> Section {
    let mut s = Section::new("store");
    s.add("data", store.data().display().to_string());
    s.add("runtime", store.runtime().display().to_string());
    let kind = nix::sys::statfs::statfs(store.data())
        .map_or("unknown".into(), |f| kind_of(f.filesystem_type().0));
    s.add("fileSystem", kind);
    if let Ok(f) = nix::sys::statvfs::statvfs(store.data()) {
        let free = f.blocks_available() * f.fragment_size();
        s.add("freeBytes", free.to_string());
    }
    let records = Containers::of(store).list().unwrap_or_default();
    s.add("containers", records.len().to_string());
    let running = records.iter().filter(|r| r.state == State::Running).count();
    s.add("running", running.to_string());
    s.add("images", store.images().map_or(0, |i| i.len()).to_string());
    s
}

/// Names of statfs(2) magic numbers.
fn kind_of(magic: i64) -> String {
    let name = match magic {
        0xef53 => "ext4",
        0x0102_1994 => "tmpfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0x0bd0_0bd0 => "lustre",
        0x4750_4653 => "gpfs",
        0x2fc1_2fc1 => "zfs",
        0x6573_5546 => "fuse",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        other => return format!("{other:#x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        assert!(older_than("4.18.0-553.el8.x86_64", 5, 14));
        assert!(older_than("5.4.0-1", 5, 14));
        assert!(!older_than("5.14.0", 5, 14));
        assert!(!older_than("6.1", 5, 14));
        assert!(!older_than("strange", 5, 14));
    }
}
