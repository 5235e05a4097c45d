//! Power loss: `tests/power/run` cuts the power of a virtual machine at 30 moments of a container's
//! creates, renames and fsyncs. All thirty disks are looked at on this machine, six of them by a
//! second boot; `tests/long power` boots for all of them.

use std::process::Command;

use crate::harness::{skip, world};

#[test]
fn what_was_fsynced_is_there_after_a_power_cut() {
    let world = world!();
    if std::env::var_os("RLESS_TEST_VM").is_none() {
        skip!("tests/run --quick boots no virtual machine");
    }
    if !world.root {
        skip!("needs root to make the virtual machine's disk");
    }
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power/run"))
        .args(["-n", "30", "-v", "6"])
        .arg(world.base.join("bin/rless"))
        .env("TMPDIR", &world.base)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{said}");
    let ok = |prefix: &str| text.lines().filter(|l| l.starts_with(prefix)).count();
    assert_eq!((ok("HERE ok "), ok("POWER ok ")), (30, 6), "{text}\n{said}");
}
