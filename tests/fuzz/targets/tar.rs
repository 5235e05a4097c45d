//! Any bytes as a tar: an error or entries within their bounds, whose content is all there.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use rless::cow::index::layer::path_allowed;
use rless::store::tarball::{Kind, Reader};

fuzz_target!(|bytes: &[u8]| {
    // Blocks with a flag in their last byte get a right checksum: otherwise nothing is ever looked at.
    let mut bytes = bytes.to_vec();
    for block in bytes.as_chunks_mut::<512>().0 {
        if block[511] & 1 == 1 {
            block[148..156].copy_from_slice(b"        ");
            let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    let mut reader = Reader::new(&bytes[..], 1 << 30);
    let mut read = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(path_allowed(&entry.path));
        assert!(entry.mode <= 0o7777 && entry.mtime.nsec < 1_000_000_000);
        assert!(entry.kind == Kind::File || entry.size == 0);
        let mut content = Vec::new();
        let Ok(n) = reader.read_to_end(&mut content) else {
            return;
        };
        let stored = match &entry.sparse {
            Some(segments) => segments.iter().map(|s| s.len).sum(),
            None => entry.size,
        };
        assert_eq!(n as u64, stored);
        read += n;
        assert!(read <= bytes.len());
    }
});
