//! Images outside this machine: names, documents, registries, credentials. Nothing here knows the store.
//!
//! | file | room |
//! |---|---|
//! | `digest.rs` | `sha256:…`: parsed before it is a file name or part of a request, and verified while streaming |
//! | `reference.rs` | names: normalised as docker does, short names kept apart |
//! | `platform.rs` | `os/arch[/variant]`, the host's, and which entry of an index fits |
//! | `manifest.rs` | manifests and indexes of OCI and Docker, from bytes |
//! | `registries.rs` | `registries.conf`: short names, mirrors, insecure, blocked |
//! | `auth.rs` | credentials from the files and helpers podman and docker use |
//! | `challenge.rs` | `WWW-Authenticate` and token answers |
//! | `http.rs`, `certs.rs` | one request: TLS roots, proxies, time limits, redirects, retries |
//! | `pace.rs` | downloads that bring almost nothing |
//! | `registry.rs` | a repository of a registry: manifests and blobs, schemes, authentication |
//! | `unpack.rs` | gzip, zstd or plain, by magic |
//!
//! What a registry sends is hostile until its digest is verified: every body is bounded, every name is parsed first,
//! and a credential goes only to the registry it belongs to or to that registry's token server.

pub mod auth;
pub mod certs;
pub mod challenge;
pub mod digest;
pub mod http;
pub mod manifest;
mod pace;
pub mod platform;
pub mod reference;
pub mod registries;
pub mod registry;
pub mod unpack;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a configuration file; `None` when there is none. A FIFO, a device or a file over `limit` bytes is an error.
fn read_small(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
    {
        Ok(file) => file,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > limit {
        return Err(io::Error::other(format!(
            "not a regular file of at most {limit} bytes"
        )));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
