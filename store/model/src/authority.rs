//! Who an actor is and what they may do, worked out from the state: used by the API before it proposes a command and by
//! `apply` when it carries one out, so that nothing slips through between the two.

use crate::command::{Actor, Need, Refusal};
use crate::ids::Id;
use crate::rbac::{Action, Grants, Resource, RoleBinding, Subject, Verb};
use crate::records::{Group, McpToken, Project, RbacDefinition, Server, ServiceAccount, TokenStatus, User};
use crate::tables::{self, Table, Tables};

/// Definitions of one subject. More are refused: what a check did not read could come into force later.
pub(crate) const DEFINITIONS_PER_SUBJECT_MAX: usize = 1_000;
/// Groups of one user. More are refused, for the same reason.
pub(crate) const GROUPS_PER_USER_MAX: usize = 1_000;

/// What one actor may do right now.
#[derive(Debug, Clone)]
pub struct Rights {
    who: String,
    principal: Option<Id>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    System,
    /// A user or service account.
    Principal(Grants),
    Token {
        own: Grants,
        owner: Grants,
        guard: Guard,
    },
}

/// What a token reaches: its own project and what is attached there.
#[derive(Debug, Clone)]
struct Guard {
    project: String,
    servers: Vec<String>,
}

/// Resources that a token never changes, whatever it was granted: a leaked token cannot mint its successor.
const NEVER_WRITTEN_BY_TOKENS: [Resource; 8] = [
    Resource::McpTokens,
    Resource::Rbac,
    Resource::Users,
    Resource::Groups,
    Resource::ServiceAccounts,
    Resource::Secrets,
    Resource::Sessions,
    Resource::Nodes,
];

impl Rights {
    /// What `actor` may do. `None`: unknown, disabled, revoked; nothing at all.
    pub fn of(tables: &(impl Tables + ?Sized), actor: &Actor, now_ms: u64) -> Option<Rights> {
        match actor {
            Actor::System => Some(Rights {
                who: "system".to_owned(),
                principal: None,
                kind: Kind::System,
            }),
            Actor::User(id) => {
                let user: User = tables::by_id(tables, *id)?;
                Rights::of_principal(tables, &Principal::User(user))
            }
            Actor::ServiceAccount(id) => {
                let account: ServiceAccount = tables::by_id(tables, *id)?;
                Rights::of_principal(tables, &Principal::ServiceAccount(account))
            }
            Actor::Token(hash) => {
                let token: McpToken = tables::by_name(tables, Table::TokenHashes, &hash.0)?;
                let due = token.expires_ms.is_some_and(|at| now_ms >= at);
                if token.status != TokenStatus::Active || due {
                    return None;
                }
                let owner = Principal::of(tables, token.owner).filter(|p| !p.is_disabled())?;
                let project: Project = tables::by_id(tables, token.project)?;
                let servers = project
                    .spec
                    .servers
                    .iter()
                    .filter_map(|id| tables::by_id::<Server>(tables, *id));
                let guard = Guard {
                    project: project.name.to_string(),
                    servers: servers.map(|s| s.name.to_string()).collect(),
                };
                let own = grants_of(tables, &Subject::McpToken(token.hash));
                let kind = Kind::Token {
                    own,
                    owner: owner.grants(tables),
                    guard,
                };
                Some(Rights {
                    who: format!("mcptoken {}/{}", project.name, token.name),
                    principal: Some(token.owner),
                    kind,
                })
            }
        }
    }

    fn of_principal(tables: &(impl Tables + ?Sized), principal: &Principal) -> Option<Rights> {
        (!principal.is_disabled()).then(|| Rights {
            who: principal.who(),
            principal: Some(principal.id()),
            kind: Kind::Principal(principal.grants(tables)),
        })
    }

    /// The actor as people write it.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Id of the user or service account that the actor is or belongs to.
    pub fn principal(&self) -> Option<Id> {
        self.principal
    }

    /// Whether the actor is a token.
    pub fn is_token(&self) -> bool {
        matches!(self.kind, Kind::Token { .. })
    }

    /// Whether `verb` is allowed on this `name` of `resource`.
    pub fn allow(&self, verb: Verb, resource: Resource, name: &str) -> bool {
        match &self.kind {
            Kind::System => true,
            Kind::Principal(grants) => grants.allow(verb, resource, name),
            Kind::Token { own, owner, guard } => {
                guard.lets(verb, resource, name) && own.allow(verb, resource, name) && owner.allow(verb, resource, name)
            }
        }
    }

    /// Whether `verb` may be allowed on any name of `resource`: whether a list can hold anything at all. Only a decision on
    /// a name is final.
    pub fn allow_some(&self, verb: Verb, resource: Resource) -> bool {
        match &self.kind {
            Kind::System => true,
            Kind::Principal(grants) => grants.allow_some(verb, resource),
            Kind::Token { own, owner, .. } => {
                Guard::reaches(resource) && own.allow_some(verb, resource) && owner.allow_some(verb, resource)
            }
        }
    }

