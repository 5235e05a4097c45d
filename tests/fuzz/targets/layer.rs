//! Any bytes as the changes of one layer: what opens must merge into a sound index or be refused for a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rless::cow::index::Error;
use rless::cow::index::layer::Layer;
use rless::cow::merge::merge;

/// A layer index of these changes; totals come first, the checksum is made right.
fn layer(bytes: &[u8]) -> Option<Layer> {
    let (totals, changes) = bytes.split_at_checked(2)?;
    let mut bytes = b"rlesslyr\x01\0\0\0\0\0\0\0".to_vec();
    bytes.resize(48, 0);
    bytes.extend_from_slice(changes);
    bytes.extend_from_slice(&[9; 32]);
    bytes.extend_from_slice(&(1_u64 << 30).to_le_bytes());
    bytes.extend_from_slice(&(changes.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&u64::from(totals[0]).to_le_bytes());
    bytes.extend_from_slice(&u64::from(totals[1]).to_le_bytes());
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Layer::from_bytes(bytes).ok()
}

fuzz_target!(|bytes: &[u8]| {
    let Some(layer) = layer(bytes) else {
        return;
    };
    if let Err(error) = merge(&[layer]) {
        assert!(error.downcast_ref::<Error>().is_none(), "{error:#}");
    }
});
