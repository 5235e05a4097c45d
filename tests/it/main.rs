//! Integration tests: rless as a user runs it, one module a command or subsystem.
//!
//! `tests/run` prepares their world (users, images, a loopback registry) and describes it in
//! `RLESS_TEST_*` variables, see [`harness::World`]. Without it (`cargo test` alone) each test
//! skips with its reason.
#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::panic)]

mod commit;
mod conformance;
mod copy;
mod cow;
mod exec;
mod faults;
mod harness;
mod health;
mod hostile;
mod images;
mod journal;
mod killed;
mod killed_under;
mod layers;
mod lifecycle;
mod machine;
mod messages;
mod network;
mod ownership;
mod podman;
mod power;
mod promises;
mod pty;
mod refused;
mod registries;
mod revived;
mod run;
mod rungs;
mod services;
mod session;
mod shared;
mod storage;
mod stuck;
mod terminal;
mod threats;
mod threats_exec;
mod unstarted;
mod views;
mod volumes;
