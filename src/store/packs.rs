//! Packs: the contents of regular files, each stored once, by digest.
//!
//! A pack (`packs/ID.pack`, read by [`crate::cow::index::Pack`]) is contents one after the other, each beginning at a whole page;
//! beside it lies its table (`packs/ID.toc`), and `ID` is the SHA-256 of that table. Unpacking a layer makes at most one pack,
//! of the contents that no pack in the store has yet.
//!
//! # Format of a table, version 1
//!
//! Little-endian.
//!
//! ```text
//! header   24 bytes  0 magic "rlesstoc"  8 version u32  12 contents u32  16 length of the pack u64
//! fan-out  256 x u32 at i: number of contents whose digest's first byte is at most i
//! contents 48 each   0 SHA-256  32 offset in the pack u64  40 length u64; sorted by digest
//! crc      4 bytes   CRC-32 (IEEE) of everything before it
//! ```
//!
//! # After a crash
//!
//! The pack gets its name before the table. A pack without a table is nobody's; its writer holds a lock (`flock`) on it until the
//! table is there, so [`sweep`] can tell a dead writer's from one at work. Both are flushed before a layer index names them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::files;
use crate::cow::index::{Error, PAGE, Pack, PackId, padded};
use crate::error::{Result, failed};
use crate::sys::mmap::Map;

const MAGIC: &[u8; 8] = b"rlesstoc";
const VERSION: u32 = 1;
const HEADER: usize = 24;
const FANOUT: usize = 256 * 4;
const CONTENT: usize = 48;

/// Bytes collected before they are written.
const BUFFER: usize = 1 << 20;
/// Pieces of at least this many bytes are written as they come.
const DIRECT: usize = 64 << 10;

/// SHA-256 of a file's content.
pub type Hash = [u8; 32];

/// Where content lies in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its SHA-256.
    pub hash: Hash,
    /// Byte offset in the pack, a multiple of [`PAGE`].
    pub offset: u64,
    /// Bytes, at least 1.
    pub len: u64,
}

/// Writes a new pack. Nothing is visible before [`Writer::finish`]; dropping it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    file: NamedTempFile,
    /// What is not yet written of the pack; its first byte belongs at `flushed`.
    buffer: Vec<u8>,
    flushed: u64,
    /// Where the content being written begins.
    start: u64,
    contents: Vec<Content>,
    known: HashMap<Hash, usize>,
}

impl Writer {
    /// A pack in the making, in a temporary file in `tmp`, which must be on the packs' file system.
    ///
    /// # Errors
    /// As the file cannot be made.
    pub fn new(tmp: &Path) -> io::Result<Writer> {
        let file = files::unfinished_in(tmp)?;
        Ok(Writer {
            file,
            buffer: Vec::with_capacity(BUFFER),
            flushed: 0,
            start: 0,
            contents: Vec::new(),
            known: HashMap::new(),
        })
    }

    /// Adds to the content being written.
    ///
    /// # Errors
    /// As writing fails.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() >= DIRECT || self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= DIRECT {
            self.file.as_file().write_all_at(bytes, self.flushed)?;
            self.flushed += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Adds `len` zeros, which take no room on disk.
    ///
    /// # Errors
    /// As writing fails.
    pub fn hole(&mut self, len: u64) -> io::Result<()> {
        self.flush()?;
        self.flushed += len;
        // The file ends where it was last written, or cut by `discard`: what is skipped reads as zeros.
        Ok(())
    }

