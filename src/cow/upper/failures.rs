//! Syncs that fail, and servers that were killed before theirs.

use super::super::Cow;
use super::super::meta::{lk, rd};
use super::data::SMALL;
use super::durability::{ROOT, content, cut, make, open, put};
use super::node::Body;
use nix::errno::Errno;

const LARGE: usize = SMALL as usize + 1;

/// The data file of a file, and whether somebody may have left it unsynced.
fn data_file(cow: &Cow, ino: u64) -> (u64, bool) {
    match &rd(&cow.tree.node(ino).unwrap().state).body {
        Body::File(f) => (f.data_id, f.inherited),
        _ => panic!("no file"),
    }
}

fn find(cow: &Cow, name: &[u8]) -> u64 {
    cow.tree.lookup(1, name).unwrap().unwrap()
}

#[test]
fn a_failed_write_back_is_answered_once_by_every_file_it_may_concern() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let (a, b) = (make(&cow, b"a", b"a"), make(&cow, b"b", b"b"));
    let own = make(&cow, b"own", &[7; LARGE]);
    cow.sync().unwrap();
    let store = cow.tree.store().unwrap();
    // The flusher synced the arena of both, and was told.
    store.data.failed(data_file(&cow, a).0, Errno::EIO);
    let new = make(&cow, b"new", b"new");
    cow.sync().unwrap();
    for data_only in [false, true] {
        assert_eq!(cow.tree.fsync(own, data_only), Ok(()));
        assert_eq!(cow.tree.fsync(new, data_only), Ok(()));
    }
    assert_eq!(cow.tree.fsync(a, true), Err(Errno::EIO));
    assert_eq!(cow.tree.fsync(a, true), Ok(()));
    // Nor does it get lost when the content moves away or goes.
    put(&cow, b, 0, &[1; LARGE]);
    assert_eq!(cow.tree.fsync(b, false), Err(Errno::EIO));
    assert_eq!(cow.tree.fsync(b, false), Ok(()));
    store.data.failed(data_file(&cow, b).0, Errno::ENOSPC);
    let empty = super::SetAttr {
        size: Some(0),
        ..super::SetAttr::default()
    };
    cow.tree.setattr(ROOT, b, &empty).unwrap();
    assert_eq!(cow.tree.fsync(b, false), Err(Errno::ENOSPC));
    assert_eq!(cow.tree.fsync(b, false), Ok(()));
}

#[test]
fn a_flush_goes_on_over_a_file_that_cannot_be_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let bad = make(&cow, b"bad", &[7; LARGE]);
    cow.sync().unwrap();
    put(&cow, bad, 0, b"changed");
    make(&cow, b"good", b"good");
    let store = cow.tree.store().unwrap();
    cow.tree.close_idle(store, store.flush.open_count());
    let id = data_file(&cow, bad).0;
    let path = dir.path().join(format!("upper/data/{id:02x}/{id:x}"));
    let aside = dir.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    for _ in 0..3 {
        assert_eq!(cow.tree.sync_all(), Err(Errno::EIO));
        assert_eq!(*lk(&store.flush.dirty), [bad]);
    }
    let there = cut(dir.path(), &["journal", "data"]);
    assert_eq!(content(&open(there.path()), "/good"), b"good");
    std::fs::rename(&aside, &path).unwrap();
    cow.sync().unwrap();
    assert!(lk(&store.flush.dirty).is_empty());
}

#[test]
fn a_flush_that_is_overtaken_again_and_again_records_the_content_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[7; 100 * 4096]);
    let node = cow.tree.node(ino).unwrap();
    // What a flush under way took is told of too, and the flush is overtaken for good.
    let snapshot = cow.tree.snapshot(&node).unwrap().unwrap();
    cow.tree.record_ahead(&node);
    assert!(!cow.tree.record(&node, snapshot));
    cow.tree.commit(true).unwrap();
    let there = cut(dir.path(), &["journal", "data"]);
    assert!(content(&open(there.path()), "/f") == [7; 100 * 4096]);
}

