//! Calls: to the right upstream, in order, audited, and over when they have to be.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;
use mcp_model::command::Command;
use mcp_model::ids::Id;
use mcp_model::names::Name;
use mcp_model::records::ToolNaming;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::world::{LEASE_MS, Token, World, call, request, until};

const RUN: &str = "role:run,resource:servers";

/// A project `demo` with an HTTP server of these tools, and a token that may run them.
async fn demo(tools: &[&str]) -> (World, Arc<Peer>, Token) {
    let world = World::new().await;
    let (peer, url) = Peer::start(false, tools).await;
    let server = world.http("peer", &url);
    world.project("demo", &[server], ToolNaming::Prefixed);
    let token = world.token("demo", &[RUN]);
    world.listed(1, "demo", &token, &format!("peer__{}", tools[0])).await;
    world.listed(0, "demo", &token, &format!("peer__{}", tools[0])).await;
    (world, peer, token)
}

fn audit(world: &World, node: usize) -> Vec<Value> {
    let dir = world.nodes[node].dir.path().join("audit");
    mcp_gateway::audit::verify(&dir).unwrap();
    let mut records = Vec::new();
    for file in std::fs::read_dir(dir).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        records.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    records
}

#[tokio::test]
async fn a_call_reaches_the_tool_under_its_own_name_and_is_audited_from_start_to_end() {
    let (world, peer, token) = demo(&["echo"]).await;
    let answer = world.post(1, "demo", &token, &call(7, "peer__echo")).await;
    assert_eq!((answer.status.as_u16(), answer.json()["id"].as_u64()), (200, Some(7)));
    assert_eq!(answer.text(), "echo");
    let calls = peer.calls("tools/call");
    assert_eq!(calls[0].1["params"], json!({"name": "echo", "arguments": {"a": 1}}));
    assert!(
        !calls[0].0.contains_key("authorization"),
        "the client's bearer never reaches an upstream"
    );
    let records = until("the end is on record", || async {
        Some(audit(&world, 1)).filter(|all| all.len() == 2)
    })
    .await;
    let (start, end) = (&records[0], &records[1]);
    assert_eq!(
        (&start["kind"], &end["kind"], &end["start"]),
        (&json!("start"), &json!("end"), &start["seq"])
    );
    assert_eq!(
        (&start["tool"], &start["server"], &start["project"]),
        (&json!("echo"), &json!("peer"), &json!("demo"))
    );
    assert_eq!(
        (&start["userName"], &end["reason"]),
        (&json!("admin@example.com"), &json!("ok"))
    );
    assert_eq!(start["tokenSha"].as_str().unwrap().len(), 64);
    assert!(!records.iter().any(|record| record.to_string().contains(&token.bearer)));
}

#[tokio::test]
async fn progress_arrives_in_order_before_the_response() {
    let (world, _, token) = demo(&["progress"]).await;
    for round in 0..40 {
        let message = request(
            round,
            "tools/call",
            json!({"name": "peer__progress", "_meta": {"progressToken": "mine"}}),
        );
        let answer = world.post(0, "demo", &token, &message).await;
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        assert_eq!(answer.headers["x-accel-buffering"], "no");
        let messages = answer.messages();
        assert_eq!(messages.len(), 12);
        let steps: Vec<u64> = messages
            .iter()
            .filter_map(|m| m["params"]["progress"].as_u64())
            .collect();
        assert_eq!(steps, (0..10).collect::<Vec<_>>());
        assert!(
            messages
                .iter()
                .filter(|m| m["params"]["progress"].is_u64())
                .all(|m| m["params"]["progressToken"] == "mine")
        );
        assert_eq!(messages[11]["id"], round);
    }
}

#[tokio::test]
async fn a_client_that_takes_no_stream_gets_the_response_alone() {
    let (world, _, token) = demo(&["progress"]).await;
    let message = request(
        1,
        "tools/call",
        json!({"name": "peer__progress", "_meta": {"progressToken": 1}}),
    )
    .to_string();
    let url = format!("{}/projects/demo/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [("authorization", bearer.as_str()), ("accept", "application/json")];
    let answer = world.send(Method::POST, &url, &headers, message).await.whole().await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.text(), "progress");
}

