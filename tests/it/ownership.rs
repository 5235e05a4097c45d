//! Promise 1: every file in the store is its user's, and nothing needs more than `rm -rf`.

use std::path::Path;

use crate::harness::{Sandbox, skip, world};

/// A container that writes as many owners and kinds of file as it can.
const MESS: &str = "
    for id in 0 33 999 1000 65534; do
        mkdir /d$id && echo x > /d$id/f && chown -R $id:$id /d$id && chmod 000 /d$id/f && chmod 0111 /d$id || exit 1
    done
    mkfifo /fifo && ln -s /nowhere /link && ln /etc/passwd /hard && chown 999:999 /etc/group /bin
    chmod 4755 /bin/busybox && mv /etc /cte && mv /cte /etc";

/// Lists what others could read if they came that far. The files that are bound into the container (hosts,
/// resolv.conf …) are for its other users to read; the directories above them keep everyone else out.
fn open_to_others(dir: &Path) -> String {
    let dir = dir.display();
    format!("find {dir} ! -type l -perm /077 ! -path '*/containers/*/files/*'")
}

#[test]
fn every_file_of_the_store_is_its_users_and_goes_with_rm() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox
        .rless(["run", "--name", "mess", "busybox", "sh", "-c", MESS])
        .ok();
    let store = sandbox.store();
    let find = format!("find {} ! -user {}", store.display(), sandbox.account.uid);
    assert_eq!(sandbox.sh(&find).ok(), "");
    // Modes: nothing for others, whatever the image says.
    let find = open_to_others(&store);
    assert_eq!(sandbox.sh(&find).ok(), "");
    sandbox.sh(&format!("rm -rf {}", store.display())).ok();
    assert!(!store.exists());
    // And a store that is gone is a new one.
    assert_eq!(sandbox.rless(["ps", "-a", "-q"]).ok(), "");
    assert_eq!(
        sandbox
            .rless(["run", "--rm", "busybox", "echo", "back"])
            .ok(),
        "back\n"
    );
}

#[test]
fn umask_and_second_user_see_nothing() {
    let world = world!();
    let Some(other) = &world.loner else {
        skip!("needs root to look as a second user")
    };
    let sandbox = Sandbox::new(world);
    let run = sandbox.sh(&format!(
        "umask 000; exec {} run --name open busybox sh -c '{MESS}'",
        sandbox.binary().display()
    ));
    run.ok();
    for dir in ["data", "run"] {
        let find = open_to_others(&sandbox.dir.join(dir));
        assert_eq!(sandbox.sh(&find).ok(), "");
    }
    // Open the way to the store itself, then look from outside.
    for dir in ["", "data"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(sandbox.dir.join(dir), mode).unwrap();
    }
    let find = format!(
        "find {} -mindepth 1 2>/dev/null | wc -l",
        sandbox.store().display()
    );
    let spy = Sandbox::of(world, other);
    assert_eq!(spy.sh(&find).cwd("/").ok().trim(), "0");
}

#[test]
fn a_volume_written_by_uid_999_can_be_removed() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    let script = "mkdir /v/d && echo x > /v/d/f && chown -R 999:999 /v/d && chmod 700 /v/d";
    sandbox
        .rless(["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", script])
        .ok();
    let store = sandbox.store();
    // Volumes are the stated exception; everything else is the user's.
    let volumes = store.join("volumes");
    let find = format!(
        "find {} -path {} -prune -o ! -user {} -print",
        store.display(),
        volumes.display(),
        sandbox.account.uid
    );
    assert_eq!(sandbox.sh(&find).ok(), "");
    sandbox.rless(["volume", "rm", "vol"]).ok();
    let left = format!(
        "find {} -mindepth 1 ! -name .new ! -name .gone ! -name .lock",
        volumes.display()
    );
    assert_eq!(sandbox.sh(&left).ok(), "");
    sandbox.sh(&format!("rm -rf {}", store.display())).ok();
}

#[test]
fn the_common_stores_are_their_users() {
    let world = world!();
    for account in std::iter::once(&world.user).chain(&world.loner) {
        let data = world.base.join(format!("store-{}/data", account.name));
        if data.exists() {
            let find = format!("find {} ! -user {}", data.display(), account.uid);
            assert_eq!(crate::harness::host(&find), "");
        }
    }
}
