//! A buffered reader whose bytes are hashed by a second thread meanwhile.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest, Sha256};

/// Bytes handed over at once: small enough to stay in the cache between the two threads.
const CHUNK: usize = 256 << 10;
/// Chunks that the hashing may lag behind.
const LAG: usize = 8;

/// See the module.
pub(super) struct Hashing<'scope, 'r> {
    input: &'r mut dyn Read,
    chunk: Arc<Vec<u8>>,
    at: usize,
    to_hash: SyncSender<Arc<Vec<u8>>>,
    hashed: Receiver<Arc<Vec<u8>>>,
    hasher: ScopedJoinHandle<'scope, [u8; 32]>,
}

impl<'scope, 'r> Hashing<'scope, 'r> {
    /// Reads `input`; the thread ends within `scope`.
    pub(super) fn new(
        scope: &'scope Scope<'scope, '_>,
        input: &'r mut dyn Read,
    ) -> io::Result<Self> {
        let (to_hash, chunks) = mpsc::sync_channel::<Arc<Vec<u8>>>(LAG);
        let (give_back, hashed) = mpsc::sync_channel(LAG + 1);
        let hasher = std::thread::Builder::new()
            .name("layer digest".into())
            .spawn_scoped(scope, move || {
                let mut digest = Sha256::new();
                for chunk in chunks {
                    digest.update(&*chunk);
                    // Only a buffer to use again: lost when there is no room or no reader.
                    drop(give_back.try_send(chunk));
                }
                digest.finalize().into()
            })?;
        Ok(Hashing {
            input,
            chunk: Arc::default(),
            at: 0,
            to_hash,
            hashed,
            hasher,
        })
    }

    /// The SHA-256 of all that was read.
    pub(super) fn finish(self) -> io::Result<[u8; 32]> {
        drop(self.to_hash);
        let lost = |_| io::Error::other("the thread that computes the layer's digest is gone");
        self.hasher.join().map_err(lost)
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        self.chunk = Arc::default();
        self.at = 0;
        let used = self.hashed.try_recv().ok().and_then(Arc::into_inner);
        let mut chunk = used.unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut len = 0;
        while len < CHUNK {
            match self.input.read(&mut chunk[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        chunk.truncate(len);
        if len > 0 {
            self.chunk = Arc::new(chunk);
            let sent = self.to_hash.send(Arc::clone(&self.chunk));
            sent.map_err(|_| {
                io::Error::other("the thread that computes the layer's digest is gone")
            })?;
        }
        Ok(())
    }
}

impl BufRead for Hashing<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.chunk.len() {
            self.next_chunk()?;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.chunk.len());
    }
}

impl Read for Hashing<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let n = piece.len().min(buf.len());
        buf[..n].copy_from_slice(&piece[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_every_byte_in_whatever_pieces_they_come() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * (LAG + 3) + 5] {
            let bytes: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
            let mut input = bytes.as_slice().chain(&b"tail"[..]);
            let (read, digest) = std::thread::scope(|scope| {
                let mut hashing = Hashing::new(scope, &mut input).unwrap();
                let mut read = Vec::new();
                hashing.read_to_end(&mut read).unwrap();
                (read, hashing.finish().unwrap())
            });
            assert_eq!(read.len(), len + 4);
            assert!(read.starts_with(&bytes) && read.ends_with(b"tail"));
            assert_eq!(digest[..], Sha256::digest(&read)[..], "{len}");
        }
    }
}
