//! The cluster itself: its birth and its bookkeeping.

use super::Step;
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Email;
use crate::rbac::{Action, Resource, Role, RoleBinding, Subject};
use crate::records::{ClusterRecord, McpToken, RbacDefinition, Server, ToolList, User};
use crate::tables;

/// What this program understands. A cluster is born at the level of the program that makes it.
pub const FEATURE_LEVEL: u32 = 1;
/// The definition that makes the first administrator.
pub const ADMIN_DEFINITION: &str = "admin";

impl Step<'_> {
    pub(super) fn init_cluster(
        &mut self,
        cluster_id: Id,
        admin: Id,
        email: &Email,
        password_hash: Option<&String>,
        rbac: Id,
    ) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        if tables::load::<ClusterRecord>(self.tables, &[0]).is_some() {
            return Err(Refusal::AlreadyInitialised);
        }
        self.about(format!("cluster {cluster_id}"));
        let feature_level = FEATURE_LEVEL;
        self.save(&ClusterRecord {
            cluster_id,
            feature_level,
            time_ms: self.now_ms,
            audit_events: 0,
            replies: 0,
        });
        let origin = self.origin();
        let name = "Administrator".to_owned();
        let password_hash = password_hash.cloned();
        let user = User {
            id: admin,
            email: email.clone(),
            name,
            password_hash,
            disabled: false,
            origin,
        };
        self.add(&user)?;
        let definition = RbacDefinition {
            id: rbac,
            name: ADMIN_DEFINITION.to_owned(),
            subjects: vec![Subject::User(email.clone())],
            role_bindings: vec![
                RoleBinding::all(Role::Admin, Resource::Any),
                RoleBinding::Action(Action::Any),
            ],
            origin: self.origin(),
        };
        self.add(&definition)?;
        self.index_subjects(&definition);
        self.effects.policy_changed = true;
        Ok(Reply::ClusterInitialised)
    }

    pub(super) fn publish_tools(&mut self, list: &ToolList) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        if tables::by_id::<Server>(self.tables, list.server).is_none() {
            return Err(Refusal::NotFound {
                kind: "server".to_owned(),
                name: list.server.to_string(),
            });
        }
        self.save(&ToolList {
            version: self.index,
            ..list.clone()
        });
        self.effects.lists_changed.push(list.server);
        Ok(Reply::Noted)
    }

    pub(super) fn record_token_use(&mut self, uses: &[(Id, u64)]) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        for (id, used_ms) in uses {
            let Some(mut token) = tables::by_id::<McpToken>(self.tables, *id) else {
                continue;
            };
            if token.last_used_ms.is_none_or(|seen| seen < *used_ms) {
                token.last_used_ms = Some(*used_ms);
                self.save(&token);
            }
        }
        Ok(Reply::Noted)
    }
}
