//! What the world is set up with, and what its people try.

use std::collections::{BTreeMap, BTreeSet};

use mcp_model::command::{Actor, Command, TokenGrant};
use mcp_model::ids::{Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::{RoleBinding, Subject};
use mcp_model::records::*;
use mcp_model::tables::{self, Table};
use mcp_model::token::TokenHash;
use proptest::prelude::*;

use super::World;
use crate::samples::{print, tool_list};

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
    "role:edit,resource:secrets",
    "action:exec",
    "action:cluster",
    "action:logs",
];
/// What only an administrator may grant.
pub(super) const TOO_MUCH: &[&str] = &[
    "role:admin,resource:*",
    "action:*",
    "action:restore",
    "role:admin,resource:*,name:*",
];

/// Nodes of the cluster.
pub(super) const NODES: u64 = 3;
/// Moves there are.
const MOVES: u8 = 64;

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
    // Half of what is granted goes to the two who begin: the others are mostly who they might take over.
    let to = prop_oneof![0..2usize, 0..10usize];
    let grants = proptest::collection::vec((to, bindings), 4..12);
    let manages = proptest::collection::vec(0..MANAGING, 1..5);
    let members = proptest::collection::vec(proptest::collection::btree_set(0..5usize, 0..4), 2);
    let one = (0..64usize, 0..10u8, 0..MOVES, 0..64usize, 0..64usize, 0..64usize);
    let one = one.prop_map(|(actor, admin, what, a, b, c)| Move {
        actor,
        admin: admin == 0,
        what,
        a,
        b,
        c,
    });
    let moves = proptest::collection::vec(one, 1..160);
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
                name: name(&format!("q{}", step.a % 12)),
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
            4 => write_rbac(id, &format!("q{}", a % 12), self.subject(b), [self.binding(c)]),
            5 => Command::DeleteRbac {
                name: name(&format!("q{}", a % 12)),
                if_version: None,
            },
            // Most are there already.
            6 => Command::CreateUser {
                id,
                email: user(if b.is_multiple_of(2) { 5 } else { a }),
                name: String::new(),
                password_hash: None,
            },
            7 => Command::UpdateUser {
                email: user(a),
                name: None,
                disabled: Some(b.is_multiple_of(3)),
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
                name: if b.is_multiple_of(2) { name("g3") } else { group(a) },
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
                project: project(a),
                hash: TokenHash::of(&self.index.to_string()),
                shown_prefix: String::new(),
                description: String::new(),
                expires_ms: None,
                grant: if b.is_multiple_of(2) {
                    TokenGrant::Clone
                } else {
                    TokenGrant::Bindings(vec![self.binding(c).parse().unwrap()])
                },
                replace: c.is_multiple_of(2),
            },
            19 => Command::RevokeToken { id: self.token(a) },
            20 => create_server(id, server(a), &transport(b)),
            21 => Command::UpdateServer {
                name: name(server(a)),
                spec: server_spec(&transport(b)),
                if_version: None,
            },
            22 => Command::CreateProject {
                id,
                name: project(a),
                spec: self.project_spec(b),
            },
            23 => Command::UpdateProject {
                name: project(a),
                spec: self.project_spec(b),
                if_version: None,
            },
            // Twice as often as the rest: what goes on from there needs them.
            24..=27 => self.command(
                &Move {
                    what: what % 4,
                    ..step.clone()
                },
                actor,
            ),
            28..=29 => self.command(
                &Move {
                    what: 16,
                    ..step.clone()
                },
                actor,
            ),
            30..=50 => self.another(what, a, b, actor),
            _ => self.of_the_cluster(what, a, b),
        }
    }

    pub(super) fn project_spec(&self, n: usize) -> ProjectSpec {
        let servers = [self.id(Table::ServerNames, "git"), self.id(Table::ServerNames, "web")];
        let servers = servers
            .into_iter()
            .filter(|id| tables::by_id::<Server>(&self.tables, *id).is_some());
        project_spec(servers.take(n % 3).collect())
    }
}

pub(super) fn project(n: usize) -> Name {
    name(["p0", "p1"][n / 2 % 2])
}

pub(super) fn server(n: usize) -> &'static str {
    ["git", "web"][n % 2]
}

pub(super) fn register_node(n: u64) -> Command {
    let called = format!("n{n}");
    Command::RegisterNode {
        node: NodeRecord {
            id: NodeId(n),
            name: name(&called),
            peer_address: format!("{called}:1"),
            api_url: String::new(),
            gateway_url: String::new(),
            origin: crate::samples::origin(),
        },
    }
}

pub(super) fn report_tools(server: Id) -> Command {
    Command::ReportTools {
        list: ToolList { server, ..tool_list() },
        node: NodeId(1),
        prints: Some(vec![print()]),
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
