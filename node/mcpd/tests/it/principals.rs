//! Users, passwords, groups, service accounts and sessions.

use serde_json::json;

use crate::client::{Client, Reply, user};
use crate::node::{ADMIN, Mood, Node, PASSWORD};

const LONG: &str = "long enough to do";

async fn log_in(node: &Node, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password});
    Client::anybody(node).post("auth/login", body).await
}

/// A user with a password, and a client of theirs.
async fn with_password(node: &Node, email: &str) -> Client {
    let body = json!({"email": email, "password": LONG});
    Client::admin(node).post("users", body).await.is(201);
    let session = log_in(node, email, LONG).await.is(200).text("token");
    Client::anybody(node).bearer(&session)
}

#[tokio::test]
async fn a_user_is_changed_and_deleted_and_leaves_nothing() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let bob = user(&node, "bob@test.com", &["role:view,resource:projects"]).await;
    let changed = admin.patch("users/bob@test.com", json!({"name": "Bob"})).await.is(200);
    assert_eq!(
        (changed.text("name"), changed.body["disabled"].as_bool()),
        ("Bob".into(), Some(false))
    );
    assert!(changed.body["receipt"].is_null(), "a name takes nothing away");
    let stale = admin.header("if-match", "\"1\"");
    let spec = json!({"email": "Bob@Test.com", "name": "Robert", "disabled": false});
    for reply in [
        stale.put("users/bob@test.com", spec.clone()).await,
        stale.patch("users/bob@test.com", json!({"name": "x"})).await,
        stale.delete("users/bob@test.com").await,
    ] {
        reply.refuses(409, "version_mismatch");
    }
    let fresh = admin.header("if-match", format!("\"{}\"", changed.text("resourceVersion")));
    assert_eq!(
        fresh.put("users/bob@test.com", spec).await.is(200).text("name"),
        "Robert"
    );
    let other = json!({"email": "eve@test.com"});
    let reply = admin.put("users/bob@test.com", other).await.refuses(422, "invalid");
    assert_eq!(reply.fields(), ["email"]);
    let nothing = admin.patch("users/bob@test.com", json!({})).await;
    assert_eq!(nothing.refuses(422, "invalid").fields(), ["disabled"]);

    bob.get("projects").await.is(200);
    let gone = admin.delete("users/bob@test.com").await.is(200);
    assert_eq!(
        (gone.text("kind"), gone.body["receipt"]["effective"].as_bool()),
        ("user".into(), Some(true))
    );
    bob.get("projects").await.refuses(401, "not_authenticated");
    admin.get("users/bob@test.com").await.refuses(404, "not_found");
    // His definition granted to nobody else.
    admin.get("rbac/bob-test-com").await.refuses(404, "not_found");
    let last = admin.delete(&format!("users/{ADMIN}")).await.refuses(422, "invalid");
    assert!(last.text("detail").contains("administrator"), "{}", last.raw);
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it_and_closes_the_other_sessions() {
    let node = Node::start();
    let bob = with_password(&node, "bob@test.com").await;
    let other = log_in(&node, "bob@test.com", LONG).await.is(200).text("token");
    let other = Client::anybody(&node).bearer(&other);
    let wrong = json!({"oldPassword": "not this one", "newPassword": "another long one"});
    bob.post("auth/password", wrong).await.refuses(401, "bad_credentials");
    let short = json!({"oldPassword": LONG, "newPassword": "short"});
    let reply = bob.post("auth/password", short).await.refuses(422, "invalid");
    assert_eq!(reply.fields(), ["newPassword"]);
    other.get("auth/whoami").await.is(200);

    let change = json!({"oldPassword": LONG, "newPassword": "another long one"});
    let keyed = bob.header("idempotency-key", "k");
    let done = keyed.post("auth/password", change.clone()).await.is(200);
    assert!(!done.raw.contains("long one"), "{}", done.raw);
    assert_eq!(done.body["receipt"]["effective"], true);
    // Repeated, the old password is wrong by now, and the answer is the first one's.
    let again = keyed.post("auth/password", change).await.is(200);
    assert_eq!(again.header("mcp-index"), done.header("mcp-index"));
    bob.get("auth/whoami").await.is(200);
    other.get("auth/whoami").await.refuses(401, "not_authenticated");
    log_in(&node, "bob@test.com", LONG)
        .await
        .refuses(401, "bad_credentials");
    log_in(&node, "bob@test.com", "another long one").await.is(200);

    let reset = json!({"password": "chosen by the admin"});
    Client::admin(&node)
        .post("users/bob@test.com/password", reset)
        .await
        .is(200);
    bob.get("auth/whoami").await.refuses(401, "not_authenticated");
    log_in(&node, "bob@test.com", "chosen by the admin").await.is(200);
}

