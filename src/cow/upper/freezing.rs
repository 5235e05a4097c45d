//! Frozen states: what is in one stays, whatever happens to the tree.

use super::super::frozen::{self, Frozen};
use super::super::{Cow, IdView, Lower, Options};
use super::SetAttr;
use super::durability::{ROOT, content, make, open, put};
use std::path::Path;

/// Opens a frozen state of the upper in `dir`.
fn thaw(dir: &Path, state: &Path) -> Cow {
    Cow::open(Options {
        lower: Lower::HostDir {
            root: dir.join("lower"),
            hide: Vec::new(),
            uids: IdView::default(),
            gids: IdView::default(),
        },
        upper: Some(state.to_owned()),
        squash: None,
        size_limit: None,
        stats: None,
    })
    .unwrap()
}

fn freeze(dir: &Path, cow: &Cow, name: &str) {
    let frozen = Frozen::place(&dir.join("upper")).unwrap();
    cow.freeze(&frozen.dir(), true).unwrap();
    frozen.keep(name).unwrap();
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|n| (n.wrapping_mul(seed | 1) >> 3) as u8)
        .collect()
}

#[test]
fn a_frozen_state_without_content_can_be_compared() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    make(&cow, b"new", b"content");
    let frozen = Frozen::place(&dir.path().join("upper")).unwrap();
    cow.freeze(&frozen.dir(), false).unwrap();
    let then = thaw(dir.path(), &frozen.dir());
    assert_eq!(then.diff().unwrap(), cow.diff().unwrap());
    assert_eq!(then.diff().unwrap().len(), 2, "the root and the file");
    drop(then);
    let there = frozen.dir();
    drop(frozen);
    assert!(!there.exists());
}

#[test]
fn what_a_killed_maker_left_goes_and_what_is_at_work_stays() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let upper = dir.path().join("upper");
    let frozen = Frozen::place(&upper).unwrap();
    std::fs::create_dir_all(upper.join("frozen/.new-dead/state")).unwrap();
    drop(cow);
    let cow = open(dir.path());
    assert!(!upper.join("frozen/.new-dead").exists());
    cow.freeze(&frozen.dir(), true).unwrap();
    assert!(frozen.dir().join("journal").exists());
    assert!(frozen::list(&upper).unwrap().is_empty());
}

#[test]
fn a_name_is_given_once() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    freeze(dir.path(), &cow, "a");
    let upper = dir.path().join("upper");
    let frozen = Frozen::place(&upper).unwrap();
    cow.freeze(&frozen.dir(), true).unwrap();
    assert!(frozen.keep("a").is_err());
    assert_eq!(frozen::list(&upper).unwrap().len(), 1);
    assert!(frozen::remove(&upper, "a").unwrap());
    assert!(!frozen::remove(&upper, "a").unwrap());
    assert_eq!(std::fs::read_dir(upper.join("frozen")).unwrap().count(), 0);
}

#[test]
fn a_file_is_written_in_place_again_when_nobody_shares_it() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let upper = dir.path().join("upper");
    let ino = make(&cow, b"f", &vec![1; 1 << 20]);
    let id = |cow: &Cow| {
        let node = cow.tree.node(ino).unwrap();
        match &super::rd(&node.state).body {
            super::Body::File(f) => f.data_id,
            _ => 0,
        }
    };
    let first = id(&cow);
    freeze(dir.path(), &cow, "a");
    frozen::remove(&upper, "a").unwrap();
    put(&cow, ino, 0, b"x");
    assert_eq!(id(&cow), first);
    freeze(dir.path(), &cow, "a");
    put(&cow, ino, 0, b"y");
    assert_ne!(id(&cow), first);
    let second = id(&cow);
    put(&cow, ino, 9, b"z");
    assert_eq!(id(&cow), second);
    cow.sync().unwrap();
    assert!(frozen::own_bytes(&upper, "a").unwrap() >= 1 << 20);
}

#[test]
fn a_restored_upper_is_the_frozen_one_wherever_it_was_cut() {
    for cut in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let upper = dir.path().join("upper");
        let cow = open(dir.path());
        let ino = make(&cow, b"f", b"then");
        make(&cow, b"large", &vec![7; 1 << 20]);
        freeze(dir.path(), &cow, "a");
        put(&cow, ino, 0, b"now!");
        make(&cow, b"new", b"new");
        cow.sync().unwrap();
        drop(cow);
        frozen::restore(&upper, "a").unwrap();
        // As if killed on the way: what had been done so far undone again.
        let back = upper.join("restore");
        if cut > 0 {
            std::fs::create_dir(&back).unwrap();
        }
        if cut > 1 {
            std::fs::rename(upper.join("journal"), back.join("journal")).unwrap();
            std::fs::write(upper.join("journal"), b"of before").unwrap();
        }
        if cut > 2 {
            std::fs::rename(upper.join("data"), back.join("data")).unwrap();
        }
        if cut > 3 {
            std::fs::create_dir_all(upper.join("data/01")).unwrap();
        }
        for _ in 0..2 {
            let cow = open(dir.path());
            assert_eq!(content(&cow, "/f"), b"then", "cut at {cut}");
            assert_eq!(content(&cow, "/large"), vec![7; 1 << 20]);
            assert!(cow.read_file(Path::new("/new"), 10).unwrap().is_none());
            assert!(!back.exists());
            put(&cow, ino, 0, b"THEN");
            assert_eq!(content(&cow, "/f"), b"THEN");
            drop(cow);
            frozen::restore(&upper, "a").unwrap();
        }
    }
}

