//! Texts of others on a terminal: nothing in them steers it, hides, or turns what stands beside it around.

use std::fmt::Write;

use mcp_model::toolnames::is_hidden;

/// A text on one line: controls are blanks, and other characters that nobody sees are shown by their number.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if c.is_control() => out.push(' '),
            _ if is_hidden(c) => write!(out, "<U+{:04X}>", u32::from(c)).unwrap_or_default(),
            _ => out.push(c),
        }
    }
    out
}

/// JSON text with characters that nobody sees written as escapes. They can stand within strings only.
pub fn visible_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut units = [0; 2];
    for c in text.chars() {
        if c == '\n' || !is_hidden(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            write!(out, "\\u{unit:04x}").unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_shown_and_what_steers_a_terminal_is_not_sent_to_it() {
        let rows = [
            ("plain größe 検索", "plain größe 検索"),
            ("a\u{1b}[31mb\nc", "a [31mb c"),
            ("a\u{9b}31mb", "a 31mb"),
            ("safe\u{202e}gpj.exe", "safe<U+202E>gpj.exe"),
            ("a\u{200b}b\u{feff}", "a<U+200B>b<U+FEFF>"),
            ("\u{e0041}", "<U+E0041>"),
        ];
        for (text, expected) in rows {
            assert_eq!(visible(text), expected);
        }
        let value = serde_json::json!({"a": "x\u{202e}y\u{9b}z\u{e0041}\u{1b}", "b": ["é"]});
        let text = visible_json(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        assert!(text.chars().all(|c| c == '\n' || !is_hidden(c)), "{text}");
    }
}
