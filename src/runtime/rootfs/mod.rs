//! The container's root file system: mounts, devices, masks, pivot_root.
//!
//! Runs in init, in a new mount namespace, in two parts. `Sources::open` runs before the id maps
//! are written, with the caller's own credentials: it opens what lies on the host (bind sources, /dev/fuse), so that what
//! the caller may read is what the container gets, whichever id the caller has inside. `build`
//! runs as the container's root: it puts the new root upon `/` (nothing sees it yet: our own root directory stays
//! the one below), mounts the spec's list in its order, then devices, masks, read-only paths, and
//! pivots. The host's files are reachable by absolute paths until then, the container's only
//! through `Tree`.
//!
//! Failures of a fresh proc, sysfs or cgroup2 that mean "not for this namespace" (host network, nested use)
//! fall back to the host's, bound recursively and read-only.

mod copyup;
mod dev;
pub mod fill;
mod mask;
mod mounts;
mod options;
mod tree;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir, pivot_root};
use oci_spec::runtime::{Mount, Spec};

use super::idmap::Mapping;
use super::namespaces::{self, Namespaces};
use super::{Plan, Root};
use crate::error::{Fault, Kind as ErrorKind, Result, ResultExt, failed};
use crate::sys::fuse::ROOT_ENTRY;
use crate::sys::mount::{self as api, Context as Fs, MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY};
use mounts::Parsed;
use tree::{Kind, Tree};

pub use mask::{MASKED_PATHS, READONLY_PATHS, masked_paths};
pub use options::VOLUME_OPTION;

/// What was opened on the host before the maps were written.
#[derive(Debug)]
pub(super) struct Sources {
    /// /dev/fuse, or a detached copy of the root directory.
    root: OwnedFd,
    /// The spec's mounts, bind sources as detached copies.
    mounts: Vec<Parsed>,
}

impl Sources {
    /// Cuts the new mount namespace off from the host's and opens what the spec names on the host.
    ///
    /// # Errors
    /// A bind source or /dev/fuse cannot be opened, a mount is malformed.
    pub(super) fn open(plan: &Plan) -> Result<Sources> {
        let mut mounts = mounts::parse(&plan.spec)?;
        let rootfs = linux(&plan.spec, |l| l.rootfs_propagation().as_deref());
        let follows = mounts.iter().any(Parsed::follows_host)
            || rootfs.is_some_and(|p| !p.ends_with("private"));
        cut_off(follows)?;
        let root = match &plan.root {
            Root::Fuse => open_fuse()?,
            Root::Path(path) => api::clone_tree_at(path, true)
                .with_context(|| format!("opening the root file system {}", path.display()))?,
        };
        for mount in &mut mounts {
            mount.open_source(follows)?;
        }
        Ok(Sources { root, mounts })
    }
}

/// What is mounted here shows nowhere else; what is mounted on the host shows here if this `follows` it.
fn cut_off(follows: bool) -> Result<()> {
    let propagation = match follows {
        true => MsFlags::MS_SLAVE,
        false => MsFlags::MS_PRIVATE,
    };
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | propagation, none).map_err(|e| {
        let hint = namespaces::hint(Some(e as i32));
        let act = failed("cutting the mount namespace off from the host's");
        anyhow::Error::new(e).context(act.hint(hint))
    })
}

/// A root of nothing but bind mounts, and directories for them that cannot be written: for [`super::visit`]. Made in two parts,
/// as [`Sources`] and [`build`] are.
#[derive(Debug)]
pub(super) struct Bare(Vec<Parsed>);

impl Bare {
    /// Cuts the new mount namespace off from the host's and opens the sources.
    pub(super) fn open(binds: &[Mount]) -> Result<Bare> {
        cut_off(false)?;
        let mut mounts = Vec::with_capacity(binds.len());
        for bind in binds {
            let mut parsed = Parsed::new(bind)?;
            parsed.open_source(false)?;
            mounts.push(parsed);
        }
        Ok(Bare(mounts))
    }

