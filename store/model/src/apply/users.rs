//! Users and their passwords.

use super::administrators::{SETUP_SECRETS_MAX, make_administrators};
use super::{Cut, Step};
use crate::authority::grants_of_user;
use crate::command::{Actor, Refusal, Reply};
use crate::ids::Id;
use crate::names::Email;
use crate::rbac::{Resource, Subject, Verb};
use crate::records::{ServiceAccount, SetupSecret, User};
use crate::tables::{self, Table};
use crate::token::TokenHash;

impl Step<'_> {
    /// Whoever makes a user chooses who gets what is bound to that e-mail already, so they must hold all of it.
    pub(super) fn create_user(
        &mut self,
        id: Id,
        email: &Email,
        name: &str,
        password_hash: Option<&String>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("user {email}"));
        self.rights().need(Verb::Create, Resource::Users, email.as_str())?;
        self.refuse_principal_id(id)?;
        let (name, password_hash, origin) = (name.to_owned(), password_hash.cloned(), self.origin());
        let user = User {
            id,
            email: email.clone(),
            name,
            password_hash,
            disabled: false,
            origin,
        };
        self.rights().need_all_of(&grants_of_user(self.tables, &user))?;
        let id = self.add(&user)?;
        self.effects.policy_changed = true;
        Ok(Reply::Created { id })
    }

    pub(super) fn update_user(
        &mut self,
        email: &Email,
        name: Option<&String>,
        disabled: Option<bool>,
        if_version: Option<u64>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("user {email}"));
        self.rights().need(Verb::Update, Resource::Users, email.as_str())?;
        let mut user: User = self.named_at(email.as_str(), if_version)?;
        if let Some(disabled) = disabled {
            self.may_disable(&user, disabled)?;
            user.disabled = disabled;
        }
        if let Some(name) = name {
            user.name.clone_from(name);
        }
        let id = self.change(user);
        self.effects.policy_changed = true;
        if disabled == Some(true) {
            self.close_sessions_of(id, None);
            self.restricts = true;
            self.effects.cuts.push(Cut::Owner(id));
        }
        Ok(Reply::Updated { id })
    }

    pub(super) fn delete_user(&mut self, email: &Email, if_version: Option<u64>) -> Result<Reply, Refusal> {
        self.about(format!("user {email}"));
        self.rights().need(Verb::Delete, Resource::Users, email.as_str())?;
        let user: User = self.named_at(email.as_str(), if_version)?;
        self.keep_administered_besides(&user, "user")?;
        self.strip_subject(&Subject::User(email.clone()));
        self.drop_setup_secrets(user.id);
        self.leave_groups(user.id);
        self.close_sessions_of(user.id, None);
        self.revoke_tokens_of(user.id);
        self.drop_named(&user);
        self.effects.policy_changed = true;
        self.effects.cuts.push(Cut::Owner(user.id));
        self.restricts = true;
        Ok(Reply::Deleted { id: user.id })
    }

    /// One's own. That the old one was right was verified on the record of `seen_version`.
    pub(super) fn change_password(
        &mut self,
        password_hash: &str,
        seen_version: u64,
        keep: TokenHash,
    ) -> Result<Reply, Refusal> {
        let Actor::User(id) = self.actor else {
            return Err(Refusal::Invalid {
                field: "password".to_owned(),
                why: "only a user in a session has one to change".to_owned(),
            });
        };
        let user: User = tables::by_id(self.tables, id).ok_or(Refusal::NotAuthenticated)?;
        self.about(format!("password of user {}", user.email));
        let user: User = self.named_at(user.email.as_str(), Some(seen_version))?;
        Ok(self.set_password(user, password_hash, Some(keep)))
    }

    /// Rule 4: who sets somebody's password can log in as them, so they must hold all that they confer.
    pub(super) fn reset_password(&mut self, email: &Email, password_hash: &str) -> Result<Reply, Refusal> {
        self.about(format!("password of user {email}"));
        self.rights().need(Verb::Update, Resource::Users, email.as_str())?;
        let user: User = self.named(email.as_str())?;
        self.rights().need_all_of(&grants_of_user(self.tables, &user))?;
        Ok(self.set_password(user, password_hash, None))
    }

    fn set_password(&mut self, mut user: User, password_hash: &str, keep: Option<TokenHash>) -> Reply {
        self.drop_setup_secrets(user.id);
        user.password_hash = Some(password_hash.to_owned());
        let id = self.change(user);
        self.close_sessions_of(id, keep);
        self.restricts = true;
        Reply::Updated { id }
    }

    /// A setup secret is for who has no password yet.
    fn drop_setup_secrets(&mut self, user: Id) {
        let some: Vec<SetupSecret> = tables::list(self.tables, None, SETUP_SECRETS_MAX);
        for secret in some.iter().filter(|secret| secret.user == user) {
            self.tables.remove(Table::SetupSecrets, &secret.hash.0);
        }
    }

    /// Disabling must leave somebody who can set everything right. Enabling hands back all that the user holds, so the actor must hold it too.
    fn may_disable(&self, user: &User, disabled: bool) -> Result<(), Refusal> {
        if disabled {
            return self.keep_administered_besides(user, "disabled");
        }
        if user.disabled {
            self.rights().need_all_of(&grants_of_user(self.tables, user))?;
        }
        Ok(())
    }

    /// The others are looked through only where it is an administrator who goes.
    fn keep_administered_besides(&self, user: &User, field: &str) -> Result<(), Refusal> {
        if user.disabled || !make_administrators(&grants_of_user(self.tables, user)) {
            return Ok(());
        }
        let none_of_theirs = |other: &User, subjects| if other.id == user.id { Vec::new() } else { subjects };
        self.keep_administered(field, none_of_theirs)
    }

    /// Owners are told by their id alone, so a user and a service account never share one.
    pub(super) fn refuse_principal_id(&self, id: Id) -> Result<(), Refusal> {
        let taken = tables::by_id::<User>(self.tables, id).is_some()
            || tables::by_id::<ServiceAccount>(self.tables, id).is_some();
        if taken {
            return Err(Refusal::Invalid {
                field: "id".to_owned(),
                why: "this id was used before".to_owned(),
            });
        }
        Ok(())
    }
}
