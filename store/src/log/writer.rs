//! The one thread that writes. It takes what is queued, writes it in one transaction, waits for the disk, then runs the
//! completions in order.
//!
//! When the disk refuses, the batch is kept and nobody is told anything: to consensus it is a disk that takes very long. The
//! thread says so in `failed`, puts a copy of the file in its place as soon as the disk takes one, and writes the batch again unless the
//! copy's count of flushes says that it is there already. A log that is corrupt takes no write any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redb::{Database, Durability, ReadableTable, Table};
use tokio::sync::watch;

use super::acked::Acked;
use super::frame::{self, FLUSHES, PURGED, seal_mark, seal_purged, seal_record};
use super::health::Flushes;
use super::{Completion, LogError, LogRecord, MARKS, Mark, Purged, RECORDS, open, read_error};
use crate::disk::{Disk, replace_by_copy};

/// Jobs that may wait; a caller beyond that blocks, which only a stuck disk brings about.
const QUEUE_JOBS_MAX: usize = 4_096;
/// Jobs that share one transaction at most.
const BATCH_JOBS_MAX: usize = 1_024;
/// The first pause before a disk that refused is tried again, and the longest: each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Whether a record must follow the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Strict,
    Any,
}

pub(super) struct Job {
    pub(super) work: Work,
    pub(super) done: Completion,
}

pub(super) enum Work {
    Append(Vec<LogRecord>),
    Truncate(u64),
    Purge(Purged),
    Mark(Mark, Vec<u8>),
    Touch,
    Stop,
}

/// What the writer works with.
pub(super) struct Parts {
    pub(super) db: Arc<ArcSwapOption<Database>>,
    pub(super) path: PathBuf,
    pub(super) disk: Disk,
    pub(super) acked: Acked,
    pub(super) count: u64,
    pub(super) flushes: Arc<Flushes>,
    pub(super) failed: watch::Sender<Option<String>>,
    pub(super) closing: Arc<AtomicBool>,
    pub(super) nudged: mpsc::Receiver<()>,
    pub(super) order: Order,
}

pub(super) fn spawn(parts: Parts) -> Result<mpsc::SyncSender<Job>, LogError> {
    let (jobs_tx, jobs) = mpsc::sync_channel(QUEUE_JOBS_MAX);
    let writer = Writer {
        parts,
        jobs,
        dead: None,
    };
    let thread = std::thread::Builder::new().name("raft-log".to_owned());
    thread
        .spawn(move || writer.run())
        .map_err(|error| LogError::Io(error.to_string()))?;
    Ok(jobs_tx)
}

struct Writer {
    parts: Parts,
    jobs: mpsc::Receiver<Job>,
    /// Why nothing is written any more.
    dead: Option<String>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(first) = self.jobs.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_JOBS_MAX
                && let Ok(next) = self.jobs.try_recv()
            {
                batch.push(next);
            }
            let stop = batch.iter().position(|job| matches!(job.work, Work::Stop));
            let stopped = stop.map(|at| batch.split_off(at));
            self.carry_out(batch);
            if let Some(stopped) = stopped {
                self.parts.db.store(None);
                drop(self);
                finish(stopped, &Err(LogError::Closed));
                return;
            }
        }
        self.parts.db.store(None);
    }

    fn carry_out(&mut self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        match self.write(&batch) {
            // The caller's mistake, and the transaction was rolled back: each job of the batch gets its own verdict.
            Err(LogError::Gap { .. }) if batch.len() > 1 => {
                batch.into_iter().for_each(|job| self.carry_out(vec![job]));
            }
            Err(LogError::Io(why)) => self.mend(batch, &why),
            result => finish(batch, &result),
        }
    }

    fn write(&mut self, batch: &[Job]) -> Result<(), LogError> {
        if let Some(reason) = &self.dead {
            return Err(LogError::Failed(reason.clone()));
        }
        let Some(db) = self.parts.db.load_full() else {
            return Err(LogError::Closed);
        };
        let (count, order) = (self.parts.count + 1, self.parts.order);
        self.parts.flushes.begin();
        let result = catch_unwind(AssertUnwindSafe(|| write_batch(&db, batch, order, count)));
        self.parts.flushes.end();
        match result {
            Ok(Ok(())) => {
                self.acknowledge(count);
                Ok(())
            }
            Ok(Err(error @ (LogError::Gap { .. } | LogError::Io(_)))) => Err(error),
            Ok(Err(error)) => Err(self.die(error.to_string())),
            Err(_) => Err(self.die("the store panicked".to_owned())),
        }
    }

    /// Before any completion runs.
    fn acknowledge(&mut self, count: u64) {
        self.parts.count = count;
        if let Err(error) = self.parts.acked.note(count) {
            // What is on disk is on disk; only a later loss of it would go unnoticed.
            tracing::warn!(%error, "the count of acknowledged flushes was not noted");
        }
    }

    /// Tries until the disk has taken the batch, or until the log is closed.
    fn mend(&mut self, batch: Vec<Job>, why: &str) {
        tracing::error!(why, "the disk refuses the raft log: its writes wait");
        self.parts.failed.send_replace(Some(why.to_owned()));
        let mut pause = PAUSE_MIN;
        let mended = loop {
            if self.is_closing_after(pause) {
                return finish(batch, &Err(LogError::Failed(why.to_owned())));
            }
            pause = PAUSE_MAX.min(pause * 2);
            match self.write_again(&batch) {
                Err(LogError::Io(why)) => tracing::debug!(why, "the disk still refuses the raft log"),
                result => break result,
            }
        };
        if self.dead.is_none() {
            tracing::info!("the disk takes the raft log again");
            self.parts.failed.send_replace(None);
        }
        match mended {
            Err(LogError::Gap { .. }) => self.carry_out(batch),
            result => finish(batch, &result),
        }
    }

    fn write_again(&mut self, batch: &[Job]) -> Result<(), LogError> {
        match self.bring_back() {
            Ok(true) => {
                self.acknowledge(self.parts.count + 1);
                Ok(())
            }
            Ok(false) => self.write(batch),
            Err(error @ LogError::Io(_)) => Err(error),
            Err(error) => Err(self.die(error.to_string())),
        }
    }

    fn is_closing_after(&self, pause: Duration) -> bool {
        let nudged = match self.parts.closing.load(Ordering::Acquire) {
            true => return true,
            false => self.parts.nudged.recv_timeout(pause),
        };
        nudged != Err(RecvTimeoutError::Timeout) || self.parts.closing.load(Ordering::Acquire)
    }

    /// Opens a fresh copy of the file. Says whether the batch that failed is in it.
    fn bring_back(&mut self) -> Result<bool, LogError> {
        replace_by_copy(&self.parts.path).map_err(|error| LogError::Io(error.to_string()))?;
        let db = open::reopen(&self.parts.path, &self.parts.disk)?;
        let count = open::count_of(&db)?;
        if count < self.parts.count {
            return Err(open::flushes_lost(self.parts.count, count));
        }
        self.parts.db.store(Some(Arc::new(db)));
        Ok(count > self.parts.count)
    }

    fn die(&mut self, why: String) -> LogError {
        tracing::error!(why, "raft log failed; it takes no more writes");
        self.dead = Some(why.clone());
        self.parts.failed.send_replace(Some(why.clone()));
        LogError::Failed(why)
    }
}