#[tokio::test]
async fn what_may_not_be_seen_does_not_exist_and_what_may_not_be_run_names_the_right() {
    let (world, peer, _) = demo(&["echo", "push"]).await;
    let viewer = world.token("demo", &["role:view,resource:tools,name:peer/echo"]);
    let unknown = world.post(0, "demo", &viewer, &call(1, "peer__nothing")).await;
    let hidden = world.post(0, "demo", &viewer, &call(1, "peer__push")).await;
    assert_eq!((unknown.code(), unknown.status.as_u16()), (-32602, 200));
    assert_eq!(hidden.body.replace("push", "nothing"), unknown.body);
    let seen = world.post(0, "demo", &viewer, &call(1, "peer__echo")).await;
    assert_eq!(seen.code(), -32003);
    assert!(
        seen.body.contains("role:run,resource:tools,name:peer/echo"),
        "{}",
        seen.body
    );
    assert!(peer.calls("tools/call").is_empty());
    let kinds = until("both are on record", || async {
        let kinds: Vec<Value> = audit(&world, 0).iter().map(|record| record["reason"].clone()).collect();
        Some(kinds).filter(|kinds| kinds.len() == 2)
    })
    .await;
    assert_eq!(kinds, ["hidden", "missing_right"]);
}

#[tokio::test]
async fn prompts_and_resources_find_their_server() {
    let (world, peer, token) = demo(&["echo"]).await;
    let prompt = world
        .post(
            0,
            "demo",
            &token,
            &request(1, "prompts/get", json!({"name": "peer__greet"})),
        )
        .await;
    assert_eq!(prompt.json()["result"]["asked"], "greet");
    for uri in ["demo://doc", "demo://item/7"] {
        let read = world
            .post(0, "demo", &token, &request(1, "resources/read", json!({"uri": uri})))
            .await;
        assert_eq!(read.json()["result"]["contents"][0]["uri"], uri);
    }
    let unknown = world
        .post(
            0,
            "demo",
            &token,
            &request(1, "resources/read", json!({"uri": "file:///etc/passwd"})),
        )
        .await;
    assert_eq!(unknown.code(), -32002);
    assert_eq!(
        peer.calls("resources/read").len(),
        2,
        "an unknown URI is never asked around"
    );
}

#[tokio::test]
async fn completions_go_to_the_server_of_what_they_are_about() {
    let (world, _, token) = demo(&["echo"]).await;
    let complete = |reference: Value| {
        request(
            1,
            "completion/complete",
            json!({"ref": reference, "argument": {"name": "a", "value": "b"}}),
        )
    };
    let prompt = complete(json!({"type": "ref/prompt", "name": "peer__greet"}));
    let about = world.post(0, "demo", &token, &prompt).await.json()["result"]["about"].clone();
    assert_eq!(about, json!({"type": "ref/prompt", "name": "greet"}));
    let template = complete(json!({"type": "ref/resource", "uri": "demo://item/{id}"}));
    let about = world.post(0, "demo", &token, &template).await.json()["result"]["about"].clone();
    assert_eq!(about["uri"], "demo://item/{id}");
    let unknown = complete(json!({"type": "ref/prompt", "name": "peer__nothing"}));
    assert_eq!(world.post(0, "demo", &token, &unknown).await.code(), -32602);
}

#[tokio::test]
async fn an_upstream_that_fails_is_named_with_what_may_have_happened() {
    let (world, _, token) = demo(&["echo"]).await;
    let stdio = world.stdio("dies", "legacy");
    world.project("two", &[stdio], ToolNaming::Plain);
    let other = world.token("two", &[RUN]);
    world.listed(0, "two", &other, "echo").await;
    let dead = world.http("dead", "http://127.0.0.1:1/mcp");
    world.project("three", &[dead], ToolNaming::Plain);
    assert_eq!(world.post(0, "demo", &token, &call(1, "peer__echo")).await.code(), 0);
    // The lists of a server stay when it dies; its calls say so.
    let lists = world.nodes[0].replica.view().lists();
    let mut list = mcp_model::records::ToolList::clone(&lists[&stdio].list);
    list.server = dead;
    world.log.commit(
        mcp_model::command::Actor::System,
        mcp_model::command::Command::PublishTools { list },
    );
    let third = world.token("three", &[RUN]);
    world.listed(0, "three", &third, "echo").await;
    let answer = world.post(0, "three", &third, &call(1, "echo")).await;
    assert_eq!(answer.code(), -32010);
    let data = &answer.json()["error"]["data"];
    assert_eq!((&data["server"], &data["effect"]), (&json!("dead"), &json!("none")));
}

