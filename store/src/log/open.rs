//! Opening the file: integrity first, and a panic of the store on a damaged file is an error like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Builder, Database, Durability, ReadableDatabase, TableError};

use super::frame::{FORMAT, FORMAT_BYTES, open_mark, seal_mark};
use super::{LogError, MARKS, RECORDS, read_error};

/// The log is read at its end; a few thousand records fit.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

pub(super) fn open_or_create(path: &Path) -> Result<Database, LogError> {
    guarded(|| {
        let db = builder().create(path).map_err(read_error)?;
        match format_of(&db)? {
            Some(format) => check_format(path, &format)?,
            None => lay_out(&db)?,
        }
        Ok(db)
    })
}

pub(super) fn open_existing(path: &Path) -> Result<Database, LogError> {
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
    guarded(|| {
        let db = builder().open(path).map_err(read_error)?;
        let format = format_of(&db)?.ok_or_else(|| missing("new"))?;
        check_format(path, &format)?;
        Ok(db)
    })
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// redb may panic on a file that was altered under it; a damaged replica must report and re-sync, not die.
fn guarded(open: impl FnOnce() -> Result<Database, LogError>) -> Result<Database, LogError> {
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(result) => result,
        Err(_) => Err(LogError::Corrupt(
            "the store panicked while opening the file".to_owned(),
        )),
    }
}

fn format_of(db: &Database) -> Result<Option<Vec<u8>>, LogError> {
    let txn = db.begin_read().map_err(read_error)?;
    let table = match txn.open_table(MARKS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(read_error(error)),
    };
    let Some(value) = table.get(FORMAT).map_err(read_error)? else {
        return Ok(None);
    };
    Ok(Some(open_mark(FORMAT, value.value())?.to_vec()))
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
