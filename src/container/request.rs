//! What a user asks for, as a plain struct: every front end fills one, [`super::spec`] turns it into
//! a runtime-spec configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::descriptors::Asked;
use super::devices::Device;
use super::env::Setting;
use super::health;
use super::logs::LogConfig;
use super::mounts::MountRequest;
use super::notify::Mode;
use super::restart::Restart;
use super::shared::Sharing;
use crate::error::Result;
use crate::network::NetworkMode;
use crate::network::files::{AddHost, DnsOptions};
use crate::network::ports::PortMapping;
use crate::runtime::idmap::Userns;
use crate::store::PullOptions;

/// Gives the text of a template over a container as `inspect` shows it.
pub type FillIn = fn(&serde_json::Value, &str) -> Result<String>;

/// A container to be made and run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// Reference, id, `rootfs:/PATH`, `oci:DIR`, `oci-archive:FILE` or `docker-archive:FILE`.
    pub image: String,
    /// `--rootfs`: `image` is a host directory.
    pub rootfs: bool,
    /// Command and arguments; empty: the image's.
    pub command: Vec<String>,
    /// `--entrypoint`; an empty list clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `--name`.
    pub name: Option<String>,
    /// `--replace`: remove a container of that name first.
    pub replace: bool,
    /// `-e`, after the files' settings.
    pub env: Vec<Setting>,
    /// `--env-host`.
    pub env_host: bool,
    /// With `env_host`: what the caller's environment was when the container was made.
    pub host_env: Vec<Setting>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `--group-add`.
    pub group_add: Vec<String>,
    /// `-h`.
    pub hostname: Option<String>,
    /// `-i`.
    pub interactive: bool,
    /// `-t`.
    pub tty: bool,
    /// `-d`.
    pub detach: bool,
    /// `--rm`.
    pub remove: bool,
    /// `--rmi`: what was asked for of its image goes then, too, unless another container uses it.
    #[serde(default)]
    pub remove_image: bool,
    /// `--init`.
    pub init: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `--read-only-tmpfs`.
    pub read_only_tmpfs: bool,
    /// `-v`, `--mount`, `--tmpfs`, in that order.
    pub mounts: Vec<MountRequest>,
    /// `--device`.
    pub devices: Vec<Device>,
    /// `--preserve-fds`, `--preserve-fd`; of one run only.
    #[serde(skip)]
    pub descriptors: Asked,
    /// `--shm-size`, bytes.
    pub shm_size: Option<u64>,
    /// `--storage-opt size=`, bytes that the container's changes may take.
    pub storage_size: Option<u64>,
    /// How images are pulled; not kept, for the credentials in it.
    #[serde(skip)]
    pub pull: PullOptions,
    /// `-q`: no progress while pulling.
    pub quiet: bool,
    /// `--network`.
    pub network: NetworkMode,
    /// `-p`.
    pub ports: Vec<PortMapping>,
    /// `--add-host`.
    pub add_hosts: Vec<AddHost>,
    /// `--no-hosts`.
    pub no_hosts: bool,
    /// `--dns`, `--dns-search`, `--dns-option`.
    pub dns: DnsOptions,
    /// `--userns`.
    pub userns: Userns,
    /// `--cap-add`, `--cap-drop`, `--privileged`, `--security-opt`.
    pub security: Security,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<Ulimit>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of the control group.
    pub limits: Limits,
    /// `--timeout`, seconds that a run may take.
    pub timeout: Option<u64>,
    /// `--no-hostname`.
    pub no_hostname: bool,
    /// `--passwd`, `--passwd-entry`, `--group-entry`.
    pub account: AccountLines,
    /// `--stop-signal`.
    pub stop_signal: Option<i32>,
    /// `--stop-timeout`, seconds.
    pub stop_timeout: Option<u64>,
    /// `--restart`.
    pub restart: Restart,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// `--cidfile`.
    pub cidfile: Option<PathBuf>,
    /// `--pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `--sig-proxy`.
    pub sig_proxy: bool,
    /// `--detach-keys`, as typed.
    pub detach_keys: Option<String>,
    /// `--log-driver`, `--log-opt`.
    pub log: LogConfig,
    /// Fills in the template that the log's tag may be, from what `inspect` says.
    #[serde(skip)]
    pub fill_in: Option<FillIn>,
    /// `--health-*`.
    pub health: health::Asked,
    /// `--http-proxy`: the caller's proxy variables reach the container.
    pub http_proxy: bool,
    /// With `http_proxy`: what they were when the container was made.
    pub proxies: Vec<Setting>,
    /// `--env-merge`: settings whose values name variables of the image.
    pub env_merge: Vec<Setting>,
    /// `--unsetenv`.
    pub unset_env: Vec<String>,
    /// `--unsetenv-all`.
    pub unset_env_all: bool,
    /// `--umask`.
    pub umask: Option<u32>,
    /// `--tz`: a name below /usr/share/zoneinfo, or `local`.
    pub tz: Option<String>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `-P`: publish every exposed port.
    pub publish_all: bool,
    /// `--image-volume`.
    pub image_volume: ImageVolume,
    /// `-a`: the streams that the caller sees; `None`: both.
    pub attach: Option<Streams>,
    /// The command line that made it, without credentials, for `inspect`.
    pub typed: Vec<String>,
    /// `--sdnotify`.
    pub sdnotify: Mode,
    /// `--expose`, as `80/tcp`.
    pub expose: Vec<String>,
    /// `--volumes-from`.
    pub volumes_from: Vec<From>,
    /// `--pid`, `--ipc`, `--uts`.
    pub sharing: Sharing,
}

