//! Between the eras: a legacy server's question becomes a result for a modern client, whose answer may come to any replica; a modern
//! server's result becomes questions on a legacy client's stream.

use std::sync::Arc;

use mcp_gateway::limits::Limits;
use mcp_model::records::ToolNaming;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::world::{Answer, Open, Token, World, request, until};

const RUN: &str = "role:run,resource:servers";

/// A project with a legacy server over HTTP, one that is a child, and a modern server.
struct Scene {
    world: World,
    web: Arc<Peer>,
    modern: Arc<Peer>,
    token: Token,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Scene {
        let limits = Limits {
            audit_sync_ms: 50,
            debounce_ms: 0,
            ..limits
        };
        let world = World::with(limits).await;
        let (web, web_url) = Peer::start(false, &["consult", "echo", "gated"]).await;
        let (modern, modern_url) = Peer::start(true, &["consult"]).await;
        let servers = [
            world.http("web", &web_url),
            world.stdio("child", "legacy"),
            world.http("modern", &modern_url),
        ];
        world.project("demo", &servers, ToolNaming::Prefixed);
        let token = world.token("demo", &[RUN]);
        for node in [0, 1] {
            for server in ["web", "child", "modern"] {
                world.listed(node, "demo", &token, &format!("{server}__consult")).await;
            }
        }
        Scene {
            world,
            web,
            modern,
            token,
        }
    }

    /// Calls a tool as a modern client that can do this much.
    async fn call(&self, node: usize, token: &Token, tool: &str, can: &Value, more: Value) -> Answer {
        let mut params = json!({"name": tool, "arguments": {}, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": can,
            "progressToken": "p",
        }});
        for (key, value) in more.as_object().unwrap() {
            params[key] = value.clone();
        }
        let headers = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", tool),
        ];
        let body = request(7, "tools/call", params).to_string();
        self.world.post_with(node, "demo", token, &headers, body).await
    }
}

fn form(id: &str) -> Value {
    json!({"id": id, "method": "elicitation/create", "params": {"message": id, "requestedSchema": {"type": "object"}}})
}

fn everything() -> Value {
    json!({"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}})
}

/// The one question of an interim result, its name, and the state.
fn question(answer: &Answer) -> (String, Value, Value) {
    let message = answer.messages().pop().unwrap();
    let result = &message["result"];
    assert_eq!(result["resultType"], "input_required", "{message}");
    let asked = result["inputRequests"].as_object().unwrap();
    assert_eq!(asked.len(), 1, "{result}");
    let (key, question) = asked.iter().next().unwrap();
    (key.clone(), question.clone(), result["requestState"].clone())
}

/// What `consult` says came of what it asked.
fn outcome(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text()).unwrap()
}

fn said(key: &str, result: Value, state: &Value) -> Value {
    json!({"inputResponses": {key: result}, "requestState": state})
}

#[tokio::test]
async fn a_legacy_server_asks_a_modern_client_which_answers_on_any_replica() {
    let scene = Scene::new().await;
    let can = everything();
    for (server, nodes) in [
        ("web", [0, 1, 1]),
        ("web", [1, 1, 0]),
        ("child", [0, 1, 0]),
        ("child", [1, 0, 0]),
    ] {
        let tool = format!("{server}__consult");
        let url = json!({"id": 2, "method": "elicitation/create", "params": {"mode": "url", "url": "https://a.example", "message": "m", "elicitationId": "e"}});
        let asks = json!({"arguments": {"asks": [form("first"), url]}});
        let first = scene.call(nodes[0], &scene.token, &tool, &can, asks).await;
        let (key, asked, state) = question(&first);
        assert_eq!(
            (&asked["method"], &asked["params"]["message"]),
            (&json!("elicitation/create"), &json!("first"))
        );
        let who = json!({"action": "accept", "content": {"who": "me"}});
        let second = scene
            .call(nodes[1], &scene.token, &tool, &can, said(&key, who.clone(), &state))
            .await;
        let (key, asked, state) = question(&second);
        assert_eq!(
            asked["params"],
            json!({"mode": "url", "url": "https://a.example", "message": "m"}),
            "that id is of the other era"
        );
        // Who comes back without the answer is asked again.
        let again = scene
            .call(nodes[2], &scene.token, &tool, &can, json!({"requestState": state}))
            .await;
        assert_eq!(question(&again).1, asked);
        let last = scene
            .call(
                nodes[2],
                &scene.token,
                &tool,
                &can,
                said(&key, json!({"action": "accept"}), &state),
            )
            .await;
        assert_eq!(last.messages().last().unwrap()["result"]["resultType"], "complete");
        assert_eq!(
            outcome(&last),
            json!([
                {"jsonrpc": "2.0", "id": "first", "result": who},
                {"jsonrpc": "2.0", "id": 2, "result": {"action": "accept"}},
            ])
        );
        // It has been used up.
        let late = scene
            .call(nodes[0], &scene.token, &tool, &can, said(&key, json!({}), &state))
            .await;
        assert_eq!(late.messages().last().unwrap()["error"]["code"], -32010);
        scene.web.answers.send_replace(Vec::new());
    }
    assert_eq!(scene.web.calls("tools/call").len(), 2, "each went to the server once");
}

#[tokio::test]
async fn a_url_that_a_legacy_server_requires_is_asked_of_a_modern_client_and_the_call_made_anew() {
    let scene = Scene::new().await;
    let tool = "web__gated";
    let first = scene.call(0, &scene.token, tool, &everything(), json!({})).await;
    let (key, asked, state) = question(&first);
    let params = json!({"mode": "url", "url": "https://a.example", "message": "m"});
    assert_eq!(
        (&asked["method"], &asked["params"]),
        (&json!("elicitation/create"), &params)
    );
    let mut answer = said(&key, json!({"action": "accept"}), &state);
    // The same state serves until the server is content.
    let again = scene.call(1, &scene.token, tool, &everything(), answer.clone()).await;
    assert_eq!(question(&again).1, asked);
    answer["arguments"] = json!({"visited": true});
    let last = scene.call(1, &scene.token, tool, &everything(), answer.clone()).await;
    assert_eq!(last.text(), "gated");
    let calls = scene.web.calls("tools/call");
    assert_eq!(calls.len(), 3);
    for (_, call) in &calls {
        let params = call["params"].as_object().unwrap();
        assert!(
            !params.contains_key("requestState") && !params.contains_key("inputResponses"),
            "{call}"
        );
    }
    let declined = said(&key, json!({"action": "decline"}), &state);
    assert_eq!(
        scene.call(0, &scene.token, tool, &everything(), declined).await.code(),
        -32010
    );
    let other = scene.world.token("demo", &[RUN]);
    assert_eq!(
        scene.call(0, &other, tool, &everything(), answer.clone()).await.code(),
        -32602
    );
    assert_eq!(
        scene
            .call(0, &scene.token, "web__echo", &everything(), answer)
            .await
            .code(),
        -32602
    );
    assert_eq!(scene.web.calls("tools/call").len(), 3);
    // Who cannot visit a URL is told what is missing.
    let forms = json!({"elicitation": {"form": {}}});
    let refused = scene.call(0, &scene.token, tool, &forms, json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, -32021));
    let needed = &refused.json()["error"]["data"]["requiredCapabilities"];
    assert_eq!(needed, &json!({"elicitation": {"url": {}}}));
}

