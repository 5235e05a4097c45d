//! A live host directory below, and the host that goes on changing it: numbers given again, files replaced, links made.

use super::super::Cow;
use super::super::journal::Record;
use super::super::meta::{Meta, Time};
use super::durability::{ROOT, content, file, open, put};
use super::hosts::{chmod, find};
use super::{SetAttr, Stamp};
use nix::errno::Errno;
use std::fs::{File, create_dir, hard_link, remove_dir_all, remove_file, rename, write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

fn mode(cow: &Cow, path: &str) -> u32 {
    cow.stat(Path::new(path)).unwrap().unwrap().mode & 0o7777
}

/// A directory with an empty `lower`, where the file system gives numbers again.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let lower = dir.path().join("lower");
    create_dir(&lower).unwrap();
    (dir, lower)
}

/// Makes `path` with the number `wanted`, which was just given back; false where the file system gives others.
#[expect(clippy::print_stderr, reason = "a part that is skipped says so")]
fn with_number(path: &Path, bytes: &[u8], wanted: u64) -> bool {
    let mut others = Vec::new();
    for n in 0..200 {
        write(path, bytes).unwrap();
        if path.metadata().unwrap().ino() == wanted {
            break;
        }
        // Kept, so that its number is not the next one again.
        others.push(path.with_extension(format!("other{n}")));
        rename(path, others.last().unwrap()).unwrap();
    }
    others.iter().for_each(|other| remove_file(other).unwrap());
    if !path.exists() {
        eprintln!("skipped: numbers are not given again here");
    }
    path.exists()
}

#[test]
fn a_number_that_the_host_gives_again_is_another_file() {
    let (dir, lower) = place();
    write(lower.join("a"), b"host a").unwrap();
    let number = lower.join("a").metadata().unwrap().ino();
    let cow = open(dir.path());
    let a = find(&cow, 1, b"a");
    put(&cow, a, 0, b"CHANGED");
    chmod(&cow, a, 0o600);
    cow.sync().unwrap();
    // The server that read it has it open still.
    drop(cow);
    let cow = open(dir.path());
    remove_file(lower.join("a")).unwrap();
    if !with_number(&lower.join("z"), b"host z", number) {
        return;
    }
    assert_eq!(content(&cow, "/z"), b"host z");
    assert_eq!(mode(&cow, "/z"), 0o644);
    let z = find(&cow, 1, b"z");
    assert_ne!(z, a);
    let mut listed = Vec::new();
    cow.tree
        .readdir(1, 2, None, &mut |e| {
            listed.push((e.name.to_vec(), e.ino));
            true
        })
        .unwrap();
    assert!(listed.contains(&(b"z".to_vec(), z)), "{listed:?}");
    // Each goes its own way, over a restart and a fold too.
    put(&cow, z, 0, b"mine");
    assert_eq!(content(&cow, "/a"), b"CHANGED");
    cow.sync().unwrap();
    drop(cow);
    for _ in 0..2 {
        let cow = open(dir.path());
        assert_eq!(content(&cow, "/a"), b"CHANGED");
        assert_eq!(content(&cow, "/z"), b"mine z");
        assert_eq!((mode(&cow, "/a"), mode(&cow, "/z")), (0o600, 0o644));
        cow.tree.fold(&mut |_| Ok(())).unwrap();
    }
}

#[test]
fn the_number_of_what_was_removed_inside_does_not_hide_a_new_file() {
    let (dir, lower) = place();
    write(lower.join("a"), b"host a").unwrap();
    let number = lower.join("a").metadata().unwrap().ino();
    let cow = open(dir.path());
    let a = find(&cow, 1, b"a");
    assert!(cow.tree.refer(a));
    cow.tree.unlink(1, b"a").unwrap();
    cow.tree.forget(a, 1);
    remove_file(lower.join("a")).unwrap();
    if !with_number(&lower.join("z"), b"host z", number) {
        return;
    }
    // Something of the old name is no more it than nothing is.
    write(lower.join("a"), b"another a").unwrap();
    assert_eq!(content(&cow, "/z"), b"host z");
    assert!(cow.stat(Path::new("/a")).unwrap().is_none());
}

