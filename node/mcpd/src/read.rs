//! Reads of this node's replica.

use std::time::Duration;

use mcp_api::problem::Code;
use mcp_model::clock::Reading;
use mcp_model::tables::Tables;

use crate::fault::Fault;
use crate::limits;
use crate::router::Api;

/// The lease under which something was looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease(Option<Reading>);

impl Api {
    /// Reads the state in one transaction, off the threads that serve sockets.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&dyn Tables) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let replica = self.replica.clone();
        let read = tokio::task::spawn_blocking(move || replica.read(f)).await;
        let broken = |_| Fault::new(Code::StoreFailed, "this node cannot read its store");
        Ok(read.map_err(broken)??)
    }

    /// The lease that is held now: taken before a look that is to be vouched for.
    pub(crate) fn lease(&self) -> Lease {
        Lease(self.replica.gate().deadline())
    }

    /// Whether this node vouches for what was read since `lease` was taken: that lease still holds, by a clock read now.
    pub(crate) fn vouch(&self, lease: Lease) -> Result<(), Fault> {
        if self.replica.gate().vouches(lease.0, self.clock.reading()) {
            return Ok(());
        }
        Err(Fault::no_lease(self.replica.gate().why_shut()))
    }

    /// Waits until this node has applied `index`, for `limit` at most.
    pub(crate) async fn reach(&self, index: u64, limit: Duration) -> Result<(), Fault> {
        let mut applied = self.replica.auth_index_watch();
        let reached = tokio::time::timeout(limit, applied.wait_for(|at| *at >= index)).await;
        if matches!(reached, Ok(Ok(_))) {
            return Ok(());
        }
        let at = self.replica.auth_index();
        Err(Fault::new(
            Code::IndexNotReached,
            format!("this node has applied index {at} and not yet {index}"),
        )
        .hint("try again in a moment, or ask another node"))
    }

    /// Waits until this node has applied all that was acknowledged anywhere before this call.
    pub(crate) async fn catch_up(&self) -> Result<(), Fault> {
        let asked = tokio::time::timeout(limits::READ_INDEX_WAIT, self.writer.read_index()).await;
        let late = |_| Fault::new(Code::NoLeader, "no leader answered in time").hint("try again in a moment");
        let index = asked.map_err(late)??;
        self.reach(index, limits::INDEX_WAIT).await
    }
}
