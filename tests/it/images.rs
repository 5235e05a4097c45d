//! `pull`, `images` and `rmi` as commands: configuration files, helpers, certificates, kills.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::harness::{Sandbox, skip, world};
use crate::hostile::{Body, Recipe, Reply, Server, noise, simple};
use crate::registries::{BASIC, Bench, honest, twisted};

/// `rless` as a process with an environment of its own.
fn command(bench: &Bench, arguments: &[&str]) -> Command {
    for dir in ["run", "home", "bin"] {
        std::fs::create_dir_all(bench.path(dir)).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_rless"));
    command
        .env_clear()
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", bench.path("bin").display()),
        )
        .env("HOME", bench.path("home"))
        .env("RLESS_STORE", bench.path("data"))
        .env("XDG_RUNTIME_DIR", bench.path("run"))
        .env("CONTAINERS_REGISTRIES_CONF", bench.path("registries.conf"))
        .args(arguments);
    command
}

fn rless(bench: &Bench, arguments: &[&str]) -> (Output, String) {
    let output = command(bench, arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, text)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `host` answers short names, without TLS.
fn configure(bench: &Bench, host: &str, more: &str) {
    let text = format!(
        "unqualified-search-registries = [\"{host}\"]\n\
         [[registry]]\nlocation = \"{host}\"\ninsecure = true\n{more}"
    );
    std::fs::write(bench.path("registries.conf"), text).unwrap();
}

#[test]
fn short_names_mirrors_and_the_words_of_podman() {
    let image = simple();
    let (bench, server) = (Bench::new(), honest(&image));
    let broken = Server::start(|_| Reply::status(404));
    let (host, bad) = (server.host(), broken.host());
    let mirrors = format!(
        "[[registry.mirror]]\nlocation = \"{bad}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{host}/m\"\ninsecure = true\n"
    );
    configure(&bench, &host, &mirrors);
    let (output, text) = rless(&bench, &["pull", "-q", "thing:1"]);
    assert!(output.status.success(), "{text}");
    assert_eq!(stdout(&output), format!("{}\n", image.id()));
    assert_eq!(text, "");
    assert_eq!(broken.count("/v2/thing/manifests/1"), 1);
    assert_eq!(server.count("/v2/m/thing/manifests/1"), 1);
    assert_eq!(server.count("/v2/thing/"), 0, "the second mirror had it");
    let (output, text) = rless(&bench, &["pull", "thing:1"]);
    assert_eq!(stdout(&output), format!("{}\n", image.id()));
    for want in [
        &format!("Trying to pull {host}/thing:1..."),
        "skipped: already exists",
        "Copying config sha256:",
        "Writing manifest to image destination",
    ] {
        assert!(text.contains(want), "{want} in {text}");
    }
    let (output, _) = rless(&bench, &["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(stdout(&output), format!("{host}/thing:1\n"));
    let (output, _) = rless(&bench, &["images", "-q", "--filter", "reference=thing*"]);
    assert_eq!(stdout(&output), format!("{}\n", &image.id()[..12]));
    let (output, _) = rless(&bench, &["images", "-q", "--filter", "dangling=true"]);
    assert_eq!(stdout(&output), "");
    let (output, text) = rless(&bench, &["rmi", "thing:1"]);
    assert!(output.status.success(), "{text}");
    let want = format!("Untagged: {host}/thing:1\nDeleted: {}\n", image.id());
    assert_eq!(stdout(&output), want);
    bench.assert_empty("removed");
    let (output, _) = rless(&bench, &["rmi", "thing:1"]);
    assert_eq!(output.status.code(), Some(1));
    let (output, _) = rless(&bench, &["rmi", "-i", "thing:1"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn credentials_come_from_auth_files_and_helpers() {
    let image = simple();
    let server = twisted(&image, |r, reply| match r.header("authorization") {
        Some(BASIC) => reply,
        _ => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let (bench, host) = (Bench::new(), server.host());
    configure(&bench, &host, "");
    let (output, text) = rless(&bench, &["pull", "a:1"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text.contains("without credentials"), "{text}");
    let docker = bench.path("home/.docker");
    std::fs::create_dir_all(&docker).unwrap();
    let text = format!("{{\"credHelpers\": {{\"{host}\": \"test\"}}}}");
    std::fs::write(docker.join("config.json"), text).unwrap();
    let helper = bench.path("bin/docker-credential-test");
    let script = "#!/bin/sh\n[ \"$1\" = get ] && cat > \"$HOME/asked\"\n\
                  echo '{\"Username\":\"me\",\"Secret\":\"secret\"}'\n";
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (output, text) = rless(&bench, &["pull", "a:1"]);
    assert!(output.status.success(), "{text}");
    let asked = std::fs::read_to_string(bench.path("home/asked")).unwrap();
    assert_eq!(asked, host);
    std::fs::remove_file(&helper).unwrap();
    let file = bench.path("my.json").display().to_string();
    let text = format!("{{\"auths\": {{\"{host}/a\": {{\"auth\": \"bWU6c2VjcmV0\"}}}}}}");
    std::fs::write(&file, text).unwrap();
    let (output, text) = rless(&bench, &["pull", "--authfile", &file, "a:1"]);
    assert!(output.status.success(), "{text}");
    let (output, _) = rless(&bench, &["pull", "--authfile", &file, "b:1"]);
    assert!(!output.status.success(), "another repository's credentials");
}

#[test]
fn a_pull_killed_at_any_moment_leaves_nothing_that_the_next_command_does_not_clear() {
    let image = Recipe::of(vec![
        vec![("a", noise(200_000))],
        vec![("b", noise(300_000))],
    ])
    .bake();
    let server = twisted(&image, |r, reply| {
        match (&reply.body, r.path.contains("/blobs/")) {
            (Body::Whole(bytes), true) => {
                let slow = Body::Slow(bytes.clone(), 30_000, Duration::from_millis(20));
                reply.body(slow)
            }
            _ => reply,
        }
    });
    let bench = Bench::new();
    configure(&bench, &server.host(), "");
    for moment in 0..10 {
        let mut child = command(&bench, &["pull", "-q", "x:1"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 * moment));
        child.kill().unwrap();
        child.wait().unwrap();
        let (output, text) = rless(&bench, &["images", "-q"]);
        assert!(output.status.success(), "{text}");
        if output.stdout.is_empty() {
            bench.assert_empty(&format!("killed after {} ms", 40 * moment));
        } else {
            rless(&bench, &["rmi", "-a"]);
        }
    }
    let (output, text) = rless(&bench, &["pull", "-q", "x:1"]);
    assert!(output.status.success(), "{text}");
}

/// A child that ends with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Makes `NAME.pem` and `NAME-key.pem`; `None` without openssl.
fn make_certificate(dir: &Path, name: &str) -> Option<()> {
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(dir.join(format!("{name}-key.pem")))
        .arg("-out")
        .arg(dir.join(format!("{name}.pem")))
        .output()
        .ok()?;
    assert!(made.status.success());
    Some(())
}

/// Debian's registry over TLS, with a certificate of its own for 127.0.0.1. With `clients` it wants to see one, the
/// only one that it trusts being its own.
fn tls_registry(dir: &Path, clients: bool) -> Option<(Service, String)> {
    make_certificate(dir, "cert")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/reg}}}}\n\
         http: {{addr: '127.0.0.1:{port}', tls: {{certificate: {0}/cert.pem, key: {0}/cert-key.pem{1}}}}}\n",
        dir.display(),
        match clients {
            true => format!(", clientcas: ['{}/cert.pem']", dir.display()),
            false => String::new(),
        }
    );
    std::fs::write(dir.join("config.yml"), config).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(dir.join("config.yml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let service = Service(child);
    let host = format!("127.0.0.1:{port}");
    for _ in 0..1200 {
        if std::net::TcpStream::connect(&host).is_ok() {
            return Some((service, host));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("docker-registry does not listen on {host}");
}

#[test]
fn certificates_are_checked_against_system_and_host_roots() {
    let bench = Bench::new();
    let Some((_registry, host)) = tls_registry(&bench.path(""), false) else {
        skip!("docker-registry or openssl is not installed");
    };
    std::fs::write(bench.path("registries.conf"), "").unwrap();
    let name = format!("{host}/none:1");
    let outcome = |flags: &[&str], cert_file: Option<&Path>| {
        let mut arguments = vec!["pull"];
        arguments.extend(flags);
        arguments.push(&name);
        let mut command = command(&bench, &arguments);
        if let Some(file) = cert_file {
            command.env("SSL_CERT_FILE", file);
        }
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let refused = outcome(&[], None);
    for want in [
        "certificate is not trusted",
        "--tls-verify=false",
        "insecure = true",
    ] {
        assert!(refused.contains(want), "{refused}");
    }
    let reached = "has no such image";
    assert!(outcome(&["--tls-verify=false"], None).contains(reached));
    let cert = bench.path("cert.pem");
    let text = outcome(&[], Some(&cert));
    assert!(text.contains(reached), "{text}");
    let own = bench.path("home/.config/containers/certs.d").join(&host);
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(&cert, own.join("ca.crt")).unwrap();
    let text = outcome(&[], None);
    assert!(text.contains(reached), "{text}");
}

#[test]
fn a_client_certificate_is_shown_to_its_registry_and_a_wrong_one_is_named() {
    let bench = Bench::new();
    let Some((_registry, host)) = tls_registry(&bench.path(""), true) else {
        skip!("docker-registry or openssl is not installed");
    };
    make_certificate(&bench.path(""), "other").unwrap();
    std::fs::write(bench.path("registries.conf"), "").unwrap();
    let name = format!("{host}/none:1");
    let certs = bench.path("home/.config/containers/certs.d").join(&host);
    std::fs::create_dir_all(&certs).unwrap();
    let put = |from: &str, to: &str| {
        std::fs::copy(bench.path(from), certs.join(to)).unwrap();
    };
    put("cert.pem", "ca.crt");
    let (_, text) = rless(&bench, &["pull", &name]);
    assert!(!text.contains("has no such image"), "{text}");
    put("cert.pem", "client.cert");
    let (_, text) = rless(&bench, &["pull", &name]);
    assert!(text.contains("client.key is missing"), "{text}");
    put("other-key.pem", "client.key");
    let (output, text) = rless(&bench, &["pull", &name]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text.contains("client.cert") && !text.contains("panicked"),
        "{text}"
    );
    put("cert-key.pem", "client.key");
    let (_, text) = rless(&bench, &["pull", &name]);
    assert!(text.contains("has no such image"), "{text}");
}

#[test]
fn layouts_and_archives_are_imported() {
    let bench = Bench::new();
    let image = simple();
    let layout = bench.path("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let hex = |b: &[u8]| {
        crate::hostile::digest(b)
            .trim_start_matches("sha256:")
            .to_owned()
    };
    for blob in image.layers.iter().chain([&image.config, &image.manifest]) {
        std::fs::write(blobs.join(hex(blob)), blob).unwrap();
    }
    let entry = |tag: &str| {
        serde_json::json!({
            "mediaType": crate::hostile::MANIFEST_TYPE,
            "digest": format!("sha256:{}", hex(&image.manifest)),
            "size": image.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        })
    };
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry("a"), entry("b")]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(
        layout.join("oci-layout"),
        "{\"imageLayoutVersion\":\"1.0.0\"}",
    )
    .unwrap();
    std::fs::write(bench.path("registries.conf"), "").unwrap();
    let archive = bench.path("layout.tar.gz");
    let status = Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(&layout)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
    let (layout, archive) = (layout.display(), archive.display());
    for source in [
        format!("oci:{layout}:a"),
        format!("oci-archive:{archive}:b"),
    ] {
        let (output, text) = rless(&bench, &["pull", "-q", &source]);
        assert_eq!(stdout(&output), format!("{}\n", image.id()), "{text}");
    }
    let (output, _) = rless(
        &bench,
        &["images", "-n", "--sort", "tag", "--format", "{{.Names}}"],
    );
    let names = stdout(&output);
    assert!(
        names.contains("localhost/layout:a") && names.contains("localhost/layout:b"),
        "{names}"
    );
    let (output, text) = rless(&bench, &["pull", &format!("oci:{layout}")]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text.contains("its tags: a, b"), "{text}");
    let (_, text) = rless(&bench, &["pull", "oci:/nonexistent"]);
    assert!(text.contains("no such directory"), "{text}");
    std::fs::write(
        bench
            .path("layout/blobs/sha256")
            .join(hex(&image.layers[0])),
        "x",
    )
    .unwrap();
    rless(&bench, &["rmi", "-a"]);
    let (output, _) = rless(&bench, &["pull", &format!("oci:{layout}:a")]);
    assert_eq!(output.status.code(), Some(125));
    bench.assert_empty("damaged layout");
}

#[test]
fn a_docker_archive_is_imported_with_its_names() {
    let bench = Bench::new();
    let image = simple();
    let layer = crate::hostile::tar(&[("hello", b"world".to_vec())]);
    let list = serde_json::json!([{
        "Config": "c.json", "RepoTags": ["thing:1", "quay.io/a/b:2"], "Layers": ["l/layer.tar"],
    }]);
    let archive = crate::hostile::tar(&[
        ("l/layer.tar", layer),
        ("c.json", image.config.clone()),
        ("manifest.json", list.to_string().into_bytes()),
    ]);
    std::fs::write(bench.path("registries.conf"), "").unwrap();
    let file = bench.path("saved.tar");
    std::fs::write(&file, archive).unwrap();
    let (output, text) = rless(
        &bench,
        &["pull", "-q", &format!("docker-archive:{}", file.display())],
    );
    assert_eq!(stdout(&output), format!("{}\n", image.id()), "{text}");
    let (output, _) = rless(
        &bench,
        &[
            "images",
            "-n",
            "--format",
            "{{.Repository}}:{{.Tag}}",
            "--sort",
            "tag",
        ],
    );
    assert_eq!(
        stdout(&output),
        "docker.io/library/thing:1\nquay.io/a/b:2\n"
    );
}

#[test]
fn a_full_disk_is_named_and_rolled_back() {
    let image = Recipe::of(vec![vec![("a", noise(3_000_000))]]).bake();
    let server = honest(&image);
    let bench = Bench::new();
    configure(&bench, &server.host(), "");
    std::fs::create_dir_all(bench.path("small")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=2m none {0}/small || exit 77\n\
         export RLESS_STORE={0}/small/data\n\
         {1} pull -q x:1; code=$?\n\
         {1} images; find {0}/small/data -type f | grep -v /locks/; exit $code",
        bench.path("").display(),
        env!("CARGO_BIN_EXE_rless"),
    );
    let base = command(&bench, &[]);
    let mut shell = Command::new("unshare");
    shell.args(["-Urm", "sh", "-c", &script]).env_clear();
    shell.envs(base.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || text.contains("unshare failed") {
        skip!("no tmpfs in a user namespace here");
    }
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.to_lowercase().contains("no space left"), "{text}");
    let printed = stdout(&output);
    let left = printed.lines().filter(|l| l.starts_with('/'));
    let mut names: Vec<_> = left.filter_map(|l| l.rsplit('/').next()).collect();
    names.sort_unstable();
    // That the pull failed is an event.
    assert_eq!(names, ["events.jsonl", "version"], "{printed}");
}

#[test]
fn an_image_with_a_container_is_removed_only_by_force_and_with_it() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    sandbox
        .rless(["run", "--network", "none", "busybox", "true"])
        .ok();
    let refused = sandbox.rless(["rmi", "busybox"]).exits(2);
    refused.says(&["in use by container", "rmi -f"]);
    sandbox.rless(["rmi", "-f", "busybox"]).ok();
    assert_eq!(sandbox.rless(["ps", "-aq"]).ok(), "");
    assert_eq!(sandbox.rless(["images", "-q"]).ok(), "");
}
