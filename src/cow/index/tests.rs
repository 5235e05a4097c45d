use super::*;

fn meta(mode: u32, data: Data<'_>) -> Inode<'_> {
    Inode {
        mode,
        nlink: 0,
        uid: 1,
        gid: 2,
        rdev_major: 0,
        rdev_minor: 0,
        size: 0,
        mtime: Time { sec: -5, nsec: 7 },
        atime: Time { sec: 6, nsec: 8 },
        ctime: Time {
            sec: 1 << 40,
            nsec: 9,
        },
        data,
    }
}

fn dir(parent: u64) -> Inode<'static> {
    meta(libc::S_IFDIR | 0o755, Data::Dir { parent, entries: 0 })
}

const PACK_A: PackId = PackId([0xa5; 32]);

/// `/bin -> usr/bin`, `/usr/bin/{sh,ash}` (one inode), `/dev/null`, `/empty`; inode 9 is unused.
fn sample() -> Builder {
    let mut b = Builder::new();
    assert_eq!(b.pack(PACK_A, 8192).unwrap(), 0);
    assert_eq!(b.pack(PACK_A, 8192).unwrap(), 0);
    b.set(1, &dir(1), []).unwrap();
    b.set(
        2,
        &meta(libc::S_IFLNK | 0o777, Data::Symlink(b"usr/bin")),
        [],
    )
    .unwrap();
    b.set(3, &dir(1), []).unwrap();
    b.set(4, &dir(3), []).unwrap();
    let mut sh = meta(
        libc::S_IFREG | 0o4755,
        Data::File {
            pack: 0,
            offset: 4096,
        },
    );
    sh.size = 4000;
    let xattrs: [(&[u8], &[u8]); 2] = [(b"user.z", b""), (b"security.capability", b"\x01\x00")];
    b.set(5, &sh, xattrs).unwrap();
    b.set(6, &dir(1), xattrs).unwrap();
    let mut null = meta(libc::S_IFCHR | 0o666, Data::None);
    (null.rdev_major, null.rdev_minor) = (1, 3);
    b.set(7, &null, []).unwrap();
    b.set(8, &meta(libc::S_IFREG, Data::None), []).unwrap();
    b.set(10, &meta(libc::S_IFIFO | 0o600, Data::None), [])
        .unwrap();
    let root: [(&[u8], u64); 5] = [
        (b"bin", 2),
        (b"dev", 6),
        (b"empty", 8),
        (b"p\xff", 10),
        (b"usr", 3),
    ];
    b.entries(1, root).unwrap();
    b.entries(3, [(&b"bin"[..], 4)]).unwrap();
    b.entries(4, [(&b"ash"[..], 5), (b"sh", 5)]).unwrap();
    b.entries(6, [(&b"null"[..], 7)]).unwrap();
    b
}

#[test]
fn what_was_built_is_read_back() {
    let index = Index::from_bytes(sample().finish().unwrap().bytes().to_vec()).unwrap();
    assert_eq!(index.inode_count(), 10);
    assert_eq!(index.total_size(), 4000);
    assert_eq!(index.packs(), [PACK_A]);
    assert_eq!(index.pack_len(0), Some(8192));
    assert_eq!(index.pack_len(1), None);

    let usr = index.lookup(Index::ROOT, b"usr").unwrap();
    let bin = index.lookup(usr, b"bin").unwrap();
    let sh = index.lookup(bin, b"sh").unwrap();
    assert_eq!(index.lookup(bin, b"ash"), Some(sh));
    let inode = index.inode(sh).unwrap();
    assert_eq!(inode.mode, libc::S_IFREG | 0o4755);
    assert_eq!(
        (inode.nlink, inode.uid, inode.gid, inode.size),
        (2, 1, 2, 4000)
    );
    assert_eq!(inode.mtime, Time { sec: -5, nsec: 7 });
    assert_eq!(inode.atime, Time { sec: 6, nsec: 8 });
    assert_eq!(
        inode.ctime,
        Time {
            sec: 1 << 40,
            nsec: 9
        }
    );
    assert_eq!(
        inode.data,
        Data::File {
            pack: 0,
            offset: 4096
        }
    );
    let xattrs: Vec<_> = index.xattrs(sh).collect();
    assert_eq!(
        xattrs,
        [
            (&b"security.capability"[..], &b"\x01\x00"[..]),
            (b"user.z", b"")
        ]
    );
    assert_eq!(index.xattr(sh, b"user.z"), Some(&b""[..]));
    assert_eq!(index.xattr(sh, b"user"), None);
    assert_eq!(index.xattrs(bin).count(), 0);

    let link = index.inode(index.lookup(1, b"bin").unwrap()).unwrap();
    assert_eq!((link.data, link.size), (Data::Symlink(b"usr/bin"), 7));
    let null = index.inode(7).unwrap();
    assert_eq!((null.rdev_major, null.rdev_minor, null.nlink), (1, 3, 1));
    let root = index.inode(1).unwrap();
    assert_eq!(
        (root.nlink, root.data),
        (
            4,
            Data::Dir {
                parent: 1,
                entries: 5
            }
        )
    );
    assert_eq!(
        index.inode(bin).unwrap().data,
        Data::Dir {
            parent: usr,
            entries: 2
        }
    );
}

