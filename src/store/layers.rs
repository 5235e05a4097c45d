//! Layers into the store, and layers into images.
//!
//! [`ingest`] reads a layer's uncompressed tar once, front to back: contents go into a [pack](super::packs), entries into a
//! [layer index](crate::cow::index::layer), and the whole stream into a SHA-256 that must be the layer's diff id.
//! [`build_image_index`] merges the layer indexes of an image.
//!
//! # Order on disk
//!
//! Everything is written under temporary names in `tmp` (locked, so that [`files::sweep_unfinished`] can tell a dead writer's) and
//! flushed. Only when the digest is right do pack, table and layer index get their names, in this order; a layer is in the store
//! when its index has its name. Killed between these, a later run removes a pack without table; a pack with a table that no layer
//! refers to is what [`unreferenced_packs`] finds.
//!
//! # Bounds
//!
//! Memory: a few MB, and about 100 bytes per distinct content. [`Limits`] bounds everything that a small download could
//! make large. Merging takes about 260 bytes per file beside the mapped layer indexes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, BufRead, BufWriter, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::files;
use super::packs::{self, Shelf};
use super::tarball::{self, Entry, Kind, Reader};
use crate::cow::index::layer::{Act, Layer as LayerIndex, Writer};
use crate::cow::index::{Data, Inode, PackId};
use crate::cow::merge::merge;
use crate::error::{Result, usage};

mod hashing;
#[cfg(test)]
mod tests;

use hashing::Hashing;

/// Where layers go; all on one file system.
#[derive(Debug, Clone)]
pub struct LayerDirs {
    /// `packs/`.
    pub packs: PathBuf,
    /// `index/layers/`.
    pub layer_indexes: PathBuf,
    /// For files in the making.
    pub tmp: PathBuf,
}

impl LayerDirs {
    /// The directories of a store whose data directory is `data`.
    #[must_use]
    pub fn of(data: &Path) -> LayerDirs {
        LayerDirs {
            packs: data.join("packs"),
            layer_indexes: data.join("index/layers"),
            tmp: data.join("tmp"),
        }
    }

    /// Where the index of the layer `diff_id` (with or without `sha256:`) is.
    ///
    /// # Errors
    /// When `diff_id` is not a SHA-256 digest.
    pub fn index(&self, diff_id: &str) -> Result<PathBuf> {
        let id = parse_digest(diff_id)?;
        Ok(self.layer_indexes.join(format!("{id}.idx")))
    }
}

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Digest of its uncompressed tar, `sha256:…`.
    pub diff_id: String,
    /// Its index.
    pub index: PathBuf,
    /// Entries in its tar.
    pub entries: u64,
    /// Bytes of its regular files.
    pub bytes: u64,
}

/// What one layer may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes of its index: names, links, attributes.
    pub metadata: u64,
    /// Bytes of its tar, and bytes of its files with their holes.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 4 << 20,
            metadata: 1 << 30,
            bytes: 256 << 30,
        }
    }
}

/// Errors that a caller treats in its own way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream was not the layer that was asked for: damaged on its way, or not what the config names.
    #[error("its digest is sha256:{actual}, not {expected}")]
    DiffId {
        /// As asked for.
        expected: String,
        /// 64 hex digits.
        actual: String,
    },
    /// More than [`Limits`] allow.
    #[error("the layer has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
}

/// Unpacks the uncompressed tar `tar` into the store.
///
/// # Errors
/// When the stream cannot be read, is not a tar that [`tarball`] accepts, is not what `expected_diff_id` names ([`Error::DiffId`]), is beyond
/// the default [`Limits`], or cannot be written. Nothing is visible then.
pub fn ingest(dirs: &LayerDirs, expected_diff_id: &str, tar: &mut dyn Read) -> Result<Layer> {
    ingest_within(dirs, expected_diff_id, tar, &Limits::default())
}

