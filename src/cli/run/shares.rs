//! What a container takes from another: namespaces and volumes.

use crate::container::request::From;
use crate::container::shared::{Sharing, Shm};
use crate::error::{Result, usage};

/// What is not the container's own.
#[derive(Debug, clap::Args)]
pub(super) struct Shares {
    /// Mount the volumes of another container: NAME[:ro,z]
    #[arg(long, value_name = "CONTAINER[:OPTIONS]")]
    volumes_from: Vec<String>,
    /// PID namespace: private, host, container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// IPC namespace and /dev/shm: shareable, private, none, host, container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// UTS namespace, which has the host name: private, host, container:NAME
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
}

impl Shares {
    pub(super) fn sharing(&self) -> Result<Sharing> {
        Ok(Sharing {
            pid: mode("--pid", self.pid.as_deref(), &["private", "host"])?,
            host_pid: self.pid.as_deref() == Some("host"),
            ipc: mode(
                "--ipc",
                self.ipc.as_deref(),
                &["private", "shareable", "none", "host"],
            )?,
            uts: mode("--uts", self.uts.as_deref(), &["private", "host"])?,
            host_ipc: self.ipc.as_deref() == Some("host"),
            host_uts: self.uts.as_deref() == Some("host"),
            shm: match self.ipc.as_deref() {
                Some("private") => Shm::Private,
                Some("none") => Shm::None,
                _ => Shm::Shareable,
            },
        })
    }

    pub(super) fn volumes_from(&self) -> Result<Vec<From>> {
        self.volumes_from.iter().map(|text| volumes(text)).collect()
    }
}

/// The container that a mode names.
fn mode(flag: &str, text: Option<&str>, own: &[&str]) -> Result<Option<String>> {
    match text.unwrap_or_default() {
        "" => Ok(None),
        word if own.contains(&word) => Ok(None),
        word @ ("host" | "none") => Err(usage(format!("{flag} {word} is not there yet"))
            .hint(format!("one of {}, container:NAME", own.join(", ")))
            .into()),
        text => match text.strip_prefix("container:").filter(|n| !n.is_empty()) {
            Some(name) => Ok(Some(name.to_owned())),
            None => Err(usage(format!("unrecognized namespace mode {text} passed"))
                .hint(format!("one of {}, container:NAME", own.join(", ")))
                .into()),
        },
    }
}

fn volumes(text: &str) -> Result<From> {
    let (name, options) = text.split_once(':').unwrap_or((text, ""));
    let mut from = From {
        container: name.to_owned(),
        options: options.to_owned(),
        read_only: None,
    };
    for option in options.split(',') {
        match option {
            "" | "z" => {}
            "ro" | "rw" if from.read_only.is_some() => {
                return Err(usage("cannot set ro or rw options more than once").into());
            }
            "ro" | "rw" => from.read_only = Some(option == "ro"),
            other => {
                let text = format!(
                    "invalid option {other:?} specified - volumes from another container can only use z,ro,rw options"
                );
                return Err(usage(text).into());
            }
        }
    }
    Ok(from)
}

/// `--expose PORT[-PORT][/PROTOCOL]`: each port with its protocol.
pub(super) fn exposed(list: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for text in list {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let bad = |why: &str| usage(format!("invalid range format for --expose: {text}: {why}"));
        if !["tcp", "udp", "sctp"].contains(&protocol) {
            let why = format!("unrecognized protocol {protocol:?} in port mapping");
            return Err(bad(&why).into());
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |n: &str| n.parse::<u16>().ok().filter(|n| *n > 0);
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(bad("a port is a number from 1 to 65535").into());
        };
        if first > last {
            return Err(bad("it ends before it begins").into());
        }
        all.extend((first..=last).map(|n| format!("{n}/{protocol}")));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_exposed_with_their_protocol() {
        let of = |text: &str| exposed(&[text.to_owned()]);
        assert_eq!(of("80").unwrap(), ["80/tcp"]);
        assert_eq!(of("53/udp").unwrap(), ["53/udp"]);
        assert_eq!(of("7-9").unwrap(), ["7/tcp", "8/tcp", "9/tcp"]);
        for bad in ["", "x", "0", "70000", "9-3", "80/bogus", "-", "1-"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_name_a_container_or_are_the_usual() {
        let of = |text| mode("--ipc", Some(text), &["private", "host"]);
        assert_eq!(of("container:x").unwrap().as_deref(), Some("x"));
        assert_eq!(of("host").unwrap(), None);
        for bad in ["none", "bogus", "container:", "pod"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_of_others_have_their_own_options() {
        assert_eq!(volumes("a").unwrap().read_only, None);
        assert_eq!(volumes("a:ro,z").unwrap().read_only, Some(true));
        for bad in ["a:Z", "a:ro,rw", "a:x"] {
            assert!(volumes(bad).is_err(), "{bad}");
        }
    }
}
