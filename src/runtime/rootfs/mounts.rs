//! The spec's list of mounts, one after the other.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::stat::{FileStat, SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};
use oci_spec::runtime::{Mount, Spec};

use super::fill::Volume;
use super::options::Options;
use super::tree::{Kind, Tree, file_type, normal, type_of};
use super::{Site, copyup, shown};
use crate::error::{Result, failed, usage};
use crate::sys::mount::{
    self as api, Context as Fs, MOUNT_ATTR__ATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY,
};

/// Files of a proc mount that may be covered (as with lxcfs); anything else below /proc may not.
const PROC_FILES: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
];

const PROC_MAGIC: FsType = FsType(0x9fa0);

/// One mount of the spec.
#[derive(Debug)]
pub(super) struct Parsed {
    destination: PathBuf,
    kind: String,
    source: Option<PathBuf>,
    options: Options,
    /// A bind mount's detached copy of its source.
    tree: Option<OwnedFd>,
    /// A volume's state file.
    state: Option<File>,
}

/// What later steps need to know of the mounts made.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Our proc mount.
    pub proc: Option<OwnedFd>,
    /// Our devpts mount.
    pub devpts: Option<OwnedFd>,
    /// /dev is a tmpfs of ours.
    pub dev: bool,
}

/// Reads the spec's mounts.
pub(super) fn parse(spec: &Spec) -> Result<Vec<Parsed>> {
    let mounts = spec.mounts().as_ref();
    mounts.into_iter().flatten().map(Parsed::new).collect()
}

impl Parsed {
    pub(super) fn new(mount: &Mount) -> Result<Parsed> {
        let destination = normal(mount.destination());
        let words = mount.options().as_deref().unwrap_or_default();
        let mut options =
            Options::parse(words).with_context(|| format!("mount on {}", destination.display()))?;
        let mut kind = mount.typ().clone().unwrap_or_default();
        if matches!(kind.as_str(), "bind" | "rbind")
            || (kind.is_empty() && mount.source().is_some())
        {
            options.bind = options.bind.or(Some(kind == "rbind"));
        }
        if options.bind.is_some() {
            kind = "bind".to_owned();
        }
        Ok(Parsed {
            destination,
            kind,
            source: mount.source().clone(),
            options,
            tree: None,
            state: None,
        })
    }

    /// What [`Parsed::open_source`] has opened.
    pub(super) fn take_source(&mut self) -> Option<OwnedFd> {
        self.tree.take()
    }

    /// Whether it must keep following the host's mounts.
    pub(super) fn follows_host(&self) -> bool {
        self.options.follows_host()
    }

    /// For error messages.
    pub(super) fn describe(&self) -> String {
        match (&self.source, self.options.bind) {
            (Some(source), Some(_)) => {
                format!("{} on {}", source.display(), self.destination.display())
            }
            _ => format!("{} on {}", self.kind, self.destination.display()),
        }
    }

    /// Opens a bind mount's source and gives it its attributes, while it is detached.
    pub(super) fn open_source(&mut self, follows: bool) -> Result<()> {
        let Some(recursive) = self.options.bind else {
            return Ok(());
        };
        let source = self.source.as_deref().ok_or_else(|| {
            usage(format!(
                "bind mount on {}: no source",
                self.destination.display()
            ))
        })?;
        let tree = clone_host(source, recursive)
            .with_context(|| format!("opening the mount source {}", source.display()))?;
        if let Some((word, _)) = self.options.data.first() {
            return Err(usage(format!("bind mount: unknown option `{word}`")).into());
        }
        let mut options = self.options.clone();
        if let Some(path) = &options.volume {
            let state = File::options().read(true).write(true).open(path);
            self.state = Some(state.with_context(|| format!("opening {}", path.display()))?);
            // It is filled first.
            options.attributes &= !MOUNT_ATTR_RDONLY;
            options.recursive &= !MOUNT_ATTR_RDONLY;
        }
        set_bind_attributes(&tree, &options, follows)
            .with_context(|| format!("setting the options of the mount {}", self.describe()))?;
        self.tree = Some(tree);
        Ok(())
    }

    /// A volume gets its content and its owner (`user`: the process's, in the container). Before anything is mounted.
    pub(super) fn prepare_volume(&mut self, tree: Tree<'_>, user: (u32, u32)) -> Result<()> {
        let (Some(state), Some(root)) = (self.state.take(), &self.tree) else {
            return Ok(());
        };
        let volume = Volume {
            state: &state,
            root,
            copy: self.options.copy_up,
            user,
        };
        volume.prepare(tree, &self.destination)?;
        for (flags, recursive) in [
            (self.options.recursive, true),
            (self.options.attributes, false),
        ] {
            if flags & MOUNT_ATTR_RDONLY != 0 {
                api::set_attributes(root, MOUNT_ATTR_RDONLY, 0, 0, recursive)
                    .context("making it read-only")?;
            }
        }
        Ok(())
    }
}

