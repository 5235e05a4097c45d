//! Journal records: what they mean and how they are encoded. Pure.
//!
//! Records carry final values, so that replaying one twice is harmless where the operation allows
//! it. The list of a file's blocks is the exception: a `Data` record that is not `full` adds to
//! what the records before it said, so that many small fsyncs of one scattered file do not write
//! its whole list each. Strings are a 32-bit length and bytes; times are `i64` seconds and `u32`
//! nanoseconds.
//!
//! A `Data` record is one of two kinds. Without `redo` its data file was synced before it became
//! durable: whatever redo there was of that file is void. With `redo` it carries the bytes of every
//! block written since the file's last record, and replay puts them into the data file (making it,
//! if it is missing): one record, so both or none.
//!
//! An operation that needs two records (a rename that leaves a whiteout) has them `Together`, in one frame.

use crate::cow::meta::{BLOCK, Meta, SIZE_MAX, Time};

/// Longest file of a lower (`loff_t`).
const LOW_MAX: u64 = i64::MAX.cast_unsigned();

/// Type of a record of several parts.
const TOGETHER: u8 = 13;
/// Type of a size with content at its edges.
const EDGES: u8 = 14;

/// Names and values of extended attributes.
pub(crate) type XattrList<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Where a file's content is: blocks of the data file, the rest from the lower below `base_len`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Extents {
    /// Data file, 0 for none; with the top bit set the place in an arena where the file's blocks begin.
    pub data_id: u64,
    /// Bytes of the lower content that show through where `blocks` has nothing.
    pub base_len: u64,
    /// `blocks` are all there are; otherwise they are added to those known of the same data file.
    pub full: bool,
    /// Half-open ranges of 4 KiB blocks that are in the data file.
    pub blocks: Vec<(u64, u64)>,
}

/// Bytes of a data file from an offset on that is a block's start.
pub(crate) type Piece<'a> = (u64, std::borrow::Cow<'a, [u8]>);

/// One change. Times named `time` become mtime and ctime of directories, ctime of what they name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A new inode of any kind; an empty name makes an unnamed file (`O_TMPFILE`).
    Create {
        parent: u64,
        ino: u64,
        name: &'a [u8],
        meta: Meta,
        target: &'a [u8],
        xattrs: XattrList<'a>,
    },
    /// Another name for an inode.
    Link {
        parent: u64,
        ino: u64,
        name: &'a [u8],
        time: Time,
    },
    /// A name goes: of a file, or of an empty directory.
    Unlink {
        parent: u64,
        name: &'a [u8],
        time: Time,
    },
    /// `flags` as renameat2; a whiteout left behind is a `Create` together with it.
    Rename {
        parent: u64,
        name: &'a [u8],
        newparent: u64,
        newname: &'a [u8],
        flags: u32,
        time: Time,
    },
    /// Mode bits, owner and times of an inode, all of them.
    Attr {
        ino: u64,
        mode: u32,
        uid: u32,
        gid: u32,
        atime: Time,
        mtime: Time,
        ctime: Time,
    },
    /// Sets (or with `None` removes) an attribute; `mode` is the mode after it.
    Xattr {
        ino: u64,
        name: &'a [u8],
        value: Option<&'a [u8]>,
        mode: u32,
        ctime: Time,
    },
    /// A truncation or extension. Needs no data to be durable before it. `edges`: blocks that an end lies in, of
    /// before or after it, whole.
    Size {
        ino: u64,
        size: u64,
        time: Time,
        edges: Vec<Piece<'a>>,
    },
    /// Content: durable before this record is, or with it (`redo`, ascending).
    Data {
        ino: u64,
        size: u64,
        mtime: Time,
        ctime: Time,
        extents: Extents,
        redo: Option<Vec<Piece<'a>>>,
    },
    /// An inode number given to a path of a host-directory lower.
    Bind { ino: u64, path: &'a [u8] },
    /// A whole inode, as checkpoints write it. `base`: a lower inode of the same number is below.
    Node {
        ino: u64,
        parent: u64,
        base: bool,
        meta: Meta,
        target: &'a [u8],
        xattrs: Option<XattrList<'a>>,
        extents: Extents,
    },
    /// A directory's entry, as checkpoints write it; `ino` 0 hides the lower's entry.
    Entry {
        parent: u64,
        ino: u64,
        kind: u8,
        name: &'a [u8],
    },
    /// Every inode and data number below these has been given out, and every address in the arenas.
    Next { ino: u64, data_id: u64, arena: u64 },
    /// Changes that are one: all of them or none. Not to be nested; replay is handed the parts.
    Together(Vec<Record<'a>>),
}

/// Why a payload is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    /// The payload ends inside a field, or goes on behind the last.
    #[error("record of a wrong length")]
    Length,
    /// The record type is not known to this version.
    #[error("unknown record type {0}")]
    Type(u8),
    /// A field has a value it cannot have.
    #[error("impossible value in a record")]
    Value,
}

