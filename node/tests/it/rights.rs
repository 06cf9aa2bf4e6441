//! Rights and secrets on three machines: what is written through one holds on all of them, at once where it takes away.

use std::path::Path;

use serde_json::{Value, json};

use super::cluster::{founded, voters};
use super::machines::{Machine, ask};
use super::{mcpnode, until};

/// Three machines and the administrator's session.
fn three(root: &Path) -> ([Machine; 3], String) {
    let (one, session) = founded(root, "node-1");
    let file = root.join("join.token");
    let [mut two, mut three] = ["node-2", "node-3"].map(|name| Machine::new(root, name));
    for machine in [&mut two, &mut three] {
        one.join_token(&session, &json!({}), &file);
        machine.join_and_run(&one.peers_at(), &file);
        machine.ready();
    }
    voters(&one, &session, &["node-1", "node-2", "node-3"]);
    ([one, two, three], session)
}

/// One call of the demo's `echo`: the status, and the JSON-RPC error code, 0 for none.
fn echo(machine: &Machine, token: &str) -> (u16, i64) {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"message": "hi"}}});
    let answer = ask(machine.gateway, "POST", "/projects/demo/mcp", Some(token), Some(&body));
    answer.map_or((0, 0), |(status, body)| {
        (status, body["error"]["code"].as_i64().unwrap_or(0))
    })
}

/// A server that starts only if its environment holds what it is told to expect.
fn demo(machine: &Machine, session: &str) {
    machine.must(
        "POST",
        "secrets",
        session,
        &json!({"name": "git", "data": {"key": "canary-one"}}),
    );
    let script = "test \"$KEY\" = \"$WANTED\" && exec \"$0\" demo-server";
    let server = json!({"name": "demo", "transport": "stdio", "command": "sh", "args": ["-c", script, mcpnode()],
        "env": {"KEY": "${secret:git/key}", "WANTED": "canary-one"}});
    machine.must("POST", "servers", session, &server);
    machine.must(
        "POST",
        "projects",
        session,
        &json!({"name": "demo", "servers": ["demo"], "toolNaming": "plain"}),
    );
}

/// Mints a token under a key of its own name.
fn mint(machine: &Machine, session: &str, name: &str) -> Value {
    let bindings = json!([{"role": "run", "resource": "servers"}]);
    let body = json!({"name": name, "project": "demo", "roleBindings": bindings});
    machine.keyed("POST", "mcptokens", session, name, &body)
}

/// Every file of a machine that holds the text.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path)
            .unwrap()
            .windows(text.len())
            .any(|w| w == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_secret_opens_on_every_machine_and_a_rotated_one_is_used_nowhere_any_more() {
    let root = tempfile::tempdir().unwrap();
    let (machines, session) = three(root.path());
    let [one, two, three] = &machines;
    demo(one, &session);
    let minted = mint(two, &session, "ci");
    let token = minted["token"].as_str().unwrap();
    // The same request through another machine is the same token, and does not show it again.
    let again = mint(three, &session, "ci");
    assert_eq!(
        (again["id"].clone(), again["token"].clone()),
        (minted["id"].clone(), Value::Null)
    );
    for machine in &machines {
        until("the server has what it was given", || echo(machine, token) == (200, 0));
    }
    let change = json!({"data": {"key": "canary-two"}});
    let rotated = three.must("PATCH", "secrets/git", &session, &change);
    assert_eq!(rotated["receipt"]["effective"], true, "{rotated}");
    // No call after that answer is served by a child with the old value.
    for machine in &machines {
        assert_eq!(echo(machine, token), (200, -32010), "{}", machine.name);
    }
    let back = json!({"data": {"key": "canary-one"}});
    one.must("PATCH", "secrets/git", &session, &back);
    for machine in &machines {
        until("the server has it again", || echo(machine, token) == (200, 0));
        // What the server is told to expect stands in its definition; the secret's values stand nowhere.
        let found = files_with(&machine.dir, "canary-two");
        assert!(found.is_empty(), "{found:?}");
        assert!(!machine.logged().contains("canary"), "{}", machine.name);
    }
}

#[test]
fn a_user_who_is_disabled_or_leaves_a_group_is_refused_by_every_machine_from_the_answer_on() {
    let root = tempfile::tempdir().unwrap();
    let (machines, session) = three(root.path());
    let [one, two, three] = &machines;
    demo(one, &session);
    let password = "long enough to do";
    one.must(
        "POST",
        "users",
        &session,
        &json!({"email": "bob@example.com", "password": password}),
    );
    // Through the machine that has seen the user: another may be a moment behind, and says that there is none.
    one.must(
        "POST",
        "groups",
        &session,
        &json!({"name": "ops", "members": ["bob@example.com"]}),
    );
    let bindings = json!([{"role": "run", "resource": "servers"}, {"role": "create", "resource": "mcptokens"}]);
    let rbac = json!({"name": "ops", "subjects": [{"kind": "Group", "name": "ops"}], "roleBindings": bindings});
    three.must("POST", "rbac", &session, &rbac);
    let login = json!({"email": "bob@example.com", "password": password});
    let (status, opened) = two.send("POST", "auth/login", None, Some(&login));
    assert_eq!(status, 200, "{opened}");
    let bob = opened["token"].as_str().unwrap();
    let minted = mint(three, bob, "bobs");
    let token = minted["token"].as_str().unwrap();
    for machine in &machines {
        until("the call goes through", || echo(machine, token) == (200, 0));
    }
    let left = one.must(
        "PATCH",
        "groups/ops",
        &session,
        &json!({"removeMembers": ["bob@example.com"]}),
    );
    assert_eq!(left["receipt"]["effective"], true, "{left}");
    for machine in &machines {
        assert_eq!(echo(machine, token), (200, -32602), "{}", machine.name);
    }
    two.must(
        "PATCH",
        "groups/ops",
        &session,
        &json!({"addMembers": ["bob@example.com"]}),
    );
    until("he is back", || {
        machines.iter().all(|machine| echo(machine, token) == (200, 0))
    });
    let off = three.must("PATCH", "users/bob@example.com", &session, &json!({"disabled": true}));
    assert_eq!(off["receipt"]["effective"], true, "{off}");
    for machine in &machines {
        assert_eq!(echo(machine, token).0, 401, "{}", machine.name);
        assert_eq!(
            machine.send("GET", "auth/whoami", Some(bob), None).0,
            401,
            "{}",
            machine.name
        );
    }
}
