//! `update`: limits and the restart policy of a container that is there, running or not.
//!
//! Whoever may write the record does it: the supervisor of a live container, who also sets the limits on its control
//! group, else the command itself. The stored request holds them for the next start. Limits are set first: one
//! that cannot be kept changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ask::{Heard, Question, ask};
use super::events::Action;
use super::make::Stored;
use super::prepare::with_default_limits;
use super::record::{Containers, Place, Record, no_such};
use super::request::{Limits, Memory};
use super::restart::Restart;
use super::spec;
use super::stop::elsewhere;
use crate::cgroup::{self, Scope};
use crate::error::{Result, failed, usage};

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
}

/// Changes the container of `record`.
///
/// # Errors
/// A limit cannot be kept on this host.
pub fn update(containers: &Containers, record: &Record, change: &Change) -> Result<()> {
    elsewhere(record)?;
    let mut live = record.state.live();
    for _ in 0..5 {
        if live {
            let question = Question::Update {
                change: change.clone(),
            };
            match ask(containers, &record.id, &question, Some(PATIENCE))? {
                Heard::Done(_) => return Ok(()),
                Heard::Nobody => {}
                Heard::Silence => {
                    return Err(failed("the container's supervisor does not answer").into());
                }
            }
        }
        let gone = || no_such(&record.id);
        let _lock = containers.lock(&record.id)?.ok_or_else(gone)?;
        let place = containers.place(&record.id);
        let mut now = containers.read(&place)?.ok_or_else(gone)?;
        live = now.state.live();
        if !live {
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
    let request = with_default_limits(&stored.request, cgroups);
    let wanted = cgroup::Limits::from_resources(&spec::resources(&request))?;
    if change.limits.any() {
        cgroups.check(&wanted)?;
        if let Some(scope) = scope {
            scope.apply(&wanted)?;
        }
    }
    if let Some(restart) = change.restart {
        stored.request.restart = restart;
        record.restart = restart;
    }
    stored.write(&place.dir)?;
    place.replace(record)?;
    Ok(wanted)
}

fn merge(old: &mut Limits, new: &Limits) {
    let Limits {
        memory: Memory {
            limit,
            swap,
            reservation,
        },
        cpus,
        cpu_shares,
        cpuset_cpus,
        pids,
    } = new;
    old.memory.limit = limit.or(old.memory.limit);
    old.memory.swap = swap.or(old.memory.swap);
    // Twice the memory, where nothing was said of it: that goes with the memory.
    old.memory.reservation = reservation.or(old.memory.reservation);
    old.cpus = cpus.or(old.cpus);
    old.cpu_shares = cpu_shares.or(old.cpu_shares);
    old.cpuset_cpus = cpuset_cpus.clone().or_else(|| old.cpuset_cpus.take());
    old.pids = pids.or(old.pids);
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
}
