//! Lines from a pipe, bounded: the framing of MCP over stdio.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Why no line could be read.
#[derive(Debug, thiserror::Error)]
pub enum LineFault {
    /// The pipe failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line was longer than allowed.
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
}

/// Reads lines.
#[derive(Debug)]
pub struct LineReader<R> {
    pipe: R,
    buffer: BytesMut,
    scanned: usize,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// A reader of `pipe` that refuses lines longer than this.
    pub fn new(pipe: R, bytes_max: usize) -> LineReader<R> {
        LineReader {
            pipe,
            buffer: BytesMut::with_capacity(8 << 10),
            scanned: 0,
            bytes_max,
        }
    }

    /// The next line without its end (`\n` or `\r\n`); none at the end of the pipe. A last line without an end counts.
    pub async fn next_line(&mut self) -> Result<Option<Bytes>, LineFault> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
                let end = self.scanned + found;
                self.scanned = 0;
                let mut line = self.buffer.split_to(end).freeze();
                self.buffer.advance(1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return if line.len() > self.bytes_max {
                    Err(LineFault::TooLong(self.bytes_max))
                } else {
                    Ok(Some(line))
                };
            }
            self.scanned = self.buffer.len();
            if self.scanned > self.bytes_max {
                return Err(LineFault::TooLong(self.bytes_max));
            }
            self.buffer.reserve(4 << 10);
            if self.pipe.read_buf(&mut self.buffer).await? == 0 {
                self.scanned = 0;
                let rest = self.buffer.split().freeze();
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
        }
    }

    /// The next line, cut to the limit instead of refused: for text that nobody parses.
    pub async fn next_cut_line(&mut self) -> Result<Option<Bytes>, std::io::Error> {
        let mut kept: Option<BytesMut> = None;
        loop {
            let end = memchr::memchr(b'\n', &self.buffer);
            let taken = self.buffer.split_to(end.unwrap_or(self.buffer.len()));
            if end.is_some() || !taken.is_empty() {
                let kept = kept.get_or_insert_default();
                let room = self.bytes_max.saturating_sub(kept.len());
                kept.extend_from_slice(&taken[..taken.len().min(room)]);
            }
            if end.is_some() {
                self.buffer.advance(1);
                return Ok(kept.map(BytesMut::freeze));
            }
            self.buffer.reserve(4 << 10);
            if self.pipe.read_buf(&mut self.buffer).await? == 0 {
                return Ok(kept.map(BytesMut::freeze));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_end_with_lf_or_crlf_or_the_pipe() {
        let mut reader = LineReader::new(&b"one\r\ntwo\n\nlast"[..], 10);
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().await.unwrap() {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
        }
        assert_eq!(lines, ["one", "two", "", "last"]);
    }

    #[tokio::test]
    async fn a_line_beyond_the_limit_is_refused() {
        let mut reader = LineReader::new(&b"12345678901\n"[..], 10);
        assert!(matches!(reader.next_line().await, Err(LineFault::TooLong(10))));
    }

    #[tokio::test]
    async fn a_long_line_of_plain_text_is_cut() {
        let text = format!("{}\nshort\n", "x".repeat(9000));
        let mut reader = LineReader::new(text.as_bytes(), 10);
        assert_eq!(reader.next_cut_line().await.unwrap().unwrap(), "xxxxxxxxxx");
        assert_eq!(reader.next_cut_line().await.unwrap().unwrap(), "short");
        assert_eq!(reader.next_cut_line().await.unwrap(), None);
    }
}
