//! The data plane: MCP over HTTP at `/projects/<project>/mcp`.
//!
//! It reads its own replica and writes nothing but audit records; what it wants replicated goes to a port it defines
//! ([`cluster`]). It never waits for the control plane. No clock: the time is handed in.
//!
//! A request travels through the modules in this order: [`endpoint`] (what its path serves), [`router`] (host, origin, size), [`bearer`] (shape, hash), [`admit`]
//! (a permit, or a denial), [`protocol`] (a message with its era), [`dispatch`] (handlers, which take a permit), [`lists`] and
//! [`calls`] or [`streams`], [`respond`]. What a client says to a call that runs already goes through [`relay`]. Clients of
//! 2024-11-05 come through [`http_sse`].

pub mod audit;
pub mod cluster;
pub mod limits;
pub mod metrics;

#[doc(hidden)]
pub mod decoders;

mod admit;
mod bearer;
mod body;
mod calls;
mod catalog;
mod childlogs;
mod dispatch;
mod endpoint;
mod forward;
mod guard;
mod http_sse;
mod listening;
mod lists;
mod living;
mod notes;
mod prints;
mod prober;
mod protocol;
mod quotas;
mod relay;
mod respond;
mod router;
mod secrets;
mod session;
mod stateful;
mod streams;
mod upstreams;
mod uses;
mod watches;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use mcp_model::clock::Clock;
use mcp_model::ids::{Id, NodeId};
use mcp_store::Replica;
use mcp_store::seal::Seal;
use mcp_wire::reach::Reach;
use mcp_wire::timers::Timers;
use mcp_wire::upstream::HttpPool;
use rustls::ClientConfig;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use crate::admit::Admission;
use crate::audit::{Audit, AuditError};
use crate::calls::Cancellable;
use crate::catalog::Catalogs;
use crate::childlogs::ChildLogs;
pub use crate::childlogs::{LogLine, LogsWanted, NodeLogs};
use crate::cluster::Cluster;
pub use crate::endpoint::{ENDPOINTS, Part, Serves};
use crate::forward::Forwarded;
use crate::limits::Limits;
use crate::lists::Rendered;
use crate::living::Living;
use crate::metrics::Metrics;
use crate::notes::Notes;
use crate::prober::Prober;
use crate::quotas::Quotas;
use crate::relay::Relay;
use crate::session::Sessions;
pub use crate::upstreams::ServerState;
use crate::upstreams::Upstreams;
use crate::uses::TokenUses;
use crate::watches::Watches;

/// How a gateway is set up.
pub struct GatewayConfig {
    /// This node, for the audit.
    pub node: NodeId,
    /// Seals session ids. The same on every node; never shown.
    pub cluster_key: [u8; 32],
    /// Opens the values of secrets. The same on every node.
    pub seal: Seal,
    /// Where audit segments are kept.
    pub audit_dir: PathBuf,
    /// Hosts that requests may name: `host`, `host:port`, or `*`. Too wide is dangerous: a web page could reach a gateway on
    /// loopback by DNS rebinding.
    pub allowed_hosts: Vec<String>,
    /// Origins besides our own from which web pages may call, or `*`. Too wide is dangerous in the same way.
    pub allowed_origins: Vec<String>,
    /// The program, with its leading arguments, through which commands of stdio servers are started; none: directly, which
    /// leaves children behind when the node is killed.
    pub child_command: Vec<String>,
    /// What upstreams over TLS are trusted by.
    pub tls: Arc<ClientConfig>,
    /// Which addresses upstreams may have. Too wide is dangerous: see [`Reach`].
    pub reach: Reach,
    /// Limits.
    pub limits: Limits,
}

impl GatewayConfig {
    /// The hosts of a gateway that listens on loopback.
    pub fn loopback_hosts() -> Vec<String> {
        ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).into()
    }
}

/// The gateway cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its audit cannot.
    #[error("audit: {0}")]
    Audit(#[from] AuditError),
    /// A limit is outside its range.
    #[error("limits: {0}")]
    Limits(String),
}

/// The gateway of one node.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

