//! What the state hashes to at one index, read row by row while everything goes on. Reading it all also finds rows that fail their
//! checksum and that nobody would have asked for.

use mcp_model::agreement::{Hasher, StateDigest};
use redb::{ReadTransaction, ReadableTable};

use crate::error::StoreError;
use crate::rows::{MARKS, STATE, mark, row_value};
use crate::snapshot::INDEX_MARK;

/// Rows that are read at a stretch.
const ROWS_AT_A_STRETCH: u64 = 1_024;

/// A state that stays as it is for as long as this is kept, and so do the pages under it.
pub struct Pinned {
    txn: ReadTransaction,
    index: u64,
}

impl Pinned {
    pub(crate) fn of(txn: ReadTransaction, index: u64) -> Pinned {
        Pinned { txn, index }
    }

    /// The index of the last entry in it.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Hashes it. `rest` is called now and then, so that whoever has more urgent work gets to it.
    pub fn digest(self, mut rest: impl FnMut()) -> Result<StateDigest, StoreError> {
        let stored = mark(&self.txn.open_table(MARKS)?, INDEX_MARK)?;
        let stored = stored.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        // A state that went back meanwhile is not the one that was meant.
        if stored != Some(self.index) {
            return Err(StoreError::Shut(format!(
                "the state is not at index {} any more",
                self.index
            )));
        }
        let mut hasher = Hasher::default();
        let mut rows = 0_u64;
        for row in self.txn.open_table(STATE)?.iter()? {
            let (key, value) = row?;
            let value = row_value(key.value(), value.value())?;
            let (table, key) = key
                .value()
                .split_first()
                .ok_or_else(|| StoreError::Corrupt("a row has no key".to_owned()))?;
            hasher.row(*table, key, value);
            rows += 1;
            if rows.is_multiple_of(ROWS_AT_A_STRETCH) {
                rest();
            }
        }
        Ok(hasher.finish(self.index))
    }
}
