//! Reading flag values. Pure functions over text.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::container::logs::LogConfig;
use crate::container::request::{Seccomp, Security, Ulimit};
use crate::error::{Result, ResultExt, usage};
use crate::runtime::idmap::{IdRange, Userns};

/// Least `--storage-opt size=`: below it a container does not even start.
const STORAGE_LEAST: u64 = 64 << 10;

/// `64m`, `1g`, `1.5GiB`, `1024`: bytes; units are powers of 1024.
pub(super) fn size(text: &str) -> Result<u64> {
    scaled(text, 1024)
}

/// The same in powers of 1000, whatever the unit is called: `--log-opt max-size=`, as podman reads that one.
fn decimal(text: &str) -> Result<u64> {
    scaled(text, 1000)
}

fn scaled(text: &str, step: u64) -> Result<u64> {
    let bad = || usage(format!("invalid size {text:?}")).hint("as in 512, 64k, 100m, 2g");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = step.pow(match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(bad().into()),
    });
    if let Ok(n) = digits.parse::<u64>() {
        return Ok(n
            .checked_mul(unit)
            .filter(|n| *n <= i64::MAX as u64)
            .ok_or_else(bad)?);
    }
    let value: f64 = digits.parse().map_err(|_| bad())?;
    let bytes = value * unit as f64;
    if !(0.0..9e18).contains(&bytes) || !digits.contains('.') {
        return Err(bad().into());
    }
    // In range, as just checked.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(bytes as u64)
}

/// `--storage-opt`: `size=10G` is the one there is; the last one counts, 0 is no limit.
pub(super) fn storage_opts(list: &[String]) -> Result<Option<u64>> {
    let mut limit = None;
    for text in list {
        let Some(("size", value)) = text.split_once('=') else {
            return Err(usage(format!("--storage-opt {text:?} is not known"))
                .hint(
                    "--storage-opt size=SIZE bounds what the container may change, as in size=10G",
                )
                .into());
        };
        limit = Some(size(value)?);
    }
    match limit.filter(|n| *n > 0) {
        Some(n) if n < STORAGE_LEAST => Err(usage(format!(
            "--storage-opt size={n}: the least is {} KiB",
            STORAGE_LEAST >> 10
        ))
        .into()),
        other => Ok(other),
    }
}

/// As [`size`], with -1 for unlimited.
pub(super) fn signed_size(text: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    Ok(i64::try_from(size(text)?)?)
}

/// `--cpus`: 0 is no limit.
pub(super) fn cpus(text: &str) -> Result<f64> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|n| *n == 0.0 || (0.01..=10_000.0).contains(n));
    number.ok_or_else(|| {
        usage(format!(
            "--cpus {text:?} is not a number of CPUs from 0.01 on"
        ))
        .into()
    })
}

/// `NAME=SOFT[:HARD]`; -1 is unlimited.
pub(super) fn ulimit(text: &str) -> Result<Ulimit> {
    let bad =
        || usage(format!("invalid ulimit {text:?}")).hint("as in nofile=1024:2048 or core=-1");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| match text {
        "-1" | "unlimited" => Some(u64::MAX),
        text => text.parse().ok(),
    };
    let (soft, hard) = (number(soft).ok_or_else(bad)?, number(hard).ok_or_else(bad)?);
    if soft > hard {
        return Err(usage(format!(
            "invalid ulimit {text:?}: the soft limit is above the hard one"
        ))
        .into());
    }
    Ok(Ulimit {
        name: name.to_ascii_lowercase(),
        soft,
        hard,
    })
}

/// `["a","b"]` or one program; empty clears the image's.
pub(super) fn entrypoint(text: &str) -> Result<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if text.starts_with('[')
        && let Ok(list) = serde_json::from_str(text)
    {
        return Ok(list);
    }
    Ok(vec![text.to_owned()])
}

/// `KEY=VALUE` flags.
pub(super) fn pairs(flag: &str, list: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(usage(format!("{flag} {text:?}: expected KEY=VALUE")).into()),
    };
    list.iter().map(pair).collect()
}

