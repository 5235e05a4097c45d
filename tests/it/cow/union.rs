//! Directories stacked as overlayfs stacks them: what unionmount-testsuite asks of a union, and the same
//! changes on the kernel's overlayfs over the same directories, compared.
//!
//! The mount is made by `mount-cow -o lowerdir=…`, as a mount helper makes it.

use super::{INNER, enter};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A stack of three: `top` over `middle` over `bottom`, with whiteouts and opaque directories of
/// the forms that overlayfs and fuse-overlayfs make.
fn populate(dir: &Path) {
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("bottom/only-bottom", "bottom");
    write("bottom/all", "bottom");
    write("bottom/gone", "bottom");
    write("bottom/gone-too", "bottom");
    write("bottom/file-over-dir/x", "bottom");
    write("bottom/dir-over-file", "bottom");
    write("bottom/merged/from-bottom", "bottom");
    write("bottom/merged/both", "bottom");
    write("bottom/merged/sub/deep/low", "bottom");
    write("bottom/opaque/below", "bottom");
    write("bottom/opaque-user/below", "bottom");
    write("bottom/tree/a/b/c/file", "bottom");
    write("bottom/between/x", "bottom");
    write("middle/all", "middle");
    write("middle/only-middle", "middle");
    write("middle/merged/both", "middle");
    write("middle/merged/from-middle", "middle");
    write("middle/opaque/here", "middle");
    write("middle/opaque-user/here", "middle");
    write(
        "middle/between",
        "middle: a file hides the directory below for good",
    );
    write("top/all", "top");
    write("top/file-over-dir", "top");
    write("top/dir-over-file/y", "top");
    write("top/merged/from-top", "top");
    write("top/opaque/top", "top");
    write("top/between/y", "top");
    symlink("all", dir.join("top/link")).unwrap();
    fs::hard_link(dir.join("bottom/all"), dir.join("bottom/all-linked")).unwrap();
    use nix::sys::stat::{Mode, SFlag, mknod};
    for path in ["middle/gone", "top/merged/from-bottom"] {
        mknod(&dir.join(path), SFlag::S_IFCHR, Mode::S_IRUSR, 0).unwrap();
    }
    let opaque = |path: &str| {
        let path = dir.join(path);
        let done = Command::new("setfattr")
            .args(["-n", "user.overlay.opaque", "-v", "y"])
            .arg(path)
            .status();
        assert!(done.unwrap().success());
    };
    opaque("middle/opaque");
    opaque("middle/opaque-user");
}

