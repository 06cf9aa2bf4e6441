//! One replica of the cluster's state: on disk, in memory, and the order in which the two change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use mcp_model::apply::{Effects, apply};
use mcp_model::command::{Envelope, Outcome};
use mcp_model::ids::{Incarnation, NodeId};
use mcp_model::tables::Tables;
use redb::{Builder, Database, Durability, ReadableDatabase};
use tokio::sync::watch;

use crate::backup::{Backup, Taker};
use crate::cuts::Cuts;
use crate::digest::Pinned;
use crate::disk::{Disk, replace_by_copy};
use crate::error::StoreError;
use crate::gate::{LeaseGate, Refused};
use crate::live::{Change, Live};
use crate::rows::{MARKS, Rows, STATE, mark, put_mark};
use crate::snapshot::{self, INDEX_MARK, RAFT_MARK, SnapshotInfo};
use crate::view::AuthView;

/// The file that holds the state.
pub const STATE_FILE: &str = "state.redb";
/// Page cache of the state file. Admission does not read it.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Tokens that are looked at while nothing changes: some milliseconds at most.
const TOKENS_AT_A_STRETCH: usize = 256;

/// How a replica is opened.
pub struct ReplicaOptions {
    /// `L`, ms.
    pub lease_ms: u64,
    /// Whether this data directory has held data before. Then an empty or missing file is refused.
    pub had_data: bool,
    /// Draws the number of an incarnation.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// One log entry's commands, each an encoded envelope. Entries that only concern raft have none.
pub struct ApplyEntry {
    /// The entry's log index.
    pub index: u64,
    /// Its commands.
    pub commands: Vec<Vec<u8>>,
}

/// The state of one node.
pub struct Replica {
    db: ArcSwap<Database>,
    disk: Disk,
    dir: PathBuf,
    live: Live,
    durable_index: AtomicU64,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Held while the state changes.
    writing: Mutex<()>,
}

impl Replica {
    /// Opens the state in `dir`, verifies every page of it, and builds the auth view. It admits nobody before it has a lease.
    pub fn open(dir: &Path, options: ReplicaOptions) -> Result<Arc<Replica>, StoreError> {
        Replica::open_on(Disk::Real, dir, options)
    }

    /// The same on a disk that a test tells what to do.
    #[cfg(feature = "faults")]
    #[doc(hidden)]
    pub fn open_faulty(
        faults: &Arc<crate::faults::Faults>,
        dir: &Path,
        options: ReplicaOptions,
    ) -> Result<Arc<Replica>, StoreError> {
        Replica::open_on(Disk::Faulty(Arc::clone(faults)), dir, options)
    }

    pub(crate) fn open_on(disk: Disk, dir: &Path, options: ReplicaOptions) -> Result<Arc<Replica>, StoreError> {
        let path = dir.join(STATE_FILE);
        if options.had_data {
            refuse_empty(&path)?;
        }
        let db = open_database(&disk, &path)?;
        let index = applied_index(&db)?;
        let replica = Replica {
            db: ArcSwap::from_pointee(db),
            disk,
            dir: dir.to_owned(),
            live: Live::new(Incarnation((options.random)()), options.lease_ms, index),
            durable_index: AtomicU64::new(index),
            random: options.random,
            writing: Mutex::new(()),
        };
        replica.read(|tables| replica.live.rebuild(tables))?;
        Ok(Arc::new(replica))
    }

    /// Says whose replica this is. If the state says that this node was removed, or ever comes to say so, the node admits
    /// nobody from there on, and nobody is told of that index before.
    pub fn belongs_to(&self, me: NodeId) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.live.belongs_to(me);
        self.look_for_own_removal()
    }

    fn look_for_own_removal(&self) -> Result<(), StoreError> {
        if self.read(|tables| self.live.is_removed_in(tables))? {
            self.be_removed();
        }
        Ok(())
    }

    /// Stops admission on this node for good: it is no longer part of the cluster.
    pub fn be_removed(&self) {
        self.live.be_removed();
    }

    /// What this replica has in memory.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The auth view.
    pub fn view(&self) -> &AuthView {
        self.live.view()
    }

    /// Whether this replica may admit.
    pub fn gate(&self) -> &LeaseGate {
        self.live.gate()
    }

    /// What is open on behalf of whom.
    pub fn cuts(&self) -> &Cuts {
        self.live.cuts()
    }

    /// The log index up to which the auth view is complete, with everything cut that had to be. This, and nothing else, is
    /// what a replica may tell others about itself.
    pub fn auth_index(&self) -> u64 {
        self.live.auth_index()
    }

