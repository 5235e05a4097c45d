//! Places of content: sharing an arena, growing, moving, giving back; and what a crash in between leaves.

use super::super::Cow;
use super::super::meta::{BLOCK, lk, rd};
use super::SetAttr;
use super::arena::{Arenas, Region, TAG, is_region};
use super::data::{GROWN, SMALL};
use super::durability::{ROOT, content, cut, make, open, put};
use super::node::Body;
use nix::unistd::{Whence, lseek};
use std::path::Path;

const KIB: usize = 1 << 10;

/// Blocks of the arenas of an upper that are no holes.
pub(super) fn in_use(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir.join("upper/data")).unwrap();
    let paths = entries.map(|e| e.unwrap().path()).filter(|p| p.is_file());
    let mut bytes = 0;
    for path in paths {
        let file = std::fs::File::open(path).unwrap();
        let mut end = 0;
        while let Ok(start) = lseek(&file, end, Whence::SeekData) {
            end = lseek(&file, start, Whence::SeekHole).unwrap();
            bytes += (end - start).cast_unsigned();
        }
    }
    bytes.div_ceil(BLOCK)
}

/// How many data files are not arenas.
fn own(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir.join("upper/data")).unwrap();
    let dirs = entries.map(|e| e.unwrap().path()).filter(|p| p.is_dir());
    dirs.map(|d| std::fs::read_dir(d).unwrap().count()).sum()
}

fn region(cow: &Cow, ino: u64) -> Region {
    let node = cow.tree.node(ino).unwrap();
    let state = rd(&node.state);
    match &state.body {
        Body::File(f) => f.region(),
        _ => panic!("no file"),
    }
}

fn size(cow: &Cow, ino: u64, size: u64) {
    let set = SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, ino, &set).unwrap();
}

/// Bytes that tell files and places apart.
fn pattern(of: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (of * 37 + at / 7 + at / BLOCK) as u8)
        .collect()
}

#[test]
fn small_files_lie_one_behind_the_other_in_one_arena() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let mut next = None;
    for n in 0..100u64 {
        let name = format!("f{n}");
        // As tar writes: in pieces.
        let bytes = pattern(n, 1 + 211 * n as usize);
        let ino = make(&cow, name.as_bytes(), b"");
        for (at, part) in bytes.chunks(10 * KIB).enumerate() {
            put(&cow, ino, (at * 10 * KIB) as u64, part);
        }
        let Region { id, blocks } = region(&cow, ino);
        assert!(is_region(id) && id == next.unwrap_or(id), "{n}");
        assert_eq!(blocks, (bytes.len() as u64).div_ceil(BLOCK));
        next = Some(id + blocks);
    }
    assert_eq!(own(dir.path()), 0);
    cow.sync().unwrap();
    drop(cow);
    let cow = open(dir.path());
    for n in 0..100u64 {
        assert_eq!(
            content(&cow, &format!("/f{n}")),
            pattern(n, 1 + 211 * n as usize)
        );
    }
}

#[test]
fn files_that_grow_in_turns_move_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let files = [make(&cow, b"a", b""), make(&cow, b"b", b"")];
    let mut whole = [Vec::new(), Vec::new()];
    let mut moves = 0;
    for n in 0..70usize {
        for (f, ino) in files.iter().enumerate() {
            let bytes = pattern((n * 2 + f) as u64, 9000);
            let before = region(&cow, *ino).id;
            put(&cow, *ino, whole[f].len() as u64, &bytes);
            moves += usize::from(n > 0 && before != region(&cow, *ino).id);
            whole[f].extend(bytes);
            let name = ["/a", "/b"][f];
            assert!(content(&cow, name) == whole[f], "{name} after {n}");
        }
        match n % 10 {
            3 => cow.tree.fsync(files[0], false).unwrap(),
            6 => cow.sync().unwrap(),
            _ => {}
        }
    }
    assert!((8..=16).contains(&moves), "{moves} moves");
    assert_eq!(own(dir.path()), 2);
    cow.sync().unwrap();
    assert_eq!(in_use(dir.path()), 0);
    drop(cow);
    let cow = open(dir.path());
    assert!(content(&cow, "/a") == whole[0] && content(&cow, "/b") == whole[1]);
}

