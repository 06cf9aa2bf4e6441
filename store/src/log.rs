//! The raft log of one node: records by index, and a few durable marks (vote, committed), in `raft-log.redb`.
//!
//! One thread writes. Whatever has queued up while it waits for the disk shares the next transaction and the next
//! fsync (group commit), and a completion runs only after that fsync. Reads go to the last committed transaction.
//!
//! What is missing here on purpose: any knowledge of what a record means. Records and marks are bytes to this module,
//! it does not know consensus, and it reads no clock: elapsed time comes from the [`Ticks`] it is handed.

mod acked;
mod frame;
mod health;
mod open;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use arc_swap::ArcSwapOption;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::watch;

pub use health::LogHealth;

use crate::disk::{Disk, Fault, fault_of};
use health::Flushes;
use writer::{Job, Work};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const MARKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("marks");

/// Monotonic nanoseconds for measuring flushes; the caller owns the clock.
pub type Ticks = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Runs once, on the writer thread, when the write is on disk or has failed. It must not block.
pub type Completion = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Why the log cannot do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// This node had data, and the file is gone, empty or was never a log: starting afresh would forget votes.
    #[error("raft log {path}: this node had data, but the file is {what}")]
    Missing {
        /// The file.
        path: String,
        /// What was found instead.
        what: &'static str,
    },
    /// Another process has it open.
    #[error("raft log is in use: another mcpnode runs with this data directory")]
    InUse,
    /// The file or a record fails its checksum, or the store panicked while reading it.
    #[error("raft log is corrupt: {0}")]
    Corrupt(String),
    /// A write failed for good: the log is corrupt or was closed while the disk refused. It takes no further write.
    #[error("raft log write failed: {0}")]
    Failed(String),
    /// The disk refuses. Writes wait until it takes them; a read may be tried again after [`RaftLog::touch`].
    #[error("raft log: {0}")]
    Io(String),
    /// The records do not follow the last one, so a hole would appear.
    #[error("raft log ends at {last:?}, a record with index {index} does not follow")]
    Gap {
        /// Index of the last record or purge, if there is one.
        last: Option<u64>,
        /// Index of the refused record.
        index: u64,
    },
    /// The log was closed.
    #[error("raft log is closed")]
    Closed,
}

/// One record: its index and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Position in the log.
    pub index: u64,
    /// What the caller stored there.
    pub bytes: Vec<u8>,
}

/// A durable value beside the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Whom this node voted for.
    Vote,
    /// Up to where the log is known to be committed.
    Committed,
}

impl Mark {
    fn key(self) -> &'static str {
        match self {
            Mark::Vote => "vote",
            Mark::Committed => "committed",
        }
    }
}

/// Where the log begins: everything up to `index` was purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// The last purged index.
    pub index: u64,
    /// What the caller stored about it.
    pub bytes: Vec<u8>,
}

/// The log of one node. Cheap to clone; all clones are one log.
#[derive(Clone)]
pub struct RaftLog {
    shared: Arc<Shared>,
}

struct Shared {
    db: Arc<ArcSwapOption<Database>>,
    jobs: mpsc::SyncSender<Job>,
    flushes: Arc<Flushes>,
    failed: watch::Receiver<Option<String>>,
    closing: Arc<AtomicBool>,
    /// Ends the writer's pause between two tries of a disk that refuses; dropped with the last clone.
    nudge: mpsc::SyncSender<()>,
}

impl std::fmt::Debug for RaftLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftLog").finish_non_exhaustive()
    }
}

impl RaftLog {
    /// Opens the log at `path`, or begins a new one when there is no file or an empty one.
    /// Only for a node that has never had data; see [`RaftLog::open_existing`].
    pub fn open_or_create(path: &Path, ticks: Ticks) -> Result<RaftLog, LogError> {
        RaftLog::start(open::open_or_create(path, Disk::Real)?, ticks, writer::Order::Strict)
    }