/// Labels: a key alone has an empty value.
pub(super) fn labels(files: &[PathBuf], list: &[String]) -> Result<BTreeMap<String, String>> {
    let label = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(usage(format!("--label {text:?} has no key")).into());
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    let mut lines = Vec::new();
    for file in files {
        let doing = || usage(format!("reading the labels in {}", file.display()));
        let text = std::fs::read_to_string(file).fault(doing)?;
        let wanted = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let given = text.lines().map(str::trim_start).filter(wanted);
        lines.extend(given.map(str::to_owned));
    }
    // What is given by hand beats the files.
    lines.iter().chain(list).map(label).collect()
}

/// One `--security-opt`; docker's older `name:value` too.
pub(super) fn security_opt(security: &mut Security, option: &str) -> Result<()> {
    let (name, value) = match option.split_once(['=', ':']) {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let paths = |value: &str| value.split(':').map(str::to_owned).collect::<Vec<_>>();
    match (name, value) {
        ("no-new-privileges", None | Some("true")) => security.no_new_privileges = true,
        ("no-new-privileges", Some("false")) => security.no_new_privileges = false,
        ("seccomp", Some("unconfined")) => security.seccomp = Seccomp::Unconfined,
        ("seccomp", Some("" | "default" | "builtin")) => security.seccomp = Seccomp::Default,
        ("seccomp", Some(file)) => security.seccomp = Seccomp::File(file.into()),
        ("apparmor", Some(profile)) if !profile.is_empty() => {
            security.apparmor = Some(profile.to_owned());
        }
        // SELinux labels: nothing is labelled, so nothing has to be switched off.
        ("label", Some(_)) => {}
        ("mask", Some(value)) => security.mask.extend(paths(value)),
        ("unmask", Some(value)) if value.eq_ignore_ascii_case("all") => {
            security.unmask.push("ALL".into())
        }
        ("unmask", Some(value)) => security.unmask.extend(paths(value)),
        ("systempaths", Some("unconfined")) => security.unmask.push("ALL".into()),
        _ => return Err(usage(format!("invalid --security-opt {option:?}")).into()),
    }
    let bad = security
        .mask
        .iter()
        .chain(&security.unmask)
        .find(|p| !p.starts_with('/') && *p != "ALL");
    match bad {
        Some(path) => Err(usage(format!(
            "--security-opt {option:?}: {path:?} is not an absolute path"
        ))
        .into()),
        None => Ok(()),
    }
}

/// `--userns`, `--uidmap`, `--gidmap`.
pub(super) fn userns(mode: Option<&str>, uidmap: &[String], gidmap: &[String]) -> Result<Userns> {
    if !uidmap.is_empty() || !gidmap.is_empty() {
        if mode.is_some_and(|m| m != "private") {
            return Err(usage("--userns and --uidmap/--gidmap exclude each other").into());
        }
        // One of them alone is meant for both, as podman has it.
        let (uids, gids) = match (uidmap.is_empty(), gidmap.is_empty()) {
            (true, false) => (gidmap, gidmap),
            (false, true) => (uidmap, uidmap),
            _ => (uidmap, gidmap),
        };
        return Ok(Userns::Explicit {
            uids: id_ranges(uids)?,
            gids: id_ranges(gids)?,
        });
    }
    let mode = mode.unwrap_or("host");
    let (name, options) = mode.split_once(':').unwrap_or((mode, ""));
    let bad = || {
        usage(format!("invalid --userns {mode:?}"))
            .hint("one of host, keep-id[:uid=N,gid=N], nomap, auto[:size=N]")
    };
    let mut values = BTreeMap::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let (key, value) = option.split_once('=').ok_or_else(bad)?;
        values.insert(key, value.parse::<u32>().map_err(|_| bad())?);
    }
    let userns = match name {
        "" | "host" | "private" => Userns::Default,
        "keep-id" => Userns::KeepId {
            uid: values.remove("uid"),
            gid: values.remove("gid"),
        },
        "nomap" => Userns::NoMap,
        "auto" => Userns::Auto {
            size: values.remove("size").unwrap_or(1024),
            avoid: Vec::new(),
        },
        _ => return Err(bad().into()),
    };
    if values.is_empty() {
        Ok(userns)
    } else {
        Err(bad().into())
    }
}

/// `--log-driver` and `--log-opt`.
pub(super) fn log(driver: Option<&str>, options: &[String]) -> Result<LogConfig> {
    let mut config = LogConfig::default();
    if let Some(driver) = driver {
        config.driver = driver.parse()?;
    }
    for option in options {
        config.option(option, decimal)?;
    }
    Ok(config)
}

