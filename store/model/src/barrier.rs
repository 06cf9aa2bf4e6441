//! The barrier behind a revoke: rule 6 of the guarantee.
//!
//! A right that was taken away is gone when every node that might hold a lease has said that its auth view is without it, or
//! can hold no lease any more. Matched and applied indexes of the log prove nothing here, and neither does a heartbeat.
//!
//! No waiting here: whoever waits asks [`Proving::look`] what to do at this moment, and brings what nodes say.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::clock::Reading;
use crate::command::Outcome;
use crate::ids::{Incarnation, NodeId};
use crate::office::Office;
use crate::receipt::{Proof, Receipt, ReplicaReceipt};
use crate::rules::{AllRules, Rule, Rules};
use crate::timers::Timers;

/// Who may hold a lease, besides those who have asked this process for one lately.
#[derive(Debug, Clone, Default)]
pub struct Holders {
    /// Voters of the applied and of the appended configuration.
    pub voters: BTreeSet<NodeId>,
    /// Learners of either.
    pub learners: BTreeSet<NodeId>,
    /// Whoever was removed, and whoever is enrolled without being a member: a node that lost its log is let go and taken back, and
    /// whether a lease of its last membership is still running, only the ledger says.
    pub removed: BTreeSet<NodeId>,
}

impl Holders {
    /// Of whom that is said, by who votes and who is a member in the applied or in the appended configuration, who is enrolled, and who was
    /// removed. Whoever is enrolled and no member was let go because it lost its log: it may have been taken back and granted a
    /// lease before that was asked for once more.
    pub fn of<R: Rules>(
        rules: R,
        (voters, everybody): (BTreeSet<NodeId>, &BTreeSet<NodeId>),
        enrolled: &BTreeSet<NodeId>,
        retired: impl IntoIterator<Item = NodeId>,
    ) -> Holders {
        let mut removed: BTreeSet<NodeId> = retired.into_iter().collect();
        if rules.keep(Rule::LetGoMayHoldLeases) {
            removed.extend(enrolled.difference(everybody));
        }
        Holders {
            learners: everybody - &voters,
            voters,
            removed,
        }
    }

    fn are<R: Rules>(&self, rules: R) -> BTreeSet<NodeId> {
        let mut all = self.voters.clone();
        if rules.keep(Rule::LearnersMayHoldLeases) {
            all.extend(&self.learners);
        }
        if rules.keep(Rule::RemovedMayHoldLeases) {
            all.extend(&self.removed);
        }
        all
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

/// Whether the answer to a command that was carried out has to wait for the replicas. A retry of what was committed before, at
/// `outcome.index`, evaluates the same rule again.
pub fn has_to_wait<R: Rules>(rules: R, outcome: &Outcome, committed_at: u64) -> bool {
    outcome.restricts && (rules.keep(Rule::RetryWaitsAgain) || outcome.index == committed_at)
}

/// How far a node's auth view is. It binds the incarnation that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Who says it.
    pub node: NodeId,
    /// Which run of it.
    pub incarnation: Incarnation,
    /// Up to which index its view is complete, with everything cut that had to be.
    pub auth_index: u64,
}

/// Why a confirmation confirms nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationRefused {
    /// It comes from somebody else.
    #[error("another node says it")]
    AnotherNode,
    /// The node has gone on as another incarnation since.
    #[error("it is from an earlier incarnation")]
    EarlierIncarnation,
    /// The view is not that far: ask again.
    #[error("its view is not that far yet")]
    NotYet,
}

/// One replica that has to prove that it refuses.
#[derive(Debug, Clone, Copy)]
pub struct Proving<R: Rules = AllRules> {
    rules: R,
    node: NodeId,
    index: u64,
    began: Reading,
    run_out: Reading,
    deadline: Reading,
}

/// What is to be done about a replica at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing any more.
    Proven(ReplicaReceipt),
    /// Ask it, and look again after this many milliseconds at the latest.
    Ask {
        /// 1 at least.
        wait_ms: u64,
    },
}

/// Begins to prove what was committed at `index` in `term`: one for each replica that may hold a lease. To be called when the commit is
/// known: a later renewal is granted at a later index. None: this process does not lead in that term and knows nothing about leases.
pub fn begin<W, R: Rules>(
    office: &Office<W, R>,
    (index, term): (u64, u64),
    holders: &Holders,
    timers: &Timers,
    (now, wait_ms): (Reading, u64),
) -> Option<Vec<Proving<R>>> {
    let (rules, ledger) = (office.rules(), office.ledger());
    office.term().filter(|held| held.number == term)?;
    let mut nodes = holders.are(rules);
    nodes.extend(ledger.noted().filter(|node| !holders.removed.contains(node)));
    let frozen = nodes.into_iter().map(|node| {
        let run_out = ledger.run_out(ledger.last_possible_grant(node)?, timers);
        Some(Proving {
            rules,
            node,
            index,
            began: now,
            run_out,
            deadline: now.plus_ms(wait_ms),
        })
    });
    let frozen: Option<Vec<Proving<R>>> = frozen.collect();
    // Of a node that was removed so long ago that its last lease is over, nothing more needs to be told.
    let long_gone = |proving: &Proving<R>| !holders.is_member(proving.node) && now.both_passed(proving.run_out);
    Some(frozen?.into_iter().filter(|proving| !long_gone(proving)).collect())
}

impl<R: Rules> Proving<R> {
    /// The replica.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The index that it has to have in its view.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// What to do at `now`.
    pub fn look(&self, now: Reading) -> Look {
        if self.has_run_out(now) {
            return Look::Proven(self.line(Proof::LeaseRanOut, now));
        }
        if now.both_passed(self.deadline) {
            return Look::Proven(self.line(Proof::Pending, now));
        }
        let left_ms = now.ms_until_both_passed(self.run_out);
        Look::Ask {
            wait_ms: left_ms.min(now.ms_until_both_passed(self.deadline)).max(1),
        }
    }

