//! What must be there after the server was killed or the power cut: an upper that is dropped without
//! a sync is the one; the other is shown by opening the journal over data files that are older or
//! gone, as far as nothing has synced them.

use super::super::meta::{Caller, lk};
use super::super::{Cow, IdView, Lower, Options, Time};
use super::create::New;
use super::{SetAttr, Stamp, rename};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

pub(super) const ROOT: Caller = Caller { uid: 0, gid: 0 };

pub(super) fn open(dir: &Path) -> Cow {
    open_limited(dir, None).unwrap()
}

/// `lower` of `dir` with changes to its `upper`, of which there may be so many bytes.
pub(super) fn open_limited(dir: &Path, size_limit: Option<u64>) -> crate::error::Result<Cow> {
    let lower = dir.join("lower");
    std::fs::create_dir_all(&lower).unwrap();
    Cow::open(Options {
        lower: Lower::HostDir {
            root: lower,
            hide: Vec::new(),
            uids: IdView::default(),
            gids: IdView::default(),
        },
        upper: Some(dir.join("upper")),
        squash: None,
        size_limit,
        stats: None,
    })
}

/// A place with the lower of `dir` and of its upper what `parts` names.
pub(super) fn cut(dir: &Path, parts: &[&str]) -> tempfile::TempDir {
    copied(dir, parts, tempfile::tempdir().unwrap())
}

/// The same for whoever opens hundreds: where a sync costs nothing, if there is such a place.
fn cut_in_memory(dir: &Path, parts: &[&str]) -> tempfile::TempDir {
    let to = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    copied(dir, parts, to.unwrap())
}

fn copied(dir: &Path, parts: &[&str], to: tempfile::TempDir) -> tempfile::TempDir {
    let mut all = vec!["lower".to_owned()];
    all.extend(parts.iter().map(|part| format!("upper/{part}")));
    for part in all {
        copy_tree(&dir.join(&part), &to.path().join(&part));
    }
    to
}

fn copy_tree(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy_tree(&from.join(&name), &to.join(&name));
        }
    } else if from.exists() {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
}

pub(super) fn file() -> New<'static> {
    New {
        mode: libc::S_IFREG | 0o644,
        ..New::default()
    }
}

pub(super) fn content(cow: &Cow, path: &str) -> Vec<u8> {
    cow.read_file(Path::new(path), 1 << 20).unwrap().unwrap()
}

#[test]
fn content_written_before_a_temporary_file_got_its_name_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = cow.tree.tmpfile(ROOT, 1, &file()).unwrap();
    cow.tree.write(ROOT, ino, 0, b"content", false).unwrap();
    // The flusher comes by while it has no name.
    cow.sync().unwrap();
    cow.tree.link(ino, 1, b"named").unwrap();
    cow.sync().unwrap();
    drop(cow);
    assert_eq!(content(&open(dir.path()), "/named"), b"content");
}

#[test]
fn an_fsync_waits_for_a_flush_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = cow.tree.create(ROOT, 1, b"f", &file()).unwrap();
    cow.tree.write(ROOT, ino, 0, b"content", false).unwrap();
    // As the flusher: the content is on its way, the record of it not yet appended.
    let node = cow.tree.node(ino).unwrap();
    let flushing = lk(&node.flushing);
    let snapshot = cow.tree.snapshot(&node).unwrap().unwrap();
    std::thread::scope(|scope| {
        let (done, synced) = mpsc::channel();
        let tree = &cow.tree;
        scope.spawn(move || done.send(tree.fsync(ino, false)).unwrap());
        let early = synced.recv_timeout(Duration::from_millis(200));
        assert!(early.is_err(), "nothing of it is in the journal");
        assert!(cow.tree.record(&node, snapshot));
        drop(flushing);
        synced.recv().unwrap().unwrap();
    });
    drop(node);
    drop(cow);
    assert_eq!(content(&open(dir.path()), "/f"), b"content");
}

