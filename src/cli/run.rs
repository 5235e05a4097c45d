//! `rless run`: its flags, and their translation into a request.
//!
//! Docker's and podman's command lines work as they are: short flags are bundled, values follow
//! after a blank or `=`, a flag without a value is true and takes `=false`, and everything after the
//! image belongs to the container's command.

mod bounds;
mod health;
mod more;
mod shares;
mod values;

use std::path::PathBuf;

use clap::ArgAction;

pub(super) use self::bounds::Bounds;
pub(super) use self::health::Checks;
use super::{complain, format, notice, progress, pull, warn};
use crate::container::descriptors;
use crate::container::devices::Device;
use crate::container::env::{self, Setting};
use crate::container::linger;
use crate::container::mounts;
use crate::container::request::{Request, Security, Ulimit};
use crate::container::run::{Outcome, run as run_container};
use crate::error::{Result, usage};
use crate::network::files::{AddHost, DnsOptions};
use crate::network::{self, NetworkMode, PortMapping};
use crate::runtime;
use crate::store::Store;

/// Run a command in a new container.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
#[command(override_usage = "rless run [OPTIONS] IMAGE [COMMAND [ARG...]]")]
#[command(
    after_help = "IMAGE is a reference (alpine, docker.io/library/debian:13, NAME@sha256:…), an image id, \
    rootfs:/PATH (a host directory, read-only below the container's changes), oci:DIR, oci-archive:FILE or \
    docker-archive:FILE. Exit codes: the command's own; 125 rless failed, 126 the command cannot be \
    executed, 127 it was not found, 128+N it was ended by signal N."
)]
pub(crate) struct Args {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Remove the image, too, when the container has ended, unless another uses it; means --rm
    #[arg(long)]
    rmi: bool,
    /// Pass this many of the caller's descriptors, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    preserve_fds: u16,
    /// Pass these descriptors of the caller, under their numbers
    #[arg(long, value_name = "FD", value_delimiter = ',')]
    preserve_fd: Vec<i32>,
    #[command(flatten)]
    shared: Shared,
}

/// What `create` takes as well.
#[derive(Debug, clap::Args)]
pub(crate) struct Shared {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    basics: Basics,
    #[command(flatten)]
    from: pull::From,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    net: Net,
    #[command(flatten)]
    rights: Rights,
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    health: health::Checks,
    #[command(flatten)]
    shares: shares::Shares,
    #[command(flatten)]
    more: more::More,
    /// Image, then the command and its arguments
    #[arg(value_name = "IMAGE [COMMAND [ARG...]]", required = true, num_args = 1.., trailing_var_arg = true)]
    rest: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Basics {
    /// Keep standard input open and pass it to the container
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Remove a container of the same name first
    #[arg(long)]
    replace: bool,
    /// Set an environment variable; NAME alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Pass the caller's whole environment
    #[arg(long)]
    env_host: bool,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group inside: NAME|UID[:GROUP|GID]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// More groups of the user; keep-groups alone: the caller's, as for devices
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    group_add: Vec<String>,
    /// Replace the image's entry point: a program, or a JSON list
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Run a small init as PID 1 that reaps processes and forwards signals
    #[arg(long)]
    init: bool,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Read labels from a file, one a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Set an annotation of the runtime specification
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds after which a container that was asked to stop is killed
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    /// Start it again when it has ended: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Pass signals on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_possible_values = true, action = ArgAction::Set)]
    sig_proxy: bool,
    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Where output is logged: k8s-file, journald, passthrough or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// How it is logged: path=FILE, max-size=SIZE, max-file=NUMBER, tag=TEXT, which may be a template
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    /// Who tells the service manager (NOTIFY_SOCKET) that it is ready: container, conmon, healthy, ignore
    #[arg(long, value_name = "MODE", default_value = "container")]
    sdnotify: String,
    /// When to pull: always, missing, never, newer
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pull: String,
    /// No output while pulling
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
struct Files {
    /// Mount a host path or a named volume
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount a file system: type=bind|volume|tmpfs,source=…,target=…
    #[arg(long, value_name = "SPEC")]
    mount: Vec<String>,
    /// Mount a tmpfs
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Give a device of the host, or all of a directory: HOST[:CONTAINER][:PERMISSIONS]
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// With --read-only: writable tmpfs on /run, /tmp and /var/tmp
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_possible_values = true, action = ArgAction::Set)]
    read_only_tmpfs: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Bound of what the container may change in its file system: size=SIZE
    #[arg(long, value_name = "size=SIZE")]
    storage_opt: Vec<String>,
    /// IMAGE is a host directory, read-only below the container's changes
    #[arg(long)]
    rootfs: bool,
}

