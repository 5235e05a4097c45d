//! Published ports: the `-p` syntax, choosing free ports, and finding conflicts before the start.
//!
//! A [`PortMapping`] is what the user wrote; a [`Published`] port is one with every address and
//! number decided, as the engine records it and pasta is told it. Parsing is pure; [`resolve`]
//! asks the host's kernel by binding each port for a moment. That probe is not a reservation: a
//! port taken between the probe and pasta's own bind still fails, with pasta's message. It exists
//! because its error can say which port it was, why, and what to do.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Fault, Kind, Result, failed, usage};

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Stream ports, the default.
    Tcp,
    /// Datagram ports.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// Which port of the host is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPort {
    /// One that is free at the start.
    Any,
    /// This one, and the following for a range of container ports.
    From(u16),
    /// One free port out of this inclusive range (`8000-8010:80`).
    OneOf(u16, u16),
}

/// One `-p` value: `[[ip:][hostPort]:]containerPort[/proto]`, either port a range `a-b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Host address to listen on; `None` is every address.
    pub host_ip: Option<IpAddr>,
    /// Host port or ports.
    pub host: HostPort,
    /// First container port.
    pub container: u16,
    /// Number of consecutive container ports, at least 1.
    pub count: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// Consecutive published ports with everything decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Host address listened on; `None` is every address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// First host port.
    pub host_port: u16,
    /// First container port.
    pub container_port: u16,
    /// How many consecutive ports, at least 1.
    pub count: u16,
    /// Transport.
    pub protocol: Protocol,
}

impl Published {
    /// Each port by itself: `(host port, container port)`.
    pub fn each(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        (0..self.count).map(|i| (self.host_port + i, self.container_port + i))
    }

    fn overlaps(&self, other: &Published) -> bool {
        let last = |p: &Published| u32::from(p.host_port) + u32::from(p.count) - 1;
        self.protocol == other.protocol
            && u32::from(self.host_port) <= last(other)
            && u32::from(other.host_port) <= last(self)
            && match (self.host_ip, other.host_ip) {
                (Some(a), Some(b)) => a == b || shadows(a, b) || shadows(b, a),
                _ => true,
            }
    }
}

/// Whether wildcard address `a` takes the port from address `b` too.
fn shadows(a: IpAddr, b: IpAddr) -> bool {
    a.is_unspecified() && (a.is_ipv4() == b.is_ipv4())
}

/// As podman and docker print it: `0.0.0.0:8080->80/tcp`, ranges `8000-8001->80-81/tcp`.
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => f.write_str("0.0.0.0:")?,
        }
        let range = |first: u16| match self.count {
            1 => first.to_string(),
            n => format!("{first}-{}", first + (n - 1)),
        };
        write!(
            f,
            "{}->{}/{}",
            range(self.host_port),
            range(self.container_port),
            self.protocol
        )
    }
}

impl FromStr for PortMapping {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        PortMapping::parse(text)
    }
}

impl PortMapping {
    /// Parses one `-p` value.
    ///
    /// # Errors
    /// A usage fault naming the value and the part that is wrong.
    pub fn parse(text: &str) -> Result<PortMapping> {
        let bad = |why: &str| {
            usage(format!("publishing port `{text}`: {why}")).hint(
                "the form is [[IP:][HOSTPORT]:]CONTAINERPORT[/tcp|udp], IPv6 addresses in brackets",
            )
        };
        let (address, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((_, "sctp")) => {
                return Err(usage(format!(
                    "publishing port `{text}`: sctp is not forwarded by pasta, only tcp and udp are"
                ))
                .hint("use --network host for sctp services")
                .into());
            }
            Some((_, other)) => {
                return Err(bad(&format!("unknown protocol `{other}`")).into());
            }
        };
        let (host_ip, ports) = split_address(address).map_err(|why| bad(&why))?;
        let (host, container) = match ports.rsplit_once(':') {
            Some((host, container)) => (host, container),
            None => ("", ports),
        };
        if container.is_empty() {
            return Err(bad("the container port is missing").into());
        }
        let (first, last) = range(container).map_err(|why| bad(&why))?;
        let count = last - first + 1;
        let host = if host.is_empty() {
            HostPort::Any
        } else {
            let (host_first, host_last) = range(host).map_err(|why| bad(&why))?;
            let host_count = host_last - host_first + 1;
            if host_count == count {
                HostPort::From(host_first)
            } else if count == 1 {
                HostPort::OneOf(host_first, host_last)
            } else {
                return Err(bad(&format!(
                    "{host_count} host ports cannot serve {count} container ports"
                ))
                .into());
            }
        };
        Ok(PortMapping {
            host_ip,
            host,
            container: first,
            count,
            protocol,
        })
    }
}