#[test]
fn a_time_set_while_a_flush_is_under_way_stays() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"content");
    let node = cow.tree.node(ino).unwrap();
    let snapshot = cow.tree.snapshot(&node).unwrap().unwrap();
    let time = Time {
        sec: 5_322_698_292,
        nsec: 66_203_779,
    };
    let set = SetAttr {
        mtime: Some(Stamp::At(time)),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, ino, &set).unwrap();
    assert!(cow.tree.record(&node, snapshot));
    cow.tree.commit(true).unwrap();
    drop(node);
    drop(cow);
    let again = open(dir.path());
    assert_eq!(again.tree.getattr(ino).unwrap().0.mtime, time);
}

/// A file of the root directory with this content, nothing of it durable.
pub(super) fn make(cow: &Cow, name: &[u8], bytes: &[u8]) -> u64 {
    let ino = cow.tree.create(ROOT, 1, name, &file()).unwrap();
    put(cow, ino, 0, bytes);
    ino
}

pub(super) fn put(cow: &Cow, ino: u64, at: u64, bytes: &[u8]) {
    cow.tree.write(ROOT, ino, at, bytes, false).unwrap();
}

pub(super) fn size(cow: &Cow, ino: u64, size: u64) {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, ino, &set).unwrap();
}

fn last(cow: &Cow) -> u64 {
    cow.tree.store().unwrap().journal.last()
}

#[test]
fn an_fsync_of_little_needs_the_journal_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lower")).unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"content");
    cow.tree.fsync(ino, false).unwrap();
    put(&cow, ino, 4096 * 9, &[7; 5000]);
    put(&cow, ino, 3, b"TENT");
    cow.tree.fsync(ino, false).unwrap();
    put(&cow, ino, 0, b"nobody waited for this");
    let mut expect = b"conTENT".to_vec();
    expect.resize(4096 * 9, 0);
    expect.resize(4096 * 9 + 5000, 7);
    // No data file has been synced: after a power cut none need be there.
    let there = cut(dir.path(), &["journal"]);
    assert_eq!(content(&open(there.path()), "/f"), expect);
    // Killed in the middle of that or after it: again.
    std::fs::remove_file(there.path().join("upper/data/arena-0")).unwrap();
    let again = open(there.path());
    assert_eq!(content(&again, "/f"), expect);
    let store = again.tree.store().unwrap();
    assert_eq!(store.journal.folded(), 0, "the journal was not touched");
}

#[test]
fn an_fsync_of_much_syncs_the_data_file() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[7; 17 * 4096]);
    cow.tree.fsync(ino, false).unwrap();
    let length = dir.path().join("upper/journal").metadata().unwrap().len();
    assert!(length < 17 * 4096, "{length}");
    let there = cut(dir.path(), &["journal", "data"]);
    assert_eq!(content(&open(there.path()), "/f"), [7; 17 * 4096]);
}

#[test]
fn redo_does_not_undo_what_was_synced_later() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 9000]);
    cow.tree.fsync(ino, false).unwrap();
    put(&cow, ino, 0, &[b'b'; 9000]);
    // The periodic flush: the data file itself.
    cow.sync().unwrap();
    put(&cow, ino, 8000, &[b'c'; 1000]);
    cow.tree.fsync(ino, false).unwrap();
    drop(cow);
    let mut expect = vec![b'b'; 8000];
    expect.resize(9000, b'c');
    assert_eq!(content(&open(dir.path()), "/f"), expect);
}

#[test]
fn what_a_truncation_cut_off_does_not_come_back_by_redo() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 3 * 4096]);
    cow.tree.fsync(ino, false).unwrap();
    cow.sync().unwrap();
    // As the disk has it from now on.
    let old = cut(dir.path(), &["data"]);
    put(&cow, ino, 0, &[b'b'; 3 * 4096]);
    cow.tree.fsync(ino, false).unwrap();
    size(&cow, ino, 100);
    size(&cow, ino, 2 * 4096);
    put(&cow, ino, 5000, b"c");
    cow.tree.fsync(ino, false).unwrap();
    let mut expect = vec![b'b'; 100];
    expect.resize(2 * 4096, 0);
    expect[5000] = b'c';
    assert_eq!(content(&cow, "/f"), expect);
    for parts in [&["journal"][..], &["journal", "data"]] {
        let there = cut(dir.path(), parts);
        copy_tree(&old.path().join("upper"), &there.path().join("upper"));
        assert_eq!(content(&open(there.path()), "/f"), expect, "{parts:?}");
    }
}

