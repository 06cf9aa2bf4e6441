//! `mcpctl cluster`, and the first login.

use mcp_model::command::{Command, Reply};
use mcp_model::names::Email;
use mcp_model::records::{AUTHORITY_KEY, Authority};
use mcp_model::tables;
use mcp_model::token::{PlainJoin, PlainSetup, TokenHash};

use crate::world::{World, words};

fn with_authority() -> World {
    let world = World::new();
    let keep = Command::KeepAuthority {
        certificate: b"a certificate".to_vec(),
        sealed_key: vec![2],
    };
    assert_eq!(world.node.by_system(keep), Reply::Noted);
    world
}

#[test]
fn the_status_says_whether_the_cluster_can_decide() {
    let world = World::new();
    let said = world.run("cluster status").done();
    assert!(said.out.contains("Leader:   node-1"), "{said:?}");
    assert!(
        said.out
            .contains("yes, and none of them may fail (2 of 3 voters answer, 2 are needed)"),
        "{said:?}"
    );
    assert!(
        said.out.contains("NAME     ID                 ROLE    STATE"),
        "{said:?}"
    );
    assert!(
        said.out.contains("node-3   0000000000000003   voter   unreachable"),
        "{said:?}"
    );
    let said = world.run("cluster status -o json").done();
    let body: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(body["members"].as_array().unwrap().len(), 3);
    assert_eq!(
        world.run("cluster status -o name").done().out,
        "node/node-1\nnode/node-2\nnode/node-3\n"
    );
    let said = world.run("cluster nodes").done();
    assert!(said.out.contains("node-2"), "{said:?}");
}

#[test]
fn a_join_token_stands_alone_on_its_line_and_names_the_authority() {
    let world = with_authority();
    let said = world.run("cluster join-token --ttl 10m --role learner").done();
    let token = PlainJoin::parse(said.out.trim()).unwrap();
    let kept = world
        .node
        .replica
        .read(|t| tables::load::<Authority>(t, &AUTHORITY_KEY))
        .unwrap()
        .unwrap();
    assert_eq!(kept.certificate, b"a certificate");
    assert_eq!(token.authority(), TokenHash::of("a certificate").0);
    for part in ["as a learner", "mcpnode join 127.0.0.1:3301 --token-file"] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }
    let said = world.run("cluster join-token -o json").done();
    let body: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(body["role"], "voter");
    assert!(PlainJoin::parse(body["token"].as_str().unwrap()).is_some());
    world
        .run("cluster join-token --ttl never")
        .fails(1, "cannot make a join token", "at most 7d", "");
    world
        .run("cluster join-token --ttl 8d")
        .fails(1, "cannot make a join token", "at most 7d", "");
    assert_eq!(world.run("cluster join-token --role boss").code, 2);
}

#[test]
fn join_tokens_are_made_listed_and_revoked() {
    let world = with_authority();
    let made = world
        .run("cluster join-token create --ttl 10m --role learner -o json")
        .done();
    let made: serde_json::Value = serde_json::from_str(&made.out).unwrap();
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let said = world.run("cluster join-token list").done();
    assert!(said.out.starts_with("ID "), "{said:?}");
    let row = said.out.lines().nth(1).unwrap();
    assert!(
        row.starts_with(id) && row.contains("learner") && row.contains("open"),
        "{said:?}"
    );
    assert!(!said.out.contains(token), "{said:?}");
    assert_eq!(
        world.run("cluster join-token list -o name").done().out,
        format!("join-token/{id}\n")
    );
    let said = world.run(&format!("cluster join-token revoke {id}")).done();
    assert_eq!(said.out, format!("join token {id:?} revoked: it lets nobody in\n"));
    assert_eq!(world.run("cluster join-token list -o name").done().out, "");
    world.run(&format!("cluster join-token delete {id}")).fails(
        3,
        "cannot revoke join token",
        "does not exist",
        "mcpctl cluster join-token list",
    );
}

