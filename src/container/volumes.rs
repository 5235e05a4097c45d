//! Volumes: plain directories `volumes/NAME/_data`, and `volumes/NAME/volume.json` about them.
//!
//! ```text
//! volumes/NAME/_data         content
//! volumes/NAME/volume.json   what is known of it; never changed
//! volumes/NAME/state         what its first container has put into it (`runtime/rootfs/fill.rs`)
//! volumes/NAME/owner         symbolic link to the ID of the container it goes with: anonymous ones only
//! volumes/.new/, .gone/      volumes in the making, and removed ones (`swept.rs`)
//! ```
//!
//! A volume is there whole or not at all: it is made below `.new` and renamed to its name, and deleting
//! begins with a rename to `.gone`. A volume without `owner` is deleted by name only. Keeping a
//! volume is unlinking `owner`, which needs no space on a full disk and is flushed before its container goes.
//!
//! **Lock.** `volume.json` is locked: shared by `run` from before it looks for the volume until the container's record
//! names it ([`hold`]), exclusively by who deletes it ([`claim`]) while it asks which records name it and until the
//! rename. So a volume that is to be deleted has no user, and a volume that has been found stays.
//!
//! A container's users leave subordinate host ids as owners in them (the one place of the store
//! where foreign owners appear), so a volume is deleted from inside a user namespace that maps those ids: by
//! this program started again under the name [`ROLE`], since a process with threads cannot enter one.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::events::{self, Action, Event};
use super::names;
use super::record::unless_gone;
use super::swept::{self, Making};
use crate::error::{Fault, Kind, Result, failed, usage};
use crate::runtime::idmap::{self, Userns};
use crate::runtime::rootfs::fill;
use crate::store::files::{self, Lock};

/// Name under which this program deletes a directory inside a user namespace.
pub const ROLE: &str = "rless-delete-tree";

const OWNER: &str = "owner";
const ABOUT: &str = "volume.json";
/// Name of its state file.
pub(super) const STATE: &str = "state";

/// How long [`claim`] waits for those who hold the volume: they only have to write a record.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// It was made for one container and goes with it.
    #[serde(default)]
    pub anonymous: bool,
    /// The container it was made for.
    #[serde(default)]
    pub container: Option<String>,
    /// `--label`.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Where a volume's content is.
#[must_use]
pub fn data(root: &Path, name: &str) -> PathBuf {
    root.join(name).join("_data")
}

/// The volume `name`, made if there is none; true when it was made.
///
/// # Errors
/// A malformed name, a store that cannot be written.
pub fn ensure(root: &Path, volume: &Volume) -> Result<bool> {
    names::check(&volume.name)?;
    let place = root.join(&volume.name);
    let doing = || format!("making the volume {}", volume.name);
    if place.exists() {
        return Ok(false);
    }
    let unique = format!(
        "{}-{:016x}",
        volume.name,
        getrandom::u64().unwrap_or_default()
    );
    let making = Making::begin(root, &unique).with_context(doing)?;
    let dir = &making.path;
    files::create_dir_private(dir).with_context(doing)?;
    let data = dir.join("_data");
    // Readable for the container's other users once it is bound into a container; the
    // directories above keep everyone else out.
    fs::create_dir(&data).with_context(doing)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&data, mode).with_context(doing)?;
    super::draft::quick_json(&dir.join(ABOUT), volume)?;
    open_state(dir, true).with_context(doing)?;
    if let Some(container) = &volume.container {
        symlink(container, dir.join(OWNER)).with_context(doing)?;
    }
    match making.appear(&place) {
        // Somebody was faster.
        Err(_) if place.exists() => Ok(false),
        result => {
            result.with_context(doing)?;
            tell(root, &volume.name, Action::Create);
            Ok(true)
        }
    }
}

fn open_state(dir: &Path, make: bool) -> io::Result<fs::File> {
    let mut options = fs::File::options();
    options.read(true).write(true).create(make).mode(0o600);
    options.open(dir.join(STATE))
}

