//! What the host offers: pasta itself, a default route, addresses, resolvers.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::Resolver;
use super::pasta::{self, Addressing, Features};
use crate::error::{Result, ResultExt as _, failed};
use crate::sys::file::read_proc;

/// The host as the network modes need it; every part degrades to "none" when it cannot be read.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Interface with the IPv4 default route, which pasta copies from.
    pub route: Option<String>,
    /// Interface with the IPv6 default route.
    pub route6: Option<String>,
    /// Global addresses of every interface, in the kernel's order.
    pub addresses: Vec<(String, IpAddr)>,
    /// The host's resolver configuration.
    pub resolver: Resolver,
    /// Text of the host's hosts file.
    pub hosts: String,
}

/// Looks at the host.
#[must_use]
pub fn view() -> View {
    let read = |path: &str| read_proc(path).unwrap_or_default();
    View {
        addresses: addresses(),
        resolver: Resolver::parse(&read("/etc/resolv.conf")),
        hosts: read("/etc/hosts"),
        ..View::of(&read("/proc/net/route"), &read("/proc/net/ipv6_route"))
    }
}

/// Global addresses by interface.
fn addresses() -> Vec<(String, IpAddr)> {
    let Ok(list) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    list.filter_map(|entry| {
        let address = entry.address?;
        let ip = address
            .as_sockaddr_in()
            .map(|a| IpAddr::V4(a.ip()))
            .or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))?;
        let global = match ip {
            IpAddr::V4(v4) => !v4.is_loopback(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        global.then_some((entry.interface_name, ip))
    })
    .collect()
}

impl View {
    /// The default routes alone, from the texts of `/proc/net/route` and `/proc/net/ipv6_route`.
    #[must_use]
    pub fn of(route: &str, ipv6_route: &str) -> View {
        View {
            route: default_interface_v4(route),
            route6: default_interface_v6(ipv6_route),
            ..View::default()
        }
    }

    /// Where addresses come from with this pasta.
    pub(crate) fn addressing(&self, features: Features) -> Addressing {
        match (&self.route, &self.route6) {
            (None, None) => Addressing::Isolated,
            (Some(_), _) if !features.map_guest_addr => Addressing::Private,
            _ => Addressing::Copied,
        }
    }

    /// The address a container gets behind pasta with these options: the one given (`-a`), the one
    /// copied from the host, or the private one.
    pub(crate) fn container_address(
        &self,
        features: Features,
        options: &[String],
    ) -> Option<IpAddr> {
        if let Some(address) = option(options, &["-a", "--address"]) {
            return address.split('/').next().and_then(|a| a.parse().ok());
        }
        let interface = match option(options, &["-i", "--interface"]) {
            Some(interface) => interface,
            None if self.addressing(features) != Addressing::Copied => {
                return Some(IpAddr::V4(pasta::PRIVATE));
            }
            None => self.route.as_ref().or(self.route6.as_ref())?,
        };
        let own = |v4: bool| {
            self.addresses
                .iter()
                .find(|(name, ip)| name == interface && ip.is_ipv4() == v4)
                .map(|(_, ip)| *ip)
        };
        own(true).or_else(|| own(false))
    }

    /// The address under which a container with these options reaches this host.
    pub(crate) fn gateway(&self, features: Features, options: &[String]) -> Option<IpAddr> {
        if let Some(alias) = option(options, &["--map-guest-addr"]) {
            return alias.parse().ok();
        }
        let chosen = option(options, &["-a", "--address", "-i", "--interface"]).is_some();
        if features.map_guest_addr && self.route.is_some() && !chosen {
            return Some(IpAddr::V4(pasta::HOST_ALIAS));
        }
        // The container's own address never leaves it; any other of the host's does.
        let own = self.container_address(features, options);
        let mut others = self
            .addresses
            .iter()
            .filter(|(_, ip)| ip.is_ipv4() && Some(*ip) != own);
        let routed = others
            .clone()
            .find(|(name, _)| Some(name) == self.route.as_ref());
        routed.or_else(|| others.next()).map(|(_, ip)| *ip)
    }
}

/// The value of one of pasta's options, given as `NAME VALUE` or `NAME=VALUE`.
fn option<'a>(options: &'a [String], names: &[&str]) -> Option<&'a str> {
    options.iter().enumerate().find_map(|(i, o)| {
        let (name, value) = match o.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (o.as_str(), options.get(i + 1).map(String::as_str)),
        };
        names.contains(&name).then_some(value).flatten()
    })
}

