//! Active tokens by the hash of their bearer: many, small, looked up for every request.
//!
//! A million of them are meant to fit beside everything else, so what tokens have in common is kept once: a token points to its
//! *scope* (project, owner, bindings), and the table holds pointers whose keys stand in what they point to.

use std::collections::HashSet;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;
use mcp_model::ids::Id;
use mcp_model::rbac::Grants;
use mcp_model::token::TokenHash;
use smol_str::SmolStr;

/// Parts of the table that are locked one by one.
const SHARDS: usize = 64;
/// Scopes that may be without a token before they are looked for.
const UNUSED_SCOPES_MAX: usize = 1_024;

/// What is known of an active token. In this order, so that what a decision reads comes first and together.
#[derive(Debug)]
#[repr(C)]
pub struct TokenFacts {
    hash: TokenHash,
    scope: Arc<Scope>,
    expires_ms: Option<NonZeroU64>,
    /// Its id, as bytes: a number of this size would pad every token to its alignment.
    id: [u8; 16],
    /// Its name, for the audit.
    pub name: SmolStr,
}

/// What tokens have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Scope {
    project: Id,
    owner: Id,
    grants: Arc<Grants>,
}

impl TokenFacts {
    /// Its id.
    pub fn id(&self) -> Id {
        Id::from_u128(u128::from_be_bytes(self.id))
    }

    /// The one project it reaches.
    pub fn project(&self) -> Id {
        self.scope.project
    }

    /// Whose rights limit it.
    pub fn owner(&self) -> Id {
        self.scope.owner
    }

    /// What it was granted.
    pub fn grants(&self) -> &Grants {
        &self.scope.grants
    }

    /// When it ends by itself, ms since 1970.
    pub fn expires_ms(&self) -> Option<u64> {
        self.expires_ms.map(NonZeroU64::get)
    }
}

/// A token as it is put into the table.
pub(super) struct Token {
    pub(super) hash: TokenHash,
    pub(super) id: Id,
    pub(super) name: SmolStr,
    pub(super) expires_ms: Option<u64>,
    pub(super) project: Id,
    pub(super) owner: Id,
    pub(super) grants: Grants,
}

/// The table.
pub(super) struct Tokens {
    shards: Vec<RwLock<HashTable<Arc<TokenFacts>>>>,
    common: Mutex<Common>,
}

/// Scopes and bindings that tokens point to.
#[derive(Default)]
struct Common {
    scopes: HashSet<Arc<Scope>>,
    grants: HashSet<Arc<Grants>>,
    /// Scopes after the last tidying.
    tidy: usize,
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            common: Mutex::default(),
        }
    }
}

impl Tokens {
    /// The token of this hash.
    pub(super) fn get(&self, hash: &TokenHash) -> Option<Arc<TokenFacts>> {
        let shard = self.read(hash);
        shard.find(bits(hash), |token| token.hash.same_as(hash)).cloned()
    }

    /// Whether there is one of this hash.
    pub(super) fn has(&self, hash: &TokenHash) -> bool {
        let shard = self.read(hash);
        shard.find(bits(hash), |token| token.hash.same_as(hash)).is_some()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        let len =
            |shard: &RwLock<HashTable<Arc<TokenFacts>>>| shard.read().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(len).sum()
    }

    /// Puts a token in the place of what stood under its hash.
    pub(super) fn insert(&self, token: Token) {
        let hash = token.hash;
        let facts = Arc::new(TokenFacts {
            hash,
            id: token.id.to_bytes(),
            name: token.name,
            // A token whose time was 0 has been over since 1970.
            expires_ms: token
                .expires_ms
                .map(|at| NonZeroU64::new(at).unwrap_or(NonZeroU64::MIN)),
            scope: self.scope(token.project, token.owner, token.grants),
        });
        let mut shard = self.write(&hash);
        match shard.find_mut(bits(&hash), |token| token.hash == hash) {
            Some(place) => *place = facts,
            None => {
                shard.insert_unique(bits(&hash), facts, |token| bits(&token.hash));
            }
        }
    }

    pub(super) fn remove(&self, hash: &TokenHash) {
        let mut shard = self.write(hash);
        if let Ok(found) = shard.find_entry(bits(hash), |token| token.hash == *hash) {
            found.remove();
        }
    }