/// [`ingest`] within limits of one's own.
///
/// # Errors
/// As [`ingest`].
pub fn ingest_within(
    dirs: &LayerDirs,
    expected_diff_id: &str,
    tar: &mut dyn Read,
    limits: &Limits,
) -> Result<Layer> {
    let diff_id = parse_digest(expected_diff_id)?;
    let what = || format!("unpacking layer sha256:{diff_id}");
    files::sweep_unfinished(&dirs.tmp);
    packs::sweep(&dirs.packs);
    let unpacking = Unpacking::new(dirs, diff_id, limits).with_context(what)?;
    let (result, digest) = std::thread::scope(|scope| -> Result<_> {
        let mut reader = Reader::new(Hashing::new(scope, tar)?, limits.bytes);
        let mut result = unpacking.run(&mut reader);
        let mut rest = reader.into_inner();
        // Whatever is wrong with the tar, a digest that does not match explains it better.
        let readable = result.as_ref().err().is_none_or(is_malformed);
        if readable && let Err(e) = drain(&mut rest, limits.bytes) {
            result = result.and(Err(e));
        }
        Ok((result, readable.then(|| rest.finish()).transpose()?))
    })
    .with_context(what)?;
    if let Some(digest) = digest.map(PackId)
        && digest != diff_id
        && !matches!(&result, Err(e) if is_too_large(e))
    {
        let error = Error::DiffId {
            expected: format!("sha256:{diff_id}"),
            actual: digest.to_string(),
        };
        return Err(error).with_context(what);
    }
    result.and_then(Unpacking::commit).with_context(what)
}

fn is_malformed(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<tarball::Error>(),
        Some(tarball::Error::Invalid { .. } | tarball::Error::Truncated)
    )
}

fn is_too_large(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::TooLarge { .. }))
}

/// Reads to the end, for the digest's sake.
fn drain(input: &mut impl BufRead, limit: u64) -> Result<()> {
    let mut read = 0_u64;
    loop {
        let n = input.fill_buf()?.len();
        if n == 0 {
            return Ok(());
        }
        input.consume(n);
        read += n as u64;
        if read > limit {
            return Err(Error::TooLarge {
                what: "bytes",
                limit,
            }
            .into());
        }
    }
}

/// The state of one [`ingest`].
struct Unpacking<'d> {
    dirs: &'d LayerDirs,
    diff_id: PackId,
    limits: Limits,
    shelf: Shelf,
    pack: packs::Writer,
    index: Writer<BufWriter<NamedTempFile>>,
    /// Packs that the index refers to; `None` is the one in the making.
    packs: Vec<Option<(PackId, u64)>>,
    places: HashMap<Option<PackId>, u32>,
    /// Bytes of files so far, holes included.
    bytes: u64,
}

impl<'d> Unpacking<'d> {
    fn new(dirs: &'d LayerDirs, diff_id: PackId, limits: &Limits) -> Result<Unpacking<'d>> {
        let index = BufWriter::with_capacity(256 << 10, files::unfinished_in(&dirs.tmp)?);
        Ok(Unpacking {
            dirs,
            diff_id,
            limits: *limits,
            shelf: Shelf::open(&dirs.packs)?,
            pack: packs::Writer::new(&dirs.tmp)?,
            index: Writer::new(index, &diff_id.0)?,
            packs: Vec::new(),
            places: HashMap::new(),
            bytes: 0,
        })
    }

    fn run(mut self, tar: &mut Reader<impl BufRead>) -> Result<Self> {
        while let Some(entry) = tar.next_entry()? {
            let what = || format!("entry `{}`", entry.path.escape_ascii());
            let data = match entry.kind {
                Kind::File if entry.size > 0 => self.content(&entry, tar).with_context(what)?,
                _ => Data::None,
            };
            // A hard link's are its target's.
            let link = matches!(entry.kind, Kind::Hardlink(_));
            let xattrs = if link { &[][..] } else { &entry.xattrs };
            let xattrs = xattrs.iter().map(|(name, value)| (&name[..], &value[..]));
            self.index
                .push(&entry.path, &act(&entry, data), xattrs)
                .with_context(what)?;
            let (entries, metadata) = (self.index.totals().0, self.index.len());
            self.check("files and directories", entries, self.limits.entries)?;
            self.check(
                "bytes of names and attributes",
                metadata,
                self.limits.metadata,
            )?;
        }
        Ok(self)
    }

    fn check(&self, what: &'static str, have: u64, limit: u64) -> Result<()> {
        match have > limit {
            true => Err(Error::TooLarge { what, limit }.into()),
            false => Ok(()),
        }
    }

    /// Puts a file's content into the pack, unless some pack has it.
    fn content(&mut self, entry: &Entry, tar: &mut Reader<impl BufRead>) -> Result<Data<'static>> {
        self.bytes = self.bytes.saturating_add(entry.size);
        self.check("bytes", self.bytes, self.limits.bytes)?;
        if entry.sparse.is_none() {
            packs::room(&self.dirs.tmp, entry.size)?;
        }
        let mut digest = Sha256::new();
        let whole = [tarball::Segment {
            offset: 0,
            len: entry.size,
        }];
        let mut at = 0;
        for segment in entry.sparse.as_deref().unwrap_or(&whole) {
            self.hole(segment.offset - at, &mut digest)?;
            self.copy(segment.len, tar, &mut digest)?;
            at = segment.offset + segment.len;
        }
        self.hole(entry.size - at, &mut digest)?;
        let hash = digest.finalize().into();
        let writing = || "writing file contents";
        if let Some((id, len, found)) = self.shelf.find(&hash) {
            ensure!(
                found.len == entry.size,
                "its digest is that of another file"
            );
            self.pack.discard().with_context(writing)?;
            let pack = self.place(Some((id, len)))?;
            return Ok(Data::File {
                pack,
                offset: found.offset,
            });
        }
        let offset = self.pack.end(hash).with_context(writing)?;
        let pack = self.place(None)?;
        Ok(Data::File { pack, offset })
    }

