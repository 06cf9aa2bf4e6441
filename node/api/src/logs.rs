//! What the children of stdio servers have written to their stderr.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Lines of one server, of every node that runs a child of it, by time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerLogs {
    /// The server.
    pub server: String,
    /// The lines, oldest first. Each node keeps its last 2,000 of a server, and at most 256 KiB of them, in memory.
    pub lines: Vec<LogLineBody>,
    /// What `after` takes to go on behind these.
    pub after: String,
    /// Nodes that could not be asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<String>,
}

/// A line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLineBody {
    /// The node whose child wrote it.
    pub node: String,
    /// When it was read there.
    pub at: String,
    /// The session whose child wrote it, where each session has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The line, as the child wrote it, without the values of secrets.
    pub text: String,
}
