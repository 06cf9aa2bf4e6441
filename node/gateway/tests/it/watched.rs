//! What servers say on their own account, and who is told: resources that are watched, lists that change. And a server of both
//! eras, which is spoken to in the era of the client.

use std::sync::Arc;

use http::Method;
use mcp_model::records::ToolNaming;
use serde_json::{Value, json};

use crate::board::Board;
use crate::world::{Open, Token, World, request, until};

const RUN: &str = "role:run,resource:servers";

/// A world with a board whose lists are known on both nodes.
async fn with_board() -> (World, Arc<Board>, Token) {
    let world = World::new().await;
    let (board, url) = Board::start().await;
    let server = world.http("board", &url);
    world.project("demo", &[server], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    for node in 0..2 {
        world.listed(node, "demo", &token, "a").await;
    }
    (world, board, token)
}

async fn session(world: &World, token: &Token) -> String {
    let params =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let answer = world.post(0, "demo", token, &request(0, "initialize", params)).await;
    answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn stream(world: &World, node: usize, token: &Token, session: &str) -> Open {
    let url = format!("{}/projects/demo/mcp", world.nodes[node].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [
        ("authorization", bearer.as_str()),
        ("accept", "text/event-stream"),
        ("mcp-session-id", session),
    ];
    world.send(Method::GET, &url, &headers, "").await
}

async fn about(world: &World, token: &Token, session: &str, method: &str, uri: &str) -> Value {
    let message = request(7, method, json!({ "uri": uri }));
    let headers = [("mcp-session-id", session)];
    world
        .post_with(0, "demo", token, &headers, message.to_string())
        .await
        .json()
}

fn modern(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
    });
    request(id, method, params)
}

async fn listen(world: &World, token: &Token, uris: &[&str]) -> Open {
    let url = format!("{}/projects/demo/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [
        ("authorization", bearer.as_str()),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "subscriptions/listen"),
    ];
    let params = json!({"notifications": {"resourceSubscriptions": uris}});
    let body = modern(3, "subscriptions/listen", params).to_string();
    world.send(Method::POST, &url, &headers, body).await
}

/// Waits until the server has been asked so often.
async fn asked(board: &Board, method: &str, times: usize) -> Vec<Value> {
    until(method, || async {
        Some(board.asked(method)).filter(|asked| asked.len() >= times)
    })
    .await
}

#[tokio::test]
async fn a_session_is_told_of_the_resources_it_watches_and_of_no_other() {
    let (world, board, token) = with_board().await;
    let (mine, other) = (session(&world, &token).await, session(&world, &token).await);
    let mut watching = stream(&world, 0, &token, &mine).await;
    let mut bystander = stream(&world, 0, &token, &other).await;
    let subscribed = about(&world, &token, &mine, "resources/subscribe", "board://one").await;
    assert_eq!(subscribed["result"], json!({}));
    about(&world, &token, &other, "resources/subscribe", "board://two").await;
    assert_eq!(asked(&board, "resources/subscribe", 2).await.len(), 2);
    until("the server's stream", || async { (board.streams() > 0).then_some(()) }).await;
    for uri in ["board://one", "board://three", "board://two"] {
        board.says("notifications/resources/updated", json!({ "uri": uri }));
    }
    let told = watching.next_message().await;
    assert_eq!(told["method"], "notifications/resources/updated");
    assert_eq!(told["params"], json!({"uri": "board://one"}));
    assert_eq!(bystander.next_message().await["params"]["uri"], "board://two");
    // A second subscription to the same changes nothing, one that ends is ended at the server.
    about(&world, &token, &other, "resources/subscribe", "board://one").await;
    about(&world, &token, &mine, "resources/unsubscribe", "board://one").await;
    about(&world, &token, &other, "resources/unsubscribe", "board://two").await;
    assert_eq!(
        asked(&board, "resources/unsubscribe", 1).await,
        [json!({"uri": "board://two"})]
    );
    board.says("notifications/resources/updated", json!({"uri": "board://one"}));
    assert_eq!(bystander.next_message().await["params"]["uri"], "board://one");
    assert_eq!(board.asked("resources/subscribe").len(), 2);
    // A server that asks on its stream whether we are there is told so.
    board.sends(json!({"jsonrpc": "2.0", "id": "there?", "method": "ping"}));
    let pong = until("the ping is answered", || async { board.answered("there?") }).await;
    assert_eq!(pong["result"], json!({}));
}

