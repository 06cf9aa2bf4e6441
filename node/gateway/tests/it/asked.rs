//! What servers ask clients: put on the stream of the call, answered through any replica, and by nobody else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;
use mcp_gateway::limits::Limits;
use mcp_model::records::ToolNaming;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::world::{Answer, Open, Token, World, request, until};

const RUN: &str = "role:run,resource:servers";

/// A project with a server over HTTP and one that is a child.
struct Scene {
    world: World,
    peer: Arc<Peer>,
    token: Token,
}

/// A client's session.
struct Session<'a> {
    scene: &'a Scene,
    token: &'a Token,
    id: String,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(Limits {
            audit_sync_ms: 50,
            debounce_ms: 0,
            ..Limits::default()
        })
        .await
    }

    async fn with(limits: Limits) -> Scene {
        let world = World::with(limits).await;
        let (peer, url) = Peer::start(false, &["consult", "slow"]).await;
        let servers = [world.http("web", &url), world.stdio("child", "legacy")];
        world.project("demo", &servers, ToolNaming::Prefixed);
        let token = world.token("demo", &[RUN]);
        for node in [0, 1] {
            world.listed(node, "demo", &token, "web__consult").await;
            world.listed(node, "demo", &token, "child__consult").await;
        }
        Scene { world, peer, token }
    }

    async fn session<'a>(&'a self, token: &'a Token, capabilities: Value) -> Session<'a> {
        let params =
            json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "t"}});
        let answer = self
            .world
            .post(0, "demo", token, &request(0, "initialize", params))
            .await;
        Session {
            scene: self,
            token,
            id: answer.headers["mcp-session-id"].to_str().unwrap().to_owned(),
        }
    }
}

impl Session<'_> {
    async fn open(&self, node: usize, accept: &str, message: &Value) -> Open {
        let url = format!("{}/projects/demo/mcp", self.scene.world.nodes[node].base);
        let bearer = format!("Bearer {}", self.token.bearer);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("accept", accept),
            ("mcp-session-id", self.id.as_str()),
        ];
        self.scene
            .world
            .send(Method::POST, &url, &headers, message.to_string())
            .await
    }

    /// Calls `consult` of a server: what it is to ask.
    async fn consult(&self, node: usize, server: &str, asks: Value) -> Open {
        let params = json!({"name": format!("{server}__consult"), "arguments": {"asks": asks}});
        self.open(
            node,
            "application/json, text/event-stream",
            &request(7, "tools/call", params),
        )
        .await
    }

    /// Sends a message and gives back how it was taken.
    async fn say(&self, node: usize, message: Value) -> Answer {
        self.open(node, "application/json, text/event-stream", &message)
            .await
            .whole()
            .await
    }

    async fn reply(&self, node: usize, id: &Value, result: Value) -> u16 {
        let answer = self
            .say(node, json!({"jsonrpc": "2.0", "id": id, "result": result}))
            .await;
        answer.status.as_u16()
    }
}

/// The next message of a stream; none at its end.
async fn next(stream: &mut Open) -> Option<Value> {
    loop {
        let chunk = stream.chunk().await?;
        if let Some(data) = chunk.lines().find_map(|line| line.strip_prefix("data: ")) {
            return Some(serde_json::from_str(data).unwrap());
        }
    }
}

/// What `consult` says came of what it asked.
fn outcome(response: &Value) -> Value {
    let text = response["result"]["content"][0]["text"].as_str();
    serde_json::from_str(text.unwrap_or_else(|| panic!("no text: {response}"))).unwrap()
}

fn form(id: &str) -> Value {
    json!({"id": id, "method": "elicitation/create", "params": {"message": "who?", "requestedSchema": {"type": "object"}}})
}

fn everything() -> Value {
    json!({"sampling": {"tools": {}}, "elicitation": {"form": {}, "url": {}}, "roots": {}})
}

