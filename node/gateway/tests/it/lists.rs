//! Lists: from the cache, by rights, in a stable order, never waiting.

use std::sync::atomic::Ordering;

use mcp_model::records::ToolNaming;
use serde_json::json;

use crate::peer::Peer;
use crate::world::{World, names, request, until};

const RUN: &str = "role:run,resource:servers";

async fn tools(world: &World, node: usize, project: &str, token: &crate::world::Token) -> Vec<String> {
    names(
        &world
            .post(node, project, token, &request(1, "tools/list", json!({})))
            .await
            .json(),
    )
}

#[tokio::test]
async fn names_are_prefixed_or_plain_and_collisions_told_apart() {
    let world = World::new().await;
    let (_, one) = Peer::start(false, &["b", "a"]).await;
    let (_, two) = Peer::start(false, &["a", "c"]).await;
    let (one, two) = (world.http("one", &one), world.http("two", &two));
    world.project("prefixed", &[one, two], ToolNaming::Prefixed);
    world.project("plain", &[two, one], ToolNaming::Plain);
    let prefixed = world.token("prefixed", &[RUN]);
    let plain = world.token("plain", &[RUN]);
    world.listed(1, "prefixed", &prefixed, "one__a").await;
    world.listed(1, "prefixed", &prefixed, "two__a").await;
    assert_eq!(
        tools(&world, 0, "prefixed", &prefixed).await,
        ["one__b", "one__a", "two__a", "two__c"]
    );
    assert_eq!(tools(&world, 1, "plain", &plain).await, ["two__a", "c", "b", "one__a"]);
    assert_eq!(tools(&world, 1, "plain/servers/two", &plain).await, ["a", "c"]);
    assert_eq!(
        world.nodes[1].gateway.metrics().probes.load(Ordering::Relaxed),
        0,
        "one prober for the cluster"
    );
}

#[tokio::test]
async fn everybody_sees_what_they_may_and_nothing_else() {
    let world = World::new().await;
    let (_, url) = Peer::start(false, &["list_a", "list_b", "push"]).await;
    let git = world.http("git", &url);
    world.project("demo", &[git], ToolNaming::Plain);
    let all = world.token("demo", &[RUN]);
    world.listed(0, "demo", &all, "push").await;
    let rows: [(&[&str], &[&str]); 4] = [
        (&[], &[]),
        (&["role:view,resource:servers"], &["list_a", "list_b", "push"]),
        (&["role:run,resource:tools,name:git/list_*"], &["list_a", "list_b"]),
        (&["role:run,resource:servers,name:other"], &[]),
    ];
    for (bindings, expected) in rows {
        let token = world.token("demo", bindings);
        assert_eq!(tools(&world, 0, "demo", &token).await, expected, "{bindings:?}");
        assert_eq!(
            tools(&world, 0, "demo", &token).await,
            expected,
            "again, from what was kept"
        );
    }
    let prompts = world
        .post(0, "demo", &all, &request(1, "prompts/list", json!({})))
        .await
        .json();
    assert_eq!(prompts["result"]["prompts"][0]["name"], "greet");
    let resources = world
        .post(0, "demo", &all, &request(1, "resources/list", json!({})))
        .await
        .json();
    assert_eq!(resources["result"]["resources"][0]["uri"], "demo://doc");
    let templates = world
        .post(0, "demo", &all, &request(1, "resources/templates/list", json!({})))
        .await
        .json();
    assert_eq!(
        templates["result"]["resourceTemplates"][0]["uriTemplate"],
        "demo://item/{id}"
    );
    let page = world
        .post(0, "demo", &all, &request(1, "tools/list", json!({"cursor":"x"})))
        .await;
    assert_eq!(page.code(), -32602);
}

#[tokio::test]
async fn a_dead_upstream_stalls_nobody_and_a_changed_list_is_replicated_once() {
    let world = World::new().await;
    let (peer, url) = Peer::start(false, &["a"]).await;
    let (good, dead) = (world.http("good", &url), world.http("dead", "http://127.0.0.1:1/mcp"));
    world.project("demo", &[good, dead], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "a").await;
    let published = &world.nodes[0].cluster.published;
    until("both are known", || async {
        (published.load(Ordering::SeqCst) == 2).then_some(())
    })
    .await;
    for _ in 0..3 {
        world.clock.forward(400_000);
        world.nodes.iter().for_each(|node| world.lease(node));
        let probes = world.nodes[0].gateway.metrics().probes.load(Ordering::Relaxed);
        until("both are probed again", || async {
            (world.nodes[0].gateway.metrics().probes.load(Ordering::Relaxed) >= probes + 2).then_some(())
        })
        .await;
    }
    assert_eq!(published.load(Ordering::SeqCst), 2, "nothing changed");
    peer.tools.lock().unwrap().push(json!({"name": "new"}));
    world.clock.forward(400_000);
    world.nodes.iter().for_each(|node| world.lease(node));
    world.listed(1, "demo", &token, "new").await;
    assert_eq!(published.load(Ordering::SeqCst), 3);
}
