use super::make::*;
use super::*;

/// Every entry with its stored content.
fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Error> {
    let mut reader = Reader::new(bytes, 1 << 40);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        loop {
            let n = {
                let piece = reader.fill()?;
                content.extend_from_slice(piece);
                piece.len()
            };
            if n == 0 {
                break;
            }
            reader.advance(n);
        }
        all.push((entry, content));
    }
    Ok(all)
}

fn one(bytes: &[u8]) -> Entry {
    let mut all = read(bytes).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0).0
}

fn refused(entries: &[Vec<u8>]) -> String {
    match read(&tar(entries)) {
        Err(e) => e.to_string(),
        Ok(all) => panic!("accepted as {all:?}"),
    }
}

#[test]
fn entries_come_with_their_metadata_and_content() {
    let bytes = tar(&[
        Head::new("./", b'5')
            .mode(0o1777)
            .owner(1, 2)
            .mtime(7)
            .block()
            .to_vec(),
        Head::new("/usr/bin/su", b'0').mode(0o104_755).with("#!"),
        symlink("bin", "usr/bin"),
        hardlink("usr/bin/su2", "./usr/bin/su"),
        Head::new("dev/null", b'3').device(1, 3).block().to_vec(),
        Head::new("dev/sda", b'4').device(8, 0).block().to_vec(),
        Head::new("fifo", b'6').block().to_vec(),
        Head::new("old", b'7').with(vec![7; 513]),
        Head::new("v7/", 0).v7().block().to_vec(),
        Head::new("v7/file", 0).v7().with("x"),
    ]);
    let all = read(&bytes).unwrap();
    let kinds: Vec<_> = all.iter().map(|(e, _)| (&e.path[..], &e.kind)).collect();
    assert_eq!(
        kinds,
        [
            (&b""[..], &Kind::Dir),
            (b"usr/bin/su", &Kind::File),
            (b"bin", &Kind::Symlink(b"usr/bin".to_vec())),
            (b"usr/bin/su2", &Kind::Hardlink(b"usr/bin/su".to_vec())),
            (b"dev/null", &Kind::Char { major: 1, minor: 3 }),
            (b"dev/sda", &Kind::Block { major: 8, minor: 0 }),
            (b"fifo", &Kind::Fifo),
            (b"old", &Kind::File),
            (b"v7", &Kind::Dir),
            (b"v7/file", &Kind::File),
        ]
    );
    let (root, su) = (&all[0].0, &all[1]);
    assert_eq!((root.mode, root.uid, root.gid), (0o1777, 1, 2));
    assert_eq!(root.mtime, Time { sec: 7, nsec: 0 });
    assert_eq!((su.0.mode, su.0.size, &su.1[..]), (0o4755, 2, &b"#!"[..]));
    assert_eq!((all[7].0.size, &all[7].1[..]), (513, &vec![7; 513][..]));
    assert_eq!(all[7].0.offset, 512 * 8);
}

#[test]
fn content_that_is_not_read_is_skipped() {
    let bytes = tar(&[file("a", vec![b'a'; 5000]), file("b", "b")]);
    let mut reader = Reader::new(&bytes[..], 1 << 40);
    reader.next_entry().unwrap();
    reader.fill().unwrap();
    reader.advance(100);
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"b");
    assert!(reader.next_entry().unwrap().is_none());
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn names_are_brought_into_normal_form() {
    for (name, path) in [
        ("a", "a"),
        ("./a/./b", "a/b"),
        ("//a//b", "a/b"),
        ("a/../b", "b"),
        ("/../../a", "a"),
        ("/", ""),
        (".", ""),
        ("a/..", ""),
        ("...", "..."),
    ] {
        assert_eq!(one(&tar(&[dir(name)])).path, path.as_bytes(), "{name}");
    }
    for name in ["", "..", "../a", "a/../../b", "./../a"] {
        refused(&[file(name, "")]);
        refused(&[pax(&[("path", "x")]), hardlink("y", name)]);
    }
    let latin1 = b"caf\xe9/\xff\xfe";
    assert_eq!(one(&tar(&[file(latin1, "")])).path, latin1);
    let name = [b'n'; 255];
    assert_eq!(
        one(&tar(&[pax(&[("path", name)]), file("x", "")])).path,
        name
    );
    refused(&[pax(&[("path", [b'n'; 256])]), file("x", "")]);
    refused(&[pax(&[("path", "a\0b")]), file("x", "")]);
}

