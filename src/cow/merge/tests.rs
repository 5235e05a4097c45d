use super::super::index::PackId;
use super::super::index::layer::Writer;
use super::*;

const PACK: PackId = PackId([9; 32]);

/// A layer under construction; the contents of its files are told apart by their size.
struct Make(Writer<Vec<u8>>, u32);

impl Make {
    fn new() -> Make {
        Make(Writer::new(Vec::new(), &[0; 32]).unwrap(), 0)
    }

    fn node(mut self, path: &str, mode: u32, data: Data<'_>, size: u64) -> Make {
        self.1 += 1;
        let inode = Inode {
            mode,
            size,
            data,
            mtime: Time {
                sec: self.1.into(),
                nsec: 0,
            },
            ..implied(0)
        };
        self.0.push(path.as_bytes(), &Act::Node(inode), []).unwrap();
        self
    }

    fn file(self, path: &str, size: u64) -> Make {
        let data = Data::File { pack: 0, offset: 0 };
        self.node(path, libc::S_IFREG | 0o644, data, size)
    }

    fn empty(self, path: &str) -> Make {
        self.node(path, libc::S_IFREG | 0o644, Data::None, 0)
    }

    fn dir(self, path: &str, mode: u32) -> Make {
        let data = Data::Dir {
            parent: 0,
            entries: 0,
        };
        self.node(path, libc::S_IFDIR | mode, data, 0)
    }

    fn symlink(self, path: &str, target: &str) -> Make {
        let data = Data::Symlink(target.as_bytes());
        self.node(path, libc::S_IFLNK | 0o777, data, 0)
    }

    fn link(mut self, path: &str, target: &str) -> Make {
        self.0
            .push(path.as_bytes(), &Act::Link(target.as_bytes()), [])
            .unwrap();
        self
    }

    fn done(self) -> Layer {
        Layer::from_bytes(self.0.finish(&[(PACK, 1 << 30)]).unwrap()).unwrap()
    }
}

/// Every path with what is there: `d755`, `l→target`, `f7` (size) `f7*2` (names), `i755` for an implied directory.
fn show(index: &Index) -> String {
    let mut lines = Vec::new();
    let mut dirs = vec![(Index::ROOT, String::new())];
    while let Some((dir, path)) = dirs.pop() {
        for entry in index.entries(dir).iter() {
            let inode = index.inode(entry.ino).unwrap();
            let path = format!("{path}/{}", entry.name.escape_ascii());
            let links = match inode.nlink {
                n if n > 1 && entry.kind != libc::DT_DIR => format!("*{n}"),
                _ => String::new(),
            };
            lines.push(match inode.data {
                Data::Dir { .. } => {
                    dirs.push((entry.ino, path.clone()));
                    let said = if inode.mtime.sec == 0 { 'i' } else { 'd' };
                    format!("{path} {said}{:o}", inode.mode & 0o7777)
                }
                Data::Symlink(target) => format!("{path} l->{}{links}", target.escape_ascii()),
                _ => format!("{path} f{}{links}", inode.size),
            });
        }
    }
    lines.sort();
    lines.join("\n")
}

fn merged(layers: impl IntoIterator<Item = Make>) -> Index {
    merge(&layers.into_iter().map(Make::done).collect::<Vec<_>>()).unwrap()
}

fn refused(layers: impl IntoIterator<Item = Make>) -> String {
    format!(
        "{:#}",
        merge(&layers.into_iter().map(Make::done).collect::<Vec<_>>()).unwrap_err()
    )
}

#[track_caller]
fn gives(layers: impl IntoIterator<Item = Make>, lines: &[&str]) {
    assert_eq!(show(&merged(layers)), lines.join("\n"));
}

#[test]
fn no_layers_are_an_empty_root() {
    let index = merge(&[]).unwrap();
    assert_eq!(index.inode_count(), 1);
    assert_eq!(index.inode(1).unwrap().mode, libc::S_IFDIR | 0o755);
    assert!(index.packs().is_empty());
}

#[test]
fn later_layers_add_and_replace() {
    gives(
        [
            Make::new()
                .dir("etc", 0o755)
                .file("etc/a", 1)
                .file("etc/b", 2)
                .file("x", 3),
            Make::new()
                .file("etc/b", 20)
                .file("etc/c", 30)
                .dir("x", 0o700),
        ],
        &[
            "/etc d755",
            "/etc/a f1",
            "/etc/b f20",
            "/etc/c f30",
            "/x d700",
        ],
    );
}