#[test]
fn a_truncation_that_is_not_durable_cuts_nothing_when_an_earlier_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let before: Vec<u8> = (0..80 * 4096)
        .map(|i: usize| (i / 4096) as u8 + 1)
        .collect();
    let ino = make(&cow, b"f", &before);
    cow.sync().unwrap();
    size(&cow, ino, 70 * 4096);
    let store = cow.tree.store().unwrap();
    cow.tree.make_durable(store, last(&cow), false).unwrap();
    size(&cow, ino, 2 * 4096);
    // As the end of a commit that began before the second one.
    cow.tree.clean_up(store, false);
    let there = cut(dir.path(), &["journal", "data"]);
    assert!(content(&open(there.path()), "/f") == before[..70 * 4096]);
    // It is only put off.
    cow.tree.commit(true).unwrap();
    let node = cow.tree.node(ino).unwrap();
    match &super::rd(&node.state).body {
        super::Body::File(f) => assert_eq!(f.phys, 2 * 4096),
        _ => panic!("no file"),
    }
}

#[test]
fn a_file_that_grew_has_zeros_even_if_its_data_file_is_as_it_was() {
    for synced in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let cow = open(dir.path());
        let ino = make(&cow, b"f", &[b'a'; 3 * 4096]);
        cow.sync().unwrap();
        let old = cut(dir.path(), &["data"]);
        if synced {
            put(&cow, ino, 8, b"b");
            cow.tree.fsync(ino, false).unwrap();
        }
        size(&cow, ino, 100);
        size(&cow, ino, 200);
        size(&cow, ino, 150);
        size(&cow, ino, 2 * 4096);
        // Of the file itself nobody syncs anything.
        cow.tree.commit(true).unwrap();
        let mut expect = vec![b'a'; 100];
        expect.resize(2 * 4096, 0);
        if synced {
            expect[8] = b'b';
        }
        let there = cut(dir.path(), &["journal"]);
        copy_tree(&old.path().join("upper"), &there.path().join("upper"));
        assert_eq!(content(&open(there.path()), "/f"), expect);
        // What is written there and synced is not cleared with it.
        put(&cow, ino, 120, b"c");
        cow.tree.fsync(ino, true).unwrap();
        expect[120] = b'c';
        let there = cut(dir.path(), &["journal", "data"]);
        assert_eq!(content(&open(there.path()), "/f"), expect);
    }
}

#[test]
fn zeros_of_a_file_that_grew_do_not_undo_what_a_later_server_synced() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 300]);
    cow.sync().unwrap();
    size(&cow, ino, 2000);
    cow.tree.commit(true).unwrap();
    drop(cow);
    let cow = open(dir.path());
    put(&cow, ino, 700, b"c");
    cow.tree.fsync(ino, true).unwrap();
    drop(cow);
    assert_eq!(content(&open(dir.path()), "/f")[700], b'c');
}

