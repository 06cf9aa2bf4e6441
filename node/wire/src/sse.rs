//! Server-sent events: a writer, and a reader with bounds on lines and events.

use bytes::{Buf, Bytes, BytesMut};

/// A comment that keeps a quiet stream open.
pub const COMMENT: &[u8] = b":\n\n";

/// One `message` event around a JSON text.
pub fn event(data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 24);
    out.extend_from_slice(b"event: message\n");
    // A line break in JSON can only be white space between tokens; in an event it would end the line.
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    Bytes::from(out)
}

/// One event as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `event`, `message` if the stream does not say.
    pub name: String,
    /// The data lines, joined by line feeds.
    pub data: Bytes,
    /// `id`, if this event carries one.
    pub id: Option<String>,
}

/// Where and when a stream can be taken up again.
#[derive(Debug, Default)]
struct Again {
    last_id: Option<String>,
    retry_ms: Option<u64>,
}

/// A line or an event was longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {bytes_max} bytes")]
pub struct TooLong {
    /// The limit.
    pub bytes_max: usize,
}

/// Reads events from chunks.
#[derive(Debug)]
pub struct SseReader {
    buffer: BytesMut,
    scanned: usize,
    skip_line_feed: bool,
    began: bool,
    name: Option<String>,
    id: Option<String>,
    /// Few streams say.
    again: Option<Box<Again>>,
    data: Data,
    bytes_max: usize,
}

/// The data of an event so far.
#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    /// Nearly always there is one line, which needs no copy.
    Line(Bytes),
    /// Copied together: a line that is kept by itself may be smaller than what keeps it.
    Lines(BytesMut),
}

impl Data {
    fn bytes(&self) -> usize {
        match self {
            Data::None => 0,
            Data::Line(line) => line.len(),
            Data::Lines(lines) => lines.len(),
        }
    }

    fn push(&mut self, line: Bytes) {
        *self = match std::mem::take(self) {
            Data::None => Data::Line(line),
            Data::Line(first) => Data::joined(BytesMut::from(&first[..]), &line),
            Data::Lines(lines) => Data::joined(lines, &line),
        };
    }

    fn joined(mut lines: BytesMut, line: &[u8]) -> Data {
        lines.reserve(line.len() + 1);
        lines.extend_from_slice(b"\n");
        lines.extend_from_slice(line);
        Data::Lines(lines)
    }
}

impl SseReader {
    /// A reader that refuses events (and lines) longer than this.
    pub fn new(bytes_max: usize) -> SseReader {
        SseReader {
            buffer: BytesMut::new(),
            scanned: 0,
            skip_line_feed: false,
            began: false,
            name: None,
            id: None,
            again: None,
            data: Data::None,
            bytes_max,
        }
    }

    /// The id of the last event that carried one: where the stream can be taken up again.
    pub fn last_id(&self) -> Option<&str> {
        self.again.as_ref()?.last_id.as_deref()
    }

    /// This stream goes on where another one ended, until it says something else.
    pub fn resumes(&mut self, last_id: String, retry_ms: Option<u64>) {
        let again = self.again();
        again.last_id.get_or_insert(last_id);
        again.retry_ms = again.retry_ms.or(retry_ms);
    }

