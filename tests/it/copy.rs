//! `cp`, `snapshot`, `restore`: files into and out of containers, and states of them.

use crate::harness::{Sandbox, wait_for, world};
use std::time::Duration;

/// A container that has done `script` and goes on.
fn running(s: &Sandbox, image: &str, name: &str, more: &[&str], script: &str) {
    let script = format!("{script}; touch /ready; while true; do sleep 1; done");
    let mut words = vec!["run", "-d", "--network", "none", "--name", name];
    words.extend(more);
    words.extend([image, "sh", "-c", &script]);
    s.rless(words).ok();
    wait_for("the container's files", Duration::from_secs(30), || {
        s.rless(["cp", &format!("{name}:/ready"), "-"])
            .run()
            .status
            .success()
    });
}

/// What `sh` in the sandbox's home directory says.
fn home(s: &Sandbox, script: &str) -> String {
    s.sh(&format!("cd $HOME; {script}")).ok()
}

/// Copies; both words may be paths below the home directory.
fn cp(s: &Sandbox, from: &str, to: &str) -> (i32, String) {
    let done = s.rless(["cp", from, to]).cwd(s.get("HOME")).run();
    let text = done.err.lines().next().unwrap_or_default().to_owned();
    (done.code(), text)
}

/// The rules, recorded from podman 5.4.2: what is copied where, and what is refused with which words.
fn rules(s: &Sandbox, c: &str) {
    let at = |path: &str| format!("{c}:{path}");
    let works = |from: &str, to: &str| {
        assert_eq!(cp(s, from, to).0, 0, "{from} {to}: {}", cp(s, from, to).1)
    };
    home(
        s,
        "rm -rf * && mkdir -p h/dir/sub outs3 && echo 1 >h/file && echo 2 >h/dir/a && echo 3 >h/dir/sub/b && ln -s ../file h/dir/lnk && chmod 600 h/file && touch -d @5000 h/file",
    );
    works(&at("/s/f"), "out1");
    assert_eq!(home(s, "stat -c '%a %Y %s' out1"), "640 1000 2\n");
    works(&at("/s/f"), "h");
    assert_eq!(home(s, "cat h/f"), "f\n");
    let tree = "d\nd/e\nd/e/g\ndl\nf\nl\n";
    for (from, to, found) in [
        ("/s", "outs", "outs"),
        ("/s", "outs", "outs/s"),
        ("/s/.", "outs2", "outs2"),
        ("/s/.", "outs3", "outs3"),
    ] {
        works(&at(from), to);
        let list = format!("cd {found}; find . -not -path './s*' | sort | cut -c3- | grep .");
        assert_eq!(home(s, &list), tree, "{from} {to}");
    }
    assert_eq!(home(s, "readlink outs2/dl outs2/l"), "/s/d\nf\n");
    works(&at("/s/l"), "outl");
    assert_eq!(home(s, "test -h outl || cat outl"), "f\n");
    works(&at("/s/dl"), "outdl");
    assert_eq!(home(s, "cat outdl/e/g"), "g\n");
    for (from, to, words) in [
        (
            at("/s/f"),
            "nodir/x".to_owned(),
            "\"nodir/x\" could not be found on the host: no such file or directory".to_owned(),
        ),
        (
            at("/s/f"),
            "nodir/".to_owned(),
            "\"nodir/\" could not be found on the host: no such file or directory".to_owned(),
        ),
        (
            at("/nosuch"),
            "x".to_owned(),
            format!("\"/nosuch\" could not be found on container {c}: no such file or directory"),
        ),
        (
            "h/file".to_owned(),
            at("/nodir/x"),
            format!("\"/nodir/x\" could not be found on container {c}: no such file or directory"),
        ),
        (
            at("/s"),
            "h/file".to_owned(),
            "destination must be a directory when copying a directory".to_owned(),
        ),
        (
            "h/dir".to_owned(),
            at("/s/f"),
            "destination must be a directory when copying a directory".to_owned(),
        ),
        (
            "nosuch:/x".to_owned(),
            "y".to_owned(),
            "container \"nosuch\" does not exist".to_owned(),
        ),
        (
            "h/file".to_owned(),
            "y".to_owned(),
            "name or ID cannot be empty".to_owned(),
        ),
    ] {
        let (code, text) = cp(s, &from, &to);
        assert_eq!(code, 125, "{from} {to}");
        assert!(text.ends_with(&words), "{from} {to}: {text}");
    }
    // Into it, and out again.
    works("h/dir", &at("/tgt"));
    works("h/dir", &at("/tgt"));
    works("h/file", &at("/s/dl"));
    works("h/file", &at("/new"));
    works(&at("/tgt"), "back");
    let list = home(
        s,
        "cd back; find . | sort | tr '\\n' ' '; cat dir/sub/b; readlink lnk",
    );
    assert_eq!(
        list,
        ". ./a ./dir ./dir/a ./dir/lnk ./dir/sub ./dir/sub/b ./lnk ./sub ./sub/b 3\n../file\n"
    );
    let tar = s.rless(["cp", &at("/s/d"), "-"]).run();
    assert!(tar.out.contains("d/e/g"));
    let listed = home(
        s,
        &format!(
            "{} cp {} - | tar -tvf - | grep -c file",
            s.binary().display(),
            at("/s/d")
        ),
    );
    assert_eq!(listed, "1\n");
    // A stream, compressed.
    home(
        s,
        &format!(
            "tar -C h -czf - dir file | {} cp - {}",
            s.binary().display(),
            at("/tmp")
        ),
    );
    works(&at("/tmp/dir/sub/b"), "b");
    assert_eq!(home(s, "cat b"), "3\n");
    let junk = s.rless(["cp", "-", &at("/tmp")]).stdin("junk").exits(125);
    junk.says(&["source must be a (compressed) tar archive when copying from stdin"]);
    s.rless(["cp", "-", &at("/tmp/nosuch")])
        .stdin("")
        .exits(125);
    // Something else than a directory over a directory.
    assert_eq!(cp(s, "h/dir/a", &at("/tgt/sub")).0, 0);
    home(s, "rm -rf over && mkdir -p over/sub && echo x >over/dir");
    assert_eq!(cp(s, "over/.", &at("/tgt")).0, 125);
    s.rless(["cp", "--overwrite", "over/.", &at("/tgt")])
        .cwd(s.get("HOME"))
        .ok();
    works(&at("/tgt/dir"), "was-a-directory");
    assert_eq!(home(s, "cat was-a-directory"), "x\n");
}

