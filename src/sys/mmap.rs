//! Read-only views of whole files: mapped where that is safe, read into memory where it is not.
//!
//! The files are the store's own (indexes, packs): written once under a temporary name, renamed,
//! never changed in place. On a network file system a mapping can still lose its pages (`ESTALE`,
//! a server gone away) and the process would get SIGBUS, so there the file is read instead.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::sys::statfs::fstatfs;

/// The whole of an immutable file as bytes.
pub struct Map(Inner);

enum Inner {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl Map {
    /// Views `file` whole: mapped, or read into memory on a network file system.
    ///
    /// # Errors
    /// When the file cannot be sized, mapped or read.
    pub fn whole(file: &File) -> io::Result<Map> {
        if on_network(file) {
            Map::read(file)
        } else {
            Map::mapped(file)
        }
    }

    /// Maps `file` whole, wherever it lies.
    ///
    /// # Errors
    /// When the file cannot be sized or mapped.
    pub fn mapped(file: &File) -> io::Result<Map> {
        if file.metadata()?.len() == 0 {
            return Ok(Map::from(Vec::new()));
        }
        // SAFETY: the mapping is private to this value and read-only. The file is one of the
        // store's immutable files: the program never writes to or truncates one after its rename.
        let map = unsafe { memmap2::MmapOptions::new().map(file)? };
        // A look at one byte is not to bring 2 MiB in. Not every kernel has huge pages.
        let _ = map.advise(memmap2::Advice::NoHugePage);
        Ok(Map(Inner::Mapped(map)))
    }

    /// Takes the pages that were looked at out of the process; they stay in the page cache.
    pub fn unload(&self) {
        if let Inner::Mapped(map) = &self.0 {
            // SAFETY: the mapping is of a file and read-only: what is looked at next is read from
            // the file again, and the file never changes.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }

    fn read(file: &File) -> io::Result<Map> {
        let len = usize::try_from(file.metadata()?.len())
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        bytes.resize(len, 0);
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Map::from(bytes))
    }
}

impl From<Vec<u8>> for Map {
    fn from(bytes: Vec<u8>) -> Map {
        Map(Inner::Owned(bytes))
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Inner::Mapped(map) => map,
            Inner::Owned(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match &self.0 {
            Inner::Mapped(_) => "mapped",
            Inner::Owned(_) => "owned",
        };
        write!(f, "Map({how}, {} bytes)", self.len())
    }
}

/// Super-block magics of file systems whose pages can vanish under a mapping (`linux/magic.h`,
/// and Lustre's, GPFS's, CephFS's, BeeGFS's, OrangeFS's own headers).
const NETWORK: &[i64] = &[
    0x6969,      // nfs
    0x517b,      // smb
    0xff53_4d42, // cifs
    0xfe53_4d42, // smb2
    0x0bd0_0bd0, // lustre
    0x4750_4653, // gpfs
    0x00c3_6400, // ceph
    0x5346_414f, // afs
    0x7375_7245, // coda
    0x0102_1997, // 9p
    0x1980_0202, // beegfs
    0x2003_0528, // orangefs
    0x6573_5546, // fuse: sshfs, glusterfs and others look alike
];

/// Whether `file` lies on a network file system (or one that may be: FUSE). False when the kernel
/// does not say.
#[must_use]
pub fn on_network(file: impl AsFd) -> bool {
    // The field's type differs between C libraries.
    #[allow(clippy::unnecessary_cast)]
    fstatfs(file).is_ok_and(|s| is_network(s.filesystem_type().0 as i64))
}

fn is_network(magic: i64) -> bool {
    // 32 bits wide, and sign-extended on some targets.
    NETWORK.contains(&(magic & 0xffff_ffff))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_mapping_and_a_read_show_the_same_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"some bytes").unwrap();
        assert_eq!(&*Map::mapped(&file).unwrap(), b"some bytes");
        assert_eq!(&*Map::read(&file).unwrap(), b"some bytes");
        assert_eq!(&*Map::whole(&file).unwrap(), b"some bytes");
    }

    #[test]
    fn an_empty_file_is_no_bytes() {
        let file = tempfile::tempfile().unwrap();
        assert!(Map::mapped(&file).unwrap().is_empty());
    }

    #[test]
    fn local_file_systems_are_not_taken_for_network_ones() {
        for local in [0xef53, 0x0102_1994, 0x9123_683e, 0x5846_5342] {
            assert!(!is_network(local), "{local:#x}");
        }
        assert!(is_network(0x6969));
        assert!(is_network(0xff53_4d42));
        assert!(is_network(i64::from(0xff53_4d42_u32.cast_signed())));
    }
}