#[test]
fn a_directory_over_a_directory_changes_its_metadata_and_keeps_its_entries() {
    gives(
        [
            Make::new().dir("d", 0o755).file("d/f", 1),
            Make::new().dir("d", 0o1777),
        ],
        &["/d d1777", "/d/f f1"],
    );
    let index = merged([
        Make::new().dir("", 0o700).file("f", 1),
        Make::new().dir("", 0o711),
    ]);
    assert_eq!(index.inode(1).unwrap().mode & 0o777, 0o711);
    assert_eq!(show(&index), "/f f1");
}

#[test]
fn a_file_over_a_directory_takes_the_whole_tree_away() {
    gives(
        [
            Make::new().file("d/e/f", 1).file("d/g", 2),
            Make::new().file("d", 3),
        ],
        &["/d f3"],
    );
    gives(
        [Make::new().file("d/e/f", 1), Make::new().symlink("d", "x")],
        &["/d l->x"],
    );
}

#[test]
fn the_later_of_two_entries_in_one_layer_counts() {
    gives([Make::new().file("f", 1).file("f", 2)], &["/f f2"]);
    gives(
        [Make::new().dir("d", 0o700).file("d/f", 1).empty("d")],
        &["/d f0"],
    );
    gives(
        [Make::new()
            .file("d", 1)
            .file("f", 2)
            .dir("d", 0o700)
            .file("d/f", 3)],
        &["/d d700", "/d/f f3", "/f f2"],
    );
    gives(
        [Make::new().dir("d", 0o700).file("d/f", 1).dir("d", 0o711)],
        &["/d d711", "/d/f f1"],
    );
}

#[test]
fn missing_parents_are_made() {
    gives(
        [Make::new().file("a/b/c", 1)],
        &["/a i755", "/a/b i755", "/a/b/c f1"],
    );
    gives(
        [Make::new().file("a/b", 1).dir("a", 0o700)],
        &["/a d700", "/a/b f1"],
    );
}

#[test]
fn a_whiteout_hides_what_is_below_and_nothing_of_its_own_layer() {
    let lower = || {
        Make::new()
            .dir("d", 0o755)
            .file("d/a", 1)
            .file("d/b", 2)
            .file("d/c/x", 3)
    };
    gives(
        [lower(), Make::new().empty("d/.wh.a")],
        &["/d d755", "/d/b f2", "/d/c i755", "/d/c/x f3"],
    );
    gives([lower(), Make::new().empty(".wh.d")], &[]);
    gives(
        [
            lower(),
            Make::new()
                .file("d/a", 9)
                .empty("d/.wh.a")
                .empty("d/.wh.b")
                .empty("d/.wh.c"),
        ],
        &["/d d755", "/d/a f9"],
    );
    gives(
        [lower(), Make::new().empty(".wh.d").file("d/n", 4)],
        &["/d i755", "/d/n f4"],
    );
    gives(
        [lower(), Make::new().file("d/n", 4).empty(".wh.d")],
        &["/d i755", "/d/n f4"],
    );
    gives(
        [lower(), Make::new().empty("d/.wh.none").empty("none/.wh.x")],
        &["/d d755", "/d/a f1", "/d/b f2", "/d/c i755", "/d/c/x f3"],
    );
    // In the lowest layer there is nothing to hide, and the marker itself never shows.
    gives([Make::new().empty(".wh.a").file("b", 1)], &["/b f1"]);
}

#[test]
fn an_opaque_directory_hides_all_that_is_below_it_wherever_its_marker_stands() {
    let lower = || {
        Make::new()
            .dir("d", 0o755)
            .file("d/a", 1)
            .file("d/s/b", 2)
            .file("e", 3)
    };
    for layer in [
        Make::new()
            .dir("d", 0o700)
            .empty("d/.wh..wh..opq")
            .file("d/n", 4),
        Make::new()
            .dir("d", 0o700)
            .file("d/n", 4)
            .empty("d/.wh..wh..opq"),
    ] {
        gives([lower(), layer], &["/d d700", "/d/n f4", "/e f3"]);
    }
    gives(
        [lower(), Make::new().empty(".wh..wh..opq").file("n", 1)],
        &["/n f1"],
    );
    gives(
        [Make::new(), Make::new().empty("d/.wh..wh..opq")],
        &["/d i755"],
    );
    // What a middle layer hides does not come back.
    gives(
        [
            lower(),
            Make::new().empty(".wh.d"),
            Make::new().file("d/z", 5),
        ],
        &["/d i755", "/d/z f5", "/e f3"],
    );
}

