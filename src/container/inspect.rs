//! What `inspect` tells of containers, images and volumes: podman's JSON.
//!
//! The keys and their nesting are podman's (libpod/define), so that templates and tools written for it work. Everything
//! comes from the record, from the bundle's configuration and from the image; what rless does not know
//! or does not have is left out, or says so in podman's own way for nothing (empty, null, false).

mod mounts;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use self::mounts::UserMount;
use super::devices::Device;
use super::filter;
use super::health::{LOCAL, LOG_COUNT, LOG_SIZE, OnFailure};
use super::list;
use super::notify::Mode;
use super::record::{Containers, Place, Port, Record, State};
use super::request::From;
use super::spec::caps;
use super::volumes::{self, Volume};
use crate::cgroup::{self, Rung};
use crate::error::Result;
use crate::network::files::AddHost;
use crate::store::{Image, Store, files};

/// As Go writes no time.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |t| t.to_string())
}

/// A part of a JSON document, null if it is not there.
fn at(json: &Json, pointer: &str) -> Json {
    json.pointer(pointer).cloned().unwrap_or_default()
}

fn text(json: &Json, pointer: &str) -> String {
    let found = json.pointer(pointer).and_then(Json::as_str);
    found.unwrap_or_default().to_owned()
}

fn number(json: &Json, pointer: &str) -> i64 {
    json.pointer(pointer).and_then(Json::as_i64).unwrap_or(0)
}

/// Memory and swap together as podman shows it: unset is as much swap as memory, and unlimited is 0.
fn swap(limit: i64, both: i64) -> i64 {
    match both {
        0 => limit.max(0).saturating_mul(2),
        both => both.max(0),
    }
}

fn words(json: &Json, pointer: &str) -> Vec<String> {
    let found = json.pointer(pointer).and_then(Json::as_array);
    let words = found.into_iter().flatten().filter_map(Json::as_str);
    words.map(str::to_owned).collect()
}

/// Everything that is known of a container.
#[derive(Debug)]
struct Known<'a> {
    store: &'a Store,
    record: &'a Record,
    place: Place,
    /// Its `config.json`; null if it cannot be read.
    spec: Json,
    /// What was asked for: the `request` of its `request.json`; null where that is not known.
    asked: Json,
    image: Option<Image>,
}

/// A container; `size` adds what it takes on disk.
#[must_use]
pub fn container(store: &Store, record: &Record, size: bool) -> Json {
    let place = Containers::of(store).place(&record.id);
    let spec = files::read_json(&place.dir.join("config.json"));
    let asked: Option<Json> = files::read_json(&place.dir.join("request.json"))
        .ok()
        .flatten();
    let image = record.image_id.as_ref();
    let known = Known {
        asked: asked.map(|a| at(&a, "/request")).unwrap_or_default(),
        store,
        record,
        spec: spec.ok().flatten().unwrap_or_default(),
        place,
        image: image.and_then(|id| store.find_image(id).ok().flatten()),
    };
    let mut all = known.all();
    if size {
        let used = list::disk_use(store, record);
        all["SizeRw"] = used.own.into();
        all["SizeRootFs"] = (used.own + used.image).into();
    }
    all
}

