//! One HTTP exchange with a registry or where it sends us: TLS, proxies, time limits, redirects.
//!
//! Redirects are followed here and not by the HTTP library: `Authorization` stays with the origin (scheme, host, port) it was
//! given for and does not come back once an exchange has left it; https never becomes http, except for a registry that
//! was itself reached over http. `insecure` covers the registry's own host and nothing that it redirects to.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::anyhow;
use ureq::http::{Request, Response, StatusCode, header};
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, Proxy};

use super::certs;
use super::digest::quoted;
use crate::error::{Fault, Result, ResultExt, failed, usage};

const REDIRECT_LIMIT: usize = 8;

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Name resolution and connecting, each.
    pub connect: Duration,
    /// Between two reads of anything.
    pub idle: Duration,
    /// For the whole of a small body (manifest, token).
    pub small_body: Duration,
    /// For a body to bring more than almost nothing.
    pub slow: Duration,
    /// First pause before a retry; doubled each time.
    pub backoff: Duration,
    /// Longest pause that `Retry-After` can ask for.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            small_body: Duration::from_secs(120),
            slow: Duration::from_secs(60),
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
        }
    }
}

/// Why there was no answer. What a caller decides by; the text is for the user.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its certificate is not valid for us.
    #[error("its certificate is not trusted: {0}")]
    Certificate(String),
    /// It does not speak TLS.
    #[error("it does not speak TLS ({0})")]
    NotTls(String),
    /// Nothing was reached: unknown host, refused, no route.
    #[error("{0}")]
    Unreachable(String),
    /// The exchange broke off; trying again may help.
    #[error("{0}")]
    Broken(String),
    /// Trying again does not help.
    #[error("{0:#}")]
    Final(anyhow::Error),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure::Final(fault.into())
    }
}

/// Exchanges on behalf of one registry.
#[derive(Debug)]
pub struct Http {
    authority: String,
    insecure: bool,
    patience: Patience,
    agents: Mutex<HashMap<(bool, String), Agent>>,
}

/// What to send.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    /// Absolute URL.
    pub url: String,
    /// `Authorization`, for this URL's origin only.
    pub authorization: Option<String>,
    /// Other headers.
    pub headers: Vec<(&'static str, String)>,
    /// A form to POST; GET without one.
    pub form: Option<String>,
}

impl Http {
    /// For the registry at `authority` (`host[:port]`).
    #[must_use]
    pub fn new(authority: &str, insecure: bool, patience: Patience) -> Http {
        Http {
            authority: authority.to_owned(),
            insecure,
            patience,
            agents: Mutex::default(),
        }
    }

    /// The time limits in force.
    #[must_use]
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Sends and follows redirects; any status is an answer.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn send(&self, exchange: &Exchange) -> Result<Response<Body>, Failure> {
        let mut url = exchange.url.clone();
        let mut authorization = exchange.authorization.as_deref();
        let first_secure = url.starts_with("https:");
        for _ in 0..=REDIRECT_LIMIT {
            let response = self.once(&url, authorization, exchange)?;
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = response
                .headers()
                .get(header::LOCATION)
                .filter(|_| is_redirect)
            else {
                return Ok(response);
            };
            let location = location
                .to_str()
                .map_err(|_| failed("it redirects to something that is not a URL"))?;
            if exchange.form.is_some() {
                return Err(failed("it redirects a token request, which is not followed").into());
            }
            let next = resolve(&url, location)?;
            if !origin(&next)?.0 && (first_secure || !self.insecure) {
                return Err(failed(format!(
                    "it redirects to {}, which is not https",
                    quoted(&next)
                ))
                .into());
            }
            if origin(&next)? != origin(&url)? {
                authorization = None;
            }
            url = next;
        }
        Err(failed(format!("it redirects more than {REDIRECT_LIMIT} times")).into())
    }

