//! `--filter` of `volume ls` and `volume prune`, with podman's keys and their meaning.
//!
//! Values of `name` and `driver` add up, those of all others must hold, and so must different keys.

use std::collections::BTreeSet;

use jiff::Timestamp;
use regex::Regex;

use super::filter::labelled;
use super::volumes::Volume;
use super::when;
use crate::error::{Result, ResultExt, usage};

/// What `--filter` takes, for help and hints.
pub const KEYS: &str = "anonymous=, dangling=, driver=, label=, label!=, name=, since=, until=";

/// The filters of one command line.
#[derive(Debug, Default)]
pub struct VolumeFilters {
    names: Vec<Regex>,
    drivers: Vec<String>,
    tests: Vec<Test>,
}

#[derive(Debug)]
enum Test {
    Label(String),
    NotLabel(String),
    Dangling(bool),
    Anonymous(bool),
    /// Made before.
    Until(Timestamp),
    /// Made after the volume of this name.
    Since(String),
}

impl VolumeFilters {
    /// Reads `KEY=VALUE` each; for `prune` those of a state that pruning is about are refused.
    ///
    /// # Errors
    /// An unknown key or a value that it cannot have.
    pub fn parse(texts: &[String], prune: bool) -> Result<VolumeFilters> {
        let mut filters = VolumeFilters::default();
        for text in texts {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| usage(format!("invalid filter {text:?}")))?;
            let owned = value.to_owned();
            match key {
                "label" => filters.tests.push(Test::Label(owned)),
                "label!" => filters.tests.push(Test::NotLabel(owned)),
                "anonymous" => filters.tests.push(Test::Anonymous(switch(key, value)?)),
                "since" | "after" => filters.tests.push(Test::Since(owned)),
                "until" => {
                    let until = when::past(value, Timestamp::now())?;
                    filters.tests.push(Test::Until(until));
                }
                "dangling" if !prune => filters.tests.push(Test::Dangling(switch(key, value)?)),
                "driver" if !prune => filters.drivers.push(owned),
                "name" if !prune => filters.names.push(Regex::new(value).fault(|| {
                    usage(format!(
                        "the filter value {value:?} is no regular expression"
                    ))
                })?),
                _ => {
                    let text = format!("{key:?} is an invalid volume filter");
                    return Err(usage(text).hint(format!("one of {KEYS}")).into());
                }
            }
        }
        Ok(filters)
    }

    /// Keeps those of `volumes` that pass; `used` are the names of those that a container uses.
    ///
    /// # Errors
    /// `since` names no volume.
    pub fn keep(&self, volumes: &mut Vec<Volume>, used: &BTreeSet<String>) -> Result<()> {
        let mut since = None;
        for test in &self.tests {
            let Test::Since(name) = test else { continue };
            let Some(other) = volumes.iter().find(|v| v.name == *name) else {
                let text = format!("no volume with name {name:?} found: no such volume");
                return Err(usage(text).into());
            };
            since = since.max(Some(other.made()));
        }
        let passes = |volume: &Volume| {
            let about = |test: &Test| match test {
                Test::Label(wanted) => labelled(&volume.labels, wanted),
                Test::NotLabel(wanted) => !labelled(&volume.labels, wanted),
                Test::Dangling(wanted) => used.contains(&volume.name) != *wanted,
                Test::Anonymous(wanted) => volume.anonymous == *wanted,
                Test::Until(until) => volume.made() < *until,
                Test::Since(_) => since.is_none_or(|since| volume.made() > since),
            };
            let named =
                self.names.is_empty() || self.names.iter().any(|n| n.is_match(&volume.name));
            let driven = self.drivers.is_empty() || self.drivers.iter().any(|d| d == "local");
            named && driven && self.tests.iter().all(about)
        };
        volumes.retain(passes);
        Ok(())
    }
}

fn switch(key: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(usage(format!(
            "{value:?} is not a valid value for the {key:?} filter - must be true or false"
        ))
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, created: &str, anonymous: bool) -> Volume {
        Volume {
            name: name.to_owned(),
            created: created.to_owned(),
            anonymous,
            container: None,
            labels: [("tier".to_owned(), name.to_owned())].into(),
        }
    }

    fn kept(filters: &[&str]) -> Vec<String> {
        let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
        let mut all = vec![
            volume("one", "2026-01-01T00:00:00Z", false),
            volume("two", "2026-01-02T00:00:00Z", false),
            volume("three", "2026-01-03T00:00:00Z", true),
        ];
        let used = ["two".to_owned()].into();
        let filters = VolumeFilters::parse(&filters, false).unwrap();
        filters.keep(&mut all, &used).unwrap();
        all.into_iter().map(|v| v.name).collect()
    }

    #[test]
    fn each_key_keeps_its_own() {
        assert_eq!(kept(&[]), ["one", "two", "three"]);
        assert_eq!(kept(&["name=^t", "name=one"]), ["one", "two", "three"]);
        assert_eq!(kept(&["name=^t"]), ["two", "three"]);
        assert_eq!(kept(&["label=tier=two"]), ["two"]);
        assert_eq!(kept(&["label!=tier=two"]), ["one", "three"]);
        assert_eq!(kept(&["label=tier=one", "label=tier=two"]), [""; 0]);
        assert_eq!(kept(&["dangling=true"]), ["one", "three"]);
        assert_eq!(kept(&["dangling=false"]), ["two"]);
        assert_eq!(kept(&["anonymous=true"]), ["three"]);
        assert_eq!(kept(&["driver=local"]), ["one", "two", "three"]);
        assert_eq!(kept(&["driver=nfs"]), [""; 0]);
        assert_eq!(kept(&["until=2026-01-02T00:00:00Z"]), ["one"]);
        assert_eq!(kept(&["since=one"]), ["two", "three"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            "name",
            "nosuch=1",
            "dangling=maybe",
            "name=[",
            "until=never",
        ] {
            assert!(
                VolumeFilters::parse(&[bad.to_owned()], false).is_err(),
                "{bad}"
            );
        }
        assert!(VolumeFilters::parse(&["name=x".to_owned()], true).is_err());
        let filters = VolumeFilters::parse(&["since=nosuch".to_owned()], false).unwrap();
        assert!(filters.keep(&mut Vec::new(), &BTreeSet::new()).is_err());
    }
}
