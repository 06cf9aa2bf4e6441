//! Who asks a server for the whole cluster, and what the others hear of it.

use std::sync::atomic::Ordering;

use mcp_gateway::limits::Limits;
use mcp_model::ids::NodeId;
use mcp_model::records::{Health, ToolNaming};
use mcp_wire::upstream::State;
use serde_json::json;

use crate::peer::Peer;
use crate::world::{World, names, request, until};

const RUN: &str = "role:run,resource:servers";

fn health(world: &World, node: usize, server: mcp_model::ids::Id) -> Option<(bool, NodeId)> {
    let lists = world.nodes[node].replica.view().lists();
    let known = lists.get(&server)?;
    Some((known.list.health == Health::Healthy, known.watch.as_ref()?.node))
}

/// The first node cannot start children at all.
fn only_the_second(at: usize) -> Vec<String> {
    match at {
        0 => vec!["/nonexistent/starter".to_owned()],
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_server_that_only_one_node_can_reach_is_listed_by_all_and_stale_when_that_node_is_gone() {
    let limits = Limits {
        audit_sync_ms: 20,
        ..Limits::default()
    };
    let world = World::apart(limits, only_the_second).await;
    let server = world.stdio("far", "echo");
    world.project("demo", &[server], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    until("the second node has an answer", || async {
        world.pass(1_000);
        (health(&world, 0, server) == Some((true, NodeId(2)))).then_some(())
    })
    .await;
    for node in [0, 1] {
        let list = world
            .post(node, "demo", &token, &request(1, "tools/list", json!({})))
            .await;
        assert!(!names(&list.json()).is_empty(), "node {node}");
    }
    assert!(world.audited(0, "stale").is_empty());
    // It goes on asking; the other one, which leads, does not.
    let probes = |node: usize| world.nodes[node].gateway.metrics().probes.load(Ordering::Relaxed);
    let before = [probes(0), probes(1)];
    until("it is asked again by the same node", || async {
        world.pass(60_000);
        (probes(1) > before[1]).then_some(())
    })
    .await;
    assert_eq!(probes(0), before[0], "one node asks for the whole cluster");
    // The node that reaches it is gone: what it saw last is served, and said to be old.
    world.nodes[1].stop.cancel();
    world.nodes[0].cluster.gone.lock().unwrap().push(NodeId(2));
    until("nobody reaches it", || async {
        world.pass(1_000);
        (health(&world, 0, server)?.0).eq(&false).then_some(())
    })
    .await;
    let list = world
        .post(0, "demo", &token, &request(1, "tools/list", json!({})))
        .await;
    assert!(!names(&list.json()).is_empty());
    until("it is audited", || async {
        (!world.audited(0, "stale").is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_gone_is_followed_by_the_one_that_leads() {
    let world = World::new().await;
    let (_, url) = Peer::start(false, &["a"]).await;
    let server = world.http("git", &url);
    until("the first node asks", || async {
        (health(&world, 1, server) == Some((true, NodeId(1)))).then_some(())
    })
    .await;
    world.nodes[0].cluster.prober.store(false, Ordering::SeqCst);
    world.nodes[0].stop.cancel();
    world.nodes[1].cluster.gone.lock().unwrap().push(NodeId(1));
    world.nodes[1].cluster.prober.store(true, Ordering::SeqCst);
    until("the second node asks", || async {
        world.pass(1_000);
        (health(&world, 1, server) == Some((true, NodeId(2)))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_change_notice_on_the_stream_of_a_server_reaches_clients_of_every_node() {
    let world = World::new().await;
    let (peer, url) = Peer::start(false, &["a"]).await;
    let git = world.http("git", &url);
    world.project("demo", &[git], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    world.listed(1, "demo", &token, "a").await;
    until("a node listens", || async {
        (peer.changes.receiver_count() > 0).then_some(())
    })
    .await;
    peer.tools.lock().unwrap().push(json!({"name": "b"}));
    peer.changes.send_modify(|count| *count += 1);
    // No time passes: it is the notice that does it.
    world.listed(0, "demo", &token, "b").await;
    world.listed(1, "demo", &token, "b").await;
}

#[tokio::test]
async fn a_child_that_nobody_uses_is_stopped_is_not_started_for_a_probe_and_asked_when_a_call_has_started_it() {
    let limits = Limits {
        audit_sync_ms: 20,
        child_idle_ms: 100,
        ..Limits::default()
    };
    let world = World::with(limits).await;
    let (peer, url) = Peer::start(false, &["a"]).await;
    let (child, awake) = (world.stdio("child", "legacy"), world.http("awake", &url));
    world.project("demo", &[child, awake], ToolNaming::Prefixed);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "child__echo").await;
    world.listed(0, "demo", &token, "awake__a").await;
    let state = || {
        let states = world.nodes[0].gateway.server_states();
        states.into_iter().find(|state| state.server == child).unwrap()
    };
    let starts = || state().stderr.iter().filter(|line| line.starts_with("pid ")).count();
    let is_stopped = || async { (state().state == State::Idle).then_some(()) };
    until("it is stopped", is_stopped).await;
    // It was asked by the node that leads, and goes on being its; the other server is asked again and again.
    for round in 1..=3 {
        let asked = peer.calls("tools/list").len();
        world.pass(Limits::default().list_ms + 1);
        until("the other one is asked again", || async {
            (peer.calls("tools/list").len() > asked).then_some(())
        })
        .await;
        assert_eq!((state().state, starts()), (State::Idle, 1), "round {round}");
    }
    assert_eq!(health(&world, 1, child), Some((true, NodeId(1))));
    let call = request(1, "tools/call", json!({"name": "child__echo", "arguments": {}}));
    let answer = world.post(0, "demo", &token, &call).await.json();
    assert!(answer["result"].is_object(), "{answer}");
    until("it was started again", || async { (starts() == 2).then_some(()) }).await;
    until("and stopped again, for all that it was asked", is_stopped).await;
}