    /// Keeps the tokens whose hashes `stays` says yes to.
    pub(super) fn retain(&self, stays: impl Fn(&TokenHash) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|token| stays(&token.hash));
            shard.shrink_to_fit(|token| bits(&token.hash));
        }
    }

    /// Hands out the hashes of all tokens, one part of the table after the other.
    pub(super) fn each_shard(&self, mut f: impl FnMut(&mut dyn Iterator<Item = TokenHash>)) {
        for shard in &self.shards {
            // Not while it is looked through, or whoever writes waits for that, and behind them whoever reads.
            let hashes: Vec<TokenHash> = {
                let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
                shard.iter().map(|token| token.hash).collect()
            };
            f(&mut hashes.into_iter());
        }
    }

    fn scope(&self, project: Id, owner: Id, grants: Grants) -> Arc<Scope> {
        let mut common = self.common.lock().unwrap_or_else(PoisonError::into_inner);
        common.tidy_now_and_then();
        let grants = shared(&mut common.grants, grants);
        let scope = Scope { project, owner, grants };
        shared(&mut common.scopes, scope)
    }

    fn read(&self, hash: &TokenHash) -> RwLockReadGuard<'_, HashTable<Arc<TokenFacts>>> {
        self.shards[shard(hash)].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, hash: &TokenHash) -> RwLockWriteGuard<'_, HashTable<Arc<TokenFacts>>> {
        self.shards[shard(hash)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Common {
    /// Forgets what no token points to any more, when much has come since the last time.
    fn tidy_now_and_then(&mut self) {
        if self.scopes.len() < 2 * self.tidy + UNUSED_SCOPES_MAX {
            return;
        }
        self.scopes.retain(|scope| Arc::strong_count(scope) > 1);
        self.grants.retain(|grants| Arc::strong_count(grants) > 1);
        self.tidy = self.scopes.len();
    }
}

/// The one that is kept of all that are equal to `value`.
fn shared<T: Eq + std::hash::Hash>(kept: &mut HashSet<Arc<T>>, value: T) -> Arc<T> {
    if let Some(known) = kept.get(&value) {
        return known.clone();
    }
    let value = Arc::new(value);
    kept.insert(value.clone());
    value
}

/// A token's hash is already as random as bits get.
fn bits(hash: &TokenHash) -> u64 {
    let (first, _) = hash.0.split_first_chunk::<8>().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first)
}

/// Other bits than those that the table uses.
fn shard(hash: &TokenHash) -> usize {
    usize::from(hash.0[8]) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u8, owner: u128) -> Token {
        Token {
            hash: TokenHash([number; 32]),
            id: Id::from_u128(number.into()),
            name: "ci".into(),
            expires_ms: None,
            project: Id::from_u128(1),
            owner: Id::from_u128(owner),
            grants: Grants::default(),
        }
    }

    #[test]
    fn tokens_are_found_replaced_and_removed() {
        let tokens = Tokens::default();
        for number in 0..=255 {
            tokens.insert(token(number, 7));
        }
        tokens.insert(token(9, 8));
        assert_eq!(tokens.len(), 256);
        assert_eq!(tokens.get(&TokenHash([9; 32])).unwrap().owner(), Id::from_u128(8));
        tokens.remove(&TokenHash([9; 32]));
        assert!(tokens.get(&TokenHash([9; 32])).is_none());
        tokens.retain(|hash| hash.0[0] < 10);
        assert_eq!(tokens.len(), 9);
        assert!(tokens.get(&TokenHash([8; 32])).is_some());
        assert!(tokens.get(&TokenHash([10; 32])).is_none());
    }

    #[test]
    fn hashes_that_begin_alike_are_told_apart() {
        let tokens = Tokens::default();
        let (mut one, mut other) = (token(1, 7), token(1, 8));
        one.hash.0[31] = 0;
        other.hash.0[31] = 2;
        let (one_hash, other_hash) = (one.hash, other.hash);
        tokens.insert(one);
        tokens.insert(other);
        assert_eq!(tokens.get(&one_hash).unwrap().owner(), Id::from_u128(7));
        assert_eq!(tokens.get(&other_hash).unwrap().owner(), Id::from_u128(8));
        assert!(tokens.get(&TokenHash([1; 32])).is_none());
    }

    #[test]
    fn what_tokens_have_in_common_is_kept_once_and_not_for_ever() {
        let tokens = Tokens::default();
        for number in 0..100 {
            tokens.insert(token(number, 7));
        }
        assert_eq!(tokens.common.lock().unwrap().scopes.len(), 1);
        for owner in 0..10_000 {
            tokens.insert(token(0, owner));
        }
        assert!(tokens.common.lock().unwrap().scopes.len() <= UNUSED_SCOPES_MAX + 4);
    }

    #[test]
    fn a_token_is_small() {
        // With the two counters of its pointer. A name of up to 23 bytes stands in it.
        assert!(std::mem::size_of::<TokenFacts>() + 16 <= 104);
    }
}
