//! What is counted, what the limit refuses, and what comes back.

use super::super::Cow;
use super::super::meta::{BLOCK, Res};
use super::create::New;
use super::durability::{ROOT, open_limited};
use super::rename::NOREPLACE;
use super::{SetAttr, Usage};
use nix::errno::Errno;
use std::path::Path;

const LIMIT: u64 = 1 << 20;

fn open(dir: &Path, limit: Option<u64>) -> Cow {
    let lower = dir.join("lower");
    if !lower.exists() {
        std::fs::create_dir(&lower).unwrap();
        std::fs::write(lower.join("big"), vec![7; 3 << 20]).unwrap();
        std::fs::write(lower.join("small"), vec![7; 10_000]).unwrap();
    }
    open_limited(dir, limit).unwrap()
}

fn make(cow: &Cow, name: &str) -> Res<u64> {
    let new = New {
        mode: libc::S_IFREG | 0o644,
        ..New::default()
    };
    cow.tree.create(ROOT, 1, name.as_bytes(), &new)
}

fn put(cow: &Cow, ino: u64, at: u64, len: usize) -> Res<usize> {
    cow.tree.write(ROOT, ino, at, &vec![1; len], false)
}

/// Every node's cost added up anew, as after a replay.
fn counted_anew(dir: &Path, cow: Cow) -> (Usage, Usage) {
    let before = cow.usage();
    cow.sync().unwrap();
    assert_eq!(Usage::noted(&dir.join("upper")).unwrap(), Some(before));
    drop(cow);
    (before, open(dir, None).usage())
}

#[test]
fn content_is_refused_at_the_limit_whatever_way_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path(), Some(LIMIT));
    let ino = make(&cow, "f").unwrap();
    assert_eq!(put(&cow, ino, 0, 900 << 10), Ok(900 << 10));
    let full = cow.usage();
    assert_eq!(put(&cow, ino, 900 << 10, 200 << 10), Err(Errno::ENOSPC));
    let allocate = |mode| cow.tree.fallocate(ROOT, ino, 0, 2 << 20, mode);
    assert_eq!(allocate(0), Err(Errno::ENOSPC));
    assert_eq!(allocate(1), Err(Errno::ENOSPC));
    // Copying a file of the lower up.
    let big = cow.tree.lookup(1, b"big").unwrap().unwrap();
    assert_eq!(put(&cow, big, 5, 1), Err(Errno::ENOSPC));
    assert_eq!(cow.tree.getattr(big).unwrap().0.size, 3 << 20);
    // A file that is only long takes nothing.
    let longer = SetAttr {
        size: Some(1 << 40),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, ino, &longer).unwrap();
    let small_change = cow.usage().bytes - full.bytes;
    assert!(
        small_change < 1024,
        "{small_change} left of refused changes"
    );
    let [total, _, avail, ..] = cow.tree.statfs().unwrap();
    assert_eq!(total, LIMIT / BLOCK);
    assert!(avail < (200 << 10) / BLOCK, "{avail} blocks");
}

