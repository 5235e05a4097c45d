//! Limits of the control group, from what was asked for to the runtime-spec's resources.
//!
//! Disks are asked for by name and limited by number: the name is looked up at each start, since numbers are given
//! anew at each boot.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::Context as _;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};

use super::request::{Blkio, Limits, Memory};
use crate::error::{Result, ResultExt as _, failed, usage};

/// Period of `--cpus`, microseconds.
const PERIOD: u64 = 100_000;

/// The limits as the spec has them; only what was asked for.
///
/// # Errors
/// A disk that is not there, or is none.
pub fn resources(limits: &Limits) -> Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    if limits.memory != Memory::default() {
        let mut memory = LinuxMemory::default();
        memory.set_limit(limits.memory.limit);
        memory.set_swap(limits.memory.swap);
        memory.set_reservation(limits.memory.reservation);
        resources.set_memory(Some(memory));
    }
    resources.set_cpu(cpu(limits));
    if let Some(limit) = limits.pids {
        let mut pids = LinuxPids::default();
        pids.set_limit(if limit == 0 { -1 } else { limit });
        resources.set_pids(Some(pids));
    }
    if limits.blkio != Blkio::default() {
        resources.set_block_io(Some(block_io(&limits.blkio)?));
    }
    // The spec has no field for it.
    let high = limits.memory.high.map(|n| match n {
        1.. => n.to_string(),
        _ => "max".to_owned(),
    });
    let high = high.map(|value| ("memory.high".to_owned(), value));
    let conf = limits.conf.clone().into_iter();
    let unified: HashMap<String, String> = high.into_iter().chain(conf).collect();
    resources.set_unified((!unified.is_empty()).then_some(unified));
    Ok(resources)
}

/// Memory limits that cannot be meant are refused, as docker does.
///
/// # Errors
/// One of them, or that one is missing.
pub fn check_memory(memory: &Memory) -> Result<()> {
    let (limit, swap) = (memory.limit.unwrap_or(0), memory.swap.unwrap_or(0));
    if limit > 0 && limit < 6 << 20 {
        return Err(usage("--memory: the least is 6 MiB").into());
    }
    let others = [memory.reservation, memory.high];
    if limit < 0 || others.iter().flatten().any(|n| *n < 0) {
        return Err(
            usage("only --memory-swap can be -1: a limit cannot be negative")
                .hint("0 is no limit")
                .into(),
        );
    }
    if swap > 0 && limit == 0 {
        return Err(
            usage("--memory-swap is for memory and swap together: give --memory too").into(),
        );
    }
    if swap > 0 && swap < limit {
        return Err(usage(
            "--memory-swap is for memory and swap together: it cannot be below --memory",
        )
        .into());
    }
    Ok(())
}

/// So many CPUs as microseconds in a period; -1 for none of a limit.
#[must_use]
pub(super) fn quota(cpus: f64) -> Option<(i64, u64)> {
    // Checked when it was read: 0, or from 0.01 to ten thousand.
    #[allow(clippy::cast_possible_truncation)]
    let quota = (cpus * 100_000.0).round() as i64;
    (quota >= 0).then_some((if quota == 0 { -1 } else { quota }, PERIOD))
}

fn cpu(limits: &Limits) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    if let Some((quota, period)) = limits.cpus.and_then(quota) {
        cpu.set_period(Some(period));
        cpu.set_quota(Some(quota));
    } else {
        cpu.set_period(limits.cpu_period.filter(|n| *n > 0));
        cpu.set_quota(limits.cpu_quota.map(|n| if n == 0 { -1 } else { n }));
    }
    cpu.set_shares(limits.cpu_shares);
    cpu.set_cpus(limits.cpuset_cpus.clone());
    cpu.set_mems(limits.cpuset_mems.clone());
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn block_io(asked: &Blkio) -> Result<LinuxBlockIo> {
    let mut io = LinuxBlockIo::default();
    io.set_weight(asked.weight);
    let weights = asked.weight_device.iter().map(|(path, weight)| {
        let (major, minor) = numbers("weight", path)?;
        let builder = LinuxWeightDeviceBuilder::default();
        let built = builder.major(major).minor(minor).weight(*weight).build();
        built.context("a weight")
    });
    let weights = weights.collect::<Result<Vec<LinuxWeightDevice>>>()?;
    io.set_weight_device((!weights.is_empty()).then_some(weights));
    io.set_throttle_read_bps_device(throttles(&asked.read_bps)?);
    io.set_throttle_write_bps_device(throttles(&asked.write_bps)?);
    io.set_throttle_read_iops_device(throttles(&asked.read_iops)?);
    io.set_throttle_write_iops_device(throttles(&asked.write_iops)?);
    Ok(io)
}