#[test]
fn four_thousand_levels_are_refused() {
    let deep = "d/".repeat(4096);
    assert!(refused(&[pax(&[("path", &deep)]), dir("x")]).contains("longer than Linux allows"));
    let long = [deep.as_bytes(), b"\0"].concat();
    refused(&[Head::new("././@LongLink", b'L').gnu().with(long), dir("x")]);
}

#[test]
fn long_names_come_from_prefix_gnu_and_pax() {
    let long = "n".repeat(90) + "/" + &"m".repeat(200);
    let prefix = Head::new("name", b'0').put(345, b"some/prefix").block();
    assert_eq!(one(&tar(&[prefix.to_vec()])).path, b"some/prefix/name");
    let gnu = |flag, name: &str| {
        Head::new("././@LongLink", flag)
            .gnu()
            .with([name.as_bytes(), b"\0"].concat())
    };
    assert_eq!(
        one(&tar(&[
            gnu(b'L', &long),
            Head::new("n", b'0').gnu().block().to_vec()
        ]))
        .path,
        long.as_bytes()
    );
    let link = [gnu(b'K', &long), gnu(b'L', "a"), symlink("x", "y")];
    assert_eq!(
        one(&tar(&link)).kind,
        Kind::Symlink(long.clone().into_bytes())
    );
    let both = [
        pax(&[("path", &long), ("linkpath", &long)]),
        hardlink("x", "y"),
    ];
    let entry = one(&tar(&both));
    assert_eq!(
        (&entry.path[..], entry.kind),
        (long.as_bytes(), Kind::Hardlink(long.clone().into_bytes()))
    );
    // star's prefix is shorter; its times follow.
    let star = Head::new("f", b'0')
        .put(345, b"p")
        .octal(476, 12, 5)
        .octal(488, 12, 6)
        .put(508, b"tar\0");
    let entry = one(&tar(&[star.block().to_vec()]));
    assert_eq!(entry.path, b"p/f");
    assert_eq!(entry.atime, Some(Time { sec: 5, nsec: 0 }));
    // Go before 1.8: a prefix in a GNU header.
    let go = Head::new("f", b'0').gnu().put(345, b"old/prefix");
    assert_eq!(one(&tar(&[go.block().to_vec()])).path, b"old/prefix/f");
    let times = Head::new("f", b'0')
        .gnu()
        .octal(345, 12, 5)
        .octal(357, 12, 6);
    let entry = one(&tar(&[times.block().to_vec()]));
    assert_eq!(
        (&entry.path[..], entry.ctime),
        (&b"f"[..], Some(Time { sec: 6, nsec: 0 }))
    );
}

#[test]
fn pax_records_give_owner_times_and_attributes() {
    let records: [(&str, &[u8]); 9] = [
        ("uid", b"2097152"),
        ("gid", b"4294967294"),
        ("mtime", b"-1.25"),
        ("atime", b"1700000000.123456789"),
        ("ctime", b"3"),
        (
            "SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\0\x04\0\0",
        ),
        ("SCHILY.xattr.user.empty", b""),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("LIBARCHIVE.xattr.user.empty", b""),
    ];
    let entry = one(&tar(&[pax(&records), file("f", "")]));
    assert_eq!((entry.uid, entry.gid), (2_097_152, u32::MAX - 1));
    assert_eq!(
        entry.mtime,
        Time {
            sec: -2,
            nsec: 750_000_000
        }
    );
    assert_eq!(
        entry.atime,
        Some(Time {
            sec: 1_700_000_000,
            nsec: 123_456_789
        })
    );
    assert_eq!(
        entry.xattrs,
        [
            (
                b"security.capability".to_vec(),
                b"\x01\0\0\x02\0\x04\0\0".to_vec()
            ),
            (b"user.empty".to_vec(), vec![]),
        ]
    );
}

