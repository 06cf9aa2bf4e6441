//! An MCP server over HTTP for tests: plain axum, nothing of ours.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::world::serve;

#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) modern: bool,
    pub(crate) seen: Mutex<Vec<(HeaderMap, Value)>>,
    pub(crate) tools: Mutex<Vec<Value>>,
    pub(crate) dropped: Arc<Mutex<u32>>,
    /// Told to whoever holds the GET stream open.
    pub(crate) changes: tokio::sync::watch::Sender<u64>,
    /// Answers to what calls have asked.
    pub(crate) answers: watch::Sender<Vec<Value>>,
}

impl Peer {
    /// Serves tools of these names, plus resources and prompts; the URL of the endpoint.
    pub(crate) async fn start(modern: bool, tools: &[&str]) -> (Arc<Peer>, String) {
        let tools = tools
            .iter()
            .map(|name| json!({"name": name, "inputSchema": {"type": "object"}}))
            .collect();
        let peer = Arc::new(Peer {
            modern,
            tools: Mutex::new(tools),
            ..Peer::default()
        });
        let base = serve(Router::new().route("/mcp", any(answer)).with_state(peer.clone())).await;
        (peer, format!("{base}/mcp"))
    }

    /// The requests of this method that arrived.
    pub(crate) fn calls(&self, method: &str) -> Vec<(HeaderMap, Value)> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, body)| body["method"] == method)
            .cloned()
            .collect()
    }
}

