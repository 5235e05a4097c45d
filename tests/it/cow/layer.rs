//! Layers: what was changed, written as a layer's tar, unpacked over the image and mounted again, is the same tree.

use super::fleet::Fleet;
use super::mounted::Mounted;
use super::tree::{self, Scope};
use super::{enter, inner_dir, number, populate};
use nix::sys::stat::{Mode, SFlag, mknod};
use rless::cow::{Cow, Lower, Options};
use rless::store::archive::{self, What};
use rless::store::layers::{LayerDirs, build_image_index, ingest};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;

/// Everything in the tree but what a layer does not say: access times, and whether a file is the same as before.
fn view(root: &Path) -> Vec<String> {
    let cut = |line: String| match line.find(" atime ") {
        Some(at) => {
            let rest = line[at + 7..].split_once(' ').map_or("", |(_, rest)| rest);
            format!("{} {rest}", &line[..at])
        }
        None => line,
    };
    let socket = |line: &String| {
        let mode = line.rsplit(": ").next().and_then(|l| l.split(' ').next());
        mode.is_some_and(|m| m.len() == 6 && m.starts_with("14"))
    };
    let all = tree::view(root, Scope::All).into_iter();
    all.filter(|l| !socket(l)).map(cut).collect()
}

fn dirs(lower: &Path) -> LayerDirs {
    LayerDirs {
        packs: lower.join("packs"),
        layer_indexes: lower.join("layers"),
        tmp: lower.join("tmp"),
    }
}

/// Makes of lower and upper in `dir` an image of one layer more (or of one layer alone) in `to/lower`.
fn commit(dir: &Path, to: &Path, squash: bool) {
    let lower = dir.join("lower");
    let cow = Cow::open(Options {
        lower: Lower::Image {
            index: lower.join("image.idx"),
            packs: lower.join("packs"),
        },
        upper: Some(dir.join("upper")),
        squash: None,
        size_limit: None,
        stats: None,
    })
    .unwrap();
    let changes = match squash {
        true => cow.everything().unwrap(),
        false => cow.diff().unwrap(),
    };
    let mut tar = Vec::new();
    assert!(
        archive::write(&cow, &changes, What::Layer, &mut tar)
            .unwrap()
            .is_empty()
    );
    drop(cow);
    assert!(tar.len() < 200 << 20, "holes are no bytes of it");
    let digest: String = {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(&tar);
        digest.iter().map(|b| format!("{b:02x}")).collect()
    };
    let id = format!("sha256:{digest}");
    ingest(&dirs(&lower), &id, &mut tar.as_slice()).unwrap();
    let there = to.join("lower");
    fs::create_dir_all(&there).unwrap();
    // For who looks into a failure.
    fs::write(to.join("layer.tar"), &tar).unwrap();
    symlink(lower.join("packs"), there.join("packs")).unwrap();
    let mut ids = fs::read_to_string(lower.join("ids")).unwrap_or_default();
    if squash {
        ids.clear();
    }
    ids.push_str(&id);
    ids.push('\n');
    let all: Vec<String> = ids.lines().map(str::to_owned).collect();
    build_image_index(&dirs(&lower), &all, &there.join("image.idx")).unwrap();
}

/// Notes which layers the image in `lower` has: the one it was made of.
fn note(lower: &Path) {
    let first = fs::read_dir(lower.join("layers")).unwrap().next();
    let name = first.unwrap().unwrap().path();
    let id = name.file_stem().unwrap().to_str().unwrap().to_owned();
    fs::write(lower.join("ids"), format!("sha256:{id}\n")).unwrap();
}

/// Compares the tree mounted from `dir` with `expect`.
fn same(dir: &Path, expect: &[String], what: &str) {
    let mut mounted = Mounted::start(dir);
    let got = view(&mounted.point());
    for (a, b) in got.iter().zip(expect) {
        assert_eq!(a, b, "{what}");
    }
    assert_eq!(got.len(), expect.len(), "{what}");
    tree::sound(&mounted.point(), what);
    mounted.unmount();
}

fn random(dir: &Path, seed: u64, ops: u64) {
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    nix::unistd::setgroups(&[]).unwrap();
    let here = Path::new("/mnt");
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::MS_BIND);
    nix::mount::mount(Some(dir), here, none, flags, none).unwrap();
    let work = here.join(format!("seed{seed}"));
    fs::create_dir(&work).unwrap();
    let mut fleet = Fleet::new(&work, seed, true);
    note(&work.join("lower"));
    for n in 0..3 {
        fleet.round(ops).unwrap();
        fleet.release();
        let expect = view(&fleet.mounted.point());
        fleet.mounted.unmount();
        for squash in [false, true] {
            let to = work.join(format!("again{n}{squash}"));
            commit(&work, &to, squash);
            same(
                &to,
                &expect,
                &format!("seed {seed}, round {n}, squash {squash}"),
            );
        }
        fleet.mounted.mount();
    }
    drop(fleet);
    nix::mount::umount(here).unwrap();
}

