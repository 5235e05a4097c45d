//! Health checks in the supervisor's loop: when one is due, it is begun; what it writes is read as it comes; how it ended
//! is judged ([`crate::container::health`]) and acted upon. Nothing here waits.
//!
//! A check is an exec session (`sessions.rs`) whose client is this process itself. One at a time: who asks while one
//! runs gets the next, which has begun after the question. One that overruns is killed with its process group; a
//! session that does not even then tell its end is left to itself. A paused container is not checked.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use super::front::Again;
use super::relay::Relay;
use super::sessions::Around;
use crate::container::events::{self, Action, Event};
use crate::container::exec::Session;
use crate::container::health::{Check, Entry, Health, OnFailure, Plan, Then, moment, shown};
use crate::container::protocol::{FRAME, Frame};
use crate::container::record::State;
use crate::error::{Result, failed};

/// How long the session of a check that was killed may take to say so.
const GRACE: Duration = Duration::from_secs(2);

/// The checks of one run of the container.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// When the timer is due.
    next: Option<Instant>,
    /// The one that runs.
    current: Option<Current>,
    /// Number of the one that runs, or ran last.
    number: u64,
    /// When the container started; the clock on the wall may be set meanwhile.
    started: Option<Instant>,
    /// How long it had run when the one that runs, or ran last, was begun.
    ran: Duration,
    /// Somebody asked for another.
    again: bool,
}

/// A check that runs.
#[derive(Debug)]
struct Current {
    socket: OwnedFd,
    began: Timestamp,
    startup: bool,
    timeout: Duration,
    /// When it is killed, or, when it has been, given up.
    deadline: Instant,
    killed: bool,
    output: Vec<u8>,
}

/// How a check ended: its code (0, 1, 125, -1) and why it could not be run.
type Ended = (i32, Option<String>);

impl Checks {
    /// For a container that has just started.
    pub(super) fn new(plan: Option<&Plan>, health: &Health) -> Checks {
        let timed = plan.is_some_and(|p| {
            let check = health.check(p);
            check.command().is_some() && check.pause().is_some()
        });
        Checks {
            next: timed.then(Instant::now),
            started: Some(Instant::now()),
            ..Checks::default()
        }
    }

    /// Readable when the check that runs has something to tell.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.current.as_ref().map(|c| c.socket.as_fd())
    }

    /// When there is something to do without being told.
    pub(super) fn wake(&self) -> Option<Instant> {
        match &self.current {
            Some(current) => Some(current.deadline),
            None => self.next,
        }
    }
}

