//! Stories: a text file of commands, each followed by what it is answered. `UPDATE_EXPECT=1` rewrites the answers; whoever
//! does that reads the difference.
//!
//! ```text
//! as admin                      whoever speaks from here on: system, admin, a user's e-mail, token N
//! at 5000                       the proposer's clock, ms
//! token 7 ci in demo role:run,resource:servers      N is the byte its hash is made of
//! ```

use std::fmt::Write;

use mcp_model::apply::{Cut, Effects, apply};
use mcp_model::authority::Rights;
use mcp_model::command::{Actor, Command, Envelope, Outcome, Reply, TokenGrant};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::Subject;
use mcp_model::records::{NodeRecord, Origin, ProjectSpec, Server, ServerSpec, ToolNaming, Transport, User};
use mcp_model::tables::{self, MemTables, Table};
use mcp_model::token::TokenHash;

use super::{expect_file, here};

#[test]
fn stories_go_as_written() {
    let mut told = 0;
    for entry in std::fs::read_dir(here("stories")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        expect_file(&path, &tell(&text));
        told += 1;
    }
    assert!(told >= 6, "only {told} stories were found");
}

fn tell(text: &str) -> String {
    let mut world = World {
        tables: MemTables::default(),
        actor: Actor::System,
        now_ms: 1_000,
        index: 0,
    };
    let mut out = String::new();
    for line in text.lines().filter(|l| !l.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        for answer in world.line(line) {
            writeln!(out, "  {answer}").unwrap();
        }
    }
    out
}

struct World {
    tables: MemTables,
    actor: Actor,
    now_ms: u64,
    index: u64,
}

