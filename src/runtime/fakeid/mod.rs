//! Emulated ids for the single-id rung: set*id, get*id and chown with state.
//!
//! Without subuid ranges a user namespace holds one id, and an unmodified `apt-get install` fails: chown(2) to
//! another id is refused before it reaches any file system, and so is setuid(2); and success
//! faked alone is found out, since programs ask back. Here a seccomp filter hands these calls to an *agent*, which
//! keeps the credentials that every task believes to have ([`creds`], [`tasks`]) and stores owners
//! as the file system's true ids ([`chown`]).
//!
//! # The agent
//! A process forked from the supervisor while that is single-threaded ([`Agent::fork`]). When the container's init has
//! loaded the filter, the supervisor passes the listener on ([`Agent::serve`]); the agent then joins the init's user and mount namespaces (never its
//! pid namespace: nothing in the container can see, signal or trace it) and answers until the last filtered
//! task is gone. A process that joins later (`exec`) has a filter and thus a listener of its own, which its
//! supervisor hands over in the same way ([`serve_too`]). It executes no file of the image and opens files with `O_PATH` only.
//!
//! # What it does not do
//! The kernel's own checks still see one id with the container's capabilities: emulated users are told
//! apart by programs that ask, not protected from each other. stat(2) shows every owner as
//! the one mapped id; set-user-ID programs do not change emulated ids. Owners given to files outside the
//! container's root (volumes, tmpfs) are accepted and forgotten.

mod agent;
mod chown;
mod creds;
mod memory;
mod proc;
mod tasks;

pub use agent::{Agent, Start, serve_too};

/// Name of the extended attribute through which the agent sets and reads the true owner of a file of
/// the container's root, as `uid:gid` in decimal. `security.`: only a holder of
/// `CAP_SYS_ADMIN` over the mount's user namespace can set it, and it is allowed on every kind of inode.
pub const OWNER_XATTR: &str = "security.rless.owner";
