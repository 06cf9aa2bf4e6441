//! Makes the membership say what was decided: takes in who is enrolled, lets vote who has caught up and is to vote, and takes
//! out who was removed.
//!
//! Decisions stand in the replicated state; whoever leads carries them out, one step at a time, until nothing is left to do.
//! So a decision survives the leader that began with it, and doing it twice does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mcp_model::ids::NodeId;
use mcp_model::records::Enrolment;
use mcp_model::{apply::joining::NODES_MAX, tables};
use openraft::{ChangeMembers, ServerState};
use tokio::time::timeout;

use crate::link::Lane;
use crate::node::{ASK_WAIT, Core};
use crate::rpc::{CAMPAIGN, RESIGN};
use crate::types::{Peer, Stored};
use crate::write::WriteFailed;

/// How often a leader looks for something to do.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one step may take. A step that was cut short is taken up again.
const STEP_WAIT: Duration = Duration::from_secs(10);
/// Entries that a learner may lag behind when it begins to vote: about one look's worth.
const CAUGHT_UP: u64 = 64;
/// How long a leader that was asked to step down waits for somebody to follow it.
const HAND_OVER_WAIT: Duration = Duration::from_millis(1_500);
/// How long stepping down may take, the way there and back included.
const RESIGN_WAIT: Duration = Duration::from_secs(3);

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Finish what an earlier leader began.
    Settle,
    /// Let a node follow.
    TakeIn(NodeId, Peer),
    /// Let a node vote.
    Promote(NodeId),
    /// Let it only follow.
    Demote(NodeId),
    /// Let it go.
    TakeOut(NodeId),
}

/// Where a node is to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It votes.
    Voter,
    /// It follows.
    Learner,
    /// It is no member.
    Gone,
}

/// What the membership is compared with.
struct Decided {
    enrolled: BTreeMap<NodeId, Enrolment>,
    retired: BTreeSet<NodeId>,
}

/// Works as long as the node runs, and whenever it leads.
pub(crate) async fn run(core: Arc<Core>) {
    // What was looked at when nothing was left to do.
    let mut settled_at = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if core.office.term().is_none() || !core.is_fit() {
            settled_at = None;
            continue;
        }
        let now = (
            core.replica.auth_index(),
            core.metrics.borrow().membership_config.clone(),
        );
        if settled_at.as_ref() == Some(&now) {
            continue;
        }
        let Some(decided) = decided(&core) else { continue };
        let (step, waiting) = next(&core, &decided);
        settled_at = (step.is_none() && !waiting).then_some(now);
        if let Some(step) = step {
            take(&core, step).await;
        }
    }
}

fn decided(core: &Core) -> Option<Decided> {
    Some(Decided {
        enrolled: enrolled(core)?,
        retired: core.retired()?.into_iter().collect(),
    })
}

/// Whoever is to be a member. `None`: the state cannot be read.
pub(crate) fn enrolled(core: &Core) -> Option<BTreeMap<NodeId, Enrolment>> {
    let read = core.replica.read(|t| tables::list::<Enrolment>(t, None, NODES_MAX));
    Some(read.ok()?.into_iter().map(|e| (e.node, e)).collect())
}

/// What is to be done next, and whether something has to wait for a node.
fn next(core: &Core, decided: &Decided) -> (Option<Step>, bool) {
    let metrics = core.metrics.borrow().clone();
    let now: &Stored = &metrics.membership_config;
    if *core.membership.borrow() != *now {
        return (None, true);
    }
    if now.membership().get_joint_config().len() > 1 {
        return (Some(Step::Settle), true);
    }
    let voters: BTreeSet<u64> = now.voter_ids().collect();
    let mut waiting = false;
    for (id, _) in now.nodes() {
        let (node, votes) = (NodeId(*id), voters.contains(id));
        let retired = decided.retired.contains(&node);
        let wanted = decided.enrolled.get(&node).map(|e| e.voter);
        let step = match (retired, votes, wanted) {
            (true, false, _) => Some(Step::TakeOut(node)),
            (true, true, _) | (false, true, Some(false)) => {
                let can = can_decide(core, voters.iter().filter(|v| **v != *id));
                waiting |= !can;
                can.then_some(Step::Demote(node))
            }
            (false, false, Some(true)) => {
                let matched = metrics
                    .replication
                    .as_ref()
                    .and_then(|all| all.get(id)?.as_ref().map(|m| m.index));
                let lag = matched.map(|index| metrics.last_log_index.unwrap_or(0).saturating_sub(index));
                let can = lag.is_some_and(|lag| lag <= CAUGHT_UP)
                    && core.reach.of(node) == Some(true)
                    && can_decide(core, voters.iter().chain([id]));
                waiting |= !can;
                can.then_some(Step::Promote(node))
            }
            (false, true, Some(true) | None) | (false, false, Some(false) | None) => None,
        };
        if step.is_some() {
            return (step, true);
        }
    }
    let known = |node: &NodeId| now.membership().get_node(&node.0).is_some();
    let newcomer = decided
        .enrolled
        .values()
        .find(|e| !known(&e.node) && !decided.retired.contains(&e.node));
    let peer = |e: &Enrolment| Peer {
        name: e.name.to_string(),
        address: e.peer_address.clone(),
    };
    (newcomer.map(|e| Step::TakeIn(e.node, peer(e))), waiting)
}

