//! FUSE sessions: negotiation, threads, counters, and mounting from inside a user namespace.
//!
//! The mount is made by a process inside the container's user namespace (only its opener's
//! namespace may use the device); the server runs outside with the descriptor. fuser reads INIT
//! and negotiates; after that each thread reads its own channel (`FUSE_DEV_IOC_CLONE`, where the
//! kernel allows it across namespaces; else they share one) and answers through [`super::ops`].
//!
//! # Not negotiated: WRITEBACK_CACHE
//!
//! Measured with `tests/bench/fs`: it merges small writes (20 % fewer requests of an untar, random
//! 4 KiB writes three times, SQLite once and a half as fast), but every close(2) then makes the file's block
//! count doubtful, so that the next fstat(2) asks again: a warm build sent 18,400 requests instead
//! of 3,400. Reading what was read before is what containers do most, and is free without it.
//!
//! What is shown as `/` is not the connection's root but the only directory in it
//! ([`ROOT_ENTRY`]), mounted by itself. The kernel makes the connection's root inode before INIT
//! has told it of access lists and marks it as one whose list is not to be cached, which recent
//! kernels never take back: for whoever is not its owner they asked at every absolute path (19 of
//! the 84 requests of `run --userns=keep-id alpine true`). It costs one LOOKUP a mount.

use super::Cow;
use super::attention::{Attention, Reader};
use super::meta::lk;
use super::ops::{self, Buffers, MAX_WRITE, REQUEST_MAX};
use super::trim::{SMALL, Trim, Worker};
use super::upper::Tree;
use crate::error::{Result, failed};
use crate::sys::fuse::ROOT_ENTRY;
use crate::sys::idle::{sleeper, unload_code};
use crate::sys::mount::{Context as Fs, attach, clone_tree};
use anyhow::Context;
use fuser::{Config, InitFlags, KernelConfig, Session, SessionACL};
use memmap2::{Advice, MmapMut};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::Mode;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long [`Server::stop`] waits for a mount that should be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most threads of a session.
const THREADS: usize = 4;
/// So many first requests leave nothing of a large index in a thread's process: a mount of which one file is read stays small.
const EARLY: u32 = 32;

/// Negotiates and does nothing else: requests are read by our own threads.
struct Handshake {
    live: bool,
}