/// A block is as it was at one time, whatever sizes are recorded without the content between them.
#[test]
fn a_size_recorded_without_the_content_before_it_tears_no_block() {
    let whole = |found: &[u8], versions: &[&[u8]]| {
        let fits = |v: &&[u8]| {
            let same = v.len().min(found.len());
            found[..same] == v[..same] && found[same..].iter().all(|b| *b == 0)
        };
        assert!(versions.iter().any(fits), "{found:?}");
    };
    // Written over the end that the journal knows, then cut, lengthened; cut and lengthened.
    for sizes in [&[600][..], &[4000], &[600, 700]] {
        let dir = tempfile::tempdir().unwrap();
        let cow = open(dir.path());
        let ino = make(&cow, b"f", &[b'a'; 300]);
        cow.sync().unwrap();
        put(&cow, ino, 100, &[b'b'; 900]);
        sizes.iter().for_each(|n| size(&cow, ino, *n));
        cow.tree.commit(true).unwrap();
        let new = content(&cow, "/f");
        drop(cow);
        let found = content(&open(dir.path()), "/f");
        assert_eq!(found.len(), new.len());
        whole(&found, &[&[b'a'; 300], &new]);
    }
    // Lengthened, then written over the old end.
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 300]);
    cow.sync().unwrap();
    size(&cow, ino, 2000);
    put(&cow, ino, 100, &[b'b'; 900]);
    cow.tree.commit(true).unwrap();
    let new = content(&cow, "/f");
    drop(cow);
    let found = content(&open(dir.path()), "/f");
    whole(&found, &[&[b'a'; 300], &new]);
    // Redo of an older time, cut and lengthened.
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 3000]);
    cow.tree.fsync(ino, false).unwrap();
    put(&cow, ino, 100, &[b'b'; 900]);
    size(&cow, ino, 600);
    size(&cow, ino, 2000);
    cow.tree.commit(true).unwrap();
    let new = content(&cow, "/f");
    drop(cow);
    let found = content(&open(dir.path()), "/f");
    whole(&found, &[&[b'a'; 3000], &new]);
}

#[test]
fn a_block_that_a_truncation_cut_is_written_only_when_that_is_durable() {
    for at in [600, 0, 500] {
        let dir = tempfile::tempdir().unwrap();
        let cow = open(dir.path());
        let ino = make(&cow, b"f", &[b'a'; 3000]);
        cow.sync().unwrap();
        size(&cow, ino, 600);
        put(&cow, ino, at, &[b'b'; 100]);
        // Nothing but that truncation was made durable.
        let found = cut(dir.path(), &["journal", "data"]);
        let found = content(&open(found.path()), "/f");
        let mut new = vec![b'a'; 600];
        new.resize(new.len().max(at as usize + 100), b'b');
        new[at as usize..at as usize + 100].fill(b'b');
        new.truncate(600);
        assert!(
            found == [b'a'; 3000] || found == [b'a'; 600] || found == new,
            "{at}: {found:?}"
        );
    }
}

#[test]
fn a_file_that_was_emptied_and_written_anew_comes_with_anybodys_fsync() {
    for bytes in [3000, 100 * 4096] {
        let dir = tempfile::tempdir().unwrap();
        let cow = open(dir.path());
        let ino = make(&cow, b"f", b"old");
        let other = make(&cow, b"other", b"other");
        cow.sync().unwrap();
        size(&cow, ino, 0);
        put(&cow, ino, 0, &vec![b'n'; bytes]);
        cow.tree.fsync(other, false).unwrap();
        let there = cut(dir.path(), &["journal", "data"]);
        assert!(content(&open(there.path()), "/f") == vec![b'n'; bytes]);
        // Once: what is written on and on is not synced by everybody.
        let records = last(&cow);
        put(&cow, ino, 0, b"more");
        put(&cow, other, 0, b"OTHER");
        cow.tree.fsync(other, false).unwrap();
        assert_eq!(last(&cow), records + 1);
    }
}

#[test]
fn a_file_made_anew_and_one_that_is_gone_leave_no_redo() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 9000]);
    cow.tree.fsync(ino, false).unwrap();
    size(&cow, ino, 0);
    put(&cow, ino, 4096, b"new");
    cow.tree.fsync(ino, false).unwrap();
    let gone = make(&cow, b"gone", b"gone");
    cow.tree.fsync(gone, false).unwrap();
    cow.tree.unlink(1, b"gone").unwrap();
    cow.tree.commit(true).unwrap();
    let there = cut(dir.path(), &["journal"]);
    let cow = open(there.path());
    let mut expect = vec![0; 4096];
    expect.extend_from_slice(b"new");
    assert_eq!(content(&cow, "/f"), expect);
    assert_eq!(cow.usage().bytes / 4096, 1, "one block, and metadata");
    let blocks = super::arenas::in_use(there.path());
    assert_eq!(blocks, 1, "nor its redo");
}

