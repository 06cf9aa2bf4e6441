//! A connection to one peer: three lanes of HTTP/2 over mutual TLS, so that a snapshot never delays a lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mcp_model::ids::NodeId;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio_rustls::TlsConnector;

use crate::rpc::{BODY_BYTES_MAX, CLUSTER_HEADER, FROM_HEADER, HEAD_BYTES_HEADER, LEASE_HEADER, TO_HEADER};
use crate::tls::{PeerTls, peer_name};

/// How long a connection may take. On a network that lives it takes a round trip or two.
const CONNECT_WAIT: Duration = Duration::from_millis(500);
/// Messages in a row that may stay unanswered before a connection is given up.
const TIMEOUTS_MAX: u32 = 3;
/// A silent connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(2);

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Why a peer did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("peer {0} cannot be reached: {1}")]
    Unreachable(NodeId, String),
    #[error("peer {0} cannot be connected to: {1}")]
    NotConnected(NodeId, String),
    #[error("peer {0} did not answer in time")]
    Timeout(NodeId),
    #[error("peer {0} refused: {why}", why = why(.1))]
    Refused(NodeId, StatusCode),
    #[error("peer {0} answered nonsense")]
    Nonsense(NodeId),
}

/// What a peer means by a status.
fn why(status: &StatusCode) -> String {
    match *status {
        StatusCode::MISDIRECTED_REQUEST => {
            "it belongs to another cluster, or is another node than this one takes it for".to_owned()
        }
        StatusCode::PRECONDITION_FAILED => {
            "its timers.lease_ms, margin_ms or rho_ppm is not what it is here: they must be the same on every \
             node, so stop all of them to change one"
                .to_owned()
        }
        StatusCode::GONE => "it says that this node was removed from the cluster".to_owned(),
        other => other.to_string(),
    }
}

impl Slot {
    /// The next message connects anew. Whoever holds the lock is connecting already.
    fn forget(&self) {
        self.timeouts.store(0, Ordering::Relaxed);
        if let Ok(mut sender) = self.sender.try_lock() {
            *sender = None;
        }
    }
}

/// Which lane a message takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lane {
    /// Votes, leases, confirmations, small appends.
    Fast,
    /// Snapshots, catching up, and writes on their way to the leader.
    Bulk,
    /// What clients cause: it must not delay what the cluster lives on.
    Calls,
}

/// Who we are and whom we may talk to.
#[derive(Clone)]
pub(crate) struct Badge {
    pub(crate) cluster: String,
    pub(crate) me: NodeId,
    pub(crate) tls: PeerTls,
    /// On which timers this node's leases rest. Peers answer only who has the same.
    pub(crate) lease: String,
    /// Set when a peer says that this node was removed: a reason to ask whether it was.
    pub(crate) turned_away: watch::Sender<bool>,
}

/// The way to one peer. Connects when it is needed and again after a failure.
pub(crate) struct Link {
    badge: Badge,
    to: NodeId,
    address: String,
    fast: Slot,
    bulk: Slot,
    calls: Slot,
}

/// One lane: its connection, and how often in a row it did not answer in time.
#[derive(Default)]
struct Slot {
    sender: Mutex<Option<SendRequest<Body>>>,
    timeouts: AtomicU32,
}

