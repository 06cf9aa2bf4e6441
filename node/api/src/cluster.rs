//! Who is in the cluster, and how that changes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A join token that is to be made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NewJoinToken {
    /// How long it lets in: `1h` if nothing is said, at most `7d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// What becomes of the machine: `voter` (once it has caught up), or `learner`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// A join token: the one answer that shows it. Its `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenBody {
    /// Its id.
    pub id: String,
    /// `mcpctl_join_…`; missing where this answer repeats one that was given before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// `voter` or `learner`.
    pub role: String,
    /// Until when it lets one machine in.
    pub expires_at: String,
    /// SHA-256 of the authority that the machine will trust, in hexadecimal.
    pub authority: String,
    /// Where the machine can ask: the peers' listeners of the nodes.
    pub peers: Vec<String>,
}

impl std::fmt::Debug for JoinTokenBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinTokenBody")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// A join token in a list: without its secret, which nobody keeps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenEntry {
    /// Its id.
    pub id: String,
    /// What becomes of the machine: `voter` or `learner`.
    pub role: String,
    /// `open`, `used` or `expired`.
    pub status: String,
    /// Id of the node that came in by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Until when it lets one machine in.
    pub expires_at: String,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// Log index of its last change.
    pub resource_version: String,
}

/// A node whose part in the cluster was decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeChanged {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The part that it is to play: `voter`, `learner` or `removed`.
    pub role: String,
    /// Whether the membership says so already. If not, the leader is at it: a node votes only once it has caught up.
    pub settled: bool,
}
