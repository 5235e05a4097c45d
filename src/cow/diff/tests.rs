//! Changes over a lower with something of everything, as paths with letters.

use super::super::meta::Caller;
use super::super::{Cow, Lower, Options};
use super::{Change, Kind};
use crate::cow::upper::{New, SetAttr};
use std::path::Path;

const ROOT: Caller = Caller { uid: 0, gid: 0 };

fn open(dir: &Path) -> Cow {
    let lower = dir.join("lower");
    if !lower.exists() {
        for sub in ["a/b/c", "d/e", "empty"] {
            std::fs::create_dir_all(lower.join(sub)).unwrap();
        }
        for file in ["a/f", "a/b/g", "a/b/c/h", "d/e/i", "top"] {
            std::fs::write(lower.join(file), file).unwrap();
        }
        std::fs::hard_link(lower.join("a/f"), lower.join("d/f2")).unwrap();
    }
    let packs = dir.join("image");
    if !packs.exists() {
        image(&lower, &packs);
    }
    Cow::open(Options {
        lower: Lower::Image {
            index: packs.join("image.idx"),
            packs: packs.join("packs"),
        },
        upper: Some(dir.join("upper")),
        squash: None,
        size_limit: None,
        stats: None,
    })
    .unwrap()
}

/// An image of the directory: its index, with empty files.
fn image(lower: &Path, out: &Path) {
    use crate::cow::index::layer::{Act, Layer, Writer};
    use crate::cow::index::{Data, Inode, Time};
    use std::os::unix::fs::MetadataExt;
    std::fs::create_dir_all(out.join("packs")).unwrap();
    let mut writer = Writer::new(Vec::new(), &[0; 32]).unwrap();
    let (mut dirs, mut seen) = (vec![lower.to_owned()], std::collections::HashMap::new());
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let name = path
                .strip_prefix(lower)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let is_dir = meta.is_dir();
            if is_dir {
                dirs.push(path.clone());
            } else if let Some(first) = seen.insert(meta.ino(), name.clone()) {
                let act = Act::Link(first.as_bytes());
                writer.push(name.as_bytes(), &act, []).unwrap();
                continue;
            }
            let inode = Inode {
                mode: if is_dir { 0o40755 } else { 0o100_644 },
                nlink: 0,
                uid: 0,
                gid: 0,
                rdev_major: 0,
                rdev_minor: 0,
                size: 0,
                mtime: Time { sec: 5, nsec: 0 },
                atime: Time::default(),
                ctime: Time::default(),
                data: match is_dir {
                    true => Data::Dir {
                        parent: 0,
                        entries: 0,
                    },
                    false => Data::None,
                },
            };
            writer.push(name.as_bytes(), &Act::Node(inode), []).unwrap();
        }
    }
    let layer = Layer::from_bytes(writer.finish(&[]).unwrap()).unwrap();
    let index = crate::cow::merge::merge(&[layer]).unwrap();
    std::fs::write(out.join("image.idx"), index.bytes()).unwrap();
}

fn at(cow: &Cow, path: &str) -> (u64, String) {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = cow.stat(&Path::new("/").join(dir)).unwrap().unwrap().ino;
    (dir, name.to_owned())
}

fn ino(cow: &Cow, path: &str) -> u64 {
    cow.lstat(&Path::new("/").join(path)).unwrap().unwrap().ino
}

fn mv(cow: &Cow, from: &str, to: &str, flags: u32) {
    let ((p, n), (q, m)) = (at(cow, from), at(cow, to));
    cow.tree
        .rename(ROOT, p, n.as_bytes(), q, m.as_bytes(), flags)
        .unwrap();
}

fn rm(cow: &Cow, path: &str) {
    let (dir, name) = at(cow, path);
    if cow.tree.true_meta(ino(cow, path)).unwrap().is_dir() {
        cow.tree.rmdir(dir, name.as_bytes()).unwrap();
    } else {
        cow.tree.unlink(dir, name.as_bytes()).unwrap();
    }
}

fn make(cow: &Cow, path: &str, mode: u32) {
    let (dir, name) = at(cow, path);
    let new = New {
        mode,
        ..New::default()
    };
    cow.tree.create(ROOT, dir, name.as_bytes(), &new).unwrap();
}

fn write(cow: &Cow, path: &str) {
    cow.tree
        .write(ROOT, ino(cow, path), 0, b"x", false)
        .unwrap();
}

