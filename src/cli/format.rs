//! How listing and showing commands print: Go templates, `table` templates, `json`.
//!
//! The words are podman's: `--format json` prints every row as JSON; a Go template is rendered
//! once per row with a newline after each, or once over the whole list when it has `{{range .}}` (and an
//! `{{end}}`; a `range` over a field belongs to its row); the prefix `table` adds headings and aligned columns. `\t` and `\n` in a template typed in a
//! shell mean tab and newline. What gtmpl lacks of Go's language is added by rewriting actions
//! (`actions.rs`), and of its functions and podman's in `functions.rs`.
//!
//! A row has two faces, as in podman: the fields a template sees (`{{.RunningFor}}`) and the JSON
//! object, which carries raw values.
//!
//! Fields come from images and from whoever made a container; on a terminal their control characters are
//! written out ([`visible`]), in tables and templates alike. Where one object is shown, lines and tabs stay.

mod actions;
mod functions;

use self::functions::{FUNCTIONS, TIME, time_value};
use crate::error::{Result, failed, usage, visible};
use gtmpl::{Template, Value};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::panic::AssertUnwindSafe;

/// One row of a listing, or the one object of a showing command.
#[derive(Debug, Clone)]
pub struct Row {
    /// What a template sees: an object whose keys are podman's field names.
    pub fields: Json,
    /// What `--format json` prints.
    pub json: Json,
}

impl From<Json> for Row {
    fn from(json: Json) -> Self {
        Row {
            fields: json.clone(),
            json,
        }
    }
}

/// A command's default table and the headings that differ from the field's own name.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// Template of the default table, cells separated by tabs: `{{.ID}}\t{{.Image}}`.
    pub table: &'a str,
    /// Headings by field: `("ID", "CONTAINER ID")`; others are made from the field's words.
    pub headings: &'a [(&'a str, &'a str)],
    /// Every field a row may have, so that an empty listing has headings and refuses unknown ones.
    pub fields: &'a [&'a str],
    /// Print the heading line (`--noheading` turns it off).
    pub heading: bool,
    /// Shorten the default table's cells so that a line fits the terminal (`--no-trunc` turns it off).
    pub fit: bool,
}

impl Listing<'_> {
    /// The listing's text for `--format FORMAT` (or none).
    ///
    /// # Errors
    /// The template does not parse or names a field that rows do not have.
    pub fn render(&self, rows: &[Row], format: Option<&str>) -> Result<String> {
        match format {
            None | Some("") => self.render_table(rows, self.table, self.fit),
            Some(text) if JsonForm::of(text).is_some() => {
                let all: Vec<&Json> = rows.iter().map(|r| &r.json).collect();
                Ok(match JsonForm::of(text) {
                    Some(JsonForm::Lines) => all.iter().map(|json| format!("{json}\n")).collect(),
                    _ => format!("{}\n", pretty(&all)),
                })
            }
            Some("table") => self.render_table(rows, self.table, self.fit),
            Some(text) => match text.strip_prefix("table ") {
                Some(rest) => self.render_table(rows, rest, false),
                None => self.render_plain(rows, text),
            },
        }
    }

    fn render_plain(&self, rows: &[Row], text: &str) -> Result<String> {
        let template = parse(text)?;
        let mut fields: Vec<Value> = rows.iter().map(|row| seen(row, &[])).collect();
        let mut out = String::new();
        if has_range(text) {
            out = render(&template, Value::Array(fields))?;
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            return Ok(out);
        }
        if fields.is_empty() {
            render(&template, self.heading_row())?; // an unknown field is an error without rows too
        }
        for row in fields.drain(..) {
            out.push_str(&render(&template, row)?);
            out.push('\n');
        }
        Ok(out)
    }

    fn render_table(&self, rows: &[Row], text: &str, fit: bool) -> Result<String> {
        let template = parse_with(text, table_text)?;
        let mut lines = Vec::with_capacity(rows.len() + 1);
        if self.heading {
            lines.push(render(&template, self.heading_row())?);
        }
        for row in rows {
            lines.push(render(&template, seen(row, &[]))?);
        }
        let width = if fit { terminal_width() } else { None };
        Ok(align(&lines, width))
    }

    fn heading_row(&self) -> Value {
        let of = |field: &str| {
            self.headings
                .iter()
                .find(|(name, _)| *name == field)
                .map_or_else(|| heading(field), |(_, text)| (*text).to_owned())
        };
        let names = self.fields.iter().copied();
        let names = names.chain(self.headings.iter().map(|(name, _)| *name));
        Value::Object(
            names
                .map(|n| (n.to_owned(), Value::String(of(n))))
                .collect(),
        )
    }
}

