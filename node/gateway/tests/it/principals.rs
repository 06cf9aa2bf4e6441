//! Owners that are no administrators: members of groups and service accounts, and what happens to their tokens when they lose
//! what limits them.

use mcp_model::command::{Actor, Command, Reply, TokenGrant};
use mcp_model::ids::Id;
use mcp_model::names::{Email, Name};
use mcp_model::rbac::Subject;
use mcp_model::records::ToolNaming;
use mcp_model::token::PlainToken;
use serde_json::json;

use crate::peer::Peer;
use crate::world::{Token, World, call, request, until};

const BOB: Id = Id::from_u128(5_000);
const ROBOT: Id = Id::from_u128(5_001);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn grant(world: &World, called: &str, to: &str, bindings: &[&str]) {
    world.admin(Command::WriteRbac {
        id: Id::from_u128(u128::from_be_bytes(*b"rbac definition ") + called.len() as u128),
        name: name(called),
        subjects: vec![to.parse::<Subject>().unwrap()],
        role_bindings: bindings.iter().map(|b| b.parse().unwrap()).collect(),
        if_version: None,
    });
}

fn token_of(world: &World, owner: Actor, n: u8) -> Token {
    let plain = PlainToken::from_bytes(&[n; 32]);
    let id = Id::from_u128(6_000 + u128::from(n));
    let reply = world.log.commit(
        owner,
        Command::IssueToken {
            id,
            name: name(&format!("of-{n}")),
            project: name("demo"),
            hash: plain.hash(),
            shown_prefix: plain.shown_prefix(),
            description: String::new(),
            expires_ms: None,
            grant: TokenGrant::Bindings(vec!["role:run,resource:servers".parse().unwrap()]),
            replace: false,
        },
    );
    assert!(matches!(reply, Reply::TokenIssued { .. }), "{reply:?}");
    Token {
        id,
        bearer: plain.expose().to_owned(),
    }
}

/// A project with a server that answers `echo` and hangs in `slow`; bob in a group and a robot, both of whom may run it.
async fn demo() -> World {
    let world = World::new().await;
    let (_, url) = Peer::start(false, &["echo", "slow"]).await;
    let server = world.http("peer", &url);
    world.project("demo", &[server], ToolNaming::Plain);
    world.admin(Command::CreateUser {
        id: BOB,
        email: Email::parse("bob@example.com").unwrap(),
        name: String::new(),
        password_hash: None,
    });
    world.admin(Command::CreateGroup {
        id: Id::from_u128(5_002),
        name: name("ops"),
        description: String::new(),
        members: vec![BOB],
    });
    world.admin(Command::CreateServiceAccount {
        id: ROBOT,
        name: name("robot"),
        description: String::new(),
    });
    let all = ["role:run,resource:servers", "role:create,resource:mcptokens"];
    grant(&world, "ops", "Group:ops", &all);
    grant(&world, "robot", "ServiceAccount:robot", &all);
    world
}

/// Opens a call that does not end by itself, on the second node.
async fn open_call(world: &World, token: &Token) -> crate::world::Open {
    let url = format!("{}/projects/demo/mcp", world.nodes[1].base);
    let bearer = format!("Bearer {}", token.bearer);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let slow = request(
        9,
        "tools/call",
        json!({"name": "slow", "_meta": {"progressToken": "p"}}),
    );
    let open = world.send(http::Method::POST, &url, &headers, slow.to_string()).await;
    assert_eq!(open.status.as_u16(), 200);
    open
}

#[tokio::test]
async fn a_member_who_leaves_a_group_loses_what_it_gave_their_tokens_and_what_is_open_ends() {
    let world = demo().await;
    let token = token_of(&world, Actor::User(BOB), 71);
    world.listed(1, "demo", &token, "echo").await;
    let open = open_call(&world, &token).await;
    world.admin(Command::UpdateGroup {
        name: name("ops"),
        description: String::new(),
        members: Vec::new(),
        if_version: None,
    });
    let ended = open.whole().await;
    assert!(!ended.body.contains("result"), "{}", ended.body);
    for node in [0, 1] {
        let refused = world.post(node, "demo", &token, &call(1, "echo")).await;
        assert_eq!(
            refused.code(),
            -32602,
            "a tool that may not be seen is not there: {}",
            refused.json()
        );
    }
}

#[tokio::test]
async fn a_service_accounts_token_calls_within_its_bindings_and_dies_with_it() {
    let world = demo().await;
    let token = token_of(&world, Actor::ServiceAccount(ROBOT), 72);
    world.listed(0, "demo", &token, "echo").await;
    assert_eq!(world.post(0, "demo", &token, &call(1, "echo")).await.text(), "echo");
    // The audit names the account.
    let dir = world.nodes[0].dir.path().join("audit");
    until("the call is on record", || async {
        let files = std::fs::read_dir(&dir).unwrap();
        let texts = files.map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap());
        texts.collect::<String>().contains("ServiceAccount:robot").then_some(())
    })
    .await;
    grant(&world, "robot", "ServiceAccount:robot", &["role:view,resource:servers"]);
    let demoted = world.post(0, "demo", &token, &call(2, "echo")).await;
    assert_eq!(demoted.code(), -32003, "{}", demoted.json());
    world.admin(Command::DeleteServiceAccount {
        name: name("robot"),
        if_version: None,
    });
    for node in [0, 1] {
        assert_eq!(
            world.post(node, "demo", &token, &call(3, "echo")).await.status.as_u16(),
            401
        );
    }
}

#[tokio::test]
async fn a_deleted_users_tokens_are_refused_and_stay_refused_for_the_next_of_that_email() {
    let world = demo().await;
    let token = token_of(&world, Actor::User(BOB), 73);
    world.listed(1, "demo", &token, "echo").await;
    let open = open_call(&world, &token).await;
    let email = Email::parse("bob@example.com").unwrap();
    world.admin(Command::DeleteUser {
        email: email.clone(),
        if_version: None,
    });
    let ended = open.whole().await;
    assert!(!ended.body.contains("result"), "{}", ended.body);
    world.admin(Command::CreateUser {
        id: Id::from_u128(5_010),
        email,
        name: String::new(),
        password_hash: None,
    });
    for node in [0, 1] {
        assert_eq!(
            world.post(node, "demo", &token, &call(3, "echo")).await.status.as_u16(),
            401
        );
    }
}
