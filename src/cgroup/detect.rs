//! Which cgroup this caller can have. Reads files only: no D-Bus, no writing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use crate::error::{Result, failed};

/// How a container's cgroup is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// By systemd, over D-Bus.
    Systemd {
        /// The manager's private socket, spoken to first: no bus, no Hello.
        private: Option<PathBuf>,
        /// Address of the bus to try next.
        bus: Option<String>,
    },
    /// As a child of the caller's own cgroup, which it may write to.
    Delegated {
        /// That cgroup's directory.
        own: PathBuf,
    },
    /// Not at all.
    None {
        /// Why, as a phrase.
        why: String,
        /// What to do to have one.
        hint: String,
    },
}

/// What [`detect`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availability {
    /// The way to a cgroup.
    pub rung: Rung,
    /// Controllers that a container's cgroup would have.
    pub controllers: Vec<String>,
    /// Where cgroup v2 is mounted, if it is.
    pub mount: Option<PathBuf>,
}

/// One cgroup2 mount of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// Path of the cgroup that is mounted, as this process names cgroups.
    root: String,
    /// Where it is mounted.
    point: PathBuf,
    /// Whether it is mounted read-only.
    read_only: bool,
}

/// What `/proc/self/cgroup` says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Membership {
    /// cgroup v2 only, and the path in it.
    Unified(String),
    /// Controllers are with v1 hierarchies (v1 or hybrid).
    Legacy,
    /// No cgroups in this kernel.
    Missing,
}

/// Finds out what this caller can have.
#[must_use]
pub fn detect() -> Availability {
    let membership = membership(&read(Path::new("/proc/self/cgroup")));
    let own = match membership {
        Membership::Unified(path) => path,
        Membership::Legacy => {
            return Availability::none(
                "the host runs cgroup v1 (or v1 and v2 side by side)",
                "boot with systemd.unified_cgroup_hierarchy=1 to have cgroup v2",
            );
        }
        Membership::Missing => {
            return Availability::none(
                "the kernel has no cgroups",
                "limits need a kernel with cgroup v2",
            );
        }
    };
    let Some(mount) = mounts(&read(Path::new("/proc/self/mountinfo")))
        .into_iter()
        .next()
    else {
        return Availability::none(
            "cgroup v2 is not mounted",
            "mount it: mount -t cgroup2 none /sys/fs/cgroup",
        );
    };
    if mount.read_only {
        return Availability::none(
            &format!("{} is mounted read-only", mount.point.display()),
            "inside a container, limits are set on that container from outside",
        );
    }
    let own = mount.directory(&own);
    let uid = nix::unistd::getuid().as_raw();
    systemd(&mount, uid)
        .or_else(|| delegated(&mount, own.as_deref()))
        .unwrap_or_else(|| no_session(&mount, uid))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Reads `/proc/self/cgroup`; see cgroups(7).
fn membership(text: &str) -> Membership {
    let mut unified = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        match (fields.next(), fields.next(), fields.next()) {
            (Some("0"), Some(""), Some(path)) => unified = Some(path.to_owned()),
            // A named hierarchy without controllers (name=systemd) comes with v1 and hybrid only.
            (Some(_), Some(_), Some(_)) => return Membership::Legacy,
            _ => {}
        }
    }
    unified.map_or(Membership::Missing, Membership::Unified)
}

/// The cgroup2 mounts of a mountinfo text, proc_pid_mountinfo(5).
fn mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (front, back) = line.split_once(" - ")?;
            let front: Vec<&str> = front.split(' ').collect();
            let mut back = back.split(' ');
            (back.next()? == "cgroup2").then_some(())?;
            let super_options = back.nth(1).unwrap_or("");
            let read_only = |options: &str| options.split(',').any(|o| o == "ro");
            Some(Mount {
                root: unescape(front.get(3)?),
                point: PathBuf::from(unescape(front.get(4)?)),
                read_only: read_only(front.get(5)?) || read_only(super_options),
            })
        })
        .collect()
}

/// Undoes mountinfo's octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

impl Mount {
    /// Directory of the cgroup `path`, if it is below this mount.
    fn directory(&self, path: &str) -> Option<PathBuf> {
        let below = if self.root == "/" {
            path
        } else {
            path.strip_prefix(self.root.as_str())
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))?
        };
        if below.split('/').any(|part| part == "..") {
            return None;
        }
        Some(self.point.join(below.trim_start_matches('/')))
    }
}

/// Directory of the cgroup that this process is in.
pub(crate) fn own_directory() -> Option<PathBuf> {
    let Membership::Unified(path) = membership(&read(Path::new("/proc/self/cgroup"))) else {
        return None;
    };
    mounts(&read(Path::new("/proc/self/mountinfo")))
        .first()?
        .directory(&path)
}

