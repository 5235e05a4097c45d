//! Reading, writing, truncating, punching, seeking.

use super::super::host::HostLower;
use super::super::meta::{BLOCK, Caller, Res, S_ISGID, S_ISUID, SIZE_MAX, Time, rd, wr};
use super::attr::killed;
use super::extent::{Piece, not_too_scattered};
use super::node::{Body, FileBody, Node, State};
use super::{Tree, now};
use nix::errno::Errno;
use std::fs::File;

/// `fallocate(2)` modes that are known.
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const ZERO_RANGE: u32 = 0x10;

fn file_body(state: &State) -> Res<&FileBody> {
    match &state.body {
        Body::File(f) => Ok(f),
        Body::Dir(_) => Err(Errno::EISDIR),
        _ => Err(Errno::EINVAL),
    }
}

fn file_mut(state: &mut State) -> Res<&mut FileBody> {
    match &mut state.body {
        Body::File(f) => Ok(f),
        Body::Dir(_) => Err(Errno::EISDIR),
        _ => Err(Errno::EINVAL),
    }
}

/// The first `len` bytes of a buffer, with whatever is in them.
fn room(buf: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buf.len() < len {
        buf.resize(len, 0);
    }
    &mut buf[..len]
}

impl Tree {
    /// Reads at most `len` bytes from `offset` into `buf` and hands them to `reply`.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL`, `ENOENT`, and what the host answers.
    pub(crate) fn read<T>(
        &self,
        ino: u64,
        offset: u64,
        len: usize,
        buf: &mut Vec<u8>,
        reply: impl FnOnce(&[u8]) -> T,
    ) -> Res<T> {
        let Some(node) = self.node(ino) else {
            return self.read_low(ino, offset, len, buf, reply);
        };
        {
            let state = rd(&node.state);
            let f = file_body(&state)?;
            if f.live {
                return self.read_low(ino, offset, len, buf, reply);
            }
            let left = state.meta.size.saturating_sub(offset);
            let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
            let end = offset + len as u64;
            let (piece, until) = f.piece(offset, end);
            if piece == Piece::Low && until == end {
                return self.read_low(ino, offset, len, buf, reply);
            }
            let fd = f.open();
            if len == 0 || fd.is_some() || f.data_id == 0 {
                let part = room(buf, len);
                self.gather(ino, f, fd.as_ref(), part, offset)?;
                return Ok(reply(part));
            }
        }
        // The data file has to be opened first.
        {
            let mut state = wr(&node.state);
            let f = file_mut(&mut state)?;
            if f.data_id != 0 {
                self.data_file(&node, f, 0)?;
            }
        }
        let state = rd(&node.state);
        let f = file_body(&state)?;
        let left = state.meta.size.saturating_sub(offset);
        let part = room(buf, len.min(usize::try_from(left).unwrap_or(usize::MAX)));
        // Closed again in between, by a full descriptor table: open one of our own.
        let fd = match (f.open(), f.data_id) {
            (Some(fd), _) => Some(fd),
            (None, 0) => None,
            (None, id) => Some(self.store()?.data.place(id, false)?),
        };
        self.gather(ino, f, fd.as_ref(), part, offset)?;
        Ok(reply(part))
    }

    /// Where [`Tree::read`] finds all it would read, if that is in one immutable file: file, offset and length.
    pub(crate) fn read_range(
        &self,
        ino: u64,
        offset: u64,
        len: usize,
    ) -> Option<(&File, u64, usize)> {
        match self.node(ino) {
            None => self.low.range(ino, offset, len),
            Some(_) => None,
        }
    }

    fn read_low<T>(
        &self,
        ino: u64,
        offset: u64,
        len: usize,
        buf: &mut Vec<u8>,
        reply: impl FnOnce(&[u8]) -> T,
    ) -> Res<T> {
        let part = room(buf, len);
        let n = self.low.read(ino, offset, part)?;
        Ok(reply(&part[..n]))
    }

    /// Writes `data` at `offset`. `kill` takes setuid, setgid and capabilities as a write by
    /// somebody unprivileged does.
    ///
    /// # Errors
    /// `EFBIG`, `ENOSPC`, `EROFS`, and what the host answers.
    pub(crate) fn write(
        &self,
        who: Caller,
        ino: u64,
        offset: u64,
        data: &[u8],
        kill: bool,
    ) -> Res<usize> {
        let end = offset.saturating_add(data.len() as u64);
        self.before_content(ino, |size| end > size / BLOCK * BLOCK)?;
        self.reclaiming(|| self.write_once(who, ino, offset, data, kill))
    }