#[test]
fn what_a_killed_server_left_unsynced_is_synced_by_the_next_fsync() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    make(&cow, b"small", b"small");
    make(&cow, b"large", &[7; LARGE]);
    cow.sync().unwrap();
    let (made, named) = cow.tree.store().unwrap().data.names();
    assert!(made > 0 && made == named, "{made} {named}");
    drop(cow);
    let cow = open(dir.path());
    let store = cow.tree.store().unwrap();
    let (made, named) = store.data.names();
    assert!(named < made, "names of before are not taken for durable");
    for name in [&b"small"[..], b"large"] {
        let ino = find(&cow, name);
        assert!(data_file(&cow, ino).1);
        cow.tree.fsync(ino, true).unwrap();
        assert!(!data_file(&cow, ino).1);
    }
    make(&cow, b"another", &[7; LARGE]);
    cow.sync().unwrap();
    let (made, named) = store.data.names();
    assert_eq!(made, named);
}

#[test]
fn a_journal_that_failed_takes_no_more_promises() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"durable");
    cow.tree.fsync(ino, false).unwrap();
    let store = cow.tree.store().unwrap();
    put(&cow, ino, 0, b"CHANGED");
    store.journal.fail();
    assert_eq!(cow.tree.fsync(ino, false), Err(Errno::EIO));
    let records = store.journal.last();
    for _ in 0..3 {
        // Nothing is piled up in memory.
        assert_eq!(cow.tree.fsync(ino, false), Err(Errno::EIO));
        assert_eq!(store.journal.last(), records);
    }
    assert_eq!(cow.tree.fold(&mut |_| Ok(())), Err(Errno::EIO));
    let there = cut(dir.path(), &["journal"]);
    assert_eq!(content(&open(there.path()), "/f"), b"durable");
}

#[test]
fn what_waits_for_a_journal_that_cannot_be_written_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"f");
    make(&cow, b"other", b"other");
    let value = [7; 60_000];
    let change = || cow.tree.setxattr(ROOT, ino, b"user.x", &value, 0);
    change().unwrap();
    cow.sync().unwrap();
    let store = cow.tree.store().unwrap();
    store.journal.fail();
    cow.tree.unlink(1, b"other").unwrap();
    assert_eq!(cow.tree.commit(true), Err(Errno::EIO));
    // Nothing of this grows what the upper holds: only the journal's queue.
    let refused = (0..2000).find_map(|n| change().err().map(|e| (n, e)));
    assert!(
        matches!(refused, Some((1000..1200, Errno::EIO))),
        "{refused:?}"
    );
    assert!(store.journal.waiting() < 65 << 20);
    assert_eq!(
        cow.tree.create(ROOT, 1, b"g", &super::durability::file()),
        Err(Errno::EIO)
    );
}

#[test]
fn what_waits_for_a_journal_that_is_slow_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"f");
    let store = cow.tree.store().unwrap();
    let value = [7; 60_000];
    let change = || cow.tree.setxattr(ROOT, ino, b"user.x", &value, 0).unwrap();
    std::thread::scope(|scope| {
        let slow = store.journal.stalled();
        let changes = scope.spawn(|| (0..3000).for_each(|_| change()));
        let until = std::time::Instant::now() + std::time::Duration::from_secs(300);
        let mut before = (0, 0);
        // Less is a machine that stood still.
        while before.1 < 20 || before.0 < 128 << 20 {
            assert!(std::time::Instant::now() < until, "{before:?}");
            std::thread::sleep(std::time::Duration::from_millis(100));
            let waiting = store.journal.waiting();
            before = match waiting == before.0 && waiting > 0 {
                true => (waiting, before.1 + 1),
                false => (waiting, 0),
            };
        }
        assert!(!changes.is_finished());
        assert!((128 << 20..129 << 20).contains(&before.0), "{}", before.0);
        drop(slow);
        changes.join().unwrap();
    });
    assert_eq!(cow.tree.getxattr(ino, b"user.x", |v| v.len()), Ok(60_000));
}
