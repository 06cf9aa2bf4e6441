//! The raft log of one node: records by index, and a few durable marks (vote, committed), in `raft-log.redb`.
//!
//! One thread writes. Whatever has queued up while it waits for the disk shares the next transaction and the next
//! fsync (group commit), and a completion runs only after that fsync. Reads go to the last committed transaction.
//!
//! What is missing here on purpose: any knowledge of what a record means. Records and marks are bytes to this module,
//! it does not know consensus, and it reads no clock: elapsed time comes from the [`Ticks`] it is handed.

mod frame;
mod health;
mod open;
mod writer;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, mpsc};

use arc_swap::ArcSwapOption;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::watch;

pub use health::LogHealth;

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
    /// The file or a record fails its checksum, or the store panicked while reading it.
    #[error("raft log is corrupt: {0}")]
    Corrupt(String),
    /// A write failed. The log takes no further write: what is on disk is unknown until it is opened again.
    #[error("raft log write failed: {0}")]
    Failed(String),
    /// The file cannot be opened or read.
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
    db: ArcSwapOption<Database>,
    jobs: mpsc::SyncSender<Job>,
    flushes: Arc<Flushes>,
    failed: watch::Receiver<Option<String>>,
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
        let db = open::open_or_create(path)?;
        RaftLog::start(db, ticks, writer::Order::Strict)
    }

    /// Like [`RaftLog::open_or_create`], but takes records in any order: openraft's storage suite leaves holes, which
    /// consensus never does.
    #[doc(hidden)]
    pub fn open_for_suite(path: &Path, ticks: Ticks) -> Result<RaftLog, LogError> {
        let db = open::open_or_create(path)?;
        RaftLog::start(db, ticks, writer::Order::Any)
    }

    /// Opens the log of a node that had data. A missing, empty or foreign file is refused: a node that forgets
    /// its vote could vote twice, and one that forgets its log could undo a commit.
    pub fn open_existing(path: &Path, ticks: Ticks) -> Result<RaftLog, LogError> {
        let db = open::open_existing(path)?;
        RaftLog::start(db, ticks, writer::Order::Strict)
    }

    fn start(db: Database, ticks: Ticks, order: writer::Order) -> Result<RaftLog, LogError> {
        let db = Arc::new(db);
        let flushes = Arc::new(Flushes::new(ticks));
        let (failed_tx, failed) = watch::channel(None);
        let jobs = writer::spawn(Arc::clone(&db), Arc::clone(&flushes), failed_tx, order)?;
        let shared = Shared {
            db: ArcSwapOption::new(Some(db)),
            jobs,
            flushes,
            failed,
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

    /// How long flushes take, and whether the log has failed.
    pub fn health(&self) -> LogHealth {
        self.shared.flushes.health(self.shared.failed.borrow().clone())
    }

    /// Becomes `Some(reason)` when a write has failed. It stays so: the log takes no write after that.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.shared.failed.clone()
    }

    /// Finishes what is queued, stops the writer and lets go of the file. Blocks until that is done.
    pub fn close(&self) {
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

fn read_error(error: impl Into<redb::Error>) -> LogError {
    match error.into() {
        redb::Error::Corrupted(what) => LogError::Corrupt(what),
        other => LogError::Io(other.to_string()),
    }
}
