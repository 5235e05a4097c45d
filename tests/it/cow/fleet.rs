//! Several actors at once on our mount and on its twin, in rounds with everything compared in between.

use super::actor::Actor;
use super::mounted::Mounted;
use super::ops::{Maker, Op};
use super::tree::{self, Identity, Scope};
use super::{contend, crash, shrink};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many work at once.
pub(crate) const ACTORS: usize = 4;

/// Operations in the order in which they began, with the actors that did them.
pub(crate) type History = Vec<(usize, Op)>;

/// Both trees and who works in them.
pub(crate) struct Fleet {
    pub(crate) mounted: Mounted,
    pub(crate) twin: PathBuf,
    pub(crate) makers: Vec<Maker>,
    pub(crate) ours: Vec<Actor>,
    pub(crate) theirs: Vec<Actor>,
    pub(crate) history: History,
    /// Twin's files whose holes need not be ours: see [`Actor::unlike`].
    pub(crate) unlike: HashSet<Identity>,
    pub(crate) done: Done,
}

/// What was done, for the report.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Done {
    /// Operations whose answers were compared.
    pub(crate) compared: u64,
    /// Those of them that worked.
    pub(crate) worked: u64,
    pub(crate) layouts: usize,
    pub(crate) remounts: usize,
    pub(crate) kills: usize,
    /// Operations on names that all actors fight over, judged by invariants.
    pub(crate) contended: u64,
    /// Operations after the last sync before a kill: in the tree found, and lost.
    pub(crate) kept: usize,
    pub(crate) lost: usize,
}

impl Fleet {
    pub(crate) fn new(dir: &Path, seed: u64, image: bool) -> Fleet {
        let twin = super::populate::prepare(dir, image);
        let mounted = Mounted::start(dir);
        let actors = |root: &Path| (0..ACTORS).map(|i| Actor::new(root, i)).collect();
        let mut fleet = Fleet {
            makers: (0..ACTORS).map(|i| Maker::new(seed, i)).collect(),
            ours: actors(&mounted.point()),
            theirs: actors(&twin),
            mounted,
            twin,
            history: Vec::new(),
            unlike: HashSet::new(),
            done: Done::default(),
        };
        fleet.all_unlike();
        fleet
    }

    /// All files that are there now may have other holes than ours.
    pub(crate) fn all_unlike(&mut self) {
        let all = tree::paths(&self.twin, None);
        let ids = all
            .iter()
            .filter_map(|p| tree::identity(&self.twin.join(p)));
        self.unlike = ids.collect();
        self.theirs.iter_mut().for_each(|a| a.unlike.clear());
    }