#[test]
fn a_data_file_that_was_synced_and_is_gone_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 9000]);
    cow.sync().unwrap();
    put(&cow, ino, 0, b"b");
    cow.tree.fsync(ino, false).unwrap();
    let there = cut(dir.path(), &["journal"]);
    let cow = open(there.path());
    assert!(cow.read_file(Path::new("/f"), 1 << 20).is_err());
}

#[test]
fn an_fdatasync_of_what_was_only_overwritten_leaves_the_journal_alone() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 80 * 4096]);
    cow.tree.fsync(ino, true).unwrap();
    let records = last(&cow);
    put(&cow, ino, 4096, &[b'b'; 4096]);
    cow.tree.fsync(ino, true).unwrap();
    assert_eq!(last(&cow), records);
    // A block or a byte more is another matter, and so is fsync.
    put(&cow, ino, 80 * 4096, b"c");
    cow.tree.fsync(ino, true).unwrap();
    assert_eq!(last(&cow), records + 1);
    put(&cow, ino, 80 * 4096 + 1, b"d");
    cow.tree.fsync(ino, true).unwrap();
    assert_eq!(last(&cow), records + 2);
    put(&cow, ino, 0, b"e");
    cow.tree.fsync(ino, false).unwrap();
    assert_eq!(last(&cow), records + 3);
    // Its redo would undo a later sync of the data file: so it is redone, for a while.
    for n in 0..20 {
        put(&cow, ino, 0, &[n; 4096]);
        cow.tree.fsync(ino, true).unwrap();
        let there = cut(dir.path(), &["journal", "data"]);
        assert_eq!(content(&open(there.path()), "/f")[..4096], [n; 4096]);
    }
    let more = last(&cow) - records;
    assert!((4..=12).contains(&more), "{more} records");
}

#[test]
fn an_fdatasync_of_a_small_file_is_the_journals_alone() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 40 * 4096]);
    cow.tree.fsync(ino, true).unwrap();
    // What the disk has of the arena from now on.
    let disk = cut(dir.path(), &["data"]);
    let records = last(&cow);
    let mut expect = vec![b'a'; 40 * 4096];
    for n in 0..10u8 {
        let at = usize::from(n) * 8192;
        put(&cow, ino, at as u64, &[n; 4096]);
        expect[at..at + 4096].fill(n);
        cow.tree.fsync(ino, true).unwrap();
        assert_eq!(last(&cow), records + 1 + u64::from(n));
        let there = cut(dir.path(), &["journal"]);
        copy_tree(&disk.path().join("upper"), &there.path().join("upper"));
        assert!(content(&open(there.path()), "/f") == expect, "{n}");
    }
    // A fold voids what is in the journal, and it begins again.
    for n in 0..100u8 {
        put(&cow, ino, 0, &[n; 4096]);
        expect[..4096].fill(n);
        cow.tree.fsync(ino, true).unwrap();
        if n == 50 {
            cow.tree.fold(&mut |_| Ok(())).unwrap();
        }
        let there = cut(dir.path(), &["journal", "data"]);
        assert!(content(&open(there.path()), "/f") == expect, "{n}");
    }
}

#[test]
fn a_truncation_is_no_overwriting() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[b'a'; 40 * 4096]);
    cow.tree.fsync(ino, true).unwrap();
    size(&cow, ino, 4096);
    put(&cow, ino, 0, b"b");
    cow.tree.fsync(ino, true).unwrap();
    let there = cut(dir.path(), &["journal", "data"]);
    assert_eq!(content(&open(there.path()), "/f").len(), 4096);
}

