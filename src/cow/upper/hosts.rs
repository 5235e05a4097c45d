//! Host directories below: what is forgotten while it is looked up, and what the host takes away.

use super::super::{Cow, Lower, Options};
use super::SetAttr;
use super::durability::{ROOT, content, file, open, put};
use super::rename::WHITEOUT;
use nix::errno::Errno;
use std::fs::{create_dir, create_dir_all, remove_dir_all, remove_file, write};
use std::path::Path;

pub(super) fn find(cow: &Cow, dir: u64, name: &[u8]) -> u64 {
    cow.tree.lookup(dir, name).unwrap().unwrap()
}

pub(super) fn chmod(cow: &Cow, ino: u64, mode: u32) {
    let set = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, ino, &set).unwrap();
}

fn stack(dir: &Path, size_limit: Option<u64>) -> Cow {
    create_dir_all(dir.join("low")).unwrap();
    Cow::open(Options {
        lower: Lower::Stack {
            roots: vec![dir.join("low")],
            hide: Vec::new(),
        },
        upper: Some(dir.join("upper")),
        squash: None,
        size_limit,
        stats: None,
    })
    .unwrap()
}

#[test]
fn what_was_forgotten_since_its_look_up_is_not_referred_to() {
    let dir = tempfile::tempdir().unwrap();
    create_dir(dir.path().join("low")).unwrap();
    write(dir.path().join("low/f"), b"f").unwrap();
    let cow = stack(dir.path(), None);
    let ino = find(&cow, 1, b"f");
    assert!(cow.tree.refer(ino));
    // The second look-up finds it, the forget of the first one is faster than the answer.
    assert_eq!(find(&cow, 1, b"f"), ino);
    cow.tree.forget(ino, 1);
    assert!(
        !cow.tree.refer(ino),
        "the kernel would keep a number of nothing"
    );
    assert_eq!(find(&cow, 1, b"f"), ino);
    assert!(cow.tree.refer(ino));
    assert_eq!(cow.tree.getattr(ino).unwrap().0.size, 1);
}

/// Mounts something over a directory, seen by this thread and those it starts only; false where that is not allowed.
#[expect(clippy::print_stderr, reason = "a part that is skipped says so")]
fn mount_over(dir: &Path) -> bool {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let none = None::<&str>;
    let done = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| {
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, flags, none)
        })
        .and_then(|()| mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), none));
    if let Err(e) = done {
        eprintln!("skipped: without a mount point: {e}");
    }
    done.is_ok()
}

