use std::io::Cursor;

use super::super::tarball::differential;
use super::super::tarball::make::*;
use super::*;
use crate::cow::index::{Index, PAGE, Time};

struct Scene {
    root: tempfile::TempDir,
    dirs: LayerDirs,
}

impl Scene {
    fn new() -> Scene {
        let root = tempfile::tempdir().unwrap();
        let dirs = LayerDirs::of(root.path());
        for dir in [&dirs.packs, &dirs.layer_indexes, &dirs.tmp] {
            fs::create_dir_all(dir).unwrap();
        }
        Scene { root, dirs }
    }

    fn ingest(&self, tar: &[u8]) -> Result<Layer> {
        ingest(&self.dirs, &digest(tar), &mut Cursor::new(tar))
    }

    fn image(&self, layers: &[&Layer]) -> Result<Index> {
        let ids: Vec<_> = layers.iter().map(|l| l.diff_id.clone()).collect();
        let out = self.root.path().join("image.idx");
        build_image_index(&self.dirs, &ids, &out)?;
        Index::open(&out)
    }

    /// Content of a file, by path, through an image's index and packs.
    fn content(&self, index: &Index, path: &str) -> Vec<u8> {
        let parts = path.split('/');
        let ino = parts.fold(Index::ROOT, |dir, name| {
            index.lookup(dir, name.as_bytes()).unwrap()
        });
        let inode = index.inode(ino).unwrap();
        match inode.data {
            Data::File { pack, offset } => {
                let packs = index.open_packs(&self.dirs.packs).unwrap();
                let mut bytes = vec![0; usize::try_from(inode.size).unwrap()];
                packs[pack as usize].read(offset, &mut bytes).unwrap();
                bytes
            }
            _ => vec![0; usize::try_from(inode.size).unwrap()],
        }
    }

    /// Everything in the store, by path and size.
    fn files(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        for dir in [&self.dirs.packs, &self.dirs.layer_indexes, &self.dirs.tmp] {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                files.push((
                    entry.path().display().to_string(),
                    entry.metadata().unwrap().len(),
                ));
            }
        }
        files.sort();
        files
    }

    fn pack_bytes(&self) -> u64 {
        let packs = self.files().into_iter();
        packs
            .filter(|(name, _)| name.ends_with(".pack"))
            .map(|(_, len)| len)
            .sum()
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", PackId(Sha256::digest(bytes).into()))
}

#[test]
fn a_tar_becomes_files_with_their_content_and_metadata() {
    let scene = Scene::new();
    let big: Vec<u8> = (0..300_000_u32).map(|i| (i / 3) as u8).collect();
    let tar = tar(&[
        dir("etc"),
        Head::new("etc/hostname", b'0')
            .mode(0o640)
            .owner(1, 2)
            .with("box\n"),
        file("big", &big),
        file("empty", ""),
        pax(&[("SCHILY.xattr.user.a", "b"), ("mtime", "-1.5")]),
        file("marked", "m"),
        symlink("link", "big"),
        hardlink("hard", "big"),
        Head::new("null", b'3').device(1, 3).block().to_vec(),
    ]);
    let layer = scene.ingest(&tar).unwrap();
    assert_eq!((layer.entries, layer.bytes), (8, 300_005));
    assert_eq!(layer.diff_id, digest(&tar));
    let index = scene.image(&[&layer]).unwrap();
    assert_eq!(scene.content(&index, "etc/hostname"), b"box\n");
    assert_eq!(scene.content(&index, "big"), big);
    assert_eq!(scene.content(&index, "hard"), big);
    assert_eq!(scene.content(&index, "empty"), b"");
    assert_eq!(index.total_size(), 300_005);
    let inode = |name: &[u8]| index.inode(index.lookup(1, name).unwrap()).unwrap();
    let marked = inode(b"marked");
    let time = Time {
        sec: -2,
        nsec: 500_000_000,
    };
    assert_eq!(
        (marked.mtime, marked.atime, marked.ctime),
        (time, time, time)
    );
    assert_eq!(
        index.xattr(index.lookup(1, b"marked").unwrap(), b"user.a"),
        Some(&b"b"[..])
    );
    assert_eq!(
        (inode(b"null").rdev_major, inode(b"null").rdev_minor),
        (1, 3)
    );
    assert_eq!(inode(b"link").data, Data::Symlink(b"big"));
    // The same again finds everything in place.
    let before = scene.files();
    assert_eq!(scene.ingest(&tar).unwrap(), layer);
    assert_eq!(scene.files(), before);
    assert_eq!(find(&scene.dirs, &layer.diff_id).unwrap(), Some(layer));
}