    /// Like [`RaftLog::open_or_create`], but takes records in any order: openraft's storage suite leaves holes, which
    /// consensus never does.
    #[doc(hidden)]
    pub fn open_for_suite(path: &Path, ticks: Ticks) -> Result<RaftLog, LogError> {
        RaftLog::start(open::open_or_create(path, Disk::Real)?, ticks, writer::Order::Any)
    }

    /// Opens the log of a node that had data. A missing, empty or foreign file is refused: a node that forgets
    /// its vote could vote twice, and one that forgets its log could undo a commit. For the same reason a log is refused that
    /// is whole but shorter than what it has acknowledged.
    pub fn open_existing(path: &Path, ticks: Ticks) -> Result<RaftLog, LogError> {
        RaftLog::start(open::open_existing(path, Disk::Real)?, ticks, writer::Order::Strict)
    }

    /// Like [`RaftLog::open_or_create`], on a disk that a test tells what to do.
    #[cfg(feature = "faults")]
    #[doc(hidden)]
    pub fn open_faulty(faults: &Arc<crate::faults::Faults>, path: &Path, ticks: Ticks) -> Result<RaftLog, LogError> {
        let opened = open::open_or_create(path, Disk::Faulty(Arc::clone(faults)))?;
        RaftLog::start(opened, ticks, writer::Order::Strict)
    }

    fn start(opened: open::Opened, ticks: Ticks, order: writer::Order) -> Result<RaftLog, LogError> {
        let flushes = Arc::new(Flushes::new(ticks));
        let (failed_tx, failed) = watch::channel(None);
        let (nudge, nudged) = mpsc::sync_channel(1);
        let closing = Arc::new(AtomicBool::new(false));
        let db = Arc::new(ArcSwapOption::new(Some(Arc::new(opened.db))));
        let jobs = writer::spawn(writer::Parts {
            db: Arc::clone(&db),
            path: opened.path,
            disk: opened.disk,
            acked: opened.acked,
            count: opened.count,
            flushes: Arc::clone(&flushes),
            failed: failed_tx,
            closing: Arc::clone(&closing),
            nudged,
            order,
        })?;
        let shared = Shared {
            db,
            jobs,
            flushes,
            failed,
            closing,
            nudge,
        };
        Ok(RaftLog {
            shared: Arc::new(shared),
        })
    }

    /// Appends records that follow the last one. They can be read once `done` has run.
    pub fn append(&self, records: Vec<LogRecord>, done: Completion) {
        self.submit(Work::Append(records), done);
    }

    /// Removes every record with an index of `from` or more.
    pub fn truncate(&self, from: u64, done: Completion) {
        self.submit(Work::Truncate(from), done);
    }

    /// Removes every record up to and including `purged.index`, and remembers `purged`.
    pub fn purge(&self, purged: Purged, done: Completion) {
        self.submit(Work::Purge(purged), done);
    }

    /// Stores a mark.
    pub fn put_mark(&self, mark: Mark, bytes: Vec<u8>, done: Completion) {
        self.submit(Work::Mark(mark, bytes), done);
    }

    /// Writes nothing, but makes sure that the disk takes writes: after a read that it refused, this completes when the log
    /// has been brought back.
    pub fn touch(&self, done: Completion) {
        self.submit(Work::Touch, done);
    }

    fn submit(&self, work: Work, done: Completion) {
        let job = Job { work, done };
        if let Err(refused) = self.shared.jobs.send(job) {
            (refused.0.done)(Err(self.gone()));
        }
    }

    fn gone(&self) -> LogError {
        let failed = self.shared.failed.borrow().clone();
        failed.map_or(LogError::Closed, LogError::Failed)
    }

