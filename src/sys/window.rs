//! A window on a file through mmap(2), whose owner says which bytes may be touched: for test programs that compare
//! what two file systems do with mapped pages. Nothing of a container's path uses it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

/// A readable and writable mapping of a file's first bytes.
///
/// Bytes are copied in and out, never borrowed: other processes and mappings may change them at any time. Touching
/// a page that lies behind the file's end raises SIGBUS, as for any mapping.
#[derive(Debug)]
pub struct Window {
    map: MmapRaw,
    /// Keeps the file open: a mapping does so too, but a private one is not flushed by its own end.
    _file: File,
}

impl Window {
    /// Maps the first `len` bytes of `file`, `MAP_SHARED`.
    ///
    /// # Errors
    /// As mmap(2); `len` 0 is `EINVAL`.
    pub fn shared(file: File, len: usize) -> io::Result<Window> {
        let map = MmapOptions::new().len(len).map_raw(&file)?;
        Ok(Window { map, _file: file })
    }

    /// Maps the first `len` bytes of `file`, `MAP_PRIVATE`: writes stay in this mapping.
    ///
    /// # Errors
    /// As mmap(2); `len` 0 is `EINVAL`.
    pub fn private(file: File, len: usize) -> io::Result<Window> {
        // SAFETY: no reference to the bytes is made, here or later: see `write` and `read`.
        let map = unsafe { MmapOptions::new().len(len).map_copy(&file)? };
        Ok(Window {
            map: map.into(),
            _file: file,
        })
    }

    /// Bytes of the mapping.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Never: a mapping has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// Copies `bytes` to `offset`, as far as the mapping goes.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        for (i, b) in bytes.iter().enumerate() {
            if offset + i < self.map.len() {
                // SAFETY: inside the mapping, which lives as long as `self`; volatile, as others share the bytes.
                unsafe { self.map.as_mut_ptr().add(offset + i).write_volatile(*b) };
            }
        }
    }

    /// Copies up to `len` bytes from `offset`.
    #[must_use]
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let end = offset.saturating_add(len).min(self.map.len());
        (offset..end)
            // SAFETY: inside the mapping, which lives as long as `self`; volatile, as others share the bytes.
            .map(|i| unsafe { self.map.as_ptr().add(i).read_volatile() })
            .collect()
    }

    /// `msync(2)` with `MS_SYNC`.
    ///
    /// # Errors
    /// As msync(2).
    pub fn sync(&self) -> io::Result<()> {
        self.map.flush()
    }
}
