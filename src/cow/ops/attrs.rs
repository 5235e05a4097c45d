//! Requests about attributes, and forgetting.

use super::wire::{self, put_attr, put32, put64};
use super::{Answer, Request, Server};
use crate::cow::meta::{NAME_MAX, Res, Time};
use crate::cow::upper::{SetAttr, Stamp};
use nix::errno::Errno;

/// `FATTR_*`.
mod fattr {
    pub(super) const MODE: u32 = 1;
    pub(super) const UID: u32 = 2;
    pub(super) const GID: u32 = 4;
    pub(super) const SIZE: u32 = 8;
    pub(super) const ATIME: u32 = 16;
    pub(super) const MTIME: u32 = 32;
    pub(super) const ATIME_NOW: u32 = 128;
    pub(super) const MTIME_NOW: u32 = 256;
    pub(super) const KILL_SUIDGID: u32 = 2048;
}

impl Server {
    pub(super) fn forget(&self, r: &mut Request<'_>) -> Res<Answer> {
        // Neither of the two may be answered, whatever is in them.
        if let Ok(n) = r.args.u64() {
            self.tree.forget(r.node, n);
        }
        Ok(Answer::Silent)
    }

    pub(super) fn batch_forget(&self, r: &mut Request<'_>) -> Res<Answer> {
        let count = r.args.u32().unwrap_or(0);
        let _ = r.args.u32();
        for _ in 0..count {
            let (Ok(node), Ok(n)) = (r.args.u64(), r.args.u64()) else {
                break;
            };
            self.tree.forget(wire::swap_root(node), n);
        }
        Ok(Answer::Silent)
    }

    pub(super) fn attr(&self, ino: u64, out: &mut Vec<u8>) -> Res<Answer> {
        let (meta, sectors) = self.tree.getattr(ino)?;
        put64(out, self.ttl);
        put64(out, 0);
        put_attr(out, ino, &meta, sectors);
        Ok(Answer::Body)
    }

    pub(super) fn getattr(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        self.news.tell(r.task, r.node);
        self.attr(r.node, out)
    }

    pub(super) fn setattr(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        let a = &mut r.args;
        let valid = a.u32()?;
        a.skip(12)?;
        let size = a.u64()?;
        a.skip(8)?;
        let (atime, mtime, _ctime) = (a.u64()?, a.u64()?, a.u64()?);
        let (ansec, mnsec, _cnsec) = (a.u32()?, a.u32()?, a.u32()?);
        let mode = a.u32()?;
        a.skip(4)?;
        let (uid, gid) = (a.u32()?, a.u32()?);
        let has = |bit: u32| valid & bit != 0;
        let stamp = |set, now, sec: u64, nsec| {
            if !has(set) {
                None
            } else if has(now) {
                Some(Stamp::Now)
            } else {
                Some(Stamp::At(Time {
                    sec: sec.cast_signed(),
                    nsec,
                }))
            }
        };
        let set = SetAttr {
            mode: has(fattr::MODE).then_some(mode),
            uid: has(fattr::UID).then_some(uid),
            gid: has(fattr::GID).then_some(gid),
            size: has(fattr::SIZE).then_some(size),
            atime: stamp(fattr::ATIME, fattr::ATIME_NOW, atime, ansec),
            mtime: stamp(fattr::MTIME, fattr::MTIME_NOW, mtime, mnsec),
            kill: has(fattr::KILL_SUIDGID),
        };
        self.tree.setattr(r.who, r.node, &set)?;
        self.attr(r.node, out)
    }

    pub(super) fn readlink(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        out.extend_from_slice(&self.tree.readlink(r.node)?);
        Ok(Answer::Body)
    }

    pub(super) fn statfs(&self, out: &mut Vec<u8>) -> Res<Answer> {
        for v in self.tree.statfs()? {
            put64(out, v);
        }
        for v in [4096, NAME_MAX as u32, 4096, 0, 0, 0, 0, 0, 0, 0] {
            put32(out, v);
        }
        Ok(Answer::Body)
    }

    pub(super) fn setxattr(&self, r: &mut Request<'_>) -> Res<Answer> {
        let (size, flags) = (r.args.u32()?, r.args.u32()?);
        let name = r.args.name()?;
        let value = r.args.bytes(size as usize)?;
        self.tree.setxattr(r.who, r.node, name, value, flags)?;
        Ok(Answer::Body)
    }

    /// Answers with a value: its length where the caller gave no room.
    fn value(size: u32, value: &[u8], out: &mut Vec<u8>) -> Res<()> {
        if size == 0 {
            put32(out, u32::try_from(value.len()).unwrap_or(u32::MAX));
            put32(out, 0);
        } else if value.len() > size as usize {
            return Err(Errno::ERANGE);
        } else {
            out.extend_from_slice(value);
        }
        Ok(())
    }

    pub(super) fn getxattr(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        let size = r.args.u32()?;
        r.args.skip(4)?;
        let name = r.args.name()?;
        self.tree
            .getxattr(r.node, name, |value| Self::value(size, value, out))??;
        Ok(Answer::Body)
    }

    pub(super) fn listxattr(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        let size = r.args.u32()?;
        let list = self.tree.listxattr(r.node)?;
        Self::value(size, &list, out)?;
        Ok(Answer::Body)
    }

    pub(super) fn removexattr(&self, r: &mut Request<'_>) -> Res<Answer> {
        self.tree.removexattr(r.node, r.args.name()?)?;
        Ok(Answer::Body)
    }
}
