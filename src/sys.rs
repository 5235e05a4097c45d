//! The only unsafe code: thin wrappers over system calls, one file a subject, each with one owner.

pub mod tty;
