//! The auth view: the part of the state that decides about bearers, in memory, read without a transaction.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use mcp_model::apply::Effects;
use mcp_model::authority::{Principal, grants_of};
use mcp_model::ids::Id;
use mcp_model::names::Name;
use mcp_model::rbac::{Grants, Subject};
use mcp_model::records::{McpToken, Project, Secret, Server, TokenStatus, ToolList};
use mcp_model::tables::{self, Key, Stored, Tables};
use mcp_model::token::TokenHash;

/// Records that are read at a time when the view is built.
const SCAN: usize = 4_096;

/// A token hash is already as random as bits get: eight of its bytes are its hash.
#[derive(Default, Clone, Copy)]
pub struct HashBitsHasher(u64);

impl Hasher for HashBitsHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length_prefix: usize) {}
}

/// Builds [`HashBitsHasher`]s.
pub type HashBits = BuildHasherDefault<HashBitsHasher>;

/// What is known of an active token.
#[derive(Debug)]
pub struct TokenFacts {
    /// Its id.
    pub id: Id,
    /// The one project it reaches.
    pub project: Id,
    /// Whose rights limit it.
    pub owner: Id,
    /// Its name, for the audit.
    pub name: Box<str>,
    /// When it ends by itself, ms since 1970.
    pub expires_ms: Option<u64>,
    /// What it was granted.
    pub grants: Arc<Grants>,
}

/// What is known of a user or service account.
#[derive(Debug)]
pub struct UserFacts {
    /// E-mail, or `ServiceAccount:ci`, for the audit.
    pub who: Box<str>,
    /// Whether their tokens are refused.
    pub disabled: bool,
    /// What they were granted: the ceiling of their tokens.
    pub grants: Arc<Grants>,
}

/// Users and service accounts, projects, servers and secrets, swapped as a whole.
#[derive(Default, Debug)]
pub struct Policy {
    users: HashMap<Id, Arc<UserFacts>>,
    projects: HashMap<Id, Arc<Project>>,
    project_names: HashMap<Name, Id>,
    servers: HashMap<Id, Arc<Server>>,
    secrets: HashMap<Name, Arc<Secret>>,
}

impl Policy {
    /// The user or service account with this id.
    pub fn user(&self, id: Id) -> Option<&Arc<UserFacts>> {
        self.users.get(&id)
    }

    /// Whether there is anybody: a cluster that was not initialised has no users.
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// The project with this id.
    pub fn project(&self, id: Id) -> Option<&Arc<Project>> {
        self.projects.get(&id)
    }

    /// The project of this name.
    pub fn project_named(&self, name: &str) -> Option<&Arc<Project>> {
        self.projects.get(self.project_names.get(name)?)
    }

    /// The server with this id.
    pub fn server(&self, id: Id) -> Option<&Arc<Server>> {
        self.servers.get(&id)
    }

    /// Every server.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.servers.values()
    }

    /// The servers that are attached to a project, in its order.
    pub fn attached<'a>(&'a self, project: &'a Project) -> impl Iterator<Item = &'a Arc<Server>> {
        project.spec.servers.iter().filter_map(|id| self.servers.get(id))
    }

    /// The secret of this name, with its values sealed.
    pub fn secret(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(name)
    }

    fn build(tables: &dyn Tables) -> Policy {
        let mut policy = Policy::default();
        each(tables, |user| policy.know(tables, &Principal::User(user)));
        each(tables, |account| {
            policy.know(tables, &Principal::ServiceAccount(account))
        });
        each(tables, |project: Project| {
            policy.project_names.insert(project.name.clone(), project.id);
            policy.projects.insert(project.id, Arc::new(project));
        });
        each(tables, |server: Server| {
            policy.servers.insert(server.id, Arc::new(server));
        });
        each(tables, |secret: Secret| {
            policy.secrets.insert(secret.name.clone(), Arc::new(secret));
        });
        policy
    }

    fn know(&mut self, tables: &dyn Tables, principal: &Principal) {
        let facts = UserFacts {
            who: principal.who().into(),
            disabled: principal.is_disabled(),
            grants: Arc::new(principal.grants(tables)),
        };
        self.users.insert(principal.id(), Arc::new(facts));
    }
}