#[test]
fn a_record_of_a_scattered_file_lists_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"");
    for n in 0..2000 {
        put(&cow, ino, n * 2 * 4096, b"x");
    }
    cow.sync().unwrap();
    let journal = dir.path().join("upper/journal");
    let before = journal.metadata().unwrap().len();
    for n in 0..100 {
        put(&cow, ino, (n * 2 + 1) * 4096, b"y");
        cow.sync().unwrap();
    }
    let more = journal.metadata().unwrap().len() - before;
    assert!(more < 100 * 150, "{more} bytes for 100 blocks");
    let expect = cow.tree.getattr(ino).unwrap();
    drop(cow);
    let cow = open(dir.path());
    let mut buf = Vec::new();
    let same = |bytes: &[u8]| bytes == b"y";
    for n in 0..100 {
        let at = (n * 2 + 1) * 4096;
        assert!(cow.tree.read(ino, at, 1, &mut buf, same).unwrap(), "{n}");
    }
    assert_eq!(cow.tree.getattr(ino).unwrap().1, expect.1);
}

/// A rename over a file with content that nobody synced; every end a torn journal can have.
fn torn_rename(bytes: usize) {
    for flushing in [false, true] {
        torn_rename_while(bytes, flushing);
    }
}

/// `flushing`: the flusher is about to sync the content, its record comes later or never.
fn torn_rename_while(bytes: usize, flushing: bool) {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let old = make(&cow, b"f", b"old");
    cow.tree.fsync(old, false).unwrap();
    let new = make(&cow, b"tmp", &vec![b'n'; bytes]);
    if flushing {
        let node = cow.tree.node(new).unwrap();
        assert!(cow.tree.snapshot(&node).unwrap().is_some());
    }
    cow.tree.rename(ROOT, 1, b"tmp", 1, b"f", 0).unwrap();
    // Somebody else's fsync.
    let other = make(&cow, b"other", b"other");
    cow.tree.fsync(other, false).unwrap();
    let journal = std::fs::read(dir.path().join("upper/journal")).unwrap();
    let mut seen = [0, 0];
    let step = if bytes > 4096 { 3 } else { 13 };
    for end in (48..journal.len()).step_by(step) {
        let there = cut(dir.path(), &["data"]);
        std::fs::write(there.path().join("upper/journal"), &journal[..end]).unwrap();
        let cow = open(there.path());
        let got = cow.read_file(Path::new("/f"), 1 << 22).unwrap();
        match got.as_deref() {
            // Before its first fsync.
            None | Some(b"") if seen[0] == 0 => {}
            Some(b"old") => seen[0] += 1,
            Some(new) if new == vec![b'n'; bytes] => seen[1] += 1,
            other => panic!("{other:?} at {end}"),
        }
        if journal[end..].iter().all(|b| *b == 0) {
            break;
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn a_small_file_comes_with_the_rename_over_another() {
    torn_rename(3000);
}

#[test]
fn a_large_file_comes_with_the_rename_over_another() {
    torn_rename(20 * 4096);
}

/// Both ways of keeping a name: with the moved file under it, and with a whiteout.
#[test]
fn a_rename_and_the_whiteout_it_leaves_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    make(&cow, b"from", b"");
    cow.sync().unwrap();
    cow.tree
        .rename(ROOT, 1, b"from", 1, b"to", rename::WHITEOUT)
        .unwrap();
    cow.tree.commit(true).unwrap();
    let journal = std::fs::read(dir.path().join("upper/journal")).unwrap();
    let mut seen = [0, 0];
    // Every byte of the frames; behind them are zeros up to the end of the file.
    let mut whole = 48;
    while let Some(len) = journal[whole..].first_chunk::<4>()
        && *len != [0; 4]
    {
        whole += 16 + u32::from_le_bytes(*len) as usize;
    }
    assert!(journal[whole..].iter().all(|b| *b == 0));
    let behind = (whole..=journal.len()).step_by(509);
    for end in (48..=whole).chain(behind).chain([journal.len()]) {
        let there = cut_in_memory(dir.path(), &["data"]);
        std::fs::write(there.path().join("upper/journal"), &journal[..end]).unwrap();
        let cow = open(there.path());
        let kind = |path: &str| {
            let stat = cow.stat(Path::new(path)).unwrap();
            stat.map(|s| s.mode & libc::S_IFMT)
        };
        match (kind("/from"), kind("/to")) {
            (None, None) if seen[0] == 0 => {}
            (Some(libc::S_IFREG), None) => seen[0] += 1,
            (Some(libc::S_IFCHR), Some(libc::S_IFREG)) => seen[1] += 1,
            other => panic!("{other:?} at {end}"),
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn a_held_record_is_written_only_after_its_data_file_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    make(&cow, b"f", b"old");
    cow.sync().unwrap();
    make(&cow, b"tmp", &[b'n'; 100 * 4096]);
    let before = last(&cow);
    cow.tree.rename(ROOT, 1, b"tmp", 1, b"f", 0).unwrap();
    let store = cow.tree.store().unwrap();
    let held = lk(&store.flush.holds)[0].seq;
    assert_eq!((held, last(&cow)), (before + 1, before + 2));
    // What comes before it does not wait, and takes nothing behind with it.
    cow.tree.make_durable(store, before, false).unwrap();
    assert_eq!(store.journal.durable(), before);
    assert_eq!(lk(&store.flush.holds).len(), 1);
    cow.tree.make_durable(store, held, false).unwrap();
    assert!(lk(&store.flush.holds).is_empty());
    assert_eq!(store.journal.durable(), held);
}

#[test]
fn an_upper_of_another_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = dir.path().join("upper/journal");
    let mut bytes = std::fs::read(&path).unwrap();
    for version in [1, 2, 5] {
        bytes[8] = version;
        std::fs::write(&path, &bytes).unwrap();
        let e = open_limited(dir.path(), None).expect_err("another version");
        assert!(format!("{e:#}").contains("another version"), "{e:#}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn an_upper_of_the_version_before_is_read_and_becomes_one_of_this() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("upper/journal");
    for folded in [false, true] {
        let cow = open(dir.path());
        let name = format!("f{folded}");
        make(&cow, name.as_bytes(), b"content");
        cow.sync().unwrap();
        if folded {
            cow.tree.fold(&mut |_| Ok(())).unwrap();
            make(&cow, b"behind", b"behind");
            cow.sync().unwrap();
        }
        drop(cow);
        let mut bytes = std::fs::read(&path).unwrap();
        let now = bytes.clone();
        bytes[8] = 3;
        let crc = crc32fast::hash(&bytes[..40]).to_le_bytes();
        bytes[40..44].copy_from_slice(&crc);
        std::fs::write(&path, &bytes).unwrap();
        let cow = open(dir.path());
        assert_eq!(content(&cow, &format!("/{name}")), b"content");
        // Before anything else is written to it.
        assert_eq!(std::fs::read(&path).unwrap()[..48], now[..48]);
    }
}

#[test]
fn what_was_written_into_reserved_space_and_lost_stays_away_when_the_file_grows() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = cow.tree.create(ROOT, 1, b"f", &file()).unwrap();
    cow.tree.write(ROOT, ino, 0, b"content", false).unwrap();
    const KEEP_SIZE: u32 = 1;
    cow.tree.fallocate(ROOT, ino, 0, 20_000, KEEP_SIZE).unwrap();
    cow.sync().unwrap();
    cow.tree
        .write(ROOT, ino, 8192, &[b'x'; 4096], false)
        .unwrap();
    // The server is killed: the length that the journal knows is the old one.
    drop(cow);
    let cow = open(dir.path());
    assert_eq!(content(&cow, "/f"), b"content");
    let longer = SetAttr {
        size: Some(20_000),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, ino, &longer).unwrap();
    let mut wanted = b"content".to_vec();
    wanted.resize(20_000, 0);
    assert!(content(&cow, "/f") == wanted, "lost bytes came back");
}
