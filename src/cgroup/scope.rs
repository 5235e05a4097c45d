//! One container's scope and its two leaves.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::detect::{self, Availability, Rung};
use super::io::{self, Weight};
use super::limits::{Bound, Limits, Setting};
use super::systemd::{self, Unit};
use crate::error::{Result, ResultExt as _, failed};

/// What [`Scope::create`] is asked for.
#[derive(Debug, Clone)]
pub struct ScopeRequest<'a> {
    /// Container id: the scope is `rless-ID.scope`, or `rless-ID-PID.scope` while the last run's is still held: systemd has not
    /// collected it yet, or its supervisor hands out output to a slow client.
    pub id: &'a str,
    /// One line for `systemctl status`.
    pub description: &'a str,
    /// systemd slice; `None` is `user.slice` (`system.slice` for root).
    pub slice: Option<&'a str>,
    /// The limits.
    pub limits: &'a Limits,
}

/// A container's cgroup. Plain data: recorded, and used again by other commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Directory of the scope.
    pub path: PathBuf,
    /// D-Bus calls its making took.
    pub calls: u32,
}

/// What a container has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time of the container's leaf, microseconds.
    pub cpu_usec: u64,
    /// Thereof in user mode, microseconds.
    pub user_usec: u64,
    /// Thereof in the kernel, microseconds.
    pub system_usec: u64,
    /// Memory in use, bytes, caches included.
    pub memory: u64,
    /// Thereof inactive file cache, bytes: docker and podman subtract it.
    pub inactive_file: u64,
    /// `memory.max`; `None` without a limit.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// `pids.max`; `None` without a limit.
    pub pids_limit: Option<u64>,
    /// Bytes read by both leaves.
    pub read_bytes: u64,
    /// Bytes written by both leaves.
    pub write_bytes: u64,
}

/// Name of the supervisor's leaf.
const SUPERVISOR: &str = "rless";
/// Name of the container's leaf.
const CONTAINER: &str = "container";
/// Leaf for rless processes that were in a delegated cgroup before its controllers were handed on.
const FRONT: &str = "rless-front";
/// How long the scope of a container's last run may stay before another name is taken.
const COLLECTED: Duration = Duration::from_millis(200);
/// What the server of the root file system may use beyond the container's own limit before the
/// kernel reclaims from it: its page cache goes first, and it is slowed, never killed.
const SERVER_MEMORY: u64 = 256 << 20;

impl Scope {
    /// Makes the scope with both leaves, moves the calling process to its leaf, and sets the limits
    /// on the container's. `None` where there is no cgroup to be had and no limit is asked for.
    ///
    /// The caller must be single-threaded or not care which of its threads moves: all do.
    ///
    /// # Errors
    /// Limits that cannot be kept here ([`Availability::check`]), or what the kernel or systemd
    /// refused.
    pub fn create(
        availability: &Availability,
        request: &ScopeRequest<'_>,
    ) -> Result<Option<Scope>> {
        availability.check(request.limits)?;
        let mut name = format!("rless-{}.scope", request.id);
        let scope = match &availability.rung {
            Rung::None { .. } => return Ok(None),
            Rung::Systemd { private, bus } => {
                let calls = systemd_scope(private.as_deref(), bus.as_deref(), request, &mut name)?;
                let path = detect::own_directory()
                    .filter(|path| path.file_name().is_some_and(|n| n == name.as_str()))
                    .ok_or_else(|| {
                        failed(format!(
                            "systemd made the scope {name} but this process is not in it"
                        ))
                    })?;
                Scope { path, calls }
            }
            Rung::Delegated { own } => Scope {
                path: delegated_scope(own, &name, request.limits)?,
                calls: 0,
            },
        };
        if let Err(e) = scope.furnish(request.limits) {
            scope.remove();
            return Err(e);
        }
        Ok(Some(scope))
    }

    /// Leaves, controllers, limits.
    fn furnish(&self, limits: &Limits) -> Result<()> {
        for leaf in [self.supervisor(), self.container()] {
            make(&leaf)?;
        }
        // A cgroup with processes cannot hand controllers on: move first, then enable.
        put(&self.supervisor().join("cgroup.procs"), "0")?;
        enable(
            &self.path,
            &detect::words(&self.path.join("cgroup.controllers")),
        )?;
        self.apply(limits).map(drop)
    }

