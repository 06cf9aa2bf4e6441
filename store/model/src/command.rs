//! What can be asked of the replicated state, and what is answered. Everything that varies (ids, times, hashes) is inside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::frame::Framed;
use crate::ids::{CommandId, Id, NodeId};
use crate::limits::{ProjectLimits, ServerLimits};
use crate::names::{Email, Name};
use crate::rbac::{RoleBinding, Subject};
use crate::records::{NodeRecord, ProjectSpec, ServerSpec, ToolList};
use crate::token::TokenHash;
use crate::watch::Print;

pub use crate::refusal::{JoinRefusal, Need, Refusal};
pub use crate::reply::{Outcome, Reply};

/// On whose behalf a command is carried out. Append-only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Actor {
    /// The cluster itself: probes, expiry, bookkeeping, logins whose password was checked.
    System,
    /// A user.
    User(Id),
    /// A token, by its hash.
    Token(TokenHash),
    /// A service account.
    ServiceAccount(Id),
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
    /// Opens a session for a user whose password was verified.
    LogIn {
        /// SHA-256 of the bearer.
        hash: TokenHash,
        /// Whose.
        user: Id,
        /// Until when, ms since 1970.
        expires_ms: u64,
        /// Version of the record on which the password was verified: another one may hold another password.
        seen_version: u64,
    },
    /// Changes what can be changed of a user.
    UpdateUser {
        /// Who.
        email: Email,
        /// For people; `None`: as it is.
        name: Option<String>,
        /// Whether their sessions and tokens are refused; `None`: as it is.
        disabled: Option<bool>,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Removes a user with their memberships, bindings, sessions and tokens.
    DeleteUser {
        /// Who.
        email: Email,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Replaces the actor's own password, and closes their other sessions.
    ChangePassword {
        /// argon2id in PHC form.
        password_hash: String,
        /// Version of the record on which the old password was verified.
        seen_version: u64,
        /// The session that stays.
        keep: TokenHash,
    },
    /// Replaces somebody's password, and closes their sessions.
    ResetPassword {
        /// Whose.
        email: Email,
        /// argon2id in PHC form.
        password_hash: String,
    },
    /// Makes a group.
    CreateGroup {
        /// Its id.
        id: Id,
        /// Its name.
        name: Name,
        /// For people.
        description: String,
        /// Ids of users.
        members: Vec<Id>,
    },
    /// Replaces what the user wrote about a group.
    UpdateGroup {
        /// Which.
        name: Name,
        /// For people.
        description: String,
        /// Ids of users.
        members: Vec<Id>,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Removes a group and what is bound to it.
    DeleteGroup {
        /// Which.
        name: Name,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Makes a service account.
    CreateServiceAccount {
        /// Its id.
        id: Id,
        /// Its name.
        name: Name,
        /// For people.
        description: String,
    },
    /// Replaces what the user wrote about a service account.
    UpdateServiceAccount {
        /// Which.
        name: Name,
        /// For people.
        description: String,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Removes a service account with its bindings, sessions and tokens.
    DeleteServiceAccount {
        /// Which.
        name: Name,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Opens a session for a service account.
    OpenServiceSession {
        /// Whose.
        account: Name,
        /// SHA-256 of the bearer.
        hash: TokenHash,
        /// Until when, ms since 1970.
        expires_ms: u64,
    },
    /// Makes a secret.
    CreateSecret {
        /// Its id, for which the values are sealed.
        id: Id,
        /// Its name.
        name: Name,
        /// For people.
        description: String,
        /// Sealed values by key.
        values: BTreeMap<String, Vec<u8>>,
    },
    /// Replaces a secret's values.
    UpdateSecret {
        /// Its id, for which the values are sealed.
        id: Id,
        /// Its name.
        name: Name,
        /// For people.
        description: String,
        /// Sealed values by key: all of them.
        values: BTreeMap<String, Vec<u8>>,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Removes a secret. Servers that refer to it fail from then on.
    DeleteSecret {
        /// Which.
        name: Name,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Ends a join token before its time.
    WithdrawJoin {
        /// Id of the join token.
        id: Id,
    },
    /// Lays a piece of a backup down. Nothing is restored by that. The first piece forgets all that were laid down before.
    StageRestore {
        /// Names the restore.
        restore: Id,
        /// Which piece, counted from 0.
        part: u32,
        /// The piece of the backup's body.
        bytes: Vec<u8>,
    },
    /// Restores the backup whose pieces were laid down: all of it, or nothing.
    FinishRestore {
        /// Names the restore.
        restore: Id,
        /// The head of the backup.
        head: Vec<u8>,
        /// Whether tokens come back that are refused now.
        revive_tokens: bool,
        /// Whether the backup may be of another cluster.
        any_cluster: bool,
    },
    /// Forgets the pieces of a restore that is not to be.
    DropRestore {
        /// Names the restore.
        restore: Id,
    },
    /// Replaces a server's lists and takes note of what its tools look like.
    ReportTools {
        /// The lists. `version` is filled in.
        list: ToolList,
        /// Who has asked the server.
        node: NodeId,
        /// What its tools look like; `None`: it did not answer.
        prints: Option<Vec<Print>>,
    },
    /// Lets tools of a pinned server in as they look now.
    ApproveTools {
        /// The server.
        server: Name,
        /// Its own name for each tool, and the SHA-256 over what is approved.
        tools: Vec<(String, [u8; 32])>,
    },
    /// Makes a server with limits of its own.
    CreateLimitedServer {
        /// Its id.
        id: Id,
        /// Its name.
        name: Name,
        /// What the user wrote.
        spec: ServerSpec,
        /// And about its limits.
        limits: ServerLimits,
    },
    /// Replaces what the user wrote about a server, its limits included.
    UpdateLimitedServer {
        /// Which.
        name: Name,
        /// The new text.
        spec: ServerSpec,
        /// And about its limits.
        limits: ServerLimits,
        /// Only if this is still its version.
        if_version: Option<u64>,
    },
    /// Makes a project with limits of its own.
    CreateLimitedProject {
        /// Its id.
        id: Id,
        /// Its name.
        name: Name,
        /// What the user wrote.
        spec: ProjectSpec,
        /// And about its limits.
        limits: ProjectLimits,
    },
    /// Replaces what the user wrote about a project, its limits included.
    UpdateLimitedProject {
        /// Which.
        name: Name,
        /// The new text.
        spec: ProjectSpec,
        /// And about its limits.
        limits: ProjectLimits,
        /// Only if this is still its version.
        if_version: Option<u64>,
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
            Command::LogIn { .. } => "LogIn",
            Command::UpdateUser { .. } => "UpdateUser",
            Command::DeleteUser { .. } => "DeleteUser",
            Command::ChangePassword { .. } => "ChangePassword",
            Command::ResetPassword { .. } => "ResetPassword",
            Command::CreateGroup { .. } => "CreateGroup",
            Command::UpdateGroup { .. } => "UpdateGroup",
            Command::DeleteGroup { .. } => "DeleteGroup",
            Command::CreateServiceAccount { .. } => "CreateServiceAccount",
            Command::UpdateServiceAccount { .. } => "UpdateServiceAccount",
            Command::DeleteServiceAccount { .. } => "DeleteServiceAccount",
            Command::OpenServiceSession { .. } => "OpenServiceSession",
            Command::CreateSecret { .. } => "CreateSecret",
            Command::UpdateSecret { .. } => "UpdateSecret",
            Command::DeleteSecret { .. } => "DeleteSecret",
            Command::WithdrawJoin { .. } => "WithdrawJoin",
            Command::StageRestore { .. } => "StageRestore",
            Command::FinishRestore { .. } => "FinishRestore",
            Command::DropRestore { .. } => "DropRestore",
            Command::ReportTools { .. } => "ReportTools",
            Command::ApproveTools { .. } => "ApproveTools",
            Command::CreateLimitedServer { .. } => "CreateLimitedServer",
            Command::UpdateLimitedServer { .. } => "UpdateLimitedServer",
            Command::CreateLimitedProject { .. } => "CreateLimitedProject",
            Command::UpdateLimitedProject { .. } => "UpdateLimitedProject",
        }
    }
}
