//! The copy-on-write file system that a container's root is.
//!
//! A [`Cow`] is the union, done once, of an immutable [`Lower`] (an image index and its packs, or a
//! plain host directory) and an *upper*: a directory holding a metadata journal and data files.
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
//! | `lower.rs`, `host.rs` | what an upper lies over: an index, or a host directory |
//! | `upper.rs` | inode table in memory over the lower |
//! | `journal.rs` | the on-disk journal: pure record codec, and the file around it |
//! | `ops.rs` | FUSE decode and reply only |
//! | `mount.rs` | sessions, threads, opcode counters |

pub mod index;
pub mod merge;
