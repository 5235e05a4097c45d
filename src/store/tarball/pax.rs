//! PAX extended headers (POSIX.1-2017, pax, "pax Extended Header"), with GNU's and star's records.

use super::{Invalid, MAX_SEGMENTS, Segment, invalid};
use crate::cow::index::Time;

/// Attributes of one entry.
pub(crate) const MAX_XATTRS: usize = 1024;

/// The records of one extended header that say something to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) ctime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: GnuSparse,
}

/// `GNU.sparse.*`: version 1.0 has its map before the content, 0.1 in one record, 0.0 in many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GnuSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) realsize: Option<u64>,
    pub(super) count: Option<u64>,
    pub(super) map: Vec<Segment>,
    /// An offset whose length has not come yet.
    offset: Option<u64>,
}

impl GnuSparse {
    pub(super) fn is_used(&self) -> bool {
        *self != GnuSparse::default()
    }
}

/// Decodes the content of an `x` header.
pub(super) fn parse(bytes: &[u8]) -> Result<Pax, Invalid> {
    let mut pax = Pax::default();
    for record in records(bytes) {
        let (key, value) = record?;
        pax.add(key, value)?;
    }
    if pax.sparse.offset.is_some() {
        return invalid("a sparse offset without its length");
    }
    Ok(pax)
}

/// Checks the content of a `g` header, which is ignored otherwise: docker ignores global records, GNU tar obeys them, so
/// those on which the archive's structure hangs are refused.
pub(super) fn check_global(bytes: &[u8]) -> Result<(), Invalid> {
    for record in records(bytes) {
        let (key, _) = record?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return invalid(format!("a global `{}` record", key.escape_ascii()));
        }
    }
    Ok(())
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Invalid>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let record = record(bytes);
        bytes = record.as_ref().map_or(&[][..], |(_, rest)| rest);
        Some(record.map(|(record, _)| record))
    })
}

type Record<'a> = ((&'a [u8], &'a [u8]), &'a [u8]);

fn record(bytes: &[u8]) -> Result<Record<'_>, Invalid> {
    let malformed = || Invalid("a malformed PAX record".into());
    let space = bytes
        .iter()
        .take(8)
        .position(|b| *b == b' ')
        .ok_or_else(malformed)?;
    let length = decimal(&bytes[..space]).ok_or_else(malformed)?;
    let length = usize::try_from(length).map_err(|_| malformed())?;
    let (whole, rest) = bytes.split_at_checked(length).ok_or_else(malformed)?;
    let body = whole.get(space + 1..).and_then(|b| b.strip_suffix(b"\n"));
    let body = body.ok_or_else(malformed)?;
    let equals = body.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    if key.is_empty() || key.contains(&0) {
        return Err(malformed());
    }
    Ok(((key, value), rest))
}

impl Pax {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Invalid> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return self.xattr(name, value);
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.add(key, value);
        }
        // An empty value takes a record back: the header's own field counts.
        let given = (!value.is_empty()).then_some(value);
        let said = |key: &[u8]| format!("PAX record `{}`", key.escape_ascii());
        let number = || match given.map(decimal) {
            Some(None) => invalid(format!("{} is no number", said(key))),
            other => Ok(other.flatten()),
        };
        let time = || match given.map(time) {
            Some(None) => invalid(format!("{} is no time", said(key))),
            other => Ok(other.flatten()),
        };
        let text = || match given {
            Some(text) if text.contains(&0) => invalid(format!("{} with a NUL", said(key))),
            other => Ok(other.map(<[u8]>::to_vec)),
        };
        match key {
            b"path" => once(&mut self.path, text()?, key),
            b"linkpath" => once(&mut self.link, text()?, key),
            b"size" => once(&mut self.size, number()?, key),
            b"uid" => once(&mut self.uid, number()?, key),
            b"gid" => once(&mut self.gid, number()?, key),
            b"mtime" => once(&mut self.mtime, time()?, key),
            b"atime" => once(&mut self.atime, time()?, key),
            b"ctime" => once(&mut self.ctime, time()?, key),
            b"SCHILY.realsize" => invalid("a sparse file as star writes it"),
            _ => Ok(()),
        }
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), Invalid> {
        if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
            return Ok(());
        }
        if let Some((_, old)) = self.xattrs.iter_mut().find(|(n, _)| n == name) {
            *old = value.to_vec();
            return Ok(());
        }
        if self.xattrs.len() == MAX_XATTRS {
            return invalid(format!("more than {MAX_XATTRS} extended attributes"));
        }
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// A record may stand twice only if it says the same.
fn once<T: PartialEq>(slot: &mut Option<T>, value: Option<T>, key: &[u8]) -> Result<(), Invalid> {
    if slot.is_some() && *slot != value {
        return invalid(format!(
            "two PAX records `{}` that disagree",
            key.escape_ascii()
        ));
    }
    *slot = value;
    Ok(())
}

