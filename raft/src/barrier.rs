//! The barrier behind a revoke: rule 6 of the guarantee.
//!
//! A right that was taken away is gone when every node that might hold a lease has said that its auth view is without it, or
//! can hold no lease any more. Matched and applied indexes of the log prove nothing here, and neither does a heartbeat.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mcp_model::clock::Reading;
use mcp_model::ids::NodeId;
use mcp_model::ledger::Ledger;
use mcp_model::receipt::{Proof, Receipt, ReplicaReceipt};

use mcp_store::Replica;

use crate::link::Lane;
use crate::node::Core;
use crate::rpc::{CONFIRM, Confirm, Confirmed};

/// How long a node is asked to wait for its view before it answers.
const CONFIRM_WAIT_MS: u64 = 200;
/// How long a node waits for what it has cut to end before it confirms all the same.
const LET_GO_WAIT: Duration = Duration::from_millis(150);
/// The pause after a node did not answer.
const RETRY: Duration = Duration::from_millis(20);

/// Waits until what was committed at `index` is in force everywhere, or for `deadline`. `None`: this process does not lead and
/// knows nothing about leases.
pub(crate) async fn wait(core: &Arc<Core>, index: u64, term: u64, deadline: Duration) -> Option<Receipt> {
    let began = core.clock.reading();
    let deadline = began.plus_ms(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
    // Frozen here, where the commit is known: a later renewal is granted at a later index.
    let frozen = core.office.freeze(term, may_hold_a_lease(core)?.into_iter())?;
    let now = core.clock.reading();
    // Of a node that was removed so long ago that its last lease is over, nothing more needs to be told.
    let long_gone =
        |node: NodeId, grant: Reading| !core.is_member(node) && now.both_passed(Ledger::run_out(grant, &core.timers));
    let frozen = frozen.into_iter().filter(|(node, grant)| !long_gone(*node, *grant));
    let proofs = frozen.map(|(node, grant)| async move {
        let run_out = Ledger::run_out(grant, &core.timers);
        let proof = prove(core, node, index, run_out, deadline).await;
        ReplicaReceipt {
            node,
            proof,
            after_ms: core.clock.reading().ms_since(began),
        }
    });
    let replicas = join_all(proofs).await;
    let took_ms = replicas.iter().map(|r| r.after_ms).max().unwrap_or(0);
    Some(Receipt {
        index,
        replicas,
        took_ms,
    })
}

/// Members of the applied and of the appended configuration, learners included, and whoever was removed. `None`: the state
/// cannot be read, so nobody can say.
fn may_hold_a_lease(core: &Core) -> Option<BTreeSet<NodeId>> {
    let applied = core.membership.borrow().clone();
    let appended = core.metrics.borrow().membership_config.clone();
    let members = applied.nodes().chain(appended.nodes()).map(|(id, _)| NodeId(*id));
    Some(members.chain(core.retired()?).collect())
}

async fn prove(core: &Core, node: NodeId, index: u64, run_out: Reading, deadline: Reading) -> Proof {
    loop {
        let now = core.clock.reading();
        if now.both_passed(run_out) {
            return Proof::LeaseRanOut;
        }
        if now.both_passed(deadline) {
            return Proof::Pending;
        }
        let left_ms = now
            .ms_until_both_passed(run_out)
            .min(now.ms_until_both_passed(deadline))
            .max(1);
        let asked = async {
            if node == core.me {
                return has_applied(core, index).await;
            }
            confirms(core, node, index, left_ms).await
        };
        if tokio::time::timeout(Duration::from_millis(left_ms), asked).await == Ok(true) {
            return Proof::Applied;
        }
    }
}

/// Resolves when this node's own view is that far.
async fn has_applied(core: &Core, index: u64) -> bool {
    let mut at = core.replica.auth_index_watch();
    let reached = at.wait_for(|at| *at >= index).await.is_ok();
    let_go(&core.replica).await;
    reached
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
async fn confirms(core: &Core, node: NodeId, index: u64, left_ms: u64) -> bool {
    let Some(link) = core.link(node) else {
        return std::future::pending().await;
    };
    let wait_ms = left_ms.min(CONFIRM_WAIT_MS);
    let wait = Duration::from_millis(wait_ms + CONFIRM_WAIT_MS);
    let confirmed: Result<Confirmed, _> = link.call(Lane::Fast, CONFIRM, &Confirm { index, wait_ms }, wait).await;
    if confirmed.is_err() {
        tokio::time::sleep(RETRY).await;
    }
    confirmed.is_ok_and(|c| c.node == node && c.auth_index >= index)
}
