//! Walks over JSON text once, checks it, and says where its values stand. Nothing is built.
//!
//! Every message is read here on its way in and on its way back, so it is written by hand: the general parser went over what stands
//! three objects deep four times. What is JSON is the general parser's to say all the same: the two are compared in tests and by
//! the fuzzer (`wire/json`).

use std::ops::Range;

use crate::limits;

/// Why the text could not be walked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScanFault {
    /// It is not JSON: what was expected, and at which byte.
    Syntax(&'static str, usize),
    /// More than [`limits::DEPTH_MAX`] brackets are open.
    TooDeep,
}

/// Where in the text a value stands.
pub(crate) type Place = Range<usize>;

/// A string: where it stands, quotes included, and whether something in it is escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quoted {
    pub(crate) place: Place,
    pub(crate) escaped: bool,
}

impl Quoted {
    /// What stands between the quotes, as it stands there.
    pub(crate) fn inner(&self) -> Place {
        self.place.start + 1..self.place.end - 1
    }
}

/// A walk over one text.
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn of(text: &'a str) -> Scan<'a> {
        Scan {
            bytes: text.as_bytes(),
            at: 0,
            depth: 0,
        }
    }

    fn wants<T>(&self, what: &'static str) -> Result<T, ScanFault> {
        Err(ScanFault::Syntax(what, self.at))
    }

    /// The next byte that is no white space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(*byte),
            }
        }
        None
    }

    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), ScanFault> {
        if self.peek() != Some(byte) {
            return self.wants(what);
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing may come any more.
    pub(crate) fn end(&mut self) -> Result<(), ScanFault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.wants("the end"),
        }
    }

    /// An object. `member` is called behind each colon with the key, and has to walk over the value.
    pub(crate) fn object<F, E>(&mut self, mut member: F) -> Result<Place, E>
    where
        F: FnMut(&mut Self, &Quoted) -> Result<(), E>,
        E: From<ScanFault>,
    {
        self.take(b'{', "an object")?;
        let start = self.at - 1;
        self.deeper()?;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                if self.peek() != Some(b'"') {
                    return Ok(self.wants("a key")?);
                }
                let key = self.string()?;
                self.take(b':', "a colon")?;
                member(self, &key)?;
                if self.ends(b'}')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(start..self.at)
    }

    /// Any value.
    pub(crate) fn value(&mut self) -> Result<Place, ScanFault> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => return Ok(self.string()?.place),
            Some(b'{') => return self.object(|scan, _| scan.skip()),
            Some(b'[') => self.array()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            Some(b'n') => self.word(b"null")?,
            Some(_) | None => return self.wants("a value"),
        }
        Ok(start..self.at)
    }

    /// Any value, wherever it stands.
    pub(crate) fn skip(&mut self) -> Result<(), ScanFault> {
        self.value().map(|_| ())
    }

    fn deeper(&mut self) -> Result<(), ScanFault> {
        self.depth += 1;
        if self.depth > limits::DEPTH_MAX {
            return Err(ScanFault::TooDeep);
        }
        Ok(())
    }

    /// Behind a value of an object or array: a comma, or its end.
    fn ends(&mut self, bracket: u8) -> Result<bool, ScanFault> {
        let next = self.peek();
        if next != Some(b',') && next != Some(bracket) {
            return self.wants("a comma or the end of an object or array");
        }
        self.at += 1;
        Ok(next == Some(bracket))
    }

    fn array(&mut self) -> Result<(), ScanFault> {
        self.at += 1;
        self.deeper()?;
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                self.value()?;
                if self.ends(b']')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// The string whose first quote is the next byte.
    pub(crate) fn string(&mut self) -> Result<Quoted, ScanFault> {
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at += plain(self.bytes.get(self.at..).unwrap_or_default());
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    let place = start..self.at;
                    return Ok(Quoted { place, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.wants("no control character in a string"),
                None => return self.wants("the end of a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ScanFault> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return self.wants("four hexadecimal digits");
                }
                self.at += 6;
            }
            Some(_) | None => return self.wants("an escape"),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), ScanFault> {
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            // No digit may follow it, and none does where what follows a value is looked at.
            Some(b'0') => self.at += 1,
            Some(_) | None => self.digits()?,
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ScanFault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => self.wants("a digit"),
            digits => {
                self.at += digits;
                Ok(())
            }
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), ScanFault> {
        if !self.bytes[self.at..].starts_with(word) {
            return self.wants("a value");
        }
        self.at += word.len();
        Ok(())
    }
}

/// How many bytes go by before one that means something in a string: a quote, a backslash, or what must not stand there. Eight at a
/// time, because texts are long.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let mut passed = 0;
    for eight in text.chunks_exact(8) {
        let word = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        // A byte is below n exactly if taking n from it borrows into its high bit, which a byte from 0x80 on has anyway. A borrow
        // can mark the bytes above as well: only the lowest mark counts.
        let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGHS;
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let marked = below(word, 0x20) | is(b'"') | is(b'\\');
        if marked != 0 {
            // At most 7.
            return passed + usize::try_from(marked.trailing_zeros() / 8).unwrap_or(0);
        }
        passed += 8;
    }
    let rest = &text[passed..];
    let special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    passed + rest.iter().position(special).unwrap_or(rest.len())
}

