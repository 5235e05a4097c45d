//! Compiled filters on disk. Layout: magic, then for each filter a byte (1: it notifies), its length
//! (u32, little-endian) and its instructions; last the SHA-256 of all before.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use libseccomp::ScmpVersion;
use oci_spec::runtime::LinuxSeccomp;
use sha2::{Digest, Sha256};

use super::Filter;

/// Changes whenever the compiler or the layout does.
const MAGIC: &[u8; 8] = b"rlsbpf02";
const DIGEST: usize = 32;

/// File name for a profile; `None` if libseccomp's version is unknown.
pub(super) fn name(profile: Option<&LinuxSeccomp>, emulate: bool) -> Option<String> {
    let version = ScmpVersion::current().ok()?;
    let mut hash = Sha256::new();
    hash.update(MAGIC);
    hash.update(std::env::consts::ARCH);
    hash.update(format!(
        " {}.{}.{} {emulate} ",
        version.major, version.minor, version.micro
    ));
    hash.update(serde_json::to_vec(&profile).ok()?);
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Some(format!("{hex}.bpf"))
}

/// Reads filters; `None` if the file is not there or not whole.
pub(super) fn read(path: &Path) -> Option<Vec<Filter>> {
    decode(&fs::read(path).ok()?)
}

/// Writes filters, whole or not at all. A cache that cannot be written is none: no error.
pub(super) fn write(dir: &Path, name: &str, filters: &[Filter]) {
    let write = || {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let temporary = dir.join(format!(".{name}.{}", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let done = file
            .write_all(&encode(filters))
            .and_then(|()| fs::rename(&temporary, dir.join(name)));
        if done.is_err() {
            fs::remove_file(&temporary)?;
        }
        done
    };
    if let Err(e) = write() {
        log::debug!(
            "keeping a compiled seccomp filter in {}: {e}",
            dir.display()
        );
    }
}

fn encode(filters: &[Filter]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for filter in filters {
        bytes.push(u8::from(filter.listener));
        bytes.extend((filter.bpf.len() as u32).to_le_bytes());
        bytes.extend(&filter.bpf);
    }
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Filter>> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    if Sha256::digest(body).as_slice() != digest {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut filters = Vec::new();
    while let Some((listener, after)) = rest.split_first() {
        let (length, after) = after.split_first_chunk::<4>()?;
        let (bpf, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        filters.push(Filter {
            bpf: bpf.to_vec(),
            listener: *listener == 1,
        });
        rest = after;
    }
    Some(filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_no_filter() {
        let filters = [
            Filter {
                bpf: vec![1; 16],
                listener: false,
            },
            Filter {
                bpf: vec![2; 8],
                listener: true,
            },
        ];
        let good = encode(&filters);
        assert_eq!(decode(&good).unwrap(), filters);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_none(), "byte {at}");
            assert!(decode(&good[..at]).is_none(), "cut at {at}");
        }
    }
}
