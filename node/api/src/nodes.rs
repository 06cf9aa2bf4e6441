//! Nodes and the cluster they form.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeBody {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// `host:port` for peers.
    pub peer_address: String,
    /// URL of its API.
    pub api_url: String,
    /// URL of its gateway.
    pub gateway_url: String,
    /// `voter`, `learner` or `unknown`.
    pub role: String,
    /// `leader`, `follower`, `learner`, `unreachable`, `differs` (its state is not what most replicas have) or `unknown`, as the answering node
    /// sees it.
    pub state: String,
    /// When it was registered.
    pub created_at: String,
    /// Log index of its last change, as a decimal string.
    pub resource_version: String,
}

/// The cluster as the answering node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterBody {
    /// Names the cluster.
    pub cluster_id: Option<String>,
    /// The node that answers.
    pub node: String,
    /// The leader it knows of.
    pub leader: Option<String>,
    /// The term it is in.
    pub term: u64,
    /// The log index up to which it has applied, as a decimal string.
    pub applied_index: String,
    /// Whether it holds a lease, and so may admit requests.
    pub lease: bool,
    /// How the states of the replicas compared last. Absent until they were compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<ComparedBody>,
    /// The members.
    pub members: Vec<MemberBody>,
}

/// A comparison of the states of all replicas at one index of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComparedBody {
    /// The log index, as a decimal string.
    pub index: String,
    /// Rows of the answering node's state there.
    pub rows: u64,
    /// How the answering node's state stands: `agrees` with most replicas, `differs` from most, `disputed` (replicas differ and no state has a
    /// majority) or `open` (too few have answered).
    pub state: String,
}

/// A member of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberBody {
    /// Its id.
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `voter` or `learner`.
    pub role: String,
    /// `leader`, `follower`, `learner`, `unreachable`, `differs` (its state is not what most replicas have) or `unknown`.
    pub state: String,
    /// How far its log is known to agree with the leader's, as a decimal string; only the leader knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_index: Option<String>,
}
