//! `registries.conf`, version 2 (containers-registries.conf(5)): which registries a short name may mean, and where and how a
//! registry is reached.
//!
//! Read, in this order, later files winning: `~/.config/containers/registries.conf` or else
//! `/etc/containers/registries.conf`, then `registries.conf.d/*.conf` beside it (and the user's beside the system's);
//! `CONTAINERS_REGISTRIES_CONF` names one file instead of all of them. Aliases that podman
//! recorded (`~/.cache/containers/short-name-aliases.conf`) count too. We never ask: with several unqualified-search registries
//! they are tried in order, except under `short-name-mode = "enforcing"`, where an ambiguous name is an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::digest::quoted;
use super::reference::{DOCKER_IO, Name, Reference, ShortName};
use crate::error::{Fault, Result, ResultExt, failed, usage};

const CONF_LIMIT: u64 = 4 << 20;
const CONF_VARIABLE: &str = "CONTAINERS_REGISTRIES_CONF";

/// The configuration, merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries {
    search: Option<Vec<String>>,
    enforcing: bool,
    registries: BTreeMap<String, Registry>,
    aliases: BTreeMap<String, String>,
    /// Where unqualified-search-registries was read, for messages.
    search_origin: Option<PathBuf>,
    /// `credential-helpers`, if set.
    pub credential_helpers: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Registry {
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
    mirror_by_digest_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    digests: bool,
    tags: bool,
}

/// A place where a reference can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What to ask there.
    pub reference: Reference,
    /// Certificates need not be valid and plain HTTP is allowed.
    pub insecure: bool,
    /// A mirror: its failure leads to the next endpoint.
    pub mirror: bool,
}

