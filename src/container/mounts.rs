//! Reading what the user asks to be mounted: `-v`, `--mount`, `--tmpfs`. Pure functions over text.
//!
//! The forms are podman's and docker's. A source that contains a `/` or begins with `.` or `~` is a host
//! path, anything else names a volume. Options of either engine that mean nothing here (SELinux
//! relabelling without SELinux, macOS consistency) are accepted and ignored; those that would do
//! something we refuse say why.

use serde::{Deserialize, Serialize};

use crate::error::{Fault, Kind, Result, usage};

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A host file or directory, as typed.
    Bind(String),
    /// A named volume; `None`: a new one of its own.
    Volume(Option<String>),
    /// Memory.
    Tmpfs,
}

/// A mount the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// Where from.
    pub source: Source,
    /// Absolute, normalised path inside.
    pub target: String,
    /// Mount options as in the runtime spec.
    pub options: Vec<String>,
    /// Fill an empty volume (or tmpfs) with what the image has at the target.
    pub copy_up: bool,
}

impl MountRequest {
    fn new(source: Source, target: &str) -> Result<MountRequest> {
        Ok(MountRequest {
            source,
            target: normalise(target)?,
            options: Vec::new(),
            copy_up: true,
        })
    }

    /// Mounted read-only.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.options.iter().any(|o| o == "ro")
    }

    /// Refuses `dev` after `nodev` and the like, in podman's words.
    fn check_opposite(&self, option: &str) -> Result<()> {
        let [one, other] = match OPPOSITES.iter().find(|pair| pair.contains(&option)) {
            Some(pair) => *pair,
            None => return Ok(()),
        };
        let opposite = if option == one { other } else { one };
        if !self.options.iter().any(|o| o == opposite) {
            return Ok(());
        }
        Err(usage(format!(
            "invalid options \"{opposite}, {option}\", can only specify 1 '{one}' or '{other}' option"
        ))
        .into())
    }

    fn option(&mut self, option: &str, whole: &str) -> Result<()> {
        match option {
            "" | "z" | "Z" | "consistent" | "cached" | "delegated" | "noidmap" => {}
            "nocopy" | "notmpcopyup" => self.copy_up = false,
            "copy" | "tmpcopyup" => self.copy_up = true,
            "U" => return Err(chown_refused(whole).into()),
            "O" => {
                return Err(refused(whole, "overlay volumes (O) are not supported yet")
                    .hint("mount it read-only with :ro, or copy what has to change")
                    .into());
            }
            "ro" | "rw" | "exec" | "noexec" | "dev" | "nodev" | "suid" | "nosuid" | "bind"
            | "rbind" | "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
            | "unbindable" | "runbindable" | "noatime" | "relatime" | "strictatime"
            | "nodiratime" | "sync" | "rro" => {
                self.check_opposite(option)?;
                self.options.push(option.to_owned());
            }
            _ if self.source == Source::Tmpfs && tmpfs_option(option) => {
                self.options.push(option.to_owned());
            }
            other => {
                return Err(refused(whole, &format!("unknown mount option {other:?}")).into());
            }
        }
        Ok(())
    }
}

/// Options of which a mount has one.
const OPPOSITES: [[&str; 2]; 4] = [
    ["nodev", "dev"],
    ["nosuid", "suid"],
    ["noexec", "exec"],
    ["rw", "ro"],
];

fn tmpfs_option(option: &str) -> bool {
    let (key, value) = option.split_once('=').unwrap_or((option, ""));
    let number = |v: &str| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit());
    match key {
        "mode" => !value.is_empty() && value.bytes().all(|b| (b'0'..=b'7').contains(&b)),
        "size" | "nr_blocks" | "nr_inodes" => {
            number(value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', '%', 'b']))
        }
        "uid" | "gid" => number(value),
        _ => false,
    }
}

fn refused(whole: &str, why: &str) -> Fault {
    Fault::new(Kind::Usage, format!("invalid mount {whole:?}: {why}"))
}

fn chown_refused(whole: &str) -> Fault {
    refused(
        whole,
        "rless never changes the owners of your files, which U asks for",
    )
    .hint("--userns=keep-id:uid=N,gid=N makes your files belong to the container's user N without touching them")
}

