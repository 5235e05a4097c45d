use super::file::{FRAME, HEADER, Journal, LONGEST, Step};
use super::record::Record;
use nix::errno::Errno;
use std::cell::RefCell;
use std::path::Path;

fn unlink(name: &[u8]) -> Record<'_> {
    Record::Unlink {
        parent: 1,
        name,
        time: crate::cow::meta::Time::default(),
    }
}

/// Opens the journal and says which names it told of, with the numbers of their records.
fn open(path: &Path) -> (Journal, Vec<(u64, String)>) {
    let mut seen = Vec::new();
    let journal = Journal::open(path, 7, |seq, r| {
        if let Record::Unlink { name, .. } = r {
            seen.push((seq, String::from_utf8_lossy(name).into_owned()));
        }
        Ok(())
    })
    .expect("journal opens");
    (journal, seen)
}

fn names(path: &Path) -> Vec<String> {
    open(path).1.into_iter().map(|(_, name)| name).collect()
}

/// A journal of these names, all durable.
fn journal_of(path: &Path, names: &[&str]) -> Journal {
    let (j, _) = open(path);
    for name in names {
        j.append(&unlink(name.as_bytes()));
    }
    j.sync(j.last(), false).expect("sync");
    j
}

#[test]
fn a_tail_cut_or_flipped_anywhere_loses_only_itself() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    drop(journal_of(&path, &["one", "two", "three"]));
    let whole = std::fs::read(&path).expect("read");
    let sizes: Vec<usize> = [3usize, 3, 5]
        .iter()
        .map(|n| FRAME + 1 + 8 + 4 + n + 12)
        .collect();
    // Zeros where the cut was may be what was there.
    let intact = |bytes: &[u8]| {
        let mut edge = HEADER;
        let whole_to = |s: &&usize| {
            edge += **s;
            bytes.get(..edge) == Some(&whole[..edge])
        };
        sizes.iter().take_while(whole_to).count()
    };
    // As a torn write leaves it: at the file's end, and in room that was written ahead.
    for zeros in [0, 512] {
        for at in HEADER..whole.len() {
            let mut cut = whole[..at].to_vec();
            cut.resize(if zeros > 0 { whole.len() + zeros } else { at }, 0);
            std::fs::write(&path, &cut).expect("write");
            assert_eq!(names(&path).len(), intact(&cut), "cut at {at}");
            let mut bad = whole.clone();
            bad[at] ^= 0x40;
            bad.resize(whole.len() + zeros, 0);
            std::fs::write(&path, &bad).expect("write");
            let keep = intact(&bad);
            assert_eq!(names(&path).len(), keep, "flip at {at}");
            let left = std::fs::metadata(&path).expect("stat").len() as usize;
            assert_eq!(left, HEADER + sizes[..keep].iter().sum::<usize>());
            assert_eq!(names(&path).len(), keep, "after the cut");
        }
    }
}

#[test]
fn appends_after_a_cut_tail_are_found_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    drop(journal_of(&path, &["one"]));
    let mut bytes = std::fs::read(&path).expect("read");
    bytes.extend_from_slice(&[9; 40]);
    std::fs::write(&path, bytes).expect("write");
    drop(journal_of(&path, &["two"]));
    assert_eq!(names(&path), ["one", "two"]);
}

#[test]
fn whole_frames_behind_a_tear_never_come_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    drop(journal_of(&path, &["one", "two", "six"]));
    let mut bytes = std::fs::read(&path).expect("read");
    // The second is torn; the third, whole, has the number that comes after the next second.
    let second = HEADER + FRAME + 28;
    bytes[second..second + 4].fill(0);
    bytes.resize(bytes.len() + 100, 0);
    std::fs::write(&path, bytes).expect("write");
    drop(journal_of(&path, &["new"]));
    assert_eq!(names(&path), ["one", "new"]);
}

