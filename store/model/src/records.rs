//! What is stored. Bodies of the API look alike and are other types: these change only by a new version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::frame::Framed;
use crate::ids::{Id, NodeId};
use crate::names::{Email, Name};
use crate::rbac::{RoleBinding, Subject};
use crate::tables::{Key, Stored, Table};
use crate::token::TokenHash;

/// What every record says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// Wall time of the proposer when it was created, ms since 1970.
    pub created_ms: u64,
    /// Who created it, as people write it.
    pub created_by: String,
    /// Log index of its last change.
    pub version: u64,
}

/// Facts about the cluster and the replicated state as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Names the cluster for ever.
    pub cluster_id: Id,
    /// Nothing newer than this is proposed before every member understands it.
    pub feature_level: u32,
    /// The latest time any command carried: never goes back. ms since 1970.
    pub time_ms: u64,
    /// Audit events kept, for their limit.
    pub audit_events: u64,
    /// Answers kept for repeated commands, for their limit.
    pub replies: u64,
}

/// A person.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Ownership goes by this, so that a new user with an old e-mail inherits nothing.
    pub id: Id,
    /// How bindings name the user. Immutable.
    pub email: Email,
    /// For people.
    pub name: String,
    /// argon2id in PHC form; without one the user cannot log in with a password.
    pub password_hash: Option<String>,
    /// A disabled user's sessions and tokens are refused.
    pub disabled: bool,
    /// Where it comes from.
    pub origin: Origin,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("User");
        out.field("id", &self.id)
            .field("email", &self.email)
            .field("disabled", &self.disabled)
            .finish_non_exhaustive()
    }
}

/// A login: who holds the bearer of this hash is this user or service account, in the API and nowhere else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// SHA-256 of the bearer.
    pub hash: TokenHash,
    /// Whose it is: a user's or a service account's id.
    pub user: Id,
    /// When it ends, ms since 1970.
    pub expires_ms: u64,
    /// Where it comes from.
    pub origin: Origin,
}

/// How a project names the tools of its servers. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToolNaming {
    /// `<server>__<tool>`.
    Prefixed,
    /// `<tool>`; refused where two servers collide.
    Plain,
}

/// What a user writes about a project. It is kept as [`KeptProjectSpec`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "KeptProjectSpec", into = "KeptProjectSpec")]
pub struct ProjectSpec {
    /// For people.
    pub description: String,
    /// Ids of the attached servers, in the order in which they are listed.
    pub servers: Vec<Id>,
    /// Has an effect once gated sessions exist.
    pub gated: bool,
    /// Kept for the original's files.
    pub proxy_model: Option<String>,
    /// How tools are named.
    pub tool_naming: ToolNaming,
    /// Told to clients that connect.
    pub instructions: Option<String>,
    /// Whether its clients may speak HTTP+SSE of 2024-11-05, with the token as the password in a URL.
    pub allow_sse: bool,
}

/// The bytes of a [`ProjectSpec`]. What was one byte for `gated` alone holds a bit for each yes or no, so that whatever was written
/// before reads as it did. A bit that is not known here was set by a newer program.
#[derive(Serialize, Deserialize)]
struct KeptProjectSpec {
    description: String,
    servers: Vec<Id>,
    flags: u8,
    proxy_model: Option<String>,
    tool_naming: ToolNaming,
    instructions: Option<String>,
}

const GATED: u8 = 1;
const ALLOW_SSE: u8 = 1 << 1;

impl From<ProjectSpec> for KeptProjectSpec {
    fn from(spec: ProjectSpec) -> KeptProjectSpec {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        KeptProjectSpec {
            description: spec.description,
            servers: spec.servers,
            flags: bit(spec.gated, GATED) | bit(spec.allow_sse, ALLOW_SSE),
            proxy_model: spec.proxy_model,
            tool_naming: spec.tool_naming,
            instructions: spec.instructions,
        }
    }
}

impl TryFrom<KeptProjectSpec> for ProjectSpec {
    type Error = &'static str;

