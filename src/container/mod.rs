//! A container's life: request -> spec -> supervisor; records, names, logs, attach.

pub mod ask;
pub mod attach;
mod clear;
mod damaged;
pub mod env;
pub mod events;
pub mod host;
pub mod image;
pub mod info;
pub mod list;
pub mod mounts;
pub mod names;
pub mod protocol;
pub mod record;
pub mod remove;
pub mod request;
pub mod run;
pub mod signal;
pub mod spec;
pub mod stop;
pub mod supervisor;
mod swept;
pub mod tail;
pub mod terminal;
pub mod user;
pub mod volumes;
pub mod when;