    /// Mounts them and makes that this process's root.
    pub(super) fn enter(self) -> Result<()> {
        let made = || -> std::io::Result<OwnedFd> {
            let fs = Fs::open("tmpfs")?;
            fs.set("mode", "755")?;
            fs.mount(MOUNT_ATTR_NODEV)
        };
        let root = made().context("making a root for what is mounted")?;
        attach_root(&root)?;
        let tree = Tree::new(root.as_fd());
        for mut mount in self.0 {
            let what = mount.describe();
            if let Some(source) = mount.take_source() {
                mounts::bind(tree, &mount, &source).with_context(|| format!("mounting {what}"))?;
            }
        }
        api::set_attributes(&root, MOUNT_ATTR_RDONLY, 0, 0, false)
            .context("making the root for what is mounted read-only")?;
        pivot(&root)
    }
}

/// A field of the spec's linux part.
pub(super) fn linux<'a, T>(
    spec: &'a Spec,
    field: impl FnOnce(&'a oci_spec::runtime::Linux) -> Option<T>,
) -> Option<T> {
    spec.linux().as_ref().and_then(field)
}

/// Opens /dev/fuse; the opener must be in the user namespace that mounts.
fn open_fuse() -> Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    open("/dev/fuse", flags, Mode::empty()).map_err(|e| {
        let hint = match e {
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => {
                "load the kernel's fuse module (as root: modprobe fuse), or when nested give the \
                 outer container --device /dev/fuse"
            }
            Errno::EACCES | Errno::EPERM => {
                "ask for mode 0666 on /dev/fuse, as distributions set it (udev's 50-udev-default.rules)"
            }
            _ => "`ls -l /dev/fuse` shows the device",
        };
        anyhow::Error::new(e).context(failed("opening /dev/fuse").hint(hint))
    })
}

/// What [`build`] works with.
pub(super) struct Site<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Which namespaces are the container's own.
    pub namespaces: &'a Namespaces,
    /// Container ids that the mounting process has.
    pub owner: (u32, u32),
}

impl Site<'_> {
    /// The id mapping.
    fn mapping(&self) -> &Mapping {
        &self.plan.mapping
    }

    /// Whether the container has its own namespace of this kind.
    fn owns(&self, kind: CloneFlags) -> bool {
        self.namespaces.owns(kind)
    }
}

/// What is left of the building site after the pivot.
#[derive(Debug, Default)]
pub(super) struct Built {
    /// Master and slave of the container's terminal.
    pub pty: Option<(OwnedFd, OwnedFd)>,
}

/// Builds the root file system and makes it this process's root. `fuse` is called with the /dev/fuse
/// descriptor as soon as the mount exists; from then on somebody must serve it.
///
/// # Errors
/// The step and the path that failed.
pub(super) fn build(
    site: &Site<'_>,
    sources: Sources,
    fuse: impl FnOnce(OwnedFd) -> Result<()>,
) -> Result<Built> {
    let root = match site.plan.root {
        Root::Fuse => {
            let outer = mount_fuse(&sources.root, site.owner)?;
            fuse(sources.root)?;
            let root = served_root(&outer)?;
            attach_root(&root)?;
            root
        }
        Root::Path(_) => {
            attach_root(&sources.root)?;
            sources.root
        }
    };
    let tree = Tree::new(root.as_fd());
    let mut done = mounts::Done::default();
    let user = site.plan.spec.process().as_ref().map(|p| p.user());
    let user = user.map_or((0, 0), |u| (u.uid(), u.gid()));
    let mut sources = sources.mounts;
    for mount in &mut sources {
        let filled = mount.prepare_volume(tree, user);
        filled.with_context(|| format!("mounting {}", mount.describe()))?;
    }
    for mount in sources {
        let what = mount.describe();
        mounts::mount(site, tree, mount, &mut done).with_context(|| format!("mounting {what}"))?;
    }
    let pty = dev::populate(site, tree, &done)?;
    super::process::write_sysctls(site.plan, site.namespaces, done.proc.as_ref())?;
    make_cwd(site, tree)?;
    mask::read_only(&site.plan.spec, tree)?;
    mask::mask(&site.plan.spec, tree)?;
    drop(done);
    if root_is_readonly(&site.plan.spec) {
        api::set_attributes(&root, MOUNT_ATTR_RDONLY, 0, 0, false)
            .context("making the root file system read-only")?;
    }
    pivot(&root)?;
    // Private, or following the host, as it has become; what the spec wants to share is shared at last.
    let shared = linux(&site.plan.spec, |l| l.rootfs_propagation().as_deref());
    if let Some(word @ ("shared" | "rshared")) = shared {
        api::set_attributes(&root, 0, 0, libc::MS_SHARED, word == "rshared")
            .context("sharing the root file system's mounts")?;
    }
    Ok(Built { pty })
}

