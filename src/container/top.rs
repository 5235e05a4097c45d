//! `top`: the processes of a container, as podman shows them.
//!
//! They are found in the host's /proc by their PID namespace (processes of `exec` are nobody's children in it; where it is
//! the host's, by the control group), and
//! their numbers inside come from `NSpid`. Nothing is executed in the container; names of users come from its
//! account files as they are now ([`runtime::accounts`](crate::runtime::accounts)).

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::unistd::{Pid, SysconfVar, sysconf};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::host;
use super::record::{Containers, Process, Record, State};
use super::shared;
use super::supervisor::session;
use crate::cgroup::Scope;
use crate::error::{Result, usage};
use crate::runtime::Accounts;
use crate::runtime::idmap::{IdRange, Mapping};
use crate::sys::supervise::pidfd_open;

/// Descriptor, ps(1)'s code for it, heading.
const DESCRIPTORS: [(&str, &str, &str); 30] = [
    ("args", "%a", "COMMAND"),
    ("capamb", "", "AMBIENT CAPS"),
    ("capbnd", "", "BOUNDING CAPS"),
    ("capeff", "", "EFFECTIVE CAPS"),
    ("capinh", "", "INHERITED CAPS"),
    ("capprm", "", "PERMITTED CAPS"),
    ("comm", "%c", "COMMAND"),
    ("etime", "%t", "ELAPSED"),
    ("group", "%G", "GROUP"),
    ("groups", "", "GROUPS"),
    ("hgroup", "", "HGROUP"),
    ("hgroups", "", "HGROUPS"),
    ("hpid", "", "HPID"),
    ("huser", "", "HUSER"),
    ("label", "", "LABEL"),
    ("nice", "%n", "NI"),
    ("pcpu", "%C", "%CPU"),
    ("pgid", "%r", "PGID"),
    ("pid", "%p", "PID"),
    ("ppid", "%P", "PPID"),
    ("rgroup", "%g", "RGROUP"),
    ("rss", "", "RSS"),
    ("ruser", "%u", "RUSER"),
    ("seccomp", "", "SECCOMP"),
    ("state", "", "STATE"),
    ("stime", "", "STIME"),
    ("time", "%x", "TIME"),
    ("tty", "%y", "TTY"),
    ("user", "%U", "USER"),
    ("vsz", "%z", "VSZ"),
];
/// What is shown when nothing is said.
const DEFAULT: [&str; 8] = [
    "user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args",
];

/// Whether every word is a descriptor (else they are arguments of the container's own ps).
#[must_use]
pub fn are_descriptors(words: &[String]) -> bool {
    names(words).iter().all(|w| descriptor(w).is_some())
}

fn names(words: &[String]) -> Vec<&str> {
    let words = words.iter().flat_map(|w| w.split(','));
    words.filter(|w| !w.is_empty()).collect()
}

fn descriptor(word: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let same = |d: &&(&str, &str, &str)| word == d.0 || (word == d.1 && !word.is_empty());
    DESCRIPTORS.iter().find(same)
}

/// Headings and one row a process of the container, by PID.
///
/// # Errors
/// It does not run, or a word is no descriptor.
pub fn top(containers: &Containers, record: &Record, words: &[String]) -> Result<Vec<Vec<String>>> {
    let init = record.init.filter(|_| record.state == State::Running);
    let ended = || usage("top can only be used on running containers");
    let init = init.ok_or_else(ended)?;
    let mut wanted = names(words);
    if wanted.is_empty() {
        wanted = DEFAULT.to_vec();
    }
    let unknown = |w: &str| usage(format!("unknown descriptor: {w}"));
    let wanted = wanted
        .iter()
        .map(|w| descriptor(w).ok_or_else(|| unknown(w)));
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let spec = shared::spec(containers, &record.id)?;
    let names = Names::of(&spec, init)?;
    let mut found = match shared::is_hosts(&spec, LinuxNamespaceType::Pid) {
        true => in_scope(record),
        false => processes(init.pid),
    };
    // Only now it is known whose they are.
    if host::process(Pid::from_raw(init.pid)) != Some(init) {
        return Err(ended().into());
    }
    found.sort_by_key(|p| p.pid);
    let heads = wanted.iter().map(|d| d.2.to_owned()).collect();
    let rows = found.iter().map(|p| {
        let cells = wanted.iter().map(|d| cell(p, d.0, &names));
        cells.collect()
    });
    Ok(std::iter::once(heads).chain(rows).collect())
}