/// Sees to it that the volume whose content `data` is has a state. One of before there were any is left alone once somebody
/// has put something into it, or taken it out again: its `volume.json` is as old as itself.
///
/// # Errors
/// It cannot be written.
pub(super) fn adopt(data: &Path) -> Result<()> {
    let dir = data.parent().unwrap_or(data);
    if dir.join(STATE).exists() || !data.exists() {
        return Ok(());
    }
    let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    let adopt = || {
        if changed(data)? <= changed(&dir.join(ABOUT))? {
            return open_state(dir, true).map(drop);
        }
        // Not empty for a moment: that would be a new one.
        let unnamed = files::unfinished_in(dir)?;
        fill::set_filled(unnamed.as_file())?;
        match unnamed.persist_noclobber(dir.join(STATE)) {
            Err(e) if e.error.kind() != io::ErrorKind::AlreadyExists => Err(e.error),
            _ => Ok(()),
        }
    };
    adopt().with_context(|| format!("noting the state of the volume in {}", dir.display()))
}

/// Emits an event of a volume.
fn tell(root: &Path, name: &str, action: Action) {
    if let Some(data) = root.parent() {
        events::emit(data, &[Event::volume(name, action)]);
    }
}

/// The volume, made if there is none; nobody deletes it until the lock is dropped.
///
/// # Errors
/// As [`ensure`].
pub fn hold(root: &Path, volume: &Volume) -> Result<Lock> {
    for _ in 0..100 {
        ensure(root, volume)?;
        // Deleted meanwhile: made again.
        if let Some(lock) = unless_gone(Lock::shared(&about(root, &volume.name)).map(Some))? {
            return Ok(lock);
        }
    }
    Err(failed(format!(
        "the volume {} is deleted again and again",
        volume.name
    ))
    .into())
}

