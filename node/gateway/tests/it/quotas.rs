//! How much a token, a project and an upstream may take, and that nobody else pays for it.

use std::time::Duration;

use http::{Method, StatusCode};
use mcp_gateway::limits::Limits;
use mcp_model::command::Command;
use mcp_model::limits::{ProjectLimits, Quota, ServerLimits};
use mcp_model::names::Name;
use mcp_model::records::{ServerSpec, ToolNaming, Transport};
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::world::{Answer, Token, World, call, request, spec, until};

const RUN: &str = "role:run,resource:servers";

fn limits() -> Limits {
    Limits {
        audit_sync_ms: 20,
        debounce_ms: 0,
        sweep_ms: 20,
        ..Limits::default()
    }
}

async fn world_with(tools: &[&str], written: ProjectLimits) -> (World, std::sync::Arc<Peer>, Token, Token) {
    let world = World::with(limits()).await;
    let (peer, url) = Peer::start(false, tools).await;
    let transport = Transport::Http {
        url,
        headers: Default::default(),
    };
    let server = world.server_with(
        "peer",
        ServerSpec {
            response_ms: 600_000,
            ..spec(transport)
        },
    );
    world.project("demo", &[server], ToolNaming::Plain);
    let project = world.nodes[0].replica.view().policy();
    let spec = project.project_named("demo").unwrap().spec.clone();
    let tokens = [world.token("demo", &[RUN]), world.token("demo", &[RUN])];
    world.listed(0, "demo", &tokens[0], tools[0]).await;
    // From here on, so that waiting for the list does not count.
    world.admin(Command::UpdateLimitedProject {
        name: Name::parse("demo").unwrap(),
        spec,
        limits: written,
        if_version: None,
    });
    world.pass(10_000);
    let [one, other] = tokens;
    (world, peer, one, other)
}

fn ping() -> Value {
    request(1, "ping", json!({}))
}

fn retry_after(answer: &Answer) -> u64 {
    answer.headers["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_token_beyond_its_rate_is_told_to_wait_and_another_one_is_not() {
    let quota = Quota {
        rate: Some(3),
        ..Quota::default()
    };
    let (world, _, token, other) = world_with(
        &["a"],
        ProjectLimits {
            token: quota,
            ..ProjectLimits::default()
        },
    )
    .await;
    for _ in 0..3 {
        assert_eq!(world.post(0, "demo", &token, &ping()).await.status, 200);
    }
    for _ in 0..5 {
        let refused = world.post(0, "demo", &token, &ping()).await;
        assert_eq!(
            (refused.status.as_u16(), retry_after(&refused)),
            (429, 1),
            "{refused:?}"
        );
        assert_eq!(
            refused.json()["error"]["data"]["quota"],
            "requests per second of the token"
        );
    }
    assert_eq!(world.post(0, "demo", &other, &ping()).await.status, 200);
    until("one of the refusals is on record", || async {
        let audited = world.audited(0, "requests per second of the token").len();
        assert!(audited <= 1, "a flood of them is not");
        (audited == 1).then_some(())
    })
    .await;
    world.pass(1_000);
    assert_eq!(world.post(0, "demo", &token, &ping()).await.status, 200);
}

#[tokio::test]
async fn a_project_beyond_its_requests_at_once_waits_for_its_own() {
    let written = ProjectLimits {
        project: Quota {
            requests: Some(2),
            ..Quota::default()
        },
        ..ProjectLimits::default()
    };
    let (world, peer, token, other) = world_with(&["hang", "a"], written).await;
    let (hang, a) = (call(1, "hang"), call(2, "a"));
    let hanging = async {
        tokio::join!(
            world.post(0, "demo", &token, &hang),
            world.post(0, "demo", &other, &hang)
        )
    };
    let meanwhile = async {
        until("both hang", || async {
            (peer.calls("tools/call").len() == 2).then_some(())
        })
        .await;
        let refused = world.post(0, "demo", &token, &a).await;
        assert_eq!(refused.status, 429, "{refused:?}");
        assert_eq!(
            refused.json()["error"]["data"]["quota"],
            "requests at once of the project"
        );
        world.revoke(&other);
        until("a place is free", || async {
            (world.post(0, "demo", &token, &a).await.status == 200).then_some(())
        })
        .await;
        world.revoke(&token);
    };
    tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(hanging, meanwhile) })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_body_beyond_what_the_project_allows_is_413() {
    let written = ProjectLimits {
        body_bytes: Some(2_000),
        ..ProjectLimits::default()
    };
    let (world, _, token, _) = world_with(&["a"], written).await;
    let body = |bytes: usize| {
        request(
            1,
            "tools/call",
            json!({"name": "a", "arguments": {"x": "y".repeat(bytes)}}),
        )
    };
    assert_eq!(world.post(0, "demo", &token, &body(1_000)).await.status, 200);
    for bytes in [2_000, 100_000] {
        let refused = world.post(0, "demo", &token, &body(bytes)).await;
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(refused.body.contains("2000 bytes"), "{refused:?}");
        assert_eq!(refused.json()["id"], 1);
    }
}