struct Dropped(Arc<Mutex<u32>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

fn event(value: &Value) -> String {
    format!("event: message\ndata: {value}\n\n")
}

/// The GET stream: a notice for every change.
fn notices(peer: &Peer) -> Response {
    let stream = futures_util::stream::unfold(peer.changes.subscribe(), |mut changes| async move {
        changes.changed().await.ok()?;
        let notice = event(&json!({"jsonrpc":"2.0","method":"notifications/tools/list_changed"}));
        Some((Ok::<_, std::convert::Infallible>(notice), changes))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
}

async fn answer(State(peer): State<Arc<Peer>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    if method == Method::GET {
        return notices(&peer);
    }
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    peer.seen.lock().unwrap().push((headers, message.clone()));
    let id = &message["id"];
    if message.get("method").is_none() {
        peer.answers.send_modify(|all| all.push(message.clone()));
        return StatusCode::ACCEPTED.into_response();
    }
    if id.is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let result = match message["method"].as_str().unwrap() {
        "initialize" if peer.modern => return error(StatusCode::BAD_REQUEST, id, -32022),
        "initialize" => {
            json!({"protocolVersion":"2025-11-25","capabilities":{"tools":{},"prompts":{},"resources":{},"completions":{}},"serverInfo":{"name":"peer"}})
        }
        "server/discover" if peer.modern => {
            json!({"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"resources":{},"prompts":{}}})
        }
        "tools/list" => json!({"tools": peer.tools.lock().unwrap().clone()}),
        "prompts/list" => json!({"prompts":[{"name":"greet"}]}),
        "prompts/get" => json!({"messages":[],"asked":message["params"]["name"]}),
        "resources/list" => json!({"resources":[{"name":"doc","uri":"demo://doc"}]}),
        "resources/templates/list" => json!({"resourceTemplates":[{"name":"item","uriTemplate":"demo://item/{id}"}]}),
        "resources/read" if message["params"]["uri"] == "demo://item/none" => return error(StatusCode::OK, id, -32002),
        "resources/read" => json!({"contents":[{"uri":message["params"]["uri"],"text":"hello"}]}),
        "completion/complete" => json!({"completion":{"values":[]},"about":message["params"]["ref"]}),
        "tools/call" => return call(&peer, &message).await,
        _ => return error(StatusCode::OK, id, -32601),
    };
    let body = json!({"jsonrpc":"2.0","id":id,"result":result});
    ([("content-type", "application/json")], body.to_string()).into_response()
}

fn error(status: StatusCode, id: &Value, code: i64) -> Response {
    let body = json!({"jsonrpc":"2.0","id":id,"error":{"code":code,"message":"no"}});
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

async fn call(peer: &Peer, message: &Value) -> Response {
    let (id, params) = (&message["id"], &message["params"]);
    let token = &params["_meta"]["progressToken"];
    let done = json!({"jsonrpc":"2.0","id":id,"result":{"content":[{"type":"text","text":params["name"]}]}});
    match params["name"].as_str().unwrap() {
        "progress" => {
            let mut stream: Vec<String> = (0..10)
                .map(|step| {
                    event(&json!({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":token,"progress":step}}))
                })
                .collect();
            stream.insert(
                3,
                event(&json!({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}})),
            );
            stream.push(event(&done));
            let stream = futures_util::stream::iter(stream).then(|chunk| async {
                tokio::task::yield_now().await;
                Ok::<_, std::convert::Infallible>(chunk)
            });
            ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
        }
        "slow" => {
            let dropped = Dropped(peer.dropped.clone());
            let first = event(
                &json!({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":token,"progress":1}}),
            );
            let stream = futures_util::stream::once(async move { Ok::<_, std::convert::Infallible>(first) }).chain(
                futures_util::stream::once(async move {
                    std::future::pending::<()>().await;
                    drop(dropped);
                    Ok(String::new())
                }),
            );
            ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
        }
        "flood" => {
            let dropped = Dropped(peer.dropped.clone());
            let one = event(
                &json!({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":token,"progress":1}}),
            );
            let stream = futures_util::stream::unfold((dropped, one), |(dropped, one)| async move {
                tokio::task::yield_now().await;
                Some((Ok::<_, std::convert::Infallible>(one.clone()), (dropped, one)))
            });
            ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
        }
        // The same in the modern era: by the result.
        "consult" if peer.modern => {
            let result = match params.get("inputResponses") {
                None => {
                    json!({"resultType": "input_required", "inputRequests": params["arguments"]["asks"], "requestState": "theirs"})
                }
                Some(answers) => {
                    let can = &params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
                    let told = json!({"answers": answers, "state": params["requestState"], "can": can});
                    json!({"resultType": "complete", "content": [{"type": "text", "text": told.to_string()}]})
                }
            };
            let body = json!({"jsonrpc":"2.0","id":id,"result":result});
            ([("content-type", "application/json")], body.to_string()).into_response()
        }
        // Asks the client what the arguments say, and answers with what came of it.
        "consult" => {
            let asks = params["arguments"]["asks"].as_array().cloned().unwrap_or_default();
            let asked = asks.clone().into_iter().map(|mut ask| {
                ask["jsonrpc"] = json!("2.0");
                event(&ask)
            });
            let dropped = Dropped(peer.dropped.clone());
            let (mut answers, id) = (peer.answers.subscribe(), id.clone());
            let last = async move {
                let _dropped = dropped;
                let mut found = Vec::new();
                for ask in asks.iter().filter(|ask| ask.get("id").is_some()) {
                    let to = |answer: &&Value| answer["id"] == ask["id"];
                    let all = answers
                        .wait_for(|all| all.iter().any(|answer| to(&answer)))
                        .await
                        .unwrap();
                    found.push(all.iter().find(to).unwrap().clone());
                }
                let text = json!(found).to_string();
                event(&json!({"jsonrpc":"2.0","id":id,"result":{"content":[{"type":"text","text":text}]}}))
            };
            let stream = futures_util::stream::iter(asked.collect::<Vec<_>>())
                .chain(futures_util::stream::once(last))
                .map(Ok::<_, std::convert::Infallible>);
            ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
        }
        // Wants the user to visit a URL, until the arguments say that he has.
        "gated" if params["arguments"]["visited"] != json!(true) => {
            let elicitation = json!({"mode": "url", "elicitationId": "e", "url": "https://a.example", "message": "m"});
            let error = json!({"code": -32042, "message": "visit", "data": {"elicitations": [elicitation]}});
            let body = json!({"jsonrpc":"2.0","id":id,"error":error});
            ([("content-type", "application/json")], body.to_string()).into_response()
        }
        "hang" => {
            let _dropped = Dropped(peer.dropped.clone());
            std::future::pending().await
        }
        _ => ([("content-type", "application/json")], done.to_string()).into_response(),
    }
}
