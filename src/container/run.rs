//! `run`: from a request to a container under its supervisor, with the caller attached or not.
//!
//! Everything that can be refused is looked at before the fork, in this process and without
//! threads: image, names, accounts, ports, limits, mounts. What is made on the way is unmade when a later
//! step fails. A pull, which needs threads, happens in a child process.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::Timestamp;
use oci_spec::runtime::LinuxNamespaceType;

use super::attach::{Attach, Ended, attach, wait_started};
use super::events::Action;
use super::mounts::{MountRequest, Source};
use super::record::{Containers, Port, Record, Reserved, State, quick_json};
use super::request::{Request, Seccomp};
use super::spec::mounts::{Defaults, Resolved, SHM_SIZE};
use super::spec::{self, ImageSays, Parts};
use super::supervisor::{self, Job};
use super::terminal::{self, DetachKeys};
use super::user::{self, User};
use super::{host, image, logs, remove, volumes};
use crate::cow::Cow;
use crate::error::{Result, ResultExt, failed, usage};
use crate::network::{self, NetworkMode};
use crate::runtime::idmap::{self, Mapping, Rung, Userns};
use crate::runtime::seccomp;
use crate::store::files::Lock;
use crate::store::{Progress, Store};
use crate::{cgroup, cow, trace};

/// Largest account file of an image that is read.
const ACCOUNTS_LIMIT: u64 = 1 << 20;

/// How a run ended, for a front end to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The container ended with this code; the text, if any, is for the user.
    Exited(u8, String),
    /// It did not start: exit code and report.
    NotStarted(u8, String),
    /// It goes on by itself: its id, to be printed if it was started so.
    Running(String),
}

/// Makes a container and runs it, in the foreground unless the request says otherwise.
///
/// # Errors
/// Whatever is found before the supervisor starts; nothing is left then.
pub fn run(store: &Store, request: &Request, progress: &dyn Progress) -> Result<Outcome> {
    check(request)?;
    let keys = request.detach_keys.as_deref().unwrap_or("ctrl-p,ctrl-q");
    let keys = DetachKeys::parse(keys)?;
    let containers = Containers::of(store);
    containers.heal_live();
    let job = create(store, &containers, request, progress)?;
    let id = job.record.id.clone();
    containers.emit(&job.record, Action::Create);
    let attached = containers.later(&job.record, Action::Attach);
    let (socket, supervisor) = supervisor::launch(job).inspect_err(|_| {
        let _ = containers.discard(&id);
    })?;
    let ended = if request.detach {
        wait_started(&socket)?
    } else {
        attach(
            socket,
            Attach {
                tty: request.tty,
                input: request.interactive,
                sig_proxy: request.sig_proxy,
                keys,
                tell: Some(attached),
            },
        )?
    };
    if ended != Ended::Detached {
        let _ = nix::sys::wait::waitpid(supervisor, None);
        trace::mark("supervisor gone");
    }
    Ok(match ended {
        Ended::Exited(code, note) => Outcome::Exited(u8::try_from(code).unwrap_or(255), note),
        Ended::NotStarted(code, text) => Outcome::NotStarted(code, text),
        Ended::Detached => Outcome::Running(id),
    })
}

fn check(request: &Request) -> Result<()> {
    if request.tty && request.interactive && !request.detach && !std::io::stdin().is_terminal() {
        return Err(usage("the input device is not a TTY")
            .hint("leave -t out: without it input may come from a pipe or a file")
            .into());
    }
    if request.replace && request.name.is_none() {
        return Err(usage("cannot replace container without --name being set").into());
    }
    if let NetworkMode::Container(_) | NetworkMode::Path(_) = request.network {
        return Err(usage(format!(
            "--network {}: joining another network namespace is not there yet",
            request.network
        ))
        .hint("one of pasta[:OPTIONS], none, host")
        .into());
    }
    logs::check(&request.log)?;
    if let Some(path) = request.cidfile.as_ref().filter(|p| p.exists()) {
        return Err(usage(format!(
            "container id file exists. Ensure another container is not using it or delete {}",
            path.display()
        ))
        .into());
    }
    Ok(())
}

