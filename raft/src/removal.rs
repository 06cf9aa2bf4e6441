//! A node that was removed: how it comes to know, and when it may go.
//!
//! It shuts its gate as soon as it knows. It may not go as soon: until the membership without it is decided, the others need its
//! voice for that very decision, and where another of them dies meanwhile they need it for every other decision too. So it stays,
//! votes and acknowledges, and goes when the membership that is *committed* is without it, however long that takes.
//!
//! It learns of that in two ways. The entry may reach it; as a rule it does not, because a leader sends nothing to a node that
//! it has taken out. So it asks the others where it stands. Their answer counts only where it comes out of a linearizable read: the
//! peer has asked the leader, who has a quorum behind it, and has carried out everything up to there. A peer that is alone, that was
//! removed itself, or that is a copy of an old machine has nobody who answers it, and cannot send anybody away.
//!
//! The same holds for a node that was away when it was removed. A peer that turns it away (410) is a reason to ask, not a verdict:
//! the lease that it does not get keeps it shut meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mcp_model::ids::NodeId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::fresh::{self, READ_INDEX_WAIT};
use crate::link::{Lane, Link};
use crate::machine::Applied;
use crate::members;
use crate::node::Core;
use crate::rpc::STANDING;

/// The pause between two times that the others are asked.
const PAUSE: Duration = Duration::from_millis(250);
/// How long an answer may take: a read index, and carrying out what stands before it.
const ANSWER_WAIT: Duration = READ_INDEX_WAIT.saturating_mul(3);

/// How far a node's removal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Removal {
    /// It was not removed.
    No,
    /// It was, and admits nobody any more. The others may still need its voice.
    Removed,
    /// The membership without it is decided: nobody counts on it.
    Out,
}

/// Takes notice of this node's own removal, and of its end.
pub(crate) async fn run(core: Arc<Core>) {
    notice(&core).await;
    tracing::error!("this node was removed from the cluster: it admits nobody any more");
    core.removal.send_replace(Removal::Removed);
    while !is_out(&core).await {
        // Whoever leads and may not grant leases any more must not keep the others loyal to it.
        members::hand_over(&core).await;
        tokio::time::sleep(PAUSE).await;
    }
    tracing::info!("the others have gone on without this node");
    core.removal.send_replace(Removal::Out);
}

/// Resolves when this node admits nobody any more, because its own state says that it was removed, or the cluster does.
async fn notice(core: &Core) {
    let (mut index, mut turned_away) = (core.replica.auth_index_watch(), core.links.turned_away());
    while !core.replica.gate().is_removed() {
        let told = tokio::select! {
            _ = index.changed() => false,
            () = hear(&mut turned_away) => true,
        };
        if !told {
            continue;
        }
        if matches!(ask_around(core).await, Some(Removal::Removed | Removal::Out)) {
            core.replica.be_removed();
            return;
        }
        // It was one peer's word. Whoever turns this node away again is a reason to ask again.
        core.links.forget_turned_away();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Resolves when a peer has turned this node away.
async fn hear(turned_away: &mut watch::Receiver<bool>) {
    // The links live as long as the node.
    let _told = turned_away.wait_for(|told| *told).await;
}

/// Whether the membership without this node is decided: it has carried that out itself, or somebody who knows says so.
async fn is_out(core: &Core) -> bool {
    let own = core.was_removed(core.me) == Some(true) && is_outside(core, core.me) == Some(true);
    own || ask_around(core).await == Some(Removal::Out)
}

/// Asks everybody whom this node knows where it stands, until somebody can tell.
async fn ask_around(core: &Core) -> Option<Removal> {
    let applied = core.membership.borrow().clone();
    let appended = core.metrics.borrow().membership_config.clone();
    let members = applied.nodes().chain(appended.nodes()).map(|(id, _)| NodeId(*id));
    let others: BTreeSet<NodeId> = members.filter(|id| *id != core.me).collect();
    for other in others {
        let Some(link) = core.link(other) else { continue };
        if let Some(stands) = ask(&link).await {
            return Some(stands);
        }
    }
    None
}

/// Asks one peer where this node stands. `None`: it does not answer, or cannot tell.
pub(crate) async fn ask(link: &Link) -> Option<Removal> {
    let asked: Result<Option<Removal>, _> = link.call(Lane::Fast, STANDING, &(), ANSWER_WAIT).await;
    asked.ok().flatten()
}

/// Answers it: what the cluster has decided, not what this node happens to know. `None`: no leader answers, or this node has not
/// caught up with it.
pub(crate) async fn answer(core: &Core, from: NodeId) -> Option<Removal> {
    fresh::freshen(core).await.ok()?;
    if !core.was_removed(from)? {
        return Some(Removal::No);
    }
    // The state was looked at first: a membership that is as new cannot be from before the node was taken in.
    let outside = is_outside(core, from)?;
    Some(if outside { Removal::Out } else { Removal::Removed })
}

/// Whether the membership that stands in the state, which is a committed one, is without a node. Only for one that was removed:
/// nobody takes it in again. `None`: the state cannot be read.
fn is_outside(core: &Core, node: NodeId) -> Option<bool> {
    let applied = Applied::of(&core.replica).ok()?;
    Some(applied.members().iter().all(|member| member.id != node))
}
