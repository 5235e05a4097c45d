//! The flags of `run`, `create` and `update` that bound the container's control group; the words of their errors are
//! podman's.

use std::collections::BTreeMap;

use super::values;
use crate::cgroup;
use crate::container::limits;
use crate::container::request::{Blkio, Limits, Memory};
use crate::error::{Result, usage};

#[derive(Debug, clap::Args)]
pub(crate) struct Bounds {
    /// Memory limit; 0 unlimited
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory and swap together; -1 unlimited
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory kept from being reclaimed
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory beyond which the container is slowed and reclaimed from, not killed; 0 unlimited
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_high: Option<String>,
    /// CPUs' worth of time; 0 unlimited
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Share of CPU time against others, 1024 by default
    #[arg(short, long, value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Microseconds of CPU time in a period; -1 unlimited
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Period of --cpu-quota, microseconds, 100000 by default
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// CPUs to run on, as 0-3,5
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to take memory from, as 0-1
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
    /// Most processes and threads; -1 unlimited
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Most bytes a second read from a disk, as /dev/sda:1mb; 0 unlimited
    #[arg(long, value_name = "DEVICE:SIZE", value_delimiter = ',')]
    device_read_bps: Vec<String>,
    /// Most bytes a second written to a disk
    #[arg(long, value_name = "DEVICE:SIZE", value_delimiter = ',')]
    device_write_bps: Vec<String>,
    /// Most reads a second from a disk, as /dev/sda:100; 0 unlimited
    #[arg(long, value_name = "DEVICE:NUMBER", value_delimiter = ',')]
    device_read_iops: Vec<String>,
    /// Most writes a second to a disk
    #[arg(long, value_name = "DEVICE:NUMBER", value_delimiter = ',')]
    device_write_iops: Vec<String>,
    /// Share of disks against others, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<String>,
    /// The same on one disk
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// Write to a file of cgroup v2, as memory.high=1073741824, whatever the other flags say
    #[arg(long, value_name = "FILE=VALUE", value_delimiter = ',')]
    cgroup_conf: Vec<String>,
}

impl Bounds {
    /// The limits that were asked for, all that there are.
    pub(crate) fn limits(&self) -> Result<Limits> {
        let asked = self.changes()?;
        limits::check_memory(&asked.memory)?;
        // What is malformed is refused before anything is made.
        let resources = limits::resources(&asked)?;
        cgroup::Limits::from_resources(&resources)?;
        Ok(asked)
    }

    /// The limits that were asked for, to be laid over others.
    pub(crate) fn changes(&self) -> Result<Limits> {
        let size = |text: &Option<String>| text.as_deref().map(values::signed_size).transpose();
        let memory = Memory {
            limit: size(&self.memory)?,
            swap: size(&self.memory_swap)?,
            reservation: size(&self.memory_reservation)?,
            high: size(&self.memory_high)?,
        };
        let quota = self.cpu_quota.map(|_| "--cpu-quota");
        let period = self.cpu_period.map(|_| "--cpu-period");
        if let (Some(flag), true) = (period.or(quota), self.cpus.is_some()) {
            return Err(usage(format!("{flag} and --cpus cannot be set together")).into());
        }
        Ok(Limits {
            memory,
            cpus: self.cpus.as_deref().map(values::cpus).transpose()?,
            cpu_shares: self.cpu_shares.filter(|n| *n > 0),
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period.filter(|n| *n > 0),
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids: self.pids_limit,
            blkio: self.blkio()?,
            conf: conf(&self.cgroup_conf)?,
        })
    }

    fn blkio(&self) -> Result<Blkio> {
        let bytes = |text: &str| values::size(text).ok();
        let number = |text: &str| text.parse::<u64>().ok();
        let size = "<device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb";
        let count = "<device-path>:<number>. Number must be a positive integer";
        let weight = self.blkio_weight.as_deref().map(|text| {
            let bad = || usage(format!("invalid value for blkio-weight: {text:?}"));
            text.parse::<u16>().map_err(|_| bad())
        });
        Ok(Blkio {
            weight: weight.transpose()?,
            weight_device: weights(&self.blkio_weight_device)?,
            read_bps: rates(&self.device_read_bps, bytes, size)?,
            write_bps: rates(&self.device_write_bps, bytes, size)?,
            read_iops: rates(&self.device_read_iops, number, count)?,
            write_iops: rates(&self.device_write_iops, number, count)?,
        })
    }
}

