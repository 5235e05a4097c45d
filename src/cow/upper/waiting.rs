//! Who waits for the disk keeps nobody else waiting.

use super::durability::{ROOT, file, make, open, put, size};
use std::time::Duration;

/// It may be so a moment later: what is held for a moment is no fault.
fn in_time(holds: impl Fn() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < until, "held for good");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_write_that_waits_for_a_truncation_keeps_nobody_else_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 3000]);
    cow.sync().unwrap();
    size(&cow, ino, 600);
    let store = cow.tree.store().unwrap();
    let node = cow.tree.node(ino).unwrap();
    std::thread::scope(|scope| {
        let slow = store.journal.stalled();
        let tree = &cow.tree;
        let write = scope.spawn(move || tree.write(ROOT, ino, 600, b"b", false));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!write.is_finished());
        // A fold could begin, the file be read.
        in_time(|| tree.gate.try_write().is_ok() && node.state.try_write().is_ok());
        assert!(!write.is_finished());
        drop(slow);
        write.join().unwrap().unwrap();
    });
}

#[test]
fn the_first_content_that_waits_for_a_new_journal_keeps_nobody_else_waiting() {
    for what in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lower")).unwrap();
        std::fs::write(dir.path().join("lower/low"), [7; 5000]).unwrap();
        let cow = open(dir.path());
        let ino = cow.tree.create(ROOT, 1, b"f", &file()).unwrap();
        let low = cow.tree.lookup(1, b"low").unwrap().unwrap();
        std::thread::scope(|scope| {
            let slow = cow.tree.store().unwrap().journal.stalled();
            let tree = &cow.tree;
            let first = scope.spawn(|| match what {
                0 => put(&cow, ino, 0, b"content"),
                1 => tree.fallocate(ROOT, ino, 0, 5000, 0).unwrap(),
                _ => size(&cow, low, 100),
            });
            std::thread::sleep(Duration::from_millis(200));
            assert!(!first.is_finished(), "{what}");
            in_time(|| tree.gate.try_write().is_ok());
            assert!(!first.is_finished(), "{what}");
            drop(slow);
            first.join().unwrap();
        });
    }
}
