//! Servers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::limits::{ServerLimitsBody, is_default};

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
    /// How it is spared, and how long it is waited for.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: ServerLimitsBody,
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
            limits: ServerLimitsBody::default(),
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
    /// How it is doing.
    #[serde(default)]
    pub status: ServerStatus,
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
    /// How it is spared, and how long it is waited for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: ServerLimitsBody,
}

/// How a server is doing, as the node knows that asks it for the whole cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// `healthy`, `unhealthy`, or `unknown` before it was asked.
    pub health: String,
    /// Why it is unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// stdio: `running`, or `idle`: nobody uses it, so it was stopped, and it starts with the next call. Left out where no node has
    /// started it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// How many tools it lists that the caller may see.
    pub tools: u64,
    /// How many of them wait for approval.
    pub held: u64,
    /// When its lists were fetched as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<String>,
    /// The node that asks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What is known of a tool besides what the server says of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WatchedTool {
    /// The server's own name for it.
    pub name: String,
    /// SHA-256 over its entry, in hexadecimal; the order of members does not count.
    pub digest: String,
    /// What of it was approved, in the same form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<String>,
    /// Whether it is kept back until somebody approves it.
    pub held: bool,
    /// When it was seen first.
    pub first_seen_at: String,
    /// When it became what it is.
    pub changed_at: String,
    /// The node that saw that.
    pub seen_by: String,
}

/// Something that happened to a tool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolChangeBody {
    /// The server's own name for it.
    pub tool: String,
    /// `added`, `description`, `schema`, `description and schema`, `other`, `removed` or `approved`.
    pub what: String,
    /// SHA-256 over what it was, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// SHA-256 over what it is, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The node that saw it, or who approved it.
    pub by: String,
    /// When.
    pub at: String,
}

/// Tools that are let in as they look now.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ToolApprovals {
    /// Each of them.
    pub tools: Vec<ToolApproval>,
}

/// A tool that is let in as it looks now.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ToolApproval {
    /// The server's own name for it.
    pub name: String,
    /// The digest of what is approved. If the tool has changed since it was read, nothing is.
    pub digest: String,
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
    /// What else is known of each.
    #[serde(default)]
    pub watched: Vec<WatchedTool>,
    /// What happened to its tools since they were seen first, the oldest first.
    #[serde(default)]
    pub changes: Vec<ToolChangeBody>,
}
