//! A machine whose state is another than the others', with every checksum right: what it and the others say of that, and how it comes back.

use std::path::Path;
use std::sync::Arc;

use mcp_model::frame;
use mcp_model::records::User;
use mcp_model::tables::{self, Stored, Table};
use mcp_store::{Replica, ReplicaOptions};
use serde_json::Value;

use super::cluster::{demo, three_voters};
use super::machines::{Machine, ask};
use super::until;

/// Gives the first user another name in the state of a node that is stopped.
fn alter(dir: &Path) {
    let options = ReplicaOptions {
        lease_ms: 2_000,
        had_data: true,
        random: Arc::new(|| 7),
    };
    let replica = Replica::open(dir, options).unwrap();
    let users = replica.read(|t| tables::list::<User>(t, None, 1)).unwrap();
    let altered = User {
        name: "Mallory".to_owned(),
        ..users[0].clone()
    };
    let bytes = frame::encode(&altered);
    replica.alter(Table::Users, &altered.key(), bytes).unwrap();
    replica.flush().unwrap();
}

fn readiness(machine: &Machine) -> Option<(u16, Value)> {
    ask(machine.api, "GET", "/readyz?verbose", None, None)
}

fn metric(machine: &Machine, name: &str) -> Option<String> {
    let text = machine.text("/metrics");
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1).map(str::to_owned)
}

/// Asked once: one that admits nobody says so with 503.
fn status_at(machine: &Machine, session: &str) -> Option<(u16, Value)> {
    ask(machine.api, "GET", "/api/v1/cluster/status", Some(session), None)
}

fn state_of(machine: &Machine, session: &str, node: &str) -> Option<String> {
    let (status, body) = status_at(machine, session)?;
    let members = (status == 200).then(|| body["members"].as_array().cloned())??;
    let member = members.iter().find(|member| member["name"] == node)?;
    member["state"].as_str().map(str::to_owned)
}

#[test]
fn a_machine_with_another_state_says_so_admits_nobody_and_comes_back_by_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let ([mut one, mut two, mut three], session) = three_voters(root.path());
    let token = demo(&one, &session);
    for machine in [&mut one, &mut two, &mut three] {
        machine.stop();
    }
    alter(&two.dir);
    for machine in [&mut one, &mut two, &mut three] {
        machine.start();
    }
    until("it is not ready and says why", || {
        readiness(&two).is_some_and(|(status, said)| {
            let reasons = said["reasons"].to_string();
            status == 503 && reasons.contains("differs from that of most replicas") && reasons.contains("in Users")
        })
    });
    let (_, said) = readiness(&two).unwrap();
    assert_eq!(said["state"]["verdict"], "differs", "{said}");
    assert_eq!(metric(&two, "mcpnode_state_doubted").as_deref(), Some("1"));
    assert!(two.logged().contains("the state is doubted"));
    let (status, refused) = status_at(&two, &session).unwrap();
    assert!(
        status == 503 && refused["detail"].to_string().contains("differs"),
        "{refused}"
    );
    for machine in [&one, &three] {
        until("the others know it and go on", || {
            state_of(machine, &session, "node-2").as_deref() == Some("differs") && machine.echo(&token) == 200
        });
        assert_eq!(metric(machine, "mcpnode_state_differing_nodes").as_deref(), Some("1"));
        assert_eq!(metric(machine, "mcpnode_state_doubted").as_deref(), Some("0"));
    }
    assert_ne!(two.echo(&token), 200);
    two.stop();
    two.start();
    two.ready();
    until("it admits again, and is like the others", || {
        two.echo(&token) == 200 && state_of(&two, &session, "node-2").is_some_and(|state| state != "differs")
    });
    let (_, said) = readiness(&two).unwrap();
    assert_eq!(said["state"]["verdict"], "agrees", "{said}");
}
