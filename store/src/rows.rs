//! The replicated state as one ordered redb table: the key is the table's number and the record's key.

use std::cell::RefCell;
use std::ops::Bound;

use mcp_model::frame::FrameError;
use mcp_model::tables::{Key, Table, Tables, TablesMut};
use redb::{ReadableTable, TableDefinition};

use crate::checked::{proven, stamp};
use crate::error::StoreError;

pub(crate) const STATE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("state");
/// How far the state is, and what raft wants to know of it.
pub(crate) const MARKS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("marks");

/// A mark, if it was ever stored.
pub(crate) fn mark(
    marks: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(value) = marks.get(key)? else {
        return Ok(None);
    };
    let bytes = proven(key.as_bytes(), value.value());
    let bytes = bytes.ok_or_else(|| StoreError::Corrupt(format!("mark {key} fails its checksum")))?;
    Ok(Some(bytes.to_vec()))
}

/// Stores a mark.
pub(crate) fn put_mark(
    marks: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &'static str,
    bytes: &[u8],
) -> Result<(), StoreError> {
    marks.insert(key, stamp(key.as_bytes(), bytes).as_slice())?;
    Ok(())
}

/// What a row's stored value holds, if it is what was put there.
pub(crate) fn row_value<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    proven(key, value).ok_or_else(|| {
        let key: String = key.iter().map(|b| format!("{b:02x}")).collect();
        StoreError::Corrupt(format!("row {key} fails its checksum"))
    })
}

/// The state as one transaction sees it. The first fault is kept; what was computed since then is worthless.
pub(crate) struct Rows<T> {
    table: T,
    fault: RefCell<Option<StoreError>>,
}

impl<T> Rows<T> {
    pub(crate) fn new(table: T) -> Rows<T> {
        Rows {
            table,
            fault: RefCell::new(None),
        }
    }

    /// Whether everything that was read and written can be believed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.fault.borrow().clone().map_or(Ok(()), Err)
    }

    fn fault(&self, error: StoreError) {
        self.fault.borrow_mut().get_or_insert(error);
    }

    fn value(&self, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        match row_value(key, value) {
            Ok(value) => Some(value.to_vec()),
            Err(error) => {
                self.fault(error);
                None
            }
        }
    }

    fn or_fault<V>(&self, result: Result<Option<V>, redb::StorageError>) -> Option<V> {
        result.unwrap_or_else(|error| {
            self.fault(error.into());
            None
        })
    }
}

/// The key of a row: the table first, so that one table's rows lie together.
pub(crate) fn row_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len());
    row.push(table as u8);
    row.extend_from_slice(key);
    row
}

impl<T: ReadableTable<&'static [u8], &'static [u8]>> Tables for Rows<T> {
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let key = row_key(table, key);
        let value = self.or_fault(self.table.get(key.as_slice()))?;
        self.value(&key, value.value())
    }

    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Key, Vec<u8>)> {
        let prefix = row_key(table, prefix);
        let after = after.map(|key| row_key(table, key));
        let from = match &after {
            Some(after) => Bound::Excluded(after.as_slice()),
            None => Bound::Included(prefix.as_slice()),
        };
        let range = match self.table.range::<&[u8]>((from, Bound::Unbounded)) {
            Ok(range) => range,
            Err(error) => {
                self.fault(error.into());
                return Vec::new();
            }
        };
        let mut rows = Vec::new();
        for row in range.take(limit) {
            let Some((key, value)) = self.or_fault(row.map(Some)) else {
                break;
            };
            if !key.value().starts_with(&prefix) {
                break;
            }
            let Some(value) = self.value(key.value(), value.value()) else {
                break;
            };
            rows.push((key.value()[1..].to_vec(), value));
        }
        rows
    }

    fn corrupt(&self, table: Table, key: &[u8], why: FrameError) {
        let key: String = key.iter().map(|b| format!("{b:02x}")).collect();
        self.fault(StoreError::Corrupt(format!("{table:?} record {key}: {why}")));
    }
}

impl TablesMut for Rows<redb::Table<'_, &'static [u8], &'static [u8]>> {
    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        let key = row_key(table, key);
        let failed = self.table.insert(key.as_slice(), stamp(&key, &value).as_slice()).err();
        if let Some(error) = failed {
            self.fault(error.into());
        }
    }

    fn remove(&mut self, table: Table, key: &[u8]) -> bool {
        let removed = self
            .table
            .remove(row_key(table, key).as_slice())
            .map(|old| old.map(|_| ()));
        self.or_fault(removed).is_some()
    }
}
