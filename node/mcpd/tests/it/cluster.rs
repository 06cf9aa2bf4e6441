//! Who is in the cluster: who may change it, and what is answered.

use mcp_model::command::{Command, JoinRefusal, Refusal, Reply};
use mcp_model::ids::NodeId;
use mcp_model::names::Name;
use mcp_model::token::PlainJoin;
use serde_json::json;

use crate::client::{Client, user};
use crate::node::Node;

fn with_authority() -> Node {
    let node = Node::start();
    let keep = Command::KeepAuthority {
        certificate: vec![1],
        sealed_key: vec![2],
    };
    assert_eq!(node.by_system(keep), Reply::Noted);
    node
}

#[tokio::test]
async fn a_join_token_is_shown_once_and_not_to_a_repetition() {
    let node = with_authority();
    let admin = Client::admin(&node).header("idempotency-key", "once");
    let made = admin.post("cluster/join-tokens", json!({"ttl": "10m"})).await.is(201);
    assert!(PlainJoin::parse(&made.text("token")).is_some());
    assert_eq!(made.body["role"], "voter");
    assert_eq!(made.body["peers"].as_array().unwrap().len(), 3);
    let again = admin.post("cluster/join-tokens", json!({"ttl": "10m"})).await.is(201);
    assert_eq!(again.text("id"), made.text("id"));
    assert!(again.body.get("token").is_none(), "{}", again.raw);
    let faults = Client::admin(&node)
        .post("cluster/join-tokens", json!({"ttl": "soon", "role": "boss", "x": 1}))
        .await;
    assert_eq!(faults.fields(), ["x", "ttl", "role"]);
}

#[tokio::test]
async fn join_tokens_are_listed_without_their_secrets_and_withdrawn() {
    let node = with_authority();
    let admin = Client::admin(&node);
    let made = admin
        .post("cluster/join-tokens", json!({"ttl": "10m", "role": "learner"}))
        .await
        .is(201);
    let (id, token) = (made.text("id"), made.text("token"));
    let used = PlainJoin::parse(&admin.post("cluster/join-tokens", json!({})).await.is(201).text("token")).unwrap();
    let enrol = Command::EnrolNode {
        secret: used.hash(),
        request: [1; 32],
        node: NodeId(9),
        name: Name::parse("nine").unwrap(),
        peer_address: "h9:1".to_owned(),
    };
    assert_eq!(node.by_system(enrol.clone()), Reply::NodeEnrolled { voter: true });
    let list = admin.get("cluster/join-tokens").await.is(200);
    assert!(!list.raw.contains(&token), "{}", list.raw);
    let mut rows: Vec<(String, String, String)> = list.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
            (text("status"), text("role"), text("node"))
        })
        .collect();
    rows.sort();
    let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    assert_eq!(
        rows,
        [row("open", "learner", "-"), row("used", "voter", "0000000000000009")]
    );
    let gone = admin.delete(&format!("cluster/join-tokens/{id}")).await.is(200);
    assert_eq!(
        (gone.text("kind"), gone.text("id")),
        ("join token".to_owned(), id.clone())
    );
    let path = format!("cluster/join-tokens/{id}");
    admin.delete(&path).await.refuses(404, "not_found");
    admin
        .delete("cluster/join-tokens/nothing")
        .await
        .refuses(404, "not_found");
    let secret = PlainJoin::parse(&token).unwrap().hash();
    let late = Command::EnrolNode {
        secret,
        request: [2; 32],
        node: NodeId(10),
        name: Name::parse("ten").unwrap(),
        peer_address: "h10:1".to_owned(),
    };
    let refused = node.by_system(late);
    assert!(
        matches!(refused, Reply::Refused(Refusal::Join(JoinRefusal::Unknown))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_cluster_without_an_authority_lets_nobody_join() {
    let node = Node::start();
    let reply = Client::admin(&node).post("cluster/join-tokens", json!({})).await;
    reply.refuses(503, "not_proposed");
}

#[tokio::test]
async fn the_action_cluster_is_what_it_takes_and_a_token_never_has_it() {
    let node = with_authority();
    let admin = Client::admin(&node);
    let ways = [
        ("POST", "cluster/join-tokens"),
        ("GET", "cluster/join-tokens"),
        ("DELETE", "cluster/join-tokens/01890a5d-ac96-774b-bcce-b302099a8057"),
        ("POST", "cluster/nodes/node-3/promote"),
        ("POST", "cluster/nodes/node-3/demote"),
        ("DELETE", "cluster/nodes/node-3"),
    ];
    let nearly = user(&node, "nearly@test.com", &["role:admin,resource:nodes", "action:exec"]).await;
    admin.post("projects", json!({"name": "demo"})).await.is(201);
    let token = json!({"name": "t", "project": "demo", "roleBindings": [{"role": "admin", "resource": "*"}]});
    let minted = admin.post("mcptokens", token).await.is(201).text("token");
    for (method, path) in ways {
        let reply = nearly.send(method, path, Some("{}".into())).await;
        reply.refuses(403, "forbidden");
        let reply = Client::anybody(&node)
            .bearer(&minted)
            .send(method, path, Some("{}".into()))
            .await;
        reply.refuses(403, "forbidden");
    }
    let may = user(&node, "may@test.com", &["action:cluster"]).await;
    may.post("cluster/join-tokens", json!({})).await.is(201);
    may.post("cluster/nodes/node-3/demote", json!({})).await.is(200);
    may.post("cluster/nodes/node-3/promote", json!({})).await.is(200);
    let removed = may.delete("cluster/nodes/node-3").await.is(200);
    assert_eq!(removed.body["receipt"]["effective"], true);
    assert_eq!(
        removed.body["receipt"]["replicas"][2]["name"], "node-3",
        "it is still called by its name"
    );
    may.delete("cluster/nodes/node-3").await.refuses(404, "not_found");
}

#[tokio::test]
async fn a_page_of_another_origin_is_turned_away() {
    let node = Node::start();
    let page = Client::admin(&node).header("origin", "https://evil.example");
    page.get("auth/whoami").await.refuses(403, "origin_not_allowed");
}