    /// Reads records of `range`, in order, until `bytes_max` is reached. The first one is returned however long it is,
    /// so an answer is empty only if there is nothing in the range.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogRecord>, LogError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let table = self.records()?;
        let mut records: Vec<LogRecord> = Vec::new();
        let mut bytes_read = 0_usize;
        for row in table.range(range).map_err(read_error)? {
            let (index, value) = row.map_err(read_error)?;
            let bytes = frame::open_record(index.value(), value.value())?;
            bytes_read = bytes_read.saturating_add(bytes.len());
            if bytes_read > bytes_max && !records.is_empty() {
                break;
            }
            records.push(LogRecord {
                index: index.value(),
                bytes: bytes.to_vec(),
            });
        }
        Ok(records)
    }

    /// The last record, if there is any that was not purged.
    pub fn last(&self) -> Result<Option<LogRecord>, LogError> {
        let table = self.records()?;
        let Some((index, value)) = table.last().map_err(read_error)? else {
            return Ok(None);
        };
        let bytes = frame::open_record(index.value(), value.value())?.to_vec();
        Ok(Some(LogRecord {
            index: index.value(),
            bytes,
        }))
    }

    /// A stored mark, if it was ever stored.
    pub fn mark(&self, mark: Mark) -> Result<Option<Vec<u8>>, LogError> {
        self.mark_bytes(mark.key())
    }

    /// Up to where the log was purged, if it ever was.
    pub fn purged(&self) -> Result<Option<Purged>, LogError> {
        self.mark_bytes(frame::PURGED)?
            .map(|bytes| frame::open_purged(&bytes))
            .transpose()
    }

    /// How many flushes the log has acknowledged, over all its runs.
    pub fn flushes_acknowledged(&self) -> Result<u64, LogError> {
        let count = self.mark_bytes(frame::FLUSHES)?;
        count.map_or(Ok(0), |bytes| frame::open_count(&bytes))
    }

    /// How long flushes take, and whether the disk refuses.
    pub fn health(&self) -> LogHealth {
        self.shared.flushes.health(self.shared.failed.borrow().clone())
    }

    /// Becomes `Some(reason)` as soon as the disk refuses a write, and `None` again when it has taken it.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.clone()
    }

    /// Finishes what is queued, stops the writer and lets go of the file. Blocks until that is done.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        // A nudge that is there already does as well.
        let _nudged = self.shared.nudge.try_send(());
        let (done_tx, done_rx) = mpsc::channel();
        self.submit(Work::Stop, Box::new(move |_| done_tx.send(()).unwrap_or(())));
        // The completion is dropped or run in any case, so this ends; either way the writer is through.
        done_rx.recv().unwrap_or(());
        self.shared.db.store(None);
    }

    fn mark_bytes(&self, key: &'static str) -> Result<Option<Vec<u8>>, LogError> {
        let db = self.shared.db.load_full().ok_or(LogError::Closed)?;
        let txn = db.begin_read().map_err(read_error)?;
        let table = txn.open_table(MARKS).map_err(read_error)?;
        let Some(value) = table.get(key).map_err(read_error)? else {
            return Ok(None);
        };
        Ok(Some(frame::open_mark(key, value.value())?.to_vec()))
    }

    fn records(&self) -> Result<redb::ReadOnlyTable<u64, &'static [u8]>, LogError> {
        let db = self.shared.db.load_full().ok_or(LogError::Closed)?;
        let txn = db.begin_read().map_err(read_error)?;
        txn.open_table(RECORDS).map_err(read_error)
    }
}

/// For the fuzzer: bytes as everything that stands in the log.
pub(crate) fn decode_anything(bytes: &[u8]) {
    for index in [0, 1, u64::MAX] {
        assert_eq!(
            frame::open_record(index, &frame::seal_record(index, bytes)).ok(),
            Some(bytes)
        );
        let _as_it_is = frame::open_record(index, bytes).is_ok();
    }
    for key in [frame::PURGED, frame::FORMAT, frame::FLUSHES, Mark::Vote.key()] {
        let _as_it_is = frame::open_mark(key, bytes).is_ok();
    }
    let _purged = frame::open_purged(bytes).is_ok();
    let _count = frame::open_count(bytes).is_ok();
}

fn read_error(error: impl Into<redb::Error>) -> LogError {
    match fault_of(error.into()) {
        Fault::File(what) => LogError::Corrupt(what),
        Fault::Disk(what) => LogError::Io(what),
        Fault::Taken => LogError::InUse,
    }
}