/// `root.readonly`.
fn root_is_readonly(spec: &Spec) -> bool {
    spec.root()
        .as_ref()
        .is_some_and(|root| root.readonly() == Some(true))
}

/// Mounts FUSE on `fuse`, detached.
fn mount_fuse(fuse: &OwnedFd, owner: (u32, u32)) -> Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let mounted = (|| {
        let fs = Fs::open("fuse")?;
        fs.set("source", "rless")?;
        fs.set("subtype", "rless")?;
        fs.set("fd", fuse.as_raw_fd().to_string())?;
        fs.set("rootmode", "40000")?;
        fs.set("user_id", owner.0.to_string())?;
        fs.set("group_id", owner.1.to_string())?;
        fs.flag("default_permissions")?;
        fs.flag("allow_other")?;
        fs.mount(MOUNT_ATTR_NODEV)
    })();
    mounted.fault(|| {
        failed("mounting the root file system (fuse)")
            .hint("FUSE in user namespaces needs Linux 4.18 and the fuse module")
    })
}

/// The directory of a served connection that is the root file system, as a mount of its own.
fn served_root(outer: &OwnedFd) -> Result<OwnedFd> {
    let clone = || api::clone_tree(outer, Path::new(ROOT_ENTRY), false);
    let root = match clone() {
        // Before Linux 6.15 only what is attached can be cloned.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            attach_root(outer)?;
            let root = clone();
            detach(outer)?;
            root
        }
        other => other,
    };
    root.context("opening the root file system's root")
}

/// Takes a mount that [`attach_root`] put upon `/` away again. Left there it would be the uppermost on the host's
/// root, the one that [`pivot`] lets go of, and the host's root would stay.
fn detach(mount: &OwnedFd) -> Result<()> {
    fchdir(mount)
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .context("detaching the file system around the root")
}

/// Puts the new root upon `/`, where pivot_root wants it; our own root directory remains the one below.
fn attach_root(root: &OwnedFd) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let slash = open("/", flags, Mode::empty()).context("opening /")?;
    api::attach(root, slash).context("attaching the root file system")
}

/// The working directory is made if it is missing, inside the root whatever links say.
fn make_cwd(site: &Site<'_>, tree: Tree<'_>) -> Result<()> {
    let Some(process) = site.plan.spec.process() else {
        return Ok(());
    };
    let cwd = process.cwd();
    match tree.ensure(cwd, Kind::Directory, false) {
        // Whether it can be entered is for chdir, as the user, to say.
        Ok(_) | Err(Errno::EACCES | Errno::EROFS | Errno::ENOTDIR | Errno::ELOOP) => Ok(()),
        other => other.map(drop).fault(|| {
            let text = format!("making the working directory {}", cwd.display());
            Fault::new(ErrorKind::NotExecutable, text) // podman's code
        }),
    }
}

/// Makes `root` the root of the mount namespace and lets go of the host's. Nothing else may be upon the host's.
fn pivot(root: &OwnedFd) -> Result<()> {
    // pivot_root(".", ".") stacks the old root upon the new one's directory; "." is then the old.
    fchdir(root)
        .and_then(|()| pivot_root(".", "."))
        .context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("letting go of the host's root")?;
    chdir("/").context("entering the new root")
}

/// A path for an error message, as the container sees it.
fn shown(path: &Path) -> PathBuf {
    tree::normal(path)
}
