//! What a killed server left that no record tells of: it takes no space, and never comes to light.

use super::super::Cow;
use super::SetAttr;
use super::durability::{ROOT, content, file, make, open, put};

fn size(cow: &Cow, ino: u64, size: u64) {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, ino, &set).unwrap();
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