/// Whether a text is JSON within the limit of depth.
pub(crate) fn check(text: &str) -> Result<(), ScanFault> {
    let mut scan = Scan::of(text);
    scan.value()?;
    scan.end()
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;

    /// Both parsers' opinion, which has to be one.
    fn is_json(text: &str) -> bool {
        let here = check(text).is_ok();
        assert_eq!(here, serde_json::from_str::<IgnoredAny>(text).is_ok(), "{text:?}");
        here
    }

    #[test]
    fn what_is_json_is_what_the_general_parser_says() {
        let good = [
            "{}",
            " [ ] ",
            "0",
            "-0",
            "-0.0e-0",
            "1E+9",
            "10.25",
            "\"\"",
            "true",
            "false",
            "null",
            "[1,2,[3]]",
            r#"{"a":{"b":[true,null,"c"]},"a":1}"#,
            "\"\u{7f}é世\u{10ffff}\"",
            r#""\u00e9\ud800\"\\\/\b\f\n\r\t""#,
            "\t\n\r {\"a\" : 1 , \"b\":2}\n",
        ];
        for text in good {
            assert!(is_json(text), "{text:?}");
        }
        let bad = [
            "",
            " ",
            "{",
            "}",
            "[",
            "]",
            "[1,]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "{a:1}",
            "{1:1}",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "--1",
            "0x1",
            "1 2",
            "tru",
            "truex",
            "nul",
            "True",
            "\"",
            "\"a",
            "\"\n\"",
            "\"\u{0}\"",
            "\"\\\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\u12g4""#,
            r#""\"#,
            "[1 2]",
            "[\"a\":1]",
            "{\"a\":1 \"b\":2}",
            "{} {}",
            "\u{feff}{}",
            "'a'",
            "NaN",
            "\u{a0}1",
        ];
        for text in bad {
            assert!(!is_json(text), "{text:?}");
        }
    }

    #[test]
    fn a_special_byte_is_found_wherever_it_stands() {
        let specials: Vec<u8> = (0..0x20).chain([b'"', b'\\']).collect();
        for length in 0..40 {
            for filler in [b' ', b'a', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
                let text = vec![filler; length];
                assert_eq!(plain(&text), length);
                for at in 0..length {
                    for special in &specials {
                        let mut text = text.clone();
                        text[at] = *special;
                        assert_eq!(plain(&text), at, "{special} at {at} of {length}, among {filler}");
                    }
                }
            }
        }
    }

    #[test]
    fn one_changed_byte_makes_both_parsers_say_the_same() {
        let text = r#"{"a":[1,-2.5e3,true,null,"x\u0041\n"],"b":{"c":"\\"}, "d" : ""}"#;
        let mut refused = 0;
        for at in 0..text.len() {
            for byte in (0..0x80).filter(|byte| !text.as_bytes()[at].eq(byte)) {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = byte;
                let changed = String::from_utf8(bytes).unwrap();
                refused += usize::from(!is_json(&changed));
            }
        }
        assert!(refused > 1_000, "{refused}");
        for end in 0..text.len() {
            assert!(!is_json(&text[..end]));
        }
    }

    #[test]
    fn depth_is_bounded_for_every_kind_of_bracket() {
        let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            assert_eq!(check(&nested(open, close, limits::DEPTH_MAX)), Ok(()));
            assert_eq!(
                check(&nested(open, close, limits::DEPTH_MAX + 1)),
                Err(ScanFault::TooDeep)
            );
            assert_eq!(check(&nested(open, close, 1_000_000)), Err(ScanFault::TooDeep));
        }
    }
}
