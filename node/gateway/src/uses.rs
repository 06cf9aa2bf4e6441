//! When tokens were last used: collected here, replicated once in a while in one command.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use mcp_model::ids::Id;
use mcp_store::view::HashBits;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// The uses since the last replication.
#[derive(Default)]
pub(crate) struct TokenUses {
    seen: DashMap<Id, u64, HashBits>,
}

impl TokenUses {
    /// Notes a use. The first of a period is as good as the last: the period is what the time is exact to.
    pub(crate) fn note(&self, token: Id, now_ms: u64) {
        if !self.seen.contains_key(&token) {
            self.seen.insert(token, now_ms);
        }
    }

    fn take(&self) -> Vec<(Id, u64)> {
        let mut taken = Vec::new();
        self.seen.retain(|id, at| {
            taken.push((*id, *at));
            false
        });
        taken
    }

    /// Hands the uses over, period by period, until told to stop. What cannot be handed over is forgotten: the next use
    /// tells as much.
    pub(crate) async fn run(self: Arc<Self>, cluster: Arc<dyn Cluster>, every_ms: u64, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(every_ms)) => {}
                () = stop.cancelled() => return,
            }
            let uses = self.take();
            if uses.is_empty() {
                continue;
            }
            if let Err(error) = cluster.record_token_use(uses).await {
                tracing::debug!(%error, "uses of tokens not recorded");
            }
        }
    }
}