    fn try_from(kept: KeptProjectSpec) -> Result<ProjectSpec, &'static str> {
        if kept.flags & !(GATED | ALLOW_SSE) != 0 {
            return Err("a project holds settings that this program does not know");
        }
        Ok(ProjectSpec {
            description: kept.description,
            servers: kept.servers,
            gated: kept.flags & GATED != 0,
            proxy_model: kept.proxy_model,
            tool_naming: kept.tool_naming,
            instructions: kept.instructions,
            allow_sse: kept.flags & ALLOW_SSE != 0,
        })
    }
}

/// What clients connect to: some servers under one URL.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Project {
    /// Tokens belong to this, not to the name.
    pub id: Id,
    /// In its URL.
    pub name: Name,
    /// What the user wrote.
    pub spec: ProjectSpec,
    /// Where it comes from.
    pub origin: Origin,
}

/// How a server is reached. Append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Transport {
    /// A child process of the node.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its whole environment beside `PATH` and `HOME`.
        env: BTreeMap<String, String>,
        /// Where it runs.
        cwd: Option<String>,
    },
    /// Streamable HTTP.
    Http {
        /// Its endpoint.
        url: String,
        /// Sent with every request.
        headers: BTreeMap<String, String>,
    },
    /// HTTP+SSE of 2024-11-05.
    Sse {
        /// Its event stream.
        url: String,
        /// Sent with every request.
        headers: BTreeMap<String, String>,
    },
}

/// What a user writes about a server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerSpec {
    /// For people.
    pub description: String,
    /// How it is reached.
    pub transport: Transport,
    /// Longest wait for a connection, or for a child to say hello, ms.
    pub connect_ms: u64,
    /// Longest silence while an answer is awaited, ms.
    pub response_ms: u64,
    /// One child per session instead of one per node.
    pub stateful: bool,
    /// Changed tools wait for approval.
    pub pin_tools: bool,
}

/// An MCP server behind the gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Server {
    /// Projects refer to this.
    pub id: Id,
    /// The prefix of its tools.
    pub name: Name,
    /// What the user wrote.
    pub spec: ServerSpec,
    /// Where it comes from.
    pub origin: Origin,
}

/// Who is granted what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RbacDefinition {
    /// Its id.
    pub id: Id,
    /// Its name; `mcptoken-<id>` is reserved for the bindings of a token. Kept as text because of that prefix.
    pub name: String,
    /// Who.
    pub subjects: Vec<Subject>,
    /// What.
    pub role_bindings: Vec<RoleBinding>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a token is in its life. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TokenStatus {
    /// Admitted.
    Active,
    /// Refused since its expiry.
    Expired,
    /// Refused since it was revoked.
    Revoked,
}

/// An MCP token. The bearer itself is nowhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct McpToken {
    /// Its id.
    pub id: Id,
    /// Unique among the project's active tokens.
    pub name: Name,
    /// The one project it reaches.
    pub project: Id,
    /// Whose rights limit it: a user's or a service account's id.
    pub owner: Id,
    /// SHA-256 of the bearer.
    pub hash: TokenHash,
    /// The beginning of the bearer, for people.
    pub shown_prefix: String,
    /// For people.
    pub description: String,
    /// When it ends by itself, ms since 1970; `None`: never.
    pub expires_ms: Option<u64>,
    /// When it was last seen, about a minute late.
    pub last_used_ms: Option<u64>,
    /// When it was revoked or expired.
    pub revoked_ms: Option<u64>,
    /// Where it is in its life.
    pub status: TokenStatus,
    /// Where it comes from.
    pub origin: Origin,
}

/// A hash that was taken away and must not come back before its token would have ended anyway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tombstone {
    /// The hash.
    pub hash: TokenHash,
    /// Log index of the change that took it away: what a repeated revoke waits for.
    pub index: u64,
    /// When the token would have ended; `None`: never, so the tombstone stays.
    pub expires_ms: Option<u64>,
}

