//! `--storage-opt size=`, `df` inside, and `ps --size`.

use crate::harness::{Sandbox, wait_for, world};
use std::time::Duration;

/// Run and kept; its output.
fn run(sandbox: &Sandbox, name: &str, options: &[&str], script: &str) -> String {
    let mut args = vec!["run", "--network", "none", "--name", name];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", script]);
    sandbox.rless(args).ok()
}

/// What `ps` says the container has changed, bytes.
fn noted(sandbox: &Sandbox, name: &str) -> u64 {
    let filter = format!("name={name}");
    let json = sandbox
        .rless([
            "ps", "-a", "--size", "--filter", &filter, "--format", "json",
        ])
        .ok();
    let list: serde_json::Value = serde_json::from_str(&json).unwrap();
    list[0]["Size"]["rwSize"].as_u64().unwrap()
}

#[test]
fn storage_opt_bounds_what_a_container_writes() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let script = "df -Pk / | tail -n1 | { read a b c d e; echo size $b; }
        dd if=/dev/zero of=/f bs=64k count=200 2>&1 | grep -o 'No space left on device'
        df -Pk / | tail -n1 | { read a b c d e; [ $d -lt 64 ] && echo full; }
        rm /f
        for i in 1 2 3 4 5 6 7 8 9 10; do [ $(df -Pk / | tail -n1 | { read a b c d e; echo $d; }) -gt 5000 ] && echo free && break; sleep 0.1; done
        head -c 5500000 /dev/zero > /most
        i=0; while true > /e$i; do i=$((i + 1)); [ $i -lt 20000 ] || break; done 2>/dev/null
        [ $i -gt 1000 ] && [ $i -lt 20000 ] && echo bounded
        rm /most /e*
        head -c 2000000 /dev/zero > /kept && echo kept";
    let options = ["--storage-opt", "size=6m"];
    let out = run(&sandbox, "bounded", &options, script);
    assert_eq!(
        out,
        "size 6144\nNo space left on device\nfull\nfree\nbounded\nkept\n"
    );
    // The record has the limit, for every later start.
    let id = sandbox
        .rless(["ps", "-a", "-q", "--no-trunc", "--filter", "name=bounded"])
        .ok();
    let record = sandbox
        .store()
        .join("containers")
        .join(id.trim())
        .join("record.json");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(record["storage_size"], 6 << 20);
    let bytes = noted(&sandbox, "bounded");
    assert!((2_000_000..2_100_000).contains(&bytes), "{bytes}");
    sandbox.rless(["rm", "bounded"]).ok();
}

#[test]
fn other_storage_options_are_refused() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    for (option, word) in [
        ("--storage-opt=inodes=5", "not known"),
        ("--storage-opt=size", "not known"),
        ("--storage-opt=size=x", "invalid size"),
        ("--storage-opt=size=1k", "the least is"),
    ] {
        let out = sandbox.rless(["run", option, "busybox"]).exits(125);
        out.says(&[word]);
    }
}

#[test]
fn ps_size_is_what_the_container_changed() {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    run(&sandbox, "untouched", &[], "cat /etc/passwd > /dev/null");
    run(
        &sandbox,
        "changed",
        &[],
        "head -c 3000000 /dev/zero > /a; head -c 1000000 /dev/zero > /b; rm /b",
    );
    let (none, some) = (noted(&sandbox, "untouched"), noted(&sandbox, "changed"));
    // The places of mounts (/proc, /dev …) that the image does not have are made in the container.
    assert!(none < 8192, "{none}");
    assert!((3_000_000..3_016_384).contains(&some), "{some}");
    let text = |args: &[&str]| {
        let fixed = ["ps", "-a", "--filter", "name=changed"];
        sandbox.rless(fixed.iter().chain(args)).ok()
    };
    let shown = text(&["--size", "--format", "{{.Size}}"]);
    assert!(
        shown.starts_with("3MB (virtual ") || shown.starts_with("3.01MB (virtual "),
        "{shown}"
    );
    assert!(text(&["-s"]).contains(shown.trim()), "{}", text(&["-s"]));
    // Podman's: a template that names the size need not be helped by the flag.
    assert_eq!(text(&["--format", "{{.Size}}"]), shown);
    // One that runs is up to date some seconds later.
    let script = "head -c 5000000 /dev/zero > /late; sleep 60";
    run(&sandbox, "running", &["-d"], script);
    wait_for(
        "the size of a running container",
        Duration::from_secs(20),
        || noted(&sandbox, "running") > 5_000_000,
    );
    assert!(noted(&sandbox, "running") < 5_020_000);
    let mut ps = sandbox.rless(["ps", "-a", "--sort", "size", "--format", "{{.Names}}"]);
    for name in ["untouched", "changed", "running"] {
        ps = ps.args(["--filter", &format!("name={name}")]);
    }
    assert_eq!(ps.ok(), "untouched\nchanged\nrunning\n");
    for name in ["untouched", "changed", "running"] {
        sandbox.rless(["rm", "-f", "-t", "0", name]).ok();
    }
}
