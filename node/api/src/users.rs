//! Users.

use serde::{Deserialize, Serialize};

/// A user to make. Its `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NewUser {
    /// How bindings name them. Immutable.
    pub email: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Without one they cannot log in with a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser")
            .field("email", &self.email)
            .finish_non_exhaustive()
    }
}

/// What can be changed of a user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserChange {
    /// Whether their sessions and tokens are refused.
    pub disabled: Option<bool>,
}

/// A user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
