//! What podman does with the same arguments: cases as data, its answers recorded, rless measured by them.
//!
//! `tests/it/podman/GROUP.toml` holds cases: a name and steps, each a line of shell with `$ENGINE` for the
//! program, `$IMAGE`, `$APP` for two images (see `tests/images/build`) and `$HERE` for `tests/podman`. `tests/podman/drive` runs the
//! steps of a case in one shell, in an empty directory. `tests/podman/record` did so with podman 5.4 of
//! Debian 13, as an ordinary user, and left exit code, stdout and stderr of each step in `GROUP.json`.
//! Here rless runs them, each case with a store of its own, and the answers are compared:
//!
//! - exit codes, always;
//! - stdout, always, unless the step says `out = "any"` and `why`;
//! - stderr: what podman prints there without an error (the container's own words) must be the same;
//!   where it reports an error (`Error: …`), rless must, too, and both texts hold the step's `words`,
//!   whose case does not matter. podman's log lines (`time=… level=…`) do not count.
//!
//! Ids become `<id 1>`, `<id 2>` … by first appearance in the case (so that *which* id is printed is
//! compared), times `<time>`, durations `<while>`, columns lose their width; see [`Plain`]. A step where
//! rless departs on purpose carries `differs = { why = "…", … }` with what it does instead.
//!
//! `pending` lists commands (`exec`) and flags (`run --restart`) that are not there yet; their cases do
//! not run, and `what_is_there_is_not_pending` fails once they could. `failing` lists cases whose
//! difference is a fault of rless that is not mended yet, with its reason; one that passes fails the test
//! until it is off the list. `RLESS_TEST_CASE` picks cases by a part of their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use regex::{Captures, Regex};
use serde::Deserialize;

use crate::harness::{Sandbox, World, note_skip, world};

const GROUPS: [&str; 14] = [
    "run",
    "lifecycle",
    "ps",
    "exec",
    "views",
    "files",
    "volumes",
    "services",
    "health",
    "shared",
    "words",
    "devices",
    "host",
    "flags",
];
/// Cases of one group that run at a time: most of their time is sleep.
const AT_A_TIME: usize = 3;

#[derive(Deserialize)]
struct Group {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// `cgroup`: only where containers get a control group.
    needs: Option<String>,
    steps: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Plain(String),
    Full(Step),
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, default)]
struct Step {
    run: String,
    /// In both error texts.
    words: Vec<String>,
    /// `any`: stdout is not compared, and `why`.
    out: Option<String>,
    why: Option<String>,
    differs: Option<Departure>,
}

/// What rless does instead.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Departure {
    why: String,
    code: Option<i32>,
    out: Option<String>,
    /// Words of its error text; none: it has none.
    err: Option<Vec<String>>,
}

impl Line {
    fn step(&self) -> Step {
        match self {
            Line::Full(step) => step.clone(),
            Line::Plain(run) => Step {
                run: run.clone(),
                ..Step::default()
            },
        }
    }
}

#[derive(Deserialize)]
struct Recording {
    podman: String,
    cases: BTreeMap<String, Vec<Answer>>,
}

