//! From a request and an image's configuration to a runtime-spec `config.json`.
//!
//! Precedence is docker's: a flag beats the image; `--entrypoint` also drops the image's `Cmd`; the
//! environment is built from the defaults, the image, the files and the flags, each over the last.
//! Nothing here touches the system: what has to be looked up (accounts, volumes, ports) comes in.

pub mod caps;
pub mod mounts;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use oci_spec::image::Config;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxDevice, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceType, LinuxResources, LinuxSeccomp, Mount, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, Root, Spec,
};

use super::env::{DEFAULT_PATH, Env};
use super::health;
use super::request::{Request, Security, Ulimit};
use super::user::User;
use crate::error::{Fault, Kind, Result, ResultExt, usage};
use crate::runtime::idmap::{IdRange, Mapping};
use crate::runtime::rootfs::{READONLY_PATHS, masked_paths};
use crate::store::Image;

/// Processes a container may have when nothing is said.
pub const DEFAULT_PIDS: i64 = 2048;

/// What an image says about how to run it; all empty for a host directory.
#[derive(Debug, Clone, Default)]
pub struct ImageSays {
    /// `Env`.
    pub env: Vec<String>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `WorkingDir`.
    pub workdir: String,
    /// `User`.
    pub user: String,
    /// `Volumes`, absolute paths.
    pub volumes: Vec<String>,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// `StopSignal`.
    pub stop_signal: Option<String>,
    /// `ExposedPorts`.
    pub exposed: Vec<String>,
    /// `Healthcheck`, Docker's extension: not in `Config`, see [`ImageSays::of_image`].
    pub healthcheck: Option<health::Check>,
}

impl ImageSays {
    /// Out of an image's configuration.
    #[must_use]
    pub fn of(config: Option<&Config>) -> ImageSays {
        let Some(config) = config else {
            return ImageSays::default();
        };
        let list = |l: &Option<Vec<String>>| l.clone().unwrap_or_default();
        ImageSays {
            env: list(config.env()),
            entrypoint: list(config.entrypoint()),
            cmd: list(config.cmd()),
            workdir: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            volumes: list(config.volumes()),
            labels: config
                .labels()
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
            stop_signal: config.stop_signal().clone(),
            exposed: list(config.exposed_ports()),
            healthcheck: None,
        }
    }

    /// Out of an image of the store.
    #[must_use]
    pub fn of_image(image: &Image) -> ImageSays {
        let check = image.healthcheck.clone();
        ImageSays {
            // One that cannot be read is none, as a field that is not known.
            healthcheck: check.and_then(|c| serde_json::from_value(c).ok()),
            ..ImageSays::of(image.config.config().as_ref())
        }
    }
}

/// The command line: entry point and arguments.
///
/// # Errors
/// Neither the request nor the image names a command.
pub fn arguments(request: &Request, image: &ImageSays) -> Result<Vec<String>> {
    let (mut args, cmd) = match &request.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), &Vec::new()),
        None => (image.entrypoint.clone(), &image.cmd),
    };
    let command = if request.command.is_empty() {
        cmd
    } else {
        &request.command
    };
    args.extend_from_slice(command);
    if args.is_empty() {
        return Err(usage(
            "no command or entrypoint provided, and no CMD or ENTRYPOINT from image",
        )
        .hint(format!(
            "name a command after the image: `rless run {} sh`",
            request.image
        ))
        .into());
    }
    if let Some(bad) = args.iter().find(|a| a.contains('\0')) {
        return Err(usage(format!("the argument {bad:?} has a null byte")).into());
    }
    Ok(args)
}

/// Working directory: absolute.
///
/// # Errors
/// A relative path from the command line or the image.
pub fn workdir(request: &Request, image: &ImageSays) -> Result<String> {
    let asked = request.workdir.as_deref().unwrap_or(&image.workdir);
    match asked {
        "" => Ok("/".to_owned()),
        path if path.starts_with('/') && !path.contains('\0') => Ok(path.to_owned()),
        path => Err(Fault::new(
            Kind::NotExecutable, // podman's and docker's code
            format!("the working directory {path:?} is invalid, it needs to be an absolute path"),
        )
        .into()),
    }
}

/// The environment. `HOME` is the account's unless somebody set it.
#[must_use]
pub fn environment(
    request: &Request,
    image: &ImageSays,
    hostname: &str,
    home: &str,
) -> Vec<String> {
    let mut env = Env::default();
    env.set("PATH", DEFAULT_PATH);
    if request.tty {
        env.set("TERM", "xterm");
    }
    env.set("container", "rless");
    env.set("HOSTNAME", hostname);
    env.apply(&request.proxies);
    env.apply(&request.host_env);
    env.set_image(&image.env);
    for setting in &request.env_merge {
        let value = env.expand(setting.value.as_deref().unwrap_or_default());
        env.set(&setting.name, &value);
    }
    request.unset_env.iter().for_each(|name| env.remove(name));
    if request.unset_env_all {
        env.clear();
        env.set("HOSTNAME", hostname);
    }
    env.apply(&request.env);
    env.set_default("HOME", home);
    env.into_strings()
}

