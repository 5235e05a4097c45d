//! Requests about names.

use super::news::LISTED;
use super::wire::{self, DIRENT, ENTRY, put_dirent, put_entry, put32, put64};
use super::{Answer, Request, Server};
use crate::cow::meta::{Meta, NAME_MAX, Res, S_IFDIR, S_IFLNK, S_IFREG};
use crate::cow::upper::{Dirent, New};
use nix::errno::Errno;

/// `open_flags` of an answer: the page cache stays.
const KEEP_CACHE: u32 = 2;
/// The directory's listing may be cached.
const CACHE_DIR: u32 = 8;
/// Longest target of a symbolic link.
const TARGET_MAX: usize = 4095;
/// How often an inode is looked up that is forgotten at the same time.
const LOOKS: u32 = 4;

impl Server {
    /// Answers with an inode, which the kernel then refers to.
    pub(super) fn entry(&self, ino: u64, out: &mut Vec<u8>) -> Res<Answer> {
        // Counted first: no forget on its way can take from under the answer what it speaks of.
        if !self.tree.refer(ino) {
            return Err(Errno::ENOENT);
        }
        let (meta, sectors) = self
            .tree
            .getattr(ino)
            .inspect_err(|_| self.tree.forget(ino, 1))?;
        put_entry(out, ino, &meta, sectors, self.ttl);
        Ok(Answer::Body)
    }

    pub(super) fn lookup(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        let name = r.args.name()?;
        for _ in 0..LOOKS {
            let Some(ino) = self.tree.lookup(r.node, name)? else {
                // That there is nothing is remembered too.
                put_entry(out, 0, &Meta::default(), 0, self.ttl);
                return Ok(Answer::Body);
            };
            self.news.tell(r.task, ino);
            match self.entry(ino, out) {
                // Forgotten between the two looks, or a live host file that went.
                Err(Errno::ENOENT | Errno::ESTALE) => {}
                other => return other,
            }
        }
        Err(Errno::ENOENT)
    }

    pub(super) fn symlink(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        let (name, target) = (r.args.name()?, r.args.name()?);
        if target.len() > TARGET_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let new = New {
            mode: S_IFLNK | 0o777,
            target,
            ..New::default()
        };
        let ino = self.tree.create(r.who, r.node, name, &new)?;
        self.entry(ino, out)
    }

    pub(super) fn mknod(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        let (mode, rdev, umask) = (r.args.u32()?, r.args.u32()?, r.args.u32()?);
        r.args.skip(4)?;
        let name = r.args.name()?;
        let new = New {
            mode,
            umask,
            rdev,
            target: b"",
        };
        let ino = self.tree.create(r.who, r.node, name, &new)?;
        self.entry(ino, out)
    }

    pub(super) fn mkdir(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        let (mode, umask) = (r.args.u32()?, r.args.u32()?);
        let name = r.args.name()?;
        let new = New {
            mode: S_IFDIR | (mode & 0o7777),
            umask,
            ..New::default()
        };
        let ino = self.tree.create(r.who, r.node, name, &new)?;
        self.entry(ino, out)
    }

    /// CREATE and TMPFILE: an inode and an open file in one answer.
    pub(super) fn create(
        &self,
        r: &mut Request<'_>,
        out: &mut Vec<u8>,
        unnamed: bool,
    ) -> Res<Answer> {
        let (_flags, mode, umask) = (r.args.u32()?, r.args.u32()?, r.args.u32()?);
        r.args.skip(4)?;
        let name = r.args.name()?;
        let new = New {
            mode: S_IFREG | (mode & 0o7777),
            umask,
            ..New::default()
        };
        let ino = if unnamed {
            self.tree.tmpfile(r.who, r.node, &new)?
        } else {
            self.tree.create(r.who, r.node, name, &new)?
        };
        self.entry(ino, out)?;
        put64(out, 0);
        put32(out, KEEP_CACHE);
        put32(out, 0);
        Ok(Answer::Body)
    }

