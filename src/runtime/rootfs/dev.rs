//! /dev: the host's devices by bind mount, links, the container's terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, makedev};
use nix::unistd::{Gid, Uid, fchown, symlinkat};
use oci_spec::runtime::LinuxDeviceType;

use super::mounts::Done;
use super::tree::{Kind, Tree};
use super::{Site, linux};
use crate::error::{Result, failed};
use crate::sys::mount as api;
use crate::sys::process::{pty_peer, unlock_pty};
use crate::sys::tty::set_window_size;

/// Devices that every container has: name, major, minor.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Fills /dev if it is ours, adds the spec's devices, and opens the terminal.
pub(super) fn populate(
    site: &Site<'_>,
    tree: Tree<'_>,
    done: &Done,
) -> Result<Option<(OwnedFd, OwnedFd)>> {
    if done.dev {
        let dev = tree.open_plain(Path::new("/dev")).context("opening /dev")?;
        for (name, major, minor) in DEVICES {
            if has_device(&dev, name)? {
                continue; // one that was asked for
            }
            let host = PathBuf::from(format!("/dev/{name}"));
            let source = host_device(&host, SFlag::S_IFCHR, makedev(major, minor))?;
            device(&dev, name, &source)?;
        }
        for (name, target) in LINKS {
            match symlinkat(target, &dev, name) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e).with_context(|| format!("making the link /dev/{name}")),
            }
        }
    }
    let devices = linux(&site.plan.spec, |l| l.devices().as_ref());
    for wanted in devices.into_iter().flatten() {
        let kind = match wanted.typ() {
            LinuxDeviceType::B => SFlag::S_IFBLK,
            LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
            other => {
                return Err(failed(format!(
                    "device {}: type {other:?}",
                    wanted.path().display()
                ))
                .into());
            }
        };
        let path = wanted.path();
        let number = makedev(wanted.major() as u64, wanted.minor() as u64);
        let source = host_device(path, kind, number)?;
        tree.ensure(path, Kind::File, false)
            .map_err(anyhow::Error::new)
            .and_then(|target| Ok(api::attach(source, target)?))
            .with_context(|| format!("adding the device {}", path.display()))?;
    }
    match site.plan.terminal {
        Some(size) => Ok(Some(terminal(site, tree, done, size)?)),
        None => Ok(None),
    }
}

/// A detached bind mount of the host's device, after a look at what it is.
fn host_device(path: &Path, kind: SFlag, number: u64) -> Result<OwnedFd> {
    (|| {
        let copy = api::clone_file_at(path)?;
        let stat = fstat(&copy)?;
        if stat.st_mode & SFlag::S_IFMT.bits() != kind.bits() || stat.st_rdev != number {
            return Err(failed(format!("the host's {} is not that device", path.display())).into());
        }
        anyhow::Ok(copy)
    })()
    .with_context(|| format!("opening the host's device {}", path.display()))
}

/// The host's /dev/null, verified, as a detached mount.
pub(super) fn host_null() -> Result<OwnedFd> {
    host_device(Path::new("/dev/null"), SFlag::S_IFCHR, makedev(1, 3))
}

/// Puts a device upon a new empty file of `dev`.
fn device(dev: &OwnedFd, name: &str, source: &OwnedFd) -> Result<()> {
    place(dev, name)
        .map_err(anyhow::Error::new)
        .and_then(|target| Ok(api::attach(source, target)?))
        .with_context(|| format!("adding the device /dev/{name}"))
}

/// A mount of the spec has put a device there: not looked at by opening it, which may do things.
fn has_device(dev: &OwnedFd, name: &str) -> Result<bool> {
    let kind = match fstatat(dev, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(about) => SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT,
        Err(Errno::ENOENT) => return Ok(false),
        Err(e) => return Err(e).with_context(|| format!("looking at /dev/{name}")),
    };
    Ok(kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK)
}

/// A new empty file in our own tmpfs.
fn place(dev: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_CREAT | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dev, name, flags, Mode::from_bits_truncate(0o644))
}

/// Opens a pty of the container's own devpts, without a path, and puts it upon /dev/console.
fn terminal(
    site: &Site<'_>,
    tree: Tree<'_>,
    done: &Done,
    size: crate::sys::tty::WindowSize,
) -> Result<(OwnedFd, OwnedFd)> {
    let devpts = done
        .devpts
        .as_ref()
        .ok_or_else(|| failed("a terminal needs a devpts mount on /dev/pts"))?;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let master = openat(devpts, "ptmx", flags, Mode::empty()).context("opening a pty")?;
    unlock_pty(&master).context("unlocking the pty")?;
    let slave = pty_peer(&master).context("opening the pty's other end")?;
    set_window_size(&master, size).context("setting the pty's size")?;
    if let Some(process) = site.plan.spec.process() {
        let uid = process.user().uid();
        if site.mapping().host_uid(uid).is_some() {
            fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>)
                .context("giving the pty to the container's user")?;
        }
    }
    if done.dev {
        let dev = tree.open_plain(Path::new("/dev")).context("opening /dev")?;
        let console = api::clone_tree(slave.as_fd(), Path::new(""), false)
            .context("taking the pty for /dev/console")?;
        device(&dev, "console", &console)?;
    }
    Ok((master, slave))
}