#[test]
fn attributes_and_capabilities_go_along() {
    let world = world!();
    let s = Sandbox::new(world);
    let make = "mkdir /s; cp /bin/true /s/p; setfattr -n user.a -v one /s /s/p; setcap cap_net_raw+ep /s/p";
    running(&s, "rootfs:/", "c", &[], make);
    s.rless(["create", "--name", "d", "rootfs:/", "true"]).ok();
    // One that runs and one that does not, and the other way round; and to the host, which has no capabilities of theirs.
    for (from, to) in [
        ("c:/s", "d:/t"),
        ("d:/t", "c:/back"),
        ("c:/s", "c:/again"),
        ("d:/t", "out"),
    ] {
        assert_eq!(cp(&s, from, to), (0, String::new()), "{from} {to}");
    }
    let look =
        "for at in /back /again; do getfattr --only-values -n user.a $at $at/p; getcap $at/p; done";
    let seen = s.rless(["exec", "c", "sh", "-c", look]).run();
    let one = |at: &str| format!("oneone{at}/p cap_net_raw=ep\n");
    assert_eq!(seen.out, one("/back") + &one("/again"), "{seen}");
    assert_eq!(
        home(&s, "getfattr --only-values -n user.a out out/p"),
        "oneone"
    );
    assert_eq!(cp(&s, "out/.", "c:/"), (0, String::new()));
    let seen = s
        .rless([
            "exec",
            "c",
            "getfattr",
            "--only-values",
            "-n",
            "user.a",
            "/p",
        ])
        .run();
    assert_eq!(seen.out, "one", "{seen}");
    s.rless(["rm", "-f", "-t", "0", "c", "d"]).ok();
}

