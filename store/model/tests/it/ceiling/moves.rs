//! What the world is set up with, and what its people try.

use std::collections::{BTreeMap, BTreeSet};

use mcp_model::command::{Actor, Command, TokenGrant};
use mcp_model::ids::Id;
use mcp_model::names::{Email, Name};
use mcp_model::rbac::{RoleBinding, Subject};
use mcp_model::records::*;
use mcp_model::tables::{self, Table};
use mcp_model::token::TokenHash;
use proptest::prelude::*;

use super::World;

/// What the administrator grants and the others try to. None makes its holder an administrator of everything.
pub(super) const BINDINGS: &[&str] = &[
    "role:admin,resource:rbac",
    "role:admin,resource:rbac,name:r*",
    "role:edit,resource:rbac",
    "role:edit,resource:users",
    "role:create,resource:users",
    "role:edit,resource:users,name:u1@x.y",
    "role:delete,resource:users",
    "role:edit,resource:groups",
    "role:edit,resource:groups,name:g1",
    "role:edit,resource:serviceaccounts",
    "role:edit,resource:sessions",
    "role:create,resource:sessions,name:s0",
    "role:edit,resource:mcptokens",
    "role:create,resource:mcptokens,name:p0/*",
    "role:edit,resource:projects",
    "role:edit,resource:servers",
    "role:edit,resource:servers,name:git*",
    "role:run,resource:servers,name:git",
    "role:run,resource:tools,name:git__l*",
    "role:run,resource:tools,name:git*",
    "role:run,resource:*,name:git",
    "role:view,resource:*,name:g*",
    "role:edit,resource:*,name:r*",
    "role:run,resource:secrets",
    "role:edit,resource:secrets,name:x0",
    "role:edit,resource:*",
    "action:exec",
    "action:logs",
];
/// What only an administrator may grant.
pub(super) const TOO_MUCH: &[&str] = &[
    "role:admin,resource:*",
    "action:*",
    "action:restore",
    "role:admin,resource:*,name:*",
];

/// Users 0 and 1 are of the coalition, and user 2, whom the administrator has disabled; 3 is another administrator, through
/// a group; 4 a bystander, 5 nobody yet, and 6 stands for the administrator.
pub(super) const USERS: usize = 7;
pub(super) const MADE: usize = 5;
pub(super) const COALITION: usize = 3;
/// The first of the bindings are about managing others.
pub(super) const MANAGING: usize = 13;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// What user 0 manages.
    pub(super) manages: Vec<usize>,
    pub(super) grants: Vec<(usize, Vec<usize>)>,
    pub(super) members: Vec<BTreeSet<usize>>,
    pub(super) moves: Vec<Move>,
}

#[derive(Debug, Clone)]
pub(super) struct Move {
    /// Among those whom the coalition controls.
    pub(super) actor: usize,
    /// The administrator, who only takes away.
    pub(super) admin: bool,
    pub(super) what: u8,
    pub(super) a: usize,
    pub(super) b: usize,
    pub(super) c: usize,
}