#[tokio::test]
async fn guessing_the_old_password_is_slowed_down_like_a_login() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let guess = json!({"oldPassword": "wrong", "newPassword": "another long one"});
    for _ in 0..mcpd::limits::LOGIN_FAILURES_FREE {
        admin
            .post("auth/password", guess.clone())
            .await
            .refuses(401, "bad_credentials");
    }
    let right = json!({"oldPassword": PASSWORD, "newPassword": "another long one"});
    admin
        .post("auth/password", right)
        .await
        .refuses(429, "too_many_requests");
    let login = json!({"email": ADMIN, "password": PASSWORD});
    admin.post("auth/login", login).await.refuses(429, "too_many_requests");
}

#[tokio::test]
async fn who_resets_a_password_must_hold_what_it_confers() {
    let node = Node::start();
    user(&node, "carol@test.com", &["role:edit,resource:servers"]).await;
    let helper = user(&node, "helper@test.com", &["role:edit,resource:users"]).await;
    let reset = json!({"password": LONG});
    let reply = helper.post("users/carol@test.com/password", reset.clone()).await;
    assert!(
        reply
            .refuses(403, "forbidden")
            .text("detail")
            .contains("role:edit,resource:servers")
    );
    user(&node, "dave@test.com", &[]).await;
    helper.post("users/dave@test.com/password", reset).await.is(200);
}

#[tokio::test]
async fn a_group_is_written_with_emails_and_confers_what_is_bound_to_it() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let bob = user(&node, "bob@test.com", &[]).await;
    user(&node, "carol@test.com", &[]).await;
    let bad = json!({"name": "Ops", "members": ["nobody@test.com", "x", "bob@test.com", "BOB@test.com"], "colour": 1});
    let reply = admin.post("groups", bad).await.refuses(422, "invalid");
    assert_eq!(
        reply.fields(),
        ["colour", "name", "members[0]", "members[1]", "members[3]"]
    );
    let spec = json!({"name": "ops", "description": "on call", "members": ["Bob@Test.com"]});
    let made = admin.post("groups", spec).await.is(201);
    assert_eq!(made.body["members"], json!(["bob@test.com"]));
    let rbac = json!({"name": "ops", "subjects": [{"kind": "Group", "name": "ops"}],
        "roleBindings": [{"role": "view", "resource": "servers"}]});
    admin.post("rbac", rbac).await.is(201);
    bob.get("servers").await.is(200);
    assert_eq!(
        admin.get("groups/ops").await.is(200).body,
        admin.get(&format!("groups/{}", made.text("id"))).await.body
    );

    let added = admin
        .patch("groups/ops", json!({"addMembers": ["carol@test.com"]}))
        .await
        .is(200);
    assert_eq!(added.body["members"], json!(["bob@test.com", "carol@test.com"]));
    let both = json!({"members": [], "addMembers": ["carol@test.com"]});
    admin.patch("groups/ops", both).await.refuses(422, "invalid");
    let removed = admin
        .patch("groups/ops", json!({"removeMembers": ["bob@test.com"]}))
        .await
        .is(200);
    assert_eq!(removed.body["receipt"]["effective"], true);
    assert_eq!(
        (removed.text("description"), &removed.body["members"]),
        ("on call".into(), &json!(["carol@test.com"]))
    );
    bob.get("servers").await.refuses(403, "forbidden");
    let stale = admin.header("if-match", format!("\"{}\"", added.text("resourceVersion")));
    stale
        .put("groups/ops", json!({"members": []}))
        .await
        .refuses(409, "version_mismatch");
    assert_eq!(admin.delete("groups/ops").await.is(200).text("name"), "ops");
    admin.get("rbac/ops").await.refuses(404, "not_found");
}

