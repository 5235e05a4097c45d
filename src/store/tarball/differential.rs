//! What this reader accepts must be what GNU tar sees: archives that GNU tar wrote, and the same damaged in thousands of ways.

// A skipped test says why.
#![allow(clippy::print_stderr)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::make::*;
use super::*;

/// One line of a listing: type, mode, owner, group, size, seconds, path, link.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    kind: u8,
    mode: String,
    owner: String,
    size: u64,
    sec: i64,
    path: String,
    link: String,
}

/// GNU tar's listing; `None` when it is not content with the archive.
fn gnu_list(archive: &[u8]) -> Option<Vec<Line>> {
    let mut child = Command::new("tar")
        .args([
            "--list",
            "--verbose",
            "--numeric-owner",
            "--full-time",
            "--quoting-style=escape",
            "--file=-",
        ])
        .env("TZ", "UTC0")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let archive = archive.to_vec();
    let feed = std::thread::spawn(move || drop(stdin.write_all(&archive)));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    if !output.status.success() {
        return None;
    }
    output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(gnu_line)
        .collect()
}

fn gnu_line(line: &[u8]) -> Option<Line> {
    // Five fields separated by runs of spaces, one space, then the name.
    let mut fields = Vec::new();
    let mut rest = line;
    for _ in 0..5 {
        let start = rest.iter().position(|b| *b != b' ')?;
        let end = start + rest[start..].iter().position(|b| *b == b' ')?;
        fields.push(&rest[start..end]);
        rest = &rest[end..];
    }
    // Times with a fraction widen the column before the name.
    let name = rest.trim_ascii_start();
    let text = |i: usize| String::from_utf8(fields[i].to_vec()).unwrap();
    let kind = fields[0][0];
    let between = |arrow: &[u8]| {
        let at = name.windows(arrow.len()).position(|w| w == arrow);
        at.map(|at| (&name[..at], &name[at + arrow.len()..]))
    };
    let (path, link) = match kind {
        b'l' => between(b" -> ")?,
        b'h' => between(b" link to ")?,
        _ => (name, &b""[..]),
    };
    let when = format!("{}T{}", text(3), text(4)).parse::<jiff::civil::DateTime>();
    let when = when.and_then(|when| when.to_zoned(jiff::tz::TimeZone::UTC));
    let when = when.map(|when| when.timestamp().as_nanosecond().div_euclid(1_000_000_000));
    Some(Line {
        // A hard link's, and a contiguous file's.
        kind: if matches!(kind, b'h' | b'C') {
            b'-'
        } else {
            kind
        },
        mode: text(0)[1..10].to_owned(),
        owner: text(1),
        size: text(2).parse().unwrap_or(0),
        sec: when.map_or(i64::MIN, |sec| sec as i64),
        path: shown(&entry::normal(&unescape(path))),
        link: match kind {
            b'h' => entry::normal(&unescape(link)).escape_ascii().to_string(),
            _ => unescape(link).escape_ascii().to_string(),
        },
    })
}

/// Leading spaces are lost in a listing, and a slash may come after one.
fn shown(path: &[u8]) -> String {
    let start = path.iter().position(|b| !matches!(b, b' ' | b'/'));
    path[start.unwrap_or(path.len())..]
        .escape_ascii()
        .to_string()
}

/// Undoes `--quoting-style=escape`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'v') => out.push(11),
            Some(b'a') => out.push(7),
            Some(d @ b'0'..=b'3') => {
                let mut value = d - b'0';
                for d in bytes.by_ref().take(2) {
                    value = value * 8 + (d - b'0');
                }
                out.push(value);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

/// Our own listing, in the same words.
fn our_list(archive: &[u8]) -> Result<Vec<Line>, Error> {
    let mut reader = Reader::new(archive, 1 << 40);
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        // GNU tar looks at the content's presence only.
        let mut left = Vec::new();
        std::io::copy(&mut reader, &mut left).map_err(Error::Io)?;
        let (kind, link) = match &entry.kind {
            Kind::File => (b'-', Vec::new()),
            Kind::Hardlink(target) => (b'-', target.clone()),
            Kind::Dir => (b'd', Vec::new()),
            Kind::Symlink(target) => (b'l', target.clone()),
            Kind::Char { .. } => (b'c', Vec::new()),
            Kind::Block { .. } => (b'b', Vec::new()),
            Kind::Fifo => (b'p', Vec::new()),
        };
        lines.push(Line {
            kind,
            mode: mode_text(entry.mode),
            owner: format!("{}/{}", entry.uid, entry.gid),
            size: entry.size,
            // Beyond the years that a listing can be read back from.
            sec: jiff::Timestamp::from_second(entry.mtime.sec).map_or(i64::MIN, |t| t.as_second()),
            path: shown(&entry.path),
            link: link.escape_ascii().to_string(),
        });
    }
    Ok(lines)
}

