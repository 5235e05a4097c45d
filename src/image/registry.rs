//! A repository of a registry (OCI distribution-spec 1.1): its manifests and its blobs.
//!
//! [`Repository`] knows how the registry is reached (https, or http if it is insecure and https does not answer) and who we are
//! there: anonymous until challenged, then Basic or a Bearer token, renewed when it has run out.
//! 429, 5xx and broken connections are tried again a few times, honouring `Retry-After`.
//! A [`BlobReader`] is a verified stream: it goes on by `Range` where a connection broke, and its end of file
//! means that the digest was right.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, anyhow};
use ureq::http::{Response, StatusCode, header};
use ureq::{Body, BodyReader};

use super::auth::Credentials;
use super::challenge::{self, Challenge};
use super::digest::{Digest, Hasher, quoted};
use super::http::{Exchange, Failure, Http, Patience, retry_after};
use super::manifest::{ACCEPT, Descriptor};
use super::pace::{Pace, SLOW_BYTES};
use super::reference::{DOCKER_IO, Reference};
use crate::error::{Fault, Kind, Result, failed};

/// The largest manifest or index (what registries accept at most).
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// The largest config.
pub const CONFIG_LIMIT: u64 = 8 << 20;
const TOKEN_LIMIT: u64 = 1 << 20;
const ERROR_LIMIT: u64 = 64 << 10;
/// Tries of one request, or of a download without progress in between.
const TRIES: u32 = 5;

/// Says that something takes longer: `… trying again in 2 s`.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// A repository at one endpoint.
pub struct Repository {
    reference: Reference,
    host: String,
    http: Http,
    insecure: bool,
    credentials: Option<Credentials>,
    notice: Notice,
    state: Mutex<State>,
}

#[derive(Default, Clone)]
struct State {
    /// Whether the registry was reached over https, once known.
    secure: Option<bool>,
    /// Value of `Authorization`, after a challenge.
    authorization: Option<String>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.reference)
    }
}

/// A document, with its digest verified or, for a tag, computed.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// As sent.
    pub bytes: Vec<u8>,
    /// `Content-Type`, if any.
    pub media_type: Option<String>,
    /// Digest of `bytes`.
    pub digest: Digest,
}

impl Repository {
    /// The repository of `reference`; nothing is sent yet.
    #[must_use]
    pub fn new(
        reference: &Reference,
        insecure: bool,
        credentials: Option<Credentials>,
        patience: Patience,
        notice: Notice,
    ) -> Repository {
        let host = match reference.domain() {
            DOCKER_IO => "registry-1.docker.io",
            host => host,
        }
        .to_owned();
        Repository {
            reference: reference.clone(),
            http: Http::new(&host, insecure, patience),
            host,
            insecure,
            credentials,
            notice,
            state: Mutex::default(),
        }
    }

