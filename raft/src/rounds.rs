//! Read indexes, by rounds with a quorum. Who shares which round is [`mcp_model::office`]'s business; here is the asking.

use std::sync::Arc;
use std::time::Duration;

use mcp_model::office::Found;
use tokio::sync::oneshot;

use crate::node::Core;
use crate::rpc::Index;

/// Those who may wait for one round.
pub(crate) const WAITING_MAX: usize = 1_024;
/// Longest round. openraft itself gives each peer one heartbeat interval.
const ROUND_WAIT: Duration = Duration::from_millis(500);

/// Joins the next round on this node. `NotLeader` if it does not lead, or cannot show that it does.
pub(crate) async fn join(core: &Core) -> Index {
    let (tx, rx) = oneshot::channel();
    if !core.office.ask(tx) {
        return Index::NotLeader;
    }
    rx.await.unwrap_or(Index::NotLeader)
}

/// Runs rounds as long as anybody can ask.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        core.office.asked().await;
        while let Some(round) = core.office.begin_round() {
            let found = find(&core).await;
            core.office.end_round(round, found, &*core.clock);
        }
    }
}

async fn find(core: &Core) -> Option<Found> {
    core.office.term().filter(|_| core.is_fit())?;
    let confirmed = tokio::time::timeout(ROUND_WAIT, core.raft.get_read_log_id()).await;
    let (read, _) = confirmed.ok()?.ok()?;
    Some(Found {
        read_index: read.map_or(0, |id| id.index),
        current_term: core.metrics.borrow().current_term,
    })
}