#[test]
fn a_stream_may_be_compressed() {
    let world = world!();
    let s = Sandbox::new(world);
    s.rless(["create", "--name", "c", "rootfs:/", "true"]).ok();
    home(&s, "echo packed > f && tar -cf t.tar f");
    let tar = std::fs::read(s.get("HOME").join("t.tar")).unwrap();
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let packed = ruzstd::encoding::compress_to_vec(&tar[..], level);
    s.rless(["cp", "-", "c:/opt"]).stdin(packed).ok();
    assert_eq!(cp(&s, "c:/opt/f", "back"), (0, String::new()));
    assert_eq!(home(&s, "cat back"), "packed\n");
    for (magic, name) in [(&b"\xfd7zXZ\0\0\x04"[..], "xz"), (b"BZh91AY&SY", "bzip2")] {
        let refused = s.rless(["cp", "-", "c:/opt"]).stdin(magic).exits(125);
        let words = format!("it is compressed with {name}; gzip, zstd and plain tar are supported");
        refused.says(&[&words]);
    }
    s.rless(["rm", "c"]).ok();
}

const SCRIPT: &str =
    "mkdir -p /s/d/e; echo f >/s/f; echo g >/s/d/e/g; ln -s f /s/l; ln -s /s/d /s/dl;
    chown 5:6 /s/f; chmod 640 /s/f; touch -d @1000 /s/f";

#[test]
fn files_are_copied_by_podmans_rules_running_and_ended() {
    let world = world!();
    let s = Sandbox::new(world);
    let image = world.reference("alpine");
    running(
        &s,
        &image,
        "c",
        &["--tmpfs", "/tt", "-v", "vol:/data"],
        SCRIPT,
    );
    rules(&s, "c");
    // What is mounted in it is seen.
    for place in ["/data", "/tt"] {
        assert_eq!(
            cp(&s, "h/file", &format!("c:{place}/x")),
            (0, String::new())
        );
        assert_eq!(
            cp(&s, &format!("c:{place}/x"), "back-x"),
            (0, String::new())
        );
    }
    assert_eq!(
        s.rless(["exec", "c", "ls", "-ln", "/data/x"])
            .ok()
            .split_whitespace()
            .nth(2),
        Some("0")
    );
    s.rless(["stop", "-t", "0", "c"]).ok();
    s.rless([
        "run",
        "--network",
        "none",
        "--name",
        "e",
        &image,
        "sh",
        "-c",
        SCRIPT,
    ])
    .ok();
    rules(&s, "e");
    // Whose they are: the container's user's.
    s.rless([
        "run",
        "--network",
        "none",
        "--user",
        "33:44",
        "--name",
        "u",
        &image,
        "true",
    ])
    .ok();
    assert_eq!(cp(&s, "h/file", "u:/f"), (0, String::new()));
    assert_eq!(cp(&s, "e:/s/f", "u:/g"), (0, String::new()));
    s.rless(["cp", "-a=false", "e:/s/f", "u:/h"]).ok();
    let listed = home(
        &s,
        &format!(
            "for f in f g h; do {} cp u:/$f - | tar --numeric-owner -tvf -; done",
            s.binary().display()
        ),
    );
    let owners: Vec<&str> = listed
        .lines()
        .filter_map(|l| l.split_whitespace().nth(1))
        .collect();
    assert_eq!(owners, ["33/44", "33/44", "5/6"]);
    s.rless(["rm", "-f", "-t", "0", "c", "e", "u"]).ok();
    s.rless(["volume", "rm", "vol"]).ok();
}

#[test]
fn no_link_in_a_container_or_exchanged_meanwhile_leads_to_the_host() {
    let world = world!();
    let s = Sandbox::new(world);
    let image = world.reference("alpine");
    let canary = home(
        &s,
        "mkdir -p canary out && echo secret >canary/secret && pwd",
    )
    .trim()
    .to_owned()
        + "/canary";
    let script = format!(
        "mkdir /r /t; ln -s {canary} /link; ln -s ../../../../../../../..{canary} /up; ln -s /proc/1/root{canary} /magic;
         (while true; do mkdir /r/d; echo x >/r/d/f; mv /r/d /t/d; ln -s {canary} /r/d; rm /r/d; rm -r /t/d; done) >/dev/null 2>&1 & true"
    );
    running(&s, &image, "c", &[], &script);
    home(
        &s,
        "mkdir -p evil/d && echo evil >evil/d/secret && echo evil >evil/secret && ln -s $PWD/canary out/d",
    );
    let state = || {
        home(
            &s,
            "find canary | sort; cat canary/*; stat -c '%Y %a' canary canary/*",
        )
    };
    let before = state();
    for link in ["/link", "/up", "/magic"] {
        assert_ne!(cp(&s, &format!("c:{link}"), "got").0, 0);
        assert_ne!(cp(&s, "evil/secret", &format!("c:{link}/secret")).0, 0);
        assert_ne!(cp(&s, "evil/.", &format!("c:{link}")).0, 0);
    }
    for n in 0..25 {
        // Whether these work depends on the moment; where they lead does not.
        cp(&s, "evil/d", "c:/r");
        cp(&s, "evil/secret", "c:/r/d/");
        cp(&s, "c:/r/.", &format!("out{n}"));
        cp(&s, "c:/r/d/.", &format!("in{n}"));
        // A link of the host's in the place of a directory that is copied.
        cp(&s, "c:/r/.", "out");
    }
    assert_eq!(state(), before);
    assert_eq!(
        home(
            &s,
            "grep -rl --exclude-dir=canary secret out? out?? in* 2>/dev/null || true"
        ),
        ""
    );
    s.rless(["rm", "-f", "-t", "0", "c"]).ok();
}

