//! Pulling from registries that lie, break off, redirect and ask for credentials (THREATS section 2).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rless::error::report;
use rless::store::{Image as Stored, PullOptions, PullPolicy, Silent, Store};

use crate::hostile::{
    Body, INDEX_TYPE, Image, MANIFEST_TYPE, Recipe, Reply, Request, Server, digest, index, noise,
    simple,
};

/// A store of one's own, and the library to pull with.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("auth.json"), "{}").unwrap();
        Bench { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> Store {
        Store::open_at(&self.path("data"), &self.path("run")).unwrap()
    }

    fn options(&self) -> PullOptions {
        PullOptions {
            tls_verify: Some(false),
            policy: PullPolicy::Always,
            platform: Some("linux/amd64".to_owned()),
            authfile: Some(self.path("auth.json")),
            creds: None,
        }
    }

    fn pull(&self, server: &Server) -> Result<Stored, String> {
        self.pull_with(server, &self.options())
    }

    fn pull_with(&self, server: &Server, options: &PullOptions) -> Result<Stored, String> {
        let name = format!("{}/x:1", server.host());
        self.store()
            .pull(&name, options, &Silent)
            .map_err(|e| report(&e))
    }

    /// No image, and no file that one would have.
    pub(crate) fn assert_empty(&self, why: &str) {
        assert!(self.store().images().unwrap().is_empty(), "{why}");
        let mut left = Vec::new();
        for sub in ["blobs", "packs", "index", "images", "tags", "tmp"] {
            walk(&self.path("data").join(sub), &mut left);
        }
        assert!(left.is_empty(), "{why}: {left:?}");
    }
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            walk(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

pub(crate) fn honest(image: &Image) -> Server {
    let image = image.clone();
    Server::start(move |r| image.serve(r))
}

/// The honest answers, each passed through `twist`.
pub(crate) fn twisted(
    image: &Image,
    twist: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> Server {
    let image = image.clone();
    Server::start(move |r| twist(r, image.serve(r)))
}

#[test]
fn an_image_is_pulled_once_and_its_layers_are_shared() {
    let image = Recipe::of(vec![
        vec![("a", b"1".to_vec())],
        vec![("b", b"2".to_vec())],
        vec![("c", b"3".to_vec())],
    ])
    .bake();
    let server = honest(&image);
    let bench = Bench::new();
    let first = bench.pull(&server).unwrap();
    assert_eq!(first.id, image.id());
    assert_eq!(first.digest, digest(&image.manifest));
    assert!(first.index.is_file());
    assert_eq!(server.count("/blobs/"), 4);
    bench.pull(&server).unwrap();
    assert_eq!(
        server.count("/blobs/"),
        5,
        "only the config is asked for again"
    );
    let other = Recipe::of(vec![vec![("a", b"1".to_vec())], vec![("d", b"4".to_vec())]]).bake();
    let server = honest(&other);
    bench.pull(&server).unwrap();
    assert_eq!(server.count("/blobs/"), 2, "config and one layer");
    assert_eq!(bench.store().images().unwrap().len(), 2);
}

#[test]
fn two_pulls_of_one_image_download_it_once_and_both_succeed() {
    let image = Recipe::of(vec![vec![("big", noise(600_000))]]).bake();
    let layer = digest(&image.layers[0]);
    let server = twisted(&image, {
        let layer = layer.clone();
        move |r, reply| match (&reply.body, r.path.contains(&layer)) {
            (Body::Whole(bytes), true) => {
                let slow = Body::Slow(bytes.clone(), 100_000, Duration::from_millis(60));
                reply.body(slow)
            }
            _ => reply,
        }
    });
    let bench = Bench::new();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| bench.pull(&server).unwrap()))
            .collect();
        for pull in pulls {
            assert_eq!(pull.join().unwrap().id, image.id());
        }
    });
    assert_eq!(server.count(&layer), 1);
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    let of = |architecture: &'static str| {
        Recipe {
            layers: vec![vec![("arch", architecture.as_bytes().to_vec())]],
            architecture: Some(architecture),
            ..Recipe::default()
        }
        .bake()
    };
    let (amd, arm) = (of("amd64"), of("arm64"));
    let list = index(&[("amd64", &amd), ("arm64", &arm)]);
    let server = Server::start({
        let (amd, arm) = (amd.clone(), arm.clone());
        move |r| {
            if r.path.ends_with("/manifests/1") {
                return Reply::ok(list.clone()).with("Content-Type", INDEX_TYPE);
            }
            match amd.serve(r) {
                reply if reply.status == 200 => reply,
                _ => arm.serve(r),
            }
        }
    });
    let bench = Bench::new();
    assert_eq!(bench.pull(&server).unwrap().id, amd.id());
    let mut options = bench.options();
    options.platform = Some("linux/arm64".to_owned());
    assert_eq!(bench.pull_with(&server, &options).unwrap().id, arm.id());
    options.platform = Some("linux/s390x".to_owned());
    let text = bench.pull_with(&server, &options).unwrap_err();
    assert!(text.contains("linux/amd64, linux/arm64/v8"), "{text}");
}