impl Relay<'_> {
    /// Takes the question of client `i` for a check.
    pub(super) fn asked_for_check(&mut self, i: usize) {
        let record = &self.job.record;
        let plan = record.healthcheck.as_ref();
        let refusal = if record.state != State::Running || self.init.is_none() {
            "is not running"
        } else if plan.is_none_or(|p| p.check.command().is_none()) {
            "has no defined healthcheck"
        } else {
            self.front.clients[i].awaits_check = Some(self.checks.number + 1);
            self.checks.again = true;
            self.next_check();
            return;
        };
        let text = format!("container {} {refusal}", record.id);
        self.front.clients[i].answer(Err(failed(text).into()));
    }

    /// What has become due: a check, or the end of one that takes too long.
    pub(super) fn health_due(&mut self) {
        let now = Instant::now();
        match &mut self.checks.current {
            Some(current) if current.deadline > now => {}
            Some(current) if !current.killed => {
                current.kill();
                current.killed = true;
                current.deadline = now + GRACE;
            }
            Some(_) => self.check_ended((-1, None)),
            None if self.checks.next.is_some_and(|at| at <= now) => {
                self.checks.again = true;
                self.next_check();
            }
            None => {}
        }
    }

    /// Begins the next check, if there is to be one and none runs.
    fn next_check(&mut self) {
        let record = &self.job.record;
        let (Some(plan), Some(init)) = (&record.healthcheck, self.init) else {
            return;
        };
        if !self.checks.again || self.checks.current.is_some() || record.state != State::Running {
            self.checks.next = None; // the end of the one that runs, or `resume_checks`, sets it again
            return;
        }
        let startup = record.health.startup_passed.is_some();
        let check = record.health.check(plan).clone();
        (self.checks.again, self.checks.next) = (false, None);
        self.checks.number += 1;
        self.checks.ran = self
            .checks
            .started
            .map_or(Duration::ZERO, |at| at.elapsed());
        let around = Around {
            job: self.job,
            init,
            scope: self.scope,
            agent: self.agent,
        };
        let (began, timeout) = (Timestamp::now(), Duration::from_nanos(check.timeout));
        let begun = pair().and_then(|(ours, theirs)| {
            let request = serde_json::to_vec(&session(&check))?;
            self.sessions
                .begin_check(around, theirs.as_fd(), &request)?;
            Ok(ours)
        });
        match begun {
            Ok(socket) => {
                let deadline = Instant::now().checked_add(timeout);
                self.checks.current = Some(Current {
                    socket,
                    began,
                    startup,
                    timeout,
                    deadline: deadline
                        .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)),
                    killed: false,
                    output: Vec::new(),
                });
            }
            Err(e) => {
                let end = (125, Some(format!("{e:#}")));
                self.judge(began, startup, timeout, Vec::new(), end);
            }
        }
    }

    /// The check that runs has told something.
    pub(super) fn check_event(&mut self) {
        let most = self.job.record.healthcheck.as_ref();
        let most = most.map_or(0, Plan::output_bytes);
        let current = self.checks.current.as_mut();
        if let Some(end) = current.and_then(|c| c.read(most)) {
            self.check_ended(end);
        }
    }

    fn check_ended(&mut self, end: Ended) {
        if let Some(c) = self.checks.current.take() {
            let end = if c.killed { (-1, None) } else { end };
            self.judge(c.began, c.startup, c.timeout, c.output, end);
        }
    }

    /// Keeps and tells what a check gave, does what follows, and sees to the next.
    fn judge(
        &mut self,
        began: Timestamp,
        startup: bool,
        timeout: Duration,
        output: Vec<u8>,
        (code, why): Ended,
    ) {
        let now = Timestamp::now();
        let record = &mut self.job.record;
        let Some(plan) = &record.healthcheck else {
            return;
        };
        let mut output = String::from_utf8_lossy(&output).into_owned();
        output.extend(why.as_deref());
        let entry = Entry {
            start: moment(began),
            end: moment(now),
            exit_code: code,
            output,
        };
        let ran = u64::try_from(self.checks.ran.as_nanos()).unwrap_or(u64::MAX);
        let then = record.health.take(plan, entry.clone(), ran);
        let on_timer = record.health.check(plan).pause();
        record.health.write(&self.job.place, plan);
        if let Some(notify) = self.job.notify.as_ref().filter(|_| code == 0) {
            notify.healthy();
        }
        self.checks.next = match then {
            Then::Started => on_timer.map(|_| Instant::now()),
            _ => on_timer.and_then(|pause| Instant::now().checked_add(pause)),
        };
        let event = Event {
            health: record.health.status.word().to_owned(),
            failing_streak: Some(record.health.failing_streak),
            health_log: entry.output.clone(),
            ..Event::container(record, Action::HealthStatus)
        };
        events::emit(self.job.containers.events_dir(), &[event]);
        let number = self.checks.number;
        self.answer_check(number, &|| match (code, &why) {
            (-1, _) => {
                let text = format!(
                    "healthcheck command exceeded timeout of {}",
                    seconds(timeout)
                );
                Err(failed(text).into())
            }
            (125, Some(why)) => Err(failed(why.clone()).into()),
            _ => Ok(shown(&entry, startup)),
        });
        if let Then::Act(action) = then {
            self.unhealthy(action);
        }
        if self.checks.again {
            self.next_check();
        }
    }

    /// Does what is to follow.
    fn unhealthy(&mut self, action: OnFailure) {
        match action {
            OnFailure::None => {}
            // As if somebody had killed it: no restart policy.
            OnFailure::Kill => drop(self.kill(libc::SIGKILL)),
            OnFailure::Stop => self.stop(None),
            OnFailure::Restart => {
                self.front.again.get_or_insert(Again::Unhealthy);
                self.end_kindly(None);
            }
        }
    }

    /// The container is paused, or has ended: the check that runs counts for nothing, and who asked for it hears why.
    pub(super) fn drop_checks(&mut self) {
        if let Some(current) = self.checks.current.take() {
            current.kill();
        }
        (self.checks.next, self.checks.again) = (None, false);
        let id = self.job.record.id.clone();
        let stopped = || Err(failed(format!("container {id} is not running")).into());
        self.answer_check(u64::MAX, &stopped);
    }

    /// The plan has been changed: the check that runs is of no use any more, and what is due now is known to who
    /// began anew.
    pub(super) fn renew_checks(&mut self) {
        if self.init.is_none() {
            return; // the next run begins with it
        }
        if let Some(current) = self.checks.current.take() {
            current.kill();
        }
        let record = &self.job.record;
        let plan = record.healthcheck.as_ref();
        if plan.is_none_or(|p| p.check.command().is_none()) {
            let id = record.id.clone();
            let none = || Err(failed(format!("container {id} has no defined healthcheck")).into());
            (self.checks.next, self.checks.again) = (None, false);
            return self.answer_check(u64::MAX, &none);
        }
        self.checks.next = Checks::new(plan, &record.health).next;
        let mut clients = self.front.clients.iter();
        self.checks.again = clients.any(|c| c.awaits_check.is_some());
        if self.checks.again {
            self.next_check();
        }
    }

    /// It goes on.
    pub(super) fn resume_checks(&mut self) {
        let record = &self.job.record;
        let check = record.healthcheck.as_ref();
        let check = check.map(|plan| record.health.check(plan));
        let pause = check.filter(|c| c.command().is_some());
        let pause = pause.and_then(Check::pause);
        self.checks.next = pause.and_then(|pause| Instant::now().checked_add(pause));
    }

    /// Answers everyone who waits for the check `number` or one before it.
    fn answer_check(&mut self, number: u64, with: &dyn Fn() -> Result<serde_json::Value>) {
        for client in &mut self.front.clients {
            if client.awaits_check.is_some_and(|n| n <= number) {
                client.awaits_check = None;
                client.answer(with());
            }
        }
    }
}

