//! Renewing what the kernel knows of files that were read.
//!
//! After a READ the kernel no longer trusts the access time it knows of the file (nor after a READDIR that of the
//! directory), so that the next stat(2) asks: one GETATTR for every file that was ever read, in the second pass of
//! every `grep -r`, `cat` or build over a tree. It would ask for all files of a directory at once if it had to list
//! it (READDIRPLUS), but the listing it has cached. So where several entries of a directory were read since it was
//! listed, the kernel is told to forget that listing, and nothing else: the next one who lists it pays one request
//! for all. Measured (`tests/bench/fs --quick`): `grep -r` the second time sends 860 requests instead of 6,230, find
//! 1,050 instead of 2,010, and the third time none.
//!
//! All of it is a hint and may be wrong: which directory an inode is in is concluded from the numbers that its
//! listing gave out (those of a directory's entries lie side by side in an image), and forgetting costs a
//! request or two, never a wrong answer.
//!
//! The kernel is told by a thread of its own: telling may wait for a page of the listing that somebody is reading
//! out, into memory that may be a mapped file of ours. Nothing is locked meanwhile.

use super::meta::lk;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// So many entries read are worth it: asking for the directory itself, listing it, hearing that this was all.
const WORTH: u32 = 6;
/// Whoever reads a directory's files gets so long to read more of them.
const PAUSE: Duration = Duration::from_millis(20);
/// Listings remembered; about 40 bytes each.
const MOST: usize = 4096;

/// Inodes of one answer to a listing, by the first of them.
struct Span {
    last: u64,
    dir: u64,
    /// How many reads there were of them,
    read: u32,
    /// or [`WORTH`] was reached, here or in another answer of the listing.
    told: bool,
}

#[derive(Default)]
struct State {
    spans: BTreeMap<u64, Span>,
    /// Directories whose listing is to be forgotten.
    due: Vec<u64>,
    stop: bool,
}

/// Which listings the kernel has, and which of them it had better not.
#[derive(Default)]
pub(crate) struct Renewal {
    state: Mutex<State>,
    signal: Condvar,
}

impl Renewal {
    /// The kernel got attributes of the entries `first` to `last` of a directory.
    pub(crate) fn listed(&self, dir: u64, first: u64, last: u64) {
        let mut state = lk(&self.state);
        if state.spans.len() >= MOST {
            state.spans.clear();
        }
        let span = Span {
            last,
            dir,
            read: 0,
            told: false,
        };
        state.spans.insert(first, span);
    }

    /// The kernel read from the inode's beginning.
    pub(crate) fn read(&self, ino: u64) {
        // It is no loss if one is not counted because somebody else counts.
        let Ok(mut state) = self.state.try_lock() else {
            return;
        };
        let State { spans, due, .. } = &mut *state;
        let Some((&first, span)) = spans.range_mut(..=ino).next_back() else {
            return;
        };
        if span.last < ino || span.told {
            return;
        }
        span.read += 1;
        if span.read < WORTH {
            return;
        }
        let dir = span.dir;
        for (_, span) in spans.range_mut(first..).take_while(|(_, s)| s.dir == dir) {
            span.told = true;
        }
        let before = spans.range_mut(..first).rev();
        for (_, span) in before.take_while(|(_, s)| s.dir == dir) {
            span.told = true;
        }
        due.push(dir);
        if due.len() == 1 {
            self.signal.notify_one();
        }
    }

    /// Ends [`Renewal::run`].
    pub(crate) fn stop(&self) {
        lk(&self.state).stop = true;
        self.signal.notify_one();
    }

    /// The thread's work: `tell` is called with every directory whose listing is to be forgotten.
    pub(crate) fn run(&self, tell: impl Fn(u64)) {
        loop {
            let state = self
                .signal
                .wait_while(lk(&self.state), |s| !s.stop && s.due.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let (mut state, _) = self
                .signal
                .wait_timeout_while(state, PAUSE, |s| !s.stop)
                .unwrap_or_else(PoisonError::into_inner);
            if state.stop {
                return;
            }
            let due = std::mem::take(&mut state.due);
            drop(state);
            for dir in due {
                tell(dir);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(r: &Renewal) -> Vec<u64> {
        std::mem::take(&mut lk(&r.state).due)
    }

    #[test]
    fn a_directory_is_due_once_when_enough_of_it_was_read() {
        let r = Renewal::default();
        r.listed(1, 2, 50);
        r.listed(7, 51, 60);
        // Its listing took two answers.
        r.listed(7, 61, 90);
        for ino in 61..60 + u64::from(WORTH) {
            r.read(ino);
        }
        r.read(91);
        assert_eq!(due(&r), [0; 0]);
        r.read(61);
        assert_eq!(due(&r), [7]);
        for ino in 2..91 {
            r.read(ino);
        }
        assert_eq!(due(&r), [1]);
        r.listed(7, 51, 60);
        for ino in 51..61 {
            r.read(ino);
        }
        assert_eq!(due(&r), [7]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let r = Renewal::default();
        for i in 0..3 * MOST as u64 {
            r.listed(i, 10 * i, 10 * i + 9);
        }
        assert!(lk(&r.state).spans.len() <= MOST);
    }
}