/// Users and groups by their numbers, on both sides.
struct Names {
    mapping: Mapping,
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    fn of(spec: &Spec, init: Process) -> Result<Names> {
        let mapping = session::mapping(spec, false);
        // Our own reaper is closed to us, too: its child is asked then.
        let read = match &target(init) {
            Some(target) => crate::runtime::accounts(target.as_fd(), &mapping)?,
            None => None,
        };
        let (passwd, group) = read.map_or((None, None), |Accounts { passwd, group }| {
            (passwd.ok().flatten(), group.ok().flatten())
        });
        Ok(Names {
            mapping,
            users: by_number(&passwd.unwrap_or_default()),
            groups: by_number(&group.unwrap_or_default()),
        })
    }
}

/// The third field of each line with the first.
fn by_number(text: &str) -> BTreeMap<u32, String> {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (name, number) = (fields.next(), fields.nth(1).and_then(|n| n.parse().ok()));
        if let (Some(name), Some(number)) = (name, number) {
            all.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    all
}

fn inside(lines: &[IdRange], host: u32) -> Option<u32> {
    let line = lines
        .iter()
        .find(|l| host.checked_sub(l.host).is_some_and(|n| n < l.count))?;
    Some(line.container + (host - line.host))
}

/// Init, or its first child where init is our reaper.
fn joinable(init: i32) -> Option<i32> {
    let open = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok();
    if open(init) {
        return Some(init);
    }
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
    let mut children = children
        .split_ascii_whitespace()
        .filter_map(|c| c.parse().ok());
    children.find(|c| open(*c))
}

/// A pidfd of a process that is in all namespaces of the container whose first process is `init`, and may be joined; `None`
/// when that has ended.
pub(super) fn target(init: Process) -> Option<OwnedFd> {
    let pid = joinable(init.pid)?;
    let target = pidfd_open(Pid::from_raw(pid)).ok()?;
    // Looked at after it was opened: the number may be another's by now.
    let same = host::process(Pid::from_raw(init.pid)) == Some(init);
    (same && joinable(init.pid) == Some(pid)).then_some(target)
}

/// One process, as /proc shows it.
#[derive(Debug)]
struct Seen {
    host: i32,
    pid: i32,
    status: BTreeMap<String, String>,
    /// Fields of `stat` from the third on.
    stat: Vec<String>,
    args: String,
}

impl Seen {
    fn stat(&self, number: usize) -> &str {
        self.stat.get(number - 3).map_or("", String::as_str)
    }

    fn ticks(&self, number: usize) -> f64 {
        self.stat(number).parse::<f64>().unwrap_or(0.0) / per_second()
    }

    fn status(&self, key: &str) -> &str {
        self.status.get(key).map_or("", String::as_str)
    }

    /// Real, effective …: host ids.
    fn id(&self, key: &str, which: usize) -> u32 {
        let id = self.status(key).split_ascii_whitespace().nth(which);
        id.and_then(|n| n.parse().ok()).unwrap_or(u32::MAX)
    }

    fn elapsed(&self) -> f64 {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let up: f64 = uptime
            .split_ascii_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0.0);
        (up - self.ticks(22)).max(0.0)
    }
}

fn per_second() -> f64 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    f64::from(i32::try_from(ticks).unwrap_or(100))
}

/// Every process in the container's control group.
fn in_scope(record: &Record) -> Vec<Seen> {
    let scope = record.scope.as_ref().map(|path| Scope {
        path: path.into(),
        calls: 0,
    });
    let pids = scope.map(|scope| scope.pids()).unwrap_or_default();
    pids.into_iter().filter_map(look).collect()
}

/// Every process in the PID namespace of `init`.
fn processes(init: i32) -> Vec<Seen> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = joinable(init).and_then(namespace);
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid == init || (own.is_some() && namespace(*pid) == own))
        .filter_map(look)
        .collect()
}

