//! openraft's state machine on top of `store::Replica`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mcp_store::log::LogError;
use mcp_store::{ApplyEntry, Replica, StoreError, snapshot};
use openraft::storage::RaftStateMachine;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, RaftTypeConfig, Snapshot, SnapshotMeta, StorageIOError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::types::{Batch, Entry, LogId, Outcomes, Peer, SnapshotFile, StorageError, Stored, TypeConfig};

/// What we store with the applied state: where openraft is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId>,
    membership: Stored,
}

type Meta = SnapshotMeta<u64, Peer>;
type Current = Arc<Mutex<Option<(Meta, PathBuf)>>>;

/// The state machine of one node.
pub(crate) struct Machine {
    replica: Arc<Replica>,
    applied: Applied,
    membership: watch::Sender<Stored>,
    committed: watch::Receiver<Result<u64, String>>,
    dir: PathBuf,
    current: Current,
    transfers: u64,
}

/// Builds snapshots while the machine goes on.
pub(crate) struct Builder {
    replica: Arc<Replica>,
    dir: PathBuf,
    current: Current,
}

impl Machine {
    pub(crate) fn open(
        replica: Arc<Replica>,
        committed: watch::Receiver<Result<u64, String>>,
        purged: u64,
        dir: &Path,
    ) -> Result<Machine, StoreError> {
        let applied: Applied = match replica.applied_mark()? {
            Some(mark) => decode(&mark)?,
            None => Applied::default(),
        };
        std::fs::create_dir_all(dir).map_err(|e| StoreError::Io(e.to_string()))?;
        let current = newest(dir, purged)?;
        Ok(Machine {
            membership: watch::Sender::new(applied.membership.clone()),
            applied,
            replica,
            committed,
            dir: dir.to_owned(),
            current: Arc::new(Mutex::new(current)),
            transfers: 0,
        })
    }