#[test]
fn the_last_file_of_an_arena_grows_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", &[1; 100]);
    let first = region(&cow, ino).id;
    for at in (0..GROWN).step_by(64 * KIB) {
        put(&cow, ino, at, &[2; 64 * KIB]);
    }
    assert_eq!(region(&cow, ino).id, first);
    put(&cow, ino, GROWN, b"more");
    assert!(!is_region(region(&cow, ino).id));
    let big = make(&cow, b"big", &vec![3; SMALL as usize + 1]);
    assert!(!is_region(region(&cow, big).id));
}

/// A file of that many bytes that the journal knows, and one behind it; then it grows and moves.
fn moved(dir: &Path, bytes: usize) -> (Cow, u64, Region, [Vec<u8>; 2]) {
    let cow = open(dir);
    let old = pattern(1, bytes);
    let ino = make(&cow, b"f", &old);
    make(&cow, b"behind", &pattern(2, 5000));
    cow.sync().unwrap();
    let place = region(&cow, ino);
    let more = pattern(3, 10_000);
    put(&cow, ino, old.len() as u64, &more);
    assert_ne!(region(&cow, ino).id, place.id);
    let new = [&old[..], &more].concat();
    (cow, ino, place, [old, new])
}

#[test]
fn a_move_cut_anywhere_leaves_the_old_or_the_new_content() {
    for bytes in [3000, 40 * KIB, 90 * KIB, 250 * KIB] {
        let dir = tempfile::tempdir().unwrap();
        let (cow, ino, place, [old, new]) = moved(dir.path(), bytes);
        let check = |parts: &[&str], expect: &[u8]| {
            let there = cut(dir.path(), parts);
            let cow = open(there.path());
            assert!(content(&cow, "/f") == expect, "{bytes}");
            assert!(content(&cow, "/behind") == pattern(2, 5000), "{bytes}");
        };
        check(&["journal", "data"], &old);
        // Synced and recorded, the record not yet durable: the old place is still needed.
        let node = cow.tree.node(ino).unwrap();
        let snapshot = cow.tree.snapshot(&node).unwrap().unwrap();
        assert!(cow.tree.record(&node, snapshot));
        let store = cow.tree.store().unwrap();
        assert_eq!(
            lk(&store.flush.doomed)
                .iter()
                .map(|d| d.1)
                .collect::<Vec<_>>(),
            [place]
        );
        check(&["journal", "data"], &old);
        cow.tree
            .make_durable(store, store.journal.last(), false)
            .unwrap();
        check(&["journal", "data"], &new);
        cow.sync().unwrap();
        assert!(lk(&store.flush.doomed).is_empty());
        check(&["journal", "data"], &new);
    }
}

#[test]
fn a_move_with_a_torn_journal_leaves_the_old_or_the_new_content() {
    for bytes in [3000, 90 * KIB] {
        let dir = tempfile::tempdir().unwrap();
        let (cow, ino, _, [old, new]) = moved(dir.path(), bytes);
        let from = dir.path().join("upper/journal").metadata().unwrap().len() as usize;
        let store = cow.tree.store().unwrap();
        {
            let node = cow.tree.node(ino).unwrap();
            let _gate = rd(&cow.tree.gate);
            let mut state = super::wr(&node.state);
            cow.tree.content_first(&node, &mut state, true);
        }
        // As clean_up would find it, but before that.
        cow.tree
            .make_durable(store, store.journal.last(), false)
            .unwrap();
        let journal = std::fs::read(dir.path().join("upper/journal")).unwrap();
        let mut seen = [0, 0];
        let step = (journal.len() - from) / 40 + 1;
        for end in (from..journal.len()).step_by(step).chain([journal.len()]) {
            let there = cut(dir.path(), &["data"]);
            std::fs::write(there.path().join("upper/journal"), &journal[..end]).unwrap();
            let cow = open(there.path());
            let got = content(&cow, "/f");
            assert!(got == old || got == new, "{bytes} at {end}");
            seen[usize::from(got == new)] += 1;
            assert!(content(&cow, "/behind") == pattern(2, 5000));
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }
}

#[test]
fn a_small_file_that_moved_is_redone_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (cow, ino, _, [_, new]) = moved(dir.path(), 3000);
    // What the disk has of the data from now on: a power cut loses the rest.
    let disk = cut(dir.path(), &["data"]);
    let arena = disk.path().join("upper/data/arena-0");
    std::fs::File::options()
        .write(true)
        .open(&arena)
        .unwrap()
        .set_len(3 * BLOCK)
        .unwrap();
    cow.tree.fsync(ino, false).unwrap();
    std::fs::copy(
        dir.path().join("upper/journal"),
        disk.path().join("upper/journal"),
    )
    .unwrap();
    let again = open(disk.path());
    assert!(content(&again, "/f") == new);
    assert!(content(&again, "/behind") == pattern(2, 5000));
}

