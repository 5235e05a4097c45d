//! The text of a container's `hosts`, `resolv.conf` and `hostname`, and `--add-host`. Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Result, usage};

/// Address a name of `--add-host` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostTarget {
    /// A literal address.
    Ip(IpAddr),
    /// `host-gateway`: the address under which the container reaches the host.
    Gateway,
}

/// One `--add-host` value: `NAME[;NAME…]:IP`, `NAME=IP` or `NAME:host-gateway`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddHost {
    /// Names, at least one.
    pub names: Vec<String>,
    /// What they resolve to.
    pub target: HostTarget,
}

impl FromStr for AddHost {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        AddHost::parse(text)
    }
}

impl std::fmt::Display for AddHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.names.join(";");
        match self.target {
            HostTarget::Ip(ip) => write!(f, "{names}:{ip}"),
            HostTarget::Gateway => write!(f, "{names}:host-gateway"),
        }
    }
}

impl AddHost {
    /// Parses one `--add-host` value.
    ///
    /// # Errors
    /// A usage fault naming the value.
    pub fn parse(text: &str) -> Result<AddHost> {
        let bad = |why: &str| {
            usage(format!("adding host `{text}`: {why}"))
                .hint("the form is NAME:ADDRESS, or NAME:host-gateway for the host itself")
        };
        // The first separator: addresses contain colons, names contain neither.
        let at = text
            .find([':', '='])
            .ok_or_else(|| bad("no `:` between name and address"))?;
        let (names, address) = (&text[..at], &text[at + 1..]);
        let names: Vec<String> = names.split(';').map(str::to_owned).collect();
        if names.iter().any(|n| !is_host_name(n)) {
            return Err(bad("the name is not a host name").into());
        }
        let target = if address == "host-gateway" {
            HostTarget::Gateway
        } else {
            let literal = address
                .strip_prefix('[')
                .and_then(|a| a.strip_suffix(']'))
                .unwrap_or(address);
            HostTarget::Ip(
                literal
                    .parse()
                    .map_err(|_| bad(&format!("`{address}` is not an address")))?,
            )
        };
        Ok(AddHost { names, target })
    }
}

/// Whether `name` may stand in a hosts file: no blank, no control character, no comment sign.
fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.chars().all(|c| {
            c.is_ascii_alphanumeric()
                || matches!(c, '-' | '_' | '.')
                || (!c.is_ascii() && !c.is_whitespace())
        })
}

/// Checks `--hostname`.
///
/// # Errors
/// A usage fault if it is no valid host name of at most 64 bytes, the kernel's limit.
pub fn check_hostname(name: &str) -> Result<()> {
    let valid = name.len() <= 64
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
    if valid {
        return Ok(());
    }
    Err(usage(format!("host name `{name}` is not valid"))
        .hint("letters, digits, `-` and `.` only, at most 64 characters")
        .into())
}

/// What goes into `/etc/hosts`.
#[derive(Debug, Clone, Default)]
pub struct HostsFile<'a> {
    /// The container's host name.
    pub hostname: &'a str,
    /// Further names of the container itself (its `--name`).
    pub aliases: &'a [&'a str],
    /// Addresses of the container; empty without a network: the names then mean 127.0.0.1.
    pub addresses: &'a [IpAddr],
    /// Address of the host as the container sees it, if there is one.
    pub gateway: Option<IpAddr>,
    /// `--add-host`, in order; these win over everything of the same name.
    pub add: &'a [AddHost],
    /// Lines to start from (the host's own file with `--network host`), else none.
    pub base: Option<&'a str>,
}

/// Builds `/etc/hosts`.
///
/// # Errors
/// A usage fault when `host-gateway` is asked for and the container cannot reach the host.
pub fn hosts(file: &HostsFile<'_>) -> Result<String> {
    let mut text = String::new();
    for entry in file.add {
        let ip = match (entry.target, file.gateway) {
            (HostTarget::Ip(ip), _) | (HostTarget::Gateway, Some(ip)) => ip,
            (HostTarget::Gateway, None) => {
                return Err(usage(format!(
                    "adding host `{}`: this network gives the container no way to the host",
                    entry.names.join(";")
                ))
                .hint("host-gateway needs --network pasta with a pasta that has --map-guest-addr (passt 2024_10 or later), or a second address on the host")
                .into());
            }
        };
        line(&mut text, ip, &entry.names);
    }
    if let Some(base) = file.base {
        text.push_str(base);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
    } else {
        text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    }
    if let Some(gateway) = file.gateway {
        line(
            &mut text,
            gateway,
            &["host.containers.internal", "host.docker.internal"],
        );
    }
    let mut names: Vec<&str> = Vec::new();
    for name in std::iter::once(file.hostname).chain(file.aliases.iter().copied()) {
        if !name.is_empty() && !names.contains(&name) && file.base.is_none() {
            names.push(name);
        }
    }
    if !names.is_empty() {
        if file.addresses.is_empty() {
            line(&mut text, IpAddr::V4(Ipv4Addr::LOCALHOST), &names);
        }
        for address in file.addresses {
            line(&mut text, *address, &names);
        }
    }
    Ok(text)
}

fn line<S: AsRef<str>>(text: &mut String, ip: IpAddr, names: &[S]) {
    let _ = write!(text, "{ip}\t");
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            text.push(' ');
        }
        text.push_str(name.as_ref());
    }
    text.push('\n');
}

/// A resolver configuration: resolv.conf(5), the parts that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// `nameserver` lines.
    pub servers: Vec<IpAddr>,
    /// `search` (or `domain`).
    pub search: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads resolv.conf text; unknown lines and scoped addresses are left out, as libc does.
    #[must_use]
    pub fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    resolver
                        .servers
                        .extend(words.next().and_then(|w| w.parse::<IpAddr>().ok()));
                }
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }

    /// The text of resolv.conf.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" "));
        }
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

