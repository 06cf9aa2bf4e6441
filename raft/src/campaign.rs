//! Coming to lead: ask first, disturb only when a majority has no leader either.
//!
//! openraft's own elections are off. Its timeout is drawn once per process, so that two survivors can tie for ever, and it raises
//! its term before it knows whether anybody wants an election.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mcp_model::clock::Reading;
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
    let mut quiet_since = core.clock.reading();
    let mut patience_ms = core.silence_with_jitter_ms();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = core.stopped() => return,
        }
        let now = core.clock.reading();
        if leads(&core) || !core.is_fit() {
            quiet_since = now;
            continue;
        }
        let heard = later(core.heard.get(), core.voted.get());
        if later(quiet_since, heard) != quiet_since {
            quiet_since = heard;
            patience_ms = core.silence_with_jitter_ms();
        }
        if now.ms_since(quiet_since) < patience_ms || !is_voter(&core) {
            continue;
        }
        // Asking takes time, in which somebody else may have won.
        if should_campaign(&core).await && nobody_came_forward(&core) {
            elect(&core).await;
        }
        // Fresh jitter each time: two losers do not meet again.
        quiet_since = core.clock.reading();
        patience_ms = core.jitter_ms();
    }
}

async fn elect(core: &Core) {
    if let Err(error) = core.raft.trigger().elect().await {
        tracing::warn!(%error, "campaign failed");
    }
}

/// Whether nobody has led or asked for this node's vote for as long as voters are loyal.
fn nobody_came_forward(core: &Core) -> bool {
    let heard = later(core.heard.get(), core.voted.get());
    !leads(core) && core.clock.reading().ms_since(heard) >= core.timers.leader_silence_ms
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
    let metrics = core.metrics.borrow().clone();
    let heard_ms = core.clock.reading().ms_since(core.heard.get());
    PeerState {
        hears_leader: leads(core) && core.is_fit() || heard_ms < core.timers.leader_silence_ms,
        fit: core.is_fit(),
        last_log: core.logs.last_id(),
        has_membership: metrics.membership_config.nodes().next().is_some(),
    }
}

async fn should_campaign(core: &Core) -> bool {
    let membership = core.metrics.borrow().membership_config.clone();
    let voters: Vec<u64> = membership.voter_ids().collect();
    let mine = own_state(core);
    let asked = voters.iter().filter(|id| **id != core.me.0).map(|id| async move {
        let link = core.link(NodeId(*id))?;
        let state: PeerState = link.call(Lane::Fast, ASK, &(), ANSWER_WAIT).await.ok()?;
        Some((*id, state))
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut leaderless = vec![core.me.0];
    // In a joint configuration both halves must agree.
    let configs = membership.membership().get_joint_config();
    let agreed = |leaderless: &[u64]| {
        let of = |voters: &BTreeSet<u64>| voters.iter().filter(|id| leaderless.contains(id)).count();
        configs.iter().all(|voters| of(voters) > voters.len() / 2)
    };
    // As soon as enough have answered: whoever hangs would only give the others time to come to lead.
    while !agreed(&leaderless) {
        match asked.next().await {
            Some(Some((_, peer))) if peer.fit && peer.last_log > mine.last_log => return false,
            Some(Some((id, peer))) if !peer.hears_leader => leaderless.push(id),
            Some(_) => {}
            None => return false,
        }
    }
    true
}

fn leads(core: &Core) -> bool {
    core.metrics.borrow().state == ServerState::Leader
}

fn is_voter(core: &Core) -> bool {
    core.metrics
        .borrow()
        .membership_config
        .voter_ids()
        .any(|id| id == core.me.0)
}

fn later(a: Reading, b: Reading) -> Reading {
    if b.boot_ns > a.boot_ns { b } else { a }
}
