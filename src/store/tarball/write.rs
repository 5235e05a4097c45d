//! Writing tar archives: POSIX ustar with PAX records wherever ustar cannot say it.
//!
//! The same entries give the same bytes: no user names, no access times, records in a fixed order. Sparse files are PAX 1.0's
//! (what GNU tar, bsdtar and Go read); names are bytes. What [`super::Reader`] reads of it is what was written.

use std::io::{self, Write};

use super::{Entry, Kind, MAX_SEGMENTS, MAX_SPECIAL, Segment, padding};
use crate::error::{Result, failed};

const BLOCK: usize = 512;
/// The largest number of seven and of eleven octal digits.
const MAX_SEVEN: u64 = 0o777_7777;
const MAX_ELEVEN: u64 = 0o777_7777_7777;

/// Writes an archive entry by entry; [`Write`] takes the current entry's stored bytes.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Stored bytes of the current entry still to come, and the padding after them.
    body: u64,
    padding: u64,
}

/// PAX records of one entry.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let body = key.len() + value.len() + 3;
        // The length counts its own digits.
        let mut length = body;
        while length != body + length.to_string().len() {
            length = body + length.to_string().len();
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        for part in [&b" "[..], key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }
}

/// A ustar header block.
struct Head([u8; BLOCK]);