#[derive(Debug, clap::Args)]
struct Net {
    /// Network: pasta[:OPTIONS], none, host, container:NAME
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Option<String>,
    /// Publish a port: [[HOSTIP:][HOSTPORT]:]PORT[/tcp|/udp], ranges too
    #[arg(short, long, value_name = "PORTS", value_delimiter = ',')]
    publish: Vec<String>,
    /// Say that the container listens on a port: PORT[-PORT][/tcp|/udp]
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    expose: Vec<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Add a line to /etc/hosts: HOST:IP
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// No /etc/hosts of ours
    #[arg(long)]
    no_hosts: bool,
    /// Name server
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    dns: Vec<String>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN", value_delimiter = ',')]
    dns_search: Vec<String>,
    /// Option of resolv.conf
    #[arg(
        long,
        visible_alias = "dns-opt",
        value_name = "OPTION",
        value_delimiter = ','
    )]
    dns_option: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Rights {
    /// User namespace: host, keep-id[:uid=N,gid=N], nomap, auto[:size=N]
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Map user ids: CONTAINER:HOST:COUNT
    #[arg(long, value_name = "MAP", value_delimiter = ',')]
    uidmap: Vec<String>,
    /// Map group ids: CONTAINER:HOST:COUNT
    #[arg(long, value_name = "MAP", value_delimiter = ',')]
    gidmap: Vec<String>,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
    cap_drop: Vec<String>,
    /// seccomp=FILE|unconfined, no-new-privileges, mask=PATHS, unmask=PATHS|ALL, apparmor=PROFILE, label=…
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Every capability, no seccomp filter, nothing masked; never more than the caller has
    #[arg(long)]
    privileged: bool,
    /// Resource limit: NAME=SOFT[:HARD]
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Set a namespaced kernel parameter
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<u8> {
    let mut request = request(args.shared, args.detach)?;
    request.remove |= args.rmi;
    request.remove_image = args.rmi;
    request.descriptors = descriptors::asked(args.preserve_fds, args.preserve_fd)?;
    let store = Store::open()?;
    let progress = progress::for_stderr(request.quiet);
    let (outcome, image_removed) = run_container(&store, &request, progress.as_ref())?;
    match outcome {
        Outcome::Running(id) => {
            if request.detach {
                format::print(&format!("{id}\n"))?;
                if let Some(text) = linger::warning() {
                    notice(&text);
                }
            }
            Ok(0)
        }
        ended => {
            if let Err(e) = image_removed {
                complain(&e);
            }
            Ok(tell(ended))
        }
    }
}

/// Tells how a container in the foreground ended: its exit code.
pub(super) fn tell(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Exited(code, note) => {
            if !note.is_empty() {
                warn(&format!("rless: the container was {note}"));
            }
            code
        }
        Outcome::NotStarted(code, report) => {
            warn(&report);
            code
        }
        Outcome::Running(_) => 0,
    }
}

pub(super) fn request(args: Shared, detach: bool) -> Result<Request> {
    let Shared {
        basics,
        from,
        files,
        net,
        rights,
        bounds,
        health,
        shares,
        more,
        mut rest,
        ..
    } = args;
    let command = rest.split_off(1);
    let settings = environment(&basics)?;
    let expose = shares::exposed(&net.expose)?;
    if let Some(left) = net.network.as_deref().and_then(network::unheeded) {
        notice(&format!(
            "rless: pasta takes the place of this network and does not heed {left}"
        ));
    }
    let mut request = Request {
        image: rest.remove(0),
        rootfs: files.rootfs,
        command,
        entrypoint: basics
            .entrypoint
            .as_deref()
            .map(values::entrypoint)
            .transpose()?,
        name: basics.name.filter(|name| !name.is_empty()),
        replace: basics.replace,
        env: settings,
        env_host: basics.env_host,
        host_env: Vec::new(),
        workdir: basics.workdir,
        user: basics.user,
        group_add: added_groups(&basics.group_add)?,
        hostname: net.hostname.clone(),
        interactive: basics.interactive,
        tty: basics.tty,
        detach,
        remove: basics.rm,
        init: basics.init,
        read_only: files.read_only,
        read_only_tmpfs: files.read_only_tmpfs,
        mounts: all_mounts(&files)?,
        devices: devices(&files.device)?,
        shm_size: files.shm_size.as_deref().map(values::size).transpose()?,
        storage_size: values::storage_opts(&files.storage_opt)?,
        pull: from.options(basics.pull.parse()?),
        quiet: basics.quiet,
        network: net
            .network
            .as_deref()
            .map_or(Ok(NetworkMode::default()), NetworkMode::parse)?,
        ports: ports(&net)?,
        add_hosts: net
            .add_host
            .iter()
            .map(|h| AddHost::parse(h))
            .collect::<Result<_>>()?,
        no_hosts: net.no_hosts,
        dns: dns(net)?,
        userns: values::userns(rights.userns.as_deref(), &rights.uidmap, &rights.gidmap)?,
        sysctls: values::pairs("--sysctl", &rights.sysctl)?,
        security: security(&rights)?,
        ulimits: ulimits(&rights.ulimit)?,
        limits: bounds.limits()?,
        stop_signal: basics
            .stop_signal
            .as_deref()
            .map(crate::container::signal::parse)
            .transpose()?,
        stop_timeout: super::stop::seconds(basics.stop_timeout),
        restart: basics.restart.as_deref().unwrap_or("no").parse()?,
        labels: values::labels(&basics.label_file, &basics.label)?,
        annotations: values::pairs("--annotation", &basics.annotation)?,
        cidfile: basics.cidfile,
        sig_proxy: basics.sig_proxy,
        detach_keys: basics.detach_keys,
        health: health.asked()?,
        sdnotify: basics.sdnotify.parse()?,
        expose,
        volumes_from: shares.volumes_from()?,
        sharing: shares.sharing()?,
        log: values::log(basics.log_driver.as_deref(), &basics.log_opt)?,
        fill_in: Some(super::inspect::fill_in),
        typed: typed(std::env::args_os()),
        ..Request::default()
    };
    more.apply(&mut request)?;
    if basics.group_add.iter().any(|g| g == KEEP_GROUPS) {
        let kept = (runtime::KEEP_GROUPS.to_owned(), "1".to_owned());
        request.annotations.extend([kept]);
    }
    Ok(request)
}

