//! Removal of names and images, and collection of what nothing refers to.
//!
//! Removing an image begins with its record, after which it does not exist; then its names, index, blobs, layer indexes
//! and packs that no other image needs. Killed in between, what is left is unreferenced and collected by a later command.
//! (Names first would leave an image without one.)
//!
//! Locks: `image-<id>` is held by whoever commits or removes that image (and shared by whoever makes a container of it);
//! `collect` is shared by every pull for as long as it has ingested layers that no record refers to yet, and taken
//! exclusively, without waiting, for a collection: with a pull under way collection is left to that pull's end.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::files::{self, Lock};
use super::images::{Found, Record, short, unknown};
use super::{Removed, Store, tags, work};
use crate::cow::index::layer::Layer;
use crate::cow::index::{self, Index, PackId};
use crate::error::{Fault, Kind, Result};

impl Store {
    pub(crate) fn image_lock(&self, id: &str) -> std::path::PathBuf {
        self.locks_dir().join(format!("image-{id}.lock"))
    }

    pub(crate) fn collect_lock(&self) -> std::path::PathBuf {
        self.locks_dir().join("collect.lock")
    }

    /// Keeps an image from being removed until the lock is dropped: held from finding it until a container's record names it.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn hold_image(&self, id: &str) -> Result<Lock> {
        Lock::shared(&self.image_lock(id))
    }

    pub(super) fn remove(
        &self,
        name: &str,
        force: bool,
        in_use: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<Vec<Removed>> {
        let found = self.look_up(name)?.ok_or_else(|| unknown(name))?;
        let (id, named) = match found {
            Found::Named(tag) => (tag.image.clone(), Some(tag.reference)),
            Found::Id(id) => (id, None),
        };
        let lock = self.lock_to_remove(&id)?;
        let names = self.names_of(&id)?;
        if let Some(reference) = named.filter(|r| names.contains(r))
            && names.len() > 1
        {
            tags::remove(&self.tags_dir(), &reference)?;
            return Ok(vec![Removed::Untagged(reference)]);
        }
        self.check_removable(&id, &names, named_by_id(name, &names), force, in_use)?;
        self.remove_whole(id, names, lock)
    }

    /// Of a whole name, or of `id` itself, while that means the image `id`: looked at under its lock.
    pub(super) fn remove_exact(
        &self,
        exact: &str,
        id: &str,
        in_use: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<Vec<Removed>> {
        let lock = self.lock_to_remove(id)?;
        let names = self.names_of(id)?;
        let by_id = exact == id;
        if !self.has_record(id) || !by_id && !names.iter().any(|n| n == exact) {
            return Ok(Vec::new());
        }
        if !by_id && names.len() > 1 {
            tags::remove(&self.tags_dir(), exact)?;
            return Ok(vec![Removed::Untagged(exact.to_owned())]);
        }
        self.check_removable(id, &names, by_id, false, in_use)?;
        self.remove_whole(id.to_owned(), names, lock)
    }

    /// Fails with what keeps it from [`Store::remove_exact`], if it is still there.
    pub(super) fn is_removed(
        &self,
        exact: &str,
        id: &str,
        in_use: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<()> {
        let names = self.names_of(id)?;
        let by_id = exact == id;
        if !self.has_record(id) || !by_id && !names.iter().any(|n| n == exact) {
            return Ok(());
        }
        if by_id || names.len() == 1 {
            self.check_removable(id, &names, by_id, false, in_use)?;
        }
        let text = if by_id { short(id) } else { exact };
        Err(Fault::new(Kind::Failed, format!("image {text} is still there")).into())
    }

    fn lock_to_remove(&self, id: &str) -> Result<Lock> {
        let lock = Lock::try_exclusive(&self.image_lock(id))?;
        lock.ok_or_else(|| {
            let text = format!("image {} is in use by another rless command", short(id));
            Fault::new(Kind::Conflict, text).into()
        })
    }

    fn remove_whole(&self, id: String, names: Vec<String>, lock: Lock) -> Result<Vec<Removed>> {
        self.remove_record(&id)?;
        let mut removed = Vec::new();
        for reference in names {
            tags::remove(&self.tags_dir(), &reference)?;
            removed.push(Removed::Untagged(reference));
        }
        removed.push(Removed::Deleted(id));
        lock.remove();
        self.collect()?;
        Ok(removed)
    }

    fn check_removable(
        &self,
        id: &str,
        names: &[String],
        by_id: bool,
        force: bool,
        in_use: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<()> {
        let users = in_use(id);
        if !users.is_empty() {
            let list: Vec<&str> = users.iter().map(|c| short(c)).collect();
            return Err(Fault::new(
                Kind::Conflict,
                format!(
                    "image {} is in use by container {}",
                    short(id),
                    list.join(", ")
                ),
            )
            .hint("Remove the container first, or remove both with `rless rmi -f`.")
            .into());
        }
        if by_id && names.len() > 1 && !force {
            return Err(Fault::new(
                Kind::Conflict,
                format!(
                    "image {} has several names: {}",
                    short(id),
                    names.join(", ")
                ),
            )
            .hint("Remove the names one by one, or all with -f.")
            .into());
        }
        Ok(())
    }

    /// Removes the record (after which the image does not exist), then its index.
    fn remove_record(&self, id: &str) -> Result<()> {
        files::remove_file(&self.images_dir().join(format!("{id}.json")))?;
        files::sync_dir(&self.images_dir()).context("flushing images/")?;
        files::remove_file(&self.image_index(id)).map(drop)
    }

    /// Collects if a dead process may have left something. Failing is no error of the command that runs it.
    pub(crate) fn collect_if_due(&self) {
        if work::collection_due(&self.tmp_dir())
            && let Err(e) = self.collect()
        {
            log::warn!("{e:#}");
        }
    }

    /// Removes blobs, indexes and packs that no image refers to; leaves it to a later command while a pull is under way.
    pub(crate) fn collect(&self) -> Result<()> {
        let Some(_lock) = Lock::try_exclusive(&self.collect_lock())? else {
            work::set_mark(&self.tmp_dir());
            return Ok(());
        };
        work::clear_mark(&self.tmp_dir())?;
        self.sweep_all()
            .context("collecting what no image refers to")
            .inspect_err(|_| {
                work::set_mark(&self.tmp_dir());
            })
    }

    fn sweep_all(&self) -> Result<()> {
        let ids = self.ids()?;
        let mut records = Vec::new();
        for id in &ids {
            // With a damaged record it is not known what the image needs, so nothing is removed.
            records.extend(self.record(id)?);
        }
        let needed = Needed::by(&records);
        let data = self.data().to_owned();
        remove_others(&data.join("index/images"), |name| {
            name.strip_suffix(".idx")
                .is_some_and(|id| needed.images.contains(id))
        })?;
        remove_others(&data.join("index/layers"), |name| {
            name.strip_suffix(".idx")
                .is_some_and(|id| needed.layers.contains(id))
        })?;
        for algorithm in ["sha256", "sha512"] {
            remove_others(&data.join("blobs").join(algorithm), |name| {
                needed.blobs.contains(&format!("{algorithm}:{name}"))
            })?;
        }
        self.sweep_packs()?;
        // Records and names are written by pulls, which hold the collection off.
        for tag in tags::list(&self.tags_dir(), &|_| true)? {
            if !ids.contains(&tag.image) {
                tags::remove(&self.tags_dir(), &tag.reference)?;
            }
        }
        for dir in [self.images_dir(), self.tags_dir()] {
            files::sweep_unfinished_now(&dir);
        }
        self.sweep_locks();
        Ok(())
    }

    /// Packs hold contents of several layers: one is needed while any index names it.
    fn sweep_packs(&self) -> Result<()> {
        let dir = self.packs_dir();
        if is_empty(&dir)? {
            return Ok(());
        }
        let mut needed: HashSet<String> = HashSet::new();
        let mut add = |id: &PackId| {
            needed.insert(id.to_string());
        };
        for path in files_of(&self.data().join("index/layers"))? {
            if let Some(layer) = unless_damaged(Layer::open(&path))? {
                layer.packs().iter().for_each(|(id, _)| add(id));
            }
        }
        for path in files_of(&self.data().join("index/images"))? {
            if let Some(index) = unless_damaged(Index::open(&path))? {
                index.packs().iter().for_each(&mut add);
            }
        }
        remove_others(&dir, |name| {
            name.split('.').next().is_some_and(|id| needed.contains(id))
        })
    }

    /// Lock files of objects that are gone, unless somebody holds them.
    fn sweep_locks(&self) {
        for path in files_of(&self.locks_dir()).unwrap_or_default() {
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            let ours = name.starts_with("layer-") || name.starts_with("image-");
            if ours && let Ok(Some(lock)) = Lock::try_exclusive(&path) {
                lock.remove();
            }
        }
    }
}

/// Whether the user named the image by (a prefix of) its id.
fn named_by_id(name: &str, names: &[String]) -> bool {
    !names.iter().any(|n| {
        n == name || n.ends_with(&format!("/{name}:latest")) || n.ends_with(&format!("/{name}"))
    })
}

struct Needed {
    images: HashSet<String>,
    layers: HashSet<String>,
    blobs: HashSet<String>,
}

impl Needed {
    fn by(records: &[Record]) -> Needed {
        let hex = |d: &String| d.split(':').next_back().unwrap_or(d).to_owned();
        Needed {
            images: records.iter().map(|r| r.id.clone()).collect(),
            layers: records
                .iter()
                .flat_map(|r| r.layers.iter().map(hex))
                .collect(),
            blobs: records
                .iter()
                .flat_map(|r| {
                    r.manifests
                        .iter()
                        .chain(&r.blobs)
                        .cloned()
                        .chain([format!("sha256:{}", r.id)])
                })
                .collect(),
        }
    }
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(files_of(dir)?.is_empty())
}

fn files_of(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|e| e.path()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("reading {}", dir.display())),
    }
}

/// Removes the files of `dir` that are not needed, unfinished ones included: nobody begins one, the collection having the lock.
fn remove_others(dir: &Path, needed: impl Fn(&str) -> bool) -> Result<()> {
    for path in files_of(dir)? {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if name.starts_with('.') || needed(name) {
            continue;
        }
        files::remove_file(&path)?;
    }
    files::sweep_unfinished_now(dir);
    Ok(())
}

/// A damaged index protects no pack: it is fetched anew, packs included. One that cannot be read just now (no descriptors,
/// no memory, a failing disk), or that a later rless wrote, must not cost the packs it names.
fn unless_damaged<T>(opened: Result<T>) -> Result<Option<T>> {
    opened.map(Some).or_else(|e| {
        let gone = e
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        match e.downcast_ref::<index::Error>() {
            Some(index::Error::Magic(_) | index::Error::Corrupt(_)) => Ok(None),
            _ if gone => Ok(None),
            _ => Err(e),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::digest::Digest;

    const HUB: &str = "docker.io/library/alpine:latest";
    const LOCAL: &str = "localhost/alpine:latest";

    fn image(store: &Store, id: &str) {
        let digest = Digest::sha256(id.as_bytes()).to_string();
        let record = Record {
            id: id.to_owned(),
            manifests: vec![digest.clone()],
            digest,
            layers: Vec::new(),
            size: 0,
            blobs: Vec::new(),
        };
        let text = serde_json::to_vec(&record).unwrap();
        fs::write(store.images_dir().join(format!("{id}.json")), text).unwrap();
    }

    fn tag(store: &Store, reference: &str, id: &str) {
        let tag = tags::Tag {
            reference: reference.to_owned(),
            image: id.to_owned(),
            digest: Digest::sha256(id.as_bytes()).to_string(),
            list_digest: None,
        };
        tags::set(&store.tags_dir(), &tag).unwrap();
    }

    #[test]
    fn only_what_was_asked_for_is_removed_while_it_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("d"), &dir.path().join("r")).unwrap();
        let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        [&a, &b, &c].iter().for_each(|id| image(&store, id));
        tag(&store, HUB, &a);
        tag(&store, LOCAL, &b);
        let unused = |_: &str| Vec::new();
        let untagged = |name: &str| Removed::Untagged(name.to_owned());
        let remove = |exact: &str, id: &str| store.remove_known(exact, id, &unused);

        // Pulled, though the short name leads to another.
        assert_eq!(store.exact_name("alpine", &a).unwrap(), HUB);
        assert_eq!(store.exact_name("alpine", &b).unwrap(), LOCAL);
        let gone = vec![untagged(HUB), Removed::Deleted(a.clone())];
        assert!(store.removed(HUB, &a, &unused).is_err());
        assert_eq!(remove(HUB, &a).unwrap(), gone);
        store.removed(HUB, &a, &unused).unwrap();
        assert!(store.has_record(&b));

        // By its id, with two names.
        let (other, another) = ("localhost/other:latest", "localhost/another:latest");
        tag(&store, another, &b);
        tag(&store, other, &b);
        for typed in [&b, &b[..12]] {
            assert_eq!(store.exact_name(typed, &b).unwrap(), b);
        }
        let says = "several names";
        let refused = remove(&b, &b).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
        let told = store.removed(&b, &b, &unused).unwrap_err().to_string();
        assert!(told.contains(says), "{told}");

        // One name ends as another does.
        assert_eq!(store.exact_name("other", &b).unwrap(), other);
        assert_eq!(remove(other, &b).unwrap(), [untagged(other)]);
        store.removed(other, &b, &unused).unwrap();

        // The name is a newer image's by now.
        tag(&store, LOCAL, &c);
        assert_eq!(remove(LOCAL, &b).unwrap(), []);
        store.removed(LOCAL, &b, &unused).unwrap();
        assert_eq!(store.names_of(&b).unwrap(), [another]);
        assert_eq!(store.names_of(&c).unwrap(), [LOCAL]);

        // Another container has it.
        let used = |_: &str| vec!["d".repeat(64)];
        for result in [
            store.remove_known(LOCAL, &c, &used).map(drop),
            store.removed(LOCAL, &c, &used),
        ] {
            let told = result.unwrap_err().to_string();
            assert!(told.contains("in use by container dddddddddddd"), "{told}");
        }
        assert!(store.has_record(&c));
    }
}
