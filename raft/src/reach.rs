//! Who answers: every node asks every other about once a second, so that any of them can tell people how the cluster is.
//!
//! Nothing is decided by this. Leases, elections and receipts have their own questions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use mcp_model::ids::NodeId;

use crate::link::{Lane, LinkError};
use crate::node::Core;
use crate::rpc::{ASK, PeerState};

const ASK_EVERY: Duration = Duration::from_secs(1);
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// Whether each member answered when it was last asked.
#[derive(Default)]
pub(crate) struct Reach(Mutex<HashMap<NodeId, bool>>);

impl Reach {
    /// Says it when a member begins to answer, or ceases to: once.
    fn tell(&self, node: NodeId, error: Option<&LinkError>) {
        match (self.of(node), error) {
            (None | Some(true), Some(error)) => tracing::warn!(%node, %error, "a member does not answer"),
            (Some(false), None) => tracing::info!(%node, "a member answers again"),
            (Some(false), Some(_)) | (None | Some(true), None) => {}
        }
    }

    /// `None`: it was not asked yet.
    pub(crate) fn of(&self, node: NodeId) -> Option<bool> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&node)
            .copied()
    }
}

/// Asks as long as the node runs.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        look_around(&core).await;
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Asks everybody once.
pub(crate) async fn look_around(core: &Arc<Core>) {
    let members: Vec<NodeId> = core.membership.borrow().nodes().map(|(id, _)| NodeId(*id)).collect();
    let asked = members.into_iter().filter(|id| *id != core.me).map(|id| {
        let core = Arc::clone(core);
        async move {
            let link = core.link(id)?;
            let answer: Result<PeerState, _> = link.call(Lane::Fast, ASK, &(), ANSWER_WAIT).await;
            core.reach.tell(id, answer.as_ref().err());
            Some((id, answer.is_ok()))
        }
    });
    let answers = join_all(asked).await.into_iter().flatten().collect();
    *core.reach.0.lock().unwrap_or_else(PoisonError::into_inner) = answers;
}