    /// The membership that was last applied.
    pub(crate) fn membership(&self) -> watch::Receiver<Stored> {
        self.membership.subscribe()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Replica) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let replica = Arc::clone(&self.replica);
        let result = tokio::task::spawn_blocking(move || f(&replica)).await;
        let result = result.map_err(|error| StorageIOError::write_state_machine(&error))?;
        result.map_err(|error| StorageIOError::write_state_machine(&error).into())
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Stored), StorageError> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied.clone();
        let mut batch = Vec::new();
        for entry in entries {
            applied.last = Some(entry.log_id);
            let commands = match entry.payload {
                EntryPayload::Normal(Batch(commands)) => commands,
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Membership(membership) => {
                    applied.membership = Stored::new(Some(entry.log_id), membership);
                    Vec::new()
                }
            };
            batch.push(ApplyEntry {
                index: entry.log_id.index,
                commands,
            });
        }
        let Some(last) = batch.last().map(|entry| entry.index) else {
            return Ok(Vec::new());
        };
        // Rule 7: what this node may confirm it must know again after a crash.
        let durable = self
            .committed
            .wait_for(|committed| committed.as_ref().map_or(true, |at| *at >= last))
            .await
            .map(|committed| committed.clone());
        let durable = durable.map_err(|error| StorageIOError::write_state_machine(&error))?;
        durable.map_err(|why| StorageIOError::write_state_machine(&LogError::Failed(why)))?;
        let mark = encode(&applied);
        let outcomes = self.blocking(move |replica| replica.apply(&batch, &mark)).await?;
        if applied.membership != self.applied.membership {
            self.membership.send_replace(applied.membership.clone());
        }
        self.applied = applied;
        Ok(outcomes.into_iter().map(Outcomes).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            replica: Arc::clone(&self.replica),
            dir: self.dir.clone(),
            current: Arc::clone(&self.current),
        }
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<<TypeConfig as RaftTypeConfig>::SnapshotData>, StorageError> {
        // A name of its own: another transfer may begin while this one is being installed.
        self.transfers += 1;
        let name = format!("incoming-{}.part", self.transfers);
        Ok(Box::new(SnapshotFile::temporary(self.dir.join(name))))
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<SnapshotFile>) -> Result<(), StorageError> {
        let path = snapshot.path().to_owned();
        let wanted = meta.last_log_id;
        // Whatever goes wrong from here on ends this replica's service: the log behind the snapshot is as good as gone.
        let installed = self.blocking(move |replica| {
            let installed = replica.install_snapshot(&path).and_then(|info| {
                let applied: Applied = decode(&info.mark)?;
                if applied.last != wanted {
                    return Err(StoreError::Corrupt(
                        "the snapshot is not the one that was announced".to_owned(),
                    ));
                }
                Ok(applied)
            });
            installed.inspect_err(|error| replica.fail(error))
        });
        let applied = installed.await?;
        self.membership.send_replace(applied.membership.clone());
        self.applied = applied;
        let kept = self.dir.join(file_name(meta));
        if kept != snapshot.path() {
            std::fs::rename(snapshot.path(), &kept).map_err(|e| StorageIOError::write_snapshot(None, &e))?;
        }
        keep_only(&self.current, meta.clone(), kept);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(current.map(|(meta, path)| Snapshot {
            meta,
            snapshot: Box::new(SnapshotFile::kept(path)),
        }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let (replica, dir) = (Arc::clone(&self.replica), self.dir.clone());
        let built = tokio::task::spawn_blocking(move || build(&replica, &dir)).await;
        let built = built.map_err(|error| StorageIOError::write_snapshot(None, &error))?;
        let (meta, path) = built.map_err(|error| StorageIOError::write_snapshot(None, &error))?;
        keep_only(&self.current, meta.clone(), path.clone());
        Ok(Snapshot {
            meta,
            snapshot: Box::new(SnapshotFile::kept(path)),
        })
    }
}

fn build(replica: &Replica, dir: &Path) -> Result<(Meta, PathBuf), StoreError> {
    let fresh = dir.join("building.part");
    let info = replica.write_snapshot(&fresh)?;
    replica.flush()?;
    let meta = meta_of(&info.mark)?;
    let path = dir.join(file_name(&meta));
    std::fs::rename(&fresh, &path).map_err(|e| StoreError::Io(e.to_string()))?;
    Ok((meta, path))
}

fn meta_of(mark: &[u8]) -> Result<Meta, StoreError> {
    let applied: Applied = if mark.is_empty() {
        Applied::default()
    } else {
        decode(mark)?
    };
    let at = applied
        .last
        .map_or_else(|| "0".to_owned(), |id| format!("{}-{}", id.leader_id.term, id.index));
    Ok(Meta {
        last_log_id: applied.last,
        last_membership: applied.membership,
        snapshot_id: at,
    })
}

fn file_name(meta: &Meta) -> String {
    format!("{}.snap", meta.snapshot_id)
}

/// Remembers the newest snapshot and removes the one before.
fn keep_only(current: &Current, meta: Meta, path: PathBuf) {
    let before = current
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .replace((meta, path.clone()));
    if let Some((_, old)) = before.filter(|(_, old)| *old != path) {
        discard(&old);
    }
}

/// The newest whole snapshot of an earlier run. A damaged one is set aside: the state does not come from it.
/// One that ends before the log begins is of no use to anybody either: a follower would be handed it again and again.
fn newest(dir: &Path, purged: u64) -> Result<Option<(Meta, PathBuf)>, StoreError> {
    let mut found: Option<(Meta, PathBuf)> = None;
    for entry in std::fs::read_dir(dir).map_err(|e| StoreError::Io(e.to_string()))? {
        let path = entry.map_err(|e| StoreError::Io(e.to_string()))?.path();
        if path.extension().is_some_and(|e| e == "part") {
            discard(&path);
        }
        if path.extension().is_none_or(|e| e != "snap") {
            continue;
        }
        match snapshot::verify(&path).and_then(|info| meta_of(&info.mark)) {
            Ok(meta) if meta.last_log_id.map_or(0, |id| id.index) < purged => discard(&path),
            Ok(meta)
                if found
                    .as_ref()
                    .is_none_or(|(newest, _)| newest.last_log_id < meta.last_log_id) =>
            {
                if let Some((_, older)) = found.replace((meta, path)) {
                    discard(&older);
                }
            }
            Ok(_) => discard(&path),
            Err(error) => tracing::warn!(file = %path.display(), %error, "a damaged snapshot is not used"),
        }
    }
    Ok(found)
}

fn discard(path: &Path) {
    std::fs::remove_file(path).unwrap_or_else(|error| tracing::warn!(%error, "an old snapshot stays"));
}

fn encode(applied: &Applied) -> Vec<u8> {
    postcard::to_stdvec(applied).expect("plain data always encodes")
}

fn decode(mark: &[u8]) -> Result<Applied, StoreError> {
    postcard::from_bytes(mark).map_err(|error| StoreError::Corrupt(format!("raft's mark does not decode: {error}")))
}