    /// What this repository was opened for.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Fetches the manifest or index of the reference, or of `digest` in its repository.
    ///
    /// # Errors
    /// Not found, not allowed, unreachable, too big, or its digest is wrong.
    pub fn manifest(&self, digest: Option<&Digest>) -> Result<Fetched> {
        let digest = digest.or(self.reference.digest());
        let what = match (digest, self.reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let response = self
            .get(
                &format!("manifests/{what}"),
                &[("accept", ACCEPT.join(", "))],
                &[StatusCode::OK],
            )
            .context("fetching its manifest")?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let media_type = header("content-type");
        let told = header("docker-content-digest");
        let bytes = self
            .small(response, MANIFEST_LIMIT)
            .context("fetching its manifest")?;
        // By tag there is nothing else to verify against; a registry that tells the digest must tell the truth.
        let expected = match (digest, told) {
            (Some(digest), _) => Some(digest.clone()),
            (None, Some(told)) => told.parse().ok(),
            (None, None) => None,
        };
        if let Some(expected) = &expected
            && !expected.matches(&bytes)
        {
            return Err(tampered(&format!("the manifest of {}", self.reference), expected).into());
        }
        Ok(Fetched {
            digest: match expected {
                Some(d) => d,
                None => Digest::sha256(&bytes),
            },
            bytes,
            media_type,
        })
    }

    /// Fetches a small blob whole and verifies it.
    ///
    /// # Errors
    /// As [`Repository::manifest`].
    pub fn small_blob(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let act = || format!("fetching blob {}", blob.digest);
        let response = self
            .get(&format!("blobs/{}", blob.digest), &[], &[StatusCode::OK])
            .with_context(act)?;
        let bytes = self.small(response, limit).with_context(act)?;
        if !blob.digest.matches(&bytes) {
            return Err(tampered(&format!("blob {}", blob.digest), &blob.digest).into());
        }
        Ok(bytes)
    }

    /// A verified stream of a blob. Nothing is requested before the first read.
    #[must_use]
    pub fn blob(self: &Arc<Self>, blob: &Descriptor) -> BlobReader {
        BlobReader {
            repository: Arc::clone(self),
            hasher: Some(Hasher::new(blob.digest.algorithm())),
            blob: blob.clone(),
            genuine: false,
            position: 0,
            body: None,
            failures: 0,
            progress_at: 0,
            pace: Pace::new(self.http.patience().slow, 0),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, secure: bool, path: &str) -> String {
        let scheme = if secure { "https" } else { "http" };
        format!(
            "{scheme}://{}/v2/{}/{path}",
            self.host,
            self.reference.path()
        )
    }

    /// Whole body of at most `limit` bytes, within the patience for small bodies.
    fn small(&self, response: Response<Body>, limit: u64) -> Result<Vec<u8>> {
        let told = response.body().content_length();
        if told.is_some_and(|n| n > limit) {
            return Err(too_big(limit).into());
        }
        let deadline = Instant::now() + self.http.patience().small_body;
        let mut reader = unlimited(response);
        let mut bytes = Vec::new();
        let mut chunk = vec![0u8; 64 << 10];
        loop {
            let n = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e).context("receiving it"),
            };
            bytes.extend_from_slice(chunk.get(..n).unwrap_or(&[]));
            if bytes.len() as u64 > limit {
                return Err(too_big(limit).into());
            }
            if Instant::now() > deadline {
                return Err(failed("receiving it takes too long").into());
            }
        }
        if told.is_some_and(|n| n != bytes.len() as u64) {
            return Err(failed("the connection ended before its end").into());
        }
        Ok(bytes)
    }

    /// One request with everything around it: scheme, authentication, retries. `accepted` are the statuses returned.
    fn get(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        accepted: &[StatusCode],
    ) -> Result<Response<Body>> {
        let mut challenged = 0;
        let mut tries = 0;
        let mut pause = self.http.patience().backoff;
        loop {
            let authorization = self.state().authorization.clone();
            let wait = match self.reach(path, headers, authorization.as_deref()) {
                Ok(response) if accepted.contains(&response.status()) => return Ok(response),
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && challenged < 2 => {
                    challenged += 1;
                    self.answer(&response, authorization.as_deref())?;
                    continue;
                }
                Ok(response) => match retry_after(response.status(), &response, pause) {
                    Some(wait)
                        if tries + 1 < TRIES && wait <= self.http.patience().longest_wait =>
                    {
                        (format!("{} answers {}", self.host, response.status()), wait)
                    }
                    Some(wait) if wait > self.http.patience().longest_wait => {
                        return Err(failed(format!(
                            "{} answers {} and asks to come back in {} s",
                            self.host,
                            response.status(),
                            wait.as_secs()
                        ))
                        .into());
                    }
                    _ => return Err(self.refusal(response)),
                },
                Err(Failure::Broken(text)) if tries + 1 < TRIES => {
                    (format!("{}: {text}", self.host), pause)
                }
                Err(e) => return Err(self.unreached(e)),
            };
            tries += 1;
            pause *= 2;
            (self.notice)(&format!(
                "{}; trying again in {} s",
                wait.0,
                wait.1.as_secs_f32().ceil()
            ));
            std::thread::sleep(wait.1);
        }
    }