fn id_ranges(list: &[String]) -> Result<Vec<IdRange>> {
    let range = |text: &String| {
        let bad = || {
            usage(format!("invalid id map {text:?}")).hint("as in 0:1:1000: container, host, count")
        };
        let numbers: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
        match numbers.map_err(|_| bad())?.as_slice() {
            [container, host] => Ok(IdRange {
                container: *container,
                host: *host,
                count: 1,
            }),
            [container, host, count] if *count > 0 => Ok(IdRange {
                container: *container,
                host: *host,
                count: *count,
            }),
            _ => Err(bad().into()),
        }
    };
    list.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64k", 65536),
            ("64M", 64 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            ("10b", 10),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for (text, bytes) in [
            ("1024", 1024),
            ("10k", 10_000),
            ("10kib", 10_000),
            ("1.5m", 1_500_000),
            ("1g", 1_000_000_000),
        ] {
            assert_eq!(decimal(text).unwrap(), bytes, "{text}");
        }
        for bad in [
            "",
            "m",
            "-1",
            "1x",
            "1e3",
            "99999999999g",
            "1.2.3m",
            "nan",
            "inf",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(signed_size("-1").unwrap(), -1);
    }

    #[test]
    fn storage_options() {
        let of =
            |list: &[&str]| storage_opts(&list.iter().map(|s| (*s).into()).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["size=10G"]).unwrap(), Some(10 << 30));
        assert_eq!(of(&["size=1m", "size=2m"]).unwrap(), Some(2 << 20));
        assert_eq!(of(&["size=0"]).unwrap(), None);
        for bad in [
            "size",
            "size=",
            "size=-1",
            "size=1k",
            "inodes=5",
            "overlay.size=1g",
        ] {
            assert!(of(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn ulimits_cpus_entrypoints() {
        assert_eq!(
            ulimit("nofile=5:6").unwrap(),
            Ulimit {
                name: "nofile".into(),
                soft: 5,
                hard: 6
            }
        );
        assert_eq!(ulimit("core=-1").unwrap().hard, u64::MAX);
        for bad in ["nofile", "nofile=", "nofile=6:5", "nofile=x"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
        assert!(
            cpus("0.5").is_ok()
                && cpus("x").is_err()
                && cpus("-1").is_err()
                && cpus("nan").is_err()
        );
        assert_eq!(entrypoint("[\"a\",\"b\"]").unwrap(), ["a", "b"]);
        assert_eq!(entrypoint("a b").unwrap(), ["a b"]);
        assert!(entrypoint("").unwrap().is_empty());
    }

    #[test]
    fn user_namespaces() {
        assert_eq!(userns(None, &[], &[]).unwrap(), Userns::Default);
        let keep = Userns::KeepId {
            uid: Some(999),
            gid: None,
        };
        assert_eq!(userns(Some("keep-id:uid=999"), &[], &[]).unwrap(), keep);
        for bad in ["keep", "keep-id:uid=x", "keep-id:foo=1", "host:uid=1"] {
            assert!(userns(Some(bad), &[], &[]).is_err(), "{bad}");
        }
        let map = |text: &str| userns(None, &[text.to_owned()], &[]);
        let range = IdRange {
            container: 0,
            host: 1,
            count: 10,
        };
        assert_eq!(
            map("0:1:10").unwrap(),
            Userns::Explicit {
                uids: vec![range],
                gids: vec![range]
            }
        );
        assert!(map("0:1:0").is_err() && map("0").is_err());
    }

    #[test]
    fn security_options() {
        let mut s = Security::default();
        for option in [
            "no-new-privileges",
            "seccomp=/p.json",
            "label=disable",
            "unmask=/proc/*:/sys/firmware",
            "mask=/x:/y",
        ] {
            security_opt(&mut s, option).unwrap();
        }
        assert!(s.no_new_privileges);
        assert_eq!(s.seccomp, Seccomp::File("/p.json".into()));
        assert_eq!((s.mask.len(), s.unmask.len()), (2, 2));
        for bad in [
            "",
            "seccomp",
            "what=x",
            "mask=rel",
            "no-new-privileges=maybe",
        ] {
            assert!(security_opt(&mut s.clone(), bad).is_err(), "{bad}");
        }
    }
}
