//! A server killed in the middle of everything, and what must be there when it is mounted again.
//!
//! The actors work on our mount alone, and each operation is noted with its answer and with its place in the order
//! of all beginnings and ends. Then the server is killed. What is found after the next mount is right if
//!
//! - each actor's names, owners, modes, links and attributes are what the first `n` of its operations leave on the
//!   kernel's file system, on which they are done afterwards, for some `n` (and those that were answered, answered as
//!   that did);
//! - these `n` are a prefix of history: no operation is there while one that had ended before it began is not;
//! - an operation that had ended before a successful fsync (of any file) began is there;
//! - each file has a size that it had at some time, and in each block of 4 KiB what it had there at some time: old
//!   bytes or new ones, never another file's. (The kernel sends a write(2) in pieces that end at page edges: such an
//!   edge between the sizes before and after it is a size that it had.)

use super::actor::Actor;
use super::fleet::{ACTORS, Fleet, difference};
use super::ops::Op;
use super::tree::{self, Identity, Scope, view};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// An operation as it went; `told` is `None` for the one that the kill met.
struct Step {
    op: Op,
    began: u64,
    ended: u64,
    told: Option<String>,
}

impl Step {
    /// What is to follow: a file made to be held has its name taken away again.
    fn half(&self) -> Option<Op> {
        match &self.op {
            Op::HoldMade(_, path, _) if self.told.as_ref()?.starts_with("ok") => {
                Some(Op::Unlink(path.clone()))
            }
            _ => None,
        }
    }
}

/// What one actor's files may be.
#[derive(Default)]
struct Judged {
    /// Numbers of operations that explain the metadata found, and the files' identities then.
    prefixes: Vec<(usize, HashMap<String, Identity>)>,
    /// All contents that a file ever had.
    contents: HashMap<Identity, Vec<Vec<u8>>>,
}

/// One round of it; afterwards the twin is a copy of what was found.
pub(crate) fn lossy(fleet: &mut Fleet, count: u64, what: &str) -> Result<(), String> {
    let target = fleet.makers[0].rng.below(count * ACTORS as u64 * 5 / 4);
    let steps = work_until_killed(fleet, count, target);
    fleet.ours.iter_mut().for_each(Actor::release);
    fleet.mounted.mount_again();
    fleet.done.kills += 1;
    let point = fleet.mounted.point();
    let mut judged = Vec::new();
    for (i, steps) in steps.iter().enumerate() {
        let found = view(&point, Scope::Metadata(i));
        let j = replay(&mut fleet.theirs[i], steps, &found);
        judged.push(j.map_err(|e| format!("{what}, killed: {e}"))?);
    }
    let chosen = cut(&steps, &judged).map_err(|e| format!("{what}, killed: {e}"))?;
    for (i, n) in chosen.iter().enumerate() {
        let j = &judged[i];
        let names = j
            .prefixes
            .iter()
            .find(|(p, _)| p == n)
            .map(|(_, names)| names);
        for (path, id) in names.into_iter().flatten() {
            let found =
                std::fs::read(point.join(path)).map_err(|e| format!("{what}: {path}: {e}"))?;
            whole_blocks(&found, j.contents.get(id).map_or(&[], Vec::as_slice)).map_err(|e| {
                let all = written(&steps[i]);
                format!("{what}, killed: {path}: {e}; {n} of\n{all}")
            })?;
        }
        fleet.done.kept += n;
        fleet.done.lost += steps[i].len() - n;
        fleet.done.compared += *n as u64;
        let kept = steps[i][..*n].iter();
        fleet.done.worked += kept
            .clone()
            .filter(|s| s.told.as_ref().is_some_and(|t| t.starts_with("ok")))
            .count() as u64;
        fleet.history.extend(kept.map(|s| (i, s.op.clone())));
    }
    fleet.history.push((0, Op::Kill));
    fleet.theirs.iter_mut().for_each(Actor::release);
    copy(&point, &fleet.twin);
    fleet.all_unlike();
    fleet.mounted.no_orphans(what)
}

