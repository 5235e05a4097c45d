//! Terminals: raw mode that always ends, window sizes.

pub use crate::sys::tty::{WindowSize, window_size};
