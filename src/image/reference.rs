//! Image names, as docker writes them: `[host[:port]/]path[:tag][@digest]`.
//!
//! The first component is a host if it has a dot or a colon, is `localhost`, or has an upper-case letter; otherwise the name is
//! a *short name*, whose registry `registries.conf` decides ([`super::registries`]). `docker.io/x` means `docker.io/library/x`;
//! no tag and no digest means `:latest`. The grammar is that of the distribution project's `reference` package.

use std::fmt;

use super::digest::{Digest, is_lower_hex, quoted};
use crate::error::{Fault, usage};

/// Docker's own registry, under the name everybody writes.
pub const DOCKER_IO: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;

/// A full name: registry, repository, tag or digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A name as a user writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// With its registry.
    Full(Reference),
    /// Without: `alpine`, `library/alpine:3`.
    Short(ShortName),
}

/// A name without a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortName {
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// Kind `Usage`, saying what is wrong and how it is written.
    pub fn parse(text: &str) -> Result<Name, Fault> {
        let text = text.strip_prefix("docker://").unwrap_or(text);
        let parts = split(text)?;
        let Some(domain) = parts.domain else {
            check_path(text, parts.path)?;
            check_length(text, parts.path.len())?;
            if parts.tag.is_none() && parts.path.len() == 64 && is_lower_hex(parts.path) {
                return Err(invalid(text, "64 hex digits are an image id, not a name"));
            }
            return Ok(Name::Short(ShortName {
                path: parts.path.to_owned(),
                tag: parts.tag,
                digest: parts.digest,
            }));
        };
        check_domain(text, domain)?;
        check_path(text, parts.path)?;
        check_length(text, domain.len() + 1 + parts.path.len())?;
        Ok(Name::Full(Reference::assemble(
            domain,
            parts.path,
            parts.tag,
            parts.digest,
        )))
    }
}

impl ShortName {
    /// The full name at a registry (`quay.io`, `localhost:5000`, or with a path below it).
    ///
    /// # Errors
    /// `registry` is not a host.
    pub fn at(&self, registry: &str) -> Result<Reference, Fault> {
        let (domain, below) = registry.split_once('/').unwrap_or((registry, ""));
        check_domain(registry, domain)?;
        let path = if below.is_empty() {
            self.path.clone()
        } else {
            check_path(registry, below)?;
            format!("{below}/{}", self.path)
        };
        check_length(registry, domain.len() + 1 + path.len())?;
        Ok(Reference::assemble(
            domain,
            &path,
            self.tag.clone(),
            self.digest.clone(),
        ))
    }

    /// The name without tag and digest, by which aliases are found.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The reference an alias stands for, with the tag or digest of this name.
    ///
    /// # Errors
    /// `target` is not a full name, or has a tag of its own.
    pub fn aliased(&self, target: &str) -> Result<Reference, Fault> {
        match Name::parse(target)? {
            Name::Full(r)
                if !target.contains('@')
                    && !target.rsplit('/').next().unwrap_or("").contains(':') =>
            {
                Ok(Reference::assemble(
                    &r.domain,
                    &r.path,
                    self.tag.clone(),
                    self.digest.clone(),
                ))
            }
            _ => Err(invalid(
                target,
                "an alias is HOST/PATH without tag or digest",
            )),
        }
    }

    /// Whether a full name is this one at some registry.
    #[must_use]
    pub fn is_short_for(&self, full: &Reference) -> bool {
        let path = full.path.strip_suffix(self.path.as_str());
        let same_path = path.is_some_and(|p| p.is_empty() || p.ends_with('/'));
        let tag = match (&self.tag, &self.digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag.as_deref(),
        };
        same_path
            && match &self.digest {
                Some(d) => full.digest.as_ref() == Some(d),
                None => full.tag.as_deref() == tag && full.digest.is_none(),
            }
    }

    /// The digest, if the name has one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl fmt::Display for ShortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        write_suffix(f, self.tag.as_deref(), self.digest.as_ref())
    }
}

impl Reference {
    fn assemble(
        domain: &str,
        path: &str,
        tag: Option<String>,
        digest: Option<Digest>,
    ) -> Reference {
        let domain = match domain {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_IO,
            d => d,
        };
        let path = if domain == DOCKER_IO && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        // A digest says everything; docker and podman drop the tag beside it.
        let tag = match (&digest, tag) {
            (Some(_), _) => None,
            (None, tag) => Some(tag.unwrap_or_else(|| DEFAULT_TAG.to_owned())),
        };
        Reference {
            domain: domain.to_owned(),
            path,
            tag,
            digest,
        }
    }