fn throttles(rates: &BTreeMap<String, u64>) -> Result<Option<Vec<LinuxThrottleDevice>>> {
    let all = rates.iter().map(|(path, rate)| {
        let (major, minor) = numbers("throttle", path)?;
        let builder = LinuxThrottleDeviceBuilder::default();
        let built = builder.major(major).minor(minor).rate(*rate).build();
        built.context("a rate")
    });
    let all = all.collect::<Result<Vec<_>>>()?;
    Ok((!all.is_empty()).then_some(all))
}

/// Number of the disk at `path`, as the kernel writes it; `what` it is for, in podman's words.
///
/// # Errors
/// It is no disk.
pub(super) fn disk(what: &str, path: &str) -> Result<String> {
    let (major, minor) = numbers(what, path)?;
    Ok(format!("{major}:{minor}"))
}

fn numbers(what: &str, path: &str) -> Result<(i64, i64)> {
    let doing = || usage(format!("could not parse {what} device at {path}"));
    let found = fs::metadata(path).fault(doing)?;
    if !found.file_type().is_block_device() {
        return Err(failed("it is not a block device")).fault(doing);
    }
    let (major, minor) = (
        nix::sys::stat::major(found.rdev()),
        nix::sys::stat::minor(found.rdev()),
    );
    let sys = format!("/sys/dev/block/{major}:{minor}");
    if Path::new(&sys).join("partition").exists() {
        // …/block/vda/vda1
        let whole = fs::canonicalize(&sys).ok();
        let whole = whole.as_deref().and_then(Path::parent);
        let name = whole.and_then(Path::file_name).unwrap_or_default();
        let hint = format!("limit the disk: /dev/{}", name.display());
        let why = usage("it is a partition, and the kernel limits whole disks").hint(hint);
        return Err(why).fault(doing);
    }
    Ok((major.try_into()?, minor.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::report;

    #[test]
    fn only_what_was_asked_for_is_there() {
        let nothing = resources(&Limits::default()).expect("nothing");
        assert!(nothing.cpu().is_none() && nothing.block_io().is_none());
        assert!(nothing.memory().is_none() && nothing.unified().is_none());
    }

    #[test]
    fn half_a_cpu_and_no_limit() {
        let quota = |cpus: f64| {
            let limits = Limits {
                cpus: Some(cpus),
                ..Limits::default()
            };
            let resources = resources(&limits).expect("resources");
            resources.cpu().as_ref().and_then(LinuxCpu::quota)
        };
        assert_eq!((quota(0.5), quota(0.0)), (Some(50_000), Some(-1)));
    }

    #[test]
    fn high_memory_joins_the_kernels_own_files() {
        let mut limits = Limits::default();
        limits.memory.high = Some(4096);
        limits.conf.insert("pids.max".to_owned(), "7".to_owned());
        let unified = resources(&limits).expect("resources");
        let unified = unified.unified().clone().expect("unified");
        assert_eq!(
            (unified["memory.high"].as_str(), unified.len()),
            ("4096", 2)
        );
        limits.memory.high = Some(0);
        let unified = resources(&limits).expect("resources");
        assert_eq!(
            unified.unified().clone().expect("unified")["memory.high"],
            "max"
        );
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        for (path, why) in [
            ("/dev/nosuch", "No such file"),
            ("/dev/null", "not a block device"),
        ] {
            let mut limits = Limits::default();
            limits.blkio.read_bps.insert(path.to_owned(), 1);
            let text = report(&resources(&limits).expect_err(path));
            assert!(
                text.contains(&format!("could not parse throttle device at {path}"))
                    && text.contains(why),
                "{text}"
            );
        }
    }

    #[test]
    fn memory_combinations() {
        let of = |limit, swap| {
            check_memory(&Memory {
                limit,
                swap,
                ..Memory::default()
            })
        };
        assert!(of(Some(64 << 20), Some(128 << 20)).is_ok());
        assert!(of(Some(64 << 20), Some(-1)).is_ok());
        assert!(of(Some(1 << 20), None).is_err());
        assert!(of(None, Some(64 << 20)).is_err());
        assert!(of(Some(64 << 20), Some(32 << 20)).is_err());
    }
}
