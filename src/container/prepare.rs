//! Preparing a start, each time anew: mapping, network, account files, file system, specification, limits.
//!
//! What can be refused is looked at here, in the process that starts the container and without threads, so
//! that it is told where the command was typed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use oci_spec::runtime::Spec;

use super::descriptors::Descriptors;
use super::draft::careful_json;
use super::limits;
use super::make::{self, Stored};
use super::notify::{self, Notify};
use super::record::{Containers, Place, Record, State};
use super::request::{Request, Seccomp};
use super::spec::mounts::{Defaults, Ipc, Resolved, SHM_SIZE};
use super::spec::{self, ImageSays, Parts};
use super::supervisor::Job;
use super::user::{self, User};
use super::{image, shared, terminal, volumes};
use crate::cow::Cow;
use crate::error::{Result, ResultExt, failed, usage};
use crate::network::{self, NetworkMode, Published};
use crate::runtime::idmap::{Mapping, Rung, Userns};
use crate::runtime::seccomp;
use crate::store::Store;
use crate::store::files::Lock;
use crate::{cgroup, cow, trace};

/// Largest account file of an image that is read.
const ACCOUNTS_LIMIT: u64 = 1 << 20;

/// What a container stands on.
#[derive(Debug)]
pub struct Ground {
    /// Its id maps.
    pub mapping: Mapping,
    /// Its image.
    pub image: image::Chosen,
}

/// A container's directories, and the right to change it.
#[derive(Debug)]
pub struct Held {
    /// The directories.
    pub place: Place,
    /// Its lock.
    pub lock: Lock,
}

/// Everything its supervisor needs, and the ports that were found for it. `record` is completed, not written.
///
/// # Errors
/// What was asked for cannot be had (any more).
pub fn prepare(
    store: &Store,
    containers: &Containers,
    stored: &Stored,
    ground: Ground,
    held: Held,
    mut record: Record,
) -> Result<(Job, Vec<Published>)> {
    let Ground { mapping, image } = ground;
    let (request, place) = (&stored.request, held.place);
    let cgroups = cgroup::detect();
    shared::check_ends(request, &cgroups)?;
    let hostname = match &request.sharing.uts {
        Some(id) => shared::spec(containers, id)?.hostname().clone(),
        None => None,
    };
    let hostname = hostname.unwrap_or_else(|| self::hostname(request, &record.id));
    let network = network::prepare(&network::Request {
        mode: &request.network,
        ports: &request.ports,
        hostname: &hostname,
        aliases: &[&record.name],
        add_hosts: &request.add_hosts,
        dns: &request.dns,
        cache: store.runtime(),
    })?;
    trace::mark("network prepared");
    let root = cow::Options {
        lower: image.lower.clone(),
        upper: Some(place.upper()),
        squash: squash(&mapping),
        size_limit: request.storage_size,
        stats: std::env::var_os("RLESS_FUSE_STATS").map(PathBuf::from),
    };
    let cow = Cow::open(root.clone())?;
    trace::mark("cow open");
    let says = &image.says;
    let form = user_form(request, says);
    let accounts = Accounts::read(&cow, &form)?;
    let cwd = spec::workdir(request, says)?;
    let mut user = accounts.resolve(&form, &request.group_add, &mapping)?;
    let new_accounts = accounts.with(request, &user, &cwd);
    if let (Some(text), _) = &new_accounts {
        // Of the line that was just made for it.
        user.home = user::home(text, user.uid);
    }
    let mut files = files(&place.files(), request, &network, new_accounts)?;
    if let Some(id) = shared::other(&request.network) {
        let theirs = containers.place(id).files();
        files.retain(|(target, _)| *target != "/etc/hosts");
        for (target, name) in [("/etc/hosts", "hosts"), ("/etc/resolv.conf", "resolv.conf")] {
            let path = theirs.join(name);
            if path.exists() {
                files.retain(|(t, _)| *t != target);
                files.push((target, path));
            }
        }
    }
    let notify = Notify::prepare(request.sdnotify, &place.files())?;
    let told = notify.as_ref().and_then(|n| n.file(&place.files()));
    let asks = told.is_some();
    files.extend(told.map(|path| (notify::INSIDE, path)));
    trace::mark("files written");
    let volumes = stored.mounts.iter().filter(|m| m.volume.is_some());
    for content in volumes.filter_map(|m| m.source.as_ref()) {
        volumes::adopt(content)?;
    }
    let mut spec = build_spec(
        request,
        says,
        &mapping,
        &user,
        &hostname,
        cwd,
        &stored.mounts,
        &files,
        &cgroups,
    )?;
    if asks {
        give_socket(&mut spec);
    }
    let limits = kept(&spec, &cgroups)?;
    let args = spec.process().as_ref().and_then(|p| p.args().clone());
    record.command = args.unwrap_or_default();
    record.ports = network.ports.iter().map(make::port).collect();
    record.state = State::Starting;
    careful_json(&place.dir.join("config.json"), &spec)?;
    let job = Job {
        containers: containers.clone(),
        place,
        before: None,
        lock: held.lock,
        record,
        emulate_ids: mapping.rung == Rung::SingleId,
        mapping,
        cow: Some(cow),
        root,
        pasta: network.pasta,
        shares: shared::whose(request).map(str::to_owned),
        passed: None,
        descriptors: Descriptors::default(),
        notify,
        cgroups,
        limits,
        terminal: request.tty.then(|| {
            let usual = crate::sys::tty::WindowSize {
                rows: 24,
                columns: 80,
            };
            terminal::size().unwrap_or(usual)
        }),
        timeout: request.timeout.map(Duration::from_secs),
        interactive: request.interactive,
        input_once: request.interactive && !request.detach,
        attached: false,
        init: request.init,
        seccomp_cache: store.data().join("seccomp"),
        spec,
    };
    Ok((job, network.ports))
}

