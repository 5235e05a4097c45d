//! The size limit and the accounting behind `ps --size`, through the kernel.

use super::{INNER, Mounted, enter};
use nix::errno::Errno;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// Writes zeros' opposite until it fails; how much went in, and why it ended.
fn fill(file: &File, from: u64) -> (u64, Errno) {
    let piece = vec![0xa5; 64 << 10];
    let mut at = from;
    loop {
        match file.write_at(&piece, at) {
            Ok(n) => at += n as u64,
            Err(e) => return (at - from, Errno::from_raw(e.raw_os_error().unwrap())),
        }
        assert!(at < 64 * MIB, "nothing stops it");
    }
}

fn available(dir: &Path) -> u64 {
    let s = nix::sys::statvfs::statvfs(dir).unwrap();
    s.blocks_available() * s.fragment_size()
}

/// Bytes that the upper's files take on the host's disk.
fn on_disk(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        sum += match meta.is_dir() {
            true => on_disk(&entry.path()),
            false => meta.blocks() * 512,
        };
    }
    sum
}

/// Fills 8 MiB again and again: what was freed by any way is there for the very next call.
fn refill(point: &Path) {
    for round in 0..20 {
        let path = point.join("big");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        let (written, e) = fill(&file, 0);
        assert_eq!(e, Errno::ENOSPC);
        assert!(
            written > 7 * MIB && written <= 8 * MIB,
            "round {round}: {written}"
        );
        assert!(available(point) < 64 << 10);
        match round % 5 {
            0 => fs::remove_file(&path).unwrap(),
            1 => file.set_len(0).unwrap(),
            2 => {
                // The open file keeps its space, and gives it back with its last close.
                fs::remove_file(&path).unwrap();
                assert!(available(point) < 64 << 10, "freed while open");
                let other = File::create(point.join("other")).unwrap();
                assert_eq!(fill(&other, 0).1, Errno::ENOSPC);
                fs::remove_file(point.join("other")).unwrap();
            }
            3 => {
                fs::write(point.join("empty"), b"").unwrap();
                fs::rename(point.join("empty"), &path).unwrap();
            }
            _ => nix::fcntl::fallocate(
                &file,
                nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
                    | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE,
                0,
                8 << 20,
            )
            .unwrap(),
        }
    }
    fs::remove_file(point.join("big")).unwrap();
}

fn unnamed(point: &Path) {
    for _ in 0..5 {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .open(point)
            .unwrap();
        let (written, e) = fill(&file, 0);
        assert_eq!(e, Errno::ENOSPC);
        assert!(written > 7 * MIB, "{written}");
    }
}

/// What is written through a mapping past the limit is refused when it is written back.
fn mapped(point: &Path) {
    let path = point.join("mapped");
    let script = "import mmap,os,sys
f=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT); os.ftruncate(f,16<<20)
m=mmap.mmap(f,16<<20); m[:]=b'x'*(16<<20)
try: m.flush(); os.fsync(f); print('written')
except OSError as e: print(e.errno)";
    let out = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&out.stdout).trim(),
        (Errno::ENOSPC as i32).to_string(),
        "{out:?}"
    );
    fs::remove_file(&path).unwrap();
}

fn tiny(point: &Path) {
    let mut made = 0;
    let e = loop {
        match File::create(point.join(format!("empty-{made}"))) {
            Ok(_) => made += 1,
            Err(e) => break e,
        }
        assert!(made < 200_000, "empty files without end");
    };
    assert_eq!(e.raw_os_error(), Some(libc::ENOSPC));
    for i in 0..made {
        fs::remove_file(point.join(format!("empty-{i}"))).unwrap();
    }
    eprintln!("{made} empty files in 8 MiB");
}

