//! `update`: limits, the restart policy and the health check of a container that is there, running or not.
//!
//! Whoever may write the record does it: the supervisor of a live container, who also sets the limits on its control
//! group, else the command itself. The stored request holds them for the next start. What cannot be kept or
//! cannot be written changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::ask::{Heard, Question, ask};
use super::draft::Draft;
use super::events::Action;
use super::health;
use super::limits;
use super::make::Stored;
use super::prepare::with_default_limits;
use super::record::{Containers, Place, Record, no_such};
use super::request::{Blkio, Limits};
use super::restart::Restart;
use super::stop::elsewhere;
use crate::cgroup::{self, Scope};
use crate::error::{Result, failed, usage};
use crate::store::files;

/// How long a supervisor may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to change; what is `None` in it stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Limits of the control group.
    pub limits: Limits,
    /// `--restart`.
    pub restart: Option<Restart>,
    /// `--health-*`.
    pub health: health::Change,
}

/// Changes the container of `record`.
///
/// # Errors
/// A limit cannot be kept on this host.
pub fn update(containers: &Containers, record: &Record, change: &Change) -> Result<()> {
    elsewhere(record)?;
    let gone = || no_such(&record.id);
    for _ in 0..5 {
        // Clears what a dead supervisor left.
        if containers.load(&record.id)?.ok_or_else(gone)?.state.live() {
            let question = Question::Update {
                change: Box::new(change.clone()),
            };
            match ask(containers, &record.id, &question, Some(PATIENCE))? {
                Heard::Done(_) => return Ok(()),
                Heard::Nobody => continue,
                Heard::Silence => {
                    return Err(failed("the container's supervisor does not answer").into());
                }
            }
        }
        let _lock = containers.lock(&record.id)?.ok_or_else(gone)?;
        let place = containers.place(&record.id);
        let mut now = containers.read(&place)?.ok_or_else(gone)?;
        if !now.state.live() {
            apply(&place, &mut now, change, &cgroup::detect(), None)?;
            containers.emit(&now, Action::Update);
            return Ok(());
        }
    }
    Err(failed(format!(
        "updating container {}: it comes and goes",
        record.id
    ))
    .into())
}

/// Does it, for who may: limits of the control group, stored request, record.
/// Files are written first, then the limits are set, then the files take their places: of an update that fails at any
/// of these nothing is left. The limits of the container from now on, if they have changed.
pub(super) fn apply(
    place: &Place,
    record: &mut Record,
    change: &Change,
    cgroups: &cgroup::Availability,
    scope: Option<&Scope>,
) -> Result<Option<cgroup::Limits>> {
    let mut stored = Stored::read(&place.dir)?;
    let mut changed = record.clone();
    if let Some(restart) = change.restart {
        if record.auto_remove && restart != Restart::No {
            return Err(usage("the --rm option conflicts with --restart").into());
        }
        stored.request.restart = restart;
        changed.restart = restart;
    }
    let health = change
        .health
        .any()
        .then(|| change.health.over(record.healthcheck.as_ref()))
        .transpose()?;
    if let Some(plan) = &health {
        let live = changed.state.live();
        changed.health.change(plan, &change.health, live);
        changed.healthcheck = Some(plan.clone());
    }
    let mut drafts = Vec::new();
    let mut wanted = None;
    // What is not changed is not looked at: a disk it names may be gone.
    if change.limits.any() {
        merge(&mut stored.request.limits, &change.limits);
        let request = with_default_limits(&stored.request, cgroups);
        limits::check_memory(&request.limits.memory)?;
        let resources = limits::resources(&request.limits)?;
        let limits = cgroup::Limits::from_resources(&resources)?;
        cgroups.check(&limits)?;
        wanted = Some(limits);
        // What `inspect` shows; it is made anew at the next start.
        let config = place.dir.join("config.json");
        if let Some(mut spec) = files::read_json::<Spec>(&config)? {
            if let Some(linux) = spec.linux_mut() {
                linux.set_resources(Some(resources));
            }
            drafts.push(Draft::of(&config, &spec)?);
        }
    }
    drafts.push(stored.draft(&place.dir)?);
    drafts.push(place.draft(&changed)?);
    let applied = match (scope, &wanted) {
        (Some(scope), Some(limits)) => Some(scope.apply(limits)?),
        _ => None,
    };
    if let Err(e) = drafts.into_iter().try_for_each(Draft::keep) {
        if let Some(applied) = applied {
            applied.take_back();
        }
        return Err(e);
    }
    *record = changed;
    if let Some(plan) = health {
        record.health.write(place, &plan);
    }
    Ok(wanted)
}

