//! The auth view: the part of the state that decides about bearers, in memory, read without a transaction.

mod check;
mod tokens;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use mcp_model::apply::Effects;
use mcp_model::apply::rbac::TOKEN_DEFINITION_PREFIX;
use mcp_model::authority::{Principal, grants_of};
use mcp_model::ids::Id;
use mcp_model::limits::{ProjectLimits, ProjectLimitsRecord, ServerLimits, ServerLimitsRecord};
use mcp_model::names::Name;
use mcp_model::rbac::{Grants, Subject};
use mcp_model::records::{McpToken, Project, RbacDefinition, Secret, Server, TokenStatus, ToolList};
use mcp_model::tables::{self, Key, Stored, Table, Tables};
use mcp_model::token::TokenHash;
use mcp_model::watch::ToolWatch;

pub use self::tokens::TokenFacts;
use self::tokens::{Token, Tokens};

/// Records that are read at a time when the view is built.
const SCAN: usize = 4_096;

/// A token hash is already as random as bits get, and so is the end of an id that a node has drawn: eight of their bytes are the
/// hash.
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

/// What is known of a user or service account.
#[derive(Debug, PartialEq, Eq)]
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
    users: HashMap<Id, Arc<UserFacts>, HashBits>,
    projects: HashMap<Id, Arc<Project>, HashBits>,
    project_names: HashMap<Name, Id>,
    servers: HashMap<Id, Arc<Server>, HashBits>,
    secrets: HashMap<Name, Arc<Secret>>,
    server_limits: HashMap<Id, ServerLimits, HashBits>,
    project_limits: HashMap<Id, Arc<ProjectLimits>, HashBits>,
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

    /// The limits that were written for a server.
    pub fn server_limits(&self, id: Id) -> ServerLimits {
        self.server_limits.get(&id).copied().unwrap_or_default()
    }

    /// The limits that were written for a project, if any were.
    pub fn project_limits(&self, id: Id) -> Option<&Arc<ProjectLimits>> {
        self.project_limits.get(&id)
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
        each(tables, |limited: ServerLimitsRecord| {
            policy.server_limits.insert(limited.server, limited.limits);
        });
        each(tables, |limited: ProjectLimitsRecord| {
            policy.project_limits.insert(limited.project, Arc::new(limited.limits));
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

/// What is known of a server's lists, and of what its tools look like: both from one moment.
#[derive(Debug)]
pub struct Known {
    /// The lists.
    pub list: ToolList,
    /// What its tools look like; `None`: nobody has reported that yet.
    pub watch: Option<ToolWatch>,
}

impl Known {
    fn read(tables: &dyn Tables, list: ToolList) -> Arc<Known> {
        let watch = tables::by_id(tables, list.server);
        Arc::new(Known { list, watch })
    }
}

/// The lists of all servers, swapped as a whole.
pub type Lists = HashMap<Id, Arc<Known>>;

/// Tokens by hash, and the policy around them.
#[derive(Default)]
pub struct AuthView {
    tokens: Tokens,
    policy: ArcSwap<Policy>,
    lists: ArcSwap<Lists>,
}

impl AuthView {
    /// The active token of this hash. The caller compares the lease *after* this.
    pub fn token(&self, hash: &TokenHash) -> Option<Arc<TokenFacts>> {
        self.tokens.get(hash)
    }

    /// Whether there is an active token of this hash.
    pub fn knows(&self, hash: &TokenHash) -> bool {
        self.tokens.has(hash)
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
            lists.insert(list.server, Known::read(tables, list));
        });
        if self.tokens.len() > 0 {
            self.forget_all_but_active(tables);
        }
        self.policy.store(Arc::new(Policy::build(tables)));
        self.lists.store(Arc::new(lists));
        self.learn_all(tables);
    }

    /// Who stays is never missing in between: a bearer that is admitted before and after is admitted all along.
    fn forget_all_but_active(&self, tables: &dyn Tables) {
        let mut active = HashSet::new();
        each(tables, |token: McpToken| {
            if token.status == TokenStatus::Active {
                active.insert(token.hash);
            }
        });
        self.tokens.retain(|hash| active.contains(hash));
    }

    fn learn_all(&self, tables: &dyn Tables) {
        each_active(tables, &mut || {}, |token, grants| self.learn(token, grants));
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
            let token: Option<McpToken> = tables::by_id(tables, *id);
            if let Some(token) = token.filter(|token| token.status == TokenStatus::Active) {
                let grants = grants_of(tables, &Subject::McpToken(token.hash));
                self.learn(token, grants);
            }
        }
    }

    fn update_lists(&self, tables: &dyn Tables, changed: &[Id]) {
        let mut lists = Lists::clone(&self.lists.load());
        for id in changed {
            match tables::by_id::<ToolList>(tables, *id) {
                Some(list) => lists.insert(*id, Known::read(tables, list)),
                None => lists.remove(id),
            };
        }
        self.lists.store(Arc::new(lists));
    }

    /// Knows a token that the state does not have, as no fault of a disk would have it.
    #[cfg(any(test, feature = "faults"))]
    pub(crate) fn alter(&self, token: McpToken) {
        self.learn(token, Grants::default());
    }

    fn learn(&self, token: McpToken, grants: Grants) {
        self.tokens.insert(Token {
            hash: token.hash,
            id: token.id,
            name: token.name.as_str().into(),
            expires_ms: token.expires_ms,
            project: token.project,
            owner: token.owner,
            grants,
        });
    }
}

