//! A registry made to misbehave: a small HTTP server whose answers a test writes, and images to serve from it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a client sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte asked for by `Range`.
    pub(crate) fn range_start(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.trim_end_matches('-').parse().ok()
    }
}

/// What the server answers.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Whole(Vec<u8>),
    /// Says that all bytes come, sends this many and closes.
    Cut(Vec<u8>, usize),
    /// This many zeros, the length told or not.
    Zeros(u64, bool),
    /// Bytes with a pause after each piece of the given size.
    Slow(Vec<u8>, usize, std::time::Duration),
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status: 200,
            headers: Vec::new(),
            body: Body::Whole(body.into()),
        }
    }

    pub(crate) fn status(status: u16) -> Reply {
        Reply {
            status,
            ..Reply::ok("")
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: Body) -> Reply {
        self.body = body;
        self
    }
}

/// A server on loopback; stops when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            sent: Arc::default(),
            stop: Arc::default(),
        };
        let (seen, sent, stop) = (
            server.seen.clone(),
            server.sent.clone(),
            server.stop.clone(),
        );
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (seen, sent, answer) = (seen.clone(), sent.clone(), answer.clone());
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    seen.lock().unwrap().push(request.clone());
                    // A client that has seen enough closes; that is no failure here.
                    drop(write(&stream, &answer(&request), &sent));
                });
            }
        });
        server
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Requests whose path has this in it.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.requests()
            .iter()
            .filter(|r| r.path.contains(part))
            .count()
    }

    /// Bytes of bodies that clients took.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

/// `None` for what is no HTTP: the client tries TLS first.
fn read(mut stream: &TcpStream) -> Option<Request> {
    let mut first = [0];
    stream.peek(&mut first).ok()?;
    if !first[0].is_ascii_alphabetic() {
        drop(stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n"));
        return None;
    }
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        path,
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

fn write(mut stream: &TcpStream, reply: &Reply, sent: &AtomicU64) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let told = match &reply.body {
        Body::Whole(bytes) | Body::Cut(bytes, _) | Body::Slow(bytes, ..) => {
            Some(bytes.len() as u64)
        }
        Body::Zeros(n, told) => told.then_some(*n),
    };
    if let Some(length) = told {
        head += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    let mut send = |bytes: &[u8]| {
        stream.write_all(bytes)?;
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        std::io::Result::Ok(())
    };
    match &reply.body {
        Body::Whole(bytes) => send(bytes),
        Body::Cut(bytes, n) => send(&bytes[..*n]),
        Body::Zeros(n, _) => {
            let zeros = vec![0; 1 << 16];
            (0..n / (1 << 16)).try_for_each(|_| send(&zeros))
        }
        Body::Slow(bytes, piece, pause) => bytes.chunks(*piece).try_for_each(|chunk| {
            send(chunk)?;
            std::thread::sleep(*pause);
            Ok(())
        }),
    }
}

/// `sha256:…`
pub(crate) fn digest(bytes: &[u8]) -> String {
    rless::image::digest::Digest::sha256(bytes).to_string()
}

/// An image of one platform, all its documents.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// Gzipped tars.
    pub(crate) layers: Vec<Vec<u8>>,
}

/// How to make an image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recipe {
    /// Per layer: its files.
    pub(crate) layers: Vec<Vec<(&'static str, Vec<u8>)>>,
    /// Replaces the first layer's digest in the manifest.
    pub(crate) layer_digest: Option<String>,
    /// Replaces the first diff id.
    pub(crate) diff_id: Option<String>,
    pub(crate) architecture: Option<&'static str>,
}

pub(crate) fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        builder
            .append_data(&mut header, path, bytes.as_slice())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let fast = flate2::Compression::fast();
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), fast);
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

impl Recipe {
    pub(crate) fn of(layers: Vec<Vec<(&'static str, Vec<u8>)>>) -> Recipe {
        Recipe {
            layers,
            ..Recipe::default()
        }
    }

    pub(crate) fn bake(&self) -> Image {
        let tars: Vec<Vec<u8>> = self.layers.iter().map(|l| tar(l)).collect();
        let layers: Vec<Vec<u8>> = tars.iter().map(|t| gzip(t)).collect();
        let mut diff_ids: Vec<String> = tars.iter().map(|t| digest(t)).collect();
        if let (Some(id), Some(first)) = (&self.diff_id, diff_ids.first_mut()) {
            first.clone_from(id);
        }
        let config = serde_json::to_vec(&serde_json::json!({
            "architecture": self.architecture.unwrap_or("amd64"),
            "os": "linux",
            "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))
        .unwrap();
        let listed: Vec<_> = layers
            .iter()
            .enumerate()
            .map(|(i, l)| {
                let told = self.layer_digest.clone().filter(|_| i == 0);
                serde_json::json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": told.unwrap_or_else(|| digest(l)),
                    "size": l.len(),
                })
            })
            .collect();
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config),
                "size": config.len(),
            },
            "layers": listed,
        }))
        .unwrap();
        Image {
            manifest,
            config,
            layers,
        }
    }
}

/// An image of one layer with one file.
pub(crate) fn simple() -> Image {
    Recipe::of(vec![vec![("hello", b"world".to_vec())]]).bake()
}

/// Bytes that compress badly, the same ones each time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x2545_F491_4F6C_DD1D_u64;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()[3]
        })
        .collect()
}

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

impl Image {
    pub(crate) fn id(&self) -> String {
        digest(&self.config)
            .trim_start_matches("sha256:")
            .to_owned()
    }

    /// An honest answer to `request`.
    pub(crate) fn serve(&self, request: &Request) -> Reply {
        let Some((_, last)) = request.path.rsplit_once('/') else {
            return Reply::status(404);
        };
        if request.path.contains("/manifests/") {
            let right = !last.starts_with("sha256:") || last == digest(&self.manifest);
            return if right {
                Reply::ok(self.manifest.clone()).with("Content-Type", MANIFEST_TYPE)
            } else {
                Reply::status(404)
            };
        }
        let mut blobs = self.layers.iter().chain([&self.config]);
        match blobs.find(|b| digest(b) == last) {
            Some(blob) => Reply::ok(blob.clone()),
            None => Reply::status(404),
        }
    }
}

/// An index over images by platform.
pub(crate) fn index(images: &[(&str, &Image)]) -> Vec<u8> {
    let entries: Vec<_> = images
        .iter()
        .map(|(architecture, image)| {
            serde_json::json!({
                "mediaType": MANIFEST_TYPE,
                "digest": digest(&image.manifest),
                "size": image.manifest.len(),
                "platform": {"os": "linux", "architecture": architecture},
            })
        })
        .collect();
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": entries,
    }))
    .unwrap()
}