#[tokio::test]
async fn a_session_is_one_on_every_node() {
    let (world, board, token) = with_board().await;
    let mine = session(&world, &token).await;
    let mut watching = stream(&world, 1, &token, &mine).await;
    about(&world, &token, &mine, "resources/subscribe", "board://one").await;
    until("the server's stream", || async { (board.streams() > 0).then_some(()) }).await;
    board.says("notifications/resources/updated", json!({"uri": "board://one"}));
    assert_eq!(watching.next_message().await["params"]["uri"], "board://one");
    let headers = [("mcp-session-id", mine.as_str())];
    let unsubscribe = request(8, "resources/unsubscribe", json!({"uri": "board://one"})).to_string();
    let answer = world.post_with(1, "demo", &token, &headers, unsubscribe).await;
    assert_eq!(answer.json()["result"], json!({}));
    asked(&board, "resources/unsubscribe", 1).await;
    let url = format!("{}/projects/demo/mcp", world.nodes[1].base);
    let bearer = format!("Bearer {}", token.bearer);
    let all = [("authorization", bearer.as_str()), headers[0]];
    assert_eq!(world.send(Method::DELETE, &url, &all, "").await.status, 204);
    let ping = request(9, "ping", json!({})).to_string();
    let answer = world.post_with(0, "demo", &token, &headers, ping).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, -32001));
}

#[tokio::test]
async fn what_may_not_be_read_may_not_be_watched() {
    let (world, board, token) = with_board().await;
    let blind = world.token("demo", &[]);
    let (own, unseeing) = (session(&world, &token).await, session(&world, &blind).await);
    let rows = [
        (&token, &own, "board://none", -32002),
        (&blind, &unseeing, "board://one", -32002),
        (&token, &own, "board://closed", -32010),
    ];
    for (token, session, uri, code) in rows {
        let answer = about(&world, token, session, "resources/subscribe", uri).await;
        assert_eq!(answer["error"]["code"], code, "{uri}: {answer}");
    }
    assert_eq!(board.asked("resources/subscribe"), [json!({"uri": "board://closed"})]);
    let without = request(1, "resources/subscribe", json!({"uri": "board://one"}));
    assert_eq!(world.post(0, "demo", &token, &without).await.code(), -32600);
}

#[tokio::test]
async fn a_modern_subscription_watches_resources_as_long_as_its_stream_is_open() {
    let (world, board, token) = with_board().await;
    let mut open = listen(&world, &token, &["board://one", "board://none"]).await;
    let first = open.next_message().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(
        first["params"]["notifications"],
        json!({"resourceSubscriptions": ["board://one"]})
    );
    until("the server's stream", || async { (board.streams() > 0).then_some(()) }).await;
    board.says("notifications/resources/updated", json!({"uri": "board://one"}));
    let told = open.next_message().await;
    assert_eq!(told["params"]["uri"], "board://one");
    assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 3);
    drop(open);
    assert_eq!(
        asked(&board, "resources/unsubscribe", 1).await,
        [json!({"uri": "board://one"})]
    );
}

#[tokio::test]
async fn a_list_that_a_server_says_has_changed_is_asked_for_again_at_once() {
    let (world, board, token) = with_board().await;
    let mine = session(&world, &token).await;
    let mut watching = stream(&world, 1, &token, &mine).await;
    until("the server's stream", || async { (board.streams() > 0).then_some(()) }).await;
    board
        .tools
        .lock()
        .unwrap()
        .push(json!({"name": "b", "inputSchema": {"type": "object"}}));
    board.says("notifications/tools/list_changed", json!({}));
    // The notices have to calm down first, which takes a moment of the nodes' clock.
    let told = tokio::select! {
        told = watching.next_message() => told,
        () = until("a changed list", || async {
            world.clock.forward(100);
            world.nodes.iter().for_each(|node| world.lease(node));
            None
        }) => unreachable!("it does not end"),
    };
    assert_eq!(told["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_server_of_both_eras_is_spoken_to_in_the_clients() {
    let (world, board, token) = with_board().await;
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "a"),
    ];
    let call = modern(1, "tools/call", json!({"name": "a", "arguments": {}}));
    let answer = world.post_with(0, "demo", &token, &headers, call.to_string()).await;
    let result = answer.json()["result"].clone();
    assert_eq!(result["resultType"], "input_required");
    assert_eq!(result["requestState"], "kept");
    assert_eq!(result["inputRequests"]["who"]["method"], "elicitation/create");
    let refused = modern(
        2,
        "tools/call",
        json!({"name": "a", "arguments": {"needs": "sampling"}}),
    );
    let answer = world.post_with(0, "demo", &token, &headers, refused.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, -32021));
    let legacy = request(3, "tools/call", json!({"name": "a", "arguments": {}}));
    assert_eq!(
        world.post(0, "demo", &token, &legacy).await.json()["result"],
        json!({"content": []})
    );
    let versions: Vec<String> = board
        .seen
        .lock()
        .unwrap()
        .iter()
        .filter(|(_, body)| body["method"] == "tools/call")
        .map(|(headers, _)| headers["mcp-protocol-version"].to_str().unwrap().to_owned())
        .collect();
    assert_eq!(versions, ["2026-07-28", "2026-07-28", "2025-11-25"]);
    assert_eq!(board.asked("server/discover").len(), 1, "found out once");
}
