//! Backups: the file, whose form stands in the model, and the bodies by which one is restored.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use mcp_model::apply::restore::PART_BYTES_MAX;
pub use mcp_model::backup::{Check, Damage, FORMAT, Header, TABLES, noun};
use mcp_model::reply::{Listed, Restored};

/// A piece of a backup's body.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestorePart {
    /// Which piece, counted from 0. The first forgets all that were laid down before, for whichever restore.
    pub part: u32,
    /// The piece, in base64: at most 256 KiB of the body, and of all but the last piece exactly as much as of the first.
    pub data: String,
}

/// A piece that was laid down.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorePartBody {
    /// The restore.
    pub restore: String,
    /// The piece.
    pub part: u32,
}

/// Restores the backup whose body was laid down.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RestoreRequest {
    /// The head of the backup, in base64.
    pub head: String,
    /// Whether tokens come back that are refused now: revoked, deleted, or unknown to this cluster. Those that have expired never do.
    pub revive_tokens: bool,
    /// Whether the backup may be of another cluster.
    pub other_cluster: bool,
    /// Say what would change, and change nothing.
    pub dry_run: bool,
}

/// How many, and the first thousand by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedBody {
    /// All of them.
    pub count: u64,
    /// The first by name.
    pub names: Vec<String>,
}

/// What a restore has changed, or would change, for those who use the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreBody {
    /// The restore.
    pub restore: String,
    /// Whether nothing was changed because that was asked for.
    pub dry_run: bool,
    /// The log index at which the backup was taken, as a decimal string.
    pub backup_index: String,
    /// Tokens that were refused and are let in again.
    pub revived: ListedBody,
    /// Tokens that the backup knows as good and that stay refused.
    pub refused: ListedBody,
    /// Tokens that were let in and are refused from now on.
    pub revoked: ListedBody,
    /// Users who were not there and are again.
    pub users_back: ListedBody,
    /// Sessions that were closed.
    pub sessions_closed: u64,
}

impl RestoreBody {
    /// The body of what the state says.
    pub fn of(restore: String, dry_run: bool, restored: &Restored) -> RestoreBody {
        let listed = |listed: &Listed| ListedBody {
            count: listed.count,
            names: listed.names.clone(),
        };
        RestoreBody {
            restore,
            dry_run,
            backup_index: restored.backup_index.to_string(),
            revived: listed(&restored.revived),
            refused: listed(&restored.refused),
            revoked: listed(&restored.revoked),
            users_back: listed(&restored.users_back),
            sessions_closed: restored.sessions_closed,
        }
    }
}
