//! Opening the file: integrity first, and a panic of the store on a damaged file is an error like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, Durability, ReadableDatabase, TableError};

use super::acked::Acked;
use super::frame::{FLUSHES, FORMAT, FORMAT_BYTES, open_count, open_mark, seal_mark};
use super::{LogError, MARKS, RECORDS, read_error};
use crate::disk::Disk;

/// The log is read at its end; a few thousand records fit.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// A log that can be worked with.
pub(super) struct Opened {
    pub(super) db: Database,
    pub(super) path: PathBuf,
    pub(super) disk: Disk,
    pub(super) acked: Acked,
    /// Flushes so far.
    pub(super) count: u64,
}

pub(super) fn open_or_create(path: &Path, disk: Disk) -> Result<Opened, LogError> {
    let db = guarded(|| {
        let db = disk.create(&builder(), path).map_err(read_error)?;
        match format_of(&db)? {
            Some(format) => check_format(path, &format)?,
            None => {
                // Whatever log was counted here before, it is another one.
                let (acked, _) = Acked::open(path).map_err(io_error)?;
                acked.note(0).map_err(io_error)?;
                lay_out(&db)?;
            }
        }
        Ok(db)
    })?;
    opened(db, path, disk)
}

pub(super) fn open_existing(path: &Path, disk: Disk) -> Result<Opened, LogError> {
    let missing = |what| LogError::Missing {
        path: path.display().to_string(),
        what,
    };
    let length = match std::fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing("gone")),
        Err(error) => return Err(LogError::Io(error.to_string())),
    };
    if length == 0 {
        return Err(missing("empty"));
    }
    let db = reopen(path, &disk)?;
    opened(db, path, disk)
}

/// Opens the file that is at `path`, whatever it acknowledged.
pub(super) fn reopen(path: &Path, disk: &Disk) -> Result<Database, LogError> {
    guarded(|| {
        let db = disk.open(&builder(), path).map_err(read_error)?;
        let format = format_of(&db)?.ok_or_else(|| LogError::Missing {
            path: path.display().to_string(),
            what: "new",
        })?;
        check_format(path, &format)?;
        Ok(db)
    })
}

fn opened(db: Database, path: &Path, disk: Disk) -> Result<Opened, LogError> {
    let count = guarded(|| count_of(&db))?;
    let (acked, noted) = Acked::open(path).map_err(io_error)?;
    if let Some(noted) = noted.filter(|noted| *noted > count) {
        return Err(flushes_lost(noted, count));
    }
    Ok(Opened {
        db,
        path: path.to_owned(),
        disk,
        acked,
        count,
    })
}

/// A log that is whole, but not all of it.
pub(super) fn flushes_lost(acknowledged: u64, held: u64) -> LogError {
    LogError::Corrupt(format!(
        "it has acknowledged {acknowledged} flushes and holds {held}: the last ones are lost"
    ))
}

fn io_error(error: std::io::Error) -> LogError {
    LogError::Io(error.to_string())
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// redb may panic on a file that was altered under it; a damaged replica must report and re-sync, not die.
fn guarded<T>(open: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(result) => result,
        Err(_) => Err(LogError::Corrupt(
            "the store panicked while opening the file".to_owned(),
        )),
    }
}

fn format_of(db: &Database) -> Result<Option<Vec<u8>>, LogError> {
    mark_of(db, FORMAT)
}

pub(super) fn count_of(db: &Database) -> Result<u64, LogError> {
    mark_of(db, FLUSHES)?.map_or(Ok(0), |bytes| open_count(&bytes))
}

fn mark_of(db: &Database, key: &str) -> Result<Option<Vec<u8>>, LogError> {
    let txn = db.begin_read().map_err(read_error)?;
    let table = match txn.open_table(MARKS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(read_error(error)),
    };
    let Some(value) = table.get(key).map_err(read_error)? else {
        return Ok(None);
    };
    Ok(Some(open_mark(key, value.value())?.to_vec()))
}

fn check_format(path: &Path, format: &[u8]) -> Result<(), LogError> {
    if format == FORMAT_BYTES {
        return Ok(());
    }
    let format = String::from_utf8_lossy(format).into_owned();
    Err(LogError::Io(format!(
        "{} has the unknown format {format:?}",
        path.display()
    )))
}

pub(super) fn lay_out(db: &Database) -> Result<(), LogError> {
    let mut txn = db.begin_write().map_err(read_error)?;
    txn.set_durability(Durability::Immediate)
        .map_err(|error| LogError::Io(error.to_string()))?;
    {
        txn.open_table(RECORDS).map_err(read_error)?;
        let mut marks = txn.open_table(MARKS).map_err(read_error)?;
        marks
            .insert(FORMAT, seal_mark(FORMAT, FORMAT_BYTES).as_slice())
            .map_err(read_error)?;
    }
    txn.commit().map_err(read_error)
}