    fn has_run_out(&self, now: Reading) -> bool {
        match self.rules.keep(Rule::WaitEndsByTheSecondClock) {
            true => now.both_passed(self.run_out),
            false => now.either_passed(self.run_out),
        }
    }

    /// What the node says of itself. `office` knows which of its incarnations have ended.
    pub fn hear<W>(
        &self,
        office: &Office<W, R>,
        said: &Confirmed,
        now: Reading,
    ) -> Result<ReplicaReceipt, ConfirmationRefused> {
        if said.node != self.node {
            return Err(ConfirmationRefused::AnotherNode);
        }
        if office.ledger().is_earlier(said.node, said.incarnation) {
            return Err(ConfirmationRefused::EarlierIncarnation);
        }
        if said.auth_index < self.index {
            return Err(ConfirmationRefused::NotYet);
        }
        Ok(self.applied(now))
    }

    /// The line of a replica that is known to have applied it.
    pub fn applied(&self, now: Reading) -> ReplicaReceipt {
        self.line(Proof::Applied, now)
    }

    fn line(&self, proof: Proof, now: Reading) -> ReplicaReceipt {
        ReplicaReceipt {
            node: self.node,
            proof,
            after_ms: now.ms_since(self.began),
        }
    }
}

/// The receipt that these lines make.
pub fn receipt(index: u64, replicas: Vec<ReplicaReceipt>) -> Receipt {
    let took_ms = replicas.iter().map(|r| r.after_ms).max().unwrap_or(0);
    Receipt {
        index,
        replicas,
        took_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::RequestId;
    use crate::office::Asker;

    fn ms(ms: u64) -> Reading {
        Reading::both_ms(ms)
    }

    fn asker(node: u64, incarnation: u64) -> Asker {
        Asker {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            request: RequestId(1),
            applied: true,
            appended: true,
            removed: Some(false),
        }
    }

    fn set<const N: usize>(nodes: [u64; N]) -> BTreeSet<NodeId> {
        nodes.into_iter().map(NodeId).collect()
    }

    fn leading() -> Office<()> {
        let mut office = Office::new(9);
        office.lead(2, 0, || ms(0));
        office
    }

    fn nodes(proving: &[Proving]) -> Vec<u64> {
        proving.iter().map(|p| p.node().0).collect()
    }

    #[test]
    fn learners_removed_nodes_and_whoever_asked_lately_have_to_prove_it() {
        let mut office = leading();
        office.renew(asker(9, 1), ms(100), ()).unwrap();
        let holders = Holders {
            voters: set([1]),
            learners: set([2]),
            removed: set([3]),
        };
        let timers = Timers::default();
        let proving = begin(&office, (7, 2), &holders, &timers, (ms(200), 10_000)).unwrap();
        assert_eq!(nodes(&proving), [1, 2, 3, 9]);
        // Much later, nothing is told of the one that was removed, nor of the one that is no member.
        let proving = begin(&office, (7, 2), &holders, &timers, (ms(9_000), 10_000)).unwrap();
        assert_eq!(nodes(&proving), [1, 2]);
        assert!(matches!(proving[0].look(ms(9_000)), Look::Proven(line) if line.proof == Proof::LeaseRanOut));
        assert!(begin(&office, (7, 3), &holders, &timers, (ms(200), 1)).is_none());
    }

    #[test]
    fn a_replica_is_asked_until_its_lease_is_over_or_the_deadline_has_come() {
        let office = leading();
        let holders = Holders {
            voters: set([1]),
            ..Holders::default()
        };
        let timers = Timers::default();
        let begun = |wait_ms| begin(&office, (7, 2), &holders, &timers, (ms(1_000), wait_ms)).unwrap()[0];
        assert_eq!(begun(9_000).look(ms(1_000)), Look::Ask { wait_ms: 1_105 });
        assert_eq!(begun(500).look(ms(1_200)), Look::Ask { wait_ms: 301 });
        let line = |look| match look {
            Look::Proven(line) => (line.proof, line.after_ms),
            Look::Ask { .. } => panic!("it is proven"),
        };
        assert_eq!(line(begun(500).look(ms(1_501))), (Proof::Pending, 501));
        assert_eq!(line(begun(9_000).look(ms(2_105))), (Proof::LeaseRanOut, 1_105));
    }

    #[test]
    fn a_confirmation_counts_for_the_node_and_the_incarnation_that_says_it() {
        let mut office = leading();
        office.renew(asker(1, 11), ms(100), ()).unwrap();
        office.renew(asker(1, 12), ms(200), ()).unwrap();
        let holders = Holders {
            voters: set([1]),
            ..Holders::default()
        };
        let proving = begin(&office, (7, 2), &holders, &Timers::default(), (ms(300), 9_000)).unwrap()[0];
        let said = |node, incarnation, auth_index| Confirmed {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            auth_index,
        };
        let hear = |said| proving.hear(&office, &said, ms(310)).map(|line| line.proof);
        assert_eq!(hear(said(1, 11, 9)), Err(ConfirmationRefused::EarlierIncarnation));
        assert_eq!(hear(said(2, 12, 9)), Err(ConfirmationRefused::AnotherNode));
        assert_eq!(hear(said(1, 12, 6)), Err(ConfirmationRefused::NotYet));
        assert_eq!(hear(said(1, 12, 7)), Ok(Proof::Applied));
        assert_eq!(hear(said(1, 13, 7)), Ok(Proof::Applied), "it has not renewed yet");
    }
}