/// Interface of the default route with the lowest metric in `/proc/net/route`.
fn default_interface_v4(text: &str) -> Option<String> {
    // Iface Destination Gateway Flags RefCnt Use Metric Mask …
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let up = u16::from_str_radix(words.get(3)?, 16).ok()? & 1 != 0;
            let default = *words.get(1)? == "00000000" && *words.get(7)? == "00000000";
            (up && default).then(|| (words[6].parse::<u32>().unwrap_or(0), words[0].to_owned()))
        })
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, interface)| interface)
}

/// Interface of the default route with the lowest metric in `/proc/net/ipv6_route`.
fn default_interface_v6(text: &str) -> Option<String> {
    // destination plen source plen nexthop metric refcnt use flags interface
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let default = words.first()?.bytes().all(|b| b == b'0') && *words.get(1)? == "00";
            let interface = *words.get(9)?;
            let flags = u32::from_str_radix(words.get(8)?, 16).ok()?;
            // RTF_UP, and not RTF_REJECT: the kernel's own catch-all is on lo.
            let usable = flags & 1 != 0 && flags & 0x200 == 0 && interface != "lo";
            let metric = u32::from_str_radix(words.get(5)?, 16).ok()?;
            (default && usable).then(|| (metric, interface.to_owned()))
        })
        .min_by_key(|(metric, _)| *metric)
        .map(|(_, interface)| interface)
}

/// What is remembered about one executable.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Probed {
    program: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    features: Features,
}

/// Finds pasta (`RLESS_PASTA`, else `PATH`) and what it can do, from the note in `cache` if the
/// executable has not changed since.
///
/// # Errors
/// A fault that names the package when there is no pasta.
pub fn find(cache: &Path) -> Result<(PathBuf, Features)> {
    let program = locate()?;
    let features = probe_at(&program, cache)?;
    Ok((program, features))
}

/// What the executable `program` can do.
fn probe_at(program: &Path, cache: &Path) -> Result<Features> {
    let meta =
        std::fs::metadata(program).fault(|| failed(format!("looking at {}", program.display())))?;
    let note = cache.join("pasta.json");
    let mut probed = Probed {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        features: Features::default(),
        program: program.to_owned(),
    };
    let known = std::fs::read(&note)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Probed>(&bytes).ok());
    if let Some(known) = known {
        probed.features = known.features;
        if known == probed {
            return Ok(probed.features);
        }
    }
    let help = duct::cmd(&probed.program, ["--help"])
        .stdin_null()
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked()
        .run()
        .fault(|| {
            failed(format!(
                "asking {} for its options",
                probed.program.display()
            ))
        })?;
    probed.features = features(&String::from_utf8_lossy(&help.stdout));
    remember(&note, &probed);
    Ok(probed.features)
}

/// What a `pasta --help` tells.
fn features(help: &str) -> Features {
    Features {
        map_guest_addr: help.contains("--map-guest-addr"),
    }
}

/// Writes the note under a name of its own and renames it; without it the next start asks again.
fn remember(note: &Path, probed: &Probed) {
    let Some(dir) = note.parent() else { return };
    let written = tempfile::NamedTempFile::new_in(dir).and_then(|file| {
        serde_json::to_writer(&file, probed)?;
        file.persist(note).map_err(|e| e.error)?;
        Ok(())
    });
    if let Err(e) = written {
        log::debug!("keeping what pasta can do in {}: {e}", note.display());
    }
}

/// The pasta to use.
fn locate() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("RLESS_PASTA").filter(|p| !p.is_empty()) {
        let program = PathBuf::from(program);
        return if program.is_file() {
            Ok(program)
        } else {
            Err(no_pasta(&format!(
                "RLESS_PASTA names {}, which is no file",
                program.display()
            )))
        };
    }
    // A login shell of an ordinary user may lack the sbin directories; pasta is in bin.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/local/bin", "/bin"].map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("pasta"))
        .find(|candidate| {
            candidate.is_file()
                && nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok()
        })
        .map(fastest)
        .ok_or_else(|| no_pasta("there is no `pasta` on this host"))
}

fn no_pasta(why: &str) -> anyhow::Error {
    failed(format!("setting up the network: {why}"))
        .hint("install the package passt (it contains pasta), or use --network none or host")
        .into()
}