#[test]
fn whiteouts_that_name_nothing_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh..."] {
        let what = refused([Make::new().file("d/f", 1), Make::new().empty(name)]);
        assert!(what.contains("whiteout") && what.contains(name), "{what}");
    }
    refused([Make::new().file(".wh.d/f", 1)]);
    refused([Make::new().symlink("l", ".wh.d").file("l/f", 1)]);
}

#[test]
fn hard_links_share_an_inode_within_and_across_layers() {
    gives(
        [Make::new().file("a", 1).link("b", "a").link("d/c", "b")],
        &["/a f1*3", "/b f1*3", "/d i755", "/d/c f1*3"],
    );
    let index = merged([
        Make::new().file("a", 1).file("x", 2),
        Make::new().link("b", "a"),
        Make::new().file("a", 7),
    ]);
    assert_eq!(show(&index), "/a f7\n/b f1\n/x f2");
    let index = merged([Make::new().file("a", 1), Make::new().link("b", "a")]);
    assert_eq!(index.lookup(1, b"a"), index.lookup(1, b"b"));
    assert_eq!(index.total_size(), 1, "one inode counts once");
    // The lower layer's other names keep it when one is replaced or hidden.
    gives(
        [
            Make::new().file("a", 1).link("b", "a"),
            Make::new().empty(".wh.a"),
        ],
        &["/b f1"],
    );
    gives(
        [Make::new().symlink("a", "t").link("b", "a")],
        &["/a l->t*2", "/b l->t*2"],
    );
}

#[test]
fn a_hard_link_to_itself_changes_nothing() {
    gives([Make::new().file("a", 1).link("a", "a")], &["/a f1"]);
    gives(
        [Make::new().file("a", 1).link("b", "a").link("b", "a")],
        &["/a f1*2", "/b f1*2"],
    );
}

#[test]
fn a_hard_link_survives_the_tree_it_replaces() {
    gives([Make::new().file("d/f", 1).link("d", "d/f")], &["/d f1"]);
}

#[test]
fn hard_links_to_nothing_or_to_directories_are_refused_by_name() {
    for (layer, words) in [
        (
            Make::new().link("b", "none"),
            ["`b`", "`none`", "does not exist"],
        ),
        (
            Make::new().link("b", "none/x"),
            ["`b`", "`none/x`", "does not exist"],
        ),
        (
            Make::new().file("f", 1).link("b", "f/x"),
            ["`b`", "`f/x`", "does not exist"],
        ),
        (
            Make::new().dir("d", 0o755).link("b", "d"),
            ["`b`", "`d`", "directory"],
        ),
        (Make::new().link("b", ""), ["`b`", "``", "does not exist"]),
        (
            Make::new().symlink("s", "none").link("b", "s/x"),
            ["`b`", "`s/x`", "does not exist"],
        ),
    ] {
        let what = refused([layer]);
        assert!(words.iter().all(|word| what.contains(word)), "{what}");
    }
    refused([
        Make::new().file("a", 1),
        Make::new().empty(".wh.a").link("b", "a"),
    ]);
    refused([Make::new().file("a", 1).link("", "a")]);
}

#[test]
fn a_symbolic_link_as_parent_is_followed_within_the_tree() {
    let usr = || {
        Make::new()
            .dir("usr", 0o755)
            .dir("usr/lib", 0o755)
            .symlink("lib", "usr/lib")
    };
    gives(
        [usr(), Make::new().file("lib/x", 1)],
        &[
            "/lib l->usr/lib",
            "/usr d755",
            "/usr/lib d755",
            "/usr/lib/x f1",
        ],
    );
    gives(
        [usr().file("lib/x", 1)],
        &[
            "/lib l->usr/lib",
            "/usr d755",
            "/usr/lib d755",
            "/usr/lib/x f1",
        ],
    );
    // Absolute, climbing and dangling targets stay inside.
    for target in ["/out", "../../../out", "./out/../out/", "/../out//."] {
        gives(
            [Make::new().symlink("l", target), Make::new().file("l/x", 1)],
            &[&format!("/l l->{target}"), "/out i755", "/out/x f1"],
        );
    }
    gives(
        [Make::new()
            .symlink("a", "b")
            .symlink("b", "c/d")
            .file("a/x", 1)],
        &["/a l->b", "/b l->c/d", "/c i755", "/c/d i755", "/c/d/x f1"],
    );
    gives(
        [
            usr(),
            Make::new().file("usr/lib/x", 1),
            Make::new().empty("lib/.wh.x"),
        ],
        &["/lib l->usr/lib", "/usr d755", "/usr/lib d755"],
    );
    gives(
        [usr().file("usr/lib/x", 1), Make::new().link("y", "lib/x")],
        &[
            "/lib l->usr/lib",
            "/usr d755",
            "/usr/lib d755",
            "/usr/lib/x f1*2",
            "/y f1*2",
        ],
    );
}

