//! Any bytes as an image index, with length and checksum made right: an error, or accessors that all come back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rless::cow::index::{Data, Index};

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() < 68 {
        return;
    }
    let mut bytes = bytes.to_vec();
    bytes[..8].copy_from_slice(b"rlessidx");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let len = bytes.len();
    bytes[16..24].copy_from_slice(&(len as u64).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..len - 4]);
    bytes[len - 4..].copy_from_slice(&crc.to_le_bytes());
    let Ok(index) = Index::from_bytes(bytes) else {
        return;
    };
    for ino in 0..=index.inode_count() + 1 {
        let inode = index.inode(ino);
        assert!(index.xattrs(ino).count() <= len);
        for entry in index.entries(ino).iter() {
            assert_eq!(index.lookup(ino, entry.name), Some(entry.ino));
            assert!(index.inode(entry.ino).is_some());
        }
        match inode.map(|i| i.data) {
            Some(Data::File { pack, .. }) => assert!(index.pack_len(pack).is_some()),
            Some(Data::Dir { mut parent, .. }) => {
                for _ in 0..index.inode_count() {
                    match index.inode(parent).map(|i| i.data) {
                        Some(Data::Dir { parent: up, .. }) => parent = up,
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(parent, Index::ROOT);
            }
            _ => {}
        }
    }
});