#[test]
fn the_volumes_of_one_that_does_not_run_are_written_to() {
    let world = world!();
    let s = Sandbox::new(world);
    home(
        &s,
        "mkdir -p host/in ro; echo host >host/f; echo ro >ro/f; echo canary >canary; echo new >new;
         ln -s $PWD/canary host/away; ln -s /etc/passwd host/passwd; ln -s /made host/made",
    );
    let at = |dir: &str, place: &str| format!("{}:{place}", s.get("HOME").join(dir).display());
    let script =
        "ln -s /vol/sub/f /tovolume; ln -s vol /v; mkdir -p /vol/sub /srv/d; echo below >/srv/d/f";
    s.rless(["run", "--network", "none", "--name", "e", "-v", "vol:/vol"])
        .args([
            "-v",
            &at("host", "/host"),
            "-v",
            &at("ro", "/ro:ro"),
            "--tmpfs",
            "/tmp",
        ])
        .args([&world.reference("alpine"), "sh", "-c", script])
        .ok();
    let works =
        |from: &str, to: &str| assert_eq!(cp(&s, from, to), (0, String::new()), "{from} {to}");
    let inside = |volume: &str, script: &str| {
        let run = ["run", "--rm", "--network", "none", "-v"];
        let image = world.reference("alpine");
        s.rless(run).args([volume, &image, "sh", "-c", script]).ok()
    };
    // Into a volume, through a link of the container's, and out again.
    works("new", "e:/vol/sub/f");
    assert_eq!(
        inside("vol:/x", "cat /x/sub/f; stat -c %u:%g /x/sub/f"),
        "new\n0:0\n"
    );
    works("canary", "e:/tovolume");
    works("canary", "e:/v/other");
    assert_eq!(
        inside("vol:/x", "cat /x/sub/f /x/other"),
        "canary\ncanary\n"
    );
    works("e:/tovolume", "back");
    works("e:/vol", "tree");
    assert_eq!(
        home(&s, "cat back; cd tree; find . -type f | sort"),
        "canary\n./other\n./sub/f\n"
    );
    // Into a bind mount; a link in it leads where it does in the container.
    works("new", "e:/host/f");
    works("e:/host/passwd", "passwd");
    works("new", "e:/host/made");
    works("e:/made", "made");
    assert_eq!(
        home(&s, "cat host/f; grep -c ^root: passwd; cat made; ls host"),
        "new\n1\nnew\naway\nf\nin\nmade\npasswd\n"
    );
    let (code, text) = cp(&s, "new", "e:/host/away");
    assert!(code == 125 && text.contains("could not be found"), "{text}");
    assert_eq!(home(&s, "cat canary"), "canary\n");
    // What is mounted read-only is not written to, and what is not mounted is as before.
    let (code, text) = cp(&s, "new", "e:/ro/f");
    assert!(
        code == 125 && text.contains("Read-only file system"),
        "{text}"
    );
    works("new", "e:/srv/d/f");
    works("new", "e:/vol/../srv/d/g");
    works("e:/srv/d", "srv");
    assert_eq!(home(&s, "cat ro/f srv/f srv/g"), "ro\nnew\nnew\n");
    s.rless(["rm", "e"]).ok();
    s.rless(["volume", "rm", "vol"]).ok();
}

