//! The journal's file: buffered appends, group commit, replay with a cut tail, folding.
//!
//! Locks: `io` for a write and its fdatasync; below it `buffer`, held for the copy of one encoded
//! record. Whoever holds `io` writes up to the highest number anybody asked for, so that
//! concurrent fsyncs share one.
//!
//! # A full disk
//!
//! Removing something takes a record, and gives space back only when that is durable. So behind the journal's end space is
//! reserved that nobody else gets ([`RESERVE`]; nothing on hosts that cannot). While it cannot be filled up again the
//! journal is *short*: the tree refuses whatever grows, and what is left is there for removals. Of what does not fit as a whole
//! as many records are written as do: they may be what makes room for the others.
//!
//! # A damaged tail
//!
//! Frames behind the last whole one are cut: a power cut leaves such a tail of what was never synced. Where a whole frame with
//! a later number lies behind the damage it may have been durable: what is cut is appended to the file `journal.cut`
//! first, and for as long as that is there nobody deletes content that only it may speak of.

use super::record::Record;
use super::room::{fitting, write_ahead};
use super::tail::{CUT, goes_on, keep_cut, sync_parent};
use crate::cow::meta::{Res, errno, lk};
use crate::error::{Result, failed};
use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

const MAGIC: &[u8; 8] = b"rlessjnl";
const VERSION: u32 = 4;
/// The oldest that is read: without `Together` records and edges of sizes.
const OLDEST: u32 = 3;
pub(super) const HEADER: usize = 48;
pub(super) const FRAME: usize = 16;
/// Longest record taken for one: a Data record of a very scattered file.
pub(super) const LONGEST: usize = 256 << 20;
/// Set in the numbers of an image's frames.
const IMAGE: u64 = 1 << 63;
/// So much space is reserved behind the end,
const RESERVE: u64 = 256 << 10;
/// and again when less than this is left.
const RESERVE_LEFT: u64 = 128 << 10;
/// No shorter journal is folded,
const SHORT: u64 = 1 << 20;
/// nor one that is not this many times as long as right after the last time.
const WORTH: u64 = 4;

/// Identity of the lower a journal belongs to.
pub(crate) type Base = u64;

struct Buffer {
    bytes: Vec<u8>,
    /// Number of the last record appended.
    seq: u64,
    /// Where the next frame will be in the file.
    at: u64,
}

pub(super) struct Io {
    pub(super) file: Flock<File>,
    /// Where the next write goes: behind the last frame known to be whole.
    pub(super) end: u64,
    /// Length of the file: zeros from `end` on.
    pub(super) room: u64,
    /// Where the space ends that the file has on the disk; the highest number where the host reserves none.
    pub(super) reserved: u64,
    /// Frames taken from the buffer and not yet written.
    pub(super) pending: Vec<u8>,
    /// Number of the last record written.
    pub(super) seq: u64,
}

/// An open journal.
pub(crate) struct Journal {
    path: PathBuf,
    base: Base,
    buffer: Mutex<Buffer>,
    io: Mutex<Io>,
    /// Highest number whose record may be written: all it needs is durable.
    wanted: AtomicU64,
    durable: AtomicU64,
    length: AtomicU64,
    /// Bytes of frames not written yet.
    waiting: AtomicUsize,
    /// A sync failed: the kernel may have dropped what was written and would not say so again.
    failed: AtomicBool,
    /// The header and the file's name are durable.
    rooted: AtomicBool,
    /// Why space behind the end could not be reserved; 0: there is some.
    short: AtomicI32,
    /// Records up to this one are in the image.
    folded: AtomicU64,
    /// Length from which on folding is due.
    due: AtomicU64,
}

/// The state up to a record, encoded, on its way to replace the journal up to there.
pub(crate) struct Image {
    bytes: Vec<u8>,
    last: u64,
    /// Where the frames behind it begin in the old file.
    at: u64,
}

/// What a fold has just done; tests look at the files and break off at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Step {
    /// The image is in memory.
    Encoded,
    /// The content it speaks of and the journal up to it are durable.
    Settled,
    /// The new file is written,
    Written,
    /// and synced. Up to here nothing is locked.
    Synced,
    /// All that the old file holds behind the image is in it, durable.
    Copied,
    /// It has the journal's name.
    Renamed,
}

