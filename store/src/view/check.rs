//! Whether the view is what the state says: of every token, and of whoever owns tokens. What is read while everything goes on is suspicion
//! only; certainty takes a look at both while nothing changes ([`crate::Replica::check_view`]).

use mcp_model::authority::grants_of;
use mcp_model::ids::Id;
use mcp_model::rbac::{Grants, Subject};
use mcp_model::records::{McpToken, TokenStatus};
use mcp_model::tables::{self, Table, Tables};
use mcp_model::token::TokenHash;

use super::{AuthView, Policy, TokenFacts, each_active};

impl AuthView {
    /// Tokens about which the view may be wrong: of those that the state has, and of those that it has not. `rest` is called now and
    /// then, so that whoever has more urgent work gets to it.
    pub(crate) fn suspects(&self, tables: &dyn Tables, rest: &mut dyn FnMut()) -> Vec<TokenHash> {
        let (mut suspects, mut active) = (Vec::new(), Vec::new());
        each_active(tables, rest, |token, grants| {
            active.push(short(&token.hash));
            if !self
                .token(&token.hash)
                .is_some_and(|facts| is_of(&facts, &token, &grants))
            {
                suspects.push(token.hash);
            }
        });
        active.sort_unstable();
        self.tokens.each_shard(|hashes| {
            rest();
            let unknown = hashes.filter(|hash| active.binary_search(&short(hash)).is_err());
            suspects.extend(unknown);
        });
        suspects
    }

    /// Whether what the view says of a token is what the state says. Nothing may change meanwhile.
    pub(crate) fn is_right_about(&self, tables: &dyn Tables, hash: &TokenHash) -> bool {
        let id = tables.get(Table::TokenHashes, &hash.0);
        let token: Option<McpToken> = id.and_then(|id| tables::by_id(tables, Id::from_slice(&id)?));
        let token = token.filter(|token| token.status == TokenStatus::Active && token.hash == *hash);
        match (token, self.token(hash)) {
            (None, None) => true,
            (Some(token), Some(facts)) => is_of(&facts, &token, &grants_of(tables, &Subject::McpToken(*hash))),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// Whether the view knows the same users and service accounts, what they were granted and who of them is disabled. Nothing may change
    /// meanwhile.
    pub(crate) fn is_right_about_owners(&self, tables: &dyn Tables) -> bool {
        Policy::build(tables).users == self.policy.load().users
    }
}

fn is_of(facts: &TokenFacts, token: &McpToken, grants: &Grants) -> bool {
    let whose = (facts.id(), facts.project(), facts.owner()) == (token.id, token.project, token.owner);
    // A token whose time was 0 has been over since 1970: memory has no 0.
    let ends = token.expires_ms.map(|at| at.max(1)) == facts.expires_ms();
    whose && ends && facts.grants() == grants && facts.name == token.name.as_str()
}

/// Enough to tell a million hashes apart.
fn short(hash: &TokenHash) -> u64 {
    hash.0.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
