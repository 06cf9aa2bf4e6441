//! The golden table of routes and rights (`tests/golden/rights.txt`), written by hand: each right is tried from both sides.

use std::collections::BTreeSet;

use mcp_model::command::Command;
use mcpd::routes::{ROUTES, Right};
use serde_json::{Value, json};

use crate::client::{Client, user};
use crate::node::Node;

/// Every resource that rights are held on, as people call it.
const RESOURCES: [&str; 14] = [
    "users",
    "groups",
    "serviceaccounts",
    "projects",
    "servers",
    "tools",
    "secrets",
    "mcptokens",
    "rbac",
    "audit",
    "nodes",
    "prompts",
    "proxymodels",
    "sessions",
];
/// What the roles hold, by hand once more.
const ROLES: [(&str, &[&str]); 5] = [
    ("view", &["view"]),
    ("run", &["view", "run"]),
    ("create", &["create"]),
    ("delete", &["delete"]),
    ("edit", &["view", "run", "create", "edit", "delete"]),
];

#[derive(Debug)]
struct Line {
    method: String,
    path: String,
    right: Vec<String>,
    token: String,
}

fn table() -> Vec<Line> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rights.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let [method, path, right @ .., token] = words.as_slice() else {
                panic!("{line}")
            };
            Line {
                method: method.clone(),
                path: format!("/api/v1{path}"),
                right: right.to_vec(),
                token: token.clone(),
            }
        })
        .collect()
}

/// The lines that take a right.
fn guarded() -> impl Iterator<Item = Line> {
    table().into_iter().filter(|line| line.right.len() > 1)
}

#[test]
fn the_table_of_routes_says_what_was_written_by_hand() {
    let by_hand: BTreeSet<(String, String, String)> = table()
        .iter()
        .map(|line| {
            let word = |at: usize| line.right[at].as_str();
            let right = match (word(0), line.right.len()) {
                ("nobody", 1) => "nobody".to_owned(),
                ("anybody", 1) => "any caller".to_owned(),
                ("action", 2) => format!("action:{}", word(1)),
                (role, 3) => match word(2) {
                    "any" => format!("role:{role},resource:{}", word(1)),
                    "name" => format!("role:{role},resource:{},name:{{name}}", word(1)),
                    "own" => format!("role:{role},resource:{} or own", word(1)),
                    other => panic!("{other}"),
                },
                _ => panic!("{line:?}"),
            };
            (line.method.clone(), line.path.clone(), right)
        })
        .collect();
    let in_code: BTreeSet<(String, String, String)> = ROUTES
        .iter()
        .map(|route| {
            let right = match route.right() {
                None => "nobody".to_owned(),
                Some(Right::Token(verb)) => format!("role:{},resource:mcptokens or own", verb.least_role().as_str()),
                Some(Right::Session(verb)) => format!("role:{},resource:sessions or own", verb.least_role().as_str()),
                Some(Right::Cluster) => "action:cluster".to_owned(),
                Some(Right::Logs) => "action:logs".to_owned(),
                Some(Right::Restore) => "action:restore".to_owned(),
                Some(right) => right.to_string(),
            };
            (route.method().to_string(), route.path().to_owned(), right)
        })
        .collect();
    assert_eq!(by_hand, in_code);
    assert_eq!(table().len(), ROUTES.len(), "a route stands there twice");
}

/// A node with one of everything.
struct World {
    node: Node,
    token: String,
    session: String,
    join_token: String,
    /// The bearer of a token of project `demo` that was granted everything.
    bearer: String,
}

async fn world() -> World {
    let node = Node::start();
    let admin = Client::admin(&node);
    let things = [
        ("users", json!({"email": "demo@test.com"})),
        ("users", json!({"email": "someone@test.com"})),
        ("groups", json!({"name": "demo", "members": []})),
        ("serviceaccounts", json!({"name": "demo"})),
        ("secrets", json!({"name": "demo", "data": {"k": "v"}})),
        (
            "servers",
            json!({"name": "demo", "transport": "http", "url": "http://127.0.0.1:9/mcp"}),
        ),
        ("projects", json!({"name": "demo", "servers": ["demo"]})),
        (
            "rbac",
            json!({"name": "demo", "subjects": [{"kind": "Group", "name": "demo"}], "roleBindings": [{"action": "logs"}]}),
        ),
    ];
    let mut ids = Vec::new();
    for (path, body) in things {
        ids.push(admin.post(path, body).await.is(201).text("id"));
    }
    let all = json!([{"role": "admin", "resource": "*"}]);
    let mint = |name: &str| json!({"name": name, "project": "demo", "roleBindings": all});
    let token = admin.post("mcptokens", mint("ci")).await.is(201).text("id");
    let bearer = admin.post("mcptokens", mint("all")).await.is(201).text("token");
    node.session_of(ids[1].parse().unwrap());
    let sessions = admin.get("sessions?user=someone@test.com").await.is(200);
    let session = sessions.body["items"][0]["id"].as_str().unwrap().to_owned();
    let keep = Command::KeepAuthority {
        certificate: vec![1],
        sealed_key: vec![2],
    };
    node.by_system(keep);
    let join_token = admin.post("cluster/join-tokens", json!({})).await.is(201).text("id");
    World {
        node,
        token,
        session,
        join_token,
        bearer,
    }
}