#[test]
fn content_already_in_the_store_is_not_written_again() {
    let scene = Scene::new();
    let (large, small) = (vec![1; 3 << 20], vec![2; 5000]);
    let first = scene
        .ingest(&tar(&[
            file("a", &large),
            file("b", &small),
            file("c", &small),
        ]))
        .unwrap();
    assert_eq!(
        scene.pack_bytes(),
        (3 << 20) + 8192,
        "equal files of one layer share"
    );
    let second = scene
        .ingest(&tar(&[file("x", &small), file("y", &large)]))
        .unwrap();
    assert_eq!(
        scene.pack_bytes(),
        (3 << 20) + 8192,
        "nothing new: no new pack"
    );
    let third = scene
        .ingest(&tar(&[
            file("n1", "new"),
            file("y", &large),
            file("n2", &large[1..]),
        ]))
        .unwrap();
    assert_eq!(scene.pack_bytes(), (6 << 20) + 8192 + 4096);
    let index = scene.image(&[&first, &second, &third]).unwrap();
    for (name, content) in [
        ("a", &large[..]),
        ("b", &small),
        ("c", &small),
        ("x", &small),
        ("y", &large),
        ("n1", b"new"),
        ("n2", &large[1..]),
    ] {
        assert!(scene.content(&index, name) == content, "{name}");
    }
    assert_eq!(index.packs().len(), 2);
    for id in index.packs() {
        packs::verify(&scene.dirs.packs, id).unwrap();
    }
}

#[test]
fn every_flipped_bit_of_the_tar_is_a_digest_mismatch_and_commits_nothing() {
    let scene = Scene::new();
    let good = tar(&[
        pax(&[("mtime", "1.5")]),
        file("a", "some content"),
        symlink("l", "a"),
    ]);
    let expected = digest(&good);
    let empty = scene.files();
    for bit in (0..good.len() * 8).step_by(41) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = ingest(&scene.dirs, &expected, &mut Cursor::new(&bad)).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Error::DiffId { .. })),
            "bit {bit}: {error:#}"
        );
        assert_eq!(scene.files(), empty, "bit {bit}");
    }
    for len in [0, 512, 1000, 1536, good.len() - 512] {
        let error = ingest(&scene.dirs, &expected, &mut Cursor::new(&good[..len])).unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Error::DiffId { .. })),
            "{len}: {error:#}"
        );
        assert_eq!(scene.files(), empty);
    }
}

#[test]
fn bytes_after_the_end_of_the_archive_count_for_the_digest() {
    let scene = Scene::new();
    let mut bytes = tar(&[file("a", "a")]);
    bytes.extend_from_slice(&[0; 9000]);
    scene.ingest(&bytes).unwrap();
    let error = ingest(
        &scene.dirs,
        &digest(&bytes),
        &mut Cursor::new(&bytes[..bytes.len() - 1]),
    )
    .unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Error::DiffId { .. })),
        "{error:#}"
    );
}

#[test]
fn a_malformed_tar_of_the_right_digest_names_its_entry_and_commits_nothing() {
    let scene = Scene::new();
    let empty = scene.files();
    let bad = tar(&[
        file("good", "x"),
        pax(&[("size", "9")]),
        file("liar", "abc"),
    ]);
    let error = format!("{:#}", scene.ingest(&bad).unwrap_err());
    assert!(
        error.contains("unpacking layer sha256:")
            && error.contains("`liar`")
            && error.contains("disagree"),
        "{error}"
    );
    assert_eq!(scene.files(), empty);
}