#[test]
fn a_moved_file_that_is_cut_emptied_or_removed_before_its_record() {
    for how in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let (cow, ino, _, [_, new]) = moved(dir.path(), 20 * KIB);
        match how {
            0 => size(&cow, ino, 22 * KIB as u64),
            1 => size(&cow, ino, 0),
            _ => {
                cow.tree.unlink(1, b"f").unwrap();
                cow.tree.forget(ino, 1);
            }
        }
        cow.tree.commit(true).unwrap();
        let there = cut(dir.path(), &["journal", "data"]);
        let after_kill = open(there.path());
        cow.sync().unwrap();
        drop(cow);
        let whole = open(dir.path());
        match how {
            0 => {
                assert_eq!(content(&after_kill, "/f").len(), 22 * KIB);
                assert!(content(&after_kill, "/f")[..20 * KIB] == new[..20 * KIB]);
                assert!(content(&whole, "/f") == new[..22 * KIB]);
            }
            1 => assert!(content(&whole, "/f").is_empty()),
            _ => assert!(whole.stat(Path::new("/f")).unwrap().is_none()),
        }
        // What is left is that of the file behind.
        if how > 0 {
            assert_eq!(in_use(dir.path()), 2);
            assert_eq!(in_use(there.path()), 2);
        }
    }
}

#[test]
fn what_is_done_to_one_file_does_not_reach_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    make(&cow, b"a", &pattern(1, 20_000));
    let ino = make(&cow, b"b", &pattern(2, 20_000));
    make(&cow, b"c", &pattern(3, 20_000));
    const KEEP: u32 = 1;
    let mut expect = pattern(2, 20_000);
    let neighbours = |cow: &Cow| {
        assert!(content(cow, "/a") == pattern(1, 20_000));
        assert!(content(cow, "/c") == pattern(3, 20_000));
    };
    // Holes and zeros that reach far behind its end.
    for mode in [2 | KEEP, 0x10 | KEEP] {
        cow.tree.fallocate(ROOT, ino, 9000, 1 << 20, mode).unwrap();
        expect[9000..].fill(0);
        assert!(content(&cow, "/b") == expect);
        neighbours(&cow);
    }
    size(&cow, ino, 5000);
    cow.sync().unwrap();
    neighbours(&cow);
    assert_eq!(content(&cow, "/b"), expect[..5000]);
    size(&cow, ino, 20_000);
    expect[5000..].fill(0);
    assert!(content(&cow, "/b") == expect);
    size(&cow, ino, 0);
    cow.sync().unwrap();
    neighbours(&cow);
    drop(cow);
    let cow = open(dir.path());
    neighbours(&cow);
    assert_eq!(in_use(dir.path()), 10);
}

#[test]
fn reserving_stays_inside_a_region_or_gets_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"b", &pattern(2, 5000));
    make(&cow, b"c", &pattern(3, 5000));
    const KEEP: u32 = 1;
    cow.tree.fallocate(ROOT, ino, 0, 100_000, KEEP).unwrap();
    assert!(is_region(region(&cow, ino).id));
    assert!(region(&cow, ino).blocks * BLOCK >= 100_000);
    cow.tree.fallocate(ROOT, ino, 0, 1 << 20, 0).unwrap();
    assert!(!is_region(region(&cow, ino).id));
    let mut expect = pattern(2, 5000);
    expect.resize(1 << 20, 0);
    assert!(content(&cow, "/b") == expect);
    assert!(content(&cow, "/c") == pattern(3, 5000));
    cow.sync().unwrap();
    drop(cow);
    assert!(content(&open(dir.path()), "/b") == expect);
}

