//! Leases: asked for by every node, granted by the leader. Rules 1 and 2 of the guarantee.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcp_model::ids::{Incarnation, NodeId};
use mcp_model::lease::RequestId;
use mcp_model::office::{Asker, RenewalRefused};
use tokio::sync::oneshot;

use crate::link::Lane;
use crate::node::Core;
use crate::rpc::{Index, RENEW, Renewal};

/// The pause after a renewal that failed.
const RETRY: Duration = Duration::from_millis(50);
/// How long one renewal may take; the next one does not wait for it.
const ANSWER_WAIT: Duration = Duration::from_millis(400);

/// Keeps this node's lease. The leader is a node like any other.
pub(crate) async fn run(core: Arc<Core>) {
    let every = Duration::from_millis(core.timers.renew_every_ms);
    let mut fails = false;
    loop {
        let renewed = renew(&core).await;
        if fails == renewed && core.is_renewing() {
            fails = !renewed;
            match core.leader() {
                _ if renewed => tracing::info!("the lease is renewed again"),
                Some(leader) => {
                    tracing::warn!(%leader, "the lease could not be renewed: the leader gave no grant in time")
                }
                None => tracing::warn!("the lease could not be renewed: nobody leads"),
            }
        }
        let pause = if renewed { every } else { RETRY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = core.leader_changed() => {}
            () = core.stopped() => return,
        }
    }
}

async fn renew(core: &Core) -> bool {
    let Some(leader) = core.leader().filter(|_| core.is_renewing()) else {
        return false;
    };
    // Rule 1: the clock is read before anything is sent.
    let now = core.clock.reading();
    let Some((incarnation, request)) = core.replica.gate().begin(now) else {
        return false;
    };
    if !core.is_renewing() {
        // The lease was handed back between the two looks: this would be a lease of the incarnation after that.
        core.replica.gate().failed(request);
        return false;
    }
    // Another leader is asked at once: the check of the timers allows for one round here, and not for the silence of the old one.
    let granted = tokio::select! {
        granted = tokio::time::timeout(ANSWER_WAIT, ask(core, leader, incarnation, request)) => granted,
        () = core.leader_changed() => {
            tracing::warn!(%leader, ?request, "a renewal was given up: whom it was sent to leads no more, and its answer counts for nothing");
            Ok(None)
        }
    };
    match granted {
        Ok(Some(Index::At(read_index))) => {
            core.replica
                .gate()
                .granted(incarnation, request, read_index, || core.replica.auth_index());
            if core.clock.reading().either_passed(now.plus_ms(core.timers.lease_ms)) {
                tracing::warn!(%leader, ?request, "a grant came when its lease was over: it counts for nothing");
            }
            true
        }
        _ => {
            core.replica.gate().failed(request);
            false
        }
    }
}

async fn ask(core: &Core, leader: NodeId, incarnation: Incarnation, request: RequestId) -> Option<Index> {
    let renewal = Renewal { incarnation, request };
    if leader == core.me {
        return Some(grant(core, core.me, renewal).await);
    }
    let link = core.link(leader)?;
    link.call(Lane::Fast, RENEW, &renewal, ANSWER_WAIT).await.ok()
}

/// Answers a renewal of `node`, as its certificate says.
pub(crate) async fn grant(core: &Core, node: NodeId, renewal: Renewal) -> Index {
    let Renewal { incarnation, request } = renewal;
    let asker = Asker {
        node,
        incarnation,
        request,
        applied: core.is_applied_member(node),
        appended: core.is_appended_member(node),
        removed: core.was_removed(node),
    };
    let (tx, rx) = oneshot::channel();
    match core.office.renew(asker, &*core.clock, tx) {
        Ok(()) => {
            let index = rx.await.unwrap_or(Index::NotLeader);
            say_whether_granted(core, &asker, index);
            index
        }
        Err(why @ RenewalRefused::Stale(_)) => {
            tracing::warn!(%node, ?incarnation, ?request, %why, "a renewal was refused");
            Index::NotLeader
        }
        Err(why) => {
            tracing::debug!(%node, %why, "a renewal was refused");
            Index::NotLeader
        }
    }
}

/// Says it when this node begins to refuse because it does not lead, or cannot show it: once, and not for every renewal that comes meanwhile.
fn say_whether_granted(core: &Core, asker: &Asker, index: Index) {
    let refuses = index == Index::NotLeader;
    if core.refuses_renewals.swap(refuses, Ordering::Relaxed) == refuses {
        return;
    }
    let Asker { node, request, .. } = asker;
    if refuses {
        tracing::warn!(%node, ?request, "a renewal was refused: this node does not lead, or no majority says that it still does");
    } else {
        tracing::info!(%node, ?request, "renewals are granted here again");
    }
}
