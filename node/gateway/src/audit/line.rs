//! The members of a record as JSON text. Written by hand, because there are two records for every call and most of what stands in
//! them needs no thought: what does is given to the library.

use std::fmt::{Display, Write as _};

use super::chain::hex;

/// What has members to write, at least one.
pub(super) trait Members {
    /// Writes them in their order.
    fn write(&self, line: &mut Line<'_>);
}

/// A line that is being written.
pub(super) struct Line<'a>(&'a mut String);

impl<'a> Line<'a> {
    /// Goes on behind what is in `text`.
    pub(super) fn after(text: &'a mut String) -> Line<'a> {
        Line(text)
    }

    fn name(&mut self, name: &'static str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// A text, whatever is in it.
    pub(super) fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        } else {
            self.0.push_str(&serde_json::Value::from(text).to_string());
        }
    }

    /// A number, if there is one.
    pub(super) fn number(&mut self, name: &'static str, number: Option<u64>) {
        if let Some(number) = number {
            self.shown_bare(name, number);
        }
    }

    /// A hash, in hexadecimal digits.
    pub(super) fn hex(&mut self, name: &'static str, hash: &[u8; 32]) {
        self.name(name);
        self.0.push('"');
        self.0.push_str(std::str::from_utf8(&hex(hash)).unwrap_or_default());
        self.0.push('"');
    }

    /// As people write it, which needs no escape.
    pub(super) fn shown(&mut self, name: &'static str, what: impl Display) {
        self.name(name);
        // Into a string: nothing can go wrong.
        write!(self.0, "\"{what}\"").unwrap_or_default();
    }

    /// The same without quotes: a number.
    pub(super) fn shown_bare(&mut self, name: &'static str, what: impl Display) {
        self.name(name);
        write!(self.0, "{what}").unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_member_a_parser_reads_it_back() {
        let texts = [
            "plain",
            "",
            "a\"b",
            "back\\slash",
            "line\nbreak\u{1}",
            "é 世界 \u{7f}",
            "\u{2028}",
        ];
        for text in texts {
            let mut json = String::from("{\"first\":1");
            let mut line = Line::after(&mut json);
            line.text("text", text);
            line.number("number", Some(u64::MAX));
            line.number("none", None);
            line.hex("hash", &[0xab; 32]);
            line.shown_bare("ms", format_args!("{}.{:03}", 12, 5));
            json.push('}');
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["text"], text, "{json}");
            assert_eq!(read["number"], u64::MAX);
            assert_eq!(read["hash"], "ab".repeat(32));
            assert_eq!(read["ms"], 12.005);
            assert_eq!(read.as_object().unwrap().len(), 5);
        }
    }
}
