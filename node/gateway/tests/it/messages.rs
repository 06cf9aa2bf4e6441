//! Messages that are answered here, in both eras. What goes on to servers has files of its own; docs/MESSAGES.md says which.

use mcp_model::records::ToolNaming;
use serde_json::{Value, json};

use crate::world::{Answer, Token, World, request};

/// A message as each era sends it.
async fn ask(world: &World, token: &Token, modern: bool, method: &str, mut params: Value) -> Answer {
    if !modern {
        return world.post(0, "demo", token, &request(4, method, params)).await;
    }
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
    let body = request(4, method, params).to_string();
    world.post_with(0, "demo", token, &headers, body).await
}

#[tokio::test]
async fn what_is_answered_here_waits_for_no_server_and_what_is_no_method_is_said_in_both_eras() {
    let world = World::new().await;
    // A server that nobody reaches.
    let dead = world.http("dead", "http://127.0.0.1:9/mcp");
    world.project("demo", &[dead], ToolNaming::Prefixed);
    let token = world.token("demo", &["role:run,resource:servers"]);
    let opening = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t"}});
    let rows = [
        // era, method, params, status, error code
        (false, "initialize", opening.clone(), 200, 0),
        (true, "server/discover", json!({}), 200, 0),
        (false, "ping", json!({}), 200, 0),
        (false, "logging/setLevel", json!({"level": "info"}), 200, 0),
        (false, "logging/setLevel", json!({"level": "loud"}), 200, -32602),
        (false, "tools/list", json!({}), 200, 0),
        (true, "tools/list", json!({}), 200, 0),
        // Each era lacks what only the other one has.
        (true, "initialize", opening, 404, -32601),
        (false, "server/discover", json!({}), 200, -32601),
        (true, "ping", json!({}), 404, -32601),
        (true, "logging/setLevel", json!({"level": "info"}), 404, -32601),
        (false, "subscriptions/listen", json!({}), 200, -32601),
        (true, "resources/subscribe", json!({"uri": "a:b"}), 404, -32601),
        (false, "no/such", json!({}), 200, -32601),
        (true, "no/such", json!({}), 404, -32601),
        (false, "tasks/list", json!({}), 200, -32601),
        (true, "tasks/get", json!({"taskId": "t"}), 404, -32601),
    ];
    for (modern, method, params, status, code) in rows {
        let answer = ask(&world, &token, modern, method, params).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{method}: {answer:?}"
        );
        assert_eq!(answer.json()["id"], 4, "{method}: {answer:?}");
        assert!(!answer.body.contains("tasks\":"), "{method}: tasks are not offered");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_without_an_id() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Prefixed);
    let token = world.token("demo", &[]);
    for body in ["", "{", "[]", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#] {
        let answer = world.post_with(0, "demo", &token, &[], body.to_owned()).await;
        assert_eq!(answer.status.as_u16(), 400, "{body}: {answer:?}");
        assert!(
            !answer.json().as_object().unwrap().contains_key("id"),
            "{body}: {answer:?}"
        );
    }
}
