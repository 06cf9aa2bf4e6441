//! A leader whose disk hangs or fails must not go on leading, and a node whose consensus has died must not go on admitting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcp_store::StoreError;

use crate::node::Core;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A flush that takes longer than this makes a leader step aside: well below a lease, or nobody's lease could be renewed.
const FLUSH_US_MAX: u64 = 1_000_000;
/// Bytes of log after which a snapshot is due.
const SNAPSHOT_BYTES: u64 = 16 * 1024 * 1024;

/// Watches the disk and the consensus core.
pub(crate) async fn run(core: Arc<Core>) {
    let failed = core.logs.store().failed();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = core.stopped() => return,
        }
        let log_failed = failed.borrow().clone();
        if let Some(why) = log_failed {
            core.replica.fail(&StoreError::Io(format!("raft log: {why}")));
            core.set_fit(false);
            return;
        }
        if core.metrics.has_changed().is_err() {
            core.replica.fail(&StoreError::Io("consensus is gone".to_owned()));
            core.set_fit(false);
            return;
        }
        let running = core.metrics.borrow().running_state.clone();
        if let Err(error) = running {
            core.replica
                .fail(&StoreError::Io(format!("consensus stopped: {error}")));
            core.set_fit(false);
            return;
        }
        core.set_fit(
            core.logs.store().health().pending_flush_us <= FLUSH_US_MAX && core.replica.gate().why_shut().is_none(),
        );
        core.tidy_ledger();
        if core.logs.appended_bytes().load(Ordering::Relaxed) > SNAPSHOT_BYTES {
            core.logs.appended_bytes().store(0, Ordering::Relaxed);
            if let Err(error) = core.raft.trigger().snapshot().await {
                tracing::warn!(%error, "no snapshot could be begun");
            }
        }
    }
}