/// The command line without credentials.
fn typed(words: impl Iterator<Item = std::ffi::OsString>) -> Vec<String> {
    let mut all: Vec<String> = words.map(|w| w.to_string_lossy().into_owned()).collect();
    let mut hide = false;
    for word in &mut all {
        if std::mem::replace(&mut hide, word == "--creds") {
            *word = "***".to_owned();
        } else if word.starts_with("--creds=") {
            *word = "--creds=***".to_owned();
        }
    }
    all
}

/// Files first: what is given by hand beats them.
fn environment(basics: &Basics) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for file in &basics.env_file {
        settings.extend(env::read_file(file)?);
    }
    for text in &basics.env {
        settings.push(Setting::parse(text)?);
    }
    Ok(settings)
}

/// The ports; where the network has none of its own they are left out with a word, as docker and podman do.
fn ports(net: &Net) -> Result<Vec<PortMapping>> {
    let ports = net.publish.iter().map(|p| PortMapping::parse(p));
    let ports = ports.collect::<Result<Vec<_>>>()?;
    let network = net.network.as_deref().map(NetworkMode::parse).transpose()?;
    let own = network.is_none_or(|mode| matches!(mode, NetworkMode::Pasta { .. }));
    if own || ports.is_empty() {
        return Ok(ports);
    }
    notice(
        "Port mappings have been discarded as one of the Host, Container, Pod, and None network \
         modes are in use",
    );
    Ok(Vec::new())
}

fn all_mounts(files: &Files) -> Result<Vec<mounts::MountRequest>> {
    let mut all = Vec::new();
    for text in &files.volume {
        all.push(mounts::volume(text)?);
    }
    for text in &files.mount {
        all.push(mounts::mount(text)?);
    }
    for text in &files.tmpfs {
        all.push(mounts::tmpfs(text)?);
    }
    Ok(all)
}

fn devices(list: &[String]) -> Result<Vec<Device>> {
    let all: Result<Vec<_>> = list.iter().map(|text| Device::parse(text)).collect();
    let all = all?;
    for device in all.iter().filter(|device| device.more_than_asked()) {
        notice(&format!(
            "rless: {0}: without root a device cannot be given in part: the container may write to {0} as you may",
            device.host.display()
        ));
    }
    Ok(all)
}

/// The word of --group-add that is no group.
const KEEP_GROUPS: &str = "keep-groups";

/// The groups by name.
fn added_groups(list: &[String]) -> Result<Vec<String>> {
    if !list.iter().any(|g| g == KEEP_GROUPS) {
        return Ok(list.to_vec());
    }
    if list.len() > 1 {
        let text = "the '--group-add keep-groups' option is not allowed with any other --group-add options";
        return Err(usage(text).into());
    }
    Ok(Vec::new())
}

fn dns(net: Net) -> Result<DnsOptions> {
    let address = |text: &String| {
        let parsed = text.parse();
        parsed.map_err(|_| usage(format!("--dns {text:?} is not an IP address")).into())
    };
    Ok(DnsOptions {
        servers: net.dns.iter().map(address).collect::<Result<_>>()?,
        search: net.dns_search,
        options: net.dns_option,
    })
}

fn security(rights: &Rights) -> Result<Security> {
    let mut security = Security {
        cap_add: rights.cap_add.clone(),
        cap_drop: rights.cap_drop.clone(),
        privileged: rights.privileged,
        ..Security::default()
    };
    for option in &rights.security_opt {
        values::security_opt(&mut security, option)?;
    }
    Ok(security)
}

fn ulimits(list: &[String]) -> Result<Vec<Ulimit>> {
    let wanted = list.iter().filter(|text| *text != "host");
    wanted.map(|text| values::ulimit(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_kept() {
        let line = [
            "rless",
            "run",
            "--creds",
            "u:p",
            "--creds=u:p",
            "--name",
            "x",
            "i",
        ];
        assert_eq!(
            typed(line.iter().map(Into::into)),
            [
                "rless",
                "run",
                "--creds",
                "***",
                "--creds=***",
                "--name",
                "x",
                "i"
            ]
        );
    }
}
