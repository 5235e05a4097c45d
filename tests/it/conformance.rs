//! pjdfstest, the POSIX file system test suite, on our mount, on the kernel's overlayfs and on the
//! plain directory below both: in one user namespace, as its root, with one configuration.
//!
//! What a case asks for may be impossible there for all three (real devices); what either of the
//! kernel's file systems can do, ours must do. `tests/run` installs the suite, its version pinned.

use crate::cow::{Mounted, inner_dir, run_inner};
use crate::harness::prepared;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A case's name and how it ended: `ok`, `FAILED`, `skipped`.
type Results = BTreeMap<String, String>;

/// The suite's users, with their groups' real names; both ids are mapped.
fn users() -> String {
    let entry = |name: &str| {
        let user = nix::unistd::User::from_name(name).unwrap().unwrap();
        let group = nix::unistd::Group::from_gid(user.gid).unwrap().unwrap();
        assert!(user.uid.as_raw() < 65536 && user.gid.as_raw() < 65536);
        format!("[\"{name}\", \"{}\"]", group.name)
    };
    format!("[{}, {}]", entry("nobody"), entry("daemon"))
}

/// Everything that the suite can do on Linux is on.
fn configuration(second: &Path, remount: bool) -> String {
    format!(
        "[features]\nsecondary_fs = {second:?}\nposix_fallocate = {{}}\nrename_ctime = {{}}\n\
         stat_st_birthtime = {{}}\nutime_now = {{}}\nutimensat = {{}}\n\
         [settings]\nnaptime = 0.02\nallow_remount = {remount}\n[dummy_auth]\nentries = {}\n",
        users()
    )
}

struct Suite {
    dir: PathBuf,
}

impl Suite {
    fn new(dir: &Path) -> Suite {
        // The suite becomes other users, who have to reach the files.
        for d in [dir, dir.parent().unwrap()] {
            std::fs::set_permissions(d, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let tools = dir.join("tools");
        for d in ["tools", "second", "plain", "overlay/lower", "lower"] {
            std::fs::create_dir_all(dir.join(d)).unwrap();
        }
        for d in ["overlay/upper", "overlay/work", "overlay/mnt"] {
            std::fs::create_dir_all(dir.join(d)).unwrap();
        }
        // The suite's remounts are about the mount, not about what helper a file system type has.
        let mount = tools.join("mount");
        std::fs::write(&mount, "#!/bin/sh\nexec /usr/bin/mount -i \"$@\"\n").unwrap();
        std::fs::set_permissions(&mount, PermissionsExt::from_mode(0o755)).unwrap();
        let source = tools.join("link_max.c");
        std::fs::write(&source, include_str!("conformance/link_max.c")).unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(tools.join("link_max.so"))
            .arg(&source)
            .status()
            .unwrap();
        assert!(built.success());
        let suite = Suite {
            dir: dir.to_owned(),
        };
        suite.mount("tmpfs", "none", "second", "mode=755");
        // A mount of its own, so that the suite finds one to make read-only.
        let plain = suite.dir.join("plain");
        let bind = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(&plain), &plain, None::<&str>, bind, None::<&str>).unwrap();
        let at = |name: &str| suite.dir.join("overlay").join(name).display().to_string();
        let options = format!(
            "userxattr,lowerdir={},upperdir={},workdir={}",
            at("lower"),
            at("upper"),
            at("work")
        );
        suite.mount("overlay", "overlay", "overlay/mnt", &options);
        suite
    }

    fn mount(&self, kind: &str, source: &str, target: &str, options: &str) {
        nix::mount::mount(
            Some(source),
            &self.dir.join(target),
            Some(kind),
            nix::mount::MsFlags::empty(),
            Some(options),
        )
        .unwrap();
    }

    /// Runs the suite below `place` and prints its counts as those of `name`. The cases of a read-only
    /// file system have a run of their own: others leave files open for writing.
    fn run(&self, name: &str, place: &Path) -> Results {
        let began = std::time::Instant::now();
        // A socket's whole path has to fit into 108 bytes.
        let short = Path::new("/mnt");
        let bind = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(place), short, None::<&str>, bind, None::<&str>).unwrap();
        let mut results = self.suite(short, false);
        results.extend(self.suite(short, true));
        nix::mount::umount(short).unwrap();
        let count = |end: &str| results.values().filter(|e| *e == end).count();
        let (ok, failed, skipped) = (count("ok"), count("FAILED"), count("skipped"));
        eprintln!(
            "pjdfstest on {name}: {} executed, {ok} passed, {failed} failed, {skipped} skipped, {:.1} s",
            ok + failed,
            began.elapsed().as_secs_f32()
        );
        results
    }