#[test]
fn absent_inodes_and_names_are_none() {
    let index = sample().finish().unwrap();
    for ino in [0, 9, 11, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(index.inode(ino), None, "{ino}");
        assert_eq!(index.lookup(ino, b"bin"), None);
        assert!(index.entries(ino).is_empty());
        assert_eq!(index.xattrs(ino).count(), 0);
    }
    for name in [&b""[..], b"a", b"bi", b"bin2", b"zz", b"."] {
        assert_eq!(index.lookup(1, name), None);
    }
    assert_eq!(index.lookup(5, b"x"), None, "a file has no entries");
}

#[test]
fn entries_come_in_byte_order_and_have_stable_places() {
    let index = sample().finish().unwrap();
    let root = index.entries(1);
    let names: Vec<_> = root.iter().map(|e| e.name).collect();
    assert_eq!(names, [&b"bin"[..], b"dev", b"empty", b"p\xff", b"usr"]);
    let kinds: Vec<_> = root.iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [
            libc::DT_LNK,
            libc::DT_DIR,
            libc::DT_REG,
            libc::DT_FIFO,
            libc::DT_DIR
        ]
    );
    assert_eq!(root.get(1), root.iter().nth(1));
    assert_eq!(root.get(5), None);
    assert_eq!(root.get(usize::MAX), None);
    assert_eq!(
        (
            root.position(b"a"),
            root.position(b"dev"),
            root.position(b"deva")
        ),
        (0, 1, 2)
    );
    assert_eq!(root.position(b"zzz"), 5);
}

#[test]
fn every_single_bit_flip_is_refused() {
    let good = sample().finish().unwrap().bytes().to_vec();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Index::from_bytes(bad).is_err(), "bit {bit}");
    }
}

#[test]
fn every_truncation_is_refused() {
    let good = sample().finish().unwrap().bytes().to_vec();
    for len in 0..good.len() {
        assert!(Index::from_bytes(good[..len].to_vec()).is_err(), "{len}");
    }
}

/// Uses every accessor on everything; hostile bytes that pass verification must survive this.
fn exercise(index: &Index) {
    for ino in 0..=index.inode_count() + 1 {
        let inode = index.inode(ino);
        assert!(index.xattrs(ino).count() <= index.bytes().len());
        for entry in index.entries(ino).iter() {
            assert_eq!(index.lookup(ino, entry.name), Some(entry.ino));
            assert!(index.inode(entry.ino).is_some());
        }
        let mut at = ino;
        for _ in 0..=index.inode_count() {
            match index.inode(at).map(|i| i.data) {
                Some(Data::Dir { parent, .. }) => at = parent,
                _ => break,
            }
        }
        if matches!(
            inode,
            Some(Inode {
                data: Data::Dir { .. },
                ..
            })
        ) {
            assert_eq!(at, Index::ROOT);
        }
    }
}

/// With the checksum made right, what remains is the structure's own verification.
#[test]
fn forged_bytes_are_refused_or_harmless() {
    let good = sample().finish().unwrap().bytes().to_vec();
    let end = good.len() - 4;
    let mut refused = 0;
    for at in 8..end {
        for value in [
            0,
            1,
            2,
            0x40,
            0x7f,
            0x80,
            0xff,
            good[at] ^ 1,
            good[at] ^ 0x10,
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            let crc = crc32fast::hash(&bad[..end]);
            bad[end..].copy_from_slice(&crc.to_le_bytes());
            match Index::from_bytes(bad) {
                Ok(index) => exercise(&index),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > end, "only {refused} refused");
}

#[test]
fn a_later_version_is_named() {
    let mut bytes = sample().finish().unwrap().bytes().to_vec();
    bytes[8] = 2;
    let error = Index::from_bytes(bytes).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Error::Version(2)));
    let error = Index::from_bytes(b"PK".to_vec()).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Error::Magic("an index")));
}

fn refused(change: impl FnOnce(&mut Builder)) -> String {
    let mut b = sample();
    change(&mut b);
    format!("{:#}", b.finish().unwrap_err())
}

#[test]
fn a_builder_does_not_make_what_a_reader_refuses() {
    // An inode without a name.
    refused(|b| b.set(9, &meta(libc::S_IFREG, Data::None), []).unwrap());
    // A name without an inode.
    refused(|b| b.entries(6, [(&b"null"[..], 9)]).unwrap());
    // A directory with a wrong parent, and one in itself.
    refused(|b| {
        b.set(9, &dir(3), []).unwrap();
        b.entries(6, [(&b"d"[..], 9), (b"null", 7)]).unwrap();
    });
    refused(|b| {
        b.set(9, &dir(9), []).unwrap();
        b.entries(9, [(&b"d"[..], 9)]).unwrap();
    });
    // Two directories in each other.
    refused(|b| {
        b.set(9, &dir(11), []).unwrap();
        b.set(11, &dir(9), []).unwrap();
        b.entries(9, [(&b"d"[..], 11)]).unwrap();
        b.entries(11, [(&b"d"[..], 9)]).unwrap();
    });
    // Names out of order.
    refused(|b| b.entries(4, [(&b"sh"[..], 5), (b"ash", 5)]).unwrap());
    // Content outside its pack.
    refused(|b| {
        let mut file = meta(
            libc::S_IFREG,
            Data::File {
                pack: 0,
                offset: 8192,
            },
        );
        file.size = 1;
        b.set(9, &file, []).unwrap();
        b.entries(6, [(&b"f"[..], 9), (b"null", 7)]).unwrap();
    });
}

