//! A client that remembers what was acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::clients::Connection;

#[derive(Default)]
struct Shared {
    begun: AtomicBool,
    ended: AtomicBool,
    /// The last number that was sent.
    tried: AtomicU64,
    answers: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
    /// Held from asking to noting the answer.
    turn: Mutex<()>,
}

/// One number after the other, over one connection, a new one whenever that fails. A number that was not
/// acknowledged is not sent again.
pub(super) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// One that waits for [`Load::begin`].
    pub(super) fn new<C: Connection>(port: u16) -> Load {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || work::<C>(&of_thread, port));
        Load {
            shared,
            thread: Some(thread),
        }
    }

    pub(super) fn begin(&self) {
        self.shared.begun.store(true, Ordering::Release);
    }

    /// Sends no more.
    pub(super) fn end(&self) {
        self.shared.ended.store(true, Ordering::Release);
        drop(lock(&self.shared.turn));
    }

    /// Answers so far.
    pub(super) fn count(&self) -> u64 {
        self.shared.answers.load(Ordering::Acquire)
    }

    pub(super) fn tried(&self) -> u64 {
        self.shared.tried.load(Ordering::Acquire)
    }

    pub(super) fn acknowledged(&self) -> BTreeSet<u64> {
        lock(&self.shared.acknowledged).clone()
    }

    /// The service is one that was promised no more than this. It has to be down.
    pub(super) fn forget_all_but(&self, promised: BTreeSet<u64>) {
        let _turn = lock(&self.shared.turn);
        *lock(&self.shared.acknowledged) = promised;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn work<C: Connection>(shared: &Shared, port: u16) {
    let mut connection: Option<C> = None;
    loop {
        let turn = lock(&shared.turn);
        if shared.ended.load(Ordering::Acquire) {
            return;
        }
        if !shared.begun.load(Ordering::Acquire) {
            drop(turn);
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let open = match connection.as_mut() {
            Some(open) => open,
            None => match C::open(port) {
                Ok(open) => connection.insert(open),
                Err(_) => {
                    drop(turn);
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
            },
        };
        let number = shared.tried.fetch_add(1, Ordering::AcqRel) + 1;
        if open.store(number).is_ok() {
            lock(&shared.acknowledged).insert(number);
            shared.answers.fetch_add(1, Ordering::AcqRel);
        } else {
            connection = None;
        }
        drop(turn);
        // Others want their turn, too.
        std::thread::yield_now();
    }
}