/// The text of one object for `--format`; `None` when no format was given.
///
/// # Errors
/// The template does not parse or names a field that the object does not have.
pub fn object(row: &Row, format: Option<&str>) -> Result<Option<String>> {
    match format {
        None | Some("") => Ok(None),
        Some(text) if JsonForm::of(text) == Some(JsonForm::Lines) => {
            Ok(Some(format!("{}\n", row.json)))
        }
        Some(text) if JsonForm::of(text).is_some() => Ok(Some(format!("{}\n", pretty(&row.json)))),
        Some(text) => {
            let mut out = render(&parse(text)?, seen(row, &['\n', '\t']))?;
            // As podman: by what the template ends with, not what it prints.
            if !plain_text(text).ends_with('\n') {
                out.push('\n');
            }
            Ok(Some(out))
        }
    }
}

/// How JSON is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonForm {
    /// `json`: all of it, laid out.
    Whole,
    /// `{{json .}}`: each object on a line, as docker and podman 5 have it.
    Lines,
}

impl JsonForm {
    /// What a format asks for; `None`: it is a template of another kind.
    #[must_use]
    pub fn of(format: &str) -> Option<JsonForm> {
        let format = format.trim();
        if format == "json" {
            return Some(JsonForm::Whole);
        }
        let action = format.strip_prefix("{{")?.strip_suffix("}}")?;
        let argument = action.trim().strip_prefix("json")?;
        (argument.trim() == "." && argument.starts_with(char::is_whitespace))
            .then_some(JsonForm::Lines)
    }
}

/// A time among a row's fields, of its RFC 3339 text: a template prints it as Go does, `json` as it is.
#[must_use]
pub fn time(text: &str) -> Json {
    serde_json::json!({ TIME: text })
}

/// What a template sees of a row; on a terminal without control characters but `kept`.
fn seen(row: &Row, kept: &[char]) -> Value {
    if !std::io::stdout().is_terminal() {
        return to_go(&row.fields, true);
    }
    let mut fields = row.fields.clone();
    tame(&mut fields, kept);
    to_go(&fields, true)
}

/// Writes out the control characters, but `kept`, of every text in `fields`, keys (of labels, say) included.
fn tame(fields: &mut Json, kept: &[char]) {
    match fields {
        Json::String(text) => *text = visible(text, kept),
        Json::Array(items) => items.iter_mut().for_each(|item| tame(item, kept)),
        Json::Object(map) => {
            *map = std::mem::take(map)
                .into_iter()
                .map(|(key, mut value)| {
                    tame(&mut value, kept);
                    let key = if key == TIME {
                        key
                    } else {
                        visible(&key, kept)
                    };
                    (key, value)
                })
                .collect();
        }
        _ => {}
    }
}

/// Writes a command's output. A reader that went away ends the process as SIGPIPE would.
///
/// # Errors
/// Standard output cannot be written (a full disk, say).
pub fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// As [`print()`], for what may be no text.
///
/// # Errors
/// As [`print()`].
pub fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(128 + 13),
        result => Ok(anyhow::Context::context(
            result,
            "writing to standard output",
        )?),
    }
}

/// Columns of the terminal on standard output, if it is one.
#[must_use]
pub fn terminal_width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    clap_width().filter(|w| *w >= 20)
}

fn clap_width() -> Option<usize> {
    if let Some(columns) = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()) {
        return Some(columns);
    }
    let size = crate::sys::tty::window_size(std::io::stdout()).ok()?;
    Some(usize::from(size.columns)).filter(|w| *w > 0)
}

/// JSON as `inspect` prints it.
#[must_use]
pub fn inspected<T: serde::Serialize>(value: &T) -> String {
    let mut out = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"     ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, indent);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8(out).unwrap_or_default() + "\n",
        Err(_) => String::new(),
    }
}

