//! openraft's own storage suite on our log and state machine. It would not notice a completion that runs before the disk has
//! it; `store::log`'s tests do.

use std::sync::Arc;

use mcp_store::log::RaftLog;
use mcp_store::{Replica, ReplicaOptions};
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::logs::Logs;
use crate::machine::Machine;
use crate::mender::Mender;
use crate::types::{StorageError, TypeConfig};

struct Fresh;

impl StoreBuilder<TypeConfig, Logs, Machine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, Logs, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let options = ReplicaOptions {
            lease_ms: 2_000,
            had_data: false,
            random: Arc::new(|| 7),
        };
        let replica = Replica::open(dir.path(), options).unwrap();
        let log = RaftLog::open_for_suite(&dir.path().join("raft-log.redb"), Arc::new(|| 0)).unwrap();
        let logs = Logs::new(log, Arc::clone(&replica)).unwrap().impatient();
        // The suite applies without committing first, which consensus never does.
        let committed = tokio::sync::watch::Sender::new(Ok(u64::MAX)).subscribe();
        let mender = Arc::new(Mender::new(Arc::clone(&replica), logs.clone()));
        let machine = Machine::open(
            replica,
            mender,
            Arc::default(),
            committed,
            0,
            &dir.path().join("snapshots"),
        )
        .unwrap();
        Ok((dir, logs, machine))
    }
}

#[test]
fn the_storage_suite_passes() {
    Suite::test_all(Fresh).unwrap();
}