/// Annotation of a container whose HOME its image or a flag has set: `exec` as another user leaves it then.
pub const HOME_ANNOTATION: &str = "io.rless.home";

/// Whether somebody set HOME, so that it is not the account's.
#[must_use]
pub fn sets_home(request: &Request, image: &ImageSays) -> bool {
    let host = || std::env::var_os("HOME").is_some();
    let given = |s: &super::env::Setting| s.name == "HOME" && (s.value.is_some() || host());
    image.env.iter().any(|e| e.starts_with("HOME="))
        || request.env.iter().any(given)
        || (request.env_host && host())
}

/// Everything [`build`] puts together.
#[derive(Debug)]
pub struct Parts<'a> {
    /// What the user wants.
    pub request: &'a Request,
    /// [`arguments`].
    pub args: Vec<String>,
    /// [`workdir`].
    pub cwd: String,
    /// [`environment`].
    pub env: Vec<String>,
    /// [`sets_home`].
    pub sets_home: bool,
    /// Who it runs as.
    pub user: &'a User,
    /// Host name.
    pub hostname: &'a str,
    /// Id maps.
    pub mapping: &'a Mapping,
    /// [`caps::bounding`].
    pub bounding: Capabilities,
    /// The filter; `None`: unconfined.
    pub seccomp: Option<LinuxSeccomp>,
    /// [`mounts::all`].
    pub mounts: Vec<Mount>,
    /// Sysctls that the network needs.
    pub network_sysctls: Vec<(String, String)>,
    /// Namespaces joined instead of made.
    pub join: Vec<(LinuxNamespaceType, PathBuf)>,
    /// The host's network and so on: namespaces that are not made.
    pub shared: Vec<LinuxNamespaceType>,
    /// Path of the control group, as the spec shows it.
    pub cgroup: Option<PathBuf>,
    /// [`super::limits::resources`].
    pub resources: LinuxResources,
    /// Device nodes of the host.
    pub devices: Vec<LinuxDevice>,
}

/// The configuration.
///
/// # Errors
/// A sysctl or limit that cannot be given to a container, a malformed limit.
pub fn build(parts: Parts<'_>) -> Result<Spec> {
    let request = parts.request;
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"));
    root.set_readonly(Some(request.read_only));
    let mut annotations: HashMap<String, String> =
        request.annotations.clone().into_iter().collect();
    if parts.sets_home {
        annotations.insert(HOME_ANNOTATION.to_owned(), "given".to_owned());
    }
    let mut spec = Spec::default();
    spec.set_version("1.2.0".to_owned());
    spec.set_root(Some(root));
    spec.set_hostname(Some(parts.hostname.to_owned()));
    spec.set_annotations((!annotations.is_empty()).then_some(annotations));
    spec.set_linux(Some(linux(&parts)?));
    spec.set_process(Some(process(&parts)?));
    spec.set_mounts(Some(parts.mounts));
    Ok(spec)
}

fn process(parts: &Parts<'_>) -> Result<Process> {
    let request = parts.request;
    let mut user = oci_spec::runtime::User::default();
    user.set_uid(parts.user.uid);
    user.set_gid(parts.user.gid);
    user.set_umask(Some(request.umask.unwrap_or(0o022)));
    user.set_additional_gids(Some(parts.user.groups.clone()));
    let mut process = Process::default();
    process.set_terminal(Some(request.tty));
    process.set_user(user);
    process.set_args(Some(parts.args.clone()));
    process.set_env(Some(parts.env.clone()));
    process.set_cwd(PathBuf::from(&parts.cwd));
    process.set_capabilities(Some(caps::sets(&parts.bounding, parts.user.uid)));
    process.set_rlimits(Some(rlimits(&request.ulimits)?));
    process.set_no_new_privileges(Some(request.security.no_new_privileges));
    process.set_oom_score_adj(request.oom_score_adj);
    process.set_apparmor_profile(request.security.apparmor.clone());
    Ok(process)
}

fn linux(parts: &Parts<'_>) -> Result<Linux> {
    let request = parts.request;
    let mut linux = Linux::default();
    linux.set_uid_mappings(Some(id_mappings(&parts.mapping.uids)?));
    linux.set_gid_mappings(Some(id_mappings(&parts.mapping.gids)?));
    linux.set_namespaces(Some(namespaces(parts)));
    linux.set_sysctl(Some(sysctls(parts)?));
    linux.set_resources(Some(parts.resources.clone()));
    linux.set_cgroups_path(parts.cgroup.clone());
    linux.set_seccomp(parts.seccomp.clone());
    linux.set_devices((!parts.devices.is_empty()).then(|| parts.devices.clone()));
    let (masked, readonly) = guarded_paths(&request.security);
    linux.set_masked_paths(Some(masked));
    linux.set_readonly_paths(Some(readonly));
    Ok(linux)
}

