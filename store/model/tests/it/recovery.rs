//! Rule 8: no sequence of commands leaves a cluster without somebody who can log in and hand on every right there is.
//!
//! Everybody here tries to break it: the first administrator, others who hold as much, and some who hold a part, take from each other
//! and themselves whatever they can.

use mcp_model::apply::administrators::Administered;
use mcp_model::apply::{Effects, apply};
use mcp_model::authority::Rights;
use mcp_model::command::{Actor, Command, Envelope, Reply};
use mcp_model::ids::{CommandId, Id};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::{RoleBinding, Subject};
use mcp_model::records::User;
use mcp_model::tables::{self, MemTables};
use mcp_model::token::TokenHash;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// What makes an administrator, what makes half of one, and what looks like one.
const BINDINGS: &[&str] = &[
    "role:admin,resource:*",
    "role:admin,resource:*,name:*",
    "action:*",
    "role:edit,resource:*",
    "role:admin,resource:rbac",
    "role:admin,resource:users",
    "role:admin,resource:groups",
    "action:restore",
    "action:exec",
];
/// Every right there is, in as few lines as say it.
const EVERYTHING: &[&str] = &["role:admin,resource:*", "action:*", "action:restore"];
const USERS: usize = 4;
const GROUPS: usize = 2;
const DEFINITIONS: usize = 4;

#[derive(Debug, Clone)]
struct Move {
    actor: usize,
    what: u8,
    a: usize,
    b: usize,
    set: u16,
}

fn email(n: usize) -> Email {
    let text = match n % USERS {
        0 => "admin@x.y".to_owned(),
        n => format!("u{n}@x.y"),
    };
    Email::parse(&text).unwrap()
}

fn group(n: usize) -> Name {
    Name::parse(&format!("g{}", n % GROUPS)).unwrap()
}

/// The first administrator's definition is one of them.
fn definition(n: usize) -> Name {
    Name::parse(["admin", "d1", "d2", "d3"][n % DEFINITIONS]).unwrap()
}

fn subject(n: usize) -> Subject {
    match n % (USERS + GROUPS) {
        n if n < USERS => Subject::User(email(n)),
        n => Subject::Group(group(n)),
    }
}

struct World {
    tables: MemTables,
    index: u64,
}

impl World {
    fn run(&mut self, actor: Actor, command: Command) -> Reply {
        self.index += 1;
        let envelope = Envelope {
            id: CommandId(u128::from(self.index)),
            now_ms: 1_000,
            actor,
            command,
        };
        apply(&mut self.tables, self.index, 0, &envelope, &mut Effects::default()).reply
    }

    /// A cluster as `init` makes it: the administrator has a setup secret, and no password yet.
    fn founded() -> World {
        let mut world = World {
            tables: MemTables::default(),
            index: 0,
        };
        let init = Command::InitCluster {
            cluster_id: Id::from_u128(7),
            admin: Id::from_u128(1),
            email: email(0),
            password_hash: None,
            rbac: Id::from_u128(2),
        };
        assert_eq!(world.run(Actor::System, init), Reply::ClusterInitialised);
        let offer = Command::OfferSetup {
            hash: TokenHash([1; 32]),
            user: email(0),
        };
        assert_eq!(world.run(Actor::System, offer), Reply::Noted);
        world
    }

    fn users(&self) -> Vec<User> {
        tables::list(&self.tables, None, 100)
    }

    fn id(&self, n: usize) -> Option<Id> {
        let all = self.users();
        all.into_iter().find(|user| user.email == email(n)).map(|user| user.id)
    }

