//! Who reads the next request, and how it waits for it.
//!
//! Most of what a request costs is waking: the server's thread for the request, the caller for the answer, each on a processor that has
//! gone idle meanwhile. A caller that works through many files asks again within microseconds of its answer. So, when
//! [`STREAK`] requests have come like that, one after the other, the thread that read the last of them becomes
//! *attentive*: after each answer it looks for the next request without sleeping, for [`Limits::patience`], and is alone in
//! that. The other threads, when they come back for a request, wait in this process: in the kernel's queue each
//! request would wake one of them for nothing. They keep what buffers they have meanwhile.
//!
//! All threads wait in the kernel again when requests come late [`LATE`] times in a row or not at all for
//! [`PAUSE`]; when requests are there before they are looked for ([`CROWD`]), or one is after a request
//! that took long ([`Limits::long`]): more threads serve these better. A request that does not end (a disk's, a
//! lock's) holds up no other caller for long: one of the waiting threads, the *watch*, looks every [`WATCH`] whether
//! requests are taken, and takes over if one lies there and none is.
//!
//! An attentive thread takes no processor from anybody: it yields between two looks, and where somebody else ran meanwhile the
//! machine is busy. After that, and after callers who were better served by more threads, nobody is attentive for a
//! while, longer each time unless it lasted ([`REST`]).
//!
//! With a single processor, or where the threads share a descriptor, nobody is attentive.
//!
//! Lock: `standing`, held for no system call but futex(2) and fcntl(2).

use super::meta::lk;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many requests in a row that came soon make a thread attentive.
const STREAK: u32 = 16;
/// So many requests in a row that came late end it, and so does none for [`PAUSE`].
const LATE: u32 = 8;
/// Milliseconds that an attentive thread sleeps for a request that comes late.
const PAUSE: u8 = 10;
/// What requests that were there at the first look may come to, with none in between that was waited for: one of
/// another task than the one before, [`OTHER`]; else 1.
const CROWD: u32 = 64;
/// Several callers are soon told from one.
const OTHER: u32 = 4;
/// How often the watch looks whether requests are taken.
const WATCH: Duration = Duration::from_millis(2);
/// Microseconds without attention, the first time and at most.
const REST: (u64, u64) = (2_000, 1_000_000);
/// Microseconds of attention after which the next rest is as the first.
const LASTED: u64 = 250_000;
/// `pid` of `struct fuse_in_header`, <linux/fuse.h>.
const TASK: Range<usize> = 32..36;

/// What is soon and what is long, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// From an answer to the next request of a caller that does little else.
    near: u64,
    /// That an attentive thread looks for a request.
    patience: u64,
    /// Between two looks: somebody else had the processor.
    away: u64,
    /// For one request.
    long: u64,
}

const LIMITS: Limits = Limits {
    near: 100,
    patience: 80,
    away: 300,
    long: 300,
};

/// Nobody is attentive.
const OPEN: u32 = 0;

/// What the threads of a session share for it.
#[derive(Debug)]
pub(crate) struct Attention {
    possible: bool,
    limits: Limits,
    begun: Instant,
    /// [`Reader::id`] of the attentive thread, or [`OPEN`].
    owner: AtomicU32,
    /// Requests read so far.
    taken: AtomicU64,
    /// Requests being served.
    serving: AtomicU32,
    /// Requests in a row that came soon.
    streak: AtomicU32,
    /// When the last answer was given, in microseconds.
    answered: AtomicU64,
    /// When the last attention began, in microseconds.
    began: AtomicU64,
    /// Until then nobody is attentive.
    rest_until: AtomicU64,
    /// The next rest.
    rest: AtomicU64,
    /// Whether there is a watch.
    standing: Mutex<bool>,
    wake: Condvar,
}

/// One thread's way to requests.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    attention: &'a Attention,
    channel: &'a File,
    /// Not [`OPEN`], and no other thread's.
    id: u32,
    /// It has made its descriptor one that does not block.
    looking: bool,
    /// What requests that were there at the first look come to, since one was waited for.
    ready: u32,
    /// Requests in a row that came late.
    late: u32,
    /// Whose the last request was.
    task: u32,
    /// It has one that is not answered.
    serving: bool,
    /// When its last request came, in microseconds.
    since: u64,
    /// That one took long.
    slow: bool,
}