async fn initialize(world: &World, node: usize, token: &Token) -> (StatusCode, String) {
    let message = request(
        1,
        "initialize",
        json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}),
    );
    let answer = world.post(node, "demo", token, &message).await;
    let id = answer
        .headers
        .get("mcp-session-id")
        .map(|id| id.to_str().unwrap().to_owned());
    (answer.status, id.unwrap_or_default())
}

async fn in_session(world: &World, node: usize, token: &Token, session: &str) -> StatusCode {
    let headers = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
    world
        .post_with(node, "demo", token, &headers, ping().to_string())
        .await
        .status
}

#[tokio::test]
async fn streams_and_sessions_have_a_number() {
    let quota = Quota {
        streams: Some(1),
        sessions: Some(2),
        ..Quota::default()
    };
    let written = ProjectLimits {
        token: quota,
        session_idle_ms: Some(60_000),
        ..ProjectLimits::default()
    };
    let (world, _, token, other) = world_with(&["a"], written).await;
    let (_, session) = initialize(&world, 0, &token).await;
    assert_eq!(initialize(&world, 0, &token).await.0, 200);
    assert_eq!(initialize(&world, 0, &token).await.0, 429);
    assert_eq!(initialize(&world, 0, &other).await.0, 200);
    let url = format!("{}/projects/demo/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [
        ("authorization", bearer.as_str()),
        ("accept", "text/event-stream"),
        ("mcp-session-id", session.as_str()),
    ];
    let first = world.send(Method::GET, &url, &headers, "").await;
    assert_eq!(first.status, 200);
    let second = world.send(Method::GET, &url, &headers, "").await.whole().await;
    assert_eq!((second.status.as_u16(), retry_after(&second)), (429, 30));
    // A session that is ended makes room for another, and so does a stream.
    assert_eq!(world.send(Method::DELETE, &url, &headers, "").await.status, 204);
    assert_eq!(initialize(&world, 0, &token).await.0, 200);
    drop(first);
}

#[tokio::test]
async fn ten_thousand_abandoned_sessions_leave_nothing_and_one_in_use_stays() {
    let written = ProjectLimits {
        session_idle_ms: Some(60_000),
        ..ProjectLimits::default()
    };
    let (world, _, token, other) = world_with(&["a"], written).await;
    let world = &world;
    let (_, used) = initialize(world, 0, &other).await;
    let (_, abandoned) = initialize(world, 0, &token).await;
    let opened = futures_util::StreamExt::buffer_unordered(
        futures_util::stream::iter((1..9_990).map(|_| async { initialize(world, 0, &token).await.0 })),
        64,
    );
    let refused = futures_util::StreamExt::filter(opened, |status| std::future::ready(*status != 200));
    let refused: Vec<StatusCode> = futures_util::StreamExt::collect(refused).await;
    assert_eq!(refused, Vec::<StatusCode>::new());
    assert_eq!(world.nodes[0].gateway.sessions(), 9_991);
    world.pass(40_000);
    assert_eq!(in_session(world, 0, &other, &used).await, 200);
    world.pass(40_000);
    until("they are let go", || async {
        (world.nodes[0].gateway.sessions() == 1).then_some(())
    })
    .await;
    assert_eq!(in_session(world, 0, &other, &used).await, 200);
    // The session that nobody used is over on every node, although its id is as good as ever.
    assert_eq!(in_session(world, 0, &token, &abandoned).await, 404);
    assert_eq!(in_session(world, 1, &token, &abandoned).await, 404);
    // The one in use is taken over by the other node, which has not seen it yet.
    assert_eq!(
        in_session(world, 1, &other, &used).await,
        404,
        "nobody has told this node of it yet"
    );
    let (_, fresh) = initialize(world, 0, &token).await;
    assert_eq!(in_session(world, 1, &token, &fresh).await, 200);
}

#[tokio::test]
async fn a_session_whose_token_is_in_use_elsewhere_is_taken_over_however_old_it_is() {
    let written = ProjectLimits {
        session_idle_ms: Some(60_000),
        ..ProjectLimits::default()
    };
    let (world, _, token, _) = world_with(&["a"], written).await;
    let (_, session) = initialize(&world, 0, &token).await;
    world.pass(50_000);
    assert_eq!(in_session(&world, 0, &token, &session).await, 200);
    // What every node tells the others about once a minute.
    let uses = vec![(token.id, 1_800_000_000_000 + 1_060_000)];
    world
        .log
        .commit(mcp_model::command::Actor::System, Command::RecordTokenUse { uses });
    world.pass(50_000);
    assert_eq!(in_session(&world, 1, &token, &session).await, 200);
}

