//! Layers into the store: downloaded, verified, decompressed and ingested at once, several at a time.
//!
//! Per layer, one thread reads the verified compressed stream into a bounded queue and another decompresses and ingests, so that
//! network, inflate and disk overlap; nothing compressed touches the disk. The ingest sees its end of file only after the
//! stream's digest was right, and itself verifies the diff id: a layer becomes visible by the rename at its end or not at all.
//!
//! One lock file per layer (`layer-<diff id>`): a second pull of it waits and finds it done.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};

use super::files::Lock;
use super::layers::{self, LayerDirs};
use super::sources::{Source, Stream};
use super::{LayerEvent, Progress, Store};
use crate::cow::index::layer::Layer;
use crate::error::{Result, failed};
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::image::unpack;

/// Layers worked on at a time.
const PARALLEL: usize = 3;
const CHUNK: usize = 256 << 10;
/// Chunks between download and ingest, per layer.
const QUEUE: usize = 16;
/// Any layer may unpack to this much.
const FREE_BYTES: u64 = 1 << 30;
/// Beyond that, to this many times its compressed bytes (gzip's best on zeros is 1032).
const RATIO: u64 = 250;

/// A layer to have.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) blob: Descriptor,
    pub(crate) diff_id: Digest,
}

struct Job<'a> {
    store: &'a Store,
    dirs: &'a LayerDirs,
    source: &'a dyn Source,
    progress: &'a dyn Progress,
    stop: Arc<AtomicBool>,
}

/// Makes sure that every layer is in the store.
pub(crate) fn layers(
    store: &Store,
    dirs: &LayerDirs,
    source: &dyn Source,
    wanted: &[Wanted],
    progress: &dyn Progress,
) -> Result<()> {
    check_space(store, wanted)?;
    let job = Job {
        store,
        dirs,
        source,
        progress,
        stop: Arc::default(),
    };
    let next = AtomicUsize::new(0);
    let first_error: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        let work = || {
            while let Some(layer) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                if job.stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(e) = job.ensure(layer) {
                    let mut slot = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                    // Those stopped because of the first say nothing new.
                    slot.get_or_insert(e);
                    job.stop.store(true, Ordering::Relaxed);
                    return;
                }
            }
        };
        for _ in 0..PARALLEL.min(wanted.len()) {
            if std::thread::Builder::new()
                .spawn_scoped(scope, work)
                .is_err()
            {
                // The user's processes are used up: one layer after the other.
                work();
                break;
            }
        }
    });
    match first_error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        Some(e) => Err(e),
        None => Ok(()),
    }
}

/// Refuses a download that cannot fit even compressed.
fn check_space(store: &Store, wanted: &[Wanted]) -> Result<()> {
    let missing = wanted
        .iter()
        .filter(|w| !store.layer_index(&w.diff_id).exists());
    let needed: u64 = missing.map(|w| w.blob.size).sum();
    let Ok(stat) = nix::sys::statvfs::statvfs(store.data()) else {
        return Ok(());
    };
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if needed > free {
        return Err(failed(format!(
            "No space left on device: the layers of the image have {} MB compressed, {} has {} MB free",
            needed >> 20,
            store.data().display(),
            free >> 20
        ))
        .hint("`rless rmi` removes images; RLESS_STORE puts the store elsewhere.")
        .into());
    }
    Ok(())
}

/// Whether a layer is here in full: its index opens and its packs are there.
pub(crate) fn is_present(store: &Store, diff_id: &Digest) -> bool {
    let Ok(layer) = Layer::open(&store.layer_index(diff_id)) else {
        return false;
    };
    let packs = store.packs_dir();
    layer.packs().iter().all(|(id, len)| {
        std::fs::metadata(id.pack_path(&packs)).is_ok_and(|m| m.is_file() && m.len() >= *len)
    })
}

