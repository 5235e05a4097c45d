//! Limits and weights of block I/O: from the runtime-spec to the lines of `io.max`, `io.weight` and
//! `io.bfq.weight`. Pure.
//!
//! The files are those of the kernel's `Documentation/admin-guide/cgroup-v2.rst` ("IO Interface Files") and
//! `Documentation/block/bfq-iosched.rst`. A weight is written to whichever of the two files is there: the first is
//! iocost's, the second BFQ's, and each disk follows the one it has been set up for. The spec's weights (10 to 1000)
//! are BFQ's own; for iocost (1 to 10000) they are stretched as runc and crun do it.
//!
//! What a container writes and reads through its root is its server's I/O, charged to the server's leaf, and so weighed by
//! the scope. Under iocost with periods of a second two servers share a disk by their weights (tests/vm/limits); with
//! periods shorter than one of their requests less so, since what one does not use in a period goes to the other. BFQ
//! shares what goes through a volume; servers that sync write in bursts, between which it serves whoever asks.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};
use serde::{Deserialize, Serialize};

use super::limits::Bound;
use crate::error::{Result, usage};

/// Bounds of block I/O of one container; what is empty is "not asked for".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Io {
    /// Share against others, 10 to 1000; 0 is the default again.
    pub weight: Option<u16>,
    /// Per disk.
    pub devices: Vec<Device>,
}

/// Bounds on one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Device number.
    pub major: i64,
    /// Device number.
    pub minor: i64,
    /// Share against others on this disk, 10 to 1000; 0 is that of the other disks.
    pub weight: Option<u16>,
    /// `rbps`, bytes a second read.
    pub read_bytes: Option<Bound>,
    /// `wbps`, bytes a second written.
    pub write_bytes: Option<Bound>,
    /// `riops`, reads a second.
    pub reads: Option<Bound>,
    /// `wiops`, writes a second.
    pub writes: Option<Bound>,
}

/// One weight, as both files take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Weight {
    /// A line of `io.bfq.weight`.
    pub(crate) bfq: String,
    /// A line of `io.weight`.
    pub(crate) cost: String,
}

impl Io {
    /// Reads the block I/O of a runtime-spec. A rate of 0 is no limit.
    ///
    /// # Errors
    /// A usage fault for weights outside 10 to 1000.
    pub fn from_spec(spec: &LinuxBlockIo) -> Result<Io> {
        let mut io = Io {
            weight: spec.weight().map(checked).transpose()?,
            devices: Vec::new(),
        };
        for device in spec.weight_device().iter().flatten() {
            let weight = device.weight().map(checked).transpose()?;
            io.device(device.major(), device.minor()).weight = weight;
        }
        type Slot = fn(&mut Device) -> &mut Option<Bound>;
        let kinds: [(&Option<Vec<LinuxThrottleDevice>>, Slot); 4] = [
            (spec.throttle_read_bps_device(), |d| &mut d.read_bytes),
            (spec.throttle_write_bps_device(), |d| &mut d.write_bytes),
            (spec.throttle_read_iops_device(), |d| &mut d.reads),
            (spec.throttle_write_iops_device(), |d| &mut d.writes),
        ];
        for (list, slot) in kinds {
            for throttle in list.iter().flatten() {
                let device = io.device(throttle.major(), throttle.minor());
                *slot(device) = Some(match throttle.rate() {
                    0 => Bound::Max,
                    rate => Bound::At(rate),
                });
            }
        }
        Ok(io)
    }

    fn device(&mut self, major: i64, minor: i64) -> &mut Device {
        let same = |d: &Device| (d.major, d.minor) == (major, minor);
        let at = self.devices.iter().position(same).unwrap_or_else(|| {
            self.devices.push(Device {
                major,
                minor,
                ..Device::default()
            });
            self.devices.len() - 1
        });
        &mut self.devices[at]
    }

    /// Whether a rate is bounded.
    pub(crate) fn throttles(&self) -> bool {
        let bound = |d: &Device| d.bounds().iter().any(|(_, b)| matches!(b, Bound::At(_)));
        self.devices.iter().any(bound)
    }

    /// Whether a weight is asked for.
    pub(crate) fn weighs(&self) -> bool {
        let asked = |weight: Option<u16>| weight.is_some_and(|w| w != 0);
        asked(self.weight) || self.devices.iter().any(|d| asked(d.weight))
    }

    /// Lines of `io.max`, one write each.
    pub(crate) fn max_lines(&self) -> Vec<String> {
        let lines = self.devices.iter().filter_map(|device| {
            let bounds = device.bounds();
            let words: Vec<String> = bounds.iter().map(|(key, b)| format!("{key}={b}")).collect();
            let number = format!("{}:{}", device.major, device.minor);
            (!words.is_empty()).then(|| format!("{number} {}", words.join(" ")))
        });
        lines.collect()
    }

    /// Weights, one write each.
    pub(crate) fn weights(&self) -> Vec<Weight> {
        let all = self.weight.map(|w| match w {
            0 => Weight {
                bfq: "default 100".to_owned(),
                cost: "default 100".to_owned(),
            },
            w => Weight {
                bfq: format!("default {w}"),
                cost: format!("default {}", stretched(w)),
            },
        });
        let one = |d: &Device| {
            let number = format!("{}:{}", d.major, d.minor);
            d.weight.map(|w| match w {
                0 => Weight {
                    bfq: format!("{number} default"),
                    cost: format!("{number} default"),
                },
                w => Weight {
                    bfq: format!("{number} {w}"),
                    cost: format!("{number} {}", stretched(w)),
                },
            })
        };
        all.into_iter()
            .chain(self.devices.iter().filter_map(one))
            .collect()
    }
}