/// A detached copy of a host path. Mounts that lie on it may not be left out in a user namespace (what
/// they hide would show): then they come along.
fn clone_host(path: &Path, recursive: bool) -> std::io::Result<OwnedFd> {
    match api::clone_tree_at(path, recursive) {
        Err(e) if !recursive && e.raw_os_error() == Some(libc::EINVAL) => {
            api::clone_tree_at(path, true)
        }
        other => other,
    }
}

/// Only ever adds flags: those of the source stay (they may be locked, and are meant).
fn set_bind_attributes(tree: &OwnedFd, options: &Options, follows: bool) -> std::io::Result<()> {
    for (flags, recursive) in [(options.recursive, true), (options.attributes, false)] {
        if flags == 0 {
            continue;
        }
        let clear = if flags & MOUNT_ATTR__ATIME != 0 {
            MOUNT_ATTR__ATIME
        } else {
            0
        };
        match api::set_attributes(tree, flags, clear, 0, recursive) {
            // How access times are kept can be locked: not worth a failure.
            Err(e) if clear != 0 && e.raw_os_error() == Some(libc::EPERM) => {
                api::set_attributes(tree, flags & !MOUNT_ATTR__ATIME, 0, 0, recursive)?;
            }
            other => other?,
        }
    }
    match options.propagation {
        Some((flag, recursive)) => api::set_attributes(tree, 0, 0, flag, recursive),
        None if follows => api::set_attributes(tree, 0, 0, libc::MS_PRIVATE, true),
        None => Ok(()),
    }
}

/// Makes one mount.
pub(super) fn mount(
    site: &Site<'_>,
    tree: Tree<'_>,
    mut mount: Parsed,
    done: &mut Done,
) -> Result<()> {
    if mount.destination == Path::new("/") {
        return Err(usage("a mount on / would hide the root file system").into());
    }
    if let Some(bound) = mount.tree.take() {
        return bind(tree, &mount, &bound);
    }
    check_kind(&mount.destination, &mount.kind)?;
    // What the kernel makes goes where the spec says, not where the image's links lead.
    let target = || {
        tree.ensure(&mount.destination, Kind::Directory, true)
            .map_err(|e| refuse_link(e, &mount.destination))
    };
    let made = make(site, &mount)?;
    let target = target()?;
    let stat = fstat(&target)?;
    if type_of(&stat) != SFlag::S_IFDIR {
        return Err(failed(format!(
            "{} in the image is not a directory",
            mount.destination.display()
        ))
        .into());
    }
    check_target(tree, &target, &stat, &mount.destination)?;
    if mount.options.copy_up {
        copyup::copy(&target, &made).context("copying the image's files into the tmpfs")?;
        if mount.options.attributes & MOUNT_ATTR_RDONLY != 0 {
            api::set_attributes(&made, MOUNT_ATTR_RDONLY, 0, 0, false)?;
        }
    }
    api::attach(&made, &target)?;
    match mount.kind.as_str() {
        "proc" if mount.destination == Path::new("/proc") => done.proc = Some(made),
        "devpts" if mount.destination == Path::new("/dev/pts") => done.devpts = Some(made),
        "tmpfs" if mount.destination == Path::new("/dev") => done.dev = true,
        _ => {}
    }
    Ok(())
}

/// On /proc and /sys belongs what the kernel shows there and nothing else.
fn check_kind(destination: &Path, kind: &str) -> Result<()> {
    for (special, own) in [("/proc", "proc"), ("/sys", "sysfs")] {
        if destination == Path::new(special) && kind != own {
            return Err(failed(format!(
                "nothing but the system's own may be mounted on {special}"
            ))
            .into());
        }
    }
    Ok(())
}

/// Says what ELOOP means here.
fn refuse_link(errno: Errno, path: &Path) -> anyhow::Error {
    let error = anyhow::Error::new(errno);
    match errno {
        Errno::ELOOP => error.context(failed(format!(
            "{} in the image is or lies behind a symlink: refused",
            shown(path).display()
        ))),
        _ => error.context(format!("making the mount point {}", shown(path).display())),
    }
}

/// Attaches a bind mount.
pub(super) fn bind(tree: Tree<'_>, mount: &Parsed, bound: &OwnedFd) -> Result<()> {
    let at = &mount.destination;
    let source = mount.source.as_deref().unwrap_or(Path::new(""));
    let kind = if source.starts_with("/proc") {
        "proc"
    } else if source.starts_with("/sys") {
        "sysfs"
    } else {
        "bind"
    };
    check_kind(at, kind)?;
    let kind = match file_type(bound)? {
        SFlag::S_IFDIR => Kind::Directory,
        _ => Kind::File,
    };
    let plain = ["/proc", "/sys", "/dev"].iter().any(|p| at == Path::new(p));
    let target = tree
        .ensure(at, kind, plain)
        .map_err(|e| refuse_link(e, at))?;
    let stat = fstat(&target)?;
    check_target(tree, &target, &stat, at)?;
    let is = match type_of(&stat) {
        SFlag::S_IFDIR => Kind::Directory,
        _ => Kind::File,
    };
    if is != kind {
        let name = |kind| match kind {
            Kind::Directory => "a directory",
            Kind::File => "a file",
        };
        return Err(failed(format!(
            "the source is {}, {} in the container is {}",
            name(kind),
            at.display(),
            name(is)
        ))
        .into());
    }
    Ok(api::attach(bound, &target)?)
}