pub(super) fn plan() -> impl Strategy<Value = Plan> {
    let bindings = proptest::collection::vec(0..BINDINGS.len(), 1..5);
    let grants = proptest::collection::vec((0..10usize, bindings), 3..9);
    let manages = proptest::collection::vec(0..MANAGING, 1..5);
    let members = proptest::collection::vec(proptest::collection::btree_set(0..5usize, 0..4), 2);
    let one = (0..64usize, 0..10u8, 0..23u8, 0..64usize, 0..64usize, 0..64usize);
    let one = one.prop_map(|(actor, admin, what, a, b, c)| Move {
        actor,
        admin: admin == 0,
        what,
        a,
        b,
        c,
    });
    let moves = proptest::collection::vec(one, 1..60);
    (manages, grants, members, moves).prop_map(|(manages, grants, members, moves)| Plan {
        manages,
        grants,
        members,
        moves,
    })
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(super) fn user(n: usize) -> Email {
    let email = match n % USERS {
        6 => "admin@x.y".to_owned(),
        n => format!("u{n}@x.y"),
    };
    Email::parse(&email).unwrap()
}

pub(super) fn group(n: usize) -> Name {
    name(["g0", "g1", "admins"][n % 3])
}

pub(super) fn account(n: usize) -> Name {
    name(&format!("s{}", n % 2))
}

impl World {
    pub(super) fn admin_command(&self, step: &Move) -> Command {
        match step.what % 8 {
            0 => Command::DeleteRbac {
                name: name(&format!("q{}", step.a % 8)),
                if_version: None,
            },
            1 => Command::SetUserDisabled {
                email: user(step.a),
                disabled: true,
            },
            2 => Command::DeleteUser {
                email: user(step.a),
                if_version: None,
            },
            3 => {
                let old: Option<Group> =
                    tables::by_name(&self.tables, Table::GroupNames, group(step.a).as_str().as_bytes());
                Command::UpdateGroup {
                    name: group(step.a),
                    description: String::new(),
                    members: old.map(|g| g.members.into_iter().skip(1).collect()).unwrap_or_default(),
                    if_version: None,
                }
            }
            4 => Command::DeleteGroup {
                name: group(step.a),
                if_version: None,
            },
            5 => Command::DeleteServiceAccount {
                name: account(step.a),
                if_version: None,
            },
            6 => Command::RevokeToken { id: self.token(step.a) },
            _ => Command::DeleteRbac {
                name: name("second"),
                if_version: None,
            },
        }
    }

    pub(super) fn token(&self, n: usize) -> Id {
        let all: Vec<McpToken> = tables::list(&self.tables, None, 100);
        all.get(n % all.len().max(1)).map_or(Id::from_u128(9), |t| t.id)
    }

    pub(super) fn binding(&self, n: usize) -> &'static str {
        let all = BINDINGS.len() + TOO_MUCH.len();
        let n = n % all;
        BINDINGS.get(n).copied().unwrap_or_else(|| TOO_MUCH[n - BINDINGS.len()])
    }

    pub(super) fn command(&self, step: &Move, actor: Actor) -> Command {
        let Move { what, a, b, c, .. } = *step;
        let id = self.new_id();
        let members = || -> Vec<Id> {
            let set: BTreeSet<Id> = [self.user_id(b), self.user_id(c)].into();
            set.into_iter().collect()
        };
        match what {
            0..=3 => write_rbac(
                id,
                &format!("r{}", a % 3),
                self.subject(b),
                [self.binding(c), self.binding(c + a)],
            ),
            4 => write_rbac(id, &format!("q{}", a % 8), self.subject(b), [self.binding(c)]),
            5 => Command::DeleteRbac {
                name: name(&format!("q{}", a % 8)),
                if_version: None,
            },
            6 => Command::CreateUser {
                id,
                email: user(a),
                name: String::new(),
                password_hash: None,
            },
            7 => Command::UpdateUser {
                email: user(a),
                name: None,
                disabled: Some(b % 3 == 0),
                if_version: None,
            },
            8 => Command::DeleteUser {
                email: user(a),
                if_version: None,
            },
            9 => Command::ResetPassword {
                email: user(a),
                password_hash: String::new(),
            },
            10 => Command::CreateGroup {
                id,
                name: group(a),
                description: String::new(),
                members: members(),
            },
            11..=12 => Command::UpdateGroup {
                name: group(a),
                description: String::new(),
                members: members(),
                if_version: None,
            },
            13 => Command::DeleteGroup {
                name: group(a),
                if_version: None,
            },
            14 => Command::CreateServiceAccount {
                id,
                name: account(a),
                description: String::new(),
            },
            15 => Command::OpenServiceSession {
                account: account(a),
                hash: TokenHash::of(&self.index.to_string()),
                expires_ms: 2_000,
            },
            16..=18 => Command::IssueToken {
                id,
                name: name(&format!("t{}", a % 2)),
                project: name("p0"),
                hash: TokenHash::of(&self.index.to_string()),
                shown_prefix: String::new(),
                description: String::new(),
                expires_ms: None,
                grant: if b % 2 == 0 {
                    TokenGrant::Clone
                } else {
                    TokenGrant::Bindings(vec![self.binding(c).parse().unwrap()])
                },
                replace: c % 2 == 0,
            },
            19 => Command::RevokeToken { id: self.token(a) },
            20 => create_server(id, ["git", "web"][a % 2], &transport(b)),
            21 => Command::UpdateServer {
                name: name(["git", "web"][a % 2]),
                spec: server_spec(&transport(b)),
                if_version: None,
            },
            _ => {
                let servers = [self.id(Table::ServerNames, "git"), self.id(Table::ServerNames, "web")];
                let servers = servers
                    .into_iter()
                    .filter(|id| tables::by_id::<Server>(&self.tables, *id).is_some());
                let spec = project_spec(servers.take(b % 3).collect());
                if actor == self.controlled[0] && a % 2 == 0 {
                    return Command::CreateProject {
                        id,
                        name: name("p1"),
                        spec,
                    };
                }
                Command::UpdateProject {
                    name: name("p0"),
                    spec,
                    if_version: None,
                }
            }
        }
    }
}

pub(super) fn write_rbac<'a>(
    id: Id,
    called: &str,
    to: Subject,
    bindings: impl IntoIterator<Item = &'a str>,
) -> Command {
    Command::WriteRbac {
        id,
        name: name(called),
        subjects: vec![to],
        role_bindings: bindings
            .into_iter()
            .map(|b| b.parse::<RoleBinding>().unwrap())
            .collect(),
        if_version: None,
    }
}

pub(super) fn transport(n: usize) -> Transport {
    let header = |value: &str| BTreeMap::from([("k".to_owned(), value.to_owned())]);
    match n % 4 {
        0 => Transport::Stdio {
            command: "sh".to_owned(),
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
        },
        1 => Transport::Http {
            url: "http://a/".to_owned(),
            headers: header("${secret:x0/k}"),
        },
        2 => Transport::Http {
            url: "http://b/".to_owned(),
            headers: header("${secret:x1/k}"),
        },
        _ => Transport::Http {
            url: "http://b/".to_owned(),
            headers: BTreeMap::new(),
        },
    }
}

pub(super) fn server_spec(transport: &Transport) -> ServerSpec {
    ServerSpec {
        description: String::new(),
        transport: transport.clone(),
        connect_ms: 1,
        response_ms: 1,
        stateful: false,
        pin_tools: false,
    }
}

pub(super) fn create_server(id: Id, called: &str, transport: &Transport) -> Command {
    Command::CreateServer {
        id,
        name: name(called),
        spec: server_spec(transport),
    }
}

pub(super) fn project_spec(servers: Vec<Id>) -> ProjectSpec {
    ProjectSpec {
        description: String::new(),
        servers,
        gated: true,
        allow_sse: false,
        proxy_model: None,
        tool_naming: ToolNaming::Prefixed,
        instructions: None,
    }
}