/// A tree as text: kind, mode, links of files, content or target.
fn tree(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let mut text = format!("{:o}", meta.mode());
            if meta.is_dir() {
                walk(root, &path, out);
            } else if meta.is_symlink() {
                text += &format!(" -> {}", fs::read_link(&path).unwrap().display());
            } else if meta.is_file() {
                text += &format!(" {:?}", fs::read_to_string(&path).unwrap());
            }
            assert!(
                out.insert(name.clone(), text).is_none(),
                "{name} is listed twice"
            );
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

struct Union {
    dir: PathBuf,
    lower: String,
}

impl Union {
    fn new(dir: &Path, layers: &[&str]) -> Union {
        for d in ["ours", "upper", "work", "kernel", "kupper", "kwork"] {
            fs::create_dir_all(dir.join(d)).unwrap();
        }
        let paths: Vec<_> = layers
            .iter()
            .map(|l| dir.join(l).display().to_string())
            .collect();
        Union {
            dir: dir.to_owned(),
            lower: paths.join(":"),
        }
    }

    fn ours(&self) -> PathBuf {
        self.dir.join("ours")
    }

    /// As mount(8) calls a helper; it returns when the mount is there.
    fn mount(&self) {
        let helper = self.dir.join("mount.fuse.rless");
        if !helper.exists() {
            symlink(std::env::var_os("RLESS_BIN").unwrap(), &helper).unwrap();
        }
        let d = self.dir.display();
        let options = format!(
            "lowerdir={},upperdir={d}/upper,workdir={d}/work,noatime",
            self.lower
        );
        let out = Command::new(&helper)
            .arg("union")
            .arg(self.ours())
            .args(["-n", "-o", &options])
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table
            .lines()
            .find(|l| l.contains(self.ours().to_str().unwrap()))
            .unwrap();
        assert!(
            line.contains("noatime") && line.contains(" - fuse.rless union "),
            "{line}"
        );
    }

    fn unmount(&self) {
        nix::mount::umount(&self.ours()).unwrap();
    }

    fn mount_kernel(&self) -> PathBuf {
        let point = self.dir.join("kernel");
        let d = self.dir.display();
        let options = format!(
            "lowerdir={},upperdir={d}/kupper,workdir={d}/kwork,userxattr",
            self.lower
        );
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(
            Some("o"),
            &point,
            Some("overlay"),
            flags,
            Some(options.as_str()),
        )
        .unwrap();
        point
    }
}

/// The upper is free, and everything written, some time after the mount has gone: mounting again waits for it.
impl Drop for Union {
    fn drop(&mut self) {
        for d in ["ours", "kernel"] {
            let _ = nix::mount::umount2(&self.dir.join(d), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Changes, each told with its answer: what unionmount-testsuite does to files, directories, links and
/// impermissible, hidden and opaque things.
fn changes(root: &Path) -> Vec<String> {
    let script = r#"
t() { "$@" 2>/dev/null; echo "$? $*"; }
cat_() { printf '%s ' "$1"; cat "$1" 2>&1 | sed 's/^.*: //'; echo; }
cd "$1"
# rename of lower and merged directories, and back
t mv tree tree2; cat_ tree2/a/b/c/file; t mv tree2/a tree2/z; cat_ tree2/z/b/c/file; t mv tree2 tree
t mv merged merged2; cat_ merged2/both; ls merged2; t mv merged2/sub merged2/sub2; ls merged2/sub2/deep
echo changed > merged2/sub2/deep/low; cat_ merged2/sub2/deep/low; t mv merged2 merged
# a new directory where a lower one was is empty
t rm -r tree; t mkdir tree; ls -A tree; echo n > tree/new; ls tree; t rm -r tree; cat_ tree/a/b/c/file
t mkdir gone; ls -A gone; t rmdir gone; t touch gone-too; t rm gone-too; cat_ gone-too; t mkdir gone-too; ls -A gone-too
# over opaque and hidden things
t rm -r opaque; t mkdir opaque; ls -A opaque; t rmdir opaque; ls -d opaque
t rm file-over-dir; cat_ file-over-dir/x; t mkdir file-over-dir; ls -A file-over-dir
t rm dir-over-file/y; t rmdir dir-over-file; cat_ dir-over-file; echo f > dir-over-file; cat_ dir-over-file
t rm between/y; t rmdir between; cat_ between; ls -d between
# files
echo more >> all; cat_ all; t mv all all2; cat_ all2; cat_ all; t ln all2 all3; echo x > all3; cat_ all2
t mv only-bottom all2; cat_ all2; cat_ all3; t rm all3; cat_ all3; cat_ link; t rm link; cat_ link
cat_ all-linked; echo linked > all-linked; cat_ all-linked
t rmdir merged; t mv only-middle merged; t mv merged only-middle; t mkdir merged; t rmdir all-linked
t chmod 700 merged/from-top; t truncate -s 3 merged/both; cat_ merged/both
t cp -a merged copy; t mv -T copy merged; t rm -rf merged/*; t mv -T copy merged; ls -R merged
"#;
    let out = Command::new("sh")
        .arg("-c")
        .arg(script)
        .args(["sh".as_ref(), root.as_os_str()])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.replace(root.to_str().unwrap(), "ROOT")
        .lines()
        .map(str::to_owned)
        .collect()
}

fn beside_the_kernel(dir: &Path) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    populate(dir);
    let union = Union::new(dir, &["top", "middle", "bottom"]);
    union.mount();
    let (ours, kernel) = (union.ours(), union.mount_kernel());
    let before = tree(&ours);
    assert_eq!(before, tree(&kernel));
    assert!(before.contains_key("merged/sub/deep/low") && !before.contains_key("gone"));
    let (a, b) = (changes(&ours), changes(&kernel));
    assert!(a.len() > 75, "the script did not run: {a:?}");
    for (x, y) in a.iter().zip(&b) {
        assert_eq!(x, y, "ours, then the kernel's");
    }
    assert_eq!(a.len(), b.len());
    let after = tree(&ours);
    assert_eq!(after, tree(&kernel));
    // Numbers do not change over copy-up, nor over a remount.
    let ino = |p: &str| fs::symlink_metadata(ours.join(p)).unwrap().ino();
    let number = ino("all2");
    fs::write(ours.join("all2"), "copied up").unwrap();
    assert_eq!(ino("all2"), number);
    let after = tree(&ours);
    union.unmount();
    union.mount();
    assert_eq!(tree(&ours), after, "after a remount");
    assert_eq!(ino("all2"), number);
    // The lower directories are as they were.
    assert_eq!(
        fs::read_to_string(dir.join("bottom/all")).unwrap(),
        "bottom"
    );
    assert_eq!(
        fs::read_dir(dir.join("bottom/tree/a/b")).unwrap().count(),
        1
    );
    union.unmount();
}

#[test]
fn stacked_directories_are_as_the_kernels_overlay() {
    let Some(dir) = std::env::var_os(INNER) else {
        return enter(
            "cow::union::stacked_directories_are_as_the_kernels_overlay",
            &[],
        );
    };
    beside_the_kernel(Path::new(&dir));
}

/// The whiteouts that fuse-overlayfs makes where it cannot make devices, and what must not be seen.
#[test]
fn whiteouts_as_files_hide_what_is_below() {
    let Some(dir) = std::env::var_os(INNER) else {
        return enter("cow::union::whiteouts_as_files_hide_what_is_below", &[]);
    };
    let dir = Path::new(&dir);
    for d in ["top/opaque", "bottom/opaque", "bottom/plain"] {
        fs::create_dir_all(dir.join(d)).unwrap();
    }
    for f in [
        "top/.wh.hidden",
        "bottom/hidden",
        "bottom/kept",
        "top/opaque/.wh..wh..opq",
        "top/opaque/a",
        "bottom/opaque/b",
    ] {
        fs::write(dir.join(f), f).unwrap();
    }
    let union = Union::new(dir, &["top", "bottom"]);
    union.mount();
    let ours = union.ours();
    let names: Vec<String> = tree(&ours).into_keys().collect();
    assert_eq!(names, ["kept", "opaque", "opaque/a", "plain"]);
    for hidden in ["hidden", ".wh.hidden", "opaque/b", "opaque/.wh..wh..opq"] {
        assert!(!ours.join(hidden).exists(), "{hidden}");
    }
    // A directory of many entries is listed whole, whatever changes in it meanwhile.
    fs::create_dir(ours.join("many")).unwrap();
    for i in 0..3000 {
        fs::write(ours.join(format!("many/{i}")), "").unwrap();
    }
    let listing = fs::read_dir(ours.join("many")).unwrap();
    let removed = listing
        .map(|e| fs::remove_file(e.unwrap().path()).unwrap())
        .count();
    assert_eq!(removed, 3000);
    fs::remove_dir(ours.join("many")).unwrap();
    union.unmount();
}

#[test]
fn mount_options_that_are_not_known_are_refused() {
    let Some(dir) = std::env::var_os(INNER) else {
        return enter(
            "cow::union::mount_options_that_are_not_known_are_refused",
            &[],
        );
    };
    let dir = Path::new(&dir);
    for d in ["a", "b", "mnt"] {
        fs::create_dir_all(dir.join(d)).unwrap();
    }
    fs::write(dir.join("a/f"), "a").unwrap();
    let mount = |options: &str| {
        // Its end is waited for: no server may keep what the caller leaked.
        let mut cmd = Command::new("/bin/sh");
        cmd.current_dir(dir)
            .args(["-c", "exec \"$RLESS_BIN\" \"$@\" 9>&1", "sh"])
            .args(["mount-cow", "-o", options, "mnt"])
            .output()
            .unwrap()
    };
    for (options, word) in [
        ("lowerdir=a,nosuch", "nosuch"),
        ("lowerdir=a,uidmapping=0:1:1", "uidmapping"),
        ("lowerdir=nothere", "nothere"),
        ("upperdir=u", "nothing to mount"),
        ("remount,size=5", "size="),
        ("remount,ro,lowerdir=a", "lowerdir="),
    ] {
        let out = mount(options);
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.code() == Some(125) && text.contains(word),
            "{options}: {out:?}"
        );
    }
    // As mount(8) calls a helper with --fake and -N.
    let helper = dir.join("mount.rless");
    symlink(std::env::var_os("RLESS_BIN").unwrap(), &helper).unwrap();
    for (words, code) in [(&["-f"][..], 0), (&["-N", "/proc/1/ns/mnt"], 125)] {
        let mut cmd = Command::new(&helper);
        cmd.arg("x").arg(dir.join("mnt")).args(words);
        let out = cmd.args(["-o", "lowerdir=a"]).current_dir(dir).output();
        assert_eq!(out.unwrap().status.code(), Some(code), "{words:?}");
        assert!(!dir.join("mnt/f").exists(), "{words:?}");
    }
    // Relative names, read-only: gone from the directory, it still serves.
    let out = mount("lowerdir=a:b,ro,nodev");
    assert!(out.status.success(), "{out:?}");
    let point = dir.join("mnt");
    assert_eq!(fs::read_to_string(point.join("f")).unwrap(), "a");
    let e = fs::write(point.join("g"), "").unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::EROFS));
    nix::mount::umount(&point).unwrap();
}
