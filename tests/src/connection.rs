//! An HTTP/1.1 connection that sends prepared bytes and reads whole answers: as little work per request as a client can do.

use anyhow::{Context, bail};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, until the next one is read.
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    head: &'a [u8],
    /// Everything behind the head; chunk sizes of a chunked body are still in it.
    pub body: &'a [u8],
}

/// How an answer's end is found.
enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(address: &str) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("{address} does not answer"))?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
        })
    }

    /// Sends a whole request and reads the whole answer.
    pub async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let (head_end, framing) = loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break (end + 4, framing(&self.buffer[..end + 4])?);
            }
            self.fill().await?;
        };
        match framing {
            Framing::Length(length) => {
                while self.buffer.len() < head_end + length {
                    self.fill().await?;
                }
            }
            Framing::Chunked => {
                let mut at = head_end;
                loop {
                    match chunks_end(&self.buffer, &mut at)? {
                        true => break,
                        false => self.fill().await?,
                    }
                }
            }
        }
        let (head, body) = self.buffer.split_at(head_end);
        let status = std::str::from_utf8(&head[9..12])
            .ok()
            .and_then(|code| code.parse().ok());
        Ok(Answer {
            status: status.context("no HTTP status")?,
            head,
            body,
        })
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.buffer.len() > ANSWER_BYTES_MAX {
            bail!("an answer of more than {ANSWER_BYTES_MAX} bytes");
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => bail!("the connection was closed in the middle of an answer"),
            _ => Ok(()),
        }
    }
}

impl Answer<'_> {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(self.head).ok()?;
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }

    /// Whether the body holds these bytes.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        memmem::find(self.body, bytes).is_some()
    }

    /// The JSON object in the body, whether it came plain, in chunks or as the data of an event.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        let unchunked = match self.header("transfer-encoding") {
            Some("chunked") => unchunk(self.body)?,
            _ => self.body.to_vec(),
        };
        let text = std::str::from_utf8(&unchunked)?;
        let json = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("data:"))
            .unwrap_or(text);
        serde_json::from_str(json.trim()).with_context(|| format!("HTTP {}: no JSON: {text:.300}", self.status))
    }
}

fn framing(head: &[u8]) -> anyhow::Result<Framing> {
    let head = std::str::from_utf8(head)?;
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(Framing::Length(value.trim().parse()?));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(Framing::Chunked);
        }
    }
    // 204 and 304 have neither; nothing else that is asked here may be without.
    Ok(Framing::Length(0))
}

/// Moves `at` behind every whole chunk; true once the last one was seen.
fn chunks_end(buffer: &[u8], at: &mut usize) -> anyhow::Result<bool> {
    while let Some((size, start)) = chunk(buffer, *at)? {
        let end = start + size + 2;
        if buffer.len() < end {
            return Ok(false);
        }
        if size == 0 {
            return Ok(true);
        }
        *at = end;
    }
    Ok(false)
}

/// The size of the chunk at `at`, and where its data begins.
fn chunk(buffer: &[u8], at: usize) -> anyhow::Result<Option<(usize, usize)>> {
    let rest = buffer.get(at..).unwrap_or_default();
    let Some(line) = memmem::find(rest, b"\r\n") else {
        return Ok(None);
    };
    let size = std::str::from_utf8(&rest[..line])?;
    let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("bad chunk size {size:?}"))?;
    Ok(Some((size, at + line + 2)))
}

fn unchunk(body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (mut whole, mut at) = (Vec::with_capacity(body.len()), 0);
    while let Some((size, start)) = chunk(body, at)? {
        let Some(data) = body.get(start..start + size) else {
            bail!("a chunk is cut short")
        };
        if size == 0 {
            break;
        }
        whole.extend_from_slice(data);
        at = start + size + 2;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_chunks_is_found_however_they_arrive() {
        let body = b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
        for cut in 0..body.len() {
            let mut at = 0;
            assert!(!chunks_end(&body[..cut], &mut at).unwrap(), "{cut}");
            assert!(chunks_end(body, &mut at).unwrap(), "{cut}");
        }
        assert_eq!(unchunk(body).unwrap(), b"hello!");
    }

    #[test]
    fn the_answer_in_an_event_is_read() {
        let answer = Answer {
            status: 200,
            head: b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
            body: b"event: message\ndata: {\"a\":1}\n\n",
        };
        assert_eq!(answer.json().unwrap()["a"], 1);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    }
}
