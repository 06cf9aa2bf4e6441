//! What the gateway wants from the cluster, as a port: it reads its own replica and asks for nothing else. Whoever wires the
//! node connects this to Raft; a test connects it to nothing.

use std::pin::Pin;
use std::time::Duration;

use mcp_model::ids::{Id, NodeId};
use mcp_model::records::ToolList;
use mcp_model::watch::Print;

/// A future behind the port.
pub type PortFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why the cluster could not do it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Nobody leads, or the leader cannot be reached in time.
    #[error("no leader")]
    NoLeader,
    /// That node cannot be reached.
    #[error("node not reached")]
    NotReached,
    /// Too many such requests at once.
    #[error("too many requests")]
    TooMany,
}

/// What a node has seen of a server.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its lists.
    pub list: ToolList,
    /// Who has asked it.
    pub node: NodeId,
    /// What its tools look like; `None`: it did not answer.
    pub prints: Option<Vec<Print>>,
}

impl Report {
    pub(crate) fn of(list: ToolList, node: NodeId, prints: Option<Vec<Print>>) -> Report {
        Report { list, node, prints }
    }
}

/// The rest of the cluster.
pub trait Cluster: Send + Sync + 'static {
    /// Brings this replica's auth view up to an index that the leader gives *after* the call: rule 4 of the guarantee. The
    /// answer is never a verdict on any token; the caller looks again in its own view.
    fn freshen(&self) -> PortFuture<'_, Result<(), Unavailable>>;

    /// Replicates the lists of a server, with what its tools look like.
    fn report_tools(&self, report: Report) -> PortFuture<'_, Result<(), Unavailable>>;

    /// Replicates when tokens were last used, in milliseconds since 1970.
    fn record_token_use(&self, uses: Vec<(Id, u64)>) -> PortFuture<'_, Result<(), Unavailable>>;

    /// The other nodes.
    fn others(&self) -> Vec<NodeId>;

    /// Tells another node what only its gateway understands ([`Gateway::hear`](crate::Gateway::hear)), and waits for its answer,
    /// no longer than `wait`. What was said may have been heard even if there is no answer.
    fn tell(&self, to: NodeId, message: Vec<u8>, wait: Duration) -> PortFuture<'_, Result<Vec<u8>, Unavailable>>;

    /// Whether this node begins to ask upstreams that nobody asks yet. Two nodes may think so for a moment: that costs a probe
    /// and nothing else.
    fn is_prober(&self) -> bool;

    /// Whether a node answered when it was last asked. Wrong in either direction costs a probe and nothing else.
    fn answers(&self, node: NodeId) -> bool;
}