fn pretty<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Whether a template goes through the whole list itself: `{{range .}}`, and later `{{end}}`.
fn has_range(text: &str) -> bool {
    let mut actions = text.split("{{").skip(1).filter_map(|rest| {
        let (action, _) = rest.split_once("}}")?;
        let action: String = action.split_whitespace().collect();
        Some(action.trim_matches('-').to_owned())
    });
    actions.any(|action| action == "range.") && actions.any(|action| action == "end")
}

/// `RunningFor` is headed `RUNNING FOR`.
fn heading(field: &str) -> String {
    let mut out = String::new();
    let mut last_lower = false;
    for c in field.chars() {
        if c.is_uppercase() && last_lower {
            out.push(' ');
        }
        last_lower = c.is_lowercase();
        out.extend(c.to_uppercase());
    }
    out
}

fn parse(text: &str) -> Result<Template> {
    parse_with(text, plain_text)
}

/// Parses a template whose text between the actions goes through `between`.
fn parse_with(text: &str, between: fn(&str) -> String) -> Result<Template> {
    let mut template = Template::default();
    template.add_funcs(&FUNCTIONS);
    let text_of = actions::rewrite(text, between);
    // It is cut into words on a thread, and where there can be none the library panics.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let parsed = std::panic::catch_unwind(AssertUnwindSafe(|| {
        template.parse(text_of).map_err(Box::new)
    }));
    std::panic::set_hook(hook);
    match parsed {
        Ok(Ok(())) => Ok(template),
        Ok(Err(e)) => Err(usage(format!("parsing --format template {text:?}: {e}")).into()),
        Err(_) => Err(failed("formatting the output: no thread can be started")
            .hint("the processes that you may have are used up: see `ulimit -u`")
            .into()),
    }
}