/// `DEVICE:VALUE`.
fn of_device(text: &str) -> Result<(&str, &str)> {
    let Some((path, value)) = text.split_once(':') else {
        return Err(usage(format!("bad format: {text}")).into());
    };
    if !path.starts_with("/dev/") {
        return Err(usage(format!("bad format for device path: {text}")).into());
    }
    Ok((path, value))
}

fn rates(
    list: &[String],
    read: impl Fn(&str) -> Option<u64>,
    form: &str,
) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for text in list {
        let (path, value) = of_device(text)?;
        let Some(rate) = read(value) else {
            let what = format!("invalid rate for device: {text}. The correct format is {form}");
            return Err(usage(what).into());
        };
        all.insert(path.to_owned(), rate);
    }
    Ok(all)
}

fn weights(list: &[String]) -> Result<BTreeMap<String, u16>> {
    let mut all = BTreeMap::new();
    for text in list {
        let (path, value) = of_device(text)?;
        let weight = value.parse::<u16>().ok();
        let Some(weight) = weight.filter(|w| *w == 0 || (10..=1000).contains(w)) else {
            return Err(usage(format!("invalid weight for device: {text}")).into());
        };
        all.insert(path.to_owned(), weight);
    }
    Ok(all)
}

fn conf(list: &[String]) -> Result<BTreeMap<String, String>> {
    let pairs = list.iter().map(|text| {
        let pair = text.split_once('=');
        let pair = pair.ok_or_else(|| usage("--cgroup-conf must be formatted KEY=VALUE"))?;
        Ok((pair.0.to_owned(), pair.1.to_owned()))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::report;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        bounds: Bounds,
    }

    fn limits(line: &str) -> Result<Limits> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words)?.bounds.limits()
    }

    #[test]
    fn malformed_ones_are_told_in_podmans_words() {
        for (line, words) in [
            ("--device-read-bps foo", "bad format: foo"),
            (
                "--device-read-bps foo:1",
                "bad format for device path: foo:1",
            ),
            (
                "--device-read-bps /dev/x:z",
                "invalid rate for device: /dev/x:z. The correct format is <device-path>:<number>[<unit>].",
            ),
            (
                "--device-write-bps=/dev/x:-1",
                "invalid rate for device: /dev/x:-1.",
            ),
            (
                "--device-write-iops /dev/x:1mb",
                "invalid rate for device: /dev/x:1mb. The correct format is <device-path>:<number>.",
            ),
            ("--blkio-weight x", "invalid value for blkio-weight"),
            ("--blkio-weight 5", "from 10 to 1000"),
            (
                "--blkio-weight-device /dev/x:5",
                "invalid weight for device: /dev/x:5",
            ),
            (
                "--blkio-weight-device x:500",
                "bad format for device path: x:500",
            ),
            (
                "--cgroup-conf x",
                "--cgroup-conf must be formatted KEY=VALUE",
            ),
            (
                "--cgroup-conf cgroup.procs=0",
                "no limit of a control group",
            ),
            (
                "--device-read-bps /dev/nosuch:1mb",
                "could not parse throttle device at /dev/nosuch",
            ),
            (
                "--cpus 1 --cpu-quota 5000",
                "--cpu-quota and --cpus cannot be set together",
            ),
            ("-m -1", "cannot be negative"),
            ("--memory-high -1", "cannot be negative"),
            ("--cpus 0.001", "from 0.01 on"),
        ] {
            let text = report(&limits(line).expect_err(line));
            assert!(text.contains(words), "{line}: {text}");
        }
    }

    #[test]
    fn well_formed_ones_are_taken() {
        let all = limits(
            "--memory-high 64m --cpu-quota 20000 --cpu-period 50000 --cgroup-conf pids.max=7,misc.max=a",
        );
        let all = all.expect("limits");
        assert_eq!(all.memory.high, Some(64 << 20));
        assert_eq!(
            (all.cpu_quota, all.cpu_period),
            (Some(20_000), Some(50_000))
        );
        assert_eq!(all.conf.len(), 2);
        let none = limits("-m 0 --cpus 0 --pids-limit -1 --memory-swap -1").expect("limits");
        assert_eq!((none.memory.limit, none.cpus), (Some(0), Some(0.0)));
    }
}