    /// Sends over https, or over http where that is allowed and https did not answer.
    fn reach(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Failure> {
        let known = self.state().secure;
        let send = |secure: bool| {
            self.http.send(&Exchange {
                url: self.url(secure, path),
                authorization: authorization.map(str::to_owned),
                headers: headers.to_vec(),
                form: None,
            })
        };
        let secure = known.unwrap_or(true);
        let answer = match send(secure) {
            Err(Failure::NotTls(_) | Failure::Unreachable(_) | Failure::Broken(_))
                if known.is_none() && self.insecure =>
            {
                let answer = send(false)?;
                self.state().secure = Some(false);
                return Ok(answer);
            }
            answer => answer?,
        };
        self.state().secure = Some(secure);
        Ok(answer)
    }

    /// Answers a challenge, unless another thread has done so since `used` was sent.
    fn answer(&self, response: &Response<Body>, used: Option<&str>) -> Result<()> {
        let mut state = self.state();
        if state.authorization.as_deref() != used {
            return Ok(());
        }
        let secure = state.secure.unwrap_or(true);
        let values = response
            .headers()
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok());
        let authorization = match challenge::choose(values) {
            None => {
                return Err(failed(format!(
                    "{} wants to know who we are, in a way that is not supported (only Basic and Bearer are)",
                    self.host
                ))
                .into());
            }
            Some(Challenge::Basic) => match &self.credentials {
                Some(credentials) if used.is_none() => credentials.basic_header(),
                _ => None,
            },
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let scope =
                    scope.unwrap_or_else(|| format!("repository:{}:pull", self.reference.path()));
                let token = self
                    .token(&realm, service.as_deref(), &scope, secure)
                    .with_context(|| {
                        format!(
                            "getting a token for {} from {}",
                            self.reference.path(),
                            quoted(&realm)
                        )
                    })?;
                Some(format!("Bearer {token}"))
            }
        };
        match authorization {
            Some(value) => {
                state.authorization = Some(value);
                Ok(())
            }
            None => Err(self.denied()),
        }
    }

    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        secure: bool,
    ) -> Result<String> {
        challenge::check_realm(realm, &self.host, secure)?;
        let mut query = String::new();
        let mut add = |name: &str, value: &str| {
            let _ = write!(
                query,
                "{}{name}={}",
                if query.is_empty() { "" } else { "&" },
                percent(value)
            );
        };
        if let Some(service) = service {
            add("service", service);
        }
        add("scope", scope);
        let mut exchange = Exchange {
            headers: vec![("accept", "application/json".to_owned())],
            ..Exchange::default()
        };
        match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                add("grant_type", "refresh_token");
                add("client_id", "rless");
                add("refresh_token", token);
                exchange.form = Some(query);
                exchange.url = realm.to_owned();
            }
            basic => {
                if let Some(Credentials::Basic { user, .. }) = basic {
                    add("account", user);
                }
                let joint = if realm.contains('?') { '&' } else { '?' };
                exchange.url = format!("{realm}{joint}{query}");
                exchange.authorization = basic.as_ref().and_then(Credentials::basic_header);
            }
        }
        let mut pause = self.http.patience().backoff;
        for attempt in 1.. {
            let wait = match self.http.send(&exchange) {
                Ok(r) if r.status() == StatusCode::OK => {
                    return Ok(challenge::token(&self.small(r, TOKEN_LIMIT)?)?);
                }
                Ok(r) if matches!(r.status().as_u16(), 401 | 403) => return Err(self.denied()),
                Ok(r) => match retry_after(r.status(), &r, pause) {
                    Some(wait) if attempt < TRIES && wait <= self.http.patience().longest_wait => {
                        wait
                    }
                    _ => return Err(self.refusal(r)),
                },
                Err(Failure::Broken(_)) if attempt < TRIES => pause,
                Err(e) => return Err(self.unreached(e)),
            };
            std::thread::sleep(wait);
            pause *= 2;
        }
        Err(anyhow!("no token"))
    }

    fn denied(&self) -> anyhow::Error {
        let who = match &self.credentials {
            None => "without credentials",
            Some(_) => "with the credentials found for it",
        };
        failed(format!("{} does not let us in {who}", self.host))
            .hint(format!(
                "Check the name: for one that does not exist many registries answer so. For a private image log in \
                 with `podman login {0}` or `docker login {0}`, or give --authfile or --creds.",
                self.reference.domain()
            ))
            .into()
    }

    /// An answer that is no success, as an error in the registry's words.
    fn refusal(&self, response: Response<Body>) -> anyhow::Error {
        let status = response.status();
        if matches!(status.as_u16(), 401 | 403) {
            return self.denied();
        }
        // An error's text is a courtesy: whatever arrives of it in time is shown.
        let deadline = Instant::now() + self.http.patience().small_body;
        let mut reader = unlimited(response).take(ERROR_LIMIT);
        let (mut body, mut chunk) = (Vec::new(), vec![0u8; 4096]);
        while Instant::now() < deadline {
            match reader.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(n) => body.extend_from_slice(chunk.get(..n).unwrap_or(&[])),
            }
        }
        let said = error_text(&body)
            .map(|t| format!(": {t}"))
            .unwrap_or_default();
        if status == StatusCode::NOT_FOUND {
            return Fault::new(
                Kind::NoSuchObject,
                format!("{} has no such image{said}", self.host),
            )
            .into();
        }
        let fault = failed(format!("{} answers {status}{said}", self.host));
        if status == StatusCode::TOO_MANY_REQUESTS && self.credentials.is_none() {
            return fault
                .hint("Many registries allow more to those who are logged in.")
                .into();
        }
        fault.into()
    }

    fn unreached(&self, failure: Failure) -> anyhow::Error {
        let host = &self.host;
        let insecure = format!(
            "If you trust {host} and the network: --tls-verify=false, or in registries.conf\n    \
             [[registry]]\n    location = \"{}\"\n    insecure = true",
            self.reference.domain()
        );
        let fault = match &failure {
            Failure::Certificate(_) => failed(format!("connecting to {host}")).hint(format!(
                "Put the certificate of its authority into ~/.config/containers/certs.d/{}/ca.crt. {insecure}",
                self.reference.domain()
            )),
            Failure::NotTls(_) => failed(format!("connecting to {host}")).hint(insecure),
            _ => failed(format!("connecting to {host}")),
        };
        match failure {
            Failure::Final(e) => e.context(fault),
            other => anyhow::Error::new(other).context(fault),
        }
    }
}

