//! No sequence of commands lets anyone exceed what they were granted.
//!
//! An administrator sets a random world up. Then a coalition speaks: some users, and whoever they come to control by making
//! users, resetting passwords, opening sessions of service accounts and minting tokens. The administrator goes on taking
//! rights away in between. Whatever anybody in the coalition may do at any moment must be something that one of them was
//! granted by the administrator at the beginning.
//!
//! Tokens are held to more: never more than their owner may at that moment, and nothing that rule 1 keeps from them. And whatever
//! happens, somebody is left who can log in and hand on every right (rule 8).
//!
//! Every kind of command is tried, by users and by tokens, and every one is carried out for the coalition in the end but those
//! which [`NEVER`] names with the reason. A new kind of command is neither until a move makes it.

use std::collections::{BTreeMap, BTreeSet};

use mcp_model::apply::administrators::Administered;
use mcp_model::apply::{Effects, apply};
use mcp_model::authority::{Principal, Rights};
use mcp_model::command::{Actor, Command, Envelope, Reply};
use mcp_model::ids::{CommandId, Id};
use mcp_model::names::Email;
use mcp_model::rbac::{Action, Grants, Resource, Subject, Verb};
use mcp_model::records::*;
use mcp_model::secrets::referred;
use mcp_model::tables::{self, MemTables, Stored, Table, Tables};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use self::moves::*;
use super::shapes::variants_of;

mod moves;
mod others;

/// Kinds of commands that are refused to everybody in the coalition, whatever they were granted, and why.
const NEVER: &[(&str, &str)] = &[
    ("InitCluster", BY_ITSELF),
    ("OpenSession", BY_ITSELF),
    ("LogIn", BY_ITSELF),
    ("OfferSetup", BY_ITSELF),
    ("UseSetup", BY_ITSELF),
    ("ExpireToken", BY_ITSELF),
    ("RecordTokenUse", BY_ITSELF),
    ("PublishTools", BY_ITSELF),
    ("ReportTools", BY_ITSELF),
    ("KeepAuthority", BY_ITSELF),
    ("EnrolNode", BY_ITSELF),
    ("RegisterNode", BY_ITSELF),
    ("StageRestore", RESTORES),
    ("FinishRestore", RESTORES),
    ("DropRestore", RESTORES),
];
const BY_ITSELF: &str =
    "the cluster does it, after its own proof: a password, a secret, an answer of an upstream, a clock";
const RESTORES: &str =
    "a restore decides about everything, so it takes admin on *, which nobody in the coalition was granted";

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

struct World {
    tables: MemTables,
    index: u64,
    granted: Grants,
    controlled: Vec<Actor>,
    /// What there was of administrators at the beginning: nothing of it may go.
    administered: Administered,
    /// Commands that the coalition tried, by kind and by what they were tried as, and that were carried out for it.
    tried: Counts,
    done: Counts,
}

/// How often, by kind of command and word.
type Counts = BTreeMap<(&'static str, &'static str), usize>;

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
            administered: Administered::default(),
            tried: Counts::new(),
            done: Counts::new(),
        };
        let admin = Actor::User(Id::from_u128(1));
        let init = Command::InitCluster {
            cluster_id: Id::from_u128(7),
            admin: Id::from_u128(1),
            email: Email::parse("admin@x.y").unwrap(),
            password_hash: Some("theirs".to_owned()),
            rbac: Id::from_u128(2),
        };
        assert_eq!(world.run(Actor::System, init), Reply::ClusterInitialised);
        for node in 1..=NODES {
            let reply = world.run(Actor::System, register_node(node));
            assert_eq!(reply, Reply::Noted);
        }
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
        setup.push(write_rbac(
            Id::from_u128(0x500),
            "manages",
            Subject::User(user(0)),
            manages,
        ));
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
        let reply = world.run(Actor::System, report_tools(Id::from_u128(0x302)));
        assert_eq!(reply, Reply::Noted);
        world.administered = Administered::of(&world.tables);
        assert!(world.administered.everything_with_a_way_in);
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
        let counted = (command.kind(), kind_of(&actor));
        *self.tried.entry(counted).or_default() += 1;
        let reply = self.run(actor, command.clone());
        if matches!(reply, Reply::Refused(_)) {
            return false;
        }
        *self.done.entry(counted).or_default() += 1;
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
            Command::CreateServer { name, spec, .. }
            | Command::UpdateServer { name, spec, .. }
            | Command::CreateLimitedServer { name, spec, .. }
            | Command::UpdateLimitedServer { name, spec, .. } => {
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
            Command::CreateProject { name, spec, .. }
            | Command::UpdateProject { name, spec, .. }
            | Command::CreateLimitedProject { name, spec, .. }
            | Command::UpdateLimitedProject { name, spec, .. } => {
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
        prop_assert_eq!(Administered::of(&self.tables), self.administered, "somebody is missing");
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

fn kind_of(actor: &Actor) -> &'static str {
    match actor {
        Actor::System => "system",
        Actor::User(_) => "user",
        Actor::ServiceAccount(_) => "account",
        Actor::Token(_) => "token",
    }
}

#[test]
fn no_sequence_of_commands_lets_anyone_exceed_what_they_were_granted() {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(600);
    let mut runner = TestRunner::new(Config::with_cases(cases));
    let counted = std::cell::RefCell::new((Counts::new(), Counts::new()));
    runner
        .run(&plan(), |plan| {
            let mut world = World::founded(&plan);
            world.check()?;
            for step in &plan.moves {
                if world.go(step) {
                    world.check()?;
                }
            }
            let mut all = counted.borrow_mut();
            world
                .tried
                .iter()
                .for_each(|(key, n)| *all.0.entry(*key).or_default() += n);
            world
                .done
                .iter()
                .for_each(|(key, n)| *all.1.entry(*key).or_default() += n);
            Ok(())
        })
        .unwrap_or_else(|why| panic!("{why}"));
    let (tried, done) = counted.into_inner();
    nothing_was_left_out(&tried, &done);
}

/// Who is always refused never exceeds anything, and who never tries is never refused.
fn nothing_was_left_out(tried: &Counts, done: &Counts) {
    let (_, kinds) = variants_of::<Command>();
    let never: BTreeMap<&str, &str> = NEVER.iter().copied().collect();
    let strange: Vec<_> = never.keys().filter(|kind| !kinds.contains(*kind)).collect();
    assert!(strange.is_empty(), "there are no such commands: {strange:?}");
    let times = |counts: &Counts, kind: &str| -> usize {
        let of_kind = counts.iter().filter(|((of, _), _)| *of == kind);
        of_kind.map(|(_, n)| n).sum()
    };
    for kind in kinds {
        for who in ["user", "token"] {
            assert!(tried.contains_key(&(kind, who)), "no {who} ever tried {kind}");
        }
        match (times(done, kind), never.get(kind)) {
            (0, None) => panic!("{kind} was tried {} times and never carried out", times(tried, kind)),
            (n, Some(why)) if n > 0 => panic!("{kind} was carried out {n} times, although {why}"),
            _ => {}
        }
    }
    let by_tokens = done.iter().filter(|((_, who), _)| *who == "token").count();
    assert!(by_tokens > 0, "tokens were refused everything");
    if std::env::var_os("SHOW_COUNTS").is_some() {
        eprintln!("{done:#?}");
    }
}
