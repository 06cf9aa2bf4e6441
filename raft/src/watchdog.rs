//! A leader whose disk hangs, is full or refuses must not go on leading, and a node whose consensus has died must not go on
//! admitting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcp_store::StoreError;
use mcp_store::gate::Refused;
use tokio::task::JoinHandle;

use crate::disk::Judge;
use crate::node::Core;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of log after which a snapshot is due.
const SNAPSHOT_BYTES: u64 = 16 * 1024 * 1024;

/// Watches the disk and the consensus core.
pub(crate) async fn run(core: Arc<Core>) {
    let mut log_failed = core.logs.store().failed();
    let mut judge = Judge::default();
    let mut mending: Option<JoinHandle<_>> = None;
    loop {
        // A log that the disk refuses must not wait for the next look.
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Ok(()) = log_failed.changed() => {}
            () = core.stopped() => return,
        }
        let refused = log_failed.borrow_and_update().clone();
        look_at_log(&core, refused);
        if let Some(why) = death_of_consensus(&core) {
            core.replica.gate().shut(&why);
            core.replica.fail(&StoreError::Shut(why.clone()));
            core.set_wrong(vec![why]);
            return;
        }
        // Whoever else waits for the state mends it too; one does it, the others wait: so no more than one waits from here.
        if core.replica.is_refused() && mending.as_ref().is_none_or(JoinHandle::is_finished) {
            let core = Arc::clone(&core);
            mending = Some(tokio::spawn(async move { core.mender.mend().await }));
        }
        let mut wrong: Vec<String> = core.why_unfit().into_iter().collect();
        let health = core.logs.store().health();
        wrong.extend(judge.look(&core.disk, &health, (core.free_bytes)(), core.clock.reading()));
        // The log's refusal is known to both.
        wrong.dedup();
        core.set_wrong(wrong);
        core.tidy_ledger();
        snapshot_if_due(&core).await;
    }
}

fn look_at_log(core: &Core, refused: Option<String>) {
    let known = core.replica.gate().is_refused(Refused::Log);
    match refused {
        Some(why) if !known => core.replica.suspend_for_log(&why),
        None if known => core.replica.gate().resume(Refused::Log),
        _ => {}
    }
}

fn death_of_consensus(core: &Core) -> Option<String> {
    if core.metrics.has_changed().is_err() {
        return Some("consensus is gone".to_owned());
    }
    let running = core.metrics.borrow().running_state.clone();
    running.err().map(|error| format!("consensus stopped: {error}"))
}

async fn snapshot_if_due(core: &Core) {
    let due = core.logs.appended_bytes().load(Ordering::Relaxed) > SNAPSHOT_BYTES;
    let wanted = core.links.snapshot_wanted().swap(false, Ordering::AcqRel);
    if !due && !wanted {
        return;
    }
    core.logs.appended_bytes().store(0, Ordering::Relaxed);
    if let Err(error) = core.raft.trigger().snapshot().await {
        tracing::warn!(%error, "no snapshot could be begun");
    }
}