    /// Parses a name that must have its registry.
    ///
    /// # Errors
    /// As [`Name::parse`], and for a short name.
    pub fn parse(text: &str) -> Result<Reference, Fault> {
        match Name::parse(text)? {
            Name::Full(r) => Ok(r),
            Name::Short(_) => Err(invalid(text, "it has no registry")),
        }
    }

    /// Parses a name whose first component is a host even where it does not look like one (`mirror/library/alpine`).
    ///
    /// # Errors
    /// As [`Name::parse`].
    pub fn parse_with_host(text: &str) -> Result<Reference, Fault> {
        let parts = split(text)?;
        let (domain, path) = match parts.domain {
            Some(domain) => (domain, parts.path),
            None => parts
                .path
                .split_once('/')
                .ok_or_else(|| invalid(text, "it has no registry"))?,
        };
        check_domain(text, domain)?;
        check_path(text, path)?;
        check_length(text, domain.len() + 1 + path.len())?;
        Ok(Reference::assemble(domain, path, parts.tag, parts.digest))
    }

    /// Registry: host and port as written.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository within the registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tag; `None` beside a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest, if the name has one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `domain/path`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same repository, by digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        write_suffix(f, self.tag.as_deref(), self.digest.as_ref())
    }
}

fn write_suffix(
    f: &mut fmt::Formatter<'_>,
    tag: Option<&str>,
    digest: Option<&Digest>,
) -> fmt::Result {
    if let Some(tag) = tag {
        write!(f, ":{tag}")?;
    }
    if let Some(digest) = digest {
        write!(f, "@{digest}")?;
    }
    Ok(())
}

struct Parts<'a> {
    domain: Option<&'a str>,
    path: &'a str,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Cuts a name into its parts; tag and digest are checked, host and path not yet.
fn split(text: &str) -> Result<Parts<'_>, Fault> {
    if text.is_empty() {
        return Err(invalid(text, "it is empty"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (
            rest,
            Some(
                digest
                    .parse::<Digest>()
                    .map_err(|e| invalid(text, &e.to_string()))?,
            ),
        ),
        None => (text, None),
    };
    let after_slash = rest.rfind('/').map_or(0, |i| i + 1);
    let (rest, tag) = match rest.get(after_slash..).and_then(|last| last.find(':')) {
        Some(colon) => {
            let (name, tag) = rest.split_at(after_slash + colon);
            let tag = tag.trim_start_matches(':');
            check_tag(text, tag)?;
            (name, Some(tag.to_owned()))
        }
        None => (rest, None),
    };
    let (domain, path) = match rest.split_once('/') {
        Some((first, path)) if is_host(first) => (Some(first), path),
        _ => (None, rest),
    };
    Ok(Parts {
        domain,
        path,
        tag,
        digest,
    })
}

fn is_host(first: &str) -> bool {
    first.contains(['.', ':', '['])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_domain(text: &str, domain: &str) -> Result<(), Fault> {
    let bad = || invalid(text, &format!("{} is not a host[:port]", quoted(domain)));
    let (host, port) = if let Some(v6) = domain.strip_prefix('[') {
        let (address, rest) = v6.split_once(']').ok_or_else(bad)?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(bad());
        }
        match rest {
            "" => (None, None),
            _ => (None, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
        }
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        }
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let host_ok = host.is_none_or(|h| h.split('.').all(label));
    let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|n| n > 0) && !p.starts_with('+'));
    if host_ok && port_ok {
        Ok(())
    } else {
        Err(bad())
    }
}

fn check_path(text: &str, path: &str) -> Result<(), Fault> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        let lower = quoted(&text.replace(path, &path.to_ascii_lowercase()));
        return Err(invalid(
            text,
            &format!("a repository name is lower case, as in {lower}"),
        ));
    }
    match path.split('/').find(|c| !is_component(c)) {
        None => Ok(()),
        Some("") => Err(invalid(text, "a part of the name between slashes is empty")),
        Some(c) => Err(invalid(
            text,
            &format!(
                "{} is not made of a-z and 0-9 with single '.', '_', '__' or dashes between",
                quoted(c)
            ),
        )),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut i = 0;
    loop {
        let start = i;
        while bytes.get(i).copied().is_some_and(alnum) {
            i += 1;
        }
        if i == start {
            return false;
        }
        if i == bytes.len() {
            return true;
        }
        let start = i;
        while bytes.get(i).is_some_and(|b| !alnum(*b)) {
            i += 1;
        }
        let separator = text.get(start..i).unwrap_or("");
        if !matches!(separator, "." | "_" | "__") && !separator.bytes().all(|b| b == b'-') {
            return false;
        }
    }
}

