//! The lower tree, and its twin on the host's file system.

use super::actor::user;
use super::fleet::ACTORS;
use super::ops::Rng;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The lower tree's files, made below `dir`: each actor's own in each shared directory.
fn populate(dir: &Path) {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let mut r = Rng::new(99);
    for shared in super::ops::SHARED {
        let shared = dir.join(shared);
        std::fs::create_dir_all(&shared).unwrap();
        for i in 0..ACTORS {
            let (low1, low2) = (format!("low1{i}"), format!("low2{i}"));
            let dirs = [
                low1.clone(),
                format!("{low1}/dir{i}"),
                format!("{low1}/{low2}"),
            ];
            for dir in dirs.iter().map(|d| shared.join(d)) {
                std::fs::create_dir(&dir).unwrap();
            }
            for dir in ["", &dirs[0], &dirs[1], &dirs[2]].map(|d| shared.join(d)) {
                let files = [("low2", 20_000), ("b", 5), ("c", 4096), ("e\u{e9}", 9000)];
                for (name, len) in files {
                    let path = dir.join(format!("{name}{i}"));
                    if !path.exists() {
                        let bytes: Vec<u8> = (0..len).map(|_| r.below(256) as u8).collect();
                        std::fs::write(path, bytes).unwrap();
                    }
                }
            }
            std::fs::hard_link(
                shared.join(format!("b{i}")),
                shared.join(format!("{low1}/a{i}")),
            )
            .unwrap();
            symlink(format!("{low1}/c{i}"), shared.join(format!("a{i}"))).unwrap();
        }
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).unwrap();
    }
    // In a directory with this bit new files get its group.
    let low = dir.join("shared/low");
    chown(&low, None, Some(1)).unwrap();
    std::fs::set_permissions(&low, PermissionsExt::from_mode(0o2777)).unwrap();
    for path in super::tree::paths(dir, None) {
        let actor = path.chars().last().and_then(|c| c.to_digit(10));
        let path = dir.join(&path);
        if let Some(actor) = actor {
            let owner = Some(user(actor as usize));
            std::os::unix::fs::lchown(&path, owner, owner).unwrap();
        }
        let then = nix::sys::time::TimeSpec::new(1_000_000_000, 123_456_789);
        let flags = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &path, &then, &then, flags).unwrap();
    }
}

/// Builds the lower (as an image if `image`), where it is not there yet, and its twin.
pub(crate) fn prepare(dir: &Path, image: bool) -> PathBuf {
    let twin = dir.join("twin");
    populate(&twin);
    let lower = dir.join("lower");
    if lower.exists() {
        return twin;
    }
    std::fs::create_dir_all(&lower).unwrap();
    if image {
        image_of(&twin, &lower);
    } else {
        populate(&lower);
    }
    twin
}

/// Ingests the directory as a one-layer image.
pub(crate) fn image_of(tree: &Path, out: &Path) {
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
    image_of_tar(&tar, out);
}

/// Ingests the archive as a one-layer image.
pub(crate) fn image_of_tar(tar: &Path, out: &Path) {
    use rless::store::layers::{LayerDirs, build_image_index, ingest};
    use sha2::Digest;
    let dirs = LayerDirs {
        packs: out.join("packs"),
        layer_indexes: out.join("layers"),
        tmp: out.join("tmp"),
    };
    for d in [&dirs.packs, &dirs.layer_indexes, &dirs.tmp] {
        std::fs::create_dir_all(d).unwrap();
    }
    let bytes = std::fs::read(tar).unwrap();
    let digest: String = sha2::Sha256::digest(&bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let id = format!("sha256:{digest}");
    ingest(&dirs, &id, &mut bytes.as_slice()).unwrap();
    build_image_index(&dirs, &[id], &out.join("image.idx")).unwrap();
}