#[test]
fn extended_headers_count_for_one_entry_only() {
    let all = read(&tar(&[
        pax(&[("path", "p"), ("mtime", "5")]),
        file("a", ""),
        file("b", ""),
    ]))
    .unwrap();
    assert_eq!(all[1].0.path, b"b");
    assert_eq!(all[1].0.mtime, Time::default());
}

#[test]
fn times_before_1970_and_large_ids_in_base_256() {
    let head = Head::new("f", b'0').gnu();
    let head = head
        .put(136, &[0xff; 11])
        .put(147, &[0xfe])
        .put(108, b"\x80\0\0\0\x7f\xff\xff\xff");
    let entry = one(&tar(&[head.block().to_vec()]));
    assert_eq!(entry.mtime, Time { sec: -2, nsec: 0 });
    assert_eq!(entry.uid, 0x7fff_ffff);
}

#[test]
fn ids_that_would_wrap_are_refused() {
    for id in [
        "4294967295",
        "4294967296",
        "-1",
        "100000000000000000000",
        "1.5",
    ] {
        refused(&[pax(&[("uid", id)]), file("f", "")]);
        refused(&[pax(&[("gid", id)]), file("f", "")]);
    }
    refused(&[Head::new("f", b'0').put(108, &[0xff; 8]).block().to_vec()]);
    refused(&[Head::new("f", b'3').device(4096, 0).block().to_vec()]);
    refused(&[Head::new("f", b'4').device(0, 1 << 20).block().to_vec()]);
}

/// CVE-2025-62518 and CVE-2026-33055: a nested archive hides where one size says content and another says headers.
#[test]
fn sizes_that_disagree_are_refused() {
    let inner = tar(&[file("smuggled", "x")]);
    let size = inner.len().to_string();
    let outer = Head::new("outer", b'0').block().to_vec();
    let what = refused(&[pax(&[("size", &size)]), outer.clone(), inner.clone()]);
    assert!(
        what.contains("sizes disagree") && what.contains("`outer`"),
        "{what}"
    );
    refused(&[pax(&[("size", "0")]), Head::new("outer", b'0').with(&inner)]);
    refused(&[
        pax(&[("size", "1"), ("size", "1024")]),
        outer.clone(),
        inner.clone(),
    ]);
    refused(&[
        pax(&[("size", &size)]),
        pax(&[("mtime", "1")]),
        outer,
        inner.clone(),
    ]);
    let global = Head::new("g", b'g').with(records_of(&[("size", "0")]));
    refused(&[global, Head::new("outer", b'0').with(&inner)]);
    for flag in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        refused(&[Head::new("outer", flag).link("t").with(&inner)]);
        let head = Head::new("outer", flag).link("t").block().to_vec();
        refused(&[pax(&[("size", &size)]), head, inner.clone()]);
    }
    // The same in both places is what some writers do.
    let entry = one(&tar(&[pax(&[("size", "3")]), file("f", "abc")]));
    assert_eq!(entry.size, 3);
}

#[test]
fn sizes_beyond_eight_gibibytes_come_from_pax_or_base_256() {
    let size = 9_u64 << 30;
    let first = |bytes: &[u8]| {
        Reader::new(bytes, 1 << 40)
            .next_entry()
            .map(|e| e.unwrap().size)
    };
    let pax = pax(&[("size", size.to_string())]);
    let zero = [pax.clone(), Head::new("f", b'0').block().to_vec()].concat();
    assert_eq!(first(&zero).unwrap(), size);
    let mut base = vec![0x80, 0, 0, 0];
    base.extend_from_slice(&size.to_be_bytes());
    let wide = Head::new("f", b'0').gnu().put(124, &base).block();
    assert_eq!(first(&wide).unwrap(), size);
    assert_eq!(first(&[&pax[..], &wide].concat()).unwrap(), size);
    let cut = Head::new("f", b'0').size(size & 0o777_7777_7777).block();
    assert!(
        first(&[&pax[..], &cut].concat()).is_err(),
        "a truncated size is refused"
    );
    for bad in [&[0xff; 12][..], b"\x80\0\0\0\x80\0\0\0\0\0\0\0"] {
        assert!(first(&Head::new("f", b'0').gnu().put(124, bad).block()).is_err());
    }
}

