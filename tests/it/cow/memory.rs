//! What a server of a large image keeps in memory, and what it gives back.

use super::populate::image_of_tar;
use super::{INNER, Mounted, enter};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Entries of the image.
const ENTRIES: u64 = 200_000;
const BIG: u64 = 64 * MIB;

/// Of a process, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Private {
    /// Anonymous pages and changed ones.
    own: u64,
    /// Pages of mapped files that no other process maps just now: the kernel counts them as private although they are
    /// page cache. Without those of the program and its libraries, whose number depends on the profile they were
    /// built with.
    mapped: u64,
    /// Those.
    program: u64,
}

impl Private {
    fn all(self) -> u64 {
        self.own + self.mapped
    }
}

fn private(pid: u32, when: &str) -> Private {
    let mut found = Private::default();
    let mut program = false;
    for line in fs::read_to_string(format!("/proc/{pid}/smaps"))
        .unwrap()
        .lines()
    {
        let words: Vec<_> = line.split_whitespace().collect();
        if !words[0].ends_with(':') {
            let path = words.get(5).unwrap_or(&"");
            program = path.ends_with("/rless") || path.contains(".so");
            continue;
        }
        let bytes = || words[1].parse::<u64>().unwrap() * KIB;
        match words[0] {
            "Private_Dirty:" => found.own += bytes(),
            "Private_Clean:" if program => found.program += bytes(),
            "Private_Clean:" => found.mapped += bytes(),
            _ => {}
        }
    }
    eprintln!(
        "{when}: {} KiB own, {} mapped of index and packs, {} of the program",
        found.own / KIB,
        found.mapped / KIB,
        found.program / KIB
    );
    found
}

/// How many ends of pipes a process has.
fn pipes(pid: u32) -> usize {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    // Those that were closed meanwhile are none.
    let targets = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    targets
        .filter(|to| to.as_os_str().as_encoded_bytes().starts_with(b"pipe:"))
        .count()
}

/// Packs an image of 200,000 entries.
fn large_image(lower: &Path) {
    fs::create_dir_all(lower).unwrap();
    let path = lower.join("large.tar");
    let mut tar = tar::Builder::new(std::io::BufWriter::new(File::create(&path).unwrap()));
    let mut put = |name: &str, kind: tar::EntryType, size: u64, body: &mut dyn Read| {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header.set_cksum();
        tar.append(&header, body).unwrap();
    };
    let empty = || std::io::empty();
    put(
        "big",
        tar::EntryType::Regular,
        BIG,
        &mut std::io::repeat(7).take(BIG),
    );
    let mut made = 2; // The root too.
    for a in 0.. {
        put(
            &format!("usr/dir{a}"),
            tar::EntryType::Directory,
            0,
            &mut empty(),
        );
        made += 1;
        for b in 0..100 {
            let name = format!("usr/dir{a}/some-module-{b:03}.py");
            put(&name, tar::EntryType::Regular, 6, &mut &b"inside"[..]);
            made += 1;
        }
        if made >= ENTRIES {
            break;
        }
    }
    tar.into_inner().unwrap().into_inner().unwrap();
    image_of_tar(&path, lower);
    fs::remove_file(&path).unwrap();
}

fn count(dir: &Path) -> u64 {
    let mut n = 1;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        n += match entry.metadata().unwrap().is_dir() {
            true => count(&entry.path()),
            false => 1,
        };
    }
    n
}

/// Asks again until it holds: memory is given back some seconds after the last request.
fn in_time(pid: u32, when: &str, holds: impl Fn(Private) -> bool) -> Private {
    let began = Instant::now();
    loop {
        let now = private(pid, when);
        if holds(now) {
            return now;
        }
        assert!(
            began.elapsed() < Duration::from_secs(100),
            "{when}: {now:?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn check(dir: &Path) {
    let began = Instant::now();
    let lower = dir.join("lower");
    large_image(&lower);
    let index = fs::metadata(lower.join("image.idx")).unwrap().len();
    eprintln!(
        "{ENTRIES} entries: index of {} KiB, made in {:.1} s",
        index / KIB,
        began.elapsed().as_secs_f64()
    );
    let mut mounted = Mounted::start(dir);
    let (pid, point) = (mounted.pid(), mounted.point());
    assert_eq!(
        fs::read(point.join("usr/dir1000/some-module-050.py")).unwrap(),
        b"inside"
    );
    let start = private(pid, "mounted and one file read");
    assert!(start.own <= 4 * MIB && start.mapped <= MIB, "{start:?}");
    let start = in_time(pid, "some seconds later", |p| p.mapped <= 64 * KIB);
    assert!(start.all() <= 4 * MIB, "{start:?}");

    assert!(count(&point) >= ENTRIES);
    let walked = private(pid, "after a walk over everything");
    // The index at most, and 4 bytes for each look-up.
    assert!(walked.own <= start.own + 4 * ENTRIES + MIB, "{walked:?}");
    assert!(walked.mapped <= index + MIB, "{walked:?}");
    let idle = in_time(pid, "some seconds later", |p| p.mapped <= 64 * KIB);
    // What the kernel still knows of stays, and nothing of the index.
    assert!(idle.all() <= start.own + 4 * ENTRIES + MIB, "{idle:?}");

    let mut buf = vec![0; 1 << 20];
    let mut big = File::open(point.join("big")).unwrap();
    let pipes_before = pipes(pid);
    while big.read(&mut buf).unwrap() > 0 {}
    assert!(pipes(pid) > pipes_before, "content went through none");
    let read = private(pid, "64 MiB read");
    assert!(read.all() <= idle.all() + 4 * MIB, "{read:?}");
    // Small requests that never end.
    let began = Instant::now();
    while pipes(pid) > pipes_before {
        assert!(began.elapsed() < Duration::from_secs(100), "pipes are left");
        nix::sys::statvfs::statvfs(&point).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    let target = point.join("written");
    fs::write(&target, vec![1; 32 << 20]).unwrap();
    File::open(&target).unwrap().sync_all().unwrap();
    private(pid, "32 MiB written");
    in_time(pid, "the large buffers given back", |p| {
        p.own <= idle.own + 256 * KIB
    });

    // A remount drops what the kernel knows of names, and so all look-ups.
    drop(big);
    let none = None::<&str>;
    let remount = nix::mount::MsFlags::MS_REMOUNT;
    nix::mount::mount(none, &point, none, remount, none).unwrap();
    in_time(pid, "forgotten", |p| p.own <= start.own + 256 * KIB);
    assert!(count(&point) >= ENTRIES, "and found again");
    mounted.unmount();
}

#[test]
fn a_large_image_takes_little_memory_and_gives_it_back() {
    let Some(dir) = std::env::var_os(INNER) else {
        return enter(
            "cow::memory::a_large_image_takes_little_memory_and_gives_it_back",
            &[],
        );
    };
    check(Path::new(&dir));
}
