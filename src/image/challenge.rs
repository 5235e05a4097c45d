//! `WWW-Authenticate` (RFC 9110 section 11.6.1) and the distribution project's token answers.

use serde::Deserialize;

use super::digest::quoted;
use crate::error::{Fault, failed};

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token from `realm`.
    Bearer {
        /// Token server.
        realm: String,
        /// Its name for the registry.
        service: Option<String>,
        /// What the token must allow; ours is used when missing.
        scope: Option<String>,
    },
    /// User and password.
    Basic,
}

/// The strongest challenge that we can answer in the values of `WWW-Authenticate` headers.
#[must_use]
pub fn choose<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for value in values {
        for (scheme, parameters) in parse(value) {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(n, _)| n == name)
                    .map(|(_, v)| v.clone())
            };
            if scheme == "bearer" {
                if let Some(realm) = get("realm") {
                    return Some(Challenge::Bearer {
                        realm,
                        service: get("service"),
                        scope: get("scope"),
                    });
                }
            } else if scheme == "basic" {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

type Parsed = Vec<(String, Vec<(String, String)>)>;

/// `Scheme name=value, name="quoted \" value", Scheme2 …`; what does not fit is skipped.
fn parse(value: &str) -> Parsed {
    let mut found: Parsed = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let end = rest.find([' ', ',', '=', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after_space = after.trim_start();
        if let Some(value) = after_space.strip_prefix('=') {
            let (value, after) = parameter(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            if !word.is_empty() {
                found.push((word.to_ascii_lowercase(), Vec::new()));
            }
            rest = after_space;
        }
    }
    found
}

/// A token or quoted string, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return (value, quoted.get(i + 1..).unwrap_or("")),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// The token in a token server's answer.
///
/// # Errors
/// It has none, or one that cannot be put into a header.
pub fn token(body: &[u8]) -> Result<String, Fault> {
    let answer: TokenAnswer = serde_json::from_slice(body)
        .map_err(|_| failed("the token server's answer is not a token"))?;
    let token = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(failed(format!(
            "the token server's answer has no usable token ({} bytes)",
            token.len()
        )));
    }
    Ok(token)
}

/// Whether credentials or token requests may go to `realm`, the registry having been reached over TLS (`secure`) or not.
///
/// # Errors
/// It is not https, and not the insecure registry's own host.
pub fn check_realm(realm: &str, registry_host: &str, secure: bool) -> Result<(), Fault> {
    if realm.starts_with("https://") {
        return Ok(());
    }
    let bare = |authority: &str| match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host.to_owned(),
        _ => authority.to_owned(),
    };
    if let Some(rest) = realm.strip_prefix("http://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        if !secure && !authority.contains('@') && bare(authority) == bare(registry_host) {
            return Ok(());
        }
    }
    Err(failed(format!(
        "the registry {registry_host} sends us for a token to {}, which is not https: nothing was sent there",
        quoted(realm)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_is_chosen_over_basic_with_all_its_parameters() {
        let want = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:library/alpine:pull,push".into()),
        };
        let header = r#"Basic realm="x", Bearer realm="https://auth.docker.io/token",service="registry.docker.io", scope="repository:library/alpine:pull,push""#;
        assert_eq!(choose([header].into_iter()), Some(want));
        assert_eq!(
            choose(["Basic realm=x", "Negotiate"].into_iter()),
            Some(Challenge::Basic)
        );
        assert_eq!(choose(["Negotiate abc=="].into_iter()), None);
        assert!(choose(["Bearer realm=\"unterminated"].into_iter()).is_some());
        assert_eq!(choose(["", ",,,", "=", "\"", "Bearer"].into_iter()), None);
    }

    #[test]
    fn realms_without_tls_are_refused_except_of_an_insecure_registry_itself() {
        assert!(check_realm("https://auth.docker.io/token", "docker.io", true).is_ok());
        assert!(check_realm("http://docker.io/token", "docker.io", true).is_err());
        assert!(check_realm("http://h:5001/token", "h:5000", false).is_ok());
        assert!(check_realm("http://evil/token", "h:5000", false).is_err());
        assert!(check_realm("http://h@evil/token", "h", false).is_err());
        assert!(check_realm("http://h.evil/token", "h", false).is_err());
        assert!(check_realm("file:///etc/passwd", "h", false).is_err());
    }

    #[test]
    fn tokens_that_could_split_a_header_are_refused() {
        assert_eq!(token(br#"{"token":"a.b"}"#).unwrap(), "a.b");
        assert_eq!(token(br#"{"access_token":"a.b"}"#).unwrap(), "a.b");
        for bad in [
            &br#"{"token":"a\r\nX: y"}"#[..],
            br#"{"token":""}"#,
            b"{}",
            b"x",
            b"",
        ] {
            assert!(token(bad).is_err());
        }
    }
}