#[tokio::test]
async fn a_revoke_ends_a_call_and_its_stream() {
    let (world, peer, token) = demo(&["slow", "hang"]).await;
    let url = format!("{}/projects/demo/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [("authorization", bearer.as_str())];
    let slow = request(
        1,
        "tools/call",
        json!({"name": "peer__slow", "_meta": {"progressToken": 1}}),
    )
    .to_string();
    let mut stream = world.send(Method::POST, &url, &headers, slow).await;
    assert!(stream.chunk().await.unwrap().contains("notifications/progress"));
    let hang = world.send(Method::POST, &url, &headers, call(2, "peer__hang").to_string());
    let revoke = async {
        until("both are at the upstream", || async {
            (peer.calls("tools/call").len() == 2).then_some(())
        })
        .await;
        world.revoke(&token);
    };
    let (hang, ()) = tokio::join!(hang, revoke);
    assert_eq!(hang.status.as_u16(), 401);
    assert_eq!(stream.chunk().await, None);
    until("the upstream sees both end", || async {
        (*peer.dropped.lock().unwrap() == 2).then_some(())
    })
    .await;
    until("both ends are on record", || async {
        let ends = audit(&world, 0)
            .into_iter()
            .filter(|record| record["reason"] == "cut")
            .count();
        (ends == 2).then_some(())
    })
    .await;
    assert_eq!(world.nodes[0].gateway.metrics().calls_cut.load(Ordering::Relaxed), 2);
}

fn grant(world: &World, id: u128, name: &str, subject: &str) -> Name {
    let name = Name::parse(name).unwrap();
    world.admin(Command::WriteRbac {
        id: Id::from_u128(id),
        name: name.clone(),
        subjects: vec![subject.parse().unwrap()],
        role_bindings: vec!["role:view,resource:servers".parse().unwrap()],
        if_version: None,
    });
    name
}

#[tokio::test]
async fn a_right_that_goes_ends_the_calls_of_who_loses_it_and_of_nobody_else() {
    let (world, peer, token) = demo(&["hang"]).await;
    let name = grant(&world, 7_000, "extra", "User:admin@example.com");
    let other = grant(&world, 7_001, "other", "User:nobody@example.com");
    let message = call(3, "peer__hang");
    let hanging = world.post(0, "demo", &token, &message);
    let narrow = async {
        until("it is at the upstream", || async {
            (!peer.calls("tools/call").is_empty()).then_some(())
        })
        .await;
        let if_version = None;
        world.admin(Command::DeleteRbac {
            name: other,
            if_version,
        });
        let cuts = world.nodes[0].replica.cuts();
        cuts.all_let_go().await;
        assert_eq!(cuts.len(), 1, "an unrelated change ends nothing");
        world.admin(Command::DeleteRbac { name, if_version });
    };
    let (hanging, ()) = tokio::join!(hanging, narrow);
    assert_eq!((hanging.status.as_u16(), hanging.code()), (200, -32010));
    let ping = request(1, "ping", json!({}));
    let ping = world.post(0, "demo", &token, &ping).await;
    assert_eq!(ping.status.as_u16(), 200, "the token itself is good");
}

/// What a replica waits for before it confirms: afterwards nothing of the token's is left that could write or send.
#[tokio::test]
async fn what_was_cut_has_ended_when_it_has_let_go() {
    let (world, peer, token) = demo(&["flood", "hang"]).await;
    let url = format!("{}/projects/demo/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [("authorization", bearer.as_str())];
    let flood = json!({"name": "peer__flood", "_meta": {"progressToken": 1}});
    let flood = request(1, "tools/call", flood).to_string();
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = world.send(Method::POST, &url, &headers, flood.clone()).await;
        assert!(stream.chunk().await.unwrap().contains("notifications/progress"));
        streams.push(stream);
    }
    let cuts = world.nodes[0].replica.cuts();
    assert_eq!(cuts.len(), 10);
    let reading = streams.iter_mut().map(|stream| async {
        let mut more = 0;
        while stream.chunk().await.is_some() {
            more += 1;
        }
        more
    });
    let reading = futures_util::future::join_all(reading);
    let revoke = async {
        tokio::task::yield_now().await;
        world.revoke(&token);
        cuts.all_let_go().await;
        assert!(cuts.is_empty(), "nothing is left that could write");
        let sent = peer.calls("tools/call").len();
        let refused = world.post(0, "demo", &token, &call(2, "peer__hang")).await;
        assert_eq!(refused.status.as_u16(), 401);
        sent
    };
    let (_, sent) = tokio::join!(reading, revoke);
    assert_eq!(peer.calls("tools/call").len(), sent);
    until("the upstream sees all of them end", || async {
        (*peer.dropped.lock().unwrap() == 10).then_some(())
    })
    .await;
    until("the audit names the token of each", || async {
        let cut = |r: &Value| r["reason"] == "cut";
        let ends = audit(&world, 0).into_iter().filter(cut).count();
        (ends == 10).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_call() {
    let (world, peer, token) = demo(&["slow"]).await;
    let url = format!("{}/projects/demo/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", token.bearer);
    let slow = request(
        1,
        "tools/call",
        json!({"name": "peer__slow", "_meta": {"progressToken": 1}}),
    )
    .to_string();
    let mut stream = world
        .send(Method::POST, &url, &[("authorization", &bearer)], slow)
        .await;
    stream.chunk().await.unwrap();
    drop(stream);
    until("the upstream is told", || async {
        (!peer.calls("notifications/cancelled").is_empty()).then_some(())
    })
    .await;
    until("it is on record", || async {
        audit(&world, 0)
            .iter()
            .any(|r| r["reason"] == "abandoned")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_leaves_for_an_upstream_without_a_lease() {
    let (world, peer, token) = demo(&["echo"]).await;
    world.clock.forward(LEASE_MS);
    assert_eq!(
        world
            .post(0, "demo", &token, &call(1, "peer__echo"))
            .await
            .status
            .as_u16(),
        503
    );
    assert!(peer.calls("tools/call").is_empty());
}

#[tokio::test]
async fn a_call_that_is_cut_without_a_lease_is_not_called_repeatable() {
    let (world, peer, token) = demo(&["hang"]).await;
    let message = call(1, "peer__hang");
    let hanging = world.post(0, "demo", &token, &message);
    let cut = async {
        until("the call is at the upstream", || async {
            (peer.calls("tools/call").len() == 1).then_some(())
        })
        .await;
        world.clock.forward(LEASE_MS);
        world.revoke(&token);
    };
    let (answer, ()) = tokio::join!(hanging, cut);
    assert_eq!(answer.status.as_u16(), 200, "503 says: try again. {answer:?}");
    let error = &answer.json()["error"];
    assert_eq!(
        (error["code"].as_i64(), error["data"]["effect"].as_str()),
        (Some(-32010), Some("possible"))
    );
}

#[tokio::test]
async fn forty_clients_of_one_child_process_get_their_own_answers() {
    let world = World::new().await;
    let stdio = world.stdio("peer", "legacy");
    world.project("demo", &[stdio], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "progress").await;
    let calls = (0..40).map(|round| {
        let (world, token) = (&world, &token);
        async move {
            let message = request(
                1,
                "tools/call",
                json!({"name": "progress", "_meta": {"progressToken": round}}),
            );
            let messages = world.post(0, "demo", token, &message).await.messages();
            assert_eq!(messages.len(), 21);
            for (step, message) in messages[..20].iter().enumerate() {
                assert_eq!(message["params"], json!({"progressToken": round, "progress": step}));
            }
        }
    });
    futures_util::future::join_all(calls).await;
}