#[test]
fn an_entry_for_a_directory_replaces_a_symbolic_link() {
    gives(
        [
            Make::new().file("usr/lib/a", 1).symlink("lib", "usr/lib"),
            Make::new().dir("lib", 0o755).file("lib/x", 2),
        ],
        &[
            "/lib d755",
            "/lib/x f2",
            "/usr i755",
            "/usr/lib i755",
            "/usr/lib/a f1",
        ],
    );
}

/// runc's and docker's classic: write through a link that was swapped in one layer.
#[test]
fn a_link_made_anew_counts_for_what_follows_it() {
    gives(
        [Make::new()
            .dir("a", 0o755)
            .file("a/1", 1)
            .symlink("a", "b")
            .file("a/2", 2)
            .dir("a", 0o700)
            .file("a/3", 3)],
        &["/a d700", "/a/3 f3", "/b i755", "/b/2 f2"],
    );
}

#[test]
fn circles_and_files_as_parents_are_refused() {
    let what = refused([Make::new()
        .symlink("a", "b")
        .symlink("b", "a")
        .file("a/x", 1)]);
    assert!(
        what.contains("`a/x`") && what.contains("40 symbolic links"),
        "{what}"
    );
    let what = refused([Make::new().file("f", 1), Make::new().file("f/x", 2)]);
    assert!(
        what.contains("layer 2 of 2") && what.contains("`f` in its path is not a directory"),
        "{what}"
    );
    refused([Make::new().file("f", 1).symlink("l", "f").file("l/x", 2)]);
    refused([Make::new().file("", 1)]);
    refused([Make::new().symlink("", "x")]);
}

#[test]
fn depth_is_bounded_even_through_links() {
    // Each link leads to the directory made through the one before it, 400 levels deeper.
    let deep = "d/".repeat(400);
    let mut make = Make::new();
    for i in 0..6 {
        make = make
            .symlink(&format!("l{}", i + 1), &format!("l{i}/{deep}"))
            .file(&format!("l{}/f", i + 1), 1);
    }
    let what = refused([make]);
    assert!(what.contains("2048 directories deep"), "{what}");
}

#[test]
fn walking_through_links_is_bounded() {
    // Forty links of 2000 components each, for every entry.
    let dots = "./".repeat(2000);
    let mut make = Make::new().dir("d", 0o755);
    make = make.symlink("l0", &format!("{dots}d"));
    for i in 0..38 {
        make = make.symlink(&format!("l{}", i + 1), &format!("{dots}l{i}"));
    }
    let mut tree = Tree::new();
    let layer = make.file("l38/x", 1).done();
    tree.apply(0, &layer).unwrap();
    assert!(tree.steps > 70_000, "{}", tree.steps);
    tree.steps = MAX_STEPS - 1000;
    assert!(tree.walk(b"l38", false).is_err());
}

#[test]
fn aufs_names_are_link_targets_and_go_with_their_layer() {
    gives(
        [Make::new()
            .dir(".wh..wh.plnk", 0o700)
            .file(".wh..wh.plnk/77", 5)
            .link("a", ".wh..wh.plnk/77")
            .link("b", ".wh..wh.plnk/77")
            .empty(".wh..wh.aufs")],
        &["/a f5*2", "/b f5*2"],
    );
}

#[test]
fn inodes_of_a_directory_are_side_by_side_and_equal_layers_give_equal_bytes() {
    let layers = || {
        [Make::new()
            .file("b/2", 1)
            .file("b/1", 2)
            .file("a/1", 3)
            .file("c", 4)]
    };
    let index = merged(layers());
    let inodes: Vec<_> = index.entries(1).iter().map(|e| e.ino).collect();
    assert_eq!(inodes, [2, 3, 4]);
    let b = index.lookup(1, b"b").unwrap();
    let inodes: Vec<_> = index.entries(b).iter().map(|e| e.ino).collect();
    assert_eq!(inodes[1], inodes[0] + 1);
    assert_eq!(index.bytes(), merged(layers()).bytes());
}