/// Fails after some bytes, as a connection does.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            n => Ok(n),
        }
    }
}

#[test]
fn a_stream_that_breaks_is_its_own_error_and_commits_nothing() {
    let scene = Scene::new();
    let whole = tar(&[file("a", vec![1; 700_000]), file("b", "b")]);
    let empty = scene.files();
    for len in [0, 512, 400_000, whole.len() - 1000, whole.len()] {
        let error = ingest(&scene.dirs, &digest(&whole), &mut Broken(&whole[..len])).unwrap_err();
        let io = error.chain().find_map(|e| e.downcast_ref::<io::Error>());
        assert_eq!(
            io.map(io::Error::kind),
            Some(io::ErrorKind::ConnectionReset),
            "{len}: {error:#}"
        );
        assert_eq!(scene.files(), empty);
    }
}

#[test]
fn more_than_the_limits_is_refused() {
    let scene = Scene::new();
    let many = tar(&(0..100)
        .map(|i| file(format!("f{i}"), ""))
        .collect::<Vec<_>>());
    let holes = tar(&[
        pax(&[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.realsize", "1099511627776"),
        ]),
        file("s", padded(b"1\n0\n0\n")),
    ]);
    let limits = Limits {
        entries: 1000,
        metadata: 1 << 20,
        bytes: 1 << 20,
    };
    let refused = |tar: &[u8], limits: Limits| {
        let error =
            ingest_within(&scene.dirs, &digest(tar), &mut Cursor::new(tar), &limits).unwrap_err();
        assert!(scene.files().is_empty());
        format!("{error:#}")
    };
    let what = refused(
        &many,
        Limits {
            entries: 99,
            ..limits
        },
    );
    assert!(
        what.contains("more than 99 files and directories"),
        "{what}"
    );
    let what = refused(
        &many,
        Limits {
            metadata: 5000,
            ..limits
        },
    );
    assert!(what.contains("more than 5000 bytes of names"), "{what}");
    let what = refused(
        &many,
        Limits {
            bytes: 5000,
            ..limits
        },
    );
    assert!(what.contains("larger than 5000 bytes"), "{what}");
    let what = refused(&holes, limits);
    assert!(what.contains("more than 1048576 bytes"), "{what}");
    ingest_within(
        &scene.dirs,
        &digest(&many),
        &mut Cursor::new(&many),
        &limits,
    )
    .unwrap();
}

#[test]
fn sparse_files_have_their_holes_and_take_no_room_for_them() {
    let scene = Scene::new();
    let records = [
        ("GNU.sparse.size", "50000000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.map", "4,3,40000000,4"),
    ];
    // A large file that is discarded as known must leave no bytes behind in the hole.
    let large = vec![0xee; 2 << 20];
    scene.ingest(&tar(&[file("large", &large)])).unwrap();
    let layer = scene
        .ingest(&tar(&[
            file("again", &large),
            pax(&records),
            file("s", "abcdefg"),
            file("z", "z"),
        ]))
        .unwrap();
    let index = scene.image(&[&layer]).unwrap();
    let mut expected = vec![0; 50_000_000];
    expected[4..7].copy_from_slice(b"abc");
    expected[40_000_000..40_000_004].copy_from_slice(b"defg");
    assert!(scene.content(&index, "s") == expected);
    assert_eq!(scene.content(&index, "z"), b"z");
    let own = index
        .packs()
        .iter()
        .map(|id| id.pack_path(&scene.dirs.packs));
    let blocks: u64 = own
        .map(|p| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(p).unwrap()))
        .sum();
    assert!(blocks * 512 < (3 << 20), "{blocks}");
    for id in index.packs() {
        packs::verify(&scene.dirs.packs, id).unwrap();
    }
}