impl World {
    /// The path with names of things that are there.
    fn path(&self, line: &Line) -> String {
        let id = match &line.path {
            path if path.contains("/sessions/") => &self.session,
            path if path.contains("/join-tokens/") => &self.join_token,
            _ => &self.token,
        };
        line.path.replace("{name}", &name_in(&line.path)).replace("{id}", id)
    }
}

/// Tokens and sessions are not there for who may not see them. Join tokens are told apart by nothing but the action.
fn hides_what_is_there(line: &Line) -> bool {
    line.path.contains("{id}") && line.right[0] != "action"
}

fn name_in(path: &str) -> String {
    match path {
        path if path.contains("/users/") => "demo@test.com".to_owned(),
        path if path.contains("/nodes/") => "node-2".to_owned(),
        _ => "demo".to_owned(),
    }
}

/// The name that the line's right is held on.
fn held_on(line: &Line) -> Option<String> {
    match (line.right.get(2).map(String::as_str), line.right[1].as_str()) {
        (Some("name"), _) => Some(name_in(&line.path)),
        (Some("own"), "mcptokens") => Some("demo/ci".to_owned()),
        (Some("own"), _) => Some("someone@test.com".to_owned()),
        _ => None,
    }
}

/// Everything but the right of this line: `admin` on all other resources, the roles that lack the verb on its own, the same
/// role on another name, and all other actions.
fn all_but(line: &Line) -> Vec<String> {
    let (verb, resource) = (line.right[0].as_str(), line.right[1].as_str());
    let others = RESOURCES.iter().filter(|r| **r != resource || verb == "action");
    let mut bindings: Vec<String> = others.map(|r| format!("role:admin,resource:{r}")).collect();
    let lacking = ROLES
        .iter()
        .filter(|(_, verbs)| verb != "action" && !verbs.contains(&verb));
    bindings.extend(lacking.map(|(role, _)| format!("role:{role},resource:{resource}")));
    if held_on(line).is_some() {
        bindings.push(format!("role:admin,resource:{resource},name:another"));
    }
    let actions = ["logs", "backup", "cluster", "exec"]
        .into_iter()
        .filter(|a| verb != "action" || *a != resource);
    bindings.extend(actions.map(|action| format!("action:{action}")));
    bindings
}

/// All that it takes: restoring needs the action and everything else besides, logs seeing the server.
fn all_of(line: &Line) -> Vec<String> {
    let more = match line.right[1].as_str() {
        "restore" => Some("role:admin,resource:*".to_owned()),
        "logs" => Some("role:view,resource:servers,name:demo".to_owned()),
        _ => None,
    };
    more.into_iter().chain([exactly(line)]).collect()
}

fn exactly(line: &Line) -> String {
    let (role, resource) = (&line.right[0], &line.right[1]);
    match (role.as_str(), held_on(line)) {
        ("action", _) => format!("action:{resource}"),
        (_, Some(name)) => format!("role:{role},resource:{resource},name:{name}"),
        (_, None) => format!("role:{role},resource:{resource},name:de*"),
    }
}

#[tokio::test]
async fn everything_but_the_right_that_a_route_takes_is_not_enough() {
    let world = world().await;
    for (at, line) in guarded().enumerate() {
        let bindings = all_but(&line);
        let bindings: Vec<&str> = bindings.iter().map(String::as_str).collect();
        let almost = user(&world.node, &format!("almost-{at}@test.com"), &bindings).await;
        let reply = almost.send(&line.method, &world.path(&line), Some("{}".into())).await;
        // What may not even be known of is not there. Somebody who may see it is told what they lack.
        let hidden = hides_what_is_there(&line)
            && !bindings.contains(&"role:view,resource:mcptokens")
            && !bindings.contains(&"role:view,resource:sessions");
        let (status, code) = if hidden { (404, "not_found") } else { (403, "forbidden") };
        assert_eq!(
            (reply.status.as_u16(), reply.body["code"].as_str()),
            (status, Some(code)),
            "{line:?}: {}",
            reply.raw
        );
    }
}