/// In the image /var/run is a link to /run.
#[test]
fn a_volume_behind_a_link_is_found_before_the_first_start() {
    let world = world!();
    let s = Sandbox::new(world);
    home(&s, "echo new >new");
    let script = "readlink /var/run; cat /run/app/f /run/app/g";
    s.rless(["create", "--network", "none", "--name", "l"])
        .args(["-v", "app:/var/run/app", &world.reference("alpine")])
        .args(["sh", "-c", script])
        .ok();
    for (from, to) in [
        ("new", "l:/var/run/app/f"),
        ("new", "l:/run/app/g"),
        ("l:/run/app/f", "back"),
    ] {
        assert_eq!(cp(&s, from, to), (0, String::new()), "{from} {to}");
    }
    assert_eq!(home(&s, "cat back"), "new\n");
    let said = s.rless(["start", "-a", "l"]).ok();
    let (link, content) = said.split_once('\n').unwrap();
    assert!(link.ends_with("run") && content == "new\nnew\n", "{said}");
    s.rless(["rm", "-v", "l"]).ok();
    s.rless(["volume", "rm", "app"]).ok();
}

#[test]
fn what_is_copied_into_one_that_does_not_run_counts_against_its_limit() {
    let world = world!();
    let s = Sandbox::new(world);
    home(&s, "head -c 8000000 /dev/urandom >large; echo small >small");
    let create = [
        "create",
        "--network",
        "none",
        "--name",
        "e",
        "--storage-opt",
        "size=4m",
    ];
    s.rless(create)
        .args([&world.reference("alpine"), "true"])
        .ok();
    assert_eq!(cp(&s, "small", "e:/small"), (0, String::new()));
    let (code, text) = cp(&s, "large", "e:/large");
    assert!(
        code == 125 && text.contains("No space left on device"),
        "{text}"
    );
    assert_eq!(cp(&s, "e:/small", "back"), (0, String::new()));
    assert_eq!(home(&s, "cat back"), "small\n");
    s.rless(["rm", "e"]).ok();
}

#[test]
fn a_snapshot_is_of_one_moment_and_restored() {
    let world = world!();
    let s = Sandbox::new(world);
    let image = world.reference("alpine");
    let script = "dd if=/dev/urandom of=/large bs=1M count=8 2>/dev/null; md5sum /large >/sum; echo one >/f; rm /etc/motd";
    running(&s, &image, "c", &[], script);
    assert_eq!(s.rless(["snapshot", "c", "first"]).ok(), "first\n");
    s.rless(["exec", "c", "sh", "-c", "echo two >>/f; dd if=/dev/zero of=/large bs=1M seek=2 count=1 conv=notrunc 2>/dev/null; rm -r /etc/apk; touch /etc/motd"])
        .ok();
    let named = s.rless(["snapshot", "c"]).ok();
    assert!(named.ends_with("Z\n"), "{named}");
    let list = s.rless(["snapshot", "--list", "c"]).ok();
    assert_eq!(list.lines().count(), 3, "{list}");
    s.rless(["snapshot", "c", "first"]).exits(125);
    s.rless(["snapshot", "c", "../x"]).exits(125);
    s.rless(["restore", "c", "first"]).exits(125);
    let look = "cat /f; ls /etc/apk >/dev/null 2>&1 && echo apk; md5sum -c /sum 2>/dev/null | tail -1; ls /etc/motd 2>/dev/null; true";
    let now = s.rless(["exec", "c", "sh", "-c", look]).ok();
    assert_eq!(now, "one\ntwo\n/large: FAILED\n/etc/motd\n");
    s.rless(["stop", "-t", "0", "c"]).ok();
    let as_image = || {
        s.rless(["commit", "-q", "c", "state"]).ok();
        s.rless([
            "run",
            "--rm",
            "--network",
            "none",
            "state",
            "sh",
            "-c",
            look,
        ])
        .ok()
    };
    assert_eq!(as_image(), now);
    s.rless(["restore", "c", "first"]).ok();
    assert_eq!(as_image(), "one\napk\n/large: OK\n");
    s.rless(["restore", "c", named.trim()]).ok();
    assert_eq!(as_image(), now);
    s.rless(["restore", "c", "nosuch"]).exits(125);
    s.rless(["snapshot", "--rm", "c", "first"]).ok();
    s.rless(["restore", "c", "first"]).exits(125);
    assert_eq!(as_image(), now);
    s.rless(["rm", "c"]).ok();
    s.rless(["rmi", "state"]).ok();
}