/// Told of each step; an error ends the fold there, as a failure of the step would.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(Step) -> Res<()>;

impl Image {
    /// Makes a journal of it, at a path where there is none.
    ///
    /// # Errors
    /// What the host answers.
    pub(crate) fn write(&self, path: &Path, flush: bool) -> Res<()> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|file| {
            file.write_all_at(&self.bytes, 0)?;
            if flush { file.sync_all() } else { Ok(()) }
        })
        .map_err(|e| errno(&e))
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish()
    }
}

/// Encodes the header of a journal with `image` image frames before record `first`.
fn header(base: Base, first: u64, image: u64) -> [u8; HEADER] {
    header_of(VERSION, base, first, image)
}

fn header_of(version: u32, base: Base, first: u64, image: u64) -> [u8; HEADER] {
    let mut h = [0u8; HEADER];
    h[..8].copy_from_slice(MAGIC);
    h[8..12].copy_from_slice(&version.to_le_bytes());
    h[16..24].copy_from_slice(&base.to_le_bytes());
    h[24..32].copy_from_slice(&first.to_le_bytes());
    h[32..40].copy_from_slice(&image.to_le_bytes());
    let crc = crc32fast::hash(&h[..40]);
    h[40..44].copy_from_slice(&crc.to_le_bytes());
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

/// Length of the frames at the front of `bytes` (whole ones of our own) that are numbered behind
/// `seq` up to `limit`, and the number of the last of them.
pub(super) fn up_to(bytes: &[u8], mut seq: u64, limit: u64) -> (usize, u64) {
    let mut at = 0;
    while seq < limit
        && let Some(len) = bytes.get(at..).and_then(|b| b.first_chunk::<4>())
    {
        at += FRAME + u32::from_le_bytes(*len) as usize;
        seq += 1;
    }
    (at, seq)
}

/// What a header says: number of the first record, and of frames in the image.
fn parse_header(head: &[u8; HEADER], base: Base) -> Result<(u64, u64)> {
    let field = |at: usize| {
        let mut v = [0; 8];
        v.copy_from_slice(&head[at..at + 8]);
        u64::from_le_bytes(v)
    };
    let (theirs, first, image) = (field(16), field(24), field(32));
    let version = version(head).unwrap_or(VERSION);
    if *head != header_of(version, theirs, first, image) || first == 0 {
        return Err(failed("not a journal, or a damaged header").into());
    }
    if theirs != base {
        return Err(failed("the upper belongs to another lower (image or directory)").into());
    }
    Ok((first, image))
}

/// The version that a header names, if it is one.
fn version(head: &[u8]) -> Option<u32> {
    let (number, _) = head.strip_prefix(MAGIC)?.split_first_chunk()?;
    Some(u32::from_le_bytes(*number))
}

/// Refuses the journal of a version of rless that this one does not read. Whether it is an older one.
fn check_version(bytes: &[u8]) -> Result<bool> {
    if let Some(version) = version(bytes) {
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(failed(format!(
                "the upper was written by another version of rless: its journal has format {version}, this one reads {OLDEST} to {VERSION}"
            ))
            .into());
        }
        return Ok(version < VERSION);
    }
    Ok(false)
}

/// From here on the journal has records that an older rless would take for damage: it is to say so itself. One write inside
/// a sector: the header of before or this one.
fn raise_version(file: &File, base: Base, found: &Found) -> std::io::Result<()> {
    file.write_all_at(&header(base, found.folded + 1, found.frames), 0)?;
    file.sync_all()
}

/// What is in a journal's file.
struct Found {
    /// Number of the record before the first one.
    folded: u64,
    /// Length of header and image,
    image: u64,
    /// and how many frames the image has.
    frames: u64,
    /// Number of the last record.
    seq: u64,
    /// Where it ends.
    end: u64,
    /// Length of what is behind it, zeros at its end left out,
    tail: usize,
    /// and whether a whole frame is in there.
    gap: bool,
}