    /// The same, to wait on.
    pub fn auth_index_watch(&self) -> watch::Receiver<u64> {
        self.live.auth_index_watch()
    }

    /// The log index up to which the state file survives a power cut.
    pub fn durable_index(&self) -> u64 {
        self.durable_index.load(Ordering::Acquire)
    }

    /// Reads the state in one transaction.
    pub fn read<T>(&self, f: impl FnOnce(&dyn Tables) -> T) -> Result<T, StoreError> {
        let read = || {
            let txn = self.db.load().begin_read().map_err(StoreError::from)?;
            let rows = Rows::new(txn.open_table(STATE)?);
            let result = f(&rows);
            rows.check()?;
            Ok(result)
        };
        read().inspect_err(|error| self.fail(error))
    }

    /// What raft stored with the last entry it applied.
    pub fn applied_mark(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let txn = self.db.load().begin_read()?;
        mark(&txn.open_table(MARKS)?, RAFT_MARK)
    }

    /// Carries out entries in order: one transaction, then the view, then the cuts, then the index is published. Rule 5: this
    /// order, in this one place.
    pub fn apply(&self, entries: &[ApplyEntry], mark: &[u8]) -> Result<Vec<Vec<Outcome>>, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.refuse_shut()?;
        self.guarded(|| self.apply_locked(entries, mark))
    }

    /// A store that fails shuts the gate; so does one that panics, which redb does on a damaged file.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let worked = catch_unwind(AssertUnwindSafe(work));
        let worked = worked.unwrap_or_else(|_| Err(StoreError::Corrupt("the store panicked".to_owned())));
        worked.inspect_err(|error| self.fail(error))
    }

    fn apply_locked(&self, entries: &[ApplyEntry], mark: &[u8]) -> Result<Vec<Vec<Outcome>>, StoreError> {
        let mut effects = Effects::default();
        let outcomes = self.commit(entries, mark, &mut effects)?;
        let Some(last) = entries.last() else {
            return Ok(outcomes);
        };
        let change = Change {
            effects,
            index: last.index,
        };
        for stage in self.live.stages() {
            self.live.take(stage, &change, |view| self.read(view))?;
        }
        Ok(outcomes)
    }

    fn commit(
        &self,
        entries: &[ApplyEntry],
        raft_mark: &[u8],
        effects: &mut Effects,
    ) -> Result<Vec<Vec<Outcome>>, StoreError> {
        let mut txn = self.db.load().begin_write()?;
        txn.set_durability(Durability::None)?;
        let mut rows = Rows::new(txn.open_table(STATE)?);
        let outcomes = entries
            .iter()
            .map(|entry| carry_out(&mut rows, entry, effects))
            .collect::<Result<_, _>>()?;
        rows.check()?;
        drop(rows);
        if let Some(last) = entries.last() {
            let mut marks = txn.open_table(MARKS)?;
            put_mark(&mut marks, RAFT_MARK, raft_mark)?;
            put_mark(&mut marks, INDEX_MARK, &last.index.to_be_bytes())?;
        }
        txn.commit()?;
        Ok(outcomes)
    }

    /// Makes everything that was applied survive a power cut. The log may then be purged up to [`Replica::durable_index`].
    pub fn flush(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.refuse_shut()?;
        let index = self.auth_index();
        self.guarded(|| self.flush_locked())?;
        self.durable_index.store(index, Ordering::Release);
        Ok(())
    }

    fn flush_locked(&self) -> Result<(), StoreError> {
        let mut txn = self.db.load().begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        // A transaction that changes nothing would not reach the disk.
        put_mark(&mut txn.open_table(MARKS)?, "flushed", &self.auth_index().to_be_bytes())?;
        txn.commit()?;
        Ok(())
    }

    /// Packs the state into `file`, which appears complete or not at all.
    pub fn write_snapshot(&self, file: &Path) -> Result<SnapshotInfo, StoreError> {
        let txn = self.db.load().begin_read()?;
        snapshot::write(&txn, file)
    }

    /// Puts a value where it does not belong, with a checksum that fits: what no damage does, and a fault of ours might.
    #[cfg(any(test, feature = "faults"))]
    #[doc(hidden)]
    pub fn alter(&self, table: mcp_model::tables::Table, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        use mcp_model::tables::TablesMut;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut txn = self.db.load().begin_write()?;
        txn.set_durability(Durability::None)?;
        let mut rows = Rows::new(txn.open_table(STATE)?);
        rows.put(table, key, value);
        rows.check()?;
        drop(rows);
        txn.commit()?;
        Ok(())
    }

    /// The state as it is now, to be hashed while everything goes on.
    pub fn pin(&self) -> Result<Pinned, StoreError> {
        let txn = self.db.load().begin_read()?;
        Ok(Pinned::of(txn, self.auth_index()))
    }

    /// The state as it is now, to be written down while everything goes on.
    pub fn backup(&self, taker: Taker) -> Result<Backup, StoreError> {
        let txn = self.db.load().begin_read()?;
        let index = mark(&txn.open_table(MARKS)?, INDEX_MARK)?;
        let index = index
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        Backup::of(txn, index, taker)
    }

    /// Replaces the state by the one packed in `file`, after verifying all of it. If that state is older than what the view
    /// shows, the lease goes first: within an incarnation the index never goes back.
    pub fn install_snapshot(&self, file: &Path) -> Result<SnapshotInfo, StoreError> {
        let verified = snapshot::verify(file)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.refuse_shut()?;
        let back = verified.index < self.auth_index();
        if back {
            self.live.go_back(Incarnation((self.random)()));
            self.live.forget_reached();
        }
        self.guarded(|| self.install_locked(file, &verified))?;
        if back {
            self.live.gate().end_install();
        }
        Ok(verified)
    }

    fn install_locked(&self, file: &Path, verified: &SnapshotInfo) -> Result<(), StoreError> {
        let mut txn = self.db.load().begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        txn.delete_table(STATE)?;
        // The file is read a second time: it must still be the one that was verified.
        if snapshot::unpack(file, &mut txn.open_table(STATE)?)? != (verified.index, verified.sha256) {
            return Err(StoreError::Corrupt(
                "the snapshot changed while it was installed".to_owned(),
            ));
        }
        let mut marks = txn.open_table(MARKS)?;
        put_mark(&mut marks, RAFT_MARK, &verified.mark)?;
        put_mark(&mut marks, INDEX_MARK, &verified.index.to_be_bytes())?;
        drop(marks);
        txn.commit()?;
        self.read(|tables| self.live.rebuild(tables))?;
        self.look_for_own_removal()?;
        self.durable_index.store(verified.index, Ordering::Release);
        self.live.publish(verified.index);
        Ok(())
    }

    /// The directory of the store's files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives the lease back: this replica admits nobody until it has renewed.
    pub fn hand_back_lease(&self) {
        self.live.gate().become_incarnation(Incarnation((self.random)()));
    }

    /// Stops admission on this node: for a disk that refuses until it does not, for a damaged store until the node starts
    /// again. Rule 11: first this, then the report.
    pub fn fail(&self, error: &StoreError) {
        match error {
            StoreError::Io(why) => {
                self.live
                    .gate()
                    .suspend(Refused::State, &format!("the disk refuses the state: {why}"));
            }
            // What shut it is known already.
            StoreError::Shut(_) => {}
            error => self.live.gate().shut(&error.to_string()),
        }
        self.live.cut_all();
        tracing::error!(%error, "store failed: this node admits nobody");
    }

    /// Stops admission because the state is not what the other replicas have, or nobody can say whether it is. The state goes on
    /// all the same, and so does this node's voice: its log is none the worse.
    pub fn doubt(&self, why: &str) {
        self.live.gate().doubt(why);
        self.live.cut_all();
        tracing::error!(why, "the state is doubted: this node admits nobody");
    }

    /// Compares the view with the state: every token and every owner of tokens. Says what is wrong with it, if anything is. What the long look
    /// has found to be different may have changed meanwhile, so each of those is looked at once more while nothing changes.
    pub fn check_view(&self, mut rest: impl FnMut()) -> Result<Option<String>, StoreError> {
        let view = self.live.view();
        let suspects = self.read(|tables| view.suspects(tables, &mut rest))?;
        let mut wrong = 0;
        for some in suspects.chunks(TOKENS_AT_A_STRETCH) {
            rest();
            let _still = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.refuse_shut()?;
            wrong += self.read(|tables| some.iter().filter(|hash| !view.is_right_about(tables, hash)).count())?;
        }
        let _still = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.refuse_shut()?;
        let owners = self.read(|tables| view.is_right_about_owners(tables))?;
        Ok(match (wrong, owners) {
            (0, true) => None,
            (0, false) => Some("users and service accounts".to_owned()),
            (n, true) => Some(format!("tokens: {n}")),
            (n, false) => Some(format!("tokens: {n}; users and service accounts")),
        })
    }

    /// Stops admission until the process ends because what it has in memory is not what its store says.
    pub fn distrust_view(&self, what: &str) {
        let why = format!(
            "what this node has in memory is not what its store says ({what}): save the log, report it, and restart the node, which reads \
             the store anew"
        );
        self.live.gate().shut(&why);
        self.live.cut_all();
        tracing::error!(why, "the view is wrong: this node admits nobody");
    }

    /// Puts a token into the view that the state does not have.
    #[cfg(any(test, feature = "faults"))]
    #[doc(hidden)]
    pub fn alter_view(&self, token: mcp_model::records::McpToken) {
        self.live.view().alter(token);
    }

    /// Stops admission because the disk refuses the raft log: what is agreed cannot be kept here.
    pub fn suspend_for_log(&self, why: &str) {
        self.live
            .gate()
            .suspend(Refused::Log, &format!("the disk refuses the raft log: {why}"));
        self.live.cut_all();
        tracing::error!(why, "the disk refuses the raft log: this node admits nobody");
    }

    /// Whether the disk has refused the state and it was not taken up again.
    pub fn is_refused(&self) -> bool {
        self.live.gate().is_refused(Refused::State)
    }

    /// Takes up a state that the disk has refused, from a whole copy of its file, and says where it is. That is where it was last
    /// durable: whatever was applied since then up to [`Replica::reached`] must come again by [`Replica::replay`], and then
    /// [`Replica::end_mending`] lets the gate open. Fails, with nothing changed, while the disk refuses the copy.
    pub fn begin_mending(&self) -> Result<u64, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = self.live.gate().why_shut_for_good() {
            return Err(StoreError::Shut(why));
        }
        let path = self.dir.join(STATE_FILE);
        replace_by_copy(&path).map_err(StoreError::io)?;
        self.guarded(|| {
            let db = open_database(&self.disk, &path)?;
            let index = applied_index(&db)?;
            self.live.go_back(Incarnation((self.random)()));
            self.db.store(Arc::new(db));
            self.read(|tables| self.live.rebuild(tables))?;
            self.durable_index.store(index, Ordering::Release);
            self.live.publish(index);
            Ok(index)
        })
    }

    /// The index that the state had reached before it had to be mended.
    pub fn reached(&self) -> u64 {
        self.live.reached()
    }

    /// Carries out again what was applied before. Only between [`Replica::begin_mending`] and [`Replica::end_mending`].
    pub fn replay(&self, entries: &[ApplyEntry], mark: &[u8]) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.guarded(|| self.apply_locked(entries, mark).map(drop))
    }

    /// The state is where it was. The gate opens by the next lease.
    pub fn end_mending(&self) {
        self.live.gate().end_install();
        self.live.gate().resume(Refused::State);
        tracing::info!(index = self.auth_index(), "the disk takes the state again");
    }

    fn refuse_shut(&self) -> Result<(), StoreError> {
        self.live
            .gate()
            .why_state_shut()
            .map_or(Ok(()), |why| Err(StoreError::Shut(why)))
    }
}

