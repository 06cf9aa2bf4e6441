//! The power goes after operation n of the disk, for every n of a script in which entries are appended, committed, applied, packed,
//! purged, truncated and replaced by another's snapshot. What is left, of the writes since the last sync none, some or all, is opened as a
//! node opens it, and compared with what had been acknowledged by then.
//!
//! kill -9 at random hits the moment between two steps once in a while; this hits each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_model::ids::NodeId;
use mcp_store::faults::{Faults, KEPT, Kept};
use mcp_store::log::{Mark, RaftLog};
use mcp_store::{Replica, ReplicaOptions};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{EntryPayload, LeaderId, RaftSnapshotBuilder, SnapshotMeta};

use crate::logs::Logs;
use crate::machine::Machine;
use crate::mender::Mender;
use crate::recover::{self, LOG_FILE, Opened, Opening, SNAPSHOTS};
use crate::types::{Entry, LogId, Peer, Vote};

/// How long one life may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Where the snapshot of another node ends.
const INSTALLED: u64 = 20;
/// Operations of the disk without which the script has tested nothing.
const OPERATIONS_MIN: u64 = 80;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, 1), index)
}

fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    let entry = |index| Entry {
        log_id: id(term, index),
        payload: EntryPayload::Blank,
    };
    indexes.map(entry).collect()
}

fn options(had_data: bool) -> ReplicaOptions {
    ReplicaOptions {
        lease_ms: 2_000,
        had_data,
        random: Arc::new(|| 7),
    }
}

fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// What others were told, and so may count on.
#[derive(Default, Clone, Debug)]
struct Told {
    vote: Option<Vote>,
    /// Terms of the entries that were acknowledged, by index. Those that are being truncated are nobody's any more.
    entries: BTreeMap<u64, u64>,
    /// How far the state was confirmed to be.
    confirmed: u64,
    /// How far the log was told to begin behind.
    purged: u64,
}

/// The stores of one node on a disk that obeys.
struct Life {
    logs: Logs,
    machine: Machine,
    told: Arc<Mutex<Told>>,
    dir: PathBuf,
}

impl Life {
    fn begin(faults: &Arc<Faults>, dir: &Path, told: &Arc<Mutex<Told>>) -> Option<Life> {
        // The power may go while they are being made: then nothing was told to anybody.
        let replica = Replica::open_faulty(faults, dir, options(false)).ok()?;
        let log = RaftLog::open_faulty(faults, &dir.join(LOG_FILE), Arc::new(|| 0)).ok()?;
        let logs = Logs::new(log, Arc::clone(&replica)).ok()?;
        let mender = Arc::new(Mender::new(Arc::clone(&replica), logs.clone()));
        let machine = Machine::open(
            replica,
            mender,
            Arc::default(),
            logs.committed(),
            0,
            &dir.join(SNAPSHOTS),
        )
        .ok()?;
        Some(Life {
            logs,
            machine,
            told: Arc::clone(told),
            dir: dir.to_owned(),
        })
    }

    fn tell(&self, what: impl FnOnce(&mut Told)) {
        what(&mut self.told.lock().unwrap());
    }

    async fn vote(&mut self, term: u64) {
        let vote = Vote::new(term, 1);
        self.logs.save_vote(&vote).await.unwrap();
        self.tell(|told| told.vote = Some(vote));
    }

    async fn append(&mut self, term: u64, indexes: std::ops::RangeInclusive<u64>) {
        self.logs.blocking_append(entries(term, indexes.clone())).await.unwrap();
        self.tell(|told| told.entries.extend(indexes.map(|index| (index, term))));
    }

    async fn truncate(&mut self, term: u64, from: u64) {
        self.tell(|told| drop(told.entries.split_off(&from)));
        self.logs.truncate(id(term, from)).await.unwrap();
    }

    /// Commits up to an entry and carries out what is new.
    async fn apply(&mut self, term: u64, indexes: std::ops::RangeInclusive<u64>) {
        let last = *indexes.end();
        self.logs.save_committed(Some(id(term, last))).await.unwrap();
        self.machine.apply(entries(term, indexes)).await.unwrap();
        self.tell(|told| told.confirmed = last);
    }

