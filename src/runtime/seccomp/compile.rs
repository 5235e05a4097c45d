//! From a profile to BPF, through libseccomp.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::str::FromStr;

use anyhow::Context;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator,
};

use super::Filter;
use crate::error::{Result, failed};

/// System calls younger than the libseccomp of stable distributions (2.5.4: Linux 5.17). From 424 on
/// a number is the same on all architectures.
const YOUNG: [(&str, i32); 20] = [
    ("process_mrelease", 448),
    ("futex_waitv", 449),
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
    ("listns", 470),
];

/// One rule for one call.
#[derive(Debug, Clone)]
struct Rule {
    action: ScmpAction,
    /// All must hold.
    args: Vec<ScmpArgCompare>,
}

/// This machine's architecture.
pub(super) fn native() -> Arch {
    match std::env::consts::ARCH {
        "x86_64" => Arch::ScmpArchX86_64,
        "aarch64" => Arch::ScmpArchAarch64,
        "x86" => Arch::ScmpArchX86,
        "arm" => Arch::ScmpArchArm,
        "riscv64" => Arch::ScmpArchRiscv64,
        "s390x" => Arch::ScmpArchS390x,
        "powerpc64" => Arch::ScmpArchPpc64le,
        _ => Arch::ScmpArchNative,
    }
}

/// The profile's flags for seccomp(2).
pub(super) fn flags(profile: Option<&LinuxSeccomp>) -> libc::c_ulong {
    let flags = profile.and_then(|p| p.flags().as_ref());
    flags.into_iter().flatten().fold(0, |all, flag| {
        all | match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
            }
            // One thread has nobody to synchronise; the other is for listeners, which choose themselves.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync
            | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        }
    })
}

/// Compiles a profile: its own filter, then one of denials if calls are both allowed and denied.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Vec<Filter>> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut calls: BTreeMap<i32, Vec<Rule>> = BTreeMap::new();
    for syscall in profile.syscalls().iter().flatten() {
        let act = action(syscall.action(), syscall.errno_ret())?;
        let args = syscall.args().as_deref().unwrap_or_default();
        for name in syscall.names() {
            let Some(number) = number(name) else {
                if denies(act) && !denies(default) {
                    return Err(failed(format!(
                        "seccomp profile: `{name}` is to be denied, and libseccomp does not know it"
                    ))
                    .into());
                }
                continue;
            };
            let rules = calls.entry(number).or_default();
            rules.extend(
                conditions(args)?
                    .into_iter()
                    .map(|args| Rule { action: act, args }),
            );
        }
    }
    let mut own = Vec::new();
    let mut over = Vec::new();
    for (number, rules) in calls {
        let mixed =
            rules.iter().any(|r| denies(r.action)) && rules.iter().any(|r| !denies(r.action));
        for rule in rules {
            let list = if mixed && denies(rule.action) {
                &mut over
            } else {
                &mut own
            };
            list.push((number, rule));
        }
    }
    let architectures = architectures(profile)?;
    let listener = default == ScmpAction::Notify
        || own
            .iter()
            .any(|(_, rule)| rule.action == ScmpAction::Notify);
    let unknown = if denies(default) {
        // x32 and whatever else is not listed: as if the kernel did not have it.
        ScmpAction::Errno(libc::ENOSYS)
    } else {
        default
    };
    let mut filters = vec![Filter {
        bpf: build(default, unknown, &architectures, &own)?,
        listener,
    }];
    if !over.is_empty() {
        filters.push(Filter {
            bpf: build(ScmpAction::Allow, ScmpAction::Allow, &architectures, &over)?,
            listener: false,
        });
    }
    Ok(filters)
}

/// A filter that notifies of `names` and of prctl(`PR_SET_KEEPCAPS`), called by this machine's own ABI, and allows all else.
pub(super) fn notify(names: &[&str]) -> Result<Filter> {
    let rule = Rule {
        action: ScmpAction::Notify,
        args: vec![],
    };
    let keep_caps = Rule {
        action: ScmpAction::Notify,
        args: vec![ScmpArgCompare::new(
            0,
            ScmpCompareOp::MaskedEqual(0xffff_ffff),
            libc::PR_SET_KEEPCAPS as u64,
        )],
    };
    let rules: Vec<_> = names
        .iter()
        .map(|name| (*name, &rule))
        .chain([("prctl", &keep_caps)])
        .filter_map(|(name, rule)| Some((number(name).filter(|n| *n >= 0)?, rule.clone())))
        .collect();
    let architectures = [ScmpArch::native()];
    Ok(Filter {
        bpf: build(ScmpAction::Allow, ScmpAction::Allow, &architectures, &rules)?,
        listener: true,
    })
}

/// Whether the call does not happen.
fn denies(action: ScmpAction) -> bool {
    matches!(
        action,
        ScmpAction::KillProcess | ScmpAction::KillThread | ScmpAction::Trap | ScmpAction::Errno(_)
    )
}