#[tokio::test]
async fn a_service_account_has_sessions_and_tokens_and_no_password() {
    let node = Node::start();
    let admin = Client::admin(&node);
    admin
        .post("serviceaccounts", json!({"name": "robot", "description": "nightly"}))
        .await
        .is(201);
    let rbac = json!({"name": "robot", "subjects": [{"kind": "ServiceAccount", "name": "robot"}],
        "roleBindings": [{"role": "view", "resource": "projects"}, {"role": "create", "resource": "mcptokens"}]});
    admin.post("rbac", rbac).await.is(201);
    admin.post("projects", json!({"name": "demo"})).await.is(201);
    for ttl in ["never", "91d", "soon", "0s"] {
        let reply = admin.post("serviceaccounts/robot/sessions", json!({"ttl": ttl})).await;
        assert_eq!(reply.refuses(422, "invalid").fields(), ["ttl"], "{ttl}");
    }
    let keyed = admin.header("idempotency-key", "k");
    let opened = keyed
        .post("serviceaccounts/robot/sessions", json!({"ttl": "1h"}))
        .await
        .is(201);
    let again = keyed
        .post("serviceaccounts/robot/sessions", json!({"ttl": "1h"}))
        .await
        .is(200);
    assert_eq!(again.text("id"), opened.text("id"));
    assert!(again.body["token"].is_null(), "a bearer is shown once: {}", again.raw);

    let robot = Client::anybody(&node).bearer(&opened.text("token"));
    let who = robot.get("auth/whoami").await.is(200);
    assert_eq!(
        (who.text("kind"), who.body["user"]["email"].as_str()),
        ("serviceaccount".into(), Some("ServiceAccount:robot"))
    );
    robot.get("projects").await.is(200);
    robot.get("servers").await.refuses(403, "forbidden");
    robot
        .post("auth/password", json!({"oldPassword": LONG, "newPassword": LONG}))
        .await
        .refuses(403, "forbidden");
    let minted = robot
        .post("mcptokens", json!({"name": "ci", "project": "demo"}))
        .await
        .is(201);
    assert_eq!(minted.text("owner"), "ServiceAccount:robot");
    assert_eq!(minted.text("createdBy"), "ServiceAccount:robot");
    let token = Client::anybody(&node).bearer(&minted.text("token"));
    token.get("mcptokens/introspect").await.is(200);

    // Who does not hold what it confers opens nothing for it.
    let helper = user(&node, "helper@test.com", &["role:edit,resource:sessions"]).await;
    let reply = helper.post("serviceaccounts/robot/sessions", json!({})).await;
    assert!(
        reply
            .refuses(403, "forbidden")
            .text("detail")
            .contains("role:view,resource:projects")
    );
    let gone = admin.delete("serviceaccounts/robot").await.is(200);
    assert_eq!(gone.body["receipt"]["effective"], true);
    robot.get("auth/whoami").await.refuses(401, "not_authenticated");
    token
        .get("mcptokens/introspect")
        .await
        .refuses(401, "not_authenticated");
}

#[tokio::test]
async fn sessions_are_listed_and_closed_without_showing_what_they_hold() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let bob = with_password(&node, "bob@test.com").await;
    let carol = user(
        &node,
        "carol@test.com",
        &["role:view,resource:sessions,name:bob@test.com"],
    )
    .await;
    let own = bob.get("sessions").await.is(200);
    let items = own.body["items"].as_array().unwrap();
    assert_eq!(
        (items.len(), items[0]["user"].as_str(), items[0]["current"].as_bool()),
        (1, Some("bob@test.com"), Some(true))
    );
    let id = items[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        carol.get("sessions").await.is(200).body["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let seen = carol.get("sessions?user=BOB@test.com").await.is(200);
    assert_eq!(seen.body["items"][0]["id"], id.as_str());
    assert_eq!(seen.body["items"][0]["current"], false);
    assert!(
        !seen.raw.contains("mcpctl_ses") && !seen.raw.contains(&id.replace('-', "")),
        "{}",
        seen.raw
    );
    // Page by page, and no page's mark is a hash.
    let mut found = 0;
    let mut path = "sessions?limit=1".to_owned();
    loop {
        let page = admin.get(&path).await.is(200);
        found += page.body["items"].as_array().unwrap().len();
        let Some(more) = page.body["continue"].as_str() else {
            break;
        };
        assert_eq!(more.len(), 32, "{more}");
        path = format!("sessions?limit=1&continue={more}");
    }
    assert_eq!(found, 3);
    carol.delete(&format!("sessions/{id}")).await.refuses(403, "forbidden");
    let dave = user(&node, "dave@test.com", &[]).await;
    dave.delete(&format!("sessions/{id}")).await.refuses(404, "not_found");
    let closed = admin.delete(&format!("sessions/{id}")).await.is(200);
    assert_eq!(
        (closed.text("name"), closed.body["receipt"]["effective"].as_bool()),
        ("bob@test.com".into(), Some(true))
    );
    bob.get("auth/whoami").await.refuses(401, "not_authenticated");
}

#[tokio::test]
async fn a_login_under_way_opens_nothing_behind_a_new_password() {
    let node = Node::start();
    with_password(&node, "bob@test.com").await;
    // The password changes after it was verified and before the session is opened.
    node.mood(Mood::ResetBefore);
    let reply = log_in(&node, "bob@test.com", LONG).await;
    reply.refuses(401, "bad_credentials");
    node.mood(Mood::Fine);
    log_in(&node, "bob@test.com", LONG)
        .await
        .refuses(401, "bad_credentials");
}
