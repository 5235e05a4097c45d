//! How many requests common work needs: round trips are what it costs, and one more for each file is the first thing that a change
//! of the server makes worse without any other test's telling. What was counted is written here; a little more is
//! allowed.

use super::populate::image_of;
use super::{INNER, Mounted, run_inner};
use crate::harness::note_skip;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Files of each kind of work.
const FILES: usize = 100;
/// Directories they are in.
const DIRS: usize = 10;

fn names(dir: &Path) -> Vec<std::path::PathBuf> {
    let name = |n: usize| dir.join(format!("dir{}/file{n:03}", n % DIRS));
    (0..FILES).map(name).collect()
}

fn make_dirs(dir: &Path) {
    for n in 0..DIRS {
        fs::create_dir_all(dir.join(format!("dir{n}"))).unwrap();
    }
}

/// As a compiler or an editor.
fn write_files(dir: &Path) {
    for path in names(dir) {
        fs::write(path, [7; 3000]).unwrap();
    }
}

/// As `tar x`.
fn unpack(dir: &Path) {
    make_dirs(dir);
    for path in names(dir) {
        let mut file = File::create_new(path).unwrap();
        for _ in 0..2 {
            file.write_all(&[7; 10_240]).unwrap();
        }
        let mode = fs::Permissions::from_mode(0o640);
        std::os::unix::fs::fchown(&file, Some(1), Some(1)).unwrap();
        file.set_permissions(mode).unwrap();
        let then = nix::sys::time::TimeSpec::new(1_000_000_000, 0);
        nix::sys::stat::futimens(file.as_fd(), &then, &then).unwrap();
    }
}

/// As `grep -r`.
fn read_all(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().is_dir() {
            read_all(&entry.path());
        } else {
            let mut bytes = Vec::new();
            let mut file = File::open(entry.path()).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len(), 3000);
        }
    }
}

