//! FUSE requests: decoding, answering, and nothing else. What they mean is in [`super::upper`].
//!
//! The connection is set up by fuser ([`super::mount`]: it reads INIT and negotiates). Requests
//! are decoded here and not by fuser, because through it a truncation's "clear setuid" flag, the
//! extended SETXATTR (it panics), O_TMPFILE and times before 1970 in all their forms cannot be
//! seen or answered exactly; and because one decoding and one write an answer cost less.
//!
//! | file | requests |
//! |---|---|
//! | `wire.rs` | the kernel's structures, `<linux/fuse.h>` 7.45 |
//! | `names.rs` | LOOKUP, CREATE, MKDIR …, RENAME, UNLINK, READDIR |
//! | `files.rs` | READ, WRITE, FSYNC, FALLOCATE, LSEEK |
//! | `attrs.rs` | GETATTR, SETATTR, xattrs, STATFS, FORGET |
//! | `news.rs` | answers that a change overtakes |

mod attrs;
mod files;
mod names;
mod news;
#[cfg(test)]
mod tests;
mod wire;

use super::index::Index;
use super::meta::{Caller, Res};
use super::renew::Renewal;
use super::upper::{HostDirs, Tree};
use crate::sys::fuse::{Pipe, ROOT_ENTRY};
use news::News;
use nix::errno::Errno;
use std::fs::File;
use std::io::{IoSlice, Write};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wire::{Args, HEADER, op};

pub(crate) use wire::op_name;

/// Longest request: a write of [`MAX_WRITE`] with its header.
pub(crate) const REQUEST_MAX: usize = MAX_WRITE as usize + 4096;
/// Longest piece of data in one request.
pub(crate) const MAX_WRITE: u32 = 1 << 20;

/// Bytes of content that an answer through a pipe has at most, and at least: below the copy that it saves costs less.
const PIPE: usize = 252 << 10;
const PIPE_LEAST: usize = 16 << 10;

/// How a request was answered.
enum Answer {
    /// The body is in the buffer.
    Body,
    /// It is sent already.
    Sent,
    /// It has no answer.
    Silent,
}

/// One request.
struct Request<'a> {
    op: u32,
    unique: u64,
    node: u64,
    who: Caller,
    /// The thread that asks, as the mount numbers it; 0 where it cannot.
    task: u32,
    args: Args<'a>,
    /// Beside `node`, inodes that it changed without the kernel's knowing how.
    also: Vec<u64>,
}

impl Request<'_> {
    /// Whether the kernel takes from its cache what it has of `node` then, and no more: see [`news`].
    fn unversioned(&self) -> bool {
        matches!(
            self.op,
            op::SYMLINK
                | op::MKNOD
                | op::MKDIR
                | op::CREATE
                | op::UNLINK
                | op::RMDIR
                | op::RENAME
                | op::RENAME2
                | op::LINK
                | op::SETXATTR
                | op::REMOVEXATTR
                | op::FALLOCATE
        )
    }

    /// Whether its task may ask for something else before it is answered.
    fn unawaited(&self) -> bool {
        matches!(
            self.op,
            op::READ
                | op::WRITE
                | op::RELEASE
                | op::RELEASEDIR
                | op::FORGET
                | op::BATCH_FORGET
                | op::INTERRUPT
                | op::NOTIFY_REPLY
        )
    }
}

/// What all threads of a connection share.
pub(crate) struct Server {
    tree: Arc<Tree>,
    dirs: HostDirs,
    /// Of an image's tree: its listings are cached, and its numbers tell where an inode is.
    renewal: Option<Renewal>,
    /// Seconds that names and attributes stay true.
    ttl: u64,
    counts: Vec<AtomicU64>,
    news: News,
}

/// A thread's buffers.
pub(crate) struct Buffers {
    /// The answer, its header first.
    out: Vec<u8>,
    content: Content,
}

/// Where what was read passes.
struct Content {
    bytes: Vec<u8>,
    /// Made when it is needed.
    pipe: Option<Pipe>,
    /// There are none to be had.
    no_pipe: bool,
    /// Bytes of the last answer that passed here.
    last: usize,
}

impl Buffers {
    pub(crate) fn new() -> Buffers {
        Buffers {
            out: Vec::with_capacity(8192),
            content: Content {
                bytes: Vec::new(),
                pipe: None,
                no_pipe: false,
                last: 0,
            },
        }
    }