/// What a short name may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// In the order in which they are tried.
    pub references: Vec<Reference>,
    /// Why these: for a `Resolved …` line.
    pub because: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConf {
    #[serde(rename = "unqualified-search-registries")]
    search: Option<Vec<String>>,
    #[serde(rename = "short-name-mode")]
    mode: Option<String>,
    #[serde(rename = "credential-helpers")]
    credential_helpers: Option<Vec<String>>,
    registry: Vec<RawRegistry>,
    aliases: BTreeMap<String, String>,
    registries: Option<toml::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRegistry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    #[serde(rename = "mirror-by-digest-only")]
    mirror_by_digest_only: bool,
    mirror: Vec<RawMirror>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawMirror {
    location: String,
    insecure: bool,
    #[serde(rename = "pull-from-mirror")]
    pull: String,
}

impl Registries {
    /// Reads the files of the calling user.
    ///
    /// # Errors
    /// A file cannot be read or is malformed; the message names it.
    pub fn load() -> Result<Registries> {
        let mut conf = Registries::default();
        if let Some(file) = std::env::var_os(CONF_VARIABLE).filter(|v| !v.is_empty()) {
            let file = PathBuf::from(file);
            if !file.exists() {
                let file = file.display();
                return Err(usage(format!(
                    "{CONF_VARIABLE} names {file}, which does not exist"
                ))
                .into());
            }
            conf.read(&file)?;
            return Ok(conf);
        }
        for file in conf_files() {
            conf.read(&file)?;
        }
        Ok(conf)
    }

    fn read(&mut self, file: &Path) -> Result<()> {
        let text = match super::read_small(file, CONF_LIMIT) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(()),
            Err(e) => return Err(e).fault(|| failed(format!("reading {}", file.display()))),
        };
        let text = String::from_utf8_lossy(&text);
        self.merge(&text, file)
            .fault(|| usage(format!("reading {}", file.display())))
    }

    /// Adds the text of one more file, which wins over what was read before.
    ///
    /// # Errors
    /// Not TOML, version 1, or a bad value.
    pub fn merge(&mut self, text: &str, origin: &Path) -> Result<(), Fault> {
        let raw: RawConf = toml::from_str(text)
            .map_err(|e| usage(e.message().to_owned() + &line_of(text, e.span())))?;
        if raw.registries.is_some() {
            return Err(usage("it is in version 1 of the format").hint(
                "Write [registries.search] registries = [\"h\"] as unqualified-search-registries = [\"h\"], and each \
                 insecure registry as [[registry]] location = \"h\" insecure = true.",
            ));
        }
        if let Some(search) = raw.search {
            self.search = Some(search);
            self.search_origin = Some(origin.to_owned());
        }
        match raw.mode.as_deref() {
            None => {}
            Some("enforcing") => self.enforcing = true,
            Some("permissive" | "disabled") => self.enforcing = false,
            Some(other) => {
                return Err(usage(format!(
                    "short-name-mode {} is none of enforcing, permissive, disabled",
                    quoted(other)
                )));
            }
        }
        if raw.credential_helpers.is_some() {
            self.credential_helpers = raw.credential_helpers;
        }
        for registry in raw.registry {
            let (prefix, registry) = registry.check()?;
            self.registries.insert(prefix, registry);
        }
        self.aliases.extend(raw.aliases);
        Ok(())
    }

    /// The full references that `name` may mean, in the order in which they are tried.
    ///
    /// # Errors
    /// A registry or alias in the configuration is malformed, or the name is ambiguous under `enforcing`.
    pub fn candidates(&self, name: &Name) -> Result<Candidates> {
        let short = match name {
            Name::Full(reference) => {
                return Ok(Candidates {
                    references: vec![reference.clone()],
                    because: String::new(),
                });
            }
            Name::Short(short) => short,
        };
        if let Some(target) = self.aliases.get(short.path()).filter(|t| !t.is_empty()) {
            let reference = short
                .aliased(target)
                .fault(|| usage(format!("the alias of {short} in registries.conf")))?;
            return Ok(Candidates {
                references: vec![reference],
                because: format!("Resolved {:?} as an alias", short.path()),
            });
        }
        self.searched(short)
    }

    fn searched(&self, short: &ShortName) -> Result<Candidates> {
        let default = [DOCKER_IO.to_owned()];
        let (search, because) = match (&self.search, &self.search_origin) {
            (Some(search), Some(origin)) if !search.is_empty() => (
                search.as_slice(),
                format!(
                    "Resolving {:?} using unqualified-search registries ({})",
                    short.path(),
                    origin.display()
                ),
            ),
            _ => (default.as_slice(), String::new()),
        };
        if self.enforcing && search.len() > 1 {
            return Err(usage(format!("{short} may mean an image of {}", search.join(", ")))
                .hint("Write the registry before it; short-name-mode = \"enforcing\" in registries.conf asks for that.")
                .into());
        }
        let references = search
            .iter()
            .map(|r| {
                short
                    .at(r)
                    .fault(|| usage("unqualified-search-registries in registries.conf"))
            })
            .collect::<Result<_>>()?;
        Ok(Candidates {
            references,
            because,
        })
    }

    /// Where to fetch `reference`: mirrors first.
    ///
    /// # Errors
    /// The registry is blocked, or a location makes no valid name.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let text = reference.to_string();
        let best = self
            .registries
            .iter()
            .filter_map(|(prefix, r)| Some((matching(&text, prefix)?, prefix, r)))
            .max_by_key(|(_, prefix, _)| prefix.len());
        let Some((matched, prefix, registry)) = best else {
            return Ok(vec![Endpoint {
                reference: reference.clone(),
                insecure: false,
                mirror: false,
            }]);
        };
        if registry.blocked {
            return Err(failed(format!("registry {prefix} is blocked in registries.conf")).into());
        }
        let rewrite = |location: &str| -> Result<Reference> {
            if location.is_empty() {
                return Ok(reference.clone());
            }
            let rest = text.get(matched..).unwrap_or("");
            Reference::parse_with_host(&format!("{location}{rest}"))
                .fault(|| usage(format!("location {} in registries.conf", quoted(location))))
        };
        let by_digest = reference.digest().is_some();
        let mut endpoints = Vec::new();
        for mirror in &registry.mirrors {
            let wanted = if by_digest {
                mirror.digests
            } else {
                mirror.tags && !registry.mirror_by_digest_only
            };
            if wanted {
                endpoints.push(Endpoint {
                    reference: rewrite(&mirror.location)?,
                    insecure: mirror.insecure,
                    mirror: true,
                });
            }
        }
        endpoints.push(Endpoint {
            reference: rewrite(&registry.location)?,
            insecure: registry.insecure,
            mirror: false,
        });
        Ok(endpoints)
    }
}