/// Hands every record to `replay`.
fn scan(
    bytes: &[u8],
    base: Base,
    replay: &mut dyn FnMut(u64, Record<'_>) -> Result<()>,
) -> Result<Found> {
    let (head, mut rest) = bytes
        .split_first_chunk::<HEADER>()
        .context("journal without a header")?;
    let (first, image) = parse_header(head, base)?;
    let mut apply = |seq: u64, body: &[u8]| -> Result<()> {
        let parts = match Record::decode(body)? {
            Record::Together(parts) => parts,
            record => vec![record],
        };
        let mut each = parts.into_iter();
        each.try_for_each(|record| replay(seq, record))
            .with_context(|| format!("record {seq}"))
    };
    for i in 0..image {
        let (body, behind) = split_frame(rest, IMAGE | i)
            .with_context(|| format!("its folded part is damaged, at entry {i} of {image}"))?;
        apply(0, body).with_context(|| format!("entry {i} of its folded part"))?;
        rest = behind;
    }
    let folded = first - 1;
    let (frames, image) = (image, (bytes.len() - rest.len()) as u64);
    let mut seq = folded;
    while let Some((body, behind)) = split_frame(rest, seq + 1) {
        apply(seq + 1, body)?;
        seq += 1;
        rest = behind;
    }
    let tail = rest.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    Ok(Found {
        folded,
        image,
        frames,
        seq,
        end: (bytes.len() - rest.len()) as u64,
        tail,
        gap: goes_on(&rest[..tail], seq),
    })
}

/// Whether a file's bytes begin as a journal: not with zeros, which a crash may have left of a header.
fn has_begun(bytes: &[u8]) -> bool {
    let head = bytes.get(..HEADER);
    head.is_some_and(|h| h.iter().any(|b| *b != 0))
}

/// Makes a journal of a new file, or of one whose header a crash kept from the disk: nothing was promised yet. It gets
/// there with [`Journal::root`].
fn begin(file: &File, base: Base) -> std::io::Result<Found> {
    file.set_len(0)?;
    file.write_all_at(&header(base, 1, 0), 0)?;
    let end = HEADER as u64;
    Ok(Found {
        folded: 0,
        image: end,
        frames: 0,
        seq: 0,
        end,
        tail: 0,
        gap: false,
    })
}

/// Opens and locks the file at `path`.
fn locked(path: &Path) -> Result<Flock<File>> {
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
    // A server that folded it while we waited has locked its own new file.
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| {
        use std::os::unix::fs::MetadataExt;
        (a.dev(), a.ino()) == (b.dev(), b.ino())
    };
    let (ours, there) = (file.metadata(), std::fs::metadata(path));
    if !ours.and_then(|o| Ok(same(&o, &there?))).unwrap_or(false) {
        return Err(failed(format!("journal {} is in use", path.display())).into());
    }
    Ok(file)
}

/// Length from which on a journal is folded that was `folded` long after the last time.
fn due(folded: u64) -> u64 {
    SHORT.max(WORTH.saturating_mul(folded))
}

impl Journal {
    /// The journal at `path` has a header: without one it is new, or something took it away.
    pub(crate) fn started(path: &Path) -> bool {
        let mut head = [0; HEADER];
        let read = File::open(path).and_then(|f| f.read_exact_at(&mut head, 0));
        read.is_ok() && has_begun(&head)
    }

    /// Where records lie that were behind damage, if there ever were any.
    pub(crate) fn cut_part(path: &Path) -> Option<PathBuf> {
        Some(path.with_extension(CUT)).filter(|cut| cut.exists())
    }

    /// The journal at `path` has more than a header.
    pub(crate) fn begun(path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|m| m.len() > HEADER as u64)
    }

    /// Opens or makes the journal at `path` and hands every whole record to `replay` with its
    /// number (0 for the image's), oldest first; a damaged tail is cut off. The journal stays
    /// locked against a second server. What was handed over is durable when this returns.
    ///
    /// # Errors
    /// The file cannot be opened, is locked, is of another version, is damaged before its tail, or
    /// belongs to another base; or `replay` fails.
    pub(crate) fn open(
        path: &Path,
        base: Base,
        mut replay: impl FnMut(u64, Record<'_>) -> Result<()>,
    ) -> Result<Journal> {
        let file = locked(path)?;
        // Of a fold that was killed.
        let _ = std::fs::remove_file(path.with_extension("tmp"));
        let mut bytes = Vec::new();
        (&*file)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading journal {}", path.display()))?;
        let older =
            check_version(&bytes).with_context(|| format!("opening journal {}", path.display()))?;
        let mut room = bytes.len() as u64;
        let begun = has_begun(&bytes);
        let found = if !begun {
            room = HEADER as u64;
            begin(&file, base).with_context(|| format!("starting journal {}", path.display()))?
        } else {
            scan(&bytes, base, &mut replay)
                .with_context(|| format!("opening journal {}", path.display()))?
        };
        if older {
            raise_version(&file, base, &found)
                .with_context(|| format!("raising the version of {}", path.display()))?;
        }
        if found.tail > 0 {
            log::warn!(
                "journal {}: {} bytes behind record {} are no whole records and were cut",
                path.display(),
                found.tail,
                found.seq
            );
            if found.gap {
                let end = found.end as usize;
                keep_cut(path, &bytes[end..end + found.tail])
                    .with_context(|| format!("keeping the damaged part of {}", path.display()))?;
            }
            file.set_len(found.end)
                .and_then(|()| file.sync_all())
                .with_context(|| format!("cutting the torn tail of {}", path.display()))?;
            room = found.end;
        }
        if found.seq > 0 || found.image > HEADER as u64 {
            // Read is not durable: who wrote it may have been killed before its sync, and so may
            // a fold between its rename and the directory's.
            file.sync_all()
                .and_then(|()| sync_parent(path))
                .with_context(|| format!("syncing journal {}", path.display()))?;
        }
        let journal = Journal {
            path: path.to_owned(),
            base,
            buffer: Mutex::new(Buffer {
                bytes: Vec::new(),
                seq: found.seq,
                at: found.end,
            }),
            io: Mutex::new(Io {
                file,
                end: found.end,
                room,
                reserved: room,
                pending: Vec::new(),
                seq: found.seq,
            }),
            rooted: AtomicBool::new(found.seq > 0 || found.image > HEADER as u64),
            short: AtomicI32::new(0),
            waiting: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            wanted: AtomicU64::new(found.seq),
            durable: AtomicU64::new(found.seq),
            length: AtomicU64::new(found.end),
            folded: AtomicU64::new(found.folded),
            due: AtomicU64::new(due(found.image)),
        };
        if found.seq > 0 {
            journal.top_up(&mut lk(&journal.io));
        }
        Ok(journal)
    }

    /// Appends a record to the buffer; returns its number. After one that is longer than a record can be no sync succeeds
    /// any more: the caller sees to it that there is none.
    pub(crate) fn append(&self, record: &Record<'_>) -> u64 {
        thread_local!(static BODY: std::cell::RefCell<Vec<u8>> =
            const { std::cell::RefCell::new(Vec::new()) });
        BODY.with_borrow_mut(|body| {
            body.clear();
            record.encode(body);
            if body.len() > LONGEST {
                // It would be taken for damage: nothing behind it could ever be read.
                self.fail();
                body.clear();
                body.shrink_to(1 << 17);
                return self.last();
            }
            let length = FRAME + body.len();
            self.waiting.fetch_add(length, Ordering::Relaxed);
            let mut b = lk(&self.buffer);
            b.seq += 1;
            b.at += length as u64;
            let seq = b.seq;
            frame(seq, body, &mut b.bytes);
            drop(b);
            body.shrink_to(1 << 17);
            seq
        })
    }

    /// Number of the last record appended.
    pub(crate) fn last(&self) -> u64 {
        lk(&self.buffer).seq
    }

    /// Bytes that wait in memory.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Lets no later sync succeed: something that records speak of is lost.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    fn intact(&self) -> Res<()> {
        match self.failed.load(Ordering::Acquire) {
            true => Err(Errno::EIO),
            false => Ok(()),
        }
    }

    /// Number of the last record that survives a power cut.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Number of the last record that the image holds.
    pub(crate) fn folded(&self) -> u64 {
        self.folded.load(Ordering::Acquire)
    }

    /// Whether it is time to fold it.
    pub(crate) fn is_long(&self) -> bool {
        self.length.load(Ordering::Relaxed) > self.due.load(Ordering::Relaxed)
    }

    /// Folding did not work: not again before there is much more of it.
    pub(crate) fn put_off(&self) {
        let length = self.length.load(Ordering::Relaxed);
        self.due
            .store(length.saturating_add(length.max(SHORT)), Ordering::Relaxed);
    }

    /// Makes every record up to `seq` durable; of those behind it only what others asked for.
    /// `ahead`: the file may be written ahead, more of this is to be expected.
    ///
    /// # Errors
    /// What the write failed with: the next call tries again. What the sync failed with: then `EIO` for good, since
    /// records after a hole would be cut at the next open; what was durable before stays so.
    pub(crate) fn sync(&self, seq: u64, ahead: bool) -> Res<()> {
        self.wanted.fetch_max(seq, Ordering::AcqRel);
        if self.durable() >= seq {
            return Ok(());
        }
        self.root()?;
        let mut io = lk(&self.io);
        if self.durable() >= seq {
            return Ok(());
        }
        self.intact()?;
        let written = self.write_out(&mut io, ahead);
        if written.is_err() && self.durable() == io.seq {
            return written;
        }
        if let Err(e) = io.file.sync_data() {
            self.fail();
            return Err(errno(&e));
        }
        self.durable.store(io.seq, Ordering::Release);
        self.top_up(&mut io);
        if io.seq >= seq { Ok(()) } else { written }
    }

    /// Lets no write and no sync of the file go on meanwhile: a disk that is slow.
    #[cfg(test)]
    pub(crate) fn stalled(&self) -> impl Drop + '_ {
        lk(&self.io)
    }

    /// Makes the header of a new journal and its name durable: before there is any content, so that content without a
    /// journal is known for damage, and before anything is promised.
    ///
    /// # Errors
    /// As fsync(2).
    pub(crate) fn root(&self) -> Res<()> {
        if self.rooted.load(Ordering::Acquire) {
            return Ok(());
        }
        let io = lk(&self.io);
        io.file
            .sync_all()
            .and_then(|()| sync_parent(&self.path))
            .map_err(|e| errno(&e))?;
        self.rooted.store(true, Ordering::Release);
        Ok(())
    }

    /// Reserves space behind the end if little is left.
    fn top_up(&self, io: &mut Io) {
        let mut short = 0;
        if io.reserved.max(io.room) - io.end < RESERVE_LEFT
            && let Err(e) = io.reserve(io.end + RESERVE)
        {
            short = e as i32;
        }
        self.short.store(short, Ordering::Relaxed);
    }

    /// Why the space behind the end is little and cannot be made more, if that is so: tries again.
    ///
    /// # Errors
    /// `ENOSPC`, `EDQUOT`.
    pub(crate) fn refill(&self) -> Res<()> {
        if self.short.load(Ordering::Relaxed) != 0 {
            self.top_up(&mut lk(&self.io));
        }
        match self.short.load(Ordering::Relaxed) {
            0 => Ok(()),
            e => Err(Errno::from_raw(e)),
        }
    }

    /// Whether what is left behind the end is for removals.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed) != 0
    }

    /// Hands the frames that are wanted to the kernel with one write, without waiting for the disk.
    fn write_out(&self, io: &mut Io, ahead: bool) -> Res<()> {
        {
            let mut b = lk(&self.buffer);
            if io.pending.is_empty() {
                std::mem::swap(&mut io.pending, &mut b.bytes);
            } else {
                io.pending.append(&mut b.bytes);
            }
        }
        let wanted = self.wanted.load(Ordering::Acquire);
        let (mut n, mut seq) = up_to(&io.pending, io.seq, wanted);
        if n == 0 {
            return Ok(());
        }
        let end = io.end + n as u64;
        if ahead && end > io.room {
            write_ahead(io, end);
        }
        let put = |io: &Io, n: usize| {
            let put = io.file.write_all_at(&io.pending[..n], io.end);
            put.map_err(|e| errno(&e))
        };
        let mut written = put(io, n);
        if let Err(Errno::ENOSPC | Errno::EDQUOT) = written {
            (n, seq) = fitting(io, wanted);
            if n > 0 && put(io, n).is_err() {
                n = 0;
            }
        }
        if written.is_err() && n == 0 {
            // A part may be there: it is behind `end` and overwritten by the next attempt.
            return written;
        }
        let end = io.end + n as u64;
        if seq == wanted {
            written = Ok(());
        }
        (io.end, io.seq) = (end, seq);
        io.room = io.room.max(end);
        io.pending.drain(..n);
        self.waiting.fetch_sub(n, Ordering::Relaxed);
        if io.pending.is_empty() && io.pending.capacity() > 1 << 20 {
            io.pending = Vec::new();
        }
        self.length.store(io.end, Ordering::Relaxed);
        written
    }

    /// Encodes the state that `write` gives as of the last record. Nothing may be appended
    /// meanwhile: the caller sees to it.
    ///
    /// # Errors
    /// `EFBIG` where a record would be longer than one can be.
    pub(crate) fn image(&self, write: impl FnOnce(&mut dyn FnMut(&Record<'_>))) -> Res<Image> {
        let mut bytes = vec![0; HEADER];
        let mut body = Vec::new();
        let (mut n, mut fits) = (0, true);
        write(&mut |record| {
            body.clear();
            record.encode(&mut body);
            fits &= body.len() <= LONGEST;
            if fits {
                frame(IMAGE | n, &body, &mut bytes);
                n += 1;
            }
        });
        if !fits {
            return Err(Errno::EFBIG);
        }
        let b = lk(&self.buffer);
        bytes[..HEADER].copy_from_slice(&header(self.base, b.seq + 1, n));
        Ok(Image {
            bytes,
            last: b.seq,
            at: b.at,
        })
    }

    /// Puts `image` in the place of all records up to its own, which are durable.
    ///
    /// # Errors
    /// What the host answers. The old journal stays and goes on, unless the directory could not be
    /// synced: then every later [`Journal::sync`] fails.
    pub(crate) fn adopt(&self, image: Image, watch: Watch<'_>) -> Res<()> {
        if self.durable() < image.last {
            return Err(Errno::EBUSY);
        }
        let tmp = self.path.with_extension("tmp");
        let _ = std::fs::remove_file(&tmp);
        let made = self.replace(image, &tmp, watch);
        if made.is_err() {
            let _ = std::fs::remove_file(&tmp);
        }
        made
    }

    fn replace(&self, image: Image, tmp: &Path, watch: Watch<'_>) -> Res<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(tmp)
            .map_err(|e| errno(&e))?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)?;
        file.write_all_at(&image.bytes, 0).map_err(|e| errno(&e))?;
        let (len, last) = (image.bytes.len() as u64, image.last);
        drop(image.bytes);
        watch(Step::Written)?;
        // What the others append meanwhile: most of it while they go on.
        let old = lk(&self.io).file.try_clone().map_err(|e| errno(&e))?;
        let mut from = image.at;
        let place = |at: u64| at - image.at + len;
        let to = self.length.load(Ordering::Relaxed).max(from);
        copy(&old, from..to, &file, place(from))?;
        from = to;
        file.sync_all().map_err(|e| errno(&e))?;
        watch(Step::Synced)?;
        let mut io = lk(&self.io);
        self.intact()?;
        copy(&old, from..io.end, &file, place(from))?;
        file.sync_all().map_err(|e| errno(&e))?;
        watch(Step::Copied)?;
        std::fs::rename(tmp, &self.path).map_err(|e| errno(&e))?;
        let named = watch(Step::Renamed).and_then(|()| {
            let dir = self.path.parent().ok_or(Errno::ENOENT)?;
            File::open(dir)
                .and_then(|d| d.sync_all())
                .map_err(|e| errno(&e))
        });
        if named.is_err() {
            self.fail();
        }
        io.end = place(io.end);
        (io.room, io.reserved) = (io.end, io.end);
        io.file = file;
        self.top_up(&mut io);
        let mut b = lk(&self.buffer);
        b.at = place(b.at);
        drop(b);
        if named.is_ok() {
            self.durable.fetch_max(io.seq, Ordering::AcqRel);
            self.folded.store(last, Ordering::Release);
        }
        self.length.store(io.end, Ordering::Relaxed);
        self.due.store(due(len), Ordering::Relaxed);
        named
    }
}

/// Copies a part of `from` to `at` in `to`.
fn copy(from: &File, range: std::ops::Range<u64>, to: &File, mut at: u64) -> Res<()> {
    let mut buf = vec![0; 1 << 16];
    let mut pos = range.start;
    while pos < range.end {
        let n = (range.end - pos).min(buf.len() as u64) as usize;
        from.read_exact_at(&mut buf[..n], pos)
            .and_then(|()| to.write_all_at(&buf[..n], at))
            .map_err(|e| errno(&e))?;
        pos += n as u64;
        at += n as u64;
    }
    Ok(())
}