impl fuser::Filesystem for Handshake {
    fn init(&mut self, _: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without these the promises of the file system do not hold.
        let needed = InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        // Never ATOMIC_O_TRUNC: with no_open the truncation would be lost.
        let mut wanted = vec![
            // Not READDIRPLUS_AUTO, which lists the rest of a large directory without attributes: a LOOKUP each.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        if self.live {
            wanted.push(InitFlags::FUSE_AUTO_INVAL_DATA);
        } else {
            wanted.push(InitFlags::FUSE_NO_OPEN_SUPPORT);
            wanted.push(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        }
        config
            .add_capabilities(needed)
            .map_err(|_| io::Error::from(Errno::EPROTO))?;
        for flag in wanted {
            // Each of them only makes things faster.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_readahead(MAX_WRITE);
        let _ = config.set_max_background(64);
        Ok(())
    }
}

struct Shared {
    server: ops::Server,
    tree: Arc<Tree>,
    alive: AtomicUsize,
    /// Pulsed when the last thread ends.
    ended: (Mutex<()>, Condvar),
    trim: Trim,
    attention: Attention,
    workers: Vec<Worker>,
}

/// A session being served.
#[derive(Debug)]
#[must_use = "dropping it detaches the threads; stop() syncs"]
pub struct Server {
    cow: Cow,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    flusher: Option<JoinHandle<()>>,
    trimmer: Option<JoinHandle<()>>,
    renewer: Option<JoinHandle<()>>,
    stats: Option<PathBuf>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Lets fuser read INIT and answer it; returns the channel.
fn handshake(fuse: OwnedFd, live: bool) -> Result<File> {
    let session = Session::from_fd(Handshake { live }, fuse, SessionACL::All, Config::default())
        .map_err(|e| match e.raw_os_error() {
            Some(libc::EPROTO) => {
                failed("the kernel's FUSE is too old: Linux 5.14 is needed").into()
            }
            _ => anyhow::Error::from(e),
        })
        .context("starting the file system's FUSE session")?;
    let fd = session
        .as_fd()
        .try_clone_to_owned()
        .context("keeping the FUSE descriptor")?;
    Ok(File::from(fd))
}

impl Server {
    pub(super) fn start(cow: &Cow, fuse: OwnedFd) -> Result<Server> {
        let channel = handshake(fuse, cow.tree.low.is_live())?;
        let n = std::thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .clamp(1, THREADS);
        let teller = channel.try_clone().context("copying the FUSE descriptor")?;
        let mut channels = Vec::with_capacity(n);
        let mut cloned = n > 1;
        for _ in 1..n {
            channels.push(match crate::sys::fuse::clone_channel(channel.as_fd()) {
                Ok(fd) => File::from(fd),
                Err(_) => {
                    cloned = false;
                    channel.try_clone().context("copying the FUSE descriptor")?
                }
            });
        }
        channels.push(channel);
        let shared = Arc::new(Shared {
            server: ops::Server::new(Arc::clone(&cow.tree)),
            tree: Arc::clone(&cow.tree),
            alive: AtomicUsize::new(n),
            ended: (Mutex::new(()), Condvar::new()),
            trim: Trim::default(),
            attention: Attention::new(cloned),
            workers: (0..n).map(|_| Worker::default()).collect(),
        });
        let mut server = Server {
            cow: cow.clone(),
            shared: Arc::clone(&shared),
            threads: Vec::with_capacity(n),
            flusher: None,
            trimmer: None,
            renewer: None,
            stats: cow.stats.clone(),
        };
        for (i, channel) in channels.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name(format!("cow-{i}"))
                .stack_size(512 << 10)
                .spawn(move || run(&shared, i, &channel))
                .context("starting a file system thread")?;
            server.threads.push(thread);
        }
        server.trimmer = Some(server.start_trimmer()?);
        server.renewer = server.start_renewer(teller)?;
        // Most of what ran so far does not run again.
        unload_code();
        if cow.tree.writable().is_ok() {
            let tree = Arc::clone(&cow.tree);
            server.flusher = Some(
                std::thread::Builder::new()
                    .name("cow-flush".into())
                    .stack_size(256 << 10)
                    .spawn(move || tree.flusher())
                    .context("starting the flusher thread")?,
            );
        }
        Ok(server)
    }

    fn start_trimmer(&self) -> Result<JoinHandle<()>> {
        let (tree, shared) = (Arc::clone(&self.cow.tree), Arc::clone(&self.shared));
        std::thread::Builder::new()
            .name("cow-trim".into())
            .stack_size(64 << 10)
            .spawn(move || {
                let requests = || shared.server.requests();
                shared.trim.run(&tree, &shared.workers, requests);
            })
            .context("starting the thread that gives memory back")
    }

    fn start_renewer(&self, channel: File) -> Result<Option<JoinHandle<()>>> {
        if self.shared.server.renewal().is_none() {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("cow-renew".into())
            .stack_size(64 << 10)
            .spawn(move || {
                if let Some(renewal) = shared.server.renewal() {
                    renewal.run(|dir| ops::forget_listing(&channel, dir));
                }
            })
            .map(Some)
            .context("starting the thread that has listings renewed")
    }

    /// Whether the mount is still there.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.shared.alive.load(Ordering::Acquire) > 0
    }

    /// Waits until the mount is gone.
    pub fn wait(&self) {
        let (lock, signal) = &self.shared.ended;
        let mut guard = lk(lock);
        while self.alive() {
            guard = signal
                .wait(guard)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// After the mount is gone: ends the threads, makes everything durable, writes the counters.
    ///
    /// # Errors
    /// The mount is still there after ten seconds (everything so far is durable then); or the
    /// last changes could not be written.
    pub fn stop(self) -> Result<()> {
        self.end(true)
    }

    /// As [`Server::stop`], for an upper that is about to be deleted: nothing is made durable.
    ///
    /// # Errors
    /// The mount is still there after ten seconds.
    pub fn discard(self) -> Result<()> {
        self.end(false)
    }

    fn end(mut self, keep: bool) -> Result<()> {
        let gone = self.wait_gone();
        if let Ok(store) = self.cow.tree.store() {
            store.flush.stop();
        }
        self.shared.trim.stop();
        if let Some(renewal) = self.shared.server.renewal() {
            renewal.stop();
        }
        let helpers = [&mut self.flusher, &mut self.trimmer, &mut self.renewer];
        for helper in helpers.into_iter().filter_map(Option::take) {
            let _ = helper.join();
        }
        if gone {
            for thread in self.threads.drain(..) {
                let _ = thread.join();
            }
        }
        if gone && keep {
            self.cow.tree.unmounted();
        }
        if keep {
            self.cow.sync()?;
        }
        if let Some(path) = &self.stats {
            self.write_stats(path)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        if gone {
            Ok(())
        } else {
            Err(failed("the file system is still mounted somewhere").into())
        }
    }

    fn wait_gone(&self) -> bool {
        let (lock, signal) = &self.shared.ended;
        let (_guard, timeout) = signal
            .wait_timeout_while(lk(lock), PATIENCE, |()| self.alive())
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        !timeout.timed_out()
    }

    fn write_stats(&self, path: &Path) -> io::Result<()> {
        use std::fmt::Write;
        let mut text = String::new();
        for (op, count) in self.shared.server.counts() {
            let _ = writeln!(text, "{} {count}", ops::op_name(op));
        }
        std::fs::write(path, text)
    }
}

/// Room for one request. Of its own: what was touched by a large one is given back by dropping it.
fn request_buffer() -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(REQUEST_MAX)?;
    // 2 MiB at the first touch would be more than there is to have.
    let _ = map.advise(Advice::NoHugePage);
    Ok(map)
}

/// One thread that serves; whatever way it ends.
struct Serving<'a>(&'a Shared);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if self.0.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _guard = lk(&self.0.ended.0);
            self.0.ended.1.notify_all();
        }
    }
}

