//! Both eras on one endpoint: sessions without affinity, and requests without sessions.

use http::Method;
use mcp_model::records::ToolNaming;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::world::{Answer, Token, World, call, request, until};

const RUN: &str = "role:run,resource:servers";

fn initialize(version: &str) -> Value {
    request(
        0,
        "initialize",
        json!({"protocolVersion": version, "capabilities": {"elicitation": {}}, "clientInfo": {"name": "t", "version": "1"}}),
    )
}

fn session_of(answer: &Answer) -> String {
    answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

/// A modern request with its headers.
async fn modern(world: &World, token: &Token, method: &str, mut params: Value, more: &[(&str, &str)]) -> Answer {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let name = params["name"].as_str().or(params["uri"].as_str()).map(str::to_owned);
    let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
    if let Some(name) = &name {
        headers.push(("mcp-name", name));
    }
    headers.extend_from_slice(more);
    world
        .post_with(0, "demo", token, &headers, request(5, method, params).to_string())
        .await
}

#[tokio::test]
async fn a_session_is_good_on_every_node_for_its_token_only() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let (mine, other) = (world.token("demo", &[]), world.token("demo", &[]));
    for (asked, given) in [
        ("2025-06-18", "2025-06-18"),
        ("2024-11-05", "2024-11-05"),
        ("1999-01-01", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
    ] {
        let answer = world.post(0, "demo", &mine, &initialize(asked)).await;
        assert_eq!(answer.json()["result"]["protocolVersion"], given);
        assert_eq!(answer.json()["result"]["instructions"], "be careful");
    }
    let id = session_of(&world.post(0, "demo", &mine, &initialize("2025-11-25")).await);
    let ping = request(1, "ping", json!({})).to_string();
    let session = [("mcp-session-id", id.as_str()), ("mcp-protocol-version", "2025-11-25")];
    assert_eq!(
        world
            .post_with(1, "demo", &mine, &session, ping.clone())
            .await
            .status
            .as_u16(),
        200
    );
    let foreign = world.post_with(1, "demo", &other, &session, ping.clone()).await;
    assert_eq!((foreign.status.as_u16(), foreign.code()), (404, -32001));
    let changed = if id.as_bytes()[40] == b'A' { "B" } else { "A" };
    let tampered = format!("{}{changed}{}", &id[..40], &id[41..]);
    let broken = world
        .post_with(0, "demo", &mine, &[("mcp-session-id", &tampered)], ping.clone())
        .await;
    assert_eq!((broken.status.as_u16(), broken.code()), (404, -32001));
    let url = format!("{}/projects/demo/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", mine.bearer);
    let ended = world
        .send(
            Method::DELETE,
            &url,
            &[("authorization", &bearer), ("mcp-session-id", &id)],
            "",
        )
        .await;
    assert_eq!(ended.status.as_u16(), 204);
    assert_eq!(
        world
            .post_with(0, "demo", &mine, &session, ping.clone())
            .await
            .status
            .as_u16(),
        404
    );
    let wrong = world
        .post_with(0, "demo", &mine, &[("mcp-protocol-version", "1900-01-01")], ping)
        .await;
    assert_eq!((wrong.status.as_u16(), wrong.code()), (400, -32022));
}

#[tokio::test]
async fn a_modern_client_discovers_lists_and_calls_a_legacy_upstream() {
    let world = World::new().await;
    let (_, url) = Peer::start(false, &["echo"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[server], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "echo").await;
    let found = modern(&world, &token, "server/discover", json!({}), &[]).await.json();
    assert_eq!(found["result"]["supportedVersions"][0], "2026-07-28");
    assert_eq!(found["result"]["resultType"], "complete");
    assert!(found["result"]["capabilities"]["resources"].is_object());
    let list = modern(&world, &token, "tools/list", json!({}), &[]).await.json();
    assert_eq!(list["result"]["cacheScope"], "private");
    assert_eq!(list["result"]["ttlMs"], 60_000);
    assert_eq!(list["result"]["tools"][0]["name"], "echo");
    let called = modern(
        &world,
        &token,
        "tools/call",
        json!({"name": "echo", "arguments": {}}),
        &[],
    )
    .await
    .json();
    assert_eq!(called["result"]["resultType"], "complete");
    let read = modern(&world, &token, "resources/read", json!({"uri": "demo://doc"}), &[])
        .await
        .json();
    assert_eq!(
        (&read["result"]["ttlMs"], &read["result"]["cacheScope"]),
        (&json!(0), &json!("private"))
    );
    let missing = modern(
        &world,
        &token,
        "resources/read",
        json!({"uri": "demo://item/none"}),
        &[],
    )
    .await;
    assert_eq!(missing.code(), -32602, "the legacy code must not reach a modern client");
    for method in ["ping", "logging/setLevel", "initialized", "no/such"] {
        let answer = modern(&world, &token, method, json!({}), &[]).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, -32601), "{method}");
    }
}