#[test]
fn what_a_killed_process_left_is_cleared_by_the_next() {
    let scene = Scene::new();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    let orphan = scene.dirs.tmp.join(".new-orphan");
    fs::File::create(&orphan)
        .unwrap()
        .set_modified(old)
        .unwrap();
    let pack = PackId([7; 32]).pack_path(&scene.dirs.packs);
    fs::write(&pack, "x").unwrap();
    let busy = PackId([8; 32]).pack_path(&scene.dirs.packs);
    fs::write(&busy, "x").unwrap();
    let held = fs::File::open(&busy).unwrap();
    held.lock().unwrap();
    scene.ingest(&tar(&[])).unwrap();
    assert!(!orphan.exists() && !pack.exists());
    assert!(busy.exists(), "its writer is at work");
    drop(held);
    packs::sweep(&scene.dirs.packs);
    assert!(!busy.exists());
}

#[test]
fn an_empty_layer_is_a_layer() {
    let scene = Scene::new();
    for bytes in [&[][..], &[0; 1024]] {
        let layer = scene.ingest(bytes).unwrap();
        assert_eq!((layer.entries, layer.bytes), (0, 0));
        assert_eq!(scene.image(&[&layer]).unwrap().inode_count(), 1);
    }
    assert_eq!(scene.pack_bytes(), 0);
    assert_eq!(list(&scene.dirs).unwrap().len(), 2);
}

#[test]
fn a_digest_is_checked_before_it_is_a_path() {
    let scene = Scene::new();
    for bad in [
        "",
        "sha256:",
        "sha256:../../x",
        "sha512:00",
        "../../x",
        &"A".repeat(64),
        &"0".repeat(63),
    ] {
        let error = ingest(&scene.dirs, bad, &mut Cursor::new([])).unwrap_err();
        assert!(
            error.to_string().contains("not a sha256 digest"),
            "{error:#}"
        );
        assert!(find(&scene.dirs, bad).is_err());
        assert!(scene.dirs.index(bad).is_err());
    }
    assert!(scene.files().is_empty());
}

#[test]
fn damage_is_found_and_what_has_it_is_fetched_again() {
    let scene = Scene::new();
    let content = vec![5; 10_000];
    let bytes = tar(&[file("a", &content), file("b", "b")]);
    let layer = scene.ingest(&bytes).unwrap();
    let other = scene.ingest(&tar(&[file("c", "c")])).unwrap();
    let index = scene.image(&[&layer]).unwrap();
    let id = index.packs()[0];
    let path = id.pack_path(&scene.dirs.packs);
    // One byte in the padding is nobody's; one in a content is somebody's.
    let mut damaged = fs::read(&path).unwrap();
    damaged[9000] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let error = packs::verify(&scene.dirs.packs, &id).unwrap_err();
    assert!(
        format!("{error:#}").contains("does not match its digest"),
        "{error:#}"
    );
    assert_eq!(
        discard_pack(&scene.dirs, &id).unwrap(),
        std::slice::from_ref(&layer.diff_id)
    );
    assert_eq!(find(&scene.dirs, &layer.diff_id).unwrap(), None);
    assert!(find(&scene.dirs, &other.diff_id).unwrap().is_some());
    let layer = scene.ingest(&bytes).unwrap();
    packs::verify(&scene.dirs.packs, &id).unwrap();
    // A pack cut short, and a layer index with a flipped bit: not in the store.
    fs::write(&path, &damaged[..8192]).unwrap();
    assert_eq!(find(&scene.dirs, &layer.diff_id).unwrap(), None);
    let layer = scene.ingest(&bytes).unwrap();
    assert!(find(&scene.dirs, &layer.diff_id).unwrap().is_some());
    let mut flipped = fs::read(&layer.index).unwrap();
    flipped[100] ^= 1;
    fs::write(&layer.index, flipped).unwrap();
    assert_eq!(find(&scene.dirs, &layer.diff_id).unwrap(), None);
    assert!(!layer.index.exists());
}

