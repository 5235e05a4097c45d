//! Where the store lies and how it is laid out.
//!
//! Data, in `$XDG_DATA_HOME/rless` (`RLESS_STORE` overrides it), all of it owned by the user:
//!
//! ```text
//! version                          "1"; written last, so that its presence means the rest exists
//! blobs/sha256/<hex>               manifests and configs, under their digest
//! packs/<hex>.pack, <hex>.toc      file contents of layers
//! index/layers/<diff id hex>.idx   one per layer
//! index/images/<image id>.idx      one per image: its layers merged
//! images/<image id>.json           one record per image
//! tags/<escaped reference>.json    one per name: which image it is
//! containers/<id>/, containers/names/<name>
//! volumes/<name>/_data
//! events.jsonl, events.jsonl.1     what happened (`container/events.rs`)
//! locks/<object>.lock              one per object; removed with it
//! tmp/<random>/                    work of one process, which holds a lock on `tmp/<random>/lock`
//! ```
//!
//! Live state (sockets, start times) lies in `$XDG_RUNTIME_DIR/rless`. Where that variable is unset or names another
//! user's directory (su, cron, Slurm) it is `/run/user/UID`, else `/tmp/rless-UID`, owner and mode checked.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::unistd::getuid;

use super::files;
use crate::error::{Result, ResultExt, failed};

/// Version of the layout; a store of another version is refused.
const VERSION: &str = "1";

const SUBDIRECTORIES: [&str; 13] = [
    "blobs",
    "blobs/sha256",
    "packs",
    "index",
    "index/layers",
    "index/images",
    "images",
    "tags",
    "containers",
    "containers/names",
    "volumes",
    "locks",
    "tmp",
];

/// Finds the data directory and makes what is missing of it.
pub(super) fn open_data() -> Result<PathBuf> {
    let data = data_path()?;
    prepare(&data).fault(|| {
        failed(format!("opening the store {}", data.display())).hint(
            "The store must be in a directory of yours that can be written; RLESS_STORE names another one.",
        )
    })?;
    Ok(data)
}

fn data_path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RLESS_STORE").filter(|v| !v.is_empty()) {
        return std::path::absolute(&path)
            .with_context(|| format!("RLESS_STORE is {}", Path::new(&path).display()));
    }
    let base = directories::BaseDirs::new().ok_or_else(|| {
        failed("no home directory is known for this user")
            .hint("Set HOME, or RLESS_STORE to a directory for rless.")
    })?;
    Ok(base.data_dir().join("rless"))
}

/// Makes the layout below `data`; one small read when it is there already.
pub(super) fn prepare(data: &Path) -> Result<()> {
    let version = data.join("version");
    match files::read_limited(&version, 64)? {
        Some(text) if text.trim_ascii() == VERSION.as_bytes() => return Ok(()),
        Some(text) => {
            return Err(failed(format!(
                "its layout has version {:?}, this rless knows {VERSION:?}",
                String::from_utf8_lossy(text.trim_ascii())
            ))
            .hint("Use the rless that made it, or another directory through RLESS_STORE.")
            .into());
        }
        None => {}
    }
    files::create_dir_all_private(data)?;
    for sub in SUBDIRECTORIES {
        files::create_dir_private(&data.join(sub))?;
    }
    files::atomic_write(&version, format!("{VERSION}\n").as_bytes())
}

/// Finds (or makes) the directory for live state.
pub(super) fn open_runtime() -> Result<PathBuf> {
    let uid = getuid().as_raw();
    let session = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .into_iter()
        .chain([PathBuf::from(format!("/run/user/{uid}"))])
        .find(|p| fs::metadata(p).is_ok_and(|m| m.is_dir() && m.uid() == uid));
    let path = match session {
        Some(base) => base.join("rless"),
        None => PathBuf::from(format!("/tmp/rless-{uid}")),
    };
    files::create_dir_private(&path)?;
    check_private(&path, uid)?;
    Ok(path)
}

/// Refuses a directory that another user made, could write or look into.
fn check_private(path: &Path, uid: u32) -> Result<()> {
    let meta =
        fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
        return Err(failed(format!(
            "{} is not a directory of mode 0700 owned by uid {uid}",
            path.display()
        ))
        .hint("Remove it (or have its owner do so), or set XDG_RUNTIME_DIR to a private directory.")
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn layout_is_private_and_second_opening_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        prepare(&data).unwrap();
        for sub in SUBDIRECTORIES {
            assert_eq!(
                fs::metadata(data.join(sub)).unwrap().mode() & 0o7777,
                0o700,
                "{sub}"
            );
        }
        fs::remove_dir(data.join("locks")).unwrap();
        prepare(&data).unwrap();
        assert!(!data.join("locks").exists());
    }

    #[test]
    fn another_version_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("version"), "99\n").unwrap();
        let e = prepare(dir.path()).unwrap_err();
        assert!(crate::error::report(&e).contains("RLESS_STORE"));
    }

    #[test]
    fn runtime_directory_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rless-0");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check_private(&path, getuid().as_raw()).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        check_private(&path, getuid().as_raw()).unwrap();
        assert!(check_private(&path, getuid().as_raw() + 1).is_err());
    }
}