    fn copy(
        &mut self,
        mut len: u64,
        tar: &mut Reader<impl BufRead>,
        digest: &mut Sha256,
    ) -> Result<()> {
        while len > 0 {
            let piece = tar.fill()?;
            let n = usize::try_from(len).map_or(piece.len(), |len| len.min(piece.len()));
            if n == 0 {
                return Err(tarball::Error::Truncated.into());
            }
            digest.update(&piece[..n]);
            self.pack
                .write(&piece[..n])
                .context("writing file contents")?;
            tar.advance(n);
            len -= n as u64;
        }
        Ok(())
    }

    fn hole(&mut self, mut len: u64, digest: &mut Sha256) -> Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        if len == 0 {
            return Ok(());
        }
        self.pack.hole(len).context("writing file contents")?;
        while len > 0 {
            let n = usize::try_from(len).map_or(ZEROS.len(), |len| len.min(ZEROS.len()));
            digest.update(&ZEROS[..n]);
            len -= n as u64;
        }
        Ok(())
    }

    /// The place of a pack in the index's list.
    fn place(&mut self, pack: Option<(PackId, u64)>) -> Result<u32> {
        let key = pack.map(|(id, _)| id);
        if let Some(place) = self.places.get(&key) {
            return Ok(*place);
        }
        let place = u32::try_from(self.packs.len())?;
        self.packs.push(pack);
        self.places.insert(key, place);
        Ok(place)
    }

    /// Makes it visible.
    fn commit(self) -> Result<Layer> {
        let own = self.pack.finish(&self.dirs.packs)?;
        let packs: Option<Vec<_>> = self.packs.into_iter().map(|pack| pack.or(own)).collect();
        let packs = packs.context("the new pack is empty")?;
        let (entries, bytes) = self.index.totals();
        let path = self
            .dirs
            .layer_indexes
            .join(format!("{}.idx", self.diff_id));
        let what = || format!("writing {}", path.display());
        let file = self.index.finish(&packs).with_context(what)?;
        let file = file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .with_context(what)?;
        file.as_file().sync_all().with_context(what)?;
        file.persist(&path)
            .map_err(|e| e.error)
            .with_context(what)?;
        files::sync_dir(&self.dirs.layer_indexes).with_context(what)?;
        Ok(Layer {
            diff_id: format!("sha256:{}", self.diff_id),
            index: path,
            entries,
            bytes,
        })
    }
}

/// An entry as the index has it.
fn act<'e>(entry: &'e Entry, content: Data<'e>) -> Act<'e> {
    let (kind, data, device) = match &entry.kind {
        Kind::Hardlink(target) => return Act::Link(target),
        Kind::File => (libc::S_IFREG, content, (0, 0)),
        Kind::Dir => (
            libc::S_IFDIR,
            Data::Dir {
                parent: 0,
                entries: 0,
            },
            (0, 0),
        ),
        Kind::Symlink(target) => (libc::S_IFLNK, Data::Symlink(target), (0, 0)),
        Kind::Char { major, minor } => (libc::S_IFCHR, Data::None, (*major, *minor)),
        Kind::Block { major, minor } => (libc::S_IFBLK, Data::None, (*major, *minor)),
        Kind::Fifo => (libc::S_IFIFO, Data::None, (0, 0)),
    };
    // A symbolic link's mode is always this on Linux.
    let mode = if kind == libc::S_IFLNK {
        0o777
    } else {
        entry.mode
    };
    Act::Node(Inode {
        mode: kind | mode,
        nlink: 0,
        uid: entry.uid,
        gid: entry.gid,
        rdev_major: device.0,
        rdev_minor: device.1,
        size: entry.size,
        mtime: entry.mtime,
        atime: entry.atime.unwrap_or(entry.mtime),
        ctime: entry.ctime.unwrap_or(entry.mtime),
        data,
    })
}