/// What requests share.
pub(crate) struct Inner {
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: Admission,
    pub(crate) audit: Arc<Audit>,
    pub(crate) sessions: Sessions,
    pub(crate) catalogs: Catalogs,
    pub(crate) rendered: Rendered,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) quotas: Quotas,
    pub(crate) living: Living,
    pub(crate) notes: Notes,
    pub(crate) cancellable: Cancellable,
    pub(crate) watches: Arc<Watches>,
    /// Streams of the transport of 2024-11-05.
    pub(crate) http_sse: http_sse::Streams,
    pub(crate) relay: Arc<Relay>,
    /// Answers that other nodes pull.
    pub(crate) forwarded: Forwarded,
    /// Of calls that wait for their first frame.
    pub(crate) first_frame: Timers,
    pub(crate) uses: Arc<TokenUses>,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) request_room: Arc<Semaphore>,
    pub(crate) stream_room: Arc<Semaphore>,
    /// In KiB, for larger bodies.
    pub(crate) body_room: Arc<Semaphore>,
    pub(crate) stopping: CancellationToken,
    node: NodeId,
}

impl Gateway {
    /// Opens the gateway on a replica.
    pub fn open(
        config: GatewayConfig,
        replica: Arc<Replica>,
        clock: Arc<dyn Clock>,
        cluster: Arc<dyn Cluster>,
    ) -> Result<Gateway, GatewayError> {
        let limits = config.limits;
        if let Some(fault) = limits.fault() {
            return Err(GatewayError::Limits(fault));
        }
        let metrics = Arc::new(Metrics::default());
        let audit = Audit::open(&config.audit_dir, config.node, clock.clone(), metrics.clone(), &limits)?;
        let admission = Admission::new(
            replica.clone(),
            clock.clone(),
            cluster.clone(),
            metrics.clone(),
            &limits,
        );
        let pool = HttpPool::new(config.tls, config.reach);
        let logs = ChildLogs::new(clock.clone());
        let upstreams = Upstreams::new(replica.clone(), config.seal, pool, config.child_command, logs, limits);
        let notes = Notes::new(clock.wall_ms());
        let inner = Inner {
            replica,
            clock,
            cluster,
            limits,
            metrics,
            admission,
            audit: Arc::new(audit),
            sessions: Sessions::new(
                config.node,
                &config.cluster_key,
                limits.session_ms,
                limits.ended_sessions_max,
            ),
            catalogs: Catalogs::new(limits.name_bytes_max),
            rendered: Rendered::new(&limits),
            upstreams: Arc::new(upstreams),
            quotas: Quotas::new(limits.quotas),
            living: Living::default(),
            notes,
            cancellable: Cancellable::default(),
            watches: Arc::default(),
            http_sse: http_sse::Streams::new(config.node),
            forwarded: Forwarded::default(),
            relay: Arc::new(Relay::new(config.node, &config.cluster_key)),
            first_frame: Timers::new(Duration::from_millis(limits.first_frame_ms)),
            uses: Arc::default(),
            allowed_hosts: config.allowed_hosts,
            allowed_origins: config.allowed_origins,
            request_room: Arc::new(Semaphore::new(limits.requests_max)),
            stream_room: Arc::new(Semaphore::new(limits.streams_max)),
            body_room: Arc::new(Semaphore::new(limits.bodies_bytes_max / body::KIB)),
            stopping: CancellationToken::new(),
            node: config.node,
        };
        Ok(Gateway { inner: Arc::new(inner) })
    }

    /// What answers at its listener. The accept loop sets TCP_NODELAY and bounds the header block (32 KiB).
    pub fn router(&self) -> Router {
        router::router(self.inner.clone())
    }

    /// Answers one request, as [`Gateway::router`] does.
    pub async fn answer(&self, request: Request) -> Response {
        router::answer(State(self.inner.clone()), request).await
    }

