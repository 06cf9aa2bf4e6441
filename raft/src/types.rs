//! What openraft is told about our world.

use std::path::{Path, PathBuf};

use mcp_model::command::Outcome;
use serde::{Deserialize, Serialize};

/// A replica as the membership names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// For people.
    pub(crate) name: String,
    /// `host:port` of its peer listener.
    pub(crate) address: String,
}

/// One log entry's payload: encoded command envelopes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Vec<Vec<u8>>);

/// What became of a [`Batch`], command by command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcomes(pub(crate) Vec<Outcome>);

/// A snapshot is a file: one that stays, or one that goes when nobody wants it any more.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    temporary: bool,
}

impl SnapshotFile {
    /// A file that stays.
    pub(crate) fn kept(path: PathBuf) -> SnapshotFile {
        SnapshotFile { path, temporary: false }
    }

    /// A file that is removed with this value.
    pub(crate) fn temporary(path: PathBuf) -> SnapshotFile {
        SnapshotFile { path, temporary: true }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.temporary {
            // It may have been moved to where it stays.
            std::fs::remove_file(&self.path).unwrap_or(());
        }
    }
}

openraft::declare_raft_types!(
    /// openraft's types, with ours in their places.
    pub(crate) TypeConfig:
        D = Batch,
        R = Outcomes,
        NodeId = u64,
        Node = Peer,
        SnapshotData = SnapshotFile,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Stored = openraft::StoredMembership<u64, Peer>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Metrics = openraft::RaftMetrics<u64, Peer>;