/// Lays `new` over `old`. A flag takes the place of what `--cgroup-conf` has said about the same file before (at the start
/// that would be the one that holds); of both in one command it is `--cgroup-conf` that holds, as with podman.
fn merge(old: &mut Limits, new: &Limits) {
    unfold_cpu(old);
    let Limits {
        memory,
        cpus,
        cpu_shares,
        cpu_quota,
        cpu_period,
        cpuset_cpus,
        cpuset_mems,
        pids,
        blkio,
        conf,
    } = new;
    for file in new.files() {
        old.conf.remove(file);
    }
    if memory.limit.is_some() {
        // Podman's: swap of a new limit is as much as memory, whatever it was before.
        old.memory.swap = None;
    }
    old.memory.limit = memory.limit.or(old.memory.limit);
    old.memory.swap = memory.swap.or(old.memory.swap);
    old.memory.reservation = memory.reservation.or(old.memory.reservation);
    old.memory.high = memory.high.or(old.memory.high);
    merge_cpu(old, *cpus, *cpu_quota, *cpu_period);
    old.cpu_shares = cpu_shares.or(old.cpu_shares);
    old.cpuset_cpus = cpuset_cpus.clone().or_else(|| old.cpuset_cpus.take());
    old.cpuset_mems = cpuset_mems.clone().or_else(|| old.cpuset_mems.take());
    old.pids = pids.or(old.pids);
    let Blkio {
        weight,
        weight_device,
        read_bps,
        write_bps,
        read_iops,
        write_iops,
    } = blkio;
    forget_disks(&mut old.conf, blkio);
    let disks = &mut old.blkio;
    disks.weight = weight.or(disks.weight);
    disks.weight_device.extend(weight_device.clone());
    disks.read_bps.extend(read_bps.clone());
    disks.write_bps.extend(write_bps.clone());
    disks.read_iops.extend(read_iops.clone());
    disks.write_iops.extend(write_iops.clone());
    old.conf.extend(conf.clone());
}

/// Takes out of `conf` what it says of disks that `asked` is about.
fn forget_disks(conf: &mut BTreeMap<String, String>, asked: &Blkio) {
    let number = |path: &String| limits::disk("throttle", path).ok();
    let weighed: Vec<String> = asked.weight_device.keys().filter_map(number).collect();
    for file in ["io.weight", "io.bfq.weight"] {
        let first = conf.get(file).and_then(|v| v.split_whitespace().next());
        let all = first.is_some_and(|w| w == "default" || !w.contains(':'));
        if all && asked.weight.is_some() || weighed.iter().any(|n| first == Some(n.as_str())) {
            conf.remove(file);
        }
    }
    for (rates, key) in [
        (&asked.read_bps, "rbps="),
        (&asked.write_bps, "wbps="),
        (&asked.read_iops, "riops="),
        (&asked.write_iops, "wiops="),
    ] {
        let disks: Vec<String> = rates.keys().filter_map(number).collect();
        let Some(line) = conf.get_mut("io.max") else {
            return;
        };
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if words.first().is_some_and(|w| disks.iter().any(|d| d == w)) {
            words.retain(|word| !word.starts_with(key));
            *line = words.join(" ");
        }
        if !line.contains('=') {
            conf.remove("io.max");
        }
    }
}

