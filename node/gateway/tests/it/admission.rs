//! Who is let in, and what everybody else is told.

use http::Method;
use mcp_model::command::{Actor, Command};
use mcp_model::ids::Id;
use mcp_model::names::{Email, Name};
use mcp_model::records::ToolNaming;
use serde_json::json;

use crate::world::{LEASE_MS, World, request};

async fn status(world: &World, node: usize, project: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let url = format!("{}/projects/{project}/mcp", world.nodes[node].base);
    let ping = request(1, "ping", json!({})).to_string();
    let answer = world.send(Method::POST, &url, headers, ping).await.whole().await;
    let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let hint = header("www-authenticate").or(header("retry-after")).unwrap_or_default();
    (answer.status.as_u16(), hint)
}

#[tokio::test]
async fn only_a_tokens_bearer_is_taken() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let good = format!("Bearer {}", token.bearer);
    let session = good.replace("mcpctl_pat_", "mcpctl_ses_");
    assert_eq!(
        status(&world, 0, "demo", &[("authorization", &good)]).await,
        (200, String::new())
    );
    for headers in [
        vec![],
        vec![("authorization", session.as_str())],
        vec![("authorization", "Basic eDp5")],
        vec![("authorization", good.as_str()), ("authorization", good.as_str())],
    ] {
        assert_eq!(
            status(&world, 0, "demo", &headers).await,
            (401, "Bearer".into()),
            "{headers:?}"
        );
    }
    assert_eq!(
        world.nodes[0]
            .cluster
            .freshened
            .load(std::sync::atomic::Ordering::SeqCst),
        0,
        "no look-up for a shape"
    );
    let unknown = format!("Bearer mcpctl_pat_{}", "0".repeat(43));
    assert_eq!(status(&world, 0, "demo", &[("authorization", &unknown)]).await.0, 401);
    assert_eq!(
        world.nodes[0]
            .cluster
            .freshened
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn any_other_project_is_forbidden_whether_it_exists_or_not() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    world.project("other", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let ping = request(1, "ping", json!({}));
    let exists = world.post(0, "other", &token, &ping).await;
    let missing = world.post(0, "nothing", &token, &ping).await;
    assert_eq!((exists.status.as_u16(), &exists.body), (403, &missing.body));
    assert_eq!(missing.status.as_u16(), 403);
    let url = format!("{}/mcp", world.nodes[0].base);
    let bearer = format!("Bearer {}", token.bearer);
    let own = world
        .send(Method::POST, &url, &[("authorization", &bearer)], ping.to_string())
        .await;
    assert_eq!(own.status.as_u16(), 200);
    assert_eq!(world.post(0, "Demo", &token, &ping).await.status.as_u16(), 404);
    let server = world
        .send(
            Method::POST,
            &url.replace("/mcp", "/projects/demo/servers/git/mcp"),
            &[("authorization", &bearer)],
            ping.to_string(),
        )
        .await;
    assert_eq!(server.status.as_u16(), 404);
}

/// The last administrator cannot be disabled: makes another one.
fn second_administrator(world: &World) -> Id {
    let (id, rbac) = (Id::from_u128(77), Id::from_u128(78));
    world.admin(Command::CreateUser {
        id,
        email: Email::parse("second@example.com").unwrap(),
        name: String::new(),
        password_hash: Some("never".to_owned()),
    });
    world.admin(Command::WriteRbac {
        id: rbac,
        name: Name::parse("second").unwrap(),
        subjects: vec!["User:second@example.com".parse().unwrap()],
        role_bindings: vec!["role:admin,resource:*".parse().unwrap(), "action:*".parse().unwrap()],
        if_version: None,
    });
    id
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_a_disabled_owner_too() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let (one, two) = (world.token("demo", &[]), world.token("demo", &[]));
    let ping = request(1, "ping", json!({}));
    world.revoke(&one);
    for node in 0..2 {
        assert_eq!(world.post(node, "demo", &one, &ping).await.status.as_u16(), 401);
        assert_eq!(world.post(node, "demo", &two, &ping).await.status.as_u16(), 200);
    }
    second_administrator(&world);
    let admin = Email::parse("admin@example.com").unwrap();
    world.admin(Command::SetUserDisabled {
        email: admin,
        disabled: true,
    });
    assert_eq!(world.post(0, "demo", &two, &ping).await.status.as_u16(), 401);
}

#[tokio::test]
async fn a_token_minted_elsewhere_works_at_once_and_without_a_leader_nothing_is_said_of_it() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    world.log.hold(1);
    let token = world.token("demo", &[]);
    let ping = request(1, "ping", json!({}));
    let cluster = &world.nodes[1].cluster;
    cluster.leaderless.store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = world.post(1, "demo", &token, &ping).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["retry-after"].to_str().unwrap()),
        (503, "1")
    );
    cluster.leaderless.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.post(1, "demo", &token, &ping).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_token_whose_owner_was_enabled_elsewhere_a_moment_ago_is_not_called_invalid() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let ping = request(1, "ping", json!({}));
    let second = second_administrator(&world);
    let set = |disabled| {
        let email = Email::parse("admin@example.com").unwrap();
        world
            .log
            .commit(Actor::User(second), Command::SetUserDisabled { email, disabled })
    };
    set(true);
    assert_eq!(world.post(1, "demo", &token, &ping).await.status.as_u16(), 401);
    world.log.hold(1);
    set(false);
    assert_eq!(world.post(1, "demo", &token, &ping).await.status.as_u16(), 200);
}

