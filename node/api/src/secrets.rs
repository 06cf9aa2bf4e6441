//! Secrets: written through the API and never read through it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A secret to make, or the whole of one to replace. Its `Debug` leaves the values out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SecretSpec {
    /// How servers refer to it: `${secret:NAME/KEY}`. In a PUT it stands in the path and may be left out here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its values, by key.
    pub data: BTreeMap<String, String>,
}

impl std::fmt::Debug for SecretSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretSpec")
            .field("name", &self.name)
            .field("keys", &self.data.keys())
            .finish_non_exhaustive()
    }
}

/// What can be changed of a secret. Fields and keys that are left out stay as they are. Its `Debug` leaves the values out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SecretChange {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// New values by key; `null` takes the key away.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, Option<String>>,
}

impl std::fmt::Debug for SecretChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretChange")
            .field("keys", &self.data.keys())
            .finish_non_exhaustive()
    }
}

/// A secret, without its values: nobody gets them back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretBody {
    /// Its id.
    pub id: String,
    /// How servers refer to it.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The keys that have a value.
    pub keys: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// Log index of its last change, as a decimal string.
    pub resource_version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_keys_and_no_values() {
        let spec: SecretSpec = serde_json::from_str(r#"{"name":"git","data":{"token":"canary"}}"#).unwrap();
        let change: SecretChange = serde_json::from_str(r#"{"data":{"token":"canary","old":null}}"#).unwrap();
        assert_eq!(change.data["old"], None);
        let shown = format!("{spec:?} {change:?}");
        assert!(shown.contains("token") && !shown.contains("canary"), "{shown}");
    }
}