#[test]
fn a_number_given_again_while_it_is_in_use_is_another_file() {
    let (dir, lower) = place();
    write(lower.join("a"), b"host a").unwrap();
    let number = lower.join("a").metadata().unwrap().ino();
    let cow = open(dir.path());
    let a = find(&cow, 1, b"a");
    // A program inside has it open.
    assert!(cow.tree.refer(a));
    remove_file(lower.join("a")).unwrap();
    if !with_number(&lower.join("z"), b"host z", number) {
        return;
    }
    let z = find(&cow, 1, b"z");
    assert!(cow.tree.refer(z));
    assert_eq!(content(&cow, "/z"), b"host z");
    // What it writes then is not written to the new one.
    let late = cow.tree.write(ROOT, a, 0, b"late", false);
    assert!(late.is_err(), "{late:?}");
    assert_eq!(content(&cow, "/z"), b"host z");
    assert_eq!(find(&cow, 1, b"z"), z);
}

#[test]
fn what_is_open_while_the_host_replaces_it_is_not_written_to_the_new_one() {
    let (dir, lower) = place();
    write(lower.join("a"), b"old").unwrap();
    let cow = open(dir.path());
    let old = find(&cow, 1, b"a");
    assert!(cow.tree.refer(old));
    write(lower.join("new"), b"new").unwrap();
    rename(lower.join("new"), lower.join("a")).unwrap();
    let new = find(&cow, 1, b"a");
    assert!(cow.tree.refer(new) && new != old);
    put(&cow, new, 0, b"MINE");
    assert!(cow.tree.write(ROOT, old, 0, b"stray", false).is_err());
    assert_eq!(content(&cow, "/a"), b"MINE");
    assert_eq!(find(&cow, 1, b"a"), new);
}

#[test]
fn a_name_of_a_changed_hard_link_that_the_host_takes_away_is_no_obstacle() {
    let (dir, lower) = place();
    for pair in ["a b", "c d", "e f", "g h"] {
        let (first, second) = pair.split_once(' ').unwrap();
        write(lower.join(first), pair).unwrap();
        hard_link(lower.join(first), lower.join(second)).unwrap();
    }
    write(lower.join("over"), b"over").unwrap();
    let cow = open(dir.path());
    for name in [b"a", b"c", b"e"] {
        chmod(&cow, find(&cow, 1, name), 0o600);
    }
    cow.tree.unlink(1, b"b").unwrap();
    cow.tree.rename(ROOT, 1, b"d", 1, b"moved", 0).unwrap();
    // Replaced.
    cow.tree.rename(ROOT, 1, b"over", 1, b"f", 0).unwrap();
    // Changed through the second name.
    put(&cow, find(&cow, 1, b"g"), 0, b"G");
    put(&cow, find(&cow, 1, b"h"), 1, b"H");
    cow.sync().unwrap();
    drop(cow);
    for name in ["b", "d", "f", "g"] {
        remove_file(lower.join(name)).unwrap();
    }
    for _ in 0..2 {
        let cow = open(dir.path());
        let there = |name: &str| cow.stat(Path::new(name)).unwrap().is_some();
        assert!(!there("/b") && !there("/d") && there("/moved") && !there("/over"));
        assert_eq!(content(&cow, "/f"), b"over");
        assert_eq!(content(&cow, "/a"), b"a b");
        assert_eq!(content(&cow, "/e"), b"e f");
        assert_eq!(content(&cow, "/moved"), b"c d");
        assert_eq!(content(&cow, "/h"), b"GHh");
        assert_eq!((mode(&cow, "/a"), mode(&cow, "/moved")), (0o600, 0o600));
        cow.tree.fold(&mut |_| Ok(())).unwrap();
    }
}