/// `--dns`, `--dns-search`, `--dns-option`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsOptions {
    /// `--dns`: instead of the host's servers.
    pub servers: Vec<IpAddr>,
    /// `--dns-search`: instead of the host's search list; a single `.` means none.
    pub search: Vec<String>,
    /// `--dns-option`: instead of the host's options.
    pub options: Vec<String>,
}

impl DnsOptions {
    /// The resolver of a container: the user's wish over what is derived from the host.
    #[must_use]
    pub fn over(&self, derived: &Resolver) -> Resolver {
        let pick = |mine: &[String], theirs: &[String]| {
            if mine.is_empty() {
                theirs.to_vec()
            } else {
                mine.to_vec()
            }
        };
        Resolver {
            servers: if self.servers.is_empty() {
                derived.servers.clone()
            } else {
                self.servers.clone()
            },
            search: if self.search == ["."] {
                Vec::new()
            } else {
                pick(&self.search, &derived.search)
            },
            options: pick(&self.options, &derived.options),
        }
    }
}

/// Whether the host resolves through its own loopback first, which a container cannot reach. A
/// configuration without servers means 127.0.0.1 (resolv.conf(5)).
#[must_use]
pub fn needs_forwarder(host: &Resolver) -> bool {
    host.servers.first().is_none_or(|ip| !reachable(ip))
}

/// Whether a server of the host is the same server for a container.
fn reachable(ip: &IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified()
}

/// The resolver a container behind pasta gets, from the host's: servers it can reach as they are;
/// `forwarder` (pasta's `--dns-forward` address) where the host's first is on its loopback. Later
/// loopback servers are left out: pasta forwards to the first one only.
#[must_use]
pub fn behind_pasta(host: &Resolver, forwarder: IpAddr) -> Resolver {
    let mut servers: Vec<IpAddr> = Vec::new();
    servers.extend(needs_forwarder(host).then_some(forwarder));
    servers.extend(host.servers.iter().copied().filter(reachable));
    // libc reads three servers; more only confuse.
    servers.truncate(3);
    Resolver {
        servers,
        search: host.search.iter().filter(|s| *s != ".").cloned().collect(),
        // trust-ad is the host's word about its own stub; it does not hold behind a forwarder.
        options: host
            .options
            .iter()
            .filter(|o| *o != "trust-ad")
            .cloned()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORWARDER: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

    #[test]
    fn loopback_resolver_becomes_the_forwarder_and_others_stay() {
        let host =
            Resolver::parse("# c\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan .\n");
        let seen = behind_pasta(&host, FORWARDER);
        assert_eq!(
            seen.text(),
            "search lan\nnameserver 169.254.1.1\noptions edns0\n"
        );
        let host =
            Resolver::parse("nameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver ::1\n");
        assert_eq!(
            behind_pasta(&host, FORWARDER).servers,
            ["192.0.2.53".parse::<IpAddr>().expect("ip")]
        );
        assert!(!needs_forwarder(&host));
        assert_eq!(
            behind_pasta(&Resolver::default(), FORWARDER).servers,
            [FORWARDER]
        );
    }

    #[test]
    fn dns_flags_replace_what_the_host_says() {
        let derived = Resolver::parse("search lan\nnameserver 192.0.2.53\noptions ndots:2\n");
        let flags = DnsOptions {
            servers: vec![IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9))],
            search: vec![".".into()],
            options: vec![],
        };
        assert_eq!(
            flags.over(&derived).text(),
            "nameserver 9.9.9.9\noptions ndots:2\n"
        );
    }

    #[test]
    fn hosts_names_the_container_and_the_host() {
        let add = [
            AddHost::parse("db;db2:10.0.0.5").expect("add"),
            AddHost::parse("six:fe80::1").expect("add"),
            AddHost::parse("up=host-gateway").expect("add"),
        ];
        let text = hosts(&HostsFile {
            hostname: "web",
            aliases: &["web", "front"],
            addresses: &[IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))],
            gateway: Some(IpAddr::V4(Ipv4Addr::new(169, 254, 1, 2))),
            add: &add,
            base: None,
        })
        .expect("hosts");
        assert_eq!(
            text,
            "10.0.0.5\tdb db2\nfe80::1\tsix\n169.254.1.2\tup\n\
             127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             169.254.1.2\thost.containers.internal host.docker.internal\n192.0.2.2\tweb front\n"
        );
    }

    #[test]
    fn host_gateway_without_a_way_to_the_host_is_an_error() {
        let add = [AddHost::parse("up:host-gateway").expect("add")];
        let file = HostsFile {
            hostname: "c",
            add: &add,
            ..HostsFile::default()
        };
        assert!(hosts(&file).is_err());
    }

    #[test]
    fn without_a_network_the_name_is_loopback() {
        let file = HostsFile {
            hostname: "c",
            ..HostsFile::default()
        };
        assert!(hosts(&file).expect("hosts").ends_with("127.0.0.1\tc\n"));
    }

    #[test]
    fn add_host_values_that_could_inject_lines_are_refused() {
        for text in [
            "x",
            ":1.2.3.4",
            "a b:1.2.3.4",
            "a\n1.1.1.1 b:1.2.3.4",
            "a:1.2.3",
            "a:",
            "a#:1.1.1.1",
        ] {
            assert!(AddHost::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn host_names_follow_the_kernel_and_rfc_1123() {
        for good in ["a", "web-1.example.org", "ABC", "a_b"] {
            assert!(check_hostname(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a b", "ä", &"x".repeat(65)] {
            assert!(check_hostname(bad).is_err(), "{bad}");
        }
    }
}