/// What an upstream offers, as it sent it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default)]
pub struct Offer {
    /// JSON array of tools.
    pub tools: String,
    /// JSON array of prompts.
    pub prompts: String,
    /// JSON array of resources.
    pub resources: String,
    /// JSON array of resource templates.
    pub templates: String,
    /// JSON object of the upstream's capabilities.
    pub capabilities: String,
    /// The upstream's instructions, if it gave any.
    pub instructions: Option<String>,
}

/// What is known of an upstream's lists. Append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Health {
    /// The last probe answered.
    Healthy,
    /// The last probe did not; the offer, if there is one, is the last good one.
    Unhealthy {
        /// Why, for people.
        reason: String,
    },
}

/// The replicated lists of one server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToolList {
    /// Whose.
    pub server: Id,
    /// SHA-256 over the offer: replicated only when it changes.
    pub digest: [u8; 32],
    /// `None`: it never answered.
    pub offer: Option<Offer>,
    /// Whether it answers now.
    pub health: Health,
    /// When the offer was fetched, ms since 1970.
    pub fetched_ms: u64,
    /// Log index of the last change.
    pub version: u64,
}

/// A replica, as people know it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// For people.
    pub name: Name,
    /// `host:port` for peers.
    pub peer_address: String,
    /// URL of its API.
    pub api_url: String,
    /// URL of its gateway.
    pub gateway_url: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// A node that was removed: it may still hold a lease, and its id never comes back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retirement {
    /// Which.
    pub id: NodeId,
    /// Log index of the removal.
    pub index: u64,
    /// When, ms since 1970.
    pub time_ms: u64,
}

/// The cluster's certificate authority. Its key is sealed: whoever holds the data key, as every node does, can sign.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, sealed.
    pub sealed_key: Vec<u8>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A secret that sets one user's first password, once. The secret itself lies in a file of the operator's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetupSecret {
    /// SHA-256 of the secret.
    pub hash: TokenHash,
    /// Whose password it sets.
    pub user: Id,
}

/// A way in for one machine, once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of its secret.
    pub hash: TokenHash,
    /// What people call it by.
    pub id: Id,
    /// Whether the machine is to vote once it has caught up.
    pub voter: bool,
    /// Until when, ms since 1970.
    pub expires_ms: u64,
    /// Who came in by it.
    pub used: Option<JoinUse>,
    /// Where it comes from.
    pub origin: Origin,
}

/// By whom a join token was used: the same request may be repeated, if its answer was lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinUse {
    /// The node.
    pub node: NodeId,
    /// SHA-256 of its certificate request.
    pub request: [u8; 32],
}

/// The part that a node is to play. The leader changes the membership until it says the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Enrolment {
    /// Which.
    pub node: NodeId,
    /// For people. Unique among enrolled nodes.
    pub name: Name,
    /// `host:port` for peers. Unique among enrolled nodes.
    pub peer_address: String,
    /// Whether it is to vote once it has caught up.
    pub voter: bool,
    /// Where it comes from.
    pub origin: Origin,
}

/// One control-plane event: who changed what. Written in the transaction of the change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Log index of the change.
    pub index: u64,
    /// Position within the entry.
    pub seq: u32,
    /// ms since 1970.
    pub time_ms: u64,
    /// Who, as people write it.
    pub actor: String,
    /// What was asked, in the command's own words: `RevokeToken`.
    pub kind: String,
    /// Of what: `mcptoken demo/ci`.
    pub object: String,
    /// `allow`, or why not.
    pub decision: String,
}

/// Users who are granted things together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: Id,
    /// How bindings name it.
    pub name: Name,
    /// For people.
    pub description: String,
    /// Ids of users: an old e-mail in new hands is no member.
    pub members: Vec<Id>,
    /// Where it comes from.
    pub origin: Origin,
}

