//! No sequence of commands lets anyone exceed what they were granted.
//!
//! An administrator sets a random world up. Then a coalition speaks: some users, and whoever they come to control by making
//! users, resetting passwords, opening sessions of service accounts and minting tokens. The administrator goes on taking
//! rights away in between. Whatever anybody in the coalition may do at any moment must be something that one of them was
//! granted by the administrator at the beginning.
//!
//! Tokens are held to more: never more than their owner may at that moment, and nothing that rule 1 keeps from them.

use std::collections::{BTreeMap, BTreeSet};

use mcp_model::apply::{Effects, apply};
use mcp_model::authority::{Principal, Rights};
use mcp_model::command::{Actor, Command, Envelope, Reply, TokenGrant};
use mcp_model::ids::{CommandId, Id};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::{Action, Grants, Resource, RoleBinding, Subject, Verb};
use mcp_model::records::*;
use mcp_model::secrets::referred;
use mcp_model::tables::{self, MemTables, Stored, Table, Tables};
use mcp_model::token::TokenHash;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// What the administrator grants and the others try to. None makes its holder an administrator of everything.
const BINDINGS: &[&str] = &[
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
const TOO_MUCH: &[&str] = &[
    "role:admin,resource:*",
    "action:*",
    "action:restore",
    "role:admin,resource:*,name:*",
];

const RESOURCES: [Resource; 15] = [
    Resource::Users,
    Resource::Groups,
    Resource::ServiceAccounts,
    Resource::Projects,
    Resource::Servers,
    Resource::Tools,
    Resource::Secrets,
    Resource::McpTokens,
    Resource::Rbac,
    Resource::Audit,
    Resource::Nodes,
    Resource::Prompts,
    Resource::ProxyModels,
    Resource::Sessions,
    Resource::Any,
];
const VERBS: [Verb; 6] = [
    Verb::See,
    Verb::Use,
    Verb::Create,
    Verb::Update,
    Verb::Delete,
    Verb::Grant,
];
const ACTIONS: [Action; 6] = [
    Action::Logs,
    Action::Backup,
    Action::Restore,
    Action::Cluster,
    Action::Exec,
    Action::Any,
];
const NAMES: &[&str] = &[
    "git", "git/log", "git/x", "gi", "web", "web/x", "g0", "g1", "s0", "s1", "r0", "r1", "p0", "p0/t0", "p1/t0", "x0",
    "u0@x.y", "u1@x.y", "u3@x.y", "zz",
];

/// Users 0 and 1 are of the coalition, and user 2, whom the administrator has disabled; 3 is another administrator, through
/// a group; 4 a bystander, 5 nobody yet, and 6 stands for the administrator.
const USERS: usize = 7;
const MADE: usize = 5;
const COALITION: usize = 3;
/// The first of the bindings are about managing others.
const MANAGING: usize = 13;

#[derive(Debug, Clone)]
struct Plan {
    /// What user 0 manages.
    manages: Vec<usize>,
    grants: Vec<(usize, Vec<usize>)>,
    members: Vec<BTreeSet<usize>>,
    moves: Vec<Move>,
}

#[derive(Debug, Clone)]
struct Move {
    /// Among those whom the coalition controls.
    actor: usize,
    /// The administrator, who only takes away.
    admin: bool,
    what: u8,
    a: usize,
    b: usize,
    c: usize,
}

fn plan() -> impl Strategy<Value = Plan> {
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

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn user(n: usize) -> Email {
    let email = match n % USERS {
        6 => "admin@x.y".to_owned(),
        n => format!("u{n}@x.y"),
    };
    Email::parse(&email).unwrap()
}

fn group(n: usize) -> Name {
    name(["g0", "g1", "admins"][n % 3])
}

fn account(n: usize) -> Name {
    name(&format!("s{}", n % 2))
}

struct World {
    tables: MemTables,
    index: u64,
    granted: Grants,
    controlled: Vec<Actor>,
    /// Commands that were carried out for the coalition, by kind.
    done: BTreeMap<&'static str, usize>,
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

    fn new_id(&self) -> Id {
        Id::from_u128(0x1_0000 + u128::from(self.index))
    }

    fn id(&self, names: Table, name: &str) -> Id {
        let id = self.tables.get(names, name.as_bytes());
        id.and_then(|id| Id::from_slice(&id)).unwrap_or(Id::from_u128(9))
    }

    fn user_id(&self, n: usize) -> Id {
        self.id(Table::UserEmails, user(n).as_str())
    }

    fn subject(&self, n: usize) -> Subject {
        let all: Vec<McpToken> = all(&self.tables);
        match n % 12 {
            n @ 0..=5 => Subject::User(user(n)),
            n @ 6..=7 => Subject::Group(group(n - 6)),
            n @ 8..=9 => Subject::ServiceAccount(account(n)),
            _ if all.is_empty() => Subject::User(user(0)),
            n => Subject::McpToken(all[n % all.len()].hash),
        }
    }

    fn founded(plan: &Plan) -> World {
        let mut world = World {
            tables: MemTables::default(),
            index: 0,
            granted: Grants::default(),
            controlled: Vec::new(),
            done: BTreeMap::new(),
        };
        let admin = Actor::User(Id::from_u128(1));
        let init = Command::InitCluster {
            cluster_id: Id::from_u128(7),
            admin: Id::from_u128(1),
            email: Email::parse("admin@x.y").unwrap(),
            password_hash: None,
            rbac: Id::from_u128(2),
        };
        assert_eq!(world.run(Actor::System, init), Reply::ClusterInitialised);
        let mut setup = Vec::new();
        for n in 0..MADE {
            setup.push(Command::CreateUser {
                id: Id::from_u128(0x100 + n as u128),
                email: user(n),
                name: String::new(),
                password_hash: None,
            });
        }
        for (n, members) in plan.members.iter().enumerate() {
            setup.push(Command::CreateGroup {
                id: Id::from_u128(0x200 + n as u128),
                name: group(n),
                description: String::new(),
                members: members.iter().map(|m| Id::from_u128(0x100 + *m as u128)).collect(),
            });
        }
        setup.push(Command::CreateServiceAccount {
            id: Id::from_u128(0x300),
            name: account(0),
            description: String::new(),
        });
        setup.push(Command::CreateSecret {
            id: Id::from_u128(0x301),
            name: name("x0"),
            description: String::new(),
            values: BTreeMap::new(),
        });
        setup.push(create_server(Id::from_u128(0x302), "git", &transport(3)));
        setup.push(Command::CreateProject {
            id: Id::from_u128(0x303),
            name: name("p0"),
            spec: project_spec(vec![Id::from_u128(0x302)]),
        });
        for (n, (to, bindings)) in plan.grants.iter().enumerate() {
            let (id, to) = (Id::from_u128(0x400 + n as u128), world.subject(*to));
            setup.push(write_rbac(
                id,
                &format!("q{n}"),
                to,
                bindings.iter().map(|b| BINDINGS[*b]),
            ));
        }
        let manages = plan.manages.iter().map(|b| BINDINGS[*b]);
        setup.push(write_rbac(Id::from_u128(0x500), "q9", Subject::User(user(0)), manages));
        setup.push(Command::CreateGroup {
            id: Id::from_u128(0x501),
            name: group(2),
            description: String::new(),
            members: vec![Id::from_u128(0x103)],
        });
        setup.push(write_rbac(
            Id::from_u128(0x502),
            "second",
            Subject::Group(group(2)),
            TOO_MUCH.iter().copied(),
        ));
        setup.push(Command::SetUserDisabled {
            email: user(2),
            disabled: true,
        });
        for command in setup {
            let reply = world.run(admin, command.clone());
            assert!(!matches!(reply, Reply::Refused(_)), "{command:?}: {reply:?}");
        }
        world.controlled = (0..COALITION).map(|n| Actor::User(world.user_id(n))).collect();
        let held = world
            .controlled
            .iter()
            .filter_map(|actor| Rights::of(&world.tables, actor, 1_000));
        world.granted = held.flat_map(|rights| rights.bindings().to_vec()).collect();
        world
    }

    /// Makes one move; says whether it changed anything.
    fn go(&mut self, step: &Move) -> bool {
        if step.admin {
            let command = self.admin_command(step);
            let reply = self.run(Actor::User(Id::from_u128(1)), command);
            return !matches!(reply, Reply::Refused(_));
        }
        let actor = self.controlled[step.actor % self.controlled.len()];
        let command = self.command(step, actor);
        let before = self.tables.clone();
        let reply = self.run(actor, command.clone());
        if matches!(reply, Reply::Refused(_)) {
            return false;
        }
        *self.done.entry(command.kind()).or_default() += 1;
        self.controls_more(&command);
        self.keeps_rule_2_and_6(&before, &command);
        true
    }

    /// Whom a command that was carried out has put into the coalition's hands.
    fn controls_more(&mut self, command: &Command) {
        let actor = match command {
            Command::CreateUser { id, .. } => Actor::User(*id),
            Command::ResetPassword { email, .. } => Actor::User(self.id(Table::UserEmails, email.as_str())),
            Command::OpenServiceSession { account, .. } => {
                Actor::ServiceAccount(self.id(Table::ServiceAccountNames, account.as_str()))
            }
            Command::IssueToken { hash, .. } => Actor::Token(*hash),
            _ => return,
        };
        if !self.controlled.contains(&actor) {
            self.controlled.push(actor);
        }
    }

    /// What is not a right on a name and yet hands something over: commands, secrets, other people's tools.
    fn keeps_rule_2_and_6(&self, before: &MemTables, command: &Command) {
        match command {
            Command::CreateServer { name, spec, .. } | Command::UpdateServer { name, spec, .. } => {
                let old: Option<Server> = tables::by_name(before, Table::ServerNames, name.as_str().as_bytes());
                let ran = old
                    .as_ref()
                    .is_some_and(|s| matches!(s.spec.transport, Transport::Stdio { .. }));
                if ran || matches!(spec.transport, Transport::Stdio { .. }) {
                    assert!(self.granted.allow_action(Action::Exec), "{command:?}");
                }
                if old.is_none_or(|s| s.spec.transport != spec.transport) {
                    for secret in referred(&spec.transport).unwrap().keys() {
                        assert!(
                            self.granted.allow(Verb::Use, Resource::Secrets, secret.as_str()),
                            "{command:?}"
                        );
                    }
                }
            }
            Command::CreateProject { name, spec, .. } | Command::UpdateProject { name, spec, .. } => {
                let old: Option<Project> = tables::by_name(before, Table::ProjectNames, name.as_str().as_bytes());
                let attached = old.map(|p| p.spec.servers).unwrap_or_default();
                for id in spec.servers.iter().filter(|id| !attached.contains(id)) {
                    let server: Server = tables::by_id(before, *id).unwrap();
                    assert!(
                        self.granted.allow(Verb::Use, Resource::Servers, server.name.as_str()),
                        "{command:?}"
                    );
                }
            }
            _ => {}
        }
    }

    fn admin_command(&self, step: &Move) -> Command {
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

    fn token(&self, n: usize) -> Id {
        let all: Vec<McpToken> = tables::list(&self.tables, None, 100);
        all.get(n % all.len().max(1)).map_or(Id::from_u128(9), |t| t.id)
    }

    fn binding(&self, n: usize) -> &'static str {
        let all = BINDINGS.len() + TOO_MUCH.len();
        let n = n % all;
        BINDINGS.get(n).copied().unwrap_or_else(|| TOO_MUCH[n - BINDINGS.len()])
    }

    fn command(&self, step: &Move, actor: Actor) -> Command {
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

    /// The invariant.
    fn check(&self) -> Result<(), TestCaseError> {
        for actor in &self.controlled {
            let Some(rights) = Rights::of(&self.tables, actor, 1_000) else {
                continue;
            };
            for (verb, resource, name) in probes() {
                if rights.allow(verb, resource, name) {
                    let why = format!("{} may {verb:?} {resource:?} {name}", rights.who());
                    prop_assert!(self.granted.allow(verb, resource, name), "{why}");
                    prop_assert!(
                        !rights.is_token() || self.may_be_of_a_token(actor, verb, resource, name),
                        "{why}"
                    );
                }
            }
            for action in ACTIONS {
                let allowed = rights.allow_action(action);
                prop_assert!(
                    !allowed || self.granted.allow_action(action),
                    "{} may {action:?}",
                    rights.who()
                );
                prop_assert!(!(allowed && rights.is_token()) || action == Action::Logs);
            }
        }
        prop_assert!(self.has_an_admin(), "nobody administers");
        self.indices_agree()
    }

    fn may_be_of_a_token(&self, actor: &Actor, verb: Verb, resource: Resource, name: &str) -> bool {
        let Actor::Token(hash) = actor else { return false };
        let token: McpToken = tables::by_name(&self.tables, Table::TokenHashes, &hash.0).unwrap();
        let owner = Principal::of(&self.tables, token.owner).unwrap();
        let of_its_project = matches!(
            resource,
            Resource::Projects | Resource::Servers | Resource::Tools | Resource::Prompts | Resource::Audit
        );
        of_its_project && owner.grants(&self.tables).allow(verb, resource, name)
    }

    fn has_an_admin(&self) -> bool {
        let users: Vec<User> = tables::list(&self.tables, None, 100);
        users
            .iter()
            .any(|u| !u.disabled && Principal::User(u.clone()).grants(&self.tables).is_admin_of_all())
    }

    /// What is found by an index is what the records say.
    fn indices_agree(&self) -> Result<(), TestCaseError> {
        let keys = |table| -> BTreeSet<Vec<u8>> {
            let rows = self.tables.scan(table, &[], None, usize::MAX);
            rows.into_iter().map(|(key, _)| key).collect()
        };
        let pair = |a: &[u8], b: &[u8]| [a, b].concat();
        let groups: Vec<Group> = all(&self.tables);
        let of_groups = groups
            .iter()
            .flat_map(|g| g.members.iter().map(move |m| pair(&m.to_bytes(), &g.id.to_bytes())));
        prop_assert_eq!(keys(Table::GroupMembers), of_groups.collect());
        let sessions: Vec<Session> = all(&self.tables);
        let of_sessions = sessions.iter().map(|s| pair(&s.user.to_bytes(), &s.hash.0));
        prop_assert_eq!(keys(Table::SessionOwners), of_sessions.collect());
        let tokens: Vec<McpToken> = all(&self.tables);
        let active = tokens.iter().filter(|t| t.status == TokenStatus::Active);
        let of_tokens = active.map(|t| pair(&t.owner.to_bytes(), &t.id.to_bytes()));
        prop_assert_eq!(keys(Table::TokenOwners), of_tokens.collect());
        let definitions: Vec<RbacDefinition> = all(&self.tables);
        let of_definitions = definitions.iter().flat_map(|d| {
            let subjects = d.subjects.iter();
            subjects.map(|s| pair(format!("{s}\0").as_bytes(), &d.id.to_bytes()))
        });
        prop_assert_eq!(keys(Table::RbacSubjects), of_definitions.collect());
        for member in groups.iter().flat_map(|g| &g.members) {
            prop_assert!(
                tables::by_id::<User>(&self.tables, *member).is_some(),
                "a member is gone"
            );
        }
        Ok(())
    }
}

fn all<T: Stored>(tables: &MemTables) -> Vec<T> {
    tables::list(tables, None, usize::MAX)
}

fn probes() -> impl Iterator<Item = (Verb, Resource, &'static str)> {
    let names = || NAMES.iter().copied();
    let on = move |verb| {
        RESOURCES
            .into_iter()
            .flat_map(move |r| names().map(move |n| (verb, r, n)))
    };
    VERBS.into_iter().flat_map(on)
}

fn write_rbac<'a>(id: Id, called: &str, to: Subject, bindings: impl IntoIterator<Item = &'a str>) -> Command {
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

fn transport(n: usize) -> Transport {
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

fn server_spec(transport: &Transport) -> ServerSpec {
    ServerSpec {
        description: String::new(),
        transport: transport.clone(),
        connect_ms: 1,
        response_ms: 1,
        stateful: false,
        pin_tools: false,
    }
}

fn create_server(id: Id, called: &str, transport: &Transport) -> Command {
    Command::CreateServer {
        id,
        name: name(called),
        spec: server_spec(transport),
    }
}

fn project_spec(servers: Vec<Id>) -> ProjectSpec {
    ProjectSpec {
        description: String::new(),
        servers,
        gated: true,
        proxy_model: None,
        tool_naming: ToolNaming::Prefixed,
        instructions: None,
    }
}

#[test]
fn no_sequence_of_commands_lets_anyone_exceed_what_they_were_granted() {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(500);
    let mut runner = TestRunner::new(Config::with_cases(cases));
    let done = std::cell::RefCell::new(BTreeMap::<&str, usize>::new());
    runner
        .run(&plan(), |plan| {
            let mut world = World::founded(&plan);
            world.check()?;
            for step in &plan.moves {
                if world.go(step) {
                    world.check()?;
                }
            }
            for (kind, times) in world.done {
                *done.borrow_mut().entry(kind).or_default() += times;
            }
            Ok(())
        })
        .unwrap_or_else(|why| panic!("{why}"));
    // Who is always refused never exceeds anything.
    let done = done.into_inner();
    assert!(done.len() >= 15, "only these were ever carried out: {done:?}");
}
