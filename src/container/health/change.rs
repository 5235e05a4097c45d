//! Changing how a container that is there is checked: `update --health-*`.
//!
//! What is asked for alters the plan flag by flag; what was found before stays. On a container that runs the timer begins
//! anew, with a check at once, and until there is a result the status is `reset`, as podman has it. A new startup check
//! begins with the next start.

use serde::{Deserialize, Serialize};

use super::{Check, Health, OnFailure, Plan, Status, USUAL, check_destination};
use crate::error::{Result, usage};

/// What to change; what is `None` in it stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// `--no-healthcheck`.
    pub off: bool,
    /// Of the check.
    pub check: Fields,
    /// Of the startup check.
    pub startup: Fields,
    /// `--health-on-failure`.
    pub on_failure: Option<OnFailure>,
    /// `--health-max-log-count`.
    pub log_count: Option<u32>,
    /// `--health-max-log-size`.
    pub log_size: Option<u32>,
    /// `--health-log-destination`.
    pub log_destination: Option<String>,
}

/// Of one check; times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fields {
    /// As [`super::test()`] reads it.
    pub test: Option<Vec<String>>,
    /// See [`Check`], as the rest.
    pub start_period: Option<u64>,
    /// From the end of one check to the next.
    pub interval: Option<u64>,
    /// After which it has failed.
    pub timeout: Option<u64>,
    /// Failures in a row.
    pub retries: Option<u32>,
    /// How often it must pass.
    pub successes: Option<u32>,
}

impl Fields {
    fn any(&self) -> bool {
        *self != Fields::default()
    }

    /// `old` with these; where there is none to be altered, `retries` is what is usual.
    fn over(&self, old: Option<&Check>, retries: u32) -> Check {
        let new = || Check {
            interval: USUAL,
            timeout: USUAL,
            retries,
            ..Check::default()
        };
        let mut check = old
            .filter(|c| c.command().is_some())
            .cloned()
            .unwrap_or_else(new);
        if let Some(test) = &self.test {
            check.test.clone_from(test);
        }
        check.start_period = self.start_period.unwrap_or(check.start_period);
        check.interval = self.interval.unwrap_or(check.interval);
        check.timeout = self.timeout.unwrap_or(check.timeout);
        check.retries = self.retries.unwrap_or(check.retries);
        check.successes = self.successes.unwrap_or(check.successes);
        check
    }
}

impl Change {
    /// There is something to change.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Change::default()
    }

    /// What is run, or when, changes.
    #[must_use]
    pub fn resets(&self) -> bool {
        self.off || self.check.any() || self.startup.any()
    }

    /// The plan after it.
    ///
    /// # Errors
    /// There is no check that could be changed; there is no such place for the results.
    pub fn over(&self, old: Option<&Plan>) -> Result<Plan> {
        let none = || Check {
            test: vec!["NONE".to_owned()],
            ..Check::default()
        };
        let mut plan = old.cloned().unwrap_or_else(|| Plan::of(none()));
        if self.off {
            if self.check.any() || self.startup.any() || self.on_failure.is_some() {
                let text = "cannot specify both --no-healthcheck and other HealthCheck flags";
                return Err(usage(text).into());
            }
            (plan.check, plan.startup, plan.on_failure) = (none(), None, OnFailure::None);
        }
        if self.check.any() {
            plan.check = self.check.over(Some(&plan.check), 3);
        }
        if self.startup.any() {
            let startup = self.startup.over(plan.startup.as_ref(), 0);
            plan.startup = Some(startup).filter(|c| !none().test.eq(&c.test));
        }
        plan.on_failure = self.on_failure.unwrap_or(plan.on_failure);
        plan.log_count = self.log_count.unwrap_or(plan.log_count);
        plan.log_size = self.log_size.unwrap_or(plan.log_size);
        if let Some(destination) = &self.log_destination {
            check_destination(destination)?;
            plan.log_destination.clone_from(destination);
        }
        let asks = self.check.any() || self.startup.any();
        let follows = self.on_failure.is_some_and(|a| a != OnFailure::None);
        let wants = (asks && !self.switches_off()) || follows;
        if wants && plan.check.command().is_none() {
            let text = "changing the health check of a container that has none";
            return Err(usage(text).hint("--health-cmd sets one").into());
        }
        if let Some(startup) = &plan.startup
            && startup.command().is_none()
        {
            return Err(usage("startup healthcheck command is not set")
                .hint("--health-startup-cmd sets one")
                .into());
        }
        Ok(plan)
    }

    /// `--health-cmd none`.
    fn switches_off(&self) -> bool {
        self.check.test.as_ref().is_some_and(|t| t[..] == ["NONE"])
    }
}