#[test]
fn a_patch_of_the_lower_has_room_for_the_whole_file_or_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let lower = dir.path().join("lower");
    std::fs::create_dir(&lower).unwrap();
    std::fs::write(lower.join("small"), pattern(1, 50_000)).unwrap();
    std::fs::write(lower.join("large"), pattern(2, 300_000)).unwrap();
    let cow = open(dir.path());
    for (name, len, arena) in [("small", 50_000, true), ("large", 300_000, false)] {
        let ino = cow.tree.lookup(1, name.as_bytes()).unwrap().unwrap();
        put(&cow, ino, 100, b"patch");
        let first = region(&cow, ino);
        assert_eq!(is_region(first.id), arena);
        put(&cow, ino, len - 5, b"patch");
        assert_eq!(region(&cow, ino), first, "{name}");
    }
}

#[test]
fn an_address_the_journal_names_is_not_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    make(&cow, b"stays", b"stays");
    let ino = make(&cow, b"gone", &pattern(1, 9000));
    cow.tree.fsync(ino, false).unwrap();
    let gone = region(&cow, ino);
    cow.tree.unlink(1, b"gone").unwrap();
    cow.tree.forget(ino, 1);
    cow.sync().unwrap();
    drop(cow);
    let cow = open(dir.path());
    let new = make(&cow, b"new", &pattern(2, 3000));
    assert!(region(&cow, new).id >= gone.id + gone.blocks);
    cow.tree.fsync(new, false).unwrap();
    // By the fold's image too.
    cow.tree.unlink(1, b"new").unwrap();
    cow.tree.forget(new, 1);
    let next = cow.tree.store().unwrap().data.next();
    cow.tree.fold(&mut |_| Ok(())).unwrap();
    drop(cow);
    let cow = open(dir.path());
    assert!(cow.tree.store().unwrap().data.next() >= next);
    assert_eq!(content(&cow, "/stays"), b"stays");
}

#[test]
fn what_no_file_refers_to_is_given_back_on_open() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    for n in 0..20u64 {
        make(
            &cow,
            format!("f{n}").as_bytes(),
            &pattern(n, 3 * BLOCK as usize),
        );
    }
    cow.sync().unwrap();
    for n in (1..20u64).filter(|n| n % 4 != 0) {
        let name = format!("f{n}");
        let ino = cow.tree.lookup(1, name.as_bytes()).unwrap().unwrap();
        cow.tree.unlink(1, name.as_bytes()).unwrap();
        cow.tree.forget(ino, 2);
    }
    // Never recorded, at the end.
    make(&cow, b"lost", &pattern(9, 3 * BLOCK as usize));
    let store = cow.tree.store().unwrap();
    cow.tree
        .make_durable(store, store.journal.last(), false)
        .unwrap();
    // Killed before anything was punched.
    let there = cut(dir.path(), &["journal", "data"]);
    drop(open(there.path()));
    assert_eq!(in_use(there.path()), 5 * 3);
    let arena = there.path().join("upper/data/arena-0").metadata().unwrap();
    assert_eq!(arena.len(), (16 + 1) * 3 * BLOCK);
    let again = open(there.path());
    for n in (0..20u64).step_by(4) {
        assert!(content(&again, &format!("/f{n}")) == pattern(n, 3 * BLOCK as usize));
    }
    drop(again);
    // And while it is in use.
    cow.sync().unwrap();
    assert_eq!(in_use(dir.path()), 6 * 3);
}

#[test]
fn a_lost_arena_is_damage_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    make(&cow, b"f", b"content");
    cow.sync().unwrap();
    drop(cow);
    std::fs::remove_file(dir.path().join("upper/data/arena-0")).unwrap();
    for _ in 0..2 {
        let cow = open(dir.path());
        assert!(cow.read_file(Path::new("/f"), 100).is_err());
        let name = format!("new{}", cow.usage().inodes);
        let ino = make(&cow, name.as_bytes(), b"new");
        cow.tree.fsync(ino, false).unwrap();
        assert_eq!(content(&cow, &format!("/{name}")), b"new");
        cow.sync().unwrap();
    }
}

