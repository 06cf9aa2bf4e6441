//! Tokens from mint to tombstone.

use std::time::Duration;

use mcpd::WaitFor;
use serde_json::json;

use crate::client::{Client, user};
use crate::node::{Mood, Node};

async fn with_project(node: &Node) -> Client {
    let admin = Client::admin(node);
    admin.post("projects", json!({"name": "demo"})).await.is(201);
    admin
}

#[tokio::test]
async fn a_token_is_shown_once_introspects_itself_and_is_refused_once_revoked() {
    let node = Node::start();
    let admin = with_project(&node).await;
    let body = json!({"name": "ci", "project": "demo", "description": "nightly", "ttl": "30d",
        "roleBindings": [{"role": "run", "resource": "servers"}]});
    let minted = admin.post("mcptokens", body).await.is(201);
    let (plain, id) = (minted.text("token"), minted.text("id"));
    assert_eq!(minted.text("prefix"), plain[..15]);
    assert!(minted.text("expiresAt").starts_with("2026-12-1"), "{}", minted.raw);
    assert!(minted.body["hint"].is_null() && minted.body["receipt"].is_null());

    let bearer = Client::anybody(&node).bearer(&plain);
    let own = bearer.get("mcptokens/introspect").await.is(200);
    let gateways = [
        "http://127.0.0.1:3201",
        "http://127.0.0.1:3202",
        "http://127.0.0.1:3203",
    ];
    assert_eq!(own.body["gateways"], serde_json::json!(gateways), "where it is taken");
    assert_eq!((own.text("name"), own.text("project")), ("ci".into(), "demo".into()));
    assert_eq!(own.text("sha"), mcp_model::token::TokenHash::of(&plain).to_string());
    admin
        .get("mcptokens/introspect")
        .await
        .refuses(401, "not_authenticated");

    for path in [
        "mcptokens",
        "mcptokens?project=demo&name=ci&status=active",
        &format!("mcptokens/{id}"),
    ] {
        let seen = admin.get(path).await.is(200);
        assert!(
            seen.raw.contains("nightly") && seen.raw.contains(&plain[..15]),
            "{}",
            seen.raw
        );
        assert!(
            !seen.raw.contains(&plain) && !seen.raw.contains(&own.text("sha")),
            "{}",
            seen.raw
        );
    }

    let revoked = admin.post(&format!("mcptokens/{id}/revoke"), json!({})).await.is(200);
    assert_eq!(
        (revoked.text("name"), revoked.body["already"].as_bool()),
        ("demo/ci".into(), Some(false))
    );
    let receipt = &revoked.body["receipt"];
    assert_eq!(
        (receipt["effective"].as_bool(), receipt["refusing"].as_u64()),
        (Some(true), Some(3))
    );
    assert_eq!(receipt["replicas"][0]["name"], "node-1");
    assert_eq!(receipt["index"].as_str().unwrap(), revoked.header("mcp-index"));
    bearer
        .get("mcptokens/introspect")
        .await
        .refuses(401, "not_authenticated");
    assert_eq!(
        admin.get(&format!("mcptokens/{id}")).await.is(200).text("status"),
        "revoked"
    );

    let again = admin.post(&format!("mcptokens/{id}/revoke"), json!({})).await.is(200);
    assert_eq!(again.body["already"], true);
    assert_eq!(again.body["receipt"]["effective"], true);
    admin.delete(&format!("mcptokens/{id}")).await.is(200);
    admin.get(&format!("mcptokens/{id}")).await.refuses(404, "not_found");
    bearer
        .get("mcptokens/introspect")
        .await
        .refuses(401, "not_authenticated");
}

#[tokio::test]
async fn a_revoke_that_is_not_effective_everywhere_is_202_and_says_where() {
    let node = Node::start();
    let admin = with_project(&node).await;
    let mint = |name: &str| json!({"name": name, "project": "demo"});
    let slow = admin.post("mcptokens", mint("slow")).await.is(201).text("id");
    let gone = admin.post("mcptokens", mint("gone")).await.is(201).text("id");
    let quick = admin.post("mcptokens", mint("quick")).await.is(201).text("id");

    node.mood(Mood::OnePending);
    let reply = admin.post(&format!("mcptokens/{slow}/revoke"), json!({})).await.is(202);
    assert_eq!(reply.body["receipt"]["effective"], false);
    assert_eq!(reply.body["receipt"]["replicas"][2]["proof"], "pending");
    let reply = admin
        .post(&format!("mcptokens/{quick}/revoke?wait=committed"), json!({}))
        .await
        .is(200);
    assert!(reply.body["receipt"].is_null());

    node.mood(Mood::OneRanOut);
    let reply = admin.delete(&format!("mcptokens/{gone}")).await.is(200);
    assert_eq!(reply.body["receipt"]["replicas"][2]["proof"], "lease_ran_out");
    admin
        .post(&format!("mcptokens/{slow}/revoke?wait=soon"), json!({}))
        .await
        .refuses(422, "invalid");
}

#[tokio::test]
async fn names_are_unique_among_active_tokens_and_force_replaces() {
    let node = Node::start();
    let admin = with_project(&node).await;
    let body = json!({"name": "ci", "project": "demo"});
    let first = admin.post("mcptokens", body.clone()).await.is(201);
    assert!(first.text("hint").contains("no bindings"));
    admin.post("mcptokens", body).await.refuses(409, "name_taken");
    let forced = json!({"name": "ci", "project": "demo", "force": true, "roleBindings": [{"role": "view", "resource": "servers"}]});
    let second = admin.post("mcptokens", forced).await.is(201);
    assert_eq!(second.text("replaced"), first.text("id"));
    assert_eq!(second.body["receipt"]["effective"], true);
    assert!(second.text("hint").contains("only has view"));
    let bearer = |reply: &crate::client::Reply| Client::anybody(&node).bearer(&reply.text("token"));
    bearer(&first)
        .get("mcptokens/introspect")
        .await
        .refuses(401, "not_authenticated");
    bearer(&second).get("mcptokens/introspect").await.is(200);
    assert_eq!(admin.get("mcptokens?status=active").await.is(200).names(), ["ci"]);
    assert_eq!(admin.get("mcptokens").await.is(200).names(), ["ci", "ci"]);
}

