//! The MCP server behind the gateways, as a process of its own: it has one tool, and says on standard output which probe it was
//! called by, and when. A probe that is heard of here was admitted, whatever became of the answer.

use std::io::Write;

use anyhow::Context;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::history::Hit;
use crate::clock::now_ns;

/// Its one tool.
pub(super) const TOOL: &str = "touch";
/// What the tool answers: nothing else says this.
pub(super) const TOUCHED: &str = "touched by a probe";

/// Serves at `address` until it is killed.
pub(super) async fn run(address: &str) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| address.to_owned())?;
    axum::serve(listener, Router::new().route("/mcp", post(serve))).await?;
    Ok(())
}

async fn serve(Json(message): Json<Value>) -> Response {
    let Some(id) = message.get("id") else {
        return StatusCode::ACCEPTED.into_response();
    };
    let result = match message["method"].as_str().unwrap_or_default() {
        "tools/call" => {
            if let Some(probe) = message["params"]["arguments"]["probe"].as_u64() {
                tell(&Hit { probe, at: now_ns() });
            }
            json!({ "content": [{ "type": "text", "text": TOUCHED }] })
        }
        "initialize" => json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "chaos", "version": "1" }
        }),
        "tools/list" => {
            let schema = json!({ "type": "object", "properties": { "probe": { "type": "number" } } });
            json!({ "tools": [{ "name": TOOL, "description": "says who came", "inputSchema": schema }] })
        }
        "ping" => json!({}),
        _ => {
            let error = json!({ "code": -32601, "message": "not known here" });
            return Json(json!({ "jsonrpc": "2.0", "id": id, "error": error })).into_response();
        }
    };
    Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response()
}

fn tell(hit: &Hit) {
    let line = serde_json::to_string(hit).unwrap_or_default();
    // If nobody listens any more, the run is over.
    writeln!(std::io::stdout().lock(), "{line}").unwrap_or(());
}
