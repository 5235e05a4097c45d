//! Credentials, from the files and helpers that podman and docker use (containers-auth.json(5)).
//!
//! The first file that knows the registry decides: `--authfile` or `$REGISTRY_AUTH_FILE` alone if given, else
//! `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json`, `~/.docker/config.json`.
//! In a file the most specific key wins (`host/a/b`, `host/a`, `host`); `credHelpers` come before `auths`, `credsStore` after.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::digest::quoted;
use super::reference::{DOCKER_IO, Reference};
use crate::error::{Fault, Result, ResultExt, failed, usage};

const AUTH_LIMIT: u64 = 4 << 20;

/// What proves who we are. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Basic { .. } => "Basic(…)",
            Credentials::IdentityToken(_) => "IdentityToken(…)",
        })
    }
}

impl Credentials {
    /// From `user[:password]` as `--creds` has it.
    ///
    /// # Errors
    /// No user name.
    pub fn parse(text: &str) -> Result<Credentials, Fault> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() {
            return Err(usage("--creds has no user name").hint("It is written USER:PASSWORD."));
        }
        Ok(Credentials::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    /// Value of an `Authorization` header; `None` for an identity token.
    #[must_use]
    pub fn basic_header(&self) -> Option<String> {
        match self {
            Credentials::Basic { user, password } => Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{user}:{password}"))
            )),
            Credentials::IdentityToken(_) => None,
        }
    }
}

/// One auth file, as read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AuthFile {
    auths: BTreeMap<String, RawAuth>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct RawAuth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl fmt::Debug for RawAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawAuth(…)")
    }
}

/// What a file says of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Known(Credentials),
    /// Ask `docker-credential-NAME` for this server.
    Helper {
        name: String,
        server: String,
    },
}

impl AuthFile {
    /// Parses the text of an auth file.
    ///
    /// # Errors
    /// Not JSON of that shape.
    pub fn parse(bytes: &[u8]) -> Result<AuthFile, Fault> {
        serde_json::from_slice(bytes)
            // serde's messages quote values, which may be secrets: place only.
            .map_err(|e| {
                usage(format!(
                    "it is malformed at line {} column {}",
                    e.line(),
                    e.column()
                ))
            })
    }

    fn look_up(&self, reference: &Reference) -> Result<Vec<Answer>, Fault> {
        let mut answers = Vec::new();
        let domain = reference.domain();
        let named = |name: &str, server: &str| Answer::Helper {
            name: name.to_owned(),
            server: server.to_owned(),
        };
        for (key, helper) in &self.helpers {
            if host_of(key) == domain && !helper.is_empty() {
                answers.push(named(helper, key));
            }
        }
        for key in keys_for(reference) {
            let found = self.auths.get(&key).or_else(|| {
                // Docker writes whole URLs; only hosts can be meant by them.
                (key == domain).then(|| {
                    self.auths
                        .iter()
                        .find(|(k, _)| {
                            k.contains("://") && host_of(k) == domain
                                || host_of(k) == *k && host_of(k) == domain
                        })
                        .map(|(_, v)| v)
                })?
            });
            if let Some(credentials) = found.map(RawAuth::credentials).transpose()?.flatten() {
                answers.push(Answer::Known(credentials));
                break;
            }
        }
        if !self.store.is_empty() {
            let server = if domain == DOCKER_IO {
                "https://index.docker.io/v1/"
            } else {
                domain
            };
            answers.push(named(&self.store, server));
        }
        Ok(answers)
    }
}

impl RawAuth {
    fn credentials(&self) -> Result<Option<Credentials>, Fault> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(self.identitytoken.clone())));
        }
        if !self.auth.is_empty() {
            let bad = || usage("an \"auth\" value is not base64 of USER:PASSWORD");
            let bytes = STANDARD.decode(self.auth.trim()).map_err(|_| bad())?;
            let text = String::from_utf8(bytes).map_err(|_| bad())?;
            let (user, password) = text.split_once(':').ok_or_else(bad)?;
            return Ok(Some(Credentials::Basic {
                user: user.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            }));
        }
        if !self.username.is_empty() {
            return Ok(Some(Credentials::Basic {
                user: self.username.clone(),
                password: self.password.clone(),
            }));
        }
        Ok(None)
    }
}

