//! Service accounts: programs with sessions and tokens of their own, and no password.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A service account to make, or the whole text of one to replace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceAccountSpec {
    /// How bindings name it. In a PUT it stands in the path and may be left out here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// What can be changed of a service account. Fields that are left out stay as they are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceAccountChange {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A service account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountBody {
    /// Its id.
    pub id: String,
    /// How bindings name it.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// Log index of its last change, as a decimal string.
    pub resource_version: String,
}

/// A session to open for a service account: the body of `POST serviceaccounts/{name}/sessions`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NewSession {
    /// `12h`, `30d` or a date; nothing: 24 hours. A session always ends, after 90 days at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// The session that was opened: the one answer that shows its bearer. Its `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenedSession {
    /// Its id, to close it by.
    pub id: String,
    /// Whose it is.
    pub service_account: String,
    /// The bearer: `mcpctl_ses_…`. Missing when this is the answer to a repeated request: it was shown with the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// When it ends.
    pub expires_at: String,
}

impl std::fmt::Debug for OpenedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedSession")
            .field("id", &self.id)
            .field("service_account", &self.service_account)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