/// `sha256:` and 64 hex digits, or the digits alone.
fn parse_digest(digest: &str) -> Result<PackId> {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    let id = PackId::parse(hex);
    id.ok_or_else(|| {
        usage(format!(
            "`{}` is not a sha256 digest",
            digest.escape_debug()
        ))
        .into()
    })
}

/// The layer `diff_id`, if the store has it whole: its index opens and its packs are there. A damaged index is removed, so that
/// the layer is fetched again.
///
/// # Errors
/// When `diff_id` is malformed, or a damaged index cannot be removed.
pub fn find(dirs: &LayerDirs, diff_id: &str) -> Result<Option<Layer>> {
    let id = parse_digest(diff_id)?;
    let path = dirs.index(diff_id)?;
    if !path.exists() {
        return Ok(None);
    }
    let whole = LayerIndex::open(&path).ok().filter(|layer| {
        layer.diff_id() == id.0
            && layer
                .packs()
                .iter()
                .all(|(id, len)| present(dirs, id, *len))
    });
    let Some(layer) = whole else {
        files::remove_file(&path)?;
        return Ok(None);
    };
    Ok(Some(Layer {
        diff_id: format!("sha256:{id}"),
        index: path,
        entries: layer.len(),
        bytes: layer.bytes(),
    }))
}

fn present(dirs: &LayerDirs, id: &PackId, len: u64) -> bool {
    fs::metadata(id.pack_path(&dirs.packs)).is_ok_and(|m| m.len() == len)
}

/// Merges layers, lowest first, and writes the image's index to `out`.
///
/// # Errors
/// When a layer is not in the store or damaged, cannot be applied to those below it, or `out` cannot be written.
pub fn build_image_index(dirs: &LayerDirs, diff_ids: &[String], out: &Path) -> Result<()> {
    let mut layers = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let layer = LayerIndex::open(&dirs.index(diff_id)?)?;
        if format!("sha256:{}", PackId(layer.diff_id())) != *diff_id
            && PackId(layer.diff_id()).to_string() != *diff_id
        {
            bail!("the layer index of {diff_id} is another layer's");
        }
        layers.push(layer);
    }
    files::atomic_write(out, merge(&layers)?.bytes())
}

/// The layers in the store, damaged ones included.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(dirs: &LayerDirs) -> Result<Vec<String>> {
    let what = || format!("listing {}", dirs.layer_indexes.display());
    let mut ids = Vec::new();
    for entry in fs::read_dir(&dirs.layer_indexes).with_context(what)? {
        let name = entry.with_context(what)?.file_name();
        let hex = name.to_str().and_then(|name| name.strip_suffix(".idx"));
        if let Some(id) = hex.and_then(PackId::parse) {
            ids.push(format!("sha256:{id}"));
        }
    }
    Ok(ids)
}

/// Removes a layer's index; its packs stay until nothing refers to them ([`unreferenced_packs`]).
///
/// # Errors
/// When the file cannot be removed; one that is not there is fine.
pub fn remove(dirs: &LayerDirs, diff_id: &str) -> Result<()> {
    files::remove_file(&dirs.index(diff_id)?).map(drop)
}

/// The packs that no layer in the store refers to. With `in_use` (those of image indexes and containers) considered, and while no
/// layer is being unpacked, they can be [removed](packs::remove).
///
/// # Errors
/// When a layer index cannot be read: then nothing is known to be unreferenced.
pub fn unreferenced_packs(dirs: &LayerDirs, in_use: &HashSet<PackId>) -> Result<Vec<PackId>> {
    let mut free: HashSet<_> = packs::list(&dirs.packs)?.into_iter().collect();
    free.retain(|id| !in_use.contains(id));
    for diff_id in list(dirs)? {
        for (id, _) in LayerIndex::open(&dirs.index(&diff_id)?)?.packs() {
            free.remove(id);
        }
    }
    Ok(free.into_iter().collect())
}

/// Takes a damaged pack out of the store, with every layer that has contents in it, so that they are fetched again; gives their diff ids.
///
/// # Errors
/// When a file cannot be removed.
pub fn discard_pack(dirs: &LayerDirs, id: &PackId) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    for diff_id in list(dirs)? {
        let path = dirs.index(&diff_id)?;
        let layer = LayerIndex::open(&path);
        if layer.is_ok_and(|layer| layer.packs().iter().all(|(pack, _)| pack != id)) {
            continue;
        }
        files::remove_file(&path)?;
        gone.push(diff_id);
    }
    packs::remove(&dirs.packs, id)?;
    Ok(gone)
}