/// The right to delete the volume `name`, unless it is used: until it is dropped nobody begins to use it.
/// `None` when there is no such volume.
///
/// # Errors
/// Kind `Conflict`: a container that is being made uses it.
pub fn claim(root: &Path, name: &str) -> Result<Option<Lock>> {
    let path = about(root, name);
    let began = Instant::now();
    loop {
        if !root.join(name).is_dir() {
            return Ok(None);
        }
        if let Some(lock) = unless_gone(Lock::try_exclusive(&path))? {
            return Ok(Some(lock));
        }
        if began.elapsed() > PATIENCE {
            let text = format!(
                "volume {name} is being used by a container that is being made: volume is being used"
            );
            return Err(Fault::new(Kind::Conflict, text).into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn about(root: &Path, name: &str) -> PathBuf {
    root.join(name).join(ABOUT)
}

/// The container that the volume goes with.
pub(super) fn owner(root: &Path, name: &str) -> Option<String> {
    let id = fs::read_link(root.join(name).join(OWNER)).ok()?;
    Some(id.to_string_lossy().into_owned())
}

/// Makes the volume go with the container `id`, or with none. No such volume is no error.
pub(super) fn set_owner(root: &Path, name: &str, id: Option<&String>) -> Result<()> {
    if owner(root, name).as_ref() == id || !root.join(name).is_dir() {
        return Ok(());
    }
    let path = root.join(name).join(OWNER);
    let doing = || format!("changing the owner of the volume {name}");
    files::remove_file(&path)?;
    if let Some(id) = id {
        symlink(id, &path).with_context(doing)?;
    }
    files::sync_dir(&root.join(name)).with_context(doing)
}

/// A volume without a name of its own, for `container`; to be made.
///
/// # Errors
/// No random numbers.
pub fn anonymous(container: Option<&str>) -> Result<Volume> {
    Ok(Volume {
        name: super::record::random_id()?,
        created: Timestamp::now().to_string(),
        anonymous: true,
        container: container.map(str::to_owned),
        labels: std::collections::BTreeMap::new(),
    })
}

/// The volume `name`.
///
/// # Errors
/// Kind `NoSuchObject`; a damaged record.
pub fn find(root: &Path, name: &str) -> Result<Volume> {
    let none = || {
        Fault::new(
            Kind::NoSuchObject,
            format!("no volume with name {name:?} found: no such volume"),
        )
    };
    names::check(name).map_err(|_| none())?;
    let dir = root.join(name);
    if !dir.is_dir() {
        return Err(none().into());
    }
    // It is not flushed when it is made: after a power cut an empty one is one that says nothing.
    let path = dir.join(ABOUT);
    let torn = fs::metadata(&path).is_ok_and(|m| m.len() == 0);
    let found = if torn { None } else { files::read_json(&path)? };
    Ok(found.unwrap_or_else(|| Volume {
        name: name.to_owned(),
        created: String::new(),
        anonymous: false,
        container: None,
        labels: std::collections::BTreeMap::new(),
    }))
}

/// The volume of this name, or the only one whose name begins so.
///
/// # Errors
/// Kind `NoSuchObject`, or more than one begins so.
pub fn lookup(root: &Path, text: &str) -> Result<Volume> {
    let exact = find(root, text);
    if text.is_empty() || root.join(text).is_dir() {
        return exact;
    }
    let mut names = names(root)?;
    names.retain(|name| name.starts_with(text));
    match names.as_slice() {
        [] => exact,
        [one] => find(root, one),
        _ => Err(usage(format!("more than one result for volume name {text:?}")).into()),
    }
}

impl Volume {
    /// When it was made; long ago where that is not known.
    #[must_use]
    pub fn made(&self) -> Timestamp {
        self.created.parse().unwrap_or(Timestamp::MIN)
    }
}

/// Every volume, in the order in which they were made.
///
/// # Errors
/// The directory cannot be read.
pub fn list(root: &Path) -> Result<Vec<Volume>> {
    let names = names(root)?;
    let mut all: Vec<Volume> = names.iter().filter_map(|n| find(root, n).ok()).collect();
    all.sort_by(|a, b| (a.made(), &a.name).cmp(&(b.made(), &b.name)));
    Ok(all)
}

/// The name of every volume.
pub(super) fn names(root: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("reading {}", root.display())),
    };
    let names = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok());
    Ok(names.filter(|n| names::check(n).is_ok()).collect())
}

/// Deletes the claimed volume `name` with all its content.
///
/// # Errors
/// Something in it cannot be removed.
pub fn delete(root: &Path, name: &str, claimed: Lock) -> Result<()> {
    names::check(name)?;
    // Another volume of this name may be removed before this one is deleted.
    let gone = format!("{name}-{:016x}", getrandom::u64().unwrap_or_default());
    if !swept::vanish(root, name, &gone)? {
        return Ok(());
    }
    // Who waits for it finds that it is gone, and need not wait for the deletion.
    drop(claimed);
    let gone = swept::gone(root, &gone);
    tell(root, name, Action::Remove);
    swept::alone(&gone, || delete_tree(&gone))
        .with_context(|| format!("removing the volume {name}"))
}

/// Deletes what killed commands left; nothing to do costs a few system calls.
pub fn sweep(root: &Path) {
    swept::sweep(root, |name| {
        let gone = swept::gone(root, name);
        let _ = swept::alone(&gone, || delete_tree(&gone));
    });
}

fn delete_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => delete_mapped(path),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Deletes `path` from inside a user namespace, where the owners of its files are mapped.
fn delete_mapped(path: &Path) -> Result<()> {
    let mapping = idmap::plan(&Userns::Default, None)?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(ROLE)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a process in a user namespace")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mapped = (|| -> Result<()> {
        let mut ready = [0];
        let stdout = child.stdout.as_mut().context("its standard output")?;
        stdout
            .read_exact(&mut ready)
            .context("entering a user namespace")?;
        idmap::write(pid, &mapping)?;
        let mut stdin = child.stdin.take().context("its standard input")?;
        stdin
            .write_all(b"go")
            .context("going on in the user namespace")
    })();
    drop(child.stdin.take());
    let status = child.wait().context("waiting for the deletion")?;
    mapped?;
    if status.success() {
        return Ok(());
    }
    Err(failed(format!(
        "some files in {} could not be deleted",
        path.display()
    ))
    .into())
}

