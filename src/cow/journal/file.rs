//! The journal's file: buffered appends, group commit, replay with a cut tail, checkpoints.
//!
//! Locks: `buffer` is held for the copy of one encoded record; `io` for a write and its
//! fdatasync. Whoever holds `io` takes everything buffered, so that concurrent fsyncs share one.

use super::record::Record;
use crate::cow::meta::{Res, errno, lk};
use crate::error::{Result, failed};
use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: &[u8; 8] = b"rlessjnl";
const VERSION: u32 = 1;
const HEADER: usize = 32;
const FRAME: usize = 16;
/// Longest record taken for one: a Data record of a very scattered file.
const LONGEST: usize = 256 << 20;

/// Identity of the lower a journal belongs to.
pub(crate) type Base = u64;

struct Buffer {
    bytes: Vec<u8>,
    /// Number of the last record appended.
    seq: u64,
}

struct Io {
    file: Flock<File>,
    /// Where the next write goes: behind the last frame known to be whole.
    end: u64,
    /// Taken from the buffer and not yet written, after a failed write.
    pending: Vec<u8>,
    pending_seq: u64,
    /// A sync failed: the kernel may have dropped what was written and would not say so again.
    failed: bool,
}

/// An open journal.
pub(crate) struct Journal {
    path: PathBuf,
    base: Base,
    buffer: Mutex<Buffer>,
    io: Mutex<Io>,
    written: AtomicU64,
    durable: AtomicU64,
    length: AtomicU64,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish()
    }
}

/// Encodes the header.
fn header(base: Base) -> [u8; HEADER] {
    let mut h = [0u8; HEADER];
    h[..8].copy_from_slice(MAGIC);
    h[8..12].copy_from_slice(&VERSION.to_le_bytes());
    h[16..24].copy_from_slice(&base.to_le_bytes());
    let crc = crc32fast::hash(&h[..24]);
    h[24..28].copy_from_slice(&crc.to_le_bytes());
    h
}

/// Appends one frame to `out`.
fn frame(seq: u64, body: &[u8], out: &mut Vec<u8>) {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&seq.to_le_bytes());
    hash.update(body);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&hash.finalize().to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(body);
}

/// Splits the first frame off `bytes`: its body and the rest, if it is whole and numbered `seq`.
pub(crate) fn split_frame(bytes: &[u8], seq: u64) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<FRAME>()?;
    let [a, b, c, d, e, f, g, h, s @ ..] = *head;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    if len == 0 || len > LONGEST || u64::from_le_bytes(s) != seq {
        return None;
    }
    let (body, rest) = rest.split_at_checked(len)?;
    let mut hash = crc32fast::Hasher::new();
    hash.update(&s);
    hash.update(body);
    (hash.finalize() == u32::from_le_bytes([e, f, g, h])).then_some((body, rest))
}

/// Checks the header of a journal over `base`; returns what follows it.
fn split_header(bytes: &[u8], base: Base) -> Result<&[u8]> {
    let (head, rest) = bytes
        .split_first_chunk::<HEADER>()
        .context("journal without a header")?;
    if *head == header(base) {
        return Ok(rest);
    }
    let mut theirs = [0; 8];
    theirs.copy_from_slice(&head[16..24]);
    if *head == header(u64::from_le_bytes(theirs)) {
        return Err(failed("the upper belongs to another lower (image or directory)").into());
    }
    Err(failed("not a journal of this version, or a damaged header").into())
}

