//! Making a container, once: its name, its volumes, its request on disk, its record.
//!
//! ```text
//! containers/ID/request.json   what was asked for, with all that was found then: paths are absolute, the caller's
//!                              variables have values, volumes names, ports numbers; the image is its id
//! ```
//!
//! Starting it ([`super::prepare`]) needs nothing but that file, however much later and by whomever it is
//! started: the terminal, the working directory and the environment of who made it are gone then.
//! Credentials for pulling are not kept. The file of `--cidfile` is made before anything else and never replaces one.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::draft::{Draft, quick_json};
use super::events::Action;
use super::health::{self, Health};
use super::mounts::{MountRequest, Source};
use super::prepare::{self, Ground};
use super::record::{Containers, Port, Record, Reserved, State};
use super::request::{From, ImageVolume, Request, Seccomp};
use super::spec::ImageSays;
use super::spec::mounts::Resolved;
use super::supervisor::Job;
use super::{env, host, image, inspect, remove, shared, volumes};
use crate::error::{Fault, Kind, Result, ResultExt, failed, usage};
use crate::network::exposed::{self, Exposed};
use crate::network::{self, NetworkMode, PortMapping, ports::HostPort};
use crate::store::files::{self, Lock};
use crate::store::{Progress, Store};
use crate::trace;

/// So many ports are published by `-P`, and so many entries of exposed ones are recorded as they were given.
const MANY_PORTS: u32 = 4096;

/// What a container is made from: `request.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stored {
    /// Format of this file.
    pub version: u32,
    /// What was asked for.
    pub request: Request,
    /// Its mounts, with sources found and volumes made.
    pub mounts: Vec<Resolved>,
    /// Image id, 64 hex digits; `None` for a host directory.
    pub image_id: Option<String>,
}

impl Stored {
    /// Of the container in `dir`.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn read(dir: &Path) -> Result<Stored> {
        let stored = files::read_json(&dir.join("request.json"))?;
        let none = "it was made by a version of rless that could not start one again";
        stored.ok_or_else(|| Fault::new(Kind::Failed, none).into())
    }

    /// Replaces it by rename.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&self, dir: &Path) -> Result<()> {
        quick_json(&dir.join("request.json"), self)
    }

    /// Written, and not in its place yet.
    pub(super) fn draft(&self, dir: &Path) -> Result<Draft> {
        Draft::of(&dir.join("request.json"), self)
    }
}

/// Makes the container, ready to be started; nothing of it is left when that fails.
///
/// # Errors
/// What was asked for cannot be had.
pub fn make(
    store: &Store,
    containers: &Containers,
    request: &Request,
    progress: &dyn Progress,
) -> Result<Job> {
    let mut request = settled(request)?;
    shared::settle(containers, &mut request)?;
    let cidfile = request.cidfile.clone();
    let mut cidfile = cidfile.as_deref().map(CidFile::claim).transpose()?;
    let mapping = shared::mapping(containers, &request)?;
    trace::mark("mapping planned");
    let image = image::resolve(store, &request, &mapping, progress)?;
    trace::mark("image found");
    if request.publish_all {
        publish_all(&mut request, &image.says.exposed)?;
    }
    let request = &request;
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
    let ground = Ground { mapping, image };
    let written = cidfile.as_mut().map_or(Ok(()), |file| file.write(&id));
    let result =
        written.and_then(|()| assemble(store, containers, request, ground, reserved, &mut made));
    // The record names them now, or nobody wants them.
    made.held.clear();
    match &result {
        Err(_) => drop(containers.discard(&id)),
        Ok(_) => cidfile.iter_mut().for_each(CidFile::keep),
    }
    result
}

/// The file of `--cidfile`, which must not be there before; it goes unless it is kept.
#[derive(Debug)]
struct CidFile<'a> {
    path: &'a Path,
    file: fs::File,
    kept: bool,
}

impl<'a> CidFile<'a> {
    /// Makes it, empty, before there is anything to write into it.
    fn claim(path: &'a Path) -> Result<CidFile<'a>> {
        let mut options = fs::File::options();
        // Not through a link, either.
        let file = options.write(true).create_new(true).mode(0o644).open(path);
        match file {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(failed(format!(
                "container id file exists. Ensure another container is not using it or delete {}",
                path.display()
            ))
            .into()),
            file => Ok(CidFile {
                path,
                file: file
                    .fault(|| failed(format!("making the file {} of --cidfile", path.display())))?,
                kept: false,
            }),
        }
    }

    fn write(&mut self, id: &str) -> Result<()> {
        use std::io::Write;
        self.file.write_all(id.as_bytes()).fault(|| {
            failed(format!(
                "writing the container id to {}",
                self.path.display()
            ))
        })
    }

    fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(self.path);
        }
    }
}