/// `host/a/b`, `host/a`, `host`.
fn keys_for(reference: &Reference) -> Vec<String> {
    let mut keys = Vec::new();
    let mut key = reference.repository();
    loop {
        keys.push(key.clone());
        match key.rfind('/') {
            Some(slash) => key.truncate(slash),
            None => return keys,
        }
    }
}

/// The host a key of docker's file means: `https://index.docker.io/v1/` is `docker.io`.
fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_IO,
        host => host,
    }
}

/// Finds the credentials for a repository; `None`: go anonymously.
///
/// # Errors
/// A file is malformed or a helper failed; the message names it, never the secret.
pub fn find(reference: &Reference, authfile: Option<&Path>) -> Result<Option<Credentials>> {
    for file in files(authfile)? {
        let bytes = match super::read_small(&file, AUTH_LIMIT) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(e) => {
                return Err(e)
                    .fault(|| failed(format!("reading credentials from {}", file.display())));
            }
        };
        let answers = AuthFile::parse(&bytes)
            .and_then(|f| f.look_up(reference))
            .fault(|| usage(format!("reading credentials from {}", file.display())))?;
        for answer in answers {
            match answer {
                Answer::Known(credentials) => return Ok(Some(credentials)),
                Answer::Helper { name, server } => {
                    if let Some(credentials) = ask_helper(&name, &server)? {
                        return Ok(Some(credentials));
                    }
                }
            }
        }
    }
    Ok(None)
}