#[test]
fn what_is_ambiguous_or_unknown_is_refused() {
    let long = |flag, name: &str| {
        Head::new("././@LongLink", flag)
            .gnu()
            .with([name.as_bytes(), b"\0"].concat())
    };
    refused(&[long(b'L', "a"), long(b'L', "b"), file("c", "")]);
    refused(&[long(b'L', "a"), pax(&[("path", "b")]), file("c", "")]);
    refused(&[
        long(b'K', "a"),
        pax(&[("linkpath", "b")]),
        symlink("c", "d"),
    ]);
    refused(&[pax(&[("path", "b")]), Head::new("g", b'g').with("")]);
    refused(&[pax(&[("path", "b")])]);
    refused(&[file("dir/", "")]);
    refused(&[file("dir/", "content")]);
    refused(&[symlink("l", "")]);
    refused(&[hardlink("l", "")]);
    for flag in *b"DMNVXAZ\x01\xff" {
        refused(&[Head::new("f", flag).gnu().block().to_vec()]);
    }
    refused(&[Head::new("x", b'x').size(2 << 20).block().to_vec()]);
    refused(&[Head::new("L", b'L').with(""), file("f", "")]);
}

#[test]
fn the_end_is_two_zero_blocks_or_the_end_of_the_input() {
    let entry = file("a", "a");
    assert_eq!(read(&entry).unwrap().len(), 1);
    assert_eq!(read(&[&entry[..], &[0; 512]].concat()).unwrap().len(), 1);
    assert_eq!(read(&tar(&[])).unwrap().len(), 0);
    assert_eq!(read(b"").unwrap().len(), 0);
    // A second archive after the end is not looked at, as by GNU tar and Go.
    assert_eq!(
        read(&[tar(std::slice::from_ref(&entry)), entry.clone()].concat())
            .unwrap()
            .len(),
        1
    );
    assert!(read(&[&entry[..], &[0; 512], &entry].concat()).is_err());
    for len in [1, 511, 513, 1023] {
        assert!(read(&entry[..len]).is_err(), "{len}");
    }
}

#[test]
fn a_wrong_checksum_is_refused_and_a_signed_one_accepted() {
    let mut block = Head::new(b"caf\xe9", b'0').block();
    block[0] ^= 1;
    assert!(read(&block).unwrap_err().to_string().contains("checksum"));
    let spaced = Head::new(b"caf\xe9", b'0').put(148, b"        ");
    let sum: i64 = spaced.0.iter().map(|b| i64::from(b.cast_signed())).sum();
    let signed = spaced.put(148, format!("{sum:06o}\0 ").as_bytes()).0;
    assert_eq!(one(&signed).path, b"caf\xe9");
}

#[test]
fn an_archive_larger_than_allowed_is_refused() {
    let bytes = tar(&[file("a", vec![0; 5000])]);
    let mut reader = Reader::new(&bytes[..], 2000);
    reader.next_entry().unwrap();
    let error = std::iter::repeat_with(|| match reader.fill() {
        Ok(piece) => {
            let n = piece.len().min(600);
            reader.advance(n);
            Ok(n)
        }
        Err(e) => Err(e),
    });
    let mut error = error.take(10).filter_map(Result::err);
    assert!(matches!(error.next(), Some(Error::TooLarge(2000))));
}

fn seg(offset: u64, len: u64) -> Segment {
    Segment { offset, len }
}

#[test]
fn gnu_sparse_files_are_decoded() {
    let pair =
        |head: Head, at: usize, s: Segment| head.octal(at, 12, s.offset).octal(at + 12, 12, s.len);
    let mut head = Head::new("s", b'S').gnu().octal(483, 12, 100_000);
    for i in 0..4 {
        head = pair(head, 386 + i * 24, seg(i as u64 * 1000, 10));
    }
    let mut more = Head([0; 512]);
    more = pair(more, 0, seg(5000, 3));
    more = pair(more, 24, seg(100_000, 0));
    let head = head.put(482, &[1]).size(43).block();
    let bytes = tar(&[
        head.to_vec(),
        more.0.to_vec(),
        padded(&[7; 43]),
        file("next", ""),
    ]);
    let all = read(&bytes).unwrap();
    assert_eq!(all[0].0.size, 100_000);
    assert_eq!(all[0].1, [7; 43]);
    let segments = all[0].0.sparse.as_deref().unwrap();
    assert_eq!(segments.len(), 6);
    assert_eq!((segments[4], segments[5]), (seg(5000, 3), seg(100_000, 0)));
    assert_eq!(all[1].0.path, b"next");
}

