//! What others hand to a node and what it says of itself: no openraft in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mcp_model::ids::NodeId;
use mcp_model::timers::{Timers, TimersUnfit};
use mcp_store::StoreError;
use mcp_store::log::LogError;

use crate::disk::DiskLimits;

/// Entries of log after which a snapshot is due, as a rule.
pub const SNAPSHOT_ENTRIES: u64 = 10_000;
/// Entries that stay behind a snapshot for those who lag, as a rule.
pub const KEPT_ENTRIES: u64 = 1_000;
/// How often replicas compare their states, as a rule.
pub const COMPARE_EVERY: Duration = Duration::from_secs(5 * 60);

/// What a node needs to start.
pub struct NodeOptions {
    /// Names the cluster in every message.
    pub cluster: String,
    /// This node.
    pub me: NodeId,
    /// Leases and elections.
    pub timers: Timers,
    /// Entries of log after which a snapshot is due: [`SNAPSHOT_ENTRIES`] but in tests.
    pub snapshot_entries: u64,
    /// Entries that stay behind a snapshot for those who lag: [`KEPT_ENTRIES`] but in tests.
    pub kept_entries: u64,
    /// How often replicas compare their states.
    pub compare_every: Duration,
    /// Where snapshots go.
    pub snapshots: PathBuf,
    /// When the disk is no longer good enough to lead and to be ready.
    pub disk: DiskLimits,
    /// Free bytes where the data is; `None` if nobody can say.
    pub free_bytes: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Draws numbers: jitter.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// A first voter of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// `host:port` of its peer listener.
    pub address: String,
}

/// Whether a cluster has begun.
#[derive(Debug, Clone)]
pub enum Begun {
    /// Just now, with this node.
    Here,
    /// Before, with this node.
    Already,
    /// Before, with this other member and without this node: it begins no second one.
    Elsewhere(Member),
    /// Nobody knows: these do not answer, and each of them may be in a cluster already. Nothing was begun.
    Unknown(Vec<Member>),
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The timers cannot work together.
    #[error(transparent)]
    Timers(#[from] TimersUnfit),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This node lost its log, and the cluster does not want it back.
    #[error("this node lost its log and cannot return: {0}")]
    NotReadmitted(String),
    /// Consensus refuses to begin.
    #[error("consensus cannot start: {0}")]
    Raft(String),
}

/// Where the cluster is, as this node sees it.
#[derive(Debug, Clone)]
pub struct Status {
    /// This node.
    pub me: NodeId,
    /// Who leads, if anybody.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Index of the last log entry.
    pub last_log: u64,
    /// Index up to which the auth view is complete.
    pub auth_index: u64,
    /// Everybody in the configuration.
    pub members: Vec<MemberStatus>,
}

/// One node of the configuration.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// `host:port` of its peer listener.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Index up to which the leader knows its log to match. Known on the leader only.
    pub matched: Option<u64>,
}

/// How a state stands to that of the other replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// Most replicas have the same.
    Agrees,
    /// Most replicas have another.
    Differs,
    /// Replicas differ, and no state has a majority.
    Disputed,
    /// Too few have answered.
    Open,
}

/// What the last comparison of states has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// At which index of the log.
    pub index: u64,
    /// Rows of this node's state there.
    pub rows: u64,
    /// How this node's state stands.
    pub likeness: Likeness,
    /// Who has what most have, of those who have answered. Empty if no state has a majority.
    pub members: BTreeMap<NodeId, bool>,
}
