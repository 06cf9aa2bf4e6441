//! What can be asked of the replicated state, and what is answered. Everything that varies (ids, times, hashes) is inside.

use serde::{Deserialize, Serialize};

use crate::frame::Framed;
use crate::ids::{CommandId, Id, NodeId};
use crate::names::{Email, Name};
use crate::rbac::{Action, Resource, RoleBinding, Subject, Verb};
use crate::records::{NodeRecord, ProjectSpec, ServerSpec, ToolList};
use crate::token::TokenHash;

/// On whose behalf a command is carried out. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Actor {
    /// The cluster itself: probes, expiry, bookkeeping, logins whose password was checked.
    System,
    /// A user.
    User(Id),
    /// A token, by its hash.
    Token(TokenHash),
}

/// A command with what its proposer adds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The same for every repetition: a command is carried out once.
    pub id: CommandId,
    /// The proposer's wall clock, ms since 1970.
    pub now_ms: u64,
    /// Who asks.
    pub actor: Actor,
    /// For what.
    pub command: Command,
}

impl Framed for Envelope {
    const KIND: u8 = 100;
}

impl Envelope {
    /// The frame that is replicated.
    pub fn encode(&self) -> Vec<u8> {
        crate::frame::encode(self)
    }

    /// Reads a replicated frame.
    pub fn decode(bytes: &[u8]) -> Result<Envelope, crate::frame::FrameError> {
        crate::frame::decode(bytes)
    }
}

