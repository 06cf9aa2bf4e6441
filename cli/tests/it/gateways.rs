//! Gateways that fail on demand: they share their sessions as the nodes of a cluster do, and each can be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

pub(crate) use crate::mcp_server::TOKEN;

/// What the gateways of a cluster have in common.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) sessions: Mutex<BTreeSet<String>>,
    /// `NODE METHOD`, in the order in which they came.
    pub(crate) seen: Mutex<Vec<String>>,
    /// The headers of the last request of each method.
    pub(crate) headers: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    /// Messages that clients posted and that want no answer.
    pub(crate) told: Mutex<Vec<Value>>,
    pub(crate) refuses_the_token: Mutex<bool>,
    streams: Mutex<Vec<(String, mpsc::UnboundedSender<String>)>>,
}

/// One of them.
pub(crate) struct Gateway {
    pub(crate) url: String,
    runtime: Option<Runtime>,
    life: watch::Sender<bool>,
}

#[derive(Clone)]
struct Own {
    name: &'static str,
    shared: Arc<Shared>,
    life: watch::Receiver<bool>,
}

impl Gateway {
    pub(crate) fn start(name: &'static str, shared: &Arc<Shared>) -> Gateway {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (life, lives) = watch::channel(true);
        let own = Own {
            name,
            shared: shared.clone(),
            life: lives,
        };
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/projects/demo/mcp", any(answer))
            .route("/mcp", any(answer))
            .with_state(own);
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Gateway {
            url,
            runtime: Some(runtime),
            life,
        }
    }

    /// Ends it as `kill -9` would: every connection breaks where it is.
    pub(crate) fn kill(&mut self) {
        self.life.send_replace(false);
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(5));
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// Says something on every open stream.
    pub(crate) fn say(&self, message: &Value) {
        for (_, stream) in self.streams.lock().unwrap().iter() {
            let _gone = stream.send(message.to_string()).is_err();
        }
    }

    /// The node that holds an open stream.
    pub(crate) fn stream_holder(&self) -> Option<String> {
        let streams = self.streams.lock().unwrap();
        let open = streams.iter().rfind(|(_, stream)| !stream.is_closed());
        open.map(|(name, _)| name.clone())
    }

    pub(crate) fn saw(&self, what: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| *seen == what).count()
    }
}

fn event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

/// A stream of what is sent to it; it breaks when the node is killed.
fn stream(own: &Own, first: &[Value]) -> (mpsc::UnboundedSender<String>, Response) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<String>();
    let (to_body, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(16);
    for message in first {
        to_body.try_send(Ok(event(message))).unwrap();
    }
    let mut life = own.life.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = life.changed() => {
                    let _gone = to_body.send(Err(std::io::Error::other("killed"))).await.is_err();
                    return;
                }
                () = to_body.closed() => return,
                next = receiver.recv() => {
                    let Some(text) = next else { return };
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if to_body.send(Ok(event(&message))).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let body = futures_util::stream::unfold(body, |mut body| async { body.recv().await.map(|next| (next, body)) });
    let response = ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response();
    (sender, response)
}

fn error(status: u16, code: i32, message: &str) -> Response {
    let body = json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn answer(State(own): State<Own>, method: Method, headers: HeaderMap, body: String) -> Response {
    let message: Value = serde_json::from_str(&body).unwrap_or_default();
    let what = message["method"].as_str().unwrap_or(method.as_str()).to_owned();
    let what = if method == Method::POST && message.get("method").is_none() {
        "response".to_owned()
    } else {
        what
    };
    own.shared.seen.lock().unwrap().push(format!("{} {what}", own.name));
    let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap_or_default().to_owned())
    };
    own.shared
        .headers
        .lock()
        .unwrap()
        .insert(what.clone(), headers.iter().map(text).collect());
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if header("authorization") != format!("Bearer {TOKEN}") || *own.shared.refuses_the_token.lock().unwrap() {
        return error(401, -32003, "the bearer token is not valid");
    }
    let session = header("mcp-session-id");
    if !session.is_empty() && !own.shared.sessions.lock().unwrap().contains(session) {
        return error(404, -32001, "Session not found");
    }
    match method {
        Method::GET => {
            let (sender, response) = stream(&own, &[]);
            own.shared.streams.lock().unwrap().push((own.name.to_owned(), sender));
            return response;
        }
        Method::DELETE => {
            own.shared.sessions.lock().unwrap().remove(session);
            return StatusCode::NO_CONTENT.into_response();
        }
        _ => {}
    }
    let Some(id) = message.get("id").filter(|_| message.get("method").is_some()) else {
        own.shared.told.lock().unwrap().push(message);
        return StatusCode::ACCEPTED.into_response();
    };
    let result = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    let tool = message["params"]["name"].as_str().unwrap_or_default();
    match (what.as_str(), tool) {
        ("initialize", _) => {
            let session = format!("session-{}", own.shared.seen.lock().unwrap().len());
            own.shared.sessions.lock().unwrap().insert(session.clone());
            let capabilities = json!({"tools": {"listChanged": true}});
            let greeting = json!({"protocolVersion": "2025-06-18", "capabilities": capabilities,
                "serverInfo": {"name": own.name, "version": "1"}});
            ([("mcp-session-id", session)], Json(result(greeting))).into_response()
        }
        ("tools/list", _) => {
            let schema =
                json!({"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
            Json(result(
                json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}},
                {"name": "regional", "inputSchema": schema}]}),
            ))
            .into_response()
        }
        // Waits for as long as the node lives, and longer than any test on the node that is named.
        ("prompts/list", _) if own.name == "one" => stream_for_ever(&own, &[]),
        ("tools/call", "slow") => {
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}});
            stream_for_ever(&own, &[progress])
        }
        ("tools/call", "regional") if header("mcp-param-region").is_empty() => error(400, -32020, "Header mismatch"),
        ("tools/call", "unknown") => {
            Json(json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "Unknown tool: unknown"}}))
                .into_response()
        }
        ("tools/call", _) => {
            let progress =
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1, "total": 2}});
            let content = json!([{"type": "text", "text": message["params"]["arguments"]["message"]}]);
            let answer = result(json!({"content": content, "isError": tool == "fail"}));
            let text = format!("{}{}", event(&progress), event(&answer));
            ([("content-type", "text/event-stream")], text).into_response()
        }
        ("subscriptions/listen", _) => {
            let acknowledged = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": id}, "notifications": {"toolsListChanged": true}}});
            stream_for_ever(&own, &[acknowledged])
        }
        _ => Json(result(json!({}))).into_response(),
    }
}

fn stream_for_ever(own: &Own, first: &[Value]) -> Response {
    let (sender, response) = stream(own, first);
    own.shared
        .streams
        .lock()
        .unwrap()
        .push((format!("{} held", own.name), sender));
    response
}