impl Head {
    fn new(flag: u8) -> Head {
        let mut head = Head([0; BLOCK]);
        head.put(257, b"ustar\x0000");
        head.0[156] = flag;
        head
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn octal(&mut self, at: usize, width: usize, value: u64) {
        self.put(
            at,
            format!("{value:0digits$o}\0", digits = width - 1).as_bytes(),
        );
    }

    fn block(mut self) -> [u8; BLOCK] {
        self.put(148, b"        ");
        let sum: u64 = self.0.iter().map(|b| u64::from(*b)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl<W: Write> Writer<W> {
    /// An archive into `out`.
    pub fn new(out: W) -> Writer<W> {
        Writer {
            out,
            body: 0,
            padding: 0,
        }
    }

    /// Begins an entry; its stored bytes are written next: all of `size`, or of a sparse file its segments' ([`Entry::offset`],
    /// `atime` and `ctime` are not looked at).
    ///
    /// # Errors
    /// The entry cannot be said in a tar (attributes of more than 1 MiB, or with a `=` in the name), or writing fails.
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_entry()?;
        let mut records = Records::default();
        let (flag, link): (u8, &[u8]) = match &entry.kind {
            Kind::File => (b'0', b""),
            Kind::Hardlink(to) => (b'1', to),
            Kind::Symlink(to) => (b'2', to),
            Kind::Char { .. } => (b'3', b""),
            Kind::Block { .. } => (b'4', b""),
            Kind::Dir => (b'5', b""),
            Kind::Fifo => (b'6', b""),
        };
        let mut head = Head::new(flag);
        let mut path = entry.path.clone();
        match entry.kind {
            Kind::Dir if path.is_empty() => path.extend_from_slice(b"./"),
            Kind::Dir => path.push(b'/'),
            _ => {}
        }
        let map = match (&entry.kind, &entry.sparse) {
            (Kind::File, Some(segments)) => Some(map(segments)?),
            _ => None,
        };
        name(&mut head, &mut records, &path, map.is_some());
        field(&mut head, &mut records, (157, b"linkpath"), link);
        head.octal(100, 8, u64::from(entry.mode & 0o7777));
        owner(&mut head, &mut records, entry);
        let stored = match (&entry.kind, &entry.sparse, &map) {
            (Kind::File, Some(segments), Some(map)) => {
                records.add(b"GNU.sparse.major", b"1");
                records.add(b"GNU.sparse.minor", b"0");
                records.add(b"GNU.sparse.name", &path);
                records.add(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
                segments.iter().map(|s| s.len).sum::<u64>() + map.len() as u64
            }
            (Kind::File, ..) => entry.size,
            _ => 0,
        };
        match stored {
            n if n > MAX_ELEVEN => {
                head.octal(124, 12, 0);
                records.add(b"size", n.to_string().as_bytes());
            }
            n => head.octal(124, 12, n),
        }
        attributes(&mut records, entry)?;
        self.headers(&records, &path, head)?;
        self.body = stored;
        self.padding = padding(stored);
        if let Some(map) = map {
            self.write_all(&map)?;
        }
        Ok(())
    }

    fn headers(&mut self, records: &Records, path: &[u8], head: Head) -> Result<()> {
        if records.0.len() as u64 > MAX_SPECIAL {
            return Err(failed("its attributes are more than a tar can hold").into());
        }
        if !records.0.is_empty() {
            let mut extended = Head::new(b'x');
            let shown = [&b"PaxHeaders.0/"[..], ascii(path).as_bytes()].concat();
            extended.put(0, &shown[..shown.len().min(99)]);
            extended.octal(100, 8, 0o644);
            for at in [108, 116] {
                extended.octal(at, 8, 0);
            }
            extended.octal(124, 12, records.0.len() as u64);
            extended.octal(136, 12, 0);
            self.out.write_all(&extended.block())?;
            self.out.write_all(&records.0)?;
            let pad = padding(records.0.len() as u64);
            self.out.write_all(&[0; BLOCK][..pad as usize])?;
        }
        self.out.write_all(&head.block())?;
        Ok(())
    }

    /// The padding of an entry whose bytes have all been written.
    fn end_entry(&mut self) -> Result<()> {
        if self.body != 0 {
            return Err(failed("a file became shorter while it was read").into());
        }
        let pad = std::mem::take(&mut self.padding);
        self.out.write_all(&[0; BLOCK][..pad as usize])?;
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Bytes of the last entry are missing, or writing fails.
    pub fn finish(mut self) -> Result<W> {
        self.end_entry()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Writer<W> {
    /// Takes bytes of the current entry, none beyond its end.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let most = usize::try_from(self.body).unwrap_or(usize::MAX);
        let n = self.out.write(&buf[..buf.len().min(most)])?;
        self.body -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What a header's field can hold of a name: printable ASCII.
fn ascii(name: &[u8]) -> String {
    let shown = |b: &u8| match b {
        0x21..=0x7e => char::from(*b),
        _ => '_',
    };
    name.iter().map(shown).collect()
}

fn name(head: &mut Head, records: &mut Records, path: &[u8], sparse: bool) {
    if sparse {
        // A reader that does not know sparse files must not take the map for the file.
        let shown = [&b"GNUSparseFile.0/"[..], ascii(path).as_bytes()].concat();
        head.put(0, &shown[..shown.len().min(99)]);
        return;
    }
    field(head, records, (0, b"path"), path);
}

/// A name into its field of 100 bytes, or into a record.
fn field(head: &mut Head, records: &mut Records, (at, key): (usize, &[u8]), name: &[u8]) {
    let plain = |b: &u8| (0x20..=0x7e).contains(b);
    if name.len() <= 100 && name.iter().all(plain) {
        return head.put(at, name);
    }
    let shown = ascii(name);
    // Not the slash that would make a directory of it.
    head.put(at, shown.as_bytes()[..shown.len().min(99)].trim_ascii_end());
    records.add(key, name);
}

/// Owner, time and device.
fn owner(head: &mut Head, records: &mut Records, entry: &Entry) {
    for (at, key, id) in [(108, b"uid", entry.uid), (116, b"gid", entry.gid)] {
        let id = u64::from(id);
        head.octal(at, 8, if id > MAX_SEVEN { 0 } else { id });
        if id > MAX_SEVEN {
            records.add(key, id.to_string().as_bytes());
        }
    }
    let (sec, nsec) = (entry.mtime.sec, entry.mtime.nsec);
    let plain = u64::try_from(sec).ok().filter(|s| *s <= MAX_ELEVEN);
    head.octal(136, 12, plain.unwrap_or(0));
    if plain.is_none() || nsec != 0 {
        let text = match (sec, nsec) {
            (sec, 0) => sec.to_string(),
            (0.., nsec) => format!("{sec}.{nsec:09}"),
            (sec, nsec) => format!("-{}.{:09}", -(sec + 1), 1_000_000_000 - nsec),
        };
        records.add(b"mtime", text.as_bytes());
    }
    let (major, minor) = match entry.kind {
        Kind::Char { major, minor } | Kind::Block { major, minor } => (major, minor),
        _ => (0, 0),
    };
    head.octal(329, 8, u64::from(major));
    head.octal(337, 8, u64::from(minor));
}

fn attributes(records: &mut Records, entry: &Entry) -> Result<()> {
    if matches!(entry.kind, Kind::Hardlink(_)) {
        return Ok(());
    }
    for (name, value) in &entry.xattrs {
        if name.contains(&b'=') {
            let name = name.escape_ascii();
            return Err(failed(format!("its attribute `{name}` cannot be said in a tar")).into());
        }
        records.add(&[&b"SCHILY.xattr."[..], name].concat(), value);
    }
    Ok(())
}

/// The map of a sparse file, in whole blocks.
fn map(segments: &[Segment]) -> Result<Vec<u8>> {
    if segments.len() > MAX_SEGMENTS {
        return Err(failed("a sparse file of too many pieces").into());
    }
    let mut map = format!("{}\n", segments.len()).into_bytes();
    for segment in segments {
        map.extend_from_slice(format!("{}\n{}\n", segment.offset, segment.len).as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;
    use crate::cow::index::Time;
    use std::io::Read;

    fn entry(path: &[u8], kind: Kind) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            atime: None,
            ctime: None,
            xattrs: Vec::new(),
            sparse: None,
            offset: 0,
        }
    }

    /// Writes the entries (files have bytes counting from their length) and reads them again.
    fn again(entries: &[Entry]) -> (Vec<Entry>, Vec<Vec<u8>>) {
        let mut writer = Writer::new(Vec::new());
        for e in entries {
            writer.entry(e).unwrap();
            let stored = match &e.sparse {
                Some(s) => s.iter().map(|s| s.len).sum(),
                None => e.size,
            };
            let bytes: Vec<u8> = (0..stored).map(|n| (n + stored) as u8).collect();
            writer.write_all(&bytes).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::new(&*bytes, 1 << 30);
        let (mut out, mut contents) = (Vec::new(), Vec::new());
        while let Some(mut e) = reader.next_entry().unwrap() {
            e.offset = 0;
            out.push(e);
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            contents.push(content);
        }
        (out, contents)
    }

    #[test]
    fn what_is_written_is_read() {
        let long = [b"d/".repeat(60), vec![b'n'; 255]].concat();
        let mut all = vec![
            entry(b"", Kind::Dir),
            entry(b"d", Kind::Dir),
            entry(&b"x".repeat(99), Kind::Dir),
            entry(&b"y".repeat(100), Kind::File),
            entry(&long, Kind::File),
            entry(&long, Kind::Dir),
            entry(b"a\xff\n b", Kind::File),
            entry(b"l", Kind::Symlink(b"\xfe target ".to_vec())),
            entry(b"m", Kind::Symlink(vec![b't'; 4000])),
            entry(b"h", Kind::Hardlink(long.clone())),
            entry(
                b"c",
                Kind::Char {
                    major: 4095,
                    minor: 1_048_575,
                },
            ),
            entry(b"b", Kind::Block { major: 1, minor: 7 }),
            entry(b"f", Kind::Fifo),
        ];
        for (i, (sec, nsec)) in [(-2, 500_000_000), (-3, 0), (1 << 40, 7), (1, 1)]
            .iter()
            .enumerate()
        {
            let mut e = entry(format!("t{i}").as_bytes(), Kind::File);
            (e.mtime.sec, e.mtime.nsec) = (*sec, *nsec);
            (e.uid, e.gid) = (u32::MAX - 1, 2_097_152);
            e.mode = 0o7777;
            all.push(e);
        }
        let mut e = entry(b"x", Kind::File);
        e.size = 700;
        e.xattrs = vec![
            (b"security.capability".to_vec(), vec![0, 1, b'\n', 255]),
            (b"user.empty".to_vec(), Vec::new()),
            (b"user.long".to_vec(), vec![b'='; 65536]),
        ];
        all.push(e);
        let (read, contents) = again(&all);
        assert_eq!(read, all);
        assert_eq!(contents.last().map(Vec::len), Some(700));
    }

    #[test]
    fn sparse_files_are_their_pieces() {
        let mut e = entry(b"dir/sparse \xc3\xa4", Kind::File);
        e.size = 1 << 41;
        let piece = |offset, len| Segment { offset, len };
        let mut many: Vec<Segment> = (1..600).map(|n| piece(n * 8192, 4096)).collect();
        many.push(piece((1 << 41) - 5, 5));
        let mut hole = entry(b"hole", Kind::File);
        hole.size = 4097;
        hole.sparse = Some(Vec::new());
        e.sparse = Some(many);
        let after = entry(b"after", Kind::Dir);
        let all = [e, hole, after];
        let (read, contents) = again(&all);
        assert_eq!(read, all);
        assert_eq!(contents[0].len(), 599 * 4096 + 5);
    }

    #[test]
    fn an_entry_that_is_too_short_is_an_error() {
        let mut e = entry(b"x", Kind::File);
        e.size = 10;
        let mut writer = Writer::new(Vec::new());
        writer.entry(&e).unwrap();
        assert_eq!(writer.write(&[0; 20]).unwrap(), 10, "none beyond its end");
        writer.entry(&e).unwrap();
        assert!(writer.finish().is_err());
    }
}