impl Job<'_> {
    fn ensure(&self, wanted: &Wanted) -> Result<()> {
        let digest = wanted.blob.digest.to_string();
        if is_present(self.store, &wanted.diff_id) {
            self.progress.layer(&digest, LayerEvent::Present);
            return Ok(());
        }
        let path = self
            .store
            .locks_dir()
            .join(format!("layer-{}.lock", wanted.diff_id.hex()));
        let lock = match Lock::try_exclusive(&path)? {
            Some(lock) => lock,
            None => {
                self.progress.layer(&digest, LayerEvent::Waiting);
                let lock = Lock::exclusive(&path)?;
                if is_present(self.store, &wanted.diff_id) {
                    self.progress.layer(&digest, LayerEvent::Present);
                    return Ok(());
                }
                lock
            }
        };
        self.progress
            .layer(&digest, LayerEvent::Started(wanted.blob.size));
        self.ingest(wanted, &digest)?;
        self.progress.layer(&digest, LayerEvent::Done);
        lock.remove();
        Ok(())
    }

    fn ingest(&self, wanted: &Wanted, digest: &str) -> Result<()> {
        let stream = self.source.blob(&wanted.blob)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let stop = Arc::clone(&self.stop);
        // Not joined: when the ingest fails it may sit in a read until the peer's time is up.
        std::thread::Builder::new()
            .name("download".to_owned())
            .spawn(move || download(stream, &sender, &stop))
            .context("starting a download thread")?;
        let failure = Arc::new(Mutex::new(None));
        let compressed = Arc::new(AtomicU64::new(0));
        let pipe = Pipe {
            receiver,
            chunk: Vec::new(),
            at: 0,
            ended: false,
            failure: Arc::clone(&failure),
            compressed: Arc::clone(&compressed),
        };
        let result = unpack::open(pipe)
            .map_err(anyhow::Error::new)
            .and_then(|inner| {
                let mut tar = Guarded {
                    inner,
                    compressed: &compressed,
                    out: 0,
                    shown: 0,
                    report: &|bytes| self.progress.layer(digest, LayerEvent::Bytes(bytes)),
                    stop: &self.stop,
                    free: FREE_BYTES,
                };
                layers::ingest(self.dirs, &wanted.diff_id.to_string(), &mut tar)
            });
        // The reader's own words, with their hints, rather than what became of them as an io::Error.
        let failure = failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (failure, result) {
            (Some(e), Err(_)) => Err(e),
            (None, Err(e)) => {
                Err(e).with_context(|| format!("unpacking layer {}", wanted.blob.digest))
            }
            (_, Ok(_)) => Ok(()),
        }
    }
}

enum Message {
    Bytes(Vec<u8>),
    /// The verified end.
    End,
    Failed(anyhow::Error),
}

fn download(mut stream: Box<dyn Stream>, sender: &SyncSender<Message>, stop: &AtomicBool) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        let last = loop {
            let Some(room) = chunk.get_mut(filled..).filter(|r| !r.is_empty()) else {
                break None;
            };
            match stream.next(room) {
                Ok(0) => break Some(Message::End),
                Ok(n) => filled += n,
                Err(e) => break Some(Message::Failed(e)),
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        };
        chunk.truncate(filled);
        if sender.send(Message::Bytes(chunk)).is_err() {
            return;
        }
        if let Some(last) = last {
            drop(sender.send(last));
            return;
        }
    }
}

/// The receiving end as a reader.
struct Pipe {
    receiver: Receiver<Message>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
    failure: Arc<Mutex<Option<anyhow::Error>>>,
    compressed: Arc<AtomicU64>,
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended && self.at == self.chunk.len() {
            match self.receiver.recv() {
                Ok(Message::Bytes(chunk)) => {
                    self.compressed
                        .fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    self.chunk = chunk;
                    self.at = 0;
                }
                Ok(Message::End) => self.ended = true,
                Ok(Message::Failed(e)) => {
                    let text = format!("{e:#}");
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                    return Err(io::Error::other(text));
                }
                Err(_) => return Err(io::Error::other("the download was stopped")),
            }
        }
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf.get_mut(..n)
            .unwrap_or_default()
            .copy_from_slice(rest.get(..n).unwrap_or_default());
        self.at += n;
        Ok(n)
    }
}