#[test]
fn a_builder_refuses_what_linux_has_no_room_for() {
    let mut b = sample();
    assert!(b.set(1, &dir(1), []).is_err(), "set twice");
    assert!(b.set(0, &dir(1), []).is_err());
    assert!(b.set(1 << 32, &dir(1), []).is_err());
    assert!(
        b.set(20, &meta(0o644, Data::None), []).is_err(),
        "no file type"
    );
    assert!(
        b.set(20, &meta(libc::S_IFLNK, Data::Symlink(b"")), [])
            .is_err()
    );
    let long = vec![b'x'; PATH_MAX + 1];
    assert!(
        b.set(20, &meta(libc::S_IFLNK, Data::Symlink(&long)), [])
            .is_err()
    );
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &long[..256]] {
        assert!(b.entries(1, [(name, 2)]).is_err());
    }
    let big = vec![0; XATTR_SIZE_MAX + 1];
    assert!(b.set(20, &dir(1), [(&b"user.x"[..], &big[..])]).is_err());
    assert!(b.set(20, &dir(1), [(&b""[..], &b""[..])]).is_err());
}

#[test]
fn equal_attribute_sets_are_stored_once() {
    let value = [7; 1000];
    let build = |n: u64| {
        let mut b = Builder::new();
        b.set(1, &dir(1), []).unwrap();
        let names: Vec<_> = (0..n).map(|i| format!("{i:04}").into_bytes()).collect();
        for i in 0..n {
            b.set(
                2 + i,
                &meta(libc::S_IFREG, Data::None),
                [(&b"user.x"[..], &value[..])],
            )
            .unwrap();
        }
        b.entries(1, names.iter().zip(2..).map(|(n, i)| (&n[..], i)))
            .unwrap();
        b.finish().unwrap()
    };
    let index = build(100);
    assert!(index.bytes().len() < build(1).bytes().len() + 100 * 120);
    assert_eq!(index.xattr(101, b"user.x"), Some(&value[..]));
}

#[test]
fn an_index_is_opened_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("i.idx");
    std::fs::write(&path, sample().finish().unwrap().bytes()).unwrap();
    assert_eq!(Index::open(&path).unwrap().lookup(1, b"usr"), Some(3));
    std::fs::write(&path, b"").unwrap();
    let error = format!("{:#}", Index::open(&path).unwrap_err());
    assert!(
        error.contains("i.idx") && error.contains("not an index"),
        "{error}"
    );
}

#[test]
fn a_pack_is_read_within_its_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = vec![0; 8192];
    bytes[4096..4099].copy_from_slice(b"abc");
    std::fs::write(PACK_A.pack_path(dir.path()), &bytes).unwrap();
    let index = sample().finish().unwrap();
    let packs = index.open_packs(dir.path()).unwrap();
    let mut part = [0xff; 4];
    packs[0].read(4096, &mut part).unwrap();
    assert_eq!(&part, b"abc\0");
    packs[0].read(8188, &mut part).unwrap();
    for outside in [8189, 8192, u64::MAX, u64::MAX - 3] {
        assert!(packs[0].read(outside, &mut part).is_err(), "{outside}");
    }
    std::fs::write(PACK_A.pack_path(dir.path()), &bytes[1..]).unwrap();
    let error = format!("{:#}", index.open_packs(dir.path()).unwrap_err());
    assert!(error.contains("another length"), "{error}");
}

#[test]
fn pack_names_are_64_lower_case_digits() {
    assert_eq!(PackId::parse(&PACK_A.to_string()), Some(PACK_A));
    for bad in [
        "",
        "a5",
        &"A5".repeat(32),
        &"g5".repeat(32),
        &"a5".repeat(33),
        "../../x",
    ] {
        assert_eq!(PackId::parse(bad), None, "{bad}");
    }
}

#[test]
fn every_name_of_a_large_directory_is_found() {
    let n = 20_000_u64;
    let mut b = Builder::new();
    b.set(1, &dir(1), []).unwrap();
    let names: Vec<_> = (0..n)
        .map(|i| format!("file-{i:08}").into_bytes())
        .collect();
    for i in 0..n {
        b.set(2 + i, &meta(libc::S_IFREG | 0o644, Data::None), [])
            .unwrap();
    }
    b.entries(1, names.iter().zip(2..).map(|(n, i)| (&n[..], i)))
        .unwrap();
    let index = b.finish().unwrap();
    for (i, name) in names.iter().enumerate() {
        assert_eq!(index.lookup(1, name), Some(i as u64 + 2));
    }
}
