//! The barrier behind a revoke: asks and waits as [`mcp_model::barrier`] says. Rule 6 of the guarantee.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mcp_model::barrier::{self, ConfirmationRefused, Confirmed, Holders, Look, Proving};
use mcp_model::ids::{Incarnation, NodeId};
use mcp_model::receipt::{Receipt, ReplicaReceipt};
use mcp_model::rules::AllRules;

use mcp_store::Replica;
use mcp_store::live::Live;

use crate::link::Lane;
use crate::members;
use crate::node::Core;
use crate::rpc::{CONFIRM, Confirm};
use crate::types::Stored;

/// How long a node is asked to wait for its view before it answers.
const CONFIRM_WAIT_MS: u64 = 200;
/// How long a node waits for what it has cut to end before it confirms all the same.
const LET_GO_WAIT: Duration = Duration::from_millis(150);
/// The pause after a node did not answer.
const RETRY: Duration = Duration::from_millis(20);

/// Waits until what was committed at `index` is in force everywhere, or for `deadline`. `None`: this process does not lead and
/// knows nothing about leases.
pub(crate) async fn wait(core: &Arc<Core>, index: u64, term: u64, deadline: Duration) -> Option<Receipt> {
    let wait_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let holders = may_hold_a_lease(core)?;
    // Here the commit is known.
    let now = core.clock.reading();
    let proving = core
        .office
        .begin_barrier((index, term), &holders, &core.timers, (now, wait_ms))?;
    let lines = proving.iter().map(|proving| prove(core, proving));
    Some(barrier::receipt(index, join_all(lines).await))
}

/// Who may hold a lease, as this node knows. `None`: the state cannot be read, or is on its way back to where it was, so nobody can say.
fn may_hold_a_lease(core: &Core) -> Option<Holders> {
    let incarnation = core.replica.gate().incarnation();
    let applied = core.membership.borrow().clone();
    let appended = core.metrics.borrow().membership_config.clone();
    let enrolled = members::enrolled(core)?.into_keys().collect();
    let retired = core.retired()?;
    if !speaks_for_now(core.replica.live(), incarnation) {
        tracing::warn!("the state is on its way back: nobody can say now who may hold a lease");
        return None;
    }
    Some(holders((&applied, &appended), &enrolled, retired))
}

/// Whether what was read since an incarnation was looked up is as new as the memberships. Those never go back, and the state does while a disk is
/// mended or a snapshot comes in: records of an older state know nothing of a removal that the memberships are already without.
fn speaks_for_now(live: &Live, since: Incarnation) -> bool {
    !live.is_behind() && live.gate().incarnation() == since
}

/// Members of the applied and of the appended configuration, learners included, whoever was removed, and whoever is enrolled.
fn holders((applied, appended): (&Stored, &Stored), enrolled: &BTreeSet<NodeId>, retired: Vec<NodeId>) -> Holders {
    let of = |config: &Stored| -> BTreeSet<NodeId> { config.nodes().map(|(id, _)| NodeId(*id)).collect() };
    let voters = applied.voter_ids().chain(appended.voter_ids()).map(NodeId).collect();
    let everybody = &of(applied) | &of(appended);
    Holders::of(AllRules, (voters, &everybody), enrolled, retired)
}

async fn prove(core: &Core, proving: &Proving) -> ReplicaReceipt {
    loop {
        let wait_ms = match proving.look(core.clock.reading()) {
            Look::Proven(line) => return line,
            Look::Ask { wait_ms } => wait_ms,
        };
        let asked = async {
            if proving.node() == core.me {
                return has_applied(core, proving).await;
            }
            confirms(core, proving, wait_ms).await
        };
        if let Ok(Some(line)) = tokio::time::timeout(Duration::from_millis(wait_ms), asked).await {
            return line;
        }
    }
}

/// Resolves when this node's own view is that far.
async fn has_applied(core: &Core, proving: &Proving) -> Option<ReplicaReceipt> {
    let mut at = core.replica.auth_index_watch();
    let reached = at.wait_for(|at| *at >= proving.index()).await.is_ok();
    let_go(&core.replica).await;
    reached.then(|| proving.applied(core.clock.reading()))
}