    /// Runs what happens in the background (probes, syncing the audit, uses of tokens) until `stop`; then takes in no more
    /// requests, ends streams, closes upstreams and syncs the audit.
    pub async fn run(&self, stop: CancellationToken) {
        let inner = &self.inner;
        let synced = CancellationToken::new();
        let audit = tokio::spawn(inner.audit.clone().keep_synced(synced.clone()));
        let prober = Prober {
            node: inner.node,
            replica: inner.replica.clone(),
            clock: inner.clock.clone(),
            cluster: inner.cluster.clone(),
            upstreams: inner.upstreams.clone(),
            metrics: inner.metrics.clone(),
            limits: inner.limits,
        };
        let uses = inner
            .uses
            .clone()
            .run(inner.cluster.clone(), inner.limits.token_use_ms, stop.clone());
        let followed = inner.upstreams.follow(stop.clone());
        let watched = inner.watches.run(
            inner.upstreams.updates(),
            |session, uri| self.tell_elsewhere(session, uri),
            stop.clone(),
        );
        let said = self.pass_on(stop.clone());
        let swept = self.sweep(stop.clone());
        tokio::join!(
            Arc::new(prober).run(stop.clone()),
            uses,
            followed,
            watched,
            said,
            swept,
            stop.cancelled()
        );
        inner.stopping.cancel();
        inner.upstreams.close().await;
        synced.cancel();
        if let Err(error) = audit.await {
            tracing::error!(%error, "audit task failed");
        }
    }

    /// Hears what another node's gateway said ([`Cluster::tell`]), and answers. Nothing, where it cannot be understood.
    pub async fn hear(&self, message: &[u8]) -> Vec<u8> {
        let heard = http_sse::hear(&self.inner, message).or_else(|| childlogs::hear(&self.inner, message));
        let heard = match heard {
            Some(answer) => Some(answer),
            None => forward::hear(&self.inner, message).await,
        };
        match heard {
            Some(answer) => answer,
            None => relay::hear(&self.inner, message).await,
        }
    }

    /// Lets go of sessions that were abandoned, and of counters that nobody needs, until told to stop.
    async fn sweep(&self, stop: CancellationToken) {
        let inner = &self.inner;
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(inner.limits.sweep_ms)) => {}
                () = stop.cancelled() => return,
            }
            inner.living.sweep(inner.clock.wall_ms());
            inner.quotas.sweep(inner.clock.reading());
            inner.notes.sweep(inner.clock.wall_ms(), inner.limits.session_ms);
            let is_gone = |owner: u128| {
                let session = Id::from_u128(owner);
                !inner.living.knows(session) && !inner.http_sse.holds(session)
            };
            inner.upstreams.end_owned(is_gone).await;
        }
    }

    /// Passes on what servers say in the sessions of one client, to whichever node holds that client's stream, until told to stop.
    async fn pass_on(&self, stop: CancellationToken) {
        let mut said = self.inner.upstreams.said();
        loop {
            let said = tokio::select! {
                () = stop.cancelled() => return,
                said = said.recv() => said,
            };
            match said {
                Ok((server, said)) => relay::said(&self.inner, server, said),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "log messages were not passed on: too many at once");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Sessions that were used here lately.
    pub fn sessions(&self) -> usize {
        self.inner.living.count()
    }

    /// Tells the other nodes of a resource that a session watches.
    fn tell_elsewhere(&self, session: Id, uri: Arc<str>) {
        let inner = self.inner.clone();
        tokio::spawn(async move { relay::changed(&inner, session, &uri).await });
    }

    /// Takes in no more requests and ends streams; calls under way go on.
    pub fn drain(&self) {
        self.inner.stopping.cancel();
    }

    /// Its counters.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.inner.metrics.clone()
    }

    /// How the servers are doing on this node.
    pub fn server_states(&self) -> Vec<ServerState> {
        self.inner.upstreams.states()
    }

    /// What the children of a server have written to their stderr, on every node that is wanted.
    pub async fn server_logs(&self, server: Id, wanted: &LogsWanted) -> Vec<NodeLogs> {
        childlogs::gather(&self.inner, server, wanted).await
    }

    /// The servers that have children somewhere, and whether one of them runs.
    pub async fn running_children(&self) -> Vec<(Id, bool)> {
        childlogs::running(&self.inner).await
    }

    /// Calls and streams that are open now.
    pub fn open_requests(&self) -> usize {
        let used = |room: &Semaphore, most: usize| most.saturating_sub(room.available_permits());
        used(&self.inner.request_room, self.inner.limits.requests_max)
            + used(&self.inner.stream_room, self.inner.limits.streams_max)
    }
}
