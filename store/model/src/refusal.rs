//! The answers that say no.

use serde::{Deserialize, Serialize};

use crate::rbac::{Action, Resource, RoleBinding, Verb};

/// A no: an answer, not an error. Append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// There is no such object.
    #[error("{kind} {name:?} does not exist")]
    NotFound {
        /// `project`.
        kind: String,
        /// Its name or id.
        name: String,
    },
    /// The name is in use.
    #[error("{kind} {name:?} exists already")]
    NameTaken {
        /// `project`.
        kind: String,
        /// The name.
        name: String,
    },
    /// Somebody else changed it in between.
    #[error("{kind} {name:?} was changed in between: it is at version {version}")]
    VersionMismatch {
        /// `project`.
        kind: String,
        /// Its name.
        name: String,
        /// The version it has.
        version: u64,
    },
    /// The actor is not (or no longer) somebody who may ask.
    #[error("the caller's user or token is unknown, disabled or revoked")]
    NotAuthenticated,
    /// The actor lacks a right.
    #[error("{who} lacks {need}")]
    Forbidden {
        /// The actor, as people write it.
        who: String,
        /// The missing right in the form of a binding.
        need: String,
    },
    /// A value cannot be.
    #[error("{field}: {why}")]
    Invalid {
        /// Which.
        field: String,
        /// Why.
        why: String,
    },
    /// Only the cluster itself may do this.
    #[error("this is done by the cluster itself")]
    Reserved,
    /// There is a cluster already, or none yet.
    #[error("the cluster is already initialised")]
    AlreadyInitialised,
    /// A join token that does not let in (any more).
    #[error("{0}")]
    Join(JoinRefusal),
    /// It does not look any more as it did when it was decided on.
    #[error("{kind} {name:?} was changed in between: its digest is {digest} now")]
    LooksOtherwise {
        /// `tool`.
        kind: String,
        /// Its name.
        name: String,
        /// What it looks like now, in hexadecimal.
        digest: String,
    },
}

/// Why a join token does not let a machine in. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// There is none with that secret.
    #[error("the join token is not known to this cluster")]
    Unknown,
    /// Another machine came in by it.
    #[error("the join token was used already: each lets in one machine")]
    Used,
    /// Its time is over.
    #[error("the join token has expired")]
    Expired,
    /// The machine's id was removed from the cluster.
    #[error("this node was removed from the cluster, and its id never comes back")]
    Removed,
}

/// A right that somebody needs: what a refusal names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Need {
    /// A verb on a name of a resource.
    On(Verb, Resource, String),
    /// An action.
    Action(Action),
    /// To hold what is to be granted.
    Covering(RoleBinding),
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Need::On(verb, resource, name) => {
                write!(
                    f,
                    "role:{},resource:{},name:{name}",
                    verb.least_role().as_str(),
                    resource.as_str()
                )
            }
            Need::Action(action) => write!(f, "action:{}", action.as_str()),
            Need::Covering(binding) => write!(f, "{binding} (one cannot grant more than one holds)"),
        }
    }
}