#[test]
fn room_ahead_is_the_clean_end_and_used_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let (j, _) = open(&path);
    j.append(&unlink(b"one"));
    j.sync(1, true).expect("sync");
    let length = std::fs::metadata(&path).expect("stat").len();
    assert!((4096..=8192).contains(&length), "{length}");
    drop(j);
    let (j, seen) = open(&path);
    assert_eq!(seen.len(), 1);
    let mut n = 1;
    let grown = loop {
        n += 1;
        j.append(&unlink(b"more"));
        j.sync(n, true).expect("sync");
        let now = std::fs::metadata(&path).expect("stat").len();
        if now != length {
            break now;
        }
    };
    assert!(n > 50, "a length for each of {n} syncs");
    assert!(grown >= 2 * length - 4096, "{grown} after {length}");
    drop(j);
    assert_eq!(names(&path).len() as u64, n);
}

#[test]
fn without_an_fsync_there_is_no_room_ahead() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    drop(journal_of(&path, &["one"]));
    let length = std::fs::metadata(&path).expect("stat").len() as usize;
    assert_eq!(length, HEADER + FRAME + 28);
}

#[test]
fn a_sync_writes_nothing_behind_the_record_it_is_for() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let (j, _) = open(&path);
    for name in [b"one", b"two", b"six"] {
        j.append(&unlink(name));
    }
    j.sync(2, false).expect("sync");
    assert_eq!(j.durable(), 2);
    let copy = dir.path().join("copy");
    std::fs::copy(&path, &copy).expect("copy");
    assert_eq!(names(&copy), ["one", "two"]);
    j.append(&unlink(b"ten"));
    j.sync(4, false).expect("sync");
    drop(j);
    assert_eq!(names(&path), ["one", "two", "six", "ten"]);
}

#[test]
fn another_base_a_second_opener_and_another_version_are_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let j = journal_of(&path, &[]);
    assert!(Journal::open(&path, 7, |_, _| Ok(())).is_err(), "locked");
    drop(j);
    let e = Journal::open(&path, 8, |_, _| Ok(())).expect_err("other base");
    assert!(format!("{e:#}").contains("another lower"), "{e:#}");
    // The header of format 1 was shorter than today's, and so was an empty journal of it.
    let mut old = b"rlessjnl\x01\0\0\0".to_vec();
    old.resize(32, 0);
    std::fs::write(&path, &old).expect("write");
    let e = Journal::open(&path, 7, |_, _| Ok(())).expect_err("other version");
    assert!(format!("{e:#}").contains("another version"), "{e:#}");
    assert_eq!(std::fs::read(&path).expect("read"), old, "left alone");
}

/// What the file says if it were read now.
fn copied(path: &Path) -> Vec<(u64, String)> {
    let dir = tempfile::tempdir().expect("tempdir");
    let copy = dir.path().join("journal");
    std::fs::copy(path, &copy).expect("copy");
    open(&copy).1
}

#[test]
fn a_fold_keeps_numbers_and_what_comes_meanwhile() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let j = journal_of(&path, &["one", "two"]);
    let image = j.image(|put| put(&unlink(b"both"))).expect("image");
    // One that is written to the old file before the copy, one while the new one is there.
    j.append(&unlink(b"three"));
    j.sync(3, true).expect("sync");
    j.append(&unlink(b"four"));
    j.append(&unlink(b"five"));
    let old = || {
        let mut all = vec![(1, "one".to_owned()), (2, "two".to_owned())];
        all.push((3, "three".to_owned()));
        all
    };
    let new = || vec![(0, "both".to_owned()), (3, "three".to_owned())];
    let with_four = |mut list: Vec<(u64, String)>| {
        list.push((4, "four".to_owned()));
        list
    };
    let steps = RefCell::new(Vec::new());
    j.adopt(image, &mut |step| {
        steps.borrow_mut().push(step);
        let expect = match step {
            Step::Written => old(),
            Step::Synced => {
                j.sync(4, false)?;
                with_four(old())
            }
            Step::Copied => with_four(old()),
            _ => with_four(new()),
        };
        assert_eq!(copied(&path), expect, "{step:?}");
        Ok(())
    })
    .expect("fold");
    use Step::{Copied, Renamed, Synced, Written};
    assert_eq!(*steps.borrow(), [Written, Synced, Copied, Renamed]);
    assert_eq!((j.durable(), j.folded(), j.last()), (4, 2, 5));
    assert!(!path.with_extension("tmp").exists());
    j.sync(5, false).expect("sync");
    assert_eq!(j.append(&unlink(b"six")), 6);
    j.sync(6, true).expect("sync");
    drop(j);
    let (j, seen) = open(&path);
    let numbers: Vec<u64> = seen.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, [0, 3, 4, 5, 6]);
    assert_eq!((j.durable(), j.folded()), (6, 2));
}

