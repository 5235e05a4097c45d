//! Imports point down only, and siblings do not import each other: read from the sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What each layer may name; `error` and `sys` are below all, and a layer may name itself.
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        (
            "cli",
            &[
                "container",
                "store",
                "image",
                "cow",
                "runtime",
                "cgroup",
                "network",
                "sys",
                "error",
            ][..],
        ),
        (
            "container",
            &[
                "store", "image", "cow", "runtime", "cgroup", "network", "sys", "error",
            ][..],
        ),
        ("store", &["image", "cow", "sys", "error"][..]),
        ("image", &["sys", "error"][..]),
        ("cow", &["sys", "error"][..]),
        ("runtime", &["sys", "error"][..]),
        ("cgroup", &["sys", "error"][..]),
        ("network", &["sys", "error"][..]),
        ("sys", &["error"][..]),
        ("error", &[][..]),
    ])
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn layers_import_only_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let allowed = allowed();
    let mut wrong = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&src).unwrap();
        let first = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let layer = first.trim_end_matches(".rs");
        let Some(may) = allowed.get(layer) else {
            continue;
        }; // main.rs, lib.rs, bin/
        let text = std::fs::read_to_string(file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for part in code.split("crate::").skip(1) {
                let name: String = part
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if name != layer
                    && allowed.contains_key(name.as_str())
                    && !may.contains(&name.as_str())
                {
                    wrong.push(format!(
                        "{}:{}: {layer} uses {name}",
                        relative.display(),
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(files.len() > 10, "the sources are where they were");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_only_and_files_are_short() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&src).unwrap().display().to_string();
        let text = std::fs::read_to_string(file).unwrap();
        if text.contains("allow(unsafe_code)") && !relative.starts_with("sys") {
            wrong.push(format!("{relative}: unsafe code outside sys"));
        }
        if text.lines().count() > 800 {
            wrong.push(format!("{relative}: {} lines", text.lines().count()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The wall clock jumps: what waits, or says how long to wait, goes by [`std::time::Instant`].
#[test]
fn the_wall_clock_is_for_what_people_read() {
    const MAY: &[(&str, &str)] = &[
        ("cli", "what is shown and noted"),
        ("container/commit.rs", "noted in the image"),
        (
            "container/events.rs",
            "noted; `--since` and `--until` are times",
        ),
        ("container/filter.rs", "`until=` is a time"),
        ("container/heal.rs", "noted in the record"),
        ("container/logs.rs", "`--since` and `--until` are times"),
        ("container/make.rs", "noted in the record"),
        ("container/snapshot.rs", "a name"),
        ("container/stats.rs", "the average since the start, shown"),
        ("container/supervisor/again.rs", "noted in the record"),
        ("container/supervisor/health.rs", "noted in its log"),
        ("container/supervisor/log.rs", "the lines' times"),
        ("container/supervisor/mod.rs", "noted in the record"),
        ("container/volume_filter.rs", "`until=` is a time"),
        ("container/volumes.rs", "noted"),
        ("cow/meta.rs", "times of files"),
        ("cow/upper/hosts_change.rs", "a test"),
        (
            "image/http.rs",
            "`Retry-After` may be a date; how long that is has a limit",
        ),
        (
            "store/files.rs",
            "how old a file is, which nobody has locked",
        ),
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let (mut wrong, mut used) = (Vec::new(), std::collections::BTreeSet::new());
    for file in &files {
        let relative = file.strip_prefix(&src).unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let wall = [
            "SystemTime::now",
            "Timestamp::now",
            "Zoned::now",
            "CLOCK_REALTIME",
        ];
        // A time told, subtracted from another: how long something took, by that clock.
        if relative.starts_with("container/supervisor") && text.contains(".duration_since(") {
            wrong.push(format!("{}: a difference of times", relative.display()));
        }
        if relative.ends_with("tests.rs") || !wall.iter().any(|name| text.contains(name)) {
            continue;
        }
        match MAY.iter().find(|(path, _)| relative.starts_with(path)) {
            Some((path, _)) => drop(used.insert(*path)),
            None => wrong.push(relative.display().to_string()),
        }
    }
    assert!(wrong.is_empty(), "they ask for the wall clock: {wrong:?}");
    assert_eq!(used.len(), MAY.len(), "{used:?} are left of the list");
}
