//! The words of `-o`, as overlayfs, fuse-overlayfs and mount(8) write them. Pure functions over text.

use crate::error::{Result, usage};
use nix::mount::MsFlags;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What `-o` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overlay {
    /// `lowerdir=`, uppermost first.
    pub lower: Vec<PathBuf>,
    /// `upperdir=`.
    pub upper: Option<PathBuf>,
    /// `workdir=`: not needed, and not to be seen.
    pub work: Option<PathBuf>,
    /// `image=`, `packs=`: an image's index instead of directories.
    pub image: Option<PathBuf>,
    pub packs: Option<PathBuf>,
    /// `size=`, bytes.
    pub size: Option<u64>,
    /// `squash_to_root`, `squash_to_uid=`, `squash_to_gid=`.
    pub squash: Option<(u32, u32)>,
    /// `remount`.
    pub remount: bool,
    /// `fsname=`.
    pub source: Option<OsString>,
    /// `ro`, `nosuid`, `noatime` …
    pub flags: Flags,
}

/// Flags of the mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flags(pub MsFlags);

impl Default for Flags {
    fn default() -> Flags {
        Flags(MsFlags::empty())
    }
}

/// Flags by their words; the word that takes one away.
const FLAGS: [(&str, &str, MsFlags); 7] = [
    ("ro", "rw", MsFlags::MS_RDONLY),
    ("nosuid", "suid", MsFlags::MS_NOSUID),
    ("nodev", "dev", MsFlags::MS_NODEV),
    ("noexec", "exec", MsFlags::MS_NOEXEC),
    ("noatime", "atime", MsFlags::MS_NOATIME),
    ("nodiratime", "diratime", MsFlags::MS_NODIRATIME),
    ("relatime", "norelatime", MsFlags::MS_RELATIME),
];

/// Words that ask for what is so anyway, or for less than is given (`volatile`: no durability).
const GIVEN: [&str; 13] = [
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "_netdev",
    "async",
    "allow_other",
    "default_permissions",
    "volatile",
    "static_nlink",
    "fast_ino",
    "userxattr",
    "threaded",
];

/// The same, with a value.
const GIVEN_VALUES: [&str; 9] = [
    "user_id",
    "group_id",
    "timeout",
    "threaded",
    "fsync",
    "fast_ino",
    "writeback",
    "redirect_dir",
    "subtype",
];

/// Splits at `separator` where no backslash stands before it; other escapes stay for the next level.
fn split(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        let last = parts.len() - 1;
        match byte {
            b'\\' => match bytes.next() {
                Some(next) if next == separator => parts[last].push(next),
                Some(next) => parts[last].extend([b'\\', next]),
                None => parts[last].push(b'\\'),
            },
            b if b == separator => parts.push(Vec::new()),
            b => parts[last].push(b),
        }
    }
    parts
}

/// Takes the backslashes that are left away.
fn plain(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => bytes.next().unwrap_or(b'\\'),
            b => b,
        });
    }
    OsString::from_vec(out)
}

impl Overlay {
    /// Reads the comma-separated words; those given later count.
    ///
    /// # Errors
    /// A word that is not known, or has no sense here.
    pub(super) fn parse(texts: &[OsString]) -> Result<Overlay> {
        let mut all = Overlay::default();
        for text in texts {
            for word in split(text.as_bytes(), b',') {
                if !word.is_empty() {
                    all.word(&word)?;
                }
            }
        }
        Ok(all)
    }