#[derive(Deserialize, Debug)]
struct Answer {
    run: String,
    code: i32,
    out: String,
    err: String,
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/podman")
        .join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(data(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn cases(group: &str) -> Vec<Case> {
    let parsed: Result<Group, _> = toml::from_str(&read(&format!("{group}.toml")));
    parsed.unwrap_or_else(|e| panic!("{group}.toml: {e}")).case
}

fn recording(group: &str) -> Recording {
    serde_json::from_str(&read(&format!("{group}.json"))).unwrap()
}

// --- what is not there yet ------------------------------------------------------------------------------------------

/// A command, or a flag of one, that rless has not yet.
struct Pending {
    command: String,
    flag: Option<String>,
}

/// The lines of a list, without its comments.
fn list(name: &str) -> Vec<String> {
    let text = read(name);
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Cases that are known to differ, and why.
fn failing() -> BTreeMap<String, String> {
    let lines = list("failing").into_iter();
    lines
        .map(|line| {
            let (name, why) = line.split_once(": ").expect("NAME: REASON");
            (name.to_owned(), why.to_owned())
        })
        .collect()
}

fn pending() -> Vec<Pending> {
    list("pending")
        .into_iter()
        .map(|line| match line.split_once(" -") {
            Some((command, flag)) => Pending {
                command: command.to_owned(),
                flag: Some(format!("-{flag}")),
            },
            None => Pending {
                command: line,
                flag: None,
            },
        })
        .collect()
}

impl Pending {
    fn used_by(&self, case: &Case) -> bool {
        let call = Regex::new(&format!(r"\$ENGINE {}\b", regex::escape(&self.command))).unwrap();
        case.steps.iter().any(|line| {
            let run = line.step().run;
            let flag = self.flag.as_ref();
            call.is_match(&run) && flag.is_none_or(|flag| run.contains(&format!(" {flag}")))
        })
    }
}

#[test]
fn what_is_there_is_not_pending() {
    let world = world!();
    let sandbox = Sandbox::new(world);
    for Pending { command, flag } in pending() {
        let help = sandbox.rless(command.split(' ')).arg("--help").run();
        let there = match flag.clone() {
            None => help.code() == 0,
            Some(flag) => {
                let flag = format!(r"(?m)(^|\s){}\b", regex::escape(&flag));
                help.code() == 0 && Regex::new(&flag).unwrap().is_match(&help.out)
            }
        };
        let flag = flag.unwrap_or_default();
        assert!(!there, "{command} {flag} is there: take it off the list");
    }
}

#[test]
fn every_case_has_a_recording_of_its_steps() {
    let mut names = std::collections::BTreeSet::new();
    for group in GROUPS {
        let recording = recording(group);
        assert!(recording.podman.contains("5.4"), "{}", recording.podman);
        let cases = cases(group);
        for case in &cases {
            assert!(names.insert(case.name.clone()), "twice: {}", case.name);
            let answers = recording.cases.get(&case.name);
            let answers = answers.unwrap_or_else(|| panic!("not recorded: {}", case.name));
            let recorded: Vec<_> = answers.iter().map(|a| a.run.clone()).collect();
            let steps: Vec<_> = case.steps.iter().map(Line::step).collect();
            let written: Vec<_> = steps.iter().map(|s| s.run.clone()).collect();
            assert_eq!(recorded, written, "{}: record it again", case.name);
            for (step, answer) in steps.iter().zip(answers) {
                let said = answer.err.to_lowercase();
                for word in &step.words {
                    let place = format!("{}: {}", case.name, step.run);
                    assert!(
                        said.contains(&word.to_lowercase()),
                        "podman says no {word:?}: {place}: {said}"
                    );
                }
                assert_eq!(step.out.is_some(), step.why.is_some(), "{}", case.name);
                let needs = case.needs.as_deref();
                assert!(matches!(needs, None | Some("cgroup")), "{}", case.name);
                let differs = step.differs.as_ref();
                assert!(differs.is_none_or(|d| !d.why.is_empty()), "{}", case.name);
            }
        }
        assert_eq!(cases.len(), recording.cases.len(), "{group}.json has more");
    }
    assert!(names.len() >= 150, "{} cases", names.len());
    for name in failing().keys() {
        assert!(names.contains(name), "{name} is listed as failing");
    }
}

// --- replay ---------------------------------------------------------------------------------------------------------

/// A store with both images, copied for each case.
fn template(world: &'static World) -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let mut sandbox = sandbox(world);
        let data = world.base.join("podman-template");
        sandbox.make_dir(&data);
        sandbox.set("XDG_DATA_HOME", &data);
        for name in ["busybox", "app"] {
            let name = format!("docker.io/library/{name}:latest");
            sandbox.rless(["pull", "-q", &name]).ok();
        }
        data
    })
}

/// Where `docker.io/library` is the loopback registry.
fn sandbox(world: &World) -> Sandbox {
    let sandbox = Sandbox::new(world);
    let host = &world.registry;
    let conf = format!(
        "unqualified-search-registries = [\"docker.io\"]\n[[registry]]\nprefix = \"docker.io/library\"\n\
         location = \"{host}\"\ninsecure = true\n[[registry]]\nprefix = \"localhost\"\nlocation = \"{host}\"\n\
         insecure = true\n"
    );
    sandbox.write("config/containers/registries.conf", conf);
    sandbox
}

fn answers(world: &'static World, case: &Case) -> (PathBuf, Vec<Answer>) {
    let template = template(world);
    let mut sandbox = sandbox(world);
    let data = sandbox.get("XDG_DATA_HOME");
    let copy = ["-a", "--reflink=auto"].map(Into::into).into_iter();
    let paths = [template.join("rless"), data.join("rless")];
    sandbox
        .command("/bin/cp")
        .args(copy.chain(paths.map(PathBuf::into_os_string)))
        .ok();
    let engine = sandbox.binary().to_path_buf();
    sandbox.set("ENGINE", engine);
    sandbox.set("IMAGE", "busybox");
    sandbox.set("APP", "app");
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/podman");
    sandbox.set("HERE", &here);
    let dir = sandbox.dir.join("case");
    let home = dir.join("home");
    sandbox.make_dir(&dir);
    sandbox.make_dir(&home);
    for (i, line) in case.steps.iter().enumerate() {
        sandbox.write(&format!("case/{i:02}.step"), line.step().run + "\n");
    }
    let script = std::fs::read_to_string(here.join("drive")).unwrap();
    let limit = Duration::from_secs(600);
    let driven = sandbox.sh(&script).arg("drive").arg(&dir);
    driven.cwd(&home).within(limit).ok();
    let part = |i: usize, part: &str| {
        let bytes = std::fs::read(dir.join(format!("{i:02}.{part}"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let answers = case.steps.iter().enumerate().map(|(i, line)| Answer {
        run: line.step().run,
        code: part(i, "code").trim().parse().unwrap_or(-1),
        out: part(i, "out"),
        err: part(i, "err"),
    });
    let answers = answers.collect();
    sandbox.rless(["rm", "-f", "-a", "-t", "0"]).ok();
    (home, answers)
}

/// One case: what is wrong with it, a line each.
fn check(world: &'static World, case: &Case, recorded: &[Answer]) -> Vec<String> {
    let (home, given) = answers(world, case);
    let mut wrong = Vec::new();
    let (mut theirs, mut ours) = (Plain::default(), Plain::default());
    theirs.home = PathBuf::from("/tmp/case/home");
    ours.home = home;
    for ((line, podman), rless) in case.steps.iter().zip(recorded).zip(&given) {
        let step = line.step();
        let expected = Answer {
            run: String::new(),
            code: podman.code,
            out: theirs.plain(&podman.out),
            err: theirs.plain(&podman.err),
        };
        let got = Answer {
            run: String::new(),
            code: rless.code,
            out: ours.plain(&rless.out),
            err: ours.plain(&rless.err),
        };
        let before = wrong.len();
        compare(&step, &expected, &got, &mut wrong);
        if wrong.len() > before {
            wrong.insert(before, format!("$ {}", step.run));
        }
    }
    wrong
}

fn compare(step: &Step, podman: &Answer, rless: &Answer, wrong: &mut Vec<String>) {
    let departure = step.differs.as_ref();
    let code = departure.and_then(|d| d.code).unwrap_or(podman.code);
    if rless.code != code {
        wrong.push(format!("exit code {}, not {code}", rless.code));
    }
    let out = departure
        .and_then(|d| d.out.as_ref())
        .unwrap_or(&podman.out);
    if step.out.is_none() && rless.out != *out {
        wrong.push(format!("stdout {:?}, not {out:?}", rless.out));
    }
    let said = rless.err.to_lowercase();
    let mut must_hold = |words: &[String]| {
        for word in words {
            if !said.contains(&word.to_lowercase()) {
                wrong.push(format!("no {word:?} in the error text {:?}", rless.err));
            }
        }
    };
    if let Some(words) = departure.and_then(|d| d.err.as_ref()) {
        must_hold(words);
        if words.is_empty() != rless.err.is_empty() {
            wrong.push(format!("error text {:?}", rless.err));
        }
    } else if podman.err.contains("Error: ") {
        must_hold(&step.words);
        if !rless.err.contains("Error: ") {
            wrong.push(format!("{:?} where podman has {:?}", rless.err, podman.err));
        }
    } else if rless.err != podman.err {
        wrong.push(format!("stderr {:?}, not {:?}", rless.err, podman.err));
    }
}

/// Takes from an answer what no two runs have in common.
#[derive(Default)]
struct Plain {
    home: PathBuf,
    /// The first twelve digits of ids, in order of appearance.
    ids: Vec<String>,
}

impl Plain {
    fn plain(&mut self, text: &str) -> String {
        static RULES: OnceLock<Vec<(Regex, &str)>> = OnceLock::new();
        let rules = RULES.get_or_init(|| {
            let rules = [
                // what script(1) may echo of its input's end
                (r"\^@", ""),
                // podman's log lines
                (r"(?m)^time=\S+ level=.*\n", ""),
                (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[-+]\d\d:?\d\d))?( [A-Z]{3,4})?", "<time>"),
                (r"(?i)\b((less than|about) an?|\d+) (second|minute|hour|day|week|month|year)s?\b", "<while>"),
                (r"(?i)\b(podman|rless)\b", "ENGINE"),
                (r"[ \t]{2,}", "  "),
                (r"(?m)[ \t]+$", ""),
            ];
            let compiled = rules.map(|(rule, with)| (Regex::new(rule).unwrap(), with));
            compiled.into_iter().collect()
        });
        static IDS: OnceLock<Regex> = OnceLock::new();
        let ids = IDS.get_or_init(|| Regex::new(r"\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b").unwrap());
        let text = text.replace(self.home.to_str().unwrap(), "<home>");
        let mut text = ids
            .replace_all(&text, |found: &Captures<'_>| self.id(&found[0]))
            .into_owned();
        for (rule, with) in rules {
            text = rule.replace_all(&text, *with).into_owned();
        }
        text
    }

    fn id(&mut self, id: &str) -> String {
        let short = &id[..12];
        let known = self.ids.iter().position(|other| other == short);
        let number = known.unwrap_or_else(|| {
            self.ids.push(short.to_owned());
            self.ids.len() - 1
        });
        let length = if id.len() == 12 { "short id" } else { "id" };
        format!("<{length} {}>", number + 1)
    }
}

/// Containers get a control group here, so that they can be paused.
fn cgroups(world: &'static World) -> bool {
    static CGROUPS: OnceLock<bool> = OnceLock::new();
    *CGROUPS.get_or_init(|| {
        let run = "$ENGINE run -d --net none --name c $IMAGE sleep 100";
        let probe = Case {
            name: "probe".to_owned(),
            needs: None,
            steps: [run, "$ENGINE pause c", "$ENGINE unpause c"]
                .map(|run| Line::Plain(run.to_owned()))
                .into(),
        };
        let (_, answers) = answers(world, &probe);
        answers[1].code == 0 || !answers[1].err.contains("no control group")
    })
}

/// Runs a group, reports each case, and fails with all that differ.
fn replay(group: &str) {
    let world = world!();
    let wanted = std::env::var("RLESS_TEST_CASE").unwrap_or_default();
    let cases = cases(group);
    let recording = recording(group);
    let (pending, failing) = (pending(), failing());
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let without = Mutex::new(Vec::new());
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = &case.name;
            if !name.contains(&wanted) || pending.iter().any(|p| p.used_by(case)) {
                continue;
            }
            if case.needs.is_some() && !cgroups(world) {
                let reason = format!("{name}: containers get no control group here");
                without.lock().unwrap().push(reason);
                continue;
            }
            let recorded = &recording.cases[name];
            let checked = std::panic::AssertUnwindSafe(|| check(world, case, recorded));
            let wrong = std::panic::catch_unwind(checked)
                .unwrap_or_else(|e| vec![format!("panicked: {:?}", e.downcast_ref::<String>())]);
            let verdict = match (wrong.is_empty(), failing.get(name)) {
                (true, None) => "ok".to_owned(),
                (false, Some(why)) => format!("differs as known: {why}"),
                _ => "FAILED".to_owned(),
            };
            eprintln!("case {name} ... {verdict}");
            if verdict == "FAILED" {
                let text = match wrong.is_empty() {
                    true => "passes: take it off the list of failing ones".to_owned(),
                    false => wrong.join("\n  "),
                };
                failed.lock().unwrap().push(format!("{name}:\n  {text}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(work);
        }
    });
    for reason in without.into_inner().unwrap() {
        note_skip(&reason);
    }
    for case in &cases {
        if let Some(p) = pending.iter().find(|p| p.used_by(case)) {
            let flag = p.flag.as_deref().unwrap_or("");
            note_skip(&format!(
                "{}: {} {flag} is not there yet",
                case.name, p.command
            ));
        }
    }
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {} cases differ:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
}

#[test]
fn run_does_what_podman_does() {
    replay("run");
}

#[test]
fn lifecycle_does_what_podman_does() {
    replay("lifecycle");
}

#[test]
fn ps_does_what_podman_does() {
    replay("ps");
}

#[test]
fn exec_does_what_podman_does() {
    replay("exec");
}

#[test]
fn views_do_what_podman_does() {
    replay("views");
}

#[test]
fn files_do_what_podman_does() {
    replay("files");
}

#[test]
fn services_do_what_they_do_with_podman() {
    replay("services");
}

#[test]
fn volumes_do_what_podman_does() {
    replay("volumes");
}

#[test]
fn health_checks_do_what_podman_s_do() {
    replay("health");
}

#[test]
fn what_containers_share_is_as_with_podman() {
    replay("shared");
}

#[test]
fn rarer_words_do_what_podman_s_do() {
    replay("words");
}

#[test]
fn devices_do_what_they_do_with_podman() {
    replay("devices");
}

#[test]
fn what_is_the_hosts_does_what_podman_does() {
    replay("host");
}

#[test]
fn flags_of_run_do_what_podman_does() {
    replay("flags");
}