/// One thread: reads requests until the mount is gone.
fn run(shared: &Shared, n: usize, channel: &File) {
    let _serving = Serving(shared);
    let worker = &shared.workers[n];
    let mut reader = shared.attention.reader(n, channel);
    *lk(&worker.sleeper) = sleeper().ok();
    let mut buffers = Buffers::new();
    let mut room = request_buffer();
    let mut early = if shared.tree.low.is_large() { EARLY } else { 0 };
    while let Ok(request) = &mut room {
        if !serve(
            shared,
            (worker, &mut reader),
            request,
            &mut buffers,
            &mut early,
        ) {
            break;
        }
        buffers = Buffers::new();
        if let Ok(fresh) = request_buffer() {
            room = Ok(fresh);
        }
    }
}

/// Serves until the mount is gone, or the buffers are to be given back: whether it is the latter.
fn serve(
    shared: &Shared,
    (worker, reader): (&Worker, &mut Reader<'_>),
    request: &mut [u8],
    buffers: &mut Buffers,
    early: &mut u32,
) -> bool {
    let channel = reader.channel();
    loop {
        match reader.next(request) {
            Ok(0) => return false,
            Ok(n) => {
                shared.server.serve(channel, &request[..n], buffers);
                reader.answered();
                if buffers.needed(n) > SMALL && !worker.needed.load(Ordering::Relaxed) {
                    worker.needed.store(true, Ordering::Release);
                }
                if buffers.held(n) > SMALL && !worker.large.load(Ordering::Relaxed) {
                    worker.large.store(true, Ordering::Release);
                }
                shared.trim.touch();
                if *early > 0 {
                    *early -= 1;
                    shared.tree.low.trim();
                }
            }
            // The request was interrupted before we had it, or we were.
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOENT) => {}
            // ENODEV: unmounted. ECONNABORTED: aborted.
            Err(_) => return false,
        }
        if worker.release.load(Ordering::Relaxed) && worker.release.swap(false, Ordering::AcqRel) {
            worker.large.store(false, Ordering::Release);
            return true;
        }
    }
}

/// Mounts `cow` at `target` and serves it; `source` is what mount tables show. The caller has to be privileged in a user namespace
/// and in a mount namespace of it; ids are that user namespace's.
///
/// # Errors
/// `/dev/fuse` cannot be opened, the mount is refused, or as [`Cow::serve`].
pub fn mount_at(target: &Path, cow: &Cow, source: &OsStr, flags: MsFlags) -> Result<Server> {
    let doing = || format!("mounting at {}", target.display());
    let fuse = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .context("opening /dev/fuse")?;
    let fs = Fs::open("fuse").with_context(doing)?;
    let outer = (|| {
        fs.set("source", source)?;
        fs.set("subtype", "rless")?;
        fs.set("fd", fuse.as_raw_fd().to_string())?;
        fs.set("rootmode", "40000")?;
        fs.set("user_id", "0")?;
        fs.set("group_id", "0")?;
        fs.flag("default_permissions")?;
        fs.flag("allow_other")?;
        fs.mount(attributes(flags))
    })()
    .with_context(doing)?;
    let served = cow.serve(fuse.into())?;
    show_root(&outer, target).with_context(doing)?;
    Ok(served)
}

/// `MOUNT_ATTR_*` of a mount's flags (`<linux/mount.h>`).
fn attributes(flags: MsFlags) -> u64 {
    [
        (MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
        (MsFlags::MS_NOATIME, libc::MOUNT_ATTR_NOATIME),
        (MsFlags::MS_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(0, |sum, (_, attribute)| sum | attribute)
}

/// Mounts the tree's root at `target`.
fn show_root(outer: &OwnedFd, target: &Path) -> io::Result<()> {
    let path = || {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(target, flags, Mode::empty())
    };
    let root = match clone_tree(outer, Path::new(ROOT_ENTRY), false) {
        // Before Linux 6.15 only what is attached can be cloned.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            attach(outer, path()?)?;
            let root = clone_tree(outer, Path::new(ROOT_ENTRY), false);
            umount2(target, MntFlags::MNT_DETACH)?;
            root?
        }
        other => other?,
    };
    attach(&root, path()?)
}