/// A quota and a period that were given in the kernel's words become the flags' own: one of them alone may be changed.
fn unfold_cpu(old: &mut Limits) {
    let words = old.conf.get("cpu.max").and_then(|v| v.split_once(' '));
    if let Some((quota, period)) = words
        && let Ok(period) = period.trim().parse()
        && let Some(quota) = match quota {
            "max" => Some(-1),
            n => n.parse().ok(),
        }
    {
        old.conf.remove("cpu.max");
        (old.cpus, old.cpu_quota, old.cpu_period) = (None, Some(quota), Some(period));
    }
}

/// `--cpus` takes the place of a quota and its period; one of these alone leaves the other as it is.
fn merge_cpu(old: &mut Limits, cpus: Option<f64>, quota: Option<i64>, period: Option<u64>) {
    if cpus.is_some() {
        (old.cpus, old.cpu_quota, old.cpu_period) = (cpus, None, None);
    } else if quota.is_some() || period.is_some() {
        if let Some((was, every)) = old.cpus.take().and_then(limits::quota) {
            (old.cpu_quota, old.cpu_period) = (Some(was), Some(every));
        }
        old.cpu_quota = quota.or(old.cpu_quota);
        old.cpu_period = period.or(old.cpu_period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_stays() {
        let mut limits = Limits {
            cpus: Some(1.5),
            pids: Some(100),
            ..Limits::default()
        };
        merge(
            &mut limits,
            &Limits {
                pids: Some(7),
                cpuset_cpus: Some("0".to_owned()),
                ..Limits::default()
            },
        );
        assert_eq!((limits.cpus, limits.pids), (Some(1.5), Some(7)));
        assert_eq!(limits.cpuset_cpus.as_deref(), Some("0"));
    }

    #[test]
    fn a_new_memory_limit_forgets_the_old_swap() {
        let mut limits = Limits::default();
        limits.memory.limit = Some(64 << 20);
        limits.memory.swap = Some(65 << 20);
        let mut change = Limits::default();
        change.memory.limit = Some(0);
        merge(&mut limits, &change);
        assert_eq!((limits.memory.limit, limits.memory.swap), (Some(0), None));
    }

    #[test]
    fn a_quota_takes_the_place_of_cpus_and_back() {
        let mut limits = Limits {
            cpus: Some(0.5),
            ..Limits::default()
        };
        merge_cpu(&mut limits, None, None, Some(200_000));
        let now = (limits.cpus, limits.cpu_quota, limits.cpu_period);
        assert_eq!(now, (None, Some(50_000), Some(200_000)));
        merge_cpu(&mut limits, Some(2.0), None, None);
        let now = (limits.cpus, limits.cpu_quota, limits.cpu_period);
        assert_eq!(now, (Some(2.0), None, None));
    }

    fn conf(pairs: &[(&str, &str)]) -> Limits {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Limits {
            conf: pairs.collect(),
            ..Limits::default()
        }
    }

    #[test]
    fn a_flag_takes_the_place_of_what_was_said_in_the_kernels_words() {
        let said = [
            ("pids.max", "50"),
            ("memory.max", "1"),
            ("memory.swap.max", "2"),
            ("cpuset.cpus", "0"),
            ("misc.max", "x 1"),
            ("io.weight", "default 50"),
        ];
        let mut limits = conf(&said);
        let mut new = Limits {
            pids: Some(500),
            cpuset_cpus: Some("1".to_owned()),
            ..Limits::default()
        };
        new.memory.limit = Some(64 << 20);
        merge(&mut limits, &new);
        let left: Vec<&str> = limits.conf.keys().map(String::as_str).collect();
        assert_eq!(left, ["io.weight", "misc.max"]);
        new = Limits::default();
        new.blkio.weight = Some(100);
        merge(&mut limits, &new);
        assert_eq!(limits.conf.len(), 1, "{:?}", limits.conf);
        // Of both in one command it is the kernel's words.
        let mut both = conf(&[("pids.max", "9")]);
        both.pids = Some(500);
        merge(&mut limits, &both);
        assert_eq!(limits.conf["pids.max"], "9");
    }

    #[test]
    fn a_period_alone_leaves_a_quota_of_the_kernels_words() {
        let mut limits = conf(&[("cpu.max", "20000 100000")]);
        let new = Limits {
            cpu_period: Some(50_000),
            ..Limits::default()
        };
        merge(&mut limits, &new);
        let now = (limits.cpu_quota, limits.cpu_period, limits.conf.len());
        assert_eq!(now, (Some(20_000), Some(50_000), 0));
    }

    /// A place with a stored container whose scope is made of plain files, and what its limits are then.
    fn stored(limits: Limits) -> (tempfile::TempDir, Place, Record, Scope) {
        let dir = tempfile::tempdir().expect("dir");
        let place = Place {
            dir: dir.path().join("c"),
            live: dir.path().join("live"),
        };
        let scope = Scope {
            path: dir.path().join("scope"),
            calls: 0,
        };
        for dir in [&place.dir, &scope.supervisor(), &scope.container()] {
            std::fs::create_dir_all(dir).expect("dir");
        }
        std::fs::write(scope.container().join("pids.max"), "50\n").expect("pids.max");
        let stored = Stored {
            version: 1,
            request: crate::container::request::Request {
                limits,
                ..Default::default()
            },
            mounts: Vec::new(),
            image_id: None,
        };
        stored.write(&place.dir).expect("request");
        let record: Record = serde_json::from_value(serde_json::json!({
            "version": 1, "id": "a".repeat(64), "name": "n", "image": "i", "image_id": null,
            "command": ["sh"], "created": "2026-01-01T00:00:00Z", "state": "running",
            "auto_remove": false,
        }))
        .expect("record");
        place.write(&record).expect("record");
        (dir, place, record, scope)
    }

    fn pids_only() -> cgroup::Availability {
        cgroup::Availability {
            rung: cgroup::Rung::Delegated { own: "/".into() },
            controllers: vec!["pids".to_owned()],
            mount: None,
        }
    }

    #[test]
    fn what_cannot_be_recorded_is_not_in_force() {
        let limits = Limits {
            pids: Some(50),
            ..Limits::default()
        };
        let (_dir, place, mut record, scope) = stored(limits);
        let change = Change {
            limits: Limits {
                pids: Some(500),
                ..Limits::default()
            },
            restart: Some(Restart::Always),
            ..Change::default()
        };
        let shown = || std::fs::read_to_string(scope.container().join("pids.max")).expect("pids");
        let asked = || Stored::read(&place.dir).expect("stored").request;
        // In the way of a file that is written, and of one that takes its place.
        for name in ["request.new", "record.new", "record.json"] {
            let path = place.dir.join(name);
            let aside = place.dir.join("aside");
            let _ = std::fs::rename(&path, &aside);
            std::fs::create_dir(&path).expect(name);
            apply(&place, &mut record, &change, &pids_only(), Some(&scope)).expect_err(name);
            assert_eq!(shown().trim(), "50", "{name}");
            assert_eq!(record.restart, Restart::No, "{name}");
            std::fs::remove_dir(&path).expect(name);
            let _ = std::fs::rename(&aside, &path);
        }
        apply(&place, &mut record, &change, &pids_only(), Some(&scope)).expect("update");
        assert_eq!((shown().trim(), asked().limits.pids), ("500", Some(500)));
        assert_eq!(
            (record.restart, asked().restart),
            (Restart::Always, Restart::Always)
        );
        let left = std::fs::read_dir(&place.dir).expect("dir").flatten();
        let left = left.filter(|e| e.file_name().to_string_lossy().ends_with(".new"));
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn a_restart_policy_is_changed_whatever_became_of_a_disk() {
        let mut limits = Limits::default();
        limits.blkio.read_bps.insert("/dev/nosuch".to_owned(), 1);
        let (_dir, place, mut record, scope) = stored(limits);
        let mut change = Change {
            restart: Some(Restart::Always),
            ..Change::default()
        };
        let none = apply(&place, &mut record, &change, &pids_only(), Some(&scope));
        assert_eq!(
            (none.expect("update"), record.restart),
            (None, Restart::Always)
        );
        change.limits.pids = Some(7);
        apply(&place, &mut record, &change, &pids_only(), Some(&scope)).expect_err("no disk");
    }
}
