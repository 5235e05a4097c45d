//! The metadata journal of an upper.
//!
//! An append-only file of checksummed records; an upper's whole state is its replay over the
//! lower. [`record`] is the format (pure, fuzzable), [`file`] the file around it.
//!
//! ```text
//! header   magic "rlessjnl" | version u32 | 0 u32 | base u64 | crc32 of the above u32 | 0 u32
//! frame    len u32 | crc32 u32 | seq u64 | type u8 | payload        (len counts type and payload;
//!                                                                    crc covers seq, type, payload)
//! ```
//!
//! All integers are little-endian. `base` names the lower the inode numbers belong to: a journal
//! never opens over another image. Frames are numbered without gaps from the first; the first
//! frame that is short, fails its checksum or breaks the numbering ends the journal and is cut
//! off on open: a torn or flipped tail is never trusted. A checkpoint is the same format, written
//! beside and renamed over.

pub(crate) mod file;
pub(crate) mod record;

pub(crate) use file::Journal;
pub(crate) use record::Record;
