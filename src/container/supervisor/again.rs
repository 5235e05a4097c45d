//! The next run in the same supervisor: after one is taken down, a pause in which it listens, and the next. Restart policies,
//! health checks and `restart` of a container that goes when it ends (`--rm`) do so.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::front::{Again, Front};
use super::health::Checks;
use super::relay::Relay;
use super::sessions::Sessions;
use super::streams::Streams;
use super::{End, Job, live, note_end, start, tell_died};
use crate::cgroup::Scope;
use crate::container::events::Action;
use crate::container::record::State;
use crate::container::restart::Pace;
use crate::cow::Cow;
use crate::error::{Result, failed, message, report};
use crate::sys::supervise;

/// How long threads of the last run may take to end.
const THREADS_END: Duration = Duration::from_secs(5);

/// Runs the container again for as long as its policy says so: how it ended at last.
pub(super) fn repeat(
    job: &mut Job,
    front: &mut Front,
    scope: &mut Option<Scope>,
    first: End,
) -> End {
    let mut pace = Pace::new();
    let mut end = first;
    loop {
        if let Some(scope) = scope {
            scope.clear();
        }
        let again = job.record.restart.again(end.code, job.record.restarts);
        if front.ending || !(again || front.again.is_some()) {
            return end;
        }
        // One that was asked for may come, and end it, while it waits.
        let pause = match front.again {
            Some(Again::Asked) => Duration::ZERO,
            _ => pace.pause(end.ran),
        };
        rest(job, front, pause);
        end.told = true;
        if front.ending {
            return end;
        }
        if front.again.take() == Some(Again::Asked) {
            // Told of already; it counts from here.
            job.containers.emit(&job.record, Action::Stop);
            (job.record.restarts, job.record.stopped_by_user) = (0, false);
            pace = Pace::new();
        } else {
            job.record.restarts += 1;
            job.containers.emit(&job.record, Action::Restart);
        }
        if let Some(flush) = front.flush.take() {
            // On a slow disk it takes its time, and ends by itself.
            let _ = front.busy(true, || flush.join());
        }
        end = match renew(job).and_then(|()| start(job, scope)) {
            Ok(running) => live(job, front, running, scope.as_ref()),
            Err(e) => not_started(job, front, &e),
        };
    }
}

/// Waits, and answers meanwhile.
fn rest(job: &mut Job, front: &mut Front, pause: Duration) {
    job.record.state = State::Restarting;
    job.cow = None;
    let mut relay = Relay {
        job,
        front,
        streams: Streams::default(),
        init: None,
        until: Instant::now().checked_add(pause),
        scope: None,
        agent: None,
        sessions: Sessions::default(),
        checks: Checks::default(),
        pasta: None,
        restarts: (0, Instant::now()),
    };
    relay.write_record();
    tell_died(relay.job);
    if !relay.job.record.auto_remove {
        relay.tell(Action::Cleanup);
    }
    let code = relay.job.record.exit_code;
    relay.front.tell_exit(code.unwrap_or(137));
    relay.run();
}

/// What a start needs afresh.
fn renew(job: &mut Job) -> Result<()> {
    // Helpers of the last run end by themselves; init can be cloned from a process with one thread only.
    let deadline = Instant::now() + THREADS_END;
    while supervise::threads().context("counting threads")? > 1 {
        if Instant::now() > deadline {
            return Err(failed("threads of the last run do not end").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    job.cow = Some(Cow::open(job.root.clone())?);
    job.record.state = State::Starting;
    job.record.error = None;
    Ok(())
}

/// It could not be started again: that counts as a failure of it, and everyone is told.
fn not_started(job: &mut Job, front: &mut Front, e: &anyhow::Error) -> End {
    let code = i32::from(crate::error::kind(e).exit_code());
    let text = report(e);
    front.notice(&format!("{text}\n"));
    front.tell_restarted(|| Err(failed(message(e)).into()));
    job.record.started = Some(jiff::Timestamp::now());
    let end = note_end(job, code, false, Duration::ZERO);
    job.record.error = Some(text);
    end
}
