//! Any bytes as a pack's table of contents, with the checksum made right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rless::store::packs::Toc;

fuzz_target!(|bytes: &[u8]| {
    if bytes.len() < 16 {
        return;
    }
    let mut bytes = bytes.to_vec();
    bytes[..8].copy_from_slice(b"rlesstoc");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    let Ok(toc) = Toc::from_bytes(bytes) else {
        return;
    };
    for content in toc.contents() {
        assert_eq!(toc.find(&content.hash), Some(content));
        assert!(content.offset + content.len <= toc.pack_len());
    }
    assert!(toc.find(&[0x5a; 32]).is_none_or(|c| c.hash == [0x5a; 32]));
});
