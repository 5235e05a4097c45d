//! An entry out of its header and the extended headers before it.

use super::header::{Header, text};
use super::pax::{self, Pax};
use super::{Entry, Invalid, Kind, Segment, invalid};
use crate::cow::index::{PATH_MAX, Time, name_allowed};

/// The largest size that eleven octal digits hold.
const MAX_OCTAL: u64 = 0o777_7777_7777;
/// The largest id: 2³²-1 is "no id" to the kernel.
const MAX_ID: u64 = u32::MAX as u64 - 1;

/// Extended headers seen before an entry's own.
#[derive(Default)]
pub(super) struct Pending {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// How the content of an entry is stored.
pub(super) enum Sparse {
    /// As it is.
    No,
    /// Segments, of a file of this size.
    Map(Vec<Segment>, u64),
    /// The first segments; whether extension blocks with more follow; the file's size.
    Gnu(Vec<Segment>, bool, u64),
    /// The map is before the content; the file's size.
    InBody(u64),
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.pax.is_none()
    }

    /// Takes in the content of an extended header.
    pub(super) fn add(&mut self, flag: u8, bytes: &[u8]) -> Result<(), Invalid> {
        match flag {
            b'x' => put(&mut self.pax, pax::parse(bytes)?),
            b'L' => put(&mut self.name, long(bytes)?),
            b'K' => put(&mut self.link, long(bytes)?),
            _ if self.is_empty() => pax::check_global(bytes),
            _ => invalid("a global header between an entry's own"),
        }
    }

    /// The entry's name as it is written, for messages too.
    pub(super) fn name<'a>(&'a self, header: &'a Header) -> &'a [u8] {
        let pax = self.pax.as_ref();
        let sparse = pax.and_then(|p| p.sparse.name.as_ref());
        let path = pax.and_then(|p| p.path.as_ref());
        sparse
            .or(path)
            .or(self.name.as_ref())
            .unwrap_or(&header.name)
    }

    fn link<'a>(&'a self, header: &'a Header) -> &'a [u8] {
        let path = self.pax.as_ref().and_then(|p| p.link.as_ref());
        path.or(self.link.as_ref()).unwrap_or(&header.link)
    }

    /// Readers differ in which of a GNU and a PAX name they prefer.
    fn agree(&self) -> Result<(), Invalid> {
        let Some(pax) = &self.pax else {
            return Ok(());
        };
        for (gnu, pax) in [(&self.name, &pax.path), (&self.link, &pax.link)] {
            if gnu.is_some() && pax.is_some() && gnu != pax {
                return invalid("a GNU and a PAX name that disagree");
            }
        }
        Ok(())
    }
}

fn put<T>(slot: &mut Option<T>, value: T) -> Result<(), Invalid> {
    if slot.is_some() {
        return invalid("two extended headers of one kind");
    }
    *slot = Some(value);
    Ok(())
}

/// A GNU long name: NUL-terminated.
fn long(bytes: &[u8]) -> Result<Vec<u8>, Invalid> {
    let name = text(bytes);
    if name.is_empty() || bytes[name.len()..].iter().any(|b| *b != 0) {
        return invalid("a malformed GNU long name");
    }
    Ok(name.to_vec())
}

/// The entry, the bytes that are stored for it, and how.
pub(super) fn compose(header: &Header, pending: Pending) -> Result<(Entry, u64, Sparse), Invalid> {
    pending.agree()?;
    let raw = pending.name(header);
    let path = normal_path(raw)?;
    let kind = kind(header, raw, pending.link(header))?;
    let mut pax = pending.pax.unwrap_or_default();
    let stored = stored_size(header.size, pax.size)?;
    if kind != Kind::File && stored != 0 {
        return invalid(format!(
            "{stored} bytes of content, but it is no regular file"
        ));
    }
    let sparse = sparse(header, &mut pax)?;
    if kind != Kind::File && !matches!(sparse, Sparse::No) {
        return invalid("sparse, but no regular file");
    }
    let seconds = |sec| Time { sec, nsec: 0 };
    let entry = Entry {
        path,
        kind,
        mode: header.mode,
        uid: id(header.uid, pax.uid, "uid")?,
        gid: id(header.gid, pax.gid, "gid")?,
        size: 0,
        mtime: pax.mtime.unwrap_or(seconds(header.mtime)),
        atime: pax.atime.or(header.atime.map(seconds)),
        ctime: pax.ctime.or(header.ctime.map(seconds)),
        xattrs: pax.xattrs,
        sparse: None,
        offset: 0,
    };
    Ok((entry, stored, sparse))
}