    fn once(
        &self,
        url: &str,
        authorization: Option<&str>,
        exchange: &Exchange,
    ) -> Result<Response<Body>, Failure> {
        let (secure, authority) = origin(url)?;
        let agent = self.agent(secure, &authority).map_err(Failure::Final)?;
        let mut request = Request::builder()
            .uri(url)
            .header(
                header::USER_AGENT,
                concat!("rless/", env!("CARGO_PKG_VERSION")),
            )
            // A body is verified and counted as it was stored.
            .header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in &exchange.headers {
            request = request.header(*name, value);
        }
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let bad =
            |e: ureq::http::Error| failed(format!("{} cannot be requested: {e}", quoted(url)));
        let answer = match &exchange.form {
            None => agent.run(request.method("GET").body(()).map_err(bad)?),
            Some(form) => agent.run(
                request
                    .method("POST")
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.as_str())
                    .map_err(bad)?,
            ),
        };
        answer.map_err(|e| classify(e, &self.patience))
    }

    fn agent(&self, secure: bool, authority: &str) -> Result<Agent> {
        let key = (secure, authority.to_owned());
        let lock = || {
            self.agents
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        if let Some(agent) = lock().get(&key) {
            return Ok(agent.clone());
        }
        let mut tls = TlsConfig::builder();
        if secure {
            tls = tls.client_cert(certs::client(authority)?);
            if self.insecure && same_authority(authority, &self.authority) {
                tls = tls.disable_verification(true);
            } else {
                tls = tls.root_certs(certs::roots(authority)?);
            }
        }
        let patience = &self.patience;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls.build())
            .proxy(proxy_for(secure, authority)?)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_per_read(Some(patience.idle))
            .timeout_per_write(Some(patience.idle))
            .timeout_recv_response(Some(patience.idle))
            .input_buffer_size(256 << 10)
            .build()
            .new_agent();
        Ok(lock().entry(key).or_insert(agent).clone())
    }
}

/// Whether two authorities are one, the default https port written or not.
fn same_authority(a: &str, b: &str) -> bool {
    let bare = |s: &str| s.strip_suffix(":443").unwrap_or(s).to_ascii_lowercase();
    bare(a) == bare(b)
}

/// Scheme (is it https?) and authority of a URL, in lower case.
fn origin(url: &str) -> Result<(bool, String), Fault> {
    let bad = || failed(format!("{} is not an http(s) URL", quoted(url)));
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return Err(bad()),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.is_empty() || authority.contains('@') {
        return Err(bad());
    }
    Ok((secure, authority.to_ascii_lowercase()))
}

/// A `Location` relative to the URL that answered with it (RFC 3986 section 5, without dot segments).
fn resolve(base: &str, location: &str) -> Result<String, Fault> {
    let (secure, authority) = origin(base)?;
    let scheme = if secure { "https" } else { "http" };
    let location = location.split('#').next().unwrap_or("");
    Ok(
        if location.contains("://") && !location.starts_with(['/', '?']) {
            location.to_owned()
        } else if let Some(rest) = location.strip_prefix("//") {
            format!("{scheme}://{rest}")
        } else if location.starts_with('/') {
            format!("{scheme}://{authority}{location}")
        } else {
            let path = base.split(['?', '#']).next().unwrap_or(base);
            match path.rfind('/').filter(|i| *i > scheme.len() + 3) {
                Some(slash) if !location.starts_with('?') => {
                    format!("{}/{location}", path.get(..slash).unwrap_or(path))
                }
                _ if location.starts_with('?') => format!("{path}{location}"),
                _ => format!("{path}/{location}"),
            }
        },
    )
}

fn classify(error: ureq::Error, patience: &Patience) -> Failure {
    let text = error.to_string();
    if text.contains("invalid peer certificate") {
        return Failure::Certificate(text.trim_start_matches("io: ").to_owned());
    }
    if text.contains("InvalidContentType") || text.contains("corrupt message") {
        return Failure::NotTls("it answers https with plain text".to_owned());
    }
    match &error {
        ureq::Error::HostNotFound => Failure::Unreachable("no such host".to_owned()),
        ureq::Error::Io(e) => match e.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Failure::Unreachable(plain_io(e)),
            _ if text.contains("failed to lookup address")
                || text.contains("Name or service not known") =>
            {
                Failure::Unreachable("no such host".to_owned())
            }
            _ => Failure::Broken(plain_io(e)),
        },
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
            Failure::Unreachable(format!(
                "no connection within {} s",
                patience.connect.as_secs()
            ))
        }
        ureq::Error::Timeout(_) => {
            Failure::Broken(format!("no answer within {} s", patience.idle.as_secs()))
        }
        ureq::Error::ConnectionFailed => Failure::Unreachable("connecting failed".to_owned()),
        ureq::Error::Protocol(_) => Failure::Broken(text),
        _ => Failure::Final(anyhow!(text)),
    }
}

/// An I/O error in the system's words.
fn plain_io(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => e.to_string(),
    }
}

fn proxy_for(secure: bool, authority: &str) -> Result<Option<Proxy>> {
    let var = |names: &[&str]| {
        names.iter().find_map(|n| {
            std::env::var(n)
                .ok()
                .filter(|v| !v.is_empty())
                .map(|v| (n.to_string(), v))
        })
    };
    let names: &[&str] = if secure {
        &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    } else {
        &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    };
    let Some((name, url)) = var(names) else {
        return Ok(None);
    };
    let exceptions = var(&["NO_PROXY", "no_proxy"])
        .map(|(_, v)| v)
        .unwrap_or_default();
    if bypasses_proxy(authority, &exceptions) {
        return Ok(None);
    }
    Proxy::new(&url).map(Some).fault(|| {
        usage(format!("the proxy in {name}"))
            .hint("It is written http://[USER:PASSWORD@]HOST:PORT.")
    })
}

