//! openraft's log on top of `store::log`.
//!
//! The store's log can be read only once it is on disk, and openraft wants to read what it has just appended: so the newest
//! entries are kept in memory too, which is also where replication finds them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcp_store::log::{LogError, LogRecord, Mark, Purged, RaftLog};
use mcp_store::{Replica, StoreError};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError};
use tokio::sync::{oneshot, watch};

use crate::mender::blocking;
use crate::types::{Entry, LogId, StorageError, TypeConfig, Vote};

/// Bytes that one append carries at most: it must be through within a heartbeat.
const APPEND_BYTES_MAX: usize = 256 * 1024;
/// Entries and bytes kept in memory beyond those that are not on disk yet.
const TAIL_ENTRIES_MAX: usize = 2_048;
const TAIL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often a waiting purge looks at the gate.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The log of one node, as openraft sees it. Clones are one log.
#[derive(Clone)]
pub(crate) struct Logs {
    log: RaftLog,
    tail: Arc<Mutex<Tail>>,
    replica: Arc<Replica>,
    /// Index up to which `committed` is durable: nothing later is applied.
    committed: Arc<watch::Sender<Result<u64, String>>>,
    /// Whether a purge waits until the state is as far; openraft's suite purges what was never applied.
    patient: bool,
    /// Bytes appended since the last snapshot.
    appended_bytes: Arc<AtomicU64>,
}

#[derive(Default)]
struct Tail {
    entries: BTreeMap<u64, (Arc<Entry>, usize)>,
    bytes: usize,
    on_disk: u64,
    /// The id of the last entry, or of the last purged one if there is none.
    last: Option<LogId>,
}

impl Tail {
    fn push(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id);
        self.bytes += bytes;
        self.entries.insert(entry.log_id.index, (Arc::new(entry), bytes));
    }

    fn trim(&mut self) {
        while self.entries.len() > TAIL_ENTRIES_MAX || self.bytes > TAIL_BYTES_MAX {
            match self.entries.first_entry() {
                Some(first) if *first.key() <= self.on_disk => self.bytes -= first.remove().1,
                _ => return,
            }
        }
    }

    fn drop_from(&mut self, index: u64) {
        let gone = self.entries.split_off(&index);
        self.bytes -= gone.values().map(|(_, bytes)| bytes).sum::<usize>();
        self.on_disk = self.on_disk.min(index.saturating_sub(1));
    }

    fn drop_to(&mut self, index: u64) {
        let kept = self.entries.split_off(&(index + 1));
        self.bytes = kept.values().map(|(_, bytes)| bytes).sum();
        self.entries = kept;
    }
}

impl Logs {
    pub(crate) fn new(log: RaftLog, replica: Arc<Replica>) -> Result<Logs, LogError> {
        let committed = match log.mark(Mark::Committed)? {
            Some(bytes) => decode::<Option<LogId>>(&bytes)?.map_or(0, |id| id.index),
            None => 0,
        };
        let tail = Tail {
            last: last_on_disk(&log)?,
            ..Tail::default()
        };
        Ok(Logs {
            log,
            tail: Arc::new(Mutex::new(tail)),
            replica,
            committed: Arc::new(watch::Sender::new(Ok(committed))),
            patient: true,
            appended_bytes: Arc::default(),
        })
    }

    /// Index up to which `committed` is durable.
    pub(crate) fn committed(&self) -> watch::Receiver<Result<u64, String>> {
        self.committed.subscribe()
    }

    /// Bytes appended since this was last asked for.
    pub(crate) fn appended_bytes(&self) -> &AtomicU64 {
        &self.appended_bytes
    }

    /// Where the log begins.
    pub(crate) fn purged_index(&self) -> Result<u64, LogError> {
        Ok(self.log.purged()?.map_or(0, |purged| purged.index))
    }

    /// For openraft's suite, which purges what was never applied.
    #[cfg(test)]
    pub(crate) fn impatient(self) -> Logs {
        Logs { patient: false, ..self }
    }