impl Device {
    fn bounds(&self) -> Vec<(&'static str, Bound)> {
        [
            ("rbps", self.read_bytes),
            ("wbps", self.write_bytes),
            ("riops", self.reads),
            ("wiops", self.writes),
        ]
        .into_iter()
        .filter_map(|(key, bound)| bound.map(|b| (key, b)))
        .collect()
    }
}

fn checked(weight: u16) -> Result<u16> {
    if weight == 0 || (10..=1000).contains(&weight) {
        return Ok(weight);
    }
    Err(usage(format!("I/O weight {weight}: weights are from 10 to 1000")).into())
}

/// 10 to 1000 on 1 to 10000.
fn stretched(weight: u16) -> u64 {
    1 + (u64::from(weight).max(10) - 10) * 9_999 / 990
}

/// Whether a file of lines `KEY WORDS…` shows what was written: every word of it in the line of its key. What is
/// `max` or `default` may be missing, and so may be the whole line of it.
pub(crate) fn shows(written: &str, shown: &str) -> bool {
    let (key, words) = written.split_once(' ').unwrap_or((written, ""));
    let line = shown.lines().find_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        (name == key).then_some(rest)
    });
    // io.weight and io.bfq.weight of a kernel without weights per disk: the number alone.
    let line = line.unwrap_or(if key == "default" { shown.trim() } else { "" });
    words.split(' ').all(|word| {
        word.ends_with("=max") || word == "default" || line.split(' ').any(|have| have == word)
    })
}

/// What to write to have a line of `before` back, in place of `written`.
pub(crate) fn undo(written: &str, before: &str) -> String {
    let (key, words) = written.split_once(' ').unwrap_or((written, ""));
    let old = before.lines().find(|line| {
        let name = line.split(' ').next();
        name == Some(key)
    });
    match old {
        Some(line) => line.to_owned(),
        None if words.contains('=') => format!("{key} rbps=max wbps=max riops=max wiops=max"),
        None if key == "default" => format!("default {}", before.trim()),
        None => format!("{key} default"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{
        LinuxBlockIoBuilder, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
    };

    fn throttle(minor: i64, rate: u64) -> LinuxThrottleDevice {
        let builder = LinuxThrottleDeviceBuilder::default();
        let builder = builder.major(8).minor(minor).rate(rate);
        builder.build().expect("throttle")
    }

    #[test]
    fn rates_of_one_disk_are_one_line() {
        let spec = LinuxBlockIoBuilder::default()
            .throttle_read_bps_device(vec![throttle(0, 1 << 20), throttle(16, 7)])
            .throttle_write_iops_device(vec![throttle(0, 30)])
            .throttle_write_bps_device(vec![throttle(16, 0)])
            .build()
            .expect("spec");
        let io = Io::from_spec(&spec).expect("io");
        assert_eq!(
            io.max_lines(),
            ["8:0 rbps=1048576 wiops=30", "8:16 rbps=7 wbps=max"]
        );
        assert!(io.throttles() && !io.weighs());
    }

    #[test]
    fn weights_are_for_both_schedulers() {
        let device = LinuxWeightDeviceBuilder::default().major(8).minor(0);
        let device = device.weight(1000u16).build().expect("weight");
        let spec = LinuxBlockIoBuilder::default().weight(10u16);
        let spec = spec.weight_device(vec![device]).build().expect("spec");
        let io = Io::from_spec(&spec).expect("io");
        let lines: Vec<(String, String)> =
            io.weights().into_iter().map(|w| (w.bfq, w.cost)).collect();
        let expected = [("default 10", "default 1"), ("8:0 1000", "8:0 10000")];
        assert_eq!(lines, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        let bad = LinuxBlockIoBuilder::default().weight(9u16).build();
        assert!(Io::from_spec(&bad.expect("spec")).is_err());
    }

    #[test]
    fn what_the_kernel_shows_is_compared_by_line() {
        let shown =
            "8:16 rbps=max wbps=5 riops=max wiops=max\n8:0 rbps=7 wbps=max riops=max wiops=max\n";
        assert!(shows("8:0 rbps=7", shown));
        assert!(shows("8:0 rbps=7 wbps=max", shown));
        assert!(!shows("8:0 rbps=5", shown));
        assert!(!shows("8:32 rbps=7", shown));
        assert!(shows("8:32 rbps=max", shown), "no line is no limit");
        assert!(shows("default 50", "default 50\n8:0 30\n"));
        assert!(shows("default 50", "50\n"));
        assert!(!shows("default 50", "default 100\n"));
    }

    #[test]
    fn a_line_is_taken_back() {
        let shown = "8:0 rbps=7 wbps=max riops=max wiops=max\n";
        assert_eq!(undo("8:0 rbps=9", shown), shown.trim());
        assert_eq!(
            undo("8:16 rbps=9", shown),
            "8:16 rbps=max wbps=max riops=max wiops=max"
        );
        assert_eq!(undo("default 50", "default 100\n"), "default 100");
        assert_eq!(undo("8:0 50", "default 100\n"), "8:0 default");
    }
}
