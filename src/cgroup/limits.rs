//! Resource limits: from the runtime-spec to what the files of cgroup v2 take. Pure.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::io::Io;
use crate::error::{Result, usage};

/// A byte or process limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bound {
    /// No limit (`max`).
    Max,
    /// At most this many.
    At(u64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Max => f.write_str("max"),
            Bound::At(n) => n.fmt(f),
        }
    }
}

/// Limits of one container in cgroup v2's terms; `None` is "not asked for".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// `memory.max`, bytes.
    pub memory: Option<Bound>,
    /// `memory.swap.max`, bytes of swap alone (docker's value counts memory and swap together).
    pub swap: Option<Bound>,
    /// `memory.low`, bytes.
    pub memory_low: Option<u64>,
    /// `memory.high`, bytes: reclaimed from and slowed beyond it, not killed.
    pub memory_high: Option<Bound>,
    /// `cpu.max`: microseconds of CPU per period of microseconds.
    pub cpu: Option<(Bound, u64)>,
    /// `cpu.weight`, 1 to 10000.
    pub cpu_weight: Option<u64>,
    /// `cpuset.cpus`.
    pub cpus: Option<String>,
    /// `cpuset.mems`.
    pub mems: Option<String>,
    /// `pids.max`.
    pub pids: Option<Bound>,
    /// `io.max` and weights.
    pub io: Io,
    /// Files of the container's cgroup and what to write there, as given.
    pub conf: BTreeMap<String, String>,
}

/// Default period of `cpu.max`, microseconds.
pub const CPU_PERIOD: u64 = 100_000;

impl Limits {
    /// Reads the limits of a runtime-spec. Swap follows docker: `swap` is memory and swap together,
    /// -1 is no limit, equal to `limit` is no swap, and unset is as much swap as memory.
    ///
    /// # Errors
    /// A usage fault for values that contradict each other or that cgroup v2 cannot express.
    pub fn from_resources(resources: &LinuxResources) -> Result<Limits> {
        refuse_unknown(resources)?;
        let mut limits = Limits::default();
        if let Some(memory) = resources.memory() {
            limits.memory = memory.limit().map(|n| match n {
                0 => Bound::Max,
                n => bound(n),
            });
            limits.swap = swap(memory.limit(), memory.swap())?;
            limits.memory_low = memory.reservation().and_then(|n| u64::try_from(n).ok());
        }
        if let Some(cpu) = resources.cpu() {
            let period = cpu.period().filter(|p| *p != 0).unwrap_or(CPU_PERIOD);
            if !(1_000..=1_000_000).contains(&period) {
                return Err(usage(format!(
                    "CPU period {period}: the kernel takes 1000 to 1000000 microseconds"
                ))
                .into());
            }
            let own_period = cpu.period().is_some_and(|p| p != 0);
            limits.cpu = match cpu.quota() {
                None | Some(0) => own_period.then_some((Bound::Max, period)),
                Some(quota) => match bound(quota) {
                    Bound::At(quota) if quota < 1_000 => {
                        return Err(usage(format!(
                            "CPU quota {quota}: the least the kernel takes is 1000 microseconds (--cpus 0.01)"
                        ))
                        .into());
                    }
                    quota => Some((quota, period)),
                },
            };
            limits.cpu_weight = cpu.shares().filter(|s| *s != 0).map(weight);
            limits.cpus = cpu.cpus().clone().filter(|s| !s.is_empty());
            limits.mems = cpu.mems().clone().filter(|s| !s.is_empty());
        }
        if let Some(pids) = resources.pids() {
            let limit = pids.limit();
            // The spec's zero is "no limit" in practice: docker and podman both write it for that.
            limits.pids = Some(if limit == 0 { Bound::Max } else { bound(limit) });
        }
        if let Some(block) = resources.block_io() {
            limits.io = Io::from_spec(block)?;
        }
        for (file, value) in resources.unified().iter().flatten() {
            controller_of(file)?;
            limits.conf.insert(file.clone(), value.clone());
        }
        // One of its own here: read back, and with a value for none.
        if let Some(text) = limits.conf.remove("memory.high") {
            let high = text.trim().parse().map(Bound::At);
            match high {
                Ok(high) => limits.memory_high = Some(high),
                Err(_) if text.trim() == "max" => limits.memory_high = Some(Bound::Max),
                // As 64M: the kernel reads it.
                Err(_) => drop(limits.conf.insert("memory.high".to_owned(), text)),
            }
        }
        Ok(limits)
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// Whether anything is asked for that would hold something back; `pids.max = max` does not.
    #[must_use]
    pub fn binds(&self) -> bool {
        !self.controllers().is_empty()
    }

    /// Controllers these limits need, in the kernel's order; a limit of "none" needs no controller.
    #[must_use]
    pub fn controllers(&self) -> Vec<&'static str> {
        let at = |bound: Option<Bound>| matches!(bound, Some(Bound::At(_)));
        let memory = at(self.memory)
            || at(self.swap)
            || at(self.memory_high)
            || self.memory_low.is_some_and(|n| n != 0);
        let cpu = matches!(self.cpu, Some((Bound::At(_), _))) || self.cpu_weight.is_some();
        let conf = |name: &str| {
            self.conf
                .keys()
                .any(|key| controller_of(key).ok() == Some(name))
        };
        [
            ("cpuset", self.cpus.is_some() || self.mems.is_some()),
            ("cpu", cpu),
            ("io", self.io.throttles() || self.io.weighs()),
            ("memory", memory),
            ("pids", at(self.pids)),
            ("hugetlb", false),
            ("rdma", false),
            ("misc", false),
        ]
        .into_iter()
        .filter_map(|(name, needed)| (needed || conf(name)).then_some(name))
        .collect()
    }

