//! Platforms: `os/arch[/variant]` in Go's names, the host's, and which of an index's entries fits best.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::quoted;
use crate::error::{Fault, usage};

/// Operating system, architecture and its variant, normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64`, `arm`, `riscv64` …
    #[serde(default)]
    pub architecture: String,
    /// `v7` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Parses `os/arch[/variant]`, or `arch[/variant]` for Linux.
    ///
    /// # Errors
    /// Kind `Usage`, with an example.
    pub fn parse(text: &str) -> Result<Platform, Fault> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |w: &&str| {
            !w.is_empty()
                && w.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let bad = || {
            usage(format!("{} is not a platform", quoted(text)))
                .hint("A platform is written OS/ARCH[/VARIANT], as linux/amd64 or linux/arm/v7.")
        };
        if !parts.iter().all(word) {
            return Err(bad());
        }
        let (os, arch, variant) = match parts.as_slice() {
            [arch] => ("linux", *arch, None),
            [os, arch] if !is_variant(arch) => (*os, *arch, None),
            [arch, variant] => ("linux", *arch, Some(*variant)),
            [os, arch, variant] => (*os, *arch, Some(*variant)),
            _ => return Err(bad()),
        };
        Ok(Platform::new(os, arch, variant))
    }

    /// Makes a platform in the usual names (`x86_64` is `amd64`, `arm64` without a variant is `v8` …).
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let variant = variant.filter(|v| !v.is_empty());
        let arch = architecture.to_ascii_lowercase();
        let (arch, variant) = match (arch.as_str(), variant) {
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v.filter(|v| *v != "v1")),
            ("aarch64" | "arm64", v) => ("arm64", Some(v.filter(|v| *v != "8").unwrap_or("v8"))),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", None),
            ("powerpc64le", v) => ("ppc64le", v),
            ("loongarch64", v) => ("loong64", v),
            (a, v) => (a, v),
        };
        Platform {
            os: os.to_ascii_lowercase(),
            architecture: arch.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// The machine we run on. A 32-bit ARM's variant comes from `uname`.
    #[must_use]
    pub fn host() -> Platform {
        let machine = nix::sys::utsname::uname()
            .ok()
            .and_then(|u| u.machine().to_str().map(str::to_owned))
            .unwrap_or_default();
        Platform::of_machine(&machine, std::env::consts::ARCH)
    }

    fn of_machine(machine: &str, built_for: &str) -> Platform {
        let variant = match machine.get(..5) {
            Some("armv5") => Some("v5"),
            Some("armv6") => Some("v6"),
            _ => None,
        };
        match built_for {
            "arm" => Platform::new("linux", "arm", variant),
            "powerpc64" if machine == "ppc64le" => Platform::new("linux", "ppc64le", None),
            arch => Platform::new("linux", arch, None),
        }
    }

    /// How well an image for `offer` runs where `self` is wanted: `None` not at all, else lower is better.
    #[must_use]
    pub fn fit(&self, offer: &Platform) -> Option<u32> {
        let offer = Platform::new(&offer.os, &offer.architecture, offer.variant.as_deref());
        if self.os != offer.os || self.architecture != offer.architecture {
            return None;
        }
        if self.variant == offer.variant {
            return Some(0);
        }
        let level = |v: &Option<String>, default: u32| match v {
            None => Some(default),
            Some(v) => v.trim_start_matches('v').parse::<u32>().ok(),
        };
        match self.architecture.as_str() {
            // A processor runs what was built for a lower level; the nearest is best.
            "arm" => {
                let (want, have) = (level(&self.variant, 7)?, level(&offer.variant, 7)?);
                want.checked_sub(have)
            }
            "amd64" => {
                let (want, have) = (level(&self.variant, 1)?, level(&offer.variant, 1)?);
                want.checked_sub(have)
            }
            "arm64" => {
                let (want, have) = (level(&self.variant, 8), level(&offer.variant, 8));
                match (want, have) {
                    (Some(w), Some(h)) => w.checked_sub(h),
                    _ => (self.variant == offer.variant).then_some(0),
                }
            }
            _ => match (&self.variant, &offer.variant) {
                (a, b) if a == b => Some(0),
                (None, _) | (_, None) => Some(1),
                _ => None,
            },
        }
    }
}

fn is_variant(text: &str) -> bool {
    text.strip_prefix('v')
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(v) = &self.variant {
            write!(f, "/{v}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn written_forms_are_normalised() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("amd64", "linux/amd64"),
            ("arm64", "linux/arm64/v8"),
            ("linux/aarch64", "linux/arm64/v8"),
            ("arm/v6", "linux/arm/v6"),
            ("linux/arm", "linux/arm/v7"),
            ("armhf", "linux/arm/v7"),
            ("Windows/amd64", "windows/amd64"),
            ("linux/i686", "linux/386"),
        ] {
            assert_eq!(p(text).to_string(), want);
        }
        for bad in ["", "linux/", "a/b/c/d", "linux/amd 64"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nearest_lower_variant_fits_best_and_higher_not_at_all() {
        let v7 = p("linux/arm/v7");
        assert_eq!(v7.fit(&p("linux/arm/v7")), Some(0));
        assert_eq!(v7.fit(&p("linux/arm/v6")), Some(1));
        assert_eq!(v7.fit(&p("linux/arm/v8")), None);
        assert_eq!(p("amd64").fit(&p("linux/amd64/v3")), None);
        assert_eq!(p("linux/amd64/v3").fit(&p("amd64")), Some(2));
        assert_eq!(p("amd64").fit(&p("arm64")), None);
        let plain = Platform {
            os: "linux".into(),
            architecture: "arm64".into(),
            variant: None,
        };
        assert_eq!(p("arm64").fit(&plain), Some(0));
    }

    #[test]
    fn old_arm_hosts_are_known_by_uname() {
        assert_eq!(
            Platform::of_machine("armv6l", "arm").to_string(),
            "linux/arm/v6"
        );
        assert_eq!(
            Platform::of_machine("armv7l", "arm").to_string(),
            "linux/arm/v7"
        );
        assert_eq!(
            Platform::of_machine("x86_64", "x86_64").to_string(),
            "linux/amd64"
        );
    }
}