    /// Removes the container's leaf, and with it what it counted; the supervisor stays in its own.
    pub fn clear(&self) {
        remove_dir(&self.container());
    }

    /// Makes the container's leaf again, after [`Scope::clear`].
    ///
    /// # Errors
    /// As [`Scope::create`].
    pub fn renew(&self, limits: &Limits) -> Result<()> {
        make(&self.container())?;
        self.apply(limits).map(drop)
    }

    /// Directory of the supervisor's leaf.
    #[must_use]
    pub fn supervisor(&self) -> PathBuf {
        self.path.join(SUPERVISOR)
    }

    /// Directory of the container's leaf.
    #[must_use]
    pub fn container(&self) -> PathBuf {
        self.path.join(CONTAINER)
    }

    /// The container's leaf, opened for clone3's `CLONE_INTO_CGROUP`. A cgroup namespace cloned in
    /// the same call would be rooted at the caller's leaf: it is unshared afterwards.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn open_container(&self) -> Result<OwnedFd> {
        let path = self.container();
        let dir = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(&path)
            .with_context(|| format!("opening cgroup {}", path.display()))?;
        Ok(dir.into())
    }

    /// Moves a process into the container's leaf.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn add_init(&self, pid: i32) -> Result<()> {
        put(&self.container().join("cgroup.procs"), &pid.to_string())
    }

    /// Sets limits and checks that the kernel has them: CPU and I/O on the scope and again on the
    /// container's leaf, everything else on the leaf. For a running container too (`update`): what was set before
    /// an error is taken back.
    ///
    /// # Errors
    /// A fault naming the file when it is missing, refuses the value or shows another afterwards.
    pub fn apply(&self, limits: &Limits) -> Result<Applied> {
        let mut applied = Applied::default();
        match self.apply_all(limits, &mut applied.0) {
            Ok(()) => Ok(applied),
            Err(e) => {
                applied.take_back();
                Err(e)
            }
        }
    }

    /// Does it; `done` becomes the files written and how to have their old values back.
    fn apply_all(&self, limits: &Limits, done: &mut Vec<(PathBuf, String)>) -> Result<()> {
        let leaf = self.container();
        for setting in limits.settings() {
            self.place(&setting, done)?;
        }
        for weight in limits.io.weights() {
            for cgroup in [&self.path, &leaf] {
                set_weight(cgroup, &weight, done)?;
            }
        }
        for setting in limits.given() {
            self.place(&setting, done)?;
        }
        if let Some(limit) = limits.memory {
            let high = match limit {
                Bound::At(limit) => Bound::At(limit.saturating_add(SERVER_MEMORY)),
                Bound::Max => Bound::Max,
            };
            let setting = Setting {
                file: "memory.high".to_owned(),
                value: high.to_string(),
                verbatim: false,
            };
            set(&self.supervisor(), &setting, done)?;
        }
        Ok(())
    }

    /// Sets one where it belongs.
    fn place(&self, setting: &Setting, done: &mut Vec<(PathBuf, String)>) -> Result<()> {
        if setting.is_for_both() {
            match set(&self.path, setting, done) {
                // systemd has set it at the start; written again it is the same value.
                Err(e) if setting.file.starts_with("cpu.") => log::debug!("{e:#}"),
                other => other?,
            }
        }
        set(&self.container(), setting, done)
    }

    /// How often the kernel killed a process of the container for want of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        keyed(&read(&self.container().join("memory.events")), "oom_kill").unwrap_or(0)
    }

    /// Kills every process of the container, at once; the supervisor's leaf is not touched.
    ///
    /// # Errors
    /// What the kernel said; no leaf any more is no error.
    pub fn kill(&self) -> Result<()> {
        let leaf = self.container();
        match std::fs::write(leaf.join("cgroup.kill"), "1") {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound && !leaf.exists() => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("killing cgroup {}", leaf.display())),
        }
        // Before Linux 5.14: until a look at it finds nobody, since they may fork meanwhile.
        for _ in 0..100 {
            let pids = pids(&leaf);
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(failed(format!("processes of cgroup {} do not die", leaf.display())).into())
    }

    /// Stops or continues every process of the container, and waits until that is so.
    ///
    /// # Errors
    /// What the kernel said, or that a process could not be stopped within five seconds.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let leaf = self.container();
        let value = if frozen { "1" } else { "0" };
        put(&leaf.join("cgroup.freeze"), value)?;
        let events = leaf.join("cgroup.events");
        let deadline = Instant::now() + Duration::from_secs(5);
        while keyed(&read(&events), "frozen") != Some(u64::from(frozen)) {
            if Instant::now() > deadline {
                // Not later either, when nobody expects it any more.
                let _ = put(&leaf.join("cgroup.freeze"), "0");
                return Err(failed(format!("cgroup {} does not freeze", leaf.display())).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether the container is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        keyed(&read(&self.container().join("cgroup.events")), "frozen") == Some(1)
    }

    /// Processes of the container, host numbers.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        pids(&self.container())
    }

    /// What the container uses; I/O is that of both leaves, since the supervisor does the
    /// container's.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let leaf = self.container();
        let cpu = read(&leaf.join("cpu.stat"));
        let number = |file: &str| read(&leaf.join(file)).trim().parse::<u64>().ok();
        let mut stats = Stats {
            cpu_usec: keyed(&cpu, "usage_usec").unwrap_or(0),
            user_usec: keyed(&cpu, "user_usec").unwrap_or(0),
            system_usec: keyed(&cpu, "system_usec").unwrap_or(0),
            memory: number("memory.current").unwrap_or(0),
            inactive_file: keyed(&read(&leaf.join("memory.stat")), "inactive_file").unwrap_or(0),
            memory_limit: number("memory.max"),
            pids: number("pids.current").unwrap_or(0),
            pids_limit: number("pids.max"),
            ..Stats::default()
        };
        for leaf in [&leaf, &self.supervisor()] {
            let (read_bytes, write_bytes) = traffic(&read(&leaf.join("io.stat")));
            stats.read_bytes += read_bytes;
            stats.write_bytes += write_bytes;
        }
        stats
    }

    /// Removes what can be removed; a killed process may hold its cgroup for a moment more. Called
    /// by the supervisor the scope stays with it inside, and its manager removes it when the
    /// supervisor has gone; in a delegated cgroup the supervisor steps back first.
    pub fn remove(&self) {
        if !self.path.exists() {
            return;
        }
        remove_dir(&self.container());
        if !self.step_back() {
            return;
        }
        remove_dir(&self.supervisor());
        remove_dir(&self.path);
    }

    /// Moves this process out of the supervisor's leaf, for one that outlives the container; true when it is not in it.
    pub fn step_back(&self) -> bool {
        if detect::own_directory().as_deref() != Some(self.supervisor().as_path()) {
            return true;
        }
        // Only a cgroup without controllers for its children takes processes.
        let Some(parent) = self.path.parent() else {
            return false;
        };
        let front = parent.join(FRONT);
        let back = if front.is_dir() {
            front
        } else {
            parent.to_owned()
        };
        std::fs::write(back.join("cgroup.procs"), "0").is_ok()
    }
}