impl RawRegistry {
    fn check(self) -> Result<(String, Registry), Fault> {
        let trim = |s: &str| s.trim_end_matches('/').to_owned();
        for text in [&self.prefix, &self.location] {
            if text.contains("://") {
                return Err(usage(format!("{} must not have a scheme", quoted(text)))
                    .hint("Plain HTTP is allowed by insecure = true."));
            }
        }
        let prefix = if self.prefix.is_empty() {
            trim(&self.location)
        } else {
            trim(&self.prefix)
        };
        if prefix.is_empty() {
            return Err(usage("a [[registry]] has neither location nor prefix"));
        }
        let wildcard = prefix.starts_with("*.");
        if self.location.is_empty()
            && !wildcard
            && !self.prefix.is_empty()
            && !self.blocked
            && self.mirror.is_empty()
            && !self.insecure
        {
            return Err(usage(format!("[[registry]] {prefix} has no location")));
        }
        let mirrors = self
            .mirror
            .into_iter()
            .map(|m| {
                if m.location.is_empty() {
                    return Err(usage(format!("a mirror of {prefix} has no location")));
                }
                let (digests, tags) = match m.pull.as_str() {
                    "" | "all" => (true, true),
                    "digest-only" => (true, false),
                    "tag-only" => (false, true),
                    other => {
                        return Err(usage(format!(
                            "pull-from-mirror {} is none of all, digest-only, tag-only",
                            quoted(other)
                        )));
                    }
                };
                Ok(Mirror {
                    location: trim(&m.location),
                    insecure: m.insecure,
                    digests,
                    tags,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok((
            prefix,
            Registry {
                location: trim(&self.location),
                insecure: self.insecure,
                blocked: self.blocked,
                mirrors,
                mirror_by_digest_only: self.mirror_by_digest_only,
            },
        ))
    }
}

/// How many bytes of `reference` the prefix covers, if it does: whole components, or `*.domain`.
fn matching(reference: &str, prefix: &str) -> Option<usize> {
    if let Some(suffix) = prefix.strip_prefix('*') {
        // Only host names are matched by a wildcard; a path may follow it.
        let (host_suffix, path) = suffix
            .split_once('/')
            .map_or((suffix, None), |(h, p)| (h, Some(p)));
        let host_end = reference.find('/')?;
        let host = reference.get(..host_end)?;
        if !host.ends_with(host_suffix) || host.len() == host_suffix.len() {
            return None;
        }
        return match path {
            None => Some(host_end),
            Some(path) => {
                let rest = reference.get(host_end + 1..)?;
                component_prefix(rest, path).map(|n| host_end + 1 + n)
            }
        };
    }
    // `example.com` is not `example.com:5000`: a port belongs to the host.
    if !prefix.contains('/') && !reference.starts_with(&format!("{prefix}/")) {
        return None;
    }
    component_prefix(reference, prefix)
}

fn component_prefix(text: &str, prefix: &str) -> Option<usize> {
    let rest = text.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    span.and_then(|s| text.get(..s.start))
        .map(|before| format!(" (line {})", before.matches('\n').count() + 1))
        .unwrap_or_default()
}

fn conf_files() -> Vec<PathBuf> {
    let system = PathBuf::from("/etc/containers");
    let base = directories::BaseDirs::new();
    let user = base.as_ref().map(|b| b.config_dir().join("containers"));
    let mut files = Vec::new();
    match &user {
        Some(user) if user.join("registries.conf").exists() => {
            files.push(user.join("registries.conf"));
        }
        _ => {
            files.push(system.join("registries.conf"));
            files.extend(drop_ins(&system));
        }
    }
    if let Some(user) = &user {
        files.extend(drop_ins(user));
    }
    if let Some(base) = &base {
        files.push(base.cache_dir().join("containers/short-name-aliases.conf"));
    }
    files
}

fn drop_ins(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir.join("registries.conf.d")) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "conf"))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Registries {
        let mut conf = Registries::default();
        conf.merge(text, Path::new("/x.conf")).unwrap();
        conf
    }

    fn names(conf: &Registries, name: &str) -> Vec<String> {
        let c = conf.candidates(&Name::parse(name).unwrap()).unwrap();
        c.references.iter().map(Reference::to_string).collect()
    }

    fn endpoints(conf: &Registries, name: &str) -> Vec<(String, bool)> {
        let all = conf.endpoints(&Reference::parse(name).unwrap()).unwrap();
        all.iter()
            .map(|e| (e.reference.to_string(), e.insecure))
            .collect()
    }

    #[test]
    fn docker_io_answers_for_short_names_only_when_nothing_is_configured() {
        assert_eq!(
            names(&conf(""), "alpine"),
            ["docker.io/library/alpine:latest"]
        );
        let two = conf(r#"unqualified-search-registries = ["localhost:5000", "quay.io"]"#);
        assert_eq!(
            names(&two, "alpine:3"),
            ["localhost:5000/alpine:3", "quay.io/alpine:3"]
        );
        assert_eq!(names(&two, "h.io/alpine"), ["h.io/alpine:latest"]);
    }

    #[test]
    fn alias_wins_and_an_empty_one_is_off() {
        let mut c = conf(
            "unqualified-search-registries = [\"a.io\"]\n[aliases]\n\"fedora\" = \"registry.fedoraproject.org/fedora\"\n",
        );
        assert_eq!(
            names(&c, "fedora:40"),
            ["registry.fedoraproject.org/fedora:40"]
        );
        c.merge("[aliases]\nfedora = \"\"", Path::new("/y"))
            .unwrap();
        assert_eq!(names(&c, "fedora"), ["a.io/fedora:latest"]);
    }

    #[test]
    fn enforcing_refuses_an_ambiguous_short_name() {
        let c = conf(
            "short-name-mode = \"enforcing\"\nunqualified-search-registries = [\"a.io\", \"b.io\"]",
        );
        assert!(c.candidates(&Name::parse("x").unwrap()).is_err());
    }

    #[test]
    fn longest_prefix_rewrites_and_mirrors_come_first() {
        let c = conf(
            r#"
[[registry]]
prefix = "docker.io"
location = "mirror.gcr.io"
[[registry]]
prefix = "docker.io/library"
location = "in.house:5000/hub"
insecure = true
[[registry.mirror]]
location = "m1:1/x"
insecure = true
[[registry.mirror]]
location = "m2"
pull-from-mirror = "digest-only"
"#,
        );
        assert_eq!(
            endpoints(&c, "docker.io/alpine:3"),
            [
                ("m1:1/x/alpine:3".to_owned(), true),
                ("in.house:5000/hub/alpine:3".to_owned(), true)
            ]
        );
        assert_eq!(
            endpoints(&c, "docker.io/a/b"),
            [("mirror.gcr.io/a/b:latest".to_owned(), false)]
        );
        let by_digest = format!("docker.io/alpine@sha256:{}", "a".repeat(64));
        assert_eq!(endpoints(&c, &by_digest).len(), 3);
        assert_eq!(
            endpoints(&c, "docker.io.evil.com/a"),
            [("docker.io.evil.com/a:latest".to_owned(), false)]
        );
    }

    #[test]
    fn wildcards_match_subdomains_only() {
        let c = conf(
            "[[registry]]\nprefix = \"*.corp.io\"\ninsecure = true\n[[registry]]\nprefix=\"*.bad.io\"\nblocked=true",
        );
        assert_eq!(
            endpoints(&c, "a.corp.io/x"),
            [("a.corp.io/x:latest".to_owned(), true)]
        );
        assert_eq!(
            endpoints(&c, "corp.io/x"),
            [("corp.io/x:latest".to_owned(), false)]
        );
        let e = c
            .endpoints(&Reference::parse("a.bad.io/x").unwrap())
            .unwrap_err();
        assert!(e.to_string().contains("blocked"));
    }

    #[test]
    fn host_entry_does_not_cover_its_ports() {
        let c = conf("[[registry]]\nlocation = \"example.com\"\ninsecure = true");
        assert!(!endpoints(&c, "example.com:5000/x")[0].1);
        assert!(endpoints(&c, "example.com/x")[0].1);
    }

    #[test]
    fn malformed_configuration_is_named() {
        let mut c = Registries::default();
        for (text, want) in [
            ("x = [", "line 1"),
            ("[registries.search]\nregistries = [\"a\"]", "version 1"),
            ("[[registry]]\ninsecure = true", "neither location"),
            ("[[registry]]\nlocation = \"http://a\"", "scheme"),
            ("short-name-mode = \"x\"", "enforcing"),
            (
                "[[registry]]\nlocation=\"a\"\n[[registry.mirror]]\nlocation=\"b\"\npull-from-mirror=\"x\"",
                "digest-only",
            ),
        ] {
            let e = c.merge(text, Path::new("/x")).unwrap_err();
            assert!(e.to_string().contains(want), "{text}: {e}");
        }
    }
}