/// Makes the container, ready to be started.
fn create(
    store: &Store,
    containers: &Containers,
    request: &Request,
    progress: &dyn Progress,
) -> Result<Job> {
    let mapping = idmap::plan(&request.userns, None)?;
    trace::mark("mapping planned");
    let image = image::resolve(store, request, &mapping, progress)?;
    trace::mark("image found");
    if let Some(name) = request.name.as_deref().filter(|_| request.replace) {
        remove::replace(store, name)?;
    }
    let reserved = containers.reserve(request.name.as_deref())?;
    trace::mark("reserved");
    let id = reserved.id.clone();
    let mut made = Made {
        id: id.clone(),
        ..Made::default()
    };
    let result = assemble(
        store, containers, request, mapping, image, reserved, &mut made,
    );
    // The record names them now, or nobody wants them.
    made.held.clear();
    if result.is_err() {
        if let Some(path) = &made.cidfile {
            let _ = fs::remove_file(path);
        }
        let _ = containers.discard(&id);
    }
    result
}

/// What to unmake when a later step fails.
#[derive(Debug, Default)]
struct Made {
    id: String,
    cidfile: Option<PathBuf>,
    /// Of the container's volumes, until its record is there.
    held: Vec<Lock>,
}

fn assemble(
    store: &Store,
    containers: &Containers,
    request: &Request,
    mapping: Mapping,
    image: image::Chosen,
    reserved: Reserved,
    made: &mut Made,
) -> Result<Job> {
    let place = reserved.place.clone();
    if let Some(path) = &request.cidfile {
        write_cidfile(path, &reserved.id)?;
        made.cidfile = Some(path.clone());
    }
    let hostname = hostname(request, &reserved.id);
    let network = network::prepare(&network::Request {
        mode: &request.network,
        ports: &request.ports,
        hostname: &hostname,
        aliases: &[&reserved.name],
        add_hosts: &request.add_hosts,
        dns: &request.dns,
        cache: store.runtime(),
    })?;
    trace::mark("network prepared");
    let cow = Cow::open(cow::Options {
        lower: image.lower.clone(),
        upper: Some(place.upper()),
        squash: squash(&mapping),
        size_limit: request.storage_size,
        stats: std::env::var_os("RLESS_FUSE_STATS").map(PathBuf::from),
    })?;
    trace::mark("cow open");
    let says = &image.says;
    let form = user_form(request, says);
    let accounts = Accounts::read(&cow, &form)?;
    let cwd = spec::workdir(request, says)?;
    let user = accounts.resolve(&form, &request.group_add, &mapping)?;
    let mounts = mounts(store, request, says, made)?;
    let files = files(&place.files(), request, &network, &accounts, &user, &cwd)?;
    trace::mark("files written");
    let cgroups = cgroup::detect();
    let spec = build_spec(
        request, says, &mapping, &user, &hostname, cwd, &mounts, &files, &cgroups,
    )?;
    let limits = limits(&spec, &cgroups)?;
    let record = record(request, &image, &reserved, &spec, &mounts, &network);
    quick_json(&place.dir.join("config.json"), &spec)?;
    place.write(&record)?;
    trace::mark("written");
    Ok(Job {
        containers: containers.clone(),
        place,
        lock: reserved.lock,
        record,
        emulate_ids: mapping.rung == Rung::SingleId,
        mapping,
        cow,
        pasta: network.pasta,
        cgroups,
        limits,
        terminal: request.tty.then(|| {
            let usual = crate::sys::tty::WindowSize {
                rows: 24,
                columns: 80,
            };
            terminal::size().unwrap_or(usual)
        }),
        interactive: request.interactive,
        input_once: request.interactive && !request.detach,
        init: request.init,
        seccomp_cache: store.data().join("seccomp"),
        spec,
    })
}

fn write_cidfile(path: &Path, id: &str) -> Result<()> {
    use std::io::Write;
    let file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path);
    file.and_then(|mut f| f.write_all(id.as_bytes()))
        .fault(|| failed(format!("writing the container id to {}", path.display())))
}