impl Known<'_> {
    fn all(&self) -> Json {
        let record = self.record;
        let args = &record.command;
        let rest = if args.len() > 1 { &args[1..] } else { args };
        let file = |name: &str| {
            let path = self.place.files().join(name);
            let found = path.exists().then(|| path.display().to_string());
            found.unwrap_or_default()
        };
        let host_directory = record.image.strip_prefix("rootfs:").unwrap_or_default();
        json!({
            "Id": record.id,
            "Created": time(record.created),
            "Path": args.first().cloned().unwrap_or_default(),
            "Args": rest,
            "State": self.state(),
            "Image": record.image_id.as_deref().unwrap_or_default(),
            "ImageDigest": self.image.as_ref().map(|i| i.digest.as_str()).unwrap_or_default(),
            "ImageName": record.image,
            "Rootfs": host_directory,
            "Pod": "",
            "ResolvConfPath": file("resolv.conf"),
            "HostnamePath": file("hostname"),
            "HostsPath": file("hosts"),
            "StaticDir": self.place.dir,
            "OCIConfigPath": self.place.dir.join("config.json"),
            "OCIRuntime": "rless",
            "ConmonPidFile": "",
            "PidFile": record.pidfile.as_deref().unwrap_or(Path::new("")),
            "Name": record.name,
            "RestartCount": record.restarts,
            "Driver": "rless",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": text(&self.spec, "/process/apparmorProfile"),
            "EffectiveCaps": self.capabilities("effective"),
            "BoundingCaps": self.capabilities("bounding"),
            "ExecIDs": [],
            "GraphDriver": {"Name": "rless", "Data": {"UpperDir": self.place.upper()}},
            "Mounts": self.mounts(),
            "Dependencies": record.dependencies,
            "NetworkSettings": self.network(),
            "Namespace": "",
            "IsInfra": false,
            "IsService": false,
            "Config": self.config(),
            "HostConfig": self.host_config(),
        })
    }

    fn state(&self) -> Json {
        let record = self.record;
        let pid = |process: Option<super::record::Process>| process.map_or(0, |p| p.pid);
        let mut state = json!({
            "OciVersion": text(&self.spec, "/ociVersion"),
            "Status": record.state.word(),
            "Running": record.state == State::Running,
            "Paused": record.state == State::Paused,
            "Restarting": record.state == State::Restarting,
            "OOMKilled": record.oom_killed,
            "Dead": false,
            "Pid": pid(record.init),
            "ExitCode": record.exit_code.unwrap_or(0),
            "Error": record.error.as_deref().unwrap_or_default(),
            "StartedAt": time(record.started),
            "FinishedAt": time(record.finished),
            "CheckpointedAt": NEVER,
            "RestoredAt": NEVER,
            "StoppedByUser": record.stopped_by_user,
        });
        if let Some(supervisor) = record.supervisor {
            state["ConmonPid"] = supervisor.pid.into();
        }
        if let Some(scope) = record.scope.as_ref().filter(|_| record.state.up()) {
            state["CgroupPath"] = format!("{scope}/container").into();
        }
        state["Health"] = Json::Null;
        if record.healthcheck.is_some() {
            let health = &record.health;
            state["Health"] = json!({
                "Status": health.status, "FailingStreak": health.failing_streak, "Log": health.log,
            });
        }
        state
    }

    fn capabilities(&self, set: &str) -> Vec<String> {
        let mut found = words(&self.spec, &format!("/process/capabilities/{set}"));
        found.sort();
        found
    }

    /// The mounts that the user or the image asked for, as the runtime has them.
    fn user_mounts(&self) -> Vec<UserMount> {
        let wanted = |m: &&Json| {
            let target = text(m, "/destination");
            self.record.mounts.contains(&target)
        };
        let root = self.store.volumes_dir();
        let all = self.spec.pointer("/mounts").and_then(Json::as_array);
        let mounts = all.into_iter().flatten().filter(wanted);
        mounts.map(|m| UserMount::of(m, &root)).collect()
    }

    fn mounts(&self) -> Vec<Json> {
        let mut mounts = self.user_mounts();
        mounts.retain(|m| m.kind != "tmpfs");
        mounts.sort_by(|a, b| (b.kind, &a.target).cmp(&(a.kind, &b.target)));
        mounts.iter().map(UserMount::json).collect()
    }

    fn network(&self) -> Json {
        let record = self.record;
        let mut settings = json!({
            "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0,
            "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
            "MacAddress": "", "Bridge": "", "SandboxID": "", "HairpinMode": false,
            "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
            "Ports": self.ports(true),
            "SandboxKey": record.init.map_or(String::new(), |p| format!("/proc/{}/ns/net", p.pid)),
        });
        if matches!(record.network.as_str(), "none" | "host") {
            let network = json!({
                "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0,
                "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
                "MacAddress": "", "NetworkID": record.network, "DriverOpts": null,
                "IPAMConfig": null, "Links": null,
            });
            settings["Networks"] = json!({ record.network.as_str(): network });
        }
        settings
    }

    /// `{"80/tcp": [{"HostIp": …, "HostPort": …}]}`; exposed ports that are not published have null.
    fn ports(&self, exposed: bool) -> Json {
        let mut ports = Map::new();
        for (inside, ip, outside) in published(&self.record.ports) {
            let bound = json!({"HostIp": ip, "HostPort": outside.to_string()});
            let list = ports.entry(inside).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(bound);
            }
        }
        if exposed {
            for port in &self.record.exposed {
                ports.entry(with_protocol(port)).or_insert(Json::Null);
            }
        }
        ports.into()
    }

    fn config(&self) -> Json {
        let record = self.record;
        let image = self.image.as_ref().and_then(|i| i.config.config().clone());
        let says = super::spec::ImageSays::of(image.as_ref());
        let entrypoint = says.entrypoint;
        let fits = !entrypoint.is_empty() && record.command.starts_with(&entrypoint);
        let by_hand = words(&self.asked, "/entrypoint");
        let (entrypoint, cmd) = if !by_hand.is_empty() && record.command.starts_with(&by_hand) {
            let rest = &record.command[by_hand.len()..];
            (by_hand.into(), rest)
        } else if fits {
            (
                Json::from(entrypoint.clone()),
                &record.command[entrypoint.len()..],
            )
        } else {
            (Json::Null, record.command.as_slice())
        };
        let signal = record.stop_signal.unwrap_or(libc::SIGTERM);
        let or_null = |json: Json| match &json {
            Json::Object(map) if map.is_empty() => Json::Null,
            _ => json,
        };
        let mut config = json!({
            "Hostname": text(&self.spec, "/hostname"),
            "Domainname": "",
            "User": self.asked.pointer("/user").and_then(Json::as_str).unwrap_or(&says.user),
            "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
            "Tty": at(&self.spec, "/process/terminal") == Json::Bool(true),
            "OpenStdin": self.asked_for("/interactive"),
            "StdinOnce": false,
            "Env": words(&self.spec, "/process/env"),
            "Cmd": if cmd.is_empty() { Json::Null } else { cmd.into() },
            "Image": record.image,
            "Volumes": null,
            "WorkingDir": text(&self.spec, "/process/cwd"),
            "Entrypoint": entrypoint,
            "OnBuild": null,
            "Labels": or_null(json!(record.labels)),
            "Annotations": at(&self.spec, "/annotations"),
            "StopSignal": super::signal::name(signal),
            "Timeout": number(&self.asked, "/timeout"),
            "StopTimeout": record.stop_timeout.unwrap_or(super::record::STOP_TIMEOUT),
            "Umask": self.umask(),
            "Passwd": at(&self.asked, "/account/lines") != Json::Bool(false),
            "SdNotifyMode": serde_json::from_value::<Mode>(at(&self.asked, "/sdnotify"))
                .unwrap_or_default().word(),
        });
        let plan = record.healthcheck.as_ref();
        config["HealthcheckOnFailureAction"] =
            plan.map_or(OnFailure::None, |p| p.on_failure).word().into();
        config["HealthLogDestination"] = plan.map_or(LOCAL, |p| &p.log_destination).into();
        config["HealthMaxLogCount"] = plan.map_or(LOG_COUNT, |p| p.log_count).into();
        config["HealthMaxLogSize"] = plan.map_or(LOG_SIZE, |p| p.log_size).into();
        config["Healthcheck"] = json!(plan.map(|p| &p.check));
        if let Some(startup) = plan.and_then(|p| p.startup.as_ref()) {
            config["StartupHealthCheck"] = json!(startup);
        }
        let typed = at(&self.asked, "/typed");
        config["CreateCommand"] = if typed.is_null() { json!([]) } else { typed };
        if let Some(zone) = self.asked.pointer("/tz").and_then(Json::as_str) {
            config["Timezone"] = zone.into();
        }
        if !record.exposed.is_empty() {
            let ports = record.exposed.iter().map(|p| (with_protocol(p), json!({})));
            config["ExposedPorts"] = Json::Object(ports.collect());
        }
        config
    }

    fn host_config(&self) -> Json {
        let record = self.record;
        let mounts = self.user_mounts();
        let (tmpfs, binds): (Vec<&UserMount>, _) = mounts.iter().partition(|m| m.kind == "tmpfs");
        let tmpfs: BTreeMap<&str, String> = tmpfs
            .iter()
            .map(|m| (m.target.as_str(), m.options()))
            .collect();
        let (manager, cgroups) = match cgroup::detect().rung {
            Rung::Systemd { .. } => ("systemd", "default"),
            Rung::Delegated { .. } => ("cgroupfs", "default"),
            Rung::None { .. } => ("", "disabled"),
        };
        let (added, dropped) = self.changed_capabilities();
        let mut config = json!({
            "Binds": binds.iter().map(|m| m.bind()).collect::<Vec<_>>(),
            "CgroupManager": manager,
            "CgroupMode": "private",
            "Cgroups": cgroups,
            "ContainerIDFile": record.cidfile.as_ref().map(|p| p.to_string_lossy()).unwrap_or_default(),
            "LogConfig": {
                "Type": record.log.driver.to_string(),
                "Config": null,
                "Path": record.log.file(&self.place.dir),
                "Tag": text(&self.asked, "/log/tag"),
                "Size": record.log.max_size.unwrap_or(0),
            },
            "NetworkMode": record.network,
            "PortBindings": self.ports(false),
            "RestartPolicy": {"Name": filter::policy(record), "MaximumRetryCount": record.restart.most()},
            "AutoRemove": record.auto_remove,
            "AutoRemoveImage": record.remove_image,
            "Annotations": at(&self.spec, "/annotations"),
            "VolumeDriver": "",
            "VolumesFrom": self.volumes_from(),
            "CapAdd": added,
            "CapDrop": dropped,
            "Dns": words(&self.asked, "/dns/servers"),
            "DnsOptions": words(&self.asked, "/dns/options"),
            "DnsSearch": words(&self.asked, "/dns/search"),
            "GroupAdd": words(&self.asked, "/group_add"),
            "Init": self.asked_for("/init"),
            "ExtraHosts": self.extra_hosts(),
            "IpcMode": self.namespace("ipc", match text(&self.asked, "/sharing/shm").as_str() {
                "Private" => "private",
                "None" => "none",
                _ => "shareable",
            }),
            "Links": null,
            "OomScoreAdj": number(&self.spec, "/process/oomScoreAdj"),
            "PidMode": self.namespace("pid", "private"),
            "Privileged": self.privileged(),
            "PublishAllPorts": self.asked_for("/publish_all"),
            "ReadonlyRootfs": at(&self.spec, "/root/readonly") == Json::Bool(true),
            "SecurityOpt": self.security(),
            "Tmpfs": tmpfs,
            "UTSMode": self.namespace("uts", "private"),
            "UsernsMode": self.userns(),
            "IDMappings": self.mappings(),
            "ShmSize": self.shm_size(),
            "Runtime": "oci",
            "ConsoleSize": [0, 0],
            "DiskQuota": record.storage_size.unwrap_or(0),
            "Ulimits": self.ulimits(),
        });
        if let (Some(config), Json::Object(limits)) = (config.as_object_mut(), self.limits()) {
            config.extend(limits);
        }
        config
    }

    fn umask(&self) -> String {
        let umask = at(&self.spec, "/process/user/umask");
        format!("{:04o}", umask.as_u64().unwrap_or(0o022))
    }

    /// Whose a namespace is.
    fn namespace(&self, kind: &str, own: &str) -> String {
        match text(&self.asked, &format!("/sharing/{kind}")).as_str() {
            "" if self.asked_for(&format!("/sharing/host_{kind}")) => "host".to_owned(),
            "" => own.to_owned(),
            id => format!("container:{id}"),
        }
    }

    /// "private" where its user namespace is not the one that every container has.
    fn userns(&self) -> &'static str {
        match at(&self.asked, "/userns") {
            Json::Null => "",
            Json::String(word) if word == "Default" => "",
            _ => "private",
        }
    }

    fn volumes_from(&self) -> Json {
        let all: Vec<From> = self.list("/volumes_from");
        let one = |from: From| match from.options.as_str() {
            "" => from.container,
            options => format!("{}:{options}", from.container),
        };
        let all: Vec<String> = all.into_iter().map(one).collect();
        json!(Some(all).filter(|all| !all.is_empty()))
    }

    fn extra_hosts(&self) -> Vec<String> {
        let all: Vec<AddHost> = self.list("/add_hosts");
        all.iter().map(ToString::to_string).collect()
    }

    /// A list of what was asked for; empty where it is not known.
    fn list<T: serde::de::DeserializeOwned>(&self, pointer: &str) -> Vec<T> {
        serde_json::from_value(at(&self.asked, pointer)).unwrap_or_default()
    }

    fn limits(&self) -> Json {
        let mut resources = at(&self.spec, "/linux/resources");
        if resources.is_null() {
            // Never started: what it will be started with.
            let asked = serde_json::from_value(at(&self.asked, "/limits")).unwrap_or_default();
            let asked = super::limits::resources(&asked).ok();
            resources = serde_json::to_value(asked).unwrap_or_default();
        }
        let (quota, period) = (
            number(&resources, "/cpu/quota"),
            number(&resources, "/cpu/period"),
        );
        let nano = if period > 0 {
            quota.saturating_mul(1_000_000_000) / period
        } else {
            0
        };
        json!({
            "Memory": number(&resources, "/memory/limit"),
            "MemoryReservation": number(&resources, "/memory/reservation"),
            "MemorySwap": swap(number(&resources, "/memory/limit"), number(&resources, "/memory/swap")),
            "MemorySwappiness": number(&resources, "/memory/swappiness"),
            "KernelMemory": 0,
            "OomKillDisable": false,
            "CpuShares": number(&resources, "/cpu/shares"),
            "CpuPeriod": period,
            "CpuQuota": quota,
            "NanoCpus": nano,
            "CpuRealtimePeriod": 0,
            "CpuRealtimeRuntime": 0,
            "CpusetCpus": text(&resources, "/cpu/cpus"),
            "CpusetMems": text(&resources, "/cpu/mems"),
            "PidsLimit": number(&resources, "/pids/limit"),
            "BlkioWeight": number(&resources, "/blockIO/weight"),
            "BlkioWeightDevice": self.disks("weight_device", "Weight"),
            "BlkioDeviceReadBps": self.disks("read_bps", "Rate"),
            "BlkioDeviceWriteBps": self.disks("write_bps", "Rate"),
            "BlkioDeviceReadIOps": self.disks("read_iops", "Rate"),
            "BlkioDeviceWriteIOps": self.disks("write_iops", "Rate"),
            "CgroupConf": at(&resources, "/unified"),
            "CgroupParent": "",
            "Devices": self.devices(),
        })
    }

    /// What was asked for, a directory as one; podman's rootless containers show none.
    fn devices(&self) -> Vec<Json> {
        let all: Vec<Device> = self.list("/devices");
        let one = |device: Device| {
            let host = device.host.to_string_lossy().into_owned();
            json!({
                "PathInContainer": device.inside.as_ref().unwrap_or(&host),
                "PathOnHost": host,
                "CgroupPermissions": device.permissions,
            })
        };
        all.into_iter().map(one).collect()
    }

    /// One kind of bound of block I/O, by the names that were given; null without one.
    fn disks(&self, kind: &str, value: &str) -> Json {
        let asked = at(&self.asked, &format!("/limits/blkio/{kind}"));
        let list = asked.as_object().into_iter().flatten();
        let list: Vec<Json> = list
            .map(|(path, n)| json!({"Path": path, value: n}))
            .collect();
        if list.is_empty() {
            return Json::Null;
        }
        list.into()
    }

    fn asked_for(&self, switch: &str) -> bool {
        at(&self.asked, switch) == Json::Bool(true)
    }

    fn privileged(&self) -> bool {
        if !self.asked.is_null() {
            return self.asked_for("/security/privileged");
        }
        let masked = words(&self.spec, "/linux/maskedPaths").is_empty();
        let caps = self.capabilities("bounding").len();
        masked && caps > 30 && at(&self.spec, "/linux/seccomp").is_null()
    }

    fn security(&self) -> Vec<String> {
        let mut all = Vec::new();
        if at(&self.spec, "/process/noNewPrivileges") == Json::Bool(true) {
            all.push("no-new-privileges".to_owned());
        }
        if !self.spec.is_null() && at(&self.spec, "/linux/seccomp").is_null() && !self.privileged()
        {
            all.push("seccomp=unconfined".to_owned());
        }
        all
    }

    fn changed_capabilities(&self) -> (Vec<String>, Vec<String>) {
        let has = self.capabilities("bounding");
        let usual = caps::default_names();
        let added = has.iter().filter(|c| !usual.contains(c)).cloned();
        let dropped = usual.iter().filter(|c| !has.contains(c)).cloned();
        match self.spec {
            Json::Null => (Vec::new(), Vec::new()),
            _ => (added.collect(), dropped.collect()),
        }
    }

    fn mappings(&self) -> Json {
        let map = |kind: &str| -> Vec<String> {
            let all = at(&self.spec, &format!("/linux/{kind}Mappings"));
            let line = |m: &Json| {
                let field = |name| number(m, name);
                format!(
                    "{}:{}:{}",
                    field("/containerID"),
                    field("/hostID"),
                    field("/size")
                )
            };
            all.as_array().into_iter().flatten().map(line).collect()
        };
        json!({"UidMap": map("uid"), "GidMap": map("gid")})
    }

    fn shm_size(&self) -> i64 {
        let mounts = at(&self.spec, "/mounts");
        let shm = mounts
            .as_array()
            .into_iter()
            .flatten()
            .find(|m| text(m, "/destination") == "/dev/shm");
        let options = shm.map(|m| words(m, "/options")).unwrap_or_default();
        let size = options.iter().find_map(|o| o.strip_prefix("size="));
        let size = size.map(|s| s.trim_end_matches('k'));
        let unit = if options
            .iter()
            .any(|o| o.starts_with("size=") && o.ends_with('k'))
        {
            1024
        } else {
            1
        };
        size.and_then(|s| s.parse::<i64>().ok()).unwrap_or(0) * unit
    }

    fn ulimits(&self) -> Vec<Json> {
        let all = at(&self.spec, "/process/rlimits");
        let one = |limit: &Json| {
            json!({
                "Name": text(limit, "/type"),
                "Soft": at(limit, "/soft"),
                "Hard": at(limit, "/hard"),
            })
        };
        all.as_array().into_iter().flatten().map(one).collect()
    }
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') {
        port.to_owned()
    } else {
        format!("{port}/tcp")
    }
}

