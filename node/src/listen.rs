//! Listeners: accepting connections, bounding what a client can make us hold, and draining on the way out.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::Map;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use mcp_gateway::Gateway;
use mcp_model::clock::Clock;
use mcp_raft::Strangers;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::calm::Calm;
use crate::crew::Crew;
use crate::guarded::{Guarded, Patience};
use crate::places::{Mood, Place, Places};
use crate::{linger, proxies};

/// Longest header block, bytes. Longer: 431.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Streams one HTTP/2 connection may have open: what RFC 9113 asks for at least. Each may hold an answer that nobody takes.
const H2_STREAMS_MAX: u32 = 100;
/// Bytes of answers that one HTTP/2 stream may have waiting.
const H2_SEND_BYTES_MAX: usize = 64 * 1024;
/// How long a stopping node lets answers finish.
const DRAIN: Duration = Duration::from_secs(5);
/// The pause after a failed accept: too many open files pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// For its side of the TLS handshake.
    pub(crate) handshake: Duration,
    /// For the first bytes of what it says.
    pub(crate) first_bytes: Duration,
    /// Amid a head or an answer.
    pub(crate) patience: Patience,
    /// For the next request on a connection of HTTP/1, while there are places enough.
    pub(crate) idle: Duration,
    /// How often an HTTP/2 client is asked whether it is there, and how long its answer may take.
    pub(crate) ping: Duration,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            handshake: Duration::from_secs(10),
            first_bytes: Duration::from_secs(10),
            patience: Patience {
                head: Duration::from_secs(10),
                answer: Duration::from_secs(30),
            },
            idle: Duration::from_secs(60),
            ping: Duration::from_secs(20),
        }
    }
}

/// Binds `address`.
pub(crate) async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("the {what} listener cannot bind {address}: is another mcpnode running there?"))
}

/// A listener with what stands in front of its requests.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    /// `None`: plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) places: Arc<Places>,
    pub(crate) waits: Waits,
    pub(crate) clock: Arc<dyn Clock>,
    /// Who serves its connections. `None`: the runtime that serves the door.
    pub(crate) crew: Option<Crew>,
}

impl Door {
    /// A door that waits for clients as long as is usual.
    pub(crate) fn new(
        listener: TcpListener,
        tls: &Option<Arc<ServerConfig>>,
        places: Arc<Places>,
        clock: &Arc<dyn Clock>,
    ) -> Door {
        Door {
            listener,
            tls: tls.clone().map(TlsAcceptor::from),
            places,
            waits: Waits::default(),
            clock: Arc::clone(clock),
            crew: None,
        }
    }

    /// The same door, with threads of its own for its connections.
    pub(crate) fn with_crew(self) -> anyhow::Result<Door> {
        let crew = Crew::start().context("threads for clients cannot be started")?;
        Ok(Door {
            crew: Some(crew),
            ..self
        })
    }
}

/// Serves `router` on a listener until `stop` turns true, then lets what is running finish.
pub(crate) async fn serve(door: Door, answers: impl Answers + 'static, mut stop: watch::Receiver<bool>) {
    let answers: Arc<dyn Answers> = Arc::new(answers);
    let strangers = Strangers::who_are("a client");
    let speakers = Arc::new(Speakers::new(door.waits));
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match door.places.take(from.ip()) {
            Ok(place) => place,
            Err(why) => {
                strangers.turned_away(&*door.clock, from.ip(), &format_args!("connections: {why:?}"));
                continue;
            }
        };
        // Without it a small answer waits for the client's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let service = Service {
            answers: Arc::clone(&answers),
            came: Came {
                from,
                places: Arc::clone(&door.places),
            },
        };
        let (speakers, tls, mood) = (Arc::clone(&speakers), door.tls.clone(), door.places.mood());
        let serve = async move |stream| {
            connection(&speakers, tls, stream, service, mood).await;
            drop::<Place>(place);
        };
        match &door.crew {
            None => drop(tokio::spawn(Calm::new(serve(stream)))),
            Some(crew) => match stream.into_std() {
                Ok(stream) => crew.run(Calm::new(async move {
                    match TcpStream::from_std(stream) {
                        Ok(stream) => serve(stream).await,
                        Err(error) => tracing::warn!(%error, "a connection cannot be served"),
                    }
                })),
                Err(error) => tracing::warn!(%error, "a connection cannot be served"),
            },
        }
    }
    let Door {
        listener, places, crew, ..
    } = door;
    drop(listener);
    if tokio::time::timeout(DRAIN, places.close()).await.is_err() {
        tracing::info!("some answers were still under way when the node stopped");
    }
    drop(crew);
}