fn carry_out(
    rows: &mut Rows<redb::Table<'_, &'static [u8], &'static [u8]>>,
    entry: &ApplyEntry,
    effects: &mut Effects,
) -> Result<Vec<Outcome>, StoreError> {
    let commands = (0u32..).zip(&entry.commands);
    commands
        .map(|(seq, bytes)| {
            let envelope = Envelope::decode(bytes)
                .map_err(|why| StoreError::Corrupt(format!("command {seq} of entry {}: {why}", entry.index)))?;
            Ok(apply(rows, entry.index, seq, &envelope, effects))
        })
        .collect()
}

fn refuse_empty(path: &Path) -> Result<(), StoreError> {
    let what = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > 0 => return Ok(()),
        Ok(_) => "empty",
        Err(_) => "missing",
    };
    Err(StoreError::Missing {
        path: path.to_owned(),
        what,
    })
}

fn open_database(disk: &Disk, path: &Path) -> Result<Database, StoreError> {
    let open = || -> Result<Database, StoreError> {
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let db = disk.create(&builder, path)?;
        let mut txn = db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        txn.open_table(STATE)?;
        txn.open_table(MARKS)?;
        txn.commit()?;
        Ok(db)
    };
    // redb may panic on a file that was altered under it.
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(StoreError::Corrupt("the store panicked while it was opened".to_owned())))
}

fn applied_index(db: &Database) -> Result<u64, StoreError> {
    let txn = db.begin_read()?;
    let Some(index) = mark(&txn.open_table(MARKS)?, INDEX_MARK)? else {
        return Ok(0);
    };
    let index = index.try_into().map(u64::from_be_bytes);
    index.map_err(|_| StoreError::Corrupt("the index mark is not a number".to_owned()))
}
