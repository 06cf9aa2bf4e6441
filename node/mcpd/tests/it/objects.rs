//! Projects, servers, definitions, users, nodes.

use mcp_model::command::Command;
use mcp_model::records::{Health, Offer, ToolList};
use serde_json::json;

use crate::client::{Client, user};
use crate::node::Node;

const TIME: &str = "http://127.0.0.1:9000/mcp";

#[tokio::test]
async fn a_project_lives_from_post_to_delete() {
    let node = Node::start();
    let admin = Client::admin(&node);
    for server in ["git", "time"] {
        admin
            .post("servers", json!({"name": server, "transport": "http", "url": TIME}))
            .await
            .is(201);
    }
    let made = admin
        .post(
            "projects",
            json!({"name": "demo", "servers": ["time", "git"], "toolNaming": "plain"}),
        )
        .await
        .is(201);
    assert_eq!(made.body["servers"], json!(["time", "git"]));
    assert_eq!(
        (made.body["gated"].as_bool(), made.text("toolNaming")),
        (Some(true), "plain".into())
    );
    assert_eq!(made.text("resourceVersion"), made.header("mcp-index"));
    assert_eq!(made.text("createdBy"), "admin@test.com");
    let id = made.text("id");
    let got = admin.get(&format!("projects/{id}")).await.is(200);
    assert_eq!(got.body, admin.get("projects/demo").await.body);
    assert_eq!(got.header("etag"), format!("\"{}\"", got.text("resourceVersion")));
    admin
        .post("projects", json!({"name": "demo"}))
        .await
        .refuses(409, "name_taken");

    let changed = admin
        .patch("projects/demo", json!({"description": "new"}))
        .await
        .is(200);
    assert_eq!(
        (changed.text("description"), changed.body["servers"].clone()),
        ("new".into(), json!(["time", "git"]))
    );
    assert!(changed.body["receipt"].is_null());
    let stale = admin.header("if-match", format!("\"{}\"", got.text("resourceVersion")));
    stale
        .put("projects/demo", json!({}))
        .await
        .refuses(409, "version_mismatch");
    stale.delete("projects/demo").await.refuses(409, "version_mismatch");
    let detached = admin.put("projects/demo", json!({"servers": ["git"]})).await.is(200);
    assert_eq!(detached.body["receipt"]["effective"], true);
    assert_eq!(detached.text("description"), "");
    assert_eq!(admin.get("projects/demo/servers").await.is(200).names(), ["git"]);
    let gone = admin.delete("projects/demo").await.is(200);
    assert_eq!((gone.text("kind"), gone.text("id")), ("project".into(), id));
    admin.get("projects/demo").await.refuses(404, "not_found");
    admin.put("projects/demo", json!({})).await.refuses(404, "not_found");
}

#[tokio::test]
async fn a_server_is_checked_field_by_field() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let cases = [
        (json!({"name": "x"}), vec!["transport"]),
        (
            json!({"name": "x", "transport": "stdio", "url": TIME, "headers": {"a": "b"}}),
            vec!["url", "headers", "command"],
        ),
        (
            json!({"name": "x", "transport": "http", "command": "x", "env": {"A": "b"}}),
            vec!["command", "env", "url"],
        ),
        (json!({"name": "x", "transport": "http", "url": "ftp://x"}), vec!["url"]),
        (
            json!({"name": "x", "transport": "http", "url": "http://u:p@x/"}),
            vec!["url"],
        ),
        (
            json!({"name": "x", "transport": "http", "url": TIME, "connectMs": 0}),
            vec!["connectMs"],
        ),
        (
            json!({"name": "", "transport": "carrier-pigeon"}),
            vec!["name", "transport"],
        ),
        (
            json!({"name": "x", "transport": "stdio", "command": "x", "env": {"A=B": "c"}}),
            vec!["env.A=B"],
        ),
    ];
    for (body, fields) in cases {
        let reply = admin.post("servers", body).await.refuses(422, "invalid");
        assert_eq!(reply.fields(), fields, "{}", reply.raw);
    }
}

