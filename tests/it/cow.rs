//! The copy-on-write file system beside the kernel's: the same random operations on both, every
//! answer and the resulting trees compared.
//!
//! The outer test starts this binary again inside a user and mount namespace of the test user; the
//! inner one mounts with `rless mount-cow`. One seed: `RLESS_COW_SEED`; operations a seed:
//! `RLESS_COW_OPS`.

mod faults;
mod ops;
mod posix;
mod space;

use crate::harness::{Sandbox, note_skip, prepared};
use ops::{Actor, Op, Rng};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Set for the inner process: the directory to work in.
const INNER: &str = "RLESS_COW_INNER";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// The directory to work in, for the inner process.
pub(crate) fn inner_dir() -> Option<PathBuf> {
    std::env::var_os(INNER).map(PathBuf::from)
}

/// Runs the inner test `name` in namespaces of the test user, and shows what it tells.
fn enter(name: &str, vars: &[(&str, String)]) {
    if let Some(told) = run_inner(name, vars) {
        eprint!("{told}");
    }
}

/// Runs the inner test `name` in namespaces of the test user; returns what it tells, nothing where it was skipped.
pub(crate) fn run_inner(name: &str, vars: &[(&str, String)]) -> Option<String> {
    let Some(world) = prepared() else {
        note_skip("the world of tests/run is not there");
        return None;
    };
    let sandbox = Sandbox::new(world);
    let dir = sandbox.dir.join("cow");
    sandbox.make_dir(&dir);
    let exe = std::env::current_exe().unwrap();
    let inside = || {
        let unshare = sandbox.command("/usr/bin/unshare");
        unshare.args(["-U", "--map-root-user", "--map-auto", "-m"])
    };
    let mut cmd = inside()
        .arg(exe)
        .args(["--exact", name, "--nocapture"])
        .env(INNER, &dir)
        .env("RLESS_BIN", sandbox.binary());
    for (key, value) in vars {
        cmd = cmd.env(key, value);
    }
    let output = cmd.within(Duration::from_secs(240)).exits(0);
    // Files of the namespace's other users are there: only its root may remove them.
    inside().args(["rm", "-rf", "--"]).arg(&dir).ok();
    Some(output.err)
}

/// A mounted tree and the process that serves it.
pub(crate) struct Mounted {
    dir: PathBuf,
    /// What is run as rless.
    program: PathBuf,
    server: Option<Child>,
    /// More arguments of `mount-cow`.
    options: Vec<String>,
}