    /// Waits until the state has taken up everything that the log is about to forget. A snapshot may still be on its way into
    /// it when consensus purges the log behind it.
    async fn until_applied(&self, index: u64) -> Result<(), StorageError> {
        let mut at = self.replica.auth_index_watch();
        while self.replica.auth_index() < index {
            if let Some(why) = self.replica.gate().why_shut_for_good() {
                return Err(write_error(LogError::Failed(why)));
            }
            // A shut gate announces nothing, so it is looked at now and then.
            let _changed = tokio::time::timeout(LOOK_EVERY, at.changed()).await;
        }
        Ok(())
    }

    /// Waits until the state on disk has it. One that the disk refuses is mended meanwhile, by the watchdog.
    async fn until_durable(&self, index: u64) -> Result<(), StorageError> {
        while self.replica.durable_index() < index {
            match blocking(&self.replica, Replica::flush).await {
                Ok(()) if !self.patient => return Ok(()),
                Ok(()) => {}
                Err(StoreError::Io(_) | StoreError::Shut(_)) if self.replica.gate().why_shut_for_good().is_none() => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => return Err(StorageIOError::write_logs(&error).into()),
            }
        }
        Ok(())
    }

    /// The id of the last entry: what campaigns compare.
    pub(crate) fn last_id(&self) -> Option<LogId> {
        self.tail().last
    }

