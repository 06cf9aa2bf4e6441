//! Brings the state back after the disk has refused it, without a restart.
//!
//! The state on disk is behind: only a snapshot makes it durable. What is missing stands in the log, which is purged no further
//! than the state is durable. So the file is taken up from a fresh copy, and everything between there and where this process had
//! been is carried out again, before anybody may hold a lease.

use std::sync::Arc;
use std::time::Duration;

use mcp_store::{Replica, StoreError};
use tokio::sync::Mutex;

use crate::logs::Logs;
use crate::machine::Applied;

/// The first pause before a disk that refused is tried again, and the longest: each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Mends one replica.
pub(crate) struct Mender {
    replica: Arc<Replica>,
    logs: Logs,
    one: Mutex<()>,
}

impl Mender {
    pub(crate) fn new(replica: Arc<Replica>, logs: Logs) -> Mender {
        let one = Mutex::new(());
        Mender { replica, logs, one }
    }

    /// Resolves when the disk takes the state again and the state is where it was. Fails if the state is damaged.
    pub(crate) async fn mend(&self) -> Result<(), StoreError> {
        let _one = self.one.lock().await;
        let mut pause = PAUSE_MIN;
        loop {
            if let Some(why) = self.replica.gate().why_shut_for_good() {
                return Err(StoreError::Shut(why));
            }
            if !self.replica.is_refused() {
                return Ok(());
            }
            match self.try_once().await {
                Ok(()) => return Ok(()),
                Err(StoreError::Io(why)) => tracing::debug!(why, "the disk still refuses the state"),
                Err(error) => {
                    self.replica.fail(&error);
                    return Err(error);
                }
            }
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    async fn try_once(&self) -> Result<(), StoreError> {
        let reached = self.replica.reached();
        let mut at = blocking(&self.replica, Replica::begin_mending).await?;
        let mut applied = Applied::of(&self.replica)?;
        while at < reached {
            let read = self.logs.committed_entries(at + 1, reached + 1).await;
            let entries = read.map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let batch = applied.take_up(entries);
            let Some(last) = batch.last().map(|entry| entry.index) else {
                return Err(behind(at, reached));
            };
            if batch.first().map(|entry| entry.index) != Some(at + 1) {
                return Err(behind(at, reached));
            }
            let mark = applied.encode();
            blocking(&self.replica, move |replica| replica.replay(&batch, &mark)).await?;
            at = last;
        }
        self.replica.end_mending();
        Ok(())
    }
}

fn behind(at: u64, reached: u64) -> StoreError {
    StoreError::Corrupt(format!(
        "the state fell back from index {reached} to {at}, and the log does not begin there"
    ))
}

/// Runs what waits for the disk where it keeps nobody else.
pub(crate) async fn blocking<T: Send + 'static>(
    replica: &Arc<Replica>,
    f: impl FnOnce(&Replica) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let replica = Arc::clone(replica);
    let result = tokio::task::spawn_blocking(move || f(&replica)).await;
    result.unwrap_or_else(|error| Err(StoreError::Corrupt(error.to_string())))
}
