//! `diff`: what a container changed, or what an image's uppermost layer did, as podman lists it.
//!
//! podman reads it off the directory that overlayfs keeps the changes in. So a directory is listed if its mode, time or owner
//! differ; every directory above something new or gone, but not above what was only changed; and a directory in the place of
//! another one as deleted, with what is in it as new. Mount points that every container has are left out.

use std::collections::HashSet;

use super::record::Containers;
use super::view::View;
use crate::cow::diff::{Change, Kind};
use crate::error::{self, Fault, Kind as ErrorKind, Result};
use crate::store::Store;

/// Paths that are never listed.
const HIDDEN: [&[u8]; 12] = [
    b"dev",
    b"etc/hostname",
    b"etc/hosts",
    b"etc/resolv.conf",
    b"proc",
    b"run",
    b"run/notify",
    b"run/.containerenv",
    b"run/secrets",
    b"dev/init",
    b"sys",
    b"etc/mtab",
];

/// How a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letter {
    /// `A`
    Added,
    /// `C`
    Changed,
    /// `D`
    Deleted,
}

/// One line: a path without a slash in front.
pub type Line = (Letter, Vec<u8>);

/// What the container or image of this name changed.
///
/// # Errors
/// There is neither; it cannot be read.
pub fn diff(store: &Store, name: &str) -> Result<Vec<Line>> {
    let containers = Containers::of(store);
    match containers.find(name) {
        Ok(record) => {
            let view = View::of(store, &containers, &record.id, false)?;
            Ok(lines(&view.cow.diff()?))
        }
        Err(e) if error::kind(&e) == ErrorKind::NoSuchObject => {
            let unknown = || {
                let text = format!("{name} not found: layer not known");
                Fault::new(ErrorKind::Failed, text)
            };
            let image = store.find_image(name)?.ok_or_else(unknown)?;
            Ok(lines(&store.image_changes(&image)?))
        }
        Err(e) => Err(e),
    }
}

/// As podman lists changes.
fn lines(changes: &[Change]) -> Vec<Line> {
    let mut out = Vec::new();
    let mut dirs: HashSet<&[u8]> = HashSet::new();
    for change in changes {
        if change.path.is_empty() || change.kind == Kind::Parent {
            continue;
        }
        let letter = match change.kind {
            _ if change.opaque => Letter::Deleted,
            Kind::Added => Letter::Added,
            Kind::Deleted => Letter::Deleted,
            Kind::Changed | Kind::Parent => Letter::Changed,
        };
        if change.is_dir {
            dirs.insert(&change.path);
        }
        if letter != Letter::Changed {
            let mut above: Vec<&[u8]> = ancestors(&change.path).collect();
            above.reverse();
            for dir in above {
                if dirs.insert(dir) {
                    out.push((Letter::Changed, dir.to_vec()));
                }
            }
        }
        out.push((letter, change.path.clone()));
    }
    out.retain(|(_, path)| !HIDDEN.contains(&&path[..]));
    out
}

/// The directories that a path is in, the nearest first, without the root.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().rev();
    slashes
        .filter(|(_, b)| **b == b'/')
        .map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: Kind, path: &str, is_dir: bool) -> Change {
        Change {
            path: path.as_bytes().to_vec(),
            kind,
            ino: 0,
            is_dir,
            opaque: false,
        }
    }

    /// Recorded from podman 5.4.2 (`touch`, `rm`, `mkdir`, `echo >>` in a container).
    #[test]
    fn lines_are_those_of_podman() {
        let mut replaced = change(Kind::Changed, "etc/network", true);
        replaced.opaque = true;
        let changes = [
            change(Kind::Parent, "", true),
            change(Kind::Changed, "etc", true),
            change(Kind::Changed, "etc/hosts", false),
            change(Kind::Deleted, "etc/motd", false),
            replaced,
            change(Kind::Added, "etc/network/q", false),
            change(Kind::Parent, "usr", true),
            change(Kind::Parent, "usr/share", true),
            change(Kind::Changed, "usr/share/x", false),
            change(Kind::Parent, "var", true),
            change(Kind::Changed, "var/lib", true),
            change(Kind::Added, "var/lib/udhcpd", true),
            change(Kind::Added, "var/lib/udhcpd/f", false),
        ];
        let text = |(letter, path): &Line| {
            let letter = match letter {
                Letter::Added => 'A',
                Letter::Changed => 'C',
                Letter::Deleted => 'D',
            };
            format!("{letter} /{}", String::from_utf8_lossy(path))
        };
        let told: Vec<String> = lines(&changes).iter().map(text).collect();
        assert_eq!(
            told,
            [
                "C /etc",
                "D /etc/motd",
                "D /etc/network",
                "A /etc/network/q",
                "C /usr/share/x",
                "C /var/lib",
                "C /var",
                "A /var/lib/udhcpd",
                "A /var/lib/udhcpd/f",
            ]
        );
    }
}