    pub(super) fn link(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        let ino = wire::swap_root(r.args.u64()?);
        let name = r.args.name()?;
        self.tree.link(ino, r.node, name)?;
        r.also.push(ino);
        self.entry(ino, out)
    }

    pub(super) fn unlink(&self, r: &mut Request<'_>) -> Res<Answer> {
        self.tree.unlink(r.node, r.args.name()?)?;
        Ok(Answer::Body)
    }

    pub(super) fn rmdir(&self, r: &mut Request<'_>) -> Res<Answer> {
        self.tree.rmdir(r.node, r.args.name()?)?;
        Ok(Answer::Body)
    }

    pub(super) fn rename(&self, r: &mut Request<'_>, with_flags: bool) -> Res<Answer> {
        let newdir = wire::swap_root(r.args.u64()?);
        let mut flags = 0;
        if with_flags {
            flags = r.args.u32()?;
            r.args.skip(4)?;
        }
        let (name, newname) = (r.args.name()?, r.args.name()?);
        self.tree
            .rename(r.who, r.node, name, newdir, newname, flags)?;
        r.also.push(newdir);
        if self.news.any() {
            // What was moved has another time.
            for (dir, name) in [(newdir, newname), (r.node, name)] {
                r.also.extend(self.tree.lookup(dir, name).ok().flatten());
            }
        }
        Ok(Answer::Body)
    }

    pub(super) fn opendir(&self, out: &mut Vec<u8>) -> Res<Answer> {
        if !self.tree.low.is_live() {
            // No more OPENDIR and RELEASEDIR; listings are cached until the directory changes.
            return Err(Errno::ENOSYS);
        }
        put64(out, self.dirs.open());
        put32(out, 0);
        put32(out, 0);
        let _ = CACHE_DIR;
        Ok(Answer::Body)
    }

    pub(super) fn releasedir(&self, r: &mut Request<'_>) -> Res<Answer> {
        self.dirs.release(r.args.u64()?);
        Ok(Answer::Body)
    }

    pub(super) fn readdir(
        &self,
        r: &mut Request<'_>,
        out: &mut Vec<u8>,
        plus: bool,
    ) -> Res<Answer> {
        let (fh, offset, size) = (r.args.u64()?, r.args.u64()?, r.args.u32()?);
        let (limit, empty) = (out.len() + size as usize, out.len());
        let (mut first, mut last) = (u64::MAX, 0);
        if plus {
            self.news.tell(r.task, LISTED);
        }
        let held = Some((&self.dirs, fh));
        self.tree
            .readdir(r.node, offset, held, &mut |e: &Dirent<'_>| {
                debug_assert!(e.name.len() <= NAME_MAX);
                let need = DIRENT + e.name.len().next_multiple_of(8) + if plus { ENTRY } else { 0 };
                if out.len() + need > limit {
                    return false;
                }
                if plus && self.put_plus(e, out) {
                    (first, last) = (first.min(e.ino), last.max(e.ino));
                }
                put_dirent(out, e.ino, e.next, e.kind, e.name);
                true
            })?;
        if plus && out.len() == empty {
            // The end of it.
            self.news.taken_in(r.task);
        }
        if let Some(renewal) = &self.renewal {
            if first <= last {
                renewal.listed(r.node, first, last);
            }
            if offset == 0 {
                renewal.read(r.node);
            }
        }
        Ok(Answer::Body)
    }

    /// The attributes of READDIRPLUS; number 0 (and false) where the kernel is to look up by itself.
    fn put_plus(&self, e: &Dirent<'_>, out: &mut Vec<u8>) -> bool {
        let dots = e.name == b"." || e.name == b"..";
        // A live host's listing gives numbers that nobody has looked up yet.
        let put = !dots && !self.tree.low.is_live() && self.entry(e.ino, out).is_ok();
        if !put {
            put_entry(out, 0, &Meta::default(), 0, 0);
        }
        put
    }
}