/// Takes the host address off the front: `1.2.3.4:`, `localhost:` or `[::1]:`.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, ports) = rest
            .split_once("]:")
            .ok_or("the closing `]:` of the address is missing")?;
        let ip: Ipv6Addr = ip
            .parse()
            .map_err(|_| format!("`{ip}` is not an IPv6 address"))?;
        return Ok((Some(IpAddr::V6(ip)), ports));
    }
    match text.matches(':').count() {
        0 | 1 => Ok((None, text)),
        2 => {
            let (ip, ports) = text.split_once(':').unwrap_or(("", text));
            let ip = match ip {
                "" => None,
                "localhost" => Some(Ipv4Addr::LOCALHOST),
                _ => Some(
                    ip.parse()
                        .map_err(|_| format!("`{ip}` is not an IPv4 address"))?,
                ),
            };
            Ok((ip.map(IpAddr::V4), ports))
        }
        _ => Err("too many `:` (an IPv6 address needs brackets)".to_owned()),
    }
}

/// `80` or `80-90`, both ends 1 to 65535 and in order.
fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = port(first)?;
    let last = port(last)?;
    if first > last {
        return Err(format!("the range `{text}` runs backwards"));
    }
    if first == 1 && last == u16::MAX {
        return Err(format!("the range `{text}` leaves no port to the host"));
    }
    Ok((first, last))
}

fn port(text: &str) -> Result<u16, String> {
    // `u16::from_str` takes `+80`, which nobody means.
    if !text.bytes().all(|b| b.is_ascii_digit()) || text.is_empty() {
        return Err(format!("`{text}` is not a port number"));
    }
    match text.parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("port `{text}` is outside 1 to 65535")),
        Ok(n) => Ok(n),
    }
}

/// Decides host ports and checks that this user may listen on each of them now.
///
/// # Errors
/// A fault that names the port: in use, below `ip_unprivileged_port_start`, published twice, or on
/// an address that the host does not have.
pub fn resolve(mappings: &[PortMapping]) -> Result<Vec<Published>> {
    let mut done: Vec<(usize, Published)> = Vec::new();
    // Fixed ports first: a free one is never chosen from under them.
    for fixed in [true, false] {
        for (place, mapping) in mappings.iter().enumerate() {
            if matches!(mapping.host, HostPort::From(_)) == fixed {
                let published = resolve_one(mapping, &done)?;
                done.push((place, published));
            }
        }
    }
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, published)| published).collect())
}

