//! Giving memory back.
//!
//! What a server holds beside the changes of its container is soon found again: pages of the index that were
//! looked at (they stay in the page cache, which all containers of the image share), and buffers that were large
//! for one request. A thread takes the pages out of the process every [`PERIOD`] in which there were requests:
//! finding them again costs a fault for every 64 KiB. After a period without any it has the threads let their large
//! buffers go, hands the allocator's free memory back and the program's code, and sleeps until the next request: an idle container
//! wakes nobody. Where small requests never end, a thread that had no large one for a period lets go with its next: a
//! pipe's pages count against what all pipes of the user may have.

use super::meta::lk;
use super::upper::Tree;
use crate::sys::idle::{Sleeper, give_back, unload_code};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(2);
/// A thread keeps this much when nothing happens.
pub(crate) const SMALL: usize = 16 << 10;

/// A serving thread, as seen by the one that trims.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    /// None where it cannot be interrupted: it keeps its buffers until its next request.
    pub(crate) sleeper: Mutex<Option<Sleeper>>,
    /// It holds more than [`SMALL`].
    pub(crate) large: AtomicBool,
    /// It has needed that since the other one looked.
    pub(crate) needed: AtomicBool,
    /// It is to let go of it.
    pub(crate) release: AtomicBool,
}

/// What the threads of a session share for it.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    touched: AtomicBool,
    stop: Mutex<bool>,
    signal: Condvar,
}

impl Trim {
    /// There was a request.
    pub(crate) fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) && !self.touched.swap(true, Ordering::AcqRel) {
            let _guard = lk(&self.stop);
            self.signal.notify_all();
        }
    }

    /// Ends [`Trim::run`].
    pub(crate) fn stop(&self) {
        *lk(&self.stop) = true;
        self.signal.notify_all();
    }

    /// Waits until there was a request; whether to go on.
    fn asleep(&self) -> bool {
        let stop = self
            .signal
            .wait_while(lk(&self.stop), |stop| {
                !*stop && !self.touched.load(Ordering::Acquire)
            })
            .unwrap_or_else(PoisonError::into_inner);
        !*stop
    }

    /// Waits for a period; whether to go on.
    fn pause(&self) -> bool {
        let (stop, _) = self
            .signal
            .wait_timeout_while(lk(&self.stop), PERIOD, |stop| !*stop)
            .unwrap_or_else(PoisonError::into_inner);
        !*stop
    }

    /// The thread's work, until [`Trim::stop`]. `requests`: how many there were so far.
    pub(crate) fn run(&self, tree: &Tree, workers: &[Worker], requests: impl Fn() -> u64) {
        while self.asleep() {
            let mut before = requests();
            loop {
                if !self.pause() {
                    return;
                }
                // First: who comes from here on sets it again.
                self.touched.store(false, Ordering::Release);
                tree.low.trim();
                let now = requests();
                if std::mem::replace(&mut before, now) != now {
                    release(workers);
                } else if !shrink(workers) {
                    break;
                }
            }
            give_back();
            unload_code();
        }
    }
}

/// Has threads that had only small requests of late let their large buffers go, when they have served one more. They may be
/// serving one: none is interrupted.
fn release(workers: &[Worker]) {
    for worker in workers {
        let needed = worker.needed.swap(false, Ordering::AcqRel);
        if !needed && worker.large.load(Ordering::Acquire) {
            worker.release.store(true, Ordering::Release);
        }
    }
}

/// Has idle threads let their large buffers go; whether there were any.
fn shrink(workers: &[Worker]) -> bool {
    let mut any = false;
    for worker in workers {
        let sleeper = *lk(&worker.sleeper);
        if let Some(sleeper) = sleeper
            && worker.large.load(Ordering::Acquire)
        {
            any = true;
            worker.release.store(true, Ordering::Release);
            sleeper.interrupt();
        }
    }
    any
}
