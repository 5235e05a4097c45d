//! What a killed server left that no record tells of: it takes no space, and never comes to light.

use super::super::Cow;
use super::super::meta::{BLOCK, wr};
use super::SetAttr;
use super::data::SMALL;
use super::durability::{ROOT, content, cut, file, make, open, put};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

const LARGE: usize = SMALL as usize + 1;

fn size(cow: &Cow, ino: u64, size: u64) {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, ino, &set).unwrap();
}

/// The only data file that is not an arena.
fn own(dir: &Path) -> PathBuf {
    let inside = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let dirs = inside(&dir.join("upper/data")).filter(|p| p.is_dir());
    let mut files = dirs.flat_map(|d| inside(&d).collect::<Vec<_>>());
    let only = files.next().unwrap();
    assert_eq!(files.next(), None);
    only
}

fn length(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

#[test]
fn what_was_written_behind_an_end_inside_reserved_space_stays_away_when_the_file_grows() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = cow.tree.create(ROOT, 1, b"f", &file()).unwrap();
    const KEEP_SIZE: u32 = 1;
    cow.tree.fallocate(ROOT, ino, 0, 20_000, KEEP_SIZE).unwrap();
    cow.sync().unwrap();
    // From an end between two blocks to one inside the second.
    size(&cow, ino, 5000);
    cow.tree.commit(true).unwrap();
    put(&cow, ino, 6000, b"x");
    drop(cow);
    let cow = open(dir.path());
    assert!(content(&cow, "/f") == [0; 5000]);
    size(&cow, ino, 10_000);
    assert!(content(&cow, "/f") == [0; 10_000], "a lost byte came back");
}

#[test]
fn what_was_written_behind_a_large_files_end_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[7; LARGE]);
    cow.sync().unwrap();
    for at in 0..8 {
        put(&cow, ino, LARGE as u64 + (at << 20), &[8; 1 << 20]);
    }
    drop(cow);
    let data = own(dir.path());
    assert!(length(&data) > 8 << 20);
    // Not if a frozen state has it too.
    let link = dir.path().join("link");
    std::fs::hard_link(&data, &link).unwrap();
    drop(open(dir.path()));
    assert!(length(&data) > 8 << 20);
    std::fs::remove_file(&link).unwrap();
    let cow = open(dir.path());
    assert_eq!(length(&data), (LARGE as u64).next_multiple_of(BLOCK));
    assert!(content(&cow, "/f") == [7; LARGE]);
}

#[test]
fn what_a_truncation_cut_off_a_large_file_is_given_back_later_at_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[7; LARGE]);
    cow.sync().unwrap();
    size(&cow, ino, 5000);
    let store = cow.tree.store().unwrap();
    // The server is killed before it cleans up.
    cow.tree
        .make_durable(store, store.journal.last(), true)
        .unwrap();
    drop(cow);
    assert!(length(&own(dir.path())) > 5000);
    let cow = open(dir.path());
    assert_eq!(length(&own(dir.path())), 2 * BLOCK);
    size(&cow, ino, 9000);
    assert!(content(&cow, "/f") == [[7; 5000].as_slice(), &[0; 4000]].concat());
}

#[test]
fn a_file_written_anew_is_never_empty_for_whoever_commits_second() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"before");
    let other = make(&cow, b"other", b"other");
    cow.sync().unwrap();
    size(&cow, ino, 0);
    put(&cow, ino, 0, b"after");
    put(&cow, other, 0, b"OTHER");
    let node = cow.tree.node(ino).unwrap();
    std::thread::scope(|scope| {
        let busy = wr(&node.state);
        let (cow, (done, second)) = (&cow, mpsc::channel());
        scope.spawn(|| cow.tree.commit(true).unwrap());
        // It has taken the list of what is to be recorded, and waits.
        std::thread::sleep(Duration::from_millis(200));
        scope.spawn(move || {
            cow.tree.fsync(other, false).unwrap();
            // Nobody listens any more where it had to wait.
            let _ = done.send(());
        });
        let _ = second.recv_timeout(Duration::from_millis(500));
        let there = cut(dir.path(), &["journal", "data"]);
        assert_eq!(content(&open(there.path()), "/f"), b"before");
        drop(busy);
    });
    let there = cut(dir.path(), &["journal", "data"]);
    assert_eq!(content(&open(there.path()), "/f"), b"after");
    assert_eq!(content(&open(there.path()), "/other"), b"OTHER");
}

#[test]
fn a_truncation_somebody_elses_write_waits_for_comes_with_what_was_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"before");
    let cut_one = make(&cow, b"cut", &[7; 3000]);
    cow.sync().unwrap();
    size(&cow, ino, 0);
    put(&cow, ino, 0, b"after");
    size(&cow, cut_one, 1000);
    // Its last block changes: the shorter length has to be durable first.
    put(&cow, cut_one, 999, b"y");
    let there = cut(dir.path(), &["journal", "data"]);
    assert_eq!(content(&open(there.path()), "/f"), b"after");
}
