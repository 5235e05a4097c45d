//! What containers use: CPU, memory, network, block I/O, processes.
//!
//! Read without the supervisor, from the control group's files and `/proc/PID/net/dev` of the container's first process.
//! Memory is what podman and docker count: `memory.current` without the inactive page cache. Block I/O is that of both leaves
//! of the scope, since the supervisor does the container's ([`crate::cgroup`]).
//!
//! **Without a control group's controllers** the processes are asked one by one, those of the group or else of the
//! container's PID namespace: CPU time of each and of the children it waited for, anonymous memory, threads. That is
//! less exact (what is shared is not counted, a child that nobody waited for is lost) and block I/O is not known; it is
//! shown as `--`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::record::Record;
use crate::cgroup;

/// What a container used until a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken; `None`: the container does not run.
    pub at: Option<Instant>,
    /// CPU time since it was started.
    pub cpu: Duration,
    /// Bytes of memory.
    pub memory: u64,
    /// Most bytes it may have: its limit, or the machine's.
    pub memory_limit: u64,
    /// Bytes received and sent, loopback left out.
    pub network: (u64, u64),
    /// Bytes read and written; `None`: not known here.
    pub block: Option<(u64, u64)>,
    /// Processes and threads.
    pub pids: u64,
    /// How long it has been running.
    pub running: Duration,
}

impl Sample {
    /// Takes a sample of a container; all zero if it does not run.
    #[must_use]
    pub fn of(record: &Record) -> Sample {
        let Some(init) = record.init.filter(|_| record.state.up()) else {
            return Sample::default();
        };
        let scope = record.scope.as_ref().map(|path| cgroup::Scope {
            path: PathBuf::from(path),
            calls: 0,
        });
        let scope = scope.filter(|s| s.container().is_dir());
        let used = scope.as_ref().map(cgroup::Scope::stats);
        // A leaf always has its CPU time; the rest is there only with its controller.
        let used = used.filter(|u| u.memory > 0 && u.pids > 0);
        let since = record.started.map(|t| Timestamp::now().duration_since(t));
        let mut sample = Sample {
            at: Some(Instant::now()),
            memory_limit: machine_memory(),
            running: since.and_then(|d| d.try_into().ok()).unwrap_or_default(),
            ..Sample::default()
        };
        if record.network != "host" {
            let text = fs::read_to_string(format!("/proc/{}/net/dev", init.pid));
            sample.network = traffic(&text.unwrap_or_default());
        }
        let Some(used) = used else {
            let theirs = scope.map(|s| s.pids()).filter(|pids| !pids.is_empty());
            sample.ask_processes(&theirs.unwrap_or_else(|| of_namespace(init.pid)));
            return sample;
        };
        sample.cpu = Duration::from_micros(used.cpu_usec);
        sample.memory = used.memory.saturating_sub(used.inactive_file);
        sample.memory_limit = used
            .memory_limit
            .unwrap_or(u64::MAX)
            .min(sample.memory_limit);
        sample.block = Some((used.read_bytes, used.write_bytes));
        sample.pids = used.pids;
        sample
    }

    fn ask_processes(&mut self, pids: &[i32]) {
        for pid in pids {
            let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
            let (ticks, threads) = times(&file("stat").unwrap_or_default());
            self.cpu += Duration::from_millis(ticks * 1000 / ticks_a_second());
            self.memory += anonymous(&file("status").unwrap_or_default());
            self.pids += threads;
        }
    }

    /// Share of one CPU, percent, since `before`; since the start where there is none.
    #[must_use]
    pub fn cpu_percent(&self, before: Option<&Sample>) -> f64 {
        let same = |b: &&Sample| b.cpu <= self.cpu && b.at < self.at;
        let (cpu, time) = match before.filter(same).map(|b| (b.cpu, b.at)) {
            Some((cpu, Some(at))) => {
                let now = self.at.unwrap_or(at);
                (self.cpu - cpu, now - at)
            }
            _ => (self.cpu, self.running),
        };
        share(cpu.as_secs_f64(), time.as_secs_f64())
    }

    /// Share of one CPU since the start, percent.
    #[must_use]
    pub fn average_cpu(&self) -> f64 {
        self.cpu_percent(None)
    }

    /// Share of the limit, percent.
    #[must_use]
    pub fn memory_percent(&self) -> f64 {
        share(self.memory as f64, self.memory_limit as f64)
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        part / whole * 100.0
    } else {
        0.0
    }
}

/// Every process in the PID namespace of `init`.
fn of_namespace(init: i32) -> Vec<i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(init);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid| own.is_some() && namespace(*pid) == own)
        .collect()
}

fn ticks_a_second() -> u64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    ticks
        .ok()
        .flatten()
        .and_then(|t| u64::try_from(t).ok())
        .unwrap_or(100)
        .max(1)
}

/// Ticks of CPU time of a process and of the children it waited for, and its threads: proc_pid_stat(5).
fn times(stat: &str) -> (u64, u64) {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n: usize| -> u64 {
        // The first one here is field 3.
        let word = after_name.split_ascii_whitespace().nth(n - 3);
        word.and_then(|w| w.parse().ok()).unwrap_or(0)
    };
    ((14..=17).map(field).sum(), field(20))
}

/// `RssAnon` of a process, bytes.
fn anonymous(status: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    let kib = line.and_then(|l| l.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Bytes received and sent over every interface but the loopback: proc_pid_net(5).
fn traffic(dev: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in dev.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = numbers
            .split_ascii_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        sum.0 += numbers.first().copied().unwrap_or(0);
        sum.1 += numbers.get(8).copied().unwrap_or(0);
    }
    sum
}

fn machine_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 2 3 4 50 6 7 8 20 0 3 0 987 1 2 3";
        assert_eq!(times(stat), (71, 3));
        assert_eq!(times(""), (0, 0));
        assert_eq!(
            anonymous("VmRSS:\t 10 kB\nRssAnon:\t     12 kB\n"),
            12 << 10
        );
        let dev = "Inter-| Receive\n face |bytes\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n\
                     tap0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 2 2 0 0 0 0 0 0\n";
        assert_eq!(traffic(dev), (101, 202));
        assert!(machine_memory() > 1 << 20);
    }

    #[test]
    fn cpu_is_counted_since_the_last_sample_or_the_start() {
        let now = Instant::now();
        let first = Sample {
            at: Some(now),
            cpu: Duration::from_secs(1),
            running: Duration::from_secs(10),
            ..Sample::default()
        };
        let second = Sample {
            at: Some(now + Duration::from_secs(2)),
            cpu: Duration::from_secs(4),
            running: Duration::from_secs(12),
            ..Sample::default()
        };
        let close = |a: f64, b: f64| (a - b).abs() < 0.01;
        assert!(close(first.cpu_percent(None), 10.0));
        assert!(close(second.cpu_percent(Some(&first)), 150.0));
        // Restarted meanwhile: its time began anew.
        assert!(close(first.cpu_percent(Some(&second)), 10.0));
        assert!(close(Sample::default().cpu_percent(None), 0.0));
    }

    #[test]
    fn processes_of_a_namespace_are_asked_where_there_is_no_control_group() {
        let mut sample = Sample::default();
        let own = i32::try_from(std::process::id()).unwrap();
        sample.ask_processes(&of_namespace(own));
        assert!(sample.pids > 0 && sample.memory > 0, "{sample:?}");
    }
}