/// The first lines that differ, for the message.
fn difference(ours: &[Line], theirs: &[Line]) -> Option<String> {
    let n = ours.len().max(theirs.len());
    let same = |a: &Line, b: &Line| {
        // GNU tar shows fractions of a second wrongly before 1970.
        let close = a.sec < 0 && a.sec.abs_diff(b.sec) <= 1;
        a == b
            || close
                && *a
                    == Line {
                        sec: a.sec,
                        ..b.clone()
                    }
    };
    let i = (0..n).find(|i| match (ours.get(*i), theirs.get(*i)) {
        (Some(a), Some(b)) => !same(a, b),
        _ => true,
    })?;
    Some(format!(
        "entry {i}\nours:   {:?}\ntheirs: {:?}",
        ours.get(i),
        theirs.get(i)
    ))
}

fn mode_text(mode: u32) -> String {
    let mut text = String::new();
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A tree with what archives are bad at.
pub(crate) fn tree(root: &Path) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    let deep = "a-directory-with-quite-a-long-name/".repeat(9);
    std::fs::create_dir_all(root.join(&deep)).unwrap();
    std::fs::write(root.join(deep).join("file"), "deep").unwrap();
    let long = "l".repeat(200);
    std::fs::write(root.join(&long), vec![7; 1025]).unwrap();
    symlink("t".repeat(300), root.join("longlink")).unwrap();
    symlink("../..//x", root.join("up")).unwrap();
    std::fs::hard_link(root.join(&long), root.join("hard")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9 \n\\ -x");
    std::fs::write(root.join(odd), "").unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let old = std::fs::File::create(root.join("old")).unwrap();
    let before = std::time::UNIX_EPOCH - std::time::Duration::from_secs(1234);
    old.set_modified(before).unwrap();
    std::fs::set_permissions(root.join("old"), std::fs::Permissions::from_mode(0o4711)).unwrap();
    std::fs::create_dir(root.join("sticky")).unwrap();
    std::fs::set_permissions(root.join("sticky"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let new = std::fs::File::create(root.join("new")).unwrap();
    new.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_500_000_000_123))
        .unwrap();
    // Holes at the start, between eleven pieces (more than a header holds) and at the end.
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    for i in 1..=11_u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[i as u8; 3000], i * 1_000_000).unwrap();
    }
    sparse.set_len(13_000_000).unwrap();
}

pub(crate) fn gnu_tar(root: &Path, options: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--create", "--file=-", "--sort=name", "--directory"])
        .arg(root)
        .args(options)
        .arg(".")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    output.stdout
}

const FORMATS: &[&[&str]] = &[
    &["--format=gnu"],
    &["--format=gnu", "--sparse", "--owner=:3000000", "--group=:2"],
    &["--format=oldgnu", "--sparse"],
    &["--format=posix"],
    &["--format=posix", "--sparse", "--owner=:3000000"],
    &["--format=posix", "--sparse", "--sparse-version=0.0"],
    &["--format=posix", "--sparse", "--sparse-version=0.1"],
    &["--format=ustar", "--hard-dereference"],
    &["--format=v7", "--hard-dereference"],
];

pub(crate) fn available() -> bool {
    let found = Command::new("tar").arg("--version").output();
    let gnu = found.is_ok_and(|o| o.stdout.starts_with(b"tar (GNU tar)"));
    if !gnu {
        eprintln!("skipped: no GNU tar on this machine");
    }
    gnu
}

