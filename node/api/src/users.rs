//! Users.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A user to make. Its `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NewUser {
    /// How bindings name them. Immutable.
    pub email: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Without one they cannot log in with a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = Password, write_only)]
    pub password: Option<String>,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser")
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

/// The whole text of a user to replace. A password is set elsewhere ([`PasswordReset`]).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserSpec {
    /// Immutable: left out, or the one in the path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Whether their sessions and tokens are refused.
    pub disabled: bool,
}

/// What can be changed of a user. Fields that are left out stay as they are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserChange {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether their sessions and tokens are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// A new password for oneself: the body of `POST auth/password`. Every other session of the caller is closed. Its `Debug`
/// leaves both passwords out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PasswordChange {
    /// The one in force, as a proof that it is not a borrowed session that asks.
    #[schema(format = Password, write_only)]
    pub old_password: String,
    /// The one to come.
    #[schema(format = Password, write_only)]
    pub new_password: String,
}

impl std::fmt::Debug for PasswordChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordChange").finish_non_exhaustive()
    }
}

/// A new password for somebody else: the body of `POST users/{email}/password`. Their sessions are closed. Its `Debug` leaves
/// the password out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PasswordReset {
    /// The one to come.
    #[schema(format = Password, write_only)]
    pub password: String,
}

impl std::fmt::Debug for PasswordReset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordReset").finish_non_exhaustive()
    }
}

/// A user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserBody {
    /// Their id.
    pub id: String,
    /// How bindings name them.
    pub email: String,
    /// For people.
    pub name: String,
    /// Whether their sessions and tokens are refused.
    pub disabled: bool,
    /// When the record was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// Log index of its last change, as a decimal string.
    pub resource_version: String,
}
