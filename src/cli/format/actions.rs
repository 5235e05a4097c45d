//! Rewriting a template's actions into what gtmpl has.
//!
//! - What is printed goes through `show`: lists, maps and times print as Go's `%v` does.
//! - `range` goes through `entries`: gtmpl goes through a map in no order, and always through `else`.
//!   `{{range $k, $v := X}}A{{else}}B{{end}}` becomes
//!   `{{with entries (X)}}{{range .}}{{range $k, $v := .}}A{{end}}{{end}}{{else}}B{{end}}`,
//!   where `entries` makes a list of maps of one entry each, sorted, of a map; of a list a list with that
//!   list in it, so that its indices stay; and of nothing an empty one.
//! - gtmpl has no methods with arguments; podman's only one is `.Label "name"`.

/// `text` with its actions rewritten and what is between them passed through `between`.
pub(super) fn rewrite(text: &str, between: fn(&str) -> String) -> String {
    let mut out = String::with_capacity(2 * text.len());
    // The blocks that are open; true: a range before its `else`.
    let mut blocks: Vec<bool> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let (before, action) = rest.split_at(at + 2);
        let Some(end) = end_of(action) else {
            break;
        };
        out.push_str(&between(&before[..at]));
        let (inside, after) = action.split_at(end);
        out.push_str(&one(inside, &mut blocks));
        rest = &after[2..];
    }
    out + &between(rest)
}

/// Where the `}}` is that ends the action at the beginning of `text`.
fn end_of(text: &str) -> Option<usize> {
    if text.trim_start_matches(['-', ' ']).starts_with("/*") {
        let end = text.find("*/")?;
        return Some(end + text[end..].find("}}")?);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            Some('"' | '\'') if c == '\\' => escaped = true,
            Some(q) if q == c => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    // A quote that is not closed is for the parser to tell.
    text.find("}}")
}

/// An action, with its braces.
fn one(inside: &str, blocks: &mut Vec<bool>) -> String {
    let blank = char::is_whitespace;
    let (open, inside) = match inside.strip_prefix('-').filter(|i| i.starts_with(blank)) {
        Some(inside) => ("{{- ", inside),
        None => ("{{", inside),
    };
    let (inside, close) = match inside.strip_suffix('-').filter(|i| i.ends_with(blank)) {
        Some(inside) => (inside, " -}}"),
        None => (inside, "}}"),
    };
    let plain = inside.trim();
    let word = plain.split(|c: char| !c.is_ascii_alphanumeric()).next();
    let text = match word.unwrap_or_default() {
        "range" => {
            blocks.push(true);
            let (variables, pipe) = declared(plain["range".len()..].trim());
            format!("with entries ({pipe})}}}}{{{{range .}}}}{{{{range {variables}.")
        }
        "end" if blocks.pop() == Some(true) => "end}}{{end}}{{end".to_owned(),
        "else" if plain == "else" && blocks.last() == Some(&true) => {
            blocks.pop();
            blocks.push(false);
            "end}}{{end}}{{else".to_owned()
        }
        "if" | "with" | "block" | "define" => {
            blocks.push(false);
            labels(plain)
        }
        "end" | "else" | "template" | "break" | "continue" => labels(plain),
        _ => printed(plain),
    };
    format!("{open}{text}{close}")
}

/// `$k, $v := ` and what is gone through.
fn declared(text: &str) -> (String, &str) {
    let names = |vars: &str| {
        vars.starts_with('$')
            && vars
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '$' | ',' | '_' | ' '))
    };
    match text.split_once(":=") {
        Some((variables, pipe)) if names(variables) => {
            (format!("{} := ", variables.trim()), pipe.trim())
        }
        _ => (String::new(), text),
    }
}

fn labels(text: &str) -> String {
    text.replace(".Label \"", "label .Labels \"")
}

/// An action that prints what it comes to, unless it sets a variable.
fn printed(plain: &str) -> String {
    let field = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '$');
    let sets = plain.starts_with('$') && {
        let rest = plain.trim_start_matches(field).trim_start();
        rest.starts_with(":=") || rest.starts_with('=')
    };
    if plain.is_empty() || plain.starts_with("/*") || sets {
        return labels(plain);
    }
    if plain.starts_with(['.', '$']) && plain.chars().all(field) {
        return format!("show {plain}");
    }
    format!("{} | show", labels(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        rewrite(text, str::to_owned)
    }

    #[test]
    fn actions_are_told_from_text() {
        for (text, wanted) in [
            ("a{{.B}}c", "a{{show .B}}c"),
            ("{{- .B -}}", "{{- show .B -}}"),
            ("{{json .B}}", "{{json .B | show}}"),
            (r#"{{"}}"}}x"#, r#"{{"}}" | show}}x"#),
            (r#"{{print "\"}}" .}}"#, r#"{{print "\"}}" . | show}}"#),
            ("{{$x := .B}}{{$x}}", "{{$x := .B}}{{show $x}}"),
            ("{{/* }} */}}x", "{{/* }} */}}x"),
            ("{{if .A}}b{{else}}c{{end}}", "{{if .A}}b{{else}}c{{end}}"),
            (r#"{{.Label "a"}}"#, r#"{{label .Labels "a" | show}}"#),
            ("{{.A", "{{.A"),
        ] {
            assert_eq!(show(text), wanted);
        }
    }

    #[test]
    fn a_range_becomes_three_blocks() {
        assert_eq!(
            show("{{- range $k,$v := .A -}}{{if $k}}{{end}}{{- else}}n{{end -}}"),
            "{{- with entries (.A)}}{{range .}}{{range $k,$v := . -}}{{if $k}}{{end}}\
             {{- end}}{{end}}{{else}}n{{end -}}"
        );
        assert_eq!(
            show("{{range .}}{{.}}{{end}}"),
            "{{with entries (.)}}{{range .}}{{range .}}{{show .}}{{end}}{{end}}{{end}}"
        );
    }
}
