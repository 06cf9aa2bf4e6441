//! Versions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionBody {
    /// Version of the program.
    pub version: String,
    /// Version of the API: `v1`.
    pub api: String,
    /// Id of the node that answers.
    pub node: String,
}
