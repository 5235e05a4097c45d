use super::*;

fn t(sec: i64) -> Time {
    Time { sec, nsec: 7 }
}

fn samples() -> Vec<Record<'static>> {
    let meta = Meta {
        mode: 0o100_644,
        nlink: 1,
        uid: 33,
        gid: 34,
        rdev: 5,
        size: 9,
        atime: t(-1),
        mtime: t(2),
        ctime: t(3),
    };
    let extents = Extents {
        data_id: 4,
        base_len: 8192,
        full: true,
        blocks: vec![(0, 1), (5, 9)],
    };
    vec![
        Record::Create {
            parent: 1,
            ino: 9,
            name: b"a\xff",
            meta,
            target: b"",
            xattrs: vec![(b"user.x", b"1")],
        },
        Record::Link {
            parent: 1,
            ino: 9,
            name: b"b",
            time: t(4),
        },
        Record::Unlink {
            parent: 1,
            name: b"b",
            time: t(5),
        },
        Record::Rename {
            parent: 1,
            name: b"a",
            newparent: 2,
            newname: b"c",
            flags: 2,
            time: t(6),
        },
        Record::Attr {
            ino: 9,
            mode: 0o100_600,
            uid: 1,
            gid: 2,
            atime: t(1),
            mtime: t(2),
            ctime: t(3),
        },
        Record::Xattr {
            ino: 9,
            name: b"user.x",
            value: None,
            mode: 1,
            ctime: t(1),
        },
        Record::Xattr {
            ino: 9,
            name: b"user.x",
            value: Some(b""),
            mode: 1,
            ctime: t(1),
        },
        Record::Size {
            ino: 9,
            size: 77,
            time: t(8),
            edges: Vec::new(),
        },
        Record::Size {
            ino: 9,
            size: 5000,
            time: t(8),
            edges: vec![(0, vec![7; 4096].into()), (4096, b"x"[..].into())],
        },
        Record::Data {
            ino: 9,
            size: 5,
            mtime: t(1),
            ctime: t(2),
            extents: extents.clone(),
            redo: None,
        },
        Record::Data {
            ino: 9,
            size: 5,
            mtime: t(1),
            ctime: t(2),
            extents: Extents {
                full: false,
                ..extents.clone()
            },
            redo: Some(vec![(0, b"bytes"[..].into()), (4096, b"x"[..].into())]),
        },
        Record::Bind {
            ino: 12,
            path: b"usr/bin",
        },
        Record::Node {
            ino: 9,
            parent: 0,
            base: true,
            meta,
            target: b"t",
            xattrs: None,
            extents,
        },
        Record::Entry {
            parent: 1,
            ino: 0,
            kind: 4,
            name: b"gone",
        },
        Record::Next {
            ino: 100,
            data_id: 50,
            arena: 1 << 20,
        },
        Record::Together(vec![
            Record::Unlink {
                parent: 1,
                name: b"a",
                time: t(5),
            },
            Record::Link {
                parent: 1,
                ino: 9,
                name: b"b",
                time: t(4),
            },
        ]),
    ]
}

#[test]
fn every_record_round_trips_and_no_prefix_or_extension_decodes() {
    for record in samples() {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes), Ok(record.clone()));
        for n in 0..bytes.len() {
            assert!(
                Record::decode(&bytes[..n]).is_err(),
                "{record:?} cut at {n}"
            );
        }
        bytes.push(0);
        assert!(Record::decode(&bytes).is_err());
    }
}

#[test]
fn sizes_and_numbers_that_cannot_be_are_refused() {
    let mut bytes = Vec::new();
    let decodes = |record: &Record<'_>, bytes: &mut Vec<u8>| {
        bytes.clear();
        record.encode(bytes);
        Record::decode(bytes) == Ok(record.clone())
    };
    for record in samples() {
        let mut bad = record.clone();
        let mut good = record;
        match (&mut good, &mut bad) {
            (Record::Size { size: a, .. }, Record::Size { size: b, .. }) => {
                (*a, *b) = (SIZE_MAX, SIZE_MAX + 1);
            }
            (Record::Data { size: a, .. }, Record::Data { size: b, .. }) => {
                (*a, *b) = (LOW_MAX, LOW_MAX + 1);
            }
            (Record::Create { ino: a, .. }, Record::Create { ino: b, .. })
            | (Record::Next { ino: a, .. }, Record::Next { ino: b, .. }) => {
                (*a, *b) = ((1 << 63) - 1, 1 << 63);
            }
            (Record::Node { extents: a, .. }, Record::Node { extents: b, .. }) => {
                (a.base_len, b.base_len) = (LOW_MAX, LOW_MAX + 1);
            }
            _ => continue,
        }
        assert!(decodes(&good, &mut bytes), "{good:?}");
        assert!(!decodes(&bad, &mut bytes), "{bad:?}");
    }
}

#[test]
fn records_of_several_parts_are_not_nested() {
    let mut nested = Record::Together(samples());
    for _ in 0..2 {
        let mut bytes = Vec::new();
        nested.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes), Err(Bad::Value));
        nested = Record::Together(vec![Record::Together(Vec::new())]);
    }
}

fn data(redo: Option<Vec<Piece<'_>>>) -> Record<'_> {
    Record::Data {
        ino: 9,
        size: 5,
        mtime: t(1),
        ctime: t(2),
        extents: Extents::default(),
        redo,
    }
}

#[test]
fn a_huge_count_allocates_nothing() {
    let mut bytes = Vec::new();
    data(None).encode(&mut bytes);
    let at = bytes.len() - 5;
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Record::decode(&bytes), Err(Bad::Length));
}

#[test]
fn redo_that_overlaps_itself_or_starts_inside_a_block_is_refused() {
    for pieces in [
        vec![(1, b"x"[..].into())],
        vec![(4096, b"x"[..].into()), (0, b"x"[..].into())],
        vec![(0, vec![0; 4097].into()), (4096, b"x"[..].into())],
        vec![(0, b""[..].into())],
        vec![(1 << 63, b"x"[..].into())],
    ] {
        let mut bytes = Vec::new();
        data(Some(pieces)).encode(&mut bytes);
        assert_eq!(Record::decode(&bytes), Err(Bad::Value));
    }
}
