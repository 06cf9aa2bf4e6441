//! An MCP server of both eras that speaks on its own account: plain axum, nothing of ours. What it is told to say goes to every
//! stream that is open to it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::world::serve;

const MODERN: &str = "io.modelcontextprotocol/protocolVersion";

pub(crate) struct Board {
    says: broadcast::Sender<String>,
    pub(crate) seen: Mutex<Vec<(HeaderMap, Value)>>,
    pub(crate) tools: Mutex<Vec<Value>>,
}

impl Board {
    pub(crate) async fn start() -> (Arc<Board>, String) {
        let board = Arc::new(Board {
            says: broadcast::Sender::new(64),
            seen: Mutex::default(),
            tools: Mutex::new(vec![json!({"name": "a", "inputSchema": {"type": "object"}})]),
        });
        let base = serve(Router::new().route("/mcp", any(answer)).with_state(board.clone())).await;
        (board, format!("{base}/mcp"))
    }

    /// Says something on every stream that is open.
    pub(crate) fn says(&self, method: &str, params: Value) {
        self.sends(json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Sends a message on every stream that is open.
    pub(crate) fn sends(&self, message: Value) {
        self.says.send(format!("event: message\ndata: {message}\n\n")).ok();
    }

    /// How many streams are open to it.
    pub(crate) fn streams(&self) -> usize {
        self.says.receiver_count()
    }

    /// The params of the requests of this method, in order.
    pub(crate) fn asked(&self, method: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        let of_it = seen.iter().filter(|(_, body)| body["method"] == method);
        of_it.map(|(_, body)| body["params"].clone()).collect()
    }

    /// What was answered to a request of this id.
    pub(crate) fn answered(&self, id: &str) -> Option<Value> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(_, body)| body).find(|body| body["id"] == id).cloned()
    }

    fn stream(&self, first: String) -> Response {
        let heard = self.says.subscribe();
        let later = futures_util::stream::unfold(heard, |mut heard| async {
            let said = heard.recv().await.ok()?;
            Some((Ok::<_, std::convert::Infallible>(said), heard))
        });
        let stream = futures_util::stream::once(async move { Ok(first) }).chain(later);
        ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
    }
}

async fn answer(State(board): State<Arc<Board>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    if method == Method::GET {
        return board.stream(":\n\n".to_owned());
    }
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    board.seen.lock().unwrap().push((headers, message.clone()));
    let id = &message["id"];
    if id.is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let modern = message["params"]["_meta"][MODERN].is_string();
    let refused = |status: StatusCode, code: i64| {
        let body = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "no"}});
        (status, [("content-type", "application/json")], body.to_string()).into_response()
    };
    let capabilities = json!({"tools": {"listChanged": true}, "resources": {"subscribe": true}});
    let result = match message["method"].as_str().unwrap() {
        "initialize" => json!({
            "protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {"name": "board"},
        }),
        "server/discover" if modern => json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28", "2025-11-25"], "capabilities": capabilities,
        }),
        "subscriptions/listen" if modern => {
            let ack = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {}});
            return board.stream(format!("event: message\ndata: {ack}\n\n"));
        }
        "resources/subscribe" if message["params"]["uri"] == "board://closed" => {
            return refused(StatusCode::OK, -32602);
        }
        "resources/subscribe" | "resources/unsubscribe" if !modern => json!({}),
        "tools/list" => json!({"tools": board.tools.lock().unwrap().clone()}),
        "resources/list" => json!({"resources": [
            {"name": "one", "uri": "board://one"}, {"name": "two", "uri": "board://two"}, {"name": "closed", "uri": "board://closed"},
        ]}),
        "tools/call" if modern && message["params"]["arguments"]["needs"] == "sampling" => {
            return refused(StatusCode::BAD_REQUEST, -32021);
        }
        "tools/call" if modern => json!({
            "resultType": "input_required", "requestState": "kept",
            "inputRequests": {"who": {"method": "elicitation/create", "params": {"message": "who?"}}},
        }),
        "tools/call" => json!({"content": []}),
        _ => return refused(StatusCode::OK, -32601),
    };
    let body = json!({"jsonrpc": "2.0", "id": id, "result": result});
    ([("content-type", "application/json")], body.to_string()).into_response()
}
