//! Every change that takes a right away, with one replica frozen: the receipt is honest, and the right is gone on every node when it
//! is answered, on the frozen one, too, when it wakes.

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::cluster::three_voters;
use super::machines::{Machine, PASSWORD};
use super::{mcpnode, until};

/// One change: what it is, and the request. `{id}` is the token's, `{n}` the row's number.
struct Row(&'static str, &'static str, &'static str, Value);

fn rows() -> Vec<Row> {
    let view = json!([{"role": "view", "resource": "users"}]);
    let user = |n: &str| json!([{"kind": "User", "name": format!("bob{n}@example.com")}]);
    vec![
        Row("token revoke", "POST", "mcptokens/{id}/revoke", json!({})),
        Row("token delete", "DELETE", "mcptokens/{id}", json!({})),
        Row(
            "user disable",
            "PATCH",
            "users/bob{n}@example.com",
            json!({"disabled": true}),
        ),
        Row("user delete", "DELETE", "users/bob{n}@example.com", json!({})),
        Row("group membership", "PATCH", "groups/group{n}", json!({"members": []})),
        Row("group delete", "DELETE", "groups/group{n}", json!({})),
        Row(
            "rbac edit",
            "PUT",
            "rbac/rbac{n}",
            json!({"subjects": user("{n}"), "roleBindings": view}),
        ),
        Row("rbac delete", "DELETE", "rbac/rbac{n}", json!({})),
        Row("server detach", "PATCH", "projects/p{n}", json!({"servers": []})),
        Row("server delete", "DELETE", "servers/s{n}", json!({})),
        Row("project delete", "DELETE", "projects/p{n}", json!({})),
    ]
}

/// A project with a server, a user with the right to run it, by a group or by a definition, and a token of theirs. Gives the token and
/// its id.
fn set_up(one: &Machine, admin: &str, n: usize, by_group: bool) -> (String, String) {
    let email = format!("bob{n}@example.com");
    let server = json!({"name": format!("s{n}"), "transport": "stdio", "command": mcpnode(), "args": ["demo-server"]});
    one.must("POST", "servers", admin, &server);
    let project = json!({"name": format!("p{n}"), "servers": [format!("s{n}")], "toolNaming": "plain"});
    one.must("POST", "projects", admin, &project);
    one.must("POST", "users", admin, &json!({"email": email, "password": PASSWORD}));
    let members = if by_group { json!([email]) } else { json!([]) };
    one.must(
        "POST",
        "groups",
        admin,
        &json!({"name": format!("group{n}"), "members": members}),
    );
    let run = json!([{"role": "run", "resource": "servers"}]);
    let (kind, name) = if by_group {
        ("Group", format!("group{n}"))
    } else {
        ("User", email.clone())
    };
    let subjects = json!([{"kind": kind, "name": name}]);
    one.must(
        "POST",
        "rbac",
        admin,
        &json!({"name": format!("rbac{n}"), "subjects": subjects, "roleBindings": run}),
    );
    let mint = json!([{"role": "create", "resource": "mcptokens"}]);
    let subjects = json!([{"kind": "User", "name": email}]);
    one.must(
        "POST",
        "rbac",
        admin,
        &json!({"name": format!("mint{n}"), "subjects": subjects, "roleBindings": mint}),
    );
    let login = json!({"email": email, "password": PASSWORD});
    let (status, session) = one.send("POST", "auth/login", None, Some(&login));
    assert_eq!(status, 200, "{session}");
    let session = session["token"].as_str().unwrap();
    let token = json!({"name": "t", "project": format!("p{n}"), "roleBindings": run});
    let minted = one.must("POST", "mcptokens", session, &token);
    let text = |key: &str| minted[key].as_str().unwrap().to_owned();
    (text("token"), text("id"))
}

/// Whether a call goes through: HTTP 200 with a result and no error.
fn works(machine: &Machine, n: usize, token: &str) -> bool {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"message": "hi"}}});
    let path = format!("/projects/p{n}/mcp");
    let said = super::machines::ask(machine.gateway, "POST", &path, Some(token), Some(&body));
    said.is_some_and(|(status, answer)| status == 200 && answer["error"].is_null() && !answer["result"].is_null())
}

#[test]
fn every_restriction_waits_for_a_frozen_replica_and_is_in_force_when_it_wakes() {
    let root = tempfile::tempdir().unwrap();
    let ([one, mut two, three], session) = three_voters(root.path());
    for (n, Row(what, method, path, body)) in rows().into_iter().enumerate() {
        let by_group = what.starts_with("group");
        let (token, id) = set_up(&one, &session, n, by_group);
        for machine in [&one, &two, &three] {
            until(&format!("{what}: the call goes through"), || works(machine, n, &token));
        }
        let fill = |text: &str| text.replace("{id}", &id).replace("{n}", &n.to_string());
        let body: Value = serde_json::from_str(&fill(&body.to_string())).unwrap();
        kill(two.pid(), Signal::SIGSTOP).unwrap();
        let (status, answer) = one.send(method, &fill(path), Some(&session), Some(&body));
        kill(two.pid(), Signal::SIGCONT).unwrap();
        // It wakes and would serve what waits at its socket at once.
        let woken = works(&two, n, &token);
        assert!(!woken, "{what}: the frozen replica admits after {answer}");
        assert_eq!(
            (status, &answer["receipt"]["effective"]),
            (200, &json!(true)),
            "{what}: {answer}"
        );
        let lines = answer["receipt"]["replicas"].as_array().unwrap();
        let frozen = lines.iter().find(|line| line["name"] == "node-2").unwrap();
        assert_eq!(frozen["proof"], "lease_ran_out", "{what}: {answer}");
        for machine in [&one, &three] {
            assert!(
                !works(machine, n, &token),
                "{what}: {} admits after {answer}",
                machine.name
            );
        }
        two.ready();
        for machine in [&one, &two, &three] {
            assert!(!works(machine, n, &token), "{what}: {} admits later", machine.name);
        }
    }
}
