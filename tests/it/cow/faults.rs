//! What may happen to the file system from outside: a full disk, an exceeded quota, too few
//! descriptors, a read-only home, damaged files. The error has its name, what was there stays, and
//! work goes on when the fault is gone. (A killed server: [`super::crash`].)

use super::populate::prepare;
use super::tree::sound;
use super::{Mounted, enter, inner_dir};
use nix::mount::MsFlags;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs `act` inside with a directory that has an image of the usual tree.
fn inside(name: &str, act: fn(&Path)) {
    match inner_dir() {
        Some(dir) => {
            prepare(&dir, true);
            act(&dir);
        }
        None => enter(&format!("cow::faults::{name}"), &[]),
    }
}

fn small_upper(dir: &Path, options: &str) -> PathBuf {
    let upper = dir.join("upper");
    std::fs::create_dir_all(&upper).unwrap();
    nix::mount::mount(
        Some("none"),
        &upper,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(options),
    )
    .unwrap();
    upper
}

/// Writes a file and makes it durable.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes to `path` until it fails; returns the length and the error.
fn fill(path: &Path) -> (u64, i32) {
    let file = File::create(path).unwrap();
    let piece = vec![7; 64 << 10];
    let mut at = 0;
    loop {
        match file.write_at(&piece, at) {
            Ok(n) => at += n as u64,
            Err(e) => return (at, e.raw_os_error().unwrap()),
        }
        assert!(at < 64 << 20, "no end");
    }
}

/// The image's files, and those that were made durable, read as they should.
fn intact(dir: &Path, point: &Path, kept: &[&str]) {
    for name in ["c0", "low10/c0", "low10/low20/e\u{e9}0"] {
        let bytes = std::fs::read(point.join(name)).unwrap();
        assert_eq!(bytes, std::fs::read(dir.join("twin").join(name)).unwrap());
    }
    for name in kept {
        assert_eq!(std::fs::read_to_string(point.join(name)).unwrap(), *name);
    }
    sound(point, "after the fault");
}

#[test]
fn full_disk_is_enospc_and_work_goes_on_when_there_is_room() {
    inside(
        "full_disk_is_enospc_and_work_goes_on_when_there_is_room",
        |dir| {
            small_upper(dir, "size=4m");
            let mut mounted = Mounted::start(dir);
            let point = mounted.point();
            keep(&point.join("kept"), b"kept").unwrap();
            // What will be deleted is durable: only a durable record of that gives its space back.
            keep(&point.join("durable"), &vec![b'd'; 1 << 20]).unwrap();
            let (len, code) = fill(&point.join("big"));
            assert_eq!(code, libc_errno("ENOSPC"));
            assert!((1 << 20..4 << 20).contains(&len), "{len} bytes fit");
            // Everything that needs room says so; nothing else is harmed.
            let more = (0..500)
                .find_map(|i| keep(&point.join(format!("more{i}")), b"m").err())
                .unwrap();
            assert_eq!(more.raw_os_error(), Some(libc_errno("ENOSPC")), "{more}");
            intact(dir, &point, &["kept"]);
            // Nor does it help that the journal's file has room for a few records: changes that grow nothing take that.
            let journal = std::fs::read(dir.join("upper/journal")).unwrap();
            let used = journal.iter().rposition(|b| *b != 0).unwrap();
            for i in 0..(journal.len() - used) / 30 + 100 {
                let mode = std::fs::Permissions::from_mode(0o600 + i as u32 % 8);
                std::fs::set_permissions(point.join("kept"), mode).unwrap();
            }
            File::open(&point).unwrap().sync_all().unwrap();
            std::fs::remove_file(point.join("durable")).unwrap();
            let until = Instant::now() + Duration::from_secs(100);
            while let Err(e) = keep(&point.join("after"), b"after") {
                assert!(Instant::now() < until, "still: {e}");
                std::thread::sleep(Duration::from_millis(100));
            }
            mounted.kill();
            intact(dir, &point, &["kept", "after"]);
            assert!(!point.join("durable").exists());
            std::fs::write(point.join("again"), vec![7; 512 << 10]).unwrap();
            mounted.unmount();
        },
    );
}

fn libc_errno(name: &str) -> i32 {
    match name {
        "ENOSPC" => nix::errno::Errno::ENOSPC as i32,
        "EDQUOT" => nix::errno::Errno::EDQUOT as i32,
        _ => nix::errno::Errno::EROFS as i32,
    }
}