    /// What to write, in this order; weights of block I/O are apart ([`Io::weights`]), and so is what was given in the
    /// kernel's words ([`Limits::given`]).
    #[must_use]
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        let mut push = |file: &str, value: Option<String>| {
            all.extend(value.map(|value| Setting {
                file: file.to_owned(),
                value,
                verbatim: false,
            }));
        };
        push("cpuset.cpus", self.cpus.clone());
        push("cpuset.mems", self.mems.clone());
        push(
            "cpu.max",
            self.cpu.map(|(quota, period)| format!("{quota} {period}")),
        );
        push("cpu.weight", self.cpu_weight.map(|w| w.to_string()));
        for line in self.io.max_lines() {
            push("io.max", Some(line));
        }
        push("memory.low", self.memory_low.map(|n| n.to_string()));
        push("memory.high", self.memory_high.map(|b| b.to_string()));
        push("memory.swap.max", self.swap.map(|b| b.to_string()));
        push("memory.max", self.memory.map(|b| b.to_string()));
        push("pids.max", self.pids.map(|b| b.to_string()));
        all
    }

    /// What was given in the kernel's words: written after everything else, so that of two it is the one that holds, as
    /// runc and crun have it.
    pub(crate) fn given(&self) -> impl Iterator<Item = Setting> + '_ {
        self.conf.iter().map(|(file, value)| Setting {
            file: file.clone(),
            value: value.clone(),
            verbatim: true,
        })
    }
}

/// One write to a file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) file: String,
    pub(crate) value: String,
    /// Given by the user in the kernel's words: not compared with what the file shows then.
    pub(crate) verbatim: bool,
}

impl Setting {
    /// Whether it is set on the scope, and again on the leaf: what binds the server of the container's files as
    /// well, and what protects (a cgroup is protected as far as its parent is).
    pub(crate) fn is_for_both(&self) -> bool {
        let protects = ["memory.low", "memory.min"].contains(&self.file.as_str());
        protects || self.file.starts_with("cpu.") || self.file.starts_with("io.")
    }

    /// Whether it asks for nothing to be held back: where the file is not there, so it is.
    pub(crate) fn is_none(&self) -> bool {
        let io = self.file == "io.max";
        match self.value.as_str() {
            "max" => true,
            "0" => self.file == "memory.low",
            value if io => value.split(' ').skip(1).all(|word| word.ends_with("=max")),
            value => self.file == "cpu.max" && value.starts_with("max "),
        }
    }
}

/// The controller whose file this is.
fn controller_of(file: &str) -> Result<&'static str> {
    let known = [
        "cpuset", "cpu", "io", "memory", "pids", "hugetlb", "rdma", "misc",
    ];
    let name = file.split_once('.').map(|(name, _)| name);
    let found = known.into_iter().find(|k| Some(*k) == name);
    found.filter(|_| !file.contains('/')).ok_or_else(|| {
        usage(format!("{file:?} is no limit of a control group"))
            .hint("--cgroup-conf takes a file of cgroup v2 and its value, as in memory.high=1073741824")
            .into()
    })
}