    fn write_once(
        &self,
        who: Caller,
        ino: u64,
        offset: u64,
        data: &[u8],
        kill: bool,
    ) -> Res<usize> {
        let _gate = self.change()?;
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if end > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        let node = self.promote(ino)?;
        let mut state = wr(&node.state);
        let time = now();
        self.own_content(&node, &mut state)?;
        let size = state.meta.size;
        let f = file_mut(&mut state)?;
        if data.is_empty() {
            return Ok(0);
        }
        if end > size / BLOCK * BLOCK {
            self.shorter_first(f, size)?;
        }
        if offset > size {
            self.clean_tail(&node, f, size)?;
        }
        let (first, last) = (offset / BLOCK, end.div_ceil(BLOCK));
        let added = self.reserve(f, first, last)?;
        f.written.insert(first, last);
        let done = self.put_blocks(&node, f, offset, data);
        if let Err(e) = done {
            // A part may be there: what a later write finds below `phys` it clears first.
            f.phys = f.phys.max(end);
            self.list_dirty(&node, f);
            self.unreserve(added);
            return Err(e);
        }
        f.grown |= f.valid.insert(first, last) > 0 || end > size;
        f.phys = f.phys.max(end);
        if f.stale.is_some() && end >= size.next_multiple_of(BLOCK) {
            f.stale = None;
        }
        state.meta.size = size.max(end);
        state.meta.touch(time);
        self.mark_dirty(&node, &mut state);
        if kill {
            self.kill_privileges(who, ino, &mut state, time)?;
        }
        Ok(data.len())
    }

    fn put_blocks(&self, node: &Node, f: &mut FileBody, offset: u64, data: &[u8]) -> Res<()> {
        let end = offset + data.len() as u64;
        self.own_place(node, f, end)?;
        let file = self.data_file(node, f, end)?;
        self.fill_edge(node.ino, f, &file, offset, true)?;
        self.fill_edge(node.ino, f, &file, end, false)?;
        file.write(data, offset)
    }

    /// Setuid, setgid and file capabilities do not survive a change of content.
    fn kill_privileges(&self, who: Caller, ino: u64, state: &mut State, time: Time) -> Res<()> {
        if state.meta.mode & (S_ISUID | S_ISGID) != 0 {
            let mode = killed(state.meta.mode, who, state.meta.gid);
            if mode != state.meta.mode {
                state.meta.mode = mode;
                self.log_attr(ino, state);
            }
        }
        self.drop_capability(ino, state, time)
    }

    /// A live host file is copied whole before its first change: the host may change the rest.
    pub(super) fn own_content(&self, node: &Node, state: &mut State) -> Res<()> {
        let f = file_mut(state)?;
        if !f.live {
            return Ok(());
        }
        let size = match self.copy_content(node, f) {
            Ok(size) => size,
            Err(e) => {
                // The content is the host's as before: nothing stays of the attempt.
                self.drop_blocks(f);
                return Err(e);
            }
        };
        f.live = false;
        f.base_len = 0;
        f.grown = true;
        f.full = true;
        state.meta.size = size;
        self.mark_dirty(node, state);
        Ok(())
    }

    /// Copies what the lower has of a file; returns its length.
    fn copy_content(&self, node: &Node, f: &mut FileBody) -> Res<u64> {
        let host = self.low.as_host().ok_or(Errno::EIO)?;
        // One file from end to end, whatever the host puts at its path meanwhile.
        let Some(from) = host.content(node.ino)? else {
            return Ok(0);
        };
        let mut at = 0;
        let mut buf = vec![0; 1 << 20];
        loop {
            let n = HostLower::read_from(&from, at, &mut buf)?;
            let part = &buf[..n];
            if part.is_empty() {
                return Ok(at);
            }
            let end = at + part.len() as u64;
            let added = self.reserve(f, at / BLOCK, end.div_ceil(BLOCK))?;
            let put = self
                .data_file(node, f, end)
                .and_then(|file| file.write(part, at));
            if let Err(e) = put {
                self.unreserve(added);
                return Err(e);
            }
            f.valid.insert(at / BLOCK, end.div_ceil(BLOCK));
            f.written.insert(at / BLOCK, end.div_ceil(BLOCK));
            f.phys = f.phys.max(end);
            at = end;
        }
    }