impl Health {
    /// As the container is now that its plan has been changed to `plan`; `live`: it runs.
    pub fn change(&mut self, plan: &Plan, change: &Change, live: bool) {
        if plan.check.command().is_none() {
            *self = Health::default();
            return;
        }
        if plan.startup.is_none() {
            self.startup_passed = None;
        }
        if live && change.resets() {
            self.status = Status::Reset;
        }
        self.trim(plan);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Fields {
        Fields {
            test: Some(super::super::test(text)),
            ..Fields::default()
        }
    }

    #[test]
    fn flags_alter_a_plan_one_by_one() {
        let first = Change {
            check: command("true"),
            ..Change::default()
        };
        let plan = first.over(None).unwrap();
        let check = &plan.check;
        assert_eq!(check.test, ["CMD-SHELL", "true"]);
        let numbers = (check.interval, check.timeout, check.retries);
        assert_eq!(numbers, (USUAL, USUAL, 3));
        let second = Change {
            check: Fields {
                interval: Some(7),
                ..Fields::default()
            },
            on_failure: Some(OnFailure::Kill),
            ..Change::default()
        };
        let plan = second.over(Some(&plan)).unwrap();
        assert_eq!((plan.check.interval, plan.check.retries), (7, 3));
        assert_eq!(plan.on_failure, OnFailure::Kill);
        assert!(
            !Change {
                log_size: Some(1),
                ..Change::default()
            }
            .resets()
        );
        let off = Change {
            off: true,
            ..Change::default()
        };
        let plan = off.over(Some(&plan)).unwrap();
        assert_eq!(
            (plan.check.command(), plan.on_failure),
            (None, OnFailure::None)
        );
        // What was before is no part of a new one.
        let plan = first.over(Some(&plan)).unwrap();
        assert_eq!(plan.check.interval, USUAL);
        let none = Change {
            check: command("none"),
            ..Change::default()
        };
        assert_eq!(none.over(Some(&plan)).unwrap().check.command(), None);
    }

    #[test]
    fn what_is_not_there_cannot_be_changed() {
        let retries = Fields {
            retries: Some(1),
            ..Fields::default()
        };
        let check = Change {
            check: retries.clone(),
            ..Change::default()
        };
        let startup = Change {
            startup: retries,
            ..Change::default()
        };
        let follows = Change {
            on_failure: Some(OnFailure::Stop),
            ..Change::default()
        };
        for change in [&check, &startup, &follows] {
            assert!(change.over(None).is_err(), "{change:?}");
        }
        let both = Change {
            off: true,
            check: command("true"),
            ..Change::default()
        };
        assert!(both.over(None).is_err());
        let plan = Change {
            check: command("true"),
            startup: command("test -e /up"),
            ..Change::default()
        };
        let plan = plan.over(None).unwrap();
        let startup = plan.startup.clone().unwrap();
        assert_eq!((startup.retries, startup.interval), (0, USUAL));
        assert!(startup.command().is_some());
    }

    #[test]
    fn a_change_is_told_by_the_status_until_the_next_result() {
        let change = Change {
            check: command("true"),
            log_count: Some(1),
            ..Change::default()
        };
        let plan = change.over(None).unwrap();
        let mut health = Health {
            status: Status::Unhealthy,
            failing_streak: 4,
            log: vec![super::super::Entry::default(); 3],
            ..Health::default()
        };
        health.change(&plan, &change, true);
        let now = (health.status, health.failing_streak, health.log.len());
        assert_eq!(now, (Status::Reset, 4, 1));
        health.take(&plan, super::super::Entry::default(), 0);
        assert_eq!(health.status, Status::Healthy);
    }
}