/// Tells the container where it may tell the service manager how it is.
fn give_socket(spec: &mut Spec) {
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.retain(|e| !e.starts_with("NOTIFY_SOCKET="));
        env.push(format!("NOTIFY_SOCKET={}", notify::INSIDE));
        process.set_env(Some(env));
    }
}

fn hostname(request: &Request, id: &str) -> String {
    let own = || id[..12].to_owned();
    match &request.hostname {
        Some(name) => name.clone(),
        None if request.network == NetworkMode::Host || request.sharing.host_uts => {
            nix::unistd::gethostname().map_or_else(|_| own(), |n| n.to_string_lossy().into_owned())
        }
        None => own(),
    }
}

/// In single-id mode every file belongs to the one id there is.
fn squash(mapping: &Mapping) -> Option<(u32, u32)> {
    let (uid, gid) = (mapping.uids.first()?, mapping.gids.first()?);
    (mapping.rung == Rung::SingleId).then_some((uid.container, gid.container))
}

/// Who it runs as: `-u`, else with keep-id the caller, else as the image says.
fn user_form(request: &Request, says: &ImageSays) -> String {
    match (&request.user, &request.userns) {
        (Some(form), _) => form.clone(),
        (None, Userns::KeepId { uid, gid }) => {
            let uid = uid.unwrap_or(nix::unistd::getuid().as_raw());
            let gid = gid.unwrap_or(nix::unistd::getgid().as_raw());
            format!("{uid}:{gid}")
        }
        (None, _) => says.user.clone(),
    }
}

/// Name for a user that the image does not know: with keep-id the caller's, else its number.
fn account_name(request: &Request, user: &User) -> String {
    let caller = matches!(request.userns, Userns::KeepId { .. }) && request.user.is_none();
    let name = caller.then(|| std::env::var("USER").ok()).flatten();
    name.filter(|n| super::names::check(n).is_ok())
        .unwrap_or_else(|| user.uid.to_string())
}

/// The image's account files, bounded; empty where there are none.
#[derive(Debug)]
struct Accounts {
    passwd: Option<String>,
    group: Option<String>,
}