/// Whether more than half of these voters answer: without that the membership would be stuck half way.
fn can_decide<'a>(core: &Core, voters: impl Iterator<Item = &'a u64>) -> bool {
    let voters: Vec<NodeId> = voters.map(|id| NodeId(*id)).collect();
    let answer = voters
        .iter()
        .filter(|id| **id == core.me || core.reach.of(**id) == Some(true));
    answer.count() > voters.len() / 2
}

async fn take(core: &Arc<Core>, step: Step) {
    let own = matches!(step, Step::Demote(node) | Step::TakeOut(node) if node == core.me);
    if own {
        // Somebody else leads first, and carries this out.
        resign(core).await;
        return;
    }
    // Not while a node that lost its log is let go or taken back: that is a change of the membership too.
    let _one = core.readmitting.lock().await;
    let taken = timeout(STEP_WAIT, change(core, &step)).await;
    match taken {
        Ok(Ok(())) => tracing::info!(?step, "membership changed"),
        Ok(Err(error)) => tracing::warn!(?step, %error, "the membership could not be changed: trying again"),
        Err(_) => tracing::warn!(?step, "the membership was not changed in time: trying again"),
    }
}

async fn change(core: &Core, step: &Step) -> Result<(), String> {
    let one = |node: &NodeId| BTreeSet::from([node.0]);
    let change = match step {
        Step::Settle => ChangeMembers::AddVoterIds(BTreeSet::new()),
        Step::TakeIn(node, peer) => ChangeMembers::AddNodes(BTreeMap::from([(node.0, peer.clone())])),
        Step::Promote(node) => ChangeMembers::AddVoterIds(one(node)),
        Step::Demote(node) => ChangeMembers::RemoveVoters(one(node)),
        Step::TakeOut(node) => ChangeMembers::RemoveNodes(one(node)),
    };
    // Whoever ceases to vote goes on following: it is taken out by a step of its own.
    let changed = core.raft.change_membership(change, true).await;
    changed.map(|_| ()).map_err(|error| error.to_string())
}

/// Lets another node lead, if this one does: says whether somebody follows it now.
pub(crate) async fn resign(core: &Core) -> bool {
    let resigned = hand_over(core).await;
    core.stay();
    resigned
}

/// Asks the most caught-up peer to lead, if this node does, and waits until it does. From here on this node is silent.
pub(crate) async fn hand_over(core: &Core) -> bool {
    let metrics = core.metrics.borrow().clone();
    if metrics.state != ServerState::Leader {
        return true;
    }
    let voters = metrics.membership_config.voter_ids().filter(|id| *id != core.me.0);
    let voters: BTreeSet<u64> = voters.collect();
    let replication = metrics.replication.unwrap_or_default();
    let best = replication.iter().filter(|(id, _)| voters.contains(id));
    let Some(heir) = best.max_by_key(|(_, matched)| **matched).map(|(id, _)| NodeId(*id)) else {
        return false;
    };
    // Nothing may reach the followers any more, or they stay loyal: no heartbeats, no rounds, no writes.
    core.leave();
    let Some(link) = core.link(heir) else { return false };
    let asked: Result<(), _> = link.call(Lane::Fast, CAMPAIGN, &(), ASK_WAIT).await;
    if asked.is_err() {
        return false;
    }
    let mut metrics = core.metrics.clone();
    let followed = metrics.wait_for(|m| m.current_leader.is_some_and(|id| id != core.me.0));
    matches!(timeout(HAND_OVER_WAIT, followed).await, Ok(Ok(_)))
}

/// Has another node lead, if `node` does.
pub(crate) async fn step_down(core: &Core, node: NodeId) -> Result<(), WriteFailed> {
    if core.leader() != Some(node) {
        return Ok(());
    }
    let resigned = if node == core.me {
        resign(core).await
    } else {
        let link = core.link(node).ok_or(WriteFailed::NoLeader)?;
        link.call(Lane::Fast, RESIGN, &(), RESIGN_WAIT).await.unwrap_or(false)
    };
    if !resigned {
        return Err(WriteFailed::NoLeader);
    }
    let mut metrics = core.metrics.clone();
    let another = metrics.wait_for(|m| m.current_leader.is_some_and(|id| id != node.0));
    let known = timeout(RESIGN_WAIT, another).await;
    known.map(|_| ()).map_err(|_| WriteFailed::NoLeader)
}

/// Waits until the membership that this node knows has `node` where it is to stand. `false`: not within `limit`.
pub(crate) async fn stands(core: &Core, node: NodeId, standing: Standing, limit: Duration) -> bool {
    let mut metrics = core.metrics.clone();
    let there = metrics.wait_for(|m| {
        let config = &m.membership_config;
        let settled = config.membership().get_joint_config().len() <= 1;
        let votes = config.voter_ids().any(|id| id == node.0);
        let member = config.membership().get_node(&node.0).is_some();
        settled
            && match standing {
                Standing::Voter => votes,
                Standing::Learner => member && !votes,
                Standing::Gone => !member,
            }
    });
    matches!(timeout(limit, there).await, Ok(Ok(_)))
}