#[tokio::test]
async fn the_right_that_a_route_takes_is_enough_to_be_heard() {
    let world = world().await;
    let (removals, others): (Vec<Line>, Vec<Line>) = guarded().partition(|line| line.method == "DELETE");
    // Tokens go before their project does.
    for (at, line) in others.iter().chain(removals.iter().rev()).enumerate() {
        let binding = all_of(line);
        let binding: Vec<&str> = binding.iter().map(String::as_str).collect();
        let caller = user(&world.node, &format!("caller-{at}@test.com"), &binding).await;
        // A fault of the body is told to whoever may come that far.
        let body = (line.method != "GET" && line.method != "DELETE").then(|| r#"{"colour":1}"#.to_owned());
        let reply = caller.send(&line.method, &world.path(line), body).await;
        let status = reply.status.as_u16();
        assert!(
            ![401, 403, 404].contains(&status),
            "{line:?} with {binding:?}: {}",
            reply.raw
        );
        if line.method == "GET" {
            assert_eq!(status, 200, "{line:?}: {}", reply.raw);
        }
    }
}

#[tokio::test]
async fn a_token_comes_as_far_as_its_project_and_rule_1_let_it() {
    let world = world().await;
    let token = Client::anybody(&world.node).bearer(&world.bearer);
    for line in guarded() {
        // Its own project is deleted last of all, and a server of it would be gone for the lines behind.
        if line.method == "DELETE" && line.token == "yes" {
            continue;
        }
        // A fault of the body changes nothing, and is told to whoever may come that far.
        let body = Some(r#"{"colour":1}"#.to_owned());
        let reply = token.send(&line.method, &world.path(&line), body).await;
        match line.token.as_str() {
            "yes" => assert!(
                ![401, 403, 404].contains(&reply.status.as_u16()),
                "{line:?}: {}",
                reply.raw
            ),
            "no" => {
                let expected = if hides_what_is_there(&line) { 404 } else { 403 };
                assert_eq!(reply.status.as_u16(), expected, "{line:?}: {}", reply.raw);
            }
            other => panic!("{other}"),
        }
    }
    // What the last column cannot say: beyond its project there is nothing.
    let admin = Client::admin(&world.node);
    let other = json!({"name": "other", "transport": "http", "url": "http://127.0.0.1:9/mcp"});
    admin.post("servers", other).await.is(201);
    admin.post("projects", json!({"name": "other"})).await.is(201);
    for (method, path) in [
        ("GET", "servers/other"),
        ("DELETE", "servers/other"),
        ("GET", "projects/other"),
        ("PATCH", "projects/other"),
        ("GET", "projects/other/tools"),
    ] {
        let reply = token.send(method, path, Some("{}".into())).await;
        reply.refuses(403, "forbidden");
    }
    assert_eq!(token.get("projects").await.is(200).names(), ["demo"]);
    assert_eq!(token.get("servers").await.is(200).names(), ["demo"]);
    let made = json!({"name": "third", "transport": "http", "url": "http://127.0.0.1:9/mcp"});
    token.post("servers", made).await.refuses(403, "forbidden");
    for path in ["servers/demo", "projects/demo"] {
        token.delete(path).await.is(200);
    }
}

#[tokio::test]
async fn can_i_says_of_every_route_what_the_route_itself_says() {
    let world = world().await;
    for (at, line) in guarded().enumerate() {
        let name = held_on(&line).map_or_else(String::new, |name| format!("&name={name}"));
        let query = match line.right[0].as_str() {
            "action" => format!("auth/can-i?action={}", line.right[1]),
            verb => format!("auth/can-i?verb={verb}&resource={}{name}", line.right[1]),
        };
        let bindings = all_but(&line);
        let bindings: Vec<&str> = bindings.iter().map(String::as_str).collect();
        let without = user(&world.node, &format!("without-{at}@test.com"), &bindings).await;
        let with = all_of(&line);
        let with: Vec<&str> = with.iter().map(String::as_str).collect();
        let with = user(&world.node, &format!("with-{at}@test.com"), &with).await;
        for (caller, allowed) in [(without, false), (with, true)] {
            let reply = caller.get(&query).await.is(200);
            assert_eq!(
                reply.body["allowed"],
                Value::Bool(allowed),
                "{line:?} {query}: {}",
                reply.raw
            );
        }
    }
}
