//! The one thread that writes. It takes what is queued, writes it in one transaction, waits for the disk, then runs the
//! completions in order. After a failed write nothing is written again: what the disk holds is unknown.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use redb::{Database, Durability, ReadableTable, Table};
use tokio::sync::watch;

use super::frame::{self, PURGED, seal_mark, seal_purged, seal_record};
use super::health::Flushes;
use super::{Completion, LogError, LogRecord, MARKS, Mark, Purged, RECORDS};

/// Jobs that may wait; a caller beyond that blocks, which only a stuck disk brings about.
const QUEUE_JOBS_MAX: usize = 4_096;
/// Jobs that share one transaction at most.
const BATCH_JOBS_MAX: usize = 1_024;

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
    Stop,
}

pub(super) fn spawn(
    db: Arc<Database>,
    flushes: Arc<Flushes>,
    failed: watch::Sender<Option<String>>,
    order: Order,
) -> Result<mpsc::SyncSender<Job>, LogError> {
    let (jobs_tx, jobs) = mpsc::sync_channel(QUEUE_JOBS_MAX);
    let writer = Writer {
        db,
        flushes,
        failed,
        jobs,
        order,
    };
    let thread = std::thread::Builder::new().name("raft-log".to_owned());
    thread
        .spawn(move || writer.run())
        .map_err(|error| LogError::Io(error.to_string()))?;
    Ok(jobs_tx)
}

struct Writer {
    db: Arc<Database>,
    flushes: Arc<Flushes>,
    failed: watch::Sender<Option<String>>,
    jobs: mpsc::Receiver<Job>,
    order: Order,
}

impl Writer {
    fn run(self) {
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
                let Writer { db, jobs, .. } = self;
                drop((db, jobs));
                finish(stopped, &Err(LogError::Closed));
                return;
            }
        }
    }

    fn carry_out(&self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let already_failed = self.failed.borrow().clone();
        let result = match already_failed {
            Some(reason) => Err(LogError::Failed(reason)),
            None => self.write(&batch),
        };
        match result {
            // The caller's mistake, and the transaction was rolled back: each job of the batch gets its own verdict.
            Err(LogError::Gap { .. }) if batch.len() > 1 => {
                batch.into_iter().for_each(|job| self.carry_out(vec![job]));
            }
            result => finish(batch, &result),
        }
    }

    fn write(&self, batch: &[Job]) -> Result<(), LogError> {
        self.flushes.begin();
        let result = catch_unwind(AssertUnwindSafe(|| write_batch(&self.db, batch, self.order)));
        self.flushes.end();
        let error = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(gap @ LogError::Gap { .. })) => return Err(gap),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store panicked".to_owned(),
        };
        tracing::error!(error, "raft log failed; it takes no more writes");
        self.failed.send_replace(Some(error.clone()));
        Err(LogError::Failed(error))
    }
}

fn finish(jobs: Vec<Job>, result: &Result<(), LogError>) {
    for job in jobs {
        (job.done)(result.clone());
    }
}

fn write_batch(db: &Database, batch: &[Job], order: Order) -> Result<(), LogError> {
    let mut txn = db.begin_write().map_err(write_error)?;
    txn.set_durability(Durability::Immediate)
        .map_err(|error| LogError::Failed(error.to_string()))?;
    {
        let mut records = txn.open_table(RECORDS).map_err(write_error)?;
        let mut marks = txn.open_table(MARKS).map_err(write_error)?;
        for job in batch {
            write_job(&job.work, &mut records, &mut marks, order)?;
        }
    }
    txn.commit().map_err(write_error)
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
        Work::Stop => Ok(()),
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
        records.insert(record.index, value.as_slice()).map_err(write_error)?;
        last = Some(record.index);
    }
    Ok(())
}

fn last_index(records: &Table<'_, u64, &[u8]>, marks: &Table<'_, &str, &[u8]>) -> Result<Option<u64>, LogError> {
    if let Some((index, _)) = records.last().map_err(write_error)? {
        return Ok(Some(index.value()));
    }
    let Some(value) = marks.get(PURGED).map_err(write_error)? else {
        return Ok(None);
    };
    Ok(Some(
        frame::open_purged(frame::open_mark(PURGED, value.value())?)?.index,
    ))
}

fn remove(records: &mut Table<'_, u64, &[u8]>, range: impl std::ops::RangeBounds<u64>) -> Result<(), LogError> {
    records.retain_in(range, |_, _| false).map_err(write_error)
}

fn put_mark(marks: &mut Table<'_, &str, &[u8]>, key: &str, bytes: &[u8]) -> Result<(), LogError> {
    marks
        .insert(key, seal_mark(key, bytes).as_slice())
        .map_err(write_error)?;
    Ok(())
}

fn write_error(error: impl Into<redb::Error>) -> LogError {
    LogError::Failed(error.into().to_string())
}
