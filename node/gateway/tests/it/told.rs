//! What a client of the older era says in its session, through one replica, and what servers do with it that are called through another:
//! levels of log messages, and changed roots.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::StreamExt;
use mcp_model::records::ToolNaming;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::peer::Peer;
use crate::world::{Open, Token, World, request, serve, until};

/// A server that logs on the streams of its sessions, as many do.
#[derive(Default)]
struct Talker {
    sessions: Mutex<HashMap<String, mpsc::UnboundedSender<String>>>,
    seen: Mutex<Vec<(String, Value)>>,
}

fn log(level: &str) -> Value {
    json!({"jsonrpc":"2.0","method":"notifications/message","params":{"level":level,"data":"said"}})
}

impl Talker {
    async fn start() -> (Arc<Talker>, String) {
        let talker = Arc::new(Talker::default());
        let base = serve(Router::new().route("/mcp", any(answer)).with_state(talker.clone())).await;
        (talker, format!("{base}/mcp"))
    }

    fn say(&self, session: &str, value: &Value) -> bool {
        let sessions = self.sessions.lock().unwrap();
        sessions
            .get(session)
            .is_some_and(|stream| stream.send(format!("data: {value}\n\n")).is_ok())
    }

    fn asked(&self, method: &str) -> Vec<(String, Value)> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|(_, body)| body["method"] == method)
            .cloned()
            .collect()
    }

    fn levels(&self) -> Vec<String> {
        let asked = self.asked("logging/setLevel");
        let level = |(_, body): &(String, Value)| body["params"]["level"].as_str().unwrap().to_owned();
        asked.iter().map(level).collect()
    }
}

async fn answer(State(talker): State<Arc<Talker>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    let session = headers
        .get("mcp-session-id")
        .map_or("", |id| id.to_str().unwrap())
        .to_owned();
    if method == Method::GET {
        let (sender, receiver) = mpsc::unbounded_channel();
        talker.sessions.lock().unwrap().insert(session, sender);
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let said = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(said), receiver))
        });
        return (
            [("content-type", "text/event-stream")],
            Body::from_stream(stream.boxed()),
        )
            .into_response();
    }
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::OK.into_response();
    };
    talker.seen.lock().unwrap().push((session.clone(), message.clone()));
    let id = message["id"].clone();
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            json!({"protocolVersion":"2025-11-25","capabilities":{"tools":{},"logging":{}},"serverInfo":{"name":"talker"}})
        }
        "tools/list" => json!({"tools":[{"name":"log","inputSchema":{"type":"object"}}]}),
        "logging/setLevel" => json!({}),
        "tools/call" => json!({"content":[]}),
        _ if id.is_null() => return StatusCode::ACCEPTED.into_response(),
        _ => return StatusCode::BAD_REQUEST.into_response(),
    };
    let opened = format!("s{}", talker.asked("initialize").len());
    let body = json!({"jsonrpc":"2.0","id":id,"result":result}).to_string();
    (
        [
            ("content-type", "application/json".to_owned()),
            ("mcp-session-id", opened),
        ],
        body,
    )
        .into_response()
}

struct Scene {
    world: World,
    talker: Arc<Talker>,
    token: Token,
    session: String,
}

impl Scene {
    async fn new() -> Scene {
        let world = World::new().await;
        let (talker, url) = Talker::start().await;
        let server = world.http("talker", &url);
        world.project("demo", &[server], ToolNaming::Plain);
        let token = world.token("demo", &["role:run,resource:servers"]);
        for node in [0, 1] {
            world.listed(node, "demo", &token, "log").await;
        }
        let session = opened(&world, &token, json!({})).await;
        Scene {
            world,
            talker,
            token,
            session,
        }
    }

    async fn open(&self, node: usize, method: Method, message: Option<&Value>) -> Open {
        open(&self.world, node, &self.token, &self.session, method, message).await
    }

    async fn post(&self, node: usize, message: &Value) -> Value {
        let answer = self.open(node, Method::POST, Some(message)).await.whole().await;
        answer.messages().pop().unwrap()
    }

    async fn set_level(&self, node: usize, level: &str) -> Value {
        self.post(node, &request(3, "logging/setLevel", json!({"level": level})))
            .await
    }

    async fn call(&self, node: usize) {
        let answer = self.post(node, &request(4, "tools/call", json!({"name": "log"}))).await;
        assert!(answer["result"].is_object(), "{answer}");
    }
}

async fn opened(world: &World, token: &Token, capabilities: Value) -> String {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "t"}});
    let answer = world.post(0, "demo", token, &request(0, "initialize", params)).await;
    answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn open(
    world: &World,
    node: usize,
    token: &Token,
    session: &str,
    method: Method,
    message: Option<&Value>,
) -> Open {
    let url = format!("{}/projects/demo/mcp", world.nodes[node].base);
    let bearer = format!("Bearer {}", token.bearer);
    let accept = match message {
        Some(_) => "application/json, text/event-stream",
        None => "text/event-stream",
    };
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", accept),
        ("mcp-session-id", session),
    ];
    let body = message.map(Value::to_string).unwrap_or_default();
    world.send(method, &url, &headers, body).await
}

