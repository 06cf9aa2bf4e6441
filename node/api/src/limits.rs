//! How much may be used: of a server, and by the tokens of a project. What is left out is the node's to decide.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a server is spared, and how long it is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerLimitsBody {
    /// Longest wait for the first byte of an answer, ms; responseMs where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// Longest silence within an answer, ms; responseMs where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Calls at once, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_calls: Option<u32>,
    /// Calls that wait for a place, on each node; the next one is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_calls: Option<u32>,
    /// Sessions that each node opens with it, for servers that work on one request of a session at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Largest message from it, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_bytes: Option<u64>,
    /// stdio: how long nobody may have used a child before it is stopped, s; the next call starts one again. 600 where it is left
    /// out, 1800 for the children of sessions (`stateful`); 0: it is not stopped for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_stop_seconds: Option<u64>,
}

/// How much may be used, on each node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct QuotaBody {
    /// Requests per second, as many of them at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Requests that are being answered at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
    /// Streams held open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<u32>,
    /// Sessions that are in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
}

/// What the tokens of a project may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProjectLimitsBody {
    /// Each token.
    #[serde(skip_serializing_if = "is_default")]
    pub per_token: QuotaBody,
    /// All tokens of the project together.
    #[serde(skip_serializing_if = "is_default")]
    pub per_project: QuotaBody,
    /// Largest body of a request, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// How long a session may be idle before it ends, s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_idle_seconds: Option<u64>,
}

/// Whether nothing was said.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