    /// A word that has a sense for a new mount only.
    pub(super) fn of_a_new_mount(&self) -> Option<&'static str> {
        let words = [
            (!self.lower.is_empty(), "lowerdir="),
            (self.upper.is_some(), "upperdir="),
            (self.work.is_some(), "workdir="),
            (self.image.is_some(), "image="),
            (self.packs.is_some(), "packs="),
            (self.size.is_some(), "size="),
            (self.squash.is_some(), "squash_to_…"),
        ];
        words
            .iter()
            .find(|(given, _)| *given)
            .map(|(_, word)| *word)
    }

    fn word(&mut self, word: &[u8]) -> Result<()> {
        let cut = word.iter().position(|b| *b == b'=');
        let (key, value) = match cut {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        };
        let key = String::from_utf8_lossy(key).into_owned();
        match value {
            Some(value) => self.setting(&key, value),
            None => self.flag(&key),
        }
    }

    fn flag(&mut self, word: &str) -> Result<()> {
        if let Some((set, _, flag)) = FLAGS
            .iter()
            .find(|(on, off, _)| *on == word || *off == word)
        {
            self.flags.0.set(*flag, *set == word);
            return Ok(());
        }
        match word {
            "remount" => self.remount = true,
            "squash_to_root" => self.squash = Some((0, 0)),
            // Notes of mount(8) and systemd for themselves.
            w if GIVEN.contains(&w) || w.starts_with("x-") => {}
            _ => return Err(unknown(word)),
        }
        Ok(())
    }

    fn setting(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let path = || PathBuf::from(plain(value));
        let text = String::from_utf8_lossy(value);
        match key {
            "lowerdir" => {
                let parts = split(value, b':').into_iter().map(|p| plain(&p));
                self.lower = parts.map(PathBuf::from).collect();
                if self.lower.iter().any(|p| p.as_os_str() == OsStr::new("")) {
                    return Err(usage(format!("lowerdir={text}: an empty name")).into());
                }
            }
            "upperdir" => self.upper = Some(path()),
            "workdir" => self.work = Some(path()),
            "image" | "index" => self.image = Some(path()),
            "packs" => self.packs = Some(path()),
            "fsname" => self.source = Some(plain(value)),
            "size" => self.size = Some(number(key, &text)?),
            "squash_to_uid" => self.squash.get_or_insert_default().0 = number(key, &text)?,
            "squash_to_gid" => self.squash.get_or_insert_default().1 = number(key, &text)?,
            k if GIVEN_VALUES.contains(&k) || k.starts_with("x-") => {}
            _ => return Err(unknown(key)),
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(key: &str, text: &str) -> Result<T> {
    let parsed = text.parse();
    parsed.map_err(|_| usage(format!("{key}={text}: not a number")).into())
}

fn unknown(word: &str) -> anyhow::Error {
    usage(format!("mount option {word:?} is not known"))
        .hint("lowerdir=A:B, upperdir=, workdir=, image=, packs=, size=BYTES, squash_to_root, ro, nosuid, nodev, noexec, noatime …")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Overlay> {
        Overlay::parse(&[text.into()])
    }

    #[test]
    fn directories_are_read_with_their_escapes() {
        let o = parse(r"lowerdir=a:b\:c:d\,e:f\\g,upperdir=u\:v,workdir=w").unwrap();
        let lower: Vec<_> = o.lower.iter().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(lower, ["a", "b:c", "d,e", r"f\g"]);
        assert_eq!(o.upper.unwrap().to_str(), Some("u:v"));
        assert!(parse("lowerdir=").is_err() && parse("lowerdir=a::b").is_err());
    }

    #[test]
    fn a_remount_is_told_from_a_new_mount() {
        assert_eq!(parse("remount,ro,noatime").unwrap().of_a_new_mount(), None);
        for (text, word) in [("remount,size=5", "size="), ("lowerdir=a,ro", "lowerdir=")] {
            assert_eq!(parse(text).unwrap().of_a_new_mount(), Some(word));
        }
    }

    #[test]
    fn words_of_mount_and_fuse_overlayfs_are_taken() {
        let o = parse("rw,ro,nodev,noatime,suid,volatile,timeout=0,x-systemd.after=y,size=4096")
            .unwrap();
        assert_eq!(
            o.flags.0,
            MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOATIME
        );
        assert_eq!(o.size, Some(4096));
        assert_eq!(parse("squash_to_root").unwrap().squash, Some((0, 0)));
        assert_eq!(
            parse("squash_to_uid=5,squash_to_gid=6").unwrap().squash,
            Some((5, 6))
        );
        for bad in [
            "nosuch",
            "nosuch=1",
            "uidmapping=0:1:2",
            "noacl",
            "xattr_permissions=2",
            "size=x",
            "ro=1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