    /// What the actor itself was granted, for people: the owner of a token and its project limit this further.
    pub fn bindings(&self) -> &[RoleBinding] {
        match &self.kind {
            Kind::System => &[],
            Kind::Principal(grants) => grants.bindings(),
            Kind::Token { own, .. } => own.bindings(),
        }
    }

    /// Whether the action is allowed. What an action reaches has no project, so a token has none but to read logs, which are
    /// of a server.
    pub fn allow_action(&self, action: Action) -> bool {
        match &self.kind {
            Kind::System => true,
            Kind::Principal(grants) => grants.allow_action(action),
            Kind::Token { own, owner, .. } => {
                token_may_take(action) && own.allow_action(action) && owner.allow_action(action)
            }
        }
    }

    /// Whether the actor holds everything that `wanted` would give.
    pub fn cover(&self, wanted: &RoleBinding) -> bool {
        match &self.kind {
            Kind::System => true,
            Kind::Principal(grants) => grants.cover(wanted),
            Kind::Token { own, owner, .. } => own.cover(wanted) && owner.cover(wanted),
        }
    }

    /// The actor's own bindings without what a token never has: what `--rbac clone` gives.
    pub fn cloned_for_token(&self) -> Vec<RoleBinding> {
        let grants = match &self.kind {
            Kind::System => return Vec::new(),
            Kind::Principal(grants) => grants,
            Kind::Token { own, .. } => own,
        };
        grants
            .bindings()
            .iter()
            .filter(|b| token_may_hold(b))
            .cloned()
            .collect()
    }

    /// Refuses unless the right is there.
    pub fn need(&self, verb: Verb, resource: Resource, name: &str) -> Result<(), Refusal> {
        if self.allow(verb, resource, name) {
            return Ok(());
        }
        Err(self.lacks(&Need::On(verb, resource, name.to_owned())))
    }

    /// Refuses unless the action is allowed.
    pub fn need_action(&self, action: Action) -> Result<(), Refusal> {
        if self.allow_action(action) {
            return Ok(());
        }
        Err(self.lacks(&Need::Action(action)))
    }

    /// Refuses unless the actor may change who is in the cluster. A token never may, whatever it was granted.
    pub fn need_cluster(&self) -> Result<(), Refusal> {
        if self.is_token() {
            return Err(self.lacks(&Need::Action(Action::Cluster)));
        }
        self.need_action(Action::Cluster)
    }

    /// Refuses unless the actor may restore a backup, which decides about everything. A token never may.
    pub fn need_restore(&self) -> Result<(), Refusal> {
        if self.is_token() || !self.cover(&RoleBinding::Action(Action::Restore)) {
            return Err(self.lacks(&Need::Action(Action::Restore)));
        }
        Ok(())
    }

    /// Refuses unless the actor holds all that `wanted` would give.
    pub fn need_cover(&self, wanted: &RoleBinding) -> Result<(), Refusal> {
        if self.cover(wanted) {
            return Ok(());
        }
        Err(self.lacks(&Need::Covering(wanted.clone())))
    }

    /// Refuses unless the actor holds everything that `conferred` gives (rule 4).
    pub fn need_all_of(&self, conferred: &Grants) -> Result<(), Refusal> {
        conferred.bindings().iter().try_for_each(|b| self.need_cover(b))
    }

    /// Refuses unless the cluster itself asks.
    pub fn need_system(&self) -> Result<(), Refusal> {
        if matches!(self.kind, Kind::System) {
            Ok(())
        } else {
            Err(Refusal::Reserved)
        }
    }

    fn lacks(&self, need: &Need) -> Refusal {
        Refusal::Forbidden {
            who: self.who.clone(),
            need: need.to_string(),
        }
    }
}

impl Guard {
    /// Whether anything of this kind belongs to a project at all. The rest is the cluster's.
    fn reaches(resource: Resource) -> bool {
        match resource {
            Resource::Projects | Resource::Servers | Resource::Tools | Resource::Prompts | Resource::Audit => true,
            Resource::Users
            | Resource::Groups
            | Resource::ServiceAccounts
            | Resource::Secrets
            | Resource::McpTokens
            | Resource::Rbac
            | Resource::Nodes
            | Resource::ProxyModels
            | Resource::Sessions
            | Resource::Any => false,
        }
    }

