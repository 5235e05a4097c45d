//! Reading and writing a waiting task's memory: process_vm_readv(2).

use std::ffi::OsString;
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use super::tasks::Tid;

/// Longest path a system call takes, with its NUL.
const PATH_MAX: usize = 4096;
const PAGE: u64 = 4096;

/// Fills `to` from `address` of the task. # Errors `EFAULT` if any of it is not mapped.
pub(super) fn read(tid: Tid, address: u64, to: &mut [u8]) -> Result<(), Errno> {
    if to.is_empty() {
        return Ok(());
    }
    let len = to.len();
    let remote = RemoteIoVec {
        base: to_usize(address)?,
        len,
    };
    match process_vm_readv(Pid::from_raw(tid), &mut [IoSliceMut::new(to)], &[remote]) {
        Ok(n) if n == len => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Writes `from` to `address` of the task. # Errors `EFAULT` if any of it is not writable.
pub(super) fn write(tid: Tid, address: u64, from: &[u8]) -> Result<(), Errno> {
    if from.is_empty() {
        return Ok(());
    }
    let remote = RemoteIoVec {
        base: to_usize(address)?,
        len: from.len(),
    };
    match process_vm_writev(Pid::from_raw(tid), &[IoSlice::new(from)], &[remote]) {
        Ok(n) if n == from.len() => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Reads ids as setgroups(2) passes them.
pub(super) fn read_ids(tid: Tid, address: u64, count: usize) -> Result<Vec<u32>, Errno> {
    let mut bytes = vec![0u8; count * 4];
    read(tid, address, &mut bytes)?;
    Ok(bytes
        .chunks_exact(4)
        .map(|c| u32::from_ne_bytes([c[0], c[1], c[2], c[3]]))
        .collect())
}

/// Writes ids one after the other.
pub(super) fn write_ids(tid: Tid, address: u64, ids: &[u32]) -> Result<(), Errno> {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_ne_bytes()).collect();
    write(tid, address, &bytes)
}

/// Reads a path, page by page so that one which ends just before an unmapped page is read too.
/// # Errors `EFAULT`, `ENAMETOOLONG`.
pub(super) fn read_path(tid: Tid, address: u64) -> Result<OsString, Errno> {
    let mut path = Vec::with_capacity(256);
    let mut at = address;
    while path.len() < PATH_MAX {
        let left_in_page = PAGE - at % PAGE;
        let piece = to_usize(left_in_page)?.min(PATH_MAX - path.len());
        let mut bytes = vec![0u8; piece];
        read(tid, at, &mut bytes)?;
        if let Some(end) = bytes.iter().position(|b| *b == 0) {
            path.extend_from_slice(&bytes[..end]);
            return Ok(OsString::from_vec(path));
        }
        path.extend_from_slice(&bytes);
        at = at.checked_add(left_in_page).ok_or(Errno::EFAULT)?;
    }
    Err(Errno::ENAMETOOLONG)
}

fn to_usize(n: u64) -> Result<usize, Errno> {
    usize::try_from(n).map_err(|_| Errno::EFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Tid {
        nix::unistd::getpid().as_raw()
    }

    #[test]
    fn paths_and_ids_round_trip_through_another_view_of_memory() {
        let path = c"/etc/pass\xffwd";
        let got = read_path(me(), path.as_ptr() as u64).unwrap();
        assert_eq!(got.into_vec(), path.to_bytes());
        let mut ids = [0u32; 3];
        write_ids(me(), ids.as_mut_ptr() as u64, &[1, 2, 4_000_000_000]).unwrap();
        assert_eq!(ids, [1, 2, 4_000_000_000]);
        assert_eq!(read_ids(me(), ids.as_ptr() as u64, 3).unwrap(), ids);
    }

    #[test]
    fn unmapped_memory_is_efault_and_an_endless_path_enametoolong() {
        assert_eq!(read_path(me(), 0x10).unwrap_err(), Errno::EFAULT);
        assert_eq!(write(me(), 0x10, b"x").unwrap_err(), Errno::EFAULT);
        let long = vec![b'a'; 3 * PATH_MAX];
        assert_eq!(
            read_path(me(), long.as_ptr() as u64).unwrap_err(),
            Errno::ENAMETOOLONG
        );
    }
}
