//! MCP tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rbac::RoleBindingBody;

/// A token to make.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NewMcpToken {
    /// Unique among the project's active tokens.
    pub name: String,
    /// The one project it reaches.
    pub project: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `empty`: only what `roleBindings` says. `clone`: what the creator holds, without what a token never has.
    pub rbac: String,
    /// What it may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub role_bindings: Vec<RoleBindingBody>,
    /// `30d`, `12h`, `never` or a date. Excludes `expiresAt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// When it ends. Excludes `ttl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Revoke the active token of that name first.
    pub force: bool,
}

impl Default for NewMcpToken {
    fn default() -> NewMcpToken {
        NewMcpToken {
            name: String::new(),
            project: String::new(),
            description: String::new(),
            rbac: "empty".to_owned(),
            role_bindings: Vec::new(),
            ttl: None,
            expires_at: None,
            force: false,
        }
    }
}

/// A token. The bearer and its hash are not in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpTokenBody {
    /// Its id.
    pub id: String,
    /// Unique among the project's active tokens.
    pub name: String,
    /// The one project it reaches; nothing if that is gone.
    pub project: Option<String>,
    /// Whose rights limit it: a user's e-mail, or `ServiceAccount:ci`; nothing if they are gone.
    pub owner: Option<String>,
    /// The beginning of the bearer, for people.
    pub prefix: String,
    /// For people.
    pub description: String,
    /// What it may do, within its owner's rights.
    #[serde(default)]
    pub role_bindings: Vec<RoleBindingBody>,
    /// `active`, `expired` or `revoked`.
    pub status: String,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// When it ends; nothing: never.
    pub expires_at: Option<String>,
    /// When it was last seen, about a minute late.
    pub last_used_at: Option<String>,
    /// When it was revoked or expired.
    pub revoked_at: Option<String>,
    /// Log index of its last change, as a decimal string.
    pub resource_version: String,
}

/// A token that was just made: the one answer that shows the bearer. Its `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MintedToken {
    /// The token.
    #[serde(flatten)]
    pub mcptoken: McpTokenBody,
    /// The bearer. Missing when this is the answer to a repeated request: it was shown with the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Id of the token of that name that was revoked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl std::fmt::Debug for MintedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintedToken")
            .field("mcptoken", &self.mcptoken)
            .field("replaced", &self.replaced)
            .finish_non_exhaustive()
    }
}