#[test]
fn an_upper_opens_again_whatever_the_host_took_away() {
    let dir = tempfile::tempdir().unwrap();
    let lower = dir.path().join("lower");
    create_dir_all(lower.join("dir/sub")).unwrap();
    create_dir(lower.join("moved")).unwrap();
    // Of these two the host makes a symbolic link and, where the test may, a mount point.
    for name in ["linked", "mounted"] {
        create_dir_all(lower.join(name).join("sub")).unwrap();
        for file in ["mode", "gone", "from", "sub/x"] {
            write(lower.join(name).join(file), file).unwrap();
        }
    }
    for name in [
        "written",
        "cut",
        "mode",
        "attr",
        "gone",
        "from",
        "to",
        "link",
        "dir/sub/x",
    ] {
        write(lower.join(name), name).unwrap();
    }
    let cow = open(dir.path());
    let at = |name: &[u8]| find(&cow, 1, name);
    put(&cow, at(b"written"), 0, b"WRITTEN");
    let cut = SetAttr {
        size: Some(2),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, at(b"cut"), &cut).unwrap();
    chmod(&cow, at(b"mode"), 0o600);
    cow.tree
        .setxattr(ROOT, at(b"attr"), b"user.a", b"1", 0)
        .unwrap();
    cow.tree.unlink(1, b"gone").unwrap();
    cow.tree.rename(ROOT, 1, b"from", 1, b"to", 0).unwrap();
    cow.tree.rename(ROOT, 1, b"moved", 1, b"moved2", 0).unwrap();
    let moved = at(b"moved2");
    cow.tree.create(ROOT, moved, b"inside", &file()).unwrap();
    cow.tree.link(at(b"link"), 1, b"link2").unwrap();
    let sub = find(&cow, at(b"dir"), b"sub");
    cow.tree.create(ROOT, sub, b"new", &file()).unwrap();
    cow.tree.unlink(sub, b"x").unwrap();
    for name in [&b"linked"[..], b"mounted"] {
        let dir = at(name);
        chmod(&cow, find(&cow, dir, b"mode"), 0o600);
        cow.tree.unlink(dir, b"gone").unwrap();
        cow.tree.rename(ROOT, dir, b"from", dir, b"to", 0).unwrap();
        let sub = find(&cow, dir, b"sub");
        cow.tree.create(ROOT, sub, b"new", &file()).unwrap();
        cow.tree.unlink(sub, b"x").unwrap();
    }
    cow.sync().unwrap();
    // While it is served, too.
    let below = find(&cow, find(&cow, 1, b"linked"), b"sub");
    let host = lower.join("linked");
    std::fs::rename(&host, dir.path().join("aside")).unwrap();
    std::os::unix::fs::symlink("dir", &host).unwrap();
    assert_eq!(cow.tree.true_meta(below).unwrap().nlink, 2);
    assert!(cow.stat(Path::new("/linked/sub/new")).unwrap().is_some());
    drop(cow);
    let mounted = mount_over(&lower.join("mounted"));
    // All of it goes, and some of it comes back as something else.
    for name in [
        "written", "cut", "mode", "attr", "gone", "from", "to", "link",
    ] {
        let _ = remove_file(lower.join(name));
    }
    remove_dir_all(lower.join("dir/sub")).unwrap();
    remove_dir_all(lower.join("moved")).unwrap();
    create_dir(lower.join("written")).unwrap();
    write(lower.join("dir/sub"), b"now a file").unwrap();
    for _ in 0..2 {
        let cow = open(dir.path());
        assert_eq!(content(&cow, "/written"), b"WRITTEN");
        assert_eq!(content(&cow, "/cut"), b"cu");
        let there = |name: &str| cow.stat(Path::new(name)).unwrap();
        assert_eq!(there("/mode").unwrap().mode & 0o7777, 0o600);
        assert!(there("/gone").is_none() && there("/from").is_none());
        assert!(there("/to").is_some() && there("/link2").is_some());
        assert!(there("/dir/sub/new").unwrap().size == 0 && there("/dir/sub/x").is_none());
        assert!(there("/moved2/inside").is_some());
        for name in ["linked", "mounted"] {
            if name == "mounted" && !mounted {
                continue;
            }
            let at = |path: &str| there(&format!("/{name}/{path}"));
            assert!(at("to").is_some() && at("gone").is_none() && at("from").is_none());
            assert!(at("sub/new").is_some() && at("sub/x").is_none());
            let mode = find(&cow, find(&cow, 1, name.as_bytes()), b"mode");
            assert_eq!(cow.tree.true_meta(mode).unwrap().mode & 0o7777, 0o600);
            chmod(&cow, mode, 0o600);
        }
        let attr = find(&cow, 1, b"attr");
        let value = cow.tree.getxattr(attr, b"user.a", |v| v.to_vec());
        assert_eq!(value.as_deref(), Ok(&b"1"[..]));
        // What the host took away can still be changed.
        chmod(&cow, attr, 0o640);
        cow.tree.setattr(ROOT, find(&cow, 1, b"cut"), &cut).unwrap();
        cow.tree.fold(&mut |_| Ok(())).unwrap();
    }
}