/// A user types tabs and line ends as `\t` and `\n`.
fn plain_text(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// In a table blanks end a column, too, as podman has it.
fn table_text(text: &str) -> String {
    plain_text(text).replace(' ', "\t")
}

fn render(template: &Template, value: Value) -> Result<String> {
    template
        .render(&gtmpl::Context::from(value))
        .map_err(|e| usage(format!("executing --format template: {}", clean(&e))).into())
}

/// gtmpl prints the whole value beside an unknown field; the field's name is what helps.
fn clean(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    match text.find(" for Object(").or_else(|| text.find(" for {")) {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// Fields that are maps in podman: any key may be asked for.
const MAPS: [&str; 13] = [
    "Annotations",
    "Attributes",
    "Data",
    "ExposedPorts",
    "Labels",
    "Namespaces",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// JSON to template values. A row is an object (an unknown field is an error), what lies deeper
/// is a map (an unknown key prints `<no value>`), as Go's structs and maps are.
fn to_go(json: &Json, object: bool) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Bool(*b),
        Json::String(s) => Value::String(s.clone()),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => Value::from(i),
            (_, Some(u), _) => Value::from(u),
            (_, _, f) => Value::from(f.unwrap_or(0.0)),
        },
        Json::Array(items) => Value::Array(items.iter().map(|i| to_go(i, object)).collect()),
        Json::Object(map) => {
            if let Some(Json::String(time)) = map.get(TIME) {
                return time_value(time);
            }
            let map: HashMap<String, Value> = map
                .iter()
                .map(|(k, v)| {
                    let fixed = k.starts_with(char::is_uppercase) && !MAPS.contains(&k.as_str());
                    (
                        k.clone(),
                        to_go(v, (v.is_object() && fixed) || v.is_array()),
                    )
                })
                .collect();
            if object {
                Value::Object(map)
            } else {
                Value::Map(map)
            }
        }
    }
}

/// Aligns tab-separated lines as Go's tabwriter does with (minimum 12, padding 2), then shortens
/// the widest columns with `…` until a line fits `width`.
fn align(lines: &[String], width: Option<usize>) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|l| l.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in &rows {
        for (i, cell) in row.iter().enumerate() {
            widths[i] = widths[i].max(cell.chars().count());
        }
    }
    let padded = |w: usize, last: bool| if last { w } else { (w + 2).max(12) };
    if let Some(most) = width {
        shrink(&mut widths, most, &padded);
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let cell = shorten(cell, widths[i]);
            let last = i + 1 == row.len();
            line.push_str(&cell);
            let fill = padded(widths[i], last).saturating_sub(cell.chars().count());
            if !last {
                line.extend(std::iter::repeat_n(' ', fill));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn shrink(widths: &mut [usize], most: usize, padded: &dyn Fn(usize, bool) -> usize) {
    const LEAST: usize = 10;
    let n = widths.len();
    loop {
        let total: usize = (0..n).map(|i| padded(widths[i], i + 1 == n)).sum();
        let Some(widest) = (0..n).max_by_key(|i| widths[*i]) else {
            return;
        };
        if total <= most || widths[widest] <= LEAST {
            return;
        }
        let second = (0..n).filter(|i| *i != widest).map(|i| widths[i]).max();
        let step = (widths[widest] - second.unwrap_or(0).max(LEAST).min(widths[widest])).max(1);
        widths[widest] -= step.min(total - most).min(widths[widest] - LEAST);
    }
}

/// `cell` cut to `width` characters, the last of them `…`.
#[must_use]
pub fn shorten(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let mut out: String = cell.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LISTING: Listing<'static> = Listing {
        table: "{{.ID}}\t{{.Names}}",
        headings: &[("ID", "CONTAINER ID")],
        fields: &["Names", "RunningFor", "Labels"],
        heading: true,
        fit: false,
    };

    fn rows() -> Vec<Row> {
        vec![
            json!({"ID": "abc", "Names": "one", "RunningFor": "1 second ago", "Labels": {"a": "b"}}).into(),
            json!({"ID": "defghijklmnop", "Names": "two", "RunningFor": "", "Labels": {}}).into(),
        ]
    }

    fn show(format: &str) -> String {
        LISTING.render(&rows(), Some(format)).unwrap()
    }

    #[test]
    fn default_table_pads_like_tabwriter() {
        let text = LISTING.render(&rows(), None).unwrap();
        assert_eq!(
            text,
            "CONTAINER ID   NAMES\nabc            one\ndefghijklmnop  two\n"
        );
    }

    #[test]
    fn table_prefix_heads_a_users_template() {
        assert_eq!(
            show("table {{.Names}}\\t{{.RunningFor}}"),
            "NAMES       RUNNING FOR\none         1 second ago\ntwo\n"
        );
        assert_eq!(
            show("table {{.Names}} {{.RunningFor}}"),
            show("table {{.Names}}\\t{{.RunningFor}}")
        );
        assert_eq!(show("{{.Names}}{{\"\\n\"}}"), "one\n\ntwo\n\n");
    }

    #[test]
    fn plain_template_is_rendered_per_row_and_range_over_all() {
        assert_eq!(
            show("{{.Names}}:{{upper .ID}}"),
            "one:ABC\ntwo:DEFGHIJKLMNOP\n"
        );
        for all in [
            "{{range .}}{{.Names}} {{end}}",
            "{{ range . }}{{.Names}} {{ end }}",
            "{{- range . }}{{.Names}} {{ end -}}",
        ] {
            assert_eq!(show(all), "one two \n", "{all}");
        }
        let inner = "{{.Names}}:{{range $k, $v := .Labels}} {{$k}}={{$v}}{{end}}";
        assert_eq!(show(inner), "one: a=b\ntwo:\n");
        assert_eq!(
            show("{{range .}}{{.Names}}{{range .Labels}}:{{.}}{{end}};{{end}}"),
            "one:b;two;\n"
        );
    }

    #[test]
    fn labels_are_reached_by_index_and_by_label() {
        assert_eq!(show("{{.Label \"a\"}}").lines().next(), Some("b"));
        assert_eq!(show("{{.Labels.a}}").lines().next(), Some("b"));
        assert_eq!(show("{{.Label \"none\"}}|").lines().next(), Some("|"));
    }

    #[test]
    fn lists_and_maps_print_as_in_go() {
        let row: Row =
            json!({"L": ["a", 1], "M": {"Labels": {"b": "2", "a": "1"}}, "E": []}).into();
        let show = |format| object(&row, Some(format)).unwrap().unwrap();
        assert_eq!(
            show("{{.L}} {{ .M.Labels }} {{- .E }}"),
            "[a 1] map[a:1 b:2][]\n"
        );
        assert_eq!(show("{{range $i, $x := .L}}{{$x}};{{end}}"), "a;1;\n");
        assert_eq!(
            show("{{with .M}}{{.Labels.a}}{{.Labels.z}}{{end}}"),
            "1<no value>\n"
        );
    }

    #[test]
    fn a_map_is_gone_through_by_its_keys() {
        let names = ["b", "a", "d", "c", "f", "e"];
        let labels: Json = names.iter().map(|n| ((*n).to_owned(), json!(n))).collect();
        let row: Row = json!({"Labels": labels, "L": ["x", "y"], "E": {}, "N": null}).into();
        let show = |format| object(&row, Some(format)).unwrap().unwrap();
        assert_eq!(
            show("{{range $k, $v := .Labels}}{{$k}}={{$v}}{{.}} {{end}}|"),
            "a=aa b=bb c=cc d=dd e=ee f=ff |\n"
        );
        assert_eq!(
            show("{{- range .Labels -}} {{.}} {{- end -}} |"),
            "abcdef|\n"
        );
        assert_eq!(
            show(
                "{{range $i, $x := .L}}{{if $i}},{{end}}{{$x}}{{range $.Labels}}{{.}}{{end}}{{end}}"
            ),
            "xabcdef,yabcdef\n"
        );
        assert_eq!(show("{{range .E}}x{{else}}none{{end}}"), "none\n");
        assert_eq!(show("{{range .N}}x{{else}}none{{end}}"), "none\n");
        assert_eq!(show("{{range .L}}{{.}}{{else}}none{{end}}"), "xy\n");
    }

    #[test]
    fn json_is_a_list_or_a_line_each() {
        for format in ["json", " json "] {
            assert_eq!(JsonForm::of(format), Some(JsonForm::Whole), "{format}");
        }
        for format in ["{{json .}}", "{{ json . }}", " {{json  .}} "] {
            assert_eq!(JsonForm::of(format), Some(JsonForm::Lines), "{format}");
        }
        for format in [
            "{{json .Names}}",
            "jsonx",
            "{{json ..}}",
            "{{.}}",
            "{json}",
            "{{json.}}",
        ] {
            assert_eq!(JsonForm::of(format), None, "{format}");
        }
        let lines = show("{{json .}}");
        assert_eq!(
            lines.lines().next(),
            Some(r#"{"ID":"abc","Labels":{"a":"b"},"Names":"one","RunningFor":"1 second ago"}"#)
        );
        assert_eq!(lines.lines().count(), 2);
        let one = object(&rows()[0], Some("{{json .}}")).unwrap();
        assert_eq!(one.as_deref(), lines.split_inclusive('\n').next());
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        let mut row =
            json!({"Names": "a\u{1b}[2Jb", "Labels": {"k\r": ["\u{9b}1m\u{7f}\n"]}, "N": 1});
        let mut when = time("2026-01-02T03:04:05Z");
        tame(&mut when, &[]);
        assert_eq!(when, time("2026-01-02T03:04:05Z"));
        tame(&mut row, &[]);
        let plain =
            json!({"Names": "a\\x1b[2Jb", "Labels": {"k\\x0d": ["\\x9b1m\\x7f\\x0a"]}, "N": 1});
        assert_eq!(row, plain);
    }

    #[test]
    fn unknown_field_is_an_error_with_and_without_rows() {
        let e = LISTING.render(&rows(), Some("{{.Nmes}}")).unwrap_err();
        assert!(e.to_string().contains("Nmes"), "{e}");
        assert!(LISTING.render(&[], Some("{{.Nmes}}")).is_err());
        assert_eq!(LISTING.render(&[], Some("{{.Names}}")).unwrap(), "");
    }

    #[test]
    fn json_function_and_format() {
        assert_eq!(show("{{json .Names}}"), "\"one\"\n\"two\"\n");
        let all: Vec<Json> = serde_json::from_str(&show("json")).unwrap();
        assert_eq!(all[1]["Names"], "two");
    }

    #[test]
    fn table_is_shortened_to_the_terminal() {
        let lines = vec!["short\tlonglonglonglonglonglong\tx".to_owned()];
        let text = align(&lines, Some(30));
        assert_eq!(text, "short       longlonglonglo…  x\n");
        assert!(text.trim_end().chars().count() <= 30);
    }
}
