//! What must be there after the server was killed: an upper that is dropped without a sync is that.

use super::super::meta::{Caller, lk};
use super::super::{Cow, IdView, Lower, Options};
use super::create::New;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

const ROOT: Caller = Caller { uid: 0, gid: 0 };

fn open(dir: &Path) -> Cow {
    let lower = dir.join("lower");
    std::fs::create_dir_all(&lower).unwrap();
    Cow::open(Options {
        lower: Lower::HostDir {
            root: lower,
            hide: Vec::new(),
            uids: IdView::default(),
            gids: IdView::default(),
        },
        upper: Some(dir.join("upper")),
        squash: None,
        size_limit: None,
        stats: None,
    })
    .unwrap()
}

fn file() -> New<'static> {
    New {
        mode: libc::S_IFREG | 0o644,
        ..New::default()
    }
}

fn content(cow: &Cow, path: &str) -> Vec<u8> {
    cow.read_file(Path::new(path), 1 << 20).unwrap().unwrap()
}

#[test]
fn content_written_before_a_temporary_file_got_its_name_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = cow.tree.tmpfile(ROOT, 1, &file()).unwrap();
    cow.tree.write(ROOT, ino, 0, b"content", false).unwrap();
    // The flusher comes by while it has no name.
    cow.sync().unwrap();
    cow.tree.link(ino, 1, b"named").unwrap();
    cow.sync().unwrap();
    drop(cow);
    assert_eq!(content(&open(dir.path()), "/named"), b"content");
}

#[test]
fn an_fsync_waits_for_a_flush_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let cow = open(dir.path());
    let ino = cow.tree.create(ROOT, 1, b"f", &file()).unwrap();
    cow.tree.write(ROOT, ino, 0, b"content", false).unwrap();
    // As the flusher: the content is on its way, the record of it not yet appended.
    let node = cow.tree.node(ino).unwrap();
    let flushing = lk(&node.flushing);
    let snapshot = cow.tree.snapshot(&node).unwrap().unwrap();
    std::thread::scope(|scope| {
        let (done, synced) = mpsc::channel();
        let tree = &cow.tree;
        scope.spawn(move || done.send(tree.fsync(ino)).unwrap());
        let early = synced.recv_timeout(Duration::from_millis(200));
        assert!(early.is_err(), "nothing of it is in the journal");
        assert!(cow.tree.record(&node, snapshot));
        drop(flushing);
        synced.recv().unwrap().unwrap();
    });
    drop(node);
    drop(cow);
    assert_eq!(content(&open(dir.path()), "/f"), b"content");
}
