//! `-o jsonpath=`: templates as `kubectl` reads them, `{.items[*].metadata.name}`, with RFC 9535 between the braces.

use serde_json::Value;
use serde_json_path::JsonPath;

/// Deepest nesting of `{range}`.
const DEPTH_MAX: usize = 8;

/// A template that was read.
#[derive(Debug)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Path(JsonPath),
    /// `{range PATH}…{end}`: once for each value.
    Each(JsonPath, Vec<Piece>),
}

impl Template {
    /// Reads a template. A path alone may go without braces.
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        if !text.contains('{') {
            return Ok(Template(vec![Piece::Path(path(text)?)]));
        }
        let mut rest = text;
        let pieces = pieces(&mut rest, 0)?;
        Ok(Template(pieces))
    }

    /// What it picks of a value, as text. What is not there is empty.
    pub(crate) fn render(&self, value: &Value) -> String {
        let mut out = String::new();
        render(&self.0, value, &mut out);
        out
    }
}

fn pieces(rest: &mut &str, depth: usize) -> Result<Vec<Piece>, String> {
    if depth > DEPTH_MAX {
        return Err(format!("ranges are nested more than {DEPTH_MAX} deep"));
    }
    let mut found = Vec::new();
    loop {
        let (text, after) = rest.split_once('{').unwrap_or((rest, ""));
        if !text.is_empty() {
            found.push(Piece::Text(text.to_owned()));
        }
        if text.len() == rest.len() {
            *rest = "";
            return if depth == 0 {
                Ok(found)
            } else {
                Err("{range} has no {end}".to_owned())
            };
        }
        let end = closing(after).ok_or("a { has no }")?;
        let inside = after[..end].trim();
        *rest = &after[end + 1..];
        match inside {
            "end" if depth > 0 => return Ok(found),
            "end" => return Err("{end} has no {range}".to_owned()),
            _ => {}
        }
        if let Some(each) = inside.strip_prefix("range ") {
            let each = path(each.trim())?;
            found.push(Piece::Each(each, pieces(rest, depth + 1)?));
        } else if inside.starts_with('"') {
            let text: String = serde_json::from_str(inside).map_err(|_| format!("{inside} is not a text in quotes"))?;
            found.push(Piece::Text(text));
        } else {
            found.push(Piece::Path(path(inside)?));
        }
    }
}

/// Where the brace that was opened is closed; braces in quotes do not count.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            (None, _) => {}
        }
    }
    None
}

/// `.a.b`, `@.a`, `a` and `$.a` are all the same path.
fn path(text: &str) -> Result<JsonPath, String> {
    let text = text.trim();
    let bare = text.strip_prefix(['$', '@']).unwrap_or(text);
    let full = match bare.chars().next() {
        None | Some('.' | '[') => format!("${bare}"),
        Some(_) => format!("$.{bare}"),
    };
    // kubectl's {.} is the value itself.
    let full = if full == "$." { "$" } else { &full };
    JsonPath::parse(full).map_err(|error| format!("{text:?} is no path: {error}"))
}

fn render(pieces: &[Piece], value: &Value, out: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Path(path) => {
                let texts: Vec<String> = path.query(value).all().into_iter().map(shown).collect();
                out.push_str(&texts.join(" "));
            }
            Piece::Each(path, inner) => {
                for value in path.query(value).all() {
                    render(inner, value, out);
                }
            }
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_read_as_kubectl_reads_them() {
        let value = json!({
            "items": [
                {"metadata": {"name": "a"}, "status": "active", "n": 1},
                {"metadata": {"name": "b"}, "status": "revoked", "n": 2},
            ],
            "odd.key": {"x}": true},
        });
        for (template, expected) in [
            ("{.items[*].metadata.name}", "a b"),
            ("{$.items[0].n}", "1"),
            (".items[1].metadata", r#"{"name":"b"}"#),
            ("items[-1:].n", "2"),
            ("{range .items[*]}{.metadata.name}={@.n}{\"\\n\"}{end}", "a=1\nb=2\n"),
            (r#"{.items[?(@.status=="active")].metadata.name}"#, "a"),
            ("{.items[?@.n>1].metadata.name}!", "b!"),
            ("{['odd.key']['x}']}", "true"),
            ("{.nothing.here}", ""),
            ("names: {.items[*].metadata.name}.", "names: a b."),
        ] {
            let read = Template::parse(template).unwrap_or_else(|why| panic!("{template}: {why}"));
            assert_eq!(read.render(&value), expected, "{template}");
        }
        for bad in ["{.items[", "{range .items[*]}x", "{end}", "{.a", "{\"a}", "{..}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