#[test]
fn names_attributes_and_targets_count() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path(), Some(LIMIT));
    let many = |make: &dyn Fn(u64) -> Res<()>| {
        let mut n = 0;
        loop {
            match make(n) {
                Ok(()) => n += 1,
                Err(e) => break (n, e),
            }
            assert!(n < 100_000, "no end");
        }
    };
    let (n, e) = many(&|i| make(&cow, &format!("empty{i}")).map(drop));
    assert_eq!(e, Errno::ENOSPC);
    assert!((2000..6000).contains(&n), "{n} empty files in a megabyte");
    let longer = cow
        .tree
        .rename(ROOT, 1, b"empty1", 1, &[b'x'; 250], NOREPLACE);
    assert_eq!(longer, Err(Errno::ENOSPC));
    for i in 0..n {
        cow.tree.unlink(1, format!("empty{i}").as_bytes()).unwrap();
    }
    let (n, e) = many(&|i| {
        let new = New {
            mode: libc::S_IFLNK | 0o777,
            target: &[b't'; 4000],
            ..New::default()
        };
        let name = format!("link{i}");
        cow.tree.create(ROOT, 1, name.as_bytes(), &new).map(drop)
    });
    assert_eq!(e, Errno::ENOSPC);
    assert!((50..300).contains(&n), "{n} links of 4000 bytes");
    for i in 0..n {
        cow.tree.unlink(1, format!("link{i}").as_bytes()).unwrap();
    }
    // Attributes of one file; removing them makes room.
    let ino = make(&cow, "f").unwrap();
    let name = |i: u64| format!("user.{i}").into_bytes();
    let (n, e) = many(&|i| cow.tree.setxattr(ROOT, ino, &name(i), &[1; 60_000], 0));
    assert_eq!(e, Errno::ENOSPC);
    assert!(n < 18, "{n} attributes of 60,000 bytes");
    cow.tree.removexattr(ino, &name(0)).unwrap();
    cow.tree
        .setxattr(ROOT, ino, &name(0), &[1; 60_000], 0)
        .unwrap();
    let (before, after) = counted_anew(dir.path(), cow);
    assert_eq!(before, after);
}

#[test]
fn what_goes_comes_back_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path(), Some(LIMIT));
    let empty = cow.usage().bytes;
    for round in 0..5 {
        let ino = make(&cow, "f").unwrap();
        cow.tree.refer(ino);
        put(&cow, ino, 0, 900 << 10).unwrap();
        let full = cow.usage().bytes;
        // Truncated, punched: the blocks.
        let shorter = SetAttr {
            size: Some(800 << 10),
            ..SetAttr::default()
        };
        cow.tree.setattr(ROOT, ino, &shorter).unwrap();
        assert_eq!(full - cow.usage().bytes, 100 << 10);
        cow.tree.fallocate(ROOT, ino, 0, 400 << 10, 3).unwrap();
        assert_eq!(full - cow.usage().bytes, 500 << 10);
        put(&cow, ino, 0, 400 << 10).unwrap();
        // Unlinked, but open: counted until the kernel has forgotten it.
        cow.tree.unlink(1, b"f").unwrap();
        assert!(cow.usage().bytes > 800 << 10, "round {round}");
        let other = make(&cow, "g").unwrap();
        assert_eq!(put(&cow, other, 0, 900 << 10), Err(Errno::ENOSPC));
        // The forget is on its way: who finds no room waits for it.
        std::thread::scope(|s| {
            let forget = s.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                cow.tree.forget(ino, 1);
                std::time::Instant::now()
            });
            let mut found = put(&cow, other, 0, 900 << 10);
            let given_up = std::time::Instant::now();
            // Unless the other thread had no processor for as long as is waited for.
            if forget.join().unwrap() + std::time::Duration::from_millis(50) > given_up {
                found = found.or_else(|_| put(&cow, other, 0, 900 << 10));
            }
            assert_eq!(found, Ok(900 << 10));
        });
        cow.tree.unlink(1, b"g").unwrap();
    }
    // A file without a name, written and closed.
    let new = New {
        mode: libc::S_IFREG | 0o600,
        ..New::default()
    };
    let ino = cow.tree.tmpfile(ROOT, 1, &new).unwrap();
    cow.tree.refer(ino);
    put(&cow, ino, 0, 900 << 10).unwrap();
    assert!(cow.usage().bytes > 900 << 10);
    cow.tree.forget(ino, 1);
    // A host directory's names stay hidden once removed: two whiteouts and the directory's node.
    let left = cow.usage().bytes - empty;
    assert!(left < 512, "{left} bytes left");
    assert_eq!(cow.usage().inodes, 0);
    let (before, after) = counted_anew(dir.path(), cow);
    assert_eq!(before, after);
}