/// What to unmake when a later step fails.
#[derive(Debug, Default)]
struct Made {
    id: String,
    /// Of the container's volumes, until its record is there.
    held: Vec<Lock>,
}

fn assemble(
    store: &Store,
    containers: &Containers,
    request: &Request,
    mut ground: Ground,
    reserved: Reserved,
    made: &mut Made,
) -> Result<Job> {
    // Until the record names the image.
    let _hold = ground.image.hold.take();
    let mounts = mounts(store, containers, request, &ground.image.says, made)?;
    let mut stored = Stored {
        version: 1,
        request: request.clone(),
        image_id: ground.image.id.clone(),
        mounts,
    };
    let healthcheck = health::plan(&request.health, ground.image.says.healthcheck.as_ref())?;
    let exposed = exposed_ports(request, &ground.image)?;
    let mut record = record(&stored, &ground.image, &reserved, exposed);
    record.healthcheck = healthcheck;
    let dir = reserved.place.dir.clone();
    let held = prepare::Held {
        place: reserved.place,
        lock: reserved.lock,
    };
    let (mut job, published) = prepare::prepare(store, containers, &stored, ground, held, record)?;
    fix_ports(&mut stored.request, &published);
    stored.write(&dir)?;
    let tag = &request.log.tag;
    if let Some(fill_in) = request.fill_in.filter(|_| tag.contains("{{")) {
        let all = inspect::container(store, &job.record, false);
        job.record.log.tag = fill_in(&all, tag).with_context(|| format!("--log-opt tag={tag}"))?;
    }
    job.place.write(&job.record)?;
    trace::mark("written");
    containers.emit(&job.record, Action::Create);
    Ok(job)
}

/// The request with nothing left that depends on who makes it.
fn settled(request: &Request) -> Result<Request> {
    let mut request = request.clone();
    let absolute = |path: &str| -> Result<String> {
        let found = fs::canonicalize(path);
        let found = found.fault(|| {
            failed(format!(
                "using the directory {path:?} as a root file system"
            ))
        })?;
        Ok(found.to_string_lossy().into_owned())
    };
    if let Some(path) = request
        .image
        .strip_prefix("rootfs:")
        .filter(|p| !p.is_empty())
    {
        request.image = format!("rootfs:{}", absolute(path)?);
    } else if request.rootfs && !request.image.is_empty() {
        request.image = absolute(&request.image)?;
    }
    if let Seccomp::File(path) = &mut request.security.seccomp {
        *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
    }
    for path in [&mut request.cidfile, &mut request.pidfile]
        .into_iter()
        .flatten()
    {
        *path = std::path::absolute(&*path).unwrap_or_else(|_| path.clone());
    }
    if let Some(path) = &request.pidfile
        && !path.parent().is_some_and(Path::is_dir)
    {
        let text = format!("--pidfile {}: there is no such directory", path.display());
        return Err(usage(text).into());
    }
    for device in &mut request.devices {
        *device = device.settled()?;
    }
    request.env = env::settled(&request.env);
    if request.env_host {
        request.host_env = env::settled(&[env::Setting::parse("*")?]);
    }
    if request.http_proxy {
        let names = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"];
        let both = names
            .iter()
            .flat_map(|n| [(*n).to_owned(), n.to_uppercase()]);
        let settings: Result<Vec<_>> = both.map(|n| env::Setting::parse(&n)).collect();
        request.proxies = env::settled(&settings?);
    }
    Ok(request)
}

/// Asks for a free port for each exposed one that is not published yet; where the network has ports.
fn publish_all(request: &mut Request, image: &[String]) -> Result<()> {
    if !matches!(request.network, NetworkMode::Pasta { .. }) {
        return Ok(());
    }
    let published = request.ports.iter().map(|p| {
        let last = p.container.saturating_add(p.count.max(1) - 1);
        Exposed::parse(&format!("{}-{last}/{}", p.container, p.protocol))
    });
    let taken = published.collect::<Result<Vec<_>>>()?;
    let ranges = exposed::without(read_exposed(image.iter().chain(&request.expose))?, taken);
    let count: u32 = ranges.iter().map(Exposed::count).sum();
    if count > MANY_PORTS {
        let text =
            format!("publishing every exposed port: {count} are exposed, at most {MANY_PORTS} are");
        return Err(usage(text)
            .hint("publish those that are needed: -p PORT")
            .into());
    }
    for range in ranges {
        for number in range.first..=range.last {
            let port = PortMapping::parse(&format!("{number}/{}", range.protocol))?;
            request.ports.push(port);
        }
    }
    Ok(())
}