/// Decides one mapping beside those already decided.
fn resolve_one(mapping: &PortMapping, done: &[(usize, Published)]) -> Result<Published> {
    let with = |host_port| Published {
        host_ip: mapping.host_ip,
        host_port,
        container_port: mapping.container,
        count: mapping.count,
        protocol: mapping.protocol,
    };
    let taken =
        |published: &Published| done.iter().map(|(_, p)| *p).find(|p| p.overlaps(published));
    let ports = format!("container port {}/{}", mapping.container, mapping.protocol);
    match mapping.host {
        HostPort::From(first) => {
            let published = with(first);
            if let Some(other) = taken(&published) {
                return Err(usage(format!(
                    "publishing {published}: the host port is already published by {other}"
                ))
                .into());
            }
            probe(&published)?;
            Ok(published)
        }
        HostPort::OneOf(first, last) => (first..=last)
            .map(with)
            .find(|published| taken(published).is_none() && probe(published).is_ok())
            .ok_or_else(|| {
                failed(format!(
                    "publishing {ports}: no port from {first} to {last} is free on the host"
                ))
                .into()
            }),
        HostPort::Any => {
            for _ in 0..64 {
                let candidate = ephemeral(mapping)?;
                if u32::from(candidate) + u32::from(mapping.count) > 65536 {
                    continue;
                }
                let published = with(candidate);
                if taken(&published).is_none() && probe(&published).is_ok() {
                    return Ok(published);
                }
            }
            Err(failed(format!(
                "publishing {ports}: found no {} free consecutive host ports",
                mapping.count
            ))
            .hint("name the host port: -p HOSTPORT:CONTAINERPORT")
            .into())
        }
    }
}

/// A port the kernel considers free for this mapping's address and protocol.
fn ephemeral(mapping: &PortMapping) -> Result<u16> {
    let ip = mapping.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = SocketAddr::new(ip, 0);
    let port = match mapping.protocol {
        Protocol::Tcp => TcpListener::bind(address).and_then(|s| s.local_addr()),
        Protocol::Udp => UdpSocket::bind(address).and_then(|s| s.local_addr()),
    };
    port.map(|a| a.port()).map_err(|e| {
        Fault::new(
            Kind::Failed,
            format!(
                "finding a free host port on {ip} for container port {}: {e}",
                mapping.container
            ),
        )
        .into()
    })
}

/// Binds each port for a moment as pasta will; the error says why one cannot be.
fn probe(published: &Published) -> Result<()> {
    let ip = published
        .host_ip
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    for (host_port, _) in published.each() {
        let address = SocketAddr::new(ip, host_port);
        let bound = match published.protocol {
            Protocol::Tcp => TcpListener::bind(address).map(drop),
            Protocol::Udp => UdpSocket::bind(address).map(drop),
        };
        bound.map_err(|e| bind_fault(published, address, &e))?;
    }
    Ok(())
}

