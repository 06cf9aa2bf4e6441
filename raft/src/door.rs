//! The door of the peers' listener: where a machine that is not in the cluster yet asks to be let in.
//!
//! It has no certificate, so it speaks a protocol of its own (ALPN), which leads here and nowhere else. What is asked and
//! answered is not consensus' business: the node hands in a [`Doorkeeper`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::lobby::Seat;
use crate::node::Core;

/// Where a machine asks to be let in.
pub const JOIN_PATH: &str = "/join";
/// Longest question.
const QUESTION_BYTES_MAX: usize = 64 * 1024;
/// How long a guest may stay.
const STAY: Duration = Duration::from_secs(30);
/// How long it may take to ask.
const QUESTION_WAIT: Duration = Duration::from_secs(5);
/// Guests at a time, and of one address. Whoever has not asked yet makes room for others; when all have, others are sent away.
pub(crate) const GUESTS_MAX: usize = 8;
pub(crate) const GUESTS_SHARE: usize = 2;

/// An answer that is on its way: a status and a body.
pub type Answering<'a> = Pin<Box<dyn Future<Output = (StatusCode, Bytes)> + Send + 'a>>;

/// Decides who is let in.
pub trait Doorkeeper: Send + Sync + 'static {
    /// Answers somebody at this address, whose connection is encrypted and who has proven nothing yet.
    fn answer(&self, from: SocketAddr, question: Bytes) -> Answering<'_>;
}

/// Serves one guest.
pub(crate) async fn serve(core: Arc<Core>, stream: TlsStream<TcpStream>, from: SocketAddr) {
    let Some((seat, shown_out)) = core.guests.enter(from.ip()) else {
        return tracing::warn!(%from, "a machine that asked to join was sent away: too many at once");
    };
    let (stopping, seat) = (Arc::clone(&core), Arc::new(seat));
    let service = hyper::service::service_fn(move |request| {
        let (core, seat) = (Arc::clone(&core), Arc::clone(&seat));
        async move { Ok::<_, std::convert::Infallible>(answer(&core, &seat, from, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(QUESTION_WAIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = tokio::time::timeout(STAY, connection) => if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "a guest's connection ended");
        },
        () = shown_out.come() => tracing::debug!(%from, "a guest that did not ask made room for another"),
        () = stopping.stopped() => {}
    }
}

async fn answer(core: &Core, seat: &Seat, from: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let asked = tokio::time::timeout(QUESTION_WAIT, question(core, request)).await;
    let (status, body) = match asked.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT)) {
        Ok((keeper, question)) => {
            seat.may_stay();
            keeper.answer(from, question).await
        }
        Err(status) => (status, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}

async fn question(core: &Core, request: Request<Incoming>) -> Result<(Arc<dyn Doorkeeper>, Bytes), StatusCode> {
    if request.method() != Method::POST || request.uri().path() != JOIN_PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    let keeper = core.doorkeeper.get().cloned().ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let body = Limited::new(request.into_body(), QUESTION_BYTES_MAX).collect().await;
    Ok((keeper, body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes()))
}