/// A program: it has bindings, sessions and tokens like a user, and no password.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceAccount {
    /// Sessions and tokens belong to this, not to the name.
    pub id: Id,
    /// How bindings name it.
    pub name: Name,
    /// For people.
    pub description: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Values that servers refer to. Whoever reads the store finds them sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The values are sealed for this id.
    pub id: Id,
    /// In `${secret:NAME/KEY}`.
    pub name: Name,
    /// For people.
    pub description: String,
    /// Sealed values by key.
    pub values: BTreeMap<String, Vec<u8>>,
    /// Where it comes from.
    pub origin: Origin,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Secret");
        out.field("id", &self.id)
            .field("name", &self.name)
            .field("keys", &self.values.keys())
            .finish_non_exhaustive()
    }
}

macro_rules! stored {
    ($kind:literal, $type:ident, $table:ident, |$r:ident| $key:expr) => {
        impl Framed for $type {
            const KIND: u8 = $kind;
        }
        impl Stored for $type {
            const TABLE: Table = Table::$table;
            fn key(&self) -> Key {
                let $r = self;
                Key::from($key)
            }
        }
    };
}

stored!(1, ClusterRecord, Cluster, |_r| [0u8]);
stored!(2, User, Users, |r| r.id.to_bytes());
stored!(3, Session, Sessions, |r| r.hash.0);
stored!(4, Project, Projects, |r| r.id.to_bytes());
stored!(5, Server, Servers, |r| r.id.to_bytes());
stored!(6, RbacDefinition, Rbac, |r| r.id.to_bytes());
stored!(7, McpToken, Tokens, |r| r.id.to_bytes());
stored!(8, Tombstone, Tombstones, |r| r.hash.0);
stored!(9, ToolList, ToolLists, |r| r.server.to_bytes());
stored!(10, NodeRecord, Nodes, |r| r.id.0.to_be_bytes());
stored!(11, Retirement, Retired, |r| r.id.0.to_be_bytes());
stored!(12, AuditRecord, Audit, |r| audit_key(r.index, r.seq));
stored!(13, Authority, Cluster, |_r| AUTHORITY_KEY);
stored!(14, SetupSecret, SetupSecrets, |r| r.hash.0);
stored!(15, JoinToken, JoinTokens, |r| r.hash.0);
stored!(16, Enrolment, Enrolments, |r| r.node.0.to_be_bytes());
stored!(17, Group, Groups, |r| r.id.to_bytes());
stored!(18, ServiceAccount, ServiceAccounts, |r| r.id.to_bytes());
stored!(19, Secret, Secrets, |r| r.id.to_bytes());

/// Where the one [`Authority`] is kept, beside the [`ClusterRecord`].
pub const AUTHORITY_KEY: [u8; 1] = [1];

/// The key of an audit record: by index, then by position.
fn audit_key(index: u64, seq: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&index.to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameError, decode, encode};

    fn project(gated: bool, allow_sse: bool) -> Project {
        Project {
            id: Id::from_u128(1),
            name: Name::parse("demo").unwrap(),
            spec: ProjectSpec {
                description: String::new(),
                servers: Vec::new(),
                gated,
                proxy_model: None,
                tool_naming: ToolNaming::Prefixed,
                instructions: None,
                allow_sse,
            },
            origin: Origin {
                created_ms: 1,
                created_by: "system".to_owned(),
                version: 1,
            },
        }
    }

    #[test]
    fn settings_of_a_project_share_a_byte_with_what_was_kept_before() {
        for (gated, allow_sse) in [(false, false), (true, false), (false, true), (true, true)] {
            let bytes = encode(&project(gated, allow_sse));
            assert_eq!(decode(&bytes), Ok(project(gated, allow_sse)));
        }
        // Frame, id, name, an empty description, no servers, and then the settings.
        let at = encode(&project(false, false))
            .iter()
            .zip(encode(&project(true, true)))
            .position(|(a, b)| *a != b);
        let mut newer = encode(&project(true, true));
        newer[at.unwrap()] = 4;
        let end = newer.len() - 4;
        let crc = crc32c::crc32c(&newer[..end]).to_be_bytes();
        newer[end..].copy_from_slice(&crc);
        assert_eq!(decode::<Project>(&newer), Err(FrameError::Body));
    }
}
