//! Sessions of users and of service accounts.

use super::Step;
use crate::authority::Principal;
use crate::command::{Refusal, Reply};
use crate::ids::Id;
use crate::names::Name;
use crate::rbac::{Resource, Verb};
use crate::records::{ServiceAccount, Session, User};
use crate::tables::{self, Table};
use crate::token::TokenHash;

/// Open sessions of one user or service account. The one that ends first makes room.
pub const SESSIONS_MAX: usize = 100;

impl Step<'_> {
    pub(super) fn open_session(&mut self, hash: TokenHash, user: Id, expires_ms: u64) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        let user: User = tables::by_id(self.tables, user).ok_or(Refusal::NotAuthenticated)?;
        self.about(format!("session of {}", user.email));
        if user.disabled {
            return Err(Refusal::NotAuthenticated);
        }
        self.add_session(hash, user.id, expires_ms)?;
        Ok(Reply::SessionOpened)
    }

    /// The password that was verified must still be the one in force: a change of it closes sessions, and a login that was
    /// under way must not open one behind its back.
    pub(super) fn log_in(
        &mut self,
        hash: TokenHash,
        user: Id,
        expires_ms: u64,
        seen_version: u64,
    ) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        let user: User = tables::by_id(self.tables, user).ok_or(Refusal::NotAuthenticated)?;
        if user.origin.version != seen_version {
            return Err(Refusal::VersionMismatch {
                kind: "user".to_owned(),
                name: user.email.to_string(),
                version: user.origin.version,
            });
        }
        self.open_session(hash, user.id, expires_ms)
    }

    /// Rule 4: who opens a session for a service account has what it confers, so they must hold all of it.
    pub(super) fn open_service_session(
        &mut self,
        account: &Name,
        hash: TokenHash,
        expires_ms: u64,
    ) -> Result<Reply, Refusal> {
        self.about(format!("session of ServiceAccount:{account}"));
        self.rights().need(Verb::Create, Resource::Sessions, account.as_str())?;
        let account: ServiceAccount = self.named(account.as_str())?;
        let id = account.id;
        self.rights()
            .need_all_of(&Principal::ServiceAccount(account).grants(self.tables))?;
        self.add_session(hash, id, expires_ms)?;
        Ok(Reply::Created { id: hash.short_id() })
    }

    pub(super) fn close_session(&mut self, hash: TokenHash) -> Result<Reply, Refusal> {
        // Whoever comes after the first to close it is told the same, and waits for the same.
        let Some(session) = tables::load::<Session>(self.tables, &hash.0) else {
            self.restricts = true;
            return Ok(Reply::SessionClosed);
        };
        let owner = Principal::of(self.tables, session.user);
        let who = owner.as_ref().map_or_else(|| session.user.to_string(), Principal::who);
        self.about(format!("session of {who}"));
        if self.rights().is_token() || self.rights().principal() != Some(session.user) {
            let name = owner.map_or(who, |p| p.name().to_owned());
            self.rights().need(Verb::Delete, Resource::Sessions, &name)?;
        }
        self.restricts = true;
        self.drop_session(&session);
        Ok(Reply::SessionClosed)
    }

    /// Ends every session of a user or service account but, where one is given, that one.
    pub(super) fn close_sessions_of(&mut self, owner: Id, but: Option<TokenHash>) {
        loop {
            let some = self.sessions_of(owner);
            let closing: Vec<&Session> = some.iter().filter(|s| Some(s.hash) != but).collect();
            closing.iter().for_each(|s| self.drop_session(s));
            if closing.is_empty() {
                return;
            }
        }
    }

    fn add_session(&mut self, hash: TokenHash, owner: Id, expires_ms: u64) -> Result<(), Refusal> {
        if tables::load::<Session>(self.tables, &hash.0).is_some() {
            return Err(Refusal::Invalid {
                field: "token".to_owned(),
                why: "this bearer was used before".to_owned(),
            });
        }
        self.make_room(owner);
        let session = Session {
            hash,
            user: owner,
            expires_ms,
            origin: self.origin(),
        };
        self.tables
            .put(Table::SessionOwners, &owner_key(owner, hash), Vec::new());
        self.save(&session);
        Ok(())
    }

    /// Drops what has ended, and if that is not enough, what ends first.
    fn make_room(&mut self, owner: Id) {
        let mut open = self.sessions_of(owner);
        open.sort_by_key(|s| (s.expires_ms, s.hash));
        let over = open.len().saturating_sub(SESSIONS_MAX - 1);
        let ended = open.iter().take_while(|s| s.expires_ms <= self.now_ms).count();
        open.iter().take(over.max(ended)).for_each(|s| self.drop_session(s));
    }

    fn sessions_of(&self, owner: Id) -> Vec<Session> {
        let prefix = owner.to_bytes();
        let rows = self.tables.scan(Table::SessionOwners, &prefix, None, SESSIONS_MAX + 1);
        rows.iter()
            .filter_map(|(key, _)| tables::load(self.tables, &key[prefix.len()..]))
            .collect()
    }

    pub(super) fn drop_session(&mut self, session: &Session) {
        self.tables
            .remove(Table::SessionOwners, &owner_key(session.user, session.hash));
        self.tables.remove(Table::Sessions, &session.hash.0);
    }
}

fn owner_key(owner: Id, hash: TokenHash) -> Vec<u8> {
    let mut key = owner.to_bytes().to_vec();
    key.extend_from_slice(&hash.0);
    key
}