const DIR: u32 = libc::S_IFDIR | 0o755;
const FILE: u32 = libc::S_IFREG | 0o644;

fn told(cow: &Cow) -> String {
    let line = |c: &Change| {
        let letter = match (c.kind, c.opaque) {
            (_, true) => 'O',
            (Kind::Parent, _) => 'P',
            (Kind::Added, _) => 'A',
            (Kind::Changed, _) => 'C',
            (Kind::Deleted, _) => 'D',
        };
        format!("{letter} {}", String::from_utf8_lossy(&c.path))
    };
    let all: Vec<String> = cow.diff().unwrap().iter().map(line).collect();
    all.join(", ")
}

fn check(change: impl Fn(&Cow), expect: &str) {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    assert_eq!(told(&cow), "");
    change(&cow);
    assert_eq!(told(&cow), expect);
    cow.sync().unwrap();
    drop(cow);
    assert_eq!(told(&open(dir.path())), expect, "opened again");
}

#[test]
fn attributes_content_and_names() {
    let chmod = |cow: &Cow, path: &str| {
        let set = SetAttr {
            mode: Some(0o600),
            ..SetAttr::default()
        };
        cow.tree.setattr(ROOT, ino(cow, path), &set).unwrap();
    };
    check(
        |c| chmod(c, "a/b/c/h"),
        "P , P a, P a/b, P a/b/c, C a/b/c/h",
    );
    check(|c| chmod(c, "a"), "P , C a");
    check(|c| write(c, "top"), "P , C top");
    check(
        |c| {
            c.tree
                .setxattr(ROOT, ino(c, "top"), b"user.x", b"1", 0)
                .unwrap()
        },
        "P , C top",
    );
    check(|c| make(c, "a/b/new", FILE), "P , P a, C a/b, A a/b/new");
    check(|c| rm(c, "a/b/g"), "P , P a, C a/b, D a/b/g");
    // The whole of a directory that goes is one line.
    check(
        |c| ["d/e/i", "d/e"].iter().for_each(|p| rm(c, p)),
        "P , C d, D d/e",
    );
    check(
        |c| {
            rm(c, "top");
            make(c, "top", DIR);
            make(c, "top/x", FILE);
        },
        "C , C top, A top/x",
    );
}

#[test]
fn what_was_looked_at_or_taken_back_is_no_change() {
    check(
        |c| {
            let i = ino(c, "top");
            c.tree.setxattr(ROOT, i, b"user.x", b"1", 0).unwrap();
            c.tree.removexattr(i, b"user.x").unwrap();
            let meta = c.tree.true_meta(i).unwrap();
            let set = SetAttr {
                atime: Some(crate::cow::upper::Stamp::Now),
                mode: Some(meta.mode & 0o7777),
                ..SetAttr::default()
            };
            c.tree.setattr(ROOT, i, &set).unwrap();
        },
        "",
    );
}

#[test]
fn directories_moved_exchanged_and_replaced() {
    check(
        |c| mv(c, "a/b", "moved", 0),
        "C , C a, D a/b, A moved, A moved/c, A moved/c/h, A moved/g",
    );
    check(
        |c| mv(c, "a/b", "d/e", 2),
        "P , C a, O a/b, A a/b/i, C d, O d/e, A d/e/c, A d/e/c/h, A d/e/g",
    );
    check(
        |c| {
            rm(c, "d/e/i");
            rm(c, "d/e");
            make(c, "d/e", DIR);
            make(c, "d/e/new", FILE);
        },
        "P , C d, O d/e, A d/e/new",
    );
    check(
        |c| {
            mv(c, "a/b", "gone", 0);
            mv(c, "gone", "a/b", 0);
        },
        "C , C a",
    );
    check(
        |c| mv(c, "a", "empty/a", 0),
        "C , D a, P d, C d/f2, C empty, A empty/a, A empty/a/b, A empty/a/b/c, A empty/a/b/c/h, A empty/a/b/g, A empty/a/f",
    );
}

#[test]
fn a_file_with_several_names_is_listed_at_all_of_them() {
    check(|c| write(c, "a/f"), "P , P a, C a/f, P d, C d/f2");
    check(
        |c| c.tree.link(ino(c, "a/f"), 1, b"third").unwrap(),
        "C , P a, C a/f, P d, C d/f2, A third",
    );
    check(|c| rm(c, "d/f2"), "P , C d, D d/f2");
    check(|c| mv(c, "top", "a/f", 0), "C , C a, C a/f, D top");
}
