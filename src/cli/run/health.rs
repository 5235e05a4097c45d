//! `--health-*` and `--no-healthcheck`.

use crate::container::health::{self, Asked, Change, Check, Fields, OnFailure};
use crate::error::{Result, usage};

/// What the container's health is told by.
#[derive(Debug, clap::Args)]
pub(crate) struct Checks {
    /// Command that tells whether the container is well: a line for the shell, a JSON array, or none
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// No health check, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
    /// Time between two checks, 30s by default; disable: only when asked to
    #[arg(long, value_name = "TIME")]
    health_interval: Option<String>,
    /// Time after which a check has failed, 30s by default
    #[arg(long, value_name = "TIME")]
    health_timeout: Option<String>,
    /// Failures in a row that make the container unhealthy, 3 by default
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// Time after the start in which failures do not count
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    health_start_period: Option<String>,
    /// What follows when it becomes unhealthy: none, kill, restart, stop
    #[arg(long, value_name = "ACTION")]
    health_on_failure: Option<String>,
    /// Results that are kept, 5 by default; 0: all
    #[arg(long, value_name = "NUMBER")]
    health_max_log_count: Option<u32>,
    /// Bytes of each that are kept, 500 by default; 0: all
    #[arg(long, value_name = "BYTES")]
    health_max_log_size: Option<u32>,
    /// Where the results go: local, events_logger, or a directory for a copy of them
    #[arg(long, value_name = "DESTINATION")]
    health_log_destination: Option<String>,
    /// Another check, which runs instead until it has passed
    #[arg(long, value_name = "COMMAND")]
    health_startup_cmd: Option<String>,
    /// Time between two of those, 30s by default
    #[arg(long, value_name = "TIME")]
    health_startup_interval: Option<String>,
    /// Time after which one of those has failed, 30s by default
    #[arg(long, value_name = "TIME")]
    health_startup_timeout: Option<String>,
    /// How often those may fail before the container is started again; 0: for ever
    #[arg(long, value_name = "NUMBER")]
    health_startup_retries: Option<u32>,
    /// How often in a row it must pass; 0: once
    #[arg(long, value_name = "NUMBER")]
    health_startup_success: Option<u32>,
}

impl Checks {
    pub(super) fn asked(&self) -> Result<Asked> {
        let conflict =
            |flag: &str| usage(format!("cannot specify both --no-healthcheck and {flag}"));
        let asks = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
        if self.no_healthcheck && asks(&self.health_cmd) {
            return Err(conflict("--health-cmd").into());
        }
        if self.no_healthcheck && asks(&self.health_startup_cmd) {
            return Err(conflict("--health-startup-cmd").into());
        }
        if self.health_retries == Some(0) {
            return Err(usage("healthcheck-retries must be greater than 0").into());
        }
        let startup = self.health_startup_cmd.as_deref().filter(|c| !c.is_empty());
        let startup = startup.map(|command| self.startup(command)).transpose()?;
        let period = self.health_start_period.as_deref();
        Ok(Asked {
            test: self.health_cmd.as_deref().map(health::test),
            off: self.no_healthcheck,
            interval: interval(self.health_interval.as_deref())?,
            timeout: timeout(self.health_timeout.as_deref())?,
            start_period: period
                .map(|t| health::time("healthcheck-start-period", t))
                .transpose()?,
            retries: self.health_retries,
            on_failure: OnFailure::parse(self.health_on_failure.as_deref().unwrap_or_default())?,
            startup,
            log_count: self.health_max_log_count,
            log_size: self.health_max_log_size,
            log_destination: self.health_log_destination.clone(),
        })
    }

    /// What `update` is to change.
    pub(crate) fn changes(&self) -> Result<Change> {
        if self.health_retries == Some(0) {
            return Err(usage("healthcheck-retries must be greater than 0").into());
        }
        let period = self.health_start_period.as_deref();
        let period = period.map(|t| health::time("healthcheck-start-period", t));
        let follows = self.health_on_failure.as_deref();
        Ok(Change {
            off: self.no_healthcheck,
            check: Fields {
                test: self.health_cmd.as_deref().map(health::test),
                start_period: period.transpose()?,
                interval: interval(self.health_interval.as_deref())?,
                timeout: timeout(self.health_timeout.as_deref())?,
                retries: self.health_retries,
                successes: None,
            },
            startup: Fields {
                test: self.health_startup_cmd.as_deref().map(health::test),
                start_period: None,
                interval: interval(self.health_startup_interval.as_deref())?,
                timeout: timeout(self.health_startup_timeout.as_deref())?,
                retries: self.health_startup_retries,
                successes: self.health_startup_success,
            },
            on_failure: follows.map(OnFailure::parse).transpose()?,
            log_count: self.health_max_log_count,
            log_size: self.health_max_log_size,
            log_destination: self.health_log_destination.clone(),
        })
    }

    fn startup(&self, command: &str) -> Result<Check> {
        Ok(Check {
            test: health::test(command),
            start_period: 0,
            interval: interval(self.health_startup_interval.as_deref())?.unwrap_or(health::USUAL),
            timeout: timeout(self.health_startup_timeout.as_deref())?.unwrap_or(health::USUAL),
            retries: self.health_startup_retries.unwrap_or(0),
            successes: self.health_startup_success.unwrap_or(0),
        })
    }
}

fn interval(text: Option<&str>) -> Result<Option<u64>> {
    let nanos = |text| match text {
        "disable" => Ok(0),
        text => health::time("healthcheck-interval", text),
    };
    text.map(nanos).transpose()
}

fn timeout(text: Option<&str>) -> Result<Option<u64>> {
    let nanos = text
        .map(|t| health::time("healthcheck-timeout", t))
        .transpose()?;
    if nanos == Some(0) {
        return Err(usage("healthcheck-timeout must be at least 1 second").into());
    }
    Ok(nanos)
}
