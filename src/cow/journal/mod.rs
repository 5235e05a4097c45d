//! The metadata journal of an upper.
//!
//! An append-only file of checksummed records; an upper's whole state is its replay over the
//! lower. [`record`] is the format (pure, fuzzable), [`file`] the file around it.
//!
//! ```text
//! header   magic "rlessjnl" | version u32 | 0 u32 | base u64 | first u64 | image u64
//!          | crc32 of the above u32 | 0 u32
//! frame    len u32 | crc32 u32 | seq u64 | type u8 | payload        (len counts type and payload;
//!                                                                    crc covers seq, type, payload)
//! ```
//!
//! Version 4. One of version 3 had no records of two parts and no edges of sizes: it is read, and its header is made one of version 4
//! before anything is written behind it, since an older rless takes those for damage.
//!
//! All integers are little-endian. `base` names the lower the inode numbers belong to: a journal
//! never opens over another image. The first `image` frames are the *image*: the whole state as
//! it was when the journal was last folded, numbered from 0 with the top bit set. The records
//! follow, numbered without gaps from `first`; numbers go on over a fold, so that whoever waits
//! for a record to be durable need not know of it.
//!
//! # Ends
//!
//! Behind the records there may be zeros: once programs call fsync the file is written ahead (as
//! much again as it is long, 4 KiB to 1 MiB), so that a sync changes no length and the host's file
//! system has nothing to commit but the bytes. A frame never has the length 0: nothing but zeros
//! is the clean end, and the room is used again. Anything else that is not the next whole frame
//! (short, wrong checksum, wrong number, garbage behind a zero length) is a torn tail: it is cut
//! off on open and the cut made durable before anything is appended, so that no frame behind a
//! tear can ever follow a new one. What is read on open may be in the page cache only (its writer was killed
//! before the sync): file and directory are synced before anything is done on the strength of it. The image was durable before the journal got its name: a bad
//! frame in it is damage and refused. A new journal's header and name are not synced at a start but before the first
//! content is made and before the first records are: a file whose header is short or all zeros has been promised to nobody, and begins
//! anew. Where there is content all the same, something took the journal away: that is refused.
//!
//! # Order on disk
//!
//! Records are buffered; a sync writes the frames up to the number asked for and no further,
//! because the records behind it may not be durable yet: a `Data` record can be *held* until its
//! data file is synced (see `upper/flush.rs`). Concurrent syncs share one flush: each says first
//! which number it wants, and who writes goes up to the highest.
//!
//! # Folding
//!
//! The journal is replaced by its image while it is in use. The caller keeps appenders out while
//! the image is encoded in memory (`image`), and lets them in again; then makes the content it
//! speaks of and every record in it durable; then `adopt` writes and syncs the image beside, adds
//! the frames that were written to the old file meanwhile, and renames it over. Only the last of
//! these frames are copied with syncs locked out. Frames still in the buffer go to the new file as
//! they would have gone to the old one. Until the rename the old journal is whole and goes on; a
//! failure before it costs nothing. If the directory's sync after it fails, which of both a power
//! cut would leave is unknown: then no sync succeeds any more.

pub(crate) mod file;
pub(crate) mod record;
mod room;
mod tail;
#[cfg(test)]
mod tests;

pub(crate) use file::{Journal, Step};
pub(crate) use record::Record;