    /// Bytes that a request of `read` bytes and its answer needed here; asked once for each.
    pub(crate) fn needed(&mut self, read: usize) -> usize {
        std::mem::take(&mut self.content.last)
            .max(self.out.len())
            .max(read)
    }

    /// Bytes that a request of `read` bytes and its answer have left here.
    pub(crate) fn held(&self, read: usize) -> usize {
        let Content { bytes, pipe, .. } = &self.content;
        let pipe = pipe.as_ref().map_or(0, |_| PIPE);
        bytes
            .capacity()
            .max(self.out.capacity())
            .max(pipe)
            .max(read)
    }
}

impl Server {
    pub(crate) fn new(tree: Arc<Tree>) -> Server {
        // We are the only writer of an image's tree; a host directory changes under us.
        let ttl = if tree.low.is_live() { 1 } else { 1 << 32 };
        let renewal = tree.low.as_host().is_none().then(Renewal::default);
        Server {
            tree,
            renewal,
            dirs: HostDirs::default(),
            ttl,
            counts: (0..64).map(|_| AtomicU64::new(0)).collect(),
            news: News::default(),
        }
    }

    /// Where reads and listings are remembered, if they are.
    pub(crate) fn renewal(&self) -> Option<&Renewal> {
        self.renewal.as_ref()
    }

