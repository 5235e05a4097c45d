//! Journals that something else than a crash has changed: what they speak of is not deleted.

use super::data::SMALL;
use super::durability::{content, make, open, open_limited};
use std::fs;
use std::path::{Path, PathBuf};

const LARGE: usize = SMALL as usize + 1;

/// All files below a directory, and their lengths.
fn all(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        match meta.is_dir() {
            true => found.extend(all(&entry.path())),
            false => found.push((entry.path(), meta.len())),
        }
    }
    found.sort();
    found
}

#[test]
fn what_lies_behind_damage_of_the_journal_is_kept_with_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, data) = (
        dir.path().join("upper/journal"),
        dir.path().join("upper/data"),
    );
    let cow = open(dir.path());
    make(&cow, b"first", b"first");
    cow.sync().unwrap();
    let first = cow.tree.store().unwrap().journal.last();
    make(&cow, b"small", b"small");
    make(&cow, b"large", &[7; LARGE]);
    cow.sync().unwrap();
    drop(cow);
    let whole = fs::read(&journal).unwrap();
    let before = all(&data);
    // A bit of the record behind those of the first file.
    let at = {
        let (mut at, mut rest) = (48, first);
        while rest > 0 {
            let head = whole[at..at + 4].try_into().unwrap();
            at += 16 + u32::from_le_bytes(head) as usize;
            rest -= 1;
        }
        at
    };
    let mut bad = whole.clone();
    bad[at + 20] ^= 1;
    fs::write(&journal, &bad).unwrap();
    for n in 0..3u8 {
        let cow = open(dir.path());
        assert_eq!(content(&cow, "/first"), b"first");
        for gone in ["/small", "/large"] {
            assert!(cow.stat(Path::new(gone)).unwrap().is_none());
        }
        for (path, len) in &before {
            assert!(path.metadata().unwrap().len() >= *len, "{}", path.display());
        }
        // What is made now comes to lie elsewhere, and goes again.
        let name = [b'n', b'0' + n];
        make(&cow, &name, b"new");
        make(&cow, b"huge", &[8; LARGE]);
        cow.sync().unwrap();
        for name in [&name[..], b"huge"] {
            let ino = cow.tree.lookup(1, name).unwrap().unwrap();
            cow.tree.unlink(1, name).unwrap();
            cow.tree.forget(ino, 1);
        }
        cow.sync().unwrap();
    }
    let tail = fs::read(journal.with_extension("cut")).unwrap();
    assert!(bad[at..].starts_with(&tail) && tail.len() > 100);
    // With the journal as it was all of it is there again.
    fs::remove_file(journal.with_extension("cut")).unwrap();
    fs::write(&journal, &whole).unwrap();
    let cow = open(dir.path());
    assert_eq!(content(&cow, "/small"), b"small");
    assert!(content(&cow, "/large") == [7; LARGE]);
}

#[test]
fn a_tail_that_a_power_cut_left_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("upper/journal");
    let cow = open(dir.path());
    make(&cow, b"first", b"first");
    cow.sync().unwrap();
    make(&cow, b"large", &[7; LARGE]);
    cow.sync().unwrap();
    drop(cow);
    let whole = fs::read(&journal).unwrap();
    let used = whole.iter().rposition(|b| *b != 0).unwrap() + 1;
    fs::write(&journal, &whole[..used - 1]).unwrap();
    let cow = open(dir.path());
    assert_eq!(content(&cow, "/first"), b"first");
    assert!(!journal.with_extension("cut").exists());
    drop(cow);
    // Its content went with it.
    assert!(
        all(&dir.path().join("upper/data"))
            .iter()
            .all(|(_, n)| *n < SMALL)
    );
}

#[test]
fn content_without_a_journal_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path().join("upper");
    let journal = upper.join("journal");
    let cow = open(dir.path());
    make(&cow, b"small", b"small");
    cow.sync().unwrap();
    drop(cow);
    let whole = fs::read(&journal).unwrap();
    let before = all(&upper.join("data"));
    for left in [None, Some(&whole[..0]), Some(&whole[..47]), Some(&[0; 400])] {
        match left {
            Some(bytes) => fs::write(&journal, bytes).unwrap(),
            None => fs::remove_file(&journal).unwrap(),
        }
        let e = open_limited(dir.path(), None).expect_err("no journal");
        assert!(format!("{e:#}").contains("journal"), "{e:#}");
        assert_eq!(all(&upper.join("data")), before);
    }
    fs::write(&journal, &whole).unwrap();
    assert_eq!(content(&open(dir.path()), "/small"), b"small");
    // A new one that a crash left without a header is new all the same: there is nothing it could speak of.
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::write(dir.path().join("upper/journal"), b"").unwrap();
    drop(open(dir.path()));
}