    /// How long to wait before that, if the stream says, in milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        self.again.as_ref()?.retry_ms
    }

    fn again(&mut self) -> &mut Again {
        self.again.get_or_insert_default()
    }

    /// Takes the next chunk of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole event, if the chunks so far hold one. What the stream ends with unfinished is dropped, as the
    /// SSE specification says.
    pub fn next_event(&mut self) -> Result<Option<Event>, TooLong> {
        while let Some(line) = self.next_line()? {
            if let Some(event) = self.take_line(line)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, TooLong> {
        if self.skip_line_feed && !self.buffer.is_empty() {
            self.skip_line_feed = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let Some(found) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]) else {
            self.scanned = self.buffer.len();
            return self.check(self.buffer.len()).map(|()| None);
        };
        let end = self.scanned + found;
        self.check(end)?;
        self.scanned = 0;
        self.skip_line_feed = self.buffer[end] == b'\r';
        let mut line = self.buffer.split_to(end + 1).freeze();
        line.truncate(end);
        if !std::mem::replace(&mut self.began, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.advance(3);
        }
        Ok(Some(line))
    }

    fn check(&self, bytes: usize) -> Result<(), TooLong> {
        if bytes > self.bytes_max {
            Err(TooLong {
                bytes_max: self.bytes_max,
            })
        } else {
            Ok(())
        }
    }

    fn take_line(&mut self, line: Bytes) -> Result<Option<Event>, TooLong> {
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let (field, value) = match memchr::memchr(b':', &line) {
            Some(0) => return Ok(None),
            Some(colon) => {
                let value = line.slice(colon + 1..);
                let value = if value.first() == Some(&b' ') {
                    value.slice(1..)
                } else {
                    value
                };
                (line.slice(..colon), value)
            }
            None => (line, Bytes::new()),
        };
        match &field[..] {
            b"data" => {
                self.data.push(value);
                self.check(self.data.bytes())?;
            }
            b"event" => self.name = Some(String::from_utf8_lossy(&value).into_owned()),
            b"id" if !value.contains(&0) => self.id = Some(String::from_utf8_lossy(&value).into_owned()),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let text = std::str::from_utf8(&value).unwrap_or_default();
                if let Ok(retry_ms) = text.parse() {
                    self.again().retry_ms = Some(retry_ms);
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = self.name.take();
        let id = self.id.take();
        if id.is_some() {
            self.again().last_id.clone_from(&id);
        }
        let data = match std::mem::take(&mut self.data) {
            Data::None => return None,
            Data::Line(line) => line,
            Data::Lines(lines) => lines.freeze(),
        };
        Some(Event {
            name: name.unwrap_or_else(|| "message".to_owned()),
            data,
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reader: &mut SseReader) -> Vec<(String, String)> {
        std::iter::from_fn(|| reader.next_event().unwrap())
            .map(|event| (event.name, String::from_utf8(event.data.to_vec()).unwrap()))
            .collect()
    }

    #[test]
    fn events_are_read_however_the_stream_is_cut() {
        let stream = "\u{feff}: hello\r\nevent: message\r\ndata: {\"a\":\r\ndata:1}\r\n\r\ndata: two\n\nid: 7\ndata\n\nretry: 5\n\nevent:x\rdata:three\r\rdata: unfinished";
        let expected: Vec<(String, String)> = [
            ("message", "{\"a\":\n1}"),
            ("message", "two"),
            ("message", ""),
            ("x", "three"),
        ]
        .map(|(name, data)| (name.to_owned(), data.to_owned()))
        .into();
        for step in 1..stream.len() {
            let mut reader = SseReader::new(1000);
            let mut events = Vec::new();
            for chunk in stream.as_bytes().chunks(step) {
                reader.push(chunk);
                events.extend(all(&mut reader));
            }
            assert_eq!(events, expected, "chunks of {step}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let mut reader = SseReader::new(10);
        reader.push(b"data: 12345678901");
        assert!(reader.next_event().is_err());
        let mut reader = SseReader::new(10);
        reader.push(b"data:1234\ndata:1234\ndata:1234\n\n");
        assert!(reader.next_event().is_err());
    }

    #[test]
    fn empty_lines_of_data_take_no_more_than_they_are() {
        let mut reader = SseReader::new(1000);
        for _ in 0..1001 {
            reader.push(b"data:\n");
            assert_eq!(reader.next_event(), Ok(None));
        }
        assert!(matches!(&reader.data, Data::Lines(lines) if lines.len() == 1000 && lines.capacity() < 4000));
        reader.push(b"data:\n");
        assert!(reader.next_event().is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut reader = SseReader::new(1000);
        reader.push(&event(b"{\"a\":1,\r\n \"b\":2}"));
        reader.push(COMMENT);
        reader.push(&event(b"{}"));
        let events = all(&mut reader);
        let first: serde_json::Value = serde_json::from_str(&events[0].1).unwrap();
        assert_eq!(first, serde_json::json!({"a":1,"b":2}));
        assert_eq!(events[1].1, "{}");
    }

    #[test]
    fn a_stream_says_where_and_when_to_take_it_up_again() {
        let mut reader = SseReader::new(1000);
        assert_eq!((reader.last_id(), reader.retry_ms()), (None, None));
        reader.push(b"id: a\nretry: 500\ndata:\n\ndata: x\n\nretry: soon\nid: b\ndata: unfinished");
        assert_eq!(all(&mut reader).len(), 2);
        // An event that has not arrived whole may have to be sent again.
        assert_eq!((reader.last_id(), reader.retry_ms()), (Some("a"), Some(500)));
    }
}