impl Accounts {
    fn read(cow: &Cow, form: &str) -> Result<Accounts> {
        let text = |path: &str| -> Result<Option<String>> {
            let bytes = cow.read_file(Path::new(path), ACCOUNTS_LIMIT);
            // Somebody who runs as plain numbers, or as root, need not fail for a strange file.
            let needed = form.bytes().any(|b| !b.is_ascii_digit() && b != b':');
            match bytes {
                Err(e) if needed => Err(e.context(format!("reading the image's {path}"))),
                Err(_) => Ok(None),
                Ok(bytes) => Ok(bytes.map(|b| String::from_utf8_lossy(&b).into_owned())),
            }
        };
        Ok(Accounts {
            passwd: text("/etc/passwd")?,
            group: text("/etc/group")?,
        })
    }

    /// The files with lines for a user and a group that the image does not know; only those that change.
    fn with(&self, request: &Request, user: &User, cwd: &str) -> (Option<String>, Option<String>) {
        let (passwd, group) = (self.passwd.as_deref(), self.group.as_deref());
        let (new_passwd, new_group) = user::with_entries(
            user,
            &account_name(request, user),
            cwd,
            &request.account,
            passwd.unwrap_or_default(),
            group.unwrap_or_default(),
        );
        (
            new_passwd.filter(|_| passwd.is_some()),
            new_group.filter(|_| group.is_some()),
        )
    }

    fn resolve(&self, form: &str, add: &[String], mapping: &Mapping) -> Result<User> {
        let passwd = self.passwd.as_deref().unwrap_or_default();
        let group = self.group.as_deref().unwrap_or_default();
        let user = user::resolve(form, add, passwd, group)?;
        if mapping.rung == Rung::SingleId {
            return Ok(user);
        }
        if mapping.host_uid(user.uid).is_none() || mapping.host_gid(user.gid).is_none() {
            return Err(failed(format!(
                "user {}:{} is outside the ids this container has",
                user.uid, user.gid
            ))
            .hint("a larger range in /etc/subuid and /etc/subgid gives it more ids; `rless info` shows them")
            .into());
        }
        Ok(user)
    }
}

/// The host's file of a time zone, or of its own.
fn time_zone(name: &str) -> Result<Vec<u8>> {
    let path = match name {
        "local" => PathBuf::from("/etc/localtime"),
        name => Path::new("/usr/share/zoneinfo").join(name),
    };
    let plain = |c| matches!(c, std::path::Component::Normal(_));
    if name.is_empty() || !Path::new(name).components().all(plain) {
        return Err(usage(format!("invalid time zone {name:?}")).into());
    }
    fs::read(&path).fault(|| failed(format!("finding timezone {name}: {}", path.display())))
}

/// Files made for this container, by target.
type Files = Vec<(&'static str, PathBuf)>;

fn files(
    dir: &Path,
    request: &Request,
    network: &network::Setup,
    new_accounts: (Option<String>, Option<String>),
) -> Result<Files> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making {}", dir.display()))?;
    let mut files = Files::new();
    let mut write = |target: &'static str, text: &[u8]| -> Result<()> {
        use std::io::Write;
        let path = dir.join(target.rsplit('/').next().unwrap_or(target));
        let mut options = fs::File::options();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&path);
        file.and_then(|mut f| {
            // Everyone in the container reads these, whatever the caller's umask.
            f.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            f.write_all(text)
        })
        .with_context(|| format!("writing {}", path.display()))?;
        files.push((target, path));
        Ok(())
    };
    if !request.no_hosts {
        write("/etc/hosts", network.hosts.as_bytes())?;
    }
    if !request.no_hostname {
        write("/etc/hostname", network.hostname.as_bytes())?;
    }
    write("/etc/resolv.conf", network.resolv_conf.as_bytes())?;
    write("/run/.containerenv", b"")?;
    if let Some(zone) = &request.tz {
        write("/etc/localtime", &time_zone(zone)?)?;
    }
    let (passwd, group) = new_accounts;
    if let Some(text) = passwd {
        write("/etc/passwd", text.as_bytes())?;
    }
    if let Some(text) = group {
        write("/etc/group", text.as_bytes())?;
    }
    Ok(files)
}

