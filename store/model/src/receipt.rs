//! The receipt of a revoke: why each replica can no longer admit what was taken away.

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// Why one replica refuses, or that we do not know yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Proof {
    /// It confirmed that its auth view has applied the change and that what the token had open is cut.
    Applied,
    /// It did not answer, and every lease it could have held is over.
    LeaseRanOut,
    /// Neither: it may still admit.
    Pending,
}

/// One replica's line of a receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaReceipt {
    /// The replica.
    pub node: NodeId,
    /// Why it refuses.
    pub proof: Proof,
    /// Milliseconds from the commit to the proof, or to the moment at which the waiting ended.
    pub after_ms: u64,
}

/// What a revoke is answered with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// The log index at which the change was committed.
    pub index: u64,
    /// Every replica that might have held a lease when the change was committed.
    pub replicas: Vec<ReplicaReceipt>,
    /// Milliseconds from the commit to the last proof.
    pub took_ms: u64,
}

impl Receipt {
    /// Whether no replica can admit any more what was taken away.
    pub fn effective(&self) -> bool {
        self.replicas.iter().all(|r| r.proof != Proof::Pending)
    }

    /// On how many replicas that is certain.
    pub fn refusing(&self) -> usize {
        self.replicas.iter().filter(|r| r.proof != Proof::Pending).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pending_replica_makes_a_revoke_not_effective() {
        let line = |node, proof| ReplicaReceipt {
            node: NodeId(node),
            proof,
            after_ms: 1,
        };
        let mut receipt = Receipt {
            index: 7,
            replicas: vec![line(1, Proof::Applied), line(2, Proof::LeaseRanOut)],
            took_ms: 1,
        };
        assert!(receipt.effective());
        receipt.replicas.push(line(3, Proof::Pending));
        assert!(!receipt.effective());
        assert_eq!(receipt.refusing(), 2);
    }
}
