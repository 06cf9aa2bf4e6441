//! The members of a record as JSON text. Written by hand, because there are two records for every call and most of what stands in
//! them needs no thought: what does is given to the library.

use mcp_model::ids::Id;

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
        if is_plain(text) {
            self.quoted(text);
        } else {
            self.0.push_str(&serde_json::Value::from(text).to_string());
        }
    }

    /// A number, if there is one.
    pub(super) fn number(&mut self, name: &'static str, number: Option<u64>) {
        if let Some(number) = number {
            self.name(name);
            self.0.push_str(itoa::Buffer::new().format(number));
        }
    }

    /// Microseconds as milliseconds with three decimals.
    pub(super) fn ms_of_us(&mut self, name: &'static str, us: u64) {
        self.number(name, Some(us / 1_000));
        self.0.push('.');
        // What was added is below 2,000: the first digit goes.
        self.0.push_str(&itoa::Buffer::new().format(us % 1_000 + 1_000)[1..]);
    }

    /// An id, which needs no escape.
    pub(super) fn id(&mut self, name: &'static str, id: Id) {
        self.name(name);
        self.quoted(id.encode(&mut [0; Id::TEXT_BYTES]));
    }

    fn quoted(&mut self, text: &str) {
        self.0.push('"');
        self.0.push_str(text);
        self.0.push('"');
    }

    /// A hash, in hexadecimal digits.
    pub(super) fn hex(&mut self, name: &'static str, hash: &[u8; 32]) {
        self.name(name);
        self.quoted(std::str::from_utf8(&hex(hash)).unwrap_or_default());
    }
}

/// Whether a text is what JSON writes for it. Told without leaving early, which lets many bytes be looked at together.
fn is_plain(text: &str) -> bool {
    let odd = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    !text.as_bytes().iter().fold(false, |any, byte| any | odd(byte))
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
            line.ms_of_us("ms", 12_005);
            line.id("id", Id::v7(1, [7; 10]));
            json.push('}');
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["text"], text, "{json}");
            assert_eq!(read["number"], u64::MAX);
            assert_eq!(read["hash"], "ab".repeat(32));
            assert_eq!(read["ms"], 12.005);
            assert_eq!(read["id"], Id::v7(1, [7; 10]).to_string());
            assert_eq!(read.as_object().unwrap().len(), 6);
        }
    }
}