/// Definitions in the order of their ids, for somebody who comes in that order too.
struct Definitions<'a> {
    tables: &'a dyn Tables,
    ahead: VecDeque<RbacDefinition>,
    after: Option<Key>,
    read_all: bool,
}

impl Definitions<'_> {
    fn new(tables: &dyn Tables) -> Definitions<'_> {
        Definitions {
            tables,
            ahead: VecDeque::new(),
            after: None,
            read_all: false,
        }
    }

    /// The definition with this id. Ids must come in ascending order.
    fn of(&mut self, id: Id) -> Option<RbacDefinition> {
        loop {
            if self.ahead.is_empty() && !self.read_all {
                self.ahead = tables::list(self.tables, self.after.as_deref(), SCAN).into();
                self.after = self.ahead.back().map(Stored::key);
                self.read_all = self.ahead.len() < SCAN;
            }
            match self.ahead.front()?.id.to_bytes().cmp(&id.to_bytes()) {
                Ordering::Less => drop(self.ahead.pop_front()),
                Ordering::Equal => return self.ahead.pop_front(),
                Ordering::Greater => return None,
            }
        }
    }
}

/// The tokens that are subjects of definitions besides their own.
fn tokens_named_by_people(tables: &dyn Tables) -> HashSet<TokenHash> {
    let own = TOKEN_DEFINITION_PREFIX.as_bytes();
    let mut named = HashSet::new();
    let mut after: Option<Key> = None;
    loop {
        let some = tables.scan(Table::RbacNames, &[], after.as_deref(), SCAN);
        let by_people = some.iter().filter(|(name, _)| !name.starts_with(own));
        for definition in by_people.filter_map(|(_, id)| tables::load::<RbacDefinition>(tables, id)) {
            named.extend(definition.subjects.iter().filter_map(|subject| match subject {
                Subject::McpToken(hash) => Some(*hash),
                Subject::User(_) | Subject::Group(_) | Subject::ServiceAccount(_) => None,
            }));
        }
        let Some((last, _)) = some.last() else { return named };
        // The names of tokens' own definitions are many and stand together.
        after = Some(match last.starts_with(own) {
            true => [own, &[0xff]].concat(),
            false => last.clone(),
        });
    }
}

/// Rows after which whoever reads many of them lets others go on.
const ROWS_AT_A_STRETCH: u64 = 1_024;

/// Every active token and what it was granted. The definition that holds a token's own bindings has the token's id, so both tables are read
/// side by side, in order, instead of looking a million definitions up one by one. `rest` is called after each stretch of rows.
fn each_active(tables: &dyn Tables, rest: &mut dyn FnMut(), mut f: impl FnMut(McpToken, Grants)) {
    let also_named = tokens_named_by_people(tables);
    let mut definitions = Definitions::new(tables);
    let mut rows = 0_u64;
    each(tables, |token: McpToken| {
        rows += 1;
        if rows.is_multiple_of(ROWS_AT_A_STRETCH) {
            rest();
        }
        let own = definitions.of(token.id);
        if token.status != TokenStatus::Active {
            return;
        }
        let grants = match also_named.contains(&token.hash) {
            true => grants_of(tables, &Subject::McpToken(token.hash)),
            false => own.into_iter().flat_map(|own| own.role_bindings).collect(),
        };
        f(token, grants);
    });
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
