//! What a new volume has in it, and whose it is.

use crate::harness::{Output, Sandbox, world};

fn run<const N: usize>(sandbox: &Sandbox, args: [&str; N], script: &str) -> Output {
    let common = ["run", "--rm", "--network", "none"];
    let cmd = sandbox.rless(common).args(args);
    cmd.args(["busybox", "sh", "-c", script]).run()
}

#[track_caller]
fn says<const N: usize>(sandbox: &Sandbox, args: [&str; N], script: &str) -> String {
    let output = run(sandbox, args, script);
    assert_eq!(output.code(), 0, "{output}");
    output.out
}

#[test]
fn a_new_volume_where_the_image_has_nothing_is_the_users() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let script = "stat -c %u:%g:%a /n";
    let user = ["-u", "1000:1001", "-v", "a:/n"];
    assert_eq!(says(&sandbox, user, script), "1000:1001:755\n");
    let user = ["-u", "1000:1001", "-v", "b:/n:nocopy"];
    assert_eq!(says(&sandbox, user, script), "1000:1001:755\n");
    let keep = ["--userns", "keep-id", "-v", "c:/n"];
    assert_eq!(says(&sandbox, keep, "touch /n/x && echo ok"), "ok\n");
    // As the image has it; and what is in use is left alone.
    let user = ["-u", "1000:1001", "-v", "d:/tmp"];
    assert_eq!(says(&sandbox, user, "stat -c %u:%a /tmp"), "0:1777\n");
    let other = ["-u", "7", "-v", "c:/n"];
    let owner = says(&sandbox, ["-v", "c:/n"], "stat -c %u /n");
    assert_eq!(says(&sandbox, other, "stat -c %u /n"), owner);
    // The mount point that a start has made is not the image's.
    let create = ["create", "--name", "again", "-u", "1000", "-v", "e:/n"];
    let script = ["busybox", "stat", "-c", "%u", "/n"];
    sandbox.rless(create).args(script).ok();
    for _ in 0..2 {
        assert_eq!(sandbox.rless(["start", "-a", "again"]).ok(), "1000\n");
    }
}

#[test]
fn a_volume_is_filled_from_the_image_alone_and_once() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let count = "ls -A /bin | /bin2/wc -l";
    let with_tools = ["-v", "tools:/bin2", "-v", "v:/bin:ro"];
    says(&sandbox, ["-v", "tools:/bin"], "true");
    // Read-only in the container all the same.
    let full = says(&sandbox, with_tools, count);
    assert!(full.trim().parse::<u32>().unwrap() > 100, "{full}");
    let written = run(&sandbox, with_tools, "/bin2/touch /bin/x");
    written.says(&["Read-only file system"]);
    // What was deleted stays deleted, also in one that was made before there were states.
    says(&sandbox, ["-v", "v:/mnt"], "rm -rf /mnt/*");
    let empty = "/bin2/ls -A /bin | /bin2/wc -l";
    let shell = [
        "-v",
        "tools:/bin2",
        "-v",
        "v:/bin",
        "--entrypoint",
        "/bin2/sh",
    ];
    let ls = |sandbox: &Sandbox| {
        let cmd = sandbox.rless(["run", "--rm", "--network", "none"]);
        cmd.args(shell).args(["busybox", "-c", empty]).ok()
    };
    assert_eq!(ls(&sandbox), "0\n");
    std::fs::remove_file(sandbox.store().join("volumes/v/state")).unwrap();
    assert_eq!(ls(&sandbox), "0\n");
    // Not with what else is mounted there.
    sandbox.make_dir(&sandbox.dir.join("host/sub"));
    sandbox.write("host/sub/mine", "x");
    let host = format!("{}:/opt", sandbox.dir.join("host").display());
    let nested = ["-v", &host, "-v", "n:/opt/sub"];
    assert_eq!(says(&sandbox, nested, "ls -A /opt/sub"), "");
}

#[test]
fn a_copy_into_a_volume_that_was_cut_short_is_ended() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let binary = sandbox.binary().display().to_string();
    let all = "busybox sh -c 'ls -A /bin | sort | sha256sum; cat /bin/* | sha256sum'";
    let whole = says(
        &sandbox,
        [],
        "ls -A /bin | sort | sha256sum; cat /bin/* | sha256sum",
    );
    // The disk is full in the middle of the first large file.
    let args = "run --rm --network none -v v:/bin";
    let cut = sandbox.sh(&format!("ulimit -f 512; {binary} {args} {all}"));
    let failed = cut.run();
    assert_ne!(failed.code(), 0, "{failed}");
    let content = sandbox.store().join("volumes/v/_data");
    assert!(std::fs::read_dir(&content).unwrap().count() > 0, "{failed}");
    // Somebody's own file is kept.
    sandbox
        .sh(&format!("echo x > {}/mine", content.display()))
        .ok();
    says(&sandbox, ["-v", "v:/mnt"], "rm /mnt/mine");
    let ended = sandbox.sh(&format!("{binary} {args} {all}")).ok();
    assert_eq!(ended, whole);
}

#[test]
fn two_that_begin_at_once_on_a_new_volume_both_find_it_full() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let count = "ls -A /bin | wc -l";
    let whole = says(&sandbox, [], count);
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| says(&sandbox, ["-v", "v:/bin"], count)));
        for one in both {
            assert_eq!(one.join().unwrap(), whole);
        }
    });
}