    /// Each actor does `count` operations, all at once.
    pub(crate) fn round(&mut self, count: u64) -> Result<(), String> {
        let history = Mutex::new(std::mem::take(&mut self.history));
        let (trouble, stop) = (Mutex::new(None), AtomicBool::new(false));
        let worked: u64 = std::thread::scope(|scope| {
            let actors = self.ours.iter_mut().zip(&mut self.theirs);
            let threads: Vec<_> = actors
                .zip(&mut self.makers)
                .map(|((ours, theirs), maker)| {
                    let (history, trouble, stop) = (&history, &trouble, &stop);
                    scope.spawn(move || one(ours, theirs, maker, count, (history, trouble, stop)))
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        self.history = history.into_inner().unwrap();
        self.done.compared += count * ACTORS as u64;
        self.done.worked += worked;
        match trouble.into_inner().unwrap() {
            Some(trouble) => Err(trouble),
            None => Ok(()),
        }
    }

    /// Compares everything; nobody is at work.
    pub(crate) fn compare(&mut self, what: &str) -> Result<(), String> {
        for actor in self.ours.iter().chain(&self.theirs) {
            actor.settle().map_err(|e| format!("{what}: msync: {e}"))?;
        }
        let ours = self.mounted.point();
        same(&ours, &self.twin, what)?;
        for actor in &mut self.theirs {
            self.unlike.extend(actor.unlike.drain());
        }
        self.done.layouts += tree::same_layout(&ours, &self.twin, &self.unlike)
            .map_err(|e| format!("{what}: {e}"))?;
        Ok(())
    }

    /// Closes what the actors hold.
    pub(crate) fn release(&mut self) {
        self.ours.iter_mut().for_each(Actor::release);
        self.theirs.iter_mut().for_each(Actor::release);
    }

    fn note(&mut self, op: Op) {
        self.history.push((0, op));
    }

    /// One seed: rounds of `size` operations until `total` were compared.
    pub(crate) fn run(&mut self, total: u64, size: u64, kills: bool) -> Result<(), String> {
        let mut round = 0;
        while self.done.compared < total {
            let what = format!("after {} operations", self.done.compared);
            match (kills, round % 4) {
                (true, 1) => {
                    self.release();
                    crash::lossy(self, size.min(1000) / ACTORS as u64, &what)?;
                }
                _ => self.round(size / ACTORS as u64)?,
            }
            self.compare(&what)?;
            match (kills, round % 4) {
                (true, 0 | 3) => self.killed(&what)?,
                (true, 2) | (false, 3) => self.remounted(&what)?,
                _ => {}
            }
            if round % 4 == 2 {
                self.done.contended += contend::all(&self.mounted.point(), &mut self.makers[0].rng);
                self.compare(&format!("{what}, contended"))?;
            }
            round += 1;
        }
        self.remounted("at the end")
    }

    fn remounted(&mut self, what: &str) -> Result<(), String> {
        self.release();
        self.note(Op::Remount);
        self.mounted.unmount();
        self.mounted.mount();
        self.done.remounts += 1;
        self.compare(&format!("{what}, remounted"))?;
        self.mounted.no_orphans(what)
    }

    /// Everything is synced and the server killed: all of it must be there.
    fn killed(&mut self, what: &str) -> Result<(), String> {
        self.release();
        self.note(Op::Kill);
        sync(&self.mounted.point());
        self.mounted.kill();
        self.done.kills += 1;
        self.compare(&format!("{what}, synced and killed"))?;
        self.mounted.no_orphans(what)
    }

    /// Ends in order; a difference found is made small first.
    pub(crate) fn end(mut self, seed: u64, image: bool, result: Result<(), String>) -> Done {
        self.release();
        let dir = self.mounted.dir.clone();
        if let Err(trouble) = result {
            let (history, done) = (std::mem::take(&mut self.history), self.done);
            drop(self);
            shrink::report(&dir, seed, image, history, &trouble);
            panic!("seed {seed}: {trouble}\n({done:?})");
        }
        self.mounted.unmount();
        self.done
    }
}

type Common<'a> = (
    &'a Mutex<History>,
    &'a Mutex<Option<String>>,
    &'a AtomicBool,
);

/// One actor's part of a round; how many operations worked.
fn one(
    ours: &mut Actor,
    theirs: &mut Actor,
    maker: &mut Maker,
    count: u64,
    common: Common<'_>,
) -> u64 {
    let (history, trouble, stop) = common;
    let (mut known, mut worked) = (Vec::new(), 0);
    for i in 0..count {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if i % 40 == 0 {
            known = theirs.paths();
        }
        let op = maker.make(&known);
        history.lock().unwrap().push((ours.id, op.clone()));
        let (a, b) = (ours.act(&op), theirs.act(&op));
        worked += u64::from(a.starts_with("ok"));
        if a != b && !stop.swap(true, Ordering::Relaxed) {
            *trouble.lock().unwrap() = Some(difference(ours.id, &op, &a, &b));
        }
    }
    worked
}

/// A difference between two answers, told.
pub(crate) fn difference(actor: usize, op: &Op, ours: &str, kernel: &str) -> String {
    format!("actor {actor}: {op:?}\n ours:   {ours}\n kernel: {kernel}")
}

/// The first difference between the trees.
pub(crate) fn same(ours: &Path, twin: &Path, what: &str) -> Result<(), String> {
    let (a, b) = (tree::view(ours, Scope::All), tree::view(twin, Scope::All));
    if let Some((x, y)) = a.iter().zip(&b).find(|(x, y)| x != y) {
        return Err(format!("{what}:\n ours:   {x}\n kernel: {y}"));
    }
    if a.len() != b.len() {
        let more = if a.len() > b.len() { &a } else { &b };
        let n = a.len().min(b.len());
        return Err(format!(
            "{what}: {} and {} entries: {}",
            a.len(),
            b.len(),
            more[n]
        ));
    }
    Ok(())
}

/// fsync of everything.
pub(crate) fn sync(root: &Path) {
    for path in tree::paths(root, None) {
        let path = root.join(path);
        if std::fs::symlink_metadata(&path).unwrap().is_file() {
            std::fs::File::open(&path).unwrap().sync_all().unwrap();
        }
    }
    std::fs::File::open(root).unwrap().sync_all().unwrap();
}