impl Link {
    pub(crate) fn new(badge: Badge, to: NodeId, address: String) -> Link {
        Link {
            badge,
            to,
            address,
            fast: Slot::default(),
            bulk: Slot::default(),
            calls: Slot::default(),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Asks and waits for the answer.
    pub(crate) async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        lane: Lane,
        path: &'static str,
        question: &Q,
        wait: Duration,
    ) -> Result<A, LinkError> {
        let bytes = postcard::to_stdvec(question).map_err(|_| LinkError::Nonsense(self.to))?;
        let body = Full::new(Bytes::from(bytes))
            .map_err(|never| match never {})
            .boxed_unsync();
        let request = self.request(path).body(body);
        let request = request.map_err(|error| LinkError::Unreachable(self.to, error.to_string()))?;
        self.exchange(lane, request, wait).await
    }

    /// Sends a head and then a file's bytes.
    pub(crate) async fn send_file<A: DeserializeOwned>(
        &self,
        path: &'static str,
        head: Vec<u8>,
        file: BoxStream<'static, std::io::Result<Bytes>>,
        wait: Duration,
    ) -> Result<A, LinkError> {
        use futures_util::StreamExt;
        let request = self.request(path).header(HEAD_BYTES_HEADER, head.len().to_string());
        let start = futures_util::stream::once(async move { Ok(Bytes::from(head)) });
        let body = StreamBody::new(start.chain(file).map(|chunk| chunk.map(Frame::data))).boxed_unsync();
        let request = request
            .body(body)
            .map_err(|error| LinkError::Unreachable(self.to, error.to_string()))?;
        self.exchange(Lane::Bulk, request, wait).await
    }

    fn request(&self, path: &'static str) -> http::request::Builder {
        Request::builder()
            .method(Method::POST)
            .uri(format!("https://{}{path}", peer_name(self.to)))
            .header(CLUSTER_HEADER, &self.badge.cluster)
            .header(LEASE_HEADER, &self.badge.lease)
            .header(FROM_HEADER, self.badge.me.to_string())
            .header(TO_HEADER, self.to.to_string())
    }

    async fn exchange<A: DeserializeOwned>(
        &self,
        lane: Lane,
        request: Request<Body>,
        wait: Duration,
    ) -> Result<A, LinkError> {
        let slot = self.slot(lane);
        let exchanged = tokio::time::timeout(wait, self.send(lane, request)).await;
        let bytes = match exchanged {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error @ LinkError::Refused(_, status))) => {
                if status == StatusCode::GONE {
                    self.badge.turned_away.send_replace(true);
                }
                return Err(error);
            }
            Ok(Err(error)) => {
                slot.forget();
                return Err(error);
            }
            Err(_) => {
                // A connection across a cut would be tried for minutes; a slow disk behind a good one is no reason to part.
                if slot.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_MAX {
                    slot.forget();
                }
                return Err(LinkError::Timeout(self.to));
            }
        };
        slot.timeouts.store(0, Ordering::Relaxed);
        postcard::from_bytes(&bytes).map_err(|_| LinkError::Nonsense(self.to))
    }

    async fn send(&self, lane: Lane, request: Request<Body>) -> Result<Bytes, LinkError> {
        let mut sender = self.connected(lane).await?;
        let broken = |error: hyper::Error| LinkError::Unreachable(self.to, error.to_string());
        sender.ready().await.map_err(broken)?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
        let bytes = body
            .map_err(|error| LinkError::Unreachable(self.to, error.to_string()))?
            .to_bytes();
        if status != StatusCode::OK {
            return Err(LinkError::Refused(self.to, status));
        }
        Ok(bytes)
    }

    fn slot(&self, lane: Lane) -> &Slot {
        match lane {
            Lane::Fast => &self.fast,
            Lane::Bulk => &self.bulk,
            Lane::Calls => &self.calls,
        }
    }

    async fn connected(&self, lane: Lane) -> Result<SendRequest<Body>, LinkError> {
        let mut slot = self.slot(lane).sender.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let connected = tokio::time::timeout(CONNECT_WAIT, self.connect()).await;
        let sender = connected.map_err(|_| LinkError::NotConnected(self.to, "no answer".to_owned()))?;
        let sender = sender.map_err(|error| LinkError::NotConnected(self.to, error.to_string()))?;
        *slot = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> std::io::Result<SendRequest<Body>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(peer_name(self.to)).map_err(std::io::Error::other)?;
        let tls = TlsConnector::from(Arc::clone(&self.badge.tls.client))
            .connect(name, stream)
            .await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024);
        let (sender, connection) = builder
            .handshake(TokioIo::new(tls))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a peer connection ended");
            }
        });
        Ok(sender)
    }
}