    pub(crate) fn store(&self) -> &RaftLog {
        &self.log
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries from `from` on, as many as one append carries at most. They must be on disk.
    pub(crate) async fn committed_entries(&self, from: u64, to: u64) -> Result<Vec<Entry>, StorageError> {
        self.read_when_readable(from, to, APPEND_BYTES_MAX).await
    }

    /// A read that the disk refuses is tried again once it takes writes: to consensus it is a disk that takes very long.
    async fn read_when_readable(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        loop {
            match self.read(from, to, bytes_max) {
                Err(LogError::Io(why)) => tracing::warn!(why, "the disk refuses to read the log; trying again"),
                result => return result.map_err(read_error),
            }
            let (completion, rx) = self.wait();
            self.log.touch(completion);
            done(rx).await.map_err(read_error)?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        if from >= to {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.read_tail(from, to, bytes_max) {
            return Ok(entries);
        }
        let records = self.log.read(from..to, bytes_max)?;
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            entries.push(decode::<Entry>(&record.bytes)?);
        }
        // The end of the range may not be on disk yet.
        let next = entries.last().map_or(from, |e| e.log_id.index + 1);
        if next < to && (bytes_max == usize::MAX || entries.is_empty()) {
            entries.extend(self.read_tail(next, to, bytes_max).unwrap_or_default());
        }
        Ok(entries)
    }

    fn read_tail(&self, from: u64, to: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let tail = self.tail();
        tail.entries.get(&from)?;
        let mut taken = 0;
        let mut entries = Vec::new();
        for (entry, bytes) in tail.entries.range(from..to).map(|(_, kept)| kept) {
            taken += bytes;
            if taken > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(Entry::clone(entry));
        }
        Some(entries)
    }

    fn wait(&self) -> (mcp_store::log::Completion, oneshot::Receiver<Result<(), LogError>>) {
        let (tx, rx) = oneshot::channel();
        // Whoever does not wait any more does not want to know.
        (Box::new(move |result| tx.send(result).unwrap_or(())), rx)
    }
}

fn last_on_disk(log: &RaftLog) -> Result<Option<LogId>, LogError> {
    let last = log
        .last()?
        .map(|record| decode::<Entry>(&record.bytes))
        .transpose()?
        .map(|entry| entry.log_id);
    let purged = log.purged()?.map(|purged| decode::<LogId>(&purged.bytes)).transpose()?;
    Ok(last.max(purged))
}

async fn done(rx: oneshot::Receiver<Result<(), LogError>>) -> Result<(), LogError> {
    rx.await.unwrap_or(Err(LogError::Closed))
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data always encodes")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, LogError> {
    postcard::from_bytes(bytes).map_err(|error| LogError::Corrupt(format!("a record does not decode: {error}")))
}

fn read_error(error: LogError) -> StorageError {
    StorageIOError::read_logs(&error).into()
}

fn write_error(error: LogError) -> StorageError {
    StorageIOError::write_logs(&error).into()
}

impl RaftLogReader<TypeConfig> for Logs {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read_when_readable(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read_when_readable(start, end, APPEND_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for Logs {
    type LogReader = Logs;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let purged = self.log.purged().map_err(read_error)?;
        let last_purged_log_id = purged
            .map(|p| decode::<LogId>(&p.bytes))
            .transpose()
            .map_err(read_error)?;
        Ok(LogState {
            last_purged_log_id,
            last_log_id: self.last_id(),
        })
    }

    async fn get_log_reader(&mut self) -> Logs {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let (completion, rx) = self.wait();
        self.log.put_mark(Mark::Vote, encode(vote), completion);
        done(rx)
            .await
            .map_err(|error| StorageIOError::write_vote(&error).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let bytes = self.log.mark(Mark::Vote).map_err(read_error)?;
        bytes
            .map(|b| decode(&b))
            .transpose()
            .map_err(|error| StorageIOError::read_vote(&error).into())
    }

    /// Queued and not waited for: it rides the next append, or goes alone when there is none. The state machine waits for it
    /// before it applies, so that a restarted node never knows less than what it had confirmed.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let index = committed.map_or(0, |id| id.index);
        let durable = Arc::clone(&self.committed);
        let completion = Box::new(move |result: Result<(), LogError>| {
            durable.send_modify(|at| match (&result, at) {
                (Ok(()), Ok(at)) => *at = index.max(*at),
                (Err(error), at) => *at = Err(error.to_string()),
                (Ok(()), Err(_)) => {}
            });
        });
        self.log.put_mark(Mark::Committed, encode(&committed), completion);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let bytes = self.log.mark(Mark::Committed).map_err(read_error)?;
        let committed = bytes
            .map(|b| decode::<Option<LogId>>(&b))
            .transpose()
            .map_err(read_error)?;
        Ok(committed.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let mut written_over = None;
        {
            let mut tail = self.tail();
            let last = tail.last.map(|id| id.index);
            for entry in entries {
                let index = entry.log_id.index;
                if records.is_empty() && last.is_some_and(|last| index <= last) {
                    // What is written over is gone, and so is everything behind it.
                    tail.drop_from(index);
                    written_over = Some(index);
                }
                let bytes = encode(&entry);
                self.appended_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                tail.push(entry, bytes.len());
                records.push(LogRecord { index, bytes });
            }
        }
        if let Some(index) = written_over {
            self.log.truncate(index, Box::new(|_| ()));
        }
        let Some(last) = records.last().map(|r| r.index) else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let tail = Arc::clone(&self.tail);
        let completion = Box::new(move |result: Result<(), LogError>| {
            if result.is_ok() {
                let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                tail.on_disk = tail.on_disk.max(last);
                tail.trim();
            }
            callback.log_io_completed(result.map_err(std::io::Error::other));
        });
        self.log.append(records, completion);
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.tail().drop_from(log_id.index);
        let (completion, rx) = self.wait();
        self.log.truncate(log_id.index, completion);
        done(rx).await.map_err(write_error)?;
        let last = last_on_disk(&self.log).map_err(read_error)?;
        self.tail().last = last;
        Ok(())
    }

    /// The log may forget only what the state on disk remembers.
    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        if self.patient {
            self.until_applied(log_id.index).await?;
        }
        self.until_durable(log_id.index).await?;
        {
            let mut tail = self.tail();
            tail.drop_to(log_id.index);
            if tail.last.is_none_or(|last| last.index < log_id.index) {
                tail.last = Some(log_id);
            }
        }
        let (completion, rx) = self.wait();
        self.log.purge(
            Purged {
                index: log_id.index,
                bytes: encode(&log_id),
            },
            completion,
        );
        done(rx).await.map_err(write_error)
    }
}
