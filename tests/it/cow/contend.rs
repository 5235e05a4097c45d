//! Operations that fight over the same names and bytes. Which of them wins is nobody's to say, but whatever the order,
//! counts and links, appended records and exchanged names must add up.

use super::ops::Rng;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use rless::sys::window::Window;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const THREADS: usize = 4;

/// All of them, in a directory of their own below `root`; returns how many operations that were.
pub(crate) fn all(root: &Path, rng: &mut Rng) -> u64 {
    let fights: [fn(&Path) -> u64; 10] = [
        appends,
        links,
        exchanges,
        tokens,
        one_winner,
        one_directory,
        mapped,
        pieces,
        loops,
        listings,
    ];
    let arena = root.join("arena");
    fs::create_dir(&arena).unwrap();
    let mut count = 0;
    for _ in 0..4 {
        let dir = arena.join("ring");
        fs::create_dir(&dir).unwrap();
        count += fights[rng.below(fights.len() as u64) as usize](&dir);
        fs::remove_dir_all(&dir).unwrap();
    }
    fs::remove_dir(&arena).unwrap();
    count
}

/// Runs it on all threads at once; each gets its number.
fn fight(each: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|t| {
                scope.spawn({
                    let each = &each;
                    move || each(t)
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

fn exchange(a: &Path, b: &Path, flags: RenameFlags) -> nix::Result<()> {
    renameat2(AT_FDCWD, a, AT_FDCWD, b, flags)
}

/// Every appended record is there once and whole, each thread's in their order.
fn appends(dir: &Path) -> u64 {
    const EACH: usize = 60;
    let path = dir.join("log");
    File::create(&path).unwrap();
    fight(|t| {
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        for n in 0..EACH {
            file.write_all(format!("<{t} {n:04} {}>\n", "x".repeat(70)).as_bytes())
                .unwrap();
        }
    });
    let text = fs::read_to_string(&path).unwrap();
    let mut next = [0; THREADS];
    for line in text.lines() {
        assert_eq!(line.len(), 79, "a torn record: {line}");
        let (t, n) = (
            line[1..2].parse::<usize>().unwrap(),
            line[3..7].parse::<usize>().unwrap(),
        );
        assert_eq!(n, next[t], "order of thread {t}");
        next[t] += 1;
    }
    assert_eq!(next, [EACH; THREADS], "records are missing");
    (EACH * THREADS) as u64
}

/// An inode has as many links as it has names.
fn links(dir: &Path) -> u64 {
    const EACH: usize = 40;
    let path = dir.join("file");
    File::create(&path).unwrap();
    fight(|t| {
        for n in 0..EACH {
            let name = dir.join(format!("{t}.{n}"));
            fs::hard_link(&path, &name).unwrap();
            if n % 3 == 0 {
                fs::remove_file(&name).unwrap();
            }
        }
    });
    let names = fs::read_dir(dir).unwrap().count() as u64;
    assert_eq!(fs::metadata(&path).unwrap().nlink(), names);
    assert_eq!(names, (1 + THREADS * (EACH - EACH.div_ceil(3))) as u64);
    (EACH * THREADS * 4 / 3) as u64
}

/// Exchanged names are always both there, and an odd number of exchanges is one.
fn exchanges(dir: &Path) -> u64 {
    const EACH: usize = 41;
    let (a, b) = (dir.join("a"), dir.join("b"));
    fs::write(&a, "first").unwrap();
    fs::create_dir(&b).unwrap();
    fight(|t| {
        for _ in 0..EACH {
            if t == 0 {
                assert!(fs::symlink_metadata(&a).is_ok(), "a name was away");
            } else {
                exchange(&a, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        }
    });
    let swapped = (THREADS - 1) * EACH % 2 == 1;
    assert_eq!(fs::metadata(&a).unwrap().is_dir(), swapped);
    assert_eq!(fs::metadata(&b).unwrap().is_dir(), !swapped);
    (THREADS * EACH) as u64
}

/// A name that several move away is moved by one of them.
fn tokens(dir: &Path) -> u64 {
    const TOKENS: usize = 20;
    let sides = [dir.join("0"), dir.join("1")];
    sides.iter().for_each(|d| fs::create_dir(d).unwrap());
    let name = |side: usize, n: usize| sides[side].join(n.to_string());
    (0..TOKENS).for_each(|n| drop(File::create(name(0, n)).unwrap()));
    let moves: Vec<AtomicUsize> = (0..TOKENS).map(|_| AtomicUsize::new(0)).collect();
    fight(|t| {
        for n in 0..2 * TOKENS {
            let (side, n) = ((n + t) % 2, n / 2);
            match exchange(
                &name(side, n),
                &name(1 - side, n),
                RenameFlags::RENAME_NOREPLACE,
            ) {
                Ok(()) => drop(moves[n].fetch_add(1, Ordering::SeqCst)),
                Err(e) => assert!(matches!(e, Errno::ENOENT | Errno::EEXIST), "{e}"),
            }
        }
    });
    for (n, moves) in moves.iter().enumerate() {
        let side = moves.load(Ordering::SeqCst) % 2;
        assert!(
            name(side, n).exists() && !name(1 - side, n).exists(),
            "token {n}"
        );
    }
    (THREADS * 2 * TOKENS) as u64
}

/// Of several O_EXCL one makes the file.
fn one_winner(dir: &Path) -> u64 {
    const FILES: usize = 30;
    let won: Vec<AtomicUsize> = (0..FILES).map(|_| AtomicUsize::new(0)).collect();
    fight(|t| {
        for (n, won) in won.iter().enumerate() {
            match File::create_new(dir.join(n.to_string())) {
                Ok(mut file) => {
                    file.write_all(&[t as u8]).unwrap();
                    won.fetch_add(1, Ordering::SeqCst);
                }
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::AlreadyExists),
            }
        }
    });
    for (n, won) in won.iter().enumerate() {
        assert_eq!(won.load(Ordering::SeqCst), 1, "file {n}");
        assert_eq!(fs::metadata(dir.join(n.to_string())).unwrap().len(), 1);
    }
    (THREADS * FILES) as u64
}

/// A directory is made as often as it was removed, or once more; one with something in it is not removed.
fn one_directory(dir: &Path) -> u64 {
    const EACH: usize = 40;
    let path = dir.join("d");
    let (made, removed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    fight(|t| {
        for _ in 0..EACH {
            match if t % 2 == 0 {
                fs::create_dir(&path)
            } else {
                fs::remove_dir(&path)
            } {
                Ok(()) => drop([&made, &removed][t % 2].fetch_add(1, Ordering::SeqCst)),
                Err(e) => {
                    let e = Errno::from_raw(e.raw_os_error().unwrap());
                    assert!(
                        matches!(e, Errno::EEXIST | Errno::ENOENT | Errno::ENOTEMPTY),
                        "{e}"
                    );
                }
            }
            if let Ok(file) = File::create_new(path.join(format!("{t}"))) {
                assert!(path.exists(), "a directory with a file in it went");
                drop(file);
                fs::remove_file(path.join(format!("{t}"))).unwrap();
            }
        }
    });
    let left = made.into_inner() - removed.into_inner();
    assert_eq!(left, usize::from(path.exists()));
    assert_eq!(fs::metadata(dir).unwrap().nlink(), 2 + left as u64);
    (THREADS * EACH * 2) as u64
}

/// Bytes that several mappings write beside each other are all there.
fn mapped(dir: &Path) -> u64 {
    let path = dir.join("map");
    fs::write(&path, [0; 10_000]).unwrap();
    fight(|t| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let window = Window::shared(file, 10_000).unwrap();
        for at in (t..10_000).step_by(THREADS) {
            window.write(at, &[t as u8 + 1]);
        }
        window.sync().unwrap();
    });
    let bytes = fs::read(&path).unwrap();
    assert!(
        bytes
            .iter()
            .enumerate()
            .all(|(i, b)| usize::from(*b) == i % THREADS + 1)
    );
    (THREADS * 2) as u64
}

/// Pieces of one block that several write are all there, while others make the file longer.
fn pieces(dir: &Path) -> u64 {
    const SIZE: usize = 7 * 600;
    let path = dir.join("pieces");
    File::create(&path).unwrap();
    fight(|t| {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for n in (t..600).step_by(THREADS) {
            file.write_all_at(&[n as u8; 7], n as u64 * 7).unwrap();
        }
    });
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), SIZE);
    assert!(bytes.iter().enumerate().all(|(i, b)| *b == (i / 7) as u8));
    600
}

/// Directories moved below each other never make a circle and none is lost.
fn loops(dir: &Path) -> u64 {
    const EACH: usize = 40;
    let dirs: Vec<PathBuf> = (0..THREADS).map(|n| dir.join(format!("m{n}"))).collect();
    dirs.iter().for_each(|d| fs::create_dir(d).unwrap());
    fight(|t| {
        let mut r = Rng::new(t as u64 + 7);
        for _ in 0..EACH {
            let other = r.below(THREADS as u64) as usize;
            let (here, there) = (&dirs[t], dirs[other].join(format!("m{t}")));
            let (from, to) = if r.below(2) == 0 {
                (here, &there)
            } else {
                (&there, here)
            };
            match fs::rename(from, to).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap())) {
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTEMPTY) => {}
                Err(e) => panic!("{e}"),
            }
        }
    });
    let mut names = BTreeSet::new();
    for path in super::tree::paths(dir, None) {
        names.insert(path.rsplit('/').next().unwrap().to_owned());
        let meta = fs::metadata(dir.join(&path)).unwrap();
        let below = fs::read_dir(dir.join(&path)).unwrap().count() as u64;
        assert_eq!(meta.nlink(), 2 + below, "links of {path}");
    }
    assert_eq!(names.len(), THREADS, "{names:?}");
    (THREADS * EACH) as u64
}

/// A listing has each name that stays exactly once, whatever comes and goes.
fn listings(dir: &Path) -> u64 {
    const EACH: usize = 80;
    let stay: BTreeSet<String> = (0..50).map(|n| format!("stays-{n}")).collect();
    stay.iter()
        .for_each(|n| drop(File::create(dir.join(n)).unwrap()));
    let over = AtomicBool::new(false);
    fight(|t| {
        for n in 0..EACH {
            if t == 0 {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let seen: Vec<String> = fs::read_dir(dir)
                    .unwrap()
                    .map(|e| e.unwrap().file_name().into_string().unwrap())
                    .filter(|n| n.starts_with("stays"))
                    .collect();
                assert_eq!(seen.len(), stay.len(), "a name twice, or away");
                assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), stay);
            } else {
                let path = dir.join(format!("{t}.{n}"));
                File::create(&path).unwrap();
                fs::remove_file(&path).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    (THREADS * EACH * 2) as u64
}
