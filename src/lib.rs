//! rless runs OCI containers as an ordinary user.
//!
//! The crate is laid out in layers; imports point down only and siblings do not import each
//! other (`tests/it/layers.rs` keeps it so):
//!
//! ```text
//! main.rs            picks the role before any thread exists
//! cli                one file a command: arguments and output only
//! container          lifecycle: request -> spec -> supervisor
//! store              images, tags, blobs, layers, collection, pull
//! image | cow | runtime | cgroup | network
//! sys                the only unsafe code
//! error              one user-facing error
//! ```
//!
//! `container` may use `store` and everything below it; `store` uses `image` and [`cow`].

pub mod cgroup;
pub mod cli;
pub mod container;
pub mod cow;
pub mod error;
pub mod image;
pub mod network;
pub mod runtime;
pub mod store;
pub mod sys;
pub mod trace;
