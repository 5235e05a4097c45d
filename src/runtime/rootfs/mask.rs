//! Paths that are hidden from the container, and paths that it can only read.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use oci_spec::runtime::Spec;

use super::tree::{Tree, file_type};
use super::{dev, linux};
use crate::error::Result;
use crate::sys::mount::{
    self as api, Context as Fs, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
};

/// Hidden by default, as with podman and docker.
pub const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// Only readable by default.
pub const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// [`MASKED_PATHS`] and each CPU's thermal_throttle of this machine: for `linux.maskedPaths`.
#[must_use]
pub fn masked_paths() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = MASKED_PATHS.iter().map(PathBuf::from).collect();
    // Present on all CPUs or on none; no directory means nothing to hide.
    for cpu in 0.. {
        let path = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
        if !path.is_dir() {
            break;
        }
        paths.push(path);
    }
    paths
}

/// Hides `linux.maskedPaths`: a directory below an empty read-only tmpfs, anything else below /dev/null.
pub(super) fn mask(spec: &Spec, tree: Tree<'_>) -> Result<()> {
    let paths = linux(spec, |l| l.masked_paths().as_ref());
    // One empty file system for all directories; the first use attaches it, the others are copies.
    let mut empty: Option<OwnedFd> = None;
    // And one /dev/null for everything else, looked at once.
    let mut null: Option<OwnedFd> = None;
    for path in paths.into_iter().flatten() {
        let path = Path::new(path);
        (|| {
            let Some(target) = existing(tree, path)? else {
                return Ok(());
            };
            let directory = file_type(&target)? == SFlag::S_IFDIR;
            let first = if directory { &mut empty } else { &mut null };
            let cover = match first {
                Some(first) => api::clone_tree(first, Path::new(""), false)?,
                None if directory => empty_directory()?,
                None => dev::host_null()?,
            };
            api::attach(&cover, &target)?;
            first.get_or_insert(cover);
            anyhow::Ok(())
        })()
        .with_context(|| format!("masking {}", path.display()))?;
    }
    Ok(())
}

/// Makes `linux.readonlyPaths` read-only, with what is mounted below.
pub(super) fn read_only(spec: &Spec, tree: Tree<'_>) -> Result<()> {
    let paths = linux(spec, |l| l.readonly_paths().as_ref());
    for path in paths.into_iter().flatten() {
        let path = Path::new(path);
        (|| {
            let Some(target) = existing(tree, path)? else {
                return Ok(());
            };
            let copy = api::clone_tree(&target, Path::new(""), true)?;
            api::set_attributes(&copy, MOUNT_ATTR_RDONLY, 0, 0, true)?;
            api::attach(&copy, &target)?;
            anyhow::Ok(())
        })()
        .with_context(|| format!("making {} read-only", path.display()))?;
    }
    Ok(())
}

/// Opens a path that need not exist; a symlink on the way is followed inside the root.
fn existing(tree: Tree<'_>, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    match tree.open(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

/// An empty, read-only directory.
fn empty_directory() -> std::io::Result<OwnedFd> {
    let fs = Fs::open("tmpfs")?;
    fs.set("source", "tmpfs")?;
    fs.set("size", "4k")?;
    fs.set("nr_inodes", "1")?;
    fs.set("mode", "555")?;
    fs.mount(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
}
