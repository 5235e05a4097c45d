//! From the container's root, with every capability over its namespaces, to the process's user.
//!
//! Order matters: the bounding set and ids need capabilities that the final sets may lack, and a
//! filter can be loaded by CAP_SYS_ADMIN or under no_new_privs only. So [`Credentials::become_user`] leaves CAP_SYS_ADMIN effective if a
//! filter must be loaded without no_new_privs, and [`Credentials::seal`] takes it away after that, right before exec.
//! Inheritable and ambient sets are empty always: a capability reaches a program by being root, or by the
//! program's own file capabilities, within the bounding set.

use std::str::FromStr;

use anyhow::Context;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{Capabilities, Capability, Process};

use super::idmap::{Mapping, Rung};
use crate::error::{Result, failed};
use crate::sys::caps::{self, Sets};

/// What the process will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    bounding: u64,
    last: Sets,
    no_new_privs: bool,
    /// Ids are not mapped and a listener will pretend (single-id mode).
    pretend: bool,
}

/// capabilities(7), in the kernel's order.
const ORDER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Names of all capabilities without `CAP_`, in the kernel's order.
#[must_use]
pub fn capability_names() -> Vec<String> {
    ORDER
        .iter()
        .map(|c| c.to_string().trim_start_matches("CAP_").to_owned())
        .collect()
}

/// The bit of a capability.
pub(super) fn bit(cap: Capability) -> u64 {
    ORDER.iter().position(|c| *c == cap).map_or(0, |n| 1 << n)
}

/// The bits of a set.
fn bits(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().fold(0, |all, c| all | bit(*c))
}

/// The default bounding set.
#[must_use]
pub fn default_capabilities() -> Capabilities {
    [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
    .into_iter()
    .filter_map(|name| Capability::from_str(name).ok())
    .collect()
}

impl Credentials {
    /// Reads the spec's process and checks that its ids are mapped.
    ///
    /// # Errors
    /// An id is not mapped.
    pub(super) fn of(
        process: &Process,
        mapping: &Mapping,
        emulate: bool,
        keep_groups: bool,
    ) -> Result<Credentials> {
        let user = process.user();
        let pretend = emulate && mapping.rung == Rung::SingleId;
        let mut groups = vec![user.gid()];
        for gid in user.additional_gids().iter().flatten() {
            if !groups.contains(gid) {
                groups.push(*gid);
            }
        }
        if !pretend {
            let unmapped = |what: &str, id: u32| {
                failed(format!("{what} {id} is not mapped in the container")).hint(
                    "more subordinate ids in /etc/subuid and /etc/subgid, or another --userns, map it",
                )
            };
            if mapping.host_uid(user.uid()).is_none() {
                return Err(unmapped("uid", user.uid()).into());
            }
            if let Some(gid) = groups.iter().find(|g| mapping.host_gid(**g).is_none()) {
                // With one id only the group list cannot be set anyway.
                if mapping.rung != Rung::SingleId || *gid == user.gid() {
                    return Err(unmapped("gid", *gid).into());
                }
            }
        }
        let sets = process.capabilities().as_ref();
        let bounding = bits(sets.and_then(|c| c.bounding().as_ref()));
        let held = |set: Option<&Capabilities>| {
            // Only root holds capabilities of its own accord.
            if user.uid() == 0 {
                bits(set) & bounding
            } else {
                0
            }
        };
        let permitted = held(sets.and_then(|c| c.permitted().as_ref()));
        Ok(Credentials {
            uid: user.uid(),
            gid: user.gid(),
            groups: if mapping.rung == Rung::SingleId || keep_groups {
                vec![] // setgroups is denied, or the caller's groups are wanted
            } else {
                groups
            },
            bounding,
            last: Sets {
                effective: held(sets.and_then(|c| c.effective().as_ref())) & permitted,
                permitted,
                inheritable: 0,
            },
            no_new_privs: process.no_new_privileges().unwrap_or(false),
            pretend,
        })
    }

    /// Becomes the user. With `filters` to come, what loading them needs is kept for [`Credentials::seal`].
    ///
    /// # Errors
    /// The step that failed.
    pub(super) fn become_user(&self, filters: bool) -> Result<()> {
        caps::clear_ambient().context("emptying the ambient capabilities")?;
        caps::limit_bounding(self.bounding).context("limiting the capabilities")?;
        if !self.groups.is_empty() {
            let groups: Vec<Gid> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
            setgroups(&groups).context("setting the groups")?;
        }
        if !self.pretend {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            setresgid(gid, gid, gid).with_context(|| format!("becoming gid {gid}"))?;
            prctl::set_keepcaps(true).context("keeping capabilities")?;
            setresuid(uid, uid, uid).with_context(|| format!("becoming uid {uid}"))?;
            prctl::set_keepcaps(false).context("keeping capabilities")?;
        }
        let mut sets = self.last;
        if filters && !self.no_new_privs {
            sets.permitted |= 1 << caps::SYS_ADMIN;
            sets.effective |= 1 << caps::SYS_ADMIN;
        }
        caps::set(sets).context("setting the capabilities")?;
        // A change of ids resets both.
        prctl::set_dumpable(false).context("closing the process to others")?;
        prctl::set_pdeathsig(Signal::SIGKILL).context("tying the container to its supervisor")?;
        if self.no_new_privs {
            prctl::set_no_new_privs().context("setting no_new_privs")?;
        }
        Ok(())
    }

    /// The ids as the emulation of ids begins with them; see [`decode_ids`].
    pub(super) fn encode_ids(&self, groups: &[u32]) -> Vec<u8> {
        let all = [self.uid, self.gid]
            .into_iter()
            .chain(groups.iter().copied());
        all.flat_map(u32::to_ne_bytes).collect()
    }

    /// The final capabilities.
    ///
    /// # Errors
    /// Those of capset(2).
    pub(super) fn seal(&self) -> Result<()> {
        caps::set(self.last).context("setting the capabilities")
    }
}

/// The inverse of [`Credentials::encode_ids`]: uid, gid, supplementary groups.
pub(super) fn decode_ids(bytes: &[u8]) -> Option<(u32, u32, Vec<u32>)> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let ids: Vec<u32> = chunks.iter().map(|c| u32::from_ne_bytes(*c)).collect();
    match ids.as_slice() {
        [uid, gid, groups @ ..] if rest.is_empty() => Some((*uid, *gid, groups.to_vec())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_kernels_order() {
        let shift = |name| bit(Capability::from_str(name).unwrap()).trailing_zeros();
        assert_eq!(shift("CHOWN"), 0);
        assert_eq!(shift("SETUID"), caps::SETUID);
        assert_eq!(shift("SYS_ADMIN"), caps::SYS_ADMIN);
        assert_eq!(shift("SETFCAP"), 31);
        assert_eq!(shift("CHECKPOINT_RESTORE"), 40);
        assert_eq!(bits(Some(&default_capabilities())), 0x8004_05fb);
    }
}