    /// Requests so far, by opcode.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        (0u32..)
            .zip(&self.counts)
            .map(|(i, c)| (i, c.load(Ordering::Relaxed)))
            .filter(|(_, c)| *c > 0)
    }

    /// How many requests there were so far.
    pub(crate) fn requests(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }

    /// Answers one request as the kernel wrote it.
    pub(crate) fn serve(&self, channel: &File, request: &[u8], buffers: &mut Buffers) {
        let Some(mut request) = decode(request) else {
            return;
        };
        if let Some(c) = self.counts.get(request.op as usize) {
            c.fetch_add(1, Ordering::Relaxed);
        }
        if !request.unawaited() {
            self.news.taken_in(request.task);
        }
        let Buffers { out, content } = buffers;
        out.clear();
        out.resize(HEADER, 0);
        // A fault of ours must not leave the caller waiting for good.
        let dispatched = std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.dispatch(channel, &mut request, out, content)
        }));
        let answer = dispatched.unwrap_or(Err(Errno::EIO));
        let error = match answer {
            Ok(Answer::Sent | Answer::Silent) => return,
            Ok(Answer::Body) => {
                self.spread(channel, &request);
                0
            }
            Err(e) => {
                out.truncate(HEADER);
                -(e as i32)
            }
        };
        wire::seal(out, error, request.unique);
        // A write that fails means that the caller is gone or the mount is: nothing to tell.
        let _ = (&mut &*channel).write(out);
        if out.capacity() > 1 << 18 {
            out.shrink_to(8192);
        }
    }

    /// Tells of a change whom an older answer may reach after it.
    fn spread(&self, channel: &File, r: &Request<'_>) {
        let node = r.unversioned().then_some(r.node);
        for ino in node.iter().chain(&r.also) {
            self.news
                .changed(r.task, *ino, || wire::notify_changed(channel, *ino));
        }
    }

    fn dispatch(
        &self,
        channel: &File,
        r: &mut Request<'_>,
        out: &mut Vec<u8>,
        content: &mut Content,
    ) -> Res<Answer> {
        if r.node == wire::OUTER {
            return self.outer(r, out);
        }
        match r.op {
            op::LOOKUP => self.lookup(r, out),
            op::FORGET => self.forget(r),
            op::BATCH_FORGET => self.batch_forget(r),
            op::GETATTR => self.getattr(r, out),
            op::SETATTR => self.setattr(r, out),
            op::READLINK => self.readlink(r, out),
            op::SYMLINK => self.symlink(r, out),
            op::MKNOD => self.mknod(r, out),
            op::MKDIR => self.mkdir(r, out),
            op::UNLINK => self.unlink(r),
            op::RMDIR => self.rmdir(r),
            op::RENAME => self.rename(r, false),
            op::RENAME2 => self.rename(r, true),
            op::LINK => self.link(r, out),
            op::OPEN => self.open(r, out),
            op::READ => self.read(channel, r, content),
            op::WRITE => self.write(r, out),
            op::STATFS => self.statfs(out),
            op::FSYNC => self.fsync(r),
            op::FSYNCDIR | op::SYNCFS => self.fsyncdir(r),
            op::SETXATTR => self.setxattr(r),
            op::GETXATTR => self.getxattr(r, out),
            op::LISTXATTR => self.listxattr(r, out),
            op::REMOVEXATTR => self.removexattr(r),
            op::OPENDIR => self.opendir(out),
            op::RELEASEDIR => self.releasedir(r),
            op::READDIR => self.readdir(r, out, false),
            op::READDIRPLUS => self.readdir(r, out, true),
            // The kernel then makes a file by MKNOD and opens it without asking: no RELEASE for it.
            op::CREATE if !self.tree.low.is_live() => Err(Errno::ENOSYS),
            op::CREATE => self.create(r, out, false),
            op::TMPFILE => self.create(r, out, true),
            op::FALLOCATE => self.fallocate(r),
            op::LSEEK => self.lseek(r, out),
            op::RELEASE | op::DESTROY => Ok(Answer::Body),
            op::IOCTL => Err(Errno::ENOTTY),
            op::NOTIFY_REPLY => Ok(Answer::Silent),
            #[cfg(test)]
            op::FAULT => panic!("a test asked for it"),
            // FLUSH, INTERRUPT, ACCESS, locks and the rest: the kernel then does without.
            _ => Err(Errno::ENOSYS),
        }
    }

    /// The connection's own root: a directory with one name, which no mount shows ([`super::mount`]).
    /// Never ENOSYS, which would turn a request off for all inodes.
    fn outer(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        match r.op {
            op::LOOKUP if r.args.name()? == ROOT_ENTRY.as_bytes() => self.entry(Index::ROOT, out),
            op::LOOKUP => Err(Errno::ENOENT),
            op::GETATTR => self.attr(Index::ROOT, out),
            op::GETXATTR => Err(Errno::ENODATA),
            op::STATFS => self.statfs(out),
            op::SYNCFS => {
                r.node = Index::ROOT;
                self.fsyncdir(r)
            }
            op::FORGET => Ok(Answer::Silent),
            _ => Err(Errno::EACCES),
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Request<'_>> {
    let mut args = Args(bytes);
    let len = args.u32().ok()?;
    if len as usize != bytes.len() {
        return None;
    }
    let op = args.u32().ok()?;
    let unique = args.u64().ok()?;
    let node = wire::swap_root(args.u64().ok()?);
    let who = Caller {
        uid: args.u32().ok()?,
        gid: args.u32().ok()?,
    };
    let task = args.u32().ok()?;
    args.skip(4).ok()?;
    Some(Request {
        op,
        unique,
        node,
        who,
        task,
        args,
        also: Vec::new(),
    })
}

/// Has the kernel forget the cached listing of a directory, if it has one. May wait for who reads it.
pub(crate) fn forget_listing(channel: &File, dir: u64) {
    wire::notify_listing(channel, dir);
}

impl Content {
    /// Sends an answer whose body is a part of a file that does not change, without taking it into our memory; false where that
    /// is not possible, and nothing was sent.
    fn send_file(&mut self, channel: &File, unique: u64, part: (&File, u64, usize)) -> bool {
        let (_, at, len) = part;
        if !(PIPE_LEAST..=PIPE).contains(&len) || !at.is_multiple_of(4096) || self.no_pipe {
            return false;
        }
        let Some(pipe) = self.pipe.take().or_else(|| Pipe::new(PIPE).ok()) else {
            self.no_pipe = true;
            return false;
        };
        let mut head = [0; HEADER];
        wire::seal_for(&mut head, len, 0, unique);
        let sent = pipe.send(&head, part, channel).is_ok();
        // What is left in it after a failure would be a part of the next answer.
        self.pipe = sent.then_some(pipe);
        self.last = len;
        sent
    }
}

/// Sends an answer whose body is somewhere else: one copy, into the kernel.
fn send_data(channel: &File, unique: u64, body: &[u8]) {
    let mut head = vec![0; HEADER];
    wire::seal_for(&mut head, body.len(), 0, unique);
    let _ = (&mut &*channel).write_vectored(&[IoSlice::new(&head), IoSlice::new(body)]);
}