#[test]
fn a_layer_index_under_another_ones_name_is_refused() {
    let scene = Scene::new();
    let a = scene.ingest(&tar(&[file("a", "a")])).unwrap();
    let b = scene.ingest(&tar(&[file("b", "b")])).unwrap();
    fs::copy(&a.index, &b.index).unwrap();
    assert!(scene.image(&[&b]).is_err());
    assert_eq!(find(&scene.dirs, &b.diff_id).unwrap(), None);
}

#[test]
fn packs_that_no_layer_needs_are_found() {
    let scene = Scene::new();
    let a = scene.ingest(&tar(&[file("a", "a")])).unwrap();
    let b = scene
        .ingest(&tar(&[file("a", "a"), file("b", "b")]))
        .unwrap();
    let packs = |l: &Layer| scene.image(&[l]).unwrap().packs().to_vec();
    let (of_a, of_b) = (packs(&a), packs(&b));
    assert_eq!(of_b.len(), 2);
    assert_eq!(
        unreferenced_packs(&scene.dirs, &HashSet::new()).unwrap(),
        []
    );
    remove(&scene.dirs, &b.diff_id).unwrap();
    let free = unreferenced_packs(&scene.dirs, &HashSet::new()).unwrap();
    assert_eq!(free.len(), 1);
    assert!(of_b.contains(&free[0]) && !of_a.contains(&free[0]));
    assert_eq!(
        unreferenced_packs(&scene.dirs, &of_b.iter().copied().collect()).unwrap(),
        []
    );
    packs::remove(&scene.dirs.packs, &free[0]).unwrap();
    assert_eq!(scene.pack_bytes(), PAGE);
}

#[test]
fn layers_unpacked_at_once_do_not_disturb_each_other() {
    let scene = Scene::new();
    let tars: Vec<_> = (0..4_u8)
        .map(|i| {
            tar(&[
                file("own", vec![i + 1; 400_000]),
                file("shared", vec![9; 300_000]),
            ])
        })
        .collect();
    std::thread::scope(|s| {
        for tar in tars.iter().chain(&tars) {
            s.spawn(|| scene.ingest(tar).unwrap());
        }
    });
    for (i, tar) in tars.iter().enumerate() {
        let layer = find(&scene.dirs, &digest(tar)).unwrap().unwrap();
        let index = scene.image(&[&layer]).unwrap();
        assert_eq!(
            scene.content(&index, "own"),
            vec![u8::try_from(i).unwrap() + 1; 400_000]
        );
        assert_eq!(scene.content(&index, "shared"), vec![9; 300_000]);
    }
    assert!(
        scene
            .files()
            .iter()
            .all(|(name, _)| !name.contains(".new-"))
    );
}

/// Layers of the kill test: each has a file of its own and one that several share.
fn kill_test_layers() -> Vec<Vec<u8>> {
    let layer = |i: u8| {
        tar(&[
            file("own", vec![i; 300_000]),
            file("shared", vec![200 + i % 3; 100_000]),
        ])
    };
    (0..40).map(layer).collect()
}

const KILL_TEST: &str = "RLESS_TEST_KILLED_INGEST";

/// Not a test of its own: what [`killed_anywhere_the_store_is_sound`] runs and kills.
#[test]
fn unpacks_layers_when_asked_by_the_kill_test() {
    let Some(data) = std::env::var_os(KILL_TEST) else {
        return;
    };
    let dirs = LayerDirs::of(Path::new(&data));
    for tar in kill_test_layers() {
        ingest(&dirs, &digest(&tar), &mut Cursor::new(tar)).unwrap();
    }
}

