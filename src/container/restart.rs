//! Restart policies: when a container that has ended is started again, and how soon.
//!
//! The supervisor does it: when everything of a run is taken down it is a process with one thread again, and brings the next one up
//! (`supervisor/mod.rs`). While it waits it listens: whoever stops the container then ends the wait.
//!
//! A container is not started again when somebody stopped it, or when the supervisor itself got SIGTERM (the session or
//! the host ends). What the policy would have done in a supervisor that was killed is done by the next command ([`super::start::revive`]);
//! after a boot, by the user unit `rless-restart.service`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Result, usage};

/// `--restart`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed; so many times, if there is a number.
    OnFailure(Option<u32>),
    /// However it ended.
    Always,
    /// As `Always`; a boot does not start it if it was stopped before.
    UnlessStopped,
}

impl Restart {
    /// Whether one that ended with `code` is started again, having been so `restarts` times.
    #[must_use]
    pub fn again(self, code: i32, restarts: u32) -> bool {
        match self {
            Restart::No => false,
            Restart::OnFailure(most) => code != 0 && most.is_none_or(|most| restarts < most),
            Restart::Always | Restart::UnlessStopped => true,
        }
    }

    /// How often at most, where there is a bound; else 0.
    #[must_use]
    pub fn most(self) -> u32 {
        match self {
            Restart::OnFailure(Some(most)) => most,
            _ => 0,
        }
    }

    /// podman's word for it, without the number.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Restart::No => "no",
            Restart::OnFailure(_) => "on-failure",
            Restart::Always => "always",
            Restart::UnlessStopped => "unless-stopped",
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Restart::OnFailure(Some(most)) => write!(f, "on-failure:{most}"),
            other => f.write_str(other.word()),
        }
    }
}

impl FromStr for Restart {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Restart> {
        let (word, number) = match text.split_once(':') {
            Some((word, number)) => (word, Some(number)),
            None => (text, None),
        };
        let most =
            match number {
                None => None,
                Some(_) if word != "on-failure" => {
                    return Err(usage(
                    "restart policy retries can only be specified with on-failure restart policy",
                )
                .into());
                }
                Some(number) => Some(number.parse().map_err(|_| {
                    usage(format!("{text:?}: the number of restarts is no number"))
                })?),
            };
        Ok(match word {
            "no" | "never" | "" => Restart::No,
            // As podman: none at all is no bound.
            "on-failure" => Restart::OnFailure(most.filter(|n| *n > 0)),
            "always" => Restart::Always,
            "unless-stopped" => Restart::UnlessStopped,
            other => {
                return Err(usage(format!("invalid restart policy {other:?}"))
                    .hint("one of no, on-failure[:TIMES], always, unless-stopped")
                    .into());
            }
        })
    }
}

/// How long to wait before each start: a tenth of a second, twice as long each time, a minute at most.
#[derive(Debug)]
pub(super) struct Pace {
    next: Duration,
}

impl Pace {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(60);
    /// One that ran for so long had nothing to do with the last time.
    const WELL: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Pace {
        Pace { next: Pace::FIRST }
    }

    /// It has ended after it `ran` so long: how long to wait.
    pub(super) fn pause(&mut self, ran: Duration) -> Duration {
        if ran >= Pace::WELL {
            self.next = Pace::FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(Pace::LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_shown_alike() {
        for text in [
            "no",
            "on-failure",
            "on-failure:3",
            "always",
            "unless-stopped",
        ] {
            assert_eq!(text.parse::<Restart>().unwrap().to_string(), text);
        }
        for bad in ["always:3", "sometimes", "on-failure:x", "on-failure:-1"] {
            assert!(bad.parse::<Restart>().is_err(), "{bad}");
        }
    }

    #[test]
    fn failures_are_counted_and_successes_end_it() {
        let three = Restart::OnFailure(Some(3));
        assert!(three.again(1, 2));
        assert!(!three.again(1, 3));
        assert!(!three.again(0, 0));
        assert!(Restart::OnFailure(None).again(1, 1000));
        assert!(Restart::Always.again(0, 1000));
        assert!(!Restart::No.again(1, 0));
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_again_after_a_good_run() {
        let mut pace = Pace::new();
        let ms = |pace: &mut Pace, ran| pace.pause(Duration::from_secs(ran)).as_millis();
        assert_eq!([100, 200, 400], [0, 9, 0].map(|ran| ms(&mut pace, ran)));
        for _ in 0..20 {
            ms(&mut pace, 0);
        }
        assert_eq!(ms(&mut pace, 0), 60_000);
        assert_eq!(ms(&mut pace, 10), 100);
    }
}
