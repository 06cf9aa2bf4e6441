//! What peers say to each other, beside openraft's own messages. Postcard over HTTP/2.

use std::time::Duration;

use mcp_model::agreement::StateDigest;
use mcp_model::command::Outcome;
use mcp_model::ids::Incarnation;
use mcp_model::lease::RequestId;
use mcp_model::receipt::Receipt;
use serde::{Deserialize, Serialize};

use crate::types::LogId;

/// Header: the cluster that the caller means.
pub(crate) const CLUSTER_HEADER: &str = "mcp-cluster";
/// Header: on which timers the caller's leases rest.
pub(crate) const LEASE_HEADER: &str = "mcp-lease";
/// Header: the node that the caller means.
pub(crate) const TO_HEADER: &str = "mcp-to";
/// Header: the node that the caller says it is; its certificate must say so too.
pub(crate) const FROM_HEADER: &str = "mcp-from";
/// Header of a snapshot: length of the part before the file, in bytes.
pub(crate) const HEAD_BYTES_HEADER: &str = "mcp-head-bytes";

/// Longest body that is not a snapshot.
pub(crate) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(crate) const APPEND: &str = "/raft/append";
pub(crate) const VOTE: &str = "/raft/vote";
pub(crate) const SNAPSHOT: &str = "/raft/snapshot";
pub(crate) const ASK: &str = "/peer/ask";
pub(crate) const CAMPAIGN: &str = "/peer/campaign";
pub(crate) const RENEW: &str = "/peer/renew";
pub(crate) const READ_INDEX: &str = "/peer/read-index";
pub(crate) const CONFIRM: &str = "/peer/confirm";
pub(crate) const RESIGN: &str = "/peer/resign";
pub(crate) const WRITE: &str = "/peer/write";
pub(crate) const READMIT: &str = "/peer/readmit";
/// What a state hashes to at an index.
pub(crate) const DIGEST: &str = "/peer/digest";
/// Asks the leader for an index at which states are compared.
pub(crate) const COMPARE: &str = "/peer/compare";
pub(crate) const STANDING: &str = "/peer/standing";
pub(crate) const TELL: &str = "/peer/tell";

/// What a node says of itself before somebody campaigns.
pub(crate) type PeerState = mcp_model::campaign::PeerState<LogId>;

/// Asks for a lease.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Renewal {
    pub(crate) incarnation: Incarnation,
    pub(crate) request: RequestId,
}

/// An index that a leader vouches for, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Index {
    At(u64),
    NotLeader,
}

/// Asks a node how far its auth view is, and to wait a little for it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Confirm {
    pub(crate) index: u64,
    pub(crate) wait_ms: u64,
}

/// What a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitFor {
    /// The commit.
    Committed,
    /// Where a right went: that no replica can admit it any more.
    Effective,
}

/// A command on its way to the leader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Write {
    pub(crate) envelope: Vec<u8>,
    pub(crate) wait: WaitFor,
    pub(crate) deadline_ms: u64,
}

/// What became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum WriteAnswer {
    Done {
        outcome: Outcome,
        receipt: Option<Receipt>,
    },
    /// Not proposed: somebody else leads, or nobody.
    NotLeader,
    /// Not proposed: too many are waiting.
    Busy,
    /// It may be in the log or not.
    Unknown,
}

/// What a node says of its state at an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Digested {
    /// This.
    At(StateDigest),
    /// It is not there yet, or is hashing it.
    ToCome,
    /// It has passed it and does not know.
    Never,
}

/// Waits are bounded, and the answer needs time to travel.
pub(crate) const TRAVEL: Duration = Duration::from_millis(500);