fn files(authfile: Option<&Path>) -> Result<Vec<PathBuf>> {
    let given = authfile.map(Path::to_owned).or_else(|| {
        std::env::var_os("REGISTRY_AUTH_FILE")
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    });
    if let Some(file) = given {
        if authfile.is_some() && !file.exists() {
            return Err(usage(format!("--authfile {}: no such file", file.display())).into());
        }
        return Ok(vec![file]);
    }
    let mut files = Vec::new();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(
        || PathBuf::from(format!("/run/user/{}", nix::unistd::getuid())),
        PathBuf::from,
    );
    files.push(runtime.join("containers/auth.json"));
    if let Some(base) = directories::BaseDirs::new() {
        files.push(base.config_dir().join("containers/auth.json"));
        let docker = std::env::var_os("DOCKER_CONFIG")
            .filter(|v| !v.is_empty())
            .map_or_else(|| base.home_dir().join(".docker"), PathBuf::from);
        files.push(docker.join("config.json"));
    }
    Ok(files)
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Runs `docker-credential-NAME get` (the protocol of docker-credential-helpers).
fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !name.bytes().all(plain) {
        return Err(usage(format!(
            "{} is no name of a credential helper",
            quoted(name)
        ))
        .into());
    }
    let program = format!("docker-credential-{name}");
    let output = duct::cmd!(&program, "get")
        .stdin_bytes(server)
        .stdout_capture()
        .stderr_capture()
        .unchecked()
        .run()
        .with_context(|| format!("running {program}"))
        .fault(|| {
            failed(format!("asking {program} for the credentials of {server}")).hint(
                "Install the helper, or remove its name from credHelpers and credsStore of the auth file.",
            )
        })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        let text = quoted(text.trim());
        return Err(failed(format!("{program} get for {server} failed: {text}")).into());
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).map_err(|_| {
        failed(format!(
            "{program} get for {server} answered something other than credentials"
        ))
    })?;
    Ok(Some(if answer.username == "<token>" {
        Credentials::IdentityToken(answer.secret)
    } else {
        Credentials::Basic {
            user: answer.username,
            password: answer.secret,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str, name: &str) -> Vec<Answer> {
        let reference = Reference::parse(name).unwrap();
        AuthFile::parse(text.as_bytes())
            .unwrap()
            .look_up(&reference)
            .unwrap()
    }

    fn basic(user: &str) -> Answer {
        Answer::Known(Credentials::Basic {
            user: user.to_owned(),
            password: "p:w".to_owned(),
        })
    }

    fn entry(key: &str, user: &str) -> String {
        format!(
            r#"{key:?}: {{"auth": "{}"}}"#,
            STANDARD.encode(format!("{user}:p:w"))
        )
    }

    #[test]
    fn most_specific_key_wins_and_never_another_host() {
        let text = format!(
            r#"{{"auths": {{ {}, {}, {} }} }}"#,
            entry("h.io:5000", "host"),
            entry("h.io:5000/a/b", "deep"),
            entry("h.io", "portless")
        );
        assert_eq!(look(&text, "h.io:5000/a/b/c"), [basic("deep")]);
        assert_eq!(look(&text, "h.io:5000/a/bc"), [basic("host")]);
        assert_eq!(look(&text, "h.io/x"), [basic("portless")]);
        assert_eq!(look(&text, "h.io.evil.com/x"), []);
        assert_eq!(look(&text, "evil.com/h.io:5"), []);
    }

    #[test]
    fn docker_hub_is_found_under_the_url_docker_writes() {
        let text = format!(
            r#"{{"auths": {{ {} }} }}"#,
            entry("https://index.docker.io/v1/", "me")
        );
        assert_eq!(look(&text, "docker.io/alpine"), [basic("me")]);
        assert_eq!(look(&text, "quay.io/alpine"), []);
        let text = format!(r#"{{"auths": {{ {} }} }}"#, entry("https://h.io/v2/", "me"));
        assert_eq!(look(&text, "h.io/x"), [basic("me")]);
    }

    #[test]
    fn helper_of_the_registry_comes_first_and_the_general_store_last() {
        let text = format!(
            r#"{{"auths": {{ {} }}, "credHelpers": {{"gcr.io": "gcloud"}}, "credsStore": "pass"}}"#,
            entry("gcr.io", "file")
        );
        let helper = |name: &str, server: &str| Answer::Helper {
            name: name.into(),
            server: server.into(),
        };
        assert_eq!(
            look(&text, "gcr.io/x"),
            [
                helper("gcloud", "gcr.io"),
                basic("file"),
                helper("pass", "gcr.io")
            ]
        );
        assert_eq!(
            look(&text, "docker.io/x"),
            [helper("pass", "https://index.docker.io/v1/")]
        );
    }

    #[test]
    fn identity_token_and_empty_entries() {
        let text =
            r#"{"auths": {"a.io": {"identitytoken": "T", "auth": "PHRva2VuPjo="}, "b.io": {}}}"#;
        assert_eq!(
            look(text, "a.io/x"),
            [Answer::Known(Credentials::IdentityToken("T".into()))]
        );
        assert_eq!(look(text, "b.io/x"), []);
    }

    #[test]
    fn no_message_and_no_debug_output_holds_a_secret() {
        let e = AuthFile::parse(br#"{"auths": {"a.io": {"auth": ["SECRET"]}}}"#).unwrap_err();
        assert!(!e.to_string().contains("SECRET"), "{e}");
        let c = Credentials::parse("me:SECRET").unwrap();
        assert!(!format!("{c:?}").contains("SECRET"));
        let bad = AuthFile::parse(br#"{"auths": {"a.io": {"auth": "SECRET!"}}}"#).unwrap();
        let e = bad
            .look_up(&Reference::parse("a.io/x").unwrap())
            .unwrap_err();
        assert!(!e.to_string().contains("SECRET"));
        assert!(!format!("{bad:?}").contains("SECRET"));
    }

    #[test]
    fn helper_names_cannot_be_paths() {
        assert!(ask_helper("../../bin/sh", "x").is_err());
    }
}