#[test]
fn a_replay_counts_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path(), None);
    for i in 0..50 {
        let ino = make(&cow, &format!("f{i}")).unwrap();
        put(&cow, ino, i * 1000, 5000).unwrap();
        cow.tree
            .setxattr(ROOT, ino, b"user.x", &[1; 100], 0)
            .unwrap();
        if i % 3 == 0 {
            cow.tree.link(ino, 1, format!("l{i}").as_bytes()).unwrap();
        }
        if i % 5 == 0 {
            cow.tree.unlink(1, format!("f{i}").as_bytes()).unwrap();
        }
        if i % 5 == 1 {
            let to = format!("renamed{i}");
            let from = format!("f{i}");
            cow.tree
                .rename(ROOT, 1, from.as_bytes(), 1, to.as_bytes(), 0)
                .unwrap();
        }
    }
    let small = cow.tree.lookup(1, b"small").unwrap().unwrap();
    put(&cow, small, 100, 10).unwrap();
    cow.tree.unlink(1, b"big").unwrap();
    // Of the ten that lost their first name four have another.
    assert_eq!(cow.usage().inodes, 50 - 6);
    let (before, after) = counted_anew(dir.path(), cow);
    assert_eq!(before, after);
    assert!(before.bytes > 50 * 4096);
}

#[test]
fn what_was_refused_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lower = dir.path().join("lower");
    for full in ["a/full", "b/full", "c/full", "empty"] {
        std::fs::create_dir_all(lower.join(full)).unwrap();
        std::fs::write(lower.join(full).join("file"), "file").unwrap();
    }
    std::fs::remove_file(lower.join("empty/file")).unwrap();
    let cow = open_limited(dir.path(), None).unwrap();
    let (before, nodes) = (cow.usage(), cow.tree.nodes().len());
    let inode = |path: &str| {
        let parts = path.split('/').filter(|p| !p.is_empty());
        parts.fold(1, |dir, name| {
            cow.tree.lookup(dir, name.as_bytes()).unwrap().unwrap()
        })
    };
    let [a, b] = ["a", "b"].map(inode);
    let rename = |from, name: &[u8], to, new: &[u8]| cow.tree.rename(ROOT, from, name, to, new, 0);
    assert_eq!(cow.tree.rmdir(a, b"full"), Err(Errno::ENOTEMPTY));
    assert_eq!(cow.tree.rmdir(1, b"a"), Err(Errno::ENOTEMPTY));
    assert_eq!(cow.tree.rmdir(a, b"none"), Err(Errno::ENOENT));
    assert_eq!(cow.tree.unlink(a, b"full"), Err(Errno::EISDIR));
    let full = inode("a/full");
    assert_eq!(cow.tree.rmdir(full, b"file"), Err(Errno::ENOTDIR));
    let file = inode("b/full/file");
    let gone = cow.tree.removexattr(file, b"user.none");
    assert_eq!(gone, Err(Errno::ENODATA));
    assert_eq!(cow.usage(), before);
    assert_eq!(cow.tree.nodes().len(), nodes);
    // The same with directories that have nodes.
    for dir in [1, a, b] {
        cow.tree
            .create(
                ROOT,
                dir,
                b"new",
                &New {
                    mode: libc::S_IFREG | 0o644,
                    ..New::default()
                },
            )
            .unwrap();
    }
    let (before, nodes) = (cow.usage(), cow.tree.nodes().len());
    assert_eq!(cow.tree.rmdir(a, b"full"), Err(Errno::ENOTEMPTY));
    assert_eq!(cow.tree.rmdir(1, b"c"), Err(Errno::ENOTEMPTY));
    let over = rename(a, b"full", b, b"full");
    assert_eq!(over, Err(Errno::ENOTEMPTY));
    assert_eq!(rename(a, b"new", b, b"full"), Err(Errno::EISDIR));
    assert_eq!(cow.usage(), before);
    assert_eq!(cow.tree.nodes().len(), nodes);
    // And what is not refused.
    cow.tree.rmdir(1, b"empty").unwrap();
    assert_eq!(cow.tree.lookup(1, b"empty"), Ok(None));
    cow.tree.unlink(full, b"file").unwrap();
    rename(b, b"full", a, b"full").unwrap();
    assert_eq!(inode("a/full/file"), file);
}