#[tokio::test]
async fn without_a_lease_everybody_gets_503_and_nobody_401() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let good = format!("Bearer {}", token.bearer);
    let unknown = format!("Bearer mcpctl_pat_{}", "0".repeat(43));
    world.clock.forward(LEASE_MS);
    for bearer in [&good, &unknown] {
        assert_eq!(
            status(&world, 0, "demo", &[("authorization", bearer)]).await,
            (503, "1".into())
        );
    }
    let ready = world
        .send(Method::GET, &format!("{}/readyz", world.nodes[0].base), &[], "")
        .await;
    assert_eq!(ready.status.as_u16(), 503);
    world.lease(&world.nodes[0]);
    assert_eq!(status(&world, 0, "demo", &[("authorization", &good)]).await.0, 200);
    let ready = world
        .send(Method::GET, &format!("{}/readyz", world.nodes[0].base), &[], "")
        .await;
    assert_eq!(ready.status.as_u16(), 200);
}

#[tokio::test]
async fn a_paused_replica_that_missed_a_revoke_refuses_when_it_wakes() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    world.log.hold(1);
    world.revoke(&token);
    world.clock.forward(LEASE_MS);
    let answer = world.post(1, "demo", &token, &request(1, "ping", json!({}))).await;
    assert_eq!(answer.status.as_u16(), 503);
    // Nobody has looked into the request, and an id is never null.
    assert!(!answer.json().as_object().unwrap().contains_key("id"), "{answer:?}");
}

#[tokio::test]
async fn hosts_origins_and_paths_are_checked_before_anything_else() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let bearer = format!("Bearer {}", token.bearer);
    let auth = ("authorization", bearer.as_str());
    let rows: [(&[(&str, &str)], u16); 6] = [
        (&[auth, ("host", "evil.example")], 403),
        (&[auth, ("host", "localhost")], 200),
        (&[auth, ("origin", "https://evil.example")], 403),
        (&[auth, ("origin", "https://trusted.example")], 200),
        (&[auth, ("host", "localhost:1"), ("origin", "http://localhost:1")], 200),
        (&[("origin", "null"), auth], 403),
    ];
    for (headers, expected) in rows {
        assert_eq!(status(&world, 0, "demo", headers).await.0, expected, "{headers:?}");
    }
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server",
        "/projects/%2e%2e/mcp",
    ] {
        let answer = world
            .send(Method::GET, &format!("{}{path}", world.nodes[0].base), &[], "")
            .await;
        assert_eq!(answer.status.as_u16(), 404, "{path}");
    }
    for path in ["/healthz", "/livez"] {
        let answer = world
            .send(Method::GET, &format!("{}{path}", world.nodes[0].base), &[], "")
            .await;
        assert_eq!(answer.status.as_u16(), 200, "{path}");
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_with_their_codes() {
    let world = World::new().await;
    world.project("demo", &[], ToolNaming::Plain);
    let token = world.token("demo", &[]);
    let rows: [(&[u8], u16, i64); 6] = [
        (b"{", 400, -32700),
        (b"\xff", 400, -32700),
        (b"[]", 400, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, 400, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":"nonsense"}"#, 200, -32601),
        (
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#,
            200,
            -32602,
        ),
    ];
    for (body, status, code) in rows {
        let answer = world.post_with(0, "demo", &token, &[], body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{answer:?}");
    }
    let large = world.post_with(0, "demo", &token, &[], vec![b' '; (4 << 20) + 1]).await;
    assert_eq!(large.status.as_u16(), 413);
    let notification = world
        .post_with(
            0,
            "demo",
            &token,
            &[],
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        )
        .await;
    assert_eq!((notification.status.as_u16(), notification.body.as_str()), (202, ""));
}
