//! What a killed server left that no record tells of: it takes no space, and never comes to light.

use super::super::Cow;
use super::super::meta::BLOCK;
use super::SetAttr;
use super::data::SMALL;
use super::durability::{ROOT, content, file, make, open, put};
use std::path::{Path, PathBuf};

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