fn limited(dir: &Path) {
    fs::create_dir_all(dir.join("lower")).unwrap();
    let mut mounted = Mounted::start_with(dir, &["--size", "8388608"]);
    let point = mounted.point();
    let s = nix::sys::statvfs::statvfs(&point).unwrap();
    assert_eq!(s.blocks() * s.fragment_size(), 8 * MIB);
    let empty = available(&point);
    refill(&point);
    unnamed(&point);
    mapped(&point);
    tiny(&point);
    let left = empty - available(&point);
    assert!(left <= 8192, "{left} bytes taken by an empty tree");
    // What is counted is right after a replay, and what the disk has (of an upper without much history:
    // the journal is folded when that is several times what is left of it).
    mounted.unmount();
    fs::remove_dir_all(dir.join("upper")).unwrap();
    mounted.mount();
    let mut file = File::create(point.join("kept")).unwrap();
    file.write_all(&vec![7; 3 << 20]).unwrap();
    for i in 0..5000 {
        fs::write(point.join(format!("small-{i}")), b"").unwrap();
    }
    let before = available(&point);
    drop(file);
    mounted.unmount();
    let noted = rless::cow::Usage::noted(&dir.join("upper"))
        .unwrap()
        .unwrap();
    let disk = on_disk(&dir.join("upper"));
    eprintln!(
        "noted {} bytes, {} inodes; {disk} bytes on the disk",
        noted.bytes, noted.inodes
    );
    assert_eq!(noted.inodes, 5001);
    mounted.mount();
    assert_eq!(
        available(&point),
        before,
        "the limit and what is used survive"
    );
    mounted.unmount();
    let apart = noted.bytes.abs_diff(disk);
    assert!(
        apart < noted.bytes / 4,
        "noted {}, on the disk {disk}",
        noted.bytes
    );
}

#[test]
fn a_full_file_system_says_so_and_freed_space_is_there_at_once() {
    let Some(dir) = std::env::var_os(INNER) else {
        return enter(
            "cow::space::a_full_file_system_says_so_and_freed_space_is_there_at_once",
            &[],
        );
    };
    limited(Path::new(&dir));
}

/// The host's own full disk: a small tmpfs below the upper.
#[test]
fn a_full_host_is_reported_and_nothing_stays_of_what_failed() {
    let Some(dir) = std::env::var_os(INNER) else {
        return enter(
            "cow::space::a_full_host_is_reported_and_nothing_stays_of_what_failed",
            &[],
        );
    };
    let dir = Path::new(&dir);
    for d in ["lower", "upper"] {
        fs::create_dir_all(dir.join(d)).unwrap();
    }
    fs::write(dir.join("lower/low"), vec![3; 1 << 20]).unwrap();
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(
        none,
        &dir.join("upper"),
        Some("tmpfs"),
        flags,
        Some("size=4m"),
    )
    .unwrap();
    let mut mounted = Mounted::start(dir);
    let point = mounted.point();
    let file = File::create(point.join("f")).unwrap();
    let (written, e) = fill(&file, 0);
    assert_eq!(e, Errno::ENOSPC);
    assert!(written > 2 * MIB && written < 4 * MIB, "{written}");
    assert_eq!(file.metadata().unwrap().len(), written);
    // Durable: its space comes back only with a durable record of its end.
    file.sync_all().unwrap();
    // The lower's file reads as before after a change that failed.
    let low = File::options()
        .read(true)
        .write(true)
        .open(point.join("low"))
        .unwrap();
    let piece = vec![9; 1 << 20];
    let refused = low.write_at(&piece, 0).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC));
    // Freed space is there again, for this file and after a restart.
    fs::remove_file(point.join("f")).unwrap();
    drop(file);
    let again = File::create(point.join("g")).unwrap();
    again.write_all_at(&vec![5; 2 << 20], 0).unwrap();
    drop((again, low));
    mounted.unmount();
    mounted.mount();
    assert_eq!(fs::read(point.join("g")).unwrap(), vec![5; 2 << 20]);
    let content = fs::read(point.join("low")).unwrap();
    assert_eq!(content.len(), 1 << 20);
    assert!(
        content.iter().all(|b| *b == 3) || content.starts_with(&[9; 4096]),
        "neither old nor new"
    );
    mounted.unmount();
    nix::mount::umount(&dir.join("upper")).unwrap();
}
