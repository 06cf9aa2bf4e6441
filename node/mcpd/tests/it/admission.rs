//! Who is let in, and for how long.

use serde_json::json;

use crate::client::{Client, user};
use crate::node::{ADMIN, Mood, Node, PASSWORD, SESSION_MS};

#[tokio::test]
async fn a_login_opens_a_session_that_ends_with_a_logout() {
    let node = Node::start();
    let anybody = Client::anybody(&node);
    let login = anybody
        .post("auth/login", json!({"email": "Admin@Test.com", "password": PASSWORD}))
        .await
        .is(200);
    assert!(login.text("token").starts_with("mcpctl_ses_"));
    assert_eq!(login.body["user"]["email"], ADMIN);
    assert_eq!(login.header("cache-control"), "no-store");

    let me = anybody.bearer(&login.text("token"));
    let who = me.get("auth/whoami").await.is(200);
    assert_eq!(
        (who.text("kind"), who.body["user"]["email"].as_str()),
        ("user".into(), Some(ADMIN))
    );
    assert_eq!(who.body["roleBindings"][0], json!({"role": "admin", "resource": "*"}));

    let logout = me.post("auth/logout", json!({})).await.is(200);
    assert_eq!(logout.body["receipt"]["effective"], true);
    me.get("auth/whoami").await.refuses(401, "not_authenticated");
}

#[tokio::test]
async fn a_wrong_password_an_unknown_user_and_a_disabled_one_read_the_same() {
    let node = Node::start();
    let admin = Client::admin(&node);
    admin
        .post("users", json!({"email": "off@test.com", "password": PASSWORD}))
        .await
        .is(201);
    admin
        .patch("users/off@test.com", json!({"disabled": true}))
        .await
        .is(200);
    let mut texts = Vec::new();
    for (email, password) in [
        (ADMIN, "wrong"),
        ("who@test.com", PASSWORD),
        ("off@test.com", PASSWORD),
        (ADMIN, ""),
    ] {
        let reply = Client::anybody(&node)
            .post("auth/login", json!({"email": email, "password": password}))
            .await;
        texts.push(reply.refuses(401, "bad_credentials").text("detail"));
    }
    texts.dedup();
    assert_eq!(texts.len(), 1);
}

#[tokio::test]
async fn guessing_a_password_is_slowed_down() {
    let node = Node::start();
    let anybody = Client::anybody(&node);
    for _ in 0..5 {
        anybody
            .post("auth/login", json!({"email": ADMIN, "password": "x"}))
            .await
            .refuses(401, "bad_credentials");
    }
    let good = json!({"email": ADMIN, "password": PASSWORD});
    let slow = anybody
        .post("auth/login", good.clone())
        .await
        .refuses(429, "too_many_requests");
    assert_eq!(slow.header("retry-after"), "1");
    node.clock.pass_ms(1_000);
    anybody.post("auth/login", good).await.is(200);
}

#[tokio::test]
async fn a_session_ends_with_its_time_and_with_its_user() {
    let node = Node::start();
    let alice = user(&node, "alice@test.com", &["role:view,resource:projects"]).await;
    alice.get("projects").await.is(200);
    let off = Client::admin(&node)
        .patch("users/alice@test.com", json!({"disabled": true}))
        .await
        .is(200);
    assert_eq!(off.body["receipt"]["refusing"], 3);
    alice.get("projects").await.refuses(401, "not_authenticated");
    Client::admin(&node)
        .patch("users/alice@test.com", json!({"disabled": false}))
        .await
        .is(200);
    // Disabling closed it for good: enabling lets her log in again, it does not bring back what was open.
    alice.get("projects").await.refuses(401, "not_authenticated");
    let alice = alice.bearer(&node.session_of(off.text("id").parse().unwrap()));
    alice.get("projects").await.is(200);
    node.clock.pass_ms(SESSION_MS);
    node.renew();
    alice.get("projects").await.refuses(401, "not_authenticated");
}

#[tokio::test]
async fn a_lease_that_runs_out_ends_admission_by_the_clock_alone() {
    let node = Node::start();
    let admin = Client::admin(&node);
    node.clock.pass_ms(3_599_999);
    admin.get("auth/whoami").await.is(200);
    node.clock.pass_ms(1);
    admin.get("auth/whoami").await.refuses(503, "no_lease");
}

#[tokio::test]
async fn an_unknown_bearer_is_refused_only_after_the_leader_was_asked() {
    let node = Node::start();
    let stranger = Client::anybody(&node).bearer(&format!("mcpctl_ses_{}", "7".repeat(43)));
    node.mood(Mood::NoLeader);
    stranger.get("auth/whoami").await.refuses(503, "no_leader");
    // Who is known needs no leader.
    Client::admin(&node).get("auth/whoami").await.is(200);
    node.mood(Mood::Fine);
    stranger.get("auth/whoami").await.refuses(401, "not_authenticated");
}

#[tokio::test]
async fn a_token_reads_its_own_project_and_writes_nothing() {
    let node = Node::start();
    let admin = Client::admin(&node);
    for project in ["mine", "other"] {
        admin.post("projects", json!({"name": project})).await.is(201);
    }
    let minted = admin
        .post("mcptokens", json!({"name": "ci", "project": "mine", "rbac": "clone"}))
        .await
        .is(201);
    let token = Client::anybody(&node).bearer(&minted.text("token"));
    assert_eq!(token.get("auth/whoami").await.is(200).text("token"), "ci");
    assert_eq!(token.get("projects").await.is(200).names(), ["mine"]);
    token.get("projects/other").await.refuses(403, "forbidden");
    for (path, body) in [
        ("mcptokens", json!({"name": "x", "project": "mine"})),
        ("users", json!({"email": "x@test.com"})),
        (
            "rbac",
            json!({"name": "x", "subjects": [{"kind": "Group", "name": "all"}], "roleBindings": [{"action": "logs"}]}),
        ),
    ] {
        token.post(path, body).await.refuses(403, "forbidden");
    }
    token.post("auth/logout", json!({})).await.refuses(403, "forbidden");
}
