//! Any records as an upper's journal, with lengths, checksums and numbers made right: opening it gives a reason, or a
//! tree that can be walked, and whose walk is the same after it was written out and opened again.
//!
//! An input is what follows a journal's header: the `upper/journal` of any mount, without its header ([`HEADER`] bytes), is a seed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rless::cow::{Cow, IdView, Lower, Options};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Bytes of a journal's header; the number of its first record is at 24.
const HEADER: usize = 48;

/// Frames a bad run of bytes is cut into at most.
const RECORDS: usize = 64;

struct World {
    dir: tempfile::TempDir,
    header: Vec<u8>,
}

fn open(dir: &Path) -> Option<Cow> {
    let ids = || IdView(vec![(0, 0, u32::MAX)]);
    Cow::open(Options {
        lower: Lower::HostDir {
            root: dir.join("lower"),
            hide: Vec::new(),
            uids: ids(),
            gids: ids(),
        },
        upper: Some(dir.join("upper")),
        squash: None,
        size_limit: None,
        stats: None,
    })
    .ok()
}

/// A lower, and the header of a journal over it.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let lower = dir.path().join("lower");
        std::fs::create_dir_all(lower.join("d/e")).unwrap();
        std::fs::write(lower.join("f"), [7; 5000]).unwrap();
        std::fs::write(lower.join("d/g"), "g").unwrap();
        std::os::unix::fs::symlink("d/g", lower.join("l")).unwrap();
        drop(open(dir.path()).unwrap());
        let header = std::fs::read(dir.path().join("upper/journal")).unwrap();
        World {
            dir,
            header: header[..HEADER].to_vec(),
        }
    })
}

/// The input's frames with what a writer would have put before each.
fn journal(header: &[u8], mut bytes: &[u8]) -> Vec<u8> {
    let mut out = header.to_vec();
    let first = u64::from_le_bytes(header[24..32].try_into().unwrap());
    for seq in first..first + RECORDS as u64 {
        let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
            break;
        };
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (body, rest) = rest.split_at(len.min(rest.len()));
        bytes = rest;
        if body.is_empty() {
            break;
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&seq.to_le_bytes());
        crc.update(body);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc.finalize().to_le_bytes());
        out.extend_from_slice(&seq.to_le_bytes());
        out.extend_from_slice(body);
    }
    out
}

/// What is there, as far as 2,000 names.
fn walk(cow: &Cow) -> Vec<String> {
    let mut out = Vec::new();
    let mut todo = vec![PathBuf::from("/")];
    while let Some(dir) = todo.pop() {
        for e in cow.list(&dir).ok().flatten().unwrap_or_default() {
            let path = dir.join(&e.name);
            let content = cow.read_file(&path, 1 << 16).ok().flatten();
            let link = cow.readlink(&path).ok().flatten();
            out.push(format!("{path:?} {:?} {content:?} {link:?}", e.stat));
            if e.stat.is_dir() && path.components().count() < 12 {
                todo.push(path);
            }
            if out.len() > 2000 {
                return out;
            }
        }
    }
    out
}

fuzz_target!(|bytes: &[u8]| {
    let world = world();
    let upper = world.dir.path().join("upper");
    let _ = std::fs::remove_dir_all(&upper);
    std::fs::create_dir(&upper).unwrap();
    std::fs::write(upper.join("journal"), journal(&world.header, bytes)).unwrap();
    let Some(cow) = open(world.dir.path()) else {
        return;
    };
    let seen = walk(&cow);
    cow.usage();
    let synced = cow.sync().is_ok();
    drop(cow);
    if synced {
        let again = open(world.dir.path()).expect("it opened before");
        assert_eq!(walk(&again), seen);
    }
});
