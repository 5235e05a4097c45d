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
    let row = Row::from(as_json(&sections));
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
