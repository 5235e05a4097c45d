//! Folding while the tree is in use: cut at every step, failed at every step, and under load.

use super::super::Cow;
use super::super::journal::Step;
use super::durability::{ROOT, content, cut, file, make, open, put};
use nix::errno::Errno;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const STEPS: [Step; 6] = [
    Step::Encoded,
    Step::Settled,
    Step::Written,
    Step::Synced,
    Step::Copied,
    Step::Renamed,
];

/// A tree with something of everything a fold has to carry.
fn varied(dir: &Path) -> Cow {
    let lower = dir.join("lower");
    std::fs::create_dir_all(lower.join("dir")).unwrap();
    std::fs::write(lower.join("dir/low"), vec![b'l'; 9000]).unwrap();
    std::fs::write(lower.join("gone"), b"gone").unwrap();
    let cow = open(dir);
    let redone = make(&cow, b"redone", b"redone");
    cow.tree.fsync(redone, false).unwrap();
    let synced = make(&cow, b"synced", &[b's'; 40 * 4096]);
    cow.tree.fsync(synced, false).unwrap();
    put(&cow, synced, 8192, &[b't'; 4096]);
    make(&cow, b"dirty", b"nobody synced this");
    let low = cow.tree.lookup(1, b"dir").unwrap().unwrap();
    let low = cow.tree.lookup(low, b"low").unwrap().unwrap();
    put(&cow, low, 5000, b"changed");
    cow.tree.unlink(1, b"gone").unwrap();
    cow.tree.link(redone, 1, b"second").unwrap();
    cow.tree.setxattr(ROOT, redone, b"user.x", b"1", 0).unwrap();
    cow
}

/// Everything that can be seen, but for what no one has synced.
fn seen(cow: &Cow) -> Vec<String> {
    let mut out = Vec::new();
    let mut dirs = vec![std::path::PathBuf::from("/")];
    while let Some(dir) = dirs.pop() {
        for entry in cow.list(&dir).unwrap().unwrap() {
            let path = dir.join(&entry.name);
            let st = cow.lstat(&path).unwrap().unwrap();
            let text = if st.is_dir() {
                dirs.push(path.clone());
                String::new()
            } else {
                let bytes = content(cow, path.to_str().unwrap());
                format!("{} {:x}", bytes.len(), crc32fast::hash(&bytes))
            };
            out.push(format!(
                "{} {} {} {text}",
                path.display(),
                st.mode,
                st.nlink
            ));
        }
    }
    out.sort();
    out
}

#[test]
fn a_fold_cut_at_any_step_leaves_the_old_or_the_new_journal() {
    let dir = tempfile::tempdir().unwrap();
    let cow = varied(dir.path());
    // What the fold makes durable on its way is all of it.
    let expect = seen(&cow);
    let mut steps = Vec::new();
    let mut late = Vec::new();
    cow.tree
        .fold(&mut |step| {
            steps.push(step);
            if step == Step::Encoded {
                return Ok(());
            }
            // Up to here others go on, and what they sync is kept too.
            if step < Step::Copied {
                let name = format!("late-{step:?}");
                let ino = make(&cow, name.as_bytes(), name.as_bytes());
                cow.tree.fsync(ino, false)?;
                late.push(name);
            }
            let there = cut(dir.path(), &["journal", "journal.tmp", "data"]);
            let again = open(there.path());
            for name in &late {
                assert_eq!(content(&again, &format!("/{name}")), name.as_bytes());
                again.tree.unlink(1, name.as_bytes()).unwrap();
            }
            // Killed before the rename, what was never synced may be older.
            if step == Step::Renamed {
                assert_eq!(seen(&again), expect);
            }
            assert_eq!(content(&again, "/redone"), b"redone");
            assert_eq!(content(&again, "/synced")[4096..8192], [b's'; 4096]);
            assert!(!there.path().join("upper/journal.tmp").exists());
            Ok(())
        })
        .unwrap();
    assert_eq!(steps, STEPS);
    assert_eq!(late.len(), 3);
    assert!(!dir.path().join("upper/journal.tmp").exists());
    let whole = seen(&cow);
    drop(cow);
    assert_eq!(seen(&open(dir.path())), whole);
}

#[test]
fn a_fold_that_fails_at_any_step_changes_nothing() {
    for at in &STEPS[..5] {
        let dir = tempfile::tempdir().unwrap();
        let cow = varied(dir.path());
        let failed = cow.tree.fold(&mut |step| match step {
            s if s == *at => Err(Errno::ENOSPC),
            _ => Ok(()),
        });
        assert_eq!(failed, Err(Errno::ENOSPC), "{at:?}");
        let after = make(&cow, b"after", b"after");
        cow.tree.fsync(after, false).unwrap();
        cow.sync().unwrap();
        let whole = seen(&cow);
        assert_eq!(cow.tree.store().unwrap().journal.folded(), 0);
        drop(cow);
        let cow = open(dir.path());
        assert_eq!(seen(&cow), whole, "{at:?}");
        cow.tree.fold(&mut |_| Ok(())).unwrap();
        drop(cow);
        assert_eq!(seen(&open(dir.path())), whole, "{at:?}");
    }
}