fn hostname(request: &Request, id: &str) -> String {
    let own = || id[..12].to_owned();
    match &request.hostname {
        Some(name) => name.clone(),
        None if request.network == NetworkMode::Host => {
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

/// The user's mounts and the image's volumes, with sources found and volumes made.
fn mounts(
    store: &Store,
    request: &Request,
    says: &ImageSays,
    made: &mut Made,
) -> Result<Vec<Resolved>> {
    let mut all = Vec::new();
    for mount in &request.mounts {
        all.push(resolve_mount(store, mount, made)?);
    }
    for target in &says.volumes {
        let Ok(target) = super::mounts::normalise(target) else {
            return Err(failed(format!(
                "the image's volume {target:?} is no absolute path below /"
            ))
            .into());
        };
        if ["/proc", "/sys"]
            .iter()
            .any(|p| Path::new(&target).starts_with(p))
        {
            return Err(failed(format!(
                "the image has a volume at {target}, which is refused"
            ))
            .into());
        }
        if all.iter().any(|m: &Resolved| m.target == target) {
            continue;
        }
        let mount = MountRequest {
            source: Source::Volume(None),
            target,
            options: Vec::new(),
            copy_up: true,
        };
        all.push(resolve_mount(store, &mount, made)?);
    }
    Ok(all)
}

fn resolve_mount(store: &Store, mount: &MountRequest, made: &mut Made) -> Result<Resolved> {
    let mut resolved = Resolved {
        target: mount.target.clone(),
        source: None,
        options: mount.options.clone(),
        copy_up: mount.copy_up && !mount.read_only(),
        volume: None,
        anonymous: false,
    };
    let root = store.volumes_dir();
    match &mount.source {
        Source::Tmpfs => {}
        Source::Bind(path) => {
            let found = fs::canonicalize(path);
            let hint =
                "bind-mounted paths must exist on the host; a name without `/` would be a volume";
            resolved.source = Some(
                found
                    .fault(|| failed(format!("mounting {path} at {}", mount.target)).hint(hint))?,
            );
        }
        Source::Volume(None) => {
            let volume = volumes::anonymous(Some(&made.id))?;
            made.held.push(volumes::hold(&root, &volume)?);
            resolved.source = Some(volumes::data(&root, &volume.name));
            (resolved.volume, resolved.anonymous) = (Some(volume.name), true);
        }
        Source::Volume(Some(name)) => {
            let volume = volumes::Volume {
                name: name.clone(),
                created: Timestamp::now().to_string(),
                anonymous: false,
                container: None,
                labels: std::collections::BTreeMap::new(),
            };
            // Stays when the run fails: by then another container may be using it.
            made.held.push(volumes::hold(&root, &volume)?);
            resolved.source = Some(volumes::data(&root, name));
            resolved.volume = Some(name.clone());
        }
    }
    Ok(resolved)
}

/// Files made for this container, by target.
type Files = Vec<(&'static str, PathBuf)>;

fn files(
    dir: &Path,
    request: &Request,
    network: &network::Setup,
    accounts: &Accounts,
    user: &User,
    cwd: &str,
) -> Result<Files> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making {}", dir.display()))?;
    let mut files = Files::new();
    let mut write = |target: &'static str, text: &str| -> Result<()> {
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
            f.write_all(text.as_bytes())
        })
        .with_context(|| format!("writing {}", path.display()))?;
        files.push((target, path));
        Ok(())
    };
    if !request.no_hosts {
        write("/etc/hosts", &network.hosts)?;
    }
    write("/etc/hostname", &network.hostname)?;
    write("/etc/resolv.conf", &network.resolv_conf)?;
    write("/run/.containerenv", "")?;
    let (passwd, group) = (accounts.passwd.as_deref(), accounts.group.as_deref());
    let (passwd_new, group_new) = user::with_entries(
        user,
        &account_name(request, user),
        cwd,
        passwd.unwrap_or_default(),
        group.unwrap_or_default(),
    );
    if let Some(text) = passwd_new.filter(|_| passwd.is_some()) {
        write("/etc/passwd", &text)?;
    }
    if let Some(text) = group_new.filter(|_| group.is_some()) {
        write("/etc/group", &text)?;
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
    let own_network = request.network.is_private();
    let mounts = spec::mounts::all(
        Defaults {
            shm_size: request.shm_size.unwrap_or(SHM_SIZE),
            own_network,
            tty_group: mapping.host_gid(5).is_some(),
            privileged: request.security.privileged,
            writable_tmp: request.read_only && request.read_only_tmpfs,
        },
        files,
        mounts,
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
    let mut request = request.clone();
    // A default limit is for those who can have one; a limit asked for is an error where it cannot be kept.
    if request.limits.pids.is_none() && cgroups.controllers.iter().any(|c| c == "pids") {
        request.limits.pids = Some(spec::DEFAULT_PIDS);
    }
    spec::build(Parts {
        request: &request,
        args: spec::arguments(&request, says)?,
        cwd,
        env: spec::environment(&request, says, hostname, &user.home),
        sets_home: spec::sets_home(&request, says),
        user,
        hostname,
        mapping,
        bounding,
        seccomp: filter,
        mounts,
        network_sysctls: network::sysctls(&request.network, last_gid.unwrap_or(0)),
        join: Vec::new(),
        shared: if own_network {
            Vec::new()
        } else {
            vec![LinuxNamespaceType::Network]
        },
        cgroup: None,
        devices: Vec::new(),
    })
}

/// The limits of the container's control group, refused here if they cannot be kept.
fn limits(
    spec: &oci_spec::runtime::Spec,
    cgroups: &cgroup::Availability,
) -> Result<cgroup::Limits> {
    let resources = spec.linux().as_ref().and_then(|l| l.resources().clone());
    let limits = cgroup::Limits::from_resources(&resources.unwrap_or_default())?;
    cgroups.check(&limits)?;
    Ok(limits)
}

fn record(
    request: &Request,
    image: &image::Chosen,
    reserved: &Reserved,
    spec: &oci_spec::runtime::Spec,
    mounts: &[Resolved],
    network: &network::Setup,
) -> Record {
    let args = spec.process().as_ref().and_then(|p| p.args().clone());
    let mut labels = image.says.labels.clone();
    labels.extend(request.labels.clone());
    let volumes = |anonymous: bool| {
        let wanted = mounts.iter().filter(|m| m.anonymous || !anonymous);
        wanted.filter_map(|m| m.volume.clone()).collect()
    };
    Record {
        version: 1,
        id: reserved.id.clone(),
        name: reserved.name.clone(),
        image: image.name.clone(),
        image_id: image.id.clone(),
        command: args.unwrap_or_default(),
        created: Some(Timestamp::now()),
        started: None,
        finished: None,
        state: State::Starting,
        init: None,
        supervisor: None,
        helpers: Vec::new(),
        boot: host::boot_id().to_owned(),
        host: host::id().to_owned(),
        exit_code: None,
        oom_killed: false,
        error: None,
        auto_remove: request.remove,
        anonymous_volumes: volumes(true),
        volumes: volumes(false),
        mounts: mounts.iter().map(|m| m.target.clone()).collect(),
        labels,
        ports: network.ports.iter().map(port).collect(),
        exposed: image.says.exposed.clone(),
        network: request.network.to_string(),
        log: request.log.clone(),
        scope: None,
        stop_timeout: None,
        stopped_by_user: false,
        storage_size: request.storage_size,
        stop_signal: request.stop_signal.or_else(|| {
            let name = image.says.stop_signal.as_deref()?;
            super::signal::parse(name).ok()
        }),
    }
}

fn port(published: &network::Published) -> Port {
    Port {
        host_ip: published
            .host_ip
            .map(|ip| ip.to_string())
            .unwrap_or_default(),
        host_port: published.host_port,
        container_port: published.container_port,
        range: published.count,
        protocol: published.protocol.to_string(),
    }
}
