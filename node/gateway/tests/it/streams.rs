//! Streams that are held open: told what changes, ended with their token.

use http::Method;
use mcp_gateway::limits::Limits;
use mcp_model::records::ToolNaming;
use serde_json::json;

use crate::peer::Peer;
use crate::world::{Open, Token, World, request};

const RUN: &str = "role:run,resource:servers";

async fn session(world: &World, token: &Token) -> String {
    let params =
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let answer = world.post(0, "demo", token, &request(0, "initialize", params)).await;
    answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

async fn open(world: &World, node: usize, token: &Token, session: &str) -> Open {
    let url = format!("{}/projects/demo/mcp", world.nodes[node].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [
        ("authorization", bearer.as_str()),
        ("accept", "text/event-stream"),
        ("mcp-session-id", session),
    ];
    world.send(Method::GET, &url, &headers, "").await
}

#[tokio::test]
async fn a_session_stream_reports_changed_lists_and_ends_with_its_token() {
    let world = World::new().await;
    let (peer, url) = Peer::start(false, &["a"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[server], ToolNaming::Plain);
    let (token, blind) = (world.token("demo", &[RUN]), world.token("demo", &[]));
    world.listed(1, "demo", &token, "a").await;
    let id = session(&world, &token).await;
    let mut stream = open(&world, 1, &token, &id).await;
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let mut unseeing = open(&world, 1, &blind, &session(&world, &blind).await).await;
    assert_eq!(unseeing.chunk().await.unwrap(), ":\n\n");
    peer.tools.lock().unwrap().push(json!({"name": "b"}));
    world.clock.forward(400_000);
    world.nodes.iter().for_each(|node| world.lease(node));
    assert_eq!(
        stream.next_message().await["method"],
        "notifications/tools/list_changed"
    );
    world.revoke(&token);
    assert_eq!(stream.chunk().await, None);
    world.revoke(&blind);
    assert_eq!(unseeing.chunk().await, None, "who sees nothing is told nothing");
}

#[tokio::test]
async fn a_quiet_stream_carries_comments_and_waits_for_the_lease() {
    let world = World::with(Limits {
        comment_every_ms: 100,
        lease_wait_ms: 300,
        ..Limits::default()
    })
    .await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let id = session(&world, &token).await;
    let mut stream = open(&world, 0, &token, &id).await;
    for _ in 0..3 {
        assert_eq!(stream.chunk().await.unwrap(), ":\n\n");
    }
    world.clock.forward(crate::world::LEASE_MS);
    let mut more = 0;
    while stream.chunk().await.is_some() {
        more += 1;
    }
    assert!(more <= 1, "at most what was under way: {more}");
}

#[tokio::test]
async fn a_stream_needs_a_session_and_an_accept_header() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let id = session(&world, &token).await;
    let url = format!("{}/projects/demo/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", token.bearer);
    let auth = ("authorization", bearer.as_str());
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let rows: [(Method, Headers<'_>, u16); 5] = [
        (Method::GET, &[auth], 405),
        (
            Method::GET,
            &[auth, ("accept", "application/json"), ("mcp-session-id", &id)],
            406,
        ),
        (Method::GET, &[auth, ("mcp-session-id", "nonsense")], 404),
        (Method::DELETE, &[auth], 405),
        (Method::PUT, &[auth], 405),
    ];
    for (method, headers, expected) in rows {
        let answer = world.send(method.clone(), &url, headers, "").await;
        assert_eq!(answer.status.as_u16(), expected, "{method} {headers:?}");
    }
}

#[tokio::test]
async fn a_modern_subscription_is_acknowledged_and_tagged() {
    let world = World::new().await;
    let (peer, url) = Peer::start(false, &["a"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[server], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "a").await;
    let url = format!("{}/projects/demo/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [
        ("authorization", bearer.as_str()),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "subscriptions/listen"),
    ];
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}});
    let params =
        json!({"_meta": meta, "notifications": {"toolsListChanged": true, "resourceSubscriptions": ["demo://doc"]}});
    let body = request(3, "subscriptions/listen", params).to_string();
    let mut stream = world.send(Method::POST, &url, &headers, body).await;
    let first = stream.next_message().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(first["params"]["notifications"], json!({"toolsListChanged": true}));
    assert_eq!(first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 3);
    peer.tools.lock().unwrap().push(json!({"name": "b"}));
    world.clock.forward(400_000);
    world.nodes.iter().for_each(|node| world.lease(node));
    let second = stream.next_message().await;
    assert_eq!(second["method"], "notifications/tools/list_changed");
    assert_eq!(second["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 3);
}