fn look(host: i32) -> Option<Seen> {
    let status = fs::read_to_string(format!("/proc/{host}/status")).ok()?;
    let status: BTreeMap<String, String> = status
        .lines()
        .filter_map(|l| l.split_once(':'))
        .map(|(k, v)| (k.to_owned(), v.trim().to_owned()))
        .collect();
    let pid = status.get("NSpid")?.split_ascii_whitespace().last()?;
    let stat = fs::read_to_string(format!("/proc/{host}/stat")).ok()?;
    let stat = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let mut args = fs::read(format!("/proc/{host}/cmdline")).unwrap_or_default();
    args.iter_mut().filter(|b| **b == 0).for_each(|b| *b = b' ');
    Some(Seen {
        host,
        pid: pid.parse().ok()?,
        stat: stat.map(str::to_owned).collect(),
        args: String::from_utf8_lossy(&args).into_owned(),
        status,
    })
}

fn cell(p: &Seen, what: &str, names: &Names) -> String {
    let user = |which| {
        named(
            inside(&names.mapping.uids, p.id("Uid", which)),
            &names.users,
        )
    };
    let group = |id| named(inside(&names.mapping.gids, id), &names.groups);
    let host_group = |id: u32| id.to_string();
    let all_groups = |show: &dyn Fn(u32) -> String| {
        let ids = p.status("Groups").split_ascii_whitespace();
        let ids = ids.filter_map(|n| n.parse().ok()).map(show);
        ids.collect::<Vec<_>>().join(",")
    };
    match what {
        "user" => user(1),
        "ruser" => user(0),
        "huser" => p.id("Uid", 1).to_string(),
        "group" => group(p.id("Gid", 1)),
        "rgroup" => group(p.id("Gid", 0)),
        "hgroup" => host_group(p.id("Gid", 1)),
        "groups" => all_groups(&group),
        "hgroups" => all_groups(&host_group),
        "pid" => p.pid.to_string(),
        "hpid" => p.host.to_string(),
        "ppid" => inside_pid(p.status("PPid")),
        "pgid" => last_word(p.status("NSpgid")),
        "comm" => p.status("Name").to_owned(),
        // A kernel thread or a zombie has none.
        "args" if p.args.trim().is_empty() => format!("[{}]", p.status("Name")),
        "args" => p.args.clone(),
        "etime" => go_duration(p.elapsed()),
        "time" => go_duration(p.ticks(14) + p.ticks(15)),
        "stime" => go_duration(p.elapsed()),
        "pcpu" => format!(
            "{:.3}",
            100.0 * (p.ticks(14) + p.ticks(15)) / p.elapsed().max(0.01)
        ),
        "tty" => terminal(p.stat(7)),
        "nice" => p.stat(19).to_owned(),
        "rss" => p.status("VmRSS").trim_end_matches(" kB").to_owned(),
        "vsz" => p.status("VmSize").trim_end_matches(" kB").to_owned(),
        "state" => p.stat(3).to_owned(),
        "seccomp" => match p.status("Seccomp") {
            "0" => "disabled".to_owned(),
            "1" => "strict".to_owned(),
            _ => "filter".to_owned(),
        },
        "label" => fs::read_to_string(format!("/proc/{}/attr/current", p.host))
            .ok()
            .map(|l| l.trim_matches(['\0', '\n']).to_owned())
            .filter(|l| !l.is_empty())
            .unwrap_or_else(|| "?".to_owned()),
        "capamb" => capabilities(p.status("CapAmb")),
        "capbnd" => capabilities(p.status("CapBnd")),
        "capeff" => capabilities(p.status("CapEff")),
        "capinh" => capabilities(p.status("CapInh")),
        "capprm" => capabilities(p.status("CapPrm")),
        _ => "?".to_owned(),
    }
}

fn named(id: Option<u32>, names: &BTreeMap<u32, String>) -> String {
    match id {
        Some(id) => names.get(&id).cloned().unwrap_or_else(|| id.to_string()),
        None => "?".to_owned(),
    }
}