/// The rung over systemd: the caller's own manager, by its socket files.
fn systemd(mount: &Mount, uid: u32) -> Option<Availability> {
    let unix = |path: PathBuf| existing(path).map(|p| format!("unix:path={}", p.display()));
    let (private, bus, subtree) = if uid == 0 {
        if !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        (
            existing("/run/systemd/private".into()),
            unix("/run/dbus/system_bus_socket".into()),
            mount.point.clone(),
        )
    } else {
        // Under su and cron the variable is missing or another user's, and scripts set one of
        // their own; the user's manager may run all the same.
        let dirs = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .into_iter()
            .chain([PathBuf::from(format!("/run/user/{uid}"))]);
        let dir = dirs
            .filter(|dir| owned_by(dir, uid))
            .find(|dir| dir.join("systemd/private").exists() || dir.join("bus").exists())?;
        let named = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok();
        (
            existing(dir.join("systemd/private")),
            unix(dir.join("bus")).or(named.filter(|address| !address.is_empty())),
            mount
                .point
                .join(format!("user.slice/user-{uid}.slice/user@{uid}.service")),
        )
    };
    // A session bus alone does not mean that systemd is on it; its own cgroup does.
    if (private.is_none() && bus.is_none()) || !subtree.join("cgroup.controllers").exists() {
        return None;
    }
    Some(Availability {
        rung: Rung::Systemd { private, bus },
        controllers: words(&subtree.join("cgroup.controllers")),
        mount: Some(mount.point.clone()),
    })
}

/// The rung of an own cgroup that is writable and may have children with controllers.
fn delegated(mount: &Mount, own: Option<&Path>) -> Option<Availability> {
    let own = own?;
    // The root of the whole tree is nobody's delegation unless the caller runs everything.
    for name in ["", "cgroup.procs", "cgroup.subtree_control"] {
        let path = own.join(name);
        nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK).ok()?;
    }
    let mut controllers = words(&own.join("cgroup.subtree_control"));
    if controllers.is_empty() && super::scope::only_our_own(own) {
        // Nobody but rless is in there: it can make room and hand everything on.
        controllers = words(&own.join("cgroup.controllers"));
    }
    Some(Availability {
        rung: Rung::Delegated {
            own: own.to_owned(),
        },
        controllers,
        mount: Some(mount.point.clone()),
    })
}

fn no_session(mount: &Mount, uid: u32) -> Availability {
    let mut none = Availability::none(
        "this process belongs to no systemd user session, and its cgroup is not writable",
        &format!(
            "log in properly (ssh, or machinectl shell USER@.host), or keep a user manager running: \
             loginctl enable-linger USER, then XDG_RUNTIME_DIR=/run/user/{uid}"
        ),
    );
    none.mount = Some(mount.point.clone());
    none
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}

fn owned_by(path: &Path, uid: u32) -> bool {
    std::fs::symlink_metadata(path)
        .is_ok_and(|m| m.is_dir() && std::os::unix::fs::MetadataExt::uid(&m) == uid)
}

/// The words of a cgroup file.
pub(crate) fn words(path: &Path) -> Vec<String> {
    read(path).split_whitespace().map(str::to_owned).collect()
}

impl Availability {
    /// No cgroup, with the reason and the way to one.
    fn none(why: &str, hint: &str) -> Availability {
        Availability {
            rung: Rung::None {
                why: why.to_owned(),
                hint: hint.to_owned(),
            },
            controllers: Vec::new(),
            mount: None,
        }
    }

    /// Whether a container can have a cgroup.
    #[must_use]
    pub fn is_available(&self) -> bool {
        !matches!(self.rung, Rung::None { .. })
    }

    /// Whether these limits can be kept here. Called before anything is started, so that a limit
    /// is applied or refused, never dropped.
    ///
    /// # Errors
    /// A fault with the reason and the fix.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        let needed = limits.controllers();
        if needed.is_empty() {
            return Ok(());
        }
        let flags = flags_of(&needed, limits);
        match &self.rung {
            Rung::None { why, hint } => Err(failed(format!(
                "limiting the container ({flags}): there is no cgroup for it: {why}"
            ))
            .hint(hint)
            .into()),
            rung => {
                let missing: Vec<&str> = needed
                    .into_iter()
                    .filter(|c| !self.controllers.iter().any(|have| have == c))
                    .collect();
                if missing.is_empty() {
                    return Ok(());
                }
                let fault = failed(format!(
                    "limiting the container ({}): the cgroup controller{} {} not delegated to this user",
                    flags_of(&missing, limits),
                    if missing.len() == 1 { "" } else { "s" },
                    match missing.as_slice() {
                        [one] => format!("`{one}` is"),
                        many => format!(
                            "{} are",
                            many.iter()
                                .map(|c| format!("`{c}`"))
                                .collect::<Vec<_>>()
                                .join(", ")
                        ),
                    }
                ));
                Err(match rung {
                    Rung::Systemd { .. } => fault.hint(DROP_IN),
                    _ => fault.hint(format!(
                        "whoever made this cgroup has to enable {} in its cgroup.subtree_control",
                        missing.join(" ")
                    )),
                }
                .into())
            }
        }
    }

    /// The lines about cgroups in `rless info`: name and value.
    #[must_use]
    pub fn describe(&self) -> Vec<(String, String)> {
        let manager = match &self.rung {
            Rung::Systemd {
                private: Some(_), ..
            } => "systemd (private socket)".to_owned(),
            Rung::Systemd { .. } => "systemd (bus)".to_owned(),
            Rung::Delegated { own } => format!("delegated: {}", own.display()),
            Rung::None { why, .. } => format!("none: {why}"),
        };
        let mut lines = vec![("cgroupManager".to_owned(), manager)];
        if let Rung::None { hint, .. } = &self.rung {
            lines.push(("cgroupHint".to_owned(), hint.clone()));
            return lines;
        }
        let missing: Vec<&str> = ["cpu", "cpuset", "io", "memory", "pids"]
            .into_iter()
            .filter(|c| !self.controllers.iter().any(|have| have == c))
            .collect();
        lines.push(("cgroupControllers".to_owned(), self.controllers.join(" ")));
        if !missing.is_empty() {
            lines.push(("cgroupControllersMissing".to_owned(), missing.join(" ")));
            if matches!(self.rung, Rung::Systemd { .. }) {
                lines.push(("cgroupHint".to_owned(), DROP_IN.to_owned()));
            }
        }
        lines
    }
}