#[test]
fn exceeded_quota_is_edquot_and_nothing_durable_is_lost() {
    inside(
        "exceeded_quota_is_edquot_and_nothing_durable_is_lost",
        |dir| {
            // Quotas take a file system of the machine's root: the host's answer is put in by strace.
            let traced = dir.join("traced");
            let script = "#!/bin/sh\nexec strace -D -f -qq -o /dev/null -e trace=pwrite64 \
                -e inject=pwrite64:error=EDQUOT:when=30+ \"$RLESS_BIN\" \"$@\"\n";
            std::fs::write(&traced, script).unwrap();
            std::fs::set_permissions(&traced, PermissionsExt::from_mode(0o755)).unwrap();
            let mut mounted = Mounted::served_by(dir, traced);
            let point = mounted.point();
            keep(&point.join("kept"), b"kept").unwrap();
            let (len, code) = fill(&point.join("big"));
            assert_eq!(code, libc_errno("EDQUOT"), "after {len}");
            // strace counts the writes of each of the server's threads by itself: one may have some left.
            let synced = (0..500)
                .find_map(|i| {
                    std::fs::create_dir(point.join(format!("newdir{i}")))
                        .and_then(|()| File::open(&point)?.sync_all())
                        .err()
                })
                .unwrap();
            assert_eq!(
                synced.raw_os_error(),
                Some(libc_errno("EDQUOT")),
                "{synced}"
            );
            intact(dir, &point, &["kept"]);
            mounted.program = std::env::var_os("RLESS_BIN").unwrap().into();
            mounted.kill();
            intact(dir, &point, &["kept"]);
            keep(&point.join("after"), b"after").unwrap();
            mounted.kill();
            intact(dir, &point, &["kept", "after"]);
            mounted.unmount();
        },
    );
}

#[test]
fn write_errors_of_others_cost_the_folding_only() {
    inside("write_errors_of_others_cost_the_folding_only", |dir| {
        let (traced, log) = (dir.join("traced"), dir.join("log"));
        let script = format!(
            "#!/bin/sh\nexec strace -D -f -qq -o {} -e trace=syncfs -e inject=syncfs:error=EIO \"$RLESS_BIN\" \"$@\"\n",
            log.display()
        );
        std::fs::write(&traced, script).unwrap();
        std::fs::set_permissions(&traced, PermissionsExt::from_mode(0o755)).unwrap();
        let mut mounted = Mounted::served_by(dir, traced);
        let point = mounted.point();
        let tries = || {
            std::fs::read_to_string(&log)
                .unwrap()
                .matches("EIO")
                .count()
        };
        // A journal that is long enough to be folded.
        for i in 0..5000 {
            File::create(point.join(format!("{i:0200}"))).unwrap();
        }
        keep(&point.join("kept"), b"kept").unwrap();
        crate::harness::wait_for("a fold", Duration::from_secs(20), || tries() > 0);
        for i in 0..5 {
            keep(&point.join(format!("after{i}")), b"after").unwrap();
        }
        // Nor are many files synced at once by what cannot be believed.
        let names: Vec<String> = (0..40).map(|i| format!("large{i}")).collect();
        for name in &names {
            std::fs::write(point.join(name), name.repeat(60_000)).unwrap();
        }
        std::thread::sleep(Duration::from_secs(7));
        keep(&point.join("last"), b"last").unwrap();
        assert_eq!(tries(), 1);
        mounted.program = std::env::var_os("RLESS_BIN").unwrap().into();
        mounted.kill();
        for name in names {
            assert!(std::fs::read(point.join(&name)).unwrap() == name.repeat(60_000).as_bytes());
        }
        for (name, content) in [("kept", "kept"), ("after4", "after"), ("last", "last")] {
            assert_eq!(std::fs::read_to_string(point.join(name)).unwrap(), content);
        }
        mounted.unmount();
    });
}

#[test]
fn few_descriptors_are_enough_for_many_open_files() {
    inside("few_descriptors_are_enough_for_many_open_files", |dir| {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 40, hard).unwrap();
        let mut mounted = Mounted::start(dir);
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(1024).min(hard), hard).unwrap();
        let point = mounted.point();
        let name = |i: usize| format!("open{i}");
        let open = |i: usize| {
            File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(point.join(name(i)))
        };
        let files: Vec<File> = (0..300).map(|i| open(i).unwrap()).collect();
        for round in 0..2 {
            for (i, file) in files.iter().enumerate() {
                file.write_all_at(name(i).as_bytes(), round * 5000)
                    .unwrap_or_else(|e| panic!("{i}, round {round}: {e}"));
            }
        }
        for (i, file) in files.iter().enumerate() {
            let mut bytes = vec![0; name(i).len()];
            file.read_exact_at(&mut bytes, 5000).unwrap();
            assert_eq!(bytes, name(i).as_bytes());
            file.sync_all().unwrap();
        }
        mounted.kill();
        for i in 0..300 {
            let bytes = std::fs::read(point.join(name(i))).unwrap();
            assert!(bytes.starts_with(name(i).as_bytes()) && bytes.ends_with(name(i).as_bytes()));
        }
        drop(files);
        intact(dir, &point, &[]);
        mounted.unmount();
    });
}

#[test]
fn read_only_home_is_named_and_left_alone() {
    inside("read_only_home_is_named_and_left_alone", |dir| {
        let upper = small_upper(dir, "size=4m");
        let mut mounted = Mounted::start(dir);
        let point = mounted.point();
        keep(&point.join("kept"), b"kept").unwrap();
        mounted.unmount();
        let journal = std::fs::read(upper.join("journal")).unwrap();
        let remount = |flags| {
            let none = None::<&str>;
            nix::mount::mount(none, &upper, none, MsFlags::MS_REMOUNT | flags, none).unwrap();
        };
        remount(MsFlags::MS_RDONLY);
        let text = Mounted::refused(dir);
        assert!(
            text.contains(upper.to_str().unwrap()) && text.contains("Read-only file system"),
            "{text}"
        );
        assert_eq!(std::fs::read(upper.join("journal")).unwrap(), journal);
        remount(MsFlags::empty());
        mounted.mount();
        intact(dir, &point, &["kept"]);
        mounted.unmount();
    });
}