/// Each checked: an image with something else is refused, as podman does.
fn read_exposed<'a>(texts: impl Iterator<Item = &'a String>) -> Result<Vec<Exposed>> {
    texts.map(|text| Exposed::parse(text)).collect()
}

/// Ports that were chosen stay the container's.
fn fix_ports(request: &mut Request, published: &[network::Published]) {
    for (asked, got) in request.ports.iter_mut().zip(published) {
        asked.host = HostPort::From(got.host_port);
    }
}

/// The user's mounts and the image's volumes, with sources found and volumes made.
fn mounts(
    store: &Store,
    containers: &Containers,
    request: &Request,
    says: &ImageSays,
    made: &mut Made,
) -> Result<Vec<Resolved>> {
    let mut all = Vec::new();
    for mount in &request.mounts {
        all.push(resolve_mount(store, mount, made)?);
    }
    for from in &request.volumes_from {
        for mount in volumes_of(containers, from)? {
            let same = |m: &&MountRequest| m.target == mount.target;
            if request.mounts.iter().any(|m| same(&m)) {
                continue;
            }
            all.retain(|m: &Resolved| m.target != mount.target); // of one named before
            all.push(resolve_mount(store, &mount, made)?);
        }
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
        let source = match request.image_volume {
            ImageVolume::Anonymous => Source::Volume(None),
            ImageVolume::Tmpfs => Source::Tmpfs,
            ImageVolume::Ignore => continue,
        };
        let mount = MountRequest {
            source,
            target,
            options: Vec::new(),
            copy_up: true,
        };
        all.push(resolve_mount(store, &mount, made)?);
    }
    Ok(all)
}

/// What `--volumes-from` takes: volumes and bind mounts, as that container has them.
fn volumes_of(containers: &Containers, from: &From) -> Result<Vec<MountRequest>> {
    let doing = || failed("looking up the container of --volumes-from");
    let record = containers.find(&from.container).fault(doing)?;
    let theirs = Stored::read(&containers.place(&record.id).dir).fault(doing)?;
    let take = |mount: Resolved| {
        let source = match (mount.volume, mount.source) {
            (Some(name), _) => Source::Volume(Some(name)),
            (None, Some(path)) => Source::Bind(path.to_str()?.to_owned()),
            (None, None) => return None, // a tmpfs is nobody else's
        };
        let mut options = mount.options;
        if let Some(read_only) = from.read_only {
            options.retain(|o| o != "ro" && o != "rw");
            options.push(if read_only { "ro" } else { "rw" }.to_owned());
        }
        Some(MountRequest {
            source,
            target: mount.target,
            options,
            copy_up: mount.copy_up,
        })
    };
    Ok(theirs.mounts.into_iter().filter_map(take).collect())
}