/// Go's rules: loopback always; `*`, `host`, `.host`, `host:port`, addresses, and `address/bits`.
fn bypasses_proxy(authority: &str, exceptions: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((h, p)) if p.bytes().all(|b| b.is_ascii_digit()) && !h.ends_with(':') => (h, p),
        _ => (authority, ""),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address: Option<std::net::IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|a| a.is_loopback()) {
        return true;
    }
    exceptions
        .split(',')
        .map(str::trim)
        .filter(|e| !e.is_empty())
        .any(|entry| {
            if entry == "*" {
                return true;
            }
            if let (Some((net, bits)), Some(address)) = (entry.split_once('/'), address) {
                return in_network(address, net, bits);
            }
            let (name, wanted_port) = match entry.rsplit_once(':') {
                Some((n, p)) if !n.contains(':') => (n, p),
                _ => (entry, ""),
            };
            if !wanted_port.is_empty() && wanted_port != port {
                return false;
            }
            let name = name.trim_start_matches('*').to_ascii_lowercase();
            match name.strip_prefix('.') {
                Some(_) => host.ends_with(&name),
                None => host == name || host.ends_with(&format!(".{name}")),
            }
        })
}

fn in_network(address: std::net::IpAddr, net: &str, bits: &str) -> bool {
    use std::net::IpAddr::{V4, V6};
    let (Ok(net), Ok(bits)) = (net.parse::<std::net::IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (address, net) {
        (V4(a), V4(n)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        (V6(a), V6(n)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        _ => false,
    }
}

/// How long to wait before trying again after `status`; `None` when it should not be tried again.
#[must_use]
pub fn retry_after(
    status: StatusCode,
    response: &Response<Body>,
    default: Duration,
) -> Option<Duration> {
    if !matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504) {
        return None;
    }
    let asked = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| seconds_from(v, jiff::Timestamp::now()));
    Some(asked.unwrap_or(default))
}

/// `Retry-After`: seconds, or an HTTP date.
fn seconds_from(value: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    let wait = date.as_second().saturating_sub(now.as_second());
    Some(Duration::from_secs(u64::try_from(wait).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_resolve_against_the_url_that_sent_them() {
        let base = "https://h:1/v2/a/blobs/x?q=1";
        for (location, want) in [
            ("https://cdn/x", "https://cdn/x"),
            ("//cdn/x", "https://cdn/x"),
            ("/y?z", "https://h:1/y?z"),
            ("y", "https://h:1/v2/a/blobs/y"),
            ("?r", "https://h:1/v2/a/blobs/x?r"),
            ("/y#frag", "https://h:1/y"),
            ("/to?u=http://x", "https://h:1/to?u=http://x"),
        ] {
            assert_eq!(resolve(base, location).unwrap(), want, "{location}");
        }
        assert_eq!(resolve("http://h", "y").unwrap(), "http://h/y");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_without_user() {
        assert_eq!(origin("HTTPS://H:1/x").unwrap(), (true, "h:1".to_owned()));
        assert!(origin("https://u@h/").is_err());
        assert!(origin("ftp://h/").is_err());
        assert!(origin("https:///x").is_err());
    }

    #[test]
    fn proxy_exceptions_follow_go() {
        for (authority, exceptions, want) in [
            ("localhost:5000", "", true),
            ("127.0.0.1:5000", "", true),
            ("[::1]:5000", "", true),
            ("a.corp.io", "corp.io", true),
            ("a.corp.io:444", ".corp.io", true),
            ("corp.io", ".corp.io", false),
            ("xcorp.io", "corp.io", false),
            ("h:5000", "h:5000", true),
            ("h:5000", "h:5001", false),
            ("10.1.2.3:5000", "10.0.0.0/8", true),
            ("11.1.2.3", "x, 10.0.0.0/8", false),
            ("h", "*", true),
            ("h", "", false),
        ] {
            assert_eq!(
                bypasses_proxy(authority, exceptions),
                want,
                "{authority} {exceptions}"
            );
        }
    }

    #[test]
    fn retry_after_takes_seconds_and_dates() {
        let now: jiff::Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        assert_eq!(seconds_from("7", now), Some(Duration::from_secs(7)));
        assert_eq!(
            seconds_from("Wed, 21 Oct 2015 07:28:05 GMT", now),
            Some(Duration::from_secs(5))
        );
        assert_eq!(
            seconds_from("Wed, 21 Oct 2015 07:27:05 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(seconds_from("soon", now), None);
    }
}
