//! Servers with a child per session, sessions that come to another node than the one that holds it, and servers that one node reaches.

use std::sync::atomic::Ordering;

use http::{Method, StatusCode};
use mcp_gateway::limits::Limits;
use mcp_model::ids::Id;
use mcp_model::records::{ServerSpec, ToolNaming, Transport};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::world::{Answer, LEASE_MS, Token, World, call, request, spec, until};

const RUN: &str = "role:run,resource:servers";

fn stateful() -> ServerSpec {
    ServerSpec {
        stateful: true,
        // What hangs does not end by itself.
        response_ms: 600_000,
        ..spec(Transport::Stdio {
            command: env!("CARGO_BIN_EXE_gateway-test-peer").into(),
            args: vec!["counter".to_owned()],
            env: Default::default(),
            cwd: None,
        })
    }
}

/// Two nodes, a server that keeps state, and a token for it.
async fn world(limits: Limits) -> (World, Id, Token) {
    let limits = Limits {
        audit_sync_ms: 20,
        ..limits
    };
    let world = World::with(limits).await;
    let server = world.server_with("keeps", stateful());
    world.project("demo", &[server], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    for node in [0, 1] {
        world.listed(node, "demo", &token, "count").await;
    }
    (world, server, token)
}

impl World {
    /// Opens a session at a node.
    async fn opened(&self, node: usize, token: &Token) -> String {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t"}});
        let answer = self.post(node, "demo", token, &request(0, "initialize", params)).await;
        answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
    }

    /// Calls `count` in a session: the process, and how far it has counted.
    async fn count(&self, node: usize, token: &Token, session: &str) -> (i32, u64) {
        let answer = self
            .in_session(node, token, session, &call(1, "count"))
            .await
            .whole()
            .await;
        counted(&answer).unwrap_or_else(|| panic!("{} {}", answer.status, answer.body))
    }
}

fn counted(answer: &Answer) -> Option<(i32, u64)> {
    let text = answer.json()["result"]["content"][0]["text"].as_str()?.to_owned();
    let (pid, count) = text.split_once(' ')?;
    Some((pid.parse().unwrap(), count.parse().unwrap()))
}

async fn gone(pid: i32) {
    until("the process has ended", || async {
        kill(Pid::from_raw(pid), None).is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_session_has_a_child_that_every_node_reaches_and_that_ends_with_it() {
    let (world, _, token) = world(Limits::default()).await;
    let (one, other) = (world.opened(0, &token).await, world.opened(1, &token).await);
    let (first, second) = (world.count(1, &token, &one).await, world.count(0, &token, &other).await);
    assert_ne!(first.0, second.0);
    assert_eq!((first.1, second.1), (1, 1));
    for (count, node) in [(2, 0), (3, 1), (4, 0), (5, 1)] {
        assert_eq!(world.count(node, &token, &one).await, (first.0, count));
    }
    // Whoever ends the session on one node ends its child on the other.
    let url = format!("{}/projects/demo/mcp", world.nodes[1].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [("authorization", bearer.as_str()), ("mcp-session-id", one.as_str())];
    let ended = world.send(Method::DELETE, &url, &headers, "").await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    gone(first.0).await;
    let answer = world.in_session(1, &token, &one, &call(1, "count")).await.whole().await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, -32001));
    assert_eq!(world.count(1, &token, &other).await, (second.0, 2));
    // The call is on record where it was carried out, with its start and its end.
    let forwarded = world.nodes[1].gateway.metrics().relayed.load(Ordering::Relaxed);
    assert!(forwarded >= 3, "{forwarded}");
}

#[tokio::test]
async fn a_forwarded_call_streams_in_order_and_is_cancelled_from_any_node() {
    let (world, _, token) = world(Limits::default()).await;
    let session = world.opened(0, &token).await;
    let params = json!({"name": "progress", "arguments": {}, "_meta": {"progressToken": "p"}});
    let answer = world
        .in_session(1, &token, &session, &request(9, "tools/call", params))
        .await
        .whole()
        .await;
    let messages = answer.messages();
    let progress: Vec<&Value> = messages
        .iter()
        .filter(|m| m["method"] == "notifications/progress")
        .collect();
    assert_eq!(progress.len(), 20, "{}", answer.body);
    for (step, message) in progress.iter().enumerate() {
        assert_eq!(message["params"], json!({"progressToken": "p", "progress": step}));
    }
    assert_eq!(messages.last().unwrap()["id"], 9);
    // Given up on the node that does not hold it.
    let hang = call(10, "hang");
    let hanging = world.in_session(1, &token, &session, &hang);
    let cancelled = async {
        until("the other node has it", || async {
            let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 10}});
            world.in_session(1, &token, &session, &note).await.whole().await;
            (world.nodes[0].gateway.metrics().calls_cancelled.load(Ordering::Relaxed) > 0).then_some(())
        })
        .await;
    };
    let (hanging, ()) = tokio::join!(hanging, cancelled);
    assert!(hanging.whole().await.body.is_empty());
    // So is one whose client goes away.
    let open = || world.nodes[0].gateway.open_requests();
    until("the first one is over", || async { (open() == 0).then_some(()) }).await;
    let hang = call(11, "hang");
    tokio::select! {
        _ = world.in_session(1, &token, &session, &hang) => panic!("it hangs"),
        () = until("the other node has it", || async { (open() > 0).then_some(()) }) => {}
    }
    until("it is given up there", || async { (open() == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_revoke_cuts_a_forwarded_call_and_ends_the_child_and_nobody_else_s() {
    let (world, _, token) = world(Limits::default()).await;
    let other = world.token("demo", &[RUN]);
    let (mine, theirs) = (world.opened(0, &token).await, world.opened(0, &other).await);
    let (pid, _) = world.count(1, &token, &mine).await;
    let (spared, _) = world.count(1, &other, &theirs).await;
    let hang = call(2, "hang");
    let hanging = world.in_session(1, &token, &mine, &hang);
    let revoked = async {
        until("it hangs", || async {
            let open = world.nodes[0].gateway.open_requests();
            (open > 0).then_some(())
        })
        .await;
        world.revoke(&token);
    };
    let (hanging, ()) = tokio::join!(hanging, revoked);
    assert!(!hanging.whole().await.body.contains("\"result\""));
    gone(pid).await;
    let answer = world.in_session(1, &token, &mine, &call(3, "count")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.count(1, &other, &theirs).await, (spared, 2));
}

#[tokio::test]
async fn a_holder_without_a_lease_refuses_what_is_forwarded_to_it() {
    let (world, _, token) = world(Limits::default()).await;
    let session = world.opened(0, &token).await;
    let (pid, _) = world.count(1, &token, &session).await;
    world.clock.forward(LEASE_MS + 1);
    world.lease(&world.nodes[1]);
    let answer = world.in_session(1, &token, &session, &call(2, "count")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    world.lease(&world.nodes[0]);
    assert_eq!(world.count(1, &token, &session).await, (pid, 2));
    // A token that the holder knows to be revoked, and the node that was asked does not yet.
    world.log.hold(1);
    world.revoke(&token);
    let answer = world.in_session(1, &token, &session, &call(3, "count")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_whose_holder_is_gone_is_no_more_and_another_can_be_opened() {
    let (world, _, token) = world(Limits::default()).await;
    let session = world.opened(0, &token).await;
    world.count(1, &token, &session).await;
    world.nodes[1].cluster.alone.store(true, Ordering::SeqCst);
    let answer = world
        .in_session(1, &token, &session, &call(2, "count"))
        .await
        .whole()
        .await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, -32001));
    let again = world.opened(1, &token).await;
    assert_eq!(world.count(1, &token, &again).await.1, 1);
}

#[tokio::test]
async fn what_belongs_to_no_session_has_no_child_and_there_are_so_many_and_no_more() {
    let limits = Limits {
        session_children_max: 1,
        ..Limits::default()
    };
    let (world, _, token) = world(limits).await;
    let answer = world.post(0, "demo", &token, &call(1, "count")).await.json();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("keeps state for each session"), "{message}");
    let (one, other) = (world.opened(0, &token).await, world.opened(0, &token).await);
    world.count(0, &token, &one).await;
    let refused = world
        .in_session(1, &token, &other, &call(1, "count"))
        .await
        .whole()
        .await;
    assert_eq!(refused.code(), -32010);
    assert!(refused.body.contains("1 sessions have a process"), "{}", refused.body);
    assert_eq!(refused.json()["error"]["data"]["effect"], "none");
}

#[tokio::test]
async fn a_child_that_has_ended_is_not_followed_by_another_before_that_was_said() {
    let limits = Limits {
        session_child_idle_ms: 200,
        ..Limits::default()
    };
    let (world, server, token) = world(limits).await;
    let session = world.opened(0, &token).await;
    let (pid, _) = world.count(1, &token, &session).await;
    gone(pid).await;
    let said = world
        .in_session(1, &token, &session, &call(2, "count"))
        .await
        .whole()
        .await;
    assert_eq!(said.code(), -32010, "{}", said.body);
    assert!(said.body.contains("what it remembered is gone"), "{}", said.body);
    let (next, count) = world.count(1, &token, &session).await;
    assert!(next != pid && count == 1);
    // What its children say is told apart by session.
    let wanted = mcp_gateway::LogsWanted {
        tail: 100,
        since_ms: 0,
        node: None,
        after: Vec::new(),
    };
    let logs = world.nodes[1].gateway.server_logs(server, &wanted).await;
    let lines = logs.into_iter().flat_map(|node| node.lines.unwrap().0);
    let of_sessions: Vec<String> = lines
        .filter(|line| line.session.is_some())
        .map(|line| line.text)
        .collect();
    assert!(of_sessions.contains(&format!("pid {pid}")), "{of_sessions:?}");
}

/// The first node cannot start children at all.
fn only_the_second(at: usize) -> Vec<String> {
    match at {
        0 => vec!["/nonexistent/starter".to_owned()],
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_server_that_one_node_alone_reaches_is_called_through_all() {
    let limits = Limits {
        audit_sync_ms: 20,
        ..Limits::default()
    };
    let world = World::apart(limits, only_the_second).await;
    let server = world.stdio("far", "legacy");
    world.project("demo", &[server], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    until("it is listed", || async {
        world.pass(1_000);
        let answer = world
            .post(0, "demo", &token, &request(1, "tools/list", json!({})))
            .await;
        crate::world::names(&answer.json())
            .contains(&"echo".to_owned())
            .then_some(())
    })
    .await;
    for round in 0..8 {
        let answer = world.post(0, "demo", &token, &call(round, "echo")).await.json();
        assert!(answer["result"].is_object(), "round {round}: {answer}");
    }
    until("it is on record", || async {
        (!world.audited(0, "forwarded").is_empty()).then_some(())
    })
    .await;
    // With the other one out of reach, the fault is that of this node.
    world.nodes[0].cluster.alone.store(true, Ordering::SeqCst);
    let answer = world.post(0, "demo", &token, &call(9, "echo")).await;
    assert_eq!(answer.code(), -32010, "{}", answer.body);
}
