//! Coming to lead, as [`mcp_model::campaign`] says: here are the waiting and the asking.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mcp_model::campaign::{self, Patience, Poll, Seen};
use mcp_model::ids::NodeId;
use mcp_model::timers::{ASK_MS, LOOK_MS};
use openraft::ServerState;

use crate::link::Lane;
use crate::node::Core;
use crate::rpc::{ASK, PeerState};

const LOOK_EVERY: Duration = Duration::from_millis(LOOK_MS);
const ANSWER_WAIT: Duration = Duration::from_millis(ASK_MS);

/// Campaigns when there is no leader.
pub(crate) async fn run(core: Arc<Core>) {
    let mut patience = Patience::new(core.clock.reading(), &core.timers, core.jitter_ms());
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = core.stopped() => return,
        }
        let now = core.clock.reading();
        if !patience.is_at_its_end(now, &seen(&core), &core.timers, || core.jitter_ms()) {
            continue;
        }
        if should_campaign(&core).await && seen(&core).nobody_came_forward(core.clock.reading(), &core.timers) {
            elect(&core).await;
        }
        patience.begins_again(core.clock.reading(), core.jitter_ms());
    }
}

async fn elect(core: &Core) {
    if let Err(error) = core.raft.trigger().elect().await {
        tracing::warn!(%error, "campaign failed");
    }
}

/// Campaigns as soon as the others may vote: the leader that is leaving has asked this node to.
pub(crate) async fn take_over(core: Arc<Core>) {
    let silence = core.timers.leader_silence_ms;
    for _ in 0..silence {
        if core.clock.reading().ms_since(core.heard.get()) > silence {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if !leads(&core) {
        elect(&core).await;
    }
}

/// What this node says of itself when others think of campaigning.
pub(crate) fn own_state(core: &Core) -> PeerState {
    PeerState {
        hears_leader: campaign::hears_leader(&seen(core), core.clock.reading(), &core.timers),
        fit: core.is_fit(),
        last_log: core.logs.last_id(),
        has_membership: core.metrics.borrow().membership_config.nodes().next().is_some(),
    }
}

async fn should_campaign(core: &Core) -> bool {
    let membership = core.metrics.borrow().membership_config.clone();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let asked = voters.iter().filter(|id| **id != core.me.0).map(|id| async move {
        let link = core.link(NodeId(*id))?;
        let state: PeerState = link.call(Lane::Fast, ASK, &(), ANSWER_WAIT).await.ok()?;
        Some((NodeId(*id), state))
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let configs = membership.membership().get_joint_config().iter();
    let configs = configs.map(|voters| voters.iter().copied().map(NodeId).collect());
    let mut poll = Poll::new(core.me, core.logs.last_id(), configs.collect());
    loop {
        if let Some(verdict) = poll.verdict() {
            return verdict;
        }
        match asked.next().await {
            Some(Some((id, peer))) => poll.hear(id, &peer),
            Some(None) => {}
            None => return false,
        }
    }
}

fn leads(core: &Core) -> bool {
    core.metrics.borrow().state == ServerState::Leader
}

fn seen(core: &Core) -> Seen {
    let metrics = core.metrics.borrow();
    Seen {
        leads: metrics.state == ServerState::Leader,
        fit: core.is_fit(),
        votes: metrics.membership_config.voter_ids().any(|id| id == core.me.0),
        heard: core.heard.get(),
        voted: core.voted.get(),
    }
}
