//! The network of a container: pasta by default, none, the host's, or another container's. podman's other
//! defaults, `slirp4netns` and `bridge`, are pasta, too.
//!
//! [`prepare`] turns the flags of `run` into plain data before anything is started: resolved
//! ports, the texts of `hosts` and `resolv.conf`, sysctls, and a [`PastaConfig`]. The supervisor
//! then calls [`pasta::start`] once the container's id maps are written, goes on with everything
//! else, and waits for [`Pasta::wait_ready`] before it releases the container's first process.
//!
//! # What a container sees behind pasta
//! - The addresses and routes of the host's interface with the default route, as with podman. Source
//!   addresses of clients of published ports are kept.
//! - The host's loopback cannot be reached (`--no-map-gw`). The host itself is `host.containers.internal`:
//!   169.254.1.2, which pasta maps to the address that the container shares with it.
//! - A pasta without that mapping (`--map-guest-addr`; Debian 12's) gives 10.0.2.100 instead of the
//!   host's address, so that the host stays reachable under its own, and datagrams from the host's
//!   own addresses find their way back.
//! - The host's resolvers as they are. If the first is on the host's loopback (systemd-resolved),
//!   169.254.1.1 instead, which pasta forwards. Only then is forwarding switched on: Debian 12's pasta
//!   gives every answer of the host's resolver the forwarder's address, and libc drops those it did not ask.
//! - A host without any default route still gets a network: 10.0.2.100 over a template of `lo` with
//!   every value that `lo` lacks, since Debian 12's pasta refuses to start without a template
//!   interface. Published ports work over it.
//!
//! # Limits of Debian 12's pasta
//! Answers to datagrams sent to a published UDP port from the host's loopback are lost when the
//! container's port is lower than the host's, and its table of reverse ports is overrun; such a
//! mapping is refused ([`prepare`]). A connection to a published TCP port from elsewhere than the
//! host's loopback is completed for the server only when the client has sent its first bytes, so
//! protocols in which the server speaks first stall. Debian 13's has neither fault.
//!
//! # Versions of pasta
//! Debian 12's is of March 2023 and prints `pasta unknown version`, so the version says nothing.
//! Its `--help` is read once ([`find`]) and the answer kept in the runtime directory under the
//! executable's path, inode, size and time.

pub mod exposed;
pub mod files;
pub mod host;
pub mod pasta;
pub mod ports;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use files::{AddHost, DnsOptions, check_hostname};
pub use host::find;
pub use pasta::{Pasta, PastaConfig, Target};
pub use ports::{PortMapping, Protocol, Published};

use crate::error::{Result, failed, usage};

/// Sysctls of a network namespace of the container's own: ping without a capability, and ports
/// from 0 for every user in it. The range of groups is limited to mapped ones by the kernel, so the
/// engine replaces its end by the last mapped group id (see [`sysctls`]).
const PORT_START: (&str, &str) = ("net.ipv4.ip_unprivileged_port_start", "0");

/// What `--network` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A namespace of its own behind pasta, with further options for pasta.
    Pasta {
        /// Options as the user gave them, each with its dashes.
        options: Vec<String>,
    },
    /// A namespace of its own with nothing but loopback.
    None,
    /// The caller's namespace.
    Host,
    /// The namespace of another container, by name or id.
    Container(String),
    /// The network namespace at this path.
    Path(PathBuf),
}

impl Default for NetworkMode {
    fn default() -> Self {
        NetworkMode::Pasta {
            options: Vec::new(),
        }
    }
}

impl FromStr for NetworkMode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        NetworkMode::parse(text)
    }
}

/// As it was written, for `inspect` and records.
impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkMode::Pasta { options } if options.is_empty() => f.write_str("pasta"),
            NetworkMode::Pasta { options } => write!(f, "pasta:{}", options.join(",")),
            NetworkMode::None => f.write_str("none"),
            NetworkMode::Host => f.write_str("host"),
            NetworkMode::Container(name) => write!(f, "container:{name}"),
            NetworkMode::Path(path) => write!(f, "ns:{}", path.display()),
        }
    }
}