// Each of these is a part of the specification; a struct would repeat `Parts`.
#[allow(clippy::too_many_arguments)]
fn build_spec(
    request: &Request,
    says: &ImageSays,
    mapping: &Mapping,
    user: &User,
    hostname: &str,
    cwd: String,
    mounts: &[Resolved],
    files: &Files,
    cgroups: &cgroup::Availability,
) -> Result<oci_spec::runtime::Spec> {
    let joins = shared::all(request);
    let joins = joins
        .into_iter()
        .map(|(kind, id)| (kind, PathBuf::from(id)));
    let joined = shared::other(&request.network).is_some();
    let own_network = request.network.is_private() || joined;
    let mut wanted = mounts.to_vec();
    for device in &request.devices {
        for mount in device.mounts()? {
            // Named twice, or by its directory besides: one node all the same.
            if !wanted.contains(&mount) {
                wanted.push(mount);
            }
        }
    }
    let mounts = spec::mounts::all(
        Defaults {
            shm_size: request.shm_size.unwrap_or(SHM_SIZE),
            own_network,
            own_processes: !request.sharing.host_pid,
            ipc: ipc(request),
            tty_group: mapping.host_gid(5).is_some(),
            privileged: request.security.privileged,
            writable_tmp: request.read_only && request.read_only_tmpfs,
        },
        files,
        &wanted,
    )?;
    let bounding = spec::caps::bounding(&request.security)?;
    let filter = match &request.security.seccomp {
        _ if request.security.privileged => None,
        Seccomp::Unconfined => None,
        Seccomp::Default => Some(seccomp::default_profile(&bounding)),
        Seccomp::File(path) => {
            let doing = || usage(format!("reading the seccomp profile {}", path.display()));
            let json = fs::read(path).fault(doing)?;
            Some(seccomp::parse_profile(&json, &bounding).fault(doing)?)
        }
    };
    let last_gid = mapping
        .gids
        .iter()
        .map(|r| r.container + (r.count - 1))
        .max();
    let request = with_default_limits(request, cgroups);
    spec::build(Parts {
        request: &request,
        args: spec::arguments(&request, says)?,
        cwd,
        sets_home: spec::sets_home(&request, says),
        env: spec::environment(&request, says, hostname, &user.home),
        user,
        hostname,
        mapping,
        bounding,
        seccomp: filter,
        mounts,
        network_sysctls: network::sysctls(&request.network, last_gid.unwrap_or(0)),
        join: joins.collect(),
        shared: shared::of_host(&request),
        cgroup: None,
        resources: limits::resources(&request.limits)?,
        devices: Vec::new(),
    })
}

/// What there is of shared memory and message queues.
fn ipc(request: &Request) -> Ipc {
    match (request.sharing.host_ipc, request.sharing.shm) {
        // Not every host has message queues to look at.
        (true, _) => Ipc::Host {
            queues: Path::new("/dev/mqueue").is_dir(),
        },
        (false, shared::Shm::None) => Ipc::NoShm,
        (false, _) => Ipc::Own,
    }
}

/// The limits of the container's control group, refused here if they cannot be kept.
fn kept(spec: &oci_spec::runtime::Spec, cgroups: &cgroup::Availability) -> Result<cgroup::Limits> {
    let resources = spec.linux().as_ref().and_then(|l| l.resources().clone());
    let limits = cgroup::Limits::from_resources(&resources.unwrap_or_default())?;
    cgroups.check(&limits)?;
    Ok(limits)
}

/// A default limit is for those who can have one; a limit asked for is an error where it cannot be kept.
pub(super) fn with_default_limits(request: &Request, cgroups: &cgroup::Availability) -> Request {
    let mut request = request.clone();
    if request.limits.pids.is_none() && cgroups.controllers.iter().any(|c| c == "pids") {
        request.limits.pids = Some(spec::DEFAULT_PIDS);
    }
    request
}