#[test]
fn a_fold_that_fails_leaves_the_old_journal_in_use() {
    for at in [Step::Written, Step::Synced, Step::Copied] {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("journal");
        let j = journal_of(&path, &["one"]);
        let image = j.image(|put| put(&unlink(b"never"))).expect("image");
        let failed = j.adopt(image, &mut |step| match step {
            s if s == at => Err(Errno::ENOSPC),
            _ => Ok(()),
        });
        assert_eq!(failed, Err(Errno::ENOSPC));
        assert!(!path.with_extension("tmp").exists());
        j.append(&unlink(b"two"));
        j.sync(2, true).expect("sync");
        drop(j);
        assert_eq!(names(&path), ["one", "two"], "{at:?}");
    }
}

#[test]
fn a_fold_whose_new_name_is_not_durable_promises_nothing_more() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let j = journal_of(&path, &["one"]);
    let image = j.image(|put| put(&unlink(b"one"))).expect("image");
    let failed = j.adopt(image, &mut |step| match step {
        Step::Renamed => Err(Errno::EIO),
        _ => Ok(()),
    });
    assert_eq!(failed, Err(Errno::EIO));
    j.append(&unlink(b"two"));
    assert_eq!(j.sync(2, true), Err(Errno::EIO));
}

#[test]
fn damage_in_the_folded_part_is_refused_not_cut() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let j = journal_of(&path, &["one"]);
    let write = |put: &mut dyn FnMut(&Record<'_>)| {
        put(&unlink(b"a"));
        put(&unlink(b"b"));
    };
    let image = j.image(write).expect("image");
    j.adopt(image, &mut |_| Ok(())).expect("fold");
    drop(j);
    let whole = std::fs::read(&path).expect("read");
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).expect("write");
        assert!(
            Journal::open(&path, 7, |_, _| Ok(())).is_err(),
            "flip at {at}"
        );
        assert_eq!(std::fs::read(&path).expect("read"), bad, "flip at {at}");
    }
}

#[test]
fn a_record_longer_than_one_can_be_read_is_never_written() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    let j = journal_of(&path, &["one"]);
    let long = vec![0; LONGEST];
    let refused = j.image(|put| put(&unlink(&long)));
    assert!(matches!(refused, Err(Errno::EFBIG)));
    j.append(&unlink(b"two"));
    j.sync(2, false).expect("sync");
    j.append(&unlink(&long));
    j.append(&unlink(b"behind it"));
    assert_eq!(j.sync(j.last(), false), Err(Errno::EIO));
    drop(j);
    assert_eq!(names(&path), ["one", "two"]);
}

#[test]
fn what_was_read_is_durable_and_what_waits_is_counted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("journal");
    drop(journal_of(&path, &["one"]));
    let (j, _) = open(&path);
    assert_eq!((j.durable(), j.waiting()), (1, 0));
    for n in 1..=3 {
        j.append(&unlink(b"two"));
        assert_eq!(j.waiting(), n * (FRAME + 28));
    }
    j.sync(2, false).expect("sync");
    assert_eq!(j.waiting(), 2 * (FRAME + 28));
    j.sync(4, false).expect("sync");
    assert_eq!(j.waiting(), 0);
}

#[test]
fn a_header_that_never_reached_the_disk_promised_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    for bytes in [
        vec![0; HEADER - 1],
        vec![0; HEADER],
        vec![0; 2 * HEADER + 100],
    ] {
        std::fs::write(&path, &bytes).unwrap();
        assert!(names(&path).is_empty());
        journal_of(&path, &["a"]);
        assert_eq!(names(&path), ["a"]);
    }
    // One byte of it is a header, and damaged.
    let mut bytes = vec![0; HEADER + 100];
    bytes[HEADER - 1] = 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(Journal::open(&path, 7, |_, _| Ok(())).is_err());
}
