//! Secrets: written, never read; and who may refer to one.

use mcp_model::records::Secret;
use mcp_model::secrets::seal_context;
use mcp_model::tables::{self, Table};
use mcp_store::seal::Seal;
use serde_json::json;

use crate::client::{Client, user};
use crate::node::{Node, SEAL_KEY};

fn stored(node: &Node, name: &str) -> Secret {
    let read = node
        .replica
        .read(|t| tables::by_name::<Secret>(t, Table::SecretNames, name.as_bytes()));
    read.unwrap().unwrap()
}

fn value(secret: &Secret, key: &str) -> String {
    let opened = Seal::new(&SEAL_KEY).open(&seal_context(secret.id, key), &secret.values[key]);
    String::from_utf8(opened.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_secret_is_written_sealed_and_never_shown() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let spec = json!({"name": "git", "description": "for git", "data": {"token": "canary-1", "user": "canary-2"}});
    let made = admin.post("secrets", spec).await.is(201);
    assert_eq!(made.body["keys"], json!(["token", "user"]));
    let secret = stored(&node, "git");
    assert_eq!(
        (value(&secret, "token"), value(&secret, "user")),
        ("canary-1".into(), "canary-2".into())
    );
    let raw = secret.values.values().flatten().copied().collect::<Vec<u8>>();
    assert!(
        !raw.windows(6).any(|w| w == b"canary"),
        "the store holds a value in the clear"
    );

    let change = json!({"data": {"token": "canary-3", "user": null, "new": "canary-4"}});
    let changed = admin.patch("secrets/git", change).await.is(200);
    assert_eq!(
        (changed.body["keys"].clone(), changed.text("description")),
        (json!(["new", "token"]), "for git".into())
    );
    assert_eq!(changed.body["receipt"]["effective"], true);
    assert_eq!(value(&stored(&node, "git"), "token"), "canary-3");
    let replaced = admin
        .put("secrets/git", json!({"data": {"only": "canary-5"}}))
        .await
        .is(200);
    assert_eq!(
        (replaced.body["keys"].clone(), replaced.text("description")),
        (json!(["only"]), String::new())
    );
    let stale = admin.header("if-match", format!("\"{}\"", made.text("resourceVersion")));
    for reply in [
        stale.put("secrets/git", json!({"data": {}})).await,
        stale.patch("secrets/git", json!({"data": {}})).await,
        stale.delete("secrets/git").await,
    ] {
        reply.refuses(409, "version_mismatch");
    }
    let shown = [
        made.raw,
        changed.raw,
        replaced.raw,
        admin.get("secrets").await.is(200).raw,
        admin.get("secrets/git").await.is(200).raw,
        admin.delete("secrets/git").await.is(200).raw,
    ];
    assert!(!shown.iter().any(|raw| raw.contains("canary")), "{shown:?}");
}

#[tokio::test]
async fn a_faulty_secret_is_refused_by_its_keys_and_without_its_values() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let spec = json!({"name": "Git", "data": {"a b": "canary", "ok": "canary\u{0}", "big": "c".repeat(65_537)}});
    let reply = admin.post("secrets", spec).await.refuses(422, "invalid");
    let mut fields = reply.fields();
    fields.sort_unstable();
    assert_eq!(fields, ["data.a b", "data.big", "data.ok", "name"]);
    assert!(!reply.raw.contains("canary"), "{}", reply.raw);
    for data in [
        json!({"k": 5}),
        json!({"k": ["canary"]}),
        json!("canary"),
        json!({"k": {"canary": 1}}),
    ] {
        let reply = admin.post("secrets", json!({"name": "git", "data": data})).await;
        assert_eq!(reply.status, 422, "{}", reply.raw);
        assert!(!reply.raw.contains("canary"), "{}", reply.raw);
    }
    let much: serde_json::Map<_, _> = (0..9).map(|n| (format!("k{n}"), json!("x".repeat(65_000)))).collect();
    let reply = admin.post("secrets", json!({"name": "git", "data": much})).await;
    assert_eq!(reply.refuses(422, "invalid").fields(), ["data"]);
}

#[tokio::test]
async fn referring_to_a_secret_takes_run_on_it() {
    let node = Node::start();
    let admin = Client::admin(&node);
    admin
        .post("secrets", json!({"name": "git", "data": {"token": "x"}}))
        .await
        .is(201);
    let server = |value: &str| json!({"name": "web", "transport": "http", "url": "http://x/", "headers": {"authorization": value}});
    let eve = user(&node, "eve@test.com", &["role:edit,resource:servers"]).await;
    let reply = eve.post("servers", server("Bearer ${secret:git/token}")).await;
    assert!(
        reply
            .refuses(403, "forbidden")
            .text("detail")
            .contains("role:run,resource:secrets,name:git")
    );
    admin
        .post("servers", server("Bearer ${secret:git/token}"))
        .await
        .is(201);
    eve.patch("servers/web", json!({"url": "http://eve.test/"}))
        .await
        .refuses(403, "forbidden");
    eve.patch("servers/web", json!({"description": "fine"})).await.is(200);
    let faulty = admin
        .patch("servers/web", json!({"headers": {"x-key": "${secret:git}"}}))
        .await;
    assert_eq!(faulty.refuses(422, "invalid").fields(), ["headers.x-key"]);
    let faulty = admin
        .patch("servers/web", json!({"url": "http://${secret:git/token}/"}))
        .await;
    assert_eq!(faulty.refuses(422, "invalid").fields(), ["url"]);
    let renamed = admin.patch("servers/web", json!({"name": "other"})).await;
    assert_eq!(renamed.refuses(422, "invalid").fields(), ["name"]);
    let seen = admin.get("servers/web").await.is(200);
    assert_eq!(seen.body["headers"]["authorization"], "Bearer ${secret:git/token}");
}
