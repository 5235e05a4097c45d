//! What the supervisor does when it is asked: see [`crate::container::ask`] for the questions.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value as Json;

use super::relay::Relay;
use super::sessions::Around;
use crate::container::ask::Question;
use crate::container::events::Action;
use crate::container::protocol::Frame;
use crate::container::record::{STOP_TIMEOUT, State};
use crate::container::stop::improper;
use crate::container::update;
use crate::error::{Fault, Kind, Result, failed, usage};
use crate::sys::supervise::pidfd_kill;

impl Relay<'_> {
    /// Takes the question of client `i`.
    pub(super) fn asked(&mut self, i: usize, question: &[u8]) {
        let unknown = || usage("the container's supervisor is of another version of rless");
        let answer = match serde_json::from_slice(question) {
            Err(_) => Err(unknown().into()),
            Ok(Question::Check) => return self.asked_for_check(i),
            Ok(question) => self.act(&question),
        };
        match answer {
            Ok(None) => self.front.clients[i].awaits_end = true,
            Ok(Some(value)) => self.front.clients[i].answer(Ok(value)),
            Err(e) => self.front.clients[i].answer(Err(e)),
        }
    }

    /// Does what was asked for; `None`: the end of the container is the answer.
    fn act(&mut self, question: &Question) -> Result<Option<Json>> {
        match question {
            Question::Wait => Ok(None),
            Question::Stop { timeout } => {
                self.stop(*timeout);
                Ok(None)
            }
            Question::Kill { signal } => {
                self.kill(*signal)?;
                self.tell(Action::Kill);
                Ok(Some(Json::Null))
            }
            // The result is the answer: see `asked`.
            Question::Check => Ok(None),
            Question::Pause => self.freeze(true).map(Some),
            Question::Unpause => self.freeze(false).map(Some),
            Question::Freeze { dir, content } => {
                let waits = "it is between two runs: its restart policy waits";
                let cow = self.job.cow.as_ref().context(waits)?;
                cow.freeze(dir, *content)?;
                Ok(Some(Json::Null))
            }
            Question::Update { change } => {
                let job = &mut *self.job;
                let record = &mut job.record;
                job.limits = update::apply(&job.place, record, change, &job.cgroups, self.scope)?;
                self.tell(Action::Update);
                Ok(Some(Json::Null))
            }
            Question::Rename { name } => {
                let old = std::mem::replace(&mut self.job.record.name, name.clone());
                if let Err(e) = self.job.place.replace(&self.job.record) {
                    self.job.record.name = old;
                    return Err(e);
                }
                self.tell(Action::Rename);
                Ok(Some(Json::Null))
            }
        }
    }

    /// Ends the container for good, first kindly.
    pub(super) fn stop(&mut self, timeout: Option<u64>) {
        self.job.record.stopped_by_user = true;
        self.front.ending = true;
        self.end_kindly(timeout);
    }

    /// Ends this run of the container, first kindly.
    pub(super) fn end_kindly(&mut self, timeout: Option<u64>) {
        let record = &mut self.job.record;
        let timeout = timeout.or(record.stop_timeout).unwrap_or(STOP_TIMEOUT);
        let Some(init) = self.init else {
            return; // it waits to be started again: that wait is over now
        };
        let paused = record.state == State::Paused;
        record.state = State::Stopping;
        let signal = record.stop_signal.unwrap_or(libc::SIGTERM);
        self.write_record();
        if let Some(scope) = self.scope.filter(|_| paused) {
            // Nobody in there can heed a signal; what is killed need not be thawed before.
            let _ = pidfd_kill(init, libc::SIGKILL);
            let _ = scope.freeze(false);
            return;
        }
        let kill_at = Instant::now().checked_add(Duration::from_secs(timeout));
        let earliest = self.front.kill_at.into_iter().chain(kill_at).min();
        self.front.kill_at = earliest;
        let _ = pidfd_kill(init, if timeout == 0 { libc::SIGKILL } else { signal });
    }

    pub(super) fn kill(&mut self, signal: i32) -> Result<()> {
        let record = &mut self.job.record;
        let Some(init) = self.init else {
            return Err(improper(record, "can only kill running containers").into());
        };
        // As docker: who sends what ends a container does not want it back.
        if signal == libc::SIGKILL || signal == record.stop_signal.unwrap_or(libc::SIGTERM) {
            record.stopped_by_user = true;
            self.front.ending = true;
            self.write_record();
        }
        pidfd_kill(init, signal).context("sending the signal to the container")?;
        Ok(())
    }

    fn freeze(&mut self, frozen: bool) -> Result<Json> {
        let record = &mut self.job.record;
        let (from, to, act) = if frozen {
            (State::Running, State::Paused, "pausing")
        } else {
            (State::Paused, State::Running, "unpausing")
        };
        if record.state != from {
            let text = match (frozen, record.state) {
                (true, State::Paused) => format!("{:?} is already paused", record.id),
                (true, other) => format!("{:?} is not running, can't pause", other.word()),
                (false, _) => format!("{:?} is not paused, can't unpause", record.id),
            };
            return Err(failed(format!("{text}: container state improper")).into());
        }
        let Some(scope) = self.scope else {
            let text = format!("{act} container {}: it has no control group", record.id);
            return Err(failed(text)
                .hint("only cgroup v2 can freeze a container; `rless info` says why there is none")
                .into());
        };
        scope.freeze(frozen)?;
        record.state = to;
        self.write_record();
        if frozen {
            self.drop_checks();
        } else {
            self.resume_checks();
        }
        self.tell(if frozen {
            Action::Pause
        } else {
            Action::Unpause
        });
        Ok(Json::Null)
    }

    /// A container that was asked to end and has not is killed.
    pub(super) fn end_of_patience(&mut self) {
        if self.front.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.front.kill_at = None;
            if let Some(init) = self.init {
                let _ = pidfd_kill(init, libc::SIGKILL);
            }
        }
    }

    fn tell(&self, action: Action) {
        self.job.containers.emit(&self.job.record, action);
    }

    pub(super) fn write_record(&self) {
        if let Err(e) = self.job.place.replace(&self.job.record) {
            crate::trace::mark(&format!("writing the record: {e:#}"));
        }
    }

    /// Hands the connection of client `i` to a process beside the first one.
    pub(super) fn hand_over(&mut self, i: usize, request: &[u8]) {
        let improper = || {
            let text =
                "can only create exec sessions on running containers: container state improper";
            Fault::new(Kind::NoSession, text)
        };
        let socket = self.front.clients[i].fd();
        let begun = self.init.ok_or_else(|| improper().into()).and_then(|init| {
            let around = Around {
                job: self.job,
                init,
                scope: self.scope,
                agent: self.agent,
            };
            self.sessions.begin(around, socket, request)
        });
        match begun {
            Ok(()) => self.front.clients[i].leave(),
            Err(e) => {
                let code = crate::error::kind(&e).exit_code();
                let text = crate::error::report(&e);
                self.front.clients[i].push(&Frame::Error { code, text: &text });
            }
        }
    }
}