/// Options of pasta that rless sets itself; another value would take the process out of its hands.
const RESERVED: &[&str] = &[
    "-f",
    "--foreground",
    "-P",
    "--pid",
    "--netns",
    "--userns",
    "--netns-only",
    "-F",
    "--fd",
    "-h",
    "--help",
    "--version",
    "--runas",
    "-l",
    "--log-file",
    "--no-netns-quit",
    "-e",
    "--stderr",
    "--config-net",
    "--no-config-net",
    "--vhost-user",
    "-s",
    "--socket",
];

impl NetworkMode {
    /// Parses a `--network` value.
    ///
    /// # Errors
    /// A usage fault that says what is there instead.
    pub fn parse(text: &str) -> Result<NetworkMode> {
        let (head, rest) = match text.split_once(':') {
            Some((head, rest)) => (head, Some(rest)),
            None => (text, None),
        };
        let plain = |mode| match rest {
            None => Ok(mode),
            Some(_) => Err(usage(format!("network `{text}`: `{head}` takes no options")).into()),
        };
        match head {
            "pasta" => pasta_mode(text, rest),
            // The names under which docker and podman ask for their default.
            "default" | "private" => plain(NetworkMode::default()),
            "none" => plain(NetworkMode::None),
            "host" => plain(NetworkMode::Host),
            "container" | "ns" => match rest {
                None | Some("") => {
                    Err(usage(format!("network `{text}`: what to join is missing")).into())
                }
                Some(name) if head == "container" => Ok(NetworkMode::Container(name.to_owned())),
                Some(path) => Ok(NetworkMode::Path(PathBuf::from(path))),
            },
            // podman's other defaults: pasta takes their place ([`unheeded`]).
            "slirp4netns" | "bridge" => stand_in(head, rest.unwrap_or_default()),
            "" => Err(usage("network: the value is empty")
                .hint("one of pasta[:OPTIONS], none, host, container:NAME")
                .into()),
            _ => Err(usage(format!(
                "network `{text}`: named networks are not there yet"
            ))
            .hint("one of pasta[:OPTIONS], none, host, container:NAME")
            .into()),
        }
    }

    /// Whether the container gets a network namespace of its own (to be cloned with it).
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self, NetworkMode::Pasta { .. } | NetworkMode::None)
    }
}

/// Options of podman's other default networks.
const SLIRP: &[&str] = &[
    "allow_host_loopback",
    "cidr",
    "enable_ipv6",
    "mtu",
    "outbound_addr",
    "outbound_addr6",
    "port_handler",
];
const BRIDGE: &[&str] = &[
    "alias",
    "host_interface_name",
    "interface_name",
    "ip",
    "ip6",
    "mac",
    "mtu",
    "mode",
];

/// pasta in the place of slirp4netns or of the network `bridge`, with the MTU that was asked for.
fn stand_in(head: &str, options: &str) -> Result<NetworkMode> {
    let known = if head == "bridge" { BRIDGE } else { SLIRP };
    let mut mode = Vec::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if !known.contains(&name) || value.is_empty() {
            return Err(usage(format!("unknown option for {head}: {option:?}")).into());
        }
        if name == "mtu" {
            let mtu = value.parse::<u32>();
            let mtu = mtu.map_err(|_| usage(format!("invalid mtu {value:?}")))?;
            mode = vec!["--mtu".to_owned(), mtu.to_string()];
        }
    }
    Ok(NetworkMode::Pasta { options: mode })
}

/// What pasta does not do of a `--network` value for slirp4netns or `bridge`; `None`: nothing.
///
/// Ports are forwarded with their source addresses, and IPv6 is there where the host has it, whatever was asked for.
#[must_use]
pub fn unheeded(text: &str) -> Option<String> {
    let (head, options) = text.split_once(':')?;
    if head != "slirp4netns" && head != "bridge" {
        return None;
    }
    let done = |option: &str| {
        matches!(
            option.split_once('='),
            Some(("mtu" | "alias" | "port_handler", _))
                | Some(("allow_host_loopback", "false") | ("enable_ipv6", "true"))
        )
    };
    let options = options.split(',').filter(|o| !o.is_empty());
    let left: Vec<&str> = options.filter(|o| !done(o)).collect();
    (!left.is_empty()).then(|| left.join(","))
}

