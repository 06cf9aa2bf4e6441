//! openraft's state machine on top of `store::Replica`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_model::ids::NodeId;
use mcp_store::log::LogError;
use mcp_store::{ApplyEntry, Replica, StoreError, snapshot};
use openraft::storage::RaftStateMachine;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, RaftTypeConfig, Snapshot, SnapshotMeta, StorageIOError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::compare::{self, Compare};
use crate::mender::{Mender, blocking};
use crate::outside::Member;
use crate::types::{Batch, Entry, LogId, Outcomes, Peer, SnapshotFile, StorageError, Stored, TypeConfig};

/// The pause before something is tried again that the disk has refused.
const RETRY: Duration = Duration::from_millis(500);

/// What we store with the applied state: where openraft is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    last: Option<LogId>,
    membership: Stored,
}

impl Applied {
    /// What stands in the state of a replica.
    pub(crate) fn of(replica: &Replica) -> Result<Applied, StoreError> {
        replica
            .applied_mark()?
            .map_or_else(|| Ok(Applied::default()), |mark| Applied::decode(&mark))
    }

    fn decode(mark: &[u8]) -> Result<Applied, StoreError> {
        postcard::from_bytes(mark).map_err(|error| StoreError::Corrupt(format!("raft's mark does not decode: {error}")))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data always encodes")
    }

    /// The last entry that was applied.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    /// Everybody in the membership.
    pub(crate) fn members(&self) -> Vec<Member> {
        let members = self.membership.nodes().map(|(id, peer)| Member {
            id: NodeId(*id),
            name: peer.name.clone(),
            address: peer.address.clone(),
        });
        members.collect()
    }

    /// Goes on by these entries, and says what the state is to carry out.
    pub(crate) fn take_up(&mut self, entries: impl IntoIterator<Item = Entry>) -> Vec<ApplyEntry> {
        let take = |entry: Entry| {
            self.last = Some(entry.log_id);
            let commands = match entry.payload {
                EntryPayload::Normal(Batch(commands)) => commands,
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Membership(membership) => {
                    self.membership = Stored::new(Some(entry.log_id), membership);
                    Vec::new()
                }
            };
            ApplyEntry {
                index: entry.log_id.index,
                commands,
            }
        };
        entries.into_iter().map(take).collect()
    }
}

type Meta = SnapshotMeta<u64, Peer>;
type Current = Arc<Mutex<Option<(Meta, PathBuf)>>>;

/// The state machine of one node.
pub(crate) struct Machine {
    replica: Arc<Replica>,
    mender: Arc<Mender>,
    compare: Arc<Compare>,
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
    mender: Arc<Mender>,
    dir: PathBuf,
    current: Current,
}

impl Machine {
    pub(crate) fn open(
        replica: Arc<Replica>,
        mender: Arc<Mender>,
        compare: Arc<Compare>,
        committed: watch::Receiver<Result<u64, String>>,
        purged: u64,
        dir: &Path,
    ) -> Result<Machine, StoreError> {
        let applied = Applied::of(&replica)?;
        fs::create_dir_all(dir).map_err(|e| StoreError::Io(e.to_string()))?;
        let current = newest(dir, purged)?;
        Ok(Machine {
            membership: watch::Sender::new(applied.membership.clone()),
            applied,
            replica,
            mender,
            compare,
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

    async fn carry_out(&mut self, entries: Vec<Entry>) -> Result<Vec<Outcomes>, StorageError> {
        let mut applied = self.applied.clone();
        let batch = applied.take_up(entries);
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
        let (batch, mark) = (Arc::new(batch), applied.encode());
        let outcomes = self.until_taken(move |replica| replica.apply(&batch, &mark)).await?;
        if applied.membership != self.applied.membership {
            self.membership.send_replace(applied.membership.clone());
        }
        self.applied = applied;
        Ok(outcomes.into_iter().map(Outcomes).collect())
    }

    /// Tries until the disk has taken it: to consensus it is a disk that takes very long. Fails if the state is damaged.
    async fn until_taken<T: Send + 'static>(
        &self,
        f: impl Fn(&Replica) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, StorageError> {
        let taken = until_taken(&self.replica, &self.mender, f).await;
        taken.map_err(|error| StorageIOError::write_state_machine(&error).into())
    }
}

async fn until_taken<T: Send + 'static>(
    replica: &Arc<Replica>,
    mender: &Mender,
    f: impl Fn(&Replica) -> Result<T, StoreError> + Clone + Send + 'static,
) -> Result<T, StoreError> {
    loop {
        match blocking(replica, f.clone()).await {
            Err(StoreError::Io(why)) => {
                tracing::warn!(why, "the disk refuses; trying again");
                tokio::time::sleep(RETRY).await;
                mender.mend().await?;
            }
            Err(StoreError::Shut(_)) => mender.mend().await?,
            result => return result,
        }
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
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut stretch = Vec::with_capacity(entries.len());
        for entry in entries {
            let point = compare::is_point(&entry);
            stretch.push(entry);
            if point {
                // The state is held as of this entry, so nothing behind it is carried out with it.
                outcomes.extend(self.carry_out(std::mem::take(&mut stretch)).await?);
                self.compare.hold(&self.replica);
            }
        }
        outcomes.extend(self.carry_out(stretch).await?);
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            replica: Arc::clone(&self.replica),
            mender: Arc::clone(&self.mender),
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
        // A damaged file from here on ends this replica's service: the log behind the snapshot is as good as gone.
        let installed = self.until_taken(move |replica| {
            let installed = replica.install_snapshot(&path).and_then(|info| {
                let applied = Applied::decode(&info.mark)?;
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
            let (from, to) = (snapshot.path().to_owned(), kept.clone());
            self.until_taken(move |_| fs::rename(&from, &to).map_err(|e| StoreError::Io(e.to_string())))
                .await?;
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
        let dir = self.dir.clone();
        let built = until_taken(&self.replica, &self.mender, move |replica| build(replica, &dir)).await;
        let (meta, path) = built.map_err(|error| {
            self.replica.fail(&error);
            StorageIOError::write_snapshot(None, &error)
        })?;
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
    fs::rename(&fresh, &path).map_err(|e| StoreError::Io(e.to_string()))?;
    Ok((meta, path))
}

fn meta_of(mark: &[u8]) -> Result<Meta, StoreError> {
    let applied: Applied = if mark.is_empty() {
        Applied::default()
    } else {
        Applied::decode(mark)?
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
    for entry in fs::read_dir(dir).map_err(|e| StoreError::Io(e.to_string()))? {
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
            Err(StoreError::Corrupt(why)) => put_away(&path, &why),
            Err(error) => tracing::warn!(file = %path.display(), %error, "a snapshot cannot be read"),
        }
    }
    Ok(found)
}

/// Renames a damaged snapshot. Under the same name again, the newer one takes the place of the older.
pub(crate) fn put_away(path: &Path, why: &str) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".corrupt");
    match fs::rename(path, &aside) {
        Ok(()) => tracing::error!(file = %path.display(), why, "a damaged snapshot was set aside"),
        Err(error) => tracing::error!(file = %path.display(), why, %error, "a damaged snapshot stays"),
    }
}

fn discard(path: &Path) {
    fs::remove_file(path).unwrap_or_else(|error| tracing::warn!(%error, "an old snapshot stays"));
}