/// How an administrator delegates every controller to users.
const DROP_IN: &str = "an administrator delegates them with a drop-in, effective at the next login: \
    mkdir -p /etc/systemd/system/user@.service.d && \
    printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' > /etc/systemd/system/user@.service.d/delegate.conf && \
    systemctl daemon-reload";

/// The flags of `run` that need a controller, for messages.
fn flags_of(controllers: &[&str], limits: &Limits) -> String {
    let mut flags: Vec<&str> = Vec::new();
    for controller in controllers {
        match *controller {
            "cpuset" => flags.push("--cpuset-cpus"),
            "cpu" => flags.push("--cpus, --cpu-shares"),
            "io" => {
                flags.extend(limits.io.throttles().then_some("--device-read-bps …"));
                flags.extend(limits.io.weighs().then_some("--blkio-weight"));
            }
            "memory" => flags.push("--memory"),
            "pids" => flags.push("--pids-limit"),
            _ => {}
        }
    }
    flags.extend((!limits.conf.is_empty()).then_some("--cgroup-conf"));
    flags.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Bound;
    use crate::error::report;

    #[test]
    fn hybrid_and_v1_hosts_are_told_from_v2() {
        assert_eq!(
            membership("9:name=systemd:/\n4:memory:/x\n0::/\n"),
            Membership::Legacy
        );
        assert_eq!(
            membership("0::/user.slice/a:b\n"),
            Membership::Unified("/user.slice/a:b".into())
        );
        assert_eq!(membership(""), Membership::Missing);
    }

    #[test]
    fn cgroup_paths_are_found_below_the_mount() {
        let line = "25 30 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                    26 30 0:23 / /run rw - tmpfs tmpfs rw\n";
        let found = mounts(line);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].directory("/a/b"),
            Some(PathBuf::from("/sys/fs/cgroup/a/b"))
        );
        assert_eq!(found[0].directory("/../x"), None);
        let bound = Mount {
            root: "/a".into(),
            ..found[0].clone()
        };
        assert_eq!(
            bound.directory("/a/b"),
            Some(PathBuf::from("/sys/fs/cgroup/b"))
        );
        assert_eq!(bound.directory("/ab"), None);
        assert!(mounts("25 30 0:22 / /c ro - cgroup2 cgroup2 rw\n")[0].read_only);
    }

    fn available(rung: Rung, controllers: &[&str]) -> Availability {
        Availability {
            rung,
            controllers: controllers.iter().map(|s| (*s).to_owned()).collect(),
            mount: None,
        }
    }

    #[test]
    fn a_limit_is_kept_or_refused_with_the_fix() {
        let limits = Limits {
            cpus: Some("0".into()),
            memory: Some(Bound::At(1)),
            ..Limits::default()
        };
        let systemd = Rung::Systemd {
            private: None,
            bus: Some(String::new()),
        };
        let text = report(
            &available(systemd.clone(), &["cpu", "memory", "pids"])
                .check(&limits)
                .expect_err("no cpuset"),
        );
        assert!(
            text.contains("`cpuset` is not delegated") && text.contains("--cpuset-cpus"),
            "{text}"
        );
        assert!(
            text.contains("Delegate=cpu cpuset io memory pids"),
            "{text}"
        );
        assert!(
            available(systemd, &["cpuset", "memory"])
                .check(&limits)
                .is_ok()
        );
        let none = Availability::none("reason", "fix it so");
        let text = report(&none.check(&limits).expect_err("none"));
        assert!(
            text.contains("reason") && text.contains("hint: fix it so"),
            "{text}"
        );
        let mut slow = Limits::default();
        slow.io.weight = Some(100);
        let text = report(
            &available(
                Rung::Systemd {
                    private: None,
                    bus: None,
                },
                &["cpu", "memory", "pids"],
            )
            .check(&slow)
            .expect_err("no io"),
        );
        assert!(
            text.contains("`io` is not delegated") && text.contains("--blkio-weight"),
            "{text}"
        );
        let unlimited = Limits {
            pids: Some(Bound::Max),
            ..Limits::default()
        };
        assert!(none.check(&unlimited).is_ok());
    }
}
