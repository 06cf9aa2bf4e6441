//! Tokens: issued, revoked, deleted, expired.

use super::rbac::TOKEN_DEFINITION_PREFIX;
use super::{Cut, Step};
use crate::authority::token_may_take;
use crate::command::{Command, Refusal, Reply, TokenGrant};
use crate::ids::Id;
use crate::rbac::{Resource, RoleBinding, Subject, Verb};
use crate::records::{ClusterRecord, McpToken, Project, RbacDefinition, TokenStatus, Tombstone};
use crate::tables::{self, Table, Tables};
use crate::token::TokenHash;

/// Bindings of one token.
pub const TOKEN_BINDINGS_MAX: usize = 200;
/// Tokens that are revoked at a time together with their owner.
const TOKENS_PER_OWNER_SCAN: usize = 1_000;

impl Step<'_> {
    pub(super) fn issue_token(&mut self, command: &Command) -> Result<Reply, Refusal> {
        let Command::IssueToken {
            id,
            name,
            project,
            hash,
            shown_prefix,
            description,
            expires_ms,
            grant,
            replace,
        } = command
        else {
            return Err(Refusal::Reserved);
        };
        let full_name = format!("{project}/{name}");
        self.about(format!("mcptoken {full_name}"));
        self.rights().need(Verb::Create, Resource::McpTokens, &full_name)?;
        let Some(owner) = self.rights().principal() else {
            return Err(Refusal::NotAuthenticated);
        };
        let project: Project = self.named(project.as_str())?;
        let bindings = self.bindings_of(grant)?;
        self.refuse_used(*hash, *id)?;
        if expires_ms.is_some_and(|at| at <= self.now_ms) {
            let why = "the token would have expired already".to_owned();
            return Err(Refusal::Invalid {
                field: "expiresAt".to_owned(),
                why,
            });
        }
        let replaced = self.replace_active(project.id, name.as_str(), &full_name, *replace)?;

        let token = McpToken {
            id: *id,
            name: name.clone(),
            project: project.id,
            owner,
            hash: *hash,
            shown_prefix: shown_prefix.clone(),
            description: description.clone(),
            expires_ms: *expires_ms,
            last_used_ms: None,
            revoked_ms: None,
            status: TokenStatus::Active,
            origin: self.origin(),
        };
        self.enlist(&token);
        if !bindings.is_empty() {
            self.define_for(&token, bindings.clone())?;
        }
        self.effects.tokens_changed.push(*id);
        Ok(Reply::TokenIssued {
            id: *id,
            replaced,
            bindings,
        })
    }

    /// Stores an active token with everything by which it is found.
    pub(super) fn enlist(&mut self, token: &McpToken) {
        let id = token.id.to_bytes().to_vec();
        self.save(token);
        self.tables.put(Table::TokenHashes, &token.hash.0, id.clone());
        self.tables
            .put(Table::TokenNames, &name_key(token.project, token.name.as_str()), id);
        self.tables
            .put(Table::TokenOwners, &owner_key(token.owner, token.id), Vec::new());
        if let Some(key) = expiry_key(token) {
            self.tables.put(Table::Expiries, &key, Vec::new());
        }
    }

    pub(super) fn revoke_token(&mut self, id: Id) -> Result<Reply, Refusal> {
        let token = self.token_to_remove(id)?;
        // A revoke that finds the token revoked proves nothing by itself: it waits like the first one.
        self.restricts = true;
        if token.status != TokenStatus::Active {
            return Ok(Reply::TokenRevoked { id, already: true });
        }
        self.free_name(&token);
        self.take_away(token, TokenStatus::Revoked);
        Ok(Reply::TokenRevoked { id, already: false })
    }

    pub(super) fn delete_token(&mut self, id: Id) -> Result<Reply, Refusal> {
        let token = self.token_to_remove(id)?;
        self.restricts = true;
        let hash = token.hash;
        if token.status == TokenStatus::Active {
            self.free_name(&token);
            self.take_away(token, TokenStatus::Revoked);
        }
        self.tables.remove(Table::TokenHashes, &hash.0);
        self.tables.remove(Table::Tokens, &id.to_bytes());
        Ok(Reply::Deleted { id })
    }

    pub(super) fn expire_token(&mut self, id: Id, expires_ms: u64) -> Result<Reply, Refusal> {
        self.rights().need_system()?;
        let Some(token) = tables::by_id::<McpToken>(self.tables, id) else {
            return Ok(Reply::Noted);
        };
        let due = token.expires_ms == Some(expires_ms) && expires_ms <= self.now_ms;
        if token.status != TokenStatus::Active || !due {
            return Ok(Reply::Noted);
        }
        self.about(format!("mcptoken {}", self.full_name(&token)));
        self.restricts = true;
        self.free_name(&token);
        self.take_away(token, TokenStatus::Expired);
        Ok(Reply::TokenRevoked { id, already: false })
    }

    /// Ends a token's life: status, tombstone, bindings, memory, streams. Its name is the caller's business.
    pub(super) fn take_away(&mut self, mut token: McpToken, status: TokenStatus) {
        self.tables
            .remove(Table::TokenOwners, &owner_key(token.owner, token.id));
        if let Some(key) = expiry_key(&token) {
            self.tables.remove(Table::Expiries, &key);
        }
        if let Ok(definition) = self.named::<RbacDefinition>(&definition_name(token.id)) {
            self.drop_definition(&definition);
        }
        token.status = status;
        token.revoked_ms = Some(self.now_ms);
        token.origin.version = self.index;
        self.save(&token);
        self.save(&Tombstone {
            hash: token.hash,
            index: self.index,
            expires_ms: token.expires_ms,
        });
        self.effects.tokens_removed.push(token.hash);
        self.effects.cuts.push(Cut::Token(token.hash));
    }

    /// Revokes every active token of a user or service account.
    pub(super) fn revoke_tokens_of(&mut self, owner: Id) {
        let prefix = owner.to_bytes();
        loop {
            let some = self
                .tables
                .scan(Table::TokenOwners, &prefix, None, TOKENS_PER_OWNER_SCAN);
            for (key, _) in &some {
                self.tables.remove(Table::TokenOwners, key);
                if let Some(token) = tables::load::<McpToken>(self.tables, &key[prefix.len()..]) {
                    self.free_name(&token);
                    self.take_away(token, TokenStatus::Revoked);
                }
            }
            if some.len() < TOKENS_PER_OWNER_SCAN {
                return;
            }
        }
    }

    /// The token, if the actor may take it away: its owner may, and whoever may delete it.
    fn token_to_remove(&mut self, id: Id) -> Result<McpToken, Refusal> {
        let unknown = || Refusal::NotFound {
            kind: "mcptoken".to_owned(),
            name: id.to_string(),
        };
        let token: McpToken = tables::by_id(self.tables, id).ok_or_else(unknown)?;
        let full_name = self.full_name(&token);
        self.about(format!("mcptoken {full_name}"));
        self.may_remove(&token, &full_name)?;
        Ok(token)
    }

    fn may_remove(&self, token: &McpToken, full_name: &str) -> Result<(), Refusal> {
        let rights = self.rights();
        if !rights.is_token() && rights.principal() == Some(token.owner) {
            return Ok(());
        }
        rights.need(Verb::Delete, Resource::McpTokens, full_name)
    }

    fn replace_active(&mut self, project: Id, name: &str, full: &str, replace: bool) -> Result<Option<Id>, Refusal> {
        let Some(active) = tables::by_name::<McpToken>(self.tables, Table::TokenNames, &name_key(project, name)) else {
            return Ok(None);
        };
        if !replace {
            return Err(Refusal::NameTaken {
                kind: "mcptoken".to_owned(),
                name: full.to_owned(),
            });
        }
        self.may_remove(&active, full)?;
        let id = active.id;
        self.take_away(active, TokenStatus::Revoked);
        self.restricts = true;
        Ok(Some(id))
    }

    fn refuse_used(&self, hash: TokenHash, id: Id) -> Result<(), Refusal> {
        let used = self.tables.get(Table::TokenHashes, &hash.0).is_some()
            || self.tables.get(Table::Tombstones, &hash.0).is_some()
            || self.tables.get(Table::Tokens, &id.to_bytes()).is_some()
            || self.tables.get(Table::Rbac, &id.to_bytes()).is_some();
        if used {
            let why = "this bearer or id was used before".to_owned();
            return Err(Refusal::Invalid {
                field: "token".to_owned(),
                why,
            });
        }
        Ok(())
    }

    fn bindings_of(&self, grant: &TokenGrant) -> Result<Vec<RoleBinding>, Refusal> {
        let bindings = match grant {
            TokenGrant::Clone => self.rights().cloned_for_token(),
            TokenGrant::Bindings(bindings) => {
                bindings.iter().try_for_each(|b| self.rights().need_cover(b))?;
                bindings.iter().try_for_each(refuse_action)?;
                bindings.clone()
            }
        };
        if bindings.len() > TOKEN_BINDINGS_MAX {
            let why = "a token has at most 200 bindings".to_owned();
            return Err(Refusal::Invalid {
                field: "roleBindings".to_owned(),
                why,
            });
        }
        Ok(bindings)
    }

    fn define_for(&mut self, token: &McpToken, role_bindings: Vec<RoleBinding>) -> Result<(), Refusal> {
        let definition = RbacDefinition {
            id: token.id,
            name: definition_name(token.id),
            subjects: vec![Subject::McpToken(token.hash)],
            role_bindings,
            origin: self.origin(),
        };
        self.add(&definition)?;
        self.index_subjects(&definition);
        Ok(())
    }

    fn free_name(&mut self, token: &McpToken) {
        self.tables
            .remove(Table::TokenNames, &name_key(token.project, token.name.as_str()));
    }

    fn full_name(&self, token: &McpToken) -> String {
        let project: Option<Project> = tables::by_id(self.tables, token.project);
        project.map_or_else(|| format!("-/{}", token.name), |p| format!("{}/{}", p.name, token.name))
    }
}