#[tokio::test]
async fn a_client_answers_on_whichever_replica_and_the_server_hears_it() {
    let scene = Scene::new().await;
    let session = scene.session(&scene.token, everything()).await;
    for (server, asks_on, answers_on) in [("web", 0, 1), ("web", 1, 1), ("child", 0, 1), ("child", 1, 0)] {
        let asks = json!([
            {"id": "s-1", "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 5, "_meta": {"progressToken": 3}}},
            {"id": 2, "method": "roots/list"},
        ]);
        let mut stream = session.consult(asks_on, server, asks).await;
        let (sampling, roots) = (next(&mut stream).await.unwrap(), next(&mut stream).await.unwrap());
        assert_eq!(sampling["method"], "sampling/createMessage");
        assert_eq!(sampling["params"]["maxTokens"], 5);
        let id = &sampling["id"];
        assert!(id.as_str().unwrap().len() > 100, "it is sealed: {id}");
        assert_eq!(
            &sampling["params"]["_meta"]["progressToken"], id,
            "whose progress it is, is sealed as well"
        );
        assert_eq!(roots["method"], "roots/list");
        let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": id, "progress": 1}});
        assert_eq!(session.say(answers_on, progress).await.status.as_u16(), 202);
        let answer = json!({"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"});
        assert_eq!(session.reply(answers_on, &roots["id"], json!({"roots": []})).await, 202);
        assert_eq!(session.reply(answers_on, id, answer.clone()).await, 202);
        let response = next(&mut stream).await.unwrap();
        assert_eq!(response["id"], 7);
        assert_eq!(
            outcome(&response),
            json!([
                {"jsonrpc": "2.0", "id": "s-1", "result": answer},
                {"jsonrpc": "2.0", "id": 2, "result": {"roots": []}},
            ])
        );
        // Whoever says it again is too late, and told nothing else.
        assert_eq!(session.reply(answers_on, id, answer).await, 202);
        scene.peer.answers.send_replace(Vec::new());
    }
    let progress = until("progress reached the server", || async {
        Some(scene.peer.calls("notifications/progress")).filter(|all| all.len() == 2)
    })
    .await;
    assert_eq!(progress[0].1["params"], json!({"progressToken": 3, "progress": 1}));
}

#[tokio::test]
async fn nobody_answers_for_another_and_what_was_made_up_is_dropped() {
    let scene = Scene::new().await;
    let other = scene.world.token("demo", &[RUN]);
    let session = scene.session(&scene.token, everything()).await;
    let theirs = scene.session(&other, everything()).await;
    let second = scene.session(&scene.token, everything()).await;
    for (server, node) in [("web", 0), ("child", 1)] {
        let mut stream = session.consult(0, server, json!([form("s")])).await;
        let asked = next(&mut stream).await.unwrap();
        let evil = json!({"action": "accept", "content": {"who": "evil"}});
        assert_eq!(
            theirs.reply(node, &asked["id"], evil.clone()).await,
            400,
            "another token"
        );
        assert_eq!(
            second.reply(node, &asked["id"], evil.clone()).await,
            400,
            "another session of the same token"
        );
        let stolen = Session {
            scene: &scene,
            token: &other,
            id: session.id.clone(),
        };
        assert_eq!(
            stolen.reply(node, &asked["id"], evil.clone()).await,
            404,
            "another token's session"
        );
        let (first, rest) = asked["id"].as_str().unwrap().split_at(1);
        let changed = format!("{}{rest}", if first == "A" { "B" } else { "A" });
        for forged in [json!("s"), json!(1), json!(changed), json!("")] {
            assert_eq!(session.reply(node, &forged, evil.clone()).await, 202, "{forged}");
        }
        assert_eq!(
            session.reply(node, &asked["id"], json!({"action": "decline"})).await,
            202
        );
        assert_eq!(
            outcome(&next(&mut stream).await.unwrap())[0]["result"],
            json!({"action": "decline"})
        );
        scene.peer.answers.send_replace(Vec::new());
    }
    let denials = until("the replies are on record", || async {
        let dir = scene.world.nodes[0].dir.path().join("audit");
        let all = std::fs::read_dir(dir).unwrap();
        let text: String = all
            .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        Some(text.matches("foreign_reply").count()).filter(|count| *count == 2)
    })
    .await;
    assert_eq!(denials, 2);
}

#[tokio::test]
async fn a_revoke_ends_a_call_that_waits_for_its_client() {
    let scene = Scene::new().await;
    for server in ["web", "child"] {
        let token = scene.world.token("demo", &[RUN]);
        let session = scene.session(&token, everything()).await;
        let mut stream = session.consult(1, server, json!([form("s")])).await;
        let asked = next(&mut stream).await.unwrap();
        scene.world.revoke(&token);
        assert_eq!(next(&mut stream).await, None);
        assert_eq!(session.reply(0, &asked["id"], json!({"action": "cancel"})).await, 401);
        if server == "web" {
            until("the server is told", || async {
                let told = scene
                    .peer
                    .answers
                    .borrow()
                    .iter()
                    .any(|answer| answer["error"].is_object());
                (told && !scene.peer.calls("notifications/cancelled").is_empty()).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_server_is_told_what_the_client_can_and_asks_in_vain_for_more() {
    let scene = Scene::new().await;
    let session = scene.session(&scene.token, json!({"elicitation": {}})).await;
    let asks = json!([
        {"id": 1, "method": "sampling/createMessage", "params": {}},
        {"id": 2, "method": "elicitation/create", "params": {"mode": "url", "url": "https://a.example", "elicitationId": "e"}},
        {"id": 3, "method": "roots/list"},
        {"id": 4, "method": "tasks/get", "params": {}},
        {"id": 5, "method": "ping"},
    ]);
    for server in ["web", "child"] {
        let answer = session.consult(0, server, asks.clone()).await.whole().await;
        let codes: Vec<i64> = outcome(answer.messages().last().unwrap())
            .as_array()
            .unwrap()
            .iter()
            .map(|answer| answer["error"]["code"].as_i64().unwrap_or(0))
            .collect();
        assert_eq!(codes, [-32601, -32602, -32601, -32601, 0], "{server}");
        assert_eq!(answer.messages().len(), 1, "the client sees none of it");
        scene.peer.answers.send_replace(Vec::new());
    }
    let declared: Vec<Value> = scene
        .peer
        .calls("initialize")
        .into_iter()
        .map(|(_, body)| body["params"]["capabilities"].clone())
        .collect();
    assert!(
        declared.contains(&json!({"elicitation": {"form": {}}})),
        "its session is of such clients: {declared:?}"
    );
    // Who takes no stream cannot be asked.
    let params = json!({"name": "web__consult", "arguments": {"asks": [form("s")]}});
    let answer = session
        .open(0, "application/json", &request(8, "tools/call", params))
        .await
        .whole()
        .await;
    assert_eq!(outcome(&answer.json())[0]["error"]["code"], -32601);
}

#[tokio::test]
async fn a_client_that_never_answers_is_given_up_and_the_server_told() {
    let limits = Limits {
        client_reply_ms: 50,
        ..Limits::default()
    };
    let scene = Scene::with(limits).await;
    let session = scene.session(&scene.token, everything()).await;
    for server in ["web", "child"] {
        let mut stream = session.consult(0, server, json!([form("s")])).await;
        let asked = next(&mut stream).await.unwrap();
        let notice = next(&mut stream).await.unwrap();
        assert_eq!(
            (&notice["method"], &notice["params"]["requestId"]),
            (&json!("notifications/cancelled"), &asked["id"])
        );
        let told = outcome(&next(&mut stream).await.unwrap());
        assert!(
            told[0]["error"]["message"].as_str().unwrap().contains("within 50 ms"),
            "{told}"
        );
        scene.peer.answers.send_replace(Vec::new());
    }
}

#[tokio::test]
async fn a_url_is_shown_and_its_completion_told_and_a_question_can_be_withdrawn() {
    let scene = Scene::new().await;
    let session = scene.session(&scene.token, everything()).await;
    let asks = json!([
        {"id": 1, "method": "elicitation/create", "params": {"mode": "url", "url": "https://a.example/x", "message": "m", "elicitationId": "e-1"}},
        form("s"),
        {"method": "notifications/elicitation/complete", "params": {"elicitationId": "e-1"}},
        {"method": "notifications/cancelled", "params": {"requestId": "s"}},
    ]);
    for server in ["web", "child"] {
        let mut stream = session.consult(0, server, asks.clone()).await;
        let url = next(&mut stream).await.unwrap();
        assert_eq!(url["params"]["url"], "https://a.example/x");
        let asked = next(&mut stream).await.unwrap();
        let complete = next(&mut stream).await.unwrap();
        assert_eq!(complete["params"]["elicitationId"], "e-1");
        let notice = next(&mut stream).await.unwrap();
        assert_eq!(
            (&notice["method"], &notice["params"]["requestId"]),
            (&json!("notifications/cancelled"), &asked["id"])
        );
    }
}

#[tokio::test]
async fn a_child_that_does_not_say_whom_it_means_asks_nobody() {
    let scene = Scene::new().await;
    let other = scene.world.token("demo", &[RUN]);
    let session = scene.session(&scene.token, everything()).await;
    let theirs = scene.session(&other, everything()).await;
    let mut waiting = theirs.consult(0, "child", json!([form("theirs")])).await;
    let asked = next(&mut waiting).await.unwrap();
    // Two clients have calls there.
    let answer = session.consult(0, "child", json!([form("mine")])).await.whole().await;
    let told = outcome(&answer.messages()[0]);
    assert!(
        told[0]["error"]["message"]
            .as_str()
            .unwrap()
            .contains("several clients"),
        "{told}"
    );
    // The same client may have several.
    let mut second = theirs.consult(0, "child", json!([form("theirs too")])).await;
    let also = next(&mut second).await.unwrap();
    for (stream, asked) in [(&mut second, also), (&mut waiting, asked)] {
        assert_eq!(theirs.reply(1, &asked["id"], json!({"action": "cancel"})).await, 202);
        assert_eq!(outcome(&next(stream).await.unwrap())[0]["result"]["action"], "cancel");
    }
    // A call that was given up may still be at it: this one never gets the answer to the second.
    let asks = json!([form("late"), {"id": "never", "result": {}}]);
    let given_up = theirs.consult(0, "child", asks).await;
    drop(given_up);
    let answer = session
        .consult(0, "child", json!([form("mine again")]))
        .await
        .whole()
        .await;
    assert!(outcome(&answer.messages()[0])[0]["error"].is_object());
}

#[tokio::test]
async fn a_call_is_cancelled_through_another_replica_and_a_reply_says_if_it_cannot_be_carried() {
    let scene = Scene::new().await;
    let session = scene.session(&scene.token, everything()).await;
    let mut stream = session.consult(0, "web", json!([form("s")])).await;
    let asked = next(&mut stream).await.unwrap();
    let alone = &scene.world.nodes[1].cluster.alone;
    alone.store(true, Ordering::SeqCst);
    let lost = session
        .say(
            1,
            json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "cancel"}}),
        )
        .await;
    assert_eq!(
        (lost.status.as_u16(), lost.headers.contains_key("retry-after")),
        (503, true)
    );
    alone.store(false, Ordering::SeqCst);
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    // Another session has no such call.
    let second = scene.session(&scene.token, everything()).await;
    assert_eq!(second.say(1, cancel.clone()).await.status.as_u16(), 202);
    assert_eq!(*scene.peer.dropped.lock().unwrap(), 0);
    assert_eq!(session.say(1, cancel).await.status.as_u16(), 202);
    assert_eq!(next(&mut stream).await, None);
    until("the upstream sees it end", || async {
        (*scene.peer.dropped.lock().unwrap() == 1).then_some(())
    })
    .await;
}