#[test]
fn a_link_that_the_host_makes_to_a_changed_file_takes_nothing_with_it() {
    let (dir, lower) = place();
    for name in ["a", "b"] {
        write(lower.join(name), name).unwrap();
    }
    let cow = open(dir.path());
    for name in [b"a", b"b"] {
        put(&cow, find(&cow, 1, name), 0, b"changed");
    }
    cow.sync().unwrap();
    hard_link(lower.join("a"), lower.join("a2")).unwrap();
    hard_link(lower.join("b"), lower.join("b2")).unwrap();
    let a = find(&cow, 1, b"a");
    assert!(cow.tree.refer(a));
    assert_eq!(find(&cow, 1, b"a2"), a);
    cow.tree.unlink(1, b"a2").unwrap();
    cow.tree.forget(a, 1);
    assert_eq!(content(&cow, "/a"), b"changed");
    // The same with the new name kept and the old one removed.
    let b = find(&cow, 1, b"b2");
    assert!(cow.tree.refer(b));
    cow.tree.rename(ROOT, 1, b"b2", 1, b"c", 0).unwrap();
    cow.tree.unlink(1, b"b").unwrap();
    cow.tree.forget(b, 1);
    assert_eq!(content(&cow, "/c"), b"changed");
    cow.sync().unwrap();
    drop(cow);
    for name in ["a2", "b2"] {
        remove_file(lower.join(name)).unwrap();
    }
    for _ in 0..2 {
        let cow = open(dir.path());
        assert_eq!(content(&cow, "/a"), b"changed");
        assert_eq!(content(&cow, "/c"), b"changed");
        let there = |name: &str| cow.stat(Path::new(name)).unwrap().is_some();
        assert!(!there("/a2") && !there("/b2") && !there("/b"));
        cow.tree.fold(&mut |_| Ok(())).unwrap();
    }
    // And all of it goes with the last name.
    let cow = open(dir.path());
    for name in [b"a", b"c"] {
        cow.tree.unlink(1, name).unwrap();
    }
    cow.sync().unwrap();
    drop(cow);
    let left = open(dir.path()).tree.nodes();
    assert!(
        left.iter().all(|n| n.ino == 1),
        "content of no name is left"
    );
}

#[test]
fn a_journal_opens_whose_names_were_not_bound_and_are_gone() {
    let (dir, lower) = place();
    for name in ["kept", "over"] {
        write(lower.join(name), name).unwrap();
    }
    let cow = open(dir.path());
    let time = Time::now();
    let rename = |newname, flags| Record::Rename {
        parent: 1,
        name: b"gone",
        newparent: 1,
        newname,
        flags,
        time,
    };
    let unlink = Record::Unlink {
        parent: 1,
        name: b"gone",
        time,
    };
    let journal = &cow.tree.store().unwrap().journal;
    for record in [
        rename(b"to", 0),
        rename(b"over", 0),
        unlink,
        rename(b"kept", 2),
    ] {
        journal.append(&record);
    }
    cow.sync().unwrap();
    drop(cow);
    for _ in 0..2 {
        let cow = open(dir.path());
        let there = |name: &str| cow.stat(Path::new(name)).unwrap().is_some();
        assert!(there("/kept") && !there("/over") && !there("/to") && !there("/gone"));
        cow.tree.fold(&mut |_| Ok(())).unwrap();
        // What comes back stays hidden.
        write(lower.join("gone"), b"back").unwrap();
    }
}

fn meta(cow: &Cow, ino: u64) -> Meta {
    cow.tree.getattr(ino).unwrap().0
}