/// A limit is applied or refused: those that nothing here applies are refused. Devices are not
/// among them (the runtime binds only those that are allowed), nor what cgroup v2 has no notion of
/// and other runtimes skip too (kernel memory, swappiness).
fn refuse_unknown(resources: &LinuxResources) -> Result<()> {
    let cpu = resources.cpu().as_ref();
    let unknown = [
        (
            "hugepageLimits",
            resources
                .hugepage_limits()
                .as_ref()
                .is_some_and(|l| !l.is_empty()),
        ),
        ("network", resources.network().is_some()),
        (
            "rdma",
            resources.rdma().as_ref().is_some_and(|r| !r.is_empty()),
        ),
        (
            "cpu.realtimeRuntime",
            cpu.is_some_and(|c| c.realtime_runtime().is_some_and(|n| n != 0)),
        ),
        (
            "cpu.realtimePeriod",
            cpu.is_some_and(|c| c.realtime_period().is_some_and(|n| n != 0)),
        ),
        (
            "cpu.idle",
            cpu.is_some_and(|c| c.idle().is_some_and(|n| n != 0)),
        ),
        (
            "cpu.burst",
            cpu.is_some_and(|c| c.burst().is_some_and(|n| n != 0)),
        ),
    ];
    match unknown.iter().find(|(_, asked)| *asked) {
        Some((name, _)) => Err(usage(format!("resource limit `{name}` is not supported")).into()),
        None => Ok(()),
    }
}

/// Negative numbers are the spec's "no limit".
fn bound(n: i64) -> Bound {
    u64::try_from(n).map_or(Bound::Max, Bound::At)
}

/// `memory.swap.max` from docker's pair of values.
fn swap(limit: Option<i64>, swap: Option<i64>) -> Result<Option<Bound>> {
    let memory = limit.filter(|n| *n > 0);
    match (memory, swap.filter(|n| *n != 0)) {
        (_, Some(n)) if n < 0 => Ok(Some(Bound::Max)),
        (Some(memory), Some(both)) if both < memory => Err(usage(format!(
            "memory and swap together ({both}) must not be less than memory alone ({memory})"
        ))
        .hint("--memory-swap counts memory and swap; equal to --memory it means no swap")
        .into()),
        (Some(memory), Some(both)) => Ok(Some(bound(both - memory))),
        (Some(memory), None) => Ok(Some(bound(memory))),
        (None, Some(_)) => Err(usage("a limit on swap needs a limit on memory")
            .hint("add --memory: --memory-swap counts memory and swap together")
            .into()),
        (None, None) => Ok(limit.map(|_| Bound::Max)),
    }
}

