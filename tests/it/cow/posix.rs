//! What POSIX and Linux promise, promise by promise: `posix.py` checks it on a directory of the
//! host's file system and on our mount of an image with the same tree. Both must hold, print the
//! same and leave the same tree, which a remount then still shows, inode numbers included.

use super::fleet::same;
use super::populate::image_of;
use super::{Mounted, enter, inner_dir, number, tree};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs one function of the script below `tree`; returns what it printed.
fn script(function: &str, tree: &Path, what: &str) -> String {
    let began = std::time::Instant::now();
    let many = if number("RLESS_COW_MANY", 0) > 0 {
        "50000"
    } else {
        "100"
    };
    let output = Command::new("python3")
        .args(["-c", include_str!("posix.py"), function])
        .arg(tree)
        .env("MANY", many)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{function} on {what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("{function} on {what}: {:.1?}", began.elapsed());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Inode numbers of the whole tree.
fn numbers(root: &Path) -> Vec<(String, u64)> {
    use std::os::unix::fs::MetadataExt;
    let paths = tree::paths(root, None);
    paths
        .into_iter()
        .map(|p| {
            let ino = std::fs::symlink_metadata(root.join(&p)).unwrap().ino();
            (p, ino)
        })
        .collect()
}

/// The script's tree in `dir/twin`, returned, and as an image in `dir/lower`.
fn tree(dir: &Path) -> PathBuf {
    // Other users have to reach the files.
    for d in [dir, dir.parent().unwrap()] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(d, mode).unwrap();
    }
    let (twin, lower) = (dir.join("twin"), dir.join("lower"));
    std::fs::create_dir_all(&twin).unwrap();
    std::fs::create_dir_all(&lower).unwrap();
    script("fill", &twin, "the twin");
    image_of(&twin, &lower);
    twin
}

fn promise(check: &str) {
    let Some(dir) = inner_dir() else {
        let many = u32::from(check == "many_entries").to_string();
        return enter(&format!("cow::posix::{check}"), &[("RLESS_COW_MANY", many)]);
    };
    let twin = tree(&dir);
    let mut mounted = Mounted::start(&dir);
    let point = mounted.point();
    let theirs = script(check, &twin, "the host's file system");
    let ours = script(check, &point, "ours");
    assert_eq!(ours, theirs, "{check}: what it saw");
    let what = format!("{check}: what it left");
    same(&point, &twin, &what).unwrap();
    let before = numbers(&point);
    mounted.unmount();
    mounted.mount();
    same(&point, &twin, "after a remount").unwrap();
    assert_eq!(numbers(&point), before, "inode numbers after a remount");
    mounted.unmount();
}

macro_rules! promises {
    ($($check:ident)*) => {$(
        #[test]
        fn $check() {
            promise(stringify!($check));
        }
    )*};
}

promises! {
    inode_numbers link_counts unlinked_but_open held_over_copy_up_and_rename directory_rename rename_flags
    o_tmpfile names_and_paths many_entries sparse_files shared_mappings append_from_many direct_io
    copy_file_range extended_attributes access_lists set_id_bits file_capabilities times permissions inotify
    sockets_and_fifos locks
}

#[test]
fn limits_of_the_manual_are_as_it_says() {
    let Some(dir) = inner_dir() else {
        let stats = "RLESS_FUSE_STATS";
        return enter(
            "cow::posix::limits_of_the_manual_are_as_it_says",
            &[(stats, "requests".into())],
        );
    };
    tree(&dir);
    let upper = dir.join("upper");
    for (name, _) in rless::cow::LIMITS {
        let mut mounted = Mounted::start(&dir);
        script(&format!("limit_{name}"), &mounted.point(), "ours");
        mounted.unmount();
        let requests = std::fs::read_to_string("requests").unwrap();
        if *name == "sync" {
            let syncs: Vec<_> = requests.lines().filter(|l| l.contains("SYNC")).collect();
            assert_eq!(syncs, ["FSYNC 1"], "{requests}");
        }
        std::fs::remove_dir_all(&upper).unwrap();
    }
}

#[test]
fn every_check_of_the_script_is_a_test() {
    let names: Vec<&str> = include_str!("posix.py")
        .split_once("CHECKS = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(list, _)| list.split([',', ' ', '\n']).filter(|w| !w.is_empty()))
        .unwrap()
        .collect();
    let tests = include_str!("posix.rs");
    let list = tests.split_once("\npromises! {").unwrap().1;
    let list = list.split_once('}').unwrap().0;
    for name in &names {
        assert!(
            list.split_whitespace().any(|w| w == *name),
            "{name} is not run"
        );
    }
    assert_eq!(list.split_whitespace().count(), names.len());
}

/// `rless mount-cow DIR -o …`, as mount.fuse(8) calls it.
#[test]
fn mount_cow_takes_the_options_of_mount_and_goes_to_the_background() {
    let Some(dir) = inner_dir() else {
        return enter(
            "cow::posix::mount_cow_takes_the_options_of_mount_and_goes_to_the_background",
            &[],
        );
    };
    let (lower, point) = (dir.join("lower"), dir.join("mnt"));
    for d in [&lower, &point] {
        std::fs::create_dir_all(d).unwrap();
    }
    std::fs::write(lower.join("file"), "of the lower").unwrap();
    let mount = |options: &str| {
        let mut cmd = Command::new(std::env::var_os("RLESS_BIN").unwrap());
        cmd.current_dir(&dir).args(["mount-cow", "mnt", "-o"]);
        cmd.arg(options).output().unwrap()
    };
    let done = |options: &str| {
        let output = mount(options);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{options}: {text}");
    };
    done("rw,dev,suid,lowerdir=lower,upperdir=upper,workdir=work,nodev");
    assert_eq!(std::fs::read(point.join("file")).unwrap(), b"of the lower");
    std::fs::write(point.join("new"), "kept").unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|l| l.starts_with("mount-cow "))
        .unwrap();
    assert!(
        line.contains("fuse.rless") && line.contains("nodev"),
        "{line}"
    );
    done("remount,ro,user_id=0,group_id=0,default_permissions,allow_other");
    let refused = std::fs::write(point.join("new"), "x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    done("remount,rw");
    std::fs::write(point.join("new"), "again").unwrap();
    nix::mount::umount(&point).unwrap();
    let journal = dir.join("upper/journal");
    crate::harness::wait_for(
        "the server's end",
        std::time::Duration::from_secs(20),
        || {
            let file = std::fs::File::open(&journal).unwrap();
            let how = nix::fcntl::FlockArg::LockExclusiveNonblock;
            nix::fcntl::Flock::lock(file, how).is_ok()
        },
    );
    done("ro,lowerdir=lower,upperdir=upper");
    assert_eq!(std::fs::read(point.join("new")).unwrap(), b"again");
    nix::mount::umount(&point).unwrap();
    for (options, why) in [
        ("lowerdir=missing,upperdir=up2", "missing"),
        ("lowerdir=lower:missing", "missing"),
        ("lowerdir=lower,bad", "not known"),
        ("upperdir=up2", "--lower"),
    ] {
        let output = mount(options);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(125) && text.contains(why),
            "{options}: {text}"
        );
    }
}