/// The fault for a port that cannot be bound, from what the kernel said.
fn bind_fault(published: &Published, address: SocketAddr, e: &std::io::Error) -> Fault {
    let (port, protocol) = (address.port(), published.protocol);
    match e.kind() {
        std::io::ErrorKind::AddrInUse => Fault::new(
            Kind::Failed,
            format!("publishing {published}: host port {port}/{protocol} is already in use on {}", address.ip()),
        )
        .hint(format!(
            "see who listens with `ss -ln{} sport = :{port}`, or let one be chosen with -p {}",
            if protocol == Protocol::Tcp { "tp" } else { "up" },
            published.container_port
        )),
        std::io::ErrorKind::PermissionDenied => Fault::new(
            Kind::Failed,
            format!("publishing {published}: this user may not listen on host port {port}"),
        )
        .hint(format!(
            "use a port from 1024 up, or let users have it: sysctl net.ipv4.ip_unprivileged_port_start={port}"
        )),
        std::io::ErrorKind::AddrNotAvailable => Fault::new(
            Kind::Failed,
            format!("publishing {published}: this host has no address {}", address.ip()),
        )
        .hint("`ip addr` lists the host's addresses"),
        _ => Fault::new(
            Kind::Failed,
            format!("publishing {published}: binding {address}/{protocol}: {e}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::report;

    fn parse(text: &str) -> PortMapping {
        PortMapping::parse(text).unwrap_or_else(|e| panic!("{text}: {e:#}"))
    }

    #[test]
    fn every_documented_form_is_read() {
        let full = parse("127.0.0.1:8080:80/udp");
        assert_eq!(full.host_ip, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!((full.host, full.container), (HostPort::From(8080), 80));
        assert_eq!(full.protocol, Protocol::Udp);
        assert_eq!(parse("80").host, HostPort::Any);
        assert_eq!(parse("80").protocol, Protocol::Tcp);
        assert_eq!(parse("127.0.0.1::80").host, HostPort::Any);
        assert_eq!(parse(":80").host, HostPort::Any);
        let v6 = parse("[::1]:8080:80");
        assert_eq!(v6.host_ip, Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        let range = parse("8000-8009:80-89");
        assert_eq!(
            (range.host, range.container, range.count),
            (HostPort::From(8000), 80, 10)
        );
        assert_eq!(parse("8000-8009:80").host, HostPort::OneOf(8000, 8009));
        assert_eq!(parse("8000-8001").count, 2);
    }

    #[test]
    fn malformed_values_are_usage_faults_that_name_the_value() {
        for text in [
            "",
            ":",
            "x",
            "80:",
            "0",
            "65536",
            "80:0",
            "80/foo",
            "80/sctp",
            "1.2.3:1:2",
            "::1:80:80",
            "[::1:80",
            "90-80",
            "80-81:1-3",
            "80-",
            "-80",
            "+80",
            "8 0",
            "1-65535",
            "1.2.3.4.5:1:1",
            "[1.2.3.4]:1:1",
            "99999999999999999999:1",
        ] {
            let error = PortMapping::parse(text).expect_err(text);
            assert_eq!(crate::error::kind(&error), Kind::Usage, "{text}");
            assert!(report(&error).contains(&format!("`{text}`")), "{text}");
        }
    }

    #[test]
    fn a_port_in_use_is_named_with_its_owner_hint() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("address").port();
        let error = resolve(&[parse(&format!("127.0.0.1:{port}:80"))]).expect_err("in use");
        let text = report(&error);
        assert!(
            text.contains(&format!("host port {port}/tcp is already in use")),
            "{text}"
        );
        assert!(text.contains("hint: "), "{text}");
        // A wildcard listener meets it too.
        assert!(resolve(&[parse(&format!("{port}:80"))]).is_err());
        // The same number over udp is another port.
        assert!(resolve(&[parse(&format!("127.0.0.1:{port}:80/udp"))]).is_ok());
    }

    #[test]
    fn a_range_may_be_longer_than_the_limit_of_open_files() {
        let got = resolve(&[parse("127.0.0.77:20000-29999:20000-29999")]).expect("ports");
        assert_eq!(got[0].count, 10_000);
    }

    #[test]
    fn one_host_port_is_published_once() {
        let free = TcpListener::bind("127.0.0.1:0")
            .and_then(|s| s.local_addr())
            .expect("port")
            .port();
        let a = parse(&format!("127.0.0.1:{free}:80"));
        let b = parse(&format!("{free}:81"));
        let error = resolve(&[a, b]).expect_err("twice");
        assert!(
            report(&error).contains("already published by"),
            "{}",
            report(&error)
        );
    }

    #[test]
    fn free_ports_are_chosen_without_meeting_each_other() {
        let got = resolve(&[
            parse("127.0.0.1::80"),
            parse("127.0.0.1::80-83"),
            parse("80/udp"),
        ])
        .expect("ports");
        assert_eq!(got.len(), 3);
        assert_eq!(got[1].count, 4);
        assert!(got.iter().all(|p| p.host_port >= 1024));
        assert!(!got[0].overlaps(&got[1]));
    }

    #[test]
    fn display_is_what_ps_prints() {
        let p = Published {
            host_ip: None,
            host_port: 8000,
            container_port: 80,
            count: 2,
            protocol: Protocol::Tcp,
        };
        assert_eq!(p.to_string(), "0.0.0.0:8000-8001->80-81/tcp");
        let p = Published {
            host_ip: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            count: 1,
            ..p
        };
        assert_eq!(p.to_string(), "[::1]:8000->80/tcp");
    }
}
