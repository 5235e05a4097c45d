//! Inodes by number, whole: what makes an archive of a tree needs.

use super::Cow;
use super::index::Time;
use super::meta::Res;
use super::path::Stat;
use super::upper::{Body, Tree};
use crate::error::Result;
use anyhow::Context;

/// Metadata of one inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// What `stat` shows; true owners.
    pub stat: Stat,
    /// Time of the last access.
    pub atime: Time,
    /// Of a symbolic link.
    pub target: Vec<u8>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Cow {
    /// Everything about an inode but its content.
    ///
    /// # Errors
    /// There is none of that number; what a host directory's file system answers.
    pub fn whole(&self, ino: u64) -> Result<Whole> {
        let read = || -> Res<Whole> {
            let meta = self.tree.true_meta(ino)?;
            let target = match meta.is_link() {
                true => self.tree.readlink(ino)?,
                false => Vec::new(),
            };
            Ok(Whole {
                stat: Stat::new(ino, &meta),
                atime: meta.atime,
                target,
                xattrs: self.tree.attributes(ino)?,
            })
        };
        read().with_context(|| format!("looking at inode {ino}"))
    }

    /// Reads content of a regular file from `offset` into `buf`, at most `most` bytes; `buf` is then as long as what
    /// was read, and empty at the file's end.
    ///
    /// # Errors
    /// What the host answers.
    pub fn read_at(&self, ino: u64, offset: u64, most: usize, buf: &mut Vec<u8>) -> Result<()> {
        let got = self.tree.read(ino, offset, most, buf, <[u8]>::len);
        let n = got.with_context(|| format!("reading inode {ino}"))?;
        buf.truncate(n);
        Ok(())
    }

    /// Where a regular file has data: (offset, length), in order; all else in it is zeros.
    ///
    /// # Errors
    /// What the host answers.
    pub fn pieces(&self, ino: u64) -> Result<Vec<(u64, u64)>> {
        self.tree
            .pieces(ino)
            .with_context(|| format!("looking for the holes of inode {ino}"))
    }
}

impl Tree {
    fn attributes(&self, ino: u64) -> Res<Vec<(Vec<u8>, Vec<u8>)>> {
        if let Some(node) = self.node(ino)
            && let Some(own) = &super::meta::rd(&node.state).xattrs
        {
            return Ok(own.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect());
        }
        self.low.xattrs(ino)
    }

    fn pieces(&self, ino: u64) -> Res<Vec<(u64, u64)>> {
        let size = self.true_meta(ino)?.size;
        let own = self.node(ino).is_some_and(|n| {
            matches!(&super::meta::rd(&n.state).body, Body::File(f) if !f.live && (f.data_id != 0 || f.base_len < size))
        });
        let mut out = Vec::new();
        let mut at = 0;
        while at < size {
            let seek = |at, hole| match own {
                true => self.seek(ino, at, hole),
                false => self.low.seek(ino, at, size, hole),
            };
            let data = match seek(at, false) {
                Err(nix::errno::Errno::ENXIO) => break,
                other => other?,
            };
            let end = seek(data, true)?.min(size);
            if data >= size || end <= data {
                break;
            }
            out.push((data, end - data));
            at = end;
        }
        Ok(out)
    }
}
