//! Reads that see everything that was acknowledged before them: an index from the leader, and this node's view brought up to it.

use std::time::Duration;

use crate::link::Lane;
use crate::node::Core;
use crate::rounds;
use crate::rpc::{Index, READ_INDEX};
use crate::write::WriteFailed;

/// The pause after a read index that failed.
const RETRY: Duration = Duration::from_millis(25);
/// How long a read index may take, tries included.
pub(crate) const READ_INDEX_WAIT: Duration = Duration::from_millis(1_000);

/// An index such that whoever has applied it has seen everything that was acknowledged before this call.
pub(crate) async fn read_index(core: &Core) -> Result<u64, WriteFailed> {
    let asked = async {
        loop {
            if let Index::At(index) = ask(core).await {
                return index;
            }
            // A round may fail because an election is under way: the next leader answers.
            tokio::time::sleep(RETRY).await;
        }
    };
    let index = tokio::time::timeout(READ_INDEX_WAIT, asked).await;
    index.map_err(|_| WriteFailed::NoLeader)
}

/// Brings this node's auth view up to an index that the leader gives after this call.
pub(crate) async fn freshen(core: &Core) -> Result<(), WriteFailed> {
    let index = read_index(core).await?;
    let mut at = core.replica.auth_index_watch();
    let reached = tokio::time::timeout(READ_INDEX_WAIT, at.wait_for(|at| *at >= index)).await;
    reached.map(|_| ()).map_err(|_| WriteFailed::NoLeader)
}

async fn ask(core: &Core) -> Index {
    let Some(leader) = core.leader() else {
        return Index::NotLeader;
    };
    if leader == core.me {
        return rounds::join(core).await;
    }
    let Some(link) = core.link(leader) else {
        return Index::NotLeader;
    };
    let answer = link.call(Lane::Fast, READ_INDEX, &(), READ_INDEX_WAIT).await;
    answer.unwrap_or(Index::NotLeader)
}