    fn command(&self, step: &Move) -> Command {
        let Move { what, a, b, set, .. } = *step;
        let id = Id::from_u128(0x1_0000 + u128::from(self.index));
        let chosen = |n: usize| (0..n).filter(move |at| set & (1 << at) != 0);
        match what {
            0 => Command::CreateUser {
                id,
                email: email(a),
                name: String::new(),
                password_hash: (b % 2 == 0).then(|| "phc".to_owned()),
            },
            1 => Command::DeleteUser {
                email: email(a),
                if_version: None,
            },
            2 | 3 => Command::SetUserDisabled {
                email: email(a),
                disabled: b % 3 != 0,
            },
            4 => Command::ResetPassword {
                email: email(a),
                password_hash: "new".to_owned(),
            },
            5 => Command::CreateGroup {
                id,
                name: group(a),
                description: String::new(),
                members: chosen(USERS).filter_map(|n| self.id(n)).collect(),
            },
            6 | 7 => Command::UpdateGroup {
                name: group(a),
                description: String::new(),
                members: chosen(USERS).filter_map(|n| self.id(n)).collect(),
                if_version: None,
            },
            8 => Command::DeleteGroup {
                name: group(a),
                if_version: None,
            },
            9 => Command::DeleteRbac {
                name: definition(a),
                if_version: None,
            },
            10 => Command::UseSetup {
                hash: TokenHash([1; 32]),
                user: email(a),
                password_hash: "phc".to_owned(),
            },
            _ => Command::WriteRbac {
                id,
                name: definition(a),
                subjects: [subject(b), subject(b + 1 + usize::from(set & 3))].into(),
                role_bindings: chosen(BINDINGS.len()).map(|n| BINDINGS[n].parse().unwrap()).collect(),
                if_version: None,
            },
        }
    }

    fn go(&mut self, step: &Move) -> Option<&'static str> {
        let command = self.command(step);
        let users = self.users();
        let actor = match command {
            Command::UseSetup { .. } => Actor::System,
            _ => Actor::User(users.get(step.actor % users.len().max(1))?.id),
        };
        let kind = command.kind();
        let reply = self.run(actor, command);
        (!matches!(reply, Reply::Refused(_))).then_some(kind)
    }

    /// Looked at without the rule's own eyes: somebody who is let in by a password or a setup secret is asked for everything.
    fn can_be_set_right(&self) -> bool {
        let secrets: Vec<mcp_model::records::SetupSecret> = tables::list(&self.tables, None, 100);
        self.users().iter().any(|user| {
            let lets_in = user.password_hash.is_some() || secrets.iter().any(|s| s.user == user.id);
            let rights = Rights::of(&self.tables, &Actor::User(user.id), 1_000);
            lets_in && rights.is_some_and(|rights| EVERYTHING.iter().all(|b| rights.cover(&b.parse().unwrap())))
        })
    }

    /// And does it: a new user is granted everything.
    fn set_right(mut self) {
        let users = self.users();
        let all: Vec<RoleBinding> = EVERYTHING.iter().map(|b| b.parse().unwrap()).collect();
        let done = users.iter().any(|user| {
            let id = Id::from_u128(0xF_0000 + u128::from(self.index));
            let grant = Command::WriteRbac {
                id,
                name: Name::parse("rescue").unwrap(),
                subjects: vec![Subject::User(Email::parse("new@x.y").unwrap())],
                role_bindings: all.clone(),
                if_version: None,
            };
            matches!(self.run(Actor::User(user.id), grant), Reply::Created { .. })
        });
        assert!(done, "nobody could grant everything");
    }
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (0..8usize, 0..16u8, 0..12usize, 0..12usize, any::<u16>());
    let one = one.prop_map(|(actor, what, a, b, set)| Move { actor, what, a, b, set });
    proptest::collection::vec(one, 1..60)
}

#[test]
fn no_sequence_of_commands_leaves_nobody_who_can_log_in_and_hand_on_every_right() {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(500);
    let mut runner = TestRunner::new(Config::with_cases(cases));
    let done = std::cell::RefCell::new(std::collections::BTreeMap::<&str, usize>::new());
    runner
        .run(&moves(), |moves| {
            let mut world = World::founded();
            for step in &moves {
                let Some(kind) = world.go(step) else { continue };
                *done.borrow_mut().entry(kind).or_default() += 1;
                prop_assert!(world.can_be_set_right(), "after {kind}");
                prop_assert!(Administered::of(&world.tables).everything_with_a_way_in);
            }
            world.set_right();
            Ok(())
        })
        .unwrap_or_else(|why| panic!("{why}"));
    // Who is always refused never breaks anything.
    let done = done.into_inner();
    assert!(done.len() >= 9, "only these were ever carried out: {done:?}");
}
