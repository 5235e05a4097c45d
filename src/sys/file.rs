//! file (filled in next)
#![allow(unsafe_code)]
