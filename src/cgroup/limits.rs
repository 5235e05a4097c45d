//! Resource limits: from the runtime-spec to what the files of cgroup v2 take. Pure.

use std::fmt;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

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
pub struct Limits {
    /// `memory.max`, bytes.
    pub memory: Option<Bound>,
    /// `memory.swap.max`, bytes of swap alone (docker's value counts memory and swap together).
    pub swap: Option<Bound>,
    /// `memory.low`, bytes.
    pub memory_low: Option<u64>,
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
            limits.memory = memory.limit().filter(|n| *n != 0).map(bound);
            limits.swap = swap(memory.limit(), memory.swap())?;
            limits.memory_low = memory
                .reservation()
                .and_then(|n| u64::try_from(n).ok())
                .filter(|n| *n != 0);
        }
        if let Some(cpu) = resources.cpu() {
            let period = cpu.period().filter(|p| *p != 0).unwrap_or(CPU_PERIOD);
            if !(1_000..=1_000_000).contains(&period) {
                return Err(usage(format!(
                    "CPU period {period}: the kernel takes 1000 to 1000000 microseconds"
                ))
                .into());
            }
            limits.cpu = match cpu.quota() {
                None | Some(0) => None,
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
        let memory = matches!(self.memory, Some(Bound::At(_)))
            || matches!(self.swap, Some(Bound::At(_)))
            || self.memory_low.is_some();
        let cpu = matches!(self.cpu, Some((Bound::At(_), _))) || self.cpu_weight.is_some();
        [
            ("cpuset", self.cpus.is_some() || self.mems.is_some()),
            ("cpu", cpu),
            ("memory", memory),
            ("pids", matches!(self.pids, Some(Bound::At(_)))),
        ]
        .into_iter()
        .filter_map(|(name, needed)| needed.then_some(name))
        .collect()
    }

    /// File names and values, in the order to write them.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        let mut push = |name, value: Option<String>| files.extend(value.map(|v| (name, v)));
        push("cpuset.cpus", self.cpus.clone());
        push("cpuset.mems", self.mems.clone());
        push(
            "cpu.max",
            self.cpu.map(|(quota, period)| format!("{quota} {period}")),
        );
        push("cpu.weight", self.cpu_weight.map(|w| w.to_string()));
        push("memory.low", self.memory_low.map(|n| n.to_string()));
        push("memory.swap.max", self.swap.map(|b| b.to_string()));
        push("memory.max", self.memory.map(|b| b.to_string()));
        push("pids.max", self.pids.map(|b| b.to_string()));
        files
    }
}

/// A limit is applied or refused: those that nothing here applies are refused. Devices are not
/// among them (the runtime binds only those that are allowed), nor what cgroup v2 has no notion of
/// and other runtimes skip too (kernel memory, swappiness).
fn refuse_unknown(resources: &LinuxResources) -> Result<()> {
    let cpu = resources.cpu().as_ref();
    let unknown = [
        ("blockIO", resources.block_io().is_some()),
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
            "unified",
            resources.unified().as_ref().is_some_and(|u| !u.is_empty()),
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
fn swap(memory: Option<i64>, swap: Option<i64>) -> Result<Option<Bound>> {
    let memory = memory.filter(|n| *n > 0);
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
        (None, None) => Ok(None),
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
        assert_eq!(
            limits.files(),
            [
                ("cpu.max", "50000 100000".to_owned()),
                ("pids.max", "20".to_owned())
            ]
        );
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

    #[test]
    fn limits_that_nothing_applies_are_refused() {
        let unified = [("memory.high".to_owned(), "1".to_owned())]
            .into_iter()
            .collect::<std::collections::HashMap<_, _>>();
        let resources = LinuxResourcesBuilder::default()
            .unified(unified)
            .build()
            .expect("resources");
        let error = Limits::from_resources(&resources).expect_err("unified");
        assert!(error.to_string().contains("`unified`"), "{error}");
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