#[tokio::test]
async fn every_fault_of_a_token_is_listed() {
    let node = Node::start();
    let admin = with_project(&node).await;
    let body = json!({"name": "CI", "project": "", "rbac": "some", "ttl": "soon", "colour": "red", "force": "yes",
        "roleBindings": [{"role": "run", "resource": "servers"}, {"role": "king", "resource": "servers"}]});
    let reply = admin.post("mcptokens", body).await.refuses(422, "invalid");
    let mut fields = reply.fields();
    fields.sort_unstable();
    assert_eq!(
        fields,
        ["colour", "force", "name", "project", "rbac", "roleBindings[1]", "ttl"]
    );
    let past = json!({"name": "ci", "project": "demo", "expiresAt": "2020-01-01"});
    assert_eq!(
        admin.post("mcptokens", past).await.refuses(422, "invalid").fields(),
        ["expiresAt"]
    );
    let nowhere = json!({"name": "ci", "project": "nowhere"});
    admin.post("mcptokens", nowhere).await.refuses(404, "not_found");
}

#[tokio::test]
async fn nobody_grants_a_token_more_than_they_hold() {
    let node = Node::start();
    with_project(&node).await;
    let alice = user(
        &node,
        "alice@test.com",
        &["role:create,resource:mcptokens", "role:view,resource:servers"],
    )
    .await;
    let body =
        |role: &str| json!({"name": role, "project": "demo", "roleBindings": [{"role": role, "resource": "servers"}]});
    let reply = alice.post("mcptokens", body("run")).await.refuses(403, "forbidden");
    assert!(
        reply.text("detail").contains("role:run,resource:servers"),
        "{}",
        reply.raw
    );
    let made = alice.post("mcptokens", body("view")).await.is(201);
    // It is hers: she sees and revokes it without any further right, and nobody else's.
    assert_eq!(alice.get("mcptokens").await.is(200).names(), ["view"]);
    let other = Client::admin(&node)
        .post("mcptokens", json!({"name": "x", "project": "demo"}))
        .await
        .is(201);
    alice
        .get(&format!("mcptokens/{}", other.text("id")))
        .await
        .refuses(404, "not_found");
    alice
        .delete(&format!("mcptokens/{}", other.text("id")))
        .await
        .refuses(404, "not_found");
    alice.delete(&format!("mcptokens/{}", made.text("id"))).await.is(200);
}

#[tokio::test]
async fn a_repeated_mint_makes_one_token_and_does_not_show_it_again() {
    let node = Node::start();
    let admin = with_project(&node).await.header("idempotency-key", "k1");
    let body = json!({"name": "ci", "project": "demo"});
    node.mood(Mood::AnswerLost);
    admin
        .post("mcptokens", body.clone())
        .await
        .refuses(504, "outcome_unknown");
    node.mood(Mood::Fine);
    let again = admin.post("mcptokens", body.clone()).await.is(200);
    assert!(again.body["token"].is_null(), "{}", again.raw);
    assert_eq!(admin.get("mcptokens").await.names(), ["ci"]);
    // The key belongs to the request and to the principal.
    let other = json!({"name": "cj", "project": "demo"});
    assert!(!admin.post("mcptokens", other).await.is(201).text("token").is_empty());
    let bob = user(&node, "bob@test.com", &["role:admin,resource:*"])
        .await
        .header("idempotency-key", "k1");
    bob.post("mcptokens", body).await.refuses(409, "name_taken");
}

#[tokio::test]
async fn without_a_leader_nothing_is_changed() {
    let node = Node::start();
    let admin = with_project(&node).await;
    node.mood(Mood::NoLeader);
    let reply = admin
        .post("mcptokens", json!({"name": "ci", "project": "demo"}))
        .await
        .refuses(503, "no_leader");
    assert_eq!(reply.header("retry-after"), "1");
    assert!(admin.get("mcptokens").await.is(200).names().is_empty());
}

#[tokio::test]
async fn how_long_a_revoke_is_waited_for_is_the_callers_to_say_within_reason() {
    let node = Node::start();
    let admin = Client::admin(&node);
    for (query, expected) in [
        ("", Some((WaitFor::Effective, 15))),
        ("?timeoutSeconds=1", Some((WaitFor::Effective, 1))),
        ("?timeoutSeconds=300", Some((WaitFor::Effective, 300))),
        ("?wait=committed&timeoutSeconds=2", Some((WaitFor::Committed, 2))),
        ("?timeoutSeconds=0", None),
        ("?timeoutSeconds=301", None),
        ("?timeoutSeconds=soon", None),
    ] {
        *node.writer.asked.lock().unwrap() = None;
        let reply = admin
            .post(&format!("groups{query}"), json!({"name": format!("g{}", query.len())}))
            .await;
        let asked = *node.writer.asked.lock().unwrap();
        assert_eq!(
            asked,
            expected.map(|(wait, s)| (wait, Duration::from_secs(s))),
            "{query}"
        );
        if expected.is_none() {
            assert_eq!(reply.is(422).body["errors"][0]["field"], "timeoutSeconds");
        }
    }
}