    fn lets(&self, verb: Verb, resource: Resource, name: &str) -> bool {
        if verb != Verb::See && verb != Verb::Use && NEVER_WRITTEN_BY_TOKENS.contains(&resource) {
            return false;
        }
        let server = name.split_once('/').map_or(name, |(server, _)| server);
        match resource {
            Resource::Projects => name == self.project,
            Resource::Servers | Resource::Tools | Resource::Prompts => self.servers.iter().any(|s| s == server),
            Resource::Audit => server == self.project,
            Resource::Users
            | Resource::Groups
            | Resource::ServiceAccounts
            | Resource::Secrets
            | Resource::McpTokens
            | Resource::Rbac
            | Resource::Nodes
            | Resource::ProxyModels
            | Resource::Sessions
            | Resource::Any => false,
        }
    }
}

/// Whether a binding is one that a token can hold at all. `*` stays: it is narrowed at each decision.
fn token_may_hold(binding: &RoleBinding) -> bool {
    match binding {
        RoleBinding::Action(_) => false,
        RoleBinding::On { resource, .. } => !NEVER_WRITTEN_BY_TOKENS.contains(resource),
    }
}

/// Whether a token can take an action at all.
pub(crate) fn token_may_take(action: Action) -> bool {
    action == Action::Logs
}

/// Whoever holds sessions and owns tokens.
#[derive(Debug, Clone)]
pub enum Principal {
    /// A person.
    User(User),
    /// A program.
    ServiceAccount(ServiceAccount),
}

impl Principal {
    /// The user or service account with this id. None has the id of another.
    pub fn of(tables: &(impl Tables + ?Sized), id: Id) -> Option<Principal> {
        tables::by_id(tables, id)
            .map(Principal::User)
            .or_else(|| tables::by_id(tables, id).map(Principal::ServiceAccount))
    }

    /// Its id.
    pub fn id(&self) -> Id {
        match self {
            Principal::User(user) => user.id,
            Principal::ServiceAccount(account) => account.id,
        }
    }

    /// As people write it: `alice@test.com`, `ServiceAccount:ci`.
    pub fn who(&self) -> String {
        match self {
            Principal::User(user) => user.email.to_string(),
            Principal::ServiceAccount(account) => Subject::ServiceAccount(account.name.clone()).to_string(),
        }
    }

    /// E-mail or name: what bindings on `sessions` call its sessions. No name is an e-mail.
    pub fn name(&self) -> &str {
        match self {
            Principal::User(user) => user.email.as_str(),
            Principal::ServiceAccount(account) => account.name.as_str(),
        }
    }

    /// Whether its sessions and tokens are refused.
    pub fn is_disabled(&self) -> bool {
        match self {
            Principal::User(user) => user.disabled,
            Principal::ServiceAccount(_) => false,
        }
    }

    /// What it was granted: the ceiling of its tokens.
    pub fn grants(&self, tables: &(impl Tables + ?Sized)) -> Grants {
        match self {
            Principal::User(user) => grants_of_user(tables, user),
            Principal::ServiceAccount(account) => grants_of(tables, &Subject::ServiceAccount(account.name.clone())),
        }
    }
}

/// What a user was granted, by name and by group.
pub fn grants_of_user(tables: &(impl Tables + ?Sized), user: &User) -> Grants {
    let subjects = subjects_of_user(tables, user);
    subjects
        .iter()
        .flat_map(|subject| grants_of(tables, subject).into_bindings())
        .collect()
}

/// Under what names a user is granted things.
pub(crate) fn subjects_of_user(tables: &(impl Tables + ?Sized), user: &User) -> Vec<Subject> {
    let groups = groups_of(tables, user.id).into_iter().map(|g| Subject::Group(g.name));
    [Subject::User(user.email.clone())].into_iter().chain(groups).collect()
}

/// The groups that a user is in.
pub fn groups_of(tables: &(impl Tables + ?Sized), user: Id) -> Vec<Group> {
    let prefix = user.to_bytes();
    let rows = tables.scan(Table::GroupMembers, &prefix, None, GROUPS_PER_USER_MAX);
    rows.iter()
        .filter_map(|(key, _)| tables::load(tables, &key[prefix.len()..]))
        .collect()
}

/// What one subject was granted.
pub fn grants_of(tables: &(impl Tables + ?Sized), subject: &Subject) -> Grants {
    let prefix = subject_prefix(subject);
    let rows = tables.scan(Table::RbacSubjects, &prefix, None, DEFINITIONS_PER_SUBJECT_MAX);
    let definitions = rows
        .iter()
        .filter_map(|(key, _)| tables::load::<RbacDefinition>(tables, &key[prefix.len()..]));
    definitions.flat_map(|d| d.role_bindings).collect()
}

/// The part of a `RbacSubjects` key that stands for the subject.
pub(crate) fn subject_prefix(subject: &Subject) -> Vec<u8> {
    let mut key = subject.to_string().into_bytes();
    key.push(0);
    key
}
