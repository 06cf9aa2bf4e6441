//! What children of servers have written, as the control plane shows it.

use serde_json::json;

use crate::client::{Client, user};
use crate::node::Node;

#[tokio::test]
async fn lines_of_all_nodes_come_by_time_with_where_to_go_on_and_who_was_not_reached() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let server = json!({"name": "time", "transport": "stdio", "command": "x"});
    admin.post("servers", server).await.is(201);
    let texts = |body: &serde_json::Value| -> Vec<String> {
        let lines = body["lines"].as_array().unwrap();
        let line = |line: &serde_json::Value| format!("{} {}", line["node"], line["text"].as_str().unwrap());
        lines.iter().map(line).collect()
    };
    let all = admin.get("servers/time/logs").await.is(200).body;
    assert_eq!(
        texts(&all),
        ["\"node-1\" one", "\"node-2\" two \u{1b}[31m", "\"node-1\" three"]
    );
    assert_eq!(
        (&all["server"], &all["unreached"]),
        (&json!("time"), &json!(["node-3"]))
    );
    let after = all["after"].as_str().unwrap();
    assert_eq!(after, "0000000000000001:11,0000000000000002:20");
    // What was read does not come again, whoever was not reached is remembered as it was.
    let again = admin
        .get(&format!("servers/time/logs?after={after}"))
        .await
        .is(200)
        .body;
    assert_eq!((texts(&again).len(), again["after"].as_str().unwrap()), (0, after));
    let one = admin.get("servers/time/logs?node=node-1&tail=1").await.is(200).body;
    assert_eq!(texts(&one), ["\"node-1\" three"]);
    assert_eq!(one["unreached"], serde_json::Value::Null);

    for (query, field) in [
        ("tail=-1", "tail"),
        ("tail=2001", "tail"),
        ("sinceSeconds=x", "sinceSeconds"),
        ("after=7", "after"),
    ] {
        let reply = admin.get(&format!("servers/time/logs?{query}")).await;
        assert_eq!(reply.body["errors"][0]["field"], field, "{}", reply.raw);
        reply.refuses(422, "invalid");
    }
    admin
        .get("servers/time/logs?node=node-9")
        .await
        .refuses(404, "not_found");
    admin.get("servers/none/logs").await.refuses(404, "not_found");
}

#[tokio::test]
async fn logs_take_their_action_and_seeing_the_server() {
    let node = Node::start();
    let admin = Client::admin(&node);
    let server = json!({"name": "time", "transport": "stdio", "command": "x"});
    admin.post("servers", server).await.is(201);
    for (at, (bindings, may)) in [
        (&["role:admin,resource:servers"] as &[&str], false),
        (&["action:logs"], false),
        (&["action:logs", "role:view,resource:servers,name:other"], false),
        (&["action:logs", "role:view,resource:servers,name:time"], true),
    ]
    .into_iter()
    .enumerate()
    {
        let who = user(&node, &format!("user-{at}@test.com"), bindings).await;
        let reply = who.get("servers/time/logs").await;
        match may {
            true => drop(reply.is(200)),
            false => drop(reply.refuses(403, "forbidden")),
        }
    }
}
