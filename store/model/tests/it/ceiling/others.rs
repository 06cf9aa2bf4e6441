//! Moves that are about single objects, about the cluster, and those that only the cluster makes.

use std::collections::BTreeMap;

use mcp_model::command::{Actor, Command};
use mcp_model::ids::{Id, NodeId};
use mcp_model::limits::{ProjectLimits, ServerLimits};
use mcp_model::records::*;
use mcp_model::tables::{self, Table};
use mcp_model::token::TokenHash;

use super::World;
use super::moves::*;
use crate::samples::{print, tool_list};

impl World {
    /// What else people may do, if they were granted it.
    pub(super) fn another(&self, what: u8, a: usize, b: usize, actor: Actor) -> Command {
        let id = self.new_id();
        let secret = name(["x0", "x1"][a % 2]);
        let if_version = None;
        match what {
            30 => Command::SetUserDisabled {
                email: user(a),
                disabled: b.is_multiple_of(2),
            },
            31..=32 => Command::CloseSession { hash: self.session(a) },
            33 => Command::DeleteProject {
                name: project(a),
                if_version,
            },
            34 => Command::DeleteServer {
                name: name(server(a)),
                if_version,
            },
            35..=36 => Command::DeleteToken { id: self.token(a) },
            37..=38 => Command::ChangePassword {
                password_hash: "another".to_owned(),
                seen_version: self.version_of(actor),
                keep: TokenHash([0; 32]),
            },
            39 => Command::UpdateServiceAccount {
                name: account(a),
                description: String::new(),
                if_version,
            },
            40 => Command::DeleteServiceAccount {
                name: account(a),
                if_version,
            },
            41..=42 => Command::CreateSecret {
                id,
                name: secret,
                description: String::new(),
                values: BTreeMap::new(),
            },
            43..=44 => Command::UpdateSecret {
                id: self.id(Table::SecretNames, secret.as_str()),
                name: secret,
                description: String::new(),
                values: BTreeMap::from([("k".to_owned(), vec![1])]),
                if_version,
            },
            45 => Command::DeleteSecret {
                name: secret,
                if_version,
            },
            46 => Command::ApproveTools {
                server: name(server(a)),
                tools: if b.is_multiple_of(2) {
                    vec![("t".to_owned(), print().whole)]
                } else {
                    Vec::new()
                },
            },
            47 => Command::CreateLimitedServer {
                id,
                name: name(server(a)),
                spec: server_spec(&transport(b)),
                limits: ServerLimits::default(),
            },
            48 => Command::UpdateLimitedServer {
                name: name(server(a)),
                spec: server_spec(&transport(b)),
                limits: ServerLimits::default(),
                if_version,
            },
            49 => Command::CreateLimitedProject {
                id,
                name: project(a),
                spec: self.project_spec(b),
                limits: ProjectLimits::default(),
            },
            _ => Command::UpdateLimitedProject {
                name: project(a),
                spec: self.project_spec(b),
                limits: ProjectLimits::default(),
                if_version,
            },
        }
    }

    /// What takes an action, and what the cluster alone does.
    pub(super) fn of_the_cluster(&self, what: u8, a: usize, b: usize) -> Command {
        let id = self.new_id();
        let hash = TokenHash::of(&format!("of the cluster {}", self.index));
        let node = NodeId(a as u64 % (NODES + 1));
        let expires_ms = 2_000;
        match what {
            51..=52 => Command::OfferJoin {
                id,
                hash,
                voter: b.is_multiple_of(2),
                expires_ms,
            },
            53..=54 => Command::WithdrawJoin { id: self.join_token(a) },
            55..=56 => Command::SetNodeRole {
                node,
                voter: b.is_multiple_of(2),
            },
            57 => Command::RetireNode { node },
            58 => match b % 3 {
                0 => Command::StageRestore {
                    restore: id,
                    part: 0,
                    bytes: vec![1],
                },
                1 => Command::FinishRestore {
                    restore: id,
                    head: vec![1],
                    revive_tokens: true,
                    any_cluster: true,
                },
                _ => Command::DropRestore { restore: id },
            },
            59 => match b % 3 {
                0 => Command::OpenSession {
                    hash,
                    user: self.user_id(a),
                    expires_ms,
                },
                1 => Command::LogIn {
                    hash,
                    user: self.user_id(a),
                    expires_ms,
                    seen_version: self.version_of(Actor::User(self.user_id(a))),
                },
                _ => Command::OfferSetup { hash, user: user(a) },
            },
            60 => match b % 3 {
                0 => Command::UseSetup {
                    hash,
                    user: user(a),
                    password_hash: "set up".to_owned(),
                },
                1 => Command::ExpireToken {
                    id: self.token(a),
                    expires_ms: 0,
                },
                _ => Command::RecordTokenUse {
                    uses: vec![(self.token(a), 1)],
                },
            },
            61 => match b % 2 {
                0 => Command::PublishTools { list: tool_list() },
                _ => report_tools(self.id(Table::ServerNames, server(a))),
            },
            62 => match b % 2 {
                0 => Command::KeepAuthority {
                    certificate: vec![1],
                    sealed_key: vec![1],
                },
                _ => Command::InitCluster {
                    cluster_id: id,
                    admin: self.user_id(a),
                    email: user(a),
                    password_hash: None,
                    rbac: id,
                },
            },
            _ => match b % 2 {
                0 => register_node(node.0),
                _ => Command::EnrolNode {
                    secret: hash,
                    request: [5; 32],
                    node,
                    name: name("n9"),
                    peer_address: "h:9".to_owned(),
                },
            },
        }
    }

    fn session(&self, n: usize) -> TokenHash {
        let all: Vec<Session> = tables::list(&self.tables, None, 100);
        all.get(n % all.len().max(1)).map_or(TokenHash([0; 32]), |s| s.hash)
    }

    fn join_token(&self, n: usize) -> Id {
        let all: Vec<JoinToken> = tables::list(&self.tables, None, 100);
        all.get(n % all.len().max(1)).map_or(Id::from_u128(9), |t| t.id)
    }

    fn version_of(&self, actor: Actor) -> u64 {
        let Actor::User(id) = actor else { return 0 };
        tables::by_id::<User>(&self.tables, id).map_or(0, |user| user.origin.version)
    }
}