#[test]
fn a_full_arena_is_followed_by_another_and_goes_with_its_last_region() {
    let dir = tempfile::tempdir().unwrap();
    let fd: std::os::fd::OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
    let arenas = Arenas::new();
    let take = |blocks| {
        let id = arenas.alloc(&fd, blocks).unwrap();
        arenas.place(&fd, id, true).unwrap().write(b"x", 0).unwrap();
        Region { id, blocks }
    };
    let all = 1u64 << super::arena::BITS;
    assert!(arenas.alloc(&fd, all + 1).is_err());
    let (a, b) = (take(10), take(all - 12));
    // Two blocks are left of it.
    let c = take(3);
    assert_eq!((a.id, b.id, c.id), (TAG, TAG + 10, TAG + all));
    assert!(
        !arenas.extend(b, all - 11),
        "it is not the last one any more"
    );
    assert!(arenas.extend(c, 8));
    assert!(!arenas.extend(Region { blocks: 8, ..c }, all + 1));
    let there = |name: &str| dir.path().join(name).exists();
    arenas.free(&fd, &mut [b]);
    assert!(there("arena-0"));
    arenas.free(&fd, &mut [a]);
    assert!(!there("arena-0") && there("arena-1"));
    // The one in use stays, empty.
    arenas.free(&fd, &mut [Region { blocks: 8, ..c }]);
    assert!(there("arena-1"));
    take(all);
    assert!(!there("arena-1") && there("arena-2"));
}

#[test]
fn several_threads_keep_their_contents_apart() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    std::thread::scope(|scope| {
        for w in 0..4u64 {
            let cow = &cow;
            scope.spawn(move || {
                for n in 0..150u64 {
                    let name = format!("{w}-{}", n % 20);
                    if n >= 20 {
                        let ino = cow.tree.lookup(1, name.as_bytes()).unwrap().unwrap();
                        let (old, mut buf) = (
                            pattern(w * 1000 + n - 20, 200 * (n as usize - 19)),
                            Vec::new(),
                        );
                        let same = |got: &[u8]| got == old;
                        assert!(
                            cow.tree.read(ino, 0, 1 << 20, &mut buf, same).unwrap(),
                            "{name}"
                        );
                        cow.tree.unlink(1, name.as_bytes()).unwrap();
                        cow.tree.forget(ino, 2);
                    }
                    let ino = make(cow, name.as_bytes(), b"");
                    let bytes = pattern(w * 1000 + n, 200 * (n as usize + 1));
                    for (at, part) in bytes.chunks(3000).enumerate() {
                        put(cow, ino, at as u64 * 3000, part);
                    }
                    if n % 40 == 7 {
                        cow.sync().unwrap();
                    }
                }
            });
        }
    });
    cow.sync().unwrap();
    drop(cow);
    let cow = open(dir.path());
    for (w, n) in (0..4u64).flat_map(|w| (130..150u64).map(move |n| (w, n))) {
        let got = content(&cow, &format!("/{w}-{}", n % 20));
        assert!(
            got == pattern(w * 1000 + n, 200 * (n as usize + 1)),
            "{w}-{n}"
        );
    }
}