/// The decompressed stream, with an eye on bombs, on other layers' failures and on progress.
struct Guarded<'a> {
    inner: Box<dyn Read + Send>,
    compressed: &'a AtomicU64,
    out: u64,
    shown: u64,
    report: &'a dyn Fn(u64),
    stop: &'a AtomicBool,
    /// Bytes that are allowed whatever the ratio.
    free: u64,
}

impl Read for Guarded<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        let n = self.inner.read(buf)?;
        self.out += n as u64;
        let compressed = self.compressed.load(Ordering::Relaxed);
        if self.out > self.free.max(compressed.saturating_mul(RATIO)) {
            return Err(io::Error::other(format!(
                "{compressed} compressed bytes became more than {} bytes: this is a decompression bomb",
                self.out
            )));
        }
        if compressed != self.shown {
            self.shown = compressed;
            (self.report)(compressed);
        }
        Ok(n)
    }
}

/// Sum of the layers' unpacked bytes.
pub(crate) fn size(store: &Store, diff_ids: &[Digest]) -> Result<u64> {
    diff_ids.iter().try_fold(0u64, |sum, diff_id| {
        let layer = Layer::open(&store.layer_index(diff_id))?;
        sum.checked_add(layer.bytes())
            .ok_or_else(|| anyhow!("the image's size is beyond all bounds"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn guard<T>(
        compressed: &AtomicU64,
        inner: Box<dyn Read + Send>,
        stop: &AtomicBool,
        act: impl FnOnce(&mut Guarded<'_>) -> T,
    ) -> T {
        act(&mut Guarded {
            inner,
            compressed,
            out: 0,
            shown: 0,
            report: &|_| {},
            stop,
            free: 1 << 20,
        })
    }

    #[test]
    fn a_gzip_bomb_is_stopped_at_its_ratio_and_a_compressible_layer_is_not() {
        let zeros = {
            let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            w.write_all(&vec![0; 8 << 20]).unwrap();
            w.finish().unwrap()
        };
        assert!(zeros.len() < (8 << 20) / 500, "a real bomb");
        let compressed = AtomicU64::new(zeros.len() as u64);
        let stop = AtomicBool::new(false);
        let bomb = unpack::open(io::Cursor::new(zeros)).unwrap();
        let mut seen = 0;
        let error = guard(&compressed, bomb, &stop, |g| {
            let mut chunk = vec![0; 64 << 10];
            loop {
                match g.read(&mut chunk) {
                    Ok(0) => return None,
                    Ok(n) => seen += n as u64,
                    Err(e) => return Some(e.to_string()),
                }
            }
        });
        assert!(error.unwrap().contains("bomb"));
        assert!(seen < 5 << 20, "{seen}");
        let plain = AtomicU64::new(1 << 20);
        let text = Box::new(io::Cursor::new(vec![0; 100 << 20]));
        let copied = guard(&plain, text, &stop, |g| {
            io::copy(g, &mut io::sink()).unwrap()
        });
        assert_eq!(copied, 100 << 20);
    }

    #[test]
    fn a_download_that_dies_without_its_verified_end_is_an_error() {
        let (sender, receiver) = sync_channel(1);
        sender.send(Message::Bytes(b"abc".to_vec())).unwrap();
        drop(sender);
        let mut pipe = Pipe {
            receiver,
            chunk: Vec::new(),
            at: 0,
            ended: false,
            failure: Arc::default(),
            compressed: Arc::default(),
        };
        let mut got = Vec::new();
        assert!(pipe.read_to_end(&mut got).is_err());
        assert_eq!(got, b"abc");
    }
}