/// The executable that `pasta` would replace itself with: on processors with AVX2 it starts its
/// neighbour `pasta.avx2`, which is one exec and 1 to 2.5 ms that need not be.
fn fastest(program: PathBuf) -> PathBuf {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        let other = program.with_extension("avx2");
        if other.is_file() {
            return other;
        }
    }
    program
}

/// The lines about the network in `rless info`.
#[must_use]
pub fn describe(cache: &Path) -> Vec<(String, String)> {
    let view = view();
    let mut lines = Vec::new();
    match find(cache) {
        Ok((program, features)) => {
            lines.push(("pasta".to_owned(), program.display().to_string()));
            let shown = |ip: Option<IpAddr>| ip.map_or("none".to_owned(), |ip| ip.to_string());
            lines.push((
                "containerAddress".to_owned(),
                shown(view.container_address(features, &[])),
            ));
            lines.push(("hostAddress".to_owned(), shown(view.gateway(features, &[]))));
        }
        Err(e) => lines.push(("pasta".to_owned(), format!("{e:#}"))),
    }
    let route = view
        .route
        .or(view.route6)
        .unwrap_or_else(|| "none: no default route".to_owned());
    lines.push(("interface".to_owned(), route));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn the_default_route_of_lowest_metric_is_the_template() {
        assert_eq!(default_interface_v4(ROUTES).as_deref(), Some("eth0"));
        assert_eq!(default_interface_v4("Iface\tx\n"), None);
        assert_eq!(default_interface_v4(""), None);
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n\
                  00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n";
        assert_eq!(default_interface_v6(v6).as_deref(), Some("eth1"));
    }

    #[test]
    fn the_container_address_follows_pasta_and_its_options() {
        let view = View {
            route: Some("eth0".into()),
            addresses: vec![
                ("lan".into(), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
                ("eth0".into(), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))),
            ],
            ..View::default()
        };
        let newer = Features {
            map_guest_addr: true,
        };
        let older = Features::default();
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let both = |view: &View, features, text: &str| {
            let options = words(text);
            let show = |ip: Option<IpAddr>| ip.map_or("-".to_owned(), |ip| ip.to_string());
            (
                show(view.container_address(features, &options)),
                show(view.gateway(features, &options)),
            )
        };
        let is = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(both(&view, newer, ""), is("192.0.2.2", "169.254.1.2"));
        assert_eq!(both(&view, older, ""), is("10.0.2.100", "192.0.2.2"));
        assert_eq!(
            both(&view, newer, "-a 10.9.9.9/24"),
            is("10.9.9.9", "192.0.2.2")
        );
        assert_eq!(
            both(&view, older, "--interface=lan"),
            is("10.0.0.1", "192.0.2.2")
        );
        assert_eq!(
            both(&view, newer, "--map-guest-addr 169.254.9.9"),
            is("192.0.2.2", "169.254.9.9")
        );
        assert_eq!(both(&View::default(), newer, ""), is("10.0.2.100", "-"));
        let six = View {
            route6: Some("eth0".into()),
            addresses: vec![(
                "eth0".into(),
                IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
            )],
            ..View::default()
        };
        assert_eq!(both(&six, older, ""), is("fd00::2", "-"));
        let unrouted = View {
            route: None,
            ..view
        };
        assert_eq!(both(&unrouted, newer, ""), is("10.0.2.100", "10.0.0.1"));
    }

    #[test]
    fn a_changed_executable_is_asked_again() {
        let dir = tempfile::tempdir().expect("dir");
        let program = dir.path().join("pasta");
        let write = |text: &str| {
            std::fs::write(&program, format!("#!/bin/sh\necho '{text}'\n")).expect("write");
            std::fs::set_permissions(
                &program,
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )
            .expect("mode");
        };
        write("nothing");
        let ask = || probe_at(&program, dir.path()).expect("probe");
        assert!(!ask().map_guest_addr);
        write("  --map-guest-addr ADDR");
        assert!(ask().map_guest_addr);
        // And the answer is kept: a note with another answer for the same file is believed.
        let note = dir.path().join("pasta.json");
        let text = std::fs::read_to_string(&note)
            .expect("note")
            .replace("\"map_guest_addr\":true", "\"map_guest_addr\":false");
        std::fs::write(&note, text).expect("note");
        assert!(!ask().map_guest_addr);
    }
}
