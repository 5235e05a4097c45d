//! Layers of arbitrary entries over few names: merging gives a sound index without whiteouts, or a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rless::cow::index::layer::{Act, Layer, Writer};
use rless::cow::index::{Data, Error, Index, Inode, Time};
use rless::cow::merge::merge;

const NAMES: [&str; 12] = [
    "a",
    "b",
    "c",
    ".wh.a",
    ".wh.b",
    ".wh..wh..opq",
    ".wh.",
    ".wh..",
    ".wh..wh.plnk",
    "",
    "..",
    ".",
];

/// A path out of a byte each: at most three names.
fn path(bytes: &mut impl Iterator<Item = u8>, names: usize) -> String {
    let mut byte = usize::from(bytes.next().unwrap_or(0));
    let mut parts = Vec::new();
    for _ in 0..=byte % 3 {
        byte = usize::from(bytes.next().unwrap_or(0));
        parts.push(NAMES[byte % names]);
    }
    parts.join("/")
}

fn layer(bytes: &mut impl Iterator<Item = u8>) -> Layer {
    let mut out = Writer::new(Vec::new(), &[0; 32]).unwrap();
    for _ in 0..32 {
        let Some(kind) = bytes.next().filter(|k| *k != 0xff) else {
            break;
        };
        let name = path(bytes, 9);
        let target = path(bytes, NAMES.len());
        let (mode, data) = match kind % 4 {
            0 => (0o100_644, Data::None),
            1 => (
                0o040_755,
                Data::Dir {
                    parent: 0,
                    entries: 0,
                },
            ),
            _ => (0o120_777, Data::Symlink(target.as_bytes())),
        };
        let time = Time::default();
        let inode = Inode {
            mode,
            nlink: 0,
            uid: 0,
            gid: 0,
            rdev_major: 0,
            rdev_minor: 0,
            size: 0,
            mtime: time,
            atime: time,
            ctime: time,
            data,
        };
        let act = match kind % 4 {
            3 => Act::Link(target.as_bytes()),
            _ => Act::Node(inode),
        };
        // Refused by the writer already: empty targets and the like.
        drop(out.push(name.as_bytes(), &act, []));
    }
    Layer::from_bytes(out.finish(&[]).unwrap()).unwrap()
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.iter().copied();
    let layers: Vec<_> = (0..3).map(|_| layer(&mut bytes)).collect();
    match merge(&layers) {
        Ok(index) => {
            for ino in 1..=index.inode_count() {
                assert!(
                    index
                        .entries(ino)
                        .iter()
                        .all(|e| !e.name.starts_with(b".wh."))
                );
            }
            assert!(index.inode(Index::ROOT).is_some());
        }
        Err(error) => assert!(error.downcast_ref::<Error>().is_none(), "{error:#}"),
    }
});
