//! What stands between a client's connection and hyper: it knows which HTTP is spoken, lets nothing ambiguous through, and does not
//! wait for ever.
//!
//! Bytes pass through as they are, into hyper's own buffer. When [`Framing`] finds something that must not be let through, hyper gets
//! [`POISON`] in its place, which it refuses itself: with 400, and by closing the connection. A timer exists only while somebody
//! keeps us waiting amid a head or an answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::framing::Framing;

/// What HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Wherever in a head hyper finds this, it refuses the request; the empty line makes it look.
const POISON: &[u8] = b"\0\r\n\r\n";

/// How long a client may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From the first byte of a head to its last.
    pub(crate) head: Duration,
    /// For room for more of an answer.
    pub(crate) answer: Duration,
}

/// A connection whose first bytes have come.
pub(crate) struct Guarded<I> {
    inner: I,
    /// Read to see what is spoken; hyper gets them first.
    first: [u8; PREFACE.len()],
    first_bytes: usize,
    first_given: usize,
    /// `None`: HTTP/2, which says how long everything is.
    framing: Option<Framing>,
    /// What is left of it, once something was refused. Then the connection ends.
    poison: Option<&'static [u8]>,
    patience: Patience,
    head_ends: Option<Pin<Box<Sleep>>>,
    answer_ends: Option<Pin<Box<Sleep>>>,
}

impl<I: AsyncRead + Unpin> Guarded<I> {
    /// Waits for as many bytes as it takes to see what is spoken. `None`: the client left without a word.
    pub(crate) async fn begin(mut inner: I, patience: Patience) -> io::Result<Option<Guarded<I>>> {
        let mut first = [0; PREFACE.len()];
        let mut first_bytes = 0;
        while first_bytes < PREFACE.len() && first[..first_bytes] == PREFACE[..first_bytes] {
            match inner.read(&mut first[first_bytes..]).await? {
                0 if first_bytes == 0 => return Ok(None),
                0 => break,
                read => first_bytes += read,
            }
        }
        let framing = (first[..first_bytes] != PREFACE).then(Framing::new);
        Ok(Some(Guarded {
            inner,
            first,
            first_bytes,
            first_given: 0,
            framing,
            poison: None,
            patience,
            head_ends: None,
            answer_ends: None,
        }))
    }

    /// Whether HTTP/2 is spoken.
    pub(crate) fn is_http2(&self) -> bool {
        self.framing.is_none()
    }

    /// Reads what the client has sent, as it is.
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let first = &self.first[self.first_given..self.first_bytes];
        if first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let part = first.len().min(buf.remaining());
        buf.put_slice(&first[..part]);
        self.first_given += part;
        Poll::Ready(Ok(()))
    }
}

/// Whether a wait that began when this was first asked has been too long.
fn too_long(ends: &mut Option<Pin<Box<Sleep>>>, limit: Duration, cx: &mut Context<'_>) -> Poll<io::Error> {
    let ends = ends.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
    ready!(ends.as_mut().poll(cx));
    Poll::Ready(io::ErrorKind::TimedOut.into())
}

fn give_poison(left: &mut &'static [u8], buf: &mut ReadBuf<'_>) {
    let (now, later) = left.split_at(left.len().min(buf.remaining()));
    buf.put_slice(now);
    *left = later;
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(left) = &mut this.poison {
            give_poison(left, buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = this.read(cx, buf);
        let Some(framing) = &mut this.framing else { return read };
        if read.is_pending() && framing.amid_head() {
            return too_long(&mut this.head_ends, this.patience.head, cx).map(Err);
        }
        ready!(read)?;
        if let Err(good) = framing.follow(&buf.filled()[before..]) {
            buf.set_filled(before + good);
            give_poison(this.poison.insert(POISON), buf);
        } else if !framing.amid_head() {
            this.head_ends = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> Guarded<I> {
    fn waited<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_pending() {
            return too_long(&mut self.answer_ends, self.patience.answer, cx).map(Err);
        }
        self.answer_ends = None;
        wrote
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.waited(cx, wrote)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.waited(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(cx);
        this.waited(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
