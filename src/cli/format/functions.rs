//! The functions of templates that gtmpl lacks: Go's `html`, `js`, `slice`, `urlquery`, podman's `json`, `lower`,
//! `upper`, `title`, `join`, `split`, `pad`, `truncate`; and how values print.

use std::collections::HashMap;

use gtmpl::{Func, FuncError, Template, Value};
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::cli::human;

/// The key under which a time has its RFC 3339 text: an object with it is a time.
pub(super) const TIME: &str = "\0time";

/// Go's zero time is the year 1; what is older than this is it.
const ZERO: i64 = -62_000_000_000;

/// A time of its RFC 3339 text, with what Go's methods without arguments tell.
pub(super) fn time_value(text: &str) -> Value {
    let time = text.parse::<Timestamp>().ok();
    let seconds = time.map_or(ZERO, Timestamp::as_second);
    let nanos = time.map_or(0, Timestamp::as_nanosecond);
    let parts = [
        (TIME, Value::from(text)),
        ("String", Value::String(go_time(text))),
        ("Unix", Value::from(seconds)),
        (
            "UnixMilli",
            Value::from(time.map_or(0, Timestamp::as_millisecond)),
        ),
        ("UnixNano", Value::from(i64::try_from(nanos).unwrap_or(0))),
        ("IsZero", Value::Bool(seconds <= ZERO)),
    ];
    Value::Object(parts.map(|(name, value)| (name.to_owned(), value)).into())
}

/// As Go prints it.
fn go_time(text: &str) -> String {
    let time = text.parse::<Timestamp>().ok();
    let time = time.filter(|t| t.as_second() > ZERO);
    time.map_or_else(|| "0001-01-01 00:00:00 +0000 UTC".to_owned(), human::date)
}

/// The text of a time.
fn as_time(value: &Value) -> Option<&str> {
    match value {
        Value::Object(map) => match map.get(TIME) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// Go's `%v`.
fn verbatim(value: &Value) -> String {
    if let Some(text) = as_time(value) {
        return go_time(text);
    }
    let pairs = |map: &HashMap<String, Value>, open: &str, close: &str| {
        let mut pairs: Vec<String> = map
            .iter()
            .map(|(k, v)| format!("{k}:{}", verbatim(v)))
            .collect();
        pairs.sort();
        format!("{open}{}{close}", pairs.join(" "))
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(verbatim).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Map(map) => pairs(map, "map[", "]"),
        Value::Object(map) => pairs(map, "{", "}"),
        Value::NoValue => "<no value>".to_owned(),
        Value::Nil => String::new(),
        other => other.to_string(),
    }
}

fn to_json(value: &Value) -> Json {
    if let Some(text) = as_time(value) {
        return text.into();
    }
    match value {
        Value::NoValue | Value::Nil | Value::Function(_) => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::String(s) => Json::String(s.clone()),
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => Json::from(i),
            (_, Some(u), _) => Json::from(u),
            (_, _, f) => Json::from(f.unwrap_or(0.0)),
        },
        Value::Array(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Object(map) | Value::Map(map) => {
            Json::Object(map.iter().map(|(k, v)| (k.clone(), to_json(v))).collect())
        }
    }
}

/// Go's `strings.Title`: the first letter of every word in upper case.
fn title(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => out.push(c),
            false => out.extend(c.to_uppercase()),
        }
        inside = match c.is_ascii() {
            true => c.is_ascii_alphanumeric() || c == '_',
            false => !c.is_whitespace(),
        };
    }
    out
}

