//! Every change that takes a right away, with one replica frozen: the receipt is honest, and the right is gone on every node when it
//! is answered, on the frozen one, too, when it wakes.

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::cluster::three_voters;
use super::machines::{Machine, PASSWORD};
use super::{mcpnode, until};

/// What a change takes away: that the token's calls go through, or that a session of the user, or of the service account, is let in.
#[derive(Clone, Copy, PartialEq)]
enum Lost {
    Call,
    Session,
    ServiceSession,
}

/// One change: what it is, what it takes away, and the request. `{id}` is the token's, `{n}` the row's number. A request that is the user's own is
/// made with `their own` session.
struct Row(&'static str, Lost, &'static str, &'static str, Value);

fn rows() -> Vec<Row> {
    use Lost::{Call, ServiceSession, Session};
    let view = json!([{"role": "view", "resource": "users"}]);
    let user = |n: &str| json!([{"kind": "User", "name": format!("bob{n}@example.com")}]);
    let other_password = "another long password";
    vec![
        Row("token revoke", Call, "POST", "mcptokens/{id}/revoke", json!({})),
        Row("token delete", Call, "DELETE", "mcptokens/{id}", json!({})),
        Row(
            "user disable",
            Call,
            "PATCH",
            "users/bob{n}@example.com",
            json!({"disabled": true}),
        ),
        Row("user delete", Call, "DELETE", "users/bob{n}@example.com", json!({})),
        Row(
            "group membership",
            Call,
            "PATCH",
            "groups/group{n}",
            json!({"members": []}),
        ),
        Row("group delete", Call, "DELETE", "groups/group{n}", json!({})),
        Row(
            "rbac edit",
            Call,
            "PUT",
            "rbac/rbac{n}",
            json!({"subjects": user("{n}"), "roleBindings": view}),
        ),
        Row("rbac delete", Call, "DELETE", "rbac/rbac{n}", json!({})),
        Row("server detach", Call, "PATCH", "projects/p{n}", json!({"servers": []})),
        Row(
            "server update",
            Call,
            "PATCH",
            "servers/s{n}",
            json!({"command": "/there/is/no/such/program"}),
        ),
        Row("server delete", Call, "DELETE", "servers/s{n}", json!({})),
        Row("project delete", Call, "DELETE", "projects/p{n}", json!({})),
        Row(
            "secret rotate",
            Call,
            "PUT",
            "secrets/x{n}",
            json!({"data": {"other": "value"}}),
        ),
        Row("secret delete", Call, "DELETE", "secrets/x{n}", json!({})),
        Row("session close by its owner", Session, "POST", "auth/logout", json!({})),
        Row(
            "session close by another",
            Session,
            "DELETE",
            "sessions/{session}",
            json!({}),
        ),
        Row(
            "password change",
            Session,
            "POST",
            "auth/password",
            json!({"oldPassword": PASSWORD, "newPassword": other_password}),
        ),
        Row(
            "password reset",
            Session,
            "POST",
            "users/bob{n}@example.com/password",
            json!({"password": other_password}),
        ),
        Row(
            "user delete, their session",
            Session,
            "DELETE",
            "users/bob{n}@example.com",
            json!({}),
        ),
        Row(
            "service account delete",
            ServiceSession,
            "DELETE",
            "serviceaccounts/a{n}",
            json!({}),
        ),
        Row(
            "service account's session close",
            ServiceSession,
            "DELETE",
            "sessions/{service session}",
            json!({}),
        ),
    ]
}

/// Whoever has something to lose.
struct Holder {
    token: String,
    id: String,
    /// The user's, and another that does not have to last.
    session: String,
    other_session: String,
    service_session: String,
    service_session_id: String,
}

/// A project with a server that needs a secret, a user with the right to run it, by a group or by a definition, a token of theirs, and a service account.
fn set_up(one: &Machine, admin: &str, n: usize, by_group: bool) -> Holder {
    let email = format!("bob{n}@example.com");
    let make = |kind: &str, body: Value| one.must("POST", kind, admin, &body);
    make("secrets", json!({"name": format!("x{n}"), "data": {"key": "value"}}));
    let env = json!({"NEEDED": format!("${{secret:x{n}/key}}")});
    make(
        "servers",
        json!({"name": format!("s{n}"), "transport": "stdio", "command": mcpnode(), "args": ["demo-server"], "env": env}),
    );
    make(
        "projects",
        json!({"name": format!("p{n}"), "servers": [format!("s{n}")], "toolNaming": "plain"}),
    );
    make("users", json!({"email": email, "password": PASSWORD}));
    let members = if by_group { json!([email]) } else { json!([]) };
    make("groups", json!({"name": format!("group{n}"), "members": members}));
    let run = json!([{"role": "run", "resource": "servers"}]);
    let (kind, name) = if by_group {
        ("Group", format!("group{n}"))
    } else {
        ("User", email.clone())
    };
    let subjects = json!([{"kind": kind, "name": name}]);
    make(
        "rbac",
        json!({"name": format!("rbac{n}"), "subjects": subjects, "roleBindings": run}),
    );
    let mint = json!([{"role": "create", "resource": "mcptokens"}]);
    let subjects = json!([{"kind": "User", "name": email}]);
    make(
        "rbac",
        json!({"name": format!("mint{n}"), "subjects": subjects, "roleBindings": mint}),
    );
    make("serviceaccounts", json!({"name": format!("a{n}")}));
    let opened = make(&format!("serviceaccounts/a{n}/sessions"), json!({}));
    let log_in = || {
        let login = json!({"email": email, "password": PASSWORD});
        let (status, session) = one.send("POST", "auth/login", None, Some(&login));
        assert_eq!(status, 200, "{session}");
        session["token"].as_str().unwrap().to_owned()
    };
    let (session, other_session) = (log_in(), log_in());
    let token = json!({"name": "t", "project": format!("p{n}"), "roleBindings": run});
    let minted = one.must("POST", "mcptokens", &session, &token);
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_else(|| panic!("{of}")).to_owned();
    Holder {
        token: text(&minted, "token"),
        id: text(&minted, "id"),
        session,
        other_session,
        service_session: text(&opened, "token"),
        service_session_id: text(&opened, "id"),
    }
}

impl Holder {
    /// Whether a node still grants what is to be lost.
    fn has(&self, lost: Lost, machine: &Machine, n: usize) -> bool {
        match lost {
            Lost::Call => works(machine, n, &self.token),
            Lost::Session => lets_in(machine, &self.session),
            Lost::ServiceSession => lets_in(machine, &self.service_session),
        }
    }
}

/// The id of the session that a bearer is.
fn id_of(machine: &Machine, bearer: &str) -> String {
    let own = machine.must("GET", "sessions", bearer, &Value::Null);
    let mut all = own["items"].as_array().unwrap().iter();
    let mine = all.find(|session| session["current"] == true);
    mine.unwrap_or_else(|| panic!("{own}"))["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn lets_in(machine: &Machine, session: &str) -> bool {
    let said = super::machines::ask(machine.api, "GET", "/api/v1/auth/whoami", Some(session), None);
    said.is_some_and(|(status, _)| status == 200)
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
    let ([one, mut two, three], admin) = three_voters(root.path());
    for (n, Row(what, lost, method, path, body)) in rows().into_iter().enumerate() {
        let holder = set_up(&one, &admin, n, what.starts_with("group"));
        for machine in [&one, &two, &three] {
            until(&format!("{what}: it is let in"), || holder.has(lost, machine, n));
        }
        let session_id = if path.contains("{session}") {
            id_of(&one, &holder.session)
        } else {
            String::new()
        };
        let fill = |text: &str| {
            text.replace("{id}", &holder.id)
                .replace("{n}", &n.to_string())
                .replace("{session}", &session_id)
                .replace("{service session}", &holder.service_session_id)
        };
        let by = match path {
            "auth/logout" => &holder.session,
            // The session that changes the password stays.
            "auth/password" => &holder.other_session,
            _ => &admin,
        };
        let body: Value = serde_json::from_str(&fill(&body.to_string())).unwrap();
        kill(two.pid(), Signal::SIGSTOP).unwrap();
        let (status, answer) = one.send(method, &fill(path), Some(by), Some(&body));
        kill(two.pid(), Signal::SIGCONT).unwrap();
        // It wakes and would serve what waits at its socket at once.
        let woken = holder.has(lost, &two, n);
        assert!(!woken, "{what}: the frozen replica admits after {answer}");
        assert_eq!(
            (status, &answer["receipt"]["effective"]),
            (200, &json!(true)),
            "{what}: {answer}"
        );
        assert_eq!(proof_of(&answer, "node-2"), "lease_ran_out", "{what}: {answer}");
        for machine in [&one, &three] {
            assert!(
                !holder.has(lost, machine, n),
                "{what}: {} admits after {answer}",
                machine.name
            );
        }
        two.ready();
        for machine in [&one, &two, &three] {
            assert!(!holder.has(lost, machine, n), "{what}: {} admits later", machine.name);
        }
    }
    removal_of_a_frozen_node(&one, &two, &three, &admin, rows().len());
}

fn proof_of(answer: &Value, node: &str) -> String {
    let lines = answer["receipt"]["replicas"].as_array().unwrap();
    let line = lines.iter().find(|line| line["name"] == node);
    line.unwrap_or_else(|| panic!("{answer}"))["proof"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A node that is taken out while it is frozen admits nobody any more when that is answered, though what it knew was right then; and the others go on.
fn removal_of_a_frozen_node(one: &Machine, two: &Machine, three: &Machine, admin: &str, n: usize) {
    let holder = set_up(one, admin, n, false);
    for machine in [one, two, three] {
        until("the call goes through", || works(machine, n, &holder.token));
    }
    kill(two.pid(), Signal::SIGSTOP).unwrap();
    let (status, answer) = one.send("DELETE", "cluster/nodes/node-2", Some(admin), Some(&json!({})));
    kill(two.pid(), Signal::SIGCONT).unwrap();
    let woken = works(two, n, &holder.token);
    assert!(!woken, "the removed replica admits after {answer}");
    assert_eq!(
        (status, &answer["receipt"]["effective"]),
        (200, &json!(true)),
        "{answer}"
    );
    assert_eq!(proof_of(&answer, "node-2"), "lease_ran_out", "{answer}");
    for machine in [one, three] {
        assert!(works(machine, n, &holder.token), "{} goes on", machine.name);
    }
    assert!(!works(two, n, &holder.token) && !lets_in(two, &holder.session));
}
