//! What is behind the last whole record of a journal that is opened: [`super::file`] says what becomes of it.

use super::file::{FRAME, split_frame};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Extension of the file with what lay behind damage.
pub(super) const CUT: &str = "cut";

/// Whether a whole frame that comes somewhere behind record `seq` lies in `tail`. Content may look like many frames: where that
/// would take long it is taken for one.
pub(super) fn goes_on(tail: &[u8], seq: u64) -> bool {
    // Each takes more than a byte.
    let last = seq.saturating_add(tail.len() as u64);
    let mut budget = 16 * tail.len();
    for at in 0..tail.len() {
        let head = tail.get(at..).and_then(|b| b.first_chunk::<FRAME>());
        let Some([a, b, c, d, _, _, _, _, number @ ..]) = head else {
            break;
        };
        let number = u64::from_le_bytes(*number);
        let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        if number <= seq || number >= last || at + FRAME + len > tail.len() {
            continue;
        }
        if split_frame(&tail[at..], number).is_some() || len > budget {
            return true;
        }
        budget -= len;
    }
    false
}

/// Adds what is about to be cut to the file `journal.cut`.
pub(super) fn keep_cut(path: &Path, tail: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path.with_extension(CUT))?;
    file.write_all(tail)?;
    file.sync_all()?;
    sync_parent(path)
}

pub(super) fn sync_parent(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