/// `-v [SOURCE:]TARGET[:OPTIONS]`.
///
/// # Errors
/// Malformed, a relative target, an unknown option.
pub fn volume(text: &str) -> Result<MountRequest> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (Source::Volume(None), *target, ""),
        [source, target] => (source_of(source, text)?, *target, ""),
        [source, target, options] => (source_of(source, text)?, *target, *options),
        _ => {
            return Err(refused(text, "expected [SOURCE:]TARGET[:OPTIONS]").into());
        }
    };
    let mut mount =
        MountRequest::new(source, target).map_err(|e| e.context(format!("volume {text:?}")))?;
    for option in options.split(',') {
        mount.option(option, text)?;
    }
    Ok(mount)
}

fn source_of(source: &str, whole: &str) -> Result<Source> {
    if source.is_empty() {
        return Err(refused(whole, "the source is empty").into());
    }
    if source.contains('/') || source.starts_with(['.', '~']) {
        return Ok(Source::Bind(source.to_owned()));
    }
    super::names::check(source)?;
    Ok(Source::Volume(Some(source.to_owned())))
}

/// `--tmpfs TARGET[:OPTIONS]`.
///
/// # Errors
/// As [`volume`].
pub fn tmpfs(text: &str) -> Result<MountRequest> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount = MountRequest::new(Source::Tmpfs, target)?;
    for option in options.split(',') {
        mount.option(option, text)?;
    }
    Ok(mount)
}

/// `--mount type=bind|volume|tmpfs,source=…,target=…,…`.
///
/// # Errors
/// As [`volume`]; a missing target or source.
pub fn mount(text: &str) -> Result<MountRequest> {
    let fields = csv(text);
    let value = |keys: &[&str]| {
        let pairs = fields.iter().filter_map(|f| f.split_once('='));
        pairs
            .filter(|(k, _)| keys.contains(k))
            .map(|(_, v)| v.to_owned())
            .next_back()
    };
    let target = value(&["target", "destination", "dst"])
        .ok_or_else(|| refused(text, "it needs target=PATH"))?;
    let source = value(&["source", "src"]).filter(|s| !s.is_empty());
    let source = match (value(&["type"]).as_deref().unwrap_or("volume"), source) {
        ("bind", Some(path)) => Source::Bind(path),
        ("bind", None) => return Err(refused(text, "a bind mount needs source=PATH").into()),
        ("volume", name) => {
            if let Some(name) = &name {
                super::names::check(name)?;
            }
            Source::Volume(name)
        }
        ("tmpfs", None) => Source::Tmpfs,
        ("tmpfs", Some(_)) => return Err(refused(text, "a tmpfs has no source").into()),
        (other, _) => {
            let why = format!("type {other:?} is not one of bind, volume, tmpfs");
            return Err(refused(text, &why).into());
        }
    };
    let mut request = MountRequest::new(source, &target)?;
    for field in &fields {
        mount_field(&mut request, field, text)?;
    }
    Ok(request)
}

fn mount_field(request: &mut MountRequest, field: &str, text: &str) -> Result<()> {
    let (key, value) = match field.split_once('=') {
        Some((k, v)) => (k, Some(v)),
        None => (field, None),
    };
    let truth = || match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(refused(
            text,
            &format!("{key}={other} is neither true nor false"),
        )),
    };
    let given = value.unwrap_or_default();
    match key {
        "type"
        | "target"
        | "destination"
        | "dst"
        | "source"
        | "src"
        | "consistency"
        | "relabel"
        | "bind-nonrecursive-compat" => Ok(()),
        "readonly" | "ro" => request.option(if truth()? { "ro" } else { "rw" }, text),
        "rw" => request.option(if truth()? { "rw" } else { "ro" }, text),
        "bind-propagation" => request.option(given, text),
        "bind-nonrecursive" => request.option(if truth()? { "bind" } else { "rbind" }, text),
        "volume-nocopy" => request.option(if truth()? { "nocopy" } else { "copy" }, text),
        "tmpfs-size" => request.option(&format!("size={given}"), text),
        "tmpfs-mode" => request.option(&format!("mode={given}"), text),
        "U" | "chown" if truth()? => Err(chown_refused(text).into()),
        "U" | "chown" => Ok(()),
        _ => request.option(field, text),
    }
}

