//! `rless version`.

use super::format::{self, Row};
use crate::error::Result;
use serde_json::json;

/// Show the version.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON (`json`) or render a Go template
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let platform = format!("linux/{}", go_arch());
    let client = json!({
        "Version": version,
        "APIVersion": version,
        "OsArch": platform,
        "Os": "linux",
    });
    let mut fields = client.clone();
    // Docker's {{.Server.Version}} is asked by many scripts; there is no daemon, so it is the same.
    fields["Client"] = client.clone();
    fields["Server"] = client.clone();
    let row = Row {
        fields,
        json: json!({ "Client": client }),
    };
    let text = format::object(&row, args.format.as_deref())?
        .unwrap_or_else(|| format!("Version:      {version}\nOS/Arch:      {platform}\n"));
    format::print(&text)?;
    Ok(0)
}

/// The machine's architecture by the name that images use.
pub(crate) fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
