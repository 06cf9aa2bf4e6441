//! A write that is sent again with its key: carried out once, whichever node it comes to, and answered as the first time.

use serde_json::json;

use crate::client::{Client, Reply, user};
use crate::node::{Mood, Node};

const TIME: &str = "http://127.0.0.1:9000/mcp";

/// Both answers are about the same change.
#[track_caller]
fn same(first: &Reply, again: &Reply) {
    assert_eq!(again.header("mcp-index"), first.header("mcp-index"), "{}", again.raw);
    assert_eq!(again.body["id"], first.body["id"], "{}", again.raw);
}

#[tokio::test]
async fn a_creation_is_repeated_through_another_node() {
    let node = Node::start();
    let other = node.another();
    let (here, there) = (Client::admin(&node), Client::admin(&other));
    let creations = [
        (
            "users",
            json!({"email": "bob@test.com", "password": "long enough to do"}),
        ),
        ("groups", json!({"name": "ops", "members": []})),
        ("serviceaccounts", json!({"name": "robot"})),
        ("secrets", json!({"name": "git", "data": {"token": "canary"}})),
        ("servers", json!({"name": "git", "transport": "http", "url": TIME})),
        ("projects", json!({"name": "demo", "servers": ["git"]})),
        (
            "rbac",
            json!({"name": "devs", "subjects": [{"kind": "Group", "name": "ops"}], "roleBindings": [{"action": "logs"}]}),
        ),
        ("mcptokens", json!({"name": "ci", "project": "demo"})),
        ("serviceaccounts/robot/sessions", json!({})),
    ];
    for (path, body) in creations {
        let first = here
            .header("idempotency-key", path)
            .post(path, body.clone())
            .await
            .is(201);
        let again = there.header("idempotency-key", path).post(path, body.clone()).await;
        assert!(again.status.is_success(), "{path}: {}", again.raw);
        same(&first, &again);
        assert!(
            !again.raw.contains("mcpctl_pat_") || again.body["token"].is_null(),
            "{path} shows its bearer again"
        );
        assert!(again.body["token"].is_null(), "{path} shows its bearer again");
        // Without the key it is another request, and the name is taken.
        if path.ends_with("sessions") {
            assert_ne!(there.post(path, body).await.is(201).body["id"], first.body["id"]);
        } else {
            there.post(path, body).await.refuses(409, "name_taken");
        }
    }
}

#[tokio::test]
async fn a_change_and_a_removal_are_repeated_through_another_node() {
    let node = Node::start();
    let other = node.another();
    let admin = Client::admin(&node);
    for name in ["a", "b"] {
        admin.post("projects", json!({"name": name})).await.is(201);
    }
    let token = admin
        .post("mcptokens", json!({"name": "ci", "project": "a"}))
        .await
        .is(201)
        .text("id");
    let project = admin.get("projects/b").await.is(200);
    let version = format!("\"{}\"", project.text("resourceVersion"));
    let (here, there) = (Client::admin(&node), Client::admin(&other));
    let changing = |client: &Client| {
        client
            .header("idempotency-key", "p")
            .header("if-match", version.clone())
    };
    let first = changing(&here)
        .patch("projects/b", json!({"description": "new"}))
        .await
        .is(200);
    let again = changing(&there)
        .patch("projects/b", json!({"description": "new"}))
        .await
        .is(200);
    same(&first, &again);
    changing(&there)
        .patch("projects/b", json!({"description": "newer"}))
        .await
        .refuses(409, "version_mismatch");

    // The answer to a removal was lost, and its object is gone.
    let paths = [
        format!("mcptokens/{token}"),
        "projects/a".to_owned(),
        format!("projects/{}", project.text("id")),
    ];
    for (path, kind) in paths.iter().zip(["mcptoken", "project", "project"]) {
        let keyed = |client: &Client| client.header("idempotency-key", path.clone());
        node.mood(Mood::AnswerLost);
        keyed(&here).delete(path).await.refuses(504, "outcome_unknown");
        node.mood(Mood::Fine);
        let again = keyed(&there).delete(path).await.is(200);
        assert_eq!(
            (again.text("kind"), again.body["receipt"]["effective"].as_bool()),
            (kind.into(), Some(true))
        );
        assert!(!again.text("name").contains(&again.text("id")), "{}", again.raw);
        // The key is the principal's own, and without it there is nothing to remove.
        let bob = user(
            &node,
            &format!("bob-{kind}-{}@test.com", path.len()),
            &["role:admin,resource:*"],
        )
        .await;
        bob.header("idempotency-key", path.clone())
            .delete(path)
            .await
            .refuses(404, "not_found");
        there.delete(path).await.refuses(404, "not_found");
    }
}

#[tokio::test]
async fn a_refusal_is_repeated_too_and_a_new_key_asks_anew() {
    let node = Node::start();
    let admin = Client::admin(&node);
    admin.post("projects", json!({"name": "a"})).await.is(201);
    let keyed = admin.header("idempotency-key", "k");
    keyed
        .post("projects", json!({"name": "a"}))
        .await
        .refuses(409, "name_taken");
    admin.delete("projects/a").await.is(200);
    keyed
        .post("projects", json!({"name": "a"}))
        .await
        .refuses(409, "name_taken");
    let other = admin.header("idempotency-key", "l");
    other.post("projects", json!({"name": "a"})).await.is(201);
    let long = admin.header("idempotency-key", "x".repeat(129));
    let reply = long
        .post("projects", json!({"name": "b"}))
        .await
        .refuses(422, "invalid");
    assert_eq!(reply.fields(), ["Idempotency-Key"]);
}
