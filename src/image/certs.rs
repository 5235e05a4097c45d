//! Which certificate authorities are trusted for a host: the system's, and `certs.d` of containers-certs.d(5).
//!
//! A `NAME.cert` there with its `NAME.key` is shown to the registry if it asks who we are.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` replace the system's bundle, as everywhere. `HOST[:PORT]/*.crt` below
//! `~/.config/containers/certs.d`, `/etc/containers/certs.d` or `/etc/docker/certs.d` are trusted in addition, for that host only.
//! A static binary on a machine without any bundle uses Mozilla's, compiled in.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, parse_pem};

use crate::error::{Result, ResultExt, failed};

const PEM_LIMIT: u64 = 16 << 20;
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Trust anchors for `authority` (`host[:port]`).
///
/// # Errors
/// A file that was named or found cannot be read.
pub fn roots(authority: &str) -> Result<RootCerts> {
    let mut certs = system()?;
    for dir in host_dirs(authority) {
        for file in files_in(&dir, "crt") {
            certs.extend(read(&file)?);
        }
    }
    Ok(if certs.is_empty() {
        RootCerts::WebPki
    } else {
        RootCerts::new_with_certs(&certs)
    })
}

/// The certificate to show to `authority`, if there is one for it.
///
/// # Errors
/// A certificate without its key, or one that does not belong to it.
pub fn client(authority: &str) -> Result<Option<ClientCert>> {
    for dir in host_dirs(authority) {
        if let Some(file) = files_in(&dir, "cert").first() {
            return pair(file)
                .fault(|| failed(format!("using the client certificate {}", file.display())))
                .map(Some);
        }
    }
    Ok(None)
}

fn pair(file: &Path) -> Result<ClientCert> {
    let chain = read(file)?;
    let key_file = file.with_extension("key");
    let bytes = super::read_small(&key_file, PEM_LIMIT)?
        .with_context(|| format!("its key {} is missing", key_file.display()))?;
    let key = PrivateKey::from_pem(&bytes)
        .with_context(|| format!("reading its key {}", key_file.display()))?;
    // ureq panics on a pair that does not fit, so it is tried here.
    let der = PrivateKeyDer::try_from(key.der().to_vec()).map_err(failed)?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&der)?;
    let certs = chain
        .iter()
        .map(|c| CertificateDer::from(c.der().to_vec()))
        .collect();
    CertifiedKey::new(certs, signing).keys_match()?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn system() -> Result<Vec<Certificate<'static>>> {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let (file, dir) = (var("SSL_CERT_FILE"), var("SSL_CERT_DIR"));
    if file.is_none() && dir.is_none() {
        return match BUNDLES.iter().map(Path::new).find(|p| p.exists()) {
            Some(bundle) => read(bundle),
            None => Ok(Vec::new()),
        };
    }
    let mut certs = Vec::new();
    if let Some(file) = file {
        certs.extend(read(&file)?);
    }
    if let Some(dir) = dir {
        for extension in ["pem", "crt"] {
            for file in files_in(&dir, extension) {
                certs.extend(read(&file)?);
            }
        }
    }
    Ok(certs)
}

fn host_dirs(authority: &str) -> Vec<PathBuf> {
    // An authority never has a slash, but the two dots would leave the directory.
    if authority.is_empty() || authority.starts_with('.') || authority.contains('/') {
        return Vec::new();
    }
    let user = directories::BaseDirs::new().map(|b| b.config_dir().join("containers/certs.d"));
    user.into_iter()
        .chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from))
        .map(|d| d.join(authority))
        .collect()
}

fn files_in(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

fn read(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let bytes = super::read_small(file, PEM_LIMIT)
        .fault(|| failed(format!("reading certificates from {}", file.display())))?
        .ok_or_else(|| {
            failed(format!(
                "reading certificates from {}: no such file",
                file.display()
            ))
        })?;
    let mut certs = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(c) =
            item.fault(|| failed(format!("reading certificates from {}", file.display())))?
        {
            certs.push(c);
        }
    }
    Ok(certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_directories_stay_below_certs_d() {
        assert!(host_dirs("..").is_empty());
        assert!(host_dirs("a/../b").is_empty());
        assert!(
            host_dirs("h:5000")
                .iter()
                .any(|d| d.ends_with("certs.d/h:5000"))
        );
    }

    #[test]
    fn a_file_without_pem_has_no_certificates_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.crt");
        std::fs::write(&file, "nothing").unwrap();
        assert!(read(&file).unwrap().is_empty());
        let e = read(&dir.path().join("none")).unwrap_err();
        assert!(e.to_string().contains("none"));
    }
}