/// All actors at once on ours, until `target` operations were done or all; then the server dies.
fn work_until_killed(fleet: &mut Fleet, count: u64, target: u64) -> Vec<Vec<Step>> {
    let (clock, working) = (AtomicU64::new(0), AtomicUsize::new(ACTORS));
    let Fleet {
        makers,
        ours,
        theirs,
        mounted,
        ..
    } = fleet;
    std::thread::scope(|scope| {
        let threads: Vec<_> = makers
            .iter_mut()
            .zip(ours)
            .zip(theirs)
            .map(|((maker, ours), theirs)| {
                let (clock, working) = (&clock, &working);
                scope.spawn(move || {
                    let known = theirs.paths();
                    maker.lossy = true;
                    let mut steps: Vec<Step> = Vec::new();
                    while (steps.len() as u64) < count {
                        let op = match steps.last().and_then(Step::half) {
                            Some(other) => other,
                            None => maker.make(&known),
                        };
                        let began = clock.fetch_add(1, Ordering::SeqCst);
                        let told = ours.act(&op);
                        let ended = clock.fetch_add(1, Ordering::SeqCst);
                        let dead = ["ENOTCONN", "ECONNABORTED", "EIO"]
                            .iter()
                            .any(|e| told.contains(e));
                        let told = (!dead && !short(&op, &told)).then_some(told);
                        let dead = told.is_none();
                        steps.push(Step {
                            op,
                            began,
                            ended,
                            told,
                        });
                        if dead {
                            break;
                        }
                    }
                    maker.lossy = false;
                    working.fetch_sub(1, Ordering::SeqCst);
                    steps
                })
            })
            .collect();
        while clock.load(Ordering::SeqCst) < 2 * target && working.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        mounted.strike();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// A write that was cut: its next piece met the kill.
fn short(op: &Op, told: &str) -> bool {
    match op {
        Op::Write(_, _, len, _) | Op::HeldWrite(_, _, len, _) => {
            let written = told
                .strip_prefix("ok ")
                .and_then(|n| n.parse::<usize>().ok());
            written.is_some_and(|n| n < *len)
        }
        _ => false,
    }
}

/// Does an actor's operations on the twin; notes after which of them its metadata is as found.
fn replay(theirs: &mut Actor, steps: &[Step], found: &[String]) -> Result<Judged, String> {
    let scope = Scope::Metadata(theirs.id);
    let mut judged = Judged::default();
    let root = theirs.root.clone();
    for path in tree::paths(&root, Some(theirs.id)) {
        note_content(&mut judged, regular(&root.join(path)));
    }
    let mut nearest = (usize::MAX, String::new());
    for n in 0..=steps.len() {
        let seen = view(&root, scope);
        if seen == found {
            judged.prefixes.push((n, identities(&root, theirs.id)));
        } else {
            let unlike = unlike(&seen, found);
            if unlike.len() < nearest.0 {
                let lines = unlike.join("\n");
                nearest = (unlike.len(), format!("after {n} operations:\n{lines}"));
            }
        }
        let Some(step) = steps.get(n) else { break };
        let told = theirs.act(&step.op);
        if let Some(ours) = &step.told
            && *ours != told
        {
            return Err(difference(theirs.id, &step.op, ours, &told));
        }
        for file in theirs.files(&step.op) {
            note_content(&mut judged, Some(file));
        }
    }
    if judged.prefixes.is_empty() {
        return Err(format!(
            "actor {}: no prefix of {} operations gives what is there; nearest {}\n{}",
            theirs.id,
            steps.len(),
            nearest.1,
            written(steps)
        ));
    }
    Ok(judged)
}

fn written(steps: &[Step]) -> String {
    let lines = steps.iter().map(|s| format!("  {:?} {:?}\n", s.op, s.told));
    lines.collect()
}

/// Lines that only one of two views has.
fn unlike(expected: &[String], found: &[String]) -> Vec<String> {
    let only = |a: &[String], b: &[String], what: &str| -> Vec<String> {
        let b: HashSet<&String> = b.iter().collect();
        let lines = a.iter().filter(|line| !b.contains(line));
        lines.map(|line| format!("{what} {line}")).collect()
    };
    let mut lines = only(expected, found, "  expected");
    lines.extend(only(found, expected, "  found   "));
    lines
}

fn regular(path: &Path) -> Option<File> {
    let is_file = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    is_file.then(|| File::open(path).ok()).flatten()
}

fn note_content(judged: &mut Judged, file: Option<File>) {
    if let Some(file) = file
        && let (Some(id), Ok(bytes)) = (tree::identity_of(&file), tree::bytes(&file))
    {
        let versions = judged.contents.entry(id).or_default();
        if versions.last() != Some(&bytes) {
            versions.push(bytes);
        }
    }
}

/// Which regular file has which name.
fn identities(root: &Path, actor: usize) -> HashMap<String, Identity> {
    let paths = tree::paths(root, Some(actor)).into_iter();
    paths
        .filter_map(|p| Some((tree::identity_of(&regular(&root.join(&p))?)?, p)))
        .map(|(id, p)| (p, id))
        .collect()
}

/// How many operations of each actor are there: the longest prefixes that are one of all history together.
fn cut(steps: &[Vec<Step>], judged: &[Judged]) -> Result<Vec<usize>, String> {
    let mut left: Vec<Vec<usize>> = judged
        .iter()
        .map(|j| j.prefixes.iter().map(|(n, _)| *n).collect())
        .collect();
    let last = |left: &[Vec<usize>], i: usize| left[i].last().copied();
    let mut again = true;
    while again {
        again = false;
        for i in 0..steps.len() {
            for j in 0..steps.len() {
                let (Some(a), Some(b)) = (last(&left, i), last(&left, j)) else {
                    return Err("no prefixes that agree".into());
                };
                // The first of i's that is not there had ended before a later one of j's that is began.
                let early = |missing: &Step| steps[j][..b].iter().any(|s| s.began > missing.ended);
                if steps[i]
                    .get(a)
                    .is_some_and(|s| s.told.is_some() && early(s))
                {
                    left[j].pop();
                    again = true;
                }
            }
        }
    }
    let chosen: Vec<usize> = (0..steps.len()).filter_map(|i| last(&left, i)).collect();
    let synced = |s: &&Step| {
        matches!(s.op, Op::Sync(_) | Op::HeldSync(_))
            && s.told.as_ref().is_some_and(|t| t.starts_with("ok"))
    };
    for sync in steps.iter().flatten().filter(synced) {
        for (i, n) in chosen.iter().enumerate() {
            if let Some(lost) = steps[i].get(*n).filter(|s| s.ended < sync.began) {
                return Err(format!(
                    "lost: actor {i}: {:?}, which had ended before {:?} began",
                    lost.op, sync.op
                ));
            }
        }
    }
    Ok(chosen)
}

/// Whether a file's content is made of whole blocks that it had at some time.
fn whole_blocks(found: &[u8], versions: &[Vec<u8>]) -> Result<(), String> {
    let between = |pair: &[Vec<u8>]| {
        let edge = found.len().is_multiple_of(4096);
        edge && (pair[0].len()..pair[1].len()).contains(&found.len())
    };
    if !versions.iter().any(|v| v.len() == found.len()) && !versions.windows(2).any(between) {
        let sizes: Vec<usize> = versions.iter().map(Vec::len).collect();
        return Err(format!("{} bytes, never had of {sizes:?}", found.len()));
    }
    for (n, block) in found.chunks(4096).enumerate() {
        let had = |v: &Vec<u8>| {
            let v = v.get(n * 4096..).unwrap_or_default();
            let same = block.len().min(v.len());
            block[..same] == v[..same] && block[same..].iter().all(|b| *b == 0)
        };
        if !versions.iter().any(had) {
            let unlike = |v: &Vec<u8>| {
                let v = v.get(n * 4096..).unwrap_or_default();
                let at = (0..block.len()).find(|i| block[*i] != *v.get(*i).unwrap_or(&0));
                (v.len(), at)
            };
            // Of each version the length behind the block's start, and the first byte that is another.
            let versions: Vec<_> = versions.iter().map(unlike).collect();
            let len = found.len();
            return Err(format!(
                "block {n} of {len} bytes is of no time: {versions:?}"
            ));
        }
    }
    Ok(())
}

/// Makes `to` what `from` is.
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("sh")
        .arg("-ec")
        .arg("rm -rf \"$2\"; cp -a \"$1\" \"$2\"")
        .args(["copy".as_ref(), from.as_os_str(), to.as_os_str()])
        .status()
        .unwrap();
    assert!(copied.success());
}