impl World {
    fn line(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["as", "system"] => self.actor = Actor::System,
            ["as", "token", n] => self.actor = Actor::Token(hash(n)),
            ["as", who] => self.actor = Actor::User(self.user(who)),
            ["at", ms] => self.now_ms = ms.parse().unwrap(),
            ["can", ref rest @ ..] => return vec![self.can(rest)],
            _ => return self.command(&words),
        }
        Vec::new()
    }

    fn can(&self, words: &[&str]) -> String {
        let Some(rights) = Rights::of(&self.tables, &self.actor, self.now_ms) else {
            return "nobody".to_owned();
        };
        let wanted = words.join("").parse().unwrap();
        let answer = match &wanted {
            mcp_model::rbac::RoleBinding::Action(action) => rights.allow_action(*action),
            mcp_model::rbac::RoleBinding::On { role, resource, name } => {
                let name = name.as_ref().map_or_else(String::new, ToString::to_string);
                role.verbs().iter().all(|v| rights.allow(*v, *resource, &name))
            }
        };
        if answer { "yes".to_owned() } else { "no".to_owned() }
    }

    fn command(&mut self, words: &[&str]) -> Vec<String> {
        self.index += 1;
        let command = self.parse(words);
        let id = CommandId(u128::from(self.index));
        let envelope = Envelope {
            id,
            now_ms: self.now_ms,
            actor: self.actor,
            command,
        };
        let mut effects = Effects::default();
        let outcome = apply(&mut self.tables, self.index, 0, &envelope, &mut effects);
        let repeated = apply(
            &mut self.tables,
            self.index + 1_000,
            0,
            &envelope,
            &mut Effects::default(),
        );
        if tables::load::<mcp_model::records::ClusterRecord>(&self.tables, &[0]).is_some() {
            assert_eq!(outcome, repeated, "a repetition is answered alike");
        }
        describe(&outcome, &effects)
    }

    fn parse(&self, words: &[&str]) -> Command {
        let id = Id::from_u128(u128::from(self.index) + 0x100);
        match *words {
            ["init", email] => Command::InitCluster {
                cluster_id: id,
                admin: Id::from_u128(1),
                email: Email::parse(email).unwrap(),
                password_hash: None,
                rbac: Id::from_u128(2),
            },
            ["user", email] => Command::CreateUser {
                id,
                email: Email::parse(email).unwrap(),
                name: String::new(),
                password_hash: None,
            },
            ["disable", email] => Command::SetUserDisabled {
                email: Email::parse(email).unwrap(),
                disabled: true,
            },
            ["enable", email] => Command::SetUserDisabled {
                email: Email::parse(email).unwrap(),
                disabled: false,
            },
            ["session", n, email] => Command::OpenSession {
                hash: hash(n),
                user: self.user(email),
                expires_ms: 1_000_000,
            },
            ["logout", n] => Command::CloseSession { hash: hash(n) },
            ["project", called, ref servers @ ..] => Command::CreateProject {
                id,
                name: name(called),
                spec: self.project_spec(servers),
            },
            ["change", "project", called, ref servers @ ..] => Command::UpdateProject {
                name: name(called),
                spec: self.project_spec(servers),
                if_version: None,
            },
            ["change", "project-at", version, called] => Command::UpdateProject {
                name: name(called),
                spec: self.project_spec(&[]),
                if_version: Some(version.parse().unwrap()),
            },
            ["drop", "project", called] => Command::DeleteProject {
                name: name(called),
                if_version: None,
            },
            ["server", called, how] => Command::CreateServer {
                id,
                name: name(called),
                spec: server_spec(how),
            },
            ["change", "server", called, how] => Command::UpdateServer {
                name: name(called),
                spec: server_spec(how),
                if_version: None,
            },
            ["drop", "server", called] => Command::DeleteServer {
                name: name(called),
                if_version: None,
            },
            ["grant", called, subject, ref bindings @ ..] => Command::WriteRbac {
                id,
                name: name(called),
                subjects: vec![subject.parse::<Subject>().unwrap()],
                role_bindings: bindings.iter().map(|b| b.parse().unwrap()).collect(),
                if_version: None,
            },
            ["drop", "grant", called] => Command::DeleteRbac {
                name: name(called),
                if_version: None,
            },
            ["token", n, called, "in", project, ref rest @ ..] => self.token(id, n, called, project, rest),
            ["revoke", n] => Command::RevokeToken { id: self.token_id(n) },
            ["delete", n] => Command::DeleteToken { id: self.token_id(n) },
            ["expire", n, at] => Command::ExpireToken {
                id: self.token_id(n),
                expires_ms: at.parse().unwrap(),
            },
            _ => self.cluster_command(id, words),
        }
    }

    fn cluster_command(&self, id: Id, words: &[&str]) -> Command {
        match *words {
            ["authority"] => Command::KeepAuthority {
                certificate: vec![1],
                sealed_key: vec![2],
            },
            ["offer", "setup", n, email] => Command::OfferSetup {
                hash: hash(n),
                user: Email::parse(email).unwrap(),
            },
            ["use", "setup", n, email] => Command::UseSetup {
                hash: hash(n),
                user: Email::parse(email).unwrap(),
                password_hash: "phc".to_owned(),
            },
            ["offer", "join", n, role, "until", ms] => Command::OfferJoin {
                id,
                hash: hash(n),
                voter: role == "voter",
                expires_ms: ms.parse().unwrap(),
            },
            // The request is that of the node itself.
            ["enrol", node, called, "at", address, "with", n] => Command::EnrolNode {
                secret: hash(n),
                request: hash(node).0,
                node: node_id(node),
                name: name(called),
                peer_address: address.to_owned(),
            },
            ["register", node, called, "at", address] => Command::RegisterNode {
                node: NodeRecord {
                    id: node_id(node),
                    name: name(called),
                    peer_address: address.to_owned(),
                    api_url: String::new(),
                    gateway_url: String::new(),
                    origin: Origin {
                        created_ms: 0,
                        created_by: String::new(),
                        version: 0,
                    },
                },
            },
            ["promote", node] => Command::SetNodeRole {
                node: node_id(node),
                voter: true,
            },
            ["demote", node] => Command::SetNodeRole {
                node: node_id(node),
                voter: false,
            },
            ["retire", node] => Command::RetireNode { node: node_id(node) },
            _ => panic!("what is {words:?}?"),
        }
    }

    fn token(&self, id: Id, n: &str, called: &str, project: &str, rest: &[&str]) -> Command {
        let mut grant = TokenGrant::Bindings(Vec::new());
        let (mut expires_ms, mut replace) = (None, false);
        for word in rest {
            match (*word, word.split_once('=')) {
                ("clone", _) => grant = TokenGrant::Clone,
                ("force", _) => replace = true,
                (_, Some(("until", ms))) => expires_ms = Some(ms.parse().unwrap()),
                (binding, _) => match &mut grant {
                    TokenGrant::Bindings(bindings) => bindings.push(binding.parse().unwrap()),
                    TokenGrant::Clone => panic!("clone and bindings"),
                },
            }
        }
        Command::IssueToken {
            id,
            name: name(called),
            project: name(project),
            hash: hash(n),
            shown_prefix: "mcpctl_pat_abcd".to_owned(),
            description: String::new(),
            expires_ms,
            grant,
            replace,
        }
    }

    fn user(&self, email: &str) -> Id {
        let email = if email == "admin" { "admin@example.com" } else { email };
        let user: Option<User> = tables::by_name(&self.tables, Table::UserEmails, email.as_bytes());
        user.map_or(Id::from_u128(0), |u| u.id)
    }

    fn token_id(&self, n: &str) -> Id {
        let id = tables::Tables::get(&self.tables, Table::TokenHashes, &hash(n).0);
        id.and_then(|id| Id::from_slice(&id)).unwrap_or(Id::from_u128(0))
    }

    fn project_spec(&self, servers: &[&str]) -> ProjectSpec {
        let id = |name: &&str| {
            tables::by_name::<Server>(&self.tables, Table::ServerNames, name.as_bytes())
                .map_or(Id::from_u128(0xdead), |s| s.id)
        };
        ProjectSpec {
            description: String::new(),
            servers: servers.iter().map(id).collect(),
            gated: true,
            proxy_model: None,
            tool_naming: ToolNaming::Prefixed,
            instructions: None,
        }
    }
}

