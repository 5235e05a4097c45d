//! Which capabilities a container's process has.

use std::collections::HashSet;
use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::container::request::Security;
use crate::error::{Result, usage};

/// Podman's default set: what ordinary packages and services need.
const DEFAULT: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// capabilities(7), all of them.
const ALL: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Every capability.
#[must_use]
pub fn all() -> Capabilities {
    ALL.iter()
        .filter_map(|n| Capability::from_str(n).ok())
        .collect()
}

/// The default set, as `CAP_CHOWN` and so on.
#[must_use]
pub fn default_names() -> Vec<String> {
    DEFAULT.iter().map(|c| format!("CAP_{c}")).collect()
}

/// `net_raw`, `CAP_NET_RAW`, `all` as the name in capabilities(7) without its prefix.
///
/// # Errors
/// There is no such capability.
pub fn normalise(name: &str) -> Result<String> {
    let upper = name.trim().to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if short == "ALL" || ALL.contains(&short) {
        return Ok(short.to_owned());
    }
    Err(usage(format!("unknown capability {name:?}")).into())
}

/// The bounding set that `security` asks for.
///
/// # Errors
/// A name that is no capability, or is both added and dropped.
pub fn bounding(security: &Security) -> Result<Capabilities> {
    let add = names(&security.cap_add)?;
    let drop = names(&security.cap_drop)?;
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    if let Some(both) = add.iter().find(|n| has(&drop, n)) {
        return Err(usage(format!("capability {both} is both added and dropped")).into());
    }
    let mut set: HashSet<Capability> = DEFAULT.into_iter().collect();
    if security.privileged || has(&add, "ALL") {
        set = all();
    }
    if has(&drop, "ALL") {
        set.clear();
    }
    set.extend(add.iter().filter_map(|n| Capability::from_str(n).ok()));
    for name in drop.iter().filter_map(|n| Capability::from_str(n).ok()) {
        set.remove(&name);
    }
    Ok(set)
}

/// The five sets of a process with user `uid`: root has the bounding set, others nothing;
/// nothing is ever inherited (CVE-2022-24769).
#[must_use]
pub fn sets(bounding: &Capabilities, uid: u32) -> LinuxCapabilities {
    let effective = if uid == 0 {
        bounding.clone()
    } else {
        Capabilities::default()
    };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding.clone()));
    sets.set_permitted(Some(effective.clone()));
    sets.set_effective(Some(effective));
    sets.set_inheritable(Some(Capabilities::default()));
    sets.set_ambient(Some(Capabilities::default()));
    sets
}

fn names(list: &[String]) -> Result<Vec<String>> {
    list.iter().map(|n| normalise(n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_names_are_those_of_the_configuration() {
        let json = serde_json::to_value(DEFAULT).unwrap();
        assert_eq!(json, serde_json::json!(default_names()));
    }

    fn of(add: &[&str], drop: &[&str]) -> Capabilities {
        bounding(&Security {
            cap_add: add.iter().map(|s| (*s).to_owned()).collect(),
            cap_drop: drop.iter().map(|s| (*s).to_owned()).collect(),
            ..Security::default()
        })
        .unwrap()
    }

    #[test]
    fn every_name_is_known_to_the_spec_crate() {
        for name in ALL {
            assert!(Capability::from_str(name).is_ok(), "{name}");
        }
        assert_eq!(of(&["ALL"], &[]).len(), ALL.len());
    }

    #[test]
    fn adding_and_dropping() {
        assert_eq!(of(&[], &[]).len(), 11);
        assert_eq!(of(&[], &["all"]).len(), 0);
        assert_eq!(of(&["CAP_net_raw"], &["ALL"]), [Capability::NetRaw].into());
        assert!(!of(&["all"], &["sys_admin"]).contains(&Capability::SysAdmin));
    }

    #[test]
    fn nonsense_is_refused() {
        let both = Security {
            cap_add: vec!["kill".into()],
            cap_drop: vec!["CAP_KILL".into()],
            ..Security::default()
        };
        assert!(bounding(&both).is_err());
        assert!(normalise("CAP_FLY").is_err());
    }

    #[test]
    fn a_user_other_than_root_has_a_bounding_set_only() {
        let sets = sets(&of(&[], &[]), 1000);
        assert!(sets.effective().as_ref().unwrap().is_empty());
        assert!(sets.permitted().as_ref().unwrap().is_empty());
        assert!(sets.ambient().as_ref().unwrap().is_empty());
        assert!(sets.inheritable().as_ref().unwrap().is_empty());
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 11);
    }
}
