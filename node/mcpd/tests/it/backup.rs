//! Backups through the API: what is saved is whole, and what is restored lets nobody in who was refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use mcp_api::backup::{Check, Header};
use serde_json::{Value, json};

use crate::client::{Client, Reply};
use crate::node::{Mood, Node};

const RESTORE: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

struct Saved {
    header: Header,
    head: Vec<u8>,
    body: Vec<u8>,
}

async fn save(admin: &Client) -> Saved {
    let reply = admin.get("backup").await.is(200);
    assert_eq!(reply.header("content-length"), reply.bytes.len().to_string());
    let mut check = Check::default();
    check.push(&reply.bytes).unwrap();
    let head = check.head().unwrap().to_vec();
    let header = check.finish().unwrap();
    assert_eq!(reply.header("mcp-index"), header.index.to_string());
    let body = reply.bytes[head.len()..].to_vec();
    Saved { header, head, body }
}

async fn lay_down(admin: &Client, body: &[u8]) {
    for (part, bytes) in body.chunks(1_000).enumerate() {
        let piece = json!({"part": part, "data": BASE64.encode(bytes)});
        admin
            .post(&format!("backup/restores/{RESTORE}/parts"), piece)
            .await
            .is(201);
    }
}

async fn finish(admin: &Client, saved: &Saved, more: Value) -> Reply {
    let mut request = json!({"head": BASE64.encode(&saved.head)});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    admin.post(&format!("backup/restores/{RESTORE}"), request).await
}

async fn peopled() -> (Node, Client, String) {
    let node = Node::start();
    let admin = Client::admin(&node);
    admin
        .post("users", json!({"email": "bob@test.com", "password": "correct horse"}))
        .await
        .is(201);
    admin
        .post("secrets", json!({"name": "git", "data": {"token": "hunter2hunter2"}}))
        .await
        .is(201);
    admin.post("projects", json!({"name": "demo"})).await.is(201);
    let bindings = json!([{"role": "run", "resource": "servers"}]);
    let token = json!({"name": "ci", "project": "demo", "roleBindings": bindings});
    let id = admin.post("mcptokens", token).await.is(201).text("id");
    (node, admin, id)
}

#[tokio::test]
async fn a_backup_holds_what_is_there_and_no_secret_in_the_clear() {
    let (_node, admin, _) = peopled().await;
    let saved = save(&admin).await;
    assert_eq!(
        saved.header.index.to_string(),
        admin.get("version").await.header("mcp-index")
    );
    let whole = [saved.head.as_slice(), &saved.body].concat();
    for secret in [&b"hunter2"[..], b"correct horse", b"mcpctl_pat_"] {
        let found = whole.windows(secret.len()).filter(|w| *w == secret).count();
        // The beginning of a bearer is what people know a token by.
        let expected = usize::from(secret == b"mcpctl_pat_");
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(secret));
    }
}

#[tokio::test]
async fn a_restored_backup_brings_objects_back_and_no_token_that_was_revoked() {
    let (_node, admin, id) = peopled().await;
    let saved = save(&admin).await;
    admin.post(&format!("mcptokens/{id}/revoke"), json!({})).await.is(200);
    admin.delete("users/bob@test.com").await.is(200);
    admin.delete("secrets/git").await.is(200);
    lay_down(&admin, &saved.body).await;
    let told = finish(&admin, &saved, json!({"dryRun": true})).await.is(200);
    assert_eq!(
        (&told.body["dryRun"], &told.body["usersBack"]["names"][0]),
        (&json!(true), &json!("bob@test.com"))
    );
    admin.get("users/bob@test.com").await.refuses(404, "not_found");
    let done = finish(&admin, &saved, json!({})).await.is(200);
    assert_eq!(done.body["refused"], json!({"count": 1, "names": ["demo/ci"]}));
    assert_eq!(done.body["revived"]["count"], 0);
    assert_eq!(done.body["receipt"]["effective"], true);
    admin.get("users/bob@test.com").await.is(200);
    admin.get("secrets/git").await.is(200);
    assert_eq!(
        admin.get(&format!("mcptokens/{id}")).await.is(200).body["status"],
        "revoked"
    );
    // Asked again it is the same one, and is waited for anew: what happened since is not undone.
    admin.delete("users/bob@test.com").await.is(200);
    let again = finish(&admin, &saved, json!({})).await.is(200);
    assert_eq!(again.header("mcp-index"), done.header("mcp-index"));
    assert_eq!(again.body["receipt"]["effective"], true);
    admin.get("users/bob@test.com").await.refuses(404, "not_found");
}

#[tokio::test]
async fn a_token_comes_back_on_purpose_only_and_is_named() {
    let (_node, admin, id) = peopled().await;
    let saved = save(&admin).await;
    admin.delete(&format!("mcptokens/{id}")).await.is(200);
    lay_down(&admin, &saved.body).await;
    let done = finish(&admin, &saved, json!({"reviveTokens": true})).await.is(200);
    assert_eq!(done.body["revived"], json!({"count": 1, "names": ["demo/ci"]}));
    assert_eq!(
        admin.get(&format!("mcptokens/{id}")).await.is(200).body["status"],
        "active"
    );
}

#[tokio::test]
async fn what_is_damaged_or_of_another_cluster_changes_nothing() {
    let (_node, admin, id) = peopled().await;
    let saved = save(&admin).await;
    admin.delete(&format!("mcptokens/{id}")).await.is(200);
    let gone = finish(&admin, &saved, json!({})).await;
    gone.refuses(404, "not_found");
    let mut altered = saved.body.clone();
    altered[700] ^= 1;
    lay_down(&admin, &altered).await;
    let reply = finish(&admin, &saved, json!({"reviveTokens": true}))
        .await
        .refuses(422, "invalid");
    assert!(reply.text("detail").contains("is damaged"), "{}", reply.raw);
    let another = Node::start();
    let other = Client::admin(&another);
    lay_down(&other, &saved.body).await;
    let reply = finish(&other, &saved, json!({})).await;
    // Both test clusters may have one id; then there is nothing to refuse.
    let same =
        other.get("cluster/status").await.text("clusterId") == admin.get("cluster/status").await.text("clusterId");
    if !same {
        assert!(reply.text("detail").contains("--other-cluster"), "{}", reply.raw);
    }
    admin.get(&format!("mcptokens/{id}")).await.refuses(404, "not_found");
    let faults = admin
        .post(
            &format!("backup/restores/{RESTORE}/parts"),
            json!({"part": 9_999_999, "data": "%"}),
        )
        .await;
    assert_eq!(faults.fields(), ["data", "part"]);
    let faults = admin
        .post("backup/restores/mine", json!({"head": "AAAA"}))
        .await
        .refuses(422, "invalid");
    assert_eq!(faults.fields(), ["name"]);
}

#[tokio::test]
async fn a_restore_that_is_not_effective_everywhere_says_so() {
    let (node, admin, _) = peopled().await;
    let saved = save(&admin).await;
    lay_down(&admin, &saved.body).await;
    node.mood(Mood::OnePending);
    let reply = finish(&admin, &saved, json!({})).await.is(202);
    assert_eq!(reply.body["receipt"]["effective"], false);
}
