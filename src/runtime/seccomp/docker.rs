//! Profile files: docker's and podman's JSON, of which the OCI object is a subset.
//!
//! `includes` and `excludes` (capabilities, architectures, kernel version) are decided here, `archMap`
//! becomes the architectures of this machine.

use std::str::FromStr;

use anyhow::Context;
use oci_spec::runtime::{Arch, Capabilities, Capability, LinuxSeccomp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::compile::native;
use crate::error::{Result, usage};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: Value,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<ArchMap>>,
    flags: Option<Value>,
    listener_path: Option<Value>,
    listener_metadata: Option<Value>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    name: Option<String>,
    action: Value,
    errno_ret: Option<u32>,
    args: Option<Vec<Map<String, Value>>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What filters are decided by.
struct Machine<'a> {
    caps: &'a Capabilities,
    arch: &'static str,
    kernel: (u32, u32),
}

/// A profile file (docker's and podman's format, or the OCI spec's object) for a container whose
/// bounding set is `caps`.
///
/// # Errors
/// What in it is malformed.
pub fn parse_profile(json: &[u8], caps: &Capabilities) -> Result<LinuxSeccomp> {
    let file: File = serde_json::from_slice(json).context("reading the seccomp profile")?;
    let machine = Machine {
        caps,
        // Go's names, as these files use them.
        arch: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        },
        kernel: kernel(),
    };
    translate(file, &machine)
}

fn translate(file: File, machine: &Machine<'_>) -> Result<LinuxSeccomp> {
    let mut rules = Vec::new();
    for rule in file.syscalls.into_iter().flatten() {
        if !applies(&rule, machine)? {
            continue;
        }
        let mut names = rule.names;
        names.extend(rule.name);
        let args = rule.args.unwrap_or_default();
        // OCI calls for fields that files leave out when they are zero.
        let args: Vec<Value> = args
            .into_iter()
            .map(|mut arg| {
                for field in ["index", "value"] {
                    arg.entry(field).or_insert(json!(0));
                }
                Value::Object(arg)
            })
            .collect();
        let mut out = json!({"names": names, "action": rule.action, "args": args});
        if let Some(errno) = rule.errno_ret {
            out["errnoRet"] = json!(errno);
        }
        rules.push(out);
    }
    let mut out = json!({"defaultAction": file.default_action, "syscalls": rules});
    let architectures = file.architectures.or_else(|| {
        let map = file.arch_map?;
        let ours = map.into_iter().find(|m| m.architecture == native())?;
        let mut list = vec![ours.architecture];
        list.extend(ours.sub_architectures.into_iter().flatten());
        Some(list)
    });
    for (key, value) in [
        ("defaultErrnoRet", file.default_errno_ret.map(Value::from)),
        ("architectures", architectures.map(|a| json!(a))),
        ("flags", file.flags),
        ("listenerPath", file.listener_path),
        ("listenerMetadata", file.listener_metadata),
    ] {
        if let Some(value) = value {
            out[key] = value;
        }
    }
    serde_json::from_value(out).context("reading the seccomp profile")
}

/// Whether the rule is for this container on this machine.
fn applies(rule: &Rule, machine: &Machine<'_>) -> Result<bool> {
    let has = |name: &String| {
        Capability::from_str(name.trim_start_matches("CAP_"))
            .is_ok_and(|cap| machine.caps.contains(&cap))
    };
    if let Some(includes) = &rule.includes {
        let arches = includes.arches.iter().flatten();
        if arches.clone().next().is_some() && !arches.clone().any(|a| a == machine.arch) {
            return Ok(false);
        }
        if !includes.caps.iter().flatten().all(has) {
            return Ok(false);
        }
        if let Some(version) = &includes.min_kernel
            && machine.kernel < parse_kernel(version)?
        {
            return Ok(false);
        }
    }
    if let Some(excludes) = &rule.excludes {
        if excludes.arches.iter().flatten().any(|a| a == machine.arch)
            || excludes.caps.iter().flatten().any(has)
        {
            return Ok(false);
        }
        if let Some(version) = &excludes.min_kernel
            && machine.kernel >= parse_kernel(version)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `major.minor`, whatever follows.
fn parse_kernel(text: &str) -> Result<(u32, u32)> {
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(usage(format!("seccomp profile: `{text}` is not a kernel version")).into()),
    }
}

/// This kernel's version.
fn kernel() -> (u32, u32) {
    nix::sys::utsname::uname()
        .ok()
        .and_then(|u| parse_kernel(u.release().to_str()?).ok())
        .unwrap_or((5, 14))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
            {"name": "ptrace", "action": "SCMP_ACT_ALLOW", "args": null, "includes": {"minKernel": "4.8"}},
            {"names": ["never"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "999.1"}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["sync_file_range2"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["ppc64le"]}},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}
        ]}"#;

    fn names(profile: &LinuxSeccomp) -> Vec<(String, String)> {
        let rules = profile.syscalls().iter().flatten();
        rules
            .flat_map(|r| {
                r.names()
                    .iter()
                    .map(|n| (n.clone(), r.action().to_string()))
            })
            .collect()
    }

    #[test]
    fn conditions_are_decided_for_this_container() {
        let pair = |n: &str, a: &str| (n.to_owned(), format!("SCMP_ACT_{a}"));
        let none = parse_profile(FILE.as_bytes(), &Capabilities::default()).unwrap();
        assert_eq!(
            names(&none),
            [
                pair("read", "ALLOW"),
                pair("write", "ALLOW"),
                pair("ptrace", "ALLOW"),
                pair("mount", "ERRNO"),
                pair("socket", "ALLOW")
            ]
        );
        assert_eq!(none.default_errno_ret(), Some(38));
        assert!(none.architectures().as_ref().unwrap().contains(&native()));
        let admin = Capabilities::from([Capability::SysAdmin]);
        let admin = parse_profile(FILE.as_bytes(), &admin).unwrap();
        assert!(names(&admin).contains(&pair("mount", "ALLOW")));
        assert!(!names(&admin).contains(&pair("mount", "ERRNO")));
    }

    #[test]
    fn an_oci_object_is_read_as_it_is() {
        let profile = super::super::default_profile(&Capabilities::default());
        let json = serde_json::to_vec(&profile).unwrap();
        let again = parse_profile(&json, &Capabilities::default()).unwrap();
        assert_eq!(names(&again), names(&profile));
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in ["", "[]", "{}", r#"{"defaultAction": "NO"}"#] {
            assert!(
                parse_profile(text.as_bytes(), &Capabilities::default()).is_err(),
                "{text}"
            );
        }
    }
}