impl GnuSparse {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Invalid> {
        let number = || match decimal(value) {
            Some(n) => Ok(n),
            None => invalid(format!(
                "PAX record `GNU.sparse.{}` is no number",
                key.escape_ascii()
            )),
        };
        match key {
            b"major" => once(&mut self.major, Some(number()?), key),
            b"minor" => once(&mut self.minor, Some(number()?), key),
            b"name" if !value.contains(&0) => once(&mut self.name, Some(value.to_vec()), key),
            b"size" => once(&mut self.size, Some(number()?), key),
            b"realsize" => once(&mut self.realsize, Some(number()?), key),
            b"numblocks" => once(&mut self.count, Some(number()?), key),
            b"offset" => match self.offset.replace(number()?) {
                None => Ok(()),
                Some(_) => invalid("a sparse offset without its length"),
            },
            b"numbytes" => match self.offset.take() {
                Some(offset) => self.push(offset, number()?),
                None => invalid("a sparse length without its offset"),
            },
            b"map" if self.map.is_empty() => self.one_record(value),
            _ => invalid(format!("PAX record `GNU.sparse.{}`", key.escape_ascii())),
        }
    }

    /// Version 0.1: `offset,length,offset,length…`.
    fn one_record(&mut self, value: &[u8]) -> Result<(), Invalid> {
        let mut numbers = value.split(|b| *b == b',').map(decimal);
        while let Some(offset) = numbers.next() {
            let (Some(offset), Some(Some(len))) = (offset, numbers.next()) else {
                return invalid("a malformed sparse map");
            };
            self.push(offset, len)?;
        }
        Ok(())
    }

    fn push(&mut self, offset: u64, len: u64) -> Result<(), Invalid> {
        if self.map.len() == MAX_SEGMENTS {
            return invalid("a sparse file of too many segments");
        }
        self.map.push(Segment { offset, len });
        Ok(())
    }
}

/// Version 1.0's map: the number of segments, then their offsets and lengths, each on a line, in whole blocks before the content.
#[derive(Debug, Default)]
pub(super) struct MapInBody {
    digits: Vec<u8>,
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl MapInBody {
    pub(super) fn is_whole(&self) -> bool {
        self.count
            .is_some_and(|count| self.numbers.len() == count * 2)
    }

    /// Reads one more block; what follows the last line in it is padding.
    pub(super) fn add(&mut self, block: &[u8]) -> Result<(), Invalid> {
        for byte in block {
            if self.is_whole() {
                break;
            }
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return invalid("a malformed sparse map");
                }
                continue;
            }
            let Some(number) = decimal(&self.digits) else {
                return invalid("a malformed sparse map");
            };
            self.digits.clear();
            if self.count.is_some() {
                self.numbers.push(number);
                continue;
            }
            match usize::try_from(number) {
                Ok(count) if count <= MAX_SEGMENTS => self.count = Some(count),
                _ => return invalid("a sparse file of too many segments"),
            }
        }
        Ok(())
    }

    pub(super) fn segments(&self) -> Vec<Segment> {
        let pairs = self.numbers.as_chunks::<2>().0.iter();
        pairs
            .map(|[offset, len]| Segment {
                offset: *offset,
                len: *len,
            })
            .collect()
    }
}

/// Decimal digits and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut off.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(i) => (&text[..i], &text[i + 1..]),
        None => (text, &b""[..]),
    };
    let sec = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |i| u32::from(fraction.get(i).map_or(0, |d: &u8| d - b'0'));
    let nsec = (0..9).fold(0, |nsec, i| nsec * 10 + digit(i));
    Some(match (negative, nsec) {
        (false, nsec) => Time { sec, nsec },
        (true, 0) => Time { sec: -sec, nsec: 0 },
        (true, nsec) => Time {
            sec: -sec - 1,
            nsec: 1_000_000_000 - nsec,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_to_the_nanosecond_on_both_sides_of_1970() {
        for (text, sec, nsec) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("-1.5", -2, 500_000_000),
            ("-0.000000001", -1, 999_999_999),
            ("-3", -3, 0),
            ("1700000000.1234567899", 1_700_000_000, 123_456_789),
            ("7.", 7, 0),
        ] {
            assert_eq!(time(text.as_bytes()), Some(Time { sec, nsec }), "{text}");
        }
        for bad in [
            "",
            "-",
            ".5",
            "1.-5",
            "1e3",
            "+1",
            "1.5x",
            "99999999999999999999",
        ] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn records_are_as_long_as_they_say() {
        let pax = parse(b"12 path=a/b\n29 SCHILY.xattr.user.x=a=\0\nb\n15 comment=old\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"a=\0\nb".to_vec())]);
        for bad in [
            &b"12 path=a/b"[..],
            b"11 path=a/b\n",
            b"13 path=a/b\n",
            b"99 path=a/b\n",
            b"0 path=a/b\n",
            b"1 path=a/b\n",
            b"-1 path=a/b\n",
            b" 12 path=a/b\n",
            b"9 patha/b\n",
            b"8 =a/b.\n",
            b"12 path=a\0b\n",
            b"path=a/b\n",
            b"9 size=x\n",
            b"10 size=-1\n",
            b"99999999999999999999999 path=a\n",
        ] {
            assert!(parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn records_that_disagree_are_refused_and_an_empty_one_takes_back() {
        assert!(parse(b"9 size=1\n9 size=2\n").is_err());
        assert_eq!(parse(b"9 size=1\n9 size=1\n").unwrap().size, Some(1));
        assert_eq!(parse(b"8 size=\n").unwrap().size, None);
    }

    #[test]
    fn global_records_may_comment_but_not_steer() {
        check_global(b"15 comment=old\n13 mtime=123\n").unwrap();
        assert!(check_global(b"9 size=1\n").is_err());
        assert!(check_global(b"9 path=x\n").is_err());
        assert!(check_global(b"24 GNU.sparse.realsize=\n").is_err());
    }
}
