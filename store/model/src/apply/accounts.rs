//! Service accounts: programs with bindings, sessions and tokens of their own, and no password.

use super::{Cut, Step};
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Name;
use crate::rbac::{Resource, Subject, Verb};
use crate::records::ServiceAccount;

impl Step<'_> {
    /// What bindings confer on an account of this name is measured when a session is opened, so making one takes no more
    /// than the right to.
    pub(super) fn create_service_account(&mut self, id: Id, name: &Name, description: &str) -> Result<Reply, Refusal> {
        self.about(format!("serviceaccount {name}"));
        self.rights()
            .need(Verb::Create, Resource::ServiceAccounts, name.as_str())?;
        self.refuse_principal_id(id)?;
        let id = self.add(&ServiceAccount {
            id,
            name: name.clone(),
            description: description.to_owned(),
            origin: self.origin(),
        })?;
        self.effects.policy_changed = true;
        Ok(Reply::Created { id })
    }

    pub(super) fn update_service_account(
        &mut self,
        name: &Name,
        description: &str,
        if_version: Option<u64>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("serviceaccount {name}"));
        self.rights()
            .need(Verb::Update, Resource::ServiceAccounts, name.as_str())?;
        let mut account: ServiceAccount = self.named_at(name.as_str(), if_version)?;
        description.clone_into(&mut account.description);
        Ok(Reply::Updated {
            id: self.change(account),
        })
    }

    pub(super) fn delete_service_account(&mut self, name: &Name, if_version: Option<u64>) -> Result<Reply, Refusal> {
        self.about(format!("serviceaccount {name}"));
        self.rights()
            .need(Verb::Delete, Resource::ServiceAccounts, name.as_str())?;
        let account: ServiceAccount = self.named_at(name.as_str(), if_version)?;
        self.strip_subject(&Subject::ServiceAccount(name.clone()));
        self.close_sessions_of(account.id, None);
        self.revoke_tokens_of(account.id);
        self.drop_named(&account);
        self.effects.policy_changed = true;
        self.effects.cuts.push(Cut::Owner(account.id));
        self.restricts = true;
        Ok(Reply::Deleted { id: account.id })
    }
}
