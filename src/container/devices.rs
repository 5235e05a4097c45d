//! Devices of the host in a container: `--device HOST[:CONTAINER][:PERMISSIONS]`.
//!
//! As with rootless podman the host's node is bound into the container, by the one kind of mount there that is not `nodev`
//! (but `nosuid` and `noexec`). No node is ever made: the kernel lets nobody but the host's root do that, whatever
//! capability a container has, and on the container's own file systems no node opens anything. So a device gives what its mode and owner
//! give to the caller's ids on the host, and no more. The groups that the caller has there (`render`, `dialout`) are
//! the container's with `--group-add keep-groups` alone.
//!
//! A permission that is left out cannot be kept from the container, which takes a control group's device filter that only
//! root can load: `r` alone makes the mount read-only, as with podman, and a device is written to all the same. Who asks for it is told.
//!
//! Nodes are looked at at every start, those of a directory each time anew.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

use super::mounts::normalise;
use super::spec::mounts::Resolved;
use crate::error::{Fault, Kind, Result, ResultExt, failed, usage};

/// Levels of directories that are walked: more than /dev has.
const DEPTH: u32 = 16;

/// A device, or a directory of devices, that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the host, as typed until [`Device::settled`].
    pub host: PathBuf,
    /// Inside; `None`: where it is on the host.
    pub inside: Option<String>,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

impl Device {
    /// `HOST[:CONTAINER][:PERMISSIONS]`.
    ///
    /// # Errors
    /// Malformed.
    pub fn parse(text: &str) -> Result<Device> {
        let parts: Vec<&str> = text.split(':').collect();
        let (host, inside, permissions) = match parts.as_slice() {
            [host] => (*host, None, None),
            [host, ""] => (*host, None, None),
            [host, second] if is_mode(second) => (*host, None, Some(*second)),
            [host, inside] => (*host, Some(*inside), None),
            [host, inside, mode] => (*host, Some(*inside), Some(*mode)),
            _ => return Err(usage(format!("invalid device specification: {text}")).into()),
        };
        let bad = |mode: &str| usage(format!("invalid device mode: {mode}"));
        if let Some(mode) = permissions.filter(|mode| !is_mode(mode)) {
            return Err(bad(mode).into());
        }
        if let Some(path) = inside.filter(|path| !path.starts_with('/')) {
            return Err(bad(path).into());
        }
        if !host.starts_with('/') && host.contains('=') {
            let what = format!("device {text}: CDI devices are not there yet");
            let fault = Fault::new(Kind::NotExecutable, what); // podman's code for one it does not know
            return Err(fault
                .hint("name the device's nodes: --device /dev/NAME")
                .into());
        }
        Ok(Device {
            host: host.into(),
            inside: inside.map(normalise).transpose()?,
            permissions: permissions.unwrap_or("rwm").to_owned(),
        })
    }

    /// With an absolute path on the host. A link's place inside is that of what it leads to, as podman has it.
    ///
    /// # Errors
    /// There is nothing.
    pub fn settled(&self) -> Result<Device> {
        let link = fs::symlink_metadata(&self.host).map(|about| about.is_symlink());
        let host = match link {
            Ok(true) => fs::canonicalize(&self.host),
            Ok(false) => std::path::absolute(&self.host),
            Err(e) => Err(e),
        };
        Ok(Device {
            host: host.fault(|| failed(format!("stat {}", self.host.display())))?,
            ..self.clone()
        })
    }

    /// The caller may write to it, though it was not asked for.
    #[must_use]
    pub fn more_than_asked(&self) -> bool {
        !self.permissions.contains('w') && access(&self.host, AccessFlags::W_OK).is_ok()
    }

