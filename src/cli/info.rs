//! `rless info`: what this host allows, why, and how to get more.

use serde_json::{Map, Value as Json, json};

use super::format::{self, Row};
use crate::container::info::{self, Section};
use crate::error::Result;
use crate::store::Store;

/// Show what this host allows, why, and how to get more.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON (`json`) or render a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let sections = info::gather(&Store::open()?);
    let json = as_json(&sections);
    let row = Row {
        fields: with_podman_s(json.clone()),
        json,
    };
    let text = match format::object(&row, args.format.as_deref())? {
        Some(text) => text,
        None => as_text(&sections),
    };
    format::print(&text)?;
    Ok(0)
}

fn as_json(sections: &[Section]) -> Json {
    let mut all = Map::new();
    let mut fixes = Vec::new();
    for section in sections {
        let mut map = Map::new();
        for item in &section.items {
            map.insert(item.key.clone(), json!(item.value));
            if let Some(fix) = &item.fix {
                fixes.push(json!({"what": format!("{}.{}", section.name, item.key), "fix": fix}));
            }
        }
        all.insert(section.name.to_owned(), Json::Object(map));
    }
    all.insert("fixes".to_owned(), Json::Array(fixes));
    Json::Object(all)
}

/// With the paths that podman's templates use.
fn with_podman_s(mut json: Json) -> Json {
    let text = |pointer: &str| json.pointer(pointer).cloned().unwrap_or_else(|| json!(""));
    let number = |pointer: &str| {
        let found = json.pointer(pointer).and_then(Json::as_str);
        found.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    let version = env!("CARGO_PKG_VERSION");
    let added = json!({
        "Host": {
            "Arch": super::version::go_arch(),
            "OS": "linux",
            "Os": "linux",
            "Kernel": text("/host/kernel"),
            "Hostname": text("/host/hostname"),
            "CPUs": number("/host/cpus"),
            "MemTotal": info::memory(),
            "CgroupVersion": "v2",
            "CgroupManager": text("/cgroup/cgroupManager"),
            "NetworkBackend": "pasta",
            "Distribution": {"Distribution": text("/host/distribution")},
            "Security": {"Rootless": text("/host/rootless") == "true"},
            "OCIRuntime": {"Name": "rless", "Version": version},
        },
        "Store": {
            "GraphRoot": text("/store/data"),
            "RunRoot": text("/store/runtime"),
            "GraphDriverName": "rless",
            "ContainerStore": {"Number": number("/store/containers"), "Running": number("/store/running")},
            "ImageStore": {"Number": number("/store/images")},
        },
        "Version": {"Version": version, "APIVersion": version, "OsArch": format!("linux/{}", super::version::go_arch())},
    });
    if let (Some(all), Json::Object(added)) = (json.as_object_mut(), added) {
        all.extend(added);
    }
    json
}

fn as_text(sections: &[Section]) -> String {
    let mut out = String::new();
    for section in sections {
        out.push_str(&format!("{}:\n", section.name));
        for item in &section.items {
            out.push_str(&format!("  {}: {}\n", item.key, item.value));
            if let Some(fix) = &item.fix {
                out.push_str(&format!("    fix: {fix}\n"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podman_s_paths_lead_somewhere() {
        let json = json!({
            "host": {"kernel": "6.1", "hostname": "h", "cpus": "2", "rootless": "true"},
            "store": {"data": "/d", "runtime": "/r", "containers": "3", "running": "1", "images": "2"},
        });
        let row = Row {
            fields: with_podman_s(json.clone()),
            json,
        };
        let show = |format| format::object(&row, Some(format)).unwrap().unwrap();
        assert_eq!(
            show(
                "{{.Host.OS}} {{.Host.Kernel}} {{.Host.CPUs}} {{.Host.Security.Rootless}} {{.Host.OCIRuntime.Name}}"
            ),
            "linux 6.1 2 true rless\n"
        );
        assert_eq!(
            show(
                "{{.Store.GraphRoot}} {{.Store.RunRoot}} {{.Store.ContainerStore.Running}} {{.host.kernel}}"
            ),
            "/d /r 1 6.1\n"
        );
        assert_eq!(
            show("{{.Version.Version}}"),
            concat!(env!("CARGO_PKG_VERSION"), "\n")
        );
        assert!(info::memory() > 1 << 20);
        assert!(format::object(&row, Some("{{.Host.Nope}}")).is_err());
    }
}