    /// Bytes of the content being written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.flushed + self.buffer.len() as u64 - self.start
    }

    /// Ends a content, whose digest is `hash`; gives its offset. One that the pack has already is not kept twice.
    ///
    /// # Errors
    /// As writing fails.
    pub fn end(&mut self, hash: Hash) -> io::Result<u64> {
        if let Some(i) = self.known.get(&hash) {
            let offset = self.contents[*i].offset;
            self.discard()?;
            return Ok(offset);
        }
        let (offset, len) = (self.start, self.written());
        self.known.insert(hash, self.contents.len());
        self.contents.push(Content { hash, offset, len });
        let end = padded(offset + len);
        let padding = usize::try_from(end - offset - len).unwrap_or(0);
        self.buffer.resize(self.buffer.len() + padding, 0);
        self.start = end;
        Ok(offset)
    }

    /// Forgets the content being written.
    ///
    /// # Errors
    /// As cutting the file fails.
    pub fn discard(&mut self) -> io::Result<()> {
        match self.start.checked_sub(self.flushed) {
            Some(keep) => self.buffer.truncate(usize::try_from(keep).unwrap_or(0)),
            None => {
                self.buffer.clear();
                self.file.as_file().set_len(self.start)?;
                self.flushed = self.start;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file
            .as_file()
            .write_all_at(&self.buffer, self.flushed)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Gives the pack its name in `packs`, flushed to disk: its id and length, or `None` when it would be empty.
    ///
    /// # Errors
    /// As writing fails; nothing is visible then.
    pub fn finish(mut self, packs: &Path) -> Result<Option<(PackId, u64)>> {
        if self.contents.is_empty() {
            return Ok(None);
        }
        let what = || "writing a pack of file contents";
        self.flush().with_context(what)?;
        let len = self.start;
        self.file.as_file().set_len(len).with_context(what)?;
        self.file.as_file().sync_all().with_context(what)?;
        let toc = encode_toc(&mut self.contents, len)?;
        let id = PackId(Sha256::digest(&toc).into());
        let path = id.pack_path(packs);
        // Kept open, and so locked, until the table stands.
        let _locked = self
            .file
            .persist(&path)
            .map_err(|e| e.error)
            .with_context(|| format!("writing {}", path.display()))?;
        files::atomic_write(&id.toc_path(packs), &toc)?;
        Ok(Some((id, len)))
    }
}

fn encode_toc(contents: &mut [Content], pack_len: u64) -> Result<Vec<u8>> {
    contents.sort_unstable_by_key(|c| c.hash);
    let count = u32::try_from(contents.len())?;
    let mut toc = Vec::with_capacity(HEADER + FANOUT + contents.len() * CONTENT + 4);
    toc.extend_from_slice(MAGIC);
    toc.extend_from_slice(&VERSION.to_le_bytes());
    toc.extend_from_slice(&count.to_le_bytes());
    toc.extend_from_slice(&pack_len.to_le_bytes());
    for first in 0..=u8::MAX {
        let below = contents.partition_point(|c| c.hash[0] <= first);
        toc.extend_from_slice(&u32::try_from(below)?.to_le_bytes());
    }
    for content in contents {
        toc.extend_from_slice(&content.hash);
        toc.extend_from_slice(&content.offset.to_le_bytes());
        toc.extend_from_slice(&content.len.to_le_bytes());
    }
    let crc = crc32fast::hash(&toc);
    toc.extend_from_slice(&crc.to_le_bytes());
    Ok(toc)
}

/// An opened, verified table of contents.
#[derive(Debug)]
pub struct Toc {
    map: Map,
    pack_len: u64,
}

impl Toc {
    /// Opens and verifies the table of the pack `id` in `packs`.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what this module describes ([`Error`]).
    pub fn open(packs: &Path, id: &PackId) -> Result<Toc> {
        let path = id.toc_path(packs);
        let what = || format!("opening table of contents {}", path.display());
        let file = File::open(&path).with_context(what)?;
        Toc::verified(Map::whole(&file).with_context(what)?).with_context(what)
    }

    /// Verifies a table held in memory.
    ///
    /// # Errors
    /// [`Error`] when the bytes are not what this module describes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Toc, Error> {
        Toc::verified(Map::from(bytes))
    }

    fn verified(map: Map) -> Result<Toc, Error> {
        let corrupt = Error::Corrupt;
        if !map.starts_with(MAGIC) {
            return Err(Error::Magic("a table of contents"));
        }
        let (body, crc) = map.split_last_chunk::<4>().ok_or(corrupt("length"))?;
        if body.len() < HEADER + FANOUT {
            return Err(corrupt("length"));
        }
        if u32_at(body, 8) != VERSION {
            return Err(Error::Version(u32_at(body, 8)));
        }
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(corrupt("checksum"));
        }
        let count = u32_at(body, 12) as usize;
        if (body.len() - HEADER - FANOUT) as u64 != count as u64 * CONTENT as u64 {
            return Err(corrupt("length"));
        }
        let pack_len = u64_at(body, 16);
        let toc = Toc { map, pack_len };
        let (mut last, mut bytes): (Option<Hash>, u64) = (None, 0);
        let mut counts = [0_u32; 256];
        for content in toc.contents() {
            let end = content.offset.checked_add(content.len);
            let holds = last.is_none_or(|last| last < content.hash)
                && content.len > 0
                && content.offset.is_multiple_of(PAGE)
                && end.is_some_and(|end| end <= pack_len);
            if !holds {
                return Err(corrupt("content"));
            }
            last = Some(content.hash);
            bytes = bytes.saturating_add(padded(content.len));
            counts[usize::from(content.hash[0])] += 1;
        }
        // Contents fill the pack, so that none can overlap unseen.
        if bytes != pack_len {
            return Err(corrupt("length of the pack"));
        }
        let mut below = 0;
        for (i, count) in counts.iter().enumerate() {
            below += count;
            if toc.fanout(i) != below as usize {
                return Err(corrupt("fan-out"));
            }
        }
        Ok(toc)
    }

    /// Bytes in the pack.
    #[must_use]
    pub fn pack_len(&self) -> u64 {
        self.pack_len
    }

    /// Where the content of this digest lies.
    #[must_use]
    pub fn find(&self, hash: &Hash) -> Option<Content> {
        let first = usize::from(hash[0]);
        let from = first.checked_sub(1).map_or(0, |before| self.fanout(before));
        let all = self.raw().get(from..self.fanout(first))?;
        let i = all.binary_search_by(|c| c[..32].cmp(hash)).ok()?;
        Some(content(&all[i]))
    }

    /// All contents, sorted by digest.
    pub fn contents(&self) -> impl Iterator<Item = Content> {
        self.raw().iter().map(content)
    }

    fn raw(&self) -> &[[u8; CONTENT]] {
        let end = self.map.len() - 4;
        self.map[HEADER + FANOUT..end].as_chunks().0
    }

    fn fanout(&self, i: usize) -> usize {
        u32_at(&self.map, HEADER + i * 4) as usize
    }
}