fn resolve_mount(store: &Store, mount: &MountRequest, made: &mut Made) -> Result<Resolved> {
    let mut resolved = Resolved {
        target: mount.target.clone(),
        source: None,
        options: mount.options.clone(),
        // A volume is filled before it is mounted.
        copy_up: mount.copy_up && !(mount.read_only() && mount.source == Source::Tmpfs),
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

/// The record of one that is about to be started for the first time; what only starting it tells is left out.
fn record(
    stored: &Stored,
    image: &image::Chosen,
    reserved: &Reserved,
    exposed: Vec<String>,
) -> Record {
    let (request, mounts) = (&stored.request, &stored.mounts);
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
        command: Vec::new(),
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
        remove_image: request.remove_image,
        image_asked: image.asked.clone(),
        anonymous_volumes: volumes(true),
        volumes: volumes(false),
        mounts: mounts.iter().map(|m| m.target.clone()).collect(),
        labels,
        ports: Vec::new(),
        exposed,
        log: request.log.clone().beside(mounts),
        network: request.network.to_string(),
        scope: None,
        stop_timeout: request.stop_timeout,
        restart: request.restart,
        restarts: 0,
        stopped_by_user: false,
        cidfile: request.cidfile.clone(),
        pidfile: request.pidfile.clone(),
        storage_size: request.storage_size,
        dependencies: shared::whose(request)
            .map(str::to_owned)
            .into_iter()
            .collect(),
        healthcheck: None,
        health: Health::default(),
        stop_signal: request.stop_signal.or_else(|| {
            let name = image.says.stop_signal.as_deref()?;
            super::signal::parse(name).ok()
        }),
    }
}

/// The image's ports and those of `--expose`; very many of them as few ranges as there can be.
fn exposed_ports(request: &Request, image: &image::Chosen) -> Result<Vec<String>> {
    let given = image.says.exposed.iter().chain(&request.expose);
    let ranges = read_exposed(given)?;
    let mut all = image.says.exposed.clone();
    let there: HashSet<&String> = image.says.exposed.iter().collect();
    for port in &request.expose {
        let plain = port.strip_suffix("/tcp").unwrap_or(port);
        if !there.contains(port) && !there.contains(&plain.to_owned()) {
            all.push(port.clone());
        }
    }
    if all.len() > MANY_PORTS as usize {
        let merged = exposed::merged(ranges);
        all = merged.iter().map(Exposed::to_string).collect();
    }
    Ok(all)
}

/// As `ps` shows it.
pub(super) fn port(published: &network::Published) -> Port {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exposed_port_is_published_once() {
        let mut request = Request {
            ports: vec![PortMapping::parse("8080:80").unwrap()],
            expose: vec!["81/tcp".into(), "53/udp".into()],
            ..Request::default()
        };
        let image = ["80/tcp", "81-82/tcp", "443"].map(str::to_owned);
        publish_all(&mut request, &image).unwrap();
        let found: Vec<String> = request
            .ports
            .iter()
            .map(|p| format!("{}/{} {:?}", p.container, p.protocol, p.host))
            .collect();
        assert_eq!(
            found,
            [
                "80/tcp From(8080)",
                "81/tcp Any",
                "82/tcp Any",
                "443/tcp Any",
                "53/udp Any"
            ]
        );
        request.network = NetworkMode::None;
        request.ports.clear();
        publish_all(&mut request, &image).unwrap();
        assert!(request.ports.is_empty());
    }

    #[test]
    fn the_directory_of_a_pidfile_is_looked_for_first() {
        let dir = tempfile::tempdir().unwrap();
        let settle = |path: &Path| {
            settled(&Request {
                pidfile: Some(path.to_owned()),
                ..Request::default()
            })
        };
        assert!(settle(&dir.path().join("pid")).is_ok());
        let e = settle(&dir.path().join("no/pid")).unwrap_err();
        assert!(e.to_string().contains("no such directory"), "{e}");
    }

    #[test]
    fn a_cidfile_that_is_there_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("c"), dir.path().join("l"));
        fs::write(&path, "precious").unwrap();
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        for path in [&path, &link] {
            let e = CidFile::claim(path).unwrap_err();
            let text = format!(
                "container id file exists. Ensure another container is not using it or delete {}",
                path.display()
            );
            assert_eq!(e.to_string(), text);
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(link.is_symlink() && !link.exists());
    }

    #[test]
    fn a_cidfile_goes_with_what_was_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let mut file = CidFile::claim(&path).unwrap();
        file.write("abc").unwrap();
        drop(file);
        assert!(!path.exists());
        let mut file = CidFile::claim(&path).unwrap();
        file.write("abc").unwrap();
        file.keep();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"abc");
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn ranges_of_an_image_are_published_without_those_that_are() {
        let asked = |image: &[&str], expose: &[&str]| {
            let mut request = Request {
                ports: vec![PortMapping::parse("8080-8082:80-82").unwrap()],
                expose: texts(expose),
                network: NetworkMode::Pasta {
                    options: Vec::new(),
                },
                ..Request::default()
            };
            publish_all(&mut request, &texts(image)).map(|()| request.ports)
        };
        let ports = asked(&["80/tcp", "79-84/tcp", "53/udp"], &["84/tcp", "9/tcp"]).unwrap();
        let numbers: Vec<u16> = ports[1..].iter().map(|p| p.container).collect();
        assert_eq!(numbers, [9, 79, 83, 84, 53]);
        for bad in ["0-65535/tcp", "1-65535/p0", "1-65535/tcp", "x", "7/sctp"] {
            assert!(asked(&[bad], &[]).is_err(), "{bad}");
        }
        let many: Vec<String> = (1..=10_000).map(|i| format!("1-65535/p{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(asked(&many, &[]).is_err());
    }
}
