//! Whether detached containers outlive their user's logout.
//!
//! systemd ends a user's manager, and every unit below it, when the user's last session ends; unless the user lingers
//! (loginctl(1)). A container's scope is such a unit. Without a manager (su, cron, a batch system) the container is in the
//! caller's own control group, and ends with that where systemd ends what sessions leave (`KillUserProcesses=`, logind.conf(5)).

use std::path::Path;

use nix::unistd::{User, getuid};

use crate::cgroup::{self, Rung};

/// What somebody should know who has just detached a container; `None`: it stays.
#[must_use]
pub fn warning() -> Option<String> {
    let uid = getuid();
    if uid.is_root() || !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let name = User::from_uid(uid).ok().flatten().map(|u| u.name);
    let name = name.unwrap_or_else(|| uid.to_string());
    let lingers = Path::new("/var/lib/systemd/linger").join(&name).exists();
    let managed = matches!(cgroup::detect().rung, Rung::Systemd { .. });
    text(&name, lingers, managed)
}

fn text(name: &str, lingers: bool, managed: bool) -> Option<String> {
    match (managed, lingers) {
        (true, true) => None,
        (true, false) => Some(format!(
            "rless: warning: the container ends when you log out\n  hint: `loginctl enable-linger {name}` lets it go on"
        )),
        (false, true) => Some(
            "rless: warning: there is no systemd session here, so the container has no control group of its own\n  \
             hint: `export XDG_RUNTIME_DIR=/run/user/$(id -u)` finds the one that lingers"
                .to_owned(),
        ),
        (false, false) => Some(format!(
            "rless: warning: there is no systemd session here (as under su, sudo or cron): the container may end with the \
             session it was started from\n  hint: `loginctl enable-linger {name}`, then log in, or \
             `export XDG_RUNTIME_DIR=/run/user/$(id -u)`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_lose_the_container_is_told_the_command() {
        assert_eq!(text("ada", true, true), None);
        for (lingers, managed) in [(false, true), (false, false)] {
            let text = text("ada", lingers, managed).unwrap();
            assert!(text.contains("loginctl enable-linger ada"), "{text}");
        }
        assert!(
            text("ada", true, false)
                .unwrap()
                .contains("XDG_RUNTIME_DIR")
        );
    }
}
