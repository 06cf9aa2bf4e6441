//! Refusals at the level of JSON-RPC: code, message, HTTP status, and the bytes of the answer.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

/// Invalid JSON.
pub const PARSE_ERROR: i32 = -32700;
/// Valid JSON that is not one JSON-RPC message.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// Parameters that do not fit, an unknown tool among them.
pub const INVALID_PARAMS: i32 = -32602;
/// The fault is on our side.
pub const INTERNAL_ERROR: i32 = -32603;
/// No such session.
pub const SESSION_NOT_FOUND: i32 = -32001;
/// Resource not found, in legacy revisions; the modern one says [`INVALID_PARAMS`].
pub const RESOURCE_NOT_FOUND: i32 = -32002;
/// The principal lacks a right.
pub const NOT_ALLOWED: i32 = -32003;
/// The upstream is down, too slow, or answered something unusable.
pub const UPSTREAM_FAILED: i32 = -32010;
/// A URL has to be visited first (2025-11-25); the modern era asks for it by the result.
pub const URL_REQUIRED: i32 = -32042;
/// Headers and body disagree, or a required header is missing (2026-07-28).
pub const HEADER_MISMATCH: i32 = -32020;
/// A needed client capability was not declared (2026-07-28).
pub const MISSING_CAPABILITY: i32 = -32021;
/// A protocol version we do not speak (2026-07-28).
pub const UNSUPPORTED_VERSION: i32 = -32022;

/// A refused message: what to answer, and with which HTTP status.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status of the answer.
    pub status: StatusCode,
    /// JSON-RPC error code.
    pub code: i32,
    /// One line for the reader.
    pub message: String,
    /// `error.data`, if there is any.
    pub data: Option<Box<Value>>,
}

impl Refusal {
    /// A refusal with HTTP 400, the usual case for a message that is itself at fault.
    pub fn bad(code: i32, message: impl Into<String>) -> Refusal {
        Refusal {
            status: StatusCode::BAD_REQUEST,
            code,
            message: message.into(),
            data: None,
        }
    }

    /// A refusal inside MCP: HTTP 200, the call itself was understood.
    pub fn inside(code: i32, message: impl Into<String>) -> Refusal {
        Refusal {
            status: StatusCode::OK,
            code,
            message: message.into(),
            data: None,
        }
    }

    /// The same with another HTTP status.
    pub fn with_status(self, status: StatusCode) -> Refusal {
        Refusal { status, ..self }
    }

    /// The same with `error.data`.
    pub fn with_data(self, data: Value) -> Refusal {
        Refusal {
            data: Some(Box::new(data)),
            ..self
        }
    }

    /// The version that was asked for is not one of ours (`-32022` with `supported`, 2026-07-28 versioning).
    pub fn unsupported_version(requested: &str) -> Refusal {
        let supported: Vec<&str> = crate::version::Revision::ALL
            .iter()
            .map(|revision| revision.as_str())
            .collect();
        Refusal::bad(UNSUPPORTED_VERSION, "Unsupported protocol version")
            .with_data(serde_json::json!({"supported": supported, "requested": requested}))
    }

    /// The JSON-RPC error response. `id` is raw JSON; where the request's is not known there is none: an id is never null in MCP.
    pub fn body(&self, id: Option<&str>) -> Bytes {
        let message = Value::from(self.message.as_str());
        let data = self
            .data
            .as_ref()
            .map(|data| format!(",\"data\":{data}"))
            .unwrap_or_default();
        let id = id.map(|id| format!("\"id\":{id},")).unwrap_or_default();
        Bytes::from(format!(
            "{{\"jsonrpc\":\"2.0\",{id}\"error\":{{\"code\":{},\"message\":{message}{data}}}}}",
            self.code,
        ))
    }
}

/// A successful JSON-RPC response around a raw `result`.
pub fn result_body(id: &str, result: &str) -> Bytes {
    let mut body = Vec::with_capacity(id.len() + result.len() + 40);
    body.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    body.extend_from_slice(id.as_bytes());
    body.extend_from_slice(b",\"result\":");
    body.extend_from_slice(result.as_bytes());
    body.push(b'}');
    Bytes::from(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_json_rpc_error_with_the_callers_id() {
        let refusal = Refusal::unsupported_version("1900-01-01");
        let body: Value = serde_json::from_slice(&refusal.body(Some("\"a\""))).unwrap();
        assert_eq!(body["id"], "a");
        assert_eq!(body["error"]["code"], -32022);
        assert_eq!(body["error"]["data"]["supported"][0], "2026-07-28");
        let none: Value = serde_json::from_slice(&Refusal::bad(PARSE_ERROR, "no \"json\"").body(None)).unwrap();
        assert!(!none.as_object().unwrap().contains_key("id"), "{none}");
        assert_eq!(none["error"]["message"], "no \"json\"");
    }
}