fn set_mtime(path: &Path, time: SystemTime) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[test]
fn a_file_with_another_mode_inside_goes_on_showing_what_the_host_writes() {
    let (dir, lower) = place();
    let conf = lower.join("conf");
    let later = SystemTime::now() + Duration::from_secs(100);
    write(&conf, b"old").unwrap();
    let cow = open(dir.path());
    let ino = find(&cow, 1, b"conf");
    chmod(&cow, ino, 0o600);
    let set = meta(&cow, ino).mtime;
    assert_eq!(content(&cow, "/conf"), b"old");
    assert_eq!(cow.tree.openable(ino), Ok(true));
    // The host's clock of files may be some milliseconds behind.
    std::thread::sleep(Duration::from_millis(20));
    // Saved by renaming,
    write(lower.join("new"), b"longer than it was").unwrap();
    set_mtime(&lower.join("new"), later);
    rename(lower.join("new"), &conf).unwrap();
    assert_eq!(content(&cow, "/conf"), b"longer than it was");
    assert_eq!(meta(&cow, ino).mtime.sec, seconds(later));
    assert_eq!(cow.tree.openable(ino), Ok(false));
    assert_eq!(cow.tree.openable(ino), Ok(true));
    // in place, with the same length and an old time.
    write(&conf, b"longer than it WAS").unwrap();
    set_mtime(&conf, later);
    assert_eq!(cow.tree.openable(ino), Ok(false));
    assert_eq!(content(&cow, "/conf"), b"longer than it WAS");
    // The time stays the host's when something else is set,
    chmod(&cow, ino, 0o640);
    cow.tree.setxattr(ROOT, ino, b"user.a", b"1", 0).unwrap();
    cow.tree.link(ino, 1, b"link").unwrap();
    cow.tree.rename(ROOT, 1, b"conf", 1, b"moved", 0).unwrap();
    assert_eq!(meta(&cow, ino).mtime.sec, seconds(later));
    cow.sync().unwrap();
    drop(cow);
    let cow = open(dir.path());
    let ino = find(&cow, 1, b"moved");
    assert_eq!(meta(&cow, ino).mtime.sec, seconds(later));
    // until a time is.
    let time = SetAttr {
        mtime: Some(Stamp::At(set)),
        ..SetAttr::default()
    };
    cow.tree.setattr(ROOT, ino, &time).unwrap();
    set_mtime(&conf, SystemTime::now() - Duration::from_secs(1));
    assert_eq!(meta(&cow, ino).mtime, set);
    // What is written inside is written over what the host has now.
    write(&conf, b"the host's last word").unwrap();
    put(&cow, ino, 0, b"THE");
    assert_eq!(content(&cow, "/moved"), b"THE host's last word");
}

#[test]
fn an_empty_file_of_the_host_is_the_host_s_after_a_fold_too() {
    let (dir, lower) = place();
    for name in ["log", "emptied"] {
        write(lower.join(name), b"").unwrap();
    }
    write(lower.join("emptied"), b"something").unwrap();
    let cow = open(dir.path());
    chmod(&cow, find(&cow, 1, b"log"), 0o600);
    let empty = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    let emptied = find(&cow, 1, b"emptied");
    cow.tree.setattr(ROOT, emptied, &empty).unwrap();
    for n in 0..3 {
        cow.tree.fold(&mut |_| Ok(())).unwrap();
        if n == 1 {
            cow.sync().unwrap();
        }
    }
    drop(cow);
    write(lower.join("log"), b"line").unwrap();
    write(lower.join("emptied"), b"something else").unwrap();
    let cow = open(dir.path());
    assert_eq!(content(&cow, "/log"), b"line");
    assert_eq!(content(&cow, "/emptied"), b"");
}

fn names(cow: &Cow, dir: u64) -> Vec<String> {
    let mut out = Vec::new();
    cow.tree
        .readdir(dir, 2, None, &mut |e| {
            out.push(String::from_utf8_lossy(e.name).into_owned());
            true
        })
        .unwrap();
    out.sort();
    out
}