#[test]
fn a_layer_of_random_operations_makes_the_same_tree() {
    match inner_dir() {
        Some(dir) => {
            for seed in 31..=33 {
                random(&dir, seed, number("RLESS_COW_OPS", 1500));
            }
        }
        None => enter(
            "cow::layer::a_layer_of_random_operations_makes_the_same_tree",
            &[],
        ),
    }
}

fn set_times(path: &Path, sec: i64, nsec: i64) {
    let time = nix::sys::time::TimeSpec::new(sec, nsec);
    let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, flags).unwrap();
}

/// Something of everything, over an image with something of most.
fn everything(root: &Path) {
    let at = |name: &str| root.join(name);
    let attribute = |path: &Path, name: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(path, name, value, flags).unwrap();
    };
    // What replaces and moves what the image has.
    fs::rename(at("shared/low/low10"), at("moved")).unwrap();
    fs::remove_dir_all(at("shared/low/low11")).unwrap();
    fs::create_dir(at("shared/low/low11")).unwrap();
    fs::write(at("shared/low/low11/new"), "new").unwrap();
    fs::remove_file(at("shared/low/b2")).unwrap();
    fs::create_dir(at("shared/low/b2")).unwrap();
    fs::write(at("shared/low/b2/in"), "in").unwrap();
    fs::remove_dir_all(at("shared/low/low13")).unwrap();
    fs::write(at("shared/low/low13"), "a file now").unwrap();
    fs::hard_link(at("shared/low/c2"), at("another name")).unwrap();
    nix::fcntl::renameat2(
        nix::fcntl::AT_FDCWD,
        &at("shared/low/low12/dir2"),
        nix::fcntl::AT_FDCWD,
        &at("shared/low/low12/low22"),
        nix::fcntl::RenameFlags::RENAME_EXCHANGE,
    )
    .unwrap();
    fs::set_permissions(at("shared"), PermissionsExt::from_mode(0o1771)).unwrap();
    // New things.
    let deep = (0..40).fold(at("deep"), |dir, n| dir.join(format!("{n:0>90}")));
    fs::create_dir_all(&deep).unwrap();
    let strange = OsStr::from_bytes(b"\xff\xfe\n \\ \x01=");
    fs::write(root.join(strange), "strange").unwrap();
    fs::write(root.join("n".repeat(255)), "long").unwrap();
    symlink(OsStr::from_bytes(&[b't'; 4000]), at("long target")).unwrap();
    symlink(OsStr::from_bytes(b"\xfd/../x"), at("link")).unwrap();
    lchown(at("link"), Some(3), Some(4)).unwrap();
    set_times(&at("link"), 7, 77);
    mknod(
        &at("fifo"),
        SFlag::S_IFIFO,
        Mode::from_bits_truncate(0o620),
        0,
    )
    .unwrap();
    mknod(
        &at("null"),
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o600),
        0,
    )
    .unwrap();
    for (n, (sec, nsec)) in [(-1, 5), (-1_000_000, 0), (5_000_000_000, 999_999_999)]
        .iter()
        .enumerate()
    {
        fs::write(at(&format!("time{n}")), "t").unwrap();
        set_times(&at(&format!("time{n}")), *sec, *nsec);
    }
    let file = fs::File::create(at("sparse")).unwrap();
    file.set_len(1 << 29).unwrap();
    for n in 1..40_u64 {
        file.write_all_at(&[n as u8; 5000], (n * n) << 18).unwrap();
    }
    fs::File::create(at("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    fs::write(at("program"), [7; 100_000]).unwrap();
    lchown(at("program"), Some(60_000), Some(65_534)).unwrap();
    fs::set_permissions(at("program"), PermissionsExt::from_mode(0o6755)).unwrap();
    // cap_net_raw=ep, in the form with a root user.
    let mut capability = vec![1, 0, 0, 2, 0, 0x20, 0, 0];
    capability.resize(20, 0);
    attribute(&at("program"), "security.capability", &capability);
    attribute(&at("program"), "user.empty", b"");
    attribute(&at("program"), "user.large", &[0xff; 4000]);
    attribute(&at("shared"), "user.on.a.directory", b"a=b\n");
    fs::hard_link(at("program"), at("deep/program")).unwrap();
    fs::hard_link(at("fifo"), at("deep/fifo")).unwrap();
    set_times(&at("deep"), 1_000_000, 3);
}

#[test]
fn a_layer_of_everything_makes_the_same_tree() {
    let Some(dir) = inner_dir() else {
        return enter("cow::layer::a_layer_of_everything_makes_the_same_tree", &[]);
    };
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let work = dir.join("work");
    populate::prepare(&work, true);
    note(&work.join("lower"));
    let mut mounted = Mounted::start(&work);
    everything(&mounted.point());
    let expect = view(&mounted.point());
    mounted.unmount();
    for squash in [false, true] {
        let to = dir.join(format!("again{squash}"));
        commit(&work, &to, squash);
        same(&to, &expect, &format!("squash {squash}"));
    }
}