#[tokio::test]
async fn a_modern_request_that_contradicts_itself_is_refused() {
    let world = World::new().await;
    let (peer, url) = Peer::start(false, &["echo"]).await;
    peer.tools.lock().unwrap().push(json!({"name": "sql", "inputSchema": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}}));
    let server = world.http("peer", &url);
    world.project("demo", &[server], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "sql").await;
    let body = |version: &str, meta: Value| {
        let mut params = json!({"name": "echo", "_meta": meta});
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(version);
        request(1, "tools/call", params).to_string()
    };
    let can = json!({"io.modelcontextprotocol/clientCapabilities": {}});
    let (version, method, name) = (
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
    );
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let rows: [(String, Headers<'_>, i64); 6] = [
        (body("2026-07-28", can.clone()), &[version, method, name], 0),
        (
            body("2026-07-28", can.clone()),
            &[version, method, ("mcp-name", "other")],
            -32020,
        ),
        (body("2026-07-28", can.clone()), &[version, method], -32020),
        (body("2026-07-28", json!({})), &[version, method, name], -32602),
        (
            body("2099-01-01", can),
            &[("mcp-protocol-version", "2099-01-01"), method, name],
            -32022,
        ),
        (call(1, "echo").to_string(), &[version, method, name], -32602),
    ];
    for (body, headers, code) in rows {
        let answer = world.post_with(0, "demo", &token, headers, body.clone()).await;
        let status = if code == 0 { 200 } else { 400 };
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{body} {headers:?}"
        );
    }
    let sql = json!({"name": "sql", "arguments": {"region": "eu"}});
    let without = modern(&world, &token, "tools/call", sql.clone(), &[]).await;
    assert_eq!((without.status.as_u16(), without.code()), (400, -32020));
    let with = modern(&world, &token, "tools/call", sql, &[("mcp-param-region", "eu")]).await;
    assert_eq!(with.status.as_u16(), 200, "{with:?}");
}

#[tokio::test]
async fn a_legacy_client_calls_a_modern_upstream() {
    let world = World::new().await;
    let (peer, url) = Peer::start(true, &["echo"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[server], ToolNaming::Prefixed);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "peer__echo").await;
    let answer = world.post(0, "demo", &token, &call(1, "peer__echo")).await;
    assert_eq!(answer.text(), "echo");
    let (headers, body) = peer.calls("tools/call").pop().unwrap();
    assert_eq!(headers["mcp-name"], "echo");
    assert_eq!(headers["mcp-method"], "tools/call");
    assert_eq!(
        body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"],
        "2026-07-28"
    );
}

#[tokio::test]
async fn a_cancellation_of_a_legacy_session_reaches_the_upstream() {
    let world = World::new().await;
    let (peer, url) = Peer::start(false, &["hang"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[server], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "hang").await;
    let id = session_of(&world.post(0, "demo", &token, &initialize("2025-11-25")).await);
    let session = [("mcp-session-id", id.as_str())];
    let hanging = world.post_with(0, "demo", &token, &session, call(9, "hang").to_string());
    let cancel = async {
        until("it is at the upstream", || async {
            (!peer.calls("tools/call").is_empty()).then_some(())
        })
        .await;
        let note = json!({"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}).to_string();
        assert_eq!(
            world.post_with(0, "demo", &token, &session, note).await.status.as_u16(),
            202
        );
    };
    let (hanging, ()) = tokio::join!(hanging, cancel);
    assert_eq!(hanging.status.as_u16(), 202);
    until("the upstream sees it end", || async {
        (*peer.dropped.lock().unwrap() == 1).then_some(())
    })
    .await;
}