/// One connection from its first byte to its last. How a client leaves is the client's business.
async fn connection(
    speakers: &Speakers,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
    service: Service,
    mut mood: watch::Receiver<Mood>,
) {
    let (stream, returned) = linger::lend(stream);
    match tls {
        None => speakers.converse(stream, service, mood).await,
        Some(tls) => {
            let from = service.came.from;
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(speakers.waits.handshake, tls.accept(stream)) => shaken,
                () = worse_than(&mut mood, Mood::Short) => return,
            };
            match shaken {
                Ok(Ok(stream)) => speakers.converse(stream, service, mood).await,
                Ok(Err(error)) => {
                    return tracing::debug!(%from, %error, "a client did not get through the TLS handshake");
                }
                Err(_) => return,
            }
        }
    }
    returned.linger().await;
}

/// Resolves when it stands worse with the listener than that.
async fn worse_than(mood: &mut watch::Receiver<Mood>, than: Mood) {
    if mood.wait_for(|now| *now > than).await.is_err() {
        // The places are gone, and the connection has one.
        std::future::pending().await
    }
}

/// Both versions of HTTP, as we speak them.
struct Speakers {
    waits: Waits,
    http1: http1::Builder,
    /// One request for each connection.
    http1_once: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Speakers {
    fn new(waits: Waits) -> Speakers {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(waits.idle)
            .max_buf_size(HEADER_BYTES_MAX);
        let mut http1_once = http1.clone();
        http1_once.keep_alive(false);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(waits.ping)
            .keep_alive_timeout(waits.ping)
            .max_send_buf_size(H2_SEND_BYTES_MAX)
            .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).expect("32 KiB fits"))
            .max_concurrent_streams(H2_STREAMS_MAX);
        Speakers {
            waits,
            http1,
            http1_once,
            http2,
        }
    }

    /// Hears what a client speaks and answers in the same.
    async fn converse<I>(&self, stream: I, service: Service, mut mood: watch::Receiver<Mood>)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let begun = Guarded::begin(stream, self.waits.patience);
        let begun = tokio::select! {
            begun = tokio::time::timeout(self.waits.first_bytes, begun) => begun,
            // Whoever has said nothing is owed nothing.
            () = worse_than(&mut mood, Mood::Short) => return,
        };
        let Ok(Ok(Some(stream))) = begun else { return };
        let so_far = *mood.borrow();
        let is_http2 = stream.is_http2();
        let io = TokioIo::new(stream);
        match (is_http2, so_far) {
            (true, _) => until_short(self.http2.serve_connection(io, service), mood, so_far).await,
            (false, Mood::Easy) => until_short(self.http1.serve_connection(io, service), mood, so_far).await,
            (false, _) => until_short(self.http1_once.serve_connection(io, service), mood, so_far).await,
        }
    }
}

/// Serves a connection, and no further request on it once it stands worse with the listener than when it began.
async fn until_short<C: GracefulConnection>(connection: C, mut mood: watch::Receiver<Mood>, so_far: Mood) {
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = worse_than(&mut mood, so_far) => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        drop(connection.await);
    }
}

/// What answers the requests of a listener. An object, so that there is one server of each HTTP in the program and not one for
/// everything that can answer.
pub(crate) trait Answers: Send + Sync {
    /// Answers one, of the connection that it came on.
    fn answer(&self, request: hyper::Request<Incoming>, came: &Came) -> Answering;
}

type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What is known of a connection.
#[derive(Clone)]
pub(crate) struct Came {
    from: SocketAddr,
    places: Arc<Places>,
}

impl Answers for Router {
    fn answer(&self, mut request: hyper::Request<Incoming>, came: &Came) -> Answering {
        let from = proxies::client(came.places.trusted(), came.from, request.headers());
        request.extensions_mut().insert(ConnectInfo(from));
        Box::pin(tower_service::Service::call(&mut self.clone(), request).map(|Ok(answer)| answer))
    }
}

/// Whoever asks is known by a token: where from does not matter.
impl Answers for Gateway {
    fn answer(&self, request: hyper::Request<Incoming>, _: &Came) -> Answering {
        let gateway = self.clone();
        Box::pin(async move { gateway.answer(request.map(Body::new)).await })
    }
}

/// What answers, for one connection.
#[derive(Clone)]
struct Service {
    answers: Arc<dyn Answers>,
    came: Came,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Service {
    type Response = Response;
    type Error = Infallible;
    type Future = Map<Answering, fn(Response) -> Result<Response, Infallible>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let is_last = request.headers().contains_key(TRANSFER_ENCODING);
        let answering = self.answers.answer(request, &self.came);
        answering.map(if is_last { last_of_the_connection } else { Ok })
    }
}

/// Where a body in chunks ends is not looked at by [`crate::framing`], so nothing that comes behind it is read as a request.
fn last_of_the_connection(mut answer: Response) -> Result<Response, Infallible> {
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(answer)
}

#[cfg(test)]
mod tests;