/// cgroup v1 shares (2 to 262144, 1024 the default) as a v2 weight (1 to 10000, 100 the default),
/// by the formula that runc and crun use since 2025: 2, 1024 and 262144 become 1, 100 and 10000.
fn weight(shares: u64) -> u64 {
    let l = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    // Between 1 and 10000 by construction.
    10f64.powf(exponent).ceil().clamp(1.0, 10_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{
        LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder,
    };

    fn memory(limit: Option<i64>, swap: Option<i64>) -> Result<Limits> {
        let mut builder = LinuxMemoryBuilder::default();
        if let Some(limit) = limit {
            builder = builder.limit(limit);
        }
        if let Some(swap) = swap {
            builder = builder.swap(swap);
        }
        let memory = builder.build().expect("memory");
        Limits::from_resources(
            &LinuxResourcesBuilder::default()
                .memory(memory)
                .build()
                .expect("resources"),
        )
    }

    #[test]
    fn swap_follows_docker() {
        let swap = |limit, swap| memory(limit, swap).expect("limits").swap;
        assert_eq!(swap(Some(64), Some(100)), Some(Bound::At(36)));
        assert_eq!(swap(Some(64), Some(64)), Some(Bound::At(0)));
        assert_eq!(swap(Some(64), None), Some(Bound::At(64)));
        assert_eq!(swap(Some(64), Some(-1)), Some(Bound::Max));
        assert_eq!(swap(None, None), None);
        assert!(memory(Some(64), Some(32)).is_err());
        assert!(memory(None, Some(32)).is_err());
    }

    #[test]
    fn shares_keep_their_default_and_their_ends() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
        assert_eq!([0, u64::MAX].map(weight), [1, 10_000]);
        assert!(weight(512) < 100 && weight(2048) > 100);
    }

    #[test]
    fn half_a_cpu_is_half_a_period() {
        let cpu = LinuxCpuBuilder::default()
            .quota(50_000i64)
            .period(100_000u64)
            .build()
            .expect("cpu");
        let pids = LinuxPidsBuilder::default()
            .limit(20i64)
            .build()
            .expect("pids");
        let resources = LinuxResourcesBuilder::default()
            .cpu(cpu)
            .pids(pids)
            .build()
            .expect("resources");
        let limits = Limits::from_resources(&resources).expect("limits");
        let settings = limits.settings();
        let files: Vec<(&str, &str)> = settings
            .iter()
            .map(|s| (s.file.as_str(), s.value.as_str()))
            .collect();
        assert_eq!(files, [("cpu.max", "50000 100000"), ("pids.max", "20")]);
        assert_eq!(limits.controllers(), ["cpu", "pids"]);
    }

    #[test]
    fn no_limit_needs_no_controller() {
        let pids = LinuxPidsBuilder::default()
            .limit(-1i64)
            .build()
            .expect("pids");
        let resources = LinuxResourcesBuilder::default()
            .pids(pids)
            .build()
            .expect("resources");
        let limits = Limits::from_resources(&resources).expect("limits");
        assert_eq!(limits.pids, Some(Bound::Max));
        assert!(!limits.binds());
    }

    fn unified(file: &str, value: &str) -> Result<Limits> {
        let unified = [(file.to_owned(), value.to_owned())];
        let unified = unified
            .into_iter()
            .collect::<std::collections::HashMap<_, _>>();
        let builder = LinuxResourcesBuilder::default().unified(unified);
        Limits::from_resources(&builder.build().expect("resources"))
    }

    #[test]
    fn files_of_the_kernel_are_taken_as_they_are() {
        let limits = unified("misc.max", "res_a 1").expect("misc");
        assert_eq!(limits.controllers(), ["misc"]);
        assert!(limits.settings().is_empty() && limits.given().all(|s| s.verbatim));
        let high = unified("memory.high", "4096").expect("high");
        assert_eq!(high.memory_high, Some(Bound::At(4096)));
        assert!(high.conf.is_empty());
        let high = unified("memory.high", "64M").expect("high");
        assert_eq!(high.conf["memory.high"], "64M");
        assert_eq!(high.controllers(), ["memory"]);
    }

    #[test]
    fn no_limit_is_written_too_and_may_have_no_file() {
        let limits = memory(Some(0), None).expect("limits");
        assert_eq!(
            (limits.memory, limits.swap),
            (Some(Bound::Max), Some(Bound::Max))
        );
        assert!(!limits.binds() && limits.settings().iter().all(Setting::is_none));
    }

    #[test]
    fn limits_that_nothing_applies_are_refused() {
        for file in [
            "cgroup.procs",
            "memory.high/../x",
            "devices.allow",
            "memory",
        ] {
            let error = unified(file, "1").expect_err(file);
            assert!(error.to_string().contains(file), "{error}");
        }
        let cpu = LinuxCpuBuilder::default().idle(1i64).build().expect("cpu");
        let resources = LinuxResourcesBuilder::default()
            .cpu(cpu)
            .build()
            .expect("resources");
        assert!(Limits::from_resources(&resources).is_err());
    }

    #[test]
    fn quotas_the_kernel_refuses_are_refused_before() {
        let limits = |quota: i64, period: u64| {
            let cpu = LinuxCpuBuilder::default()
                .quota(quota)
                .period(period)
                .build()
                .expect("cpu");
            Limits::from_resources(
                &LinuxResourcesBuilder::default()
                    .cpu(cpu)
                    .build()
                    .expect("resources"),
            )
        };
        assert!(limits(999, 100_000).is_err());
        assert!(limits(1000, 10).is_err());
        assert_eq!(
            limits(-1, 0).expect("no limit").cpu,
            Some((Bound::Max, CPU_PERIOD))
        );
    }
}