fn pasta_mode(text: &str, rest: Option<&str>) -> Result<NetworkMode> {
    let options: Vec<String> = match rest {
        None | Some("") => Vec::new(),
        Some(rest) => rest.split(',').map(str::to_owned).collect(),
    };
    let mut after_option = false;
    for option in &options {
        let name = option.split('=').next().unwrap_or(option);
        if RESERVED.contains(&name) {
            return Err(usage(format!(
                "network `{text}`: rless sets pasta's `{name}` itself"
            ))
            .into());
        }
        // A word without dashes is the value of the option before it; by itself pasta would take
        // it for a namespace or a command to run.
        if !option.starts_with('-') && !after_option {
            return Err(usage(format!(
                "network `{text}`: `{option}` is not an option of pasta"
            ))
            .hint("options are separated by commas: --network pasta:--mtu,1500")
            .into());
        }
        after_option = option.starts_with('-') && !option.contains('=');
    }
    Ok(NetworkMode::Pasta { options })
}

/// Sysctls for a network namespace of the container's own; `last_gid` is the highest gid mapped in
/// the container. The user's `--sysctl` values go after these.
#[must_use]
pub fn sysctls(mode: &NetworkMode, last_gid: u32) -> Vec<(String, String)> {
    if !mode.is_private() {
        return Vec::new();
    }
    vec![
        (PORT_START.0.to_owned(), PORT_START.1.to_owned()),
        // Written through the namespace's own map; an unmapped end is EINVAL.
        (
            "net.ipv4.ping_group_range".to_owned(),
            format!("0 {last_gid}"),
        ),
    ]
}

/// What [`prepare`] needs to know.
#[derive(Debug)]
pub struct Request<'a> {
    /// `--network`.
    pub mode: &'a NetworkMode,
    /// `-p`, as given.
    pub ports: &'a [PortMapping],
    /// The container's host name.
    pub hostname: &'a str,
    /// Its other names (`--name`).
    pub aliases: &'a [&'a str],
    /// `--add-host`.
    pub add_hosts: &'a [AddHost],
    /// `--dns*`.
    pub dns: &'a DnsOptions,
    /// Private directory of the user for what is learnt about pasta (the store's runtime dir).
    pub cache: &'a Path,
}

/// What a container's network comes to; plain data for spec, record and supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Ports with every number decided.
    pub ports: Vec<Published>,
    /// Text of `/etc/hosts`.
    pub hosts: String,
    /// Text of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Text of `/etc/hostname`.
    pub hostname: String,
    /// pasta to start, if any.
    pub pasta: Option<PastaConfig>,
}