#[tokio::test]
async fn a_level_that_is_set_through_one_replica_reaches_the_server_through_whichever_is_called() {
    let scene = Scene::new().await;
    scene.call(1).await;
    assert_eq!(scene.talker.levels(), [""; 0]);
    assert_eq!(scene.set_level(0, "warning").await["result"], json!({}));
    assert_eq!(scene.talker.levels(), [""; 0], "no server is waited for");
    scene.call(1).await;
    scene.call(0).await;
    scene.call(1).await;
    assert_eq!(
        scene.talker.levels(),
        ["warning", "warning"],
        "once by each node that calls"
    );
    scene.set_level(1, "debug").await;
    scene.call(0).await;
    assert_eq!(scene.talker.levels()[2..], ["debug"]);
    let refused = scene.set_level(0, "loud").await;
    assert_eq!(refused["error"]["code"], -32602);
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("notice, warning"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_log_message_between_calls_comes_on_the_stream_of_the_session_on_whichever_replica() {
    let scene = Scene::new().await;
    let mut stream = scene.open(0, Method::GET, None).await;
    scene.set_level(0, "info").await;
    scene.call(1).await;
    let own = scene.talker.asked("logging/setLevel")[0].0.clone();
    let shared = scene.talker.asked("tools/list")[0].0.clone();
    assert_ne!(own, shared);
    scene.talker.say(&shared, &log("alert"));
    // A server that logs more than it was told to.
    until("its stream is open", || async {
        scene.talker.say(&own, &log("debug")).then_some(())
    })
    .await;
    assert!(scene.talker.say(&own, &log("error")));
    assert_eq!(stream.next_message().await, log("error"));
    // A session ends with all that was opened for it.
    scene.open(1, Method::DELETE, None).await;
    until("the server's stream is closed", || async {
        (!scene.talker.say(&own, &log("error"))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_client_may_not_use_any_more_says_nothing_on_its_stream() {
    let scene = Scene::new().await;
    let blind = scene.world.token("demo", &[]);
    let mut stream = scene.open(0, Method::GET, None).await;
    scene.set_level(0, "info").await;
    scene.call(0).await;
    let own = scene.talker.asked("logging/setLevel")[0].0.clone();
    until("its stream is open", || async {
        scene.talker.say(&own, &log("info")).then_some(())
    })
    .await;
    assert_eq!(stream.next_message().await, log("info"));
    scene.world.revoke(&scene.token);
    scene.talker.say(&own, &log("info"));
    assert_eq!(stream.chunk().await, None);
    // Nobody else's stream has it either.
    let session = opened(&scene.world, &blind, json!({})).await;
    let mut other = open(&scene.world, 0, &blind, &session, Method::GET, None).await;
    scene.talker.say(&own, &log("info"));
    scene.world.revoke(&blind);
    while let Some(chunk) = other.chunk().await {
        assert!(!chunk.contains("said"), "{chunk}");
    }
}

#[tokio::test]
async fn a_replica_that_did_not_hear_of_a_level_asks_for_it_if_the_session_is_older_than_itself() {
    let scene = Scene::new().await;
    scene.world.clock.back(5);
    let older = Scene {
        session: opened(&scene.world, &scene.token, json!({})).await,
        ..scene
    };
    older.world.clock.forward(5);
    let young = opened(&older.world, &older.token, json!({})).await;
    let alone = &older.world.nodes[0].cluster.alone;
    // The other node cannot be told.
    alone.store(true, Ordering::SeqCst);
    older.set_level(0, "error").await;
    let message = request(3, "logging/setLevel", json!({"level": "alert"}));
    open(&older.world, 0, &older.token, &young, Method::POST, Some(&message)).await;
    alone.store(false, Ordering::SeqCst);
    older.call(1).await;
    assert_eq!(older.talker.levels(), ["error"]);
    let message = request(4, "tools/call", json!({"name": "log"}));
    open(&older.world, 1, &older.token, &young, Method::POST, Some(&message)).await;
    assert_eq!(
        older.talker.levels(),
        ["error"],
        "a call does not wait for other nodes without need"
    );
}

#[tokio::test]
async fn changed_roots_are_told_to_the_servers_that_asked_for_them() {
    let world = World::new().await;
    let (peer, url) = Peer::start(false, &["consult", "a"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[server], ToolNaming::Plain);
    let token = world.token("demo", &["role:run,resource:servers"]);
    for node in [0, 1] {
        world.listed(node, "demo", &token, "consult").await;
    }
    let session = opened(&world, &token, json!({"roots": {"listChanged": true}})).await;
    let asks = json!([{"id": "r", "method": "roots/list"}]);
    let consult = |number: u64| {
        request(
            number,
            "tools/call",
            json!({"name": "consult", "arguments": {"asks": asks}}),
        )
    };
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    for (number, changes) in [(1, 0), (2, 0), (3, 1), (4, 2)] {
        if number > 2 {
            let told = open(&world, 0, &token, &session, Method::POST, Some(&changed)).await;
            assert_eq!(told.status, StatusCode::ACCEPTED);
        }
        let mut stream = open(&world, 1, &token, &session, Method::POST, Some(&consult(number))).await;
        let asked = stream.next_message().await;
        assert_eq!(asked["method"], "roots/list", "{asked}");
        let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}});
        open(&world, 0, &token, &session, Method::POST, Some(&reply)).await;
        assert_eq!(stream.next_message().await["id"], number);
        let told = peer.calls("notifications/roots/list_changed").len();
        assert_eq!(told, changes, "call {number}");
    }
}