/// By their names in a template.
pub(super) const FUNCTIONS: [(&str, Func); 18] = [
    ("label", label),
    ("entries", entries),
    ("show", |args| {
        first("show", args).map(|v| verbatim(v).into())
    }),
    ("json", |args| {
        let value = first("json", args)?;
        Ok(Value::String(to_json(value).to_string()))
    }),
    ("lower", |args| {
        text("lower", args).map(|s| s.to_lowercase().into())
    }),
    ("upper", |args| {
        text("upper", args).map(|s| s.to_uppercase().into())
    }),
    ("title", |args| {
        text("title", args).map(|s| title(&s).into())
    }),
    ("join", |args| match args {
        [Value::Array(items), Value::String(by)] => {
            let items: Vec<String> = items.iter().map(verbatim).collect();
            Ok(Value::String(items.join(by)))
        }
        _ => Err(generic("join needs a list and a separator")),
    }),
    ("split", |args| match args {
        [Value::String(s), Value::String(by)] => Ok(Value::Array(
            s.split(by.as_str())
                .map(|p| Value::String(p.into()))
                .collect(),
        )),
        _ => Err(generic("split needs a text and a separator")),
    }),
    ("pad", |args| {
        let s = text("pad", args)?;
        let count = |i: usize| args.get(i).and_then(number).unwrap_or(0).min(4096);
        let (before, after) = (" ".repeat(count(1)), " ".repeat(count(2)));
        Ok(Value::String(if s.is_empty() {
            s
        } else {
            before + &s + &after
        }))
    }),
    ("truncate", |args| {
        let s = text("truncate", args)?;
        let most = args.get(1).and_then(number).unwrap_or(usize::MAX);
        Ok(Value::String(s.chars().take(most).collect()))
    }),
    ("slice", slice),
    ("html", |args| Ok(escaped(args, html).into())),
    ("js", |args| Ok(escaped(args, js).into())),
    ("urlquery", |args| {
        let bytes = args.iter().map(verbatim).collect::<String>();
        Ok(bytes.bytes().map(query).collect::<String>().into())
    }),
    ("print", |args| built_in("print", args)),
    ("println", |args| built_in("println", args)),
    ("printf", |args| built_in("printf", args)),
];

fn first<'a>(name: &str, args: &'a [Value]) -> Result<&'a Value, FuncError> {
    args.first()
        .ok_or_else(|| FuncError::AtLeastXArgs(name.to_owned(), 1))
}

fn text(name: &str, args: &[Value]) -> Result<String, FuncError> {
    first(name, args).map(verbatim)
}

fn generic(text: &str) -> FuncError {
    FuncError::Generic(text.to_owned())
}

fn number(value: &Value) -> Option<usize> {
    match value {
        Value::Number(n) => n.as_u64().and_then(|n| usize::try_from(n).ok()),
        _ => None,
    }
}

fn label(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [
            Value::Map(labels) | Value::Object(labels),
            Value::String(name),
        ] => {
            let found = labels.get(name).cloned();
            Ok(found.unwrap_or_else(|| String::new().into()))
        }
        _ => Err(FuncError::ExactlyXArgs("label".to_owned(), 2)),
    }
}

/// What `range` goes through; see `actions.rs`.
fn entries(args: &[Value]) -> Result<Value, FuncError> {
    let value = first("range", args)?;
    let list = match value {
        Value::Map(map) | Value::Object(map) if as_time(value).is_none() => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            let one = |(key, value): (&String, &Value)| {
                Value::Map(HashMap::from([(key.clone(), value.clone())]))
            };
            pairs.into_iter().map(one).collect()
        }
        Value::Array(items) if items.is_empty() => Vec::new(),
        Value::Array(_) => vec![value.clone()],
        Value::Nil | Value::NoValue => Vec::new(),
        other => {
            let text = format!("range can't iterate over {}", verbatim(other));
            return Err(FuncError::Generic(text));
        }
    };
    Ok(Value::Array(list))
}

/// `slice TEXT|LIST [FROM [TO]]`.
fn slice(args: &[Value]) -> Result<Value, FuncError> {
    let value = first("slice", args)?;
    let length = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        _ => return Err(generic("slice needs a text or a list")),
    };
    let index = |i: usize, usual| match args.get(i) {
        None => Some(usual),
        Some(value) => number(value),
    };
    let out = || generic("error calling slice: index out of range");
    if args.len() > 3 {
        return Err(generic("slice takes at most three arguments"));
    }
    let range = index(1, 0).ok_or_else(out)?..index(2, length).ok_or_else(out)?;
    match value {
        Value::String(text) => text.get(range).map(Value::from).ok_or_else(out),
        Value::Array(items) => {
            let part = items.get(range).ok_or_else(out)?;
            Ok(Value::Array(part.to_vec()))
        }
        _ => Err(out()),
    }
}

fn escaped(args: &[Value], escape: fn(char) -> String) -> String {
    let text: String = args.iter().map(verbatim).collect();
    text.chars().map(escape).collect()
}

