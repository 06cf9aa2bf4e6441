//! The port through which the control plane writes. The node wires it to raft.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use mcp_model::command::{Envelope, Reply};
use mcp_model::ids::{Id, NodeId};
use mcp_model::receipt::Receipt;

/// An answer that is on its way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the caller of a write waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitFor {
    /// If the change takes a right away: until no replica can admit it any more. Otherwise until it is committed.
    Effective,
    /// Until it is committed.
    Committed,
}

/// A write that was carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The log index.
    pub index: u64,
    /// The answer of the state: a refusal is one.
    pub reply: Reply,
    /// Whether it took a right away.
    pub restricts: bool,
    /// If it did and was waited for: the receipt, partial if the time was not enough.
    pub receipt: Option<Receipt>,
}

/// A write without an answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteFailed {
    /// Nobody leads; nothing was changed.
    #[error("the cluster has no leader right now")]
    NoLeader,
    /// It did not come to a proposal; nothing was changed.
    #[error("not proposed: {0}")]
    NotProposed(String),
    /// It may or may not have been carried out. Sending it again with the same id is safe.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
}

/// Part that a node plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberRole {
    /// It votes.
    Voter,
    /// It follows.
    Learner,
}

/// A member as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Which.
    pub id: NodeId,
    /// Its part.
    pub role: MemberRole,
    /// Whether it answers; `None`: this node cannot tell.
    pub reachable: Option<bool>,
    /// How far its log agrees with the leader's; `None`: this node does not lead.
    pub matched_index: Option<u64>,
    /// Whether its state is what most replicas have; `None`: nobody can tell.
    pub alike: Option<bool>,
}

/// How the states of the replicas compared last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared {
    /// The log index.
    pub index: u64,
    /// Rows of this node's state.
    pub rows: u64,
    /// How this node's state stands: `agrees`, `differs`, `disputed` or `open`.
    pub state: &'static str,
}

/// The cluster as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterStatus {
    /// This node.
    pub node: NodeId,
    /// The leader it knows of.
    pub leader: Option<NodeId>,
    /// The term it is in.
    pub term: u64,
    /// How states compared last; `None`: not yet.
    pub compared: Option<Compared>,
    /// The members of the configuration it knows.
    pub members: Vec<Member>,
}

/// Where a node is to stand in the membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It votes.
    Voter,
    /// It follows.
    Learner,
    /// It is no member.
    Gone,
}

/// Which lines of children are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogsWanted {
    /// At most so many of each node, the newest.
    pub tail: usize,
    /// Not older than this, ms since 1970.
    pub since_ms: u64,
    /// Of this node alone.
    pub node: Option<NodeId>,
    /// Of these nodes only what came after the line of this number.
    pub after: Vec<(NodeId, u64)>,
}

/// A line of a child's stderr.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// Rises with every line of its server on its node.
    pub number: u64,
    /// When it was read, ms since 1970.
    pub at_ms: u64,
    /// The session whose child wrote it.
    pub session: Option<Id>,
    /// The line.
    pub text: String,
}

/// What one node has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeLogs {
    /// Which.
    pub node: NodeId,
    /// The lines, and the number of the last one that there is; none: it cannot be reached.
    pub lines: Option<(Vec<LogLine>, u64)>,
}

/// The children of stdio servers, on all nodes.
pub trait Children: Send + Sync + 'static {
    /// What those of a server have written to their stderr.
    fn logs(&self, server: Id, wanted: &LogsWanted) -> Pending<'_, Vec<NodeLogs>>;

    /// The servers that have children somewhere, and whether one of them runs.
    fn running(&self) -> Pending<'_, Vec<(Id, bool)>>;
}

/// Writes, and what only the leader knows.
pub trait Writer: Send + Sync + 'static {
    /// Has a command carried out: here or by the leader. A second write of the same command id gets the answer of the first.
    /// When `limit` passes after the commit of a change that takes a right away, the answer carries a partial receipt.
    fn write(&self, envelope: Envelope, wait: WaitFor, limit: Duration) -> Pending<'_, Result<Written, WriteFailed>>;

    /// An index that covers everything that was acknowledged before this call.
    fn read_index(&self) -> Pending<'_, Result<u64, WriteFailed>>;

    /// The cluster as this node sees it. Answers at once.
    fn cluster_status(&self) -> ClusterStatus;

    /// Asks every member anew whether it answers.
    fn look_around(&self) -> Pending<'_, ()>;

    /// Has another node lead, if `node` does.
    fn step_down(&self, node: NodeId) -> Pending<'_, Result<(), WriteFailed>>;

    /// Waits until the membership has `node` where it is to stand. `false`: not within `limit`.
    fn stands(&self, node: NodeId, standing: Standing, limit: Duration) -> Pending<'_, bool>;
}