fn last_word(text: &str) -> String {
    text.split_ascii_whitespace()
        .last()
        .unwrap_or("0")
        .to_owned()
}

/// The parent's number inside; 0 for one that is outside.
fn inside_pid(host: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{host}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
    let numbers: Vec<&str> = line.unwrap_or_default().split_ascii_whitespace().collect();
    match numbers.as_slice() {
        [_, .., last] => (*last).to_owned(),
        _ => "0".to_owned(),
    }
}

/// Field 7 of stat as ps shows it.
fn terminal(number: &str) -> String {
    let number: u64 = number
        .parse::<i32>()
        .map_or(0, |n| n.cast_unsigned().into());
    let (major, minor) = (
        (number >> 8) & 0xfff,
        (number & 0xff) | ((number >> 12) & 0xfff00),
    );
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

/// Names of a mask; `none`, `full`.
fn capabilities(mask: &str) -> String {
    let mask = u64::from_str_radix(mask, 16).unwrap_or(0);
    let all = crate::runtime::capability_names();
    let held: Vec<&str> = (0..all.len())
        .filter(|n| mask & (1 << n) != 0)
        .map(|n| all[n].as_str())
        .collect();
    match held.len() {
        0 => "none".to_owned(),
        n if n == all.len() => "full".to_owned(),
        _ => held.join(","),
    }
}

/// As Go prints a duration: `1h2m3.5s`.
fn go_duration(seconds: f64) -> String {
    let d = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let (h, m, s) = (d.as_secs() / 3600, d.as_secs() / 60 % 60, d.as_secs() % 60);
    let fraction = format!("{:09}", d.subsec_nanos());
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{s}{dot}{fraction}s");
    match (h, m) {
        (0, 0) if d.as_nanos() == 0 => "0s".to_owned(),
        (0, 0) if d.as_secs() == 0 => {
            let millis = format!("{}", d.as_secs_f64() * 1000.0);
            format!("{millis}ms")
        }
        (0, 0) => seconds,
        (0, m) => format!("{m}m{seconds}"),
        (h, m) => format!("{h}h{m}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_descriptors_in_every_spelling() {
        let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert!(are_descriptors(&list(&["pid,user", "comm", "%C"])));
        assert!(are_descriptors(&[]));
        assert!(!are_descriptors(&list(&["-ef"])));
        assert!(!are_descriptors(&list(&["pid", "nosuch"])));
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(go_duration(0.0), "0s");
        assert_eq!(go_duration(0.25), "250ms");
        assert_eq!(go_duration(1.5), "1.5s");
        assert_eq!(go_duration(62.0), "1m2s");
        assert_eq!(go_duration(3600.0), "1h0m0s");
    }

    #[test]
    fn terminals_and_masks_have_names() {
        assert_eq!(terminal("34816"), "pts/0");
        assert_eq!(terminal("34819"), "pts/3");
        assert_eq!(terminal("0"), "?");
        assert_eq!(capabilities("0000000000000000"), "none");
        assert_eq!(capabilities("000001ffffffffff"), "full");
        assert_eq!(capabilities("0000000000000021"), "CHOWN,KILL");
    }

    #[test]
    fn ids_are_those_inside() {
        let line = IdRange {
            container: 1,
            host: 100_000,
            count: 10,
        };
        assert_eq!(inside(&[line], 100_004), Some(5));
        assert_eq!(inside(&[line], 100_010), None);
        assert_eq!(inside(&[line], 5), None);
        let names = by_number("root:x:0:0\nbad\ntoor:x:0:0\nx:y:7:8:");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn this_process_is_seen_with_its_numbers() {
        let own = std::process::id().cast_signed();
        let seen = look(own).unwrap();
        assert_eq!(seen.host, own);
        assert!(seen.elapsed() >= 0.0 && !seen.args.is_empty());
        assert_eq!(seen.id("Uid", 1), nix::unistd::geteuid().as_raw());
    }

    #[test]
    fn nobody_enters_what_has_only_the_number_of_a_container() {
        let own = host::process(Pid::this()).unwrap();
        assert!(target(own).is_some());
        let before = Process {
            start: own.start - 1,
            ..own
        };
        assert!(target(before).is_none());
    }
}
