//! A small MCP server over HTTP: two tools, one of which fails. It takes one token.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "mcpctl_pat_0000000000000000000000000000000000000000000";

/// What is wrong with the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// `/healthz` is 503.
    Sick,
    /// `tools/list` has no tools.
    NoTools,
    /// It answers HTML.
    NotMcp,
}

pub(crate) fn router(flaw: Flaw) -> Router {
    let health = if flaw == Flaw::Sick {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    Router::new()
        .route("/healthz", get(move || async move { health }))
        .route("/projects/demo/mcp", post(answer))
        .with_state(flaw)
}

async fn answer(State(flaw): State<Flaw>, headers: HeaderMap, Json(message): Json<Value>) -> Response {
    let bearer = headers
        .get("authorization")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if bearer != format!("Bearer {TOKEN}") {
        let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32003, "message": "no"}});
        return (StatusCode::UNAUTHORIZED, Json(error)).into_response();
    }
    if flaw == Flaw::NotMcp {
        return ([("content-type", "text/html")], "<html>hello</html>").into_response();
    }
    let Some(id) = message.get("id") else {
        return StatusCode::ACCEPTED.into_response();
    };
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1.2"},
        }),
        "tools/list" if flaw == Flaw::NoTools => json!({}),
        "tools/list" => {
            let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
            json!({"tools": [tool("echo"), tool("fail")]})
        }
        "tools/call" => {
            let name = message["params"]["name"].as_str().unwrap_or_default();
            let text = message["params"]["arguments"]["message"].clone();
            json!({"content": [{"type": "text", "text": text}], "isError": name == "fail"})
        }
        _ => json!({}),
    };
    Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}