#[tokio::test]
async fn a_stdio_server_takes_exec_and_its_environment_is_hidden_from_viewers() {
    let node = Node::start();
    let body =
        json!({"name": "git", "transport": "stdio", "command": "mcp-git", "args": ["-v"], "env": {"KEY": "value"}});
    let alice = user(&node, "alice@test.com", &["role:edit,resource:servers"]).await;
    let reply = alice.post("servers", body.clone()).await.refuses(403, "forbidden");
    assert!(reply.text("detail").contains("action:exec"));
    Client::admin(&node).post("servers", body).await.is(201);
    assert_eq!(alice.get("servers/git").await.is(200).body["env"]["KEY"], "value");
    let bob = user(&node, "bob@test.com", &["role:view,resource:servers"]).await;
    let seen = bob.get("servers/git").await.is(200);
    assert_eq!(
        (seen.body["env"]["KEY"].as_str(), seen.text("command")),
        (Some("(hidden)"), "mcp-git".into())
    );
    let http = json!({"transport": "http", "url": TIME, "headers": {"x-key": "(hidden)"}});
    assert_eq!(
        alice.put("servers/git", http).await.refuses(422, "invalid").fields(),
        ["headers.x-key"]
    );
}

#[tokio::test]
async fn attaching_a_server_takes_run_on_it_whether_or_not_it_exists() {
    let node = Node::start();
    Client::admin(&node)
        .post("servers", json!({"name": "git", "transport": "http", "url": TIME}))
        .await
        .is(201);
    let alice = user(
        &node,
        "alice@test.com",
        &["role:edit,resource:projects", "role:run,resource:servers,name:my-*"],
    )
    .await;
    for server in ["git", "nowhere"] {
        alice
            .post("projects", json!({"name": "p", "servers": [server]}))
            .await
            .refuses(403, "forbidden");
    }
    let reply = alice
        .post(
            "projects",
            json!({"name": "p", "servers": ["my-own"], "toolNaming": "x"}),
        )
        .await;
    assert_eq!(reply.refuses(422, "invalid").fields(), ["toolNaming", "servers[0]"]);
}

#[tokio::test]
async fn lists_hold_what_the_caller_may_see_page_by_page() {
    let node = Node::start();
    let admin = Client::admin(&node);
    for name in ["a-1", "b-1", "a-2", "a-3"] {
        admin
            .post("servers", json!({"name": name, "transport": "http", "url": TIME}))
            .await
            .is(201);
    }
    let alice = user(&node, "alice@test.com", &["role:view,resource:servers,name:a-*"]).await;
    let first = alice.get("servers?limit=2").await.is(200);
    assert_eq!(first.names(), ["a-1", "a-2"]);
    let second = alice
        .get(&format!("servers?limit=2&continue={}", first.text("continue")))
        .await
        .is(200);
    assert_eq!(second.names(), ["a-3"]);
    assert!(second.body["continue"].is_null());
    alice.get("servers/b-1").await.refuses(403, "forbidden");
    alice.get("servers/never-made").await.refuses(403, "forbidden");
    assert_eq!(
        admin
            .get("servers?limit=0&continue=xyz")
            .await
            .refuses(422, "invalid")
            .fields(),
        ["limit", "continue"]
    );
}

#[tokio::test]
async fn tools_come_from_the_replicated_list_as_far_as_the_caller_may_see_them() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let server = admin
        .post("servers", json!({"name": "git", "transport": "http", "url": TIME}))
        .await
        .is(201);
    assert!(admin.get("servers/git/tools").await.is(200).body["healthy"].is_null());
    admin
        .post("projects", json!({"name": "demo", "servers": ["git"]}))
        .await
        .is(201);
    let tools = json!([{"name": "log", "description": "shows"}, {"name": "push"}]).to_string();
    node.by_system(Command::PublishTools {
        list: ToolList {
            server: server.text("id").parse().unwrap(),
            digest: [1; 32],
            offer: Some(Offer {
                tools,
                ..Offer::default()
            }),
            health: Health::Healthy,
            fetched_ms: 1,
            version: 0,
        },
    });
    assert_eq!(
        admin.get("projects/demo/tools").await.is(200).names(),
        ["git__log", "git__push"]
    );
    let bindings = [
        "role:view,resource:projects",
        "role:view,resource:servers,name:x",
        "role:view,resource:tools,name:git/l*",
    ];
    let alice = user(&node, "alice@test.com", &bindings).await;
    assert_eq!(alice.get("projects/demo/tools").await.is(200).names(), ["git__log"]);
    let all = admin.get("servers/git/tools").await.is(200);
    assert_eq!(
        (
            all.body["healthy"].as_bool(),
            all.body["tools"].as_array().unwrap().len()
        ),
        (Some(true), 2)
    );
}