#[tokio::test]
async fn a_state_is_good_for_its_own_token_and_request_only() {
    let scene = Scene::new().await;
    let other = scene.world.token("demo", &[RUN]);
    let can = everything();
    let asks = json!({"arguments": {"asks": [form("s")]}});
    let (key, _, state) = question(&scene.call(0, &scene.token, "web__consult", &can, asks).await);
    let answer = said(&key, json!({"action": "decline"}), &state);
    let forged = said(&key, json!({}), &json!("bm8"));
    let rows = [
        (&other, "web__consult", &answer),
        (&scene.token, "web__echo", &answer),
        (&scene.token, "child__consult", &answer),
        (&scene.token, "web__consult", &forged),
        (&scene.token, "child__consult", &forged),
    ];
    for (token, tool, said) in rows {
        for node in [0, 1] {
            let refused = scene.call(node, token, tool, &can, said.clone()).await;
            assert_eq!(refused.code(), -32602, "{tool} {said}");
        }
    }
    assert_eq!(
        scene.web.calls("tools/call").len(),
        1,
        "none of them reached the server"
    );
    let last = scene.call(1, &scene.token, "web__consult", &can, answer).await;
    assert_eq!(outcome(&last)[0]["result"]["action"], "decline");
}

#[tokio::test]
async fn a_held_call_ends_with_its_token_and_when_nobody_comes_back() {
    let limits = Limits {
        client_reply_ms: 300,
        ..Limits::default()
    };
    let scene = Scene::with(limits).await;
    let can = everything();
    let asks = json!({"arguments": {"asks": [form("s")]}});
    let (key, _, state) = question(&scene.call(0, &scene.token, "web__consult", &can, asks.clone()).await);
    until("the server is told that nobody comes", || async {
        (!scene.web.calls("notifications/cancelled").is_empty()).then_some(())
    })
    .await;
    let late = scene
        .call(1, &scene.token, "web__consult", &can, said(&key, json!({}), &state))
        .await;
    assert_eq!(late.messages().pop().unwrap()["error"]["code"], -32010);
    let scene = Scene::new().await;
    question(&scene.call(0, &scene.token, "web__consult", &can, asks).await);
    scene.world.revoke(&scene.token);
    until("the server is told that the token is gone", || async {
        (!scene.web.calls("notifications/cancelled").is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_modern_client_is_not_asked_for_what_it_has_not_declared() {
    let scene = Scene::new().await;
    for server in ["web", "child"] {
        let asks = json!({"arguments": {"asks": [{"id": 1, "method": "roots/list"}, {"id": 2, "method": "sampling/createMessage", "params": {}}]}});
        let tool = format!("{server}__consult");
        let answer = scene
            .call(0, &scene.token, &tool, &json!({"elicitation": {}}), asks)
            .await;
        assert_eq!(outcome(&answer)[0]["error"]["code"], -32601, "{server}");
        assert_eq!(outcome(&answer)[1]["error"]["code"], -32601, "{server}");
        scene.web.answers.send_replace(Vec::new());
    }
}

#[tokio::test]
async fn between_modern_ones_rounds_pass_untouched() {
    let scene = Scene::new().await;
    let can = json!({"roots": {}});
    let asks = json!({"r": {"method": "roots/list"}});
    let first = scene
        .call(
            0,
            &scene.token,
            "modern__consult",
            &can,
            json!({"arguments": {"asks": asks}}),
        )
        .await;
    let result = first.json()["result"].clone();
    assert_eq!(
        result,
        json!({"resultType": "input_required", "inputRequests": asks, "requestState": "theirs"})
    );
    let last = scene
        .call(
            1,
            &scene.token,
            "modern__consult",
            &can,
            said("r", json!({"roots": []}), &result["requestState"]),
        )
        .await;
    let told = outcome(&last);
    assert_eq!(
        (&told["answers"], &told["state"]),
        (&json!({"r": {"roots": []}}), &json!("theirs"))
    );
    assert_eq!(told["can"], can);
}

/// A legacy client's session.
async fn session(scene: &Scene, token: &Token, capabilities: Value) -> String {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "t"}});
    let answer = scene
        .world
        .post(0, "demo", token, &request(0, "initialize", params))
        .await;
    answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn next(stream: &mut Open) -> Option<Value> {
    loop {
        let chunk = stream.chunk().await?;
        if let Some(data) = chunk.lines().find_map(|line| line.strip_prefix("data: ")) {
            return Some(serde_json::from_str(data).unwrap());
        }
    }
}

#[tokio::test]
async fn a_modern_server_asks_a_legacy_client_on_its_stream() {
    // One place for calls: each round is the same call, and takes no second one.
    let limits = Limits {
        upstream_calls_max: 1,
        ..Limits::default()
    };
    let scene = Scene::with(limits).await;
    let asks = json!({
        "r": {"method": "roots/list"},
        "u": {"method": "elicitation/create", "params": {"mode": "url", "url": "https://a.example", "message": "m"}},
    });
    let params = json!({"name": "modern__consult", "arguments": {"asks": asks}});
    let call = request(7, "tools/call", params);
    let id = session(&scene, &scene.token, everything()).await;
    let other = scene.world.token("demo", &[RUN]);
    let theirs = session(&scene, &other, everything()).await;
    let mut stream = scene.world.in_session(0, &scene.token, &id, &call).await;
    let (roots, url) = (next(&mut stream).await.unwrap(), next(&mut stream).await.unwrap());
    assert_eq!(
        (&roots["method"], &url["params"]["mode"]),
        (&json!("roots/list"), &json!("url"))
    );
    assert!(url["params"]["elicitationId"].is_string(), "that era wants one: {url}");
    let reply = |to: &Value, result: Value| json!({"jsonrpc": "2.0", "id": to["id"], "result": result});
    let evil = scene
        .world
        .in_session(1, &other, &theirs, &reply(&roots, json!({"roots": ["evil"]})))
        .await;
    assert_eq!(evil.status.as_u16(), 400);
    let declined = json!({"jsonrpc": "2.0", "id": url["id"], "error": {"code": -1, "message": "no"}});
    for (node, message) in [(0, declined), (1, reply(&roots, json!({"roots": []})))] {
        assert_eq!(
            scene
                .world
                .in_session(node, &scene.token, &id, &message)
                .await
                .status
                .as_u16(),
            202
        );
    }
    let response = next(&mut stream).await.unwrap();
    let told: Value = serde_json::from_str(response["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(told["answers"], json!({"r": {"roots": []}, "u": {"action": "cancel"}}));
    assert_eq!(told["state"], "theirs");
    assert_eq!(told["can"]["elicitation"], json!({"form": {}, "url": {}}));
    // A revoke ends it while it waits.
    let mut stream = scene.world.in_session(1, &scene.token, &id, &call).await;
    next(&mut stream).await.unwrap();
    scene.world.revoke(&scene.token);
    while let Some(message) = next(&mut stream).await {
        assert!(message["method"].is_string(), "no answer comes: {message}");
    }
    // Who has declared nothing is not asked.
    let id = session(&scene, &other, json!({})).await;
    let answer = scene.world.in_session(0, &other, &id, &call).await.whole().await;
    let error = answer.messages().pop().unwrap()["error"].clone();
    assert_eq!(error["code"], -32010);
    assert!(
        error["message"].as_str().unwrap().contains("does not support"),
        "{error}"
    );
    assert_eq!(scene.modern.calls("tools/call").len(), 4);
}
