//! Names of headers and query parameters that carry meaning of their own.

/// On the answer to a write: the log index of the change. On the answer to a read: the index up to which this node has applied.
pub const MCP_INDEX: &str = "mcp-index";
/// On a read: wait until this node has applied at least this index (read your writes, on any node).
pub const MCP_MIN_INDEX: &str = "mcp-min-index";
/// On a write: the same key with the same request is carried out once, however often it is sent, to whichever node.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// On every answer: what to quote when one asks for help.
pub const REQUEST_ID: &str = "x-request-id";
/// Media type of a [`crate::Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
