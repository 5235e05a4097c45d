//! The container's place in cgroup v2: a scope of its own, limits, statistics, kill and freeze.
//!
//! # Rungs
//! [`detect()`] finds out, without D-Bus, which of these this caller can have:
//!
//! 1. [`Rung::Systemd`]: the user's (or for root the system's) systemd makes a transient scope and
//!    delegates it.
//! 2. [`Rung::Delegated`]: the caller's own cgroup is writable, as under another engine, a batch
//!    system or `systemd-run --property Delegate=yes`: a child of it is made.
//! 3. [`Rung::None`]: no cgroup (v1, hybrid, read-only, no session). Asking for a limit is then an
//!    error with the fix, from [`Availability::check`]; asking for none costs nothing.
//!
//! # Layout
//! ```text
//! rless-ID.scope      cpu.*, io.*: bind the container and the server of its files together; memory.low, which
//! │                   protects a leaf only as far as its parent has it
//! ├── rless           the supervisor with its file-system threads, pasta
//! └── container       memory.*, pids.*, cpuset.*, freeze, kill; cpu.*, io.* again, for those who look inside
//! ```
//! A process cannot be in a cgroup that hands controllers to children, so the supervisor moves to
//! its leaf before controllers are enabled. Root file-system I/O of the container is done by the
//! supervisor: CPU and I/O bounds on the scope count it, memory and pids bounds on the leaf never
//! reach it. A freeze or a kill of the leaf cannot stop the process that serves its page faults.
//!
//! # Order at a start
//! [`Scope::create`] (the supervisor is moved, controllers are enabled, limits are written and read
//! back), clone of init, [`Scope::add_init`] before it unshares its cgroup namespace.

mod dbus;
pub mod detect;
pub mod io;
pub mod limits;
pub mod scope;
mod systemd;

pub use detect::{Availability, Rung, detect};
pub use limits::{Bound, Limits};
pub use scope::{Applied, Scope, ScopeRequest, Stats};