fn content(r: &[u8; CONTENT]) -> Content {
    let mut hash = [0; 32];
    hash.copy_from_slice(&r[..32]);
    Content {
        hash,
        offset: u64_at(r, 32),
        len: u64_at(r, 40),
    }
}

/// Callers have checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|b| b.first_chunk::<4>());
    field.map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|b| b.first_chunk::<8>());
    field.map_or(0, |b| u64::from_le_bytes(*b))
}

/// The tables of all packs in the store.
#[derive(Debug)]
pub struct Shelf(Vec<(PackId, Toc)>);

impl Shelf {
    /// Opens the tables in `packs`. One that is damaged, or whose pack is missing or of another length, is left out: its
    /// contents are then written again.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn open(packs: &Path) -> Result<Shelf> {
        let whole = |id: &PackId| {
            let toc = Toc::open(packs, id).ok()?;
            let pack = fs::metadata(id.pack_path(packs)).ok()?;
            (pack.len() == toc.pack_len()).then_some((*id, toc))
        };
        Ok(Shelf(list(packs)?.iter().filter_map(whole).collect()))
    }

    /// The pack that has the content, its length, and where in it.
    #[must_use]
    pub fn find(&self, hash: &Hash) -> Option<(PackId, u64, Content)> {
        let mut found = self.0.iter().filter_map(|(id, toc)| {
            let content = toc.find(hash)?;
            Some((*id, toc.pack_len(), content))
        });
        found.next()
    }
}

