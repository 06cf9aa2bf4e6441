//! Sessions: what a login or a service account holds open.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A session. Its bearer is not in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionBody {
    /// What it is closed by.
    pub id: String,
    /// E-mail of the user whose it is; nothing if it belongs to a service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the service account whose it is; nothing if it belongs to a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Whether it is the one that asks.
    pub current: bool,
    /// When it was opened.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// When it ends.
    pub expires_at: String,
    /// Log index of its last change, as a decimal string.
    pub resource_version: String,
}
