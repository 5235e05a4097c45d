//! One 512-byte header block: V7, ustar, star, GNU.

use super::{Invalid, MAX_SEGMENTS, Segment, invalid};

pub(super) const BLOCK: usize = 512;

/// What a header block says, before extended headers are considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) flag: u8,
    pub(super) link: Vec<u8>,
    pub(super) major: i64,
    pub(super) minor: i64,
    pub(super) atime: Option<i64>,
    pub(super) ctime: Option<i64>,
    /// Of a GNU sparse file: its first segments, whether extension blocks follow, its real size.
    pub(super) sparse: Option<(Vec<Segment>, bool, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// Decodes a header block, its checksum included.
pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Header, Invalid> {
    checksum(block)?;
    let format = match (&block[257..263], &block[263..265]) {
        (b"ustar\0", _) if &block[508..512] == b"tar\0" => Format::Star,
        (b"ustar\0", _) => Format::Ustar,
        (b"ustar ", b" \0") => Format::Gnu,
        _ => Format::V7,
    };
    let Ok(size) = u64::try_from(number(&block[124..136], "size")?) else {
        return invalid("a negative size");
    };
    let flag = block[156];
    let (mut atime, mut ctime) = (None, None);
    let mut prefix: &[u8] = b"";
    match format {
        Format::V7 => {}
        Format::Ustar => prefix = text(&block[345..500]),
        Format::Star => {
            prefix = text(&block[345..476]);
            atime = Some(number(&block[476..488], "atime")?);
            ctime = Some(number(&block[488..500], "ctime")?);
        }
        Format::Gnu => match gnu_times(block) {
            Ok(times) => (atime, ctime) = times,
            // Go before 1.8 put a ustar prefix where GNU has its times.
            Err(e) => {
                prefix = text(&block[345..500]);
                if !prefix.is_ascii() || flag == b'S' {
                    return Err(e);
                }
            }
        },
    }
    let name = text(&block[..100]);
    let name = match prefix {
        b"" => name.to_vec(),
        prefix => [prefix, b"/", name].concat(),
    };
    let v7 = format == Format::V7;
    let device = |at: usize| {
        if v7 {
            Ok(0)
        } else {
            number(&block[at..at + 8], "device number")
        }
    };
    let mode = number(&block[100..108], "mode")?;
    Ok(Header {
        name,
        // The file type that some writers add is the flag's to say.
        mode: u32::try_from(mode & 0o7777).unwrap_or(0),
        uid: number(&block[108..116], "uid")?,
        gid: number(&block[116..124], "gid")?,
        size,
        mtime: number(&block[136..148], "mtime")?,
        flag,
        link: text(&block[157..257]).to_vec(),
        major: device(329)?,
        minor: device(337)?,
        atime,
        ctime,
        sparse: match (flag, format) {
            (b'S', Format::Gnu) => Some(gnu_sparse(block)?),
            (b'S', _) => return invalid("a sparse file in a format that is not GNU's"),
            _ => None,
        },
    })
}

type Times = (Option<i64>, Option<i64>);

fn gnu_times(block: &[u8; BLOCK]) -> Result<Times, Invalid> {
    let time = |at: usize, what| match block[at] {
        0 => Ok(None),
        _ => number(&block[at..at + 12], what).map(Some),
    };
    Ok((time(345, "atime")?, time(357, "ctime")?))
}

fn gnu_sparse(block: &[u8; BLOCK]) -> Result<(Vec<Segment>, bool, u64), Invalid> {
    let mut segments = Vec::new();
    sparse_table(&block[386..482], &mut segments)?;
    let Ok(size) = u64::try_from(number(&block[483..495], "real size")?) else {
        return invalid("a negative size");
    };
    Ok((segments, block[482] != 0, size))
}

/// Adds the segments of a GNU sparse extension block; whether another one follows.
pub(super) fn sparse_extension(
    block: &[u8; BLOCK],
    segments: &mut Vec<Segment>,
) -> Result<bool, Invalid> {
    sparse_table(&block[..504], segments)?;
    Ok(block[504] != 0)
}

fn sparse_table(table: &[u8], segments: &mut Vec<Segment>) -> Result<(), Invalid> {
    for pair in table.as_chunks::<24>().0 {
        if pair[0] == 0 {
            break;
        }
        let offset = u64::try_from(number(&pair[..12], "sparse offset")?);
        let len = u64::try_from(number(&pair[12..], "sparse length")?);
        let (Ok(offset), Ok(len)) = (offset, len) else {
            return invalid("a negative sparse segment");
        };
        if segments.len() == MAX_SEGMENTS {
            return invalid("a sparse file of too many segments");
        }
        segments.push(Segment { offset, len });
    }
    Ok(())
}

/// The sum of all bytes, the checksum's own as spaces; some old writers summed signed bytes.
fn checksum(block: &[u8; BLOCK]) -> Result<(), Invalid> {
    let said = number(&block[148..156], "checksum")?;
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (i, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&i) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if said == unsigned || said == signed {
        Ok(())
    } else {
        invalid("no tar header (its checksum does not match)")
    }
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or(field)
}

/// Octal digits, padded by spaces or NULs before and ended by one after; or base-256, two's complement.
/// An empty field is 0.
fn number(field: &[u8], what: &str) -> Result<i64, Invalid> {
    if let [first @ (0x80 | 0xff), rest @ ..] = field {
        let mut value = if *first == 0xff { -1_i128 } else { 0 };
        for byte in rest {
            value = value << 8 | i128::from(*byte);
        }
        return i64::try_from(value).or_else(|_| invalid(format!("{what} out of range")));
    }
    let start = field.iter().position(|b| !matches!(b, b' ' | 0));
    let digits = text(&field[start.unwrap_or(field.len())..]).trim_ascii_end();
    digits.iter().try_fold(0_i64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value << 3 | i64::from(digit - b'0')),
        _ => invalid(format!("{what} is no number")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"  644 \0\0", 0o644),
            (b"\0   644 ", 0o644),
            (b"00000644", 0o644),
            (b"7 \0junk", 7),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"777777777777", 0o777_777_777_777),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", i64::MIN),
        ] {
            assert_eq!(number(field, "x"), Ok(value), "{}", field.escape_ascii());
        }
        for bad in [
            &b"0000648\0"[..],
            b"-000001\0",
            b"12 34 \0\0",
            b"0x12\0\0\0\0",
            b"\x81\0\0\0\0\0\0\0",
            b"\x80\0\0\x01\0\0\0\0\0\0\0\0",
            b"\xff\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert!(number(bad, "x").is_err(), "{}", bad.escape_ascii());
        }
    }
}
