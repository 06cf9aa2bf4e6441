//! Read indexes, by rounds: whoever asks while a round is under way joins the next one, so that every round has begun after
//! the arrival of all who share it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::node::Core;
use crate::rpc::Index;

/// Those who may wait for one round.
pub(crate) const WAITING_MAX: usize = 1_024;
/// Longest round. openraft itself gives each peer one heartbeat interval.
const ROUND_WAIT: Duration = Duration::from_millis(500);

/// Where to join.
pub(crate) type Rounds = mpsc::Sender<oneshot::Sender<Index>>;

/// Joins the next round on this node. `NotLeader` if it does not lead, or cannot show that it does.
pub(crate) async fn join(rounds: &Rounds) -> Index {
    let (tx, rx) = oneshot::channel();
    if rounds.try_send(tx).is_err() {
        return Index::NotLeader;
    }
    rx.await.unwrap_or(Index::NotLeader)
}

/// Runs rounds as long as anybody can ask.
pub(crate) async fn run(core: Arc<Core>, mut asked: mpsc::Receiver<oneshot::Sender<Index>>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, WAITING_MAX).await > 0 {
        let index = round(&core).await;
        for answer in waiting.drain(..) {
            // Whoever has given up needs no answer.
            answer.send(index).unwrap_or(());
        }
    }
}

async fn round(core: &Core) -> Index {
    let Some(term) = core.office.term().filter(|_| core.is_fit()) else {
        return Index::NotLeader;
    };
    let confirmed = tokio::time::timeout(ROUND_WAIT, core.raft.get_read_log_id()).await;
    let Ok(Ok((read, _))) = confirmed else {
        return Index::NotLeader;
    };
    // The round may have been another office's: then it has another floor.
    if core.office.term() != Some(term) || core.metrics.borrow().current_term != term.number {
        return Index::NotLeader;
    }
    Index::At(read.map_or(0, |id| id.index).max(term.floor))
}
