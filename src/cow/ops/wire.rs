//! The kernel's structures, from `<linux/fuse.h>`: readers and writers of native-endian fields.

use crate::cow::index::Index;
use crate::cow::meta::{BLOCK, Meta, Res, Time};
use nix::errno::Errno;
use std::fs::File;
use std::io::Write;

/// Opcodes.
pub(super) mod op {
    #![allow(missing_docs)]
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const NOTIFY_REPLY: u32 = 41;
    /// No request of the kernel's.
    #[cfg(test)]
    pub(crate) const FAULT: u32 = 4094;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const SYNCFS: u32 = 50;
    pub(crate) const TMPFILE: u32 = 51;
}

const NAMES: [&str; 54] = [
    "",
    "LOOKUP",
    "FORGET",
    "GETATTR",
    "SETATTR",
    "READLINK",
    "SYMLINK",
    "",
    "MKNOD",
    "MKDIR",
    "UNLINK",
    "RMDIR",
    "RENAME",
    "LINK",
    "OPEN",
    "READ",
    "WRITE",
    "STATFS",
    "RELEASE",
    "",
    "FSYNC",
    "SETXATTR",
    "GETXATTR",
    "LISTXATTR",
    "REMOVEXATTR",
    "FLUSH",
    "INIT",
    "OPENDIR",
    "READDIR",
    "RELEASEDIR",
    "FSYNCDIR",
    "GETLK",
    "SETLK",
    "SETLKW",
    "ACCESS",
    "CREATE",
    "INTERRUPT",
    "BMAP",
    "DESTROY",
    "IOCTL",
    "POLL",
    "NOTIFY_REPLY",
    "BATCH_FORGET",
    "FALLOCATE",
    "READDIRPLUS",
    "RENAME2",
    "LSEEK",
    "COPY_FILE_RANGE",
    "SETUPMAPPING",
    "REMOVEMAPPING",
    "SYNCFS",
    "TMPFILE",
    "STATX",
    "COPY_FILE_RANGE_64",
];

/// An opcode's name, for statistics.
pub(crate) fn op_name(op: u32) -> String {
    match NAMES.get(op as usize) {
        Some(name) if !name.is_empty() => (*name).to_owned(),
        _ => format!("OP{op}"),
    }
}

/// Bytes of an answer's header.
pub(super) const HEADER: usize = 16;

/// What is left of a request.
#[derive(Clone, Copy)]
pub(super) struct Args<'a>(pub &'a [u8]);

impl<'a> Args<'a> {
    fn take<const N: usize>(&mut self) -> Res<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(*head)
    }
    pub(super) fn u32(&mut self) -> Res<u32> {
        Ok(u32::from_ne_bytes(self.take()?))
    }
    pub(super) fn u64(&mut self) -> Res<u64> {
        Ok(u64::from_ne_bytes(self.take()?))
    }
    pub(super) fn skip(&mut self, n: usize) -> Res<()> {
        self.0 = self.0.get(n..).ok_or(Errno::EINVAL)?;
        Ok(())
    }
    pub(super) fn bytes(&mut self, n: usize) -> Res<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(head)
    }
    /// A string ended by a NUL.
    pub(super) fn name(&mut self) -> Res<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Errno::EINVAL)?;
        let name = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Ok(name)
    }
}

/// Fills in the header of a whole answer.
pub(super) fn seal(out: &mut [u8], error: i32, unique: u64) {
    let body = out.len().saturating_sub(HEADER);
    seal_for(out, body, error, unique);
}

/// Fills in a header for a body of `body` bytes.
pub(super) fn seal_for(head: &mut [u8], body: usize, error: i32, unique: u64) {
    let len = u32::try_from(HEADER + body).unwrap_or(u32::MAX);
    head[..4].copy_from_slice(&len.to_ne_bytes());
    head[4..8].copy_from_slice(&error.to_ne_bytes());
    head[8..16].copy_from_slice(&unique.to_ne_bytes());
}

/// `FUSE_NOTIFY_INVAL_INODE`: the kernel is to ask again for an inode's attributes, and to drop those on their way.
pub(super) fn notify_changed(channel: &File, ino: u64) {
    // No offset: its content stays.
    notify_inval(channel, ino, u64::MAX);
}

/// The same, and to forget a directory's listing. May wait for who reads that out.
pub(super) fn notify_listing(channel: &File, ino: u64) {
    notify_inval(channel, ino, 0);
}

fn notify_inval(mut channel: &File, ino: u64, offset: u64) {
    const INVAL_INODE: i32 = 2;
    let mut out = vec![0; HEADER];
    put64(&mut out, swap_root(ino));
    put64(&mut out, offset);
    // To the end.
    put64(&mut out, 0);
    seal(&mut out, INVAL_INODE, 0);
    // It fails where the kernel does not know the inode.
    let _ = channel.write(&out);
}

/// In the tree's numbering the root directory of the connection, which is no part of the tree.
pub(super) const OUTER: u64 = u64::MAX;

/// The inode of a node number, or the node number of an inode: the connection's own root has number 1
/// by the protocol, so the tree's root, inode 1, gets another.
pub(super) fn swap_root(number: u64) -> u64 {
    match number {
        Index::ROOT => OUTER,
        OUTER => Index::ROOT,
        other => other,
    }
}

pub(super) fn put32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_ne_bytes());
}
pub(super) fn put64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(&v.to_ne_bytes());
}

/// `struct fuse_attr`.
pub(super) fn put_attr(out: &mut Vec<u8>, ino: u64, m: &Meta, sectors: u64) {
    put64(out, ino);
    put64(out, m.size);
    put64(out, sectors);
    let times: [Time; 3] = [m.atime, m.mtime, m.ctime];
    for t in times {
        out.extend_from_slice(&t.sec.to_ne_bytes());
    }
    for t in times {
        put32(out, t.nsec);
    }
    for v in [m.mode, m.nlink, m.uid, m.gid, m.rdev, BLOCK as u32, 0] {
        put32(out, v);
    }
}

/// `struct fuse_entry_out`; `ino` 0 with attributes of nothing is a negative entry.
pub(super) fn put_entry(out: &mut Vec<u8>, ino: u64, m: &Meta, sectors: u64, ttl: u64) {
    put64(out, swap_root(ino));
    put64(out, 0); // generation: numbers are never used twice
    put64(out, ttl);
    put64(out, ttl);
    put64(out, 0); // both nanoseconds
    put_attr(out, ino, m, sectors);
}

/// Bytes of a `struct fuse_entry_out`.
pub(super) const ENTRY: usize = 128;
/// Bytes of a `struct fuse_dirent` without the name.
pub(super) const DIRENT: usize = 24;

/// `struct fuse_dirent`, padded.
pub(super) fn put_dirent(out: &mut Vec<u8>, ino: u64, next: u64, kind: u8, name: &[u8]) {
    put64(out, ino);
    put64(out, next);
    put32(out, u32::try_from(name.len()).unwrap_or(0));
    put32(out, u32::from(kind));
    out.extend_from_slice(name);
    let pad = name.len().next_multiple_of(8) - name.len();
    out.extend_from_slice(&[0; 8][..pad]);
}
