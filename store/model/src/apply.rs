//! The one place where replicated state changes.
//!
//! `apply` is total and deterministic: every replica carries out the same commands in the same order and gets the same
//! bytes. It never fails: what cannot be done is answered with a [`Refusal`], and a fault of the store is the store's to
//! notice and to throw the whole transaction away for.

mod accounts;
pub mod administrators;
pub mod cluster;
pub mod groups;
pub mod joining;
mod naming;
pub mod projects;
pub mod rbac;
pub mod restore;
mod secrets;
mod servers;
pub mod sessions;
pub mod tokens;
mod tools;
mod users;

use crate::authority::Rights;
use crate::command::{Actor, Command, Envelope, Outcome, Refusal, Reply};
use crate::frame;
use crate::ids::{Id, NodeId};
use crate::records::{AuditRecord, ClusterRecord, Origin, Project, Server};
use crate::tables::{self, Stored, Table, TablesMut};
use crate::token::TokenHash;

/// Control-plane audit events that are kept; the oldest go first.
pub const AUDIT_EVENTS_MAX: u64 = 100_000;
/// Answers that are kept for repeated commands; the oldest go first. At 10,000 writes a second that is 26 s: longer than
/// anybody goes on repeating.
pub const REPLIES_MAX: u64 = 262_144;

/// Whose open streams and running calls a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// One token's.
    Token(TokenHash),
    /// Those of the tokens of one user or service account.
    Owner(Id),
    /// Those of one project.
    Project(Id),
    /// Everybody's: the right that went may have been anybody's, and who still holds it comes back at once.
    All,
}

/// What a replica has to do besides storing: bring its memory up to date and end what is no longer allowed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Effects {
    /// Bearers that are refused from now on.
    pub tokens_removed: Vec<TokenHash>,
    /// Tokens that are new or changed.
    pub tokens_changed: Vec<Id>,
    /// Users, groups, service accounts, projects, servers, secrets or definitions changed.
    pub policy_changed: bool,
    /// Servers whose lists changed.
    pub lists_changed: Vec<Id>,
    /// What ends.
    pub cuts: Vec<Cut>,
    /// Nodes that were removed: each of them admits nobody from here on.
    pub retired: Vec<NodeId>,
    /// Everything may be another than before: memory is built anew from the state.
    pub restored: bool,
}

/// Carries out one command: the `seq`th of the entry at `index`.
pub fn apply(tables: &mut dyn TablesMut, index: u64, seq: u32, envelope: &Envelope, effects: &mut Effects) -> Outcome {
    if let Some(outcome) = answered_before(tables, envelope) {
        return outcome;
    }
    let mut step = Step::begin(tables, index, seq, envelope, effects);
    let reply = step.carry_out(&envelope.command).unwrap_or_else(Reply::Refused);
    let outcome = Outcome {
        index,
        restricts: step.restricts,
        reply,
    };
    step.finish(envelope, &outcome);
    outcome
}

/// One command under way: the tables with everything that its parts need to know.
struct Step<'a> {
    tables: &'a mut dyn TablesMut,
    index: u64,
    seq: u32,
    now_ms: u64,
    actor: Actor,
    rights: Option<Rights>,
    effects: &'a mut Effects,
    restricts: bool,
    /// Bookkeeping leaves no audit event.
    audited: Option<String>,
}

