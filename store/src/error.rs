//! What can go wrong with the state. Any of these ends admission on this node first and is reported second.

use std::path::PathBuf;

use crate::disk::{Fault, fault_of};

/// Why the replicated state cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The bytes are not what was written.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The disk refuses at the moment. The state can be taken up again when it does not: see `Replica::begin_mending`.
    #[error("the store cannot be read or written: {0}")]
    Io(String),
    /// Another process has it open.
    #[error("the state is in use: another mcpnode runs with this data directory")]
    InUse,
    /// There should be data and there is none.
    #[error("{path} is {what}, but this node had data: restore the file or re-join the node with an empty data directory", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// `missing` or `empty`.
        what: &'static str,
    },
    /// It failed before and is shut: until it is mended, or until the node starts again.
    #[error("the store is shut after a failure: {0}")]
    Shut(String),
}

impl StoreError {
    pub(crate) fn io(error: impl std::fmt::Display) -> StoreError {
        StoreError::Io(error.to_string())
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> StoreError {
        match fault_of(error) {
            Fault::File(what) => StoreError::Corrupt(what),
            Fault::Disk(what) => StoreError::Io(what),
            Fault::Taken => StoreError::InUse,
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> StoreError {
                StoreError::from(redb::Error::from(error))
            }
        })*
    };
}

from_redb!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError,
    SetDurabilityError
);