#[test]
fn content_behind_a_fold_needs_no_redo_of_before() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 80 * 4096]);
    cow.tree.fsync(ino, false).unwrap();
    put(&cow, ino, 0, &[b'x'; 4096]);
    cow.tree.fsync(ino, false).unwrap();
    cow.tree.fold(&mut |_| Ok(())).unwrap();
    let store = cow.tree.store().unwrap();
    let records = store.journal.last();
    // Now its data file is enough.
    put(&cow, ino, 0, &[b'b'; 4096]);
    cow.tree.fsync(ino, true).unwrap();
    assert_eq!(store.journal.last(), records);
    let there = cut(dir.path(), &["journal", "data"]);
    let mut expect = vec![b'b'; 4096];
    expect.resize(80 * 4096, b'a');
    assert!(content(&open(there.path()), "/f") == expect);
}

#[test]
fn a_data_file_the_image_names_stays_until_its_end_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"never synced");
    cow.tree
        .fold(&mut |step| {
            if step == Step::Encoded {
                cow.tree.unlink(1, b"f")?;
                cow.tree.forget(ino, 1);
            }
            Ok(())
        })
        .unwrap();
    // The unlink is not durable: killed now, the file is there with its content.
    let there = cut(dir.path(), &["journal", "data"]);
    assert_eq!(content(&open(there.path()), "/f"), b"never synced");
    cow.sync().unwrap();
    let there = cut(dir.path(), &["journal", "data"]);
    assert!(open(there.path()).stat(Path::new("/f")).unwrap().is_none());
    assert!(!there.path().join("upper/data/arena-0").exists());
}

#[test]
fn an_unnamed_file_gets_its_name_behind_a_fold() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = cow.tree.tmpfile(ROOT, 1, &file()).unwrap();
    put(&cow, ino, 0, b"content");
    cow.tree.fold(&mut |_| Ok(())).unwrap();
    cow.tree.link(ino, 1, b"named").unwrap();
    cow.tree.commit(true).unwrap();
    drop(cow);
    assert_eq!(content(&open(dir.path()), "/named"), b"content");
}

#[test]
fn folds_under_load_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let (done, folds) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|w| {
                let (cow, folds) = (&cow, &folds);
                scope.spawn(move || {
                    // However slow the folder is here, it is to meet with changes twice.
                    let more = |n: &u8| *n < 30 || folds.load(Ordering::Acquire) < 2;
                    for n in (0..u8::MAX).take_while(more) {
                        let tmp = format!("tmp-{w}");
                        let ino = make(cow, tmp.as_bytes(), &[n; 6000]);
                        if n % 3 == 0 {
                            cow.tree.fsync(ino, false).unwrap();
                        }
                        let name = format!("file-{w}-{}", n % 7);
                        let names = (tmp.as_bytes(), name.as_bytes());
                        cow.tree.rename(ROOT, 1, names.0, 1, names.1, 0).unwrap();
                        if n % 5 == 0 {
                            put(cow, ino, 100_000, &[n; 200_000]);
                            cow.tree.fsync(ino, true).unwrap();
                        }
                        if n % 11 == 0 {
                            cow.tree.unlink(1, names.1).unwrap();
                        }
                    }
                })
            })
            .collect();
        let folder = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                cow.tree.fold(&mut |_| Ok(())).unwrap();
                folds.fetch_add(1, Ordering::Release);
                // At any moment what is on disk opens.
                let there = cut(dir.path(), &["journal"]);
                drop(open(there.path()));
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Release);
        folder.join().unwrap();
        assert!(folds.load(Ordering::Acquire) > 1);
    });
    cow.sync().unwrap();
    let whole = seen(&cow);
    drop(cow);
    let cow = open(dir.path());
    assert_eq!(seen(&cow), whole);
    cow.tree.fold(&mut |_| Ok(())).unwrap();
    drop(cow);
    assert_eq!(seen(&open(dir.path())), whole);
}

#[test]
fn a_journal_is_folded_when_it_has_grown_enough_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let journal = dir.path().join("upper/journal");
    let ino = make(&cow, b"f", b"");
    let mut n = 0u8;
    while journal.metadata().unwrap().len() < 1 << 20 {
        put(&cow, ino, 0, &[n; 4096]);
        cow.tree.fsync(ino, false).unwrap();
        n = n.wrapping_add(1);
        if journal.metadata().unwrap().len() < 900 << 10 {
            cow.tree.fold_if_long().unwrap();
            assert_eq!(cow.tree.store().unwrap().journal.folded(), 0);
        }
    }
    while !cow.tree.store().unwrap().journal.is_long() {
        put(&cow, ino, 0, &[n; 4096]);
        cow.tree.fsync(ino, false).unwrap();
    }
    cow.tree.fold_if_long().unwrap();
    let length = journal.metadata().unwrap().len();
    assert!(length < 1000, "{length}");
    let expect = content(&cow, "/f");
    drop(cow);
    assert_eq!(content(&open(dir.path()), "/f"), expect);
}