/// Every published port: inside, host address, host port; by protocol and number.
#[must_use]
pub fn published(ports: &[Port]) -> Vec<(String, String, u16)> {
    let mut all: Vec<(&str, u16, String, u16)> = Vec::new();
    for port in ports {
        let ip = match port.host_ip.as_str() {
            "" => "0.0.0.0",
            ip => ip,
        };
        for n in 0..port.range.max(1) {
            let (inside, outside) = (port.container_port + n, port.host_port + n);
            all.push((&port.protocol, inside, ip.to_owned(), outside));
        }
    }
    all.sort();
    all.into_iter()
        .map(|(protocol, inside, ip, outside)| (format!("{inside}/{protocol}"), ip, outside))
        .collect()
}

/// An image.
///
/// # Errors
/// Its configuration cannot be written as JSON.
pub fn image(store: &Store, image: &Image) -> Result<Json> {
    let whole = serde_json::to_value(&image.config)?;
    let manifest = image.digest.parse().ok();
    let manifest = manifest.map(|digest| store.blob_path(&digest));
    let manifest: Option<Json> = manifest.and_then(|p| files::read_json(&p).ok().flatten());
    let manifest = manifest.unwrap_or_default();
    let mut config = at(&whole, "/config");
    if let Json::Object(config) = &mut config {
        config.retain(|_, v| !v.is_null());
    }
    let layers: Vec<String> = image
        .layers
        .iter()
        .map(|l| {
            if l.contains(':') {
                l.clone()
            } else {
                format!("sha256:{l}")
            }
        })
        .collect();
    Ok(json!({
        "Id": image.id,
        "Digest": image.digest,
        "RepoTags": image.names,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": text(&whole, "/history/0/comment"),
        "Created": time(image.created),
        "Config": if config.is_null() { json!({}) } else { config.clone() },
        "Version": "",
        "Author": text(&whole, "/author"),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "rless", "Data": {"Index": image.index}},
        "RootFS": {"Type": "layers", "Layers": layers},
        "Labels": at(&config, "/Labels"),
        "Annotations": at(&manifest, "/annotations").as_object().cloned().unwrap_or_default(),
        "ManifestType": text(&manifest, "/mediaType"),
        "User": text(&config, "/User"),
        "History": at(&whole, "/history").as_array().cloned().unwrap_or_default(),
        "NamesHistory": image.names,
    }))
}

