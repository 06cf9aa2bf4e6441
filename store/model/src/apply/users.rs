//! Users and their sessions.

use super::{Cut, Step};
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Email;
use crate::rbac::{Resource, Verb};
use crate::records::{Session, User};
use crate::tables::{self, Table};
use crate::token::TokenHash;

impl Step<'_> {
    pub(super) fn create_user(
        &mut self,
        id: Id,
        email: &Email,
        name: &str,
        password_hash: Option<&String>,
    ) -> Result<Reply, Refusal> {
        self.about(format!("user {email}"));
        self.rights().need(Verb::Create, Resource::Users, email.as_str())?;
        let (name, password_hash, origin) = (name.to_owned(), password_hash.cloned(), self.origin());
        let id = self.add(&User {
            id,
            email: email.clone(),
            name,
            password_hash,
            disabled: false,
            origin,
        })?;
        self.effects.policy_changed = true;
        Ok(Reply::Created { id })
    }

    pub(super) fn set_user_disabled(&mut self, email: &Email, disabled: bool) -> Result<Reply, Refusal> {
        self.about(format!("user {email}"));
        self.rights().need(Verb::Update, Resource::Users, email.as_str())?;
        let mut user: User = self.named(email.as_str())?;
        if disabled && self.is_last_admin(&user) {
            let why = "the last administrator cannot be disabled".to_owned();
            return Err(Refusal::Invalid {
                field: "disabled".to_owned(),
                why,
            });
        }
        user.disabled = disabled;
        let id = self.change(user);
        self.effects.policy_changed = true;
        if disabled {
            self.restricts = true;
            self.effects.cuts.push(Cut::Owner(id));
        }
        Ok(Reply::Updated { id })
    }

    pub(super) fn open_session(&mut self, hash: TokenHash, user: Id, expires_ms: u64) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        let user: User = tables::by_id(self.tables, user).ok_or(Refusal::NotAuthenticated)?;
        self.about(format!("session of {}", user.email));
        if user.disabled {
            return Err(Refusal::NotAuthenticated);
        }
        let origin = self.origin();
        self.save(&Session {
            hash,
            user: user.id,
            expires_ms,
            origin,
        });
        Ok(Reply::SessionOpened)
    }

    pub(super) fn close_session(&mut self, hash: TokenHash) -> Result<Reply, Refusal> {
        // Whoever comes after the first to close it is told the same, and waits for the same.
        self.restricts = true;
        let Some(session) = tables::load::<Session>(self.tables, &hash.0) else {
            return Ok(Reply::SessionClosed);
        };
        let user: Option<User> = tables::by_id(self.tables, session.user);
        let email = user.map_or_else(|| session.user.to_string(), |u| u.email.to_string());
        self.about(format!("session of {email}"));
        if self.rights().user() != Some(session.user) {
            self.rights().need(Verb::Delete, Resource::Sessions, &email)?;
        }
        self.tables.remove(Table::Sessions, &hash.0);
        Ok(Reply::SessionClosed)
    }
}
