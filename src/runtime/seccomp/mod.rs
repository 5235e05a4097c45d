//! Seccomp profiles: ours, and those users bring; compiled by libseccomp, kept compiled.
//!
//! A profile is the spec's `linux.seccomp` ([`LinuxSeccomp`]); none means unconfined. [`default_profile`] is
//! ours, [`parse_profile`] reads docker's and podman's files. `filters` compiles:
//!
//! libseccomp cannot say "allowed, but not with this argument" for calls whose condition is a denial, so a
//! profile becomes up to three filters, of which the kernel takes the strictest answer: the profile's
//! own (who may call at all), one of denials over it, and in single-id mode one that
//! notifies. Where no rule conflicts the second is empty and not loaded.
//!
//! Compiling takes milliseconds, so the result is kept in a file named by the SHA-256 of the profile, the architecture and
//! libseccomp's version; the file ends in a digest of itself and is ignored if that is wrong.

mod cache;
mod compile;
mod default;
mod docker;

use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;

use crate::error::{Result, failed};
pub use default::default_profile;
pub use docker::parse_profile;

/// Calls that the agent of single-id mode answers; exit_group tells it that a task is gone.
const EMULATED: [&str; 22] = [
    "chown",
    "lchown",
    "fchown",
    "fchownat",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setgroups",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "getgroups",
    "capset",
    "exit_group",
];

/// Compiled filters, in the order in which they are loaded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filters {
    /// The programs.
    pub programs: Vec<Filter>,
    /// `SECCOMP_FILTER_FLAG_*` for each.
    pub flags: libc::c_ulong,
}

/// One compiled filter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Classic BPF.
    pub bpf: Vec<u8>,
    /// It notifies: loading it returns a listener.
    pub listener: bool,
}

impl Filters {
    /// Nothing to load.
    pub(super) fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }
}

/// Compiles `profile`, and the filter of single-id mode if `emulate`, or takes them from `cache`.
///
/// # Errors
/// The profile cannot be compiled for this machine.
pub(super) fn filters(
    profile: Option<&LinuxSeccomp>,
    emulate: bool,
    cache: Option<&Path>,
) -> Result<Filters> {
    if profile.is_none() && !emulate {
        return Ok(Filters::default());
    }
    let flags = compile::flags(profile);
    let file = cache.and_then(|dir| Some((dir, cache::name(profile, emulate)?)));
    if let Some((dir, name)) = &file
        && let Some(programs) = cache::read(&dir.join(name))
    {
        return Ok(Filters { programs, flags });
    }
    let mut programs = match profile {
        Some(profile) => compile::compile(profile)?,
        None => vec![],
    };
    if emulate {
        if programs.iter().any(|p| p.listener) {
            return Err(failed(
                "a seccomp profile with SCMP_ACT_NOTIFY cannot be used where only one id can be mapped",
            )
            .into());
        }
        programs.push(compile::notify(&EMULATED)?);
    }
    if let Some((dir, name)) = &file {
        cache::write(dir, name, &programs);
    }
    Ok(Filters { programs, flags })
}