/// Nothing but a few files of a proc mount may be covered, wherever a path may lead.
fn check_target(
    tree: Tree<'_>,
    target: &OwnedFd,
    stat: &FileStat,
    destination: &Path,
) -> Result<()> {
    let allowed = PROC_FILES.iter().any(|f| destination == Path::new(f));
    // Most targets are in the root file system itself, which answers fstatfs(2) by a round trip each time.
    if !allowed && !tree.holds(stat) && fstatfs(target)?.filesystem_type() == PROC_MAGIC {
        return Err(failed(format!(
            "{} lies inside /proc: refused",
            destination.display()
        ))
        .into());
    }
    Ok(())
}

/// Makes a file system's detached mount.
fn make(site: &Site<'_>, mount: &Parsed) -> Result<OwnedFd> {
    let shm = mount.kind == "tmpfs" && mount.destination == Path::new("/dev/shm");
    if let Some(tree) = site.plan.shm.as_ref().filter(|_| shm) {
        return tree.try_clone().context("taking the shared memory");
    }
    let ours = match mount.kind.as_str() {
        "proc" => site.namespaces.mounts(CloneFlags::CLONE_NEWPID),
        "sysfs" => site.owns(CloneFlags::CLONE_NEWNET),
        "mqueue" => site.namespaces.mounts(CloneFlags::CLONE_NEWIPC),
        "cgroup" | "cgroup2" => site.owns(CloneFlags::CLONE_NEWCGROUP),
        "tmpfs" | "devpts" => true,
        other => {
            return Err(failed(format!(
                "file system type `{other}` cannot be mounted in a user namespace"
            ))
            .into());
        }
    };
    let fresh = if ours {
        fresh(site, mount)
    } else {
        Err(std::io::Error::from_raw_os_error(libc::EPERM))
    };
    let error = match fresh {
        Ok(made) => return Ok(made),
        Err(e) => e,
    };
    let refused = matches!(
        api::errno(&error),
        Some(libc::EPERM | libc::EACCES | libc::EBUSY | libc::ENODEV)
    );
    let host = match mount.kind.as_str() {
        "proc" => "/proc",
        "sysfs" => "/sys",
        "mqueue" => "/dev/mqueue",
        "cgroup" | "cgroup2" => return no_cgroup(error),
        _ => return Err(error.into()),
    };
    if !refused {
        return Err(error.into());
    }
    from_host(host, mount).with_context(|| format!("binding the host's {host} ({error})"))
}

/// A new instance of the file system.
fn fresh(site: &Site<'_>, mount: &Parsed) -> std::io::Result<OwnedFd> {
    let kind = match mount.kind.as_str() {
        "cgroup" => "cgroup2",
        other => other,
    };
    let fs = Fs::open(kind)?;
    fs.set("source", kind)?;
    for (key, value) in &mount.options.data {
        match value {
            // A group that is not mapped cannot own anything: leave it to the mounting process's.
            Some(gid) if kind == "devpts" && key == "gid" => {
                let mapped = |gid: &String| site.mapping().host_gid(gid.parse().ok()?);
                if mapped(gid).is_some() {
                    fs.set(key, gid)?;
                }
            }
            Some(value) => fs.set(key, value)?,
            None => fs.flag(key)?,
        }
    }
    let mut attributes = mount.options.attributes | mount.options.recursive;
    if mount.options.copy_up {
        attributes &= !MOUNT_ATTR_RDONLY;
    }
    fs.mount(attributes)
}

/// The host's instance, with all that lies on it, read-only.
fn from_host(path: &str, mount: &Parsed) -> Result<OwnedFd> {
    let tree = api::clone_tree_at(Path::new(path), true)?;
    let mut flags = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY;
    if mount.kind == "mqueue" {
        flags &= !MOUNT_ATTR_RDONLY; // shared on purpose: --ipc=host
    }
    api::set_attributes(&tree, flags | MOUNT_ATTR_NODEV, 0, 0, true)?;
    Ok(tree)
}

/// Without a cgroup2 of its own the container sees an empty directory, never the host's tree.
fn no_cgroup(error: std::io::Error) -> Result<OwnedFd> {
    let fs = Fs::open("tmpfs")?;
    fs.set("source", "no-cgroup2")?;
    fs.set("mode", "755")?;
    fs.set("size", "4k")?;
    fs.mount(MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY)
        .with_context(|| format!("an empty directory instead of cgroup2 ({error})"))
}