/// Limits that were set, and what to write to have the old ones back.
#[derive(Debug, Default)]
pub struct Applied(Vec<(PathBuf, String)>);

impl Applied {
    /// Sets the limits that were there before, as far as the kernel takes them.
    pub fn take_back(self) {
        for (path, before) in self.0.iter().rev() {
            if let Err(e) = std::fs::write(path, before) {
                log::debug!("writing `{before}` back to {}: {e}", path.display());
            }
        }
    }
}

/// Has systemd make the scope `name`, or one of another name, which is `name` then; the number of D-Bus calls.
fn systemd_scope(
    private: Option<&Path>,
    bus: Option<&str>,
    request: &ScopeRequest<'_>,
    name: &mut String,
) -> Result<u32> {
    let root = nix::unistd::getuid().is_root();
    let usual = if root { "system.slice" } else { "user.slice" };
    let pid = std::process::id();
    let other = format!("rless-{}-{pid}.scope", request.id);
    let began = Instant::now();
    loop {
        let unit = Unit {
            name,
            description: request.description,
            slice: request.slice.unwrap_or(usual),
            pid,
            limits: request.limits,
        };
        match systemd::start_scope(private, bus, &unit) {
            Err(e) if systemd::exists(&e) && *name != other => {
                if began.elapsed() < COLLECTED {
                    std::thread::sleep(Duration::from_millis(10));
                } else {
                    name.clone_from(&other);
                }
            }
            started => return started,
        }
    }
}