fn html(c: char) -> String {
    match c {
        '\0' => "\u{fffd}".into(),
        '"' => "&#34;".into(),
        '\'' => "&#39;".into(),
        '&' => "&amp;".into(),
        '<' => "&lt;".into(),
        '>' => "&gt;".into(),
        c => c.into(),
    }
}

fn js(c: char) -> String {
    match c {
        '\\' | '\'' | '"' => format!("\\{c}"),
        '<' | '>' | '&' | '=' => format!("\\u{:04X}", u32::from(c)),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.into(),
    }
}

fn query(byte: u8) -> String {
    match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).into(),
        b if b.is_ascii_alphanumeric() => char::from(b).into(),
        b' ' => "+".into(),
        b => format!("%{b:02X}"),
    }
}

/// gtmpl's own, given texts for what it would print in its own way.
fn built_in(name: &str, args: &[Value]) -> Result<Value, FuncError> {
    let texts: Vec<Value> = args
        .iter()
        .map(|value| match value {
            Value::Array(_) | Value::Map(_) | Value::Object(_) => verbatim(value).into(),
            other => other.clone(),
        })
        .collect();
    match Template::default().funcs.get(name) {
        Some(function) => function(&texts),
        None => Err(generic(name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Row, object, time};

    fn show(format: &str) -> Result<String, String> {
        let row: Row = json!({
            "T": time("2026-01-02T03:04:05.5Z"), "Z": time("0001-01-01T00:00:00Z"),
            "S": "<a href='x'>&\"=\n", "Q": "a b/ä~", "L": ["a", "b", "c"], "I": "0123456789abcdef",
            "State": {"T": time("2026-01-02T03:04:05.5Z")},
        })
        .into();
        object(&row, Some(format))
            .map(|text| text.unwrap_or_default())
            .map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn times_print_as_go_does_and_are_rfc_3339_in_json() {
        assert_eq!(show("{{json .T}}").unwrap(), "\"2026-01-02T03:04:05.5Z\"\n");
        assert_eq!(
            show("{{json .State}}").unwrap(),
            "{\"T\":\"2026-01-02T03:04:05.5Z\"}\n"
        );
        assert_eq!(show("{{.Z}}").unwrap(), "0001-01-01 00:00:00 +0000 UTC\n");
        assert_eq!(
            show("{{.T.Unix}} {{.State.T.Unix}}").unwrap(),
            "1767323045 1767323045\n"
        );
        assert_eq!(show("{{.Z.IsZero}} {{.T.IsZero}}").unwrap(), "true false\n");
        let printed = show("{{.T}}").unwrap();
        assert!(
            printed.starts_with("2026-01-0") && printed.contains(":05.5 "),
            "{printed}"
        );
        for other in [
            "{{printf \"%s\" .T}}",
            "{{with .T}}{{.}}{{end}}",
            "{{.State.T}}",
        ] {
            assert_eq!(show(other).unwrap(), printed, "{other}");
        }
    }

    #[test]
    fn go_s_own_functions() {
        for (format, wanted) in [
            ("{{slice .I 0 12}}", "0123456789ab"),
            ("{{slice .I 10}}", "abcdef"),
            ("{{slice .L 1 3}}", "[b c]"),
            ("{{html .S}}", "&lt;a href=&#39;x&#39;&gt;&amp;&#34;=\n"),
            (
                "{{js .S}}",
                "\\u003Ca href\\u003D\\'x\\'\\u003E\\u0026\\\"\\u003D\\u000A",
            ),
            ("{{urlquery .Q}}", "a+b%2F%C3%A4~"),
            ("{{printf \"%s|%v\" .I .L}}", "0123456789abcdef|[a b c]"),
            ("{{index .L 1 | upper}}", "B"),
            (
                "{{title \"two words, o-ne d_e x9y él'a\"}}",
                "Two Words, O-Ne D_e X9y Él'A",
            ),
        ] {
            assert_eq!(show(format).unwrap(), format!("{wanted}\n"), "{format}");
        }
        for bad in [
            "{{slice .I 3 2}}",
            "{{slice .I 0 99}}",
            "{{slice}}",
            "{{range .I}}{{end}}",
        ] {
            assert!(show(bad).is_err(), "{bad}");
        }
    }
}