#[test]
fn a_directory_that_the_host_took_away_can_be_listed_and_emptied() {
    let (dir, lower) = place();
    for name in ["gone", "file", "d"] {
        create_dir(lower.join(name)).unwrap();
        write(lower.join(name).join("x"), name).unwrap();
    }
    write(lower.join("d/x"), b"x").unwrap();
    let cow = open(dir.path());
    for name in [&b"gone"[..], b"file"] {
        let at = find(&cow, 1, name);
        cow.tree.create(ROOT, at, b"new", &file()).unwrap();
    }
    let x = find(&cow, find(&cow, 1, b"d"), b"x");
    chmod(&cow, x, 0o600);
    cow.sync().unwrap();
    for name in ["gone", "file", "d"] {
        remove_dir_all(lower.join(name)).unwrap();
    }
    for name in ["file", "d"] {
        write(lower.join(name), b"no directory").unwrap();
    }
    let owner = SetAttr {
        uid: Some(7),
        ..SetAttr::default()
    };
    let each = |cow: &Cow| {
        for name in [&b"gone"[..], b"file"] {
            let at = find(cow, 1, name);
            assert_eq!(names(cow, at), ["new"]);
            cow.tree.listxattr(at).unwrap();
            cow.tree.setattr(ROOT, at, &owner).unwrap();
            cow.tree.setxattr(ROOT, at, b"user.a", b"1", 0).unwrap();
        }
    };
    each(&cow);
    // Its directory is a file now.
    cow.tree.setattr(ROOT, x, &owner).unwrap();
    cow.sync().unwrap();
    drop(cow);
    let cow = open(dir.path());
    each(&cow);
    for name in [&b"gone"[..], b"file"] {
        let at = find(&cow, 1, name);
        cow.tree.unlink(at, b"new").unwrap();
        cow.tree.rmdir(1, name).unwrap();
    }
}

/// What only has attributes set is not listed once the host has taken it away, and is in nobody's way.
#[test]
fn a_directory_with_nothing_listed_can_be_removed_and_replaced() {
    let (dir, lower) = place();
    for name in ["d", "over"] {
        create_dir(lower.join(name)).unwrap();
        write(lower.join(name).join("x"), name).unwrap();
    }
    create_dir(lower.join("new")).unwrap();
    let cow = open(dir.path());
    for name in [&b"d"[..], b"over"] {
        let x = find(&cow, find(&cow, 1, name), b"x");
        chmod(&cow, x, 0o600);
    }
    assert_eq!(cow.tree.rmdir(1, b"d"), Err(Errno::ENOTEMPTY));
    for name in ["d", "over"] {
        std::fs::remove_file(lower.join(name).join("x")).unwrap();
    }
    let d = find(&cow, 1, b"d");
    assert!(names(&cow, d).is_empty());
    cow.tree.rmdir(1, b"d").unwrap();
    cow.tree.rename(ROOT, 1, b"new", 1, b"over", 0).unwrap();
    assert!(!names(&cow, 1).contains(&"new".to_owned()));
}

/// A name that was another link of a changed file when it was seen, and is the host's new file when the first is changed
/// again.
#[test]
fn a_link_that_the_host_replaced_is_not_bound_to_what_it_was() {
    let (dir, lower) = place();
    write(lower.join("log"), b"log").unwrap();
    let cow = open(dir.path());
    let log = find(&cow, 1, b"log");
    chmod(&cow, log, 0o600);
    hard_link(lower.join("log"), lower.join("log.1")).unwrap();
    assert_eq!(find(&cow, 1, b"log.1"), log);
    write(lower.join("new"), b"another").unwrap();
    rename(lower.join("new"), lower.join("log.1")).unwrap();
    chmod(&cow, log, 0o640);
    assert_ne!(find(&cow, 1, b"log.1"), log);
    assert_eq!(content(&cow, "/log.1"), b"another");
    cow.sync().unwrap();
    drop(cow);
    let cow = open(dir.path());
    assert_eq!(content(&cow, "/log.1"), b"another");
    assert_eq!(content(&cow, "/log"), b"log");
    assert_eq!(mode(&cow, "/log") & 0o777, 0o640);
}