impl Current {
    fn kill(&self) {
        let packet = Frame::Signal(libc::SIGKILL).encode();
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let _ = send(self.socket.as_raw_fd(), &packet, flags);
    }

    /// Takes what is there to be read, keeping `most` bytes of output; how it ended, if it did.
    fn read(&mut self, most: usize) -> Option<Ended> {
        let mut buffer = [0; FRAME];
        loop {
            let n = match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return None,
                Ok(0) | Err(_) => {
                    return Some((125, Some("the check's supervisor was killed".to_owned())));
                }
                Ok(n) => n,
            };
            match Frame::decode(&buffer[..n]) {
                Some(Frame::Stdout(bytes) | Frame::Stderr(bytes)) => {
                    let room = most.saturating_sub(self.output.len());
                    self.output.extend(&bytes[..bytes.len().min(room)]);
                }
                Some(Frame::Exit { code, .. }) => return Some((code.min(1), None)),
                Some(Frame::Error { code, text }) => {
                    let code = if matches!(code, 126 | 127) { 1 } else { 125 };
                    let text = text.split_once(": ").map_or(text, |(_, text)| text);
                    return Some((code, Some(text.to_owned())));
                }
                _ => {}
            }
        }
    }
}

/// A connection between a session and us, as its client.
fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .context("making the check's socket")
}

fn session(check: &Check) -> Session {
    Session {
        command: check.command().unwrap_or_default(),
        signals_group: true,
        ..Session::default()
    }
}

/// As Go writes durations of this size.
fn seconds(time: Duration) -> String {
    let (mut left, mut text) = (time.as_secs(), String::new());
    for (unit, name) in [(3600, "h"), (60, "m")] {
        if left >= unit || !text.is_empty() {
            text += &format!("{}{name}", left / unit);
            left %= unit;
        }
    }
    match time.subsec_millis() {
        0 => text + &format!("{left}s"),
        millis if text.is_empty() && left == 0 => format!("{millis}ms"),
        millis => {
            let fraction = format!("{millis:03}");
            text + &format!("{left}.{}s", fraction.trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        let written = |ms| seconds(Duration::from_millis(ms));
        for (ms, text) in [
            (1000, "1s"),
            (1500, "1.5s"),
            (300, "300ms"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
            (61_250, "1m1.25s"),
        ] {
            assert_eq!(written(ms), text);
        }
    }
}