struct Out<'a>(&'a mut Vec<u8>);

impl Out<'_> {
    fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }
    fn bytes(&mut self, v: &[u8]) {
        self.u32(u32::try_from(v.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(v);
    }
    fn time(&mut self, t: Time) {
        self.0.extend_from_slice(&t.sec.to_le_bytes());
        self.u32(t.nsec);
    }
    fn meta(&mut self, m: &Meta) {
        for v in [m.mode, m.nlink, m.uid, m.gid, m.rdev] {
            self.u32(v);
        }
        self.u64(m.size);
        for t in [m.atime, m.mtime, m.ctime] {
            self.time(t);
        }
    }
    fn xattrs(&mut self, list: &XattrList<'_>) {
        self.u32(u32::try_from(list.len()).unwrap_or(u32::MAX));
        for (name, value) in list {
            self.bytes(name);
            self.bytes(value);
        }
    }
    fn extents(&mut self, x: &Extents) {
        self.u64(x.data_id);
        self.u64(x.base_len);
        self.u8(u8::from(x.full));
        self.u32(u32::try_from(x.blocks.len()).unwrap_or(u32::MAX));
        for (s, e) in &x.blocks {
            self.u64(*s);
            self.u64(*e);
        }
    }
    fn redo(&mut self, redo: Option<&Vec<Piece<'_>>>) {
        self.u8(u8::from(redo.is_some()));
        let Some(pieces) = redo else { return };
        self.u32(u32::try_from(pieces.len()).unwrap_or(u32::MAX));
        for (at, bytes) in pieces {
            self.u64(*at);
            self.bytes(bytes);
        }
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Bad::Length)?;
        self.0 = rest;
        Ok(*head)
    }
    fn u8(&mut self) -> Result<u8, Bad> {
        Ok(self.take::<1>()?[0])
    }
    fn flag(&mut self) -> Result<bool, Bad> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Bad::Value),
        }
    }
    fn u32(&mut self) -> Result<u32, Bad> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    fn u64(&mut self) -> Result<u64, Bad> {
        Ok(u64::from_le_bytes(self.take()?))
    }
    /// A number that an inode can have, and the one after it.
    fn ino(&mut self) -> Result<u64, Bad> {
        Some(self.u64()?).filter(|n| *n < 1 << 63).ok_or(Bad::Value)
    }
    /// A length of content. A host's file may be longer than ours ever get.
    fn size(&mut self, most: u64) -> Result<u64, Bad> {
        Some(self.u64()?).filter(|n| *n <= most).ok_or(Bad::Value)
    }
    fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let n = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(n).ok_or(Bad::Length)?;
        self.0 = rest;
        Ok(head)
    }
    fn time(&mut self) -> Result<Time, Bad> {
        let sec = i64::from_le_bytes(self.take()?);
        let nsec = self.u32()?;
        if nsec >= 1_000_000_000 {
            return Err(Bad::Value);
        }
        Ok(Time { sec, nsec })
    }
    fn meta(&mut self) -> Result<Meta, Bad> {
        Ok(Meta {
            mode: self.u32()?,
            nlink: self.u32()?,
            uid: self.u32()?,
            gid: self.u32()?,
            rdev: self.u32()?,
            size: self.size(LOW_MAX)?,
            atime: self.time()?,
            mtime: self.time()?,
            ctime: self.time()?,
        })
    }
    /// A count of items of at least `least` bytes each: never trusts it for an allocation.
    fn count(&mut self, least: usize) -> Result<usize, Bad> {
        let n = self.u32()? as usize;
        if n.saturating_mul(least) > self.0.len() {
            return Err(Bad::Length);
        }
        Ok(n)
    }
    fn xattrs(&mut self) -> Result<XattrList<'a>, Bad> {
        let n = self.count(8)?;
        (0..n).map(|_| Ok((self.bytes()?, self.bytes()?))).collect()
    }
    fn extents(&mut self) -> Result<Extents, Bad> {
        let data_id = self.u64()?;
        let base_len = self.size(LOW_MAX)?;
        let full = self.flag()?;
        let n = self.count(16)?;
        let mut blocks = Vec::with_capacity(n);
        let mut last = 0;
        for _ in 0..n {
            let (s, e) = (self.u64()?, self.u64()?);
            if s >= e || (s < last) || e > u64::MAX >> 13 {
                return Err(Bad::Value);
            }
            last = e;
            blocks.push((s, e));
        }
        if !blocks.is_empty() && data_id == 0 {
            return Err(Bad::Value);
        }
        Ok(Extents {
            data_id,
            base_len,
            full,
            blocks,
        })
    }
    fn redo(&mut self) -> Result<Option<Vec<Piece<'a>>>, Bad> {
        if !self.flag()? {
            return Ok(None);
        }
        let n = self.count(12)?;
        let mut pieces = Vec::with_capacity(n);
        let mut last = 0;
        for _ in 0..n {
            let (at, bytes) = (self.u64()?, self.bytes()?);
            if bytes.is_empty() || !at.is_multiple_of(BLOCK) || at < last || at > SIZE_MAX {
                return Err(Bad::Value);
            }
            last = at + bytes.len() as u64;
            pieces.push((at, bytes.into()));
        }
        Ok(Some(pieces))
    }
}