#[test]
fn damaged_index_or_pack_is_refused_by_name() {
    inside("damaged_index_or_pack_is_refused_by_name", |dir| {
        let index = dir.join("lower/image.idx");
        let whole = std::fs::read(&index).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 12) {
            let mut bad = whole.clone();
            bad[at] ^= 0x40;
            std::fs::write(&index, &bad).unwrap();
            let text = Mounted::refused(dir);
            assert!(text.contains("image.idx"), "byte {at}: {text}");
        }
        for len in [0, 10, 64, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&index, &whole[..len]).unwrap();
            let text = Mounted::refused(dir);
            assert!(text.contains("image.idx"), "{len} bytes: {text}");
        }
        std::fs::write(&index, &whole).unwrap();
        let packs = std::fs::read_dir(dir.join("lower/packs")).unwrap();
        let pack = packs
            .map(|e| e.unwrap().path())
            .find(|p| p.extension().is_some_and(|e| e == "pack"))
            .unwrap();
        let aside = dir.join("aside");
        std::fs::rename(&pack, &aside).unwrap();
        let name = pack.file_name().unwrap().to_str().unwrap();
        assert!(Mounted::refused(dir).contains(name), "a missing pack");
        let bytes = std::fs::read(&aside).unwrap();
        std::fs::write(&pack, &bytes[..bytes.len() / 2]).unwrap();
        assert!(Mounted::refused(dir).contains(name), "half a pack");
        std::fs::rename(&aside, &pack).unwrap();
        let mut mounted = Mounted::start(dir);
        intact(dir, &mounted.point(), &[]);
        mounted.unmount();
    });
}

#[test]
fn damaged_journal_keeps_what_came_before_the_damage() {
    inside("damaged_journal_keeps_what_came_before_the_damage", |dir| {
        let mut mounted = Mounted::start(dir);
        let point = mounted.point();
        keep(&point.join("first"), b"first").unwrap();
        let journal = dir.join("upper/journal");
        let promised = std::fs::metadata(&journal).unwrap().len() as usize;
        for i in 0..40 {
            std::fs::create_dir(point.join(format!("dir{i}"))).unwrap();
            std::fs::rename(point.join("b0"), point.join(format!("dir{i}/b"))).unwrap();
            std::fs::rename(point.join(format!("dir{i}/b")), point.join("b0")).unwrap();
        }
        // With content in a data file of its own, which only the last records speak of.
        let long = vec![b'l'; 300_000];
        keep(&point.join("last"), &long).unwrap();
        mounted.unmount();
        let whole = std::fs::read(&journal).unwrap();
        assert!(whole.len() > promised + 1000);
        let used = whole.iter().rposition(|b| *b != 0).unwrap();
        let behind = journal.with_extension("cut");
        for cut in [false, true] {
            for part in [1, 3, 5, 7] {
                let at = promised + (used - promised) * part / 10;
                let mut bad = whole.clone();
                bad[at] ^= 0x10;
                bad.truncate(if cut { at } else { bad.len() });
                std::fs::write(&journal, &bad).unwrap();
                mounted.mount();
                intact(dir, &point, &["first"]);
                let dirs = (0..40)
                    .filter(|i| point.join(format!("dir{i}")).exists())
                    .count();
                let noticed = !point.join("last").exists() && dirs < 40;
                assert!(noticed, "byte {at}: nothing was noticed");
                assert!(dirs > 0 || part < 3, "byte {at}: nothing is left");
                mounted.unmount();
                // Whole records behind the damage are kept, and what they speak of.
                assert_eq!(behind.exists(), !cut, "byte {at}");
                if !cut {
                    let kept = std::fs::read(&behind).unwrap();
                    assert!(whole[at..=used].ends_with(&kept[kept.len() - 100..]));
                    std::fs::write(&journal, &whole).unwrap();
                    mounted.mount();
                    assert!(std::fs::read(point.join("last")).unwrap() == long);
                    mounted.unmount();
                    std::fs::remove_file(&behind).unwrap();
                }
            }
        }
        // Without any journal all content would be taken for left over.
        for length in [0, 20] {
            std::fs::write(&journal, &whole[..length]).unwrap();
            let text = Mounted::refused(dir);
            assert!(text.contains(journal.to_str().unwrap()), "{text}");
        }
        let mut bad = whole.clone();
        bad[3] ^= 1;
        std::fs::write(&journal, &bad).unwrap();
        let text = Mounted::refused(dir);
        assert!(text.contains(journal.to_str().unwrap()), "{text}");
        assert_eq!(
            std::fs::read(&journal).unwrap(),
            bad,
            "it is left for a look"
        );
    });
}
