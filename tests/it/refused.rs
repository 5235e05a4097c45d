//! What one user of a container is refused of another's files, however hot the caches are: the
//! server sees no access to what the kernel has cached, so the kernel itself must refuse it.

use crate::harness::{Sandbox, world};

/// `tries COMMAND...` runs each access below the command and tells how it ended; everything has been
/// read by root before, twice, so that names, attributes and content are in the kernel's caches.
const SCRIPT: &str = r#"
umask 022
echo made >/made; chmod 600 /made
mkdir /closed; echo inside >/closed/file; chmod 700 /closed
mkdir -p /deep/closed/a/b; echo deep >/deep/closed/a/b/file; chmod 700 /deep/closed
for f in /made /closed/file /deep/closed/a/b/file /etc/shadow; do chown $OWNER $f; done
chown $OWNER /closed /deep/closed
chmod 600 /etc/shadow # of the image, its content still there
for i in 1 2; do
    cat /made /closed/file /deep/closed/a/b/file /etc/shadow >/dev/null
    ls -lR /closed /deep >/dev/null
done
tries() {
    "$@" cat /etc/passwd >/dev/null # it can be run
    for f in /made /closed/file /deep/closed/a/b/file /etc/shadow; do
        if out=$("$@" cat $f 2>&1); then echo "read $f: $out"; else echo "$out"; fi
    done
    if out=$("$@" sh -c 'echo x >>/made' 2>&1); then echo "wrote /made"; else echo "$out"; fi
    if out=$("$@" ls /closed 2>&1); then echo "listed /closed: $out"; else echo "$out"; fi
    if out=$("$@" test -e /deep/closed/a); then echo "looked /deep/closed/a up"; else echo "test: Permission denied"; fi
    if out=$("$@" rm -f /closed/file 2>&1); then echo "removed /closed/file"; else echo "$out"; fi
}
# That it is all there for who may.
test "$(cat /made /closed/file /deep/closed/a/b/file)" = "$(printf 'made\ninside\ndeep')"
"#;

/// Runs the script's tries below `command`, files owned by `owner`; all eight must be refused.
fn refused(options: &[&str], owner: &str, command: &str) {
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let told = sandbox
        .rless(["run", "--rm", "--network", "none", "-e"])
        .arg(format!("OWNER={owner}"))
        .args(options)
        .args(["debian", "sh", "-euc"])
        .arg(format!("{SCRIPT}\ntries {command}"))
        .ok();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 8, "{told}");
    for line in lines {
        assert!(line.ends_with("Permission denied"), "{told}");
    }
}

#[test]
fn second_user_is_refused_what_root_has_just_read() {
    refused(
        &[],
        "0:0",
        "setpriv --reuid 33 --regid 33 --clear-groups --",
    );
}

#[test]
fn second_user_by_su_is_refused_what_root_has_just_read() {
    let su = r#"su -s /bin/sh -c 'exec "$@"' -- www-data sh"#;
    refused(&[], "0:0", su);
}

#[test]
fn root_without_dac_override_is_refused_what_full_root_has_just_read() {
    refused(
        &[],
        "33:33",
        "setpriv --bounding-set=-dac_override --inh-caps=-dac_override --",
    );
}

#[test]
fn container_without_dac_override_is_refused_what_is_in_its_caches() {
    // Nobody inside has the capability: content and names are read while they are still root's own.
    let script = r#"
        umask 022
        echo made >/made; mkdir /closed; echo inside >/closed/file
        chmod 600 /made /etc/shadow; chmod 700 /closed
        exec 3</made
        for i in 1 2; do cat /made /closed/file /etc/shadow >/dev/null; ls -l /closed >/dev/null; done
        chown 33:33 /made /closed /etc/shadow
        test "$(cat <&3)" = made
        for f in /made /closed/file /etc/shadow; do cat $f 2>&1 && echo "read $f" || true; done
        ls /closed 2>&1 && echo listed || true
        sh -c 'echo x >>/made' 2>&1 && echo wrote || true
    "#;
    let world = world!();
    let sandbox = Sandbox::shared(world);
    let told = sandbox
        .rless([
            "run",
            "--rm",
            "--network",
            "none",
            "--cap-drop",
            "DAC_OVERRIDE",
        ])
        .args(["debian", "sh", "-euc", script])
        .ok();
    assert_eq!(told.lines().count(), 5, "{told}");
    for line in told.lines() {
        assert!(line.ends_with("Permission denied"), "{told}");
    }
}