    /// The nodes that it stands for now, as mounts.
    ///
    /// # Errors
    /// It is no device, or a directory without one.
    pub fn mounts(&self) -> Result<Vec<Resolved>> {
        let mut nodes = Vec::new();
        if self.host.is_dir() {
            walk(&self.host, DEPTH, &mut nodes);
            if nodes.is_empty() {
                let text = format!("no devices found in {}", self.host.display());
                return Err(usage(text).into());
            }
            nodes.sort();
        } else {
            let about = fs::metadata(&self.host)
                .fault(|| failed(format!("stat {}", self.host.display())))?;
            let kind = about.file_type();
            if !(kind.is_char_device() || kind.is_block_device()) {
                return Err(usage(format!(
                    "{} is not a valid device: not a device node",
                    self.host.display()
                ))
                .into());
            }
            nodes.push(self.host.clone());
        }
        nodes.into_iter().map(|node| self.mount(node)).collect()
    }

    fn mount(&self, node: PathBuf) -> Result<Resolved> {
        let below = node.strip_prefix(&self.host).unwrap_or(Path::new(""));
        let target = match &self.inside {
            Some(inside) if below.as_os_str().is_empty() => PathBuf::from(inside),
            Some(inside) => Path::new(inside).join(below),
            None => node.clone(),
        };
        let target = target
            .to_str()
            .ok_or_else(|| usage(format!("device {}: its name is not UTF-8", node.display())))?;
        let access = if self.permissions.contains('w') {
            "rw"
        } else {
            "ro"
        };
        let options = ["bind", "rprivate", "nosuid", "noexec", "dev", access];
        Ok(Resolved {
            target: normalise(target)?,
            source: Some(node),
            options: options.map(str::to_owned).to_vec(),
            copy_up: false,
            volume: None,
            anonymous: false,
        })
    }
}

/// `r`, `w` and `m`, each at most once.
fn is_mode(text: &str) -> bool {
    let once = |c: char| text.matches(c).count() <= 1;
    !text.is_empty() && text.chars().all(|c| "rwm".contains(c) && once(c))
}

/// Every node below a directory; what cannot be read is left out, links are not followed.
fn walk(dir: &Path, depth: u32, nodes: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_char_device() || kind.is_block_device() {
            nodes.push(entry.path());
        } else if kind.is_dir() && depth > 0 {
            walk(&entry.path(), depth - 1, nodes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, host, inside, permissions) in [
            ("/dev/fuse", "/dev/fuse", None, "rwm"),
            ("/dev/fuse:rw", "/dev/fuse", None, "rw"),
            ("/dev/a:/dev/b", "/dev/a", Some("/dev/b"), "rwm"),
            ("/dev/a:/dev/b:m", "/dev/a", Some("/dev/b"), "m"),
            ("/dev/a:/dev//x/../b", "/dev/a", Some("/dev/b"), "rwm"),
        ] {
            let device = Device::parse(text).expect(text);
            assert_eq!(device.host, Path::new(host), "{text}");
            assert_eq!(device.inside.as_deref(), inside, "{text}");
            assert_eq!(device.permissions, permissions, "{text}");
        }
        for bad in [
            "/dev/a:x",
            "/dev/a:rr",
            "/dev/a:dev/b",
            "/dev/a:/dev/b:",
            "/dev/a:/dev/b:rwx",
            "/dev/a:/dev/b:r:w",
            "/dev/a:/",
            "nvidia.com/gpu=all",
        ] {
            assert!(Device::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_is_bound_where_it_was_asked_for() {
        let mounts = |text: &str| Device::parse(text).unwrap().settled()?.mounts();
        let null = mounts("/dev/null").unwrap();
        assert_eq!(null[0].target, "/dev/null");
        let options = ["bind", "rprivate", "nosuid", "noexec", "dev", "rw"];
        assert_eq!(null[0].options, options);
        let other = mounts("/dev/zero:/dev/other:r").unwrap();
        assert_eq!(other[0].target, "/dev/other");
        assert_eq!(other[0].source.as_deref(), Some(Path::new("/dev/zero")));
        assert_eq!(other[0].options.last().map(String::as_str), Some("ro"));
        for bad in ["/dev/no/such", "/etc/passwd", "/etc"] {
            assert!(mounts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_link_gives_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let device = Device::parse(link.to_str().unwrap()).unwrap();
        let mounts = device.settled().unwrap().mounts().unwrap();
        assert_eq!(mounts[0].target, "/dev/zero");
    }
}