#[tokio::test]
async fn a_server_that_answers_nobody_is_left_in_peace_and_the_others_do_not_notice() {
    let world = World::with(limits()).await;
    let (_, url) = Peer::start(false, &["a"]).await;
    let good = world.http("good", &url);
    let dead = world.http("dead", "http://127.0.0.1:1/mcp");
    world.project("demo", &[good, dead], ToolNaming::Prefixed);
    let token = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "good__a").await;
    // It once had a tool.
    let lists = world.nodes[0].replica.view().lists();
    let mut list = lists[&good].list.clone();
    list.server = dead;
    world
        .log
        .commit(mcp_model::command::Actor::System, Command::PublishTools { list });
    world.listed(0, "demo", &token, "dead__a").await;
    let dead_call = call(1, "dead__a");
    for _ in 0..5 {
        let failed = world.post(0, "demo", &token, &dead_call).await;
        assert!(failed.body.contains("cannot connect"), "{failed:?}");
    }
    let resting = world.post(0, "demo", &token, &dead_call).await;
    assert_eq!(resting.code(), -32010);
    let data = &resting.json()["error"]["data"];
    assert_eq!((&data["server"], &data["effect"]), (&json!("dead"), &json!("none")));
    assert!(resting.body.contains("failed 5 times in a row"), "{resting:?}");
    let fine = world.post(0, "demo", &token, &call(2, "good__a")).await;
    assert_eq!(fine.text(), "a");
    // After a pause it is tried again.
    world.pass(1_000);
    let tried = world.post(0, "demo", &token, &dead_call).await;
    assert!(tried.body.contains("cannot connect"), "{tried:?}");
    let resting = world.post(0, "demo", &token, &dead_call).await;
    assert!(resting.body.contains("left in peace"), "{resting:?}");
}

#[tokio::test]
async fn a_server_has_places_and_a_queue_of_its_own() {
    let world = World::with(Limits {
        upstream_wait_ms: 100,
        ..limits()
    })
    .await;
    let (peer, url) = Peer::start(false, &["hang", "a"]).await;
    let slow = Name::parse("slow").unwrap();
    let id = world.http("slow", &url);
    let http = |url: &str| Transport::Http {
        url: url.to_owned(),
        headers: Default::default(),
    };
    world.admin(Command::UpdateLimitedServer {
        name: slow,
        spec: spec(http(&url)),
        limits: ServerLimits {
            calls: Some(2),
            queue: Some(0),
            first_byte_ms: Some(3_600_000),
            ..ServerLimits::default()
        },
        if_version: None,
    });
    let (_, url) = Peer::start(false, &["b"]).await;
    let other = world.http("other", &url);
    world.project("demo", &[id, other], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    let hanging = world.token("demo", &[RUN]);
    world.listed(0, "demo", &token, "hang").await;
    world.listed(0, "demo", &token, "b").await;
    let hang = call(1, "hang");
    let both = async {
        tokio::join!(
            world.post(0, "demo", &hanging, &hang),
            world.post(0, "demo", &hanging, &hang)
        )
    };
    let meanwhile = async {
        until("both hang", || async {
            (peer.calls("tools/call").len() == 2).then_some(())
        })
        .await;
        let busy = world.post(0, "demo", &token, &call(2, "a")).await;
        assert_eq!(busy.code(), -32010, "{busy:?}");
        assert!(busy.body.contains("busy: 2 calls are under way and 0 wait"), "{busy:?}");
        assert_eq!(world.post(0, "demo", &token, &call(3, "b")).await.text(), "b");
        world.revoke(&hanging);
        until("a place is free", || async {
            (world.post(0, "demo", &token, &call(4, "a")).await.code() == 0).then_some(())
        })
        .await;
    };
    tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(both, meanwhile) })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_may_have_several_sessions_which_calls_take_in_turn() {
    let world = World::with(limits()).await;
    let (peer, url) = Peer::start(false, &["a"]).await;
    let id = world.http("many", &url);
    let transport = Transport::Http {
        url: url.clone(),
        headers: Default::default(),
    };
    world.admin(Command::UpdateLimitedServer {
        name: Name::parse("many").unwrap(),
        spec: spec(transport),
        limits: ServerLimits {
            sessions: Some(3),
            ..ServerLimits::default()
        },
        if_version: None,
    });
    world.project("demo", &[id], ToolNaming::Plain);
    let token = world.token("demo", &[RUN]);
    world.listed(1, "demo", &token, "a").await;
    let before = peer.calls("initialize").len();
    for at in 0..6 {
        assert_eq!(world.post(1, "demo", &token, &call(at, "a")).await.text(), "a");
    }
    assert_eq!(peer.calls("initialize").len() - before, 3);
}