#[test]
fn killed_anywhere_the_store_is_sound() {
    let layers = kill_test_layers();
    let scene = Scene::new();
    let mut whole = 0;
    for round in 0..12_u64 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::layers::tests::unpacks_layers_when_asked_by_the_kill_test",
            ])
            .env(KILL_TEST, scene.root.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Some progress, and a little more: each round dies elsewhere.
        let enough = whole + usize::try_from(round % 3).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while list(&scene.dirs).unwrap().len() < enough.max(1) {
            assert!(std::time::Instant::now() < deadline, "no progress");
            if child.try_wait().unwrap().is_some() {
                break;
            }
        }
        std::thread::sleep(std::time::Duration::from_micros(round * round * 90));
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever has its name is whole.
        for id in packs::list(&scene.dirs.packs).unwrap() {
            packs::verify(&scene.dirs.packs, &id).unwrap();
        }
        whole = 0;
        for id in list(&scene.dirs).unwrap() {
            assert!(
                find(&scene.dirs, &id).unwrap().is_some(),
                "round {round}: {id}"
            );
            whole += 1;
        }
        // Left-overs count as old at once.
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        let files = scene.files();
        for (path, _) in files.iter().filter(|(path, _)| path.contains("/.new-")) {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(old).unwrap();
        }
    }
    assert!(whole > 1, "killed too early every time");
    for tar in &layers {
        scene.ingest(tar).unwrap();
    }
    assert!(fs::read_dir(&scene.dirs.tmp).unwrap().next().is_none());
    let packs = fs::read_dir(&scene.dirs.packs).unwrap().count();
    assert_eq!(packs, 2 * packs::list(&scene.dirs.packs).unwrap().len());
}

/// Compares what the index says of `path` and below with what the host's file system says.
fn compare(scene: &Scene, index: &Index, ino: u64, path: &Path) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let (inode, host) = (
        index.inode(ino).unwrap(),
        fs::symlink_metadata(path).unwrap(),
    );
    let shown = path.display();
    assert_eq!(inode.mode, host.mode(), "{shown}");
    assert_eq!((inode.uid, inode.gid), (host.uid(), host.gid()), "{shown}");
    let mtime = Time {
        sec: host.mtime(),
        nsec: u32::try_from(host.mtime_nsec()).unwrap(),
    };
    assert_eq!(inode.mtime, mtime, "{shown}");
    if !host.is_dir() {
        assert_eq!(u64::from(inode.nlink), host.nlink(), "{shown}");
        assert_eq!(inode.size, host.size(), "{shown}");
    }
    match inode.data {
        Data::Symlink(target) => {
            assert_eq!(target, fs::read_link(path).unwrap().as_os_str().as_bytes())
        }
        Data::File { pack, offset } => {
            let packs = index.open_packs(&scene.dirs.packs).unwrap();
            let mut content = vec![0; usize::try_from(inode.size).unwrap()];
            packs[pack as usize].read(offset, &mut content).unwrap();
            assert!(*content == *fs::read(path).unwrap(), "{shown}");
        }
        Data::None => assert_eq!(inode.size, 0, "{shown}"),
        Data::Dir { .. } => {
            let mut names: Vec<_> = fs::read_dir(path)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            names.sort();
            let ours: Vec<_> = index.entries(ino).iter().map(|e| e.name.to_vec()).collect();
            assert_eq!(
                ours,
                names
                    .iter()
                    .map(|n| n.as_bytes().to_vec())
                    .collect::<Vec<_>>()
            );
            for (entry, name) in index.entries(ino).iter().zip(names) {
                compare(scene, index, entry.ino, &path.join(name));
            }
        }
    }
}

#[test]
fn a_tree_through_gnu_tar_and_the_store_is_the_same_tree() {
    if !differential::available() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    differential::tree(root.path());
    for options in [
        &["--format=posix", "--pax-option=delete=atime,delete=ctime"][..],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse"],
    ] {
        let scene = Scene::new();
        let layer = scene
            .ingest(&differential::gnu_tar(root.path(), options))
            .unwrap();
        let index = scene.image(&[&layer]).unwrap();
        compare(&scene, &index, Index::ROOT, root.path());
    }
}
