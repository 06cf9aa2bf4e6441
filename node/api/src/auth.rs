//! Who somebody is and what they may do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rbac::RoleBindingBody;

/// A login. Its `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoginRequest {
    /// Who.
    pub email: String,
    /// Their password.
    #[schema(format = Password, write_only)]
    pub password: String,
}

impl std::fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginRequest")
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

/// A first password, set with the secret that `mcpnode init` wrote. Opens a session as well. Its `Debug` leaves both out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SetupRequest {
    /// Who.
    pub email: String,
    /// `mcpctl_setup_…`: it works once.
    #[schema(format = Password, write_only)]
    pub setup_secret: String,
    /// Their password from now on.
    #[schema(format = Password, write_only)]
    pub password: String,
}

impl std::fmt::Debug for SetupRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetupRequest")
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

/// The session that a login opens: the one answer that shows its bearer. Its `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoginAnswer {
    /// The bearer: `mcpctl_ses_…`.
    pub token: String,
    /// When it ends.
    pub expires_at: String,
    /// Whose it is.
    pub user: UserRef,
}

impl std::fmt::Debug for LoginAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginAnswer")
            .field("user", &self.user)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A user or service account in a few words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserRef {
    /// Their id.
    pub id: String,
    /// The user's e-mail; `ServiceAccount:ci` for a service account.
    pub email: String,
    /// For people.
    pub name: String,
}

/// Who the caller is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhoAmI {
    /// `user`, `serviceaccount` or `mcptoken`.
    pub kind: String,
    /// The user or service account, or the owner of the token.
    pub user: UserRef,
    /// The token's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The token's project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// When the session or the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// What the caller was granted. A token's owner limits it further.
    pub role_bindings: Vec<RoleBindingBody>,
}

/// Whether the caller may do something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanI {
    /// The answer.
    pub allowed: bool,
    /// The right that this takes, in the form of a binding.
    pub need: String,
}

/// Whose token this is: the answer to the token itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Introspection {
    /// Always true: anything else is a 401.
    pub active: bool,
    /// The token's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its project.
    pub project: String,
    /// SHA-256 of the bearer, in hexadecimal.
    pub sha: String,
    /// When it ends; nothing: never.
    pub expires_at: Option<String>,
    /// URLs of the gateways of all nodes: where it is taken.
    #[serde(default)]
    pub gateways: Vec<String>,
}