#[test]
fn a_rename_with_a_whiteout_is_refused_as_a_whole_where_it_has_no_room() {
    let dir = tempfile::tempdir().unwrap();
    drop(stack(dir.path(), None));
    let limit = 4096;
    let cow = stack(dir.path(), Some(limit));
    cow.tree.create(ROOT, 1, b"f", &file()).unwrap();
    let mut n = 0;
    while cow
        .tree
        .create(ROOT, 1, format!("{n}").as_bytes(), &file())
        .is_ok()
    {
        n += 1;
    }
    let full = cow.usage();
    let same = [(1, &b"g"[..]), (1, b"0")];
    for (newparent, newname) in same {
        let moved = cow.tree.rename(ROOT, 1, b"f", newparent, newname, WHITEOUT);
        assert_eq!(moved, Err(Errno::ENOSPC));
        assert_eq!(cow.usage(), full);
        assert!(cow.tree.lookup(1, b"f").unwrap().is_some());
    }
    assert_eq!(cow.tree.lookup(1, b"g"), Ok(None));
    for k in 0..4 {
        let name = format!("{}", n - 1 - k);
        let ino = find(&cow, 1, name.as_bytes());
        cow.tree.unlink(1, name.as_bytes()).unwrap();
        cow.tree.forget(ino, 1);
    }
    let ino = find(&cow, 1, b"f");
    cow.tree.rename(ROOT, 1, b"f", 1, b"g", WHITEOUT).unwrap();
    assert_eq!(find(&cow, 1, b"g"), ino);
    let left = cow.tree.getattr(find(&cow, 1, b"f")).unwrap().0;
    assert_eq!((left.kind(), left.rdev), (libc::S_IFCHR, 0));
    // One file under two names: nothing to do, with a whiteout neither.
    cow.tree.link(ino, 1, b"h").unwrap();
    cow.tree.rename(ROOT, 1, b"g", 1, b"h", WHITEOUT).unwrap();
    assert!(cow.usage().bytes <= limit);
    cow.sync().unwrap();
    let whole = cow.usage();
    drop(cow);
    assert_eq!(stack(dir.path(), Some(limit)).usage(), whole);
}

/// Bytes on the disk of all files below a directory.
fn taken(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    entries
        .map(|entry| match entry.metadata().unwrap() {
            meta if meta.is_dir() => taken(&entry.path()),
            meta => meta.blocks() * 512,
        })
        .sum()
}

#[test]
fn attributes_and_names_copy_nothing_and_a_byte_copies_its_block() {
    let dir = tempfile::tempdir().unwrap();
    create_dir_all(dir.path().join("low/dir")).unwrap();
    for name in ["f", "g", "dir/h"] {
        write(dir.path().join("low").join(name), vec![7; 1 << 20]).unwrap();
    }
    let data = dir.path().join("upper/data");
    let cow = stack(dir.path(), None);
    let [f, g, d] = [&b"f"[..], b"g", b"dir"].map(|name| find(&cow, 1, name));
    let h = find(&cow, d, b"h");
    for ino in [f, g, d, h] {
        chmod(&cow, ino, 0o700);
        let owner = SetAttr {
            uid: Some(5),
            gid: Some(6),
            mtime: Some(super::Stamp::Now),
            ..SetAttr::default()
        };
        cow.tree.setattr(ROOT, ino, &owner).unwrap();
        cow.tree.setxattr(ROOT, ino, b"user.a", b"1", 0).unwrap();
    }
    cow.tree.rename(ROOT, 1, b"f", d, b"f2", 0).unwrap();
    cow.tree.rename(ROOT, 1, b"dir", 1, b"dir2", 0).unwrap();
    cow.tree.link(g, 1, b"g2").unwrap();
    cow.sync().unwrap();
    for ino in [f, g, h] {
        cow.tree.fsync(ino, false).unwrap();
    }
    assert_eq!(taken(&data), 0, "something was copied");
    put(&cow, h, 500_000, b"x");
    cow.sync().unwrap();
    let one = taken(&data);
    assert!((4096..=65_536).contains(&one), "{one} bytes for one block");
    let read = cow
        .read_file(Path::new("/dir2/h"), 1 << 20)
        .unwrap()
        .unwrap();
    assert!(read[500_000] == b'x' && read[499_999] == 7 && read.len() == 1 << 20);
}
