//! Properties of the container's process other than its identity: limits, sysctls, OOM score, labels.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Context;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sched::CloneFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process};

use super::Plan;
use super::namespaces::Namespaces;
use super::rootfs::linux;
use crate::error::{Result, failed, usage};
use crate::sys::mount::Context as Fs;

/// Sysctls of the IPC namespace besides fs.mqueue.*.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Writes `linux.sysctl` through a proc mount of our own, whatever lies on the container's /proc.
pub(super) fn write_sysctls(
    plan: &Plan,
    namespaces: &Namespaces,
    proc: Option<&OwnedFd>,
) -> Result<()> {
    let sysctls = linux(&plan.spec, |l| l.sysctl().as_ref());
    let mut own = None;
    for (name, value) in sysctls.into_iter().flatten() {
        check_sysctl(name, namespaces)?;
        let proc = match (proc, &mut own) {
            (Some(proc), _) => proc,
            (None, Some(own)) => own,
            (None, empty) if namespaces.mounts(CloneFlags::CLONE_NEWPID) => {
                let mount = Fs::open("proc").and_then(|fs| fs.mount(0));
                empty.insert(mount.context("mounting proc to write sysctls")?)
            }
            // The host's, which is still below our root directory: no other can be had in its PID namespace.
            (None, empty) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                let host = open("/proc", flags, Mode::empty());
                empty.insert(host.context("opening /proc to write sysctls")?)
            }
        };
        write_sysctl(proc, name, value)
            .with_context(|| format!("setting sysctl {name}={value}"))?;
    }
    Ok(())
}

/// Writes one sysctl.
fn write_sysctl(proc: &OwnedFd, name: &str, value: &str) -> io::Result<()> {
    // Dots separate unless the name is written with slashes (interface names have dots).
    let relative = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    let how = OpenHow::new()
        .flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_XDEV
                | ResolveFlag::RESOLVE_NO_SYMLINKS,
        );
    let path = PathBuf::from("sys").join(relative);
    let file = openat2(proc, &path, how)?;
    File::from(file).write_all(value.as_bytes())
}

/// Only what belongs to a namespace of the container's own.
fn check_sysctl(name: &str, namespaces: &Namespaces) -> Result<()> {
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(usage(format!("sysctl {name}: not a name")).into());
    }
    let dotted = name.replace('/', ".");
    let (owner, what) = if dotted.starts_with("net.") {
        (CloneFlags::CLONE_NEWNET, "network")
    } else if dotted.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&dotted.as_str()) {
        (CloneFlags::CLONE_NEWIPC, "IPC")
    } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
        (CloneFlags::CLONE_NEWUTS, "UTS")
    } else {
        return Err(usage(format!(
            "sysctl {name} is not of any namespace: it is the whole machine's"
        ))
        .into());
    };
    if !namespaces.owns(owner) {
        return Err(usage(format!(
            "sysctl {name}: the container has no {what} namespace of its own"
        ))
        .into());
    }
    Ok(())
}

/// Sets `process.rlimits`, each clamped to the caller's hard limit.
pub(super) fn set_rlimits(limits: &[PosixRlimit]) -> Result<()> {
    for limit in limits {
        let resource = resource(limit.typ());
        let (_, most) = getrlimit(resource).context("reading resource limits")?;
        let hard = limit.hard().min(most);
        let soft = limit.soft().min(hard);
        setrlimit(resource, soft, hard)
            .with_context(|| format!("setting the limit {:?} to {soft}:{hard}", limit.typ()))?;
    }
    Ok(())
}

/// The kernel's resource of a spec's limit.
fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}

/// Sets `process.oomScoreAdj` through the host's /proc, before any pivot. What the caller may not lower stays.
pub(super) fn set_oom_score(process: &Process) -> Result<()> {
    let Some(wanted) = process.oom_score_adj() else {
        return Ok(());
    };
    let path = "/proc/self/oom_score_adj";
    match fs::write(path, wanted.to_string()) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let now = fs::read_to_string(path).unwrap_or_default();
            let now: i32 = now.trim().parse().unwrap_or(0);
            if wanted < now {
                return Ok(());
            }
            Err(e).with_context(|| format!("setting the OOM score to {wanted}"))
        }
        other => other.with_context(|| format!("setting the OOM score to {wanted}")),
    }
}

/// Sets the AppArmor profile and the SELinux label of the coming exec, through the host's /proc.
pub(super) fn set_labels(process: &Process) -> Result<()> {
    if let Some(profile) = process
        .apparmor_profile()
        .as_deref()
        .filter(|p| !p.is_empty())
    {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.starts_with('Y'));
        if enabled {
            write_label("apparmor/exec", &format!("exec {profile}"))
                .or_else(|_| write_label("exec", &format!("exec {profile}")))
                .with_context(|| format!("setting the AppArmor profile {profile}"))?;
        } else if profile != "unconfined" {
            return Err(failed(format!(
                "AppArmor profile {profile}: AppArmor is not enabled on this machine"
            ))
            .into());
        }
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|l| !l.is_empty()) {
        if !std::path::Path::new("/sys/fs/selinux")
            .join("enforce")
            .exists()
        {
            return Err(failed(format!(
                "SELinux label {label}: SELinux is not enabled on this machine"
            ))
            .into());
        }
        write_label("exec", label).with_context(|| format!("setting the SELinux label {label}"))?;
    }
    Ok(())
}

/// Writes below /proc/self/attr.
fn write_label(name: &str, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/attr/{name}"))?;
    file.write_all(text.as_bytes())
}