#[test]
fn pax_sparse_files_of_all_three_versions_are_decoded() {
    let content = file("munged", "abcdefg");
    let v00 = [
        ("GNU.sparse.size", "9000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "0"),
        ("GNU.sparse.numbytes", "3"),
        ("GNU.sparse.offset", "4096"),
        ("GNU.sparse.numbytes", "4"),
    ];
    let v01 = [
        ("GNU.sparse.size", "9000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.name", "real"),
        ("GNU.sparse.map", "0,3,4096,4"),
    ];
    let v10 = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "real"),
        ("GNU.sparse.realsize", "9000"),
    ];
    let in_body = file(
        "munged",
        [&padded(b"2\n0\n3\n4096\n4\n")[..], b"abcdefg"].concat(),
    );
    for (records, body, path) in [
        (&v00[..], &content, "munged"),
        (&v01[..], &content, "real"),
        (&v10[..], &in_body, "real"),
    ] {
        let all = read(&tar(&[pax(records), body.clone(), file("next", "")])).unwrap();
        let (entry, stored) = &all[0];
        assert_eq!(entry.path, path.as_bytes());
        assert_eq!((entry.size, &stored[..]), (9000, &b"abcdefg"[..]));
        assert_eq!(
            entry.sparse.as_deref(),
            Some(&[seg(0, 3), seg(4096, 4)][..])
        );
        assert_eq!(all[1].0.path, b"next");
    }
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let v01 = |size: &str, count: &str, map: &str| {
        let records = [
            ("GNU.sparse.size", size),
            ("GNU.sparse.numblocks", count),
            ("GNU.sparse.map", map),
        ];
        pax(&records)
    };
    assert!(read(&tar(&[v01("9000", "1", "0,7"), file("s", "abcdefg")])).is_ok());
    for (size, count, map) in [
        ("9000", "1", "0,6"),
        ("9000", "1", "0,8"),
        ("9000", "2", "0,7"),
        ("6", "1", "0,7"),
        ("9000", "2", "10,3,0,4"),
        ("9000", "2", "0,4,2,3"),
        ("9000", "1", "0"),
        ("9000", "1", "0,x"),
        ("18446744073709551615", "1", "18446744073709551609,7"),
        ("18446744073709551615", "1", "0,7"),
    ] {
        refused(&[v01(size, count, map), file("s", "abcdefg")]);
    }
    let v10 = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "9000"),
    ];
    for body in [
        "",
        "1\n0\n",
        "x\n",
        "99999999\n",
        "1\n0\n8\n",
        "111111111111111111111",
    ] {
        let body = [&padded(body.as_bytes())[..], b"abcdefg"].concat();
        refused(&[pax(&v10), file("s", body)]);
    }
    refused(&[pax(&v10), dir("s")]);
    refused(&[pax(&[("SCHILY.realsize", "5")]), file("s", "")]);
    refused(&[Head::new("s", b'S').block().to_vec()]);
}

#[test]
fn content_of_an_entry_can_be_read_as_a_stream() {
    let bytes = tar(&[file("manifest.json", "[]"), file("x", "")]);
    let mut reader = Reader::new(&bytes[..], 1 << 20);
    reader.next_entry().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "[]");
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"x");
}

#[test]
fn content_can_be_located_and_sought_past() {
    let bytes = tar(&[
        pax(&[("mtime", "1")]),
        file("a", vec![7; 70_000]),
        file("b", "bee"),
    ]);
    let mut reader = Reader::new(io::BufReader::new(io::Cursor::new(&bytes)), 1 << 20);
    reader.next_entry().unwrap();
    assert_eq!(bytes[reader.position() as usize..][..70_000], [7; 70_000]);
    reader.seek_past().unwrap();
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"b");
    assert_eq!(&bytes[reader.position() as usize..][..3], b"bee");
    reader.seek_past().unwrap();
    assert!(reader.next_entry().unwrap().is_none());
}
