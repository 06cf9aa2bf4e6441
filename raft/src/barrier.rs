//! The barrier behind a revoke: asks and waits as [`mcp_model::barrier`] says. Rule 6 of the guarantee.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mcp_model::barrier::{self, ConfirmationRefused, Confirmed, Holders, Look, Proving};
use mcp_model::ids::NodeId;
use mcp_model::receipt::{Receipt, ReplicaReceipt};

use mcp_store::Replica;

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

/// Members of the applied and of the appended configuration, learners included, whoever was removed, and whoever is enrolled: a
/// node that was let go because it lost its log is a member no more, though it was none the less granted a lease if it had been taken back
/// before. `None`: the state cannot be read, or is on its way back to where it was, so nobody can say.
fn may_hold_a_lease(core: &Core) -> Option<Holders> {
    let incarnation = core.replica.gate().incarnation();
    let applied = core.membership.borrow().clone();
    let appended = core.metrics.borrow().membership_config.clone();
    let of = |config: &Stored| -> BTreeSet<NodeId> { config.nodes().map(|(id, _)| NodeId(*id)).collect() };
    let voters = applied.voter_ids().chain(appended.voter_ids()).map(NodeId).collect();
    let everybody = &of(&applied) | &of(&appended);
    let enrolled = members::enrolled(core)?;
    let absent = enrolled.keys().copied().filter(|node| !everybody.contains(node));
    let removed = core.retired()?.into_iter().chain(absent).collect();
    // The memberships never go back, and the state does while a disk is mended or a snapshot comes in. Records of an older state know
    // nothing of a removal that the memberships are already without.
    if core.replica.live().is_behind() || core.replica.gate().incarnation() != incarnation {
        tracing::warn!("the state is on its way back: nobody can say now who may hold a lease");
        return None;
    }
    Some(Holders {
        learners: &everybody - &voters,
        voters,
        removed,
    })
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
