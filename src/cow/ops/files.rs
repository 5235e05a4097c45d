//! Requests about content.

use super::wire::{put32, put64};
use super::{Answer, Content, MAX_WRITE, Request, Server, send_data};
use crate::cow::meta::{Res, SIZE_MAX};
use nix::errno::Errno;
use std::fs::File;

/// `write_flags`: pages of a mapping written back.
const WRITE_CACHE: u32 = 1;
/// `write_flags`: setuid, setgid and capabilities go.
const WRITE_KILL_SUIDGID: u32 = 4;
/// `fsync_flags`: only what reading the content back needs.
const FSYNC_FDATASYNC: u32 = 1;
/// `open_flags` of an answer: the page cache stays.
const KEEP_CACHE: u32 = 2;

impl Server {
    pub(super) fn open(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        if !self.tree.low.is_live() {
            // No more OPEN and RELEASE: everything goes by inode number.
            return Err(Errno::ENOSYS);
        }
        // What the user cannot read on the host is refused here, not at the first read.
        let same = self.tree.openable(r.node)?;
        put64(out, 0);
        put32(out, if same { KEEP_CACHE } else { 0 });
        put32(out, 0);
        Ok(Answer::Body)
    }

    pub(super) fn read(
        &self,
        channel: &File,
        r: &mut Request<'_>,
        content: &mut Content,
    ) -> Res<Answer> {
        r.args.skip(8)?;
        let (offset, size) = (r.args.u64()?, r.args.u32()?);
        let size = size.min(MAX_WRITE) as usize;
        if offset == 0
            && let Some(renewal) = &self.renewal
        {
            renewal.read(r.node);
        }
        let unique = r.unique;
        if let Some(part) = self.tree.read_range(r.node, offset, size)
            && content.send_file(channel, unique, part)
        {
            return Ok(Answer::Sent);
        }
        let Content {
            bytes: buf, last, ..
        } = content;
        self.tree.read(r.node, offset, size, buf, |bytes| {
            *last = bytes.len();
            send_data(channel, unique, bytes);
        })?;
        Ok(Answer::Sent)
    }

    pub(super) fn write(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        r.args.skip(8)?;
        let (offset, size, flags) = (r.args.u64()?, r.args.u32()?, r.args.u32()?);
        r.args.skip(16)?;
        let data = r.args.bytes(size as usize)?;
        let kill = flags & WRITE_KILL_SUIDGID != 0;
        let n = self.tree.write(r.who, r.node, offset, data, kill)?;
        if flags & WRITE_CACHE != 0 {
            r.also.push(r.node);
        }
        put32(out, u32::try_from(n).unwrap_or(0));
        put32(out, 0);
        Ok(Answer::Body)
    }

    pub(super) fn fsync(&self, r: &mut Request<'_>) -> Res<Answer> {
        r.args.skip(8)?;
        let data_only = r.args.u32()? & FSYNC_FDATASYNC != 0;
        self.tree.fsync(r.node, data_only)?;
        Ok(Answer::Body)
    }

    pub(super) fn fsyncdir(&self, r: &mut Request<'_>) -> Res<Answer> {
        if r.op == super::op::SYNCFS {
            self.tree.sync_all()?;
        } else {
            self.tree.commit(true)?;
        }
        Ok(Answer::Body)
    }

    pub(super) fn fallocate(&self, r: &mut Request<'_>) -> Res<Answer> {
        r.args.skip(8)?;
        let (offset, len, mode) = (r.args.u64()?, r.args.u64()?, r.args.u32()?);
        self.tree.fallocate(r.who, r.node, offset, len, mode)?;
        Ok(Answer::Body)
    }

    pub(super) fn lseek(&self, r: &mut Request<'_>, out: &mut Vec<u8>) -> Res<Answer> {
        r.args.skip(8)?;
        let (offset, whence) = (r.args.u64()?, r.args.u32()?);
        if offset > SIZE_MAX {
            return Err(Errno::ENXIO);
        }
        let hole = match whence as i32 {
            libc::SEEK_DATA => false,
            libc::SEEK_HOLE => true,
            _ => return Err(Errno::EINVAL),
        };
        put64(out, self.tree.seek(r.node, offset, hole)?);
        Ok(Answer::Body)
    }
}