/// The packs in the store that have a table.
///
/// # Errors
/// When the directory cannot be read.
pub fn list(packs: &Path) -> Result<Vec<PackId>> {
    let ids = names(packs)?.into_iter().filter_map(|(path, suffix)| {
        (suffix == "toc").then(|| PackId::parse(path.file_stem()?.to_str()?))?
    });
    Ok(ids.collect())
}

/// The files of `packs` with their suffixes.
fn names(packs: &Path) -> Result<Vec<(PathBuf, String)>> {
    let what = || format!("listing {}", packs.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(packs).with_context(what)? {
        let path = entry.with_context(what)?.path();
        if let Some(suffix) = path.extension().and_then(|s| s.to_str()) {
            let suffix = suffix.to_owned();
            names.push((path, suffix));
        }
    }
    Ok(names)
}

/// Removes packs without a table, and unfinished tables, whose writer is dead. Errors are ignored: the next command tries again.
pub fn sweep(packs: &Path) {
    files::sweep_unfinished(packs);
    for (path, suffix) in names(packs).unwrap_or_default() {
        let toc = path.with_extension("toc");
        if suffix != "pack" || toc.exists() {
            continue;
        }
        // Locked: its writer is dead. Another one may have put a new pack in its place since, or its table beside it.
        if let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
            && let (Ok(held), Ok(now)) = (file.metadata(), fs::metadata(&path))
            && held.ino() == now.ino()
            && !toc.exists()
        {
            drop(fs::remove_file(&path));
        }
    }
}

/// Removes a pack: its table first, so that nothing new refers to it.
///
/// # Errors
/// When a file cannot be removed; one that is not there is fine.
pub fn remove(packs: &Path, id: &PackId) -> Result<()> {
    files::remove_file(&id.toc_path(packs))?;
    files::remove_file(&id.pack_path(packs))?;
    Ok(())
}

/// Reads a pack whole and compares every content with its digest.
///
/// # Errors
/// When the pack or its table is missing, damaged ([`Error`] in the chain) or cannot be read.
pub fn verify(packs: &Path, id: &PackId) -> Result<()> {
    let what = || format!("verifying pack {}", id.pack_path(packs).display());
    let toc = Toc::open(packs, id)?;
    if Sha256::digest(&*toc.map)[..] != id.0 {
        return Err(Error::Corrupt("its table of contents is another one's")).with_context(what);
    }
    let pack = Pack::open(packs, id, toc.pack_len())?;
    let mut buf = vec![0; BUFFER];
    for content in toc.contents() {
        let mut digest = Sha256::new();
        let (mut at, mut left) = (content.offset, content.len);
        while left > 0 {
            let n = left.min(BUFFER as u64);
            let part = &mut buf[..usize::try_from(n)?];
            pack.read(at, part).with_context(what)?;
            digest.update(part);
            (at, left) = (at + n, left - n);
        }
        if digest.finalize()[..] != content.hash {
            return Err(Error::Corrupt("content does not match its digest")).with_context(what);
        }
    }
    Ok(())
}

/// Fails early when `len` more bytes cannot fit on the file system of `dir`.
pub(super) fn room(dir: &Path, len: u64) -> Result<()> {
    // Not every file system says; writing will.
    let Ok(s) = nix::sys::statvfs::statvfs(dir) else {
        return Ok(());
    };
    let free = s.blocks_available().saturating_mul(s.fragment_size());
    if free > 0 && len > free {
        return Err(failed(format!("a file of {len} bytes, but {free} are free")).into());
    }
    Ok(())
}