impl<'a> Step<'a> {
    fn begin(
        tables: &'a mut dyn TablesMut,
        index: u64,
        seq: u32,
        envelope: &Envelope,
        effects: &'a mut Effects,
    ) -> Step<'a> {
        let cluster: Option<ClusterRecord> = tables::load(tables, &[0]);
        let now_ms = cluster.map_or(envelope.now_ms, |c| c.time_ms.max(envelope.now_ms));
        let rights = Rights::of(tables, &envelope.actor, now_ms);
        Step {
            tables,
            index,
            seq,
            now_ms,
            actor: envelope.actor,
            rights,
            effects,
            restricts: false,
            audited: None,
        }
    }

    fn carry_out(&mut self, command: &Command) -> Result<Reply, Refusal> {
        if self.rights.is_none() {
            return Err(Refusal::NotAuthenticated);
        }
        match command {
            Command::InitCluster {
                cluster_id,
                admin,
                email,
                password_hash,
                rbac,
            } => self.init_cluster(*cluster_id, *admin, email, password_hash.as_ref(), *rbac),
            Command::CreateUser {
                id,
                email,
                name,
                password_hash,
            } => self.create_user(*id, email, name, password_hash.as_ref()),
            Command::SetUserDisabled { email, disabled } => self.update_user(email, None, Some(*disabled), None),
            Command::OpenSession { hash, user, expires_ms } => self.open_session(*hash, *user, *expires_ms),
            Command::CloseSession { hash } => self.close_session(*hash),
            Command::CreateProject { id, name, spec } => self.create_project(*id, name, spec),
            Command::UpdateProject { name, spec, if_version } => self.update_project(name, spec, *if_version),
            Command::DeleteProject { name, if_version } => self.delete_project(name, *if_version),
            Command::CreateServer { id, name, spec } => self.create_server(*id, name, spec),
            Command::UpdateServer { name, spec, if_version } => self.update_server(name, spec, *if_version),
            Command::DeleteServer { name, if_version } => self.delete_server(name, *if_version),
            Command::WriteRbac {
                id,
                name,
                subjects,
                role_bindings,
                if_version,
            } => self.write_rbac(*id, name, subjects, role_bindings, *if_version),
            Command::DeleteRbac { name, if_version } => self.delete_rbac(name, *if_version),
            Command::IssueToken { .. } => self.issue_token(command),
            Command::RevokeToken { id } => self.revoke_token(*id),
            Command::DeleteToken { id } => self.delete_token(*id),
            Command::ExpireToken { id, expires_ms } => self.expire_token(*id, *expires_ms),
            Command::PublishTools { list } => self.publish_tools(list),
            Command::RegisterNode { node } => self.register_node(node),
            Command::RetireNode { node } => self.retire_node(*node),
            Command::RecordTokenUse { uses } => self.record_token_use(uses),
            Command::KeepAuthority {
                certificate,
                sealed_key,
            } => self.keep_authority(certificate, sealed_key),
            Command::OfferSetup { hash, user } => self.offer_setup(*hash, user),
            Command::UseSetup {
                hash,
                user,
                password_hash,
            } => self.use_setup(*hash, user, password_hash),
            Command::OfferJoin {
                id,
                hash,
                voter,
                expires_ms,
            } => self.offer_join(*id, *hash, *voter, *expires_ms),
            Command::EnrolNode {
                secret,
                request,
                node,
                name,
                peer_address,
            } => self.enrol_node(*secret, *request, *node, name, peer_address),
            Command::SetNodeRole { node, voter } => self.set_node_role(*node, *voter),
            Command::WithdrawJoin { id } => self.withdraw_join(*id),
            Command::LogIn {
                hash,
                user,
                expires_ms,
                seen_version,
            } => self.log_in(*hash, *user, *expires_ms, *seen_version),
            Command::UpdateUser {
                email,
                name,
                disabled,
                if_version,
            } => self.update_user(email, name.as_ref(), *disabled, *if_version),
            Command::DeleteUser { email, if_version } => self.delete_user(email, *if_version),
            Command::ChangePassword {
                password_hash,
                seen_version,
                keep,
            } => self.change_password(password_hash, *seen_version, *keep),
            Command::ResetPassword { email, password_hash } => self.reset_password(email, password_hash),
            Command::CreateGroup {
                id,
                name,
                description,
                members,
            } => self.create_group(*id, name, description, members),
            Command::UpdateGroup {
                name,
                description,
                members,
                if_version,
            } => self.update_group(name, description, members, *if_version),
            Command::DeleteGroup { name, if_version } => self.delete_group(name, *if_version),
            Command::CreateServiceAccount { id, name, description } => {
                self.create_service_account(*id, name, description)
            }
            Command::UpdateServiceAccount {
                name,
                description,
                if_version,
            } => self.update_service_account(name, description, *if_version),
            Command::DeleteServiceAccount { name, if_version } => self.delete_service_account(name, *if_version),
            Command::OpenServiceSession {
                account,
                hash,
                expires_ms,
            } => self.open_service_session(account, *hash, *expires_ms),
            Command::CreateSecret {
                id,
                name,
                description,
                values,
            } => self.create_secret(*id, name, description, values),
            Command::UpdateSecret {
                id,
                name,
                description,
                values,
                if_version,
            } => self.update_secret(*id, name, description, values, *if_version),
            Command::DeleteSecret { name, if_version } => self.delete_secret(name, *if_version),
            Command::StageRestore { restore, part, bytes } => self.stage_restore(*restore, *part, bytes),
            Command::FinishRestore {
                restore,
                head,
                revive_tokens,
                any_cluster,
            } => self.finish_restore(*restore, head, *revive_tokens, *any_cluster),
            Command::DropRestore { restore } => self.drop_restore(*restore),
            Command::ReportTools { list, node, prints } => self.report_tools(list, *node, prints.as_deref()),
            Command::ApproveTools { server, tools } => self.approve_tools(server, tools),
            Command::CreateLimitedServer { id, name, spec, limits } => {
                let reply = self.create_server(*id, name, spec)?;
                self.limit_server(*id, *limits);
                Ok(reply)
            }
            Command::UpdateLimitedServer {
                name,
                spec,
                limits,
                if_version,
            } => {
                let reply = self.update_server(name, spec, *if_version)?;
                self.limit_server(self.named::<Server>(name.as_str())?.id, *limits);
                Ok(reply)
            }
            Command::CreateLimitedProject { id, name, spec, limits } => {
                let reply = self.create_project(*id, name, spec)?;
                self.limit_project(*id, *limits);
                Ok(reply)
            }
            Command::UpdateLimitedProject {
                name,
                spec,
                limits,
                if_version,
            } => {
                let reply = self.update_project(name, spec, *if_version)?;
                self.limit_project(self.named::<Project>(name.as_str())?.id, *limits);
                Ok(reply)
            }
        }
    }

    /// Who asks. `carry_out` has refused everybody else.
    fn rights(&self) -> &Rights {
        self.rights.as_ref().expect("a command of nobody is refused first")
    }

    /// Names the object for the audit: `mcptoken demo/ci`.
    fn about(&mut self, object: impl Into<String>) {
        self.audited = Some(object.into());
    }

    fn origin(&self) -> Origin {
        Origin {
            created_ms: self.now_ms,
            created_by: self.rights().who().to_owned(),
            version: self.index,
        }
    }

    fn save(&mut self, record: &impl Stored) {
        tables::save(self.tables, record);
    }

    /// What every command leaves behind: the time, the audit event, the answer for a repetition.
    fn finish(mut self, envelope: &Envelope, outcome: &Outcome) {
        let Some(mut cluster) = tables::load::<ClusterRecord>(self.tables, &[0]) else {
            return;
        };
        cluster.time_ms = self.now_ms;
        if let Some(object) = self.audited.take() {
            self.write_audit(envelope, outcome, object, &mut cluster);
        }
        self.remember(envelope, outcome, &mut cluster);
        self.save(&cluster);
    }

    fn write_audit(&mut self, envelope: &Envelope, outcome: &Outcome, object: String, cluster: &mut ClusterRecord) {
        let decision = match &outcome.reply {
            Reply::Refused(why) => why.to_string(),
            _ => "allow".to_owned(),
        };
        let event = AuditRecord {
            index: self.index,
            seq: self.seq,
            time_ms: self.now_ms,
            actor: self
                .rights
                .as_ref()
                .map_or_else(|| nobody(&envelope.actor), |r| r.who().to_owned()),
            kind: envelope.command.kind().to_owned(),
            object,
            decision,
        };
        self.save(&event);
        cluster.audit_events += 1;
        if cluster.audit_events > AUDIT_EVENTS_MAX {
            cluster.audit_events -= self.drop_first(Table::Audit);
        }
    }

    fn remember(&mut self, envelope: &Envelope, outcome: &Outcome, cluster: &mut ClusterRecord) {
        let id = envelope.id.0.to_be_bytes();
        let mut order = self.index.to_be_bytes().to_vec();
        order.extend_from_slice(&self.seq.to_be_bytes());
        self.tables.put(Table::Replies, &id, frame::encode(outcome));
        self.tables.put(Table::ReplyOrder, &order, id.to_vec());
        cluster.replies += 1;
        if cluster.replies <= REPLIES_MAX {
            return;
        }
        for (key, id) in self.tables.scan(Table::ReplyOrder, &[], None, 1) {
            self.tables.remove(Table::ReplyOrder, &key);
            self.tables.remove(Table::Replies, &id);
            cluster.replies -= 1;
        }
    }

    fn drop_first(&mut self, table: Table) -> u64 {
        let first = self.tables.scan(table, &[], None, 1);
        first
            .iter()
            .map(|(key, _)| u64::from(self.tables.remove(table, key)))
            .sum()
    }
}

fn nobody(actor: &Actor) -> String {
    match actor {
        Actor::System => "system".to_owned(),
        Actor::User(id) => format!("user {id}"),
        Actor::Token(hash) => format!("mcptoken {hash}"),
        Actor::ServiceAccount(id) => format!("serviceaccount {id}"),
    }
}

/// The answer to a command that was carried out before, a refusal included: it is given once and then repeated.
fn answered_before(tables: &dyn TablesMut, envelope: &Envelope) -> Option<Outcome> {
    let key = envelope.id.0.to_be_bytes();
    let bytes = tables.get(Table::Replies, &key)?;
    frame::decode(&bytes)
        .inspect_err(|why| tables.corrupt(Table::Replies, &key, *why))
        .ok()
}