impl Mounted {
    pub(crate) fn point(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    pub(crate) fn start(dir: &Path) -> Mounted {
        Mounted::start_with(dir, &[])
    }

    pub(crate) fn start_with(dir: &Path, options: &[&str]) -> Mounted {
        let mut m = Mounted::new(dir, std::env::var_os("RLESS_BIN").unwrap().into());
        m.options = options.iter().map(|o| (*o).to_owned()).collect();
        m.mount();
        m
    }

    /// With another program in the place of rless.
    pub(crate) fn served_by(dir: &Path, program: PathBuf) -> Mounted {
        let mut m = Mounted::new(dir, program);
        m.mount();
        m
    }

    fn new(dir: &Path, program: PathBuf) -> Mounted {
        Mounted {
            dir: dir.to_owned(),
            program,
            server: None,
            options: Vec::new(),
        }
    }

    /// What mounts it at `point`.
    fn command(&self, point: &Path) -> Command {
        let lower = self.dir.join("lower");
        let mut cmd = Command::new(&self.program);
        cmd.arg("mount-cow");
        match lower.join("image.idx") {
            index if index.exists() => {
                cmd.arg("--index")
                    .arg(index)
                    .arg("--packs")
                    .arg(lower.join("packs"));
            }
            _ => {
                cmd.arg("--lower").arg(&lower);
            }
        }
        cmd.arg("--upper").arg(self.dir.join("upper"));
        cmd.args(&self.options).arg(point);
        cmd
    }

    /// Mounts what cannot be mounted: checks that it says so; returns the error text.
    fn refused(dir: &Path) -> String {
        let m = Mounted::new(dir, std::env::var_os("RLESS_BIN").unwrap().into());
        std::fs::create_dir_all(m.point()).unwrap();
        let mut limited = Command::new("timeout");
        let cmd = m.command(&m.point());
        limited
            .arg("20")
            .arg(cmd.get_program())
            .args(cmd.get_args());
        let output = limited.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{text}");
        text
    }

    pub(crate) fn mount(&mut self) {
        let point = self.point();
        std::fs::create_dir_all(&point).unwrap();
        self.server = Some(self.command(&point).spawn().unwrap());
        crate::harness::wait_for("the mount", Duration::from_secs(20), || {
            std::fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .lines()
                .any(|l| {
                    l.contains(&format!(" /root {} ", point.display())) && l.contains("fuse.rless")
                })
        });
    }

    /// An orderly end: everything must be there afterwards.
    pub(crate) fn unmount(&mut self) {
        nix::mount::umount(&self.point()).unwrap();
        let status = self.server.take().unwrap().wait().unwrap();
        assert!(status.success(), "server: {status}");
    }
}

impl Mounted {
    /// Ends the server at once, as an out-of-memory kill would, and mounts again.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        nix::mount::umount2(&self.point(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        self.mount();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = nix::mount::umount2(&self.point(), nix::mount::MntFlags::MNT_DETACH);
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The lower tree's files, made below `dir`.
fn populate(dir: &Path) {
    let mut r = Rng::new(99);
    let dirs = ["", "dir", "low1", "low1/dir", "low1/low2", "low1/low2/a"].map(|d| dir.join(d));
    for dir in &dirs {
        std::fs::create_dir_all(dir).unwrap();
    }
    for dir in &dirs {
        for (name, len) in [("low2", 20_000), ("b", 5), ("c", 4096), ("e\u{e9}", 9000)] {
            let path = dir.join(name);
            if !path.exists() {
                let bytes: Vec<u8> = (0..len).map(|_| r.below(256) as u8).collect();
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
    std::fs::hard_link(dir.join("b"), dir.join("low1/a")).unwrap();
    std::os::unix::fs::symlink("low1/c", dir.join("a")).unwrap();
}

/// Ends with the trees of both compared.
fn compare(ours: &Actor, theirs: &Actor, what: &str) {
    let (a, b) = (ours.tree(), theirs.tree());
    for (x, y) in a.iter().zip(&b) {
        assert_eq!(x, y, "{what}: ours, then the kernel's");
    }
    assert_eq!(a.len(), b.len(), "{what}: number of entries");
    assert_eq!(ours.xattrs(), theirs.xattrs(), "{what}: attributes");
}

/// Builds the lower (as an image if `image`) and its twin on the host's file system.
fn prepare(dir: &Path, image: bool) -> PathBuf {
    let twin = dir.join("twin");
    populate(&twin);
    let lower = dir.join("lower");
    std::fs::create_dir_all(&lower).unwrap();
    if image {
        image_of(&twin, &lower);
    } else {
        populate(&lower);
    }
    twin
}

/// Ingests the directory as a one-layer image.
fn image_of(tree: &Path, out: &Path) {
    use rless::store::layers::{LayerDirs, build_image_index, ingest};
    use sha2::Digest;
    let tar = out.join("layer.tar");
    let made = Command::new("tar")
        .args(["--xattrs", "--format=pax", "-C"])
        .arg(tree)
        .arg("-cf")
        .arg(&tar)
        .arg(".")
        .status()
        .unwrap();
    assert!(made.success());
    let dirs = LayerDirs {
        packs: out.join("packs"),
        layer_indexes: out.join("layers"),
        tmp: out.join("tmp"),
    };
    for d in [&dirs.packs, &dirs.layer_indexes, &dirs.tmp] {
        std::fs::create_dir_all(d).unwrap();
    }
    let bytes = std::fs::read(&tar).unwrap();
    let digest: String = sha2::Sha256::digest(&bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let id = format!("sha256:{digest}");
    ingest(&dirs, &id, &mut bytes.as_slice()).unwrap();
    build_image_index(&dirs, &[id], &out.join("image.idx")).unwrap();
}

/// One seed: the same operations on both, compared step by step; now and then everything, and a
/// remount in between.
fn differential(dir: &Path, seed: u64, count: u64, image: bool) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let twin = prepare(dir, image);
    let mut mounted = Mounted::start(dir);
    let (mut ours, mut theirs) = (Actor::new(&mounted.point()), Actor::new(&twin));
    let mut r = Rng::new(seed);
    let mut log: Vec<Op> = Vec::new();
    let mut worked = 0;
    let mut known = Vec::new();
    for i in 0..count {
        if i % 40 == 0 {
            known = theirs.paths();
        }
        let op = ops::make(&mut r, &known);
        let (a, b) = (ours.act(&op), theirs.act(&op));
        log.push(op.clone());
        worked += u64::from(a.starts_with("ok"));
        if a != b {
            let from = log.len().saturating_sub(60);
            for op in &log[from..] {
                eprintln!("  {op:?}");
            }
            panic!("seed {seed}, operation {i}: {op:?}\n ours:   {a}\n kernel: {b}");
        }
        if i % 1000 == 999 {
            compare(&ours, &theirs, &format!("seed {seed}, after {i}"));
        }
        if i % 2500 == 2499 {
            ours.release();
            theirs.release();
            mounted.unmount();
            mounted.mount();
            compare(&ours, &theirs, &format!("seed {seed}, remounted after {i}"));
        }
    }
    compare(&ours, &theirs, &format!("seed {seed}, at the end"));
    let left = ours.tree().len();
    eprintln!("seed {seed}: {worked} of {count} operations worked, {left} entries at the end");
    assert!(
        worked > count / 10 && left > 5,
        "the operations hardly do anything"
    );
    ours.release();
    mounted.unmount();
}

/// fsync of everything.
fn sync(actor: &Actor, root: &Path) {
    for path in actor.paths() {
        let path = root.join(path);
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_file() {
            std::fs::File::open(&path).unwrap().sync_all().unwrap();
        }
    }
    std::fs::File::open(root).unwrap().sync_all().unwrap();
}

/// What must hold in a tree whatever was lost: everything can be read, link counts are right.
fn sound(actor: &Actor, root: &Path, what: &str) {
    use std::os::unix::fs::MetadataExt;
    let mut names: std::collections::BTreeMap<u64, (u64, u64, String)> = Default::default();
    for line in actor.tree() {
        assert!(!line.contains(": E"), "{what}: {line}");
    }
    for path in actor.paths() {
        let full = root.join(&path);
        let meta = std::fs::symlink_metadata(&full).unwrap();
        if meta.is_dir() {
            let dirs = std::fs::read_dir(&full)
                .unwrap()
                .filter(|e| e.as_ref().unwrap().file_type().unwrap().is_dir())
                .count() as u64;
            assert_eq!(meta.nlink(), dirs + 2, "{what}: links of {path}");
        } else {
            let entry = names.entry(meta.ino()).or_insert((0, meta.nlink(), path));
            entry.0 += 1;
        }
    }
    for (seen, links, path) in names.values() {
        assert_eq!(seen, links, "{what}: links of {path}");
    }
}

/// The server is killed again and again: what was fsynced is all there; what was not leaves a
/// tree that is sound.
fn kills(dir: &Path, seed: u64, rounds: u64) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let twin = prepare(dir, true);
    let mut mounted = Mounted::start(dir);
    let point = mounted.point();
    let mut r = Rng::new(seed);
    for round in 0..rounds {
        let what = format!("seed {seed}, round {round}");
        let (mut ours, mut theirs) = (Actor::new(&point), Actor::new(&twin));
        for _ in 0..3 {
            let known = theirs.paths();
            for _ in 0..150 {
                let op = ops::make(&mut r, &known);
                let (a, b) = (ours.act(&op), theirs.act(&op));
                assert_eq!(a, b, "{what}: {op:?}");
            }
        }
        ours.release();
        theirs.release();
        if round % 2 == 0 {
            sync(&ours, &point);
            mounted.kill();
            compare(&ours, &theirs, &what);
        } else {
            mounted.kill();
            sound(&ours, &point, &what);
            let copied = Command::new("sh")
                .arg("-ec")
                .arg("rm -rf \"$2\"; cp -a \"$1\" \"$2\"")
                .args(["copy".as_ref(), point.as_os_str(), twin.as_os_str()])
                .status()
                .unwrap();
            assert!(copied.success());
            compare(&ours, &Actor::new(&twin), &what);
        }
    }
    mounted.unmount();
}

#[test]
fn what_was_fsynced_survives_a_killed_server_and_the_rest_is_sound() {
    let Some(dir) = std::env::var_os(INNER) else {
        return enter(
            "cow::what_was_fsynced_survives_a_killed_server_and_the_rest_is_sound",
            &[],
        );
    };
    let seed = number("RLESS_COW_SEED", 5);
    kills(Path::new(&dir), seed, number("RLESS_COW_OPS", 20));
}

fn inner(image: bool) -> bool {
    let Some(dir) = std::env::var_os(INNER) else {
        return false;
    };
    let seed = number("RLESS_COW_SEED", 1);
    let count = number("RLESS_COW_OPS", 10_000);
    differential(Path::new(&dir), seed, count, image);
    true
}

#[test]
fn random_operations_over_an_image_answer_as_the_kernels_file_system() {
    if !inner(true) {
        enter(
            "cow::random_operations_over_an_image_answer_as_the_kernels_file_system",
            &[],
        );
    }
}

#[test]
fn random_operations_over_a_host_directory_answer_as_the_kernels_file_system() {
    if !inner(false) {
        enter(
            "cow::random_operations_over_a_host_directory_answer_as_the_kernels_file_system",
            &[
                ("RLESS_COW_SEED", "2".into()),
                ("RLESS_COW_OPS", "5000".into()),
            ],
        );
    }
}
