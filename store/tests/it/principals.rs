//! The view follows every change of users, groups, service accounts and secrets: what it shows after the change is what a
//! view shows that is built anew from the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use mcp_model::command::{Actor, Command, Reply, TokenGrant};
use mcp_model::ids::Id;
use mcp_model::names::Email;
use mcp_model::rbac::Subject;
use mcp_model::token::TokenHash;
use mcp_store::{ApplyEntry, Replica};

use super::{ADMIN, by, hash, init, name, open, project};

const BOB: Id = Id::from_u128(11);
const ROBOT: Id = Id::from_u128(12);
const SECRET: Id = Id::from_u128(14);

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

fn grant(id: u128, called: &str, to: &str, binding: &str) -> Command {
    Command::WriteRbac {
        id: Id::from_u128(id),
        name: name(called),
        subjects: vec![to.parse::<Subject>().unwrap()],
        role_bindings: vec![binding.parse().unwrap()],
        if_version: None,
    }
}

fn issue(id: u128, n: u8, called: &str) -> Command {
    Command::IssueToken {
        id: Id::from_u128(id),
        name: name(called),
        project: name("demo"),
        hash: hash(n),
        shown_prefix: String::new(),
        description: String::new(),
        expires_ms: None,
        grant: TokenGrant::Bindings(vec!["role:run,resource:servers".parse().unwrap()]),
        replace: false,
    }
}

fn members(ids: &[Id]) -> Command {
    Command::UpdateGroup {
        name: name("ops"),
        description: String::new(),
        members: ids.to_vec(),
        if_version: None,
    }
}

fn sealed(byte: u8) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([("k".to_owned(), vec![byte])])
}

/// Who, what, and a word in what is known of an owner afterwards.
type Step = (Actor, Command, Option<(Id, &'static str)>);

/// All that is decided on, as text.
fn shown(replica: &Replica) -> String {
    let (view, policy) = (replica.view(), replica.view().policy());
    let tokens = [7, 8].map(|n| view.token(&TokenHash([n; 32])).map(|t| format!("{t:?}")));
    let users = [ADMIN, BOB, ROBOT].map(|id| policy.user(id).map(|u| format!("{u:?}")));
    let secret = policy
        .secret("git")
        .map(|s| format!("{} {:?}", s.origin.version, s.values));
    format!("{tokens:#?} {users:#?} {secret:?} {}", view.tokens())
}

#[test]
fn the_view_shows_the_same_after_each_change_as_one_that_is_built_anew() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (replica, anew) = (open(dir.path()), open(other.path()));
    let user = |id, address: &str| Command::CreateUser {
        id,
        email: email(address),
        name: String::new(),
        password_hash: None,
    };
    let disabled = |disabled| Command::UpdateUser {
        email: email("bob@example.com"),
        name: None,
        disabled: Some(disabled),
        if_version: None,
    };
    let (admin, bob, robot) = (Actor::User(ADMIN), Actor::User(BOB), Actor::ServiceAccount(ROBOT));
    let nobody = "[]";
    let steps: Vec<Step> = vec![
        (admin, user(BOB, "bob@example.com"), Some((BOB, nobody))),
        (
            admin,
            Command::CreateGroup {
                id: Id::from_u128(13),
                name: name("ops"),
                description: String::new(),
                members: vec![BOB],
            },
            Some((BOB, nobody)),
        ),
        (
            admin,
            grant(20, "ops", "Group:ops", "role:run,resource:servers"),
            Some((BOB, "Run")),
        ),
        (
            admin,
            grant(21, "bob", "User:bob@example.com", "role:create,resource:mcptokens"),
            Some((BOB, "Create")),
        ),
        (bob, issue(30, 7, "bobs"), None),
        (
            admin,
            Command::CreateServiceAccount {
                id: ROBOT,
                name: name("robot"),
                description: String::new(),
            },
            Some((ROBOT, nobody)),
        ),
        (
            admin,
            grant(22, "robot", "ServiceAccount:robot", "role:edit,resource:*"),
            Some((ROBOT, "Edit")),
        ),
        (robot, issue(31, 8, "robots"), None),
        (admin, members(&[]), Some((BOB, "Create"))),
        (admin, members(&[BOB]), Some((BOB, "Run"))),
        (admin, disabled(true), Some((BOB, "disabled: true"))),
        (admin, disabled(false), Some((BOB, "disabled: false"))),
        (
            admin,
            Command::CreateSecret {
                id: SECRET,
                name: name("git"),
                description: String::new(),
                values: sealed(1),
            },
            None,
        ),
        (
            admin,
            Command::UpdateSecret {
                id: SECRET,
                name: name("git"),
                description: String::new(),
                values: sealed(2),
                if_version: None,
            },
            None,
        ),
        (
            admin,
            Command::DeleteGroup {
                name: name("ops"),
                if_version: None,
            },
            Some((BOB, "Create")),
        ),
        (
            admin,
            Command::DeleteSecret {
                name: name("git"),
                if_version: None,
            },
            None,
        ),
        (
            admin,
            Command::DeleteUser {
                email: email("bob@example.com"),
                if_version: None,
            },
            None,
        ),
        (
            admin,
            Command::DeleteServiceAccount {
                name: name("robot"),
                if_version: None,
            },
            None,
        ),
    ];
    carry_out(&replica, 1, init());
    carry_out(&replica, 2, project(2, "demo"));
    for (at, (actor, command, expected)) in (3u64..).zip(steps) {
        let kind = command.kind();
        let reply = carry_out(&replica, at, by(actor, u128::from(at), command));
        assert!(!matches!(reply, Reply::Refused(_)), "{kind}: {reply:?}");
        let file = dir.path().join(format!("{at}.snapshot"));
        replica.write_snapshot(&file).unwrap();
        anew.install_snapshot(&file).unwrap();
        assert_eq!(shown(&replica), shown(&anew), "after {kind}");
        if let Some((id, word)) = expected {
            let facts = format!("{:?}", replica.view().policy().user(id).unwrap());
            assert!(facts.contains(word), "after {kind}: {facts}");
        }
    }
    assert_eq!(replica.view().tokens(), 0, "tokens go with their owners");
    assert!(replica.view().policy().user(BOB).is_none() && replica.view().policy().user(ROBOT).is_none());
}

fn carry_out(replica: &Arc<Replica>, index: u64, envelope: mcp_model::command::Envelope) -> Reply {
    let entry = ApplyEntry {
        index,
        commands: vec![envelope.encode()],
    };
    replica.apply(&[entry], b"mark").unwrap().remove(0).remove(0).reply
}