/// A child of the caller's cgroup, with room made for controllers where the limits need them.
fn delegated_scope(own: &Path, name: &str, limits: &Limits) -> Result<PathBuf> {
    let needed = limits.controllers();
    let enabled = detect::words(&own.join("cgroup.subtree_control"));
    if needed.iter().any(|c| !enabled.iter().any(|e| e == c)) {
        let front = own.join(FRONT);
        make(&front)?;
        for pid in pids(own) {
            put(&front.join("cgroup.procs"), &pid.to_string())?;
        }
        enable(own, &detect::words(&own.join("cgroup.controllers")))?;
    }
    let path = own.join(name);
    make(&path)?;
    Ok(path)
}

/// Whether every process of a cgroup runs this very program.
pub(crate) fn only_our_own(cgroup: &Path) -> bool {
    let exe = |pid: &str| {
        std::fs::metadata(format!("/proc/{pid}/exe"))
            .ok()
            .map(|m| (m.dev(), m.ino()))
    };
    let ours = exe("self");
    ours.is_some() && pids(cgroup).iter().all(|pid| exe(&pid.to_string()) == ours)
}

fn make(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("making cgroup {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes one value in one write call.
fn put(file: &Path, value: &str) -> Result<()> {
    std::fs::write(file, value).with_context(|| format!("writing `{value}` to {}", file.display()))
}

/// Hands controllers on to the children of a cgroup.
fn enable(cgroup: &Path, controllers: &[String]) -> Result<()> {
    let line: Vec<String> = controllers.iter().map(|c| format!("+{c}")).collect();
    if line.is_empty() {
        return Ok(());
    }
    let file = cgroup.join("cgroup.subtree_control");
    if std::fs::write(&file, line.join(" ")).is_ok() {
        return Ok(());
    }
    // One that cannot be had must not keep the others away; a limit that needs it fails by name.
    for controller in line {
        if let Err(e) = put(&file, &controller) {
            log::debug!("{e:#}");
        }
    }
    Ok(())
}

/// Sets a limit and reads it back; `done` gets how to undo it.
fn set(cgroup: &Path, setting: &Setting, done: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let Setting { file, value, .. } = setting;
    let path = cgroup.join(file);
    let before = read(&path);
    match std::fs::write(&path, value) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound && setting.is_none() => return Ok(()),
        // Without swap accounting in the kernel there is no swap to limit.
        Err(e) if e.kind() == ErrorKind::NotFound && file == "memory.swap.max" => return Ok(()),
        Err(e) => {
            let what = || failed(format!("setting {file} of the container to `{value}`"));
            let hint = hint(file, value, &e);
            return Err(e).fault(|| match hint {
                Some(hint) => what().hint(hint),
                None => what(),
            });
        }
    }
    let shown = read(&path);
    let back = if file == "io.max" {
        io::undo(value, &before)
    } else {
        before.trim().to_owned()
    };
    done.push((path, back));
    if setting.verbatim {
        return Ok(());
    }
    if !agrees(file, value, shown.trim()) {
        return Err(failed(format!(
            "setting {file} of the container to `{value}`: the kernel made it `{}`",
            shown.trim()
        ))
        .into());
    }
    in_effect(cgroup, file, value)
}

/// Whether a container has the processors and the memory nodes it was given. The kernel takes any that it knows of, and
/// where the cgroup above has not all of them it goes by those that it has, or by all of its own.
fn in_effect(cgroup: &Path, file: &str, value: &str) -> Result<()> {
    let (noun, property) = match file {
        "cpuset.cpus" => ("processors", "AllowedCPUs"),
        "cpuset.mems" => ("memory nodes", "AllowedMemoryNodes"),
        _ => return Ok(()),
    };
    let effective = format!("{file}.effective");
    let Ok(has) = std::fs::read_to_string(cgroup.join(&effective)) else {
        return Ok(()); // older kernels
    };
    if agrees(file, value, has.trim()) {
        return Ok(());
    }
    let above = cgroup.parent().map(|p| read(&p.join(&effective)));
    let above = above.filter(|text| !text.trim().is_empty());
    let fault = failed(format!(
        "giving the container the {noun} `{value}`: those that it would have are `{}`",
        has.trim()
    ));
    Err(fault
        .hint(format!(
            "choose among `{}`, or have an administrator allow more ({property}= of user@UID.service and of the slices above it)",
            above.as_deref().unwrap_or(&has).trim()
        ))
        .into())
}

/// What a kernel means that refuses a limit on a disk.
fn hint(file: &str, value: &str, error: &std::io::Error) -> Option<String> {
    let number = value
        .split(' ')
        .next()
        .filter(|_| file.starts_with("io."))?;
    (error.raw_os_error() == Some(libc::ENODEV))
        .then(|| format!("{number} is not a whole disk: see lsblk -o NAME,MAJ:MIN,TYPE"))
}

/// Sets a weight of block I/O in each of the files that are there, one of them at least.
fn set_weight(cgroup: &Path, weight: &Weight, done: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let mut last = None;
    let mut kept = false;
    for (file, value) in [("io.bfq.weight", &weight.bfq), ("io.weight", &weight.cost)] {
        let path = cgroup.join(file);
        let before = read(&path);
        match std::fs::write(&path, value) {
            Ok(()) if io::shows(value, &read(&path)) => {
                kept = true;
                done.push((path, io::undo(value, &before)));
            }
            Ok(()) => last = Some(format!("{file} shows another: {}", read(&path).trim())),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // A disk may be set up for one of the two alone.
            Err(e) => last = Some(format!("{file}: {e}")),
        }
    }
    let asked = &weight.bfq;
    match (kept, last) {
        (true, None) => Ok(()),
        (true, Some(what)) => {
            log::debug!("I/O weight `{asked}`: {what}");
            Ok(())
        }
        (false, Some(what)) => {
            Err(failed(format!("setting the container's I/O weight to `{asked}`: {what}")).into())
        }
        (false, None) => Err(failed(format!(
            "setting the container's I/O weight to `{asked}`: this kernel shares no disk by weight now"
        ))
        .hint(
            "an administrator sets a disk up for it: modprobe bfq && echo bfq > /sys/block/DISK/queue/scheduler",
        )
        .into()),
    }
}

/// Whether the kernel shows what was written; it rounds bytes down to pages.
fn agrees(file: &str, written: &str, shown: &str) -> bool {
    if written == shown {
        return true;
    }
    match (written.parse::<u64>(), shown.parse::<u64>()) {
        (Ok(written), Ok(shown)) if file.starts_with("memory.") => {
            shown <= written && written - shown < 65536
        }
        _ => match file {
            "cpuset.cpus" | "cpuset.mems" => {
                list(written).is_some() && list(written) == list(shown)
            }
            "io.max" => io::shows(written, shown),
            _ => false,
        },
    }
}

/// The members of a list like `0-2,5`; `None` if it is none or has more than 65536.
fn list(text: &str) -> Option<Vec<u32>> {
    let mut members = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last < first || last - first > 65536 || members.len() > 65536 {
            return None;
        }
        members.extend(first..=last);
    }
    members.sort_unstable();
    members.dedup();
    Some(members)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The number after `key` in a flat keyed file.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok()).flatten()
    })
}

/// Bytes read and written over every device of an `io.stat`.
fn traffic(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_whitespace()
            .filter_map(|word| {
                word.strip_prefix(key)?
                    .strip_prefix('=')?
                    .parse::<u64>()
                    .ok()
            })
            .sum()
    };
    (sum("rbytes"), sum("wbytes"))
}

fn pids(cgroup: &Path) -> Vec<i32> {
    read(&cgroup.join("cgroup.procs"))
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect()
}

/// Removes one cgroup, waiting up to half a second for its last process to be gone.
fn remove_dir(path: &Path) {
    let deadline = Instant::now() + Duration::from_millis(500);
    loop {
        match std::fs::remove_dir(path) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) if e.kind() != ErrorKind::NotFound => {
                log::debug!("removing cgroup {}: {e}", path.display());
                return;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
#[path = "scope_tests.rs"]
mod tests;