impl Attention {
    /// `possible`: there are several processors, and each thread has a descriptor of its own.
    pub(crate) fn new(possible: bool) -> Attention {
        Attention {
            possible,
            limits: LIMITS,
            begun: Instant::now(),
            owner: AtomicU32::new(OPEN),
            taken: AtomicU64::new(0),
            serving: AtomicU32::new(0),
            streak: AtomicU32::new(0),
            answered: AtomicU64::new(0),
            began: AtomicU64::new(0),
            rest_until: AtomicU64::new(0),
            rest: AtomicU64::new(REST.0),
            standing: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// The way of thread `n` to requests, which come from `channel`.
    pub(crate) fn reader<'a>(&'a self, n: usize, channel: &'a File) -> Reader<'a> {
        Reader {
            attention: self,
            channel,
            id: u32::try_from(n).unwrap_or(u32::MAX - 1) + 1,
            looking: false,
            ready: 0,
            task: 0,
            late: 0,
            serving: false,
            since: 0,
            slow: false,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn is_open(&self) -> bool {
        self.owner.load(Ordering::Acquire) == OPEN
    }

    /// Attention was of no use: none for a while.
    fn rest(&self) {
        let now = self.now();
        let lasted = now.saturating_sub(self.began.load(Ordering::Relaxed)) > LASTED;
        let rest = self.rest.load(Ordering::Relaxed);
        let rest = if lasted { REST.0 } else { rest };
        self.rest_until.store(now + rest, Ordering::Relaxed);
        self.rest.store((rest * 2).min(REST.1), Ordering::Relaxed);
    }

    /// Ends the attention of `owner`, if it lasts.
    fn end(&self, owner: u32) {
        let _standing = lk(&self.standing);
        self.streak.store(0, Ordering::Relaxed);
        if self.hand_over(owner, OPEN) {
            self.wake.notify_all();
        }
    }

    /// Has `to` be attentive instead of `from`; whether it was that one.
    fn hand_over(&self, from: u32, to: u32) -> bool {
        let (done, not) = (Ordering::AcqRel, Ordering::Relaxed);
        self.owner.compare_exchange(from, to, done, not).is_ok()
    }
}

impl<'a> Reader<'a> {
    /// Where its requests come from, and their answers go to.
    pub(crate) fn channel(&self) -> &'a File {
        self.channel
    }

    /// Waits for a request and reads it: its length, 0 for a connection that is gone.
    ///
    /// # Errors
    /// As read(2) of the device.
    pub(crate) fn next(&mut self, request: &mut [u8]) -> Result<usize, Errno> {
        loop {
            let owner = self.attention.owner.load(Ordering::Acquire);
            let got = if owner == self.id {
                self.look(request)
            } else if owner != OPEN {
                self.stand_by(request)
            } else {
                self.block(true);
                Some(nix::unistd::read(self.channel, request))
            };
            if let Some(got) = got {
                if got.is_ok() {
                    self.came();
                }
                return got;
            }
        }
    }

    /// The last request is served.
    pub(crate) fn answered(&mut self) {
        let shared = self.attention;
        if !shared.possible {
            return;
        }
        let now = shared.now();
        shared.answered.store(now, Ordering::Relaxed);
        shared.serving.fetch_sub(1, Ordering::AcqRel);
        self.serving = false;
        self.slow = now.saturating_sub(self.since) > shared.limits.long;
    }

    /// A request was read: whether to be attentive from now on.
    fn came(&mut self) {
        let shared = self.attention;
        if !shared.possible {
            return;
        }
        let now = shared.now();
        self.since = now;
        shared.taken.fetch_add(1, Ordering::Relaxed);
        let others = shared.serving.fetch_add(1, Ordering::AcqRel);
        self.serving = true;
        if self.looking {
            return;
        }
        let soon = now.saturating_sub(shared.answered.load(Ordering::Relaxed)) < shared.limits.near;
        if others > 0 || !soon {
            shared.streak.store(0, Ordering::Relaxed);
            return;
        }
        let streak = shared.streak.fetch_add(1, Ordering::Relaxed) + 1;
        if streak < STREAK || now < shared.rest_until.load(Ordering::Relaxed) {
            return;
        }
        if shared.hand_over(OPEN, self.id) {
            shared.began.store(now, Ordering::Relaxed);
            (self.ready, self.late) = (0, 0);
            self.block(false);
        }
    }

    /// Looks for a request without sleeping, as long as it may. None: there was none, and nobody is attentive any more.
    fn look(&mut self, request: &mut [u8]) -> Option<Result<usize, Errno>> {
        self.block(false);
        let shared = self.attention;
        let from = shared.now();
        let mut last = from;
        let mut looks = 0;
        loop {
            let got = nix::unistd::read(self.channel, &mut *request);
            if got != Err(Errno::EAGAIN) {
                self.found(request, looks);
                return Some(got);
            }
            looks += 1;
            std::thread::yield_now();
            let now = shared.now();
            if now - last > shared.limits.away {
                shared.rest();
                break;
            }
            if now - from > shared.limits.patience {
                self.late += 1;
                let mut waited = [PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
                if self.late > LATE || poll(&mut waited, PollTimeout::from(PAUSE)) == Ok(0) {
                    break;
                }
                looks = 0;
            }
            last = shared.now();
        }
        shared.end(self.id);
        None
    }

    /// A request was found after so many looks for it.
    fn found(&mut self, request: &[u8], looks: u32) {
        let task = request.get(TASK).and_then(|task| task.try_into().ok());
        let task = u32::from_ne_bytes(task.unwrap_or_default());
        let same = std::mem::replace(&mut self.task, task) == task;
        if looks > 0 {
            (self.ready, self.late) = (0, 0);
        } else {
            self.ready += if same { 1 } else { OTHER };
        }
        if self.ready > CROWD || looks == 0 && self.slow {
            self.attention.rest();
            self.attention.end(self.id);
        }
    }

    /// Waits until nobody is attentive any more; as the watch, it looks for what lies unread. None: there was nothing.
    fn stand_by(&mut self, request: &mut [u8]) -> Option<Result<usize, Errno>> {
        let shared = self.attention;
        let mut watched = lk(&shared.standing);
        if *watched {
            drop(
                shared
                    .wake
                    .wait_while(watched, |watched| *watched && !shared.is_open())
                    .unwrap_or_else(PoisonError::into_inner),
            );
            return None;
        }
        *watched = true;
        self.block(false);
        let mut got = None;
        let mut taken = 0;
        while got.is_none() && !shared.is_open() {
            let waited = shared.wake.wait_timeout(watched, WATCH);
            watched = waited.unwrap_or_else(PoisonError::into_inner).0;
            let owner = shared.owner.load(Ordering::Acquire);
            let before = std::mem::replace(&mut taken, shared.taken.load(Ordering::Relaxed));
            if owner != OPEN && taken == before {
                drop(watched);
                let read = nix::unistd::read(self.channel, &mut *request);
                if read != Err(Errno::EAGAIN) {
                    shared.rest();
                    shared.end(owner);
                    got = Some(read);
                }
                watched = lk(&shared.standing);
            }
        }
        *watched = false;
        if got.is_some() {
            // Should somebody be attentive by now, one of those who wait is the watch.
            shared.wake.notify_all();
        }
        got
    }

    /// Has the thread's descriptor block, or not.
    fn block(&mut self, block: bool) {
        if self.looking == block {
            let mut flags = OFlag::O_RDWR;
            flags.set(OFlag::O_NONBLOCK, !block);
            // Refused for no descriptor.
            if fcntl(self.channel, FcntlArg::F_SETFL(flags)).is_ok() {
                self.looking = !block;
            }
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if self.serving {
            self.attention.serving.fetch_sub(1, Ordering::AcqRel);
        }
        self.attention.end(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    /// Nothing is late, long or busy.
    const EASY: Limits = Limits {
        near: u64::MAX,
        patience: u64::MAX,
        away: u64::MAX,
        long: u64::MAX,
    };

    /// Callers of the threads that read from the second.
    fn connection(threads: usize) -> (File, Vec<File>) {
        let (read, write) = nix::unistd::pipe2(OFlag::O_DIRECT | OFlag::O_CLOEXEC).unwrap();
        // Descriptions of their own: each blocks, or does not, by itself.
        let again = || File::open(format!("/proc/self/fd/{}", read.as_raw_fd())).unwrap();
        (write.into(), (0..threads).map(|_| again()).collect())
    }

    fn attention(limits: Limits) -> Attention {
        let attention = Attention::new(true);
        Attention {
            limits,
            ..attention
        }
    }

    fn ask(callers: &mut File, task: u32) {
        let mut request = [0; 40];
        request[TASK].copy_from_slice(&task.to_ne_bytes());
        callers.write_all(&request).unwrap();
    }

    fn serve(reader: &mut Reader<'_>) {
        assert_eq!(reader.next(&mut [0; 64]), Ok(40));
        reader.answered();
    }

    /// Has a caller make `reader` attentive.
    fn attract(reader: &mut Reader<'_>, callers: &mut File) {
        for _ in 0..STREAK {
            assert!(reader.attention.is_open());
            ask(callers, 7);
            serve(reader);
        }
        assert_eq!(reader.attention.owner.load(Ordering::Relaxed), reader.id);
    }

    /// One request, when nobody is attentive any more.
    fn ask_when_open(attention: &Attention, callers: &mut File, reader: &mut Reader<'_>) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !attention.is_open() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                ask(callers, 7);
            });
            serve(reader);
        });
    }

    #[test]
    fn a_caller_that_asks_at_once_is_attended() {
        let attention = attention(EASY);
        let (mut callers, channels) = connection(1);
        let mut reader = attention.reader(0, &channels[0]);
        attract(&mut reader, &mut callers);
        for _ in 0..CROWD / 2 {
            assert!(!attention.is_open());
            ask(&mut callers, 7);
            serve(&mut reader);
        }
        drop(reader);
        assert!(attention.is_open());
    }

    #[test]
    fn several_callers_are_not() {
        let attention = attention(EASY);
        let (mut callers, channels) = connection(1);
        let mut reader = attention.reader(0, &channels[0]);
        attract(&mut reader, &mut callers);
        for task in 1..=CROWD / OTHER + 1 {
            assert!(!attention.is_open());
            ask(&mut callers, task);
            serve(&mut reader);
        }
        assert!(attention.is_open());
        assert_eq!(attention.rest.load(Ordering::Relaxed), REST.0 * 2);
    }

    #[test]
    fn a_request_behind_a_slow_one_is_for_more_threads() {
        let attention = attention(Limits { long: 0, ..EASY });
        let (mut callers, channels) = connection(1);
        let mut reader = attention.reader(0, &channels[0]);
        attract(&mut reader, &mut callers);
        ask(&mut callers, 7);
        assert_eq!(reader.next(&mut [0; 64]), Ok(40));
        std::thread::sleep(Duration::from_millis(1));
        reader.answered();
        ask(&mut callers, 7);
        serve(&mut reader);
        assert!(attention.is_open());
    }

    #[test]
    fn the_attentive_thread_sleeps_when_nobody_asks() {
        let attention = attention(Limits {
            patience: 0,
            ..EASY
        });
        let (mut callers, channels) = connection(1);
        let mut reader = attention.reader(0, &channels[0]);
        attract(&mut reader, &mut callers);
        ask_when_open(&attention, &mut callers, &mut reader);
        assert!(!reader.looking);
    }

    #[test]
    fn nobody_is_attentive_on_a_busy_machine() {
        let attention = attention(Limits { away: 0, ..EASY });
        let (mut callers, channels) = connection(1);
        let mut reader = attention.reader(0, &channels[0]);
        attract(&mut reader, &mut callers);
        ask_when_open(&attention, &mut callers, &mut reader);
        assert!(attention.rest_until.load(Ordering::Relaxed) >= REST.0);
        assert_eq!(attention.rest.load(Ordering::Relaxed), REST.0 * 2);
    }

    #[test]
    fn one_that_does_not_end_holds_up_nobody() {
        let attention = attention(EASY);
        let (mut callers, channels) = connection(3);
        let mut reader = attention.reader(0, &channels[0]);
        attract(&mut reader, &mut callers);
        ask(&mut callers, 7);
        assert_eq!(reader.next(&mut [0; 64]), Ok(40));
        // It is not answered.
        std::thread::scope(|scope| {
            for (n, channel) in channels.iter().enumerate().skip(1) {
                let attention = &attention;
                scope.spawn(move || serve(&mut attention.reader(n, channel)));
            }
            ask(&mut callers, 8);
            ask(&mut callers, 9);
        });
        assert!(attention.is_open());
    }

    #[test]
    fn threads_with_one_descriptor_only_sleep() {
        let attention = Attention::new(false);
        let (mut callers, channels) = connection(1);
        let mut reader = attention.reader(0, &channels[0]);
        for _ in 0..10 * STREAK {
            ask(&mut callers, 7);
            serve(&mut reader);
            assert!(attention.is_open());
        }
    }
}
