//! Which containers a command is about: names, ids and their beginnings, `--all`, `--latest`, `--filter`, `--cidfile`.
//!
//! One place for all commands. Whatever is found is acted on; what is not is reported when its turn comes.

use std::path::{Path, PathBuf};

use super::complain;
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

/// One of them.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// What to call it: as typed, else its id.
    pub(crate) typed: String,
    /// Its record, or why there is none.
    pub(crate) record: Result<Record>,
}

impl Wanted<'_> {
    /// Finds them; those of dead supervisors are cleared on the way.
    ///
    /// # Errors
    /// The flags contradict each other, or nothing is asked for.
    pub(crate) fn find(&self, store: &Store) -> Result<Vec<Chosen>> {
        self.check()?;
        let containers = Containers::of(store);
        containers.heal_live();
        if self.latest {
            let mut records = containers.list()?;
            records.truncate(1);
            if records.is_empty() && !self.ignore {
                return Err(failed("no containers found: no such container").into());
            }
            return Ok(records.into_iter().map(by_id).collect());
        }
        if self.all || !self.filters.is_empty() {
            let listing = list::list(store, &Filters::parse(self.filters)?)?;
            listing.skipped.iter().for_each(|(_, e)| complain(e));
            return Ok(listing.records.into_iter().map(by_id).collect());
        }
        let mut names = self.names.to_vec();
        for path in self.cidfiles {
            names.extend(cidfile(path, self.ignore)?);
        }
        let find = |typed: String| {
            let record = containers.find(&typed);
            match &record {
                Err(e) if self.ignore && error::kind(e) == Kind::NoSuchObject => None,
                _ => Some(Chosen { typed, record }),
            }
        };
        Ok(names.into_iter().filter_map(find).collect())
    }

    fn check(&self) -> Result<()> {
        let named = !self.names.is_empty() || !self.cidfiles.is_empty();
        if (self.all || self.latest) && named {
            return Err(usage("--all and --latest exclude names and --cidfile").into());
        }
        if self.all && self.latest {
            return Err(usage("--all and --latest cannot be used together").into());
        }
        if named && !self.filters.is_empty() {
            return Err(usage("--filter takes no names of containers").into());
        }
        if !named && !self.all && !self.latest && self.filters.is_empty() {
            return Err(usage("you must provide at least one name or id").into());
        }
        Ok(())
    }
}

fn by_id(record: Record) -> Chosen {
    Chosen {
        typed: record.id.clone(),
        record: Ok(record),
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
pub(crate) fn each(chosen: Vec<Chosen>, mut act: impl FnMut(&str, &Record) -> Result<()>) -> u8 {
    let mut code = 0;
    for Chosen { typed, record } in chosen {
        if let Err(e) = record.and_then(|record| act(&typed, &record)) {
            complain(&e);
            code = error::kind(&e).exit_code();
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
