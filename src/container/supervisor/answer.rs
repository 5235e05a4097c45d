//! What the supervisor does when it is asked: see [`crate::container::ask`] for the questions.

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::socket::{MsgFlags, send};
use serde_json::Value as Json;

use super::front::Again;
use super::relay::Relay;
use super::sessions::Around;
use crate::container::ask::{Question, answer};
use crate::container::events::Action;
use crate::container::exec;
use crate::container::protocol::Frame;
use crate::container::record::{STOP_TIMEOUT, State};
use crate::container::stop::{improper, unrestartable};
use crate::container::update;
use crate::error::{Result, failed, usage};
use crate::sys::supervise::pidfd_kill;

/// When a question is answered.
enum Answered {
    /// It is done.
    Now,
    /// When the container has ended for good.
    AtTheEnd,
    /// When what runs has ended.
    AtTheExit,
    /// When the container has been started again.
    WhenBegunAgain,
    /// When it is done, by who does it.
    ByAnother,
}

impl Relay<'_> {
    /// Takes the question of client `i`.
    pub(super) fn asked(&mut self, i: usize, question: &[u8]) {
        let unknown = || usage("the container's supervisor is of another version of rless");
        let answer = match serde_json::from_slice(question) {
            Err(_) => Err(unknown().into()),
            Ok(question) => self.act(i, question),
        };
        match answer {
            Ok(Answered::Now) => self.front.clients[i].answer(Ok(Json::Null)),
            Ok(Answered::AtTheEnd) => self.front.clients[i].awaits_end = true,
            Ok(Answered::AtTheExit) => self.front.clients[i].awaits_exit = true,
            Ok(Answered::WhenBegunAgain) => self.front.clients[i].awaits_restart = true,
            Ok(Answered::ByAnother) => {}
            Err(e) => self.front.clients[i].answer(Err(e)),
        }
    }

    /// Does what client `i` asked for.
    fn act(&mut self, i: usize, question: Question) -> Result<Answered> {
        match question {
            Question::Wait => return Ok(Answered::AtTheExit),
            Question::Stop { timeout } => {
                self.stop(timeout);
                return Ok(Answered::AtTheEnd);
            }
            Question::Restart { timeout } => {
                self.restart(timeout)?;
                return Ok(Answered::WhenBegunAgain);
            }
            Question::Kill { signal } => {
                self.kill(signal)?;
                self.tell(Action::Kill);
            }
            Question::Check => {
                self.asked_for_check(i);
                return Ok(Answered::ByAnother);
            }
            Question::Pause => self.freeze(true)?,
            Question::Hold => {
                self.freeze(true)?;
                self.front.clients[i].holds = true;
            }
            Question::Unpause => self.freeze(false)?,
            Question::Freeze { dir, content } => {
                self.freeze_files(i, dir, content)?;
                return Ok(Answered::ByAnother);
            }
            Question::Update { change } => {
                let job = &mut *self.job;
                let record = &mut job.record;
                let limits = update::apply(&job.place, record, &change, &job.cgroups, self.scope)?;
                job.limits = limits.unwrap_or_else(|| job.limits.clone());
                self.tell(Action::Update);
                if change.health.resets() {
                    self.renew_checks();
                }
            }
            Question::Rename { name } => {
                let old = std::mem::replace(&mut self.job.record.name, name);
                if let Err(e) = self.job.place.replace(&self.job.record) {
                    self.job.record.name = old;
                    return Err(e);
                }
                self.tell(Action::Rename);
            }
        }
        Ok(Answered::Now)
    }

    /// Makes a frozen state of its files for client `i` and answers when it is there. That syncs what the container wrote, so it is a
    /// thread's: the relay goes on meanwhile.
    fn freeze_files(&mut self, i: usize, dir: PathBuf, content: bool) -> Result<()> {
        let waits = "it is between two runs: its restart policy waits";
        let cow = self.job.cow.clone().context(waits)?;
        let socket = self.front.clients[i].fd().try_clone_to_owned();
        let socket = socket.context("keeping the client's connection")?;
        self.sessions.beside("rless-freeze", move || {
            let frozen = cow.freeze(&dir, content);
            for packet in answer(frozen.map(|()| Json::Null)) {
                // A client that is gone leaves what another sweeps.
                let _ = send(socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL);
            }
        })
    }

    /// Ends the container for good, first kindly.
    pub(super) fn stop(&mut self, timeout: Option<u64>) {
        self.job.record.stopped_by_user = true;
        self.front.ending = true;
        self.end_kindly(timeout);
    }

    /// Ends this run of the container, first kindly, for the next one.
    fn restart(&mut self, timeout: Option<u64>) -> Result<()> {
        let record = &self.job.record;
        if record.state == State::Paused {
            return Err(unrestartable(record).into());
        }
        if record.state == State::Stopping && self.front.ending {
            return Err(improper(record, "can only restart what is not being stopped").into());
        }
        self.job.containers.emit(record, Action::Restart);
        // A signal that somebody sent before is no reason any more to stay away.
        self.front.ending = false;
        self.front.again = Some(Again::Asked);
        if self.init.is_none() {
            self.until = Some(Instant::now());
        }
        self.end_kindly(timeout);
        Ok(())
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

    fn freeze(&mut self, frozen: bool) -> Result<()> {
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
            self.front.clients.iter_mut().for_each(|c| c.holds = false);
        }
        self.tell(if frozen {
            Action::Pause
        } else {
            Action::Unpause
        });
        Ok(())
    }

    /// Clients that have gone go; what one of them held frozen goes on.
    pub(super) fn clear_clients(&mut self) {
        if self.front.clients.iter().any(|c| c.gone() && c.holds)
            && self.job.record.state == State::Paused
            && let Err(e) = self.freeze(false)
        {
            crate::trace::mark(&format!("letting the container go on: {e:#}"));
        }
        self.front.clients.retain(|c| !c.gone());
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

    pub(super) fn tell(&self, action: Action) {
        self.job.containers.emit(&self.job.record, action);
    }

    pub(super) fn write_record(&mut self) {
        let job = &*self.job;
        let write = || job.place.replace(&job.record);
        // Behind what the container writes to a slow disk.
        if let Err(e) = self.front.busy(true, write) {
            crate::trace::mark(&format!("writing the record: {e:#}"));
        }
    }

    /// Hands the connection of client `i` to a process beside the first one.
    pub(super) fn hand_over(&mut self, i: usize, request: &[u8]) {
        let socket = self.front.clients[i].fd();
        let begun = self
            .init
            .ok_or_else(|| exec::improper().into())
            .and_then(|init| {
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