fn finish(jobs: Vec<Job>, result: &Result<(), LogError>) {
    for job in jobs {
        (job.done)(result.clone());
    }
}

fn write_batch(db: &Database, batch: &[Job], order: Order, count: u64) -> Result<(), LogError> {
    let mut txn = db.begin_write().map_err(read_error)?;
    txn.set_durability(Durability::Immediate).map_err(read_error)?;
    {
        let mut records = txn.open_table(RECORDS).map_err(read_error)?;
        let mut marks = txn.open_table(MARKS).map_err(read_error)?;
        for job in batch {
            write_job(&job.work, &mut records, &mut marks, order)?;
        }
        put_mark(&mut marks, FLUSHES, &count.to_le_bytes())?;
    }
    txn.commit().map_err(read_error)
}

fn write_job(
    work: &Work,
    records: &mut Table<'_, u64, &[u8]>,
    marks: &mut Table<'_, &str, &[u8]>,
    order: Order,
) -> Result<(), LogError> {
    match work {
        Work::Append(new) => append(new, records, marks, order),
        Work::Truncate(from) => remove(records, *from..),
        Work::Purge(purged) => {
            remove(records, ..=purged.index)?;
            put_mark(marks, PURGED, &seal_purged(purged))
        }
        Work::Mark(mark, bytes) => put_mark(marks, mark.key(), bytes),
        Work::Touch | Work::Stop => Ok(()),
    }
}

fn append(
    new: &[LogRecord],
    records: &mut Table<'_, u64, &[u8]>,
    marks: &Table<'_, &str, &[u8]>,
    order: Order,
) -> Result<(), LogError> {
    let mut last = last_index(records, marks)?;
    for record in new {
        if order == Order::Strict && last.is_some_and(|last| record.index != last + 1) {
            return Err(LogError::Gap {
                last,
                index: record.index,
            });
        }
        let value = seal_record(record.index, &record.bytes);
        records.insert(record.index, value.as_slice()).map_err(read_error)?;
        last = Some(record.index);
    }
    Ok(())
}

fn last_index(records: &Table<'_, u64, &[u8]>, marks: &Table<'_, &str, &[u8]>) -> Result<Option<u64>, LogError> {
    if let Some((index, _)) = records.last().map_err(read_error)? {
        return Ok(Some(index.value()));
    }
    let Some(value) = marks.get(PURGED).map_err(read_error)? else {
        return Ok(None);
    };
    Ok(Some(
        frame::open_purged(frame::open_mark(PURGED, value.value())?)?.index,
    ))
}

fn remove(records: &mut Table<'_, u64, &[u8]>, range: impl std::ops::RangeBounds<u64>) -> Result<(), LogError> {
    records.retain_in(range, |_, _| false).map_err(read_error)
}

fn put_mark(marks: &mut Table<'_, &str, &[u8]>, key: &str, bytes: &[u8]) -> Result<(), LogError> {
    let value = seal_mark(key, bytes);
    marks.insert(key, value.as_slice()).map_err(read_error)?;
    Ok(())
}