impl Journal {
    /// Opens or makes the journal at `path` and hands every whole record to `replay`, oldest
    /// first; a damaged tail is cut off. The journal stays locked against a second server.
    ///
    /// # Errors
    /// The file cannot be opened, is locked, or belongs to another base; or `replay` fails.
    pub(crate) fn open(
        path: &Path,
        base: Base,
        mut replay: impl FnMut(Record<'_>) -> Result<()>,
    ) -> Result<Journal> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("opening journal {}", path.display()))?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| e)
            .with_context(|| format!("locking journal {}", path.display()))?;
        // A server that rewrote it while we waited has locked its own new file.
        let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| {
            use std::os::unix::fs::MetadataExt;
            (a.dev(), a.ino()) == (b.dev(), b.ino())
        };
        let (ours, there) = (file.metadata(), std::fs::metadata(path));
        if !ours.and_then(|o| Ok(same(&o, &there?))).unwrap_or(false) {
            return Err(failed(format!("journal {} is in use", path.display())).into());
        }
        let mut bytes = Vec::new();
        (&*file)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading journal {}", path.display()))?;
        let mut seq = 0;
        let mut end = HEADER as u64;
        if bytes.len() < HEADER {
            // New, or a crash came before the header was whole: nothing was promised yet.
            file.set_len(0)
                .and_then(|()| file.write_all_at(&header(base), 0))
                .and_then(|()| file.sync_all())
                .with_context(|| format!("starting journal {}", path.display()))?;
        } else {
            let mut rest = split_header(&bytes, base)
                .with_context(|| format!("opening journal {}", path.display()))?;
            while let Some((body, behind)) = split_frame(rest, seq + 1) {
                let record = Record::decode(body)
                    .with_context(|| format!("journal {}: record {}", path.display(), seq + 1))?;
                replay(record)
                    .with_context(|| format!("journal {}: record {}", path.display(), seq + 1))?;
                seq += 1;
                end += (FRAME + body.len()) as u64;
                rest = behind;
            }
            if !rest.is_empty() {
                file.set_len(end)
                    .with_context(|| format!("cutting the torn tail of {}", path.display()))?;
            }
        }
        Ok(Journal {
            path: path.to_owned(),
            base,
            buffer: Mutex::new(Buffer {
                bytes: Vec::new(),
                seq,
            }),
            io: Mutex::new(Io {
                file,
                end,
                pending: Vec::new(),
                pending_seq: seq,
                failed: false,
            }),
            written: AtomicU64::new(seq),
            durable: AtomicU64::new(seq),
            length: AtomicU64::new(end),
        })
    }

    /// Appends a record to the buffer; returns its number.
    pub(crate) fn append(&self, record: &Record<'_>) -> u64 {
        thread_local!(static BODY: std::cell::RefCell<Vec<u8>> =
            const { std::cell::RefCell::new(Vec::new()) });
        BODY.with_borrow_mut(|body| {
            body.clear();
            record.encode(body);
            let mut b = lk(&self.buffer);
            b.seq += 1;
            let seq = b.seq;
            frame(seq, body, &mut b.bytes);
            seq
        })
    }

    /// Number of the last record appended.
    pub(crate) fn last(&self) -> u64 {
        lk(&self.buffer).seq
    }

    /// Number of the last record that survives a power cut.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Bytes in the file.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    /// Makes every record up to `seq` durable (and whatever else is buffered with it).
    ///
    /// # Errors
    /// What the write failed with: the next call tries again. What the sync failed with: then `EIO` for good, since
    /// records after a hole would be cut at the next open; what was durable before stays so.
    pub(crate) fn sync(&self, seq: u64) -> Res<()> {
        if self.durable() >= seq {
            return Ok(());
        }
        let mut io = lk(&self.io);
        if self.durable() >= seq {
            return Ok(());
        }
        if io.failed {
            return Err(nix::errno::Errno::EIO);
        }
        self.write_out(&mut io)?;
        if let Err(e) = io.file.sync_data() {
            io.failed = true;
            return Err(errno(&e));
        }
        self.durable.store(io.pending_seq, Ordering::Release);
        Ok(())
    }

    /// Hands what is buffered to the kernel with one write, without waiting for the disk.
    fn write_out(&self, io: &mut Io) -> Res<()> {
        {
            let mut b = lk(&self.buffer);
            if io.pending.is_empty() {
                std::mem::swap(&mut io.pending, &mut b.bytes);
            } else {
                io.pending.append(&mut b.bytes);
            }
            io.pending_seq = b.seq;
        }
        if io.pending.is_empty() {
            return Ok(());
        }
        if let Err(e) = io.file.write_all_at(&io.pending, io.end) {
            // A part may be there: it is behind `end` and overwritten by the next attempt.
            return Err(errno(&e));
        }
        io.end += io.pending.len() as u64;
        io.pending.clear();
        if io.pending.capacity() > 1 << 20 {
            io.pending = Vec::new();
        }
        self.written.store(io.pending_seq, Ordering::Release);
        self.length.store(io.end, Ordering::Relaxed);
        Ok(())
    }

    /// Replaces the journal by the records that `write` gives (written beside, synced, renamed
    /// over). Nothing may be appended meanwhile: the caller is alone.
    ///
    /// # Errors
    /// The old journal stays as it was.
    pub(crate) fn rewrite(&self, write: impl FnOnce(&mut dyn FnMut(&Record<'_>))) -> Res<()> {
        let tmp = self.path.with_extension("tmp");
        let _ = std::fs::remove_file(&tmp);
        let mut out = header(self.base).to_vec();
        let mut body = Vec::new();
        let mut seq = 0;
        write(&mut |record| {
            body.clear();
            record.encode(&mut body);
            seq += 1;
            frame(seq, &body, &mut out);
        });
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&tmp)
            .map_err(|e| errno(&e))?;
        let made = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| e)
            .and_then(|file| {
                file.write_all_at(&out, 0).map_err(|e| errno(&e))?;
                file.sync_all().map_err(|e| errno(&e))?;
                std::fs::rename(&tmp, &self.path).map_err(|e| errno(&e))?;
                Ok(file)
            });
        let file = match made {
            Ok(file) => file,
            Err(e) => {
                let _ = std::fs::remove_file(&tmp);
                return Err(e);
            }
        };
        if let Some(dir) = self.path.parent() {
            File::open(dir)
                .and_then(|d| d.sync_all())
                .map_err(|e| errno(&e))?;
        }
        let mut io = lk(&self.io);
        let mut b = lk(&self.buffer);
        b.bytes.clear();
        b.seq = seq;
        *io = Io {
            file,
            end: out.len() as u64,
            pending: Vec::new(),
            pending_seq: seq,
            failed: false,
        };
        self.written.store(seq, Ordering::Release);
        self.durable.store(seq, Ordering::Release);
        self.length.store(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlink(name: &[u8]) -> Record<'_> {
        Record::Unlink {
            parent: 1,
            name,
            time: crate::cow::meta::Time::default(),
        }
    }

    fn names(path: &Path) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        Journal::open(path, 7, |r| {
            if let Record::Unlink { name, .. } = r {
                seen.push(name.to_vec());
            }
            Ok(())
        })
        .expect("journal opens");
        seen
    }

    #[test]
    fn a_tail_cut_or_flipped_anywhere_loses_only_itself() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("journal");
        {
            let j = Journal::open(&path, 7, |_| Ok(())).expect("new");
            for name in [&b"one"[..], b"two", b"three"] {
                j.append(&unlink(name));
            }
            j.sync(3).expect("sync");
        }
        let whole = std::fs::read(&path).expect("read");
        let sizes: Vec<usize> = [3usize, 3, 5]
            .iter()
            .map(|n| FRAME + 1 + 8 + 4 + n + 12)
            .collect();
        for at in HEADER..whole.len() {
            let mut keep = 0;
            let mut edge = HEADER;
            for s in &sizes {
                if edge + s <= at {
                    keep += 1;
                }
                edge += s;
            }
            std::fs::write(&path, &whole[..at]).expect("write");
            assert_eq!(names(&path).len(), keep, "cut at {at}");
            let mut bad = whole.clone();
            bad[at] ^= 0x40;
            std::fs::write(&path, &bad).expect("write");
            assert_eq!(names(&path).len(), keep, "flip at {at}");
            assert_eq!(names(&path).len(), keep, "after the cut");
        }
    }

    #[test]
    fn appends_after_a_cut_tail_are_found_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("journal");
        let j = Journal::open(&path, 7, |_| Ok(())).expect("new");
        j.append(&unlink(b"one"));
        j.sync(1).expect("sync");
        drop(j);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes.extend_from_slice(&[9; 40]);
        std::fs::write(&path, bytes).expect("write");
        let j = Journal::open(&path, 7, |_| Ok(())).expect("reopen");
        j.append(&unlink(b"two"));
        j.sync(2).expect("sync");
        drop(j);
        assert_eq!(names(&path), [b"one".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn another_base_and_a_second_opener_are_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("journal");
        let j = Journal::open(&path, 7, |_| Ok(())).expect("new");
        assert!(Journal::open(&path, 7, |_| Ok(())).is_err(), "locked");
        drop(j);
        let e = Journal::open(&path, 8, |_| Ok(())).expect_err("other base");
        assert!(format!("{e:#}").contains("another lower"), "{e:#}");
    }

    #[test]
    fn a_rewrite_replaces_all() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("journal");
        let j = Journal::open(&path, 7, |_| Ok(())).expect("new");
        j.append(&unlink(b"one"));
        j.rewrite(|put| put(&unlink(b"kept"))).expect("rewrite");
        j.append(&unlink(b"later"));
        j.sync(j.last()).expect("sync");
        drop(j);
        assert_eq!(names(&path), [b"kept".to_vec(), b"later".to_vec()]);
    }
}
