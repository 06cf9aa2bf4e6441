//! What is answered to a command.

use serde::{Deserialize, Serialize};

use crate::frame::Framed;
use crate::ids::Id;
use crate::rbac::RoleBinding;
use crate::refusal::Refusal;

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The log index at which it was carried out: the first time, when it was repeated.
    pub index: u64,
    /// The answer.
    pub reply: Reply,
    /// Whether it took a right away: then it is answered only when no replica can admit that right any more.
    pub restricts: bool,
}

impl Framed for Outcome {
    const KIND: u8 = 101;
}

/// The answer to a command. Append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing was changed.
    Refused(Refusal),
    /// There is a cluster now.
    ClusterInitialised,
    /// A record was made.
    Created {
        /// Its id.
        id: Id,
    },
    /// A record was changed.
    Updated {
        /// Its id.
        id: Id,
    },
    /// A record is gone.
    Deleted {
        /// Its id.
        id: Id,
    },
    /// A session was opened.
    SessionOpened,
    /// A session is over, or was none.
    SessionClosed,
    /// A token is let in.
    TokenIssued {
        /// Its id.
        id: Id,
        /// The id of the token of that name that was revoked for it.
        replaced: Option<Id>,
        /// What it may do.
        bindings: Vec<RoleBinding>,
    },
    /// A token is refused from now on.
    TokenRevoked {
        /// Its id.
        id: Id,
        /// It was refused before.
        already: bool,
    },
    /// Bookkeeping was done.
    Noted,
    /// A machine was taken in.
    NodeEnrolled {
        /// Whether it is to vote.
        voter: bool,
    },
    /// The cluster's objects are those of a backup.
    Restored(Restored),
}

/// What a restore has changed for those who use the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Restored {
    /// Log index at which the backup was taken.
    pub backup_index: u64,
    /// Tokens that were refused and are let in again: `project/name`.
    pub revived: Listed,
    /// Tokens that the backup knows as good and that stay refused, because they were revoked, deleted or expired since, or this
    /// cluster never knew them.
    pub refused: Listed,
    /// Tokens that were let in and are refused from now on: the backup does not know them as good.
    pub revoked: Listed,
    /// Users who were not there and are again.
    pub users_back: Listed,
    /// Sessions that were closed because their owner is not there any more, or disabled.
    pub sessions_closed: u64,
}

/// How many, and the first of them by name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Listed {
    /// All of them.
    pub count: u64,
    /// The names of at most [`LISTED_MAX`].
    pub names: Vec<String>,
}

/// Names that one answer lists.
pub const LISTED_MAX: usize = 1_000;

impl Listed {
    /// Adds one.
    pub fn add(&mut self, name: String) {
        self.count += 1;
        if self.names.len() < LISTED_MAX {
            self.names.push(name);
        }
    }
}
