//! Receipts: why each replica can no longer admit what was taken away.

use mcp_model::ids::NodeId;
use mcp_model::receipt::{Proof, Receipt};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The receipt of a change that takes a right away.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptBody {
    /// The log index of the change, as a decimal string.
    pub index: String,
    /// Whether no replica can admit any more what was taken away.
    pub effective: bool,
    /// On how many replicas that is certain.
    pub refusing: usize,
    /// Of every replica that might have admitted it.
    pub replicas: Vec<ReplicaReceiptBody>,
    /// Milliseconds from the commit to the last proof.
    pub took_ms: u64,
}

/// One replica's line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaReceiptBody {
    /// The replica's id.
    pub node: String,
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Why it refuses.
    pub proof: ProofBody,
    /// Milliseconds from the commit to the proof, or to the end of the waiting.
    pub after_ms: u64,
}

/// Why a replica refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProofBody {
    /// It confirmed.
    Applied,
    /// It did not answer, and every lease it could have held is over.
    LeaseRanOut,
    /// Neither yet.
    Pending,
}

impl ReceiptBody {
    /// The body of a receipt; `name_of` says what people call a node.
    pub fn of(receipt: &Receipt, name_of: impl Fn(NodeId) -> Option<String>) -> ReceiptBody {
        let line = |r: &mcp_model::receipt::ReplicaReceipt| ReplicaReceiptBody {
            node: r.node.to_string(),
            name: name_of(r.node),
            proof: match r.proof {
                Proof::Applied => ProofBody::Applied,
                Proof::LeaseRanOut => ProofBody::LeaseRanOut,
                Proof::Pending => ProofBody::Pending,
            },
            after_ms: r.after_ms,
        };
        ReceiptBody {
            index: receipt.index.to_string(),
            effective: receipt.effective(),
            refusing: receipt.refusing(),
            replicas: receipt.replicas.iter().map(line).collect(),
            took_ms: receipt.took_ms,
        }
    }
}

impl ReplicaReceiptBody {
    /// What people call the replica.
    pub fn called(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.node)
    }
}