    /// Sets a locked file's length.
    pub(super) fn truncate(
        &self,
        node: &Node,
        state: &mut State,
        size: u64,
        time: Time,
    ) -> Res<()> {
        file_mut(state)?;
        if size > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        if size != 0 {
            self.own_content(node, state)?;
        }
        let old = state.meta.size;
        let f = file_mut(state)?;
        if size > old {
            self.clean_tail(node, f, old)?;
            // Replay clears the tail too: what is written there now needs a record.
            f.grown = true;
            self.mark_dirty(node, state);
        }
        let f = file_mut(state)?;
        if size == 0
            && old > 0
            && (f.logged || !f.left.is_empty() || f.base_len > 0)
            && let Ok(store) = self.store()
        {
            store.flush.emptied(node.ino);
        }
        let seq = self.log_size(node, state, size, time)?;
        self.apply_size(node, state, size, time, seq)
    }

    pub(super) fn apply_size(
        &self,
        node: &Node,
        state: &mut State,
        size: u64,
        time: Time,
        seq: u64,
    ) -> Res<()> {
        let old = state.meta.size;
        let f = file_mut(state)?;
        f.generation += 1;
        f.seq = seq;
        f.known = [size; 2];
        if size == 0 {
            self.drop_blocks(f);
            f.base_len = 0;
            f.live = false;
        } else if size < old {
            let gone = f.valid.remove(size.div_ceil(BLOCK), u64::MAX);
            self.unreserve(gone);
            f.base_len = f.base_len.min(size);
            if !size.is_multiple_of(BLOCK) {
                f.stale = Some(seq);
            }
            if gone > 0
                && let Ok(store) = self.store()
            {
                store.flush.trim_later(seq, node.ino);
            }
        }
        state.meta.size = size;
        state.meta.touch(time);
        Ok(())
    }

    /// `fallocate(2)`: reserving, punching holes and zeroing; other modes are not supported.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EFBIG`, `ENOSPC`, `EINVAL`, `EROFS`.
    pub(crate) fn fallocate(
        &self,
        who: Caller,
        ino: u64,
        offset: u64,
        len: u64,
        mode: u32,
    ) -> Res<()> {
        let end = offset.saturating_add(len);
        self.before_content(ino, |size| end > size / BLOCK * BLOCK)?;
        self.reclaiming(|| self.fallocate_once(who, ino, offset, len, mode))
    }

