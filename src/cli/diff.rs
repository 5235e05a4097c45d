//! `rless diff`.

use std::io::IsTerminal;

use serde_json::ser::PrettyFormatter;

use super::format;
use super::select::Wanted;
use crate::container::diff::{Letter, Line, diff};
use crate::error::{Result, failed, usage, visible};
use crate::store::Store;

/// Show what a container changed in its file system, or what an image's uppermost layer did.
///
/// A is for added, C for changed, D for deleted. It costs the same however large the image is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The last container that was made
    #[arg(short, long, conflicts_with = "name")]
    latest: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER|IMAGE")]
    name: Option<String>,
}

#[derive(serde::Serialize)]
struct Lists {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if args
        .format
        .as_ref()
        .is_some_and(|f| format::JsonForm::of(f).is_none())
    {
        return Err(usage("only supported value for '--format' is 'json'").into());
    }
    let store = Store::open()?;
    let name = match (&args.name, args.latest) {
        (Some(name), _) => name.clone(),
        (None, true) => {
            let latest = Wanted {
                latest: true,
                ..Wanted::default()
            };
            let found = latest.find(&store)?.pop();
            let chosen = found.ok_or_else(|| failed("no containers found: no such container"))?;
            chosen.1.id
        }
        (None, false) => {
            let text = "\"rless diff\" requires a name, id, or the \"--latest\" flag";
            return Err(usage(text).into());
        }
    };
    let lines = diff(&store, &name)?;
    let text = match args.format {
        Some(_) => json(&lines)?,
        None => plain(&lines, std::io::stdout().is_terminal()),
    };
    format::print_bytes(&text)?;
    Ok(0)
}

/// A line each. The names are the container's: an end of line in one is written out, so that none looks like two, and
/// on a terminal whatever that would obey.
fn plain(lines: &[Line], on_terminal: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for (letter, path) in lines {
        let letter = match letter {
            Letter::Added => b"A /",
            Letter::Changed => b"C /",
            Letter::Deleted => b"D /",
        };
        text.extend_from_slice(letter);
        match on_terminal {
            true => text.extend(visible(&String::from_utf8_lossy(path), &[]).into_bytes()),
            false => path.iter().for_each(|byte| match byte {
                b'\n' => text.extend_from_slice(b"\\x0a"),
                byte => text.push(*byte),
            }),
        }
        text.push(b'\n');
    }
    text
}

fn json(lines: &[Line]) -> Result<Vec<u8>> {
    let of = |wanted| {
        let these = lines.iter().filter(move |(letter, _)| *letter == wanted);
        these
            .map(|(_, path)| format!("/{}", String::from_utf8_lossy(path)))
            .collect()
    };
    let lists = Lists {
        changed: of(Letter::Changed),
        added: of(Letter::Added),
        deleted: of(Letter::Deleted),
    };
    let mut text = Vec::new();
    let pretty = PrettyFormatter::with_indent(b"     ");
    let mut out = serde_json::Serializer::with_formatter(&mut text, pretty);
    serde::Serialize::serialize(&lists, &mut out)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_line_and_on_a_terminal_plain_text() {
        let lines = [(Letter::Added, b"a\x1b[2J\xff\nD /etc".to_vec())];
        assert_eq!(plain(&lines, false), b"A /a\x1b[2J\xff\\x0aD /etc\n");
        let shown = "A /a\\x1b[2J\u{fffd}\\x0aD /etc\n";
        assert_eq!(plain(&lines, true), shown.as_bytes());
    }
}