/// `errors[].message` of the distribution-spec's error body.
fn error_text(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let first = json.get("errors")?.get(0)?;
    let text = first.get("message")?.as_str()?;
    (!text.is_empty()).then(|| quoted(text))
}

/// Percent-encodes a query value (RFC 3986: everything but the unreserved).
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

fn unlimited(response: Response<Body>) -> BodyReader<'static> {
    response
        .into_body()
        .into_with_config()
        .limit(u64::MAX)
        .reader()
}

fn too_big(limit: u64) -> Fault {
    failed(format!("it is larger than the {limit} bytes allowed"))
}

fn tampered(what: &str, expected: &Digest) -> Fault {
    failed(format!(
        "what was received as {what} does not have the digest {expected}"
    ))
    .hint("It was damaged on the way or at the registry; nothing of it was kept.")
}

/// A verified, resuming stream of a blob: see the module's text.
pub struct BlobReader {
    repository: Arc<Repository>,
    blob: Descriptor,
    hasher: Option<Hasher>,
    /// The digest was right: set at the end of the stream.
    genuine: bool,
    position: u64,
    body: Option<BodyReader<'static>>,
    failures: u32,
    /// Position when failures were forgiven last: what is more than almost nothing since then forgives them.
    progress_at: u64,
    pace: Pace,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({} at {})", self.blob.digest, self.position)
    }
}

impl BlobReader {
    /// The next bytes; 0 at the verified end.
    ///
    /// # Errors
    /// The download failed for good, or the digest is wrong.
    pub fn next(&mut self, buf: &mut [u8]) -> Result<usize> {
        let act = || {
            format!(
                "fetching blob {} of {}",
                self.blob.digest, self.repository.reference
            )
        };
        let act = act();
        self.advance(buf).context(act)
    }

