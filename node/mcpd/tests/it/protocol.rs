//! Headers, bodies, hosts, indices.

use serde_json::json;

use crate::client::{Client, user};
use crate::node::{Mood, Node};

#[tokio::test]
async fn a_body_is_json_small_and_an_object() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let plain = admin.header("content-type", "text/plain");
    plain
        .post("projects", json!({"name": "a"}))
        .await
        .refuses(415, "unsupported_media_type");
    admin
        .header("content-type", "application/json; charset=utf-8")
        .post("projects", json!({"name": "a"}))
        .await
        .is(201);
    let large = json!({"name": "b", "description": "x".repeat(1024 * 1024)});
    admin.post("projects", large).await.refuses(413, "too_large");
    for body in ["", "{", "[]", "{\"name\":\"b\",\"name\":\"c\"}"] {
        admin
            .send("POST", "projects", Some(body.to_owned()))
            .await
            .refuses(400, "bad_request");
    }
}

#[tokio::test]
async fn strangers_are_refused_before_a_larger_body_comes() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let large = json!({"name": "b", "description": "x".repeat(512 * 1024)});
    // Whoever is let in is told what is wrong with it.
    admin.post("projects", large.clone()).await.refuses(422, "invalid");
    let unknown = admin.header("authorization", format!("Bearer mcpctl_ses_{}", "1".repeat(43)));
    unknown.post("projects", large).await.refuses(401, "not_authenticated");
    // Nobody has a bearer at a login, so what comes there is short.
    let long = json!({"email": "a@b.c", "password": "x".repeat(17 * 1024)});
    admin.post("auth/login", long).await.refuses(413, "too_large");
}

#[tokio::test]
async fn only_named_hosts_are_served() {
    let node = Node::start();
    let admin = Client::admin(&node);
    for host in ["evil.example", "127.0.0.1.evil.example:3100"] {
        admin
            .header("host", host)
            .get("auth/whoami")
            .await
            .refuses(403, "host_not_allowed");
        let over_http2 = admin.header("host", host).http2().get("auth/whoami").await;
        over_http2.refuses(421, "host_misdirected");
    }
    let over_http2 = admin.http2().header("host", "localhost").get("auth/whoami").await;
    over_http2.is(200);
    admin.header("host", "LOCALHOST:3100").get("auth/whoami").await.is(200);
}

#[tokio::test]
async fn a_read_waits_for_the_index_it_asks_for() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let made = admin.post("projects", json!({"name": "a"})).await.is(201);
    let index = made.header("mcp-index").to_owned();
    admin
        .header("mcp-min-index", index.clone())
        .get("projects/a")
        .await
        .is(200);
    let next = (index.parse::<u64>().unwrap() + 1).to_string();
    let waiting = {
        let reader = admin.header("mcp-min-index", next.clone());
        tokio::spawn(async move { reader.get("projects").await })
    };
    tokio::task::yield_now().await;
    let made = admin.post("projects", json!({"name": "b"})).await.is(201);
    assert_eq!(made.header("mcp-index"), next);
    assert_eq!(waiting.await.unwrap().is(200).names(), ["a", "b"]);
    admin
        .header("mcp-min-index", "soon")
        .get("projects")
        .await
        .refuses(422, "invalid");
    admin.get("projects?consistency=linearizable").await.is(200);
    node.mood(Mood::NoLeader);
    admin
        .get("projects?consistency=linearizable")
        .await
        .refuses(503, "no_leader");
    admin.get("projects").await.is(200);
}

#[tokio::test(start_paused = true)]
async fn a_read_does_not_wait_for_ever() {
    let node = Node::start();
    let reply = Client::admin(&node)
        .header("mcp-min-index", "1000")
        .get("projects")
        .await;
    assert_eq!(reply.refuses(503, "index_not_reached").header("retry-after"), "1");
}

#[tokio::test]
async fn unknown_and_repeated_parameters_are_faults() {
    let node = Node::start();
    let reply = Client::admin(&node)
        .get("projects?limt=3&limit=1&limit=2")
        .await
        .refuses(422, "invalid");
    assert_eq!(reply.fields(), ["limt", "limit"]);
}

#[tokio::test]
async fn can_i_says_what_the_routes_would_say() {
    let node = Node::start();
    let alice = user(
        &node,
        "alice@test.com",
        &["role:run,resource:servers,name:git", "action:logs"],
    )
    .await;
    let cases = [
        ("verb=get&resource=servers&name=git", true),
        ("verb=run&resource=tools&name=git__log", true),
        ("verb=get&resource=server", true),
        ("verb=create&resource=servers", false),
        ("verb=get&resource=servers&name=time", false),
        ("verb=delete&resource=projects", false),
        ("action=logs", true),
        ("action=exec", false),
    ];
    for (query, allowed) in cases {
        let reply = alice.get(&format!("auth/can-i?{query}")).await.is(200);
        assert_eq!(reply.body["allowed"], allowed, "{query}: {}", reply.raw);
    }
    let reply = alice
        .get("auth/can-i?verb=dance&resource=floors")
        .await
        .refuses(422, "invalid");
    assert_eq!(reply.fields(), ["verb", "resource"]);
}