fn check_tag(text: &str, tag: &str) -> Result<(), Fault> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first_ok = tag
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if first_ok && tag.len() <= TAG_LIMIT && tag.bytes().all(ok) {
        return Ok(());
    }
    Err(invalid(
        text,
        "a tag has 1 to 128 letters, digits, '_', '.' and '-', and starts with a letter, a digit or '_'",
    ))
}

fn check_length(text: &str, len: usize) -> Result<(), Fault> {
    if len > NAME_LIMIT {
        return Err(invalid(
            text,
            "a name has at most 255 characters before its tag",
        ));
    }
    Ok(())
}

fn invalid(text: &str, why: &str) -> Fault {
    usage(format!("{} is not an image name: {why}", quoted(text)))
        .hint("An image name is written [HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST].")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        match Name::parse(text).unwrap() {
            Name::Full(r) => r.to_string(),
            Name::Short(s) => format!("short {s}"),
        }
    }

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, want) in [
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("docker://docker.io/alpine:3", "docker.io/library/alpine:3"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:T_1.x-", "localhost:5000/a/b:T_1.x-"),
            ("127.0.0.1:5000/alpine", "127.0.0.1:5000/alpine:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("Host/a", "Host/a:latest"),
            ("quay.io/a--b/c__d/e.f", "quay.io/a--b/c__d/e.f:latest"),
            ("alpine", "short alpine"),
            ("library/alpine:3.2", "short library/alpine:3.2"),
        ] {
            assert_eq!(full(text), want, "{text}");
        }
        assert_eq!(
            full(&format!("quay.io/a:tag@{DIGEST}")),
            format!("quay.io/a@{DIGEST}")
        );
    }

    #[test]
    fn a_bad_name_says_what_is_wrong_and_how_it_is_written() {
        for (text, want) in [
            ("", "empty"),
            ("Alpine", "lower case"),
            ("docker.io/Foo", "lower case"),
            ("a//b", "between slashes"),
            ("/a", "between slashes"),
            ("a/", "between slashes"),
            ("a..b", "single"),
            ("-a", "single"),
            ("a___b", "single"),
            ("a:", "tag"),
            ("a:-x", "tag"),
            ("a:b:c", "tag"),
            ("host:99999/a", "host[:port]"),
            ("host:/a", "host[:port]"),
            ("-h.io/a", "host[:port]"),
            ("h..io/a", "host[:port]"),
            ("[::g]:1/a", "host[:port]"),
            ("a@sha256:../../x", "hex digits"),
            ("a@md5:00", "sha512"),
            ("quay.io/../../etc", "single"),
            (&"a".repeat(256), "255"),
            (&"a".repeat(64), "image id"),
            ("a b", "single"),
        ] {
            let fault = Name::parse(text).unwrap_err();
            let report = crate::error::report(&anyhow::Error::new(fault));
            assert!(report.contains(want), "{text}: {report}");
            assert!(report.contains("[HOST[:PORT]/]NAME"), "{text}");
        }
        let long = format!("a:{}", "t".repeat(129));
        assert!(Name::parse(&long).is_err());
    }

    #[test]
    fn short_names_become_full_at_a_registry() {
        let Name::Short(short) = Name::parse("alpine:3").unwrap() else {
            panic!("short")
        };
        assert_eq!(
            short.at("docker.io").unwrap().to_string(),
            "docker.io/library/alpine:3"
        );
        assert_eq!(
            short.at("localhost:5000").unwrap().to_string(),
            "localhost:5000/alpine:3"
        );
        assert_eq!(
            short.at("r.io/mirror").unwrap().to_string(),
            "r.io/mirror/alpine:3"
        );
        assert!(short.at("not a host").is_err());
        assert_eq!(
            short.aliased("quay.io/x/alpine").unwrap().to_string(),
            "quay.io/x/alpine:3"
        );
        assert!(short.aliased("quay.io/x/alpine:9").is_err());
    }

    #[test]
    fn a_short_name_fits_whole_components_only() {
        let Name::Short(short) = Name::parse("alpine").unwrap() else {
            panic!("short")
        };
        let fits = |t: &str| short.is_short_for(&Reference::parse(t).unwrap());
        assert!(fits("docker.io/alpine"));
        assert!(fits("localhost:5000/alpine:latest"));
        assert!(!fits("localhost:5000/myalpine"));
        assert!(!fits("localhost:5000/alpine:3"));
        assert!(!fits(&format!("localhost:5000/alpine@{DIGEST}")));
    }
}
