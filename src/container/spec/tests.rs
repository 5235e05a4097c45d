//! Tests of the builder.

use super::*;
use crate::container::env::Setting;

fn image() -> ImageSays {
    ImageSays {
        env: vec!["PATH=/img".into(), "A=1".into(), "BARE".into()],
        entrypoint: vec!["/entry".into()],
        cmd: vec!["default".into()],
        workdir: "/work".into(),
        ..ImageSays::default()
    }
}

fn args(entrypoint: Option<&[&str]>, command: &[&str], image: &ImageSays) -> Result<Vec<String>> {
    let strings = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
    let request = Request {
        entrypoint: entrypoint.map(strings),
        command: strings(command),
        ..Request::default()
    };
    arguments(&request, image)
}

#[test]
fn command_line_has_dockers_precedence() {
    let img = image();
    assert_eq!(args(None, &[], &img).unwrap(), ["/entry", "default"]);
    assert_eq!(args(None, &["x"], &img).unwrap(), ["/entry", "x"]);
    assert_eq!(args(Some(&["/e"]), &[], &img).unwrap(), ["/e"]);
    assert_eq!(args(Some(&["/e"]), &["x"], &img).unwrap(), ["/e", "x"]);
    assert_eq!(args(Some(&[]), &["x"], &img).unwrap(), ["x"]);
    assert!(args(Some(&[]), &[], &img).is_err());
    assert!(args(None, &[], &ImageSays::default()).is_err());
}

#[test]
fn environment_is_layered_and_never_the_hosts() {
    let request = Request {
        env: vec![
            Setting::parse("A=2").unwrap(),
            Setting::parse("RLESS_NO_SUCH").unwrap(),
        ],
        ..Request::default()
    };
    assert_eq!(
        environment(&request, &image(), "h", "/root"),
        [
            "PATH=/img",
            "container=rless",
            "HOSTNAME=h",
            "A=2",
            "HOME=/root"
        ]
    );
}

#[test]
fn variables_are_merged_and_unset_below_the_flags() {
    let set = |text| vec![Setting::parse(text).unwrap()];
    let request = Request {
        proxies: set("http_proxy=p"),
        env_merge: set("PATH=${PATH}:/more"),
        unset_env: vec!["A".into(), "container".into()],
        env: set("B=1"),
        ..Request::default()
    };
    assert_eq!(
        environment(&request, &image(), "h", "/root"),
        [
            "PATH=/img:/more",
            "HOSTNAME=h",
            "http_proxy=p",
            "B=1",
            "HOME=/root"
        ]
    );
    let request = Request {
        unset_env_all: true,
        ..request
    };
    assert_eq!(
        environment(&request, &image(), "h", "/root"),
        ["HOSTNAME=h", "B=1", "HOME=/root"]
    );
}

#[test]
fn working_directory_must_be_absolute() {
    let mut request = Request::default();
    assert_eq!(workdir(&request, &image()).unwrap(), "/work");
    assert_eq!(workdir(&request, &ImageSays::default()).unwrap(), "/");
    request.workdir = Some("rel".into());
    assert!(workdir(&request, &image()).is_err());
}

fn parts(request: &Request) -> Result<Spec> {
    let user = crate::container::user::resolve("1000:2000", &[], "", "")?;
    let range = IdRange {
        container: 0,
        host: 1000,
        count: 10,
    };
    let mapping = Mapping {
        uids: vec![range],
        gids: vec![range],
        rung: crate::runtime::idmap::Rung::Helper,
        reason: String::new(),
    };
    build(Parts {
        request,
        args: vec!["true".into()],
        cwd: "/".into(),
        env: vec![],
        sets_home: false,
        user: &user,
        hostname: "h",
        mapping: &mapping,
        bounding: caps::bounding(&request.security)?,
        seccomp: None,
        mounts: vec![],
        network_sysctls: vec![],
        join: vec![],
        shared: vec![],
        cgroup: None,
        resources: crate::container::limits::resources(&request.limits)?,
        devices: vec![],
    })
}

#[test]
fn primary_group_is_among_the_supplementary_ones() {
    let spec = parts(&Request::default()).unwrap();
    let user = spec.process().as_ref().unwrap().user();
    assert_eq!((user.uid(), user.gid()), (1000, 2000));
    assert_eq!(user.additional_gids().as_ref().unwrap(), &[2000]);
}

#[test]
fn host_wide_sysctls_are_refused() {
    for (name, fine) in [
        ("net.ipv4.ip_forward", true),
        ("kernel.shm_rmid_forced", true),
        ("kernel/msgmax", true),
        ("fs.mqueue.msg_max", true),
        ("kernel.core_pattern", false),
        ("kernel.semx", false),
        ("vm.swappiness", false),
    ] {
        let request = Request {
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            ..Request::default()
        };
        assert_eq!(parts(&request).is_ok(), fine, "{name}");
    }
}

#[test]
fn limits_become_resources() {
    let mut request = Request::default();
    request.limits.cpus = Some(0.5);
    request.limits.pids = Some(0);
    request.limits.memory.limit = Some(64 << 20);
    let spec = parts(&request).unwrap();
    let r = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    assert_eq!(r.cpu().as_ref().unwrap().quota(), Some(50_000));
    assert_eq!(r.pids().as_ref().unwrap().limit(), -1);
    assert_eq!(r.memory().as_ref().unwrap().limit(), Some(64 << 20));
}

#[test]
fn ulimits_replace_the_default_and_unknown_ones_are_refused() {
    let limit = |name: &str| Ulimit {
        name: name.into(),
        soft: 5,
        hard: 6,
    };
    let all = rlimits(&[limit("nofile")]).unwrap();
    let nofile: Vec<_> = all
        .iter()
        .filter(|r| r.typ() == PosixRlimitType::RlimitNofile)
        .collect();
    assert_eq!(
        (nofile.len(), nofile[0].soft(), nofile[0].hard()),
        (1, 5, 6)
    );
    assert!(rlimits(&[limit("nosuch")]).is_err());
}

#[test]
fn unmask_takes_paths_patterns_and_all() {
    let security = |unmask: &str| Security {
        unmask: vec![unmask.into()],
        ..Security::default()
    };
    let (masked, readonly) = guarded_paths(&security("/proc/*"));
    assert!(masked.iter().all(|p| p.starts_with("/sys")) && readonly.is_empty());
    let (masked, _) = guarded_paths(&security("/proc/acpi"));
    assert!(
        !masked.contains(&"/proc/acpi".to_owned()) && masked.contains(&"/proc/keys".to_owned())
    );
    assert_eq!(guarded_paths(&security("ALL")), (vec![], vec![]));
    let (masked, _) = guarded_paths(&Security {
        mask: vec!["/x".into()],
        ..Security::default()
    });
    assert!(masked.contains(&"/x".to_owned()));
}
