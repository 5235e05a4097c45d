//! The container's environment: what the image, the files and the flags say, in that order.

use serde::{Deserialize, Serialize};

use crate::error::{Result, ResultExt, failed, usage};
use std::path::Path;

/// `PATH` where the image has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One `-e` or env-file line: a value, or a name whose value is the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Name, without `=`.
    pub name: String,
    /// `None`: taken from the caller's environment, and left out if not set there.
    pub value: Option<String>,
}

impl Setting {
    /// `NAME=VALUE` or `NAME`.
    ///
    /// # Errors
    /// The name is empty.
    pub fn parse(text: &str) -> Result<Setting> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() || name.contains('\0') {
            return Err(usage(format!(
                "invalid environment variable {text:?}: it has no name"
            ))
            .into());
        }
        Ok(Setting {
            name: name.to_owned(),
            value,
        })
    }
}

/// The same settings with the caller's variables in them, so that they mean the same tomorrow and to somebody else.
#[must_use]
pub fn settled(settings: &[Setting]) -> Vec<Setting> {
    let all: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    settled_by(settings, &all)
}

fn settled_by(settings: &[Setting], all: &[(String, String)]) -> Vec<Setting> {
    let with = |name: &str, value: &str| Setting {
        name: name.to_owned(),
        value: Some(value.to_owned()),
    };
    let mut settled = Vec::with_capacity(settings.len());
    for setting in settings {
        if setting.value.is_some() {
            settled.push(setting.clone());
            continue;
        }
        let wanted = |name: &str| match setting.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == setting.name,
        };
        let found = all.iter().filter(|(name, _)| wanted(name));
        settled.extend(found.map(|(name, value)| with(name, value)));
    }
    settled
}

/// Reads an `--env-file`: a setting a line, `#` comments, no quoting, as docker.
///
/// # Errors
/// The file cannot be read or a line has no name.
pub fn read_file(path: &Path) -> Result<Vec<Setting>> {
    let text = std::fs::read_to_string(path)
        .fault(|| failed(format!("reading the environment file {}", path.display())))?;
    parse_file(&text).fault(|| usage(format!("environment file {}", path.display())))
}

fn parse_file(text: &str) -> Result<Vec<Setting>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim_start);
    lines
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(Setting::parse)
        .collect()
}

/// A list of `NAME=VALUE` in which each name is once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env(Vec<(String, String)>);

impl Env {
    /// Sets `name`, in its old place if it has one.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Sets `name` unless it is set.
    pub fn set_default(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.set(name, value);
        }
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// `text` with `$NAME` and `${NAME}` replaced by their values, nothing where there is none.
    #[must_use]
    pub fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let word = |c: char| !c.is_ascii_alphanumeric() && c != '_';
            let braced = after.strip_prefix('{').and_then(|a| a.split_once('}'));
            let (name, behind) =
                braced.unwrap_or_else(|| after.split_at(after.find(word).unwrap_or(after.len())));
            if name.is_empty() {
                out.push('$');
            }
            out.push_str(self.get(name).unwrap_or_default());
            rest = behind;
        }
        out + rest
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// An image's entries. One without `=` is left out: it must never mean a variable of the host.
    pub fn set_image(&mut self, entries: &[String]) {
        for entry in entries {
            if let Some((name, value)) = entry.split_once('=').filter(|(n, _)| !n.is_empty()) {
                self.set(name, value);
            }
        }
    }

    /// Settings with values ([`settled`]).
    pub fn apply(&mut self, settings: &[Setting]) {
        for setting in settings {
            if let Some(value) = &setting.value {
                self.set(&setting.name, value);
            }
        }
    }

    /// `NAME=VALUE` strings.
    #[must_use]
    pub fn into_strings(self) -> Vec<String> {
        self.0
            .into_iter()
            .map(|(n, v)| format!("{n}={v}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_docker_reads_it() {
        let settings = parse_file("# c\nA=1\n\n  B=x # y\nC\nD=\"q\"\nE=\n").unwrap();
        let show: Vec<String> = settings
            .iter()
            .map(|s| format!("{}:{}", s.name, s.value.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(show, ["A:1", "B:x # y", "C:-", "D:\"q\"", "E:"]);
        assert!(parse_file("=x").is_err());
    }

    #[test]
    fn variables_are_expanded_from_what_is_set() {
        let mut env = Env::default();
        env.set("PATH", "/bin");
        assert_eq!(env.expand("${PATH}:/x:$PATH:$NO.${NO}$"), "/bin:/x:/bin:.$");
        assert_eq!(env.expand("a$PATHb-${PATH"), "a-${PATH");
        env.clear();
        assert!(env.into_strings().is_empty());
    }

    #[test]
    fn later_settings_win_in_place_and_the_host_is_asked_by_name_only() {
        let mut env = Env::default();
        env.set_image(&[
            "A=1".into(),
            "B=2".into(),
            "SECRET".into(),
            "*".into(),
            "=x".into(),
        ]);
        let all = [("H", "host"), ("LC_A", "1"), ("X", "2")];
        let all = all.map(|(n, v)| (n.to_owned(), v.to_owned()));
        let settings: Vec<_> = ["A=3", "H", "UNSET", "LC_*"]
            .iter()
            .map(|s| Setting::parse(s).unwrap())
            .collect();
        env.apply(&settled_by(&settings, &all));
        assert_eq!(env.into_strings(), ["A=3", "B=2", "H=host", "LC_A=1"]);
    }
}
