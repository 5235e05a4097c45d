//! `update`: limits, the restart policy and the health check of a container that is there, running or not.
//!
//! Whoever may write the record does it: the supervisor of a live container, who also sets the limits on its control
//! group, else the command itself. The stored request holds them for the next start. Limits are set first: one
//! that cannot be kept changes nothing.

use std::time::Duration;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::ask::{Heard, Question, ask};
use super::events::Action;
use super::health;
use super::limits;
use super::make::Stored;
use super::prepare::with_default_limits;
use super::record::{Containers, Place, Record, careful_json, no_such};
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
pub(super) fn apply(
    place: &Place,
    record: &mut Record,
    change: &Change,
    cgroups: &cgroup::Availability,
    scope: Option<&Scope>,
) -> Result<cgroup::Limits> {
    let mut stored = Stored::read(&place.dir)?;
    merge(&mut stored.request.limits, &change.limits);
    if record.auto_remove && change.restart.is_some_and(|r| r != Restart::No) {
        return Err(usage("the --rm option conflicts with --restart").into());
    }
    let health = change
        .health
        .any()
        .then(|| change.health.over(record.healthcheck.as_ref()));
    let health = health.transpose()?;
    let request = with_default_limits(&stored.request, cgroups);
    limits::check_memory(&request.limits.memory)?;
    let resources = limits::resources(&request.limits)?;
    let wanted = cgroup::Limits::from_resources(&resources)?;
    if change.limits.any() {
        cgroups.check(&wanted)?;
        if let Some(scope) = scope {
            scope.apply(&wanted)?;
        }
        // What `inspect` shows; it is made anew at the next start.
        let config = place.dir.join("config.json");
        if let Some(mut spec) = files::read_json::<Spec>(&config)? {
            if let Some(linux) = spec.linux_mut() {
                linux.set_resources(Some(resources));
            }
            careful_json(&config, &spec)?;
        }
    }
    if let Some(restart) = change.restart {
        stored.request.restart = restart;
        record.restart = restart;
    }
    stored.write(&place.dir)?;
    if let Some(plan) = health {
        record
            .health
            .change(&plan, &change.health, record.state.live());
        record.health.write(place, &plan);
        record.healthcheck = Some(plan);
    }
    place.replace(record)?;
    Ok(wanted)
}

fn merge(old: &mut Limits, new: &Limits) {
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
    let disks = &mut old.blkio;
    disks.weight = weight.or(disks.weight);
    disks.weight_device.extend(weight_device.clone());
    disks.read_bps.extend(read_bps.clone());
    disks.write_bps.extend(write_bps.clone());
    disks.read_iops.extend(read_iops.clone());
    disks.write_iops.extend(write_iops.clone());
    old.conf.extend(conf.clone());
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
}