    async fn pack(&mut self) {
        let mut builder = self.machine.get_snapshot_builder().await;
        builder.build_snapshot().await.unwrap();
    }

    async fn purge(&mut self, term: u64, index: u64) {
        self.logs.purge(id(term, index)).await.unwrap();
        self.tell(|told| told.purged = index);
    }

    async fn install(&mut self, (meta, file): &Donated) {
        let incoming = self.machine.begin_receiving_snapshot().await.unwrap();
        std::fs::copy(file, incoming.path()).unwrap();
        self.machine.install_snapshot(meta, incoming).await.unwrap();
        self.tell(|told| told.confirmed = INSTALLED);
    }

    async fn live(mut self, donated: Arc<Donated>) {
        self.vote(1).await;
        self.append(1, 1..=4).await;
        self.apply(1, 1..=3).await;
        self.pack().await;
        self.apply(1, 4..=4).await;
        self.purge(1, 3).await;
        self.append(1, 5..=7).await;
        self.vote(2).await;
        self.truncate(1, 6).await;
        self.append(2, 6..=9).await;
        self.apply(1, 5..=5).await;
        self.apply(2, 6..=9).await;
        // Not packed since: whatever purges must see to the state itself.
        self.purge(2, 8).await;
        self.pack().await;
        self.install(&donated).await;
        self.purge(2, INSTALLED).await;
        self.append(2, INSTALLED + 1..=INSTALLED + 3).await;
        self.apply(2, INSTALLED + 1..=INSTALLED + 2).await;
        self.vote(3).await;
        assert!(self.dir.exists());
    }
}

type Donated = (SnapshotMeta<u64, Peer>, PathBuf);

/// The snapshot of a node that is further.
async fn donated(dir: &Path) -> Donated {
    let replica = Replica::open(dir, options(false)).unwrap();
    let log = RaftLog::open_or_create(&dir.join(LOG_FILE), Arc::new(|| 0)).unwrap();
    let logs = Logs::new(log, Arc::clone(&replica)).unwrap();
    let mender = Arc::new(Mender::new(Arc::clone(&replica), logs.clone()));
    let mut machine = Machine::open(
        replica,
        mender,
        Arc::default(),
        logs.committed(),
        0,
        &dir.join(SNAPSHOTS),
    )
    .unwrap();
    let mut logs = logs;
    logs.save_committed(Some(id(2, INSTALLED))).await.unwrap();
    machine.apply(entries(2, 1..=INSTALLED)).await.unwrap();
    let built = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    (built.meta.clone(), built.snapshot.path().to_owned())
}

