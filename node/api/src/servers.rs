//! Servers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Longest wait for a connection when the caller does not say, ms.
pub const CONNECT_MS_DEFAULT: u64 = 10_000;
/// Longest silence while an answer is awaited when the caller does not say, ms.
pub const RESPONSE_MS_DEFAULT: u64 = 120_000;

/// A server to make, or all that is written about one. Its `Debug` leaves out what may hold secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerSpecBody {
    /// Its name. In a PUT it stands in the path and may be left out here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// For people.
    pub description: String,
    /// `stdio`, `http` or `sse`.
    pub transport: String,
    /// stdio: the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// stdio: its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// stdio: its environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// stdio: where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// http and sse: where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// http and sse: sent with every request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Longest wait for a connection, or for a child to say hello, ms.
    pub connect_ms: u64,
    /// Longest silence while an answer is awaited, ms.
    pub response_ms: u64,
    /// One child per session instead of one per node.
    pub stateful: bool,
    /// Changed tools wait for approval.
    pub pin_tools: bool,
}

impl std::fmt::Debug for ServerSpecBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerSpecBody")
            .field("name", &self.name)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl Default for ServerSpecBody {
    fn default() -> ServerSpecBody {
        ServerSpecBody {
            name: String::new(),
            description: String::new(),
            transport: String::new(),
            command: None,
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            url: None,
            headers: BTreeMap::new(),
            connect_ms: CONNECT_MS_DEFAULT,
            response_ms: RESPONSE_MS_DEFAULT,
            stateful: false,
            pin_tools: false,
        }
    }
}

/// A server. Values of `env` and `headers` are shown to those who may change the server and read `(hidden)` to others.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerBody {
    /// Its id.
    pub id: String,
    /// All that is written about it.
    #[serde(flatten)]
    pub spec: ServerSpecFields,
    /// When it was made.
    pub created_at: String,
    /// By whom.
    pub created_by: String,
    /// Log index of its last change, as a decimal string.
    pub resource_version: String,
}

/// What is shown instead of a value that the caller may not read.
pub const HIDDEN: &str = "(hidden)";

impl std::fmt::Debug for ServerBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBody")
            .field("id", &self.id)
            .field("name", &self.spec.name)
            .finish_non_exhaustive()
    }
}

/// The fields of [`ServerSpecBody`] in an answer, where unknown ones are no fault.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpecFields {
    /// The prefix of its tools.
    pub name: String,
    /// For people.
    pub description: String,
    /// `stdio`, `http` or `sse`.
    pub transport: String,
    /// stdio: the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// stdio: its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// stdio: its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// stdio: where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// http and sse: where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// http and sse: sent with every request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Longest wait for a connection, ms.
    pub connect_ms: u64,
    /// Longest silence while an answer is awaited, ms.
    pub response_ms: u64,
    /// One child per session instead of one per node.
    pub stateful: bool,
    /// Changed tools wait for approval.
    pub pin_tools: bool,
}

/// What a server offers, as far as the caller may see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerTools {
    /// The server.
    pub server: String,
    /// Whether the last probe answered; nothing: there was none yet.
    pub healthy: Option<bool>,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// SHA-256 over what it offers, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When that was fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<String>,
    /// The tools as the server sent them.
    pub tools: Vec<Value>,
}