#[test]
fn metadata_attributes_and_packs_reach_the_index() {
    let other = PackId([1; 32]);
    let mut writer = Writer::new(Vec::new(), &[0; 32]).unwrap();
    let inode = Inode {
        mode: libc::S_IFREG | 0o4755,
        uid: 33,
        gid: 44,
        size: 10,
        mtime: Time { sec: -1, nsec: 5 },
        data: Data::File {
            pack: 1,
            offset: 4096,
        },
        ..implied(0)
    };
    let xattrs: [(&[u8], &[u8]); 1] = [(b"security.capability", b"\x01")];
    writer.push(b"ping", &Act::Node(inode), xattrs).unwrap();
    let layer = Layer::from_bytes(writer.finish(&[(PACK, 4096), (other, 8192)]).unwrap()).unwrap();
    let index = merge(&[layer]).unwrap();
    assert_eq!(
        index.packs(),
        [other],
        "a pack that no file needs is not listed"
    );
    let ino = index.lookup(1, b"ping").unwrap();
    let found = index.inode(ino).unwrap();
    assert_eq!(
        (found.mode, found.uid, found.gid, found.nlink),
        (inode.mode, 33, 44, 1)
    );
    assert_eq!(found.mtime, inode.mtime);
    assert_eq!(
        found.data,
        Data::File {
            pack: 0,
            offset: 4096
        }
    );
    assert_eq!(index.xattr(ino, b"security.capability"), Some(&b"\x01"[..]));
    assert_eq!(index.xattrs(1).count(), 0);
}

/// An image as one layer that makes it from nothing.
fn flatten(index: &Index) -> Make {
    let mut make = Make::new();
    let mut names: std::collections::HashMap<u64, String> = std::collections::HashMap::new();
    let mut dirs = vec![(Index::ROOT, String::new())];
    while let Some((dir, path)) = dirs.pop() {
        for entry in index.entries(dir).iter() {
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            let path = if path.is_empty() {
                name
            } else {
                format!("{path}/{name}")
            };
            let inode = index.inode(entry.ino).unwrap();
            if let Some(first) = names.get(&entry.ino) {
                make = make.link(&path, &first.clone());
                continue;
            }
            names.insert(entry.ino, path.clone());
            make.0
                .push(path.as_bytes(), &Act::Node(inode), index.xattrs(entry.ino))
                .unwrap();
            if let Data::Dir { .. } = inode.data {
                dirs.push((entry.ino, path));
            }
        }
    }
    make
}

/// Random layers over few names, so that they meet: links into, through and over everything.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn path(&mut self) -> String {
        let parts: Vec<_> = (0..=self.below(3))
            .map(|_| ["a", "b", "c"][self.below(3)])
            .collect();
        parts.join("/")
    }

    fn layer(&mut self) -> Make {
        let mut make = Make::new();
        for _ in 0..self.below(8) {
            let path = self.path();
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let beside = |name: String| {
                if parent.is_empty() {
                    name
                } else {
                    format!("{parent}/{name}")
                }
            };
            make = match self.below(8) {
                0 | 1 => {
                    let size = self.below(1000) as u64 + 1;
                    make.file(&path, size)
                }
                2 | 3 => make.dir(&path, 0o700),
                4 => {
                    let target = ["a", "../b", "/c", "b/c", "../../a/b", ".", "/"][self.below(7)];
                    make.symlink(&path, target)
                }
                5 => {
                    let target = self.path();
                    make.link(&path, &target)
                }
                6 => make.empty(&beside(format!(".wh.{name}"))),
                _ => make.empty(&beside(".wh..wh..opq".into())),
            };
        }
        make
    }
}

#[test]
fn random_layers_make_sound_images_or_are_refused_for_a_reason() {
    let mut random = Random(7);
    let (mut made, mut refused) = (0, 0);
    for round in 0..3000 {
        let layers: Vec<_> = (0..=random.below(4))
            .map(|_| random.layer().done())
            .collect();
        match merge(&layers) {
            Ok(index) => {
                made += 1;
                let shown = show(&index);
                assert!(!shown.contains(".wh."), "{shown}");
                // The lower layers as one layer are the same as the layers.
                let split = random.below(layers.len() + 1);
                let lower = flatten(&merge(&layers[..split]).unwrap()).done();
                let mut layers = layers;
                layers.splice(..split, [lower]);
                assert_eq!(show(&merge(&layers).unwrap()), shown, "round {round}");
            }
            Err(error) => {
                refused += 1;
                assert!(
                    error.downcast_ref::<super::super::index::Error>().is_none(),
                    "round {round}: {error:#}"
                );
            }
        }
    }
    assert!(
        made > 500 && refused > 500,
        "{made} made, {refused} refused"
    );
}
