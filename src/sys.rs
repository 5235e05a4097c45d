//! The only unsafe code of the crate: system calls that neither std nor nix wrap.
//!
//! Every function here is safe to call, takes and returns owned or borrowed descriptors (never
//! raw numbers), sets close-on-exec on whatever it opens, and returns [`std::io::Result`] with
//! the kernel's errno untouched; callers add what they were doing. One file a subject, one owner
//! a file; each `unsafe` block carries its `SAFETY:` line.
//!
//! | file | subject |
//! |---|---|
//! | `process.rs` | clone3, pidfd, namespaces, prctl, keyrings, exec, terminals' ioctls |
//! | `file.rs` | openat2, descriptor passing, close_range |
//! | `fuse.rs` | FUSE channels, extended attributes by descriptor |
//! | `idle.rs` | giving the allocator's memory back, interrupting threads |
//! | `mmap.rs` | whole immutable files, mapped or read |
//! | `mount.rs` | fsopen … fsmount, open_tree, move_mount, mount_setattr, pivot_root |
//! | `nsfs.rs` | parent and owner of a namespace |
//! | `caps.rs` | capget, capset, bounding and ambient sets |
//! | `seccomp.rs` | loading filters, user notification |
//! | `counters.rs` | tables of counters that take memory where they are not zero |
//! | `child.rs` | children that die with their parent |
//! | `tty.rs` | the size of our own terminal |
//! | `window.rs` | files mapped for writing (test programs) |
//! | `xattr.rs` | extended attributes by path and by descriptor |

pub mod caps;
pub(crate) mod child;
pub(crate) mod counters;
pub mod file;
pub mod fuse;
pub mod idle;
pub mod mmap;
pub mod mount;
pub mod nsfs;
pub mod process;
pub mod seccomp;
pub mod supervise;
pub mod tty;
pub mod window;
pub mod xattr;