fn node_id(n: &str) -> NodeId {
    NodeId(n.parse().unwrap())
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn hash(n: &str) -> TokenHash {
    TokenHash([n.parse().unwrap(); 32])
}

fn server_spec(how: &str) -> ServerSpec {
    let transport = match how {
        "http" => Transport::Http {
            url: "http://localhost/mcp".to_owned(),
            headers: Default::default(),
        },
        _ => Transport::Stdio {
            command: how.to_owned(),
            args: Vec::new(),
            env: Default::default(),
            cwd: None,
        },
    };
    let (connect_ms, response_ms) = (1_000, 1_000);
    let description = String::new();
    ServerSpec {
        description,
        transport,
        connect_ms,
        response_ms,
        stateful: false,
        pin_tools: false,
    }
}

fn describe(outcome: &Outcome, effects: &Effects) -> Vec<String> {
    let reply = match &outcome.reply {
        Reply::Refused(why) => format!("refused: {why}"),
        Reply::ClusterInitialised => "cluster initialised".to_owned(),
        Reply::Created { .. } => "created".to_owned(),
        Reply::Updated { .. } => "updated".to_owned(),
        Reply::Deleted { .. } => "deleted".to_owned(),
        Reply::SessionOpened => "session opened".to_owned(),
        Reply::SessionClosed => "session closed".to_owned(),
        Reply::TokenIssued { replaced, bindings, .. } => {
            let bindings: Vec<String> = bindings.iter().map(ToString::to_string).collect();
            let replaced = if replaced.is_some() { ", another revoked" } else { "" };
            format!("token issued{replaced}: [{}]", bindings.join(" "))
        }
        Reply::TokenRevoked { already, .. } => {
            if *already {
                "token was revoked before".to_owned()
            } else {
                "token revoked".to_owned()
            }
        }
        Reply::Noted => "noted".to_owned(),
        Reply::NodeEnrolled { voter: true } => "enrolled as a voter to be".to_owned(),
        Reply::NodeEnrolled { voter: false } => "enrolled as a learner".to_owned(),
    };
    let mut lines = vec![reply];
    if outcome.restricts {
        lines[0].push_str("; waits for every replica");
    }
    lines.extend(
        effects
            .retired
            .iter()
            .map(|node| format!("node {} admits nobody", node.0)),
    );
    for cut in &effects.cuts {
        lines.push(match cut {
            Cut::Token(hash) => format!("cuts token {}", hash.0[0]),
            Cut::Owner(_) => "cuts the owner's tokens".to_owned(),
            Cut::Project(_) => "cuts the project's tokens".to_owned(),
            Cut::All => "cuts everybody".to_owned(),
        });
    }
    lines
}
