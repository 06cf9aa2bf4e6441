//! The vocabulary of the stories.

use std::collections::BTreeMap;

use mcp_model::apply::{Cut, Effects, apply};
use mcp_model::authority::Rights;
use mcp_model::backup;
use mcp_model::command::{Actor, Command, Envelope, Outcome, Reply, TokenGrant};
use mcp_model::ids::{CommandId, Id, NodeId};
use mcp_model::names::{Email, Name};
use mcp_model::rbac::Subject;
use mcp_model::records::{
    ClusterRecord, JoinToken, NodeRecord, Origin, ProjectSpec, Server, ServerSpec, Session, ToolNaming, Transport, User,
};
use mcp_model::tables::{self, MemTables, Table};
use mcp_model::token::TokenHash;

/// A cluster without a cluster: state in memory, and whoever speaks.
pub(crate) struct World {
    pub(crate) tables: MemTables,
    pub(crate) actor: Actor,
    pub(crate) now_ms: u64,
    pub(crate) index: u64,
    /// The backup that was saved last: its head and its body.
    pub(crate) backup: (Vec<u8>, Vec<u8>),
}

impl World {
    pub(crate) fn line(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["as", "system"] => self.actor = Actor::System,
            ["as", "token", n] => self.actor = Actor::Token(hash(n)),
            ["as", "sa", called] => self.actor = Actor::ServiceAccount(self.id_of(Table::ServiceAccountNames, called)),
            ["open", n] => return vec![self.open(n)],
            ["as", who] => self.actor = Actor::User(self.user(who)),
            ["at", ms] => self.now_ms = ms.parse().unwrap(),
            ["save"] => self.save(),
            ["restore", ref how @ ..] => return self.restore(how),
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

    /// Takes a backup of everything as it is.
    pub(crate) fn save(&mut self) {
        let cluster: ClusterRecord = tables::load(&self.tables, &[0]).unwrap();
        let occasion = backup::Occasion {
            cluster_id: cluster.cluster_id,
            index: self.index,
            taken_ms: self.now_ms,
            program: "test".to_owned(),
            feature_level: cluster.feature_level,
            key_id: [0; 8],
        };
        let header = backup::survey(&self.tables, occasion);
        let mut body = Vec::new();
        backup::each_row(&self.tables, |_, row| {
            body.extend_from_slice(&row);
            true
        });
        self.backup = (backup::head(&header), body);
    }

    /// Lays the last backup down in small pieces and restores it: `restore [revive] [other]`.
    fn restore(&mut self, how: &[&str]) -> Vec<String> {
        let restore = Id::from_u128(u128::from(self.index) + 0x7000);
        let (head, body) = self.backup.clone();
        for (part, bytes) in (0..).zip(body.chunks(100)) {
            let bytes = bytes.to_vec();
            self.carry_out(Command::StageRestore { restore, part, bytes });
        }
        self.carry_out(Command::FinishRestore {
            restore,
            head,
            revive_tokens: how.contains(&"revive"),
            any_cluster: how.contains(&"other"),
        })
    }

    fn command(&mut self, words: &[&str]) -> Vec<String> {
        self.index += 1;
        let command = self.parse(words);
        self.index -= 1;
        self.carry_out(command)
    }

    pub(crate) fn carry_out(&mut self, command: Command) -> Vec<String> {
        self.index += 1;
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
        if tables::load::<ClusterRecord>(&self.tables, &[0]).is_some() {
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
            ["name", email, called] => Command::UpdateUser {
                email: Email::parse(email).unwrap(),
                name: Some(called.to_owned()),
                disabled: None,
                if_version: None,
            },
            ["drop", "user", email] => Command::DeleteUser {
                email: Email::parse(email).unwrap(),
                if_version: None,
            },
            ["password", seen_version, "keep", n] => Command::ChangePassword {
                password_hash: "new".to_owned(),
                seen_version: seen_version.parse().unwrap(),
                keep: hash(n),
            },
            ["reset", email] => Command::ResetPassword {
                email: Email::parse(email).unwrap(),
                password_hash: "reset".to_owned(),
            },
            ["login", n, email, "seen", seen_version] => Command::LogIn {
                hash: hash(n),
                user: self.user(email),
                expires_ms: 1_000_000,
                seen_version: seen_version.parse().unwrap(),
            },
            ["session", n, "for", account] => Command::OpenServiceSession {
                account: name(account),
                hash: hash(n),
                expires_ms: 1_000_000,
            },
            ["group", called, ref members @ ..] => Command::CreateGroup {
                id,
                name: name(called),
                description: String::new(),
                members: members.iter().map(|email| self.user(email)).collect(),
            },
            ["change", "group", called, ref members @ ..] => Command::UpdateGroup {
                name: name(called),
                description: String::new(),
                members: members.iter().map(|email| self.user(email)).collect(),
                if_version: None,
            },
            ["drop", "group", called] => Command::DeleteGroup {
                name: name(called),
                if_version: None,
            },
            ["sa", called] => Command::CreateServiceAccount {
                id,
                name: name(called),
                description: String::new(),
            },
            ["drop", "sa", called] => Command::DeleteServiceAccount {
                name: name(called),
                if_version: None,
            },
            ["secret", called, ref keys @ ..] => Command::CreateSecret {
                id,
                name: name(called),
                description: String::new(),
                values: values(keys),
            },
            ["change", "secret", called, ref keys @ ..] => Command::UpdateSecret {
                id: self.id_of(Table::SecretNames, called),
                name: name(called),
                description: String::new(),
                values: values(keys),
                if_version: None,
            },
            ["drop", "secret", called] => Command::DeleteSecret {
                name: name(called),
                if_version: None,
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
            ["server", called, how, ref rest @ ..] => Command::CreateServer {
                id,
                name: name(called),
                spec: server_spec(how, rest),
            },
            ["change", "server", called, how, ref rest @ ..] => Command::UpdateServer {
                name: name(called),
                spec: server_spec(how, rest),
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
            ["withdraw", n] => {
                let token: Option<JoinToken> = tables::load(&self.tables, &hash(n).0);
                Command::WithdrawJoin {
                    id: token.map_or(Id::from_u128(9), |token| token.id),
                }
            }
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

    /// Whether a session is open.
    fn open(&self, n: &str) -> String {
        let session: Option<Session> = tables::load(&self.tables, &hash(n).0);
        if session.is_some() {
            "yes".to_owned()
        } else {
            "no".to_owned()
        }
    }

    fn id_of(&self, names: Table, name: &str) -> Id {
        let id = tables::Tables::get(&self.tables, names, name.as_bytes());
        id.and_then(|id| Id::from_slice(&id)).unwrap_or(Id::from_u128(0))
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
            allow_sse: false,
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

/// `http` or a command, then `url=`, `header=`, `arg=` and `env=` as often as wanted.
fn server_spec(how: &str, rest: &[&str]) -> ServerSpec {
    let of = |key: &str| -> Vec<String> {
        let values = rest.iter().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        values.map(str::to_owned).collect()
    };
    let map = |key: &str| -> BTreeMap<String, String> {
        let values = of(key).into_iter().enumerate();
        values.map(|(at, value)| (format!("{key}{at}"), value)).collect()
    };
    let transport = match how {
        "http" => Transport::Http {
            url: of("url").pop().unwrap_or_else(|| "http://localhost/mcp".to_owned()),
            headers: map("header"),
        },
        _ => Transport::Stdio {
            command: how.to_owned(),
            args: of("arg"),
            env: map("env"),
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

/// A value is sealed elsewhere: here it is its own key.
fn values(keys: &[&str]) -> BTreeMap<String, Vec<u8>> {
    keys.iter()
        .map(|key| ((*key).to_owned(), key.as_bytes().to_vec()))
        .collect()
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
        Reply::Restored(it) => format!(
            "restored: revived {:?}, stay refused {:?}, revoked {:?}, users back {:?}, sessions closed {}",
            it.revived.names, it.refused.names, it.revoked.names, it.users_back.names, it.sessions_closed
        ),
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