#[tokio::test]
async fn a_definition_is_measured_against_what_its_writer_holds() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let alice = user(
        &node,
        "alice@test.com",
        &["role:admin,resource:rbac", "role:edit,resource:servers"],
    )
    .await;
    let body = |role: &str| {
        json!({"name": "devs", "subjects": [{"kind": "User", "name": "Bob@Test.com"}],
        "roleBindings": [{"role": role, "resource": "server"}, {"role": "view", "resource": "servers", "name": "my-ha"}]})
    };
    alice.post("rbac", body("admin")).await.refuses(403, "forbidden");
    let made = alice.post("rbac", body("edit")).await.is(201);
    assert_eq!(made.body["subjects"], json!([{"kind": "User", "name": "bob@test.com"}]));
    assert_eq!(made.body["roleBindings"][0]["resource"], "servers");
    alice.post("rbac", body("edit")).await.refuses(409, "name_taken");
    let replaced = admin.put("rbac/devs", body("run")).await.is(200);
    assert_eq!(replaced.body["receipt"]["effective"], true);
    assert_eq!(admin.delete("rbac/devs").await.is(200).text("name"), "devs");
    let last = admin.delete("rbac/admin").await.refuses(422, "invalid");
    assert!(last.text("detail").contains("administrator"));
    let bad = json!({"name": "x", "subjects": [{"kind": "Robot", "name": "r"}], "roleBindings": [{"role": "view"}, {"action": "logs", "role": "view"}]});
    let reply = admin.post("rbac", bad).await.refuses(422, "invalid");
    assert_eq!(reply.fields(), ["subjects[0]", "roleBindings[0]", "roleBindings[1]"]);
}

#[tokio::test]
async fn users_are_made_and_disabled_and_their_passwords_never_shown() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let weak = admin
        .post("users", json!({"email": "nobody", "password": "short"}))
        .await
        .refuses(422, "invalid");
    assert_eq!(weak.fields(), ["email", "password"]);
    let made = admin
        .post(
            "users",
            json!({"email": "Bob@Test.com", "name": "Bob", "password": "long enough"}),
        )
        .await
        .is(201);
    assert!(!made.raw.contains("argon2") && !made.raw.contains("long enough"));
    assert_eq!(
        admin.get("users/BOB@test.com").await.is(200).text("email"),
        "bob@test.com"
    );
    admin.get(&format!("users/{}", made.text("id"))).await.is(200);
    let last = admin
        .patch("users/admin@test.com", json!({"disabled": true}))
        .await
        .refuses(422, "invalid");
    assert_eq!(last.fields(), ["disabled"]);
}

#[tokio::test]
async fn nodes_are_shown_as_the_answering_one_sees_them() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let list = admin.get("nodes").await.is(200);
    assert_eq!(list.names(), ["node-1", "node-2", "node-3"]);
    let states: Vec<_> = list.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["leader", "differs", "unreachable"]);
    let one = admin.get("nodes/node-2").await.is(200);
    assert_eq!(one.body, admin.get("nodes/0000000000000002").await.is(200).body);
    let status = admin.get("cluster/status").await.is(200);
    assert_eq!(
        (status.body["lease"].as_bool(), status.body["term"].as_u64()),
        (Some(true), Some(4))
    );
    assert_eq!(
        status.body["compared"],
        json!({"index": "6", "rows": 40, "state": "agrees"})
    );
    assert_eq!(admin.get("version").await.is(200).text("api"), "v1");
}