/// A change. Append-only: variants and their fields keep their places for ever.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// First of all: names the cluster and makes its first administrator. Refused when there is a cluster.
    InitCluster {
        /// Names the cluster.
        cluster_id: Id,
        /// The first administrator's id.
        admin: Id,
        /// And e-mail.
        email: Email,
        /// And password, as argon2id in PHC form.
        password_hash: Option<String>,
        /// Id of the definition that makes them one.
        rbac: Id,
    },
    /// Makes a user.
    CreateUser {
        /// Their id.
        id: Id,
        /// How bindings name them.
        email: Email,
        /// For people.
        name: String,
        /// argon2id in PHC form.
        password_hash: Option<String>,
    },
    /// Lets a user's sessions and tokens in again, or no more.
    SetUserDisabled {
        /// Who.
        email: Email,
        /// Whether they are refused.
        disabled: bool,
    },
    /// Opens a session for a user who has proven a password.
    OpenSession {
        /// SHA-256 of the bearer.
        hash: TokenHash,
        /// Whose.
        user: Id,
        /// Until when, ms since 1970.
        expires_ms: u64,
    },
    /// Ends a session.
    CloseSession {
        /// SHA-256 of the bearer.
        hash: TokenHash,
    },
    /// Makes a project.
    CreateProject {
        /// Its id.
        id: Id,
        /// Its name.
        name: Name,
        /// What the user wrote.
        spec: ProjectSpec,
    },
    /// Replaces what the user wrote about a project.
    UpdateProject {
        /// Which.
        name: Name,
        /// The new text.
        spec: ProjectSpec,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Removes a project and revokes its tokens.
    DeleteProject {
        /// Which.
        name: Name,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Makes a server.
    CreateServer {
        /// Its id.
        id: Id,
        /// Its name.
        name: Name,
        /// What the user wrote.
        spec: ServerSpec,
    },
    /// Replaces what the user wrote about a server.
    UpdateServer {
        /// Which.
        name: Name,
        /// The new text.
        spec: ServerSpec,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Removes a server and detaches it everywhere.
    DeleteServer {
        /// Which.
        name: Name,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Makes a definition or replaces one.
    WriteRbac {
        /// Its id, if it is new.
        id: Id,
        /// Its name.
        name: Name,
        /// Who.
        subjects: Vec<Subject>,
        /// What.
        role_bindings: Vec<RoleBinding>,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Removes a definition.
    DeleteRbac {
        /// Which.
        name: Name,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Lets a new bearer in.
    IssueToken {
        /// The token's id.
        id: Id,
        /// Its name.
        name: Name,
        /// Its project.
        project: Name,
        /// SHA-256 of the bearer.
        hash: TokenHash,
        /// The beginning of the bearer.
        shown_prefix: String,
        /// For people.
        description: String,
        /// When it ends by itself.
        expires_ms: Option<u64>,
        /// What it may do, within its owner's rights.
        grant: TokenGrant,
        /// Whether an active token of that name is revoked first.
        replace: bool,
    },
    /// Takes a token away and keeps its record.
    RevokeToken {
        /// Which.
        id: Id,
    },
    /// Takes a token away together with its record.
    DeleteToken {
        /// Which.
        id: Id,
    },
    /// Takes a token away whose time has come.
    ExpireToken {
        /// Which.
        id: Id,
        /// The expiry that was seen: another one means that the token is not due.
        expires_ms: u64,
    },
    /// Replaces a server's lists.
    PublishTools {
        /// The lists. `version` is filled in.
        list: ToolList,
    },
    /// Says how a node is reached.
    RegisterNode {
        /// The node. `origin` is filled in.
        node: NodeRecord,
    },
    /// Remembers that a node was removed.
    RetireNode {
        /// Which.
        node: NodeId,
    },
    /// Notes when tokens were last seen.
    RecordTokenUse {
        /// Token id and wall time in ms since 1970.
        uses: Vec<(Id, u64)>,
    },
    /// Keeps the authority that signs this cluster's certificates. Refused when there is one.
    KeepAuthority {
        /// Its certificate, DER.
        certificate: Vec<u8>,
        /// Its private key, sealed.
        sealed_key: Vec<u8>,
    },
    /// Lets whoever knows a secret set a user's first password, once.
    OfferSetup {
        /// SHA-256 of the secret.
        hash: TokenHash,
        /// Whose.
        user: Email,
    },
    /// Sets the first password, and ends the secret.
    UseSetup {
        /// SHA-256 of the secret that was presented.
        hash: TokenHash,
        /// Whose.
        user: Email,
        /// The new password, as argon2id in PHC form.
        password_hash: String,
    },
    /// Lets one machine join.
    OfferJoin {
        /// Id of the join token.
        id: Id,
        /// SHA-256 of its secret.
        hash: TokenHash,
        /// Whether the machine is to vote.
        voter: bool,
        /// Until when, ms since 1970.
        expires_ms: u64,
    },
    /// Takes in the machine that has proven a join token's secret, and ends the token.
    EnrolNode {
        /// SHA-256 of the secret.
        secret: TokenHash,
        /// SHA-256 of the machine's certificate request.
        request: [u8; 32],
        /// The machine's id.
        node: NodeId,
        /// Its name.
        name: Name,
        /// `host:port` for peers.
        peer_address: String,
    },
    /// Says whether a node is to vote.
    SetNodeRole {
        /// Which.
        node: NodeId,
        /// Whether.
        voter: bool,
    },
}

/// Where a new token's bindings come from. Append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TokenGrant {
    /// These; none means that it may do nothing.
    Bindings(Vec<RoleBinding>),
    /// Those of its creator at this moment, without what a token never has.
    Clone,
}

impl Command {
    /// The command's name, for the audit.
    pub fn kind(&self) -> &'static str {
        match self {
            Command::InitCluster { .. } => "InitCluster",
            Command::CreateUser { .. } => "CreateUser",
            Command::SetUserDisabled { .. } => "SetUserDisabled",
            Command::OpenSession { .. } => "OpenSession",
            Command::CloseSession { .. } => "CloseSession",
            Command::CreateProject { .. } => "CreateProject",
            Command::UpdateProject { .. } => "UpdateProject",
            Command::DeleteProject { .. } => "DeleteProject",
            Command::CreateServer { .. } => "CreateServer",
            Command::UpdateServer { .. } => "UpdateServer",
            Command::DeleteServer { .. } => "DeleteServer",
            Command::WriteRbac { .. } => "WriteRbac",
            Command::DeleteRbac { .. } => "DeleteRbac",
            Command::IssueToken { .. } => "IssueToken",
            Command::RevokeToken { .. } => "RevokeToken",
            Command::DeleteToken { .. } => "DeleteToken",
            Command::ExpireToken { .. } => "ExpireToken",
            Command::PublishTools { .. } => "PublishTools",
            Command::RegisterNode { .. } => "RegisterNode",
            Command::RetireNode { .. } => "RetireNode",
            Command::RecordTokenUse { .. } => "RecordTokenUse",
            Command::KeepAuthority { .. } => "KeepAuthority",
            Command::OfferSetup { .. } => "OfferSetup",
            Command::UseSetup { .. } => "UseSetup",
            Command::OfferJoin { .. } => "OfferJoin",
            Command::EnrolNode { .. } => "EnrolNode",
            Command::SetNodeRole { .. } => "SetNodeRole",
        }
    }
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The log index at which it was carried out: the first time, when it was repeated.
    pub index: u64,
    /// The answer.
    pub reply: Reply,
    /// Whether it took a right away: then it is answered only when no replica can admit that right any more.
    pub restricts: bool,
}

impl Framed for Outcome {
    const KIND: u8 = 101;
}

/// The answer to a command. Append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing was changed.
    Refused(Refusal),
    /// There is a cluster now.
    ClusterInitialised,
    /// A record was made.
    Created {
        /// Its id.
        id: Id,
    },
    /// A record was changed.
    Updated {
        /// Its id.
        id: Id,
    },
    /// A record is gone.
    Deleted {
        /// Its id.
        id: Id,
    },
    /// A session was opened.
    SessionOpened,
    /// A session is over, or was none.
    SessionClosed,
    /// A token is let in.
    TokenIssued {
        /// Its id.
        id: Id,
        /// The id of the token of that name that was revoked for it.
        replaced: Option<Id>,
        /// What it may do.
        bindings: Vec<RoleBinding>,
    },
    /// A token is refused from now on.
    TokenRevoked {
        /// Its id.
        id: Id,
        /// It was refused before.
        already: bool,
    },
    /// Bookkeeping was done.
    Noted,
    /// A machine was taken in.
    NodeEnrolled {
        /// Whether it is to vote.
        voter: bool,
    },
}

/// A no: an answer, not an error. Append-only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// There is no such object.
    #[error("{kind} {name:?} does not exist")]
    NotFound {
        /// `project`.
        kind: String,
        /// Its name or id.
        name: String,
    },
    /// The name is in use.
    #[error("{kind} {name:?} exists already")]
    NameTaken {
        /// `project`.
        kind: String,
        /// The name.
        name: String,
    },
    /// Somebody else changed it in between.
    #[error("{kind} {name:?} was changed in between: it is at version {version}")]
    VersionMismatch {
        /// `project`.
        kind: String,
        /// Its name.
        name: String,
        /// The version it has.
        version: u64,
    },
    /// The actor is not (or no longer) somebody who may ask.
    #[error("the caller's user or token is unknown, disabled or revoked")]
    NotAuthenticated,
    /// The actor lacks a right.
    #[error("{who} lacks {need}")]
    Forbidden {
        /// The actor, as people write it.
        who: String,
        /// The missing right in the form of a binding.
        need: String,
    },
    /// A value cannot be.
    #[error("{field}: {why}")]
    Invalid {
        /// Which.
        field: String,
        /// Why.
        why: String,
    },
    /// Only the cluster itself may do this.
    #[error("this is done by the cluster itself")]
    Reserved,
    /// There is a cluster already, or none yet.
    #[error("the cluster is already initialised")]
    AlreadyInitialised,
    /// A join token that does not let in (any more).
    #[error("{0}")]
    Join(JoinRefusal),
}

/// Why a join token does not let a machine in. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// There is none with that secret.
    #[error("the join token is not known to this cluster")]
    Unknown,
    /// Another machine came in by it.
    #[error("the join token was used already: each lets in one machine")]
    Used,
    /// Its time is over.
    #[error("the join token has expired")]
    Expired,
    /// The machine's id was removed from the cluster.
    #[error("this node was removed from the cluster, and its id never comes back")]
    Removed,
}

/// A right that somebody needs: what a refusal names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Need {
    /// A verb on a name of a resource.
    On(Verb, Resource, String),
    /// An action.
    Action(Action),
    /// To hold what is to be granted.
    Covering(RoleBinding),
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Need::On(verb, resource, name) => {
                write!(
                    f,
                    "role:{},resource:{},name:{name}",
                    verb.least_role().as_str(),
                    resource.as_str()
                )
            }
            Need::Action(action) => write!(f, "action:{}", action.as_str()),
            Need::Covering(binding) => write!(f, "{binding} (one cannot grant more than one holds)"),
        }
    }
}
