//! Attributes on their way to the kernel.
//!
//! # Theory
//!
//! The kernel keeps what answers say of an inode, and believes it until it hears otherwise. An answer that a change
//! overtook it knows by a version that the change counted up and drops it; but not every change does that: what
//! comes of a directory's names (times, links), a mode set by an access list, times set by FALLOCATE and by writing
//! a mapping back only take from the cache what is in it by then. An answer made before such a change, to a task
//! that comes to take it in after the change was answered, then stays: a directory has the time it had, and, which is
//! worse, an inode the permissions it had.
//!
//! So the last answer with attributes to each task is noted here before they are read. A task waits for what it asked: its
//! next request says that it has taken the answer in. A change asks, after it is made, whether attributes of its
//! inodes are on their way to another task, and if so sends FUSE_NOTIFY_INVAL_INODE before it is answered: that
//! counts the version up. Tasks that work one after the other never pay for it.

use crate::cow::meta::lk;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const SHARDS: usize = 16;
/// An answer was taken in when so many others were made since: its task may be gone and never ask again.
const LIFE: u64 = 4096;
/// Answers noted in one shard at most; tasks that are gone make room.
const MOST: usize = 64;
/// A listing told of whatever it likes.
pub(super) const LISTED: u64 = 0;

/// An answer on its way.
#[derive(Debug, Clone, Copy)]
struct Telling {
    /// 0: one the mount cannot name.
    task: u32,
    ino: u64,
    /// In the order of answers.
    at: u64,
}

/// All of them.
#[derive(Default)]
pub(super) struct News {
    shards: [Mutex<Vec<Telling>>; SHARDS],
    /// How many there are.
    count: AtomicUsize,
    clock: AtomicU64,
}

impl News {
    fn shard(&self, task: u32) -> &Mutex<Vec<Telling>> {
        &self.shards[task as usize % SHARDS]
    }

    /// A task asks for something: it has taken in what it was told.
    pub(super) fn taken_in(&self, task: u32) {
        if self.any() && task != 0 {
            self.retain(self.shard(task), |t| t.task != task);
        }
    }

    /// A task is about to be told an inode's attributes.
    pub(super) fn tell(&self, task: u32, ino: u64) {
        let at = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut shard = lk(self.shard(task));
        if shard.len() >= MOST {
            // The oldest is the first.
            shard.remove(0);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        shard.push(Telling { task, ino, at });
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anything is on its way. Who made a change and sees nothing has nothing to tell: noting comes before
    /// reading, and both are ordered by the locks of what is read.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }

    /// A task changed an inode: has it told where another task is on its way to keep it as it was.
    pub(super) fn changed(&self, task: u32, ino: u64, notify: impl FnOnce()) {
        if !self.any() {
            return;
        }
        let now = self.clock.load(Ordering::Relaxed);
        let others = |t: &Telling| t.task != task || task == 0;
        let about = |t: &Telling| t.ino == ino || t.ino == LISTED;
        let fresh = |t: &Telling| t.at + LIFE >= now;
        let all = &self.shards;
        if all
            .iter()
            .any(|s| lk(s).iter().any(|t| others(t) && about(t) && fresh(t)))
        {
            notify();
            // Not before: who changes it at the same time must not be answered before that is told.
            for shard in all {
                self.retain(shard, |t| {
                    !(others(t) && t.ino == ino && t.at < now) && fresh(t)
                });
            }
        }
    }

    fn retain(&self, shard: &Mutex<Vec<Telling>>, keep: impl Fn(&Telling) -> bool) {
        let mut shard = lk(shard);
        let before = shard.len();
        shard.retain(keep);
        self.count
            .fetch_sub(before - shard.len(), Ordering::Relaxed);
    }
}
