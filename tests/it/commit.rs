//! `diff`, `commit`: a container's changes as podman lists them, and as an image.

use std::time::Duration;

use crate::harness::{Sandbox, wait_for, world};

/// Changes of every kind in an Alpine container.
const CHANGES: &str = "echo hi >>/etc/passwd; touch /new; mkdir /dd; echo a >/dd/a; rm /etc/motd; mv /etc/apk/keys /etc/keys2;
    chmod 700 /srv; rm -r /etc/network; mkdir /etc/network; echo x >/etc/network/q; ln /etc/group /etc/group2;
    touch /tmp/z; rm /tmp/z; rm -r /media; echo f >/media; ln -sf x /etc/issue; mkdir /var/lib/udhcpd;
    chown 33 /etc/shells; echo x >>/usr/share/udhcpc/default.script";

/// What podman 5.4.2 lists for them (names of keys left out).
const LISTED: &str = "A /dd
A /dd/a
C /etc
C /etc/apk
D /etc/apk/keys
C /etc/group
A /etc/group2
C /etc/issue
A /etc/keys2
D /etc/motd
D /etc/network
A /etc/network/q
C /etc/passwd
C /etc/shells
C /media
A /new
C /srv
C /tmp
C /usr/share/udhcpc/default.script
C /var/lib
C /var
A /var/lib/udhcpd
";

fn without_keys(out: &str) -> String {
    let lines = out.lines().filter(|l| !l.contains(".rsa.pub"));
    lines.map(|l| format!("{l}\n")).collect()
}