/// The role [`ROLE`]: enters a user namespace, waits for its maps, deletes `path`.
///
/// # Errors
/// User namespaces are refused, or something cannot be removed.
pub fn delete_role(path: &Path) -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
        .context("making a user namespace")?;
    io::stdout()
        .write_all(b".")
        .and_then(|()| io::stdout().flush())?;
    let mut go = [0; 2];
    io::stdin()
        .read_exact(&mut go)
        .context("waiting for the id maps")?;
    let (uid, gid) = (nix::unistd::Uid::from_raw(0), nix::unistd::Gid::from_raw(0));
    // In a single-id map there may be no other groups to drop.
    let _ = nix::unistd::setgroups(&[]);
    nix::unistd::setresgid(gid, gid, gid).context("becoming root of the user namespace")?;
    nix::unistd::setresuid(uid, uid, uid).context("becoming root of the user namespace")?;
    fs::remove_dir_all(path).with_context(|| format!("deleting {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Volume {
        Volume {
            name: name.to_owned(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            anonymous: false,
            container: None,
            labels: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_volume_is_made_once_listed_and_deleted_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volumes");
        assert!(ensure(&root, &named("v")).unwrap());
        fs::write(data(&root, "v").join("f"), "x").unwrap();
        assert!(!ensure(&root, &named("v")).unwrap());
        assert_eq!(fs::read(data(&root, "v").join("f")).unwrap(), b"x");
        assert_eq!(list(&root).unwrap().len(), 1);
        let claimed = claim(&root, "v").unwrap().unwrap();
        delete(&root, "v", claimed).unwrap();
        assert!(find(&root, "v").is_err());
        assert_eq!(names(&root).unwrap(), [""; 0]);
        assert_eq!(fs::read_dir(root.join(".gone")).unwrap().count(), 0);
        assert!(claim(&root, "v").unwrap().is_none());
        assert!(!root.join("v").exists());
    }

    #[test]
    fn a_volume_that_a_run_has_found_is_not_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let held = hold(dir.path(), &named("v")).unwrap();
        let also = hold(dir.path(), &named("v")).unwrap();
        drop(also);
        let e = claim(dir.path(), "v").unwrap_err();
        assert_eq!(crate::error::kind(&e), Kind::Conflict);
        drop(held);
        assert!(claim(dir.path(), "v").unwrap().is_some());
    }

    #[test]
    fn who_finds_a_volume_while_it_is_deleted_has_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let finder = scope.spawn(|| {
                for _ in 0..200 {
                    let held = hold(dir.path(), &named("v")).unwrap();
                    fs::write(data(dir.path(), "v").join("f"), "x").unwrap();
                    std::thread::yield_now();
                    assert!(data(dir.path(), "v").join("f").exists());
                    drop(held);
                }
            });
            while !finder.is_finished() {
                if let Some(claimed) = claim(dir.path(), "v").unwrap() {
                    delete(dir.path(), "v", claimed).unwrap();
                }
            }
        });
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "a/b", "../x"] {
            assert!(ensure(dir.path(), &named(name)).is_err(), "{name}");
            assert!(find(dir.path(), name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_killed_commands_left_is_swept_and_no_volume() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path(), &named("v")).unwrap();
        fs::create_dir_all(dir.path().join(".gone/old-1/_data/sub")).unwrap();
        fs::create_dir_all(dir.path().join(".new/half-1/_data")).unwrap();
        assert_eq!(list(dir.path()).unwrap().len(), 1);
        sweep(dir.path());
        assert_eq!(fs::read_dir(dir.path().join(".gone")).unwrap().count(), 0);
        assert!(!dir.path().join(".new/half-1").exists());
        assert_eq!(list(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_volume_changes_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let volume = anonymous(Some("c")).unwrap();
        ensure(dir.path(), &volume).unwrap();
        let id = "d".to_owned();
        assert_eq!(owner(dir.path(), &volume.name).as_deref(), Some("c"));
        set_owner(dir.path(), &volume.name, None).unwrap();
        assert_eq!(owner(dir.path(), &volume.name), None);
        set_owner(dir.path(), &volume.name, Some(&id)).unwrap();
        assert_eq!(owner(dir.path(), &volume.name), Some(id));
        set_owner(dir.path(), "none", None).unwrap();
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn many_who_make_one_volume_make_it_once() {
        let dir = tempfile::tempdir().unwrap();
        let made = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| ensure(dir.path(), &named("v")).unwrap()))
                .collect();
            let made = threads.into_iter().map(|t| t.join().unwrap());
            made.filter(|made| *made).count()
        });
        assert_eq!(made, 1);
        assert_eq!(find(dir.path(), "v").unwrap().name, "v");
    }
}