fn id_mappings(ranges: &[IdRange]) -> Result<Vec<LinuxIdMapping>> {
    let one = |r: &IdRange| {
        let builder = LinuxIdMappingBuilder::default().container_id(r.container);
        Ok(builder.host_id(r.host).size(r.count).build()?)
    };
    ranges.iter().map(one).collect()
}

fn namespaces(parts: &Parts<'_>) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as Type;
    let kinds = [
        Type::User,
        Type::Mount,
        Type::Pid,
        Type::Network,
        Type::Ipc,
        Type::Uts,
        Type::Cgroup,
    ];
    let kinds = kinds.into_iter().filter(|k| !parts.shared.contains(k));
    kinds
        .map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            let joined = parts.join.iter().find(|(k, _)| *k == kind);
            namespace.set_path(joined.map(|(_, path)| path.clone()));
            namespace
        })
        .collect()
}

/// Only what a namespace of the container's own holds may be set.
fn sysctls(parts: &Parts<'_>) -> Result<HashMap<String, String>> {
    let own_network = !parts.shared.contains(&LinuxNamespaceType::Network)
        && !parts
            .join
            .iter()
            .any(|(k, _)| *k == LinuxNamespaceType::Network);
    let mut all: HashMap<String, String> = parts.network_sysctls.iter().cloned().collect();
    for (name, value) in &parts.request.sysctls {
        let name = name.replace('/', ".");
        let ipc = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shm_rmid_forced",
        ];
        let ipc = ipc.contains(&name.as_str())
            || ["kernel.shmall", "kernel.shmmax", "kernel.shmmni"].contains(&name.as_str())
            || name.starts_with("fs.mqueue.");
        let network = name.starts_with("net.");
        if network && !own_network {
            return Err(usage(format!(
                "sysctl {name}: the network namespace is not the container's own"
            ))
            .hint("leave --network out, or say --network none")
            .into());
        }
        if ipc && parts.shared.contains(&LinuxNamespaceType::Ipc) {
            return Err(usage(format!(
                "sysctl {name}: the IPC namespace is not the container's own"
            ))
            .hint("leave --ipc host out")
            .into());
        }
        if !network && !ipc {
            return Err(usage(format!(
                "sysctl {name} is not namespaced: it would change the host"
            ))
            .hint("net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm* can be set")
            .into());
        }
        all.insert(name, value.clone());
    }
    Ok(all)
}

/// Masked and read-only paths.
fn guarded_paths(security: &Security) -> (Vec<String>, Vec<String>) {
    let all = security.privileged || security.unmask.iter().any(|u| u == "ALL");
    let kept = |path: &String| !all && !security.unmask.iter().any(|u| matches_path(u, path));
    let paths = masked_paths().into_iter();
    let mut masked: Vec<String> = paths
        .map(|p| p.to_string_lossy().into_owned())
        .filter(kept)
        .collect();
    masked.extend(security.mask.iter().cloned());
    let read_only = READONLY_PATHS.iter().map(|p| (*p).to_owned());
    (masked, read_only.filter(kept).collect())
}

/// `/proc/*` unmasks everything below `/proc`, `/sys/…/cpu*/thermal_throttle` each CPU's.
fn matches_path(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        Some((prefix, suffix)) => path.starts_with(prefix) && path.ends_with(suffix),
        None => pattern.trim_end_matches('/') == path,
    }
}

/// The limits asked for, and nofile and nproc as high as the caller's own allow, up to 1048576.
fn rlimits(asked: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    use nix::sys::resource::{Resource, getrlimit};
    const HIGH: u64 = 1 << 20;
    let limit = |typ, soft, hard| {
        let builder = PosixRlimitBuilder::default().typ(typ);
        Ok::<_, anyhow::Error>(builder.soft(soft).hard(hard).build()?)
    };
    let mut all = Vec::new();
    for (typ, resource) in [
        (PosixRlimitType::RlimitNofile, Resource::RLIMIT_NOFILE),
        (PosixRlimitType::RlimitNproc, Resource::RLIMIT_NPROC),
    ] {
        let own = getrlimit(resource).map_or(HIGH, |(_, hard)| hard);
        all.push(limit(typ, own.min(HIGH), own.min(HIGH))?);
    }
    for ulimit in asked {
        let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
        let typ: PosixRlimitType = serde_json::from_value(name.clone().into())
            .fault(|| usage(format!("ulimit {}: there is no such limit", ulimit.name)))?;
        all.retain(|r| r.typ() != typ);
        all.push(limit(typ, ulimit.soft, ulimit.hard)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