/// One life, until its power goes or its script ends. Says whether the power went.
async fn life(faults: &Arc<Faults>, dir: &Path, told: &Arc<Mutex<Told>>, donated: &Arc<Donated>) -> bool {
    let Some(life) = Life::begin(faults, dir, told) else {
        return true;
    };
    let log = life.logs.store().clone();
    let mut script = tokio::spawn(life.live(Arc::clone(donated)));
    let gone = async {
        while !faults.is_cut() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ended = tokio::time::timeout(LIMIT, async {
        tokio::select! {
            ended = &mut script => ended.is_ok(),
            () = gone => false,
        }
    });
    let ended = ended.await.expect("a life ends or its power goes");
    assert!(ended || faults.is_cut(), "the script failed, and not for want of power");
    script.abort();
    tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    !ended
}

/// Opens what is left and compares it with what was told.
fn check(left: &Path, told: &Told, when: &str) {
    let opening = Opening {
        dir: left.to_owned(),
        had_data: true,
        lease_ms: 2_000,
        me: NodeId(1),
        known: Vec::new(),
        now_ms: 1,
        random: Arc::new(|| 1),
        ticks: Arc::new(|| 0),
    };
    let whole = match recover::open(opening) {
        Ok(Opened::Whole(whole)) => whole,
        Ok(Opened::LogLost(lost)) => panic!("{when}: the log is lost: {}", lost.why),
        Err(error) => panic!("{when}: {error}"),
    };
    let aside = std::fs::read_dir(left).unwrap().map(|entry| entry.unwrap().file_name());
    let aside: Vec<_> = aside
        .filter(|name| name.to_string_lossy().contains("corrupt"))
        .collect();
    assert!(
        aside.is_empty(),
        "{when}: a power cut damages nothing, but {aside:?} was set aside"
    );
    let vote: Option<Vote> = whole
        .log
        .mark(Mark::Vote)
        .unwrap()
        .map(|b| postcard::from_bytes(&b).unwrap());
    assert!(vote >= told.vote, "{when}: the vote is {vote:?}");
    let committed = whole.log.mark(Mark::Committed).unwrap();
    let committed: Option<LogId> = committed.and_then(|bytes| postcard::from_bytes(&bytes).unwrap());
    let committed = committed.map_or(0, |id| id.index);
    let (state, purged) = (
        whole.replica.auth_index(),
        whole.log.purged().unwrap().map_or(0, |p| p.index),
    );
    assert!(purged >= told.purged, "{when}: the log begins behind {purged} again");
    assert!(
        state >= purged,
        "{when}: the state ends at {state}, the log begins behind {purged}"
    );
    assert!(
        state.max(committed) >= told.confirmed,
        "{when}: knows {state} and {committed}"
    );
    // What the state has taken up was committed, here or by the snapshot's node.
    assert!(
        state <= committed || state == INSTALLED,
        "{when}: the state is at {state}, committed {committed}"
    );
    let records = whole.log.read(0..u64::MAX, usize::MAX).unwrap();
    let found: BTreeMap<u64, u64> = records
        .iter()
        .map(|record| {
            let entry: Entry = postcard::from_bytes(&record.bytes).unwrap();
            (record.index, entry.log_id.leader_id.term)
        })
        .collect();
    let begin = found.keys().next().copied().unwrap_or(purged + 1);
    assert!(
        begin <= state.max(purged) + 1,
        "{when}: a hole between {state} and {begin}"
    );
    assert!(
        found.keys().copied().eq(begin..begin + found.len() as u64),
        "{when}: holes in {found:?}"
    );
    for (index, term) in told.entries.range(state + 1..) {
        assert_eq!(found.get(index), Some(term), "{when}: entry {index} was acknowledged");
    }
    whole.log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_may_go_after_any_operation_of_the_disk() {
    let elsewhere = quick_dir();
    let donated = Arc::new(donated(elsewhere.path()).await);
    for n in 0.. {
        let (dir, faults) = (quick_dir(), Arc::new(Faults::default()));
        let told = Arc::new(Mutex::new(Told::default()));
        faults.cut_after(n);
        let cut = life(&faults, dir.path(), &told, &donated).await;
        let told = told.lock().unwrap().clone();
        // One that was never anything has nothing to come back to.
        if told.vote.is_some() {
            for kept in KEPT {
                let left = quick_dir();
                faults.write_what_is_left(left.path(), kept);
                // Which snapshots a disk still has is chance: nothing may hang on them. The count of flushes is written without a sync.
                if kept != Kept::Nothing {
                    copy_if_there(dir.path(), left.path(), "raft-log.acked");
                }
                check(
                    left.path(),
                    &told,
                    &format!("after operation {n}, of the rest {kept:?}"),
                );
            }
        }
        if !cut {
            assert!(n > OPERATIONS_MIN, "void: the script has only {n} operations");
            println!(
                "the power went after each of {n} operations, and left {} kinds of files each time",
                KEPT.len()
            );
            return;
        }
    }
}

fn copy_if_there(from: &Path, to: &Path, name: &str) {
    if let Ok(bytes) = std::fs::read(from.join(name)) {
        std::fs::write(to.join(name), bytes).unwrap();
    }
}