/// Random changes of files that lie beside each other, beside vectors of bytes.
#[test]
fn random_changes_agree_with_plain_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut cow = open(dir.path());
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
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
    for step in 0..4000u64 {
        let n = next(8) as usize;
        let name = format!("f{n}");
        let ino = cow.tree.lookup(1, name.as_bytes()).unwrap().unwrap();
        let file = &mut files[n];
        let long = if next(40) == 0 { 700_000 } else { 60_000 };
        let (at, len) = (next(long) as usize, next(12_000) as usize + 1);
        match next(16) {
            0..8 => {
                let bytes = pattern(step, len);
                put(&cow, ino, at as u64, &bytes);
                file.resize(file.len().max(at + len), 0);
                file[at..at + len].copy_from_slice(&bytes);
            }
            8 => {
                let bytes = pattern(step, len);
                put(&cow, ino, file.len() as u64, &bytes);
                file.extend(bytes);
            }
            9..11 => {
                let to = if next(3) == 0 { 0 } else { at };
                size(&cow, ino, to as u64);
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
        let (n, all) = (next(8) as usize, step % 200 == 0);
        for (f, file) in files.iter().enumerate().filter(|(f, _)| all || *f == n) {
            let got = content(&cow, &format!("/f{f}"));
            assert!(got == *file, "f{f} after step {step}");
        }
    }
}

#[test]
fn a_file_that_has_a_place_and_nothing_in_it_keeps_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = make(&cow, b"f", b"");
    let behind = make(&cow, b"behind", b"behind");
    put(&cow, ino, 2 * BLOCK, b"content");
    cow.sync().unwrap();
    size(&cow, ino, 5000);
    cow.sync().unwrap();
    // Only the image of a fold does not tell how many blocks there were.
    cow.tree.fold(&mut |_| Ok(())).unwrap();
    assert!(is_region(region(&cow, ino).id));
    drop(cow);
    let cow = open(dir.path());
    let place = region(&cow, ino);
    // The arena is not the current one any more, and all else in it goes.
    let store = cow.tree.store().unwrap();
    assert!(store.data.next().1 > place.id & !TAG);
    store.data.reserve(0, 1 << super::arena::BITS);
    cow.tree.unlink(1, b"behind").unwrap();
    cow.tree.forget(behind, 1);
    cow.sync().unwrap();
    put(&cow, ino, 4000, b"new");
    cow.tree.fsync(ino, false).unwrap();
    let mut expect = vec![0; 5000];
    expect[4000..4003].copy_from_slice(b"new");
    assert_eq!(content(&cow, "/f"), expect);
}

/// How many arenas of the upper this process has open.
fn open_arenas(dir: &Path) -> usize {
    let arenas = dir.join("upper/data/arena-").display().to_string();
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    // Those of other tests come and go.
    let paths = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    paths
        .filter(|p| p.display().to_string().starts_with(&arenas))
        .count()
}

#[test]
fn many_arenas_take_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let mut cow = open(dir.path());
    let name = |n: u64| format!("f{n}");
    for n in 0..300 {
        make(&cow, name(n).as_bytes(), &pattern(n, 5000));
        // As if it had been used up since.
        let store = cow.tree.store().unwrap();
        store.data.reserve(0, (n + 1) << super::arena::BITS);
    }
    let most = 16..=128;
    for round in 0..3 {
        assert!(most.contains(&open_arenas(dir.path())), "{round}");
        for n in 0..300 {
            let path = format!("/{}", name(n));
            assert!(content(&cow, &path) == pattern(n + round, 5000), "{path}");
            let ino = cow.tree.lookup(1, name(n).as_bytes()).unwrap().unwrap();
            put(&cow, ino, 0, &pattern(n + round + 1, 5000));
        }
        assert!(most.contains(&open_arenas(dir.path())), "{round}");
        cow.sync().unwrap();
        if round == 1 {
            drop(cow);
            cow = open(dir.path());
        }
    }
}

#[test]
fn an_upper_of_more_arenas_than_descriptors_is_used_as_any_other() {
    // In a process of its own: the limit is for all of it.
    const HERE: &str = "an_upper_of_more_arenas_than_descriptors_is_used_as_any_other";
    if std::env::var("RLESS_TEST_ALONE").as_deref() != Ok(HERE) {
        let name = format!("{}::{HERE}", module_path!().split_once("::").unwrap().1);
        let mut child = std::process::Command::new("sh");
        child.args(["-c", "ulimit -n 80 && exec \"$0\" --exact \"$1\""]);
        child.arg(std::env::current_exe().unwrap()).arg(name);
        let out = child.env("RLESS_TEST_ALONE", HERE).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    for n in 0..200 {
        make(&cow, format!("f{n}").as_bytes(), &pattern(n, 5000));
        let store = cow.tree.store().unwrap();
        store.data.reserve(0, (n + 1) << super::arena::BITS);
    }
    cow.sync().unwrap();
    drop(cow);
    let cow = open(dir.path());
    let one = cow.tree.lookup(1, b"f0").unwrap().unwrap();
    put(&cow, one, 0, &pattern(1, 5000));
    // Its arena is closed to open others, and then no descriptor is left.
    let check = |of: std::ops::Range<u64>| {
        for n in of {
            let expect = pattern(n.max(1), 5000);
            assert!(content(&cow, &format!("/f{n}")) == expect, "{n}");
        }
    };
    check(1..100);
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    cow.sync().unwrap();
    check(0..200);
    drop(taken);
}