    fn fallocate_once(&self, who: Caller, ino: u64, offset: u64, len: u64, mode: u32) -> Res<()> {
        let _gate = self.change()?;
        match mode & !KEEP_SIZE {
            0 | ZERO_RANGE => {}
            PUNCH_HOLE if mode & KEEP_SIZE != 0 => {}
            _ => return Err(Errno::EOPNOTSUPP),
        }
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        if end > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        let node = self.promote(ino)?;
        let mut state = wr(&node.state);
        let time = now();
        self.own_content(&node, &mut state)?;
        let size = state.meta.size;
        if end > size / BLOCK * BLOCK {
            self.shorter_first(file_mut(&mut state)?, size)?;
        }
        if end > size {
            self.clean_tail(&node, file_mut(&mut state)?, size)?;
        }
        // What follows may end in the middle: what was done until then is to be told of.
        self.mark_dirty(&node, &mut state);
        if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
            self.zero(&node, &mut state, offset, end)?;
        }
        if mode & PUNCH_HOLE == 0 {
            self.preallocate(&node, &mut state, offset, end)?;
            if mode & KEEP_SIZE == 0 && end > size {
                let seq = self.log_size(&node, &mut state, end, time)?;
                state.meta.size = end;
                let f = file_mut(&mut state)?;
                f.generation += 1;
                f.grown = true;
                f.seq = seq;
            }
        }
        state.meta.touch(time);
        self.kill_privileges(who, ino, &mut state, time)
    }

    /// Makes `offset..end` of a locked file read as zeros.
    fn zero(&self, node: &Node, state: &mut State, offset: u64, end: u64) -> Res<()> {
        let f = file_mut(state)?;
        let (first, last) = (offset.div_ceil(BLOCK), end / BLOCK);
        f.generation += 1;
        not_too_scattered(f)?;
        if first > last {
            return self.zero_bytes(node, f, offset, end);
        }
        self.zero_bytes(node, f, offset, (first * BLOCK).min(end))?;
        self.zero_bytes(node, f, (last * BLOCK).max(offset), end)?;
        if first == last {
            return Ok(());
        }
        // Whole blocks: a hole over the lower must be a block of zeros, elsewhere it is nothing.
        let low_end = f.base_len.div_ceil(BLOCK).clamp(first, last);
        let added = self.reserve(f, first, low_end)?;
        if let Err(e) = self.clear_blocks(node, f, (first, last), low_end) {
            self.unreserve(added);
            return Err(e);
        }
        f.valid.insert(first, low_end);
        f.written.insert(first, low_end);
        f.full = true;
        let gone = f.valid.remove(low_end.max(first), last);
        self.unreserve(gone);
        Ok(())
    }

    /// Makes whole blocks of the data file zeros: a hole, or as far as needed written.
    fn clear_blocks(
        &self,
        node: &Node,
        f: &mut FileBody,
        (first, last): (u64, u64),
        low_end: u64,
    ) -> Res<()> {
        if f.data_id != 0 || low_end > first {
            let needed = if low_end > first { low_end * BLOCK } else { 0 };
            self.own_place(node, f, needed)?;
            let file = self.data_file(node, f, needed)?;
            let at = first * BLOCK;
            let len = (last * BLOCK).min(f.cap()).saturating_sub(at);
            if len > 0 && file.punch(at, len).is_err() {
                let zeros = vec![0u8; 1 << 16];
                let mut pos = at;
                while pos < (low_end * BLOCK).min(f.phys.max(at)) {
                    let n = ((low_end * BLOCK) - pos).min(zeros.len() as u64);
                    file.write(&zeros[..n as usize], pos)?;
                    pos += n;
                }
            }
        }
        Ok(())
    }

    /// Zeros bytes inside one block.
    fn zero_bytes(&self, node: &Node, f: &mut FileBody, from: u64, to: u64) -> Res<()> {
        if from >= to {
            return Ok(());
        }
        let block = from / BLOCK;
        if !f.valid.contains(block) && from >= f.base_len {
            return Ok(());
        }
        let added = self.reserve(f, block, block + 1)?;
        f.written.insert(block, block + 1);
        f.grown = true;
        let zeros = [0u8; BLOCK as usize];
        let put = self.put_blocks(node, f, from, &zeros[..(to - from) as usize]);
        if put.is_err() {
            self.unreserve(added);
            return put;
        }
        f.valid.insert(block, block + 1);
        f.phys = f.phys.max(to);
        Ok(())
    }

    /// Reserves space behind the lower's part of a file. Hosts that cannot do not fail it.
    fn preallocate(&self, node: &Node, state: &mut State, offset: u64, end: u64) -> Res<()> {
        let f = file_mut(state)?;
        let mut block = (offset / BLOCK).max(f.base_len.div_ceil(BLOCK));
        let last = end.div_ceil(BLOCK);
        // All of it or nothing, as far as the limit goes.
        self.room(f.valid.missing(block, last).saturating_mul(BLOCK))?;
        while block < last {
            let (valid, until) = f.valid.run(block);
            let until = until.min(last);
            if !valid {
                let added = self.reserve(f, block, until)?;
                let (at, len) = (block * BLOCK, (until - block) * BLOCK);
                let owned = self.own_place(node, f, last * BLOCK);
                let place = owned.and_then(|()| self.data_file(node, f, last * BLOCK));
                match place.and_then(|place| place.reserve(at, len)) {
                    Ok(()) => {
                        f.valid.insert(block, until);
                        f.written.insert(block, until);
                        f.grown = true;
                        f.phys = f.phys.max(at + len);
                    }
                    Err(e) => {
                        self.unreserve(added);
                        if matches!(e, Errno::ENOSPC | Errno::EDQUOT) {
                            return Err(e);
                        }
                    }
                }
            }
            block = until;
        }
        Ok(())
    }

    /// `lseek(2)` with `SEEK_DATA` or `SEEK_HOLE`.
    ///
    /// # Errors
    /// `ENXIO` behind the end, `EINVAL`.
    pub(crate) fn seek(&self, ino: u64, offset: u64, hole: bool) -> Res<u64> {
        let node = self.node(ino);
        let state = node.as_ref().map(|n| rd(&n.state));
        let size = match &state {
            Some(s) => self.meta_of(ino, s)?.size,
            None => self.true_meta(ino)?.size,
        };
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        let body = state.as_deref().map(file_body).transpose()?;
        let Some(f) = body.filter(|f| !f.live) else {
            // The lower is data from end to end.
            return Ok(if hole { size } else { offset });
        };
        let mut at = offset;
        while at < size {
            let (piece, until) = f.piece(at, size);
            if (piece == Piece::Zero) == hole {
                return Ok(at);
            }
            at = until;
        }
        if hole { Ok(size) } else { Err(Errno::ENXIO) }
    }
}
