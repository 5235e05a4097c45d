//! Which containers a command is about: names, ids and their beginnings, `--all`, `--latest`, `--filter`, `--cidfile`.
//!
//! One place for all commands. As with podman names are looked up before anything is done: one that means no container, or several,
//! ends the command. What fails later is reported, and the command goes on with the next.

use std::path::{Path, PathBuf};

use super::{complain, format};
use crate::container::filter::Filters;
use crate::container::list;
use crate::container::record::{Containers, Record};
use crate::error::{self, Kind, Result, ResultExt, failed, usage};
use crate::store::Store;

/// What the command line says about it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Names and ids.
    pub(crate) names: &'a [String],
    /// `--all`.
    pub(crate) all: bool,
    /// `--latest`.
    pub(crate) latest: bool,
    /// `--filter`.
    pub(crate) filters: &'a [String],
    /// `--cidfile`.
    pub(crate) cidfiles: &'a [PathBuf],
    /// No such container is no error.
    pub(crate) ignore: bool,
}

/// What to call it (as typed, else its id), and its record.
pub(crate) type Chosen = (String, Record);

impl Wanted<'_> {
    /// Finds them; those of dead supervisors are cleared on the way.
    ///
    /// # Errors
    /// The flags contradict each other, nothing is asked for, or there is no such container.
    pub(crate) fn find(&self, store: &Store) -> Result<Vec<Chosen>> {
        self.check()?;
        let filters = Filters::parse(self.filters)?;
        let containers = Containers::of(store);
        containers.heal_live();
        let by_id = |records: Vec<Record>| records.into_iter().map(|r| (r.id.clone(), r)).collect();
        if self.latest {
            let mut records = containers.list()?;
            records.truncate(1);
            if records.is_empty() && !self.ignore {
                return Err(failed("no containers found: no such container").into());
            }
            return Ok(by_id(records));
        }
        if self.all || !filters.is_empty() {
            let listing = list::list(store, &filters)?;
            listing.skipped.iter().for_each(|(_, e)| complain(e));
            return Ok(by_id(listing.records));
        }
        let mut chosen = Vec::new();
        for typed in self.named()? {
            match containers.find(&typed) {
                Err(e) if self.ignore && error::kind(&e) == Kind::NoSuchObject => {}
                record => chosen.push((typed, record?)),
            }
        }
        Ok(chosen)
    }

    /// The names as typed, and those of `--cidfile`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn named(&self) -> Result<Vec<String>> {
        let mut names = self.names.to_vec();
        for path in self.cidfiles {
            names.extend(cidfile(path, self.ignore)?);
        }
        Ok(names)
    }

    /// As podman words it.
    pub(crate) fn check(&self) -> Result<()> {
        let named = !self.names.is_empty() || !self.cidfiles.is_empty();
        let wrong = if self.all && self.latest {
            "--all and --latest cannot be used together"
        } else if self.all && named {
            "no arguments are needed with --all"
        } else if self.latest && named {
            "--latest and containers cannot be used together"
        } else if named && !self.filters.is_empty() {
            "--filter takes no arguments"
        } else if !named && !self.all && !self.latest && self.filters.is_empty() {
            "you must provide at least one name or id"
        } else {
            return Ok(());
        };
        Err(usage(wrong).into())
    }
}

/// The id in a `--cidfile`; none where that may be.
fn cidfile(path: &Path, ignore: bool) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(id) => Ok(id.lines().next().map(|l| l.trim().to_owned())),
        Err(e) if ignore && e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => {
            let doing = || failed(format!("reading the container id from {}", path.display()));
            Err(e).fault(doing)
        }
    }
}

/// Does `act` on each and reports each failure; the last one's exit code, as podman's.
pub(crate) fn each(
    chosen: Vec<Chosen>,
    mut act: impl FnMut(&str, &Record) -> Result<()>,
    code_of: fn(Kind) -> u8,
) -> u8 {
    let mut code = 0;
    for (typed, record) in chosen {
        if let Err(e) = act(&typed, &record) {
            complain(&e);
            code = code_of(error::kind(&e));
        }
    }
    code
}

/// The one container that is meant: by name, or `--latest`.
///
/// # Errors
/// There is none, or both are given.
pub(crate) fn one(store: &Store, name: Option<&str>, latest: bool) -> Result<Record> {
    let containers = Containers::of(store);
    containers.heal_live();
    match (name, latest) {
        (Some(_), true) => Err(usage("--latest and a container cannot be used together").into()),
        (Some(name), false) => containers.find(name),
        (None, _) => {
            let first = containers.list()?.into_iter().next();
            first.ok_or_else(|| failed("no containers found: no such container").into())
        }
    }
}

/// As [`each_at_once`], for removing: who shares another's namespaces goes before that one.
pub(crate) fn each_dependent_first(
    mut chosen: Vec<Chosen>,
    act: impl Fn(&Record) -> Result<()> + Sync,
    code_of: fn(Kind) -> u8,
) -> u8 {
    let mut code = 0;
    while !chosen.is_empty() {
        let used: Vec<String> = chosen.iter().flat_map(|(_, r)| needs(r)).collect();
        let of_use = |(_, record): &Chosen| used.contains(&record.id);
        let (later, now): (Vec<_>, Vec<_>) = chosen.into_iter().partition(of_use);
        code = match each_at_once(&now, &act, code_of) {
            0 => code,
            other => other,
        };
        chosen = later;
    }
    code
}

/// Containers whose namespaces this one shares.
fn needs(record: &Record) -> Vec<String> {
    let network = record.network.strip_prefix("container:");
    let network = network.map(str::to_owned).into_iter();
    network.chain(record.dependencies.iter().cloned()).collect()
}

/// As [`each`], with all of them at once: ending a container may take its time. Names are printed in their order.
pub(crate) fn each_at_once(
    chosen: &[Chosen],
    act: impl Fn(&Record) -> Result<()> + Sync,
    code_of: fn(Kind) -> u8,
) -> u8 {
    let mut code = 0;
    let mut told = |typed: &str, result: Result<()>| {
        if let Err(e) = result.and_then(|()| format::print(&format!("{typed}\n"))) {
            complain(&e);
            code = code_of(error::kind(&e));
        }
    };
    for batch in chosen.chunks(32) {
        if let [(typed, record)] = batch {
            told(typed, act(record));
            continue;
        }
        std::thread::scope(|scope| {
            let act = &act;
            let thread =
                |record| std::thread::Builder::new().spawn_scoped(scope, move || act(record));
            let all: Vec<_> = batch.iter().map(|(_, record)| thread(record)).collect();
            for ((typed, record), thread) in batch.iter().zip(all) {
                let died = |_| Err(failed("a thread died").into());
                // With every process used up that the user may have, one after the other.
                let alone = |_| act(record);
                told(
                    typed,
                    thread.map_or_else(alone, |t| t.join().unwrap_or_else(died)),
                );
            }
        });
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        let names = ["a".to_owned()];
        let wanted = |all, latest, names| Wanted {
            names,
            all,
            latest,
            ..Wanted::default()
        };
        for bad in [
            wanted(true, false, &names[..]),
            wanted(false, true, &names),
            wanted(true, true, &[]),
            wanted(false, false, &[]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(wanted(true, false, &[]).check().is_ok());
        assert!(wanted(false, false, &names).check().is_ok());
    }
}
