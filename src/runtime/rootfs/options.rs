//! Mount options of the runtime spec (mount(8) words) as flags; pure.

use std::path::PathBuf;

use crate::error::{Fault, usage};
use crate::sys::mount::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
};

/// Option of a bind mount that is a volume: before its state file's path (`fill.rs`).
pub const VOLUME_OPTION: &str = "rless.volume=";

/// What a mount's options say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// `MOUNT_ATTR_*` of the mount itself. Options that would clear a flag (`rw`, `exec` …) only
    /// undo an earlier one of the list: flags that a bind mount's source has are kept.
    pub attributes: u64,
    /// The same for it and every mount below (`rro` …).
    pub recursive: u64,
    /// `Some(recursive)`: a bind mount.
    pub bind: Option<bool>,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, and whether recursively.
    pub propagation: Option<(u64, bool)>,
    /// `tmpcopyup`.
    pub copy_up: bool,
    /// [`VOLUME_OPTION`].
    pub volume: Option<PathBuf>,
    /// What is left, for the file system: key and value.
    pub data: Vec<(String, Option<String>)>,
}

/// The flag a word sets (true) or clears.
fn attribute(word: &str) -> Option<(u64, bool)> {
    Some(match word {
        "ro" => (MOUNT_ATTR_RDONLY, true),
        "rw" => (MOUNT_ATTR_RDONLY, false),
        "nosuid" => (MOUNT_ATTR_NOSUID, true),
        "suid" => (MOUNT_ATTR_NOSUID, false),
        "nodev" => (MOUNT_ATTR_NODEV, true),
        "dev" => (MOUNT_ATTR_NODEV, false),
        "noexec" => (MOUNT_ATTR_NOEXEC, true),
        "exec" => (MOUNT_ATTR_NOEXEC, false),
        "nodiratime" => (MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (MOUNT_ATTR_NODIRATIME, false),
        "nosymfollow" => (MOUNT_ATTR_NOSYMFOLLOW, true),
        "symfollow" => (MOUNT_ATTR_NOSYMFOLLOW, false),
        "noatime" => (MOUNT_ATTR_NOATIME, true),
        "strictatime" => (MOUNT_ATTR_STRICTATIME, true),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => (MOUNT_ATTR__ATIME, false),
        _ => return None,
    })
}

/// Propagation words without their `r`.
fn propagation(word: &str) -> Option<u64> {
    Some(match word {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    })
}

impl Options {
    /// Reads the words.
    ///
    /// # Errors
    /// A word that means something we do not do.
    pub(super) fn parse(words: &[String]) -> Result<Options, Fault> {
        let mut options = Options::default();
        for word in words {
            options.word(word)?;
        }
        Ok(options)
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if let Some((flag, set)) = attribute(word) {
            apply(&mut self.attributes, flag, set);
            return Ok(());
        }
        if let Some(flag) = propagation(word) {
            self.propagation = Some((flag, false));
            return Ok(());
        }
        if let Some(rest) = word.strip_prefix('r') {
            if let Some((flag, set)) = attribute(rest) {
                apply(&mut self.recursive, flag, set);
                return Ok(());
            }
            if let Some(flag) = propagation(rest) {
                self.propagation = Some((flag, true));
                return Ok(());
            }
        }
        if let Some(state) = word.strip_prefix(VOLUME_OPTION) {
            self.volume = Some(PathBuf::from(state));
            return Ok(());
        }
        match word {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "notmpcopyup" => self.copy_up = false,
            "" | "defaults" | "async" | "nolazytime" | "iversion" | "noiversion" | "loud"
            | "silent" | "nomand" => {}
            "remount" | "idmap" | "ridmap" | "move" => {
                return Err(usage(format!("mount option `{word}` is not supported")));
            }
            _ => self.data.push(match word.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            }),
        }
        Ok(())
    }

    /// Whether mounts must keep receiving what is mounted on the host.
    pub(super) fn follows_host(&self) -> bool {
        self.propagation
            .is_some_and(|(flag, _)| flag == libc::MS_SHARED || flag == libc::MS_SLAVE)
    }
}

/// Sets or clears a flag; the atime flags exclude each other.
fn apply(flags: &mut u64, flag: u64, set: bool) {
    if flag & MOUNT_ATTR__ATIME != 0 {
        *flags &= !MOUNT_ATTR__ATIME;
    }
    if set {
        *flags |= flag;
    } else {
        *flags &= !flag;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        let words: Vec<String> = words.split(',').map(str::to_owned).collect();
        Options::parse(&words).unwrap()
    }

    #[test]
    fn later_words_undo_earlier_ones() {
        let o = parse("nosuid,noexec,ro,exec,noatime,relatime");
        assert_eq!(o.attributes, MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn r_words_are_recursive_and_do_not_eat_real_words() {
        let o = parse("rbind,rro,rslave,relatime,ro");
        assert_eq!(o.recursive, MOUNT_ATTR_RDONLY);
        assert_eq!(o.attributes, MOUNT_ATTR_RDONLY);
        assert_eq!(
            (o.bind, o.propagation),
            (Some(true), Some((libc::MS_SLAVE, true)))
        );
        assert!(o.follows_host() && o.data.is_empty());
    }

    #[test]
    fn the_rest_is_for_the_file_system() {
        let o = parse("mode=1777,size=64m,newinstance,tmpcopyup");
        let pair = |k: &str, v: Option<&str>| (k.to_owned(), v.map(str::to_owned));
        assert_eq!(
            o.data,
            [
                pair("mode", Some("1777")),
                pair("size", Some("64m")),
                pair("newinstance", None)
            ]
        );
        assert!(o.copy_up);
        assert!(Options::parse(&["remount".to_owned()]).is_err());
    }
}
