//! A layer's bytes, decompressed: gzip (several members), zstd (several frames, skippable ones too) or plain, told by magic.
//!
//! Media types lie often enough that every tool looks at the magic. The compressed stream is always read to its end,
//! where its reader verifies the digest: whoever sees our end of file has seen a verified stream.

use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

const BUFFER: usize = 256 << 10;
/// The largest zstd window: what `zstd -d` allows without `--long`.
const WINDOW_LIMIT: u64 = 128 << 20;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Not.
    Plain,
}

/// Tells the compression by the first bytes.
///
/// # Errors
/// A known compression that is not supported.
pub fn detect(magic: &[u8]) -> io::Result<Compression> {
    let unsupported = |name: &str| {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is compressed with {name}; gzip, zstd and plain tar are supported"),
        ))
    };
    match magic {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [b'B', b'Z', b'h', ..] => unsupported("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => unsupported("xz"),
        _ => Ok(Compression::Plain),
    }
}

/// Decompresses `source`.
///
/// # Errors
/// The first bytes cannot be read or are of an unsupported compression.
pub fn open<R: Read + Send + 'static>(mut source: R) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = [0u8; 6];
    let mut filled = 0;
    while let Some(rest) = magic.get_mut(filled..).filter(|r| !r.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let head = magic.get(..filled).unwrap_or(&[]).to_vec();
    let compression = detect(&head)?;
    let whole = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(source));
    Ok(match compression {
        Compression::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(Zstd::new(whole)),
        Compression::Plain => Box::new(whole),
    })
}

/// Decoder of consecutive zstd frames.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R> fmt::Debug for Zstd<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd")
            .field("in_frame", &self.in_frame)
            .finish()
    }
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Zstd<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_LIMIT);
        Zstd {
            source,
            decoder,
            in_frame: false,
        }
    }

    /// Goes to the next frame with data; `false` at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(invalid(&e)),
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            self.in_frame = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|e| invalid(&e))?;
            }
            let n = self.decoder.read(buf)?;
            if n > 0 {
                return Ok(n);
            }
            self.in_frame = false;
        }
    }
}

fn invalid(e: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        w.write_all(bytes).unwrap();
        w.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn unpack(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        open(Cursor::new(bytes))?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn members_frames_and_skippable_frames_are_joined() {
        let text = b"hello, layers ".repeat(5000);
        assert_eq!(
            unpack([gzip(&text), gzip(b"end")].concat()).unwrap(),
            [&text[..], b"end"].concat()
        );
        let skip = [&[0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frames = [skip.clone(), zstd(&text), skip.clone(), zstd(b"end"), skip].concat();
        assert_eq!(unpack(frames).unwrap(), [&text[..], b"end"].concat());
        assert_eq!(unpack(text.clone()).unwrap(), text);
        assert_eq!(unpack(Vec::new()).unwrap(), b"");
    }

    #[test]
    fn truncated_or_trailing_bytes_are_errors() {
        let text = b"0123456789".repeat(1000);
        for packed in [gzip(&text), zstd(&text)] {
            let mut cut = packed.clone();
            cut.truncate(packed.len() - 3);
            assert!(unpack(cut).is_err());
            assert!(unpack([packed, b"garbage".to_vec()].concat()).is_err());
        }
    }

    #[test]
    fn a_huge_zstd_window_is_refused_before_memory_is_taken() {
        // Frame header: no single segment, window descriptor 21<<3: 2 GiB.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0];
        let e = unpack(frame.to_vec()).unwrap_err();
        assert!(e.to_string().contains("window"), "{e}");
    }

    #[test]
    fn other_compressions_are_named() {
        assert!(
            unpack(b"BZh91AY".to_vec())
                .unwrap_err()
                .to_string()
                .contains("bzip2")
        );
        assert!(
            unpack(b"\xfd7zXZ\0\0".to_vec())
                .unwrap_err()
                .to_string()
                .contains("xz")
        );
    }
}
