//! The mounts that a user or an image asked for, as the runtime has them.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::{text, words};

/// A mount that was asked for.
#[derive(Debug)]
pub(super) struct UserMount {
    pub(super) kind: &'static str,
    pub(super) name: Option<String>,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) writable: bool,
    pub(super) propagation: String,
    pub(super) others: Vec<String>,
}

const PROPAGATIONS: [&str; 8] = [
    "shared",
    "slave",
    "private",
    "rshared",
    "rslave",
    "rprivate",
    "unbindable",
    "runbindable",
];

impl UserMount {
    pub(super) fn of(mount: &Json, volumes: &Path) -> UserMount {
        let source = text(mount, "/source");
        let inside = Path::new(&source).strip_prefix(volumes).ok();
        let name = inside.and_then(|p| Some(p.iter().next()?.to_str()?.to_owned()));
        let kind = match (text(mount, "/type").as_str(), &name) {
            ("tmpfs", _) => "tmpfs",
            (_, Some(_)) => "volume",
            _ => "bind",
        };
        let mut mount = UserMount {
            kind,
            name,
            source,
            target: text(mount, "/destination"),
            writable: true,
            propagation: String::new(),
            others: words(mount, "/options"),
        };
        let propagation = mount
            .others
            .iter()
            .find(|o| PROPAGATIONS.contains(&o.as_str()));
        mount.propagation = propagation.cloned().unwrap_or_default();
        mount.writable = !mount.others.iter().any(|o| o == "ro");
        // The last two are no mount options, but words to our runtime.
        let own =
            |o: &str| ["ro", "rw", "tmpcopyup", "copyup"].contains(&o) || PROPAGATIONS.contains(&o);
        mount.others.retain(|o| !own(o));
        mount
    }

    pub(super) fn json(&self) -> Json {
        let mut json = json!({
            "Type": self.kind,
            "Source": self.source,
            "Destination": self.target,
            "Driver": if self.name.is_some() { "local" } else { "" },
            "Mode": "",
            "Options": self.others,
            "RW": self.writable,
            "Propagation": self.propagation,
        });
        if let Some(name) = &self.name {
            json["Name"] = name.as_str().into();
        }
        json
    }

    pub(super) fn options(&self) -> String {
        let mut all = vec![if self.writable { "rw" } else { "ro" }];
        all.extend(Some(self.propagation.as_str()).filter(|p| !p.is_empty()));
        all.extend(self.others.iter().map(String::as_str));
        all.join(",")
    }

    pub(super) fn bind(&self) -> String {
        let source = self.name.as_ref().unwrap_or(&self.source);
        format!("{source}:{}:{}", self.target, self.options())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_apart_and_their_options_sorted() {
        let mount = |json: Json| UserMount::of(&json, Path::new("/s/volumes"));
        let volume = mount(json!({
            "destination": "/data", "source": "/s/volumes/v/_data",
            "options": ["rbind", "rprivate", "nosuid"],
        }));
        assert_eq!(volume.json()["Type"], "volume");
        assert_eq!(volume.json()["Name"], "v");
        assert_eq!(volume.bind(), "v:/data:rw,rprivate,rbind,nosuid");
        let bind = mount(json!({
            "destination": "/host", "source": "/tmp", "options": ["rbind", "ro"],
        }));
        assert_eq!(bind.json()["RW"], false);
        assert_eq!(bind.bind(), "/tmp:/host:ro,rbind");
        let tmpfs = mount(json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs"}));
        assert_eq!(tmpfs.kind, "tmpfs");
    }
}