#[test]
fn archives_of_gnu_tar_in_every_format_are_read_as_it_lists_them() {
    if !available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    for options in FORMATS {
        let archive = gnu_tar(dir.path(), options);
        let theirs = gnu_list(&archive).unwrap();
        assert!(theirs.len() > 8, "{options:?}");
        let ours = our_list(&archive).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        assert_eq!(difference(&ours, &theirs), None, "{options:?}");
    }
}

/// xorshift64*: the same archives every time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }
}

/// Damages one to three fields; headers get their checksums again, so that the damage is looked at.
fn damage(archive: &mut Vec<u8>, random: &mut Random) {
    const INTERESTING: &[u8] = b"\0\x01 /.0178=\nLKxg5S\x80\xff-";
    const FIELDS: &[(usize, usize)] = &[
        (0, 100),
        (100, 8),
        (108, 8),
        (116, 8),
        (124, 12),
        (136, 12),
        (156, 1),
        (157, 100),
        (257, 8),
        (329, 16),
        (345, 155),
        (500, 12),
    ];
    for _ in 0..=random.below(3) {
        let block = random.below(archive.len() / 512) * 512;
        let was_header = header::parse(archive[block..block + 512].try_into().unwrap()).is_ok();
        let value = INTERESTING[random.below(INTERESTING.len())];
        match random.below(12) {
            0 => drop(archive.drain(block..block + 512)),
            1 => {
                let copy = archive[block..block + 512].to_vec();
                let at = random.below(archive.len() / 512) * 512;
                archive.splice(at..at, copy);
            }
            2 => archive.truncate(block),
            _ if was_header => {
                let (start, len) = FIELDS[random.below(FIELDS.len())];
                // Digits of a number rather than its padding.
                let near = if len == 12 || len == 8 {
                    len - 1 - random.below(5)
                } else {
                    random.below(len.min(8))
                };
                archive[block + start + near.min(len - 1)] = value;
                let head = Head(archive[block..block + 512].try_into().unwrap());
                archive[block..block + 512].copy_from_slice(&head.block());
            }
            _ => {
                let at = random.below(64);
                archive[block + at] = value;
            }
        }
        if archive.len() < 512 {
            return;
        }
    }
}

/// A disagreement about sizes or names is how content is smuggled (CVE-2025-62518): one reader's content is another's headers.
#[test]
fn a_damaged_archive_is_refused_or_read_as_gnu_tar_lists_it() {
    if !available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("t");
    std::fs::create_dir(&root).unwrap();
    tree(&root);
    // Small, so that damage meets headers.
    std::fs::remove_file(root.join("sparse")).unwrap();
    let mut archives: Vec<_> = FORMATS
        .iter()
        .map(|options| gnu_tar(&root, options))
        .collect();
    let inner = tar(&[file("smuggled", "x"), dir_of("d")]);
    archives.push(tar(&[
        pax(&[("size", inner.len().to_string())]),
        file("outer", &inner),
        file("z", ""),
    ]));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..rounds() {
        let mut archive = archives[round % archives.len()].clone();
        damage(&mut archive, &mut random);
        let Ok(ours) = our_list(&archive) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        // Where Go, and so docker, disagrees with GNU tar: no bytes are an empty layer, global headers do not count, and a
        // GNU header can have a prefix.
        let blocks = archive.as_chunks::<512>().0.iter();
        let mut headers = blocks.filter(|b| header::parse(b).is_ok());
        let gos_own = |b: &[u8; 512]| b[156] == b'g' || b[345] != 0 && &b[257..263] == b"ustar ";
        if archive.is_empty() || headers.any(gos_own) {
            continue;
        }
        let Some(theirs) = gnu_list(&archive) else {
            keep(&archive);
            panic!("round {round}: accepted, but not by GNU tar: {ours:?}");
        };
        if ours != theirs {
            keep(&archive);
        }
        assert_eq!(difference(&ours, &theirs), None, "round {round}");
    }
    assert!(
        accepted > 50 && refused > 50,
        "{accepted} accepted, {refused} refused"
    );
}

fn dir_of(name: &str) -> Vec<u8> {
    dir(name)
}

fn rounds() -> usize {
    std::env::var("RLESS_TAR_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(600)
}

/// Where a failing archive goes for a closer look.
fn keep(archive: &[u8]) {
    if let Some(path) = std::env::var_os("RLESS_TAR_KEEP") {
        std::fs::write(path, archive).unwrap();
    }
}