impl<'a> Record<'a> {
    /// Appends type and payload to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut o = Out(out);
        match self {
            Record::Create {
                parent,
                ino,
                name,
                meta,
                target,
                xattrs,
            } => {
                o.u8(1);
                o.u64(*parent);
                o.u64(*ino);
                o.bytes(name);
                o.meta(meta);
                o.bytes(target);
                o.xattrs(xattrs);
            }
            Record::Link {
                parent,
                ino,
                name,
                time,
            } => {
                o.u8(2);
                o.u64(*parent);
                o.u64(*ino);
                o.bytes(name);
                o.time(*time);
            }
            Record::Unlink { parent, name, time } => {
                o.u8(3);
                o.u64(*parent);
                o.bytes(name);
                o.time(*time);
            }
            Record::Rename {
                parent,
                name,
                newparent,
                newname,
                flags,
                time,
            } => {
                o.u8(4);
                o.u64(*parent);
                o.bytes(name);
                o.u64(*newparent);
                o.bytes(newname);
                o.u32(*flags);
                o.time(*time);
            }
            _ => self.encode_inode(&mut o),
        }
    }

    /// The records about one inode.
    fn encode_inode(&self, o: &mut Out<'_>) {
        match self {
            Record::Attr {
                ino,
                mode,
                uid,
                gid,
                atime,
                mtime,
                ctime,
            } => {
                o.u8(5);
                o.u64(*ino);
                o.u32(*mode);
                o.u32(*uid);
                o.u32(*gid);
                o.time(*atime);
                o.time(*mtime);
                o.time(*ctime);
            }
            Record::Xattr {
                ino,
                name,
                value,
                mode,
                ctime,
            } => {
                o.u8(6);
                o.u64(*ino);
                o.bytes(name);
                o.u8(u8::from(value.is_some()));
                o.bytes(value.unwrap_or_default());
                o.u32(*mode);
                o.time(*ctime);
            }
            Record::Size {
                ino,
                size,
                time,
                edges,
            } => {
                o.u8(if edges.is_empty() { 7 } else { EDGES });
                o.u64(*ino);
                o.u64(*size);
                o.time(*time);
                if !edges.is_empty() {
                    o.redo(Some(edges));
                }
            }
            Record::Data {
                ino,
                size,
                mtime,
                ctime,
                extents,
                redo,
            } => {
                o.u8(8);
                o.u64(*ino);
                o.u64(*size);
                o.time(*mtime);
                o.time(*ctime);
                o.extents(extents);
                o.redo(redo.as_ref());
            }
            Record::Bind { ino, path } => {
                o.u8(9);
                o.u64(*ino);
                o.bytes(path);
            }
            _ => self.encode_checkpoint(o),
        }
    }

    /// The records only checkpoints hold, and those of several parts.
    fn encode_checkpoint(&self, o: &mut Out<'_>) {
        match self {
            Record::Node {
                ino,
                parent,
                base,
                meta,
                target,
                xattrs,
                extents,
            } => {
                o.u8(10);
                o.u64(*ino);
                o.u64(*parent);
                o.u8(u8::from(*base));
                o.meta(meta);
                o.bytes(target);
                o.u8(u8::from(xattrs.is_some()));
                if let Some(list) = xattrs {
                    o.xattrs(list);
                }
                o.extents(extents);
            }
            Record::Entry {
                parent,
                ino,
                kind,
                name,
            } => {
                o.u8(11);
                o.u64(*parent);
                o.u64(*ino);
                o.u8(*kind);
                o.bytes(name);
            }
            Record::Next {
                ino,
                data_id,
                arena,
            } => {
                o.u8(12);
                o.u64(*ino);
                o.u64(*data_id);
                o.u64(*arena);
            }
            Record::Together(parts) => {
                o.u8(TOGETHER);
                o.u32(u32::try_from(parts.len()).unwrap_or(u32::MAX));
                let mut one = Vec::new();
                for part in parts {
                    one.clear();
                    part.encode(&mut one);
                    o.bytes(&one);
                }
            }
            _ => {}
        }
    }

    /// Decodes type and payload.
    ///
    /// # Errors
    /// [`Bad`] for anything but exactly one record.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Record<'a>, Bad> {
        let mut i = In(bytes);
        let record = match i.u8()? {
            1 => Record::Create {
                parent: i.u64()?,
                ino: i.ino()?,
                name: i.bytes()?,
                meta: i.meta()?,
                target: i.bytes()?,
                xattrs: i.xattrs()?,
            },
            2 => Record::Link {
                parent: i.u64()?,
                ino: i.u64()?,
                name: i.bytes()?,
                time: i.time()?,
            },
            3 => Record::Unlink {
                parent: i.u64()?,
                name: i.bytes()?,
                time: i.time()?,
            },
            4 => Record::Rename {
                parent: i.u64()?,
                name: i.bytes()?,
                newparent: i.u64()?,
                newname: i.bytes()?,
                flags: i.u32()?,
                time: i.time()?,
            },
            kind => Self::decode_inode(kind, &mut i)?,
        };
        if i.0.is_empty() {
            Ok(record)
        } else {
            Err(Bad::Length)
        }
    }

    fn decode_parts(i: &mut In<'a>) -> Result<Record<'a>, Bad> {
        let n = i.count(5)?;
        let parts = (0..n).map(|_| match i.bytes()? {
            [TOGETHER, ..] => Err(Bad::Value),
            part => Record::decode(part),
        });
        parts.collect::<Result<_, _>>().map(Record::Together)
    }

    fn decode_inode(kind: u8, i: &mut In<'a>) -> Result<Record<'a>, Bad> {
        Ok(match kind {
            5 => Record::Attr {
                ino: i.u64()?,
                mode: i.u32()?,
                uid: i.u32()?,
                gid: i.u32()?,
                atime: i.time()?,
                mtime: i.time()?,
                ctime: i.time()?,
            },
            6 => {
                let (ino, name) = (i.u64()?, i.bytes()?);
                let (some, value) = (i.flag()?, i.bytes()?);
                Record::Xattr {
                    ino,
                    name,
                    value: some.then_some(value),
                    mode: i.u32()?,
                    ctime: i.time()?,
                }
            }
            7 | EDGES => Record::Size {
                ino: i.u64()?,
                size: i.size(SIZE_MAX)?,
                time: i.time()?,
                edges: match kind {
                    EDGES => i.redo()?.filter(|e| !e.is_empty()).ok_or(Bad::Value)?,
                    _ => Vec::new(),
                },
            },
            8 => Record::Data {
                ino: i.u64()?,
                size: i.size(LOW_MAX)?,
                mtime: i.time()?,
                ctime: i.time()?,
                extents: i.extents()?,
                redo: i.redo()?,
            },
            9 => Record::Bind {
                ino: i.u64()?,
                path: i.bytes()?,
            },
            10 => {
                let (ino, parent, base) = (i.ino()?, i.u64()?, i.flag()?);
                let (meta, target) = (i.meta()?, i.bytes()?);
                let xattrs = if i.flag()? { Some(i.xattrs()?) } else { None };
                Record::Node {
                    ino,
                    parent,
                    base,
                    meta,
                    target,
                    xattrs,
                    extents: i.extents()?,
                }
            }
            11 => Record::Entry {
                parent: i.u64()?,
                ino: i.u64()?,
                kind: i.u8()?,
                name: i.bytes()?,
            },
            12 => Record::Next {
                ino: i.ino()?,
                data_id: i.u64()?,
                arena: i.u64()?,
            },
            TOGETHER => Self::decode_parts(i)?,
            other => return Err(Bad::Type(other)),
        })
    }
}

#[cfg(test)]
mod tests;