/// Random changes with freezes in between: every frozen state is what the tree was then.
#[test]
fn random_changes_do_not_reach_frozen_states() {
    let dir = tempfile::tempdir().unwrap();
    let upper = dir.path().join("upper");
    let mut cow = open(dir.path());
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    let mut files: Vec<Vec<u8>> = vec![Vec::new(); 8];
    for n in 0..8 {
        make(&cow, format!("f{n}").as_bytes(), b"");
    }
    let mut kept: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    let same = |cow: &Cow, files: &[Vec<u8>], what: &str| {
        for (f, file) in files.iter().enumerate() {
            let got = content(cow, &format!("/f{f}"));
            assert!(got == *file, "f{f} {what}");
        }
    };
    for step in 0..1500u64 {
        let n = next(8) as usize;
        let name = format!("f{n}");
        let ino = cow.tree.lookup(1, name.as_bytes()).unwrap().unwrap();
        let file = &mut files[n];
        let long = if next(30) == 0 { 700_000 } else { 60_000 };
        let (at, len) = (next(long) as usize, next(12_000) as usize + 1);
        match next(18) {
            0..9 => {
                let bytes = pattern(step, len);
                put(&cow, ino, at as u64, &bytes);
                file.resize(file.len().max(at + len), 0);
                file[at..at + len].copy_from_slice(&bytes);
            }
            9..11 => {
                let to = if next(3) == 0 { 0 } else { at };
                let set = SetAttr {
                    size: Some(to as u64),
                    ..SetAttr::default()
                };
                cow.tree.setattr(ROOT, ino, &set).unwrap();
                file.resize(to, 0);
            }
            11 => {
                cow.tree
                    .fallocate(ROOT, ino, at as u64, len as u64, 3)
                    .unwrap();
                let end = file.len();
                file[at.min(end)..(at + len).min(end)].fill(0);
            }
            12 => {
                cow.tree
                    .fallocate(ROOT, ino, at as u64, len as u64, 0)
                    .unwrap();
                file.resize(file.len().max(at + len), 0);
            }
            13 => cow.tree.fsync(ino, next(2) == 0).unwrap(),
            14 => cow.sync().unwrap(),
            15 if next(3) == 0 => {
                let name = format!("s{step}");
                freeze(dir.path(), &cow, &name);
                kept.push((name, files.clone()));
            }
            15 if kept.len() > 4 => {
                let (name, _) = kept.swap_remove(next(4) as usize);
                frozen::remove(&upper, &name).unwrap();
            }
            15 => {}
            _ if next(8) == 0 => {
                cow.sync().unwrap();
                if next(2) == 0 {
                    cow.tree.fold(&mut |_| Ok(())).unwrap();
                }
                drop(cow);
                cow = open(dir.path());
            }
            _ => {
                cow.tree.unlink(1, name.as_bytes()).unwrap();
                cow.tree.forget(ino, 1 << 20);
                make(&cow, name.as_bytes(), b"");
                file.clear();
            }
        }
        if step % 100 == 0 {
            same(&cow, &files, &format!("after step {step}"));
            if let Some((name, then)) = kept.first() {
                let state = frozen::state(&upper, name);
                same(&thaw(dir.path(), &state), then, &format!("in {name}"));
            }
        }
    }
    assert!(kept.len() > 2);
    for (name, then) in &kept {
        let state = frozen::state(&upper, name);
        same(&thaw(dir.path(), &state), then, &format!("in {name}"));
    }
    cow.sync().unwrap();
    drop(cow);
    same(&open(dir.path()), &files, "in the end");
}

/// The sizes of a file are recorded with the data file that the frozen state shares until its new content is.
#[test]
fn redo_after_a_kill_leaves_frozen_states_alone() {
    for len in [10_000, 900_000] {
        let dir = tempfile::tempdir().unwrap();
        let cow = open(dir.path());
        let bytes = pattern(3, len);
        let ino = make(&cow, b"f", &bytes);
        let other = make(&cow, b"other", b"x");
        freeze(dir.path(), &cow, "a");
        let size = |size| {
            let set = SetAttr {
                size: Some(size),
                ..SetAttr::default()
            };
            cow.tree.setattr(ROOT, ino, &set).unwrap();
        };
        size(5000);
        size(20_000);
        put(&cow, other, 0, b"y");
        cow.tree.fsync(other, false).unwrap();
        // As after a kill: what it had in memory is gone, and its lock.
        std::mem::forget(cow);
        let journal = dir.path().join("upper/journal");
        let copied = journal.with_extension("copied");
        std::fs::copy(&journal, &copied).unwrap();
        std::fs::rename(&copied, &journal).unwrap();
        let again = open(dir.path());
        let now = content(&again, "/f");
        assert_eq!(now.len(), 20_000, "{len}");
        assert!(now[..5000] == bytes[..5000] && now[5000..].iter().all(|b| *b == 0));
        drop(again);
        let then = thaw(dir.path(), &frozen::state(&dir.path().join("upper"), "a"));
        assert!(
            content(&then, "/f") == bytes,
            "{len}: the frozen state is as it was"
        );
    }
}