/// Fields of one CSV line (RFC 4180 quoting, as docker reads `--mount`).
fn csv(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(field) = fields.last_mut() else {
            break;
        };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields.retain(|f| !f.is_empty());
    fields
}

/// `/a//b/../c/` becomes `/a/c`.
///
/// # Errors
/// Not absolute, or the root itself.
pub fn normalise(target: &str) -> Result<String> {
    if !target.starts_with('/') {
        return Err(usage(format!(
            "invalid container path {target:?}: it must be absolute"
        ))
        .into());
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(usage(format!("invalid container path {target:?}: it is the root")).into());
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str) -> Source {
        Source::Bind(source.to_owned())
    }

    #[test]
    fn volume_forms() {
        let named = |n: &str| Source::Volume(Some(n.to_owned()));
        for (text, source, target, options) in [
            ("/data", Source::Volume(None), "/data", vec![]),
            ("/h:/c", bind("/h"), "/c", vec![]),
            ("./h:/c:ro", bind("./h"), "/c", vec!["ro"]),
            ("h/x:/c/", bind("h/x"), "/c", vec![]),
            (
                "vol:/c:ro,Z,noexec",
                named("vol"),
                "/c",
                vec!["ro", "noexec"],
            ),
            ("..:/c:rw,z", bind(".."), "/c", vec!["rw"]),
        ] {
            let m = volume(text).unwrap();
            assert_eq!((m.source, m.target.as_str()), (source, target), "{text}");
            assert_eq!(m.options, options, "{text}");
        }
    }

    #[test]
    fn bad_volumes_are_refused() {
        for text in [
            "",
            "rel",
            "a:b",
            ":/c",
            "/a:/b:ro:x",
            "/a:/",
            "/a:/b:bogus",
            "/a:/b:U",
            "/a:/b:dev,nodev",
            "/a:/b:nosuid,ro,suid",
            "/a:/b:rw,ro",
            "v%:/c",
            "/a:/b:O",
        ] {
            assert!(volume(text).is_err(), "{text}");
        }
        assert!(crate::error::report(&volume("/a:/b:U").unwrap_err()).contains("keep-id"));
    }

    #[test]
    fn mount_forms() {
        let m = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!(
            (m.source, m.options),
            (bind("/a"), vec!["ro".into(), "rslave".into()])
        );
        let m = mount("type=bind,\"source=/a,b\",target=/c,ro=false").unwrap();
        assert_eq!((m.source, m.options), (bind("/a,b"), vec!["rw".to_owned()]));
        let m = mount("type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1770").unwrap();
        assert_eq!(m.options, ["size=64m", "mode=1770"]);
        let m = mount("src=v,target=/c,volume-nocopy=true").unwrap();
        assert_eq!(
            (m.source, m.copy_up),
            (Source::Volume(Some("v".into())), false)
        );
    }

    #[test]
    fn bad_mounts_are_refused() {
        for text in [
            "type=bind,target=/x",
            "type=bind,source=/x",
            "type=tmpfs,source=/x,target=/y",
            "type=what,target=/y",
            "type=bind,source=/x,target=/y,ro=maybe",
            "type=tmpfs,target=/y,tmpfs-size=lots",
            "type=bind,source=/x,target=/y,frobnicate",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tmpfs_forms() {
        let m = tmpfs("/t:rw,size=64m,mode=755,noexec,uid=5").unwrap();
        assert_eq!(m.options, ["rw", "size=64m", "mode=755", "noexec", "uid=5"]);
        assert!(tmpfs("/t:size=").is_err());
        assert!(tmpfs("t").is_err());
        assert!(tmpfs("/t:mode=999").is_err());
    }

    #[test]
    fn targets_are_normalised() {
        assert_eq!(normalise("/a//b/./../c/").unwrap(), "/a/c");
        assert_eq!(normalise("/../a").unwrap(), "/a");
        for bad in ["", "a", "/", "/a/..", "//"] {
            assert!(normalise(bad).is_err(), "{bad}");
        }
    }
}