/// Waits until whatever this node has cut has ended, so that after a confirmation not one more event is written and not one more
/// call is sent. What does not end in time is not being run (its client takes nothing), and looks before it writes when it is:
/// decision 31.
pub(crate) async fn let_go(replica: &Replica) {
    let cuts = replica.cuts();
    if tokio::time::timeout(LET_GO_WAIT, cuts.all_let_go()).await.is_err() {
        let left = cuts.excuse();
        tracing::warn!(
            left,
            "cut streams whose clients take nothing are not waited for any longer"
        );
    }
}

/// Asks a node once. Whoever has no address any more can only run out.
async fn confirms(core: &Core, proving: &Proving, left_ms: u64) -> Option<ReplicaReceipt> {
    let node = proving.node();
    let Some(link) = core.link(node) else {
        return std::future::pending().await;
    };
    let wait_ms = left_ms.min(CONFIRM_WAIT_MS);
    let wait = Duration::from_millis(wait_ms + CONFIRM_WAIT_MS);
    let question = Confirm {
        index: proving.index(),
        wait_ms,
    };
    let answer: Result<Confirmed, _> = link.call(Lane::Fast, CONFIRM, &question, wait).await;
    let Ok(said) = answer else {
        tokio::time::sleep(RETRY).await;
        return None;
    };
    match core.office.hear(proving, &said, core.clock.reading()) {
        Ok(line) => Some(line),
        // It waited for as long as it was asked to.
        Err(ConfirmationRefused::NotYet) => None,
        Err(why) => {
            tracing::warn!(%node, incarnation = ?said.incarnation, index = said.auth_index, %why, "a confirmation was refused");
            tokio::time::sleep(RETRY).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::Membership;

    use super::*;
    use crate::types::Peer;

    fn nodes<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    fn configuration(voters: &[u64], learners: &[u64]) -> Stored {
        let all = voters.iter().chain(learners);
        let all: BTreeMap<u64, Peer> = all.map(|id| (*id, Peer::default())).collect();
        let voters = vec![voters.iter().copied().collect()];
        Stored::new(None, Membership::new(voters, all))
    }

    /// What the model calls `let-go-leaves-at-once`.
    #[test]
    fn a_node_that_was_let_go_may_hold_a_lease_for_as_long_as_it_is_enrolled() {
        let without = configuration(&[1, 2], &[]);
        let found = holders((&without, &without), &nodes([1, 2, 3]), Vec::new());
        assert_eq!((found.voters, found.removed), (nodes([1, 2]), nodes([3])));
        // Once it is a member again it is asked as one.
        let (before, after) = (configuration(&[1, 2], &[]), configuration(&[1, 2], &[3]));
        let found = holders((&before, &after), &nodes([1, 2, 3]), Vec::new());
        assert_eq!((found.learners, found.removed), (nodes([3]), nodes([])));
    }

    #[test]
    fn nobody_of_either_configuration_is_forgotten_and_nobody_who_was_removed() {
        let (applied, appended) = (configuration(&[1, 2, 3], &[7]), configuration(&[1, 2, 4], &[8]));
        let found = holders((&applied, &appended), &nodes([1, 2, 3, 4, 7, 8]), vec![NodeId(9)]);
        assert_eq!(found.voters, nodes([1, 2, 3, 4]));
        assert_eq!((found.learners, found.removed), (nodes([7, 8]), nodes([9])));
    }

    /// What the model calls `set-from-older-state`.
    #[test]
    fn records_of_a_state_that_went_back_or_came_anew_meanwhile_are_not_believed() {
        let (first, second) = (Incarnation(1), Incarnation(2));
        let live = Live::new(first, 2_000, 7);
        assert!(speaks_for_now(&live, first));
        live.go_back(second);
        assert!(
            !speaks_for_now(&live, first) && !speaks_for_now(&live, second),
            "it is behind"
        );
        live.publish(6);
        assert!(!speaks_for_now(&live, second), "not there yet");
        live.publish(7);
        assert!(speaks_for_now(&live, second), "it is where it was");
        assert!(
            !speaks_for_now(&live, first),
            "whoever has begun before has read an older state"
        );
    }
}
