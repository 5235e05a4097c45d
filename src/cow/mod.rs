//! The copy-on-write file system that a container's root is.
//!
//! A [`Cow`] is the union, done once, of an immutable [`Lower`] (an image index and its packs, or plain
//! host directories) and an *upper*: a directory holding a metadata journal and data files.
//! It answers look-ups by path in-process (users, groups, `cp`: nothing outside the mount's user
//! namespace may look through the mount) and is served over FUSE by [`Cow::serve`].
//!
//! This interface is narrow on purpose (open, serve, look, sync, commit, diff, drop): kernel overlayfs over
//! our read-only image mount may join later as an accelerator without reaching another module.
//!
//! | file | room |
//! |---|---|
//! | `index.rs` | the on-disk image/layer index: pure reader and builder |
//! | `merge.rs` | layer indexes, lowest first, into one image index (whiteouts exist only here) |
//! | `lower.rs`, `host.rs`, `refs.rs` | what an upper lies over: an index, or host directories |
//! | `upper/` | inode table in memory over the lower, data files, durability; the theory is in its `mod.rs` |
//! | `journal/` | the on-disk journal: pure record codec, and the file around it |
//! | `acl.rs`, `ranges.rs`, `meta.rs` | access control lists, block sets, plain values: pure |
//! | `path.rs`, `content.rs`, `change.rs` | look-ups by path; inodes by number; changes without a mount |
//! | `diff.rs` | what the upper changed, by path |
//! | `frozen.rs` | states of an upper that are kept, or looked at while it goes on |
//! | `ops/` | FUSE decode and reply only |
//! | `mount.rs` | sessions, threads, opcode counters |
//! | `attention.rs` | who reads the next request, and whether it sleeps meanwhile |
//! | `trim.rs` | memory that idle servers give back |
//! | `renew.rs` | listings the kernel had better ask for again |
//!
//! Where POSIX as on a local ext4 is not had is in [`LIMITS`], which the manual shows and whose every item has a test.

pub mod diff;
pub mod frozen;
pub mod index;
pub mod merge;

mod acl;
mod attention;
mod change;
mod content;
mod host;
mod journal;
mod lower;
mod meta;
pub mod mount;
mod ops;
mod path;
mod ranges;
mod refs;
mod renew;
mod trim;
mod upper;

pub use change::{Attributes, Made};
pub use content::Whole;
pub use index::Time;
pub use mount::Server;
pub use path::{Listed, Stat};
pub use upper::Usage;

use crate::error::Result;
use lower::Low;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use upper::Tree;

/// Where a local ext4 in the same user namespace would answer otherwise, or where programs may expect
/// more: a name, under which `tests/it/cow/posix.py` has the check (`limit_NAME`), and what the manual says.
pub const LIMITS: &[(&str, &str)] = &[
    (
        "sync",
        "sync(2) and syncfs(2) return before anything is on disk: the kernel does not pass them on to a file system \
         of a user namespace. fsync(2) and fdatasync(2) are exact. Everything else is written back some seconds after \
         it happened, and at the container's end.",
    ),
    (
        "access_time",
        "Reading does not change access times (as with noatime).",
    ),
    ("birth_time", "There is no birth time (statx(2))."),
    (
        "clone",
        "FICLONE and FIDEDUPERANGE are EOPNOTSUPP, as on ext4; copy_file_range(2) copies.",
    ),
    (
        "inode_flags",
        "There are no inode flags (chattr, lsattr): ENOTTY.",
    ),
    (
        "devices",
        "Devices other than 0:0 cannot be made: EPERM, as on every file system in a user namespace.",
    ),
    (
        "fallocate_modes",
        "fallocate(2) reserves no space for the part of a file that is still the image's; collapsing and inserting \
         ranges is EOPNOTSUPP.",
    ),
    (
        "holes_of_the_image",
        "A file of the image is data from end to end, whatever holes it was packed with: SEEK_HOLE finds its end, \
         and all its blocks are counted.",
    ),
    (
        "direct_alignment",
        "O_DIRECT works with any alignment of memory, offset and length.",
    ),
    (
        "link_max",
        "A file may have 65,000 names, as on ext4; pathconf(_PC_LINK_MAX), which the C library answers by the type \
         of file system, says 127.",
    ),
    (
        "large_attributes",
        "Extended attributes may be as large as the kernel allows (64 KiB a value, 64 KiB of names) where ext4 has \
         4 KiB for all of a file's.",
    ),
    (
        "security_attributes",
        "Root inside may set any security.* attribute, which on ext4 takes the machine's root. Only \
         security.capability has an effect.",
    ),
    (
        "mapped_writes",
        "What is written through a shared mapping changes a file's modification time, and where lseek(2) finds data \
         and holes, when it is written back (msync, fsync, munmap, or some seconds later), not at the first page fault.",
    ),
    (
        "setgid_groups",
        "Of a caller's groups the file system is not told the supplementary ones. The kernel knows them, and decides \
         what is permitted; but a setgid bit without group execution, which ext4 keeps when somebody of the file's \
         group writes to the file or changes its owner, is kept only for those whose first group it is. So is the \
         setgid bit when an access list is set.",
    ),
];