fn flip(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

#[test]
fn one_flipped_bit_anywhere_commits_nothing() {
    let image = simple();
    let list = index(&[("amd64", &image)]);
    for target in ["index", "manifest", "config", "layer"] {
        let (image, list) = (image.clone(), list.clone());
        let server = Server::start(move |r| {
            let is_index = r.path.ends_with("/manifests/1");
            let reply = if is_index {
                Reply::ok(list.clone())
                    .with("Content-Type", INDEX_TYPE)
                    .with("Docker-Content-Digest", &digest(&list))
            } else {
                image.serve(r)
            };
            let hit = match target {
                "index" => is_index,
                "manifest" => r.path.contains("/manifests/sha256:"),
                "config" => r.path.ends_with(&digest(&image.config)),
                _ => r.path.ends_with(&digest(&image.layers[0])),
            };
            match (&reply.body, hit) {
                (Body::Whole(bytes), true) => {
                    let flipped = Body::Whole(flip(bytes));
                    reply.body(flipped)
                }
                _ => reply,
            }
        });
        let bench = Bench::new();
        let text = bench.pull(&server).unwrap_err();
        assert!(text.contains("sha256:"), "{target}: {text}");
        bench.assert_empty(target);
    }
}

#[test]
fn an_unpacked_layer_that_is_not_the_configs_commits_nothing() {
    let image = Recipe {
        layers: vec![vec![("hello", b"world".to_vec())]],
        diff_id: Some(format!("sha256:{}", "1".repeat(64))),
        ..Recipe::default()
    }
    .bake();
    let bench = Bench::new();
    let text = bench.pull(&honest(&image)).unwrap_err();
    assert!(text.contains(&"1".repeat(64)), "{text}");
    bench.assert_empty("diff id");
}

#[test]
fn digests_that_are_paths_are_refused_before_any_request() {
    let upper = format!("sha256:{}", "A".repeat(64));
    for bad in ["sha256:../../x", "sha256:ABC", "md5:00", &upper] {
        let recipe = Recipe::of(vec![vec![("hello", b"world".to_vec())]]);
        let image = Recipe {
            layer_digest: Some(bad.to_owned()),
            ..recipe.clone()
        };
        let server = honest(&image.bake());
        let bench = Bench::new();
        let text = bench.pull(&server).unwrap_err();
        assert!(text.contains("is not a digest"), "{text}");
        assert_eq!(server.count("/blobs/"), 0);
        bench.assert_empty(bad);
        let image = Recipe {
            diff_id: Some(bad.to_owned()),
            ..recipe
        };
        assert!(bench.pull(&honest(&image.bake())).is_err(), "{bad}");
        bench.assert_empty(bad);
    }
}

#[test]
fn a_huge_manifest_is_not_read() {
    let image = simple();
    for told in [true, false] {
        let server = twisted(&image, move |r, reply| {
            if r.path.contains("/manifests/") {
                return reply.body(Body::Zeros(1 << 30, told));
            }
            reply
        });
        let bench = Bench::new();
        let text = bench.pull(&server).unwrap_err();
        assert!(text.contains("larger than"), "{text}");
        assert!(server.bytes_sent() < 32 << 20, "{}", server.bytes_sent());
    }
}

#[test]
fn a_huge_token_is_not_read() {
    let server = Server::start(|r| {
        if r.path.starts_with("/token") {
            return Reply::ok("").body(Body::Zeros(1 << 30, false));
        }
        let host = r.header("host").unwrap().to_owned();
        let challenge = format!("Bearer realm=\"http://{host}/token\"");
        Reply::status(401).with("WWW-Authenticate", &challenge)
    });
    let text = Bench::new().pull(&server).unwrap_err();
    assert!(text.contains("larger than"), "{text}");
    assert!(server.bytes_sent() < 32 << 20, "{}", server.bytes_sent());
}

#[test]
fn a_broken_download_goes_on_by_range() {
    let image = Recipe::of(vec![vec![("big", noise(400_000))]]).bake();
    let layer = digest(&image.layers[0]);
    for ranges in [true, false] {
        let (wanted, tries) = (layer.clone(), AtomicUsize::new(0));
        let server = twisted(&image, move |r, mut reply| {
            let Body::Whole(bytes) = reply.body.clone() else {
                return reply;
            };
            if !r.path.ends_with(&wanted) {
                return reply;
            }
            let start = r.range_start().filter(|_| ranges).unwrap_or(0);
            let (part, len) = (bytes[start..].to_vec(), bytes.len());
            if start > 0 {
                reply = reply.with("Content-Range", &format!("bytes {start}-{}/{len}", len - 1));
                reply.status = 206;
            }
            match tries.fetch_add(1, Ordering::Relaxed) {
                n @ 0..2 => {
                    let cut = part.len() * (n + 1) / 3;
                    reply.body(Body::Cut(part, cut))
                }
                _ => reply.body(Body::Whole(part)),
            }
        });
        Bench::new().pull(&server).unwrap();
        let starts: Vec<_> = server
            .requests()
            .iter()
            .filter(|r| r.path.ends_with(&layer))
            .map(|r| r.range_start().unwrap_or(0))
            .collect();
        assert_eq!(starts.len(), 3, "{starts:?}");
        assert_eq!(starts[0], 0);
        assert!(starts[1] > 0 && starts[2] > starts[1], "{starts:?}");
    }
}

#[test]
fn a_download_that_always_breaks_ends_with_an_error_that_says_so() {
    let image = simple();
    let layer = digest(&image.layers[0]);
    let server = twisted(&image, move |r, reply| match reply.body.clone() {
        Body::Whole(bytes) if r.path.ends_with(&layer) => reply.body(Body::Cut(bytes, 0)),
        _ => reply,
    });
    let bench = Bench::new();
    let text = bench.pull(&server).unwrap_err();
    assert!(text.contains("bytes received"), "{text}");
    bench.assert_empty("cut");
}

#[test]
fn a_busy_registry_is_asked_again_after_the_time_it_names() {
    let image = simple();
    let tries = Arc::new(AtomicUsize::new(0));
    let server = twisted(&image, {
        let tries = tries.clone();
        move |r, reply| {
            let first =
                r.path.contains("/manifests/") && tries.fetch_add(1, Ordering::Relaxed) == 0;
            if first {
                return Reply::status(429).with("Retry-After", "1");
            }
            reply
        }
    });
    let start = Instant::now();
    Bench::new().pull(&server).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(tries.load(Ordering::Relaxed), 2);

    let server = Server::start(|_| Reply::status(429).with("Retry-After", "7200"));
    let start = Instant::now();
    let text = Bench::new().pull(&server).unwrap_err();
    assert!(text.contains("7200 s"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

pub(crate) const BASIC: &str = "Basic bWU6c2VjcmV0";

fn with_creds(bench: &Bench) -> PullOptions {
    PullOptions {
        creds: Some("me:secret".to_owned()),
        ..bench.options()
    }
}

#[test]
fn a_redirect_to_another_host_carries_no_credentials() {
    let image = simple();
    let storage = honest(&image);
    let elsewhere = storage.host();
    let server = twisted(&image, move |r, reply| {
        if r.header("authorization") != Some(BASIC) {
            return Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match r.path.split_once("/blobs/") {
            Some((_, blob)) => {
                let location = format!("http://{elsewhere}/cdn/blobs/{blob}");
                Reply::status(307).with("Location", &location)
            }
            None => reply,
        }
    });
    let bench = Bench::new();
    bench.pull_with(&server, &with_creds(&bench)).unwrap();
    let seen = storage.requests();
    assert_eq!(seen.len(), 2, "config and layer");
    assert!(
        seen.iter().all(|r| r.header("authorization").is_none()),
        "{seen:?}"
    );
}

#[test]
fn redirects_that_go_round_end() {
    let server = Server::start(|r| Reply::status(302).with("Location", &r.path));
    let text = Bench::new().pull(&server).unwrap_err();
    assert!(text.contains("redirects more than"), "{text}");
    assert!(server.requests().len() < 20);
}

#[test]
fn a_token_is_fetched_used_and_renewed() {
    let image = simple();
    let issued = Arc::new(AtomicUsize::new(0));
    let server = twisted(&image, {
        let issued = issued.clone();
        move |r, reply| {
            let host = r.header("host").unwrap().to_owned();
            if r.path.starts_with("/token") {
                let right = r.header("authorization") == Some(BASIC)
                    && r.path.contains("scope=repository%3Ax%3Apull")
                    && r.path.contains("service=s%261");
                let n = issued.fetch_add(1, Ordering::Relaxed) + 1;
                return match right {
                    true => Reply::ok(format!("{{\"token\":\"T{n}\"}}")),
                    false => Reply::status(400),
                };
            }
            // The first token has run out when blobs are fetched.
            let good = if r.path.contains("/blobs/") {
                "Bearer T2"
            } else {
                "Bearer T1"
            };
            if r.header("authorization") == Some(good) {
                return reply;
            }
            let challenge = format!(
                "Bearer realm=\"http://{host}/token\",service=\"s&1\",scope=\"repository:x:pull\""
            );
            Reply::status(401).with("WWW-Authenticate", &challenge)
        }
    });
    let bench = Bench::new();
    bench.pull_with(&server, &with_creds(&bench)).unwrap();
    assert_eq!(issued.load(Ordering::Relaxed), 2);
}

#[test]
fn an_identity_token_is_posted_and_never_in_a_url() {
    let image = simple();
    let server = twisted(&image, |r, reply| {
        let host = r.header("host").unwrap().to_owned();
        if r.path == "/token" && r.body.contains("grant_type=refresh_token&") {
            return match r.body.contains("refresh_token=ID%2BTOKEN") {
                true => Reply::ok("{\"access_token\":\"T\"}"),
                false => Reply::status(400),
            };
        }
        if r.header("authorization") == Some("Bearer T") {
            return reply;
        }
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
        Reply::status(401).with("WWW-Authenticate", &challenge)
    });
    let bench = Bench::new();
    let text = format!(
        "{{\"auths\": {{\"{}\": {{\"identitytoken\": \"ID+TOKEN\"}}}}}}",
        server.host()
    );
    std::fs::write(bench.path("auth.json"), text).unwrap();
    bench.pull(&server).unwrap();
    assert_eq!(server.count("TOKEN"), 0);
}

#[test]
fn a_token_server_on_another_host_without_tls_gets_nothing() {
    let thief = Server::start(|_| Reply::ok(r#"{"token":"T"}"#));
    let port = thief.host().rsplit_once(':').unwrap().1.to_owned();
    let server = Server::start(move |_| {
        let challenge = format!("Bearer realm=\"http://localhost:{port}/t\",service=\"s\"");
        Reply::status(401).with("WWW-Authenticate", &challenge)
    });
    let bench = Bench::new();
    let text = bench.pull_with(&server, &with_creds(&bench)).unwrap_err();
    assert!(text.contains("not https"), "{text}");
    assert!(thief.requests().is_empty());
}

#[test]
fn wrong_credentials_are_an_error_without_a_loop() {
    let server =
        Server::start(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
    let bench = Bench::new();
    let text = bench.pull_with(&server, &with_creds(&bench)).unwrap_err();
    assert!(text.contains("does not let us in"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    assert!(server.requests().len() <= 3);
}

#[test]
fn an_image_is_removed_with_all_that_only_it_needed() {
    let shared = ("shared", noise(50_000));
    let one = Recipe::of(vec![vec![shared.clone()], vec![("one", noise(9_000))]]).bake();
    let two = Recipe::of(vec![vec![shared, ("two", b"2".to_vec())]]).bake();
    let bench = Bench::new();
    let (first, second) = (honest(&one), honest(&two));
    bench.pull(&first).unwrap();
    bench.pull(&second).unwrap();
    let store = bench.store();
    let in_use = store
        .remove_image(&one.id()[..12], false, &|_| vec!["c".repeat(64)])
        .unwrap_err();
    assert_eq!(rless::error::kind(&in_use), rless::error::Kind::Conflict);
    let held = store.hold_image(&one.id()).unwrap();
    let held_error = store.remove_image(&one.id(), false, &|_| Vec::new());
    assert!(held_error.is_err(), "a container is being made of it");
    drop(held);
    store
        .remove_image(&one.id()[..12], false, &|_| Vec::new())
        .unwrap();
    let kept = store.find_image(&two.id()).unwrap().unwrap();
    let index = rless::cow::index::Index::open(&kept.index).unwrap();
    index.open_packs(&store.packs_dir()).unwrap();
    store
        .remove_image(&two.id(), false, &|_| Vec::new())
        .unwrap();
    bench.assert_empty("both removed");
}

#[test]
fn a_name_moves_and_leaves_a_nameless_image() {
    let (one, two) = (
        simple(),
        Recipe::of(vec![vec![("x", b"2".to_vec())]]).bake(),
    );
    let bench = Bench::new();
    let step = Arc::new(AtomicUsize::new(0));
    let server = Server::start({
        let (one, two, step) = (one.clone(), two.clone(), step.clone());
        move |r| match step.load(Ordering::Relaxed) {
            0 => one.serve(r),
            _ => two.serve(r),
        }
    });
    bench.pull(&server).unwrap();
    step.store(1, Ordering::Relaxed);
    let mut missing = bench.options();
    missing.policy = PullPolicy::Missing;
    assert_eq!(bench.pull_with(&server, &missing).unwrap().id, one.id());
    assert_eq!(bench.pull(&server).unwrap().id, two.id());
    let images = bench.store().images().unwrap();
    let names = |id: &str| images.iter().find(|i| i.id == id).unwrap().names.len();
    assert_eq!((names(&one.id()), names(&two.id())), (0, 1));
    let by_digest = format!("{}/x@{}", server.host(), digest(&two.manifest));
    let found = bench.store().find_image(&by_digest).unwrap();
    assert_eq!(found.unwrap().id, two.id());
}

#[test]
fn a_damaged_config_index_or_pack_is_found_and_fetched_again() {
    let image = Recipe::of(vec![vec![("big", noise(20_000))]]).bake();
    let server = honest(&image);
    let bench = Bench::new();
    let name = format!("{}/x:1", server.host());
    let mut options = bench.options();
    options.policy = PullPolicy::Missing;
    for target in ["blobs/sha256", "index/images"] {
        bench.pull(&server).unwrap();
        let mut files = Vec::new();
        walk(&bench.path("data").join(target), &mut files);
        let file = files
            .iter()
            .find(|f| f.to_string_lossy().contains(&image.id()))
            .unwrap();
        match target {
            "blobs/sha256" => std::fs::write(file, "{}").unwrap(),
            _ => std::fs::remove_file(file).unwrap(),
        }
        let text = report(&bench.store().find_image(&name).unwrap_err());
        assert!(text.contains("damaged"), "{text}");
        bench.pull_with(&server, &options).unwrap();
        assert!(bench.store().find_image(&name).unwrap().is_some());
    }
    let mut packs = Vec::new();
    walk(&bench.path("data/packs"), &mut packs);
    for pack in packs {
        std::fs::remove_file(pack).unwrap();
    }
    bench.pull(&server).unwrap();
    let found = bench.store().find_image(&name).unwrap().unwrap();
    let index = rless::cow::index::Index::open(&found.index).unwrap();
    index.open_packs(&bench.store().packs_dir()).unwrap();
}

#[test]
fn manifests_of_other_kinds_are_named() {
    let cases = [
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
        (r#"{"schemaVersion":2}"#, "neither"),
        ("<html>", "not an image manifest"),
    ];
    for (body, want) in cases {
        let server = Server::start(move |_| Reply::ok(body).with("Content-Type", MANIFEST_TYPE));
        let text = Bench::new().pull(&server).unwrap_err();
        assert!(text.contains(want), "{text}");
    }
}

#[test]
fn a_platform_that_was_asked_for_is_not_replaced_by_another() {
    let server = honest(&simple());
    let bench = Bench::new();
    let mut options = bench.options();
    options.platform = Some("linux/riscv64".to_owned());
    let text = bench.pull_with(&server, &options).unwrap_err();
    assert!(text.contains("linux/riscv64"), "{text}");
    bench.assert_empty("other platform");
}
