//! Where a request of HTTP/1 ends, and what must not leave that open.
//!
//! Two parties that disagree about where a request ends can be made to disagree about who said what. hyper refuses much of what
//! makes them disagree, and not all: it takes a bare line feed for a line end, and of two framings it goes by one. So the bytes
//! are followed here before hyper sees them, with one purpose: what is ambiguous goes no further (RFC 9112, 2.2 and 6.3). What
//! hyper refuses itself (folded lines, spaces before a colon, lengths that are no numbers) is left to it, and so are limits.
//!
//! A body in chunks is not followed: whoever sends one has made the last request of the connection (`listen`), so that nothing
//! that comes behind it is ever taken for a request. No I/O, no clock, no allocation, and no byte is changed.

use memchr::memchr2;

/// The most that is kept of a line that arrives in pieces. A line that says how long a body is, and is longer than this, is refused.
const LINE_BYTES_KEPT: usize = 64;
/// Digits of the longest length. hyper takes two more.
const LENGTH_DIGITS_MAX: usize = 18;

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// A request line, a header, or the empty line at the end of them.
    Head,
    /// A body of which so many bytes are to come.
    Body(u64),
    /// A body in chunks, and whatever comes behind it.
    Unfollowed,
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    at: At,
    /// Whether the request line has been seen.
    requested: bool,
    /// Whether the last byte was a carriage return.
    returned: bool,
    /// The beginning of a line whose end is still to come.
    kept: [u8; LINE_BYTES_KEPT],
    kept_bytes: usize,
    /// What the head has said about the body so far.
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    /// A connection on which nothing was said.
    pub(crate) fn new() -> Framing {
        Framing {
            at: At::Head,
            requested: false,
            returned: false,
            kept: [0; LINE_BYTES_KEPT],
            kept_bytes: 0,
            length: None,
            chunked: false,
        }
    }

    /// Follows the next bytes. An error is how many of them are good: what comes then makes the request ambiguous, and nothing may
    /// be read of this connection any more.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut done = 0;
        while done < bytes.len() {
            done += match self.at {
                At::Unfollowed => return Ok(()),
                At::Body(left) => self.body(left, bytes.len() - done),
                At::Head => self.line(&bytes[done..]).map_err(|good| done + good)?,
            };
        }
        Ok(())
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn amid_head(&self) -> bool {
        self.at == At::Head && (self.requested || self.kept_bytes > 0 || self.returned)
    }

    fn body(&mut self, left: u64, here: usize) -> usize {
        let part = usize::try_from(left).map_or(here, |left| left.min(here));
        // A part is no more than what is left, which is a u64.
        let left = left - u64::try_from(part).expect("it fits");
        self.at = if left == 0 { At::Head } else { At::Body(left) };
        part
    }

    /// The bytes of one line, as far as they are here.
    fn line(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        if self.returned {
            return self.end_of_line(&[], bytes, 0).map(|()| 1);
        }
        let Some(end) = memchr2(b'\r', b'\n', bytes) else {
            self.keep(bytes);
            return Ok(bytes.len());
        };
        if bytes[end] == b'\n' {
            return Err(end);
        }
        if end + 1 == bytes.len() {
            self.keep(&bytes[..end]);
            self.returned = true;
            return Ok(bytes.len());
        }
        self.end_of_line(&bytes[..end], bytes, end + 1).map(|()| end + 2)
    }

    /// The line feed that belongs at `feed`, behind a carriage return; `line` is what of the line was not kept before.
    fn end_of_line(&mut self, line: &[u8], bytes: &[u8], feed: usize) -> Result<(), usize> {
        self.returned = false;
        if bytes[feed] != b'\n' {
            return Err(feed);
        }
        let understood = if self.kept_bytes == 0 {
            self.understand(line)
        } else {
            self.keep(line);
            let kept = self.kept;
            let whole = std::mem::take(&mut self.kept_bytes);
            self.understand(&kept[..whole])
        };
        understood.ok_or(feed)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let part = bytes.len().min(LINE_BYTES_KEPT - self.kept_bytes);
        self.kept[self.kept_bytes..self.kept_bytes + part].copy_from_slice(&bytes[..part]);
        self.kept_bytes += part;
    }

    /// Takes a line to heart, of which everything may be missing beyond what is kept. `None`: it is ambiguous.
    fn understand(&mut self, line: &[u8]) -> Option<()> {
        match (line.first(), self.requested) {
            // An empty line before a request is nothing (RFC 9112, 2.2).
            (None, false) => {}
            (None, true) => self.end_of_head(),
            (Some(_), false) => self.requested = true,
            (Some(b'c' | b'C'), true) => {
                if let Some(value) = value_of(b"content-length", line) {
                    self.length = Some(length(line, value).filter(|_| self.length.is_none() && !self.chunked)?);
                }
            }
            (Some(b't' | b'T'), true) => {
                if let Some(value) = value_of(b"transfer-encoding", line) {
                    let alone = self.length.is_none() && !self.chunked;
                    self.chunked = (alone && value.eq_ignore_ascii_case(b"chunked")).then_some(true)?;
                }
            }
            (Some(_), true) => {}
        }
        Some(())
    }

    fn end_of_head(&mut self) {
        self.at = match (self.chunked, self.length) {
            (true, _) => At::Unfollowed,
            (false, Some(bytes @ 1..)) => At::Body(bytes),
            (false, _) => At::Head,
        };
        self.requested = false;
        self.length = None;
    }
}

/// The value, if the header is of that name.
fn value_of<'a>(name: &[u8], line: &'a [u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len() + 1)?;
    let named = start.ends_with(b":") && start[..name.len()].eq_ignore_ascii_case(name);
    named.then(|| trimmed(value))
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn length(line: &[u8], value: &[u8]) -> Option<u64> {
    let whole = line.len() < LINE_BYTES_KEPT;
    let digits = (1..=LENGTH_DIGITS_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()?
        .parse()
        .ok()
        .filter(|_| whole && digits)
}

#[cfg(test)]
mod tests;