/// Mounts an overlay of `parts` over `lower`, which this thread and those it starts see.
fn overlay(dir: &Path, parts: [&Path; 2], lower: &Path) -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let (none, flags) = (None::<&str>, MsFlags::empty());
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for part in parts {
        mount(Some("tmpfs"), part, Some("tmpfs"), flags, none)?;
        let name = part.strip_prefix(dir).unwrap();
        write(part.join(name), name.as_os_str().as_encoded_bytes()).unwrap();
    }
    let [a, b] = parts.map(Path::display);
    let options = format!("xino=off,lowerdir={a}:{b}");
    mount(
        Some("overlay"),
        lower,
        Some("overlay"),
        flags,
        Some(&*options),
    )
}

#[test]
#[expect(clippy::print_stderr, reason = "a part that is skipped says so")]
fn one_number_of_two_devices_is_two_files() {
    let (dir, lower) = place();
    let parts = [dir.path().join("a"), dir.path().join("b")];
    parts.iter().for_each(|part| create_dir(part).unwrap());
    let [a, b] = &parts;
    if let Err(e) = overlay(dir.path(), [a, b], &lower) {
        eprintln!("skipped: without an overlay: {e}");
        return;
    }
    let numbers = |name: &str| {
        let meta = lower.join(name).metadata().unwrap();
        (meta.ino(), meta.dev())
    };
    let (a, b) = (numbers("a"), numbers("b"));
    assert!(a.0 == b.0 && a.1 != b.1, "not what was to be tested");
    let cow = open(dir.path());
    assert_ne!(find(&cow, 1, b"a"), find(&cow, 1, b"b"));
    assert_eq!(content(&cow, "/a"), b"a");
    put(&cow, find(&cow, 1, b"a"), 0, b"A");
    assert_eq!(content(&cow, "/b"), b"b");
}

#[test]
fn what_was_written_inside_is_listed_though_the_host_took_the_file_away() {
    let (dir, lower) = place();
    create_dir(lower.join("d")).unwrap();
    for name in ["d/x", "d/y", "d/z"] {
        write(lower.join(name), name).unwrap();
    }
    let cow = open(dir.path());
    let d = find(&cow, 1, b"d");
    put(&cow, find(&cow, d, b"x"), 0, b"X");
    chmod(&cow, find(&cow, d, b"y"), 0o600);
    chmod(&cow, find(&cow, d, b"z"), 0o600);
    cow.tree.rename(ROOT, d, b"z", 1, b"z", 0).unwrap();
    cow.sync().unwrap();
    for name in ["d/x", "d/y", "d/z"] {
        remove_file(lower.join(name)).unwrap();
    }
    let look = |cow: &Cow| {
        assert_eq!(names(cow, find(cow, 1, b"d")), ["x"]);
        assert_eq!(content(cow, "/d/x"), b"X/x");
        assert_eq!(cow.tree.rmdir(1, b"d"), Err(Errno::ENOTEMPTY));
        // All that differs can be read.
        let changes = cow.diff().unwrap();
        assert!(changes.iter().any(|c| c.path == b"d/x"), "{changes:?}");
        for change in changes.iter().filter(|c| c.ino != 0 && !c.is_dir) {
            cow.read_at(change.ino, 0, 1 << 20, &mut Vec::new())
                .unwrap();
        }
    };
    look(&cow);
    drop(cow);
    let cow = open(dir.path());
    look(&cow);
    // What comes back is there once.
    write(lower.join("d/x"), b"back").unwrap();
    look(&cow);
    remove_file(lower.join("d/x")).unwrap();
    let d = find(&cow, 1, b"d");
    cow.tree.unlink(d, b"x").unwrap();
    cow.tree.rmdir(1, b"d").unwrap();
    assert!(cow.stat(Path::new("/d")).unwrap().is_none());
}