    /// One run: without remounting, or of the cases that remount.
    fn suite(&self, place: &Path, remount: bool) -> Results {
        let tools = self.dir.join("tools");
        let config = tools.join("pjdfstest.toml");
        std::fs::write(&config, configuration(&self.dir.join("second"), remount)).unwrap();
        let path = std::env::var("PATH").unwrap();
        let base = PathBuf::from(std::env::var_os("RLESS_TEST_BASE").unwrap());
        let output = Command::new(base.join("bin/pjdfstest"))
            .arg("-c")
            .arg(config)
            .arg("-p")
            .arg(place)
            .args(remount.then_some("erofs"))
            .env("PATH", format!("{}:{path}", tools.display()))
            .env("LD_PRELOAD", tools.join("link_max.so"))
            .env("NO_COLOR", "1")
            .current_dir("/")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut results = Results::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some(case), Some(end), None) = (words.next(), words.next(), words.next())
                && line.starts_with(case)
                && ["ok", "FAILED", "skipped"].contains(&end)
            {
                results.insert(case.to_owned(), end.to_owned());
            }
        }
        let count = |end: &str| results.values().filter(|e| *e == end).count();
        let summary = format!(
            "{} failed, {} skipped, {} passed",
            count("FAILED"),
            count("skipped"),
            count("ok")
        );
        assert!(
            text.contains(&summary),
            "the suite's own summary is another one than {summary:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        results
    }
}

fn executed(results: &Results) -> usize {
    results.values().filter(|e| *e != "skipped").count()
}

#[test]
fn no_case_of_pjdfstest_fails_that_the_kernels_file_systems_pass() {
    let Some(dir) = inner_dir() else {
        let name = "conformance::no_case_of_pjdfstest_fails_that_the_kernels_file_systems_pass";
        let base = prepared().map(|w| w.base.display().to_string());
        let base = [("RLESS_TEST_BASE", base.unwrap_or_default())];
        let told = run_inner(name, &base).unwrap_or_default();
        // The counts are shown of a test that passes, too: not through the captured macros.
        for line in told.lines().filter(|l| l.starts_with("pjdfstest on ")) {
            writeln!(std::io::stderr(), "{line}").unwrap();
        }
        return;
    };
    let suite = Suite::new(&dir);
    let mut mounted = Mounted::start(&dir);
    let plain = suite.run("the plain directory", &dir.join("plain"));
    let overlay = suite.run("overlayfs", &dir.join("overlay/mnt"));
    let ours = suite.run("ours", &mounted.point());
    mounted.unmount();
    assert!(executed(&ours) > 390, "hardly anything was executed");
    for (name, other) in [("the plain directory", &plain), ("overlayfs", &overlay)] {
        assert!(
            ours.keys().eq(other.keys()),
            "{name}: the cases are other ones"
        );
        assert_eq!(executed(&ours), executed(other), "{name}: executed");
        let worse: Vec<_> = ours
            .iter()
            .filter(|(case, end)| *end != "ok" && other[*case] == "ok")
            .collect();
        assert!(worse.is_empty(), "passed on {name}, not on ours: {worse:?}");
    }
    // And what none of them can: only devices, which nobody makes in a user namespace.
    let rest: Vec<_> = ours
        .iter()
        .filter(|(case, end)| *end != "ok" && !case.contains("block") && !case.contains("char"))
        .collect();
    assert!(rest.is_empty(), "failed on ours: {rest:?}");
}
