//! Makes the history of a failure small: the operations are done again one after the other on fresh trees, and left
//! out piece by piece as long as some difference stays. One that needs operations at the same time does not come back
//! this way: then the whole history is told by its seed.

use super::actor::Actor;
use super::fleet::{ACTORS, History, difference, same, sync};
use super::mounted::Mounted;
use super::ops::Op;
use super::populate::prepare;
use std::path::Path;
use std::time::{Duration, Instant};

/// The difference that these operations lead to.
fn trial(dir: &Path, image: bool, ops: &[(usize, Op)]) -> Option<String> {
    let dir = dir.join("trial");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::symlink("../lower", dir.join("lower")).unwrap();
    let twin = prepare(&dir, image);
    let mut mounted = Mounted::start(&dir);
    let point = mounted.point();
    let actors = |root: &Path| -> Vec<Actor> { (0..ACTORS).map(|i| Actor::new(root, i)).collect() };
    let (mut ours, mut theirs) = (actors(&point), actors(&twin));
    let mut result = Ok(());
    for (i, op) in ops {
        match op {
            Op::Remount | Op::Kill => {
                ours.iter_mut().chain(&mut theirs).for_each(Actor::release);
                if matches!(op, Op::Kill) {
                    sync(&point);
                    mounted.kill();
                } else {
                    mounted.unmount();
                    mounted.mount();
                }
                result = same(&point, &twin, "mounted again");
            }
            _ => {
                let (a, b) = (ours[*i].act(op), theirs[*i].act(op));
                if a != b {
                    result = Err(difference(*i, op, &a, &b));
                }
            }
        }
        if result.is_err() {
            break;
        }
    }
    for actor in ours.iter().chain(&theirs) {
        let _ = actor.settle();
    }
    let result = result.and_then(|()| same(&point, &twin, "at the end"));
    ours.iter_mut().chain(&mut theirs).for_each(Actor::release);
    drop(mounted);
    let _ = std::fs::remove_dir_all(&dir);
    result.err()
}

/// Prints a short list of operations that still differ.
pub(crate) fn report(dir: &Path, seed: u64, image: bool, mut ops: History, trouble: &str) {
    let limit = Duration::from_secs(super::number("RLESS_COW_SHRINK", 120));
    let began = Instant::now();
    eprintln!("seed {seed}: {trouble}\nshrinking {} operations", ops.len());
    let Some(mut found) = trial(dir, image, &ops) else {
        eprintln!(
            "one after the other they make no difference: a race, or a kill's; the last of them:"
        );
        for (actor, op) in ops.iter().rev().take(400).rev() {
            eprintln!("  {actor}: {op:?}");
        }
        return;
    };
    // Most need no mount made again, and go faster without.
    // And most are one actor's.
    let mut plain = ops.clone();
    plain.retain(|(_, op)| !matches!(op, Op::Remount | Op::Kill));
    let without = (0..ACTORS).map(Some).rev();
    for actor in [None].into_iter().chain(without) {
        let mut fewer = if actor.is_none() {
            plain.clone()
        } else {
            ops.clone()
        };
        fewer.retain(|(i, _)| Some(*i) != actor);
        if let Some(difference) = trial(dir, image, &fewer) {
            (ops, found) = (fewer, difference);
        }
    }
    let mut piece = ops.len().div_ceil(2);
    while piece > 0 && began.elapsed() < limit {
        let mut at = 0;
        while at < ops.len() && began.elapsed() < limit {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + piece).min(ops.len()));
            match trial(dir, image, &fewer) {
                Some(difference) => (ops, found) = (fewer, difference),
                None => at += piece,
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    eprintln!("{} operations are left:", ops.len());
    for (actor, op) in ops.iter().rev().take(60).rev() {
        eprintln!("  {actor}: {op:?}");
    }
    eprintln!("{found}");
}