/// Decides everything about a container's network that can be decided before it exists. With
/// [`NetworkMode::Container`] the caller uses that container's files instead of these texts.
///
/// # Errors
/// Ports that cannot be published, no pasta on this host, bad host names.
pub fn prepare(request: &Request<'_>) -> Result<Setup> {
    check_hostname(request.hostname)?;
    if !request.ports.is_empty() && !matches!(request.mode, NetworkMode::Pasta { .. }) {
        return Err(usage(format!(
            "publishing ports: network `{}` has no ports of its own to publish",
            request.mode
        ))
        .hint(match request.mode {
            NetworkMode::Host => {
                "with --network host the container's ports are the host's: leave -p out"
            }
            _ => "ports are published with the default network: leave --network out",
        })
        .into());
    }
    // What only its own loopback interface has says nothing about the host.
    let view = match request.mode {
        NetworkMode::None => host::View::default(),
        _ => host::view(),
    };
    let mut setup = Setup {
        ports: Vec::new(),
        hosts: String::new(),
        resolv_conf: String::new(),
        hostname: format!("{}\n", request.hostname),
        pasta: None,
    };
    let mut file = files::HostsFile {
        hostname: request.hostname,
        aliases: request.aliases,
        add: request.add_hosts,
        ..files::HostsFile::default()
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    let derived = match request.mode {
        NetworkMode::Pasta { options } => {
            let (program, features) = host::find(request.cache)?;
            setup.ports = ports::resolve(request.ports)?;
            let forward = files::needs_forwarder(&view.resolver);
            addresses.extend(view.container_address(features, options));
            file.gateway = view.gateway(features, options);
            check_udp(&setup.ports, features)?;
            setup.pasta = Some(PastaConfig {
                program,
                features,
                ports: setup.ports.clone(),
                options: options.clone(),
                forward,
                addressing: view.addressing(features),
            });
            files::behind_pasta(&view.resolver, IpAddr::V4(pasta::FORWARDER))
        }
        NetworkMode::None => files::Resolver::default(),
        NetworkMode::Host | NetworkMode::Container(_) | NetworkMode::Path(_) => {
            if matches!(request.mode, NetworkMode::Host) {
                file.base = Some(&view.hosts);
                file.gateway = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
            view.resolver.clone()
        }
    };
    file.addresses = &addresses;
    setup.hosts = files::hosts(&file)?;
    setup.resolv_conf = request.dns.over(&derived).text();
    Ok(setup)
}

/// Refuses what this pasta would do wrong (see the module's text).
fn check_udp(ports: &[Published], features: pasta::Features) -> Result<()> {
    let lower = |p: &&Published| p.protocol == Protocol::Udp && p.container_port < p.host_port;
    match ports.iter().find(lower) {
        Some(port) if !features.map_guest_addr => Err(failed(format!(
            "publishing {port}: this host's pasta loses answers when the container's UDP port is lower than the host's"
        ))
        .hint("publish it on the same host port or a lower one, or install a newer package passt (Debian 13's works)")
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::report;

    #[test]
    fn podman_s_other_defaults_are_pasta() {
        let of = |text: &str| NetworkMode::parse(text).map(|m| m.to_string());
        for text in [
            "slirp4netns",
            "bridge",
            "slirp4netns:port_handler=slirp4netns",
        ] {
            assert_eq!(of(text).unwrap(), "pasta", "{text}");
            assert_eq!(unheeded(text), None, "{text}");
        }
        assert_eq!(of("slirp4netns:mtu=1400").unwrap(), "pasta:--mtu,1400");
        assert_eq!(unheeded("slirp4netns:mtu=1400"), None);
        assert_eq!(
            unheeded("slirp4netns:cidr=10.0.0.0/8,mtu=1400,allow_host_loopback=true").as_deref(),
            Some("cidr=10.0.0.0/8,allow_host_loopback=true")
        );
        assert_eq!(
            unheeded("bridge:ip=10.88.0.9").as_deref(),
            Some("ip=10.88.0.9")
        );
        assert_eq!(unheeded("pasta:--mtu,1400"), None);
        for bad in ["slirp4netns:nosuch=1", "bridge:ip", "slirp4netns:mtu=x"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn network_values_are_read_and_shown_alike() {
        for text in [
            "pasta",
            "none",
            "host",
            "container:web",
            "ns:/run/x",
            "pasta:--mtu,1500,-I,eth9",
        ] {
            assert_eq!(NetworkMode::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(
            NetworkMode::parse("default").expect("default"),
            NetworkMode::default()
        );
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        for (text, hint) in [
            ("mynet", "pasta"),
            ("", "pasta"),
            ("container:", "missing"),
            ("host:x", "no options"),
        ] {
            let text = report(&NetworkMode::parse(text).expect_err(text));
            assert!(text.contains(hint), "{text}");
        }
    }

    #[test]
    fn pasta_options_that_would_detach_it_are_refused() {
        for text in [
            "pasta:-P,/x",
            "pasta:--netns=/x",
            "pasta:1234",
            "pasta:--mtu,1500,/bin/sh",
            "pasta:-4,--fd=3",
        ] {
            assert!(NetworkMode::parse(text).is_err(), "{text}");
        }
    }
}