fn kind(header: &Header, name: &[u8], link: &[u8]) -> Result<Kind, Invalid> {
    let slash = name.ends_with(b"/");
    Ok(match header.flag {
        // V7 has no type for directories.
        0 if slash => Kind::Dir,
        b'0' | b'7' | b'S' if slash => return invalid("a regular file whose name ends in a slash"),
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::Hardlink(normal_path(link)?),
        b'2' if link.is_empty() || link.len() > PATH_MAX => {
            return invalid("a symbolic link to nothing, or to a path longer than Linux allows");
        }
        b'2' => Kind::Symlink(link.to_vec()),
        b'3' => {
            let (major, minor) = device(header)?;
            Kind::Char { major, minor }
        }
        b'4' => {
            let (major, minor) = device(header)?;
            Kind::Block { major, minor }
        }
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        flag => return invalid(format!("unknown entry type `{}`", [flag].escape_ascii())),
    })
}

/// Linux's device numbers: 12 and 20 bits.
fn device(header: &Header) -> Result<(u32, u32), Invalid> {
    match (u32::try_from(header.major), u32::try_from(header.minor)) {
        (Ok(major), Ok(minor)) if major < 1 << 12 && minor < 1 << 20 => Ok((major, minor)),
        _ => invalid(format!("device number {}:{}", header.major, header.minor)),
    }
}

fn id(header: i64, pax: Option<u64>, what: &str) -> Result<u32, Invalid> {
    let id = pax.or(u64::try_from(header).ok());
    match id.filter(|id| *id <= MAX_ID).map(u32::try_from) {
        Some(Ok(id)) => Ok(id),
        _ => invalid(format!(
            "{what} {}",
            id.map_or(header.to_string(), |id| id.to_string())
        )),
    }
}

/// The bytes that follow the header: see "Sizes" above.
fn stored_size(header: u64, pax: Option<u64>) -> Result<u64, Invalid> {
    let size = match pax {
        None => header,
        Some(size) if size == header || (header == 0 && size > MAX_OCTAL) => size,
        Some(size) => {
            return invalid(format!(
                "its sizes disagree: {header} in the header, {size} in PAX"
            ));
        }
    };
    if size > i64::MAX as u64 {
        return invalid(format!("a size of {size}"));
    }
    Ok(size)
}

fn sparse(header: &Header, pax: &mut Pax) -> Result<Sparse, Invalid> {
    if let Some((segments, more, size)) = &header.sparse {
        if pax.sparse.is_used() {
            return invalid("two kinds of sparse file at once");
        }
        return Ok(Sparse::Gnu(segments.clone(), *more, *size));
    }
    let s = &mut pax.sparse;
    if !s.is_used() {
        return Ok(Sparse::No);
    }
    match (s.major, s.minor, s.realsize, s.size) {
        (Some(1), Some(0), Some(size), None) if s.map.is_empty() && s.count.is_none() => {
            Ok(Sparse::InBody(size))
        }
        // 0.0 and 0.1 may say their version.
        (None, None, None, Some(size)) | (Some(0), Some(0 | 1), None, Some(size))
            if s.count == Some(s.map.len() as u64) =>
        {
            Ok(Sparse::Map(std::mem::take(&mut s.map), size))
        }
        _ => invalid("a malformed or unknown kind of sparse file"),
    }
}

/// Segments are in order, within the file, and together what is stored.
pub(super) fn check_segments(segments: &[Segment], size: u64, stored: u64) -> Result<(), Invalid> {
    let (mut end, mut sum) = (0, 0_u64);
    for segment in segments {
        let next = segment.offset.checked_add(segment.len);
        match next {
            Some(next) if segment.offset >= end && next <= size => end = next,
            _ => return invalid("sparse segments that overlap or leave the file"),
        }
        sum = sum.saturating_add(segment.len);
    }
    if sum != stored || size > i64::MAX as u64 {
        return invalid(format!("a sparse map of {sum} bytes for {stored} stored"));
    }
    Ok(())
}

/// Brings a path into normal form (see "Names" above).
fn normal_path(raw: &[u8]) -> Result<Vec<u8>, Invalid> {
    if raw.is_empty() || raw.contains(&0) {
        return invalid("an empty name, or one with a NUL");
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() && raw[0] != b'/' {
                    return invalid("a path that leads out of the root");
                }
            }
            part if name_allowed(part) => parts.push(part),
            _ => return invalid("a name longer than Linux allows"),
        }
    }
    let path = parts.join(&b'/');
    if path.len() > PATH_MAX {
        return invalid("a path longer than Linux allows");
    }
    Ok(path)
}

/// A path in normal form, or as it is when it has none.
#[cfg(test)]
pub(super) fn normal(raw: &[u8]) -> Vec<u8> {
    normal_path(raw).unwrap_or_else(|_| raw.to_vec())
}