/// The lists of all servers, swapped as a whole.
pub type Lists = HashMap<Id, Arc<ToolList>>;

/// Tokens by hash, and the policy around them.
#[derive(Default)]
pub struct AuthView {
    tokens: DashMap<TokenHash, Arc<TokenFacts>, HashBits>,
    policy: ArcSwap<Policy>,
    lists: ArcSwap<Lists>,
}

impl AuthView {
    /// The active token of this hash. The caller compares the lease *after* this.
    pub fn token(&self, hash: &TokenHash) -> Option<Arc<TokenFacts>> {
        let entry = self.tokens.get(hash)?;
        entry.key().same_as(hash).then(|| Arc::clone(entry.value()))
    }

    /// How many active tokens there are.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Users, projects and servers as they are now.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The same for a short look, without counting references.
    pub fn policy_ref(&self) -> arc_swap::Guard<Arc<Policy>> {
        self.policy.load()
    }

    /// The lists of all servers as they are now.
    pub fn lists(&self) -> Arc<Lists> {
        self.lists.load_full()
    }

    /// Builds everything anew from the state.
    pub(crate) fn rebuild(&self, tables: &dyn Tables) {
        let mut lists = Lists::new();
        each(tables, |list: ToolList| {
            lists.insert(list.server, Arc::new(list));
        });
        let mut active = HashSet::new();
        each(tables, |token: McpToken| {
            if token.status == TokenStatus::Active {
                active.insert(token.hash);
            }
        });
        // Who stays is never missing in between: a bearer that is admitted before and after is admitted all along.
        self.tokens.retain(|hash, _| active.contains(hash));
        self.policy.store(Arc::new(Policy::build(tables)));
        self.lists.store(Arc::new(lists));
        each(tables, |token: McpToken| self.learn(tables, &token));
        self.tokens.shrink_to_fit();
    }

    /// Carries over what a batch of commands has changed. First what went, then the policy, then what came: at no moment
    /// does a bearer meet a policy that was never in force together with it.
    pub(crate) fn update(&self, tables: &dyn Tables, effects: &Effects) {
        for hash in &effects.tokens_removed {
            self.tokens.remove(hash);
        }
        if effects.policy_changed {
            self.policy.store(Arc::new(Policy::build(tables)));
        }
        if !effects.lists_changed.is_empty() {
            self.update_lists(tables, &effects.lists_changed);
        }
        for id in &effects.tokens_changed {
            if let Some(token) = tables::by_id::<McpToken>(tables, *id) {
                self.learn(tables, &token);
            }
        }
    }

    fn update_lists(&self, tables: &dyn Tables, changed: &[Id]) {
        let mut lists = Lists::clone(&self.lists.load());
        for id in changed {
            match tables::by_id::<ToolList>(tables, *id) {
                Some(list) => lists.insert(*id, Arc::new(list)),
                None => lists.remove(id),
            };
        }
        self.lists.store(Arc::new(lists));
    }

    fn learn(&self, tables: &dyn Tables, token: &McpToken) {
        if token.status != TokenStatus::Active {
            return;
        }
        let facts = TokenFacts {
            id: token.id,
            project: token.project,
            owner: token.owner,
            name: token.name.as_str().into(),
            expires_ms: token.expires_ms,
            grants: Arc::new(grants_of(tables, &Subject::McpToken(token.hash))),
        };
        self.tokens.insert(token.hash, Arc::new(facts));
    }
}

/// Hands every record of a kind to `f`.
fn each<T: Stored>(tables: &dyn Tables, mut f: impl FnMut(T)) {
    let mut after: Option<Key> = None;
    loop {
        let some: Vec<T> = tables::list(tables, after.as_deref(), SCAN);
        let full = some.len() == SCAN;
        after = some.last().map(Stored::key);
        some.into_iter().for_each(&mut f);
        if !full {
            return;
        }
    }
}