/// libseccomp's action.
fn action(action: LinuxSeccompAction, value: Option<u32>) -> Result<ScmpAction> {
    let value = value.unwrap_or(libc::EPERM as u32);
    let small = u16::try_from(value)
        .map_err(|_| failed(format!("seccomp profile: {value} is not an error number")))?;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            ScmpAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(small.into()),
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(small),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    })
}

/// The number of a call: this machine's, or libseccomp's stand-in for one of another ABI.
fn number(name: &str) -> Option<i32> {
    if let Ok(syscall) = ScmpSyscall::from_name(name) {
        return Some(syscall.as_raw_syscall());
    }
    if name == "uretprobe" && cfg!(target_arch = "x86_64") {
        return Some(335);
    }
    YOUNG.iter().find(|(n, _)| *n == name).map(|(_, nr)| *nr)
}

/// Whether the name means a call on any machine.
#[cfg(test)]
pub(super) fn knows(name: &str) -> bool {
    // 2.5.4 does not have RISC-V's newest.
    number(name).is_some() || name == "riscv_hwprobe"
}

/// The alternatives of a rule's arguments. All of a list must hold; but where one argument is named
/// twice each condition is a rule of its own, as docker and runc have it.
fn conditions(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<ScmpArgCompare>>> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    let mut twice = false;
    for arg in args {
        let index = u32::try_from(arg.index()).ok().filter(|i| *i < 6);
        let index = index.ok_or_else(|| {
            failed(format!(
                "seccomp profile: there is no argument {}",
                arg.index()
            ))
        })?;
        twice |= !seen.insert(index);
        let value = arg.value();
        let (op, value) = match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
            LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, value),
            LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
            LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, value),
            LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
            LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, value),
            LinuxSeccompOperator::ScmpCmpMaskedEq => (
                ScmpCompareOp::MaskedEqual(value),
                arg.value_two().unwrap_or(0),
            ),
        };
        all.push(ScmpArgCompare::new(index, op, value));
    }
    Ok(if twice {
        all.into_iter().map(|c| vec![c]).collect()
    } else {
        vec![all]
    })
}

/// The profile's architectures; this machine's own if it names none.
fn architectures(profile: &LinuxSeccomp) -> Result<Vec<ScmpArch>> {
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for arch in listed {
        let name = arch.to_string();
        let arch = match name.as_str() {
            "SCMP_ARCH_NATIVE" => ScmpArch::native(),
            name => ScmpArch::from_str(name)
                .with_context(|| format!("seccomp profile: architecture {name}"))?,
        };
        if !found.contains(&arch) {
            found.push(arch);
        }
    }
    if found.is_empty() {
        found.push(ScmpArch::native());
    }
    Ok(found)
}

/// Builds one filter; `unknown` is for architectures that are not listed.
fn build(
    default: ScmpAction,
    unknown: ScmpAction,
    architectures: &[ScmpArch],
    rules: &[(i32, Rule)],
) -> Result<Vec<u8>> {
    let mut whole: Option<ScmpFilterContext> = None;
    for arch in architectures {
        let one = build_for(*arch, default, unknown, rules)
            .with_context(|| format!("compiling the seccomp profile for {arch:?}"))?;
        match &mut whole {
            Some(whole) => {
                whole
                    .merge(one)
                    .context("merging the seccomp filters of two architectures")?;
            }
            None => whole = Some(one),
        }
    }
    let filter = whole.ok_or_else(|| failed("seccomp profile: no architecture"))?;
    let mut file =
        File::from(memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC).context("memfd_create")?);
    filter
        .export_bpf(&file)
        .context("compiling the seccomp filter")?;
    let mut bpf = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bpf))
        .context("reading the compiled seccomp filter")?;
    Ok(bpf)
}

/// The filter of one architecture.
fn build_for(
    arch: ScmpArch,
    default: ScmpAction,
    unknown: ScmpAction,
    rules: &[(i32, Rule)],
) -> Result<ScmpFilterContext> {
    let mut filter = ScmpFilterContext::new(default)?;
    filter.set_act_badarch(unknown)?;
    let native = arch == ScmpArch::native();
    if !native {
        filter.add_arch(arch)?;
        filter.remove_arch(ScmpArch::native())?;
    }
    // A binary tree instead of a list of comparisons; older libraries do not have it.
    let _ = filter.set_ctl_optimize(2);
    for (number, rule) in rules {
        // libseccomp refuses rules that say what is said already, and cannot translate what it has no name
        // for: on other ABIs such a call stays at the default.
        let syscall = ScmpSyscall::from_raw_syscall(*number);
        if rule.action == default || (!native && syscall.get_name().is_err()) {
            continue;
        }
        filter
            .add_rule_conditional(rule.action, syscall, &rule.args)
            .with_context(|| format!("adding a rule for call {number}"))?;
    }
    Ok(filter)
}
