//! Closing so that the last answer arrives.
//!
//! A request may be refused before its body has been read. If the socket is closed while bytes of that body are still on their way,
//! the system answers them with a reset, and the client may lose the answer that says what was wrong (RFC 9112, 9.6). So what we
//! have to say is said, and what still comes is thrown away for a moment.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How long is listened at most to a client that goes on sending.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it sends is thrown away at most, bytes: a body of the largest size that anything takes, and again.
const LINGER_BYTES_MAX: usize = 8 << 20;

/// A connection that comes back when whoever serves it lets go of it.
pub(crate) struct Lent {
    stream: Option<TcpStream>,
    back: Option<oneshot::Sender<TcpStream>>,
}

/// The connection, once it has come back.
pub(crate) struct Returned(oneshot::Receiver<TcpStream>);

/// Lends a connection.
pub(crate) fn lend(stream: TcpStream) -> (Lent, Returned) {
    let (back, returned) = oneshot::channel();
    let lent = Lent {
        stream: Some(stream),
        back: Some(back),
    };
    (lent, Returned(returned))
}

impl Returned {
    /// Throws away what the client still sends, until it leaves or has been listened to for long enough.
    pub(crate) async fn linger(self) {
        let Ok(mut stream) = self.0.await else { return };
        let mut waste = vec![0; 4096];
        let emptied = async {
            let mut left = LINGER_BYTES_MAX;
            while let Ok(read @ 1..) = stream.read(&mut waste).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
            }
        };
        tokio::time::timeout(LINGER, emptied).await.unwrap_or(());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            // Nobody waits for it: then it is closed.
            drop(back.send(stream));
        }
    }
}

impl Lent {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        let stream = self.get_mut().stream.as_mut();
        Pin::new(stream.expect("it is taken when this is dropped"))
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A client that sends half a body, waits until it is refused and the server has let go, and sends the rest.
    async fn told(linger: bool) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut client = TcpStream::connect(listener.local_addr()?).await?;
        let (stream, _) = listener.accept().await?;
        let (mut lent, returned) = lend(stream);
        client.write_all(&[0; 1000]).await?;
        lent.write_all(b"too much").await?;
        lent.shutdown().await?;
        drop(lent);
        let server = tokio::spawn(async move {
            if linger {
                returned.linger().await;
            }
        });
        if !linger {
            server.await?;
        }
        for _ in 0..100 {
            client.write_all(&[0; 10_000]).await?;
        }
        let mut said = String::new();
        client.read_to_string(&mut said).await?;
        Ok(said)
    }

    #[tokio::test]
    async fn a_client_that_is_refused_amid_its_body_gets_the_answer() {
        assert_eq!(told(true).await.unwrap(), "too much");
        assert!(
            told(false).await.is_err(),
            "closing at once does no harm: the test shows nothing"
        );
    }

    #[tokio::test]
    async fn a_client_that_never_ends_is_not_listened_to_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (lent, returned) = lend(stream);
        drop(lent);
        let sending = tokio::spawn(async move { while client.write_all(&[0; 10_000]).await.is_ok() {} });
        returned.linger().await;
        sending.await.unwrap();
    }
}