/// What an upper lies over.
#[derive(Debug, Clone)]
pub enum Lower {
    /// An image: its merged index and the directory that holds the packs it names.
    Image {
        /// The index file.
        index: PathBuf,
        /// The directory of packs.
        packs: PathBuf,
    },
    /// A host directory, read-only below us.
    HostDir {
        /// The directory; `/` is one.
        root: PathBuf,
        /// Absolute host paths shown as empty directories (the store).
        hide: Vec<PathBuf>,
        /// How owners show inside.
        uids: IdView,
        /// How groups show inside.
        gids: IdView,
    },
    /// Host directories stacked as overlayfs stacks them, which nobody changes meanwhile. Ids show as they are.
    Stack {
        /// The directories, uppermost first.
        roots: Vec<PathBuf>,
        /// Absolute host paths shown as empty directories (the upper).
        hide: Vec<PathBuf>,
    },
}

/// How a host id shows inside: (first inside, first on the host, count) as in `uid_map`; an id
/// that no line has shows as 65534.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdView(pub Vec<(u32, u32, u32)>);

/// How to open a [`Cow`].
#[derive(Debug, Clone)]
pub struct Options {
    /// What lies below.
    pub lower: Lower,
    /// Directory of the upper (journal, `data/`), created 0700 if missing. `None`: an upper in a
    /// temporary place is NOT made; the mount is read-only.
    pub upper: Option<PathBuf>,
    /// Single-id mode: every owner is presented as this (uid, gid); true ids stay in metadata and
    /// are read and set through the extended attribute `security.rless.owner` (`uid:gid`).
    pub squash: Option<(u32, u32)>,
    /// Bytes that the upper may take, content and metadata; `None`: no limit. Past it a write through a shared
    /// mapping is refused when it is written back (`msync`, `fsync`: `ENOSPC`; no `SIGBUS`), and a hole punched
    /// into the image's part of a file counts as its length.
    pub size_limit: Option<u64>,
    /// Count requests per opcode and write `OP count` lines to this file at the end.
    pub stats: Option<PathBuf>,
}

/// An opened file system; clones are handles of the same one.
#[derive(Clone)]
pub struct Cow {
    tree: Arc<Tree>,
    stats: Option<PathBuf>,
}

impl std::fmt::Debug for Cow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cow").finish_non_exhaustive()
    }
}

impl Cow {
    /// Opens lower and upper; replays the upper's journal and clears what a crash left.
    ///
    /// # Errors
    /// A part of the image is missing or damaged; the upper cannot be made or read, is in use by
    /// another server, or belongs to another lower.
    pub fn open(options: Options) -> Result<Cow> {
        let low = match options.lower {
            Lower::Image { index, packs } => Low::image(&index, &packs)?,
            Lower::HostDir {
                root,
                hide,
                uids,
                gids,
            } => Low::host(host::HostLower::open(&[root], false, &hide, uids, gids)?),
            Lower::Stack { roots, hide } => {
                let ids = || IdView(vec![(0, 0, u32::MAX)]);
                Low::host(host::HostLower::open(&roots, true, &hide, ids(), ids())?)
            }
        };
        let tree = Tree::open(
            low,
            options.upper.as_deref(),
            options.squash,
            options.size_limit,
        )?;
        Ok(Cow {
            tree: Arc::new(tree),
            stats: options.stats,
        })
    }

    /// Starts FUSE threads on a `/dev/fuse` descriptor already mounted by a process in the
    /// container's user namespace (mount first: this waits for the kernel's INIT).
    ///
    /// # Errors
    /// The kernel's FUSE is too old, or the mount went away.
    pub fn serve(&self, fuse: OwnedFd) -> Result<Server> {
        Server::start(self, fuse)
    }

    /// Makes every change so far durable.
    ///
    /// # Errors
    /// What the host answers: `ENOSPC`, `EIO` …
    pub fn sync(&self) -> Result<()> {
        use anyhow::Context;
        self.tree
            .sync_all()
            .context("writing the container's changes to disk")
    }

    /// Whether changes were ever written to the upper at `upper`, by any process.
    #[must_use]
    pub fn begun(upper: &Path) -> bool {
        journal::Journal::begun(&upper.join("journal"))
    }

    /// Bytes and inodes of the upper; costs nothing.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.tree.usage()
    }

    /// Sets the true owner of what `path` leads to (symbolic links followed if `follow`), in
    /// single-id mode; `u32::MAX` leaves an id as it is.
    ///
    /// # Errors
    /// The path leads nowhere, or the mode is another one.
    pub fn chown_true(&self, path: &Path, follow: bool, uid: u32, gid: u32) -> Result<()> {
        use anyhow::Context;
        let ino = self
            .find(path, follow)?
            .with_context(|| format!("no such file: {}", path.display()))?;
        self.tree
            .chown_true(meta::Caller::default(), ino, uid, gid)
            .with_context(|| format!("changing the owner of {}", path.display()))
    }
}