/// What an action reaches has no project.
fn refuse_action(binding: &RoleBinding) -> Result<(), Refusal> {
    match binding {
        RoleBinding::Action(action) if !token_may_take(*action) => Err(Refusal::Invalid {
            field: "roleBindings".to_owned(),
            why: format!("a token reaches its own project only, so it cannot have {binding}"),
        }),
        RoleBinding::Action(_) | RoleBinding::On { .. } => Ok(()),
    }
}

/// The name of the definition that holds a token's bindings.
pub fn definition_name(token: Id) -> String {
    format!("{TOKEN_DEFINITION_PREFIX}{token}")
}

/// Tokens whose expiry has come, with it, the earliest first: to be taken away by whoever leads (rule 9). The time is the cluster's, which never
/// goes back, so a leader whose own clock (`wall_ms`) is behind that of an earlier one puts nothing off.
pub fn due(tables: &dyn Tables, wall_ms: u64, at_most: usize) -> Vec<(Id, u64)> {
    let cluster: Option<ClusterRecord> = tables::load(tables, &[0]);
    let now_ms = cluster.map_or(0, |c| c.time_ms).max(wall_ms);
    let rows = tables.scan(Table::Expiries, &[], None, at_most);
    let parsed = rows.iter().filter_map(|(key, _)| {
        let (at, id) = key.split_at_checked(8)?;
        Some((Id::from_slice(id)?, u64::from_be_bytes(at.try_into().ok()?)))
    });
    parsed.take_while(|(_, expires_ms)| *expires_ms <= now_ms).collect()
}

/// The key under which an active token's name is unique.
pub fn name_key(project: Id, name: &str) -> Vec<u8> {
    let mut key = project.to_bytes().to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}

/// The key under which an active token is found by its owner.
fn owner_key(owner: Id, token: Id) -> Vec<u8> {
    let mut key = owner.to_bytes().to_vec();
    key.extend_from_slice(&token.to_bytes());
    key
}

/// The key under which a token waits for its expiry.
fn expiry_key(token: &McpToken) -> Option<Vec<u8>> {
    let mut key = token.expires_ms?.to_be_bytes().to_vec();
    key.extend_from_slice(&token.id.to_bytes());
    Some(key)
}