#[test]
fn diff_lists_what_podman_lists_running_and_ended() {
    let world = world!();
    let s = Sandbox::new(world);
    let image = world.reference("alpine");
    s.rless([
        "run",
        "--network",
        "none",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
        CHANGES,
    ])
    .ok();
    assert_eq!(without_keys(&s.rless(["diff", "c"]).ok()), LISTED);
    let json = s.rless(["diff", "--format", "json", "-l"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["changed"][0], "/etc");
    assert_eq!(json["deleted"][0], "/etc/apk/keys");
    let script = format!("{CHANGES}; touch /ready; sleep 60");
    s.rless([
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "l",
        &image,
        "sh",
        "-c",
        &script,
    ])
    .ok();
    let expect = LISTED.replace("C /srv\n", "A /ready\nC /srv\n");
    crate::harness::wait_for("the changes", std::time::Duration::from_secs(30), || {
        s.rless(["diff", "l"]).ok().contains("A /ready")
    });
    assert_eq!(without_keys(&s.rless(["diff", "l"]).ok()), expect);
    assert_eq!(s.rless(["diff", "nosuch"]).exits(125).out, "");
    s.rless(["diff"]).exits(125);
    s.rless(["diff", "--format", "x", "c"]).exits(125);
    // Of an image: what its uppermost layer did.
    s.rless(["commit", "-q", "c", "committed"]).ok();
    let of_image = without_keys(&s.rless(["diff", "committed"]).ok());
    assert_eq!(of_image, LISTED);
    s.rless(["rm", "-f", "-t", "0", "c", "l"]).ok();
    s.rless(["rmi", "committed"]).ok();
}

#[test]
fn a_committed_image_runs_has_the_configuration_and_can_be_committed_over() {
    let world = world!();
    let s = Sandbox::new(world);
    let image = world.reference("alpine");
    s.rless([
        "run",
        "--network",
        "none",
        "--name",
        "c",
        "-e",
        "A=1",
        "-w",
        "/srv",
        "--label",
        "x=y",
        &image,
        "sh",
        "-c",
        "echo one >/f",
    ])
    .ok();
    let id = s
        .rless([
            "commit",
            "-q",
            "-a",
            "me",
            "-c",
            "CMD [\"cat\",\"/f\"]",
            "-c",
            "ENV B=2",
            "c",
            "one",
        ])
        .ok();
    assert_eq!(id.trim().len(), 64);
    assert_eq!(
        s.rless(["run", "--rm", "--network", "none", "one"]).ok(),
        "one\n"
    );
    let env = s.rless([
        "run",
        "--rm",
        "--network",
        "none",
        "one",
        "sh",
        "-c",
        "echo $A $B $PWD",
    ]);
    assert_eq!(env.ok(), "1 2 /srv\n");
    s.rless(["rm", "c"]).ok();
    s.rless([
        "run",
        "--network",
        "none",
        "--name",
        "c",
        "one",
        "sh",
        "-c",
        "echo two >>/f",
    ])
    .ok();
    let told = s.rless(["commit", "c", "two"]).exits(0);
    assert!(
        told.err.contains("Writing manifest to image destination"),
        "{}",
        told.err
    );
    assert_eq!(
        s.rless(["run", "--rm", "--network", "none", "two", "cat", "/f"])
            .ok(),
        "one\ntwo\n"
    );
    let iid = s.dir.join("iid");
    let path = iid.to_str().unwrap();
    let id = s
        .rless(["commit", "-q", "-s", "--iidfile", path, "c", "flat"])
        .ok();
    assert_eq!(std::fs::read_to_string(&iid).unwrap(), id.trim());
    assert_eq!(
        s.rless(["run", "--rm", "--network", "none", "flat", "cat", "/f"])
            .ok(),
        "one\ntwo\n"
    );
    for bad in [
        &["-m", "text", "c"][..],
        &["-f", "foo", "c"],
        &["-c", "FOO=1", "c"],
        &["c", "BAD:Name:x"],
        &["nosuch"],
        &[],
    ] {
        let mut words = vec!["commit"];
        words.extend(bad);
        s.rless(words).exits(125);
    }
    s.rless(["rm", "c"]).ok();
    s.rless(["rmi", "one", "two", "flat"]).ok();
}

#[test]
fn a_commit_of_a_running_container_is_of_one_moment_and_stops_nothing() {
    let world = world!();
    let s = Sandbox::new(world);
    let image = world.reference("alpine");
    let script = "i=0; while true; do i=$((i+1)); echo $i >>/a; echo $i >>/b; done";
    s.rless([
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "l",
        &image,
        "sh",
        "-c",
        script,
    ])
    .ok();
    let begun = ["exec", "l", "test", "-s", "/b"];
    wait_for("its first lines", Duration::from_secs(20), || {
        s.rless(begun).run().code() == 0
    });
    let mut last = 0;
    for _ in 0..4 {
        s.rless(["commit", "-q", "l", "moment"]).ok();
        let count = "tail -qn 1 /a /b; wc -l </a; wc -l </b";
        let out = s
            .rless([
                "run",
                "--rm",
                "--network",
                "none",
                "moment",
                "sh",
                "-c",
                count,
            ])
            .ok();
        let n: Vec<u64> = out.lines().map(|l| l.trim().parse().unwrap()).collect();
        let [a, b, lines_a, lines_b] = n[..] else {
            panic!("{out}")
        };
        assert!(a == b || a == b + 1, "{out}");
        assert_eq!((a, b), (lines_a, lines_b), "nothing is missing in between");
        assert!(a > last, "it goes on: {last} {out}");
        last = a;
    }
    assert!(
        !s.rless(["ps", "-q", "--filter", "status=running"])
            .ok()
            .is_empty()
    );
    s.rless(["rm", "-f", "-t", "0", "l"]).ok();
    s.rless(["rmi", "moment"]).ok();
}

#[test]
fn an_export_has_all_files_and_nothing_that_is_mounted() {
    let world = world!();
    let s = Sandbox::new(world);
    let image = world.reference("alpine");
    let volume = s.dir.join("tmp");
    std::fs::write(volume.join("secret"), "x").unwrap();
    let mount = format!("{}:/mnt/v", volume.display());
    let script = "echo here >/f; ln /f /g; rm /etc/motd; touch /ready; sleep 60";
    s.rless([
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "l",
        "-v",
        &mount,
        &image,
        "sh",
        "-c",
        script,
    ])
    .ok();
    crate::harness::wait_for("the files", std::time::Duration::from_secs(30), || {
        s.rless(["diff", "l"]).ok().contains("A /ready")
    });
    let tar = s.dir.join("out.tar");
    let path = tar.to_str().unwrap();
    s.rless(["export", "-o", path, "l"]).ok();
    let list = s.sh(&format!("tar -tvf {path}")).ok();
    for wanted in [
        " bin/\n",
        " f\n",
        " g link to f\n",
        " mnt/v/\n",
        " bin/sh -> /bin/busybox\n",
    ] {
        assert!(list.contains(wanted), "{wanted:?} in {list}");
    }
    for bad in ["motd", "secret", " proc/1"] {
        assert!(!list.contains(bad), "{bad}");
    }
    s.rless(["rm", "-f", "-t", "0", "l"]).ok();
    s.rless(["export", "nosuch"]).exits(125);
    s.rless(["export"]).exits(125);
}

/// Names of a layer's marks, a directory too deep to be opened by its path, attributes that no tar can say.
const ODD: &str = "mkdir -p /.wh.d/e /d/.wh.e; echo x >/.wh.d/e/f; echo x >/d/.wh.f; echo x >/d/.wh..wh..opq; echo x >/d/plain
    ln /d/plain /d/.wh.link; dd if=/dev/null of=/sparse bs=1M seek=2000000 count=0
    n=dddddddddddddddddddddddddddddddddddddddd; i=0; mkdir /deep; cd /deep
    while [ $i -lt 120 ]; do mkdir $n; cd -P $n; i=$((i+1)); done; echo x >f; [ -e f ]";

#[test]
fn nothing_a_container_makes_keeps_it_from_being_committed_or_exported() {
    let world = world!();
    let s = Sandbox::new(world);
    let image = world.reference("alpine");
    let run = [
        "run",
        "--network",
        "none",
        "--name",
        "c",
        &image,
        "sh",
        "-c",
    ];
    s.rless(run).arg(ODD).ok();
    let committed = s.rless(["commit", "c", "odd"]).exits(0);
    committed.says(&[
        "/.wh.d: left out",
        "/d/.wh.e: left out",
        "/sparse: left out",
        "its path is too long",
    ]);
    assert!(!committed.err.contains("/.wh.d/e"), "{committed}");
    // What is only warned of is seen, too, and can be silenced.
    let onbuild = ["commit", "-q", "--change", "ONBUILD RUN x", "c", "onbuild"];
    let warned = s.rless(onbuild).exits(0);
    warned.says(&["Warning: ONBUILD is not supported for the OCI image format"]);
    let silent = s.rless(["--log-level", "error"]).args(onbuild).exits(0);
    assert!(!silent.err.contains("ONBUILD"), "{silent}");
    let script = "cat /d/plain; ls -a /d /; find /deep | wc -l";
    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "localhost/odd",
        "sh",
        "-c",
    ];
    let found = s.rless(run).arg(script).ok();
    assert!(
        found.starts_with("x\n") && !found.contains("sparse"),
        "{found}"
    );
    assert!(!found.contains(".wh."), "{found}");
    let deep: u32 = found.lines().last().unwrap().parse().unwrap();
    assert!((95..=102).contains(&deep), "{deep} of 122 directories");
    let tar = s.dir.join("tmp/odd.tar");
    let export = s.rless(["export", "-o"]).arg(&tar).arg("c").exits(0);
    export.says(&["its path is too long"]);
    let list = s.sh(&format!("tar -tf {}", tar.display())).ok();
    assert!(
        list.contains(".wh.d/e/f") && list.contains("d/.wh.f"),
        "{list}"
    );
    s.rless(["rm", "c"]).ok();
}

#[test]
fn an_image_does_not_have_a_service_managers_socket() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let path = sandbox.dir.join("manager");
    let _manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let run = "run --network none --name c busybox sh -c";
    let run = sandbox.rless(run.split(' ')).arg("echo $NOTIFY_SOCKET");
    let told = run.env("NOTIFY_SOCKET", &path).ok();
    assert_eq!(told, "/run/notify/notify.sock\n");
    sandbox.rless(["commit", "-q", "c", "made"]).ok();
    let format = ["inspect", "-f", "{{.Config.Env}}", "made"];
    let env = sandbox.rless(format).ok();
    assert!(env.contains("PATH=") && !env.contains("NOTIFY"), "{env}");
}