/// A volume.
#[must_use]
pub fn volume(store: &Store, volume: &Volume) -> Json {
    let mut json = json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volumes::data(&store.volumes_dir(), &volume.name),
        "CreatedAt": volume.created,
        "Labels": volume.labels,
        "Scope": "local",
        "Options": {},
        "MountCount": 0,
    });
    if volume.anonymous {
        json["Anonymous"] = true.into();
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_sorted_by_protocol_and_number() {
        let port = |protocol: &str, inside, range| Port {
            host_ip: String::new(),
            host_port: inside + 8000,
            container_port: inside,
            range,
            protocol: protocol.into(),
        };
        let all = published(&[port("udp", 53, 1), port("tcp", 80, 2), port("tcp", 9, 1)]);
        let all: Vec<String> = all
            .iter()
            .map(|(i, ip, o)| format!("{i} {ip} {o}"))
            .collect();
        assert_eq!(
            all,
            [
                "9/tcp 0.0.0.0 8009",
                "80/tcp 0.0.0.0 8080",
                "81/tcp 0.0.0.0 8081",
                "53/udp 0.0.0.0 8053"
            ]
        );
    }

    #[test]
    fn a_container_without_a_configuration_is_told_of_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_at(&dir.path().join("d"), &dir.path().join("r")).unwrap();
        let record: Record = serde_json::from_value(json!({
            "version": 1, "id": "a".repeat(64), "name": "n", "image": "i", "image_id": null,
            "command": ["true"], "created": "2026-01-01T00:00:00Z", "state": "exited",
            "exit_code": 3, "auto_remove": false, "network": "none", "exposed": ["80"],
        }))
        .unwrap();
        let json = container(&store, &record, true);
        assert_eq!(json["State"]["ExitCode"], 3);
        assert_eq!(json["State"]["FinishedAt"], NEVER);
        assert_eq!(json["Args"][0], "true");
        assert_eq!(
            json["NetworkSettings"]["Networks"]["none"]["NetworkID"],
            "none"
        );
        assert!(json["NetworkSettings"]["Ports"]["80/tcp"].is_null());
        assert_eq!(json["HostConfig"]["RestartPolicy"]["Name"], "no");
        assert_eq!(json["SizeRw"], 0);
    }

    #[test]
    fn swap_is_shown_with_the_memory_it_follows() {
        for (limit, both, shown) in [(64, 0, 128), (64, 100, 100), (64, -1, 0), (0, 0, 0)] {
            assert_eq!(swap(limit, both), shown, "{limit} {both}");
        }
    }
}