#[test]
fn nodes_are_promoted_demoted_and_removed_with_a_receipt() {
    let world = World::new();
    let said = world.run("cluster demote node-3").done();
    assert_eq!(said.out, "node \"node-3\" is a learner now\n");
    let said = world.run("cluster promote 0000000000000003 -o name").done();
    assert_eq!(said.out, "node/node-3\n");
    // Of the other two, one does not answer.
    world.run("cluster remove node-2").fails(
        1,
        "cannot remove node \"node-2\"",
        "too few to decide anything (silent: 0000000000000003)",
        "mcpctl cluster status",
    );
    world
        .run("cluster demote node-1")
        .fails(1, "demote node \"node-1\"", "too few", "");
    let said = world.run("cluster remove node-3").done();
    assert_eq!(
        said.out,
        "node \"node-3\" removed: effective on 3 of 3 replicas (12 ms)\n"
    );
    world
        .run("cluster remove node-3")
        .fails(3, "cannot remove node \"node-3\"", "does not exist", "mcpctl get nodes");
    let said = world.run("cluster remove node-9");
    assert_eq!(said.code, 3, "{said:?}");
}

#[test]
fn who_may_not_change_the_cluster_is_told_what_it_takes() {
    let world = World::new();
    let id = mcp_model::ids::Id::from_u128(78);
    let make = Command::CreateUser {
        id,
        email: Email::parse("bob@test.com").unwrap(),
        name: String::new(),
        password_hash: None,
    };
    assert_eq!(world.node.by_system(make), Reply::Created { id });
    let bob = world.node.session_of(id);
    let run = |line: &str| {
        world.run_with(
            &[("MCPCTL_SERVER", &world.url), ("MCPCTL_SESSION", &bob)],
            &words(line),
            "",
        )
    };
    for line in [
        "cluster join-token",
        "cluster join-token list",
        "cluster join-token revoke 01890a5d-ac96-774b-bcce-b302099a8057",
        "cluster remove node-3",
        "cluster promote node-3",
        "cluster demote node-3",
    ] {
        run(line).fails(4, "cannot", "bob@test.com lacks action:cluster", "");
    }
}

#[test]
fn the_setup_secret_sets_the_password_once_and_the_authority_is_remembered() {
    let world = World::without_session();
    let email = Email::parse("new@test.com").unwrap();
    let id = mcp_model::ids::Id::from_u128(77);
    let make = Command::CreateUser {
        id,
        email: email.clone(),
        name: String::new(),
        password_hash: None,
    };
    assert_eq!(world.node.by_system(make), Reply::Created { id });
    let secret = PlainSetup::from_bytes(&[7; 32]);
    let offer = Command::OfferSetup {
        hash: secret.hash(),
        user: email,
    };
    assert_eq!(world.node.by_system(offer), Reply::Noted);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("setup.secret");
    std::fs::write(&file, format!("{}\n", secret.expose())).unwrap();
    let line = format!(
        "login --email new@test.com --setup-secret-file {} --password-stdin",
        file.display()
    );
    let run = |password: &str| world.run_with(&[("MCPCTL_SERVER", &world.url)], &words(&line), password);
    run("short\n").fails(1, "set the first password of new@test.com", "at least 8 characters", "");
    let said = run("a good long one\n").done();
    assert!(
        said.err.contains("the setup secret is dead") && said.err.contains("logged in as new@test.com"),
        "{said:?}"
    );
    assert!(!said.err.contains(secret.expose()), "{said:?}");
    world.run("whoami").done();
    run("another long one\n").fails(4, "set the first password", "was used already", "mcpctl login");
    let again = "login --email new@test.com --password-stdin";
    world
        .run_with(&[("MCPCTL_SERVER", &world.url)], &words(again), "a good long one\n")
        .done();
    let missing = "login --email new@test.com --password-stdin --setup-secret-file /nowhere";
    world
        .run_with(&[("MCPCTL_SERVER", &world.url)], &words(missing), "a good long one\n")
        .fails(2, "cannot read /nowhere", "No such file", "");
}
