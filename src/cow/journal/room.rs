//! Space behind a journal's end: written ahead for syncs that follow each other, reserved for a full disk ([`super::file`]).

use super::file::{Io, up_to};
use crate::cow::meta::Res;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::os::unix::fs::FileExt;

/// A file written ahead ends at a multiple of this,
const AHEAD_MIN: u64 = 4 << 10;
/// and is written ahead by at most this.
const AHEAD_MAX: u64 = 1 << 20;

/// Lengthens the file by zeros behind `end`, where the frames now written will end. What does not
/// fit is not needed: only the frames are.
pub(super) fn write_ahead(io: &mut Io, end: u64) {
    let room = (end + end.clamp(AHEAD_MIN, AHEAD_MAX)).next_multiple_of(AHEAD_MIN);
    if room > io.reserved && io.reserve(room).is_err() {
        return;
    }
    let zeros = vec![0; (room - end) as usize];
    if io.file.write_all_at(&zeros, end).is_ok() {
        io.room = room;
    } else {
        let _ = io.file.set_len(io.room);
        io.reserved = io.reserved.min(io.room);
    }
}

impl Io {
    /// Makes the disk's space up to `end` the file's; its length stays. A host that cannot is not asked again.
    pub(super) fn reserve(&mut self, end: u64) -> Res<()> {
        if self.reserved == u64::MAX {
            return Ok(());
        }
        let (at, len) = (self.end.cast_signed(), (end - self.end).cast_signed());
        match fallocate(&*self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, at, len) {
            Ok(()) => self.reserved = end,
            Err(e @ (Errno::ENOSPC | Errno::EDQUOT)) => return Err(e),
            Err(_) => self.reserved = u64::MAX,
        }
        Ok(())
    }
}

/// Length of the frames that wait, up to number `wanted`, as far as they fit into what is reserved; the number of the last.
pub(super) fn fitting(io: &Io, wanted: u64) -> (usize, u64) {
    let mut fit = (0, io.seq);
    if io.reserved == u64::MAX {
        return fit;
    }
    let room = io.reserved.saturating_sub(io.end);
    while fit.1 < wanted {
        let (n, seq) = up_to(&io.pending[fit.0..], fit.1, fit.1 + 1);
        if n == 0 || (fit.0 + n) as u64 > room {
            break;
        }
        fit = (fit.0 + n, seq);
    }
    fit
}