    fn advance(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            let left = self.blob.size - self.position;
            if left == 0 {
                return self.finish();
            }
            if self.body.is_some() && self.pace.is_stalled(self.position) {
                self.body = None;
                self.pause("it brings almost nothing")?;
            }
            let body = match &mut self.body {
                Some(body) => body,
                None => {
                    let body = self.open()?;
                    self.pace = Pace::new(self.repository.http.patience().slow, self.position);
                    self.body.insert(body)
                }
            };
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let target = buf.get_mut(..room).unwrap_or_default();
            let why = match body.read(target) {
                Ok(0) => "the connection ended early".to_owned(),
                Ok(n) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(target.get(..n).unwrap_or_default());
                    }
                    self.position += n as u64;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => e.to_string(),
            };
            self.body = None;
            self.pause(&why)?;
        }
    }

    /// Counts a failure and waits before the next try.
    fn pause(&mut self, why: &str) -> Result<()> {
        let got = self.position;
        // Without a least, one that trickles would be tried for good.
        if got - self.progress_at >= SLOW_BYTES {
            self.failures = 0;
            self.progress_at = self.position;
        }
        self.failures += 1;
        if self.failures >= TRIES {
            return Err(
                failed(format!("{why}, {got} of {} bytes received", self.blob.size)).into(),
            );
        }
        let wait = self.repository.http.patience().backoff * (1 << (self.failures - 1));
        (self.repository.notice)(&format!(
            "blob {}: {why} after {got} bytes; going on from there",
            self.blob.digest
        ));
        std::thread::sleep(wait);
        Ok(())
    }

    /// Opens the body at the present position.
    fn open(&mut self) -> Result<BodyReader<'static>> {
        let mut headers = Vec::new();
        if self.position > 0 {
            headers.push(("range", format!("bytes={}-", self.position)));
        }
        let response = self.repository.get(
            &format!("blobs/{}", self.blob.digest),
            &headers,
            &[StatusCode::OK, StatusCode::PARTIAL_CONTENT],
        )?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let start = if partial {
            let range = response
                .headers()
                .get(header::CONTENT_RANGE)
                .and_then(|v| v.to_str().ok())
                .and_then(range_start);
            range.ok_or_else(|| failed("the registry sends a part without saying which"))?
        } else {
            if response
                .body()
                .content_length()
                .is_some_and(|n| n != self.blob.size)
            {
                return Err(failed(format!(
                    "the registry sends {} bytes where the manifest says {}",
                    response.body().content_length().unwrap_or(0),
                    self.blob.size
                ))
                .into());
            }
            0
        };
        let mut body = unlimited(response);
        let skip = self
            .position
            .checked_sub(start)
            .ok_or_else(|| failed("the registry sends a later part than was asked for"))?;
        // A server without ranges starts again: what we have is passed over.
        self.pass_over(&mut body, skip)?;
        Ok(body)
    }

    fn pass_over(&self, body: &mut impl Read, skip: u64) -> Result<()> {
        let mut pace = Pace::new(self.repository.http.patience().slow, 0);
        let (mut skipped, mut chunk) = (0, vec![0u8; 64 << 10]);
        while skipped < skip {
            let n = body.take(skip - skipped).read(&mut chunk).unwrap_or(0);
            if n == 0 {
                return Err(failed("the connection ended again before new bytes came").into());
            }
            skipped += n as u64;
            if pace.is_stalled(skipped) {
                return Err(failed("it brings almost nothing of what was received before").into());
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<usize> {
        self.body = None;
        if let Some(hasher) = self.hasher.take() {
            self.genuine = hasher.finish() == self.blob.digest;
        }
        if self.genuine {
            return Ok(0);
        }
        Err(tampered(&format!("blob {}", self.blob.digest), &self.blob.digest).into())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.next(buf).map_err(io::Error::other)
    }
}

/// First byte of `bytes 5-9/10`.
fn range_start(value: &str) -> Option<u64> {
    value
        .trim()
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_start_is_read_from_content_range() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!(range_start("bytes */10"), None);
        assert_eq!(range_start("lines 5-9/10"), None);
    }

    #[test]
    fn query_values_cannot_add_parameters() {
        assert_eq!(percent("a&b=c d/é"), "a%26b%3Dc%20d%2F%C3%A9");
    }

    #[test]
    fn registry_errors_are_shown_escaped() {
        let body = b"{\"errors\":[{\"code\":\"X\",\"message\":\"a\\u001b[31m\"}]}";
        assert_eq!(error_text(body).as_deref(), Some("\"a\\u{1b}[31m\""));
        assert_eq!(error_text(b"<html>"), None);
    }
}