/// Lines for a user and a group that the image does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountLines {
    /// There are such lines.
    pub lines: bool,
    /// The user's, with `$USERNAME`, `$UID`, `$GID`, `$NAME` and `$HOME` in it.
    pub passwd: Option<String>,
    /// The group's, with `$GID` in it.
    pub group: Option<String>,
}

impl Default for AccountLines {
    fn default() -> Self {
        AccountLines {
            lines: true,
            passwd: None,
            group: None,
        }
    }
}

/// What the image's volumes become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageVolume {
    /// Volumes without a name.
    #[default]
    Anonymous,
    /// A tmpfs each.
    Tmpfs,
    /// Nothing: they are plain directories.
    Ignore,
}

/// Which of the container's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Standard output.
    pub out: bool,
    /// Standard error.
    pub err: bool,
}

impl Default for Streams {
    fn default() -> Self {
        Streams {
            out: true,
            err: true,
        }
    }
}

/// A container whose volumes are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct From {
    /// Its name or id, as typed.
    pub container: String,
    /// As typed, for `inspect`.
    pub options: String,
    /// Other than there.
    pub read_only: Option<bool>,
}

/// What the process may do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// `--cap-add`, normalised (`CAP_NET_RAW`, `ALL`).
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--privileged`.
    pub privileged: bool,
    /// `no-new-privileges`.
    pub no_new_privileges: bool,
    /// `seccomp=…`.
    pub seccomp: Seccomp,
    /// `apparmor=…`.
    pub apparmor: Option<String>,
    /// `mask=PATH:PATH`.
    pub mask: Vec<String>,
    /// `unmask=PATH:PATH`, or `ALL`.
    pub unmask: Vec<String>,
}

/// Which system calls are filtered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile file, in docker's format.
    File(PathBuf),
}

/// A resource limit of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`.
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Limits of the container's control group; `None`: not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// `-m`, bytes; 0 unlimited.
    pub limit: Option<i64>,
    /// `--memory-swap`, bytes of memory and swap together; -1 unlimited.
    pub swap: Option<i64>,
    /// `--memory-reservation`, bytes.
    pub reservation: Option<i64>,
    /// `--memory-high`, bytes; 0 unlimited.
    pub high: Option<i64>,
}

/// Bounds of block I/O, by the disk's path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blkio {
    /// `--blkio-weight`, 10 to 1000; 0 the default.
    pub weight: Option<u16>,
    /// `--blkio-weight-device`.
    pub weight_device: BTreeMap<String, u16>,
    /// `--device-read-bps`, bytes a second; 0 unlimited, here and below.
    pub read_bps: BTreeMap<String, u64>,
    /// `--device-write-bps`, bytes a second.
    pub write_bps: BTreeMap<String, u64>,
    /// `--device-read-iops`, a second.
    pub read_iops: BTreeMap<String, u64>,
    /// `--device-write-iops`, a second.
    pub write_iops: BTreeMap<String, u64>,
}

/// Limits of the container's control group; `None`: not asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory.
    pub memory: Memory,
    /// `--cpus`; 0 unlimited. Not beside a quota or a period.
    pub cpus: Option<f64>,
    /// `--cpu-shares`.
    pub cpu_shares: Option<u64>,
    /// `--cpu-quota`, microseconds in a period; -1 unlimited.
    pub cpu_quota: Option<i64>,
    /// `--cpu-period`, microseconds.
    pub cpu_period: Option<u64>,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: Option<String>,
    /// `--cpuset-mems`.
    pub cpuset_mems: Option<String>,
    /// `--pids-limit`; 0 or -1 unlimited.
    pub pids: Option<i64>,
    /// `--blkio-weight`, `--device-read-bps` and so on.
    pub blkio: Blkio,
    /// `--cgroup-conf`: of these and another field about the same file it is these that hold.
    pub conf: BTreeMap<String, String>,
}

impl Limits {
    /// Something was asked for.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Limits::default()
    }

    /// The files of a control group that its flags are about: not those of `--cgroup-conf`, nor those with a line a disk.
    pub(super) fn files(&self) -> Vec<&'static str> {
        let memory = &self.memory;
        let cpu = self.cpus.is_some() || self.cpu_quota.is_some() || self.cpu_period.is_some();
        let files = [
            ("memory.max", memory.limit.is_some()),
            (
                "memory.swap.max",
                memory.limit.is_some() || memory.swap.is_some(),
            ),
            ("memory.low", memory.reservation.is_some()),
            ("memory.high", memory.high.is_some()),
            ("cpu.max", cpu),
            ("cpu.weight", self.cpu_shares.is_some()),
            ("cpu.weight.nice", self.cpu_shares.is_some()),
            ("cpuset.cpus", self.cpuset_cpus.is_some()),
            ("cpuset.mems", self.cpuset_mems.is_some()),
            ("pids.max", self.pids.is_some()),
        ];
        let asked = files.into_iter().filter(|(_, asked)| *asked);
        asked.map(|(file, _)| file).collect()
    }
}
