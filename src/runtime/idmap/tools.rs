//! Finding the programs that may write maps, and knowing beforehand whether they can.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::prctl;
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::sys::{caps, file};

/// Where our helper may be besides the directory of our own binary and `PATH`.
const LIBEXEC: &str = "/usr/libexec/rless";

/// The usable `rless-idmap`, else why there is none.
pub(super) fn helper() -> Result<PathBuf, String> {
    let name = "rless-idmap";
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(name)));
    // A test's binary is one directory below the others.
    let above = beside
        .as_deref()
        .and_then(|p| Some(p.parent()?.parent()?.join(name)));
    let mut reason = format!("{name} is not installed");
    for candidate in beside
        .into_iter()
        .chain(above)
        .chain([Path::new(LIBEXEC).join(name)])
        .chain(in_path(name))
    {
        match usable(&candidate) {
            None => {}
            Some(Ok(())) => return Ok(candidate),
            Some(Err(why)) => reason = format!("{} {why}", candidate.display()),
        }
    }
    Err(reason)
}

/// The usable pair newuidmap, newgidmap, else why there is none.
pub(super) fn newuidmap() -> Result<(PathBuf, PathBuf), String> {
    let find = |name: &str| {
        let mut reason = format!("{name} is not installed (package uidmap or shadow-utils)");
        for candidate in in_path(name).chain([Path::new("/usr/bin").join(name)]) {
            match usable(&candidate) {
                None => {}
                Some(Ok(())) => return Ok(candidate),
                Some(Err(why)) => reason = format!("{} {why}", candidate.display()),
            }
        }
        Err(reason)
    };
    Ok((find("newuidmap")?, find("newgidmap")?))
}

/// `name` in each directory of PATH that is absolute.
fn in_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .collect::<Vec<_>>()
        .into_iter()
}

/// `None`: not there. `Err`: there, but it would run without privilege.
fn usable(path: &Path) -> Option<Result<(), String>> {
    let meta = std::fs::metadata(path).ok()?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return None;
    }
    let setuid_root = meta.permissions().mode() & 0o4000 != 0 && meta.uid() == 0;
    if !setuid_root && !file::has_capabilities(path) {
        return Some(Err(
            "has no file capabilities (setcap cap_setuid,cap_setgid=ep)".into(),
        ));
    }
    if prctl::get_no_new_privs() == Ok(true) {
        return Some(Err("gets no privilege here: no_new_privs is set".into()));
    }
    if caps::bounding(caps::SETUID) != Some(true) || caps::bounding(caps::SETGID) != Some(true) {
        return Some(Err(
            "gets no privilege here: cap_setuid or cap_setgid is not in the bounding set".into(),
        ));
    }
    if statvfs(path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOSUID)) {
        return Some(Err("lies on a nosuid mount".into()));
    }
    Some(Ok(()))
}