/// Work, and how many requests it takes of the kinds that it takes more than [`FEW`] of.
type Case = (&'static str, fn(&Path), &'static [(&'static str, u64)]);

/// What is not there for every file.
const FEW: u64 = 30;
/// More than was counted is allowed: other kernels ask once or twice more.
const MORE: u64 = 15;
/// Times that work is tried which took too many.
const TRIES: u32 = 8;
/// Printed for work that could not be counted.
const RECLAIMED: &str = "the kernel took memory back during each try";

const CASES: &[Case] = &[
    ("nothing", |_| {}, &[]),
    (
        "walk and read the image",
        |point| read_all(&point.join("low")),
        &[("READ", 100)],
    ),
    (
        "the same twice",
        |point| (0..2).for_each(|_| read_all(&point.join("low"))),
        // The time of the last access changed.
        &[("READ", 100), ("GETATTR", 112)],
    ),
    (
        "write the image's anew",
        |point| write_files(&point.join("low")),
        &[
            ("LOOKUP", 112),
            ("SETATTR", 100),
            ("WRITE", 100),
            ("GETXATTR", 200),
        ],
    ),
    (
        "unpack",
        |point| unpack(&point.join("new")),
        &[
            ("LOOKUP", 113),
            ("MKNOD", 100),
            ("GETATTR", 102),
            ("WRITE", 300),
            ("SETATTR", 300),
            ("GETXATTR", 200),
        ],
    ),
    (
        "unpack and remove",
        |point| {
            unpack(&point.join("new"));
            fs::remove_dir_all(point.join("new")).unwrap();
        },
        &[
            ("LOOKUP", 113),
            ("MKNOD", 100),
            ("GETATTR", 201),
            ("WRITE", 300),
            ("SETATTR", 300),
            ("GETXATTR", 200),
            ("UNLINK", 100),
        ],
    ),
    (
        "remove the image's",
        |point| fs::remove_dir_all(point.join("low")).unwrap(),
        &[("GETATTR", 100), ("UNLINK", 100)],
    ),
    (
        "change modes of the image's",
        |point| {
            let mode = fs::Permissions::from_mode(0o600);
            let change = |path| fs::set_permissions(path, mode.clone()).unwrap();
            names(&point.join("low")).into_iter().for_each(change);
        },
        &[("LOOKUP", 112), ("SETATTR", 100)],
    ),
    (
        "append to the image's",
        |point| {
            for path in names(&point.join("low")) {
                let mut file = File::options().append(true).open(path).unwrap();
                file.write_all(b"more").unwrap();
            }
        },
        &[("LOOKUP", 112), ("WRITE", 100), ("GETXATTR", 100)],
    ),
    (
        "replace by rename",
        |point| {
            for path in names(&point.join("low")) {
                let new = path.with_extension("new");
                fs::write(&new, b"new").unwrap();
                fs::rename(new, path).unwrap();
            }
        },
        &[
            ("LOOKUP", 212),
            ("MKNOD", 100),
            ("GETATTR", 191),
            ("WRITE", 100),
            ("GETXATTR", 100),
            ("RENAME", 100),
        ],
    ),
];

#[test]
fn common_work_takes_no_more_requests_than_it_did() {
    let Some(dir) = std::env::var_os(INNER) else {
        let name = "cow::requests::common_work_takes_no_more_requests_than_it_did";
        let told = run_inner(name, &[("RLESS_FUSE_STATS", "requests".into())]).unwrap_or_default();
        eprint!("{told}");
        if told.contains(RECLAIMED) {
            note_skip(RECLAIMED);
        }
        return;
    };
    let dir = Path::new(&dir);
    let tree = dir.join("tree");
    make_dirs(&tree.join("low"));
    write_files(&tree.join("low"));
    fs::create_dir(dir.join("lower")).unwrap();
    image_of(&tree, &dir.join("lower"));
    let wrong: Vec<String> = CASES.iter().flat_map(|case| exceeded(dir, case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The requests of which `case` takes too many each time that it is tried. Tries during which the kernel took
/// memory back do not count: it forgets names and attributes in the middle of the work then, and asks anew.
fn exceeded(dir: &Path, (what, work, allowed): &Case) -> Vec<String> {
    let most = |op: &str| {
        let counted = allowed.iter().find(|(name, _)| *name == op);
        counted.map_or(FEW, |(_, counted)| *counted + MORE)
    };
    let mut over: Option<BTreeMap<String, u64>> = None;
    for _ in 0..TRIES {
        let before = taken_back();
        let mut counted = requests_of(dir, *work);
        let undisturbed = taken_back() == before;
        eprintln!("{what}: {counted:?}");
        // Forgets have no answer; when they come is the kernel's business.
        counted.retain(|op, n| *n > most(op) && !op.ends_with("FORGET"));
        if counted.is_empty() {
            return Vec::new();
        }
        if undisturbed {
            counted.retain(|op, _| over.as_ref().is_none_or(|over| over.contains_key(op)));
            over = Some(counted);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if over.is_none() {
        eprintln!("{what}: {RECLAIMED}");
    }
    let over = over.unwrap_or_default().into_iter();
    over.map(|(op, n)| format!("{what}: {n} {op}, {} are allowed", most(&op)))
        .collect()
}

/// How much the kernel has looked at to take memory back since it started (proc_vmstat(5)).
pub(crate) fn taken_back() -> Vec<String> {
    let text = fs::read_to_string("/proc/vmstat").unwrap();
    let of = |line: &&str| {
        ["slabs_scanned ", "drop_", "pgscan_"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    text.lines().filter(of).map(str::to_string).collect()
}

/// What a mount of its own was asked for `work`.
fn requests_of(dir: &Path, work: fn(&Path)) -> BTreeMap<String, u64> {
    let mut mounted = Mounted::start(dir);
    work(&mounted.point());
    mounted.unmount();
    let text = fs::read_to_string("requests").unwrap();
    fs::remove_dir_all(dir.join("upper")).unwrap();
    let counted: BTreeMap<String, u64> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(op, n)| (op.to_string(), n.parse().unwrap()))
        .collect();
    assert!(counted.contains_key("LOOKUP"), "no counters in {text}");
    counted
}
